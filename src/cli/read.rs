//! `get`, `contexts`, `head`: reading. Entries come page by page, so memory
//! does not grow with a context.

use std::io::Write as _;

use clap::Args;
use serde::Serialize;

use super::data::DataDir;
use super::error::CliError;
use super::output::{Out, escape};
use super::remote::{ReadArguments, Target};
use super::show::{self, Text};
use crate::client::{Client, ContextSummary, Contexts, PageQuery};
use crate::entry::ContextId;
use crate::store::{ContextInfo, PageLimits, SignedState, StoreRole, View};

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
    /// Check every entry against the newest signed head before it is printed,
    /// from the origin's key down
    #[arg(long)]
    verify: bool,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(super) read: ReadArguments,
}

#[derive(Debug, Args)]
pub(super) struct ContextsArguments {
    /// Print one JSON object a line: `context`, `size`, `root`, and `origin` if a
    /// server holds several
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(super) read: ReadArguments,
}

#[derive(Debug, Args)]
pub(super) struct HeadArguments {
    /// Print one JSON object with the head's fields and the note
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
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

pub(super) fn get(target: &Target, arguments: &GetArguments) -> Result<(), CliError> {
    let context = ContextId::new(&arguments.context)
        .map_err(|error| CliError::usage(error).context("--context"))?;
    if arguments.key.as_deref() == Some("") {
        return Err(CliError::usage("--key must not be empty"));
    }
    match target {
        Target::Directory(data) => get_from_directory(data, &context, arguments),
        Target::Server(_) if arguments.verify => Err(CliError::usage(
            "--verify needs the directory: the API shows no proofs",
        )
        .hint("Give --data, or check a server that mirrors can reach with `audit --from`.")),
        Target::Server(remote) => {
            remote.run(async |client| get_from_server(client, &context, arguments).await)
        }
    }
}

fn get_from_directory(
    data: &DataDir,
    context: &ContextId,
    arguments: &GetArguments,
) -> Result<(), CliError> {
    let view = data.open_view()?;
    if view
        .size(context)
        .map_err(|error| data.named(error))?
        .is_none()
    {
        return Err(CliError::could_not(format_args!(
            "there is no context {:?} here",
            context.as_str()
        ))
        .hint("`contexts` lists them."));
    }
    let signed = if arguments.verify {
        Some(view.signed_state(context)?)
    } else {
        None
    };
    let mut out = Out::new();
    let mut left = arguments.limit.unwrap_or(u64::MAX);
    let mut after = arguments.after;
    let mut verified = 0u64;
    while left > 0 {
        // 0 asks for as much as fits a page.
        let wanted = arguments
            .limit
            .map_or(0, |_| usize::try_from(left).unwrap_or(0));
        let page = view.page(
            context,
            after,
            &PageLimits::entries(wanted),
            arguments.key.as_deref(),
        )?;
        for entry in &page.entries {
            if let Some(signed) = &signed {
                if let Err(error) = view.check_entry(signed, entry) {
                    // What was checked before it is good.
                    out.flush()?;
                    return Err(error.into());
                }
                verified += 1;
            }
            show::entry(&mut out, entry, arguments.json)?;
        }
        left = left.saturating_sub(page.entries.len() as u64);
        after = page.next_after;
        if after == 0 {
            break;
        }
    }
    out.flush()?;
    if let Some(signed) = &signed {
        say_verified(signed, verified);
    }
    Ok(())
}

/// On stderr: stdout has the entries. Without a stderr there is nobody to tell.
fn say_verified(signed: &SignedState, entries: u64) {
    let (order, origin) = (signed.head.order(), &signed.head.head().origin);
    let line = format!("verified {entries} entries under head {order} of {origin}");
    let _ = writeln!(std::io::stderr(), "{}", escape(&line));
}

async fn get_from_server(
    mut client: Client,
    context: &ContextId,
    arguments: &GetArguments,
) -> Result<(), CliError> {
    let mut out = Out::new();
    let mut left = arguments.limit.unwrap_or(u64::MAX);
    let mut query = PageQuery {
        key: arguments.key.clone().unwrap_or_default(),
        after: arguments.after,
        limit: 0,
    };
    while left > 0 {
        // 0 asks for as much as fits a reply.
        query.limit = match arguments.limit {
            Some(_) => u32::try_from(left).unwrap_or(u32::MAX),
            None => 0,
        };
        let page = client.get(context, &query).await?;
        for entry in &page.entries {
            show::entry(&mut out, entry, arguments.json)?;
        }
        left = left.saturating_sub(page.entries.len() as u64);
        // Meanwhile the context may come into being elsewhere, too.
        if let Some(origin) = page.origin {
            client = client.with_origin(origin);
        }
        match page.next_after {
            Some(next) => query.after = next,
            None => break,
        }
    }
    out.flush()
}

pub(super) fn contexts(target: &Target, arguments: &ContextsArguments) -> Result<(), CliError> {
    let json = arguments.json;
    match target {
        Target::Directory(data) => contexts_of_directory(data, json),
        Target::Server(remote) => remote.run(async |client| contexts_of_server(client, json).await),
    }
}

fn contexts_of_directory(data: &DataDir, json: bool) -> Result<(), CliError> {
    let view = data.open_view()?;
    say_fork(&view);
    let mut out = Out::new();
    let mut after: Option<ContextId> = None;
    loop {
        let page = view.contexts(after.as_ref(), CONTEXTS_PAGE)?;
        for context in &page {
            let ContextInfo { id, size, root } = context;
            show::context(&mut out, None, id, *size, *root, json)?;
        }
        match page.last() {
            Some(last) if page.len() == CONTEXTS_PAGE => after = Some(last.id.clone()),
            _ => return out.flush(),
        }
    }
}

/// All contexts of all origins, if none was chosen.
async fn contexts_of_server(client: Client, json: bool) -> Result<(), CliError> {
    let mut out = Out::new();
    let first = client.contexts(None, 0).await?;
    let mut others = match client.origin() {
        Some(_) => Vec::new(),
        None => first.origins.clone(),
    };
    others.retain(|origin| first.origin.as_ref() != Some(origin));
    let several = !others.is_empty();
    print_contexts(&mut out, &client, first, several, json).await?;
    for origin in others {
        let client = client.clone().with_origin(origin);
        let page = client.contexts(None, 0).await?;
        print_contexts(&mut out, &client, page, several, json).await?;
    }
    out.flush()
}

/// A page, and the ones behind it, of the same origin. Whose they are is said if
/// there are others.
async fn print_contexts(
    out: &mut Out,
    client: &Client,
    mut page: Contexts,
    several: bool,
    json: bool,
) -> Result<(), CliError> {
    loop {
        let shown = page.origin.as_ref().filter(|_| several);
        for ContextSummary { id, size, root } in &page.contexts {
            show::context(out, shown, id, *size, *root, json)?;
        }
        let Some(next) = page.next_after else {
            return Ok(());
        };
        let client = match page.origin {
            Some(origin) => client.clone().with_origin(origin),
            None => client.clone(),
        };
        page = client.contexts(Some(&next), 0).await?;
    }
}

/// On stderr, as it is about all that is printed. Without a stderr there is
/// nobody to tell.
fn say_fork(view: &View) {
    let Some(fork) = view.fork() else { return };
    let state = if fork.resolved {
        "fork resolved, following the branch that is held here"
    } else {
        "forked, nothing is pulled until `resolve` names the branch"
    };
    let _ = writeln!(std::io::stderr(), "{state}: {}", fork.verdict);
}

pub(super) fn head(data: &DataDir, arguments: &HeadArguments) -> Result<(), CliError> {
    let view = data.open_view()?;
    say_fork(&view);
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
