//! Layer 3. What can go wrong in a sync, split by whose fault it is. In every
//! case nothing unverified has been stored; what was verified and stored
//! before stays, and the next sync goes on from it.

use crate::directory::DirectoryError;
use crate::encoding::DecodeError;
use crate::evidence::{Evidence, Verdict};
use crate::hash::Hash;
use crate::head::{HeadError, HeadOrder};
use crate::note::VerifierKey;
use crate::run::RunError;

use super::message::Refusal;

/// An error of the local ledger, whatever it is.
pub type BoxError = Box<dyn std::error::Error + Send + Sync + 'static>;

/// Evidence, verified under the pinned key, and what it proves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forked {
    /// The evidence.
    pub evidence: Evidence,
    /// What it proves.
    pub verdict: Verdict,
}

/// Why a sync ended without a complete head.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// The peer misbehaved or cannot serve: drop it and try another.
    #[error("peer: {0}")]
    Peer(Box<PeerFault>),
    /// The origin signed what cannot be: stop syncing it.
    #[error("origin: {0}")]
    Origin(Box<OriginFault>),
    /// The origin signed two histories; the evidence was handed to the store.
    #[error("{}", .0.verdict)]
    Forked(Box<Forked>),
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
    /// Something does not fit what is held, and no proof explains it: either the
    /// peer changed it, or it hides that the origin changed history.
    #[error("disputed: {what}")]
    Disputed {
        /// What does not fit.
        what: String,
    },
    /// A head signed with a key of the origin that had been retired before:
    /// somebody has that key.
    #[error("head {order} is signed by a retired key of the origin")]
    RetiredKey {
        /// The head.
        order: HeadOrder,
    },
    /// A rotation that cannot be followed.
    #[error("rotation at {order}: {what}")]
    Rotation {
        /// The rotation head.
        order: HeadOrder,
        /// Why not.
        what: &'static str,
    },
    /// The peer serves the branch of the origin's history that is not followed.
    #[error("the peer serves the branch that is not followed here")]
    OtherBranch,
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

/// What an origin signed and is not valid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OriginFault {
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
    /// The disk is too full to take any more.
    #[error("{free_bytes} bytes of disk are free, {keep_bytes} are to stay free")]
    Room {
        /// Free bytes of the store's file system.
        free_bytes: u64,
        /// Those that are to stay free.
        keep_bytes: u64,
    },
    /// The head is of a later term; takeovers are not followed yet.
    #[error("the origin is in term {term}: takeovers are not followed yet")]
    TakeoverNotFollowed {
        /// The term.
        term: u64,
    },
    /// The origin signed two histories, and no operator has said yet which of
    /// them is to be followed.
    #[error("forked, and nothing is pulled until `resolve` names the branch: {verdict}")]
    Forked {
        /// BLAKE3 of the evidence file.
        evidence: Hash,
        /// What it proves.
        verdict: String,
    },
    /// The store believes another key than it was to be synced with.
    #[error("this mirror believes the key {pinned}")]
    OtherKey {
        /// The key it was made with.
        pinned: Box<VerifierKey>,
    },
    /// A message of our own does not fit its limits.
    #[error("own message: {0}")]
    Message(DecodeError),
}

impl LocalFault {
    pub(crate) fn read(error: impl std::error::Error + Send + Sync + 'static) -> SyncError {
        SyncError::Local(Self::Read(Box::new(error)))
    }
}
