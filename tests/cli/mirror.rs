//! `serve` and `mirror` between processes over loopback.

use std::fmt::Write as _;
use std::fs;

use crate::support::{Place, Running, SAMPLE, Server, command, fields, run_with};

/// A source with the sample, and a mirror's node key.
fn source_and_mirror() -> (Place, String, String, String) {
    let place = Place::new();
    place.with_sample("s");
    let (origin, peer) = place.keys("s");
    place.run("m", &["init", "--mirror", &origin]).expect(0);
    let node = place.keys("m").1;
    (place, origin, peer, node)
}

#[test]
fn a_mirror_becomes_equal_and_then_pulls_only_what_is_new() {
    let (place, origin, peer, node) = source_and_mirror();
    let server = place.serve("s", &[&node]);
    let first = place.pull("m", &server, &peer, &origin).expect(0).json();
    let mut names = fields(&first);
    names.sort_unstable();
    let want = [
        "bytes",
        "directory_root",
        "entries",
        "epoch",
        "origin",
        "seconds",
    ];
    assert_eq!(names, want);
    assert_eq!(first["origin"], "test.example");
    assert_eq!(first["entries"], 2000);
    let head = |name: &str| place.run(name, &["head"]).expect(0).stdout;
    assert_eq!(head("m"), head("s"));
    let again = place.pull("m", &server, &peer, &origin).expect(0).json();
    assert_eq!(again["entries"], 0);
    assert!(again["bytes"].as_u64().unwrap() < 1000, "{again}");
    assert_eq!(server.stop("TERM"), 0);

    let append = [
        "append",
        "--context",
        "notes",
        "--key",
        "k",
        "--payload",
        "one more",
    ];
    place.run("s", &append).expect(0);
    let server = place.serve("s", &[&node]);
    let more = place.pull("m", &server, &peer, &origin).expect(0).json();
    assert_eq!(more["entries"], 1);
    assert!(more["bytes"].as_u64().unwrap() < 4000, "{more}");
    let root = |name: &str| {
        place.run(name, &["head", "--json"]).expect(0).json()["directory_root"].clone()
    };
    assert_eq!(root("m"), root("s"));
    for name in ["s", "m"] {
        let audit = place.run(name, &["audit", "--json"]).expect(0).json();
        assert_eq!(
            (&audit["entries"], &audit["contexts"]),
            (&2001.into(), &2.into())
        );
        let get = ["get", "--context", "packages", "--json"];
        let got = place.run(name, &get).expect(0).stdout;
        assert_eq!(got, place.run("s", &get).expect(0).stdout);
    }
    assert_eq!(server.stop("INT"), 0);
}

#[test]
fn a_mirror_serves_further_mirrors() {
    let (place, origin, peer, node) = source_and_mirror();
    let server = place.serve("s", &[&node]);
    place.pull("m", &server, &peer, &origin).expect(0);
    drop(server);
    place.run("n", &["init", "--mirror", &origin]).expect(0);
    // Through an allow file this time.
    let file = place.path("allow");
    fs::write(&file, format!("# mirrors\n\n{}  # n\n", place.keys("n").1)).unwrap();
    let path = file.to_str().unwrap();
    let serve = ["serve", "--listen", "127.0.0.1:0", "--allow-file", path];
    let server = Server::start(place.command("m", &serve));
    let pulled = place.pull("n", &server, &node, &origin).expect(0).json();
    assert_eq!(pulled["entries"], 2000);
    place.run("n", &["audit"]).expect(0);

    fs::write(&file, "no key\n").unwrap();
    place
        .run("s", &serve)
        .refuses(2, "line 1: a node key has 64");
}

#[test]
fn a_mirror_follows_until_it_is_told_to_stop() {
    let (place, origin, peer, node) = source_and_mirror();
    let server = place.serve("s", &[&node]);
    let address = server.address.clone();
    let follow = [
        "mirror", "--from", &address, "--peer", &peer, "--origin", &origin, "--follow", "--json",
    ];
    let mirror = Running::start(place.command("m", &follow));
    let line =
        |mirror: &Running| -> serde_json::Value { serde_json::from_str(&mirror.line()).unwrap() };
    let first = line(&mirror);
    assert_eq!(first["entries"], 2000);
    let url = format!("http://{}", server.grpc);
    for n in 0..5 {
        let payload = format!("number {n}");
        let append = [
            "append",
            "--server",
            &url,
            "--context",
            "c",
            "--key",
            "k",
            "--payload",
            &payload,
        ];
        let mut through = command();
        through.args(append);
        run_with(through, b"").expect(0);
        // A heartbeat may come between.
        while line(&mirror)["entries"] == 0 {}
    }
    assert_eq!(mirror.stop("TERM").0, 0);
    assert_eq!(place.size("m", "c"), 5);
    place.run("m", &["audit"]).expect(0);
    assert_eq!(server.stop("TERM"), 0);
    // Neither, and both.
    let neither = &follow[..7];
    place.run("m", neither).refuses(2, "--once");
    let both = [&follow[..], &["--once"]].concat();
    place.run("m", &both).refuses(2, "cannot be used with");
}

