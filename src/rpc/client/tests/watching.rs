//! Watches over streams that break.

use super::*;

fn sent(sequences: &[u64]) -> Events {
    let entry = |sequence: &u64| Some(Ok(entry("k", *sequence)));
    sequences.iter().map(entry).collect()
}

fn then(mut events: Events, last: Option<Result<proto::Entry, Status>>) -> Events {
    events.push(last);
    events
}

async fn watched(script: Script) -> (Scripted, Watch) {
    let server = Scripted::with(script);
    let client = server.client().await;
    (server, client.watch(&context(), None, 0))
}

#[tokio::test]
async fn a_broken_watch_goes_on_behind_what_it_has() {
    let unavailable = || Status::unavailable("going");
    let (server, mut watch) = watched(Script {
        watches: [
            Ok(then(sent(&[1, 2]), Some(Err(unavailable())))),
            Err(unavailable()),
            Err(Status::resource_exhausted("too many watches")),
            Ok(sent(&[3])),
            Ok(sent(&[])),
            Ok(then(sent(&[4, 5]), None)),
        ]
        .into(),
        ..Script::default()
    })
    .await;
    for sequence in 1..=5 {
        assert_eq!(watch.next().await.unwrap().sequence, sequence);
        assert_eq!(watch.last_sequence(), sequence);
    }
    let from = |request: &WatchRequest| request.from_sequence;
    let asked: Vec<u64> = server.see(|script| script.watched.iter().map(from).collect());
    assert_eq!(asked, [0, 2, 2, 2, 3, 3]);
}

#[tokio::test]
async fn a_gap_and_a_repetition_are_errors() {
    for wrong in [&[1, 3][..], &[1, 1], &[2], &[1, 2, 1]] {
        let (_server, mut watch) = watched(Script {
            watches: [Ok(sent(wrong))].into(),
            ..Script::default()
        })
        .await;
        let error = loop {
            match watch.next().await {
                Ok(_) => (),
                Err(error) => break error,
            }
        };
        assert!(
            matches!(error, ClientError::OutOfOrder { .. }),
            "{wrong:?}: {error}"
        );
        assert!(error.is_verification_failure() && !error.is_retryable());
    }
}

#[tokio::test]
async fn with_a_key_entries_are_left_out_and_others_refused() {
    let server = Scripted::with(Script {
        watches: [
            Ok(then(sent(&[2, 5]), Some(Err(Status::unavailable(""))))),
            Ok(then(sent(&[9]), Some(Ok(entry("other", 10))))),
        ]
        .into(),
        ..Script::default()
    });
    let mut watch = server.client().await.watch(&context(), Some("k"), 1);
    for sequence in [2, 5, 9] {
        assert_eq!(watch.next().await.unwrap().sequence, sequence);
    }
    let error = watch.next().await.unwrap_err();
    assert!(matches!(
        error,
        ClientError::Unverified { sequence: 10, .. }
    ));
}

#[tokio::test]
async fn what_stays_as_it_is_ends_the_watch_at_once() {
    for code in [
        Code::InvalidArgument,
        Code::Unauthenticated,
        Code::PermissionDenied,
        Code::NotFound,
        Code::DataLoss,
        Code::FailedPrecondition,
        Code::Unimplemented,
        Code::OutOfRange,
    ] {
        let (server, mut watch) = watched(Script {
            watches: [Err(Status::new(code, "no")), Ok(sent(&[1]))].into(),
            ..Script::default()
        })
        .await;
        match watch.next().await.unwrap_err() {
            ClientError::Status { code: got, .. } => assert_eq!(got, code),
            other => panic!("{other}"),
        }
        assert_eq!(server.see(|script| script.watched.len()), 1);
        // Whoever asks all the same gets what follows.
        assert_eq!(watch.next().await.unwrap().sequence, 1);
    }
}

#[tokio::test]
async fn attempts_are_limited() {
    // The script has nothing: every watch is refused as unavailable.
    let (server, mut watch) = watched(Script::default()).await;
    let error = watch.next().await.unwrap_err();
    assert!(error.is_retryable(), "{error}");
    assert_eq!(server.see(|script| script.watched.len()), 5);
}

#[tokio::test]
async fn a_cancelled_call_loses_nothing() {
    let (_server, mut watch) = watched(Script {
        history: (1..=9).map(|at| entry("k", at)).collect(),
        ..Script::default()
    })
    .await;
    let mut seen = Vec::new();
    let mut patience = Duration::from_micros(100);
    while seen.len() < 9 {
        // Whatever it is doing, it is interrupted again and again.
        tokio::select! {
            biased;
            entry = watch.next() => seen.push(entry.unwrap().sequence),
            () = tokio::time::sleep(patience) => patience += Duration::from_micros(100),
        }
    }
    assert_eq!(seen, [1, 2, 3, 4, 5, 6, 7, 8, 9]);
}

#[tokio::test]
async fn a_broken_watch_goes_on_with_the_same_origin() {
    let unavailable = || Some(Err(Status::unavailable("going")));
    let (server, mut watch) = watched(Script {
        watches: [
            // Broken before anything was said.
            Ok(vec![unavailable()]),
            Ok(then(sent(&[1, 2]), unavailable())),
            Ok(then(sent(&[3]), unavailable())),
            Ok(sent(&[4])),
        ]
        .into(),
        watch_origin: "a".into(),
        ..Script::default()
    })
    .await;
    for sequence in 1..=3 {
        assert_eq!(watch.next().await.unwrap().sequence, sequence);
    }
    // The server is another one now, which has the context of another origin.
    server.see(|script| script.watch_origin = "b".into());
    let error = watch.next().await.unwrap_err();
    assert!(error.is_verification_failure(), "{error}");
    let asked = |request: &WatchRequest| request.origin.clone();
    let asked: Vec<String> = server.see(|script| script.watched.iter().map(asked).collect());
    assert_eq!(asked, ["", "", "a", "a"]);
}
