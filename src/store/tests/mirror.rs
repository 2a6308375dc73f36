//! A mirror's store: verified history in, the same directory out.

use super::*;
use crate::directory::Opening;
use crate::head::SignedHead;
use crate::ledger::{Ingest, ReadLedger, ReadMirror, SeenHead};
use crate::run::{CheckedPayload, CheckedSpan, Run, SignedContext, encode_span};
use crate::store::disk::Disk;
use crate::tree::TreeSize;
use crate::tree::nodes::read_ranges;
use crate::tree::range::right_plan;

pub(super) fn mirror_disk() -> MemoryDisk {
    let disk = MemoryDisk::new();
    create(&disk, StoreRole::Mirror, signer().verifier()).unwrap();
    disk
}

pub(super) fn open_mirror(disk: &MemoryDisk) -> Store {
    let opened = Store::open(Arc::new(disk.clone()), options(SEGMENT_BYTES_DEFAULT), None);
    opened.unwrap().store
}

pub(super) fn ingest(store: &Store, item: Ingest) -> Result<(), StoreError> {
    let (tx, rx) = std::sync::mpsc::channel();
    store.ingest(item, Box::new(move |outcome| tx.send(outcome).unwrap()));
    rx.recv().unwrap()
}

struct Nodes<'v>(&'v View, ContextId);

impl crate::tree::ReadNodes for Nodes<'_> {
    type Error = StoreError;

    fn read_nodes(&self, ids: &[crate::tree::NodeId]) -> Result<Vec<Hash>, StoreError> {
        ReadLedger::tree_nodes(self.0, &self.1, ids)
    }
}

fn opening(view: &View, name: &str) -> Opening {
    let size = view.signed_size(&id(name)).unwrap().unwrap();
    let root = view.root_at(&id(name), size).unwrap();
    Opening {
        id: name.into(),
        size,
        root,
    }
}

/// What the source would send for one context, verified against `mirror`.
pub(super) fn span(
    source: &View,
    mirror: &View,
    opening: &Opening,
) -> (CheckedSpan, Vec<CheckedPayload>) {
    let id = id(&opening.id);
    let own = ReadMirror::accumulator(mirror, &id).unwrap();
    let runs = source
        .runs(&id, own.size(), opening.size, usize::MAX)
        .unwrap()
        .unwrap();
    let n = TreeSize::new(opening.size);
    let right = read_ranges(&right_plan(n, n).unwrap(), &Nodes(source, id.clone())).unwrap();
    let mut bytes = Vec::new();
    encode_span(own.size(), opening.size, &right, &runs, &mut bytes);
    let signed = SignedContext {
        id,
        size: opening.size,
        root: opening.root,
    };
    let span = CheckedSpan::verify(&own, &signed, &bytes).unwrap();
    let payloads = span
        .outside_payloads()
        .iter()
        .filter(|(hash, _)| !mirror.has_outside_payload(hash).unwrap())
        .map(|(hash, _)| {
            CheckedPayload::new(source.outside_payload(hash).unwrap().unwrap()).unwrap()
        })
        .collect();
    (span, payloads)
}

pub(super) fn seen(source: &View, names: &[&str]) -> (SignedHead, SeenHead) {
    let head = source.newest_head().unwrap().unwrap();
    let mut openings: Vec<_> = names.iter().map(|name| opening(source, name)).collect();
    openings.sort_by_key(Opening::path);
    (head.clone(), SeenHead { head, openings })
}

fn source() -> Store {
    let store = open(&new_disk());
    put(&store, "a", &["one", "two", &"big".repeat(3000)]);
    put(&store, "a", &["three"]);
    put(&store, "b", &["x", &"big".repeat(3000)]);
    store.publish().unwrap();
    store
}

#[test]
fn verified_history_gives_the_same_directory_and_survives_reopening() {
    let source = source();
    let disk = mirror_disk();
    let mirror = open_mirror(&disk);
    let (head, seen_head) = seen(source.view(), &["a", "b"]);
    ingest(&mirror, Ingest::Seen(seen_head.clone())).unwrap();
    for opening in &seen_head.openings {
        let (span, payloads) = span(source.view(), mirror.view(), opening);
        ingest(&mirror, Ingest::Span { span, payloads }).unwrap();
        // Not told to anyone before the head is complete.
        assert_eq!(mirror.view().size(&id("a")).unwrap(), None);
        assert!(mirror.view().head().is_none());
    }
    assert!(mirror.view().seen_heads().unwrap().len() == 1);
    ingest(&mirror, Ingest::Complete(head.clone())).unwrap();
    assert_eq!(payloads(mirror.view(), "a"), payloads(source.view(), "a"));
    mirror.close().unwrap();
    let mirror = open_mirror(&disk);
    assert_eq!(mirror.view().head(), Some(head.clone()));
    assert!(mirror.view().seen_heads().unwrap().is_empty());
    assert_eq!(
        mirror.view().contexts(None, 9).unwrap(),
        source.view().contexts(None, 9).unwrap()
    );
    // The mirror serves the same bytes on.
    let root = head.head().directory_root;
    assert_eq!(
        mirror.view().opened_node(&root).unwrap(),
        source.view().opened_node(&root).unwrap()
    );
    assert_eq!(
        mirror.view().runs(&id("a"), 0, 4, usize::MAX).unwrap(),
        source.view().runs(&id("a"), 0, 4, usize::MAX).unwrap()
    );
    mirror.close().unwrap();
    let report = audit_clean(&disk);
    assert_eq!((report.contexts, report.entries), (2, 6));
    assert_eq!(report.directory_root, Some(root));
}

