//! The half-typed statement that ends at the cursor: its words, and the item that is being typed.

/// What stands before the cursor.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::language) struct Line<'t> {
    /// The words of the statement before the one at the cursor.
    pub(in crate::language) words: Vec<&'t str>,
    /// The word at the cursor, a list with all its items.
    pub(in crate::language) word: &'t str,
    /// Where the item at the cursor begins: that word, what stands behind `--flag=`, or the last item of a list.
    pub(in crate::language) start: usize,
    /// The quote that is open around the item.
    pub(in crate::language) quote: Option<char>,
}

impl<'t> Line<'t> {
    /// The statement at the end of `before`; none in a comment and in the body of a `%%` block.
    pub(in crate::language) fn at_end_of(before: &'t str) -> Option<Self> {
        let start = block_end(before)?;
        let mut scanner = Scanner { text: before, words: Vec::new(), word: start, item: start, quote: None, depth: 0 };
        let mut letters = before[start..].char_indices().map(|(at, c)| (start + at, c)).peekable();
        while let Some((at, c)) = letters.next() {
            let next = letters.peek().map(|&(_, next)| next);
            match c {
                '\\' if next == Some('\n') => {
                    letters.next();
                    scanner.blank(at, at + 2);
                }
                '\\' if scanner.quote != Some('\'') => drop(letters.next()),
                '#' if scanner.quote.is_none() && scanner.item == at => {
                    // A comment goes on to the end of its line.
                    while letters.next_if(|&(_, c)| c != '\n').is_some() {}
                    letters.peek()?;
                }
                _ => scanner.letter(at, c),
            }
        }
        let word = &before[scanner.word..];
        Some(Self { words: scanner.words, word, start: scanner.item, quote: scanner.quote })
    }
}

struct Scanner<'t> {
    text: &'t str,
    words: Vec<&'t str>,
    word: usize,
    item: usize,
    quote: Option<char>,
    depth: usize,
}

impl Scanner<'_> {
    fn letter(&mut self, at: usize, c: char) {
        let next = at + c.len_utf8();
        match c {
            _ if self.quote == Some(c) => self.quote = None,
            _ if self.quote.is_some() => {}
            '"' | '\'' => {
                if self.item == at {
                    self.item = next;
                }
                self.quote = Some(c);
            }
            '\n' if self.depth == 0 => self.restart(next),
            '(' | '[' => {
                self.depth += 1;
                self.item = next;
            }
            ')' | ']' => self.depth = self.depth.saturating_sub(1),
            ',' => self.item = next,
            '=' if self.item == self.word && self.text[self.word..].starts_with("--") => self.item = next,
            ':' if self.depth == 0 && self.words.first() == Some(&"for") => self.restart(next),
            _ if c.is_whitespace() => self.blank(at, next),
            _ => {}
        }
    }

    /// A blank from `at` to `next` ends a word, or an item of a list.
    fn blank(&mut self, at: usize, next: usize) {
        if self.quote.is_some() {
            return;
        }
        if self.depth == 0 {
            if self.word < at {
                self.words.push(&self.text[self.word..at]);
            }
            self.word = next;
        }
        self.item = next;
    }

    fn restart(&mut self, at: usize) {
        self.words.clear();
        (self.word, self.item) = (at, at);
    }
}

/// Where the statements behind the last `%%` block of `text` begin; none in the body of one.
fn block_end(text: &str) -> Option<usize> {
    let (mut end, mut open, mut at) = (0, false, 0);
    for line in text.split_inclusive('\n') {
        at += line.len();
        if open && line.trim_end() == "%%" {
            (open, end) = (false, at);
        } else if !open && line.starts_with("%%") {
            open = line.ends_with('\n');
        }
    }
    (!open).then_some(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The words, the word at the cursor and the item of it.
    fn seen(text: &str) -> Option<(Vec<&str>, &str, &str)> {
        Line::at_end_of(text).map(|line| (line.words, line.word, &text[line.start..]))
    }

    #[test]
    fn words_and_items_are_found() {
        let cases: [(&str, &[&str], &str, &str); 18] = [
            ("", &[], "", ""),
            ("lo", &[], "lo", "lo"),
            ("load ", &["load"], "", ""),
            ("load demo\ntr", &[], "tr", "tr"),
            ("load demo \\\n  --dt", &["load", "demo"], "--dt", "--dt"),
            ("a --dtype=b", &["a"], "--dtype=b", "b"),
            ("a --x=b=c", &["a"], "--x=b=c", "b=c"),
            ("a --x=b,c", &["a"], "--x=b,c", "c"),
            ("a --x (b c", &["a", "--x"], "(b c", "c"),
            ("a --x=[b, c", &["a"], "--x=[b, c", "c"),
            ("a (b\nc", &["a"], "(b\nc", "c"),
            ("a (b c) d", &["a", "(b c)"], "d", "d"),
            ("for d in (a b): tr", &[], "tr", "tr"),
            ("for d in (a b):\n  train $d --s", &["train", "$d"], "--s", "--s"),
            ("a \"b c\" d", &["a", "\"b c\""], "d", "d"),
            ("a x#y", &["a"], "x#y", "x#y"),
            ("%%data x\na b\n%%\nme", &[], "me", "me"),
            ("größe ", &["größe"], "", ""),
        ];
        for (text, words, word, item) in cases {
            assert_eq!(seen(text), Some((words.to_vec(), word, item)), "{text:?}");
        }
    }

    #[test]
    fn open_quotes_are_known() {
        let line = Line::at_end_of("load \"my mo").unwrap();
        assert_eq!((line.words, line.start, line.quote), (vec!["load"], 6, Some('"')));
        assert_eq!(Line::at_end_of("a 'b\\").unwrap().quote, Some('\''));
        assert_eq!(Line::at_end_of("a \"b\\\" c").unwrap().quote, Some('"'));
        assert_eq!(Line::at_end_of("a \"b\" ").unwrap().quote, None);
    }

    #[test]
    fn comments_and_blocks_have_no_statement() {
        for text in ["# lo", "load demo # fr", "%%data x\n", "%%data x\n{\"a", "load\n%%rust\n%%%\nx"] {
            assert_eq!(seen(text), None, "{text:?}");
        }
        assert_eq!(seen("# note\nlo"), Some((vec![], "lo", "lo")));
        assert_eq!(seen("%%da"), Some((vec![], "%%da", "%%da")));
    }

    #[test]
    fn odd_text_is_taken_as_it_comes() {
        for text in [
            ")))",
            "((((",
            "\\",
            "a \\",
            "--",
            "--=",
            "=,=,",
            "for :",
            "\"\"\"a\n\"b",
            "\u{feff}\0",
            "%%",
            "%%\n",
            "ä\\ö",
        ] {
            if let Some(line) = Line::at_end_of(text) {
                assert!(text.get(line.start..).is_some(), "{text:?}");
                assert!(text.ends_with(line.word), "{text:?}");
            }
        }
    }
}
