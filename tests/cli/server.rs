//! Commands that work through a server, and the server going away.

use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt as _;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use crate::support::{Place, Ran, Running, SAMPLE, Server, command, fields, run_with};

fn store() -> Place {
    let place = Place::new();
    place
        .run("s", &["init", "--name", "test.example"])
        .expect(0);
    place
}

fn serve(place: &Place, address: &str) -> Server {
    Server::start(place.command("s", &["serve", "--grpc", address]))
}

/// A server of the store and what runs through it.
struct Served {
    place: Place,
    server: Server,
}

impl Served {
    fn new() -> Self {
        let place = store();
        let server = serve(&place, "127.0.0.1:0");
        Self { place, server }
    }

    fn url(&self) -> String {
        format!("http://{}", self.server.grpc)
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        self.run_in(arguments, b"")
    }

    fn run_in(&self, arguments: &[&str], input: &[u8]) -> Ran {
        let mut command = command();
        command.args(arguments).arg("--server").arg(self.url());
        run_with(command, input)
    }

    fn append(&self, context: &str, payload: &str) -> Ran {
        self.run(&[
            "append",
            "--context",
            context,
            "--key",
            "k",
            "--payload",
            payload,
        ])
    }

    fn watch(&self, arguments: &[&str]) -> Running {
        let mut command = command();
        command.args(["watch", "--context", "c", "--server", &self.url()]);
        command.args(arguments);
        Running::start(command)
    }

    /// The same command here and on the directory prints the same.
    #[track_caller]
    fn same(&self, arguments: &[&str]) -> Ran {
        let through = self.run(arguments).expect(0);
        let on_directory = self.place.run("s", arguments).expect(0);
        assert_eq!(through.text(), on_directory.text());
        through
    }
}

#[test]
fn a_server_is_read_and_written_like_a_directory() {
    let served = Served::new();
    let first = served.append("c", "it rains").expect(0);
    assert!(first.text().starts_with("c 1 "), "{}", first.text());
    let arguments = ["append", "--context", "c", "--key", "l", "--meta", "a=b"];
    let arguments = [&arguments[..], &["--request-id", "r", "--json"]].concat();
    let second = served.run_in(&arguments, b"\xff\x00").expect(0).json();
    assert_eq!(fields(&second), ["entries", "last_sequence", "seconds"]);
    assert_eq!(second["last_sequence"], 2);
    // The same request again is the same entry; another one is refused.
    let again = served.run_in(&arguments, b"\xff\x00").expect(0).json();
    assert_eq!(again["last_sequence"], 2);
    served
        .run_in(&arguments, b"other")
        .refuses(2, "ALREADY_EXISTS");

    assert_eq!(
        served
            .same(&["get", "--context", "c"])
            .text()
            .lines()
            .count(),
        2
    );
    let json = served.same(&["get", "--context", "c", "--json"]);
    assert_eq!(json.json_lines()[1]["payload_base64"], "/wA=");
    for more in [&["--key", "l"][..], &["--after", "1"], &["--limit", "1"]] {
        let get = [&["get", "--context", "c"], more].concat();
        assert_eq!(served.same(&get).text().lines().count(), 1);
    }
    // A server that holds one origin knows it by its name, and no other.
    let named = ["get", "--context", "c", "--origin", "test.example"];
    assert_eq!(served.run(&named).expect(0).text().lines().count(), 2);
    served
        .run(&["get", "--context", "c", "--origin", "other.example"])
        .refuses(3, "NOT_FOUND");
    served.append("b", "").expect(0);
    served.same(&["contexts"]);
    assert_eq!(served.same(&["contexts", "--json"]).json_lines().len(), 2);
    served
        .run(&["get", "--context", "nobody"])
        .refuses(3, "NOT_FOUND");
    served
        .run(&["append", "--context", "", "--key", "k"])
        .refuses(2, "--context");

    // Who has the directory open is told where to go.
    let locked = served.place.run("s", &arguments).refuses(3, "in use");
    assert!(locked.stderr.contains("--server"), "{}", locked.stderr);
    assert_eq!(served.server.stop("TERM"), 0);
    served.place.run("s", &["audit"]).expect(0);
}

