//! What `doctor` looks at: the machine, the programs beside this one, the folders it uses.

use std::fs;
use std::path::{Path, PathBuf};

use super::Check;
use crate::device::memory;
use crate::event::units;
use crate::model::hub::HubConfig;
use crate::render::Drawing;

/// Less memory than this is little.
const LITTLE_MEMORY: u64 = 1_000_000_000;

/// The environment that is looked at.
pub(super) struct Look {
    variable: Box<dyn Fn(&str) -> Option<String>>,
}

impl Look {
    /// This process's own.
    pub(super) fn here() -> Self {
        Self { variable: Box::new(|name| std::env::var(name).ok().filter(|value| !value.is_empty())) }
    }

    /// Everything, what matters most first. `runs` is the folder of runs.
    pub(super) fn checks(&self, runs: &Path) -> Vec<Check> {
        vec![
            processor(),
            cores(),
            memory_left(memory::available()),
            card(Path::new("/dev")),
            self.runs(runs),
            self.cache(&HubConfig::from_env()),
            self.jupyter(),
            self.kernel(),
            self.rust_cells(),
            self.python(),
            self.charts(),
        ]
    }

    fn set(&self, name: &str) -> Option<String> {
        (self.variable)(name)
    }

    /// The first program of that name on the `PATH`.
    fn program(&self, name: &str) -> Option<PathBuf> {
        let path = self.set("PATH")?;
        std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
    }

    fn runs(&self, folder: &Path) -> Check {
        let name = "runs folder";
        let shown = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned()).display().to_string();
        match can_write(folder) {
            Ok(()) => Check::ok(name, shown),
            Err(error) => Check::fails(
                name,
                format!("{shown} cannot be written: {error}"),
                "set LORALAB_RUNS to a folder that can be written",
            ),
        }
    }

    fn cache(&self, hub: &HubConfig) -> Check {
        let name = "model cache";
        let shown = hub.cache.display().to_string();
        if let Err(error) = can_write(&hub.cache) {
            let found = format!("{shown} cannot be written: {error}");
            return Check::limited(name, found, "set HF_HOME to a folder that can be written");
        }
        if hub.offline {
            let found = format!("{shown}, offline: HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set");
            return Check::limited(name, found, "unset it to download models");
        }
        Check::ok(name, shown)
    }

    fn jupyter(&self) -> Check {
        match self.program("jupyter") {
            Some(path) => Check::ok("Jupyter", path.display().to_string()),
            None => Check::limited("Jupyter", "not on the PATH", "pip install jupyterlab, for notebooks"),
        }
    }

    /// The kernelspec, where Jupyter looks for it.
    fn kernel(&self) -> Check {
        let spec = |folder: PathBuf| folder.join("kernels/loralab/kernel.json");
        match self.jupyter_folders().into_iter().map(spec).find(|file| file.is_file()) {
            Some(path) => Check::ok("Jupyter kernel", path.display().to_string()),
            None => Check::limited("Jupyter kernel", "not installed", "loralab install"),
        }
    }

    /// The data folders of Jupyter: its variables, the user's, that of its own environment, the system's.
    fn jupyter_folders(&self) -> Vec<PathBuf> {
        let mut folders: Vec<PathBuf> =
            self.set("JUPYTER_PATH").iter().flat_map(|path| std::env::split_paths(path).collect::<Vec<_>>()).collect();
        folders.extend(self.set("JUPYTER_DATA_DIR").map(PathBuf::from));
        let home = self.set("HOME").map(PathBuf::from);
        folders.extend(self.set("XDG_DATA_HOME").map(|data| PathBuf::from(data).join("jupyter")));
        folders.extend(home.iter().flat_map(|h| [h.join(".local/share/jupyter"), h.join("Library/Jupyter")]));
        let prefix = self.program("jupyter").and_then(|file| Some(file.parent()?.parent()?.to_owned()));
        folders.extend(
            prefix.into_iter().chain(self.set("VIRTUAL_ENV").map(PathBuf::from)).map(|p| p.join("share/jupyter")),
        );
        folders.extend(["/usr/local/share/jupyter", "/usr/share/jupyter"].map(PathBuf::from));
        folders
    }

    fn rust_cells(&self) -> Check {
        let name = "Rust cells";
        if !cfg!(feature = "rust-cells") {
            return Check::limited(name, "not part of this build", "cargo build --features rust-cells");
        }
        match self.program("cargo") {
            Some(path) => Check::ok(name, path.display().to_string()),
            None => Check::limited(name, "no cargo on the PATH", "https://rustup.rs installs it"),
        }
    }

    fn python(&self) -> Check {
        match self.program("python3").or_else(|| self.program("python")) {
            Some(path) => Check::ok("Python", path.display().to_string()),
            None => Check::limited("Python", "not on the PATH", "only notebooks need it"),
        }
    }

    fn charts(&self) -> Check {
        use std::io::IsTerminal;
        let name = "charts";
        let is_dumb = self.set("TERM").is_some_and(|term| term == "dumb");
        let is_terminal = std::io::stdout().is_terminal();
        let colors = self.set("NO_COLOR").is_none() && !is_dumb;
        let drawing = Drawing::choose(|variable| self.set(variable), is_terminal, colors, !is_dumb);
        match drawing {
            Drawing::Braille | Drawing::Ascii if is_terminal => {
                Check::ok(name, format!("{}; no terminal with pixels recognized", drawing.name()))
            }
            _ => Check::ok(name, drawing.name()),
        }
    }
}

