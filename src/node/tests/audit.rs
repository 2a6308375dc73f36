//! Audits from outside, and nodes that only tell or hear about heads.

use std::sync::Mutex;

use super::*;
use crate::node::{RemoteAudit, RemoteAuditOptions, ask_head, audit_remote};
use crate::sync::OriginFault;

async fn audit(address: SocketAddr, sample: Option<u64>) -> Result<RemoteAudit, CatchUpError> {
    let endpoint = quic::client(LOCALHOST).unwrap();
    let options = RemoteAuditOptions {
        sample,
        seed: 7,
        ..RemoteAuditOptions::default()
    };
    let (peer, origin) = (key(1).id(), signer(1).verifier().clone());
    audit_remote(&endpoint, &key(2), (address, peer), origin, options, |_| ()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_is_audited_whole_and_by_sample() {
    let l = ledger();
    let server = Server::new(l.clone(), &[key(2).id()], ServeLimits::default());
    let whole = audit(server.address, None).await.unwrap();
    assert_eq!(whole.head, l.head);
    assert_eq!((whole.entries, whole.contexts), (820 + 1200, 41));
    let all = audit(server.address, Some(u64::MAX)).await.unwrap();
    assert_eq!(
        (all.entries, all.contexts, all.payload_bytes),
        (whole.entries, whole.contexts, whole.payload_bytes)
    );
    let some = audit(server.address, Some(100)).await.unwrap();
    assert!((80..=100).contains(&some.entries), "{some:?}");
    assert!(some.received_bytes < all.received_bytes / 4);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_is_audited_too() {
    let own = open(StoreRole::Own);
    let id = |n: usize| ContextId::new(&format!("context {}", n % 7)).unwrap();
    let drafts = (0..400).map(|n| {
        let payload = vec![7; if n % 50 == 0 { 5000 + n } else { n }];
        (id(n * n), Draft::new("key", payload).unwrap())
    });
    own.append(drafts.collect()).unwrap();
    let head = own.publish().unwrap();
    let server = Server::new(own.view().clone(), &[key(2).id()], ServeLimits::default());
    for sample in [None, Some(50), Some(400)] {
        let report = audit(server.address, sample).await.unwrap();
        assert_eq!(report.head.as_ref(), Some(&head));
        let entries = report.entries;
        assert!(entries == 400 || (sample == Some(50) && (30..=50).contains(&entries)));
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_audit_finds_what_is_wrong() {
    let mut l = FakeLedger::new(1);
    l.append("a", &[vec![1; 5000]]);
    l.append_with("b", &[vec![1], vec![2]], |_| 1);
    l.publish();
    let server = Server::new(l.clone(), &[key(2).id()], ServeLimits::default());
    let error = audit(server.address, None).await.unwrap_err();
    let CatchUpError::Sync(SyncError::Origin(fault)) = error else {
        panic!("{error}");
    };
    assert!(
        matches!(*fault, OriginFault::InvalidEntries { .. }),
        "{fault}"
    );
    server.stop().await;
    l.forget_payload(&[1; 5000]);
    let server = Server::new(l, &[key(2).id()], ServeLimits::default());
    let error = audit(server.address, Some(3)).await.unwrap_err();
    assert!(matches!(peer(error), PeerFault::Missing { .. }));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn notes_are_shown_and_heard() {
    let l = ledger();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&heard);
    let shown: Shown = Arc::new(move |peer: &NodeId, note: &[u8]| {
        told.lock().unwrap().push((*peer, note.to_vec()));
    });
    let server = Server::hearing(l.clone(), &[key(2).id()], Some(shown));
    let note = l.head.as_ref().unwrap().note_bytes();
    let endpoint = quic::client(LOCALHOST).unwrap();
    let place = (server.address, key(1).id());
    let long = Duration::from_secs(10);
    for newest in [&b""[..], b"nonsense", &note] {
        let notes = ask_head(&endpoint, &key(2), place, newest, long).await;
        assert_eq!(notes.unwrap(), std::slice::from_ref(&note));
    }
    let expected = [b"nonsense".to_vec(), note].map(|note| (key(2).id(), note));
    assert_eq!(*heard.lock().unwrap(), expected);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_does_not_answer_is_not_waited_for() {
    let (_held, hold) = oneshot::channel::<()>();
    let address = rogue(|send| async move {
        let _ = hold.await;
        drop(send);
    });
    let endpoint = quic::client(LOCALHOST).unwrap();
    let place = (address, key(1).id());
    let error = ask_head(&endpoint, &key(2), place, b"", SHORT)
        .await
        .unwrap_err();
    assert!(matches!(error, CatchUpError::TimedOut { .. }), "{error}");
}

/// Two histories of one origin, over the network, into a store on disk.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn evidence_reaches_the_store_before_the_error_does() {
    let mut held = FakeLedger::new(1);
    held.append("a", &[vec![1], vec![2]]);
    held.publish();
    let mut other = FakeLedger::new(1);
    other.append("a", &[vec![1], vec![3], vec![4]]);
    other.epoch = 1;
    other.publish();
    let mirror = Arc::new(open(StoreRole::Mirror));
    let server = Server::new(held, &[key(2).id()], ServeLimits::default());
    pull(&key(2), &mirror, &config(server.address))
        .await
        .unwrap();
    server.stop().await;
    let server = Server::new(other, &[key(2).id()], ServeLimits::default());
    let error = pull(&key(2), &mirror, &config(server.address))
        .await
        .unwrap_err();
    let CatchUpError::Sync(SyncError::Forked(fork)) = error else {
        panic!("{error}");
    };
    let state = mirror.view().fork().unwrap();
    assert_eq!(state.evidence, fork.evidence.hash());
    assert!(!state.resolved);
    server.stop().await;
}
