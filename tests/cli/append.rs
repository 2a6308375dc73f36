//! `append`: exactly once, NDJSON batches, bad lines.

use std::fmt::Write as _;

use crate::support::Place;

fn store() -> Place {
    let place = Place::new();
    place.run("s", &["init"]).expect(0);
    place
}

fn good_lines(count: usize) -> String {
    let mut lines = String::new();
    for at in 0..count {
        writeln!(
            lines,
            "{{\"key\":\"k\",\"payload\":\"{at}\",\"metadata\":{{}}}}"
        )
        .unwrap();
    }
    lines
}

#[test]
fn a_retry_with_a_request_id_is_stored_once() {
    let place = store();
    let append = |payload| {
        let arguments = [
            "append",
            "--context",
            "c",
            "--key",
            "k",
            "--payload",
            payload,
            "--request-id",
            "r1",
        ];
        place.run("s", &arguments)
    };
    let first = append("p").expect(0);
    let again = append("p").expect(0);
    assert!(again.text().starts_with(first.text().trim_end()));
    assert!(again.text().contains("stored before"));
    append("q").refuses(2, "used before");
    assert_eq!(place.size("s", "c"), 1);
}

#[test]
fn every_kind_of_bad_line_is_numbered_and_stores_nothing() {
    let place = store();
    let long_key = format!("{{\"key\":\"{}\",\"payload\":\"\"}}", "k".repeat(513));
    let large = format!(
        "{{\"key\":\"k\",\"payload\":\"{}\"}}",
        "p".repeat((4 << 20) + 1)
    );
    let endless = "x".repeat((8 << 20) + 1);
    let cases: [(&[u8], &str); 21] = [
        (b"not json", "line 3: expected"),
        (b"{\"key\":\"k\",\"payload\":\"p\"", "line 3: EOF"),
        (b"{\"key\":\"k\",\"payload\":\"p\"} x", "line 3: trailing"),
        (b"[]", "line 3: "),
        (
            b"{\"key\":\"k\",\"payload\":\"p\",\"color\":1}",
            "unknown field `color`",
        ),
        (
            b"{\"key\":\"k\",\"key\":\"k\",\"payload\":\"p\"}",
            "duplicate field `key`",
        ),
        (b"{\"payload\":\"p\"}", "missing field `key`"),
        (b"{\"key\":\"k\"}", "exactly one of"),
        (
            b"{\"key\":\"k\",\"payload\":\"p\",\"payload_base64\":\"cA==\"}",
            "exactly one of",
        ),
        (
            b"{\"key\":\"k\",\"payload\":null}",
            "line 3: invalid type: null",
        ),
        (
            b"{\"key\":\"k\",\"payload_base64\":\"cA=\"}",
            "payload_base64",
        ),
        (
            b"{\"key\":\"k\",\"payload_base64\":\"cB==\"}",
            "payload_base64",
        ),
        (b"{\"key\":\"\",\"payload\":\"p\"}", "key in bytes is 0"),
        (
            b"{\"key\":\"k\",\"payload\":\"p\",\"metadata\":{\"a\":1}}",
            "line 3: invalid type",
        ),
        (
            b"{\"key\":\"k\",\"payload\":\"p\",\"metadata\":{\"a\":\"\",\"a\":\"\"}}",
            "appears twice",
        ),
        (
            b"{\"key\":\"k\",\"payload\":\"p\",\"context\":\"\"}",
            "context id in bytes is 0",
        ),
        (
            b"{\"key\":\"k\",\"payload\":\"p\",\"context\":\"a\\u0000\"}",
            "control characters",
        ),
        (b"{\"key\":\"\xff\",\"payload\":\"p\"}", "line 3: "),
        (long_key.as_bytes(), "key in bytes is 513"),
        (large.as_bytes(), "payload in bytes is 4194305"),
        (endless.as_bytes(), "line 3: longer than 8388608 bytes"),
    ];
    for (line, says) in cases {
        let input = [
            good_lines(2).as_bytes(),
            line,
            b"\n",
            good_lines(1).as_bytes(),
        ]
        .concat();
        let append = ["append", "--context", "c", "--ndjson", "-"];
        let ran = place.run_in("s", &append, &input).refuses(2, says);
        assert!(ran.stderr.contains("line 3: "), "{}", ran.stderr);
        assert!(ran.stderr.contains("Nothing was stored"), "{}", ran.stderr);
        assert_eq!(place.size("s", "c"), 0);
    }
    let no_context = place.run_in("s", &["append", "--ndjson", "-"], good_lines(1).as_bytes());
    no_context.refuses(2, "line 1: no \"context\"");
    let blank = format!("{}\n{}", good_lines(1), good_lines(1));
    let append = ["append", "--context", "c", "--ndjson", "-"];
    place
        .run_in("s", &append, blank.as_bytes())
        .refuses(2, "line 2: a blank line");
}

