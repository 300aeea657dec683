"""Writes questions.train.jsonl and questions.valid.jsonl: prompts of the demo model's world, each answered with a question.

    python make_questions.py [--train 240] [--valid 60] [--seed 1]

The same seed gives the same bytes. No prompt stands in both files, or twice in one.
"""

import argparse
import json
import sys
from pathlib import Path
from random import Random

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "demo"))

from computed import COMPUTED, exchange  # noqa: E402
from world import World  # noqa: E402


def rows(world, random, count):
    """`count` rows, going round all kinds of exchange so that none of them is missing."""
    makers = [lambda form=form: world.exchange(random, form, "~") for form in world.forms]
    makers += [lambda maker=maker: exchange(random, world, maker, "~") for _, _, maker in COMPUTED]
    prompts, questions = set(), set()
    while True:
        random.shuffle(makers)
        for make in makers:
            if len(prompts) == count:
                return
            prompt, question = make()
            if prompt not in prompts and question not in questions:
                prompts.add(prompt)
                questions.add(question)
                yield {"prompt": prompt, "response": question}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train", type=int, default=240)
    parser.add_argument("--valid", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    every = list(rows(World(), Random(f"questions {options.seed}"), options.train + options.valid))
    for name, part in ("train", every[: options.train]), ("valid", every[options.train :]):
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in part)
        (HERE / f"questions.{name}.jsonl").write_text(text, encoding="utf-8", newline="\n")
        print(f"questions.{name}.jsonl: {len(part)} rows")


if __name__ == "__main__":
    main()
