//! Style as a test: the direction of modules, what each layer may touch, and
//! the sizes of files and functions. The rules are functions over a path and a
//! text, so that the checker is tested itself, on snippets it must refuse.
//!
//! It reads source text, not syntax trees: comments and string contents are
//! blanked first, and tests (files and `#[cfg(test)]` items) are left out.

#![allow(clippy::unwrap_used)] // helpers of tests, outside test functions

use std::fs;
use std::path::{Path, PathBuf};

/// Lines of a file, without the tests inside it; of a file of tests, all.
const FILE_LINES_MAX: usize = 600;
/// Lines of a function.
const FUNCTION_LINES_MAX: usize = 100;

/// The rooms of a crate, from the bottom up. A module may name modules of
/// lower layers, and its own layer where `may_see_each_other` says so.
const LAYERS: [&[&str]; 6] = [
    &["hash", "encoding", "entry", "lamport", "limits", "shown"],
    &["tree"],
    &[
        "note",
        "head",
        "directory",
        "run",
        "ledger",
        "proof",
        "evidence",
        "verify",
    ],
    &["store", "sync", "archive"],
    &["node", "rpc"],
    &["cli", "verifier", "main"],
];
/// Modules outside the layers: they drive others and nothing names them.
const OUTSIDE: [&str; 2] = ["fuzzing", "lib"];

/// Text that layers 0 to 2 must not hold.
const PURE_BANNED: [&str; 5] = ["std::fs", "std::time", "std::net", "tokio", "tracing"];
/// Text that the store must not hold.
const STORE_BANNED: [&str; 3] = ["tokio", "quinn", "std::net"];
/// Text that the sync engines and the archive must not hold.
const ENGINE_BANNED: [&str; 6] = [
    "std::fs",
    "std::net",
    "tokio",
    "quinn",
    "SystemTime",
    "Instant",
];
/// The one place that reads the wall clock.
const CLOCK_FILE: &str = "node/clock.rs";
/// Characters outside ASCII that source may hold: the em dash of signed notes.
const NOT_ASCII_ALLOWED: [char; 1] = ['\u{2014}'];

/// The module a file below `src/` belongs to: `tree/shape.rs` to `tree`.
fn module_of(file: &str) -> &str {
    let first = file.split('/').next().unwrap_or(file);
    first.strip_suffix(".rs").unwrap_or(first)
}

