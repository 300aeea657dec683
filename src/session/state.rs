//! What a session holds.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::base::Base;
use super::history::History;
use super::training::Training;
use super::variables::Variables;
use super::versions::Versions;
use crate::data::{self, DataSet, Format, Rendering, Sample, Template, TokenizeOptions, Tokenized};
use crate::device::{Purpose, memory};
use crate::error::{Error, Result};
use crate::event::{Event, Sink, Task};
use crate::language;
use crate::lora::Adapter;
use crate::model::Use;
use crate::model::tokenizer::Message;
use crate::ops::{Backend, Cpu};
use crate::train::Runs;

/// Everything a session holds.
pub struct Session {
    pub backend: Box<dyn Backend>,
    pub base: Option<Base>,
    /// Live adapters, oldest first.
    pub adapters: Vec<Live>,
    /// The active adapters by name, and how strongly each counts.
    pub active: Vec<(String, f32)>,
    pub data: Vec<DataSet>,
    pub variables: Variables,
    /// Defaults of flags: `config NAME VALUE`.
    pub config: Map<String, Value>,
    pub runs: Runs,
    /// Held-out rows of the last run, by the name of their data set.
    pub held_out: Option<String>,
    /// How data sets were made samples of when they were trained on or evaluated in training, by name.
    pub tokenized_as: HashMap<String, TokenizeOptions>,
    /// Rows that were trained on, by the hash of their content.
    pub seen: HashSet<u64>,
    /// What an interrupted command leaves for its result.
    pub partial: Option<Value>,
    /// The words behind the verb of the running command, with the defaults of `config`.
    pub words: Vec<String>,
    /// Where the running cell's events go.
    pub front: Arc<dyn Sink>,
    /// The training in the background.
    pub training: Option<Box<Training>>,
    /// What the last training in the background came to.
    pub trained: Option<Value>,
    /// What was said in `chat` so far.
    pub conversation: Vec<Message>,
    /// Memory that the tokenizer took.
    pub tokenizer_bytes: u64,
    /// What was typed.
    pub history: Arc<History>,
}

/// A live adapter.
pub struct Live {
    pub name: String,
    pub adapter: Adapter,
    pub origin: Origin,
    /// The Jinja template its prompts were rendered with; `None` before it was trained, `Some(None)` for none.
    pub template: Option<Option<String>>,
    /// Optimizer steps it was trained for.
    pub steps: usize,
    /// The run that trained it last, where it is kept too.
    pub run: Option<String>,
    /// Whether it stands somewhere on disk as it is.
    pub saved: bool,
    /// What it was after each training, its start first.
    pub versions: Versions,
}

/// Where an adapter came from: what `--fresh` goes back to.
#[derive(Debug, Clone)]
pub enum Origin {
    /// Random by this seed.
    New(u64),
    /// Read from this folder.
    Folder(std::path::PathBuf),
    /// Another one of this name, cut to a smaller rank.
    Cut(String),
}

/// Data from this size on, in bytes, is tokenized beside the session's thread, which listens for an interrupt.
const LARGE: usize = 256 << 10;

/// A data set ready for training or evaluation.
pub struct TrainingData {
    pub data: DataSet,
    pub tokenized: Tokenized,
}

impl Session {
    /// An empty session.
    #[must_use]
    pub fn new() -> Self {
        Self {
            backend: Box::new(Cpu::new()),
            base: None,
            adapters: Vec::new(),
            active: Vec::new(),
            data: Vec::new(),
            variables: Variables::default(),
            config: Map::new(),
            runs: Runs::from_env(),
            held_out: None,
            tokenized_as: HashMap::new(),
            seen: HashSet::new(),
            partial: None,
            words: Vec::new(),
            front: Arc::new(Nobody),
            training: None,
            trained: None,
            conversation: Vec::new(),
            tokenizer_bytes: 0,
            history: Arc::new(History::of_user()),
        }
    }

