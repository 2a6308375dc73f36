//! Trees, proofs, tiles.

use converge_ledger::hash::{self, Hash};
use converge_ledger::tree::range::{right_build, root_with_right};
use converge_ledger::tree::tile::TILE_BASE_LEVEL;
use converge_ledger::tree::{
    Frontier, LeafIndex, MemoryNodes, TileId, TilePath, Tiles, TreeSize, consistency, inclusion,
};
use serde_json::{Value, json};

use super::{file, hash as hash_of, hashes, hex, number, texts, unhex};

/// Leaf i is the plain BLAKE3 of i as one u64.
fn leaf(i: u64) -> Hash {
    hash::content(&i.to_le_bytes())
}

fn nodes(n: u64) -> MemoryNodes {
    let leaves: Vec<Hash> = (0..n).map(leaf).collect();
    MemoryNodes::from_leaves(&leaves).unwrap()
}

fn frontier(n: u64) -> Frontier {
    let mut frontier = Frontier::new();
    for i in 0..n {
        frontier.append(leaf(i)).unwrap();
    }
    frontier
}

pub(crate) fn tree() -> Value {
    let mut cases = Vec::new();
    for n in (0..=40).chain([100, 255, 256, 257]) {
        cases.push(
            json!({ "name": format!("root of {n} leaves"), "good": true, "kind": "root",
            "size": n, "root": frontier(n).root().to_string(),
            "frontier": hex(&frontier(n).to_bytes()) }),
        );
    }
    for (i, n) in [(0, 1), (0, 2), (3, 7), (6, 7), (4, 8), (99, 100), (0, 100)] {
        let proof = inclusion::build(LeafIndex::new(i), TreeSize::new(n), &nodes(n)).unwrap();
        let case = |name: &str, good: bool, index: u64, size: u64, proof: &[Hash]| {
            json!({ "name": format!("leaf {i} of {n}{name}"), "good": good, "kind": "inclusion",
                "leaf": leaf(i).to_string(), "index": index, "size": size,
                "proof": texts(proof), "root": frontier(n).root().to_string() })
        };
        cases.push(case("", true, i, n, &proof));
        let surplus = [&proof[..], &[leaf(1)]].concat();
        cases.push(case(", a surplus hash", false, i, n, &surplus));
        cases.push(case(", index out of range", false, n, n, &proof));
        if !proof.is_empty() {
            cases.push(case(", a missing hash", false, i, n, &proof[1..]));
            let mut swapped = proof.clone();
            swapped.reverse();
            if swapped != proof {
                cases.push(case(", reversed", false, i, n, &swapped));
            }
        }
    }
    for (m, n) in [(1, 2), (3, 7), (4, 7), (6, 8), (7, 7), (50, 100), (64, 100)] {
        let (m, n) = (TreeSize::new(m), TreeSize::new(n));
        let proof = consistency::build(m, n, &nodes(n.get())).unwrap();
        let case = |name: &str, good: bool, proof: &[Hash], old: Hash| {
            json!({ "name": format!("{m} to {n}{name}"), "good": good, "kind": "consistency",
                "from": m.get(), "to": n.get(), "proof": texts(proof),
                "old_root": old.to_string(), "root": frontier(n.get()).root().to_string() })
        };
        let old = frontier(m.get()).root();
        cases.push(case("", true, &proof, old));
        cases.push(case(", another old root", false, &proof, leaf(5)));
        cases.push(case(
            ", a surplus hash",
            false,
            &[&proof[..], &[leaf(1)]].concat(),
            old,
        ));
        let right = right_build(m, n, &nodes(n.get())).unwrap();
        let case = |name: &str, good: bool, right: &[Hash]| {
            json!({ "name": format!("right of {m} in {n}{name}"), "good": good, "kind": "right",
                "from": m.get(), "to": n.get(), "right": texts(right),
                "frontier": hex(&frontier(m.get()).to_bytes()),
                "root": frontier(n.get()).root().to_string() })
        };
        cases.push(case("", true, &right));
        cases.push(case(
            ", a surplus hash",
            false,
            &[&right[..], &[leaf(1)]].concat(),
        ));
        if !right.is_empty() {
            cases.push(case(", a missing hash", false, &right[1..]));
        }
    }
    for (name, spoil) in [("reserved byte set", 1), ("a size with other peaks", 8)] {
        let mut bytes = frontier(7).to_bytes();
        bytes[spoil] ^= 8;
        cases.push(
            json!({ "name": format!("frontier: {name}"), "good": false, "kind": "root",
            "size": 7, "root": frontier(7).root().to_string(), "frontier": hex(&bytes) }),
        );
    }
    file("02-tree", cases)
}

