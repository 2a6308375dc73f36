//! Layer 3. Replication without a network: a source that answers and a mirror
//! that catches up, both as state machines (`spec/07-sync.md`).
//!
//! **Trust.** A mirror believes one key, the origin's. Whatever peer it pulls
//! from only carries bytes: a head counts by its signature, a directory node
//! by its hash, a run by the signed root it folds into, a payload by the hash
//! in a header under that root. Nothing is handed to the store before that.
//! A source believes nobody and remembers nothing between requests.
//!
//! ```text
//!  Idle -> Head -> Diff -> Fetch -> Completing -> Ended (Done)
//!            |      |         |
//!            |      |         +-> Accusing   a run does not fold: a consistency
//!            |      |                |       proof tells who lied
//!            |      +----------------+-> Tracing -> Ended (Fail)
//!            +-> Older -+-----------------^  the paths that prove it
//!            |          |
//!            +----------+-> Ended (nothing, behind, current)
//! ```
//!
//! **Faults** are split by who is to blame, because that decides what happens
//! next: a peer is dropped and another tried ([`PeerFault`]); an origin's
//! fault stops the sync of that origin ([`OriginFault`]); a local one is ours
//! to mend ([`LocalFault`]).
//!
//! **Layer rule.** No sockets, files, threads, tasks or clocks. Bytes go in by
//! `handle_*`, effects come out of `poll_output`; deadlines are the driver's.

pub mod error;
pub mod forgetful;
pub mod message;
pub mod mirror;
mod push;
pub mod pushed;
pub mod sample;
pub mod source;
mod wire;
mod witness;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub use error::{Forked, LocalFault, OriginFault, PeerFault, SyncError};
pub use mirror::{Mirror, MirrorLimits, Outcome, Output, Report, RequestId, StoreToken};
pub use pushed::{Pushed, Telling, Told};
pub use sample::{SampleOutput, SampleReport, Sampler};
pub use source::{Answer, SourceError, answer};
pub use witness::contradiction;

/// Bytes of spans after which a source ends an answer: the span that reaches
/// it is the last. A mirror so knows what it must have room for before it
/// asks, and never has to stop reading.
pub const ENTRIES_ANSWER_BYTES: usize = 2 << 20;
/// Spans after which a source ends an answer, however small they are.
pub const ENTRIES_ANSWER_SPANS: usize = 16;
