"""The kernel in the programs its users have: jupyter_client, nbclient, nbconvert, papermill, JupyterLab in a browser.

    LORALAB_BIN=target/release/loralab python -m pytest tests/jupyter

needs the packages of .ci/requirements-jupyter.txt, and /usr/bin/chromium for JupyterLab. The kernel is installed by
`loralab install` into a folder of these tests; nothing of the user's Jupyter is read or changed.

LORALAB_DEV_DATA    a folder with a real model and real data: JupyterLab is tried on it instead of the built-in model
LORALAB_SHOTS       a folder for the pictures of JupyterLab; default: pytest's
LORALAB_WHEEL_ENV   a virtual environment into which the wheel was installed; without it that test is skipped
"""

import os
import subprocess

import pytest

from lab import BINARY


def pytest_configure(config):
    if not BINARY.exists():
        raise pytest.UsageError(f"{BINARY} does not exist: cargo build --release, or set LORALAB_BIN")
    config.addinivalue_line("filterwarnings", "ignore::DeprecationWarning")
    config.addinivalue_line("filterwarnings", "ignore::FutureWarning")


@pytest.fixture(scope="session", autouse=True)
def jupyter(tmp_path_factory):
    """A Jupyter with nothing of the user's in it, and the kernel installed; every process started from here sees it."""
    home = tmp_path_factory.mktemp("jupyter")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR", "XDG_DATA_HOME"):
            patch.setenv(name, str(home / name.lower()))
        patch.setenv("JUPYTER_NO_CONFIG", "1")
        patch.setenv("LORALAB_RUNS", str(home / "runs"))
        patch.setenv("PYDEVD_DISABLE_FILE_VALIDATION", "1")
        subprocess.run([BINARY, "install", "--user"], check=True)
        yield home


def pytest_terminal_summary(terminalreporter, config):
    lines = config.stash.get(SEEN, [])
    if lines:
        terminalreporter.section("seen")
        for line in lines:
            terminalreporter.write_line(line)


SEEN = pytest.StashKey()


@pytest.fixture
def seen(request):
    """Takes lines to print at the end: what was measured, never judged."""
    return request.config.stash.setdefault(SEEN, []).append
