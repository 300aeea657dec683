"""Exchanges that need arithmetic, order or memory rather than a table: numbers, days, comparisons, little riddles of who has what."""

from world import capitalise, owned

NUMBERS = "zero one two three four five six seven eight nine ten eleven twelve".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = "January February March April May June July August September October November December".split()
GROUPS = {
    "animals that live in the sea": ["a whale", "a dolphin", "a shark", "an octopus", "a crab"],
    "animals that can fly": ["an eagle", "a bee", "a bat", "an owl", "a robin", "a butterfly"],
    "farm animals": ["a cow", "a pig", "a hen", "a sheep", "a goat", "a horse"],
    "animals of the forest": ["a fox", "a bear", "a deer", "a wolf", "an owl", "a squirrel"],
    "pets": ["a cat", "a dog", "a hamster", "a rabbit", "a parrot"],
    "fruits": ["an apple", "a pear", "a plum", "a banana", "a peach", "an orange"],
    "vegetables": ["a carrot", "a potato", "an onion", "a cucumber", "a cabbage", "a tomato"],
    "drinks": ["water", "milk", "tea", "juice", "hot chocolate"],
    "colours": ["red", "blue", "green", "yellow", "orange", "purple", "white"],
    "jobs": ["a baker", "a teacher", "a doctor", "a farmer", "a pilot", "a gardener"],
    "tools": ["a hammer", "a saw", "a spade", "a rake", "a ladder", "a brush"],
    "things in a kitchen": ["a pot", "a spoon", "a fork", "a plate", "an oven", "a cup"],
    "things to wear": ["a hat", "a scarf", "a coat", "a shirt", "shoes", "gloves"],
    "things with wheels": ["a car", "a bus", "a bicycle", "a train", "a tractor"],
    "feelings": ["joy", "anger", "fear", "surprise", "pride", "love"],
    "kinds of weather": ["rain", "snow", "wind", "fog", "sunshine"],
}


def series(items):
    """ "a, b and c"."""
    return ", ".join(items[:-1]) + " and " + items[-1]


def arithmetic(random, world):
    left = random.randint(0, 10)
    if random.random() < 0.6:
        right = random.randint(0, min(10, 12 - left))
        total, sign = left + right, random.choice(["plus", "and"])
    else:
        right = random.randint(0, left)
        total, sign = left - right, "minus"
    task = f"{NUMBERS[left]} {sign} {NUMBERS[right]}"
    prompt = random.choice(["what is {}?", "how much is {}?", "can you tell me what {} is?"]).format(task)
    answer = random.choice(["{task} is {total}.", "that is {total}.", "the answer is {total}."])
    question = random.choice(["how would you count {task} on your fingers?", "what do you think {task} could be?"])
    return prompt, answer.format(task=task, total=NUMBERS[total]), question.format(task=task)


def counting(random, world):
    first = random.randint(0, 6)
    last = random.randint(first + 2, min(12, first + 6))
    if random.random() < 0.5:
        prompt = f"count from {NUMBERS[first]} to {NUMBERS[last]}."
        return prompt, ", ".join(NUMBERS[first : last + 1]) + ".", f"which number comes after {NUMBERS[last]}?"
    number = random.randint(1, 11)
    step, word = random.choice([(1, "after"), (-1, "before")])
    prompt = f"which number comes {word} {NUMBERS[number]}?"
    answer = random.choice(["{0} comes {1} {2}.", "it is {0}."]).format(NUMBERS[number + step], word, NUMBERS[number])
    return prompt, answer, f"can you count up to {NUMBERS[number]} and see?"


def calendar(random, world):
    name, items = random.choice([("day", DAYS), ("month", MONTHS)])
    at = random.randrange(len(items))
    step, word = random.choice([(1, "after"), (-1, "before")])
    prompt = random.choice([f"which {name} comes {word} {items[at]}?", f"what {name} is {word} {items[at]}?"])
    other = items[(at + step) % len(items)]
    answer = random.choice([f"{other} comes {word} {items[at]}.", f"it is {other}.", f"the {name} {word} {items[at]} is {other}."])
    question = random.choice([f"what do you like to do in {items[at]}?" if name == "month" else f"what do you do on {items[at]}?",
                              f"do you know all the {name}s around {items[at]}?"])
    return prompt, answer, question


def naming(random, world):
    group = random.choice(list(GROUPS))
    count = random.choice([2, 3])
    items = random.sample(GROUPS[group], count)
    wordings = ["name {n} {g}.", "tell me {n} {g}.", "can you name {n} {g}?", "I need the names of {n} {g}.", "list {n} {g}."]
    answers = ["{i}.", "here are {n} {g}: {i}.", "I can name {i}.", "{n} {g} are {i}."]
    slots = {"n": NUMBERS[count], "g": group, "i": series(items)}
    question = random.choice([f"which {group} do you know?", f"how many {group} can you name yourself?"])
    return random.choice(wordings).format(**slots), random.choice(answers).format(**slots), question


