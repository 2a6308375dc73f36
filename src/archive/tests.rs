//! What holds for every history first, then what is refused, and why.

mod hostile;
mod parts;

use proptest::prelude::*;

use super::testing::*;
use super::*;
use crate::hash;
use crate::run::{Accumulator, Run};
use crate::tree::Frontier;

/// Payloads by their number: empty, small, at the bound, large; large ones
/// come again and again.
pub(super) fn payload(choice: u16) -> Vec<u8> {
    let fill = choice.to_le_bytes()[1] % 4;
    match choice % 16 {
        0 | 1 => Vec::new(),
        2 => vec![fill; 4096],
        3 => vec![fill; 4097],
        4 => vec![fill; 9000],
        n => vec![fill; usize::from(n) * 7],
    }
}

pub(super) fn histories() -> impl Strategy<Value = MemoryHistory> {
    let payloads = prop_oneof![
        prop::collection::vec(any::<u16>(), 1..=12),
        prop::collection::vec(any::<u16>(), 1..=600),
    ];
    let cuts = prop::collection::vec(prop_oneof![1usize..=3, 1usize..=256], 1..=5);
    (payloads, cuts)
        .prop_map(|(payloads, cuts)| MemoryHistory::new(payloads.into_iter().map(payload), &cuts))
}

/// The root over the first `size` entries, from their leaves.
pub(super) fn root_of(history: &MemoryHistory, size: usize) -> hash::Hash {
    let mut frontier = Frontier::new();
    for leaf in &history.leaves[..size] {
        frontier.append(*leaf).unwrap();
    }
    frontier.root()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_verifies(history in histories(), at in 0usize..=601) {
        let (archive, written) = history.archived();
        prop_assert_eq!(written.entries, history.size);
        let at_size = Some(at as u64);
        let verified = verify(archive.as_slice(), at_size).unwrap();
        prop_assert_eq!(verified.id(), &history.id);
        prop_assert_eq!(verified.size(), history.size);
        prop_assert_eq!(verified.root(), history.root);
        prop_assert_eq!(verified.bytes(), written.bytes);
        prop_assert_eq!(verified.newest_ns(), 1000 + history.size / 2);
        prop_assert_eq!(verified.sections().len() as u64, written.sections + 1);
        let root = (at <= history.leaves.len()).then(|| root_of(&history, at));
        prop_assert_eq!(verified.root_at(), root);
        prop_assert_eq!(good(&archive).root_at(), None);
        // Taken apart and put together, it is the same.
        let (title, pieces) = take_apart(&archive);
        prop_assert_eq!(finished(&title, &pieces, history.size), archive);
    }

    #[test]
    fn what_a_run_is_cut_to_is_its_rest(history in histories(), after in 0u64..=600) {
        for bytes in &history.runs {
            let run = Run::decode(bytes).unwrap();
            let rest = run.part(after, u64::MAX).unwrap();
            if run.last() <= after {
                prop_assert!(rest.is_empty());
            } else {
                let rest = Run::decode(&rest).unwrap();
                prop_assert_eq!(rest.first(), run.first().max(after + 1));
                prop_assert_eq!(rest.last(), run.last());
                rest.check_payloads().unwrap();
                if run.first() > after {
                    prop_assert_eq!(rest.bytes(), run.bytes());
                }
            }
        }
    }
}

#[test]
fn the_root_at_every_size_is_told() {
    let history = MemoryHistory::new((0..90).map(payload), &[7, 1, 20]);
    let archive = history.archive();
    for size in 0..=90 {
        let verified = verify(archive.as_slice(), Some(size as u64)).unwrap();
        assert_eq!(verified.root_at(), Some(root_of(&history, size)), "{size}");
    }
    for size in [91, u64::MAX] {
        let verified = verify(archive.as_slice(), Some(size)).unwrap();
        assert_eq!(verified.root_at(), None);
    }
}

/// A history of several sections: runs of about 300 KiB.
pub(super) fn long_history(entries: u64) -> MemoryHistory {
    let payload = |i: u64| {
        let bytes = if i.is_multiple_of(50) { 100_000 } else { 3000 };
        vec![i.to_le_bytes()[0] % 7; bytes]
    };
    MemoryHistory::new((0..entries).map(payload), &[100])
}

#[test]
fn sections_are_as_full_as_they_can_be() {
    let history = long_history(2000);
    let (title, pieces) = take_apart(&history.archive());
    let kinds: Vec<u8> = pieces.iter().map(|piece| piece.0).collect();
    assert!(kinds.len() >= 10, "{kinds:?}");
    // Every section of runs has two large payloads, once each.
    assert!(kinds.chunks(2).all(|pair| pair == [3, 4]), "{kinds:?}");
    let runs: Vec<usize> = pieces.iter().step_by(2).map(|p| p.1.len()).collect();
    for (i, bytes) in runs.iter().enumerate() {
        assert!(*bytes <= (1 << 20) + 4);
        assert!(i + 1 == runs.len() || *bytes > 600 << 10, "{runs:?}");
    }
    assert_eq!(finished(&title, &pieces, 2000), history.archive());
    good(&history.archive());
}

