//! The stores of these tests, made once by the command line: an honest history,
//! copies of its directory taken on the way, and branches made of the copies.
//!
//! ```text
//!  epochs    1 init   2 first   3 big     4 late     5, 6, 7 more
//!  honest    ----------------- older --- before --- held --------- honest
//!  branches                                    \
//!            two_texts        tail and late grow as in held, other entries
//!            same_size        tail as large as in held, other entries, newer
//!            rewrite          tail and late larger than in held, newer; their runs
//!                             end where those of held do
//!            other_runs       the same, but they do not
//!            shrunk           tail smaller than in held, newer
//!            dropped          no late, everything else larger, newer
//!            older_diverged   (of older) tail larger than in held, older
//! ```

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command};
use std::sync::LazyLock;

use converge_ledger::node::NodeKey;

use crate::attack::Attack;
use crate::process::{Shown, Source, evil_source, listening};
use crate::support::{Place, copy_dir, run_with};

/// Contexts of one entry: enough for a directory of two levels.
const JOBS: usize = 24;
const NAME: &str = "evil.example";
/// Branches made of `before`; all but the first are newer than `held`.
const BRANCHES: [&str; 6] = [
    "two_texts",
    "same_size",
    "rewrite",
    "other_runs",
    "shrunk",
    "dropped",
];

/// Everything the tests share.
pub(crate) struct Stores {
    dir: PathBuf,
    pub(crate) origin: String,
    /// The node key of every store of the origin.
    pub(crate) peer: String,
    /// Where the real `serve` shows the honest store.
    pub(crate) honest_address: String,
    /// When it is closed, that process ends and the directory is removed.
    _keeper: ChildStdin,
}

pub(crate) static STORES: LazyLock<Stores> = LazyLock::new(Stores::make);

/// Whose node key it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    /// The mirror that meets the evil source.
    Victim,
    /// One that pulls from it afterwards.
    Bystander,
}

/// A node key of one test's own.
pub(crate) fn node_key(attack: Attack, who: Who) -> NodeKey {
    let mut seed = [7; 32];
    seed[0] = u8::try_from(attack as usize).unwrap();
    seed[1] = who as u8;
    NodeKey::from_seed(seed)
}

/// Lines of NDJSON: `count` entries of one context.
fn lines(context: &str, count: usize, payload: &str) -> String {
    let mut text = String::new();
    for n in 0..count {
        writeln!(
            text,
            "{{\"context\":\"{context}\",\"key\":\"k{n}\",\"payload\":\"{n} {payload}\"}}"
        )
        .unwrap();
    }
    text
}

