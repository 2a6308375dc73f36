//! What a store holds and how much room it takes, without changing it: offline
//! through the index, so that a long log need not be read; beside a process
//! that writes, from the log alone.

use std::io;
use std::sync::Arc;

use super::body::StoreRole;
use super::condition::Condition;
use super::disk::{Access, Disk, DiskFile, Sharing};
use super::index::Index;
use super::index::base::Alone;
use super::index::checkpoint::INDEX_FILE;
use super::keeper::Keeper;
use super::layout::peek;
use super::log::LogReader;
use super::recover::{FAILED_FILE, Replayed, Start, replay_to_read_with};
use super::scan::segment_name;
use super::{Position, Progress, StoreError};
use crate::hash::Hash;
use crate::head::SignedHead;

/// The end of a file is searched for zeros in pieces of this size.
const PIECE_BYTES: usize = 1 << 20;

/// What there is in a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stats {
    /// Own store or mirror.
    pub role: StoreRole,
    /// The name of the origin.
    pub origin: String,
    /// The key whose heads count.
    pub origin_vkey: String,
    /// True if another process has the store open for writing; `None` if that
    /// cannot be told.
    pub in_use: Option<bool>,
    /// Contexts, of a mirror those of its complete head.
    pub contexts: u64,
    /// Entries in them.
    pub entries: u64,
    /// Bytes of log, from its beginning to its end.
    pub log_bytes: u64,
    /// Segments of the log.
    pub segments: u32,
    /// Zeros that lie ready behind the end of the log.
    pub reserve_bytes: u64,
    /// Bytes of the index's file, if there is one.
    pub index_bytes: Option<u64>,
    /// What the index is worth.
    pub index: IndexFound,
    /// What the index covers, if it was read.
    pub checkpoint: Option<CheckpointStats>,
    /// The newest published or complete head.
    pub head: Option<HeadStats>,
    /// Whether all is well with it.
    pub condition: Condition,
    /// Bytes of log that were read for this.
    pub bytes_read: u64,
}

/// What was found of the index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IndexFound {
    /// There is none.
    None,
    /// It is borne out by the log.
    Good,
    /// It was not looked at.
    NotRead {
        /// Why.
        reason: String,
    },
    /// It is of no use: the next process that opens the store makes it anew.
    Wanting {
        /// Why.
        reason: String,
    },
}

/// The newest checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointStats {
    /// When it was made, by the wall clock.
    pub time_ns: u64,
    /// It covers the log up to here.
    pub position: Position,
    /// Bytes of log behind it: what opening has to read.
    pub behind_bytes: u64,
}

/// The newest head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadStats {
    /// Its term.
    pub term: u64,
    /// Its epoch.
    pub epoch: u64,
    /// When it was signed, by the origin's clock.
    pub time_ns: u64,
    /// The root of its directory.
    pub directory_root: Hash,
}

