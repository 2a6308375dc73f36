//! Makes the index anew from the log, offline. The old one stays until the log
//! has been read to its end and found sound, and the new one is whole: then it
//! takes the old one's name. The log is not touched and nothing is signed.
//!
//! So a log that is damaged is refused just as opening refuses it, with
//! everything as it was. What a process that was killed has left at the end is
//! not mended: the new index covers what the log vouches for, and the next
//! process that opens the store reads the rest.

use std::sync::Arc;

use super::body::StoreRole;
use super::disk::{Access, Disk};
use super::index::base::Alone;
use super::index::checkpoint::{INDEX_FILE, INDEX_FILE_NEW, remove};
use super::keeper::Keeper;
use super::layout;
use super::log::LogReader;
use super::recover::{FAILED_FILE, Replayed, Start};
use super::stats::bytes_between;
use super::{Position, StoreError, StoreOptions};
use crate::note::VerifierKey;

/// What was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RebuiltIndex {
    /// Contexts in the log.
    pub contexts: u64,
    /// Entries in the log, those included that a mirror does not show yet.
    pub entries: u64,
    /// The index covers the log up to here. `None`: there is no index, because
    /// no head covers what is in the log, and the next process that opens the
    /// store makes one.
    pub position: Option<Position>,
    /// Bytes of log behind it: what opening has to read.
    pub behind_bytes: u64,
    /// Bytes of log that were read.
    pub bytes_read: u64,
    /// Bytes of the index's file.
    pub index_bytes: u64,
}

/// Throws the index away and makes it anew. Of `options`, the clock, `progress`
/// and `tail_bytes_max` count.
pub fn rebuild_index(
    disk: &Arc<dyn Disk>,
    options: &StoreOptions,
) -> Result<RebuiltIndex, StoreError> {
    let _lock = disk.lock("lock").map_err(StoreError::from_lock)?;
    let of = layout::peek(&**disk)?;
    if disk.open(FAILED_FILE, Access::Read).is_ok() {
        // What is read may not be what is on the disk.
        return Err(StoreError::NotClosed);
    }
    layout::remove_temporaries(&**disk)?;
    let start = Start {
        voucher: vouched_by_index(disk, of)?,
        ..Start::default()
    };
    let mut keeper = Keeper::new(disk.clone(), Arc::new(Alone))?;
    let outcome = replay(options, &mut keeper, start);
    let outcome = outcome.and_then(|replayed| take_over(disk, &mut keeper, &replayed));
    outcome.map_err(|error| {
        drop(keeper);
        // Best effort: opening removes it too.
        let _ = remove(&**disk, INDEX_FILE_NEW);
        match error {
            StoreError::IndexLost { reason } => {
                StoreError::io("make the index", std::io::Error::other(reason))
            }
            error => error,
        }
    })
}

/// However wanting the old index is, a log that ends before what it covers has
/// lost something.
fn vouched_by_index(
    disk: &Arc<dyn Disk>,
    of: (StoreRole, VerifierKey),
) -> Result<Position, StoreError> {
    let mut keeper = Keeper::new(disk.clone(), Arc::new(Alone))?;
    let found = keeper.open_read_only(&LogReader::over(disk.clone()), of);
    Ok(found.voucher)
}

/// Reads the whole log into an index under a temporary name.
fn replay(
    options: &StoreOptions,
    keeper: &mut Keeper,
    start: Start,
) -> Result<Replayed, StoreError> {
    let mut replayed = keeper.replay(options, start)?;
    // A group that may be in the page cache only is not for the index: if it
    // were lost with the power, the index would call that damage.
    if replayed.index.cover().end <= replayed.vouched {
        keeper.fold_now(&mut replayed.index, options.clock.now_ns())?;
    }
    Ok(replayed)
}

/// The new index takes the place of the old one.
fn take_over(
    disk: &Arc<dyn Disk>,
    keeper: &mut Keeper,
    replayed: &Replayed,
) -> Result<RebuiltIndex, StoreError> {
    let position = replayed.index.covered().map(|cover| cover.end);
    match position {
        Some(_) => keeper.name()?,
        None => keeper.discard()?,
    }
    let from = position.unwrap_or(Position::new(1, 0));
    let index_bytes = match disk.open(INDEX_FILE, Access::Read) {
        Ok(file) => file.len().unwrap_or(0),
        Err(_) => 0,
    };
    Ok(RebuiltIndex {
        contexts: replayed.index.context_count(),
        entries: replayed.index.entries,
        position,
        behind_bytes: bytes_between(&**disk, from, replayed.end)?,
        bytes_read: replayed.bytes_read,
        index_bytes,
    })
}
