//! Downloads from a hub on this machine.

use std::fs;

use super::*;
use crate::event::{Cancel, Event, Sink};
use crate::model::source;
use crate::model::source::tests::{Folder, GOLDEN, Silence};

mod server;

use server::Hub as Server;

const ID: &str = "tiny/llama";

/// A hub with the golden model and an empty cache.
struct Place {
    server: Server,
    cache: Folder,
}

impl Place {
    fn new() -> Self {
        let server = Server::start(ID);
        for name in
            ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
        {
            server.put(name, fs::read(format!("{GOLDEN}/{name}")).unwrap());
        }
        server.put("README.md", b"not needed".to_vec());
        Self { server, cache: Folder::new() }
    }

    fn config(&self) -> HubConfig {
        HubConfig {
            endpoint: self.server.endpoint(),
            cache: self.cache.path().to_owned(),
            token: Some("hf_secret".to_owned()),
            offline: false,
        }
    }

    fn fetch(&self) -> Result<PathBuf> {
        fetch(&self.config(), ID, None, Wanted::Model, &Task::new(&Silence, &Cancel::default()))
    }

    fn refused(&self) -> Error {
        self.fetch().expect_err("it must be refused")
    }
}

fn assert_golden(snapshot: &Path, names: &[&str]) {
    for name in names {
        assert!(fs::read(snapshot.join(name)).unwrap() == fs::read(format!("{GOLDEN}/{name}")).unwrap(), "{name}");
    }
}

#[test]
fn a_model_is_downloaded_once() {
    let place = Place::new();
    let snapshot = place.fetch().unwrap();
    assert_golden(&snapshot, &["config.json", "generation_config.json", "model.safetensors", "tokenizer.json"]);
    assert!(!snapshot.join("README.md").exists());
    assert!(place.server.requests().iter().all(|request| request.token.as_deref() == Some("Bearer hf_secret")));
    let asked = place.server.requests().len();
    assert_eq!(place.fetch().unwrap(), snapshot);
    assert_eq!(place.server.requests().len(), asked);
    // Nothing is asked of the hub even if it is gone, and nobody may ask.
    let config = place.config();
    drop(place.server);
    let task = Cancel::default();
    let task = Task::new(&Silence, &task);
    assert_eq!(fetch(&config, ID, None, Wanted::Model, &task).unwrap(), snapshot);
    let offline = HubConfig { offline: true, ..config };
    let opened = source::open_with(ID, None, &task, &offline).unwrap();
    assert_eq!(opened.name, ID);
    assert_eq!(opened.location, snapshot.display().to_string());
    assert!(opened.tensors.list().len() > 10);
}

#[test]
fn a_download_that_broke_off_goes_on_where_it_stopped() {
    let place = Place::new();
    place.server.break_off("model.safetensors", 100_000);
    let error = place.refused();
    assert_eq!(error.kind(), Kind::Network);
    assert!(error.message().contains("model.safetensors") && error.message().contains(ID), "{error}");
    assert!(error.hint_text().unwrap().contains("goes on"), "{error}");
    // Half a model is no model.
    let offline = HubConfig { offline: true, ..place.config() };
    let task = Cancel::default();
    let again = fetch(&offline, ID, None, Wanted::Model, &Task::new(&Silence, &task)).unwrap_err();
    assert_eq!(again.kind(), Kind::Network);
    let first = place.server.requests().len();
    let snapshot = place.fetch().unwrap();
    assert_golden(&snapshot, &["model.safetensors", "tokenizer.json"]);
    let requests = place.server.requests().split_off(first);
    let ranges: Vec<u64> =
        requests.iter().filter(|r| r.path.contains("model.safetensors")).filter_map(|r| r.from).collect();
    assert!(ranges.iter().any(|&from| from > 0 && from <= 100_000), "{ranges:?}");
    assert!(!requests.iter().any(|r| r.path.ends_with("tokenizer.json")), "what had arrived was asked for again");
}

#[test]
fn a_part_that_was_complete_is_no_dead_end() {
    let place = Place::new();
    let weights = fs::read(format!("{GOLDEN}/model.safetensors")).unwrap();
    let blobs = place.cache.path().join("models--tiny--llama/blobs");
    fs::create_dir_all(&blobs).unwrap();
    fs::write(blobs.join(format!("{}.part", server::sha256(&weights))), &weights).unwrap();
    assert_golden(&place.fetch().unwrap(), &["model.safetensors"]);
}

#[test]
fn an_interrupt_stops_a_download() {
    /// Cancels when the first bytes of the weights are reported.
    struct Impatient(Cancel);
    impl Sink for Impatient {
        fn emit(&self, event: Event) {
            if let Event::Progress(progress) = event
                && progress.detail == "model.safetensors"
            {
                self.0.cancel();
            }
        }
    }
    let place = Place::new();
    place.server.stall("model.safetensors", 50_000);
    let cancel = Cancel::default();
    let sink = Impatient(cancel.clone());
    let error = fetch(&place.config(), ID, None, Wanted::Model, &Task::new(&sink, &cancel)).unwrap_err();
    assert!(error.is_interrupted(), "{error}");
    place.server.go_on();
    assert_golden(&place.fetch().unwrap(), &["model.safetensors"]);
}

