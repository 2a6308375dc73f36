//! Layer 3. The source: answers one request from a [`ReadLedger`], frame by
//! frame, and remembers nothing between requests.
//!
//! An [`Answer`] is pulled, never pushed: whoever sends the frames asks for
//! the next one when it has room, so a slow reader costs one frame of memory,
//! and runs that did not fit it, which are no more.
//!
//! Invariants:
//! * no leaf beyond the size asked for, and no size beyond the signed one;
//! * runs go out byte for byte as they are stored, cut only where the asker's
//!   sizes lie inside of one;
//! * a span ends at a multiple of 256 or at the size asked for, unless the
//!   runs up to there do not fit; so its right hashes are few;
//! * a stream of spans ends after the span that brings it to
//!   [`ENTRIES_ANSWER_BYTES`] or [`ENTRIES_ANSWER_SPANS`]; the asker asks again.

use std::collections::VecDeque;

use super::message::{
    NODES_REPLY_BYTES_MAX, NodeAnswer, Refusal, Reply, Request, node_answer_bytes,
};
use super::push::push;
use super::{ENTRIES_ANSWER_BYTES, ENTRIES_ANSWER_SPANS};
use crate::directory::empty_root;
use crate::encoding::DecodeError;
use crate::entry::ContextId;
use crate::hash::Hash;
use crate::head::{Head, HeadOrder, SignedHead};
use crate::ledger::ReadLedger;
use crate::limits::{NOTES_PER_REPLY_MAX, PROOF_HASHES_MAX, RUN_ENTRIES_MAX, SPAN_BYTES_MAX};
use crate::note::Note;
use crate::run::{Run, RunError, SPAN_FIXED_BYTES, encode_span};
use crate::tree::nodes::read_root;
use crate::tree::range::right_build;
use crate::tree::{BuildError, LeafIndex, NodeId, ReadNodes, TreeSize, consistency, inclusion};

/// Bytes of a span that runs and their lengths may take.
const SPAN_RUNS_BYTES_MAX: usize = SPAN_BYTES_MAX - SPAN_FIXED_BYTES - PROOF_HASHES_MAX * Hash::LEN;
/// Bytes of runs after which a span ends where it may: a mirror verifies it while
/// the next one is read and on its way.
const SPAN_AIM_BYTES: usize = 256 << 10;
/// Bytes of outside payloads one span may refer to, if it has several runs: a
/// mirror holds them until it can store the span.
pub const SPAN_OUTSIDE_BYTES_MAX: u64 = 8 << 20;
/// Runs of a span, whose count has two bytes.
const SPAN_RUNS_MAX: usize = u16::MAX as usize;

const _: () = assert!(SPAN_AIM_BYTES <= SPAN_RUNS_BYTES_MAX);

