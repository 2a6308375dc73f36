//! Files that verify under a key are those that the key's owner signed for.

use std::collections::HashSet;
use std::sync::LazyLock;

use super::Input;
use crate::evidence::Evidence;
use crate::head::SignedHead;
use crate::note::VerifierKey;
use crate::proof::testing::{Point, across_terms, every_kind, history, vkey};
use crate::proof::{ContextProof, EntryProof, StoreProof};
use crate::verify::{Proven, file};

/// What one origin signed, honest and not.
struct World {
    key: VerifierKey,
    files: Vec<Vec<u8>>,
    /// Every note in a file.
    notes: HashSet<Vec<u8>>,
    points: Vec<Point>,
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let mut files = Vec::new();
    let mut notes: HashSet<Vec<u8>> = HashSet::new();
    let mut points = Vec::new();
    for rotations in [0, 2] {
        let (older, newer) = history(rotations);
        files.push(older.note());
        files.push(newer.entry_proof("a", 4, true).to_bytes());
        files.push(newer.context_proof(&older, "a").to_bytes());
        files.push(newer.context_proof(&older, "d").to_bytes());
        files.push(newer.store_proof(&older).unwrap().to_bytes());
        let evidence = every_kind(rotations)
            .into_iter()
            .map(|(_, evidence)| evidence);
        for evidence in evidence.chain([across_terms()]) {
            notes.extend([evidence.earlier.clone(), evidence.later.clone()]);
            files.push(evidence.to_bytes());
        }
        points.extend([older, newer]);
    }
    notes.extend(points.iter().map(Point::note));
    World {
        key: vkey(1),
        files,
        notes,
        points,
    }
});

/// Arbitrary bytes, a good file with bytes changed, or with lines of others in
/// the place of its own: whatever verifies says what was signed.
pub fn verify_file(data: &[u8]) {
    let world = &*WORLD;
    let mut input = Input::new(data);
    let mode = input.byte() % 3;
    if mode == 0 {
        check(world, input.rest());
        return;
    }
    let mut bytes = world.files[input.below(world.files.len())].clone();
    assert!(file(&bytes, &world.key).is_ok());
    if mode == 1 {
        input.mutate(&mut bytes);
    } else {
        bytes = spliced(world, &bytes, &mut input);
    }
    check(world, &bytes);
}

/// Lines taken away, doubled, exchanged, or replaced by those of another file.
fn spliced(world: &World, bytes: &[u8], input: &mut Input<'_>) -> Vec<u8> {
    let mut lines: Vec<&[u8]> = bytes.split_inclusive(|&b| b == b'\n').collect();
    while !input.is_empty() && !lines.is_empty() {
        let at = input.below(lines.len());
        match input.byte() % 4 {
            0 => _ = lines.remove(at),
            1 => lines.insert(at, lines[at]),
            2 => {
                let other = input.below(lines.len());
                lines.swap(at, other);
            }
            _ => {
                let other = &world.files[input.below(world.files.len())];
                let theirs: Vec<&[u8]> = other.split_inclusive(|&b| b == b'\n').collect();
                let from = input.below(theirs.len());
                let count = usize::from(input.byte() % 12).min(theirs.len() - from);
                let end = (at + count).min(lines.len());
                lines.splice(at..end, theirs[from..from + count].iter().copied());
            }
        }
    }
    lines.concat()
}

fn check(world: &World, bytes: &[u8]) {
    let Ok(proven) = file(bytes, &world.key) else {
        return;
    };
    let point = |head: &SignedHead| {
        assert!(world.notes.contains(&head.note_bytes()), "an unknown head");
        world
            .points
            .iter()
            .find(|point| point.note() == head.note_bytes())
    };
    let printed = match proven {
        Proven::Head(head) => {
            point(&head);
            head.note_bytes()
        }
        Proven::Entry(entry) => {
            if let Some(point) = point(&entry.head) {
                let context = entry.context.as_str();
                assert_eq!(point.entry(context, entry.sequence), Some(entry.id));
                let state = point.state(context).unwrap();
                assert_eq!((state.size, state.root), (entry.size, entry.root));
            }
            EntryProof::parse(bytes).unwrap().to_bytes()
        }
        Proven::Context(context) => {
            let name = context.context.as_str();
            if let Some(point) = point(&context.older_head) {
                assert_eq!(point.state(name), context.from);
            }
            if let Some(point) = point(&context.head) {
                assert_eq!(point.state(name), Some(context.to));
            }
            ContextProof::parse(bytes).unwrap().to_bytes()
        }
        Proven::Store(store) => {
            if let (Some(older), Some(newer)) = (point(&store.older_head), point(&store.head)) {
                assert_eq!(newer.store_proof(older).unwrap().to_bytes(), bytes);
            }
            StoreProof::parse(bytes).unwrap().to_bytes()
        }
        Proven::Evidence(_) => {
            let evidence = Evidence::parse(bytes).unwrap();
            for note in [&evidence.earlier, &evidence.later] {
                assert!(world.notes.contains(note), "an unknown statement");
            }
            evidence.to_bytes()
        }
    };
    assert_eq!(printed, bytes);
}
