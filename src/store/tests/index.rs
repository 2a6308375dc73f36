//! The index: the same answers with it, without it, and while it is lost.

mod fails;
mod flips;
mod found;
mod lies;
mod loads;
mod mirrors;
mod model;
mod property;

use std::io;
use std::time::Duration;

use super::*;
use crate::store::disk::{Access, Disk, DiskFile, DiskLock};
use crate::store::index::Base;

const INDEX: &str = "index.redb";
const NEW: &str = "index.redb.new";

/// Every group is folded.
pub(super) const ALWAYS: Duration = Duration::ZERO;
/// Nothing is folded before the store is closed.
pub(super) const NEVER: Duration = Duration::from_hours(1);

/// Options of a store that folds as often as that.
pub(super) fn every(checkpoint_every: Duration) -> StoreOptions {
    StoreOptions {
        checkpoint_every,
        ..options(64 << 10)
    }
}

fn open_every(disk: &MemoryDisk, checkpoint_every: Duration) -> Store {
    try_open(disk, every(checkpoint_every)).unwrap().store
}

/// Waits until the writer has nothing to do.
fn barrier(store: &Store) {
    assert!(store.append(Vec::new()).unwrap().is_empty());
}

/// True if nothing is left to be folded.
fn is_folded(store: &Store) -> bool {
    let index = store.view().index();
    index.below.frozen.is_none() && !index.is_dirty()
}

fn is_lost(store: &Store) -> bool {
    matches!(store.view().index().below.base, Base::Lost)
}

fn is_ready(store: &Store) -> bool {
    matches!(store.view().index().below.base, Base::Ready(_))
}

/// Waits until a store that always folds has folded everything.
fn settle(store: &Store) {
    barrier(store);
    let folded = store.mailbox().wait_until(|| is_folded(store));
    assert!(folded, "nothing is folded");
}

/// Waits until the index is on disk, after it was lost.
fn wait_ready(store: &Store) {
    let ready = store.mailbox().wait_until(|| is_ready(store));
    assert!(ready, "the index was not made anew");
}

pub(super) fn without_index(disk: &MemoryDisk) -> MemoryDisk {
    let copy = disk.fork();
    let _ = copy.remove(INDEX);
    copy
}

fn read_only(disk: &MemoryDisk) -> View {
    Store::open_read_only(Arc::new(disk.clone())).unwrap()
}

/// A call to a disk that may be refused or held.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Call {
    /// Anything that changes names or takes the lock.
    Name,
    OpenToWrite,
    Write,
    Sync,
}

type Hook = dyn Fn(Call, &str) -> io::Result<()> + Send + Sync;

/// A disk that asks before it does something.
#[derive(Clone)]
struct Hooked {
    disk: MemoryDisk,
    hook: Arc<Hook>,
}

impl Hooked {
    fn new(
        disk: &MemoryDisk,
        hook: impl Fn(Call, &str) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let disk = disk.clone();
        let hook = Arc::new(hook);
        Self { disk, hook }
    }

    fn file(&self, name: &str, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        let (name, hook) = (name.to_owned(), self.hook.clone());
        Arc::new(HookedFile { name, file, hook })
    }
}

impl std::fmt::Debug for Hooked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.disk.fmt(f)
    }
}

struct HookedFile {
    name: String,
    file: Arc<dyn DiskFile>,
    hook: Arc<Hook>,
}

impl std::fmt::Debug for HookedFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)
    }
}

impl Disk for Hooked {
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        (self.hook)(Call::Name, name)?;
        Ok(self.file(name, self.disk.create(name)?))
    }
    fn open(&self, name: &str, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        if access == Access::Write {
            (self.hook)(Call::OpenToWrite, name)?;
        }
        Ok(self.file(name, self.disk.open(name, access)?))
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        (self.hook)(Call::Name, to)?;
        self.disk.rename(from, to)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        (self.hook)(Call::Name, name)?;
        self.disk.remove(name)
    }
    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        self.disk.list(dir)
    }
    fn create_dir(&self, dir: &str) -> io::Result<()> {
        (self.hook)(Call::Name, dir)?;
        self.disk.create_dir(dir)
    }
    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        self.disk.sync_dir(dir)
    }
    fn lock(&self, name: &str) -> io::Result<Box<dyn DiskLock>> {
        (self.hook)(Call::Name, name)?;
        Disk::lock(&self.disk, name)
    }
    fn create_private(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        (self.hook)(Call::Name, name)?;
        self.disk.create_private(name, bytes)
    }
    fn read_private(&self, name: &str, bytes_max: u64) -> io::Result<Vec<u8>> {
        self.disk.read_private(name, bytes_max)
    }
}

impl DiskFile for HookedFile {
    fn try_hold(&self, sharing: disk::Sharing) -> io::Result<bool> {
        self.file.try_hold(sharing)
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.file.read_at(offset, buf)
    }
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        (self.hook)(Call::Write, &self.name)?;
        self.file.write_at(offset, bytes)
    }
    fn extend(&self, from: u64, to: u64) -> io::Result<()> {
        (self.hook)(Call::Write, &self.name)?;
        self.file.extend(from, to)
    }
    fn sync(&self) -> io::Result<()> {
        (self.hook)(Call::Sync, &self.name)?;
        self.file.sync()
    }
    fn truncate(&self, len: u64) -> io::Result<()> {
        (self.hook)(Call::Write, &self.name)?;
        self.file.truncate(len)
    }
}
