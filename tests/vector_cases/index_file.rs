//! The file of an index as `spec/10-index.md` lays it out: pages between their
//! checks, below a redb database whose rows are taken out and exchanged.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use converge_ledger::hash;
use redb::{Builder, Database, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition};

use super::index_rows::{Rows, TABLES, row_check};

const PAGE: usize = 4096;
const GROUP: usize = 512;

fn check_of(page_key: &[u8; 32], page: usize, bytes: &[u8]) -> [u8; 8] {
    let input = [&(page as u64).to_le_bytes()[..], bytes].concat();
    let mut check: [u8; 8] = hash::keyed_with(page_key, &input).as_bytes()[..8]
        .try_into()
        .unwrap();
    if check == [0; 8] {
        check[0] = 1;
    }
    check
}

/// The pages of an index file, every check compared.
fn unchecked(page_key: &[u8; 32], file: &[u8]) -> Vec<u8> {
    assert!(file.len().is_multiple_of(PAGE));
    let mut pages = Vec::new();
    for (group, bytes) in file.chunks((GROUP + 1) * PAGE).enumerate() {
        let (checks, rest) = bytes.split_at(PAGE);
        for (slot, page) in rest.chunks(PAGE).enumerate() {
            let (number, mut page) = (group * GROUP + slot, page.to_vec());
            let mut check: [u8; 8] = checks[8 * slot..8 * slot + 8].try_into().unwrap();
            let mut covered = PAGE;
            if number == 0 {
                assert_eq!(check, [0; 8]);
                check = page[504..512].try_into().unwrap();
                page[504..512].fill(0);
                covered = 504;
                assert!(page[covered..].iter().all(|byte| *byte == 0));
            }
            if check == [0; 8] {
                assert!(page.iter().all(|byte| *byte == 0), "page {number}");
            } else {
                assert_eq!(
                    check,
                    check_of(page_key, number, &page[..covered]),
                    "{number}"
                );
            }
            pages.extend(page);
        }
    }
    pages
}

/// The file of these pages.
fn checked(page_key: &[u8; 32], pages: &[u8]) -> Vec<u8> {
    let mut file = Vec::new();
    for (group, bytes) in pages.chunks(GROUP * PAGE).enumerate() {
        let mut checks = [0; PAGE];
        let mut group_pages = bytes.to_vec();
        for (slot, page) in group_pages.chunks_mut(PAGE).enumerate() {
            let number = group * GROUP + slot;
            if number == 0 {
                let check = check_of(page_key, 0, &page[..504]);
                page[504..512].copy_from_slice(&check);
            } else if page.iter().any(|byte| *byte != 0) {
                let check = check_of(page_key, number, page);
                checks[8 * slot..8 * slot + 8].copy_from_slice(&check);
            }
        }
        file.extend(checks);
        file.extend(group_pages);
    }
    file
}

/// The database's bytes, in memory.
#[derive(Clone, Debug)]
struct Memory(Arc<Mutex<Vec<u8>>>);

impl Memory {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn size(value: u64) -> usize {
    usize::try_from(value).unwrap()
}

impl StorageBackend for Memory {
    fn len(&self) -> io::Result<u64> {
        Ok(self.lock().len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let (at, len) = (size(offset), out.len());
        out.copy_from_slice(&self.lock()[at..at + len]);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.lock().resize(size(len), 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let at = size(offset);
        self.lock()[at..at + data.len()].copy_from_slice(data);
        Ok(())
    }
}

/// An index file, opened.
pub(crate) struct IndexFile {
    keys: [[u8; 32]; 2],
    memory: Memory,
    db: Database,
}

fn definition(table: u8) -> TableDefinition<'static, &'static [u8], &'static [u8]> {
    TableDefinition::new(TABLES[usize::from(table) - 1])
}

impl IndexFile {
    pub(crate) fn open(keys: [[u8; 32]; 2], file: &[u8]) -> Self {
        let memory = Memory(Arc::new(Mutex::new(unchecked(&keys[1], file))));
        let db = Builder::new().create_with_backend(memory.clone()).unwrap();
        Self { keys, memory, db }
    }

    /// All rows, every check compared.
    pub(crate) fn rows(&self) -> Rows {
        let transaction = self.db.begin_read().unwrap();
        let mut rows = Rows::new();
        for table in 1..=12 {
            let of = transaction.open_table(definition(table)).unwrap();
            for row in of.iter().unwrap() {
                let (key, row) = row.unwrap();
                let (key, row) = (key.value().to_vec(), row.value());
                let (value, check) = row.split_at(row.len() - 8);
                assert_eq!(row_check(&self.keys[0], table, &key, value), check);
                rows.insert((table, key), value.to_vec());
            }
        }
        rows
    }

    /// Puts one row, whatever it is, and returns the file.
    pub(crate) fn with(self, table: u8, key: &[u8], row: &[u8]) -> Vec<u8> {
        let transaction = self.db.begin_write().unwrap();
        let mut of = transaction.open_table(definition(table)).unwrap();
        of.insert(key, row).unwrap();
        drop(of);
        transaction.commit().unwrap();
        drop(self.db);
        let pages = self.memory.lock();
        checked(&self.keys[1], &pages)
    }
}
