//! The lines of a head's or takeover's text: LF after each, decimal numbers,
//! hashes in base64. Whatever spelling this reader lets pass beside the only
//! one, `same_text` refuses.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::HeadError;
use crate::encoding::{DecodeError, in_range};
use crate::hash::Hash;
use crate::limits::NOTE_TEXT_BYTES_MAX;

/// The lines of a text, read from the front.
pub(super) struct Lines<'a>(std::str::Split<'a, char>);

impl<'a> Lines<'a> {
    pub(super) fn new(text: &'a str) -> Result<Self, HeadError> {
        let max = NOTE_TEXT_BYTES_MAX as u64;
        in_range("text bytes", text.len() as u64, 1, max).map_err(HeadError::Text)?;
        let lines = text
            .strip_suffix('\n')
            .ok_or_else(|| invalid("text does not end in a line feed"))?;
        Ok(Self(lines.split('\n')))
    }

    pub(super) fn last(&mut self) -> Option<&'a str> {
        self.0.next()
    }

    pub(super) fn next(&mut self) -> Result<&'a str, HeadError> {
        self.0
            .next()
            .ok_or_else(|| invalid("text has too few lines"))
    }

    pub(super) fn exactly(&mut self, line: &'static str) -> Result<(), HeadError> {
        if self.next()? == line {
            return Ok(());
        }
        Err(invalid("the first line names another kind of note"))
    }

    pub(super) fn numbers<const N: usize>(&mut self) -> Result<[u64; N], HeadError> {
        let mut words = self.next()?.split(' ');
        let mut out = [0; N];
        for number in &mut out {
            *number = words
                .next()
                .and_then(|word| word.parse().ok())
                .ok_or_else(|| invalid("a number is missing or no u64"))?;
        }
        Ok(out)
    }

    pub(super) fn hash(&mut self) -> Result<Hash, HeadError> {
        STANDARD
            .decode(self.next()?)
            .ok()
            .and_then(|bytes| Hash::from_slice(&bytes))
            .ok_or_else(|| invalid("the directory root is not 32 bytes in base64"))
    }
}

pub(super) fn at_least_one(what: &'static str, got: u64) -> Result<(), HeadError> {
    in_range(what, got, 1, u64::MAX).map_err(HeadError::Text)
}

pub(super) fn same_text(what: &'static str, printed: &str, text: &str) -> Result<(), HeadError> {
    if printed == text {
        return Ok(());
    }
    Err(HeadError::Text(DecodeError::NotCanonical { what }))
}

pub(super) const fn invalid(what: &'static str) -> HeadError {
    HeadError::Text(DecodeError::Invalid { what })
}

pub(super) fn hash_text(hash: &Hash) -> String {
    STANDARD.encode(hash.as_bytes())
}
