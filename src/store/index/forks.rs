//! What proves that a mirror's origin has signed two histories, and what an
//! operator said to it.
//!
//! Invariants: evidence is in the log once, and holds under the pinned key; it
//! is resolved once, by naming one of the two branches it is about, or what is
//! complete.

use super::{ApplyError, Index, Location, StoreRole};
use crate::evidence::{Evidence, Verdict};
use crate::hash::{self, Hash};
use crate::limits::EVIDENCE_RECORDS_MAX;

/// Evidence in the log.
#[derive(Clone, Debug)]
pub(crate) struct Fork {
    /// BLAKE3 of the file.
    pub(crate) evidence: Hash,
    pub(crate) verdict: Verdict,
    pub(crate) at: Location,
    pub(crate) resolved: bool,
}

impl Fork {
    /// Verifies an evidence file under the pinned key of `index`.
    pub(crate) fn open(index: &Index, file: &[u8], at: Location) -> Result<Self, &'static str> {
        let evidence = Evidence::parse(file).map_err(|_| "not an evidence file")?;
        let verdict = evidence.verify(index.chain.pinned());
        Ok(Self {
            evidence: hash::content(file),
            verdict: verdict.map_err(|_| "evidence that proves nothing")?,
            at,
            resolved: false,
        })
    }
}

impl Index {
    /// Evidence in the log, oldest first.
    pub(crate) fn forks(&self) -> &[Fork] {
        &self.forks
    }

    /// Why evidence may not be written down, if it may not.
    pub(crate) fn check_evidence(&self, fork: &Fork) -> Result<(), &'static str> {
        if self.role != StoreRole::Mirror {
            return Err("evidence is for mirrors");
        }
        if self
            .forks
            .iter()
            .any(|known| known.evidence == fork.evidence)
        {
            return Err("the same evidence twice");
        }
        if self.forks.len() >= EVIDENCE_RECORDS_MAX {
            return Err("more evidence than a log holds");
        }
        Ok(())
    }

    pub(super) fn apply_evidence(
        &mut self,
        mut fork: Fork,
        at: Location,
    ) -> Result<(), ApplyError> {
        self.check_evidence(&fork).map_err(ApplyError::rule)?;
        fork.at = at;
        self.forks.push(fork);
        self.trust.push(at);
        Ok(())
    }

    /// Why evidence cannot be resolved for the branch with this root, if it
    /// cannot.
    pub(crate) fn check_resolved(&self, evidence: &Hash, root: &Hash) -> Result<(), &'static str> {
        let fork = self.forks.iter().find(|fork| fork.evidence == *evidence);
        let fork = fork.ok_or("no such evidence")?;
        if fork.resolved {
            return Err("the evidence is resolved already");
        }
        let (earlier, later) = fork.verdict.roots.unzip();
        // What is complete can always be gone on with. Of two takeovers it is all
        // there is, and of heads that were seen and forgotten.
        let complete = Some(self.published.root());
        if [earlier, later, complete].contains(&Some(*root)) {
            return Ok(());
        }
        Err("the evidence is about no branch with this root")
    }

    pub(super) fn apply_resolved(
        &mut self,
        evidence: &Hash,
        root: &Hash,
        at: Location,
    ) -> Result<(), ApplyError> {
        self.check_resolved(evidence, root)
            .map_err(ApplyError::rule)?;
        self.keep_branch(root);
        self.mark_resolved(evidence, at)
    }

    /// The same for a record whose root was compared when it was written, or
    /// read for the first time: with what was complete then.
    pub(super) fn mark_resolved(
        &mut self,
        evidence: &Hash,
        at: Location,
    ) -> Result<(), ApplyError> {
        let mut forks = self.forks.iter_mut();
        let fork = forks.find(|fork| fork.evidence == *evidence && !fork.resolved);
        let fork = fork.ok_or(ApplyError::rule("no such evidence"))?;
        fork.resolved = true;
        self.trust.push(at);
        Ok(())
    }
}
