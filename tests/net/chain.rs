//! Source, mirror, mirror: the one in the middle holds what is right and tells
//! something else. The last one drops it with a reason, and takes from the
//! source what is missing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use converge_ledger::entry::ContextId;
use converge_ledger::hash::Hash;
use converge_ledger::head::{HeadOrder, SignedHead};
use converge_ledger::ledger::{EntryParts, OpenedNode, ReadLedger};
use converge_ledger::node::{News, OriginStatus};
use converge_ledger::store::{Store, StoreError, View};
use converge_ledger::tree::NodeId;
use tokio::task::JoinSet;

use crate::node::{Follower, Patience, Server, fill, hooks, peer, source};
use crate::relay::{Faults, Relay};

const FRAME_DEADLINE: Duration = Duration::from_secs(2);
/// Who is in the middle, towards the source and towards the last one.
const MIDDLE: u8 = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lie {
    /// A bit of an entry is flipped.
    FlippedEntry,
    /// A run is left out.
    LeftOutRun,
    /// An answer ends before it should.
    FewerRuns,
    /// Entries of another context.
    OtherContext,
    /// A context is not there.
    NoContext,
    /// A bit of a payload is flipped.
    FlippedPayload,
    /// A payload is not there.
    NoPayload,
    /// A bit of the directory is flipped.
    FlippedDirectory,
    /// Part of the directory is not there.
    NoDirectory,
    /// An old head, with all that is under it.
    OldHead,
}

/// What each is dropped for.
const LIES: [(Lie, &str); 9] = [
    (Lie::FlippedEntry, "payload does not match its hash"),
    // Its own node finds that out, and breaks off.
    (Lie::LeftOutRun, "the source broke off an answer"),
    (Lie::FewerRuns, "refused: NotServed"),
    (Lie::OtherContext, "do not fold into the signed root"),
    (Lie::NoContext, "refused: NotServed"),
    (Lie::FlippedPayload, "has other bytes"),
    (Lie::NoPayload, "is not served"),
    (Lie::FlippedDirectory, "the bytes hash to"),
    (Lie::NoDirectory, "is not served"),
];

/// A mirror that lies in one way, from some answer on.
struct Liar {
    view: View,
    lie: Lie,
    /// A head that the mirror had once.
    old: SignedHead,
    asked: AtomicU64,
    /// Answers that are right.
    honest_for: u64,
}

impl Liar {
    fn new(mirror: &Store, old: &SignedHead, lie: Lie, honest_for: u64) -> Self {
        Self {
            view: mirror.view().clone(),
            lie,
            old: old.clone(),
            asked: AtomicU64::new(0),
            honest_for,
        }
    }

    /// True if this answer is to be a lie of this kind.
    fn lies(&self, lie: Lie) -> bool {
        self.lie == lie && self.asked.fetch_add(1, Ordering::Relaxed) >= self.honest_for
    }
}

fn flip(bytes: &mut [u8]) {
    if let Some(last) = bytes.last_mut() {
        *last ^= 1;
    }
}

impl ReadLedger for Liar {
    type Error = StoreError;

    fn newest_head(&self) -> Result<Option<SignedHead>, StoreError> {
        if self.lies(Lie::OldHead) {
            return Ok(Some(self.old.clone()));
        }
        self.view.newest_head()
    }

    fn rotations_after(&self, order: Option<HeadOrder>) -> Result<Vec<SignedHead>, StoreError> {
        self.view.rotations_after(order)
    }

    fn opened_node(&self, hash: &Hash) -> Result<Option<OpenedNode>, StoreError> {
        if self.lies(Lie::NoDirectory) {
            return Ok(None);
        }
        let mut opened = self.view.opened_node(hash)?;
        if let Some(opened) = &mut opened
            && self.lies(Lie::FlippedDirectory)
        {
            flip(&mut opened.node);
        }
        Ok(opened)
    }

    fn signed_size(&self, id: &ContextId) -> Result<Option<u64>, StoreError> {
        if self.lies(Lie::NoContext) {
            return Ok(None);
        }
        self.view.signed_size(id)
    }

    fn runs(
        &self,
        id: &ContextId,
        after: u64,
        size: u64,
        bytes_max: usize,
    ) -> Result<Option<Vec<Vec<u8>>>, StoreError> {
        if self.lies(Lie::OtherContext) {
            let other = ContextId::new("context 0").unwrap();
            let size = self
                .view
                .signed_size(&other)?
                .map_or(size, |other| other.min(size));
            return self.view.runs(&other, after, size, bytes_max);
        }
        let mut runs = self.view.runs(id, after, size, bytes_max)?;
        if let Some(runs) = &mut runs {
            if self.lies(Lie::FlippedEntry)
                && let Some(run) = runs.last_mut()
            {
                flip(run);
            }
            if self.lies(Lie::LeftOutRun) {
                *runs = self
                    .view
                    .runs(id, after + 1, size, bytes_max)?
                    .unwrap_or_default();
            }
            if self.lies(Lie::FewerRuns) {
                runs.clear();
            }
        }
        Ok(runs)
    }

