//! Files in memory: ephemeral stores, and tests that need a disk which fills
//! up, fails, or loses what was not synced.
//!
//! Each file keeps two contents: what reads see, and what the last sync made
//! durable. They share their memory until one of them changes.
//! [`MemoryDisk::after_power_loss`] makes a disk from the durable contents;
//! tests that want other survivors edit files directly, or record what is done
//! to the disk (`SimDisk`).

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Access, Disk, DiskFile, DiskLock, Sharing};

mod contents;

use contents::Contents;

/// Which calls a [`Fault`] counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FaultKind {
    /// `write_at`.
    Write,
    /// `extend`.
    Extend,
    /// `sync`.
    Sync,
    /// `rename`.
    Rename,
    /// `read_at`.
    Read,
}

/// A failure to come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fault {
    /// The kind of call that fails.
    pub kind: FaultKind,
    /// How many calls of that kind succeed before it.
    pub after: u64,
    /// The error of that call and of all later ones of its kind.
    pub error: io::ErrorKind,
}

#[derive(Clone, Debug, Default)]
struct Content {
    bytes: Contents,
    durable: Contents,
    private: bool,
    holders: Holders,
}

/// Who holds a file.
#[derive(Clone, Debug, Default)]
struct Holders {
    shared: usize,
    exclusive: bool,
}

/// A file as a whole, for copies of disks.
#[cfg(any(test, feature = "fuzzing"))]
#[derive(Clone, Debug)]
pub(super) struct WholeFile {
    pub(super) name: String,
    pub(super) bytes: Arc<Vec<u8>>,
    pub(super) private: bool,
}

#[derive(Debug, Default)]
struct State {
    files: BTreeMap<String, Arc<Mutex<Content>>>,
    locks: BTreeSet<String>,
    capacity_bytes: Option<u64>,
    fault: Option<Fault>,
    /// The fault is one of files whose names start with this.
    fault_in: String,
    /// Calls that have failed by a fault.
    faults_met: u64,
}

/// A disk in memory. Clones share their files.
#[derive(Clone, Default)]
pub struct MemoryDisk {
    state: Arc<Mutex<State>>,
}

impl std::fmt::Debug for MemoryDisk {
    /// Without the contents.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list()
            .entries(lock(&self.state).files.keys())
            .finish()
    }
}

/// A poisoned lock means another test thread panicked; the data is still
/// whole, since every critical section leaves it so.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn full() -> io::Error {
    io::ErrorKind::StorageFull.into()
}

