//! Models and adapters of the Hugging Face hub, downloaded once into the cache that all of its libraries share.
//!
//! The cache has the layout of huggingface_hub: `models--OWNER--NAME/{blobs,refs,snapshots}`. The reference of a revision is
//! written when everything that belongs to it has arrived, so a download that broke off is never taken for a model; what had
//! arrived of a file is kept, and the next attempt goes on behind it.

use std::path::{Path, PathBuf};

use hf_hub::api::sync::{Api, ApiBuilder, ApiError};
use hf_hub::{Cache, Repo, RepoType};
use serde_json::Value;

use crate::error::{Error, Kind, Result};
use crate::event::{Task, Unit};
use crate::model::source::weight_map;

mod download;
mod files;
#[cfg(test)]
mod tests;

use files::Remote;

/// Which hub, which cache, whose token.
#[derive(Clone)]
pub struct HubConfig {
    /// Where the hub is, without a slash at the end: `https://huggingface.co`.
    pub endpoint: String,
    /// The folder with `models--OWNER--NAME`.
    pub cache: PathBuf,
    /// The access token, for private and gated models.
    pub token: Option<String>,
    /// Whether to use nothing but the cache.
    pub offline: bool,
}

impl HubConfig {
    /// What the environment says, as huggingface_hub reads it: `HF_ENDPOINT`, `HF_HUB_CACHE`, `HF_HOME`, `HF_TOKEN`,
    /// `HF_TOKEN_PATH`, `HF_HUB_OFFLINE`, and the token file of `hf auth login`.
    #[must_use]
    pub fn from_env() -> Self {
        Self::from_variables(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    }

    fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Self {
        let folder = |name: &str| variable(name).map(PathBuf::from);
        let home = folder("HF_HOME")
            .or_else(|| Some(folder("XDG_CACHE_HOME")?.join("huggingface")))
            .or_else(|| Some(folder("HOME")?.join(".cache/huggingface")))
            .unwrap_or_else(|| std::env::temp_dir().join("huggingface"));
        let endpoint = variable("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".to_owned());
        let token_file = folder("HF_TOKEN_PATH").unwrap_or_else(|| home.join("token"));
        let token = variable("HF_TOKEN").or_else(|| variable("HUGGING_FACE_HUB_TOKEN"));
        let token = token.or_else(|| std::fs::read_to_string(token_file).ok());
        let is_on = |name: &str| {
            variable(name).is_some_and(|value| ["1", "on", "yes", "true"].contains(&value.to_lowercase().as_str()))
        };
        Self {
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            cache: folder("HF_HUB_CACHE")
                .or_else(|| folder("HUGGINGFACE_HUB_CACHE"))
                .unwrap_or_else(|| home.join("hub")),
            token: token.map(|token| token.trim().to_owned()).filter(|token| !token.is_empty()),
            offline: is_on("HF_HUB_OFFLINE") || is_on("TRANSFORMERS_OFFLINE"),
        }
    }
}

/// What to fetch of a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// A base model: configuration, tokenizer, weights as safetensors.
    Model,
    /// An adapter: `adapter_config.json` and `adapter_model.safetensors`.
    Adapter,
}

/// Whether `text` has the form of a hub id: `owner/name`, as huggingface_hub's `validate_repo_id` has it.
#[must_use]
pub fn is_id(text: &str) -> bool {
    let is_word = |word: &str| {
        !word.is_empty()
            && word.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
            && !word.starts_with(['-', '.'])
            && !word.ends_with(['-', '.'])
            && !word.contains("--")
            && !word.contains("..")
    };
    let is_file = [".gguf", ".safetensors", ".json", ".git"].iter().any(|end| text.ends_with(end));
    text.len() <= 96 && !is_file && text.split_once('/').is_some_and(|(owner, name)| is_word(owner) && is_word(name))
}