#[test]
fn a_source_serves_whatever_lies_between_two_sizes() {
    let source = source();
    let view = source.view();
    let size = view.signed_size(&id("a")).unwrap().unwrap();
    let headers = |after, size| {
        let runs = view.runs(&id("a"), after, size, usize::MAX).unwrap();
        let mut headers = Vec::new();
        for run in runs.unwrap() {
            let run = Run::decode(&run).unwrap();
            run.check_payloads().unwrap();
            headers.extend(run.headers().map(<[u8]>::to_vec));
        }
        headers
    };
    let all = headers(0, size);
    assert_eq!(all.len() as u64, size);
    for to in 1..=size {
        for after in 0..to {
            let (from, until) = (
                usize::try_from(after).unwrap(),
                usize::try_from(to).unwrap(),
            );
            assert_eq!(headers(after, to), all[from..until], "{after} {to}");
        }
    }
    for (after, to) in [(0, 0), (size, size), (0, size + 1), (2, 1)] {
        assert_eq!(view.runs(&id("a"), after, to, usize::MAX).unwrap(), None);
    }
}

#[test]
fn a_mirror_in_mid_sync_reopens_where_it_was() {
    let source = source();
    let disk = mirror_disk();
    let mirror = open_mirror(&disk);
    let (head, seen_head) = seen(source.view(), &["a", "b"]);
    ingest(&mirror, Ingest::Seen(seen_head.clone())).unwrap();
    let (first, payloads) = span(source.view(), mirror.view(), &seen_head.openings[0]);
    ingest(
        &mirror,
        Ingest::Span {
            span: first,
            payloads,
        },
    )
    .unwrap();
    let crashed = disk.after_power_loss();
    mirror.close().unwrap();
    audit_clean(&disk);
    let mirror = open_mirror(&crashed);
    let pending = mirror.view().seen_heads().unwrap().pop().unwrap();
    assert_eq!(pending.openings, seen_head.openings);
    let (second, payloads) = span(source.view(), mirror.view(), &seen_head.openings[1]);
    ingest(
        &mirror,
        Ingest::Span {
            span: second,
            payloads,
        },
    )
    .unwrap();
    ingest(&mirror, Ingest::Complete(head)).unwrap();
    mirror.close().unwrap();
    assert_eq!(audit_clean(&crashed).entries, 6);
}

#[test]
fn a_second_head_brings_only_what_is_new() {
    let source = source();
    let disk = mirror_disk();
    let mirror = open_mirror(&disk);
    let catch_up = |names: &[&str]| {
        let (head, seen_head) = seen(source.view(), names);
        ingest(&mirror, Ingest::Seen(seen_head.clone())).unwrap();
        for opening in &seen_head.openings {
            let (span, payloads) = span(source.view(), mirror.view(), opening);
            ingest(&mirror, Ingest::Span { span, payloads }).unwrap();
        }
        ingest(&mirror, Ingest::Complete(head)).unwrap();
    };
    catch_up(&["a", "b"]);
    put(&source, "b", &["y"]);
    put(&source, "c", &["new"]);
    source.publish().unwrap();
    catch_up(&["b", "c"]);
    assert_eq!(payloads(mirror.view(), "b").last().unwrap(), "y");
    assert_eq!(mirror.view().totals(), (3, 8));
    mirror.close().unwrap();
    audit_clean(&disk);
}

#[test]
fn what_does_not_continue_the_store_is_refused_and_leaves_no_trace() {
    let source = source();
    let disk = mirror_disk();
    let mirror = open_mirror(&disk);
    let (head, seen_head) = seen(source.view(), &["a", "b"]);
    let (a, payloads) = span(source.view(), mirror.view(), &opening(source.view(), "a"));
    let item = |payloads: &[CheckedPayload]| Ingest::Span {
        span: a.clone(),
        payloads: payloads.to_vec(),
    };
    let refused = |item: Ingest| {
        let before = disk.bytes("log/0000000001.seg").unwrap();
        assert!(ingest(&mirror, item).is_err());
        assert_eq!(disk.bytes("log/0000000001.seg").unwrap(), before);
    };
    // Runs without a seen head, a completion without one.
    refused(item(&payloads));
    refused(Ingest::Complete(head.clone()));
    ingest(&mirror, Ingest::Seen(seen_head)).unwrap();
    // A payload that nobody has, runs twice, a head that is not complete.
    refused(item(&[]));
    ingest(&mirror, item(&payloads)).unwrap();
    refused(item(&payloads));
    refused(Ingest::Complete(head));
    // A mirror takes no entries of its own and signs nothing.
    assert!(matches!(
        mirror.append(vec![(id("a"), draft("x"))]),
        Err(AppendError::Mirror { .. })
    ));
    assert!(mirror.publish().is_err());
    mirror.close().unwrap();
    audit_clean(&disk);
}

