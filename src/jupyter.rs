//! The kernel: what Jupyter starts. The only place that names jupyter-protocol and zeromq.
//!
//! | file | owns |
//! |---|---|
//! | `wire` | messages: read leniently, written with every field |
//! | `shell` | requests for code and about it: those for code queue up, the others are answered at once |
//! | `control` | interrupt and shutdown, answered while a cell runs |
//! | `stdin` | questions to the user |
//! | `heartbeat` | an echo |
//! | `iopub` | what everybody sees: held until somebody listens, the latest of several updates |
//! | `execute` | the queue of cells |
//! | `display` | the events of a cell as outputs, drawn on a thread of its own |
//! | `requests` | what can be answered without the session: kernel_info, completion, inspection, history |
//! | `parent` | ends the kernel with the program that started it |

mod control;
mod display;
mod execute;
mod heartbeat;
mod iopub;
mod parent;
mod requests;
mod shell;
mod stdin;
mod wire;

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use clap::Command;
use jupyter_protocol::connection_info::{ConnectionInfo, Transport};
use jupyter_zmq_client as zmq;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::error::{Error, Kind, Result};
use crate::session::Lab;
use display::Display;
use iopub::Iopub;
use stdin::Stdin;
use wire::Message;

/// What every channel shares.
struct Kernel {
    lab: Lab,
    verbs: Vec<Command>,
    iopub: Iopub,
    stdin: Stdin,
    display: Display,
    /// The request whose cell is running.
    running: Mutex<Option<Message>>,
}

impl Kernel {
    fn running(&self) -> MutexGuard<'_, Option<Message>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the cell that runs to stop; none of those behind it. Returns once it has stopped: a cell that is only beginning
    /// takes the first request back.
    async fn interrupt(&self) {
        let asked = self.running().as_ref().map(|cell| cell.header.msg_id.clone());
        let is_running = |cell: &Option<Message>| cell.as_ref().map(|cell| &cell.header.msg_id) == asked.as_ref();
        while asked.is_some() {
            {
                // As long as this is held no other cell begins.
                let running = self.running();
                if !is_running(&running) {
                    return;
                }
                self.lab.cancel().cancel();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// A request is begun.
    fn busy(&self, request: &Message) {
        self.iopub.status(Some(request), "busy");
    }

    /// A request is done. A front end that hears `idle` while a cell runs takes the kernel for free: it is told again.
    fn idle(&self, request: &Message) {
        let running = self.running();
        self.iopub.status(Some(request), "idle");
        if running.is_some() {
            self.iopub.status(running.as_ref(), "busy");
        }
    }
}

/// Serves the front ends of `connection_file` until it is told to shut down, or the program that started it is gone.
///
/// # Errors
/// The file cannot be read or is none, or a port cannot be bound.
pub fn run(connection_file: &Path, lab: Lab, verbs: Vec<Command>) -> Result<()> {
    let text = fs::read(connection_file).map_err(|e| Error::io("read", connection_file, e))?;
    let connection: ConnectionInfo = serde_json::from_slice(&text).map_err(|e| {
        let message = format!("{} is no connection file: {e}", connection_file.display());
        Error::format(message)
            .hint("Jupyter writes it and starts the kernel; loralab without arguments is the terminal")
    })?;
    parent::watch(lab.clone());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(|e| Error::bug(format!("cannot start the runtime: {e}")).with_source(e))?;
    let served = runtime.block_on(async {
        let (kernel, control) = start(&connection, lab, verbs).await?;
        until_told(&kernel, control).await?;
        control::stop(&kernel).await;
        Ok(())
    });
    // A command that does not hear must not hold the process.
    runtime.shutdown_background();
    served
}

/// Listens on all channels, and serves all but control.
async fn start(
    connection: &ConnectionInfo,
    lab: Lab,
    verbs: Vec<Command>,
) -> Result<(Arc<Kernel>, zmq::KernelControlConnection)> {
    let session = wire::new_id();
    remove_stale(connection);
    let iopub = zmq::create_kernel_iopub_xpub_connection(connection, &session).await.map_err(unbound)?;
    let shell = zmq::create_kernel_shell_connection(connection, &session).await.map_err(unbound)?;
    let control = zmq::create_kernel_control_connection(connection, &session).await.map_err(unbound)?;
    let stdin = zmq::create_kernel_stdin_connection(connection, &session).await.map_err(unbound)?;
    let heart = zmq::create_kernel_heartbeat_connection(connection).await.map_err(unbound)?;

    let iopub = Iopub::start(iopub);
    let display = Display::start(iopub.clone())?;
    let stdin = Stdin::start(stdin);
    let kernel = Arc::new(Kernel { lab, verbs, iopub, stdin, display, running: Mutex::default() });
    tokio::spawn(heartbeat::serve(heart.socket));
    let (cells, queue) = mpsc::unbounded_channel();
    let (replies, requests) = shell.split();
    let replies = shell::replies(replies, kernel.iopub.clone());
    tokio::spawn(execute::serve(Arc::clone(&kernel), queue, replies.clone()));
    tokio::spawn(shell::serve(Arc::clone(&kernel), requests, cells, replies));
    Ok((kernel, control))
}

/// Removes the sockets that a kernel before this one left in the file system: no other can be bound in their place.
fn remove_stale(connection: &ConnectionInfo) {
    let ConnectionInfo { shell_port, iopub_port, stdin_port, control_port, hb_port, .. } = *connection;
    if connection.transport == Transport::IPC {
        for port in [shell_port, iopub_port, stdin_port, control_port, hb_port] {
            // Most often there is none.
            let _ = fs::remove_file(format!("{}-{port}", connection.ip));
        }
    }
}

/// Serves control until a front end or a signal ends the kernel. Ctrl-C interrupts.
async fn until_told(kernel: &Arc<Kernel>, control: zmq::KernelControlConnection) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).map_err(uncaught)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(uncaught)?;
    let mut control = std::pin::pin!(control::serve(Arc::clone(kernel), control));
    loop {
        tokio::select! {
            () = &mut control => return Ok(()),
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => drop(tokio::spawn(control::interrupt(Arc::clone(kernel)))),
        }
    }
}

fn unbound(error: zmq::RuntimeError) -> Error {
    Error::new(Kind::Io, format!("cannot listen where the connection file says: {error}"))
}

fn uncaught(error: std::io::Error) -> Error {
    Error::bug(format!("cannot catch signals: {error}")).with_source(error)
}

#[cfg(test)]
mod tests;
