//! `serve --mirror`: one process with a store of its own and mirrors of others,
//! what it says of itself, and what others read from it.

use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Place, Ran, Server, command, fields, run_with};

/// Nothing that is waited for here takes nearly as long.
const DEADLINE: Duration = Duration::from_mins(2);

/// A source with the sample, an own store, and the key of a mirror.
struct World {
    place: Place,
    origin: String,
    peer: String,
    node: String,
}

impl World {
    fn new() -> Self {
        let place = Place::new();
        place.with_sample("s");
        let (origin, peer) = place.keys("s");
        place
            .run("own", &["init", "--name", "own.example"])
            .expect(0);
        place.run("m", &["init", "--mirror", &origin]).expect(0);
        let node = place.keys("m").1;
        Self {
            place,
            origin,
            peer,
            node,
        }
    }

    /// A file for `--mirror` about the store `m`.
    fn file(&self, source: &str, more: &str) -> String {
        let path = self.place.path("m.toml");
        let mut text = String::new();
        writeln!(text, "data = \"m\"\norigin = \"{}\"", self.origin).unwrap();
        writeln!(text, "source = \"{}@{source}\"", self.peer).unwrap();
        text.push_str(more);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Waits until the store's first status line says what it should.
    fn until(&self, name: &str, what: impl Fn(&Value) -> bool) -> Value {
        let begun = Instant::now();
        loop {
            let lines = self
                .place
                .run(name, &["status", "--json"])
                .expect(0)
                .json_lines();
            let found = lines.into_iter().find(|line| what(line));
            if let Some(line) = found {
                return line;
            }
            assert!(
                begun.elapsed() < DEADLINE,
                "{:?}",
                self.place.run(name, &["status"])
            );
        }
    }

    fn until_state(&self, name: &str, state: &str) -> Value {
        self.until(name, |line| {
            line["origin"] == "test.example" && line["state"] == state
        })
    }
}

fn through(server: &Server, arguments: &[&str]) -> Ran {
    let mut command = command();
    let url = format!("http://{}", server.grpc);
    command.args(arguments).args(["--server", &url]);
    run_with(command, b"")
}

fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

fn the_metrics_say_so(server: &Server) {
    let metrics = get(server.other("metrics"), "/metrics");
    assert!(metrics.starts_with("HTTP/1.1 200"), "{metrics}");
    for line in [
        "converge_ledger_origin_state{origin=\"test.example\",state=\"synced\"} 1",
        "converge_ledger_origin_state{origin=\"test.example\",state=\"stale\"} 0",
        "converge_ledger_origin_entries{origin=\"test.example\"} 2000",
        "converge_ledger_origin_lag_seconds{origin=\"test.example\"} 0.0",
        "converge_ledger_own_entries{origin=\"own.example\"} 1",
        "# UNIT converge_ledger_origin_received_bytes bytes",
    ] {
        assert!(
            metrics.lines().any(|has| has == line),
            "{line} in {metrics}"
        );
    }
    assert!(metrics.ends_with("# EOF\n"));
    assert!(get(server.other("metrics"), "/").starts_with("HTTP/1.1 404"));
}

#[test]
fn one_process_writes_its_own_store_and_mirrors_another() {
    let world = World::new();
    let source = world.place.serve("s", &[&world.node]);
    let file = world.file(&source.address, "");
    let serve = ["serve", "--mirror", &file, "--metrics", "127.0.0.1:0"];
    let server = Server::start(world.place.command("own", &serve));
    let line = world.until_state("own", "synced");
    let want = [
        "directory_root",
        "epoch",
        "lag_entries",
        "lag_seconds",
        "last_error",
        "origin",
        "state",
    ];
    let mut names = fields(&line);
    names.sort_unstable();
    assert_eq!(names, want);
    let head = world.place.run("s", &["head", "--json"]).expect(0).json();
    assert_eq!(line["directory_root"], head["directory_root"]);
    assert_eq!(
        (&line["lag_entries"], &line["last_error"]),
        (&0.into(), &Value::Null)
    );
    // The mirror's own directory says the same.
    world.until_state("m", "synced");

    // What is read through it comes from the mirror; what is written goes to its
    // own store, also under a name that the mirror has.
    let from_mirror = through(&server, &["get", "--context", "packages", "--json"]).expect(0);
    let at_source = world
        .place
        .run("s", &["get", "--context", "packages", "--json"])
        .expect(0);
    assert_eq!(from_mirror.stdout, at_source.stdout);
    let append = [
        "append",
        "--context",
        "packages",
        "--key",
        "k",
        "--payload",
        "own",
    ];
    through(&server, &append).expect(0);
    let own = through(&server, &["get", "--context", "packages", "--json"]).expect(0);
    assert_eq!(own.json()["sequence"], 1);
    let by_origin = [
        "get",
        "--context",
        "packages",
        "--json",
        "--origin",
        "test.example",
    ];
    assert_eq!(
        through(&server, &by_origin).expect(0).stdout,
        at_source.stdout
    );

    // The source knows how far it is.
    let follower = world.until("s", |line| {
        line["follower"] == world.node && line["epoch"].is_u64()
    });
    let want = [
        "address",
        "connected",
        "epoch",
        "follower",
        "lag_entries",
        "lag_seconds",
        "origin",
        "term",
    ];
    let mut names = fields(&follower);
    names.sort_unstable();
    assert_eq!(names, want);
    assert_eq!(
        (&follower["lag_entries"], &follower["term"]),
        (&0.into(), &1.into())
    );

    the_metrics_say_so(&server);

    // New entries come, and the end of the source is noticed.
    let append = [
        "append",
        "--context",
        "notes",
        "--key",
        "k",
        "--payload",
        "more",
    ];
    through(&source, &append).expect(0);
    let epoch = line["epoch"].as_u64();
    world.until("m", |line| {
        line["state"] == "synced" && line["epoch"].as_u64() > epoch
    });
    assert_eq!(source.stop("TERM"), 0);
    let alone = world.until_state("m", "behind");
    assert!(alone["lag_seconds"].as_f64().unwrap() > 0.0, "{alone}");
    assert!(alone["last_error"].is_string(), "{alone}");
    assert_eq!(server.stop("TERM"), 0);
    let ended = world.place.run("m", &["status", "--json"]).expect(0).json();
    assert_eq!(ended["last_error"], "no process follows the origin");
    world.place.run("m", &["audit"]).expect(0);
}

#[test]
fn a_mirror_without_a_store_of_its_own_feeds_the_next_one() {
    let world = World::new();
    let source = world.place.serve("s", &[&world.node]);
    world
        .place
        .run("n", &["init", "--mirror", &world.origin])
        .expect(0);
    let next = world.place.keys("n").1;
    let more = format!("listen = \"127.0.0.1:0\"\nallow = [\"{next}\"]\n");
    let file = world.file(&source.address, &more);
    let mut only = command();
    only.args(["serve", "--mirror", &file]);
    let server = Server::start(only);
    world.until_state("m", "synced");
    let append = ["append", "--context", "c", "--key", "k", "--payload", "p"];
    through(&server, &append).refuses(3, "test.example");
    // A source that is not there, and then the mirror.
    let dead = format!("{}@127.0.0.1:9", world.peer);
    let through_mirror = format!("{}@{}", world.node, server.other("quic of test.example"));
    let arguments = [
        "mirror",
        "--from",
        &dead,
        "--from",
        &through_mirror,
        "--origin",
        &world.origin,
        "--once",
        "--json",
    ];
    let mut pull = world.place.command("n", &arguments);
    pull.env("CONVERGE_LEDGER_LOG", "error");
    let pulled = run_with(pull, b"").expect(0).json();
    assert_eq!(pulled["entries"], 2000);
    let head = |name: &str| world.place.run(name, &["head"]).expect(0).stdout;
    // Signed by the origin, to the byte.
    assert_eq!(head("n"), head("m"));
    world.place.run("n", &["audit"]).expect(0);
    // It is seen, though it does not follow.
    assert_eq!(server.stop("TERM"), 0);
    assert_eq!(source.stop("TERM"), 0);
}

#[test]
fn a_source_that_was_killed_is_followed_again_when_it_is_back() {
    let world = World::new();
    let source = world.place.serve("s", &[&world.node]);
    let (address, file) = (source.address.clone(), world.file(&source.address, ""));
    let mut only = command();
    only.args(["serve", "--mirror", &file]);
    let server = Server::start(only);
    let epoch = world.until_state("m", "synced")["epoch"].as_u64();
    // Killed: nobody is told that it ends.
    drop(source);
    let again = ["serve", "--listen", &address, "--allow", &world.node];
    let source = Server::start(world.place.command("s", &again));
    let begun = Instant::now();
    let append = ["append", "--context", "c", "--key", "k", "--payload", "p"];
    through(&source, &append).expect(0);
    world.until("m", |line| {
        line["state"] == "synced" && line["epoch"].as_u64() > epoch
    });
    // The new process says that it does not know the connection, so nobody waits
    // for the idle timeout of 30 s.
    assert!(
        begun.elapsed() < Duration::from_secs(25),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(world.place.size("m", "c"), 1);
    assert_eq!(server.stop("TERM"), 0);
    assert_eq!(source.stop("TERM"), 0);
}

#[test]
fn a_quota_stops_an_origin_before_anything_is_fetched() {
    let world = World::new();
    let source = world.place.serve("s", &[&world.node]);
    for (quota, says) in [
        ("contexts = 0", "contexts of the origin: 1, allowed are 0"),
        (
            "entries = 1999",
            "entries of the origin: 2000, allowed are 1999",
        ),
        // The empty store takes a megabyte, and each entry 72 bytes at least.
        ("bytes = 1_100_000", "entries of the origin: 2000"),
        (
            "free_bytes = 18446744073709551615",
            "bytes of disk are free",
        ),
    ] {
        let quota = quota.replace("18446744073709551615", "9223372036854775807");
        let file = world.file(&source.address, &format!("[quota]\n{quota}\n"));
        let serve = ["serve", "--no-grpc", "--mirror", &file];
        let mut only = command();
        only.args(serve).args(["--metrics", "127.0.0.1:0"]);
        let running = crate::support::Running::start(only);
        running.line();
        let line = world.until_state("m", "quota");
        let error = line["last_error"].as_str().unwrap();
        assert!(error.contains(says), "{error}");
        assert_eq!(line["epoch"], Value::Null);
        assert_eq!(running.stop("TERM").0, 0);
    }
    assert_eq!(world.place.size("m", "packages"), 0);
}

#[test]
fn what_cannot_be_mirrored_is_refused_at_the_start() {
    let world = World::new();
    let refused = |file: &str, status: i32, says: &str| {
        let mut serve = command();
        serve.args(["serve", "--no-grpc", "--mirror", file]);
        run_with(serve, b"").refuses(status, says);
    };
    refused("/nowhere/m.toml", 3, "/nowhere/m.toml");
    refused(&world.file("127.0.0.1:1", "colour = 1\n"), 2, "colour");
    let file = world.file("127.0.0.1:1", "allow = []\nallow_file = \"x\"\n");
    refused(&file, 2, "need listen");
    // The directory of another store.
    let file = world.file("127.0.0.1:1", "");
    let other = fs::read_to_string(&file)
        .unwrap()
        .replace("\"m\"", "\"own\"");
    fs::write(&file, other).unwrap();
    refused(&file, 3, "own.example");
    // Nothing to do.
    let mut nothing = command();
    nothing.args(["serve", "--no-grpc"]);
    run_with(nothing, b"").refuses(2, "--data");
}
