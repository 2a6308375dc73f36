//! Where things lie in the log, and what the index keeps of a run beside that.

use crate::entry::Header;
use crate::hash::{self, Hash};
use crate::store::record::Position;

/// Where a record lies and how long its body is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Location {
    pub(crate) position: Position,
    pub(crate) body_len: u32,
}

/// The first 16 bytes of a request id's hash. A hit is compared with the
/// entry's own header before it is believed.
pub(crate) type RequestKey = [u8; 16];

/// The key of a request id.
pub(crate) fn request_key(id: &str) -> RequestKey {
    let mut key = [0; 16];
    key.copy_from_slice(&hash::content(id.as_bytes()).as_bytes()[..16]);
    key
}

/// The keys of many request ids.
pub(crate) fn request_keys(ids: &[&str]) -> Vec<RequestKey> {
    let ids: Vec<&[u8]> = ids.iter().map(|id| id.as_bytes()).collect();
    let hashes = hash::content_many(&ids);
    let key = |hash: &Hash| {
        let mut key = [0; 16];
        key.copy_from_slice(&hash.as_bytes()[..16]);
        key
    };
    hashes.iter().map(key).collect()
}

/// The first four bytes of a key's hash: enough to skip runs, never believed.
pub(crate) type KeyHash = u32;

/// The hash of an entry's key.
pub(crate) fn key_hash(key: &str) -> KeyHash {
    let [a, b, c, d, ..] = *hash::content(key.as_bytes()).as_bytes();
    KeyHash::from_le_bytes([a, b, c, d])
}

/// Key hashes kept of a run; one with more distinct keys cannot be skipped.
pub(crate) const KEYS_PER_RUN_MAX: usize = 8;

/// Stands for more keys than are kept.
const MANY_KEYS: u8 = 9;
const _: () = assert!(MANY_KEYS as usize == KEYS_PER_RUN_MAX + 1);

/// The distinct keys of a run, if there are few.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct KeySet {
    hashes: [KeyHash; KEYS_PER_RUN_MAX],
    /// Hashes in use; one more than fit means "many".
    count: u8,
}

impl KeySet {
    /// Too many keys to tell them apart.
    pub(crate) const MANY: Self = Self {
        hashes: [0; KEYS_PER_RUN_MAX],
        count: MANY_KEYS,
    };

    /// The hashes, ascending by arrival; `None` if there are too many.
    pub(crate) fn hashes(&self) -> Option<&[KeyHash]> {
        self.hashes.get(..usize::from(self.count))
    }

    /// Adds a key's hash.
    pub(crate) fn add(&mut self, hash: KeyHash) {
        let Some(known) = self.hashes() else { return };
        if known.contains(&hash) {
            return;
        }
        match self.hashes.get_mut(usize::from(self.count)) {
            Some(free) => {
                *free = hash;
                self.count += 1;
            }
            None => *self = Self::MANY,
        }
    }

    /// False if no entry of the run has a key of this hash.
    pub(crate) fn may_hold(&self, hash: KeyHash) -> bool {
        self.hashes().is_none_or(|hashes| hashes.contains(&hash))
    }
}

/// What the index keeps of a run's entries.
#[derive(Clone, Debug, Default)]
pub(crate) struct RunFacts {
    pub(crate) keys: KeySet,
    pub(crate) payload_bytes: u64,
}

/// Gathers the facts of a run; entries beside each other often share a key.
#[derive(Debug, Default)]
pub(crate) struct FactsBuilder {
    facts: RunFacts,
    last_key: String,
}

impl FactsBuilder {
    pub(crate) fn add(&mut self, header: &Header<'_>) {
        self.facts.payload_bytes += u64::from(header.payload_len);
        // No key is empty.
        if self.last_key != header.key {
            header.key.clone_into(&mut self.last_key);
            if self.facts.keys != KeySet::MANY {
                self.facts.keys.add(key_hash(header.key));
            }
        }
    }

    /// The facts so far; starts anew.
    pub(crate) fn finish(&mut self) -> RunFacts {
        self.last_key.clear();
        std::mem::take(&mut self.facts)
    }
}

/// A stored run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct RunPlace {
    pub(crate) first: u64,
    pub(crate) last: u64,
    pub(crate) at: Location,
    pub(crate) keys: KeySet,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_set_forgets_nothing_and_gives_up_at_nine() {
        let mut keys = KeySet::default();
        assert!(!keys.may_hold(7));
        for hash in 0..8 {
            keys.add(hash);
            keys.add(hash);
            assert_eq!(keys.hashes().map(<[_]>::len), Some(hash as usize + 1));
            assert!(keys.may_hold(hash) && !keys.may_hold(hash + 1));
        }
        keys.add(8);
        assert_eq!(keys, KeySet::MANY);
        assert!(keys.may_hold(12345));
        keys.add(9);
        assert_eq!(keys, KeySet::MANY);
    }
}