#[test]
fn batches_before_a_bad_line_stay() {
    let place = store();
    let input = format!("{}{{}}\n{}", good_lines(2345), good_lines(10));
    let append = ["append", "--context", "c", "--ndjson", "-"];
    let ran = place
        .run_in("s", &append, input.as_bytes())
        .refuses(2, "line 2346: ");
    assert!(
        ran.stderr.contains("Lines 1 to 2000 are stored"),
        "{}",
        ran.stderr
    );
    assert!(
        ran.stderr.contains("Line 2001 is the first that is not"),
        "{}",
        ran.stderr
    );
    assert_eq!(place.size("s", "c"), 2000);
    place.run("s", &["audit"]).expect(0);
    // The rest can follow.
    let rest: String = good_lines(2345)
        .lines()
        .skip(2000)
        .fold(String::new(), |all, line| all + line + "\n");
    place.run_in("s", &append, rest.as_bytes()).expect(0);
    assert_eq!(place.size("s", "c"), 2345);
}

#[test]
fn a_refused_batch_stores_none_of_its_lines() {
    let place = store();
    let line = |payload: &str| {
        format!("{{\"key\":\"k\",\"payload\":\"{payload}\",\"request_id\":\"r\"}}\n")
    };
    let append = ["append", "--context", "c", "--ndjson", "-", "--json"];
    let input = [good_lines(1000), line("a"), good_lines(5), line("b")].concat();
    let ran = place.run_in("s", &append, input.as_bytes());
    let ran = ran.refuses(2, "lines 1001 to 1007: request id");
    assert!(
        ran.stderr.contains("Lines 1 to 1000 are stored"),
        "{}",
        ran.stderr
    );
    assert_eq!(place.size("s", "c"), 1000);
    // The same content twice is one entry.
    let input = [line("a"), line("a")].concat();
    let ran = place
        .run_in("s", &append, input.as_bytes())
        .expect(0)
        .json();
    assert_eq!(
        (&ran["entries"], &ran["last_sequence"]),
        (&2.into(), &1001.into())
    );
    assert_eq!(place.size("s", "c"), 1001);
}

#[test]
fn a_line_may_name_its_own_context() {
    let place = store();
    let input = "{\"key\":\"k\",\"payload\":\"1\",\"context\":\"a\"}\n\
                 {\"key\":\"k\",\"payload\":\"2\"}\n\
                 {\"key\":\"k\",\"payload\":\"3\",\"context\":\"a\"}\n\n";
    let append = ["append", "--context", "b", "--ndjson", "-", "--json"];
    let ran = place
        .run_in("s", &append, input.as_bytes())
        .expect(0)
        .json();
    assert_eq!(
        (&ran["entries"], &ran["last_sequence"]),
        (&3.into(), &2.into())
    );
    assert_eq!((place.size("s", "a"), place.size("s", "b")), (2, 1));
    let empty = place.run_in("s", &append, b"").expect(0).json();
    assert_eq!(
        (&empty["entries"], &empty["last_sequence"]),
        (&0.into(), &0.into())
    );
}

#[test]
fn a_payload_comes_from_arguments_a_file_or_stdin() {
    let place = store();
    let file = place.path("payload");
    std::fs::write(&file, vec![b'x'; 100_000]).unwrap();
    let append = ["append", "--context", "c", "--key", "k"];
    place.run_in("s", &append, b"from stdin").expect(0);
    place
        .run("s", &[&append[..], &["--payload", ""]].concat())
        .expect(0);
    let path = file.to_str().unwrap();
    place
        .run("s", &[&append[..], &["--file", path]].concat())
        .expect(0);
    let got = place
        .run("s", &["get", "--context", "c", "--json"])
        .expect(0)
        .json_lines();
    assert_eq!(got[0]["payload"], "from stdin");
    assert_eq!(got[1]["payload"], "");
    assert_eq!(got[2]["payload"].as_str().unwrap().len(), 100_000);
    std::fs::write(&file, vec![b'x'; (4 << 20) + 1]).unwrap();
    place
        .run("s", &[&append[..], &["--file", path]].concat())
        .refuses(2, "payload in bytes");
    place
        .run("s", &[&append[..], &["--file", "/does/not/exist"]].concat())
        .refuses(3, "/does/not/exist");
    place
        .run(
            "s",
            &[&append[..], &["--meta", "novalue", "--payload", ""]].concat(),
        )
        .refuses(2, "--meta");
    assert_eq!(place.size("s", "c"), 3);
}