    /// Checks that no training in the background would be disturbed by a change of the adapter `name`, or of the base where
    /// none is given.
    ///
    /// # Errors
    /// One would be.
    pub fn check_free(&self, name: Option<&str>) -> Result<()> {
        match &self.training {
            Some(training) if name.is_none() || training.adapter.as_deref() == name => {
                Err(Error::state(format!("{} is being trained in the background", training.name()))
                    .hint("watch follows it, stop ends it and keeps what it has learnt"))
            }
            _ => Ok(()),
        }
    }

    /// Gives memory back that only the last command needed.
    pub fn settle(&mut self) {
        if self.training.is_none() {
            self.backend.keep_weights(false);
        }
        if memory::held(Purpose::Workspace) > 1 << 20 {
            self.backend.release();
            memory::trim();
        }
    }

    /// The base model.
    ///
    /// # Errors
    /// Nothing is loaded.
    pub fn base(&self) -> Result<&Base> {
        self.base.as_ref().ok_or_else(no_model)
    }

    /// The base model, to be changed.
    ///
    /// # Errors
    /// Nothing is loaded.
    pub fn base_mut(&mut self) -> Result<&mut Base> {
        self.base.as_mut().ok_or_else(no_model)
    }

    /// The place of a live adapter.
    ///
    /// # Errors
    /// There is none of that name; the nearest one is named.
    pub fn adapter_index(&self, name: &str) -> Result<usize> {
        self.adapters.iter().position(|a| a.name == name).ok_or_else(|| {
            let error = Error::not_found(format!("there is no adapter {name}"));
            let names: Vec<&str> = self.adapters.iter().map(|a| a.name.as_str()).collect();
            match (language::nearest(name, names.iter().copied()), names.is_empty()) {
                (Some(near), _) => error.hint(format!("did you mean {near}?")),
                (None, false) => error.hint(format!("there are {}", names.join(", "))),
                (None, true) => error.hint("attach-lora makes one, load-adapter reads one"),
            }
        })
    }

    /// A live adapter by its name.
    ///
    /// # Errors
    /// As [`Session::adapter_index`].
    pub fn adapter(&self, name: &str) -> Result<&Live> {
        Ok(&self.adapters[self.adapter_index(name)?])
    }

    /// Where a trained adapter that is not saved is kept all the same, as the end of a sentence.
    #[must_use]
    pub fn copy_of(&self, live: &Live) -> String {
        let dir = |run: &String| format!("; {} keeps a copy", self.runs.root().join(run).join("adapter").display());
        live.run.as_ref().map_or_else(String::new, dir)
    }

    /// The only active adapter: what `train` trains and `merge` folds in.
    ///
    /// # Errors
    /// None or several are active.
    pub fn only_active(&self) -> Result<usize> {
        match self.active.as_slice() {
            [(name, _)] => self.adapter_index(name),
            [] if self.adapters.is_empty() => {
                Err(Error::state("there is no adapter").hint("attach-lora r16 --rank 16"))
            }
            [] => {
                let free = self.adapters.iter().find(|a| self.check_not_merged(&a.name).is_ok());
                let hint =
                    free.map_or_else(|| "unmerge, or attach-lora another".to_owned(), |a| format!("use {}", a.name));
                Err(Error::state("no adapter is active").hint(hint))
            }
            several => {
                let names: Vec<&str> = several.iter().map(|(n, _)| n.as_str()).collect();
                Err(Error::state(format!("{} are active; this needs exactly one", names.join(" and ")))
                    .hint(format!("use {}", names[0])))
            }
        }
    }

    /// Checks that the adapter `name` is not part of the base already: used beside it, it would count twice.
    ///
    /// # Errors
    /// It is.
    pub fn check_not_merged(&self, name: &str) -> Result<()> {
        match &self.base {
            Some(base) if base.merged.iter().any(|m| m.adapter == name) => {
                Err(Error::state(format!("{name} is merged into the base: used beside it, it would count twice"))
                    .hint("base has it; unmerge takes it out again"))
            }
            _ => Ok(()),
        }
    }

