"""What transformers, PEFT and bitsandbytes do on the same work, one piece a process. versus starts it; by hand:

    python benches/versus/peer.py train --model DIR --data TOKENS.jsonl --method qlora --dtype bf16 --targets attention

Prints one JSON object. Seconds are of whole steps (forward, backward, clipping, AdamW), `begun` is the time of day at which the first
step began, `peak_bytes` the high-water mark of the process. It is set up as their users set it up: prepare_model_for_kbit_training,
sdpa attention, no key-value cache in training, batches padded to their longest sample. The model never leaves the training mode before
it is trained: bitsandbytes' CPU layers do not train any more once they were evaluated.
"""
import argparse
import json
import os
import time


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", choices=["train", "generate", "quantize", "head", "llama"])
    parser.add_argument("--model", help="a directory in Hugging Face layout; for llama a .gguf file")
    parser.add_argument("--data", help="JSON lines with input_ids and maybe labels")
    parser.add_argument("--method", choices=["qlora", "lora", "full"], default="qlora")
    parser.add_argument("--dtype", choices=["bf16", "fp32"], default="bf16")
    parser.add_argument("--targets", choices=["attention", "all-linear"], default="all-linear")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--prompt", default="")
    parser.add_argument("--tokens", type=int, default=128)
    return parser.parse_args()


def peak_bytes():
    with open("/proc/self/status", encoding="utf-8") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))


def load(a, torch, transformers):
    """The model in the method's type: in NF4 with double quantization for qlora."""
    dtype = {"bf16": torch.bfloat16, "fp32": torch.float32}[a.dtype]
    extra = {}
    if a.method == "qlora":
        extra["device_map"] = "cpu"
        extra["quantization_config"] = transformers.BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype)
    return transformers.AutoModelForCausalLM.from_pretrained(a.model, dtype=dtype, **extra)


def batches(torch, path, size, pad):
    """Batches in the order of the file, each padded to its longest sample; padding is neither attended to nor scored."""
    with open(path, encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    at = 0
    while True:
        some = [rows[(at + i) % len(rows)] for i in range(size)]
        at += size
        longest = max(len(row["input_ids"]) for row in some)

        def filled(values, filler):
            return torch.tensor([value + [filler] * (longest - len(value)) for value in values])

        ids = [row["input_ids"] for row in some]
        yield {
            "input_ids": filled(ids, pad),
            "labels": filled([row.get("labels") or row["input_ids"] for row in some], -100),
            "attention_mask": filled([[1] * len(row) for row in ids], 0),
        }, sum(map(len, ids))


def train(a):
    import torch
    import transformers
    import peft

    model = load(a, torch, transformers)
    if a.method == "qlora":
        model = peft.prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    if a.method != "full":
        targets = ["q_proj", "k_proj", "v_proj", "o_proj"]
        targets += ["gate_proj", "up_proj", "down_proj"] if a.targets == "all-linear" else []
        model = peft.get_peft_model(model, peft.LoraConfig(
            r=a.rank, lora_alpha=2 * a.rank, lora_dropout=0.0, target_modules=targets, task_type="CAUSAL_LM"))
    parameters = [p for p in model.parameters() if p.requires_grad]
    rate = 2e-5 if a.method == "full" else 2e-4
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.0)
    model.train()
    model.config.use_cache = False
    data = batches(torch, a.data, a.batch, model.config.pad_token_id or 0)
    begun, seconds, tokens, losses = time.time(), [], [], []
    for _ in range(a.steps):
        batch, count = next(data)
        start = time.perf_counter()
        loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        seconds.append(time.perf_counter() - start)
        tokens.append(count)
        losses.append(loss.item())
    return {"begun": begun, "seconds": seconds, "tokens": tokens, "losses": losses,
            "trained": sum(p.numel() for p in parameters)}


def generate(a):
    """Tokens a second of greedy decoding: the time of many tokens less that of the first, which reads the prompt."""
    import torch
    import transformers

    model = load(a, torch, transformers).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(a.model)
    ids = tokenizer(a.prompt, return_tensors="pt").input_ids

    def seconds(count):
        start = time.perf_counter()
        with torch.inference_mode():
            model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, min_new_tokens=count,
                           max_new_tokens=count, pad_token_id=0)
        return time.perf_counter() - start

    seconds(2)
    first = min(seconds(1) for _ in range(3))
    return {"rate": (a.tokens - 1) / (min(seconds(a.tokens) for _ in range(2)) - first)}


def llama(a):
    """The same with llama.cpp."""
    import llama_cpp

    model = llama_cpp.Llama(a.model, n_ctx=512, n_threads=os.cpu_count(), verbose=False)
    ids = model.tokenize(a.prompt.encode())
    rates = []
    for _ in range(3):
        model.reset()
        tokens = model.generate(ids, temp=0.0)
        next(tokens)
        start = time.perf_counter()
        for _ in range(a.tokens - 1):
            next(tokens)
        rates.append((a.tokens - 1) / (time.perf_counter() - start))
    return {"rate": max(rates)}


def quantize(_):
    """GB/s of f32 that become NF4 with double quantization."""
    import torch
    from bitsandbytes.functional import quantize_4bit

    matrix = torch.randn(4096, 4096)
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        quantize_4bit(matrix, blocksize=64, compress_statistics=True, quant_type="nf4")
        seconds.append(time.perf_counter() - start)
    return {"rate": matrix.numel() * 4 / sorted(seconds)[2] / 1e9}


def head(a):
    """Rows a second of the loss over a vocabulary of 49,152 and its gradient to 576 features, as transformers computes it: logits in
    the model's type, the loss of them in f32."""
    import torch

    dtype = {"bf16": torch.bfloat16, "fp32": torch.float32}[a.dtype]
    rows, seconds = 512, []
    hidden = torch.randn(rows, 576).to(dtype).requires_grad_()
    weight = (0.02 * torch.randn(49152, 576)).to(dtype)
    targets = torch.arange(rows) * 7919 % 49152
    for _ in range(7):
        hidden.grad = None
        start = time.perf_counter()
        torch.nn.functional.cross_entropy((hidden @ weight.T).float(), targets).backward()
        seconds.append(time.perf_counter() - start)
    return {"rate": rows / sorted(seconds)[3]}


def main():
    a = arguments()
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    work = {"train": train, "generate": generate, "quantize": quantize, "head": head, "llama": llama}[a.work]
    found = work(a)
    print(json.dumps({**found, "peak_bytes": peak_bytes()}))


if __name__ == "__main__":
    main()
