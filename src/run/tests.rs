use super::*;
use crate::entry::ContextId;
use crate::entry::{Draft, Metadata};
use crate::hash;
use crate::tree::MemoryNodes;
use crate::tree::TreeSize;
use crate::tree::range::right_build;

/// Entries of mixed sizes; every seventh payload lies outside its run.
fn draft(i: u64) -> Draft {
    let payload = if i % 7 == 6 {
        vec![7; 5000]
    } else {
        vec![i.to_le_bytes()[0]; usize::try_from(i % 50).unwrap()]
    };
    Draft::new(format!("key-{}", i % 3), payload)
        .unwrap()
        .with_metadata(Metadata::from_pairs([("n", i.to_string())]).unwrap())
}

/// Runs of `sizes` entries each, from sequence 1.
fn runs(sizes: &[u64]) -> (Vec<Vec<u8>>, Accumulator, MemoryNodes) {
    let mut out = Vec::new();
    let mut after = Accumulator::default();
    let mut nodes = MemoryNodes::new();
    let mut sequence = 1;
    for size in sizes {
        let mut builder = RunBuilder::default();
        for _ in 0..*size {
            let d = draft(sequence);
            let header = d.header(sequence, 2 * sequence, 1000 + sequence / 2);
            assert!(builder.has_room(sequence, header.encoded_len(), d.payload().len()));
            let leaf = builder.push(&header, d.payload()).unwrap();
            nodes.append(leaf).unwrap();
            sequence += 1;
        }
        let mut bytes = Vec::new();
        assert_eq!(builder.encoded_len(), {
            let mut copy = Vec::new();
            std::mem::take(&mut builder).finish_into(&mut copy);
            bytes.extend_from_slice(&copy);
            copy.len()
        });
        after
            .extend(&Run::decode(&bytes).unwrap(), |_, _| (), |_, _| ())
            .unwrap();
        out.push(bytes);
    }
    (out, after, nodes)
}

fn signed(size: u64, root: Hash) -> SignedContext {
    SignedContext {
        id: ContextId::new("c").unwrap(),
        size,
        root,
    }
}

#[test]
fn a_run_reads_back_and_every_truncation_is_refused() {
    let (runs, after, nodes) = runs(&[20]);
    assert_eq!(after.root(), nodes.root());
    let run = Run::decode(&runs[0]).unwrap();
    assert_eq!((run.first(), run.last(), run.count()), (1, 20, 20));
    run.check_payloads().unwrap();
    for (i, entry) in run.entries().enumerate() {
        let (entry, d) = (entry.unwrap(), draft(i as u64 + 1));
        assert_eq!(entry.header.key, d.key());
        assert_eq!(
            entry.inline_payload.is_none(),
            d.payload().len() > PAYLOAD_INLINE_BYTES_MAX
        );
    }
    for n in 0..runs[0].len() {
        let cut = &runs[0][..n];
        assert!(Run::decode(cut).is_err(), "{n}");
    }
}

#[test]
fn every_changed_bit_of_a_run_is_noticed() {
    let (runs, after, _) = runs(&[9]);
    let root = after.root();
    for bit in 0..runs[0].len() * 8 {
        let mut changed = runs[0].clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        let Ok(run) = Run::decode(&changed) else {
            continue;
        };
        let mut acc = Accumulator::default();
        let folded = acc.extend(&run, |_, _| (), |_, _| ()).is_ok() && acc.root() == root;
        assert!(!folded || run.check_payloads().is_err(), "bit {bit}");
    }
}

#[test]
fn runs_do_not_cross_multiples_of_256() {
    let mut builder = RunBuilder::default();
    let d = Draft::new("k", "").unwrap();
    builder.push(&d.header(256, 1, 1), b"").unwrap();
    assert!(!builder.has_room(257, 80, 0));
    builder.push(&d.header(257, 2, 1), b"").unwrap();
    let mut bytes = Vec::new();
    builder.finish_into(&mut bytes);
    assert!(matches!(
        Run::decode(&bytes),
        Err(DecodeError::Invalid { .. })
    ));
}

#[test]
fn times_are_ordered_within_a_context() {
    let d = Draft::new("k", "").unwrap();
    let run = |entries: &[(u64, u64, u64)]| {
        let mut builder = RunBuilder::default();
        for (sequence, lamport, time) in entries {
            builder
                .push(&d.header(*sequence, *lamport, *time), b"")
                .unwrap();
        }
        let mut bytes = Vec::new();
        builder.finish_into(&mut bytes);
        let mut acc = Accumulator::default();
        acc.extend(&Run::decode(&bytes).unwrap(), |_, _| (), |_, _| ())
    };
    assert!(run(&[(1, 5, 9), (2, 6, 9)]).is_ok());
    assert!(matches!(
        run(&[(1, 5, 9), (2, 5, 9)]),
        Err(RunError::Times { sequence: 2, .. })
    ));
    assert!(matches!(
        run(&[(1, 5, 9), (2, 6, 8)]),
        Err(RunError::Times { sequence: 2, .. })
    ));
    assert!(matches!(
        run(&[(1, 0, 9)]),
        Err(RunError::Times { sequence: 1, .. })
    ));
    assert!(matches!(
        run(&[(2, 5, 9)]),
        Err(RunError::OutOfPlace {
            expected: 1,
            got: 2
        })
    ));
    assert!(matches!(
        run(&[(1, 5, 9), (3, 6, 9)]),
        Err(RunError::Decode(_))
    ));
}

