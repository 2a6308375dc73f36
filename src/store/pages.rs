//! The index's pages, checked. The database below the index writes a checksum
//! with every page but does not compare it when it reads; a flipped bit in a
//! branch page could hide a row. [`CheckedPages`] lies between the database
//! and the disk and keeps a check of every page, which every read must match.
//!
//! ```text
//! file    | group 0              | group 1              | ...
//! group   | checks | 512 pages of 4096 bytes            |
//! checks  | check of page 512g | of 512g + 1 | ... 8 bytes each, 4096 bytes
//! page 0  | header, 504 bytes | check, 8 bytes | 3584 zeros |
//! ```
//!
//! The check of page `n` is the first 8 bytes of BLAKE3 keyed, over `n` as 8
//! bytes, little-endian, and the 4096 bytes of the page; a result of zero is
//! written as one. Zero means that the page was never written. The database
//! never reads such a page, so it is refused like a damaged one: it is a hole
//! that the file system made.
//!
//! **Lengths** are whole pages. The length the database set follows from the
//! length of the file, so there is no other metadata; a part of a page at the
//! end (a file cut by someone else) does not count.
//!
//! **Page 0** is the database's header, the one page that it overwrites in
//! place: 320 bytes, always from offset 0, twice per commit. Of these bytes the
//! database checks only its two commit slots. The byte that says which slot is
//! valid has no checksum, so page 0 cannot go unchecked: one flipped bit would
//! turn back to the commit before. Its check therefore lies in the same sector
//! of 512 bytes, and header and check are written together: after a crash the
//! sector is the old or the new one (`spec/05-store.md`, assumptions), and
//! matches its check in both cases. Its entry in block 0 stays zero.
//!
//! The header also says how many pages there are. After a crash the database
//! goes by the length of the file instead, and panics if that was cut. But it
//! lets the header tell of more pages only after the longer file was synced,
//! and of fewer before it shortens the file: a file with fewer pages than its
//! header tells was cut by someone else, and page 0 is refused.
//!
//! **All other pages** are copied on write: the database writes a page only
//! between two syncs, after it was allocated and before a header refers to it.
//! **Every commit must be a two-phase commit** (quick repair implies it; do not
//! compact, which makes others): the header that makes a commit current is then
//! written after the sync of its pages and of the slot that names them. After
//! a crash in a one-phase commit the database would look at pages that may be
//! torn, and take the error for a broken disk. So:
//!
//! * [`StorageBackend::sync_data`] writes the changed check blocks first. What
//!   a header on the disk refers to is there together with its checks.
//! * A check block is overwritten in place, but the entry of a committed page
//!   has the same value in every version of the block since, and an entry never
//!   spans two sectors. Whichever sectors of a later version a crash leaves,
//!   the page keeps its check. It may lose it only when the database has given
//!   the page to a later transaction, and that is after a commit without it
//!   became durable.
//! * Pages of a transaction that did not commit may be left with a check that
//!   does not match, or with one although the page is gone. They are free
//!   pages to the database, after a crash as well: it reads the header, the
//!   trees it refers to and the allocator's state among them, nothing else,
//!   and it writes a page that it allocates whole before it reads it.
//! * Growing clears the entries of the new pages, so that cut pages do not
//!   come back. A crash can undo the clearing but not the cut: such pages are
//!   zeros with an old check, and free as above.
//!
//! **Threads.** Reads and writes hold the lock of the checks for the time of a
//! lookup, never across I/O. That a page is read while it is written does not
//! happen: a freed page is written again only when no reader can refer to it.
//! If it did, the reader would get an error, not a mixture.
//!
//! **Memory.** Every check block that was needed stays: 4 KiB per 2 MiB of
//! index, 1/512 of it, at most 2 GiB at [`INDEX_BYTES_MAX`].
//!
//! Not found: a header sector that the disk forgot to write, as the old one
//! matches its own check. Whoever opens the index compares it with the log.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use redb::StorageBackend;

