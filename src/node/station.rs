//! Layer 4. A store that this process has open, and what goes on around it: the
//! listener that serves it to mirrors, and the task that keeps it up to date if
//! it is a mirror itself. Both are started again when they fail.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use quinn::Endpoint;
use tokio::sync::watch;
use tokio::time::Instant;

use super::allow::Allowlist;
use super::clock::now_ns;
use super::followers::FollowerTable;
use super::gauge::{HeadFigures, OriginGauge, OriginState};
use super::keep_up::{KeepUp, keep_up};
use super::mirror::CatchUpError;
use super::peer::Peer;
use super::quic::{EndpointError, listen};
use super::serve::{Hooks, News, ServeLimits, Shown, serve};
use super::status::{NodeStatus, ServedStatus};
use super::supervise::{Failure, supervise};
use super::tls::{NodeId, NodeKey};
use crate::head::SignedHead;
use crate::ledger::Ingest;
use crate::store::{
    Change, Followers, Listener, Store, StoreError, StoreOptions, StoreRole, Witness,
};
use crate::sync::{Report, contradiction};

/// Where mirrors are served, as whom, and which.
pub struct Door {
    address: SocketAddr,
    key: Arc<NodeKey>,
    allowed: Allowlist,
    /// Until it is used; it is bound again after a failure.
    endpoint: Option<Endpoint>,
}

impl Door {
    /// Takes the address. Port 0 takes a free one.
    pub fn open(
        address: SocketAddr,
        key: Arc<NodeKey>,
        allowed: Allowlist,
    ) -> Result<Self, EndpointError> {
        let endpoint = listen(address, &key, &allowed)?;
        let bound = endpoint.local_addr();
        let address = bound.map_err(|source| EndpointError::Socket { address, source })?;
        Ok(Self {
            address,
            key,
            allowed,
            endpoint: Some(endpoint),
        })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    fn endpoint(&mut self) -> Result<Endpoint, EndpointError> {
        match self.endpoint.take() {
            Some(endpoint) => Ok(endpoint),
            None => listen(self.address, &self.key, &self.allowed),
        }
    }
}

/// Hears of every sync that ended well.
pub type Synced = Arc<dyn Fn(&Peer, &Report) + Send + Sync>;

/// Where a mirror's history comes from.
#[derive(Clone)]
pub struct Upstream {
    /// What is believed, and from whom it is taken.
    pub config: KeepUp,
    /// Who this node is to its peers.
    pub key: Arc<NodeKey>,
    /// How it stands.
    pub gauge: OriginGauge,
    /// Hears of every sync that ended well.
    pub synced: Synced,
}

/// What has to be known before a store is opened: who hears of its heads.
pub struct Before {
    publish: watch::Sender<u64>,
    published: watch::Receiver<u64>,
    followers: Followers,
}

impl Default for Before {
    fn default() -> Self {
        let (publish, published) = watch::channel(0);
        Self {
            publish,
            published,
            followers: Followers::default(),
        }
    }
}

impl Before {
    /// Makes a store that is opened with `options` tell followers, and `also`.
    #[must_use]
    pub fn prepare(self, options: &mut StoreOptions, also: Option<Listener>) -> News {
        let publish = self.publish;
        options.followers = Some(self.followers.clone());
        options.listener = Some(Listener(Arc::new(move |change: Change<'_>| {
            if matches!(change, Change::Head) {
                publish.send_modify(|heads| *heads = heads.wrapping_add(1));
            }
            if let Some(also) = &also {
                (also.0)(change);
            }
        })));
        News {
            published: self.published,
            followers: self.followers,
        }
    }
}

/// A store and what goes on around it.
pub struct Station {
    /// The store.
    pub store: Store,
    /// Where mirrors of it are served, if they are.
    pub door: Option<Door>,
    /// What its followers are told from.
    pub news: News,
    /// Who follows.
    pub table: FollowerTable,
    /// Where it comes from, if it is a mirror that follows.
    pub upstream: Option<Upstream>,
}

/// What a station shows of itself, also while it runs.
#[derive(Clone)]
pub struct StationView {
    store: Store,
    table: FollowerTable,
    allowed: Option<Allowlist>,
    gauge: Option<OriginGauge>,
}

impl Station {
    /// What it shows of itself.
    #[must_use]
    pub fn view(&self) -> StationView {
        StationView {
            store: self.store.clone(),
            table: self.table.clone(),
            allowed: self.door.as_ref().map(|door| door.allowed.clone()),
            gauge: self
                .upstream
                .as_ref()
                .map(|upstream| upstream.gauge.clone()),
        }
    }

    /// Serves and follows until `stop` says so.
    pub async fn run(self, stop: watch::Receiver<bool>) {
        let Self {
            store,
            door,
            news,
            table,
            upstream,
        } = self;
        let name = store
            .view()
            .origin()
            .name()
            .as_str()
            .escape_debug()
            .to_string();
        let serving = async {
            let Some(door) = door else { return };
            let hooks = Hooks {
                shown: Some(shown_to(&store)),
                acknowledged: Some(acknowledged_to(&store, &table)),
                news: Some(news),
                table: table.clone(),
            };
            let name = format!("listener of {name}");
            keep_open(&name, door, &store, &hooks, &stop).await;
        };
        let following = async {
            let Some(upstream) = upstream else { return };
            let name = format!("mirror of {name}");
            keep_following(&name, &upstream, &store, &stop).await;
        };
        tokio::join!(serving, following);
    }
}

