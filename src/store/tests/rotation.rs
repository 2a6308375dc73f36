//! Rotations of the origin's key: in an own store through every crash, in a
//! mirror through everything that its index may go through.

use super::index::{ALWAYS, NEVER, every, without_index};
use super::mirror::{ingest, mirror_disk, open_mirror, seen, span};
use super::*;
use crate::head::{Head, Rotation, SignedHead, sign_head, sign_rotation};
use crate::ledger::{Ingest, ReadLedger, ReadMirror};
use crate::limits::ROTATIONS_MAX;
use crate::store::disk::{Disk, Fault, FaultKind, Replay, SimDisk, Survivors};

pub(super) fn key(seed: u8) -> SignerKey {
    SignerKey::from_seed(OriginName::new("test-origin").unwrap(), &[seed; 32])
}

pub(super) fn open_as(disk: &MemoryDisk, key: SignerKey) -> Result<Opened, StoreError> {
    Store::open(Arc::new(disk.clone()), options(64 << 10), Some(key))
}

fn rebuilt(disk: &MemoryDisk) {
    let disk: Arc<dyn Disk> = Arc::new(disk.fork());
    rebuild_index(&disk, &options(64 << 10)).unwrap();
}

#[test]
fn a_rotation_ends_the_old_key_for_good() {
    let disk = new_disk();
    let store = open(&disk);
    put(&store, "a", &["one"]);
    store.publish().unwrap();
    put(&store, "a", &["two"]);
    let rotation = store.rotate(key(2)).unwrap();
    assert_eq!((rotation.order().epoch, rotation.head().entries), (2, 2));
    assert_eq!(store.view().origin(), *key(2).verifier());
    assert_eq!(store.view().pinned_key(), *signer().verifier());
    // Of another name, the old one, the one that counts.
    let other = SignerKey::from_seed(OriginName::new("other").unwrap(), &[9; 32]);
    for refused in [other, signer(), key(2)] {
        assert!(matches!(store.rotate(refused), Err(StoreError::Refused(_))));
    }
    put(&store, "b", &["three"]);
    let later = store.publish().unwrap();
    assert!(SignedHead::open(&later.note_bytes(), key(2).verifier()).is_ok());
    assert!(SignedHead::open(&later.note_bytes(), signer().verifier()).is_err());
    store.rotate(key(3)).unwrap();
    store.close().unwrap();
    let report = audit_clean(&disk);
    assert_eq!(report.origin, signer().verifier().to_string());
    rebuilt(&disk);
    for disk in [disk.clone(), without_index(&disk)] {
        for old in [signer(), key(2)] {
            let refused = open_as(&disk, old);
            assert!(matches!(refused, Err(StoreError::WrongKey { .. })));
        }
        let opened = open_as(&disk, key(3)).unwrap();
        assert_eq!(opened.index_discarded, None);
        let view = opened.store.view();
        let rotations = view.rotations_after(None).unwrap();
        assert_eq!(rotations.len(), 2);
        assert_eq!(rotations[0].note_bytes(), rotation.note_bytes());
        let after = view.rotations_after(Some(rotation.order())).unwrap();
        assert_eq!(after, rotations[1..]);
        let newest = view.head().unwrap().order();
        assert!(view.rotations_after(Some(newest)).unwrap().is_empty());
        put(&opened.store, "a", &["four"]);
        opened.store.publish().unwrap();
        opened.store.close().unwrap();
        audit_clean(&disk);
    }
    let view = Store::open_read_only(Arc::new(disk)).unwrap();
    assert_eq!(view.origin_key(), *key(3).verifier());
}

#[test]
fn a_key_is_rotated_so_often_and_no_more() {
    let disk = new_disk();
    let store = open(&disk);
    for n in 0..ROTATIONS_MAX {
        store.rotate(key(100 + u8::try_from(n).unwrap())).unwrap();
    }
    assert!(matches!(store.rotate(key(99)), Err(StoreError::Refused(_))));
    store.close().unwrap();
    audit_clean(&disk);
    let last = key(99 + u8::try_from(ROTATIONS_MAX).unwrap());
    let opened = open_as(&disk, last).unwrap();
    assert_eq!(opened.index_discarded, None);
    assert_eq!(
        opened.store.view().rotations().unwrap().len(),
        ROTATIONS_MAX
    );
}

/// What a store's life has told others, and when.
struct Told {
    at: usize,
    note: Vec<u8>,
}

