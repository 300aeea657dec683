//! Versions of adapters: what was trained comes back to the bit, and goes on as it did the first time.

use loralab::error::Kind;
use serde_json::json;

use crate::support::{self, Session, numbers, says};

const SETTINGS: &str = "--steps 5 --batch-size 4 --learning-rate 1e-2 --valid 0.25";

/// A session with data `rows` and an adapter `a` with dropout that was trained.
fn trained(name: &str) -> Session {
    let s = Session::with(name, "llama");
    let rows = s.file("rows.jsonl", &support::questions());
    s.ok(&format!("data {rows} --name rows\nattach-lora a --rank 4 --dropout 0.1\ntrain rows {SETTINGS}"));
    s
}

#[test]
fn going_on_after_a_restore_is_what_it_was_the_first_time() {
    let s = trained("versions-again");
    let at_first = s.loss("rows", "a");
    s.ok("snapshot --label good");
    let first = s.ok("train --more 4");
    let expected = s.loss("rows", "a");
    let restored = s.ok("restore a@good");
    assert_eq!((&restored["version"], &restored["steps"]), (&json!(1), &json!(5)));
    assert_eq!(s.loss("rows", "a"), at_first);
    let second = s.ok("train --more 4");
    for key in ["losses", "grad_norms", "learning_rates"] {
        assert_eq!(numbers(&second[key]), numbers(&first[key]), "{key}");
    }
    assert_eq!(s.loss("rows", "a"), expected);
    // The first one's run stays whole, and the second is a run of its own.
    assert_ne!(first["run"], second["run"]);
    let run = s.ok(&format!("runs {}", first["run"].as_str().unwrap()));
    assert_eq!(numbers(&run["losses"]).len(), 9);
    let run = s.ok(&format!("runs {}", second["run"].as_str().unwrap()));
    assert_eq!(numbers(&run["losses"]).len(), 9);
    let versions = s.ok("adapters a")["versions"].clone();
    let of = |key: &str| versions.as_array().unwrap().iter().map(|v| v[key].clone()).collect::<Vec<_>>();
    assert_eq!(json!(of("parent")), json!([null, 0, 1, 1]));
    assert_eq!(json!(of("current")), json!([false, false, false, true]));
    // Back to before the last training, and to the start.
    assert_eq!(s.ok("restore a")["version"], 1);
    assert_eq!(s.ok("restore a@0")["steps"], 0);
    assert_eq!(s.loss("rows", "a"), s.loss("rows", "base"));
}

#[test]
fn branches_go_their_own_way() {
    let s = trained("versions-branch");
    let at_first = s.loss("rows", "a");
    let first = s.ok("train --more 4");
    let expected = s.loss("rows", "a");
    assert_eq!(s.ok("branch a b --from 1")["steps"], 5);
    assert_eq!(s.loss("rows", "b"), at_first);
    let other = s.ok("train --more 4");
    assert_eq!(numbers(&other["losses"]), numbers(&first["losses"]));
    assert_ne!(other["run"], first["run"]);
    assert_eq!((s.loss("rows", "a"), s.loss("rows", "b")), (expected, expected));
    s.ok("rename b c\nrestore c\ndrop a --force");
    assert_eq!(s.loss("rows", "c"), at_first);
}

#[test]
fn what_is_no_version_is_refused() {
    let s = trained("versions-wrong");
    s.ok("snapshot a --label good");
    let loss = s.loss("rows", "a");
    says(&s.fails("restore a@goof"), Kind::NotFound, &["a has no version goof"], "a@good");
    says(&s.fails("restore b"), Kind::NotFound, &["no adapter b"], "a");
    says(&s.fails("restore a@"), Kind::NotFound, &["no version"], "good");
    says(&s.fails("snapshot --label 3"), Kind::Usage, &["--label 3"], "--label");
    says(&s.fails("snapshot --label \"a b\""), Kind::Usage, &["cannot name a version"], "letters");
    says(&s.fails("branch a a"), Kind::State, &["there is an adapter a already"], "drop a");
    says(&s.fails("branch a b --from 9"), Kind::NotFound, &["no version 9"], "good");
    says(&s.fails("branch a base"), Kind::Usage, &["base"], "letters");
    says(&s.fails("drop a@9"), Kind::NotFound, &["no version 9"], "good");
    assert_eq!(s.loss("rows", "a"), loss);
    // A version that is gone leaves the adapter where it stands; a snapshot finds the optimizer in the run.
    s.ok("drop a@good");
    says(&s.fails("restore a"), Kind::State, &["not trained on from"], "restore a@VERSION");
    assert_eq!(s.ok("snapshot a")["version"], 2);
    s.ok("merge");
    says(&s.fails("restore a@0"), Kind::State, &["a is merged"], "unmerge");
    s.ok("unmerge\nattach-lora a --rank 2 --replace");
    assert_eq!(s.ok("adapters a")["versions"].as_array().unwrap().len(), 1);
}