/// A directory with the files of `id` at `revision` (a branch, tag or commit; `main` without). What the cache holds already
/// takes no network.
///
/// # Errors
/// [`Kind::Network`] with the id and what to do; [`Kind::NotFound`] if the repository lacks a file;
/// [`Kind::Interrupted`]; [`Kind::Format`] if what arrived is not what was sent.
pub fn fetch(config: &HubConfig, id: &str, revision: Option<&str>, wanted: Wanted, task: &Task<'_>) -> Result<PathBuf> {
    if !is_id(id) {
        return Err(Error::usage(format!("`{id}` is not the id of a repository on the hub")).hint("ids are owner/name"));
    }
    let name = revision.unwrap_or("main");
    // It becomes part of a path.
    if !name.chars().all(|c| c.is_ascii_alphanumeric() || "-_./".contains(c))
        || name.contains("..")
        || name.starts_with('/')
    {
        return Err(
            Error::usage(format!("`{name}` is not a revision")).hint("a branch, a tag, or a commit: --revision main")
        );
    }
    let hub = Hub { config, id, revision: name, asked: revision.is_some() };
    match hub.cached(wanted) {
        Some(snapshot) => Ok(snapshot),
        None if config.offline => Err(hub.not_cached()),
        None => hub.download(wanted, task),
    }
}

/// One revision of one repository.
struct Hub<'a> {
    config: &'a HubConfig,
    id: &'a str,
    revision: &'a str,
    /// Whether the revision was asked for.
    asked: bool,
}

