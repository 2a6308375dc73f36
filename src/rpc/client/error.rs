//! Why a call did not succeed.

use std::error::Error;
use std::fmt::Write as _;
use std::time::Duration;

use tonic::{Code, Status};

/// How far a chain of causes is followed.
const CAUSES_MAX: usize = 8;

/// Why a call did not succeed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The options cannot be used; nothing was sent.
    #[error("{what}")]
    Options {
        /// What is wrong, and what to give instead.
        what: &'static str,
    },
    /// No connection came about. Nothing was sent.
    #[error("cannot connect: {reason}")]
    Connect {
        /// The causes, outermost first.
        reason: String,
    },
    /// The connection broke before there was an answer: whether an append was
    /// stored is not known.
    #[error("the connection was lost: {reason}")]
    Lost {
        /// The causes, outermost first.
        reason: String,
    },
    /// No answer in time: whether an append was stored is not known.
    #[error("no answer within {after:?}")]
    Timeout {
        /// How long was waited.
        after: Duration,
    },
    /// The server answered with an error.
    #[error("{}: {message}", name(*code))]
    Status {
        /// The kind of error (`spec/proto/context.proto` says what each means).
        code: Code,
        /// The server's words.
        message: String,
    },
    /// What the server sent does not match its hashes, or is not what was asked
    /// for. Nothing of it was handed out.
    #[error("the server's answer does not verify: {what} (sequence {sequence})")]
    Unverified {
        /// The entry's sequence as the server gave it; 0 where there is none.
        sequence: u64,
        /// What does not match.
        what: &'static str,
    },
    /// An entry was left out, sent twice or sent in the wrong order.
    #[error("the server sent sequence {got} where {expected} or a later one had to follow")]
    OutOfOrder {
        /// The least sequence that could follow; without a key, the only one.
        expected: u64,
        /// What came instead.
        got: u64,
    },
}

impl ClientError {
    /// Whether the same call may succeed later. An append without a request id
    /// may have been stored all the same: repeating it can store it twice.
    ///
    /// `RESOURCE_EXHAUSTED` is not among them, since it also says that
    /// something is too large; [`ClientError::is_overload`] is true of it.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::Lost { .. } | Self::Timeout { .. } => true,
            Self::Status { code, .. } => matches!(
                code,
                Code::Unavailable | Code::DeadlineExceeded | Code::Aborted
            ),
            _ => false,
        }
    }

    /// Whether the server refused because of too much: at once, or in one
    /// message. Its words say which.
    #[must_use]
    pub const fn is_overload(&self) -> bool {
        matches!(
            self,
            Self::Status {
                code: Code::ResourceExhausted,
                ..
            }
        )
    }

    /// Whether bytes or statements contradict each other, here or in the store.
    #[must_use]
    pub const fn is_verification_failure(&self) -> bool {
        match self {
            Self::Unverified { .. } | Self::OutOfOrder { .. } => true,
            Self::Status { code, .. } => matches!(code, Code::DataLoss),
            _ => false,
        }
    }

    /// Whether the server may have done what was asked although it did not say
    /// so.
    #[must_use]
    pub const fn is_undecided(&self) -> bool {
        match self {
            Self::Status { code, .. } => matches!(
                code,
                // A server that is going away says this of what it had begun.
                Code::Unavailable
                    | Code::DeadlineExceeded
                    | Code::Cancelled
                    | Code::Unknown
                    | Code::Internal
            ),
            // Of the last two, something was stored, but what?
            Self::Lost { .. }
            | Self::Timeout { .. }
            | Self::Unverified { .. }
            | Self::OutOfOrder { .. } => true,
            Self::Options { .. } | Self::Connect { .. } => false,
        }
    }

    /// What a failed call ended with, `after` being how long it could take.
    pub(super) fn of_call(status: &Status, after: Duration) -> Self {
        match status.source() {
            // The server sent this.
            None if status.code() == Code::DeadlineExceeded => Self::Timeout { after },
            None => Self::Status {
                code: status.code(),
                message: status.message().to_owned(),
            },
            // It was made here, of what happened to the connection.
            Some(source) => {
                if has::<tonic::TimeoutExpired>(source) {
                    return Self::Timeout { after };
                }
                let reason = chain(source);
                if has::<tonic::ConnectError>(source) {
                    return Self::Connect { reason };
                }
                Self::Lost { reason }
            }
        }
    }

    pub(super) fn connect(error: &(dyn Error + 'static)) -> Self {
        Self::Connect {
            reason: chain(error),
        }
    }
}

fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    let below = |error: &&'a (dyn Error + 'static)| -> Option<&'a (dyn Error + 'static)> {
        let error: &'a (dyn Error + 'static) = *error;
        error.source()
    };
    std::iter::successors(Some(error), below).take(CAUSES_MAX)
}

fn has<E: Error + 'static>(error: &(dyn Error + 'static)) -> bool {
    causes(error).any(|cause| cause.downcast_ref::<E>().is_some())
}

/// An error and its causes in one line, each said once.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = String::new();
    for cause in causes(error) {
        let cause = cause.to_string();
        if text.contains(&cause) {
            continue;
        }
        let before = if text.is_empty() { "" } else { ": " };
        // Writing to a String cannot fail.
        let _ = write!(text, "{before}{cause}");
    }
    text
}

/// A code as the API's description spells it.
const fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
