//! The bytes of a file in memory, in pages that copies share until one of them
//! is written: syncing and copying a large file costs next to nothing.

use std::sync::Arc;

/// Bytes in a page.
const PAGE_BYTES: usize = 4096;

type Page = [u8; PAGE_BYTES];

/// See the module. Behind the end, pages are zeros.
#[derive(Clone, Debug, Default)]
pub(super) struct Contents {
    pages: Vec<Arc<Page>>,
    len: usize,
}

impl From<&[u8]> for Contents {
    fn from(bytes: &[u8]) -> Self {
        let mut contents = Self::default();
        contents.write_at(0, bytes);
        contents
    }
}

impl From<Vec<u8>> for Contents {
    fn from(bytes: Vec<u8>) -> Self {
        Self::from(bytes.as_slice())
    }
}

impl Contents {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.len];
        self.read_at(0, &mut bytes);
        bytes
    }

    /// Reads what there is from `start` on; returns how much that was.
    pub(super) fn read_at(&self, start: usize, buf: &mut [u8]) -> usize {
        let wanted = buf.len().min(self.len.saturating_sub(start));
        let mut done = 0;
        while done < wanted {
            let (page, within) = place(start + done);
            let n = (PAGE_BYTES - within).min(wanted - done);
            if let Some(page) = self.pages.get(page) {
                buf[done..done + n].copy_from_slice(&page[within..within + n]);
            }
            done += n;
        }
        wanted
    }

    /// Writes all of `bytes`, growing if needed.
    pub(super) fn write_at(&mut self, start: usize, bytes: &[u8]) {
        let end = start.saturating_add(bytes.len());
        if end > self.len {
            self.resize(end);
        }
        let mut done = 0;
        while done < bytes.len() {
            let (page, within) = place(start + done);
            let n = (PAGE_BYTES - within).min(bytes.len() - done);
            if let Some(page) = self.pages.get_mut(page) {
                Arc::make_mut(page)[within..within + n].copy_from_slice(&bytes[done..done + n]);
            }
            done += n;
        }
    }

    /// Cuts, or grows with zeros.
    pub(super) fn resize(&mut self, len: usize) {
        let pages = len.div_ceil(PAGE_BYTES);
        if pages > self.pages.len() {
            self.pages.resize(pages, Arc::new([0; PAGE_BYTES]));
        } else {
            self.pages.truncate(pages);
            let (last, within) = place(len);
            if let Some(page) = self.pages.get_mut(last)
                && page[within..].iter().any(|&byte| byte != 0)
            {
                Arc::make_mut(page)[within..].fill(0);
            }
        }
        self.len = len;
    }
}

/// The page of a byte and its place in it.
const fn place(at: usize) -> (usize, usize) {
    (at / PAGE_BYTES, at % PAGE_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_apart_and_cut_bytes_do_not_come_back() {
        let data: Vec<u8> = (0..=250).cycle().take(3 * PAGE_BYTES + 17).collect();
        let mut contents = Contents::from(data.as_slice());
        let copy = contents.clone();
        contents.write_at(PAGE_BYTES - 3, &[9; 10]);
        contents.resize(2 * PAGE_BYTES + 5);
        contents.resize(4 * PAGE_BYTES);
        assert_eq!(copy.to_vec(), data);
        let mut expected = data;
        expected[PAGE_BYTES - 3..PAGE_BYTES + 7].fill(9);
        expected.truncate(2 * PAGE_BYTES + 5);
        expected.resize(4 * PAGE_BYTES, 0);
        assert_eq!(contents.to_vec(), expected);
        let mut buf = [1; 10];
        assert_eq!(contents.read_at(4 * PAGE_BYTES - 4, &mut buf), 4);
        assert_eq!(contents.read_at(usize::MAX, &mut buf), 0);
        assert_eq!(buf, [0, 0, 0, 0, 1, 1, 1, 1, 1, 1]);
    }
}
