//! Layer 0. The table of limits (`spec/00-terms.md`): every bound that is part
//! of a format, in one place, tied together by the assertions at the end.

/// Bytes in a context id.
pub const CONTEXT_ID_BYTES_MAX: usize = 1024;
/// Bytes in an entry's key.
pub const KEY_BYTES_MAX: usize = 512;
/// Bytes in a request id.
pub const REQUEST_ID_BYTES_MAX: usize = 256;
/// Bytes in a payload: 4 MiB.
pub const PAYLOAD_BYTES_MAX: usize = 4 << 20;
/// Payloads up to this many bytes lie inside a run; larger ones are records of
/// their own, stored once per store.
pub const PAYLOAD_INLINE_BYTES_MAX: usize = 4096;
/// Metadata pairs in an entry.
pub const METADATA_PAIRS_MAX: usize = 256;
/// Bytes in a metadata key.
pub const METADATA_KEY_BYTES_MAX: usize = 256;
/// Bytes of all metadata keys and values of an entry.
pub const METADATA_BYTES_MAX: usize = 64 << 10;
/// Lamport times are below this: 2^62.
pub const LAMPORT_LIMIT: u64 = 1 << 62;
/// How far an observed Lamport time may be ahead of the context's own: 2^40.
pub const LAMPORT_LEAP_MAX: u64 = 1 << 40;
/// Entries in a context: sequences are 1..=2^62 - 1, far above any real use
/// and low enough that no sum of sizes in a directory can overflow early.
pub const SEQUENCE_MAX: u64 = (1 << 62) - 1;

/// Fixed part of an entry header.
pub const HEADER_FIXED_BYTES: usize = 72;
/// The metadata part: two lengths per pair, keys and values.
pub const METADATA_PART_BYTES_MAX: usize = METADATA_PAIRS_MAX * 4 + METADATA_BYTES_MAX;
/// The largest entry header.
pub const HEADER_BYTES_MAX: usize =
    HEADER_FIXED_BYTES + KEY_BYTES_MAX + REQUEST_ID_BYTES_MAX + METADATA_PART_BYTES_MAX;

/// Entries in a run; a run never crosses a multiple of this.
pub const RUN_ENTRIES_MAX: usize = 256;
/// Fixed part of a run.
pub const RUN_FIXED_BYTES: usize = 24;
/// Bytes in a run of two or more entries: 1 MiB.
pub const RUN_BYTES_MAX: usize = 1 << 20;
/// Bytes in a run of one entry, whatever the entry.
pub const RUN_SINGLE_BYTES_MAX: usize =
    RUN_FIXED_BYTES + 4 + HEADER_BYTES_MAX + PAYLOAD_INLINE_BYTES_MAX;

/// Hashes in an inclusion or consistency proof, or to the right of a span.
pub const PROOF_HASHES_MAX: usize = 63;

/// Bytes in an origin name.
pub const ORIGIN_NAME_BYTES_MAX: usize = 255;
/// Bytes in a note's text.
pub const NOTE_TEXT_BYTES_MAX: usize = 4 << 10;
/// Bytes in a note, signatures included.
pub const NOTE_BYTES_MAX: usize = 8 << 10;
/// Signature lines in a note.
pub const NOTE_SIGNATURES_MAX: usize = 8;

/// Rotations of an origin's key, over its whole life: they travel together
/// with a head.
pub const ROTATIONS_MAX: usize = 63;
/// Takeovers between two heads that are compared.
pub const TAKEOVERS_MAX: usize = 63;
/// Bytes of a proof about one context, or of an entry with its payload: 16 MiB.
pub const PROOF_BYTES_MAX: usize = 16 << 20;
/// Bytes of a proof about a whole store: 256 MiB.
pub const STORE_PROOF_BYTES_MAX: usize = 256 << 20;
/// Bytes of the smallest node that such a proof needs: one slot, a child.
pub const STORE_PROOF_NODE_BYTES_MIN: usize = DIRECTORY_NODE_FIXED_BYTES + DIRECTORY_CHILD_BYTES;
/// Nodes of either directory: no more fit, each in base64 on a line. The memory
/// for a list is a small multiple of the file, since no line is shorter.
pub const STORE_PROOF_NODES_MAX: usize =
    STORE_PROOF_BYTES_MAX / (STORE_PROOF_NODE_BYTES_MIN.div_ceil(3) * 4 + 1);
