//! Layer 3. The first reading: everything is checked, nothing is kept but what
//! a second reading is held to.
//!
//! In memory: one section of runs and the list of its payloads, a frontier, and
//! 40 bytes for each section; payloads only pass through. Two neighbouring
//! sections of a kind fill more than one can hold, so sections are few.

use std::io::Read;

use super::fault::{EndField, Fault, ReadError};
use super::fold::{Outside, fold};
use super::input::Input;
use super::items::{next_run, payload_items};
use super::section::{self, SectionHeader};
use super::title::{Title, TitlePlaces};
use crate::encoding::{DecodeError, Reader};
use crate::entry::ContextId;
use crate::hash::{self, Hash};
use crate::limits::{ARCHIVE_END_BYTES, ARCHIVE_RUNS_BYTES_MAX};
use crate::run::{Accumulator, Run};

/// An archive that has been read to its end and found good. Only [`verify()`]
/// makes one.
#[derive(Clone, Debug)]
pub struct Verified {
    title: Title,
    bytes: u64,
    newest_ns: u64,
    root_at: Option<Hash>,
    marks: Vec<Mark>,
}

/// What a section must be when it is read again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    /// Its hash.
    pub(super) hash: Hash,
    /// The last entry that it is about, 0 for the end.
    pub(super) last: u64,
}

impl Verified {
    /// The context. An archive is not signed: that the root belongs to this
    /// name is for the caller to know.
    #[must_use]
    pub fn id(&self) -> &ContextId {
        &self.title.id
    }

    /// Entries in it, at least 1.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.title.size
    }

    /// The root over them.
    #[must_use]
    pub fn root(&self) -> Hash {
        self.title.root
    }

    /// Bytes of the archive.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Wall-clock time of the newest entry in ns.
    #[must_use]
    pub fn newest_ns(&self) -> u64 {
        self.newest_ns
    }

    /// The root over as many entries as [`verify()`] was asked about; `None` if it
    /// was not, or if there are fewer.
    #[must_use]
    pub fn root_at(&self) -> Option<Hash> {
        self.root_at
    }

    /// The hash of each section in order, the end included.
    #[must_use]
    pub fn sections(&self) -> impl ExactSizeIterator<Item = &Hash> {
        self.marks.iter().map(|mark| &mark.hash)
    }

    pub(super) fn title(&self) -> &Title {
        &self.title
    }

    pub(super) fn marks(&self) -> &[Mark] {
        &self.marks
    }
}

/// The context that an archive says it was made of. Nothing else of it is read,
/// and nothing is verified.
pub fn name_of<R: Read>(input: R) -> Result<ContextId, ReadError> {
    let (title, _) = Input::new(input, false).title()?;
    Ok(title.id)
}

/// Reads an archive to its end and checks all of it. With `at_size` the root
/// over the first so many entries is worked out on the way.
pub fn verify<R: Read>(input: R, at_size: Option<u64>) -> Result<Verified, ReadError> {
    let mut input = Input::new(input, true);
    let (title, places) = input.title()?;
    let mut verifier = Verifier {
        input,
        title,
        places,
        at_size: at_size.unwrap_or(0),
        root_at: (at_size == Some(0)).then(hash::empty_root),
        after: Accumulator::default(),
        runs: Vec::new(),
        runs_bytes: None,
        outside: Outside::default(),
        given: 0,
        payloads_bytes: None,
        marks: Vec::new(),
    };
    while !verifier.section()? {}
    let at = verifier.input.at();
    if !verifier.input.is_done()? {
        return Err(ReadError::new(at..at + 1, Fault::TrailingBytes));
    }
    Ok(Verified {
        bytes: at,
        newest_ns: verifier.after.appended_at_ns,
        root_at: verifier.root_at,
        title: verifier.title,
        marks: verifier.marks,
    })
}

struct Verifier<R> {
    input: Input<R>,
    title: Title,
    places: TitlePlaces,
    at_size: u64,
    root_at: Option<Hash>,
    /// The context up to the last run.
    after: Accumulator,
    /// The body of the last section of runs, reused.
    runs: Vec<u8>,
    /// Bytes of the section of runs before, if there is one.
    runs_bytes: Option<usize>,
    /// What that section needs outside, and how many of them were there.
    outside: Outside,
    given: usize,
    /// Bytes of the section of payloads before, if there is one behind the
    /// same section of runs.
    payloads_bytes: Option<u64>,
    marks: Vec<Mark>,
}

impl<R: Read> Verifier<R> {
    /// The next section; true if it was the end.
    fn section(&mut self) -> Result<bool, ReadError> {
        let start = self.input.at();
        let whole = self.input.whole();
        let header = self.input.section()?;
        let here = start..self.input.at();
        let odd = header.oddity().or_else(|| self.misplaced(&header));
        if header.is_too_long() {
            return Err(ReadError::new(
                here,
                odd.unwrap_or(Fault::TooLong {
                    kind: header.kind(),
                    found: header.body_bytes(),
                    max: header.body_bytes_max(),
                }),
            ));
        }
        if let Some(odd) = odd {
            self.unchanged(&header)?;
            return Err(ReadError::new(here, odd));
        }
        let last = match header.kind() {
            section::RUNS => {
                self.input.count_in(&header.to_bytes());
                self.runs(&header)?;
                self.after.size()
            }
            section::PAYLOADS => {
                self.input.count_in(&header.to_bytes());
                self.payloads(&header)?;
                self.after.size()
            }
            _ => {
                self.end(&header, whole)?;
                0
            }
        };
        let hash = header.hash;
        self.marks.push(Mark { hash, last });
        Ok(header.kind() == section::END)
    }

