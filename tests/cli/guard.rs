//! What mirrors say is heard before anything is written: through the binary.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use converge_ledger::entry::{ContextId, Draft};
use converge_ledger::node::clock::SystemClock;
use converge_ledger::store::disk::RealDisk;
use converge_ledger::store::{Store, StoreOptions};

use crate::support::{Place, Ran, Server, copy_dir, files};
use crate::trust::{Pair, append};

/// A copy of the store `name` as a process leaves it that is killed before it
/// has signed what it has stored.
pub(crate) fn killed(place: &Place, name: &str) -> String {
    let options = StoreOptions {
        checkpoint_every: Duration::from_hours(1),
        ..StoreOptions::new(Arc::new(SystemClock))
    };
    let disk = Arc::new(RealDisk::new(place.path(name)));
    let store = Store::open_with_key_files(disk, options).unwrap().store;
    let draft = Draft::new("k", "unsigned").unwrap();
    let context = ContextId::new("packages").unwrap();
    store.append(vec![(context, draft)]).unwrap();
    let killed = format!("{name}-killed");
    copy_dir(&place.path(name), &place.path(&killed));
    killed
}

fn guarded(place: &Place, name: &str, guard: &[&str]) -> Ran {
    let one = ["append", "--context", "c", "--key", "k", "--payload", "p"];
    place.run(name, &[guard, &one[..]].concat())
}

fn log(place: &Place, name: &str) -> Vec<(PathBuf, Vec<u8>)> {
    files(&place.path(name).join("log"))
}

fn at(node: &str, server: &Server) -> String {
    format!("{node}@{}", server.address)
}

#[test]
fn nothing_is_written_without_an_answer() {
    let pair = Pair::new();
    let place = &pair.place;
    let dead = format!("{}@127.0.0.1:9", pair.mirror_node);
    let name = killed(place, "s");
    let before = log(place, &name);
    let many = vec![dead.as_str(); 65].join(",");
    guarded(place, &name, &["--require-guard"]).refuses(2, "needs a --guard");
    assert!(log(place, &name) == before, "--require-guard alone");
    guarded(place, &name, &["--guard", &many]).refuses(2, "at most 64");
    assert!(log(place, &name) == before, "many guards");
    let ran = guarded(place, &name, &["--require-guard", "--guard", &dead]);
    ran.refuses(3, "nothing was signed");
    assert!(log(place, &name) == before, "no answer");
    // Without it the store is mended, and goes on.
    guarded(place, &name, &[]).expect(0);
    assert!(log(place, &name) != before);
}

#[test]
fn a_rolled_back_store_is_frozen_as_it_is() {
    let pair = Pair::new();
    let place = &pair.place;
    copy_dir(&place.path("s"), &place.path("backup"));
    append(place, "s", "packages", "lost");
    pair.pull(&pair.serve("s")).expect(0);
    let name = killed(place, "backup");
    copy_dir(&place.path(&name), &place.path("without"));
    fs::remove_file(place.path("without").join("head.note")).unwrap();
    let mirror = place.serve("m", &[&pair.node]);
    let guard = at(&pair.mirror_node, &mirror);
    let dead = format!("{}@127.0.0.1:9", pair.mirror_node);
    for name in [name.as_str(), "without"] {
        let before = log(place, name);
        let both = ["--guard", &dead, "--guard", &guard];
        guarded(place, name, &both).refuses(4, "the store is frozen");
        assert!(log(place, name) == before, "{name}");
        assert!(place.path(name).join("frozen.note").exists());
        guarded(place, name, &[]).refuses(4, "the store is frozen");
        assert!(log(place, name) == before, "{name}");
    }
}

#[test]
fn only_what_the_store_knows_is_an_answer() {
    let pair = Pair::new();
    let place = &pair.place;
    copy_dir(&place.path("s"), &place.path("backup"));
    // A mirror that pinned the key after the one that the backup ends with.
    let rotated = place.run("s", &["rotate-key", "--json"]).expect(0).json();
    let new_key = rotated["new_vkey"].as_str().unwrap().to_owned();
    append(place, "s", "packages", "lost");
    place.run("n", &["init", "--mirror", &new_key]).expect(0);
    let (_, node) = place.keys("n");
    {
        let server = place.serve("s", &[&node]);
        place.pull("n", &server, &pair.node, &new_key).expect(0);
    }
    let required = |server: &Server, node: &str| {
        let before = log(place, "backup");
        let ran = guarded(
            place,
            "backup",
            &["--require-guard", "--guard", &at(node, server)],
        );
        let ran = ran.refuses(3, "nothing was signed");
        assert!(log(place, "backup") == before);
        ran.stderr
    };
    let newer = place.serve("n", &[&pair.node]);
    let said = required(&newer, &node);
    assert!(
        said.contains("signed by no key of this store's log"),
        "{said}"
    );
    // A mirror that has not pulled yet.
    let empty = place.serve("m", &[&pair.node]);
    let said = required(&empty, &pair.mirror_node);
    assert!(said.contains("it holds nothing"), "{said}");
    // Another origin.
    place
        .run("o", &["init", "--name", "other.example"])
        .expect(0);
    let (_, node) = place.keys("o");
    let other = place.serve("o", &[&pair.node]);
    let said = required(&other, &node);
    assert!(said.contains("other.example"), "{said}");
    // Nobody is frozen by any of it, and it is said.
    let ran = guarded(place, "backup", &["--guard", &at(&node, &other)]).expect(0);
    assert!(ran.stderr.contains("unguarded"), "{}", ran.stderr);
}

#[test]
fn a_served_store_from_before_a_rotation_is_frozen_by_its_mirror() {
    let pair = Pair::new();
    let place = &pair.place;
    pair.pull(&pair.serve("s")).expect(0);
    copy_dir(&place.path("s"), &place.path("backup"));
    place.run("s", &["rotate-key"]).expect(0);
    append(place, "s", "packages", "lost");
    pair.pull(&pair.serve("s")).expect(0);
    // What the mirror holds is signed by a key that the backup does not know.
    let server = pair.serve("backup");
    let _ = pair.pull(&server);
    assert_eq!(server.ended(), 4);
    guarded(place, "backup", &[]).refuses(4, "the store is frozen");
    assert_eq!(place.size("m", "packages"), 2001);
}
