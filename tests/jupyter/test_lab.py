"""JupyterLab in a browser, as its user has it: a training is watched, interrupted, resumed, evaluated and merged."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from playwright.sync_api import expect, sync_playwright

from lab import HELD_OUT, LESSON, PATIENCE

CHROMIUM = "/usr/bin/chromium"
DEV_DATA = os.environ.get("LORALAB_DEV_DATA")

#: The prompt of a cell that has run.
DONE = re.compile(r"\[\d+\]:")

#: What JupyterLab is told to leave alone: cells out of sight are not unloaded, nobody asks about news.
SETTINGS = {
    "@jupyterlab/notebook-extension/tracker": {"windowingMode": "none"},
    "@jupyterlab/apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "@jupyterlab/docmanager-extension/plugin": {"autosave": False},
}

if DEV_DATA:
    MODEL = Path(DEV_DATA, "smollm2-135m-instruct")
    DATA = [Path(DEV_DATA, "data", name) for name in ("jargon.train.jsonl", "jargon.valid.jsonl")]
    HOW = "--steps 24 --batch-size 2 --max-seq-len 96 --eval-every 6 --learning-rate 5e-4"
else:
    MODEL = None
    DATA = [LESSON, HELD_OUT]
    HOW = "--steps 400 --batch-size 8 --eval-every 50 --learning-rate 1e-3"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of the notebooks, with the model and short rows of the data beside them."""
    folder = tmp_path_factory.mktemp("notebooks")
    train, valid = ([row for row in path.read_text().splitlines(keepends=True) if len(row) < 260] for path in DATA)
    (folder / "train.jsonl").write_text("".join(train))
    (folder / "valid.jsonl").write_text("".join(valid[:16]))
    if MODEL:
        (folder / MODEL.name).symlink_to(MODEL)
    return folder


@pytest.fixture(scope="module")
def server(folder, tmp_path_factory):
    """The address of a JupyterLab that serves `folder`."""
    settings = tmp_path_factory.mktemp("settings")
    for name, values in SETTINGS.items():
        path = settings / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = tmp_path_factory.mktemp("log") / "jupyter.log"
    command = [sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root", "--expose-app-in-browser"]
    command += [f"--ServerApp.root_dir={folder}", f"--ServerApp.port={port}", "--IdentityProvider.token="]
    environment = {**os.environ, "JUPYTERLAB_SETTINGS_DIR": str(settings)}
    with log.open("w") as out:
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=out)
    address = f"http://127.0.0.1:{port}"
    try:
        until = time.monotonic() + PATIENCE
        while True:
            try:
                urllib.request.urlopen(f"{address}/api/status", timeout=5).close()
                break
            except OSError:
                assert process.poll() is None and time.monotonic() < until, log.read_text()
                time.sleep(0.1)
        yield address
    finally:
        process.terminate()
        process.wait()


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def shots(tmp_path):
    path = Path(os.environ.get("LORALAB_SHOTS", tmp_path))
    path.mkdir(parents=True, exist_ok=True)
    return path


