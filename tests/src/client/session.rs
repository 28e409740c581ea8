//! Negotiation with a backend, and the start and stop of the rings, in QEMU's order.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use super::ClientOptions;
use super::error::ClientError;
use super::inflight::Inflight;
use super::message::{Code, Connection, vring_state};
use super::queue::Queue;
use super::request::{BlockConfig, feature, protocol};
use super::shm::SharedMemory;

impl Inflight {
    fn body(&self) -> [u8; 24] {
        inflight_body(
            self.mmap_size,
            self.mmap_offset,
            self.num_queues,
            self.queue_size,
        )
    }

    fn decode(body: &[u8], fd: OwnedFd) -> Option<Self> {
        Some(Self {
            fd,
            mmap_size: u64::from_ne_bytes(body.get(..8)?.try_into().ok()?),
            mmap_offset: u64::from_ne_bytes(body.get(8..16)?.try_into().ok()?),
            num_queues: u16::from_ne_bytes(body.get(16..18)?.try_into().ok()?),
            queue_size: u16::from_ne_bytes(body.get(18..20)?.try_into().ok()?),
        })
    }
}

fn inflight_body(size: u64, offset: u64, queues: u16, queue_size: u16) -> [u8; 24] {
    let mut body = [0; 24];
    body[..8].copy_from_slice(&size.to_ne_bytes());
    body[8..16].copy_from_slice(&offset.to_ne_bytes());
    body[16..18].copy_from_slice(&queues.to_ne_bytes());
    body[18..20].copy_from_slice(&queue_size.to_ne_bytes());
    body
}

/// A negotiated connection.
#[derive(Debug)]
pub struct Session {
    connection: Connection,
    features: u64,
    protocol: u64,
    config: BlockConfig,
}

impl Session {
    /// Connects and agrees on features; reads the configuration space.
    pub fn negotiate(socket: &Path, options: &ClientOptions) -> Result<Self, ClientError> {
        let mut connection = Connection::open(socket, options.timeout)?;
        let offered = connection.ask_u64(Code::GetFeatures)?;
        if offered & feature::VERSION_1 == 0 {
            return Err(ClientError::Missing("VIRTIO_F_VERSION_1"));
        }
        if offered & feature::PROTOCOL_FEATURES == 0 {
            return Err(ClientError::Missing("vhost-user protocol features"));
        }
        let mut wanted = !options.without;
        // LOG_ALL is switched on for a migration only.
        wanted &= !feature::LOG_ALL;
        if !options.event_idx {
            wanted &= !feature::EVENT_IDX;
        }
        if !options.indirect {
            wanted &= !feature::INDIRECT_DESC;
        }
        if options.queues == 1 {
            wanted &= !feature::MQ;
        }
        let known = feature::SIZE_MAX
            | feature::SEG_MAX
            | feature::RO
            | feature::BLK_SIZE
            | feature::FLUSH
            | feature::TOPOLOGY
            | feature::CONFIG_WCE
            | feature::MQ
            | feature::DISCARD
            | feature::WRITE_ZEROES
            | feature::INDIRECT_DESC
            | feature::EVENT_IDX
            | feature::PROTOCOL_FEATURES
            | feature::VERSION_1;
        let features = offered & wanted & known;
        if options.indirect && features & feature::INDIRECT_DESC == 0 {
            return Err(ClientError::Missing("VIRTIO_F_INDIRECT_DESC"));
        }

        let wanted = protocol::MQ
            | protocol::REPLY_ACK
            | protocol::CONFIG
            | protocol::INFLIGHT_SHMFD
            | protocol::CONFIGURE_MEM_SLOTS;
        let offered = connection.ask_u64(Code::GetProtocolFeatures)?;
        let agreed = offered & wanted;
        connection.command(Code::SetProtocolFeatures, &agreed.to_ne_bytes(), &[])?;
        connection.ack = agreed & protocol::REPLY_ACK != 0;
        if agreed & protocol::CONFIG == 0 {
            return Err(ClientError::Missing("the configuration space"));
        }
        if options.inflight && agreed & protocol::INFLIGHT_SHMFD == 0 {
            return Err(ClientError::Missing("an in-flight region"));
        }
        if options.queues > 1 {
            let queues = if agreed & protocol::MQ != 0 {
                connection.ask_u64(Code::GetQueueNum)?
            } else {
                1
            };
            if queues < u64::from(options.queues) {
                return Err(ClientError::Missing("as many queues as asked for"));
            }
        }
        connection.command(Code::SetOwner, &[], &[])?;
        let config = read_config(&connection)?;
        Ok(Self {
            connection,
            features,
            protocol: agreed,
            config,
        })
    }

    /// virtio features in force.
    pub fn features(&self) -> u64 {
        self.features
    }

    /// Protocol features in force.
    pub fn protocol(&self) -> u64 {
        self.protocol
    }

    /// The configuration space as it was when connecting.
    pub fn config(&self) -> BlockConfig {
        self.config
    }

    /// The configuration space as it is now.
    pub fn read_config(&self) -> Result<BlockConfig, ClientError> {
        read_config(&self.connection)
    }

    /// Switches the write cache on or off, as a guest does through `writeback`.
    pub fn set_write_cache(&self, on: bool) -> Result<(), ClientError> {
        let mut body = config_header(BlockConfig::WCE_OFFSET, 1).to_vec();
        body.push(u8::from(on));
        self.connection.command(Code::SetConfig, &body, &[])
    }

