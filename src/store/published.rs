//! The newest published (own store) or complete (mirror) head and the directory
//! it commits to. Nodes are kept by hash: those of the newest directory always,
//! retired ones for a while, so that a mirror that is in the middle of an older
//! directory can finish.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;

use super::index::Inconsistency;
use crate::directory::{self, Change, Node, ReadDirectory, Update};
use crate::entry::ContextId;
use crate::hash::Hash;
use crate::head::SignedHead;

/// Retired nodes are served for an hour of head time.
const RETIRED_NS_MAX: u64 = 3_600_000_000_000;
/// And for less if they take more than this: 64 MiB.
const RETIRED_BYTES_MAX: usize = 64 << 20;

/// See the module.
#[derive(Debug)]
pub(crate) struct Published {
    head: Option<SignedHead>,
    root: Hash,
    nodes: HashMap<Hash, Vec<u8>>,
    retired: VecDeque<Retired>,
    retired_bytes: usize,
}

#[derive(Debug)]
struct Retired {
    at_ns: u64,
    nodes: Vec<Hash>,
}

impl Default for Published {
    fn default() -> Self {
        Self {
            head: None,
            root: directory::empty_root(),
            nodes: HashMap::from([(directory::empty_root(), Node::empty().encode())]),
            retired: VecDeque::new(),
            retired_bytes: 0,
        }
    }
}

impl ReadDirectory for Published {
    type Error = Infallible;

    fn directory_node(&self, hash: &Hash) -> Result<Option<Vec<u8>>, Infallible> {
        Ok(self.nodes.get(hash).cloned())
    }
}

impl Published {
    pub(crate) fn head(&self) -> Option<&SignedHead> {
        self.head.as_ref()
    }

    /// The directory with these contexts at these sizes and roots.
    pub(crate) fn update(
        &self,
        changes: &[(ContextId, u64, Hash)],
    ) -> Result<Update, Inconsistency> {
        let changes: Vec<Change> = changes
            .iter()
            .map(|(id, size, root)| Change {
                path: id.path(),
                commitment: directory::commitment(id.as_str(), *size, root),
                entries: *size,
            })
            .collect();
        directory::apply(self, &self.root, &changes)
            .map_err(|error| Inconsistency::Head(error.to_string()))
    }

    /// Takes over a head, if its directory is the one `changes` give.
    pub(crate) fn advance(
        &mut self,
        head: SignedHead,
        changes: &[(ContextId, u64, Hash)],
    ) -> Result<(), Inconsistency> {
        if let Some(before) = &self.head
            && (head.head().term, head.head().epoch) <= (before.head().term, before.head().epoch)
        {
            return Err(Inconsistency::Head(
                "heads must ascend by term and epoch".into(),
            ));
        }
        let update = self.update(changes)?;
        let text = head.head();
        if update.root != text.directory_root {
            return Err(Inconsistency::Head(
                "the directory root is not the one these contexts give".into(),
            ));
        }
        if (update.sums.contexts, update.sums.entries) != (text.contexts, text.entries) {
            return Err(Inconsistency::Head(
                "the counts are not those of the directory".into(),
            ));
        }
        self.root = update.root;
        self.nodes.extend(update.added);
        self.retire(text.time_ns, update.retired);
        self.head = Some(head);
        Ok(())
    }

    fn retire(&mut self, now_ns: u64, nodes: Vec<Hash>) {
        let bytes =
            |nodes: &HashMap<Hash, Vec<u8>>, hash: &Hash| nodes.get(hash).map_or(0, Vec::len);
        self.retired_bytes += nodes.iter().map(|h| bytes(&self.nodes, h)).sum::<usize>();
        self.retired.push_back(Retired {
            at_ns: now_ns,
            nodes,
        });
        while let Some(oldest) = self.retired.front() {
            let young = now_ns.saturating_sub(oldest.at_ns) <= RETIRED_NS_MAX;
            if young && self.retired_bytes <= RETIRED_BYTES_MAX {
                break;
            }
            for hash in self
                .retired
                .pop_front()
                .map(|r| r.nodes)
                .unwrap_or_default()
            {
                self.retired_bytes = self.retired_bytes.saturating_sub(bytes(&self.nodes, &hash));
                self.nodes.remove(&hash);
            }
        }
    }
}
