//! Health, reflection, failure, shutdown.

use std::io;
use std::time::Duration;

use converge_ledger::rpc::proto::context::WatchRequest;
use converge_ledger::rpc::proto::context::context_service_client::ContextServiceClient;
use converge_ledger::rpc::{Places, RpcConfig, Server};
use converge_ledger::store::StoreRole;
use converge_ledger::store::disk::{Fault, FaultKind};
use tokio::sync::oneshot;
use tokio_stream::StreamExt as _;
use tonic::Code;
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{ListServiceResponse, ServerReflectionRequest};

use crate::health::{SERVICES, check};
use crate::support::{
    Node, Setup, append, by_hand, call_raw, place, prefix, refused, until, within,
};

async fn health(node: &Node, service: &str) -> ServingStatus {
    check(node.channel().await, service).await
}

#[tokio::test]
async fn a_store_that_fails_is_told_to_everybody() {
    let node = Node::start();
    let mut client = node.client().await;
    append(&mut client, "c", "k", b"p").await.unwrap();
    for service in SERVICES {
        assert_eq!(health(&node, service).await, ServingStatus::Serving);
    }
    let watch = WatchRequest {
        context_id: "c".into(),
        from_sequence: 1,
        ..WatchRequest::default()
    };
    let mut events = within(client.watch(watch)).await.unwrap().into_inner();
    node.disk.set_fault(Some(Fault {
        kind: FaultKind::Sync,
        after: 0,
        error: io::ErrorKind::Other,
    }));
    let outcome = append(&mut client, "c", "k", b"p").await;
    refused(outcome, Code::Unavailable, "has failed");
    let end = within(events.next()).await.unwrap();
    refused(end, Code::Unavailable, "from_sequence 1,");
    let outcome = append(&mut client, "c", "k", b"p").await;
    refused(outcome, Code::Unavailable, "restarted");
    for service in SERVICES {
        until(|| async { health(&node, service).await == ServingStatus::NotServing }).await;
    }
}

#[tokio::test]
async fn a_server_that_ended_begins_again_on_the_same_socket() {
    let (place, store, _disk) = place(StoreRole::Own, "test.example");
    let places = Places::new(vec![place]).unwrap();
    let any = "127.0.0.1:0".parse().unwrap();
    let server = Server::bind(any, RpcConfig::default(), None, None).unwrap();
    for n in 1..4 {
        let (stop, stopped) = oneshot::channel::<()>();
        let again = server.again().unwrap();
        assert_eq!(again.local_addr(), server.local_addr());
        let running = again.run(places.clone(), async move { _ = stopped.await });
        let running = tokio::spawn(running);
        let url = format!("http://{}", server.local_addr());
        let channel = Endpoint::from_shared(url).unwrap().connect().await.unwrap();
        let mut client = ContextServiceClient::new(channel);
        let stored = append(&mut client, "c", "k", b"p").await.unwrap();
        assert_eq!(stored.sequence, n);
        // Watches end with a server, and begin anew with the next one.
        let watch = WatchRequest {
            context_id: "c".into(),
            from_sequence: n - 1,
            ..WatchRequest::default()
        };
        let mut events = within(client.watch(watch)).await.unwrap().into_inner();
        let event = within(events.next()).await.unwrap().unwrap();
        assert_eq!(event.entry.unwrap().sequence, n);
        drop(stop);
        refused(within(events.next()).await.unwrap(), Code::Unavailable, "");
        within(running).await.unwrap().unwrap();
    }
    store.close().unwrap();
}

#[tokio::test]
async fn reflection_lists_the_services() {
    let node = Node::start();
    let mut client = ServerReflectionClient::new(node.channel().await);
    let request = ServerReflectionRequest {
        message_request: Some(MessageRequest::ListServices(String::new())),
        ..ServerReflectionRequest::default()
    };
    let replies = within(client.server_reflection_info(tokio_stream::once(request))).await;
    let reply = within(replies.unwrap().into_inner().next()).await;
    let Some(MessageResponse::ListServicesResponse(ListServiceResponse { service })) =
        reply.unwrap().unwrap().message_response
    else {
        panic!("no list");
    };
    for name in SERVICES.into_iter().skip(1) {
        assert!(
            service.iter().any(|found| found.name == name),
            "{service:?}"
        );
    }
    node.stop().await;
}

#[tokio::test]
async fn shutdown_finishes_what_was_accepted_and_ends_what_does_not_end() {
    let mut node = Node::start();
    let mut client = node.client().await;
    append(&mut client, "c", "k", b"p").await.unwrap();
    let watch = WatchRequest {
        context_id: "c".into(),
        ..WatchRequest::default()
    };
    let mut events = within(client.watch(watch)).await.unwrap().into_inner();
    within(events.next()).await.unwrap().unwrap();
    let mut watcher = HealthClient::new(node.channel().await);
    let asked = watcher.watch(HealthCheckRequest::default());
    let mut told = within(asked).await.unwrap().into_inner();
    within(told.next()).await.unwrap().unwrap();
    // An append of which half has arrived.
    let (sender, body) = by_hand();
    let message = prost::Message::encode_to_vec(&crate::support::request("c", "k", b"last"));
    sender.send(prefix(message.len())).unwrap();
    let path = "/converge.context.v1.ContextService/Append";
    let call = tokio::spawn(call_raw(node.channel().await, path, body));
    // The call has arrived when the one behind it has been answered.
    node.assert_serves().await;
    node.tell_to_stop();
    let end = within(events.next()).await.unwrap();
    refused(end, Code::Unavailable, "from_sequence 1,");
    until(|| async { tokio::net::TcpStream::connect(node.address).await.is_err() }).await;
    sender.send(message.into()).unwrap();
    drop(sender);
    let status = within(call).await.unwrap();
    assert_eq!(status.code(), Code::Ok, "{status:?}");
    // Health has told and has ended.
    let mut last = ServingStatus::Serving;
    let end = loop {
        match within(told.next()).await.unwrap() {
            Ok(told) => last = told.status(),
            Err(status) => break status,
        }
    };
    assert_eq!(
        (last, end.code()),
        (ServingStatus::NotServing, Code::Unavailable)
    );
    node.stop().await;
}

#[tokio::test]
async fn what_does_not_end_in_time_is_cut() {
    let mut node = Setup {
        config: RpcConfig {
            drain: Duration::from_millis(100),
            ..RpcConfig::default()
        },
        ..Setup::default()
    }
    .start();
    let (sender, body) = by_hand();
    sender.send(prefix(10)).unwrap();
    let path = "/converge.context.v1.ContextService/Append";
    let call = tokio::spawn(call_raw(node.channel().await, path, body));
    node.assert_serves().await;
    node.tell_to_stop();
    assert_ne!(within(call).await.unwrap().code(), Code::Ok);
    node.stop().await;
    drop(sender);
}
