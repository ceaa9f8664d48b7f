"""Which samples of a teacher a student is shown, in which order, and what it learns from them."""
import importlib
import pathlib
import random

import pytest
import torch

import sample
import train
from plumbing import start
from toys import Sums, coins, seed, seeded, tiny_gpt


@pytest.fixture
def recipe(monkeypatch):
    monkeypatch.syspath_prepend(str(pathlib.Path(__file__).parent.parent / "experiments"))
    return importlib.import_module("distillation_recipe")


def pool():
    """40 samples: every other one is right, long ones please the PRM, and its problem is the easier the later it comes."""
    return [{"name": k, "right": k % 2 == 0, "length": k, "prm": k / 40, "problem": k // 8, "easy": k // 8 / 5} for k in range(40)]


def names(recipe, row, count=6, n=0):
    return [e["name"] for e in recipe.choose(pool(), row, count, random.Random(seed(n)))]


def test_only_one_row_shows_wrong_answers(recipe):
    assert any(k % 2 for k in names(recipe, "any", 40))
    for row in recipe.ROWS[2:-1]:
        assert not any(k % 2 for k in names(recipe, row, 20)), row


def test_each_filter_keeps_its_end_and_mixes_it(recipe):
    assert sorted(names(recipe, "rule, short")) == [0, 2, 4, 6, 8, 10]
    assert sorted(names(recipe, "rule, PRM")) == [28, 30, 32, 34, 36, 38]
    assert sorted(names(recipe, "rule, short of each", 5)) == [0, 8, 16, 24, 32]  # one of each problem
    assert set(names(recipe, "rule, short of each", 7)) > {0, 8, 16, 24, 32}
    assert len({tuple(names(recipe, "rule, short", n=n)) for n in range(5)}) > 1


def test_all_three_leave_out_as_many_by_the_prm_as_by_length_and_begin_with_the_easy_ones(recipe):
    """20 right ones, 6 wanted: the PRM leaves 13, 14 ... 38, and of these the six shortest stay; the easiest problems come last in the pool."""
    chosen = names(recipe, "all three")
    assert sorted(chosen) == [14, 16, 18, 20, 22, 24] and chosen[0] == 24 and chosen[-1] == 14


def test_the_order_is_the_only_thing_that_an_ordered_row_changes(recipe):
    """All 20 right ones, from the problems with share 4/5 down to 0; within a problem the order is drawn."""
    ordered = names(recipe, "rule, order", 20)
    assert [k // 8 for k in ordered] == sorted((k // 8 for k in ordered), reverse=True) and sorted(ordered) == sorted(names(recipe, "rule", 20))


def test_a_sample_is_as_easy_as_its_problem_is_often_solved(recipe):
    """Two problems, 8 samples each. Answer 12 cannot be written in two numbers: share 0."""
    task, model = Sums(), coins()
    problems = [task.problem(1), task.problem(12)]
    rollout = sample.collect(model, task, problems, sample.SamplingConfig(group_size=8), seeded())
    found = recipe.examples(rollout, task)
    share = sum(e["right"] for e in found[:8]) / 8
    assert [e["easy"] for e in found] == pytest.approx([share] * 8 + [0.0] * 8)
    for e, row, n in zip(found, rollout.tokens.tolist(), rollout.lengths.tolist()):
        assert e["ids"] == row[:n] and e["start"] == 1 + 1 and e["length"] == n - 2


def test_what_is_imitated_becomes_likelier_and_the_prompt_is_left_out(recipe):
    from model import make_optimizer
    task, model = Sums(), tiny_gpt(len(Sums.tokenizer.vocabulary), seed=seed())
    rows = [{"ids": [5, 2, 5, 1], "start": 2}, {"ids": [5, 2, 6, 4, 6, 1], "start": 2}]
    tokens = torch.tensor([[5, 2, 6, 4, 6, 1]])
    before = sample.score(model, tokens)[0].detach()
    recipe.imitate(model, task, rows, 10, make_optimizer(model, 3e-3))
    after = sample.score(model, tokens)[0].detach()
    assert after[0, 2:].sum() > before[0, 2:].sum() + 1


TINY = ("--numbers 2 --max-number 9 --cot off --expert-share 0.9 --sft-steps 60 --sft-batch 16 --sft-lr 0.01 --sft-muon-lr 0.02 --device cpu "
        "--test-problems 1 --eval-problems 2").split()


def test_a_cell_and_its_report(recipe, tmp_path, monkeypatch):
    """With runs of seconds. Every row sees as many examples; the report has a line for each."""
    monkeypatch.setattr(start, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(recipe, "SMALL", ["--n-layer", "1", "--n-embd", "32", "--n-head", "2"])

    def trained(folder, name, *flags, steps=None):
        if not (folder / name / "summary.json").exists():
            train.main([*map(str, flags), "--prompts", "4", *TINY, *(["--steps", str(steps)] if steps else []), "--out", str(folder / name)])
        return folder / name

    monkeypatch.setattr(recipe, "train", trained)
    seen, imitate = [], recipe.imitate
    monkeypatch.setattr(recipe, "imitate", lambda model, task, rows, epochs, optimizer: (
        seen.append(len(rows) * epochs), imitate(model, task, rows, epochs, optimizer)))
    plan = {"seeds": (0,), "teacher": 1, "prm": 1, "pool": 32, "examples": 4, "epochs": 2, "problems": 3, "samples": 8}
    text, [panel] = recipe.report(tmp_path, plan, lambda cells: {words: recipe.cell(tmp_path, plan, *map(str, words)) for words in cells})
    assert seen == [8] * 8 + [4, 4] and len(text.splitlines()) == 2 + 2 + len(recipe.ROWS) + 2
    assert "| rule | " in text and len(panel["curves"]["seed 0"][0]) == 11
