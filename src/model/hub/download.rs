//! Downloads that can be interrupted, and checks of what arrived.

use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::Duration;

use hf_hub::api::Progress;

use super::files::Remote;
use super::remove;
use crate::error::{Error, Result};

/// Tells whoever waits how many bytes have arrived.
///
/// The library's download can neither be stopped nor given a deadline. When nobody waits any more, the next report unwinds
/// the download's own thread (without a message: `resume_unwind` does not call the panic hook); the part that has arrived
/// stays for the next attempt.
#[derive(Clone)]
pub(super) struct Reporter(Sender<u64>);

/// What a thread unwinds with whose result nobody waits for.
struct Abandoned;

impl Progress for Reporter {
    fn init(&mut self, _: usize, _: &str) {}

    fn update(&mut self, bytes: usize) {
        if self.0.send(bytes as u64).is_err() {
            std::panic::resume_unwind(Box::new(Abandoned));
        }
    }

    fn finish(&mut self) {}
}

/// Runs `work` on a thread of its own. `progress` is called with every report and ten times a second; its first error is
/// returned at once, whatever the thread waits for.
///
/// # Errors
/// The error of `progress`; [`crate::error::Kind::Bug`] if `work` panics.
pub(super) fn in_background<T: Send + 'static>(
    work: impl FnOnce(&Reporter) -> T + Send + 'static,
    mut progress: impl FnMut(u64) -> Result<()>,
) -> Result<T> {
    let (sender, receiver) = mpsc::channel();
    let thread = std::thread::spawn(move || work(&Reporter(sender)));
    loop {
        match receiver.recv_timeout(Duration::from_millis(100)) {
            Ok(bytes) => progress(bytes)?,
            Err(RecvTimeoutError::Timeout) => progress(0)?,
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    thread.join().map_err(|_| Error::bug("the thread of a download panicked"))
}

/// Whether `text` can be a hash.
pub(super) fn is_hex(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Makes `target` of a file that the cache holds already, from another revision of the `folder`'s repository.
pub(super) fn link(folder: &Path, file: &Remote, target: &Path) -> bool {
    let Some(hash) = file.hash.as_deref().filter(|hash| is_hex(hash)) else { return false };
    let size = std::fs::metadata(folder.join("blobs").join(hash)).map(|found| found.len()).ok();
    let parent = target.parent().is_some_and(|parent| std::fs::create_dir_all(parent).is_ok());
    size.is_some() && size == file.bytes && parent && symlink(&Path::new("../../blobs").join(hash), target)
}

#[cfg(unix)]
fn symlink(original: &Path, link: &Path) -> bool {
    std::os::unix::fs::symlink(original, link).is_ok()
}

#[cfg(not(unix))]
fn symlink(_: &Path, _: &Path) -> bool {
    false
}

/// Removes the part of a file that is as long as the file or longer: there is nothing to go on with, and the library would
/// ask for a range beyond the end.
pub(super) fn discard_overlong(folder: &Path, file: &Remote) {
    let (Some(hash), Some(bytes)) = (file.hash.as_deref().filter(|hash| is_hex(hash)), file.bytes) else { return };
    let part = folder.join("blobs").join(hash).with_extension("part");
    if std::fs::metadata(&part).is_ok_and(|part| part.len() >= bytes) {
        remove(&part);
    }
}

/// Checks a downloaded file against its hash, which is its name in the cache. A file that is wrong is removed.
///
/// # Errors
/// [`crate::error::Kind::Format`] if it is not what the hub announced.
pub(super) fn verify(path: &Path) -> Result<()> {
    let failed = |error| Error::io("read", path, error);
    let blob = path.canonicalize().map_err(failed)?;
    let expected = blob.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let found = match expected.len() {
        _ if !is_hex(&expected) => return Ok(()),
        64 => hash(&blob, ring::digest::Context::new(&ring::digest::SHA256)).map_err(failed)?,
        40 => {
            // Small files are known by git's hash of them.
            let mut context = ring::digest::Context::new(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY);
            context.update(format!("blob {}\0", std::fs::metadata(&blob).map_err(failed)?.len()).as_bytes());
            hash(&blob, context).map_err(failed)?
        }
        _ => return Ok(()),
    };
    if found == expected {
        return Ok(());
    }
    remove(path);
    remove(&blob);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    Err(Error::format(format!("{name} did not arrive as the hub has it: its hash is {found}, not {expected}"))
        .hint("the same command downloads it again"))
}

fn hash(path: &Path, mut context: ring::digest::Context) -> std::io::Result<String> {
    use std::io::Read;
    let mut file = std::fs::File::open(path)?;
    let mut block = vec![0; 1 << 20];
    loop {
        match file.read(&mut block)? {
            0 => break,
            n => context.update(&block[..n]),
        }
    }
    Ok(context.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect())
}