    /// Adds or replaces a live adapter and makes it the only active one. Its versions begin with what it is.
    pub fn add_adapter(&mut self, live: Live) {
        self.active = vec![(live.name.clone(), 1.0)];
        self.place_adapter(live);
    }

    /// Adds or replaces a live adapter; which are active stays.
    pub fn place_adapter(&mut self, mut live: Live) {
        // Where there is no memory for that, it has none to go back to.
        live.begin_versions();
        match self.adapters.iter_mut().find(|a| a.name == live.name) {
            Some(old) => *old = live,
            None => self.adapters.push(live),
        }
    }

    /// Adapters and their uses for a combination like `A` or `A+B`, of strength `scale`; none for `base`.
    ///
    /// # Errors
    /// A name that is not live.
    pub fn combination(&self, names: &str, scale: f32) -> Result<(Vec<&Adapter>, Vec<Use>)> {
        let (mut adapters, mut uses) = (Vec::new(), Vec::new());
        if names == "base" {
            return Ok((adapters, uses));
        }
        for (slot, name) in names.split('+').map(str::trim).enumerate() {
            self.check_not_merged(name)?;
            adapters.push(&self.adapter(name)?.adapter);
            let strength = self.active.iter().find(|(n, _)| n == name).map_or(1.0, |(_, w)| *w);
            uses.push(Use { slot, weight: strength * scale });
        }
        Ok((adapters, uses))
    }

    /// Adds or replaces a data set by its name.
    pub fn add_data(&mut self, data: DataSet) {
        self.tokenized_as.remove(&data.name);
        match self.data.iter_mut().find(|d| d.name == data.name) {
            Some(old) => *old = data,
            None => self.data.push(data),
        }
    }

