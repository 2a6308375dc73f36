//! How it is said that all is not well with a store (`stats`, `audit`).

use serde::Serialize;

use super::error::CliError;
use super::output::{Out, escape};
use crate::store::Condition;

/// All null if it could not be told.
#[derive(Default, Serialize)]
pub(super) struct ConditionJson {
    fork: Option<ForkJson>,
    frozen: Option<String>,
    head_note: Option<bool>,
}

#[derive(Serialize)]
struct ForkJson {
    resolved: bool,
    verdict: String,
}

impl From<&Condition> for ConditionJson {
    fn from(condition: &Condition) -> Self {
        Self {
            fork: condition.fork.as_ref().map(|fork| ForkJson {
                resolved: fork.resolved,
                verdict: fork.verdict.clone(),
            }),
            frozen: condition.frozen.map(|frozen| frozen.to_string()),
            head_note: Some(condition.head_note),
        }
    }
}

/// Nothing of a store that is well.
pub(super) fn print(out: &mut Out, condition: &Condition) -> Result<(), CliError> {
    if let Some(fork) = &condition.fork {
        let state = if fork.resolved {
            "the branch that is held here is followed"
        } else {
            "nothing is pulled until `resolve` names the branch"
        };
        out.line(format_args!("fork: {}; {state}", fork.verdict))?;
    }
    if let Some(frozen) = &condition.frozen {
        out.line(escape(&frozen.to_string()))?;
    }
    if !condition.head_note {
        out.line("head.note is missing: a log that lost its end would not be noticed")?;
    }
    Ok(())
}
