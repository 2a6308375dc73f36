//! Archives and stores together: a snapshot of a context written out, and one
//! read in. An archive is read twice, verified whole before anything is stored;
//! the second reading is held to what the first one saw.

use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::sync::Arc;

use super::clock::now_ns;
use crate::archive::{self, Parts, ReadError, Verified, WriteError};
use crate::entry::ContextId;
use crate::hash::Hash;
use crate::ledger::ReadHistory as _;
use crate::store::{self, Store, StoreError, View};

/// How far the newest entry of an archive may be ahead of the clock: a day, ns.
/// A context never goes back in time, so one entry from the far future would be
/// with it for ever.
pub const AHEAD_NS_MAX: u64 = 24 * 3_600 * 1_000_000_000;

/// A snapshot that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshotted {
    /// Entries in it.
    pub size: u64,
    /// The root over them.
    pub root: Hash,
    /// Bytes of the archive.
    pub bytes: u64,
}

/// Why there is no snapshot.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// It does not fit.
    #[error("the snapshot is larger than {bytes_max} bytes")]
    TooLarge {
        /// Bytes that it was to have at most.
        bytes_max: usize,
    },
    /// It could not be read or written, or what was read does not verify.
    #[error(transparent)]
    Write(#[from] WriteError<StoreError>),
}

impl From<StoreError> for SnapshotError {
    fn from(error: StoreError) -> Self {
        Self::Write(WriteError::Read(error))
    }
}

/// Writes a context as it is now; `None` if there is no such context.
pub fn snapshot(
    view: &View,
    id: &ContextId,
    out: impl Write,
) -> Result<Option<Snapshotted>, SnapshotError> {
    let Some(history) = view.history(id)? else {
        return Ok(None);
    };
    let written = archive::write(&history, out)?;
    Ok(Some(Snapshotted {
        size: history.size(),
        root: history.root(),
        bytes: written.bytes,
    }))
}

/// The same into memory, of at most `bytes_max` bytes.
pub fn snapshot_in_memory(
    view: &View,
    id: &ContextId,
    bytes_max: usize,
) -> Result<Option<(Snapshotted, Vec<u8>)>, SnapshotError> {
    let Some(history) = view.history(id)? else {
        return Ok(None);
    };
    let mut out = Bounded {
        bytes: Vec::new(),
        bytes_max,
        full: false,
    };
    match archive::write(&history, &mut out) {
        Ok(written) => {
            let snapshot = Snapshotted {
                size: history.size(),
                root: history.root(),
                bytes: written.bytes,
            };
            Ok(Some((snapshot, out.bytes)))
        }
        Err(WriteError::Out(_)) if out.full => Err(SnapshotError::TooLarge { bytes_max }),
        Err(error) => Err(error.into()),
    }
}

/// Memory that refuses to grow beyond a bound.
struct Bounded {
    bytes: Vec<u8>,
    bytes_max: usize,
    full: bool,
}

impl Write for Bounded {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        if self.bytes.len().saturating_add(piece.len()) > self.bytes_max {
            self.full = true;
            return Err(io::Error::from(io::ErrorKind::FileTooLarge));
        }
        self.bytes.extend_from_slice(piece);
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// How an archive is loaded.
#[derive(Clone, Copy, Debug, Default)]
pub struct LoadOptions {
    /// A context that has entries is left as it is.
    pub fail_if_exists: bool,
    /// Entries may be more than a day ahead of the clock.
    pub allow_future: bool,
}

/// What loading did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// Entries that were stored; the others were there.
    pub restored: u64,
    /// Entries that the context has now.
    pub size: u64,
    /// The archive's root: that of the context at the archive's size.
    pub root: Hash,
}

/// Why an archive was not loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It is not a whole and sound archive, or could not be read.
    #[error(transparent)]
    Archive(#[from] ReadError),
    /// Its newest entry is too far ahead of the clock.
    #[error("the newest entry is of {newest_ns} ns since 1970, more than a day after now")]
    Future {
        /// Its time.
        newest_ns: u64,
        /// The clock.
        now_ns: u64,
    },
    /// The context has entries, and was not to have any.
    #[error("context {id:?} exists and has {size} entries")]
    Exists {
        /// The context.
        id: ContextId,
        /// Entries it has.
        size: u64,
    },
    /// The context's history is another one.
    #[error("context {id:?} has another history: its first {size} entries differ")]
    Diverges {
        /// The context.
        id: ContextId,
        /// Entries that both have.
        size: u64,
    },
    /// The store did not take it.
    #[error(transparent)]
    Store(#[from] store::LoadError),
}

impl From<StoreError> for LoadError {
    fn from(error: StoreError) -> Self {
        Self::Store(error.into())
    }
}

/// Loads an archive as context `id`, whatever context it was made of. A new
/// context is there whole or not at all; one that has entries gets those it
/// lacks, if what it has is a prefix of the archive.
pub fn load(
    store: &Store,
    id: &ContextId,
    mut source: impl Read + Seek,
    options: &LoadOptions,
) -> Result<Loaded, LoadError> {
    // A mirror says so before anything is read.
    drop(store.loader(id)?);
    let view = store.view();
    let held = view.size(id)?;
    source.seek(SeekFrom::Start(0)).map_err(unreadable)?;
    let verified = archive::verify(BufReader::new(&mut source), held)?;
    let now_ns = now_ns();
    let newest_ns = verified.newest_ns();
    if !options.allow_future && newest_ns.saturating_sub(now_ns) > AHEAD_NS_MAX {
        return Err(LoadError::Future { newest_ns, now_ns });
    }
    let held = held.unwrap_or(0);
    if held > 0 {
        let id = id.clone();
        if options.fail_if_exists {
            return Err(LoadError::Exists { id, size: held });
        }
        continues(view, id, held, &verified)?;
    }
    let nothing_new = Loaded {
        restored: 0,
        size: held,
        root: verified.root(),
    };
    if held >= verified.size() {
        return Ok(nothing_new);
    }
    let mut loader = store.loader(id)?;
    if loader.size() != held {
        return Err(LoadError::Store(store::LoadError::Grown {
            id: id.clone(),
            size: loader.size(),
            expected: held,
        }));
    }
    source.seek(SeekFrom::Start(0)).map_err(unreadable)?;
    for part in Parts::new(BufReader::new(&mut source), &verified, held) {
        loader.push(part?)?;
    }
    let size = loader.finish(verified.root())?;
    Ok(Loaded {
        restored: size - held,
        size,
        ..nothing_new
    })
}

/// The context and the archive are the same as far as both go.
fn continues(view: &View, id: ContextId, held: u64, verified: &Verified) -> Result<(), LoadError> {
    let size = held.min(verified.size());
    let theirs = if held <= verified.size() {
        verified.root_at()
    } else {
        Some(verified.root())
    };
    if theirs == Some(view.root_at(&id, size)?) {
        return Ok(());
    }
    Err(LoadError::Diverges { id, size })
}

fn unreadable(error: io::Error) -> LoadError {
    LoadError::Archive(ReadError {
        at: 0..0,
        fault: archive::Fault::Io(Arc::new(error)),
    })
}

#[cfg(test)]
mod tests;
