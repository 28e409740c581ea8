//! What each message does.
//!
//! An error that is returned here ends the connection (after a negative answer, where one was asked for): the front
//! end's and our idea of the device have parted, and a reconnect sets it up anew.

use std::fs::File;
use std::sync::Arc;

use vhost::VhostUserMemoryRegionBase;
use vhost::vhost_user::message::{
    VhostTransferStateDirection, VhostTransferStatePhase, VhostUserConfigFlags, VhostUserInflight,
    VhostUserLog, VhostUserMemoryRegion, VhostUserProtocolFeatures, VhostUserShMemConfig,
    VhostUserSharedMsg, VhostUserSingleMemoryRegion, VhostUserVringAddrFlags, VhostUserVringState,
};
use vhost::vhost_user::{Error, GpuBackend, Result, VhostUserBackendReqHandlerMut};

use crate::blk::config::{Features, MAX_QUEUE_SIZE, MAX_QUEUES, WRITEBACK_AT};
use crate::engine::Disk;
use crate::inflight::InflightRegion;
use crate::memory::{DirtyLog, GuestMemory, RegionSpec};
use crate::workers::{Call, Haste, Kick, StartError, Stopped};

use super::device::{Handler, refused, stop};
use super::vring::{Addresses, Vring};

/// What is offered beside virtio's own features.
pub const PROTOCOL_FEATURES: VhostUserProtocolFeatures = VhostUserProtocolFeatures::MQ
    .union(VhostUserProtocolFeatures::LOG_SHMFD)
    .union(VhostUserProtocolFeatures::REPLY_ACK)
    .union(VhostUserProtocolFeatures::CONFIG)
    .union(VhostUserProtocolFeatures::INFLIGHT_SHMFD)
    .union(VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS);

impl<D: Disk> VhostUserBackendReqHandlerMut for Handler<D> {
    fn set_owner(&mut self) -> Result<()> {
        if std::mem::replace(&mut self.owned, true) {
            return Err(Error::InvalidOperation(
                "this connection has an owner already",
            ));
        }
        Ok(())
    }

    fn reset_owner(&mut self) -> Result<()> {
        self.stop_and_rest();
        let (disk, pool) = (Arc::clone(&self.disk), Arc::clone(&self.pool));
        *self = Self::new(disk, pool, Arc::clone(&self.seat));
        Ok(())
    }

    fn reset_device(&mut self) -> Result<()> {
        self.stop_and_rest();
        for vring in &mut self.vrings {
            *vring = Vring::default();
        }
        self.features = Features::default();
        Ok(())
    }

    fn get_features(&mut self) -> Result<u64> {
        Ok(Features::offered(self.disk.read_only()).0)
    }

    /// Comes again while queues run, to switch LOG_ALL; nothing else may change then.
    fn set_features(&mut self, features: u64) -> Result<()> {
        let offered = Features::offered(self.disk.read_only()).0;
        if features & !offered != 0 {
            let unknown = features & !offered;
            return Err(refused(format_args!(
                "features {unknown:#x} were not offered"
            )));
        }
        let new = Features(features);
        let changed = (new.0 ^ self.features.0) & !(1 << Features::LOG_ALL);
        if self.running() > 0 && changed != 0 {
            return Err(refused(format_args!(
                "features {changed:#x} can't change while queues are being served"
            )));
        }
        self.features = new;
        self.shared.logging = new.has(Features::LOG_ALL);
        if !new.has(Features::PROTOCOL_FEATURES) {
            for vring in &mut self.vrings {
                vring.enabled = true;
            }
        }
        self.settle_all()
    }

    fn set_mem_table(
        &mut self,
        regions: &[VhostUserMemoryRegion],
        files: Vec<File>,
        _postcopy: Option<bool>,
    ) -> Result<Option<Vec<VhostUserMemoryRegionBase>>> {
        if regions.len() != files.len() {
            return Err(Error::IncorrectFds);
        }
        let specs = regions.iter().map(|r| RegionSpec {
            guest: r.guest_phys_addr,
            len: r.memory_size,
            user: r.user_addr,
            offset: r.mmap_offset,
        });
        let memory = GuestMemory::new(specs.zip(files)).map_err(refused)?;
        self.change_memory(memory)?;
        Ok(None)
    }

    fn set_vring_num(&mut self, index: u32, num: u32) -> Result<()> {
        let vring = self.vring(index)?;
        let size = u16::try_from(num).unwrap_or(0);
        if size == 0 || size > MAX_QUEUE_SIZE || !size.is_power_of_two() {
            return Err(refused(format_args!(
                "queue {index}: a size of {num}; it must be a power of two up to {MAX_QUEUE_SIZE}"
            )));
        }
        if vring.running.is_some() && vring.size != size {
            return Err(refused(format_args!(
                "queue {index} is being served, its size can't change"
            )));
        }
        vring.size = size;
        self.settle(index)
    }

