//! The API on TCP: with TLS and a token, or not at all.

use super::Trouble;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::AUTHORIZATION;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum_server::tls_rustls::RustlsConfig;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use subtle::ConstantTimeEq;

/// Characters that a token has at least.
const TOKEN_MIN: usize = 16;

/// Where, and who may.
#[derive(Debug, Clone)]
pub struct Remote {
    /// The address.
    pub listen: SocketAddr,
    /// The certificate chain, PEM.
    pub certificate: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
    /// A file whose text is the token that callers send, which nobody but its owner may read.
    pub token: PathBuf,
}

/// Serves it until the process ends. What is wrong with the files, or the address, is an error now.
pub(super) async fn serve(remote: &Remote, router: Router) -> Result<(), Trouble> {
    let token: Arc<str> = read_token(&remote.token)?.into();
    // Where another part of the process has chosen one already, that is used.
    drop(rustls::crypto::ring::default_provider().install_default());
    let failed = |what: &dyn std::fmt::Display, error: std::io::Error| {
        Trouble::Settings(format!("{what}: {error}"))
    };
    let config = RustlsConfig::from_pem_file(&remote.certificate, &remote.key)
        .await
        .map_err(|error| {
            let files = format!(
                "{} and {}",
                remote.certificate.display(),
                remote.key.display()
            );
            failed(&files, error)
        })?;
    let listener = TcpListener::bind(remote.listen).map_err(|e| failed(&remote.listen, e))?;
    listener
        .set_nonblocking(true)
        .map_err(|e| failed(&remote.listen, e))?;
    let router = router.layer(from_fn_with_state(token, admit));
    let server = axum_server::from_tcp_rustls(listener, config);
    let server = server.map_err(|e| failed(&remote.listen, e))?;
    tokio::spawn(async move {
        let ended = server.serve(router.into_make_service()).await;
        log::error!("the API on TCP has ended: {ended:?}");
    });
    log::info!("API on https://{}", remote.listen);
    Ok(())
}

fn read_token(file: &Path) -> Result<String, Trouble> {
    let said = |what: &str| Trouble::Settings(format!("{}: {what}", file.display()));
    let meta = std::fs::metadata(file).map_err(|error| said(&error.to_string()))?;
    if meta.mode() & 0o077 != 0 {
        return Err(said("others may read the token: chmod 600"));
    }
    let text = std::fs::read_to_string(file).map_err(|error| said(&error.to_string()))?;
    let token = text.trim();
    if token.len() < TOKEN_MIN {
        return Err(said(&format!(
            "a token has {TOKEN_MIN} characters at least: openssl rand -hex 32 makes one"
        )));
    }
    Ok(token.to_owned())
}

/// Lets those through who know the token.
async fn admit(State(token): State<Arc<str>>, request: Request, next: Next) -> Response {
    let sent = request.headers().get(AUTHORIZATION);
    let sent = sent.and_then(|value| value.to_str().ok());
    let sent = sent.and_then(|value| value.strip_prefix("Bearer "));
    // How long it takes tells nothing of the token but its length.
    let known = sent.is_some_and(|sent| bool::from(sent.as_bytes().ct_eq(token.as_bytes())));
    match known {
        true => next.run(request).await,
        false => (
            StatusCode::UNAUTHORIZED,
            axum::Json(control_api::ApiError::new(
                control_api::ErrorKind::Refused,
                "send the token: Authorization: Bearer TOKEN",
            )),
        )
            .into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{Permissions, set_permissions, write};
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn tokens() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        assert!(read_token(&file).is_err());
        write(&file, "0123456789abcdef\n").unwrap();
        set_permissions(&file, Permissions::from_mode(0o640)).unwrap();
        let said = read_token(&file).unwrap_err().to_string();
        assert!(said.contains("chmod 600"), "{said}");
        set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
        assert_eq!(read_token(&file).unwrap(), "0123456789abcdef");
        write(&file, "short").unwrap();
        assert!(read_token(&file).is_err());
    }
}