use super::disk::DiskFile;
use crate::hash;

mod overlay;

#[cfg(test)]
mod tests;

/// Bytes in a page, and in a check block.
const PAGE_BYTES: usize = 4096;
/// Bytes in a check.
const CHECK_BYTES: usize = 8;
/// Pages in a group: the checks of a check block.
const GROUP_PAGES: u64 = 512;
/// Bytes of page 0 that are written: one sector.
const SECTOR_BYTES: usize = 512;
/// Bytes of page 0 that the database may use.
const HEADER_BYTES: usize = SECTOR_BYTES - CHECK_BYTES;
/// The longest index: 1 TiB.
pub(crate) const INDEX_BYTES_MAX: u64 = 1 << 40;

const _: () = {
    assert!(PAGE_BYTES == CHECK_BYTES * 512 && GROUP_PAGES == 512);
    // Checks do not span sectors.
    assert!(SECTOR_BYTES.is_multiple_of(CHECK_BYTES));
    assert!(INDEX_BYTES_MAX.is_multiple_of(PAGE_BYTES as u64));
};

type PageBytes = [u8; PAGE_BYTES];
type Check = [u8; CHECK_BYTES];

/// A page that does not match its check: the inner error of an [`io::Error`]
/// of kind `InvalidData`. The index is damaged and has to be built anew.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("page {page} of the index does not match its check")]
pub(crate) struct PageError {
    /// The page, in 4096 bytes as the database counts.
    pub(crate) page: u64,
}

impl PageError {
    /// The damaged page, if that is what an error is about.
    pub(crate) fn of(error: &io::Error) -> Option<Self> {
        error.get_ref()?.downcast_ref().copied()
    }
}

impl From<PageError> for io::Error {
    fn from(error: PageError) -> Self {
        Self::new(io::ErrorKind::InvalidData, error)
    }
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what)
}

/// Where the check block of a group lies in the file.
const fn block_at(group: u64) -> u64 {
    group * (GROUP_PAGES + 1) * PAGE_BYTES as u64
}

/// Where a page lies in the file.
const fn page_at(page: u64) -> u64 {
    (page + page / GROUP_PAGES + 1) * PAGE_BYTES as u64
}

/// The length of a file of so many pages.
const fn file_bytes(pages: u64) -> u64 {
    (pages + pages.div_ceil(GROUP_PAGES)) * PAGE_BYTES as u64
}

/// The whole pages in a file of this length.
const fn pages_in(file_bytes: u64) -> u64 {
    let whole = file_bytes / PAGE_BYTES as u64;
    let rest = whole % (GROUP_PAGES + 1);
    whole / (GROUP_PAGES + 1) * GROUP_PAGES + rest.saturating_sub(1)
}

/// What is left of a division by at most 4096, which any `usize` holds.
fn rest(value: u64, by: u64) -> usize {
    usize::try_from(value % by).unwrap_or(0)
}

/// The place of a page's check in its block.
fn slot(page: u64) -> Range<usize> {
    let at = rest(page, GROUP_PAGES) * CHECK_BYTES;
    at..at + CHECK_BYTES
}

/// The pages that the database's header says there are: page 0, full regions,
/// and a part of a region.
fn pages_told(header: &PageBytes) -> u64 {
    let number = |at: usize| {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(&header[at..at + 4]);
        u64::from(u32::from_le_bytes(bytes))
    };
    let (before, most) = (number(16), number(20));
    let (full, last) = (number(24), number(28));
    let last = if last > 0 { before + last } else { 0 };
    full.saturating_mul(before + most).saturating_add(1 + last)
}

/// The storage of the index's database.
pub(crate) struct CheckedPages {
    file: Arc<dyn DiskFile>,
    key: [u8; 32],
    checks: RwLock<Checks>,
    /// Held while check blocks are written or the length changes, so that no
    /// block is written behind a cut.
    shape: Mutex<()>,
}

