use super::*;
use crate::directory::testing::opening;

const HEAD: HeadOrder = HeadOrder { term: 2, epoch: 9 };

fn parts(count: u32) -> Vec<OpeningsPart> {
    let openings = (0..count).map(|i| opening(i, u64::from(i) + 1)).collect();
    OpeningsPart::pack(HEAD, openings).unwrap()
}

fn refused_or_inverse(bytes: &[u8], not: &OpeningsPart) {
    if let Ok(part) = OpeningsPart::decode(bytes) {
        assert_eq!(part.encode().unwrap(), bytes);
        assert_ne!(&part, not);
    }
}

#[test]
fn openings_have_one_spelling() {
    let part = parts(5).remove(0);
    let bytes = part.encode().unwrap();
    assert_eq!(bytes[..8], [1, 0, 0, 0, 5, 0, 0, 0]);
    assert_eq!(bytes[8..16], 2u64.to_le_bytes());
    assert_eq!(bytes[16..24], 9u64.to_le_bytes());
    assert_eq!(bytes[24..26], [9, 0]);
    assert_eq!(bytes.len(), 24 + 5 * (42 + 9));
    assert_eq!(OpeningsPart::decode(&bytes).unwrap(), part);
    for end in 0..bytes.len() {
        assert!(OpeningsPart::decode(&bytes[..end]).is_err());
    }
    for bit in 0..bytes.len() * 8 {
        let mut changed = bytes.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        refused_or_inverse(&changed, &part);
    }
    assert!(OpeningsPart::decode(&[&bytes[..], &[0]].concat()).is_err());
}

#[test]
fn openings_out_of_order_out_of_range_or_none_are_refused() {
    let good = parts(5).remove(0);
    let mut swapped = good.clone();
    swapped.openings.swap(1, 2);
    let mut twice = good.clone();
    twice.openings[1] = twice.openings[0].clone();
    let mut empty = good.clone();
    empty.openings.clear();
    let mut size = good.clone();
    size.openings[0].size = 0;
    let term = OpeningsPart {
        term: 0,
        ..good.clone()
    };
    for bad in [swapped, twice, empty, size, term] {
        assert!(bad.encode().is_err());
    }
    // A count that the bytes cannot hold is refused before anything is made.
    let mut bytes = good.encode().unwrap();
    bytes[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(matches!(
        OpeningsPart::decode(&bytes),
        Err(DecodeError::OutOfRange { max: 5, .. })
    ));
    assert!(OpeningsPart::decode(&vec![1; OPENINGS_BYTES_MAX + 1]).is_err());
}

#[test]
fn parts_are_full_and_go_on_where_the_last_ended() {
    let all = parts(50_000);
    assert_eq!(all.len(), 3);
    let lengths: Vec<_> = all.iter().map(|p| p.encode().unwrap().len()).collect();
    assert!(lengths[..2].iter().all(|n| *n > OPENINGS_BYTES_MAX - 64));
    let seen = Seen {
        base_term: 0,
        base_epoch: 0,
        openings_count: 50_000,
        note: vec![1],
    };
    seen.check_openings(&all).unwrap();
    assert!(seen.check_openings(&all[..2]).is_err());
    assert!(OpeningsPart::check_parts(&[all[1].clone(), all[0].clone()]).is_err());
    let mut other = all[1].clone();
    other.epoch += 1;
    assert!(OpeningsPart::check_parts(&[all[0].clone(), other]).is_err());
    assert!(OpeningsPart::pack(HEAD, vec![]).unwrap().is_empty());
    assert!(OpeningsPart::pack(HEAD, vec![opening(1, 1), opening(1, 2)]).is_err());
}

#[test]
fn a_part_above_the_limit_is_not_encoded() {
    let mut all = parts(30_000);
    let more = all.remove(1);
    all[0].openings.extend(more.openings);
    assert!(all[0].encode().is_err());
}

#[test]
fn seen_has_one_spelling() {
    let seen = Seen {
        base_term: 1,
        base_epoch: 6,
        openings_count: 3,
        note: b"note".to_vec(),
    };
    let bytes = seen.encode().unwrap();
    assert_eq!(bytes[..8], [1, 0, 0, 0, 4, 0, 0, 0]);
    assert_eq!(bytes[24..32], 3u64.to_le_bytes());
    assert_eq!(&bytes[32..], b"note");
    assert_eq!(Seen::decode(&bytes).unwrap(), seen);
    assert_eq!(seen.base(), Some(HeadOrder { term: 1, epoch: 6 }));
    for end in 0..bytes.len() {
        assert!(Seen::decode(&bytes[..end]).is_err());
    }
    for bit in 0..bytes.len() * 8 {
        let mut changed = bytes.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        if let Ok(other) = Seen::decode(&changed) {
            assert_eq!(other.encode().unwrap(), changed);
        }
    }
    let none = Seen {
        base_term: 0,
        base_epoch: 0,
        ..seen.clone()
    };
    assert_eq!(Seen::decode(&none.encode().unwrap()).unwrap().base(), None);
    for bad in [
        Seen {
            base_term: 0,
            ..seen.clone()
        },
        Seen {
            base_epoch: 0,
            ..seen.clone()
        },
        Seen {
            note: vec![],
            ..seen.clone()
        },
        Seen {
            note: vec![1; NOTE_BYTES_MAX + 1],
            ..seen
        },
    ] {
        assert!(bad.encode().is_err());
    }
}
