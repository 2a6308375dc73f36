//! converge-ledger: a Merkle-verified, content-addressed, append-only log store.
pub mod directory;
pub mod encoding;
pub mod entry;
pub mod hash;
pub mod head;
pub mod lamport;
pub mod ledger;
pub mod limits;
pub mod note;
pub mod run;
#[cfg(feature = "store")]
pub mod store;
pub mod tree;
