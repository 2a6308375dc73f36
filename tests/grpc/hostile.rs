//! Arguments outside their limits, and bytes that no client would send. After
//! each of them the server serves.

use converge_ledger::rpc::proto::context::{AppendRequest, GetRequest, WatchRequest};
use prost::Message as _;
use tokio_stream::StreamExt as _;
use tonic::Code;
use tonic::body::Body;

use crate::support::{
    Node, append, by_hand, call_raw, framed, get, prefix, refused, request, send_raw, within,
};

const APPEND: &str = "/converge.context.v1.ContextService/Append";

#[tokio::test]
async fn arguments_outside_their_limits_are_refused() {
    let node = Node::start();
    let mut client = node.client().await;
    append(&mut client, "c", "k", b"").await.unwrap();
    let long = |n: usize| "x".repeat(n);
    let pairs = |n: usize| (0..n).map(|i| (format!("k{i}"), String::new())).collect();
    let good = request("c", "k", b"");
    let bad = [
        (request("", "k", b""), "context id in bytes is 0"),
        (request(&long(1025), "k", b""), "allowed are 1..=1024"),
        (request("a\nb", "k", b""), "control characters"),
        (request("a\0", "k", b""), "control characters"),
        (request("c", "", b""), "key in bytes is 0"),
        (request("c", &long(513), b""), "key in bytes"),
        (
            AppendRequest {
                metadata: pairs(10_000),
                ..good.clone()
            },
            "metadata pairs",
        ),
        (
            AppendRequest {
                metadata: [("k".into(), long(64 << 10))].into(),
                ..good.clone()
            },
            "metadata in bytes",
        ),
        (
            AppendRequest {
                metadata: [(String::new(), String::new())].into(),
                ..good.clone()
            },
            "metadata key",
        ),
        (
            AppendRequest {
                request_id: long(257),
                ..good.clone()
            },
            "request id",
        ),
        (
            AppendRequest {
                observed_lamport: u64::MAX,
                ..good.clone()
            },
            "2^40 ahead",
        ),
        (
            AppendRequest {
                observed_lamport: 1 << 41,
                ..good.clone()
            },
            "2^40 ahead",
        ),
    ];
    for (request, says) in bad {
        refused(
            within(client.append(request)).await,
            Code::InvalidArgument,
            says,
        );
    }
    let ask = |context: &str, key: &str| GetRequest {
        context_id: context.into(),
        key: key.into(),
        ..GetRequest::default()
    };
    let outcome = within(client.get(ask("", ""))).await;
    refused(outcome, Code::InvalidArgument, "context id");
    let outcome = within(client.get(ask("c", &long(513)))).await;
    refused(outcome, Code::InvalidArgument, "key in bytes");
    let watch = WatchRequest {
        context_id: "\u{7f}".into(),
        ..WatchRequest::default()
    };
    let outcome = within(client.watch(watch)).await;
    refused(
        outcome.map(|_| ()),
        Code::InvalidArgument,
        "control characters",
    );
    assert_eq!(get(&mut client, "c", 0).await.latest_sequence, 1);
    node.assert_serves().await;
    node.stop().await;
}

#[tokio::test]
async fn bytes_that_are_no_request_are_refused() {
    let node = Node::start();
    let channel = node.channel().await;
    // Field 1, two bytes that are not UTF-8.
    let not_utf8 = framed(&[0x0a, 2, 0xc3, 0x28]);
    let mut two = framed(&request("c", "k", b"").encode_to_vec()).to_vec();
    two.extend_from_slice(&two.clone());
    let mut compressed = framed(b"x").to_vec();
    compressed[0] = 1;
    let mut odd_flag = framed(b"x").to_vec();
    odd_flag[0] = 9;
    let cases = [
        (not_utf8, Code::InvalidArgument),
        (framed(&[0xff; 64]), Code::InvalidArgument),
        (
            framed(&[0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f]),
            Code::InvalidArgument,
        ),
        (two.into(), Code::InvalidArgument),
        (compressed.into(), Code::Internal),
        (odd_flag.into(), Code::Internal),
        (prefix(100), Code::Internal),
        (bytes::Bytes::new(), Code::Internal),
        (prefix(5 << 20), Code::ResourceExhausted),
        (prefix(u32::MAX as usize), Code::ResourceExhausted),
    ];
    for (bytes, code) in cases {
        let (sender, body) = by_hand();
        sender.send(bytes.clone()).unwrap();
        drop(sender);
        let status = call_raw(channel.clone(), APPEND, body).await;
        assert_eq!(status.code(), code, "{bytes:?}: {status:?}");
        node.assert_serves().await;
    }
    // A message that is too large is refused before it is sent.
    let (sender, body) = by_hand();
    sender.send(prefix(65 << 20)).unwrap();
    let load = "/converge.context.v1.ContextService/Load";
    let status = call_raw(channel.clone(), load, body).await;
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    drop(sender);
    for path in ["/", "/x", "/converge.context.v1.ContextService/None"] {
        let status = call_raw(channel.clone(), path, Body::empty()).await;
        assert_eq!(status.code(), Code::Unimplemented, "{status:?}");
    }
    node.stop().await;
}

#[tokio::test]
async fn headers_without_end_are_refused() {
    let node = Node::start();
    let mut request = http::Request::post(APPEND)
        .header("te", "trailers")
        .header("content-type", "application/grpc");
    for n in 0..10_000 {
        request = request.header(format!("x-{n}"), "y");
    }
    let status = send_raw(node.channel().await, request.body(Body::empty()).unwrap()).await;
    assert_ne!(status.code(), Code::Ok);
    node.assert_serves().await;
    node.stop().await;
}

#[tokio::test]
async fn a_watch_from_the_far_end_waits() {
    let node = Node::start();
    let mut client = node.client().await;
    append(&mut client, "c", "k", b"").await.unwrap();
    let watch = WatchRequest {
        context_id: "c".into(),
        from_sequence: u64::MAX,
        ..WatchRequest::default()
    };
    let mut far = within(client.watch(watch)).await.unwrap().into_inner();
    node.assert_serves().await;
    node.stop().await;
    let end = within(far.next()).await.unwrap();
    refused(end, Code::Unavailable, "from_sequence 18446744073709551615");
}

#[tokio::test]
async fn a_client_that_goes_away_and_repeats_finds_one_entry() {
    let node = Node::start();
    let channel = node.channel().await;
    let request = AppendRequest {
        request_id: "once".into(),
        ..request("c", "k", b"payload")
    };
    let message = framed(&request.encode_to_vec());
    for cut in [3, 5, 9, message.len()] {
        let (sender, body) = by_hand();
        sender.send(message.slice(..cut)).unwrap();
        let call = tokio::spawn(call_raw(channel.clone(), APPEND, body));
        tokio::task::yield_now().await;
        call.abort();
        _ = call.await;
        drop(sender);
    }
    let mut client = node.client().await;
    let entry = within(client.append(request.clone())).await.unwrap();
    let entry = entry.into_inner().entry.unwrap();
    let again = within(client.append(request)).await.unwrap();
    assert_eq!(again.into_inner().entry.unwrap(), entry);
    let page = get(&mut client, "c", 0).await;
    assert_eq!(page.entries, [entry]);
    node.stop().await;
}
