"""The small world of the demo model: reads `world/*.txt` and turns its forms into sentences.

A file holds tables and forms:

    table animal: name | s | home          the columns; one record a line follows, "-" means "does not apply",
    fox | foxes | in the forest; in a den  "a; b" is a list of which each row takes one item

    form animal.home *3 animal child       a name, a weight, the tables it draws from (the first one's columns need no prefix)
    ? where does {a} live?                 a prompt
    = {a} lives {home}.                    an answer, always a statement
    ~ have you ever seen {a} {home}?       an answer in the form of a question, for notebooks/data

`friend=child` draws a second, different child; `animal=animal@pet` draws the animal with the name of the pet. `{x:a}` puts an
article before x, `{x:s}` its first verb into the third person, `{x:past}` "is" into the past, `{x:my}`, `{x:your}` and `{x:their}` say whose things it speaks of. `[a|b]` is a choice. A line that ends
in `/count` or `/mass` is for foods of that kind alone. A line that uses a "-" is not used for that record.
"""

import re
from functools import partial
from pathlib import Path
from random import Random

FOLDER = Path(__file__).parent / "world"
SLOT = re.compile(r"\{(\w+)(?:\.(\w+))?(?::(\w+))?\}")
CHOICE = re.compile(r"\[([^\[\]]*)\]")
SENTENCE_START = re.compile(r"(^|[.!?] )([a-z])")
# Verbs that stand after "and" in the tables and take the ending of the first one.
SECOND_VERBS = {"look", "help", "mend", "repair"}


def article(noun):
    """ "fox" -> "a fox", "apple" -> "an apple"."""
    return ("an " if noun[0] in "aeiouAEIOU" else "a ") + noun


def third_person(phrase):
    """ "grow food and look after animals" -> "grows food and looks after animals"."""
    words = phrase.split(" ")
    for index, word in enumerate(words):
        if index == 0 or (words[index - 1] == "and" and word in SECOND_VERBS):
            if word.endswith(("s", "sh", "ch", "x", "o")):
                words[index] = word + "es"
            elif word.endswith("y") and word[-2] not in "aeiou":
                words[index] = word[:-1] + "ies"
            else:
                words[index] = word + "s"
    return " ".join(words)


def past(clause):
    """ "it is raining" -> "it was raining"."""
    irregular = {"is": "was", "rains": "rained", "snows": "snowed", "shines": "shone", "blows": "blew"}
    return " ".join(irregular.get(word, word) for word in clause.split(" "))


def owned(owner, phrase):
    """ "wash your hands" -> "wash my hands"."""
    return re.sub(r"\b(its|our|your)\b", owner, phrase)


FILTERS = {"a": article, "s": third_person, "past": past} | {word: partial(owned, word) for word in ("my", "your", "their")}


def capitalise(text):
    """Large letters at the start of each sentence."""
    return SENTENCE_START.sub(lambda found: found[1] + found[2].upper(), text)


def derive(record):
    """Adds what follows from the columns: article, plural, pronouns of food."""
    name = record["name"]
    if "mass" in record:
        mass = record["mass"] == "yes"
        record.setdefault("s", name if mass else name + "s")
        record.update(a=name if mass else article(name), some="some " + record["s"], it="it" if mass else "them")
    record.setdefault("a", article(name))
    record.setdefault("s", name + "s")
    record.setdefault("the", "the " + name)
    return record


class Missing(Exception):
    """A line asks for what its record does not have."""


class Form:
    """A kind of exchange: prompts, answers, and the questions that could stand in the answers' place."""

    def __init__(self, header):
        name, *words = header.split()
        self.name = name
        self.weight = int(words.pop(0)[1:]) if words and words[0].startswith("*") else 1
        self.tables = words
        self.lines = {"?": [], "=": [], "~": []}


class World:
    """All tables and forms."""

    def __init__(self, folder=FOLDER):
        self.tables, self.forms = {}, []
        for path in sorted(folder.glob("*.txt")):
            self.read(path)

    def read(self, path):
        columns = rows = None
        for line in path.read_text(encoding="utf-8").splitlines():
            if not line or line.startswith("#"):
                columns = None
            elif re.match(r"table \w+: ", line):
                name, columns = line[6:].split(": ")
                columns, rows = columns.split(" | "), self.tables.setdefault(name, [])
            elif line.startswith("form "):
                self.forms.append(Form(line[5:]))
            elif columns:
                values = line.split(" | ")
                if len(values) != len(columns):
                    raise ValueError(f"{path.name}: {len(values)} values for {len(columns)} columns: {line}")
                rows.append(derive(dict(zip(columns, values))))
            elif line[:2] in ("? ", "= ", "~ "):
                self.forms[-1].lines[line[0]].append(line[2:])
            else:
                raise ValueError(f"{path.name}: neither a record nor a line of a form: {line}")

    def pick(self, random: Random, table, other_than=()):
        """A record of a table with each list narrowed down to one item."""
        while True:
            record = random.choice(self.tables[table])
            if record["name"] not in other_than:
                return narrow(random, record)

    def bind(self, random: Random, form):
        """Draws the records that a form speaks of: {"animal": {...}, "child": {...}}."""
        bound, used = {}, []
        for word in form.tables:
            alias, _, table = word.partition("=")
            table, _, same = (table or alias).partition("@")
            if same:
                name = bound[same]["name"]
                bound[alias] = narrow(random, next(r for r in self.tables[table] if r["name"] == name))
            else:
                bound[alias] = self.pick(random, table, used)
                used.append(bound[alias]["name"])
        return bound

    def fill(self, random: Random, line, bound):
        """One line of a form as English."""
        main = next(iter(bound.values()), {})
        line, _, condition = line.partition(" /")
        if condition and (main["mass"] == "yes") != (condition == "mass"):
            raise Missing(condition)

        def slot(found):
            first, column, change = found.groups()
            record, column = (bound[first], column) if column else (main, first)
            value = record[column]
            if value == "-":
                raise Missing(column)
            return FILTERS[change](value) if change else value

        text = SLOT.sub(slot, choose(random, line))
        return capitalise(text)

    def exchange(self, random: Random, form, kind="="):
        """A prompt and an answer of a form (`kind` "~": a question for an answer)."""
        while True:
            bound = self.bind(random, form)
            try:
                prompt = self.fill(random, random.choice(form.lines["?"]), bound)
                return prompt, self.fill(random, random.choice(form.lines[kind]), bound)
            except Missing:
                continue


def choose(random, text):
    """Settles every [a|b] of a text."""
    while "[" in text:
        text = CHOICE.sub(lambda found: random.choice(found[1].split("|")), text)
    return text


def narrow(random, record):
    """The record with one item of each list; `adj` is the thing with its colour: "a red ball"."""
    record = {column: random.choice(value.split("; ")) if "; " in value else value for column, value in record.items()}
    if "colour" in record:
        record["adj"] = article(f"{record['colour']} {record['name']}")
    return record
