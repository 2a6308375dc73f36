//! Rows and pages of the index, good and bad (`spec/10-index.md`).

use converge_ledger::hash;
use converge_ledger::tree::Frontier;
use serde_json::{Value, json};

use super::index_rows::{Rows, TABLES, index_keys, read_row, row_check, rows_of};
use super::{file, hex, number, unhex};

/// The log that the cases of single rows are about.
pub(crate) const LOG: &str = "indexed";

fn table_of(case: &Value) -> u8 {
    let name = case["table"].as_str().unwrap();
    let at = TABLES.iter().position(|table| *table == name).unwrap();
    u8::try_from(at + 1).unwrap()
}

/// Table, key and the whole row of a case.
pub(crate) fn row_of(case: &Value) -> (u8, Vec<u8>, Vec<u8>) {
    (table_of(case), unhex(&case["key"]), unhex(&case["row"]))
}

fn row(name: &str, table: u8, key: &[u8], row: &[u8]) -> Value {
    json!({ "name": name, "kind": "row", "table": TABLES[usize::from(table) - 1],
        "key": hex(key), "row": hex(row) })
}

/// A value with its check.
fn sealed(table: u8, key: &[u8], value: &[u8]) -> Vec<u8> {
    let [row_key, _] = index_keys(LOG);
    [value, &row_check(&row_key, table, key, value)].concat()
}

fn rows_case(log: &str) -> Value {
    let [row_key, page_key] = index_keys(log);
    let rows: Vec<Value> = rows_of(log)
        .into_iter()
        .map(|((table, key), value)| {
            json!({ "table": TABLES[usize::from(table) - 1], "key": hex(&key),
                "value": hex(&value), "check": hex(&row_check(&row_key, table, &key, &value)) })
        })
        .collect();
    json!({ "name": format!("rows of {log}.json"), "good": true, "kind": "rows", "of": log,
        "row_key": hex(&row_key), "page_key": hex(&page_key), "rows": rows })
}

/// Rows that no log here leads to.
fn formats() -> Vec<Value> {
    let place = |segment: u8, offset: u8| {
        let mut at = vec![offset, 0, 0, 0, segment, 0, 0, 0];
        at.extend([9, 1, 0, 0]);
        at
    };
    let mut state = vec![3, 0, 0, 0, 0, 0, 0, 0];
    state.extend([[0xaa; 16], [0xbb; 16]].concat());
    let numbers: [u64; 10] = [
        (3 << 32) + 640,
        (3 << 32) + 320,
        0,
        0,
        2,
        2,
        300,
        4,
        1160,
        77,
    ];
    state.extend(numbers.map(u64::to_le_bytes).concat());
    state.extend([1, 0, 1, 0, 2, 0, 1, 0]);
    state.extend(b"k");
    let places = [place(2, 64), place(3, 64), place(3, 128), place(3, 192)];
    state.extend(places.concat());
    let run = |entries: u16, keys: &[u8]| {
        let mut value = place(1, 128);
        value.extend(entries.to_le_bytes());
        value.extend(keys);
        value
    };
    let eight: Vec<u8> = [8].into_iter().chain(1..=32).collect();
    let key = |numbers: &[u64]| numbers.iter().flat_map(|n| n.to_be_bytes()).collect();
    let tile = |level: u8| -> Vec<u8> {
        let (context, index) = (key(&[1]), key(&[0]));
        [context, vec![level], index].concat()
    };
    let empty = [vec![0; 48], Frontier::new().to_bytes()].concat();
    let head = [
        place(1, 192),
        place(1, 64)[..8].to_vec(),
        vec![3; 8],
        vec![1],
    ]
    .concat();
    let good: [(&str, u8, Vec<u8>, Vec<u8>); 10] = [
        ("a mirror in mid-sync", 1, b"covered".to_vec(), state),
        ("a context without entries", 5, key(&[7]), empty),
        ("a number without a name", 3, key(&[7]), Vec::new()),
        ("a run of eight keys", 6, key(&[1, 257]), run(256, &eight)),
        ("a run of more keys", 6, key(&[1, 513]), run(9, &[255])),
        ("a tile of level 2", 7, tile(2), vec![5; 64]),
        ("a payload", 8, vec![6; 32], place(2, 128)),
        ("a path", 4, vec![7; 32], vec![3, 0, 0, 0, 0, 0, 0, 0]),
        ("the first head of a minute", 12, key(&[1, 7]), head),
        ("a head that replaced nothing", 11, key(&[0]), vec![0; 16]),
    ];
    good.into_iter()
        .map(|(name, table, key, value)| {
            let mut case = row(name, table, &key, &sealed(table, &key, &value));
            case["good"] = true.into();
            case["says"] = read_row(table, &key, &value).unwrap();
            case
        })
        .collect()
}

