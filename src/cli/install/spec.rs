//! A kernelspec: the folder with `kernel.json` and logos that tells Jupyter how a kernel is started.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

/// The name of the kernel, its language and its program.
pub(super) const NAME: &str = "loralab";

/// The kernelspec that stands in the repository and in the wheel.
const KERNEL_JSON: &str = include_str!("../../../kernelspec/kernel.json");

/// Files beside `kernel.json`.
pub(super) const LOGOS: [(&str, &[u8]); 3] = [
    ("logo-32x32.png", include_bytes!("../../../kernelspec/logo-32x32.png")),
    ("logo-64x64.png", include_bytes!("../../../kernelspec/logo-64x64.png")),
    ("logo-svg.svg", include_bytes!("../../../kernelspec/logo-svg.svg")),
];

/// The content of `kernel.json` for a kernel that runs `program`.
pub(super) fn kernel_json(program: &Path, display_name: &str, variables: &[(String, String)]) -> String {
    let mut spec: Map<String, Value> = serde_json::from_str(KERNEL_JSON).expect("kernelspec/kernel.json is an object");
    spec["argv"][0] = program.to_string_lossy().into();
    spec["display_name"] = display_name.into();
    if !variables.is_empty() {
        let variables: Map<String, Value> =
            variables.iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect();
        spec.insert("env".to_owned(), variables.into());
    }
    format!("{:#}\n", Value::Object(spec))
}

/// A name that Jupyter accepts, in its small letters.
///
/// # Errors
/// What is wrong with it.
pub(super) fn name(text: &str) -> Result<String, String> {
    let is_letter = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    match text.chars().find(|&c| !is_letter(c)) {
        Some(c) => Err(format!("{c:?} cannot stand in it: letters, digits, `.`, `_` and `-` can")),
        None if text.is_empty() || text.starts_with(['.', '-']) => {
            Err("it begins with a letter, a digit or `_`".to_owned())
        }
        None => Ok(text.to_ascii_lowercase()),
    }
}

/// `NAME=VALUE`.
///
/// # Errors
/// It is not written so.
pub(super) fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("it is written NAME=VALUE, as CUDA_VISIBLE_DEVICES=0".to_owned()),
    }
}

/// A kernelspec that lies on the disk.
#[derive(Debug)]
pub(super) struct Spec {
    folder: PathBuf,
    /// Null if it cannot be read.
    json: Value,
}

impl Spec {
    /// The kernelspec in `folder`, if there is a file `kernel.json`.
    pub(super) fn read(folder: &Path) -> Option<Self> {
        let path = folder.join("kernel.json");
        let json = || serde_json::from_slice(&fs::read(&path).ok()?).ok();
        path.is_file().then(|| Self { folder: folder.to_owned(), json: json().unwrap_or_default() })
    }

