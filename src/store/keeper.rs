//! The index file through its life: opened if the log bears it out, made anew
//! from the log if not, folded into, thrown away.
//!
//! What a crash leaves (`spec/10-index.md`, Crash analysis): a new index has a
//! temporary name until its first commit is durable, so a crash leaves none, or
//! a whole one that covers a head of the log; a fold leaves the commit before
//! or the new one. Any of them opens, and the log beyond it is replayed.

use std::sync::Arc;

use super::body::StoreRole;
use super::disk::{Access, Disk};
use super::index::base::Lose;
use super::index::checkpoint::{Checkpoint, INDEX_FILE, INDEX_FILE_NEW, io_error, remove};
use super::index::rows::IndexKeys;
use super::index::{Base, Cover, FoldJob, Index, IndexError, StateRow};
use super::log::LogReader;
use super::record::{Position, Short};
use super::recover::{Replayed, Start, no_beginning, replay_and_fold};
use super::replay::first_group;
use super::scan::{LogScan, ScannedGroup, open_segment};
use super::{StoreError, StoreOptions};
use crate::limits::TAIL_FOLD_BYTES;
use crate::note::VerifierKey;

/// What became of the index that was found on opening.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// The index over it, if it is good.
    pub(crate) index: Option<Index>,
    /// Why it was thrown away.
    pub(crate) discarded: Option<String>,
    /// When the commit it has was made.
    pub(crate) made_at_ns: u64,
    /// Even an index that is of no use says how far the log was durable.
    pub(crate) voucher: Position,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Keeper {
    disk: Arc<dyn Disk>,
    keys: IndexKeys,
    store_id: Short,
    health: Arc<dyn Lose>,
    /// Files that were thrown away.
    discarded: u64,
    checkpoint: Option<Checkpoint>,
    /// It still has its temporary name.
    unnamed: bool,
}

impl Keeper {
    /// For the store whose log starts with this segment 1.
    pub(crate) fn new(disk: Arc<dyn Disk>, health: Arc<dyn Lose>) -> Result<Self, StoreError> {
        let first = open_segment(&*disk, 1, Access::Read)
            .map_err(|error| StoreError::io("read the log", error))?
            .map_err(|error| StoreError::Corrupt {
                position: Position::new(1, 0),
                error,
            })?;
        Ok(Self {
            keys: IndexKeys::of_store(&first.header.tag_key),
            store_id: first.header.store_id,
            disk,
            health,
            discarded: 0,
            checkpoint: None,
            unnamed: false,
        })
    }

    fn health(&self) -> (Arc<dyn Lose>, u64) {
        (self.health.clone(), self.discarded)
    }

    /// Tells the file in use from those before it.
    pub(crate) fn file(&self) -> u64 {
        self.discarded
    }

    /// Opens the index, if the log bears it out. One that is not good stays
    /// where it is until the log has been read ([`Self::name`]): if the log is
    /// damaged, it says how far the log once was durable, next time as well.
    pub(crate) fn open(&mut self, log: &LogReader, of: (StoreRole, VerifierKey)) -> Found {
        self.take(Checkpoint::open(&*self.disk, &self.keys), log, of)
    }

    /// The same without changing the file; nothing is found while a process
    /// writes to it.
    pub(crate) fn open_read_only(
        &mut self,
        log: &LogReader,
        of: (StoreRole, VerifierKey),
    ) -> Found {
        self.take(Checkpoint::open_read_only(&*self.disk, &self.keys), log, of)
    }

    fn take(
        &mut self,
        opened: Result<Option<(Checkpoint, StateRow)>, IndexError>,
        log: &LogReader,
        of: (StoreRole, VerifierKey),
    ) -> Found {
        let mut found = Found::default();
        match opened {
            Ok(None) => return found,
            Ok(Some((checkpoint, state))) => {
                if state.store_id == self.store_id {
                    found.voucher = state.cover.end;
                    found.made_at_ns = state.made_at_ns;
                    let (health, role) = (self.health(), of.0);
                    let over = Index::over_checkpoint(log, of, &state, |root| {
                        checkpoint.reader(role, root, health)
                    });
                    match over {
                        Ok(index) => {
                            found.index = Some(index);
                            self.checkpoint = Some(checkpoint);
                            self.unnamed = false;
                            return found;
                        }
                        Err(error) => found.discarded = Some(error.to_string()),
                    }
                } else {
                    found.discarded = Some("it belongs to another store".into());
                }
            }
            Err(error) => found.discarded = Some(error.to_string()),
        }
        self.let_go();
        found
    }