/// A name, why it is refused, and what makes it so.
type Change = (&'static str, &'static str, fn(&mut Vec<u8>));

/// Values that cannot be, each under a check that is right.
const UNREADABLE: [(u8, Change); 22] = [
    (1, ("version 2", "version", |v| v[0] = 2)),
    (1, ("a reserved byte", "reserved", |v| v[1] = 1)),
    (1, ("a head of 4 GiB", "length", |v| v[68] = 1)),
    (
        1,
        ("no vkey", "length of the vkey", |v| v[120..122].fill(0)),
    ),
    (1, ("a vkey that is no text", "UTF-8", |v| v[128] = 0xff)),
    (
        1,
        ("a pending record that is not there", "cut", |v| v[124] = 1),
    ),
    (
        1,
        (
            "more rotations than there may be",
            "records of trust",
            |v| {
                v[122] = 96;
            },
        ),
    ),
    (1, ("one byte too many", "surplus", |v| v.push(0))),
    (2, ("a number of seven bytes", "cut", |v| v.truncate(7))),
    (
        3,
        ("an id with a line feed", "control character", |v| {
            v[0] = b'\n';
        }),
    ),
    (4, ("a number of nine bytes", "surplus", |v| v.push(0))),
    (
        5,
        ("a peak is missing", "peaks do not fit the size", |v| {
            v.truncate(v.len() - 32);
        }),
    ),
    (6, ("no entries", "entries", |v| v[12] = 0)),
    (
        6,
        ("257 entries", "entries", |v| {
            v[12..14].copy_from_slice(&[1, 1]);
        }),
    ),
    (
        6,
        ("nine key hashes", "key hashes", |v| {
            v[14] = 9;
            v.resize(51, 7);
        }),
    ),
    (7, ("no hashes", "hashes of a tile", Vec::clear)),
    (7, ("half a hash", "cut", |v| v.truncate(16))),
    (8, ("a place of eleven bytes", "cut", |v| v.truncate(11))),
    (9, ("a sequence of seven bytes", "cut", |v| v.truncate(7))),
    (12, ("a head of another length", "surplus", |v| v.push(0))),
    (12, ("neither first nor not", "first", |v| v[28] = 2)),
    (11, ("half a hash", "cut", |v| v.resize(16 + 16, 1))),
];

/// Values that can be, each under a check that is right, and are not what the
/// log says.
const UNTRUE: [(u8, Change); 10] = [
    (
        1,
        (
            "covers another history",
            "the chain is not the record's",
            |v| v[24] ^= 1,
        ),
    ),
    (1, ("of another store", "store id", |v| v[8] ^= 1)),
    (
        1,
        (
            "covers a place where no group ends",
            "no such record",
            |v| v[48] ^= 0x40,
        ),
    ),
    (
        1,
        ("names another head", "no head record is there", |v| {
            v[56] ^= 0x40;
        }),
    ),
    (
        1,
        ("is another origin's", "the head does not open", |v| {
            let other = *b"vectors.example+f1320472+AYqI4910CfGV/VLbLTy6XXLKZwm/HZQSG/N0iAG0D29c";
            let len = u8::try_from(other.len()).unwrap();
            v.truncate(128);
            v[120] = len;
            v.extend(other);
        }),
    ),
    (
        5,
        (
            "a peak of another tree",
            "the root is not the head's",
            |v| v[68] ^= 1,
        ),
    ),
    (
        6,
        ("one entry less", "not the record's last sequence", |v| {
            v[12] -= 1;
        }),
    ),
    (5, ("no name, and one", "since when", |v| v[40..48].fill(0))),
    (
        1,
        (
            "names a rotation that is none",
            "no rotation is there",
            |v| {
                let head = v[56..68].to_vec();
                v[122] = 1;
                v.extend(head);
            },
        ),
    ),
    (
        7,
        ("one hash too many", "tile and size", |v| v.extend([1; 32])),
    ),
];

