//! The guard: what freezes a store, what does not, and how it goes on.

use std::sync::atomic::AtomicUsize;

use super::rotation::{key, open_as};
use super::*;
use crate::head::{Head, Rotation, SignedHead, Takeover, sign_head, sign_rotation};
use crate::note::Note;
use crate::store::disk::{Disk, Fault, FaultKind};
use crate::store::frozen::{FROZEN_FILE, decode, encode};

const SEGMENT: &str = "log/0000000001.seg";

/// A store with some heads, and copies of it at each of them.
struct Past {
    disk: MemoryDisk,
    heads: Vec<SignedHead>,
    copies: Vec<MemoryDisk>,
}

impl Past {
    fn new(count: usize) -> Self {
        let disk = new_disk();
        let (mut heads, mut copies) = (Vec::new(), Vec::new());
        for n in 0..count {
            let store = open(&disk);
            put(&store, "a", &[&n.to_string()]);
            heads.push(store.publish().unwrap());
            store.close().unwrap();
            copies.push(disk.fork());
        }
        Self {
            disk,
            heads,
            copies,
        }
    }

    fn note(&self, n: usize) -> Vec<u8> {
        self.heads[n].note_bytes()
    }
}

fn signed(head: &Head, by: &SignerKey) -> Vec<u8> {
    sign_head(head, by).unwrap()
}

fn taken_over(by: &SignerKey) -> Vec<u8> {
    let takeover = Takeover {
        origin: by.verifier().name().clone(),
        term: 2,
        base: crate::head::HeadOrder { term: 1, epoch: 2 },
        base_directory_root: crate::directory::empty_root(),
        base_contexts: 1,
        base_entries: 7,
        time_ns: 9,
    };
    let mut note = Note::new(takeover.to_text()).unwrap();
    note.sign(by).unwrap();
    note.to_bytes()
}

fn judged(disk: &MemoryDisk, notes: &[Vec<u8>]) -> (Witness, Store) {
    let store = open(disk);
    let witness = store.witness(notes).unwrap();
    assert_eq!(store.frozen().is_some(), witness == Witness::Frozen);
    (witness, store)
}

#[test]
fn what_freezes_a_store_and_what_does_not() {
    let past = Past::new(5);
    let store = open(&past.disk);
    let head = past.heads[4].head().clone();
    let other = SignerKey::from_seed(OriginName::new("test-origin").unwrap(), &[77; 32]);
    let stranger = SignerKey::from_seed(OriginName::new("stranger").unwrap(), &[1; 32]);
    let ahead = Head {
        epoch: 90,
        ..head.clone()
    };
    let foreign = Head {
        origin: stranger.verifier().name().clone(),
        ..ahead.clone()
    };
    let mut unsigned = past.note(4);
    let at = unsigned.len() - 10;
    unsigned[at] ^= 1;
    let rotation = |old: &SignerKey, new: &SignerKey| {
        let head = Head {
            rotation: Some(Rotation {
                old: old.verifier().clone(),
                new: new.verifier().clone(),
            }),
            ..ahead.clone()
        };
        sign_rotation(&head, old, new).unwrap()
    };
    let not_ours = [
        vec![],
        b"garbage".to_vec(),
        vec![0xff; 9000],
        unsigned,
        // Another key of the same name, another origin.
        signed(&ahead, &other),
        signed(&foreign, &stranger),
        rotation(&other, &key(9)),
        taken_over(&other),
        ahead.to_text().into_bytes(),
    ];
    for note in &not_ours {
        let witness = store.witness(std::slice::from_ref(note)).unwrap();
        assert_eq!(witness, Witness::NotOurs, "{note:?}");
    }
    assert_eq!(store.witness(&not_ours).unwrap(), Witness::NotOurs);
    assert_eq!(store.witness(&[]).unwrap(), Witness::NotOurs);
    for n in 0..5 {
        // Also with a signature of somebody else, and garbage around.
        let mut note = Note::parse(&past.note(n)).unwrap();
        note.sign(&stranger).unwrap();
        for note in [past.note(n), note.to_bytes()] {
            let shown = [b"x".to_vec(), note, b"y".to_vec()];
            assert_eq!(store.witness(&shown).unwrap(), Witness::Known);
        }
    }
    assert_eq!(store.frozen(), None);
    store.close().unwrap();

    let later = |order: u64| Head {
        epoch: order,
        ..head.clone()
    };
    let text = |n: usize| Head {
        time_ns: 77,
        ..past.heads[n].head().clone()
    };
    let own = signer();
    let cases: Vec<(Vec<u8>, FrozenKind, u64)> = vec![
        (signed(&later(6), &own), FrozenKind::Ahead, 1),
        (signed(&later(90), &own), FrozenKind::Ahead, 85),
        (rotation(&own, &key(2)), FrozenKind::Ahead, 85),
        (signed(&text(4), &own), FrozenKind::OtherText, 0),
        (signed(&text(0), &own), FrozenKind::OtherText, 0),
        (taken_over(&own), FrozenKind::Takeover, 0),
    ];
    for (note, kind, behind) in cases {
        let disk = past.disk.fork();
        let (witness, store) = judged(&disk, &[past.note(2), note.clone(), past.note(4)]);
        assert_eq!(witness, Witness::Frozen);
        let frozen = store.frozen().unwrap();
        assert_eq!((frozen.kind, frozen.epochs_behind), (kind, behind));
        assert_eq!(frozen.held, Some(past.heads[4].order()));
        assert!(!frozen.to_string().is_empty());
        let _ = store.close();
        let again = try_open(&disk, options(SEGMENT_BYTES_DEFAULT));
        assert!(matches!(again, Err(StoreError::Frozen(why)) if why == frozen));
    }
}

