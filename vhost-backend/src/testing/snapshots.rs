//! Snapshots of the store in memory: whole copies, and who holds them.

use super::target::{Disk, MemoryTarget, first_range, read, view};
use crate::control::{Comparison, SnapshotReader, SnapshotTarget};
use control_api::types::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use uuid::Uuid;

/// A copy of a disk.
#[derive(Clone)]
pub(super) struct Copy {
    snapshot: Snapshot,
    data: BTreeMap<u64, Vec<u8>>,
}

fn refuse<T>(kind: ErrorKind, text: &str) -> Result<T, ApiError> {
    Err(ApiError::new(kind, text))
}

/// The snapshot of this name.
fn find<'a>(disk: &'a mut Disk, name: &str) -> Result<&'a mut Copy, ApiError> {
    let mut all = disk.snapshots.iter_mut();
    match all.find(|copy| copy.snapshot.name == name) {
        Some(copy) => Ok(copy),
        None => refuse(ErrorKind::NotFound, "no such snapshot"),
    }
}

fn must_be_free(disk: &mut Disk, name: &str) -> Result<(), ApiError> {
    match find(disk, name) {
        Ok(_) => refuse(ErrorKind::AlreadyExists, "there is such a snapshot"),
        Err(_) => Ok(()),
    }
}

impl SnapshotTarget for MemoryTarget {
    fn promote(&self, vdisk: &str) -> Result<VDisk, ApiError> {
        // Copies here are whole.
        self.with(vdisk, |_| refuse(ErrorKind::Refused, "it is no clone"))
    }

    fn flatten(&self, vdisk: &str) -> Result<VDisk, ApiError> {
        self.promote(vdisk)
    }

    fn snapshots(&self, vdisk: Option<&str>) -> Result<Vec<Snapshot>, ApiError> {
        vdisk.map(|name| self.with(name, |_| Ok(()))).transpose()?;
        let disks = self.disks.lock();
        let of = disks
            .iter()
            .filter(|(name, _)| vdisk.is_none_or(|v| v == *name));
        let copies = of.flat_map(|(_, disk)| &disk.snapshots);
        Ok(copies.map(|copy| copy.snapshot.clone()).collect())
    }

    fn snapshot(&self, vdisk: &str, name: &str) -> Result<Snapshot, ApiError> {
        self.with(vdisk, |disk| Ok(find(disk, name)?.snapshot.clone()))
    }

    fn create_snapshot(&self, request: &CreateSnapshot) -> Result<CreatedSnapshot, ApiError> {
        for vdisk in &request.vdisks {
            self.with(vdisk, |disk| must_be_free(disk, &request.name))?;
        }
        let lsn = self.next();
        for vdisk in &request.vdisks {
            let snapshot = Snapshot {
                vdisk: vdisk.clone(),
                name: request.name.clone(),
                uuid: Uuid::from_u128(self.next().into()),
                size: 0,
                lsn,
                created: 0,
                holds: Vec::new(),
                clones: Vec::new(),
                schedule: None,
            };
            self.with(vdisk, |disk| {
                let (size, data) = (disk.size, disk.data.clone());
                let snapshot = Snapshot { size, ..snapshot };
                disk.snapshots.push(Copy { snapshot, data });
                Ok(())
            })?;
        }
        Ok(CreatedSnapshot {
            name: request.name.clone(),
            vdisks: request.vdisks.clone(),
            lsn,
            stall_microseconds: 1,
            durable_microseconds: 2,
        })
    }

    fn delete_snapshots(
        &self,
        vdisk: &str,
        request: &DeleteSnapshots,
    ) -> Result<DeletedSnapshots, ApiError> {
        let names = &request.names;
        self.with(vdisk, |disk| {
            for name in names {
                if !find(disk, name)?.snapshot.holds.is_empty() {
                    return refuse(ErrorKind::Refused, "it is held");
                }
            }
            disk.snapshots.retain(|c| !names.contains(&c.snapshot.name));
            Ok(DeletedSnapshots {
                deleted: names.clone(),
                deferred: Vec::new(),
            })
        })
    }

    fn rename_snapshot(&self, vdisk: &str, name: &str, to: &str) -> Result<Snapshot, ApiError> {
        self.with(vdisk, |disk| {
            must_be_free(disk, to)?;
            let copy = find(disk, name)?;
            copy.snapshot.name = to.to_owned();
            Ok(copy.snapshot.clone())
        })
    }

    fn hold_snapshot(&self, vdisk: &str, name: &str, holder: &str) -> Result<Snapshot, ApiError> {
        self.with(vdisk, |disk| {
            let copy = find(disk, name)?;
            copy.snapshot.holds.push(holder.to_owned());
            Ok(copy.snapshot.clone())
        })
    }

