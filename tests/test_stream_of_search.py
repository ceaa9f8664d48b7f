"""Stream of Search's problems: what can be reached, whose problems they are, what is held out, what a demonstration shows."""
import importlib
import math
import pathlib
import random
from collections import Counter

import pytest
import torch
from toys import seed

import tasks
from tasks.countdown import steps
from tasks.stream_of_search import HELD_OUT, LARGEST, TRAINED, aimed, makes


def everything(numbers, largest):
    """What legal steps make of all numbers, by trying them all."""
    if len(numbers) == 1:
        return {numbers[0]}
    return set().union(*(everything(step[-1], largest) for step in steps(numbers, largest)))


@pytest.mark.parametrize("largest", [99, LARGEST, math.inf])
@pytest.mark.parametrize("count, draws", [(1, 5), (2, 20), (3, 20), (4, 3)])
def test_working_backwards_finds_what_trying_everything_finds(count, draws, largest):
    rng = random.Random(seed())
    for _ in range(draws):
        numbers = tuple(sorted(rng.randint(0 if count < 4 else 1, rng.choice((9, 99))) for _ in range(count)))
        reached = everything(numbers, largest)
        assert [makes(numbers, target, largest) for target in range(120)] == [target in reached for target in range(120)], numbers


def test_the_distribution_is_theirs():
    """Targets are uniform, and given the target the numbers are those that make it, each as often as it is drawn."""
    task, rng = tasks.load("stream_of_search", numbers=3), random.Random(seed())
    problems = [task.sample_problem(rng) for _ in range(1640)]
    counts = Counter(problem.answer for problem in problems)
    assert set(counts) == set(TRAINED) and max(counts.values()) < 20 + 6 * 20 ** 0.5
    assert all(makes(p.key[1:-1], p.answer, math.inf) for p in problems)
    assert {n for p in problems for n in p.key[1:-1]} >= {1, 99}
    # By theirs, numbers first and a uniform target that they make: small numbers are as frequent here as there.
    theirs, small = [], lambda numbers: sum(n <= 20 for n in numbers) / len(numbers)
    while len(theirs) < 1000:
        target, numbers = rng.choice(TRAINED), tuple(sorted(rng.randint(1, 99) for _ in range(3)))
        while not makes(numbers, target, math.inf):
            numbers = tuple(sorted(rng.randint(1, 99) for _ in range(3)))
        theirs.append(small(numbers))
    ours = [small(p.key[1:-1]) for p in problems]
    assert abs(sum(ours) / len(ours) - sum(theirs) / len(theirs)) < 0.07  # five standard errors


def test_what_is_held_out_is_held_out():
    """No numbers of one split occur in another one, up to order, and no held-out target outside of its test."""
    assert len(HELD_OUT) == 9 and len(TRAINED) == 82 and sorted(HELD_OUT + TRAINED) == list(range(10, 101))
    inputs, targets = tasks.load("stream_of_search"), tasks.load("stream_of_search", held_out="targets")
    seen, rng = {}, random.Random(seed())
    for task in (inputs, targets):
        for split in tasks.SPLITS:
            for _ in range(300):
                problem = task.sample_problem(rng, split)
                assert seen.setdefault(problem.key[1:-1], split) == split
                assert (problem.answer in HELD_OUT) == (task is targets and split == "test")


@pytest.mark.parametrize("near", [0, 10])
def test_a_demonstration_is_legal_new_in_each_line_and_ends_as_it_says(near, monkeypatch):
    task, rng = tasks.load("stream_of_search", near=near), random.Random(seed())
    monkeypatch.syspath_prepend(str(pathlib.Path(__file__).parent.parent / "experiments"))
    second_opinion = importlib.import_module("stream_of_search").second_opinion  # shares no code with the rule
    right, solvable, again, gaps = 0, 0, 0, []
    for _ in range(200):
        problem = task.sample_problem(rng)
        text = task.demonstration(problem, rng)
        seen = task.describe(problem, text)
        assert seen["legal"] == seen["attempts"] == seen["correct_marks"] and seen["hits"] == task.own_verdict(text)
        lines = text.split("\n")[:-1]
        assert len(lines) <= task.options.attempts
        again += len(lines) - len(set(lines))
        assert task.verify(problem, text) == second_opinion(problem.prompt, text.split("<answer>")[1].removesuffix("</answer>")) == task.own_verdict(text)
        right += task.verify(problem, text)
        solvable += makes(problem.key[1:-1], problem.answer, LARGEST)
        gaps += [abs(int(line.split(" = ")[-1].split(",")[0]) - problem.answer) for line in lines if line.endswith("failed")]
    assert right == solvable < 200 and again < 20  # few problems have so few attempts that one occurs twice
    assert near == 0 or sum(gap <= near for gap in gaps) > 0.8 * len(gaps)


def test_the_truth_about_a_step():
    task, rng = tasks.load("stream_of_search"), random.Random(seed())
    problem = task.sample_problem(rng)
    while not makes(problem.key[1:-1], problem.answer, LARGEST):
        problem = task.sample_problem(rng)
    first, *_ = aimed(problem.key[1:-1], problem.answer, rng)
    step = "<think>{} {} {} = {}, ".format(*first)
    assert task.still_possible(problem, step)
    assert not task.still_possible(problem, step.replace(f"= {first[3]},", f"= {(first[3] + 1) % LARGEST},"))


def test_kept_demonstrations_are_drawn_once_and_each_step_takes_its_own(tmp_path, monkeypatch):
    """The mask covers a demonstration and its end, never the prompt; smaller batches at the end."""
    monkeypatch.syspath_prepend(pathlib.Path(tasks.__file__).parent.parent / "experiments")
    experiment, task = importlib.import_module("stream_of_search_longer"), tasks.load("stream_of_search")
    plan = experiment.FULL | {"kept": 1000, "batch": 8, "last": 2}
    batch, known = experiment.batches(tmp_path, plan, "cpu", task, 0), {tuple(row) for row in experiment.draw(0).tolist()}
    monkeypatch.setattr(experiment, "draw", lambda number: 1 / 0)  # not again
    again = experiment.batches(tmp_path, plan, "cpu", task, 0)
    (tokens, mask), other = batch(5), experiment.batches(tmp_path, plan, "cpu", task, 1)(5)
    assert torch.equal(tokens, again(5)[0]) and not torch.equal(tokens, other[0]) and not torch.equal(tokens, batch(6)[0])
    assert len(batch(plan["imitation"] - 1)[0]) == 2
    for row, own in zip(tokens, mask):
        assert tuple(row.tolist()) in known
        text = task.tokenizer.decode(row[own].tolist()[:-1])
        assert text.startswith("<think>") and text.endswith("</answer>") and row[own][-1] == task.tokenizer.eos
        assert task.tokenizer.decode(row[:task.max_prompt_tokens].tolist()).endswith(".\n")