#[test]
fn an_allow_file_is_followed() {
    let (place, origin, peer, node) = source_and_mirror();
    let file = place.path("allow");
    // Replaced as a whole, so that no half of it is ever read.
    let write = |text: &str| {
        fs::write(place.path("allow.new"), text).unwrap();
        fs::rename(place.path("allow.new"), &file).unwrap();
    };
    write("# nobody yet\n");
    let path = file.to_str().unwrap();
    let serve = ["serve", "--listen", "127.0.0.1:0", "--allow-file", path];
    let server = Server::start(place.command("s", &serve));
    // Each look takes a second at most; a pull that is refused is tried again.
    let pull_until = |status: i32| {
        let tries = 0..200;
        let done = tries
            .map(|_| place.pull("m", &server, &peer, &origin))
            .find(|ran| ran.status == status);
        done.unwrap_or_else(|| panic!("never {status}"));
    };
    pull_until(3);
    write(&format!("{node}\n"));
    pull_until(0);
    // What is no list changes nothing, nor does a file that is gone.
    write("no key\n");
    place.pull("m", &server, &peer, &origin).expect(0);
    fs::remove_file(&file).unwrap();
    place.pull("m", &server, &peer, &origin).expect(0);
    write("# nobody\n");
    pull_until(3);
}

#[test]
fn a_wrong_key_anywhere_is_refused() {
    let (place, origin, peer, node) = source_and_mirror();
    place
        .run("o", &["init", "--name", "test.example"])
        .expect(0);
    let (other_origin, other_peer) = place.keys("o");
    let server = place.serve("s", &[&node]);
    // Not the source we pinned.
    place
        .pull("m", &server, &other_peer, &origin)
        .refuses(3, "This node's key is");
    // A mirror of another origin, and an own store.
    place
        .pull("m", &server, &peer, &other_origin)
        .refuses(3, "this is the mirror of");
    place
        .pull("s", &server, &peer, &origin)
        .refuses(3, "this is the own store of");
    // Not on the allowlist; the directory was empty and became a mirror.
    let refused = place.pull("x", &server, &peer, &origin);
    refused.refuses(3, &format!("This node's key is {}", place.keys("x").1));
    // A source that serves another origin than it is asked for: same name,
    // another key.
    fs::create_dir(place.path("y")).unwrap();
    fs::copy(
        place.path("m").join("node.key"),
        place.path("y").join("node.key"),
    )
    .unwrap();
    place
        .pull("y", &server, &peer, &other_origin)
        .refuses(1, "peer: head");
    assert_eq!(place.run("y", &["contexts"]).expect(0).text(), "");
    // Nothing of all this was stored.
    for name in ["m", "x", "y"] {
        assert_eq!(
            place.run(name, &["audit", "--json"]).expect(0).json()["entries"],
            0
        );
    }
    place.pull("m", &server, &peer, &origin).expect(0);
}

#[test]
fn arguments_are_judged_before_anything_is_made() {
    let place = Place::new();
    let key = "ab".repeat(32);
    let cases = [
        ["127.0.0.1:1", &key, "no vkey"],
        ["127.0.0.1:1", "no key", "o+00000000+AQ=="],
        ["no address", &key, "o+00000000+AQ=="],
    ];
    for [from, peer, origin] in cases {
        let mirror = [
            "mirror", "--from", from, "--peer", peer, "--origin", origin, "--once",
        ];
        place.run("m", &mirror).expect(2);
        place.run("m", &mirror[..7]).expect(2);
    }
    assert!(!place.path("m").exists());
}

#[test]
fn an_empty_allowlist_is_said_and_lets_nobody_in() {
    let (place, origin, peer, _) = source_and_mirror();
    let server = place.serve("s", &[]);
    place.pull("m", &server, &peer, &origin).expect(3);
}

#[test]
fn many_contexts_travel_in_one_sync() {
    let place = Place::new();
    place.run("s", &["init"]).expect(0);
    let sample = fs::read_to_string(SAMPLE).unwrap();
    let mut spread = String::new();
    for (at, line) in sample.lines().enumerate() {
        let rest = &line[1..];
        writeln!(spread, "{{\"context\":\"job-{}\",{rest}", at % 1000).unwrap();
    }
    place
        .run_in("s", &["append", "--ndjson", "-"], spread.as_bytes())
        .expect(0);
    let (origin, peer) = place.keys("s");
    place.run("m", &["init", "--mirror", &origin]).expect(0);
    let server = place.serve("s", &[&place.keys("m").1]);
    let pulled = place.pull("m", &server, &peer, &origin).expect(0).json();
    assert_eq!(pulled["entries"], 2000);
    let contexts = |name: &str| place.run(name, &["contexts"]).expect(0).stdout;
    assert_eq!(contexts("m"), contexts("s"));
}