#[test]
fn lines_are_stored_in_order_and_the_first_that_is_not_is_named() {
    let served = Served::new();
    let sample = std::fs::read_to_string(SAMPLE).unwrap();
    let lines: Vec<&str> = sample.lines().take(150).collect();
    let append = ["append", "--context", "c", "--ndjson", "-"];
    let input = lines.join("\n");
    let ran = served.run_in(&[&append[..], &["--json"]].concat(), input.as_bytes());
    let ran = ran.expect(0).json();
    assert_eq!(fields(&ran), ["entries", "last_sequence", "seconds"]);
    assert_eq!(
        (&ran["entries"], &ran["last_sequence"]),
        (&150.into(), &150.into())
    );
    // Many contexts at a time; in each of them the order of the lines.
    let mut input = String::new();
    for at in 0..300 {
        let context = at % 7;
        writeln!(
            input,
            "{{\"key\":\"k\",\"payload\":\"{at}\",\"context\":\"m{context}\"}}"
        )
        .unwrap();
    }
    served.run_in(&append, input.as_bytes()).expect(0);
    for context in 0..7u64 {
        let name = format!("m{context}");
        let got = served.run(&["get", "--context", &name, "--json"]).expect(0);
        let payload = |line: &serde_json::Value| line["payload"].as_str().unwrap().parse().unwrap();
        let got: Vec<u64> = got.json_lines().iter().map(payload).collect();
        let expected: Vec<u64> = (0..300).filter(|at| at % 7 == context).collect();
        assert_eq!(got, expected);
    }
    // A line that the server refuses, and one that does not parse.
    let line = |payload: &str| {
        format!("{{\"key\":\"k\",\"payload\":\"{payload}\",\"request_id\":\"r\"}}\n")
    };
    let input = [line("a"), line("a"), line("b"), line("c")].concat();
    let append = ["append", "--context", "d", "--ndjson", "-"];
    let ran = served.run_in(&append, input.as_bytes());
    let ran = ran.refuses(2, "line 3: ALREADY_EXISTS");
    assert!(
        ran.stderr.contains("Lines 1 to 2 are stored"),
        "{}",
        ran.stderr
    );
    assert!(ran.stderr.contains("Line 3 is the first"), "{}", ran.stderr);
    // Lines of other contexts were under way by then.
    let other = |name: &str| format!("{{\"key\":\"k\",\"payload\":\"\",\"context\":\"{name}\"}}\n");
    let input = [other("e"), line("d"), other("f"), other("g")].concat();
    let ran = served.run_in(&append, input.as_bytes());
    let ran = ran.refuses(2, "line 2: ALREADY_EXISTS");
    assert!(
        ran.stderr.contains("Line 1 is stored. Line 2 is the first")
            && ran
                .stderr
                .contains("Behind it lines 3, 4 of other contexts are stored"),
        "{}",
        ran.stderr
    );
    let ran = served.run_in(&append, b"{\"key\":\"k\"}\n");
    let ran = ran.refuses(2, "line 1: exactly one of");
    assert!(ran.stderr.contains("Nothing was stored"), "{}", ran.stderr);
    let contexts = served.run(&["contexts", "--json"]).expect(0).json_lines();
    let of = |name: &str| {
        contexts
            .iter()
            .find(|line| line["context"] == name)
            .cloned()
    };
    assert_eq!(of("d").unwrap()["size"], 1);
}

