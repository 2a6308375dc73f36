//! What a directory entry commits to: a context's id, size and root.
//!
//! ```text
//! path hash  = keyed(directory-path, id)
//! commitment = keyed(directory-entry, 0x01 || size u64 LE || root 32 || id)
//! ```
//!
//! An opening travels beside a node to those who may see it; the node alone
//! discloses no id.

use super::{DirectoryError, Slot};
use crate::encoding::{DecodeError, in_range};
use crate::entry::ContextId;
use crate::hash::{self, Hash, Role};
use crate::limits::SEQUENCE_MAX;

const VERSION: u8 = 1;

/// A context's place in the directory.
#[must_use]
pub fn path_hash(id: &str) -> Hash {
    hash::keyed(Role::DirectoryPath, id.as_bytes())
}

/// The commitment to a context's id, size and root.
#[must_use]
pub fn commitment(id: &str, size: u64, root: &Hash) -> Hash {
    let mut bytes = Vec::with_capacity(1 + 8 + Hash::LEN + id.len());
    bytes.push(VERSION);
    bytes.extend(size.to_le_bytes());
    bytes.extend(root.as_bytes());
    bytes.extend(id.as_bytes());
    hash::keyed(Role::DirectoryEntry, &bytes)
}

/// A context's id, size and root.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Opening {
    /// The context's id.
    pub id: String,
    /// Its number of entries.
    pub size: u64,
    /// The root of its accumulator at that size.
    pub root: Hash,
}

impl Opening {
    /// The context's place in the directory.
    #[must_use]
    pub fn path(&self) -> Hash {
        path_hash(&self.id)
    }

    /// The commitment the directory holds.
    #[must_use]
    pub fn commitment(&self) -> Hash {
        commitment(&self.id, self.size, &self.root)
    }

    /// The slot the directory holds for it.
    #[must_use]
    pub fn slot(&self) -> Slot {
        Slot::Entry {
            path: self.path(),
            commitment: self.commitment(),
            entries: self.size,
        }
    }

    /// Checks the id and size alone.
    pub fn check(&self) -> Result<(), DecodeError> {
        ContextId::decode(self.id.as_bytes())?;
        in_range("size of a context", self.size, 1, SEQUENCE_MAX)
    }

    /// Checks the opening against what an entry slot of a proven node says.
    ///
    /// Another opening than the committed one is the presenter's fault; a
    /// committed one that breaks a rule is the origin's.
    pub fn check_slot(
        &self,
        path: &Hash,
        commitment: &Hash,
        entries: u64,
    ) -> Result<(), DirectoryError> {
        if self.path() != *path || self.commitment() != *commitment {
            return Err(DirectoryError::WrongOpening { path: *path });
        }
        let size = in_range("entries of a slot", entries, self.size, self.size);
        self.check()
            .and(size)
            .map_err(|source| DirectoryError::InvalidOpening {
                path: *path,
                source,
            })
    }
}