    /// The kernelspecs in a folder of kernels, by name.
    pub(super) fn in_folder(kernels: &Path) -> Vec<Self> {
        let entries = fs::read_dir(kernels).into_iter().flatten().flatten();
        let mut folders: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        folders.sort();
        folders.iter().filter_map(|folder| Self::read(folder)).collect()
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The name Jupyter knows it by.
    pub(super) fn name(&self) -> &str {
        self.folder.file_name().and_then(|name| name.to_str()).unwrap_or_default()
    }

    /// The name people see.
    pub(super) fn display_name(&self) -> &str {
        self.json["display_name"].as_str().unwrap_or(self.name())
    }

    /// Whether it is a kernel of this program.
    pub(super) fn is_ours(&self) -> bool {
        self.json["language"] == NAME
    }

    /// What it says is to be run.
    pub(super) fn argument(&self) -> &str {
        self.json["argv"][0].as_str().unwrap_or_default()
    }

    /// The file that would be run: `None` if there is none.
    pub(super) fn program(&self) -> Option<PathBuf> {
        let argument = Path::new(self.argument());
        let is_bare = argument.parent().is_some_and(|parent| parent.as_os_str().is_empty());
        if !is_bare {
            return argument.is_file().then(|| argument.to_owned());
        }
        // Jupyter puts the folder of its own programs first into the path.
        let prefix = self.folder.parent().and_then(super::places::prefix_of);
        let beside = prefix.map(|prefix| prefix.join(if cfg!(windows) { "Scripts" } else { "bin" }));
        let path = env::var_os("PATH").unwrap_or_default();
        let file = argument.with_extension(env::consts::EXE_EXTENSION);
        beside.into_iter().chain(env::split_paths(&path)).map(|folder| folder.join(&file)).find(|path| path.is_file())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_the_program_and_what_was_asked_for_differ_from_the_one_in_the_repository() {
        let text = kernel_json(Path::new("/opt/a b/loralab"), "LoRA \"lab\"", &[]);
        let mut expected: Value = serde_json::from_str(KERNEL_JSON).unwrap();
        assert_eq!(expected["argv"], json!(["loralab", "kernel", "-f", "{connection_file}"]));
        assert_eq!(expected["interrupt_mode"], "message");
        assert_eq!(expected["kernel_protocol_version"], "5.5");
        expected["argv"][0] = "/opt/a b/loralab".into();
        expected["display_name"] = "LoRA \"lab\"".into();
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), expected);
        assert!(text.ends_with("}\n"));

        let variables = [("HF_HOME", "/data=a"), ("EMPTY", "")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        let json: Value = serde_json::from_str(&kernel_json(Path::new("x"), "y", &variables)).unwrap();
        assert_eq!(json["env"], json!({"HF_HOME": "/data=a", "EMPTY": ""}));
    }

    #[test]
    fn names_are_those_that_jupyter_accepts() {
        assert_eq!(name("LoraLab-2.0_x"), Ok("loralab-2.0_x".to_owned()));
        for wrong in ["", ".", "..", ".hidden", "-x", "a/b", "a b", "ä", "a\n"] {
            assert!(name(wrong).is_err(), "{wrong:?}");
        }
        assert!(name("a/b").unwrap_err().contains("'/'"));
    }

    #[test]
    fn variables_have_names() {
        assert_eq!(variable("A=b=c"), Ok(("A".to_owned(), "b=c".to_owned())));
        assert!(variable("=b").is_err() && variable("A").is_err() && variable("").is_err());
    }

    #[test]
    fn the_logos_are_pictures_of_their_size() {
        for (name, bytes) in LOGOS {
            if let Some(size) = name.strip_suffix(".png").and_then(|name| name.rsplit('x').next()) {
                assert!(bytes.starts_with(b"\x89PNG\r\n\x1a\n"), "{name}");
                let side = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
                assert_eq!([side(16), side(20)], [size.parse::<u32>().unwrap(); 2], "{name}");
            } else {
                assert!(bytes.starts_with(b"<svg "), "{name}");
            }
        }
    }

    #[test]
    fn a_broken_kernelspec_is_another_programs() {
        let kernels = env::temp_dir().join(format!("loralab-spec-{}", std::process::id()));
        for (name, content) in
            [("a", "{"), ("b", "[1]"), ("c", r#"{"language": "loralab", "argv": ["/gone/loralab"]}"#)]
        {
            fs::create_dir_all(kernels.join(name)).unwrap();
            fs::write(kernels.join(name).join("kernel.json"), content).unwrap();
        }
        fs::create_dir_all(kernels.join("empty")).unwrap();
        let specs = Spec::in_folder(&kernels);
        let seen: Vec<_> = specs.iter().map(|s| (s.name(), s.is_ours(), s.display_name(), s.argument())).collect();
        assert_eq!(seen, [("a", false, "a", ""), ("b", false, "b", ""), ("c", true, "c", "/gone/loralab")]);
        assert!(specs.iter().all(|spec| spec.program().is_none()));
        assert!(Spec::in_folder(&kernels.join("nothing")).is_empty());
        fs::remove_dir_all(kernels).unwrap();
    }
}
