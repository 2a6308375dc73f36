//! How entries and contexts are printed, wherever they come from.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize as DeriveSerialize;
use serde::ser::{Serialize, SerializeMap, Serializer};

use super::error::CliError;
use super::output::{Out, escape};
use crate::entry::{ContextId, Entry, Metadata};
use crate::hash::Hash;
use crate::note::OriginName;

/// A value printed by its `Display` as a JSON string.
pub(super) struct Text<T>(pub(super) T);

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
    id: Text<Hash>,
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

/// Prints an entry on a line.
pub(super) fn entry(out: &mut Out, entry: &Entry, json: bool) -> Result<(), CliError> {
    if json {
        out.json(&EntryJson::new(entry))
    } else {
        out.line(Shown(entry))
    }
}

#[derive(DeriveSerialize)]
struct ContextJson<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    origin: Option<&'a str>,
    context: &'a str,
    size: u64,
    root: Text<Hash>,
}

/// Prints a context on a line, with its origin where there are several.
pub(super) fn context(
    out: &mut Out,
    origin: Option<&OriginName>,
    id: &ContextId,
    size: u64,
    root: Hash,
    json: bool,
) -> Result<(), CliError> {
    if json {
        return out.json(&ContextJson {
            origin: origin.map(OriginName::as_str),
            context: id.as_str(),
            size,
            root: Text(root),
        });
    }
    let name = escape(id.as_str());
    match origin {
        // It has no space in it.
        Some(origin) => {
            let origin = escape(origin.as_str());
            out.line(format_args!("{size:>10}  {root}  {origin}  {name}"))
        }
        None => out.line(format_args!("{size:>10}  {root}  {name}")),
    }
}
