//! Group commit's thinking without its I/O: from the state and the drafts of
//! one group to records, effects and answers. Nothing here writes, and nothing
//! here is visible before the group is durable.
//!
//! A request is all or nothing: it is resolved first (places, times, request
//! ids), which can fail and then leaves no trace, and built second, which
//! cannot.

use std::collections::{HashMap, HashSet};

use super::index::{
    ContextState, Effect, FactsBuilder, IndexError, Location, RequestKey, RunFacts, request_key,
};
use super::record::{Group, Position, RecordType};
use super::{AppendError, Appended, StoreError};
use crate::entry::{ContextId, Draft, Entry, leaf_hashes};
use crate::hash::Hash;
use crate::lamport;
use crate::limits::{PAYLOAD_INLINE_BYTES_MAX, SEQUENCE_MAX};
use crate::run::{Accumulator, RunBuilder, RunHeaders};

/// What planning reads of the store.
pub(crate) trait PlanState {
    /// The state of a context.
    fn context(&self, id: &ContextId) -> Result<Option<ContextState>, IndexError>;
    /// The number the next new context gets.
    fn next_number(&self) -> u64;
    /// The sequence a request id was used for.
    fn request(&self, number: u64, key: &RequestKey) -> Result<Option<u64>, IndexError>;
    /// A stored entry, verified.
    fn entry(&self, id: &ContextId, sequence: u64) -> Result<Entry, StoreError>;
    /// True if a payload is stored and its bytes still verify.
    fn payload_intact(&self, hash: &Hash) -> Result<bool, StoreError>;
}

/// One context this group touches.
struct Work {
    id: ContextId,
    /// The state before the group; its leaves are hashed when they are written.
    before: ContextState,
    /// False if the group names it.
    known: bool,
    /// Where the group has taken it.
    tip: Tip,
    run: RunBuilder,
    /// Of the run being built.
    facts: FactsBuilder,
    requests: Vec<(RequestKey, u64)>,
}

/// A run of the group whose leaves are still to be hashed.
struct PlannedRun {
    offset: u64,
    body_len: u32,
    work: usize,
    first: u64,
    /// Lamport and wall-clock time of its last entry.
    times: (u64, u64),
    headers: RunHeaders,
    facts: RunFacts,
    requests: Vec<(RequestKey, u64)>,
}

/// The answer to one draft. The id of an entry that is new is filled in by
/// [`Hashed::fill`].
#[derive(Clone)]
pub(crate) struct Answer {
    appended: Appended,
    /// Which of the group's contexts it is in; `None` if the id is known.
    work: Option<usize>,
}

/// How one draft was resolved.
enum Resolved {
    New {
        work: usize,
        request: Option<RequestKey>,
        sequence: u64,
        lamport: u64,
        appended_at_ns: u64,
    },
    /// The request id was used before, for the same content.
    Stored(Answer),
    /// The same, by an earlier draft of this very request.
    Repeated(usize),
}

/// Where a context stands while one request is resolved.
#[derive(Clone, Copy)]
struct Tip {
    sequence: u64,
    lamport: u64,
    appended_at_ns: u64,
}

/// A group being planned.
pub(crate) struct Plan<'s, S> {
    state: &'s S,
    now_ns: u64,
    group: Group,
    works: Vec<Work>,
    /// The number the next context gets that is new in this group.
    next_number: u64,
    by_id: HashMap<ContextId, usize>,
    /// Request ids of this group: where they were answered.
    requests: HashMap<(u64, RequestKey), Answered>,
    /// Large payloads that are in this group, or in the store and intact.
    payloads: HashSet<Hash>,
    effects: Vec<(u64, u32, Effect)>,
    runs: Vec<PlannedRun>,
    /// Drafts that are built: freed after the group is answered, not before.
    spent: Vec<Draft>,
}

/// A request id answered within the group.
#[derive(Clone)]
pub(crate) struct Answered {
    answer: Answer,
    draft: Draft,
}

/// A planned group: its records, and what becomes visible with them.
pub(crate) struct Planned {
    pub(crate) group: Group,
    pub(crate) effects: Vec<(u64, u32, Effect)>,
    pub(crate) unhashed: Unhashed,
    /// Known contexts that the effects are about, as they are before them.
    pub(crate) touched: Vec<ContextState>,
    pub(crate) spent: Spent,
}

/// What planning has used up. Freeing it takes time that nobody needs to wait
/// for.
#[derive(Default)]
pub(crate) struct Spent {
    _drafts: Vec<Draft>,
    _named: HashMap<(u64, RequestKey), Answered>,
}

/// Runs whose leaves are hashed while the group is written and synced.
#[derive(Default)]
pub(crate) struct Unhashed {
    runs: Vec<PlannedRun>,
    /// Number and state before the group of each context.
    works: Vec<(u64, Accumulator)>,
}

