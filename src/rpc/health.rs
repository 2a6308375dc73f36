//! Layer 4. What health says, and when it changes.
//!
//! | name | SERVING while |
//! |---|---|
//! | `""` and the services | the own store works; without one, while any mirror does |
//! | `converge.ledger.v1.Origin` | no origin has signed two histories without an operator having said which is followed, and nothing else is said against one ([`Places::with_origins_ok`]) |
//!
//! [`Places::with_origins_ok`]: super::places::Places::with_origins_ok

use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};
use tonic::server::NamedService;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use super::hub::Phase;
use super::inspect::Inspect;
use super::places::Places;
use super::proto::context::context_service_server::ContextServiceServer;
use super::proto::inspect::inspect_service_server::InspectServiceServer;
use super::service::Service;

/// How often to look at the stores; their listeners are quicker.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The names that are about the server and its store, "" for all of it.
const SERVICES: [&str; 3] = [
    "",
    <ContextServiceServer<Service> as NamedService>::NAME,
    <InspectServiceServer<Inspect> as NamedService>::NAME,
];
/// The name that is about the histories. What is served goes on either way.
const ORIGIN: &str = "converge.ledger.v1.Origin";

/// See the module.
pub(super) struct Health {
    reporter: HealthReporter,
    /// What was said last: of the services, of the origins.
    told: [Option<bool>; 2],
    origins_ok: Option<watch::Receiver<bool>>,
}

impl Health {
    pub(super) fn new(reporter: HealthReporter, places: &Places) -> Self {
        Self {
            reporter,
            told: [None; 2],
            origins_ok: places.origins_ok(),
        }
    }

    /// Looks, and says what is new.
    pub(super) async fn look(&mut self, places: &Places) {
        // All of them: watchers of each are to hear of it.
        let working = places.all().iter().filter(|place| place.works()).count();
        let serving = places.own().map_or(working > 0, |own| own.works());
        let said_ok = self
            .origins_ok
            .as_mut()
            .is_none_or(|ok| *ok.borrow_and_update());
        let forked = places.all().iter().any(|place| place.is_forked());
        self.say(serving, said_ok && !forked).await;
    }

    /// Goes on looking. Never ends.
    pub(super) async fn follow(&mut self, places: &Places) {
        // At most one for each place.
        let mut failing = JoinSet::new();
        for place in places.all() {
            let mut phases = place.hub().phases();
            failing.spawn(async move {
                _ = phases.wait_for(|phase| *phase != Phase::Serving).await;
            });
        }
        let mut tick = interval(LOOK_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = tick.tick() => (),
                Some(_) = failing.join_next() => (),
                true = changed(self.origins_ok.as_mut()) => (),
            }
            self.look(places).await;
        }
    }

    /// Says that nothing is served any more.
    pub(super) async fn close(&mut self) {
        self.say(false, false).await;
    }

    async fn say(&mut self, serving: bool, origins: bool) {
        let now = [Some(serving), Some(origins)];
        let before = std::mem::replace(&mut self.told, now);
        let names = [&SERVICES[..], &[ORIGIN]];
        for ((names, now), before) in names.into_iter().zip(now).zip(before) {
            // Who watches health hears of changes only.
            if now == before {
                continue;
            }
            let status = match now {
                Some(true) => ServingStatus::Serving,
                _ => ServingStatus::NotServing,
            };
            for name in names {
                self.reporter.set_service_status(name, status).await;
            }
        }
    }
}

/// Waits for another word on the origins; `false` when there will be none.
async fn changed(origins_ok: Option<&mut watch::Receiver<bool>>) -> bool {
    match origins_ok {
        Some(ok) => ok.changed().await.is_ok(),
        None => false,
    }
}