#[test]
fn a_longest_name_and_a_largest_run_fit() {
    let mut history = MemoryHistory::new((0..256).map(|_| vec![1; 4096]), &[256]);
    // As much as goes into one run: the rest begins another.
    assert!(history.runs[0].len() > (1 << 20) - 8192);
    history.id = crate::entry::ContextId::new(&"n".repeat(1024)).unwrap();
    let verified = good(&history.archive());
    assert_eq!(verified.id(), &history.id);
}

#[test]
fn a_history_that_does_not_verify_gets_no_end() {
    let honest = MemoryHistory::new((0..40).map(payload), &[6]);
    let refused = |history: &MemoryHistory| {
        let mut out = Vec::new();
        let error = write(history, &mut out).unwrap_err();
        assert!(verify(out.as_slice(), None).is_err());
        let WriteError::Unsound(why) = error else {
            panic!("{error}");
        };
        why
    };
    let mut size = honest.clone();
    size.size = 0;
    assert!(matches!(refused(&size), Unsound::Size { stated: 0, .. }));
    size.size = 39;
    assert!(matches!(refused(&size), Unsound::Size { found: 40, .. }));
    size.size = 41;
    assert!(matches!(refused(&size), Unsound::Size { found: 40, .. }));
    size.size = u64::MAX;
    assert!(matches!(refused(&size), Unsound::Size { .. }));
    let mut root = honest.clone();
    root.root = hash::content(b"another");
    assert!(matches!(refused(&root), Unsound::Root { .. }));
    let mut payload = honest.clone();
    for bytes in payload.payloads.values_mut() {
        bytes[0] ^= 1;
    }
    assert!(matches!(refused(&payload), Unsound::Payload { .. }));
    payload.payloads.clear();
    assert!(matches!(refused(&payload), Unsound::Payload { .. }));
    let mut run = honest.clone();
    *run.runs[2].last_mut().unwrap() ^= 1;
    assert!(matches!(refused(&run), Unsound::Run(_)));
    let mut missing = honest.clone();
    missing.runs.remove(2);
    assert!(matches!(refused(&missing), Unsound::Run(_)));
}

/// Takes so many bytes and is full.
struct Small(usize);

impl std::io::Write for Small {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let taken = bytes.len().min(self.0);
        self.0 -= taken;
        if taken == 0 && !bytes.is_empty() {
            return Err(std::io::ErrorKind::StorageFull.into());
        }
        Ok(taken)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_full_output_ends_the_writing() {
    let history = MemoryHistory::new((0..10).map(payload), &[6]);
    let bytes = history.archive().len();
    for room in 0..bytes {
        let error = write(&history, Small(room)).unwrap_err();
        assert!(matches!(error, WriteError::Out(_)), "{room}: {error}");
    }
    assert!(write(&history, Small(bytes)).is_ok());
}

/// Gives a few bytes at a time, is interrupted, and breaks down at the end.
struct Faltering<'a>(&'a [u8], usize);

impl std::io::Read for Faltering<'_> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        self.1 += 1;
        if self.1.is_multiple_of(3) {
            return Err(std::io::ErrorKind::Interrupted.into());
        }
        if self.0.is_empty() {
            return Err(std::io::ErrorKind::BrokenPipe.into());
        }
        let n = out.len().min(self.0.len()).min(11);
        let (now, later) = self.0.split_at(n);
        out[..n].copy_from_slice(now);
        self.0 = later;
        Ok(n)
    }
}

#[test]
fn a_reader_that_fails_is_not_an_archive_that_is_wrong() {
    let history = MemoryHistory::new((0..10).map(payload), &[6]);
    let archive = history.archive();
    for n in 0..=archive.len() {
        let error = verify(Faltering(&archive[..n], 0), None).unwrap_err();
        assert!(error.is_io() && error.at == (n as u64..n as u64), "{error}");
    }
    let verified = good(&archive);
    let parts: Vec<_> = Parts::new(Faltering(&archive, 0), &verified, 0).collect();
    assert!(parts.last().unwrap().as_ref().is_err_and(ReadError::is_io));
    let mut after = Accumulator::default();
    for part in parts.iter().flatten() {
        for run in &part.runs {
            let run = Run::decode(run).unwrap();
            after.extend(&run, |_, _| (), |_, _| ()).unwrap();
        }
    }
    assert_eq!(after.root(), history.root);
}
