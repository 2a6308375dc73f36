//! Layer 2. Proof files: what an auditor can check years later, on a machine
//! without a network, with a public key only (`spec/08-proof.md`).
//!
//! ```text
//!   public key -> head -> directory path -> size and root of a context
//!                                             -> inclusion   -> an entry
//!                                             -> consistency -> an older root
//! ```
//!
//! Owns: an entry under a head (`entry`), one context under two heads
//! (`context`), a whole store under two heads (`store`), and the lines all of
//! them are written in (`text`).
//!
//! Invariants:
//! * parsing and printing are inverse: a file has one spelling;
//! * what a `verify` returns was recomputed from bytes under the key it was
//!   given; nothing else of the file is repeated by it;
//! * no clock, no network, no disk: the same answer on any machine.

mod context;
mod entry;
mod store;
#[cfg(any(test, feature = "fuzzing"))]
#[allow(dead_code, clippy::unwrap_used)] // the fuzz targets need a part of it
pub(crate) mod testing;
#[cfg(test)]
mod tests;
pub(crate) mod text;

pub(crate) use context::KIND as CONTEXT_KIND;
pub use context::{ContextProof, ProvenContext, State};
pub(crate) use entry::KIND as ENTRY_KIND;
pub use entry::{EntryProof, ProvenEntry};
pub(crate) use entry::{check_absent, check_opening};
pub(crate) use store::KIND as STORE_KIND;
pub use store::{ChangedContext, ProvenStore, StoreProof, StoreProofError, prove as prove_store};

use std::fmt;

use crate::directory::{DirectoryError, Sums};
use crate::encoding::DecodeError;
use crate::hash::Hash;
use crate::head::{Contradiction, HeadError, HeadOrder, SignedHead, descent};
use crate::shown::Escaped;
use crate::tree::ProofError as TreeError;

/// Why a proof does not hold. Whoever made the file is at fault, or whoever
/// handed it on; the reader and its key are not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// The file is no proof.
    #[error("not a proof file: {0}")]
    Malformed(#[from] DecodeError),
    /// A note in it is not what it has to be.
    #[error("head: {0}")]
    Head(#[from] HeadError),
    /// The directory path does not lead from the head to the context.
    #[error("directory: {0}")]
    Directory(#[from] DirectoryError),
    /// The hashes do not lead to the root.
    #[error("tree: {0}")]
    Tree(#[from] TreeError),
    /// The head states other counts than its directory has.
    #[error("head {order} states {stated}, its directory has {found}")]
    Counts {
        /// The head.
        order: HeadOrder,
        /// What it states.
        stated: Sums,
        /// What the directory has.
        found: Sums,
    },
    /// The entry's header is none, or of another entry.
    #[error("the entry's header: {0}")]
    Header(#[source] DecodeError),
    /// The file states another sequence than the entry's header.
    #[error("the entry's header has sequence {found}, the file states another")]
    Sequence {
        /// The header's.
        found: u64,
    },
    /// The payload is not the one the header names.
    #[error("the payload is not the one whose hash the entry has ({hash})")]
    Payload {
        /// The hash in the header.
        hash: Hash,
    },
    /// The second head does not come after the first.
    #[error("head {later} does not come after head {earlier} in one term")]
    Order {
        /// The head that should be the older.
        earlier: HeadOrder,
        /// The head that should be the newer.
        later: HeadOrder,
    },
    /// By their texts alone the second head does not extend the first.
    #[error("the heads contradict each other: {0}")]
    Contradiction(#[from] Contradiction),
    /// A context of the older head is not in the newer one, or smaller.
    #[error("{what}")]
    NotExtended {
        /// What is missing.
        what: &'static str,
    },
}

impl ProofError {
    /// True if the bytes are no proof file at all, as opposed to one that does
    /// not hold.
    #[must_use]
    pub const fn is_malformed(&self) -> bool {
        matches!(self, Self::Malformed(_))
    }
}

/// Checks a head's counts against those of its directory.
fn check_counts(head: &SignedHead, found: Sums) -> Result<(), ProofError> {
    let text = head.head();
    let stated = Sums {
        contexts: text.contexts,
        entries: text.entries,
    };
    if stated == found {
        return Ok(());
    }
    let order = head.order();
    Err(ProofError::Counts {
        order,
        stated,
        found,
    })
}

/// Two heads of which the second may extend the first, as far as their texts
/// tell.
fn check_order(earlier: &SignedHead, later: &SignedHead) -> Result<(), ProofError> {
    let (before, after) = (earlier.order(), later.order());
    // The same head extends itself.
    if earlier.head() == later.head() {
        return Ok(());
    }
    if before.term == after.term && before < after {
        return Ok(descent(earlier.head(), later.head())?);
    }
    Err(ProofError::Order {
        earlier: before,
        later: after,
    })
}

/// By which key a head counts, if it is not the pinned one: what is said of it.
struct Through<'p> {
    head: &'p SignedHead,
    rotations: usize,
}

impl fmt::Display for Through<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = self.head.key().to_string();
        let key = Escaped(&key);
        match self.rotations {
            0 => Ok(()),
            1 => write!(f, ", signed by {key}, a rotation after the pinned key"),
            n => write!(f, ", signed by {key}, {n} rotations after the pinned key"),
        }
    }
}
