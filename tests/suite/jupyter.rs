//! The kernel, as a front end sees it.

mod front;
mod interrupt;

use std::io::Read;
use std::process::Stdio;
use std::time::{Duration, Instant};

use front::{Kernel, Seen, line};
use serde_json::{Value, json};
use zeromq::{SocketSend, ZmqMessage};

#[tokio::test]
async fn a_kernel_says_what_it_is() {
    let kernel = Kernel::start("jupyter-info");
    let mut front = kernel.front().await;
    let id = front.send("kernel_info_request", json!({})).await;
    let info = front.reply(&id).await;
    assert_eq!((&info["status"], &info["protocol_version"]), (&json!("ok"), &json!("5.5")));
    assert_eq!(info["implementation"], "loralab");
    let language = &info["language_info"];
    assert_eq!((&language["name"], &language["file_extension"]), (&json!("loralab"), &json!(".lora")));
    assert_eq!((&language["codemirror_mode"], &language["pygments_lexer"]), (&json!("shell"), &json!("bash")));
    let mut lines = Vec::new();
    while lines.last().is_none_or(|last| last != "idle") {
        lines.push(line(&front.hear().await));
    }
    assert_eq!(lines, ["welcome \"\"", "starting", "busy", "idle"]);
    assert_eq!(front.beat(b"tick").await, b"tick");
}

#[tokio::test]
async fn cells_are_numbered_and_answered() {
    let kernel = Kernel::start("jupyter-cells");
    let mut front = kernel.front().await;
    let ran = front.run("echo hello\necho --err oops").await;
    assert_eq!(ran.lines, ["busy", "in 1: echo hello\necho --err oops", "stdout: hello", "stderr: oops", "idle"]);
    assert_eq!(
        ran.reply,
        json!({
            "status": "ok", "execution_count": 1, "user_expressions": {}, "payload": [],
        })
    );
    // Neither a silent cell nor one that is not kept counts.
    let ran = front.execute(json!({"code": "echo hush\nx = 3", "silent": true})).await;
    assert_eq!(ran.lines, ["busy", "idle"]);
    let ran = front.execute(json!({"code": "echo $x", "store_history": false})).await;
    assert_eq!((ran.lines[1].as_str(), ran.lines[2].as_str()), ("in 2: echo $x", "stdout: 3"));
    let ran = front.execute(json!({"code": "nonsense", "silent": true})).await;
    assert_eq!((ran.lines.join(" "), &ran.reply["status"]), ("busy idle".to_owned(), &json!("error")));

    let ran = front.run("config learning-rate").await;
    assert_eq!(ran.lines, ["busy", "in 2: config learning-rate", "out 2: 0.0002", "idle"]);
    let ran = front.run("clear\n?train\nplot --demo").await;
    assert_eq!(ran.lines[2..], ["clear_output", "display_data", "idle"]);
    assert_eq!(ran.reply["payload"].as_array().map(Vec::len), Some(1));
    assert_eq!(ran.reply["payload"][0]["source"], "page");
    assert!(ran.reply["payload"][0]["data"]["text/plain"].as_str().unwrap().contains("--learning-rate"));
    let chart = &ran.seen[3].content["data"];
    assert!(chart["image/svg+xml"].is_string() && chart["image/png"].is_string() && chart["text/plain"].is_string());

    let wanted = json!({"a": "x", "b": "$last.runs", "c": "nope", "d": "1 + 1"});
    let ran = front.execute(json!({"code": "x = (8 16)", "user_expressions": wanted})).await;
    let found = &ran.reply["user_expressions"];
    assert_eq!(found["a"], json!({"status": "ok", "data": {"text/plain": "8,16"}, "metadata": {}}));
    assert_eq!(found["b"]["status"], "ok");
    assert_eq!((&found["c"]["ename"], &found["d"]["ename"]), (&json!("NotFound"), &json!("Usage")));
}

