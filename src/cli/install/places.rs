//! The folders in which Jupyter looks for kernels, as `jupyter_path` of jupyter_core lists them.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::error::{Error, Result};

/// Where `jupyter kernelspec install --prefix` puts kernels.
pub(super) fn below(prefix: &Path) -> PathBuf {
    prefix.join("share").join("jupyter").join("kernels")
}

/// The prefix that a folder of kernels is below.
pub(super) fn prefix_of(kernels: &Path) -> Option<&Path> {
    let prefix = kernels.ancestors().nth(3)?;
    (below(prefix) == kernels).then_some(prefix)
}

/// The user's own folder.
///
/// # Errors
/// The environment does not tell whose home is where.
pub(super) fn user() -> Result<PathBuf> {
    user_data().map(|data| data.join("kernels")).ok_or_else(|| {
        Error::state("neither HOME nor JUPYTER_DATA_DIR says where the files of this user lie")
            .hint("loralab install --prefix PREFIX")
    })
}

fn user_data() -> Option<PathBuf> {
    if let Some(folder) = variable("JUPYTER_DATA_DIR") {
        return Some(folder.into());
    }
    let home = || env::home_dir().filter(|home| !home.as_os_str().is_empty());
    if cfg!(target_os = "macos") {
        return Some(home()?.join("Library").join("Jupyter"));
    }
    if cfg!(windows) {
        return match variable("APPDATA") {
            Some(folder) => Some(Path::new(&folder).join("jupyter")),
            None => Some(home()?.join(".jupyter").join("data")),
        };
    }
    let data = match variable("XDG_DATA_HOME") {
        Some(folder) => folder.into(),
        None => home()?.join(".local").join("share"),
    };
    Some(data.join("jupyter"))
}

/// The folder of the active Python environment: the one this program stands in, the activated one, or that of the first
/// Python on the path.
///
/// # Errors
/// There is none of them.
pub(super) fn environment() -> Result<PathBuf> {
    let active = || variable("VIRTUAL_ENV").or_else(|| variable("CONDA_PREFIX")).map(PathBuf::from);
    own_environment().or_else(active).or_else(python_prefix).map(|prefix| below(&prefix)).ok_or_else(|| {
        Error::not_found("there is no Python environment: none is active, and no python on the path")
            .hint("activate one, or name it: loralab install --prefix PREFIX")
    })
}

/// The environment this program was installed into, as pip does with a wheel.
fn own_environment() -> Option<PathBuf> {
    let prefix = env::current_exe().ok()?.parent()?.parent()?.to_owned();
    (prefix.join("pyvenv.cfg").is_file() || prefix.join("conda-meta").is_dir()).then_some(prefix)
}

fn python_prefix() -> Option<PathBuf> {
    let ask = |python: &&str| {
        let mut command = Command::new(python);
        command.args(["-c", "import sys; print(sys.prefix)"]).stdin(Stdio::null()).stderr(Stdio::null());
        let answer = command.output().ok().filter(|answer| answer.status.success())?;
        let prefix = PathBuf::from(String::from_utf8(answer.stdout).ok()?.trim_end());
        prefix.is_dir().then_some(prefix)
    };
    ["python3", "python"].iter().find_map(ask)
}

/// Every folder, in the order in which Jupyter takes the first kernel of a name.
pub(super) fn all() -> Vec<PathBuf> {
    let extra = variable("JUPYTER_PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = env::split_paths(&extra)
        .filter(|data| !data.as_os_str().is_empty())
        .map(|data| data.components().as_path().join("kernels"))
        .collect();
    folders.extend(environment().ok());
    folders.extend(user().ok());
    if cfg!(unix) {
        folders.extend(["/usr/local", "/usr"].map(|prefix| below(Path::new(prefix))));
    }
    let mut seen = Vec::new();
    folders.retain(|folder| {
        let is_new = !seen.contains(folder);
        seen.push(folder.clone());
        is_new
    });
    folders
}

/// A variable of the environment that is not empty.
fn variable(name: &str) -> Option<OsString> {
    env::var_os(name).filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_found_again() {
        let kernels = below(Path::new("/opt/env"));
        assert_eq!(kernels, Path::new("/opt/env/share/jupyter/kernels"));
        assert_eq!(prefix_of(&kernels), Some(Path::new("/opt/env")));
        for other in ["/users/me/Library/Jupyter/kernels", "/kernels", "share/jupyter", ""] {
            assert_eq!(prefix_of(Path::new(other)), None, "{other}");
        }
    }

    #[test]
    fn each_folder_comes_once() {
        let folders = all();
        assert!(folders.iter().all(|folder| folder.ends_with("kernels")), "{folders:?}");
        for (index, folder) in folders.iter().enumerate() {
            assert!(!folders[..index].contains(folder), "{folders:?}");
        }
    }
}
