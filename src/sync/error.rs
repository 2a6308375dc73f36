//! Layer 3. What can go wrong in a sync, split by whose fault it is. In every
//! case nothing unverified has been stored; what was verified and stored
//! before stays, and the next sync goes on from it.

use crate::directory::{DirectoryError, diff};
use crate::encoding::DecodeError;
use crate::hash::Hash;
use crate::head::{Contradiction, HeadError, HeadOrder};
use crate::run::RunError;

use super::message::Refusal;

/// An error of the local ledger, whatever it is.
pub type BoxError = Box<dyn std::error::Error + Send + Sync + 'static>;

/// Why a sync ended without a complete head.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// The peer misbehaved or cannot serve: drop it and try another.
    #[error("peer: {0}")]
    Peer(Box<PeerFault>),
    /// The origin signed what cannot be: stop syncing it.
    #[error("origin: {0}")]
    Origin(Box<OriginFault>),
    /// This side failed or refused; the peer is not to blame.
    #[error("local: {0}")]
    Local(#[from] LocalFault),
    /// The sync was ended from outside.
    #[error("closed")]
    Closed,
}

impl From<PeerFault> for SyncError {
    fn from(fault: PeerFault) -> Self {
        Self::Peer(Box::new(fault))
    }
}

impl From<OriginFault> for SyncError {
    fn from(fault: OriginFault) -> Self {
        Self::Origin(Box::new(fault))
    }
}

/// What a peer did wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerFault {
    /// A frame that is no reply, or a reply with parts out of bounds.
    #[error("malformed frame: {0}")]
    Malformed(#[from] DecodeError),
    /// A frame for a request that was not made or has been answered.
    #[error("frame for request {request}, which is not open")]
    UnknownRequest {
        /// The request.
        request: u64,
    },
    /// A reply to something else than was asked.
    #[error("the reply does not answer the request: {what}")]
    WrongReply {
        /// What does not fit.
        what: &'static str,
    },
    /// More frames than the answer has.
    #[error("surplus frames after {what}")]
    Surplus {
        /// The answer.
        what: &'static str,
    },
    /// The stream ended before the answer did.
    #[error("the stream ended before {what}")]
    EndedEarly {
        /// What was still to come.
        what: &'static str,
    },
    /// The peer does not serve what its own head names.
    #[error("refused: {refusal:?}")]
    Refused {
        /// The reason it gave.
        refusal: Refusal,
    },
    /// The peer does not have a node or payload its own head implies.
    #[error("{what} {hash} is not served")]
    Missing {
        /// What it is.
        what: &'static str,
        /// Its hash.
        hash: Hash,
    },
    /// The head or a note before it is not the origin's.
    #[error("head: {0}")]
    Head(#[from] HeadError),
    /// A directory node is not what its hash or its parent says.
    #[error("directory: {0}")]
    Directory(DirectoryError),
    /// A span of a context that is not under the signed root.
    #[error("context {context}: {error}")]
    Span {
        /// The context.
        context: String,
        /// Why it was refused.
        error: RunError,
    },
    /// A span does not fold and the peer has no proof that explains it: either
    /// it changed the runs, or it hides that the origin changed history.
    #[error("disputed: context {context}: {error}")]
    Disputed {
        /// The context.
        context: String,
        /// Why the span was refused.
        error: RunError,
    },
    /// An entry that is not under its context's root.
    #[error("entry {sequence} of context {context} is not under its root")]
    Inclusion {
        /// The context.
        context: String,
        /// The entry.
        sequence: u64,
    },
    /// A payload that is not the one asked for.
    #[error("payload {hash} has other bytes")]
    Payload {
        /// The hash asked for.
        hash: Hash,
    },
}

/// What an origin signed and cannot be true, or is not valid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OriginFault {
    /// Two heads no honest origin signs both.
    #[error("{0}")]
    Heads(#[from] Contradiction),
    /// A context shrank or vanished between two heads.
    #[error("context {context} has {size} entries at {order}, {held} were proven before")]
    Shrunk {
        /// The context.
        context: String,
        /// Entries proven under an earlier head.
        held: u64,
        /// Entries in the later head, 0 if it is gone.
        size: u64,
        /// The later head.
        order: HeadOrder,
    },
    /// A context has another root at a size that was proven before.
    #[error("context {context} has root {other} at size {size}, {held} was proven before")]
    OtherRoot {
        /// The context.
        context: String,
        /// The size.
        size: u64,
        /// The root proven under an earlier head.
        held: Hash,
        /// The root under the later head.
        other: Hash,
        /// The later head.
        order: HeadOrder,
        /// Proof that the tree of the later head begins with the other root;
        /// empty if the later head names it itself.
        proof: Vec<Hash>,
    },
    /// The directories of two heads contradict each other.
    #[error("{0}")]
    Contexts(#[from] diff::Contradiction),
    /// The directory under the head breaks a rule under its own hash.
    #[error("directory: {0}")]
    Directory(DirectoryError),
    /// Entries under the signed root that break a rule.
    #[error("context {context} holds invalid entries: {error}")]
    InvalidEntries {
        /// The context.
        context: String,
        /// The rule.
        error: RunError,
    },
}

/// What this side could not or would not do.
#[derive(Debug, thiserror::Error)]
pub enum LocalFault {
    /// The local store could not be read.
    #[error("reading the store: {0}")]
    Read(#[source] BoxError),
    /// The local store did not take verified data.
    #[error("storing: {0}")]
    Store(#[source] BoxError),
    /// The origin is larger than it is allowed to be here.
    #[error("{what}: {got}, allowed are {max}")]
    Quota {
        /// What was counted.
        what: &'static str,
        /// The count.
        got: u64,
        /// The limit.
        max: u64,
    },
    /// The head is of a later term; takeovers are not followed yet.
    #[error("the origin is in term {term}: takeovers are not followed yet")]
    TakeoverNotFollowed {
        /// The term.
        term: u64,
    },
    /// The origin changed its key; rotations are not followed yet.
    #[error("the origin changed its key at {order}: rotations are not followed yet")]
    RotationNotFollowed {
        /// The rotation head.
        order: HeadOrder,
    },
    /// A message of our own does not fit its limits.
    #[error("own message: {0}")]
    Message(DecodeError),
}

impl LocalFault {
    pub(super) fn read(error: impl std::error::Error + Send + Sync + 'static) -> SyncError {
        SyncError::Local(Self::Read(Box::new(error)))
    }
}