/// The lines of the shortest context in such a proof: a name of one byte, two
/// sizes of one digit with their roots, no hashes.
pub const STORE_PROOF_CONTEXT_BYTES_MIN: usize = 10 + 52 + 50 + 14;
/// Contexts in such a proof: no more fit.
pub const STORE_PROOF_CONTEXTS_MAX: usize = STORE_PROOF_BYTES_MAX / STORE_PROOF_CONTEXT_BYTES_MIN;
/// Bytes of an evidence file: 2 MiB.
pub const EVIDENCE_BYTES_MAX: usize = 2 << 20;
/// Evidence in the log of a mirror.
pub const EVIDENCE_RECORDS_MAX: usize = 16;
/// Seen heads that a mirror holds until one above them is complete; of more, the
/// oldest are forgotten.
pub const SEEN_HEADS_MAX: usize = 4;
/// Records of those that others have followed: 64 MiB of openings.
pub const SEEN_RECORDS_MAX: usize = 64;
/// Records of a log that make up whom a store believes: rotations, evidence,
/// and what an operator said to it.
pub const TRUST_RECORDS_MAX: usize = ROTATIONS_MAX + 2 * EVIDENCE_RECORDS_MAX;
/// Notes that a frozen store keeps, to tell whether they still count.
pub const FROZEN_NOTES_MAX: usize = NOTES_PER_REPLY_MAX;
/// Heads that the index keeps whatever their time: the newest.
pub const HEADS_KEPT: usize = 1000;
/// Of older heads it keeps the first of every span of this length: a minute.
pub const HEADS_SPAN_NS: u64 = 60_000_000_000;
/// Records looked at to find a head that the index does not keep.
pub const HEAD_SCAN_RECORDS_MAX: usize = 1 << 18;

/// Directory nodes are at depths `0..DIRECTORY_DEPTH_MAX`.
pub const DIRECTORY_DEPTH_MAX: usize = 64;
/// Fixed part of a directory node.
pub const DIRECTORY_NODE_FIXED_BYTES: usize = 8;
/// An entry slot.
pub const DIRECTORY_ENTRY_BYTES: usize = 72;
/// A child slot.
pub const DIRECTORY_CHILD_BYTES: usize = 48;
/// The largest directory node: sixteen entries.
pub const DIRECTORY_NODE_BYTES_MAX: usize = DIRECTORY_NODE_FIXED_BYTES + 16 * DIRECTORY_ENTRY_BYTES;

/// Records, segment headers and record bodies are aligned to this.
pub const RECORD_ALIGN_BYTES: u64 = 64;
/// A segment header.
pub const SEGMENT_HEADER_BYTES: usize = 128;
/// A record header.
pub const RECORD_HEADER_BYTES: usize = 64;
/// Bytes in a record's body: 8 MiB.
pub const RECORD_BODY_BYTES_MAX: usize = 8 << 20;
/// Bytes in a group, headers included: 64 MiB.
pub const GROUP_BYTES_MAX: usize = 64 << 20;
/// Segments are smaller than this: 4 GiB, because a position keeps 32 bits for
/// the offset.
pub const SEGMENT_BYTES_LIMIT: u64 = 1 << 32;
/// The default size at which a segment is sealed: 256 MiB.
pub const SEGMENT_BYTES_DEFAULT: u64 = 256 << 20;
/// The smallest size at which a segment may be sealed (tests roll often).
pub const SEGMENT_BYTES_MIN: u64 = 4 << 10;
/// The largest size at which a segment may be sealed: 3 GiB.
pub const SEGMENT_BYTES_MAX: u64 = 3 << 30;
/// Bytes of one `openings` record: 1 MiB.
pub const OPENINGS_BYTES_MAX: usize = 1 << 20;

