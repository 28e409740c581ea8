//! What libvirt asks of Firn when it starts and stops a domain.
//!
//! libvirt calls this program, `/etc/libvirt/hooks/qemu.d/firn-libvirt-hook`, for each domain and waits until it has ended; while it waits, whoever asks
//! libvirt about that domain waits too. So it never calls libvirt back, and a domain without vDisks of ours costs it a look at the XML.
//! It talks to the backends' control sockets alone.
//!
//! | libvirt's call | what is done | when it fails |
//! |---|---|---|
//! | `migrate` | a note that the domain comes from another host ([`incoming`]) | a note that is not there keeps the domain from being migrated here |
//! | `prepare` | waits until each vDisk is served and free, or the domain's own that is being migrated here; looks at its queues ([`judge`]) | the domain is not started, virsh shows why |
//! | `started`, `reconnect`, `attach` | the vDisk's domain is running: kept | nothing: a failing `reconnect` would kill the guest |
//! | `release` | what it has written is made durable, and kept why it has stopped, unless it runs elsewhere now | nothing |
//!
//! `restore` needs nothing: a `prepare` follows, and `started`. Of a migration the new host says `migrate`, `prepare`, `started` before the guest is switched to
//! it, and `release` if it comes to nothing; the old one says `release` with the reason `migrated`.

mod call;
mod domain;
pub mod incoming;
pub mod judge;
mod process;
mod record;

pub use call::{Call, Operation};
pub use domain::{Disk, Domain, VDisk};

use call::PATIENCE;
use control_api::{Client, ClientError, ErrorKind};
use judge::{Found, Verdict};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a start waits for somebody else to let go of a vDisk: a QEMU that is just ending.
const IN_USE: Duration = Duration::from_secs(3);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(100);
/// How long one question to a backend may take.
const ANSWER: Duration = Duration::from_secs(2);

/// Does what a call asks for. The error is for the person who starts the domain; of other calls it is of no consequence.
pub fn run(call: &Call, xml: &str) -> Result<(), String> {
    if call.operation == Operation::Other {
        return Ok(());
    }
    // What we can't read libvirt can: it is not our business to keep it from starting.
    let Ok(domain) = Domain::read(xml) else {
        return Ok(());
    };
    let maybe: Vec<(VDisk<'_>, &Disk)> = domain
        .disks
        .iter()
        .filter_map(|disk| disk.vdisk().map(|vdisk| (vdisk, disk)))
        .collect();
    if maybe.is_empty() {
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.map_err(|error| format!("the hook can't run: {error}"))?;
    runtime.block_on(async {
        let mut ours = Vec::new();
        for (vdisk, disk) in maybe {
            if vdisk.surely || is_served(vdisk.run).await {
                ours.push((vdisk, disk));
            }
        }
        if call.operation == Operation::Incoming {
            if !ours.is_empty() {
                incoming::leave(Path::new(incoming::DIR), domain.uuid);
            }
            return Ok(());
        }
        if call.operation != Operation::Prepare {
            for (vdisk, _) in &ours {
                record::record(call, &domain, vdisk).await;
            }
            return Ok(());
        }
        judge::domain(&domain, &ours)?;
        let incoming = incoming::take(Path::new(incoming::DIR), domain.uuid);
        let began = Instant::now();
        for (vdisk, disk) in &ours {
            ready(&domain, vdisk, disk, incoming, began).await?;
        }
        Ok(())
    })
}

/// Whether a backend of ours listens there.
async fn is_served(run: &Path) -> bool {
    let asked = async { Client::connect(run).await?.health().await };
    matches!(tokio::time::timeout(ANSWER, asked).await, Ok(Ok(_)))
}

/// Waits until a vDisk can be attached.
async fn ready(
    domain: &Domain,
    vdisk: &VDisk<'_>,
    disk: &Disk,
    incoming: bool,
    began: Instant,
) -> Result<(), String> {
    let mut used_since = None;
    loop {
        let found = look(vdisk).await;
        let (why, over) =
            match judge::disk(domain, vdisk, disk, incoming, found, process::front_end) {
                Verdict::Ready => return Ok(()),
                Verdict::Never(why) => return Err(why),
                Verdict::NotYet(why) => (why, began.elapsed() >= PATIENCE),
                Verdict::InUse(why) => {
                    let since = used_since.get_or_insert_with(Instant::now);
                    (why, since.elapsed() >= IN_USE)
                }
            };
        if over {
            return Err(why);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn look(vdisk: &VDisk<'_>) -> Found {
    let asked = async { Client::connect(vdisk.run).await?.vdisk(vdisk.name).await };
    match tokio::time::timeout(ANSWER, asked).await {
        Ok(Ok(vdisk)) => Found::Served(Box::new(vdisk)),
        Ok(Err(ClientError::Api(error))) if error.kind == ErrorKind::NotFound => Found::Unknown,
        Ok(Err(error)) => Found::Nobody(match error.hint() {
            Some(hint) => format!("{error}; {hint}"),
            None => error.to_string(),
        }),
        Err(_) => Found::Nobody(format!(
            "the backend does not answer within {} s; see its log",
            ANSWER.as_secs()
        )),
    }
}
