"""Notebooks run without anybody looking: nbclient, nbconvert, papermill, and `loralab run`. What is saved can be read later."""

import json
import subprocess
import sys

import nbclient
import nbformat
import papermill
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from lab import BINARY, HELD_OUT, LESSON, PATIENCE

KERNELSPEC = {"name": "loralab", "display_name": "loralab", "language": "loralab"}

PARAMETERS = "rank = 4\nsteps = 6"
CELLS = [
    "load demo",
    "quantize nf4",
    "attach-lora r --rank $rank",
    f"train '{LESSON}' --steps $steps --batch-size 4 --valid '{HELD_OUT}'",
    f"eval '{HELD_OUT}' --adapters base,r",
    'generate "Where does a fish live?" --max-tokens 8',
    "memory",
]


def notebook(*cells, parameters=None):
    """A notebook for the kernel; the cells are sources, or finished cells."""
    made = [new_markdown_cell("# A lesson")]
    if parameters:
        made.append(new_code_cell(parameters, metadata={"tags": ["parameters"]}))
    made += [new_code_cell(cell) if isinstance(cell, str) else cell for cell in cells]
    return new_notebook(cells=made, metadata={"kernelspec": dict(KERNELSPEC)})


@pytest.fixture
def lesson(tmp_path):
    path = tmp_path / "lesson.ipynb"
    nbformat.write(notebook(*CELLS, parameters=PARAMETERS), path)
    return path


def code_cells(book):
    return [cell for cell in book.cells if cell.cell_type == "code"]


def outputs(book):
    return [output for cell in code_cells(book) for output in cell.outputs]


def types(cells):
    """The mime types of everything that is displayed."""
    return {mime for cell in cells for output in cell.outputs for mime in output.get("data", {})}


def plain(cell):
    """What somebody without HTML and pictures reads of a cell."""
    shown = [output.get("text") or output.get("data", {}).get("text/plain", "") for output in cell.outputs]
    return "\n".join(shown)


def check_lesson(book, rank, kernel=True):
    """The saved notebook tells the whole story: text, tables, the chart as a picture, on every cell."""
    nbformat.validate(book)
    assert not [output for output in outputs(book) if output.output_type == "error"]
    cells = {cell.source.split()[0]: cell for cell in code_cells(book)}
    train = cells["train"]
    assert {"text/plain", "text/html", "image/svg+xml", "image/png"} <= types([train])
    for name in ("load", "quantize", "attach-lora", "train", "eval", "generate", "memory"):
        assert plain(cells[name]).strip(), name
        assert cells[name].execution_count, name
    for name in ("train", "eval", "memory"):
        assert "text/html" in types([cells[name]]), name
    for output in outputs(book):
        data = output.get("data", {})
        # A picture beside HTML would never be seen; text stands beside everything.
        assert not ("text/html" in data and {"image/png", "image/svg+xml"} & set(data)), list(data)
        assert not data or data["text/plain"].strip(), list(data)
        assert "\x1b[" not in json.dumps(data), "colours belong to terminals"
    assert f"rank {rank}" in plain(cells["attach-lora"]).lower() or f"r = {rank}" in plain(cells["attach-lora"])
    assert len([output for output in train.outputs if "image/png" in output.get("data", {})]) == 1
    if kernel:
        assert book.metadata["language_info"]["name"] == "loralab"
        assert book.metadata["language_info"]["file_extension"] == ".lora"


def test_nbclient(lesson):
    book = nbformat.read(lesson, as_version=4)
    nbclient.NotebookClient(book, timeout=PATIENCE, kernel_name="loralab").execute()
    check_lesson(book, rank=4)


def test_nbconvert(lesson, tmp_path):
    convert = [sys.executable, "-m", "jupyter", "nbconvert", "--execute", str(lesson), "--output-dir", str(tmp_path)]
    run(*convert, "--to", "notebook", "--output", "done.ipynb")
    check_lesson(nbformat.read(tmp_path / "done.ipynb", as_version=4), rank=4)
    done = [sys.executable, "-m", "jupyter", "nbconvert", str(tmp_path / "done.ipynb"), "--output-dir", str(tmp_path)]
    warnings = run(*done, "--to", "html").stderr
    assert "No lexer" not in warnings, warnings
    assert "<svg" in (tmp_path / "done.html").read_text() or "image/png" in (tmp_path / "done.html").read_text()
    run(*done, "--to", "script")
    assert (tmp_path / "done.lora").read_text().count("load demo") == 1


