//! What systemd is told, and what it keeps for us. Without systemd nothing of it does anything.
//!
//! The **control socket** outlives us in systemd's store of descriptors (`FileDescriptorStoreMax=` of the unit): the next process
//! gets it as one does by socket activation, and who connects in between waits instead of being refused. vDisks' sockets do
//! not: QEMU would find them listening, and wait for an answer with all of its guest instead of trying again.
//!
//! The **watchdog** is petted while every worker answers and the store lets itself be looked at. A slow disk is no reason to
//! be killed: neither waits for it.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use sd_notify::NotifyState;

/// The name under which systemd keeps the control socket.
const CONTROL: &str = "control";

/// Tells systemd how we are.
pub(crate) fn tell(state: NotifyState<'_>) {
    if let Err(e) = sd_notify::notify(&[state]) {
        log::warn!("can't tell systemd how we are: {e}");
    }
}

/// The listening sockets that we were started with. To be called once, before there are threads: it changes the environment.
pub(crate) fn inherited() -> Vec<UnixListener> {
    let mut passed = listenfd::ListenFd::from_env();
    let mut listeners = Vec::new();
    for index in 0..passed.len() {
        match passed.take_unix_listener(index) {
            Ok(Some(listener)) => listeners.push(listener),
            Ok(None) => {}
            Err(e) => log::warn!("passed over what systemd has handed us: {e}"),
        }
    }
    listeners
}

/// Has systemd keep the control socket, in place of an earlier one. False where nobody does.
pub(crate) fn keep(control: &UnixListener) -> bool {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET") else {
        return false;
    };
    let kept = UnixDatagram::unbound().and_then(|sender| {
        sender.connect(&socket)?;
        sender.send(format!("FDSTOREREMOVE=1\nFDNAME={CONTROL}").as_bytes())?;
        let message = format!("FDSTORE=1\nFDNAME={CONTROL}");
        send_with(&sender, message.as_bytes(), control.as_fd())
    });
    if let Err(e) = &kept {
        log::warn!("systemd does not keep the control socket over restarts: {e}");
    }
    kept.is_ok()
}

fn send_with(to: &UnixDatagram, message: &[u8], descriptor: BorrowedFd<'_>) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = [descriptor];
    if !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(io::ErrorKind::OutOfMemory.into());
    }
    sendmsg(
        to,
        &[IoSlice::new(message)],
        &mut control,
        SendFlags::NOSIGNAL,
    )?;
    Ok(())
}

/// Pets the watchdog as long as we are healthy. Dropping it ends that.
#[derive(Debug)]
pub(crate) struct Watchdog {
    ending: Arc<AtomicBool>,
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watchdog {
    /// Starts it, if systemd has asked for it. `healthy` is asked often, and given the time within which it should come to an
    /// end; one that does not come to an end at all is as good as a no.
    pub(crate) fn start(
        healthy: impl FnMut(Duration) -> Result<(), String> + Send + 'static,
    ) -> io::Result<Option<Watchdog>> {
        let pet = || tell(NotifyState::Watchdog);
        sd_notify::watchdog_enabled()
            .map(|patience| Watchdog::petting(patience, healthy, pet))
            .transpose()
    }

    fn petting(
        patience: Duration,
        mut healthy: impl FnMut(Duration) -> Result<(), String> + Send + 'static,
        mut pet: impl FnMut() + Send + 'static,
    ) -> io::Result<Watchdog> {
        // Asking and waiting take two thirds together: the rest is for a busy machine.
        let third = patience / 3;
        let ending = Arc::new(AtomicBool::new(false));
        let (end, ended) = channel::<()>();
        let ends = Arc::clone(&ending);
        let watch = move || {
            let mut well = true;
            loop {
                let found = match ends.load(Ordering::Relaxed) {
                    true => Ok(()),
                    false => healthy(third),
                };
                match &found {
                    Ok(()) => pet(),
                    Err(why) if well => log::error!(
                        "{why}; unless that changes, systemd starts the backend anew within {} s",
                        patience.as_secs()
                    ),
                    Err(_) => {}
                }
                well = found.is_ok();
                if ended.recv_timeout(third) == Err(RecvTimeoutError::Disconnected) {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new()
            .name("firn-watchdog".to_owned())
            .spawn(watch)?;
        Ok(Watchdog {
            ending,
            end: Some(end),
            thread: Some(thread),
        })
    }

    /// From here on workers end, which is no illness; how long that may take is `TimeoutStopSec=`'s.
    pub(crate) fn ending(&self) {
        self.ending.store(true, Ordering::Relaxed);
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::eventually;
    use std::sync::atomic::AtomicUsize;

    #[test]
    fn the_watchdog_is_petted_only_while_all_is_well() {
        let well = Arc::new(AtomicBool::new(true));
        let (asked, pets) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (is_well, asks, petted) = (well.clone(), asked.clone(), pets.clone());
        let healthy = move |_| {
            asks.fetch_add(1, Ordering::SeqCst);
            match is_well.load(Ordering::SeqCst) {
                true => Ok(()),
                false => Err("worker 3 is stuck".to_owned()),
            }
        };
        let pet = move || {
            petted.fetch_add(1, Ordering::SeqCst);
        };
        let patience = Duration::from_millis(30);
        let watchdog = Watchdog::petting(patience, healthy, pet).unwrap();
        let more = |counter: &AtomicUsize| {
            let before = counter.load(Ordering::SeqCst);
            eventually("counted on", || counter.load(Ordering::SeqCst) > before + 2);
        };
        more(&pets);
        well.store(false, Ordering::SeqCst);
        more(&asked);
        let before = pets.load(Ordering::SeqCst);
        more(&asked);
        assert_eq!(pets.load(Ordering::SeqCst), before, "petted while ill");
        // It may get well again, and an end is no illness.
        well.store(true, Ordering::SeqCst);
        more(&pets);
        well.store(false, Ordering::SeqCst);
        watchdog.ending();
        more(&pets);
        drop(watchdog);
        assert_eq!(Arc::strong_count(&pets), 1, "its thread goes on");
    }
}
