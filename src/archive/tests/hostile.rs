//! Archives that were damaged, cut, rearranged or made to deceive.

use super::*;
use crate::archive::section::SectionHeader;
use crate::encoding::DecodeError;
use crate::run::RunError;

#[track_caller]
fn refused(archive: &[u8]) -> ReadError {
    verify(archive, None).unwrap_err()
}

fn small() -> MemoryHistory {
    MemoryHistory::new([3, 5, 259, 3, 9, 515, 259].map(payload), &[3])
}

#[test]
fn every_truncation_is_refused() {
    let archive = small().archive();
    for n in 0..archive.len() {
        let error = refused(&archive[..n]);
        assert!(matches!(error.fault, Fault::Truncated), "{n}: {error}");
        assert!(
            error.at.start <= n as u64 && error.at.end == n as u64,
            "{n}: {error}"
        );
        assert!(!error.is_io() && !error.is_newer());
    }
}

#[test]
fn every_changed_bit_is_refused_at_its_place() {
    let archive = small().archive();
    for bit in 0..archive.len() * 8 {
        let at = bit / 8;
        // Within repetitions one bit of each byte will do.
        let is_repeated = at > 0 && archive[at - 1..].iter().take(3).all(|b| *b == archive[at]);
        if is_repeated && bit % 8 != at % 8 {
            continue;
        }
        let mut other = archive.clone();
        other[at] ^= 1 << (bit % 8);
        let error = refused(&other);
        // Without its line feed a line goes on, and the next one is missing.
        let is_line_feed = archive[at] == b'\n' && at < 110;
        assert!(
            error.at.start <= at as u64 || is_line_feed,
            "bit {bit}: {error}"
        );
        // No damage passes for a newer version, but that of the version itself.
        assert!(!error.is_newer() || at == 25, "bit {bit}: {error}");
        let names_it = error.at.contains(&(at as u64));
        assert!(names_it || is_line_feed, "bit {bit}: {error}");
    }
}

#[test]
fn sections_are_neither_moved_nor_dropped_nor_doubled() {
    let history = long_history(1200);
    let (title, pieces) = take_apart(&history.archive());
    assert!(pieces.len() >= 6);
    let finish = |pieces: &[Piece]| finished(&title, pieces, 1200);
    good(&finish(&pieces));
    for i in 0..pieces.len() {
        let mut dropped = pieces.clone();
        dropped.remove(i);
        let error = refused(&finish(&dropped));
        // Without the last runs their payloads are nobody's; without the last
        // payloads the end comes too early.
        match error.fault {
            Fault::MissingPayload { .. } => assert_eq!(pieces[i].0, 4),
            Fault::Order { kind: 4 } => assert_eq!(pieces[i].0, 3),
            _ => panic!("{i}: {error}"),
        }
        let mut doubled = pieces.clone();
        doubled.insert(i, pieces[i].clone());
        refused(&finish(&doubled));
        for j in 0..i {
            let mut swapped = pieces.clone();
            swapped.swap(i, j);
            refused(&finish(&swapped));
        }
    }
}

/// The items of a section of payloads.
fn items(body: &[u8]) -> Vec<Vec<u8>> {
    let (mut rest, mut items) = (body, Vec::new());
    while !rest.is_empty() {
        let bytes = u32::from_le_bytes(rest[32..36].try_into().unwrap());
        let (item, after) = rest.split_at(36 + bytes as usize);
        items.push(item.to_vec());
        rest = after;
    }
    items
}

fn item(hash: hash::Hash, length: u32, bytes: &[u8]) -> Vec<u8> {
    [hash.as_bytes(), &length.to_le_bytes()[..], bytes].concat()
}

