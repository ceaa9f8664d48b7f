"""experiments/compute_optimal.py: choosing on val, reading off on test; and the whole of it with runs of a second."""
import itertools
import random

import pytest

from test_experiments import experiment, tiny  # noqa: F401, fixtures
from toys import seed


@pytest.fixture
def module(experiment):  # noqa: F811
    return experiment("compute_optimal")


def test_an_allocation_is_the_best_of_all_that_can_be_paid(module):
    rng = random.Random(seed())
    for _ in range(50):
        tables = [{name: (rng.randint(0, 9), rng.randint(1, 9)) for name in "abcd"} for _ in range(3)]
        most = rng.randint(3, 27)
        total = lambda choice, column: sum(table[name][column] for table, name in zip(tables, choice))
        paid = [choice for choice in itertools.product("abcd", repeat=3) if total(choice, 1) <= most]
        found = module.allocate(tables, most)
        if not paid:
            assert found is None
            continue
        assert total(found, 1) <= most
        assert (total(found, 0), -total(found, 1)) == max((total(choice, 0), -total(choice, 1)) for choice in paid)


def test_bins_hold_equally_many_of_val_and_test_is_cut_at_the_same_places(module):
    val, test = {"difficulty": {"rule": list(range(100))}}, {"difficulty": {"rule": [-5, 19, 20, 99, 200]}}
    on_val, on_test = module.bins_of(val, test, "rule")
    assert [on_val.count(b) for b in range(5)] == [20] * 5 and on_val == sorted(on_val) and on_test == [0, 0, 1, 4, 4]


def results(best):
    """Ten problems, two of each difficulty. cheap solves what is easy, dear what is hard: `best` says from which bin on cheap does."""
    rows = [b for b in range(5) for _ in range(2)]
    answers = {"cheap 1": "".join(str(int(b >= best)) for b in rows), "dear 4": "".join(str(int(b < best)) for b in rows)}
    return {"difficulty": {"rule": rows}, "runs": {name: {"right": right, "tokens": " ".join([name[-1]] * 10)} for name, right in answers.items()}}


def test_who_knows_the_bin_takes_from_each_method_what_it_is_good_at(module):
    """The dear method alone is right in three bins of five, 6 of 10; by bins all ten are right, for less."""
    found = module.choose(results(3), results(3), "rule", 4)
    assert found["single"] == (["dear 4"] * 5, 0.6, 0.6, 4.0)
    assert found["bins"] == (["dear 4"] * 3 + ["cheap 1"] * 2, 1.0, 1.0, pytest.approx((6 * 4 + 4) / 10))


def test_test_has_no_say_in_what_is_chosen(module):
    """Trap 31. On test the cheap method would be right everywhere; what val chose is read off all the same."""
    found = module.choose(results(3), results(0), "rule", 4)
    assert found["single"][0] == ["dear 4"] * 5 and found["single"][2] == 0.0
    assert found["bins"][0] == ["dear 4"] * 3 + ["cheap 1"] * 2 and found["bins"][2] == pytest.approx(0.4)


def test_bins_cost_no_more_than_the_single_method_they_are_compared_with(module):
    """Under 1 token only the cheap one can be paid, in every bin."""
    found = module.choose(results(3), results(3), "rule", 1)
    assert found["single"] == found["bins"] == (["cheap 1"] * 5, 0.4, 0.4, 1.0)


def test_the_experiment_from_end_to_end(tiny, module, monkeypatch):  # noqa: F811
    monkeypatch.setattr(module, "SMALL", ["--cot", "on"])
    monkeypatch.setattr(module, "LARGE", ["--cot", "on", "--n-embd", 64])
    plan = {"seeds": (0,), "problems": 5, "budgets": (60,), "methods": ("best_of_n", "mcts"), "prm": 1, "samples": 4, "larger": True}
    text, panels = tiny("compute_optimal", plan)
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")]
    assert [row[1] for row in rows[1:6]] == ["– (single method)", "the rule, 4 samples", "the judge, 4 samples", "the judge, 4 samples", "by lot"]
    assert [row[0] for row in rows[7:]] == ["| larger, greedy", "| larger, sampled", "| small, single", "| small, bins"]
    assert len(panels) == 1 and {len(row) for row in rows[:6]} == {7}
