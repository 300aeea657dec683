//! Files and folders that are whole or not there: written beside their place, synced, then renamed.

mod paths;
mod replace;

pub use paths::{expand_home, paths};

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Kind, Result};

/// Writes the file `path`: `fill` gets a buffered writer; a failure leaves what was there before.
///
/// # Errors
/// [`Kind::Io`] with the path, a full disk included.
pub fn write(path: &Path, fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<()> {
    let temporary = beside(path);
    let attempt = || -> io::Result<()> {
        let mut file = BufWriter::new(File::create(&temporary)?);
        fill(&mut file)?;
        file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        fs::rename(&temporary, path)
    };
    attempt().map_err(|e| {
        let _ = fs::remove_file(&temporary);
        failure(path, e)
    })
}

fn failure(path: &Path, error: io::Error) -> Error {
    let full =
        matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::FileTooLarge | io::ErrorKind::QuotaExceeded);
    // What the system says, without its number.
    let said = error.to_string();
    let said = said.split(" (os error").next().unwrap_or_default();
    let message = format!("cannot write {}: {said}", path.display());
    let error = Error::new(Kind::Io, message).with_source(error);
    if full { error.hint("nothing was changed; free some space or choose another folder") } else { error }
}

/// A name beside `path` that no other process uses.
fn beside(path: &Path) -> PathBuf {
    let name = path.file_name().map_or_else(|| "file".into(), |n| n.to_string_lossy().into_owned());
    path.with_file_name(format!(".{name}.{}.tmp", std::process::id()))
}

/// A folder being filled: it appears under its name, whole, with [`Folder::commit`], and leaves nothing behind without.
pub struct Folder {
    path: PathBuf,
    temporary: PathBuf,
    overwrite: bool,
}

