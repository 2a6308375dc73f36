//! Watching: everything, once, in order, however slow the reader.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use converge_ledger::entry::{ContextId, Draft};
use converge_ledger::rpc::proto::context::{WatchEvent, WatchRequest};
use converge_ledger::store::Store;
use tokio_stream::StreamExt as _;
use tonic::{Code, Streaming};

use crate::support::{Client, Node, append, refused, within};

fn watching(context: &str, key: &str, from: u64) -> WatchRequest {
    WatchRequest {
        context_id: context.into(),
        key: key.into(),
        from_sequence: from,
        ..WatchRequest::default()
    }
}

async fn watch(client: &mut Client, request: WatchRequest) -> Streaming<WatchEvent> {
    within(client.watch(request)).await.unwrap().into_inner()
}

async fn take(events: &mut Streaming<WatchEvent>, count: usize) -> Vec<u64> {
    let mut sequences = Vec::new();
    while sequences.len() < count {
        let event = within(events.next()).await.unwrap().unwrap();
        sequences.push(event.entry.unwrap().sequence);
    }
    sequences
}

/// Appends entries to the store itself, in groups.
fn fill(store: &Store, context: &str, count: u64) {
    let id = ContextId::new(context).unwrap();
    let drafts: Vec<_> = (0..count)
        .map(|n| {
            let key = if n % 2 == 0 { "even" } else { "odd" };
            let payload = n.to_string().into_bytes();
            (id.clone(), Draft::new(key, payload).unwrap())
        })
        .collect();
    for drafts in drafts.chunks(1000) {
        store.append(drafts.to_vec()).unwrap();
    }
}

#[tokio::test]
async fn a_watch_begins_before_its_context_and_follows_it() {
    let node = Node::start();
    let mut client = node.client().await;
    let mut all = watch(&mut client, watching("c", "", 0)).await;
    let mut odd = watch(&mut client, watching("c", "odd", 0)).await;
    let mut late = watch(&mut client, watching("c", "", 2)).await;
    let mut other = watch(&mut client, watching("other", "", 0)).await;
    for key in ["even", "odd", "even", "odd"] {
        append(&mut client, "c", key, b"p").await.unwrap();
    }
    assert_eq!(take(&mut all, 4).await, [1, 2, 3, 4]);
    assert_eq!(take(&mut odd, 2).await, [2, 4]);
    assert_eq!(take(&mut late, 2).await, [3, 4]);
    append(&mut client, "other", "k", b"p").await.unwrap();
    assert_eq!(take(&mut other, 1).await, [1]);
    node.stop().await;
    for (mut events, last) in [(all, 4), (odd, 4), (late, 4), (other, 1)] {
        let end = within(events.next()).await.unwrap();
        refused(end, Code::Unavailable, &format!("from_sequence {last},"));
        assert!(within(events.next()).await.is_none());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watchers_beside_a_writer_miss_nothing_and_repeat_nothing() {
    const ENTRIES: u64 = 3000;
    let node = Node::start();
    fill(&node.store, "c", ENTRIES);
    let mut readers = Vec::new();
    for n in 0..30 {
        // Some begin in the middle, some want one key only.
        let mut client = node.client().await;
        let (key, from) = [("", 0), ("", ENTRIES / 2), ("odd", 0)][n % 3];
        readers.push(tokio::spawn(async move {
            let mut events = watch(&mut client, watching("c", key, from)).await;
            let wanted = |sequence: &u64| key.is_empty() || sequence.is_multiple_of(2);
            let expected: Vec<u64> = (from + 1..=2 * ENTRIES).filter(wanted).collect();
            assert_eq!(take(&mut events, expected.len()).await, expected);
        }));
    }
    let store = node.store.clone();
    let writer = tokio::task::spawn_blocking(move || {
        for _ in 0..ENTRIES / 100 {
            fill(&store, "c", 100);
        }
    });
    within(writer).await.unwrap();
    for reader in readers {
        within(reader).await.unwrap();
    }
    node.stop().await;
}

/// The target of the design: a thousand watchers of one context, all of whom
/// get everything. What they cost in memory is the bench's to say.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes all processors for 10 s; `.ci/run` runs it by itself"]
async fn a_thousand_watchers_get_ten_thousand_entries() {
    let node = Node::start();
    let mut client = node.client().await;
    let mut idle = Vec::new();
    for _ in 0..1000 {
        idle.push(watch(&mut client, watching("c", "", 0)).await);
    }
    fill(&node.store, "c", 10_000);
    let readers: Vec<_> = idle
        .into_iter()
        .map(|mut events| {
            tokio::spawn(async move {
                assert!(take(&mut events, 10_000).await.into_iter().eq(1..=10_000));
            })
        })
        .collect();
    for reader in readers {
        reader.await.unwrap();
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_stops_holds_nobody_up() {
    let node = Node::start();
    let mut client = node.client().await;
    // Never read from; more is stored than any window takes.
    let stuck = watch(&mut client, watching("c", "", 0)).await;
    let mut other = node.client().await;
    let mut events = watch(&mut other, watching("c", "", 0)).await;
    let id = ContextId::new("c").unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let (store, ended) = (node.store.clone(), done.clone());
    let writer = tokio::task::spawn_blocking(move || {
        for _ in 0..20 {
            let draft = Draft::new("k", vec![1; 1 << 20]).unwrap();
            store.append(vec![(id.clone(), draft)]).unwrap();
        }
        ended.store(true, Ordering::SeqCst);
    });
    assert_eq!(take(&mut events, 20).await, (1..=20).collect::<Vec<u64>>());
    within(writer).await.unwrap();
    assert!(done.load(Ordering::SeqCst));
    node.assert_serves().await;
    // And gets the rest when it goes on.
    let mut stuck = stuck;
    assert_eq!(take(&mut stuck, 20).await, (1..=20).collect::<Vec<u64>>());
    node.stop().await;
}