#[test]
fn progress_is_in_bytes_of_all_files() {
    struct Recorder(std::sync::Mutex<Vec<crate::event::Progress>>);
    impl Sink for Recorder {
        fn emit(&self, event: Event) {
            if let Event::Progress(progress) = event {
                self.0.lock().unwrap().push(progress);
            }
        }
    }
    let place = Place::new();
    let recorder = Recorder(std::sync::Mutex::default());
    fetch(&place.config(), ID, None, Wanted::Model, &Task::new(&recorder, &Cancel::default())).unwrap();
    let progress = recorder.0.into_inner().unwrap();
    let names =
        ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"];
    let total: u64 = names.iter().map(|name| fs::metadata(format!("{GOLDEN}/{name}")).unwrap().len()).sum();
    let last = progress.last().unwrap();
    assert_eq!((last.done, last.total), (total, total));
    assert!(last.label.contains(ID));
    assert!(progress.iter().all(|p| p.total == total && p.done <= total));
}

#[test]
fn a_revision_brings_only_what_is_new() {
    let place = Place::new();
    place.fetch().unwrap();
    place.server.put("config.json", b"{\"model_type\": \"llama\", \"new\": true}".to_vec());
    place.server.commit("b".repeat(40));
    let first = place.server.requests().len();
    let task = Cancel::default();
    let task = Task::new(&Silence, &task);
    let snapshot = fetch(&place.config(), ID, Some("refs/pr/1"), Wanted::Model, &task).unwrap();
    assert!(snapshot.ends_with("b".repeat(40)));
    assert!(fs::read_to_string(snapshot.join("config.json")).unwrap().contains("new"));
    assert_golden(&snapshot, &["model.safetensors", "tokenizer.json"]);
    let requests = place.server.requests().split_off(first);
    assert!(requests.iter().any(|request| request.path.contains("refs%2Fpr%2F1")), "{requests:?}");
    assert!(!requests.iter().any(|request| request.path.contains("model.safetensors")), "{requests:?}");
    // The commit itself is a revision too, and takes no network.
    let asked = place.server.requests().len();
    assert_eq!(fetch(&place.config(), ID, Some(&"b".repeat(40)), Wanted::Model, &task).unwrap(), snapshot);
    assert_eq!(place.server.requests().len(), asked);
}

#[test]
fn shards_and_adapters_are_fetched() {
    let place = Place::new();
    place.server.remove("model.safetensors");
    place.server.put("model-1.safetensors", b"one".to_vec());
    place.server.put("model-2.safetensors", b"two".to_vec());
    let index =
        br#"{"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors", "c": "model-1.safetensors"}}"#;
    place.server.put("model.safetensors.index.json", index.to_vec());
    let snapshot = place.fetch().unwrap();
    assert_eq!(fs::read(snapshot.join("model-2.safetensors")).unwrap(), b"two");

    place.server.put("adapter_config.json", b"{}".to_vec());
    place.server.put("adapter_model.safetensors", b"adapter".to_vec());
    place.server.commit("c".repeat(40));
    let task = Cancel::default();
    let task = Task::new(&Silence, &task);
    let adapter = fetch(&place.config(), ID, Some("v2"), Wanted::Adapter, &task).unwrap();
    assert_eq!(fs::read(adapter.join("adapter_model.safetensors")).unwrap(), b"adapter");
    assert!(!adapter.join("config.json").exists());
}

#[test]
fn refusals_say_what_to_do() {
    let place = Place::new();
    let task = Cancel::default();
    let task = Task::new(&Silence, &task);
    let with = |config: &HubConfig, id: &str, revision: Option<&str>| {
        let error = fetch(config, id, revision, Wanted::Model, &task).unwrap_err();
        assert_eq!(error.kind(), Kind::Network, "{error}");
        assert!(error.message().contains(id), "{error} should name {id}");
        let hint = error.hint_text().unwrap_or_default().to_owned();
        (error.message().to_owned(), hint)
    };
    let config = place.config();
    let anonymous = HubConfig { token: None, ..config.clone() };

    let (message, hint) = with(&config, "tiny/lama", None);
    assert!(message.contains("has no") && hint.contains("spelling"), "{message}; {hint}");
    let (message, hint) = with(&config, ID, Some("v9"));
    assert!(message.contains("v9") && hint.contains("--revision"), "{message}; {hint}");
    for status in [401, 403] {
        place.server.answer(status);
        let (message, hint) = with(&anonymous, ID, None);
        assert!(message.contains(&status.to_string()) && hint.contains("set HF_TOKEN"), "{message}; {hint}");
        let (_, hint) = with(&config, ID, None);
        assert!(hint.contains("accept its terms") && hint.contains(ID), "{hint}");
        assert!(!hint.contains("hf_secret"));
    }
    place.server.answer(429);
    assert!(with(&config, ID, None).0.contains("too many"));
    place.server.answer(500);
    assert!(with(&config, ID, None).0.contains("500"));
    let (message, hint) = with(&HubConfig { offline: true, ..config.clone() }, ID, None);
    assert!(message.contains("not in the cache") && hint.contains("HF_HUB_OFFLINE"), "{message}; {hint}");
    let nowhere = HubConfig { endpoint: "http://127.0.0.1:1".into(), ..config };
    let (message, hint) = with(&nowhere, ID, None);
    assert!(message.contains("127.0.0.1:1") && hint.contains("HF_ENDPOINT"), "{message}; {hint}");
}

