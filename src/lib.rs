//! converge-ledger: a Merkle-verified, content-addressed, append-only log store.
pub mod directory;
pub mod encoding;
pub mod entry;
pub mod hash;
pub mod head;
pub mod lamport;
pub mod ledger;
pub mod limits;
#[cfg(feature = "node")]
pub mod node;
pub mod note;
pub mod run;
#[cfg(feature = "store")]
pub mod store;
#[cfg(feature = "store")]
pub mod sync;
pub mod tree;
