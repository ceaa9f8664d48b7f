"""The four serial tasks: true answers, true chains, a strict judge, and splits that do not overlap."""
import random
import re

import pytest

import tasks
from config import InputError
from tasks import split_of
from toys import seed

NAMES = ("modular_addition", "iterated_squaring", "permutation", "circuit")
every_task = pytest.mark.parametrize("name", NAMES)


def draw(task, count, split="train"):
    rng = random.Random(seed())
    return [task.sample_problem(rng, split) for _ in range(count)]


def thinking(completion):
    return completion.removeprefix("<think>").partition("</think>")[0]


# Each chain computed once more, from the text of the problem alone, in another way than the task does it.

def sums(prompt):
    *numbers, m = map(int, re.findall(r"\d+", prompt))
    return [f"{n}: {sum(numbers[:i + 1]) % m}" for i, n in enumerate(numbers)]


def squares(prompt):
    r, k, p = map(int, re.findall(r"\d+", prompt))
    return [str(pow(r, 2**i, p)) for i in range(1, k + 1)]


def words(prompt):
    word, places = re.fullmatch(r"Rearrange (\w+) by(.*)\.\n", prompt).groups()
    steps = []
    for step in places.split(","):
        word = "".join(word[int(place) - 1] for place in step.split())
        steps.append("".join(f" {place}{letter}" for place, letter in zip(step.split(), word)))
    return steps


def gate_values(prompt):
    given, gates = re.fullmatch(r"Given (.*): (.*)\.\n", prompt).groups()
    value, steps = {wire[0]: wire[1] == "1" for wire in given.split()}, []
    for gate in gates.split(", "):
        expression, result = gate.split(" = ")
        words = [str(value.get(word, word)) for word in expression.split()]  # "b or c" -> ["True", "or", "False"]
        value[result] = {"not True": False, "not False": True}.get(" ".join(words), words[0] == "True")
        if "and" in words:
            value[result] = words[0] == words[2] == "True"
        elif "or" in words:
            value[result] = "True" in words
        steps.append(re.sub(r"\b[a-z]\b", lambda match: f"{match[0]}{int(value[match[0]])}", gate))
    return steps


STEPS = {"modular_addition": sums, "iterated_squaring": squares, "permutation": words, "circuit": gate_values}


def last_answer(name, steps):
    last = steps[-1]
    return {"modular_addition": last.split(": ")[-1], "iterated_squaring": last, "permutation": last[2::3],
            "circuit": last[-1]}[name]


# ------------------------------------------------------------------------------------------------------ demonstrations

@every_task
def test_every_demonstration_is_right(name):
    task, rng = tasks.load(name), random.Random(seed())
    assert all(task.verify(p, task.demonstration(p, rng)) for p in draw(task, 500))


@every_task
def test_every_step_of_every_chain_is_right(name):
    task, rng = tasks.load(name, cot="on"), random.Random(seed())
    for problem in draw(task, 500):
        steps = STEPS[name](problem.prompt)
        assert thinking(task.demonstration(problem, rng)) == "".join(step + task.step_token for step in steps)
        assert problem.answer == last_answer(name, steps)


@every_task
def test_the_example_in_the_docstring_is_true(name):
    task = tasks.load(name)
    text = re.sub("(?m)^    ", "", __import__(f"tasks.{name}", fromlist=["_"]).__doc__)
    prompt, completion = re.search(r"\n(.+\n)(<think>.+</answer>)\n", text).groups()
    steps = STEPS[name](prompt)
    assert completion == ("<think>" + "".join(step + task.step_token for step in steps)
                          + f"</think><answer>{last_answer(name, steps)}</answer>")
    assert task.tokenizer.decode(task.tokenizer.encode(prompt + completion)) == prompt + completion


@every_task
@pytest.mark.parametrize("options, low, high", [({}, 0.18, 0.32), ({"cot_share": 0.6}, 0.52, 0.68), ({"cot": "on"}, 1, 1),
                                                ({"cot": "off"}, 0, 0), ({"cot_share": 0.0}, 0, 0), ({"cot_share": 1.0}, 1, 1)])
def test_the_share_of_chains_is_as_asked(name, options, low, high):
    task, rng = tasks.load(name, **options), random.Random(seed())
    texts = [task.demonstration(p, rng) for p in draw(task, 1000)]
    low, high = (0.42, 0.58) if not options and name == "modular_addition" else (low, high)  # its default is a half
    assert low <= sum(not text.startswith("<think></think>") for text in texts) / len(texts) <= high


