//! What is signed with the origin's own key although no store holds it.

use std::collections::HashMap;

use converge_ledger::directory::{Change, MemoryDirectory, Node, Opening, Slot, apply, empty_root};
use converge_ledger::entry::{ContextId, Draft};
use converge_ledger::hash::Hash;
use converge_ledger::head::{Head, Rotation};
use converge_ledger::ledger::{OpenedNode, ReadLedger as _};
use converge_ledger::note::{Note, OriginName, SignerKey};
use converge_ledger::run::RunBuilder;
use converge_ledger::store::View;
use converge_ledger::sync::message::{NodeAnswer, Reply, Request};
use converge_ledger::tree::MemoryNodes;

use crate::attack::Attack;
use crate::span::Span;

/// The context that no store holds.
const FORGED: &str = "forged";
/// The context a forged directory leaves out.
const DROPPED: &str = "late";
const CONTEXTS_MAX: usize = 1000;

/// A head, and what it stands on if that is forged too.
#[derive(Debug, Default)]
pub(crate) struct Forged {
    notes: Vec<Vec<u8>>,
    nodes: HashMap<Hash, OpenedNode>,
    entries: Vec<Vec<u8>>,
}

impl Forged {
    /// The frames of an answer that is not the store's.
    pub(crate) fn answer(&self, request: &Request) -> Option<Vec<Vec<u8>>> {
        match request {
            Request::Head { .. } => {
                let notes = self.notes.clone();
                Some(vec![Reply::Head { notes }.encode().unwrap()])
            }
            Request::Nodes { hashes } if !self.nodes.is_empty() => {
                let answer = |&hash: &Hash| NodeAnswer {
                    hash,
                    node: self.nodes.get(&hash).cloned(),
                };
                let answers = hashes.iter().map(answer).collect();
                Some(vec![Reply::Nodes { answers }.encode().unwrap()])
            }
            Request::Entries { context, .. } if context.as_str() == FORGED => {
                Some(self.entries.clone())
            }
            _ => None,
        }
    }
}

/// What an attack signs; `None` if it signs nothing.
pub(crate) fn forge(
    attack: Attack,
    view: &View,
    other: Option<&View>,
    signer: &SignerKey,
) -> Option<Forged> {
    let shown = view.newest_head().unwrap().unwrap();
    let mut head = shown.head().clone();
    head.epoch += 1;
    let mut forged = Forged::default();
    match attack {
        Attack::WrongOriginName => head.origin = OriginName::new("other.example").unwrap(),
        Attack::InflatedCounts | Attack::SameRootOtherCounts => head.entries += 1,
        Attack::LaterTerm => head.term += 1,
        Attack::HeadBeforeHead => {}
        Attack::HalfRotation => {
            // Later than what the mirror holds, before the newest.
            head.epoch -= 2;
            head.rotation = Some(Rotation {
                old: signer.verifier().clone(),
                new: SignerKey::from_seed(head.origin.clone(), &[5; 32])
                    .verifier()
                    .clone(),
            });
        }
        Attack::FewerCounts => {
            let older = other.unwrap().newest_head().unwrap().unwrap();
            head.directory_root = older.head().directory_root;
            head.contexts = older.head().contexts;
            head.entries = older.head().entries;
        }
        Attack::ForgedDrop => {
            let mut openings = openings(view);
            openings.retain(|opening| opening.id != DROPPED);
            openings.push(Opening {
                id: FORGED.to_owned(),
                size: 1000,
                root: Hash::from_bytes([7; 32]),
            });
            forged.nodes = directory(&openings, &mut head);
        }
        Attack::InvalidEntries => {
            let mut openings = openings(view);
            let (opening, frames) = invalid_entries();
            openings.push(opening);
            forged.nodes = directory(&openings, &mut head);
            forged.entries = frames;
        }
        Attack::InvalidDirectory => {
            forged.nodes = directory(&openings(view), &mut head);
            invalid_root(&mut forged.nodes, &mut head);
        }
        _ => return None,
    }
    let notes = match attack {
        Attack::HalfRotation => vec![sign(&head, signer), shown.note_bytes()],
        Attack::HeadBeforeHead => {
            let older = other.unwrap().newest_head().unwrap().unwrap();
            vec![older.note_bytes(), shown.note_bytes()]
        }
        _ => vec![sign(&head, signer)],
    };
    forged.notes = notes;
    Some(forged)
}

