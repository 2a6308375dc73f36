//! converge-ledger: a Merkle-verified, content-addressed, append-only log store.
//!
//! A decision engine appends what happened, one gap-free sequence per context;
//! every entry is hashed into its context's Merkle tree, and one signed root
//! covers all contexts of a store. Mirrors pull over QUIC and verify every byte
//! against that root, so they need not trust whom they pull from. The ledger
//! remembers; it never decides.
//!
//! # The rooms
//!
//! Imports point downward only; `tests/tidy.rs` enforces it.
//!
//! | layer | modules | what it may not contain |
//! |---|---|---|
//! | 0 bytes | [`hash`], [`encoding`], [`entry`], [`lamport`], [`limits`], [`shown`] | clock, files, async, logging |
//! | 1 tree | [`tree`] | the same |
//! | 2 trust | [`note`], [`head`], [`directory`], [`run`], [`proof`], [`evidence`], [`verify`], [`ledger`] | the same; keys and randomness are arguments |
//! | 3 engines and disk, blind to each other | `store`, `sync`, `archive` | store: sockets, async; the others: sockets, files, async |
//! | 4 node | `node`, `rpc` | policy |
//! | 5 shell | `cli`, [`verifier`], `main.rs` | logic worth testing |
//!
//! Without default features only layers 0 to 2 and the command `verify` are
//! built: a verifier for auditors. The formats are written down in `spec/`.

#[cfg(feature = "store")]
pub mod archive;
#[cfg(feature = "node")]
pub mod cli;
pub mod directory;
pub mod encoding;
pub mod entry;
pub mod evidence;
#[cfg(all(feature = "store", any(test, feature = "fuzzing")))]
#[doc(hidden)]
pub mod fuzzing;
pub mod hash;
pub mod head;
pub mod lamport;
pub mod ledger;
pub mod limits;
#[cfg(feature = "node")]
pub mod node;
pub mod note;
pub mod proof;
#[cfg(feature = "node")]
pub mod rpc;
pub mod run;
pub mod shown;
#[cfg(feature = "store")]
pub mod store;
#[cfg(feature = "store")]
pub mod sync;
pub mod tree;
pub mod verifier;
pub mod verify;

#[cfg(feature = "node")]
pub use rpc::client;