@every_task
@pytest.mark.parametrize("cot", ["on", "off"])
def test_the_token_limits_hold_and_are_reached(name, cot):
    task, rng = tasks.load(name, cot=cot), random.Random(seed())
    prompts, completions = [], []
    for problem in draw(task, 2000):
        text = task.demonstration(problem, rng)
        prompt, completion = task.tokenizer.encode(problem.prompt), task.tokenizer.encode(text)
        assert task.tokenizer.decode(prompt + completion) == problem.prompt + text
        prompts.append(len(prompt))
        completions.append(len(completion) + 1)  # EOS
    assert max(prompts) == task.max_prompt_tokens and max(completions) == task.max_new_tokens
    assert min(completions) >= task.min_new_tokens
    if cot == "off":
        assert min(completions) == task.min_new_tokens


@every_task
def test_a_step_ends_in_the_step_token(name):
    task = tasks.load(name)
    token, = task.tokenizer.encode(task.step_token)
    for problem in draw(task, 50):
        ids = task.tokenizer.encode(task.chain(problem))
        assert ids[-1] == token and ids.count(token) == len(STEPS[name](problem.prompt))


# ---------------------------------------------------------------------------------------------------------- the splits

@every_task
def test_no_key_is_in_two_splits(name):
    task = tasks.load(name)
    train, val, test = ({p.key for p in draw(task, 700, split=split)} for split in ("train", "val", "test"))
    assert not (train & val or train & test or val & test)
    assert all(split_of(key) == "val" for key in val)


@every_task
def test_there_are_at_least_5000_keys(name):
    task, rng = tasks.load(name), random.Random(seed())
    assert len({task.draw(rng).key for _ in range(20_000)}) >= 5000


@every_task
def test_one_key_has_one_answer(name):
    # Few and small problems, so that keys meet: two prompts of one key must ask for the same thing.
    small = {"modular_addition": dict(m=5, max_k=4), "iterated_squaring": dict(p=23), "permutation": dict(n=3, k=3),
             "circuit": dict(inputs=2, gates=2)}[name]
    task, rng, answers = tasks.load(name, **small), random.Random(seed()), {}
    for _ in range(2000):
        problem = task.draw(rng)
        assert answers.setdefault(problem.key, problem.answer) == problem.answer
    assert len(answers) < 1500


def test_the_order_of_the_summands_does_not_make_another_problem():
    task, rng, prompts = tasks.load("modular_addition", m=5, min_k=3, max_k=3), random.Random(seed()), {}
    for _ in range(5000):  # 125 prompts
        problem = task.draw(rng)
        prompts.setdefault(problem.key, set()).add(problem.prompt)
    assert prompts["modular_addition", 5, 1, 2, 2] == {f"Add {n} mod 5.\n" for n in ("1, 2, 2", "2, 1, 2", "2, 2, 1")}


@pytest.mark.parametrize("options", [{}, {"p": 227, "max_k": 6}, {"p": 47, "min_k": 3, "max_k": 3}])
def test_every_squaring_that_a_held_out_problem_needs_is_in_training(options):
    task = tasks.load("iterated_squaring", **options)
    p, ks = task.options.p, range(task.options.min_k, task.options.max_k + 1)
    numbers = lambda r, k: [pow(r, 2**i, p) for i in range(k)]  # what is squared on the way from r
    problems = [(r, k) for r in range(2, p - 1) for k in ks]
    training = {(r, k) for r, k in problems if split_of(task.key(r, k)) == "train"}
    known = {n for r, k in training for n in numbers(r, k)}
    drawn = {problem.key for problem in draw(task, 4000, split="val") + draw(task, 4000, split="test")}
    for r, k in problems:
        if (r, k) not in training:
            assert known.issuperset(numbers(r, k)) or task.key(r, k) not in drawn


def test_a_gate_reads_two_different_wires_that_are_known_and_every_gate_after_the_first_reads_the_one_before():
    for problem in draw(tasks.load("circuit"), 500):
        _, inputs, *gates = problem.key
        for wire, (kind, *operands) in enumerate(gates, start=len(inputs)):
            assert len(set(operands)) == len(operands) == (1 if kind == "not" else 2) and max(operands) < wire
            assert wire == len(inputs) or wire - 1 in operands


# ----------------------------------------------------------------------------------------------------------- the judge

