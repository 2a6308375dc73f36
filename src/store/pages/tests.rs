//! Checked pages: alone, under a database, damaged, and through crashes.

use super::*;
use crate::store::disk::{Access, Disk, MemoryDisk};

mod crash;
mod damage;
mod measure;
mod model;

const NAME: &str = "index.redb";
const KEY: [u8; 32] = [7; 32];
const PAGE: u64 = PAGE_BYTES as u64;

fn fresh() -> (MemoryDisk, CheckedPages) {
    let disk = MemoryDisk::new();
    disk.create(NAME).unwrap();
    let pages = pages_of(&disk);
    (disk, pages)
}

fn pages_of(disk: &MemoryDisk) -> CheckedPages {
    CheckedPages::new(disk.open(NAME, Access::Write).unwrap(), KEY)
}

fn read(pages: &CheckedPages, offset: u64, len: usize) -> io::Result<Vec<u8>> {
    let mut out = vec![0xee; len];
    pages.read(offset, &mut out)?;
    Ok(out)
}

/// A header that tells of so many pages.
fn header(pages: u32) -> [u8; 320] {
    let mut header = [5; 320];
    header[16..28].fill(0);
    header[28..32].copy_from_slice(&(pages - 1).to_le_bytes());
    header
}

fn damaged(error: &io::Error) -> u64 {
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    PageError::of(error).unwrap().page
}

#[test]
fn lengths_map_to_file_lengths_and_back() {
    for pages in (0..5000).chain([1 << 20, (1 << 28) - 1, 1 << 28]) {
        assert_eq!(pages_in(file_bytes(pages)), pages);
        assert_eq!(pages_in(file_bytes(pages) + PAGE - 1), pages);
        if pages > 0 {
            assert_eq!(page_at(pages - 1) + PAGE, file_bytes(pages));
            assert_eq!(pages_in(file_bytes(pages) - 1), pages - 1);
        }
    }
}

#[test]
fn what_is_written_is_read_and_nothing_else() {
    let (disk, pages) = fresh();
    assert_eq!(pages.len().unwrap(), 0);
    pages.set_len(1500 * PAGE).unwrap();
    assert_eq!(pages.len().unwrap(), 1500 * PAGE);
    // Over the end of a group, and not aligned.
    let data: Vec<u8> = (0..=250).cycle().take(5 * PAGE_BYTES).collect();
    pages.write(510 * PAGE, &data).unwrap();
    pages.write(700 * PAGE + 100, &data[..5000]).unwrap();
    pages.write(0, &header(1500)).unwrap();
    for pages in [pages, pages_of(&disk)] {
        pages.sync_data().unwrap();
        assert_eq!(read(&pages, 510 * PAGE, data.len()).unwrap(), data);
        assert_eq!(read(&pages, 700 * PAGE + 100, 5000).unwrap(), data[..5000]);
        assert!(is_zero(&read(&pages, 700 * PAGE, 100).unwrap()));
        assert_eq!(damaged(&read(&pages, 513 * PAGE, 9000).unwrap_err()), 515);
        assert_eq!(damaged(&read(&pages, 1499 * PAGE, 4096).unwrap_err()), 1499);
        let head = read(&pages, 0, PAGE_BYTES).unwrap();
        assert_eq!(head[..320], header(1500));
        assert!(is_zero(&head[320..]));
    }
    let pages = pages_of(&disk);
    let past = read(&pages, 1500 * PAGE, 4096).unwrap_err();
    assert_eq!(past.kind(), io::ErrorKind::UnexpectedEof);
    assert!(read(&pages, u64::MAX, 1).is_err());
    assert!(pages.write(1499 * PAGE, &data[..4097]).is_err());
    assert!(pages.write(0, &data[..505]).is_err());
    assert!(pages.set_len(5).is_err());
    assert!(pages.set_len(INDEX_BYTES_MAX + PAGE).is_err());
}

#[test]
fn cut_pages_do_not_come_back() {
    let (disk, pages) = fresh();
    let data = vec![9; 4 * PAGE_BYTES];
    pages.set_len(1030 * PAGE).unwrap();
    pages.write(1020 * PAGE, &data).unwrap();
    pages.write(1024 * PAGE, &data).unwrap();
    pages.sync_data().unwrap();
    pages.set_len(1021 * PAGE).unwrap();
    assert!(read(&pages, 1021 * PAGE, 4096).is_err());
    pages.set_len(1600 * PAGE).unwrap();
    pages.sync_data().unwrap();
    for pages in [pages, pages_of(&disk)] {
        assert_eq!(read(&pages, 1020 * PAGE, 4096).unwrap(), data[..4096]);
        for page in 1021..1600 {
            let error = read(&pages, page * PAGE, 4096).unwrap_err();
            assert_eq!(damaged(&error), page);
        }
        pages.write(1022 * PAGE + 5, &[1]).unwrap();
        let written = read(&pages, 1022 * PAGE, 4096).unwrap();
        assert!(written[5] == 1 && is_zero(&written[6..]) && is_zero(&written[..5]));
        pages.set_len(1022 * PAGE).unwrap();
        pages.set_len(1600 * PAGE).unwrap();
    }
    // A file that somebody cut inside a page.
    let mut bytes = disk.bytes(NAME).unwrap();
    bytes.truncate(usize::try_from(page_at(1020) + 17).unwrap());
    disk.set_bytes(NAME, bytes);
    let pages = pages_of(&disk);
    assert_eq!(pages.len().unwrap(), 1020 * PAGE);
    pages.set_len(1023 * PAGE).unwrap();
    for page in 1019..1023 {
        let error = read(&pages, page * PAGE, 4096).unwrap_err();
        assert_eq!(damaged(&error), page);
    }
    pages.write(1020 * PAGE + 2, &[1]).unwrap();
    assert!(is_zero(&read(&pages, 1020 * PAGE + 3, 4093).unwrap()));
}

#[test]
fn every_flipped_bit_of_a_page_or_its_check_is_found() {
    let (disk, pages) = fresh();
    pages.set_len(4 * PAGE).unwrap();
    pages.write(0, &header(4)).unwrap();
    pages.write(PAGE, &[6; 3 * PAGE_BYTES]).unwrap();
    pages.sync_data().unwrap();
    let bytes = disk.bytes(NAME).unwrap();
    for bit in 0..bytes.len() * 8 {
        let mut bent = bytes.clone();
        bent[bit / 8] ^= 1 << (bit % 8);
        disk.set_bytes(NAME, bent);
        let pages = pages_of(&disk);
        // Checks of page 0 and of pages behind the end are not used.
        let at = bit / 8;
        let used = at >= PAGE_BYTES || (CHECK_BYTES..4 * CHECK_BYTES).contains(&at);
        match read(&pages, 0, 4 * PAGE_BYTES) {
            Ok(_) => assert!(!used, "bit {bit}"),
            Err(error) => {
                let page = if at >= PAGE_BYTES {
                    at / PAGE_BYTES - 1
                } else {
                    at / CHECK_BYTES
                };
                assert_eq!(damaged(&error), page as u64);
            }
        }
    }
}