fn bad_rows() -> Vec<Value> {
    let rows = rows_of(LOG);
    let first = |table: u8| {
        let mut of = rows.iter().filter(|((t, _), _)| *t == table);
        let ((_, key), value) = of.next().unwrap();
        (key.clone(), value.clone())
    };
    let mut cases = Vec::new();
    let mut add = |table: u8, what: &str, reason: &str, key: &[u8], bytes: &[u8], flags| {
        let name = TABLES[usize::from(table) - 1];
        let mut case = row(&format!("{name}: {what}"), table, key, bytes);
        let (matches, reads): (bool, bool) = flags;
        case["good"] = false.into();
        case["of"] = LOG.into();
        case["reason"] = reason.into();
        case["check_matches"] = matches.into();
        case["reads"] = reads.into();
        cases.push(case);
    };
    for (changes, reads) in [(&UNREADABLE[..], false), (&UNTRUE[..], true)] {
        for (table, (what, reason, change)) in changes {
            let (key, mut value) = first(*table);
            change(&mut value);
            let bytes = sealed(*table, &key, &value);
            add(*table, what, reason, &key, &bytes, (true, reads));
        }
    }
    for table in 1..=12 {
        let (key, value) = first(table);
        let good = sealed(table, &key, &value);
        let mut changed = good.clone();
        changed[0] ^= 0x10;
        add(
            table,
            "a bit of the value",
            "check",
            &key,
            &changed,
            (false, true),
        );
        add(
            table,
            "cut by one byte",
            "check",
            &key,
            &good[..good.len() - 1],
            (false, true),
        );
    }
    let (key, value) = first(6);
    let good = sealed(6, &key, &value);
    let mut changed = good.clone();
    *changed.last_mut().unwrap() ^= 1;
    add(
        6,
        "a bit of the check",
        "check",
        &key,
        &changed,
        (false, true),
    );
    add(6, "without a check", "check", &key, &value, (false, true));
    add(
        6,
        "shorter than a check",
        "check",
        &key,
        &good[..7],
        (false, true),
    );
    let other = rows.keys().filter(|(t, _)| *t == 6).nth(1).unwrap();
    add(
        6,
        "the row of another run",
        "check",
        &other.1,
        &good,
        (false, true),
    );
    let place = &rows[&(6, other.1.clone())][..12];
    let moved = sealed(6, &key, &[place, &value[12..]].concat());
    let reason = "another run is there";
    add(
        6,
        "the place of another run",
        reason,
        &key,
        &moved,
        (true, true),
    );
    let [foreign, _] = index_keys("store");
    let foreign = [&value[..], &row_check(&foreign, 6, &key, &value)].concat();
    add(
        6,
        "sealed for another store",
        "check",
        &key,
        &foreign,
        (false, true),
    );
    let (path, number) = first(4);
    let (_, one) = first(2);
    assert_eq!(number.len(), one.len());
    let moved = sealed(2, &path, &number);
    add(
        4,
        "sealed for another table",
        "check",
        &path,
        &moved,
        (false, true),
    );
    cases
}

