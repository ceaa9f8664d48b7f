"""experiments/small.py: a model is made once; a few steps of reinforcement learning do what they say."""
import importlib
import pathlib

import pytest
import torch

import tasks
from toys import seed, tiny_gpt

ROOT = pathlib.Path(__file__).parent.parent


@pytest.fixture
def small(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(ROOT / "experiments"))
    module = importlib.import_module("small")
    monkeypatch.setattr(module, "PLACE", tmp_path)
    return module


@pytest.fixture
def task():
    return tasks.load("countdown", numbers=2, max_number=9, cot="off", attempts=1)


def test_a_model_is_made_once(small, task):
    """The second time its weights and what make returned come from the file."""
    calls = []

    def make(model):
        calls.append(model)
        with torch.no_grad():
            next(model.parameters()).fill_(0.25)
        return [1.5]

    first, made = small.kept("a", task, make, seed(), 1, 16, 32)
    again, read = small.kept("a", task, make, seed(), 1, 16, 32)
    assert len(calls) == 1 and made == read == [1.5]
    assert all(torch.equal(x, y) for x, y in zip(first.state_dict().values(), again.state_dict().values()))
    small.kept("b", task, make, seed(), 1, 16, 32)
    assert len(calls) == 2


def test_reinforcement_begins_at_its_start_and_ends_at_its_steps(small, task):
    start, policy = (tiny_gpt(task.tokenizer.n_vocab, 64, seed=k) for k in (0, 1))
    lines = small.reinforce(task, seed(), start, "grpo", steps=2, prompts=2, group_size=2, lr=0.0)(policy)
    assert len(lines) == 2 and lines[1]["tokens"] > lines[0]["tokens"] > 0
    assert all(torch.equal(x, y) for x, y in zip(start.state_dict().values(), policy.state_dict().values()))  # nothing is learned at rate 0


def test_a_budget_of_tokens_ends_it(small, task):
    policy = tiny_gpt(task.tokenizer.n_vocab, 64)
    lines = small.reinforce(task, seed(), tiny_gpt(task.tokenizer.n_vocab, 64), tokens=50, prompts=2, group_size=2, lr=0.0)(policy)
    assert lines[-1]["tokens"] >= 50 > ([0] + [line["tokens"] for line in lines])[-2]


def test_given_problems_and_a_look(small, task):
    """Every prompt is the given one; what look returns stands in the lines; the offset is in the rewards and not in the accuracy."""
    import random
    only, seen = task.sample_problem(random.Random(seed())), []

    def look(rollout, right):
        seen.extend(problem.key for problem in rollout.problems)
        return {"rows": len(right)}

    policy = tiny_gpt(task.tokenizer.n_vocab, 64)
    lines = small.reinforce(task, seed(), policy, "nsr", steps=1, offset=1.0, problems=[only], look=look, prompts=3, group_size=2,
                            keep=("groups_with_variance", "unknown"))(policy)
    assert 0 <= lines[0]["groups_with_variance"] <= 1 and "unknown" not in lines[0]
    assert set(seen) == {only.key} and lines[0]["rows"] == 6 and lines[0]["accuracy"] <= 1


def test_with_an_offset_of_one_right_answers_alone_teach():
    """gap.py: A = r - 1 with rewards 1 + right is 1 for a right answer and 0 for a wrong one."""
    from grpo import group_advantages
    right = torch.tensor([1.0, 0.0])
    assert group_advantages(right + 1, 2, baseline="one").tolist() == [1.0, 0.0]
    assert group_advantages(right, 2, baseline="one").tolist() == [0.0, -1.0]
    assert group_advantages(right, 2, baseline="one", right_weight=1.0).tolist() == [1.0, -1.0]


def test_the_example_of_a_band_holds(small):
    import doctest
    assert doctest.testmod(small).attempted > 0 and doctest.testmod(small).failed == 0
