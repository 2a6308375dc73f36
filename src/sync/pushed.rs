//! Layer 3. The mirror's half of a push: what a source that is followed tells, frame
//! by frame, and the answers that came before they were asked for.
//!
//! ```text
//!  frames --> Telling --> Told { notes, Pushed } --> Mirror::start_from
//!                                        |
//!              the engine's own requests +--> answered from here, or by the peer
//! ```
//!
//! Nothing here is verified but its form: the engine asks what it would ask anyway,
//! and what is answered from here goes the way of what a peer answers. So a push is
//! worth nothing more than a peer's word, and what is wrong in it is the peer's
//! fault. An answer is taken out when it is used: no question is answered twice.
//!
//! A request is answered from here if the whole of its answer is here. Everything
//! else is asked for, which is all that a push to a mirror at another base costs.

use std::collections::HashMap;

use super::error::PeerFault;
use super::message::{FRAME_HEADER_BYTES, NodeAnswer, Reply, Request};
use crate::entry::ContextId;
use crate::hash::Hash;
use crate::head::{Head, HeadError, HeadOrder};
use crate::ledger::OpenedNode;
use crate::limits::{PUSH_BYTES_MAX, PUSH_FRAMES_MAX};
use crate::note::Note;

/// What a source that is followed tells on one stream.
#[derive(Debug, Default)]
pub struct Telling {
    newest: Option<HeadOrder>,
    pushed: Pushed,
    frames: usize,
}

/// A head that was told, and what came with it. Only a sync with the peer that told
/// it may begin from it: that peer is blamed for what is wrong.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// The rotations before it and its note, last, as they were told.
    pub notes: Vec<Vec<u8>>,
    /// What came before the head.
    pub pushed: Pushed,
    /// Bytes of all these frames.
    pub received_bytes: u64,
}

/// Answers to requests that were not made yet, at most
/// [`PUSH_BYTES_MAX`] of them.
#[derive(Clone, Debug, Default)]
pub struct Pushed {
    bytes: usize,
    nodes: HashMap<Hash, OpenedNode>,
    entries: HashMap<Extent, Vec<Vec<u8>>>,
    /// What spans belong to that come now.
    begun: Option<Extent>,
    payloads: HashMap<Hash, Vec<u8>>,
}

/// What an Entries request is about: context, entries before, signed size.
type Extent = (ContextId, u64, u64);

/// The whole answer to a request.
#[derive(Debug)]
pub(super) enum Answered {
    Nodes(Vec<NodeAnswer>),
    Entries(Extent, Vec<Vec<u8>>),
    Payloads(Vec<(Hash, Vec<u8>)>),
}

impl Telling {
    /// The next frame on the stream; a head ends what was pushed with it. Heads
    /// must rise, as far as their text says: nobody may make a mirror look at the
    /// same for ever.
    pub fn frame(&mut self, frame: &[u8]) -> Result<Option<Told>, PeerFault> {
        match Reply::decode(frame)? {
            Reply::Head { notes } => self.head(notes, frame.len()).map(Some),
            Reply::Refused(refusal) => Err(PeerFault::Refused { refusal }),
            reply => {
                self.frames += 1;
                let bytes = self.pushed.bytes.saturating_add(frame.len());
                if self.frames > PUSH_FRAMES_MAX || bytes > PUSH_BYTES_MAX {
                    return Err(PeerFault::Surplus { what: "a push" });
                }
                self.pushed.bytes = bytes;
                self.pushed.take(reply)?;
                Ok(None)
            }
        }
    }

    fn head(&mut self, notes: Vec<Vec<u8>>, frame_bytes: usize) -> Result<Told, PeerFault> {
        let what = "no head was told";
        let newest = notes.last().ok_or(PeerFault::WrongReply { what })?;
        let note = Note::parse(newest).map_err(HeadError::from)?;
        let order = Head::parse(note.text())?.order();
        if self.newest.is_some_and(|newest| newest >= order) {
            let what = "a head was told that is not newer";
            return Err(PeerFault::WrongReply { what });
        }
        self.newest = Some(order);
        self.frames = 0;
        let pushed = std::mem::take(&mut self.pushed);
        let received_bytes = (pushed.bytes + frame_bytes) as u64;
        Ok(Told {
            notes,
            pushed,
            received_bytes,
        })
    }
}

