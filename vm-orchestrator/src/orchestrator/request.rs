//! What a domain's metadata asks for.
//!
//! # Crash
//! The request stays until its result is written. Looked at a second time, a snapshot that the journal says was begun, and that is there, is done.

use super::decide::Seen;
use super::metadata::{REQUEST, Request, Said};
use super::{Orchestrator, Outcome, Trouble};
use control_api::ErrorKind;
use std::sync::Arc;

/// The prefix that the request's own is replaced by: removing takes none, yet the call wants one.
const KEY: &str = "firn-request";

impl Orchestrator {
    /// Does it, says what has become of it, and removes it. An error: it is still there.
    pub(super) async fn fulfil(self: &Arc<Self>, seen: &Seen, request: &str) -> Outcome<()> {
        let uuid = seen.info.uuid;
        let said = match Request::read(request) {
            Ok(Request::Snapshot { name, quiesce }) => {
                match self.snapshot(&seen.info, &seen.disks, &name, quiesce).await {
                    Ok(_) => Said::done("snapshot", &name),
                    Err(trouble) if trouble.passes() => return Err(trouble),
                    Err(trouble) => Said::failed("snapshot", &name, &trouble.answer()),
                }
            }
            Err(why) => {
                log::error!(
                    "domain {}: {REQUEST} in its metadata: {why}",
                    seen.info.name
                );
                let error = Trouble::refuse(ErrorKind::Invalid, why, "").answer();
                Said::failed("request", "", &error)
            }
        };
        match self.say(uuid, &said).await {
            Err(trouble) if trouble.passes() => return Err(trouble),
            // One that can't be answered must not be done again and again.
            Err(trouble) => log::error!("domain {}: {trouble}", seen.info.name),
            Ok(()) => {}
        }
        self.ask(move |h| h.set_metadata(uuid, REQUEST, KEY, None))
            .await
    }
}
