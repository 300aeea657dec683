"""Training gives the numbers of PyTorch's loop over PEFT's model: every loss, gradient norm and learning rate, and the adapter."""

import json
import random

import pytest

import peers
from lab import GOLDEN, quoted

SETTINGS = [
    dict(steps=10, batch_size=4, grad_accum=2, learning_rate=5e-3, schedule="linear", warmup_steps=0, weight_decay=0.0, max_grad_norm=1.0),
    dict(steps=10, batch_size=3, grad_accum=2, learning_rate=1e-2, schedule="cosine", warmup_steps=3, weight_decay=0.1, max_grad_norm=0.25),
]


def ragged_rows(count, vocabulary, seed):
    """Random tokens: rows of 2 to 60, some masked at the start, some in between, one in eight scored at its last token alone."""
    draw = random.Random(seed)
    rows = []
    for number in range(count):
        ids = [draw.randrange(vocabulary) for _ in range(draw.randint(2, 60))]
        masked = len(ids) - 1 if number % 8 == 0 else draw.randrange(len(ids))
        labels = [peers.IGNORED] * masked + ids[masked:]
        if number % 3 == 0 and len(ids) - masked > 4:
            labels[masked + 1 : masked + 3] = [peers.IGNORED] * 2
        rows.append({"input_ids": ids, "labels": labels})
    return rows


@pytest.mark.parametrize("case", ["llama", "llama-untied", "llama3-rope"])
@pytest.mark.parametrize("settings", SETTINGS, ids=["linear", "cosine"])
def test_lora_trains_as_in_peft(case, settings, lab, compare):
    folder = GOLDEN / case
    rows = ragged_rows(settings["steps"] * settings["batch_size"] * settings["grad_accum"], 256, seed=len(case))
    (lab.folder / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    flags = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in settings.items())

    _, _, run, _ = lab(
        f"load {quoted(folder / 'model')}",
        f"load-adapter {quoted(folder / 'init')} --name a",
        f"train rows.jsonl {flags} --no-shuffle",
        "save-adapter a trained",
    )
    model = peers.load_adapter(peers.load_model(folder / "model"), folder / "init", is_trainable=True)
    losses, norms, rates = peers.train(model, rows, **settings)
    model.save_pretrained(lab.folder / "peer")

    compare.numbers("loss of every step", run["losses"], losses)
    compare.numbers("gradient norm of every step", run["grad_norms"], norms)
    compare.numbers("learning rate of every step", run["learning_rates"], rates, tolerance=1e-9)
    compare.equal("tokens", run["tokens"], sum(len(row["input_ids"]) for row in rows))
    compare.tensors("the adapter", peers.tensors_of(lab.folder / "trained"), peers.tensors_of(lab.folder / "peer"))