#[tokio::test]
async fn an_error_is_told_once_with_its_place() {
    let kernel = Kernel::start("jupyter-error");
    let mut front = kernel.front().await;
    let ran = front.run("echo a\necho b --x\ntrian x").await;
    assert_eq!(ran.lines[2..], ["stdout: a\nb --x", "error Usage: there is no command trian", "idle"]);
    let traceback = ran.seen[3].content["traceback"].clone();
    for field in ["ename", "evalue", "traceback"] {
        assert_eq!(ran.reply[field], ran.seen[3].content[field]);
    }
    let text: Vec<&str> = traceback.as_array().unwrap().iter().map(|l| l.as_str().unwrap()).collect();
    assert!(text[0].contains("\u{1b}[31m") && text[2].contains("^^^^^"), "{text:?}");
    assert!(text[3].contains("did you mean train?"), "{text:?}");
}

#[tokio::test]
async fn cells_behind_an_error_are_aborted() {
    let kernel = Kernel::start("jupyter-abort");
    let mut front = kernel.front().await;
    // The first keeps the queue waiting until all stand in it.
    let slow = front.send("execute_request", json!({"code": "!sleep 0.3\nnonsense"})).await;
    let mut waiting = Vec::new();
    for code in ["echo 1", "echo 2"] {
        waiting.push(front.send("execute_request", json!({"code": code})).await);
    }
    assert_eq!(front.end(&slow).await.reply["status"], "error");
    for id in &waiting {
        let ran = front.end(id).await;
        assert_eq!((ran.lines.join(" "), &ran.reply["status"]), ("busy idle".to_owned(), &json!("aborted")));
    }
    let lenient = json!({"code": "!sleep 0.3\nnonsense", "stop_on_error": false});
    let slow = front.send("execute_request", lenient).await;
    let next = front.send("execute_request", json!({"code": "echo 3"})).await;
    assert_eq!(front.end(&slow).await.reply["status"], "error");
    assert_eq!(front.end(&next).await.lines[2], "stdout: 3");
}

#[tokio::test]
async fn a_late_listener_misses_nothing() {
    for attempt in 0.. {
        let kernel = Kernel::start(&format!("jupyter-late-{attempt}"));
        let mut front = kernel.deaf_front().await;
        let asked = Instant::now();
        let id = front.send("kernel_info_request", json!({})).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        front.listen(&kernel).await;
        // Where the machine was too busy for it, the time the kernel waits was over.
        if asked.elapsed() > Duration::from_millis(450) && attempt < 20 {
            continue;
        }
        front.reply(&id).await;
        let mut lines = Vec::new();
        while lines.last().is_none_or(|last| last != "idle") {
            lines.push(line(&front.hear().await));
        }
        assert_eq!(lines, ["welcome \"\"", "starting", "busy", "idle"]);
        // One that comes later still is welcomed too.
        let mut other = kernel.front().await;
        assert_eq!(line(&other.hear().await), "welcome \"\"");
        return;
    }
}

#[tokio::test]
async fn who_does_not_listen_is_answered_all_the_same() {
    let kernel = Kernel::start("jupyter-deaf");
    let mut front = kernel.deaf_front().await;
    assert_eq!(front.ask("kernel_info_request", json!({})).await["status"], "ok");
    assert_eq!(front.ask("execute_request", json!({"code": "echo x"})).await["status"], "ok");
}

#[tokio::test]
async fn a_burst_of_lines_is_whole_and_in_order() {
    let kernel = Kernel::start("jupyter-burst");
    let mut front = kernel.front().await;
    let numbers: Vec<String> = (1..=2000).map(|n| n.to_string()).collect();
    let expected: String = numbers.iter().map(|n| format!("{n}\n")).collect();
    for code in ["!seq 2000".to_owned(), format!("for i in ({}): echo $i", numbers.join(" "))] {
        let ran = front.run(&code).await;
        assert_eq!(ran.stdout(), expected);
        assert!(ran.seen.len() < 500, "{} messages", ran.seen.len());
    }
}

