//! A file that is never written: changes stay in memory.
//!
//! The database below the index cannot be opened for reading only unless it is
//! a plain file of its own; over any other storage opening writes a flag into
//! the header, and closing commits the allocator's state. On an [`Overlay`] it
//! may do so, and reads of a store on read-only media, or of one that was not
//! closed, leave no trace.
//!
//! ```text
//! read   block 0   block 1   block 2   ...
//!        memory    file      memory          below `kept`, file; behind, zeros
//! ```

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::store::disk::DiskFile;

/// Bytes in a block.
const BLOCK_BYTES: usize = 4096;
/// Changed blocks that are kept: 64 MiB. What opening and closing change grows
/// with the index, about 500 KiB per 4 GiB of it.
const BLOCKS_MAX: usize = 16 << 10;

/// A file and the changes to it.
#[derive(Debug)]
pub(super) struct Overlay {
    file: Arc<dyn DiskFile>,
    changes: Mutex<Changes>,
}

#[derive(Debug)]
struct Changes {
    /// Bytes in the file as it would be.
    len: u64,
    /// Below this, bytes that no block holds are those of the file.
    kept: u64,
    blocks: BTreeMap<u64, Box<[u8; BLOCK_BYTES]>>,
}

/// A range as parts of blocks: block, place in the block, place in the range.
fn parts(offset: u64, bytes: usize) -> impl Iterator<Item = (u64, usize, usize, usize)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = offset.checked_add(done as u64)?;
        let within = usize::try_from(at % BLOCK_BYTES as u64).unwrap_or(0);
        let part = (bytes - done).min(BLOCK_BYTES - within);
        let place = done;
        done += part;
        (part > 0).then_some((at / BLOCK_BYTES as u64, within, place, part))
    })
}

impl Overlay {
    /// Changes to `file`, none so far.
    pub(super) fn new(file: Arc<dyn DiskFile>) -> io::Result<Self> {
        let len = file.len()?;
        let changes = Mutex::new(Changes {
            len,
            kept: len,
            blocks: BTreeMap::new(),
        });
        Ok(Self { file, changes })
    }

    fn changes(&self) -> MutexGuard<'_, Changes> {
        // A block that is missing its last change was not promised to anyone.
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A block as the file has it, zeros behind `kept`.
    fn below(&self, block: u64, kept: u64) -> io::Result<Box<[u8; BLOCK_BYTES]>> {
        let mut bytes = Box::new([0; BLOCK_BYTES]);
        let at = block * BLOCK_BYTES as u64;
        let left = usize::try_from(kept.saturating_sub(at)).unwrap_or(usize::MAX);
        let left = left.min(BLOCK_BYTES);
        if left > 0 && self.file.read_at(at, &mut bytes[..left])? < left {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(bytes)
    }
}

impl DiskFile for Overlay {
    fn len(&self) -> io::Result<u64> {
        Ok(self.changes().len)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let (len, kept) = {
            let changes = self.changes();
            (changes.len, changes.kept)
        };
        let left = usize::try_from(len.saturating_sub(offset)).unwrap_or(usize::MAX);
        let bytes = buf.len().min(left);
        for (block, within, place, part) in parts(offset, bytes) {
            let target = &mut buf[place..place + part];
            if let Some(changed) = self.changes().blocks.get(&block) {
                target.copy_from_slice(&changed[within..within + part]);
                continue;
            }
            let below = self.below(block, kept)?;
            target.copy_from_slice(&below[within..within + part]);
        }
        Ok(bytes)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut changes = self.changes();
        for (block, within, place, part) in parts(offset, bytes.len()) {
            if !changes.blocks.contains_key(&block) {
                if changes.blocks.len() >= BLOCKS_MAX {
                    return Err(io::ErrorKind::StorageFull.into());
                }
                let below = self.below(block, changes.kept)?;
                changes.blocks.insert(block, below);
            }
            if let Some(changed) = changes.blocks.get_mut(&block) {
                changed[within..within + part].copy_from_slice(&bytes[place..place + part]);
            }
        }
        changes.len = changes.len.max(offset.saturating_add(bytes.len() as u64));
        Ok(())
    }

    fn extend(&self, from: u64, to: u64) -> io::Result<()> {
        for (block, within, _, part) in
            parts(from, usize::try_from(to.saturating_sub(from)).unwrap_or(0))
        {
            let at = block * BLOCK_BYTES as u64 + within as u64;
            self.write_at(at, &[0; BLOCK_BYTES][..part])?;
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        let mut changes = self.changes();
        let block = len / BLOCK_BYTES as u64;
        changes.blocks.split_off(&len.div_ceil(BLOCK_BYTES as u64));
        if let Some(last) = changes.blocks.get_mut(&block) {
            let within = usize::try_from(len % BLOCK_BYTES as u64).unwrap_or(0);
            last[within..].fill(0);
        }
        changes.kept = changes.kept.min(len);
        changes.len = len;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::disk::{Access, Disk, MemoryDisk};

    #[test]
    fn an_overlay_is_a_file_and_leaves_the_one_below_alone() {
        let disk = MemoryDisk::new();
        let base: Vec<u8> = (0..=255).cycle().take(20_000).collect();
        disk.set_bytes("below", base.clone());
        disk.set_bytes("plain", base.clone());
        let over = Overlay::new(disk.open("below", Access::Read).unwrap()).unwrap();
        let plain = disk.open("plain", Access::Write).unwrap();
        let mut at = 1u64;
        for round in 0..2000u64 {
            at = at.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let offset = (at >> 33) % 30_000;
            for file in [&over as &dyn DiskFile, &*plain] {
                match round % 10 {
                    0 => file.truncate(offset).unwrap(),
                    1 => {
                        let len = file.len().unwrap();
                        file.extend(len, len + offset % 5000).unwrap();
                    }
                    _ => file.write_at(offset, &base[..9000]).unwrap(),
                }
            }
            assert_eq!(over.len().unwrap(), plain.len().unwrap());
            let (mut a, mut b) = (vec![1; 50_000], vec![1; 50_000]);
            let start = offset / 2;
            let got = over.read_at(start, &mut a).unwrap();
            assert_eq!(got, plain.read_at(start, &mut b).unwrap());
            assert!(a[..got] == b[..got], "round {round}");
        }
        assert_eq!(disk.bytes("below").unwrap(), base);
    }
}