fn open_files(disk: &SimDisk) -> Opened {
    let disk = Arc::new(disk.clone());
    Store::open_with_key_files(disk, options(64 << 10)).expect("a crash is never damage")
}

fn left(replay: &Replay, survivors: Survivors, seed: u64) -> SimDisk {
    match survivors {
        Survivors::All => replay.restart(),
        _ => SimDisk::over(replay.image(survivors, seed)),
    }
}

/// A store that a crash left opens with the key files it has, knows all it has
/// told, and rotates on.
fn survive(disk: &SimDisk, told: &[&Told]) {
    let opened = open_files(disk);
    let store = opened.store;
    let current = store.view().origin();
    let own = keys::read_origin_key(disk).unwrap();
    assert_eq!(*own.verifier(), current, "installed with opening");
    for told in told {
        let known = store.witness(std::slice::from_ref(&told.note)).unwrap();
        assert_eq!(known, Witness::Known);
    }
    // What was installed stays so.
    let lost = SimDisk::over(disk.image(disk.mark(), Survivors::None, 0));
    assert_eq!(open_files(&lost).store.view().origin(), current);
    put(&store, "a", &["more"]);
    rotate_origin_key(disk, &store).unwrap();
    put(&store, "a", &["and more"]);
    store.publish().unwrap();
    store.close().unwrap();
    assert_eq!(audit(disk, &mut |_| ()).unwrap().first_bad, None);
    open_files(disk).store.close().unwrap();
}

#[test]
fn a_rotation_survives_a_crash_after_any_operation() {
    let disk = SimDisk::new();
    create(&disk, StoreRole::Own, signer().verifier()).unwrap();
    keys::create_origin_key(&disk, &signer()).unwrap();
    let created = disk.mark();
    let mut told: Vec<Told> = Vec::new();
    let mut tell = |head: &SignedHead, disk: &SimDisk| {
        told.push(Told {
            at: disk.mark(),
            note: head.note_bytes(),
        });
    };
    let store = open_files(&disk).store;
    put(&store, "a", &["one"]);
    tell(&store.publish().unwrap(), &disk);
    put(&store, "a", &["two"]);
    tell(&rotate_origin_key(&disk, &store).unwrap(), &disk);
    put(&store, "b", &["three"]);
    tell(&store.publish().unwrap(), &disk);
    tell(&rotate_origin_key(&disk, &store).unwrap(), &disk);
    store.close().unwrap();
    let mut replay = disk.replay();
    for at in created..=replay.len() {
        replay.advance(at);
        let known: Vec<&Told> = told.iter().filter(|told| told.at <= at).collect();
        for survivors in Survivors::ALL {
            let always = matches!(survivors, Survivors::None | Survivors::All);
            if always || replay.is_unsynced() {
                survive(&left(&replay, survivors, at as u64), &known);
            }
        }
    }
}

#[test]
fn a_waiting_key_is_used_and_a_counted_one_is_not() {
    let disk = new_disk();
    keys::create_origin_key(&disk, &signer()).unwrap();
    keys::create_next_origin_key(&disk, &key(7)).unwrap();
    keys::create_next_origin_key(&disk, &key(8)).unwrap();
    let store = open(&disk);
    // Nobody asks for it before the log does.
    let found = keys::read_origin_key_for(&disk, signer().verifier()).unwrap();
    assert!(!found.is_next);
    rotate_origin_key(&disk, &store).unwrap();
    assert_eq!(store.view().origin(), *key(8).verifier());
    keys::create_next_origin_key(&disk, &signer()).unwrap();
    rotate_origin_key(&disk, &store).unwrap();
    let third = store.view().origin();
    assert!(third != *signer().verifier() && third != *key(8).verifier());
    let stranger = keys::read_origin_key_for(&disk, signer().verifier());
    assert!(matches!(stranger, Err(StoreError::WrongKey { .. })));
}

