"""What front ends count on beyond the conformance suite."""

import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest
import zmq
from jupyter_client.connect import write_connection_file
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import KernelManager
from jupyter_client.session import Session as Wire

from lab import BINARY, LESSON, PATIENCE, ROOT, Session

#: A training that nobody waits for.
ENDLESS = f"train '{LESSON}' --steps 100000 --batch-size 2"


@pytest.fixture
def session():
    with Session() as session:
        yield session


@pytest.mark.parametrize(
    ("code", "shown"),
    [
        ("echo hi", "stream"),
        ("plot --demo", "display_data"),
        ("config rank", "execute_result"),
        ("load /no/such/model", "error"),
        ("?train", None),
        ("", None),
    ],
)
def test_messages_come_in_the_order_that_vs_code_takes_for_granted(session, code, shown):
    answer = session.run(code)
    assert answer.types[0] == "status" and answer.messages[0]["content"]["execution_state"] == "busy"
    assert answer.types[1] == "execute_input" and answer.messages[1]["content"]["code"] == code
    outputs = answer.messages[2:-1]
    assert {message["msg_type"] for message in outputs} - {"update_display_data"} == ({shown} if shown else set())
    # The reply is on another channel: by the kernel's clock it stands between the outputs and idle.
    sent = [message["header"]["date"] for message in [*answer.messages[:-1], answer.reply, answer.messages[-1]]]
    assert sent == sorted(sent)
    count = answer.messages[1]["content"]["execution_count"]
    assert answer.reply["content"]["execution_count"] == count == 1
    assert all(message["content"].get("execution_count", count) == count for message in outputs)


def test_every_field_is_there_even_after_an_error(session):
    content = session.run("load /no/such/model").reply["content"]
    assert content["status"] == "error" and content["ename"] == "NotFound"
    assert "/no/such/model" in content["evalue"] and content["traceback"]
    content = session.run("echo a", user_expressions={}).reply["content"]
    assert content["payload"] == [] and content["user_expressions"] == {}


def test_a_client_that_subscribes_late_still_sees_the_end():
    manager = KernelManager(kernel_name="loralab")
    manager.start_kernel()
    client = manager.blocking_client()
    try:
        client.start_channels(shell=True, iopub=False, stdin=False, hb=False, control=False)
        request = client.execute("echo late")
        time.sleep(0.3)
        client.iopub_channel.start()
        types = []
        while types[-1:] != ["idle"]:
            message = client.get_iopub_msg(timeout=PATIENCE)
            if message["parent_header"].get("msg_id") == request:
                types.append(message["content"].get("execution_state", message["msg_type"]))
        assert types == ["busy", "execute_input", "stream", "idle"]
        assert client.get_shell_msg(timeout=PATIENCE)["content"]["status"] == "ok"
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def test_an_interrupt_ends_a_training_and_nothing_else(session, seen):
    session.ok("load demo", "attach-lora r8 --rank 8")
    request = session.send(ENDLESS)
    outputs = session.outputs(request)
    while next(outputs)["msg_type"] != "update_display_data":
        pass
    asked = time.monotonic()
    session.manager.interrupt_kernel()
    rest = list(outputs)
    seen(f"interrupt to idle during training: {time.monotonic() - asked:.2f} s")
    reply = session.reply(request)["content"]
    assert (reply["status"], reply["ename"]) == ("error", "Interrupted")
    assert [message["msg_type"] for message in rest].count("error") == 1
    # Not steps finished are lost, and the session goes on.
    assert "r8" in session.ok("adapters").text()
    assert session.ok("runs").text().strip()


def test_what_waits_is_aborted_and_what_comes_after_runs(session):
    requests = [session.send(code) for code in ("echo 1", "load /no/such/model", "echo 3", "echo 4")]
    statuses = [session.reply(request)["content"]["status"] for request in requests]
    assert statuses == ["ok", "error", "aborted", "aborted"]
    assert session.ok("echo 5").text() == "5\n"


