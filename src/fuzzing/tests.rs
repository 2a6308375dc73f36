//! Every target on its seeds, so that a target that has rotted is noticed by
//! `cargo test`. The seeds are made by an ignored test:
//! `cargo test --features fuzzing -- --ignored write_the_seeds`.

use std::fs;
use std::path::PathBuf;

use super::*;
use crate::directory::{self, Change, MemoryDirectory, Opening, OpeningsPart, ReadDirectory, Seen};
use crate::entry::{ContextId, Draft, Metadata};
use crate::head::{HeadOrder, Takeover};
use crate::run::RunBuilder;
use crate::store::Store;
use crate::sync::message::Request;
use crate::sync::source;
use crate::tree::Frontier;

/// Bytes of all seeds: they are read by every clone.
const SEEDS_BYTES_MAX: u64 = 200 << 10;

fn folder(target: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(target)
}

#[test]
fn every_target_holds_on_its_seeds() {
    let mut bytes = 0;
    for (target, body) in TARGETS {
        let mut seeds = 0;
        for file in fs::read_dir(folder(target)).unwrap() {
            let data = fs::read(file.unwrap().path()).unwrap();
            bytes += data.len() as u64;
            seeds += 1;
            body(&data);
        }
        assert!(seeds > 0, "{target} has no seeds");
    }
    assert!(bytes <= SEEDS_BYTES_MAX, "{bytes} bytes of seeds");
}

#[test]
fn every_target_holds_on_noise() {
    for (_, body) in TARGETS {
        body(b"");
        for seed in 0..40u64 {
            let mut noise = Vec::new();
            for i in 0..seed {
                let block = crate::hash::content(&[seed.to_le_bytes(), i.to_le_bytes()].concat());
                noise.extend_from_slice(block.as_bytes());
            }
            body(&noise);
        }
    }
}

#[test]
fn the_canary_sings_only_when_it_should() {
    canary(b"");
    canary(b"bir");
    canary(b"xbird");
    assert!(std::panic::catch_unwind(|| canary(b"birds")).is_err());
}

#[test]
fn every_target_has_a_file() {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/fuzz_targets");
    let mut files: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    let mut wanted: Vec<_> = TARGETS
        .iter()
        .map(|(name, _)| format!("{name}.rs"))
        .collect();
    wanted.push("canary.rs".into());
    wanted.sort();
    assert_eq!(files, wanted);
}

fn seed(target: &str, name: &str, choice: &[u8], bytes: impl AsRef<[u8]>) {
    let dir = folder(target);
    fs::create_dir_all(&dir).unwrap();
    let data = [choice, bytes.as_ref()].concat();
    fs::write(dir.join(name), data).unwrap();
}

fn drafts() -> Vec<Draft> {
    let metadata = Metadata::from_pairs([("agent", "7"), ("cycle", "0")]).unwrap();
    vec![
        Draft::new("facts", "").unwrap(),
        Draft::new("facts", "{\"a\":1}")
            .unwrap()
            .with_metadata(metadata),
        Draft::new("k", vec![0; 5000])
            .unwrap()
            .with_request_id("r-1")
            .unwrap(),
    ]
}

#[test]
#[ignore = "writes fuzz/corpus"]
fn write_the_seeds() {
    let mut run = RunBuilder::default();
    for (i, draft) in drafts().iter().enumerate() {
        let header = draft.header(i as u64 + 1, i as u64 + 1, 1_000);
        let mut bytes = Vec::new();
        header.encode_into(&mut bytes).unwrap();
        seed("entry_decode", &format!("header-{i}"), &[0], bytes);
        run.push(&header, draft.payload()).unwrap();
    }
    let mut bytes = Vec::new();
    run.finish_into(&mut bytes);
    seed("entry_decode", "run", &[1], bytes);
    seed("entry_decode", "context", &[2], "context/\u{e9}");
    let mut frontier = Frontier::new();
    for i in 0..7u64 {
        frontier
            .append(crate::hash::content(&i.to_le_bytes()))
            .unwrap();
    }
    seed("entry_decode", "frontier", &[3], frontier.to_bytes());
    seed("entry_decode", "tile", &[4], "tile/1/x001/067.p/8");
    write_notes();
    write_directories();
    write_proofs();
    write_stores();
    write_frames();
    write_archives();
    write_files();
}

