//! Sources and mirrors in this process, over real QUIC; their stores are in
//! memory.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use converge_ledger::entry::{ContextId, Draft};
use converge_ledger::ledger::ReadLedger;
use converge_ledger::node::clock::SystemClock;
use converge_ledger::node::{
    Allowlist, Before, CatchUp, CatchUpError, Hooks, KeepUp, News, NodeKey, OriginGauge,
    OriginStatus, Peer, ServeLimits, Waiting, catch_up, client, keep_up, listen, serve, tls,
};
use converge_ledger::note::{OriginName, SignerKey, VerifierKey};
use converge_ledger::store::disk::MemoryDisk;
use converge_ledger::store::{Store, StoreOptions, StoreRole, create};
use converge_ledger::sync::{MirrorLimits, Report};
use quinn::{Endpoint, IdleTimeout, VarInt};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use crate::relay::{Dice, LOCALHOST};

/// Nothing that a test waits for takes nearly as long.
pub(crate) const DEADLINE: Duration = Duration::from_mins(2);
/// How often a condition is looked at that nobody tells of.
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// The idle timeout of a source in a hurry; its askers have to accept it.
pub(crate) const IDLE_TIMEOUT_MS: u32 = 1500;
const KEEP_ALIVE: Duration = Duration::from_millis(300);
/// What entries of these tests have at most without being outside their run.
const INLINE_BYTES: usize = 3000;
const OUTSIDE_BYTES: usize = 100_000;
/// Contexts of a store, each of which can be asked for at the same time.
pub(crate) const CONTEXTS: usize = 12;

/// The source's node key is 1, mirrors' are 2 and up.
pub(crate) fn key(n: u8) -> NodeKey {
    NodeKey::from_seed([n; 32])
}

pub(crate) fn signer() -> SignerKey {
    SignerKey::from_seed(OriginName::new("net.test").unwrap(), &[7; 32])
}

fn open(role: StoreRole, origin: &VerifierKey) -> (Store, News) {
    let disk = Arc::new(MemoryDisk::new());
    create(&*disk, role, origin).unwrap();
    let mut options = StoreOptions::new(Arc::new(SystemClock));
    let news = Before::default().prepare(&mut options, None);
    let own = (role == StoreRole::Own).then(signer);
    (Store::open(disk, options, own).unwrap().store, news)
}

/// An own store that publishes heads while somebody follows.
pub(crate) fn source() -> (Store, News) {
    open(StoreRole::Own, signer().verifier())
}

pub(crate) fn mirror() -> (Store, News) {
    mirror_of(signer().verifier())
}

pub(crate) fn mirror_of(origin: &VerifierKey) -> (Store, News) {
    open(StoreRole::Mirror, origin)
}

/// Entries of about so many bytes in all, most of them small, some with
/// payloads outside their runs, and a head over them.
pub(crate) fn fill(store: &Store, bytes: usize, seed: u64) {
    fill_with(store, bytes, seed, OUTSIDE_BYTES);
}

/// The same, with nothing outside the runs.
pub(crate) fn fill_inline(store: &Store, bytes: usize, seed: u64) {
    fill_with(store, bytes, seed, INLINE_BYTES);
}

fn fill_with(store: &Store, bytes: usize, seed: u64, largest_bytes: usize) {
    let mut dice = Dice::new(seed);
    let mut left = bytes;
    while left > 0 {
        let mut drafts = Vec::new();
        for _ in 0..200 {
            let context = format!("context {}", dice.below(CONTEXTS));
            let len = match dice.below(100) {
                0 => largest_bytes,
                _ => dice.below(INLINE_BYTES),
            };
            // Random, so that no two payloads are one.
            let mut payload: Vec<u8> = Vec::with_capacity(len + 8);
            while payload.len() < len {
                payload.extend_from_slice(&dice.next().to_le_bytes());
            }
            left = left.saturating_sub(payload.len());
            drafts.push((
                ContextId::new(&context).unwrap(),
                Draft::new("key", payload).unwrap(),
            ));
            if left == 0 {
                break;
            }
        }
        store.append(drafts).unwrap();
    }
    store.publish().unwrap();
}

/// Both hold the same, as far as the mirror's newest head says, and all of it is
/// sound.
#[track_caller]
pub(crate) fn assert_equal(mirror: &Store, source: &Store) {
    let (held, shown) = (mirror.view().head().unwrap(), source.view().head().unwrap());
    assert_eq!(held.note_bytes(), shown.note_bytes());
    assert_eq!(
        mirror.view().contexts(None, usize::MAX).unwrap(),
        source.view().contexts(None, usize::MAX).unwrap()
    );
}

pub(crate) fn hooks(news: &News) -> Hooks {
    Hooks {
        news: Some(news.clone()),
        ..Hooks::default()
    }
}

/// How patient the connections of a source are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// As always.
    Usual,
    /// Idle connections end after [`IDLE_TIMEOUT_MS`].
    Short,
}

