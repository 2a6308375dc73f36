//! A mirror that is kept up to date: every head, through restarts and peers that
//! fail, until it is told to stop.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::{LOCALHOST, Server, Stopped, key, ledger, open, signer};
use crate::entry::{ContextId, Draft};
use crate::hash::Hash;
use crate::head::{HeadOrder, SignedHead};
use crate::ledger::{EntryParts, OpenedNode, ReadLedger};
use crate::node::{
    Allowlist, Before, CatchUpError, FollowerTable, Held, Hooks, KeepUp, News, NodeKey,
    OriginGauge, OriginState, OriginStatus, Peer, ServeLimits, Turn, Waiting, keep_up, quic, serve,
};
use crate::store::disk::MemoryDisk;
use crate::store::{Store, StoreError, StoreOptions, StoreRole, View, create};
use crate::sync::{LocalFault, MirrorLimits, Outcome, Report, SyncError};
use crate::tree::NodeId as TreeNode;

/// A store that publishes heads by itself, and what tells of them.
fn source() -> (Store, News) {
    let disk = Arc::new(MemoryDisk::new());
    create(&*disk, StoreRole::Own, signer(1).verifier()).unwrap();
    let mut options = StoreOptions::new(Arc::new(Stopped));
    let news = Before::default().prepare(&mut options, None);
    let store = Store::open(disk, options, Some(signer(1))).unwrap().store;
    (store, news)
}

fn append(store: &Store, n: usize) {
    let id = ContextId::new(&format!("context {}", n % 3)).unwrap();
    let draft = Draft::new("key", vec![1; n]).unwrap();
    store.append(vec![(id, draft)]).unwrap();
}

fn peer(node: &NodeKey, address: SocketAddr) -> Peer {
    format!("{}@{address}", node.id()).parse().unwrap()
}

/// A mirror's process.
struct Follower {
    store: Store,
    gauge: OriginGauge,
    reports: mpsc::UnboundedReceiver<Report>,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<Result<(), CatchUpError>>,
}

impl Follower {
    fn of(address: SocketAddr) -> Self {
        Self::with(vec![peer(&key(1), address)], MirrorLimits::default())
    }

    fn with(peers: Vec<Peer>, limits: MirrorLimits) -> Self {
        Self::leaving(peers, limits, Duration::from_millis(100))
    }

    /// Leaves a slow peer for another after so long.
    fn leaving(peers: Vec<Peer>, limits: MirrorLimits, slow_after: Duration) -> Self {
        let store = open(StoreRole::Mirror);
        let (tell, reports) = mpsc::unbounded_channel();
        let (stop, stopped) = oneshot::channel();
        let origin = signer(1).verifier().clone();
        let long = Duration::from_mins(5);
        let gauge = OriginGauge::new(
            origin.name().clone(),
            &peers,
            Some(0),
            long,
            &Held::default(),
        );
        let config = KeepUp {
            origin,
            peers,
            allowed: Arc::new(move || Ok(limits)),
            waiting: Waiting {
                poll_every: Duration::from_millis(50),
                slow_after,
                ..Waiting::default()
            },
            turn: Turn::default(),
        };
        let (mirror, shown) = (Arc::new(store.clone()), gauge.clone());
        let task = tokio::spawn(async move {
            let done = |_: &Peer, report: &Report| _ = tell.send(report.clone());
            let shutdown = async { _ = stopped.await };
            let key = Arc::new(key(2));
            let outcome = keep_up(key, mirror, &config, &shown, done, shutdown).await;
            if let Err(error) = &outcome {
                shown.stopped(error);
            }
            outcome
        });
        Self {
            store,
            gauge,
            reports,
            stop: Some(stop),
            task,
        }
    }

    /// Waits until it holds so many entries.
    async fn holds(&mut self, entries: u64) {
        loop {
            let report = self.reports.recv().await.unwrap();
            let Some(head) = self.store.view().head() else {
                continue;
            };
            assert!(
                report
                    .head
                    .is_some_and(|shown| shown.order() <= head.order())
            );
            if head.head().entries >= entries {
                return;
            }
        }
    }

