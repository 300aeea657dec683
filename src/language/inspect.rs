//! What the word at the cursor is: help on a command or a flag, what a name of the session stands for.

use clap::{Arg, Command};

use super::complete::{Line, find, open_flag};
use super::{Name, Names, value_text};

/// An explanation, plain and in Markdown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspection {
    pub text: String,
    pub markdown: String,
}

/// What stands at `cursor` (in bytes) of `text`; none if nothing is known about it. Behind the words of a command it is
/// the command.
#[must_use]
pub fn inspect(text: &str, cursor: usize, verbs: &[Command], names: &Names) -> Option<Inspection> {
    let rest = text.get(cursor..)?;
    let ends = |c: char| c.is_whitespace() || "=,()[]\"'?}".contains(c);
    let before = &text[..cursor + rest.find(ends).unwrap_or(rest.len())];
    let line = Line::at_end_of(before)?;
    let item = before[line.start..].trim_matches('?');
    if let Some(found) = variable(item, names) {
        return Some(found);
    }
    let Some((verb, words)) = line.words.split_first() else { return Some(describe(find(verbs, item)?)) };
    let topic = verb.strip_prefix('?').unwrap_or(verb);
    let command = find(verbs, if topic == "help" { item } else { topic });
    if line.word.starts_with("--") {
        let name = line.word.split('=').next().unwrap_or_default();
        let flag = command?.get_arguments().find(|arg| arg.get_long() == name.strip_prefix("--"));
        if let Some(flag) = flag.filter(|_| line.word == name || named(item, names).is_none()) {
            return Some(explain(flag));
        }
    }
    let flag = || open_flag(command?, words).filter(|_| !item.is_empty());
    named(item, names).or_else(|| flag().map(explain)).or_else(|| command.map(describe))
}

/// Help on a command.
#[must_use]
pub fn describe(command: &Command) -> Inspection {
    let mut command = command.clone();
    let text = command.render_long_help().to_string().trim_end().to_owned();
    let usage = command.render_usage().to_string();
    let about =
        |long: &Command| long.get_long_about().or(long.get_about()).map(ToString::to_string).unwrap_or_default();
    let mut markdown = format!("`{}`\n\n{}\n", usage.trim_start_matches("Usage:").trim(), about(&command).trim_end());
    let rows = |arguments: Vec<&Arg>, title: &str| {
        let row =
            |arg: &&Arg| format!("| {} | {} | {} |\n", code(&written(arg)), cell(&help(arg)), code(&default(arg)));
        let rows: String = arguments.iter().filter(|arg| !arg.is_hide_set()).map(row).collect();
        if rows.is_empty() { rows } else { format!("\n| {title} | what | default |\n|---|---|---|\n{rows}") }
    };
    markdown += &rows(command.get_positionals().collect(), "argument");
    markdown += &rows(command.get_opts().chain(switches(&command)).collect(), "flag");
    Inspection { text, markdown }
}

fn switches(command: &Command) -> impl Iterator<Item = &Arg> {
    let is_switch = |arg: &&Arg| !arg.is_positional() && !arg.get_action().takes_values() && arg.get_id() != "help";
    command.get_arguments().filter(is_switch)
}

/// A flag or an argument, what it does and takes.
fn explain(arg: &Arg) -> Inspection {
    let mut text = format!("{}\n\n{}", written(arg), help(arg));
    let mut markdown = format!("`{}`\n\n{}", written(arg), help(arg));
    let default = default(arg);
    if !default.is_empty() {
        text += &format!("\ndefault: {default}");
        markdown += &format!("\n\ndefault: `{default}`");
    }
    Inspection { text, markdown }
}

/// An argument as it is written, with its values.
fn written(arg: &Arg) -> String {
    let possible = arg.get_possible_values();
    let names = arg.get_value_names().unwrap_or_default();
    let value = match (arg.get_action().takes_values(), possible.is_empty()) {
        (false, _) => String::new(),
        (true, true) => {
            names.first().map(ToString::to_string).unwrap_or_else(|| arg.get_id().to_string().to_uppercase())
        }
        (true, false) => possible.iter().map(|value| value.get_name()).collect::<Vec<_>>().join("|"),
    };
    match arg.get_long() {
        Some(long) => format!("--{long} {value}").trim_end().to_owned(),
        None => value,
    }
}

fn help(arg: &Arg) -> String {
    arg.get_long_help().or(arg.get_help()).map(ToString::to_string).unwrap_or_default()
}