fn write_files() {
    for file in [1u8, 4, 5, 12, 13] {
        seed("verify_file", &format!("good-{file}"), &[1], [file, 0]);
    }
    for (name, choices) in [
        ("changed-byte", &[1, 3, 0, 200, 0, 1, b'A'][..]),
        ("removed-byte", &[1, 20, 0, 44, 1, 0x81]),
        ("line-removed", &[2, 1, 0, 6, 0, 0]),
        ("line-doubled", &[2, 9, 0, 1, 0, 1]),
        ("lines-exchanged", &[2, 2, 0, 2, 0, 2, 3, 0]),
        ("lines-of-another", &[2, 3, 0, 20, 0, 3, 2, 0, 20, 0, 9]),
    ] {
        seed("verify_file", name, &[], choices);
    }
    let evidence = "converge-ledger/evidence/v1\nearlier 1\nx\nlater 1\ny\n";
    seed("verify_file", "raw-first-line", &[0], evidence);
    let entry = "converge-ledger/entry-proof/v1\ncontext a\nsequence 1\nsize 1\n";
    seed("verify_file", "raw-entry", &[0], entry);
}

fn write_archives() {
    let archive = archive::honest();
    seed("archive_read", "raw", &[0], &archive);
    seed("archive_read", "first-lines", &[0], &archive[..120]);
    seed("archive_read", "changed", &[1], [0, 2, 3, b'x', 1, 2]);
    for (name, at) in [("title", 30u16), ("runs", 200), ("payloads", 8000)] {
        let [low, high] = at.to_le_bytes();
        let mended = [low, high, 1, 9, low, high, 0xc1, 7];
        seed("archive_read", &format!("mended-{name}"), &[2], mended);
    }
    for (name, moves) in [
        ("same", &[][..]),
        ("swapped", &[0, 1, 0, 0, 0]),
        ("dropped", &[1, 1, 0]),
        ("doubled", &[2, 1, 0, 1, 0]),
        ("kind", &[3, 0, 0, 4]),
        ("byte", &[4, 1, 0, 40, 0, 9]),
        ("split", &[5, 0, 0, 128, 1, 5, 1, 0, 29, 16]),
    ] {
        // The first lines as they are, the end in its place.
        let count = moves.len().div_ceil(5).to_le_bytes()[0];
        let choices = [&[1, 0, count, 0][..], moves].concat();
        seed("archive_read", &format!("rearranged-{name}"), &[3], choices);
    }
}

fn write_frames() {
    let context = ContextId::new("context-1").unwrap();
    let hashes = vec![crate::hash::content(b"1"), crate::directory::empty_root()];
    let requests = [
        Request::Head { newest: Vec::new() },
        Request::Nodes {
            hashes: hashes.clone(),
        },
        Request::Entries {
            context: context.clone(),
            after_sequence: 0,
            size: 4,
        },
        Request::Payloads { hashes },
        Request::Consistency {
            context: context.clone(),
            from: 1,
            to: 4,
        },
        Request::Inclusion {
            context,
            sequence: 2,
            size: 4,
        },
        Request::Follow { newest: Vec::new() },
        Request::Complete {
            note: decode::honest_note(),
        },
    ];
    let disk = segment::written();
    let view = Store::open_read_only(std::sync::Arc::new(disk)).unwrap();
    for (i, request) in requests.iter().enumerate() {
        let frame = request.encode().unwrap();
        seed("wire_message", &format!("request-{i}"), &[1], &frame[4..]);
        let mut answer = source::answer(&frame).unwrap();
        let mut n = 0;
        while let Some(frame) = answer.next_frame(&view).unwrap() {
            seed("wire_message", &format!("reply-{i}-{n}"), &[0], frame);
            n += 1;
        }
    }
}

fn write_notes() {
    let note = decode::honest_note();
    let head = decode::honest_head();
    seed("note_open", "note", &[0], &note);
    seed("note_open", "head-text", &[0], head.to_text());
    seed("note_open", "vkey", &[0], signer().verifier().to_string());
    seed(
        "note_open",
        "secret",
        &[0],
        signer().to_secret_text().as_bytes(),
    );
    let takeover = Takeover {
        origin: head.origin.clone(),
        term: 2,
        base: HeadOrder { term: 1, epoch: 7 },
        base_directory_root: head.directory_root,
        base_contexts: 3,
        base_entries: 40,
        time_ns: 1,
    };
    seed("note_open", "takeover-text", &[0], takeover.to_text());
    seed("note_open", "signed-text", &[1], "one\n\ntwo\n");
    seed("note_open", "mutated", &[2], [30, 0, 1, b'9']);
    seed(
        "note_open",
        "head",
        &[3],
        [1, 0, 0, 0, 0, 0, 0, 0].repeat(5),
    );
}