#[tokio::test]
async fn questions_are_answered_while_a_cell_runs() {
    let kernel = Kernel::start("jupyter-while");
    let mut front = kernel.front().await;
    std::fs::write(kernel.folder.join("rows.jsonl"), crate::support::questions()).unwrap();
    front.run("load demo\nattach-lora r8 --rank 8\ndata rows.jsonl --name rows").await;
    let training = front.send("execute_request", json!({"code": "train rows --steps 10000000"})).await;
    front.begun(&training).await;
    let asked = Instant::now();
    let found = front.ask("complete_request", json!({"code": "eval rows --adapters r", "cursor_pos": 22})).await;
    assert_eq!(found["matches"], json!(["r8"]));
    let found = front.ask("inspect_request", json!({"code": "train", "cursor_pos": 2, "detail_level": 0})).await;
    assert!(found["data"]["text/markdown"].as_str().unwrap().contains("| `--steps"));
    // A training of ten million steps would take a day.
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
    // A front end that hears idle takes the kernel for free; it is told again that it is not.
    let (mut states, mut updates) = (Vec::new(), 0);
    while states.len() < 6 || updates < 2 {
        let message = front.hear().await;
        match message.kind.as_str() {
            "status" if message.parent == training => states.push(format!("training {}", line(&message))),
            "status" => states.push(line(&message)),
            "update_display_data" => updates += 1,
            _ => {}
        }
    }
    assert_eq!(states, ["busy", "idle", "training busy", "busy", "idle", "training busy"]);
    front.tell("interrupt_request", json!({})).await;
    assert_eq!(front.end(&training).await.reply["ename"], "Interrupted");
}

#[tokio::test]
async fn completion_counts_code_points() {
    let kernel = Kernel::start("jupyter-complete");
    let mut front = kernel.front().await;
    let found = front.ask("complete_request", json!({"code": "echo \"😀é\"\nquan", "cursor_pos": 14})).await;
    assert_eq!(found["matches"], json!(["quantize"]));
    assert_eq!((&found["cursor_start"], &found["cursor_end"]), (&json!(10), &json!(14)));
    let typed = &found["metadata"]["_jupyter_types_experimental"][0];
    assert_eq!((&typed["type"], &typed["start"], &typed["end"]), (&json!("command"), &json!(10), &json!(14)));
    assert!(typed["signature"].as_str().unwrap().starts_with("Quantize"));
    for (code, at) in [("", 0), ("nothing --", 10), ("load", 999), ("😀", 1)] {
        assert_eq!(front.ask("complete_request", json!({"code": code, "cursor_pos": at})).await["status"], "ok");
    }
}

#[tokio::test]
async fn other_questions_have_answers_too() {
    let kernel = Kernel::start("jupyter-questions");
    let mut front = kernel.front().await;
    for (code, status, indent) in [
        ("memory", "complete", Value::Null),
        ("train \\", "incomplete", json!("    ")),
        ("for i in (1 2):", "incomplete", json!("    ")),
        ("train --nope", "invalid", Value::Null),
        ("x =", "invalid", Value::Null),
    ] {
        let reply = front.ask("is_complete_request", json!({"code": code})).await;
        assert_eq!((&reply["status"], &reply["indent"]), (&json!(status), &indent), "{code}");
    }
    front.run("rank = 16").await;
    let found = front.ask("inspect_request", json!({"code": "echo $rank", "cursor_pos": 8})).await;
    assert_eq!((&found["found"], &found["data"]["text/plain"]), (&json!(true), &json!("variable rank\n\n16")));
    let found = front.ask("inspect_request", json!({"code": "nothing", "cursor_pos": 3})).await;
    assert_eq!((&found["found"], &found["data"]), (&json!(false), &json!({})));
    assert_eq!(front.ask("comm_info_request", json!({})).await, json!({"status": "ok", "comms": {}}));

    let id = front.send("comm_open", json!({"comm_id": "c", "target_name": "widget", "data": {}})).await;
    loop {
        let message = front.hear().await;
        if message.parent == id && message.kind != "status" {
            assert_eq!((message.kind.as_str(), &message.content["comm_id"]), ("comm_close", &json!("c")));
            break;
        }
    }
    for kind in ["debug_request", "create_subshell_request", "usage_request"] {
        front.tell(kind, json!({})).await;
        let reply = front.told().await;
        assert_eq!((reply.kind, &reply.content["status"]), (kind.replace("request", "reply"), &json!("error")));
    }
    // What cannot be read is answered all the same.
    for (kind, content) in [
        ("history_request", json!({"n": "many"})),
        ("complete_request", json!({"code": 5})),
        ("execute_request", json!({"code": ["a"]})),
    ] {
        assert_eq!(front.ask(kind, content).await["status"], "error", "{kind}");
    }
}

