//! `prove`, `verify`, `get --verify`: files for auditors, through the binary.

use std::fs;
use std::path::Path;

use crate::support::{Place, Ran, command, run_with};

fn verify(path: &Path, origin: &str) -> Ran {
    let mut command = command();
    command.arg("verify").arg(path).args(["--origin", origin]);
    run_with(command, b"")
}

/// Makes a proof in the file `name`.
fn prove(place: &Place, name: &str, arguments: &[&str]) -> std::path::PathBuf {
    let file = place.path(name);
    let output = ["prove", "-o", file.to_str().unwrap()];
    let arguments = [&output[..], arguments].concat();
    place.run("s", &arguments).expect(0);
    file
}

#[test]
fn an_entry_is_proven_offline() {
    let place = Place::new();
    place.with_sample("s");
    let (origin, _) = place.keys("s");
    let of = ["--context", "packages", "--sequence", "7"];
    let header = prove(&place, "header.proof", &of);
    let whole = prove(&place, "whole.proof", &[&of[..], &["--payload"]].concat());
    for (file, says) in [(&header, "not in the file"), (&whole, "with its payload")] {
        let ran = verify(file, &origin).expect(0);
        assert_eq!(ran.text().lines().count(), 1, "{ran:?}");
        let begins = "proven: entry 7 of 2000 of context \"packages\", id ";
        assert!(ran.text().starts_with(begins), "{ran:?}");
        assert!(ran.text().contains(says), "{ran:?}");
    }
    // To stdout and from stdin it is the same file.
    let ran = place.run("s", &[&["prove"], &of[..]].concat()).expect(0);
    assert_eq!(ran.stdout, fs::read(&header).unwrap());
    let mut stdin = command();
    stdin.args(["verify", "-", "--origin", &origin]);
    run_with(stdin, &ran.stdout).expect(0);

    // Somebody else's key, a changed byte, no proof at all, no file.
    place
        .run("other", &["init", "--name", "test.example"])
        .expect(0);
    let (other, _) = place.keys("other");
    verify(&whole, &other).refuses(1, "not signed by");
    let mut bytes = fs::read(&whole).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    fs::write(&whole, &bytes).unwrap();
    assert!([1, 2].contains(&verify(&whole, &origin).status));
    fs::write(&whole, "something else\n").unwrap();
    verify(&whole, &origin).refuses(2, "no kind known here");
    verify(&place.path("none"), &origin).refuses(3, "none");
    verify(&header, "not a key").refuses(2, "--origin");
    // A file that is there is left alone.
    let taken = ["prove", "-o", header.to_str().unwrap()];
    place
        .run("s", &[&taken[..], &of[..]].concat())
        .refuses(3, "header.proof");
    verify(&header, &origin).expect(0);
}

#[test]
fn a_head_is_extended_by_the_next() {
    let place = Place::new();
    place.with_sample("s");
    let (origin, _) = place.keys("s");
    let old = place.path("old.head");
    fs::write(&old, place.run("s", &["head"]).expect(0).stdout).unwrap();
    verify(&old, &origin).expect(0);
    let append = |context: &str| {
        let one = [
            "append",
            "--context",
            context,
            "--key",
            "k",
            "--payload",
            "p",
        ];
        place.run("s", &one).expect(0);
    };
    append("packages");
    append("new");
    let old_text = old.to_str().unwrap();
    let store = prove(&place, "store.proof", &["--consistency", old_text]);
    let ran = verify(&store, &origin).expect(0);
    assert!(
        ran.text()
            .starts_with("proven: all 1 contexts and 2000 entries"),
        "{ran:?}"
    );
    // What is new needs no proof and is not disclosed.
    let text = fs::read_to_string(&store).unwrap();
    assert!(text.contains("context packages\n") && !text.contains("context new\n"));
    for (context, says) in [
        ("packages", "extends the 2000 entries"),
        ("new", "did not exist"),
    ] {
        let of = ["--context", context, "--consistency", old_text];
        let file = prove(&place, &format!("{context}.proof"), &of);
        let ran = verify(&file, &origin).expect(0);
        assert!(ran.text().contains(says), "{ran:?}");
    }
    // A head of somebody else's, and one this copy does not have yet.
    place.run("other", &["init"]).expect(0);
    let foreign = place.path("foreign.head");
    fs::write(&foreign, place.run("other", &["head"]).expect(0).stdout).unwrap();
    let of = |file: &Path| ["prove", "--consistency", file.to_str().unwrap()].map(String::from);
    let ran = |file: &Path| {
        let of = of(file);
        place.run("s", &[&of[0], &of[1], &of[2]])
    };
    ran(&foreign).refuses(2, "the older head");
    fs::write(&foreign, "no head\n").unwrap();
    ran(&foreign).refuses(2, "the older head");
}

#[test]
fn get_verifies_what_it_prints() {
    let place = Place::new();
    place.with_sample("s");
    let get = ["get", "--context", "packages", "--json", "--limit", "300"];
    let plain = place.run("s", &get).expect(0);
    let verified = place
        .run("s", &[&get[..], &["--verify"]].concat())
        .expect(0);
    assert_eq!(plain.stdout, verified.stdout);
    assert!(
        verified
            .stderr
            .contains("verified 300 entries under head 1.2 of test.example"),
        "{}",
        verified.stderr
    );
    let server = [
        "get",
        "--context",
        "c",
        "--verify",
        "--server",
        "http://127.0.0.1:1",
    ];
    let mut command = command();
    command.args(server);
    run_with(command, b"").refuses(2, "needs the directory");
    place
        .run("s", &["prove", "--context", "none", "--sequence", "1"])
        .refuses(3, "context none is not in head");
    place
        .run(
            "s",
            &["prove", "--context", "packages", "--sequence", "2001"],
        )
        .refuses(3, "covers 2000 entries");
    place
        .run("s", &["prove", "--context", "packages"])
        .expect(2);
}
