//! What the tests of proofs, evidence and the chain of keys share, here and in
//! the vectors: an origin in memory that appends, publishes, rotates its key,
//! begins terms, and lies when it is told to.
//!
//! Everything follows from the calls: keys from seeds, times from counters.

use std::collections::BTreeMap;
use std::convert::Infallible;

use crate::directory::path::{self, Path};
use crate::directory::{Change, MemoryDirectory, Opening, apply, empty_root};
use crate::entry::{ContextId, Draft, leaf_hash};
use crate::evidence::{ContextEvidence, Evidence, Kind, Rewritten};
use crate::hash::Hash;
use crate::head::{
    Head, HeadOrder, KeyChain, Rotation, SignedHead, SignedTakeover, Takeover, needed_rotations,
    sign_head, sign_rotation,
};
use crate::note::{Note, OriginName, SignerKey, VerifierKey};
use crate::proof::{
    ChangedContext, ContextProof, EntryProof, State, StoreProof, StoreProofError, prove_store,
};
use crate::tree::nodes::read_root;
use crate::tree::{LeafIndex, MemoryNodes, TreeSize, consistency, inclusion};

/// The key of a seed.
pub(crate) fn signer(seed: u8) -> SignerKey {
    SignerKey::from_seed(OriginName::new("proofs.example").unwrap(), &[seed; 32])
}

/// Its public half.
pub(crate) fn vkey(seed: u8) -> VerifierKey {
    signer(seed).verifier().clone()
}

fn id(name: &str) -> ContextId {
    ContextId::new(name).unwrap()
}

/// One context: headers, payloads, and the tree over them.
#[derive(Clone, Default)]
pub(crate) struct Context {
    entries: Vec<(Vec<u8>, Vec<u8>)>,
    nodes: MemoryNodes,
}

impl Context {
    fn append(&mut self, payload: &[u8]) {
        let sequence = self.entries.len() as u64 + 1;
        let draft = Draft::new("facts", payload).unwrap();
        let mut header = Vec::new();
        let time_ns = 1_700_000_000_000_000_000 + sequence;
        let fields = draft.header(sequence, sequence, time_ns);
        fields.encode_into(&mut header).unwrap();
        self.nodes.append(leaf_hash(&header)).unwrap();
        self.entries.push((header, payload.to_vec()));
    }

    fn size(&self) -> TreeSize {
        TreeSize::new(self.entries.len() as u64)
    }

    fn state(&self) -> State {
        State {
            size: self.size().get(),
            root: self.nodes.root(),
        }
    }

    /// Hashes from what it was to what it is.
    fn consistency(&self, from: u64) -> Vec<Hash> {
        consistency::build(TreeSize::new(from), self.size(), &self.nodes).unwrap()
    }
}

/// A signed head, and everything it is about.
#[derive(Clone)]
pub(crate) struct Point {
    pub(crate) head: SignedHead,
    /// All rotations up to the head, the head's own included.
    pub(crate) rotations: Vec<Vec<u8>>,
    contexts: BTreeMap<String, Context>,
    directory: MemoryDirectory,
}

impl Point {
    pub(crate) fn note(&self) -> Vec<u8> {
        self.head.note_bytes()
    }

    pub(crate) fn order(&self) -> HeadOrder {
        self.head.order()
    }

    /// The id of an entry, if there is one.
    pub(crate) fn entry(&self, context: &str, sequence: u64) -> Option<Hash> {
        let context = self.contexts.get(context)?;
        let at = usize::try_from(sequence.checked_sub(1)?).ok()?;
        let (header, _) = context.entries.get(at)?;
        Some(leaf_hash(header))
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.contexts.keys().map(String::as_str)
    }

    pub(crate) fn state(&self, context: &str) -> Option<State> {
        self.contexts.get(context).map(Context::state)
    }

    /// The path to a context, or to where it would be.
    pub(crate) fn path(&self, context: &str) -> Path {
        let root = self.head.head().directory_root;
        path::build(&self.directory, &root, &id(context).path()).unwrap()
    }

