"""The same work in Python: transformers, PEFT, plain PyTorch; f32 on the CPU."""

import json
import os
from pathlib import Path

import pytest
import torch
import transformers
from peft import PeftModel
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

IGNORED = -100

_data = os.environ.get("LORALAB_DEV_DATA")
#: SmolLM2-135M-Instruct in Hugging Face's layout and the folder of real texts; tests that use them carry `on_real_model`.
SMOLLM2 = Path(_data or "") / "smollm2-135m-instruct"
TEXTS = Path(_data or "") / "data"
on_real_model = pytest.mark.skipif(not (_data and SMOLLM2.is_dir()), reason="LORALAB_DEV_DATA names no real model")


def load_model(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def load_adapter(base, folder, **options):
    return PeftModel.from_pretrained(base, str(folder), **options).eval()


def tensors_of(folder):
    """All tensors of a model's or an adapter's folder, by name."""
    return {name: tensor for file in sorted(Path(folder).glob("*.safetensors")) for name, tensor in load_file(file).items()}


def golden_text(folder):
    """A golden case's text, as one row."""
    return as_tokens(folder / "model", (folder / "text.txt").read_text(encoding="utf-8"))


def as_tokens(folder, text):
    """A text as one row that is scored from its second token on."""
    ids = AutoTokenizer.from_pretrained(folder)(text).input_ids
    return {"input_ids": ids, "labels": ids}


def scored(rows):
    return sum(label != IGNORED for row in rows for label in row["labels"][1:])


def loss_sum(model, rows):
    """Sum of the negative log-likelihood, in nats, over the scored tokens of rows that are padded on the right to one batch."""
    length = max(len(row["input_ids"]) for row in rows)

    def batch(values, filler):
        return torch.tensor([list(row) + [filler] * (length - len(row)) for row in values])

    ids = batch([row["input_ids"] for row in rows], 0)
    labels = batch([row["labels"] for row in rows], IGNORED)
    attended = batch([[1] * len(row["input_ids"]) for row in rows], 0)
    logits = model(input_ids=ids, attention_mask=attended).logits.float()
    return cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED, reduction="sum")


@torch.no_grad()
def mean_loss(model, rows):
    """Mean over all scored tokens."""
    return sum(loss_sum(model, [row]).item() for row in rows) / scored(rows)


def steps_of(rows, batch_size, grad_accum=1):
    """The rows in their order as optimizer steps: each a list of batches, each a list of rows."""
    batches = [rows[at : at + batch_size] for at in range(0, len(rows), batch_size)]
    return [batches[at : at + grad_accum] for at in range(0, len(batches), grad_accum)]


def train(model, steps, *, learning_rate, schedule="linear", warmup_steps=0, weight_decay=0.0, max_grad_norm=1.0):
    """PyTorch's loop. A step's loss is the sum over its scored tokens, of all its batches, by their number.

    Returns losses, gradient norms before clipping, learning rates: one a step.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=learning_rate, betas=(0.9, 0.999), eps=1e-8, weight_decay=weight_decay)
    scheduler = transformers.get_scheduler(schedule, optimizer, warmup_steps, len(steps))
    losses, norms, rates = [], [], []
    model.train()
    for batches in steps:
        predictions = sum(scored(batch) for batch in batches)
        total = 0.0
        for batch in batches:
            loss = loss_sum(model, batch) / predictions
            loss.backward()
            total += loss.item()
        norms.append(torch.nn.utils.clip_grad_norm_(trained, max_grad_norm).item())
        losses.append(total)
        rates.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
    model.eval()
    return losses, norms, rates


def save_with_bitsandbytes(source, folder, kind="nf4", double=True):
    """Quantizes the model in `source` as QLoRA does and saves it as transformers does."""
    settings = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type=kind, bnb_4bit_use_double_quant=double, bnb_4bit_compute_dtype=torch.float32
    )
    model = AutoModelForCausalLM.from_pretrained(
        source, dtype=torch.float32, quantization_config=settings, device_map="cpu"
    )
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(source).save_pretrained(folder)


def dequantized(tensors, name):
    """The 4-bit weight `name` of a checkpoint of bitsandbytes, by the definition: a code's level times the absmax of its block.

    Blocks go over the flattened weight, the first value of a byte is in its high nibble. An absmax in 8 bits is itself a level times
    the absmax of its block, plus an offset. Every number is taken from the file.
    """
    key = next(key for key in tensors if key.startswith(f"{name}.quant_state.bitsandbytes__"))
    state = json.loads(bytes(tensors[key].tolist()))
    absmax = tensors[f"{name}.absmax"]
    if f"{name}.nested_absmax" in tensors:
        outer = tensors[f"{name}.nested_absmax"].repeat_interleave(state["nested_blocksize"])[: absmax.numel()]
        absmax = tensors[f"{name}.nested_quant_map"][absmax.long()] * outer + state["nested_offset"]
    return from_codes(tensors[name], tensors[f"{name}.quant_map"], absmax, state["blocksize"], state["shape"])


def from_codes(codes, levels, absmax, block_size, shape):
    codes = codes.flatten()
    size = torch.Size(shape).numel()
    nibbles = torch.stack([codes >> 4, codes & 15], dim=1).flatten().long()[:size]
    return (levels[nibbles] * absmax.repeat_interleave(block_size)[:size]).reshape(shape)


def load_dequantized(folder):
    """The model of a 4-bit checkpoint with plain f32 weights, and the names of those that were in 4 bits.

    bitsandbytes' own arithmetic on the CPU is left out: in evaluation it rounds to bf16, and it goes wrong where rows are no
    multiple of the block.
    """
    tensors = tensors_of(folder)
    packed = [name.removesuffix(".quant_map") for name in tensors if name.endswith(".quant_map")]
    packed = [name for name in packed if name in tensors]
    dense = {name: dequantized(tensors, name) for name in packed}
    parts = tuple(f"{name}." for name in packed)
    dense |= {name: t for name, t in tensors.items() if name not in dense and not name.startswith(parts)}
    config = AutoConfig.from_pretrained(folder)
    del config.quantization_config
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    keys = model.load_state_dict(dense, strict=False)
    tied = {"lm_head.weight"} if config.tie_word_embeddings else set()
    assert not keys.unexpected_keys and set(keys.missing_keys) <= tied, keys
    model.tie_weights()
    return model, packed
