//! What a command ends with when it does not succeed: an exit status, a
//! message, and what to do next. The tables from the library's errors to exit
//! statuses are here and nowhere else.

use std::fmt;
use std::io::{self, Write as _};
use std::process::ExitCode;

use super::output::escape;
use crate::archive::{ReadError, WriteError};
use crate::client::{ClientError, Code};
use crate::node::archives::{self, SnapshotError};
use crate::node::{CatchUpError, EndpointError};
use crate::store::{self, AppendError, StoreError, keys};
use crate::sync::{LocalFault, PeerFault, SyncError};

/// Bytes do not verify, or statements contradict each other.
pub(super) const VERIFICATION: u8 = 1;
/// The arguments or the input are wrong.
pub(super) const USAGE: u8 = 2;
/// The command could not do its work.
pub(super) const COULD_NOT: u8 = 3;
/// The store is frozen: it must not sign.
const FROZEN: u8 = 4;

/// Why a command ended early.
#[derive(Debug)]
pub(super) struct CliError {
    status: u8,
    /// Empty: nothing is reported (the reader of stdout went away).
    message: String,
    hint: Option<String>,
}

impl CliError {
    /// Verification failed.
    pub(super) fn verification(message: impl fmt::Display) -> Self {
        Self::new(VERIFICATION, message)
    }

    /// The arguments or the input are wrong.
    pub(super) fn usage(message: impl fmt::Display) -> Self {
        Self::new(USAGE, message)
    }

    /// The command could not do its work.
    pub(super) fn could_not(message: impl fmt::Display) -> Self {
        Self::new(COULD_NOT, message)
    }

    fn new(status: u8, message: impl fmt::Display) -> Self {
        Self {
            status,
            message: message.to_string(),
            hint: None,
        }
    }

    /// Says what to do next.
    pub(super) fn hint(mut self, hint: impl fmt::Display) -> Self {
        self.hint = Some(hint.to_string());
        self
    }

    /// Puts more in front of the message and keeps the rest.
    pub(super) fn context(mut self, before: impl fmt::Display) -> Self {
        // Nothing is not made something.
        if !self.message.is_empty() {
            self.message = format!("{before}: {}", self.message);
        }
        self
    }

    /// Ends the command without a word and with status `status`: everything
    /// that is to be said has been printed.
    pub(super) const fn quiet(status: u8) -> Self {
        Self {
            status,
            message: String::new(),
            hint: None,
        }
    }

    /// True if verification failed.
    pub(super) const fn is_verification(&self) -> bool {
        self.status == VERIFICATION
    }

    /// What is reported, if anything is.
    pub(super) fn message(&self) -> Option<&str> {
        Some(self.message.as_str()).filter(|message| !message.is_empty())
    }

    /// A write to stdout failed.
    pub(super) fn stdout(error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::quiet(0);
        }
        Self::could_not(format_args!("could not write to stdout: {error}"))
    }

    /// An archive could not be written to where it was to go: a file, or stdout.
    pub(super) fn unwritten(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::stdout(error),
            _ => Self::could_not(format_args!("could not write the archive: {error}")),
        }
    }

    /// Writes the message to stderr.
    pub(super) fn report(&self) -> ExitCode {
        if !self.message.is_empty() {
            // Names in it may come from a peer or a file. Without a stderr
            // there is nobody to tell.
            let mut stderr = io::stderr().lock();
            let _ = writeln!(stderr, "error: {}", escape(&self.message));
            if let Some(hint) = &self.hint {
                let _ = writeln!(stderr, "  {}", escape(hint));
            }
        }
        ExitCode::from(self.status)
    }
}

