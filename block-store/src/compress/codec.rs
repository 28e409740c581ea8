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
    /// For content below 64 KiB, whose positions fit 16 bits.
    lz4_small: lz4_flex::block::CompressTable,
    lz4_large: lz4_flex::block::CompressTable,
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
            lz4_small: lz4_flex::block::CompressTable::small(),
            lz4_large: lz4_flex::block::CompressTable::large(),
            scratch: Vec::new(),
        })
    }

    /// Appends `src`, compressed, to `dst` and tells its length. `None`, and `dst` as it was, when the result
    /// would not save a 64-byte unit and 6 % of the content (or can't be formed): then store `src` as it is.
    pub fn compress(&mut self, codec: Codec, src: &[u8], dst: &mut Vec<u8>) -> Option<usize> {
        let limit = longest_useful(src.len())?;
        let len = match codec {
            Codec::None => None,
            Codec::Lz4 => self.lz4(src),
            Codec::Zstd(level) => self.zstd(level, src, limit),
        }?;
        let payload = self.scratch.get(..len).filter(|_| len <= limit)?;
        dst.extend_from_slice(payload);
        Some(len)
    }

    fn lz4(&mut self, src: &[u8]) -> Option<usize> {
        let room = lz4_flex::block::get_maximum_output_size(src.len());
        let large = src.len() >= usize::from(u16::MAX);
        let table = if large {
            &mut self.lz4_large
        } else {
            &mut self.lz4_small
        };
        let scratch = room_for(&mut self.scratch, room)?;
        lz4_flex::block::compress_into_with_table(src, scratch, table).ok()
    }

    fn zstd(&mut self, level: i32, src: &[u8], limit: usize) -> Option<usize> {
        if self.level != Some(level) {
            self.level = None;
            self.zstd
                .set_parameter(CParameter::CompressionLevel(level))
                .ok()?;
            self.level = Some(level);
        }
        // With no room for a useless result the library stops early.
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
    zstd: DCtx<'static>,
    scratch: Vec<u8>,
}

