//! Words become statements: commands, assignments, help and loops.
//!
//! Like the lexer it never fails: it notes what is wrong and goes on with the next line.

use std::ops::Range;

use super::highlight::Class;
use super::lexer::{Lexer, MAX_DEPTH, Place, Problem};
use super::word::{PartKind, Word, name_length};
use super::{Statement, StatementKind};
use crate::error::Error;

/// Everything that one pass over a text finds out.
pub(super) struct Parsed {
    pub(super) statements: Vec<Statement>,
    pub(super) problems: Vec<Problem>,
    /// What to colour: in order, without overlap.
    pub(super) marks: Vec<(Range<usize>, Class)>,
    /// The indentation of the next line, if the text ends where another line may well follow.
    pub(super) open: Option<usize>,
}

pub(super) fn parse_all(text: &str) -> Parsed {
    let mut parser = Parser { lexer: Lexer::new(text), depth: 0, open: None };
    let statements = parser.statements(None);
    let open = if parser.lexer.is_continued { Some(4) } else { parser.open };
    Parsed { statements, problems: parser.lexer.problems, marks: parser.lexer.marks, open }
}

pub(super) struct Parser<'t> {
    pub(super) lexer: Lexer<'t>,
    /// Loops around the current statement.
    pub(super) depth: usize,
    pub(super) open: Option<usize>,
}

