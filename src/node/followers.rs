//! Layer 4. Who follows this node, and how far each has got: what an operator has
//! today if this machine is lost.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::allow::ALLOWED_NODES_MAX;
use super::gauge::HeadFigures;
use super::tls::NodeId;

/// One that follows, or did.
#[derive(Clone, Debug)]
pub struct FollowerStatus {
    /// Its node key.
    pub id: NodeId,
    /// Where it called from last.
    pub address: SocketAddr,
    /// It has a connection.
    pub connected: bool,
    /// The newest head it has said to be complete with it.
    pub complete: Option<HeadFigures>,
    /// Durable entries here that are not complete there.
    pub lag_entries: u64,
    /// 0 if nothing is missing there; otherwise how long ago the head was signed
    /// that is complete there, 0 if none is.
    pub lag_seconds: f64,
}

#[derive(Debug)]
struct Follower {
    address: SocketAddr,
    connections: usize,
    follows: bool,
    complete: Option<HeadFigures>,
}

/// Followers of one store, since the process began. Copies share them.
#[derive(Clone, Debug, Default)]
pub struct FollowerTable(Arc<Mutex<BTreeMap<NodeId, Follower>>>);

/// A connection of a node, for as long as it lives.
pub(super) struct Connected {
    table: FollowerTable,
    id: NodeId,
}

impl Drop for Connected {
    fn drop(&mut self) {
        let mut table = self.table.table();
        if let Some(follower) = table.get_mut(&self.id) {
            follower.connections = follower.connections.saturating_sub(1);
            // Who asked once and went is none.
            if follower.connections == 0 && !follower.follows {
                table.remove(&self.id);
            }
        }
    }
}

impl FollowerTable {
    fn table(&self) -> MutexGuard<'_, BTreeMap<NodeId, Follower>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn connect(&self, id: NodeId, address: SocketAddr) -> Connected {
        let mut table = self.table();
        if table.len() >= ALLOWED_NODES_MAX && !table.contains_key(&id) {
            // The allowlist has been replaced: those who are gone make room.
            table.retain(|_, follower| follower.connections > 0);
        }
        let follower = table.entry(id).or_insert(Follower {
            address,
            connections: 0,
            follows: false,
            complete: None,
        });
        follower.address = address;
        follower.connections += 1;
        let table = self.clone();
        Connected { table, id }
    }

    /// It wants to be told heads.
    pub(super) fn follows(&self, id: &NodeId) {
        if let Some(follower) = self.table().get_mut(id) {
            follower.follows = true;
        }
    }

    /// A head of this ledger is complete with it.
    pub fn acknowledged(&self, id: &NodeId, head: HeadFigures) {
        if let Some(follower) = self.table().get_mut(id) {
            follower.follows = true;
            follower.complete = Some(head);
        }
    }

    /// All of them, by node key, against what is durable here. `now_ns` is the
    /// wall clock.
    #[must_use]
    pub fn status(&self, entries: u64, now_ns: u64) -> Vec<FollowerStatus> {
        let table = self.table();
        let following = table.iter().filter(|(_, follower)| follower.follows);
        let status = following.map(|(id, follower)| {
            let complete = follower.complete;
            let held = complete.map_or(0, |head| head.entries);
            let lag_entries = entries.saturating_sub(held);
            let age = complete.map_or(0, |head| now_ns.saturating_sub(head.time_ns));
            let age = if lag_entries == 0 { 0 } else { age };
            FollowerStatus {
                id: *id,
                address: follower.address,
                connected: follower.connections > 0,
                complete,
                lag_entries,
                lag_seconds: Duration::from_nanos(age).as_secs_f64(),
            }
        });
        status.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::Hash;
    use crate::head::HeadOrder;
    use crate::node::NodeKey;

    #[test]
    fn a_follower_is_shown_until_and_after_it_goes_and_who_only_asks_is_not() {
        let table = FollowerTable::default();
        let address: SocketAddr = "192.0.2.1:7000".parse().unwrap();
        let [follower, guard] = [1, 2].map(|n| NodeKey::from_seed([n; 32]).id());
        let connections = [
            table.connect(follower, address),
            table.connect(guard, address),
        ];
        assert!(table.status(10, 0).is_empty());
        table.follows(&follower);
        let head = HeadFigures {
            order: HeadOrder { term: 1, epoch: 4 },
            directory_root: Hash::from_bytes([0; 32]),
            contexts: 1,
            entries: 7,
            time_ns: 2_000_000_000,
        };
        table.acknowledged(&follower, head);
        let status = table.status(10, 5_000_000_000);
        assert_eq!(status.len(), 1);
        assert!(status[0].connected);
        let lag = |entries| {
            let status = table.status(entries, 5_000_000_000).remove(0);
            (
                status.lag_entries,
                Duration::from_secs_f64(status.lag_seconds),
            )
        };
        assert_eq!(lag(10), (3, Duration::from_secs(3)));
        assert_eq!(lag(7), (0, Duration::ZERO));
        drop(connections);
        assert_eq!(table.table().len(), 1);
        assert!(!table.status(10, 0)[0].connected);
    }
}
