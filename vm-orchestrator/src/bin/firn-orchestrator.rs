//! `firn-orchestrator`: what libvirt and the backend have to do with one another, until SIGTERM.

use clap::{CommandFactory, Parser};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use vm_orchestrator::orchestrator::{self, Remote, Settings};

/// Snapshots, reverts and clones libvirt's domains whose disks are Firn's vDisks
#[derive(Debug, Parser)]
#[command(name = "firn-orchestrator", version)]
struct Args {
    /// The backend's runtime directory; the API's socket is made there too
    #[arg(long, value_name = "DIR", env = "FIRN_RUN", default_value = control_api::DEFAULT_RUN)]
    run: PathBuf,
    /// Directory of the journal; it is created if it does not exist
    #[arg(long, value_name = "DIR", default_value = "/var/lib/firn/orchestrator")]
    state: PathBuf,
    /// libvirt's URI
    #[arg(long, value_name = "URI", default_value = "qemu:///system")]
    connect: String,
    /// Serve the API on this address too, with TLS, for those who send the token
    #[arg(long, value_name = "ADDRESS:PORT", requires_all = ["tls_cert", "tls_key", "token_file"])]
    listen: Option<SocketAddr>,
    /// Certificate chain for --listen, PEM
    #[arg(long, value_name = "FILE", requires = "listen")]
    tls_cert: Option<PathBuf>,
    /// Key of the certificate, PEM
    #[arg(long, value_name = "FILE", requires = "listen")]
    tls_key: Option<PathBuf>,
    /// File with the token that callers send (Authorization: Bearer TOKEN), 16 characters or more, mode 0600
    #[arg(long, value_name = "FILE", requires = "listen")]
    token_file: Option<PathBuf>,
}

impl Args {
    fn remote(&self) -> Option<Remote> {
        Some(Remote {
            listen: self.listen?,
            certificate: self.tls_cert.clone()?,
            key: self.tls_key.clone()?,
            token: self.token_file.clone()?,
        })
    }
}

fn main() -> ExitCode {
    // For the package.
    if std::env::args_os().skip(1).eq(["--man"]) {
        return man_page();
    }
    let args = Args::parse();
    // RUST_LOG changes what is logged; journald adds the time itself.
    let environment = env_logger::Env::default().default_filter_or("info");
    let mut logger = env_logger::Builder::from_env(environment);
    if std::env::var_os("JOURNAL_STREAM").is_some() {
        logger.format_timestamp(None);
    }
    logger.init();
    let settings = Settings {
        remote: args.remote(),
        run: std::path::absolute(&args.run).unwrap_or(args.run),
        state: args.state,
        connect: args.connect,
    };
    match orchestrator::run(&settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("firn-orchestrator: {error}");
            ExitCode::FAILURE
        }
    }
}

fn man_page() -> ExitCode {
    let page = clap_mangen::Man::new(Args::command()).section("8");
    match page.render(&mut std::io::stdout()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("firn-orchestrator: {error}");
            ExitCode::FAILURE
        }
    }
}
