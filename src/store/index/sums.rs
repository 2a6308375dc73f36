//! Rows as sums: what two lots of rows are compared by when neither is to be held
//! in memory.
//!
//! A row counts for 128 bits of a keyed hash of its table, key and value; a table
//! for the sum of its rows, in whatever order they come. The key is random and
//! never leaves the process, so that nobody can choose rows whose sums agree.

use super::rows::Table;
use crate::encoding::Reader;
use crate::hash::{self, Hash};

/// Rows that are hashed together, at most.
const WAITING_MAX: usize = 512;
/// And bytes of them.
const WAITING_BYTES_MAX: usize = 64 << 10;

/// How many rows a table has, and what they come to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct RowSum {
    pub(crate) rows: u64,
    sum: u128,
}

/// See the module.
#[derive(Clone)]
pub(crate) struct RowSums {
    key: [u8; 32],
    sums: [RowSum; Table::ALL.len()],
    /// Rows that are still to be hashed, with the end of each.
    waiting: Vec<u8>,
    ends: Vec<(Table, usize)>,
}

impl std::fmt::Debug for RowSums {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RowSums")
    }
}

impl RowSums {
    /// No rows, and a new key.
    pub(crate) fn new() -> std::io::Result<Self> {
        let mut key = [0; 32];
        getrandom::fill(&mut key).map_err(std::io::Error::other)?;
        Ok(Self {
            key,
            sums: Default::default(),
            waiting: Vec::new(),
            ends: Vec::new(),
        })
    }

    /// No rows, to be compared with these.
    pub(crate) fn anew(&self) -> Self {
        Self {
            key: self.key,
            sums: Default::default(),
            waiting: Vec::new(),
            ends: Vec::new(),
        }
    }

    pub(crate) fn add(&mut self, table: Table, key: &[u8], value: &[u8]) {
        // Keys are at most a context id.
        let key_len = u16::try_from(key.len()).unwrap_or(u16::MAX);
        self.waiting.push(table as u8);
        self.waiting.extend_from_slice(&key_len.to_le_bytes());
        self.waiting.extend_from_slice(key);
        self.waiting.extend_from_slice(value);
        self.ends.push((table, self.waiting.len()));
        if self.ends.len() >= WAITING_MAX || self.waiting.len() >= WAITING_BYTES_MAX {
            self.hash();
        }
    }

    /// What the rows of a table come to.
    pub(crate) fn of(&mut self, table: Table) -> RowSum {
        self.hash();
        let at = Table::ALL.iter().position(|other| *other == table);
        at.and_then(|at| self.sums.get(at).copied())
            .unwrap_or_default()
    }

    fn hash(&mut self) {
        let mut from = 0;
        let rows: Vec<&[u8]> = self
            .ends
            .iter()
            .map(|(_, end)| {
                let row = self.waiting.get(from..*end).unwrap_or_default();
                from = *end;
                row
            })
            .collect();
        let hashes = hash::keyed_many_with(&self.key, &rows);
        for ((table, _), hash) in self.ends.iter().zip(&hashes) {
            let at = Table::ALL.iter().position(|other| other == table);
            if let Some(sum) = at.and_then(|at| self.sums.get_mut(at)) {
                sum.rows += 1;
                sum.sum = sum.sum.wrapping_add(number(hash));
            }
        }
        self.waiting.clear();
        self.ends.clear();
    }
}

fn number(hash: &Hash) -> u128 {
    let half = Reader::new(hash.as_bytes()).array("half a hash");
    half.map_or(0, u128::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_do_not_care_for_the_order_but_for_everything_else() {
        let of = |sums: &RowSums, rows: &[(&[u8], &[u8])]| {
            let mut sums = sums.anew();
            for (key, value) in rows {
                sums.add(Table::Runs, key, value);
            }
            assert_eq!(sums.of(Table::Tiles), RowSum::default());
            sums.of(Table::Runs)
        };
        let sums = RowSums::new().unwrap();
        let rows: [(&[u8], &[u8]); 3] = [(b"a", b"1"), (b"b", b"2"), (b"c", b"")];
        let mut turned = rows;
        turned.reverse();
        let sum = of(&sums, &rows);
        assert_eq!(sum.rows, 3);
        assert_eq!(of(&sums, &turned), sum);
        assert_ne!(of(&sums, &rows[..2]), sum);
        assert_ne!(of(&sums, &[rows[0], rows[1], (b"c", b"3")]), sum);
        assert_ne!(of(&sums, &[rows[0], rows[1], (b"d", b"")]), sum);
        assert_ne!(of(&sums, &[(b"a1", b""), rows[1], rows[2]]), sum);
        assert_ne!(of(&sums, &[rows[0], rows[0], rows[2]]), sum);
        assert_ne!(of(&RowSums::new().unwrap(), &rows), sum);
        let many: Vec<Vec<u8>> = (0..2000u32).map(|i| i.to_le_bytes().repeat(20)).collect();
        let many: Vec<(&[u8], &[u8])> = many.iter().map(|row| row.split_at(9)).collect();
        let mut turned = many.clone();
        turned.reverse();
        assert_eq!(of(&sums, &many), of(&sums, &turned));
        assert_ne!(of(&sums, &many[1..]), of(&sums, &turned));
    }
}
