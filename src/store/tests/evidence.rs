//! Evidence in a mirror's log.

use super::index::without_index;
use super::mirror::{ingest, mirror_disk, open_mirror, seen, span};
use super::rotation::{key, rotation};
use super::*;
use crate::evidence::Evidence;
use crate::hash::Hash;
use crate::head::{Head, SignedHead, sign_head, sign_rotation};
use crate::ledger::{ForkState, Ingest, ReadMirror};
use crate::limits::{EVIDENCE_RECORDS_MAX, SEEN_HEADS_MAX};
use crate::store::disk::Disk;

fn catch_up(source: &View, mirror: &Store) -> SignedHead {
    let (head, seen_head) = seen(source, &["a"]);
    ingest(mirror, Ingest::Seen(seen_head.clone())).unwrap();
    for opening in &seen_head.openings {
        let (span, payloads) = span(source, mirror.view(), opening);
        ingest(mirror, Ingest::Span { span, payloads }).unwrap();
    }
    ingest(mirror, Ingest::Complete(head.clone())).unwrap();
    head
}

/// The origin says something else as well.
fn other(head: &SignedHead, n: u64) -> SignedHead {
    let head = Head {
        directory_root: crate::hash::content(&n.to_le_bytes()),
        ..head.head().clone()
    };
    let note = sign_head(&head, &signer()).unwrap();
    SignedHead::open(&note, signer().verifier()).unwrap()
}

fn evidence(one: &SignedHead, other: &SignedHead) -> Evidence {
    Evidence::of_heads(&[], &[], one, other).unwrap()
}

fn files(disk: &MemoryDisk) -> Vec<String> {
    let mut names = disk.list("").unwrap();
    names.retain(|name| name.starts_with("fork-"));
    names
}

#[test]
fn evidence_is_kept_and_resolved_once() {
    let source = open(&new_disk());
    put(&source, "a", &["one"]);
    source.publish().unwrap();
    let disk = mirror_disk();
    let mut mirror = open_mirror(&disk);
    assert_eq!(mirror.view().fork(), None);
    let head = catch_up(source.view(), &mirror);
    let first = evidence(&head, &other(&head, 1));
    let second = evidence(&head, &other(&head, 2));
    ingest(&mirror, Ingest::Evidence(first.clone())).unwrap();
    assert!(ingest(&mirror, Ingest::Evidence(first.clone())).is_err());
    let state = |resolved| ForkState {
        evidence: first.hash(),
        verdict: first.verify(signer().verifier()).unwrap().to_string(),
        resolved,
    };
    assert_eq!(ReadMirror::fork(mirror.view()).unwrap(), Some(state(false)));
    assert_eq!(files(&disk), ["fork-test-origin-1-1.evidence"]);
    ingest(&mirror, Ingest::Evidence(second.clone())).unwrap();
    let both = [
        "fork-test-origin-1-1-2.evidence",
        "fork-test-origin-1-1.evidence",
    ];
    assert_eq!(files(&disk), both);
    // Of an own store, and what proves nothing.
    assert!(ingest(&source, Ingest::Evidence(first.clone())).is_err());
    let nothing = Evidence {
        later: first.earlier.clone(),
        ..first.clone()
    };
    assert!(ingest(&mirror, Ingest::Evidence(nothing)).is_err());

    // The files come back, whatever becomes of the index.
    for _ in 0..2 {
        mirror.close().unwrap();
        audit_clean(&disk);
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        rebuild_index(&shared, &options(SEGMENT_BYTES_DEFAULT)).unwrap();
        Disk::remove(&disk, "fork-test-origin-1-1.evidence").unwrap();
        mirror = open_mirror(&disk);
        assert_eq!(files(&disk), both);
        assert_eq!(mirror.view().fork().unwrap().evidence, second.hash());
    }
    let (root, forged) = (head.head().directory_root, other(&head, 1));
    let forged = forged.head().directory_root;
    for (which, root) in [
        (first.hash(), Hash::default()),
        (first.hash(), forged),
        (Hash::default(), root),
    ] {
        assert!(mirror.resolve(which, root).is_err());
    }
    mirror.resolve(first.hash(), root).unwrap();
    assert!(mirror.resolve(first.hash(), root).is_err());
    mirror.resolve(second.hash(), root).unwrap();
    assert!(mirror.view().fork().unwrap().resolved);
    // It goes on.
    put(&source, "a", &["two"]);
    source.publish().unwrap();
    catch_up(source.view(), &mirror);
    mirror.close().unwrap();
    audit_clean(&disk);
    for disk in [disk.clone(), without_index(&disk)] {
        let mirror = open_mirror(&disk);
        assert!(mirror.view().fork().unwrap().resolved);
        assert_eq!(mirror.view().fork().unwrap().evidence, second.hash());
        assert!(mirror.resolve(second.hash(), root).is_err());
    }
}

