//! Interrupts through the kernel: each command stops, and the next cell works.

use std::time::Duration;

use serde_json::json;

use super::front::{Front, Kernel};

/// A kernel whose session has a model, an adapter that was trained, and rows.
async fn trained(name: &str) -> (Kernel, Front) {
    let kernel = Kernel::start(name);
    let mut front = kernel.front().await;
    std::fs::write(kernel.folder.join("rows.jsonl"), crate::support::questions()).unwrap();
    let ran = front.run("load demo\nattach-lora a --rank 4\ndata rows.jsonl --name rows\ntrain rows --steps 2").await;
    assert_eq!(ran.reply["status"], "ok", "{:?}", ran.reply);
    (kernel, front)
}

/// Interrupts `command`, run over and over so that it cannot have ended before.
async fn interrupted(name: &str, command: &str) {
    let (_kernel, mut front) = trained(name).await;
    let rounds: Vec<String> = (0..5000).map(|n| n.to_string()).collect();
    let code = format!("for i in ({}):\n    {}\n", rounds.join(" "), command.replace('\n', "\n    "));
    let cell = front.send("execute_request", json!({"code": code})).await;
    front.begun(&cell).await;
    let waiting = front.send("execute_request", json!({"code": "echo never"})).await;
    tokio::time::sleep(Duration::from_millis(150)).await;
    front.tell("interrupt_request", json!({})).await;
    assert_eq!(front.told().await.content, json!({"status": "ok"}));
    let ran = front.end(&cell).await;
    assert_eq!((&ran.reply["status"], &ran.reply["ename"]), (&json!("error"), &json!("Interrupted")), "{command}");
    let errors = ran.seen.iter().filter(|message| message.kind == "error").count();
    assert_eq!(errors, 1, "{command}");
    // What waited is told that it will not run.
    assert_eq!(front.end(&waiting).await.reply["status"], "aborted", "{command}");
    let ran = front.run("eval rows").await;
    assert_eq!(ran.reply["status"], "ok", "{command}: {:?}", ran.reply);
}

#[tokio::test]
async fn loading() {
    let (_kernel, mut front) = trained("jupyter-stop-load").await;
    let rounds: Vec<String> = (0..5000).map(|n| n.to_string()).collect();
    let code = format!("for i in ({}): load demo --reload --force", rounds.join(" "));
    let cell = front.send("execute_request", json!({"code": code})).await;
    front.begun(&cell).await;
    tokio::time::sleep(Duration::from_millis(150)).await;
    front.tell("interrupt_request", json!({})).await;
    assert_eq!(front.end(&cell).await.reply["ename"], "Interrupted");
    assert_eq!(front.run("eval rows.jsonl").await.reply["status"], "ok");
}

#[tokio::test]
async fn quantizing() {
    interrupted("jupyter-stop-quantize", "quantize nf4").await;
}

#[tokio::test]
async fn training() {
    interrupted("jupyter-stop-train", "train rows --steps 10000000").await;
}

#[tokio::test]
async fn evaluating() {
    interrupted("jupyter-stop-eval", "eval rows").await;
}

#[tokio::test]
async fn generating() {
    interrupted("jupyter-stop-generate", "generate Go --max-tokens 400 --temperature 1").await;
}

#[tokio::test]
async fn merging() {
    interrupted("jupyter-stop-merge", "merge\nunmerge").await;
}

#[tokio::test]
async fn a_cell_that_is_only_beginning() {
    let kernel = Kernel::start("jupyter-stop-beginning");
    let mut front = kernel.front().await;
    for _ in 0..20 {
        let cell = front.send("execute_request", json!({"code": "!sleep 600"})).await;
        while front.hear().await.parent != cell {}
        front.tell("interrupt_request", json!({})).await;
        assert_eq!(front.end(&cell).await.reply["ename"], "Interrupted");
    }
}

#[tokio::test]
async fn an_interrupt_of_nothing_harms_no_cell() {
    let kernel = Kernel::start("jupyter-stop-nothing");
    let mut front = kernel.front().await;
    front.tell("interrupt_request", json!({})).await;
    assert_eq!(front.told().await.content, json!({"status": "ok"}));
    assert_eq!(front.run("echo on").await.lines[2], "stdout: on");
}
