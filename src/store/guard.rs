//! A signer that cannot be rolled back (`spec/12-guard.md`): what somebody shows
//! is compared with what the log holds, and a statement of the store's own that
//! the log cannot account for ends its life as a signer.
//!
//! Invariants:
//! * only what a key of the store's own chain has signed counts, for the heads
//!   that key counted for: nobody else can freeze a store;
//! * no crash freezes a store. A head is told when its record is durable and in
//!   the index, so whoever can show one shows one that the log has.

use std::ops::Deref;

use super::body::StoreRole;
use super::disk::Disk;
use super::frozen::{self, Frozen, FrozenKind};
use super::head_note::HeadNote;
use super::index::{Index, TrustedKeys};
use super::log::LogReader;
use super::past::{Looked, find_in};
use super::recover::Replayed;
use super::{Damage, Store, StoreError};
use crate::head::{Head, HeadOrder, SignedHead, Takeover, is_takeover};
use crate::limits::FROZEN_NOTES_MAX;
use crate::note::{Note, VerifierKey};

/// What notes that somebody showed mean for a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Witness {
    /// No statement of this store's own.
    NotOurs,
    /// Statements that its log holds.
    Known,
    /// Statements that its log cannot account for: it is frozen.
    Frozen,
}

/// What one note means, or several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Judged {
    NotOurs,
    Known,
    Against(Frozen),
}

/// Finds the head of the log at a place.
pub(super) type Find<'f> = dyn FnMut(HeadOrder) -> Result<Looked, StoreError> + 'f;

/// Judges what is shown to a store that has this chain of keys and this newest
/// head.
pub(super) struct Judge<'f> {
    own: TrustedKeys,
    /// With rotations that were shown and that the log lacks.
    shown: TrustedKeys,
    newest: Option<SignedHead>,
    find: &'f mut Find<'f>,
}

impl<'f> Judge<'f> {
    pub(super) fn new(
        own: TrustedKeys,
        newest: Option<SignedHead>,
        find: &'f mut Find<'f>,
    ) -> Self {
        Self {
            shown: own.clone(),
            own,
            newest,
            find,
        }
    }

    /// The verdict on all, and the notes that speak against the log.
    pub(super) fn all(&mut self, notes: &[Vec<u8>]) -> Result<(Judged, Vec<Vec<u8>>), StoreError> {
        let (mut verdict, mut against) = (Judged::NotOurs, Vec::new());
        for note in notes.iter().take(FROZEN_NOTES_MAX) {
            verdict = match (verdict, self.one(note)?) {
                (verdict, Judged::NotOurs) => verdict,
                (Judged::Against(before), Judged::Known) => Judged::Against(before),
                (_, Judged::Known) => Judged::Known,
                (before, Judged::Against(now)) => {
                    against.push(note.clone());
                    Judged::Against(match before {
                        Judged::Against(before) => worse(before, now),
                        _ => now,
                    })
                }
            };
        }
        Ok((verdict, against))
    }

    fn one(&mut self, note: &[u8]) -> Result<Judged, StoreError> {
        // By far the most common: the newest head, come back.
        if let Some(newest) = &self.newest
            && newest.note_bytes() == note
        {
            return Ok(Judged::Known);
        }
        if is_takeover(note) {
            return Ok(self.takeover(note));
        }
        let Some((head, key)) = self.open(note) else {
            return Ok(Judged::NotOurs);
        };
        if let Some(rotation) = &head.head().rotation {
            if self.own.rotations().any(|own| own.head() == head.head()) {
                return Ok(Judged::Known);
            }
            // R5: into the pinned key it is a head like others.
            if rotation.old == key {
                // It leads on to what is shown behind it.
                self.shown.extend(&head);
                let kind = if self.is_newer(head.order()) {
                    FrozenKind::Ahead
                } else {
                    FrozenKind::OtherText
                };
                return Ok(self.against(kind, head.head()));
            }
        } else if self.own.ended(&key).is_some_and(|end| head.order() > end) {
            // Whoever stole a key that no longer counts can write this.
            tracing::error!(order = %head.order(), "a head signed by a key that no longer counts");
            return Ok(Judged::NotOurs);
        }
        if self.is_newer(head.order()) {
            return Ok(self.against(FrozenKind::Ahead, head.head()));
        }
        Ok(match (self.find)(head.order())? {
            Looked::Head(own) if own.head.head() == head.head() => Judged::Known,
            // No head was told at a place that the log skips.
            Looked::Head(_) | Looked::None => self.against(FrozenKind::OtherText, head.head()),
            Looked::TooFar => Judged::Known,
        })
    }

