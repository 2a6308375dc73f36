//! Whole syncs over a network that loses, delays, repeats and spoils.

use std::time::Duration;
use std::time::Instant;

use converge_ledger::sync::Outcome;

use crate::node::{Patience, Server, assert_equal, fill, mirror, pull, source};
use crate::relay::{Counts, Faults, Relay};

const MIB: usize = 1 << 20;

/// One sync of so many bytes over a network with these faults: it ends well at
/// the first attempt.
async fn syncs(bytes: usize, faults: Faults, seed: u64) -> Counts {
    let (store, news) = source();
    fill(&store, bytes, seed);
    let server = Server::of(&store, &news, 1, Patience::Usual);
    let relay = Relay::new(server.address, faults, seed);
    let (copy, _) = mirror();
    let begun = Instant::now();
    let report = pull(&copy, relay.address).await.unwrap();
    let elapsed = begun.elapsed();
    assert_eq!(report.outcome, Outcome::CaughtUp);
    assert_equal(&copy, &store);
    let counts = relay.counts();
    eprintln!("{bytes} bytes in {elapsed:.2?}: {counts:?}");
    server.stop().await;
    counts
}

fn lossy(percent: u32) -> Faults {
    Faults {
        loss: f64::from(percent) / 100.0,
        ..Faults::NONE
    }
}

/// The relay lost about as much as it was told to.
#[track_caller]
fn lost(counts: &Counts, percent: u64) {
    let (all, dropped) = (counts.down.datagrams, counts.down.dropped);
    let (least, most) = (all * percent * 3 / 400, all * percent * 5 / 400);
    assert!((least..=most).contains(&dropped), "{percent} %: {counts:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_without_faults() {
    let counts = syncs(16 * MIB, Faults::NONE, 1).await;
    assert_eq!(counts.down.dropped + counts.up.dropped, 0);
    // Beside what is asked for, little is sent.
    assert!(counts.down.bytes < 18 << 20, "{counts:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_percent_are_lost() {
    lost(&syncs(8 * MIB, lossy(5), 2).await, 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_percent_are_lost() {
    lost(&syncs(8 * MIB, lossy(10), 3).await, 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_percent_are_lost() {
    lost(&syncs(4 * MIB, lossy(20), 4).await, 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thirty_percent_are_lost() {
    lost(&syncs(2 * MIB, lossy(30), 5).await, 30);
}

/// Most of the time nothing is on the way: it is the sender's waits, which grow
/// when the same packets are lost again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes about a minute"]
async fn more_is_lost_for_longer() {
    let (twenty, thirty) =
        tokio::join!(syncs(16 * MIB, lossy(20), 8), syncs(8 * MIB, lossy(30), 9));
    lost(&twenty, 20);
    lost(&thirty, 30);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn some_are_late_and_some_come_twice() {
    let faults = Faults {
        duplicate: 0.2,
        late: 0.2,
        late_by: Duration::from_millis(5),
        ..Faults::NONE
    };
    let down = syncs(8 * MIB, faults, 6).await.down;
    assert_eq!(down.dropped, 0);
    let (twice, late) = (down.copies - down.datagrams, down.late);
    assert!(
        twice > down.datagrams / 10 && late > down.datagrams / 10,
        "{down:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn some_have_a_bit_flipped() {
    let faults = Faults {
        corrupt: 0.05,
        ..Faults::NONE
    };
    let down = syncs(8 * MIB, faults, 7).await.down;
    assert!(down.corrupt > down.datagrams / 40, "{down:?}");
}
