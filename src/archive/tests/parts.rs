//! The second reading gives exactly what is behind a sequence, in small parts,
//! and nothing that was not verified.

use std::collections::HashSet;

use super::*;
use crate::ledger::HistoryPart;
use crate::limits::{ARCHIVE_RUNS_BYTES_MAX, ARCHIVE_SECTION_BYTES_MAX};

fn parts(archive: &[u8], after: u64) -> Vec<HistoryPart> {
    let verified = good(archive);
    Parts::new(archive, &verified, after)
        .map(Result::unwrap)
        .collect()
}

/// The state of a context after its first `size` entries.
fn accumulator(history: &MemoryHistory, size: u64) -> Accumulator {
    let mut state = Accumulator::default();
    for run in &history.runs {
        let run = Run::decode(run).unwrap();
        if run.last() <= size {
            state.extend(&run, |_, _| (), |_, _| ()).unwrap();
        } else if run.first() <= size {
            for entry in run.entries().map(Result::unwrap) {
                if entry.header.sequence <= size {
                    let leaf = crate::entry::leaf_hash(entry.header_bytes);
                    state.frontier.append(leaf).unwrap();
                    state.lamport = entry.header.lamport;
                    state.appended_at_ns = entry.header.appended_at_ns;
                }
            }
        }
    }
    assert_eq!(state.size(), size);
    state
}

/// The parts continue the context at `after` up to the root, payloads come no
/// later than the runs that need them, once in each section, and no others.
fn check(history: &MemoryHistory, after: u64, parts: &[HistoryPart]) {
    let mut state = accumulator(history, after);
    let (mut stored, mut used) = (HashSet::new(), HashSet::new());
    for part in parts {
        assert!(!part.runs.is_empty() || !part.payloads.is_empty());
        let bytes: usize = part.runs.iter().map(|run| run.len() + 4).sum();
        assert!(bytes <= ARCHIVE_RUNS_BYTES_MAX);
        let bytes = part.payloads.iter().map(|p| p.bytes().len()).sum::<usize>();
        assert!(bytes <= ARCHIVE_SECTION_BYTES_MAX);
        for payload in &part.payloads {
            assert_eq!(history.payloads[&payload.hash()], payload.bytes());
            stored.insert(payload.hash());
        }
        for run in &part.runs {
            let run = Run::decode(run).unwrap();
            run.check_payloads().unwrap();
            for entry in run.entries().map(Result::unwrap) {
                let at = usize::try_from(entry.header.sequence - 1).unwrap();
                assert_eq!(history.headers[at], entry.header_bytes);
                if entry.inline_payload.is_none() {
                    used.insert(entry.header.payload_hash);
                }
            }
            state.extend(&run, |_, _| (), |_, _| ()).unwrap();
        }
        assert!(used.is_subset(&stored));
    }
    assert_eq!(stored, used);
    assert_eq!((state.size(), state.root()), (history.size, history.root));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn parts_are_what_is_behind(history in histories(), after in 0u64..=600) {
        let archive = history.archive();
        let after = after.min(history.size);
        check(&history, after, &parts(&archive, after));
        check(&history, 0, &parts(&archive, 0));
    }
}

#[test]
fn from_every_sequence() {
    let history = MemoryHistory::new((0..70).map(payload), &[7, 1, 20]);
    let archive = history.archive();
    for after in 0..=70 {
        check(&history, after, &parts(&archive, after));
    }
    for after in [70, 71, u64::MAX] {
        assert!(parts(&archive, after).is_empty());
    }
}

#[test]
fn over_several_sections() {
    let history = long_history(1500);
    let archive = history.archive();
    for after in [0, 1, 299, 300, 301, 777, 1000, 1499] {
        check(&history, after, &parts(&archive, after));
    }
    assert!(parts(&archive, 0).len() >= 5);
    assert!(parts(&archive, 1000).len() < parts(&archive, 0).len());
}

#[test]
fn many_large_payloads_come_ahead_in_parts_of_their_own() {
    // 60 MiB of payloads in one section of runs.
    let payload = |i: u32| i.to_le_bytes().repeat(256 << 10);
    let history = MemoryHistory::new((0..60).map(payload), &[9]);
    let (archive, written) = history.archived();
    let sections = 1 + 60u64.div_ceil(7);
    assert_eq!(written.sections, sections);
    let all = parts(&archive, 0);
    check(&history, 0, &all);
    assert_eq!(all.len() as u64, sections - 1);
    let (last, ahead) = all.split_last().unwrap();
    assert!(ahead.iter().all(|part| part.runs.is_empty()));
    assert_eq!(last.runs.len(), 7);
    let some = parts(&archive, 40);
    check(&history, 40, &some);
    assert_eq!(
        some.iter().map(|part| part.payloads.len()).sum::<usize>(),
        20
    );
}

/// What comes out of a file that was changed after it was verified.
fn changed(history: &MemoryHistory, good_one: &[u8], archive: &[u8], after: u64) {
    let verified = good(good_one);
    let mut state = accumulator(history, after);
    let mut refused = None;
    for part in Parts::new(archive, &verified, after) {
        assert!(refused.is_none(), "nothing comes behind an error");
        match part {
            Ok(part) => {
                for payload in part.payloads {
                    assert_eq!(history.payloads[&payload.hash()], payload.bytes());
                }
                for run in part.runs {
                    let run = Run::decode(&run).unwrap();
                    state.extend(&run, |_, _| (), |_, _| ()).unwrap();
                }
            }
            Err(error) => refused = Some(error),
        }
    }
    let size = usize::try_from(state.size()).unwrap();
    assert_eq!(state.root(), root_of(history, size));
    assert!(matches!(refused.unwrap().fault, Fault::Changed));
}

#[test]
fn a_file_that_changed_since_is_refused() {
    let history = MemoryHistory::new([3, 5, 4, 5, 9].map(payload), &[2]);
    let archive = history.archive();
    for at in 0..archive.len() {
        let mut other = archive.clone();
        other[at] ^= 1 << (at % 8);
        changed(&history, &archive, &other, 0);
        if at % 7 == 0 {
            changed(&history, &archive, &other, 3);
            changed(&history, &archive, &archive[..at], at as u64 % 6);
        }
    }
    changed(&history, &archive, &[&archive[..], b"x"].concat(), 0);
    // Another archive, good in itself.
    let more = MemoryHistory::new([3, 5, 4, 5, 9, 9].map(payload), &[2]);
    changed(&history, &archive, &more.archive(), 0);
    let mut cut_otherwise = MemoryHistory::new([3, 5, 4, 5, 9].map(payload), &[3]);
    cut_otherwise.id = history.id.clone();
    changed(&history, &archive, &cut_otherwise.archive(), 0);
}
