//! vhost-user on the wire: header, body and file descriptors over a Unix socket.
//!
//! Written out by hand rather than taken from a crate so that tests may also send what no decent
//! front end would: any request number, any length, any number of descriptors.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

use super::error::ClientError;

/// Request numbers of the vhost-user specification, front end to back end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "named as in the specification")]
#[repr(u32)]
pub enum Code {
    GetFeatures = 1,
    SetFeatures = 2,
    SetOwner = 3,
    SetMemTable = 5,
    SetLogBase = 6,
    SetLogFd = 7,
    SetVringNum = 8,
    SetVringAddr = 9,
    SetVringBase = 10,
    GetVringBase = 11,
    SetVringKick = 12,
    SetVringCall = 13,
    SetVringErr = 14,
    GetProtocolFeatures = 15,
    SetProtocolFeatures = 16,
    GetQueueNum = 17,
    SetVringEnable = 18,
    GetConfig = 24,
    SetConfig = 25,
    GetInflightFd = 31,
    SetInflightFd = 32,
    GetMaxMemSlots = 36,
    AddMemReg = 37,
    RemMemReg = 38,
}

const VERSION: u32 = 1;
const REPLY: u32 = 4;
const NEED_REPLY: u32 = 8;
/// More descriptors than any well-formed message carries.
pub const MAX_FDS: usize = 32;
/// What the kernel lets through at once.
const MAX_SENT_FDS: usize = 253;
const MAX_BODY: usize = 4096;

/// A received message.
#[derive(Debug)]
pub struct Reply {
    /// The request number it answers.
    pub code: u32,
    /// Header flags as received.
    pub flags: u32,
    /// Everything after the header.
    pub body: Vec<u8>,
    /// Descriptors that came along.
    pub fds: Vec<OwnedFd>,
}

/// One connection to a backend's socket.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    /// Ask for an acknowledgement of each request that has no reply of its own (REPLY_ACK).
    pub ack: bool,
}

impl Connection {
    /// Connects; a reply that takes longer than `timeout` is an error.
    pub fn open(socket: &Path, timeout: Duration) -> Result<Self, ClientError> {
        let stream = UnixStream::connect(socket).map_err(|source| ClientError::Io {
            what: format!("connect to {}", socket.display()),
            source,
        })?;
        let set_up = |source| ClientError::Io {
            what: "socket timeout".into(),
            source,
        };
        stream.set_read_timeout(Some(timeout)).map_err(set_up)?;
        stream.set_write_timeout(Some(timeout)).map_err(set_up)?;
        Ok(Self { stream, ack: false })
    }

    /// The socket itself.
    pub fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// Sends a request that has no reply of its own, and waits for its acknowledgement where that is
    /// negotiated.
    pub fn command(
        &self,
        code: Code,
        body: &[u8],
        fds: &[BorrowedFd<'_>],
    ) -> Result<(), ClientError> {
        let flags = if self.ack { NEED_REPLY } else { 0 };
        self.send(code as u32, flags, body, fds)?;
        if !self.ack {
            return Ok(());
        }
        match u64_of(&self.expect(code)?.body) {
            Some(0) => Ok(()),
            _ => Err(ClientError::Refused { code }),
        }
    }

    /// Sends a request and returns its reply.
    pub fn ask(&self, code: Code, body: &[u8]) -> Result<Reply, ClientError> {
        self.send(code as u32, 0, body, &[])?;
        self.expect(code)
    }

    /// [`Connection::ask`] for the many replies that are one 64-bit number.
    pub fn ask_u64(&self, code: Code) -> Result<u64, ClientError> {
        let reply = self.ask(code, &[])?;
        u64_of(&reply.body).ok_or(ClientError::Malformed {
            code,
            len: reply.body.len(),
        })
    }

    /// Sends any header and body at all. `flags` are added to the protocol version.
    pub fn send(
        &self,
        code: u32,
        flags: u32,
        body: &[u8],
        fds: &[BorrowedFd<'_>],
    ) -> Result<(), ClientError> {
        let mut message = Vec::with_capacity(12 + body.len());
        message.extend_from_slice(&code.to_ne_bytes());
        message.extend_from_slice(&(VERSION | flags).to_ne_bytes());
        message.extend_from_slice(&(body.len() as u32).to_ne_bytes());
        message.extend_from_slice(body);
        self.send_raw(&message, fds)
    }

    /// Sends bytes with descriptors attached to the first of them.
    pub fn send_raw(&self, mut bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), ClientError> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_SENT_FDS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(ClientError::Io {
                what: format!("send {} descriptors", fds.len()),
                source: io::ErrorKind::InvalidInput.into(),
            });
        }
        while !bytes.is_empty() {
            let sent = sendmsg(
                &self.stream,
                &[IoSlice::new(bytes)],
                &mut control,
                SendFlags::NOSIGNAL,
            )
            .map_err(|e| ClientError::of_socket("send", e.into()))?;
            control.clear();
            bytes = &bytes[sent..];
        }
        Ok(())
    }

    /// Receives one message, whatever it is.
    pub fn receive(&self) -> Result<Reply, ClientError> {
        let mut fds = Vec::new();
        let mut header = [0; 12];
        self.receive_exact(&mut header, &mut fds)?;
        let word =
            |i: usize| u32::from_ne_bytes([header[i], header[i + 1], header[i + 2], header[i + 3]]);
        let len = word(8) as usize;
        if len > MAX_BODY {
            return Err(ClientError::Unexpected {
                expected: 0,
                got: word(0),
            });
        }
        let mut body = vec![0; len];
        self.receive_exact(&mut body, &mut fds)?;
        Ok(Reply {
            code: word(0),
            flags: word(4),
            body,
            fds,
        })
    }

    fn expect(&self, code: Code) -> Result<Reply, ClientError> {
        let reply = self.receive()?;
        if reply.code != code as u32 || reply.flags & REPLY == 0 {
            return Err(ClientError::Unexpected {
                expected: code as u32,
                got: reply.code,
            });
        }
        Ok(reply)
    }

    fn receive_exact(
        &self,
        mut into: &mut [u8],
        fds: &mut Vec<OwnedFd>,
    ) -> Result<(), ClientError> {
        while !into.is_empty() {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let got = recvmsg(
                &self.stream,
                &mut [IoSliceMut::new(into)],
                &mut control,
                RecvFlags::CMSG_CLOEXEC,
            )
            .map_err(|e| ClientError::of_socket("receive", e.into()))?;
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(received) = message {
                    fds.extend(received);
                }
            }
            if got.bytes == 0 || got.flags.contains(ReturnFlags::CTRUNC) {
                return Err(ClientError::Closed);
            }
            into = &mut into[got.bytes..];
        }
        Ok(())
    }
}

/// The body of a message that is one 64-bit number.
pub fn u64_of(body: &[u8]) -> Option<u64> {
    Some(u64::from_ne_bytes(body.get(..8)?.try_into().ok()?))
}

/// `{ index, number }`: the body of the vring messages.
pub fn vring_state(index: u16, number: u32) -> [u8; 8] {
    let mut body = [0; 8];
    body[..4].copy_from_slice(&u32::from(index).to_ne_bytes());
    body[4..].copy_from_slice(&number.to_ne_bytes());
    body
}
