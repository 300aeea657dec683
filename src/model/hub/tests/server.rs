//! A hub that serves one model on the loopback: repository information, files with ranges, weights behind a redirect.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// A request as it came.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) path: String,
    /// The first byte of the range that was asked for; none for the one byte with which the library asks for a size.
    pub(super) from: Option<u64>,
    pub(super) token: Option<String>,
}

#[derive(Default)]
struct State {
    id: String,
    commit: String,
    files: BTreeMap<String, Vec<u8>>,
    requests: Vec<Request>,
    /// Answers everything with this status.
    status: Option<u16>,
    /// Files that are cut off behind so many bytes, once.
    broken: HashMap<String, usize>,
    /// Files that come to a halt behind so many bytes, until told to go on.
    stalled: HashMap<String, usize>,
    /// Files of which one byte is wrong, once.
    damaged: BTreeSet<String>,
}

/// A running hub; it ends when it goes out of scope.
pub(super) struct Hub {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

pub(super) fn sha256(bytes: &[u8]) -> String {
    hex(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref())
}

fn git_hash(bytes: &[u8]) -> String {
    let object = [format!("blob {}\0", bytes.len()).as_bytes(), bytes].concat();
    hex(ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, &object).as_ref())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn is_large(name: &str) -> bool {
    name.ends_with(".safetensors")
}

fn etag(name: &str, bytes: &[u8]) -> String {
    if is_large(name) { sha256(bytes) } else { git_hash(bytes) }
}

impl Hub {
    pub(super) fn start(id: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State { id: id.to_owned(), commit: "a".repeat(40), ..State::default() }));
        let ended = Arc::new(AtomicBool::new(false));
        let (served, ending) = (Arc::clone(&state), Arc::clone(&ended));
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if ending.load(Ordering::SeqCst) {
                    break;
                }
                let state = Arc::clone(&served);
                // A client that goes away in the middle is no concern of the hub.
                std::thread::spawn(move || drop(serve(&stream, &state)));
            }
        });
        Self { address, state, ended, thread: Some(thread) }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap());
    }

    pub(super) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(super) fn put(&self, name: &str, bytes: Vec<u8>) {
        self.change(|state| {
            state.files.insert(name.to_owned(), bytes);
        });
    }

    pub(super) fn remove(&self, name: &str) {
        self.change(|state| {
            state.files.remove(name);
        });
    }

    pub(super) fn commit(&self, commit: String) {
        self.change(|state| state.commit = commit);
    }

    pub(super) fn answer(&self, status: u16) {
        self.change(|state| state.status = Some(status));
    }

    pub(super) fn break_off(&self, name: &str, after: usize) {
        self.change(|state| {
            state.broken.insert(name.to_owned(), after);
        });
    }

    pub(super) fn stall(&self, name: &str, after: usize) {
        self.change(|state| {
            state.stalled.insert(name.to_owned(), after);
        });
    }

    pub(super) fn go_on(&self) {
        self.change(|state| state.stalled.clear());
    }

    pub(super) fn damage(&self, name: &str) {
        self.change(|state| {
            state.damaged.insert(name.to_owned());
        });
    }

    pub(super) fn requests(&self) -> Vec<Request> {
        self.state.lock().unwrap().requests.clone()
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(self.address));
        drop(self.thread.take().map(JoinHandle::join));
    }
}

/// Answers one request and closes the connection.
fn serve(mut stream: &TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next().unwrap_or_else(|| Ok(String::new()))?;
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut headers = HashMap::new();
    for line in lines {
        let line = line?;
        let Some((name, value)) = line.split_once(':') else { break };
        headers.insert(name.to_lowercase(), value.trim().to_owned());
    }
    let range = headers.get("range").and_then(|range| range.strip_prefix("bytes="));
    let (from, to) = range.and_then(|range| range.split_once('-')).unwrap_or(("0", ""));
    let (from, to): (usize, Option<usize>) = (from.parse().unwrap(), to.parse().ok());
    let mut state_now = state.lock().unwrap();
    let asked = to.is_none().then_some(from as u64);
    state_now.requests.push(Request { path: path.clone(), from: asked, token: headers.get("authorization").cloned() });
    let status = state_now.status;
    let about = format!("/api/models/{}/revision/", state_now.id);
    let files = format!("/{}/resolve/", state_now.id);
    let mut reply = |status: u16, headers: &str, body: &[u8]| {
        let length = body.len();
        write!(stream, "HTTP/1.1 {status} -\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n")?;
        stream.write_all(body)
    };
    if let Some(status) = status {
        return reply(status, "", b"");
    }
    if let Some(revision) = path.strip_prefix(&about) {
        let revision = revision.split('?').next().unwrap_or_default();
        if revision == "v9" {
            return reply(404, "", b"");
        }
        return reply(200, "Content-Type: application/json\r\n", state_now.information().to_string().as_bytes());
    }
    let redirected = path.strip_prefix("/storage/");
    let name = redirected
        .or_else(|| path.strip_prefix(&files)?.split_once('/').map(|(_, name)| name))
        .unwrap_or_default()
        .to_owned();
    let Some(mut bytes) = state_now.files.get(&name).cloned() else { return reply(404, "", b"") };
    let commit = format!("X-Repo-Commit: {}\r\n", state_now.commit);
    let etag = etag(&name, &bytes);
    if is_large(&name) && redirected.is_none() {
        // As the hub does: the file itself lies on another host, but its hash is known here.
        let host = headers.get("host").cloned().unwrap_or_default();
        let location = format!("{commit}X-Linked-Etag: \"{etag}\"\r\nLocation: http://{host}/storage/{name}\r\n");
        return reply(302, &location, b"");
    }
    if from > 0 && from >= bytes.len() {
        return reply(416, "", b"");
    }
    let whole = bytes.len();
    let end = to.map_or(whole, |to| (to + 1).min(whole));
    let stop = if to.is_none() { state_now.broken.remove(&name) } else { None };
    if to.is_none() && state_now.damaged.remove(&name) {
        bytes[whole / 2] ^= 1;
    }
    drop(state_now);
    let body = &bytes[from..end];
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 206 -\r\nConnection: close\r\nContent-Length: {length}\r\nETag: \"{etag}\"\r\n{commit}\
         Content-Range: bytes {from}-{}/{whole}\r\n\r\n",
        end.saturating_sub(1)
    )?;
    if let Some(stop) = stop {
        return stream.write_all(&body[..stop.min(length)]);
    }
    let pause = if to.is_none() { state.lock().unwrap().stalled.get(&name).copied() } else { None };
    let pause = pause.unwrap_or(length).min(length);
    stream.write_all(&body[..pause])?;
    while pause < length && state.lock().unwrap().stalled.contains_key(&name) {
        std::thread::sleep(Duration::from_millis(10));
    }
    stream.write_all(&body[pause..])
}

impl State {
    /// What the hub says about a model with `blobs=true`.
    fn information(&self) -> serde_json::Value {
        let siblings: Vec<serde_json::Value> = self
            .files
            .iter()
            .map(|(name, bytes)| {
                let mut file = serde_json::json!({"rfilename": name, "size": bytes.len(), "blobId": git_hash(bytes)});
                if is_large(name) {
                    file["lfs"] = serde_json::json!({"sha256": sha256(bytes), "size": bytes.len()});
                }
                file
            })
            .collect();
        serde_json::json!({"id": self.id, "sha": self.commit, "siblings": siblings})
    }
}
