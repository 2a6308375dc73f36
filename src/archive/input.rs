//! Layer 3. Reading an archive piece by piece, knowing where, and never past
//! the end of a section.
//!
//! Invariants: nothing is read into memory whose length has not been checked
//! against a bound; what ends early is [`Fault::Truncated`], from where the
//! unfinished thing begins to where the bytes end.

use std::io::{self, BufReader, Read};
use std::sync::Arc;

use super::fault::{Fault, ReadError};
use super::section::SectionHeader;
use super::title::{self, DIGITS_MAX, MAGIC, Title, TitlePlaces};
use crate::encoding::DecodeError;
use crate::hash::{Hash, Stream};
use crate::limits::{ARCHIVE_HEADER_BYTES_MAX, ARCHIVE_SECTION_HEADER_BYTES};

/// Bytes read at once where they are only hashed.
const CHUNK_BYTES: usize = 64 << 10;

/// An archive being read.
#[derive(Debug)]
pub(super) struct Input<R> {
    from: BufReader<R>,
    at: u64,
    /// The hash of everything read, if it is wanted.
    whole: Option<Stream>,
    chunk: Vec<u8>,
}

impl<R: Read> Input<R> {
    pub(super) fn new(from: R, hash_all: bool) -> Self {
        Self {
            from: BufReader::with_capacity(CHUNK_BYTES, from),
            at: 0,
            whole: hash_all.then(Stream::content),
            chunk: vec![0; CHUNK_BYTES],
        }
    }

    /// Bytes read so far.
    pub(super) const fn at(&self) -> u64 {
        self.at
    }

    /// The hash of everything that was counted in so far.
    pub(super) fn whole(&self) -> Option<Hash> {
        self.whole.as_ref().map(Stream::finish)
    }

    /// Counts bytes into the hash of the whole.
    pub(super) fn count_in(&mut self, bytes: &[u8]) {
        if let Some(whole) = &mut self.whole {
            whole.update(bytes);
        }
    }

    /// Some bytes, or none at the end.
    fn some(&mut self, out: &mut [u8]) -> Result<usize, ReadError> {
        loop {
            match self.from.read(out) {
                Ok(n) => {
                    // A reader that lies about its count must not be believed.
                    let n = n.min(out.len());
                    self.at += n as u64;
                    return Ok(n);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
                Err(error) => {
                    let fault = Fault::Io(Arc::new(error));
                    return Err(ReadError::new(self.at..self.at, fault));
                }
            }
        }
    }

    /// Exactly these bytes, which belong to what begins at `start`.
    fn fill(&mut self, out: &mut [u8], start: u64) -> Result<(), ReadError> {
        let mut filled = 0;
        while filled < out.len() {
            match self.some(&mut out[filled..])? {
                0 => return Err(ReadError::new(start..self.at, Fault::Truncated)),
                n => filled += n,
            }
        }
        Ok(())
    }

    /// True if nothing is left.
    pub(super) fn is_done(&mut self) -> Result<bool, ReadError> {
        Ok(self.some(&mut [0])? == 0)
    }

    /// Bytes that must be these; false if they are not.
    pub(super) fn is_exactly(&mut self, bytes: &[u8]) -> Result<bool, ReadError> {
        let mut found = vec![0; bytes.len()];
        self.fill(&mut found, 0)?;
        Ok(found == bytes)
    }

    /// The first lines.
    pub(super) fn title(&mut self) -> Result<(Title, TitlePlaces), ReadError> {
        self.first_line()?;
        let (from, line) = (self.at, self.line()?);
        let id = title::context(&line).map_err(|e| self.header(from, e))?;
        let (size_at, line) = (self.at, self.line()?);
        let size = title::size(&line).map_err(|e| self.header(size_at, e))?;
        let (root_at, line) = (self.at, self.line()?);
        let root = title::root(&line).map_err(|e| self.header(root_at, e))?;
        let (last_at, line) = (self.at, self.line()?);
        if !line.is_empty() {
            let what = "the fifth line is not empty";
            return Err(self.header(last_at, DecodeError::Invalid { what }));
        }
        let places = TitlePlaces {
            size: size_at..root_at,
            root: root_at..last_at,
        };
        let title = Title { id, size, root };
        self.count_in(&title.encode());
        Ok((title, places))
    }

    fn header(&self, from: u64, why: DecodeError) -> ReadError {
        ReadError::new(from..self.at, Fault::Header(why))
    }

    /// The first line, read no further than it is one.
    fn first_line(&mut self) -> Result<(), ReadError> {
        let mut byte = [0];
        for wanted in MAGIC.bytes() {
            self.fill(&mut byte, 0)?;
            if byte[0] != wanted {
                return Err(ReadError::new(0..self.at, Fault::NotAnArchive));
            }
        }
        let mut digits = Vec::with_capacity(DIGITS_MAX);
        loop {
            self.fill(&mut byte, 0)?;
            match byte[0] {
                b'\n' => break,
                digit if digits.len() < DIGITS_MAX => digits.push(digit),
                _ => return Err(ReadError::new(0..self.at, Fault::NotAnArchive)),
            }
        }
        let fault = match title::decimal(&digits) {
            Some(found) if found == u64::from(title::VERSION) => return Ok(()),
            Some(found) => Fault::Version { found },
            None => Fault::NotAnArchive,
        };
        Err(ReadError::new(0..self.at, fault))
    }

    /// The next line, without its line feed.
    fn line(&mut self) -> Result<Vec<u8>, ReadError> {
        let from = self.at;
        let (mut line, mut byte) = (Vec::new(), [0]);
        loop {
            self.fill(&mut byte, from)?;
            if byte[0] == b'\n' {
                return Ok(line);
            }
            line.push(byte[0]);
            let (got, max) = (self.at, ARCHIVE_HEADER_BYTES_MAX as u64);
            if got >= max {
                let what = "first lines in bytes";
                let min = 0;
                let why = DecodeError::OutOfRange {
                    what,
                    got,
                    min,
                    max,
                };
                return Err(self.header(from, why));
            }
        }
    }

    /// The next section's header. It is not counted into the hash of the whole:
    /// that of the end is not part of it.
    pub(super) fn section(&mut self) -> Result<SectionHeader, ReadError> {
        let mut bytes = [0; ARCHIVE_SECTION_HEADER_BYTES];
        self.fill(&mut bytes, self.at)?;
        Ok(SectionHeader::from_bytes(&bytes))
    }

    /// The body behind a header that was just read and is not too long.
    pub(super) fn body(&mut self, header: &SectionHeader) -> Body<'_, R> {
        Body {
            start: self.at.saturating_sub(ARCHIVE_SECTION_HEADER_BYTES as u64),
            left: header.body_bytes(),
            hash: header.hasher(),
            input: self,
        }
    }
}

