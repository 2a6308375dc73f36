//! Mirrors against an evil source: the built binary over real QUIC, one test
//! per attack. The attacks are one list (`attack.rs`), the source that carries
//! them out is an example (`source/`), what has to come of each is a table
//! (`expect.rs`).
//!
//! Every test: a mirror, empty or with a head of the honest source, pulls from
//! the evil source within bounds of memory and time; what it says, shows and
//! has stored is judged; then it pulls from the honest source, and another
//! mirror pulls from it.

// Helpers of tests fail by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
// What every attack came to, for whoever runs them with --nocapture.
#![allow(clippy::print_stdout)]

#[macro_use]
mod attack;
mod expect;
mod flow;
mod judge;
mod place;
mod process;
#[path = "../cli/support.rs"]
#[allow(dead_code)] // the tests of the command line use more of it
mod support;

use std::fmt::Write as _;
use std::process::Command;
use std::time::Duration;

use attack::Attack;
use converge_ledger::evidence::Kind;
use expect::{Expect, Leaves, Start, expect};
use flow::{Evidence, observe};
use judge::{RESIDENT_KIB_MAX, judge};

fn carry_out(attack: Attack) {
    let expect = expect(attack);
    let seen = observe(attack, &expect);
    let wrong = judge(&expect, &seen);
    let (name, took) = (attack.name(), seen.longest.as_millis());
    for pull in &seen.pulls {
        let said = pull.stderr.lines().next().unwrap_or_default();
        println!("{name}: {} {said}", pull.status);
    }
    let addresses = seen.pulls.iter().map(|pull| pull.addresses_kib).max();
    let addresses = addresses.unwrap_or_default();
    println!(
        "{name}: {took} ms, {} KiB of {addresses} KiB",
        seen.peak_kib
    );
    let mut text = String::new();
    for what in &wrong {
        writeln!(text, "- {what}").unwrap();
    }
    assert!(wrong.is_empty(), "{name}:\n{text}");
}

macro_rules! tests {
    ($($(#[$doc:meta])* $variant:ident = $name:ident,)*) => {
        mod attacks {
            $(
                $(#[$doc])*
                #[test]
                fn $name() {
                    super::carry_out(super::Attack::$variant);
                }
            )*
        }
    };
}

for_each_attack!(tests);

#[test]
fn the_source_was_built_of_the_same_list() {
    let names: Vec<&str> = Attack::ALL.iter().map(|attack| attack.name()).collect();
    assert_eq!(
        process::listed(),
        names,
        "the evil source is older than these tests: cargo build --example evil-source"
    );
}

/// The bound of addresses is one: what allocates more is stopped.
#[test]
fn more_memory_than_is_allowed_cannot_be_had() {
    let copy = |block: &str| {
        let mut copy = Command::new("dd");
        copy.args(["if=/dev/zero", "of=/dev/null", "count=1", block]);
        process::bounded(&copy).status
    };
    assert_eq!(copy("bs=1M"), 0);
    assert_ne!(copy("bs=128M"), 0);
}

/// Makes one thing in an observation another.
type Spoil = fn(&mut flow::Observed);

fn found(kind: Kind) -> Evidence {
    Evidence {
        name: "fork-1.evidence".to_owned(),
        kind: Some(kind),
        says: String::new(),
        status: 0,
    }
}

/// The judge finds everything it is there to find: a sound observation is
/// passed, and refused as soon as one thing in it, or in the line of the table
/// it is held against, is another.
#[test]
fn the_judge_is_not_content_with_anything_else() {
    let good = expect(Attack::Canary);
    let seen = observe(Attack::Canary, &good);
    assert_eq!(judge(&good, &seen), Vec::<String>::new());

    let lines = [
        (
            "status",
            Expect {
                status: &[1],
                ..good
            },
        ),
        (
            "no pull failed",
            Expect {
                status: &[0, 3],
                ..good
            },
        ),
        (
            "is not in",
            Expect {
                says: &["peer: "],
                ..good
            },
        ),
        (
            "it shows",
            Expect {
                leaves: Leaves::Before,
                ..good
            },
        ),
        (
            "no evidence",
            Expect {
                evidence: Some(Kind::Shrunk),
                ..good
            },
        ),
        (
            "the next pull",
            Expect {
                evidence: Some(Kind::Shrunk),
                ..good
            },
        ),
    ];
    for (says, line) in lines {
        let wrong = judge(&line, &seen);
        assert!(wrong.iter().any(|w| w.contains(says)), "{says}: {wrong:?}");
    }

    let spoils: [(&str, Spoil); 14] = [
        ("panicked", |seen| {
            seen.pulls[0].stderr.push_str("panicked at");
        }),
        ("memory", |seen| seen.peak_kib = RESIDENT_KIB_MAX + 1),
        ("memory", |seen| seen.peak_kib = 0),
        ("time", |seen| seen.longest = Duration::from_secs(21)),
        ("it shows", |seen| seen.after.contexts.push_str("{}\n")),
        ("audit failed", |seen| seen.audit.0 = false),
        ("entries are stored", |seen| seen.audit.1 += 1),
        ("evidence of nothing", |seen| {
            seen.evidence.push(found(Kind::Shrunk));
        }),
        ("evidence of nothing", |seen| {
            seen.evidence_at_last.push(found(Kind::Shrunk));
        }),
        ("the bystander has", |seen| seen.bystander_evidence = 1),
        ("the honest source", |seen| seen.second.0 = 3),
        ("after the honest source", |seen| {
            seen.at_last.0.contexts.clear();
        }),
        ("audit failed at last", |seen| seen.at_last.1 = false),
        ("the bystander", |seen| seen.bystander.1.clear()),
    ];
    for (says, spoil) in spoils {
        let mut spoiled = seen.clone();
        spoil(&mut spoiled);
        let wrong = judge(&good, &spoiled);
        assert!(wrong.iter().any(|w| w.contains(says)), "{says}: {wrong:?}");
    }
}

/// A lie that the table does not know of is found by the same checks.
#[test]
fn a_lie_is_not_taken_for_the_canary() {
    let canary = Expect {
        start: Start::Held,
        ..expect(Attack::Canary)
    };
    let wrong = judge(&canary, &observe(Attack::FlippedNote, &canary));
    assert!(wrong.iter().any(|w| w.contains("status")), "{wrong:?}");
    assert!(wrong.iter().any(|w| w.contains("it shows")), "{wrong:?}");
}