    /// Uses the file no more.
    pub(crate) fn let_go(&mut self) {
        self.checkpoint = None;
        self.unnamed = false;
        self.discarded += 1;
    }

    /// Throws the index away.
    pub(crate) fn discard(&mut self) -> Result<(), StoreError> {
        self.let_go();
        for name in [INDEX_FILE, INDEX_FILE_NEW] {
            remove(&*self.disk, name).map_err(|error| StoreError::io("remove the index", error))?;
        }
        Ok(())
    }

    /// Folds a frozen tail in and returns what is on disk then. An error leaves
    /// an index that is to be discarded.
    pub(crate) fn fold(&mut self, job: &FoldJob, role: StoreRole) -> Result<Base, IndexError> {
        let health = self.health();
        let checkpoint = match &mut self.checkpoint {
            Some(checkpoint) => checkpoint,
            none => {
                self.unnamed = true;
                none.insert(Checkpoint::create(&*self.disk, INDEX_FILE_NEW, &self.keys)?)
            }
        };
        checkpoint.fold(&job.tail, &job.state)?;
        let reader = checkpoint.reader(role, job.root, health)?;
        Ok(Base::Ready(Arc::new(reader)))
    }

    /// Gives a new index its name; nothing to do for an old one.
    pub(crate) fn name(&mut self) -> Result<(), IndexError> {
        if self.unnamed {
            self.disk
                .rename(INDEX_FILE_NEW, INDEX_FILE)
                .map_err(io_error)?;
            self.disk.sync_dir("").map_err(io_error)?;
            self.unnamed = false;
        }
        Ok(())
    }

    /// Folds what `index` holds in memory, if it may be folded here.
    pub(crate) fn fold_now(&mut self, index: &mut Index, now_ns: u64) -> Result<(), IndexError> {
        if index.may_freeze() {
            let job = index.freeze(self.store_id, now_ns);
            let base = self.fold(&job, index.role)?;
            index.folded(base);
        }
        Ok(())
    }

    /// Reads the log where `start` says, and folds what grows large on the way.
    pub(crate) fn replay(
        &mut self,
        options: &StoreOptions,
        start: Start,
    ) -> Result<Replayed, StoreError> {
        let disk = self.disk.clone();
        let (now_ns, fold_bytes) = (options.clock.now_ns(), options.fold_bytes());
        let mut observe = |_: &mut Index, _: &ScannedGroup, bytes: u64| {
            if let Some(progress) = &options.progress {
                progress(bytes);
            }
            Ok(())
        };
        let mut fold = |index: &mut Index| {
            if index.has_grown(fold_bytes) {
                self.fold_now(index, now_ns)?;
            }
            Ok(())
        };
        let (replayed, verdict) = replay_and_fold(&*disk, start, &mut observe, &mut fold)?;
        verdict.map(|()| replayed)
    }

    /// Makes the index anew, up to a place it covered before.
    pub(crate) fn rebuild(&mut self, until: Cover, now_ns: u64) -> Result<Base, StoreError> {
        self.discard()?;
        let read = |error| StoreError::io("read the log", error);
        let disk = self.disk.clone();
        let mut scan = LogScan::start(&*disk, until.end.segment())
            .map_err(read)?
            .map_err(|error| StoreError::Corrupt {
                position: Position::new(1, 0),
                error,
            })?;
        let first = scan.next_group().map_err(read)?;
        let first = first.ok_or_else(|| no_beginning(&scan))?;
        let mut index = first_group(&first)?;
        let mut next = Some(first);
        while let Some(group) = next {
            index.replay(&group)?;
            let there = group.end == until.end;
            if there || index.has_grown(TAIL_FOLD_BYTES) {
                self.fold_now(&mut index, now_ns)?;
            }
            if there {
                // A base that covered less would hide what lies between.
                if index.covered() != Some(until) {
                    break;
                }
                self.name()?;
                return Ok(index.below.base);
            }
            next = scan.next_group().map_err(read)?;
        }
        Err(StoreError::Corrupt {
            position: scan.stopped_at(),
            error: crate::encoding::DecodeError::Invalid {
                what: "the log no longer leads to where it was read before",
            },
        })
    }
}
