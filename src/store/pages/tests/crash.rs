//! Loss of power at every sync of a run: whatever subset of the writes since
//! the sync before survives, the database opens and holds a committed state.
//!
//! The disk of this test keeps a journal. An image is what was durable, and
//! some of the writes since; lengths change in order, and a change of length
//! may be lost only with all that follow it.

use std::sync::Mutex;

use super::model::{Random, Rows, change, database, rows};
use super::*;

#[derive(Clone, Debug)]
enum Event {
    Write(u64, Vec<u8>),
    Length(u64),
    Sync,
    /// A transaction begins, which leads to this state.
    Begin(usize),
    /// It is acknowledged.
    Done(usize),
}

#[derive(Debug)]
struct Journal {
    bytes: Mutex<Vec<u8>>,
    events: Mutex<Vec<Event>>,
}

impl Journal {
    fn note(&self, event: Event) {
        self.events.lock().unwrap().push(event);
    }
}

fn apply(bytes: &mut Vec<u8>, event: &Event) {
    match event {
        Event::Write(at, data) => write(bytes, *at, data),
        Event::Length(len) => bytes.resize(usize::try_from(*len).unwrap(), 0),
        _ => (),
    }
}

/// Writes what lies inside the file: a lost growth takes its bytes with it.
fn write(bytes: &mut [u8], at: u64, data: &[u8]) {
    let at = usize::try_from(at).unwrap().min(bytes.len());
    let len = data.len().min(bytes.len() - at);
    bytes[at..at + len].copy_from_slice(&data[..len]);
}

impl DiskFile for Journal {
    fn len(&self) -> io::Result<u64> {
        Ok(self.bytes.lock().unwrap().len() as u64)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let bytes = self.bytes.lock().unwrap();
        let at = usize::try_from(offset).unwrap().min(bytes.len());
        let n = buf.len().min(bytes.len() - at);
        buf[..n].copy_from_slice(&bytes[at..at + n]);
        Ok(n)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut bytes = self.bytes.lock().unwrap();
        assert!(offset + data.len() as u64 <= bytes.len() as u64);
        write(&mut bytes, offset, data);
        self.note(Event::Write(offset, data.to_vec()));
        Ok(())
    }

