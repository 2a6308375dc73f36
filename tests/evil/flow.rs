//! One attack from end to end, and what was seen of it.

use std::fs;
use std::path::Path;
use std::time::Duration;

use converge_ledger::evidence::Kind;
use converge_ledger::note::VerifierKey;

use crate::attack::Attack;
use crate::expect::{Expect, Start};
use crate::place::{STORES, Who, node_key, words};
use crate::process::{Bounded, Shown, Source, bounded};
use crate::support::{Place, Ran, Server, command, run_with};

/// What a mirror shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct State {
    /// `contexts --json`.
    pub(crate) contexts: String,
    /// `head --json`, and its exit status.
    pub(crate) head: (i32, String),
}

impl State {
    fn of(place: &Place, name: &str) -> Self {
        let head = place.run(name, &["head", "--json"]);
        Self {
            contexts: contexts(place, name),
            head: (head.status, head.text().to_owned()),
        }
    }
}

fn contexts(place: &Place, name: &str) -> String {
    let contexts = place.run(name, &["contexts", "--json"]).expect(0);
    contexts.text().to_owned()
}

/// An evidence file.
#[derive(Clone, Debug)]
pub(crate) struct Evidence {
    pub(crate) name: String,
    /// What the library makes of it, with the origin's public key alone.
    pub(crate) kind: Option<Kind>,
    /// What `verify` says, and its exit status.
    pub(crate) says: String,
    pub(crate) status: i32,
}

/// What was seen of an attack.
#[derive(Clone, Debug)]
pub(crate) struct Observed {
    /// Every pull from the evil source.
    pub(crate) pulls: Vec<Bounded>,
    pub(crate) before: State,
    pub(crate) after: State,
    /// `contexts --json` of the honest store.
    pub(crate) honest: String,
    /// Whether `audit` passed after the attack, and how many entries it saw.
    pub(crate) audit: (bool, u64),
    pub(crate) honest_entries: u64,
    pub(crate) evidence: Vec<Evidence>,
    /// The pull from the honest source that followed.
    pub(crate) second: (i32, String),
    pub(crate) evidence_at_last: Vec<Evidence>,
    /// What the mirror shows after that, and whether its audit passed.
    pub(crate) at_last: (State, bool),
    /// A mirror that never met the evil source: what it shows after it pulled
    /// from the victim, or from the honest source if the victim is forked.
    pub(crate) bystander: (i32, String),
    pub(crate) bystander_evidence: usize,
    /// What it took to see all this.
    pub(crate) peak_kib: u64,
    pub(crate) longest: Duration,
}

/// Carries out an attack.
pub(crate) fn observe(attack: Attack, expect: &Expect) -> Observed {
    let place = Place::new();
    let key = node_key(attack, Who::Victim);
    let template = match expect.start {
        Start::Empty => "mirror",
        Start::Held => "mirror-held",
    };
    STORES.mirror(template, &place.path("m"), &key);
    let node = key.id().to_string();
    let (store, other) = expect.stores;
    let shown = Shown {
        store: STORES.path(store),
        other: other.map(|name| STORES.path(name)),
    };
    let meeting = match attack {
        Attack::TwoViews => Meeting::in_two_views(&place, &shown, &node),
        _ => Meeting::evil(attack, &shown, &node),
    };
    let before = State::of(&place, "m");
    let mut pull = STORES.pull(&meeting.address, &meeting.peer);
    if let Some(seconds) = expect.deadline_s {
        pull.extend(["--deadline".to_owned(), seconds.to_string()]);
    }
    let command = place.command("m", &words(&pull));
    let pulls: Vec<Bounded> = (0..expect.pulls).map(|_| bounded(&command)).collect();
    drop(meeting);

    let after = State::of(&place, "m");
    let audit = audit(&place);
    let evidence = evidence(&place, "m");
    let second = pull_from(&place, "m", &STORES.honest_address, &STORES.peer);
    let evidence_at_last = self::evidence(&place, "m");
    let at_last = (State::of(&place, "m"), self::audit(&place).0);
    let bystander = bystander(attack, &place, &node, second.status == 0);
    let honest = contexts_of_honest();
    Observed {
        peak_kib: pulls
            .iter()
            .map(|pull| pull.resident_kib)
            .max()
            .unwrap_or(0),
        longest: pulls
            .iter()
            .map(|pull| pull.elapsed)
            .max()
            .unwrap_or_default(),
        pulls,
        before,
        after,
        honest_entries: honest.1,
        honest: honest.0,
        audit,
        evidence,
        second: (second.status, second.stderr),
        evidence_at_last,
        at_last,
        bystander,
        bystander_evidence: self::evidence(&place, "b").len(),
    }
}