/// A section's body being read, and hashed on the way.
#[derive(Debug)]
pub(super) struct Body<'i, R> {
    input: &'i mut Input<R>,
    start: u64,
    left: u64,
    hash: Stream,
}

impl<R: Read> Body<'_, R> {
    /// Where the next byte is.
    pub(super) const fn at(&self) -> u64 {
        self.input.at
    }

    /// Where the section begins.
    pub(super) const fn start(&self) -> u64 {
        self.start
    }

    /// Where it ends.
    pub(super) const fn end(&self) -> u64 {
        self.input.at + self.left
    }

    /// Bytes left.
    pub(super) const fn left(&self) -> u64 {
        self.left
    }

    /// Exactly these bytes; an error if the body has fewer left.
    pub(super) fn fill(&mut self, what: &'static str, out: &mut [u8]) -> Result<(), ReadError> {
        let needed = out.len();
        self.require(what, needed as u64)?;
        self.input.fill(out, self.start)?;
        self.left -= needed as u64;
        self.hash.update(out);
        self.input.count_in(out);
        Ok(())
    }

    /// Reads over the next `bytes`, showing them to `on_bytes`.
    pub(super) fn pass(
        &mut self,
        what: &'static str,
        bytes: u64,
        mut on_bytes: impl FnMut(&[u8]),
    ) -> Result<(), ReadError> {
        self.require(what, bytes)?;
        let mut chunk = std::mem::take(&mut self.input.chunk);
        let mut left = bytes;
        let mut done = Ok(());
        while left > 0 && done.is_ok() {
            let n = usize::try_from(left).map_or(chunk.len(), |left| left.min(chunk.len()));
            done = self.fill(what, &mut chunk[..n]);
            on_bytes(&chunk[..n]);
            left -= n as u64;
        }
        self.input.chunk = chunk;
        done
    }

    /// Reads over what is left; the hash of the section.
    pub(super) fn finish(mut self) -> Result<Hash, ReadError> {
        self.pass("body", self.left, |_| ())?;
        Ok(self.hash.finish())
    }

    fn require(&self, what: &'static str, needed: u64) -> Result<(), ReadError> {
        if needed <= self.left {
            return Ok(());
        }
        // Both are bounded by the longest section.
        let size = |bytes| usize::try_from(bytes).unwrap_or(usize::MAX);
        let (needed, have) = (size(needed), size(self.left));
        let why = DecodeError::Truncated { what, needed, have };
        Err(ReadError::new(self.at()..self.end(), Fault::Section(why)))
    }
}
