//! Layer 3. The one door to files. Everything the store keeps goes through
//! [`Disk`], so that real files, memory and a disk that fails on purpose are
//! the same thing to the code above.
//!
//! Names are relative to the store's directory and use `/`. Assumptions about
//! a real disk are written down in `spec/05-store.md`.

use std::fmt::Debug;
use std::io;
use std::sync::Arc;

mod memory;
mod real;
#[cfg(any(test, feature = "fuzzing"))]
mod sim;

pub use memory::{Fault, FaultKind, MemoryDisk};
pub use real::RealDisk;
#[cfg(any(test, feature = "fuzzing"))]
pub use sim::{Dice, Replay, SimDisk, Survivors};

/// How a file is opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Reading only: works on read-only media.
    Read,
    /// Reading and writing.
    Write,
}

/// A directory of files.
pub trait Disk: Send + Sync + Debug {
    /// Makes a new file; an error if it exists.
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;
    /// Opens an existing file. Every call opens the file anew: Linux reports a
    /// write-back error once per open file description.
    fn open(&self, name: &str, access: Access) -> io::Result<Arc<dyn DiskFile>>;
    /// Replaces `to` by `from` atomically.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Names of the files in a directory, sorted; `""` is the store's own.
    fn list(&self, dir: &str) -> io::Result<Vec<String>>;
    /// Makes a directory, parents included; fine if it exists.
    fn create_dir(&self, dir: &str) -> io::Result<()>;
    /// Makes names created, renamed or removed in a directory durable.
    fn sync_dir(&self, dir: &str) -> io::Result<()>;
    /// Takes an exclusive lock, made anew if missing; `WouldBlock` if another
    /// holder has it. Released when dropped.
    fn lock(&self, name: &str) -> io::Result<Box<dyn DiskLock>>;
    /// Makes a new file that only its owner may read, written and synced.
    fn create_private(&self, name: &str, bytes: &[u8]) -> io::Result<()>;
    /// Reads a file of at most `bytes_max` that only its owner may read;
    /// `PermissionDenied` if others may.
    fn read_private(&self, name: &str, bytes_max: u64) -> io::Result<Vec<u8>>;
}

/// An open file. Positions are explicit; nothing seeks.
pub trait DiskFile: Send + Sync + Debug {
    /// Bytes in the file.
    fn len(&self) -> io::Result<u64>;
    /// True for an empty file.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Reads up to `buf.len()` bytes; fewer only at the end of the file.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize>;
    /// Writes all bytes, growing the file if needed.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Grows the file by writing zeros from `from` to `to`.
    fn extend(&self, from: u64, to: u64) -> io::Result<()>;
    /// Makes everything written so far durable.
    fn sync(&self) -> io::Result<()>;
    /// Cuts the file to `len`, or grows it to `len` with zeros that need not take
    /// up space yet: a later write may find the disk full.
    fn truncate(&self, len: u64) -> io::Result<()>;
}

/// A held lock.
pub trait DiskLock: Send + Sync + Debug {}

/// Reads a whole file of at most `bytes_max` bytes.
pub fn read_whole(disk: &dyn Disk, name: &str, bytes_max: u64) -> io::Result<Vec<u8>> {
    let file = disk.open(name, Access::Read)?;
    let len = file.len()?;
    if len > bytes_max {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{name} has {len} bytes, at most {bytes_max} are read"),
        ));
    }
    let mut bytes = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
    let got = file.read_at(0, &mut bytes)?;
    bytes.truncate(got);
    Ok(bytes)
}

/// Replaces a small file so that a crash leaves the old or the new bytes: new
/// name, sync, rename, directory sync.
pub fn replace_atomically(disk: &dyn Disk, name: &str, bytes: &[u8]) -> io::Result<()> {
    let temporary = format!("{name}.new");
    match disk.remove(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => (),
    }
    let file = disk.create(&temporary)?;
    file.write_at(0, bytes)?;
    file.sync()?;
    disk.rename(&temporary, name)?;
    disk.sync_dir("")
}
