//! `get`, `contexts`, `head`: reading. Entries come page by page, so memory
//! does not grow with a context.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use serde::Serialize as DeriveSerialize;
use serde::ser::{Serialize, SerializeMap, Serializer};

use super::data::DataDir;
use super::error::CliError;
use super::output::{Out, escape};
use crate::entry::{ContextId, Entry, Metadata};
use crate::store::{PageLimits, StoreRole};

/// Contexts asked for at a time.
const CONTEXTS_PAGE: usize = 10_000;

#[derive(Debug, Args)]
pub(super) struct GetArguments {
    /// The context
    #[arg(long, value_name = "NAME")]
    context: String,
    /// Begin after this sequence
    #[arg(long, value_name = "SEQUENCE", default_value_t = 0)]
    after: u64,
    /// Print at most so many entries [default: all]
    #[arg(long, value_name = "ENTRIES", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// Print only entries with this key
    #[arg(long)]
    key: Option<String>,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct ContextsArguments {
    /// Print one JSON object a line: `context`, `size`, `root`
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct HeadArguments {
    /// Print one JSON object with the head's fields and the note
    #[arg(long)]
    json: bool,
}

/// A value printed by its `Display` as a JSON string.
struct Text<T>(T);

impl<T: fmt::Display> Serialize for Text<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

struct MetadataJson<'a>(&'a Metadata);

impl Serialize for MetadataJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let pairs = self.0.as_ref();
        let mut map = serializer.serialize_map(Some(pairs.len()))?;
        for (key, value) in pairs.iter() {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

#[derive(DeriveSerialize)]
struct EntryJson<'a> {
    sequence: u64,
    id: Text<crate::hash::Hash>,
    key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_base64: Option<String>,
    metadata: MetadataJson<'a>,
    lamport: u64,
    appended_at_ns: u64,
}

impl<'a> EntryJson<'a> {
    fn new(entry: &'a Entry) -> Self {
        let payload = std::str::from_utf8(&entry.payload).ok();
        Self {
            sequence: entry.sequence,
            id: Text(entry.id),
            key: &entry.key,
            payload,
            payload_base64: payload.is_none().then(|| STANDARD.encode(&entry.payload)),
            metadata: MetadataJson(&entry.metadata),
            lamport: entry.lamport,
            appended_at_ns: entry.appended_at_ns,
        }
    }
}

#[derive(DeriveSerialize)]
struct ContextJson<'a> {
    context: &'a str,
    size: u64,
    root: Text<crate::hash::Hash>,
}

#[derive(DeriveSerialize)]
struct HeadJson<'a> {
    origin: &'a str,
    term: u64,
    epoch: u64,
    directory_root: Text<crate::hash::Hash>,
    contexts: u64,
    entries: u64,
    time_ns: u64,
    note: &'a str,
}

pub(super) fn get(data: &DataDir, arguments: &GetArguments) -> Result<(), CliError> {
    let context = ContextId::new(&arguments.context)
        .map_err(|error| CliError::usage(error).context("--context"))?;
    let view = data.open_view()?;
    if view
        .size(&context)
        .map_err(|error| data.named(error))?
        .is_none()
    {
        return Err(CliError::could_not(format_args!(
            "there is no context {:?} here",
            context.as_str()
        ))
        .hint("`contexts` lists them."));
    }
    let mut out = Out::new();
    let mut left = arguments.limit.unwrap_or(u64::MAX);
    let mut after = arguments.after;
    while left > 0 {
        // 0 asks for as much as fits a page.
        let wanted = arguments
            .limit
            .map_or(0, |_| usize::try_from(left).unwrap_or(0));
        let page = view.page(
            &context,
            after,
            &PageLimits::entries(wanted),
            arguments.key.as_deref(),
        )?;
        for entry in &page.entries {
            if arguments.json {
                out.json(&EntryJson::new(entry))?;
            } else {
                out.line(Shown(entry))?;
            }
        }
        left = left.saturating_sub(page.entries.len() as u64);
        after = page.next_after;
        if after == 0 {
            break;
        }
    }
    out.flush()
}

/// An entry for people: sequence, key, payload, nothing that moves a cursor.
struct Shown<'a>(&'a Entry);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Entry { sequence, key, .. } = self.0;
        write!(f, "{sequence}\t{}\t", escape(key))?;
        match std::str::from_utf8(&self.0.payload) {
            Ok(payload) => f.write_str(&escape(payload)),
            Err(_) => write!(f, "({} bytes that are not text)", self.0.payload.len()),
        }
    }
}

pub(super) fn contexts(data: &DataDir, arguments: &ContextsArguments) -> Result<(), CliError> {
    let view = data.open_view()?;
    let mut out = Out::new();
    let mut after: Option<ContextId> = None;
    loop {
        let page = view.contexts(after.as_ref(), CONTEXTS_PAGE)?;
        for context in &page {
            if arguments.json {
                out.json(&ContextJson {
                    context: context.id.as_str(),
                    size: context.size,
                    root: Text(context.root),
                })?;
            } else {
                out.line(format_args!(
                    "{:>10}  {}  {}",
                    context.size,
                    context.root,
                    escape(context.id.as_str())
                ))?;
            }
        }
        match page.last() {
            Some(last) if page.len() == CONTEXTS_PAGE => after = Some(last.id.clone()),
            _ => return out.flush(),
        }
    }
}

pub(super) fn head(data: &DataDir, arguments: &HeadArguments) -> Result<(), CliError> {
    let view = data.open_view()?;
    let Some(signed) = view.head() else {
        let error = CliError::could_not("there is no head yet");
        return Err(match view.role() {
            StoreRole::Own => error.hint("The next `append` or `serve` signs one."),
            StoreRole::Mirror => error.hint("Pull from a source with `mirror` first."),
        });
    };
    let note = signed.note_bytes();
    let mut out = Out::new();
    if arguments.json {
        let head = signed.head();
        out.json(&HeadJson {
            origin: head.origin.as_str(),
            term: head.term,
            epoch: head.epoch,
            directory_root: Text(head.directory_root),
            contexts: head.contexts,
            entries: head.entries,
            time_ns: head.time_ns,
            // A note is UTF-8, or it would not have been opened.
            note: std::str::from_utf8(&note).unwrap_or_default(),
        })?;
    } else {
        out.bytes(&note)?;
    }
    out.flush()
}