/// Directory nodes that a newer head replaced are kept for an hour of head time.
pub const RETIRED_NS_MAX: u64 = 3_600_000_000_000;
/// And for less if they take more than this: 64 MiB.
pub const RETIRED_BYTES_MAX: u64 = 64 << 20;
/// Memory of the index's cache: 64 MiB.
pub const INDEX_CACHE_BYTES: usize = 64 << 20;
/// Memory of the filter over request ids on disk: 16 MiB.
pub const REQUEST_FILTER_BYTES: usize = 16 << 20;
/// Request ids on disk, beyond which the filter is not worth filling.
pub const REQUEST_FILTER_IDS_MAX: u64 = 20_000_000;
/// Memory of the tail after which it is folded into the index: 32 MiB.
pub const TAIL_FOLD_BYTES: usize = 32 << 20;
/// Memory of all that is not folded yet, after which appends are refused:
/// 64 MiB, and what was queued by then.
pub const TAIL_BYTES_MAX: usize = 64 << 20;
/// The least that what is not folded may be limited to: 4 KiB (tests fold often).
pub const TAIL_BYTES_MIN: usize = 4 << 10;
/// Bytes of log after which the tail is folded: bounds what opening after a
/// crash has to read.
pub const UNCOVERED_LOG_BYTES: u64 = 128 << 20;

/// Bytes of a span on the wire: 2 MiB.
pub const SPAN_BYTES_MAX: usize = 2 << 20;
/// Directory nodes asked for in one request.
pub const NODES_PER_REQUEST_MAX: usize = 256;
/// Payloads asked for in one request.
pub const PAYLOADS_PER_REQUEST_MAX: usize = 64;
/// Notes in one reply.
pub const NOTES_PER_REPLY_MAX: usize = 64;

/// Bytes of the frames of one push, without the head that ends it: 1 MiB.
pub const PUSH_BYTES_MAX: usize = 1 << 20;
/// Directory nodes in one push.
pub const PUSH_NODES_MAX: usize = 1024;
/// Contexts in one push.
pub const PUSH_CONTEXTS_MAX: usize = 1024;
/// Payloads in one push; no more fit, since each is above 4 KiB.
pub const PUSH_PAYLOADS_MAX: usize = PUSH_BYTES_MAX / PAYLOAD_INLINE_BYTES_MAX;
/// Frames of one push, without the head that ends it.
pub const PUSH_FRAMES_MAX: usize =
    PUSH_NODES_MAX / NODES_PER_REQUEST_MAX + 2 * PUSH_CONTEXTS_MAX + PUSH_PAYLOADS_MAX;

/// Bytes of an archive's first lines: the line of its version (27), of its
/// context (9 and the name), of its size (6 and 19 digits), of its root (50),
/// and an empty one.
pub const ARCHIVE_HEADER_BYTES_MAX: usize = 27 + 9 + CONTEXT_ID_BYTES_MAX + 6 + 19 + 50 + 1;
/// The header of a section of an archive.
pub const ARCHIVE_SECTION_HEADER_BYTES: usize = 48;
/// Bytes in the body of any section of an archive: 8 MiB.
pub const ARCHIVE_SECTION_BYTES_MAX: usize = 8 << 20;
/// Bytes in the body of a section of runs: any run fits.
pub const ARCHIVE_RUNS_BYTES_MAX: usize = 4 + RUN_BYTES_MAX;
/// What stands in front of a payload in an archive: hash and length.
pub const ARCHIVE_PAYLOAD_FIXED_BYTES: usize = 36;
/// Bytes in the body of the end of an archive.
pub const ARCHIVE_END_BYTES: usize = 48;

/// Bytes of one NDJSON line: a payload in base64, its metadata, and headroom.
pub const NDJSON_LINE_BYTES_MAX: usize = 8 << 20;
/// Lines of one NDJSON batch.
pub const NDJSON_BATCH_LINES_MAX: usize = 1000;
/// Bytes of one NDJSON batch, counted as payload, key and metadata bytes.
pub const NDJSON_BATCH_BYTES_MAX: usize = 4 << 20;