    /// Why a section of a known kind cannot stand here.
    fn misplaced(&self, header: &SectionHeader) -> Option<Fault> {
        let missing = self.outside.list().get(self.given);
        match (header.kind(), missing) {
            (section::RUNS | section::END, Some(wanted)) => {
                Some(Fault::MissingPayload { hash: wanted.hash })
            }
            (section::PAYLOADS, Some(_)) | (section::RUNS, None) => None,
            (section::END, None) if self.runs_bytes.is_some() => None,
            (kind, _) => Some(Fault::Order { kind }),
        }
    }

    /// Reads over a body and finds that it is what was written.
    fn unchanged(&mut self, header: &SectionHeader) -> Result<(), ReadError> {
        let body = self.input.body(header);
        let at = body.start()..body.end();
        if body.finish()? == header.hash {
            return Ok(());
        }
        Err(ReadError::new(at, Fault::SectionHash))
    }

    fn runs(&mut self, header: &SectionHeader) -> Result<(), ReadError> {
        let mut body = self.input.body(header);
        let (at, from) = (body.start()..body.end(), body.at());
        // Not too long, so it fits.
        let bytes = usize::try_from(header.body_bytes()).unwrap_or(ARCHIVE_RUNS_BYTES_MAX);
        let mut runs = std::mem::take(&mut self.runs);
        runs.resize(bytes, 0);
        body.fill("runs", &mut runs)?;
        if body.finish()? != header.hash {
            return Err(ReadError::new(at, Fault::SectionHash));
        }
        self.outside.clear();
        self.given = 0;
        self.payloads_bytes = None;
        let mut reader = Reader::new(&runs);
        let place = |reader: &Reader<'_>| from + (bytes - reader.remaining()) as u64;
        let mut is_first = true;
        loop {
            let start = place(&reader);
            let run = match next_run(&mut reader) {
                Ok(Some(run)) => run,
                Ok(None) if !is_first => break,
                Ok(None) => {
                    let what = "a section of runs without runs";
                    let fault = Fault::Section(DecodeError::Invalid { what });
                    return Err(ReadError::new(at, fault));
                }
                Err(why) => return Err(ReadError::new(start..at.end, Fault::Section(why))),
            };
            let here = start..place(&reader);
            let before = self.runs_bytes.unwrap_or(usize::MAX);
            if is_first && before.saturating_add(4 + run.len()) <= ARCHIVE_RUNS_BYTES_MAX {
                return Err(ReadError::new(here, Fault::Underfull));
            }
            self.run(run).map_err(|fault| match fault {
                Fault::Size { .. } => ReadError::new(self.places.size.clone(), fault),
                fault => ReadError::new(here, fault),
            })?;
            is_first = false;
        }
        self.runs_bytes = Some(bytes);
        self.runs = runs;
        Ok(())
    }

    fn run(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        let run = Run::decode(bytes).map_err(|why| Fault::Run(why.into()))?;
        if run.last() > self.title.size {
            return Err(Fault::Size {
                stated: self.title.size,
                found: run.last(),
            });
        }
        let asked = self.at_size;
        let covers = (run.first()..=run.last()).contains(&asked);
        let mut part = covers.then(|| self.after.frontier.clone());
        fold(
            &mut self.after,
            &run,
            &mut self.outside,
            |sequence, leaf| {
                if let Some(part) = &mut part
                    && sequence <= asked
                {
                    // Where it fails, folding the run fails as well.
                    let _ = part.append(*leaf);
                }
            },
        )?;
        if let Some(part) = part {
            self.root_at = Some(part.root());
        }
        Ok(())
    }

    fn payloads(&mut self, header: &SectionHeader) -> Result<(), ReadError> {
        let mut body = self.input.body(header);
        let at = body.start()..body.end();
        let wanted = self.outside.list().get(self.given..).unwrap_or(&[]);
        let read = payload_items(&mut body, wanted, self.payloads_bytes);
        if let Err(error) = &read
            && error.ends_reading()
        {
            return read.map(|_| ());
        }
        // Whatever was found in it: first of all it must be what was written.
        if body.finish()? != header.hash {
            return Err(ReadError::new(at, Fault::SectionHash));
        }
        self.given += read?;
        self.payloads_bytes = Some(header.body_bytes());
        Ok(())
    }

    fn end(&mut self, header: &SectionHeader, whole: Option<Hash>) -> Result<(), ReadError> {
        let mut body = self.input.body(header);
        let (start, from, end) = (body.start(), body.at(), body.end());
        let mut bytes = [0; ARCHIVE_END_BYTES];
        let read = body.fill("end", &mut bytes);
        if body.finish()? != header.hash {
            return Err(ReadError::new(start..end, Fault::SectionHash));
        }
        read?;
        let malformed = |why| ReadError::new(from..end, Fault::Section(why));
        let mut reader = Reader::new(&bytes);
        let entries = reader.u64("entries").map_err(malformed)?;
        let sections = reader.u64("sections").map_err(malformed)?;
        let hash = reader.hash("hash of the whole").map_err(malformed)?;
        if Some(hash) != whole {
            return Err(ReadError::new(0..start, Fault::End(EndField::Hash)));
        }
        if sections != self.marks.len() as u64 {
            let at = from + 8..from + 16;
            return Err(ReadError::new(at, Fault::End(EndField::Sections)));
        }
        let found = self.after.size();
        if entries != found {
            return Err(ReadError::new(
                from..from + 8,
                Fault::End(EndField::Entries),
            ));
        }
        let stated = self.title.size;
        if stated != found {
            let fault = Fault::Size { stated, found };
            return Err(ReadError::new(self.places.size.clone(), fault));
        }
        let (stated, found) = (self.title.root, self.after.root());
        if stated != found {
            let fault = Fault::Root { stated, found };
            return Err(ReadError::new(self.places.root.clone(), fault));
        }
        Ok(())
    }
}