#[test]
fn a_frozen_store_changes_nothing_until_its_log_is_the_newest_again() {
    let past = Past::new(6);
    let disk = past.copies[2].fork();
    let heard = Arc::new(AtomicUsize::new(0));
    let listener = {
        let heard = heard.clone();
        Listener(Arc::new(move |change: Change<'_>| {
            if matches!(change, Change::Failed) {
                heard.fetch_add(1, Ordering::SeqCst);
            }
        }))
    };
    let with_listener = StoreOptions {
        listener: Some(listener),
        ..options(SEGMENT_BYTES_DEFAULT)
    };
    let store = try_open(&disk, with_listener).unwrap().store;
    assert_eq!(store.witness(&[past.note(1)]).unwrap(), Witness::Known);
    assert_eq!(store.witness(&[past.note(5)]).unwrap(), Witness::Frozen);
    let frozen = store.frozen().unwrap();
    assert_eq!((frozen.epochs_behind, frozen.entries_behind), (3, 3));
    let before = disk.bytes(SEGMENT).unwrap();
    let refused = store.append(vec![(id("a"), draft("x"))]);
    assert!(matches!(
        refused,
        Err(AppendError::Store(StoreError::Frozen(_)))
    ));
    assert!(matches!(store.publish(), Err(StoreError::Frozen(_))));
    assert!(matches!(store.rotate(key(5)), Err(StoreError::Frozen(_))));
    assert_eq!(store.witness(&[past.note(4)]).unwrap(), Witness::Frozen);
    assert_eq!(payloads(store.view(), "a"), ["0", "1", "2"]);
    assert!(matches!(store.close(), Err(StoreError::Frozen(_))));
    assert_eq!(heard.load(Ordering::SeqCst), 1);
    drop(store);
    assert_eq!(disk.bytes(SEGMENT).unwrap(), before);

    // It stays so, and can be read.
    for _ in 0..2 {
        let again = try_open(&disk, options(SEGMENT_BYTES_DEFAULT));
        assert!(matches!(again, Err(StoreError::Frozen(_))));
        assert_eq!(disk.bytes(SEGMENT).unwrap(), before);
    }
    let view = Store::open_read_only(Arc::new(disk.clone())).unwrap();
    assert_eq!(payloads(&view, "a"), ["0", "1", "2"]);
    assert_eq!(audit_clean(&disk).entries, 3);

    // A log that is newer and still too old; then the newest.
    let restore = |from: &MemoryDisk| {
        for file in [SEGMENT, "head.note", "index.redb"] {
            disk.set_bytes(file, from.bytes(file).unwrap());
        }
    };
    restore(&past.copies[4]);
    let again = try_open(&disk, options(SEGMENT_BYTES_DEFAULT));
    assert!(matches!(again, Err(StoreError::Frozen(why)) if why.epochs_behind == 1));
    restore(&past.copies[5]);
    let store = open(&disk);
    assert_eq!(disk.bytes(FROZEN_FILE), None);
    put(&store, "a", &["on"]);
    store.publish().unwrap();
    store.close().unwrap();
    audit_clean(&disk);
}