impl Hub<'_> {
    fn repo(&self, revision: &str) -> Repo {
        Repo::with_revision(self.id.to_owned(), RepoType::Model, revision.to_owned())
    }

    /// The folder of the repository in the cache.
    fn folder(&self) -> PathBuf {
        self.config.cache.join(self.repo(self.revision).folder_name())
    }

    /// The snapshot of the revision, if all of it is there.
    fn cached(&self, wanted: Wanted) -> Option<PathBuf> {
        let reference = std::fs::read_to_string(self.folder().join("refs").join(self.revision));
        // A commit needs no reference.
        let commit = reference.unwrap_or_else(|_| self.revision.to_owned());
        let snapshot = self.folder().join("snapshots").join(commit.trim());
        files::complete(&snapshot, wanted).then_some(snapshot)
    }

    fn download(&self, wanted: Wanted, task: &Task<'_>) -> Result<PathBuf> {
        let builder = ApiBuilder::from_cache(Cache::new(self.config.cache.clone()));
        let builder = builder.with_endpoint(self.config.endpoint.clone()).with_token(self.config.token.clone());
        let api = builder.with_progress(false).build().map_err(|error| self.failed(None, &error))?;
        let (commit, remote) = self.list(&api, task)?;
        let mut needed = files::select(self.id, &remote, wanted)?;
        let snapshot = self.folder().join("snapshots").join(&commit);
        let index = files::INDEX;
        if needed.iter().any(|file| file.name == index) {
            // The names of the shards are known only when the index has arrived.
            let small: Vec<Remote> = needed.iter().filter(|file| !files::is_weight(&file.name)).cloned().collect();
            self.download_all(&api, &commit, &small, task)?;
            let shards = weight_map(&snapshot.join(index))?;
            needed = files::shards(self.id, &remote, &shards)?;
        }
        self.download_all(&api, &commit, &needed, task)?;
        let reference = Cache::new(self.config.cache.clone()).repo(self.repo(self.revision));
        reference.create_ref(&commit).map_err(|error| Error::io("write", &self.folder().join("refs"), error))?;
        if files::complete(&snapshot, wanted) {
            Ok(snapshot)
        } else {
            Err(Error::bug(format!("{} is not complete after the download of {}", snapshot.display(), self.id)))
        }
    }

    /// The commit that the revision stands for, and its files.
    fn list(&self, api: &Api, task: &Task<'_>) -> Result<(String, Vec<Remote>)> {
        let repo = api.repo(self.repo(self.revision));
        let request = move |_: &download::Reporter| {
            let mut response = repo.info_request().query("blobs", "true").call().map_err(Box::new)?;
            Ok(response.body_mut().read_to_string().map_err(Box::new)?)
        };
        let answer: Result<String, ApiError> = download::in_background(request, |_| task.check())?;
        let answer = answer.map_err(|error| self.failed(None, &error))?;
        let strange =
            || Error::new(Kind::Network, format!("{} gave a strange answer about {}", self.config.endpoint, self.id));
        let answer: Value = serde_json::from_str(&answer).map_err(|error| strange().with_source(error))?;
        let commit = answer["sha"].as_str().filter(|sha| download::is_hex(sha)).ok_or_else(strange)?;
        let files = answer["siblings"].as_array().ok_or_else(strange)?;
        Ok((commit.to_owned(), files.iter().filter_map(Remote::read).collect()))
    }

    fn download_all(&self, api: &Api, commit: &str, needed: &[Remote], task: &Task<'_>) -> Result<()> {
        let total = needed.iter().map(|file| file.bytes.unwrap_or(0)).sum();
        let mut meter = task.meter(&format!("downloading {}", self.id), total, Unit::Bytes);
        for file in needed {
            let target = self.folder().join("snapshots").join(commit).join(&file.name);
            if target.exists() || download::link(&self.folder(), file, &target) {
                meter.advance(file.bytes.unwrap_or(0), &file.name)?;
                continue;
            }
            download::discard_overlong(&self.folder(), file);
            let (repo, name) = (api.repo(self.repo(commit)), file.name.clone());
            let work = move |reporter: &download::Reporter| repo.download_with_progress(&name, reporter.clone());
            let done = download::in_background(work, |bytes| meter.advance(bytes, &file.name))?;
            let path = done.map_err(|error| self.failed(Some(&file.name), &error))?;
            download::verify(&path)?;
        }
        Ok(())
    }

    /// The error for what cannot be had without the network.
    fn not_cached(&self) -> Error {
        let (id, cache) = (self.id, self.config.cache.display());
        let what = if self.asked { format!("{id} at {}", self.revision) } else { id.to_owned() };
        Error::new(
            Kind::Network,
            format!("{what} is not in the cache {cache}, and HF_HUB_OFFLINE forbids to download it"),
        )
        .hint("unset HF_HUB_OFFLINE, or load a directory")
    }

    /// What an error of the library means. `file` is the file that was being downloaded.
    fn failed(&self, file: Option<&str>, error: &ApiError) -> Error {
        let Self { config: HubConfig { endpoint, token, .. }, id, revision, .. } = self;
        let network = |message: String| Error::new(Kind::Network, message);
        let text = error.to_string();
        // The library's errors are those of ureq, which say `http status: 404`.
        match text.rsplit_once("http status: ").and_then(|(_, status)| status.parse::<u16>().ok()) {
            Some(status @ (401 | 403)) => {
                let error = network(format!("the hub gives no access to {id} (status {status})"));
                if token.is_some() {
                    error.hint(format!("accept its terms at {endpoint}/{id} with the account of the token in HF_TOKEN"))
                } else {
                    error.hint(format!(
                        "check the spelling; if it is gated, accept its terms at {endpoint}/{id} and set HF_TOKEN to a token of yours"
                    ))
                }
            }
            Some(404) => match file {
                Some(file) => network(format!("the hub has no {file} of {id}")),
                None if self.asked => network(format!("the hub has no {id} with the revision {revision}"))
                    .hint(format!("see {endpoint}/{id} for its branches, or leave --revision out")),
                None => network(format!("the hub has no {id}")).hint(format!("check the spelling at {endpoint}")),
            },
            Some(429) => {
                network(format!("the hub refuses {id}: too many requests")).hint("wait a minute, or set HF_TOKEN")
            }
            Some(status) => network(format!("the hub answers {status} for {id}")).hint("try again later"),
            None => match (error, file) {
                (ApiError::LockAcquisition(_), _) => network(format!("something else is downloading {id} just now"))
                    .hint("wait until it is done, then load again"),
                (ApiError::IoError(_), Some(file)) => {
                    network(format!("the download of {file} of {id} broke off: {text}"))
                        .hint("the same command goes on where it stopped")
                }
                _ => network(format!("cannot get {id} from {endpoint}: {text}"))
                    .hint("check the network and HF_ENDPOINT; what is in the cache or a directory loads without"),
            },
        }
    }
}

/// Removes a file; that it is gone already is no error.
fn remove(path: &Path) {
    // What cannot be removed shows itself at the next attempt to write it.
    drop(std::fs::remove_file(path));
}