/// The check blocks in memory.
#[derive(Default)]
struct Checks {
    blocks: BTreeMap<u64, Block>,
    /// Changes with the length: a block read before is not kept.
    epoch: u64,
}

struct Block {
    bytes: Box<PageBytes>,
    /// Newer than the file.
    dirty: bool,
}

impl fmt::Debug for CheckedPages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CheckedPages").finish_non_exhaustive()
    }
}

impl CheckedPages {
    /// Pages in `file`, checked under `key`. An empty file is a new one.
    pub(crate) fn new(file: Arc<dyn DiskFile>, key: [u8; 32]) -> Self {
        Self {
            file,
            key,
            checks: RwLock::default(),
            shape: Mutex::new(()),
        }
    }

    /// Pages in `file`, which is never written: what the database changes when
    /// it is opened and closed stays in memory and is dropped.
    pub(crate) fn read_only(file: Arc<dyn DiskFile>, key: [u8; 32]) -> io::Result<Self> {
        Ok(Self::new(Arc::new(overlay::Overlay::new(file)?), key))
    }

    /// The check of a page's bytes, or of page 0's first 504.
    fn check_of(&self, page: u64, bytes: &[u8]) -> Check {
        let mut input = [0; 8 + PAGE_BYTES];
        let len = bytes.len().min(PAGE_BYTES);
        input[..8].copy_from_slice(&page.to_le_bytes());
        input[8..8 + len].copy_from_slice(&bytes[..len]);
        let hash = hash::keyed_with(&self.key, &input[..8 + len]);
        let mut check = [0; CHECK_BYTES];
        check.copy_from_slice(&hash.as_bytes()[..CHECK_BYTES]);
        if check == [0; CHECK_BYTES] {
            check[0] = 1;
        }
        check
    }

    fn read_exact(&self, at: u64, buf: &mut [u8]) -> io::Result<()> {
        if self.file.read_at(at, buf)? < buf.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }

    /// Does something with the check block of a group, reading it if needed.
    fn with_block<T>(&self, group: u64, act: impl Fn(&Block) -> T) -> io::Result<T> {
        loop {
            let epoch = {
                // Every critical section leaves the checks whole.
                let checks = self.checks.read().unwrap_or_else(PoisonError::into_inner);
                if let Some(block) = checks.blocks.get(&group) {
                    return Ok(act(block));
                }
                checks.epoch
            };
            self.load_block(group, epoch)?;
        }
    }

    /// The same, for a change.
    fn with_block_mut(&self, group: u64, act: impl Fn(&mut Block)) -> io::Result<()> {
        loop {
            let epoch = {
                let mut checks = self.checks.write().unwrap_or_else(PoisonError::into_inner);
                if let Some(block) = checks.blocks.get_mut(&group) {
                    act(block);
                    return Ok(());
                }
                checks.epoch
            };
            self.load_block(group, epoch)?;
        }
    }

    /// Reads a check block without the lock; it is kept only if nothing that
    /// could have made it old happened since `epoch`.
    fn load_block(&self, group: u64, epoch: u64) -> io::Result<()> {
        let mut bytes = Box::new([0; PAGE_BYTES]);
        self.read_exact(block_at(group), &mut bytes[..])?;
        let mut checks = self.checks.write().unwrap_or_else(PoisonError::into_inner);
        if checks.epoch == epoch {
            checks.blocks.entry(group).or_insert(Block {
                bytes,
                dirty: false,
            });
        }
        Ok(())
    }

    /// The check that a page must have.
    fn check_set(&self, page: u64) -> io::Result<Check> {
        self.with_block(page / GROUP_PAGES, |block| {
            let mut check = [0; CHECK_BYTES];
            check.copy_from_slice(&block.bytes[slot(page)]);
            check
        })
    }

