//! Codecs: bytes to fewer bytes and back.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::io;
use std::str::FromStr;
use zstd::zstd_safe::{CCtx, CParameter, DCtx, ResetDirective};

/// Longest content of one payload, in bytes: 32 blocks of 4 KiB.
pub const MAX_CONTENT: usize = 128 * 1024;

/// Payloads occupy whole units of this many bytes.
const UNIT: usize = 64;

/// A payload that saves less than this is not worth decoding, in per cent of the content.
const MIN_SAVING_PERCENT: usize = 6;

/// Levels of zstd that rules may ask for; those above need tens of MiB per context.
const ZSTD_LEVELS: std::ops::RangeInclusive<i32> = -7..=19;

/// A way to encode a payload. Written `none`, `lz4`, `zstd:LEVEL` (-7..=19) in rules; on disk it is a byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Codec {
    /// As it is. On disk: 0.
    None,
    /// LZ4 block format. On disk: 1.
    Lz4,
    /// One zstd frame, without content size, checksum and dictionary id, compressed at this level (which isn't
    /// stored: any level decodes alike). On disk: 2.
    Zstd(i32),
}

impl Codec {
    /// The byte that stands for it on disk.
    pub const fn byte(self) -> u8 {
        match self {
            Codec::None => 0,
            Codec::Lz4 => 1,
            Codec::Zstd(_) => 2,
        }
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Codec::None => f.write_str("none"),
            Codec::Lz4 => f.write_str("lz4"),
            Codec::Zstd(level) => write!(f, "zstd:{level}"),
        }
    }
}

/// Not a codec that rules know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no codec: write none, lz4 or zstd:LEVEL with a level of -7 to 19, except 0")]
pub struct ParseCodecError(String);

impl FromStr for Codec {
    type Err = ParseCodecError;

    fn from_str(text: &str) -> Result<Codec, ParseCodecError> {
        let level = text
            .strip_prefix("zstd:")
            .and_then(|level| level.parse().ok());
        match (text, level) {
            ("none", _) => Ok(Codec::None),
            ("lz4", _) => Ok(Codec::Lz4),
            // 0 would mean "the library's default": not a level that stays the same.
            (_, Some(level)) if level != 0 && ZSTD_LEVELS.contains(&level) => {
                Ok(Codec::Zstd(level))
            }
            _ => Err(ParseCodecError(text.chars().take(40).collect())),
        }
    }
}

impl TryFrom<String> for Codec {
    type Error = ParseCodecError;

    fn try_from(text: String) -> Result<Codec, ParseCodecError> {
        text.parse()
    }
}

impl From<Codec> for String {
    fn from(codec: Codec) -> String {
        codec.to_string()
    }
}

/// Compresses; for the use of one thread. Keeps its contexts and scratch memory between calls.
pub struct Compressor {
    zstd: CCtx<'static>,
    /// What the zstd context is set to.
    level: Option<i32>,
    scratch: Vec<u8>,
}

impl Compressor {
    /// Sets up the contexts: `OutOfMemory` if there is no memory for them.
    pub fn new() -> io::Result<Compressor> {
        let mut zstd = CCtx::try_create().ok_or(io::ErrorKind::OutOfMemory)?;
        for parameter in [
            CParameter::ContentSizeFlag(false),
            CParameter::ChecksumFlag(false),
            CParameter::DictIdFlag(false),
        ] {
            zstd.set_parameter(parameter)
                .map_err(|_| io::ErrorKind::Unsupported)?;
        }
        Ok(Compressor {
            zstd,
            level: None,
            scratch: Vec::new(),
        })
    }

    /// Appends `src`, compressed, to `dst` and tells its length. `None`, and `dst` as it was, when the result
    /// would not save a 64-byte unit and 6 % of the content (or can't be formed): then store `src` as it is.
    pub fn compress(&mut self, codec: Codec, src: &[u8], dst: &mut Vec<u8>) -> Option<usize> {
        let limit = longest_useful(src.len())?;
        let len = match codec {
            Codec::None => None,
            Codec::Lz4 => self.lz4(src, limit),
            Codec::Zstd(level) => self.zstd(level, src, limit),
        }?;
        let payload = self.scratch.get(..len).filter(|_| len <= limit)?;
        dst.extend_from_slice(payload);
        Some(len)
    }

    fn lz4(&mut self, src: &[u8], limit: usize) -> Option<usize> {
        // With no room for a useless result the library stops early.
        let scratch = room_for(&mut self.scratch, limit)?;
        lz4::block::compress_to_buffer(src, None, false, scratch).ok()
    }

    fn zstd(&mut self, level: i32, src: &[u8], limit: usize) -> Option<usize> {
        if self.level != Some(level) {
            self.level = None;
            self.zstd
                .set_parameter(CParameter::CompressionLevel(level))
                .ok()?;
            self.level = Some(level);
        }
        let scratch = room_for(&mut self.scratch, limit)?;
        let result = self.zstd.compress2(scratch, src);
        if result.is_err() {
            let _ = self.zstd.reset(ResetDirective::SessionOnly);
        }
        result.ok()
    }
}

