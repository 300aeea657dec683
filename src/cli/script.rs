//! `run FILE`: a script, a notebook or standard input, cell by cell.

use std::fs;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use super::{Place, Runner, exit_code};
use crate::error::{Error, Kind, Result};
use crate::event::{Event, Sink};
use crate::language;
use crate::notebook::{Notebook, Recorder};

/// Runs what `file` holds; returns the code the process ends with. `output` becomes a notebook of what is shown; what
/// exists there is replaced only by `force`.
///
/// # Errors
/// What `file` holds cannot be run, or `output` cannot be written. Errors of statements were shown already.
pub(super) fn run(runner: &Runner, file: &Path, output: Option<&Path>, force: bool) -> Result<u8> {
    let (name, text) = read(file)?;
    let is_notebook = file.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("ipynb"));
    // The language never begins with a brace, so a notebook is known without its name.
    if is_notebook || text.trim_start_matches('\u{feff}').trim_start().starts_with('{') {
        let notebook = Notebook::parse(&name, &text)?;
        return run_notebook(runner, &name, notebook, output, force);
    }
    let cells = language::split_cells(&text);
    if output.is_some() {
        return run_notebook(runner, &name, Notebook::from_cells(&cells), output, force);
    }
    runner.signals().begin();
    let run = |cell: &language::Cell| runner.cell(&Place::new(&name, &text, cell.offset), cell.text, runner.terminal());
    Ok(exit_code(cells.iter().try_for_each(run).and_then(|()| runner.wait())))
}

fn run_notebook(runner: &Runner, name: &str, mut notebook: Notebook, output: Option<&Path>, force: bool) -> Result<u8> {
    if let Some(path) = output.filter(|path| path.exists() && !force) {
        return Err(Error::usage(format!("{} exists already", path.display()))
            .hint("choose another name, or add --force to replace it"));
    }
    notebook.clear_outputs();
    notebook.inject(runner.parameters());
    // Written at once and after every cell: a folder that cannot be written shows before hours of training, and a
    // program that is killed leaves what was done.
    let save = |notebook: &Notebook| output.map_or(Ok(()), |path| notebook.write(path));
    save(&notebook)?;
    runner.signals().begin();
    for (count, (index, source)) in notebook.code_cells().into_iter().enumerate() {
        let recorder = Arc::new(Recorder::default());
        let both = Both(runner.terminal(), Arc::clone(&recorder) as Arc<dyn Sink>);
        let place = format!("{name}, cell {}", index + 1);
        let end = runner.cell(&Place::new(&place, &source, 0), &source, Arc::new(both));
        let outputs = recorder.finish(end.as_ref().err(), &source);
        notebook.set_outputs(index, count + 1, outputs);
        save(&notebook)?;
        if end.is_err() {
            return Ok(exit_code(end));
        }
    }
    Ok(exit_code(runner.wait()))
}

/// Two who hear of every event.
struct Both(Arc<dyn Sink>, Arc<dyn Sink>);

impl Sink for Both {
    fn is_notebook(&self) -> bool {
        true
    }

    fn emit(&self, event: Event) {
        self.0.emit(event.clone());
        self.1.emit(event);
    }
}

/// The name for errors and the text of a file, or of standard input for `-`.
fn read(file: &Path) -> Result<(String, String)> {
    let is_stdin = file == Path::new("-");
    let name = if is_stdin { "standard input".to_owned() } else { file.display().to_string() };
    let bytes = if is_stdin {
        let mut bytes = Vec::new();
        io::stdin().read_to_end(&mut bytes).map(|_| bytes)
    } else {
        fs::read(file)
    };
    let bytes = bytes.map_err(|e| missing(file, Error::io("read", Path::new(&name), e)))?;
    let text = String::from_utf8(bytes).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        Error::format(format!("{name} is not text in UTF-8: byte {at} begins no letter"))
            .hint("loralab run takes .lora scripts and .ipynb notebooks")
    })?;
    Ok((name, text))
}

/// Adds to the error of a file that cannot be read what could have been meant.
fn missing(file: &Path, error: Error) -> Error {
    if file.is_dir() {
        return error.hint("name a script in that folder");
    }
    if error.kind() != Kind::NotFound {
        return error;
    }
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    let entries = fs::read_dir(folder.unwrap_or(Path::new("."))).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.retain(|name| name.ends_with(".lora") || name.ends_with(".ipynb"));
    names.sort();
    let wanted = file.file_name().unwrap_or_default().to_string_lossy();
    let shown = |name: &str| folder.map_or_else(|| name.to_owned(), |folder| folder.join(name).display().to_string());
    match language::nearest(&wanted, names.iter().map(String::as_str)) {
        Some(near) => error.hint(format!("did you mean {}?", shown(near))),
        None if names.is_empty() => error,
        None => error.hint(format!("there are {}", names.iter().map(|n| shown(n)).collect::<Vec<_>>().join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Scratch(std::path::PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("loralab-script-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_missing_file_is_named_with_its_neighbours() {
        let folder = Scratch::new("missing");
        let error = read(&folder.0.join("trian.lora")).unwrap_err();
        assert_eq!((error.kind(), error.hint_text()), (Kind::NotFound, None));
        for name in ["train.lora", "b.ipynb", "readme.md"] {
            fs::write(folder.0.join(name), "").unwrap();
        }
        let error = read(&folder.0.join("trian.lora")).unwrap_err();
        assert!(error.message().contains("trian.lora"), "{error}");
        let near = folder.0.join("train.lora").display().to_string();
        assert_eq!(error.hint_text(), Some(format!("did you mean {near}?").as_str()));
        let error = read(&folder.0.join("qqqqqqqqqqqqqqqqqqqqq")).unwrap_err();
        let hint = error.hint_text().unwrap();
        assert!(hint.contains("b.ipynb") && hint.contains("train.lora") && !hint.contains("readme"), "{hint}");
    }

    #[test]
    fn folders_and_binary_files_are_refused() {
        let folder = Scratch::new("binary");
        assert!(read(&folder.0).unwrap_err().hint_text().is_some());
        let path = folder.0.join("model.lora");
        fs::write(&path, b"ab\xff").unwrap();
        let error = read(&path).unwrap_err();
        assert_eq!(error.kind(), Kind::Format);
        assert!(error.message().contains("byte 2"), "{error}");
    }
}
