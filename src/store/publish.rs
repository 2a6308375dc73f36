//! Publishing: from durable entries to a signed head that may be told to
//! others. The order is what makes it safe (`spec/05-store.md`, Publishing):
//! directory computed, note signed, record durable (from here the epoch is
//! used), told, `head.note` replaced.

use std::time::{Duration, Instant};

use super::body;
use super::head_note::HeadNote;
use super::index::{ApplyError, Effect};
use super::plan::Planned;
use super::record::{Group, RecordType};
use super::writer::Writer;
use super::{Change, StoreError};
use crate::directory::Update;
use crate::entry::ContextId;
use crate::hash::Hash;
use crate::head::{Head, Rotation, SignedHead, sign_head, sign_rotation};
use crate::note::SignerKey;
use crate::tree::second_opinion::root_by_rs_merkle;

/// `head.note` is replaced at most this often, and at close.
pub(super) const HEAD_NOTE_EVERY: Duration = Duration::from_secs(1);
/// Contexts up to this size are recomputed by a second implementation before
/// the first head after an unclean start.
const SECOND_OPINION_ENTRIES_MAX: u64 = 65_536;

impl Writer {
    /// Signs a head over everything durable. The order is what makes it safe:
    /// directory computed, note signed, record durable, and only then told.
    pub(super) fn publish(&mut self) -> Result<SignedHead, StoreError> {
        self.publish_with(None)
    }

    /// The same; with `next`, the head ends the signer's key and brings that
    /// one.
    pub(super) fn publish_with(
        &mut self,
        next: Option<&SignerKey>,
    ) -> Result<SignedHead, StoreError> {
        if let Some(error) = self.stopped() {
            return Err(error);
        }
        self.first_note()?;
        if self.in_doubt {
            self.second_opinion()?;
            self.in_doubt = false;
        }
        let signer = self
            .signer
            .as_ref()
            .ok_or(StoreError::Refused("a mirror signs no heads"))?;
        let (published, update) = {
            let index = self.view.index();
            let failed = |reason: String| StoreError::Failed { reason };
            let update = index
                .update(&index.changes())
                .map_err(|error| match error {
                    ApplyError::Index(error) => error.into(),
                    ApplyError::Log(error) => failed(error.to_string()),
                })?;
            let before = index.published.head().map_or(0, |head| head.head().time_ns);
            let head = Head {
                origin: signer.verifier().name().clone(),
                term: self.term,
                epoch: self.next_epoch,
                directory_root: update.root,
                contexts: update.sums.contexts,
                entries: update.sums.entries,
                time_ns: self.options.clock.now_ns().max(before),
                rotation: next.map(|next| Rotation {
                    old: signer.verifier().clone(),
                    new: next.verifier().clone(),
                }),
            };
            // Whatever happens next, this epoch has been signed.
            self.next_epoch = self.next_epoch.saturating_add(1);
            let note = match next {
                Some(next) => sign_rotation(&head, signer, next),
                None => sign_head(&head, signer),
            };
            let note = note.map_err(|error| failed(error.to_string()))?;
            let head = index.open_head(&note);
            (head.map_err(|error| failed(error.to_string()))?, update)
        };
        self.put_head(published.clone(), update)?;
        self.epoch_at_stake = false;
        Ok(published)
    }

    /// Writes a head record as a group of its own, and `head.note` when due.
    pub(super) fn put_head(&mut self, head: SignedHead, update: Update) -> Result<(), StoreError> {
        let covered = self.view.index().state_end();
        let note = head.note_bytes();
        let mut group = Group::new();
        let (offset, body_len) =
            group.add(RecordType::Head, |out| body::put_head(covered, &note, out));
        let effects = vec![(offset, body_len, Effect::head(head, update))];
        self.commit(Planned::new(group, effects))?;
        if let Some(listener) = &self.options.listener {
            (listener.0)(Change::Head);
        }
        let now = Instant::now();
        self.head_at = now;
        self.pace.take(now);
        let (position, chain) = (self.log.end(), self.log.chain());
        self.note_due = Some(HeadNote {
            position,
            chain,
            note,
        });
        if self.note_at.is_none_or(|at| at + HEAD_NOTE_EVERY <= now) {
            self.replace_note(now);
        }
        Ok(())
    }

    /// Before a second head is signed the first one is in `head.note`, durable.
    /// So no crash leaves a log of two heads without the file, and one that is
    /// found so has lost it. Then there is no note to be made again here: the
    /// file stays away until the head that is published for its loss is durable.
    fn first_note(&mut self) -> Result<(), StoreError> {
        let (true, Some(note)) = (!self.note_there, &self.note_due) else {
            return Ok(());
        };
        let made = note.replace(&*self.disk);
        made.map_err(|error| StoreError::io("make head.note", error))?;
        self.note_there = true;
        self.note_at = Some(Instant::now());
        self.note_due = None;
        Ok(())
    }

    /// A `head.note` that cannot be replaced is behind, which is safe.
    pub(super) fn replace_note(&mut self, now: Instant) {
        let Some(note) = self.note_due.take() else {
            return;
        };
        self.note_at = Some(now);
        if let Err(error) = note.replace(&*self.disk) {
            tracing::warn!(%error, "head.note not replaced");
            self.note_due = Some(note);
        } else {
            self.note_there = true;
        }
    }

    /// Contexts that grew since the last head are recomputed by `rs_merkle` from
    /// the headers as they can be read back now.
    fn second_opinion(&mut self) -> Result<(), StoreError> {
        let changed: Vec<(ContextId, u64, Hash)> = {
            let index = self.view.index();
            let changed = index.changed().filter_map(|state| {
                let id = state.name.clone()?;
                Some((id, state.after.size(), state.after.root()))
            });
            changed.collect()
        };
        for (id, size, root) in changed {
            if size > SECOND_OPINION_ENTRIES_MAX {
                continue;
            }
            let leaves = self.view.all_leaves(&id, size)?;
            if leaves.len() as u64 != size || root_by_rs_merkle(&leaves) != root {
                let reason = format!("context {id:?} has two roots in two implementations");
                return Err(self.fail(reason));
            }
        }
        Ok(())
    }
}