impl fmt::Debug for Compressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Compressor(zstd level {:?})", self.level)
    }
}

/// Longest payload that is worth it, in bytes.
fn longest_useful(content: usize) -> Option<usize> {
    let saving =
        (content / 100 * MIN_SAVING_PERCENT + content % 100 * MIN_SAVING_PERCENT / 100).max(UNIT);
    let longest = content.checked_sub(saving)?;
    Some(longest - longest % UNIT).filter(|longest| *longest > 0)
}

/// The first `len` bytes of scratch memory, which grows to the largest size ever asked for and then stays.
fn room_for(scratch: &mut Vec<u8>, len: usize) -> Option<&mut [u8]> {
    if scratch.len() < len {
        scratch.resize(len, 0);
    }
    scratch.get_mut(..len)
}

/// A payload can't be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The codec byte is none we know: damage, or a newer format.
    #[error("codec {0} is unknown")]
    UnknownCodec(u8),
    /// The bytes are no payload of this codec.
    #[error("the payload is damaged")]
    Damaged,
    /// It decodes to another length than its header says.
    #[error("the payload doesn't decode to {0} bytes")]
    Length(usize),
    /// The length asked for is longer than the content, or the content longer than [`MAX_CONTENT`].
    #[error("{0} bytes are more than the payload can hold")]
    TooLong(usize),
    /// No memory for the decoder's tables.
    #[error("no memory to decode with")]
    Memory,
}

/// Decompresses; for the use of one thread. Keeps its context and scratch memory between calls.
pub struct Decompressor {
    /// `None`: zstd is not expected, and a damage where it occurs.
    zstd: Option<DCtx<'static>>,
    scratch: Vec<u8>,
}

impl Decompressor {
    /// Sets up the context: `OutOfMemory` if there is no memory for it.
    pub fn new() -> io::Result<Decompressor> {
        let zstd = DCtx::try_create().ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Decompressor {
            zstd: Some(zstd),
            scratch: Vec::new(),
        })
    }

    /// For what is stored as it is or as lz4 only, such as nodes of maps: needs no context, and no memory of its own.
    pub fn without_zstd() -> Decompressor {
        Decompressor {
            zstd: None,
            scratch: Vec::new(),
        }
    }

    /// Fills `dst` with the first `dst.len()` bytes of the content of `src`, which decodes to exactly `content`
    /// bytes (at most [`MAX_CONTENT`]); anything else is an error. `src` may be any bytes whatever: nothing
    /// panics, and no memory beyond [`MAX_CONTENT`] is used. After an error `dst` holds nothing of use.
    ///
    /// A prefix costs as much as the whole and a copy: zstd's entropy coding spans up to 128 KiB at a time.
    pub fn decompress(
        &mut self,
        codec: u8,
        src: &[u8],
        content: usize,
        dst: &mut [u8],
    ) -> Result<(), DecodeError> {
        if content > MAX_CONTENT {
            return Err(DecodeError::TooLong(content));
        }
        if dst.len() > content {
            return Err(DecodeError::TooLong(dst.len()));
        }
        if codec == Codec::None.byte() {
            let prefix = src.get(..dst.len()).filter(|_| src.len() == content);
            dst.copy_from_slice(prefix.ok_or(DecodeError::Length(content))?);
            return Ok(());
        }
        if dst.len() == content {
            return decode(&mut self.zstd, codec, src, dst);
        }
        let whole = room_for(&mut self.scratch, content).ok_or(DecodeError::Memory)?;
        decode(&mut self.zstd, codec, src, whole)?;
        dst.copy_from_slice(
            whole
                .get(..dst.len())
                .ok_or(DecodeError::TooLong(dst.len()))?,
        );
        Ok(())
    }
}

/// Decodes exactly `dst.len()` bytes.
fn decode(
    zstd: &mut Option<DCtx<'_>>,
    codec: u8,
    src: &[u8],
    dst: &mut [u8],
) -> Result<(), DecodeError> {
    const LZ4: u8 = Codec::Lz4.byte();
    const ZSTD: u8 = Codec::Zstd(1).byte();
    let len = match codec {
        LZ4 => {
            let len = i32::try_from(dst.len()).map_err(|_| DecodeError::TooLong(dst.len()))?;
            lz4::block::decompress_to_buffer(src, Some(len), dst)
                .map_err(|_| DecodeError::Damaged)?
        }
        // In one step, straight into `dst`: no window is allocated, however large the frame claims its own to be.
        ZSTD => zstd
            .as_mut()
            .ok_or(DecodeError::UnknownCodec(codec))?
            .decompress(dst, src)
            .map_err(|_| DecodeError::Damaged)?,
        unknown => return Err(DecodeError::UnknownCodec(unknown)),
    };
    if len == dst.len() {
        Ok(())
    } else {
        Err(DecodeError::Length(dst.len()))
    }
}

impl fmt::Debug for Decompressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Decompressor")
    }
}

#[cfg(test)]
#[path = "codec_tests.rs"]
mod tests;
