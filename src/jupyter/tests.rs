//! A kernel with commands that no session has: one that panics, one that shows five megabytes, one that goes on talking.

use std::sync::Arc;
use std::time::Duration;

use jupyter_protocol::connection_info::Transport;
use jupyter_zmq_client::{ClientIoPubConnection, ClientShellConnection};
use serde_json::{Value, json};

use super::*;
use crate::event::{Event, Page, Sink, Task};
use crate::language::Argument;
use crate::session::{Answer, Dispatch, Session};

const LARGE: usize = 5 << 20;

fn command(_: &mut Session, words: &[Argument], task: Task<'_>) -> Answer {
    match words[0].text.as_str() {
        "panic" => panic!("the sky falls"),
        "large" => task.emit(Event::Value("x".repeat(LARGE))),
        word => task.emit(Event::Stream { text: format!("{word}\n"), error: false }),
    }
    Ok(Value::Null)
}

struct Front {
    shell: ClientShellConnection,
    iopub: ClientIoPubConnection,
    kernel: Arc<Kernel>,
    folder: std::path::PathBuf,
}

impl Front {
    async fn start(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("lora-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let connection = ConnectionInfo {
            ip: folder.join("s").display().to_string(),
            transport: Transport::IPC,
            shell_port: 1,
            iopub_port: 2,
            stdin_port: 3,
            control_port: 4,
            hb_port: 5,
            key: "key".to_owned(),
            signature_scheme: "hmac-sha256".to_owned(),
            kernel_name: None,
        };
        let help = |_: Option<&str>| Ok(Page { text: String::new(), markdown: String::new() });
        let lab = Lab::start(Dispatch { run: command, help, work: |_| {} }).unwrap();
        let (kernel, _) = super::start(&connection, lab, Vec::new()).await.unwrap();
        let iopub = zmq::create_client_iopub_connection(&connection, "", "front").await.unwrap();
        let identity = zmq::peer_identity_for_session("front").unwrap();
        let shell = zmq::create_client_shell_connection_with_identity(&connection, "front", identity).await.unwrap();
        Self { shell, iopub, kernel, folder }
    }

    /// Runs a cell: its outputs by type and content, then the reply.
    async fn execute(&mut self, code: &str) -> (Vec<(String, Value)>, Value) {
        let request = json!({"code": code, "store_history": false});
        self.shell.send(wire::message(None, "execute_request", request)).await.unwrap();
        let mut seen = Vec::new();
        loop {
            let message = self.iopub.read().await.unwrap();
            let content = serde_json::to_value(&message.content).unwrap();
            match (message.message_type(), content["execution_state"].as_str()) {
                (_, Some("idle")) => break,
                ("status" | "iopub_welcome" | "execute_input", _) => {}
                (kind, _) => seen.push((kind.to_owned(), content)),
            }
        }
        let reply = self.shell.read().await.unwrap();
        (seen, serde_json::to_value(&reply.content).unwrap())
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_is_one_error_and_the_session_goes_on() {
    let mut front = Front::start("panic").await;
    let (seen, reply) = front.execute("panic").await;
    assert_eq!(seen.len(), 1, "{seen:?}");
    assert_eq!((seen[0].0.as_str(), &seen[0].1["ename"]), ("error", &json!("Bug")));
    assert!(reply["evalue"].as_str().unwrap().contains("the sky falls"), "{reply}");
    let (seen, reply) = front.execute("hello").await;
    assert_eq!((seen[0].1["text"].as_str(), &reply["status"]), (Some("hello\n"), &json!("ok")));
}

#[tokio::test(flavor = "multi_thread")]
async fn five_megabytes_arrive() {
    let mut front = Front::start("large").await;
    let (seen, _) = front.execute("large").await;
    assert_eq!(seen[0].0, "execute_result");
    assert_eq!(seen[0].1["data"]["text/plain"].as_str().map(str::len), Some(LARGE));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_said_after_the_end_belongs_to_the_cell() {
    let mut front = Front::start("after").await;
    front.execute("hello").await;
    let request = wire::message(None, "execute_request", json!({}));
    let sink = front.kernel.display.begin(&request, 1, None);
    front.kernel.display.end(&request.header.msg_id).await;
    sink.emit(Event::Stream { text: "late".to_owned(), error: true });
    drop(sink);
    let message = tokio::time::timeout(Duration::from_secs(60), front.iopub.read()).await.unwrap().unwrap();
    assert_eq!(message.message_type(), "stream");
    assert_eq!(message.parent_header.unwrap().msg_id, request.header.msg_id);
}
