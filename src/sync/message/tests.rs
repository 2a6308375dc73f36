//! Golden bytes, truncations, hostile lengths.

use super::*;
use crate::hash;

fn id(text: &str) -> ContextId {
    ContextId::new(text).unwrap()
}

fn hash(n: u8) -> Hash {
    Hash::from_bytes([n; 32])
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::new(), |text, b| text + &format!("{b:02x}"))
}

fn requests() -> Vec<Request> {
    vec![
        Request::Head { newest: vec![] },
        Request::Head {
            newest: b"note".to_vec(),
        },
        Request::Nodes {
            hashes: vec![hash(1), hash(2)],
        },
        Request::Entries {
            context: id("ctx"),
            after_sequence: 3,
            size: 300,
        },
        Request::Payloads {
            hashes: vec![hash(9)],
        },
        Request::Consistency {
            context: id("ctx"),
            from: 1,
            to: 2,
        },
        Request::Inclusion {
            context: id("ctx"),
            sequence: 3,
            size: 300,
        },
        Request::Follow {
            newest: b"note".to_vec(),
        },
        Request::Complete {
            note: b"note".to_vec(),
        },
    ]
}

fn opened() -> OpenedNode {
    let opening = |name: &str| Opening {
        id: name.into(),
        size: 7,
        root: hash(5),
    };
    OpenedNode {
        node: vec![1; 100],
        openings: vec![opening("a"), opening("b")],
    }
}

fn replies() -> Vec<Reply<'static>> {
    let answers = vec![
        NodeAnswer {
            hash: hash(1),
            node: None,
        },
        NodeAnswer {
            hash: hash(2),
            node: Some(opened()),
        },
    ];
    vec![
        Reply::Head { notes: vec![] },
        Reply::Head {
            notes: vec![b"one".to_vec(), b"two".to_vec()],
        },
        Reply::Nodes { answers },
        Reply::EntriesBegin {
            context: id("ctx"),
            after_sequence: 3,
            size: 300,
        },
        Reply::Span(b"span"),
        Reply::Payload {
            hash: hash(3),
            bytes: Some(b"payload".to_vec()),
        },
        Reply::Payload {
            hash: hash(3),
            bytes: None,
        },
        Reply::Consistency {
            context: id("ctx"),
            from: 1,
            to: 2,
            from_root: hash(4),
            hashes: vec![hash(5)],
        },
        Reply::Inclusion {
            context: id("ctx"),
            sequence: 3,
            size: 300,
            header: vec![6; 3],
            payload: vec![7; 2],
            hashes: vec![hash(5)],
        },
        Reply::Refused(Refusal::NotServed),
        Reply::Refused(Refusal::Failed),
    ]
}

#[test]
fn golden_bytes() {
    let ones = "01".repeat(32);
    let twos = "02".repeat(32);
    let expected = [
        "010000000100".to_owned(),
        format!("0500000001{}{}", "04", hex(b"note")),
        format!("410000000202{ones}{twos}"),
        format!("0700000003{}{}{}{}", "03", hex(b"ctx"), "03", "ac02"),
        format!("210000000401{}", "09".repeat(32)),
        format!("0600000005{}{}{}{}", "03", hex(b"ctx"), "01", "02"),
        format!("0700000006{}{}{}{}", "03", hex(b"ctx"), "03", "ac02"),
        format!("0500000007{}{}", "04", hex(b"note")),
        format!("0500000008{}{}", "04", hex(b"note")),
    ];
    assert_eq!(requests().len(), expected.len());
    for (request, expected) in requests().iter().zip(expected) {
        assert_eq!(hex(&request.encode().unwrap()), expected);
    }
    let nodes = format!(
        "b0000000{}{}{ones}{}{twos}{}{}{}{}{}{}",
        "82",
        "02",
        "00",
        "01",
        "64",
        "01".repeat(100),
        "02",
        format_args!("01{}07{}", hex(b"a"), "05".repeat(32)),
        format_args!("01{}07{}", hex(b"b"), "05".repeat(32)),
    );
    let got = hex(&replies()[2].encode().unwrap());
    assert_eq!(got[8..], nodes[8..]);
    let expected = [
        (0, "010000008100".to_owned()),
        (
            1,
            format!("090000008102{}{}{}{}", "03", hex(b"one"), "03", hex(b"two")),
        ),
        (
            3,
            format!("0700000083{}{}{}{}", "03", hex(b"ctx"), "03", "ac02"),
        ),
        (4, format!("0400000084{}", hex(b"span"))),
        (
            5,
            format!(
                "2900000085{}{}{}{}",
                "03".repeat(32),
                "01",
                "07",
                hex(b"payload")
            ),
        ),
        (6, format!("2100000085{}{}", "03".repeat(32), "00")),
        (
            7,
            format!(
                "4700000086{}{}{}{}{}{}{}",
                "03",
                hex(b"ctx"),
                "01",
                "02",
                "04".repeat(32),
                "01",
                "05".repeat(32)
            ),
        ),
        (
            8,
            format!(
                "2f00000087{}{}{}{}{}{}{}",
                "03",
                hex(b"ctx"),
                "03",
                "ac02",
                "03060606",
                "020707",
                format_args!("01{}", "05".repeat(32))
            ),
        ),
        (9, "01000000ff01".to_owned()),
        (10, "01000000ff02".to_owned()),
    ];
    for (at, expected) in expected {
        assert_eq!(
            hex(&replies()[at].encode().unwrap()),
            expected,
            "reply {at}"
        );
    }
}

