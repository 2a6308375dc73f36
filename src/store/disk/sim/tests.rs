//! What survives and what does not, one rule of the model at a time.

use std::collections::BTreeSet;

use super::super::{Fault, FaultKind, read_whole};
use super::*;

const SEEDS: u64 = 200;

fn disk_with(name: &str, bytes: &[u8]) -> (SimDisk, Arc<dyn DiskFile>) {
    let live = MemoryDisk::new();
    live.set_bytes(name, bytes.to_vec());
    let disk = SimDisk::over(live);
    let file = disk.open(name, Access::Write).unwrap();
    (disk, file)
}

/// All that may be left of a file after the journal so far.
fn left(disk: &SimDisk, name: &str, survivors: Survivors) -> BTreeSet<Option<Vec<u8>>> {
    (0..SEEDS)
        .map(|seed| disk.image(disk.mark(), survivors, seed).bytes(name))
        .collect()
}

#[test]
fn a_sync_makes_bytes_and_length_durable_and_no_name() {
    let disk = SimDisk::new();
    let file = disk.create("a").unwrap();
    file.write_at(0, b"bytes").unwrap();
    file.sync().unwrap();
    let lost = disk.image(disk.mark(), Survivors::None, 0);
    assert_eq!(lost.bytes("a"), None);
    let kept = disk.image(disk.mark(), Survivors::All, 0);
    assert_eq!(kept.bytes("a").unwrap(), b"bytes");
    disk.sync_dir("").unwrap();
    file.write_at(5, b" more").unwrap();
    file.truncate(2).unwrap();
    let lost = disk.image(disk.mark(), Survivors::None, 0);
    assert_eq!(lost.bytes("a").unwrap(), b"bytes");
    let kept = disk.image(disk.mark(), Survivors::All, 0);
    assert_eq!(kept.bytes("a").unwrap(), b"by");
    // Every earlier moment is still there.
    assert_eq!(
        disk.image(disk.mark() - 1, Survivors::All, 0).bytes("a"),
        Some(b"bytes more".to_vec())
    );
    assert!(disk.image(0, Survivors::All, 0).bytes("a").is_none());
}

#[test]
fn names_survive_in_order_and_each_directory_by_itself() {
    let disk = SimDisk::new();
    assert!(disk.create("d/a").is_err(), "there is no such directory");
    disk.create_dir("d").unwrap();
    disk.create("d/a").unwrap();
    disk.rename("d/a", "d/b").unwrap();
    disk.create("d/c").unwrap();
    disk.create("top").unwrap();
    let mut seen = BTreeSet::new();
    for seed in 0..SEEDS {
        let image = disk.image(disk.mark(), Survivors::Subset, seed);
        let of = |dir| image.list(dir).unwrap();
        assert!(of("").is_empty() || of("") == ["top"]);
        seen.insert((of(""), of("d")));
    }
    let inside: BTreeSet<_> = seen.iter().map(|(_, names)| names.join(" ")).collect();
    let inside: Vec<_> = inside.iter().map(String::as_str).collect();
    assert_eq!(inside, ["", "a", "b", "b c"]);
    // A directory that is lost takes everything with it, synced or not.
    disk.sync_dir("d").unwrap();
    let lost = disk.image(disk.mark(), Survivors::None, 0);
    assert!(lost.list("d").unwrap().is_empty());
    disk.sync_dir("").unwrap();
    let kept = disk.image(disk.mark(), Survivors::None, 0);
    assert_eq!(kept.list("d").unwrap(), ["b", "c"]);
    // A name that was removed may come back, with its file.
    disk.remove("d/b").unwrap();
    let back = disk.image(disk.mark(), Survivors::None, 0);
    assert_eq!(back.list("d").unwrap(), ["b", "c"]);
}

