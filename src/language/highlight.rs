//! Text becomes coloured ranges, however half-typed it is.

use std::ops::Range;

use super::parser::parse_all;

/// What a range of text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// The command, `for`, and the `%%` lines of a block.
    Verb,
    /// `--flag`, without the value behind a `=`.
    Flag,
    /// Text in quotes.
    String,
    Number,
    /// `$name`, and the name that an assignment or a loop sets.
    Variable,
    Comment,
    /// `=`, `!`, `?`, `in`, `:`, and the brackets and commas of lists.
    Operator,
}

/// The ranges of `text` that have a class, in order and without overlap. Bodies of `%%` blocks have none.
#[must_use]
pub fn highlight(text: &str) -> Vec<(Range<usize>, Class)> {
    parse_all(text).marks
}

#[cfg(test)]
mod tests {
    use super::*;
    use Class::*;

    #[test]
    fn every_class_is_found() {
        let cases: [(&str, &[(&str, Class)]); 12] = [
            (
                "train $d --steps 50 # go",
                &[("train", Verb), ("$d", Variable), ("--steps", Flag), ("50", Number), ("# go", Comment)],
            ),
            ("--x=2e-4", &[("--x=2e-4", Verb)]),
            ("a --x=2e-4 -y", &[("a", Verb), ("--x", Flag), ("2e-4", Number), ("-y", Flag)]),
            ("e 8,16 r16 -3", &[("e", Verb), ("8,16", Number), ("-3", Number)]),
            ("x = 'a b'", &[("x", Variable), ("=", Operator), ("'a b'", String)]),
            ("g \"a $b c\"", &[("g", Verb), ("\"a ", String), ("$b", Variable), (" c\"", String)]),
            ("e [8, a]", &[("e", Verb), ("[", Operator), ("8", Number), (",", Operator), ("]", Operator)]),
            (
                "for d in (a): e $d",
                &[
                    ("for", Verb),
                    ("d", Variable),
                    ("in", Operator),
                    ("(", Operator),
                    (")", Operator),
                    (":", Operator),
                    ("e", Verb),
                    ("$d", Variable),
                ],
            ),
            ("!ls $d", &[("!", Operator), ("$d", Variable)]),
            ("?train", &[("?", Operator)]),
            ("%%data x\n1 # $y\n%%", &[("%%data", Verb), ("%%", Verb)]),
            ("größe = 3", &[("größe", Variable), ("=", Operator), ("3", Number)]),
        ];
        for (text, wanted) in cases {
            let seen: Vec<_> = highlight(text).into_iter().map(|(span, class)| (&text[span], class)).collect();
            assert_eq!(seen, wanted, "{text}");
        }
    }

    #[test]
    fn half_typed_text_has_its_colours_already() {
        let cases: [(&str, &[(&str, Class)]); 5] = [
            ("generate \"Hel", &[("generate", Verb), ("\"Hel", String)]),
            ("generate \"Hi $na", &[("generate", Verb), ("\"Hi ", String), ("$na", Variable)]),
            ("e --rank (8 1", &[("e", Verb), ("--rank", Flag), ("(", Operator), ("8", Number), ("1", Number)]),
            ("x =", &[("x", Variable), ("=", Operator)]),
            ("for d i", &[("for", Verb), ("d", Variable)]),
        ];
        for (text, wanted) in cases {
            let seen: Vec<_> = highlight(text).into_iter().map(|(span, class)| (&text[span], class)).collect();
            assert_eq!(seen, wanted, "{text}");
        }
    }
}
