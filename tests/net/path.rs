//! Paths that change under a connection: what no longer gets through, who is no
//! longer there, and where somebody is.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::Instant;

use converge_ledger::node::OriginStatus;
use converge_ledger::sync::Outcome;

use crate::node::{
    CONTEXTS, DEADLINE, Follower, IDLE_TIMEOUT_MS, Patience, Server, assert_equal, fill,
    fill_inline, mirror, peer, pull, source,
};
use crate::relay::{Dice, Faults, LOCALHOST, Relay};

const MIB: u64 = 1 << 20;
/// What the smallest networks take, and so what QUIC begins with.
const NARROW_BYTES: usize = 1200;
/// Far less than the default, so that the tests do not take as long.
const FRAME_DEADLINE: Duration = Duration::from_millis(700);
/// What comes twice after an interruption, for each request under way: the span
/// that was on its way. A source ends one with the first run beyond 256 KiB.
const SPAN_BYTES: u64 = 384 << 10;

fn narrow() -> Faults {
    Faults {
        datagram_bytes_max: NARROW_BYTES,
        ..Faults::NONE
    }
}

async fn until_down(relay: &Arc<Relay>, bytes: u64) {
    let relay = Arc::clone(relay);
    spawn_blocking(move || relay.until_down(bytes))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_narrow_path_that_says_nothing() {
    let (store, news) = source();
    fill(&store, 8 << 20, 11);
    let server = Server::of(&store, &news, 1, Patience::Usual);
    let relay = Relay::new(server.address, narrow(), 11);
    let (copy, _) = mirror();
    let report = pull(&copy, relay.address).await.unwrap();
    assert_eq!(report.outcome, Outcome::CaughtUp);
    assert_equal(&copy, &store);
    let down = relay.counts().down;
    // It was tried with more, a few times.
    assert!(down.longest <= NARROW_BYTES, "{down:?}");
    assert!((1..100).contains(&down.dropped), "{down:?}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_path_that_becomes_narrow() {
    let (store, news) = source();
    fill(&store, 12 << 20, 12);
    let server = Server::of(&store, &news, 1, Patience::Usual);
    let relay = Arc::new(Relay::new(server.address, Faults::NONE, 12));
    let (copy, _) = mirror();
    let (syncing, address) = (copy.clone(), relay.address);
    let sync = tokio::spawn(async move { pull(&syncing, address).await });
    until_down(&relay, 3 * MIB).await;
    let before = relay.counts().down;
    assert!(before.longest > NARROW_BYTES, "{before:?}");
    relay.set(narrow());
    // The same connection goes on.
    assert_eq!(sync.await.unwrap().unwrap().outcome, Outcome::CaughtUp);
    assert_equal(&copy, &store);
    let down = relay.counts().down;
    eprintln!("dropped {} of {}", down.dropped, down.datagrams);
    assert!(down.dropped > before.dropped);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_in_the_middle_of_a_sync() {
    let (store, news) = source();
    fill_inline(&store, 16 << 20, 13);
    let server = Server::of(&store, &news, 1, Patience::Usual);
    // How much a sync takes that nobody disturbs.
    let relay = Relay::new(server.address, Faults::NONE, 13);
    let (copy, _) = mirror();
    pull(&copy, relay.address).await.unwrap();
    let whole = relay.counts().down.bytes;
    drop(relay);

    let relay = Arc::new(Relay::new(server.address, Faults::NONE, 14));
    let mut follower = Follower::new(2, vec![peer(1, relay.address)], FRAME_DEADLINE);
    for part in 1..=3 {
        until_down(&relay, whole / 5).await;
        relay.set(Faults::CUT);
        let noticed = |status: &OriginStatus| status.failed_syncs >= part;
        follower.until("it is noticed", noticed).await;
        relay.set(Faults::NONE);
        let back = |status: &OriginStatus| status.peers[0].connected;
        follower.until("it is connected again", back).await;
    }
    follower.equals(&store).await;
    let status = follower.status();
    assert_eq!(status.failed_syncs, 3, "{status:?}");
    // What was verified before each partition is stored: only answers that were
    // on their way come twice.
    let all = relay.counts().down.passed_bytes;
    let most = whole + whole / 20 + 3 * CONTEXTS as u64 * SPAN_BYTES;
    eprintln!("{all} bytes instead of {whole}, at most {most}");
    assert!(
        all <= most,
        "{all} bytes instead of {whole}, at most {most}"
    );
    follower.stop().await;
    server.stop().await;
}

/// Only one direction is cut, and nobody asks for anything: the idle timeout
/// notices, on both sides, whichever is deaf.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_of_one_direction_while_nothing_happens() {
    let (store, news) = source();
    fill(&store, 1 << 20, 15);
    let server = Server::of(&store, &news, 1, Patience::Short);
    let relay = Relay::new(server.address, Faults::NONE, 15);
    let mut follower = Follower::new(2, vec![peer(1, relay.address)], FRAME_DEADLINE);
    follower.equals(&store).await;
    let deaf_mirror = Faults {
        cut_down: true,
        ..Faults::NONE
    };
    let deaf_source = Faults {
        cut_up: true,
        ..Faults::NONE
    };
    for (n, cut) in [deaf_mirror, deaf_source].into_iter().enumerate() {
        let begun = Instant::now();
        relay.set(cut);
        follower
            .until("the mirror notices", |status| !status.peers[0].connected)
            .await;
        let noticed = begun.elapsed();
        // The mirror has heard keep-alives until now, or its own went unanswered.
        let idle = Duration::from_millis(IDLE_TIMEOUT_MS.into());
        assert!(noticed >= idle / 2, "{noticed:?}");
        while server.endpoint.open_connections() > 0 {
            assert!(begun.elapsed() < DEADLINE, "the source notices");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // Meanwhile the source goes on by itself.
        fill(&store, 1000, 16 + n as u64);
        relay.set(Faults::NONE);
        follower.equals(&store).await;
    }
    follower.stop().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mirror_that_moves_in_the_middle_of_a_sync() {
    let (store, news) = source();
    fill(&store, 12 << 20, 17);
    let server = Server::of(&store, &news, 1, Patience::Usual);
    let relay = Arc::new(Relay::new(server.address, Faults::NONE, 17));
    let (copy, _) = mirror();
    let (syncing, address) = (copy.clone(), relay.address);
    let sync = tokio::spawn(async move { pull(&syncing, address).await });
    for _ in 0..4 {
        until_down(&relay, 2 * MIB).await;
        assert!(!sync.is_finished());
        relay.move_mirrors();
    }
    // One connection, from the first byte to the last: old addresses are deaf.
    assert_eq!(sync.await.unwrap().unwrap().outcome, Outcome::CaughtUp);
    assert_equal(&copy, &store);
    assert_eq!(relay.counts().moves, 4);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_moves_while_nothing_happens_hears_of_the_next_head() {
    let (store, news) = source();
    fill(&store, 1 << 20, 18);
    let server = Server::of(&store, &news, 1, Patience::Short);
    let relay = Relay::new(server.address, Faults::NONE, 18);
    let mut follower = Follower::new(2, vec![peer(1, relay.address)], FRAME_DEADLINE);
    follower.equals(&store).await;
    for n in 0..3 {
        relay.move_mirrors();
        fill(&store, 1000, 19 + n);
        follower.equals(&store).await;
    }
    follower.stop().await;
    server.stop().await;
}

/// Datagrams that nobody sent as part of a connection, to both sides.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_send_what_they_like() {
    let (store, news) = source();
    fill(&store, 8 << 20, 22);
    let server = Server::of(&store, &news, 1, Patience::Usual);
    let relay = Arc::new(Relay::new(server.address, Faults::NONE, 22));
    let (copy, _) = mirror();
    let stranger = std::net::UdpSocket::bind(LOCALHOST).unwrap();
    let (source_at, syncing, address) = (server.address, copy.clone(), relay.address);
    let sync = tokio::spawn(async move { pull(&syncing, address).await });
    let mut dice = Dice::new(22);
    let mut sent = 0u64;
    while !sync.is_finished() {
        for _ in 0..50 {
            let mut bytes: Vec<u8> = (0..dice.below(1400)).map(|_| dice.byte()).collect();
            // Some look like the first packet of a connection of version 1.
            if sent.is_multiple_of(2) && bytes.len() > 6 {
                bytes[..6].copy_from_slice(&[0xc3, 0, 0, 0, 1, 8]);
            }
            let _ = stranger.send_to(&bytes, source_at);
            sent += 1;
        }
        tokio::task::yield_now().await;
    }
    eprintln!("{sent} datagrams of a stranger");
    assert!(sent > 1000);
    assert_eq!(sync.await.unwrap().unwrap().outcome, Outcome::CaughtUp);
    assert_equal(&copy, &store);
    // And a new mirror is still let in.
    let (another, _) = mirror();
    pull(&another, relay.address).await.unwrap();
    server.stop().await;
}