    fn release_snapshot(
        &self,
        vdisk: &str,
        name: &str,
        holder: &str,
    ) -> Result<Snapshot, ApiError> {
        self.with(vdisk, |disk| {
            let copy = find(disk, name)?;
            copy.snapshot.holds.retain(|held| held != holder);
            Ok(copy.snapshot.clone())
        })
    }

    fn revert(&self, vdisk: &str, request: &RevertVDisk) -> Result<Reverted, ApiError> {
        self.with(vdisk, |disk| {
            let copy = find(disk, &request.snapshot)?.clone();
            let old_size = std::mem::replace(&mut disk.size, copy.snapshot.size);
            disk.data = copy.data;
            Ok(Reverted {
                vdisk: view(vdisk, disk),
                snapshot: copy.snapshot,
                old_size,
                kept: request.keep.clone(),
            })
        })
    }

    fn prune(&self, vdisk: &str, request: &PruneSnapshots) -> Result<Pruned, ApiError> {
        self.with(vdisk, |disk| {
            let gone = disk
                .snapshots
                .len()
                .saturating_sub(request.keep.last as usize);
            if !request.dry_run {
                disk.snapshots.drain(..gone);
            }
            Ok(Pruned {
                snapshots: Vec::new(),
                scheduled: 0,
            })
        })
    }

    fn schedules(&self) -> Result<Vec<Schedule>, ApiError> {
        Ok(Vec::new())
    }

    fn create_schedule(&self, request: &CreateSchedule) -> Result<Schedule, ApiError> {
        for vdisk in &request.vdisks {
            self.with(vdisk, |_| Ok(()))?;
        }
        refuse(ErrorKind::Unavailable, "not in memory")
    }

    fn delete_schedule(&self, _name: &str) -> Result<(), ApiError> {
        refuse(ErrorKind::NotFound, "no such schedule")
    }

    fn clone_snapshot(&self, vdisk: &str, name: &str, new: &str) -> Result<VDisk, ApiError> {
        let copy = self.with(vdisk, |disk| Ok(find(disk, name)?.clone()))?;
        self.insert(new, copy.snapshot.size, false)?;
        self.with(new, |disk| {
            disk.data = copy.data;
            Ok(view(new, disk))
        })
    }

    fn open_snapshot(&self, vdisk: &str, name: &str) -> Result<Arc<dyn SnapshotReader>, ApiError> {
        self.with(vdisk, |disk| {
            Ok(Arc::new(find(disk, name)?.clone()) as Arc<dyn SnapshotReader>)
        })
    }

    fn open_comparison(
        &self,
        vdisk: &str,
        name: &str,
        to: Option<&str>,
    ) -> Result<Arc<dyn Comparison>, ApiError> {
        self.with(vdisk, |disk| {
            let from = find(disk, name)?.clone();
            let (data, uuid) = match to {
                Some(to) => {
                    let copy = find(disk, to)?.clone();
                    (copy.data, copy.snapshot.uuid)
                }
                None => (disk.data.clone(), Uuid::nil()),
            };
            let uuids = [from.snapshot.uuid, uuid];
            Ok(Arc::new(Copies {
                uuids,
                from: from.data,
                to: data,
            }) as Arc<dyn Comparison>)
        })
    }
}

/// Two copies that are being compared.
struct Copies {
    uuids: [Uuid; 2],
    from: BTreeMap<u64, Vec<u8>>,
    to: BTreeMap<u64, Vec<u8>>,
}

impl Comparison for Copies {
    fn uuids(&self) -> [Uuid; 2] {
        self.uuids
    }

    fn changes(&self, offset: u64) -> Result<Changes, ApiError> {
        let mut other = self.to.clone();
        other.retain(|at, data| self.from.get(at) != Some(data));
        let Allocated { ranges, next } = first_range(&other, offset);
        Ok(Changes { ranges, next })
    }
}

impl SnapshotReader for Copy {
    fn uuid(&self) -> Uuid {
        self.snapshot.uuid
    }

    fn allocated(&self, offset: u64) -> Result<Allocated, ApiError> {
        Ok(first_range(&self.data, offset))
    }

    fn read(&self, offset: u64, length: u64) -> Result<Vec<u8>, ApiError> {
        Ok(read(&self.data, offset, length))
    }

    fn usage(&self, offset: u64) -> Result<SnapshotUsage, ApiError> {
        let Allocated { ranges, next } = first_range(&self.data, offset);
        let blocks = |range: &ByteRange| range.length.div_ceil(4096);
        Ok(SnapshotUsage {
            data_blocks: ranges.iter().map(blocks).sum(),
            next,
            ..SnapshotUsage::default()
        })
    }
}