#[test]
fn a_watch_outlives_its_server() {
    let served = Served::new();
    let watch = served.watch(&["--json"]);
    let sequence = |line: String| {
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        line["sequence"].as_u64().unwrap()
    };
    for at in 1..=3 {
        served.append("c", "before").expect(0);
        assert_eq!(sequence(watch.line()), at);
    }
    let Served { place, server } = served;
    let address = server.grpc.clone();
    assert_eq!(server.stop("TERM"), 0);
    // What is stored while nobody serves is not missed.
    let append = [
        "append",
        "--context",
        "c",
        "--key",
        "k",
        "--payload",
        "meanwhile",
    ];
    place.run("s", &append).expect(0);
    place.run("s", &append).expect(0);
    let anew = serve(&place, &address);
    assert_eq!([4, 5], [sequence(watch.line()), sequence(watch.line())]);
    let again = Served {
        place,
        server: anew,
    };
    again.append("c", "after").expect(0);
    assert_eq!(sequence(watch.line()), 6);
    let (status, rest) = watch.stop("INT");
    assert_eq!((status, rest.len()), (0, 0));
    assert_eq!(again.server.stop("TERM"), 0);
}

#[test]
fn a_watch_ends_when_it_has_enough_or_nobody_reads() {
    let served = Served::new();
    for payload in ["1", "2", "3"] {
        served.append("c", payload).expect(0);
    }
    let watch = ["watch", "--context", "c"];
    let ran = served.run(&[&watch[..], &["--count", "2", "--from", "1"]].concat());
    assert_eq!(ran.expect(0).text(), "2\tk\t2\n3\tk\t3\n");
    let get = served.run(&["get", "--context", "c", "--json"]).expect(0);
    let ran = served.run(&[&watch[..], &["--count", "3", "--json"]].concat());
    assert_eq!(ran.expect(0).text(), get.text());
    // A context that comes into being is waited for.
    let waiting = served.watch(&["--key", "k", "--from", "3"]);
    let deaf = served.watch(&[]);
    assert_eq!(deaf.line(), "1\tk\t1");
    let deaf = deaf.deaf();
    served.append("c", "4").expect(0);
    assert_eq!(waiting.line(), "4\tk\t4");
    // The reader's thread takes one more line to notice that it is alone.
    served.append("c", "5").expect(0);
    served.append("c", "6").expect(0);
    assert_eq!(deaf.status(), 0);
    assert_eq!(waiting.stop("TERM").0, 0);
}

#[test]
fn a_place_is_chosen_by_flags_and_the_environment() {
    let served = Served::new();
    served.append("c", "p").expect(0);
    let url = served.url();
    let data = served.place.path("s");
    let data = data.to_str().unwrap();
    let contexts = |arguments: &[&str], env: &[(&str, &str)]| {
        let mut command = command();
        command.arg("contexts").args(arguments);
        command.envs(env.iter().copied());
        run_with(command, b"")
    };
    let server_env = ("CONVERGE_LEDGER_SERVER", url.as_str());
    let data_env = ("CONVERGE_LEDGER_DATA", data);
    let nowhere = ("CONVERGE_LEDGER_SERVER", "http://127.0.0.1:1");
    let nothing = ("CONVERGE_LEDGER_DATA", "/does/not/exist");
    contexts(&[], &[server_env]).expect(0);
    contexts(&["--server", &url], &[nothing]).expect(0);
    contexts(&["--data", data], &[nowhere]).expect(0);
    contexts(&["--server", &url], &[nowhere]).expect(0);
    contexts(&[], &[data_env, ("CONVERGE_LEDGER_SERVER", "")]).expect(0);
    contexts(&[], &[server_env, data_env]).refuses(2, "exclude each other");
    contexts(&["--data", data, "--server", &url], &[]).refuses(2, "exclude each other");
    contexts(&[], &[]).refuses(2, "which store?");
    contexts(&[], &[nowhere]).refuses(3, "cannot connect");
    contexts(&["--server", "127.0.0.1:1"], &[]).refuses(2, "http://");
    contexts(&["--server", "https://127.0.0.1:1"], &[]).refuses(2, "CA file");
    contexts(&["--data", data, "--server-ca", "x"], &[]).refuses(2, "only with --server");
    contexts(&["--data", data, "--origin", "test.example"], &[]).refuses(2, "only with --server");
    // A command that knows no server is not led astray by one.
    let mut head = command();
    head.arg("head").envs([server_env, data_env]);
    run_with(head, b"").expect(0);
    let watch = served.place.run("s", &["watch", "--context", "c"]);
    watch.refuses(2, "does not grow");
}

