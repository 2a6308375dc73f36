//! What the log of a call says, and what it never says. A process of its own:
//! there is one log in a process.

// Test code outside of #[test] functions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "grpc/support.rs"]
#[allow(dead_code)] // shared with the tests of the API
mod support;

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use converge_ledger::rpc::Tokens;
use converge_ledger::rpc::proto::context::AppendRequest;
use tonic::{Code, Request};

use support::{Setup, request, within};

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn calls_are_logged_without_what_is_in_them() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    tracing::subscriber::set_global_default(subscriber).unwrap();
    let token = "the-token-of-this-test";
    let node = Setup {
        tokens: Some(Tokens::parse(format!("write {token}").as_bytes()).unwrap()),
        ..Setup::default()
    }
    .start();
    let mut client = node.client().await;
    let request = AppendRequest {
        metadata: [("agent".into(), "the-metadata".into())].into(),
        ..request("the-context", "k", b"the-payload")
    };
    let mut allowed = Request::new(request.clone());
    let value = format!("Bearer {token}").parse().unwrap();
    allowed.metadata_mut().insert("authorization", value);
    within(client.append(allowed)).await.unwrap();
    let refused = within(client.append(request)).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    drop(client);
    node.stop().await;
    let text = log.0.lock().unwrap().clone();
    let text = String::from_utf8(text).unwrap();
    let of = |code: &str| {
        let mut lines = text.lines();
        let found = lines.find(|line| line.contains("answered") && line.contains(code));
        found
            .unwrap_or_else(|| panic!("{code} in {text}"))
            .to_owned()
    };
    let done = of("code=Ok");
    assert!(
        done.contains("method=\"Append\" context=\"the-context\""),
        "{done}"
    );
    assert!(
        done.contains("request_bytes=") && done.contains("ms="),
        "{done}"
    );
    of("code=Unauthenticated");
    // The libraries below are asked too.
    for secret in ["the-payload", "the-metadata", token] {
        let told = text.lines().find(|line| line.contains(secret));
        assert_eq!(told, None, "{secret}");
    }
}