def test_completion_answers_while_a_training_runs(session, seen):
    session.ok("load demo", "attach-lora r8 --rank 8")
    request = session.send(ENDLESS)
    outputs = session.outputs(request)
    while next(outputs)["msg_type"] != "update_display_data":
        pass
    for ask, kind in (
        (lambda: session.client.complete("quan"), "complete_reply"),
        (lambda: session.client.inspect("train"), "inspect_reply"),
        (lambda: session.client.is_complete("memory"), "is_complete_reply"),
    ):
        asked = time.monotonic()
        reply = session.reply(ask())
        seen(f"{kind} during training: {1000 * (time.monotonic() - asked):.1f} ms")
        assert reply["msg_type"] == kind and reply["content"]["status"] in ("ok", "complete")
    session.manager.interrupt_kernel()
    list(outputs)
    assert session.reply(request)["content"]["ename"] == "Interrupted"


def test_places_in_the_text_are_counted_in_code_points(session):
    before = "echo '🦙 héllo'\n"
    content = session.reply(session.client.complete(f"{before}quan --x", len(before) + 4))["content"]
    assert content["matches"] == ["quantize"]
    assert (content["cursor_start"], content["cursor_end"]) == (len(before), len(before) + 4)
    (kind,) = content["metadata"]["_jupyter_types_experimental"]
    assert (kind["text"], kind["type"], kind["start"]) == ("quantize", "command", len(before))
    assert session.reply(session.client.inspect(f"{before}train x", len(before) + 2))["content"]["found"]


def test_a_restart_begins_anew(session):
    first = session.ok("load demo", "echo before").reply["content"]["execution_count"]
    assert first == 2
    session.manager.restart_kernel(now=False)
    session.client.wait_for_ready(timeout=PATIENCE)
    answer = session.ok("echo after")
    assert answer.reply["content"]["execution_count"] == 1 and answer.text() == "after\n"
    assert session.run("quantize").reply["content"]["ename"] == "State"


def test_a_shutdown_ends_the_process(session):
    process = session.manager.provisioner.process
    session.client.shutdown()
    assert process.wait(timeout=PATIENCE) == 0


def test_the_kernel_does_not_outlive_its_parent(tmp_path):
    code = f"""
from jupyter_client.manager import start_new_kernel
manager, client = start_new_kernel(kernel_name="loralab")
print(manager.provisioner.process.pid, flush=True)
import time; time.sleep({PATIENCE})
"""
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    kernel = int(parent.stdout.readline())
    os.kill(kernel, 0)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    until = time.monotonic() + PATIENCE
    while is_running(kernel):
        assert time.monotonic() < until, "the kernel still runs"
        time.sleep(0.1)


