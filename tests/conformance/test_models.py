"""Models of transformers load in loralab, merged models of loralab load in transformers, and their losses stay."""

import json
import shutil

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

import peers
from lab import EXACT, GOLDEN, losses, quoted
from texts import TEXTS

TEMPLATE = (
    "{% for message in messages %}[{{ message.role }}] {{ message.content }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)

SHAPES = {
    "one kv head": dict(hidden_size=40, intermediate_size=52, num_attention_heads=5, num_key_value_heads=1, head_dim=12),
    "no groups": dict(hidden_size=96, intermediate_size=100, num_attention_heads=3, num_key_value_heads=3, rms_norm_eps=1e-3),
    "long rotary": dict(hidden_size=64, intermediate_size=160, num_attention_heads=8, num_key_value_heads=2, rope_theta=1e6),
}


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_random_llama_loads_here(shape, tied, lab, compare):
    source = GOLDEN / "llama" / "model"
    torch.manual_seed(5)
    settings = dict(vocab_size=259, num_hidden_layers=3, max_position_embeddings=512, tie_word_embeddings=tied)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **settings, **shape), dtype=torch.float32).eval()
    for name, parameter in model.named_parameters():
        parameter.data = torch.randn(parameter.shape) * 0.1 + (1.0 if "norm" in name else 0.0)
    model.tie_weights()
    model.save_pretrained(lab.folder / "made", max_shard_size="100KB")
    AutoTokenizer.from_pretrained(source).save_pretrained(lab.folder / "made")
    assert len(list((lab.folder / "made").glob("*.safetensors"))) > 1

    loaded, here = lab("load made", f"eval {quoted(GOLDEN / 'llama' / 'text.txt')}")
    compare.number("loss, from shards", losses(here)["base"], peers.mean_loss(model, [peers.golden_text(GOLDEN / "llama")]))
    compare.equal("parameters", loaded["parameters"], model.num_parameters())


@pytest.mark.parametrize("kept_in", ["chat_template.jinja", "tokenizer_config.json"])
@pytest.mark.parametrize("case", ["llama", "llama-untied", "llama3-rope"])
def test_merged_loads_in_transformers(case, kept_in, lab, compare):
    source, adapter = lab.folder / "source", GOLDEN / case / "adapter-rslora"
    shutil.copytree(GOLDEN / case / "model", source)
    dress(source, kept_in)
    text = quoted(GOLDEN / case / "text.txt")
    _, _, before, merged, after = lab(
        "load source",
        f"load-adapter {quoted(adapter)} --name a",
        f"eval {text}",
        f"merge --data {text} --save merged",
        f"eval {text}",
    )
    model = peers.load_model(lab.folder / "merged")
    there = peers.mean_loss(model, [peers.golden_text(GOLDEN / case)])
    compare.number("loss of the merged model", losses(after)["base"], there)
    compare.number("loss that merge gives", merged["loss_after"], there)
    compare.number("merged and not merged", losses(after)["base"], losses(before)["a"], tolerance=1e-5)

    peer = peers.load_adapter(peers.load_model(source), adapter).merge_and_unload()
    compare.tensors("weights as PEFT merges them", model.state_dict(), peer.state_dict(), tolerance=1e-6)
    names = {name: (tensor.dtype, tensor.shape) for name, tensor in peers.tensors_of(source).items()}
    kept = {name: (tensor.dtype, tensor.shape) for name, tensor in peers.tensors_of(lab.folder / "merged").items()}
    compare.equal("names, types, shapes", kept, names)
    check_dress(source, lab.folder / "merged", compare)


@peers.on_real_model
def test_real_model_merged(lab, compare):
    text = (peers.TEXTS / "general.txt").read_text(encoding="utf-8")[2000:3200]
    (lab.folder / "text.txt").write_text(text, encoding="utf-8")
    lab(
        f"load {quoted(peers.SMOLLM2)} {EXACT}",
        "attach-lora a --rank 8 --alpha 16 --targets attention",
        f"train {quoted(peers.TEXTS / 'devil.train.jsonl')} --steps 4 --batch-size 2 --max-seq-len 96 --learning-rate 2e-3",
        "save-adapter a adapter",
        "merge --save merged",
    )
    _, here = lab(f"load merged {EXACT}", "eval text.txt")
    there = peers.mean_loss(peers.load_model(lab.folder / "merged"), [peers.as_tokens(peers.SMOLLM2, text)])
    compare.number("loss of the merged model", losses(here)["base"], there)

    saved = peers.tensors_of(lab.folder / "merged")
    compare.equal("type of the source", {str(tensor.dtype) for tensor in saved.values()}, {"torch.bfloat16"})
    peer = peers.load_adapter(peers.load_model(peers.SMOLLM2), lab.folder / "adapter").merge_and_unload().state_dict()
    rounded = {name: peer[name].bfloat16() for name in saved}
    compare.tensors("weights as PEFT merges them, in bf16", saved, rounded, tolerance=1e-4)
    check_dress(peers.SMOLLM2, lab.folder / "merged", compare)


def dress(folder, kept_in):
    """Gives a model's folder a chat template and settings for generation."""
    settings = json.loads((folder / "generation_config.json").read_text())
    settings |= dict(do_sample=True, temperature=0.7, top_p=0.9, repetition_penalty=1.1, eos_token_id=[258, 10], max_new_tokens=33)
    (folder / "generation_config.json").write_text(json.dumps(settings))
    if kept_in.endswith(".jinja"):
        (folder / kept_in).write_text(TEMPLATE)
    else:
        config = json.loads((folder / kept_in).read_text())
        (folder / kept_in).write_text(json.dumps(config | {"chat_template": TEMPLATE}))


def check_dress(source, saved, compare):
    """What travels beside the weights: tokenizer, chat template, settings for generation."""
    before, after = AutoTokenizer.from_pretrained(source), AutoTokenizer.from_pretrained(saved)
    compare.equal("ids of texts", [after(text).input_ids for text in TEXTS], [before(text).input_ids for text in TEXTS])
    compare.equal("special tokens", after.special_tokens_map, before.special_tokens_map)
    conversation = [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "Yes."}]
    rendered = [tokenizer.apply_chat_template(conversation, tokenize=False) for tokenizer in (after, before)]
    compare.equal("chat template", *rendered)
    settings = [GenerationConfig.from_pretrained(folder).to_dict() for folder in (saved, source)]
    compare.equal("settings for generation", *settings)
