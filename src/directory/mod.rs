//! Layer 2. The directory: a Merkle sum-trie from context id to (size, root),
//! for all contexts of a store. One hash commits to all of them, and to how
//! many contexts and entries there are below every branch.
//!
//! ```text
//! depth 0            root: 16 slots, one per first nibble of the path hash
//!                    |  .  |  E  |  C  |  .  | ...
//!                             |     \
//!        entry: alone under its    depth 1: 16 slots, by the second nibble
//!        prefix; path, commitment       |  E  |  .  |  C  | ...
//! ```
//!
//! * `node`: the bytes of one node and the rules it can be checked against;
//! * `opening`: what a commitment commits to;
//! * `update`: a batch of changes to new nodes and retired ones;
//! * `path`: proves one context present or absent;
//! * `diff`: a mirror's descent to what changed;
//! * `review`: the same towards an older directory;
//! * `trace`: both paths to one context on which two directories differ;
//! * `seen`: the stored form of a descent's result.
//!
//! The trie lives in no structure of its own: nodes are found by hash through
//! [`ReadDirectory`], be it a map or a table.
//!
//! Invariants:
//! * the shape depends on the set of contexts alone, never on the order in
//!   which they came: an entry is alone under its prefix, a child covers two
//!   contexts or more, a context never disappears;
//! * a node version has one hash and belongs to one prefix;
//! * the empty directory's node is implied: never read, added or retired.

use std::collections::HashMap;
use std::convert::Infallible;
use std::error::Error;

use crate::encoding::DecodeError;
use crate::hash::Hash;

pub mod diff;
pub mod node;
pub mod opening;
pub mod path;
pub mod review;
pub mod seen;
pub mod trace;
pub mod update;

#[cfg(test)]
mod testing;

pub use diff::{Changed, Diff, DiffError, Held};
pub use node::{Node, Prefix, SLOTS, Slot, Sums, empty_root};
pub use opening::{Opening, commitment, path_hash};
pub use path::{Found, Path};
pub use review::{Review, ReviewError};
pub use seen::{OpeningsPart, Seen};
pub use trace::{Aim, Next, Trace, TraceError, Traced};
pub use update::{Change, Update, UpdateError, apply};

/// Finds nodes by hash.
pub trait ReadDirectory {
    /// Why reading failed; nothing about the node.
    type Error: Error + Send + Sync + 'static;

    /// The bytes of the node with this hash, if they are held. They need not
    /// be checked: every reader of this module does.
    fn directory_node(&self, hash: &Hash) -> Result<Option<Vec<u8>>, Self::Error>;
}

impl<R: ReadDirectory + ?Sized> ReadDirectory for &R {
    type Error = R::Error;

    fn directory_node(&self, hash: &Hash) -> Result<Option<Vec<u8>>, Self::Error> {
        (**self).directory_node(hash)
    }
}

/// Nodes in memory.
#[derive(Clone, Debug, Default)]
pub struct MemoryDirectory {
    nodes: HashMap<Hash, Vec<u8>>,
}

impl MemoryDirectory {
    /// Holds nothing: the empty directory.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the nodes of an update; the retired ones stay.
    pub fn add(&mut self, update: &Update) {
        self.nodes.extend(update.added.iter().cloned());
    }

    /// Removes the nodes an update retired.
    pub fn retire(&mut self, update: &Update) {
        for hash in &update.retired {
            self.nodes.remove(hash);
        }
    }

    /// Nodes held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether no node is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }
}

impl ReadDirectory for MemoryDirectory {
    type Error = Infallible;

    fn directory_node(&self, hash: &Hash) -> Result<Option<Vec<u8>>, Infallible> {
        Ok(self.nodes.get(hash).cloned())
    }
}

/// Who is to blame for bytes that were refused under a signed root.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// Whoever presented them: they are not what the root commits to.
    Presenter,
    /// Whoever signed the root: they are, and they break the rules.
    Origin,
}

