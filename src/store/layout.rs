//! The files of a store: which segments there are, making an empty log, removing
//! what a crash left half made.

use std::io;

use super::body::{self, StoreRole};
use super::disk::{Access, Disk, read_whole};
use super::head_note::HEAD_NOTE_FILE;
use super::index::checkpoint::INDEX_FILE;
use super::log::{create_segment, new_segment};
use super::record::{Group, Position, RecordType};
use super::recover::no_beginning;
use super::replay::first_group;
use super::scan::{LOG_DIR, LogScan, SEGMENT_HEADER_LEN, segment_number};
use super::{Damage, StoreError};
use crate::note::VerifierKey;

/// The segments of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segments {
    /// Segments 1 to this one are there.
    pub(crate) contiguous: u32,
    /// The highest number there is.
    pub(crate) highest: u32,
}

/// Lists the segments; without a first one there is no store.
pub(crate) fn list_segments(disk: &dyn Disk) -> Result<Segments, StoreError> {
    let names = match disk.list(LOG_DIR) {
        Ok(names) => names,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(StoreError::io("list the log", error)),
    };
    let mut segments = Segments {
        contiguous: 0,
        highest: 0,
    };
    for number in names.iter().filter_map(|name| segment_number(name)) {
        if number == segments.contiguous + 1 {
            segments.contiguous = number;
        }
        segments.highest = segments.highest.max(number);
    }
    match segments.highest {
        0 => Err(no_log(disk)),
        _ if segments.contiguous == 0 => Err(StoreError::Damaged(Damage {
            position: Position::new(1, 0),
            vouched: Position::new(segments.highest, 0),
            reason: "segment 1 is missing".into(),
        })),
        _ => Ok(segments),
    }
}

/// Without a log there is no store, unless something is left of one.
fn no_log(disk: &dyn Disk) -> StoreError {
    let left = [HEAD_NOTE_FILE, INDEX_FILE];
    let left = left
        .into_iter()
        .find(|name| disk.open(name, Access::Read).is_ok());
    left.map_or(StoreError::NotAStore, |name| {
        StoreError::Damaged(Damage {
            position: Position::default(),
            vouched: Position::default(),
            reason: format!("the log is gone: {name} is here, and no segment in {LOG_DIR}/"),
        })
    })
}

/// Makes an empty log: segment 1 with its `store` record appears whole or not
/// at all.
pub(crate) fn create(
    disk: &dyn Disk,
    role: StoreRole,
    origin: &VerifierKey,
) -> Result<(), StoreError> {
    let io = |error| StoreError::io("create the log", error);
    disk.create_dir("").map_err(io)?;
    disk.create_dir(LOG_DIR).map_err(io)?;
    match list_segments(disk) {
        Err(StoreError::NotAStore) => (),
        Err(error) => return Err(error),
        Ok(_) => return Err(StoreError::AlreadyAStore),
    }
    let mut store_id = [0u8; 16];
    getrandom::fill(&mut store_id).map_err(|e| io(io::Error::other(e)))?;
    let header = new_segment(1, store_id, [0; 16], Position::default()).map_err(io)?;
    let keys = header.keys();
    let start = Position::new(1, SEGMENT_HEADER_LEN);
    let mut group = Group::new();
    group.add(RecordType::Store, |out| body::put_store(role, origin, out));
    let Some((bytes, _)) = group.seal(&keys, start, start, keys.start()) else {
        return Err(io(io::ErrorKind::InvalidInput.into()));
    };
    create_segment(disk, &header, &bytes).map_err(io)?;
    disk.sync_dir("").map_err(io)
}

/// Removes what a crash left half made.
pub(crate) fn remove_temporaries(disk: &dyn Disk) -> Result<(), StoreError> {
    for dir in ["", LOG_DIR] {
        let names = match disk.list(dir) {
            Ok(names) => names,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(StoreError::io("list the store", error)),
        };
        for name in names
            .iter()
            .filter(|name| name.strip_suffix(".new").is_some())
        {
            let path = if dir.is_empty() {
                name.clone()
            } else {
                format!("{dir}/{name}")
            };
            disk.remove(&path)
                .map_err(|error| StoreError::io("remove a temporary", error))?;
        }
    }
    Ok(())
}

/// Reads the first segment's `store` record: role and pinned key of a store.
pub(crate) fn peek(disk: &dyn Disk) -> Result<(StoreRole, VerifierKey), StoreError> {
    list_segments(disk)?;
    let mut scan = LogScan::start(disk, 1)
        .map_err(|error| StoreError::io("read the log", error))?
        .map_err(|error| StoreError::Corrupt {
            position: Position::new(1, 0),
            error,
        })?;
    let group = scan
        .next_group()
        .map_err(|error| StoreError::io("read the log", error))?;
    let group = group.ok_or_else(|| no_beginning(&scan))?;
    let index = first_group(&group)?;
    Ok((index.role, index.chain.pinned().clone()))
}

/// Reads a small file of the store, if it is there.
pub(crate) fn read_optional(
    disk: &dyn Disk,
    name: &str,
    bytes_max: u64,
) -> Result<Option<Vec<u8>>, StoreError> {
    match read_whole(disk, name, bytes_max) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StoreError::io("read a file of the store", error)),
    }
}
