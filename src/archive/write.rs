//! Layer 3. Writing: everything is verified on its way out, so that an archive
//! with an end is one that [`verify`](super::verify()) takes, and a store that has
//! rotted says so instead of handing its rot on.
//!
//! In memory: one section of runs and what the history gave at once, the list
//! of its payloads, and one section of payloads.

use std::io::{self, Write};

use super::fold::{Outside, Wanted, fold};
use super::section::{self, SectionHeader};
use super::title::Title;
use crate::hash::{self, Hash, Stream};
use crate::ledger::ReadHistory;
use crate::limits::{
    ARCHIVE_END_BYTES, ARCHIVE_PAYLOAD_FIXED_BYTES, ARCHIVE_RUNS_BYTES_MAX,
    ARCHIVE_SECTION_BYTES_MAX, SEQUENCE_MAX,
};
use crate::run::{Accumulator, Run, RunError};

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// Bytes of the archive.
    pub bytes: u64,
    /// Entries in it.
    pub entries: u64,
    /// Sections in it, the end not counted.
    pub sections: u64,
}

/// Why an archive was not finished. What was written so far has no end and is
/// refused by every reader.
#[derive(Debug, thiserror::Error)]
pub enum WriteError<E: std::error::Error + 'static> {
    /// The history could not be read.
    #[error("reading the history failed: {0}")]
    Read(#[source] E),
    /// The archive could not be written.
    #[error("writing the archive failed: {0}")]
    Out(#[source] io::Error),
    /// The history is not what it says it is: the store is wrong.
    #[error("the history does not verify: {0}")]
    Unsound(#[source] Unsound),
}

/// How a history contradicts itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsound {
    /// Its entries are more or fewer than it says.
    #[error("{found} entries, {stated} are stated")]
    Size {
        /// Entries as stated.
        stated: u64,
        /// Entries found.
        found: u64,
    },
    /// Its entries fold into another root than it says.
    #[error("the entries have the root {found}, {stated} is stated")]
    Root {
        /// The root as stated.
        stated: Hash,
        /// The root of the entries.
        found: Hash,
    },
    /// A run is wrong, or does not continue those before.
    #[error("run: {0}")]
    Run(#[source] RunError),
    /// A payload is not the one that was asked for.
    #[error("payload {hash} is another one")]
    Payload {
        /// The payload's hash as its entry says.
        hash: Hash,
    },
}

/// Writes the archive of a history. The last bytes make it valid, and they are
/// written only if size and root agree. To bound the archive, give an `out`
/// that fails when it is full.
pub fn write<H: ReadHistory, W: Write>(
    history: &H,
    out: W,
) -> Result<Written, WriteError<H::Error>> {
    let title = Title {
        id: history.id().clone(),
        size: history.size(),
        root: history.root(),
    };
    if title.size == 0 || title.size > SEQUENCE_MAX {
        return Err(WriteError::Unsound(Unsound::Size {
            stated: title.size,
            found: 0,
        }));
    }
    let mut writer = Writer {
        history,
        out,
        bytes: 0,
        sections: 0,
        whole: Stream::content(),
        after: Accumulator::default(),
        runs: Vec::new(),
        outside: Outside::default(),
    };
    writer.put(&title.encode())?;
    while writer.after.size() < title.size {
        let done = writer.after.size();
        let runs = history.runs(done, ARCHIVE_RUNS_BYTES_MAX);
        for run in &runs.map_err(WriteError::Read)? {
            writer.run(run, &title)?;
        }
        if writer.after.size() == done {
            return Err(wrong_size(&title, done));
        }
    }
    writer.close_section()?;
    writer.end(&title)
}

fn wrong_size<E: std::error::Error>(title: &Title, found: u64) -> WriteError<E> {
    WriteError::Unsound(Unsound::Size {
        stated: title.size,
        found,
    })
}

struct Writer<'h, H, W> {
    history: &'h H,
    out: W,
    bytes: u64,
    sections: u64,
    /// The hash of everything written.
    whole: Stream,
    /// The context up to the last run taken.
    after: Accumulator,
    /// The section of runs that is being filled, and what it needs outside.
    runs: Vec<u8>,
    outside: Outside,
}

impl<H: ReadHistory, W: Write> Writer<'_, H, W> {
    fn put(&mut self, bytes: &[u8]) -> Result<(), WriteError<H::Error>> {
        self.out.write_all(bytes).map_err(WriteError::Out)?;
        self.whole.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    fn section(&mut self, kind: u8, body: &[u8]) -> Result<(), WriteError<H::Error>> {
        self.put(&SectionHeader::new(kind, body).to_bytes())?;
        self.put(body)?;
        self.sections += 1;
        Ok(())
    }

    /// Takes a run into the section, or into a new one if it has no room.
    fn run(&mut self, bytes: &[u8], title: &Title) -> Result<(), WriteError<H::Error>> {
        let unsound = |why: RunError| WriteError::Unsound(Unsound::Run(why));
        let run = Run::decode(bytes).map_err(|why| unsound(why.into()))?;
        if run.last() > title.size {
            return Err(wrong_size(title, run.last()));
        }
        if self.runs.len() + 4 + bytes.len() > ARCHIVE_RUNS_BYTES_MAX {
            self.close_section()?;
        }
        fold(&mut self.after, &run, &mut self.outside, |_, _| ()).map_err(unsound)?;
        // At most 1 MiB, as `decode` has found.
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        self.runs.extend_from_slice(&length.to_le_bytes());
        self.runs.extend_from_slice(bytes);
        Ok(())
    }

    /// Writes the runs taken so far and their payloads.
    fn close_section(&mut self) -> Result<(), WriteError<H::Error>> {
        let mut runs = std::mem::take(&mut self.runs);
        self.section(section::RUNS, &runs)?;
        runs.clear();
        self.runs = runs;
        let mut outside = std::mem::take(&mut self.outside);
        let mut body = Vec::new();
        for wanted in outside.list() {
            let bytes = ARCHIVE_PAYLOAD_FIXED_BYTES + wanted.bytes as usize;
            if !body.is_empty() && body.len() + bytes > ARCHIVE_SECTION_BYTES_MAX {
                self.section(section::PAYLOADS, &body)?;
                body.clear();
            }
            self.payload(wanted, &mut body)?;
        }
        if !body.is_empty() {
            self.section(section::PAYLOADS, &body)?;
        }
        outside.clear();
        self.outside = outside;
        Ok(())
    }

    fn payload(&mut self, wanted: &Wanted, body: &mut Vec<u8>) -> Result<(), WriteError<H::Error>> {
        let payload = self.history.outside_payload(&wanted.hash);
        let payload = payload.map_err(WriteError::Read)?;
        if payload.len() != wanted.bytes as usize || hash::content(&payload) != wanted.hash {
            let hash = wanted.hash;
            return Err(WriteError::Unsound(Unsound::Payload { hash }));
        }
        body.extend_from_slice(wanted.hash.as_bytes());
        body.extend_from_slice(&wanted.bytes.to_le_bytes());
        body.extend_from_slice(&payload);
        Ok(())
    }

    fn end(mut self, title: &Title) -> Result<Written, WriteError<H::Error>> {
        let found = self.after.root();
        if found != title.root {
            return Err(WriteError::Unsound(Unsound::Root {
                stated: title.root,
                found,
            }));
        }
        let (entries, sections) = (self.after.size(), self.sections);
        let mut body = Vec::with_capacity(ARCHIVE_END_BYTES);
        body.extend_from_slice(&entries.to_le_bytes());
        body.extend_from_slice(&sections.to_le_bytes());
        body.extend_from_slice(self.whole.finish().as_bytes());
        self.section(section::END, &body)?;
        self.out.flush().map_err(WriteError::Out)?;
        Ok(Written {
            bytes: self.bytes,
            entries,
            sections,
        })
    }
}
