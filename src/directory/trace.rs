//! Follows one context down two directories at once: the own one and one that
//! another side shows node by node. What comes out are both paths to a context
//! on which the two contradict each other.
//!
//! Which context that is may be known, or only a prefix below which something
//! is wrong. Then the slots tell: if the sums below a node cannot have grown
//! from those of the earlier one, neither can those below one of its slots; so
//! one slot is followed, never two.
//!
//! Invariants: at most 64 nodes of either side; each shown node is the one that
//! the node above commits to.

use std::error::Error;

use super::diff::check_openings;
use super::path::Path;
use super::{
    DirectoryError, LoadError, Node, Opening, Prefix, ReadDirectory, SLOTS, Slot, Sums, empty_root,
    load,
};
use crate::hash::Hash;

/// What is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aim {
    /// The context with this path hash.
    Context(Hash),
    /// Any context below this prefix that is not what it was.
    Below(Prefix),
}

/// What is needed next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// The shown node with this hash.
    Node(Hash),
    /// Nothing: both paths are whole.
    Found(Box<Traced>),
    /// There is no such context, or nothing wrong with any.
    Nothing,
}

/// Both paths to one context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traced {
    /// The context's path hash.
    pub path: Hash,
    /// Its size in the own directory, unless it is absent there.
    pub held: Option<u64>,
    /// What the shown directory says of it, unless it is absent there.
    pub shown: Option<Opening>,
    /// Nodes of the own directory.
    pub held_path: Path,
    /// Nodes of the shown directory.
    pub shown_path: Path,
}

/// Why a shown node was not taken.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TraceError<E: Error + 'static> {
    /// It is not what the directory commits to.
    #[error(transparent)]
    Shown(#[from] DirectoryError),
    /// A node of one's own could not be had.
    #[error(transparent)]
    Local(#[from] LoadError<E>),
}

/// A descent in progress.
#[derive(Debug)]
pub struct Trace {
    aim: Aim,
    shown_is_later: bool,
    at: Prefix,
    held: Slot,
    shown: Slot,
    opening: Option<Opening>,
    held_nodes: Vec<Vec<u8>>,
    shown_nodes: Vec<Vec<u8>>,
    lost: bool,
}

impl Trace {
    /// A descent from the roots and counts of two heads.
    #[must_use]
    pub const fn new(
        aim: Aim,
        held: (Hash, Sums),
        shown: (Hash, Sums),
        shown_is_later: bool,
    ) -> Self {
        Self {
            aim,
            shown_is_later,
            at: Prefix::ROOT,
            held: whole(held),
            shown: whole(shown),
            opening: None,
            held_nodes: Vec::new(),
            shown_nodes: Vec::new(),
            lost: false,
        }
    }

    /// Goes as far as it can without another shown node.
    pub fn next<R: ReadDirectory>(&mut self, read: &R) -> Result<Next, LoadError<R::Error>> {
        loop {
            if self.lost {
                return Ok(Next::Nothing);
            }
            let slots = match self.shown {
                Slot::Child { hash, .. } if self.at.depth() == 0 && hash == empty_root() => {
                    let empty = Node::empty();
                    self.shown_nodes.push(empty.encode());
                    *empty.slots()
                }
                Slot::Child { hash, .. } => return Ok(Next::Node(hash)),
                Slot::Entry { .. } | Slot::Empty => {
                    if !matches!(self.held, Slot::Child { .. }) {
                        return Ok(self.found());
                    }
                    alone(self.shown, self.at.depth())
                }
            };
            let opening = self.opening.take();
            self.descend(read, &slots, opening)?;
        }
    }

    /// The shown node that was asked for, with its openings.
    pub fn supply<R: ReadDirectory>(
        &mut self,
        read: &R,
        bytes: &[u8],
        openings: Vec<Opening>,
    ) -> Result<(), TraceError<R::Error>> {
        let Slot::Child { hash, .. } = self.shown else {
            return Ok(());
        };
        let node = Node::open(&hash, bytes, &self.at, Some(self.shown.sums()))?;
        check_openings(&hash, &node, &openings)?;
        self.shown_nodes.push(bytes.to_vec());
        self.descend(read, node.slots(), openings)?;
        Ok(())
    }

    /// One level down, into one slot.
    fn descend<R: ReadDirectory>(
        &mut self,
        read: &R,
        shown: &[Slot; SLOTS],
        openings: impl IntoIterator<Item = Opening>,
    ) -> Result<(), LoadError<R::Error>> {
        let held = match self.held {
            Slot::Child { hash, .. } => {
                let node = load(read, &hash, &self.at, Some(self.held.sums()))?;
                self.held_nodes.push(node.encode());
                *node.slots()
            }
            slot => alone(slot, self.at.depth()),
        };
        let Some(i) = self.choose(&held, shown) else {
            self.lost = true;
            return Ok(());
        };
        let slot = |slots: &[Slot; SLOTS]| slots.get(usize::from(i)).copied().unwrap_or_default();
        (self.held, self.shown) = (slot(&held), slot(shown));
        self.opening = match self.shown {
            Slot::Entry { path, .. } => openings.into_iter().find(|o| o.path() == path),
            _ => None,
        };
        self.at = self.at.child(i);
        Ok(())
    }

    /// The slot to follow.
    fn choose(&self, held: &[Slot; SLOTS], shown: &[Slot; SLOTS]) -> Option<u8> {
        let depth = self.at.depth();
        match self.aim {
            Aim::Context(path) => return Some(path.nibble(depth)),
            Aim::Below(prefix) if depth < prefix.depth() => return Some(prefix.nibble(depth)),
            Aim::Below(_) => {}
        }
        let (earlier, later) = if self.shown_is_later {
            (held, shown)
        } else {
            (shown, held)
        };
        let pairs = || (0u8..).zip(earlier.iter().zip(later));
        let fewer = pairs().find(|(_, (before, after))| !after.sums().may_extend(before.sums()));
        let other = || {
            pairs().find(|(_, (before, after))| before != after && before.sums() == after.sums())
        };
        fewer.or_else(other).map(|(i, _)| i)
    }

    fn found(&mut self) -> Next {
        let earlier = if self.shown_is_later {
            self.held
        } else {
            self.shown
        };
        let Slot::Entry { path, .. } = earlier else {
            return Next::Nothing;
        };
        if let Aim::Context(wanted) = self.aim
            && wanted != path
        {
            return Next::Nothing;
        }
        let held = match self.held {
            Slot::Entry {
                path: held,
                entries,
                ..
            } if held == path => Some(entries),
            _ => None,
        };
        Next::Found(Box::new(Traced {
            path,
            held,
            shown: self.opening.take().filter(|o| o.path() == path),
            held_path: Path {
                nodes: std::mem::take(&mut self.held_nodes),
            },
            shown_path: Path {
                nodes: std::mem::take(&mut self.shown_nodes),
            },
        }))
    }
}

/// The slot an imagined parent of a root would have.
const fn whole((hash, sums): (Hash, Sums)) -> Slot {
    Slot::Child {
        hash,
        contexts: sums.contexts,
        entries: sums.entries,
    }
}

/// Below a slot that is no child: at most one context.
pub(super) fn alone(slot: Slot, depth: u8) -> [Slot; SLOTS] {
    let mut slots = [Slot::Empty; SLOTS];
    if let Slot::Entry { path, .. } = slot
        && let Some(place) = slots.get_mut(usize::from(path.nibble(depth)))
    {
        *place = slot;
    }
    slots
}