impl MemoryDisk {
    /// An empty disk without limits.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Limits the bytes of all files together; `None` for no limit.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        lock(&self.state).capacity_bytes = bytes;
    }

    /// Arms or disarms a fault.
    pub fn set_fault(&self, fault: Option<Fault>) {
        self.set_fault_in("", fault);
    }

    /// Arms a fault of files whose names start with `prefix`, or disarms it.
    pub fn set_fault_in(&self, prefix: &str, fault: Option<Fault>) {
        let mut state = lock(&self.state);
        state.fault = fault;
        prefix.clone_into(&mut state.fault_in);
    }

    /// Calls that have failed by a fault.
    #[must_use]
    pub fn faults_met(&self) -> u64 {
        lock(&self.state).faults_met
    }

    /// Bytes of all files.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        lock(&self.state)
            .files
            .values()
            .map(|f| lock(f).bytes.len() as u64)
            .sum()
    }

    /// A copy of a file's bytes as reads see them.
    #[must_use]
    pub fn bytes(&self, name: &str) -> Option<Vec<u8>> {
        lock(&self.state)
            .files
            .get(name)
            .map(|f| lock(f).bytes.to_vec())
    }

    /// Replaces a file's bytes, durable ones included.
    pub fn set_bytes(&self, name: &str, bytes: Vec<u8>) {
        let bytes = Contents::from(bytes);
        let content = Content {
            durable: bytes.clone(),
            bytes,
            private: true,
            holders: Holders::default(),
        };
        lock(&self.state)
            .files
            .insert(name.to_owned(), Arc::new(Mutex::new(content)));
    }

    /// A copy that no change of this disk reaches: what reads see now.
    #[must_use]
    pub fn fork(&self) -> Self {
        self.copy(|content| content.bytes.clone())
    }

    /// What a loss of power leaves if nothing unsynced survives.
    #[must_use]
    pub fn after_power_loss(&self) -> Self {
        self.copy(|content| content.durable.clone())
    }

    /// All files as reads see them.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn files(&self) -> Vec<WholeFile> {
        let state = lock(&self.state);
        let whole = |(name, content): (&String, &Arc<Mutex<Content>>)| {
            let content = lock(content);
            WholeFile {
                name: name.clone(),
                bytes: Arc::new(content.bytes.to_vec()),
                private: content.private,
            }
        };
        state.files.iter().map(whole).collect()
    }

    /// A disk that holds just these files, all of them durable.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn of_files(files: impl IntoIterator<Item = WholeFile>) -> Self {
        let content = |file: WholeFile| {
            let bytes = Contents::from(file.bytes.as_slice());
            let content = Content {
                durable: bytes.clone(),
                bytes,
                private: file.private,
                holders: Holders::default(),
            };
            (file.name, Arc::new(Mutex::new(content)))
        };
        let state = State {
            files: files.into_iter().map(content).collect(),
            ..State::default()
        };
        Self {
            state: Arc::new(Mutex::new(state)),
        }
    }

    fn copy(&self, pick: impl Fn(&Content) -> Contents) -> Self {
        let state = lock(&self.state);
        let files = state
            .files
            .iter()
            .map(|(name, content)| {
                let content = lock(content);
                let bytes = pick(&content);
                let copy = Content {
                    durable: bytes.clone(),
                    bytes,
                    private: content.private,
                    holders: Holders::default(),
                };
                (name.clone(), Arc::new(Mutex::new(copy)))
            })
            .collect();
        Self {
            state: Arc::new(Mutex::new(State {
                files,
                ..State::default()
            })),
        }
    }

    fn check(&self, name: &str, kind: FaultKind) -> io::Result<()> {
        let mut state = lock(&self.state);
        let State {
            fault,
            fault_in,
            faults_met,
            ..
        } = &mut *state;
        if let Some(fault) = fault
            && fault.kind == kind
            && name.starts_with(fault_in.as_str())
        {
            if fault.after == 0 {
                *faults_met += 1;
                return Err(fault.error.into());
            }
            fault.after -= 1;
        }
        Ok(())
    }
}

