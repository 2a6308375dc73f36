//! The one checker: reads every byte of a store's log and recomputes all of it,
//! needing neither lock nor index, also on read-only media or beside a running
//! writer. An index that nobody uses is compared with the outcome ([`index`]);
//! it has no say in it.
//!
//! What is recomputed: segment headers, header checks, body tags and chain of
//! every record; every leaf, run, payload hash, Lamport and wall-clock order;
//! every tile and root; every head's signature, order, directory root and
//! counts; what `head.note` says. The first thing that is wrong is named.

mod index;
pub(super) mod second;

use std::collections::HashMap;

pub use self::index::AuditedIndex;
use self::index::IndexCheck;
use self::second::SecondOpinion;
use super::StoreError;
use super::body::{self, StoreRole};
use super::condition::Condition;
use super::disk::Disk;
use super::guard::check_note;
use super::index::{Inconsistency, Index};
use super::layout::list_segments;
use super::log::LogReader;
use super::record::{Position, RecordHeader, RecordType};
use super::recover::{Replayed, Start, replay_with};
use super::replay::ReplayError;
use super::scan::{OpenSegment, ScannedGroup, ScannedRecord, open_segment};
use crate::encoding::{DecodeError, Reader};
use crate::hash::{self, Hash};
use crate::limits::{RECORD_ALIGN_BYTES, RECORD_HEADER_BYTES};
use crate::run::{PayloadCheck, Run, RunError};

/// Payloads that are hashed together, at least: runs may be short.
const PAYLOADS_TOGETHER: usize = 256;

/// What an audit found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditReport {
    /// Own store or mirror.
    pub role: StoreRole,
    /// The pinned key.
    pub origin: String,
    /// Contexts with entries.
    pub contexts: u64,
    /// Entries that were verified.
    pub entries: u64,
    /// Bytes of log that were verified.
    pub bytes: u64,
    /// Term and epoch of the newest head, if there is one.
    pub head: Option<(u64, u64)>,
    /// The newest head's directory root.
    pub directory_root: Option<Hash>,
    /// The first thing that is wrong; `None` if nothing is.
    pub first_bad: Option<FirstBad>,
    /// Whether all is well beside the log.
    pub condition: Condition,
    /// What the index is worth. It is no part of what was verified.
    pub index: AuditedIndex,
    /// Roots that a second implementation computed too, if it was asked.
    pub second_roots: Option<u64>,
}

/// What an audit does beside what it always does.
#[derive(Clone, Copy, Debug, Default)]
pub struct AuditOptions {
    /// Recomputes the root of every context by a second implementation of the
    /// tree as well, from leaves that are hashed again for it.
    pub paranoid: bool,
}

/// The first thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirstBad {
    /// The context, if it can be told.
    pub context: Option<String>,
    /// The first sequence that cannot be vouched for, if it can be told.
    pub sequence: Option<u64>,
    /// Where in the log.
    pub position: Position,
    /// What is wrong.
    pub reason: String,
}

/// Audits a store. `progress` hears how many bytes were verified. An error that
/// is a verification failure means that not even the beginning could be read;
/// any other, that the audit could not run.
pub fn audit(disk: &dyn Disk, progress: &mut dyn FnMut(u64)) -> Result<AuditReport, StoreError> {
    audit_with(disk, AuditOptions::default(), progress)
}

/// The same with options.
pub fn audit_with(
    disk: &dyn Disk,
    options: AuditOptions,
    progress: &mut dyn FnMut(u64),
) -> Result<AuditReport, StoreError> {
    let mut bytes = 0u64;
    let mut second = options.paranoid.then(SecondOpinion::default);
    let index_check = IndexCheck::new(disk);
    let mut index_check = index_check.map_err(|error| StoreError::io("randomness", error))?;
    let mut observe = |index: &mut Index, group: &ScannedGroup, _: u64| {
        let log = |(position, error)| ReplayError::Log(position, error);
        bytes += u64::from(group.end.offset()) - u64::from(group.start.offset());
        progress(bytes);
        check_group(group).map_err(log)?;
        if let Some(second) = &mut second {
            second
                .see(group)
                .map_err(|(at, error)| log((at, error.into())))?;
        }
        index_check.after(index, group)
    };
    let (mut replayed, mut verdict) = replay_with(disk, Start::default(), &mut observe)?;
    let audited_index = index_check.finish(verdict.is_ok());
    if verdict.is_ok() {
        verdict = check_end(disk, &mut replayed);
    }
    let index = &replayed.index;
    let head = index.published.head().map(|head| head.head().clone());
    let mut report = AuditReport {
        role: index.role,
        origin: index.chain.pinned().to_string(),
        contexts: index.context_count(),
        entries: index.entries,
        bytes: replayed.bytes_read,
        head: head.as_ref().map(|head| (head.term, head.epoch)),
        directory_root: head.map(|head| head.directory_root),
        first_bad: None,
        condition: Condition::of(disk, &LogReader::over(disk), &replayed)?,
        index: audited_index,
        second_roots: None,
    };
    if let Err(error) = verdict {
        if !error.is_verification_failure() {
            return Err(error);
        }
        report.first_bad = Some(name_it(disk, &replayed, &error)?);
    } else if let Some(second) = second {
        let (roots, bad) = second.compare(index);
        report.second_roots = Some(roots);
        report.first_bad = bad;
    }
    Ok(report)
}

