//! The lines that proof and evidence files are made of (`spec/08-proof.md`).
//!
//! ```text
//! converge-ledger/<kind>/v1      what the file is
//! <name> <value>                 a field, on a line
//! <name> <count>                 a list: so many lines follow
//! ...
//! ```
//!
//! A note is a list of its own lines, so that it can be copied out as it is.
//!
//! Invariants: every line ends in LF; the order of fields is fixed; numbers are
//! decimal without leading zeros, hashes and nodes standard padded base64. The
//! types that read these lines print what they read and compare, so that a
//! file has one spelling.

use std::fmt::Display;
use std::ops::RangeInclusive;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::directory::path::Path;
use crate::encoding::{DecodeError, in_range};
use crate::hash::Hash;
use crate::limits::{
    DIRECTORY_DEPTH_MAX, DIRECTORY_NODE_BYTES_MAX, DIRECTORY_NODE_FIXED_BYTES, NOTE_BYTES_MAX,
};

/// Lines of a note: no line is shorter than its LF.
const NOTE_LINES_MAX: usize = NOTE_BYTES_MAX;

/// Writes fields and lists.
#[derive(Debug)]
pub(crate) struct TextWriter(String);

impl TextWriter {
    /// Begins a file with the line that names its kind.
    pub(crate) fn new(kind: &str) -> Self {
        Self(format!("{kind}\n"))
    }

    pub(crate) fn field(&mut self, name: &str, value: impl Display) {
        use std::fmt::Write as _;
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "{name} {value}");
    }

    pub(crate) fn bytes(&mut self, name: &str, bytes: &[u8]) {
        self.0.push_str(name);
        self.0.push(' ');
        STANDARD.encode_string(bytes, &mut self.0);
        self.0.push('\n');
    }

    /// A list of byte strings, one a line.
    pub(crate) fn list<B: AsRef<[u8]>>(&mut self, name: &str, items: &[B]) {
        self.field(name, items.len());
        for item in items {
            STANDARD.encode_string(item, &mut self.0);
            self.0.push('\n');
        }
    }

    pub(crate) fn hashes(&mut self, name: &str, hashes: &[Hash]) {
        let bytes: Vec<&[u8; 32]> = hashes.iter().map(Hash::as_bytes).collect();
        self.list(name, &bytes);
    }

    /// A note as a list of its lines; it ends in LF. One that is not UTF-8
    /// gives a file that does not parse.
    pub(crate) fn note(&mut self, name: &str, note: &[u8]) {
        let text = String::from_utf8_lossy(note);
        self.field(name, text.matches('\n').count());
        self.0.push_str(&text);
    }

    /// A size and a root.
    pub(crate) fn state(&mut self, name: &str, size: u64, root: &Hash) {
        self.field(name, format_args!("{size} {}", base64_of(root)));
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.0.into_bytes()
    }
}

/// Standard base64 of a hash.
fn base64_of(hash: &Hash) -> String {
    STANDARD.encode(hash.as_bytes())
}

/// Reads fields and lists, in their order.
#[derive(Clone, Debug)]
pub(crate) struct TextReader<'a> {
    rest: &'a str,
}

impl<'a> TextReader<'a> {
    /// Checks length, encoding and the first line.
    pub(crate) fn new(
        kind: &'static str,
        bytes: &'a [u8],
        bytes_max: usize,
    ) -> Result<Self, DecodeError> {
        in_range("bytes of the file", bytes.len() as u64, 1, bytes_max as u64)?;
        let rest =
            std::str::from_utf8(bytes).map_err(|_| invalid("the file is not text (UTF-8)"))?;
        let mut reader = Self { rest };
        if reader.line()? != kind {
            return Err(invalid("the first line names another kind of file"));
        }
        Ok(reader)
    }

