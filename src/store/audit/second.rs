//! A second opinion on every context: its root at its final size, recomputed by
//! `rs_merkle` from the stored headers, whose leaves are hashed one by one for
//! it, so that nothing of what hashes many side by side has a part in it.
//!
//! In memory that does not grow with a context ([`SecondRoot`]).

use std::collections::HashMap;

use super::FirstBad;
use crate::encoding::DecodeError;
use crate::entry::leaf_hash;
use crate::run::Run;
use crate::store::body;
use crate::store::index::{Index, TailContext};
use crate::store::record::{Position, RecordType};
use crate::store::scan::ScannedGroup;
use crate::tree::second_opinion::SecondRoot;

/// What is wrong if something is.
pub(in crate::store) const DISAGREE: &str =
    "a second implementation of the tree computes another root";

/// See the module.
#[derive(Debug, Default)]
pub(in crate::store) struct SecondOpinion {
    roots: HashMap<u64, SecondRoot>,
}

impl SecondOpinion {
    /// Takes in a group that was replayed.
    pub(in crate::store) fn see(
        &mut self,
        group: &ScannedGroup,
    ) -> Result<(), (Position, DecodeError)> {
        for record in &group.records {
            if record.header.kind != RecordType::Run {
                continue;
            }
            let at = |error| (record.position, error);
            let (number, run) = body::get_run(group.body(record)).map_err(at)?;
            let run = Run::decode(run).map_err(at)?;
            let root = self.roots.entry(number).or_default();
            for header in run.headers() {
                root.push(leaf_hash(header));
            }
        }
        Ok(())
    }

    /// Compares every root; returns how many agree, and the first that does not.
    pub(in crate::store) fn compare(mut self, index: &Index) -> (u64, Option<FirstBad>) {
        let mut contexts: Vec<&TailContext> = index.tail.contexts().map(AsRef::as_ref).collect();
        contexts.sort_unstable_by_key(|context| context.state.number);
        let mut agree = 0;
        for context in contexts {
            let second = self.roots.remove(&context.state.number);
            let second = second.unwrap_or_default();
            let after = &context.state.after;
            if second.size() == after.size() && second.root() == after.root() {
                agree += 1;
                continue;
            }
            let last = context.runs.last();
            let bad = FirstBad {
                context: context.state.name.as_ref().map(|id| id.as_str().to_owned()),
                sequence: None,
                position: last.map(|run| run.at.position).unwrap_or_default(),
                reason: DISAGREE.into(),
            };
            return (agree, Some(bad));
        }
        (agree, None)
    }
}
