//! `firn store stats`: block maps are looked at in parts by the backend, what is shown is the whole.

mod text;

use crate::args::StoreStatsArgs;
use crate::failure::Failure;
use crate::progress::Progress;
use crate::settings::Settings;
use control_api::types::{
    ErrorKind, Fragmentation, Layer, LayerKind, SnapshotUsage, StoreStats, VDisk,
};
use control_api::{Client, ClientError};
use serde::Serialize;

/// All that the command tells.
#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    stats: StoreStats,
    write_amplification: WriteAmplification,
    vdisks: Vec<OfVDisk>,
    layers: Vec<OfLayer>,
    /// For people: layer by layer.
    #[serde(skip)]
    by_layer: bool,
}

/// Bytes written for each byte of guests' data; absent where there was none.
#[derive(Serialize)]
struct WriteAmplification {
    /// As guests have sent it.
    of_requested: Option<f64>,
    /// As it was stored.
    of_stored: Option<f64>,
}

#[derive(Serialize)]
struct OfVDisk {
    name: String,
    size: u64,
    fragmentation_index: f64,
    fragmentation: Fragmentation,
    /// What its live layer has.
    live: SnapshotUsage,
    snapshots: u64,
    /// What the layers of its snapshots have, together.
    in_snapshots: SnapshotUsage,
}

#[derive(Serialize)]
struct OfLayer {
    #[serde(flatten)]
    layer: Layer,
    usage: SnapshotUsage,
}

pub(super) async fn run(settings: &Settings, args: StoreStatsArgs) -> Result<(), Failure> {
    let mut client = settings.connect().await?;
    let vdisks = chosen(&mut client, &args.vdisks).await?;
    let mut layers = client.layers().await?;
    if !args.vdisks.is_empty() {
        layers.retain(|l| vdisks.iter().any(|v| l.vdisk.as_deref() == Some(&v.name)));
    }
    let size = |name: &Option<String>| {
        let vdisk = vdisks.iter().find(|v| Some(&v.name) == name.as_ref());
        vdisk.map_or(0, |v| v.size)
    };
    // Address space to go through: that of each vDisk, and again for each of its layers.
    let all = layers.iter().map(|l| size(&l.vdisk));
    let all = all.chain(vdisks.iter().map(|v| v.size));
    let total = all.fold(0, u64::saturating_add);
    let mut progress = Progress::new(settings.progress, "store stats", total);
    let (mut done, mut fragmented, mut of_layers) = (0_u64, Vec::new(), Vec::new());
    for vdisk in &vdisks {
        let mut at = |at: u64| progress.at(done.saturating_add(at.min(vdisk.size)));
        fragmented.push(fragmentation(&mut client, vdisk, &mut at).await?);
        done = done.saturating_add(vdisk.size);
    }
    for layer in layers {
        let size = size(&layer.vdisk);
        let mut at = |at: u64| progress.at(done.saturating_add(at.min(size)));
        if let Some(usage) = usage(&mut client, layer.id, &mut at).await? {
            of_layers.push(OfLayer { layer, usage });
        }
        done = done.saturating_add(size);
    }
    drop(progress);
    let stats = client.store_stats().await?;
    let each = vdisks.iter().zip(fragmented);
    // One that was deleted meanwhile is not shown.
    let each = each.filter_map(|(vdisk, found)| Some(of_vdisk(vdisk, found?, &of_layers)));
    let shown = Shown {
        write_amplification: amplification(&stats),
        vdisks: each.collect(),
        stats,
        layers: of_layers,
        by_layer: args.layers,
    };
    settings.show(&shown, text::text)
}

/// The vDisks of these names, each once; all of them without any.
async fn chosen(client: &mut Client, names: &[String]) -> Result<Vec<VDisk>, Failure> {
    if names.is_empty() {
        return Ok(client.vdisks().await?);
    }
    let mut vdisks: Vec<VDisk> = Vec::new();
    for name in names {
        if vdisks.iter().all(|v| v.name != *name) {
            vdisks.push(client.vdisk(name).await?);
        }
    }
    Ok(vdisks)
}

/// `None`: it is gone.
fn unless_gone<T>(answer: Result<T, ClientError>) -> Result<Option<T>, Failure> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(ClientError::Api(error)) if error.kind == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

async fn fragmentation(
    client: &mut Client,
    vdisk: &VDisk,
    progress: &mut dyn FnMut(u64),
) -> Result<Option<Fragmentation>, Failure> {
    let mut sum = Fragmentation::default();
    let mut next = Some(0);
    while let Some(at) = next {
        progress(at);
        let Some(part) = unless_gone(client.fragmentation(&vdisk.name, at).await)? else {
            return Ok(None);
        };
        sum.add(&part);
        // An answer that does not get on would have us ask for ever.
        next = part.next.filter(|next| *next > at);
    }
    Ok(Some(sum))
}

async fn usage(
    client: &mut Client,
    layer: u32,
    progress: &mut dyn FnMut(u64),
) -> Result<Option<SnapshotUsage>, Failure> {
    let mut sum = SnapshotUsage::default();
    let mut next = Some(0);
    while let Some(at) = next {
        progress(at);
        let Some(part) = unless_gone(client.layer_usage(layer, at).await)? else {
            return Ok(None);
        };
        next = part.next.filter(|next| *next > at);
        sum.add(&part);
    }
    Ok(Some(sum))
}

fn of_vdisk(vdisk: &VDisk, fragmentation: Fragmentation, layers: &[OfLayer]) -> OfVDisk {
    let mut found = OfVDisk {
        name: vdisk.name.clone(),
        size: vdisk.size,
        fragmentation_index: fragmentation.index(),
        fragmentation,
        live: SnapshotUsage::default(),
        snapshots: 0,
        in_snapshots: SnapshotUsage::default(),
    };
    let own = layers
        .iter()
        .filter(|l| l.layer.vdisk.as_ref() == Some(&vdisk.name));
    for OfLayer { layer, usage } in own {
        if layer.kind == LayerKind::Live {
            found.live.add(usage);
        } else {
            found.snapshots += 1;
            found.in_snapshots.add(usage);
        }
    }
    found
}

fn amplification(stats: &StoreStats) -> WriteAmplification {
    let writes = &stats.writes;
    let per = |bytes: u64| (bytes > 0).then(|| writes.total_bytes as f64 / bytes as f64);
    WriteAmplification {
        of_requested: per(writes.requested_bytes),
        of_stored: per(writes.guest_bytes),
    }
}
