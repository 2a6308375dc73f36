//! Loading: a context's history that comes from somewhere else, run by run, into
//! an own store (`spec/05-store.md`, Loading).
//!
//! ```text
//! new context    parts under a number without a name ... -> named record
//! known context  parts behind what it has, each a group of its own
//! ```
//!
//! What a crash leaves: of a new context nothing that anybody can see, unless
//! the record that names it is durable, and then all of it; of a known context
//! a longer prefix of the same history.
//!
//! Nothing here believes the bytes: places, times and payloads of every run are
//! checked as those of a mirror are, and a new context gets its name only if
//! size and root come out as announced. That what is put behind a known context
//! continues *its* history is shown by whoever reads the bytes, by the root at
//! the size the context has.

use std::collections::{HashMap, HashSet};
use std::sync::mpsc::sync_channel;

use super::body::{self, StoreRole};
use super::handle::{Command, Store};
use super::index::{ApplyError, ContextState, Effect, IndexError, Location};
use super::plan::Planned;
use super::record::{Group, RecordType};
use super::view::View;
use super::writer::Writer;
use super::{Inconsistency, StoreError};
use crate::entry::ContextId;
use crate::hash::Hash;
use crate::ledger::HistoryPart;
use crate::limits::{GROUP_BYTES_MAX, RECORD_HEADER_BYTES};
use crate::run::{Accumulator, CheckedPayload, Run};

/// Why a history was not loaded.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LoadError {
    /// The store is a mirror.
    #[error("this store mirrors {origin} and takes no entries of its own")]
    Mirror {
        /// Whose history it holds.
        origin: String,
    },
    /// A context of that name was made while this one was loaded. Nothing of
    /// what was loaded shows.
    #[error("context {id:?} exists by now")]
    Exists {
        /// The context.
        id: ContextId,
    },
    /// The context has grown while it was being continued. What was loaded
    /// until then stays: it was its own history.
    #[error("context {id:?} has grown meanwhile: it has {size} entries, not {expected}")]
    Grown {
        /// The context.
        id: ContextId,
        /// Entries it has.
        size: u64,
        /// Entries it was to have.
        expected: u64,
    },
    /// The history is not one: whoever read it let something pass.
    #[error("not a context's history: {0}")]
    Unsound(Inconsistency),
    /// A part is larger than a group may be.
    #[error("a part of {bytes} bytes is too large")]
    TooLarge {
        /// Bytes in it.
        bytes: usize,
    },
    /// The store could not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<IndexError> for LoadError {
    fn from(error: IndexError) -> Self {
        Self::Store(error.into())
    }
}

/// Called once when a part is durable, with the number it lies under.
pub(super) type LoadDone = Box<dyn FnOnce(Result<Option<u64>, LoadError>) + Send>;

/// Where parts go.
#[derive(Clone, Debug)]
pub(super) enum Target {
    /// Under a number that has no name; `None` until the first run.
    Unnamed(Option<u64>),
    /// Behind what a context has.
    Context(ContextId),
}

/// One step of loading.
pub(super) enum LoadStep {
    Part {
        target: Target,
        /// Entries before it.
        after: u64,
        part: HistoryPart,
    },
    Name {
        number: u64,
        id: ContextId,
        size: u64,
        root: Hash,
    },
}

/// Loads one history. Dropping it ends the attempt: a new context then never
/// comes to be, and what was written of it is never shown.
#[derive(Debug)]
pub struct Loader {
    store: Store,
    id: ContextId,
    target: Target,
    size: u64,
}

impl Store {
    /// Begins to load the history of a context; [`Loader::size`] says behind
    /// how many entries.
    pub fn loader(&self, id: &ContextId) -> Result<Loader, LoadError> {
        if self.view().role() == StoreRole::Mirror {
            let origin = self.view().origin().name().to_string();
            return Err(LoadError::Mirror { origin });
        }
        let size = self.view().size(id)?;
        Ok(Loader {
            store: self.clone(),
            id: id.clone(),
            target: match size {
                Some(_) => Target::Context(id.clone()),
                None => Target::Unnamed(None),
            },
            size: size.unwrap_or(0),
        })
    }
}

