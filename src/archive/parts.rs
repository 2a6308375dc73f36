//! Layer 3. The second reading: gives the entries out, part by part, and only
//! bytes that the first reading has verified.
//!
//! ```text
//! runs | payloads | payloads | runs ...      sections
//!        part       part       part ...      each payload at or before its run
//! ```
//!
//! A section is given out only after its hash was found to be the one that the
//! first reading saw, so whatever is wrong here is one thing: the archive was
//! changed in between ([`Fault::Changed`]).
//!
//! In memory: one section of runs, twice, the list of its payloads, and one
//! section of payloads.

use std::io::Read;

use super::fault::{Fault, ReadError};
use super::fold::Outside;
use super::input::Input;
use super::items::{next_run, payload_item};
use super::section::{self, SectionHeader};
use super::verify::{Mark, Verified};
use crate::encoding::{DecodeError, Reader};
use crate::ledger::HistoryPart;
use crate::limits::ARCHIVE_RUNS_BYTES_MAX;
use crate::run::{CheckedPayload, Run, RunError};

/// The entries of a verified archive behind a sequence, in parts of at most a
/// section of runs and a section of payloads. A payload comes with the runs
/// that need it, or in a part of its own before them; what only earlier entries
/// need is left out. After an error there is nothing more.
#[derive(Debug)]
pub struct Parts<'v, R> {
    input: Input<R>,
    verified: &'v Verified,
    after: u64,
    /// Sections read.
    read: usize,
    /// Runs whose payloads are still being read.
    waiting: Waiting,
    has_title: bool,
    is_done: bool,
}

/// Runs to be given out with the last of their payloads.
#[derive(Debug, Default)]
struct Waiting {
    runs: Vec<Vec<u8>>,
    outside: Outside,
    /// Which of the payloads belong to an entry that is given out.
    needed: Vec<bool>,
    /// Payloads read.
    given: usize,
}

impl<'v, R: Read> Parts<'v, R> {
    /// Reads again, from its first byte, what was verified.
    pub fn new(input: R, verified: &'v Verified, after: u64) -> Self {
        Self {
            input: Input::new(input, false),
            verified,
            after,
            read: 0,
            waiting: Waiting::default(),
            has_title: false,
            is_done: false,
        }
    }

    fn step(&mut self) -> Result<Option<HistoryPart>, ReadError> {
        if !self.has_title {
            let title = self.verified.title().encode();
            if !self.input.is_exactly(&title)? {
                return Err(changed(0, self.input.at()));
            }
            self.has_title = true;
        }
        while let Some(mark) = self.verified.marks().get(self.read) {
            let start = self.input.at();
            let header = self.input.section()?;
            if header.hash != mark.hash || header.is_too_long() {
                return Err(changed(start, self.input.at()));
            }
            self.read += 1;
            let part = match header.kind() {
                // The end is about no entry and so always passed over.
                _ if mark.last <= self.after => {
                    self.pass_over(&header, mark)?;
                    None
                }
                section::RUNS => self.runs(&header, mark)?,
                section::PAYLOADS => self.payloads(&header, mark)?,
                _ => return Err(changed(start, self.input.at())),
            };
            if part.is_some() {
                return Ok(part);
            }
        }
        let at = self.input.at();
        if !self.input.is_done()? {
            return Err(changed(at, at + 1));
        }
        Ok(None)
    }

    fn pass_over(&mut self, header: &SectionHeader, mark: &Mark) -> Result<(), ReadError> {
        let body = self.input.body(header);
        let (start, end) = (body.start(), body.end());
        if body.finish()? != mark.hash {
            return Err(changed(start, end));
        }
        Ok(())
    }

    fn runs(
        &mut self,
        header: &SectionHeader,
        mark: &Mark,
    ) -> Result<Option<HistoryPart>, ReadError> {
        let mut body = self.input.body(header);
        let (start, end) = (body.start(), body.end());
        // Not too long, so it fits.
        let bytes = usize::try_from(header.body_bytes()).unwrap_or(ARCHIVE_RUNS_BYTES_MAX);
        let mut runs = vec![0; bytes];
        body.fill("runs", &mut runs)?;
        if body.finish()? != mark.hash {
            return Err(changed(start, end));
        }
        let waiting = Waiting::new(&runs, self.after);
        self.waiting = waiting.map_err(|_: RunError| changed(start, end))?;
        Ok(self.waiting.part(Vec::new()))
    }

    fn payloads(
        &mut self,
        header: &SectionHeader,
        mark: &Mark,
    ) -> Result<Option<HistoryPart>, ReadError> {
        let mut body = self.input.body(header);
        let (start, end) = (body.start(), body.end());
        let mut payloads = Vec::new();
        while body.left() > 0 {
            let found = payload_item(&mut body)?;
            let place = self.waiting.given;
            let is_needed = self.waiting.needed.get(place);
            let (Some(is_needed), Some(wanted)) =
                (is_needed, self.waiting.outside.list().get(place))
            else {
                return Err(changed(start, end));
            };
            if found != *wanted {
                return Err(changed(start, end));
            }
            if *is_needed {
                // As long as its entry says, so at most 4 MiB.
                let mut bytes = vec![0; found.bytes as usize];
                body.fill("payload", &mut bytes)?;
                let payload = CheckedPayload::new(bytes);
                payloads.push(payload.map_err(|_: DecodeError| changed(start, end))?);
            } else {
                body.pass("payload", u64::from(found.bytes), |_| ())?;
            }
            self.waiting.given += 1;
        }
        if body.finish()? != mark.hash {
            return Err(changed(start, end));
        }
        Ok(self.waiting.part(payloads))
    }
}

const fn changed(start: u64, end: u64) -> ReadError {
    ReadError {
        at: start..end,
        fault: Fault::Changed,
    }
}

impl Waiting {
    /// The entries of a section of runs behind `after`, and what they need.
    fn new(section: &[u8], after: u64) -> Result<Self, RunError> {
        let mut waiting = Self::default();
        let mut reader = Reader::new(section);
        while let Some(bytes) = next_run(&mut reader)? {
            let run = Run::decode(bytes)?;
            for entry in run.entries() {
                let header = entry?.header;
                let Some(place) = waiting.outside.add(&header)? else {
                    continue;
                };
                if place == waiting.needed.len() {
                    waiting.needed.push(false);
                }
                waiting.needed[place] |= header.sequence > after;
            }
            if run.first() > after {
                waiting.runs.push(bytes.to_vec());
            } else if run.last() > after {
                waiting.runs.push(run.part(after, u64::MAX)?);
            }
        }
        Ok(waiting)
    }

    /// The next part: payloads, and the runs if these were the last of theirs.
    fn part(&mut self, payloads: Vec<CheckedPayload>) -> Option<HistoryPart> {
        let is_complete = self.given == self.outside.list().len();
        let runs = if is_complete {
            std::mem::take(&mut self.runs)
        } else {
            Vec::new()
        };
        let is_empty = runs.is_empty() && payloads.is_empty();
        (!is_empty).then_some(HistoryPart { runs, payloads })
    }
}

impl<R: Read> Iterator for Parts<'_, R> {
    type Item = Result<HistoryPart, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_done {
            return None;
        }
        let part = self.step().map_err(|error| {
            // It was read to its end before: whatever is wrong now is new.
            if error.is_io() {
                error
            } else {
                changed(error.at.start, error.at.end)
            }
        });
        self.is_done = !matches!(part, Ok(Some(_)));
        part.transpose()
    }
}
