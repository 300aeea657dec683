//! IOPub: what every front end sees, in order.
//!
//! One task owns the socket, since a subscription is only noticed while somebody reads. What is sent before the first front
//! end listens is held back for a moment; of several updates of one display that wait, only the latest is sent.

use std::collections::VecDeque;
use std::time::Duration;

use jupyter_zmq_client::{KernelIoPubXPubConnection, Result, SubscriptionEvent};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::wire::{self, Message};

/// How long the first messages wait for somebody who listens.
const GATE: Duration = Duration::from_millis(500);
/// How long a reply waits for outputs that a front end does not take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where everybody publishes. Sending never waits.
#[derive(Clone)]
pub(super) struct Iopub {
    queue: mpsc::UnboundedSender<Item>,
    open: watch::Receiver<bool>,
}

enum Item {
    Message {
        message: Box<Message>,
        /// The display that this is an update of.
        update: Option<String>,
    },
    /// Answers when everything before it has been sent.
    Barrier(oneshot::Sender<()>),
}

impl Iopub {
    pub(super) fn start(connection: KernelIoPubXPubConnection) -> Self {
        let (queue, inbox) = mpsc::unbounded_channel();
        let (open, watch) = watch::channel(false);
        tokio::spawn(Publisher { connection, inbox, pending: VecDeque::new(), open, gate: None }.serve());
        Self { queue, open: watch }
    }

    /// Publishes a message that tells of `parent`.
    pub(super) fn send(&self, parent: Option<&Message>, msg_type: &str, content: Value) {
        let update = (msg_type == "update_display_data").then(|| content["transient"]["display_id"].to_string());
        let message = wire::message(parent, msg_type, content);
        self.put(Item::Message { message: Box::new(message), update });
    }

    /// Publishes what the kernel does about `parent`: `busy` or `idle`.
    pub(super) fn status(&self, parent: Option<&Message>, state: &str) {
        self.send(parent, "status", json!({"execution_state": state}));
    }

    /// Waits until everything published so far has been sent.
    pub(super) async fn flush(&self) {
        let (done, sent) = oneshot::channel();
        self.put(Item::Barrier(done));
        // A front end that has stopped reading must not stop the queue of cells.
        let _ = timeout(PATIENCE, sent).await;
    }

    /// Waits until messages are no longer held back.
    pub(super) async fn opened(&self) {
        let _ = self.open.clone().wait_for(|open| *open).await;
    }

    fn put(&self, item: Item) {
        // The task ends with the process, when nobody has anything to say any more.
        let _ = self.queue.send(item);
    }
}

/// Queues an item; an update takes the place of those of its display that wait.
fn take(pending: &mut VecDeque<Item>, item: Item) {
    if let Item::Message { update: Some(display), .. } = &item {
        let outdated = |other: &Item| matches!(other, Item::Message { update: Some(id), .. } if id == display);
        pending.retain(|other| !outdated(other));
    }
    pending.push_back(item);
}

struct Publisher {
    connection: KernelIoPubXPubConnection,
    inbox: mpsc::UnboundedReceiver<Item>,
    pending: VecDeque<Item>,
    open: watch::Sender<bool>,
    /// When messages stop waiting for somebody who listens.
    gate: Option<Instant>,
}

impl Publisher {
    async fn serve(mut self) {
        loop {
            let is_open = *self.open.borrow();
            let gate = self.gate.unwrap_or_else(Instant::now);
            tokio::select! {
                biased;
                event = self.connection.recv_subscription() => self.subscribed(event).await,
                item = self.inbox.recv() => match item {
                    Some(item) => {
                        self.gate.get_or_insert_with(|| Instant::now() + GATE);
                        take(&mut self.pending, item);
                    }
                    None => return,
                },
                () = std::future::ready(()), if is_open && !self.pending.is_empty() => self.deliver().await,
                () = sleep_until(gate), if !is_open && self.gate.is_some() => drop(self.open.send_replace(true)),
            }
        }
    }

    /// A front end that begins to listen is welcomed; the first is told that the kernel starts. One that leaves is no trouble.
    async fn subscribed(&mut self, event: Result<SubscriptionEvent>) {
        let Ok(SubscriptionEvent::Subscribe(topic)) = event else { return };
        self.write(wire::message(None, "iopub_welcome", json!({"subscription": topic}))).await;
        if !self.open.send_replace(true) {
            self.write(wire::message(None, "status", json!({"execution_state": "starting"}))).await;
        }
    }

    async fn deliver(&mut self) {
        match self.pending.pop_front() {
            Some(Item::Message { message, .. }) => self.write(*message).await,
            // Nobody waits any more where patience has ended.
            Some(Item::Barrier(done)) => drop(done.send(())),
            None => {}
        }
    }

    async fn write(&mut self, mut message: Message) {
        // For everybody: the first frame is the topic.
        message.zmq_identities = vec![message.header.msg_type.clone().into_bytes().into()];
        if let Err(error) = self.connection.send(message).await {
            eprintln!("loralab kernel: an output could not be sent: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_waiting_updates_the_latest_is_kept() {
        let mut pending = VecDeque::new();
        let steps = [("a", 1), ("b", 1), ("", 1), ("a", 2), ("a", 3), ("", 2), ("b", 2)];
        for (display, n) in steps {
            let update = (!display.is_empty()).then(|| display.to_owned());
            let message = Box::new(wire::message(None, "update_display_data", json!({"n": n})));
            take(&mut pending, Item::Message { message, update });
        }
        let seen = |item: Item| match item {
            Item::Message { message, update } => (update, serde_json::to_value(&message.content).unwrap()["n"].clone()),
            Item::Barrier(_) => panic!("nobody waits"),
        };
        let named = |display: &str| Some(display.to_owned());
        let kept: Vec<_> = pending.into_iter().map(seen).collect();
        assert_eq!(kept, [(None, json!(1)), (named("a"), json!(3)), (None, json!(2)), (named("b"), json!(2))]);
    }
}
