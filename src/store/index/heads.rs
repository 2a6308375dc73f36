//! Which heads lie where: of an own store those it published, of a mirror those
//! that were complete. The newest are all here, of older ones the first of every
//! minute; the log has the others, between those that are here.
//!
//! Invariant: whether a head is kept depends on the heads of the log alone, not
//! on when was folded. So a head that went does not come back, and the first
//! head of all never goes.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::{Below, Index, IndexError, Location};
use crate::head::{Head, HeadOrder};
use crate::limits::{HEADS_KEPT, HEADS_SPAN_NS};
use crate::store::record::Position;

/// What the index keeps of a head.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct HeadRow {
    /// Its record.
    pub(crate) at: Location,
    /// It is about the log up to here.
    pub(crate) covered: Position,
    pub(crate) time_ns: u64,
    /// The head before it is of another minute, or there is none.
    pub(crate) first: bool,
}

pub(crate) type Heads = BTreeMap<HeadOrder, HeadRow>;
type Found = Option<(HeadOrder, HeadRow)>;

/// True if `head` is the first of its minute, behind the head `before`.
pub(super) fn is_first(before: Option<&Head>, head: &Head) -> bool {
    let minute = |head: &Head| head.time_ns / HEADS_SPAN_NS;
    before.is_none_or(|before| minute(before) != minute(head))
}

/// Of all heads of a log, those that are kept.
pub(super) fn kept(all: &Heads) -> impl Iterator<Item = (&HeadOrder, &HeadRow)> {
    let old = all.len().saturating_sub(HEADS_KEPT);
    let kept = move |(at, (_, row)): &(usize, (_, &HeadRow))| *at >= old || row.first;
    all.iter().enumerate().filter(kept).map(|(_, row)| row)
}

/// The heads that are kept on both sides of a place.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Near {
    /// The newest that is not above it.
    pub(crate) through: Found,
    /// The oldest above it.
    pub(crate) after: Found,
}

pub(super) fn near_in(heads: &Heads, order: HeadOrder) -> Near {
    let own = |found: Option<(&HeadOrder, &HeadRow)>| found.map(|(order, row)| (*order, *row));
    let after = (Bound::Excluded(order), Bound::Unbounded);
    Near {
        through: own(heads.range(..=order).next_back()),
        after: own(heads.range(after).next()),
    }
}

impl Near {
    /// With what lies below: all of that is older.
    pub(crate) fn over(
        self,
        below: impl FnOnce() -> Result<Self, IndexError>,
    ) -> Result<Self, IndexError> {
        if self.through.is_some() {
            return Ok(self);
        }
        let below = below()?;
        Ok(Self {
            through: below.through,
            after: below.after.or(self.after),
        })
    }
}

impl Index {
    /// What the tail has near a place, and where to ask for the rest: that may
    /// take a while, and is not for the lock.
    pub(crate) fn near_in_tail(&self, order: HeadOrder) -> (Near, Below) {
        (near_in(&self.tail.heads, order), self.below.clone())
    }

    /// The heads that are kept on both sides of a place.
    pub(crate) fn near(&self, order: HeadOrder) -> Result<Near, IndexError> {
        let (near, below) = self.near_in_tail(order);
        near.over(|| below.near(order))
    }
}
