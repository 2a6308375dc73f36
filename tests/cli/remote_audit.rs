//! `audit --from`: a source checked from outside.

use crate::support::Place;

#[test]
fn a_source_is_checked_and_nothing_kept() {
    let place = Place::new();
    place.with_sample("s");
    let (origin, node) = place.keys("s");
    // An auditor has a node key and nothing else.
    let from = |address: &str, more: &[&str]| {
        let audit = [
            "audit", "--from", address, "--peer", &node, "--origin", &origin,
        ];
        place.run("auditor", &[&audit[..], more].concat())
    };
    let refused = from("127.0.0.1:9", &[]).expect(3);
    let key = refused.stderr.rsplit(' ').next().unwrap().trim().to_owned();
    let server = place.serve("s", &[&key]);
    let all = from(&server.address, &["--json"]).expect(0).json();
    assert_eq!(all["entries"], 2000);
    assert_eq!(all["ok"], true);
    let sample = ["--sample", "50", "--seed", "7", "--json"];
    let some = from(&server.address, &sample).expect(0).json();
    assert!(some["entries"].as_u64().unwrap() <= 50 && some["entries"].as_u64().unwrap() > 30);
    assert!(some["received_bytes"].as_u64() < all["received_bytes"].as_u64());
    // The same seed picks the same entries.
    let again = from(&server.address, &sample).expect(0).json();
    assert_eq!(again["payload_bytes"], some["payload_bytes"]);
    let text = from(&server.address, &["--sample", "5"]).expect(0);
    assert!(
        text.text().contains("audit passed; nothing was stored"),
        "{text:?}"
    );
    let files: Vec<_> = std::fs::read_dir(place.path("auditor")).unwrap().collect();
    assert_eq!(files.len(), 1, "{files:?}");
    // Another origin's key.
    place
        .run("other", &["init", "--name", "test.example"])
        .expect(0);
    let (other, _) = place.keys("other");
    let audit = [
        "audit",
        "--from",
        &server.address,
        "--peer",
        &node,
        "--origin",
        &other,
    ];
    place.run("auditor", &audit).refuses(1, "not signed by");
}
