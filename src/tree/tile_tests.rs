//! Tiles against all nodes of a tree, and the checked reader against tiles that
//! were tampered with.

use std::cell::Cell;
use std::convert::Infallible;

use super::oracle::{Naive, leaf, leaves, size};
use super::tile::{self, TILE_BASE_LEVEL, TILE_WIDTH, TileSlice};
use super::tiles::TilesError;
use super::*;
use crate::encoding::DecodeError;
use crate::hash::Hash;

fn grown(n: u64) -> (Frontier, Tiles) {
    let (mut frontier, mut tiles) = (Frontier::new(), Tiles::new());
    for i in 0..n {
        tiles.append(&mut frontier, leaf(i)).unwrap();
    }
    (frontier, tiles)
}

#[expect(clippy::unnecessary_wraps, reason = "the signature of a leaf reader")]
fn leaf_reader(first: LeafIndex, count: usize) -> Result<Vec<Hash>, Infallible> {
    assert!(count <= 16, "{count}");
    Ok((first.get()..first.get() + count as u64)
        .map(leaf)
        .collect())
}

/// Every complete subtree of a tree of `n` leaves.
fn all_nodes(n: u64) -> impl Iterator<Item = NodeId> {
    (0..62u8).flat_map(move |level| (0..n >> level).map(move |index| NodeId { level, index }))
}

fn checked(frontier: &Frontier, tiles: &Tiles) -> CheckedTiles {
    let mut checked = CheckedTiles::new(frontier.clone(), &frontier.root()).unwrap();
    for id in tile::all(frontier.size()) {
        let hashes = tiles.tile(id).unwrap().to_vec();
        assert_eq!(checked.admit(id, hashes.clone()).unwrap(), hashes);
    }
    checked
}

#[test]
fn tiles_answer_like_all_nodes_at_every_size_up_to_600() {
    let naive = Naive::new(leaves(600));
    let (mut frontier, mut tiles) = (Frontier::new(), Tiles::new());
    for n in 0..=600 {
        assert!(tiles.is_at(size(n)) && (n < 16 || !tiles.is_at(size(n - 16))));
        assert!(!tiles.is_at(size(n + 16)));
        tiles.check(&frontier).unwrap();
        let reader = TiledNodes::new(&tiles, leaf_reader);
        let ids: Vec<NodeId> = all_nodes(n).filter(|id| n < 64 || id.level > 2).collect();
        let hashes = reader.read_nodes(&ids).unwrap();
        for (id, hash) in ids.iter().zip(hashes) {
            let range = id.range().unwrap();
            assert_eq!(hash, naive.mth(range.lo(), range.hi()));
        }
        assert_eq!(nodes::read_root(size(n), &reader), Ok(naive.mth(0, n)));
        // The next subtree of each level is not complete yet.
        for level in TILE_BASE_LEVEL..62 {
            let index = n >> level;
            assert_eq!(tiles.node(NodeId { level, index }), None);
        }
        if n < 600 {
            tiles.append(&mut frontier, leaf(n)).unwrap();
        }
    }
}

#[test]
fn proofs_from_tiles_equal_proofs_from_all_nodes() {
    for n in [1, 15, 16, 17, 255, 4095, 4096, 4097, 70_000] {
        let (frontier, tiles) = grown(n);
        let nodes = MemoryNodes::from_leaves(&leaves(n)).unwrap();
        assert_eq!(frontier, *nodes.frontier());
        let reads = Cell::new(0);
        let reader = TiledNodes::new(&tiles, |first, count| {
            reads.set(reads.get() + 1);
            leaf_reader(first, count)
        });
        for k in (0..=n).step_by(usize::try_from(n / 50 + 1).unwrap()) {
            let (k, n) = (size(k), size(n));
            if k < n {
                let index = LeafIndex::new(k.get());
                let expected = inclusion::build(index, n, &nodes).unwrap();
                reads.set(0);
                assert_eq!(inclusion::build(index, n, &reader), Ok(expected));
                // The leaf's own group, and the ragged right edge.
                assert!(reads.get() <= 2, "{}", reads.get());
            }
            let expected = consistency::build(k, n, &nodes).unwrap();
            assert_eq!(consistency::build(k, n, &reader), Ok(expected));
            let expected = range::right_build(k, n, &nodes).unwrap();
            assert_eq!(range::right_build(k, n, &reader), Ok(expected));
        }
    }
}

