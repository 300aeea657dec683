"""Adapters travel between loralab and PEFT and keep their loss."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file

import peers
from lab import EXACT, GOLDEN, losses, quoted

CASES = ["llama", "llama-untied", "llama3-rope"]

MADE_HERE = {
    "all-linear": "--rank 4 --alpha 8 --targets all-linear",
    "rslora": "--rank 6 --alpha 9 --targets attention --rslora",
    "mlp": "--rank 3 --alpha 2r --targets mlp",
    "regex": r"--rank 4 --alpha 8 --targets '.*\.0\.(self_attn\.[qk]_proj|mlp\.up_proj)'",
    "one layer": "--rank 4 --alpha 8 --targets q_proj,v_proj --layers 1",
    "rank pattern": "--rank 4 --alpha 8 --targets q_proj,down_proj --rank-pattern down_proj=2",
}

MADE_BY_PEFT = {
    "all-linear": dict(r=4, lora_alpha=8, target_modules="all-linear"),
    "rslora": dict(r=6, lora_alpha=9, target_modules=["q_proj", "o_proj"], use_rslora=True),
    "regex": dict(r=4, lora_alpha=8, target_modules=r".*\.1\.mlp\.(gate|up)_proj"),
    "one layer": dict(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], layers_to_transform=[1]),
    "patterns": dict(
        r=4, lora_alpha=8, target_modules=["q_proj", "down_proj"], rank_pattern={"down_proj": 2}, alpha_pattern={"q_proj": 3}
    ),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("flags", MADE_HERE.values(), ids=MADE_HERE)
def test_trained_here_loads_in_peft(case, flags, lab, compare):
    folder = GOLDEN / case
    _, attached, _, here, _ = lab(
        f"load {quoted(folder / 'model')}",
        f"attach-lora a {flags}",
        f"train {quoted(folder / 'train.jsonl')} --steps 8 --batch-size 4 --learning-rate 1e-2",
        f"eval {quoted(folder / 'text.txt')}",
        "save-adapter a saved",
    )
    base = peers.load_model(folder / "model")
    rows = [peers.golden_text(folder)]
    compare.number("loss of the base", losses(here)["base"], peers.mean_loss(base, rows))
    peer = peers.load_adapter(base, lab.folder / "saved")
    compare.apart("base and adapter", losses(here)["base"], losses(here)["a"])
    compare.number("loss with the adapter", losses(here)["a"], peers.mean_loss(peer, rows))
    compare.equal("parameters", attached["trainable_parameters"], count(peer))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("settings", MADE_BY_PEFT.values(), ids=MADE_BY_PEFT)
def test_made_by_peft_loads_here(case, settings, lab, compare):
    folder = GOLDEN / case
    torch.manual_seed(3)
    peer = get_peft_model(peers.load_model(folder / "model"), LoraConfig(task_type="CAUSAL_LM", **settings)).eval()
    for name, parameter in peer.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn(parameter.shape) * 0.1
    peer.save_pretrained(lab.folder / "made")
    check_loads_here(folder, lab.folder / "made", peer, lab, compare)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", ["adapter", "adapter-rslora"])
def test_golden_adapters_load_here(case, name, lab, compare):
    folder = GOLDEN / case
    peer = peers.load_adapter(peers.load_model(folder / "model"), folder / name)
    check_loads_here(folder, folder / name, peer, lab, compare)


def check_loads_here(folder, adapter, peer, lab, compare):
    _, loaded, here, _ = lab(
        f"load {quoted(folder / 'model')}",
        f"load-adapter {quoted(adapter)} --name a",
        f"eval {quoted(folder / 'text.txt')}",
        "save-adapter a again",
    )
    rows = [peers.golden_text(folder)]
    compare.apart("base and adapter", losses(here)["base"], losses(here)["a"])
    compare.number("loss with the adapter", losses(here)["a"], peers.mean_loss(peer, rows))
    compare.equal("parameters", loaded["trainable_parameters"], count(peer))
    tensors = load_file(adapter / "adapter_model.safetensors")
    compare.tensors("saved again", peers.tensors_of(lab.folder / "again"), tensors, tolerance=0)


@peers.on_real_model
def test_real_model(lab, compare):
    text = (peers.TEXTS / "general.txt").read_text(encoding="utf-8")[:1200]
    (lab.folder / "text.txt").write_text(text, encoding="utf-8")
    _, _, _, here, _ = lab(
        f"load {quoted(peers.SMOLLM2)} {EXACT}",
        "attach-lora a --rank 8 --alpha 16 --targets all-linear",
        f"train {quoted(peers.TEXTS / 'devil.train.jsonl')} --steps 6 --batch-size 2 --max-seq-len 96 --learning-rate 5e-3",
        "eval text.txt",
        "save-adapter a saved",
    )
    base = peers.load_model(peers.SMOLLM2)
    rows = [peers.as_tokens(peers.SMOLLM2, text)]
    compare.number("loss of the base", losses(here)["base"], peers.mean_loss(base, rows))
    peer = peers.load_adapter(base, lab.folder / "saved")
    compare.apart("base and adapter", losses(here)["base"], losses(here)["a"])
    compare.number("loss with the adapter", losses(here)["a"], peers.mean_loss(peer, rows))


def count(peer):
    return sum(parameter.numel() for name, parameter in peer.named_parameters() if "lora_" in name)
