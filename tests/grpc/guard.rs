//! Tokens and bounds: refused at once, and gone when the reason is.

use std::time::Duration;

use bytes::Bytes;
use converge_ledger::rpc::config::APPEND_BYTES_MAX;
use converge_ledger::rpc::proto::context::{GetRequest, WatchRequest};
use converge_ledger::rpc::proto::inspect::ContextsRequest;
use converge_ledger::rpc::proto::inspect::inspect_service_client::InspectServiceClient;
use converge_ledger::rpc::{RpcConfig, Tokens};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use crate::support::{
    Client, Node, Setup, append, by_hand, call_raw, prefix, refused, request, until, within,
};

const APPEND: &str = "/converge.context.v1.ContextService/Append";
const READ: &str = "read-token-0123456789";
const WRITE: &str = "write-token-0123456789";

fn with<T>(token: Option<&str>, message: T) -> Request<T> {
    let mut request = Request::new(message);
    if let Some(token) = token {
        let value = format!("Bearer {token}").parse().unwrap();
        request.metadata_mut().insert("authorization", value);
    }
    request
}

#[tokio::test]
async fn tokens_say_who_reads_and_who_writes() {
    let text = format!("read {READ}\nwrite {WRITE}\n");
    let node = Setup {
        tokens: Some(Tokens::parse(text.as_bytes()).unwrap()),
        ..Setup::default()
    }
    .start();
    let mut client = node.client().await;
    let mut inspect = InspectServiceClient::new(node.channel().await);
    let message = || request("c", "k", b"p");
    within(client.append(with(Some(WRITE), message())))
        .await
        .unwrap();
    let outcome = within(client.append(with(Some(READ), message()))).await;
    refused(outcome, Code::PermissionDenied, "may only read");
    let get = || GetRequest {
        context_id: "c".into(),
        ..GetRequest::default()
    };
    for token in [Some(READ), Some(WRITE)] {
        let page = within(client.get(with(token, get()))).await.unwrap();
        assert_eq!(page.into_inner().latest_sequence, 1);
        within(inspect.contexts(with(token, ContextsRequest::default())))
            .await
            .unwrap();
    }
    let wrong = "wrong-token-0123456789";
    for token in [None, Some(wrong), Some("")] {
        let says = if token.is_none() {
            "asks for a token"
        } else {
            "token"
        };
        let outcome = within(client.append(with(token, message()))).await;
        refused(outcome, Code::Unauthenticated, says);
        let outcome = within(client.get(with(token, get()))).await;
        refused(outcome, Code::Unauthenticated, says);
        let outcome = within(client.watch(with(token, WatchRequest::default()))).await;
        refused(outcome.map(|_| ()), Code::Unauthenticated, says);
        let outcome = within(inspect.contexts(with(token, ContextsRequest::default()))).await;
        refused(outcome, Code::Unauthenticated, says);
    }
    // Health is open.
    let (sender, health) = by_hand();
    sender.send(prefix(0)).unwrap();
    drop(sender);
    let path = "/grpc.health.v1.Health/Check";
    let status = call_raw(node.channel().await, path, health).await;
    assert_eq!(status.code(), Code::Ok);
    node.stop().await;
}

async fn is_refused(client: &mut Client, payload: &[u8]) -> bool {
    match append(client, "c", "k", payload).await {
        Ok(_) => false,
        Err(status) => {
            assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
            true
        }
    }
}

/// An append whose message is announced and does not come.
struct Held {
    sender: mpsc::UnboundedSender<Bytes>,
    call: JoinHandle<Status>,
}

impl Held {
    fn new(channel: &Channel, bytes: usize) -> Self {
        let (sender, body) = by_hand();
        let call = tokio::spawn(call_raw(channel.clone(), APPEND, body));
        sender.send(prefix(bytes)).unwrap();
        Self { sender, call }
    }
}

