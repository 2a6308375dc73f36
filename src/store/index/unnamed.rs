//! Contexts that are being loaded (`spec/05-store.md`, Loading). Their runs come
//! first, under a number that has no name; the record that names the number is
//! what makes the context exist. Until then nobody can ask for it, no head
//! covers it, and it counts for nothing.
//!
//! Invariants:
//! * the record that names a number says size and root of what it names, and
//!   must find just that: what lies under a number without a name is covered by
//!   no head that it could be checked against;
//! * a number is used once, whether or not it ever gets a name.

use super::{ApplyError, ContextState, Index, IndexError, Location, StoreRole};
use crate::entry::ContextId;
use crate::hash::Hash;
use crate::run::Accumulator;
use crate::store::record::Position;

impl Index {
    /// The state that the next run of `number` continues.
    pub(crate) fn run_base(&mut self, number: u64) -> Result<Accumulator, ApplyError> {
        if self.may_begin_unnamed(number) {
            return Ok(Accumulator::default());
        }
        Ok(self.touch(number)?.after.clone())
    }

    fn may_begin_unnamed(&self, number: u64) -> bool {
        self.role == StoreRole::Own && number == self.next_number()
    }

    /// The first run of a number that was never used before begins a context
    /// without a name.
    pub(super) fn begin_unnamed(&mut self, number: u64) {
        if self.may_begin_unnamed(number) {
            self.numbers = number;
            self.tail
                .touch(ContextState::new(number, None, Position::default()), false);
        }
    }

    pub(super) fn apply_named(
        &mut self,
        number: u64,
        (id, at): (ContextId, Location),
        size: u64,
        root: Hash,
    ) -> Result<(), ApplyError> {
        let state = self.touch(number)?;
        if state.name.is_some() {
            return Err(ApplyError::rule("a number is named twice"));
        }
        if size == 0 || state.after.size() != size || state.after.root() != root {
            // Rows under a number without a name may be old ones.
            if self.tail.context(number).is_some_and(|c| c.base_size > 0) {
                let what = "what was loaded is not what its name says";
                self.below.lose(what);
                return Err(IndexError::Stale(what).into());
            }
            return Err(ApplyError::rule(
                "what was loaded is not what its name says",
            ));
        }
        self.tail.name(number, id, at.position);
        self.contexts += 1;
        self.grow(number, size);
        Ok(())
    }
}