class Lab:
    """A notebook open in JupyterLab; cells are counted without the title."""

    def __init__(self, browser, server, folder, name, *cells):
        book = new_notebook(cells=[new_markdown_cell(f"# {name}"), *map(new_code_cell, cells)])
        book.metadata["kernelspec"] = {"name": "loralab", "display_name": "loralab", "language": "loralab"}
        nbformat.write(book, folder / f"{name}.ipynb")
        self.address = f"{server}/lab/tree/{name}.ipynb?reset"
        self.page = browser.new_page(viewport={"width": 1280, "height": 900})
        self.page.set_default_timeout(PATIENCE * 1000)
        expect.set_options(timeout=PATIENCE * 1000)
        self.open()

    def open(self):
        self.page.goto(self.address)
        self.page.wait_for_selector(".jp-Notebook .jp-CodeCell")
        self.page.wait_for_selector("#jupyterlab-splash", state="detached")
        expect(self.page.locator(".jp-Toolbar-kernelName")).to_have_text("loralab")
        if self.page.locator("#jp-left-stack:visible").count():
            self.command("application:toggle-left-area")
        # The kernel is there when it is idle, or busy with what was begun before.
        self.page.wait_for_selector(".jp-Notebook-ExecutionIndicator:is([data-status=idle], [data-status=busy])")

    def command(self, name, **arguments):
        self.page.evaluate("([name, args]) => window.jupyterapp.commands.execute(name, args)", [name, arguments])

    def cell(self, number):
        return self.page.locator(".jp-Notebook .jp-CodeCell").nth(number - 1)

    def output(self, number):
        return self.cell(number).locator(".jp-Cell-outputWrapper")

    def begin(self, number):
        self.cell(number).locator(".cm-content").click()
        self.page.keyboard.press("Shift+Enter")

    def run(self, number):
        """Runs a cell and waits for its end; the text of its output."""
        self.begin(number)
        return self.ended(number)

    def ended(self, number):
        expect(self.cell(number).locator(".jp-InputPrompt")).to_have_text(DONE)
        return self.output(number).inner_text()

    def text_once(self, number, is_enough):
        """The text of a cell's output as soon as it is as wanted."""
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            output = self.output(number)
            text = output.inner_text() if output.count() else ""
            if is_enough(text):
                return text
            self.page.wait_for_timeout(100)
        raise TimeoutError(f"cell {number} still shows:\n{text}")

    def failed(self, number):
        return self.output(number).locator("[data-mime-type='application/vnd.jupyter.stderr'], .jp-mod-error").count()

    def shoot(self, path):
        """The whole notebook as a picture."""
        heights = "cells => cells.map(cell => cell.getBoundingClientRect().height).reduce((a, b) => a + b)"
        height = self.page.locator(".jp-Notebook .jp-Cell").evaluate_all(heights)
        self.page.set_viewport_size({"width": 1280, "height": min(int(height) + 200, 8000)})
        self.page.locator(".jp-WindowedPanel-outer").last.evaluate("panel => panel.scrollTo(0, 0)")
        self.page.wait_for_timeout(500)
        self.page.screenshot(path=path)
        self.page.set_viewport_size({"width": 1280, "height": 900})

    def theme(self, name):
        self.command("apputils:change-theme", theme=name)
        is_light = "true" if name.endswith("Light") else "false"
        self.page.wait_for_selector(f"body[data-jp-theme-light={is_light}]", state="attached")


@pytest.mark.timeout(300)
def test_a_training_is_watched_interrupted_and_resumed(browser, server, folder, shots):
    cells = [
        f"load {MODEL.name if MODEL else 'demo'}",
        "quantize nf4",
        "attach-lora r8 --rank 8",
        f"train train.jsonl --valid valid.jsonl {HOW}",
        "train --resume",
        "eval valid.jsonl --adapters base,r8",
        "merge r8",
    ]
    lab = Lab(browser, server, folder, "training", *cells)
    for number in (1, 2, 3):
        assert lab.run(number).strip() and not lab.failed(number), lab.output(number).inner_text()

    # The dashboard moves while it trains.
    lab.begin(4)
    first = lab.text_once(4, lambda text: "step" in text)
    second = lab.text_once(4, lambda text: text not in ("", first))
    assert lab.cell(4).locator(".jp-InputPrompt").inner_text() == "[*]:", "it ended before anybody could look twice"
    lab.page.locator("[data-command='notebook:interrupt-kernel']").click()
    interrupted = lab.ended(4)
    assert "interrupted" in interrupted and "train --resume" in interrupted, interrupted
    assert first != second

    lab.begin(5)
    lab.text_once(5, lambda text: re.search(r"\n[1-9]\d*\t[\d.]+\t[\d.]+\t", text))
    lab.shoot(shots / "training.png")
    resumed = lab.ended(5)
    assert not lab.failed(5), resumed
    assert lab.output(5).locator("img, svg").count(), "the chart is there at the end"
    for number in (6, 7):
        text = lab.run(number)
        assert text.strip() and not lab.failed(number), text
    assert lab.output(6).locator("table").count()

    for theme in ("Light", "Dark"):
        lab.theme(f"JupyterLab {theme}")
        lab.shoot(shots / f"notebook-{theme.lower()}.png")
    lab.theme("JupyterLab Light")
    lab.page.close()


@pytest.mark.timeout(200)
def test_a_closed_tab_loses_nothing(browser, server, folder, shots):
    shutil.copy(LESSON, folder / "lesson.jsonl")
    train = "train lesson.jsonl --steps 60 --batch-size 8"
    lab = Lab(browser, server, folder, "closed", "load demo", "attach-lora r8", train, "runs", "plot")
    lab.run(1)
    lab.run(2)
    lab.begin(3)
    lab.text_once(3, lambda text: "step" in text)
    lab.command("docmanager:save")
    lab.page.goto("about:blank")
    lab.open()
    # It waits until the training is over: the kernel went on meanwhile.
    text = lab.run(4)
    assert re.search(r"\b60\b", text) and not lab.failed(4), text
    lab.run(5)
    assert lab.output(5).locator("img, svg").count() and not lab.failed(5)
    lab.shoot(shots / "reopened.png")
    lab.page.close()
