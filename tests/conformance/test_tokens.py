"""The tokens a model is trained on, scored on and prompted with are those of transformers.

The ids are not printed for programs, so models stand in for them: tiny and random, with a real tokenizer. A loss over ids that are not
the same, or over other positions, is another loss, and a greedy answer to another prompt is another answer.
"""

import json

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, PreTrainedTokenizerFast

import peers
from lab import EXACT, GOLDEN, losses, quoted
from test_models import TEMPLATE
from texts import TEXTS

REAL = pytest.param("smollm2", marks=peers.on_real_model)
EVERY_TOKENIZER = pytest.mark.parametrize("model", ["bytes", "begin of text", "pieces", REAL], indirect=True)

CONVERSATIONS = [
    [("user", "What is 2 + 2?"), ("assistant", "4.")],
    [("system", "Be brief."), ("user", " Hello \n"), ("assistant", "Hi!\n\nHow are you?"), ("user", "Well…"), ("assistant", "Good.")],
    [("user", "{{ 1 + 1 }} <|im_end|>"), ("assistant", "数学 🙂"), ("user", ""), ("assistant", "def f():\n    pass")],
]


@pytest.fixture
def model(request, tmp_path):
    """A folder `model` with a tokenizer that has a chat template, and random weights."""
    folder = tmp_path / "model"
    if request.param == "smollm2":
        AutoTokenizer.from_pretrained(peers.SMOLLM2).save_pretrained(folder)
        return make_weights(folder)
    tokenizer = AutoTokenizer.from_pretrained(GOLDEN / "llama" / "model")
    if request.param == "pieces":
        tokenizer = pieces()
    if request.param == "begin of text":
        begin = (tokenizer.bos_token, tokenizer.bos_token_id)
        tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{begin[0]} $A", special_tokens=[begin]
        )
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    return make_weights(folder)


