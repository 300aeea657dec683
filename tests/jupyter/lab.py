"""Sessions with a kernel through jupyter_client, as a front end sees them."""

import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty

from jupyter_client.manager import start_new_kernel

ROOT = Path(__file__).resolve().parents[2]
BINARY = Path(os.environ.get("LORALAB_BIN", ROOT / "target" / "release" / "loralab")).absolute()
LESSON = ROOT / "notebooks" / "data" / "questions.train.jsonl"
HELD_OUT = ROOT / "notebooks" / "data" / "questions.valid.jsonl"

#: Seconds after which something is not coming any more; nothing is expected to take long.
PATIENCE = 120


@dataclass
class Answer:
    """What came back for one cell."""

    reply: dict
    messages: list = field(default_factory=list)

    @property
    def status(self):
        return self.reply["content"]["status"]

    @property
    def types(self):
        return [message["msg_type"] for message in self.messages]

    def of(self, kind):
        return [message["content"] for message in self.messages if message["msg_type"] == kind]

    def text(self):
        """Everything shown as plain text."""
        streams = [content["text"] for content in self.of("stream")]
        shown = self.of("display_data") + self.of("update_display_data") + self.of("execute_result")
        return "\n".join(streams + [content["data"].get("text/plain", "") for content in shown])


class Session:
    """A running kernel and a client."""

    def __init__(self):
        self.manager, self.client = start_new_kernel(kernel_name="loralab", startup_timeout=PATIENCE)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)

    def send(self, code, **how):
        """Sends a cell; its id."""
        return self.client.execute(code, **how)

    def wait(self, request):
        """All that comes for a request, up to its idle, and its reply."""
        messages = list(self.outputs(request))
        return Answer(self.reply(request), messages)

    def run(self, code, **how):
        return self.wait(self.send(code, **how))

    def ok(self, *cells):
        """Runs cells that must succeed; the answer of the last."""
        for code in cells:
            answer = self.run(code)
            assert answer.status == "ok", (code, answer.reply["content"])
        return answer

    def outputs(self, request):
        """What comes on iopub for a request, as it comes, up to its idle."""
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            try:
                message = self.client.get_iopub_msg(timeout=1)
            except Empty:
                continue
            if message["parent_header"].get("msg_id") != request:
                continue
            yield message
            if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
                return
        raise TimeoutError(f"no idle for {request} within {PATIENCE} s")

    def reply(self, request):
        while True:
            reply = self.client.get_shell_msg(timeout=PATIENCE)
            if reply["parent_header"].get("msg_id") == request:
                return reply