/// Whom the mirror pulls from.
struct Meeting {
    address: String,
    peer: String,
    _evil: Source,
    _mirror: Option<Server>,
}

impl Meeting {
    fn evil(attack: Attack, shown: &Shown, node: &str) -> Self {
        let evil = Source::start(attack, shown, &[node], &[]);
        Self {
            address: evil.address.clone(),
            peer: STORES.peer.clone(),
            _evil: evil,
            _mirror: None,
        }
    }

    /// The victim has been shown one history and another mirror another one;
    /// now the victim pulls from that mirror.
    fn in_two_views(place: &Place, shown: &Shown, node: &str) -> Self {
        place
            .run("n", &["init", "--mirror", &STORES.origin])
            .expect(0);
        let peer = place.keys("n").1;
        let other = STORES.path("rewrite");
        let views = [(node, other.as_path())];
        let evil = Source::start(Attack::TwoViews, shown, &[&peer], &views);
        // The victim's history is another one from the start.
        fs::remove_dir_all(place.path("m")).unwrap();
        STORES.mirror(
            "mirror",
            &place.path("m"),
            &node_key(Attack::TwoViews, Who::Victim),
        );
        for name in ["m", "n"] {
            let ran = pull_from(place, name, &evil.address, &STORES.peer);
            ran.expect(0);
        }
        let mirror = place.serve("n", &[node]);
        Self {
            address: mirror.address.clone(),
            peer,
            _evil: evil,
            _mirror: Some(mirror),
        }
    }
}

fn pull_from(place: &Place, name: &str, address: &str, peer: &str) -> Ran {
    place.run(name, &words(&STORES.pull(address, peer)))
}

fn audit(place: &Place) -> (bool, u64) {
    let audit = place.run("m", &["audit", "--json"]);
    let report = audit.json();
    let entries = report["entries"].as_u64().unwrap();
    (audit.status == 0 && report["ok"] == true, entries)
}

fn contexts_of_honest() -> (String, u64) {
    // Not the store that is being served: what that one signs meanwhile has
    // the same contexts.
    let mut command = command();
    command.arg("--data").arg(STORES.path("honest"));
    command.args(["contexts", "--json"]);
    let honest = run_with(command, b"").expect(0);
    let entries = honest.json_lines();
    let entries = entries.iter().map(|line| line["size"].as_u64().unwrap());
    (honest.text().to_owned(), entries.sum())
}

fn evidence(place: &Place, name: &str) -> Vec<Evidence> {
    let of = |path: &Path| {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let verify = ["verify", path.to_str().unwrap(), "--origin", &STORES.origin];
        let is = name.starts_with("fork-") && name.ends_with(".evidence");
        is.then(|| {
            let ran = run_with(place.command("m", &verify), b"");
            Evidence {
                name,
                kind: kind(path),
                status: ran.status,
                says: ran.text().to_owned() + &ran.stderr,
            }
        })
    };
    let files = fs::read_dir(place.path(name)).unwrap();
    files.filter_map(|file| of(&file.unwrap().path())).collect()
}

fn kind(path: &Path) -> Option<Kind> {
    let origin = VerifierKey::parse(&STORES.origin).unwrap();
    let file = converge_ledger::evidence::Evidence::parse(&fs::read(path).unwrap());
    Some(file.ok()?.verify(&origin).ok()?.kind)
}

/// A mirror that holds what the victim held and has never met the evil source.
fn bystander(attack: Attack, place: &Place, victim: &str, from_victim: bool) -> (i32, String) {
    let key = node_key(attack, Who::Bystander);
    STORES.mirror("mirror-held", &place.path("b"), &key);
    let ran = if from_victim {
        let served = place.serve("m", &[&key.id().to_string()]);
        pull_from(place, "b", &served.address, victim)
    } else {
        pull_from(place, "b", &STORES.honest_address, &STORES.peer)
    };
    (ran.status, contexts(place, "b"))
}
