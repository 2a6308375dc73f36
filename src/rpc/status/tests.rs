//! Every variant and its code.

use std::io;
use std::sync::Arc;

use super::*;
use crate::archive::{Fault, ReadError, Unsound, WriteError};
use crate::encoding::DecodeError;
use crate::entry::ContextId;
use crate::hash::Hash;
use crate::run::RunError;
use crate::store::{Damage, Inconsistency, Position, StoreRole};

fn io_error() -> Arc<io::Error> {
    Arc::new(io::Error::other("x"))
}

fn decode() -> DecodeError {
    DecodeError::Invalid { what: "x" }
}

fn id() -> ContextId {
    ContextId::new("c").unwrap()
}

#[track_caller]
fn is(error: impl Into<RpcError>, code: Code) {
    let error = error.into();
    let status = status(&error);
    assert_eq!(status.code(), code, "{status:?}");
    // The cause, and what to do.
    assert!(status.message().starts_with(&error.to_string()));
    assert!(status.message().contains([';', ':']), "{status:?}");
}

fn store_errors() -> Vec<(StoreError, Code)> {
    let position = Position::new(1, 64);
    let reason = || "x".to_owned();
    vec![
        (
            StoreError::Io {
                what: "x",
                error: io_error(),
            },
            Code::Internal,
        ),
        (StoreError::Locked, Code::Internal),
        (StoreError::NotAStore, Code::Internal),
        (StoreError::AlreadyAStore, Code::Internal),
        (
            StoreError::WrongStore {
                role: StoreRole::Own,
                origin: reason(),
                wanted: reason(),
            },
            Code::Internal,
        ),
        (
            StoreError::WrongKey {
                expected: reason(),
                got: reason(),
            },
            Code::Internal,
        ),
        (
            StoreError::Damaged(Damage {
                position,
                vouched: position,
                reason: reason(),
            }),
            Code::DataLoss,
        ),
        (
            StoreError::Corrupt {
                position,
                error: decode(),
            },
            Code::DataLoss,
        ),
        (
            StoreError::Inconsistent {
                position,
                error: Inconsistency::Rule("x"),
            },
            Code::DataLoss,
        ),
        (
            StoreError::PayloadMismatch {
                sequence: 1,
                hash: Hash::from_bytes([0; 32]),
            },
            Code::DataLoss,
        ),
        (StoreError::DiskFull, Code::ResourceExhausted),
        (StoreError::Failed { reason: reason() }, Code::Unavailable),
        (StoreError::Closed, Code::Unavailable),
        (StoreError::Busy, Code::ResourceExhausted),
        (StoreError::Behind, Code::Unavailable),
        (
            StoreError::IndexLost { reason: reason() },
            Code::Unavailable,
        ),
        (StoreError::NotClosed, Code::Internal),
        (StoreError::Refused("x"), Code::FailedPrecondition),
        (
            StoreError::Run(RunError::Decode(decode())),
            Code::FailedPrecondition,
        ),
    ]
}

#[test]
fn every_error_of_the_store_has_its_code() {
    for (error, code) in store_errors() {
        is(error.clone(), code);
        is(AppendError::Store(error.clone()), code);
        is(LoadError::Store(error.clone().into()), code);
        is(SnapshotError::from(error), code);
    }
}

#[test]
fn every_refused_argument_has_its_code() {
    let entry_errors = [
        EntryError::OutOfRange {
            what: "x",
            got: 0,
            min: 1,
            max: 2,
        },
        EntryError::ControlCharacter,
        EntryError::DuplicateMetadataKey { key: "k".into() },
    ];
    for error in entry_errors {
        is(error.clone(), Code::InvalidArgument);
        is(AppendError::Entry(error), Code::InvalidArgument);
    }
    for error in [
        LamportError::Leap {
            observed: 2,
            current: 1,
        },
        LamportError::Exhausted { next: 1 },
    ] {
        is(AppendError::Lamport(error), Code::InvalidArgument);
    }
    let request_id = "r".into();
    is(
        AppendError::RequestIdReused { request_id },
        Code::AlreadyExists,
    );
    let (entries, bytes) = (1, 1);
    is(
        AppendError::TooLarge { entries, bytes },
        Code::ResourceExhausted,
    );
    is(AppendError::ContextFull, Code::FailedPrecondition);
    let origin = || "o".to_owned();
    is(
        AppendError::Mirror { origin: origin() },
        Code::FailedPrecondition,
    );
    is(RpcError::NoContext { id: "c".into() }, Code::NotFound);
    is(RpcError::PayloadTooLarge { bytes }, Code::ResourceExhausted);
    let name = || crate::note::OriginName::new("o").unwrap();
    is(RpcError::NoOrigin { origin: name() }, Code::NotFound);
    let wrong = crate::note::OriginName::new("a b").unwrap_err();
    is(RpcError::OriginName(wrong), Code::InvalidArgument);
    let (id, origins) = ("c".to_owned(), "a, b".to_owned());
    is(
        RpcError::Ambiguous {
            id: id.clone(),
            origins: origins.clone(),
        },
        Code::FailedPrecondition,
    );
    is(
        RpcError::WhichOrigin {
            id,
            origins: origins.clone(),
        },
        Code::FailedPrecondition,
    );
    is(RpcError::MirrorsOnly { origins }, Code::FailedPrecondition);
    for (error, code) in store_errors() {
        let origin = name();
        is(RpcError::Unsure { origin, error }, code);
    }
    is(RpcError::Unanswered, Code::Unavailable);
    is(RpcError::Mistake("x"), Code::Internal);
}

#[test]
fn every_refused_archive_has_its_code() {
    let archive = |fault| LoadError::Archive(ReadError { at: 0..0, fault });
    is(archive(Fault::Io(io_error())), Code::Internal);
    is(archive(Fault::NotAnArchive), Code::InvalidArgument);
    is(archive(Fault::Compressed), Code::InvalidArgument);
    let (newest_ns, now_ns) = (2, 1);
    is(
        LoadError::Future { newest_ns, now_ns },
        Code::InvalidArgument,
    );
    is(LoadError::Exists { id: id(), size: 1 }, Code::AlreadyExists);
    is(
        LoadError::Diverges { id: id(), size: 1 },
        Code::FailedPrecondition,
    );
    let parts = [
        (
            store::LoadError::Mirror { origin: "o".into() },
            Code::FailedPrecondition,
        ),
        (store::LoadError::Exists { id: id() }, Code::AlreadyExists),
        (
            store::LoadError::Grown {
                id: id(),
                size: 2,
                expected: 1,
            },
            Code::FailedPrecondition,
        ),
        (
            store::LoadError::Unsound(Inconsistency::Rule("x")),
            Code::InvalidArgument,
        ),
        (
            store::LoadError::TooLarge { bytes: 1 },
            Code::ResourceExhausted,
        ),
    ];
    for (error, code) in parts {
        is(LoadError::Store(error), code);
    }
    is(
        SnapshotError::TooLarge { bytes_max: 1 },
        Code::ResourceExhausted,
    );
    let out = WriteError::Out(io::Error::other("x"));
    is(SnapshotError::Write(out), Code::Internal);
    let (stated, found) = (1, 2);
    let unsound = WriteError::Unsound(Unsound::Size { stated, found });
    is(SnapshotError::Write(unsound), Code::DataLoss);
}
