use super::*;
use crate::directory::testing::{Grown, at};
use crate::entry::ContextId;
use crate::head::{Head, sign_head};
use crate::limits::{DIRECTORY_DEPTH_MAX, STORE_PROOF_CONTEXT_BYTES_MIN};
use crate::proof::testing::{Origin, Point, history, signer, vkey};

const NAMES: [&str; 6] = ["ctx-1", "ctx-2", "ctx-3", "ctx-4", "ctx-5", "ctx-6"];

#[derive(Clone, Copy, PartialEq, Debug)]
enum Fate {
    Unchanged,
    Grown,
    New,
}

const FATES: [Fate; 3] = [Fate::Unchanged, Fate::Grown, Fate::New];

/// Every way `count` contexts can stand to two heads.
fn fates(count: u32) -> impl Iterator<Item = Vec<Fate>> {
    (0..3usize.pow(count)).map(move |case| {
        let fate = |i| FATES[case / 3usize.pow(i) % 3];
        (0..count).map(fate).collect()
    })
}

fn heads(fates: &[Fate]) -> (Point, Point) {
    let mut origin = Origin::new();
    for (name, fate) in NAMES.iter().zip(fates) {
        if *fate != Fate::New {
            origin.append(name, &["one", "two"]);
        }
    }
    let older = origin.publish();
    for (name, fate) in NAMES.iter().zip(fates) {
        match fate {
            Fate::Unchanged => {}
            Fate::Grown => origin.append(name, &["three"]),
            Fate::New => origin.append(name, &["one"]),
        }
    }
    (older, origin.publish())
}

fn named(fates: &[Fate], wanted: Fate) -> Vec<&'static str> {
    let pairs = NAMES.iter().zip(fates);
    pairs
        .filter(|pair| *pair.1 == wanted)
        .map(|pair| *pair.0)
        .collect()
}

#[test]
fn every_small_store_is_proven_and_discloses_what_grew() {
    for count in 0..=6 {
        for fates in fates(count) {
            let (older, newer) = heads(&fates);
            let proof = newer.store_proof(&older).unwrap();
            let proven = proof.verify(&vkey(1)).unwrap();
            let mut grown: Vec<_> = proof.contexts.iter().map(|c| c.id.as_str()).collect();
            grown.sort_unstable();
            assert_eq!(grown, named(&fates, Fate::Grown));
            assert_eq!(proven.changed, grown.len() as u64);
            let text = String::from_utf8(proof.to_bytes()).unwrap();
            for fate in [Fate::Unchanged, Fate::New] {
                assert!(!named(&fates, fate).iter().any(|name| text.contains(name)));
            }
            if fates.iter().all(|fate| *fate == Fate::New) {
                assert!(proof.older_nodes.is_empty() && proof.nodes.is_empty());
            }
            // And nothing is proven the other way round.
            assert!(older.store_proof(&newer).is_err());
        }
    }
}

/// A proof with each of its items taken away, doubled, or exchanged.
fn rearranged(good: &StoreProof) -> Vec<StoreProof> {
    fn lists<T: Clone>(items: &[T]) -> Vec<Vec<T>> {
        let mut out = Vec::new();
        for at in 0..items.len() {
            let mut less = items.to_vec();
            let item = less.remove(at);
            out.push(less.clone());
            less.splice(at..at, [item.clone(), item.clone()]);
            out.push(less.clone());
            less.push(item);
            out.push(less);
            if at > 0 {
                let mut swapped = items.to_vec();
                swapped.swap(at, at - 1);
                out.push(swapped);
            }
        }
        out
    }
    let mut out = Vec::new();
    for older_nodes in lists(&good.older_nodes) {
        out.push(StoreProof {
            older_nodes,
            ..good.clone()
        });
    }
    for nodes in lists(&good.nodes) {
        out.push(StoreProof {
            nodes,
            ..good.clone()
        });
    }
    for contexts in lists(&good.contexts) {
        out.push(StoreProof {
            contexts,
            ..good.clone()
        });
    }
    out
}

#[test]
fn nothing_is_missing_surplus_or_in_another_order() {
    let mut tried = 0;
    for fates in fates(4) {
        let (older, newer) = heads(&fates);
        let good = newer.store_proof(&older).unwrap();
        for bad in rearranged(&good).into_iter().filter(|bad| *bad != good) {
            assert!(bad.verify(&vkey(1)).is_err(), "{fates:?}");
            tried += 1;
        }
    }
    assert!(tried > 500, "{tried}");
    // A large one, with nodes below the root.
    let mut origin = Origin::new();
    for i in 0..60 {
        origin.append(&format!("many-{i}"), &["one"]);
    }
    let older = origin.publish();
    for i in 0..70 {
        origin.append(&format!("many-{}", i * 3), &["two"]);
    }
    let newer = origin.publish();
    let good = newer.store_proof(&older).unwrap();
    assert_eq!(good.verify(&vkey(1)).unwrap().changed, 20);
    assert!(good.older_nodes.len() > 5);
    for bad in rearranged(&good).into_iter().filter(|bad| *bad != good) {
        assert!(bad.verify(&vkey(1)).is_err());
    }
}