#[test]
fn two_histories_are_told_from_an_old_one() {
    let past = Past::new(5);
    let disk = past.copies[2].fork();
    let store = open(&disk);
    put(&store, "a", &["another"]);
    let fourth = store.publish().unwrap();
    put(&store, "a", &["history"]);
    store.publish().unwrap();
    assert_eq!(store.witness(&[past.note(2)]).unwrap(), Witness::Known);
    let shown = [past.note(3), past.note(4)];
    assert_eq!(store.witness(&shown).unwrap(), Witness::Frozen);
    let frozen = store.frozen().unwrap();
    assert_eq!(frozen.kind, FrozenKind::OtherText);
    assert_ne!(fourth.note_bytes(), past.note(3));
    // Both notes were kept.
    let notes = decode(&disk.bytes(FROZEN_FILE).unwrap()).unwrap();
    assert_eq!(notes, shown);
}

#[test]
fn the_keys_of_the_chain_freeze_a_store_and_old_ones_only_for_their_own_time() {
    let disk = new_disk();
    let store = open(&disk);
    put(&store, "a", &["one"]);
    let first = store.publish().unwrap();
    let before = disk.fork();
    let rotated = store.rotate(key(2)).unwrap();
    put(&store, "a", &["two"]);
    let third = store.publish().unwrap();
    let again = store.rotate(key(3)).unwrap();
    put(&store, "a", &["three"]);
    let newest = store.publish().unwrap();
    store.close().unwrap();
    let note = SignedHead::note_bytes;
    let as_head_reply = [note(&rotated), note(&again), note(&newest)];
    let store = open_as(&disk, key(3)).unwrap().store;
    assert_eq!(store.witness(&as_head_reply).unwrap(), Witness::Known);
    assert_eq!(
        store.witness(&[note(&first), note(&third)]).unwrap(),
        Witness::Known
    );
    // Keys that no longer count, after they did.
    let late = Head {
        epoch: 50,
        rotation: None,
        ..newest.head().clone()
    };
    let stolen = [signed(&late, &signer()), signed(&late, &key(2))];
    assert_eq!(store.witness(&stolen).unwrap(), Witness::NotOurs);
    store.close().unwrap();
    // While they counted.
    let forged = Head {
        time_ns: 3,
        ..third.head().clone()
    };
    let fork = disk.fork();
    let store = open_as(&fork, key(3)).unwrap().store;
    let shown = [signed(&forged, &key(2))];
    assert_eq!(store.witness(&shown).unwrap(), Witness::Frozen);
    // A store that lacks both rotations sees how far behind it is.
    let old = open(&before);
    assert_eq!(old.witness(&as_head_reply).unwrap(), Witness::Frozen);
    let frozen = old.frozen().unwrap();
    assert_eq!((frozen.kind, frozen.epochs_behind), (FrozenKind::Ahead, 4));
    assert_eq!(frozen.entries_behind, 2);
}

