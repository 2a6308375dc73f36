//! Layer 3. The source's half of a push: what a mirror that is complete at one
//! head would ask for to be complete at the next, in the frames that it would be
//! answered with.
//!
//! ```text
//!  Nodes ... | EntriesBegin Span, per context ... | Payload ... | Head
//! ```
//!
//! The source runs the mirror's own descent against itself, from the base that it
//! told last, or that the asker showed.
//!
//! Invariants:
//! * what is pushed is whole, or nothing is: never more than [`PUSH_BYTES_MAX`] and
//!   [`PUSH_FRAMES_MAX`], which is also all that is held of it;
//! * a base is only a hash until its nodes are found here: an asker that makes one
//!   up is told the head alone;
//! * a context has one span, which ends at its signed size.

use std::collections::{HashSet, VecDeque};

use super::message::{NodeAnswer, Reply, node_answer_bytes};
use super::source::{Entries, SourceError, next_span};
use crate::directory::diff::Changed;
use crate::directory::{Diff, DiffError, LoadError, ReadDirectory, Sums};
use crate::entry::ContextId;
use crate::hash::Hash;
use crate::head::Head;
use crate::ledger::ReadLedger;
use crate::limits::{
    NODES_PER_REQUEST_MAX, PUSH_BYTES_MAX, PUSH_CONTEXTS_MAX, PUSH_FRAMES_MAX, PUSH_NODES_MAX,
    PUSH_PAYLOADS_MAX,
};
use crate::run::Run;

/// The frames that lead from `base`, a directory root, to `head`; none if they do
/// not fit, or if not all of it is served here.
pub(super) fn push<L: ReadLedger + ?Sized>(
    ledger: &L,
    base: &Hash,
    head: &Head,
) -> Result<VecDeque<Vec<u8>>, SourceError<L::Error>> {
    let mut push = Push::default();
    let whole = match push.nodes(ledger, base, head)? {
        None => false,
        Some(changed) => push.all_entries(ledger, &changed)? && push.payloads(ledger)?,
    };
    Ok(if whole { push.frames } else { VecDeque::new() })
}

/// A push being made. A step that returns false, or nothing, has found that there
/// is none.
#[derive(Default)]
struct Push {
    frames: VecDeque<Vec<u8>>,
    bytes: usize,
    /// Payloads that the spans refer to, in their order.
    outside: Vec<(Hash, u32)>,
    known: HashSet<Hash>,
}

impl Push {
    fn add(&mut self, frame: Vec<u8>) -> bool {
        let fits = frame.len() <= self.room() && self.frames.len() < PUSH_FRAMES_MAX;
        if fits {
            self.bytes += frame.len();
            self.frames.push_back(frame);
        }
        fits
    }

    const fn room(&self) -> usize {
        PUSH_BYTES_MAX - self.bytes
    }

    /// The descent: every node on the way, and the contexts at its end.
    fn nodes<L: ReadLedger + ?Sized>(
        &mut self,
        ledger: &L,
        base: &Hash,
        head: &Head,
    ) -> Result<Option<Vec<Changed>>, SourceError<L::Error>> {
        let sums = Sums {
            contexts: head.contexts,
            entries: head.entries,
        };
        let mut diff = match Diff::new(Own(ledger), base, &head.directory_root, sums) {
            Ok(diff) => diff,
            Err(error) => return no_way(error),
        };
        let (mut answers, mut changed) = (Vec::new(), Vec::new());
        while !diff.is_done() {
            let hashes = diff.wanted(NODES_PER_REQUEST_MAX);
            if hashes.is_empty() || answers.len() + hashes.len() > PUSH_NODES_MAX {
                return Ok(None);
            }
            for hash in hashes {
                let Some(node) = ledger.opened_node(&hash).map_err(SourceError::Ledger)? else {
                    return Ok(None);
                };
                if let Err(error) = diff.supply(&hash, &node.node, node.openings.clone()) {
                    return no_way(error);
                }
                let node = Some(node);
                answers.push(NodeAnswer { hash, node });
            }
            changed.extend(diff.take_changed());
            if changed.len() > PUSH_CONTEXTS_MAX {
                return Ok(None);
            }
        }
        for answers in answers.chunks(NODES_PER_REQUEST_MAX) {
            let bytes: usize = answers.iter().map(node_answer_bytes).sum();
            if bytes > self.room() {
                return Ok(None);
            }
            let answers = answers.to_vec();
            if !self.add(Reply::Nodes { answers }.encode()?) {
                return Ok(None);
            }
        }
        Ok(Some(changed))
    }

