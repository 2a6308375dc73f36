//! Every state, and what leads to it and out of it.

use super::*;
use crate::encoding::DecodeError;
use crate::head::{Head, sign_head};
use crate::note::SignerKey;
use crate::run::RunError;
use crate::sync::OriginFault;
use crate::sync::testing::signer;

const STALE: Duration = Duration::from_mins(3);

fn key() -> SignerKey {
    signer(1)
}

fn head(epoch: u64) -> SignedHead {
    let head = Head {
        origin: key().verifier().name().clone(),
        term: 1,
        epoch,
        directory_root: Hash::from_bytes([7; 32]),
        contexts: 1,
        entries: epoch * 10,
        time_ns: epoch * 1_000_000_000,
        rotation: None,
    };
    let note = sign_head(&head, &key()).unwrap();
    SignedHead::open(&note, key().verifier()).unwrap()
}

fn gauge() -> OriginGauge {
    let peer = |n: u8| Peer {
        id: crate::node::NodeKey::from_seed([n; 32]).id(),
        address: format!("peer-{n}:1"),
    };
    let name = key().verifier().name().clone();
    OriginGauge::new(name, &[peer(1), peer(2)], Some(0), STALE, &Held::default())
}

fn report(outcome: Outcome, epoch: u64) -> Report {
    Report {
        origin: key().verifier().name().clone(),
        outcome,
        head: Some(head(epoch)),
        contexts_changed: 0,
        entries: 0,
        received_bytes: 0,
    }
}

fn state(gauge: &OriginGauge) -> OriginState {
    gauge.status(Instant::now(), 20_000_000_000).state
}

fn synced(gauge: &OriginGauge, epoch: u64) {
    gauge.connected(0);
    let complete = head(epoch);
    gauge.synced(0, &report(Outcome::CaughtUp, epoch), Some(&complete));
    assert_eq!(state(gauge), OriginState::Synced);
}

fn aimed(epoch: u64, received_bytes: u64) -> Progress {
    let head = head(epoch);
    Progress {
        entries: 0,
        received_bytes,
        target: Some(Target {
            order: head.order(),
            entries: head.head().entries,
        }),
    }
}

fn fault(fault: impl Into<SyncError>) -> CatchUpError {
    CatchUpError::Sync(fault.into())
}

fn disputed() -> CatchUpError {
    let what = "it".to_owned();
    fault(PeerFault::Disputed { what })
}

#[tokio::test(start_paused = true)]
async fn behind_until_the_newest_head_is_complete_and_while_nobody_is_there() {
    let gauge = gauge();
    assert_eq!(state(&gauge), OriginState::Behind);
    synced(&gauge, 4);
    gauge.progress(aimed(6, 100));
    let status = gauge.status(Instant::now(), 20_000_000_000);
    assert_eq!(
        (status.state, status.lag_entries),
        (OriginState::Behind, 20)
    );
    assert_eq!(
        Duration::from_secs_f64(status.lag_seconds),
        Duration::from_secs(16)
    );
    synced(&gauge, 6);
    gauge.lost(0, &CatchUpError::TimedOut { what: "a test" });
    let status = gauge.status(Instant::now(), 20_000_000_000);
    assert_eq!((status.state, status.lag_entries), (OriginState::Behind, 0));
    assert_eq!(status.last_error.as_deref(), Some("timed out: a test"));
}

#[tokio::test(start_paused = true)]
async fn a_restart_remembers_what_was_seen() {
    let held = Held {
        complete: Some(head(4)),
        newest: Some(head(9)),
    };
    let name = key().verifier().name().clone();
    let gauge = OriginGauge::new(name, &[], None, STALE, &held);
    let status = gauge.status(Instant::now(), 0);
    assert_eq!(
        (status.state, status.lag_entries),
        (OriginState::Behind, 50)
    );
}

