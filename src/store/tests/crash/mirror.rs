//! The same for a mirror: power fails after every operation of a mirror that
//! follows four heads of its source. What is left opens, shows exactly one of
//! those heads, none older than one it had told of, and can catch up.

use super::super::mirror::{ingest, mirror_disk, seen, span};
use super::*;
use crate::head::HeadOrder;
use crate::ledger::{Ingest, ReadMirror};

const NAMES: [&str; 3] = ["a", "b", "c"];

/// The source's contexts at a head.
type Version = (HeadOrder, Vec<ContextInfo>);

fn contexts(view: &View) -> Vec<ContextInfo> {
    view.contexts(None, usize::MAX).unwrap()
}

fn open_on(disk: &SimDisk) -> Store {
    let opened = Store::open(Arc::new(disk.clone()), options(SEGMENT_BYTES), None);
    opened.expect("a crash is never damage").store
}

/// One more head: some of the contexts grow, one by a payload of its own.
fn grow(source: &Store, round: usize) -> Version {
    for (n, name) in NAMES.iter().enumerate() {
        if n <= round && (n + round) % 3 != 2 {
            let long = format!("{round}").repeat(3000 + 2000 * n);
            put(source, name, &["x", &long, &"y".repeat(300 * round)]);
            put(source, name, &["z"]);
        }
    }
    let head = source.publish().unwrap();
    (head.order(), contexts(source.view()))
}

/// Brings a mirror to the newest head, from wherever it is.
fn catch_up(source: &View, mirror: &Store) {
    let view = mirror.view();
    let newest = source.head().unwrap();
    let order = |head: Option<SignedHead>| head.map(|head| head.order());
    if order(view.head()) == Some(newest.order()) {
        return;
    }
    let have = contexts(view);
    let want = contexts(source);
    let differ = want.iter().filter(|context| !have.contains(context));
    let names: Vec<_> = differ.map(|context| context.id.as_str()).collect();
    let (head, seen_head) = seen(source, &names);
    let pending = view.seen_heads().unwrap().pop();
    if order(pending.map(|pending| pending.head)) != Some(newest.order()) {
        ingest(mirror, Ingest::Seen(seen_head.clone())).unwrap();
    }
    for opening in &seen_head.openings {
        let own = ReadMirror::accumulator(view, &id(&opening.id)).unwrap();
        if own.size() < opening.size {
            let (span, payloads) = span(source, view, opening);
            ingest(mirror, Ingest::Span { span, payloads }).unwrap();
        }
    }
    ingest(mirror, Ingest::Complete(head)).unwrap();
}

/// Opens what a crash left, checks it, and catches up.
fn follow(disk: &SimDisk, source: &View, versions: &[Version], told: Option<HeadOrder>) {
    audit_sim(disk, "before opening");
    let mirror = open_on(disk);
    let shown = mirror.view().head().map(|head| head.order());
    assert!(shown >= told, "{shown:?} is shown, {told:?} was told");
    let expected = versions.iter().find(|version| Some(version.0) == shown);
    let expected = expected.map_or(&[][..], |version| &version.1);
    assert_eq!(contexts(mirror.view()), expected);
    let lost = SimDisk::over(disk.image(disk.mark(), Survivors::None, 0));
    let again = open_on(&lost);
    assert_eq!(again.view().head(), mirror.view().head());
    assert_eq!(contexts(again.view()), expected);
    for (disk, mirror) in [(disk, mirror), (&lost, again)] {
        catch_up(source, &mirror);
        mirror.close().unwrap();
        audit_sim(disk, "after catching up");
        let mirror = open_on(disk);
        assert_eq!(contexts(mirror.view()), contexts(source));
        assert_eq!(mirror.view().head(), source.head());
    }
}

#[test]
fn a_mirror_survives_a_loss_of_power_after_any_operation() {
    let source = open(&new_disk());
    let disk = SimDisk::over(mirror_disk());
    let mut mirror = open_on(&disk);
    let mut versions = Vec::new();
    let mut told = Vec::new();
    for round in 0..4 {
        versions.push(grow(&source, round));
        catch_up(source.view(), &mirror);
        told.push((disk.mark(), versions[round].0));
        if round == 1 {
            mirror.close().unwrap();
            mirror = open_on(&disk);
        }
    }
    mirror.close().unwrap();
    let mut replay = disk.replay();
    let (mut dice, mut images) = (Dice(7), 0);
    for at in 0..=replay.len() {
        replay.advance(at);
        let told = told.iter().rfind(|told| told.0 <= at).map(|told| told.1);
        for survivors in Survivors::ALL {
            let always = matches!(survivors, Survivors::None | Survivors::All);
            let times = match (always, replay.is_unsynced()) {
                (true, _) => 1,
                (false, unsynced) => 3 * usize::from(unsynced),
            };
            for _ in 0..times {
                let seed = dice.roll();
                let doing = format!("at {at}, {survivors:?}, {seed}:\n{}", replay.story(8));
                let _doing = OnPanic(doing);
                let left = left(&replay, survivors, seed);
                follow(&left, source.view(), &versions, told);
                images += 1;
            }
        }
    }
    println!(
        "a mirror: {} operations, {images} images opened",
        replay.len()
    );
}