/// Tries until an append is refused. The one before may have been in the way of
/// a call that was to be held: that is begun anew.
async fn until_refused(
    held: &mut [Held],
    channel: &Channel,
    bytes: usize,
    client: &Client,
    payload: &[u8],
) {
    within(async {
        while !is_refused(&mut client.clone(), payload).await {
            for held in held.iter_mut().filter(|held| held.call.is_finished()) {
                *held = Held::new(channel, bytes);
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn calls_in_flight_are_bounded_and_the_bound_recovers() {
    let node = Setup {
        config: RpcConfig {
            requests_max: 2,
            ..RpcConfig::default()
        },
        ..Setup::default()
    }
    .start();
    let channel = node.channel().await;
    let mut held = [Held::new(&channel, 10), Held::new(&channel, 10)];
    let client = node.client().await;
    until_refused(&mut held, &channel, 10, &client, b"p").await;
    // Health has places of its own.
    let (sender, health) = by_hand();
    sender.send(prefix(0)).unwrap();
    drop(sender);
    let path = "/grpc.health.v1.Health/Check";
    assert_eq!(
        call_raw(channel.clone(), path, health).await.code(),
        Code::Ok
    );
    for Held { sender, call } in held {
        drop(sender);
        assert_eq!(within(call).await.unwrap().code(), Code::Internal);
    }
    until(|| {
        let mut client = client.clone();
        async move { !is_refused(&mut client, b"p").await }
    })
    .await;
    node.stop().await;
}

#[tokio::test]
async fn request_bytes_are_bounded_and_the_bound_recovers() {
    let node = Setup {
        config: RpcConfig {
            snapshot_bytes_max: 64 << 10,
            request_bytes_max: APPEND_BYTES_MAX,
            ..RpcConfig::default()
        },
        ..Setup::default()
    }
    .start();
    let channel = node.channel().await;
    let mut held = [Held::new(&channel, 4 << 20)];
    let client = node.client().await;
    let large = Bytes::from(vec![1; 1 << 20]);
    until_refused(&mut held, &channel, 4 << 20, &client, &large).await;
    // What is small has room.
    assert!(!is_refused(&mut client.clone(), b"p").await);
    let [Held { sender, call }] = held;
    drop(sender);
    within(call).await.unwrap();
    until(|| {
        let (mut client, large) = (client.clone(), large.clone());
        async move { !is_refused(&mut client, &large).await }
    })
    .await;
    node.stop().await;
}

#[tokio::test]
async fn watches_are_bounded_apart() {
    let node = Setup {
        config: RpcConfig {
            watches_max: 1,
            ..RpcConfig::default()
        },
        ..Setup::default()
    }
    .start();
    let mut client = node.client().await;
    let watch = || WatchRequest {
        context_id: "c".into(),
        ..WatchRequest::default()
    };
    let first = within(client.watch(watch())).await.unwrap();
    let outcome = within(client.watch(watch())).await;
    refused(
        outcome.map(|_| ()),
        Code::ResourceExhausted,
        "as many watches",
    );
    append(&mut client, "c", "k", b"p").await.unwrap();
    drop(first);
    until(|| {
        let mut client = client.clone();
        async move { within(client.watch(watch())).await.is_ok() }
    })
    .await;
    node.stop().await;
}

#[tokio::test]
async fn one_connection_too_many_is_closed_at_once() {
    let node = Setup {
        config: RpcConfig {
            connections_max: 1,
            ..RpcConfig::default()
        },
        ..Setup::default()
    }
    .start();
    let mut first = node.client().await;
    append(&mut first, "c", "k", b"p").await.unwrap();
    let mut second = TcpStream::connect(node.address).await.unwrap();
    let ended = within(second.read(&mut [0; 1])).await;
    assert!(matches!(ended, Ok(0) | Err(_)));
    append(&mut first, "c", "k", b"p").await.unwrap();
    drop(first);
    // Its place is free again when the server has seen its end.
    until(|| async {
        let mut third = TcpStream::connect(node.address).await.unwrap();
        let sent = third.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
        sent.is_ok() && matches!(third.read(&mut [0; 1]).await, Ok(1))
    })
    .await;
    node.stop().await;
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_closed() {
    let node = Setup {
        config: RpcConfig {
            handshake_deadline: Duration::from_millis(50),
            connections_max: 2,
            ..RpcConfig::default()
        },
        ..Setup::default()
    }
    .start();
    let mut silent = TcpStream::connect(node.address).await.unwrap();
    let mut slow = TcpStream::connect(node.address).await.unwrap();
    slow.write_all(b"PRI * HTTP/2.0\r\n").await.unwrap();
    for stream in [&mut silent, &mut slow] {
        let ended = within(stream.read(&mut [0; 1])).await;
        assert!(matches!(ended, Ok(0) | Err(_)));
    }
    let mut other = TcpStream::connect(node.address).await.unwrap();
    other
        .write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    let ended = within(other.read(&mut [0; 1])).await;
    assert!(matches!(ended, Ok(0) | Err(_)));
    node.assert_serves().await;
    node.stop().await;
}

#[tokio::test]
async fn time_that_is_up_says_what_is_unknown() {
    let node = Node::start();
    let channel = node.channel().await;
    let request = |path, body| {
        http::Request::post(path)
            .header("te", "trailers")
            .header("content-type", "application/grpc")
            .header("grpc-timeout", "500m")
            .body(body)
            .unwrap()
    };
    let (sender, body) = by_hand();
    sender.send(prefix(10)).unwrap();
    let status = crate::support::send_raw(channel.clone(), request(APPEND, body)).await;
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert!(status.message().contains("same request_id"), "{status:?}");
    drop(sender);
    node.assert_serves().await;
    node.stop().await;
}