/// Collects them. `progress` hears how many bytes of log were read.
pub fn stats(disk: &Arc<dyn Disk>, progress: Option<&Progress>) -> Result<Stats, StoreError> {
    peek(&**disk)?;
    let file = match disk.open(INDEX_FILE, Access::Read) {
        Ok(file) => Some(Ok(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => Some(Err(error)),
    };
    let in_use = in_use(&**disk, file.as_ref());
    let index_bytes = match &file {
        Some(Ok(file)) => file.len().ok(),
        _ => None,
    };
    let not_read = |reason: String| read_log(disk, progress, IndexFound::NotRead { reason });
    let read = match file {
        None => read_log(disk, progress, IndexFound::None),
        Some(_) if in_use == Some(true) => not_read("in use by another process".into()),
        Some(Err(error)) => not_read(error.to_string()),
        Some(Ok(_)) => read_through_index(disk, progress),
    };
    let Read {
        replayed,
        index,
        made_at_ns,
    } = read?;
    let (end, state) = (replayed.end, &replayed.index);
    let covered = state.covered().filter(|_| index == IndexFound::Good);
    let checkpoint = match covered {
        Some(cover) => Some(CheckpointStats {
            time_ns: made_at_ns,
            position: cover.end,
            behind_bytes: bytes_between(&**disk, cover.end, end)?,
        }),
        None => None,
    };
    let (contexts, entries) = totals(state);
    Ok(Stats {
        role: state.role,
        origin: state.origin().name().to_string(),
        origin_vkey: state.origin().to_string(),
        in_use,
        contexts,
        entries,
        log_bytes: bytes_between(&**disk, Position::new(1, 0), end)?,
        segments: end.segment(),
        reserve_bytes: reserve_bytes(&replayed)?,
        index_bytes,
        index,
        checkpoint,
        head: state.published.head().map(head_stats),
        condition: Condition::of(&**disk, &LogReader::over(disk.clone()), &replayed)?,
        bytes_read: replayed.bytes_read,
    })
}

/// Whether somebody writes. The index tells, if there is one, without a lock
/// that could keep others from opening the store.
fn in_use(disk: &dyn Disk, index: Option<&io::Result<Arc<dyn DiskFile>>>) -> Option<bool> {
    match index {
        Some(Ok(file)) => file.try_hold(Sharing::Shared).ok().map(|held| !held),
        Some(Err(_)) | None => match disk.lock("lock") {
            Ok(_) => Some(false),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Some(true),
            Err(_) => None,
        },
    }
}

/// What reading the log gave, and whether the index helped.
struct Read {
    replayed: Replayed,
    index: IndexFound,
    made_at_ns: u64,
}

/// The whole log.
fn read_log(
    disk: &Arc<dyn Disk>,
    progress: Option<&Progress>,
    index: IndexFound,
) -> Result<Read, StoreError> {
    read_from(disk, progress, &mut Start::default).map(|replayed| Read {
        replayed,
        index,
        made_at_ns: 0,
    })
}

fn read_from(
    disk: &Arc<dyn Disk>,
    progress: Option<&Progress>,
    start: &mut dyn FnMut() -> Start,
) -> Result<Replayed, StoreError> {
    replay_to_read_with(&**disk, start, &mut |_, _, bytes| {
        if let Some(progress) = progress {
            progress(bytes);
        }
        Ok(())
    })
}

/// What lies behind the index; the whole log, if the index is of no use.
fn read_through_index(
    disk: &Arc<dyn Disk>,
    progress: Option<&Progress>,
) -> Result<Read, StoreError> {
    // Then its pages may be marked clean and not be on the disk.
    let failed = disk.open(FAILED_FILE, Access::Read).is_ok();
    let of = peek(&**disk)?;
    let mut keeper = Keeper::new(disk.clone(), Arc::new(Alone))?;
    let mut made_at_ns = 0;
    let mut wanting: Option<String> = None;
    let mut voucher = Position::default();
    let outcome = read_from(disk, progress, &mut || {
        let mut found = keeper.open_read_only(&LogReader::over(disk.clone()), of.clone());
        if failed {
            found.index = None;
            found.discarded = Some("the last process failed".into());
        }
        made_at_ns = found.made_at_ns;
        voucher = found.voucher;
        wanting = found.discarded;
        Start {
            index: found.index,
            voucher,
            ..Start::default()
        }
    });
    let reason = match &outcome {
        Err(StoreError::IndexLost { reason }) => Some(reason.clone()),
        // It may be the index that contradicts the log.
        Err(error @ StoreError::Inconsistent { .. }) => Some(error.to_string()),
        _ => None,
    };
    let replayed = if reason.is_some() {
        wanting = reason;
        read_from(disk, progress, &mut || Start {
            voucher,
            ..Start::default()
        })?
    } else {
        outcome?
    };
    let index = match wanting {
        Some(reason) => IndexFound::Wanting { reason },
        None if replayed.index.covered().is_some() => IndexFound::Good,
        None => IndexFound::NotRead {
            reason: "in use by another process".into(),
        },
    };
    Ok(Read {
        replayed,
        index,
        made_at_ns,
    })
}

/// Contexts and entries that are shown.
fn totals(index: &Index) -> (u64, u64) {
    let head = index.published.head().map(SignedHead::head);
    match index.role {
        StoreRole::Own => (index.context_count(), index.entries),
        StoreRole::Mirror => head.map_or((0, 0), |head| (head.contexts, head.entries)),
    }
}

fn head_stats(signed: &SignedHead) -> HeadStats {
    let head = signed.head();
    HeadStats {
        term: head.term,
        epoch: head.epoch,
        time_ns: head.time_ns,
        directory_root: head.directory_root,
    }
}

/// Bytes of log between two places of it.
pub(super) fn bytes_between(
    disk: &dyn Disk,
    from: Position,
    to: Position,
) -> Result<u64, StoreError> {
    let mut bytes = u64::from(to.offset());
    for number in from.segment()..to.segment() {
        let len = disk
            .open(&segment_name(number), Access::Read)
            .and_then(|file| file.len())
            .map_err(|error| StoreError::io("read the log", error))?;
        bytes = bytes.saturating_add(len);
    }
    Ok(bytes.saturating_sub(from.offset().into()))
}

/// The zeros at the end of the last segment's file, behind the log's end. What
/// a write that was cut short has left before them does not count.
fn reserve_bytes(replayed: &Replayed) -> Result<u64, StoreError> {
    let failed = |error| StoreError::io("read the end of the log", error);
    let file = &replayed.segment.file;
    let mut at = u64::from(replayed.end.offset());
    let mut zeros = 0;
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let got = file.read_at(at, &mut piece).map_err(failed)?;
        let bytes = piece.get(..got).unwrap_or(&[]);
        zeros = match bytes.iter().rposition(|&byte| byte != 0) {
            Some(used) => (got - used - 1) as u64,
            None => zeros + got as u64,
        };
        at += got as u64;
        if got < PIECE_BYTES {
            return Ok(zeros);
        }
    }
}