    pub(crate) fn entry_proof(&self, name: &str, sequence: u64, payload: bool) -> EntryProof {
        let context = &self.contexts[name];
        let at = LeafIndex::new(sequence - 1);
        let (header, body) = &context.entries[usize::try_from(sequence - 1).unwrap()];
        EntryProof {
            context: id(name),
            sequence,
            size: context.size().get(),
            root: context.state().root,
            header: header.clone(),
            payload: payload.then(|| body.clone()),
            inclusion: inclusion::build(at, context.size(), &context.nodes).unwrap(),
            directory: self.path(name),
            rotations: needed_rotations(&self.rotations, &[self.note()]),
            head: self.note(),
        }
    }

    /// That a context extends what it was; made whether or not it is true.
    pub(crate) fn context_proof(&self, older: &Self, name: &str) -> ContextProof {
        let (context, from) = (&self.contexts[name], older.state(name));
        let size = from.map_or(0, |from| from.size);
        let grew = size <= context.size().get();
        ContextProof {
            context: id(name),
            from,
            to: context.state(),
            consistency: if grew {
                context.consistency(size)
            } else {
                Vec::new()
            },
            older_directory: older.path(name),
            directory: self.path(name),
            rotations: needed_rotations(&self.rotations, &[older.note(), self.note()]),
            older_head: older.note(),
            head: self.note(),
        }
    }

    fn changed(&self, older: &Self, path: &Hash) -> ChangedContext {
        let found = self
            .contexts
            .iter()
            .find(|(name, _)| id(name).path() == *path);
        let (name, context) = found.unwrap();
        let from = older.state(name).unwrap();
        ChangedContext {
            id: id(name),
            from,
            to: context.state(),
            consistency: context.consistency(from.size),
        }
    }

    pub(crate) fn store_proof(&self, older: &Self) -> Result<StoreProof, StoreError> {
        prove_store(
            (&older.head, &older.directory),
            (&self.head, &self.directory),
            &self.rotations,
            |path, _, _| Ok(self.changed(older, path)),
        )
    }

    /// What both directories say about a context of the earlier head.
    pub(crate) fn context_evidence(&self, earlier: &Self, name: &str) -> ContextEvidence {
        let before = earlier.state(name).unwrap();
        let later = self.state(name);
        let grown = self
            .contexts
            .get(name)
            .filter(|c| c.size().get() > before.size);
        ContextEvidence {
            id: id(name),
            earlier: before,
            earlier_directory: earlier.path(name),
            later,
            later_directory: self.path(name),
            rewritten: grown.map(|context| Rewritten {
                root: read_root(TreeSize::new(before.size), &context.nodes).unwrap(),
                consistency: context.consistency(before.size),
            }),
        }
    }
}

pub(crate) type StoreError = StoreProofError<Infallible, Infallible, Infallible>;

/// See the module.
#[derive(Clone)]
pub(crate) struct Origin {
    seed: u8,
    pub(crate) term: u64,
    pub(crate) epoch: u64,
    contexts: BTreeMap<String, Context>,
    directory: MemoryDirectory,
    pub(crate) rotations: Vec<Vec<u8>>,
}

impl Origin {
    /// An empty store under the key of seed 1.
    pub(crate) fn new() -> Self {
        Self {
            seed: 1,
            term: 1,
            epoch: 0,
            contexts: BTreeMap::new(),
            directory: MemoryDirectory::new(),
            rotations: Vec::new(),
        }
    }

    pub(crate) fn append(&mut self, context: &str, payloads: &[&str]) {
        let context = self.contexts.entry(context.to_owned()).or_default();
        for payload in payloads {
            context.append(payload.as_bytes());
        }
    }

    /// Forgets all entries of a context but the first so many.
    pub(crate) fn cut(&mut self, context: &str, size: u64) {
        let old = self.contexts.remove(context).unwrap();
        let mut kept = Context::default();
        for (_, payload) in old.entries.iter().take(usize::try_from(size).unwrap()) {
            kept.append(payload);
        }
        if size > 0 {
            self.contexts.insert(context.to_owned(), kept);
        }
    }

    /// Forgets a context.
    pub(crate) fn forget(&mut self, context: &str) {
        self.contexts.remove(context).unwrap();
    }

