//! The stores that `serve` has open: its own or one mirror (`--data`), and the
//! mirrors of `--mirror`, each with what goes on around it.

use std::collections::BTreeSet;
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
    self, Before, Door, Failure, FollowerTable, Held, KeepUp, Meter, NodeKey, OriginGauge, Station,
    StationView, Turn, Upstream, Waiting, node_status, stopped, supervise,
};
use crate::note::OriginName;
use crate::rpc;
use crate::store::{Store, StoreRole};

/// A head is published this long after the one before it, if anything changed.
const HEAD_EVERY: Duration = Duration::from_secs(1);
/// A head is published after this long in any case.
const HEARTBEAT_EVERY: Duration = Duration::from_mins(1);

/// Why a mirror is not opened.
enum TryError {
    /// Its address cannot be had: the operator has to choose another.
    Listen(CliError),
    /// Its store cannot be used.
    Store(CliError),
}

/// Stores that are open, and what belongs to them.
#[derive(Default)]
pub(super) struct Places {
    stations: Vec<Station>,
    views: Vec<StationView>,
    rooms: Vec<rpc::Place>,
    allowed: Vec<Allowed>,
    directories: Vec<PathBuf>,
    /// Origins whose store could not be opened.
    broken: Vec<(OriginName, OriginGauge)>,
    /// Why the first of them could not.
    first_error: Option<CliError>,
    /// All origins that are held, or should be.
    origins: BTreeSet<OriginName>,
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
        let store = data.open_when_free(&options)?;
        self.origins.insert(store.view().origin().name().clone());
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
    pub(super) fn open_mirror(&mut self, config: &MirrorConfig) -> Result<(), CliError> {
        let origin = config.origin.name();
        if !self.origins.insert(origin.clone()) {
            let origin = escape(origin.as_str());
            let message = format_args!("{origin} is in two places: one process has one of them");
            return Err(CliError::usage(message));
        }
        let listen = match config.listen {
            None => None,
            Some(address) => {
                let allowed = Allowed::read(config.allow.clone(), config.allow_file.clone())?;
                Some((address, allowed))
            }
        };
        match self.try_mirror(config, listen) {
            Ok(()) => Ok(()),
            Err(TryError::Listen(error)) => Err(error),
            Err(TryError::Store(error)) => {
                let broken = config.gauge(&Held::default());
                let text = error.message().unwrap_or_default().to_owned();
                let origin = escape(origin.as_str());
                tracing::error!(
                    %origin, error = text,
                    "a mirror cannot be opened; the rest goes on without it until the next start"
                );
                broken.crashed(&text);
                self.broken.push((config.origin.name().clone(), broken));
                self.first_error.get_or_insert(error);
                Ok(())
            }
        }
    }

    fn try_mirror(
        &mut self,
        config: &MirrorConfig,
        listen: Option<(SocketAddr, Allowed)>,
    ) -> Result<(), TryError> {
        let data = DataDir::new(Some(config.data.clone()), GuardArguments::default());
        let data = data.map_err(TryError::Store)?;
        let name = escape(config.origin.name().as_str());
        let key = mirror::prepare(&data, &config.origin).map_err(TryError::Store)?;
        let key = Arc::new(key);
        tracing::info!(origin = %name, node = %key.id(), directory = %data.shown(), "mirror");
        let room = rpc::Opening::new();
        let mut options = options();
        let news = Before::default().prepare(&mut options, Some(room.listener()));
        let store = data.open_when_free(&options).map_err(TryError::Store)?;
        let held = Held::of(store.view());
        let held = held.map_err(|error| TryError::Store(data.named(error)))?;
        let listen = listen.map(|listen| (listen, Arc::clone(&key)));
        let door = self.door(Some(name), listen).map_err(TryError::Listen)?;
        let meter = Meter::new(config.quota, config.data.clone());
        let view = store.view().clone();
        let keep_up = KeepUp {
            origin: config.origin.clone(),
            peers: config.peers.clone(),
            allowed: Arc::new(move || meter.allowed(view.held_entries())),
            waiting: Waiting::default(),
            turn: Turn::default(),
        };
        self.rooms.push(room.with(store.clone()));
        self.directories.push(config.data.clone());
        self.add(Station {
            store,
            door,
            news,
            table: FollowerTable::default(),
            upstream: Some(Upstream {
                config: keep_up,
                key,
                gauge: config.gauge(&held),
                synced: Arc::new(|_, _| ()),
            }),
        });
        Ok(())
    }

    /// Why there is nothing at all to serve, if there is not.
    pub(super) fn check(&mut self) -> Result<(), CliError> {
        match self.first_error.take() {
            Some(error) if self.stations.is_empty() => Err(error),
            _ => Ok(()),
        }
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
        let views = self.views.clone();
        let broken: Vec<_> = self.broken.iter().map(|(_, gauge)| gauge.clone()).collect();
        Arc::new(move || node_status(&views, &broken))
    }

    /// The stores as the API serves them, and the origins that it should.
    pub(super) fn split(self) -> (Vec<Station>, Vec<Allowed>, Vec<rpc::Place>, Vec<OriginName>) {
        let missing = self.broken.into_iter().map(|(origin, _)| origin);
        (self.stations, self.allowed, self.rooms, missing.collect())
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