    /// The socket, for messages that this type does not send.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    pub(super) fn start(
        &self,
        options: &ClientOptions,
        memory: &SharedMemory,
        inflight: &mut Option<Inflight>,
        queues: &[Queue],
    ) -> Result<(), ClientError> {
        let link = &self.connection;
        link.command(Code::SetFeatures, &self.features.to_ne_bytes(), &[])?;
        if self.protocol & protocol::INFLIGHT_SHMFD != 0 {
            if inflight.is_none() {
                *inflight = Some(self.get_inflight(options)?);
            }
            if let Some(region) = inflight {
                link.command(Code::SetInflightFd, &region.body(), &[region.fd.as_fd()])?;
            }
        }
        self.send_memory(options, memory)?;
        // QEMU gives every ring a call descriptor before it starts any, and the guest's once all run. A
        // ring whose kick is pending is served from SET_VRING_KICK on, so it needs one by then.
        self.set_calls(queues)?;
        for queue in queues {
            self.start_ring(options, memory, queue)?;
        }
        for queue in queues {
            link.command(Code::SetVringEnable, &vring_state(queue.index(), 1), &[])?;
        }
        self.set_calls(queues)
    }

    fn set_calls(&self, queues: &[Queue]) -> Result<(), ClientError> {
        for queue in queues {
            let index = u64::from(queue.index()).to_ne_bytes();
            self.connection
                .command(Code::SetVringCall, &index, &[queue.call_fd()])?;
        }
        Ok(())
    }

    pub(super) fn stop(&self, queues: &[Queue]) -> Result<(), ClientError> {
        for queue in queues {
            self.connection
                .command(Code::SetVringEnable, &vring_state(queue.index(), 0), &[])?;
        }
        for queue in queues {
            self.stop_ring(queue.index())?;
        }
        Ok(())
    }

    /// Stops one ring: the backend answers once nothing of it is in flight. Returns its next available index.
    pub fn stop_ring(&self, index: u16) -> Result<u16, ClientError> {
        let code = Code::GetVringBase;
        let reply = self.connection.ask(code, &vring_state(index, 0))?;
        let base = reply
            .body
            .get(4..6)
            .and_then(|b| b.try_into().ok())
            .map(u16::from_ne_bytes);
        base.ok_or(ClientError::Malformed {
            code,
            len: reply.body.len(),
        })
    }

    fn start_ring(
        &self,
        options: &ClientOptions,
        memory: &SharedMemory,
        queue: &Queue,
    ) -> Result<(), ClientError> {
        let link = &self.connection;
        let index = queue.index();
        let layout = queue.layout();
        link.command(
            Code::SetVringNum,
            &vring_state(index, u32::from(options.queue_size)),
            &[],
        )?;
        // Of a ring that has never run, the used index is 0, its right base too.
        link.command(
            Code::SetVringBase,
            &vring_state(index, u32::from(queue.used_idx())),
            &[],
        )?;
        let mut body = [0; 40];
        body[..4].copy_from_slice(&u32::from(index).to_ne_bytes());
        for (at, offset) in [(8, layout.desc), (16, layout.used), (24, layout.avail)] {
            let address = memory.address() + offset as u64;
            body[at..at + 8].copy_from_slice(&address.to_ne_bytes());
        }
        link.command(Code::SetVringAddr, &body, &[])?;
        link.command(
            Code::SetVringKick,
            &u64::from(index).to_ne_bytes(),
            &[queue.kick_fd()],
        )
    }

    fn send_memory(
        &self,
        options: &ClientOptions,
        memory: &SharedMemory,
    ) -> Result<(), ClientError> {
        let mut body = Vec::new();
        let slots = self.protocol & protocol::CONFIGURE_MEM_SLOTS != 0;
        let code = if slots {
            body.extend_from_slice(&[0; 8]);
            Code::AddMemReg
        } else {
            body.extend_from_slice(&1u32.to_ne_bytes());
            body.extend_from_slice(&0u32.to_ne_bytes());
            Code::SetMemTable
        };
        for word in [options.guest_base, memory.len() as u64, memory.address(), 0] {
            body.extend_from_slice(&word.to_ne_bytes());
        }
        self.connection.command(code, &body, &[memory.fd()])
    }

    fn get_inflight(&self, options: &ClientOptions) -> Result<Inflight, ClientError> {
        let code = Code::GetInflightFd;
        let body = inflight_body(0, 0, options.queues, options.queue_size);
        let mut reply = self.connection.ask(code, &body)?;
        let malformed = ClientError::Malformed {
            code,
            len: reply.body.len(),
        };
        let Some(fd) = reply.fds.pop() else {
            return Err(malformed);
        };
        let mut region = Inflight::decode(&reply.body, fd).ok_or(malformed)?;
        // QEMU sends its own numbers back, not those of the reply.
        region.num_queues = options.queues;
        region.queue_size = options.queue_size;
        Ok(region)
    }
}

fn config_header(offset: u32, size: u32) -> [u8; 12] {
    let mut header = [0; 12];
    header[..4].copy_from_slice(&offset.to_ne_bytes());
    header[4..8].copy_from_slice(&size.to_ne_bytes());
    header
}

fn read_config(connection: &Connection) -> Result<BlockConfig, ClientError> {
    let code = Code::GetConfig;
    let mut body = config_header(0, BlockConfig::LEN).to_vec();
    body.resize(12 + BlockConfig::LEN as usize, 0);
    let reply = connection.ask(code, &body)?;
    let config = reply.body.get(12..).and_then(BlockConfig::decode);
    config.ok_or(ClientError::Malformed {
        code,
        len: reply.body.len(),
    })
}