    /// Comes again while the queue runs, to switch the log of its used ring.
    fn set_vring_addr(
        &mut self,
        index: u32,
        flags: VhostUserVringAddrFlags,
        descriptor: u64,
        used: u64,
        available: u64,
        log: u64,
    ) -> Result<()> {
        let used_log = flags
            .contains(VhostUserVringAddrFlags::VHOST_VRING_F_LOG)
            .then_some(log);
        self.vring(index)?.addresses = Some(Addresses {
            table: descriptor,
            avail: available,
            used,
            used_log,
        });
        self.settle(index)
    }

    fn set_vring_base(&mut self, index: u32, base: u32) -> Result<()> {
        let vring = self.vring(index)?;
        if vring.running.is_some() {
            return Err(refused(format_args!(
                "queue {index} is being served, its base can't change"
            )));
        }
        vring.base = u16::try_from(base)
            .map_err(|_| refused(format_args!("queue {index}: a base of {base}")))?;
        Ok(())
    }

    fn get_vring_base(&mut self, index: u32) -> Result<VhostUserVringState> {
        let name = self.disk.name().to_owned();
        let vring = self.vring(index)?;
        let ran = vring.running.is_some();
        if let Some(running) = vring.running.take() {
            let end =
                stop(running, Haste::Patient).ok_or_else(|| refused(StartError::WorkerGone))?;
            let Stopped {
                next_avail,
                left_in_flight,
            } = end.recv().map_err(|_| refused(StartError::WorkerGone))?;
            vring.base = next_avail;
            if left_in_flight > 0 {
                log::warn!(
                    "{name}: queue {index}: {left_in_flight} requests that wait for space stay in flight, to be \
                     executed when the guest goes on; a guest that is saved now would lose them"
                );
            }
        }
        vring.kick = None;
        vring.call = None;
        let base = u32::from(vring.base);
        self.rested(ran);
        Ok(VhostUserVringState::new(index, base))
    }

    fn set_vring_kick(&mut self, index: u8, fd: Option<File>) -> Result<()> {
        let file =
            fd.ok_or_else(|| refused("a queue without a kick descriptor would have to be polled"))?;
        let kick = Kick::new(file).map_err(refused)?;
        self.vring(index.into())?.kick = Some(Arc::new(kick));
        self.settle(index.into())
    }

    fn set_vring_call(&mut self, index: u8, fd: Option<File>) -> Result<()> {
        let call = fd
            .map(|file| Call::new(file, "call"))
            .transpose()
            .map_err(refused)?;
        self.vring(index.into())?.call = call.map(Arc::new);
        self.settle(index.into())
    }

    fn set_vring_err(&mut self, index: u8, fd: Option<File>) -> Result<()> {
        let err = fd
            .map(|file| Call::new(file, "error"))
            .transpose()
            .map_err(refused)?;
        self.vring(index.into())?.err = err.map(Arc::new);
        self.settle(index.into())
    }

    fn get_protocol_features(&mut self) -> Result<VhostUserProtocolFeatures> {
        Ok(PROTOCOL_FEATURES)
    }

    fn set_protocol_features(&mut self, features: u64) -> Result<()> {
        let unknown = features & !PROTOCOL_FEATURES.bits();
        if unknown != 0 {
            return Err(refused(format_args!(
                "protocol features {unknown:#x} were not offered"
            )));
        }
        self.protocol = features;
        Ok(())
    }

    fn get_queue_num(&mut self) -> Result<u64> {
        Ok(u64::from(MAX_QUEUES))
    }

    fn set_vring_enable(&mut self, index: u32, enable: bool) -> Result<()> {
        self.vring(index)?.enabled = enable;
        self.settle(index)
    }

    fn get_config(
        &mut self,
        offset: u32,
        size: u32,
        _flags: VhostUserConfigFlags,
    ) -> Result<Vec<u8>> {
        let shape = self.shape();
        let config = shape.read_config(offset, size);
        if u32::try_from(config.len())
            .is_ok_and(|len| (offset..offset.saturating_add(len)).contains(&WRITEBACK_AT))
        {
            self.told = Some(shape.write_cache);
        }
        Ok(config)
    }

