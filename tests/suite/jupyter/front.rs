//! A front end: it starts the real kernel, sends requests, and writes down what it sees as lines.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use jupyter_protocol::connection_info::{ConnectionInfo, Transport};
use jupyter_protocol::{JupyterMessage, JupyterMessageContent, UnknownMessage};
use jupyter_zmq_client as zmq;
use serde_json::{Value, json};
use zeromq::{SocketRecv, SocketSend};

use crate::support;

/// Nothing here takes as long.
const PATIENCE: Duration = Duration::from_secs(120);

/// A kernel, in a folder of its own.
pub(crate) struct Kernel {
    pub(crate) child: Child,
    pub(crate) folder: PathBuf,
    info: ConnectionInfo,
}

impl Kernel {
    /// Starts a kernel that listens on sockets in the folder of the test `name`.
    pub(crate) fn start(name: &str) -> Self {
        let folder = support::root().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        let ip = folder.join("s").display().to_string();
        let [shell_port, iopub_port, stdin_port, control_port, hb_port] = [1, 2, 3, 4, 5];
        let info = ConnectionInfo {
            ip,
            transport: Transport::IPC,
            shell_port,
            iopub_port,
            stdin_port,
            control_port,
            hb_port,
            key: "secret".to_owned(),
            signature_scheme: "hmac-sha256".to_owned(),
            kernel_name: None,
        };
        std::fs::write(folder.join("connection.json"), serde_json::to_vec(&info).unwrap()).unwrap();
        Self { child: command(&folder).spawn().unwrap(), folder, info }
    }

    /// A front end with all channels.
    pub(crate) async fn front(&self) -> Front {
        let mut front = self.deaf_front().await;
        front.listen(self).await;
        front
    }

    /// A front end that does not listen to IOPub yet.
    pub(crate) async fn deaf_front(&self) -> Front {
        let session = format!("front-{:p}", self);
        let identity = zmq::peer_identity_for_session(&session).unwrap();
        // The kernel may not have bound its sockets yet: the last of them is the heartbeat's.
        let heart = Path::new(&self.info.ip).with_file_name("s-5");
        for _ in 0..12_000 {
            if heart.exists() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let info = &self.info;
        Front {
            shell: zmq::create_client_shell_connection_with_identity(info, &session, identity.clone()).await.unwrap(),
            control: zmq::create_client_control_connection(info, &session).await.unwrap(),
            stdin: zmq::create_client_stdin_connection_with_identity(info, &session, identity).await.unwrap(),
            heart: zmq::create_client_heartbeat_connection(info).await.unwrap(),
            iopub: None,
        }
    }

    /// What the kernel wrote to standard error.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap()
    }

