//! What a store must answer, kept in plain maps, and the comparison of every
//! answer of a view with it.

use std::collections::{BTreeMap, HashMap};

use super::*;
use crate::directory::path::{self, Found};
use crate::directory::{Node, Opening, Slot, commitment};
use crate::hash;
use crate::ledger::ReadLedger;
use crate::limits::PAYLOAD_INLINE_BYTES_MAX;
use crate::tree::nodes::{MemoryNodes, read_root};
use crate::tree::{LeafIndex, NodeId, ReadNodes, TreeSize, inclusion};

/// Contexts up to this size are read at every place.
const SMALL: u64 = 40;

/// One context.
#[derive(Clone, Default)]
pub(super) struct Context {
    drafts: Vec<Draft>,
    leaves: Vec<Hash>,
    nodes: MemoryNodes,
    /// Request ids: the sequence.
    requests: HashMap<String, u64>,
}

impl Context {
    fn size(&self) -> u64 {
        self.leaves.len() as u64
    }

    fn root_at(&self, size: u64) -> Hash {
        read_root(TreeSize::new(size), &self.nodes).unwrap()
    }
}

/// See the module.
#[derive(Clone, Default)]
pub(super) struct Model {
    contexts: BTreeMap<ContextId, Context>,
}

/// A view's tree nodes.
struct Nodes<'v>(&'v View, ContextId);

impl ReadNodes for Nodes<'_> {
    type Error = StoreError;

    fn read_nodes(&self, ids: &[NodeId]) -> Result<Vec<Hash>, StoreError> {
        self.0.tree_nodes(&self.1, ids)
    }
}

fn index_of(sequence: u64) -> usize {
    usize::try_from(sequence).unwrap() - 1
}

fn same(a: &Draft, b: &Draft) -> bool {
    (a.key(), a.payload()) == (b.key(), b.payload())
}

impl Model {
    /// What a store answers: sequences and whether they were there before.
    /// `None` if a request id was used for something else.
    fn expect(&self, drafts: &[(ContextId, Draft)]) -> Option<Vec<(u64, bool)>> {
        let mut sizes: HashMap<&ContextId, u64> = HashMap::new();
        let mut new: HashMap<(&ContextId, &str), (u64, &Draft)> = HashMap::new();
        let mut answers = Vec::new();
        for (id, draft) in drafts {
            let known = self.contexts.get(id);
            let size = sizes
                .entry(id)
                .or_insert_with(|| known.map_or(0, Context::size));
            if let Some(request) = draft.request_id() {
                let stored = known.and_then(|context| {
                    let sequence = *context.requests.get(request)?;
                    Some((sequence, &context.drafts[index_of(sequence)]))
                });
                let before = stored.or_else(|| new.get(&(id, request)).copied());
                if let Some((sequence, first)) = before {
                    if !same(first, draft) {
                        return None;
                    }
                    answers.push((sequence, true));
                    continue;
                }
                new.insert((id, request), (*size + 1, draft));
            }
            *size += 1;
            answers.push((*size, false));
        }
        Some(answers)
    }

    /// Appends to the store and compares its answer.
    pub(super) fn append(&mut self, store: &Store, drafts: Vec<(ContextId, Draft)>) {
        let answer = store.append(drafts.clone());
        let Some(expected) = self.expect(&drafts) else {
            let refused = matches!(answer, Err(AppendError::RequestIdReused { .. }));
            assert!(refused, "{answer:?}");
            return;
        };
        let answer = answer.unwrap();
        let got: Vec<_> = answer
            .iter()
            .map(|a| (a.sequence, a.stored_before))
            .collect();
        assert_eq!(got, expected);
        self.take(drafts, &answer);
    }

    /// Takes over what a store has acknowledged.
    pub(super) fn take(&mut self, drafts: Vec<(ContextId, Draft)>, answers: &[Appended]) {
        for ((id, draft), answer) in drafts.into_iter().zip(answers) {
            let context = self.contexts.entry(id).or_default();
            if answer.stored_before {
                assert_eq!(context.leaves[index_of(answer.sequence)], answer.id);
                continue;
            }
            context.leaves.push(answer.id);
            context.nodes.append(answer.id).unwrap();
            assert_eq!(context.size(), answer.sequence);
            if let Some(request) = draft.request_id() {
                let request = request.to_owned();
                context.requests.insert(request, answer.sequence);
            }
            context.drafts.push(draft);
        }
    }

