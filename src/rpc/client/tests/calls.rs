//! The calls that have one answer.

use super::*;

#[tokio::test]
async fn an_append_is_repeated_only_if_that_is_safe() {
    let unavailable = || Err(Status::unavailable("later"));
    let script = || Script {
        appends: [unavailable(), unavailable(), Ok(())].into(),
        ..Script::default()
    };
    let server = Scripted::with(script());
    let client = server.client().await;
    let error = client.append(&context(), &draft("k")).await.unwrap_err();
    assert!(error.is_retryable() && error.is_undecided(), "{error}");
    assert_eq!(server.see(|script| script.append_requests.len()), 1);

    let server = Scripted::with(script());
    let client = server.client().await;
    let entry = client.append_with_retry(&context(), draft("k")).await;
    let made = entry.unwrap().request_id.unwrap();
    assert_eq!(made.len(), 32);
    let named = draft("k").with_request_id("mine").unwrap();
    let entry = client.append_with_retry(&context(), named).await.unwrap();
    assert_eq!(entry.request_id.as_deref(), Some("mine"));
    let ids: Vec<String> = server.see(|script| {
        let requests = script.append_requests.iter();
        requests.map(|request| request.request_id.clone()).collect()
    });
    assert_eq!(ids, [made.as_str(), &made, &made, "mine"]);

    let server = Scripted::with(Script {
        appends: (0..9).map(|_| unavailable()).collect(),
        ..Script::default()
    });
    let client = server.client().await;
    let outcome = client.append_with_retry(&context(), draft("k")).await;
    assert!(outcome.is_err());
    assert_eq!(server.see(|script| script.append_requests.len()), 5);

    let server = Scripted::with(Script {
        appends: [Err(Status::already_exists("used before"))].into(),
        ..Script::default()
    });
    let client = server.client().await;
    let error = client.append_with_retry(&context(), draft("k")).await;
    let error = error.unwrap_err();
    assert_eq!(error.to_string(), "ALREADY_EXISTS: used before");
    assert!(!error.is_retryable() && !error.is_undecided());
    assert_eq!(server.see(|script| script.append_requests.len()), 1);
}

#[tokio::test]
async fn a_server_that_says_nothing_is_not_waited_for() {
    let server = Scripted::with(Script {
        silent: true,
        ..Script::default()
    });
    let mut options = quick(server.start().await);
    options.request_timeout = Duration::from_millis(20);
    let client = Client::connect(options).await.unwrap();
    let error = client.append(&context(), &draft("k")).await.unwrap_err();
    assert!(matches!(error, ClientError::Timeout { .. }), "{error}");
    assert!(error.is_undecided() && error.is_retryable());
}

#[tokio::test]
async fn nobody_there_is_told_from_somebody_who_went_away() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let error = Client::connect(quick(address)).await.unwrap_err();
    assert!(matches!(error, ClientError::Connect { .. }), "{error}");
    assert!(error.to_string().contains("refused"), "{error}");
    assert!(error.is_retryable() && !error.is_undecided());

    // Takes what it is sent, and goes.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut first = true;
        while let Ok((stream, _)) = listener.accept().await {
            if first {
                stream.readable().await.unwrap();
            }
            first = false;
        }
    });
    let error = match Client::connect(quick(address)).await {
        Ok(client) => client.append(&context(), &draft("k")).await.unwrap_err(),
        Err(error) => error,
    };
    assert!(error.is_retryable(), "{error:?}");
}

#[tokio::test]
async fn the_token_is_on_every_call() {
    let server = Scripted::default();
    let options = quick(server.start().await).with_token("hush");
    let client = Client::connect(options).await.unwrap();
    for _ in 0..2 {
        client.append(&context(), &draft("k")).await.unwrap();
    }
    let seen = server.see(|script| script.authorizations.clone());
    assert_eq!(seen, ["Bearer hush", "Bearer hush"]);
}

#[tokio::test]
async fn a_message_has_a_limit_and_an_archive_is_verified() {
    let server = Scripted::with(Script {
        snapshot_bytes: 5 << 20,
        ..Script::default()
    });
    let address = server.start().await;
    // It gets here, and is no archive.
    let client = Client::connect(quick(address)).await.unwrap();
    let error = client.snapshot(&context()).await.unwrap_err();
    assert!(error.is_verification_failure(), "{error}");
    let mut options = quick(address);
    options.message_bytes_max = 4 << 20;
    let client = Client::connect(options).await.unwrap();
    let error = client.snapshot(&context()).await.unwrap_err();
    assert!(
        matches!(
            error,
            ClientError::Status {
                code: Code::OutOfRange,
                ..
            }
        ),
        "{error:?}"
    );
    let error = client.load(&context(), Bytes::new(), false).await;
    assert_eq!(
        error.unwrap_err().to_string(),
        "INVALID_ARGUMENT: not a snapshot"
    );
}

fn page(sequences: &[u64], latest: u64, next: u64) -> GetResponse {
    GetResponse {
        entries: sequences.iter().map(|at| entry("k", *at)).collect(),
        latest_sequence: latest,
        next_after_sequence: next,
        ..GetResponse::default()
    }
}

