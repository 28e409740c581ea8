//! Ctrl-C and SIGTERM: the command is dropped where it waits, and its guards clean up.

use crate::failure::Failure;
use std::future::Future;
use tokio::signal::unix::{SignalKind, signal};

/// Runs a command; on SIGINT or SIGTERM drops it half-way, which closes its connection (the backend discards an
/// unfinished import) and removes its unfinished files.
pub fn run_until_interrupted(
    command: impl Future<Output = Result<(), Failure>>,
) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("can't start: {error}")))?;
    let outcome = runtime.block_on(async {
        let (Ok(mut interrupt), Ok(mut terminate)) = (
            signal(SignalKind::interrupt()),
            signal(SignalKind::terminate()),
        ) else {
            return command.await;
        };
        tokio::select! {
            outcome = command => outcome,
            _ = interrupt.recv() => Err(Failure::interrupted()),
            _ = terminate.recv() => Err(Failure::interrupted()),
        }
    });
    // A reader that hangs in a system call must not hold us up.
    runtime.shutdown_background();
    outcome
}
