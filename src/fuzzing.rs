//! The bodies of the fuzz targets (`fuzz/`), one function per target: bytes in,
//! a panic if an invariant is broken. They are here so that `cargo test` runs
//! each of them on its seeds in `fuzz/corpus/`.
//!
//! * `archive`: arbitrary, changed and rearranged archives;
//! * `decode`: headers, runs, notes, directory nodes: one spelling each;
//! * `files`: whatever file verifies under a key says what its owner signed;
//! * `proofs`: no proof, span, path or descent answer verifies for anything
//!   but the statement it belongs to;
//! * `segment`: arbitrary, spliced and forged logs;
//! * `wire`: frames, and a source that answers whatever is asked;
//! * `crash`: histories of appends, failures and losses of power.
//!
//! Every body starts by drawing choices from its input with [`Input`], which
//! answers zeros when it has run out, so that any bytes are a valid input.

// A panic is how a target reports what it found.
#![allow(
    clippy::expect_used,
    clippy::missing_panics_doc,
    clippy::panic,
    clippy::unwrap_used
)]

mod archive;
mod crash;
mod decode;
mod files;
mod proofs;
mod segment;
#[cfg(test)]
mod tests;
mod wire;

pub use archive::archive_read;
pub use crash::store_crash_cycles;
pub use decode::{directory_node, entry_decode, note_open};
pub use files::verify_file;
pub use proofs::{proof_malleability, tree_append};
pub use segment::segment_scan;
pub use wire::wire_message;

use crate::note::{OriginName, SignerKey};
use crate::store::{Clock, StoreOptions};

/// A target: its name, which is also its folder of seeds, and its body.
pub type Target = (&'static str, fn(&[u8]));

/// Every target but the canary.
pub const TARGETS: [Target; 10] = [
    ("archive_read", archive_read),
    ("directory_node", directory_node),
    ("entry_decode", entry_decode),
    ("note_open", note_open),
    ("proof_malleability", proof_malleability),
    ("segment_scan", segment_scan),
    ("store_crash_cycles", store_crash_cycles),
    ("tree_append", tree_append),
    ("verify_file", verify_file),
    ("wire_message", wire_message),
];

/// A planted failure, one byte after the other: a fuzzer that does not find
/// it within seconds is not looking at coverage, and its silence about the
/// other targets means nothing.
pub fn canary(data: &[u8]) {
    let mut matched = 0;
    for (got, wanted) in data.iter().zip(b"bird") {
        if got != wanted {
            return;
        }
        matched += 1;
    }
    assert!(matched < 4, "the canary sings");
}

/// Choices drawn from the front of a target's bytes.
struct Input<'a> {
    rest: &'a [u8],
}

impl<'a> Input<'a> {
    fn new(rest: &'a [u8]) -> Self {
        Self { rest }
    }

    fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    fn byte(&mut self) -> u8 {
        self.array::<1>()[0]
    }

    fn word(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    fn number(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut out = [0; N];
        let n = N.min(self.rest.len());
        out[..n].copy_from_slice(self.take(n));
        out
    }

    /// A choice below `n`.
    fn below(&mut self, n: usize) -> usize {
        usize::from(self.word()) % n.max(1)
    }

    /// Up to `n` bytes.
    fn take(&mut self, n: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at(n.min(self.rest.len()));
        self.rest = rest;
        taken
    }

    fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    /// Changes bytes: each round overwrites, removes or inserts a few at a
    /// place of the input's choice. Without input left nothing changes.
    fn mutate(&mut self, bytes: &mut Vec<u8>) {
        while !self.is_empty() {
            let at = self.below(bytes.len() + 1);
            let control = self.byte();
            let len = usize::from(control & 63);
            match control >> 6 {
                0 | 1 => {
                    let new = self.take(len.max(1));
                    let end = (at + new.len()).min(bytes.len());
                    bytes.splice(at..end, new.iter().copied());
                }
                2 => {
                    let end = (at + len).min(bytes.len());
                    bytes.drain(at..end);
                }
                _ => {
                    let new = self.take(len);
                    bytes.splice(at..at, new.iter().copied());
                }
            }
        }
    }
}

/// Time stands still.
#[derive(Debug)]
struct StoppedClock;

impl Clock for StoppedClock {
    fn now_ns(&self) -> u64 {
        1_000
    }
}

fn signer() -> SignerKey {
    SignerKey::from_seed(OriginName::new("fuzz-origin").unwrap(), &[1; 32])
}

fn options(segment_bytes: u64, reserve_bytes: u64) -> StoreOptions {
    StoreOptions {
        segment_bytes,
        reserve_bytes,
        ..StoreOptions::new(std::sync::Arc::new(StoppedClock))
    }
}