const _: () = {
    assert!(RUN_SINGLE_BYTES_MAX == 71_524);
    assert!(RUN_SINGLE_BYTES_MAX <= RUN_BYTES_MAX);
    // A run and its context number, and a payload and its hash, fit a record.
    assert!(8 + RUN_BYTES_MAX <= RECORD_BODY_BYTES_MAX);
    assert!(32 + PAYLOAD_BYTES_MAX <= RECORD_BODY_BYTES_MAX);
    assert!(OPENINGS_BYTES_MAX <= RECORD_BODY_BYTES_MAX);
    assert!(NOTE_BYTES_MAX + 24 <= RECORD_BODY_BYTES_MAX);
    assert!(RECORD_BODY_BYTES_MAX + RECORD_HEADER_BYTES <= GROUP_BYTES_MAX);
    // A segment of the default size holds any group behind its header.
    assert!(GROUP_BYTES_MAX as u64 + SEGMENT_HEADER_BYTES as u64 <= SEGMENT_BYTES_DEFAULT);
    // The last group of the longest segment still ends below 4 GiB.
    assert!(SEGMENT_BYTES_MAX + GROUP_BYTES_MAX as u64 + 4096 < SEGMENT_BYTES_LIMIT);
    assert!((SEGMENT_HEADER_BYTES as u64).is_multiple_of(RECORD_ALIGN_BYTES));
    assert!(PUSH_NODES_MAX.is_multiple_of(NODES_PER_REQUEST_MAX));
    assert!(PUSH_FRAMES_MAX == 2308);
    assert!(TAIL_BYTES_MIN < TAIL_BYTES_MAX);
    // One tail can be folded while the next one fills.
    assert!(2 * TAIL_FOLD_BYTES <= TAIL_BYTES_MAX);
    // A span holds its fixed part, every right hash and at least one run.
    assert!(24 + PROOF_HASHES_MAX * 32 + 4 + RUN_BYTES_MAX <= SPAN_BYTES_MAX);
    assert!(DIRECTORY_NODE_BYTES_MAX == 1160);
    assert!(DIRECTORY_CHILD_BYTES <= DIRECTORY_ENTRY_BYTES);
    assert!(NOTE_TEXT_BYTES_MAX < NOTE_BYTES_MAX);
    assert!(ROTATIONS_MAX < NOTES_PER_REPLY_MAX);
    assert!(TRUST_RECORDS_MAX <= 0xffff);
    // Two notes, the rotations and takeovers between them, two paths in base64,
    // a proof, and room for the names of lines.
    assert!(
        (2 + ROTATIONS_MAX + TAKEOVERS_MAX) * NOTE_BYTES_MAX
            + 2 * DIRECTORY_DEPTH_MAX * (DIRECTORY_NODE_BYTES_MAX * 4 / 3 + 8)
            + PROOF_HASHES_MAX * 45
            + (16 << 10)
            <= EVIDENCE_BYTES_MAX
    );
    assert!(EVIDENCE_BYTES_MAX <= RECORD_BODY_BYTES_MAX);
    assert!(STORE_PROOF_NODES_MAX == 3_486_174);
    assert!(STORE_PROOF_CONTEXTS_MAX == 2_130_440);
    // An entry with its payload and header in base64.
    assert!((PAYLOAD_BYTES_MAX + HEADER_BYTES_MAX) * 4 / 3 + EVIDENCE_BYTES_MAX <= PROOF_BYTES_MAX);
    // Lengths that are written in two bytes.
    assert!(KEY_BYTES_MAX <= 0xffff);
    assert!(REQUEST_ID_BYTES_MAX <= 0xffff);
    assert!(METADATA_BYTES_MAX - 1 <= 0xffff);
    assert!(ARCHIVE_HEADER_BYTES_MAX == 1136);
    // The largest size has 19 digits.
    assert!(SEQUENCE_MAX >= 10u64.pow(18) && SEQUENCE_MAX < 10u64.pow(19));
    // Any run fits its section, and any payload with its hash and length.
    assert!(4 + RUN_BYTES_MAX <= ARCHIVE_RUNS_BYTES_MAX);
    assert!(ARCHIVE_RUNS_BYTES_MAX <= ARCHIVE_SECTION_BYTES_MAX);
    assert!(ARCHIVE_PAYLOAD_FIXED_BYTES + PAYLOAD_BYTES_MAX <= ARCHIVE_SECTION_BYTES_MAX);
    // base64 of a full payload and escaped metadata fit a line.
    assert!(PAYLOAD_BYTES_MAX / 3 * 4 + 6 * METADATA_BYTES_MAX < NDJSON_LINE_BYTES_MAX);
};
