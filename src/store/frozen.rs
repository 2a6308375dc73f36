//! A store that may not go on (`spec/12-guard.md`): why, and the file
//! `frozen.note`, which keeps the statements that showed it, so that opening
//! asks again whether they still do.
//!
//! ```text
//! converge-ledger/frozen/v1
//! note <bytes>            the note follows as it is, without a line feed more
//! ...
//! ```

use std::fmt;
use std::sync::{Mutex, OnceLock, PoisonError};

use super::disk::{Disk, replace_atomically};
use super::layout::read_optional;
use super::{StoreError, index::checkpoint::remove};
use crate::head::HeadOrder;
use crate::limits::{FROZEN_NOTES_MAX, NOTE_BYTES_MAX};

/// The file's name.
pub(crate) const FROZEN_FILE: &str = "frozen.note";
const FIRST_LINE: &str = "converge-ledger/frozen/v1\n";
/// `note `, four digits, a line feed.
const LINE_BYTES_MAX: usize = 10;
const FILE_BYTES_MAX: usize =
    FIRST_LINE.len() + FROZEN_NOTES_MAX * (LINE_BYTES_MAX + NOTE_BYTES_MAX);
const _: () = assert!(NOTE_BYTES_MAX < 10_000);

/// What a statement of the store's own keys says against its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrozenKind {
    /// It is newer than anything in the log: the log is an old copy.
    Ahead,
    /// The log has another text in its place, or none: there are two histories.
    OtherText,
    /// The origin goes on elsewhere, in a term of its own.
    Takeover,
}

/// Why a store signs and stores nothing any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Frozen {
    /// What it is.
    pub kind: FrozenKind,
    /// The newest head in the log.
    pub held: Option<HeadOrder>,
    /// The statement that was shown; of a takeover its term and the epoch that
    /// it begins behind.
    pub shown: HeadOrder,
    /// Epochs that the log is behind it.
    pub epochs_behind: u64,
    /// Entries that the log's newest head is behind it.
    pub entries_behind: u64,
}

impl fmt::Display for Frozen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { shown, .. } = self;
        write!(f, "the store is frozen: ")?;
        match (self.kind, self.held) {
            (FrozenKind::Ahead, held) => {
                write!(f, "its origin has signed head {shown} before, ")?;
                match held {
                    Some(held) => write!(f, "and the log ends with head {held}")?,
                    None => write!(f, "and the log has no head")?,
                }
                write!(
                    f,
                    ": it lacks {} epochs and {} entries; put the newest log in its place",
                    self.epochs_behind, self.entries_behind
                )
            }
            (FrozenKind::OtherText, _) => write!(
                f,
                "its origin has signed head {shown} with another text than the log has there: \
                 there are two histories"
            ),
            (FrozenKind::Takeover, _) => write!(
                f,
                "its origin was taken over behind epoch {}: it goes on elsewhere, in term {}",
                shown.epoch, shown.term
            ),
        }
    }
}

/// The bytes of the file.
pub(super) fn encode(notes: &[Vec<u8>]) -> Vec<u8> {
    let mut out = FIRST_LINE.as_bytes().to_vec();
    for note in notes {
        out.extend_from_slice(format!("note {}\n", note.len()).as_bytes());
        out.extend_from_slice(note);
    }
    out
}

/// The notes of a file; one spelling only.
pub(super) fn decode(bytes: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut rest = bytes.strip_prefix(FIRST_LINE.as_bytes())?;
    let mut notes = Vec::new();
    while !rest.is_empty() {
        let end = rest
            .iter()
            .take(LINE_BYTES_MAX)
            .position(|&byte| byte == b'\n')?;
        let (line, behind) = rest.split_at_checked(end + 1)?;
        let len = std::str::from_utf8(line).ok()?.trim_end();
        let len: usize = len.strip_prefix("note ")?.parse().ok()?;
        if len > NOTE_BYTES_MAX || notes.len() >= FROZEN_NOTES_MAX {
            return None;
        }
        let (note, behind) = behind.split_at_checked(len)?;
        notes.push(note.to_vec());
        rest = behind;
    }
    (!notes.is_empty() && encode(&notes) == bytes).then_some(notes)
}

/// The notes in the file, if there is one. What cannot be read freezes nobody:
/// whoever can write there can also remove it.
pub(super) fn read(disk: &dyn Disk) -> Result<Option<Vec<Vec<u8>>>, StoreError> {
    let bytes = match read_optional(disk, FROZEN_FILE, FILE_BYTES_MAX as u64) {
        Ok(None) => return Ok(None),
        Ok(Some(bytes)) => bytes,
        Err(StoreError::Io { error, .. }) if error.kind() == std::io::ErrorKind::InvalidData => {
            Vec::new()
        }
        Err(error) => return Err(error),
    };
    let notes = decode(&bytes);
    if notes.is_none() {
        tracing::warn!("frozen.note is not readable, and freezes nothing");
    }
    Ok(notes)
}

/// Writes the file; a crash leaves none, or all of it.
pub(super) fn write(disk: &dyn Disk, notes: &[Vec<u8>]) -> std::io::Result<()> {
    replace_atomically(disk, FROZEN_FILE, &encode(notes))
}

/// Says why the store is frozen, also to whoever opens it next.
pub(super) fn tell(disk: &dyn Disk, why: Frozen, notes: &[Vec<u8>]) {
    tracing::error!(%why, "frozen");
    if let Err(error) = write(disk, notes) {
        tracing::error!(%error, "frozen.note was not written");
    }
}

/// Removes the file: what it says is in the log.
pub(super) fn clear(disk: &dyn Disk) -> std::io::Result<()> {
    remove(disk, FROZEN_FILE)?;
    disk.sync_dir("")
}

/// What froze an open store, if anything has: its handles and its writer share
/// it.
#[derive(Debug, Default)]
pub(super) struct Freezing {
    why: OnceLock<Frozen>,
    /// Held while `frozen.note` is written.
    writing: Mutex<()>,
}

impl Freezing {
    pub(super) fn get(&self) -> Option<Frozen> {
        self.why.get().copied()
    }

    /// The first reason counts. Nothing is signed from the moment it is known;
    /// the file follows.
    pub(super) fn freeze(&self, disk: &dyn Disk, why: Frozen, notes: &[Vec<u8>]) {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        if self.why.set(why).is_ok() {
            tell(disk, why, notes);
        }
    }

    /// Waits until the file of what has frozen the store is written: until then
    /// the store's lock is kept, or the next one to open it would not hear of it.
    pub(super) fn wait_for_file(&self) {
        drop(self.writing.lock().unwrap_or_else(PoisonError::into_inner));
    }
}