    /// Opens a note under the key that signed it, the newest first.
    fn open(&self, note: &[u8]) -> Option<(SignedHead, VerifierKey)> {
        let head = Head::parse(Note::parse(note).ok()?.text()).ok()?;
        if head.origin != *self.own.pinned().name() {
            return None;
        }
        // A rotation is judged under the key it ends.
        let ends = |key: &VerifierKey| head.rotation.as_ref().is_none_or(|r| r.old == *key);
        let keys = || self.shown.reigns().rev().map(|reign| reign.key);
        let keys = keys()
            .filter(|key| ends(key))
            .chain(keys().filter(|key| !ends(key)));
        keys.into_iter().find_map(|key| {
            let head = SignedHead::open(note, key).ok()?;
            Some((head, key.clone()))
        })
    }

    fn takeover(&self, note: &[u8]) -> Judged {
        let opened = Note::parse(note).ok().and_then(|note| {
            let takeover = Takeover::parse(note.text()).ok()?;
            let current = [self.own.current(), self.shown.current()];
            let signed = current
                .iter()
                .any(|key| note.open(&[key]).is_ok_and(|keys| !keys.is_empty()));
            (signed && takeover.origin == *self.own.pinned().name()).then_some(takeover)
        });
        let Some(takeover) = opened else {
            return Judged::NotOurs;
        };
        let (held, entries) = self.held();
        let shown = HeadOrder {
            term: takeover.term,
            epoch: takeover.base.epoch,
        };
        Judged::Against(Frozen {
            kind: FrozenKind::Takeover,
            held,
            shown,
            epochs_behind: shown
                .epoch
                .saturating_sub(held.map_or(0, |held| held.epoch)),
            entries_behind: takeover.base_entries.saturating_sub(entries),
        })
    }

    fn is_newer(&self, order: HeadOrder) -> bool {
        self.held().0.is_none_or(|held| held < order)
    }

    /// The newest head's place and entries.
    fn held(&self) -> (Option<HeadOrder>, u64) {
        let newest = self.newest.as_ref().map(SignedHead::head);
        (
            newest.map(Head::order),
            newest.map_or(0, |head| head.entries),
        )
    }

    fn against(&self, kind: FrozenKind, shown: &Head) -> Judged {
        let (held, entries) = self.held();
        Judged::Against(Frozen {
            kind,
            held,
            shown: shown.order(),
            epochs_behind: shown
                .epoch
                .saturating_sub(held.map_or(0, |held| held.epoch)),
            entries_behind: shown.entries.saturating_sub(entries),
        })
    }
}

/// Two histories are worse than an old one; of two statements alike, the one
/// that says how much is missing.
fn worse(one: Frozen, other: Frozen) -> Frozen {
    let rank = |frozen: &Frozen| match frozen.kind {
        FrozenKind::Ahead => 0,
        FrozenKind::Takeover => 1,
        FrozenKind::OtherText => 2,
    };
    if (rank(&other), other.shown) > (rank(&one), one.shown) {
        other
    } else {
        one
    }
}

impl Store {
    /// Judges notes that somebody showed: of an origin's heads, rotations first
    /// and the newest last, as a mirror tells them. One of this store's own that
    /// its log cannot account for freezes the store: what is under way may still
    /// be finished, and nothing is stored or signed after that.
    pub fn witness(&self, notes: &[Vec<u8>]) -> Result<Witness, StoreError> {
        let view = self.view();
        if view.role() == StoreRole::Mirror {
            return Ok(Witness::NotOurs);
        }
        let (own, newest) = {
            let index = view.index();
            (index.chain.clone(), index.published.head().cloned())
        };
        let mut find = |order| view.find_head(order);
        let (judged, against) = Judge::new(own, newest, &mut find).all(notes)?;
        Ok(match judged {
            Judged::NotOurs => Witness::NotOurs,
            Judged::Known => Witness::Known,
            Judged::Against(frozen) => {
                self.freeze(frozen, &against);
                Witness::Frozen
            }
        })
    }
}

