//! Appending and reading, without anything going wrong.

use proptest::prelude::*;

use super::*;
use crate::hash;
use crate::limits::PAYLOAD_INLINE_BYTES_MAX;
use crate::tree::second_opinion::root_by_rs_merkle;

#[test]
fn entries_come_back_as_they_went_in_across_reopening() {
    let disk = new_disk();
    let store = open(&disk);
    put(&store, "a", &["one", "two"]);
    put(&store, "b", &["drei"]);
    put(&store, "a", &["three"]);
    assert_eq!(payloads(store.view(), "a"), ["one", "two", "three"]);
    store.close().unwrap();

    let store = open(&disk);
    assert_eq!(payloads(store.view(), "a"), ["one", "two", "three"]);
    assert_eq!(payloads(store.view(), "b"), ["drei"]);
    let read = entries(store.view(), "a");
    assert_eq!(
        read.iter().map(|e| e.sequence).collect::<Vec<_>>(),
        [1, 2, 3]
    );
    assert_eq!(
        read.iter().map(|e| e.lamport).collect::<Vec<_>>(),
        [1, 2, 3]
    );
    let leaves: Vec<_> = read.iter().map(|e| e.id).collect();
    let info = store.view().context(&id("a")).unwrap().unwrap();
    assert_eq!(info.root, root_by_rs_merkle(&leaves));
    store.close().unwrap();
    assert_eq!(audit_clean(&disk).entries, 4);
}

#[test]
fn a_clean_close_leaves_nothing_to_mend_and_opening_writes_nothing() {
    let disk = new_disk();
    let store = open(&disk);
    put(&store, "a", &["one"]);
    store.close().unwrap();
    let before = disk.bytes("log/0000000001.seg").unwrap();
    let opened = try_open(&disk, options(SEGMENT_BYTES_DEFAULT)).unwrap();
    assert_eq!((opened.torn_bytes, opened.rewritten_bytes), (0, 0));
    opened.store.close().unwrap();
    assert_eq!(disk.bytes("log/0000000001.seg").unwrap(), before);
}

#[test]
fn heads_ascend_and_cover_everything() {
    let disk = new_disk();
    let store = open(&disk);
    put(&store, "a", &["one", "two"]);
    let first = store.publish().unwrap();
    assert_eq!((first.head().term, first.head().epoch), (1, 1));
    assert_eq!((first.head().contexts, first.head().entries), (1, 2));
    put(&store, "b", &["x"]);
    store.close().unwrap();
    let store = open(&disk);
    let second = store.view().head().unwrap();
    assert_eq!((second.head().epoch, second.head().contexts), (2, 2));
    assert_eq!(second.head().entries, 3);
    assert_ne!(second.head().directory_root, first.head().directory_root);
    // Nothing changed: closing signs nothing.
    store.close().unwrap();
    assert_eq!(open(&disk).view().head().unwrap().head().epoch, 2);
}

#[test]
fn an_empty_store_signs_an_empty_head() {
    let disk = new_disk();
    open(&disk).close().unwrap();
    let head = open(&disk).view().head().unwrap();
    assert_eq!((head.head().contexts, head.head().entries), (0, 0));
    assert_eq!(head.head().directory_root, crate::directory::empty_root());
}

#[test]
fn times_never_fall_and_lamport_follows_what_was_seen() {
    let disk = new_disk();
    let clock = ManualClock::at(5_000);
    let options = StoreOptions {
        clock: clock.clone(),
        ..options(SEGMENT_BYTES_DEFAULT)
    };
    let store = try_open(&disk, options).unwrap().store;
    put(&store, "a", &["one"]);
    clock.set(10);
    let second = store
        .append(vec![(id("a"), draft("two").with_observed_lamport(41))])
        .unwrap();
    assert_eq!((second[0].appended_at_ns, second[0].lamport), (5_000, 42));
    let far = draft("three").with_observed_lamport(u64::MAX);
    assert!(matches!(
        store.append(vec![(id("a"), far)]),
        Err(AppendError::Lamport(_))
    ));
    assert_eq!(store.view().size(&id("a")).unwrap(), Some(2));
}