fn sign(head: &Head, signer: &SignerKey) -> Vec<u8> {
    let mut note = Note::new(head.to_text()).unwrap();
    note.sign(signer).unwrap();
    note.to_bytes()
}

fn openings(view: &View) -> Vec<Opening> {
    let contexts = view.contexts(None, CONTEXTS_MAX).unwrap();
    let opening = |context: converge_ledger::store::ContextInfo| Opening {
        id: context.id.as_str().to_owned(),
        size: context.size,
        root: context.root,
    };
    contexts.into_iter().map(opening).collect()
}

/// The directory of these contexts, and the head that names it.
fn directory(openings: &[Opening], head: &mut Head) -> HashMap<Hash, OpenedNode> {
    let change = |opening: &Opening| Change {
        path: opening.path(),
        commitment: opening.commitment(),
        entries: opening.size,
    };
    let changes: Vec<Change> = openings.iter().map(change).collect();
    let update = apply(&MemoryDirectory::new(), &empty_root(), &changes).unwrap();
    head.directory_root = update.root;
    head.contexts = update.sums.contexts;
    head.entries = update.sums.entries;
    let of = |signed: &Hash| {
        let found = openings.iter().find(|o| o.commitment() == *signed);
        found.unwrap().clone()
    };
    let open = |(hash, node): (Hash, Vec<u8>)| {
        let openings = Node::decode(&node).unwrap();
        let openings = openings.slots().iter().filter_map(|slot| match slot {
            Slot::Entry { commitment, .. } => Some(of(commitment)),
            _ => None,
        });
        let openings = openings.collect();
        (hash, OpenedNode { node, openings })
    };
    update.added.into_iter().map(open).collect()
}

/// The root says of a child that it has one entry more than it has.
fn invalid_root(nodes: &mut HashMap<Hash, OpenedNode>, head: &mut Head) {
    let mut opened = nodes.remove(&head.directory_root).unwrap();
    let root = Node::decode(&opened.node).unwrap();
    let mut slots = *root.slots();
    let child = slots.iter_mut().find_map(|slot| match slot {
        Slot::Child { entries, .. } => Some(entries),
        _ => None,
    });
    *child.unwrap() += 1;
    let root = Node::new(0, slots).unwrap();
    opened.node = root.encode();
    head.directory_root = root.hash();
    head.entries += 1;
    nodes.insert(root.hash(), opened);
}

/// A context whose Lamport time goes back, and the frames that carry it.
fn invalid_entries() -> (Opening, Vec<Vec<u8>>) {
    let mut tree = MemoryNodes::new();
    let mut builder = RunBuilder::default();
    for (sequence, lamport) in [(1, 5), (2, 6), (3, 4)] {
        let payload = format!("entry {sequence}").into_bytes();
        let draft = Draft::new("key", payload.clone()).unwrap();
        let header = draft.header(sequence, lamport, sequence);
        tree.append(builder.push(&header, &payload).unwrap())
            .unwrap();
    }
    let mut run = Vec::new();
    builder.finish_into(&mut run);
    let begin = Reply::EntriesBegin {
        context: ContextId::new(FORGED).unwrap(),
        after_sequence: 0,
        size: 3,
    };
    let span = Span {
        start: 0,
        end: 3,
        right: Vec::new(),
        runs: vec![run],
    };
    let opening = Opening {
        id: FORGED.to_owned(),
        size: 3,
        root: tree.root(),
    };
    (opening, vec![begin.encode().unwrap(), span.to_frame()])
}