/// Ends when `stop` says so, or nobody is left to say it.
pub async fn stopped(mut stop: watch::Receiver<bool>) {
    _ = stop.wait_for(|stop| *stop).await;
}

#[derive(Debug, thiserror::Error)]
enum DoorError {
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    #[error("the endpoint ended")]
    Ended,
}

async fn keep_open(
    name: &str,
    mut door: Door,
    store: &Store,
    hooks: &Hooks,
    stop: &watch::Receiver<bool>,
) {
    let start = || {
        let endpoint = door.endpoint();
        let (allowed, hooks) = (door.allowed.clone(), hooks.clone());
        let (ledger, stop) = (Arc::new(store.view().clone()), stop.clone());
        async move {
            let doors = (endpoint?, allowed);
            let until = stopped(stop.clone());
            serve(doors, ledger, ServeLimits::default(), hooks, until).await;
            if *stop.borrow() {
                return Ok(());
            }
            Err(DoorError::Ended)
        }
    };
    supervise(name, stop.clone(), start, |_: &Failure<DoorError>| ()).await;
}

async fn keep_following(
    name: &str,
    upstream: &Upstream,
    store: &Store,
    stop: &watch::Receiver<bool>,
) {
    let start = || {
        let (upstream, store, stop) = (upstream.clone(), Arc::new(store.clone()), stop.clone());
        async move {
            let Upstream {
                config,
                key,
                gauge,
                synced,
            } = upstream;
            let done = |peer: &Peer, report: &Report| synced(peer, report);
            keep_up(key, store, &config, &gauge, done, stopped(stop)).await
        }
    };
    let failed = |failure: &Failure<CatchUpError>| match failure {
        Failure::Error(error) => upstream.gauge.stopped(error),
        Failure::Panic(_) => upstream.gauge.crashed(failure),
    };
    supervise(name, stop.clone(), start, failed).await;
}

/// Whatever note a node shows is held against an own store: one that is ahead of
/// it freezes it. A mirror looks whether it contradicts what it holds.
fn shown_to(store: &Store) -> Shown {
    let store = store.clone();
    if store.view().role() == StoreRole::Mirror {
        return Arc::new(move |peer: &NodeId, note: &[u8]| {
            let view = store.view();
            // Cheap, and enough for nearly all: what comes next reads much.
            match view.says_otherwise(note) {
                Ok(true) => (),
                Ok(false) => return,
                Err(error) => {
                    tracing::warn!(%peer, %error, "a node's note could not be judged");
                    return;
                }
            }
            if let Some(evidence) = contradiction(view, note) {
                tracing::error!(%peer, "a node showed that the origin signed two histories");
                let stored = |outcome: Result<(), StoreError>| {
                    if let Err(error) = outcome {
                        tracing::error!(%error, "evidence was not stored");
                    }
                };
                store.ingest(Ingest::Evidence(evidence), Box::new(stored));
            }
        });
    }
    Arc::new(
        move |peer: &NodeId, note: &[u8]| match store.witness(&[note.to_vec()]) {
            Ok(Witness::Known) => (),
            Ok(Witness::NotOurs) => tracing::warn!(%peer, "a node showed a note of another key"),
            Ok(Witness::Frozen) => tracing::error!(%peer, "a node showed what freezes the store"),
            Err(error) => tracing::warn!(%peer, %error, "a node's note could not be judged"),
        },
    )
}

/// Writes down what followers say is complete with them, if the origin has
/// signed it.
fn acknowledged_to(store: &Store, table: &FollowerTable) -> Shown {
    let (view, table) = (store.view().clone(), table.clone());
    Arc::new(move |peer: &NodeId, note: &[u8]| {
        // One of an earlier key says too little, and a newer one comes soon.
        if let Ok(head) = SignedHead::open(note, &view.origin()) {
            table.acknowledged(peer, HeadFigures::from(&head));
        }
    })
}

/// How a node with these stores stands now, and with these origins of which it
/// has none.
#[must_use]
pub fn node_status(stations: &[StationView], broken: &[OriginGauge]) -> NodeStatus {
    let (now, now_ns) = (Instant::now(), now_ns());
    let mut status = NodeStatus::default();
    status
        .origins
        .extend(broken.iter().map(|gauge| gauge.status(now, now_ns)));
    for station in stations {
        let view = station.store.view();
        let origin = view.origin().name().clone();
        let (contexts, entries) = view.totals();
        if let Some(gauge) = &station.gauge {
            let mut mirror = gauge.status(now, now_ns);
            // Also if nobody has been synced with since.
            if let Some(fork) = view.fork().filter(|fork| !fork.resolved) {
                mirror.state = OriginState::Forked;
                mirror.last_error = Some(fork.verdict);
            }
            status.origins.push(mirror);
        } else {
            status.served = Some(ServedStatus {
                role: view.role(),
                origin: origin.clone(),
                head: view.head().as_ref().map(HeadFigures::from),
                contexts,
                entries,
                failure: station.store.failure().map(str::to_owned),
                frozen: station.store.frozen().map(|frozen| frozen.to_string()),
                fork: view
                    .fork()
                    .filter(|fork| !fork.resolved)
                    .map(|fork| fork.verdict),
            });
        }
        let followers = station.table.status(entries, now_ns).into_iter();
        // Who was taken off the list follows no more.
        let allowed = |id: &NodeId| station.allowed.as_ref().is_some_and(|list| list.allows(id));
        let followers = followers.filter(|follower| allowed(&follower.id));
        status
            .followers
            .extend(followers.map(|each| (origin.clone(), each)));
    }
    status
}

impl fmt::Debug for Station {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Station")
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}
