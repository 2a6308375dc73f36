//! Layer 3. Why an archive was refused: where, and what is wrong there.
//!
//! Who is at fault: nothing but [`Fault::Io`] is the reader's machine. A section
//! whose hash is right and whose meaning is unknown was made by a newer version
//! ([`ReadError::is_newer`]); one whose hash is wrong was changed since. All
//! others were made wrongly, or on purpose.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use crate::encoding::DecodeError;
use crate::hash::Hash;
use crate::run::RunError;

/// Why an archive was refused. Nothing behind `at` was looked at.
#[derive(Clone, Debug, thiserror::Error)]
#[error("bytes {}..{}: {fault}", at.start, at.end)]
pub struct ReadError {
    /// The bytes that the first fault was found in.
    pub at: Range<u64>,
    /// What is wrong with them.
    #[source]
    pub fault: Fault,
}

impl ReadError {
    pub(super) fn new(at: Range<u64>, fault: impl Into<Fault>) -> Self {
        Self {
            at,
            fault: fault.into(),
        }
    }

    /// True if reading failed, not the archive.
    #[must_use]
    pub const fn is_io(&self) -> bool {
        matches!(self.fault, Fault::Io(_))
    }

    /// True if the archive may be good, and a newer version could say so.
    #[must_use]
    pub const fn is_newer(&self) -> bool {
        matches!(
            self.fault,
            Fault::Version { .. }
                | Fault::SectionVersion { .. }
                | Fault::Kind { .. }
                | Fault::Flags { .. }
                | Fault::Compressed
                | Fault::Signed { .. }
        )
    }

    /// True if there is nothing more to be read, whatever else is wrong.
    pub(super) const fn ends_reading(&self) -> bool {
        matches!(self.fault, Fault::Io(_) | Fault::Truncated)
    }
}

/// What is wrong with an archive.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// Reading failed.
    #[error("reading failed: {0}")]
    Io(#[source] Arc<io::Error>),
    /// The first line is not that of an archive.
    #[error("not an archive")]
    NotAnArchive,
    /// An archive of a version this build does not know.
    #[error("an archive of version {found}, this build reads version 1")]
    Version {
        /// The version found.
        found: u64,
    },
    /// One of the lines in front is not what it must be.
    #[error("first lines: {0}")]
    Header(#[source] DecodeError),
    /// A section of a version this build does not know.
    #[error("a section of version {found}, this build reads version 1")]
    SectionVersion {
        /// The version found.
        found: u8,
    },
    /// A section of a kind this build does not know.
    #[error("a section of unknown kind {found}")]
    Kind {
        /// The kind found.
        found: u8,
    },
    /// A section with flags this build does not know.
    #[error("a section with unknown flags {found:#06x}")]
    Flags {
        /// All flags of the section.
        found: u16,
    },
    /// A compressed section: reserved.
    #[error("a compressed section, which this build does not read")]
    Compressed,
    /// The notes or the path that would prove the root signed: reserved.
    #[error("a section of kind {kind}: signed archives are not read by this build")]
    Signed {
        /// 1 for notes, 2 for a directory path.
        kind: u8,
    },
    /// Reserved bytes of a section are not zero.
    #[error("reserved bytes of a section are not zero")]
    Reserved,
    /// A section is longer than its kind may be.
    #[error("a section of kind {kind} with {found} bytes, at most {max} are allowed")]
    TooLong {
        /// The section's kind.
        kind: u8,
        /// Its length as stated.
        found: u64,
        /// The longest allowed.
        max: u64,
    },
    /// A section's bytes are not those its hash was made of.
    #[error("a section was changed: its hash does not match")]
    SectionHash,
    /// A section of this kind cannot stand here.
    #[error("a section of kind {kind} out of order")]
    Order {
        /// The section's kind.
        kind: u8,
    },
    /// A section's body is not a list of what its kind holds.
    #[error("a section's body: {0}")]
    Section(#[source] DecodeError),
    /// What a section begins with belongs into the one before.
    #[error("a section begins with what the one before had room for")]
    Underfull,
    /// A run is wrong, or does not continue those before.
    #[error("run: {0}")]
    Run(#[from] RunError),
    /// A payload is not where it must be.
    #[error("payload {hash} is missing")]
    MissingPayload {
        /// The payload's hash.
        hash: Hash,
    },
    /// A payload that no entry of the section of runs before has, or that was
    /// there already.
    #[error("payload {hash} is surplus")]
    SurplusPayload {
        /// The payload's hash.
        hash: Hash,
    },
    /// A payload has another length than its entry says.
    #[error("payload {hash} has {found} bytes, its entry says {expected}")]
    PayloadLength {
        /// The payload's hash.
        hash: Hash,
        /// Bytes as its entry says.
        expected: u32,
        /// Bytes as stated in front of it.
        found: u32,
    },
    /// A payload is not what its hash was made of.
    #[error("payload {hash} does not match its hash")]
    Payload {
        /// The hash it should have.
        hash: Hash,
    },
    /// The number of entries is not the one in the first lines.
    #[error("{found} entries or more, the first lines say {stated}")]
    Size {
        /// Entries as stated.
        stated: u64,
        /// Entries found so far.
        found: u64,
    },
    /// The entries fold into another root than the one in the first lines.
    #[error("the entries have the root {found}, the first lines say {stated}")]
    Root {
        /// The root as stated.
        stated: Hash,
        /// The root of the entries.
        found: Hash,
    },
    /// The end does not describe what is before it.
    #[error("the end does not match: {0:?}")]
    End(EndField),
    /// There are bytes after the end.
    #[error("bytes after the end")]
    TrailingBytes,
    /// The archive stops before its end.
    #[error("cut off")]
    Truncated,
    /// The archive is not the one that was verified.
    #[error("changed since it was verified")]
    Changed,
}

/// A field of the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndField {
    /// The number of entries.
    Entries,
    /// The number of sections before the end.
    Sections,
    /// The hash of all bytes before the end: the first lines were changed, or
    /// the end belongs to another archive.
    Hash,
}