#[tokio::test]
async fn pages_follow_one_another() {
    let server = Scripted::with(Script {
        pages: [
            Ok(page(&[1, 2], 3, 2)),
            Err(Status::unavailable("later")),
            Ok(page(&[3], 3, 0)),
        ]
        .into(),
        ..Script::default()
    });
    let client = server.client().await;
    let mut pages = client.pages(&context(), PageQuery::default());
    let mut seen = Vec::new();
    let mut failures = 0;
    loop {
        match pages.next().await {
            Ok(Some(page)) => seen.extend(page.entries.into_iter().map(|entry| entry.sequence)),
            Ok(None) => break,
            Err(_) => failures += 1,
        }
    }
    assert_eq!((seen.as_slice(), failures), (&[1, 2, 3][..], 1));
    let after = |request: &GetRequest| request.after_sequence;
    let asked: Vec<u64> = server.see(|script| script.gets.iter().map(after).collect());
    assert_eq!(asked, [0, 2, 2]);
}

#[tokio::test]
async fn a_page_that_leads_astray_is_refused() {
    let with_key = PageQuery {
        key: "k".into(),
        after: 4,
        limit: 2,
    };
    let without = PageQuery {
        key: String::new(),
        ..with_key.clone()
    };
    for (query, wrong) in [
        (&with_key, page(&[4], 9, 0)),
        (&with_key, page(&[6, 5], 9, 0)),
        (&with_key, page(&[5, 6, 7], 9, 0)),
        (&with_key, page(&[5], 9, 4)),
        (&with_key, page(&[], 9, 4)),
        (&with_key, page(&[5, 8], 9, 7)),
        (&with_key, page(&[5, 8], 7, 0)),
        (&without, page(&[6], 9, 0)),
        (&without, page(&[5, 7], 9, 0)),
        (&without, page(&[5], 9, 6)),
    ] {
        let server = Scripted::with(Script {
            pages: [Ok(wrong.clone())].into(),
            ..Script::default()
        });
        let client = server.client().await;
        let error = client.get(&context(), query).await.unwrap_err();
        assert!(error.is_verification_failure(), "{wrong:?}: {error}");
    }
    let server = Scripted::with(Script {
        pages: [Ok(page(&[5, 9], 9, 0)), Ok(page(&[], 9, 7))].into(),
        ..Script::default()
    });
    let client = server.client().await;
    assert_eq!(
        client
            .get(&context(), &with_key)
            .await
            .unwrap()
            .entries
            .len(),
        2
    );
    let empty = client.get(&context(), &with_key).await.unwrap();
    assert_eq!(empty.next_after, Some(7));
}

fn of(origin: &str, page: GetResponse) -> GetResponse {
    GetResponse {
        origin: origin.into(),
        ..page
    }
}

fn origin(name: &str) -> OriginName {
    OriginName::new(name).unwrap()
}

#[tokio::test]
async fn pages_stay_with_the_origin_of_the_first() {
    let server = Scripted::with(Script {
        pages: [
            Ok(of("a", page(&[1], 3, 1))),
            Ok(of("a", page(&[2], 3, 2))),
            Ok(of("b", page(&[3], 3, 0))),
        ]
        .into(),
        ..Script::default()
    });
    let client = server.client().await;
    let mut pages = client.pages(&context(), PageQuery::default());
    assert_eq!(
        pages.next().await.unwrap().unwrap().origin,
        Some(origin("a"))
    );
    pages.next().await.unwrap().unwrap();
    // Another history under the same name is not gone on with.
    let error = pages.next().await.unwrap_err();
    assert!(error.is_verification_failure(), "{error}");
    let asked = |request: &GetRequest| request.origin.clone();
    let asked: Vec<String> = server.see(|script| script.gets.iter().map(asked).collect());
    assert_eq!(asked, ["", "a", "a"]);
}

#[tokio::test]
async fn an_answer_of_another_origin_or_of_none_is_refused() {
    for wrong in ["b", "", "not a name"] {
        let server = Scripted::with(Script {
            pages: [Ok(of(wrong, page(&[1], 1, 0)))].into(),
            ..Script::default()
        });
        let client = server.client().await.with_origin(origin("a"));
        let error = client.get(&context(), &PageQuery::default()).await;
        let error = error.unwrap_err();
        assert!(error.is_verification_failure(), "{wrong}: {error}");
        // Neither does the script say whose archive it is.
        let error = client.snapshot(&context()).await.unwrap_err();
        assert!(error.to_string().contains("whose context"), "{error}");
    }
    // A server that does not know the field is as good as ever, if not asked.
    let server = Scripted::with(Script {
        pages: [Ok(page(&[1], 1, 0))].into(),
        ..Script::default()
    });
    let client = server.client().await;
    let page = client.get(&context(), &PageQuery::default()).await.unwrap();
    assert_eq!(page.origin, None);
}

fn listing(names: &[&str], next_after: &str) -> inspect::ContextsResponse {
    let context = |name: &&str| inspect::Context {
        id: (*name).to_owned(),
        size: 1,
        root: vec![1; 32].into(),
    };
    inspect::ContextsResponse {
        contexts: names.iter().map(context).collect(),
        next_after: next_after.into(),
        origin: "a".into(),
        origins: vec!["a".into(), "b".into()],
    }
}

#[test]
fn a_listing_is_of_the_origin_that_was_asked_for() {
    let check = |asked: Option<&str>, reply| {
        let asked = asked.map(origin);
        Contexts::checked(None, asked.as_ref(), reply)
    };
    let good = check(None, listing(&["c", "d"], "d")).unwrap();
    assert_eq!(good.origin, Some(origin("a")));
    assert_eq!(good.origins, [origin("a"), origin("b")]);
    check(Some("a"), listing(&["c"], "")).unwrap();
    check(Some("b"), listing(&["c"], "")).unwrap_err();
    let mut wrong = listing(&["c"], "");
    wrong.origins.push("not a name".into());
    check(None, wrong).unwrap_err();
}
