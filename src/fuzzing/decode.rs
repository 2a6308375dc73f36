//! Decoders: what is accepted has one spelling, and what was signed or hashed
//! cannot be exchanged.

use super::{Input, signer};
use crate::directory::{
    Change, Diff, MemoryDirectory, Node, Opening, OpeningsPart, ReadDirectory, Seen, apply,
    empty_root, path,
};
use crate::entry::{ContextId, Header, Metadata};
use crate::hash::{self, Hash, Role};
use crate::head::{Head, SignedHead, Takeover, sign_head};
use crate::limits::{PAYLOAD_BYTES_MAX, PAYLOAD_INLINE_BYTES_MAX};
use crate::note::{Note, OriginName, SignerKey, VerifierKey};
use crate::run::{Run, RunBuilder};
use crate::tree::{Frontier, TilePath};

/// Entry headers, runs, context ids, frontiers and tile paths: whatever
/// decodes encodes to the same bytes.
pub fn entry_decode(data: &[u8]) {
    let mut input = Input::new(data);
    match input.byte() % 5 {
        0 => header(input.rest()),
        1 => run(input.rest()),
        2 => {
            let bytes = input.rest();
            if let Ok(id) = ContextId::decode(bytes) {
                assert_eq!(id.as_str().as_bytes(), bytes);
                assert_eq!(ContextId::new(id.as_str()).unwrap(), id);
            }
        }
        3 => {
            let bytes = input.rest();
            if let Ok(frontier) = Frontier::from_bytes(bytes) {
                assert_eq!(frontier.to_bytes(), bytes);
                let _ = frontier.root();
            }
        }
        _ => {
            if let Ok(text) = std::str::from_utf8(input.rest())
                && let Ok(path) = text.parse::<TilePath>()
            {
                assert_eq!(path.to_string(), text);
            }
        }
    }
}

fn header(bytes: &[u8]) {
    let Ok(header) = Header::decode(bytes) else {
        return;
    };
    let mut again = Vec::new();
    header.encode_into(&mut again).unwrap();
    assert_eq!(again, bytes);
    assert_eq!(header.encoded_len(), bytes.len());
    let pairs = header.metadata.iter();
    let metadata = Metadata::from_pairs(pairs).unwrap();
    assert_eq!(metadata.as_ref(), header.metadata);
}

fn run(bytes: &[u8]) {
    let Ok(run) = Run::decode(bytes) else {
        return;
    };
    let mut builder = RunBuilder::default();
    // Only the length of a payload that is not inline matters here.
    let mut outside = Vec::new();
    for entry in run.entries() {
        let Ok(entry) = entry else {
            return;
        };
        let len = entry.header.payload_len as usize;
        assert_eq!(
            entry.inline_payload.is_some(),
            len <= PAYLOAD_INLINE_BYTES_MAX
        );
        if entry.inline_payload.is_none() {
            outside.resize(PAYLOAD_BYTES_MAX, 0);
        }
        let payload = entry.inline_payload.unwrap_or_else(|| &outside[..len]);
        assert_eq!(payload.len(), len);
        builder.push(&entry.header, payload).unwrap();
    }
    let mut again = Vec::new();
    builder.finish_into(&mut again);
    assert_eq!(again, bytes);
    let _ = run.check_payloads();
}

/// Notes, keys, heads and takeovers: one spelling, and a changed signed head
/// is never another head.
pub fn note_open(data: &[u8]) {
    let mut input = Input::new(data);
    match input.byte() % 4 {
        0 => spellings(input.rest()),
        1 => {
            // Any text that may be signed comes back as it was.
            if let Ok(text) = String::from_utf8(input.rest().to_vec())
                && let Ok(mut note) = Note::new(text.clone())
            {
                note.sign(&signer()).unwrap();
                let parsed = Note::parse(&note.to_bytes()).unwrap();
                assert_eq!((parsed.text(), &parsed), (text.as_str(), &note));
                assert_eq!(parsed.open(&[signer().verifier()]), Ok(vec![0]));
            }
        }
        2 => {
            let mut bytes = honest_note();
            input.mutate(&mut bytes);
            if let Ok(head) = SignedHead::open(&bytes, signer().verifier()) {
                assert_eq!(head.head(), &honest_head());
                assert_eq!(head.note_bytes(), honest_note());
            }
        }
        _ => {
            // What is signed is what verifies.
            let head = Head {
                term: input.number(),
                epoch: input.number(),
                contexts: input.number(),
                entries: input.number(),
                time_ns: input.number(),
                directory_root: Hash::from_bytes(input.array()),
                ..honest_head()
            };
            if let Ok(note) = sign_head(&head, &signer()) {
                let opened = SignedHead::open(&note, signer().verifier()).unwrap();
                assert_eq!(opened.head(), &head);
            }
        }
    }
}

fn spellings(bytes: &[u8]) {
    if let Ok(note) = Note::parse(bytes) {
        assert_eq!(note.to_bytes(), bytes);
        let opened = note.open(&[signer().verifier()]);
        if opened.is_ok_and(|keys| !keys.is_empty()) {
            note.strip_unknown(&[signer().verifier()]).unwrap();
        }
        let _ = SignedHead::open(bytes, signer().verifier());
    }
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Ok(head) = Head::parse(text) {
        assert_eq!(head.to_text(), text);
    }
    if let Ok(takeover) = Takeover::parse(text) {
        assert_eq!(takeover.to_text(), text);
    }
    if let Ok(key) = VerifierKey::parse(text) {
        assert_eq!(key.to_string(), text);
    }
    if let Ok(key) = SignerKey::from_secret_text(text) {
        assert_eq!(key.to_secret_text().as_str(), text);
    }
    if let Ok(name) = OriginName::new(text) {
        assert_eq!(name.as_str(), text);
    }
}