/// What replaying does not check: the payloads themselves. The entries have been
/// decoded by then, and each payload outside its run was seen before it, with
/// the length that is signed.
fn check_group(group: &ScannedGroup) -> Result<(), (Position, Inconsistency)> {
    let mut payloads = PayloadCheck::default();
    for record in &group.records {
        let at = |error| (record.position, error);
        match record.header.kind {
            RecordType::Payload => {
                let (hash, bytes) =
                    body::get_payload(group.body(record)).map_err(|e| at(e.into()))?;
                if hash::content(bytes) != hash {
                    return Err(at(Inconsistency::Rule("a payload does not match its hash")));
                }
            }
            RecordType::Run => {
                let run = run_of(group, record).map_err(|e| at(e.into()))?;
                run.payloads_into(&mut payloads).map_err(|e| at(e.into()))?;
                if payloads.count() >= PAYLOADS_TOGETHER && payloads.finish().is_err() {
                    return Err(bad_payload(group));
                }
            }
            _ => (),
        }
    }
    payloads.finish().map_err(|_| bad_payload(group))
}

fn run_of<'g>(group: &'g ScannedGroup, record: &ScannedRecord) -> Result<Run<'g>, DecodeError> {
    let (_, run) = body::get_run(group.body(record))?;
    Run::decode(run)
}

/// Which of a group's payloads does not match its hash.
fn bad_payload(group: &ScannedGroup) -> (Position, Inconsistency) {
    for record in &group.records {
        if record.header.kind == RecordType::Run
            && let Ok(run) = run_of(group, record)
            && let Err(error) = run.check_payloads()
        {
            return (record.position, error.into());
        }
    }
    let what = "a payload does not match its hash";
    (group.start, Inconsistency::Rule(what))
}

/// Tiles against accumulators, and `head.note` against the log.
fn check_end(disk: &dyn Disk, replayed: &mut Replayed) -> Result<(), StoreError> {
    let position = replayed.end;
    let wrong = |what| StoreError::Inconsistent {
        position,
        error: Inconsistency::Rule(what),
    };
    let tiles = replayed.index.tail.check_tiles();
    tiles.map_err(|_| wrong("tiles and accumulator disagree"))?;
    if let Some(note) = &replayed.head_note {
        check_note(note, &LogReader::over(disk), &replayed.index)?;
    }
    Ok(())
}

/// Names context and sequence of what is wrong, as far as the bytes tell.
fn name_it(
    disk: &dyn Disk,
    replayed: &Replayed,
    error: &StoreError,
) -> Result<FirstBad, StoreError> {
    let position = match error {
        StoreError::Damaged(damage) => damage.position,
        StoreError::Corrupt { position, .. } | StoreError::Inconsistent { position, .. } => {
            *position
        }
        _ => replayed.end,
    };
    let mut bad = FirstBad {
        context: None,
        sequence: None,
        position,
        reason: error.to_string(),
    };
    if let StoreError::Inconsistent {
        error: Inconsistency::Run(run),
        ..
    } = error
    {
        bad.sequence = match run {
            RunError::Payload { sequence } | RunError::Times { sequence, .. } => Some(*sequence),
            RunError::OutOfPlace { expected, .. } => Some(*expected),
            _ => None,
        };
    }
    let segments = list_segments(disk)?;
    // From the beginning of the group that is bad: it may be the one that
    // names the context, and what precedes the bad record in it is sound.
    let mut at = position.min(replayed.end);
    let mut witness = Witness {
        index: &replayed.index,
        names: HashMap::new(),
        next_of: HashMap::new(),
        lost_payload: None,
    };
    for number in at.segment().max(1)..=segments.highest {
        let opened = match open_segment(disk, number, super::disk::Access::Read) {
            Ok(Ok(segment)) => segment,
            // Missing or unreadable: what follows may still tell by its gaps.
            _ => continue,
        };
        if number != at.segment() || at.offset() < super::scan::SEGMENT_HEADER_LEN {
            at = Position::new(number, super::scan::SEGMENT_HEADER_LEN);
        }
        let named = look_on(&opened, at, position, &mut witness)
            .map_err(|error| StoreError::io("read a segment", error))?;
        if let Some((context, sequence)) = named {
            bad.context = Some(context);
            bad.sequence = bad.sequence.or(Some(sequence));
            return Ok(bad);
        }
        at = Position::new(number.saturating_add(1), super::scan::SEGMENT_HEADER_LEN);
    }
    Ok(bad)
}

