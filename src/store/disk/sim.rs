//! A disk in memory that remembers every change in order, so that a test can
//! ask what would be left had the power failed after any of them.
//!
//! [`SimDisk`] passes every call on to a [`MemoryDisk`] and writes down what
//! changed: one journal for all files, in the order in which it happened.
//! [`Replay`] walks the journal from crash point to crash point, keeping what
//! is durable and what is not yet, and makes [`MemoryDisk`]s of it; or another
//! [`SimDisk`], for a process that died on a machine that went on: what it had
//! not synced is there, and may still be lost. Nothing here knows what the
//! files hold.
//!
//! What survives (`spec/05-store.md`, Assumptions about the disk):
//! * a file is an inode; names are something else, kept by directories;
//! * a sync that succeeds makes all earlier changes of its inode durable, its
//!   length too. It does nothing for the file's name;
//! * a sync that fails leaves earlier changes of its inode on the disk or gone
//!   for good, each by a toss of its own: no later sync brings them back;
//! * names created, renamed and removed become durable by a sync of their
//!   directory. Without it a prefix of them survives, in each directory another
//!   one. A directory is itself a name of its parent's;
//! * changes of an inode that were not synced survive as [`Survivors`] says. A
//!   write is torn at multiples of the sector; a sector that holds a later
//!   write holds the earlier ones too, and overwriting a sector with the bytes
//!   it has changes nothing;
//! * a file that grew is as long as its surviving parts reach, or as long as it
//!   was to become, with zeros for what is missing;
//! * files made by `create_private` are durable, name and all, when it returns.
//!
//! A rename stays in its directory: it survives whole or not at all.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::memory::WholeFile;
use super::{Access, Disk, DiskFile, DiskLock, MemoryDisk};

mod replay;
#[cfg(test)]
mod tests;

pub use replay::Replay;

/// How long a test waits for another thread before it has failed.
const WAIT_MAX: Duration = Duration::from_mins(1);

/// What is left of changes that were not synced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Survivors {
    /// Nothing.
    None,
    /// Everything, as if only the process had died.
    All,
    /// The first changes of each file; of the next, some sectors from its
    /// beginning on.
    Prefix,
    /// Any changes, each whole.
    Subset,
    /// Any sectors of 512 bytes.
    Torn512,
    /// Any pages of 4,096 bytes.
    Torn4096,
}

impl Survivors {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::None,
        Self::All,
        Self::Prefix,
        Self::Subset,
        Self::Torn512,
        Self::Torn4096,
    ];
}

/// A small generator of pseudo-random numbers (splitmix64).
#[derive(Clone, Debug)]
pub struct Dice(pub u64);