pub(super) fn honest_head() -> Head {
    Head {
        origin: signer().verifier().name().clone(),
        term: 1,
        epoch: 7,
        directory_root: hash::content(b"root"),
        contexts: 3,
        entries: 40,
        time_ns: 1_700_000_000_000_000_000,
        rotation: None,
    }
}

pub(super) fn honest_note() -> Vec<u8> {
    sign_head(&honest_head(), &signer()).unwrap()
}

/// Directory nodes, openings and seen heads have one spelling; a path or an
/// answer to a descent is worth what the root says or nothing.
pub fn directory_node(data: &[u8]) {
    let mut input = Input::new(data);
    match input.byte() % 5 {
        0 => {
            let bytes = input.rest();
            if let Ok(node) = Node::decode(bytes) {
                assert_eq!(node.encode(), bytes);
                assert_eq!(node.hash(), hash::keyed(Role::DirectoryNode, bytes));
                assert_eq!(Node::new(node.depth(), *node.slots()), Ok(node));
            }
            let hash = hash::keyed(Role::DirectoryNode, bytes);
            let _ = path::verify(&hash, &hash, &[bytes]);
        }
        1 => {
            let bytes = input.rest();
            if let Ok(part) = OpeningsPart::decode(bytes) {
                assert_eq!(part.encode().unwrap(), bytes);
            }
        }
        2 => {
            let bytes = input.rest();
            if let Ok(seen) = Seen::decode(bytes) {
                assert_eq!(seen.encode().unwrap(), bytes);
            }
        }
        3 => mutated_path(&mut input),
        _ => mutated_descent(&mut input),
    }
}

/// A directory of `count` contexts, some of which share long prefixes.
fn directory(count: usize) -> (MemoryDirectory, Hash, Vec<Opening>) {
    let openings: Vec<_> = (0..count as u64)
        .map(|i| Opening {
            id: format!("context-{i}"),
            size: i + 1,
            root: hash::content(&i.to_le_bytes()),
        })
        .collect();
    let changes: Vec<_> = openings.iter().map(change).collect();
    let mut nodes = MemoryDirectory::new();
    let update = apply(&nodes, &empty_root(), &changes).unwrap();
    nodes.add(&update);
    (nodes, update.root, openings)
}

fn change(opening: &Opening) -> Change {
    Change {
        path: opening.path(),
        commitment: opening.commitment(),
        entries: opening.size,
    }
}

fn mutated_path(input: &mut Input<'_>) {
    let (nodes, root, openings) = directory(1 + input.below(64));
    // The last few numbers are absent.
    let wanted = Opening {
        id: format!("context-{}", input.below(openings.len() + 3)),
        size: 1,
        root: Hash::default(),
    };
    let honest = path::build(&nodes, &root, &wanted.path()).unwrap();
    let truth = path::verify(&root, &wanted.path(), &honest.as_slices()).unwrap();
    let mut changed = honest.clone();
    let at = input.below(changed.nodes.len());
    match input.byte() % 4 {
        0 => {
            changed.nodes.truncate(at);
        }
        1 => {
            let node = changed.nodes[at].clone();
            changed.nodes.push(node);
        }
        _ => input.mutate(&mut changed.nodes[at]),
    }
    if let Ok(found) = path::verify(&root, &wanted.path(), &changed.as_slices()) {
        assert_eq!((found, &changed), (truth, &honest));
    }
}

/// A peer that answers a descent with changed bytes now and then.
fn mutated_descent(input: &mut Input<'_>) {
    let (nodes, root, openings) = directory(1 + input.below(40));
    let known = input.below(openings.len() + 1);
    let held: Vec<_> = openings.iter().take(known).map(change).collect();
    let mut local = MemoryDirectory::new();
    let update = apply(&local, &empty_root(), &held).unwrap();
    local.add(&update);
    let root_bytes = nodes.directory_node(&root).unwrap().unwrap();
    let sums = Node::decode(&root_bytes).unwrap().sums();
    let Ok(mut diff) = Diff::new(&local, &update.root, &root, sums) else {
        panic!("an honest root was refused");
    };
    let mut changed = Vec::new();
    while let Some(hash) = diff.wanted(1).pop() {
        let honest = nodes.directory_node(&hash).unwrap().unwrap();
        let below = Node::decode(&honest).unwrap();
        let answer: Vec<_> = below
            .slots()
            .iter()
            .filter_map(|slot| openings.iter().find(|o| o.slot() == *slot).cloned())
            .collect();
        let (mut bytes, mut wrong) = (honest.clone(), answer.clone());
        match input.byte() {
            1 => {
                let piece = input.take(8).to_vec();
                Input::new(&piece).mutate(&mut bytes);
            }
            2 => {
                if let Some(opening) = wrong.first_mut() {
                    opening.size = input.number();
                }
            }
            3 => wrong.extend(answer.first().cloned()),
            4 => {
                wrong.pop();
            }
            _ => (),
        }
        let same = bytes == honest && wrong == answer;
        let accepted = diff.supply(&hash, &bytes, wrong).is_ok();
        assert_eq!(accepted, same);
        if !accepted {
            diff.supply(&hash, &honest, answer).unwrap();
        }
        changed.extend(diff.take_changed());
    }
    assert!(diff.is_done());
    let mut found: Vec<_> = changed.into_iter().map(|c| c.opening.id).collect();
    let mut truth: Vec<_> = openings.iter().skip(known).map(|o| o.id.clone()).collect();
    found.sort();
    truth.sort();
    assert_eq!(found, truth);
}