#[tokio::test(start_paused = true)]
async fn stale_when_nothing_newer_comes_but_not_while_a_sync_moves() {
    let gauge = gauge();
    synced(&gauge, 4);
    tokio::time::advance(STALE + Duration::from_secs(1)).await;
    assert_eq!(state(&gauge), OriginState::Stale);
    // The same head again says nothing.
    gauge.synced(0, &report(Outcome::Current, 4), Some(&head(4)));
    assert_eq!(state(&gauge), OriginState::Stale);
    for bytes in 1..4 {
        gauge.progress(aimed(5, bytes));
        tokio::time::advance(STALE.saturating_sub(Duration::from_secs(1))).await;
        assert_eq!(state(&gauge), OriginState::Behind);
    }
    // One that brings nothing does not count.
    gauge.progress(aimed(5, 3));
    tokio::time::advance(Duration::from_secs(2)).await;
    assert_eq!(state(&gauge), OriginState::Stale);
    synced(&gauge, 6);
}

#[tokio::test(start_paused = true)]
async fn source_behind_if_the_own_node_is_or_all_are() {
    let gauge = gauge();
    synced(&gauge, 4);
    gauge.connected(1);
    // One that has nothing yet is not behind: it says nothing.
    gauge.synced(1, &report(Outcome::Nothing, 4), Some(&head(4)));
    assert_eq!(state(&gauge), OriginState::Synced);
    gauge.synced(1, &report(Outcome::Behind, 3), Some(&head(4)));
    assert_eq!(state(&gauge), OriginState::Synced);
    gauge.synced(0, &report(Outcome::Behind, 3), Some(&head(4)));
    assert_eq!(state(&gauge), OriginState::SourceBehind);
    // A new connection has shown nothing yet.
    gauge.lost(0, &CatchUpError::TimedOut { what: "a test" });
    assert_eq!(
        state(&gauge),
        OriginState::SourceBehind,
        "all that are there"
    );
    gauge.connected(0);
    assert_eq!(state(&gauge), OriginState::Synced);
}

#[tokio::test(start_paused = true)]
async fn disputed_until_that_peer_is_synced_with() {
    let gauge = gauge();
    synced(&gauge, 4);
    gauge.failed(1, &disputed());
    assert_eq!(state(&gauge), OriginState::Disputed);
    gauge.synced(0, &report(Outcome::Current, 4), Some(&head(4)));
    assert_eq!(state(&gauge), OriginState::Disputed);
    gauge.synced(1, &report(Outcome::Current, 4), Some(&head(4)));
    assert_eq!(state(&gauge), OriginState::Synced);
    let status = gauge.status(Instant::now(), 0);
    assert_eq!((status.syncs, status.failed_syncs), (3, 1));
}

#[tokio::test(start_paused = true)]
async fn what_the_origin_or_this_side_did_stays_until_a_sync_ends_well() {
    let quota = LocalFault::Quota {
        what: "entries",
        got: 2,
        max: 1,
    };
    let room = LocalFault::Room {
        free_bytes: 1,
        keep_bytes: 2,
    };
    let forked = LocalFault::Forked {
        evidence: Hash::from_bytes([0; 32]),
        verdict: "two texts".into(),
    };
    let invalid = OriginFault::InvalidEntries {
        context: "c".into(),
        error: RunError::Decode(DecodeError::Invalid { what: "it" }),
    };
    let store = LocalFault::Store("a disk".into());
    for (error, expected) in [
        (fault(quota), OriginState::Quota),
        (fault(room), OriginState::Quota),
        (fault(forked), OriginState::Forked),
        (fault(invalid), OriginState::InvalidOrigin),
        (fault(store), OriginState::Failed),
        (CatchUpError::Task, OriginState::Failed),
    ] {
        let gauge = gauge();
        synced(&gauge, 4);
        gauge.failed(0, &error);
        gauge.stopped(&error);
        assert_eq!(state(&gauge), expected, "{error}");
        assert!(expected.is_alarm());
        // That peers go away meanwhile hides nothing.
        gauge.lost(0, &CatchUpError::TimedOut { what: "a test" });
        let status = gauge.status(Instant::now(), 0);
        assert_eq!(status.state, expected);
        assert_eq!(status.last_error, Some(error.to_string()));
        synced(&gauge, 5);
    }
    let gauge = gauge();
    gauge.crashed(&"it panicked");
    assert_eq!(state(&gauge), OriginState::Failed);
}
