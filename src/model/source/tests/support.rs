//! What tests of files need: folders that clean up after themselves, the golden model, a sink.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::event::{Event, Sink};

/// A folder that is removed with everything in it when it goes out of scope.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("loralab-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// A copy of the golden model.
    pub(crate) fn golden() -> Self {
        let folder = Self::new();
        for entry in std::fs::read_dir(GOLDEN).unwrap() {
            let entry = entry.unwrap();
            folder.write(entry.file_name().to_str().unwrap(), &std::fs::read(entry.path()).unwrap());
        }
        folder
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    pub(crate) fn remove(&self, name: &str) {
        std::fs::remove_file(self.0.join(name)).unwrap();
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// Hears nothing.
pub(crate) struct Silence;

impl Sink for Silence {
    fn emit(&self, _: Event) {}
}

pub(crate) const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/llama/model");
