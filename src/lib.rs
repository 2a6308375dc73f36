//! converge-ledger: a Merkle-verified, content-addressed, append-only log store.
pub mod encoding;
pub mod entry;
pub mod hash;
pub mod lamport;
// pub mod ledger;
pub mod limits;
// pub mod run;
