"""Training gives the numbers of PyTorch's loop: every loss, gradient norm and learning rate, and the weights in the end."""

import json
import random

import pytest

import peers
from lab import GOLDEN, quoted

CASES = ["llama", "llama-untied", "llama3-rope"]
LINEAR = dict(learning_rate=5e-3, schedule="linear", warmup_steps=0, weight_decay=0.0, max_grad_norm=1.0)
COSINE = dict(learning_rate=1e-2, schedule="cosine", warmup_steps=3, weight_decay=0.1, max_grad_norm=0.25)


def ragged_rows(count, seed):
    """Random tokens: rows of 2 to 60, masked at the start and some in between, one in eight scored at its last token alone."""
    draw = random.Random(seed)
    rows = []
    for number in range(count):
        ids = [draw.randrange(256) for _ in range(draw.randint(2, 60))]
        masked = len(ids) - 1 if number % 8 == 0 else draw.randrange(len(ids))
        labels = [peers.IGNORED] * masked + ids[masked:]
        if number % 3 == 0 and len(ids) - masked > 4:
            labels[masked + 1 : masked + 3] = [peers.IGNORED] * 2
        rows.append({"input_ids": ids, "labels": labels})
    return rows


def write_rows(folder, rows):
    (folder / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def flags(**settings):
    return " ".join(f"--{name.replace('_', '-')} {value}" for name, value in settings.items())


def check_run(run, rows, peer, compare):
    losses, norms, rates = peer
    compare.numbers("loss of every step", run["losses"], losses)
    compare.numbers("gradient norm of every step", run["grad_norms"], norms)
    compare.numbers("learning rate of every step", run["learning_rates"], rates, tolerance=1e-9)
    compare.equal("tokens", run["tokens"], sum(len(row["input_ids"]) for row in rows))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("settings", [LINEAR, COSINE], ids=["linear", "cosine"])
def test_lora(case, settings, lab, compare):
    check_lora(GOLDEN / case / "model", GOLDEN / case / "init", peers.load_model, settings, lab, compare)


@pytest.mark.parametrize("case", CASES)
def test_qlora(case, lab, compare):
    peers.save_with_bitsandbytes(GOLDEN / case / "model", lab.folder / "base")
    check_lora(
        lab.folder / "base", GOLDEN / case / "init", lambda base: peers.load_dequantized(base)[0], LINEAR, lab, compare
    )


def check_lora(base, init, load, settings, lab, compare):
    rows = ragged_rows(10 * 3 * 2, seed=21)
    write_rows(lab.folder, rows)
    _, _, run, _ = lab(
        f"load {quoted(base)}",
        f"load-adapter {quoted(init)} --name a",
        f"train rows.jsonl {flags(steps=10, batch_size=3, grad_accum=2, **settings)} --no-shuffle",
        "save-adapter a trained",
    )
    model = peers.load_adapter(load(base), init, is_trainable=True)
    check_run(run, rows, peers.train(model, peers.steps_of(rows, 3, 2), **settings), compare)
    model.save_pretrained(lab.folder / "peer")
    compare.tensors("the adapter", peers.tensors_of(lab.folder / "trained"), peers.tensors_of(lab.folder / "peer"))


def test_epochs_that_end_in_a_smaller_batch(lab, compare):
    folder = GOLDEN / "llama"
    rows = ragged_rows(10, seed=22)
    write_rows(lab.folder, rows)
    _, _, run = lab(
        f"load {quoted(folder / 'model')}",
        f"load-adapter {quoted(folder / 'init')} --name a",
        f"train rows.jsonl {flags(epochs=3, batch_size=4, **COSINE)} --no-shuffle",
    )
    model = peers.load_adapter(peers.load_model(folder / "model"), folder / "init", is_trainable=True)
    compare.equal("steps", run["steps"], 9)
    check_run(run, rows * 3, peers.train(model, peers.steps_of(rows, 4) * 3, **COSINE), compare)


@pytest.mark.parametrize("case", CASES)
def test_full_fine_tuning(case, lab, compare):
    folder = GOLDEN / case
    settings = LINEAR | dict(learning_rate=1e-3)
    rows = ragged_rows(8 * 3 * 2, seed=23)
    write_rows(lab.folder, rows)
    _, run, _ = lab(
        f"load {quoted(folder / 'model')}",
        f"train rows.jsonl --full {flags(steps=8, batch_size=3, grad_accum=2, **settings)} --no-shuffle",
        "merge --save trained",
    )
    model = peers.load_model(folder / "model")
    check_run(run, rows, peers.train(model, peers.steps_of(rows, 3, 2), **settings), compare)
    compare.tensors("the weights", peers.load_model(lab.folder / "trained").state_dict(), model.state_dict())