/// What hashing a group's runs gave.
pub(crate) struct Hashed {
    pub(crate) effects: Vec<(u64, u32, Effect)>,
    /// Per context of the group: size before it, and its new leaves.
    leaves: Vec<(u64, Vec<Hash>)>,
}

impl Unhashed {
    /// Hashes the leaves of all runs, and what they make of their trees. `None`
    /// would be a defect of the plan.
    pub(crate) fn hash(self) -> Option<Hashed> {
        let mut works = self.works;
        let mut leaves: Vec<(u64, Vec<Hash>)> = works
            .iter()
            .map(|(_, before)| (before.size(), Vec::new()))
            .collect();
        let mut effects = Vec::with_capacity(self.runs.len());
        for run in self.runs {
            let (number, after) = works.get_mut(run.work)?;
            let (_, hashed) = leaves.get_mut(run.work)?;
            let mut nodes = Vec::new();
            let headers: Vec<&[u8]> = run.headers.iter().collect();
            let new = leaf_hashes(&headers);
            let report = |id, hash| {
                if super::index::is_tile_node(id) {
                    nodes.push((id, hash));
                }
            };
            after.frontier.append_all(&new, report).ok()?;
            hashed.extend(new);
            (after.lamport, after.appended_at_ns) = run.times;
            let effect = Effect::Run {
                number: *number,
                first: run.first,
                at: Location::default(),
                after: Box::new(after.clone()),
                nodes,
                requests: run.requests,
                facts: Box::new(run.facts),
            };
            effects.push((run.offset, run.body_len, effect));
        }
        Some(Hashed { effects, leaves })
    }
}

impl Hashed {
    /// Fills the ids of new entries in. `None` if one was not hashed, which
    /// would be a defect of the plan.
    pub(crate) fn fill(&self, answers: Vec<Answer>) -> Option<Vec<Appended>> {
        let fill = |Answer { mut appended, work }| {
            if let Some(work) = work {
                let (before, leaves) = self.leaves.get(work)?;
                let at = appended.sequence.checked_sub(before + 1)?;
                appended.id = *leaves.get(usize::try_from(at).ok()?)?;
            }
            Some(appended)
        };
        answers.into_iter().map(fill).collect()
    }
}

impl Planned {
    /// Records and what they change, by their offset in the group.
    pub(crate) fn new(group: Group, effects: Vec<(u64, u32, Effect)>) -> Self {
        Self {
            group,
            effects,
            unhashed: Unhashed::default(),
            touched: Vec::new(),
            spent: Spent::default(),
        }
    }

    /// The effects once the group's place is known.
    pub(crate) fn place(effects: Vec<(u64, u32, Effect)>, start: Position) -> Vec<Effect> {
        let place = |(offset, body_len, mut effect): (u64, u32, Effect)| {
            let position = start.forward(offset).unwrap_or(start);
            effect.place(Location { position, body_len });
            effect
        };
        effects.into_iter().map(place).collect()
    }
}

impl<'s, S: PlanState> Plan<'s, S> {
    /// An empty group. `now_ns` is the wall clock of all its entries, unless
    /// the context is already ahead of it.
    pub(crate) fn new(state: &'s S, now_ns: u64, memory: Vec<u8>) -> Self {
        Self {
            state,
            now_ns,
            group: Group::reusing(memory),
            works: Vec::new(),
            next_number: state.next_number(),
            by_id: HashMap::new(),
            requests: HashMap::new(),
            payloads: HashSet::new(),
            effects: Vec::new(),
            runs: Vec::new(),
            spent: Vec::new(),
        }
    }

    /// Adds one request, all of it or nothing.
    pub(crate) fn append(
        &mut self,
        drafts: Vec<(ContextId, Draft)>,
    ) -> Result<Vec<Answer>, AppendError> {
        let known = self.works.len();
        match self.resolve(&drafts) {
            Ok(resolved) => self.build(drafts, resolved),
            Err(error) => {
                // Contexts that only this request touched leave no trace.
                for work in self.works.drain(known..) {
                    self.by_id.remove(&work.id);
                    if !work.known {
                        self.next_number -= 1;
                    }
                }
                Err(error)
            }
        }
    }

    /// The place of a context in `works`.
    fn work(&mut self, id: &ContextId) -> Result<usize, StoreError> {
        if let Some(&at) = self.by_id.get(id) {
            return Ok(at);
        }
        let stored = self.state.context(id)?;
        let known = stored.is_some();
        let before = stored.unwrap_or_else(|| {
            self.next_number += 1;
            ContextState::new(self.next_number - 1, Some(id.clone()), Position::default())
        });
        self.works.push(Work {
            id: id.clone(),
            known,
            tip: Tip {
                sequence: before.after.size(),
                lamport: before.after.lamport,
                appended_at_ns: before.after.appended_at_ns,
            },
            before,
            run: RunBuilder::default(),
            facts: FactsBuilder::default(),
            requests: Vec::new(),
        });
        self.by_id.insert(id.clone(), self.works.len() - 1);
        Ok(self.works.len() - 1)
    }

