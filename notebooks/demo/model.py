"""Makes the untrained demo model out of the corpus: build/start, a Llama of 2.5 million parameters in Hugging Face's layout.

    python model.py [--seed 1] [--out build]

A byte-level BPE tokenizer of 768 entries is trained on the corpus; the weights are random. The same corpus and seed give the same
bytes. Beside it goes build/corpus.tokens.jsonl: the training rows as the chat template renders them, as {"input_ids"}, for a
training in which the prompts are scored as well. A model that has learned to ask is easier to teach to answer with a question.
"""

import argparse
import json
from pathlib import Path

import numpy
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

END, USER, ASSISTANT, PAD = SPECIALS = ["<|endoftext|>", "<|user|>", "<|assistant|>", "<|pad|>"]
TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}<|assistant|>{{ message['content'] }}<|endoftext|>"
    "{% else %}<|user|>{{ message['content'] }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 0,
    "dtype": "float32",
    "eos_token_id": 0,
    "head_dim": 32,
    "hidden_act": "silu",
    "hidden_size": 192,
    "initializer_range": 0.02,
    "intermediate_size": 512,
    "max_position_embeddings": 512,
    "mlp_bias": False,
    "model_type": "llama",
    "num_attention_heads": 6,
    "num_hidden_layers": 6,
    "num_key_value_heads": 2,
    "pad_token_id": 3,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
    "torch_dtype": "float32",
    "use_cache": True,
    "vocab_size": 768,
}


def read_rows(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def train_tokenizer(rows):
    """Byte-level BPE; the special tokens come first, so <|endoftext|> is 0."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=CONFIG["vocab_size"],
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in SPECIALS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator((text for row in rows for text in (row["prompt"], row["response"])), trainer)
    return tokenizer


def random_weights(seed):
    """normal(0, 0.02); what writes into the residual stream is divided by sqrt(2 layers), as in GPT-2. Norms are ones."""
    generator = numpy.random.Generator(numpy.random.PCG64(seed))
    width, inner, layers = CONFIG["hidden_size"], CONFIG["intermediate_size"], CONFIG["num_hidden_layers"]
    queries = CONFIG["num_attention_heads"] * CONFIG["head_dim"]
    keys = CONFIG["num_key_value_heads"] * CONFIG["head_dim"]
    deviation = CONFIG["initializer_range"]
    residual = deviation / (2 * layers) ** 0.5

    def normal(rows, columns, scale=deviation):
        return (generator.standard_normal((rows, columns)) * scale).astype(numpy.float32)

    ones = numpy.ones(width, numpy.float32)
    weights = {"model.embed_tokens.weight": normal(CONFIG["vocab_size"], width)}
    for layer in range(layers):
        name = f"model.layers.{layer}"
        weights |= {
            f"{name}.input_layernorm.weight": ones.copy(),
            f"{name}.self_attn.q_proj.weight": normal(queries, width),
            f"{name}.self_attn.k_proj.weight": normal(keys, width),
            f"{name}.self_attn.v_proj.weight": normal(keys, width),
            f"{name}.self_attn.o_proj.weight": normal(width, queries, residual),
            f"{name}.post_attention_layernorm.weight": ones.copy(),
            f"{name}.mlp.gate_proj.weight": normal(inner, width),
            f"{name}.mlp.up_proj.weight": normal(inner, width),
            f"{name}.mlp.down_proj.weight": normal(width, inner, residual),
        }
    return weights | {"model.norm.weight": ones}


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8", newline="\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "build")
    options = parser.parse_args()
    rows = read_rows(options.out / "corpus.train.jsonl")
    start = options.out / "start"
    start.mkdir(parents=True, exist_ok=True)

    tokenizer = train_tokenizer(rows)
    tokenizer.save(str(start / "tokenizer.json"))
    write_json(
        start / "tokenizer_config.json",
        {
            "add_bos_token": False,
            "add_prefix_space": False,
            "bos_token": END,
            "chat_template": TEMPLATE,
            "clean_up_tokenization_spaces": False,
            "eos_token": END,
            "model_max_length": CONFIG["max_position_embeddings"],
            "pad_token": PAD,
            "tokenizer_class": "PreTrainedTokenizerFast",
        },
    )
    write_json(start / "config.json", CONFIG)
    write_json(start / "generation_config.json", {"bos_token_id": 0, "eos_token_id": 0, "max_new_tokens": 128, "pad_token_id": 3})
    weights = random_weights(options.seed)
    save_file(weights, str(start / "model.safetensors"), metadata={"format": "pt"})

    lengths = []
    with (options.out / "corpus.tokens.jsonl").open("w", encoding="utf-8", newline="\n") as file:
        for row in rows:
            ids = tokenizer.encode(f"{USER}{row['prompt']}{ASSISTANT}{row['response']}{END}").ids
            lengths.append(len(ids))
            file.write(json.dumps({"input_ids": ids}) + "\n")
    lengths.sort()
    print(f"parameters: {sum(weight.size for weight in weights.values()):,}")
    print(f"vocabulary: {tokenizer.get_vocab_size()}")
    print(f"tokens: {sum(lengths):,} in {len(lengths):,} rows")
    print(f"tokens a row: mean {sum(lengths) / len(lengths):.1f}, median {lengths[len(lengths) // 2]}, longest {lengths[-1]}")


if __name__ == "__main__":
    main()
