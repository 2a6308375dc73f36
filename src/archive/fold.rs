//! Layer 3. Folding a section's runs into the context, and the list of the
//! payloads that must lie behind it.
//!
//! Invariant: the list has each payload once, in the order of first use. It is
//! bounded by the section: an entry takes at least 77 bytes of it.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;

use crate::entry::Header;
use crate::hash::{self, Hash};
use crate::limits::PAYLOAD_INLINE_BYTES_MAX;
use crate::run::{Accumulator, Run, RunError};

/// A payload of more than 4 KiB, as an entry names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) hash: Hash,
    pub(super) bytes: u32,
}

/// The payloads of more than 4 KiB of a section of runs.
#[derive(Debug, Default)]
pub(super) struct Outside {
    list: Vec<Wanted>,
    places: HashMap<Hash, usize>,
}

impl Outside {
    pub(super) fn clear(&mut self) {
        self.list.clear();
        self.places.clear();
    }

    pub(super) fn list(&self) -> &[Wanted] {
        &self.list
    }

    /// The place of an entry's payload in the list, if it has one of more than
    /// 4 KiB. An error if another entry says the same payload is of another length.
    pub(super) fn add(&mut self, header: &Header<'_>) -> Result<Option<usize>, RunError> {
        if header.payload_len as usize <= PAYLOAD_INLINE_BYTES_MAX {
            return Ok(None);
        }
        let wanted = Wanted {
            hash: header.payload_hash,
            bytes: header.payload_len,
        };
        match self.places.entry(wanted.hash) {
            Slot::Occupied(place) => match self.list.get(*place.get()) {
                Some(known) if *known == wanted => Ok(Some(*place.get())),
                _ => Err(RunError::Payload {
                    sequence: header.sequence,
                }),
            },
            Slot::Vacant(place) => {
                self.list.push(wanted);
                Ok(Some(*place.insert(self.list.len() - 1)))
            }
        }
    }
}

/// Appends a run to `after`: place, times, and every inline payload against its
/// header; what it needs outside is added to `outside`.
pub(super) fn fold(
    after: &mut Accumulator,
    run: &Run<'_>,
    outside: &mut Outside,
    mut on_leaf: impl FnMut(u64, &Hash),
) -> Result<(), RunError> {
    let mut wrong = Ok(None);
    after.extend(
        run,
        |entry, leaf| {
            let header = &entry.header;
            on_leaf(header.sequence, leaf);
            if wrong.is_err() {
                return;
            }
            wrong = match entry.inline_payload {
                Some(payload) if hash::content(payload) != header.payload_hash => {
                    Err(RunError::Payload {
                        sequence: header.sequence,
                    })
                }
                _ => outside.add(header),
            };
        },
        |_, _| (),
    )?;
    wrong.map(|_| ())
}