    /// Waits for the end of the process; its exit code.
    pub(crate) async fn ended(&mut self) -> Option<i32> {
        for _ in 0..12_000 {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the kernel does not end");
    }

    /// Starts it again, on the same sockets.
    pub(crate) fn restart(&mut self) {
        for port in 1..=5 {
            let _ = std::fs::remove_file(format!("{}-{port}", self.info.ip));
        }
        self.child = command(&self.folder).spawn().unwrap();
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// The command that starts a kernel in `folder`.
pub(crate) fn command(folder: &Path) -> Command {
    let log = std::fs::OpenOptions::new().create(true).append(true).open(folder.join("log")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_loralab"));
    command
        .args(["kernel", "-f"])
        .arg(folder.join("connection.json"))
        .current_dir(folder)
        .env("LORALAB_RUNS", folder.join("runs"))
        .env("LORALAB_HISTORY", folder.join("history.jsonl"))
        .env_remove("JPY_PARENT_PID")
        .stdin(Stdio::null())
        .stderr(log);
    command
}

pub(crate) struct Front {
    pub(crate) shell: zmq::ClientShellConnection,
    pub(crate) control: zmq::ClientControlConnection,
    pub(crate) stdin: zmq::ClientStdinConnection,
    heart: zmq::ClientHeartbeatConnection,
    iopub: Option<zmq::ClientIoPubConnection>,
}

/// A message that came in.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) kind: String,
    /// The id of the request that it tells of; empty for none.
    pub(crate) parent: String,
    pub(crate) content: Value,
}

/// How a cell went.
#[derive(Debug)]
pub(crate) struct Ran {
    /// Its messages on IOPub up to `idle`, one a line.
    pub(crate) lines: Vec<String>,
    pub(crate) seen: Vec<Seen>,
    pub(crate) reply: Value,
}

impl Ran {
    /// What the cell wrote to standard output, together.
    pub(crate) fn stdout(&self) -> String {
        let streams = self.seen.iter().filter(|m| m.kind == "stream" && m.content["name"] == "stdout");
        streams.map(|m| m.content["text"].as_str().unwrap()).collect()
    }
}

impl Front {
    /// Listens to IOPub from now on.
    pub(crate) async fn listen(&mut self, kernel: &Kernel) {
        self.iopub = Some(zmq::create_client_iopub_connection(&kernel.info, "", "front").await.unwrap());
    }

    /// Sends a request on shell; its id.
    pub(crate) async fn send(&mut self, kind: &str, content: Value) -> String {
        let (message, id) = request(kind, content);
        self.shell.send(message).await.unwrap();
        id
    }

    /// Sends a request on control; its id.
    pub(crate) async fn tell(&mut self, kind: &str, content: Value) -> String {
        let (message, id) = request(kind, content);
        self.control.send(message).await.unwrap();
        id
    }

    /// The next message on IOPub.
    pub(crate) async fn hear(&mut self) -> Seen {
        let iopub = self.iopub.as_mut().expect("the front end listens");
        let frames = tokio::time::timeout(PATIENCE, iopub.socket.recv()).await.expect("an output in time").unwrap();
        seen(zmq::RawMessage::from_multipart(frames, &iopub.mac).unwrap())
    }

    /// The reply on shell to the request `id`; what else comes is passed over.
    pub(crate) async fn reply(&mut self, id: &str) -> Value {
        loop {
            let next =
                tokio::time::timeout(PATIENCE, self.shell.socket.recv()).await.expect("a reply in time").unwrap();
            let reply = seen(zmq::RawMessage::from_multipart(next, &self.shell.mac).unwrap());
            if reply.parent == id {
                return reply.content;
            }
        }
    }

    /// The next reply on control.
    pub(crate) async fn told(&mut self) -> Seen {
        let next = tokio::time::timeout(PATIENCE, self.control.socket.recv()).await.expect("a reply in time").unwrap();
        seen(zmq::RawMessage::from_multipart(next, &self.control.mac).unwrap())
    }

    /// The next question on stdin.
    pub(crate) async fn asked(&mut self) -> Seen {
        let next = tokio::time::timeout(PATIENCE, self.stdin.socket.recv()).await.expect("a question in time").unwrap();
        seen(zmq::RawMessage::from_multipart(next, &self.stdin.mac).unwrap())
    }

    pub(crate) async fn answer(&mut self, text: &str) {
        self.stdin.send(request("input_reply", json!({"status": "ok", "value": text})).0).await.unwrap();
    }

    /// What the heartbeat sends back.
    pub(crate) async fn beat(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.heart.socket.send(bytes.to_vec().into()).await.unwrap();
        let echo = tokio::time::timeout(PATIENCE, self.heart.socket.recv()).await.expect("a beat in time").unwrap();
        echo.into_vec().concat()
    }

    /// Asks on shell and waits for the reply.
    pub(crate) async fn ask(&mut self, kind: &str, content: Value) -> Value {
        let id = self.send(kind, content).await;
        self.reply(&id).await
    }

    /// Runs a cell to its end.
    pub(crate) async fn run(&mut self, code: &str) -> Ran {
        self.execute(json!({"code": code})).await
    }

    /// Sends an execute_request and waits for its end.
    pub(crate) async fn execute(&mut self, content: Value) -> Ran {
        let id = self.send("execute_request", content).await;
        self.end(&id).await
    }

    /// Listens until the cell `id` is idle, and takes its reply.
    pub(crate) async fn end(&mut self, id: &str) -> Ran {
        let mut told = Vec::new();
        loop {
            let message = self.hear().await;
            if message.parent == id {
                let ends = message.content["execution_state"] == "idle";
                told.push(message);
                if ends {
                    break;
                }
            }
        }
        Ran { lines: told.iter().map(line).collect(), seen: told, reply: self.reply(id).await }
    }

    /// Listens until the cell `id` has begun.
    pub(crate) async fn begun(&mut self, id: &str) {
        loop {
            let message = self.hear().await;
            if message.parent == id && message.kind == "execute_input" {
                return;
            }
        }
    }
}

fn request(kind: &str, content: Value) -> (JupyterMessage, String) {
    let content = UnknownMessage { msg_type: kind.to_owned(), content };
    let message = JupyterMessage::new(JupyterMessageContent::UnknownMessage(content), None);
    let id = message.header.msg_id.clone();
    (message, id)
}

/// A message as it came, which a strict reader must be able to read too.
fn seen(raw: zmq::RawMessage) -> Seen {
    let part = |at: usize| serde_json::from_slice::<Value>(&raw.jparts[at]).unwrap();
    let (header, parent, content) = (part(0), part(1), part(3));
    let kind = header["msg_type"].as_str().unwrap().to_owned();
    assert_eq!(header["version"], "5.5");
    // An error may stand in the place of any reply.
    if content["status"] != "error"
        && let Err(error) = JupyterMessageContent::from_type_and_content(&kind, content.clone())
    {
        panic!("{kind} is not strict: {error}: {content}");
    }
    let holds_null = content.as_object().unwrap().values().any(Value::is_null);
    assert!(!holds_null, "{kind} has a field that is null: {content}");
    Seen { kind, parent: parent["msg_id"].as_str().unwrap_or_default().to_owned(), content }
}

/// A message in a line.
pub(crate) fn line(message: &Seen) -> String {
    let text = |field: &str| message.content[field].as_str().unwrap_or_default();
    let data = || message.content["data"]["text/plain"].as_str().unwrap_or_default();
    match message.kind.as_str() {
        "status" => text("execution_state").to_owned(),
        "execute_input" => format!("in {}: {}", message.content["execution_count"], text("code")),
        "execute_result" => format!("out {}: {}", message.content["execution_count"], data()),
        "stream" => format!("{}: {}", text("name"), text("text").trim_end()),
        "error" => format!("error {}: {}", text("ename"), text("evalue")),
        "iopub_welcome" => format!("welcome {}", message.content["subscription"]),
        kind => kind.to_owned(),
    }
}