/// Brings a mirror to the source's newest head.
#[test]
fn a_current_key_that_still_waits_is_never_lost() {
    let disk = new_disk();
    keys::create_origin_key(&disk, &signer()).unwrap();
    let with_files = |disk: &MemoryDisk| {
        Store::open_with_key_files(Arc::new(disk.clone()), options(64 << 10)).unwrap()
    };
    let store = with_files(&disk).store;
    let fail = |kind, after| {
        let error = std::io::ErrorKind::Other;
        Some(Fault { kind, after, error })
    };
    // The new key is there and counts, and cannot take its place.
    disk.set_fault_in("origin.key", fail(FaultKind::Rename, 1));
    rotate_origin_key(&disk, &store).unwrap_err();
    let current = store.view().origin();
    assert_ne!(current, *signer().verifier());
    // Nor can it now: no other one is made.
    let waiting = disk.bytes("origin.key.next").unwrap();
    rotate_origin_key(&disk, &store).unwrap_err();
    assert_eq!(disk.bytes("origin.key.next").unwrap(), waiting);
    // The next rotation fails in the log. The key that counts is there.
    disk.set_fault_in("log", fail(FaultKind::Write, 0));
    rotate_origin_key(&disk, &store).unwrap_err();
    drop(store);
    disk.set_fault(None);
    let store = with_files(&disk.fork()).store;
    assert_eq!(store.view().origin(), current);
    store.close().unwrap();
}

#[test]
fn a_waiting_key_that_cannot_be_read_is_named() {
    let disk = new_disk();
    keys::create_origin_key(&disk, &signer()).unwrap();
    keys::create_next_origin_key(&disk, &key(2)).unwrap();
    let store = Store::open_with_key_files(Arc::new(disk.clone()), options(64 << 10));
    let store = store.unwrap().store;
    store.rotate(key(2)).unwrap();
    store.close().unwrap();
    let whole = disk.bytes("origin.key.next").unwrap();
    disk.set_bytes("origin.key.next", whole[..20].to_vec());
    let opened = Store::open_with_key_files(Arc::new(disk.clone()), options(64 << 10));
    let said = opened.unwrap_err().to_string();
    assert!(said.contains("read origin.key.next"), "{said}");
    disk.set_bytes("origin.key.next", whole);
    let opened = Store::open_with_key_files(Arc::new(disk.clone()), options(64 << 10));
    opened.unwrap().store.close().unwrap();
}

fn catch_up(source: &View, mirror: &Store, names: &[&str]) {
    let (head, seen_head) = seen(source, names);
    ingest(mirror, Ingest::Seen(seen_head.clone())).unwrap();
    for opening in &seen_head.openings {
        let (span, payloads) = span(source, mirror.view(), opening);
        ingest(mirror, Ingest::Span { span, payloads }).unwrap();
    }
    ingest(mirror, Ingest::Complete(head)).unwrap();
}

#[test]
fn a_mirror_follows_a_rotation_whatever_happens_to_its_index() {
    for checkpoint in [ALWAYS, NEVER] {
        let source = open(&new_disk());
        let disk = mirror_disk();
        let mut mirror = open_mirror(&disk);
        let reopened = |mirror: Store, disk: &MemoryDisk| {
            mirror.close().unwrap();
            audit_clean(disk);
            rebuilt(disk);
            let opened = Store::open(Arc::new(disk.clone()), every(checkpoint), None).unwrap();
            assert_eq!(opened.index_discarded, None);
            opened.store
        };
        put(&source, "a", &["one", "two"]);
        source.publish().unwrap();
        catch_up(source.view(), &mirror, &["a"]);
        put(&source, "a", &["three"]);
        let first = source.rotate(key(2)).unwrap();
        let complete = mirror.view().head();
        ingest(&mirror, Ingest::Rotation(first.clone())).unwrap();
        // The head that the old key signed is still the newest complete one.
        for _ in 0..2 {
            assert_eq!(mirror.view().head(), complete);
            assert_eq!(mirror.view().origin_key(), *key(2).verifier());
            assert_eq!(mirror.view().pinned_key(), *signer().verifier());
            assert_eq!(mirror.view().rotations().unwrap().len(), 1);
            mirror = reopened(mirror, &disk);
        }
        // The rotation is a head like others.
        catch_up(source.view(), &mirror, &["a"]);
        mirror = reopened(mirror, &disk);
        put(&source, "b", &["x"]);
        let second = source.rotate(key(3)).unwrap();
        put(&source, "b", &["y"]);
        source.publish().unwrap();
        ingest(&mirror, Ingest::Rotation(second)).unwrap();
        catch_up(source.view(), &mirror, &["b"]);
        mirror = reopened(mirror, &disk);
        assert_eq!(mirror.view().rotations().unwrap().len(), 2);
        let head = mirror.view().head().unwrap();
        assert_eq!(
            head.note_bytes(),
            source.view().head().unwrap().note_bytes()
        );
        // The first complete head opens under the key of its place.
        let order = complete.unwrap().order();
        assert!(mirror.view().head_at(order).unwrap().is_some());
        let opened = without_index(&disk);
        assert_eq!(open_mirror(&opened).view().rotations().unwrap().len(), 2);
        let told = mirror.view().rotations_after(Some(first.order())).unwrap();
        assert_eq!(told.len(), 1);
    }
}