    /// Everything that was stored under a request id, asked for again.
    pub(super) fn ask_again(&mut self, store: &Store) {
        let with_id = |(id, context): (&ContextId, &Context)| {
            let asked = context.drafts.iter();
            let asked = asked.filter(|draft| draft.request_id().is_some());
            let id = id.clone();
            asked
                .map(|draft| (id.clone(), draft.clone()))
                .collect::<Vec<_>>()
        };
        let asked: Vec<_> = self.contexts.iter().flat_map(with_id).collect();
        let other = asked.first().map(|(id, draft)| {
            let request = draft.request_id().unwrap().to_owned();
            let other = Draft::new(draft.key(), "something else").unwrap();
            (id.clone(), other.with_request_id(request).unwrap())
        });
        self.append(store, asked);
        self.append(store, other.into_iter().collect());
    }

    /// Compares everything that a view can be asked. `signed` if the newest
    /// head covers everything.
    pub(super) fn compare(&self, view: &View, signed: bool) {
        let sizes = self.contexts.values().map(Context::size);
        let totals = (self.contexts.len() as u64, sizes.sum::<u64>());
        assert_eq!(view.totals(), totals);
        self.compare_names(view);
        for (id, context) in &self.contexts {
            compare_entries(view, id, context);
            compare_filtered(view, id, context);
            compare_tree(view, id, context);
        }
        self.compare_payloads(view);
        self.compare_directory(view, signed);
        let nobody = id("nobody");
        assert_eq!(view.size(&nobody).unwrap(), None);
        assert_eq!(view.signed_size(&nobody).unwrap(), None);
        assert!(view.context(&nobody).unwrap().is_none());
        assert!(
            view.page(&nobody, 0, &PageLimits::default(), None)
                .unwrap()
                .entries
                .is_empty()
        );
    }

    fn compare_names(&self, view: &View) {
        let expected: Vec<_> = self
            .contexts
            .iter()
            .map(|(id, context)| ContextInfo {
                id: id.clone(),
                size: context.size(),
                root: context.root_at(context.size()),
            })
            .collect();
        for limit in [1, 2, 1000] {
            let (mut found, mut after) = (Vec::new(), None);
            loop {
                let page = view.contexts(after.as_ref(), limit).unwrap();
                assert!(page.len() <= limit);
                let Some(last) = page.last() else { break };
                after = Some(last.id.clone());
                found.extend(page);
            }
            assert_eq!(found, expected, "limit {limit}");
        }
    }

    fn compare_payloads(&self, view: &View) {
        let drafts = self.contexts.values().flat_map(|context| &context.drafts);
        for draft in drafts.filter(|d| d.payload().len() > PAYLOAD_INLINE_BYTES_MAX) {
            let stored = view.outside_payload(&draft.payload_hash()).unwrap();
            assert_eq!(stored.as_deref(), Some(draft.payload()));
        }
        let unknown = view.outside_payload(&hash::content(b"unknown")).unwrap();
        assert_eq!(unknown, None);
    }

    fn compare_directory(&self, view: &View, signed: bool) {
        let Some(head) = view.head() else {
            return assert!(!signed, "no head");
        };
        let mut signed_sums = (0, 0);
        let mut openings = Vec::new();
        let root = head.head().directory_root;
        for (id, context) in &self.contexts {
            let path = path::build(view, &root, &id.path()).unwrap();
            let found = path::verify(&root, &id.path(), &path.as_slices()).unwrap();
            let size = match found {
                Found::Present {
                    commitment: holds,
                    entries,
                    ..
                } => {
                    let then = context.root_at(entries);
                    assert_eq!(holds, commitment(id.as_str(), entries, &then));
                    Some(entries)
                }
                Found::Absent { .. } => None,
            };
            assert_eq!(view.signed_size(id).unwrap(), size);
            assert!(!signed || size == Some(context.size()));
            if let Some(size) = size {
                signed_sums = (signed_sums.0 + 1, signed_sums.1 + size);
                compare_runs(view, id, size);
                let root = context.root_at(size);
                let id = id.as_str().to_owned();
                openings.push(Opening { id, size, root });
            }
        }
        let head = head.head();
        assert_eq!(signed_sums, (head.contexts, head.entries));
        let found = walk(view, &root);
        assert_eq!(found, openings);
    }
}

/// All openings below a directory node, by name.
fn walk(view: &View, root: &Hash) -> Vec<Opening> {
    let (mut todo, mut found) = (vec![*root], Vec::new());
    while let Some(hash) = todo.pop() {
        let opened = view.opened_node(&hash).unwrap().unwrap();
        let node = Node::decode(&opened.node).unwrap();
        assert_eq!(node.hash(), hash);
        for slot in node.slots() {
            if let Slot::Child { hash, .. } = slot {
                todo.push(*hash);
            }
        }
        found.extend(opened.openings);
    }
    found.sort_by(|a, b| a.id.cmp(&b.id));
    found
}

