//! Contexts take turns: how long a context waits depends on how many there are,
//! never on how long they are.

use std::collections::{BTreeMap, VecDeque};

use super::{large, text};
use crate::ledger::Ingest;
use crate::sync::message::Request;
use crate::sync::testing::{Dice, FakeLedger, FakeMirror};
use crate::sync::{Answer, Mirror, MirrorLimits, Output, RequestId};

/// More long contexts than are asked for at a time.
const LONG: usize = 18;
const SHORT: usize = 6;
/// Entries of a long one: all with one payload of 1 MiB, so that a span holds
/// few of them and an answer ends after a few bytes.
const LONG_ENTRIES: usize = 450;

fn ledger() -> FakeLedger {
    let mut ledger = FakeLedger::new(1);
    let payload = large(1, 1 << 20);
    for n in 0..LONG {
        for _ in 0..LONG_ENTRIES {
            ledger.append(&format!("long {n}"), std::slice::from_ref(&payload));
        }
    }
    for n in 0..SHORT {
        ledger.append(&format!("short {n}"), &[text(n)]);
    }
    ledger.publish();
    ledger
}

/// Entries answers that had ended when the first span of each context was handed
/// to the store, and how many there were in all. What is stored is durable at
/// once, or as late as can be.
fn first_spans(ledger: &FakeLedger, seed: u64, eager: bool) -> (BTreeMap<String, usize>, usize) {
    let (store, mut dice) = (FakeMirror::default(), Dice(seed));
    let mut mirror = Mirror::new(&store, ledger.vkey(), MirrorLimits::default());
    let mut streams: Vec<(RequestId, bool, Answer)> = Vec::new();
    let mut stores = VecDeque::new();
    let (mut first, mut ended) = (BTreeMap::new(), 0);
    mirror.start();
    loop {
        while let Some(output) = mirror.poll_output() {
            match output {
                Output::Send { request, frame } => {
                    let asks = Request::decode(&frame).unwrap();
                    let entries = matches!(asks, Request::Entries { .. });
                    streams.push((request, entries, crate::sync::answer(&frame).unwrap()));
                }
                Output::Store { token, item } => {
                    if let Ingest::Span { span, .. } = &item {
                        first.entry(span.id().to_string()).or_insert(ended);
                    }
                    stores.push_back((token, item));
                }
                Output::Done(_) => return (first, ended),
                Output::Fail(error) => panic!("{error}"),
            }
        }
        mirror.assert_within_budgets();
        if let Some((token, item)) = stores.pop_front_if(|_| eager || streams.is_empty()) {
            store.apply(item);
            mirror.handle_stored(token);
            continue;
        }
        // A whole answer at a time, in any order.
        let at = dice.below(streams.len());
        let (request, entries, mut answer) = streams.swap_remove(at);
        while let Some(frame) = answer.next_frame(ledger).unwrap() {
            mirror.handle_frame(request, &frame);
        }
        ended += usize::from(entries);
        mirror.handle_end(request);
    }
}

#[test]
fn a_short_context_does_not_wait_for_long_ones() {
    let ledger = ledger();
    for seed in 0..4 {
        let (first, answers) = first_spans(&ledger, seed, seed % 2 == 0);
        assert_eq!(first.len(), LONG + SHORT);
        // Else there is nothing to wait for.
        assert!(answers > 3 * (LONG + SHORT), "{answers}");
        for (context, ended) in first {
            let short = context.starts_with("short");
            assert!(!short || ended <= 2 * (LONG + SHORT), "{context}: {ended}");
        }
    }
}