    fn resolve(&mut self, drafts: &[(ContextId, Draft)]) -> Result<Vec<Resolved>, AppendError> {
        let mut tips: Vec<Option<Tip>> = Vec::new();
        let mut ids: HashMap<(usize, &str), usize> = HashMap::new();
        let mut resolved = Vec::with_capacity(drafts.len());
        let mut last: Option<(&ContextId, usize)> = None;
        for (i, (id, draft)) in drafts.iter().enumerate() {
            let at = match last {
                Some((same, at)) if same == id => at,
                _ => self.work(id)?,
            };
            last = Some((id, at));
            let request = draft.request_id().map(request_key);
            if let (Some(request_id), Some(key)) = (draft.request_id(), &request) {
                if let Some(&first) = ids.get(&(at, request_id)) {
                    let same = drafts
                        .get(first)
                        .is_some_and(|(_, d)| draft.same_content(&d.header(0, 0, 0)));
                    if !same {
                        return Err(AppendError::RequestIdReused {
                            request_id: request_id.to_owned(),
                        });
                    }
                    resolved.push(Resolved::Repeated(first));
                    continue;
                }
                ids.insert((at, request_id), i);
                if let Some(appended) = self.answered_before(at, request_id, key, draft)? {
                    resolved.push(Resolved::Stored(appended));
                    continue;
                }
            }
            let Some(work) = self.works.get(at) else {
                continue;
            };
            if tips.len() <= at {
                tips.resize(at + 1, None);
            }
            let Some(tip) = tips.get_mut(at) else {
                continue;
            };
            let tip = tip.get_or_insert(work.tip);
            if draft.payload().len() > PAYLOAD_INLINE_BYTES_MAX {
                let hash = draft.payload_hash();
                // Reading it back may fail, so it is done here.
                if !self.payloads.contains(&hash) && self.state.payload_intact(&hash)? {
                    self.payloads.insert(hash);
                }
            }
            if tip.sequence >= SEQUENCE_MAX {
                return Err(AppendError::ContextFull);
            }
            tip.sequence += 1;
            tip.lamport = lamport::next(tip.lamport, draft.observed_lamport())?;
            tip.appended_at_ns = tip.appended_at_ns.max(self.now_ns);
            resolved.push(Resolved::New {
                work: at,
                request,
                sequence: tip.sequence,
                lamport: tip.lamport,
                appended_at_ns: tip.appended_at_ns,
            });
        }
        Ok(resolved)
    }

    /// Looks a request id up in this group and in the store. The same id with
    /// the same content is answered with the first entry.
    fn answered_before(
        &self,
        at: usize,
        request_id: &str,
        key: &RequestKey,
        draft: &Draft,
    ) -> Result<Option<Answer>, AppendError> {
        let Some(work) = self.works.get(at) else {
            return Ok(None);
        };
        let reused = || AppendError::RequestIdReused {
            request_id: request_id.to_owned(),
        };
        if let Some(answered) = self.requests.get(&(work.before.number, *key)) {
            let first = &answered.draft;
            let same = first.request_id() == Some(request_id)
                && draft.same_content(&first.header(0, 0, 0));
            return if same {
                Ok(Some(answered.answer.again()))
            } else {
                Err(reused())
            };
        }
        let Some(sequence) = self
            .state
            .request(work.before.number, key)
            .map_err(StoreError::from)?
        else {
            return Ok(None);
        };
        let entry = self.state.entry(&work.id, sequence)?;
        let same = entry.request_id.as_deref() == Some(request_id)
            && entry.key == draft.key()
            && entry.metadata.as_ref() == draft.metadata()
            && entry.payload == draft.payload();
        if !same {
            return Err(reused());
        }
        Ok(Some(Answer {
            appended: Appended {
                sequence,
                id: entry.id,
                lamport: entry.lamport,
                appended_at_ns: entry.appended_at_ns,
                stored_before: true,
            },
            work: None,
        }))
    }

