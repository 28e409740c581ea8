//! The API over a real Unix socket, in front of a store in memory.

mod api;
mod hostile;
mod peers;
mod retention;
mod snapshots;
mod stats;
mod store;

use super::ControlServer;
use crate::testing::MemoryTarget;
use control_api::Client;
use std::sync::Arc;

/// A served store in memory and its runtime directory.
struct Served {
    run: tempfile::TempDir,
    target: Arc<MemoryTarget>,
    server: ControlServer,
}

impl Served {
    fn new() -> Served {
        let run = tempfile::tempdir().unwrap();
        let target = Arc::new(MemoryTarget::default());
        let server = ControlServer::start(run.path(), target.clone()).unwrap();
        Served {
            run,
            target,
            server,
        }
    }

    async fn client(&self) -> Client {
        Client::connect(self.run.path()).await.unwrap()
    }
}

/// Waits for something that another thread does; fails after ten seconds.
fn eventually(what: &str, condition: impl Fn() -> bool) {
    let start = std::time::Instant::now();
    while !condition() {
        assert!(start.elapsed().as_secs() < 10, "still not: {what}");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}