impl Decompressor {
    /// Sets up the context: `OutOfMemory` if there is no memory for it.
    pub fn new() -> io::Result<Decompressor> {
        let zstd = DCtx::try_create().ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Decompressor {
            zstd,
            scratch: Vec::new(),
        })
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
fn decode(zstd: &mut DCtx<'_>, codec: u8, src: &[u8], dst: &mut [u8]) -> Result<(), DecodeError> {
    const LZ4: u8 = Codec::Lz4.byte();
    const ZSTD: u8 = Codec::Zstd(1).byte();
    let len = match codec {
        LZ4 => lz4_flex::block::decompress_into(src, dst).map_err(|_| DecodeError::Damaged)?,
        // In one step, straight into `dst`: no window is allocated, however large the frame claims its own to be.
        ZSTD => zstd
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
mod tests {
    use super::super::classify::samples;
    use super::*;
    use proptest::prelude::*;

    const CODECS: [Codec; 5] = [
        Codec::None,
        Codec::Lz4,
        Codec::Zstd(-5),
        Codec::Zstd(1),
        Codec::Zstd(3),
    ];

    #[test]
    fn content_comes_back_whole_and_in_part() {
        let mut compressor = Compressor::new().unwrap();
        let mut decompressor = Decompressor::new().unwrap();
        for codec in CODECS {
            for len in [4096, 16384, 65535, 65536, MAX_CONTENT] {
                let content = samples::half_random(len);
                let mut payload = b"before".to_vec();
                let got = compressor.compress(codec, &content, &mut payload);
                if codec == Codec::None {
                    assert_eq!(got, None);
                    assert_eq!(payload, b"before");
                    continue;
                }
                let got = got.unwrap();
                assert_eq!(payload.len(), 6 + got);
                assert!(got < len * 6 / 10, "{codec} {len}: {got}");
                for prefix in [len, len - 1, len / 2, 4096, 1, 0] {
                    let mut back = vec![0xee; prefix];
                    decompressor
                        .decompress(codec.byte(), &payload[6..], len, &mut back)
                        .unwrap();
                    assert!(back == content[..prefix]);
                }
            }
        }
    }

    #[test]
    fn what_saves_too_little_is_left_alone() {
        let mut compressor = Compressor::new().unwrap();
        for codec in CODECS {
            for content in [
                samples::random(65536),
                samples::random(4096),
                vec![0; 64],
                vec![0; 1],
                vec![],
            ] {
                let mut payload = vec![1, 2];
                assert_eq!(
                    compressor.compress(codec, &content, &mut payload),
                    None,
                    "{codec} {}",
                    content.len()
                );
                assert_eq!(payload, [1, 2]);
            }
        }
        assert_eq!(longest_useful(4096), Some(3840));
        assert_eq!(longest_useful(65536), Some(61568));
        assert_eq!(longest_useful(128), Some(64));
        // And the context works after it gave up.
        let mut payload = Vec::new();
        assert!(
            compressor
                .compress(Codec::Zstd(3), &samples::half_random(65536), &mut payload)
                .is_some()
        );
    }

    #[test]
    fn stored_content_must_have_its_length() {
        let mut decompressor = Decompressor::new().unwrap();
        let mut back = [0; 4];
        decompressor.decompress(0, b"abcdef", 6, &mut back).unwrap();
        assert_eq!(&back, b"abcd");
        assert_eq!(
            decompressor.decompress(0, b"abcdef", 7, &mut back),
            Err(DecodeError::Length(7))
        );
        assert_eq!(
            decompressor.decompress(0, b"abc", 3, &mut back),
            Err(DecodeError::TooLong(4))
        );
        assert_eq!(
            decompressor.decompress(9, b"abcdef", 6, &mut back),
            Err(DecodeError::UnknownCodec(9))
        );
        let huge = usize::MAX;
        assert_eq!(
            decompressor.decompress(2, b"abcdef", huge, &mut back),
            Err(DecodeError::TooLong(huge))
        );
    }

    #[test]
    fn a_wrong_length_is_found() {
        let mut compressor = Compressor::new().unwrap();
        let mut decompressor = Decompressor::new().unwrap();
        for codec in [Codec::Lz4, Codec::Zstd(1)] {
            let mut payload = Vec::new();
            compressor
                .compress(codec, &samples::words(8192), &mut payload)
                .unwrap();
            let mut back = vec![0; 8193];
            assert_eq!(
                decompressor.decompress(codec.byte(), &payload, 8193, &mut back),
                Err(DecodeError::Length(8193))
            );
            assert!(
                decompressor
                    .decompress(codec.byte(), &payload, 8191, &mut back[..8191])
                    .is_err()
            );
            assert!(
                decompressor
                    .decompress(
                        codec.byte(),
                        &payload[..payload.len() - 1],
                        8192,
                        &mut back[..8192]
                    )
                    .is_err()
            );
            payload.push(0);
            assert!(
                decompressor
                    .decompress(codec.byte(), &payload, 8192, &mut back[..8192])
                    .is_err()
            );
        }
    }

    /// A 64 KiB zstd extent is to pass as a qcow2 cluster: one plain frame that ends where the payload does.
    #[test]
    fn a_zstd_payload_is_one_plain_frame() {
        let mut compressor = Compressor::new().unwrap();
        let content = samples::words(65536);
        let mut payload = Vec::new();
        compressor
            .compress(Codec::Zstd(1), &content, &mut payload)
            .unwrap();
        assert_eq!(payload[..4], [0x28, 0xb5, 0x2f, 0xfd]);
        assert_eq!(
            payload[4], 0,
            "no content size, single segment, checksum or dictionary"
        );
        let frame = zstd::zstd_safe::find_frame_compressed_size(&payload).unwrap();
        assert_eq!(frame, payload.len());
        assert!(zstd::stream::decode_all(payload.as_slice()).unwrap() == content);
    }

    #[test]
    fn codecs_have_names() {
        for codec in [Codec::None, Codec::Lz4, Codec::Zstd(-7), Codec::Zstd(19)] {
            assert_eq!(codec.to_string().parse(), Ok(codec));
        }
        for wrong in [
            "", "LZ4", "zstd", "zstd:", "zstd:0", "zstd:20", "zstd:-8", "zstd:1.5", "zstd: 1",
            "gzip",
        ] {
            assert!(wrong.parse::<Codec>().is_err(), "{wrong}");
        }
        assert_eq!(CODECS.map(Codec::byte), [0, 1, 2, 2, 2]);
    }

    proptest! {
        #[test]
        fn any_bytes_decode_to_an_error_or_to_the_length(
            codec in 0..4u8,
            src in proptest::collection::vec(any::<u8>(), 0..400),
            content in 0..MAX_CONTENT,
            dst in 0..5000usize,
            frame in any::<bool>(),
        ) {
            let mut src = src;
            if frame {
                src.splice(0..0, [0x28, 0xb5, 0x2f, 0xfd]);
            }
            let mut decompressor = Decompressor::new().unwrap();
            let mut dst = vec![0; dst];
            let _ = decompressor.decompress(codec, &src, content, &mut dst);
        }

        #[test]
        fn damaged_payloads_do_no_harm(
            codec in prop_oneof![Just(Codec::Lz4), Just(Codec::Zstd(1))],
            flips in proptest::collection::vec((any::<usize>(), 1..=255u8), 1..10),
        ) {
            let mut payload = Vec::new();
            let content = samples::words(16384);
            Compressor::new().unwrap().compress(codec, &content, &mut payload).unwrap();
            for (at, flip) in flips {
                let at = at % payload.len();
                payload[at] ^= flip;
            }
            let mut back = vec![0; content.len()];
            let _ = Decompressor::new().unwrap().decompress(codec.byte(), &payload, content.len(), &mut back);
        }

        #[test]
        fn any_content_comes_back(
            codec in prop_oneof![Just(Codec::Lz4), (-7..=4).prop_filter("0", |l| *l != 0).prop_map(Codec::Zstd)],
            seed in proptest::collection::vec(any::<u8>(), 1..200),
            len in 0..20_000usize,
        ) {
            let content: Vec<u8> = seed.iter().copied().cycle().take(len).collect();
            let mut payload = Vec::new();
            if Compressor::new().unwrap().compress(codec, &content, &mut payload).is_some() {
                let mut back = vec![0; len];
                Decompressor::new().unwrap().decompress(codec.byte(), &payload, len, &mut back).unwrap();
                prop_assert!(back == content);
            }
        }
    }
}
