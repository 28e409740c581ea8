//! What libvirt asks of Firn when it starts and stops a domain.
//!
//! libvirt calls this program, `/etc/libvirt/hooks/qemu.d/firn`, for each domain and waits until it has ended; while it waits, whoever asks
//! libvirt about that domain waits too. So it never calls libvirt back, and a domain without vDisks of ours costs it a look at the XML.
//! It talks to the backends' control sockets alone.
//!
//! | libvirt's call | what is done | when it fails |
//! |---|---|---|
//! | `prepare` | waits until each vDisk is served and free; looks at its queues ([`judge`]) | the domain is not started, virsh shows why |
//! | `started`, `reconnect`, `attach` | the vDisk's domain is running: kept | nothing: a failing `reconnect` would kill the guest |
//! | `release` | what it has written is made durable, and kept why it has stopped | nothing |

mod call;
mod domain;
pub mod judge;
mod process;
mod record;

pub use call::{Call, Operation};
pub use domain::{Disk, Domain};

use control_api::Client;
use judge::{Found, Verdict};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a start waits for a backend that is not up yet. The host may be booting.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a start waits for somebody else to let go of a vDisk: a QEMU that is just ending.
const IN_USE: Duration = Duration::from_secs(3);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(100);
/// How long one question to a backend may take.
const ANSWER: Duration = Duration::from_secs(2);
/// How long whatever must not hold up libvirt may take.
const BRIEF: Duration = Duration::from_millis(900);

/// Does what a call asks for. The error is for the person who starts the domain.
pub fn run(call: &Call, xml: &str) -> Result<(), String> {
    if call.operation == Operation::Other {
        return Ok(());
    }
    let domain = match Domain::read(xml) {
        Ok(domain) => domain,
        Err(error) if call.operation == Operation::Prepare && xml.contains("vhostuser") => {
            return Err(format!(
                "libvirt's XML of this domain can't be read: {error}"
            ));
        }
        Err(_) => return Ok(()),
    };
    let ours: Vec<(&Path, &str, &Disk)> = domain
        .disks
        .iter()
        .filter_map(|disk| disk.ours().map(|(run, name)| (run, name, disk)))
        .collect();
    if ours.is_empty() {
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.map_err(|error| format!("the hook can't run: {error}"))?;
    runtime.block_on(async {
        if call.operation == Operation::Prepare {
            judge::domain(&domain, &ours)?;
            for (run, name, disk) in &ours {
                ready(&domain, run, name, disk).await?;
            }
            return Ok(());
        }
        let each = async {
            for (run, name, _) in &ours {
                record::record(call, &domain, run, name).await;
            }
        };
        // What was not kept is not worth a guest's life.
        drop(tokio::time::timeout(BRIEF, each).await);
        Ok(())
    })
}

/// Waits until a vDisk can be attached.
async fn ready(domain: &Domain, run: &Path, name: &str, disk: &Disk) -> Result<(), String> {
    let began = Instant::now();
    loop {
        let found = look(run, name).await;
        let (why, limit) = match judge::disk(domain, run, name, disk, &found, process::front_end) {
            Verdict::Ready => return Ok(()),
            Verdict::Never(why) => return Err(why),
            Verdict::NotYet(why) => (why, PATIENCE),
            Verdict::InUse(why) => (why, IN_USE),
        };
        if began.elapsed() >= limit {
            return Err(why);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn look(run: &Path, name: &str) -> Found {
    let asked = async { Client::connect(run).await?.vdisk(name).await };
    match tokio::time::timeout(ANSWER, asked).await {
        Ok(Ok(vdisk)) => Found::Served(Box::new(vdisk)),
        Ok(Err(control_api::ClientError::Api(error)))
            if error.kind == control_api::ErrorKind::NotFound =>
        {
            Found::Unknown
        }
        Ok(Err(error)) => Found::Nobody(error.to_string()),
        Err(_) => Found::Nobody(format!("no answer within {} s", ANSWER.as_secs())),
    }
}