    fn extend(&self, _from: u64, _to: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn sync(&self) -> io::Result<()> {
        self.note(Event::Sync);
        Ok(())
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        let event = Event::Length(len);
        apply(&mut self.bytes.lock().unwrap(), &event);
        self.note(event);
        Ok(())
    }
}

/// Which writes since the last sync survive.
#[derive(Clone, Copy, Debug)]
enum Survivors {
    None,
    All,
    Prefix,
    Writes,
    Pieces(usize),
}

const SURVIVORS: [Survivors; 8] = [
    Survivors::None,
    Survivors::All,
    Survivors::Prefix,
    Survivors::Writes,
    Survivors::Pieces(512),
    Survivors::Pieces(512),
    Survivors::Pieces(4096),
    Survivors::Pieces(4096),
];

fn image(durable: &[u8], since: &[Event], how: Survivors, random: &mut Random) -> Vec<u8> {
    let mut bytes = durable.to_vec();
    let prefix = random.below(since.len() as u64 + 1);
    // How likely a piece survives, in sixteenths.
    let odds = 1 + random.below(15);
    let mut length_lost = false;
    for (n, event) in since.iter().enumerate() {
        let survives = match how {
            Survivors::None => false,
            Survivors::All => true,
            Survivors::Prefix => (n as u64) < prefix,
            _ => random.below(16) < odds,
        };
        match (event, how) {
            (Event::Length(_), _) => {
                length_lost |= !survives;
                if !length_lost {
                    apply(&mut bytes, event);
                }
            }
            (Event::Write(at, data), Survivors::Pieces(size)) => {
                for (i, piece) in data.chunks(size).enumerate() {
                    if random.below(16) < odds {
                        write(&mut bytes, at + (i * size) as u64, piece);
                    }
                }
            }
            _ if survives => apply(&mut bytes, event),
            _ => (),
        }
    }
    bytes
}

/// Opens an image: it must hold one of the states, and be fit for more.
fn check(bytes: Vec<u8>, states: &[Rows], allowed: [usize; 2], change_it: bool) {
    let disk = MemoryDisk::new();
    disk.set_bytes(NAME, bytes);
    let db = database(pages_of(&disk)).unwrap();
    let mut found = rows(&db).unwrap();
    assert!(
        allowed.iter().any(|&state| states[state] == found),
        "{} rows, allowed are states {allowed:?}",
        found.len()
    );
    if change_it {
        change(&db, &mut found, &mut Random(9), 100, false).unwrap();
        assert_eq!(rows(&db).unwrap(), found);
        drop(db);
        let db = database(pages_of(&disk)).unwrap();
        assert_eq!(rows(&db).unwrap(), found);
    }
}

/// A run from a file on: its events, and the states it went through.
fn run(bytes: Vec<u8>, states: &mut Vec<Rows>, random: &mut Random, close: bool) -> Vec<Event> {
    let journal = Arc::new(Journal {
        bytes: Mutex::new(bytes),
        events: Mutex::default(),
    });
    let db = database(CheckedPages::new(journal.clone(), KEY)).unwrap();
    let mut model = rows(&db).unwrap();
    assert!(states.contains(&model));
    states.push(model.clone());
    journal.note(Event::Done(states.len() - 1));
    for round in 0..10u64 {
        // Many small ones; one that makes the file grow, some that shrink it.
        let changes =
            [40, 15, 1, 5000, 600, 3000, 40, 2000, 10, 40][usize::try_from(round).unwrap()];
        journal.note(Event::Begin(states.len()));
        let shrink = round == 5 || round == 7;
        change(&db, &mut model, random, changes, shrink).unwrap();
        states.push(model.clone());
        journal.note(Event::Done(states.len() - 1));
    }
    if close {
        drop(db);
    }
    // Without a clean close the journal ends here all the same.
    std::mem::take(&mut *journal.events.lock().unwrap())
}

#[test]
fn any_loss_of_power_leaves_a_committed_state() {
    let mut random = Random(10);
    let mut states = vec![Rows::new()];
    let (disk, pages) = fresh();
    drop(database(pages).unwrap());
    let mut start = disk.bytes(NAME).unwrap();
    let (mut images, mut lengths) = (0, std::collections::BTreeSet::new());
    for life in 0..4 {
        let events = run(start.clone(), &mut states, &mut random, life % 2 == 0);
        let mut durable = start.clone();
        let mut since: Vec<Event> = Vec::new();
        let mut allowed = [states.len() - 11; 2];
        let mut next = None;
        for event in events {
            match event {
                Event::Begin(state) => allowed[1] = state,
                Event::Done(state) => allowed = [state; 2],
                Event::Sync => {
                    // More where more than the header is at stake.
                    let times = if since.len() < 4 { 2 } else { 4 };
                    for how in SURVIVORS.repeat(times) {
                        let bytes = image(&durable, &since, how, &mut random);
                        lengths.insert(bytes.len());
                        if random.below(60) == 0 {
                            next = Some(bytes.clone());
                        }
                        check(bytes, &states, allowed, images % 8 == 0);
                        images += 1;
                    }
                    for event in since.drain(..) {
                        apply(&mut durable, &event);
                    }
                }
                _ => since.push(event),
            }
        }
        // The next life starts from one of the images.
        start = next.unwrap_or(durable);
    }
    assert!(images >= 2000, "{images} images");
    // Into the second group, and back.
    assert!(lengths.len() > 5, "{lengths:?}");
    assert!(lengths.last().unwrap() > &(600 * PAGE_BYTES), "{lengths:?}");
}