/// Beyond 2^20 leaves there is a third level, and memory is still two bytes a leaf.
#[test]
fn a_million_leaves_make_three_levels_of_two_bytes_each() {
    let n = (1 << 20) + 5003;
    let mut nodes = MemoryNodes::new();
    let (mut frontier, mut tiles) = (Frontier::new(), Tiles::new());
    for i in 0..n {
        // A cheap leaf: what matters are the nodes above.
        let mut bytes = [7; 32];
        bytes[..8].copy_from_slice(&u64::to_le_bytes(i));
        let leaf = Hash::from_bytes(bytes);
        let at = frontier.append_with(leaf, |id, hash| tiles.add(id, hash).unwrap());
        assert_eq!(at, Ok(LeafIndex::new(i)));
        nodes.append(leaf).unwrap();
    }
    assert!(tiles.is_at(size(n)));
    assert_eq!(tile::all(size(n)).next(), TileId::new(3, 0));
    tiles.check(&frontier).unwrap();
    for level in TILE_BASE_LEVEL..=20 {
        for index in (0..n >> level).step_by(17) {
            let id = NodeId { level, index };
            assert_eq!(tiles.node(id), nodes.node(id), "{id}");
        }
    }
    let bytes = tiles.heap_bytes() as u64;
    assert!(bytes >= 2 * (n - 16) && bytes < 2 * n * 9 / 8, "{bytes}");
    let (front, again) = checked(&frontier, &tiles).into_tiles().unwrap();
    assert_eq!((front, again), (frontier, tiles));
}

#[test]
fn coordinates_place_every_node_in_its_tile() {
    for id in all_nodes(70_000).filter(|id| id.level >= TILE_BASE_LEVEL) {
        let slice = TileSlice::of(id).unwrap();
        assert!(slice.first + slice.count <= TILE_WIDTH && slice.count < TILE_WIDTH);
        // The slice's first hash, as a node, starts with the same leaf.
        let first = NodeId {
            level: slice.tile.base(),
            index: slice.tile.index() * 256 + slice.first as u64,
        };
        let (range, start) = (id.range().unwrap(), first.range().unwrap());
        assert_eq!(range.lo(), start.lo());
        assert_eq!(range.leaves(), start.leaves() * slice.count as u64);
    }
    assert_eq!(TileSlice::of(NodeId { level: 3, index: 0 }), None);
    assert_eq!(
        TileSlice::of(NodeId {
            level: 255,
            index: 0
        }),
        None
    );
    assert_eq!(
        TileSlice::of(NodeId {
            level: 4,
            index: u64::MAX
        }),
        None
    );
    assert_eq!(TileId::new(0, 0), None);
    assert_eq!(TileId::new(9, 0), None);
    assert!(TileId::new(8, 0).is_some_and(|top| top.parent().is_none()));
    assert_eq!(TileId::new(8, 1), None);
    assert!(TileId::new(1, (1 << 50) - 1).is_some());
    assert_eq!(TileId::new(1, 1 << 50), None);
    assert_eq!(TileId::new(1, u64::MAX), None);
}

#[test]
fn widths_add_up_to_the_nodes_of_the_level() {
    for n in (0..20_000).chain([1 << 40, SEQUENCE_MAX]) {
        for level in 1..=tile::TILE_LEVEL_MAX {
            let base = TileId::new(level, 0).unwrap().base();
            let full = (n >> base) / 256;
            let last = usize::try_from((n >> base) % 256).unwrap();
            if let Some(tile) = full.checked_sub(1).and_then(|i| TileId::new(level, i)) {
                assert_eq!(tile.width(size(n)), 256);
            }
            if let Some(tile) = TileId::new(level, full) {
                assert_eq!(tile.width(size(n)), last);
            }
        }
    }
}