impl Loader {
    /// Entries that are there: the next part begins behind them.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Stores a part and waits until it is durable.
    pub fn push(&mut self, part: HistoryPart) -> Result<(), LoadError> {
        let last = part.runs.last().map(|bytes| Run::decode(bytes));
        let size = match last {
            Some(run) => run
                .map_err(|error| LoadError::Unsound(error.into()))?
                .last(),
            None => self.size,
        };
        let step = LoadStep::Part {
            target: self.target.clone(),
            after: self.size,
            part,
        };
        let number = self.step(step)?;
        if let Target::Unnamed(known) = &mut self.target {
            *known = number;
        }
        self.size = size;
        Ok(())
    }

    /// Ends loading. A new context exists from here on, if it has this root.
    /// Returns its size.
    pub fn finish(self, root: Hash) -> Result<u64, LoadError> {
        if let Target::Unnamed(Some(number)) = self.target {
            self.step(LoadStep::Name {
                number,
                id: self.id.clone(),
                size: self.size,
                root,
            })?;
        }
        Ok(self.size)
    }

    fn step(&self, step: LoadStep) -> Result<Option<u64>, LoadError> {
        let (sender, receiver) = sync_channel(1);
        let cost = step.cost_bytes();
        let done: LoadDone = Box::new(move |outcome| _ = sender.send(outcome));
        self.store.queue(cost, Command::Load { step, done });
        receiver
            .recv()
            .unwrap_or_else(|_| Err(self.store.closed().into()))
    }
}

impl LoadStep {
    /// Bytes it holds: never 0, so that it waits while the index is behind.
    fn cost_bytes(&self) -> usize {
        match self {
            Self::Part { part, .. } => part_bytes(part),
            Self::Name { id, .. } => RECORD_HEADER_BYTES + id.as_str().len(),
        }
    }
}

/// Bytes of the records of a part, at most.
fn part_bytes(part: &HistoryPart) -> usize {
    let record = |len: usize| len + 3 * RECORD_HEADER_BYTES;
    let runs = part.runs.iter().map(|run| record(run.len()));
    let payloads = part.payloads.iter().map(|p| record(p.bytes().len()));
    RECORD_HEADER_BYTES + runs.sum::<usize>() + payloads.sum::<usize>()
}

impl Writer {
    pub(super) fn load(&mut self, step: LoadStep) -> Result<Option<u64>, LoadError> {
        if self.signer.is_none() {
            return Err(StoreError::Refused("a mirror loads nothing").into());
        }
        match step {
            LoadStep::Part {
                target,
                after,
                part,
            } => self.load_part(&target, after, &part),
            LoadStep::Name {
                number,
                id,
                size,
                root,
            } => self.name(number, id, size, root).map(Some),
        }
    }

    fn load_part(
        &mut self,
        target: &Target,
        after: u64,
        part: &HistoryPart,
    ) -> Result<Option<u64>, LoadError> {
        let bytes = part_bytes(part);
        if bytes > GROUP_BYTES_MAX {
            return Err(LoadError::TooLarge { bytes });
        }
        let state = self.view.loaded_state(target, after)?;
        // Reads what is stored, so not under the lock of the index.
        let payloads = self.view.payloads_wanting(&part.payloads)?;
        let (number, effects) = {
            let index = self.view.index();
            let number = match &state {
                Some(state) => state.number,
                None => index.next_number(),
            };
            let base = state.as_ref().map(|state| state.after.clone());
            let brought: HashMap<Hash, usize> = part
                .payloads
                .iter()
                .map(|p| (p.hash(), p.bytes().len()))
                .collect();
            let brought = |hash: &Hash, len: u32| brought.get(hash) == Some(&(len as usize));
            let run_effect = |base: &Accumulator, bytes: &[u8]| {
                Run::decode(bytes)?.check_payloads()?;
                index.run_effect(number, base, bytes, Location::default(), brought)
            };
            let effects = chain(base.unwrap_or_default(), &part.runs, run_effect);
            (number, effects.map_err(from_apply)?)
        };
        let mut group = Group::reusing(self.log.take_spare());
        let mut placed = Vec::with_capacity(payloads.len() + effects.len());
        for payload in payloads {
            let (offset, len) = group.add(RecordType::Payload, |out| {
                out.extend_from_slice(payload.hash().as_bytes());
                out.extend_from_slice(payload.bytes());
            });
            placed.push((offset, len, Effect::payload(payload.hash())));
        }
        for (run, effect) in part.runs.iter().zip(effects) {
            let (offset, len) = group.add(RecordType::Run, |out| {
                out.extend_from_slice(&number.to_le_bytes());
                out.extend_from_slice(run);
            });
            placed.push((offset, len, effect));
        }
        let planned = Planned {
            touched: state.iter().cloned().collect(),
            ..Planned::new(group, placed)
        };
        self.commit(planned)?;
        let begun = state.is_some() || !part.runs.is_empty();
        Ok(begun.then_some(number))
    }