    fn set_config(&mut self, offset: u32, buf: &[u8], _flags: VhostUserConfigFlags) -> Result<()> {
        match (offset, buf) {
            (WRITEBACK_AT, &[on @ (0 | 1)]) => {
                if let Some(other) = self.seat.other() {
                    return Err(refused(format_args!(
                        "the vDisk is attached by {other}, whose write cache it is"
                    )));
                }
                self.told = Some(on == 1);
                self.disk.set_write_cache(on == 1).map_err(refused)?;
                log::info!(
                    "{}: the guest switched the write cache {}",
                    self.disk.name(),
                    if on == 1 { "on" } else { "off" }
                );
                Ok(())
            }
            // The device ignores writes to fields that are read-only (virtio 2.5.3).
            _ => {
                log::debug!(
                    "{}: {} bytes of configuration at {offset} ignored",
                    self.disk.name(),
                    buf.len()
                );
                Ok(())
            }
        }
    }

    fn set_gpu_socket(&mut self, _: GpuBackend) -> Result<()> {
        Err(Error::InvalidOperation("this is a disk"))
    }

    fn get_shared_object(&mut self, _: VhostUserSharedMsg) -> Result<File> {
        Err(Error::InvalidOperation("there are no shared objects"))
    }

    fn get_inflight_fd(&mut self, want: &VhostUserInflight) -> Result<(VhostUserInflight, File)> {
        let (queues, queue_size) = (want.num_queues, want.queue_size);
        check_inflight(queues, queue_size)?;
        let file = InflightRegion::create(queues, queue_size).map_err(refused)?;
        let mmap_size = InflightRegion::len_for(queues, queue_size);
        Ok((
            VhostUserInflight {
                mmap_size,
                mmap_offset: 0,
                num_queues: queues,
                queue_size,
            },
            file,
        ))
    }

    fn set_inflight_fd(&mut self, region: &VhostUserInflight, file: File) -> Result<()> {
        if self.running() > 0 {
            return Err(Error::InvalidOperation(
                "queues are being served with another region",
            ));
        }
        let VhostUserInflight {
            mmap_size,
            mmap_offset,
            num_queues,
            queue_size,
        } = *region;
        check_inflight(num_queues, queue_size)?;
        let region = InflightRegion::attach(file, mmap_offset, mmap_size, num_queues, queue_size);
        self.shared.inflight = Some(region.map_err(refused)?);
        Ok(())
    }

    fn get_max_mem_slots(&mut self) -> Result<u64> {
        Ok(GuestMemory::MAX_REGIONS as u64)
    }

    fn add_mem_region(
        &mut self,
        region: &VhostUserSingleMemoryRegion,
        fd: File,
        _postcopy: Option<bool>,
    ) -> Result<Option<VhostUserMemoryRegionBase>> {
        let spec = RegionSpec {
            guest: region.guest_phys_addr,
            len: region.memory_size,
            user: region.user_addr,
            offset: region.mmap_offset,
        };
        let memory = self.shared.memory.with(spec, fd).map_err(refused)?;
        self.change_memory(memory)?;
        Ok(None)
    }

    fn remove_mem_region(&mut self, region: &VhostUserSingleMemoryRegion) -> Result<()> {
        let (guest, len) = (region.guest_phys_addr, region.memory_size);
        let memory = self.shared.memory.without(guest, len).map_err(refused)?;
        self.change_memory(memory)
    }

    fn set_device_state_fd(
        &mut self,
        _: VhostTransferStateDirection,
        _: VhostTransferStatePhase,
        _: File,
    ) -> Result<Option<File>> {
        Err(Error::InvalidOperation(
            "there is no device state outside the store",
        ))
    }

    fn check_device_state(&mut self) -> Result<()> {
        Err(Error::InvalidOperation(
            "there is no device state outside the store",
        ))
    }

    fn get_shmem_config(&mut self) -> Result<VhostUserShMemConfig> {
        Err(Error::InvalidOperation(
            "there are no shared memory regions",
        ))
    }

    /// Answered when every worker notes its writes in the new log.
    fn set_log_base(&mut self, log: &VhostUserLog, file: File) -> Result<()> {
        let log = DirtyLog::new(file, log.mmap_offset, log.mmap_size).map_err(refused)?;
        self.shared.log = Some(Arc::new(log));
        self.settle_all()
    }
}

fn check_inflight(queues: u16, queue_size: u16) -> Result<()> {
    if queues == 0 || queues > MAX_QUEUES || queue_size == 0 || queue_size > MAX_QUEUE_SIZE {
        return Err(refused(format_args!(
            "an in-flight region for {queues} queues of {queue_size}; at most {MAX_QUEUES} of {MAX_QUEUE_SIZE}"
        )));
    }
    Ok(())
}