/// A context of three runs, and the span of its last two.
fn span_case() -> (
    Accumulator,
    SignedContext,
    Vec<u8>,
    Vec<Vec<u8>>,
    MemoryNodes,
) {
    let (all, after, nodes) = runs(&[10, 30, 5, 40]);
    let (_, own, _) = runs(&[10]);
    let (start, end, n) = (10, 45, 85);
    let right = right_build(TreeSize::new(end), TreeSize::new(n), &nodes).unwrap();
    let mut span = Vec::new();
    encode_span(start, end, &right, &all[1..3], &mut span);
    (own, signed(n, after.root()), span, all, nodes)
}

#[test]
fn a_span_proves_inclusion_and_extension() {
    let (own, signed, span, _, _) = span_case();
    let checked = CheckedSpan::verify(&own, &signed, &span).unwrap();
    assert_eq!((checked.start(), checked.end()), (10, 45));
    assert_eq!(checked.runs().len(), 2);
    // Sequences 13, 20, 27, 34, 41 carry one and the same large payload.
    assert_eq!(
        checked.outside_payloads(),
        [(hash::content(&[7; 5000]), 5000)]
    );
}

#[test]
fn no_changed_bit_of_a_span_verifies() {
    let (own, signed, span, _, _) = span_case();
    for bit in 0..span.len() * 8 {
        let mut changed = span.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(
            CheckedSpan::verify(&own, &signed, &changed).is_err(),
            "bit {bit}"
        );
    }
    for n in 0..span.len() {
        assert!(
            CheckedSpan::verify(&own, &signed, &span[..n]).is_err(),
            "{n}"
        );
    }
    let mut longer = span;
    longer.push(0);
    assert!(CheckedSpan::verify(&own, &signed, &longer).is_err());
}

#[test]
fn spans_that_do_not_fit_are_refused_by_reason() {
    let (own, signed, span, all, nodes) = span_case();
    let empty = Accumulator::default();
    assert!(matches!(
        CheckedSpan::verify(&empty, &signed, &span),
        Err(RunError::OutOfPlace {
            expected: 1,
            got: 11
        })
    ));
    let small = SignedContext {
        size: 44,
        ..signed.clone()
    };
    assert!(matches!(
        CheckedSpan::verify(&own, &small, &span),
        Err(RunError::Span { .. })
    ));
    let other = SignedContext {
        root: hash::empty_root(),
        ..signed.clone()
    };
    assert!(matches!(
        CheckedSpan::verify(&own, &other, &span),
        Err(RunError::NotUnderRoot {
            first: 11,
            last: 45
        })
    ));
    let right = right_build(TreeSize::new(45), TreeSize::new(85), &nodes).unwrap();
    let verify = |start, end, right: &[Hash], runs: &[Vec<u8>]| {
        let mut span = Vec::new();
        encode_span(start, end, right, runs, &mut span);
        CheckedSpan::verify(&own, &signed, &span)
    };
    assert!(verify(10, 45, &right, &all[1..3]).is_ok());
    // An empty span, a missing run, a run too many, runs in another order.
    assert!(matches!(
        verify(10, 10, &right, &[]),
        Err(RunError::Span { .. })
    ));
    assert!(matches!(
        verify(10, 45, &right, &all[1..2]),
        Err(RunError::Span { .. })
    ));
    assert!(matches!(
        verify(10, 45, &right, &all[1..4]),
        Err(RunError::Span { .. })
    ));
    let swapped = [all[2].clone(), all[1].clone()];
    assert!(matches!(
        verify(10, 45, &right, &swapped),
        Err(RunError::OutOfPlace { .. })
    ));
    // A surplus and a missing right hash.
    let mut surplus = right.clone();
    surplus.push(hash::empty_root());
    assert!(matches!(
        verify(10, 45, &surplus, &all[1..3]),
        Err(RunError::Proof(_))
    ));
    assert!(matches!(
        verify(10, 45, &right[1..], &all[1..3]),
        Err(RunError::Proof(_))
    ));
    // A context whose own history is another one.
    let mut fork = own.clone();
    fork.frontier = crate::tree::Frontier::default();
    for i in 0..10u64 {
        fork.frontier
            .append(hash::content(&i.to_le_bytes()))
            .unwrap();
    }
    let mut span = Vec::new();
    encode_span(10, 45, &right, &all[1..3], &mut span);
    assert!(matches!(
        CheckedSpan::verify(&fork, &signed, &span),
        Err(RunError::NotUnderRoot { .. })
    ));
}