fn layer_of(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

/// Whether a file holds nothing but tests or what they share.
fn is_test_file(file: &str) -> bool {
    let stem = file.strip_suffix(".rs").unwrap_or(file);
    let is_test = |part: &str| {
        part == "tests" || part == "testing" || part == "oracle" || part.ends_with("_tests")
    };
    stem.split('/').any(is_test)
}

/// The text with comments, and the contents of strings and characters,
/// replaced by blanks: same length, same lines.
fn blank(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let keep = |c: char| if c == '\n' { '\n' } else { ' ' };
    let mut i = 0;
    while i < chars.len() {
        let rest = &chars[i..];
        let end = i + match rest {
            ['/', '/', ..] => until(rest, 2, |r| r[0] == '\n'),
            ['/', '*', ..] => until(rest, 2, |r| r.starts_with(&['*', '/'])) + 2,
            ['r', '"' | '#', ..] if !follows_word(&chars, i) => raw_string(rest),
            ['"', ..] => string(rest),
            ['\'', '\\', ..] => until(rest, 3, |r| r[0] == '\'') + 1,
            ['\'', _, '\'', ..] => 3,
            _ => {
                out.push(rest[0]);
                i += 1;
                continue;
            }
        };
        let end = end.min(chars.len());
        out.extend(chars[i..end].iter().map(|&c| keep(c)));
        i = end;
    }
    out
}

fn until(rest: &[char], from: usize, stop: impl Fn(&[char]) -> bool) -> usize {
    let found = (from..rest.len()).find(|&i| stop(&rest[i..]));
    found.unwrap_or(rest.len())
}

fn follows_word(chars: &[char], i: usize) -> bool {
    i > 0 && (chars[i - 1].is_alphanumeric() || chars[i - 1] == '_')
}

fn string(rest: &[char]) -> usize {
    let mut i = 1;
    while i < rest.len() && rest[i] != '"' {
        i += if rest[i] == '\\' { 2 } else { 1 };
    }
    i + 1
}

fn raw_string(rest: &[char]) -> usize {
    let hashes = rest[1..].iter().take_while(|&&c| c == '#').count();
    if rest.get(1 + hashes) != Some(&'"') {
        return 1; // a raw identifier
    }
    let mut close = vec!['"'];
    close.extend(std::iter::repeat_n('#', hashes));
    until(rest, 2 + hashes, |r| r.starts_with(&close)) + close.len()
}

/// Blanked text without `#[cfg(test)]` items: their lines are emptied, so that
/// places stay; and how many they were.
fn without_tests(blanked: &str) -> (String, usize) {
    let lines: Vec<&str> = blanked.lines().collect();
    let mut out = vec![""; lines.len()];
    let (mut at, mut removed) = (0, 0);
    while at < lines.len() {
        let trimmed = lines[at].trim();
        if trimmed == "#[cfg(test)]" || trimmed.starts_with("#[test]") {
            let end = item_end(&lines, at + 1);
            removed += end - at;
            at = end;
            continue;
        }
        out[at] = lines[at];
        at += 1;
    }
    (out.join("\n"), removed)
}

/// The line after the item that starts at `from`: after its closing brace, or
/// its semicolon if that comes first.
fn item_end(lines: &[&str], from: usize) -> usize {
    let mut depth = 0usize;
    for (n, line) in lines.iter().enumerate().skip(from) {
        for c in line.chars() {
            match c {
                '{' | '(' | '[' => depth += 1,
                '}' | ')' | ']' => {
                    depth = depth.saturating_sub(1);
                    if depth == 0 && c == '}' {
                        return n + 1;
                    }
                }
                ';' if depth == 0 => return n + 1,
                _ => (),
            }
        }
    }
    lines.len()
}

/// The modules that a text names as `crate::module`, also in groups
/// (`crate::{a, b::C}`), by line.
fn named_modules(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$') {
            continue;
        }
        let line = code[..at].matches('\n').count() + 1;
        let rest = &code[at + "crate::".len()..];
        let word = |text: &str| -> String {
            text.trim_start()
                .chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect()
        };
        if let Some(group) = rest.strip_prefix('{') {
            let mut depth = 0usize;
            let mut start = true;
            for (i, c) in group.char_indices() {
                match c {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => start = true,
                    c if start && !c.is_whitespace() => {
                        found.push((line, word(&group[i..])));
                        start = false;
                    }
                    _ => (),
                }
            }
        } else {
            found.push((line, word(rest)));
        }
    }
    found
}

/// A module names only what lies below it; neighbours in layers 0, 2 and 4
/// know each other, those of layer 3 are blind to each other.
fn check_direction(file: &str, code: &str) -> Vec<String> {
    let module = module_of(file);
    if OUTSIDE.contains(&module) {
        return Vec::new();
    }
    let Some(layer) = layer_of(module) else {
        return vec![format!("{file}: module `{module}` is in no layer")];
    };
    let mut wrong = Vec::new();
    for (line, name) in named_modules(code) {
        if name == module {
            continue;
        }
        let Some(other) = layer_of(&name) else {
            if OUTSIDE.contains(&name.as_str()) {
                wrong.push(format!("{file}:{line}: names `{name}`"));
            }
            continue;
        };
        if other > layer {
            wrong.push(format!(
                "{file}:{line}: layer {layer} names `{name}` of layer {other}"
            ));
        } else if other == layer && layer == 3 {
            wrong.push(format!(
                "{file}:{line}: `{module}` and `{name}` must not know each other"
            ));
        }
    }
    wrong
}

/// What a layer must not touch.
fn check_touch(file: &str, code: &str) -> Vec<String> {
    let module = module_of(file);
    let banned: &[&str] = match (module, layer_of(module)) {
        (_, Some(0..=2)) => &PURE_BANNED,
        ("store", _) => &STORE_BANNED,
        ("sync" | "archive", _) => &ENGINE_BANNED,
        _ => &[],
    };
    let mut wrong = find_words(file, code, banned);
    if file != CLOCK_FILE && !banned.contains(&"SystemTime") {
        wrong.extend(find_words(file, code, &["SystemTime"]));
    }
    wrong
}

/// Leftovers, and ways to panic.
fn check_leftovers(file: &str, code: &str) -> Vec<String> {
    let mut wrong = find_words(file, code, &["dbg!", "todo!", "unimplemented!"]);
    if module_of(file) != "fuzzing" {
        wrong.extend(find_words(file, code, &[".unwrap()", ".expect("]));
    }
    wrong
}