def test_papermill(lesson, tmp_path):
    out = tmp_path / "out.ipynb"
    run(sys.executable, "-m", "papermill", lesson, out, "-l", "bash", "-p", "rank", "16", "--no-progress-bar")
    book = nbformat.read(out, as_version=4)
    injected = [cell for cell in code_cells(book) if "injected-parameters" in cell.metadata.get("tags", [])]
    assert [cell.source.splitlines()[-1] for cell in injected] == ["rank=16"]
    check_lesson(book, rank=16)


def test_papermill_takes_every_kind_of_value(tmp_path):
    path = tmp_path / "values.ipynb"
    values = {"text": "two words", "whole": 8, "real": 2e-4, "yes": True, "several": [4, 8], "name": "it's"}
    nbformat.write(notebook(*[f"echo ${name}" for name in values], parameters="whole = 1"), path)
    for language, several in (("bash", ["4 8", "(4 8)", "4,8"]), ("julia", ["4 8", "(4 8)", "4,8", "[4, 8]"])):
        papermill.execute_notebook(path, tmp_path / "out.ipynb", values, language=language, progress_bar=False)
        cells = {cell.source: plain(cell).strip() for cell in code_cells(nbformat.read(tmp_path / "out.ipynb", 4))}
        assert cells["echo $text"] == "two words" and cells["echo $whole"] == "8", language
        assert float(cells["echo $real"]) == 2e-4 and cells["echo $yes"] == "true", language
        assert cells["echo $name"] == "it's" and cells["echo $several"] in several, (language, cells)


def test_loralab_run_leaves_what_a_kernel_would(lesson, tmp_path):
    book = nbformat.read(lesson, as_version=4)
    nbclient.NotebookClient(book, timeout=PATIENCE, kernel_name="loralab").execute()
    out = tmp_path / "out.ipynb"
    run(BINARY, "run", lesson, "-p", "rank=16", "-o", out)
    own = nbformat.read(out, as_version=4)
    check_lesson(own, rank=16, kernel=False)
    injected = [cell for cell in code_cells(own) if "injected-parameters" in cell.metadata.get("tags", [])]
    assert len(injected) == 1 and "16" in injected[0].source
    of_kernel = {cell.source: types([cell]) for cell in code_cells(book)}
    of_run = {cell.source: types([cell]) for cell in code_cells(own) if cell not in injected}
    assert of_run == of_kernel


def test_an_error_stops_a_notebook(tmp_path):
    sources = ["echo one", "load /no/such/model", "echo three"]
    book = notebook(*sources)
    with pytest.raises(nbclient.exceptions.CellExecutionError, match="/no/such/model"):
        nbclient.NotebookClient(book, timeout=PATIENCE, kernel_name="loralab").execute()
    own = tmp_path / "own.ipynb"
    nbformat.write(notebook(*sources), tmp_path / "book.ipynb")
    ended = subprocess.run([BINARY, "run", tmp_path / "book.ipynb", "-o", own], capture_output=True, text=True)
    assert ended.returncode == 1
    for done in (book, nbformat.read(own, as_version=4)):
        first, second, third = code_cells(done)
        assert plain(first) == "one\n" and not third.outputs
        (error,) = second.outputs
        assert (error.output_type, error.ename) == ("error", "NotFound")
        assert "/no/such/model" in error.evalue and error.traceback


def test_an_expected_error_does_not_stop_it():
    expected = new_code_cell("load /no/such/model", metadata={"tags": ["raises-exception"]})
    book = notebook("echo one", expected, "echo three")
    nbclient.NotebookClient(book, timeout=PATIENCE, kernel_name="loralab").execute()
    first, second, third = code_cells(book)
    assert second.outputs[0].ename == "NotFound" and plain(third) == "three\n"


def run(*command):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=4 * PATIENCE)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done
