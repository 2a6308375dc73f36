//! Keys that change, stores that were rolled back, origins that fork: through
//! the binary.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::{Place, Ran, Server, command, copy_dir, run_with};

pub(crate) fn append(place: &Place, name: &str, context: &str, payload: &str) {
    let one = [
        "append",
        "--context",
        context,
        "--key",
        "k",
        "--payload",
        payload,
    ];
    place.run(name, &one).expect(0);
}

/// An own store `s` with the sample, and its mirror `m`, which has all of it.
pub(crate) struct Pair {
    pub(crate) place: Place,
    pub(crate) origin: String,
    pub(crate) node: String,
    pub(crate) mirror_node: String,
}

impl Pair {
    pub(crate) fn new() -> Self {
        let place = Place::new();
        place.with_sample("s");
        let (origin, node) = place.keys("s");
        place.run("m", &["init", "--mirror", &origin]).expect(0);
        let (_, mirror_node) = place.keys("m");
        Self {
            place,
            origin,
            node,
            mirror_node,
        }
    }

    pub(crate) fn serve(&self, name: &str) -> Server {
        self.place.serve(name, &[&self.mirror_node])
    }

    pub(crate) fn pull(&self, server: &Server) -> Ran {
        self.place.pull("m", server, &self.node, &self.origin)
    }

    fn evidence(&self) -> Vec<PathBuf> {
        let names = fs::read_dir(self.place.path("m")).unwrap();
        let paths = names.map(|name| name.unwrap().path());
        let is = |path: &PathBuf| path.extension().is_some_and(|end| end == "evidence");
        paths.filter(is).collect()
    }
}

#[test]
fn a_mirror_follows_a_rotation() {
    let pair = Pair::new();
    let place = &pair.place;
    {
        let server = pair.serve("s");
        pair.pull(&server).expect(0);
    }
    let old_key = fs::read(place.path("s").join("origin.key")).unwrap();
    let old_head = place.run("s", &["head"]).expect(0).stdout;
    let rotated = place.run("s", &["rotate-key", "--json"]).expect(0).json();
    assert_eq!(rotated["old_vkey"], pair.origin.as_str());
    let new_vkey = rotated["new_vkey"].as_str().unwrap().to_owned();
    append(place, "s", "packages", "after");
    let server = pair.serve("s");
    pair.pull(&server).expect(0);
    assert_eq!(place.size("m", "packages"), 2001);
    // A mirror that pins the new key needs no older one.
    place.run("n", &["init", "--mirror", &new_vkey]).expect(0);
    let (_, node) = place.keys("n");
    drop(server);
    let server = place.serve("s", &[&node]);
    place.pull("n", &server, &pair.node, &new_vkey).expect(0);
    drop(server);
    place.run("m", &["audit"]).expect(0);
    place.run("n", &["audit"]).expect(0);

    // A proof made now holds under both keys; the old head under the old one.
    let file = place.path("entry.proof");
    let prove = ["prove", "--context", "packages", "--sequence", "2001", "-o"];
    let prove = [&prove[..], &[file.to_str().unwrap()]].concat();
    place.run("s", &prove).expect(0);
    let verify = |file: &Path, key: &str| {
        let mut verify = command();
        verify.arg("verify").arg(file).args(["--origin", key]);
        run_with(verify, b"")
    };
    for key in [&pair.origin, &new_vkey] {
        let ran = verify(&file, key).expect(0);
        let through = format!(", signed by {new_vkey}, a rotation after the pinned key\n");
        let is_through = ran.text().ends_with(&through);
        assert_eq!(is_through, *key == pair.origin, "{}", ran.text());
    }
    let head = place.path("old.head");
    fs::write(&head, old_head).unwrap();
    verify(&head, &pair.origin).expect(0);
    let ran = verify(&head, &new_vkey).refuses(1, "not signed by");
    let hint = "give the key that counted when the file was made";
    assert!(ran.stderr.contains(hint), "{}", ran.stderr);
    // The old key is of no use any more.
    fs::write(place.path("s").join("origin.key"), old_key).unwrap();
    place
        .run(
            "s",
            &["append", "--context", "c", "--key", "k", "--payload", "p"],
        )
        .refuses(3, "origin.key is");
}