#[test]
fn a_log_holds_so_much_evidence() {
    let source = open(&new_disk());
    put(&source, "a", &["one"]);
    source.publish().unwrap();
    let disk = mirror_disk();
    let mirror = open_mirror(&disk);
    let head = catch_up(source.view(), &mirror);
    for n in 0..EVIDENCE_RECORDS_MAX {
        let item = evidence(&head, &other(&head, n as u64));
        ingest(&mirror, Ingest::Evidence(item)).unwrap();
    }
    let more = evidence(&head, &other(&head, 999));
    assert!(ingest(&mirror, Ingest::Evidence(more)).is_err());
    assert_eq!(files(&disk).len(), EVIDENCE_RECORDS_MAX);
    mirror.close().unwrap();
    audit_clean(&disk);
    open_mirror(&disk).close().unwrap();
}

#[test]
fn a_branch_that_is_held_as_a_rotation_only_can_be_named() {
    let source = open(&new_disk());
    put(&source, "a", &["one"]);
    source.publish().unwrap();
    let disk = mirror_disk();
    let mirror = open_mirror(&disk);
    catch_up(source.view(), &mirror);
    let held = rotation(5, 1, 2);
    ingest(&mirror, Ingest::Rotation(held.clone())).unwrap();
    let elsewhere = Head {
        directory_root: crate::hash::content(b"elsewhere"),
        ..rotation(5, 1, 3).head().clone()
    };
    let note = sign_rotation(&elsewhere, &key(1), &key(3)).unwrap();
    let elsewhere = SignedHead::open(&note, key(1).verifier()).unwrap();
    let item = evidence(&held, &elsewhere);
    ingest(&mirror, Ingest::Evidence(item.clone())).unwrap();
    let root = |head: &SignedHead| head.head().directory_root;
    assert!(mirror.resolve(item.hash(), root(&elsewhere)).is_err());
    mirror.resolve(item.hash(), root(&held)).unwrap();
    mirror.close().unwrap();
    audit_clean(&disk);
    assert!(open_mirror(&disk).view().fork().unwrap().resolved);
}

#[test]
fn when_neither_branch_is_held_what_is_complete_can_be_named() {
    let source = open(&new_disk());
    put(&source, "a", &["one"]);
    source.publish().unwrap();
    let disk = mirror_disk();
    let mirror = open_mirror(&disk);
    let complete = catch_up(source.view(), &mirror);
    put(&source, "a", &["two"]);
    source.publish().unwrap();
    let (head, pending) = seen(source.view(), &["a"]);
    ingest(&mirror, Ingest::Seen(pending)).unwrap();
    let item = evidence(&head, &other(&head, 1));
    ingest(&mirror, Ingest::Evidence(item.clone())).unwrap();
    // Of more seen heads than are held, the oldest are forgotten.
    for _ in 0..SEEN_HEADS_MAX {
        put(&source, "a", &["more"]);
        source.publish().unwrap();
        let (_, more) = seen(source.view(), &["a"]);
        ingest(&mirror, Ingest::Seen(more)).unwrap();
    }
    assert_eq!(mirror.view().seen_heads().unwrap().len(), SEEN_HEADS_MAX);
    let root = |head: &SignedHead| head.head().directory_root;
    for gone in [root(&head), root(&other(&head, 1))] {
        assert!(mirror.resolve(item.hash(), gone).is_err());
    }
    mirror.resolve(item.hash(), root(&complete)).unwrap();
    mirror.close().unwrap();
    audit_clean(&disk);
    assert!(open_mirror(&disk).view().fork().unwrap().resolved);
}
