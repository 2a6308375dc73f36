//! The command line, of a server that holds several origins.

use std::process::Command;

use converge_ledger::rpc::Places;
use converge_ledger::store::StoreRole;
use serde_json::Value;

use crate::mirrors::{Mirrored, fill};
use crate::support::{Served, Setup, place, within};

/// Runs it: exit status, stdout, stderr.
async fn run(served: &Served, arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_converge-ledger"));
    for name in ["DATA", "SERVER", "GUARD", "LOG"] {
        command.env_remove(format!("CONVERGE_LEDGER_{name}"));
    }
    command.args(arguments);
    command.args(["--server", &format!("http://{}", served.address)]);
    let running = tokio::task::spawn_blocking(move || command.output().unwrap());
    let ran = within(running).await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (
        ran.status.code().unwrap(),
        text(ran.stdout),
        text(ran.stderr),
    )
}

async fn prints(served: &Served, arguments: &[&str]) -> String {
    let (status, out, err) = run(served, arguments).await;
    assert_eq!((status, err.as_str()), (0, ""), "{arguments:?}");
    out
}

/// The last two words of each line: what comes before the root is its size.
fn last_words(text: &str) -> Vec<String> {
    let words = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        words[words.len() - 2..].join(" ")
    };
    text.lines().map(words).collect()
}

#[tokio::test]
async fn reading_commands_choose_an_origin() {
    let ((place_a, a), (place_b, b)) = (Mirrored::new("a.example"), Mirrored::new("b.example"));
    let (place_own, own, _) = place(StoreRole::Own, "own.example");
    let places = Places::new(vec![place_b, place_a, place_own]).unwrap();
    let served = Setup::default().serve(places);
    fill(&own, "mine", &["own"]);
    a.append("both", &["of a"]);
    a.append("one", &["of a"]);
    b.append("both", &["of b", "again"]);

    // Every origin, each line with its own.
    let listed = prints(&served, &["contexts"]).await;
    let expected = [
        "own.example mine",
        "a.example both",
        "a.example one",
        "b.example both",
    ];
    assert_eq!(last_words(&listed), expected);
    let json = prints(&served, &["contexts", "--json"]).await;
    let line = |line: &str| -> Value { serde_json::from_str(line).unwrap() };
    let lines: Vec<Value> = json.lines().map(line).collect();
    assert_eq!(lines.len(), 4);
    assert_eq!(
        (&lines[3]["origin"], &lines[3]["size"]),
        (&"b.example".into(), &2.into())
    );
    // One origin: lines as ever.
    let of_a = ["contexts", "--origin", "a.example"];
    let listed = prints(&served, &of_a).await;
    assert_eq!(listed.lines().count(), 2);
    assert!(!listed.contains("example"), "{listed}");

    let get = ["get", "--context", "both"];
    let (status, out, err) = run(&served, &get).await;
    assert_eq!((status, out.as_str()), (3, ""));
    for said in ["FAILED_PRECONDITION", "a.example, b.example", "--origin"] {
        assert!(err.contains(said), "{err}");
    }
    let of_b = |command: &[&'static str]| [command, &["--origin", "b.example"]].concat();
    let whole = "1\tk\tof b\n2\tk\tagain\n";
    assert_eq!(prints(&served, &of_b(&get)).await, whole);
    let watch = of_b(&["watch", "--context", "both", "--count", "2"]);
    assert_eq!(prints(&served, &watch).await, whole);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("archive");
    let snapshot = of_b(&["snapshot", "--context", "both", "--json"]);
    let snapshot = [&snapshot[..], &["-o", file.to_str().unwrap()]].concat();
    assert_eq!(line(&prints(&served, &snapshot).await)["size"], 2);

    let stranger = ["get", "--context", "both", "--origin", "c.example"];
    let (status, _, err) = run(&served, &stranger).await;
    assert!(status == 3 && err.contains("NOT_FOUND"), "{err}");
    let wrong = ["get", "--context", "both", "--origin", "c example"];
    assert_eq!(run(&served, &wrong).await.0, 2);
    served.stop().await;
}
