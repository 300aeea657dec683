"""Writes the corpus of the demo model: build/corpus.train.jsonl and build/corpus.valid.jsonl, rows {"prompt", "response"}.

    python corpus.py [--rows 76000] [--seed 1] [--out build] [--sample 20]

The same seed gives the same bytes. Held-out prompts do not occur in training.
"""

import argparse
import json
import zlib
from collections import Counter
from pathlib import Path
from random import Random

from computed import COMPUTED, exchange
from world import World

STORIES = 0.25  # share of the rows
AS_TYPED = 0.06  # share of the prompts without the capital letter and the full stop, as people type
COPIES = 3  # how often one row may occur: small talk is small
HELD_OUT = 40  # one in so many of the rare prompts is held out


def rows(world, random, count):
    """`count` pairs of a prompt and a response."""
    stories, talk = [], []
    for form in world.forms:
        chosen = stories if form.name.startswith("story.") else talk
        chosen.append((form.weight, lambda form=form: world.exchange(random, form)))
    talk += [(weight, lambda maker=maker: exchange(random, world, maker)) for _, weight, maker in COMPUTED]
    kinds = [([weight for weight, _ in kind], [make for _, make in kind]) for kind in (stories, talk)]
    seen = Counter()
    while count:
        is_story = random.random() < STORIES
        weights, makers = kinds[0] if is_story else kinds[1]
        prompt, response = random.choices(makers, weights)[0]()
        if random.random() < AS_TYPED:
            prompt = as_typed(prompt)
        seen[prompt, response] += 1
        if seen[prompt, response] <= COPIES:
            count -= 1
            yield prompt, response, is_story


def as_typed(prompt):
    """ "Where does a fox live?" -> "where does a fox live"."""
    if not prompt.startswith("I "):
        prompt = prompt[0].lower() + prompt[1:]
    return prompt.rstrip("?.!")


def write(path, pairs):
    """JSON lines, one object a row."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for prompt, response, _ in pairs:
            file.write(json.dumps({"prompt": prompt, "response": response}, ensure_ascii=False) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=76000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "build")
    parser.add_argument("--sample", type=int, default=0, help="print so many random rows")
    options = parser.parse_args()

    pairs = list(rows(World(), Random(f"corpus {options.seed}"), options.rows))
    times = Counter(prompt for prompt, _, _ in pairs)
    train, valid = [], []
    for pair in pairs:
        held_out = times[pair[0]] <= COPIES and zlib.crc32(pair[0].encode()) % HELD_OUT == 0
        (valid if held_out else train).append(pair)
    options.out.mkdir(parents=True, exist_ok=True)
    write(options.out / "corpus.train.jsonl", train)
    write(options.out / "corpus.valid.jsonl", valid)

    sentences = {s for _, response, _ in pairs for s in response.replace("!", ".").split(". ")}
    size = sum(len(prompt) + len(response) for prompt, response, _ in pairs)
    print(f"rows: {len(train)} to train on, {len(valid)} held out, {size / 1e6:.1f} MB of text")
    print(f"stories: {sum(story for _, _, story in pairs) / len(pairs):.1%}")
    print(f"distinct: {len(times)} prompts, {len({p[:2] for p in pairs})} rows, {len(sentences)} sentences in answers")
    for prompt, response, _ in Random(options.seed).sample(pairs, options.sample):
        print(f"- {prompt}\n  {response}")


if __name__ == "__main__":
    main()
