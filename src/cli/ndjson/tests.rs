//! Batches: bounds, numbers, and what is refused.

use super::*;

fn batches(input: &[u8]) -> Vec<Result<Batch, BadLine>> {
    let context = ContextId::new("c").unwrap();
    Batches::new(input, Some(context)).collect()
}

fn line_of(payload_bytes: usize) -> String {
    format!(
        "{{\"key\":\"k\",\"payload\":\"{}\"}}\n",
        "x".repeat(payload_bytes)
    )
}

#[test]
fn a_batch_has_at_most_a_thousand_lines() {
    let input = line_of(3).repeat(2001);
    let found: Vec<(u64, u64, usize)> = batches(input.as_bytes())
        .into_iter()
        .map(|batch| batch.unwrap())
        .map(|batch| (batch.first_line, batch.last_line, batch.drafts.len()))
        .collect();
    assert_eq!(
        found,
        [(1, 1000, 1000), (1001, 2000, 1000), (2001, 2001, 1)]
    );
}

#[test]
fn a_batch_has_at_most_four_mib_or_one_line() {
    let input = [line_of(3 << 20), line_of(4 << 20), line_of(1), line_of(1)].concat();
    let found: Vec<(u64, u64)> = batches(input.as_bytes())
        .into_iter()
        .map(|batch| batch.unwrap())
        .map(|batch| (batch.first_line, batch.last_line))
        .collect();
    assert_eq!(found, [(1, 1), (2, 2), (3, 4)]);
}

#[test]
fn a_bad_line_is_numbered_and_ends_the_input() {
    for at in [1usize, 2, 999, 1000, 1001, 1500] {
        let input = [
            line_of(1).repeat(at - 1),
            "{}\n".into(),
            line_of(1).repeat(3),
        ]
        .concat();
        let mut found = batches(input.as_bytes());
        let bad = found.pop().unwrap().unwrap_err();
        assert_eq!(bad.line, at as u64);
        assert_eq!(bad.first_line, (at as u64 - 1) / 1000 * 1000 + 1);
        assert_eq!(found.len(), (at - 1) / 1000);
    }
}

#[test]
fn a_bad_line_after_a_held_one_is_numbered() {
    let input = [line_of(3 << 20), line_of(3 << 20), "{}".into()].concat();
    let mut found = batches(input.as_bytes());
    let bad = found.pop().unwrap().unwrap_err();
    assert_eq!((bad.line, bad.first_line, found.len()), (3, 2, 1));
}

#[test]
fn blank_lines_only_at_the_end() {
    for (input, lines) in [("", 0), ("\n", 0), ("\n \r\n", 0)] {
        assert_eq!(batches(input.as_bytes()).len(), lines);
    }
    let good = line_of(1);
    assert!(batches(format!("{good}\n\n").as_bytes())[0].is_ok());
    let bad = batches(format!("{good}\n{good}").as_bytes());
    assert_eq!(bad.into_iter().next().unwrap().unwrap_err().line, 2);
}

#[test]
fn a_line_is_bounded_while_it_is_read() {
    struct Endless(u64);
    impl std::io::Read for Endless {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            buffer.fill(b'x');
            self.0 += buffer.len() as u64;
            assert!(self.0 < 2 * NDJSON_LINE_BYTES_MAX as u64, "read on");
            Ok(buffer.len())
        }
    }
    let reader = std::io::BufReader::new(Endless(0));
    let bad = Batches::new(reader, None).next().unwrap().unwrap_err();
    assert_eq!(bad.line, 1);
}
