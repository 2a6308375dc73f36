//! Why the index cannot answer. Never the log's fault: what the index lacks can
//! be made from the log again.

use std::sync::Arc;

use super::place::Location;
use super::rows::Table;
use crate::encoding::DecodeError;
use crate::run::RunError;
use crate::store::StoreError;

/// What is wrong with the index.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum IndexError {
    /// A row is not what was written.
    #[error("a row of {} is damaged", .table.name())]
    Row { table: Table },
    /// A row is what was written, and cannot be.
    #[error("a row of {}: {error}", .table.name())]
    Decode { table: Table, error: DecodeError },
    /// Rows that verify contradict each other, or the head they lead to.
    #[error("{0}")]
    Stale(&'static str),
    /// A row is not what the log implies.
    #[error("{}, {place}: {what}", .table.name())]
    Differs {
        table: Table,
        place: String,
        what: &'static str,
    },
    /// The database cannot go on.
    #[error("{0}")]
    Database(String),
    /// The disk is full.
    #[error("the disk is full")]
    DiskFull,
    /// It is being made anew.
    #[error("the index is being made anew")]
    Lost,
    /// The log cannot be read as the index has it.
    #[error("{at:?}: {error}")]
    Log {
        at: Location,
        error: Arc<StoreError>,
    },
}

impl From<IndexError> for StoreError {
    fn from(error: IndexError) -> Self {
        match error {
            IndexError::DiskFull => Self::DiskFull,
            error => Self::IndexLost {
                reason: error.to_string(),
            },
        }
    }
}

impl From<redb::StorageError> for IndexError {
    fn from(error: redb::StorageError) -> Self {
        match &error {
            redb::StorageError::Io(io)
                if matches!(
                    io.kind(),
                    std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded
                ) =>
            {
                Self::DiskFull
            }
            _ => Self::Database(error.to_string()),
        }
    }
}

macro_rules! from_redb {
    ($($error:ident),*) => {$(
        impl From<redb::$error> for IndexError {
            fn from(error: redb::$error) -> Self {
                match error {
                    redb::$error::Storage(error) => error.into(),
                    error => Self::Database(error.to_string()),
                }
            }
        }
    )*};
}

from_redb!(TableError, TransactionError, CommitError, DatabaseError);

/// Why a complete, chained record cannot be: this log was not written by this
/// software, or it was changed by someone who holds its keys.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Inconsistency {
    /// A body that cannot be decoded.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// A run that does not continue its context.
    #[error(transparent)]
    Run(#[from] RunError),
    /// A rule of the log that ties records together.
    #[error("{0}")]
    Rule(&'static str),
    /// A head whose signature, order or directory root is wrong.
    #[error("head: {0}")]
    Head(String),
}

/// Why a record could not be taken over.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum ApplyError {
    /// The log contradicts itself.
    #[error(transparent)]
    Log(#[from] Inconsistency),
    /// The index below cannot be read.
    #[error(transparent)]
    Index(#[from] IndexError),
}

impl From<DecodeError> for ApplyError {
    fn from(error: DecodeError) -> Self {
        Self::Log(error.into())
    }
}

impl From<RunError> for ApplyError {
    fn from(error: RunError) -> Self {
        Self::Log(error.into())
    }
}

impl ApplyError {
    /// A rule of the log that was broken.
    pub(crate) fn rule(what: &'static str) -> Self {
        Self::Log(Inconsistency::Rule(what))
    }
}