#[test]
fn payloads_are_all_there_once_and_in_order() {
    let history = small();
    let (title, pieces) = take_apart(&history.archive());
    let [(3, runs), (4, payloads)] = pieces.as_slice() else {
        panic!("{pieces:?}");
    };
    let items = items(payloads);
    assert_eq!(items.len(), 3);
    let with = |sections: &[Vec<Vec<u8>>]| {
        let mut pieces = vec![(3, runs.clone())];
        pieces.extend(sections.iter().map(|section| (4, section.concat())));
        verify(finished(&title, &pieces, 7).as_slice(), None)
    };
    let fault = |sections: &[Vec<Vec<u8>>]| with(sections).unwrap_err().fault;
    with(std::slice::from_ref(&items)).unwrap();
    let hash = |i: usize| hash::Hash::from_slice(&items[i][..32]).unwrap();
    let some = |places: &[usize]| places.iter().map(|i| items[*i].clone()).collect::<Vec<_>>();
    let missing =
        |fault: Fault, i: usize| matches!(fault, Fault::MissingPayload { hash: h } if h == hash(i));
    let surplus =
        |fault: Fault, i: usize| matches!(fault, Fault::SurplusPayload { hash: h } if h == hash(i));
    assert!(missing(fault(&[]), 0));
    assert!(missing(fault(&[some(&[0, 1])]), 2));
    assert!(missing(fault(&[some(&[1, 2])]), 0));
    assert!(missing(fault(&[some(&[0, 2, 1])]), 1));
    assert!(surplus(fault(&[some(&[0, 0, 1, 2])]), 0));
    assert!(surplus(fault(&[some(&[0, 1, 2, 2])]), 2));
    // In two sections where one would do; in one too many; none in one.
    assert!(matches!(
        fault(&[some(&[0]), some(&[1, 2])]),
        Fault::Underfull
    ));
    assert!(matches!(
        fault(&[some(&[0, 1, 2]), some(&[2])]),
        Fault::Order { kind: 4 }
    ));
    assert!(matches!(fault(&[some(&[0, 1]), vec![]]), Fault::Section(_)));
    // One that nobody needs; one of another length; one with other bytes.
    let alien = item(hash::content(&[5; 5000]), 5000, &[5; 5000]);
    assert!(matches!(
        fault(&[vec![alien]]),
        Fault::SurplusPayload { .. }
    ));
    let length = u32::from_le_bytes(items[0][32..36].try_into().unwrap());
    for wrong in [0, length - 1, length + 1, u32::MAX] {
        let liar = item(hash(0), wrong, &items[0][36..]);
        let fault = fault(&[vec![liar, items[1].clone(), items[2].clone()]]);
        assert!(matches!(fault, Fault::PayloadLength { found, .. } if found == wrong));
    }
    let mut other = items.clone();
    other[1][100] ^= 1;
    assert!(matches!(fault(&[other]), Fault::Payload { hash: h } if h == hash(1)));
    let mut cut = items.concat();
    cut.truncate(cut.len() - 1);
    assert!(matches!(
        fault(&[vec![cut]]),
        Fault::Section(DecodeError::Truncated { .. })
    ));
    let mut cut = items.concat();
    cut.extend([1; 35]);
    assert!(matches!(
        fault(&[vec![cut]]),
        Fault::Section(DecodeError::Truncated { .. })
    ));
}

#[test]
fn runs_are_whole_contiguous_and_closely_packed() {
    let history = MemoryHistory::new((0..20).map(|i| vec![i; 9]), &[5]);
    let title = take_apart(&history.archive()).0;
    let item = |run: &[u8]| [&u32::try_from(run.len()).unwrap().to_le_bytes()[..], run].concat();
    let items: Vec<Vec<u8>> = history.runs.iter().map(|run| item(run)).collect();
    let fault = |sections: &[Vec<u8>]| {
        let pieces: Vec<Piece> = sections.iter().map(|body| (3, body.clone())).collect();
        refused(&finished(&title, &pieces, 20)).fault
    };
    let out_of_place = |fault: Fault| matches!(fault, Fault::Run(RunError::OutOfPlace { .. }));
    assert!(out_of_place(fault(&[items[1..].concat()])));
    assert!(out_of_place(fault(&[[&items[0], &items[2]]
        .map(Vec::as_slice)
        .concat()])));
    assert!(out_of_place(fault(&[[&items[0], &items[0]]
        .map(Vec::as_slice)
        .concat()])));
    assert!(matches!(
        fault(&[items[..2].concat(), items[2..].concat()]),
        Fault::Underfull
    ));
    assert!(matches!(fault(&[Vec::new()]), Fault::Section(_)));
    assert!(matches!(fault(&[]), Fault::Order { kind: 255 }));
    let cut = items.concat();
    assert!(matches!(
        fault(&[cut[..cut.len() - 1].to_vec()]),
        Fault::Section(_)
    ));
    assert!(matches!(
        fault(&[[&cut[..], &[0; 3]].concat()]),
        Fault::Section(_)
    ));
    assert!(matches!(
        fault(&[[&cut[..], &[0; 4]].concat()]),
        Fault::Run(RunError::Decode(_))
    ));
    // An inline payload that is not its hash's.
    let mut other = items.clone();
    *other[1].last_mut().unwrap() ^= 1;
    assert!(matches!(
        fault(&[other.concat()]),
        Fault::Run(RunError::Payload { sequence: 10 })
    ));
    // Fewer entries than stated, and more.
    assert!(matches!(
        fault(&[items[..3].concat()]),
        Fault::End(EndField::Entries)
    ));
    let pieces = [(3, items[..3].concat())];
    let error = refused(&finished(&title, &pieces, 15));
    assert!(matches!(
        error.fault,
        Fault::Size {
            stated: 20,
            found: 15
        }
    ));
    let less = String::from_utf8(title)
        .unwrap()
        .replace("size 20", "size 19");
    let error = refused(&finished(less.as_bytes(), &[(3, items.concat())], 19));
    assert!(matches!(
        error.fault,
        Fault::Size {
            stated: 19,
            found: 20
        }
    ));
    assert!(less[..usize::try_from(error.at.end).unwrap()].ends_with("size 19\n"));
}