    fn status(&self) -> OriginStatus {
        self.gauge.status(Instant::now(), 0)
    }

    async fn stop(mut self) -> Result<(), CatchUpError> {
        drop(self.stop.take());
        self.task.await.unwrap()
    }
}

fn hooks(news: &News) -> Hooks {
    Hooks {
        news: Some(news.clone()),
        ..Hooks::default()
    }
}

fn telling(store: &Store, news: &News) -> Server {
    let (view, limits) = (store.view().clone(), ServeLimits::default());
    Server::telling(view, &[key(2).id()], limits, hooks(news))
}

/// A server that can be started again where it was.
struct Restarted<'s> {
    store: &'s Store,
    hooks: Hooks,
    address: SocketAddr,
    running: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl<'s> Restarted<'s> {
    async fn new(store: &'s Store, hooks: Hooks) -> Self {
        let mut server = Self {
            store,
            hooks,
            address: LOCALHOST,
            running: None,
        };
        server.start().await;
        server
    }

    async fn start(&mut self) {
        let allowed = Allowlist::new([key(2).id()]).unwrap();
        let endpoint = loop {
            // The socket of the one before may be open for a moment yet.
            match quic::listen(self.address, &key(1), &allowed) {
                Ok(endpoint) => break endpoint,
                Err(_) => tokio::task::yield_now().await,
            }
        };
        self.address = endpoint.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let ledger = Arc::new(self.store.view().clone());
        let (limits, hooks) = (ServeLimits::default(), self.hooks.clone());
        let until = async { _ = stopped.await };
        let serving = serve((endpoint, allowed), ledger, limits, hooks, until);
        self.running = Some((stop, tokio::spawn(serving)));
    }

    async fn stop(&mut self) {
        let (stop, task) = self.running.take().unwrap();
        drop(stop);
        task.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_hears_of_every_head() {
    let (store, news) = source();
    append(&store, 0);
    store.publish().unwrap();
    let server = telling(&store, &news);
    let mut mirror = Follower::of(server.address);
    mirror.holds(1).await;
    // Nobody publishes but the store itself, because somebody follows.
    for n in 1..30 {
        append(&store, n);
        if n == 1 {
            // The first may have come before it followed.
            store.publish().unwrap();
        }
        mirror.holds(n as u64 + 1).await;
    }
    assert_eq!(news.followers.count(), 1);
    assert_eq!(
        mirror.store.view().contexts(None, 9).unwrap(),
        store.view().contexts(None, 9).unwrap()
    );
    let status = mirror.status();
    assert_eq!(status.state, OriginState::Synced, "{status:?}");
    assert_eq!(status.lag_entries, 0);
    assert!(status.lag_seconds <= 0.0);
    assert_eq!(status.entries, 30);
    mirror.stop().await.unwrap();
    server.stop().await;
    assert_eq!(news.followers.count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_comes_back_when_its_source_does() {
    let (store, news) = source();
    append(&store, 0);
    store.publish().unwrap();
    let mut server = Restarted::new(&store, hooks(&news)).await;
    let mut mirror = Follower::of(server.address);
    for n in 1..4 {
        mirror.holds(n).await;
        server.stop().await;
        append(&store, usize::try_from(n).unwrap());
        store.publish().unwrap();
        server.start().await;
    }
    mirror.holds(4).await;
    mirror.stop().await.unwrap();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_tells_nobody_is_asked_again() {
    let server = Server::new(ledger(), &[key(2).id()], ServeLimits::default());
    let mut mirror = Follower::of(server.address);
    let first = mirror.reports.recv().await.unwrap();
    assert_eq!(first.outcome, Outcome::CaughtUp);
    for _ in 0..3 {
        let again = mirror.reports.recv().await.unwrap();
        assert_eq!(again.outcome, Outcome::Current);
    }
    // Over one connection.
    assert_eq!(mirror.status().peers[0].failures, 0);
    mirror.stop().await.unwrap();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_other_peer_can_mend_ends_it() {
    let (store, news) = source();
    append(&store, 0);
    store.publish().unwrap();
    let server = telling(&store, &news);
    let mut mirror = Follower::of(server.address);
    mirror.holds(1).await;
    mirror.store.close().unwrap();
    append(&store, 1);
    store.publish().unwrap();
    let error = (&mut mirror.task).await.unwrap().unwrap_err();
    let store_failed = matches!(
        error,
        CatchUpError::Sync(SyncError::Local(LocalFault::Store(_)))
    );
    assert!(store_failed, "{error}");
    assert_eq!(mirror.status().state, OriginState::Failed);
    // An origin that is larger than it may be.
    let limits = MirrorLimits {
        entries_max: 1,
        ..MirrorLimits::default()
    };
    let mut mirror = Follower::with(vec![peer(&key(1), server.address)], limits);
    let error = (&mut mirror.task).await.unwrap().unwrap_err();
    assert!(
        error.to_string().contains("entries of the origin"),
        "{error}"
    );
    let status = mirror.status();
    assert_eq!((status.state, status.entries), (OriginState::Quota, 0));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_that_fail_or_are_behind_hold_up_nothing() {
    let (store, news) = source();
    append(&store, 0);
    store.publish().unwrap();
    // One that is not there, one with another key, one that is behind, and one
    // that is as it should be.
    let gone = std::net::UdpSocket::bind(LOCALHOST).unwrap();
    let server = telling(&store, &news);
    let old = open(StoreRole::Mirror);
    let (mirror, config) = (Arc::new(old.clone()), super::config(server.address));
    let pulled = super::pull(&key(2), &mirror, &config).await;
    assert_eq!(pulled.unwrap().outcome, Outcome::CaughtUp);
    append(&store, 1);
    store.publish().unwrap();
    let behind = Server::new(old.view().clone(), &[key(2).id()], ServeLimits::default());
    let peers = vec![
        peer(&key(1), gone.local_addr().unwrap()),
        peer(&key(7), server.address),
        peer(&key(1), behind.address),
        peer(&key(1), server.address),
    ];
    let mut mirror = Follower::with(peers, MirrorLimits::default());
    for n in 2..6 {
        mirror.holds(n).await;
        append(&store, usize::try_from(n).unwrap());
        store.publish().unwrap();
    }
    mirror.holds(6).await;
    // Until the one that is behind has been asked again.
    while !mirror.status().peers[2].behind {
        mirror.reports.recv().await.unwrap();
    }
    let status = mirror.status();
    let connected: Vec<bool> = status.peers.iter().map(|peer| peer.connected).collect();
    assert_eq!(connected[1..], [false, true, true], "{status:?}");
    assert_eq!(status.state, OriginState::Synced);
    mirror.stop().await.unwrap();
    server.stop().await;
    behind.stop().await;
}

/// A source that shows everything and never comes to the entries.
struct Stalling {
    view: View,
    /// Told when it is asked for entries.
    asked: mpsc::UnboundedSender<()>,
    /// Entries come when this ends.
    gate: std::sync::Mutex<std::sync::mpsc::Receiver<()>>,
}

impl ReadLedger for Stalling {
    type Error = StoreError;

    fn newest_head(&self) -> Result<Option<SignedHead>, StoreError> {
        self.view.newest_head()
    }

    fn rotations_after(&self, order: Option<HeadOrder>) -> Result<Vec<SignedHead>, StoreError> {
        self.view.rotations_after(order)
    }

    fn opened_node(&self, hash: &Hash) -> Result<Option<OpenedNode>, StoreError> {
        self.view.opened_node(hash)
    }

    fn signed_size(&self, id: &ContextId) -> Result<Option<u64>, StoreError> {
        self.view.signed_size(id)
    }

    fn runs(
        &self,
        id: &ContextId,
        after: u64,
        size: u64,
        bytes_max: usize,
    ) -> Result<Option<Vec<Vec<u8>>>, StoreError> {
        _ = self.asked.send(());
        _ = self.gate.lock().unwrap().recv();
        ReadLedger::runs(&self.view, id, after, size, bytes_max)
    }

    fn tree_nodes(&self, id: &ContextId, nodes: &[TreeNode]) -> Result<Vec<Hash>, StoreError> {
        ReadLedger::tree_nodes(&self.view, id, nodes)
    }

    fn outside_payload(&self, hash: &Hash) -> Result<Option<Vec<u8>>, StoreError> {
        self.view.outside_payload(hash)
    }

    fn entry_parts(&self, id: &ContextId, sequence: u64) -> Result<Option<EntryParts>, StoreError> {
        self.view.entry_parts(id, sequence)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_stalls_is_left_for_one_that_does_not() {
    let (store, news) = source();
    append(&store, 0);
    store.publish().unwrap();
    let (tell, mut asked) = mpsc::unbounded_channel();
    let (open_gate, gate) = std::sync::mpsc::channel();
    let stalling = Stalling {
        view: store.view().clone(),
        asked: tell,
        gate: std::sync::Mutex::new(gate),
    };
    let slow = Server::new(stalling, &[key(2).id()], ServeLimits::default());
    let mut honest = Restarted::new(&store, hooks(&news)).await;
    honest.stop().await;
    let peers = vec![peer(&key(1), slow.address), peer(&key(1), honest.address)];
    let mut mirror = Follower::with(peers, MirrorLimits::default());
    asked.recv().await.unwrap();
    honest.start().await;
    mirror.holds(1).await;
    let status = mirror.status();
    let error = status.peers[0].last_error.as_deref().unwrap_or_default();
    assert!(error.contains("another peer has news"), "{status:?}");
    assert_eq!(status.peers[1].last_error, None);
    mirror.stop().await.unwrap();
    drop(open_gate);
    slow.stop().await;
    honest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sync_that_is_dropped_is_out_of_the_way_of_the_next() {
    let (store, news) = source();
    let drafts = (0..4000u32).map(|n| {
        let id = ContextId::new(&format!("context {}", n % 40)).unwrap();
        (id, Draft::new("key", vec![1; 1000]).unwrap())
    });
    store.append(drafts.collect()).unwrap();
    store.publish().unwrap();
    let servers: Vec<Server> = (0..3).map(|_| telling(&store, &news)).collect();
    let peers = servers.iter().map(|server| peer(&key(1), server.address));
    // No sync is fast enough: as soon as another peer has news, it is its turn.
    let slow_after = Duration::from_micros(500);
    let mut mirror = Follower::leaving(peers.collect(), MirrorLimits::default(), slow_after);
    mirror.holds(4000).await;
    let status = mirror.status();
    assert!(status.failed_syncs > 0, "{status:?}");
    mirror.stop().await.unwrap();
    for server in servers {
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_knows_how_far_its_followers_are() {
    let (store, news) = source();
    append(&store, 0);
    store.publish().unwrap();
    let table = FollowerTable::default();
    let (tell, mut told) = mpsc::unbounded_channel();
    let (view, listed) = (store.view().clone(), table.clone());
    let acknowledged = move |peer: &crate::node::NodeId, note: &[u8]| {
        let head = SignedHead::open(note, &view.origin()).unwrap();
        listed.acknowledged(peer, crate::node::HeadFigures::from(&head));
        _ = tell.send(head.head().entries);
    };
    let hooks = Hooks {
        acknowledged: Some(Arc::new(acknowledged)),
        table: table.clone(),
        ..hooks(&news)
    };
    let view = store.view().clone();
    let server = Server::telling(view, &[key(2).id()], ServeLimits::default(), hooks);
    let mut mirror = Follower::of(server.address);
    for n in 1..5 {
        mirror.holds(n).await;
        while told.recv().await.unwrap() < n {}
        let entries = store.view().totals().1;
        let follower = table.status(entries, 0).pop().unwrap();
        assert_eq!(follower.id, key(2).id());
        assert_eq!((follower.lag_entries, follower.connected), (0, true));
        assert_eq!(table.status(entries + 3, 0)[0].lag_entries, 3);
        append(&store, usize::try_from(n).unwrap());
        store.publish().unwrap();
    }
    mirror.stop().await.unwrap();
    server.stop().await;
    assert!(!table.status(0, 0)[0].connected);
}
