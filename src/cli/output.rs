//! Stdout, buffered and locked once, with every error handled; and what makes
//! stored text safe to show on a terminal.

use std::fmt;
use std::io::{self, BufWriter, StdoutLock, Write as _};

use serde::Serialize;

use super::error::CliError;
pub(super) use crate::shown::escape;

/// The name of a file that is stdout, or stdin.
pub(super) const STDOUT: &str = "-";

/// Where a command's results go.
pub(super) struct Out {
    writer: BufWriter<StdoutLock<'static>>,
}

impl Out {
    pub(super) fn new() -> Self {
        Self {
            writer: BufWriter::with_capacity(64 << 10, io::stdout().lock()),
        }
    }

    /// One line of text.
    pub(super) fn line(&mut self, line: impl fmt::Display) -> Result<(), CliError> {
        writeln!(self.writer, "{line}").map_err(|error| CliError::stdout(&error))
    }

    /// Bytes as they are.
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> Result<(), CliError> {
        self.writer
            .write_all(bytes)
            .map_err(|error| CliError::stdout(&error))
    }

    /// One line of JSON.
    pub(super) fn json(&mut self, value: &impl Serialize) -> Result<(), CliError> {
        serde_json::to_writer(&mut self.writer, value)
            .map_err(|error| CliError::stdout(&io::Error::from(error)))?;
        self.bytes(b"\n")
    }

    /// Hands everything to the reader. A command that printed something and
    /// does not call this has not printed it.
    pub(super) fn flush(&mut self) -> Result<(), CliError> {
        self.writer
            .flush()
            .map_err(|error| CliError::stdout(&error))
    }
}

/// Seconds with milliseconds, as JSON numbers print them.
pub(super) fn seconds(elapsed: std::time::Duration) -> f64 {
    (elapsed.as_secs_f64() * 1000.0).round() / 1000.0
}

/// Nanoseconds since 1970 as a date and time of day in UTC, for people.
pub(super) fn utc(time_ns: u64) -> String {
    let seconds = time_ns / 1_000_000_000;
    let (mut days, second) = (seconds / 86_400, seconds % 86_400);
    let is_leap =
        |year: u64| year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400);
    let mut year = 1970;
    loop {
        let in_year = 365 + u64::from(is_leap(year));
        if days < in_year {
            break;
        }
        days -= in_year;
        year += 1;
    }
    let mut month = 1;
    for in_month in [
        31,
        28 + u64::from(is_leap(year)),
        31,
        30,
        31,
        30,
        31,
        31,
        30,
        31,
        30,
        31,
    ] {
        if days < in_month {
            break;
        }
        days -= in_month;
        month += 1;
    }
    format!(
        "{year}-{month:02}-{:02} {:02}:{:02}:{:02} UTC",
        days + 1,
        second / 3600,
        second / 60 % 60,
        second % 60
    )
}

#[cfg(test)]
mod tests {
    use super::utc;

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(utc(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(utc(951_782_399_000_000_000), "2000-02-28 23:59:59 UTC");
        assert_eq!(utc(951_782_400_999_999_999), "2000-02-29 00:00:00 UTC");
        assert_eq!(utc(1_735_689_599_000_000_000), "2024-12-31 23:59:59 UTC");
        assert_eq!(utc(4_107_542_400_000_000_000), "2100-03-01 00:00:00 UTC");
        assert_eq!(utc(u64::MAX), "2554-07-21 23:34:33 UTC");
    }
}