/// Why an answer broke off: always this side's fault. The stream must be
/// reset, so that the asker does not take it for finished.
#[derive(Debug, thiserror::Error)]
pub enum SourceError<E> {
    /// The ledger could not be read.
    #[error("reading the ledger: {0}")]
    Ledger(#[source] E),
    /// The ledger returned something that is not what it stores.
    #[error("the ledger returned bytes that cannot be served: {0}")]
    Unservable(#[from] RunError),
    /// The ledger returned the wrong number of nodes, or no proof exists.
    #[error("building a proof: {what}")]
    Proof {
        /// What went wrong.
        what: String,
    },
}

impl<E> From<DecodeError> for SourceError<E> {
    fn from(error: DecodeError) -> Self {
        Self::Unservable(RunError::Decode(error))
    }
}

impl<E: std::fmt::Display> From<BuildError<E>> for SourceError<E> {
    fn from(error: BuildError<E>) -> Self {
        match error {
            BuildError::Read(error) => Self::Ledger(error),
            other => Self::Proof {
                what: other.to_string(),
            },
        }
    }
}

/// Reads a request; an error is the asker's fault.
pub fn answer(frame: &[u8]) -> Result<Answer, DecodeError> {
    let state = match Request::decode(frame)? {
        Request::Head { newest } => State::Head { newest },
        Request::Follow { newest } => State::Follow(Follow {
            shown: newest.clone(),
            newest,
            told: None,
            frames: VecDeque::new(),
        }),
        Request::Complete { note } => State::Complete { note },
        Request::Nodes { hashes } => State::Nodes(hashes.into_iter()),
        Request::Payloads { hashes } => State::Payloads(hashes.into_iter()),
        Request::Entries {
            context,
            after_sequence,
            size,
        } => State::Entries(Entries::new(context, after_sequence, size)),
        Request::Consistency { context, from, to } => State::Consistency { context, from, to },
        Request::Inclusion {
            context,
            sequence,
            size,
        } => State::Inclusion {
            context,
            sequence,
            size,
        },
    };
    Ok(Answer { state, ahead: None })
}

/// One request being answered.
#[derive(Debug)]
pub struct Answer {
    state: State,
    /// A node that did not fit the frame before.
    ahead: Option<NodeAnswer>,
}

#[derive(Debug)]
enum State {
    Head {
        newest: Vec<u8>,
    },
    Follow(Follow),
    /// The head that is complete in the asker.
    Complete {
        note: Vec<u8>,
    },
    Nodes(std::vec::IntoIter<Hash>),
    Payloads(std::vec::IntoIter<Hash>),
    Entries(Entries),
    Consistency {
        context: ContextId,
        from: u64,
        to: u64,
    },
    Inclusion {
        context: ContextId,
        sequence: u64,
        size: u64,
    },
    Done,
}

/// What is told to a follower.
#[derive(Debug)]
struct Follow {
    /// The note the asker has shown. Rotations are told from there on each time:
    /// whoever is busy drops all but the newest of what it is told.
    shown: Vec<u8>,
    /// The note the asker has, or was told.
    newest: Vec<u8>,
    /// The last head that was told.
    told: Option<HeadOrder>,
    /// What is still to be sent of the next one; the head is the last of them.
    frames: VecDeque<Vec<u8>>,
}

/// Entries being sent.
#[derive(Debug)]
pub(super) struct Entries {
    context: ContextId,
    begun: bool,
    next: u64,
    size: u64,
    sent_bytes: usize,
    sent_spans: usize,
    /// Runs that were read and not sent yet.
    ahead: VecDeque<Vec<u8>>,
}

impl Entries {
    pub(super) const fn new(context: ContextId, after_sequence: u64, size: u64) -> Self {
        Self {
            context,
            begun: false,
            next: after_sequence,
            size,
            sent_bytes: 0,
            sent_spans: 0,
            ahead: VecDeque::new(),
        }
    }

    /// True once the size asked for is reached.
    pub(super) const fn is_over(&self) -> bool {
        self.next == self.size
    }
}

impl Answer {
    /// The newest note of the asker, before the first frame, if it shows one.
    /// It is not verified: whoever guards the own store judges it.
    #[must_use]
    pub fn shown_note(&self) -> Option<&[u8]> {
        match &self.state {
            State::Head { newest } | State::Follow(Follow { shown: newest, .. })
                if !newest.is_empty() =>
            {
                Some(newest)
            }
            _ => self.acknowledged_note(),
        }
    }

    /// Before the answer is asked for its first frame, which it does not have:
    /// the note of the head that the asker says is complete in it. It is not
    /// verified, as with [`Self::shown_note`], which it is too.
    #[must_use]
    pub fn acknowledged_note(&self) -> Option<&[u8]> {
        match &self.state {
            State::Complete { note } => Some(note),
            _ => None,
        }
    }

    /// True if the answer goes on for ever: no frame means that there is none
    /// yet, and it is to be asked for again when another head is published.
    #[must_use]
    pub const fn follows(&self) -> bool {
        matches!(self.state, State::Follow(_))
    }

    /// True if what was told is not whole yet: the next frames are made, and belong
    /// to the one before them. They should go out together.
    #[must_use]
    pub fn is_pushing(&self) -> bool {
        matches!(&self.state, State::Follow(follow) if !follow.frames.is_empty())
    }

    /// The next frame, or `None` when the answer is complete.
    pub fn next_frame<L: ReadLedger + ?Sized>(
        &mut self,
        ledger: &L,
    ) -> Result<Option<Vec<u8>>, SourceError<L::Error>> {
        match std::mem::replace(&mut self.state, State::Done) {
            State::Done | State::Complete { .. } => Ok(None),
            State::Head { newest } => {
                let head = ledger.newest_head().map_err(SourceError::Ledger)?;
                Ok(Some(head_reply(ledger, &newest, head.as_ref())?))
            }
            State::Follow(follow) => self.next_told(ledger, follow),
            State::Nodes(hashes) => self.next_nodes(ledger, hashes),
            State::Payloads(mut hashes) => {
                let Some(hash) = hashes.next() else {
                    return Ok(None);
                };
                let bytes = ledger.outside_payload(&hash).map_err(SourceError::Ledger)?;
                self.state = State::Payloads(hashes);
                Ok(Some(Reply::Payload { hash, bytes }.encode()?))
            }
            State::Entries(entries) => self.next_entries(ledger, entries),
            State::Consistency { context, from, to } => {
                Ok(Some(consistency_reply(ledger, context, from, to)?))
            }
            State::Inclusion {
                context,
                sequence,
                size,
            } => Ok(Some(inclusion_reply(ledger, context, sequence, size)?)),
        }
    }

    /// What is pushed with a head comes before it. A head is told only above the
    /// one that was told last: a store whose head was put back is asked anew.
    fn next_told<L: ReadLedger + ?Sized>(
        &mut self,
        ledger: &L,
        mut follow: Follow,
    ) -> Result<Option<Vec<u8>>, SourceError<L::Error>> {
        if follow.frames.is_empty() {
            let head = ledger.newest_head().map_err(SourceError::Ledger)?;
            let newest = Note::parse(&follow.newest).ok();
            let head = head.filter(|head| {
                let text = newest.as_ref().map(Note::text);
                let again = text == Some(head.head().to_text().as_str());
                !again && follow.told < Some(head.order())
            });
            if let Some(head) = head {
                let base = match &newest {
                    _ if follow.newest.is_empty() => Some(empty_root()),
                    Some(note) => Head::parse(note.text()).ok().map(|h| h.directory_root),
                    None => None,
                };
                if let Some(base) = base {
                    follow.frames = push(ledger, &base, head.head())?;
                }
                let told = head_reply(ledger, &follow.shown, Some(&head))?;
                follow.frames.push_back(told);
                follow.newest = head.note_bytes();
                follow.told = Some(head.order());
            }
        }
        let next = follow.frames.pop_front();
        self.state = State::Follow(follow);
        Ok(next)
    }

    fn next_nodes<L: ReadLedger + ?Sized>(
        &mut self,
        ledger: &L,
        mut hashes: std::vec::IntoIter<Hash>,
    ) -> Result<Option<Vec<u8>>, SourceError<L::Error>> {
        let mut answers = Vec::new();
        let mut bytes = 8;
        loop {
            let answer = match self.ahead.take() {
                Some(answer) => answer,
                None => match hashes.next() {
                    None => break,
                    Some(hash) => {
                        let node = ledger.opened_node(&hash).map_err(SourceError::Ledger)?;
                        NodeAnswer { hash, node }
                    }
                },
            };
            bytes += node_answer_bytes(&answer);
            if bytes > NODES_REPLY_BYTES_MAX && !answers.is_empty() {
                self.ahead = Some(answer);
                break;
            }
            answers.push(answer);
        }
        if answers.is_empty() {
            return Ok(None);
        }
        self.state = State::Nodes(hashes);
        Ok(Some(Reply::Nodes { answers }.encode()?))
    }

    fn next_entries<L: ReadLedger + ?Sized>(
        &mut self,
        ledger: &L,
        mut entries: Entries,
    ) -> Result<Option<Vec<u8>>, SourceError<L::Error>> {
        if !entries.begun {
            let signed = ledger
                .signed_size(&entries.context)
                .map_err(SourceError::Ledger)?;
            if signed.is_none_or(|signed| signed < entries.size) {
                return Ok(Some(Reply::Refused(Refusal::NotServed).encode()?));
            }
            let begin = Reply::EntriesBegin {
                context: entries.context.clone(),
                after_sequence: entries.next,
                size: entries.size,
            };
            entries.begun = true;
            self.state = State::Entries(entries);
            return Ok(Some(begin.encode()?));
        }
        if entries.is_over()
            || entries.sent_bytes >= ENTRIES_ANSWER_BYTES
            || entries.sent_spans >= ENTRIES_ANSWER_SPANS
        {
            return Ok(None);
        }
        let Some((frame, _)) = next_span(ledger, &mut entries, SPAN_AIM_BYTES)? else {
            // There is nothing between these sizes.
            return Ok(Some(Reply::Refused(Refusal::NotServed).encode()?));
        };
        entries.sent_bytes += frame.len();
        entries.sent_spans += 1;
        self.state = State::Entries(entries);
        Ok(Some(frame))
    }
}

/// The frame of a span, and the runs that it is made of.
type SpanOf = (Vec<u8>, Vec<Vec<u8>>);

/// The next span, of about `aim_bytes` of runs, but one run at least.
pub(super) fn next_span<L: ReadLedger + ?Sized>(
    ledger: &L,
    entries: &mut Entries,
    aim_bytes: usize,
) -> Result<Option<SpanOf>, SourceError<L::Error>> {
    let (start, size) = (entries.next, entries.size);
    let mut span = Gathered::from(start);
    while !span.is_enough(size, aim_bytes)
        && let Some(run) = entries.next_run(ledger, span.end)?
    {
        if let Some(surplus) = span.add(run, size)? {
            entries.ahead.push_front(surplus);
            break;
        }
    }
    let (runs, end) = span.finish(&mut entries.ahead);
    if runs.is_empty() {
        return Ok(None);
    }
    let nodes = ContextNodes {
        ledger,
        context: &entries.context,
    };
    let right = right_build(TreeSize::new(end), TreeSize::new(size), &nodes)?;
    entries.next = end;
    let frame = Reply::span_frame(|out| encode_span(start, end, &right, &runs, out))?;
    Ok(Some((frame, runs)))
}

impl Entries {
    /// The next run, whose first entry is `after + 1`; none at the end.
    fn next_run<L: ReadLedger + ?Sized>(
        &mut self,
        ledger: &L,
        after: u64,
    ) -> Result<Option<Vec<u8>>, SourceError<L::Error>> {
        if self.ahead.is_empty() && after < self.size {
            let runs = ledger
                .runs(&self.context, after, self.size, SPAN_AIM_BYTES)
                .map_err(SourceError::Ledger)?;
            self.ahead = runs.unwrap_or_default().into();
        }
        Ok(self.ahead.pop_front())
    }
}

/// The runs of a span so far.
struct Gathered {
    runs: Vec<Vec<u8>>,
    bytes: usize,
    outside_bytes: u64,
    start: u64,
    end: u64,
    /// The last place where the span may well end: runs up to there, and size.
    aligned: (usize, u64),
}

impl Gathered {
    const fn from(start: u64) -> Self {
        Self {
            runs: Vec::new(),
            bytes: 0,
            outside_bytes: 0,
            start,
            end: start,
            aligned: (0, start),
        }
    }

    const fn is_enough(&self, size: u64, aim_bytes: usize) -> bool {
        let aligned = self.aligned.0 > 0 && self.aligned.0 == self.runs.len();
        aligned && (self.bytes >= aim_bytes || self.end == size)
    }

    /// Takes a run, or gives it back because the span is full.
    fn add(&mut self, bytes: Vec<u8>, size: u64) -> Result<Option<Vec<u8>>, RunError> {
        let run = Run::decode(&bytes)?;
        let (first, last) = (run.first(), run.last());
        if first != self.end + 1 {
            return Err(RunError::OutOfPlace {
                expected: self.end + 1,
                got: first,
            });
        }
        if last > size {
            let start = self.start;
            return Err(RunError::Span {
                start,
                end: last,
                size,
            });
        }
        let outside_bytes = self.outside_bytes + run.outside_bytes()?;
        let with_length = self.bytes + bytes.len() + 4;
        let full = with_length > SPAN_RUNS_BYTES_MAX
            || outside_bytes > SPAN_OUTSIDE_BYTES_MAX
            || self.runs.len() == SPAN_RUNS_MAX;
        if full && !self.runs.is_empty() {
            return Ok(Some(bytes));
        }
        (self.bytes, self.outside_bytes, self.end) = (with_length, outside_bytes, last);
        self.runs.push(bytes);
        if last.is_multiple_of(RUN_ENTRIES_MAX as u64) || last == size {
            self.aligned = (self.runs.len(), last);
        }
        Ok(None)
    }

    /// The runs and where they end; those behind a better end are given back.
    fn finish(mut self, ahead: &mut VecDeque<Vec<u8>>) -> (Vec<Vec<u8>>, u64) {
        let (count, end) = self.aligned;
        if count == 0 {
            return (self.runs, self.end);
        }
        for run in self.runs.drain(count..).rev() {
            ahead.push_front(run);
        }
        (self.runs, end)
    }
}

/// The rotations that the asker may lack, then the newest head. What the asker
/// shows is not verified: it can only lie about what it lacks.
fn head_reply<L: ReadLedger + ?Sized>(
    ledger: &L,
    newest: &[u8],
    head: Option<&SignedHead>,
) -> Result<Vec<u8>, SourceError<L::Error>> {
    let shown = Note::parse(newest).ok();
    let shown = shown.and_then(|note| Head::parse(note.text()).ok());
    let mut notes = Vec::new();
    if let Some(head) = head {
        let after = shown.map(|shown| shown.order());
        let rotations = ledger.rotations_after(after).map_err(SourceError::Ledger)?;
        // The newest head may be a rotation itself, and rotations above it are
        // not published yet.
        let before = rotations.iter().filter(|r| r.order() < head.order());
        let before = before.take(NOTES_PER_REPLY_MAX - 1);
        notes.extend(before.map(SignedHead::note_bytes));
        notes.push(head.note_bytes());
    }
    Ok(Reply::Head { notes }.encode()?)
}

fn consistency_reply<L: ReadLedger + ?Sized>(
    ledger: &L,
    context: ContextId,
    from: u64,
    to: u64,
) -> Result<Vec<u8>, SourceError<L::Error>> {
    let signed = ledger.signed_size(&context).map_err(SourceError::Ledger)?;
    if signed.is_none_or(|signed| signed < to) {
        return Ok(Reply::Refused(Refusal::NotServed).encode()?);
    }
    let nodes = ContextNodes {
        ledger,
        context: &context,
    };
    let (older, newer) = (TreeSize::new(from), TreeSize::new(to));
    let from_root = read_root(older, &nodes)?;
    let hashes = consistency::build(older, newer, &nodes)?;
    let reply = Reply::Consistency {
        context,
        from,
        to,
        from_root,
        hashes,
    };
    Ok(reply.encode()?)
}

fn inclusion_reply<L: ReadLedger + ?Sized>(
    ledger: &L,
    context: ContextId,
    sequence: u64,
    size: u64,
) -> Result<Vec<u8>, SourceError<L::Error>> {
    let refused = || Ok(Reply::Refused(Refusal::NotServed).encode()?);
    let signed = ledger.signed_size(&context).map_err(SourceError::Ledger)?;
    if signed.is_none_or(|signed| signed < size) || sequence > size {
        return refused();
    }
    let parts = ledger
        .entry_parts(&context, sequence)
        .map_err(SourceError::Ledger)?;
    let (Some((header, payload)), Some(index)) = (parts, sequence.checked_sub(1)) else {
        return refused();
    };
    let nodes = ContextNodes {
        ledger,
        context: &context,
    };
    let hashes = inclusion::build(LeafIndex::new(index), TreeSize::new(size), &nodes)?;
    let reply = Reply::Inclusion {
        context,
        sequence,
        size,
        header,
        payload,
        hashes,
    };
    Ok(reply.encode()?)
}

/// One context's tree, as proofs read it.
struct ContextNodes<'a, L: ?Sized> {
    ledger: &'a L,
    context: &'a ContextId,
}

impl<L: ReadLedger + ?Sized> ReadNodes for ContextNodes<'_, L> {
    type Error = L::Error;

    fn read_nodes(&self, ids: &[NodeId]) -> Result<Vec<Hash>, L::Error> {
        self.ledger.tree_nodes(self.context, ids)
    }
}
