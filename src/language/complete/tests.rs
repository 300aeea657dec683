use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, Command};

use super::*;

fn verbs() -> Vec<Command> {
    let flag = |name: &'static str| Arg::new(name).long(name).help("flag");
    vec![
        Command::new("load")
            .about("loads")
            .arg(Arg::new("source").value_name("SOURCE"))
            .arg(flag("dtype").value_parser(PossibleValuesParser::new(["auto", "f32", "bf16"])))
            .arg(flag("reload").action(ArgAction::SetTrue)),
        Command::new("load-adapter").arg(Arg::new("dir").value_name("DIR")),
        Command::new("train")
            .arg(Arg::new("data").value_name("DATA"))
            .arg(flag("steps").value_name("N"))
            .arg(flag("schedule").value_parser(PossibleValuesParser::new(["linear", "cosine"])))
            .arg(flag("secret").hide(true))
            .arg(flag("mix").action(ArgAction::Append)),
        Command::new("eval")
            .arg(Arg::new("data").value_name("DATA").num_args(1..))
            .arg(flag("adapters").value_name("NAME")),
        Command::new("use").arg(Arg::new("names").value_name("NAME").num_args(0..)),
        Command::new("session")
            .subcommand(Command::new("save").arg(Arg::new("file").long("force")))
            .subcommand(Command::new("load")),
        Command::new("hidden").hide(true),
    ]
}

fn names() -> Names {
    let list =
        |items: &[&str]| items.iter().map(|text| Name { text: text.to_string(), about: "known".to_owned() }).collect();
    Names {
        variables: list(&["rank", "ratio", "last"]),
        adapters: list(&["r16", "r8"]),
        data: list(&["questions", "my rows"]),
        ..Names::default()
    }
}

fn scope<'a>(verbs: &'a [Command], names: &'a Names) -> Scope<'a> {
    Scope { verbs, names, paths: &crate::files::paths }
}

/// The candidates at the end of `text`, files left out, and what they replace.
fn at_end(text: &str) -> (String, Vec<String>) {
    let (start, found) = complete(text, text.len(), scope(&verbs(), &names()));
    let known = |c: &Candidate| !std::path::Path::new(c.text.trim_end_matches('/')).exists();
    (text[start..].to_owned(), found.iter().filter(|c| known(c)).map(|c| c.text.clone()).collect())
}

#[track_caller]
fn check(text: &str, replaced: &str, expected: &[&str]) {
    assert_eq!(at_end(text), (replaced.to_owned(), expected.iter().map(ToString::to_string).collect()), "{text:?}");
}

#[test]
fn statements_begin_with_verbs() {
    check("lo", "lo", &["load", "load-adapter"]);
    check("load demo\ntr", "tr", &["train"]);
    check("for d in (a b): ev", "ev", &["eval"]);
    check("%%d", "%%d", &["%%data"]);
    check("fo", "fo", &["for"]);
    check("time tr", "tr", &["train"]);
    check("time train x --steps 5 --s", "--s", &["--schedule"]);
    let all = at_end("").1;
    assert!(all.contains(&"session".to_owned()) && !all.contains(&"hidden".to_owned()), "{all:?}");
}

#[test]
fn help_takes_topics() {
    check("help tr", "tr", &["train"]);
    check("?tr", "tr", &["train"]);
    check("? tr", "tr", &["train"]);
}

#[test]
fn flags_are_offered_once_unless_they_repeat() {
    check("train x --s", "--s", &["--steps", "--schedule"]);
    check("train x --steps 5 --s", "--s", &["--schedule"]);
    check("train x --steps=5 --s", "--s", &["--schedule"]);
    check("train x --mix a --m", "--m", &["--mix"]);
    check("session save --", "--", &["--force", "--help"]);
    check("load demo ", "", &["--dtype", "--reload", "--help"]);
}

#[test]
fn values_come_from_the_definition_and_the_session() {
    check("load demo --dtype ", "", &["auto", "f32", "bf16"]);
    check("load demo --dtype=b", "b", &["bf16"]);
    check("load demo --dtype f32 --re", "--re", &["--reload"]);
    check("eval x --adapters ", "", &["base", "r16", "r8"]);
    check("eval x --adapters base,r1", "r1", &["r16"]);
    check("eval x --adapters (base r1", "r1", &["r16"]);
    check("use r", "r", &["r16", "r8"]);
    check("use r8 r1", "r1", &["r16"]);
    check("train que", "que", &["questions"]);
    check("eval questions que", "que", &["questions"]);
    check("load de", "de", &["demo"]);
    check("train x --steps ", "", &[]);
    check("session ", "", &["save", "load"]);
}

#[test]
fn names_with_blanks_are_quoted() {
    check("train my", "my", &["'my rows'"]);
    check("train \"my", "my", &["my rows\""]);
}

#[test]
fn variables_are_offered_everywhere_but_in_literal_text() {
    check("train $ra", "ra", &["rank", "ratio"]);
    check("echo \"a ${la", "la", &["last}"]);
    check("!ls $ra", "ra", &["rank", "ratio"]);
    check("x = $l", "l", &["last"]);
    check("echo '$ra", "$ra", &[]);
    check("echo $last.lo", "$last.lo", &[]);
}

#[test]
fn files_are_offered_where_they_make_sense() {
    let files = |text: &str| {
        complete(text, text.len(), scope(&verbs(), &names())).1.into_iter().map(|c| c.text).collect::<Vec<_>>()
    };
    for text in ["load-adapter src/ma", "train src/ma", "load src/ma", "!cat src/ma", "load \"src/ma"] {
        assert!(files(text)[0].starts_with("src/main.rs"), "{text}: {:?}", files(text));
    }
    assert_eq!(files("load \"src/ma"), ["src/main.rs\""]);
    assert_eq!(files("load tes"), ["tests/"]);
    assert!(files("use src/ma").is_empty());
}

#[test]
fn nothing_is_offered_where_nothing_can_be_known() {
    for text in ["dance --", "# lo", "%%data x\nlo", "echo a", "'lo", "!l", "x = r", "train x y"] {
        check(text, &text[complete(text, text.len(), scope(&verbs(), &names())).0..], &[]);
    }
    for (text, cursor) in [("ä", 1), ("load", 99)] {
        assert_eq!(complete(text, cursor, scope(&verbs(), &names())), (cursor, vec![]));
    }
    assert_eq!(complete("lo demo", 2, scope(&verbs(), &names())).1.len(), 2);
}
