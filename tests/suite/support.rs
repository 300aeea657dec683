//! What several test modules need.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};

use loralab::error::{Error, Kind};
use loralab::event::{Cancel, Event, Sink, Task};
use loralab::model::{Decoder, LoadOptions, Spec, Tokenizer, source};
use loralab::session::{Lab, Outcome};
use serde_json::Value;

/// A sink that drops everything.
pub(crate) struct Quiet;

impl Sink for Quiet {
    fn emit(&self, _: Event) {}
}

pub(crate) fn golden(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(case)
}

/// A model with its files and tokenizer.
pub(crate) struct Model {
    pub(crate) decoder: Decoder,
    pub(crate) tokenizer: Tokenizer,
}

pub(crate) fn load(path: &Path, options: LoadOptions) -> Model {
    let cancel = Cancel::default();
    let task = Task::new(&Quiet, &cancel);
    let mut opened = source::open(path.to_str().unwrap(), None, &task).unwrap();
    let spec = Spec::from_config(&opened.config).unwrap();
    let decoder = loralab::model::load(spec, opened.tensors.as_mut(), options, task).unwrap();
    let files = &opened.tokenizer;
    let tokenizer =
        Tokenizer::from_files(&files.tokenizer_json, &files.tokenizer_config, files.chat_template.clone()).unwrap();
    Model { decoder, tokenizer }
}

/// A sink that keeps everything, and cancels when told to.
#[derive(Default)]
pub(crate) struct Kept {
    events: Mutex<Vec<Event>>,
    stop: Option<(Cancel, Stop)>,
}

/// Whether an event is the one to cancel at.
pub(crate) type Stop = Box<dyn Fn(&Event) -> bool + Send + Sync>;

impl Sink for Kept {
    fn emit(&self, event: Event) {
        if let Some((cancel, stop)) = &self.stop
            && stop(&event)
        {
            // As Ctrl-C does: from another thread, which is waited for so that the place is always the same.
            let cancel = cancel.clone();
            std::thread::spawn(move || cancel.cancel()).join().unwrap();
        }
        self.events.lock().unwrap().push(event);
    }
}

/// The one folder of this process: runs go there, and a folder for each test.
pub(crate) fn root() -> &'static Path {
    static ROOT: OnceLock<PathBuf> = OnceLock::new();
    ROOT.get_or_init(|| {
        let root = std::env::temp_dir().join(format!("loralab-suite-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&root);
        std::fs::create_dir_all(&root).unwrap();
        // SAFETY: std guards its own reads, and nothing in this process reads the environment through C before a session starts.
        unsafe { std::env::set_var("LORALAB_RUNS", root.join("runs")) };
        root
    })
}

/// A session with all commands, and a folder for its files, which is removed with it.
pub(crate) struct Session {
    lab: Lab,
    pub(crate) folder: PathBuf,
}

/// What a cell came to.
pub(crate) struct Ran {
    pub(crate) outcomes: Vec<Outcome>,
    pub(crate) events: Vec<Event>,
}

impl Session {
    /// An empty session; `name` is the test's.
    pub(crate) fn new(name: &str) -> Self {
        let folder = root().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        Self { lab: loralab::commands::start().unwrap(), folder }
    }

    /// A session with a golden model.
    pub(crate) fn with(name: &str, case: &str) -> Self {
        let session = Self::new(name);
        session.ok(&format!("load {}", golden(case).join("model").display()));
        session
    }

    /// A path in the test's folder.
    pub(crate) fn path(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    /// Writes a file of the test's folder and returns its path.
    pub(crate) fn file(&self, name: &str, text: &str) -> String {
        std::fs::write(self.folder.join(name), text).unwrap();
        self.path(name)
    }

    /// Runs a cell.
    pub(crate) fn run(&self, cell: &str) -> Ran {
        self.run_into(cell, Kept::default())
    }

    /// Runs a cell that is cancelled at the first event for which `stop` holds.
    pub(crate) fn run_until(&self, cell: &str, stop: impl Fn(&Event) -> bool + Send + Sync + 'static) -> Ran {
        self.run_into(cell, Kept { stop: Some((self.lab.cancel().clone(), Box::new(stop))), ..Kept::default() })
    }

    fn run_into(&self, cell: &str, sink: Kept) -> Ran {
        let sink = Arc::new(sink);
        let mut outcomes = Vec::new();
        let ok = self.lab.run(cell, sink.clone(), &mut |outcome| outcomes.push(outcome));
        assert_eq!(ok, outcomes.iter().all(|o| o.error.is_none()));
        let events = std::mem::take(&mut *sink.events.lock().unwrap());
        Ran { outcomes, events }
    }

    /// Runs a cell that must be ok; the result of its last statement.
    #[track_caller]
    pub(crate) fn ok(&self, cell: &str) -> Value {
        self.run(cell).ok()
    }

    /// Runs a cell whose last statement must fail; its error.
    #[track_caller]
    pub(crate) fn fails(&self, cell: &str) -> Error {
        self.run(cell).error()
    }

    /// The loss of one row of `eval`.
    #[track_caller]
    pub(crate) fn loss(&self, data: &str, adapter: &str) -> f64 {
        number(&self.ok(&format!("eval {data} --adapters {adapter}"))["rows"][0]["loss"])
    }

    pub(crate) fn lab(&self) -> &Lab {
        &self.lab
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

impl Ran {
    #[track_caller]
    pub(crate) fn ok(mut self) -> Value {
        for outcome in &self.outcomes {
            assert!(outcome.error.is_none(), "{}: {:?}", outcome.statement, outcome.error);
        }
        self.outcomes.pop().and_then(|o| o.result).expect("the cell has a statement with a result")
    }

    #[track_caller]
    pub(crate) fn error(mut self) -> Error {
        let last = self.outcomes.pop().expect("the cell has a statement");
        match last.error {
            Some(error) => error,
            None => panic!("{} did not fail: {:?}", last.statement, last.result),
        }
    }

    /// All texts and warnings, a line each.
    pub(crate) fn said(&self) -> String {
        let text = |event: &Event| match event {
            Event::Text(text) | Event::Warning(text) | Event::Stream { text, .. } => Some(text.clone()),
            _ => None,
        };
        self.events.iter().filter_map(text).collect::<Vec<_>>().join("\n")
    }

    pub(crate) fn warnings(&self) -> Vec<&str> {
        let mut warnings = Vec::new();
        for event in &self.events {
            if let Event::Warning(text) = event {
                warnings.push(text.as_str());
            }
        }
        warnings
    }
}

#[track_caller]
pub(crate) fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is not a number"))
}

pub(crate) fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(number).collect()
}

/// Whether `error` is of `kind`, says every one of `words`, and advises with `hint`.
#[track_caller]
pub(crate) fn says(error: &Error, kind: Kind, words: &[&str], hint: &str) {
    assert_eq!(error.kind(), kind, "{error:?}");
    for word in words {
        assert!(error.message().contains(word), "“{word}” is missing: {error:?}");
    }
    assert!(error.hint_text().is_some_and(|h| h.contains(hint)), "the hint lacks “{hint}”: {error:?}");
}

/// A progress report that begins something called `label`.
pub(crate) fn begins(event: &Event, label: &str) -> bool {
    matches!(event, Event::Progress(p) if p.label == label && p.done < p.total)
}

/// Twenty-four questions with answers.
pub(crate) fn questions() -> String {
    let row = |i: usize| format!("{{\"prompt\": \"What is {i} and {i}?\", \"response\": \"It is {}.\"}}\n", 2 * i);
    (1..=24).map(row).collect()
}
