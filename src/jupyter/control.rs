//! Control: what must be heard while a cell runs.

use std::sync::Arc;
use std::time::Duration;

use jupyter_zmq_client::KernelControlConnection;
use serde::Deserialize;
use serde_json::json;
use tokio::time::timeout;

use super::wire;
use super::{Kernel, requests};

/// How long a running command has to put its work aside before the kernel ends.
const GRACE: Duration = Duration::from_secs(2);

#[derive(Deserialize, Default)]
#[serde(default)]
struct Shutdown {
    restart: bool,
}

/// Serves until the kernel is told to shut down.
pub(super) async fn serve(kernel: Arc<Kernel>, connection: KernelControlConnection) {
    let (mut replies, mut requests) = connection.split();
    loop {
        let request = wire::receive(&mut requests).await;
        kernel.busy(&request);
        let is_shutdown = request.header.msg_type == "shutdown_request";
        let reply = match request.header.msg_type.as_str() {
            "interrupt_request" => {
                tokio::spawn(interrupt(Arc::clone(&kernel)));
                Some(wire::message(Some(&request), "interrupt_reply", json!({"status": "ok"})))
            }
            "shutdown_request" => {
                let restart = wire::read::<Shutdown>(&request).unwrap_or_default().restart;
                Some(wire::message(Some(&request), "shutdown_reply", json!({"status": "ok", "restart": restart})))
            }
            _ => requests::answer(&kernel, &request),
        };
        if let Some(reply) = reply
            && let Err(error) = replies.send(reply).await
        {
            eprintln!("loralab kernel: a reply could not be sent: {error}");
        }
        kernel.idle(&request);
        if is_shutdown {
            return;
        }
    }
}

/// As [`Kernel::interrupt`], for a task of its own.
pub(super) async fn interrupt(kernel: Arc<Kernel>) {
    kernel.interrupt().await;
}

/// Stops the running command, and publishes what is left to say.
pub(super) async fn stop(kernel: &Kernel) {
    // One that does not hear must not keep the kernel.
    let _ = timeout(GRACE, kernel.interrupt()).await;
    kernel.iopub.flush().await;
}
