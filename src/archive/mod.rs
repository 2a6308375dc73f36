//! Layer 3. The snapshot archive: one context at one size, whole, in a single
//! stream of bytes that can be written, checked and read without the store it
//! came from. Knows no store, no file and no clock: it writes what a
//! [`ReadHistory`](crate::ledger::ReadHistory) shows and reads any
//! [`std::io::Read`].
//!
//! ```text
//! converge-ledger/archive/v1\n   context <id>\n   size <n>\n   root <base64>\n   \n
//! runs | payloads* | runs | payloads* | ... | end
//!
//! section:  0 kind   1 version 1   2 flags   4 reserved   8 bytes of the body
//!          16 BLAKE3(bytes 0..16, then the body)          48 body
//! runs      per run: length u32, run             at most 1 MiB + 4
//! payloads  per payload: hash, length u32, bytes  at most 8 MiB
//! end       entries u64, sections before it u64, BLAKE3(all bytes before it)
//! ```
//!
//! Invariants (`spec/06-archive.md`):
//! * the runs are the context's, from sequence 1 to its size, and fold into the
//!   root of the first lines; nobody is told an archive is good before that;
//! * directly behind its section of runs lies every payload above 4 KiB that an
//!   entry there has, once, in the order of first use;
//! * a section is as full as it can be, so that their number is bounded by the
//!   bytes and the same runs are always the same archive;
//! * the end is written last, and only after everything has been verified.
//!
//! Three passes: [`write()`] verifies while it writes, [`verify()`] reads all and
//! says what it is, and [`Parts`] reads again and gives the entries out, held
//! to what [`verify()`] saw. None holds more than a section or two in memory.

mod fault;
mod fold;
mod input;
mod items;
mod parts;
mod section;
mod title;
mod verify;
mod write;

pub use fault::{EndField, Fault, ReadError};
pub use parts::Parts;
pub use title::VERSION;
pub use verify::{Verified, name_of, verify};
pub use write::{Unsound, WriteError, Written, write};

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
