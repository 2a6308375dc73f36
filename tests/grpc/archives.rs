//! Snapshots and loading: what comes out goes in, and nothing else does.

use converge_ledger::rpc::RpcConfig;
use converge_ledger::rpc::proto::context::{LoadRequest, SnapshotRequest};
use tonic::Code;

use crate::support::{Node, Setup, append, get, refused, within};

fn of(context_id: &str) -> SnapshotRequest {
    SnapshotRequest {
        context_id: context_id.into(),
        ..SnapshotRequest::default()
    }
}

fn load(context_id: &str, snapshot: &[u8]) -> LoadRequest {
    LoadRequest {
        context_id: context_id.into(),
        snapshot: bytes::Bytes::copy_from_slice(snapshot),
        fail_if_exists: false,
    }
}

#[tokio::test]
async fn a_context_goes_from_one_server_to_another() {
    let (from, to) = (Node::start(), Node::start());
    let mut source = from.client().await;
    for n in 0..10 {
        append(&mut source, "c", "k", &vec![n; 10_000])
            .await
            .unwrap();
    }
    let reply = within(source.snapshot(of("c"))).await.unwrap().into_inner();
    let metadata = reply.metadata.unwrap();
    assert_eq!(
        (reply.sequence, metadata.entry_count, metadata.version),
        (10, 10, 1)
    );
    assert_eq!(metadata.merkle_root.len(), 32);
    assert!(metadata.created_at_ns > 0);
    let again = within(source.snapshot(of("c"))).await.unwrap().into_inner();
    assert_eq!(again.snapshot, reply.snapshot);

    let mut target = to.client().await;
    let archive = &reply.snapshot;
    let loaded = within(target.load(load("c", archive)))
        .await
        .unwrap()
        .into_inner();
    assert_eq!((loaded.entries_restored, loaded.latest_sequence), (10, 10));
    assert_eq!(
        get(&mut target, "c", 0).await.entries,
        get(&mut source, "c", 0).await.entries
    );
    // Again: nothing new. Not at all, if it must not exist.
    let loaded = within(target.load(load("c", archive)))
        .await
        .unwrap()
        .into_inner();
    assert_eq!((loaded.entries_restored, loaded.latest_sequence), (0, 10));
    let strict = LoadRequest {
        fail_if_exists: true,
        ..load("c", archive)
    };
    refused(
        within(target.load(strict)).await,
        Code::AlreadyExists,
        "exists",
    );
    // It goes on, here and there, and then they differ.
    append(&mut target, "c", "k", b"here").await.unwrap();
    append(&mut source, "c", "k", b"there").await.unwrap();
    let newer = within(source.snapshot(of("c"))).await.unwrap().into_inner();
    let outcome = within(target.load(load("c", &newer.snapshot))).await;
    refused(outcome, Code::FailedPrecondition, "another history");
    let outcome = within(target.snapshot(of("none"))).await;
    refused(outcome, Code::NotFound, "");
    to.assert_serves().await;
    from.stop().await;
    to.stop().await;
}

#[tokio::test]
async fn what_does_not_verify_is_not_loaded() {
    let node = Node::start();
    let mut client = node.client().await;
    append(&mut client, "c", "k", b"payload").await.unwrap();
    let good = within(client.snapshot(of("c")))
        .await
        .unwrap()
        .into_inner()
        .snapshot;
    for at in (0..good.len()).step_by(7) {
        let mut bad = good.to_vec();
        bad[at] ^= 1;
        let outcome = within(client.load(load("d", &bad))).await;
        refused(outcome, Code::InvalidArgument, "");
    }
    for bad in [&[][..], b"x", &good[..good.len() - 1]] {
        let outcome = within(client.load(load("d", bad))).await;
        refused(outcome, Code::InvalidArgument, "");
    }
    refused(within(client.snapshot(of("d"))).await, Code::NotFound, "");
    let mirror = Setup {
        mirror: true,
        ..Setup::default()
    }
    .start();
    let outcome = within(mirror.client().await.load(load("c", &good))).await;
    refused(outcome, Code::FailedPrecondition, "owns the store");
    mirror.stop().await;
    node.assert_serves().await;
    node.stop().await;
}

#[tokio::test]
async fn a_snapshot_that_is_too_large_says_what_else_to_do() {
    let node = Setup {
        config: RpcConfig {
            snapshot_bytes_max: 64 << 10,
            ..RpcConfig::default()
        },
        ..Setup::default()
    }
    .start();
    let mut client = node.client().await;
    append(&mut client, "c", "k", &vec![1; 60 << 10])
        .await
        .unwrap();
    let fits = within(client.snapshot(of("c"))).await.unwrap().into_inner();
    append(&mut client, "c", "k", &[2; 4 << 10]).await.unwrap();
    let outcome = within(client.snapshot(of("c"))).await;
    refused(outcome, Code::ResourceExhausted, "snapshot --data DIR");
    let mut large = fits.snapshot.to_vec();
    large.resize(129 << 10, 0);
    let outcome = within(client.load(load("d", &large))).await;
    refused(outcome, Code::ResourceExhausted, "too large");
    node.assert_serves().await;
    node.stop().await;
}