#[test]
fn a_request_id_is_stored_once() {
    let disk = new_disk();
    let store = open(&disk);
    let with = |p: &str, r: &str| (id("a"), draft(p).with_request_id(r).unwrap());
    let first = store.append(vec![with("one", "r1")]).unwrap();
    // In another group, in the same request, in the same group, after reopening.
    let again = store.append(vec![
        with("one", "r1"),
        with("two", "r2"),
        with("two", "r2"),
    ]);
    let again = again.unwrap();
    assert_eq!(
        again[0],
        Appended {
            stored_before: true,
            ..first[0].clone()
        }
    );
    assert_eq!((again[1].sequence, again[2].sequence), (2, 2));
    assert!(again[2].stored_before && !again[1].stored_before);
    for bad in [with("other", "r1"), with("two", "r1")] {
        let refused = store.append(vec![(id("new"), draft("x")), bad]);
        assert!(matches!(refused, Err(AppendError::RequestIdReused { .. })));
    }
    let clash = store.append(vec![with("x", "r9"), with("y", "r9")]);
    assert!(matches!(clash, Err(AppendError::RequestIdReused { .. })));
    // The scope is the context.
    let (_, elsewhere) = with("one", "r1");
    assert!(!store.append(vec![(id("b"), elsewhere)]).unwrap()[0].stored_before);
    store.close().unwrap();
    let store = open(&disk);
    assert!(store.append(vec![with("one", "r1")]).unwrap()[0].stored_before);
    assert_eq!(store.view().size(&id("a")).unwrap(), Some(2));
    assert_eq!(store.view().size(&id("new")).unwrap(), None);
}

#[test]
fn a_refused_request_leaves_no_trace_in_its_group() {
    let disk = new_disk();
    let store = open(&disk);
    let (tx, rx) = std::sync::mpsc::channel();
    // Several requests that are likely to share a group.
    for i in 0..20u64 {
        let far = if i % 3 == 1 { u64::MAX } else { 0 };
        let drafts = vec![
            (id(&format!("c{i}")), draft("x")),
            (id("shared"), draft("y").with_observed_lamport(far)),
        ];
        let tx = tx.clone();
        store.submit(
            drafts,
            true,
            Box::new(move |r| tx.send((i, r.is_ok())).unwrap()),
        );
    }
    for _ in 0..20 {
        let (i, ok) = rx.recv().unwrap();
        assert_eq!(ok, i % 3 != 1);
        assert_eq!(
            store.view().size(&id(&format!("c{i}"))).unwrap().is_some(),
            ok
        );
    }
    store.close().unwrap();
    let report = audit_clean(&disk);
    assert_eq!((report.contexts, report.entries), (14, 26));
}

#[test]
fn large_payloads_are_stored_once_and_verified() {
    let disk = new_disk();
    let store = open(&disk);
    let big = "x".repeat(PAYLOAD_INLINE_BYTES_MAX + 1);
    let edge = "y".repeat(PAYLOAD_INLINE_BYTES_MAX);
    put(&store, "a", &[&big, &edge, &big]);
    let used = disk.used_bytes();
    put(&store, "b", &[&big]);
    assert!(disk.used_bytes() - used < 1024);
    store.close().unwrap();
    let store = open(&disk);
    put(&store, "b", &[&big]);
    assert_eq!(
        payloads(store.view(), "a"),
        [big.clone(), edge, big.clone()]
    );
    assert_eq!(payloads(store.view(), "b"), [big.clone(), big.clone()]);
    let entry = store.view().entry(&id("a"), 1).unwrap().unwrap();
    assert_eq!(hash::content(&entry.payload), hash::content(big.as_bytes()));
    store.close().unwrap();
    audit_clean(&disk);
}

#[test]
fn pages_and_filters_see_every_entry_once() {
    let disk = new_disk();
    let store = open(&disk);
    let drafts: Vec<_> = (0..700)
        .map(|i| {
            (
                id("a"),
                Draft::new(format!("k{}", i % 3), i.to_string()).unwrap(),
            )
        })
        .collect();
    store.append(drafts).unwrap();
    let view = store.view();
    for limit in [1, 7, 256, 699, 700, 701, 0] {
        let (mut after, mut seen) = (0, Vec::new());
        loop {
            let page = view
                .page(&id("a"), after, &PageLimits::entries(limit), Some("k1"))
                .unwrap();
            seen.extend(page.entries.iter().map(|e| e.sequence));
            assert_eq!(page.size, 700);
            match page.next_after {
                0 => break,
                next => after = next,
            }
        }
        assert_eq!(
            seen,
            (1..=700).filter(|s| s % 3 == 2).collect::<Vec<_>>(),
            "limit {limit}"
        );
    }
    assert!(
        view.page(&id("a"), u64::MAX, &PageLimits::entries(5), None)
            .unwrap()
            .entries
            .is_empty()
    );
    assert!(
        view.page(&id("nobody"), 0, &PageLimits::entries(5), None)
            .unwrap()
            .entries
            .is_empty()
    );
    assert!(view.entry(&id("a"), 0).unwrap().is_none());
    assert!(view.entry(&id("a"), 701).unwrap().is_none());
}