    /// The commit of a new context: from here on it exists.
    fn name(
        &mut self,
        number: u64,
        id: ContextId,
        size: u64,
        root: Hash,
    ) -> Result<u64, LoadError> {
        let state = self
            .view
            .loaded_state(&Target::Unnamed(Some(number)), size)?;
        if self.view.state(&id)?.is_some() {
            return Err(LoadError::Exists { id });
        }
        let state = state.filter(|state| size > 0 && state.after.root() == root);
        let Some(state) = state else {
            let what = "it has another root than it was said to have";
            return Err(LoadError::Unsound(Inconsistency::Rule(what)));
        };
        let mut group = Group::reusing(self.log.take_spare());
        let (offset, len) = group.add(RecordType::Named, |out| {
            body::put_named(number, size, &root, &id, out);
        });
        let effect = Effect::Named {
            number,
            id,
            size,
            root,
            at: Location::default(),
        };
        self.commit(Planned {
            touched: vec![state],
            ..Planned::new(group, vec![(offset, len, effect)])
        })?;
        Ok(number)
    }
}

impl View {
    /// What a part continues: the state of its target, which must have `after`
    /// entries; `None` if it is to be begun.
    fn loaded_state(&self, target: &Target, after: u64) -> Result<Option<ContextState>, LoadError> {
        let lost = || self.lose("the index does not know what is being loaded");
        let state = match target {
            Target::Unnamed(None) => return Ok(None),
            Target::Unnamed(Some(number)) => {
                let state = self.state_of_number(*number)?;
                let state = state.filter(|s| s.name.is_none() && s.after.size() == after);
                state.ok_or_else(lost)?
            }
            Target::Context(id) => {
                let state = self.state(id)?.ok_or_else(lost)?;
                let size = state.after.size();
                if size != after {
                    return Err(LoadError::Grown {
                        id: id.clone(),
                        size,
                        expected: after,
                    });
                }
                state
            }
        };
        Ok(Some(state))
    }

    /// Those payloads that are not stored, or not intact, each once.
    fn payloads_wanting<'p>(
        &self,
        payloads: &'p [CheckedPayload],
    ) -> Result<Vec<&'p CheckedPayload>, StoreError> {
        let mut seen = HashSet::new();
        let mut wanting = Vec::new();
        for payload in payloads {
            if seen.insert(payload.hash()) && !self.payload_intact(&payload.hash())? {
                wanting.push(payload);
            }
        }
        Ok(wanting)
    }
}

/// The effects of runs that follow each other.
fn chain(
    mut base: Accumulator,
    runs: &[Vec<u8>],
    effect: impl Fn(&Accumulator, &[u8]) -> Result<Effect, ApplyError>,
) -> Result<Vec<Effect>, ApplyError> {
    let mut effects = Vec::with_capacity(runs.len());
    for run in runs {
        let next = effect(&base, run)?;
        if let Effect::Run { after, .. } = &next {
            base = (**after).clone();
        }
        effects.push(next);
    }
    Ok(effects)
}

fn from_apply(error: ApplyError) -> LoadError {
    match error {
        ApplyError::Index(error) => error.into(),
        ApplyError::Log(error) => LoadError::Unsound(error),
    }
}