impl Parser<'_> {
    /// The statements that stand deeper than `parent`, or all that follow.
    fn statements(&mut self, parent: Option<usize>) -> Vec<Statement> {
        let mut statements = Vec::new();
        let mut indent = None;
        loop {
            let line = self.next_line();
            if self.lexer.peek().is_none() {
                if parent.is_some() && indent.is_some() && !ends_with_blank_line(self.lexer.text()) {
                    self.open = self.open.or(indent);
                }
                return statements;
            }
            let column = column(&self.lexer.text()[line..self.lexer.position]);
            if parent.is_some_and(|parent| column <= parent) {
                self.lexer.position = line;
                return statements;
            }
            let expected = *indent.get_or_insert(column);
            if column > expected || (column < expected && parent.is_some()) {
                let span = line..self.lexer.position;
                self.lexer.problem(Error::usage("this line is indented unlike the one above").at(span).hint(
                    "end the line above with `\\` to go on with it here; the lines of a loop all begin in the same column",
                ));
            } else if column < expected {
                indent = Some(column);
            }
            statements.extend(self.statement(column));
        }
    }

    /// Goes to the first word of the next line that has one, or to the end; returns where that line begins.
    fn next_line(&mut self) -> usize {
        loop {
            let line = self.lexer.position;
            self.lexer.space();
            if self.lexer.peek() != Some('\n') {
                return line;
            }
            self.lexer.position += 1;
        }
    }

    /// The statement that begins here, in a line indented by `column`; the line is passed up to its end.
    fn statement(&mut self, column: usize) -> Option<Statement> {
        let start = self.lexer.position;
        let kind = match self.lexer.peek() {
            Some('!') => self.shell(),
            Some('?') => self.help(),
            _ if self.lexer.rest().starts_with("%%") => self.block(),
            _ => match self.assigned_name() {
                Some(name) => self.assignment(name),
                None => self.words(column),
            },
        }?;
        let end = match &kind {
            StatementKind::For { body, .. } => body.last().map_or(self.lexer.position, |last| last.span.end),
            StatementKind::Shell { .. } | StatementKind::Block { .. } => self.lexer.position,
            _ => self.lexer.word_end,
        };
        Some(Statement { kind, span: start..end })
    }

    /// `?topic`, with any number of `?` on either side.
    fn help(&mut self) -> Option<StatementKind> {
        let rest = self.lexer.rest();
        let length = rest.len() - rest.trim_start_matches('?').len();
        self.lexer.mark(self.lexer.position..self.lexer.position + length, Class::Operator);
        self.lexer.position += length;
        self.lexer.word_end = self.lexer.position;
        let words = self.lexer.words();
        Some(StatementKind::Help { topic: self.topic(&words) })
    }

    fn topic(&self, words: &[Word]) -> Option<String> {
        let span = words.first()?.span.start..words.last()?.span.end;
        let topic = self.lexer.text()[span].trim_end_matches('?');
        (!topic.is_empty()).then(|| topic.to_string())
    }

    /// The name before the `=` if an assignment begins here, and where the `=` stands.
    fn assigned_name(&self) -> Option<(Range<usize>, usize)> {
        let rest = self.lexer.rest();
        let length = name_length(rest);
        let behind = rest[length..].trim_start_matches([' ', '\t']);
        let equals = self.lexer.position + rest.len() - behind.len();
        (length > 0 && behind.starts_with('=')).then_some((self.lexer.position..self.lexer.position + length, equals))
    }

    fn assignment(&mut self, (name, equals): (Range<usize>, usize)) -> Option<StatementKind> {
        let variable = self.lexer.text()[name.clone()].to_string();
        self.lexer.mark(name.clone(), Class::Variable);
        self.lexer.mark(equals..equals + 1, Class::Operator);
        self.lexer.position = equals + 1;
        let mut words = self.lexer.words().into_iter();
        let Some(value) = words.next() else {
            self.lexer.problem(
                Error::usage(format!("`{variable} =` has no value"))
                    .at(name.start..equals + 1)
                    .hint(format!("an empty text is written {variable} = \"\"")),
            );
            return None;
        };
        let span = value.span.start..self.lexer.word_end;
        let text = &self.lexer.text()[span.clone()];
        if words.next().is_some() || text.starts_with('=') {
            let hint = if text.starts_with('=') {
                format!("one `=` sets a variable: {variable} = VALUE")
            } else if text.contains(',') {
                format!("a list stands in brackets: {variable} = [{text}]")
            } else {
                format!("text with blanks stands in quotes: {variable} = \"{}\"", text.replace('"', "\\\""))
            };
            let error = Error::usage(format!("`{text}` is not one value, and `{variable}` takes one"));
            self.lexer.problem(error.at(span).hint(hint));
        }
        Some(StatementKind::Assign { name: variable, value })
    }

    /// A command, or one of the forms that begin with a word: `for`, `help verb`, `verb?`.
    fn words(&mut self, column: usize) -> Option<StatementKind> {
        let marks = self.lexer.marks.len();
        let verb = self.lexer.word(Place::Statement);
        if let Some("for") = verb.bare() {
            self.mark_verb(marks, verb.span.clone());
            return self.for_loop(verb.span.start, column);
        }
        if verb.parts.iter().all(|part| !matches!(part.kind, PartKind::List(_))) {
            self.mark_verb(marks, verb.span.clone());
        }
        let mut words = vec![verb];
        words.extend(self.lexer.words());
        self.check_verb(&words);
        match (words[0].bare(), &words[1..]) {
            (Some("help"), topic) => Some(StatementKind::Help { topic: self.topic(topic) }),
            (Some(verb), []) if verb.len() > 1 && verb.ends_with('?') => {
                Some(StatementKind::Help { topic: self.topic(&words) })
            }
            _ => Some(StatementKind::Command { words }),
        }
    }

    /// Recolours the word that was just read: all of it is the verb.
    fn mark_verb(&mut self, marks: usize, span: Range<usize>) {
        self.lexer.marks.truncate(marks);
        self.lexer.mark(span, Class::Verb);
    }

    /// A list is no verb, and `=` behind something that is no name was meant to set a variable.
    fn check_verb(&mut self, words: &[Word]) {
        let text = |word: &Word| &self.lexer.text()[word.span.clone()];
        let verb = text(&words[0]);
        let name = match words.get(1) {
            Some(next) if text(next).starts_with('=') => verb,
            _ => verb.split_once('=').map_or("", |(name, _)| name),
        };
        let is_name = !name.is_empty() && !name.starts_with(['-', '"', '\'']);
        let span = words[0].span.clone();
        if words[0].parts.iter().any(|part| matches!(part.kind, PartKind::List(_))) {
            let error = Error::usage("a statement begins with a command, not with a list");
            self.lexer.problem(error.at(span).hint("`help` lists the commands; `name = (8 16)` sets a variable"));
        } else if is_name {
            let bare = name.trim_matches(['$', '{', '}']);
            let fixed: String = bare.chars().map(|c| if c.is_alphanumeric() { c } else { '_' }).collect();
            let fixed = if name_length(&fixed) == 0 { format!("_{fixed}") } else { fixed };
            let error = Error::usage(format!("`{name}` cannot name a variable"));
            let span = span.start..span.start + name.len();
            let hint = format!("names are made of letters, digits and `_`: {fixed} = VALUE");
            self.lexer.problem(error.at(span).hint(hint));
        }
    }

    /// What follows `for`: `variable in values: body`.
    fn for_loop(&mut self, start: usize, column: usize) -> Option<StatementKind> {
        let Some((variable, values)) = self.loop_header() else {
            let span = start..self.lexer.line_end(self.lexer.position.max(start));
            self.lexer.problem(
                Error::usage(format!("`{}` is not a loop", &self.lexer.text()[span.clone()]))
                    .at(span)
                    .hint("for NAME in (A B C): STATEMENT"),
            );
            self.lexer.words();
            return None;
        };
        if self.depth == MAX_DEPTH {
            let error = Error::usage(format!("loops nest deeper than {MAX_DEPTH}"));
            self.lexer.problem(error.at(start..self.lexer.position).hint("write some of them one after the other"));
            self.lexer.words();
            return None;
        }
        let header = start..self.lexer.position;
        self.depth += 1;
        self.lexer.space();
        let body = if self.lexer.is_at_line_end() {
            self.statements(Some(column))
        } else {
            self.statement(column).into_iter().collect()
        };
        self.depth -= 1;
        if body.is_empty() && self.lexer.problems.is_empty() {
            let error = Error::usage(format!("the loop over `{variable}` has no body")).at(header);
            let error = error.hint("indent the lines that belong to it, or write one statement behind the `:`");
            match self.lexer.peek() {
                None => self.lexer.incomplete(error, column + 4),
                Some(_) => self.lexer.problem(error),
            }
        }
        Some(StatementKind::For { variable, values, body })
    }

    fn loop_header(&mut self) -> Option<(String, Vec<Word>)> {
        self.lexer.blanks();
        let name = self.lexer.position..self.lexer.position + name_length(self.lexer.rest());
        let variable = self.lexer.text()[name.clone()].to_string();
        self.lexer.mark(name.clone(), Class::Variable);
        self.lexer.position = name.end;
        self.lexer.blanks();
        let keyword = self.lexer.position..self.lexer.position + name_length(self.lexer.rest());
        if variable.is_empty() || name.end == self.lexer.position || &self.lexer.text()[keyword.clone()] != "in" {
            return None;
        }
        self.lexer.mark(keyword.clone(), Class::Operator);
        self.lexer.position = keyword.end;
        let mut values = Vec::new();
        loop {
            self.lexer.space();
            if self.lexer.is_at_line_end() {
                return None;
            }
            if self.lexer.peek() == Some(':') {
                break;
            }
            values.push(self.lexer.word(Place::LoopHeader));
        }
        self.lexer.mark(self.lexer.position..self.lexer.position + 1, Class::Operator);
        self.lexer.position += 1;
        (!values.is_empty()).then_some((variable, values))
    }
}

/// How deep a line is indented that begins with `blanks`: a tab goes to the next multiple of 8.
fn column(blanks: &str) -> usize {
    blanks.chars().fold(0, |column, c| match c {
        '\t' => column / 8 * 8 + 8,
        _ => column + 1,
    })
}

fn ends_with_blank_line(text: &str) -> bool {
    text.rsplit_once('\n').is_some_and(|(_, line)| line.trim().is_empty())
}