#[test]
fn what_is_encoded_decodes_and_nothing_shorter_or_longer_does() {
    for request in requests() {
        let frame = request.encode().unwrap();
        assert_eq!(Request::decode(&frame).unwrap(), request);
        assert!(Reply::decode(&frame).is_err());
        refuses_other_lengths(&frame, |f| Request::decode(f).is_err());
    }
    for reply in replies() {
        let frame = reply.encode().unwrap();
        assert_eq!(Reply::decode(&frame).unwrap(), reply);
        assert!(Request::decode(&frame).is_err());
        refuses_other_lengths(&frame, |f| Reply::decode(f).is_err());
    }
}

fn refuses_other_lengths(frame: &[u8], refused: impl Fn(&[u8]) -> bool) {
    for len in 0..frame.len() {
        assert!(refused(&frame[..len]));
        if len >= FRAME_HEADER_BYTES && frame[4] != Kind::Span as u8 {
            // The header adjusted to the truncation, too.
            let mut cut = frame[..len].to_vec();
            let body = u32::try_from(len - FRAME_HEADER_BYTES).unwrap();
            cut[..4].copy_from_slice(&body.to_le_bytes());
            assert!(refused(&cut));
        }
    }
    assert!(refused(&[frame, &[0]].concat()));
}

#[test]
fn every_kind_has_a_limit_that_stands_before_the_body() {
    for kind in Kind::ALL {
        assert_eq!(Kind::from_byte(kind as u8), Ok(kind));
        let header = |len: usize| {
            let mut bytes = [0; FRAME_HEADER_BYTES];
            bytes[..4].copy_from_slice(&u32::try_from(len).unwrap().to_le_bytes());
            bytes[4] = kind as u8;
            FrameHeader::decode(&bytes)
        };
        let max = kind.body_bytes_max();
        assert_eq!(header(max).unwrap().body_bytes, max);
        assert!(header(max + 1).is_err());
        assert!(header(u32::MAX as usize).is_err());
    }
    let known = (0..=255).filter(|b| Kind::from_byte(*b).is_ok()).count();
    assert_eq!(known, Kind::ALL.len());
}

#[test]
fn lists_that_promise_too_much_are_refused() {
    let body = |kind: Kind, body: &[u8]| {
        let mut frame = u32::try_from(body.len()).unwrap().to_le_bytes().to_vec();
        frame.push(kind as u8);
        frame.extend_from_slice(body);
        frame
    };
    let huge = [0xff, 0xff, 0xff, 0xff, 0x0f];
    for kind in [Kind::Head, Kind::Nodes] {
        assert!(Reply::decode(&body(kind, &huge)).is_err());
    }
    for kind in [
        Kind::NodesRequest,
        Kind::PayloadsRequest,
        Kind::HeadRequest,
        Kind::FollowRequest,
        Kind::CompleteRequest,
    ] {
        assert!(Request::decode(&body(kind, &huge)).is_err());
        // None at all is no question.
        assert_eq!(
            Request::decode(&body(kind, &[0])).is_err(),
            !matches!(kind, Kind::HeadRequest | Kind::FollowRequest)
        );
    }
    // 65 notes of one byte; 64 pass.
    let notes = |n: u8| [&[n][..], &[1, b'x'].repeat(usize::from(n))].concat();
    assert!(Reply::decode(&body(Kind::Head, &notes(64))).is_ok());
    assert!(Reply::decode(&body(Kind::Head, &notes(65))).is_err());
    // An overlong varint.
    assert!(Request::decode(&body(Kind::HeadRequest, &[0x80, 0x00])).is_err());
}

#[test]
fn requests_out_of_range_are_refused() {
    let refused = |request: Request| Request::decode(&request.encode().unwrap()).is_err();
    let entries = |after_sequence, size| Request::Entries {
        context: id("c"),
        after_sequence,
        size,
    };
    assert!(refused(entries(0, 0)));
    assert!(refused(entries(5, 5)));
    assert!(refused(entries(0, SEQUENCE_MAX + 1)));
    assert!(!refused(entries(4, 5)));
    let consistency = |from, to| Request::Consistency {
        context: id("c"),
        from,
        to,
    };
    assert!(refused(consistency(0, 1)));
    assert!(refused(consistency(2, 1)));
    assert!(!refused(consistency(1, 1)));
}

#[test]
fn an_answer_never_takes_more_than_its_bound() {
    let answer = NodeAnswer {
        hash: hash::content(b"n"),
        node: Some(opened()),
    };
    let bound = node_answer_bytes(&answer);
    let frame = Reply::Nodes {
        answers: vec![answer],
    }
    .encode()
    .unwrap();
    assert!(frame.len() <= FRAME_HEADER_BYTES + 1 + bound);
}