#[test]
fn what_is_no_extension_is_not_proven() {
    let mut origin = Origin::new();
    for name in ["a", "b"] {
        origin.append(name, &["one", "two"]);
    }
    let older = origin.publish();
    let later = |fork: &dyn Fn(&mut Origin)| {
        let mut origin = origin.clone();
        fork(&mut origin);
        origin.publish()
    };
    let again = |origin: &mut Origin, payloads: &[&str]| {
        origin.forget("a");
        origin.append("a", payloads);
    };
    for forked in [
        later(&|origin| origin.forget("a")),
        later(&|origin| {
            origin.forget("a");
            origin.forget("b");
        }),
        later(&|origin| again(origin, &["one"])),
        later(&|origin| again(origin, &["one", "TWO"])),
        later(&|origin| again(origin, &["one", "TWO", "three"])),
        later(&|origin| {
            origin.forget("a");
            origin.append("c", &["one", "two", "three"]);
        }),
    ] {
        let refused = forked.store_proof(&older);
        assert!(matches!(refused, Err(StoreProofError::Unproven(_))));
        // Nor does a file that somebody puts together hold.
        let honest = later(&|origin| origin.append("a", &["three"]));
        let honest = honest.store_proof(&older).unwrap();
        let head = forked.note();
        let lie = StoreProof { head, ..honest };
        assert!(lie.verify(&vkey(1)).is_err());
    }
    let twice = older.store_proof(&older).unwrap();
    assert_eq!(twice.verify(&vkey(1)).unwrap().changed, 0);
}

fn signed(directory: &Grown, epoch: u64) -> SignedHead {
    let key = signer(1);
    let head = Head {
        origin: key.verifier().name().clone(),
        term: 1,
        epoch,
        directory_root: directory.root,
        contexts: directory.sums.contexts,
        entries: directory.sums.entries,
        time_ns: epoch,
        rotation: None,
    };
    SignedHead::open(&sign_head(&head, &key).unwrap(), key.verifier()).unwrap()
}

/// Path hashes that agree in all digits but the last: nobody can make such
/// contexts, but a signer can make such a directory.
/// No node of a descent is shorter: the memory for a list is bounded by the
/// bytes of the file, whatever it says.
#[test]
fn short_nodes_are_refused_where_they_are_met() {
    let (older, newer) = history(0);
    let good = newer.store_proof(&older).unwrap();
    let short = vec![0u8; STORE_PROOF_NODE_BYTES_MIN - 1];
    for node in [vec![], vec![0; 8], short] {
        for list in 0..2 {
            let mut bad = good.clone();
            if list == 0 {
                bad.older_nodes.insert(0, node.clone());
            } else {
                bad.nodes.push(node.clone());
            }
            let error = StoreProof::parse(&bad.to_bytes()).unwrap_err();
            assert!(error.is_malformed(), "{error}");
        }
    }
    let text = String::from_utf8(good.to_bytes()).unwrap();
    let line = format!("older-nodes {}\n", good.older_nodes.len());
    for (count, what) in [
        (STORE_PROOF_NODES_MAX, "bytes"),
        (STORE_PROOF_NODES_MAX + 1, "older-nodes"),
    ] {
        let many = text.replace(&line, &format!("older-nodes {count}\n\n\n\n"));
        assert_ne!(many, text);
        let error = StoreProof::parse(many.as_bytes()).unwrap_err();
        assert!(error.is_malformed(), "{what}: {error}");
    }
    let shortest = ChangedContext {
        id: ContextId::new("c").unwrap(),
        consistency: Vec::new(),
        from: State {
            size: 1,
            root: Hash::default(),
        },
        to: State {
            size: 2,
            root: Hash::default(),
        },
    };
    let without = good.to_bytes().len();
    let mut more = good;
    more.contexts.push(shortest);
    assert_eq!(
        more.to_bytes().len() - without,
        STORE_PROOF_CONTEXT_BYTES_MIN
    );
}