#[test]
fn the_end_says_what_is_before_it() {
    let history = small();
    let archive = history.archive();
    let (title, pieces) = take_apart(&archive);
    let end = archive.len() - 48;
    let with = |at: usize, value: u64| {
        let mut body = archive[end..].to_vec();
        body[at..at + 8].copy_from_slice(&value.to_le_bytes());
        let mut out = put_together(&title, &pieces);
        out.extend(put_together(&[], &[(255, body)]));
        refused(&out).fault
    };
    assert!(matches!(with(0, 6), Fault::End(EndField::Entries)));
    assert!(matches!(with(0, u64::MAX), Fault::End(EndField::Entries)));
    assert!(matches!(with(8, 3), Fault::End(EndField::Sections)));
    assert!(matches!(with(16, 0), Fault::End(EndField::Hash)));
    for body in [vec![], vec![0; 47]] {
        let mut out = put_together(&title, &pieces);
        out.extend(put_together(&[], &[(255, body)]));
        assert!(matches!(refused(&out).fault, Fault::Section(_)));
    }
    for tail in [&b"\0"[..], b"\n", &archive] {
        let error = refused(&[&archive[..], tail].concat());
        let at = archive.len() as u64;
        assert!(matches!(error.fault, Fault::TrailingBytes));
        assert_eq!(error.at, at..at + 1);
    }
    // Another root, with an end made for it.
    let text = String::from_utf8(title).unwrap();
    let root = text.find("root ").unwrap() + 5;
    let changed = if text.as_bytes()[root] == b'A' {
        "B"
    } else {
        "A"
    };
    let text = [&text[..root], changed, &text[root + 1..]].concat();
    let error = refused(&finished(text.as_bytes(), &pieces, 7));
    assert!(matches!(error.fault, Fault::Root { found, .. } if found == history.root));
    assert_eq!(error.at.start + 5, root as u64);
    // Another name, with an end made for it, is another archive: nothing but a
    // signature can bind the name.
    let text = String::from_utf8(take_apart(&archive).0).unwrap();
    let text = text.replace("context/", "Context/");
    assert_eq!(
        good(&finished(text.as_bytes(), &pieces, 7)).id().as_str(),
        "Context/\u{fc}"
    );
}

#[test]
fn first_lines_have_one_spelling() {
    let history = small();
    let (title, pieces) = take_apart(&history.archive());
    let title = String::from_utf8(title).unwrap();
    let fault = |title: &str| refused(&finished(title.as_bytes(), &pieces, 7)).fault;
    let version = |text: &str| title.replacen("archive/v1", text, 1);
    assert!(matches!(
        fault(&version("archive/v2")),
        Fault::Version { found: 2 }
    ));
    assert!(matches!(
        fault(&version("archive/v0")),
        Fault::Version { found: 0 }
    ));
    let max = version("archive/v18446744073709551615");
    assert!(matches!(fault(&max), Fault::Version { found: u64::MAX }));
    for text in [
        "archive/v",
        "archive/v01",
        "archive/v1 ",
        "archive/v1\r",
        "Archive/v1",
        "archive/v18446744073709551616",
        "archive/v184467440737095516150",
    ] {
        assert!(
            matches!(fault(&version(text)), Fault::NotAnArchive),
            "{text}"
        );
    }
    let root = title.lines().nth(3).unwrap().to_owned();
    let stray = if root.ends_with("A=") { "B=" } else { "A=" };
    for (from, to) in [
        ("context ", "context"),
        ("context ", "Context "),
        ("context ", "context \u{1}"),
        ("context context/\u{fc}", "context "),
        ("size 7", "size 07"),
        ("size 7", "size +7"),
        ("size 7", "size 0"),
        ("size 7", "size "),
        ("size 7", "size -7"),
        ("size 7", "size 7 "),
        ("size 7", "size 7\r"),
        ("size 7", "size 4611686018427387904"),
        ("size 7", "size 18446744073709551616"),
        ("size 7\n", ""),
        ("root ", "root  "),
        ("root ", "hash "),
        ("=\n", "\n"),
        ("=\n", "==\n"),
        ("=\n\n", "=\n \n"),
        ("=\n\n", "=\n"),
        (&root, "root AAAA"),
        (&root, &format!("{}{stray}", &root[..root.len() - 2])),
    ] {
        let text = title.replacen(from, to, 1);
        assert_ne!(text, title, "{from}");
        let fault = fault(&text);
        let is_root = matches!(fault, Fault::Root { .. });
        // With other last bits of its last digit the root may be another one.
        assert!(
            matches!(fault, Fault::Header(_)) || is_root,
            "{to}: {fault}"
        );
    }
    assert!(matches!(
        fault("converge-ledger/archive"),
        Fault::NotAnArchive
    ));
    // A line without an end is not read for ever.
    let endless = std::io::Read::chain(
        &b"converge-ledger/archive/v1\ncontext "[..],
        std::io::repeat(b'x'),
    );
    let error = verify(endless, None).unwrap_err();
    assert!(matches!(
        error.fault,
        Fault::Header(DecodeError::OutOfRange { .. })
    ));
    assert!(error.at.end <= 1136);
}

