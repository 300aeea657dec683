//! `install` and `uninstall` as their users see them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// A home, with nothing of the real one in sight.
struct Home(PathBuf);

struct End {
    code: i32,
    out: String,
    err: String,
}

impl Home {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("loralab-install-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path.canonicalize().unwrap())
    }

    fn run(&self, arguments: &[&str]) -> End {
        self.run_with(arguments, &[])
    }

    fn run_with(&self, arguments: &[&str], variables: &[(&str, &Path)]) -> End {
        let mut command = Command::new(env!("CARGO_BIN_EXE_loralab"));
        command.args(arguments).env_clear().env("HOME", &self.0).current_dir(&self.0);
        let output = command.envs(variables.iter().copied()).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        End { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
    }

    /// `kernel.json` below a folder of the home.
    fn spec(&self, folder: &str) -> Value {
        let text = fs::read(self.0.join(folder).join("kernel.json")).unwrap();
        serde_json::from_slice(&text).unwrap()
    }

    fn foreign(&self, folder: &str) -> PathBuf {
        let folder = self.0.join(folder);
        fs::create_dir_all(&folder).unwrap();
        fs::write(
            folder.join("kernel.json"),
            r#"{"display_name": "Python 3", "language": "python", "argv": ["python"]}"#,
        )
        .unwrap();
        folder
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

const USER: &str = ".local/share/jupyter/kernels/loralab";

#[test]
#[cfg(target_os = "linux")]
fn a_kernel_is_installed_listed_and_removed() {
    let home = Home::new("user");
    let end = home.run(&["install", "--status"]);
    assert_eq!(end.code, 0);
    assert!(end.out.contains("no loralab kernel") && end.out.contains("loralab install --user"), "{}", end.out);

    let end = home.run(&["install", "--user"]);
    assert_eq!((end.code, end.err.as_str()), (0, ""), "{}", end.out);
    assert!(end.out.contains(USER), "{}", end.out);
    assert_eq!(names(&home.0.join(USER)), ["kernel.json", "logo-32x32.png", "logo-64x64.png", "logo-svg.svg"]);
    let spec = home.spec(USER);
    let program = Path::new(env!("CARGO_BIN_EXE_loralab")).canonicalize().unwrap();
    assert_eq!(spec["argv"], serde_json::json!([program.to_str().unwrap(), "kernel", "-f", "{connection_file}"]));
    assert_eq!((&spec["language"], &spec["display_name"]), (&"loralab".into(), &"loralab".into()));

    let end = home.run(&["install", "--status"]);
    assert!(end.out.contains("ready"), "{}", end.out);
    let end = home.run(&["uninstall"]);
    assert_eq!((end.code, end.err.as_str()), (0, ""));
    assert!(!home.0.join(USER).exists());
}

#[test]
fn flags_choose_the_place_the_names_and_the_environment() {
    let home = Home::new("flags");
    let elsewhere = home.0.join("elsewhere");
    let flags =
        ["--name", "Lora-GPU1", "--display-name", "LoRA on GPU 1", "--env", "CUDA_VISIBLE_DEVICES=1", "--env", "A="];
    let places: [(&[&str], &str, &str); 4] = [
        (&["--prefix", "env"], "HOME", "env/share/jupyter/kernels"),
        (&[], "JUPYTER_DATA_DIR", "elsewhere/kernels"),
        (&["--sys-prefix"], "VIRTUAL_ENV", "elsewhere/share/jupyter/kernels"),
        (&["--sys-prefix"], "CONDA_PREFIX", "elsewhere/share/jupyter/kernels"),
    ];
    for (place, variable, folder) in places {
        let value = if variable == "HOME" { &home.0 } else { &elsewhere };
        let end = home.run_with(&[&["install"], place, &flags].concat(), &[(variable, value)]);
        assert_eq!(end.code, 0, "{place:?}: {}", end.err);
        // Jupyter does not look into any prefix.
        assert_eq!(end.err.contains("JUPYTER_PATH"), place.contains(&"--prefix"), "{place:?}: {}", end.err);
        let spec = home.spec(&format!("{folder}/lora-gpu1"));
        assert_eq!(spec["display_name"], "LoRA on GPU 1");
        assert_eq!(spec["env"], serde_json::json!({"CUDA_VISIBLE_DEVICES": "1", "A": ""}));
        let end = home.run_with(&[&["uninstall"], place, &["--name", "lora-gpu1"]].concat(), &[(variable, value)]);
        assert_eq!(end.code, 0, "{place:?}: {}", end.err);
        assert_eq!(names(&home.0.join(folder)), [""; 0], "{place:?}");
    }
    assert_eq!(home.run(&["install", "--name", "second"]).code, 0);
    let folder = if cfg!(target_os = "macos") { "Library/Jupyter" } else { ".local/share/jupyter" };
    assert_eq!(home.spec(&format!("{folder}/kernels/second"))["display_name"], "second");
}

#[test]
fn ones_own_kernel_is_replaced_another_programs_only_by_force() {
    let home = Home::new("force");
    let place = ["--prefix", "p"];
    let run = |words: &[&str]| home.run(&[words, &place].concat());
    let foreign = home.foreign("p/share/jupyter/kernels/python3");
    for words in [["install", "--name", "python3"], ["uninstall", "--name", "python3"]] {
        let end = run(&words);
        assert_eq!(end.code, 2, "{words:?}");
        assert!(end.err.contains("Python 3") && end.err.contains("--force"), "{}", end.err);
        assert_eq!(names(&foreign), ["kernel.json"]);
    }
    assert_eq!(run(&["install", "--name", "python3", "--force"]).code, 0);
    assert_eq!(names(&foreign).len(), 4);

    assert_eq!(run(&["install", "--display-name", "one"]).code, 0);
    let end = run(&["install", "--display-name", "two"]);
    assert_eq!(end.code, 0, "{}", end.err);
    assert!(end.out.contains("replaced"), "{}", end.out);
    let kernels = "p/share/jupyter/kernels";
    assert_eq!(home.spec(&format!("{kernels}/loralab"))["display_name"], "two");
    assert_eq!(names(&home.0.join(kernels)), ["loralab", "python3"]);

    // What is no kernel at all may be somebody's work.
    fs::create_dir_all(home.0.join(kernels).join("notes")).unwrap();
    fs::write(home.0.join(kernels).join("notes/a.txt"), "a").unwrap();
    let end = run(&["install", "--name", "notes"]);
    assert!(end.code == 2 && end.err.contains("--force"), "{}", end.err);
    assert_eq!(names(&home.0.join(kernels).join("notes")), ["a.txt"]);
}

#[test]
fn a_missing_program_shows() {
    let home = Home::new("status");
    let data = home.0.join("extra");
    for (name, program) in [("gone", "/gone/loralab"), ("bare", "loralab")] {
        let folder = data.join("kernels").join(name);
        fs::create_dir_all(&folder).unwrap();
        let spec = serde_json::json!({"display_name": name, "language": "loralab", "argv": [program]});
        fs::write(folder.join("kernel.json"), spec.to_string()).unwrap();
    }
    home.foreign("extra/kernels/python3");
    let bin = Path::new(env!("CARGO_BIN_EXE_loralab")).parent().unwrap();
    let end = home.run_with(&["install", "--status"], &[("JUPYTER_PATH", &data), ("PATH", bin)]);
    assert_eq!(end.code, 0, "{}", end.err);
    assert!(end.out.contains("/gone/loralab") && end.out.contains("missing"), "{}", end.out);
    assert!(end.out.contains("bare") && end.out.contains("ready") && !end.out.contains("python3"), "{}", end.out);
}

#[test]
fn failures_say_what_to_type() {
    let home = Home::new("failures");
    for (words, part) in [
        (["install", "--name", "a/b"], "letters, digits"),
        (["install", "--name", ".."], "begins with"),
        (["install", "--env", "NOPE"], "NAME=VALUE"),
        (["install", "--user", "--sys-prefix"], "cannot be used with"),
        (["install", "--status", "--user"], "cannot be used with"),
    ] {
        let end = home.run(&words);
        assert_eq!(end.code, 2, "{words:?}");
        assert!(end.err.contains(part), "{words:?}: {}", end.err);
    }
    assert_eq!(names(&home.0), [""; 0]);

    // A file where a folder is needed: nobody may write there, not even root.
    fs::write(home.0.join("file"), "").unwrap();
    let end = home.run(&["install", "--prefix", "file"]);
    assert_eq!(end.code, 1);
    assert!(end.err.contains("share/jupyter/kernels/loralab") && end.err.contains("--user"), "{}", end.err);

    let end = home.run(&["uninstall"]);
    assert_eq!(end.code, 1);
    assert!(end.err.contains("no kernel loralab") && end.err.contains("--status"), "{}", end.err);
    let environment = home.0.join("env");
    let active: &[(&str, &Path)] = &[("VIRTUAL_ENV", &environment)];
    assert_eq!(home.run_with(&["install", "--sys-prefix"], active).code, 0);
    let end = home.run_with(&["uninstall"], active);
    let hint = format!("loralab uninstall --name loralab --prefix {}", environment.display());
    assert!(end.code == 1 && end.err.contains(&hint), "{}", end.err);
}