/// Check and places of a page.
fn page_of(case: &Value) -> (Vec<u8>, [u64; 2]) {
    let [_, page_key] = index_keys(LOG);
    let page = number(case, "page");
    let mut bytes = unhex(&case["bytes"]);
    bytes.resize(if page == 0 { 504 } else { 4096 }, 0);
    let input = [&page.to_le_bytes()[..], &bytes].concat();
    let mut check = hash::keyed_with(&page_key, &input).as_bytes()[..8].to_vec();
    if check == [0; 8] {
        check[0] = 1;
    }
    let at = (page + page / 512 + 1) * 4096;
    let check_at = match page {
        0 => at + 504,
        _ => page / 512 * 513 * 4096 + page % 512 * 8,
    };
    (check, [at, check_at])
}

fn pages() -> Vec<Value> {
    let page = |name: &str, page: u64, bytes: &str, check: Option<&str>| {
        let mut case = json!({ "name": name, "good": check.is_none(), "kind": "page",
            "page": page, "bytes": bytes });
        let (made, [at, check_at]) = page_of(&case);
        case["check"] = check.map_or_else(|| hex(&made), str::to_owned).into();
        case["at"] = at.into();
        case["check_at"] = check_at.into();
        if check.is_some() {
            case["reason"] = "check".into();
        }
        case
    };
    let good = page("page 1", 1, "00010203", None);
    let check = good["check"].as_str().unwrap();
    let never = Some("0000000000000000");
    vec![
        page("page 0, the header", 0, "726564620a", None),
        page("page 511, the last of its group", 511, "00010203", None),
        page("page 512, the first of the next", 512, "00010203", None),
        page("a page of zeros that was written", 2, "", None),
        page("a page of zeros that was never written", 2, "", never),
        page("bytes where nothing was written", 1, "00010203", never),
        page("a bit of a page", 1, "00010202", Some(check)),
        page("the bytes of another page", 3, "00010203", Some(check)),
        page("zeros where something was written", 1, "", Some(check)),
        good,
    ]
}

pub(crate) fn index() -> Value {
    let mut cases: Vec<Value> = [LOG, "store", "mirror", "loaded", "rotated", "followed"]
        .map(rows_case)
        .to_vec();
    cases.extend(formats());
    cases.extend(bad_rows());
    cases.extend(pages());
    file("10-index", cases)
}

/// The rows of a case, each with a right check.
fn rows_listed(case: &Value) -> Option<Rows> {
    let row_key: [u8; 32] = unhex(&case["row_key"]).try_into().unwrap();
    let mut rows = Rows::new();
    for row in case["rows"].as_array().unwrap() {
        let (table, key, value) = (table_of(row), unhex(&row["key"]), unhex(&row["value"]));
        if row_check(&row_key, table, &key, &value) != unhex(&row["check"]) {
            return None;
        }
        read_row(table, &key, &value)?;
        rows.insert((table, key), value);
    }
    Some(rows)
}

fn judge_row(case: &Value) -> bool {
    let [row_key, _] = index_keys(LOG);
    let (table, key, row) = row_of(case);
    let (value, check) = row.split_at(row.len().saturating_sub(8));
    let matches = row_check(&row_key, table, &key, value) == check;
    let says = read_row(table, &key, value);
    let name = &case["name"];
    if case["good"] == true {
        return matches && says == Some(case["says"].clone());
    }
    assert_eq!(Some(matches), case["check_matches"].as_bool(), "{name}");
    if matches {
        assert_eq!(Some(says.is_some()), case["reads"].as_bool(), "{name}");
    }
    let rows = rows_of(LOG);
    matches && says.is_some() && rows.get(&(table, key)).is_some_and(|good| good == value)
}

pub(crate) fn judge_index(case: &Value) -> bool {
    match case["kind"].as_str().unwrap() {
        "rows" => rows_listed(case) == Some(rows_of(case["of"].as_str().unwrap())),
        "row" => judge_row(case),
        _ => {
            let (check, [at, check_at]) = page_of(case);
            assert_eq!(
                (at, check_at),
                (number(case, "at"), number(case, "check_at"))
            );
            check == unhex(&case["check"])
        }
    }
}
