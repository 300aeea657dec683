"""Runs the built loralab and reads its JSON lines."""

import json
import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden"
BINARY = Path(os.environ.get("LORALAB_BIN", ROOT / "target" / "release" / "loralab")).absolute()

#: Weights and arithmetic in f32, whatever the checkpoint is in: what the peers are held against.
EXACT = "--dtype f32 --compute-dtype f32"


class Lab:
    """Sessions of loralab in a folder of their own; each call is a new process."""

    def __init__(self, folder):
        self.folder = Path(folder)

    def __call__(self, *statements):
        """The results of the statements, all of which must succeed."""
        lines, status = self.lines(*statements)
        failed = [line for line in lines if line["status"] != "ok"]
        assert not failed, json.dumps(failed, indent=1, ensure_ascii=False)
        assert status == 0, f"exit status {status}"
        assert [line["statement"] for line in lines] == list(statements)
        return [line["result"] for line in lines]

    def lines(self, *statements):
        """The JSON lines of the statements up to the first that fails, and the exit status."""
        command = [str(BINARY), "--json"]
        for statement in statements:
            command += ["-c", statement]
        environment = {**os.environ, "LORALAB_RUNS": str(self.folder / "runs")}
        done = subprocess.run(command, cwd=self.folder, env=environment, stdout=subprocess.PIPE, text=True, timeout=900)
        return [json.loads(line) for line in done.stdout.splitlines()], done.returncode


def quoted(path):
    """A path as a literal word of the language."""
    assert "'" not in str(path)
    return f"'{path}'"


def losses(result):
    """{adapter: loss} of a result of `eval` over one data set."""
    return {row["adapter"]: row["loss"] for row in result["rows"]}