/// The lines on which a word stands, not as a part of a longer one.
fn find_words(file: &str, code: &str, words: &[&str]) -> Vec<String> {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    let mut wrong = Vec::new();
    for (n, line) in code.lines().enumerate() {
        for word in words {
            let stands = line.match_indices(word).any(|(at, _)| {
                let before = line[..at].ends_with(part) && word.starts_with(part);
                let after = line[at + word.len()..].starts_with(part) && word.ends_with(part);
                !before && !after
            });
            if stands {
                wrong.push(format!("{file}:{}: {word}", n + 1));
            }
        }
    }
    wrong
}

fn check_sizes(file: &str, lines: usize, code: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if lines > FILE_LINES_MAX {
        wrong.push(format!("{file}: {lines} lines, at most {FILE_LINES_MAX}"));
    }
    let code: Vec<&str> = code.lines().collect();
    for (n, line) in code.iter().enumerate() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let Some(at) = words.iter().position(|word| *word == "fn") else {
            continue;
        };
        let modifier = |word: &&str| {
            word.starts_with("pub")
                || ["const", "async", "in"].contains(word)
                || word.ends_with(')')
        };
        if !words[..at].iter().all(modifier) {
            continue;
        }
        let length = item_end(&code, n) - n;
        if length > FUNCTION_LINES_MAX {
            let name = words.get(at + 1).unwrap_or(&"");
            wrong.push(format!("{file}:{}: {name} has {length} lines", n + 1));
        }
    }
    wrong
}

fn check_ascii(file: &str, text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    for (n, line) in text.lines().enumerate() {
        let odd = |c: &char| !c.is_ascii() && !NOT_ASCII_ALLOWED.contains(c);
        if let Some(c) = line.chars().find(odd) {
            wrong.push(format!("{file}:{}: {}", n + 1, c.escape_unicode()));
        }
    }
    wrong
}