#[test]
fn a_path_has_one_spelling() {
    for (level, index, width, text) in [
        (1, 0, 256, "tile/1/000"),
        (1, 0, 1, "tile/1/000.p/1"),
        (2, 999, 255, "tile/2/999.p/255"),
        (3, 1000, 256, "tile/3/x001/000"),
        (1, 1_234_067, 256, "tile/1/x001/x234/067"),
        (1, 1_234_067, 8, "tile/1/x001/x234/067.p/8"),
        (1, 5_000_000_000, 256, "tile/1/x005/x000/x000/000"),
    ] {
        let path = TilePath::new(TileId::new(level, index).unwrap(), width).unwrap();
        assert_eq!(path.to_string(), text);
        assert_eq!(text.parse(), Ok(path));
        assert_eq!((path.tile().index(), path.width()), (index, width));
        // Every text one step away is another tile, or none.
        for i in 0..text.len() {
            let (before, after) = (&text[..i], &text[i + 1..]);
            for c in [
                "", "0", "1", "9", "x", "/", ".", "p", "+", "-", " ", "00", "x000/",
            ] {
                let near = format!("{before}{c}{after}");
                for near in [near, format!("{before}{c}{}", &text[i..])] {
                    match near.parse::<TilePath>() {
                        Ok(other) => assert_eq!(other.to_string(), near),
                        Err(_) => assert_ne!(near, text),
                    }
                }
            }
        }
    }
    let spellings = [
        "",
        "tile",
        "tile/",
        "tile/1",
        "tile/1/",
        "tile/0/000",
        "tile/9/000",
        "tile/01/000",
        "tile/+1/000",
        "tile/1/0",
        "tile/1/+00",
        "tile/1/0000",
        "tile/1/1000",
        "tile/1/x000/001",
        "tile/1/001/000",
        "tile/1/x001/x000",
        "tile/1/x001/00",
        "tile/1/000.p/0",
        "tile/1/000.p/256",
        "tile/1/000.p/01",
        "tile/1/000.p/257",
        "tile/1/000.p/65537",
        "tile/1/000.p/1/",
        "tile/1/000/",
        "/tile/1/000",
        "tile/1/000 ",
        "tile/1/x999/x999/x999/x999/x999/x999/999",
        "tile/1/x1000/000",
    ];
    for text in spellings {
        assert!(text.parse::<TilePath>().is_err(), "{text}");
    }
    assert_eq!(
        "tile/1/x001/0".parse::<TilePath>(),
        Err(DecodeError::NotCanonical { what: "tile path" })
    );
    for index in (0..1 << 50).step_by(1 << 39) {
        let path = TilePath::new(TileId::new(1, index).unwrap(), 256).unwrap();
        assert_eq!(path.to_string().parse(), Ok(path));
    }
}

#[test]
fn nodes_come_in_their_turn_or_not_at_all() {
    let (mut frontier, mut tiles) = grown(40);
    let before = tiles.clone();
    for (level, index) in [(4, 0), (4, 1), (4, 3), (12, 0), (20, 0), (60, 0)] {
        let node = NodeId { level, index };
        let said = tiles.add(node, leaf(0));
        assert_eq!(said, Err(TileError::OutOfOrder { node }));
    }
    for (level, index) in [(0, 40), (3, 5), (5, 1), (11, 0), (62, 0), (255, 0)] {
        assert_eq!(tiles.add(NodeId { level, index }, leaf(0)), Ok(()));
    }
    assert_eq!(tiles, before);

    let (mut ahead, _) = grown(56);
    let kept = ahead.clone();
    assert_eq!(
        tiles.append(&mut ahead, leaf(0)),
        Err(TilesError::NotInStep)
    );
    assert_eq!((&ahead, &tiles), (&kept, &before));
    assert_eq!(
        tiles.append(&mut frontier, leaf(40)),
        Ok(LeafIndex::new(40))
    );
}

#[test]
fn stored_tiles_load_and_a_wrong_one_is_found() {
    let (frontier, tiles) = grown(9000);
    let mut ids: Vec<TileId> = tile::all(frontier.size()).collect();
    assert_eq!(ids.len(), 4);
    ids.sort_unstable();
    let load = |spoil: Option<(TileId, usize)>| {
        let mut loaded = Tiles::new();
        for &id in &ids {
            let mut hashes = tiles.tile(id).unwrap().to_vec();
            if let Some((_, at)) = spoil.filter(|(tile, _)| *tile == id) {
                hashes[at] = leaf(1);
            }
            loaded.push_tile(id, &hashes).unwrap();
        }
        loaded
    };
    assert_eq!(load(None), tiles);
    for &tile in &ids {
        for at in 0..tiles.tile(tile).unwrap().len() {
            let said = load(Some((tile, at))).check(&frontier);
            assert!(said.is_err(), "{tile} {at}");
        }
    }
    let (shorter, fewer) = grown(8990);
    assert!(fewer.check(&frontier).is_err());
    assert!(tiles.check(&shorter).is_err());
    let mut loaded = Tiles::new();
    assert!(loaded.push_tile(ids[1], &[leaf(0)]).is_err());
    assert!(loaded.push_tile(ids[3], &[leaf(0)]).is_err());
    assert!(loaded.push_tile(ids[0], &[]).is_err());
    assert!(loaded.push_tile(ids[0], &[leaf(0); 257]).is_err());
    assert_eq!(loaded, Tiles::new());
}