/// What the processor has of what makes it fast.
fn processor() -> Check {
    let name = "processor";
    #[cfg(target_arch = "x86_64")]
    {
        let features: Vec<&str> = [
            ("AVX2", is_x86_feature_detected!("avx2")),
            ("FMA", is_x86_feature_detected!("fma")),
            ("AVX-512", is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw")),
            ("bf16", is_x86_feature_detected!("avx512bf16")),
        ]
        .iter()
        .filter_map(|&(feature, there)| there.then_some(feature))
        .collect();
        let found = if features.is_empty() { "none of AVX2, AVX-512".to_owned() } else { features.join(", ") };
        if features.contains(&"AVX-512") {
            return Check::ok(name, found);
        }
        Check::limited(name, found, "training is slower without AVX-512")
    }
    #[cfg(not(target_arch = "x86_64"))]
    Check::limited(name, std::env::consts::ARCH, "training is fastest on x86-64 with AVX-512")
}

fn cores() -> Check {
    let all = std::thread::available_parallelism().map_or(1, usize::from);
    let used = rayon::current_num_threads();
    if used < all {
        let found = format!("{} on {all}", units::plural(used, "thread"));
        return Check::limited("cores", found, "RAYON_NUM_THREADS sets how many");
    }
    Check::ok("cores", units::plural(used, "thread"))
}

fn memory_left(bytes: u64) -> Check {
    let found = format!("{} left", units::bytes(bytes));
    if bytes < LITTLE_MEMORY {
        return Check::limited("memory", found, "a small model, or load SOURCE --quantize nf4");
    }
    Check::ok("memory", found)
}

/// A graphics card, seen by the files of its driver.
fn card(devices: &Path) -> Check {
    let there = devices.join("nvidia0").exists() || devices.join("kfd").exists();
    let found = if there { "there is one, not used" } else { "none found" };
    Check::limited("graphics card", found, "nothing: this build computes on the CPU")
}

/// Tries to write in a folder, or in the nearest one above it that exists.
fn can_write(folder: &Path) -> std::io::Result<()> {
    let folder = std::path::absolute(folder)?;
    let there = folder.ancestors().find(|path| path.exists()).unwrap_or(&folder);
    let file = there.join(format!(".loralab-{}", std::process::id()));
    fs::write(&file, "")?;
    fs::remove_file(file)
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    fn look(variables: &'static [(&'static str, &'static str)]) -> Look {
        let find = |name: &str| variables.iter().find(|v| v.0 == name).map(|v| v.1.to_owned());
        Look { variable: Box::new(find) }
    }

    #[test]
    fn what_lacks_comes_with_advice() {
        let empty = look(&[]);
        for check in [empty.jupyter(), empty.kernel(), empty.python(), memory_left(1)] {
            assert!(check.state == State::Limited && !check.advice.is_empty(), "{check:?}");
        }
        assert_eq!(memory_left(2 * LITTLE_MEMORY).state, State::Works);
        let check = empty.runs(Path::new("/proc/nothing/runs"));
        assert!(check.state == State::Fails && check.advice.contains("LORALAB_RUNS"), "{check:?}");
    }

    #[test]
    fn programs_and_the_kernel_are_found() {
        let root = std::env::temp_dir().join(format!("loralab-doctor-{}", std::process::id()));
        fs::create_dir_all(root.join("bin")).unwrap();
        fs::create_dir_all(root.join("share/jupyter/kernels/loralab")).unwrap();
        fs::write(root.join("bin/jupyter"), "").unwrap();
        fs::write(root.join("share/jupyter/kernels/loralab/kernel.json"), "{}").unwrap();
        let path = root.join("bin").display().to_string();
        let look = Look { variable: Box::new(move |name| (name == "PATH").then(|| path.clone())) };
        assert_eq!(look.jupyter().state, State::Works);
        assert!(look.kernel().found.contains("share/jupyter/kernels/loralab"), "{:?}", look.kernel());
        assert_eq!(look.runs(&root.join("deep/er/runs")).state, State::Works);
        assert!(!root.join("deep").exists());
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn an_offline_cache_says_so() {
        let hub = |offline| HubConfig { endpoint: String::new(), cache: std::env::temp_dir(), token: None, offline };
        assert_eq!(look(&[]).cache(&hub(false)).state, State::Works);
        let check = look(&[]).cache(&hub(true));
        assert!(check.state == State::Limited && check.found.contains("HF_HUB_OFFLINE"), "{check:?}");
    }

    #[test]
    fn everything_is_looked_at_without_a_fault() {
        let checks = Look::here().checks(&std::env::temp_dir());
        assert!(checks.len() > 8 && checks.iter().all(|check| !check.found.is_empty()), "{checks:?}");
        let mut names: Vec<&str> = checks.iter().map(|check| check.name).collect();
        names.dedup();
        assert_eq!(names.len(), checks.len());
    }
}
