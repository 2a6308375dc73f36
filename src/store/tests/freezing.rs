//! The store's lock is held until `frozen.note` is written: on a disk that takes
//! its time with that file.

use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread;

use super::*;
use crate::store::disk::{Access, Disk, DiskFile, DiskLock};
use crate::store::frozen::FROZEN_FILE;

/// Passes when nothing is wrong.
const SHORT: Duration = Duration::from_millis(200);

/// Says when it is about to make `frozen.note`, and waits for leave.
#[derive(Debug)]
struct SlowDisk {
    memory: MemoryDisk,
    made: Mutex<Sender<()>>,
    leave: Mutex<Receiver<()>>,
    unlocked: Sender<()>,
}

/// Says when it is given back.
#[derive(Debug)]
struct WatchedLock {
    unlocked: Sender<()>,
    _lock: Box<dyn DiskLock>,
}

impl DiskLock for WatchedLock {}

impl Drop for WatchedLock {
    fn drop(&mut self) {
        let _ = self.unlocked.send(());
    }
}

impl Disk for SlowDisk {
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        if name.starts_with(FROZEN_FILE) {
            let lock = |error: PoisonError<_>| error.into_inner();
            self.made.lock().unwrap_or_else(lock).send(()).unwrap();
            let leave = self.leave.lock().unwrap_or_else(PoisonError::into_inner);
            leave.recv().unwrap();
        }
        self.memory.create(name)
    }

    fn open(&self, name: &str, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        self.memory.open(name, access)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.memory.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.memory.remove(name)
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        self.memory.list(dir)
    }

    fn create_dir(&self, dir: &str) -> io::Result<()> {
        self.memory.create_dir(dir)
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        self.memory.sync_dir(dir)
    }

    fn lock(&self, name: &str) -> io::Result<Box<dyn DiskLock>> {
        Ok(Box::new(WatchedLock {
            unlocked: self.unlocked.clone(),
            _lock: self.memory.lock(name)?,
        }))
    }

    fn create_private(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.memory.create_private(name, bytes)
    }

    fn read_private(&self, name: &str, bytes_max: u64) -> io::Result<Vec<u8>> {
        self.memory.read_private(name, bytes_max)
    }
}

#[test]
fn no_second_opener_comes_between_a_freeze_and_its_file() {
    let memory = new_disk();
    let store = open(&memory);
    put(&store, "a", &["one"]);
    store.publish().unwrap();
    let old = memory.fork();
    put(&store, "a", &["two"]);
    let ahead = store.publish().unwrap().note_bytes();

    let (made, hear_made) = channel();
    let (give_leave, leave) = channel();
    let (failed, hear_failed) = channel();
    let (unlocked, hear_unlocked) = channel();
    let disk = SlowDisk {
        memory: old.clone(),
        made: Mutex::new(made),
        leave: Mutex::new(leave),
        unlocked,
    };
    let failed = Mutex::new(failed);
    let options = StoreOptions {
        listener: Some(Listener(Arc::new(move |change: Change<'_>| {
            if matches!(change, Change::Failed) {
                let failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
                failed.send(()).unwrap();
            }
        }))),
        ..options(SEGMENT_BYTES_DEFAULT)
    };
    let store = Store::open(Arc::new(disk), options, Some(signer()));
    let store = store.unwrap().store;
    thread::scope(|scope| {
        let shown = scope.spawn(|| store.witness(&[ahead]));
        hear_made.recv().unwrap();
        // It signs no more, file or no file.
        assert!(matches!(store.publish(), Err(StoreError::Frozen(_))));
        let closed = scope.spawn(|| store.close());
        hear_failed.recv().unwrap();
        // It would be at once.
        let early = hear_unlocked.recv_timeout(SHORT);
        give_leave.send(()).unwrap();
        assert!(early.is_err());
        assert_eq!(shown.join().unwrap().unwrap(), Witness::Frozen);
        assert!(matches!(closed.join().unwrap(), Err(StoreError::Frozen(_))));
    });
    hear_unlocked.recv().unwrap();
    let again = try_open(&old, super::options(SEGMENT_BYTES_DEFAULT));
    assert!(matches!(again, Err(StoreError::Frozen(_))));
}