    fn all_entries<L: ReadLedger + ?Sized>(
        &mut self,
        ledger: &L,
        changed: &[Changed],
    ) -> Result<bool, SourceError<L::Error>> {
        for context in changed {
            if !self.entries(ledger, context)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn entries<L: ReadLedger + ?Sized>(
        &mut self,
        ledger: &L,
        changed: &Changed,
    ) -> Result<bool, SourceError<L::Error>> {
        let opening = &changed.opening;
        let Ok(context) = ContextId::new(&opening.id) else {
            return Ok(false);
        };
        let after_sequence = changed.local.as_ref().map_or(0, |held| held.entries);
        let mut entries = Entries::new(context.clone(), after_sequence, opening.size);
        let Some((span, runs)) = next_span(ledger, &mut entries, self.room())? else {
            return Ok(false);
        };
        let whole = entries.is_over() && span.len() <= self.room();
        if !whole || !self.note_payloads(&runs)? {
            return Ok(false);
        }
        let begin = Reply::EntriesBegin {
            context,
            after_sequence,
            size: opening.size,
        };
        Ok(self.add(begin.encode()?) && self.add(span))
    }

    /// False if there are too many.
    fn note_payloads<E>(&mut self, runs: &[Vec<u8>]) -> Result<bool, SourceError<E>> {
        for run in runs {
            for entry in Run::decode(run)?.entries() {
                let header = match entry? {
                    entry if entry.inline_payload.is_some() => continue,
                    entry => entry.header,
                };
                if self.known.insert(header.payload_hash) {
                    self.outside.push((header.payload_hash, header.payload_len));
                }
                if self.outside.len() > PUSH_PAYLOADS_MAX {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    fn payloads<L: ReadLedger + ?Sized>(
        &mut self,
        ledger: &L,
    ) -> Result<bool, SourceError<L::Error>> {
        let outside = std::mem::take(&mut self.outside);
        let lens = outside.iter().map(|(_, len)| u64::from(*len));
        // Nothing is read that cannot fit.
        if lens.sum::<u64>() > self.room() as u64 {
            return Ok(false);
        }
        for (hash, _) in outside {
            let bytes = ledger.outside_payload(&hash).map_err(SourceError::Ledger)?;
            if bytes.is_none() || !self.add(Reply::Payload { hash, bytes }.encode()?) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// A ledger's directory, as the descent reads its own side.
struct Own<'l, L: ?Sized>(&'l L);

impl<L: ReadLedger + ?Sized> ReadDirectory for Own<'_, L> {
    type Error = L::Error;

    fn directory_node(&self, hash: &Hash) -> Result<Option<Vec<u8>>, L::Error> {
        Ok(self.0.opened_node(hash)?.map(|opened| opened.node))
    }
}

/// The base is not known here, or the head does not follow from it: whoever asked
/// has another history, or an old one, and finds out from the head.
fn no_way<T, E>(error: DiffError<E>) -> Result<Option<T>, SourceError<E>>
where
    E: std::error::Error + Send + Sync + 'static,
{
    match error {
        DiffError::Local(LoadError::Read(error)) => Err(SourceError::Ledger(error)),
        _ => Ok(None),
    }
}
