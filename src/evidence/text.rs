//! The evidence file.
//!
//! ```text
//! converge-ledger/evidence/v1
//! rotation <lines>              notes of the rotations of the origin's key
//! takeover <lines>              notes of the takeovers between the two heads
//! earlier <lines>               the note of the earlier statement
//! later <lines>                 the note of the later one
//!                               and if it is about a context:
//! context <id>
//! earlier-state <size> <root, base64>
//! earlier-directory <count>     nodes, from the root down
//! later-state <size> <root>     or: later-state 0, if the context is gone
//! later-directory <count>
//!                               and if its tree begins with another one:
//! rewritten-root <root, base64> the later tree's root at the earlier size
//! consistency <count>           from there to the later root
//! ```

use super::{ContextEvidence, Evidence, EvidenceError, Rewritten};
use crate::encoding::DecodeError;
use crate::entry::ContextId;
use crate::limits::{EVIDENCE_BYTES_MAX, PROOF_HASHES_MAX, ROTATIONS_MAX, TAKEOVERS_MAX};
use crate::proof::State;
use crate::proof::text::{TextReader, TextWriter, same_bytes};

/// The first line.
pub(crate) const KIND: &str = "converge-ledger/evidence/v1";

impl Evidence {
    /// The file.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = TextWriter::new(KIND);
        for note in &self.rotations {
            out.note("rotation", note);
        }
        for note in &self.takeovers {
            out.note("takeover", note);
        }
        out.note("earlier", &self.earlier);
        out.note("later", &self.later);
        if let Some(context) = &self.context {
            out.field("context", &context.id);
            out.state("earlier-state", context.earlier.size, &context.earlier.root);
            out.list("earlier-directory", &context.earlier_directory.nodes);
            match &context.later {
                Some(later) => out.state("later-state", later.size, &later.root),
                None => out.field("later-state", 0),
            }
            out.list("later-directory", &context.later_directory.nodes);
            if let Some(rewritten) = &context.rewritten {
                out.bytes("rewritten-root", rewritten.root.as_bytes());
                out.hashes("consistency", &rewritten.consistency);
            }
        }
        out.finish()
    }

    /// Reads a file in its only spelling; nothing is believed yet.
    pub fn parse(bytes: &[u8]) -> Result<Self, EvidenceError> {
        let mut r = TextReader::new(KIND, bytes, EVIDENCE_BYTES_MAX)?;
        let evidence = Self {
            rotations: r.notes("rotation", ROTATIONS_MAX)?,
            takeovers: r.notes("takeover", TAKEOVERS_MAX)?,
            earlier: r.note("earlier")?,
            later: r.note("later")?,
            context: if r.is_next("context") {
                Some(read_context(&mut r)?)
            } else {
                None
            },
        };
        r.finish()?;
        same_bytes(&evidence.to_bytes(), bytes)?;
        Ok(evidence)
    }
}

fn read_context(r: &mut TextReader<'_>) -> Result<ContextEvidence, DecodeError> {
    let id = ContextId::decode(r.field("context")?.as_bytes())?;
    let (size, root) = r.state("earlier-state")?;
    let earlier = State { size, root };
    let earlier_directory = r.path("earlier-directory")?;
    let mut ahead = r.clone();
    let later = if ahead.field("later-state")? == "0" {
        *r = ahead;
        None
    } else {
        let (size, root) = r.state("later-state")?;
        Some(State { size, root })
    };
    let later_directory = r.path("later-directory")?;
    let rewritten = if r.is_next("rewritten-root") {
        let root = r.hash("rewritten-root")?;
        let consistency = r.hashes("consistency", PROOF_HASHES_MAX)?;
        Some(Rewritten { root, consistency })
    } else {
        None
    };
    Ok(ContextEvidence {
        id,
        earlier,
        earlier_directory,
        later,
        later_directory,
        rewritten,
    })
}