#[test]
fn old_roots_can_be_read_at_every_size() {
    let disk = new_disk();
    let store = open(&disk);
    let mut roots = Vec::new();
    for i in 0..300 {
        put(&store, "a", &[&i.to_string()]);
        roots.push(store.view().context(&id("a")).unwrap().unwrap().root);
    }
    for (i, root) in roots.iter().enumerate() {
        assert_eq!(store.view().root_at(&id("a"), i as u64 + 1).unwrap(), *root);
    }
    assert!(store.view().root_at(&id("a"), 301).is_err());
}

#[test]
fn oversized_requests_are_refused_before_they_are_queued() {
    let disk = new_disk();
    let store = open(&disk);
    let many: Vec<_> = (0..20_000).map(|_| (id("a"), draft(""))).collect();
    assert!(matches!(
        store.append(many),
        Err(AppendError::TooLarge {
            entries: 20_000,
            ..
        })
    ));
    let heavy: Vec<_> = (0..5)
        .map(|_| (id("a"), Draft::new("k", vec![1; 4 << 20]).unwrap()))
        .collect();
    assert!(matches!(
        store.append(heavy),
        Err(AppendError::TooLarge { .. })
    ));
    assert_eq!(store.view().totals(), (0, 0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Whatever is appended in whatever batches over whatever segment size, a
    /// reopened store holds the same entries and the same roots.
    #[test]
    fn reopening_changes_nothing(
        batches in prop::collection::vec(
            prop::collection::vec((0u8..4, 0usize..6000), 1..20), 1..12),
        segment_kib in 4u64..40,
    ) {
        let disk = new_disk();
        let store = try_open(&disk, options(segment_kib << 10)).unwrap().store;
        for batch in &batches {
            let drafts = batch
                .iter()
                .map(|(c, n)| (id(&format!("c{c}")), draft(&"z".repeat(*n))))
                .collect();
            store.append(drafts).unwrap();
        }
        let before = store.view().contexts(None, 100).unwrap();
        store.close().unwrap();
        let store = try_open(&disk, options(segment_kib << 10)).unwrap().store;
        prop_assert_eq!(store.view().contexts(None, 100).unwrap(), before.clone());
        for info in before {
            let leaves: Vec<_> =
                entries(store.view(), info.id.as_str()).iter().map(|e| e.id).collect();
            prop_assert_eq!(root_by_rs_merkle(&leaves), info.root);
        }
        store.close().unwrap();
        audit_clean(&disk);
    }
}

#[test]
fn every_answer_names_the_entry_that_is_read_back() {
    let disk = new_disk();
    let store = open(&disk);
    // Small groups are hashed after their sync, large ones while they are synced.
    for (round, count) in [1u64, 7, 700, 3, 2500].into_iter().enumerate() {
        let drafts: Vec<_> = (0..count)
            .map(|i| {
                let draft = draft(&format!("{round} {i} {}", "p".repeat(60)));
                // Every tenth repeats the request before it.
                let request = format!("{round}-{}", i / 10 * 10 + (i % 10).min(8));
                let draft = if i % 10 == 9 {
                    super::draft(&format!("{round} {} {}", i - 1, "p".repeat(60)))
                } else {
                    draft
                };
                let context = id(&format!("c{}", i / 10 % 3));
                (context, draft.with_request_id(request).unwrap())
            })
            .collect();
        let asked = drafts.clone();
        let answers = store.append(drafts).unwrap();
        for ((context, draft), answer) in asked.iter().zip(&answers) {
            let entry = store
                .view()
                .entry(context, answer.sequence)
                .unwrap()
                .unwrap();
            assert_eq!(
                (entry.id, entry.lamport, entry.appended_at_ns),
                (answer.id, answer.lamport, answer.appended_at_ns)
            );
            assert_eq!(entry.payload, draft.payload());
        }
        assert_eq!(store.append(asked).unwrap()[0].id, answers[0].id);
    }
    store.close().unwrap();
    audit_clean(&disk);
}
