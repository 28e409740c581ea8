use super::*;

const SHAPE: DiskShape = DiskShape {
    size: 1 << 30,
    write_cache: true,
};

#[test]
fn fields_are_where_virtio_has_them() {
    let raw = SHAPE.config_space();
    let u32_at = |at: usize| u32::from_le_bytes(*raw[at..].first_chunk().unwrap());
    assert_eq!(raw[..8], (1u64 << 21).to_le_bytes());
    assert_eq!((u32_at(8), u32_at(12), u32_at(20)), (1 << 20, 126, 512));
    assert_eq!(raw[24..34], [3, 0, 8, 0, 128, 0, 0, 0, 1, 0]);
    assert_eq!(raw[34..36], [64, 0]);
    assert_eq!((u32_at(36), u32_at(40), u32_at(44)), (u32::MAX - 7, 64, 8));
    assert_eq!((u32_at(48), u32_at(52), raw[56]), (u32::MAX - 7, 64, 1));
}

#[test]
fn any_part_can_be_read_and_what_is_behind_reads_as_zero() {
    assert_eq!(SHAPE.read_config(32, 1), [1]);
    assert_eq!(SHAPE.read_config(52, 16)[..8], [64, 0, 0, 0, 1, 0, 0, 0]);
    assert_eq!(SHAPE.read_config(200, 56), [0; 56]);
    assert_eq!(SHAPE.read_config(u32::MAX, 4), [0; 4]);
}

#[test]
fn what_is_offered() {
    let offered = Features::offered(false);
    assert!(!offered.has(Features::RO));
    assert!(Features::offered(true).has(Features::RO));
    assert_eq!(offered.0 & (1 << 34), 0, "no packed ring");
    assert!(write_through(Features(offered.0 & !(1 << Features::FLUSH))));
    assert!(!write_through(offered));
}