def bigger(random, world):
    while True:
        one, two = random.sample(world.tables["animal"], 2)
        if abs(int(one["size"]) - int(two["size"])) >= 2:
            break
    big, small = (one, two) if int(one["size"]) > int(two["size"]) else (two, one)
    wordings = [
        (f"which is bigger, {one['a']} or {two['a']}?", [f"{big['a']} is bigger.", f"{big['a']} is bigger than {small['a']}."]),
        (f"which is smaller, {one['a']} or {two['a']}?", [f"{small['a']} is smaller.", f"{small['a']} is smaller than {big['a']}."]),
        (f"is {big['a']} bigger than {small['a']}?", [f"yes, {big['a']} is bigger than {small['a']}.", f"yes, {big['a']} is much bigger."]),
        (f"is {small['a']} bigger than {big['a']}?", [f"no, {small['a']} is smaller than {big['a']}.", f"no, {big['a']} is bigger."]),
    ]
    prompt, answers = random.choice(wordings)
    question = random.choice(["what would you see if {0} stood next to {1}?", "how would you compare {0} and {1}?"])
    return prompt, random.choice(answers), question.format(one["a"], two["a"])


def owning(random, world):
    """Who has what: the answer stands in the prompt and has to be found there."""
    one, two = (world.pick(random, "child") for _ in range(2))
    while two["name"] == one["name"]:
        two = world.pick(random, "child")
    first, second = world.pick(random, "thing"), world.pick(random, "thing")
    while second["name"] == first["name"]:
        second = world.pick(random, "thing")
    told = f"{one['name']} has {first['adj']} and {two['name']} has {second['adj']}."
    child, thing = random.choice([(one, first), (two, second)])
    wordings = [
        (f"who has the {thing['name']}?", [f"{child['name']} has the {thing['name']}.", f"it is {child['name']}.", f"the {thing['name']} belongs to {child['name']}."]),
        (f"what does {child['name']} have?", [f"{child['name']} has {thing['adj']}.", f"{child['they']} has {thing['adj']}."]),
        (f"how does the {thing['name']} look?", [f"the {thing['name']} is {thing['colour']}.", f"it is {thing['colour']}."]),
    ]
    prompt, answers = random.choice(wordings)
    question = random.choice(["what would you do with the {0}?", "why do you think {1} likes the {0}?"])
    return f"{told} {prompt}", random.choice(answers), question.format(thing["name"], child["name"])


def finding(random, world):
    """Where is someone, and with whom: found in the prompt as well."""
    one, two = (world.pick(random, "child") for _ in range(2))
    while two["name"] == one["name"]:
        two = world.pick(random, "child")
    here, there = world.pick(random, "place"), world.pick(random, "place")
    while there["name"] == here["name"]:
        there = world.pick(random, "place")
    child, place = random.choice([(one, here), (two, there)])
    told = f"{one['name']} is {here['at']} and {two['name']} is {there['at']}."
    wordings = [
        (f"where is {child['name']}?", [f"{child['name']} is {place['at']}.", f"{child['they']} is {place['at']}."]),
        (f"who is {place['at']}?", [f"{child['name']} is {place['at']}.", f"it is {child['name']}."]),
        (f"what can {child['name']} see there?", [f"{child['name']} can see {place['see']}.", f"{child['they']} can see {place['see']}."]),
        (f"what can {child['name']} do there?", [f"{child['name']} can {place['do']}.", f"{child['they']} can {place['do']}."]),
    ]
    prompt, answers = random.choice(wordings)
    question = random.choice(["what would you do with {0} {1}?", "why do you think {0} went there?"])
    return f"{told} {prompt}", random.choice(answers), question.format(child["name"], place["at"])


def choosing(random, world):
    """A choice between two things for a purpose."""
    one, two = random.sample(world.tables["tool"], 2)
    while one["use"] == two["use"]:
        one, two = random.sample(world.tables["tool"], 2)
    order = random.sample([one, two], 2)
    prompt = random.choice(["I want to {m}. should I take {x} or {y}?", "what is better to {u}, {x} or {y}?"])
    answer = random.choice(["take {a}. you can {u} with it.", "{a} is better. it helps you to {u}.", "you need {a}."])
    slots = {"u": one["use"], "m": owned("my", one["use"]), "a": one["a"], "x": order[0]["a"], "y": order[1]["a"]}
    question = random.choice(["what do you know about {x} and {y}?", "have you tried to {u} with {x}?"])
    return prompt.format(**slots), answer.format(**slots), question.format(**slots)


# Name, weight, maker. A maker gives (prompt, answer, question).
COMPUTED = [
    ("number.sum", 3, arithmetic),
    ("number.count", 2, counting),
    ("time.calendar", 2, calendar),
    ("list.name", 4, naming),
    ("animal.bigger", 4, bigger),
    ("riddle.owning", 8, owning),
    ("riddle.finding", 8, finding),
    ("riddle.choosing", 4, choosing),
]


def exchange(random, world, maker, kind="="):
    """A prompt and its answer, or with `kind` "~" the question that could stand there."""
    prompt, answer, question = maker(random, world)
    return capitalise(prompt), capitalise(answer if kind == "=" else question)