pub(crate) fn judge_tree(case: &Value) -> bool {
    let root = hash_of(&case["root"]);
    let size = |field| TreeSize::new(number(case, field));
    match case["kind"].as_str().unwrap() {
        "root" => {
            let own = frontier(number(case, "size"));
            let read = Frontier::from_bytes(&unhex(&case["frontier"]));
            own.root() == root && read == Ok(own)
        }
        "inclusion" => {
            let (leaf, proof) = (hash_of(&case["leaf"]), hashes(&case["proof"]));
            let index = LeafIndex::new(number(case, "index"));
            inclusion::verify(&leaf, index, size("size"), &proof, &root).is_ok()
        }
        "consistency" => {
            let (old, proof) = (hash_of(&case["old_root"]), hashes(&case["proof"]));
            consistency::verify(size("from"), size("to"), &proof, &old, &root).is_ok()
        }
        "right" => {
            let own = Frontier::from_bytes(&unhex(&case["frontier"])).unwrap();
            root_with_right(&own, size("to"), &hashes(&case["right"])) == Ok(root)
        }
        kind => panic!("{kind}"),
    }
}

fn tiles_of(n: u64) -> Tiles {
    let (mut tiles, mut frontier) = (Tiles::new(), Frontier::new());
    for i in 0..n {
        tiles.append(&mut frontier, leaf(i)).unwrap();
    }
    tiles
}

pub(crate) fn tiles() -> Value {
    let mut cases = Vec::new();
    for (n, level, index) in [
        (16, 1, 0),
        (100, 1, 0),
        (4096, 1, 0),
        (4200, 1, 1),
        (4200, 2, 0),
    ] {
        let tile = TileId::new(level, index).unwrap();
        let held = tiles_of(n).tile(tile).unwrap().to_vec();
        let path = TilePath::new(tile, held.len()).unwrap().to_string();
        let hash = hash::content(&held.iter().flat_map(|h| *h.as_bytes()).collect::<Vec<_>>());
        cases.push(
            json!({ "name": format!("{path} of {n} leaves"), "good": true, "size": n,
            "path": path, "width": held.len(), "first": held[0].to_string(),
            "blake3_of_tile": hash.to_string() }),
        );
    }
    for path in [
        "tile/0/000",
        "tile/1/0",
        "tile/1/1000",
        "tile/1/x000",
        "tile/1/000.p/256",
        "tile/1/000.p/0",
        "tile/1/000/",
        "tile/9/000",
        "tile/1/x001/67",
        "Tile/1/000",
        "",
    ] {
        cases.push(json!({ "name": format!("path {path:?}"), "good": false, "path": path }));
    }
    file("03-tiles", cases)
}

pub(crate) fn judge_tiles(case: &Value) -> bool {
    assert_eq!(TILE_BASE_LEVEL, 4);
    let text = case["path"].as_str().unwrap();
    let Ok(path) = text.parse::<TilePath>() else {
        return false;
    };
    let tiles = tiles_of(number(case, "size"));
    let held = tiles.tile(path.tile()).unwrap();
    let bytes: Vec<u8> = held.iter().flat_map(|h| *h.as_bytes()).collect();
    path.to_string() == text
        && path.width() == held.len()
        && held[0] == hash_of(&case["first"])
        && hash::content(&bytes) == hash_of(&case["blake3_of_tile"])
}