    fn build(
        &mut self,
        drafts: Vec<(ContextId, Draft)>,
        resolved: Vec<Resolved>,
    ) -> Result<Vec<Answer>, AppendError> {
        let mut answers: Vec<Answer> = Vec::with_capacity(drafts.len());
        let named = |resolved: &&Resolved| {
            matches!(
                resolved,
                Resolved::New {
                    request: Some(_),
                    ..
                }
            )
        };
        self.requests.reserve(resolved.iter().filter(named).count());
        for ((_, draft), resolved) in drafts.into_iter().zip(resolved) {
            let answer = match resolved {
                Resolved::Stored(answer) => answer,
                Resolved::Repeated(first) => match answers.get(first) {
                    Some(answer) => answer.again(),
                    None => return Err(AppendError::ContextFull),
                },
                Resolved::New {
                    work,
                    request,
                    sequence,
                    lamport,
                    appended_at_ns,
                } => {
                    let tip = Tip {
                        sequence,
                        lamport,
                        appended_at_ns,
                    };
                    self.push(work, &draft, tip)?;
                    let answer = Answer {
                        appended: Appended {
                            sequence,
                            id: Hash::default(),
                            lamport,
                            appended_at_ns,
                            stored_before: false,
                        },
                        work: Some(work),
                    };
                    self.remember(work, request, draft, &answer);
                    answer
                }
            };
            answers.push(answer);
        }
        Ok(answers)
    }

    fn remember(
        &mut self,
        work: usize,
        request: Option<RequestKey>,
        draft: Draft,
        answer: &Answer,
    ) {
        let Some(work) = self.works.get_mut(work) else {
            return;
        };
        if let Some(key) = request {
            work.requests.push((key, answer.appended.sequence));
            let answered = Answered {
                answer: answer.clone(),
                draft,
            };
            self.requests.insert((work.before.number, key), answered);
        } else {
            self.spent.push(draft);
        }
    }

    fn push(&mut self, at: usize, draft: &Draft, tip: Tip) -> Result<(), AppendError> {
        let payload = draft.payload();
        if payload.len() > PAYLOAD_INLINE_BYTES_MAX {
            self.put_payload(draft);
        }
        let header = draft.header(tip.sequence, tip.lamport, tip.appended_at_ns);
        let (group, runs) = (&mut self.group, &mut self.runs);
        let work = self.works.get_mut(at).ok_or(AppendError::ContextFull)?;
        if !work
            .run
            .has_room(tip.sequence, header.encoded_len(), payload.len())
        {
            work.flush(at, group, runs);
        }
        if work.tip.sequence == 0 && !work.known {
            let (offset, body_len) = group.add(RecordType::Context, |out| {
                super::body::put_context(work.before.number, &work.id, out);
            });
            let effect = Effect::Context {
                number: work.before.number,
                id: work.id.clone(),
                at: Location::default(),
            };
            self.effects.push((offset, body_len, effect));
        }
        work.run.push_unhashed(&header, payload)?;
        work.facts.add(&header);
        work.tip = tip;
        Ok(())
    }

    /// Writes a large payload, unless the store has it and its bytes verify.
    fn put_payload(&mut self, draft: &Draft) {
        let hash = draft.payload_hash();
        if self.payloads.contains(&hash) {
            return;
        }
        let (offset, body_len) = self.group.add(RecordType::Payload, |out| {
            out.extend_from_slice(hash.as_bytes());
            out.extend_from_slice(draft.payload());
        });
        self.payloads.insert(hash);
        self.effects.push((offset, body_len, Effect::payload(hash)));
    }

    /// Ends all runs and hands the group out.
    pub(crate) fn finish(mut self) -> Planned {
        for (at, work) in self.works.iter_mut().enumerate() {
            work.flush(at, &mut self.group, &mut self.runs);
        }
        let bases = self.works.iter();
        let bases = bases.map(|work| (work.before.number, work.before.after.clone()));
        let works = bases.collect();
        let touched = self.works.into_iter().filter(|work| work.known);
        let touched = touched.map(|work| work.before).collect();
        Planned {
            group: self.group,
            effects: self.effects,
            unhashed: Unhashed {
                runs: self.runs,
                works,
            },
            touched,
            spent: Spent {
                _drafts: self.spent,
                _named: self.requests,
            },
        }
    }
}

impl Answer {
    fn again(&self) -> Self {
        Self {
            appended: self.appended.again(),
            work: self.work,
        }
    }
}

impl Work {
    fn flush(&mut self, work: usize, group: &mut Group, runs: &mut Vec<PlannedRun>) {
        if self.run.count() == 0 {
            return;
        }
        let first = self.run.first();
        let mut headers = RunHeaders::default();
        let (offset, body_len) = group.add(RecordType::Run, |out| {
            out.extend_from_slice(&self.before.number.to_le_bytes());
            headers = self.run.finish_and_keep(out);
        });
        runs.push(PlannedRun {
            offset,
            body_len,
            work,
            first,
            times: (self.tip.lamport, self.tip.appended_at_ns),
            headers,
            facts: self.facts.finish(),
            requests: std::mem::take(&mut self.requests),
        });
    }
}
