//! The program itself: arguments, what goes to which stream, exit codes.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

/// A folder that goes away with its content.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("loralab-cli-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.0.join(name);
        fs::write(&path, content).unwrap();
        path.display().to_string()
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_loralab"));
    command.args(arguments).stdin(Stdio::null());
    command
}

struct End {
    code: i32,
    out: String,
    err: String,
}

impl End {
    /// The objects of `--json`, one a line.
    fn answers(&self) -> Vec<Value> {
        self.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

impl From<Output> for End {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
    }
}

fn run(arguments: &[&str]) -> End {
    program(arguments).output().unwrap().into()
}

fn run_with_input(arguments: &[&str], input: &str) -> End {
    let mut child =
        program(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap().into()
}

#[test]
fn version_and_help_go_to_standard_output() {
    let end = run(&["--version"]);
    assert_eq!((end.code, end.out), (0, format!("loralab {}\n", env!("CARGO_PKG_VERSION"))));
    for arguments in [["--help"].as_slice(), &["help"]] {
        let end = run(arguments);
        assert_eq!(end.code, 0);
        assert!(end.out.contains("loralab") && end.out.contains("--json") && end.err.is_empty(), "{}", end.out);
    }
    let end = run(&["help", "echo"]);
    assert!(end.code == 0 && end.out.contains("echo"), "{}", end.out);
}

#[test]
fn wrong_arguments_exit_with_two_and_leave_standard_output_alone() {
    for arguments in [
        ["--nonsense"].as_slice(),
        &["dance"],
        &["run"],
        &["-p", "8=9", "-c", "version"],
        &["-c", "version", "run", "x.lora"],
        &["help", "dance"],
    ] {
        let end = run(arguments);
        assert_eq!((end.code, end.out.as_str()), (2, ""), "{arguments:?}");
        assert!(end.err.starts_with("error"), "{arguments:?}: {}", end.err);
    }
}

#[test]
fn statements_are_echoed_before_their_output() {
    let end = run(&["-c", "echo one", "-c", "word = two\necho $word"]);
    assert_eq!(end.code, 0, "{}", end.err);
    assert_eq!(end.out, "> echo one\none\n> word = two\n> echo $word\ntwo\n");
}

#[test]
fn an_error_ends_the_script_and_shows_its_place() {
    let end = run(&["-c", "echo one", "-c", "echo $nothing", "-c", "echo two"]);
    assert_eq!(end.code, 1);
    assert!(end.out.contains("one\n") && !end.out.contains("two"), "{}", end.out);
    assert!(end.err.contains("nothing") && end.err.contains("^"), "{}", end.err);
    assert_eq!(run(&["-c", "dance"]).code, 2);
    assert_eq!(run(&["-c", "x ="]).code, 2);
}

#[test]
fn json_is_one_object_a_statement() {
    let end = run(&["--json", "-c", "x = (8 16)", "-c", "echo $x", "-c", "echo 'a\nb'", "-c", "dance", "-c", "echo"]);
    assert_eq!(end.code, 2);
    let answers = end.answers();
    let statements: Vec<_> = answers.iter().map(|answer| answer["statement"].as_str().unwrap()).collect();
    assert_eq!(statements, ["x = (8 16)", "echo $x", "echo 'a\nb'", "dance"]);
    for answer in &answers[..3] {
        assert_eq!(answer["status"], "ok");
        assert!(
            answer["seconds"].is_f64() && answer["result"].is_object() && answer.get("error").is_none(),
            "{answer}"
        );
    }
    assert_eq!(answers[3]["status"], "error");
    assert_eq!(answers[3]["error"]["kind"], "Usage");
    assert!(answers[3]["error"]["message"].is_string() && answers[3].get("result").is_none());
}

#[test]
fn syntax_errors_are_answers_too() {
    let end = run(&["--json", "-c", "echo \"open"]);
    assert_eq!((end.code, end.answers().len()), (2, 1));
    assert_eq!(end.answers()[0]["error"]["kind"], "Usage");
}

#[test]
fn parameters_win_over_the_first_assignment_or_are_simply_set() {
    let folder = Folder::new("parameters");
    let script = folder.file("a.lora", "# %% defaults\nrank = 8\n# %%\necho $rank $other\nrank = 4\necho $rank\n");
    let end = run(&["run", &script, "-p", "rank=16", "-p", "other=a b"]);
    assert_eq!(end.code, 0, "{}", end.err);
    assert!(end.out.contains("\n16 a b\n") && end.out.ends_with("\n4\n"), "{}", end.out);
}

#[test]
fn errors_of_a_script_name_its_line() {
    let folder = Folder::new("lines");
    let script = folder.file("a.lora", "echo one\n\n# %% second\n# a comment\necho two\ndance\necho three\n");
    let end = run(&["run", &script]);
    assert_eq!(end.code, 2);
    assert!(end.out.contains("two\n") && !end.out.contains("three"), "{}", end.out);
    assert!(end.err.contains("a.lora:6: ") && end.err.contains("6 │ dance"), "{}", end.err);
    let broken = folder.file("b.lora", "\n\necho one\nx =\n");
    let end = run(&["run", &broken]);
    assert_eq!((end.code, end.out.as_str()), (2, ""));
    assert!(end.err.contains("b.lora:4: "), "{}", end.err);
}

#[test]
fn files_that_cannot_be_run_say_why() {
    let folder = Folder::new("files");
    folder.file("train.lora", "");
    let end = run(&["run", &folder.path("trian.lora")]);
    assert_eq!((end.code, end.out.as_str()), (1, ""));
    assert!(end.err.contains("trian.lora") && end.err.contains("did you mean") && end.err.contains("train.lora"));
    assert_eq!(run(&["run", &folder.path("")]).code, 1);
    assert_eq!(run(&["--json", "run", &folder.file("bytes.lora", b"\xff\xfe")]).code, 1);
    assert_eq!(run(&["run", &folder.path("train.lora")]).code, 0);
}

#[test]
fn standard_input_is_a_script() {
    for arguments in [["run", "-"].as_slice(), &[]] {
        let end = run_with_input(arguments, "echo one\n# %%\necho two\n");
        assert_eq!((end.code, end.out.as_str()), (0, "> echo one\none\n> echo two\ntwo\n"), "{}", end.err);
    }
    let end = run_with_input(&["--json"], "echo one\ndance\n");
    assert_eq!((end.code, end.answers().len()), (2, 2));
    assert_eq!(run(&[]).code, 0);
}

#[test]
fn a_reader_that_goes_away_does_no_harm() {
    for flag in ["--json", "-cversion"] {
        let mut child = program(&[flag, "-c", "echo one", "-c", "echo two"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(output.stderr.is_empty());
    }
}

fn notebook(cells: &[(&str, &[&str])]) -> String {
    let cell = |&(source, tags): &(&str, &[&str])| json!({"cell_type": "code", "source": source, "metadata": {"tags": tags}, "outputs": [7], "execution_count": 9});
    json!({"cells": cells.iter().map(cell).collect::<Vec<_>>(), "metadata": {}, "nbformat": 4, "nbformat_minor": 4})
        .to_string()
}

fn read(path: impl AsRef<Path>) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn a_notebook_keeps_what_it_showed() {
    let folder = Folder::new("notebook");
    let input = folder.file("in.ipynb", notebook(&[("word = one", &["parameters"]), ("echo $word", &[]), ("", &[])]));
    let output = folder.path("out.ipynb");
    let end = run(&["run", &input, "-o", &output, "-p", "word=two"]);
    assert_eq!(end.code, 0, "{}", end.err);
    let cells = read(&output)["cells"].clone();
    assert_eq!(cells[1]["source"], json!(["# Parameters\n", "word = \"two\""]));
    assert_eq!(cells[1]["metadata"]["tags"], json!(["injected-parameters"]));
    assert_eq!(cells[2]["outputs"], json!([{"output_type": "stream", "name": "stdout", "text": ["two\n"]}]));
    assert_eq!((&cells[0]["execution_count"], &cells[2]["execution_count"]), (&json!(1), &json!(2)));
    assert_eq!(cells.as_array().map(Vec::len), Some(4));

    let end = run(&["run", &input, "-o", &output]);
    assert_eq!(end.code, 2);
    assert!(end.err.contains("exists already") && end.err.contains("--force"), "{}", end.err);
    assert_eq!(run(&["run", &input, "-o", &output, "--force"]).code, 0);
    assert_eq!(read(&output)["cells"].as_array().map(Vec::len), Some(3));
}

#[test]
fn a_notebook_that_fails_is_written_up_to_its_error() {
    let folder = Folder::new("failing");
    let input = folder.file("in.ipynb", notebook(&[("echo one", &[]), ("echo two\ndance", &[]), ("echo three", &[])]));
    let output = folder.path("out.ipynb");
    let end = run(&["--json", "run", &input, "-o", &output]);
    assert_eq!((end.code, end.answers().len()), (2, 3));
    assert!(end.err.contains("in.ipynb, cell 2:2: ") && end.err.contains("2 │ dance"), "{}", end.err);
    let cells = read(&output)["cells"].clone();
    assert_eq!(cells[1]["outputs"][1]["output_type"], "error");
    assert_eq!(cells[1]["outputs"][1]["ename"], "Usage");
    assert!(cells[1]["outputs"][1]["traceback"][1].as_str().is_some_and(|line| line.contains("2 │ dance")));
    assert_eq!((&cells[2]["outputs"], &cells[2]["execution_count"]), (&json!([]), &Value::Null));
}

#[test]
fn broken_notebooks_are_refused() {
    let folder = Folder::new("broken");
    for (name, content, why) in [
        ("cut.ipynb", "{\"cells\": [", "not a notebook"),
        ("empty.ipynb", "", "not a notebook"),
        ("old.ipynb", r#"{"nbformat": 3, "worksheets": []}"#, "nbformat 3"),
    ] {
        let input = folder.file(name, content);
        let output = folder.path("out.ipynb");
        let end = run(&["run", &input, "-o", &output]);
        assert_eq!((end.code, end.out.as_str()), (1, ""), "{name}");
        assert!(end.err.contains(why) && end.err.contains(name), "{name}: {}", end.err);
        assert!(!Path::new(&output).exists());
    }
    let input = folder.file("in.ipynb", notebook(&[("echo one", &[])]));
    let end = run(&["run", &input, "-o", &folder.path("no/such/out.ipynb")]);
    assert_eq!((end.code, end.out.as_str()), (1, ""), "{}", end.err);
}

#[test]
fn a_script_becomes_a_notebook_with_outputs() {
    let folder = Folder::new("script");
    let script = folder.file("a.lora", "echo one\n# %% second\necho two\n");
    let output = folder.path("out.ipynb");
    assert_eq!(run(&["run", &script, "-o", &output]).code, 0);
    let cells = read(&output)["cells"].clone();
    assert_eq!(cells[1]["source"], json!(["# second\n", "echo two"]));
    assert_eq!(cells[1]["outputs"][0]["text"], json!(["two\n"]));
}
