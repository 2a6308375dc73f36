//! A database under random changes, beside a map that takes the same changes.

use std::collections::BTreeMap;

use redb::{Builder, Database, Durability, ReadableDatabase, ReadableTable, TableDefinition};

use super::*;

pub(super) const ROWS: TableDefinition<u64, &[u8]> = TableDefinition::new("rows");

pub(super) type Rows = BTreeMap<u64, Vec<u8>>;

/// Splitmix64: repeatable and good enough.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

pub(super) fn database(pages: CheckedPages) -> Result<Database, redb::DatabaseError> {
    Builder::new()
        .set_cache_size(1 << 20)
        .create_with_backend(pages)
}

pub(super) fn rows(db: &Database) -> Result<Rows, redb::Error> {
    let read = db.begin_read()?;
    let table = match read.open_table(ROWS) {
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Rows::new()),
        table => table?,
    };
    let mut rows = Rows::new();
    for row in table.iter()? {
        let (key, value) = row?;
        rows.insert(key.value(), value.value().to_vec());
    }
    Ok(rows)
}

/// One transaction of `changes` inserts and deletes, or of deletes only.
pub(super) fn change(
    db: &Database,
    rows: &mut Rows,
    random: &mut Random,
    changes: u64,
    shrink: bool,
) -> Result<(), redb::Error> {
    let mut write = db.begin_write()?;
    write.set_durability(Durability::Immediate)?;
    write.set_quick_repair(true);
    {
        let mut table = write.open_table(ROWS)?;
        for _ in 0..changes {
            let key = random.below(4000);
            if shrink || random.below(4) == 0 {
                if let Some((&near, _)) = rows.range(key..).next() {
                    rows.remove(&near);
                    table.remove(near)?;
                }
            } else {
                let len = 1 + random.below(700);
                let fill = random.next().to_le_bytes()[0];
                let value = vec![fill; usize::try_from(len).unwrap()];
                table.insert(key, value.as_slice())?;
                rows.insert(key, value);
            }
        }
    }
    write.commit()?;
    Ok(())
}

#[test]
fn a_database_keeps_its_rows_through_closing_and_crashes() {
    let (mut disk, _) = fresh();
    let mut random = Random(1);
    let mut model = Rows::new();
    let mut db = database(pages_of(&disk)).unwrap();
    let mut longest = 0;
    for round in 0..120u64 {
        // Grows over several groups, then shrinks, and again.
        let shrink = round % 40 >= 28;
        change(&db, &mut model, &mut random, 400, shrink).unwrap();
        longest = longest.max(disk.bytes(NAME).unwrap().len());
        if round % 5 == 0 {
            assert_eq!(rows(&db).unwrap(), model, "round {round}");
        }
        if round % 7 == 0 {
            let unclean = disk.fork();
            drop(db);
            if round % 2 == 0 {
                disk = unclean;
            }
            db = database(pages_of(&disk)).unwrap();
            assert_eq!(rows(&db).unwrap(), model, "round {round}");
        }
    }
    assert!(longest as u64 > file_bytes(2 * GROUP_PAGES));
}

#[test]
fn a_database_is_read_without_writing_to_it() {
    let (disk, pages) = fresh();
    let mut random = Random(2);
    let mut model = Rows::new();
    let db = database(pages).unwrap();
    for _ in 0..5 {
        change(&db, &mut model, &mut random, 400, false).unwrap();
    }
    let unclean = disk.fork();
    drop(db);
    for disk in [disk, unclean] {
        let before = disk.bytes(NAME).unwrap();
        let file = disk.open(NAME, Access::Read).unwrap();
        let refused = database(CheckedPages::new(file.clone(), KEY)).unwrap_err();
        assert!(refused.to_string().contains("permission denied"));
        let db = database(CheckedPages::read_only(file, KEY).unwrap()).unwrap();
        assert_eq!(rows(&db).unwrap(), model);
        drop(db);
        assert!(before == disk.bytes(NAME).unwrap());
    }
}

#[test]
fn readers_and_a_writer_do_not_disturb_each_other() {
    let (disk, pages) = fresh();
    let mut random = Random(3);
    let mut model = Rows::new();
    // Hardly any cache: nearly every read of a page comes here.
    let db = Builder::new()
        .set_cache_size(16 << 10)
        .create_with_backend(pages)
        .unwrap();
    change(&db, &mut model, &mut random, 1000, false).unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    // Each value is one byte, repeated.
                    for value in rows(&db).unwrap().values() {
                        assert!(value.iter().all(|byte| *byte == value[0]));
                    }
                }
            });
        }
        for round in 0..25 {
            change(&db, &mut model, &mut random, 200, round % 5 == 4).unwrap();
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    assert_eq!(rows(&db).unwrap(), model);
    drop(db);
    assert_eq!(rows(&database(pages_of(&disk)).unwrap()).unwrap(), model);
}
