//! Layer 4. What a caller is told when a call fails: one table from the crate's
//! errors to gRPC codes. It names every variant, so that a new one has to be
//! given its place.

use tonic::{Code, Status};

use super::config::GET_REPLY_BYTES_MAX;
use crate::archive::WriteError;
use crate::entry::EntryError;
use crate::lamport::LamportError;
use crate::limits::PAYLOAD_BYTES_MAX;
use crate::node::archives::{LoadError, SnapshotError};
use crate::note::{NoteError, OriginName};
use crate::store::{self, AppendError, StoreError};

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum RpcError {
    /// An append stored nothing.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// A read failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An argument is outside its limits.
    #[error(transparent)]
    Entry(#[from] EntryError),
    /// An archive was not loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The context has no entry.
    #[error("context {id:?} has no entry: check the name, or append to it first")]
    NoContext {
        /// Its name.
        id: String,
    },
    /// No place here is of the origin that was named.
    #[error("nothing of the origin {origin} is served here: ask a server that mirrors it")]
    NoOrigin {
        /// What was named.
        origin: OriginName,
    },
    /// What was named cannot be an origin.
    #[error("origin: {0}")]
    OriginName(NoteError),
    /// Several mirrors have the context.
    #[error(
        "context {id:?} is here of several origins: {origins}; say which one is meant in the          field `origin` of the request (--origin NAME)"
    )]
    Ambiguous {
        /// Its name.
        id: String,
        /// Whose they are.
        origins: String,
    },
    /// No mirror has the context yet, and it may come of any origin.
    #[error(
        "context {id:?} is not here yet and may come of any of these origins: {origins}; say          which one is meant in the field `origin` of the request (--origin NAME)"
    )]
    WhichOrigin {
        /// Its name.
        id: String,
        /// Who may have it.
        origins: String,
    },
    /// A mirror that may have the context too could not be asked.
    #[error("whether the mirror of {origin} has this context is not known: {error}")]
    Unsure {
        /// Whose mirror it is.
        origin: OriginName,
        /// Why.
        error: StoreError,
    },
    /// A mirror that should be here could not be opened.
    #[error("the mirror of {origin} could not be opened when the server started")]
    Missing {
        /// Whose mirror it is.
        origin: OriginName,
    },
    /// There is no own store to write to.
    #[error("this server mirrors {origins} and takes no entries of its own")]
    MirrorsOnly {
        /// Whose history it holds.
        origins: String,
    },
    /// A payload is larger than an entry's may be.
    #[error(
        "a payload of {bytes} bytes is too large: at most {PAYLOAD_BYTES_MAX} bytes are allowed; \
         split it, or store it elsewhere and append its hash"
    )]
    PayloadTooLarge {
        /// Bytes in it.
        bytes: usize,
    },
    /// An archive was not made.
    #[error(transparent)]
    Archive(WriteError<StoreError>),
    /// The archive of a context does not fit one message.
    #[error(
        "the snapshot of this context is larger than the {limit} bytes that one message may \
         hold: read the entries with Get, at most {GET_REPLY_BYTES_MAX} bytes a page, or run \
         `converge-ledger snapshot --data DIR` where the store is"
    )]
    SnapshotTooLarge {
        /// Bytes of an archive in one message.
        limit: usize,
    },
    /// The writer ended without an answer.
    #[error(
        "the server ended before it could answer: whether the entry was stored is unknown; \
         append it again with the same request_id, which is safe"
    )]
    Unanswered,
    /// Something that only a mistake in the server can cause.
    #[error("the server made a mistake: {0}; please report it")]
    Mistake(&'static str),
}

/// The answer to a failed call.
#[must_use]
pub fn status(error: &RpcError) -> Status {
    let (code, hint) = match error {
        RpcError::Append(error) => of_append(error),
        RpcError::Store(error) => of_store(error),
        RpcError::Entry(error) => of_entry(error),
        RpcError::Load(error) => of_load(error),
        RpcError::Archive(error) => of_archive(error),
        RpcError::NoContext { .. } | RpcError::NoOrigin { .. } => (Code::NotFound, ""),
        RpcError::OriginName(_) => (Code::InvalidArgument, "; correct it, or leave it out"),
        RpcError::Ambiguous { .. } | RpcError::WhichOrigin { .. } => (Code::FailedPrecondition, ""),
        // It is known of the origin that is named.
        RpcError::Unsure { error, .. } => (of_store(error).0, "; name the origin that is meant"),
        RpcError::Missing { .. } => (
            Code::Unavailable,
            "; name the origin that is meant, if it is another",
        ),
        RpcError::MirrorsOnly { .. } => (Code::FailedPrecondition, WRONG_SERVER),
        RpcError::PayloadTooLarge { .. } | RpcError::SnapshotTooLarge { .. } => {
            (Code::ResourceExhausted, "")
        }
        RpcError::Unanswered => (Code::Unavailable, ""),
        RpcError::Mistake(_) => (Code::Internal, ""),
    };
    Status::new(code, format!("{error}{hint}"))
}

impl From<SnapshotError> for RpcError {
    fn from(error: SnapshotError) -> Self {
        match error {
            SnapshotError::TooLarge { bytes_max: limit } => Self::SnapshotTooLarge { limit },
            SnapshotError::Write(error) => Self::Archive(error),
        }
    }
}