#[tokio::test]
async fn history_is_found_again() {
    let mut kernel = Kernel::start("jupyter-history");
    let mut front = kernel.front().await;
    for code in ["echo 1", "config schedule", "echo 1", "echo 2"] {
        front.run(code).await;
    }
    front.execute(json!({"code": "echo 3", "store_history": false})).await;
    let mut history = async |wanted: Value| front.ask("history_request", wanted).await["history"].clone();
    let tail = history(json!({"hist_access_type": "tail", "n": 2, "raw": true, "output": false})).await;
    assert_eq!(tail, json!([[1, 3, "echo 1"], [1, 4, "echo 2"]]));
    let outputs = history(json!({"hist_access_type": "range", "start": 1, "stop": 3, "output": true})).await;
    assert_eq!(outputs, json!([[1, 1, ["echo 1", ""]], [1, 2, ["config schedule", "linear"]]]));
    let all = history(json!({"hist_access_type": "search", "pattern": "echo*"})).await;
    assert_eq!(all.as_array().map(Vec::len), Some(3));
    let unique = history(json!({"hist_access_type": "search", "pattern": "echo*", "unique": true})).await;
    assert_eq!(unique, json!([[1, 3, "echo 1"], [1, 4, "echo 2"]]));
    let last = history(json!({"hist_access_type": "search", "pattern": "echo ?", "n": 1})).await;
    assert_eq!(last, json!([[1, 4, "echo 2"]]));

    front.tell("shutdown_request", json!({"restart": true})).await;
    assert_eq!(front.told().await.content, json!({"status": "ok", "restart": true}));
    assert_eq!(kernel.ended().await, Some(0));
    kernel.restart();
    let mut front = kernel.front().await;
    let ran = front.run("history echo --count 1").await;
    assert_eq!(
        ran.lines[1..3],
        ["in 1: history echo --count 1", "stdout:     2/1  history echo --count 1"].map(ToOwned::to_owned)
    );
    let before = front.ask("history_request", json!({"hist_access_type": "range", "session": -1, "start": 4})).await;
    assert_eq!(before["history"], json!([[1, 4, "echo 2"]]));
}

#[tokio::test]
async fn what_is_no_message_is_dropped_and_logged() {
    let kernel = Kernel::start("jupyter-broken");
    let mut front = kernel.front().await;
    let frames = |parts: &[&str]| -> ZmqMessage {
        let mut message = ZmqMessage::from(parts[0]);
        parts[1..].iter().for_each(|part| message.push_back(part.as_bytes().to_vec().into()));
        message
    };
    let header = r#"{"msg_id":"x","msg_type":"kernel_info_request","username":"","session":"","version":"5.5"}"#;
    let zeros = "0".repeat(64);
    for parts in [
        &["<IDS|MSG>", &zeros, header, "{}", "{}", "{}"][..],
        &["<IDS|MSG>", "no hex", header, "{}", "{}", "{}"],
        &["<IDS|MSG>", &zeros, header],
        &["<IDS|MSG>"],
        &["nothing"],
        &[""],
    ] {
        front.shell.socket.send(frames(parts)).await.unwrap();
        front.control.socket.send(frames(parts)).await.unwrap();
    }
    assert_eq!(front.run("echo alive").await.lines[2], "stdout: alive");
    front.tell("kernel_info_request", json!({})).await;
    assert_eq!(front.told().await.content["status"], "ok");
    let log = kernel.log();
    assert!(log.contains("its signature is wrong") && log.matches("was dropped").count() >= 12, "{log}");
}