#[test]
fn only_tiles_that_lead_to_the_root_are_released() {
    for n in [16, 100, 4095, 4096, 4112, 8200, 12_345] {
        let (frontier, tiles) = grown(n);
        let good = checked(&frontier, &tiles);
        for id in tile::all(size(n)) {
            let hashes = tiles.tile(id).unwrap();
            let mut fresh = good.clone();
            fresh.forget(id);
            assert_eq!(fresh.tile(id), None);
            for at in (0..hashes.len()).step_by(hashes.len() / 8 + 1) {
                let mut wrong = hashes.to_vec();
                let mut bytes = *wrong[at].as_bytes();
                bytes[at % 32] ^= 1 << (at % 8);
                wrong[at] = Hash::from_bytes(bytes);
                let said = fresh.admit(id, wrong);
                assert_eq!(said, Err(TileError::HashMismatch { tile: id }));
            }
            for got in [0, hashes.len() - 1] {
                let said = fresh.admit(id, hashes[..got].to_vec());
                assert!(matches!(said, Err(TileError::WrongWidth { .. })));
            }
            let mut longer = hashes.to_vec();
            longer.push(leaf(0));
            assert!(fresh.admit(id, longer).is_err());
            assert_eq!(fresh.tile(id), None);
            assert_eq!(fresh.admit(id, hashes.to_vec()), Ok(hashes));
        }
    }
}

#[test]
fn tiles_are_asked_for_from_the_top() {
    let (frontier, tiles) = grown(70_000);
    let id = |level, index| TileId::new(level, index).unwrap();
    let mut checked = CheckedTiles::new(frontier.clone(), &frontier.root()).unwrap();
    let node = NodeId { level: 4, index: 9 };
    let wanted = checked.missing_for(node);
    assert_eq!(wanted, [id(2, 0), id(1, 0)]);
    assert_eq!(
        checked.admit(id(1, 0), tiles.tile(id(1, 0)).unwrap().to_vec()),
        Err(TileError::ParentMissing {
            tile: id(1, 0),
            parent: id(2, 0)
        })
    );
    for tile in wanted {
        assert_eq!(checked.node(node), None);
        let hashes = tiles.tile(tile).unwrap().to_vec();
        checked.admit(tile, hashes).unwrap();
    }
    assert_eq!(checked.node(node), tiles.node(node));
    assert!(checked.missing_for(node).is_empty());
    assert!(checked.read_nodes(&[node]).is_ok());

    // The right edge needs nothing but the peaks; beyond it there is nothing.
    let last = NodeId {
        level: 4,
        index: (70_000 >> 4) - 1,
    };
    assert_eq!(checked.missing_for(last), [id(1, 17)]);
    let beyond = NodeId {
        level: 4,
        index: 70_000 >> 4,
    };
    assert!(checked.missing_for(beyond).is_empty());
    assert!(
        checked
            .missing_for(NodeId { level: 3, index: 0 })
            .is_empty()
    );
    let outside = id(1, 18);
    assert!(matches!(
        checked.admit(outside, vec![leaf(0)]),
        Err(TileError::NotInTree { .. })
    ));
    assert!(checked.into_tiles().is_err());
    assert_eq!(
        CheckedTiles::new(frontier, &leaf(0)).err(),
        Some(TileError::RootMismatch)
    );
}

#[test]
fn a_leaf_reader_that_breaks_its_promise_is_found_out() {
    let (_, tiles) = grown(20);
    let short = |_, count: usize| Ok::<_, Infallible>(vec![leaf(0); count - 1]);
    let reader = TiledNodes::new(&tiles, short);
    let id = NodeId { level: 1, index: 8 };
    assert_eq!(
        reader.read_nodes(&[id]),
        Err(TiledError::WrongCount {
            expected: 2,
            got: 1
        })
    );
    for (level, index) in [(4, 1), (0, u64::MAX), (3, 1 << 60), (61, 2)] {
        let id = NodeId { level, index };
        assert_eq!(reader.read_nodes(&[id]), Err(TiledError::Missing(id)));
    }
}