    /// A head over what there is, not signed yet.
    pub(crate) fn next_head(&mut self) -> Head {
        self.epoch += 1;
        let changes: Vec<Change> = self.contexts.iter().map(change).collect();
        let update = apply(&MemoryDirectory::new(), &empty_root(), &changes).unwrap();
        self.directory.add(&update);
        Head {
            origin: signer(self.seed).verifier().name().clone(),
            term: self.term,
            epoch: self.epoch,
            directory_root: update.root,
            contexts: update.sums.contexts,
            entries: update.sums.entries,
            time_ns: 1_700_000_000_000_000_000u64.saturating_add(self.epoch),
            rotation: None,
        }
    }

    pub(crate) fn publish(&mut self) -> Point {
        let head = self.next_head();
        self.publish_as(&head)
    }

    /// Signs a head as it is.
    pub(crate) fn publish_as(&self, head: &Head) -> Point {
        let key = signer(self.seed);
        let note = sign_head(head, &key).unwrap();
        self.point(SignedHead::open(&note, key.verifier()).unwrap())
    }

    /// Publishes a rotation to the key of another seed.
    pub(crate) fn rotate(&mut self, seed: u8) -> Point {
        let (old, new) = (signer(self.seed), signer(seed));
        let mut head = self.next_head();
        head.rotation = Some(Rotation {
            old: old.verifier().clone(),
            new: new.verifier().clone(),
        });
        let note = sign_rotation(&head, &old, &new).unwrap();
        self.seed = seed;
        self.rotations.push(note.clone());
        self.point(SignedHead::open(&note, old.verifier()).unwrap())
    }

    fn point(&self, head: SignedHead) -> Point {
        Point {
            head,
            rotations: self.rotations.clone(),
            contexts: self.contexts.clone(),
            directory: self.directory.clone(),
        }
    }

    /// Begins a term after a head, with what this origin has; the note.
    pub(crate) fn take_over(&mut self, term: u64, base: &Point) -> Vec<u8> {
        self.term = term;
        self.epoch = base.order().epoch;
        let head = base.head.head();
        let takeover = Takeover {
            origin: head.origin.clone(),
            term,
            base: base.order(),
            base_directory_root: head.directory_root,
            base_contexts: head.contexts,
            base_entries: head.entries,
            time_ns: 1_700_000_000_000_000_000 + term,
        };
        self.sign_takeover(&takeover)
    }

    pub(crate) fn sign_takeover(&self, takeover: &Takeover) -> Vec<u8> {
        let mut note = Note::new(takeover.to_text()).unwrap();
        note.sign(&signer(self.seed)).unwrap();
        note.to_bytes()
    }

    /// The keys from a pinned one on.
    pub(crate) fn chain(&self, pinned: u8) -> KeyChain {
        KeyChain::open(&vkey(pinned), &self.rotations).unwrap()
    }
}

fn change((name, context): (&String, &Context)) -> Change {
    let State { size, root } = context.state();
    let opening = Opening {
        id: name.clone(),
        size,
        root,
    };
    Change {
        path: opening.path(),
        commitment: opening.commitment(),
        entries: size,
    }
}

/// Three contexts, a rotation or two if asked for, a grown context and a new
/// one: an older and a newer head.
pub(crate) fn history(rotations: u8) -> (Point, Point) {
    let mut origin = Origin::new();
    origin.append("a", &["one", "two", "three"]);
    origin.append("b", &["uno"]);
    origin.append("c", &["ein", "zwei"]);
    let older = origin.publish();
    for seed in 2..2 + rotations {
        origin.rotate(seed);
    }
    origin.append("a", &["four", "five"]);
    origin.append("d", &["un"]);
    (older, origin.publish())
}

/// An origin with two contexts and its head.
pub(crate) fn begun() -> (Origin, Point) {
    let mut origin = Origin::new();
    origin.append("a", &["one", "two", "three"]);
    origin.append("b", &["uno"]);
    let point = origin.publish();
    (origin, point)
}

/// The next head after something was done to a copy.
pub(crate) fn next(origin: &Origin, change: impl FnOnce(&mut Origin)) -> Point {
    let mut origin = origin.clone();
    change(&mut origin);
    origin.publish()
}

/// Replaces a context's entries.
fn again(origin: &mut Origin, context: &str, payloads: &[&str]) {
    origin.forget(context);
    origin.append(context, payloads);
}

pub(crate) fn of_heads(one: &Point, other: &Point) -> Option<Evidence> {
    Evidence::of_heads(&other.rotations, &[], &one.head, &other.head)
}