/// What opening an own store finds about its past.
#[derive(Debug, Default)]
pub(super) struct Past {
    /// `frozen.note` says what the log holds by now: it goes when the log is
    /// durable.
    pub(super) thawed: bool,
    /// What `head.note` should say, and it is not there.
    pub(super) note_missing: Option<HeadNote>,
    /// It was there before.
    pub(super) note_lost: bool,
}

/// Compares the log with `head.note` and `frozen.note`, before anything is
/// changed.
pub(super) fn look_back(
    disk: &dyn Disk,
    log: &LogReader,
    replayed: &Replayed,
) -> Result<Past, StoreError> {
    let index = &replayed.index;
    let mut past = Past::default();
    let newest = index.published.head();
    match (&replayed.head_note, newest) {
        (Some(note), _) => check_note(note, log, index)?,
        (None, Some(newest)) => {
            // Its group is its own in every log that this software wrote.
            if let Ok(cover) = log.cover_at(index.published.at().position) {
                past.note_missing = Some(HeadNote {
                    position: cover.end,
                    chain: cover.chain,
                    note: newest.note_bytes(),
                });
            }
            past.note_lost = match index.role {
                StoreRole::Own => {
                    let order = newest.order();
                    let before = HeadOrder {
                        term: order.term,
                        epoch: order.epoch.saturating_sub(1),
                    };
                    index.near(before)?.through.is_some()
                }
                StoreRole::Mirror => true,
            };
        }
        (None, None) => (),
    }
    match judge_frozen_note(disk, log, index)? {
        None => (),
        Some(Judged::Against(frozen)) => return Err(StoreError::Frozen(frozen)),
        Some(Judged::Known) => past.thawed = true,
        Some(Judged::NotOurs) => {
            tracing::warn!("frozen.note holds no statement of this store's, and freezes it not");
        }
    }
    Ok(past)
}

/// What `frozen.note` means for an own store, if it is there.
pub(super) fn judge_frozen_note<'d, D: Deref<Target = dyn Disk + 'd>>(
    disk: &dyn Disk,
    log: &LogReader<D>,
    index: &Index,
) -> Result<Option<Judged>, StoreError> {
    if index.role == StoreRole::Mirror {
        return Ok(None);
    }
    let Some(notes) = frozen::read(disk)? else {
        return Ok(None);
    };
    let newest = index.published.head().cloned();
    let mut find = |order| find_in(index, log, order);
    let mut judge = Judge::new(index.chain.clone(), newest, &mut find);
    judge.all(&notes).map(|(judged, _)| Some(judged))
}

/// `head.note` holds a head of the log.
pub(super) fn check_note<'d, D: Deref<Target = dyn Disk + 'd>>(
    note: &HeadNote,
    log: &LogReader<D>,
    index: &Index,
) -> Result<(), StoreError> {
    let newest = index.published.head();
    if newest.is_some_and(|newest| newest.note_bytes() == note.note) {
        return Ok(());
    }
    let damage = |reason: &str| {
        Err(StoreError::Damaged(Damage {
            position: note.position,
            vouched: note.position,
            reason: reason.into(),
        }))
    };
    let Some(head) = index.chain.open_any(&note.note) else {
        return damage("head.note holds no head of this origin");
    };
    if newest.map(SignedHead::order) < Some(head.order()) {
        return damage("head.note holds a head that the log does not");
    }
    match find_in(index, log, head.order())? {
        Looked::Head(own) if own.head.head() == head.head() => Ok(()),
        Looked::TooFar => Ok(()),
        Looked::Head(_) | Looked::None => damage("head.note holds another head than the log"),
    }
}