#[test]
fn a_file_the_hub_lacks_is_not_found() {
    let place = Place::new();
    place.server.remove("tokenizer.json");
    let error = place.refused();
    assert_eq!(error.kind(), Kind::NotFound);
    assert!(error.message().contains("tokenizer.json") && error.message().contains(ID), "{error}");
}

#[test]
fn a_file_that_arrives_damaged_is_not_kept() {
    let place = Place::new();
    place.server.damage("model.safetensors");
    let error = place.refused();
    assert_eq!(error.kind(), Kind::Format);
    assert!(error.message().contains("model.safetensors"), "{error}");
    assert_golden(&place.fetch().unwrap(), &["model.safetensors"]);
}

#[test]
fn ids_and_revisions_that_are_none_are_refused() {
    for id in ["owner/name", "HuggingFaceTB/SmolLM2-135M-Instruct", "o/n_1.5"] {
        assert!(is_id(id), "{id}");
    }
    for id in
        ["name", "a/b/c", "/b", "a/", "../b", "./b", "a/..", "a/b.gguf", "a b/c", "a/b--c", "-a/b", "a/b.", "~/b", ""]
    {
        assert!(!is_id(id), "{id}");
    }
    let place = Place::new();
    let task = Cancel::default();
    let task = Task::new(&Silence, &task);
    for (id, revision) in [("../x", None), (ID, Some("../../x")), (ID, Some("/x")), (ID, Some("a b"))] {
        let error = fetch(&place.config(), id, revision, Wanted::Model, &task).unwrap_err();
        assert_eq!(error.kind(), Kind::Usage, "{error}");
    }
    assert!(place.server.requests().is_empty());
}

#[test]
fn the_environment_is_read_as_python_reads_it() {
    let folder = Folder::new();
    let token = folder.write("token", b"hf_file\n");
    let read = |variables: &[(&str, &str)]| {
        HubConfig::from_variables(|name| variables.iter().find(|(key, _)| *key == name).map(|(_, v)| (*v).to_owned()))
    };
    let plain = read(&[("HOME", "/users/me")]);
    assert_eq!(plain.endpoint, "https://huggingface.co");
    assert_eq!(plain.cache, Path::new("/users/me/.cache/huggingface/hub"));
    assert!(plain.token.is_none() && !plain.offline);
    let home = folder.path().to_str().unwrap();
    let set =
        read(&[("HF_HOME", home), ("HF_ENDPOINT", "http://mirror/"), ("HF_HUB_OFFLINE", "1"), ("HOME", "/users/me")]);
    assert_eq!(set.endpoint, "http://mirror");
    assert_eq!(set.cache, folder.path().join("hub"));
    assert_eq!(set.token.as_deref(), Some("hf_file"));
    assert!(set.offline);
    let more = read(&[
        ("HF_HUB_CACHE", "/cache"),
        ("HF_TOKEN", " hf_x "),
        ("HF_TOKEN_PATH", token.to_str().unwrap()),
        ("HF_HUB_OFFLINE", "0"),
    ]);
    assert_eq!(more.cache, Path::new("/cache"));
    assert_eq!(more.token.as_deref(), Some("hf_x"));
    assert!(!more.offline);
}

#[test]
fn a_hub_that_does_not_speak_tls_is_an_error_of_the_network() {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("https://{}", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut hello = [0; 3];
        stream.read_exact(&mut hello).unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
        hello
    });
    let cache = Folder::new();
    let config = HubConfig { endpoint, cache: cache.path().to_owned(), token: None, offline: false };
    let error = fetch(&config, ID, None, Wanted::Model, &Task::new(&Silence, &Cancel::default())).unwrap_err();
    assert_eq!(error.kind(), Kind::Network, "{error}");
    // A handshake in TLS 1 and up.
    assert_eq!(server.join().unwrap(), [0x16, 3, 1]);
}
