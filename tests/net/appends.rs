//! A source that never stands still.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::spawn_blocking;

use crate::node::{Follower, Patience, Server, fill_inline, peer, source};
use crate::relay::{Faults, Relay};

const FRAME_DEADLINE: Duration = Duration::from_secs(10);
/// Heads that have to become complete while the source appends.
const HEADS: usize = 6;
/// Slow enough that many heads come during a sync, and lossy.
const BAD: Faults = Faults {
    loss: 0.005,
    down_rate: Some(16 << 20),
    ..Faults::NONE
};

/// Entries come all the time, and a head with them, from before the first sync
/// on: the mirror completes head after head, each newer than the one before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mirror_keeps_up_with_a_source_that_appends_all_the_time() {
    let (store, news) = source();
    fill_inline(&store, 2 << 20, 51);
    let server = Server::of(&store, &news, 1, Patience::Usual);
    let relay = Relay::new(server.address, BAD, 51);
    let enough = Arc::new(AtomicBool::new(false));
    let (appending, stop) = (store.clone(), Arc::clone(&enough));
    let appender = spawn_blocking(move || {
        let mut heads = 0u64;
        while !stop.load(Ordering::Relaxed) {
            // A few entries, and a head over them.
            fill_inline(&appending, 8 << 10, 52 + heads);
            heads += 1;
        }
        heads
    });
    let mut follower = Follower::new(2, vec![peer(1, relay.address)], FRAME_DEADLINE);
    let mut complete = Vec::new();
    while complete.len() < HEADS {
        follower.reports.recv().await.expect("it goes on");
        let head = follower.store.view().head().map(|head| head.order());
        if head != complete.last().copied() {
            complete.extend(head);
        }
    }
    assert!(complete.is_sorted());
    let behind = follower.status();
    enough.store(true, Ordering::Relaxed);
    let heads = appender.await.unwrap();
    follower.equals(&store).await;
    eprintln!("{heads} heads, {HEADS} complete: {behind:?}");
    // It was the source that was fast, and nothing failed.
    assert!(heads > HEADS as u64, "{heads}");
    assert_eq!(behind.failed_syncs, 0, "{behind:?}");
    follower.stop().await;
    server.stop().await;
}