impl Disk for MemoryDisk {
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = lock(&self.state);
        if state.files.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let content = Arc::new(Mutex::new(Content::default()));
        state.files.insert(name.to_owned(), content.clone());
        Ok(Arc::new(MemoryFile {
            disk: self.clone(),
            name: name.to_owned(),
            content,
            access: Access::Write,
            held: Mutex::default(),
        }))
    }

    fn open(&self, name: &str, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        let state = lock(&self.state);
        let content = state
            .files
            .get(name)
            .ok_or(io::ErrorKind::NotFound)?
            .clone();
        Ok(Arc::new(MemoryFile {
            disk: self.clone(),
            name: name.to_owned(),
            content,
            access,
            held: Mutex::default(),
        }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.check(to, FaultKind::Rename)?;
        let mut state = lock(&self.state);
        let content = state.files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.files.insert(to.to_owned(), content);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let removed = lock(&self.state).files.remove(name);
        removed
            .map(|_| ())
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        let prefix = if dir.is_empty() {
            String::new()
        } else {
            format!("{dir}/")
        };
        let state = lock(&self.state);
        let names = state
            .files
            .keys()
            .filter_map(|name| name.strip_prefix(&prefix));
        Ok(names
            .filter(|rest| !rest.contains('/'))
            .map(str::to_owned)
            .collect())
    }

    fn create_dir(&self, _dir: &str) -> io::Result<()> {
        Ok(())
    }

    fn sync_dir(&self, _dir: &str) -> io::Result<()> {
        Ok(())
    }

    fn lock(&self, name: &str) -> io::Result<Box<dyn DiskLock>> {
        if !lock(&self.state).locks.insert(name.to_owned()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(MemoryLock {
            disk: self.clone(),
            name: name.to_owned(),
        }))
    }

    fn create_private(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut state = lock(&self.state);
        if state.files.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let bytes = Contents::from(bytes);
        let content = Content {
            durable: bytes.clone(),
            bytes,
            private: true,
            holders: Holders::default(),
        };
        state
            .files
            .insert(name.to_owned(), Arc::new(Mutex::new(content)));
        Ok(())
    }

    fn read_private(&self, name: &str, bytes_max: u64) -> io::Result<Vec<u8>> {
        let content = lock(&self.state)
            .files
            .get(name)
            .ok_or(io::ErrorKind::NotFound)?
            .clone();
        let content = lock(&content);
        if !content.private {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        if content.bytes.len() as u64 > bytes_max {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(content.bytes.to_vec())
    }
}

#[derive(Debug)]
struct MemoryFile {
    disk: MemoryDisk,
    /// When it was opened.
    name: String,
    content: Arc<Mutex<Content>>,
    access: Access,
    held: Mutex<Option<Sharing>>,
}

impl Drop for MemoryFile {
    fn drop(&mut self) {
        let held = lock(&self.held).take();
        let holders = &mut lock(&self.content).holders;
        match held {
            Some(Sharing::Shared) => holders.shared -= 1,
            Some(Sharing::Exclusive) => holders.exclusive = false,
            None => (),
        }
    }
}

impl MemoryFile {
    fn write(&self, offset: u64, source: &[u8]) -> io::Result<()> {
        if self.access == Access::Read {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let start = usize::try_from(offset).map_err(|_| full())?;
        let end = start.checked_add(source.len()).ok_or_else(full)?;
        let len = lock(&self.content).bytes.len();
        let capacity = lock(&self.disk.state).capacity_bytes;
        let grown = end.saturating_sub(len) as u64;
        let room = capacity.map_or(u64::MAX, |c| c.saturating_sub(self.disk.used_bytes()));
        // Like a file system: what fits is written before the error.
        let fits = if grown > room {
            source.len()
                - usize::try_from(grown - room)
                    .unwrap_or(source.len())
                    .min(source.len())
        } else {
            source.len()
        };
        lock(&self.content).bytes.write_at(start, &source[..fits]);
        if fits < source.len() {
            Err(full())
        } else {
            Ok(())
        }
    }
}

impl DiskFile for MemoryFile {
    fn len(&self) -> io::Result<u64> {
        Ok(lock(&self.content).bytes.len() as u64)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.disk.check(&self.name, FaultKind::Read)?;
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        Ok(lock(&self.content).bytes.read_at(start, buf))
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.disk.check(&self.name, FaultKind::Write)?;
        self.write(offset, bytes)
    }

    fn extend(&self, from: u64, to: u64) -> io::Result<()> {
        self.disk.check(&self.name, FaultKind::Extend)?;
        let zeros = usize::try_from(to.saturating_sub(from)).map_err(|_| full())?;
        self.write(from, &vec![0; zeros])
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.check(&self.name, FaultKind::Sync)?;
        let mut content = lock(&self.content);
        content.durable = content.bytes.clone();
        Ok(())
    }

    fn try_hold(&self, sharing: Sharing) -> io::Result<bool> {
        let mut held = lock(&self.held);
        let holders = &mut lock(&self.content).holders;
        let free = match sharing {
            Sharing::Shared => !holders.exclusive,
            Sharing::Exclusive => !holders.exclusive && holders.shared == 0,
        };
        if free && held.is_none() {
            *held = Some(sharing);
            match sharing {
                Sharing::Shared => holders.shared += 1,
                Sharing::Exclusive => holders.exclusive = true,
            }
        }
        Ok(free)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        if self.access == Access::Read {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let len = usize::try_from(len).map_err(|_| full())?;
        lock(&self.content).bytes.resize(len);
        Ok(())
    }
}

#[derive(Debug)]
struct MemoryLock {
    disk: MemoryDisk,
    name: String,
}

impl DiskLock for MemoryLock {}

impl Drop for MemoryLock {
    fn drop(&mut self) {
        lock(&self.disk.state).locks.remove(&self.name);
    }
}
