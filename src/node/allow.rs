//! Layer 4. Who may connect: node keys, which can be replaced while a node
//! serves. Who is taken off is let in no more, and its connections are closed.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::watch;

use super::tls::NodeId;

/// Node keys on an allowlist.
pub const ALLOWED_NODES_MAX: usize = 4096;

/// More keys than an allowlist has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{got} node keys are allowed, at most {ALLOWED_NODES_MAX} may be")]
pub struct TooManyNodes {
    /// How many there were.
    pub got: usize,
}

/// The node keys that may connect. Copies share the list.
#[derive(Clone, Debug)]
pub struct Allowlist(Arc<watch::Sender<BTreeSet<NodeId>>>);

impl Allowlist {
    /// A list of these; nobody may connect if there are none.
    pub fn new(nodes: impl IntoIterator<Item = NodeId>) -> Result<Self, TooManyNodes> {
        Ok(Self(Arc::new(watch::Sender::new(bounded(nodes)?))))
    }

    /// Replaces the list. What is refused changes nothing.
    pub fn replace(&self, nodes: impl IntoIterator<Item = NodeId>) -> Result<(), TooManyNodes> {
        let nodes = bounded(nodes)?;
        self.0.send_if_modified(|now| {
            let changed = *now != nodes;
            *now = nodes;
            changed
        });
        Ok(())
    }

    /// True if the node may connect.
    #[must_use]
    pub fn allows(&self, node: &NodeId) -> bool {
        self.0.borrow().contains(node)
    }

    /// How many may connect.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.borrow().len()
    }

    /// True if nobody may.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Ends when the node may connect no more.
    pub(super) async fn taken_off(&self, node: &NodeId) {
        let mut list = self.0.subscribe();
        // Fails only when the list is gone, and this holds it.
        let _ = list.wait_for(|nodes| !nodes.contains(node)).await;
    }
}

fn bounded(nodes: impl IntoIterator<Item = NodeId>) -> Result<BTreeSet<NodeId>, TooManyNodes> {
    let nodes: BTreeSet<NodeId> = nodes.into_iter().collect();
    let got = nodes.len();
    if got > ALLOWED_NODES_MAX {
        return Err(TooManyNodes { got });
    }
    Ok(nodes)
}