/// What the bytes behind the last good group say of contexts.
struct Witness<'i> {
    index: &'i Index,
    /// Contexts named behind it.
    names: HashMap<u64, String>,
    /// The sequence expected next.
    next_of: HashMap<u64, u64>,
    /// The bad record is this payload: an entry that refers to it is bad.
    lost_payload: Option<Hash>,
}

/// Looks at `bad`, if a run's header is still readable there, and otherwise on
/// through the segment for the first run that leaves a gap.
fn look_on(
    segment: &OpenSegment,
    mut at: Position,
    bad: Position,
    witness: &mut Witness<'_>,
) -> std::io::Result<Option<(String, u64)>> {
    let mut header = [0u8; RECORD_HEADER_BYTES];
    loop {
        if segment.file.read_at(u64::from(at.offset()), &mut header)? < header.len() {
            return Ok(None);
        }
        let mut step = RECORD_ALIGN_BYTES;
        if let Ok(Some(record)) = RecordHeader::vouched(&segment.keys, at, &header) {
            let mut body = vec![0; record.padded_len()];
            let body_at = u64::from(at.offset()) + RECORD_HEADER_BYTES as u64;
            let got = segment.file.read_at(body_at, &mut body)?;
            body.truncate(got);
            let intact = record.tag_matches(&segment.keys, at, &body);
            body.truncate(record.body_len as usize);
            if intact || at == bad {
                step += record.padded_len() as u64;
            }
            let named = match record.kind {
                RecordType::Context => body::get_context(&body).ok(),
                RecordType::Named => body::get_named(&body).ok().map(|(n, _, _, id)| (n, id)),
                _ => None,
            };
            if intact && let Some((number, id)) = named {
                witness.names.insert(number, id.as_str().to_owned());
            }
            if record.kind == RecordType::Payload && at == bad {
                witness.lost_payload = body.get(..Hash::LEN).and_then(Hash::from_slice);
            }
            if record.kind == RecordType::Run
                && (intact || at == bad)
                && let Some(found) = judge_run(&body, at == bad, witness)
            {
                return Ok(Some(found));
            }
        }
        match at.forward(step) {
            Some(next) => at = next,
            None => return Ok(None),
        }
    }
}

/// The first entry of a run that is wrong, or that the run's place shows to be
/// missing.
fn judge_run(body: &[u8], is_bad: bool, witness: &mut Witness<'_>) -> Option<(String, u64)> {
    let (number, bytes) = body::get_run(body).ok()?;
    let (name, size) = match witness.index.tail.context(number) {
        Some(context) => {
            let state = &context.state;
            (state.name.as_ref()?.as_str().to_owned(), state.after.size())
        }
        None => (witness.names.get(&number)?.clone(), 0),
    };
    let expected = *witness.next_of.entry(number).or_insert(size + 1);
    if is_bad {
        return Some((
            name,
            first_bad_entry(bytes).unwrap_or(expected).max(expected),
        ));
    }
    let run = Run::decode(bytes).ok()?;
    if let Some(lost) = witness.lost_payload
        && let Some(entry) = run
            .entries()
            .filter_map(Result::ok)
            .find(|entry| entry.header.payload_hash == lost)
    {
        return Some((name, entry.header.sequence));
    }
    if run.first() > expected {
        return Some((name, expected));
    }
    witness.next_of.insert(number, run.last() + 1);
    None
}

/// The first sequence of a damaged run whose header or payload is wrong.
fn first_bad_entry(bytes: &[u8]) -> Option<u64> {
    let Ok(run) = Run::decode(bytes) else {
        // The frame itself is damaged; its first sequence may still be right.
        let mut r = Reader::new(bytes);
        r.bytes("run", 8).ok()?;
        return r.u64("first sequence").ok();
    };
    let mut sequence = run.first();
    for entry in run.entries() {
        let good = |entry: &crate::run::RunEntry<'_>| {
            entry
                .inline_payload
                .is_none_or(|p| hash::content(p) == entry.header.payload_hash)
        };
        match entry {
            Ok(entry) if good(&entry) => sequence += 1,
            Ok(_) | Err(_) => return Some(sequence),
        }
    }
    // Nothing shows at this level (a key, a metadata value): the run's first.
    Some(run.first())
}
