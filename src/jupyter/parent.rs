//! Ends the kernel with the program that started it, so that an orphan does not hold a model in memory for ever.

use std::thread;
use std::time::Duration;

use crate::session::Lab;

/// How long a running command has to put its work aside.
const GRACE: Duration = Duration::from_secs(2);

/// Watches the process that `JPY_PARENT_PID` names, if it names one.
pub(super) fn watch(lab: Lab) {
    let named = std::env::var("JPY_PARENT_PID").ok().and_then(|text| text.trim().parse::<i32>().ok());
    let Some(parent) = named.filter(|&pid| pid > 0) else { return };
    // Its number can be given to another process, but a child that has lost its parent knows.
    let is_child = std::os::unix::process::parent_id() as i32 == parent;
    let watching = move || {
        loop {
            // SAFETY: signal 0 is sent to nobody, it only asks whether the process is there.
            let is_there = unsafe { libc::kill(parent, 0) } == 0
                || std::io::Error::last_os_error().raw_os_error() != Some(libc::ESRCH);
            if !is_there || (is_child && std::os::unix::process::parent_id() as i32 != parent) {
                eprintln!("loralab kernel: the program that started the kernel is gone");
                lab.cancel().cancel();
                thread::sleep(GRACE);
                lab.stop();
                std::process::exit(0);
            }
            thread::sleep(Duration::from_millis(500));
        }
    };
    // Without the thread the kernel serves all the same.
    let _ = thread::Builder::new().name("parent".to_owned()).spawn(watching);
}
