"""Loralab against transformers, PEFT and bitsandbytes: their files here, files from here there, and the same numbers.

    LORALAB_BIN=target/release/loralab python -m pytest tests/conformance

needs the packages of .ci/requirements.txt. Everything is computed on the CPU in f32. What was compared, with what tolerance, is
printed at the end. Tests on a real model run when LORALAB_DEV_DATA names a folder that holds it.
"""

import os

os.environ["HF_HUB_OFFLINE"] = "1"

import pytest  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402

from compare import Comparisons  # noqa: E402
from lab import BINARY, Lab  # noqa: E402

DONE = pytest.StashKey()


def pytest_configure(config):
    if not BINARY.exists():
        raise pytest.UsageError(f"{BINARY} does not exist: cargo build --release, or set LORALAB_BIN")
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.use_deterministic_algorithms(True)
    config.addinivalue_line("filterwarnings", "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
    config.addinivalue_line("filterwarnings", "ignore:Could not find a config file in:UserWarning")
    config.stash[DONE] = []


@pytest.fixture
def lab(tmp_path):
    return Lab(tmp_path)


@pytest.fixture
def compare(request):
    return Comparisons(request.node.nodeid.split("/")[-1], request.config.stash[DONE])


def pytest_terminal_summary(terminalreporter, config):
    terminalreporter.section("compared")
    subject = None
    for where, line in config.stash[DONE]:
        if where != subject:
            terminalreporter.write_line(where)
            subject = where
        terminalreporter.write_line(f"    {line}")