impl From<RpcError> for Status {
    fn from(error: RpcError) -> Self {
        status(&error)
    }
}

type Answer = (Code, &'static str);

const OPERATOR: &str = "; the operator of this server has to look into it";
const DAMAGED: &str =
    "; the operator of this server has to run `audit` and restore the store from a mirror";
const WRONG_SERVER: &str = "; write to the server that owns the store";

const fn of_append(error: &AppendError) -> Answer {
    match error {
        AppendError::Entry(error) => of_entry(error),
        AppendError::Lamport(error) => of_lamport(error),
        AppendError::RequestIdReused { .. } => (
            Code::AlreadyExists,
            "; give each entry a request id of its own",
        ),
        AppendError::TooLarge { .. } => (Code::ResourceExhausted, "; send less at a time"),
        AppendError::ContextFull => (Code::FailedPrecondition, "; begin another context"),
        AppendError::Mirror { .. } => (Code::FailedPrecondition, WRONG_SERVER),
        AppendError::Store(error) => of_store(error),
    }
}

const fn of_entry(error: &EntryError) -> Answer {
    match error {
        EntryError::OutOfRange { .. }
        | EntryError::ControlCharacter
        | EntryError::DuplicateMetadataKey { .. } => {
            (Code::InvalidArgument, "; nothing was stored: correct it")
        }
    }
}

const fn of_lamport(error: &LamportError) -> Answer {
    match error {
        LamportError::Leap { .. } => (
            Code::InvalidArgument,
            "; nothing was stored: observe times of this ledger only",
        ),
        LamportError::Exhausted { .. } => (
            Code::InvalidArgument,
            "; nothing was stored: observe a lower time, or begin another context",
        ),
    }
}

const fn of_load(error: &LoadError) -> Answer {
    match error {
        LoadError::Archive(error) if error.is_io() => (Code::Internal, OPERATOR),
        LoadError::Archive(error) if error.is_newer() => (
            Code::InvalidArgument,
            "; a newer version of this server may be able to load it",
        ),
        LoadError::Archive(_) => (
            Code::InvalidArgument,
            "; nothing of it was stored: get the snapshot again",
        ),
        LoadError::Future { .. } => (
            Code::InvalidArgument,
            "; check the clocks, or load it with the command line",
        ),
        LoadError::Exists { .. } => (
            Code::AlreadyExists,
            "; load it without fail_if_exists to complete it, or under another name",
        ),
        LoadError::Diverges { .. } => (Code::FailedPrecondition, "; load it under another name"),
        LoadError::Store(error) => of_load_part(error),
    }
}

const fn of_load_part(error: &store::LoadError) -> Answer {
    match error {
        store::LoadError::Mirror { .. } => (Code::FailedPrecondition, WRONG_SERVER),
        store::LoadError::Exists { .. } => (
            Code::AlreadyExists,
            "; nothing of the snapshot shows: load it again to complete it",
        ),
        store::LoadError::Grown { .. } => (
            Code::FailedPrecondition,
            "; someone appends to it: stop that and load again",
        ),
        store::LoadError::Unsound(_) => (Code::InvalidArgument, "; get the snapshot again"),
        store::LoadError::TooLarge { .. } => {
            (Code::ResourceExhausted, "; load it with the command line")
        }
        store::LoadError::Store(error) => of_store(error),
    }
}

const fn of_archive(error: &WriteError<StoreError>) -> Answer {
    match error {
        WriteError::Read(error) => of_store(error),
        WriteError::Out(_) => (Code::Internal, OPERATOR),
        WriteError::Unsound(_) => (Code::DataLoss, DAMAGED),
    }
}

const fn of_store(error: &StoreError) -> Answer {
    match error {
        StoreError::Damaged(_)
        | StoreError::Corrupt { .. }
        | StoreError::Inconsistent { .. }
        | StoreError::PayloadMismatch { .. } => (Code::DataLoss, DAMAGED),
        StoreError::DiskFull | StoreError::Busy => (Code::ResourceExhausted, ""),
        StoreError::Behind => (Code::Unavailable, ""),
        StoreError::Failed { .. } => (
            Code::Unavailable,
            "; what was acknowledged before is safe: try again when the server has been restarted",
        ),
        StoreError::Closed => (
            Code::Unavailable,
            "; the server is shutting down: try again",
        ),
        StoreError::IndexLost { .. } => (
            Code::Unavailable,
            "; nothing is lost: try again when the server has been restarted",
        ),
        StoreError::Frozen(_) => (Code::FailedPrecondition, OPERATOR),
        StoreError::Refused(_) | StoreError::Run(_) => (
            Code::FailedPrecondition,
            "; it does not continue what is stored",
        ),
        StoreError::Io { .. }
        | StoreError::Locked
        | StoreError::NotAStore
        | StoreError::AlreadyAStore
        | StoreError::WrongStore { .. }
        | StoreError::WrongKey { .. }
        | StoreError::StateGone { .. }
        | StoreError::NotClosed => (Code::Internal, OPERATOR),
    }
}

#[cfg(test)]
mod tests;