impl Stores {
    fn make() -> Self {
        let place = Place::new();
        make_histories(&place);
        let (origin, peer) = place.keys("honest");
        for name in ["mirror", "mirror-held"] {
            place.run(name, &["init", "--mirror", &origin]).expect(0);
        }
        let held = Shown {
            store: place.path("held"),
            other: None,
        };
        let node = place.keys("mirror-held").1;
        let source = Source::start(Attack::Canary, &held, &[&node], &[]);
        let pull = pull_arguments(&source.address, &peer, &origin);
        run_with(place.command("mirror-held", &words(&pull)), b"").expect(0);
        drop(source);
        copy_dir(&place.path("honest"), &place.path("honest-served"));
        let dir = place.0.keep();
        let (honest_address, keeper) = serve_honest(&dir);
        Self {
            dir,
            origin,
            peer,
            honest_address,
            _keeper: keeper,
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The arguments of a pull.
    pub(crate) fn pull(&self, address: &str, peer: &str) -> Vec<String> {
        pull_arguments(address, peer, &self.origin)
    }

    /// A copy of a mirror with a node key of its own.
    pub(crate) fn mirror(&self, of: &str, to: &Path, key: &NodeKey) {
        copy_dir(&self.path(of), to);
        let mut text = String::from("converge-ledger-node-key ");
        for byte in key.seed() {
            write!(text, "{byte:02x}").unwrap();
        }
        text.push('\n');
        fs::write(to.join("node.key"), text).unwrap();
    }
}

fn make_histories(place: &Place) {
    let append = |name: &str, text: &str| {
        let run = place.run_in(name, &["append", "--ndjson", "-"], text.as_bytes());
        run.expect(0);
    };
    let branch = |from: &str, to: &str| copy_dir(&place.path(from), &place.path(to));
    place.run("honest", &["init", "--name", NAME]).expect(0);
    let mut first = String::new();
    for n in 0..JOBS {
        first += &lines(&format!("job-{n}"), 1, "a job");
    }
    first += &lines("big", 700, &"x".repeat(3500));
    first += &lines("many", 900, "one of many");
    first += &lines("files", 3, &"f".repeat(5000));
    first += &lines("tail", 3, "the first ones");
    append("honest", &first);
    branch("honest", "older");
    append("honest", &lines("big", 100, &"y".repeat(3500)));
    branch("honest", "before");
    let late = |tail: usize, late: usize, payload: &str| {
        lines("tail", tail, payload) + &lines("late", late, payload)
    };
    append("honest", &late(2, 2, "as it was"));
    branch("honest", "held");
    append("honest", &late(4, 3, "and went on"));
    append("honest", &lines("many", 1, "one more"));
    let more = lines("files", 2, &"g".repeat(6000)) + &lines("many", 300, "another of many");
    append(
        "honest",
        &(more + &lines("new", 2, "new") + &lines("newer", 2, "newer")),
    );

    for to in BRANCHES {
        branch("before", to);
    }
    append("two_texts", &late(2, 2, "as it never was"));
    append("same_size", &late(2, 3, "as it never was"));
    append("rewrite", &late(2, 2, "as it never was"));
    append("rewrite", &late(2, 1, "nor was this"));
    append("other_runs", &late(4, 3, "as it never was"));
    append("shrunk", &late(1, 3, "as it never was"));
    append("dropped", &lines("tail", 4, "as it never was"));
    for to in &BRANCHES[1..] {
        append(to, &lines("job-0", 9, "another job"));
    }
    append("dropped", &lines("instead", 2, "of another"));
    branch("older", "older_diverged");
    append("older_diverged", &lines("tail", 9, "as it never was"));
    // Another ledger that calls itself the same.
    place.run("stranger", &["init", "--name", NAME]).expect(0);
    append("stranger", &lines("tail", 5, "of another ledger"));
}

fn pull_arguments(address: &str, peer: &str, origin: &str) -> Vec<String> {
    let arguments = [
        "mirror", "--from", address, "--peer", peer, "--origin", origin, "--once", "--json",
    ];
    arguments.map(str::to_owned).to_vec()
}

pub(crate) fn words(arguments: &[String]) -> Vec<&str> {
    arguments.iter().map(String::as_str).collect()
}

/// The honest store, for all mirrors of all tests, shown by the canary: `serve`
/// itself would be frozen by the first mirror that shows it what the evil
/// source has signed with the same key. It ends with this process, however
/// that ends: what is static is never dropped.
fn serve_honest(dir: &Path) -> (String, ChildStdin) {
    let script = "dir=\"$1\"; shift; exec 3<&0; \"$@\" <&3 2> /dev/null & server=$!; \
                  cat <&3 > /dev/null; kill $server 2> /dev/null; wait $server; rm -rf \"$dir\"";
    let source = evil_source();
    let mut shell = Command::new("sh");
    shell.args(["-c", script, "sh"]).arg(dir);
    shell.arg(source.get_program()).arg("--store");
    shell.arg(dir.join("honest-served"));
    shell.args(["--attack", Attack::Canary.name()]);
    for attack in Attack::ALL {
        for who in [Who::Victim, Who::Bystander] {
            shell.arg("--allow");
            shell.arg(node_key(*attack, who).id().to_string());
        }
    }
    let (_, stdin, address) = listening(shell);
    (address, stdin)
}
