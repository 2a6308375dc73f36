//! A damaged file: exactly the rows that were there, or an error.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::model::{Random, Rows, change, database, rows};
use super::*;

/// What came of damaged files.
#[derive(Default, Debug)]
struct Outcomes {
    right: u32,
    refused: u32,
    panicked: u32,
}

/// Opens a copy of the bytes and reads everything.
fn attempt(bytes: Vec<u8>, expected: &Rows, outcomes: &mut Outcomes, what: &str) {
    let disk = MemoryDisk::new();
    disk.set_bytes(NAME, bytes);
    let result = catch_unwind(AssertUnwindSafe(|| -> Result<Rows, redb::Error> {
        let db = database(pages_of(&disk))?;
        let found = rows(&db)?;
        // What is left must also be fit to be written.
        let (mut model, mut random) = (found.clone(), Random(5));
        change(&db, &mut model, &mut random, 20, false)?;
        assert_eq!(rows(&db)?, model, "after a change, {what}");
        Ok(found)
    }));
    match result {
        Ok(Ok(found)) => {
            assert!(found == *expected, "wrong rows: {what}");
            outcomes.right += 1;
        }
        Ok(Err(_)) => outcomes.refused += 1,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map_or("", |text| text);
            assert!(!text.contains("wrong rows"), "{text}");
            assert!(!text.contains("after a change"), "{text}");
            outcomes.panicked += 1;
        }
    }
}

/// A database of some hundred pages: closed, and as a crash would leave it.
fn samples() -> (Rows, [Vec<u8>; 2]) {
    let (disk, pages) = fresh();
    let mut random = Random(4);
    let mut model = Rows::new();
    let db = database(pages).unwrap();
    for _ in 0..8 {
        change(&db, &mut model, &mut random, 150, false).unwrap();
    }
    let unclean = disk.bytes(NAME).unwrap();
    drop(db);
    (model, [disk.bytes(NAME).unwrap(), unclean])
}

#[test]
fn flipped_bits_are_found_or_do_not_matter() {
    let (model, samples) = samples();
    let mut random = Random(6);
    for bytes in samples {
        let mut outcomes = Outcomes::default();
        let mut flip = |byte: usize, bit: u64| {
            let mut bent = bytes.clone();
            bent[byte] ^= 1 << bit;
            let what = format!("bit {bit} of byte {byte}");
            attempt(bent, &model, &mut outcomes, &what);
        };
        // The header, and a bit of every check.
        for byte in PAGE_BYTES..PAGE_BYTES + 64 {
            flip(byte, random.below(8));
        }
        for bit in 0..8 {
            flip(PAGE_BYTES + 9, bit);
        }
        for check in 0..bytes.len() / PAGE_BYTES {
            flip(check * 8 + usize::try_from(random.below(8)).unwrap(), 3);
        }
        for _ in 0..600 {
            let byte = random.below(bytes.len() as u64);
            flip(usize::try_from(byte).unwrap(), random.below(8));
        }
        assert!(outcomes.refused > 200, "{outcomes:?}");
        assert_eq!(outcomes.panicked, 0, "{outcomes:?}");
    }
}

#[test]
fn lost_and_misplaced_pages_are_found_or_do_not_matter() {
    let (model, samples) = samples();
    let mut random = Random(7);
    for bytes in samples {
        let mut outcomes = Outcomes::default();
        let pages = bytes.len() / PAGE_BYTES;
        for page in 0..pages {
            let here = page * PAGE_BYTES..(page + 1) * PAGE_BYTES;
            let mut bent = bytes.clone();
            bent[here.clone()].fill(0);
            attempt(bent.clone(), &model, &mut outcomes, "a page of zeros");
            if page > 0 {
                // With its check: a hole in the file.
                bent[slot(page as u64 - 1)].fill(0);
                attempt(bent, &model, &mut outcomes, "a page never written");
            }
            let other = usize::try_from(random.below(pages as u64)).unwrap();
            let mut bent = bytes.clone();
            bent.copy_within(other * PAGE_BYTES..(other + 1) * PAGE_BYTES, here.start);
            attempt(bent, &model, &mut outcomes, "a page of another place");
        }
        assert!(outcomes.refused > 200, "{outcomes:?}");
        assert_eq!(outcomes.panicked, 0, "{outcomes:?}");
    }
}

#[test]
fn cut_files_are_found_or_do_not_matter() {
    let (model, samples) = samples();
    let mut random = Random(8);
    for bytes in samples {
        let mut outcomes = Outcomes::default();
        for page in 0..=bytes.len() / PAGE_BYTES {
            for odd in [0, random.below(PAGE)] {
                let len = page * PAGE_BYTES + usize::try_from(odd).unwrap();
                let mut bent = bytes.clone();
                bent.resize(len, 0);
                // An empty file is a new database: whoever opens it knows.
                if pages_in(len as u64) > 0 {
                    attempt(bent, &model, &mut outcomes, &format!("{len} bytes"));
                }
            }
        }
        assert!(outcomes.refused > 200, "{outcomes:?}");
        assert_eq!(outcomes.panicked, 0, "{outcomes:?}");
    }
}