#[tokio::test]
async fn a_kernel_ends_with_its_parent() {
    let mut kernel = Kernel::start("jupyter-parent");
    kernel.child.kill().unwrap();
    kernel.child.wait().unwrap();
    // A shell in between, so that the kernel has a parent that can be taken away.
    let kernel_command = front::command(&kernel.folder);
    let mut shell = std::process::Command::new("sh");
    let script = "JPY_PARENT_PID=$$ \"$0\" kernel -f connection.json & wait";
    let mut shell = shell
        .args(["-c", script])
        .arg(kernel_command.get_program())
        .current_dir(&kernel.folder)
        .env("LORALAB_HISTORY", "")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut output = shell.stdout.take().unwrap();
    let mut front = kernel.front().await;
    assert_eq!(front.run("echo alive").await.lines[2], "stdout: alive");
    shell.kill().unwrap();
    shell.wait().unwrap();
    // The pipe is closed when the last process that holds it has ended.
    let closed = tokio::task::spawn_blocking(move || output.read_to_end(&mut Vec::new()));
    tokio::time::timeout(Duration::from_secs(60), closed).await.expect("the kernel ends").unwrap().unwrap();
}

#[tokio::test]
async fn the_user_is_asked_where_that_is_possible() {
    let kernel = Kernel::start("jupyter-ask");
    let mut front = kernel.front().await;
    std::fs::write(kernel.folder.join("rows.jsonl"), crate::support::questions()).unwrap();
    front.run("load demo\nattach-lora a --rank 2\ntrain rows.jsonl --steps 1").await;
    let ran = front.run("unload").await;
    assert_eq!(ran.reply["ename"], "State");
    for (answer, status) in [("n", "error"), ("", "error"), ("yes", "ok")] {
        let id = front.send("execute_request", json!({"code": "unload", "allow_stdin": true})).await;
        let question = front.asked().await;
        assert_eq!((question.kind.as_str(), question.parent == id), ("input_request", true));
        assert!(question.content["prompt"].as_str().unwrap().contains("adapter a was trained and is not saved"));
        front.answer(answer).await;
        assert_eq!(front.end(&id).await.reply["status"], status, "{answer:?}");
    }
}

#[tokio::test]
async fn a_notebook_that_loads_again_runs_to_its_end() {
    let kernel = Kernel::start("jupyter-load-again");
    let mut front = kernel.front().await;
    std::fs::write(kernel.folder.join("rows.jsonl"), crate::support::questions()).unwrap();
    front.run("load demo\nattach-lora a --rank 2\ntrain rows.jsonl --steps 1").await;
    let id = front.send("execute_request", json!({"code": "load demo --reload", "allow_stdin": true})).await;
    let ran = front.end(&id).await;
    assert_eq!(ran.reply["status"], "ok");
    let text = |message: &Seen| message.content["data"]["text/plain"].as_str().unwrap_or_default().replace('\n', " ");
    let shown: Vec<String> = ran.seen.iter().map(text).collect();
    assert!(shown.iter().any(|text| text.contains("not saved") && text.contains("a copy")), "{shown:?}");
}

#[tokio::test]
async fn a_question_can_be_interrupted() {
    let kernel = Kernel::start("jupyter-ask-stop");
    let mut front = kernel.front().await;
    std::fs::write(kernel.folder.join("rows.jsonl"), crate::support::questions()).unwrap();
    front.run("load demo\nattach-lora a --rank 2\ntrain rows.jsonl --steps 1").await;
    let id = front.send("execute_request", json!({"code": "unload", "allow_stdin": true})).await;
    front.asked().await;
    front.tell("interrupt_request", json!({})).await;
    assert_eq!(front.end(&id).await.reply["ename"], "Interrupted");
    assert_eq!(front.run("adapters a").await.reply["status"], "ok");
}

#[test]
fn a_file_that_is_no_connection_file_is_an_error() {
    let folder = crate::support::root().join("jupyter-file");
    std::fs::create_dir_all(&folder).unwrap();
    for (text, word) in
        [(None, "cannot read"), (Some("{}"), "is no connection file"), (Some("x"), "is no connection file")]
    {
        let _ = std::fs::remove_file(folder.join("connection.json"));
        if let Some(text) = text {
            std::fs::write(folder.join("connection.json"), text).unwrap();
        }
        let output = front::command(&folder).stderr(Stdio::piped()).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains(word) && said.contains("connection.json"), "{said}");
    }
    std::fs::remove_dir_all(folder).unwrap();
}
