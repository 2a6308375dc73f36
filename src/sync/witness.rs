//! Layer 3. What a note proves that somebody showed, without asking anybody
//! anything: another text of a head that is held.

use super::mirror::{Mirror, MirrorLimits, Output};
use super::pushed::Told;
use crate::evidence::Evidence;
use crate::ledger::{Ingest, ReadMirror};

/// Evidence against the origin of `ledger`, if a note together with what is held
/// is that already. A contradiction that takes paths to prove shows when its
/// holder is synced with.
pub fn contradiction<M: ReadMirror + ?Sized>(ledger: &M, note: &[u8]) -> Option<Evidence> {
    let mut mirror = Mirror::new(ledger, ledger.origin_key(), MirrorLimits::default());
    mirror.start_from(Told {
        notes: vec![note.to_vec()],
        ..Told::default()
    });
    let outputs = std::iter::from_fn(|| mirror.poll_output());
    let evidence = outputs.filter_map(|output| match output {
        Output::Store {
            item: Ingest::Evidence(evidence),
            ..
        } => Some(evidence),
        // Nobody is asked, and nothing else is stored on a stranger's word.
        _ => None,
    });
    evidence.last()
}
