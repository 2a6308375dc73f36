//! A client that was compiled when the API had none of its later fields.

#[rustfmt::skip]
#[allow(clippy::all, clippy::pedantic, unreachable_pub, dead_code)]
mod api {
    include!("generated/converge.context.v1.rs");
}

use std::collections::BTreeMap;

use api::context_service_client::ContextServiceClient;
use tokio_stream::StreamExt as _;

use converge_ledger::rpc::Places;
use converge_ledger::store::StoreRole;
use tonic::Code;

use crate::mirrors::{Mirrored, fill};
use crate::support::{Node, Setup, place, refused, within};

#[tokio::test]
async fn an_old_client_works_unchanged() {
    let node = Node::start();
    let mut client = ContextServiceClient::new(node.channel().await);
    let mut entries = Vec::new();
    for n in 0..3 {
        let request = api::AppendRequest {
            context_id: "c".into(),
            key: format!("k{n}"),
            payload: vec![n; 10].into(),
            metadata: BTreeMap::from([("n".into(), n.to_string())]),
        };
        let reply = within(client.append(request)).await.unwrap();
        entries.push(reply.into_inner().entry.unwrap());
    }
    assert_eq!(entries[2].sequence, 3);
    let request = api::GetRequest {
        context_id: "c".into(),
        after_sequence: 1,
        ..api::GetRequest::default()
    };
    let page = within(client.get(request)).await.unwrap().into_inner();
    assert_eq!(page.entries, entries[1..]);
    assert_eq!(page.latest_sequence, 3);
    let request = api::SnapshotRequest {
        context_id: "c".into(),
    };
    let made = within(client.snapshot(request)).await.unwrap().into_inner();
    assert_eq!(made.metadata.unwrap().entry_count, 3);
    let request = api::LoadRequest {
        context_id: "d".into(),
        snapshot: made.snapshot,
        fail_if_exists: true,
    };
    let loaded = within(client.load(request)).await.unwrap().into_inner();
    assert_eq!((loaded.entries_restored, loaded.latest_sequence), (3, 3));
    let request = api::WatchRequest {
        context_id: "c".into(),
        key: "k1".into(),
        from_sequence: 0,
    };
    let mut events = within(client.watch(request)).await.unwrap().into_inner();
    let event = within(events.next()).await.unwrap().unwrap();
    assert_eq!(event.entry.as_ref(), Some(&entries[1]));
    node.stop().await;
}

/// It names no origin, and ignores what is said of one.
#[tokio::test]
async fn an_old_client_reads_the_own_store_and_what_only_one_mirror_has() {
    let ((place_a, a), (place_b, b)) = (Mirrored::new("a"), Mirrored::new("b"));
    let (place_own, own, _) = place(StoreRole::Own, "own");
    let places = Places::new(vec![place_a, place_b, place_own]).unwrap();
    let served = Setup::default().serve(places);
    fill(&own, "everywhere", &["own"]);
    for mirror in [&a, &b] {
        mirror.append("everywhere", &["mirror"]);
        mirror.append("both", &["mirror"]);
    }
    b.append("b", &["b"]);
    let mut client = ContextServiceClient::new(served.channel().await);
    for (context, payload) in [("everywhere", "own"), ("b", "b")] {
        let request = api::GetRequest {
            context_id: context.into(),
            ..api::GetRequest::default()
        };
        let page = within(client.get(request)).await.unwrap().into_inner();
        assert_eq!(page.entries[0].payload, payload);
        let request = api::SnapshotRequest {
            context_id: context.into(),
        };
        let made = within(client.snapshot(request)).await.unwrap().into_inner();
        assert_eq!(made.sequence, 1);
        let request = api::WatchRequest {
            context_id: context.into(),
            ..api::WatchRequest::default()
        };
        let mut events = within(client.watch(request)).await.unwrap().into_inner();
        let event = within(events.next()).await.unwrap().unwrap();
        assert_eq!(event.entry.unwrap().payload, payload);
    }
    let request = api::GetRequest {
        context_id: "both".into(),
        ..api::GetRequest::default()
    };
    let outcome = within(client.get(request)).await;
    refused(outcome, Code::FailedPrecondition, "a, b");
    let request = api::AppendRequest {
        context_id: "both".into(),
        key: "k".into(),
        ..api::AppendRequest::default()
    };
    let reply = within(client.append(request)).await.unwrap();
    assert_eq!(reply.into_inner().entry.unwrap().sequence, 1);
    served.stop().await;
}
