//! Each call, as a client uses it.

use std::collections::BTreeMap;

use converge_ledger::hash::Hash;
use converge_ledger::rpc::proto::context::{AppendRequest, GetRequest};
use converge_ledger::rpc::proto::inspect::ContextsRequest;
use converge_ledger::rpc::proto::inspect::inspect_service_client::InspectServiceClient;
use prost::Message as _;
use tonic::Code;

use crate::support::{Node, Setup, append, get, refused, request, within};

#[tokio::test]
async fn what_is_appended_is_answered_and_read_whole() {
    let node = Node::start();
    let mut client = node.client().await;
    let request = AppendRequest {
        metadata: BTreeMap::from([("b".into(), "2".into()), ("a".into(), String::new())]),
        request_id: "r1".into(),
        observed_lamport: 41,
        ..request("c", "k", b"payload")
    };
    let reply = within(client.append(request.clone())).await.unwrap();
    let entry = reply.into_inner().entry.unwrap();
    assert_eq!((entry.sequence, entry.lamport), (1, 42));
    assert_eq!(entry.payload, request.payload);
    assert_eq!(entry.metadata, request.metadata);
    assert_eq!(entry.request_id, "r1");
    let hash = Hash::from_hex(&entry.id).unwrap();
    assert_eq!(entry.content_hash, hash.as_bytes()[..]);
    assert!(entry.appended_at_ns > 1_577_836_800_000_000_000);
    let page = get(&mut client, "c", 0).await;
    assert_eq!(page.entries, std::slice::from_ref(&entry));
    assert_eq!((page.latest_sequence, page.next_after_sequence), (1, 0));

    // The same again stores nothing; other content is refused.
    let again = within(client.append(request.clone())).await.unwrap();
    assert_eq!(again.into_inner().entry.unwrap(), entry);
    let other = AppendRequest {
        payload: "other".into(),
        ..request
    };
    refused(
        within(client.append(other)).await,
        Code::AlreadyExists,
        "of its own",
    );
    assert_eq!(
        append(&mut client, "c", "k", b"").await.unwrap().sequence,
        2
    );
    node.stop().await;
}

#[tokio::test]
async fn pages_end_in_time_and_say_where_to_go_on() {
    let node = Node::start();
    let mut client = node.client().await;
    for n in 0..10 {
        let key = if n % 2 == 0 { "even" } else { "odd" };
        append(&mut client, "c", key, &vec![7; 1 << 20])
            .await
            .unwrap();
    }
    let mut after = 0;
    let mut seen = Vec::new();
    loop {
        let page = get(&mut client, "c", after).await;
        assert!(page.encoded_len() <= (3 << 20) + 64);
        assert!(!page.entries.is_empty());
        assert_eq!(page.latest_sequence, 10);
        seen.extend(page.entries.iter().map(|entry| entry.sequence));
        after = page.next_after_sequence;
        if after == 0 {
            break;
        }
    }
    assert_eq!(seen, (1..=10).collect::<Vec<u64>>());
    let ask = |key: &str, after_sequence, limit| GetRequest {
        context_id: "c".into(),
        key: key.into(),
        after_sequence,
        limit,
        ..GetRequest::default()
    };
    let page = within(client.get(ask("odd", 0, 2)))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(page.entries.len(), 2);
    assert_eq!(page.next_after_sequence, 4);
    for (after, limit) in [(u64::MAX, 0), (10, u32::MAX), (11, 1)] {
        let page = within(client.get(ask("", after, limit)))
            .await
            .unwrap()
            .into_inner();
        assert!(page.entries.is_empty());
        assert_eq!((page.latest_sequence, page.next_after_sequence), (10, 0));
    }
    let page = within(client.get(ask("none", 0, 0)))
        .await
        .unwrap()
        .into_inner();
    assert!(page.entries.is_empty() && page.next_after_sequence == 0);
    let missing = GetRequest {
        context_id: "missing".into(),
        ..ask("", 0, 0)
    };
    refused(
        within(client.get(missing)).await,
        Code::NotFound,
        "check the name",
    );
    node.stop().await;
}

#[tokio::test]
async fn an_entry_larger_than_a_page_is_a_page() {
    let node = Node::start();
    let mut client = node.client().await;
    let payload = vec![1; 4 << 20];
    let entry = append(&mut client, "c", "k", &payload).await.unwrap();
    assert_eq!(entry.payload, payload);
    append(&mut client, "c", "k", b"small").await.unwrap();
    let page = get(&mut client, "c", 0).await;
    assert_eq!((page.entries.len(), page.next_after_sequence), (1, 1));
    assert_eq!(page.entries[0].payload, payload);
    let too_large = append(&mut client, "c", "k", &vec![1; (4 << 20) + 1]).await;
    refused(too_large, Code::ResourceExhausted, "at most 4194304 bytes");
    node.stop().await;
}

#[tokio::test]
async fn contexts_are_listed_in_order() {
    let node = Node::start();
    let mut client = node.client().await;
    for name in ["b", "a", "c"] {
        append(&mut client, name, "k", b"").await.unwrap();
    }
    let mut inspect = InspectServiceClient::new(node.channel().await);
    let mut list = async |after: &str, limit| {
        let request = ContextsRequest {
            after: after.into(),
            limit,
            ..ContextsRequest::default()
        };
        let reply = within(inspect.contexts(request))
            .await
            .unwrap()
            .into_inner();
        let ids: Vec<String> = reply.contexts.iter().map(|c| c.id.clone()).collect();
        (ids.join(""), reply.next_after)
    };
    assert_eq!(list("", 0).await, ("abc".into(), String::new()));
    assert_eq!(list("", 2).await, ("ab".into(), "b".into()));
    assert_eq!(list("b", u32::MAX).await, ("c".into(), String::new()));
    assert_eq!(list("c", 1).await, (String::new(), String::new()));
    node.stop().await;
}

#[tokio::test]
async fn a_mirror_takes_no_entries() {
    let node = Setup {
        mirror: true,
        ..Setup::default()
    }
    .start();
    let mut client = node.client().await;
    let outcome = append(&mut client, "c", "k", b"").await;
    refused(
        outcome,
        Code::FailedPrecondition,
        "the server that owns the store",
    );
    let request = GetRequest {
        context_id: "c".into(),
        ..GetRequest::default()
    };
    refused(within(client.get(request)).await, Code::NotFound, "");
    node.stop().await;
}