#[test]
fn a_frozen_note_that_proves_nothing_freezes_nobody() {
    let past = Past::new(3);
    let full = encode(&[past.note(0), past.note(2)]);
    assert_eq!(
        decode(&full),
        Some(vec![past.note(0), past.note(2)]),
        "one spelling"
    );
    let old = &past.copies[0];
    let frozen = |bytes: &[u8]| {
        let disk = old.fork();
        disk.set_bytes(FROZEN_FILE, bytes.to_vec());
        let opened = try_open(&disk, options(SEGMENT_BYTES_DEFAULT));
        match opened {
            Ok(opened) => {
                opened.store.close().unwrap();
                false
            }
            Err(StoreError::Frozen(_)) => true,
            Err(error) => panic!("{error}"),
        }
    };
    assert!(frozen(&full));
    assert!(!frozen(&encode(&[past.note(0)])));
    assert!(!frozen(b""));
    assert!(!frozen(&vec![b'x'; 4 << 20]));
    let mut cut = 0;
    while cut < full.len() {
        assert!(!frozen(&full[..cut]), "cut at {cut}");
        cut += 11;
    }
    for at in (0..full.len()).step_by(17) {
        let mut changed = full.clone();
        changed[at] ^= 4;
        // The first note may be changed without a word about the second.
        let second = decode(&changed).is_some_and(|notes| notes[1] == past.note(2));
        assert_eq!(frozen(&changed), second, "{at}");
    }
}

#[test]
fn a_lost_head_note_is_an_alarm_and_no_fresh_start() {
    // One head: a crash can leave it so.
    let past = Past::new(4);
    let disk = past.copies[0].fork();
    Disk::remove(&disk, "head.note").unwrap();
    let opened = try_open(&disk, options(SEGMENT_BYTES_DEFAULT)).unwrap();
    assert!(!opened.head_note_missing);
    assert!(opened.store.append(Vec::new()).is_ok());
    assert!(disk.bytes("head.note").is_some(), "made at once");
    let head = opened.store.publish().unwrap();
    assert_eq!(head.order().epoch, 2);
    opened.store.close().unwrap();
    // More than one: none can.
    for index in [true, false] {
        let disk = past.disk.fork();
        Disk::remove(&disk, "head.note").unwrap();
        if !index {
            Disk::remove(&disk, "index.redb").unwrap();
        }
        let opened = try_open(&disk, options(SEGMENT_BYTES_DEFAULT)).unwrap();
        assert!(opened.head_note_missing);
        assert!(opened.store.append(Vec::new()).is_ok());
        assert!(disk.bytes("head.note").is_some(), "made at once");
        let head = opened.store.view().head().unwrap();
        assert_eq!(head.order().epoch, 6, "one is skipped");
        opened.store.close().unwrap();
        let opened = try_open(&disk, options(SEGMENT_BYTES_DEFAULT)).unwrap();
        assert!(!opened.head_note_missing);
        audit_clean(&disk);
    }
}

#[test]
fn no_second_head_is_signed_before_the_first_is_noted() {
    let disk = new_disk();
    let store = open(&disk);
    put(&store, "a", &["one"]);
    disk.set_fault_in(
        "head.note",
        Some(Fault {
            kind: FaultKind::Rename,
            after: 0,
            error: std::io::ErrorKind::StorageFull,
        }),
    );
    store.publish().unwrap();
    put(&store, "a", &["two"]);
    assert!(matches!(store.publish(), Err(StoreError::DiskFull)));
    // A crash now is an honest one.
    let crashed = disk.after_power_loss();
    let opened = try_open(&crashed, options(SEGMENT_BYTES_DEFAULT)).unwrap();
    assert!(!opened.head_note_missing);
    disk.set_fault_in("head.note", None);
    assert_eq!(store.publish().unwrap().order().epoch, 2);
    store.close().unwrap();
    audit_clean(&disk);
}

