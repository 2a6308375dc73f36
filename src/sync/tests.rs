//! Engines against each other, without a network.

mod evidence;
mod fair;
mod honest;
mod lying;
mod proptests;
mod rotation;
mod sample;
mod seen;
mod virtual_time;

use super::testing::FakeLedger;

fn text(n: usize) -> Vec<u8> {
    format!("payload {n}").into_bytes()
}

fn texts(range: std::ops::Range<usize>) -> Vec<Vec<u8>> {
    range.map(text).collect()
}

fn large(n: u8, bytes: usize) -> Vec<u8> {
    vec![n; bytes]
}

/// Many shapes: long and short contexts, several runs, outside payloads, some
/// of them shared.
fn ledger() -> FakeLedger {
    let mut l = FakeLedger::new(1);
    l.append("long", &texts(0..300));
    l.append("long", &texts(300..301));
    l.append("long", &texts(301..700));
    l.append("short", &[b"x".to_vec()]);
    l.append("large", &[large(1, 5000), text(1), large(2, 9000)]);
    l.append("shares", &[large(2, 9000), large(3, 4097)]);
    for n in 0..20 {
        l.append(&format!("many {n}"), &texts(n..n + 3));
    }
    l.publish();
    l
}