    /// Reads page 0, without its check. Before it is written for the first
    /// time it is zeros.
    fn read_header(&self) -> io::Result<PageBytes> {
        let mut bytes: PageBytes = [0; PAGE_BYTES];
        self.read_exact(page_at(0), &mut bytes)?;
        if !is_zero(&bytes) {
            let check = self.check_of(0, &bytes[..HEADER_BYTES]);
            if check != bytes[HEADER_BYTES..SECTOR_BYTES] || !is_zero(&bytes[SECTOR_BYTES..]) {
                return Err(PageError { page: 0 }.into());
            }
            bytes[HEADER_BYTES..SECTOR_BYTES].fill(0);
            let page = pages_in(self.file.len()?);
            if page < pages_told(&bytes) {
                return Err(PageError { page }.into());
            }
        }
        Ok(bytes)
    }

    /// Reads whole pages of one group, none of them page 0.
    fn read_pages(&self, first: u64, out: &mut [u8]) -> io::Result<()> {
        self.read_exact(page_at(first), out)?;
        for (page, bytes) in (first..).zip(out.chunks_exact(PAGE_BYTES)) {
            // No page's check is zero.
            if self.check_set(page)? != self.check_of(page, bytes) {
                return Err(PageError { page }.into());
            }
        }
        Ok(())
    }

    /// Reads one page of which a part is wanted.
    fn read_page(&self, page: u64) -> io::Result<PageBytes> {
        if page == 0 {
            return self.read_header();
        }
        let mut bytes: PageBytes = [0; PAGE_BYTES];
        self.read_pages(page, &mut bytes)?;
        Ok(bytes)
    }

    /// Writes whole pages of one group, none of them page 0. The checks follow
    /// the bytes: if the write fails before it changed anything, the pages
    /// stay readable.
    fn write_pages(&self, first: u64, data: &[u8]) -> io::Result<()> {
        let mut checks: PageBytes = [0; PAGE_BYTES];
        let pages = (first..).zip(data.chunks_exact(PAGE_BYTES));
        for (page, bytes) in pages.clone() {
            checks[slot(page)].copy_from_slice(&self.check_of(page, bytes));
        }
        self.file.write_at(page_at(first), data)?;
        self.with_block_mut(first / GROUP_PAGES, |block| {
            for (page, _) in pages.clone() {
                block.bytes[slot(page)].copy_from_slice(&checks[slot(page)]);
            }
            block.dirty = true;
        })
    }

    /// Writes the sector of page 0 that is used, with its check.
    fn write_header(&self, page: &PageBytes) -> io::Result<()> {
        if !is_zero(&page[HEADER_BYTES..]) {
            return Err(invalid("page 0 holds more than its header"));
        }
        let mut sector = [0; SECTOR_BYTES];
        sector[..HEADER_BYTES].copy_from_slice(&page[..HEADER_BYTES]);
        sector[HEADER_BYTES..].copy_from_slice(&self.check_of(0, &page[..HEADER_BYTES]));
        self.file.write_at(page_at(0), &sector)
    }

    /// Writes a part of a page: what is around it is read first. The rest of
    /// a page that was never written is zeros.
    fn write_part(&self, page: u64, within: usize, data: &[u8]) -> io::Result<()> {
        let mut bytes: PageBytes = [0; PAGE_BYTES];
        if page == 0 || self.check_set(page)? != [0; CHECK_BYTES] {
            bytes = self.read_page(page)?;
        }
        bytes[within..within + data.len()].copy_from_slice(data);
        if page == 0 {
            self.write_header(&bytes)
        } else {
            self.write_pages(page, &bytes)
        }
    }

    /// Writes the check blocks that are newer than the file.
    fn write_blocks(&self) -> io::Result<()> {
        let dirty: Vec<u64> = {
            let checks = self.checks.read().unwrap_or_else(PoisonError::into_inner);
            let dirty = checks.blocks.iter().filter(|(_, block)| block.dirty);
            dirty.map(|(&group, _)| group).collect()
        };
        for group in dirty {
            let mut bytes: PageBytes = [0; PAGE_BYTES];
            {
                let mut checks = self.checks.write().unwrap_or_else(PoisonError::into_inner);
                let Some(block) = checks.blocks.get_mut(&group) else {
                    continue;
                };
                bytes.copy_from_slice(&block.bytes[..]);
                // A check that is set from here on makes it dirty again.
                block.dirty = false;
            }
            if let Err(error) = self.file.write_at(block_at(group), &bytes) {
                self.with_block_mut(group, |block| block.dirty = true)?;
                return Err(error);
            }
        }
        Ok(())
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|&byte| byte == 0)
}