    /// A data set by its name, or read from a file; [`data::GENERAL`] is built in.
    ///
    /// # Errors
    /// There is neither; the file cannot be read.
    pub fn find_data(&self, name: &str, format: Format) -> Result<DataSet> {
        if let Some(data) = self.data.iter().find(|d| d.name == name) {
            return Ok(data.clone());
        }
        let path = Path::new(name);
        if path.exists() {
            return DataSet::read(path, format);
        }
        if name == data::GENERAL {
            return Ok(DataSet::general());
        }
        let error = Error::not_found(format!("there is no data set or file {name}"));
        let names: Vec<&str> = self.data.iter().map(|d| d.name.as_str()).collect();
        let beside: Vec<String> =
            std::fs::read_dir(path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")))
                .into_iter()
                .flatten()
                .flatten()
                .map(|e| path.with_file_name(e.file_name()).display().to_string())
                .collect();
        let known = names.iter().copied().chain(beside.iter().map(String::as_str));
        Err(match language::nearest(name, known) {
            Some(near) => error.hint(format!("did you mean {near}?")),
            None => error.hint("give a file of JSON lines or text, or a name made with `data` or `%%data`"),
        })
    }

    /// Reads and tokenizes a data set.
    ///
    /// # Errors
    /// As [`Session::find_data`] and [`data::tokenize`].
    pub fn training_data(&self, name: &str, options: &TokenizeOptions, task: Task<'_>) -> Result<TrainingData> {
        let data = self.find_data(name, Format::Auto)?;
        let tokenized = self.tokenize(&data, options, task)?;
        Ok(TrainingData { data, tokenized })
    }

    /// Tokenizes a data set for the base model.
    ///
    /// # Errors
    /// As [`data::tokenize`]; interrupted.
    pub fn tokenize(&self, data: &DataSet, options: &TokenizeOptions, task: Task<'_>) -> Result<Tokenized> {
        let base = self.base()?;
        let options = TokenizeOptions { vocabulary: Some(base.decoder.spec.vocabulary), ..options.clone() };
        if data.bytes() < LARGE {
            return data::tokenize(data, &base.tokenizer, &options);
        }
        data::tokenize_aside(data, &base.tokenizer, &options, task)
    }

    /// How prompts are rendered for generation: as the adapter was trained, else as training would.
    ///
    /// # Errors
    /// The template cannot be used.
    pub fn rendering(&self, adapter: Option<&str>) -> Result<Rendering> {
        let base = self.base()?;
        match adapter.and_then(|name| self.adapters.iter().find(|a| a.name == name)).and_then(|a| a.template.as_ref()) {
            Some(source) => Ok(Rendering::from_source(source.as_deref(), &base.tokenizer)),
            None => Rendering::choose(Template::Auto, Format::Prompt, &base.tokenizer),
        }
    }

    /// How many rows of `data` were trained on in this session.
    #[must_use]
    pub fn seen_rows(&self, data: &DataSet) -> usize {
        data.rows.iter().filter(|row| self.seen.contains(&hash(&row.content))).count()
    }

    /// Notes that the rows of `data` were trained on.
    pub fn note_seen(&mut self, data: &DataSet) {
        self.seen.extend(data.rows.iter().map(|row| hash(&row.content)));
    }
}

/// Listens to what nobody wants to hear.
pub(super) struct Nobody;

impl Sink for Nobody {
    fn emit(&self, _: Event) {}
}

impl Default for Session {
    fn default() -> Self {
        Self::new()
    }
}

impl TrainingData {
    /// The samples that have something to learn.
    #[must_use]
    pub fn samples(&self) -> &[Sample] {
        &self.tokenized.samples
    }
}

fn hash(content: &data::Content) -> u64 {
    let mut hasher = DefaultHasher::new();
    content.hash(&mut hasher);
    hasher.finish()
}

fn no_model() -> Error {
    Error::state("no model is loaded").hint("load demo")
}

/// Runs a line in the user's shell; its output is shown and captured, in `partial` if it fails. An interrupt kills it.
pub(super) fn shell(line: &str, partial: &mut Option<Value>, task: Task<'_>) -> super::Answer {
    use std::io::Read;
    use std::os::unix::process::CommandExt;
    let fail = |e: std::io::Error| Error::new(crate::error::Kind::Io, format!("cannot run the shell: {e}"));
    let mut child = Command::new("sh")
        .args(["-c", line])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // A group of its own, so that an interrupt reaches everything the line started, and nothing else.
        .process_group(0)
        .spawn()
        .map_err(fail)?;
    fn drain(pipe: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<String> {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            if let Some(mut pipe) = pipe {
                // What was read before an error is still worth showing.
                let _ = pipe.read_to_end(&mut bytes);
            }
            String::from_utf8_lossy(&bytes).into_owned()
        })
    }
    let (stdout, stderr) = (drain(child.stdout.take()), drain(child.stderr.take()));
    let mut interrupted = false;
    let status = loop {
        match child.try_wait().map_err(fail)? {
            Some(status) => break status,
            None if task.cancel.is_cancelled() && !interrupted => {
                interrupted = true;
                // SAFETY: kill only sends a signal; the negative number names the child's own process group.
                unsafe { libc::kill(-(child.id() as i32), libc::SIGKILL) };
            }
            None => std::thread::sleep(Duration::from_millis(10)),
        }
    };
    let (output, errors) = (stdout.join().unwrap_or_default(), stderr.join().unwrap_or_default());
    for (text, error) in [(&output, false), (&errors, true)] {
        if !text.is_empty() {
            task.emit(Event::Stream { text: text.clone(), error });
        }
    }
    let answer = json!({"output": output, "errors": errors, "status": status.code()});
    if status.code() == Some(0) && !interrupted {
        return Ok(answer);
    }
    *partial = Some(answer);
    if interrupted {
        return Err(Error::interrupted());
    }
    let code = status.code().map_or_else(|| "killed".to_owned(), |c| c.to_string());
    Err(Error::new(crate::error::Kind::Io, format!("the shell command ended with status {code}")))
}
