//! Who does something to a domain, and whether it is to be looked at.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::Notify;

/// What is paid to one domain.
pub(super) struct Attention {
    /// Whoever does something to it holds this.
    pub claim: Arc<tokio::sync::Mutex<()>>,
    /// Rings when something has happened to it.
    bell: Notify,
    /// Somebody is about to look at it.
    queued: AtomicBool,
}

impl Default for Attention {
    fn default() -> Self {
        Attention {
            claim: Arc::default(),
            bell: Notify::new(),
            queued: AtomicBool::new(false),
        }
    }
}

impl Attention {
    /// Something has happened. Whether nobody is about to look yet.
    pub fn notice(&self) -> bool {
        self.bell.notify_one();
        !self.queued.swap(true, Ordering::SeqCst)
    }

    /// Somebody looks: what happens from now on wants another look.
    pub fn looks(&self) {
        self.queued.store(false, Ordering::SeqCst);
    }

    /// Waits, no longer than until something happens. Whether something has.
    pub async fn pause(&self, at_most: Duration) -> bool {
        let rang = tokio::time::timeout(at_most, self.bell.notified());
        rang.await.is_ok()
    }
}
