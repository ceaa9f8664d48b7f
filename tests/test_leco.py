"""LeCo: scores of steps by hand, the truth about steps, and what is begun again where."""
import importlib
import math
import pathlib
import random

import pytest
import torch

import tasks
from search_context import SearchContext
from toys import Bigram, seed, seeded

ROOT = pathlib.Path(__file__).parent.parent
TASK = tasks.load("countdown", attempts=1)
PROBLEM = TASK.problem((3, 5, 7), 22)
RIGHT = "<think>5 * 3 = 15, 15 + 7 = 22, found\n</think><answer>(5 * 3) + 7</answer>"
DEAD_END = "<think>7 + 5 = 12, 12 + 3 = 15, failed\n</think><answer>(7 + 5) + 3</answer>"
SPOILT = "<think>5 * 3 = 15, 15 + 7 = 22, found\n</think><answer>5 + 7</answer>"


@pytest.fixture
def leco(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "experiments"))
    return importlib.import_module("leco")


def context(*texts, model=None):
    encode = TASK.tokenizer.encode
    model = model or Bigram(torch.zeros(TASK.tokenizer.n_vocab, TASK.tokenizer.n_vocab))
    desk = SearchContext(model, TASK, [PROBLEM] * len(texts), generator=seeded())
    return desk, [encode(PROBLEM.prompt) + encode(text) + [desk.eos] for text in texts]


def test_even_probabilities_have_no_divergence_and_a_doubtful_token_lowers_the_score(leco):
    """Tokens 1, 1, 1, 0.2: mean 0.8, the first three 1, shares 5/16 three times and 1/16: D = ln 4 - H."""
    s, mean, transition, divergence = leco.step_scores([1.0, 1.0, 1.0, 0.2])
    D = 15 / 16 * math.log(5 / 4) + 1 / 16 * math.log(1 / 4)
    assert (mean, transition) == (pytest.approx(0.8), 1.0) and divergence == pytest.approx(math.log(D ** 0.3 + 1))
    assert s == pytest.approx(1.8 - divergence) and leco.step_scores([1.0] * 4)[0] == pytest.approx(2.0) and s < 2


def test_the_false_step_is_the_first_behind_which_nothing_leads_to_the_target(leco):
    """7 + 5 = 12 closes the way to 22; of the spoilt solution every step is sound, and the answer is false; of the right one none."""
    assert [false for _, _, false in leco.steps(*context(RIGHT, DEAD_END, SPOILT))] == [None, 0, 2]


def test_a_step_ends_with_its_comma_and_the_answer_belongs_to_the_last(leco):
    desk, rows = context(RIGHT)
    [(begins, scores, _)] = leco.steps(desk, rows)
    cut = [TASK.tokenizer.decode(rows[0][a:b]) for a, b in zip(begins, [*begins[1:], len(rows[0]) - 1])]
    assert cut == ["<think>5 * 3 = 15, ", "15 + 7 = 22, ", "found\n</think><answer>(5 * 3) + 7</answer>"] and len(scores) == 3


def test_the_truth_about_a_chain_of_squares(leco):
    task = tasks.load("iterated_squaring")
    problem = task.problem(5, 3)
    assert [leco.sound(task, problem, text) for text in ("<think>25, ", "<think>25, 625, ", "<think>25, 626, ")] == [True, True, False]


def test_what_is_kept_is_what_came_before_the_least_confident_step(leco):
    """A Bigram that is sure of everything but of what comes after the first comma: it begins again there, and writes on."""
    encode = TASK.tokenizer.encode
    table = torch.full((TASK.tokenizer.n_vocab,) * 2, -50.0)
    for row in (encode(RIGHT),):
        for a, b in zip(row, row[1:]):
            table[a, b] = 50.0
    desk, rows = context(RIGHT, model=Bigram(table))
    begins, scores, _ = leco.steps(desk, rows)[0]
    worst = leco.least_confident(scores)
    seen = []
    desk.sample = lambda index, heads: seen.append((list(index), heads)) or rows
    leco.again(desk, rows, "leco", 1, random.Random(seed()))
    assert seen == [([0], [rows[0][:begins[worst]]])] and scores[worst][0] == min(s[0] for s in scores)


def test_two_answers_that_agree_are_the_end_and_the_oracle_leaves_right_ones_alone(leco):
    for way, calls in (("again", [[0, 1]]), ("oracle", [[1], [1]])):
        desk, rows = context(RIGHT, DEAD_END)
        seen = []
        desk.sample = lambda index, heads: seen.append(list(index)) or [rows[i] for i in index]
        curve = leco.again(desk, rows, way, 2, random.Random(seed()))
        assert seen == calls and [right for right, _ in curve] == [0.5, 0.5, 0.5]
