//! Layer 4. The node: drives the engines of [`crate::sync`] over QUIC.
//!
//! * `tls`: who may talk to whom;
//! * `quic`: the endpoint, its limits and close codes;
//! * `allow`: which nodes may connect;
//! * `serve`: answers mirrors from a ledger;
//! * `mirror`: catches a store up with a source;
//! * `peer`: whom to call, and where;
//! * `link`: one peer of an origin, connected as long as it can be;
//! * `keep_up`: follows an origin through any of its peers;
//! * `gauge`: how a mirrored origin stands;
//! * `followers`: who follows this node, and how far each is;
//! * `status`, `metrics`: how the whole node stands, and the same for Prometheus;
//! * `quota`, `pace`: what an origin may take, and what a peer may ask;
//! * `station`: a store, and the tasks around it;
//! * `supervise`: starts again what has failed;
//! * `backoff`: waits before something is tried again;
//! * `audit`: verifies all a source shows, or some of it, and stores nothing;
//! * `ask`: asks a node for its newest notes;
//! * `drive`: what runs an engine against a source;
//! * `frames`: whole frames on a stream, with deadlines;
//! * `archives`: snapshots of a store written out and read in;
//! * `clock`: the only place that reads time.
//!
//! No policy here: whom to serve, what to follow and how often is decided by
//! the caller. Reads of a ledger block and run on blocking threads.

mod allow;
pub mod archives;
mod ask;
pub mod audit;
mod backoff;
pub mod clock;
mod drive;
mod followers;
mod frames;
mod gauge;
mod keep_up;
mod link;
pub mod metrics;
pub mod mirror;
mod pace;
mod peer;
pub mod quic;
mod quota;
pub mod serve;
mod station;
mod status;
mod supervise;
pub mod tls;

pub use allow::{ALLOWED_NODES_MAX, Allowlist, TooManyNodes};
pub use ask::ask_head;
pub use audit::{RemoteAudit, RemoteAuditOptions, audit_remote};
pub use followers::{FollowerStatus, FollowerTable};
pub use gauge::{HeadFigures, Held, OriginGauge, OriginState, OriginStatus, PeerStatus};
pub use keep_up::{Allowed, KeepUp, Waiting, keep_up};
pub use metrics::serve_metrics;
pub use mirror::{CatchUp, CatchUpError, Progress, Target, Turn, catch_up};
pub use peer::{PEERS_MAX, Peer, PeerError};
pub use quic::{CloseCode, EndpointError, any_address, client, listen};
pub use quota::{Meter, Quota};
pub use serve::{Hooks, News, ServeLimits, Shown, serve};
pub use station::{Before, Door, Station, StationView, Synced, Upstream, node_status, stopped};
pub use status::{NodeStatus, ServedStatus};
pub use supervise::{Failure, supervise};
pub use tls::{NodeId, NodeKey};

#[cfg(test)]
mod tests;