impl Dice {
    /// Any number.
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`; 0 if there is none.
    pub fn below(&mut self, n: usize) -> usize {
        let rolled = self.roll() % (n.max(1) as u64);
        usize::try_from(rolled).unwrap_or(0)
    }

    fn toss(&mut self) -> bool {
        self.roll() & 1 == 1
    }
}

type Inode = u64;

/// What a path stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Node {
    File(Inode),
    Dir,
}

type Names = BTreeMap<String, Node>;

/// A change of the names in one directory; paths are whole.
#[derive(Clone, Debug)]
enum Naming {
    Make { name: String, node: Node },
    Rename { from: String, to: String },
    Remove { name: String },
}

impl Naming {
    fn apply(&self, names: &mut Names) {
        match self {
            Self::Make { name, node } => {
                names.insert(name.clone(), *node);
            }
            Self::Rename { from, to } => {
                if let Some(node) = names.remove(from) {
                    names.insert(to.clone(), node);
                }
            }
            Self::Remove { name } => {
                names.remove(name);
            }
        }
    }
}

/// A change of a file's bytes.
#[derive(Clone)]
enum Edit {
    Write { offset: usize, bytes: Arc<[u8]> },
    Resize { len: usize },
}

impl std::fmt::Debug for Edit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Write { offset, bytes } => write!(f, "write {} at {offset}", bytes.len()),
            Self::Resize { len } => write!(f, "resize to {len}"),
        }
    }
}

impl Edit {
    fn apply(&self, file: &mut Vec<u8>) {
        match self {
            Self::Write { offset, bytes } => write(file, *offset, bytes),
            Self::Resize { len } => file.resize(*len, 0),
        }
    }

    /// The length of a file of `len` bytes after it.
    fn len_after(&self, len: usize) -> usize {
        match self {
            Self::Write { offset, bytes } => len.max(offset + bytes.len()),
            Self::Resize { len } => *len,
        }
    }
}

fn write(file: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if file.len() < end {
        file.resize(end, 0);
    }
    if let Some(target) = file.get_mut(offset..end) {
        target.copy_from_slice(bytes);
    }
}

/// One operation of the journal.
#[derive(Clone, Debug)]
enum Op {
    Edit { inode: Inode, edit: Edit },
    Sync { inode: Inode },
    SyncFailed { inode: Inode },
    Naming { dir: String, naming: Naming },
    SyncDir { dir: String },
    Private { inode: Inode, file: WholeFile },
}

fn dir_of(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(dir, _)| dir)
}

/// The directories above a name, the nearest first, without the root.
fn dirs_above(name: &str) -> impl Iterator<Item = &str> {
    let mut rest = name;
    std::iter::from_fn(move || {
        rest = rest.get(..rest.rfind('/')?)?;
        Some(rest)
    })
}

/// The journal and what is true after it.
#[derive(Debug, Default)]
struct Journal {
    ops: Vec<Op>,
    names: Names,
    inodes: Inode,
}

impl Journal {
    fn name(&mut self, name: &str, naming: Naming) {
        naming.apply(&mut self.names);
        self.ops.push(Op::Naming {
            dir: dir_of(name).to_owned(),
            naming,
        });
    }

    fn next_inode(&mut self) -> Inode {
        self.inodes += 1;
        self.inodes
    }

    fn inode(&self, name: &str) -> io::Result<Inode> {
        match self.names.get(name) {
            Some(Node::File(inode)) => Ok(*inode),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// True if the last operation left something to be synced.
    fn ends_unsynced(&self) -> bool {
        matches!(self.ops.last(), Some(Op::Edit { .. }))
    }
}

#[derive(Debug)]
struct Shared {
    /// What was there at first, all of it durable.
    base: Replay,
    journal: Mutex<Journal>,
    grown: Condvar,
}

impl Shared {
    /// Held while an operation is done, so that the journal has their order.
    fn journal(&self) -> MutexGuard<'_, Journal> {
        // Another test thread panicked; every operation leaves it whole.
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// See the module. Clones share files and journal.
#[derive(Clone, Debug)]
pub struct SimDisk {
    live: MemoryDisk,
    shared: Arc<Shared>,
}

impl Default for SimDisk {
    fn default() -> Self {
        Self::new()
    }
}

impl SimDisk {
    /// An empty disk.
    #[must_use]
    pub fn new() -> Self {
        Self::over(MemoryDisk::new())
    }

    /// Records what is done to `live` from now on; what it holds is durable.
    #[must_use]
    pub fn over(live: MemoryDisk) -> Self {
        let mut base = Replay::default();
        for (inode, file) in (1..).zip(live.files()) {
            for dir in dirs_above(&file.name) {
                base.add_dir(dir);
            }
            base.add(inode, &file);
        }
        Self::on(live, base)
    }

    /// Records what is done to `live`, of which `base` is the durable part and
    /// what was done to it since.
    fn on(live: MemoryDisk, base: Replay) -> Self {
        let journal = Journal {
            ops: Vec::new(),
            names: base.live_names(),
            inodes: base.last_inode(),
        };
        let shared = Shared {
            base,
            journal: Mutex::new(journal),
            grown: Condvar::new(),
        };
        Self {
            live,
            shared: Arc::new(shared),
        }
    }

    /// The disk as it is now, for faults, limits and looks at files.
    #[must_use]
    pub fn live(&self) -> &MemoryDisk {
        &self.live
    }

    /// Operations so far.
    #[must_use]
    pub fn mark(&self) -> usize {
        self.shared.journal().ops.len()
    }

    /// Waits until the last operation is a write that nothing has synced; false
    /// if it never comes to that.
    #[must_use]
    pub fn wait_for_unsynced(&self) -> bool {
        let journal = self.shared.journal();
        let waited = self
            .shared
            .grown
            .wait_timeout_while(journal, WAIT_MAX, |journal| !journal.ends_unsynced());
        let (journal, _) = waited.unwrap_or_else(PoisonError::into_inner);
        journal.ends_unsynced()
    }

    /// The journal so far, to be walked from its beginning.
    #[must_use]
    pub fn replay(&self) -> Replay {
        let ops = self.shared.journal().ops.as_slice().into();
        self.shared.base.clone().with(ops)
    }

    /// The disk after the power failed right after the first `at` operations.
    /// For many of them, walk a [`Replay`].
    #[must_use]
    pub fn image(&self, at: usize, survivors: Survivors, seed: u64) -> MemoryDisk {
        let mut replay = self.replay();
        replay.advance(at);
        replay.image(survivors, seed)
    }

    fn file(&self, file: Arc<dyn DiskFile>, inode: Inode) -> Arc<dyn DiskFile> {
        Arc::new(SimFile {
            shared: self.shared.clone(),
            file,
            inode,
        })
    }
}

impl Disk for SimDisk {
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut journal = self.shared.journal();
        let dir = dir_of(name);
        if !dir.is_empty() && journal.names.get(dir) != Some(&Node::Dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let file = self.live.create(name)?;
        let inode = journal.next_inode();
        let making = Naming::Make {
            name: name.to_owned(),
            node: Node::File(inode),
        };
        journal.name(name, making);
        Ok(self.file(file, inode))
    }

    fn open(&self, name: &str, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        let journal = self.shared.journal();
        let inode = journal.inode(name)?;
        Ok(self.file(self.live.open(name, access)?, inode))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        if dir_of(from) != dir_of(to) {
            return Err(io::ErrorKind::CrossesDevices.into());
        }
        let mut journal = self.shared.journal();
        self.live.rename(from, to)?;
        let renaming = Naming::Rename {
            from: from.to_owned(),
            to: to.to_owned(),
        };
        journal.name(from, renaming);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut journal = self.shared.journal();
        self.live.remove(name)?;
        let removal = Naming::Remove {
            name: name.to_owned(),
        };
        journal.name(name, removal);
        Ok(())
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        self.live.list(dir)
    }

    fn create_dir(&self, dir: &str) -> io::Result<()> {
        let mut journal = self.shared.journal();
        self.live.create_dir(dir)?;
        let mut missing: Vec<&str> = std::iter::once(dir)
            .filter(|dir| !dir.is_empty())
            .chain(dirs_above(dir))
            .filter(|dir| !journal.names.contains_key(*dir))
            .collect();
        // A parent before what is in it.
        missing.reverse();
        for name in missing {
            let making = Naming::Make {
                name: name.to_owned(),
                node: Node::Dir,
            };
            journal.name(name, making);
        }
        Ok(())
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        let mut journal = self.shared.journal();
        self.live.sync_dir(dir)?;
        let dir = dir.to_owned();
        journal.ops.push(Op::SyncDir { dir });
        Ok(())
    }

    fn lock(&self, name: &str) -> io::Result<Box<dyn DiskLock>> {
        self.live.lock(name)
    }

    fn create_private(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut journal = self.shared.journal();
        self.live.create_private(name, bytes)?;
        let inode = journal.next_inode();
        journal.names.insert(name.to_owned(), Node::File(inode));
        let file = WholeFile {
            name: name.to_owned(),
            bytes: Arc::new(bytes.to_vec()),
            private: true,
        };
        journal.ops.push(Op::Private { inode, file });
        Ok(())
    }

    fn read_private(&self, name: &str, bytes_max: u64) -> io::Result<Vec<u8>> {
        self.live.read_private(name, bytes_max)
    }
}

#[derive(Debug)]
struct SimFile {
    shared: Arc<Shared>,
    file: Arc<dyn DiskFile>,
    inode: Inode,
}

impl SimFile {
    fn record(&self, journal: &mut Journal, edit: Edit) {
        let inode = self.inode;
        journal.ops.push(Op::Edit { inode, edit });
        self.shared.grown.notify_all();
    }

    /// Writes and records what was written: of a write that failed, what the
    /// file holds of it.
    fn write(
        &self,
        offset: u64,
        bytes: Arc<[u8]>,
        write: impl FnOnce(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut journal = self.shared.journal();
        let outcome = write(&bytes);
        let bytes = if outcome.is_ok() {
            bytes
        } else {
            let mut there = vec![0; bytes.len()];
            let got = self.file.read_at(offset, &mut there).unwrap_or(0);
            let same = there.iter().take(got).zip(&*bytes);
            let n = same.take_while(|(there, wanted)| there == wanted).count();
            there.truncate(n);
            there.into()
        };
        if !bytes.is_empty() {
            let offset = usize::try_from(offset).unwrap_or(usize::MAX);
            self.record(&mut journal, Edit::Write { offset, bytes });
        }
        outcome
    }
}

impl DiskFile for SimFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.file.read_at(offset, buf)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.write(offset, bytes.into(), |bytes| {
            self.file.write_at(offset, bytes)
        })
    }

    fn extend(&self, from: u64, to: u64) -> io::Result<()> {
        let zeros = usize::try_from(to.saturating_sub(from)).unwrap_or(usize::MAX);
        self.write(from, vec![0; zeros].into(), |_| self.file.extend(from, to))
    }

    fn sync(&self) -> io::Result<()> {
        let mut journal = self.shared.journal();
        let outcome = self.file.sync();
        let inode = self.inode;
        journal.ops.push(match &outcome {
            Ok(()) => Op::Sync { inode },
            Err(_) => Op::SyncFailed { inode },
        });
        outcome
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        let mut journal = self.shared.journal();
        self.file.truncate(len)?;
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        self.record(&mut journal, Edit::Resize { len });
        Ok(())
    }
}