/// What serves a ledger.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) endpoint: Endpoint,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Server {
    pub(crate) fn new<L: ReadLedger + 'static>(
        ledger: L,
        me: u8,
        hooks: Hooks,
        patience: Patience,
    ) -> Self {
        let allowed = Allowlist::new((2..40).map(|n| key(n).id())).unwrap();
        let key = key(me);
        let endpoint = listen(LOCALHOST, &key, &allowed).unwrap();
        if patience == Patience::Short {
            let crypto = tls::server_config(&key, allowed.clone()).unwrap();
            let mut config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
            let mut transport = quinn::TransportConfig::default();
            let idle = IdleTimeout::from(VarInt::from_u32(IDLE_TIMEOUT_MS));
            transport
                .max_idle_timeout(Some(idle))
                .keep_alive_interval(Some(KEEP_ALIVE));
            config.transport_config(Arc::new(transport));
            endpoint.set_server_config(Some(config));
        }
        let address = endpoint.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let until = async { _ = stopped.await };
        let (ledger, limits) = (Arc::new(ledger), ServeLimits::default());
        let doors = (endpoint.clone(), allowed);
        let task = tokio::spawn(serve(doors, ledger, limits, hooks, until));
        Self {
            address,
            endpoint,
            stop: Some(stop),
            task,
        }
    }

    /// Serves a store and tells its heads.
    pub(crate) fn of(store: &Store, news: &News, me: u8, patience: Patience) -> Self {
        Self::new(store.view().clone(), me, hooks(news), patience)
    }

    pub(crate) async fn stop(mut self) {
        drop(self.stop.take());
        self.task.await.unwrap();
    }
}

/// One sync of node 2 with the source at `address`.
pub(crate) async fn pull(store: &Store, address: SocketAddr) -> Result<Report, CatchUpError> {
    let config = CatchUp::new(address, key(1).id(), signer().verifier().clone());
    pull_as(store, &config).await
}

pub(crate) async fn pull_as(store: &Store, config: &CatchUp) -> Result<Report, CatchUpError> {
    let (endpoint, me) = (client(LOCALHOST).unwrap(), key(2));
    let store = Arc::new(store.clone());
    let pulled = catch_up(&endpoint, &me, store, config, |_| ());
    timeout(DEADLINE, pulled).await.expect("a sync in time")
}

pub(crate) fn peer(node: u8, address: SocketAddr) -> Peer {
    format!("{}@{address}", key(node).id()).parse().unwrap()
}

/// A mirror that keeps up.
pub(crate) struct Follower {
    pub(crate) store: Store,
    pub(crate) news: News,
    pub(crate) reports: mpsc::UnboundedReceiver<Report>,
    gauge: OriginGauge,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<Result<(), CatchUpError>>,
}

impl Follower {
    /// Node `me`, whose frames have to come within `frame_deadline`.
    pub(crate) fn new(me: u8, peers: Vec<Peer>, frame_deadline: Duration) -> Self {
        let (store, news) = mirror();
        let (tell, reports) = mpsc::unbounded_channel();
        let (stop, stopped) = oneshot::channel::<()>();
        let origin = signer().verifier().clone();
        let gauge = OriginGauge::new(origin.name().clone(), &peers, None, DEADLINE, None);
        let config = KeepUp {
            origin,
            peers,
            allowed: Arc::new(|| Ok(MirrorLimits::default())),
            waiting: Waiting {
                connect_deadline: frame_deadline,
                frame_deadline,
                ..Waiting::default()
            },
        };
        let (mirror, shown) = (Arc::new(store.clone()), gauge.clone());
        let task = tokio::spawn(async move {
            let done = |_: &Peer, report: &Report| _ = tell.send(report.clone());
            let until = async { _ = stopped.await };
            keep_up(Arc::new(key(me)), mirror, &config, &shown, done, until).await
        });
        Self {
            store,
            news,
            reports,
            gauge,
            stop: Some(stop),
            task,
        }
    }

    pub(crate) fn status(&self) -> OriginStatus {
        self.gauge.status(Instant::now(), 0)
    }

    /// Waits until the store holds what the source has published.
    pub(crate) async fn equals(&mut self, source: &Store) {
        let shown = source.view().head().unwrap();
        let waiting = async {
            while self
                .store
                .view()
                .head()
                .is_none_or(|head| head.order() < shown.order())
            {
                self.reports.recv().await.expect("it goes on");
            }
        };
        let waited = timeout(DEADLINE, waiting).await;
        assert!(waited.is_ok(), "not equal in time: {:?}", self.status());
        assert_equal(&self.store, source);
    }

    /// Waits until something is true of how it stands.
    pub(crate) async fn until(&self, what: &str, is: impl Fn(&OriginStatus) -> bool) {
        let begun = Instant::now();
        while !is(&self.status()) {
            assert!(begun.elapsed() < DEADLINE, "{what}: {:?}", self.status());
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    pub(crate) async fn stop(mut self) {
        drop(self.stop.take());
        self.task.await.unwrap().unwrap();
    }
}
