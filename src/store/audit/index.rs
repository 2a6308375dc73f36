//! The index under audit: opened beside the log while nobody else may write,
//! and compared with what the audit itself has made of the log when it comes to
//! the place the index covers. Nothing of the file is believed or changed.
//!
//! The index's file is held while it is looked at and not longer: twice for a
//! moment, whatever the length of the log. Who opens the store for writing in
//! such a moment is not kept from it, but has to copy the file.
//!
//! Memory does not grow with the log: what the audit makes of it is passed on as
//! rows, of which sums are kept ([`RowSums`]). Only if those are not the sums of
//! the rows on disk is the log read again, with everything in memory, to tell
//! what is wrong.

use std::sync::Arc;

use crate::store::disk::{Access, Disk, Sharing};
use crate::store::index::base::{Alone, Lose, Reader};
use crate::store::index::checkpoint::{Checkpoint, INDEX_FILE};
use crate::store::index::compare::{Compared, compare};
use crate::store::index::rows::IndexKeys;
use crate::store::index::sums::RowSums;
use crate::store::index::{Cover, Inconsistency, Index, IndexError, StateRow};
use crate::store::record::Short;
use crate::store::recover::{FAILED_FILE, Start, replay_with};
use crate::store::replay::ReplayError;
use crate::store::scan::{ScannedGroup, open_segment};
use crate::tree::TileError;

/// What has come together in memory is passed on when it is about so much,
const PASS_ON_BYTES: usize = 1 << 20;
/// or so much for each context, all of which are looked at for it.
const PASS_ON_CONTEXT_BYTES: usize = 64;

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
    /// Of the rows that were passed on; `None` if everything stays in memory.
    sums: Option<RowSums>,
    /// They will be compared with something.
    wanted: bool,
    /// What the tail had taken in when something was passed on last.
    passed_bytes: usize,
    /// The sums differ.
    look_closer: bool,
}

impl<'d> IndexCheck<'d> {
    /// Finds out what the index covers. Memory will not grow with the log.
    pub(super) fn new(disk: &'d dyn Disk) -> std::io::Result<Self> {
        Ok(Self::with(disk, Some(RowSums::new()?)))
    }

    fn with(disk: &'d dyn Disk, sums: Option<RowSums>) -> Self {
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
            sums,
            wanted: false,
            passed_bytes: 0,
            look_closer: false,
        };
        match check.look() {
            Ok(looked) => {
                check.target = Some(looked.state.cover);
                check.wanted = true;
            }
            Err(verdict) => check.verdict = verdict,
        }
        check
    }

    /// Compares, if `group`, which `index` has taken in, is what is covered
    /// last. Passes on what has come together.
    pub(super) fn after(
        &mut self,
        index: &mut Index,
        group: &ScannedGroup,
    ) -> Result<(), ReplayError> {
        let tiles = |_: TileError| {
            let error = Inconsistency::Rule("tiles and accumulator disagree");
            ReplayError::Log(group.start, error)
        };
        let limit = usize::try_from(index.context_count()).unwrap_or(usize::MAX);
        let limit = limit.saturating_mul(PASS_ON_CONTEXT_BYTES);
        let taken_in = index.tail.bytes().saturating_sub(self.passed_bytes);
        if taken_in >= limit.max(PASS_ON_BYTES) {
            self.pass_on(index).map_err(tiles)?;
        }
        if !group.changes_state() || self.target.is_none_or(|target| target.end != group.end) {
            return Ok(());
        }
        self.target = None;
        self.verdict = match self.look() {
            Err(verdict) => verdict,
            // Somebody has written since; the place may still be to come.
            Ok(looked) if looked.state.cover.end > group.end => {
                self.target = Some(looked.state.cover);
                return Ok(());
            }
            Ok(looked) => {
                self.pass_on(index).map_err(tiles)?;
                self.wanted = false;
                self.compare(index, &looked)
            }
        };
        Ok(())
    }

    fn pass_on(&mut self, index: &mut Index) -> Result<(), TileError> {
        self.passed_bytes = index.tail.bytes();
        match &mut self.sums {
            Some(sums) if self.wanted => index
                .tail
                .pass_on(&mut |table, key, value| sums.add(table, key, value)),
            Some(_) => index.tail.pass_on(&mut |_, _, _| ()),
            None => Ok(()),
        }
    }

    /// The last word. `sound`: the log was read to its end.
    pub(super) fn finish(self, sound: bool) -> AuditedIndex {
        if self.look_closer {
            return look_closer(self.disk);
        }
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

    fn compare(&mut self, index: &Index, looked: &Looked) -> AuditedIndex {
        let Some((_, store_id)) = self.keys else {
            return AuditedIndex::None;
        };
        if let Some(sums) = &mut self.sums {
            index
                .tail
                .rest(&mut |table, key, value| sums.add(table, key, value));
        }
        let root = index.published.root();
        let health: Arc<dyn Lose> = Arc::new(Alone);
        let opened = looked.checkpoint.reader(index.role, root, (health, 0));
        let sums = self.sums.as_mut();
        let compared = opened
            .and_then(|reader: Reader| compare(index, &reader, &looked.state, store_id, sums));
        match compared {
            Ok(Compared::Same(rows)) => AuditedIndex::Matches { rows },
            Ok(Compared::LookCloser) => {
                self.look_closer = true;
                AuditedIndex::None
            }
            Err(error) => differs(&error),
        }
    }
}

fn differs(error: &IndexError) -> AuditedIndex {
    AuditedIndex::Differs {
        reason: error.to_string(),
    }
}

/// Reads the log once more, up to what the index covers, with all that it leads
/// to in memory, and compares row by row.
fn look_closer(disk: &dyn Disk) -> AuditedIndex {
    let mut check = IndexCheck::with(disk, None);
    let mut observe = |index: &mut Index, group: &ScannedGroup, _: u64| {
        check.after(index, group)?;
        match check.target {
            Some(_) => Ok(()),
            // What follows is of no interest; the log has been verified before.
            None => Err(ReplayError::Log(group.end, Inconsistency::Rule("enough"))),
        }
    };
    match replay_with(disk, Start::default(), &mut observe) {
        Ok((_, verdict)) => check.finish(verdict.is_ok()),
        Err(error) => AuditedIndex::NotCompared {
            reason: format!("the log cannot be read again: {error}"),
        },
    }
}
