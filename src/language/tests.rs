use serde_json::{Map, Value, json};

use super::*;
use crate::error::Kind;

mod random;

fn variables() -> Map<String, Value> {
    let Value::Object(variables) = json!({
        "rank": 16,
        "lr": 2e-4,
        "whole": 16.0,
        "file": "train",
        "prompt": "it's a \"test\" $5",
        "ranks": [8, 16, 32],
        "odd": ["a,b", "c\"d", ""],
        "flag": true,
        "last": {"loss": 2.5, "rows": [{"loss": 0.5, "adapter": "r16"}], "eval_losses": []},
    }) else {
        panic!("an object is written above")
    };
    variables
}

/// The arguments of a command, in brackets where they are lists.
fn arguments(text: &str) -> Vec<String> {
    let statements = parse(text).unwrap_or_else(|e| panic!("{text}: {e:?}"));
    let [Statement { kind: StatementKind::Command { words }, .. }] = statements.as_slice() else {
        panic!("{text}: {statements:?}")
    };
    let arguments = expand(words, &variables()).unwrap_or_else(|e| panic!("{text}: {e:?}"));
    arguments
        .into_iter()
        .skip(1)
        .map(|argument| match argument.items {
            Some(items) => format!("{} <{}>", argument.text, items.join("|")),
            None => argument.text,
        })
        .collect()
}

fn value(text: &str) -> Value {
    let statements = parse(text).unwrap_or_else(|e| panic!("{text}: {e:?}"));
    match &statements[0].kind {
        StatementKind::Assign { value, .. } => {
            evaluate(value, &variables()).unwrap_or_else(|e| panic!("{text}: {e:?}"))
        }
        other => panic!("{text}: {other:?}"),
    }
}

/// The error of a text that does not parse: what it points at, and its hint.
fn failure(text: &str) -> (&str, String) {
    let error = parse(text).expect_err(text);
    assert_eq!(error.kind(), Kind::Usage, "{text}");
    let hint = error.hint_text().unwrap_or_else(|| panic!("{text}: no hint")).to_string();
    (&text[error.span().unwrap_or_else(|| panic!("{text}: no span"))], hint)
}