impl From<StoreError> for CliError {
    fn from(error: StoreError) -> Self {
        if matches!(error, StoreError::Frozen(_)) {
            return Self::new(FROZEN, &error).hint(
                "Nothing was signed or stored. If this directory is an old copy, put log/ and \
                 head.note of the newest one in the place of these, remove index.redb, which \
                 belongs to the old log, and run the command again. If the same key signs elsewhere, stop one of the two for ever. What is here can still \
                 be read; mirrors have the rest: `snapshot` takes contexts out of one, `load` \
                 puts them into a store with a new key.",
            );
        }
        if error.is_verification_failure() {
            return Self::verification(&error).hint(
                "Nothing was changed. Run `audit` for the first bad entry; \
                 restore the directory from a mirror or a copy.",
            );
        }
        let hint = match &error {
            StoreError::Locked => {
                "If a `serve --grpc` has it open, give its URL with --server instead of --data. \
                 Otherwise stop the process that has it open (`serve`, `append`), or wait for it."
            }
            StoreError::NotAStore => "Make one with `init`, or check --data.",
            StoreError::AlreadyAStore => "Use it as it is, or give another directory with --data.",
            StoreError::WrongStore { .. } => "Give another directory with --data.",
            StoreError::WrongKey { .. } => "Put back the origin.key this store was made with.",
            StoreError::DiskFull => "Free some space and run the command again.",
            StoreError::Behind => {
                "What was acknowledged before is safe. Run the command again; if it happens \
                 again, the disk is too slow or too full for the index."
            }
            StoreError::IndexLost { .. } => {
                "The log is none the worse for it. Make the index anew with `rebuild-index`."
            }
            StoreError::NotClosed => {
                "Run a command that writes, for example `append` (of a mirror: `mirror`)."
            }
            StoreError::Failed { .. } => {
                "What was acknowledged before is safe. Check the disk, then run the command again."
            }
            StoreError::Io { what, error: io } => match key_file_hint(what, io.kind()) {
                Some(hint) => hint,
                None => return Self::could_not(error),
            },
            _ => return Self::could_not(error),
        };
        Self::could_not(&error).hint(hint)
    }
}

/// What a key file that is missing or cannot be read means, and what to do.
fn key_file_hint(what: &str, kind: io::ErrorKind) -> Option<&'static str> {
    match (what, kind) {
        (keys::READ_ORIGIN_KEY, io::ErrorKind::NotFound | io::ErrorKind::InvalidData) => Some(
            "It signs this ledger's heads: without it nothing can be appended. Put back your \
             offline copy, with mode 600. What is here can still be read; if there is no copy, \
             `snapshot` takes contexts out and `load` puts them into a store with a new key.",
        ),
        (keys::READ_NEXT_ORIGIN_KEY, io::ErrorKind::InvalidData) => Some(
            "It is the key of a rotation that was not finished. If origin.key holds the key that \
             counts (`keys` prints it), remove it and rotate again; if not, put back a copy.",
        ),
        (keys::READ_NODE_KEY, io::ErrorKind::NotFound | io::ErrorKind::InvalidData) => Some(
            "It names this node to its peers. Put back a copy, with mode 600. If there is none, \
             move a damaged one away: `mirror` and `audit --from` make a new one, and whoever \
             allowed the old one, or pulls from this node, must be given the new one (`keys`).",
        ),
        _ => None,
    }
}

impl From<AppendError> for CliError {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::Store(error) => error.into(),
            AppendError::Mirror { .. } => {
                Self::could_not(error).hint("Append to the origin's own store.")
            }
            AppendError::ContextFull => Self::could_not(error).hint("Use another context."),
            AppendError::Entry(_)
            | AppendError::Lamport(_)
            | AppendError::RequestIdReused { .. }
            | AppendError::TooLarge { .. } => Self::usage(error),
        }
    }
}

impl From<ClientError> for CliError {
    fn from(error: ClientError) -> Self {
        match &error {
            ClientError::Options { .. } => Self::usage(&error).context("--server"),
            ClientError::Connect { .. } => Self::could_not(&error)
                .hint("Is `serve --grpc` running there, and is the URL given with --server its?"),
            ClientError::Status { code, .. } => Self::of_status(*code, &error),
            _ if error.is_verification_failure() => Self::verification(&error)
                .hint("Nothing of it was printed. Run `audit` where the store is."),
            _ => Self::could_not(error),
        }
    }
}

impl CliError {
    /// What a server refused.
    fn of_status(code: Code, error: &ClientError) -> Self {
        let hint = match code {
            Code::DataLoss => {
                return Self::verification(error).hint("Run `audit` where the store is.");
            }
            Code::InvalidArgument | Code::AlreadyExists => return Self::usage(error),
            Code::NotFound => "`contexts` lists them.",
            Code::Unauthenticated => {
                "Give a file with a token that this server knows: --token-file."
            }
            Code::PermissionDenied => "Give a file with a token that may write: --token-file.",
            Code::Unimplemented => "This server is another one, or of another version.",
            _ => return Self::could_not(error),
        };
        Self::could_not(error).hint(hint)
    }
}