def is_running(process):
    """Whether there is such a process, not counting one that only waits to be collected."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_the_folder_in_the_repository_can_be_installed(tmp_path):
    install = [sys.executable, "-m", "jupyter", "kernelspec", "install", str(ROOT / "kernelspec")]
    subprocess.run([*install, "--name", "from-folder", "--prefix", str(tmp_path)], check=True, stderr=subprocess.DEVNULL)
    kernels = tmp_path / "share" / "jupyter" / "kernels"
    assert {path.name for path in (kernels / "from-folder").iterdir()} == {
        "kernel.json",
        "logo-32x32.png",
        "logo-64x64.png",
        "logo-svg.svg",
    }
    spec = KernelSpecManager(kernel_dirs=[str(kernels)]).get_kernel_spec("from-folder")
    assert spec.argv == ["loralab", "kernel", "-f", "{connection_file}"]
    assert (spec.language, spec.interrupt_mode) == ("loralab", "message")
    subprocess.run([BINARY, "uninstall", "--name", "from-folder", "--prefix", tmp_path], check=True)
    assert not (kernels / "from-folder").exists()


def test_the_installed_kernel_is_found_under_its_name():
    spec = KernelSpecManager().get_kernel_spec("loralab")
    assert spec.argv == [str(BINARY.resolve()), "kernel", "-f", "{connection_file}"]
    assert spec.to_dict()["kernel_protocol_version"] == "5.5"


@pytest.mark.skipif("LORALAB_WHEEL_ENV" not in os.environ, reason="LORALAB_WHEEL_ENV names no environment with the wheel")
def test_the_kernel_of_the_wheel_is_found_and_runs(monkeypatch):
    environment = Path(os.environ["LORALAB_WHEEL_ENV"])
    monkeypatch.setenv("JUPYTER_PATH", str(environment / "share" / "jupyter"))
    spec = KernelSpecManager().get_kernel_spec("loralab")
    assert spec.argv[0] == "loralab"
    assert {path.suffix for path in Path(spec.resource_dir).iterdir()} == {".json", ".png", ".svg"}
    # As `jupyter lab` does for the programs beside it.
    monkeypatch.setenv("PATH", f"{environment / 'bin'}{os.pathsep}{os.environ['PATH']}")
    with Session() as session:
        executable = Path(f"/proc/{session.manager.provisioner.process.pid}/exe").resolve()
        assert executable == (environment / "bin" / "loralab").resolve()
        assert session.ok("echo wheel").text() == "wheel\n"


def test_speed(tmp_path, seen):
    """From the start of the process to kernel_info_reply, and a trivial cell, beside ipykernel."""
    python = [sys.executable, "-m", "ipykernel_launcher", "-f"]
    times = {}
    for name, command, cell in (("loralab", [str(BINARY), "kernel", "-f"], "echo 1"), ("ipykernel", python, "print(1)")):
        rounds = [start_and_run(tmp_path / f"{name}-{number}.json", command, cell) for number in range(5)]
        times[name] = [statistics.median(column) for column in zip(*rounds)]
        seen(f"{name}: start to kernel_info_reply {times[name][0]:.3f} s, a cell {1000 * times[name][1]:.1f} ms")
    ratios = [theirs / ours for ours, theirs in zip(times["loralab"], times["ipykernel"])]
    seen(f"start {ratios[0]:.1f} times faster, a cell {ratios[1]:.1f} times faster")


def start_and_run(connection_file, command, cell):
    """Seconds from the start of the process to kernel_info_reply, and for one cell, after a first one."""
    _, connection = write_connection_file(str(connection_file), key=b"of this test")
    wire = Wire(key=connection["key"].encode())
    context = zmq.Context()
    # An iopub socket too: a kernel may wait for somebody who listens.
    shell, iopub = context.socket(zmq.DEALER), context.socket(zmq.SUB)
    iopub.subscribe(b"")
    process = None
    try:
        begun = time.perf_counter()
        process = subprocess.Popen([*command, str(connection_file)], stderr=subprocess.DEVNULL)
        for socket, port in ((shell, "shell_port"), (iopub, "iopub_port")):
            # Tries again at once where nobody listens yet.
            socket.setsockopt(zmq.RECONNECT_IVL, 1)
            socket.connect(f"tcp://{connection['ip']}:{connection[port]}")
        seconds = [ask(wire, shell, "kernel_info_request", {}, begun)]
        content = {"code": cell, "silent": False, "store_history": True, "user_expressions": {}, "allow_stdin": False}
        ask(wire, shell, "execute_request", content, 0.0)
        rounds = [ask(wire, shell, "execute_request", content, time.perf_counter()) for _ in range(20)]
        return [*seconds, statistics.median(rounds)]
    finally:
        if process:
            process.kill()
            process.wait()
        context.destroy(linger=0)


def ask(wire, shell, kind, content, begun):
    """Sends a request and waits for its reply; the seconds since `begun`."""
    request = wire.send(shell, kind, content)
    while True:
        assert shell.poll(PATIENCE * 1000), f"no answer to {kind}"
        _, reply = wire.recv(shell, mode=0)
        if reply["parent_header"]["msg_id"] == request["header"]["msg_id"]:
            assert reply["content"]["status"] == "ok", reply["content"]
            return time.perf_counter() - begun