/// Whoever asks `keys` for the key to verify with must get the one that counts.
#[test]
fn keys_names_the_key_that_counts() {
    let pair = Pair::new();
    let place = &pair.place;
    let same = place.run("s", &["keys", "--json"]).expect(0).json();
    assert_eq!(same["pinned_vkey"], same["origin_vkey"]);
    let ran = place.run("s", &["keys"]).expect(0);
    assert!(!ran.text().contains("pinned"), "{}", ran.text());

    let rotated = place.run("s", &["rotate-key", "--json"]).expect(0).json();
    let server = pair.serve("s");
    pair.pull(&server).expect(0);
    // Beside the server, and of the mirror.
    for name in ["s", "m"] {
        let keys = place.run(name, &["keys", "--json"]).expect(0).json();
        assert_eq!(keys["origin_vkey"], rotated["new_vkey"], "{name}");
        assert_eq!(keys["pinned_vkey"], rotated["old_vkey"], "{name}");
        let ran = place.run(name, &["keys"]).expect(0);
        let lines: Vec<&str> = ran.text().lines().collect();
        let [origin, pinned, node] = &lines[..] else {
            panic!("{lines:?}");
        };
        let new_vkey = rotated["new_vkey"].as_str().unwrap();
        assert!(origin.starts_with(&format!("origin key  {new_vkey} (")));
        assert_eq!(*pinned, format!("pinned key  {}", pair.origin));
        assert!(node.starts_with("node key    "));
    }
    drop(server);
    append(place, "s", "packages", "after");
    let head = place.path("new.head");
    fs::write(&head, place.run("s", &["head"]).expect(0).stdout).unwrap();
    let (origin, _) = place.keys("s");
    let mut verify = command();
    verify.arg("verify").arg(&head).args(["--origin", &origin]);
    run_with(verify, b"").expect(0);
}

#[test]
fn a_rolled_back_store_is_frozen() {
    let pair = Pair::new();
    let place = &pair.place;
    copy_dir(&place.path("s"), &place.path("backup"));
    append(place, "s", "packages", "lost");
    {
        let server = pair.serve("s");
        pair.pull(&server).expect(0);
    }
    // The mirror lets the source in, and is asked before anything is signed.
    let mirror = place.serve("m", &[&pair.node]);
    let guard = format!("{}@{}", pair.mirror_node, mirror.address);
    let write = |name: &str, guard: &[&str]| {
        let one = [
            "append",
            "--context",
            "packages",
            "--key",
            "k",
            "--payload",
            "p",
        ];
        place.run(name, &[guard, &one[..]].concat())
    };
    write("s", &["--guard", &guard, "--require-guard"]).expect(0);
    let ran = write("backup", &["--guard", &guard]).refuses(4, "the store is frozen");
    assert!(ran.stderr.contains("it lacks"), "{}", ran.stderr);
    // Frozen it stays, whoever is asked; reads go on.
    write("backup", &[]).refuses(4, "the store is frozen");
    place.run("backup", &["rotate-key"]).refuses(4, "frozen");
    assert_eq!(place.size("backup", "packages"), 2000);
    place
        .run("backup", &["get", "--context", "packages", "--limit", "1"])
        .expect(0);
    drop(mirror);
    // Nobody answers: said, or refused.
    let gone = format!("{}@127.0.0.1:9", pair.mirror_node);
    let ran = write("s", &["--guard", &gone]).expect(0);
    assert!(ran.stderr.contains("unguarded"), "{}", ran.stderr);
    write("s", &["--guard", &gone, "--require-guard"]).refuses(3, "nothing was signed");
    write("s", &["--require-guard"]).refuses(2, "--require-guard needs a --guard");
}

#[test]
fn a_served_store_is_frozen_by_its_mirrors_note() {
    let pair = Pair::new();
    let place = &pair.place;
    copy_dir(&place.path("s"), &place.path("backup"));
    append(place, "s", "packages", "lost");
    {
        let server = pair.serve("s");
        pair.pull(&server).expect(0);
    }
    // The backup is served; the mirror comes and shows what it has.
    let server = pair.serve("backup");
    let _ = pair.pull(&server);
    assert_eq!(server.ended(), 4);
    let one = ["append", "--context", "c", "--key", "k", "--payload", "p"];
    place.run("backup", &one).refuses(4, "the store is frozen");
    assert!(pair.evidence().is_empty());
    assert_eq!(place.size("m", "packages"), 2001);
}

