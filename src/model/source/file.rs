//! A file that stays open and mapped, and notices when it changes.

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use memmap2::Mmap;

use super::digest::Digest;
use crate::error::{Error, Result};

/// The bytes of a file: mapped, or part of the program.
pub(crate) enum Bytes {
    Mapped(MappedFile),
    Static { name: &'static str, bytes: &'static [u8] },
}

/// A file that is open and mapped, with the size and time it had then.
pub(crate) struct MappedFile {
    path: PathBuf,
    file: File,
    map: Mmap,
    modified: Option<SystemTime>,
}

impl Bytes {
    /// Opens and maps `path`.
    ///
    /// # Errors
    /// [`crate::error::Kind::NotFound`], [`crate::error::Kind::Io`].
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let failed = |error| Error::io("read", path, error);
        let file = File::open(path).map_err(failed)?;
        let modified = file.metadata().map_err(failed)?.modified().ok();
        // SAFETY: the mapping is only read. Another program may still change the file; `Bytes::checked` compares size and
        // time before every use, so that at worst numbers are wrong that were about to be refused.
        let map = unsafe { Mmap::map(&file) }.map_err(failed)?;
        Ok(Self::Mapped(MappedFile { path: path.to_owned(), file, map, modified }))
    }

    /// What to call it in messages.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Mapped(file) => file.path.display().to_string(),
            Self::Static { name, .. } => (*name).to_owned(),
        }
    }

    /// All of it, without a look at whether it has changed.
    pub(crate) fn all(&self) -> &[u8] {
        match self {
            Self::Mapped(file) => &file.map,
            Self::Static { bytes, .. } => bytes,
        }
    }

    /// The bytes `range` of `tensor`, unless they have changed. `digest` is the one they had, if they were read before: it decides
    /// when the file has another time of modification but the size it had.
    ///
    /// # Errors
    /// [`crate::error::Kind::State`] if they have changed.
    pub(crate) fn checked(&self, range: Range<usize>, tensor: &str, digest: Option<&[u8; 32]>) -> Result<&[u8]> {
        if let Self::Mapped(file) = self {
            let now = file.file.metadata().map_err(|error| Error::io("read", &file.path, error))?;
            // Beyond the end of a file that became shorter even a look at the mapping is fatal: size first.
            if now.len() != file.map.len() as u64 {
                return Err(self.changed(tensor));
            }
            if now.modified().ok() != file.modified
                && digest.is_none_or(|digest| *digest != Digest::of(&file.map[range.clone()]))
            {
                return Err(self.changed(tensor));
            }
        }
        Ok(&self.all()[range])
    }

    /// The error for a file that has changed.
    pub(crate) fn changed(&self, tensor: &str) -> Error {
        Error::state(format!("{} has changed since it was loaded: cannot read {tensor} again", self.name()))
            .hint("load SOURCE --reload starts over with the file as it is now")
    }

    /// Says that the bytes `range` are not needed soon: their pages no longer count as memory of this process.
    pub(crate) fn release(&self, range: Range<usize>) {
        #[cfg(unix)]
        if let Self::Mapped(file) = self {
            // SAFETY: the mapping is of a file and never written, so dropped pages come back with the same bytes.
            let advised = unsafe {
                file.map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, range.start, range.len())
            };
            // Advice only: a system that does not take it keeps the pages until memory is needed.
            drop(advised);
        }
    }
}
