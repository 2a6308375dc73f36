//! Layer 3. A mirror's store that stores nothing: for the full audit of a
//! source, whose every byte is verified by the mirror's engine and then
//! forgotten.
//!
//! Invariants:
//! * it takes items only in the order a store would: a seen head, spans of its
//!   contexts, each from where the last one ended up to the signed size and
//!   root, and completion only when nothing is left;
//! * memory: the openings of one head, an accumulator per context that is under
//!   way, and the hashes of a bounded number of payloads.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::directory::ReadDirectory;
use crate::encoding::DecodeError;
use crate::entry::ContextId;
use crate::hash::Hash;
use crate::head::SignedHead;
use crate::ledger::{ForkState, Ingest, ReadMirror, SeenHead, StoreMirror, WhenStored};
use crate::note::VerifierKey;
use crate::run::{Accumulator, CheckedPayload, CheckedSpan, Run};
use crate::tree::NodeId;

/// Payloads remembered as checked: one that is used again later is fetched
/// again.
pub const CHECKED_PAYLOADS_MAX: usize = 1 << 16;

/// An item that does not continue what came before it: a fault of ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ForgetfulError {
    /// The item is out of order.
    #[error("an audit was handed {0}")]
    OutOfOrder(&'static str),
    /// A run that was verified before does not decode.
    #[error("a verified run: {0}")]
    Run(#[from] DecodeError),
    /// Asked for what is not kept.
    #[error("an audit keeps no tree")]
    Forgotten,
}

#[derive(Debug, Default)]
struct State {
    complete: Option<SignedHead>,
    pending: Option<SignedHead>,
    rotations: Vec<SignedHead>,
    /// Signed size and root of every context that is not whole yet.
    left: HashMap<String, (u64, Hash)>,
    under_way: HashMap<String, Accumulator>,
    payloads: HashSet<Hash>,
    payloads_order: VecDeque<Hash>,
    contexts: u64,
    payload_bytes: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Forgetful {
    pinned: VerifierKey,
    state: Mutex<State>,
}

impl Forgetful {
    /// Knows nothing but the origin's key.
    #[must_use]
    pub fn new(pinned: VerifierKey) -> Self {
        Self {
            pinned,
            state: Mutex::default(),
        }
    }

    /// Contexts that were whole, and bytes of payloads of all entries.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        let state = self.state();
        (state.contexts, state.payload_bytes)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each item is taken whole or not at all.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, item: Ingest) -> Result<(), ForgetfulError> {
        let mut state = self.state();
        match item {
            Ingest::Seen(seen) => state.seen(seen),
            Ingest::Payloads(payloads) => {
                state.remember(&payloads);
                Ok(())
            }
            Ingest::Span { span, payloads } => {
                state.remember(&payloads);
                state.span(&span)
            }
            Ingest::Complete(head) => state.complete(head),
            Ingest::Rotation(head) => {
                state.rotations.push(head);
                Ok(())
            }
            // The engine's error carries it.
            Ingest::Evidence(_) => Ok(()),
        }
    }
}

impl State {
    fn seen(&mut self, seen: SeenHead) -> Result<(), ForgetfulError> {
        if self.pending.is_some() || self.complete.is_some() {
            return Err(ForgetfulError::OutOfOrder("a second head"));
        }
        self.pending = Some(seen.head);
        let openings = seen.openings.into_iter();
        self.left = openings.map(|o| (o.id, (o.size, o.root))).collect();
        Ok(())
    }

    fn span(&mut self, span: &CheckedSpan) -> Result<(), ForgetfulError> {
        let id = span.id().as_str();
        let Some(&(size, root)) = self.left.get(id) else {
            return Err(ForgetfulError::OutOfOrder("a span of no context"));
        };
        let own = self.under_way.get(id).map_or(0, Accumulator::size);
        if span.start() != own || span.end() > size {
            return Err(ForgetfulError::OutOfOrder("a span out of place"));
        }
        if !span
            .outside_payloads()
            .iter()
            .all(|(hash, _)| self.payloads.contains(hash))
            && self.payloads_order.len() < CHECKED_PAYLOADS_MAX
        {
            return Err(ForgetfulError::OutOfOrder("a span before its payloads"));
        }
        for run in span.runs() {
            for entry in Run::decode(run)?.entries() {
                let bytes = u64::from(entry?.header.payload_len);
                self.payload_bytes = self.payload_bytes.saturating_add(bytes);
            }
        }
        if span.end() < size {
            self.under_way.insert(id.to_owned(), span.after().clone());
            return Ok(());
        }
        if span.after().root() != root {
            return Err(ForgetfulError::OutOfOrder("a context with another root"));
        }
        self.under_way.remove(id);
        self.left.remove(id);
        self.contexts += 1;
        Ok(())
    }

    fn complete(&mut self, head: SignedHead) -> Result<(), ForgetfulError> {
        if self.pending.take().as_ref() != Some(&head) || !self.left.is_empty() {
            return Err(ForgetfulError::OutOfOrder("a head that is not complete"));
        }
        self.complete = Some(head);
        Ok(())
    }

    fn remember(&mut self, payloads: &[CheckedPayload]) {
        for payload in payloads {
            if self.payloads.insert(payload.hash()) {
                self.payloads_order.push_back(payload.hash());
            }
        }
        while self.payloads_order.len() > CHECKED_PAYLOADS_MAX
            && let Some(oldest) = self.payloads_order.pop_front()
        {
            self.payloads.remove(&oldest);
        }
    }
}

impl ReadDirectory for Forgetful {
    type Error = ForgetfulError;

    fn directory_node(&self, _: &Hash) -> Result<Option<Vec<u8>>, ForgetfulError> {
        // Everything is new to it.
        Ok(None)
    }
}

impl ReadMirror for Forgetful {
    type Failure = ForgetfulError;

    fn complete_head(&self) -> Result<Option<SignedHead>, ForgetfulError> {
        Ok(self.state().complete.clone())
    }

    fn seen_heads(&self) -> Result<Vec<SeenHead>, ForgetfulError> {
        Ok(Vec::new())
    }

    fn accumulator(&self, id: &ContextId) -> Result<Accumulator, ForgetfulError> {
        let state = self.state();
        Ok(state
            .under_way
            .get(id.as_str())
            .cloned()
            .unwrap_or_default())
    }

    fn has_outside_payload(&self, hash: &Hash) -> Result<bool, ForgetfulError> {
        Ok(self.state().payloads.contains(hash))
    }

    fn origin_key(&self) -> VerifierKey {
        let state = self.state();
        let newest = state.rotations.last().map(SignedHead::next_key);
        newest.unwrap_or(&self.pinned).clone()
    }

    fn pinned_key(&self) -> VerifierKey {
        self.pinned.clone()
    }

    fn rotations(&self) -> Result<Vec<SignedHead>, ForgetfulError> {
        Ok(self.state().rotations.clone())
    }

    fn root_at(&self, _: &ContextId, _: u64) -> Result<Option<Hash>, ForgetfulError> {
        Ok(None)
    }

    fn tree_nodes(&self, _: &ContextId, _: &[NodeId]) -> Result<Vec<Hash>, ForgetfulError> {
        Err(ForgetfulError::Forgotten)
    }

    fn fork(&self) -> Result<Option<ForkState>, ForgetfulError> {
        Ok(None)
    }

    fn context_at(&self, _: &Hash) -> Result<Option<ContextId>, ForgetfulError> {
        Ok(None)
    }
}

impl StoreMirror for Forgetful {
    type View = Self;

    fn view(&self) -> &Self {
        self
    }

    fn ingest(&self, item: Ingest, done: WhenStored<ForgetfulError>) {
        done(self.take(item));
    }
}
