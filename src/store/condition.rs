//! What is to be known of a store beside what its log holds, without changing
//! it: for whoever looks whether all is well.

use std::ops::Deref;

use super::StoreError;
use super::disk::Disk;
use super::forks;
use super::frozen::Frozen;
use super::guard::{Judged, judge_frozen_note};
use super::log::LogReader;
use super::recover::Replayed;
use crate::ledger::ForkState;

/// Fork, freezing and `head.note` of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// The newest evidence against the origin, if a mirror has any.
    pub fork: Option<ForkState>,
    /// Why an own store must not sign, if `frozen.note` says so.
    pub frozen: Option<Frozen>,
    /// False if the log has a head and `head.note` is gone: then nobody would
    /// notice a log that lost its end.
    pub head_note: bool,
}

impl Condition {
    pub(super) fn of<'d, D: Deref<Target = dyn Disk + 'd>>(
        disk: &dyn Disk,
        log: &LogReader<D>,
        replayed: &Replayed,
    ) -> Result<Self, StoreError> {
        let index = &replayed.index;
        let frozen = match judge_frozen_note(disk, log, index) {
            Ok(Some(Judged::Against(frozen))) => Some(frozen),
            // What is damaged is said by whoever reads it.
            Err(error)
                if !error.is_verification_failure()
                    && !matches!(error, StoreError::IndexLost { .. }) =>
            {
                return Err(error);
            }
            _ => None,
        };
        Ok(Self {
            fork: forks::newest(index),
            frozen,
            head_note: replayed.head_note.is_some() || index.published.head().is_none(),
        })
    }
}
