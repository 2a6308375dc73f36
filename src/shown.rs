//! Layer 0. Text from elsewhere, as it is shown to a person: on one line, in the
//! order it is read, and with an end that can be seen.
//!
//! Invariants:
//! * nothing that moves a cursor, changes colours, reorders what is read, or
//!   cannot be seen gets through: it is escaped, and backslashes double, so that
//!   an escape cannot be imitated;
//! * every double quote that a quoted text shows is an end of one: in it they
//!   are escaped.

use std::fmt::{self, Write as _};

/// The text, escaped.
#[must_use]
pub fn escape(text: &str) -> String {
    Escaped(text).to_string()
}

/// A text that stands alone, escaped.
#[derive(Clone, Copy, Debug)]
pub struct Escaped<'a>(pub &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| put(c, f))
    }
}

/// A name in a sentence: escaped, between double quotes.
#[derive(Clone, Copy, Debug)]
pub struct Quoted<'a>(pub &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for c in self.0.chars() {
            match c {
                // Not a backslash and a quote: that would end the name for whoever
                // looks for the next quote.
                '"' => f.write_str("\\u{22}")?,
                c => put(c, f)?,
            }
        }
        f.write_char('"')
    }
}

fn put(c: char, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match c {
        '\n' => f.write_str("\\n"),
        '\r' => f.write_str("\\r"),
        '\t' => f.write_str("\\t"),
        '\\' => f.write_str("\\\\"),
        c if is_unsafe(c) => write!(f, "\\u{{{:x}}}", u32::from(c)),
        c => f.write_char(c),
    }
}

/// Control characters, white space but the common one, and what Unicode calls
/// ignorable when shown.
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || c.is_whitespace() && c != ' '
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::{Quoted, escape};

    #[test]
    fn nothing_that_moves_a_cursor_gets_through() {
        let plain = "plain, gr\u{f6}\u{df}er, \u{670d}\u{52a1}\u{5668}";
        assert_eq!(escape(plain), plain);
        assert_eq!(escape("\x1b[2J\x07"), "\\u{1b}[2J\\u{7}");
        assert_eq!(escape("a\nb\tc\rd\\n"), "a\\nb\\tc\\rd\\\\n");
        assert_eq!(escape("\u{202e}x\u{9b}"), "\\u{202e}x\\u{9b}");
        assert_eq!(escape("a\u{a0}b\u{3000}c"), "a\\u{a0}b\\u{3000}c");
        assert_eq!(escape("a\u{fe0f}\u{e0100}"), "a\\u{fe0f}\\u{e0100}");
    }

    #[test]
    fn a_quoted_name_ends_at_its_quote() {
        assert_eq!(Quoted("a, b c").to_string(), "\"a, b c\"");
        assert_eq!(Quoted("").to_string(), "\"\"");
        assert_eq!(Quoted("a\", \"b").to_string(), "\"a\\u{22}, \\u{22}b\"");
        assert_eq!(Quoted("a\\").to_string(), "\"a\\\\\"");
        assert_eq!(Quoted("\\u{22}").to_string(), "\"\\\\u{22}\"");
        assert_eq!(Quoted("x\u{a0}\n").to_string(), "\"x\\u{a0}\\n\"");
    }
}