#[test]
fn a_rename_without_its_bytes_is_an_empty_file_in_place_of_the_old() {
    let (disk, _) = disk_with("note", b"old");
    let file = disk.create("note.new").unwrap();
    file.write_at(0, b"new").unwrap();
    disk.rename("note.new", "note").unwrap();
    let left = left(&disk, "note", Survivors::Subset);
    for expected in [&b"old"[..], b"new", b"", &[0; 3]] {
        assert!(left.contains(&Some(expected.to_vec())), "{expected:?}");
    }
    assert_eq!(left.len(), 4);
}

#[test]
fn writes_are_torn_at_sectors_of_the_file() {
    let old = vec![b'o'; 2048];
    let (disk, file) = disk_with("a", &old);
    file.write_at(300, &[b'n'; 1000]).unwrap();
    let torn = left(&disk, "a", Survivors::Torn512);
    assert_eq!(torn.len(), 8, "three sectors, old or new");
    for bytes in torn.into_iter().flatten() {
        for (from, to) in [(300, 512), (512, 1024), (1024, 1300)] {
            let part = &bytes[from..to];
            assert!(part.iter().all(|b| *b == part[0]));
        }
        assert_eq!((&bytes[..300], &bytes[1300..]), (&old[..300], &old[1300..]));
    }
    assert_eq!(left(&disk, "a", Survivors::Torn4096).len(), 2);
    // Prefix: nothing, up to a sector's end, or all.
    assert_eq!(left(&disk, "a", Survivors::Prefix).len(), 4);
    // Bytes that were there before are there whatever survives.
    let (disk, file) = disk_with("a", &old);
    file.write_at(300, &[b'o'; 1000]).unwrap();
    for survivors in Survivors::ALL {
        assert_eq!(left(&disk, "a", survivors), [Some(old.clone())].into());
    }
}

#[test]
fn a_sector_with_a_later_write_has_the_earlier_ones() {
    let (disk, file) = disk_with("a", &[b'o'; 512]);
    file.write_at(0, b"1").unwrap();
    file.write_at(1, b"2").unwrap();
    let torn = left(&disk, "a", Survivors::Torn512);
    let starts: BTreeSet<_> = torn.iter().flatten().map(|b| b[..2].to_vec()).collect();
    assert_eq!(
        starts,
        [b"oo".to_vec(), b"1o".to_vec(), b"12".to_vec()].into()
    );
}

#[test]
fn a_file_may_have_grown_without_its_bytes() {
    let (disk, file) = disk_with("a", b"");
    file.write_at(0, &[b'n'; 1024]).unwrap();
    let lens = |survivors| -> BTreeSet<usize> {
        let left = left(&disk, "a", survivors);
        left.iter().flatten().map(Vec::len).collect()
    };
    assert_eq!(lens(Survivors::Subset), [0, 1024].into());
    assert_eq!(lens(Survivors::Torn512), [0, 512, 1024].into());
    let zeros = left(&disk, "a", Survivors::Subset).contains(&Some(vec![0; 1024]));
    assert!(zeros);
    file.sync().unwrap();
    file.truncate(100).unwrap();
    assert_eq!(lens(Survivors::Torn512), [100, 1024].into());
    // Growing by `truncate` is no write: only the length is new.
    file.sync().unwrap();
    file.truncate(300).unwrap();
    assert_eq!(lens(Survivors::Torn512), [100, 300].into());
}

#[test]
fn what_a_failed_sync_lost_no_later_sync_brings_back() {
    let mut kept = BTreeSet::new();
    for before in 0..20 {
        let (disk, file) = disk_with("a", b"o");
        for _ in 0..before {
            disk.sync_dir("").unwrap();
        }
        file.write_at(0, b"n").unwrap();
        let fault = |fault| disk.live().set_fault(fault);
        fault(Some(Fault {
            kind: FaultKind::Sync,
            after: 0,
            error: io::ErrorKind::Other,
        }));
        file.sync().unwrap_err();
        fault(None);
        file.sync().unwrap();
        // The cache has it all the same.
        assert_eq!(read_whole(&disk, "a", 9).unwrap(), b"n");
        let left = left(&disk, "a", Survivors::Torn512);
        assert_eq!(left.len(), 1);
        kept.extend(left);
    }
    assert_eq!(kept.len(), 2);
}