fn write_directories() {
    let openings: Vec<_> = (0..20u64)
        .map(|i| Opening {
            id: format!("c{i}"),
            size: i + 1,
            root: crate::hash::content(&i.to_le_bytes()),
        })
        .collect();
    let changes: Vec<_> = openings
        .iter()
        .map(|o| Change {
            path: o.path(),
            commitment: o.commitment(),
            entries: o.size,
        })
        .collect();
    let mut nodes = MemoryDirectory::new();
    let update = directory::apply(&nodes, &directory::empty_root(), &changes).unwrap();
    nodes.add(&update);
    let root = nodes.directory_node(&update.root).unwrap().unwrap();
    seed("directory_node", "node", &[0], root);
    seed(
        "directory_node",
        "empty",
        &[0],
        directory::Node::empty().encode(),
    );
    let order = HeadOrder { term: 1, epoch: 7 };
    let parts = OpeningsPart::pack(order, openings[..3].to_vec()).unwrap();
    seed(
        "directory_node",
        "openings",
        &[1],
        parts[0].encode().unwrap(),
    );
    let seen = Seen {
        base_term: 1,
        base_epoch: 6,
        openings_count: 3,
        note: decode::honest_note(),
    };
    seed("directory_node", "seen", &[2], seen.encode().unwrap());
    for choice in 0..4u8 {
        let name = format!("path-{choice}");
        seed(
            "directory_node",
            &name,
            &[3],
            [40, 0, 5, 0, 1, 0, choice, 9, 0, 1, 7],
        );
        let name = format!("descent-{choice}");
        seed(
            "directory_node",
            &name,
            &[4],
            [30, 0, 4, 0, choice, 9, 0, 1, 7, 0, 0, 2, 3, 4],
        );
    }
}

fn write_proofs() {
    for kind in 0..4u8 {
        for lie in 0..4u8 {
            let name = format!("{kind}-{lie}");
            let choices = [200, 0, 77, 0, lie, 3, 0, 1, 1, 0, 1, 0, 0, 0, 2, 3, 0];
            seed("proof_malleability", &name, &[kind], choices);
        }
    }
    seed(
        "proof_malleability",
        "span",
        &[3],
        [40, 0, 9, 0, 20, 0, 3, 0],
    );
    seed(
        "proof_malleability",
        "span-cut",
        &[3],
        [40, 0, 9, 0, 20, 0, 3, 0, 60, 0, 0xa0],
    );
    seed("tree_append", "rows", &[], [1, 63, 2, 63, 1, 40, 3, 1]);
    seed(
        "tree_append",
        "tiles",
        &[],
        [1, 255, 255, 7, 2, 255, 0, 8, 3, 255, 207, 7, 4, 3],
    );
}

fn write_stores() {
    let disk = segment::written();
    let bytes = disk.bytes(segment::SEGMENT).unwrap();
    let forged = segment::as_forged(&bytes);
    seed("segment_scan", "raw", &[0], &bytes);
    seed("segment_scan", "header", &[0], &bytes[..128]);
    seed("segment_scan", "spliced", &[1], [0, 200, 3, 1, 9]);
    seed("segment_scan", "cut", &[1], [1, 0, 9, 0xbf, 0, 9, 0xbf]);
    seed("segment_scan", "forged", &[2], &forged);
    seed(
        "segment_scan",
        "forged-short",
        &[2],
        &forged[..forged.len() / 3],
    );
    let append = [0u8, 2, 0, 0, 0, 9, 1, 0, 12, 2, 0, 255, 9, 0];
    let several = [3u8, 1, 0, 1, 0, 0, 0, 7, 2, 0, 1, 0, 30, 1, 0, 255, 3, 3];
    let (repeat, publish, reopen) = ([4u8, 0, 0], [5u8], [6u8]);
    let (fault, full) = ([7u8, 0, 0, 1, 0], [8u8, 90, 0, 1]);
    let loss = [9u8, 0, 0b0101_1011, 1, 0];
    let twice = [9u8, 1, 0b1010_0110, 0, 0x43, 0, 0xff, 0, 0];
    let histories: [(&str, Vec<u8>); 6] = [
        (
            "plain",
            [&append[..], &several, &publish, &reopen, &append].concat(),
        ),
        (
            "torn",
            [&append[..], &fault, &append, &loss, &append, &publish].concat(),
        ),
        (
            "torn-twice",
            [&append[..], &publish, &fault, &several, &twice, &append].concat(),
        ),
        (
            "full",
            [&append[..], &full, &append, &loss, &append, &reopen].concat(),
        ),
        (
            "repeated",
            [&append[..], &repeat, &fault, &append, &loss, &repeat].concat(),
        ),
        (
            "rolling",
            [&several[..], &several, &publish].concat().repeat(8),
        ),
    ];
    for (name, history) in histories {
        for shape in [0u8, 4] {
            seed(
                "store_crash_cycles",
                &format!("{name}-{shape}"),
                &[shape],
                &history,
            );
        }
    }
}
