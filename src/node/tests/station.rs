//! A store with what goes on around it: what fails is started again, and a
//! contradiction that somebody shows is kept.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::{LOCALHOST, Stopped, key, signer};
use crate::entry::{ContextId, Draft};
use crate::node::{
    Allowlist, Before, CatchUpError, Door, FollowerTable, Held, KeepUp, OriginGauge, OriginState,
    Peer, Station, StationView, Synced, Turn, Upstream, Waiting, ask_head, node_status, quic,
};
use crate::note::SignerKey;
use crate::store::disk::MemoryDisk;
use crate::store::{Store, StoreOptions, StoreRole, create};
use crate::sync::MirrorLimits;

fn signed(origin: &SignerKey, payload: &[u8]) -> (Store, crate::node::News) {
    let disk = Arc::new(MemoryDisk::new());
    create(&*disk, StoreRole::Own, origin.verifier()).unwrap();
    let mut options = StoreOptions::new(Arc::new(Stopped));
    let news = Before::default().prepare(&mut options, None);
    let store = Store::open(disk, options, Some(signer(1))).unwrap().store;
    let draft = Draft::new("key", payload.to_vec()).unwrap();
    store
        .append(vec![(ContextId::new("c").unwrap(), draft)])
        .unwrap();
    store.publish().unwrap();
    (store, news)
}

fn door(n: u8, allowed: &[u8]) -> Door {
    let allowed = Allowlist::new(allowed.iter().map(|n| key(*n).id())).unwrap();
    Door::open(LOCALHOST, Arc::new(key(n)), allowed).unwrap()
}

/// The origin's own station, with the node key 1.
fn source(payload: &[u8], allowed: &[u8]) -> Station {
    let (store, news) = signed(&signer(1), payload);
    Station {
        store,
        door: Some(door(1, allowed)),
        news,
        table: FollowerTable::default(),
        upstream: None,
    }
}

/// A mirror of it, with the node key `n`.
fn mirror(n: u8, source: &Station, allowed: &[u8], synced: Synced) -> Station {
    let disk = Arc::new(MemoryDisk::new());
    let origin = signer(1).verifier().clone();
    create(&*disk, StoreRole::Mirror, &origin).unwrap();
    let mut options = StoreOptions::new(Arc::new(Stopped));
    let news = Before::default().prepare(&mut options, None);
    let store = Store::open(disk, options, None).unwrap().store;
    let address = source.door.as_ref().unwrap().address();
    let peers: Vec<Peer> = vec![format!("{}@{address}", key(1).id()).parse().unwrap()];
    let name = origin.name().clone();
    let gauge = OriginGauge::new(
        name,
        &peers,
        Some(0),
        Duration::from_mins(5),
        &Held::default(),
    );
    Station {
        store,
        door: Some(door(n, allowed)),
        news,
        table: FollowerTable::default(),
        upstream: Some(Upstream {
            config: KeepUp {
                origin,
                peers,
                allowed: Arc::new(|| Ok(MirrorLimits::default())),
                waiting: Waiting::default(),
                turn: Turn::default(),
            },
            key: Arc::new(key(n)),
            gauge,
            synced,
        }),
    }
}

fn state(view: &StationView) -> OriginState {
    node_status(std::slice::from_ref(view), &[]).origins[0].state
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mirror_that_panics_is_started_again() {
    let (stop, stopping) = watch::channel(false);
    let source = source(b"one", &[2]);
    let (tell, mut told) = mpsc::unbounded_channel();
    let syncs = AtomicU32::new(0);
    let synced: Synced = Arc::new(move |_, _| {
        let sync = syncs.fetch_add(1, Ordering::Relaxed);
        _ = tell.send(sync);
        assert!(sync > 0, "the first one");
    });
    let mirror = mirror(2, &source, &[], synced);
    let (store, view) = (source.store.clone(), mirror.view());
    let running = [
        tokio::spawn(source.run(stopping.clone())),
        tokio::spawn(mirror.run(stopping)),
    ];
    assert_eq!(told.recv().await, Some(0));
    while state(&view) != OriginState::Failed {
        tokio::task::yield_now().await;
    }
    // The others did not notice.
    store.publish().unwrap();
    assert_eq!(told.recv().await, Some(1));
    while state(&view) != OriginState::Synced {
        tokio::task::yield_now().await;
    }
    stop.send_replace(true);
    for station in running {
        station.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mirror_that_is_shown_another_text_keeps_the_proof() {
    let (stop, stopping) = watch::channel(false);
    let source = source(b"one history", &[2]);
    let (other, _) = signed(&signer(1), b"another");
    let (tell, mut told) = mpsc::unbounded_channel();
    let synced: Synced = Arc::new(move |_, _| _ = tell.send(()));
    let mirror = mirror(2, &source, &[3], synced);
    let (view, store) = (mirror.view(), mirror.store.clone());
    let address = mirror.door.as_ref().unwrap().address();
    let running = [
        tokio::spawn(source.run(stopping.clone())),
        tokio::spawn(mirror.run(stopping)),
    ];
    told.recv().await.unwrap();
    assert!(store.view().fork().is_none());
    // A node that holds the other history asks the mirror for its head.
    let note = other.view().head().unwrap().note_bytes();
    let endpoint = quic::client(LOCALHOST).unwrap();
    let place = (address, key(2).id());
    let shown: Result<_, CatchUpError> =
        ask_head(&endpoint, &key(3), place, &note, Duration::from_mins(1)).await;
    assert_eq!(shown.unwrap().len(), 1);
    while state(&view) != OriginState::Forked {
        tokio::task::yield_now().await;
    }
    assert!(store.view().fork().is_some_and(|fork| !fork.resolved));
    stop.send_replace(true);
    for station in running {
        station.await.unwrap();
    }
}
