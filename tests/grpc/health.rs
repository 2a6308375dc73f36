//! Health of a server with several places: of what it serves, and of the
//! histories.

use std::io;

use converge_ledger::rpc::Places;
use converge_ledger::rpc::proto::context::WatchRequest;
use converge_ledger::store::StoreRole;
use converge_ledger::store::disk::{Fault, FaultKind, MemoryDisk};
use tokio::sync::watch;
use tokio_stream::StreamExt as _;
use tonic::Code;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::mirrors::{Mirrored, Take, fill, pull};
use crate::support::{Served, Setup, append, place, refused, until, within};

pub(crate) const SERVICES: [&str; 3] = [
    "",
    "converge.context.v1.ContextService",
    "converge.ledger.v1.InspectService",
];
const ORIGIN: &str = "converge.ledger.v1.Origin";

pub(crate) async fn check(channel: Channel, service: &str) -> ServingStatus {
    let mut client = HealthClient::new(channel);
    let request = HealthCheckRequest {
        service: service.into(),
    };
    let reply = within(client.check(request)).await.unwrap();
    reply.into_inner().status()
}

/// Waits until health says this of the services, and of the origins.
async fn becomes(served: &Served, serving: bool, origins: bool) {
    let names = SERVICES.map(|name| (name, serving));
    for (name, ok) in names.into_iter().chain([(ORIGIN, origins)]) {
        let expected = if ok {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        };
        until(|| async { check(served.channel().await, name).await == expected }).await;
    }
}

fn break_disk(disk: &MemoryDisk) {
    disk.set_fault(Some(Fault {
        kind: FaultKind::Sync,
        after: 0,
        error: io::ErrorKind::Other,
    }));
}

/// A mirror's store fails at the next head.
fn fail(mirrored: &Mirrored) {
    break_disk(&mirrored.disk);
    fill(&mirrored.source, "c", &["lost"]);
    assert!(!pull(&mirrored.source, &mirrored.mirror, Take::All));
}

#[tokio::test]
async fn a_mirror_that_fails_ends_its_own_watches_and_nothing_else() {
    let ((place_a, a), (place_b, b)) = (Mirrored::new("a"), Mirrored::new("b"));
    let (place_own, own, disk) = place(StoreRole::Own, "own");
    let places = Places::new(vec![place_a, place_b, place_own]).unwrap();
    let served = Setup::default().serve(places);
    let mut client = served.client().await;
    fill(&own, "c", &["own"]);
    a.append("c", &["a"]);
    b.append("c", &["b"]);
    let mut watches = Vec::new();
    for origin in ["a", "b", "own"] {
        let request = WatchRequest {
            context_id: "c".into(),
            origin: origin.into(),
            ..WatchRequest::default()
        };
        let mut events = within(client.watch(request)).await.unwrap().into_inner();
        within(events.next()).await.unwrap().unwrap();
        watches.push(events);
    }
    fail(&a);
    let end = within(watches[0].next()).await.unwrap();
    refused(end, Code::Unavailable, "from_sequence 1,");
    becomes(&served, true, true).await;
    b.append("c", &["b 2"]);
    append(&mut client, "c", "k", b"own 2").await.unwrap();
    for events in &mut watches[1..] {
        let event = within(events.next()).await.unwrap().unwrap();
        assert_eq!(event.entry.unwrap().sequence, 2);
    }
    // The own store is what the services are about.
    break_disk(&disk);
    let outcome = append(&mut client, "c", "k", b"own 3").await;
    refused(outcome, Code::Unavailable, "has failed");
    becomes(&served, false, true).await;
    // And the mirror is still there.
    b.append("c", &["b 3"]);
    let event = within(watches[1].next()).await.unwrap().unwrap();
    assert_eq!(event.entry.unwrap().sequence, 3);
    served.stop().await;
}

#[tokio::test]
async fn mirrors_alone_serve_while_one_of_them_works() {
    let ((place_a, a), (place_b, b)) = (Mirrored::new("a"), Mirrored::new("b"));
    let served = Setup::default().serve(Places::new(vec![place_a, place_b]).unwrap());
    becomes(&served, true, true).await;
    fail(&a);
    assert!(a.mirror.failure().is_some());
    b.append("c", &["b"]);
    becomes(&served, true, true).await;
    fail(&b);
    becomes(&served, false, true).await;
    served.stop().await;
}

#[tokio::test]
async fn an_origin_that_has_forked_is_told_and_served() {
    let (place_a, a) = Mirrored::new("a");
    let (place_own, _own, _) = place(StoreRole::Own, "own");
    let (say, said) = watch::channel(true);
    let places = Places::new(vec![place_a, place_own]).unwrap();
    let served = Setup::default().serve(places.with_origins_ok(said));
    a.append("c", &["a"]);
    becomes(&served, true, true).await;
    // What else the node knows of the origins.
    say.send_replace(false);
    becomes(&served, true, false).await;
    say.send_replace(true);
    becomes(&served, true, true).await;
    // Nobody says anything any more: the last word counts.
    drop(say);
    // Another store with the same key signs another history.
    let (_, twin, _) = place(StoreRole::Own, "a");
    fill(&twin, "c", &["b"]);
    assert!(!pull(&twin, &a.mirror, Take::All));
    becomes(&served, true, false).await;
    let mut client = served.client().await;
    let page = crate::support::get(&mut client, "c", 0).await;
    assert_eq!((page.entries.len(), page.origin.as_str()), (1, "a"));
    served.stop().await;
}
