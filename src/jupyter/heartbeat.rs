//! The heartbeat: what comes in goes back.

use zeromq::{RepSocket, SocketRecv, SocketSend};

pub(super) async fn serve(mut socket: RepSocket) {
    loop {
        // A front end that left between beat and echo is no trouble.
        if let Ok(beat) = socket.recv().await {
            let _ = socket.send(beat).await;
        }
    }
}
