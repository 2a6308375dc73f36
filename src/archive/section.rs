//! Layer 3. The header in front of every section, and the section's hash.
//!
//! ```text
//!  0 kind   1 version 1   2 flags   4 reserved   8 bytes of the body
//! 16 BLAKE3(bytes 0..16, then the body)
//! ```
//!
//! The length is checked against the bound of the kind before anything of the
//! body is read. Whatever else is wrong is said only once the hash has been
//! found right: a damaged section does not pass for one of a newer version.

use super::fault::Fault;
use crate::hash::{Hash, Stream};
use crate::limits::{
    ARCHIVE_END_BYTES, ARCHIVE_RUNS_BYTES_MAX, ARCHIVE_SECTION_BYTES_MAX,
    ARCHIVE_SECTION_HEADER_BYTES,
};

/// Takeovers, rotations, head: reserved.
pub(super) const NOTES: u8 = 1;
/// Nodes from the directory's root to the context: reserved.
pub(super) const PATH: u8 = 2;
/// Runs.
pub(super) const RUNS: u8 = 3;
/// Payloads of more than 4 KiB.
pub(super) const PAYLOADS: u8 = 4;
/// The end.
pub(super) const END: u8 = 255;

/// The version of a section.
const VERSION: u8 = 1;
/// The body is compressed: reserved.
const COMPRESSED: u16 = 1;
/// The bytes of a header that its hash covers.
const FRONT_BYTES: usize = 16;

/// A section's header as it stands in the archive, meaningful or not.
#[derive(Clone, Copy, Debug)]
pub(super) struct SectionHeader {
    front: [u8; FRONT_BYTES],
    /// What the hash of the section must be.
    pub(super) hash: Hash,
}

impl SectionHeader {
    /// The header of a body.
    pub(super) fn new(kind: u8, body: &[u8]) -> Self {
        let mut front = [0; FRONT_BYTES];
        front[0] = kind;
        front[1] = VERSION;
        front[8..].copy_from_slice(&(body.len() as u64).to_le_bytes());
        let hash = hasher(&front).update(body).finish();
        Self { front, hash }
    }

    pub(super) fn from_bytes(bytes: &[u8; ARCHIVE_SECTION_HEADER_BYTES]) -> Self {
        let (mut front, mut hash) = ([0; FRONT_BYTES], [0; Hash::LEN]);
        front.copy_from_slice(&bytes[..FRONT_BYTES]);
        hash.copy_from_slice(&bytes[FRONT_BYTES..]);
        Self {
            front,
            hash: Hash::from_bytes(hash),
        }
    }

    pub(super) fn to_bytes(self) -> [u8; ARCHIVE_SECTION_HEADER_BYTES] {
        let mut out = [0; ARCHIVE_SECTION_HEADER_BYTES];
        out[..FRONT_BYTES].copy_from_slice(&self.front);
        out[FRONT_BYTES..].copy_from_slice(self.hash.as_bytes());
        out
    }

    pub(super) const fn kind(&self) -> u8 {
        self.front[0]
    }

    /// Bytes in the body, as stated.
    pub(super) fn body_bytes(&self) -> u64 {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&self.front[8..]);
        u64::from_le_bytes(bytes)
    }

    /// The hash to be continued with the body.
    pub(super) fn hasher(&self) -> Stream {
        hasher(&self.front)
    }

    /// Bytes that a body of this kind may have.
    pub(super) const fn body_bytes_max(&self) -> u64 {
        match self.kind() {
            RUNS => ARCHIVE_RUNS_BYTES_MAX as u64,
            END => ARCHIVE_END_BYTES as u64,
            _ => ARCHIVE_SECTION_BYTES_MAX as u64,
        }
    }

    /// True if the body is longer than may be read.
    pub(super) fn is_too_long(&self) -> bool {
        self.body_bytes() > self.body_bytes_max()
    }

    /// What this build cannot read about it, apart from its length.
    pub(super) fn oddity(&self) -> Option<Fault> {
        let flags = u16::from_le_bytes([self.front[2], self.front[3]]);
        if self.front[1] != VERSION {
            let found = self.front[1];
            return Some(Fault::SectionVersion { found });
        }
        match self.kind() {
            RUNS | PAYLOADS | END => (),
            kind @ (NOTES | PATH) => return Some(Fault::Signed { kind }),
            found => return Some(Fault::Kind { found }),
        }
        if flags & !COMPRESSED != 0 {
            return Some(Fault::Flags { found: flags });
        }
        if flags != 0 {
            return Some(Fault::Compressed);
        }
        (self.front[4..8] != [0; 4]).then_some(Fault::Reserved)
    }
}

fn hasher(front: &[u8; FRONT_BYTES]) -> Stream {
    let mut hasher = Stream::content();
    hasher.update(front);
    hasher
}
