//! Source and mirror in virtual time, thousands of worlds, each from one seed:
//! `LEDGER_SEEDS` says how many, `LEDGER_SEED` which one alone.

use std::num::NonZero;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::sync::testing::{Counts, FakeMirror, World};

/// Worlds, unless the environment says otherwise.
const SEEDS: u64 = 2000;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().expect("a number"))
}

fn world(seed: u64) -> Counts {
    let store = FakeMirror::default();
    let mut world = World::new(seed, &store);
    world.run();
    world.oracle.counts
}

#[test]
fn mirrors_converge_whatever_breaks() {
    if let Some(seed) = number("LEDGER_SEED") {
        eprintln!("{:?}", world(seed));
        return;
    }
    let seeds = number("LEDGER_SEEDS").unwrap_or(SEEDS);
    let next = AtomicU64::new(0);
    let all = Mutex::new(Counts::default());
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds {
                        break;
                    }
                    let counts = world(seed);
                    let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
                    all.add(&counts);
                }
            });
        }
    });
    let all = all.into_inner().unwrap();
    eprintln!("{seeds} seeds: {all:?}");
    // What they are about does happen.
    assert!(all.interruptions > seeds && all.told > seeds, "{all:?}");
    assert!(all.pulled_spans > seeds && all.completed > seeds, "{all:?}");
    assert!(
        all.acknowledged > seeds && all.blamed > seeds / 2,
        "{all:?}"
    );
    assert!(all.without_a_question > seeds, "{all:?}");
}
