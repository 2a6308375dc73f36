//! Heads of the past, and the state that each of them is about, made again from
//! what the log holds. Nothing here is believed for being in the index: a head
//! is opened from the log under the key of its place, and a state must have the
//! directory root that its head names.

use std::ops::Deref;

use super::StoreError;
use super::body;
use super::disk::Disk;
use super::index::heads::{HeadRow, Near};
use super::index::{ContextView, Index, IndexError, Location, TrustedKeys};
use super::log::LogReader;
use super::record::{Position, RecordType};
use super::view::{NAMES_STEP_MAX, View};
use crate::directory::{Change, MemoryDirectory, Opening, apply, empty_root};
use crate::head::{HeadOrder, SignedHead};
use crate::limits::HEAD_SCAN_RECORDS_MAX;

/// A head that was published, or complete, and what it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PastHead {
    /// The head.
    pub head: SignedHead,
    /// It is about the log up to here.
    pub covered: Position,
}

/// What there is at a place in the order of heads.
#[derive(Clone, Debug)]
pub(super) enum Looked {
    /// This head.
    Head(Box<PastHead>),
    /// None: the place was skipped, or lies outside.
    None,
    /// Whoever wants to know must read more of the log than is worth it.
    TooFar,
}

/// Finds the head at a place.
pub(super) fn find<'d, D: Deref<Target = dyn Disk + 'd>>(
    log: &LogReader<D>,
    keys: &TrustedKeys,
    near: Near,
    order: HeadOrder,
) -> Result<Looked, StoreError> {
    let past = match (near.through, near.after) {
        (Some((found, row)), _) if found == order => {
            let past = open(log, keys, row.at)?;
            if past.head.order() != order || past.covered != row.covered {
                return Err(IndexError::Stale("it names another head than the log").into());
            }
            past
        }
        (Some((_, from)), Some((_, until))) => return scan(log, keys, (from, until), order),
        _ => return Ok(Looked::None),
    };
    Ok(Looked::Head(Box::new(past)))
}

/// Looks at the records between two heads.
fn scan<'d, D: Deref<Target = dyn Disk + 'd>>(
    log: &LogReader<D>,
    keys: &TrustedKeys,
    (from, until): (HeadRow, HeadRow),
    order: HeadOrder,
) -> Result<Looked, StoreError> {
    let (mut at, until) = (from.at.position, until.at.position);
    for _ in 0..HEAD_SCAN_RECORDS_MAX {
        if at >= until {
            return Ok(Looked::None);
        }
        let (header, next) = log.step(at)?;
        if header.kind == RecordType::Head {
            let body_len = header.body_len;
            let position = at;
            let past = open(log, keys, Location { position, body_len })?;
            if past.head.order() == order {
                return Ok(Looked::Head(Box::new(past)));
            }
            if past.head.order() > order {
                return Ok(Looked::None);
            }
        }
        at = next;
    }
    Ok(Looked::TooFar)
}

fn open<'d, D: Deref<Target = dyn Disk + 'd>>(
    log: &LogReader<D>,
    keys: &TrustedKeys,
    at: Location,
) -> Result<PastHead, StoreError> {
    let record = log.body(at, RecordType::Head)?;
    let position = at.position;
    let (covered, note) =
        body::get_head(&record).map_err(|error| StoreError::Corrupt { position, error })?;
    let head = keys
        .open_at(note, position)
        .map_err(|error| StoreError::Inconsistent { position, error })?;
    Ok(PastHead { head, covered })
}

/// The same in an index that nobody shares yet.
pub(super) fn find_in<'d, D: Deref<Target = dyn Disk + 'd>>(
    index: &Index,
    log: &LogReader<D>,
    order: HeadOrder,
) -> Result<Looked, StoreError> {
    find(log, &index.chain, index.near(order)?, order)
}

impl View {
    pub(super) fn find_head(&self, order: HeadOrder) -> Result<Looked, StoreError> {
        let (near, below, keys) = {
            let index = self.index();
            let (near, below) = index.near_in_tail(order);
            (near, below, index.chain.clone())
        };
        let near = near.over(|| below.near(order))?;
        let found = find(self.log(), &keys, near, order);
        if let Err(StoreError::IndexLost { reason }) = &found {
            below.lose(reason);
        }
        found
    }

    /// The head of this term and epoch that was published, or complete. `None`
    /// if there was none, or it lies too far from those that the index keeps.
    pub fn head_at(&self, order: HeadOrder) -> Result<Option<PastHead>, StoreError> {
        Ok(match self.find_head(order)? {
            Looked::Head(past) => Some(*past),
            Looked::None | Looked::TooFar => None,
        })
    }

    /// True if the origin has signed this note and another text of the same head is
    /// held: complete or seen.
    pub fn says_otherwise(&self, note: &[u8]) -> Result<bool, StoreError> {
        let Ok(shown) = SignedHead::open(note, &self.origin()) else {
            return Ok(false);
        };
        let other =
            |head: &SignedHead| head.order() == shown.order() && head.head() != shown.head();
        {
            let index = self.index();
            let newest = index.published.head();
            if newest.is_some_and(|newest| newest.head() == shown.head()) {
                return Ok(false);
            }
            if index.seen_heads().any(|seen| other(&seen.head)) {
                return Ok(true);
            }
        }
        Ok(self
            .head_at(shown.order())?
            .is_some_and(|past| other(&past.head)))
    }

    /// Every context as a head of the past is about it, ascending by path. The
    /// directory made of them has the head's root, or this is an error: a mirror
    /// that was ahead of its head cannot tell what it held when.
    pub fn openings_at(&self, past: &PastHead) -> Result<Vec<Opening>, StoreError> {
        let mut openings = Vec::new();
        let mut after = None;
        loop {
            let names = self.names_after(after.as_ref(), NAMES_STEP_MAX)?;
            for id in &names {
                let Some(view) = self.look_up(id)? else {
                    continue;
                };
                let size = size_at(&view, past.covered)?;
                if size > 0 {
                    let root = self.root_of(&view, size)?;
                    let id = id.as_str().to_owned();
                    openings.push(Opening { id, size, root });
                }
            }
            match names.into_iter().next_back() {
                Some(last) => after = Some(last),
                None => break,
            }
        }
        openings.sort_by_cached_key(Opening::path);
        let change = |opening: &Opening| Change {
            path: opening.path(),
            commitment: opening.commitment(),
            entries: opening.size,
        };
        let changes: Vec<Change> = openings.iter().map(change).collect();
        let made = apply(&MemoryDirectory::new(), &empty_root(), &changes);
        if made.is_ok_and(|made| made.root == past.head.head().directory_root) {
            return Ok(openings);
        }
        let order = past.head.order();
        Err(StoreError::StateGone { order })
    }
}

/// Entries of a context in the runs before a place of the log, or none if it
/// did not exist there.
fn size_at(view: &ContextView, covered: Position) -> Result<u64, StoreError> {
    if view.state.since >= covered {
        return Ok(0);
    }
    let (mut size, mut beyond) = (0, view.state.after.size() + 1);
    // Entries up to `size` lie before the place, those from `beyond` on behind.
    while size + 1 < beyond {
        let middle = size + (beyond - size) / 2;
        let Some(run) = view.run_of(middle)? else {
            return Err(IndexError::Stale("a run is missing").into());
        };
        if run.at.position < covered {
            size = run.last;
        } else {
            beyond = run.first;
        }
    }
    Ok(size)
}