    fn line(&mut self) -> Result<&'a str, DecodeError> {
        let (line, rest) = self
            .rest
            .split_once('\n')
            .ok_or_else(|| invalid("the file ends before its last line"))?;
        self.rest = rest;
        Ok(line)
    }

    /// True if the next line is the field `name`.
    pub(crate) fn is_next(&self, name: &str) -> bool {
        let after = self.rest.strip_prefix(name);
        after.is_some_and(|after| after.starts_with(' '))
    }

    /// The value of the next field, which must be `name`.
    pub(crate) fn field(&mut self, name: &'static str) -> Result<&'a str, DecodeError> {
        if !self.is_next(name) {
            return Err(DecodeError::Invalid { what: name });
        }
        let line = self.line()?;
        Ok(line.get(name.len() + 1..).unwrap_or_default())
    }

    pub(crate) fn number(&mut self, name: &'static str) -> Result<u64, DecodeError> {
        let value = self.field(name)?;
        value
            .parse()
            .map_err(|_| DecodeError::Invalid { what: name })
    }

    /// The base64 of at most `bytes_max` bytes.
    pub(crate) fn bytes(
        &mut self,
        name: &'static str,
        bytes_max: usize,
    ) -> Result<Vec<u8>, DecodeError> {
        let value = self.field(name)?;
        decode(name, value, bytes_max)
    }

    pub(crate) fn hash(&mut self, name: &'static str) -> Result<Hash, DecodeError> {
        let bytes = self.bytes(name, Hash::LEN)?;
        Hash::from_slice(&bytes).ok_or(DecodeError::Invalid { what: name })
    }

    /// A list of at most `count_max` byte strings of so many bytes each.
    pub(crate) fn list(
        &mut self,
        name: &'static str,
        count_max: usize,
        bytes: RangeInclusive<usize>,
    ) -> Result<Vec<Vec<u8>>, DecodeError> {
        let (least, most) = (*bytes.start() as u64, *bytes.end());
        let count = self.number(name)?;
        in_range(name, count, 0, count_max as u64)?;
        // Grows with the lines that are there, not with the count.
        let mut items = Vec::new();
        for _ in 0..count {
            let item = decode(name, self.line()?, most)?;
            in_range(name, item.len() as u64, least, most as u64)?;
            items.push(item);
        }
        Ok(items)
    }

    pub(crate) fn hashes(
        &mut self,
        name: &'static str,
        count_max: usize,
    ) -> Result<Vec<Hash>, DecodeError> {
        let items = self.list(name, count_max, Hash::LEN..=Hash::LEN)?;
        let hashes = items.iter().map(|item| Hash::from_slice(item));
        hashes
            .collect::<Option<_>>()
            .ok_or(DecodeError::Invalid { what: name })
    }

    /// The nodes of a path.
    pub(crate) fn path(&mut self, name: &'static str) -> Result<Path, DecodeError> {
        let bytes = DIRECTORY_NODE_FIXED_BYTES..=DIRECTORY_NODE_BYTES_MAX;
        let nodes = self.list(name, DIRECTORY_DEPTH_MAX, bytes)?;
        Ok(Path { nodes })
    }

    pub(crate) fn note(&mut self, name: &'static str) -> Result<Vec<u8>, DecodeError> {
        let lines = self.number(name)?;
        in_range(name, lines, 1, NOTE_LINES_MAX as u64)?;
        let before = self.rest;
        for _ in 0..lines {
            self.line()?;
        }
        let bytes = before.len() - self.rest.len();
        in_range(name, bytes as u64, 1, NOTE_BYTES_MAX as u64)?;
        Ok(before.as_bytes().get(..bytes).unwrap_or_default().to_vec())
    }

    /// Notes under one name, as many as there are, at most `count_max`.
    pub(crate) fn notes(
        &mut self,
        name: &'static str,
        count_max: usize,
    ) -> Result<Vec<Vec<u8>>, DecodeError> {
        let mut notes = Vec::new();
        while self.is_next(name) {
            in_range(name, notes.len() as u64 + 1, 1, count_max as u64)?;
            notes.push(self.note(name)?);
        }
        Ok(notes)
    }

    /// A size and a root.
    pub(crate) fn state(&mut self, name: &'static str) -> Result<(u64, Hash), DecodeError> {
        let value = self.field(name)?;
        let (size, root) = value
            .split_once(' ')
            .ok_or(DecodeError::Invalid { what: name })?;
        let size = size
            .parse()
            .map_err(|_| DecodeError::Invalid { what: name })?;
        let root = decode(name, root, Hash::LEN)?;
        let root = Hash::from_slice(&root).ok_or(DecodeError::Invalid { what: name })?;
        Ok((size, root))
    }

    /// Refuses what is left.
    pub(crate) fn finish(self) -> Result<(), DecodeError> {
        if self.rest.is_empty() {
            return Ok(());
        }
        Err(DecodeError::Trailing {
            what: "the file",
            surplus: self.rest.len(),
        })
    }
}

fn decode(name: &'static str, text: &str, bytes_max: usize) -> Result<Vec<u8>, DecodeError> {
    let encoded_max = bytes_max.div_ceil(3) * 4;
    in_range(name, text.len() as u64, 0, encoded_max as u64)?;
    // Strict: padded, no stray bits.
    let bytes = STANDARD
        .decode(text)
        .map_err(|_| DecodeError::Invalid { what: name })?;
    in_range(name, bytes.len() as u64, 0, bytes_max as u64)?;
    Ok(bytes)
}

/// Refuses a file that can be spelled otherwise.
pub(crate) fn same_bytes(printed: &[u8], bytes: &[u8]) -> Result<(), DecodeError> {
    if printed == bytes {
        return Ok(());
    }
    Err(DecodeError::NotCanonical { what: "the file" })
}

pub(crate) const fn invalid(what: &'static str) -> DecodeError {
    DecodeError::Invalid { what }
}
