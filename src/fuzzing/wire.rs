//! Frames of replication: one spelling each, and a source that takes any
//! request and answers with frames that a mirror can read.

use std::sync::{Arc, LazyLock};

use super::{Input, segment};
use crate::entry::leaf_hash;
use crate::store::{Store, View};
use crate::sync::message::{FRAME_BYTES_MAX, FRAME_HEADER_BYTES, FrameHeader, Reply, Request};
use crate::sync::{Telling, source};
use crate::tree::{LeafIndex, TreeSize, inclusion};

static SERVED: LazyLock<View> =
    LazyLock::new(|| Store::open_read_only(Arc::new(segment::written())).unwrap());

/// What a source proves, holds.
fn holds(request: &Request, reply: &Reply<'_>) {
    let Reply::Inclusion {
        context,
        sequence,
        size,
        header,
        hashes,
        ..
    } = reply
    else {
        return;
    };
    let asked = Request::Inclusion {
        context: context.clone(),
        sequence: *sequence,
        size: *size,
    };
    assert_eq!(*request, asked);
    let (index, leaf) = (LeafIndex::new(sequence - 1), leaf_hash(header));
    let root = inclusion::root(&leaf, index, TreeSize::new(*size), hashes).unwrap();
    assert_eq!(root, SERVED.root_at(context, *size).unwrap());
}

/// What decodes encodes to the same bytes; every request is answered with
/// whole frames, and the answer ends.
pub fn wire_message(data: &[u8]) {
    let mut input = Input::new(data);
    let mut bytes = if input.byte().is_multiple_of(2) {
        input.rest().to_vec()
    } else {
        // A frame whose length is right, since a fuzzer rarely gets it so.
        let kind = input.byte();
        let body = input.rest();
        let len = u32::try_from(body.len()).unwrap().to_le_bytes();
        [&len[..], &[kind], body].concat()
    };
    // Whatever it is, it ends nothing but the peer's connection.
    let _ = Telling::default().frame(&bytes);
    if let Ok(reply) = Reply::decode(&bytes) {
        assert_eq!(reply.encode().unwrap(), bytes);
    }
    if let Some(header) = bytes.first_chunk::<FRAME_HEADER_BYTES>() {
        let allowed = FrameHeader::decode(header).map(|h| h.body_bytes);
        assert!(allowed.is_ok() || Request::decode(&bytes).is_err());
    }
    let Ok(request) = Request::decode(&bytes) else {
        return;
    };
    assert_eq!(request.encode().unwrap(), bytes);
    let mut answer = source::answer(&bytes).unwrap();
    let told = answer.acknowledged_note().is_some();
    assert!(!told || answer.shown_note() == answer.acknowledged_note());
    let (mut frames, mut heads) = (0, 0);
    let mut telling = Telling::default();
    while let Some(frame) = answer.next_frame(&*SERVED).unwrap() {
        assert!(frame.len() <= FRAME_BYTES_MAX);
        let reply = Reply::decode(&frame).unwrap();
        holds(&request, &reply);
        assert_eq!(reply.encode().unwrap(), frame);
        if answer.follows() {
            heads += usize::from(telling.frame(&frame).unwrap().is_some());
        }
        frames += 1;
        assert!(frames < 1000, "an answer without end");
    }
    assert!(if told {
        frames == 0
    } else {
        frames > 0 || answer.follows()
    });
    // What is pushed comes before its head, and nothing without one.
    assert_eq!(heads > 0, frames > 0 && answer.follows());
    bytes.push(0);
    assert!(Request::decode(&bytes).is_err());
}
