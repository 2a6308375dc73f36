//! Layer 3. The first lines: text, so that `head -4` tells what a file is.
//!
//! ```text
//! converge-ledger/archive/v1
//! context <id>
//! size <decimal>
//! root <base64>
//!
//! ```
//!
//! Invariant: one spelling. What [`Title::encode`] would not write is refused.

use std::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::encoding::{DecodeError, in_range};
use crate::entry::ContextId;
use crate::hash::Hash;
use crate::limits::SEQUENCE_MAX;

/// The first line up to its version.
pub(super) const MAGIC: &str = "converge-ledger/archive/v";
/// The version of the archive.
pub const VERSION: u32 = 1;
/// Digits of a u64.
pub(super) const DIGITS_MAX: usize = 20;

/// What an archive says it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Title {
    pub(super) id: ContextId,
    pub(super) size: u64,
    pub(super) root: Hash,
}

/// Where the lines that can turn out wrong later are.
#[derive(Clone, Debug, Default)]
pub(super) struct TitlePlaces {
    pub(super) size: Range<u64>,
    pub(super) root: Range<u64>,
}

impl Title {
    pub(super) fn encode(&self) -> Vec<u8> {
        let (id, size) = (&self.id, self.size);
        let root = STANDARD.encode(self.root.as_bytes());
        format!("{MAGIC}{VERSION}\ncontext {id}\nsize {size}\nroot {root}\n\n").into_bytes()
    }
}

/// A line without its line feed: what follows `word` and a space.
fn value<'a>(line: &'a [u8], word: &str, what: &'static str) -> Result<&'a [u8], DecodeError> {
    line.strip_prefix(word.as_bytes())
        .and_then(|rest| rest.strip_prefix(b" "))
        .ok_or(DecodeError::Invalid { what })
}

pub(super) fn context(line: &[u8]) -> Result<ContextId, DecodeError> {
    ContextId::decode(value(line, "context", "the second line is no context")?)
}

pub(super) fn size(line: &[u8]) -> Result<u64, DecodeError> {
    let digits = value(line, "size", "the third line is no size")?;
    let size = decimal(digits).ok_or(DecodeError::NotCanonical { what: "size" })?;
    in_range("size", size, 1, SEQUENCE_MAX)?;
    Ok(size)
}

pub(super) fn root(line: &[u8]) -> Result<Hash, DecodeError> {
    let text = value(line, "root", "the fourth line is no root")?;
    STANDARD
        .decode(text)
        .ok()
        .and_then(|bytes| Hash::from_slice(&bytes))
        .filter(|root| STANDARD.encode(root.as_bytes()).as_bytes() == text)
        .ok_or(DecodeError::NotCanonical { what: "root" })
}

/// A number in its only spelling: digits, no zero in front.
pub(super) fn decimal(digits: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(digits).ok()?;
    let number: u64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}