pub(super) fn rotation(at: u64, old: u8, new: u8) -> SignedHead {
    let head = Head {
        epoch: at,
        rotation: Some(Rotation {
            old: key(old).verifier().clone(),
            new: key(new).verifier().clone(),
        }),
        ..plain(at)
    };
    let note = sign_rotation(&head, &key(old), &key(new)).unwrap();
    SignedHead::open(&note, key(old).verifier()).unwrap()
}

fn plain(epoch: u64) -> Head {
    Head {
        origin: signer().verifier().name().clone(),
        term: 1,
        epoch,
        directory_root: crate::directory::empty_root(),
        contexts: 0,
        entries: 0,
        time_ns: 5,
        rotation: None,
    }
}

#[test]
fn a_mirror_refuses_what_does_not_continue_the_keys() {
    let source = open(&new_disk());
    put(&source, "a", &["one"]);
    source.publish().unwrap();
    put(&source, "a", &["two"]);
    source.publish().unwrap();
    let disk = mirror_disk();
    let mirror = open_mirror(&disk);
    catch_up(source.view(), &mirror, &["a"]);
    let refused = |item: Ingest| {
        let before = disk.bytes("log/0000000001.seg").unwrap();
        assert!(ingest(&mirror, item).is_err());
        assert_eq!(disk.bytes("log/0000000001.seg").unwrap(), before);
    };
    // A plain head; of another key; at and below the complete head.
    let head = SignedHead::open(&sign_head(&plain(9), &key(1)).unwrap(), key(1).verifier());
    refused(Ingest::Rotation(head.unwrap()));
    refused(Ingest::Rotation(rotation(9, 2, 3)));
    refused(Ingest::Rotation(rotation(2, 1, 2)));
    refused(Ingest::Rotation(rotation(1, 1, 2)));
    // Seen before it is written down.
    put(&source, "a", &["three"]);
    source.publish().unwrap();
    let (pending, seen_head) = seen(source.view(), &["a"]);
    let first = source.rotate(key(2)).unwrap();
    refused(Ingest::Seen(seen(source.view(), &["a"]).1));
    // What was seen under the old key stays held, and is not completed any more.
    ingest(&mirror, Ingest::Seen(seen_head.clone())).unwrap();
    refused(Ingest::Rotation(rotation(3, 1, 2)));
    ingest(&mirror, Ingest::Rotation(first.clone())).unwrap();
    assert_eq!(mirror.view().seen_heads().unwrap().len(), 1);
    refused(Ingest::Complete(pending));
    refused(Ingest::Seen(seen_head));
    // The same again, back to the old key, R6: another one of the old key, and
    // what lies below.
    refused(Ingest::Rotation(first.clone()));
    refused(Ingest::Rotation(rotation(9, 2, 1)));
    refused(Ingest::Rotation(rotation(9, 1, 3)));
    refused(Ingest::Rotation(rotation(4, 2, 3)));
    catch_up(source.view(), &mirror, &["a"]);
    mirror.close().unwrap();
    audit_clean(&disk);
    let mirror = open_mirror(&disk);
    assert_eq!(mirror.view().head().unwrap().order(), first.order());
    // An own store takes none.
    assert!(ingest(&source, Ingest::Rotation(rotation(9, 2, 3))).is_err());
}

#[test]
fn a_mirror_that_pinned_the_new_key_needs_no_older_one() {
    let source = open(&new_disk());
    put(&source, "a", &["one"]);
    source.rotate(key(2)).unwrap();
    let disk = MemoryDisk::new();
    create(&disk, StoreRole::Mirror, key(2).verifier()).unwrap();
    let mirror = open_mirror(&disk);
    catch_up(source.view(), &mirror, &["a"]);
    put(&source, "a", &["two"]);
    source.publish().unwrap();
    catch_up(source.view(), &mirror, &["a"]);
    mirror.close().unwrap();
    audit_clean(&disk);
    assert_eq!(payloads(open_mirror(&disk).view(), "a"), ["one", "two"]);
}