/// All rules on one file below `src/`.
fn check(file: &str, text: &str) -> Vec<String> {
    let blanked = blank(text);
    let lines = text.lines().count();
    if is_test_file(file) {
        // Tests may look anywhere, panic, be long and use any characters.
        return check_sizes(file, lines, "");
    }
    let (code, removed) = without_tests(&blanked);
    let mut wrong = check_sizes(file, lines - removed, &code);
    wrong.extend(check_direction(file, &code));
    wrong.extend(check_touch(file, &code));
    wrong.extend(check_leftovers(file, &code));
    // Tests inside a file may use other characters; comments may not.
    let shown = text.lines().zip(code.lines().chain(std::iter::repeat("")));
    let outside_tests: Vec<&str> = shown
        .map(|(line, code)| if code.is_empty() { "" } else { line })
        .collect();
    wrong.extend(check_ascii(file, &outside_tests.join("\n")));
    wrong
}

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for item in fs::read_dir(dir).unwrap() {
        let path = item.unwrap().path();
        if path.is_dir() {
            // Written by a generator (`tests/proto.rs`), not by hand.
            if !path.ends_with("rpc/generated") {
                sources(&path, found);
            }
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn the_house_is_tidy() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    files.sort();
    assert!(files.len() > 20, "sources not found");
    let mut wrong = Vec::new();
    for path in files {
        let file = path.strip_prefix(&root).unwrap().to_str().unwrap();
        wrong.extend(check(file, &fs::read_to_string(&path).unwrap()));
    }
    assert!(
        wrong.is_empty(),
        "{} findings:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

/// The checker's own tests: what it must refuse, and what it must let pass.
mod checker {
    use super::*;

    #[track_caller]
    fn refused(file: &str, text: &str, because: &str) {
        let wrong = check(file, text);
        assert!(wrong.iter().any(|w| w.contains(because)), "{wrong:?}");
    }

    #[track_caller]
    fn passes(file: &str, text: &str) {
        assert_eq!(check(file, text), Vec::<String>::new());
    }

    #[test]
    fn imports_go_down() {
        refused("tree/shape.rs", "use crate::store::View;", "names `store`");
        refused("hash.rs", "fn f() { crate::tree::x() }", "names `tree`");
        refused("store/log.rs", "use crate::sync::Mirror;", "each other");
        refused(
            "sync/mirror.rs",
            "use crate::{hash::Hash, store};",
            "each other",
        );
        refused(
            "store/log.rs",
            "use crate::{hash::{A, B},\n node};",
            "names `node`",
        );
        refused("node/quic.rs", "use crate::cli::Args;", "names `cli`");
        refused("head.rs", "use crate::fuzzing::Input;", "names `fuzzing`");
        refused("cellar.rs", "", "in no layer");
        passes("store/log.rs", "use crate::{hash::{A, sync}, run::Run};");
        passes(
            "head/text.rs",
            "use crate::note::Note;\nuse crate::head::Head;",
        );
        passes("fuzzing/segment.rs", "use crate::store::View;");
        passes("store/log.rs", "// crate::node\nlet a = \"crate::node\";");
        passes(
            "store/mod.rs",
            "#[cfg(test)]\nmod tests {\n use crate::sync::X;\n}\n",
        );
        passes("store/tests/a.rs", "use crate::sync::X;");
    }

    #[test]
    fn layers_touch_only_what_is_theirs() {
        refused("tree/tile.rs", "use std::fs;", "std::fs");
        refused("run.rs", "let t = std::time::Instant::now();", "std::time");
        refused("directory/mod.rs", "tracing::info!(1);", "tracing");
        refused("store/log.rs", "use tokio::fs;", "tokio");
        refused("store/log.rs", "use std::net::UdpSocket;", "std::net");
        refused("sync/source.rs", "use std::time::Instant;", "Instant");
        refused("sync/source.rs", "use std::time::SystemTime;", "SystemTime");
        refused("archive/write.rs", "use std::fs::File;", "std::fs");
        refused("node/quic.rs", "SystemTime::now()", "SystemTime");
        passes("node/clock.rs", "SystemTime::now()");
        passes(
            "store/writer.rs",
            "use std::time::Instant;\nuse std::fs::File;",
        );
        passes("sync/source.rs", "let tokio_free = Instantly(1);");
    }

    #[test]
    fn leftovers_are_found() {
        refused("hash.rs", "dbg!(1);", "dbg!");
        refused("hash.rs", "fn f() { todo!() }", "todo!");
        refused("store/log.rs", "unimplemented!()", "unimplemented!");
        refused("store/log.rs", "x\n  .unwrap()", ":2: .unwrap()");
        refused("store/log.rs", "x.expect(\"y\")", ".expect(");
        passes("store/log.rs", "x.unwrap_or(1); y.expect_err(2);");
        passes(
            "store/log.rs",
            "/// x.unwrap()\nfn f() {}\n#[test]\nfn t() {\n x.unwrap();\n}",
        );
        passes(
            "store/log.rs",
            "let a = r#\"x.unwrap() \" dbg!\"#; let c = '\"';",
        );
        refused("store/log.rs", "let c = '\"'; x.unwrap();", ".unwrap()");
        refused(
            "store/log.rs",
            "#[cfg(test)]\nmod tests;\nx.unwrap();",
            ":3:",
        );
    }

    #[test]
    fn sizes_are_bounded() {
        let lines = |n: usize| "x();\n".repeat(n);
        refused("hash.rs", &lines(601), "601 lines");
        passes("hash.rs", &lines(600));
        refused("store/tests.rs", &lines(601), "601 lines");
        let inside = format!("{}#[cfg(test)]\nmod tests {{\n{}}}\n", lines(600), lines(9));
        passes("hash.rs", &inside);
        let function = |n| {
            format!(
                "pub(super) const fn long(\n a: [u8; 2]\n) {{\n{}}}\n",
                lines(n)
            )
        };
        refused("hash.rs", &function(97), "long( has 101 lines");
        passes("hash.rs", &function(96));
        passes("hash.rs", &format!("#[cfg(test)]\n{}", function(200)));
        passes("hash.rs", "trait T {\n fn declared(&self);\n}\n");
    }

    #[test]
    fn source_is_ascii() {
        refused("hash.rs", "// na\u{ef}ve", "\\u{ef}");
        passes("note.rs", "// \u{2014} name");
        passes("note.rs", "#[cfg(test)]\nmod tests {\n // \u{ef}\n}\n");
        passes("note/tests.rs", "// \u{ef}");
    }

    #[test]
    fn blanking_keeps_places() {
        let text = "a /* b\n */ c // d\n'\\'' e \"f\\\"g\" r##\"h\"#\"## 'i";
        let blanked = blank(text);
        assert_eq!(blanked.lines().count(), text.lines().count());
        assert_eq!(
            blanked.split_whitespace().collect::<Vec<_>>(),
            ["a", "c", "e", "'i"]
        );
    }
}