fn compare_runs(view: &View, id: &ContextId, size: u64) {
    let Some(runs) = view.runs(id, 0, size, usize::MAX).unwrap() else {
        panic!("a head ends in the middle of a run of {id:?}");
    };
    let last = crate::run::Run::decode(runs.last().unwrap()).unwrap();
    assert_eq!(last.last(), size);
}

fn compare_entry(entry: &Entry, context: &Context) {
    let at = index_of(entry.sequence);
    let draft = &context.drafts[at];
    assert_eq!(entry.id, context.leaves[at]);
    assert_eq!(
        (entry.key.as_str(), entry.payload.as_slice()),
        (draft.key(), draft.payload())
    );
    assert_eq!(entry.request_id.as_deref(), draft.request_id());
}

fn compare_entries(view: &View, id: &ContextId, context: &Context) {
    assert_eq!(view.size(id).unwrap(), Some(context.size()));
    let mut after = 0;
    loop {
        let page = view.page(id, after, &PageLimits::default(), None).unwrap();
        assert_eq!(page.size, context.size());
        for entry in &page.entries {
            after += 1;
            assert_eq!(entry.sequence, after);
            compare_entry(entry, context);
        }
        if page.next_after == 0 {
            break;
        }
        assert_eq!(page.next_after, after);
    }
    assert_eq!(after, context.size());
    assert!(view.entry(id, 0).unwrap().is_none());
    assert!(view.entry(id, after + 1).unwrap().is_none());
    let middle = view.entry(id, after / 2 + 1).unwrap();
    compare_entry(&middle.unwrap_or_else(|| panic!("{id:?}")), context);
}

/// Places worth looking at in a context of this size.
fn places(size: u64) -> Vec<u64> {
    if size <= SMALL {
        return (0..=size).collect();
    }
    let edges = [1, 15, 16, 17, 255, 256, 257, 4095, 4096, 4097, 4112];
    let around = [size / 3, size / 2, size - 1, size];
    let mut places: Vec<u64> = edges.into_iter().chain(around).collect();
    places.retain(|place| *place <= size);
    places
}

fn compare_filtered(view: &View, id: &ContextId, context: &Context) {
    for key in ["k0", "k1", "none"] {
        let all: Vec<u64> = (1..)
            .zip(&context.drafts)
            .filter(|(_, draft)| draft.key() == key)
            .map(|(sequence, _)| sequence)
            .collect();
        for after in places(context.size()) {
            let limit = 5;
            let page = view
                .page(id, after, &PageLimits::entries(limit), Some(key))
                .unwrap();
            let got: Vec<u64> = page.entries.iter().map(|entry| entry.sequence).collect();
            let rest = all.iter().copied().filter(|sequence| *sequence > after);
            assert_eq!(got, rest.take(limit).collect::<Vec<_>>(), "{key} {after}");
            page.entries.iter().for_each(|e| compare_entry(e, context));
        }
    }
}

fn compare_tree(view: &View, id: &ContextId, context: &Context) {
    let (size, nodes) = (context.size(), Nodes(view, id.clone()));
    let root = context.root_at(size);
    assert_eq!(view.context(id).unwrap().unwrap().root, root);
    for place in places(size) {
        if place > 0 {
            let at = view.root_at(id, place).unwrap();
            assert_eq!(at, context.root_at(place), "{id:?} at {place} of {size}");
        }
        if place < size {
            let (leaf, of) = (LeafIndex::new(place), TreeSize::new(size));
            let proof = inclusion::build(leaf, of, &nodes).unwrap();
            let hash = context.leaves[usize::try_from(place).unwrap()];
            inclusion::verify(&hash, leaf, of, &proof, &root).unwrap();
        }
    }
    assert!(view.root_at(id, size + 1).is_err());
    let mut wanted = Vec::new();
    for level in 0..=13u8 {
        let last = size >> level;
        for index in [0, 1, 15, 16, last / 2, last.saturating_sub(1)] {
            let node = NodeId { level, index };
            if node.is_complete_in(TreeSize::new(size)) {
                wanted.push(node);
            }
        }
    }
    let got = view.tree_nodes(id, &wanted).unwrap();
    let expected: Vec<Hash> = wanted
        .iter()
        .map(|node| context.nodes.node(*node).unwrap())
        .collect();
    assert_eq!(got, expected);
}
