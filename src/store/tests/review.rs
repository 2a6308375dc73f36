//! Sequences of faults that cross module borders: a helper that outlives its
//! writer, marks and names that were never made durable, answers that fail in
//! the middle.

use std::io;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::channel;
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use super::mirror::{ingest, mirror_disk, open_mirror, seen, span};
use super::*;
use crate::hash;
use crate::ledger::Ingest;
use crate::store::disk::{Access, Disk, DiskFile, DiskLock, Fault, FaultKind, Sharing};
use crate::store::record::{Group, Position, RecordType, SegmentHeader};

const SEGMENT: &str = "log/0000000001.seg";

fn failing(kind: FaultKind) -> Fault {
    Fault {
        kind,
        after: 0,
        error: io::ErrorKind::Other,
    }
}

/// A disk whose `extend` waits at a gate, and that knows which names were
/// never made durable.
#[derive(Clone, Debug, Default)]
struct Hooked {
    disk: MemoryDisk,
    gate: Arc<Gate>,
    loose_names: Arc<Mutex<Vec<String>>>,
}

#[derive(Debug, Default)]
struct Gate {
    closed: Mutex<bool>,
    changed: Condvar,
    waiting: AtomicBool,
    passed: AtomicBool,
}

impl Gate {
    fn set(&self, closed: bool) {
        *self.closed.lock().unwrap() = closed;
        self.changed.notify_all();
    }
}

#[derive(Debug)]
struct HookedFile(Arc<dyn DiskFile>, Arc<Gate>);

impl Disk for Hooked {
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.disk.create(name)?;
        Ok(Arc::new(HookedFile(file, self.gate.clone())))
    }
    fn open(&self, name: &str, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.disk.open(name, access)?;
        Ok(Arc::new(HookedFile(file, self.gate.clone())))
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.loose_names.lock().unwrap().push(to.to_owned());
        self.disk.rename(from, to)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }
    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        self.disk.list(dir)
    }
    fn create_dir(&self, dir: &str) -> io::Result<()> {
        self.disk.create_dir(dir)
    }
    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        let in_dir = |name: &String| name.rsplit_once('/').map_or("", |(d, _)| d) == dir;
        self.loose_names.lock().unwrap().retain(|n| !in_dir(n));
        self.disk.sync_dir(dir)
    }
    fn lock(&self, name: &str) -> io::Result<Box<dyn DiskLock>> {
        Disk::lock(&self.disk, name)
    }
    fn create_private(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.disk.create_private(name, bytes)
    }
    fn read_private(&self, name: &str, bytes_max: u64) -> io::Result<Vec<u8>> {
        self.disk.read_private(name, bytes_max)
    }
}