#[test]
fn of_a_write_that_failed_the_journal_has_what_was_written() {
    let (disk, file) = disk_with("a", b"old");
    disk.live().set_capacity(Some(5));
    file.write_at(3, b"12345").unwrap_err();
    file.extend(5, 9).unwrap_err();
    let kept = disk.image(disk.mark(), Survivors::All, 0);
    assert_eq!(kept.bytes("a").unwrap(), b"old12");
    assert_eq!(disk.mark(), 1);
}

#[test]
fn private_files_are_durable_at_once_and_images_do_not_share() {
    let disk = SimDisk::new();
    disk.create_private("key", b"secret").unwrap();
    let image = disk.image(1, Survivors::None, 0);
    assert_eq!(image.read_private("key", 9).unwrap(), b"secret");
    let file = image.open("key", Access::Write).unwrap();
    file.write_at(0, b"x").unwrap();
    assert_eq!(
        disk.image(1, Survivors::None, 0).bytes("key").unwrap(),
        b"secret"
    );
    let _held = disk.lock("lock").unwrap();
    assert!(disk.lock("lock").is_err());
}

#[test]
fn an_image_can_be_recorded_in_its_turn() {
    let disk = SimDisk::new();
    disk.create_dir("d").unwrap();
    let file = disk.create("d/a").unwrap();
    disk.sync_dir("").unwrap();
    disk.sync_dir("d").unwrap();
    file.write_at(0, b"one").unwrap();
    let again = SimDisk::over(disk.image(disk.mark(), Survivors::All, 0));
    let file = again.open("d/a", Access::Write).unwrap();
    file.write_at(3, b"two").unwrap();
    again.create("d/b").unwrap();
    let lost = again.image(again.mark(), Survivors::None, 0);
    // What survived the first loss is durable in the second.
    assert_eq!(lost.bytes("d/a").unwrap(), b"one");
    assert_eq!(lost.bytes("d/b"), None);
    let mut replay = again.replay();
    assert_eq!((replay.len(), replay.is_empty()), (2, false));
    replay.advance(1);
    assert_eq!(
        replay.image(Survivors::All, 0).bytes("d/a").unwrap(),
        b"onetwo"
    );
    assert_eq!(replay.story(9).lines().count(), 1);
}

#[test]
fn a_process_that_dies_leaves_its_cache_and_a_loss_of_power_then_takes_it() {
    let (disk, file) = disk_with("a", b"old");
    file.write_at(0, b"new").unwrap();
    disk.create("b").unwrap();
    let mut replay = disk.replay();
    replay.advance(disk.mark());
    let restarted = replay.restart();
    assert_eq!(restarted.mark(), 0);
    assert_eq!(read_whole(&restarted, "a", 9).unwrap(), b"new");
    assert_eq!(restarted.list("").unwrap(), ["a", "b"]);
    let lost = restarted.image(0, Survivors::None, 0);
    assert_eq!(
        (lost.bytes("a"), lost.bytes("b")),
        (Some(b"old".to_vec()), None)
    );
    // Its successor can make it durable.
    let file = restarted.open("a", Access::Write).unwrap();
    file.sync().unwrap();
    restarted.sync_dir("").unwrap();
    let kept = restarted.image(restarted.mark(), Survivors::None, 0);
    assert_eq!(
        (kept.bytes("a"), kept.bytes("b")),
        (Some(b"new".to_vec()), Some(Vec::new()))
    );
    // Files that it makes are other files.
    restarted.create("c").unwrap().write_at(0, b"c").unwrap();
    let kept = restarted.image(restarted.mark(), Survivors::All, 0);
    assert_eq!(
        (kept.bytes("b"), kept.bytes("c")),
        (Some(Vec::new()), Some(b"c".to_vec()))
    );
}
