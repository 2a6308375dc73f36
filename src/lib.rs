//! converge-ledger: a Merkle-verified, content-addressed, append-only log store.
pub mod directory;
pub mod encoding;
pub mod hash;
pub mod head;
pub mod limits;
pub mod note;
