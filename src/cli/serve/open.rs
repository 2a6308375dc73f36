//! The stores that `serve` has open: its own or one mirror (`--data`), and the
//! mirrors of `--mirror`, each with what goes on around it.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::allow::Allowed;
use super::config::MirrorConfig;
use crate::cli::data::{DataDir, options};
use crate::cli::error::CliError;
use crate::cli::guard::GuardArguments;
use crate::cli::mirror;
use crate::cli::output::escape;
use crate::node::metrics::Status;
use crate::node::{
    self, Before, Door, Failure, FollowerTable, KeepUp, Meter, NodeKey, OriginGauge, Station,
    StationView, Turn, Upstream, Waiting, node_status, stopped, supervise,
};
use crate::rpc;
use crate::store::{Store, StoreRole};

/// A head is published this long after the one before it, if anything changed.
const HEAD_EVERY: Duration = Duration::from_secs(1);
/// A head is published after this long in any case.
const HEARTBEAT_EVERY: Duration = Duration::from_mins(1);

/// Stores that are open, and what belongs to them.
#[derive(Default)]
pub(super) struct Places {
    stations: Vec<Station>,
    views: Vec<StationView>,
    rooms: Vec<rpc::Place>,
    allowed: Vec<Allowed>,
    directories: Vec<PathBuf>,
    /// Origins whose store could not be opened.
    broken: Vec<OriginGauge>,
    /// Where what is served, the origin's name for a mirror of `--mirror`.
    addresses: Vec<(Option<String>, SocketAddr)>,
}

impl Places {
    /// Opens the store of `--data`.
    pub(super) fn open_served(
        &mut self,
        data: &DataDir,
        listen: Option<(SocketAddr, Allowed)>,
    ) -> Result<(), CliError> {
        let key = listen.is_some().then(|| data.node_key(false)).transpose()?;
        let door = self.door(None, listen.zip(key.map(Arc::new)))?;
        let before = Before::default();
        let room = rpc::Opening::new();
        let mut options = options();
        options.head_every = Some(HEAD_EVERY);
        options.heartbeat_every = Some(HEARTBEAT_EVERY);
        let news = before.prepare(&mut options, Some(room.listener()));
        let store = data.open(options)?;
        self.rooms.push(room.with(store.clone()));
        self.directories.push(data.path().to_owned());
        self.add(Station {
            store,
            door,
            news,
            table: FollowerTable::default(),
            upstream: None,
        });
        Ok(())
    }

    /// Opens, or makes, the store of a mirror. One that cannot be opened keeps
    /// the others from nothing.
    pub(super) fn open_mirror(&mut self, config: MirrorConfig) -> Result<(), CliError> {
        let data = DataDir::new(Some(config.data.clone()), GuardArguments::default())?;
        let name = escape(config.origin.name().as_str());
        let key = Arc::new(mirror::prepare(&data, &config.origin)?);
        tracing::info!(origin = %name, node = %key.id(), directory = %data.shown(), "mirror");
        let listen = match config.listen {
            None => None,
            Some(address) => {
                let allowed = Allowed::read(config.allow.clone(), config.allow_file.clone())?;
                Some((address, allowed))
            }
        };
        let door = self.door(Some(name), listen.zip(Some(Arc::clone(&key))))?;
        let before = Before::default();
        let room = rpc::Opening::new();
        let mut options = options();
        let news = before.prepare(&mut options, Some(room.listener()));
        let gauge = |store: Option<&Store>| {
            let head = store.and_then(|store| store.view().head());
            let (peers, origin) = (&config.peers, config.origin.name().clone());
            OriginGauge::new(
                origin,
                peers,
                config.own_node,
                config.stale_after,
                head.as_ref(),
            )
        };
        let store = match data.open(options) {
            Ok(store) => store,
            Err(error) => {
                let text = error.message().unwrap_or_default();
                let origin = escape(config.origin.name().as_str());
                tracing::error!(%origin, error = text, "a mirror cannot be opened; the rest goes on without it");
                let broken = gauge(None);
                broken.crashed(&text);
                self.broken.push(broken);
                return Ok(());
            }
        };
        let gauge = gauge(Some(&store));
        let meter = Meter::new(config.quota, config.data.clone());
        let view = store.view().clone();
        let keep_up = KeepUp {
            origin: config.origin,
            peers: config.peers,
            allowed: Arc::new(move || meter.allowed(view.held_entries())),
            waiting: Waiting::default(),
            turn: Turn::default(),
        };
        self.rooms.push(room.with(store.clone()));
        self.directories.push(config.data);
        self.add(Station {
            store,
            door,
            news,
            table: FollowerTable::default(),
            upstream: Some(Upstream {
                config: keep_up,
                key,
                gauge,
                synced: Arc::new(|_, _| ()),
            }),
        });
        Ok(())
    }

    fn door(
        &mut self,
        origin: Option<String>,
        listen: Option<((SocketAddr, Allowed), Arc<NodeKey>)>,
    ) -> Result<Option<Door>, CliError> {
        let Some(((address, allowed), key)) = listen else {
            return Ok(None);
        };
        if allowed.list().is_empty() {
            tracing::warn!(%address, "no node key is allowed: nobody may mirror (--allow, --allow-file)");
        }
        let door = Door::open(address, key, allowed.list().clone())?;
        self.addresses.push((origin, door.address()));
        self.allowed.push(allowed);
        Ok(Some(door))
    }

    fn add(&mut self, station: Station) {
        self.views.push(station.view());
        self.stations.push(station);
    }

    /// The own store, if one is open.
    pub(super) fn own(&self) -> Option<&Store> {
        let mut stores = self.stations.iter().map(|station| &station.store);
        stores.find(|store| store.view().role() == StoreRole::Own)
    }

    /// All stores.
    pub(super) fn stores(&self) -> Vec<Store> {
        self.stations
            .iter()
            .map(|station| station.store.clone())
            .collect()
    }

    /// How many origins are mirrored.
    pub(super) fn origins(&self) -> usize {
        let follows = |station: &&Station| station.upstream.is_some();
        self.stations.iter().filter(follows).count() + self.broken.len()
    }

    pub(super) fn directories(&self) -> Vec<PathBuf> {
        self.directories.clone()
    }

    pub(super) fn addresses(&self) -> impl Iterator<Item = (Option<&str>, SocketAddr)> {
        let addresses = self.addresses.iter();
        addresses.map(|(origin, address)| (origin.as_deref(), *address))
    }

    /// Says how the node stands.
    pub(super) fn status(&self) -> Status {
        let (views, broken) = (self.views.clone(), self.broken.clone());
        Arc::new(move || node_status(&views, &broken))
    }

    pub(super) fn split(self) -> (Vec<Station>, Vec<Allowed>, Vec<rpc::Place>) {
        (self.stations, self.allowed, self.rooms)
    }
}

/// Serves figures, again after a failure.
pub(super) async fn serve_metrics(
    listener: TcpListener,
    status: Status,
    stop: watch::Receiver<bool>,
) {
    let start = || {
        // The socket stays bound over failures.
        let listener = listener.try_clone();
        let (status, stop) = (Arc::clone(&status), stop.clone());
        async move {
            let listener = tokio::net::TcpListener::from_std(listener?)?;
            node::serve_metrics(listener, status, stopped(stop)).await
        }
    };
    let ignore = |_: &Failure<std::io::Error>| ();
    supervise("metrics", stop.clone(), start, ignore).await;
}