#[test]
fn a_fork_leaves_evidence() {
    let pair = Pair::new();
    let place = &pair.place;
    copy_dir(&place.path("s"), &place.path("other"));
    append(place, "s", "packages", "one");
    {
        let server = pair.serve("s");
        pair.pull(&server).expect(0);
    }
    // The other copy has gone on by itself, and further.
    append(place, "other", "packages", "another");
    append(place, "other", "packages", "and one more");
    copy_dir(&place.path("other"), &place.path("third"));
    {
        let server = pair.serve("other");
        pair.pull(&server).refuses(1, "two histories");
    }
    // The mirror's note has shown the other copy that it is one.
    let one = ["append", "--context", "c", "--key", "k", "--payload", "p"];
    place
        .run("other", &one)
        .refuses(4, "there are two histories");
    let evidence = pair.evidence();
    assert_eq!(evidence.len(), 1, "{evidence:?}");
    let mut verify = command();
    verify
        .arg("verify")
        .arg(&evidence[0])
        .args(["--origin", &pair.origin]);
    let ran = run_with(verify, b"").expect(0);
    assert!(
        ran.text()
            .starts_with("proven: test.example signed two histories")
    );
    // Nothing of it was stored; it is said wherever one looks; reads go on.
    assert_eq!(place.size("m", "packages"), 2001);
    for show in ["contexts", "head"] {
        let ran = place.run("m", &[show]).expect(0);
        assert!(ran.stderr.contains("forked"), "{show}: {}", ran.stderr);
    }
    place
        .run(
            "m",
            &["get", "--context", "packages", "--verify", "--limit", "1"],
        )
        .expect(0);
    place.run("m", &["audit"]).expect(0);
    let honest = pair.serve("s");
    pair.pull(&honest).refuses(1, "forked");
    // An operator looks, names a branch, and it goes on.
    let shown = place.run("m", &["resolve"]).expect(0);
    assert!(shown.text().contains("not resolved"), "{shown:?}");
    let held = place.run("m", &["head", "--json"]).expect(0).json();
    let root = held["directory_root"].as_str().unwrap().to_owned();
    let unknown = "0".repeat(64);
    place
        .run("m", &["resolve", "--branch", &unknown])
        .refuses(3, "no branch");
    place.run("m", &["resolve", "--branch", &root]).expect(0);
    pair.pull(&honest).expect(0);
    drop(honest);
    append(place, "s", "packages", "two");
    let server = pair.serve("s");
    pair.pull(&server).expect(0);
    drop(server);
    assert_eq!(place.size("m", "packages"), 2002);
    // The other branch is known by now: refused, without more evidence.
    append(place, "third", "packages", "still here");
    let server = pair.serve("third");
    pair.pull(&server).refuses(1, "");
    assert_eq!(pair.evidence().len(), 1);
}

#[test]
fn a_fork_at_a_rotation_is_resolved() {
    let pair = Pair::new();
    let place = &pair.place;
    pair.pull(&pair.serve("s")).expect(0);
    copy_dir(&place.path("s"), &place.path("other"));
    for (name, payload) in [("s", "one"), ("other", "another")] {
        append(place, name, "packages", payload);
        place.run(name, &["rotate-key"]).expect(0);
    }
    // The mirror is told of the rotation together with a later head.
    append(place, "s", "packages", "after");
    pair.pull(&pair.serve("s")).expect(0);
    pair.pull(&pair.serve("other")).refuses(1, "two histories");
    assert_eq!(pair.evidence().len(), 1);
    let shown = place.run("m", &["resolve"]).expect(0);
    let (mut held, mut others) = (Vec::new(), Vec::new());
    for line in shown.text().lines() {
        if let Some((_, root)) = line.split_once("directory root ") {
            match root.split_once("  ") {
                Some((root, "(held here)")) => held.push(root),
                _ => others.push(root),
            }
        }
    }
    assert_eq!((held.len(), others.len()), (1, 1), "{}", shown.text());
    place
        .run("m", &["resolve", "--branch", others[0]])
        .refuses(3, "does not hold that branch");
    place.run("m", &["resolve", "--branch", held[0]]).expect(0);
    append(place, "s", "packages", "on");
    pair.pull(&pair.serve("s")).expect(0);
    assert_eq!(place.size("m", "packages"), 2003);
    place.run("m", &["audit"]).expect(0);
}
