"""model_collapse.py, tree_of_thoughts.py, curriculum_of_ones_own.py: their pieces, without running them."""
import importlib
import pathlib
import random
import sys

import pytest
import torch

import tasks
from search_context import SearchContext
from toys import Bigram, chain, seed, seeded, tiny_gpt

sys.path.append(str(pathlib.Path(__file__).parent.parent / "experiments"))
collapse, thoughts, curriculum = map(importlib.import_module, ("model_collapse", "tree_of_thoughts", "curriculum_of_ones_own"))
TASK = tasks.load("countdown", numbers=2, dialogue=0.6)
ENCODE, EOS, V = TASK.tokenizer.encode, TASK.tokenizer.eos, TASK.tokenizer.n_vocab


def test_what_is_imitated_becomes_likelier_and_the_prompt_is_not_imitated():
    policy = Bigram(torch.zeros(V, V))
    policy.blocks = []  # nothing for Muon
    collapse.imitate(policy, [([5, 6, 7, EOS], 2)] * 4, 2, random.Random(seed()), 0)
    chance = policy.table.detach().softmax(-1)
    assert chance[6, 7] > 1 / V and chance[7, EOS] > 1 / V and chance[5, 6] == pytest.approx(1 / V)


def test_verified_samples_are_right_and_as_many_as_were_asked_for():
    """A quarter of the answers of this policy are `1 + 1`, right for one problem of two."""
    problems = [TASK.problem((1, 1), target) for target in (1, 2)]

    class Two(type(TASK)):
        def sample_problem(self, rng, split="train"):
            return rng.choice(problems)

    task = Two(TASK.options)
    policy = Bigram(torch.full((V, V), -50.0))
    answer = [ENCODE(".\n")[0], *ENCODE("<think></think><answer>"), ENCODE("1")[0]]
    for a, b in zip(answer, answer[1:]):
        policy.table.data[a, b] = 50.0
    plus, end = ENCODE(" + ")[0], ENCODE("</answer>")[0]
    policy.table.data[answer[-1], [plus, end]] = 50.0  # "1", "1 + 1", "1 + 1 + 1", ... each half as often as the one before
    policy.table.data[plus, answer[-1]] = policy.table.data[end, EOS] = 50.0
    kept = collapse.own_samples(policy, task, 20, True, random.Random(seed()), seeded())
    assert len(kept) == 20
    texts = [task.tokenizer.decode(row) for row, _ in kept]
    assert all("make 2" in text and "<answer>1 + 1</answer>" in text for text in texts)
    free = collapse.own_samples(policy, task, 20, False, random.Random(seed()), seeded())
    assert len(free) == 20 and {task.tokenizer.decode(row[:start]) for row, start in free} == {p.prompt for p in problems}


def context_of(policy, problem, **more):
    context = SearchContext(policy, TASK, [problem], generator=seeded(), **more)
    context.pool, context.judge = {0: {}}, policy
    return context


def test_the_thought_that_is_valued_most_is_written_on_first():
    """Two thoughts, 3 + 2 and 3 - 2, of which only the first can be told to reach 5. The right one is taken first; it is right at once."""
    problem = TASK.problem((3, 2), 5)
    policy = Bigram(torch.full((V, V), -50.0))
    one = lambda text: ENCODE(text)[0]

    def follows(a, *bs):
        policy.table.data[a, list(bs)] = 50.0

    follows(one(".\n"), one("<think>")), follows(one("<think>"), one("3")), follows(one("3"), one(" + "), one(" - "))
    follows(one(" + "), one("2")), follows(one(" - "), one("2")), follows(one("2"), one(" = ")), follows(one(" = "), one("5"))
    follows(one("5"), one(", ")), follows(one(", "), one("failed\n"))
    taken = {}
    for name, value in (("truth", thoughts.truth), ("against", lambda c, i, rows: [1 - v for v in thoughts.truth(c, i, rows)])):
        context = context_of(policy, problem)
        solved, pairs = thoughts.think(context, [0], value, {"width": 12, "keep": 1})
        assert solved == {} and sorted(truth for _, truth in pairs) == [0, 1]
        (best,) = [row for row, (_, n) in context.pool[0].items() if n == 1]
        taken[name] = TASK.tokenizer.decode(best)
        assert context.token_cost == [12 * 7 + 1]  # each thought has seven tokens; the one that was taken ends with "failed"
    assert "3 + 2 = 5" in taken["truth"] and "3 - 2 = 5" in taken["against"]


def test_a_thought_that_failed_gives_way_to_the_next_one():
    """value / (1 + n): 1.0, then 0.5 against 0.6."""
    pool = {"a": [1.0, 0], "b": [0.6, 0]}
    policy, problem = tiny_gpt(V, block_size=128), TASK.problem((3, 2), 5)
    context = context_of(policy, problem)
    rows = [ENCODE(problem.prompt + "<think>3 + 2 = 5, "), ENCODE(problem.prompt + "<think>3 - 2 = 1, ")]
    context.pool = {0: {tuple(row): value for row, value in zip(rows, pool.values())}}
    context.sample = lambda index, rows, stop: [list(row) + [stop] for row in rows]
    thoughts.think(context, [0], lambda c, i, rows: [], {"width": 0, "keep": 2})
    assert [n for _, n in context.pool[0].values()] == [1, 1]


def test_a_word_that_is_asked_for_is_paid():
    policy, problem = tiny_gpt(V, block_size=128), TASK.problem((3, 2), 5)
    context = context_of(policy, problem)
    values = thoughts.own(context, [0, 0], [ENCODE(problem.prompt + "<think>3 + 2 = 5, "), ENCODE(problem.prompt + "<think>")])
    assert context.token_cost == [2] and all(0 < value < 1 for value in values)


def test_proposals_are_counted():
    """A policy that is sure of one problem: all valid if it is of the train split, one distinct."""
    rng = random.Random(seed())
    problem = next(p for p in iter(lambda: TASK.sample_problem(rng), None) if len(set(ENCODE(p.prompt))) == len(ENCODE(p.prompt)))
    found = curriculum.proposals(chain(V, *ENCODE("Propose.\n"), *ENCODE(problem.prompt), EOS), TASK, 8)
    assert (found["valid"], found["distinct"], found["most"], found["solvable"]) == (1, 1 / 8, 1, 1)