#[test]
fn a_head_note_of_another_text_is_refused() {
    let past = Past::new(3);
    let disk = past.disk.fork();
    let bytes = disk.bytes("head.note").unwrap();
    let line = bytes.iter().position(|&b| b == b'\n').unwrap() + 1;
    let with = |note: &[u8]| {
        let disk = past.disk.fork();
        disk.set_bytes("head.note", [&bytes[..line], note].concat());
        let opened = try_open(&disk, options(SEGMENT_BYTES_DEFAULT));
        assert!(audit(&disk, &mut |_| ()).unwrap().first_bad.is_some());
        matches!(opened, Err(StoreError::Damaged(_)))
    };
    let other = |epoch: u64| {
        let head = Head {
            epoch,
            time_ns: 5,
            ..past.heads[2].head().clone()
        };
        signed(&head, &signer())
    };
    for note in [other(3), other(2), other(4), b"garbage".to_vec()] {
        assert!(with(&note));
    }
}

#[test]
fn what_is_shown_before_a_store_starts_leaves_its_log_as_it_is() {
    let past = Past::new(5);
    // Put back, gone on, killed before it signed, and without its head.note.
    let disk = past.copies[2].fork();
    let store = open(&disk);
    put(&store, "a", &["unsigned"]);
    let disk = disk.fork();
    drop(store);
    Disk::remove(&disk, "head.note").unwrap();
    let before = disk.bytes(SEGMENT).unwrap();
    let read = |disk: &MemoryDisk| {
        StoreOpening::read(Arc::new(disk.clone()), options(SEGMENT_BYTES_DEFAULT)).unwrap()
    };
    let mut opening = read(&disk);
    assert_eq!((opening.has_head(), opening.noted()), (true, None));
    assert!(opening.holds_shown(&[past.note(1)]).unwrap());
    assert!(!opening.holds_shown(&[b"x".to_vec()]).unwrap());
    let locked = try_open(&disk, options(SEGMENT_BYTES_DEFAULT));
    assert!(matches!(locked, Err(StoreError::Locked)));
    let Err(StoreError::Frozen(frozen)) = opening.holds_shown(&[past.note(4)]) else {
        panic!("it is ahead");
    };
    assert_eq!((frozen.kind, frozen.epochs_behind), (FrozenKind::Ahead, 2));
    let started = opening.start(Some(signer()));
    assert!(matches!(started, Err(StoreError::Frozen(why)) if why == frozen));
    assert_eq!(disk.bytes(SEGMENT).unwrap(), before);
    assert_eq!(disk.bytes("head.note"), None);
    let again = try_open(&disk, options(SEGMENT_BYTES_DEFAULT));
    assert!(matches!(again, Err(StoreError::Frozen(why)) if why == frozen));
    // Whoever goes away without a start leaves no trace.
    Disk::remove(&disk, FROZEN_FILE).unwrap();
    drop(read(&disk));
    assert_eq!(disk.bytes(SEGMENT).unwrap(), before);
    let opening = read(&disk);
    let opened = opening.start(Some(signer())).unwrap();
    assert!(opened.head_note_missing);
    opened.store.close().unwrap();
}

#[test]
fn an_alarm_is_raised_again_until_a_head_is_published_for_it() {
    let past = Past::new(4);
    let disk = past.disk.fork();
    Disk::remove(&disk, "head.note").unwrap();
    let fault = Fault {
        kind: FaultKind::Sync,
        after: 0,
        error: std::io::ErrorKind::Other,
    };
    disk.set_fault_in("log", Some(fault));
    let opened = try_open(&disk, options(SEGMENT_BYTES_DEFAULT)).unwrap();
    assert!(opened.head_note_missing);
    assert!(opened.store.close().is_err());
    assert_eq!(disk.bytes("head.note"), None);
    let disk = disk.after_power_loss();
    let opened = try_open(&disk, options(SEGMENT_BYTES_DEFAULT)).unwrap();
    assert!(opened.head_note_missing);
    opened.store.close().unwrap();
    let opened = try_open(&disk, options(SEGMENT_BYTES_DEFAULT)).unwrap();
    assert!(!opened.head_note_missing);
    opened.store.close().unwrap();
    audit_clean(&disk);
}