impl Folder {
    /// Begins a folder that is to become `path`; a link is followed. With `overwrite` it may replace a model, an adapter or a
    /// kernel, and nothing else.
    ///
    /// # Errors
    /// [`Kind::Usage`] if something is there already and `overwrite` is not set, or if more than that would be lost; [`Kind::Io`].
    pub fn create(path: &Path, overwrite: bool) -> Result<Self> {
        let path = expand_home(path);
        let path = path.canonicalize().or_else(|_| std::path::absolute(&path)).map_err(|e| failure(&path, e))?;
        let taken = path.exists() && fs::read_dir(&path).map_or(true, |mut entries| entries.next().is_some());
        if taken && !overwrite {
            return Err(Error::usage(format!("{} exists already", path.display()))
                .hint("choose another name, or add --force to replace it"));
        }
        if path.exists() {
            replace::check(&path)?;
        }
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(|e| failure(&path, e))?;
        }
        let temporary = beside(&path);
        let _ = fs::remove_dir_all(&temporary);
        fs::create_dir(&temporary).map_err(|e| failure(&path, e))?;
        Ok(Self { path, temporary, overwrite })
    }

    /// Writes a file of the folder.
    ///
    /// # Errors
    /// [`Kind::Io`] with the path the file would have had.
    pub fn write(&self, name: &str, fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<()> {
        let attempt = || -> io::Result<()> {
            let mut file = BufWriter::new(File::create(self.temporary.join(name))?);
            fill(&mut file)?;
            file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
        };
        attempt().map_err(|e| failure(&self.path.join(name), e))
    }

    /// Where a file of the folder lies while the folder is being filled, for writers that want a path; call [`Folder::sync`] after.
    #[must_use]
    pub fn place(&self, name: &str) -> PathBuf {
        self.temporary.join(name)
    }

    /// Brings a file to the disk that was written through [`Folder::place`]. Its permissions become those of every other file,
    /// also where the writer made it for its own eyes.
    ///
    /// # Errors
    /// [`Kind::Io`].
    pub fn sync(&self, name: &str) -> Result<()> {
        let attempt = || -> io::Result<()> {
            let other = self.place(".other");
            let usual = File::create(&other)?.metadata()?.permissions();
            fs::remove_file(other)?;
            let file = File::open(self.place(name))?;
            file.set_permissions(usual)?;
            file.sync_all()
        };
        attempt().map_err(|e| self.failure(name, e))
    }

    /// The error for a file of the folder that could not be written.
    #[must_use]
    pub fn failure(&self, name: &str, error: io::Error) -> Error {
        failure(&self.path.join(name), error)
    }

    /// Puts the folder in its place; what was there is removed only after that.
    ///
    /// # Errors
    /// [`Kind::Usage`] if what is there now must not be replaced; [`Kind::Io`].
    pub fn commit(self) -> Result<PathBuf> {
        if self.path.exists() {
            replace::check(&self.path)?;
        }
        let swap = || -> io::Result<()> {
            if self.path.exists() {
                if !self.overwrite {
                    return fs::remove_dir(&self.path).and_then(|()| fs::rename(&self.temporary, &self.path));
                }
                let old = beside(&self.path).with_extension("old");
                let _ = fs::remove_dir_all(&old);
                fs::rename(&self.path, &old)?;
                fs::rename(&self.temporary, &self.path).inspect_err(|_| fs::rename(&old, &self.path).unwrap_or(()))?;
                return fs::remove_dir_all(&old);
            }
            fs::rename(&self.temporary, &self.path)
        };
        swap().map_err(|e| failure(&self.path, e))?;
        if let Some(parent) = self.path.parent().and_then(|p| File::open(p).ok()) {
            // The name itself must survive a power cut; where a folder cannot be synced there is nothing to be done.
            let _ = parent.sync_all();
        }
        Ok(self.path.clone())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.temporary);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("loralab-files-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        path
    }

    #[test]
    fn a_failed_write_leaves_the_old_file_and_no_litter() {
        let dir = scratch("write");
        let path = dir.join("a.json");
        write(&path, |w| w.write_all(b"old")).unwrap();
        let error = write(&path, |w| {
            w.write_all(b"half")?;
            Err(io::Error::from(io::ErrorKind::StorageFull))
        })
        .unwrap_err();
        assert_eq!(error.kind(), Kind::Io);
        assert!(error.message().contains("a.json"));
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_folder_appears_whole_or_not_at_all() {
        let dir = scratch("folder");
        let path = dir.join("model");
        let folder = Folder::create(&path, false).unwrap();
        folder.write("one", |w| w.write_all(b"1")).unwrap();
        assert!(!path.exists());
        drop(folder);
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
        let folder = Folder::create(&path, false).unwrap();
        folder.write("one.safetensors", |w| w.write_all(b"1")).unwrap();
        folder.commit().unwrap();
        assert_eq!(Folder::create(&path, false).err().unwrap().kind(), Kind::Usage);
        let folder = Folder::create(&path, true).unwrap();
        folder.write("two.safetensors", |w| w.write_all(b"2")).unwrap();
        folder.commit().unwrap();
        assert!(path.join("two.safetensors").exists() && !path.join("one.safetensors").exists());
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn every_file_of_a_folder_has_the_same_permissions() {
        use std::os::unix::fs::PermissionsExt;
        let dir = scratch("permissions");
        let folder = Folder::create(&dir.join("model"), false).unwrap();
        folder.write("one", |w| w.write_all(b"1")).unwrap();
        fs::write(folder.place("two"), "2").unwrap();
        fs::set_permissions(folder.place("two"), fs::Permissions::from_mode(0o600)).unwrap();
        folder.sync("two").unwrap();
        let path = folder.commit().unwrap();
        let mode = |name: &str| path.join(name).metadata().unwrap().permissions().mode();
        assert_eq!(mode("two"), mode("one"));
        assert_eq!(fs::read_dir(&path).unwrap().count(), 2);
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn what_is_foreign_is_never_replaced() {
        let dir = scratch("foreign");
        let path = dir.join("model");
        fs::create_dir(&path).unwrap();
        let folder = Folder::create(&path, true).unwrap();
        folder.write("config.json", |w| w.write_all(b"{}")).unwrap();
        // It came while the folder was being filled.
        fs::write(path.join("notes.txt"), "mine").unwrap();
        assert!(folder.commit().unwrap_err().message().contains("notes.txt"));
        assert!(Folder::create(&path, true).err().unwrap().message().contains("notes.txt"));
        assert!(Folder::create(&path.join("notes.txt"), true).err().unwrap().message().contains("is a file"));
        assert_eq!(fs::read(path.join("notes.txt")).unwrap(), b"mine");
        fs::remove_file(path.join("notes.txt")).unwrap();
        // A link stays one; what it leads to is replaced.
        std::os::unix::fs::symlink(&path, dir.join("link")).unwrap();
        let folder = Folder::create(&dir.join("link"), true).unwrap();
        folder.write("config.json", |w| w.write_all(b"{}")).unwrap();
        folder.commit().unwrap();
        assert!(dir.join("link").is_symlink() && path.join("config.json").exists());
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 2);
        fs::remove_dir_all(dir).unwrap();
    }
}
