//! Who may use the control socket.

use tokio::net::UnixStream;

/// Whether a peer with user id `peer` may command a backend that runs as `own`.
fn admits(peer: u32, own: u32) -> bool {
    peer == 0 || peer == own
}

/// Whether the process that connected may command us. Its credentials are those at its `connect`, as the
/// kernel recorded them; file permissions alone would let in whoever was handed a descriptor or found a loosened mode.
pub(super) fn is_admitted(stream: &UnixStream) -> bool {
    let own = rustix::process::geteuid().as_raw();
    match stream.peer_cred() {
        Ok(peer) if admits(peer.uid(), own) => true,
        Ok(peer) => {
            log::warn!(
                "control API: refused a connection of uid {} (pid {}): only root and uid {own} may",
                peer.uid(),
                peer.pid().unwrap_or(0)
            );
            false
        }
        Err(error) => {
            log::warn!(
                "control API: refused a connection whose credentials can't be read: {error}"
            );
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::admits;

    #[test]
    fn root_and_ourselves_only() {
        assert!(admits(0, 0) && admits(0, 1000) && admits(1000, 1000));
        assert!(!admits(1001, 1000) && !admits(1000, 0) && !admits(u32::MAX, 0));
    }
}