#[test]
fn a_token_comes_from_a_file_that_others_cannot_read() {
    let place = store();
    let tokens = place.path("tokens");
    let token = place.path("token");
    let write = |path: &std::path::Path, text: &str, mode| {
        std::fs::write(path, text).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    write(
        &tokens,
        "write abcdefghijklmnop\nread ABCDEFGHIJKLMNOP\n",
        0o600,
    );
    let tokens = tokens.to_str().unwrap();
    let serve = ["serve", "--grpc", "127.0.0.1:0", "--grpc-tokens", tokens];
    let server = Server::start(place.command("s", &serve));
    let guarded = Served { place, server };
    let append = ["append", "--context", "c", "--key", "k", "--payload", "p"];
    let with_file = [&append[..], &["--token-file", token.to_str().unwrap()]].concat();
    let refused = guarded.run(&append).refuses(3, "UNAUTHENTICATED");
    assert!(
        refused.stderr.contains("--token-file"),
        "{}",
        refused.stderr
    );
    guarded.run(&with_file).refuses(3, "token");
    write(&token, "abcdefghijklmnop\n", 0o644);
    guarded.run(&with_file).refuses(3, "chmod 600");
    write(&token, "\n", 0o600);
    guarded.run(&with_file).refuses(2, "no token");
    write(&token, "ABCDEFGHIJKLMNOP", 0o600);
    guarded.run(&with_file).refuses(3, "PERMISSION_DENIED");
    write(&token, "abcdefghijklmnop\n# mine\n", 0o600);
    guarded.run(&with_file).expect(0);
}

type Authority = CertifiedIssuer<'static, KeyPair>;

fn certificate(authority: &Authority) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["127.0.0.1".into()]).unwrap();
    let certificate = params.signed_by(&key, authority).unwrap();
    (certificate.pem(), key.serialize_pem())
}

#[test]
fn both_sides_prove_who_they_are() {
    let place = store();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = |params: &CertificateParams| {
        Authority::self_signed(params.clone(), KeyPair::generate().unwrap()).unwrap()
    };
    let (ours, other) = (authority(&params), authority(&params));
    let write = |name: &str, text: &str| {
        let path = place.path(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (cert, key) = certificate(&ours);
    let (cert, key) = (write("cert", &cert), write("key", &key));
    let (ca, other_ca) = (write("ca", &ours.pem()), write("other-ca", &other.pem()));
    let (other_cert, other_key) = certificate(&other);
    let (other_cert, other_key) = (write("cert2", &other_cert), write("key2", &other_key));
    let mut serve = place.command("s", &["serve", "--grpc", "127.0.0.1:0"]);
    serve.args([
        "--grpc-cert",
        &cert,
        "--grpc-key",
        &key,
        "--grpc-client-ca",
        &ca,
    ]);
    let server = Server::start(serve);
    let url = format!("https://{}", server.grpc);
    let contexts = |arguments: &[&str]| {
        let mut command = command();
        command.args(["contexts", "--server", &url]).args(arguments);
        run_with(command, b"")
    };
    let me = ["--server-cert", &cert, "--server-key", &key];
    contexts(&[&["--server-ca", &ca], &me[..]].concat()).expect(0);
    // A server that nobody vouches for, and clients that nobody vouches for.
    contexts(&[&["--server-ca", &other_ca], &me[..]].concat()).refuses(3, "cannot connect");
    assert_eq!(contexts(&["--server-ca", &ca]).status, 3);
    let stranger = [
        "--server-ca",
        &ca,
        "--server-cert",
        &other_cert,
        "--server-key",
        &other_key,
    ];
    assert_eq!(contexts(&stranger).status, 3);
    contexts(&["--server-ca", &ca, "--server-cert", &cert]).expect(2);
    contexts(&[
        "--server-ca",
        &ca,
        "--server-cert",
        &key,
        "--server-key",
        &cert,
    ])
    .refuses(2, "PEM");
}