/// An empty store is extended by everything, but not by a head that no origin
/// can sign after it.
#[test]
fn heads_that_contradict_each_other_prove_nothing() {
    let mut origin = Origin::new();
    let empty = origin.publish();
    origin.append("a", &["one", "two", "three"]);
    let honest = origin.publish();
    let mut head = honest.head.head().clone();
    head.directory_root = Hash::from_bytes([7; 32]);
    for (contexts, entries, holds) in [(70, 3, false), (0, 0, false), (3, 70, true)] {
        (head.contexts, head.entries) = (contexts, entries);
        let newer = origin.publish_as(&head);
        let proof = StoreProof {
            head: newer.note(),
            ..honest.store_proof(&empty).unwrap()
        };
        let proven = proof.verify(&vkey(1));
        assert_eq!(proven.is_ok(), holds, "{proven:?}");
        if let Ok(proven) = proven {
            let want = "head 1.1 of proofs.example is empty: head 1.2 has nothing to keep (stated: \
                        3 contexts, 70 entries; 0 of them grew)";
            assert_eq!(proven.to_string(), want);
        } else {
            assert!(matches!(proven, Err(ProofError::Contradiction(_))));
        }
    }
}

#[test]
fn the_deepest_directories_are_descended() {
    let deepest = |last: u8, entries| at(&[&[0x77; 31], &[0x70 | last][..]].concat(), entries);
    let mut older = Grown::of(&[deepest(1, 1)]);
    let mut epoch = 0;
    let mut prove = |older: &Grown, newer: &Grown| {
        epoch += 2;
        let heads = [signed(older, epoch), signed(newer, epoch + 1)];
        let context = |_: &Hash, _, _| -> Result<ChangedContext, std::convert::Infallible> {
            panic!("no context changed")
        };
        let [first, second] = &heads;
        let proof = prove((first, &older.nodes), (second, &newer.nodes), &[], context).unwrap();
        proof.verify(&vkey(1)).unwrap();
        assert_eq!(StoreProof::parse(&proof.to_bytes()).unwrap(), proof);
        (proof.older_nodes.len(), proof.nodes.len())
    };
    // An entry in the root, then the same entry 63 nodes below it.
    let mut newer = older.clone();
    newer.apply(&[deepest(2, 1)]);
    assert_eq!(prove(&older, &newer), (1, DIRECTORY_DEPTH_MAX));
    // Two entries in the deepest node, then three.
    older = newer.clone();
    newer.apply(&[deepest(3, 1)]);
    let whole = (DIRECTORY_DEPTH_MAX, DIRECTORY_DEPTH_MAX);
    assert_eq!(prove(&older, &newer), whole);
}

/// Counts what a descent meets.
struct Met<'g> {
    older: &'g Grown,
    newer: &'g Grown,
    changed: u32,
}

impl Steps for Met<'_> {
    type Error = ();

    fn older(&mut self, hash: &Hash, at: &Prefix, sums: Sums) -> Result<Node, ()> {
        load(&self.older.nodes, hash, at, Some(sums)).map_err(|_| ())
    }

    fn newer(&mut self, hash: &Hash, at: &Prefix, sums: Sums) -> Result<Node, ()> {
        load(&self.newer.nodes, hash, at, Some(sums)).map_err(|_| ())
    }

    fn changed(&mut self, _: &Hash, _: (Hash, u64), _: (Hash, u64)) -> Result<(), ()> {
        self.changed += 1;
        Ok(())
    }

    fn gone() -> Self::Error {}
}

#[test]
fn every_change_in_the_deepest_node_is_met() {
    let sixteen = |entries| -> Vec<_> {
        let path = |last: u8| [&[0x77; 31], &[0x70 | last][..]].concat();
        (0..16).map(|last| at(&path(last), entries)).collect()
    };
    let older = Grown::of(&sixteen(1));
    let newer = Grown::of(&sixteen(2));
    let mut met = Met {
        older: &older,
        newer: &newer,
        changed: 0,
    };
    let (before, after) = (signed(&older, 1), signed(&newer, 2));
    walk(&mut met, Prefix::ROOT, whole(&before), whole(&after)).unwrap();
    assert_eq!(met.changed, 16);
    let back = walk(&mut met, Prefix::ROOT, whole(&after), Slot::Empty);
    assert_eq!(back, Err(()));
}

#[test]
fn the_prover_is_told_when_a_context_is_not_what_the_heads_say() {
    let (older, newer) = heads(&[Fate::Grown, Fate::Unchanged]);
    let good = newer.store_proof(&older).unwrap();
    let honest = good.contexts[0].clone();
    let with = |change: &dyn Fn(&mut ChangedContext)| {
        let mut context = honest.clone();
        change(&mut context);
        let bad = StoreProof {
            contexts: vec![context],
            ..good.clone()
        };
        assert!(bad.verify(&vkey(1)).is_err());
    };
    with(&|context| context.id = ContextId::new("ctx-2").unwrap());
    with(&|context| context.to.size += 1);
    with(&|context| context.from.size -= 1);
    with(&|context| context.from.root = context.to.root);
    with(&|context| _ = context.consistency.pop());
    with(&|context| context.consistency.push(context.to.root));
}