/// One piece of a range: whole pages of one group, or a part of a page. Page 0
/// counts as a part, as it is treated otherwise.
struct Piece {
    page: u64,
    within: usize,
    bytes: usize,
}

impl Piece {
    /// The first piece of `left` bytes from `offset` on.
    fn first(offset: u64, left: usize) -> Self {
        let page = offset / PAGE_BYTES as u64;
        let within = rest(offset, PAGE_BYTES as u64);
        if within > 0 || left < PAGE_BYTES || page == 0 {
            let bytes = left.min(PAGE_BYTES - within);
            return Self {
                page,
                within,
                bytes,
            };
        }
        let pages = PAGE_BYTES / CHECK_BYTES - rest(page, GROUP_PAGES);
        Self {
            page,
            within,
            bytes: (left / PAGE_BYTES).min(pages) * PAGE_BYTES,
        }
    }

    fn is_whole(&self) -> bool {
        self.page > 0 && self.within == 0 && self.bytes >= PAGE_BYTES
    }
}

impl StorageBackend for CheckedPages {
    fn len(&self) -> io::Result<u64> {
        Ok(pages_in(self.file.len()?) * PAGE_BYTES as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if offset.saturating_add(out.len() as u64) > INDEX_BYTES_MAX {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut done = 0;
        while done < out.len() {
            let piece = Piece::first(offset + done as u64, out.len() - done);
            let part = &mut out[done..done + piece.bytes];
            if piece.is_whole() {
                self.read_pages(piece.page, part)?;
            } else {
                let bytes = self.read_page(piece.page)?;
                part.copy_from_slice(&bytes[piece.within..piece.within + piece.bytes]);
            }
            done += piece.bytes;
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        if offset.saturating_add(data.len() as u64) > self.len()? {
            return Err(invalid("a write behind the end of the index"));
        }
        let mut done = 0;
        while done < data.len() {
            let piece = Piece::first(offset + done as u64, data.len() - done);
            let part = &data[done..done + piece.bytes];
            if piece.is_whole() {
                self.write_pages(piece.page, part)?;
            } else {
                self.write_part(piece.page, piece.within, part)?;
            }
            done += piece.bytes;
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        if len > INDEX_BYTES_MAX || !len.is_multiple_of(PAGE_BYTES as u64) {
            return Err(invalid("a length of the index that it cannot have"));
        }
        let _shape = self.shape.lock().unwrap_or_else(PoisonError::into_inner);
        let old_bytes = self.file.len()?;
        let old = pages_in(old_bytes);
        let new = len / PAGE_BYTES as u64;
        let kept = old.min(new);
        if old_bytes != file_bytes(kept) {
            // Also a part of a page that somebody's cut has left.
            self.file.truncate(file_bytes(kept))?;
        }
        {
            let mut checks = self.checks.write().unwrap_or_else(PoisonError::into_inner);
            checks.blocks.split_off(&kept.div_ceil(GROUP_PAGES));
            checks.epoch += 1;
        }
        if new > kept {
            if !kept.is_multiple_of(GROUP_PAGES) {
                self.with_block_mut(kept / GROUP_PAGES, |block| {
                    block.bytes[slot(kept).start..].fill(0);
                    block.dirty = true;
                })?;
            }
            self.file.truncate(file_bytes(new))?;
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let _shape = self.shape.lock().unwrap_or_else(PoisonError::into_inner);
        self.write_blocks()?;
        self.file.sync()
    }
}