impl DiskFile for HookedFile {
    fn try_hold(&self, sharing: Sharing) -> io::Result<bool> {
        self.0.try_hold(sharing)
    }

    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read_at(offset, buf)
    }
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_at(offset, bytes)
    }
    fn extend(&self, from: u64, to: u64) -> io::Result<()> {
        self.1.waiting.store(true, Ordering::SeqCst);
        let mut closed = self.1.closed.lock().unwrap();
        while *closed {
            closed = self.1.changed.wait(closed).unwrap();
        }
        drop(closed);
        let outcome = self.0.extend(from, to);
        self.1.passed.store(true, Ordering::SeqCst);
        outcome
    }
    fn sync(&self) -> io::Result<()> {
        // With the gate closed, no sooner than something waits at it.
        if *self.1.closed.lock().unwrap() {
            wait_until("no reserve", || self.1.waiting.load(Ordering::SeqCst));
        }
        self.0.sync()
    }
    fn truncate(&self, len: u64) -> io::Result<()> {
        self.0.truncate(len)
    }
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..2000 {
        if done() {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("{what}");
}

#[test]
fn a_reserve_under_way_ends_before_a_failed_store_gives_up_its_lock() {
    let hooked = Hooked {
        disk: new_disk(),
        ..Hooked::default()
    };
    let open = || {
        let options = StoreOptions {
            reserve_bytes: 64 << 10,
            ..options(1 << 20)
        };
        Store::open(Arc::new(hooked.clone()), options, Some(signer()))
    };
    let store = open().unwrap().store;
    for i in 0..7 {
        put(&store, "a", &[&format!("before {i}")]);
    }
    // The eighth group asks for a reserve, and its own sync fails.
    hooked.gate.set(true);
    hooked.disk.set_fault(Some(failing(FaultKind::Sync)));
    assert!(store.append(vec![(id("a"), draft("torn"))]).is_err());
    hooked.disk.set_fault(None);
    let closing = std::thread::spawn(move || store.close());
    std::thread::sleep(Duration::from_millis(200));
    let reopened = match open() {
        Err(StoreError::Locked) => {
            hooked.gate.set(false);
            let _ = closing.join().unwrap();
            open()
        }
        other => other,
    };
    let store = reopened.unwrap().store;
    let acked = put(&store, "a", &[&"acknowledged ".repeat(50)]);
    hooked.gate.set(false);
    wait_until("no zeros", || hooked.gate.passed.load(Ordering::SeqCst));
    std::thread::sleep(Duration::from_millis(50));
    let read = store.view().entry(&id("a"), acked[0].sequence).unwrap();
    assert_eq!(read.unwrap().id, acked[0].id);
    store.close().unwrap();
    audit_clean(&hooked.disk);
}

#[test]
fn a_mark_that_was_never_durable_is_not_vouched_for() {
    let disk = new_disk();
    let store = open(&disk);
    let len = |disk: &MemoryDisk| disk.bytes(SEGMENT).unwrap().len();
    // The mark is to lie in the last 64 bytes of a sector.
    let mut filler = 0;
    while len(&disk) % 512 != 448 {
        filler += 1;
        put(&store, "a", &[&"f".repeat(filler)]);
        // So that closing has nothing to sign.
        store.publish().unwrap();
        assert!(filler < 400);
    }
    let (kept, at) = (entries(store.view(), "a").len(), len(&disk));
    wait_until("no mark", || len(&disk) == at + 64);
    // The process ends without making the mark durable.
    disk.set_fault(Some(failing(FaultKind::Sync)));
    assert!(store.close().is_err());
    drop(store);
    disk.set_fault(None);
    let store = open(&disk);
    assert_eq!(len(&disk.after_power_loss()), at, "the mark is not durable");
    // The power goes while the next group is synced: its sectors reached the
    // disk, the one that ends with the mark did not.
    disk.set_fault(Some(failing(FaultKind::Sync)));
    assert!(
        store
            .append(vec![(id("a"), draft("unacknowledged"))])
            .is_err()
    );
    let mut bytes = disk.bytes(SEGMENT).unwrap();
    bytes[at..at + 64].fill(0);
    let crashed = disk.fork();
    crashed.set_bytes(SEGMENT, bytes);
    let opened = try_open(&crashed, options(SEGMENT_BYTES_DEFAULT)).unwrap();
    assert_eq!(entries(opened.store.view(), "a").len(), kept);
}

#[test]
fn a_segment_whose_name_is_not_durable_yet_takes_no_entries() {
    let disk = new_disk();
    let store = try_open(&disk, options(4096)).unwrap().store;
    let filler = "f".repeat(1500);
    for _ in 0..3 {
        put(&store, "a", &[&filler]);
    }
    let second = "log/0000000002.seg";
    let mut rolled = disk.bytes(second).unwrap();
    let crashed = disk.fork();
    store.close().unwrap();
    // Killed between the rename and the sync of the directory.
    rolled.truncate(128);
    crashed.set_bytes(second, rolled);
    let hooked = Hooked {
        disk: crashed,
        ..Hooked::default()
    };
    hooked.loose_names.lock().unwrap().push(second.to_owned());
    let opened = Store::open(Arc::new(hooked.clone()), options(4096), Some(signer()));
    let store = opened.unwrap().store;
    put(&store, "a", &["acknowledged"]);
    let lost = hooked.disk.after_power_loss();
    for name in hooked.loose_names.lock().unwrap().iter() {
        let _ = lost.remove(name);
    }
    let reopened = try_open(&lost, options(4096)).unwrap().store;
    assert_eq!(reopened.view().size(&id("a")).unwrap(), Some(3));
}

#[test]
fn a_request_that_cannot_read_a_payload_back_leaves_no_trace() {
    let disk = new_disk();
    let store = open(&disk);
    let big = "b".repeat(5000);
    put(&store, "a", &[&big]);
    // Alone: nothing of the request is stored.
    disk.set_fault(Some(failing(FaultKind::Read)));
    let drafts = vec![(id("a"), draft("small")), (id("a"), draft(&big))];
    assert!(store.append(drafts).is_err());
    disk.set_fault(None);
    assert_eq!(store.view().size(&id("a")).unwrap(), Some(1));
    // In one group with another: a context it would have made leaves no gap.
    let (release, released) = channel::<()>();
    let block = Box::new(move |_| released.recv().unwrap());
    store.submit(vec![(id("a"), draft("first"))], true, block);
    std::thread::sleep(Duration::from_millis(50));
    disk.set_fault(Some(failing(FaultKind::Read)));
    let (answer, answers) = channel();
    for (context, payload) in [("b", big.as_str()), ("c", "small")] {
        let answer = answer.clone();
        let done = Box::new(move |outcome: Result<_, _>| answer.send(outcome.is_ok()).unwrap());
        store.submit(vec![(id(context), draft(payload))], true, done);
    }
    release.send(()).unwrap();
    assert!(!answers.recv().unwrap());
    assert!(answers.recv().unwrap());
    disk.set_fault(None);
    assert_eq!(store.failure(), None);
    store.close().unwrap();
    assert_eq!(payloads(open(&disk).view(), "c"), ["small"]);
}

#[test]
fn a_record_of_a_newer_build_is_never_cut() {
    let disk = new_disk();
    let store = open(&disk);
    put(&store, "a", &["one"]);
    store.close().unwrap();
    let mut bytes = disk.bytes(SEGMENT).unwrap();
    let header = SegmentHeader::decode(bytes[..128].try_into().unwrap()).unwrap();
    let at = Position::new(1, u32::try_from(bytes.len()).unwrap());
    let mut group = Group::new();
    group.add(RecordType::Mark, |_| ());
    let (mut record, _) = group
        .seal(&header.keys(), at, Position::new(1, 128), [0; 16])
        .unwrap();
    record[4] = 200;
    let key = hash::derive_key("converge-ledger v1 log-check", &header.tag_key);
    let mut input = at.as_u64().to_le_bytes().to_vec();
    input.extend_from_slice(&record[..24]);
    record[24..32].copy_from_slice(&hash::keyed_with(&key, &input).as_bytes()[..8]);
    bytes.extend_from_slice(&record);
    disk.set_bytes(SEGMENT, bytes.clone());
    assert!(try_open(&disk, options(SEGMENT_BYTES_DEFAULT)).is_err());
    assert_eq!(disk.bytes(SEGMENT).unwrap(), bytes);
}

#[test]
fn an_answer_that_panics_fails_the_store_and_hangs_nobody() {
    let disk = new_disk();
    let store = open(&disk);
    put(&store, "a", &["one"]);
    store.submit(
        vec![(id("a"), draft("two"))],
        true,
        Box::new(|_| panic!("an answer's panic, on purpose")),
    );
    let (sender, receiver) = channel();
    let asking = store.clone();
    let asker = std::thread::spawn(move || {
        let _ = sender.send(asking.append(vec![(id("a"), draft("three"))]));
    });
    let answer = receiver.recv_timeout(Duration::from_secs(5));
    assert!(answer.expect("nobody answers").is_err());
    wait_until("no failure", || store.failure().is_some());
    // It holds the store as well.
    asker.join().unwrap();
    drop(store);
    assert!(!payloads(open(&disk).view(), "a").is_empty());
}

#[test]
fn an_interval_may_be_as_long_as_it_likes() {
    let disk = new_disk();
    let options = StoreOptions {
        head_every: Some(Duration::MAX),
        heartbeat_every: Some(Duration::MAX),
        ..options(SEGMENT_BYTES_DEFAULT)
    };
    let store = try_open(&disk, options).unwrap().store;
    put(&store, "a", &["one"]);
    store.close().unwrap();
}

#[test]
fn a_head_that_is_not_durable_is_shown_to_no_reader() {
    let disk = new_disk();
    let store = open(&disk);
    put(&store, "a", &["one"]);
    let first = store.publish().unwrap();
    put(&store, "a", &["two"]);
    disk.set_fault(Some(failing(FaultKind::Sync)));
    assert!(store.publish().is_err());
    // The record is in the page cache: a reader beside the writer finds it.
    let shown = Store::open_read_only(Arc::new(disk.clone())).unwrap();
    let shown = shown.head().unwrap();
    // The power goes; the same epoch is signed again.
    let lost = disk.after_power_loss();
    let again = open(&lost).publish().unwrap();
    assert!(
        shown.head().epoch < again.head().epoch || shown.note_bytes() == again.note_bytes(),
        "two texts of epoch {}",
        again.head().epoch
    );
    assert_eq!(shown, first);
}

#[test]
fn a_mirror_completes_no_head_that_its_entries_do_not_lie_under() {
    let source = |payloads: &[&str]| {
        let store = open(&new_disk());
        put(&store, "a", payloads);
        store.publish().unwrap();
        store
    };
    let (one, other) = (source(&["one", "two"]), source(&["another"]));
    let disk = mirror_disk();
    let mirror = open_mirror(&disk);
    let (_, seen_one) = seen(one.view(), &["a"]);
    ingest(&mirror, Ingest::Seen(seen_one.clone())).unwrap();
    let (runs, payloads) = span(one.view(), mirror.view(), &seen_one.openings[0]);
    let item = Ingest::Span {
        span: runs,
        payloads,
    };
    ingest(&mirror, item).unwrap();
    // The origin signs another history that is shorter.
    let (head, seen_other) = seen(other.view(), &["a"]);
    ingest(&mirror, Ingest::Seen(seen_other)).unwrap();
    assert!(ingest(&mirror, Ingest::Complete(head)).is_err());
    assert_eq!(mirror.view().size(&id("a")).unwrap(), None);
}

#[test]
fn a_mirror_takes_no_head_of_another_key() {
    let stranger = SignerKey::from_seed(OriginName::new("test-origin").unwrap(), &[2; 32]);
    let disk = MemoryDisk::new();
    create(&disk, StoreRole::Own, stranger.verifier()).unwrap();
    let options = options(SEGMENT_BYTES_DEFAULT);
    let source = Store::open(Arc::new(disk), options, Some(stranger));
    let source = source.unwrap().store;
    put(&source, "a", &["one"]);
    source.publish().unwrap();
    let disk = mirror_disk();
    let mirror = open_mirror(&disk);
    let (_, seen_head) = seen(source.view(), &["a"]);
    assert!(ingest(&mirror, Ingest::Seen(seen_head)).is_err());
    mirror.close().unwrap();
    open_mirror(&disk);
}
