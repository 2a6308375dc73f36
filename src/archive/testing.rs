//! Layer 3, tests only. A history in memory, and archives taken apart into
//! their sections and put together again, wrongly if need be.

use std::collections::HashMap;
use std::convert::Infallible;

use super::section::SectionHeader;
use super::{Verified, Written, verify, write};
use crate::entry::{ContextId, Draft};
use crate::hash::{self, Hash};
use crate::ledger::ReadHistory;
use crate::limits::PAYLOAD_INLINE_BYTES_MAX;
use crate::run::{Accumulator, Run, RunBuilder};

/// One context in memory. What it says of itself can be made wrong.
#[derive(Clone, Debug)]
pub(super) struct MemoryHistory {
    pub(super) id: ContextId,
    pub(super) size: u64,
    pub(super) root: Hash,
    pub(super) runs: Vec<Vec<u8>>,
    pub(super) payloads: HashMap<Hash, Vec<u8>>,
    /// The leaves, for roots worked out another way.
    pub(super) leaves: Vec<Hash>,
    pub(super) headers: Vec<Vec<u8>>,
}

impl MemoryHistory {
    /// Entries with these payloads, cut into runs of at most `cuts` entries,
    /// one after the other and from the front again.
    pub(super) fn new(payloads: impl IntoIterator<Item = Vec<u8>>, cuts: &[usize]) -> Self {
        let mut history = Self {
            id: ContextId::new("context/\u{fc}").unwrap(),
            size: 0,
            root: hash::empty_root(),
            runs: Vec::new(),
            payloads: HashMap::new(),
            leaves: Vec::new(),
            headers: Vec::new(),
        };
        let mut cuts = cuts.iter().copied().cycle();
        let mut room = cuts.next().unwrap();
        let mut builder = RunBuilder::default();
        for payload in payloads {
            history.size += 1;
            let sequence = history.size;
            let draft = Draft::new(format!("key-{}", sequence % 3), payload).unwrap();
            let header = draft.header(sequence, 2 * sequence, 1000 + sequence / 2);
            let (bytes, len) = (header.encoded_len(), draft.payload().len());
            if builder.count() >= room || !builder.has_room(sequence, bytes, len) {
                history.close(&mut builder);
                room = cuts.next().unwrap();
            }
            history
                .leaves
                .push(builder.push(&header, draft.payload()).unwrap());
            if len > PAYLOAD_INLINE_BYTES_MAX {
                let hash = draft.payload_hash();
                history.payloads.insert(hash, draft.payload().to_vec());
            }
        }
        history.close(&mut builder);
        let mut after = Accumulator::default();
        for run in &history.runs {
            let run = Run::decode(run).unwrap();
            let entries = run.entries().map(|e| e.unwrap().header_bytes.to_vec());
            history.headers.extend(entries);
            after.extend(&run, |_, _| (), |_, _| ()).unwrap();
        }
        history.root = after.root();
        history
    }

    fn close(&mut self, builder: &mut RunBuilder) {
        if builder.count() > 0 {
            let mut run = Vec::new();
            builder.finish_into(&mut run);
            self.runs.push(run);
        }
    }

    pub(super) fn archive(&self) -> Vec<u8> {
        self.archived().0
    }

    pub(super) fn archived(&self) -> (Vec<u8>, Written) {
        let mut out = Vec::new();
        let written = write(self, &mut out).unwrap();
        assert_eq!(written.bytes, out.len() as u64);
        (out, written)
    }
}

impl ReadHistory for MemoryHistory {
    type Error = Infallible;

    fn id(&self) -> &ContextId {
        &self.id
    }

    fn size(&self) -> u64 {
        self.size
    }

    fn root(&self) -> Hash {
        self.root
    }

    fn runs(&self, after: u64, bytes_max: usize) -> Result<Vec<Vec<u8>>, Infallible> {
        let mut bytes = 0;
        let holds = |run: &&Vec<u8>| Run::decode(run).unwrap().last() > after;
        let fit = |run: &&Vec<u8>| {
            bytes += run.len();
            bytes == run.len() || bytes <= bytes_max
        };
        let runs = self.runs.iter().skip_while(|run| !holds(run));
        Ok(runs.take_while(fit).cloned().collect())
    }

    fn outside_payload(&self, hash: &Hash) -> Result<Vec<u8>, Infallible> {
        Ok(self.payloads.get(hash).cloned().unwrap_or_default())
    }
}

/// A section: its kind and its body.
pub(super) type Piece = (u8, Vec<u8>);

/// The first lines and the sections of an archive, the end not among them.
pub(super) fn take_apart(archive: &[u8]) -> (Vec<u8>, Vec<Piece>) {
    let title = archive.windows(2).position(|two| two == b"\n\n").unwrap() + 2;
    let (mut rest, mut pieces) = (&archive[title..], Vec::new());
    while !rest.is_empty() {
        let bytes = u64::from_le_bytes(rest[8..16].try_into().unwrap());
        let (section, after) = rest.split_at(48 + usize::try_from(bytes).unwrap());
        pieces.push((section[0], section[48..].to_vec()));
        rest = after;
    }
    assert_eq!(pieces.pop().unwrap().0, 255);
    (archive[..title].to_vec(), pieces)
}

/// Sections with right hashes behind first lines, without an end.
pub(super) fn put_together(title: &[u8], pieces: &[Piece]) -> Vec<u8> {
    let mut out = title.to_vec();
    for (kind, body) in pieces {
        out.extend(SectionHeader::new(*kind, body).to_bytes());
        out.extend(body);
    }
    out
}

/// The same with an end that says so many entries.
pub(super) fn finished(title: &[u8], pieces: &[Piece], entries: u64) -> Vec<u8> {
    let mut out = put_together(title, pieces);
    let mut end = entries.to_le_bytes().to_vec();
    end.extend((pieces.len() as u64).to_le_bytes());
    end.extend(hash::content(&out).as_bytes());
    out.extend(put_together(&[], &[(255, end)]));
    out
}

pub(super) fn good(archive: &[u8]) -> Verified {
    verify(archive, None).unwrap()
}