impl From<ReadError> for CliError {
    fn from(error: ReadError) -> Self {
        if error.is_io() {
            return Self::could_not(error);
        }
        if error.is_newer() {
            return Self::could_not(error).hint("A newer version of this program may read it.");
        }
        Self::verification(error)
            .hint("Nothing of it was stored. Make the snapshot again, or restore the file.")
    }
}

impl From<SnapshotError> for CliError {
    fn from(error: SnapshotError) -> Self {
        match error {
            SnapshotError::Write(WriteError::Read(error)) => error.into(),
            SnapshotError::Write(WriteError::Out(error)) => Self::unwritten(&error),
            SnapshotError::Write(WriteError::Unsound(_)) => {
                Self::verification(error).hint("Run `audit` for the first bad entry.")
            }
            SnapshotError::TooLarge { .. } => Self::could_not(error),
        }
    }
}

impl From<archives::LoadError> for CliError {
    fn from(error: archives::LoadError) -> Self {
        use archives::LoadError;
        match error {
            LoadError::Archive(error) => error.into(),
            LoadError::Future { .. } => Self::usage(error).hint(
                "A context never goes back in time: what is appended later would get the same \
                 time. Is the clock of this machine right? If so, load it with --allow-future.",
            ),
            LoadError::Exists { .. } => Self::usage(error).hint(
                "Give another name with --context, or leave --fail-if-exists out to complete it.",
            ),
            LoadError::Diverges { .. } => {
                Self::could_not(error).hint("Nothing was stored. Give another name with --context.")
            }
            LoadError::Store(error) => error.into(),
        }
    }
}

impl From<store::LoadError> for CliError {
    fn from(error: store::LoadError) -> Self {
        use store::LoadError;
        match error {
            LoadError::Store(error) => error.into(),
            LoadError::Mirror { .. } => {
                Self::could_not(error).hint("Load it into the origin's own store.")
            }
            LoadError::Unsound(_) => Self::verification(error),
            LoadError::Exists { .. } | LoadError::Grown { .. } => {
                Self::could_not(error).hint("Somebody appends to it: stop that and load again.")
            }
            LoadError::TooLarge { .. } => Self::could_not(error),
        }
    }
}

impl From<EndpointError> for CliError {
    fn from(error: EndpointError) -> Self {
        Self::could_not(error)
    }
}

impl From<CatchUpError> for CliError {
    fn from(error: CatchUpError) -> Self {
        match error {
            CatchUpError::Sync(error) => error.into(),
            _ if error.is_refusal() => Self::could_not(error).hint(
                "Is the source running at --from, is --peer its node key, and is this \
                     node's key (`keys`) on its allowlist?",
            ),
            CatchUpError::Connection(_) => Self::could_not(error)
                .hint("The source ended the connection. What was stored stays; run this again."),
            CatchUpError::TimedOut { .. } => Self::could_not(error).hint(
                "The source or the way to it is too slow. What was stored stays; run this again.",
            ),
            CatchUpError::Reset { .. } => Self::could_not(error)
                .hint("The source failed to answer; its own log says why. Run this again."),
            _ => Self::could_not(error),
        }
    }
}

impl From<SyncError> for CliError {
    fn from(error: SyncError) -> Self {
        match &error {
            SyncError::Peer(fault) if cannot_serve(fault) => {
                Self::could_not(error).hint("Run this again, or pull from another peer.")
            }
            SyncError::Peer(_) => Self::verification(error)
                .hint("Nothing unverified was stored. Pull from another peer of this origin."),
            SyncError::Forked(_) | SyncError::Local(LocalFault::Forked { .. }) => {
                Self::verification(error).hint(
                    "The entries held here stay as they are. The evidence is in the data \
                     directory: it verifies with the origin's public key alone.",
                )
            }
            SyncError::Origin(_) => Self::verification(error).hint(
                "The origin signed what cannot be true. The entries held here stay as they are.",
            ),
            SyncError::Local(LocalFault::Read(inner) | LocalFault::Store(inner)) => {
                match inner.downcast_ref::<StoreError>() {
                    Some(inner) => Self::from(inner.clone()).context("this mirror"),
                    None => Self::could_not(error),
                }
            }
            _ => Self::could_not(error),
        }
    }
}

/// A peer that does not have something has not served anything wrong.
const fn cannot_serve(fault: &PeerFault) -> bool {
    matches!(
        fault,
        PeerFault::Refused { .. } | PeerFault::Missing { .. } | PeerFault::EndedEarly { .. }
    )
}
