//! NDJSON input: lines to drafts, drafts to batches. A batch is what becomes
//! durable together, so its bounds are part of the contract (`spec/00-terms.md`).
//!
//! Invariants:
//! * no more of a line is read than a line may have;
//! * a batch holds whole lines, numbered without gaps: a blank line is allowed
//!   only where nothing follows but blank lines;
//! * after a bad line nothing more is read.

use std::fmt;
use std::io::{BufRead, Read as _};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};

use super::error::CliError;
use crate::entry::{ContextId, Draft, Metadata};
use crate::limits::{NDJSON_BATCH_BYTES_MAX, NDJSON_BATCH_LINES_MAX, NDJSON_LINE_BYTES_MAX};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    key: String,
    #[serde(default, deserialize_with = "given")]
    payload: Option<String>,
    #[serde(default, deserialize_with = "given")]
    payload_base64: Option<String>,
    #[serde(default)]
    metadata: Pairs,
    #[serde(default, deserialize_with = "given")]
    context: Option<String>,
    #[serde(default, deserialize_with = "given")]
    request_id: Option<String>,
}

/// A field that may be missing but not `null`.
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    String::deserialize(deserializer).map(Some)
}

/// An object of strings as it is written: a repeated key is seen, and refused
/// by [`Metadata`].
#[derive(Default)]
struct Pairs(Vec<(String, String)>);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Pairs;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of strings")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(Collect)
    }
}

/// Lines that become durable together.
#[derive(Debug)]
pub(super) struct Batch {
    /// Number of the first line, from 1.
    pub(super) first_line: u64,
    /// Number of the last line.
    pub(super) last_line: u64,
    /// One draft a line.
    pub(super) drafts: Vec<(ContextId, Draft)>,
    /// Bytes of input read so far.
    pub(super) input_bytes: u64,
}

/// A line that cannot be stored; nothing of its batch was handed out.
#[derive(Debug)]
pub(super) struct BadLine {
    /// Its number, from 1.
    pub(super) line: u64,
    /// Number of the first line of its batch.
    pub(super) first_line: u64,
    /// What is wrong.
    pub(super) error: CliError,
}

/// An iterator over the batches of an input; ends after the first bad line.
pub(super) struct Batches<R> {
    reader: R,
    /// For lines that name none.
    context: Option<ContextId>,
    line: u64,
    input_bytes: u64,
    buffer: Vec<u8>,
    /// A line that was read and did not fit the batch before it.
    held: Option<(ContextId, Draft)>,
    ended: bool,
}

impl<R: BufRead> Batches<R> {
    pub(super) fn new(reader: R, context: Option<ContextId>) -> Self {
        Self {
            reader,
            context,
            line: 0,
            input_bytes: 0,
            buffer: Vec::new(),
            held: None,
            ended: false,
        }
    }

    /// Reads a line into the buffer, without its end; false at the end.
    fn read_line(&mut self) -> Result<bool, CliError> {
        self.buffer.clear();
        let bytes_max = NDJSON_LINE_BYTES_MAX as u64 + 1;
        let read = (&mut self.reader)
            .take(bytes_max)
            .read_until(b'\n', &mut self.buffer)
            .map_err(|error| CliError::could_not(error).context("could not read the input"))?;
        self.input_bytes += read as u64;
        if read == 0 {
            return Ok(false);
        }
        if self.buffer.last() == Some(&b'\n') {
            self.buffer.pop();
        }
        if self.buffer.len() > NDJSON_LINE_BYTES_MAX {
            return Err(CliError::usage(format_args!(
                "longer than {NDJSON_LINE_BYTES_MAX} bytes"
            )));
        }
        Ok(true)
    }

    /// The next line's draft; `None` at the end of the input.
    fn next_draft(&mut self) -> Result<Option<(ContextId, Draft)>, CliError> {
        if self.ended {
            return Ok(None);
        }
        if !self.read_line()? {
            self.ended = true;
            return Ok(None);
        }
        self.line += 1;
        if !is_blank(&self.buffer) {
            return parse(&self.buffer, self.context.as_ref()).map(Some);
        }
        while self.read_line()? {
            if !is_blank(&self.buffer) {
                return Err(CliError::usage("a blank line between entries"));
            }
        }
        self.ended = true;
        Ok(None)
    }

    fn collect(&mut self) -> Result<Option<Batch>, BadLine> {
        let mut drafts = Vec::new();
        let mut cost = 0usize;
        // The held line is the one that was read last.
        let first_line = self.line + u64::from(self.held.is_none());
        while drafts.len() < NDJSON_BATCH_LINES_MAX {
            let held = self.held.take();
            let next = match held {
                Some(held) => Some(held),
                None => self.next_draft().map_err(|error| BadLine {
                    // A line that could not even be read was not counted.
                    line: self.line.max(first_line + drafts.len() as u64),
                    first_line,
                    error,
                })?,
            };
            let Some((context, draft)) = next else { break };
            let more = draft.cost_bytes();
            if !drafts.is_empty() && cost.saturating_add(more) > NDJSON_BATCH_BYTES_MAX {
                self.held = Some((context, draft));
                break;
            }
            cost = cost.saturating_add(more);
            drafts.push((context, draft));
        }
        if drafts.is_empty() {
            return Ok(None);
        }
        Ok(Some(Batch {
            first_line,
            last_line: first_line + drafts.len() as u64 - 1,
            drafts,
            input_bytes: self.input_bytes,
        }))
    }
}

impl<R: BufRead> Iterator for Batches<R> {
    type Item = Result<Batch, BadLine>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.collect();
        self.ended |= next.is_err();
        next.transpose()
    }
}

fn is_blank(line: &[u8]) -> bool {
    line.iter().all(|byte| matches!(byte, b' ' | b'\t' | b'\r'))
}

fn parse(line: &[u8], context: Option<&ContextId>) -> Result<(ContextId, Draft), CliError> {
    let line: Line = serde_json::from_slice(line).map_err(|error| {
        // serde_json counts lines of its own input, of which there is one.
        let text = error.to_string();
        CliError::usage(text.replace(" at line 1 column ", " at column "))
    })?;
    let payload = match (line.payload, line.payload_base64) {
        (Some(text), None) => text.into_bytes(),
        (None, Some(text)) => STANDARD
            .decode(text)
            .map_err(|error| CliError::usage(error).context("payload_base64"))?,
        _ => {
            return Err(CliError::usage(
                "exactly one of \"payload\" and \"payload_base64\" is needed",
            ));
        }
    };
    let context = match (line.context, context) {
        (Some(name), _) => ContextId::new(&name).map_err(CliError::usage)?,
        (None, Some(context)) => context.clone(),
        (None, None) => {
            return Err(CliError::usage(
                "no \"context\", and no --context to fall back on",
            ));
        }
    };
    let metadata = Metadata::from_pairs(line.metadata.0).map_err(CliError::usage)?;
    let draft = Draft::new(line.key, payload)
        .map_err(CliError::usage)?
        .with_metadata(metadata)
        .with_request_id(line.request_id.unwrap_or_default())
        .map_err(CliError::usage)?;
    Ok((context, draft))
}

#[cfg(test)]
mod tests;
