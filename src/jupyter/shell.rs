//! Shell: cells join the queue, everything else is answered at once, while a cell runs too.

use std::sync::Arc;

use jupyter_zmq_client::{RouterRecvConnection, RouterSendConnection};
use tokio::sync::mpsc;

use super::iopub::Iopub;
use super::wire::{self, Message};
use super::{Kernel, requests};

/// Where replies go. The first waits until outputs are no longer held back, so that none overtakes its `busy`.
pub(super) fn replies(mut connection: RouterSendConnection, iopub: Iopub) -> mpsc::UnboundedSender<Message> {
    let (queue, mut inbox) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(reply) = inbox.recv().await {
            iopub.opened().await;
            // Who asked has left.
            if let Err(error) = connection.send(reply).await {
                eprintln!("loralab kernel: a reply could not be sent: {error}");
            }
        }
    });
    queue
}

pub(super) async fn serve(
    kernel: Arc<Kernel>,
    mut connection: RouterRecvConnection,
    cells: mpsc::UnboundedSender<Message>,
    replies: mpsc::UnboundedSender<Message>,
) {
    loop {
        let request = wire::receive(&mut connection).await;
        if request.header.msg_type == "execute_request" {
            // The queue lives as long as the process.
            let _ = cells.send(request);
            continue;
        }
        kernel.busy(&request);
        if let Some(reply) = requests::answer(&kernel, &request) {
            let _ = replies.send(reply);
        }
        kernel.idle(&request);
    }
}
