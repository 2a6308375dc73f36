//! The index under audit: opened beside the log while nobody else may write,
//! and compared with what the audit itself has made of the log when it comes to
//! the place the index covers. Nothing of the file is believed or changed.
//!
//! The index's file is held while it is looked at and not longer: twice for a
//! moment, whatever the length of the log. Who opens the store for writing in
//! such a moment is not kept from it, but has to copy the file.

use std::sync::Arc;

use crate::store::disk::{Access, Disk, Sharing};
use crate::store::index::base::{Alone, Lose, Reader};
use crate::store::index::checkpoint::{Checkpoint, INDEX_FILE};
use crate::store::index::compare::compare;
use crate::store::index::rows::IndexKeys;
use crate::store::index::{Cover, Index, StateRow};
use crate::store::record::Short;
use crate::store::recover::FAILED_FILE;
use crate::store::scan::{ScannedGroup, open_segment};

/// What an audit says of the index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuditedIndex {
    /// There is none.
    None,
    /// Every row is what the log implies, and none is missing.
    Matches {
        /// Rows that were compared.
        rows: u64,
    },
    /// It could not be looked at.
    NotCompared {
        /// Why.
        reason: String,
    },
    /// It is not what the log implies. The log is none the worse for it.
    Differs {
        /// The first difference.
        reason: String,
    },
}

/// An index that is open, and held by that.
struct Looked {
    checkpoint: Checkpoint,
    state: StateRow,
}

/// See the module.
pub(super) struct IndexCheck<'d> {
    disk: &'d dyn Disk,
    keys: Option<(IndexKeys, Short)>,
    /// Where to compare, if that is still to come.
    target: Option<Cover>,
    verdict: AuditedIndex,
}

impl<'d> IndexCheck<'d> {
    /// Finds out what the index covers.
    pub(super) fn new(disk: &'d dyn Disk) -> Self {
        let first = open_segment(disk, 1, Access::Read);
        let keys = first.ok().and_then(Result::ok).map(|first| {
            let keys = IndexKeys::of_store(&first.header.tag_key);
            (keys, first.header.store_id)
        });
        let mut check = Self {
            disk,
            keys,
            target: None,
            verdict: AuditedIndex::None,
        };
        match check.look() {
            Ok(looked) => check.target = Some(looked.state.cover),
            Err(verdict) => check.verdict = verdict,
        }
        check
    }

    /// Compares, if `group`, which `index` has taken in, is what is covered
    /// last.
    pub(super) fn after(&mut self, index: &Index, group: &ScannedGroup) {
        if !group.changes_state() || self.target.is_none_or(|target| target.end != group.end) {
            return;
        }
        self.target = None;
        self.verdict = match self.look() {
            Err(verdict) => verdict,
            // Somebody has written since; the place may still be to come.
            Ok(looked) if looked.state.cover.end > group.end => {
                self.target = Some(looked.state.cover);
                return;
            }
            Ok(looked) => self.compare(index, &looked),
        };
    }

    /// The last word. `sound`: the log was read to its end.
    pub(super) fn finish(self, sound: bool) -> AuditedIndex {
        match self.target {
            None => self.verdict,
            Some(target) if sound => AuditedIndex::Differs {
                reason: format!(
                    "it covers the log up to {}, where no group of it ends: bytes that were \
                     durable are gone, and opening will say so",
                    target.end
                ),
            },
            Some(target) => AuditedIndex::NotCompared {
                reason: format!("the log cannot be read up to {}", target.end),
            },
        }
    }

    fn look(&self) -> Result<Looked, AuditedIndex> {
        let not = |reason: String| Err(AuditedIndex::NotCompared { reason });
        let wrong = |reason: String| Err(AuditedIndex::Differs { reason });
        let held = match self.disk.open(INDEX_FILE, Access::Read) {
            Ok(file) => file.try_hold(Sharing::Shared),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(AuditedIndex::None);
            }
            Err(error) => Err(error),
        };
        match held {
            Ok(true) => (),
            Ok(false) => return not("in use".into()),
            Err(error) => return not(format!("it cannot be opened: {error}")),
        }
        let Some((keys, store_id)) = &self.keys else {
            return not("the log cannot be read".into());
        };
        if self.disk.open(FAILED_FILE, Access::Read).is_ok() {
            return not("the last process failed, so it will be made anew".into());
        }
        match Checkpoint::open_read_only(self.disk, keys) {
            // Somebody has come in between.
            Ok(None) => not("in use".into()),
            Ok(Some((_, state))) if state.store_id != *store_id => {
                wrong("it belongs to another store".into())
            }
            Ok(Some((checkpoint, state))) => Ok(Looked { checkpoint, state }),
            Err(error) => wrong(error.to_string()),
        }
    }

    fn compare(&self, index: &Index, looked: &Looked) -> AuditedIndex {
        let Some((_, store_id)) = self.keys else {
            return AuditedIndex::None;
        };
        let root = index.published.root();
        let health: Arc<dyn Lose> = Arc::new(Alone);
        let opened = looked.checkpoint.reader(index.role, root, (health, 0));
        let compared =
            opened.and_then(|reader: Reader| compare(index, &reader, &looked.state, store_id));
        match compared {
            Ok(rows) => AuditedIndex::Matches { rows },
            Err(error) => AuditedIndex::Differs {
                reason: error.to_string(),
            },
        }
    }
}