#[test]
fn words_are_what_they_were_meant_to_be() {
    let cases: &[(&str, &[&str])] = &[
        ("e a  b\tc", &["a", "b", "c"]),
        ("e a \\\n  b \\  \n c", &["a", "b", "c"]),
        ("e a # b", &["a"]),
        ("e a#b #c", &["a#b"]),
        ("e \"a b\" 'c d'", &["a b", "c d"]),
        (r#"e "a\"b\\c\n\t\$rank\d""#, &["a\"b\\c\n\t$rank\\d"]),
        (r"e 'a\n$rank'", &[r"a\n$rank"]),
        ("e \"\"\"say \"hi\"\nto $rank\"\"\" x", &["say \"hi\"\nto 16", "x"]),
        ("e \"a\r\nb\" 'c\r\nd'", &["a\nb", "c\nd"]),
        ("e \"a\\\nb\"", &["ab"]),
        (r#"e 'it'"'"'s' --x="a b"c"#, &["it's", "--x=a bc"]),
        ("e \"\" ''", &["", ""]),
        (
            r"e .*\.(q|v)_proj (q|v)_proj foo(bar) model.layers.[0-9] [qk]_proj",
            &[r".*\.(q|v)_proj", "(q|v)_proj", "foo(bar)", "model.layers.[0-9]", "[qk]_proj"],
        ),
        (
            r"e layers\.[0-9]{1,2}\.q C:\dir\file a:0.7 :) 1.10 2e-4",
            &[r"layers\.[0-9]{1,2}\.q", r"C:\dir\file", "a:0.7", ":)", "1.10", "2e-4"],
        ),
        ("e größe 日本語 'é è'", &["größe", "日本語", "é è"]),
        ("e a\u{a0}b", &["a", "b"]),
        ("\u{feff}e a\r\n", &["a"]),
        ("e a \\\r\n b", &["a", "b"]),
        ("e C:\\dir\\", &["C:\\dir"]),
    ];
    for (text, wanted) in cases {
        assert_eq!(&arguments(text), wanted, "{text}");
    }
}

#[test]
fn lists_mean_the_same_however_they_are_written() {
    let cases: &[(&str, &[&str])] = &[
        ("e (8 16 32)", &["8,16,32 <8|16|32>"]),
        ("e [8, 16,32]", &["8,16,32 <8|16|32>"]),
        ("e 8,16,32", &["8,16,32 <8|16|32>"]),
        ("e $ranks", &["8,16,32 <8|16|32>"]),
        ("e ${ranks}", &["8,16,32 <8|16|32>"]),
        ("e --rank (8 16) x", &["--rank", "8,16 <8|16>", "x"]),
        ("e --rank=(8 16) x", &["--rank=8,16 <8|16>", "x"]),
        ("e --rank=[8,16]", &["--rank=8,16 <8|16>"]),
        ("e --rank=8,16", &["--rank=8,16 <8|16>"]),
        ("e --rank=$ranks", &["--rank=8,16,32 <8|16|32>"]),
        ("e (\n 8 # eight\n\n 16\n)", &["8,16 <8|16>"]),
        ("e [\r\n8,\r\n16\r\n]", &["8,16 <8|16>"]),
        ("e (8 \\\n16)", &["8,16 <8|16>"]),
        ("e ('a b' \"c,d\" e)", &["a b,\"c,d\",e <a b|c,d|e>"]),
        ("e $odd", &["\"a,b\",\"c\"\"d\",\"\" <a,b|c\"d|>"]),
        ("e 'a,b',c", &["a,b,c <a,b|c>"]),
        ("e 'a,b' \"8,16\"", &["a,b", "8,16"]),
        ("e ($rank $ranks)", &["16,8,16,32 <16|8|16|32>"]),
        ("e $ranks,64", &["8,16,32,64 <8|16|32|64>"]),
        ("e x$ranks \"$ranks\"", &["x8,16,32", "8,16,32"]),
        (
            r"e (.*\.(q|v)_proj (a|b)c foo(x,y))",
            &[r#".*\.(q|v)_proj,(a|b)c,"foo(x,y)" <.*\.(q|v)_proj|(a|b)c|foo(x,y)>"#],
        ),
        ("e [model.layers.[0-9], b]", &["model.layers.[0-9],b <model.layers.[0-9]|b>"]),
        ("e [[1, 2], (3 4)]", &["\"1,2\",\"3,4\" <1,2|3,4>"]),
        ("e () [] (8)", &[" <>", " <>", "8 <8>"]),
        ("e hello, world", &["hello, <hello>", "world"]),
        ("e (8 16) # c", &["8,16 <8|16>"]),
    ];
    for (text, wanted) in cases {
        assert_eq!(&arguments(text), wanted, "{text}");
    }
}

#[test]
fn a_list_comes_back_from_its_text() {
    for text in ["e (8 16)", "e $odd", "e ('a b' \"c,d\" e)", "e [[1, 2], (3 4)]", "e ()", "e ('')"] {
        let StatementKind::Command { words } = &parse(text).unwrap()[0].kind else { panic!("{text}") };
        let argument = expand(words, &variables()).unwrap().remove(1);
        assert_eq!(Some(split_items(&argument.text)), argument.items, "{text}");
    }
}

#[test]
fn variables_are_replaced() {
    let cases: &[(&str, &[&str])] = &[
        ("e $rank $lr $whole $flag", &["16", "0.0002", "16", "true"]),
        ("e r$rank ${rank}r $rank-x $rank/$rank", &["r16", "16r", "16-x", "16/16"]),
        ("e $last.loss ${last.rows.0.loss} $last.rows.0.adapter", &["2.5", "0.5", "r16"]),
        (
            "e $file.jsonl data/$file.valid.jsonl ${file}.x $file.",
            &["train.jsonl", "data/train.valid.jsonl", "train.x", "train."],
        ),
        ("e \"loss $last.loss.\" '$rank'", &["loss 2.5.", "$rank"]),
        (
            "e $5 a$ $ $$ ${ ${} ${5} ${a b} $-x proj$|lora",
            &["$5", "a$", "$", "$$", "${", "${}", "${5}", "${a", "b}", "$-x", "proj$|lora"],
        ),
        ("e $prompt", &["it's a \"test\" $5"]),
        ("e $last.eval_losses", &[" <>"]),
    ];
    for (text, wanted) in cases {
        assert_eq!(&arguments(text), wanted, "{text}");
    }
    assert_eq!(arguments("e $last.rows.0"), [r#"{"loss":0.5,"adapter":"r16"}"#]);
}

#[test]
fn what_is_not_there_is_said_with_the_nearest_name() {
    for (text, span, hint) in [
        ("e $rnak", "$rnak", "did you mean $rank?"),
        ("e \"a ${fiel} b\"", "${fiel}", "did you mean $file?"),
        ("e ($zzz)", "$zzz", "set it with zzz = VALUE"),
        ("e $last.los", "$last.los", "did you mean $last.loss?"),
        ("e $last.zzz", "$last.zzz", "it has: loss, rows, eval_losses"),
        ("e $last.rows.1.loss", "$last.rows.1.loss", "it has 1 items, counted from 0"),
        ("e ${file.jsonl}", "${file.jsonl}", "stands outside: ${file}"),
    ] {
        let StatementKind::Command { words } = &parse(text).unwrap()[0].kind else { panic!("{text}") };
        let error = expand(words, &variables()).expect_err(text);
        assert_eq!(error.kind(), Kind::NotFound, "{text}");
        assert_eq!(&text[error.span().unwrap()], span);
        assert!(error.hint_text().unwrap().contains(hint), "{text}: {error:?}");
    }
}

#[test]
fn assignments_have_typed_values() {
    for (text, wanted) in [
        ("lr = 2e-4", json!(2e-4)),
        ("x=-3", json!(-3)),
        ("x =1_000", json!("1_000")),
        ("x= true # yes", json!(true)),
        ("x = null", json!(null)),
        ("x = nothing", json!(null)),
        ("x = \"8\"", json!("8")),
        ("x='a b'", json!("a b")),
        ("x=''", json!("")),
        ("x = demo", json!("demo")),
        ("x = --flag", json!("--flag")),
        ("x = (8 16 32)", json!([8, 16, 32])),
        ("x=(8 16 32)", json!([8, 16, 32])),
        ("x = [8, \"a b\", true, [1, 2]]", json!([8, "a b", true, [1, 2]])),
        ("x = 8,16,32", json!([8, 16, 32])),
        ("x = 8,", json!([8])),
        ("x = ()", json!([])),
        ("x = $rank", json!(16)),
        ("x = $ranks", json!([8, 16, 32])),
        ("x = ($ranks 64)", json!([8, 16, 32, 64])),
        ("x = $last.loss", json!(2.5)),
        ("x = $last.rows", json!([{"loss": 0.5, "adapter": "r16"}])),
        ("x = \"$rank\"", json!("16")),
        ("x = ${rank}r", json!("16r")),
        ("x = \\\n 8", json!(8)),
        ("x = \"\"\"a\nb\"\"\"", json!("a\nb")),
        ("x\t=\t8\r\n", json!(8)),
        ("für = 1", json!(1)),
        ("for = 1", json!(1)),
    ] {
        assert_eq!(value(text), wanted, "{text}");
    }
}

#[test]
fn help_is_found_in_all_its_forms() {
    for (text, wanted) in [
        ("?train", Some("train")),
        ("? attach-lora", Some("attach-lora")),
        ("??train", Some("train")),
        ("train?", Some("train")),
        ("help train", Some("train")),
        ("help train --rank # more", Some("train --rank")),
        ("help # all", None),
        ("?", None),
        ("help", None),
    ] {
        let statements = parse(text).unwrap();
        assert_eq!(statements[0].kind, StatementKind::Help { topic: wanted.map(str::to_string) }, "{text}");
        assert_eq!(statements[0].source(text), text.split('#').next().unwrap().trim());
    }
    assert!(matches!(parse("generate Who are you?").unwrap()[0].kind, StatementKind::Command { .. }));
}

#[test]
fn shell_commands_take_what_is_a_variable_and_leave_the_rest() {
    for (text, wanted) in [
        ("!ls -l", "ls -l"),
        (
            "! echo $file.txt $HOME ${HOME:-x} $(pwd) $1 $$ # kept",
            "echo train.txt $HOME ${HOME:-x} $(pwd) $1 $$ # kept",
        ),
        ("!awk '{print $rank}' \"$rank\"", "awk '{print $rank}' \"16\""),
        (r#"!echo "it's $rank" '$rank' \$rank"#, r#"echo "it's 16" '$rank' \$rank"#),
        ("!echo $prompt", r#"echo 'it'\''s a "test" $5'"#),
        ("!echo \"$prompt\"", r#"echo "it's a \"test\" \$5""#),
        ("!echo $ranks $last.loss", "echo 8 16 32 2.5"),
        ("!echo a \\\n  b", "echo a \\\n  b"),
        ("!echo größe $file", "echo größe train"),
    ] {
        let statements = parse(text).unwrap();
        let StatementKind::Shell { command } = &statements[0].kind else { panic!("{text}: {statements:?}") };
        assert_eq!(expand_shell(command, &variables()).unwrap(), wanted, "{text}");
        assert_eq!(statements.len(), 1);
    }
    let StatementKind::Shell { command } = &parse("!echo $last.los").unwrap()[0].kind else { panic!() };
    assert_eq!(expand_shell(command, &variables()).unwrap_err().kind(), Kind::NotFound);
}

#[test]
fn loops_take_one_statement_or_the_indented_lines() {
    let text = "for d in (jargon devil): train $d --steps 50\nmemory";
    let statements = parse(text).unwrap();
    assert_eq!(statements.len(), 2);
    assert_eq!(statements[0].source(text), "for d in (jargon devil): train $d --steps 50");
    let StatementKind::For { variable, values, body } = &statements[0].kind else { panic!("{statements:?}") };
    assert_eq!(variable, "d");
    assert_eq!(loop_values(values, &variables()).unwrap(), [json!("jargon"), json!("devil")]);
    assert_eq!(body[0].source(text), "train $d --steps 50");

    let text = "for d in (a b):  # both\n\n  # first\n  train $d\n  for r in $ranks :\n\tx = $r\n\n\ty = 1\n  eval $d # done\n\nmemory\n";
    let statements = parse(text).unwrap();
    let StatementKind::For { body, .. } = &statements[0].kind else { panic!("{statements:?}") };
    let sources: Vec<_> = body.iter().map(|statement| statement.source(text)).collect();
    assert_eq!(sources, ["train $d", "for r in $ranks :\n\tx = $r\n\n\ty = 1", "eval $d"]);
    assert_eq!(statements[1].source(text), "memory");
    assert!(statements[0].source(text).ends_with("eval $d"));
}

#[test]
fn loop_values_come_from_words_lists_and_variables() {
    for (header, wanted) in [
        ("(8 16)", json!([8, 16])),
        ("[a, b]", json!(["a", "b"])),
        ("a,b", json!(["a", "b"])),
        ("a b 2e-4", json!(["a", "b", 2e-4])),
        ("$ranks", json!([8, 16, 32])),
        ("$rank", json!([16])),
        ("\"a b\" x:y", json!(["a b", "x:y"])),
        ("()", json!([])),
        ("(\n8\n16\n)", json!([8, 16])),
    ] {
        for tail in [": e", ":\n  e", ":e"] {
            let text = format!("for d in {header}{tail}");
            if tail == ":e" && !header.ends_with([')', ']']) {
                assert!(parse(&text).is_err(), "{text}");
                continue;
            }
            let statements = parse(&text).unwrap_or_else(|e| panic!("{text}: {e:?}"));
            let StatementKind::For { values, body, .. } = &statements[0].kind else { panic!("{statements:?}") };
            assert_eq!(Value::Array(loop_values(values, &variables()).unwrap()), wanted, "{text}");
            assert_eq!(body.len(), 1, "{text}");
        }
    }
}

#[test]
fn loops_in_loops_stand_on_one_line_or_several() {
    for text in [
        "for a in (1 2): for b in (3 4): e $a $b",
        "for a in (1 2): for b in (3 4):\n  e $a $b",
        "for a in (1 2):\n  for b in (3 4): e $a $b",
        "for a in (1 2):\r\n  for b in (3 4):\r\n    e $a $b\r\n",
    ] {
        let statements = parse(text).unwrap();
        let StatementKind::For { body, .. } = &statements[0].kind else { panic!("{statements:?}") };
        let StatementKind::For { body, variable, .. } = &body[0].kind else { panic!("{body:?}") };
        assert_eq!((variable.as_str(), body[0].source(text)), ("b", "e $a $b"));
    }
}

#[test]
fn blocks_keep_what_follows_as_it_stands() {
    let cases = [
        ("%%data jargon\n{\"a\": 1}\n# $x \"\n", BlockKind::Data, Some("jargon"), "{\"a\": 1}\n# $x \"\n"),
        ("\n# note\n%%data 'a b' # c\r\nx\r\n%%\r\n", BlockKind::Data, Some("a b"), "x\r\n"),
        ("%%rust\nlet x = 1;", BlockKind::Rust, None, "let x = 1;"),
        ("%%python\n  %%\n%%  \n", BlockKind::Python, None, "  %%\n"),
        ("%%data x", BlockKind::Data, Some("x"), ""),
        ("%%rust\n%%", BlockKind::Rust, None, ""),
    ];
    for (text, wanted_kind, wanted_name, wanted_body) in cases {
        let statements = parse(text).unwrap();
        let StatementKind::Block { kind, name, body, body_span } = &statements[0].kind else {
            panic!("{statements:?}")
        };
        assert_eq!((*kind, name.as_deref(), body.as_str()), (wanted_kind, wanted_name, wanted_body), "{text}");
        assert_eq!(&text[body_span.clone()], body);
        assert_eq!(statements.len(), 1, "{text}");
    }
    let text = "%%data x\nrow\n%%\ntrain x\n%%rust\nfn";
    let sources: Vec<_> = parse(text).unwrap().iter().map(|s| s.source(text).to_string()).collect();
    assert_eq!(sources, ["%%data x\nrow\n%%", "train x", "%%rust\nfn"]);
}

#[test]
fn sources_and_spans_are_those_of_the_text() {
    let text = "\u{feff}load demo  # first\r\n\r\n  # nothing\r\nx = (8\r\n 16)\r\n!ls -l  \r\n";
    let statements = parse(text).unwrap();
    let sources: Vec<_> = statements.iter().map(|s| s.source(text)).collect();
    assert_eq!(sources, ["load demo", "x = (8\r\n 16)", "!ls -l"]);
    let StatementKind::Command { words } = &statements[0].kind else { panic!("{statements:?}") };
    assert_eq!(words.iter().map(|w| &text[w.span.clone()]).collect::<Vec<_>>(), ["load", "demo"]);
}

#[test]
fn errors_point_at_their_cause_and_say_what_to_type() {
    for (text, span, hint) in [
        ("load demo\ngenerate \"Hello", "\"", "close it with `\"`"),
        ("generate don't", "'", "apostrophe"),
        ("e \"\"\"a\nb", "\"\"\"", "close it"),
        ("e (8 16", "(", "close the list with `)`"),
        ("e --rank=[8 16", "[", "close the list with `]`"),
        ("e (8 16)x", "x", "put a blank"),
        ("e is Ada (the poet)?", "?", "quotes"),
        ("x =", "x =", "x = \"\""),
        ("x = # c", "x =", "x = \"\""),
        ("x = hello world", "hello world", "x = \"hello world\""),
        ("x = 8, 16", "8, 16", "x = [8, 16]"),
        ("x == 3", "= 3", "one `=`"),
        ("x ==3", "=3", "one `=`"),
        ("learning-rate = 2e-4", "learning-rate", "learning_rate = VALUE"),
        ("learning-rate=2e-4", "learning-rate", "learning_rate = VALUE"),
        ("$x = 3", "$x", "x = VALUE"),
        ("2x = 3", "2x", "_2x = VALUE"),
        ("(8 16)", "(8 16)", "help"),
        ("for d (a b): x", "for d (a b): x", "for NAME in"),
        ("for d in (a b)", "for d in (a b)", "for NAME in"),
        ("for d in : x", "for d in : x", "for NAME in"),
        ("for", "for", "for NAME in"),
        ("for d in (a b):\nload x", "for d in (a b):", "indent"),
        ("for d in (a b):", "for d in (a b):", "indent"),
        ("train x\n  --steps 5", "  ", "`\\`"),
        ("for d in (a):\n    e\n  e", "  ", "same column"),
        ("for d in (a):\n  %%rust\n  x", "%%rust", "cell of its own"),
        ("%%dta x\nrow", "%%dta", "did you mean %%data?"),
        ("%%py\nrow", "%%py", "did you mean %%python?"),
        ("%%bash\nls", "%%bash", "!command"),
        ("%%zzz", "%%zzz", "%%rust"),
        ("%%data\nrow", "%%data", "%%data NAME"),
        ("%%data a b\nrow", "a b", "%%data NAME"),
        ("%%data $x\nrow", "$x", "%%data NAME"),
        ("%%rust x\nrow", "x", "lines below"),
        ("%%\n", "%%", "%%data NAME"),
        ("!", "!", "!ls"),
        ("!  \n", "!", "!ls"),
    ] {
        let (seen_span, seen_hint) = failure(text);
        assert_eq!(seen_span, span, "{text}");
        assert!(seen_hint.contains(hint), "{text}: {seen_hint}");
    }
}

#[test]
fn the_quote_that_was_forgotten_is_pointed_at_not_the_last_one() {
    let text = "generate \"Hello\nload \"demo\"\n";
    let error = parse(text).unwrap_err();
    assert_eq!(error.span(), Some(9..10));
}

#[test]
fn nesting_has_an_end() {
    let lists = format!("e {}8", "(".repeat(100_000));
    assert!(parse(&lists).unwrap_err().message().contains("deeper"));
    let loops = "for a in (1): ".repeat(10_000) + "e";
    assert!(parse(&loops).unwrap_err().message().contains("deeper"));
    assert!(parse(&("for a in (1): ".repeat(20) + "e")).is_ok());
}

#[test]
fn a_parser_that_met_an_error_goes_on() {
    let text = "x =\nload demo\ne (8 16)x\nmemory";
    let (statements, errors) = parse_recovering(text);
    assert_eq!(errors.len(), 2);
    assert_eq!(statements.iter().map(|s| s.source(text)).collect::<Vec<_>>(), ["load demo", "e (8 16)x", "memory"]);
}

#[test]
fn parameters_that_papermill_writes_parse() {
    let bash =
        "# Parameters\nrank=16\nname='a b'\nranks=(8 16 32)\nflag=true\nnone=''\nword='it'\"'\"'s'\ntext='a\nb'\n";
    let julia = "# Parameters\nrank = 16\nname = \"a b\"\nranks = [8, 16, 32]\nflag = true\nnone = nothing\nword = \"it's\"\ntext = \"a\\nb\"\n";
    for (text, none) in [(bash, json!("")), (julia, json!(null))] {
        let values: Vec<_> = parse(text)
            .unwrap()
            .iter()
            .map(|statement| match &statement.kind {
                StatementKind::Assign { value, .. } => evaluate(value, &variables()).unwrap(),
                other => panic!("{other:?}"),
            })
            .collect();
        let wanted = [json!(16), json!("a b"), json!([8, 16, 32]), json!(true), none, json!("it's"), json!("a\nb")];
        assert_eq!(values, wanted, "{text}");
    }
}