/// An archive whose first section has this header, with a right hash.
fn with_front(change: impl Fn(&mut [u8])) -> ReadError {
    let (title, pieces) = take_apart(&small().archive());
    let mut front = SectionHeader::new(3, &pieces[0].1).to_bytes();
    change(&mut front);
    let mut hasher = crate::hash::Stream::content();
    hasher.update(&front[..16]).update(&pieces[0].1);
    front[16..].copy_from_slice(hasher.finish().as_bytes());
    let mut out = title.clone();
    out.extend(front);
    out.extend(&pieces[0].1);
    let error = refused(&out);
    assert_eq!(error.at.start, title.len() as u64);
    error
}

#[test]
fn what_comes_from_the_future_is_told_from_damage() {
    let newer = |change: fn(&mut [u8])| {
        let error = with_front(change);
        assert!(error.is_newer(), "{error}");
        error.fault
    };
    assert!(matches!(newer(|h| h[0] = 1), Fault::Signed { kind: 1 }));
    assert!(matches!(newer(|h| h[0] = 2), Fault::Signed { kind: 2 }));
    assert!(matches!(newer(|h| h[0] = 5), Fault::Kind { found: 5 }));
    assert!(matches!(newer(|h| h[0] = 0), Fault::Kind { found: 0 }));
    assert!(matches!(
        newer(|h| h[1] = 2),
        Fault::SectionVersion { found: 2 }
    ));
    assert!(matches!(newer(|h| h[2] = 1), Fault::Compressed));
    assert!(matches!(newer(|h| h[2] = 2), Fault::Flags { found: 2 }));
    assert!(matches!(
        newer(|h| h[3] = 0x80),
        Fault::Flags { found: 0x8000 }
    ));
    let reserved = with_front(|h| h[7] = 1);
    assert!(matches!(reserved.fault, Fault::Reserved) && !reserved.is_newer());
    let order = with_front(|h| h[0] = 4);
    assert!(matches!(order.fault, Fault::Order { kind: 4 }));
}

#[test]
fn lengths_are_not_believed() {
    let title = take_apart(&small().archive()).0;
    for kind in [1u8, 3, 4, 255] {
        for length in [u64::MAX, 1 << 40, (8 << 20) + 1] {
            let mut out = title.clone();
            let mut front = SectionHeader::new(kind, &[]).to_bytes();
            front[8..16].copy_from_slice(&length.to_le_bytes());
            out.extend(front);
            // Endless zeros behind it: nothing of them is read.
            let error = verify(std::io::Read::chain(&out[..], std::io::repeat(0)), None);
            let error = error.unwrap_err();
            match error.fault {
                Fault::TooLong { found, .. } => assert_eq!(found, length),
                Fault::Signed { kind: 1 } | Fault::Order { .. } => (),
                _ => panic!("{error}"),
            }
            assert_eq!(error.at.end, out.len() as u64);
        }
    }
    // A run's length.
    for length in [u32::MAX, 1 << 20, 1, 0] {
        let body = [&length.to_le_bytes()[..], &[1; 40]].concat();
        let error = refused(&put_together(&title, &[(3, body)]));
        assert!(
            matches!(error.fault, Fault::Section(_) | Fault::Run(_)),
            "{error}"
        );
    }
}

#[test]
fn two_lengths_for_one_payload_are_refused() {
    use crate::entry::Draft;
    use crate::run::RunBuilder;
    let draft = Draft::new("k", vec![1; 5000]).unwrap();
    let mut builder = RunBuilder::default();
    for sequence in 1..=2 {
        let mut header = draft.header(sequence, sequence, 1);
        header.payload_len += u32::try_from(sequence).unwrap();
        builder.push(&header, draft.payload()).unwrap();
    }
    let mut run = Vec::new();
    builder.finish_into(&mut run);
    let title = take_apart(&small().archive()).0;
    let body = [&u32::try_from(run.len()).unwrap().to_le_bytes()[..], &run].concat();
    let error = refused(&put_together(&title, &[(3, body)]));
    assert!(matches!(
        error.fault,
        Fault::Run(RunError::Payload { sequence: 2 })
    ));
}