/// Why nodes or openings were refused under a root.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DirectoryError {
    /// Bytes that are not the node asked for.
    #[error("node {expected}: the bytes hash to {found}")]
    WrongHash {
        /// The hash the parent or root commits to.
        expected: Hash,
        /// The hash of the bytes.
        found: Hash,
    },
    /// A path that goes on after its end, or ends before it.
    #[error("path of {needed} nodes or more, {got} given")]
    PathLength {
        /// Nodes the path is known to need.
        needed: usize,
        /// Nodes given.
        got: usize,
    },
    /// Openings that are not one per entry slot.
    #[error("node {hash} needs {needed} openings, {got} given")]
    OpeningCount {
        /// The node.
        hash: Hash,
        /// Its entry slots.
        needed: usize,
        /// Openings given.
        got: usize,
    },
    /// An opening that is not what the slot commits to.
    #[error("the opening of {path} is not what the directory commits to")]
    WrongOpening {
        /// The slot's path hash.
        path: Hash,
    },
    /// The path proves that the context is absent.
    #[error("the directory has no context at {path}")]
    NotPresent {
        /// The context's path hash.
        path: Hash,
    },
    /// A node under the root breaks a rule of its own.
    #[error("node {hash}: {source}")]
    InvalidNode {
        /// The node.
        hash: Hash,
        /// The rule.
        source: DecodeError,
    },
    /// A node under the root is not at the depth where it was found.
    #[error("node {hash} at depth {expected} says depth {found}")]
    WrongDepth {
        /// The node.
        hash: Hash,
        /// Where it was found.
        expected: u8,
        /// What it says.
        found: u8,
    },
    /// An entry under the root is not below the prefix where it was found.
    #[error("node {hash} under {prefix} holds {path}")]
    WrongPrefix {
        /// The node.
        hash: Hash,
        /// Where it was found.
        prefix: Prefix,
        /// The entry's path hash.
        path: Hash,
    },
    /// A node's sums are not those its parent slot, or the head, states.
    #[error("node {hash} sums to {found}, stated are {stated}")]
    WrongSums {
        /// The node.
        hash: Hash,
        /// What parent slot or head states.
        stated: Sums,
        /// What the node's slots sum to.
        found: Sums,
    },
    /// One node under two slots, which differ in prefix.
    #[error("node {hash} stands under two slots")]
    Repeated {
        /// The node.
        hash: Hash,
    },
    /// More nodes differ than the proven counts allow.
    #[error("more than {max} differing nodes")]
    TooManyNodes {
        /// The bound.
        max: u64,
    },
    /// A commitment is of an opening that breaks a rule.
    #[error("the opening committed at {path}: {source}")]
    InvalidOpening {
        /// The slot's path hash.
        path: Hash,
        /// The rule.
        source: DecodeError,
    },
}

impl DirectoryError {
    /// Who is to blame.
    #[must_use]
    pub const fn fault(&self) -> Fault {
        match self {
            Self::WrongHash { .. }
            | Self::PathLength { .. }
            | Self::OpeningCount { .. }
            | Self::WrongOpening { .. }
            | Self::NotPresent { .. } => Fault::Presenter,
            Self::InvalidNode { .. }
            | Self::WrongDepth { .. }
            | Self::WrongPrefix { .. }
            | Self::WrongSums { .. }
            | Self::Repeated { .. }
            | Self::TooManyNodes { .. }
            | Self::InvalidOpening { .. } => Fault::Origin,
        }
    }
}

/// Why a node of one's own could not be had. Nothing was changed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoadError<E: Error + 'static> {
    /// The store under the directory failed.
    #[error("reading the directory")]
    Read(#[source] E),
    /// A node is not there: the root was never complete here, or retired.
    #[error("node {hash} is missing")]
    Missing {
        /// The node.
        hash: Hash,
    },
    /// A node is not what its hash says: own damage.
    #[error("own directory is damaged")]
    Damaged(#[source] DirectoryError),
}

/// Reads and checks the node that stands under `prefix`; `stated` are the
/// sums of its parent slot.
pub(crate) fn load<R: ReadDirectory>(
    read: &R,
    hash: &Hash,
    prefix: &Prefix,
    stated: Option<Sums>,
) -> Result<Node, LoadError<R::Error>> {
    if prefix.depth() == 0 && *hash == empty_root() {
        return Ok(Node::empty());
    }
    let bytes = read
        .directory_node(hash)
        .map_err(LoadError::Read)?
        .ok_or(LoadError::Missing { hash: *hash })?;
    Node::open(hash, &bytes, prefix, stated).map_err(LoadError::Damaged)
}
