//! Whether what was seen of an attack is what the table says. Everything that
//! is not is named, so that the judge can be tested itself.

use std::time::Duration;

use converge_ledger::evidence::Kind;

use crate::expect::{Expect, Leaves};
use crate::flow::{Evidence, Observed, State};

/// What a mirror may ever have resident; an honest sync of these stores, from
/// nothing, has 22 MiB.
pub(crate) const RESIDENT_KIB_MAX: u64 = 32 << 10;
/// What a pull may take, on a machine that is busy.
const PULL_MAX: Duration = Duration::from_secs(20);

/// Everything that is not as it has to be.
pub(crate) fn judge(expect: &Expect, seen: &Observed) -> Vec<String> {
    let mut wrong = Vec::new();
    pulls(expect, seen, &mut wrong);
    holdings(expect, seen, &mut wrong);
    evidence(expect, seen, &mut wrong);
    afterwards(expect, seen, &mut wrong);
    wrong
}

fn pulls(expect: &Expect, seen: &Observed, wrong: &mut Vec<String>) {
    for pull in &seen.pulls {
        let stderr = &pull.stderr;
        if !expect.status.contains(&pull.status) {
            let want = expect.status;
            wrong.push(format!("status {}, not {want:?}: {stderr}", pull.status));
        }
        for says in expect.says {
            if !stderr.contains(says) {
                wrong.push(format!("{says:?} is not in: {stderr}"));
            }
        }
        if stderr.contains("panicked") {
            wrong.push(format!("panicked: {stderr}"));
        }
    }
    // An attack that was never carried out would look like a good end.
    let refused = seen.pulls.iter().any(|pull| pull.status != 0);
    if expect.status != [0] && !refused {
        wrong.push("no pull failed".to_owned());
    }
    if seen.peak_kib > RESIDENT_KIB_MAX {
        wrong.push(format!("memory: {} KiB", seen.peak_kib));
    }
    if seen.peak_kib == 0 {
        wrong.push("memory: was not measured".to_owned());
    }
    let deadline = Duration::from_secs(expect.deadline_s.unwrap_or(0));
    if seen.longest > PULL_MAX + deadline {
        wrong.push(format!("time: {:?}", seen.longest));
    }
}

fn holdings(expect: &Expect, seen: &Observed, wrong: &mut Vec<String>) {
    let is_before = seen.after == seen.before;
    let is_honest = seen.after.contexts == seen.honest;
    let right = match expect.leaves {
        Leaves::Before => is_before,
        Leaves::Honest => is_honest,
        Leaves::Either => is_before || is_honest,
    };
    if !right {
        let State { contexts, head } = &seen.after;
        wrong.push(format!("it shows\n{contexts}{head:?}"));
    }
    let (passed, entries) = seen.audit;
    if !passed {
        wrong.push("audit failed".to_owned());
    }
    // What is stored ahead of a head was proven, and is a beginning of it.
    if expect.evidence.is_none() && entries > seen.honest_entries {
        wrong.push(format!("{entries} entries are stored"));
    }
}

fn evidence(expect: &Expect, seen: &Observed, wrong: &mut Vec<String>) {
    proves(expect.evidence, &seen.evidence, wrong);
    proves(
        expect.evidence.or(expect.later),
        &seen.evidence_at_last,
        wrong,
    );
    if seen.bystander_evidence > 0 {
        wrong.push("the bystander has evidence".to_owned());
    }
}

/// One file of this kind that an auditor can verify, or none at all.
fn proves(kind: Option<Kind>, evidence: &[Evidence], wrong: &mut Vec<String>) {
    let names: Vec<&str> = evidence.iter().map(|e| e.name.as_str()).collect();
    match (kind, evidence) {
        (None, []) => {}
        (None, _) => wrong.push(format!("evidence of nothing: {names:?}")),
        (Some(kind), []) => wrong.push(format!("no evidence of {kind:?}")),
        (Some(kind), [one]) => {
            if one.status != 0 {
                wrong.push(format!("evidence does not verify: {}", one.says));
            }
            if one.kind != Some(kind) {
                wrong.push(format!("evidence is not of {kind:?}: {}", one.says));
            }
        }
        (Some(_), _) => wrong.push(format!("more than one evidence: {names:?}")),
    }
}

fn afterwards(expect: &Expect, seen: &Observed, wrong: &mut Vec<String>) {
    let (status, stderr) = &seen.second;
    let (at_last, passed) = &seen.at_last;
    if expect.evidence.is_some() || expect.later.is_some() {
        // Stopped until somebody has chosen; what it holds is there to be read.
        let says = if expect.evidence.is_some() {
            "forked, and nothing is pulled until `resolve` names the branch"
        } else {
            "evidence"
        };
        if *status != 1 || !stderr.contains(says) {
            wrong.push(format!("forked, but the next pull: {status}: {stderr}"));
        }
        if *at_last != seen.after {
            wrong.push(format!("forked, but it shows {at_last:?}"));
        }
    } else {
        if *status != 0 {
            wrong.push(format!("the honest source: {status}: {stderr}"));
        }
        if at_last.contexts != seen.honest {
            wrong.push(format!("after the honest source it shows {at_last:?}"));
        }
    }
    if !passed {
        wrong.push("audit failed at last".to_owned());
    }
    let (status, contexts) = &seen.bystander;
    if *status != 0 || *contexts != seen.honest {
        wrong.push(format!("the bystander: {status}: {contexts}"));
    }
}