HOSTILE = ["", "<answer>", "</answer><answer>", "<answer></answer>", "<answer> </answer>",
           "<answer>{x}</answer><answer>{x}</answer>",
           "{x}", "<think>{x}</think>", "<think></think><answer>0{x}</answer>", "<answer>+{x}</answer>",
           "<answer>-{x}</answer>",
           "<answer>{x}.0</answer>", "<answer>{x} {x}</answer>", "<answer>{x},</answer>", "<answer>{x}_0</answer>",
           "<answer>\u0663</answer>", "<answer>\uff13</answer>", "<answer>\u00b2</answer>", "<answer>{x}\x00</answer>",
           "<answer>None</answer>", "<answer>__import__('os')</answer>", "<answer>" + "(" * 10_000 + "</answer>",
           "<answer>" + "9" * 10_000 + "</answer>", "<answer><answer>{x}</answer></answer>", "<think>" * 1000, "\ud800"]


@every_task
@pytest.mark.parametrize("number", range(len(HOSTILE)))
def test_a_hostile_text_is_wrong_and_raises_nothing(name, number):
    task = tasks.load(name)
    for problem in draw(task, 3):
        text = HOSTILE[number].replace("{x}", problem.answer)
        assert task.verify(problem, text) is False
        assert task.canonical_answer(text) is None
        assert set(task.describe(problem, text)) == {"chain", "chain_right"}


@every_task
def test_random_texts_raise_nothing_and_only_the_answer_counts(name):
    task, rng = tasks.load(name), random.Random(seed())
    pieces = ["<think>", "</think>", "<answer>", "</answer>", ", ", " ", "0", "1", "7", "a", "e1", " and ", "\n", "é"]
    problem = draw(task, 1)[0]
    for _ in range(2000):
        text = "".join(rng.choices(pieces, k=12))
        assert task.verify(problem, text) is (task.canonical_answer(text) == problem.answer)
        task.describe(problem, text)


@every_task
def test_the_answer_alone_is_judged(name):
    task = tasks.load(name)
    problem = draw(task, 1)[0]
    wrong = next(a for a in sorted(task.answers) if a != problem.answer)
    assert task.verify(problem, f"<think>nonsense</think><answer> {problem.answer} </answer>") is True
    assert task.verify(problem, f"<answer>{problem.answer}</answer>") is True
    assert task.verify(problem, f"<think>{task.chain(problem)}</think><answer>{wrong}</answer>") is False
    assert task.canonical_answer(f"<answer> {problem.answer} </answer>") == problem.answer
    assert task.canonical_answer(f"<answer>{wrong}</answer>") == wrong


@every_task
def test_describe_tells_a_right_chain_from_a_wrong_one(name):
    task = tasks.load(name)
    problem, *more = draw(task, 100)
    other = next(each for each in more if task.chain(each) != task.chain(problem))
    chain, answer = task.chain(problem), f"<answer>{problem.answer}</answer>"
    assert task.describe(problem, f"<think>{chain}</think>{answer}") == {"chain": 1.0, "chain_right": 1.0}
    assert task.describe(problem, f"<think></think>{answer}") == {"chain": 0.0, "chain_right": 0.0}
    assert task.describe(problem, f"<think> </think>{answer}") == {"chain": 0.0, "chain_right": 0.0}
    first, _, rest = chain.partition(task.step_token)
    for wrong in (task.chain(other), rest, first + task.step_token, chain + first + task.step_token, "nonsense"):
        assert task.verify(problem, f"<think>{wrong}</think>{answer}") is True
        assert task.describe(problem, f"<think>{wrong}</think>{answer}") == {"chain": 1.0, "chain_right": 0.0}
        assert not task.steps_hold(problem, f"<think>{wrong}</think>{answer}")
    for fine in (f"<think>{chain}</think>{answer}", f"<think></think>{answer}", answer, f"<think>{first}", f"<think>{chain}</think><answer>"):
        assert task.steps_hold(problem, fine), fine
    for false in (f"<think></think>{chain}{answer}", f"<think></think>{answer}{chain}", f"{chain}<think></think>{answer}",
                  f"<think>{first}{answer}", f"<think>{rest}nonsense"):
        assert not task.steps_hold(problem, false), false


# --------------------------------------------------------------------------------------------------------- the options

@pytest.mark.parametrize("name, options", [("iterated_squaring", dict(min_k=9)), ("modular_addition", dict(min_k=10)),
                                           ("permutation", dict(n=1)), ("circuit", dict(gates=0)),
                                           ("circuit", dict(cot="maybe")), ("permutation", dict(cot_share=1.5))])
def test_options_that_cannot_be_used_are_refused(name, options):
    with pytest.raises(InputError):
        tasks.load(name, **options)
