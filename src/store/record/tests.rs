//! Headers and groups: one spelling, and every bit counts.

use super::*;

fn segment() -> SegmentHeader {
    SegmentHeader {
        number: 3,
        store_id: [7; 16],
        tag_key: [9; 32],
        chain: [1; 16],
        previous_end: Position::new(2, 640),
    }
}

#[test]
fn a_segment_header_has_one_spelling_and_every_bit_counts() {
    let bytes = segment().encode();
    assert_eq!(SegmentHeader::decode(&bytes).unwrap(), segment());
    for bit in 0..bytes.len() * 8 {
        let mut changed = bytes;
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(SegmentHeader::decode(&changed).is_err(), "bit {bit}");
    }
}

#[test]
fn a_group_reads_back_and_every_bit_counts() {
    let keys = segment().keys();
    let start = Position::new(3, 128);
    let mut group = Group::new();
    assert_eq!(
        group.add(RecordType::Context, |b| b.extend_from_slice(b"abc")),
        (0, 3)
    );
    assert_eq!(group.add(RecordType::Mark, |_| ()), (128, 0));
    let through = Position::new(3, 64);
    let (bytes, end) = group.seal(&keys, start, through, keys.start()).unwrap();

    let read = |bytes: &[u8]| -> Option<Short> {
        let mut chain = keys.start();
        for at in [0usize, 128] {
            let position = start.forward(at as u64)?;
            let header: &[u8; 64] = bytes[at..at + 64].try_into().ok()?;
            let header = RecordHeader::vouched(&keys, position, header).ok()??;
            assert_eq!(header.synced_through, through);
            let body = &bytes[at + 64..at + 64 + header.padded_len()];
            if !header.tag_matches(&keys, position, body) {
                return None;
            }
            chain = header.chains_on(&keys, &chain, position)?;
        }
        Some(chain)
    };
    assert_eq!(read(&bytes), Some(end));
    for bit in 0..bytes.len() * 8 {
        let mut changed = bytes.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(read(&changed), None, "bit {bit}");
    }
}

#[test]
fn a_record_elsewhere_is_no_record() {
    let keys = segment().keys();
    let start = Position::new(3, 128);
    let mut group = Group::new();
    group.add(RecordType::Mark, |_| ());
    let (bytes, _) = group.seal(&keys, start, start, keys.start()).unwrap();
    let header: &[u8; 64] = bytes[..64].try_into().unwrap();
    assert!(
        RecordHeader::vouched(&keys, start, header)
            .unwrap()
            .is_some()
    );
    let elsewhere = Position::new(3, 192);
    assert_eq!(
        RecordHeader::vouched(&keys, elsewhere, header).unwrap(),
        None
    );
    let other = SegmentHeader {
        tag_key: [8; 32],
        ..segment()
    }
    .keys();
    assert_eq!(RecordHeader::vouched(&other, start, header).unwrap(), None);
}

#[test]
fn positions_order_by_segment_then_offset() {
    assert!(Position::new(2, 0) > Position::new(1, u32::MAX));
    assert_eq!(
        Position::new(1, 64).forward(64),
        Some(Position::new(1, 128))
    );
    assert_eq!(Position::new(1, u32::MAX).forward(1), None);
}
