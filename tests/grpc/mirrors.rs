//! Sources and mirrors of them in memory, without a network.

use std::sync::mpsc::sync_channel;

use converge_ledger::entry::{ContextId, Draft};
use converge_ledger::ledger::Ingest;
use converge_ledger::rpc::Place;
use converge_ledger::store::disk::MemoryDisk;
use converge_ledger::store::{Store, StoreRole};
use converge_ledger::sync::{self, Mirror, MirrorLimits, Output};

use crate::support::place;

/// Appends to a store itself.
pub(crate) fn fill(store: &Store, context: &str, payloads: &[&str]) {
    let id = ContextId::new(context).unwrap();
    for payload in payloads {
        let draft = Draft::new("k", payload.as_bytes().to_vec()).unwrap();
        store.append(vec![(id.clone(), draft)]).unwrap();
    }
}

/// How much of a head a mirror takes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Take {
    All,
    /// Everything but that it is complete: the head is seen, and every entry
    /// under it is stored.
    Pending,
}

/// A mirror pulls the newest head of a source, over no network. `false` if it
/// could not.
pub(crate) fn pull(source: &Store, mirror: &Store, take: Take) -> bool {
    source.publish().unwrap();
    let origin = source.view().origin();
    let mut engine = Mirror::new(mirror.view(), origin, MirrorLimits::default());
    engine.start();
    while let Some(output) = engine.poll_output() {
        match output {
            Output::Send { request, frame } => {
                let mut answer = sync::answer(&frame).unwrap();
                while let Some(frame) = answer.next_frame(source.view()).unwrap() {
                    engine.handle_frame(request, &frame);
                }
                engine.handle_end(request);
            }
            Output::Store { token, item } => {
                if take == Take::Pending && matches!(item, Ingest::Complete(_)) {
                    return true;
                }
                let (sender, stored) = sync_channel(1);
                mirror.ingest(item, Box::new(move |outcome| _ = sender.send(outcome)));
                if stored.recv().unwrap().is_err() {
                    return false;
                }
                engine.handle_stored(token);
            }
            Output::Done(_) => return true,
            Output::Fail(_) => return false,
        }
    }
    panic!("the engine waits for nothing");
}

/// A source and a mirror of it.
pub(crate) struct Mirrored {
    pub(crate) source: Store,
    pub(crate) mirror: Store,
    pub(crate) disk: MemoryDisk,
}

impl Mirrored {
    pub(crate) fn new(origin: &str) -> (Place, Self) {
        let (_, source, _) = place(StoreRole::Own, origin);
        let (place, mirror, disk) = place(StoreRole::Mirror, origin);
        let mirrored = Self {
            source,
            mirror,
            disk,
        };
        (place, mirrored)
    }

    pub(crate) fn append(&self, context: &str, payloads: &[&str]) {
        fill(&self.source, context, payloads);
        assert!(pull(&self.source, &self.mirror, Take::All));
    }
}
