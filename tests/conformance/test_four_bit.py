"""Checkpoints in 4 bits travel between loralab and bitsandbytes: the same codes, the same weights, the same loss."""

import bitsandbytes.functional
import pytest
import torch
from transformers import AutoModelForCausalLM

import peers
from lab import EXACT, GOLDEN, losses, quoted

KINDS = [("nf4", True), ("nf4", False), ("fp4", True)]
IDS = ["nf4, double", "nf4", "fp4, double"]
CASES = ["llama", "llama-untied"]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kind, double", KINDS, ids=IDS)
def test_saved_by_bitsandbytes_loads_here(case, kind, double, lab, compare):
    folder = GOLDEN / case
    peers.save_with_bitsandbytes(folder / "model", lab.folder / "saved", kind, double)
    _, here = lab("load saved", f"eval {quoted(folder / 'text.txt')}")
    peer, packed = peers.load_dequantized(lab.folder / "saved")
    rows = [peers.golden_text(folder)]
    there = peers.mean_loss(peer, rows)
    compare.equal("weights in 4 bits", len(packed), 7 * peer.config.num_hidden_layers)
    compare.apart("16 and 4 bits", peers.mean_loss(peers.load_model(folder / "model"), rows), there, least=1e-3)
    compare.number("loss", losses(here)["base"], there)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kind, double", KINDS, ids=IDS)
def test_saved_here_loads_in_bitsandbytes(case, kind, double, lab, compare):
    folder = GOLDEN / case
    flag = "--double-quant" if double else "--no-double-quant"
    _, quantized, here, _ = lab(
        f"load {quoted(folder / 'model')}",
        f"quantize {kind} {flag}",
        f"eval {quoted(folder / 'text.txt')}",
        "merge --save saved",
    )
    check_saved(lab.folder / "saved", folder, losses(here)["base"], compare)
    compare.equal("type", quantized["type"], kind)

    # bitsandbytes' own codes of the same weights. Its table of 8-bit absmax is now and then a level off: that moves no code.
    tensors, dense = peers.tensors_of(lab.folder / "saved"), peers.tensors_of(folder / "model")
    differing = 0
    for name in [name for name in dense if f"{name}.quant_map" in tensors]:
        codes, state = bitsandbytes.functional.quantize_4bit(
            dense[name], blocksize=64, compress_statistics=False, quant_type=kind
        )
        differing += (codes.flatten() != tensors[name].flatten()).sum().item()
        if not double:
            differing += (state.absmax != tensors[f"{name}.absmax"]).sum().item()
    compare.equal("codes that differ from bitsandbytes'", differing, 0)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kind, double", KINDS, ids=IDS)
def test_searched_scales_load_in_bitsandbytes(case, kind, double, lab, compare):
    folder = GOLDEN / case
    flag = "--double-quant" if double else "--no-double-quant"
    plain, searched, here, _ = lab(
        f"load {quoted(folder / 'model')}",
        f"quantize {kind} {flag}",
        f"quantize {kind} {flag} --search",
        f"eval {quoted(folder / 'text.txt')}",
        "merge --save saved",
    )[1:]
    compare.equal("bytes", searched["bytes_after"], plain["bytes_after"])
    check_saved(lab.folder / "saved", folder, losses(here)["base"], compare)

    # The scales are not those of bitsandbytes: fewer than all blocks keep their largest magnitude.
    tensors, dense = peers.tensors_of(lab.folder / "saved"), peers.tensors_of(folder / "model")
    for name in [name for name in dense if f"{name}.quant_map" in tensors]:
        theirs, _ = bitsandbytes.functional.quantize_4bit(
            dense[name], blocksize=64, compress_statistics=double, quant_type=kind
        )
        assert (theirs.flatten() != tensors[name].flatten()).any(), name


@pytest.mark.parametrize("case", CASES)
def test_merged_into_four_bits_loads_in_bitsandbytes(case, lab, compare):
    folder = GOLDEN / case
    *_, merged, here = lab(
        f"load {quoted(folder / 'model')}",
        "quantize nf4",
        f"load-adapter {quoted(folder / 'adapter')} --name a",
        f"merge --into nf4 --data {quoted(folder / 'text.txt')} --save saved",
        f"eval {quoted(folder / 'text.txt')}",
    )
    compare.apart("before and after the merge", merged["loss_before"], merged["loss_after"], least=1e-3)
    compare.number("loss that merge gives", merged["loss_after"], losses(here)["base"])
    check_saved(lab.folder / "saved", folder, losses(here)["base"], compare)


@pytest.mark.parametrize("case", CASES)
def test_adapter_trained_on_four_bits_loads_in_peft(case, lab, compare):
    folder = GOLDEN / case
    peers.save_with_bitsandbytes(folder / "model", lab.folder / "saved", "nf4", True)
    *_, here, _ = lab(
        "load saved",
        "attach-lora a --rank 4 --alpha 8",
        f"train {quoted(folder / 'train.jsonl')} --steps 8 --batch-size 4 --learning-rate 1e-2",
        f"eval {quoted(folder / 'text.txt')}",
        "save-adapter a adapter",
    )
    base, _ = peers.load_dequantized(lab.folder / "saved")
    peer = peers.load_adapter(base, lab.folder / "adapter")
    compare.apart("base and adapter", losses(here)["base"], losses(here)["a"])
    compare.number("loss with the adapter", losses(here)["a"], peers.mean_loss(peer, [peers.golden_text(folder)]))


@peers.on_real_model
def test_real_model(lab, compare):
    text = (peers.TEXTS / "general.txt").read_text(encoding="utf-8")[4000:5200]
    (lab.folder / "text.txt").write_text(text, encoding="utf-8")
    *_, here, _ = lab(
        f"load {quoted(peers.SMOLLM2)} {EXACT} --quantize nf4", "eval text.txt", "merge --into nf4 --save saved"
    )
    peer, packed = peers.load_dequantized(lab.folder / "saved")
    compare.equal("weights in 4 bits", len(packed), 210)
    rows = [peers.as_tokens(peers.SMOLLM2, text)]
    compare.number("loss", losses(here)["base"], peers.mean_loss(peer, rows))


def check_saved(saved, folder, loss, compare):
    """A 4-bit checkpoint made here: in transformers the weights and the loss that it has here."""
    tensors = peers.tensors_of(saved)
    peer, packed = peers.load_dequantized(saved)
    compare.equal("weights in 4 bits", len(packed), 7 * peer.config.num_hidden_layers)
    compare.number("loss", loss, peers.mean_loss(peer, [peers.golden_text(folder)]))

    model = AutoModelForCausalLM.from_pretrained(saved, dtype=torch.float32, device_map="cpu")
    there, states = {}, []
    for name in packed:
        weight = model.get_parameter(name)
        state = weight.quant_state
        states.append(state)
        absmax = state.absmax
        if state.nested:
            outer = state.state2.absmax.repeat_interleave(state.state2.blocksize)[: absmax.numel()]
            absmax = state.state2.code[absmax.long()] * outer + state.offset
        there[name] = peers.from_codes(weight.data, state.code, absmax, state.blocksize, state.shape)
    here = {name: peers.dequantized(tensors, name) for name in packed}
    compare.tensors("weights as bitsandbytes reads them", here, there, tolerance=1e-7)
    if all(state.shape[1] % state.blocksize == 0 for state in states):
        # In training mode bitsandbytes computes in the type it was told to, and correctly where rows are multiples of the block.
        compare.number("loss as bitsandbytes computes it", loss, peers.mean_loss(model.train(), [peers.golden_text(folder)]))
