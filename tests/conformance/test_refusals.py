"""Files that ask for more than plain Llama and LoRA either load and give their numbers, or are refused. Never a wrong number."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

import peers
from lab import GOLDEN, losses, quoted

FOLDER = GOLDEN / "llama"
TEXT = quoted(FOLDER / "text.txt")
REFUSALS = {"Unsupported", "Format", "Shape"}

MODELS = {
    "attention bias": ("llama", dict(attention_bias=True)),
    "mlp bias": ("llama", dict(mlp_bias=True)),
    "gelu": ("llama", dict(hidden_act="gelu")),
    "gelu, tanh": ("llama", dict(hidden_act="gelu_pytorch_tanh")),
    "rotary, linear": ("llama", dict(rope_parameters=dict(rope_type="linear", rope_theta=1e4, factor=2.0))),
    "rotary, dynamic": ("llama", dict(rope_parameters=dict(rope_type="dynamic", rope_theta=1e4, factor=2.0), max_position_embeddings=64)),
    "rotary, yarn": (
        "llama",
        dict(rope_parameters=dict(rope_type="yarn", rope_theta=1e4, factor=4.0, original_max_position_embeddings=64)),
    ),
    "sliding window": ("mistral", dict(sliding_window=40)),
    "qwen2": ("qwen2", {}),
    "qwen3": ("qwen3", dict(head_dim=32)),
    "phi3": ("phi3", dict(original_max_position_embeddings=512)),
    "gemma": ("gemma", dict(head_dim=16)),
    "gemma2": ("gemma2", dict(head_dim=16, sliding_window=40)),
    "gpt2": ("gpt2", dict(n_embd=64, n_layer=2, n_head=4)),
    "olmo2": ("olmo2", {}),
    "granite": ("granite", dict(logits_scaling=2.0, residual_multiplier=0.5)),
    "mixtral": ("mixtral", dict(num_local_experts=2, num_experts_per_tok=1)),
}

ADAPTERS = {
    "dora": dict(use_dora=True),
    "lora bias": dict(lora_bias=True),
    "bias": dict(bias="all"),
    "saved modules": dict(modules_to_save=["lm_head"]),
    "embedding": dict(target_modules=["q_proj", "embed_tokens"]),
    "head": dict(target_modules=["q_proj", "lm_head"]),
    "excluded modules": dict(target_modules="all-linear", exclude_modules=["v_proj"]),
    "trained tokens": dict(trainable_token_indices=[1, 2]),
    "replicated layers": dict(layer_replication=[[0, 2], [1, 2]]),
    "pissa": dict(init_lora_weights="pissa"),
    "olora": dict(init_lora_weights="olora"),
}


@pytest.mark.parametrize("kind, settings", MODELS.values(), ids=MODELS)
def test_model(kind, settings, lab, compare):
    sizes = dict(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2)
    tokens = dict(vocab_size=259, pad_token_id=256, bos_token_id=257, eos_token_id=258)
    config = AutoConfig.for_model(kind, **({} if kind == "gpt2" else sizes) | dict(max_position_embeddings=512) | tokens | settings)
    config._attn_implementation = "eager"
    torch.manual_seed(7)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    for name, parameter in model.named_parameters():
        parameter.data = torch.randn(parameter.shape) * 0.1 + (1.0 if "norm" in name or ".ln_" in name else 0.0)
    model.tie_weights()
    model.save_pretrained(lab.folder / "model")
    AutoTokenizer.from_pretrained(FOLDER / "model").save_pretrained(lab.folder / "model")
    peer = AutoModelForCausalLM.from_pretrained(lab.folder / "model", dtype=torch.float32, attn_implementation="eager").eval()
    check(["load model", f"eval {TEXT}"], "base", peers.mean_loss(peer, [peers.golden_text(FOLDER)]), lab, compare)


@pytest.mark.parametrize("settings", ADAPTERS.values(), ids=ADAPTERS)
def test_adapter(settings, lab, compare):
    torch.manual_seed(8)
    config = LoraConfig(task_type="CAUSAL_LM", **dict(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"]) | settings)
    made = get_peft_model(peers.load_model(FOLDER / "model"), config)
    for name, parameter in made.named_parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data + torch.randn(parameter.shape) * 0.1
    made.save_pretrained(lab.folder / "adapter")
    peer = peers.load_adapter(peers.load_model(FOLDER / "model"), lab.folder / "adapter")
    statements = [f"load {quoted(FOLDER / 'model')}", "load-adapter adapter --name a", f"eval {TEXT}"]
    check(statements, "a", peers.mean_loss(peer, [peers.golden_text(FOLDER)]), lab, compare)


def check(statements, adapter, there, lab, compare):
    lines, status = lab.lines(*statements)
    last = lines[-1]
    if last["status"] == "ok":
        compare.number("loss", losses(last["result"])[adapter], there)
        return
    error = last["error"]
    compare.equal("refused", (error["kind"] in REFUSALS, status), (True, 1))
    compare.equal("what is said and advised", [bool(error["message"]), bool(error["hint"])], [True, True])
    compare.note(error["message"])
