//! Random histories: honest ones are never accused, whatever happens to the
//! sources and the mirror; a rewritten one always is, once both heads are seen.

use super::evidence::forked;
use super::texts;
use crate::ledger::ReadMirror;
use crate::sync::testing::{Dice, End, FakeLedger, FakeMirror, Pair};
use proptest::prelude::*;

/// States of one honest origin, one per head.
fn history(dice: &mut Dice, heads: usize) -> Vec<FakeLedger> {
    let mut l = FakeLedger::new(1);
    let mut states = Vec::new();
    let mut written = 0;
    for n in 0..heads {
        for _ in 0..=dice.below(3) {
            let context = format!("context {}", dice.below(12));
            let count = 1 + dice.below(20);
            l.append(&context, &texts(written..written + count));
            written += count;
        }
        if n > 0 && dice.below(8) == 0 {
            let key = u8::try_from(l.rotations.len() + 2).unwrap();
            l.rotate(key);
        } else {
            l.publish();
        }
        states.push(l.clone());
    }
    states
}

/// Another history that leaves an honest one at `state`.
fn rewrite(dice: &mut Dice, state: &FakeLedger, epoch: u64) -> FakeLedger {
    let mut l = state.clone();
    for _ in 0..=dice.below(3) {
        let context = format!("context {}", dice.below(14));
        let count = 1 + dice.below(30);
        let evil: Vec<Vec<u8>> = (0..count)
            .map(|n| format!("evil {n}").into_bytes())
            .collect();
        l.append(&context, &evil);
    }
    l.epoch = epoch - 1;
    l.publish();
    l
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn honest_histories_are_never_accused(seed: u64) {
        let mut dice = Dice(seed);
        let states = history(&mut dice, 8);
        let store = FakeMirror::default();
        for _ in 0..12 {
            // Any source of the origin: up to date, behind, or restored.
            let source = &states[dice.below(states.len())];
            let mut pair = Pair::new(source, &store);
            pair.seed = Some(dice.0);
            pair.cut_after = (dice.below(2) == 0).then(|| dice.below(6));
            if let End::Fail(error) = pair.sync() {
                return Err(TestCaseError::fail(error.to_string()));
            }
            prop_assert!(store.fork().unwrap().is_none());
        }
        Pair::new(&states[7], &store).sync().report();
    }

    #[test]
    fn rewritten_histories_always_are(seed: u64) {
        let mut dice = Dice(seed);
        let states = history(&mut dice, 6);
        let from = dice.below(5);
        let held = from + 1 + dice.below(5 - from);
        let store = FakeMirror::default();
        Pair::new(&states[held], &store).sync().report();
        // A head by the key that counted then, so below the next rotation.
        let epoch = states[from].epoch + 1 + dice.below(8) as u64;
        let next = states[held].rotations.get(states[from].rotations.len());
        let epoch = next.map_or(epoch, |next| epoch.min(next.head().epoch));
        let other = rewrite(&mut dice, &states[from], epoch);
        let mut pair = Pair::new(&other, &store);
        pair.seed = Some(seed);
        let root = store.complete_root();
        forked(pair.sync().error(), &other);
        prop_assert!(store.fork().unwrap().is_some());
        prop_assert_eq!(store.complete_root(), root);
    }
}