def pieces():
    """A tokenizer in the manner of SentencePiece: spaces are letters of the words behind them, unknown letters are bytes."""
    inner = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    inner.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    special = ["<unk>", "<pad>", "<bos>", "<eos>"] + [f"<0x{byte:02X}>" for byte in range(256)]
    # Without a limit to the alphabet, which would choose among equally frequent letters by chance.
    trainer = trainers.BpeTrainer(vocab_size=500, special_tokens=special, show_progress=False)
    inner.train_from_iterator(TEXTS[:5] * 4, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>")


def make_weights(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        tie_word_embeddings=False,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(11)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    for name, parameter in model.named_parameters():
        parameter.data = torch.ones(parameter.shape) if "norm" in name else torch.randn(parameter.shape) * 0.5
    model.save_pretrained(folder)
    return folder


@EVERY_TOKENIZER
def test_texts(model, lab, compare):
    statements = []
    for number, text in enumerate(TEXTS):
        (lab.folder / f"{number}.txt").write_bytes(text.encode())
        statements.append(f"eval {number}.txt")
    _, *results = lab("load model", *statements)
    rows = [peers.as_tokens(model, text) for text in TEXTS]
    peer = peers.load_model(model)
    here = [result["rows"][0] for result in results]
    compare.equal("scored tokens", [row["tokens"] for row in here], [len(row["input_ids"]) - 1 for row in rows])
    compare.numbers("losses", [row["loss"] for row in here], [peers.mean_loss(peer, [row]) for row in rows])


@EVERY_TOKENIZER
def test_windows_of_a_text(model, lab, compare):
    text = "\n".join(TEXTS) * 4
    (lab.folder / "long.txt").write_bytes(text.encode())
    _, here = lab("load model", "eval long.txt --max-seq-len 64")
    ids = peers.as_tokens(model, text)["input_ids"]
    windows = [ids[at : at + 64] for at in range(0, len(ids), 64)]
    rows = [{"input_ids": window, "labels": window} for window in windows if len(window) > 1]
    compare.equal("scored tokens", here["rows"][0]["tokens"], peers.scored(rows))
    compare.number("loss", losses(here)["base"], peers.mean_loss(peers.load_model(model), rows))


@EVERY_TOKENIZER
def test_conversations(model, lab, compare):
    conversations = [[{"role": role, "content": content} for role, content in turns] for turns in CONVERSATIONS]
    write_rows(lab.folder / "talk.jsonl", [{"messages": messages} for messages in conversations])
    pairs = [{"prompt": f"{text}?", "response": f"{text}!"} for text in TEXTS]
    write_rows(lab.folder / "pairs.jsonl", pairs)
    _, talk, prompts, _, run = lab(
        "load model",
        "eval talk.jsonl",
        "eval pairs.jsonl",
        "attach-lora a --rank 2",
        "train pairs.jsonl --epochs 1 --batch-size 4 --no-shuffle",
    )
    peer = peers.load_model(model)
    tokenizer = AutoTokenizer.from_pretrained(model)
    rows = [trained_on_answers(tokenizer, messages) for messages in conversations]
    check_rows("conversations", talk, peer, rows, compare)
    asked = [[{"role": "user", "content": p["prompt"]}, {"role": "assistant", "content": p["response"]}] for p in pairs]
    rows = [trained_on_answers(tokenizer, messages) for messages in asked]
    check_rows("prompts and responses", prompts, peer, rows, compare)
    compare.equal("trained tokens", run["tokens"], sum(len(row["input_ids"]) for row in rows))
    compare.number("loss of the first step", run["losses"][0], peers.mean_loss(peer, rows[:4]))


@EVERY_TOKENIZER
def test_prompts_without_a_template(model, lab, compare):
    pairs = [{"prompt": f"{text}?", "response": f"{text}!"} for text in TEXTS]
    write_rows(lab.folder / "pairs.jsonl", pairs)
    _, here = lab("load model", "eval pairs.jsonl --template none")
    tokenizer = AutoTokenizer.from_pretrained(model)
    rows = []
    for pair in pairs:
        prompt = tokenizer(pair["prompt"]).input_ids
        whole = tokenizer(pair["prompt"] + pair["response"]).input_ids
        # As in `encoded_parts`, but the first part may begin with a begin of text.
        begins = whole[: len(prompt)] == prompt
        answer = whole[len(prompt) :] if begins else encoded(tokenizer, pair["response"])
        answer = [*answer, tokenizer.eos_token_id]
        rows.append({"input_ids": prompt + answer, "labels": [peers.IGNORED] * len(prompt) + answer})
    check_rows("prompts and responses", here, peers.load_model(model), rows, compare)


@EVERY_TOKENIZER
def test_prompts_of_generation(model, lab, compare):
    prompts = ["Where does a fox live?", " spaces  and\nlines ", "数学 🙂 “quotes”"]
    statements = [f'generate """{prompt}""" {flag} --max-tokens 12' for prompt in prompts for flag in ("--chat", "--raw")]
    _, *results = lab("load model", *statements)
    tokenizer, peer = AutoTokenizer.from_pretrained(model), peers.load_model(model)
    here = [result["rows"][0]["text"] for result in results]
    there = []
    for prompt in prompts:
        there.append(answer(peer, tokenizer, rendered(tokenizer, [{"role": "user", "content": prompt}], True)))
        there.append(answer(peer, tokenizer, tokenizer(prompt).input_ids))
    compare.equal("answers", here, there)


@peers.on_real_model
def test_real_model_answers(lab, compare):
    prompts = ["What is the capital of France?", "Write a short sentence about the sea."]
    statements = [f'generate "{prompt}" --chat --max-tokens 20' for prompt in prompts]
    _, *results = lab(f"load {quoted(peers.SMOLLM2)} {EXACT}", *statements)
    tokenizer, peer = AutoTokenizer.from_pretrained(peers.SMOLLM2), peers.load_model(peers.SMOLLM2)
    for prompt, result in zip(prompts, results):
        ids = rendered(tokenizer, [{"role": "user", "content": prompt}], True)
        compare.equal(prompt, result["rows"][0]["text"], answer(peer, tokenizer, ids, 20))


def rendered(tokenizer, messages, generation=False):
    return encoded(tokenizer, template(tokenizer, messages, generation))


def template(tokenizer, messages, generation=False):
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=generation)


def encoded(tokenizer, text):
    return tokenizer(text, add_special_tokens=False).input_ids


def trained_on_answers(tokenizer, messages):
    """A conversation's ids; labels on what the assistant says, from behind its opening to the token that ends its turn."""
    whole, parts, done = template(tokenizer, messages), [], 0
    for number, message in enumerate(messages):
        if message["role"] == "assistant":
            first, last = len(template(tokenizer, messages[:number], True)), len(template(tokenizer, messages[: number + 1]))
            parts += [(whole[done:first], False), (whole[first:last], True)]
            done = last
    parts.append((whole[done:], False))
    row = {"input_ids": [], "labels": []}
    for ids, (_, trained) in zip(encoded_parts(tokenizer, [text for text, _ in parts]), parts):
        end = len(ids) if trained else 0
        while end and ids[end - 1] not in tokenizer.all_special_ids:
            end -= 1
        row["input_ids"] += ids
        row["labels"] += ids[:end] + [peers.IGNORED] * (len(ids) - end)
    return row


def encoded_parts(tokenizer, parts):
    """The ids of each part of a text.

    Where a token would reach over a border every part is encoded by itself, so that a prompt is what it is in generation.
    """
    whole = encoded(tokenizer, "".join(parts))
    starts = [encoded(tokenizer, "".join(parts[:number])) for number in range(len(parts))]
    if any(whole[: len(start)] != start for start in starts):
        return [encoded(tokenizer, part) for part in parts]
    ends = [len(start) for start in starts[1:]] + [len(whole)]
    return [whole[len(start) : end] for start, end in zip(starts, ends)]


def answer(model, tokenizer, prompt, tokens=12):
    ids = torch.tensor([prompt])
    with torch.no_grad():
        out = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=tokens)
    return tokenizer.decode(out[0, len(prompt) :], skip_special_tokens=True)


def check_rows(what, here, peer, rows, compare):
    compare.equal(f"{what}: scored tokens", here["rows"][0]["tokens"], peers.scored(rows))
    compare.number(f"{what}: loss", losses(here)["base"], peers.mean_loss(peer, rows))


def write_rows(path, rows):
    path.write_text("".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows), encoding="utf-8")
