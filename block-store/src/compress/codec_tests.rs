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
        "", "LZ4", "zstd", "zstd:", "zstd:0", "zstd:20", "zstd:-8", "zstd:1.5", "zstd: 1", "gzip",
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
