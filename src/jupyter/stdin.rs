//! Stdin: a question goes to the front end that sent the cell, its answer comes back.

use std::sync::mpsc as blocking;
use std::time::Duration;

use jupyter_zmq_client::KernelStdinConnection;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::mpsc;

use super::wire::{self, Message};
use crate::event::Cancel;

/// Asks the user.
#[derive(Clone)]
pub(super) struct Stdin {
    questions: mpsc::UnboundedSender<(Message, blocking::Sender<String>)>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Reply {
    value: String,
}

impl Stdin {
    pub(super) fn start(connection: KernelStdinConnection) -> Self {
        let (questions, inbox) = mpsc::unbounded_channel();
        tokio::spawn(serve(connection, inbox));
        Self { questions }
    }

    /// Asks whoever sent `request` and waits for the answer; none if the cell is interrupted meanwhile.
    pub(super) fn ask(&self, request: &Message, prompt: &str, cancel: &Cancel) -> Option<String> {
        let (answer, answered) = blocking::channel();
        let question = wire::message(Some(request), "input_request", json!({"prompt": prompt, "password": false}));
        self.questions.send((question, answer)).ok()?;
        loop {
            match answered.recv_timeout(Duration::from_millis(50)) {
                Ok(answer) => return Some(answer),
                Err(blocking::RecvTimeoutError::Timeout) if !cancel.is_cancelled() => {}
                Err(_) => return None,
            }
        }
    }
}

async fn serve(
    connection: KernelStdinConnection,
    mut inbox: mpsc::UnboundedReceiver<(Message, blocking::Sender<String>)>,
) {
    let (mut questions, mut answers) = connection.split();
    let mut waiting: Option<blocking::Sender<String>> = None;
    loop {
        tokio::select! {
            item = inbox.recv() => {
                let Some((question, answer)) = item else { return };
                // A question that reaches nobody is not waited for.
                waiting = questions.send(question).await.is_ok().then_some(answer);
            }
            message = wire::receive(&mut answers) => {
                if message.header.msg_type == "input_reply" && let Some(asked) = waiting.take() {
                    let _ = asked.send(wire::read::<Reply>(&message).unwrap_or_default().value);
                }
            }
        }
    }
}