fn default(arg: &Arg) -> String {
    let values = arg.get_default_values().iter().map(|value| value.to_string_lossy());
    if arg.get_action().takes_values() { values.collect::<Vec<_>>().join(",") } else { String::new() }
}

/// Text as a cell of a Markdown table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").split_whitespace().collect::<Vec<_>>().join(" ")
}

fn code(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("`{}`", text.replace('|', "\\|")) }
}

/// The variable that is meant by `$name`, or by its bare name.
fn variable(item: &str, names: &Names) -> Option<Inspection> {
    let name = item[item.rfind('$')? + 1..].trim_start_matches('{');
    let name = name.split(['.', '}']).next().unwrap_or_default();
    let value = names.values.get(name)?;
    Some(shown(&format!("variable {name}"), &value_text(value)))
}

fn named(item: &str, names: &Names) -> Option<Inspection> {
    let lists = [("adapter", &names.adapters), ("data set", &names.data)];
    let mut found = lists.into_iter().flat_map(|(kind, list)| list.iter().map(move |name| (kind, name)));
    let (kind, Name { text, about }) = found.find(|(_, name)| name.text == item)?;
    let active = kind == "adapter" && names.active.contains(text);
    Some(shown(&format!("{}{kind} {text}", if active { "active " } else { "" }), about))
}

fn shown(title: &str, about: &str) -> Inspection {
    Inspection { text: format!("{title}\n\n{about}"), markdown: format!("**{title}**\n\n```text\n{about}\n```") }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use clap::ArgAction;
    use clap::builder::PossibleValuesParser;
    use serde_json::json;

    use super::*;

    fn seen(text: &str) -> Option<String> {
        let at = text.find('^').expect("a place is marked");
        let schedule = Arg::new("schedule").long("schedule").help("Shape|curve").default_value("linear");
        let verbs = [
            Command::new("train")
                .about("Trains")
                .arg(Arg::new("data").value_name("DATA").help("What to learn"))
                .arg(schedule.value_parser(PossibleValuesParser::new(["linear", "cosine"])))
                .arg(Arg::new("pack").long("pack").action(ArgAction::SetTrue).help("Joins")),
            Command::new("eval").about("Scores"),
        ];
        let list = |text: &str| vec![Name { text: text.to_owned(), about: format!("about {text}") }];
        let names = Names {
            adapters: list("r16"),
            data: list("rows"),
            active: vec!["r16".to_owned()],
            values: Arc::new(json!({"rank": 16}).as_object().unwrap().clone()),
            ..Names::default()
        };
        inspect(&text.replace('^', ""), at, &verbs, &names).map(|found| found.markdown)
    }

    #[test]
    fn the_word_at_the_cursor_is_explained() {
        for (text, expected) in [
            ("train^", "`train"),
            ("tr^ain rows", "`train"),
            ("^train", "`train"),
            ("?train^", "`train"),
            ("train^?", "`train"),
            ("help tr^ain", "`train"),
            ("train ^", "`train"),
            ("train other^", "`train"),
            ("train --schedule^ cosine", "`--schedule linear|cosine`"),
            ("train --sch^edule=cosine", "`--schedule linear|cosine`"),
            ("train --schedule=cos^ine", "`--schedule linear|cosine`"),
            ("train --schedule cos^", "`--schedule linear|cosine`"),
            ("train ro^ws", "**data set rows**"),
            ("eval --adapters base,r1^6", "**active adapter r16**"),
            ("echo $ra^nk", "**variable rank**\n\n```text\n16"),
            ("echo \"😀 ${rank^}\"", "**variable rank**"),
            ("load x\ntrain^", "`train"),
        ] {
            let found = seen(text).unwrap_or_else(|| panic!("{text}: nothing"));
            assert!(found.starts_with(expected), "{text}: {found}");
        }
        for text in ["^", "nothing^", "# train^", "echo $nope^", "train --nope=^'", "%%data x\ntrain^"] {
            let found = seen(text);
            assert!(found.is_none() || text.starts_with("train"), "{text}: {found:?}");
        }
    }

    #[test]
    fn help_is_a_table_of_flags() {
        let markdown = seen("train^").unwrap();
        assert!(markdown.contains("| `--schedule linear\\|cosine` | Shape\\|curve | `linear` |\n"), "{markdown}");
        assert!(markdown.contains("| `--pack` | Joins |  |\n"), "{markdown}");
        assert!(markdown.contains("| `DATA` | What to learn |  |\n"), "{markdown}");
    }
}
