//! Lists that come in pages. A page that would send its reader in a circle, or
//! that holds what was not asked for, is an error.

use super::checked::{self, Order};
use super::{Client, ClientError, ContextSummary};
use crate::entry::{ContextId, Entry};
use crate::note::OriginName;
use crate::rpc::proto::{context as proto, inspect};

/// Which entries of a context are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PageQuery {
    /// Only entries with this key; empty for all.
    pub key: String,
    /// Only entries with higher sequences.
    pub after: u64,
    /// At most so many entries in a page; 0 for as many as fit a reply.
    pub limit: u32,
}

/// Entries in ascending order.
#[derive(Clone, Debug)]
pub struct Page {
    /// The entries; there may be none although there is more.
    pub entries: Vec<Entry>,
    /// Entries in the context when this was read.
    pub size: u64,
    /// Where to go on, if there may be more.
    pub next_after: Option<u64>,
    /// Whose context it is, if the server says so: the next page is to be of the
    /// same origin ([`Client::with_origin`]).
    pub origin: Option<OriginName>,
}

impl Page {
    pub(super) fn checked(
        query: &PageQuery,
        asked: Option<&OriginName>,
        reply: proto::GetResponse,
    ) -> Result<Self, ClientError> {
        let origin = checked::origin(asked, &reply.origin)?;
        let mut order = Order {
            key: query.key.clone(),
            last: query.after,
        };
        let unasked = |sequence, what| ClientError::Unverified { sequence, what };
        if query.limit > 0 && reply.entries.len() as u64 > u64::from(query.limit) {
            return Err(unasked(0, "there are more entries than were asked for"));
        }
        let mut entries = Vec::with_capacity(reply.entries.len());
        for message in reply.entries {
            entries.push(order.take(message)?);
        }
        let next = reply.next_after_sequence;
        if !entries.is_empty() && order.last > reply.latest_sequence {
            return Err(unasked(
                order.last,
                "it lies behind the context's last entry",
            ));
        }
        if next != 0 && (next <= query.after || next < order.last) {
            return Err(unasked(
                next,
                "the next page would begin before this one ends",
            ));
        }
        // Without a key nothing is passed over.
        if next != 0 && query.key.is_empty() && next != order.last {
            return Err(unasked(next, "the next page would leave entries out"));
        }
        Ok(Self {
            entries,
            size: reply.latest_sequence,
            next_after: (next != 0).then_some(next),
            origin,
        })
    }
}

/// Pages one after the other, all of the origin that the first one is of.
#[derive(Clone, Debug)]
pub struct Pages {
    client: Client,
    context: ContextId,
    query: PageQuery,
    ended: bool,
}

impl Pages {
    pub(super) fn new(client: Client, context: ContextId, query: PageQuery) -> Self {
        Self {
            client,
            context,
            query,
            ended: false,
        }
    }

    /// The next page; `None` after the one that ends where the context did.
    /// After an error the same page is asked for again.
    pub async fn next(&mut self) -> Result<Option<Page>, ClientError> {
        if self.ended {
            return Ok(None);
        }
        let page = self.client.get(&self.context, &self.query).await?;
        // Meanwhile the context may come into being elsewhere, too.
        if let Some(origin) = &page.origin {
            self.client.origin = Some(origin.clone());
        }
        match page.next_after {
            Some(after) => self.query.after = after,
            None => self.ended = true,
        }
        Ok(Some(page))
    }
}

/// A part of the listing of contexts.
#[derive(Clone, Debug)]
pub struct Contexts {
    /// In ascending order of their names.
    pub contexts: Vec<ContextSummary>,
    /// Where to go on, if there may be more.
    pub next_after: Option<ContextId>,
    /// Whose contexts they are, if the server says so.
    pub origin: Option<OriginName>,
    /// All origins that the server holds, the one of its own store first, if it
    /// has one; none if it does not say.
    pub origins: Vec<OriginName>,
}

impl Contexts {
    pub(super) fn checked(
        after: Option<&ContextId>,
        asked: Option<&OriginName>,
        reply: inspect::ContextsResponse,
    ) -> Result<Self, ClientError> {
        let origin = checked::origin(asked, &reply.origin)?;
        let origins = reply.origins.iter().map(|name| checked::origin_name(name));
        let origins = origins.collect::<Result<Vec<_>, _>>()?;
        let mut last = after.cloned();
        let unasked = |what| ClientError::Unverified { sequence: 0, what };
        let mut contexts = Vec::with_capacity(reply.contexts.len());
        for context in reply.contexts {
            let id = checked::context_id(&context.id)?;
            if last.as_ref().is_some_and(|last| *last >= id) {
                return Err(unasked("the names of contexts do not ascend"));
            }
            last = Some(id.clone());
            contexts.push(ContextSummary {
                id,
                size: context.size,
                root: checked::hash_of(&context.root, "a root is not 32 bytes")?,
            });
        }
        let next_after = match reply.next_after.as_str() {
            "" => None,
            name => Some(checked::context_id(name)?),
        };
        if let Some(next) = &next_after
            && (last.as_ref().is_some_and(|last| next < last) || after == Some(next))
        {
            return Err(unasked("the next page would begin before this one ends"));
        }
        Ok(Self {
            contexts,
            next_after,
            origin,
            origins,
        })
    }
}
