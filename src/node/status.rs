//! Layer 4. How a whole node stands: its own store, the origins it mirrors, and
//! who follows them.

use super::followers::FollowerStatus;
use super::gauge::{HeadFigures, OriginState, OriginStatus};
use crate::note::OriginName;
use crate::store::StoreRole;

/// A node at one moment.
#[derive(Clone, Debug, Default)]
pub struct NodeStatus {
    /// The store that is served and does not follow anybody: the own one, or a
    /// mirror.
    pub served: Option<ServedStatus>,
    /// Mirrored origins.
    pub origins: Vec<OriginStatus>,
    /// Followers, with the name of what they follow.
    pub followers: Vec<(OriginName, FollowerStatus)>,
}

/// A store that follows nobody, at one moment.
#[derive(Clone, Debug)]
pub struct ServedStatus {
    /// Own store or mirror.
    pub role: StoreRole,
    /// Whose history it is.
    pub origin: OriginName,
    /// The newest head.
    pub head: Option<HeadFigures>,
    /// Contexts, durable.
    pub contexts: u64,
    /// Entries, durable.
    pub entries: u64,
    /// Why it takes nothing any more.
    pub failure: Option<String>,
    /// Why it must not sign any more.
    pub frozen: Option<String>,
    /// That its origin has signed two histories, and nobody has said which is followed.
    pub fork: Option<String>,
}

impl NodeStatus {
    /// True if every mirrored origin is as it should be.
    #[must_use]
    pub fn origins_are_fine(&self) -> bool {
        !self.origins.iter().any(|origin| origin.state.is_alarm())
    }

    /// Says in the log which origins have changed their state since `before`.
    pub fn log_changes(&self, before: &Self) {
        for now in &self.origins {
            let was = before.origins.iter().find(|was| was.origin == now.origin);
            let was = was.map_or(OriginState::Behind, |was| was.state);
            if was != now.state {
                log_change(was, now);
            }
        }
    }
}

fn log_change(was: OriginState, now: &OriginStatus) {
    let origin = now.origin.as_str().escape_debug();
    let (state, was) = (now.state.name(), was.name());
    let order = now.complete.map(|head| head.order);
    let (term, epoch) = order.map_or((0, 0), |order| (order.term, order.epoch));
    let (lag_entries, lag_seconds) = (now.lag_entries, now.lag_seconds);
    let last_error = now.last_error.as_deref().unwrap_or_default().escape_debug();
    match now.state {
        OriginState::Synced | OriginState::Behind => tracing::info!(
            %origin, state, was, term, epoch, lag_entries, lag_seconds, %last_error,
            "origin state"
        ),
        OriginState::SourceBehind | OriginState::Stale => tracing::warn!(
            %origin, state, was, term, epoch, lag_entries, lag_seconds, %last_error,
            "origin state"
        ),
        _ => tracing::error!(
            %origin, state, was, term, epoch, lag_entries, lag_seconds, %last_error,
            "origin state"
        ),
    }
}