impl Pushed {
    /// What no source pushes is refused, the same twice too.
    fn take(&mut self, reply: Reply<'_>) -> Result<(), PeerFault> {
        let wrong = |what| Err(PeerFault::WrongReply { what });
        if !matches!(reply, Reply::Span(_)) {
            self.begun = None;
        }
        let again = match reply {
            Reply::Nodes { answers } => {
                let mut again = false;
                for NodeAnswer { hash, node } in answers {
                    let what = "directory node";
                    let node = node.ok_or(PeerFault::Missing { what, hash })?;
                    again |= self.nodes.insert(hash, node).is_some();
                }
                again
            }
            Reply::EntriesBegin {
                context,
                after_sequence,
                size,
            } => {
                let extent = (context, after_sequence, size);
                self.begun = Some(extent.clone());
                self.entries.insert(extent, Vec::new()).is_some()
            }
            Reply::Span(span) => {
                let begun = self.begun.as_ref();
                let Some(spans) = begun.and_then(|extent| self.entries.get_mut(extent)) else {
                    return wrong("no beginning of entries");
                };
                spans.push(span.to_vec());
                false
            }
            Reply::Payload { hash, bytes } => {
                let what = "payload";
                let bytes = bytes.ok_or(PeerFault::Missing { what, hash })?;
                self.payloads.insert(hash, bytes).is_some()
            }
            _ => return wrong("a push of another kind"),
        };
        if again {
            return wrong("a push of the same twice");
        }
        Ok(())
    }

    /// Takes out the whole answer to `request`, if it is here.
    pub(super) fn answer(&mut self, request: &Request) -> Option<Answered> {
        match request {
            Request::Nodes { hashes } => {
                let nodes = take_all(&mut self.nodes, hashes)?.into_iter();
                let answer = |(hash, node)| NodeAnswer {
                    hash,
                    node: Some(node),
                };
                Some(Answered::Nodes(nodes.map(answer).collect()))
            }
            Request::Entries {
                context,
                after_sequence,
                size,
            } => {
                let extent = (context.clone(), *after_sequence, *size);
                let (extent, spans) = self.entries.remove_entry(&extent)?;
                Some(Answered::Entries(extent, spans))
            }
            Request::Payloads { hashes } => {
                take_all(&mut self.payloads, hashes).map(Answered::Payloads)
            }
            _ => None,
        }
    }
}

/// All of them in this order, or none.
fn take_all<T>(held: &mut HashMap<Hash, T>, hashes: &[Hash]) -> Option<Vec<(Hash, T)>> {
    if !hashes.iter().all(|hash| held.contains_key(hash)) {
        return None;
    }
    let taken = hashes.iter().filter_map(|hash| held.remove_entry(hash));
    Some(taken.collect())
}

impl Answered {
    /// The replies that it is made of, each with the bytes of its frame.
    pub(super) fn replies(&mut self) -> Vec<(Reply<'_>, usize)> {
        match self {
            Self::Nodes(answers) => {
                let answers = std::mem::take(answers);
                vec![(Reply::Nodes { answers }, 0)]
            }
            Self::Entries((context, after_sequence, size), spans) => {
                let begin = Reply::EntriesBegin {
                    context: context.clone(),
                    after_sequence: *after_sequence,
                    size: *size,
                };
                let span = |span| (Reply::Span(span), FRAME_HEADER_BYTES + span.len());
                let spans = spans.iter().map(|bytes| span(bytes));
                std::iter::once((begin, 0)).chain(spans).collect()
            }
            Self::Payloads(payloads) => {
                let payload = |(hash, bytes)| {
                    let bytes = Some(bytes);
                    (Reply::Payload { hash, bytes }, 0)
                };
                std::mem::take(payloads).into_iter().map(payload).collect()
            }
        }
    }
}

#[cfg(test)]
mod tests;
