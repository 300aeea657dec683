//! A `.lora` script is cut into cells at lines `# %%`, as VS Code and Jupytext do.

/// A cell of a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cell<'t> {
    /// What stands behind `# %%` on the line that begins the cell.
    pub title: Option<&'t str>,
    /// The lines behind it, up to the next cell.
    pub text: &'t str,
    /// Where `text` begins in the script, in bytes: add it to a span to get the place in the file.
    pub offset: usize,
    /// The line of the script that `text` begins with, counted from 1.
    pub line: usize,
}

/// The cells of a script. What stands before the first `# %%` is a cell without a title, unless it is blank.
#[must_use]
pub fn split_cells(script: &str) -> Vec<Cell<'_>> {
    let begin = if script.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
    let mut cells = vec![Cell { title: None, text: "", offset: begin, line: 1 }];
    let mut offset = begin;
    for (index, line) in script[begin..].split_inclusive('\n').enumerate() {
        let next = offset + line.len();
        if let Some(title) = cell_title(line) {
            let title = (!title.is_empty()).then_some(title);
            cells.push(Cell { title, text: &script[next..next], offset: next, line: index + 2 });
        } else if let Some(cell) = cells.last_mut() {
            cell.text = &script[cell.offset..next];
        }
        offset = next;
    }
    if cells[0].text.trim().is_empty() {
        cells.remove(0);
    }
    cells
}

/// The title of a line that begins a cell. `# %%data` does not: it is a `%%data` that somebody commented out.
fn cell_title(line: &str) -> Option<&str> {
    let behind = line.strip_prefix('#')?.trim_start_matches([' ', '\t']).strip_prefix("%%")?;
    (behind.is_empty() || behind.starts_with(char::is_whitespace)).then(|| behind.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_cut_at_its_markers() {
        let script = "load demo\n# %% train it\ntrain x\ntrain y\n#%%\n# %%data z\n# %% [markdown]\n# words\n";
        let cells = split_cells(script);
        let seen: Vec<_> = cells.iter().map(|c| (c.title, c.text, c.line)).collect();
        assert_eq!(
            seen,
            [
                (None, "load demo\n", 1),
                (Some("train it"), "train x\ntrain y\n", 3),
                (None, "# %%data z\n", 6),
                (Some("[markdown]"), "# words\n", 8),
            ]
        );
        for cell in cells {
            assert_eq!(&script[cell.offset..cell.offset + cell.text.len()], cell.text);
            assert_eq!(script[..cell.offset].lines().count() + 1, cell.line);
        }
    }

    #[test]
    fn a_script_without_markers_is_one_cell_and_a_blank_one_none() {
        assert_eq!(split_cells("load demo"), [Cell { title: None, text: "load demo", offset: 0, line: 1 }]);
        assert_eq!(split_cells(""), []);
        assert_eq!(split_cells(" \n\n"), []);
    }

    #[test]
    fn a_byte_order_mark_and_windows_line_ends_do_no_harm() {
        let cells = split_cells("\u{feff}# %% a\r\nload demo\r\n# %%\r\n");
        assert_eq!(cells[0], Cell { title: Some("a"), text: "load demo\r\n", offset: 11, line: 2 });
        assert_eq!(cells[1], Cell { title: None, text: "", offset: 28, line: 4 });
        assert_eq!(cells.len(), 2);
    }

    #[test]
    fn an_indented_or_longer_marker_is_a_comment() {
        assert_eq!(split_cells("a\n  # %%\n# %%%\n## %%\n# 100 %%\n").len(), 1);
    }
}
