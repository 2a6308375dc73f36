use super::*;
use crate::note::{OriginName, SignerKey};
use crate::proof::testing::{Origin, Point, signer, vkey};

/// Heads 1.1 to 1.5: plain, to key 2, plain, to key 3, plain.
fn rotated() -> (Origin, Vec<Point>) {
    let mut origin = Origin::new();
    origin.append("a", &["one"]);
    let points = vec![
        origin.publish(),
        origin.rotate(2),
        origin.publish(),
        origin.rotate(3),
        origin.publish(),
    ];
    (origin, points)
}

fn open(pinned: u8, rotations: &[Vec<u8>]) -> Result<KeyChain, HeadError> {
    KeyChain::open(&vkey(pinned), rotations)
}

#[test]
fn each_head_is_by_the_key_of_its_order() {
    let (origin, points) = rotated();
    for pinned in 1..=3 {
        let chain = origin.chain(pinned);
        assert_eq!(chain.pinned(), &vkey(pinned));
        assert_eq!(chain.current(), &vkey(3));
        for key in 1..=4 {
            assert_eq!(chain.holds(&vkey(key)), (pinned..=3).contains(&key));
        }
        for (at, point) in points.iter().enumerate() {
            // The pinned key signed the rotation that leads to it as well.
            let good = at + 2 >= 2 * usize::from(pinned) - usize::from(pinned > 1);
            let opened = chain.head(&point.note());
            assert_eq!(opened.is_ok(), good, "{pinned} {at}");
            assert!(opened.is_err() || opened == Ok(point.head.clone()) || at % 2 == 1);
        }
    }
    // What the chain does not know of does not count.
    let short = open(1, &origin.rotations[..1]).unwrap();
    assert_eq!(short.current(), &vkey(2));
    assert!(short.head(&points[3].note()).is_ok());
    assert!(short.head(&points[4].note()).is_err());
}

#[test]
fn a_key_does_not_sign_beyond_its_rotation() {
    let (_, points) = rotated();
    let (origin, _) = rotated();
    let chain = origin.chain(1);
    // A thief of the first key, at the order of each head.
    let mut thief = Origin::new();
    thief.append("a", &["two"]);
    for at in 0..6u64 {
        let stolen = thief.publish();
        assert_eq!(chain.head(&stolen.note()).is_ok(), at < 2, "{at}");
        let refused = origin.chain(2).head(&stolen.note());
        assert!(refused.is_err());
    }
    // A plain head in the place of the rotation to the pinned key.
    let mut other = Origin::new();
    other.epoch = 1;
    let plain = other.publish();
    assert_eq!(plain.order(), points[1].order());
    assert!(origin.chain(2).head(&plain.note()).is_err());
}

#[test]
fn rotations_are_one_line_without_a_loop() {
    let (origin, points) = rotated();
    let [first, second] = [&origin.rotations[0], &origin.rotations[1]].map(Clone::clone);
    for (pinned, rotations) in [
        (4, vec![first.clone(), second.clone()]),
        (1, vec![second.clone()]),
        (3, vec![first.clone()]),
        (1, vec![second.clone(), first.clone()]),
        (1, vec![first.clone(), first.clone()]),
        (1, vec![points[0].note()]),
        (1, vec![first.clone(), points[2].note(), second.clone()]),
        (1, vec![Vec::new()]),
    ] {
        assert!(open(pinned, &rotations).is_err(), "{pinned}");
    }
    let mut back = Origin::new();
    back.rotate(2);
    back.rotate(1);
    assert!(matches!(
        open(1, &back.rotations),
        Err(HeadError::Rotation { .. })
    ));
    // A line whose later rotation is at a lower order.
    let mut early = Origin::new();
    early.epoch = 8;
    early.rotate(2);
    early.epoch = 3;
    early.rotate(3);
    assert!(open(1, &early.rotations).is_err());
    let name = OriginName::new("other.example").unwrap();
    let other = SignerKey::from_seed(name, &[1; 32]);
    assert!(KeyChain::open(other.verifier(), &origin.rotations).is_err());
}

#[test]
fn there_are_so_many_rotations_at_most() {
    let mut origin = Origin::new();
    for seed in 2..=65 {
        origin.rotate(seed);
    }
    assert_eq!(origin.rotations.len(), ROTATIONS_MAX + 1);
    assert!(open(1, &origin.rotations).is_err());
    let chain = open(1, &origin.rotations[..ROTATIONS_MAX]).unwrap();
    assert_eq!(chain.current(), &vkey(64));
}

#[test]
fn rotations_away_from_a_key_count_wherever_they_are() {
    let (origin, points) = rotated();
    let mut other = Origin::new();
    other.epoch = 20;
    let elsewhere = other.rotate(7);
    assert!(origin.chain(1).rotation(&elsewhere.note()).is_ok());
    assert!(origin.chain(2).rotation(&elsewhere.note()).is_err());
    assert!(origin.chain(1).rotation(&points[3].note()).is_ok());
    assert!(origin.chain(1).rotation(&points[0].note()).is_err());
}

#[test]
fn what_is_needed_is_what_is_taken() {
    let (origin, points) = rotated();
    for (at, wanted) in [(0, 0), (1, 1), (2, 1), (3, 2), (4, 2)] {
        let notes = [points[at].note()];
        let needed = needed_rotations(&origin.rotations, &notes);
        assert_eq!(needed, origin.rotations[..wanted]);
        let chain = open(1, &needed).unwrap();
        assert!(chain.check_used(&notes).is_ok());
        if wanted < 2 {
            assert!(origin.chain(1).check_used(&notes).is_err());
        }
    }
    assert!(needed_rotations(&origin.rotations, &[b"x"]).is_empty());
    let odd = vec![b"x".to_vec()];
    assert_eq!(needed_rotations(&odd, &[points[0].note()]), odd);
}

#[test]
fn only_the_lines_that_count_are_taken() {
    let (origin, points) = rotated();
    let chain = origin.chain(1);
    for point in &points {
        let mut note = Note::parse(&point.note()).unwrap();
        note.sign(&signer(9)).unwrap();
        let surplus = chain.head(&note.to_bytes());
        assert_eq!(surplus, Err(HeadError::SurplusLine));
    }
}