/// Evidence about a context; honest or not.
pub(crate) fn of_context(earlier: &Point, later: &Point, context: &str) -> Evidence {
    let context = later.context_evidence(earlier, context);
    Evidence::of_context(&later.rotations, &[], &earlier.head, &later.head, context)
}

pub(crate) fn takeover(origin: &Origin, pinned: u8, note: &[u8]) -> SignedTakeover {
    origin.chain(pinned).takeover(note).unwrap()
}

/// One of every kind under seed 1; all but the takeovers after that many
/// rotations.
pub(crate) fn every_kind(rotations: u8) -> Vec<(Kind, Evidence)> {
    let (mut origin, _) = begun();
    for seed in 2..2 + rotations {
        origin.rotate(seed);
    }
    let base = origin.publish();
    let key = 2 + rotations;
    let texts = [
        next(&origin, |origin| origin.append("a", &["four"])),
        next(&origin, |origin| origin.append("a", &["FOUR"])),
    ];
    let rotated = [origin.clone().rotate(key), {
        let mut origin = origin.clone();
        origin.append("b", &["due"]);
        origin.publish();
        origin.rotate(key + 1)
    }];
    let one = takeover(&origin, 1, &origin.clone().take_over(2, &base));
    let other = takeover(&origin, 1, &origin.clone().take_over(2, &texts[0]));
    let fewer = next(&origin, |origin| origin.forget("b"));
    let gone = next(&origin, |origin| {
        origin.forget("b");
        origin.append("c", &["ein", "zwei"]);
    });
    let shrunk = next(&origin, |origin| {
        again(origin, "a", &["one"]);
        origin.append("b", &["due", "tre", "quattro"]);
    });
    let other_root = next(&origin, |origin| {
        again(origin, "a", &["one", "two", "THREE"]);
        origin.append("b", &["due"]);
    });
    let rewritten = next(&origin, |origin| {
        again(origin, "a", &["one", "TWO", "three", "four", "five"]);
    });
    vec![
        (Kind::TwoTexts, of_heads(&texts[1], &texts[0]).unwrap()),
        (
            Kind::TwoRotations,
            of_heads(&rotated[1], &rotated[0]).unwrap(),
        ),
        (
            Kind::TwoTakeovers,
            Evidence::of_takeovers(&origin.rotations, &other, &one).unwrap(),
        ),
        (Kind::Counts, of_heads(&base, &fewer).unwrap()),
        (Kind::Dropped, of_context(&base, &gone, "b")),
        (Kind::Shrunk, of_context(&base, &shrunk, "a")),
        (Kind::OtherRoot, of_context(&base, &other_root, "a")),
        (Kind::Rewritten, of_context(&base, &rewritten, "a")),
    ]
}

/// A rotation, two takeovers, and a context that is gone at the end.
pub(crate) fn across_terms() -> Evidence {
    let (mut origin, earlier) = begun();
    origin.rotate(2);
    let base = origin.publish();
    let first = origin.take_over(2, &base);
    let base = origin.publish();
    let second = origin.take_over(3, &base);
    let later = next(&origin, |origin| {
        origin.forget("b");
        origin.append("c", &["ein", "zwei"]);
    });
    Evidence {
        takeovers: vec![first, second],
        ..of_context(&earlier, &later, "b")
    }
}

/// Every file that differs from this one in one place: a bit flipped, a byte
/// taken away, or one put in that could be overlooked.
pub(crate) fn changes(file: &[u8]) -> impl Iterator<Item = (usize, Vec<u8>)> {
    let flipped = (0..file.len()).flat_map(move |at| {
        (0..8).map(move |bit| {
            let mut bytes = file.to_vec();
            bytes[at] ^= 1 << bit;
            (at, bytes)
        })
    });
    let shorter = (0..file.len()).map(move |at| (at, [&file[..at], &file[at + 1..]].concat()));
    let longer = (0..=file.len()).flat_map(move |at| {
        let here = file.get(at).copied().unwrap_or(b'\n');
        [here, b'0', b' ', b'\n', b'=']
            .into_iter()
            .map(move |byte| (at, [&file[..at], &[byte], &file[at..]].concat()))
    });
    flipped.chain(shorter).chain(longer)
}
