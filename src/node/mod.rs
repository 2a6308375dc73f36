//! Layer 4. The node: drives the engines of [`crate::sync`] over QUIC.
//!
//! * `tls`: who may talk to whom;
//! * `quic`: the endpoint, its limits and close codes;
//! * `allow`: which nodes may connect;
//! * `serve`: answers mirrors from a ledger;
//! * `mirror`: catches a store up with a source;
//! * `follow`: goes on catching up as the source tells new heads;
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
pub mod clock;
mod drive;
mod follow;
mod frames;
pub mod mirror;
pub mod quic;
pub mod serve;
pub mod tls;

pub use allow::{ALLOWED_NODES_MAX, Allowlist, TooManyNodes};
pub use ask::ask_head;
pub use audit::{RemoteAudit, RemoteAuditOptions, audit_remote};
pub use follow::follow;
pub use mirror::{CatchUp, CatchUpError, Progress, catch_up};
pub use quic::{CloseCode, EndpointError, client, listen};
pub use serve::{Hooks, News, ServeLimits, Shown, serve};
pub use tls::{NodeId, NodeKey};

#[cfg(test)]
mod tests;