    fn tree_nodes(&self, id: &ContextId, nodes: &[NodeId]) -> Result<Vec<Hash>, StoreError> {
        ReadLedger::tree_nodes(&self.view, id, nodes)
    }

    fn outside_payload(&self, hash: &Hash) -> Result<Option<Vec<u8>>, StoreError> {
        if self.lies(Lie::NoPayload) {
            return Ok(None);
        }
        let mut payload = self.view.outside_payload(hash)?;
        if let Some(payload) = &mut payload
            && self.lies(Lie::FlippedPayload)
        {
            flip(payload);
        }
        Ok(payload)
    }

    fn entry_parts(&self, id: &ContextId, at: u64) -> Result<Option<EntryParts>, StoreError> {
        self.view.entry_parts(id, at)
    }
}

/// What a chain has: the source and the mirror in the middle.
struct Chain {
    source: (Store, News),
    server: Server,
    middle: Follower,
    /// The head before the newest.
    old: SignedHead,
}

impl Chain {
    async fn new(seed: u64) -> Self {
        let (store, news) = source();
        fill(&store, 1 << 20, seed);
        let server = Server::of(&store, &news, 1, Patience::Usual);
        let mut middle = Follower::new(MIDDLE, vec![peer(1, server.address)], FRAME_DEADLINE);
        middle.equals(&store).await;
        let old = store.view().head().unwrap();
        fill(&store, 1 << 20, seed + 1);
        middle.equals(&store).await;
        Self {
            source: (store, news),
            server,
            middle,
            old,
        }
    }

    /// The last one, node `me`, with the liar before the source, which cannot be
    /// reached yet.
    fn last(&self, me: u8, lie: Lie, honest_for: u64) -> (Follower, Server, Relay) {
        let liar = Liar::new(&self.middle.store, &self.old, lie, honest_for);
        let lying = Server::new(liar, MIDDLE, hooks(&self.middle.news), Patience::Usual);
        let relay = Relay::new(self.server.address, Faults::CUT, 41);
        let peers = vec![peer(MIDDLE, lying.address), peer(1, relay.address)];
        (Follower::new(me, peers, FRAME_DEADLINE), lying, relay)
    }

    async fn stop(self) {
        self.middle.stop().await;
        self.server.stop().await;
    }
}

async fn is_dropped(chain: &Chain, me: u8, lie: Lie, says: &str, honest_for: u64) {
    let (mut last, lying, relay) = chain.last(me, lie, honest_for);
    let failed =
        |status: &OriginStatus| status.failed_syncs > 0 && status.peers[0].last_error.is_some();
    last.until("it fails", failed).await;
    let status = last.status();
    let reason = status.peers[0].last_error.clone().unwrap_or_default();
    assert!(
        reason.contains(says),
        "{lie:?} after {honest_for}: {reason}"
    );
    assert!(last.store.view().head().is_none(), "nothing is complete");
    relay.set(Faults::NONE);
    last.equals(&chain.source.0).await;
    let honest = last.status().peers.pop().unwrap();
    assert!(honest.connected, "{honest:?}");
    last.stop().await;
    lying.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_liar_in_the_middle_is_dropped_with_a_reason() {
    let chain = Arc::new(Chain::new(41).await);
    let mut all = JoinSet::new();
    let mut me = MIDDLE;
    for (lie, says) in LIES {
        for honest_for in [0, 3] {
            me += 1;
            let (chain, me) = (Arc::clone(&chain), me);
            all.spawn(async move { is_dropped(&chain, me, lie, says, honest_for).await });
        }
    }
    while let Some(done) = all.join_next().await {
        done.unwrap();
    }
    Arc::into_inner(chain).unwrap().stop().await;
}

/// An old head is true, so it is taken; it is behind as soon as the source tells
/// a newer one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_liar_in_the_middle_shows_an_old_head() {
    let chain = Chain::new(43).await;
    let (mut last, lying, relay) = chain.last(2, Lie::OldHead, 0);
    let old = chain.old.order();
    while last
        .store
        .view()
        .head()
        .is_none_or(|head| head.order() < old)
    {
        last.reports.recv().await.unwrap();
    }
    assert_eq!(last.store.view().head().unwrap().order(), old);
    relay.set(Faults::NONE);
    last.equals(&chain.source.0).await;
    // It is connected all the while, and what it shows again changes nothing.
    fill(&chain.source.0, 1000, 45);
    last.equals(&chain.source.0).await;
    let status = last.status();
    assert!(
        status.peers[1].connected && !status.peers[1].behind,
        "{status:?}"
    );
    last.stop().await;
    lying.stop().await;
    chain.stop().await;
}
