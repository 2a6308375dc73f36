//! The parts of a span, to be changed and put together again.

use converge_ledger::hash::Hash;
use converge_ledger::run::{Run, RunBuilder, SPAN_FIXED_BYTES, encode_span};
use converge_ledger::sync::message::{FrameHeader, Kind, Reply};

/// A span in parts.
#[derive(Debug)]
pub(crate) struct Span {
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) right: Vec<Hash>,
    pub(crate) runs: Vec<Vec<u8>>,
}

impl Span {
    /// `None` for a frame that is no span.
    pub(crate) fn of_frame(frame: &[u8]) -> Option<Self> {
        let (Kind::Span, body) = FrameHeader::split(frame).unwrap() else {
            return None;
        };
        let number = |at: usize| u64::from_le_bytes(body[at..at + 8].try_into().unwrap());
        let (hashes, mut rest) =
            body[SPAN_FIXED_BYTES..].split_at(usize::from(body[1]) * Hash::LEN);
        let right = hashes.chunks(Hash::LEN);
        let mut runs = Vec::new();
        while let Some((len, after)) = rest.split_first_chunk() {
            let (run, after) = after.split_at(u32::from_le_bytes(*len) as usize);
            runs.push(run.to_vec());
            rest = after;
        }
        Some(Self {
            start: number(8),
            end: number(16),
            right: right
                .map(|hash| Hash::from_bytes(hash.try_into().unwrap()))
                .collect(),
            runs,
        })
    }

    pub(crate) fn to_frame(&self) -> Vec<u8> {
        let mut body = Vec::new();
        encode_span(self.start, self.end, &self.right, &self.runs, &mut body);
        Reply::Span(&body).encode().unwrap()
    }
}

/// A byte of the first entry's header, flipped.
pub(crate) fn flip_header(run: &[u8]) -> Vec<u8> {
    let decoded = Run::decode(run).unwrap();
    let header = decoded.headers().next().unwrap();
    // The key is the first text in it; a byte of the hash behind it would be
    // caught as a payload that does not match.
    let key = decoded.entries().next().unwrap().unwrap().header.key;
    let at = find(run, header) + find(header, key.as_bytes());
    flipped(run, at)
}

/// A byte of the last payload that lies within the run, flipped.
pub(crate) fn flip_payload(run: &[u8]) -> Vec<u8> {
    let decoded = Run::decode(run).unwrap();
    let payloads = decoded
        .entries()
        .filter_map(|entry| entry.unwrap().inline_payload);
    let longest = payloads.max_by_key(|payload| payload.len()).unwrap();
    flipped(run, find(run, longest))
}

/// The first two entries in each other's place, with the sequence, times and
/// clock of that place: a run no rule but its hashes forbids.
pub(crate) fn reorder(run: &[u8]) -> Vec<u8> {
    let decoded = Run::decode(run).unwrap();
    let entries: Vec<_> = decoded.entries().map(Result::unwrap).collect();
    let mut order: Vec<usize> = (0..entries.len()).collect();
    order.swap(0, 1);
    let mut builder = RunBuilder::default();
    for (place, from) in order.into_iter().enumerate() {
        let mut header = entries[from].header;
        let here = &entries[place].header;
        header.sequence = here.sequence;
        header.lamport = here.lamport;
        header.appended_at_ns = here.appended_at_ns;
        let payload = entries[from].inline_payload.unwrap();
        builder.push(&header, payload).unwrap();
    }
    let mut out = Vec::new();
    builder.finish_into(&mut out);
    out
}

/// The same entries in as few runs as hold them, as far as their payloads lie
/// within.
pub(crate) fn join(runs: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let (mut joined, mut builder) = (Vec::new(), RunBuilder::default());
    let finish = |builder: &mut RunBuilder, joined: &mut Vec<Vec<u8>>| {
        if builder.count() > 0 {
            joined.push(Vec::new());
            builder.finish_into(joined.last_mut().unwrap());
        }
    };
    for bytes in runs {
        let run = Run::decode(bytes).unwrap();
        let entries: Vec<_> = run.entries().map(Result::unwrap).collect();
        if entries.iter().any(|entry| entry.inline_payload.is_none()) {
            finish(&mut builder, &mut joined);
            joined.push(bytes.clone());
            continue;
        }
        for entry in &entries {
            let (header, payload) = (&entry.header, entry.inline_payload.unwrap());
            if !builder.has_room(header.sequence, entry.header_bytes.len(), payload.len()) {
                finish(&mut builder, &mut joined);
            }
            builder.push(header, payload).unwrap();
        }
    }
    finish(&mut builder, &mut joined);
    joined
}

fn find(bytes: &[u8], part: &[u8]) -> usize {
    let found = bytes.windows(part.len()).position(|window| window == part);
    found.unwrap()
}

pub(crate) fn flipped(bytes: &[u8], at: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at] ^= 1;
    bytes
}
