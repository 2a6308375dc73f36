//! converge-ledger: a Merkle-verified, content-addressed, append-only log store.
pub mod encoding;
pub mod hash;
pub mod limits;
pub mod tree;
