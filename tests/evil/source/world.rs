//! Whose stores are shown to whom.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use converge_ledger::node::{NodeId, NodeKey};
use converge_ledger::note::SignerKey;
use converge_ledger::store::disk::RealDisk;
use converge_ledger::store::{Store, View, keys};

use crate::attack::Attack;
use crate::forge::{self, Forged};

/// The step of the pseudo-random numbers.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// Everything an answer is made of.
pub(crate) struct World {
    pub(crate) attack: Attack,
    pub(crate) node_key: NodeKey,
    /// What is shown.
    pub(crate) view: View,
    /// What is shown of another store.
    pub(crate) other: Option<View>,
    /// What is signed with the origin's key and no store has.
    pub(crate) forged: Option<Forged>,
    views: HashMap<NodeId, View>,
    dice: AtomicU64,
}

impl World {
    pub(crate) fn open(
        attack: Attack,
        store: &Path,
        other: Option<&Path>,
        views: Vec<(NodeId, PathBuf)>,
    ) -> Self {
        let disk = RealDisk::new(store.to_path_buf());
        let seed = match attack {
            Attack::WrongNodeKey => keys::random_seed().unwrap(),
            _ => keys::read_node_key(&disk).unwrap(),
        };
        let signer: SignerKey = keys::read_origin_key(&disk).unwrap();
        let view = open(store);
        let other = other.map(open);
        let forged = forge::forge(attack, &view, other.as_ref(), &signer);
        let views = views.into_iter().map(|(node, dir)| (node, open(&dir)));
        Self {
            attack,
            node_key: NodeKey::from_seed(*seed),
            view,
            other,
            forged,
            views: views.collect(),
            dice: AtomicU64::new(0),
        }
    }

    /// What this peer is shown.
    pub(crate) fn shown_to(&self, peer: NodeId) -> &View {
        self.views.get(&peer).unwrap_or(&self.view)
    }

    /// A pseudo-random number below `n` (splitmix64): the same ones in every
    /// run.
    pub(crate) fn below(&self, n: usize) -> usize {
        let mut z = self
            .dice
            .fetch_add(STEP, Ordering::Relaxed)
            .wrapping_add(STEP);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % n as u64).unwrap()
    }
}

fn open(dir: &Path) -> View {
    Store::open_read_only(Arc::new(RealDisk::new(dir.to_path_buf()))).unwrap()
}