#[test]
fn openings_of_an_attempt_that_stopped_are_ignored() {
    use crate::directory::OpeningsPart;
    use crate::store::index::{Effect, Index, Location};

    let source = source();
    let (head, seen_head) = seen(source.view(), &["a", "b"]);
    let order = head.order();
    let part = |order, openings: &[Opening]| {
        let mut parts = OpeningsPart::pack(order, openings.to_vec()).unwrap();
        Effect::Openings {
            part: parts.remove(0),
            at: Location::default(),
        }
    };
    let other = crate::head::HeadOrder {
        term: order.term,
        epoch: order.epoch + 7,
    };
    let (first, second) = seen_head.openings.split_at(1);
    let mut index = Index::new(StoreRole::Mirror, signer().verifier().clone());
    // Another head's part; this head's first part; then all of it, in two.
    for effect in [
        part(other, second),
        part(order, first),
        part(order, first),
        part(order, second),
    ] {
        index.apply(effect).unwrap();
    }
    index
        .apply(Effect::Seen {
            head: Box::new(head),
            at: Location::default(),
        })
        .unwrap();
    assert_eq!(index.pending().unwrap().openings, seen_head.openings);
}

#[test]
fn a_head_between_is_completed_while_a_later_one_stays_seen() {
    let source = source();
    let mut states = vec![seen(source.view(), &["a", "b"])];
    let older = |name: &str| opening(source.view(), name);
    let between = [older("a"), older("b")];
    put(&source, "a", &["four", "five"]);
    put(&source, "c", &["new"]);
    source.publish().unwrap();
    states.push(seen(source.view(), &["a", "b", "c"]));
    let [(first, first_seen), (second, second_seen)] = &states[..] else {
        panic!("two heads");
    };
    let disk = mirror_disk();
    let mut mirror = open_mirror(&disk);
    // All of one context is fetched under the later head, and no more comes.
    ingest(&mirror, Ingest::Seen(second_seen.clone())).unwrap();
    let (ahead, payloads) = span(source.view(), mirror.view(), &second_seen.openings[0]);
    let id_ahead = ahead.id().clone();
    let span_ahead = Ingest::Span {
        span: ahead,
        payloads,
    };
    ingest(&mirror, span_ahead).unwrap();
    ingest(&mirror, Ingest::Seen(first_seen.clone())).unwrap();
    for opening in &between {
        if opening.id != id_ahead.as_str() {
            let (span, payloads) = span(source.view(), mirror.view(), opening);
            ingest(&mirror, Ingest::Span { span, payloads }).unwrap();
        }
    }
    let orders = |mirror: &Store| -> Vec<_> {
        let seen = mirror.view().seen_heads().unwrap();
        seen.iter().map(|seen| seen.head.order()).collect()
    };
    assert_eq!(orders(&mirror), [second.order(), first.order()]);
    ingest(&mirror, Ingest::Complete(first.clone())).unwrap();
    let size = between.iter().find(|o| o.id == id_ahead.as_str());
    for remove_index in [false, true] {
        assert_eq!(orders(&mirror), [second.order()]);
        assert_eq!(mirror.view().head().as_ref(), Some(first));
        let shown = mirror.view().size(&id_ahead).unwrap();
        assert_eq!(shown, size.map(|opening| opening.size));
        mirror.close().unwrap();
        if remove_index {
            disk.remove("index.redb").unwrap();
        }
        mirror = open_mirror(&disk);
    }
    assert_eq!(orders(&mirror), [second.order()]);
    // The later one can go on.
    for opening in &second_seen.openings {
        let own = mirror.view().accumulator(&id(&opening.id)).unwrap().size();
        if own < opening.size {
            let (span, payloads) = span(source.view(), mirror.view(), opening);
            ingest(&mirror, Ingest::Span { span, payloads }).unwrap();
        }
    }
    ingest(&mirror, Ingest::Complete(second.clone())).unwrap();
    assert!(mirror.view().seen_heads().unwrap().is_empty());
    assert_eq!(
        super::payloads(mirror.view(), "a"),
        super::payloads(source.view(), "a")
    );
    mirror.close().unwrap();
    audit_clean(&disk);
}
