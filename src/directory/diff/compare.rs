//! One signed node against the own side, slot by slot.
//!
//! ```text
//! signed slot     own slot        outcome
//! -               -               nothing
//! -               entry, child    contradiction: vanished
//! entry           -               changed (new)
//! entry           same path       nothing / changed / contradiction
//! entry           other, child    contradiction: vanished
//! child           -, entry        wanted
//! child           child           same hash: nothing; grown: wanted; else
//!                                 contradiction
//! ```

use std::cmp::Ordering;
use std::error::Error;

use super::{DiffError, wrong_sums};
use crate::directory::{Node, Opening, Prefix, SLOTS, Slot, Sums};
use crate::hash::Hash;

/// What the own directory holds of a context.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Held {
    /// The commitment to id, size and root.
    pub commitment: Hash,
    /// Its size.
    pub entries: u64,
}

/// A context that is new or has grown.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Changed {
    /// What the signed root says.
    pub opening: Opening,
    /// What the own root says; nothing for a new context.
    pub local: Option<Held>,
}

/// The signed root takes back what an earlier signed root said.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Contradiction {
    /// A context is gone.
    #[error("context at {path} with {} entries vanished", held.entries)]
    Vanished {
        /// Its path hash.
        path: Hash,
        /// What is held of it.
        held: Held,
    },
    /// A context has fewer entries.
    #[error("context {id:?} shrank from {} to {signed} entries", held.entries)]
    Shrunk {
        /// Its id.
        id: String,
        /// What is held of it.
        held: Held,
        /// Entries the signed root says.
        signed: u64,
    },
    /// A context has another root at the same size.
    #[error("context {id:?} has another root at {} entries", held.entries)]
    Rewritten {
        /// Its id.
        id: String,
        /// What is held of it.
        held: Held,
        /// The commitment under the signed root.
        signed: Hash,
    },
    /// Below a prefix are fewer contexts or entries than held, or more new
    /// contexts than new entries: some context vanished or shrank.
    #[error("under {prefix} are {signed}, held are {held}")]
    Fewer {
        /// Where.
        prefix: Prefix,
        /// What is held.
        held: Sums,
        /// What the signed root says.
        signed: Sums,
    },
    /// Below a prefix nothing was added, and something is another.
    #[error("under {prefix} is another node for the same {sums}")]
    OtherNode {
        /// Where.
        prefix: Prefix,
        /// What both sides count.
        sums: Sums,
    },
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Want {
    pub(super) prefix: Prefix,
    pub(super) stated: Sums,
    /// What the own side has at this place.
    pub(super) local: Slot,
    pub(super) asked: bool,
}

/// What one slot leads to.
pub(super) enum Outcome {
    Nothing,
    Changed(Option<Held>),
    Wanted(Hash, Want),
}

pub(super) type Steps = (Vec<Changed>, Vec<(Hash, Want)>);

/// Compares a proven node, whose openings are checked, with the own slots.
pub(super) fn compare_all<E: Error>(
    prefix: &Prefix,
    node: &Node,
    local: &[Slot; SLOTS],
    openings: Vec<Opening>,
) -> Result<Steps, DiffError<E>> {
    let (mut changed, mut wanted) = (Vec::new(), Vec::new());
    let mut openings = openings.into_iter();
    for (i, (signed, own)) in (0u8..).zip(node.slots().iter().zip(local)) {
        let opening = match signed {
            Slot::Entry { .. } => openings.next(),
            _ => None,
        };
        let id = opening.as_ref().map(|opening| opening.id.as_str());
        match compare(prefix.child(i), signed, own, id)? {
            Outcome::Nothing => {}
            Outcome::Changed(local) => {
                changed.extend(opening.map(|opening| Changed { opening, local }));
            }
            Outcome::Wanted(hash, want) => wanted.push((hash, want)),
        }
    }
    Ok((changed, wanted))
}

/// The table at the top of this file.
pub(super) fn compare<E: Error>(
    prefix: Prefix,
    signed: &Slot,
    own: &Slot,
    id: Option<&str>,
) -> Result<Outcome, DiffError<E>> {
    let (stated, held) = (signed.sums(), own.sums());
    match (*signed, *own) {
        (Slot::Empty, Slot::Empty) => Ok(Outcome::Nothing),
        (Slot::Entry { .. }, Slot::Empty) => Ok(Outcome::Changed(None)),
        (
            Slot::Entry {
                path, commitment, ..
            },
            Slot::Entry {
                path: own_path,
                commitment: own_commitment,
                entries,
            },
        ) if path == own_path => {
            let held = Held {
                commitment: own_commitment,
                entries,
            };
            compare_context(commitment, stated.entries, held, id)
        }
        (Slot::Child { hash, .. }, Slot::Child { hash: own, .. }) if hash == own => {
            if stated == held {
                return Ok(Outcome::Nothing);
            }
            Err(wrong_sums(&hash, stated, held))
        }
        (
            Slot::Empty | Slot::Entry { .. },
            Slot::Entry {
                path,
                commitment,
                entries,
            },
        ) => {
            let held = Held {
                commitment,
                entries,
            };
            Err(Contradiction::Vanished { path, held }.into())
        }
        (Slot::Child { hash, .. }, _) if stated.may_extend(held) => {
            if stated == held {
                let sums = stated;
                return Err(Contradiction::OtherNode { prefix, sums }.into());
            }
            let want = Want {
                prefix,
                stated,
                local: *own,
                asked: false,
            };
            Ok(Outcome::Wanted(hash, want))
        }
        (Slot::Child { .. }, _) | (_, Slot::Child { .. }) => Err(Contradiction::Fewer {
            prefix,
            held,
            signed: stated,
        }
        .into()),
    }
}

fn compare_context<E: Error>(
    commitment: Hash,
    entries: u64,
    held: Held,
    id: Option<&str>,
) -> Result<Outcome, DiffError<E>> {
    let id = || id.unwrap_or_default().to_owned();
    match entries.cmp(&held.entries) {
        Ordering::Greater => Ok(Outcome::Changed(Some(held))),
        Ordering::Equal if commitment == held.commitment => Ok(Outcome::Nothing),
        Ordering::Equal => Err(Contradiction::Rewritten {
            id: id(),
            held,
            signed: commitment,
        }
        .into()),
        Ordering::Less => Err(Contradiction::Shrunk {
            id: id(),
            held,
            signed: entries,
        }
        .into()),
    }
}
