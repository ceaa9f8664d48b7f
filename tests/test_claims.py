"""The arithmetic of before_and_after.py, echo_chamber.py, gap.py, memorise.py, never_solved.py, noisy_chains.py and wrong_answers.py."""
import doctest
import importlib
import json
import pathlib
import random

import pytest

import tasks
from toys import seed

ROOT = pathlib.Path(__file__).parent.parent
NAMES = ("before_and_after", "echo_chamber", "gap", "memorise", "never_solved", "noisy_chains", "wrong_answers")


@pytest.fixture
def experiment(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "experiments"))
    return importlib.import_module


@pytest.mark.parametrize("name", NAMES)
def test_the_examples_in_its_docstrings_hold(experiment, name):
    result = doctest.testmod(experiment(name))
    assert result.failed == 0 and result.attempted > 0


# ---- before_and_after.py

@pytest.fixture
def countdown():
    task = tasks.load("countdown", max_number=9)
    return task, task.problem([6, 8, 5], 34)


def test_going_on_going_back_and_giving_up_are_told_apart(experiment, countdown):
    habits = experiment("before_and_after").habits
    back = "<think>8 * 5 = 40, 40 + 6 = 46, failed\n8 * 5 = 40, 40 - 6 = 34, found\n</think><answer>(8 * 5) - 6</answer>"
    seen = habits(*countdown, back)
    assert (seen["attempts"], seen["failed"], seen["again"], seen["back"], seen["same"], seen["marks"]) == (2, 1, 1, 1, 0, 2)
    assert (seen["right"], seen["rescued"]) == (1, 1)
    gave_up = habits(*countdown, "<think>8 + 5 = 13, 13 + 6 = 19, failed\n</think><answer>(8 + 5) + 6</answer>")
    assert (gave_up["failed"], gave_up["again"], gave_up["right"]) == (1, 0, 0)
    cut = habits(*countdown, "<think>8 + 5 = 13, 13 + 6 = 19, failed\n8 + 6 = ")  # another one began, and was not completed
    assert (cut["attempts"], cut["again"], cut["complete"]) == (1, 1, 0)


def test_a_mark_is_checked_against_the_truth(experiment, countdown):
    wrong = "<think>8 * 5 = 40, 40 - 6 = 34, failed\n8 + 5 = 13, 13 + 6 = 19, found\n</think>"
    seen = experiment("before_and_after").habits(*countdown, wrong)
    assert seen["marks"] == 0 and seen["attempts"] == 2 and seen["again"] == 1


def test_shares_are_over_what_could_have_happened(experiment):
    """Two completions: three attempts, two of them failed, one followed by a complete one that is the same."""
    none = dict.fromkeys(("attempts", "marks", "failed", "again", "complete", "back", "same", "right", "rescued"), 0)
    shares = experiment("before_and_after").shares([none | {"attempts": 2, "marks": 2, "failed": 1, "again": 1, "complete": 1, "back": 1, "same": 1},
                                                    none | {"attempts": 1, "marks": 0, "failed": 1}])
    assert shares == {"attempts": 1.5, "marks": 2 / 3, "again": 0.5, "back": 1.0, "same": 1.0, "rescued": 0.0}


def test_the_variance_within_problems_is_estimated_without_bias(experiment):
    """All problems have p = 1/2: the share is 1, whatever n. Problems at 0 and 1: it is 0."""
    rng, module = random.Random(seed()), experiment("before_and_after")
    right = [sum(rng.random() < 0.5 for _ in range(8)) for _ in range(4000)]
    assert module.within(right, 8)[0] == pytest.approx(1, abs=0.03)
    assert module.within([0] * 5 + [8] * 5, 8) == (0.0, 0.5, 0.5)


# ---- gap.py and wrong_answers.py

def test_pass_at_k_of_a_cell_is_the_mean_over_problems(experiment):
    assert experiment("gap").pass_at({"right": [0, 1, 4]}, 4, 2) == pytest.approx((0 + 0.5 + 1) / 3)


def test_noise_is_what_the_warm_starts_and_the_methods_leave(experiment):
    """Equal methods with independent residuals of 0.1: s comes out, and the expected range of two means over n seeds is 2 s / sqrt(pi n)."""
    rng, noise = random.Random(seed()), experiment("gap").noise
    column = [rng.gauss(0, 5.0) for _ in range(500)]  # what the seeds have in common does not count
    s, expected = noise({name: [c + rng.gauss(0, 0.1) for c in column] for name in "ab"})
    assert s == pytest.approx(0.1, rel=0.15) and expected == pytest.approx(2 * s / (3.14159 * 500) ** 0.5, rel=0.05)
    assert noise({"a": [0.1], "b": [0.2]}) == (None, None)


def test_a_rate_is_chosen_on_val_with_the_first_seed(experiment):
    """On test the other rate would look better: it is never asked."""
    asked = []

    def get(cells):
        asked.extend(cells)
        return {(name, lr, s, split): {"right": [8 if (lr == "2") == (split == "val") else 0], "entropy": 0.1} for name, lr, s, split in cells}

    plan = {"seeds": (3, 4), "methods": ("grpo", "nsr"), "rates": ("1", "2"), "n": 8, "problems": 1, "tokens": 10}
    for name in ("gap", "wrong_answers"):
        asked.clear()
        text, panels = experiment(name).report(None, plan, get)
        assert {(lr, s) for n, lr, s, split in asked if split == "val"} == {("1", 3), ("2", 3)}
        assert {lr for n, lr, s, split in asked if split == "test" and n != "warm start"} == {"2"}
        assert "1: 0.000, **2: 1.000**" in text and len(panels) == 1


# ---- echo_chamber.py

def test_every_format_is_known_again(experiment):
    module, rng = experiment("echo_chamber"), random.Random(seed())
    for name in ("direct", "halves", "full", "twin"):
        task = module.make_task((name,))
        problem = task.sample_problem(rng)
        text = task.demonstration(problem, rng)
        assert module.format_of(text, problem.key[-1]) == name and task.verify(problem, text)
        assert task.tokenizer.decode(task.tokenizer.encode(text)) == text
        assert len(task.tokenizer.encode(text)) + 1 <= task.max_new_tokens and task.describe(problem, text) == {name: 1.0}
    for neither in ("<think>25, 90; </think>", "<think>25, 90, 75, </think>", "<think>25; 90; </think>", "<think>25, 90, "):
        assert module.format_of(neither, 4) is None


# ---- memorise.py

def test_the_three_questions_are_what_they_say(experiment):
    asked = experiment("memorise").asked
    sizes = {name: [p.key[1:-1] for p in asked(name, 5)[1]] for name in ("trained", "numbers", "four")}
    assert all(len(n) == 3 and max(n) <= 9 for n in sizes["trained"])
    assert all(len(n) == 3 and 9 < max(n) <= 13 for n in sizes["numbers"]) and len(sizes["numbers"]) == 5
    assert all(len(n) == 4 and max(n) <= 9 for n in sizes["four"])


def test_the_solver_is_always_right_and_a_few_are_a_few(experiment):
    rng, solver = random.Random(seed()), experiment("memorise").solver
    task = solver(3, seed())
    problems = [task.sample_problem(rng, "train") for _ in range(60)]
    assert len({p.key for p in problems}) <= 3 and all(task.verify(p, task.demonstration(p, rng)) for p in problems)
    assert len({solver(0, seed()).sample_problem(rng, "train").key for _ in range(60)}) > 10


def test_a_broad_teacher_shows_all_kinds(experiment):
    rng, module = random.Random(seed()), experiment("memorise")
    task = module.teacher_of(module.broad(module.FULL)["kinds"])
    problems = [task.sample_problem(rng, "train") for _ in range(60)]
    assert {len(p.key) for p in problems} == {5, 6} and any(max(p.key[1:-1]) > 9 for p in problems)
    assert all(task.demonstration(p, rng).endswith("</answer>") for p in problems)


# ---- noisy_chains.py

def test_a_static_error_stands_by_itself_and_a_dynamic_one_is_carried_on(experiment):
    """With q = 1 every square is false: static, never the true one; dynamic, every step false by itself. With q = 0 there is one chain."""
    module, rng, true = experiment("noisy_chains"), random.Random(seed()), [25, 90, 75, 61]
    assert module.corrupted(5, 4, 107, "static", 0.0, rng) == module.corrupted(5, 4, 107, "dynamic", 0.0, rng) == true
    for _ in range(100):
        assert all(a != b for a, b in zip(module.corrupted(5, 4, 107, "static", 1.0, rng), true))
        chain = "".join(f"{n}, " for n in module.corrupted(5, 4, 107, "dynamic", 1.0, rng))
        assert module.step_errors(chain, 5, 107) == (4, 4)


@pytest.mark.parametrize("kind", ["static", "dynamic"])
def test_how_often_a_noisy_demonstration_is_right(experiment, kind):
    """Static: always. Dynamic, two steps: both are right, 0.8^2, but for one slip in a hundred that the next one undoes; false steps at the
    rate q. Static, each judged from the one before: the second is false if one of the two is."""
    module, rng, q = experiment("noisy_chains"), random.Random(seed()), 0.2
    task = module.make_task(kind, q)
    problem = task.problem(5, 2)
    texts = [task.demonstration(problem, rng) for _ in range(3000)]
    share = sum(task.verify(problem, text) for text in texts) / len(texts)
    assert share == pytest.approx(0.64 if kind == "dynamic" else 1.0, abs=0.03)
    false, steps = map(sum, zip(*(module.step_errors(text, 5, 107) for text in texts)))
    assert false / steps == pytest.approx(q if kind == "dynamic" else (q + 0.36) / 2, abs=0.02)


# ---- whole experiments, with runs of a second

TINY = {
    "before_and_after": {"seeds": (0,), "problems": 2, "n": 2, "settings": ("thinking", "direct"), "thinking": (1, 1, 1e-3),
                         "direct": (1, 1, 1e-3)},
    "never_solved": {"seeds": (0,), "worlds": {"three": ({"max_number": 9}, 1, 3, 2, 1, 1e-3)}},
    "echo_chamber": {"seeds": (0,), "worlds": ("three", "twins"), "sizes": ("small",), "sft": 1, "steps": 1, "prompts": 2,
                     "problems": 2, "n": 2},
    "gap": {"seeds": (0, 1), "task": {"max_number": 9}, "sft": 1, "tokens": 20, "problems": 2, "n": 8, "rates": ("3e-4",),
            "methods": ("grpo", "ppo", "star")},
    "memorise": {"seeds": (0,), "thinking": (1, 1, 1e-3), "problems": 2, "n": 2, "few": 2, "kinds": ("trained", "four")},
    "noisy_chains": {"seeds": (0,), "rates": (0.0, 0.2), "kinds": ("static", "dynamic"), "sft": 1, "steps": 1,
                     "prompts": 2, "problems": 2, "n": 2},
    "wrong_answers": {"seeds": (0,), "task": {"numbers": 2, "max_number": 25}, "sft": 1, "tokens": 20, "problems": 2, "n": 8,
                      "rates": ("3e-4",), "methods": ("right alone", "both")},
}


@pytest.mark.parametrize("name", NAMES)
def test_from_end_to_end(experiment, monkeypatch, tmp_path, name):
    """Untrained policies, one step: every cell can be computed, every row of every table has as many columns as its head."""
    module, kept = experiment(name), {}
    assert TINY[name].keys() == module.FULL.keys()
    small = experiment("small")
    imitate = small.imitate
    monkeypatch.setattr(small, "PLACE", tmp_path)
    monkeypatch.setattr(small, "imitate", lambda task, seed, steps, **settings: imitate(task, seed, 1, **settings))  # memorise.py measures how many

    def get(cells):
        for words in cells:
            if words not in kept:
                kept[words] = json.loads(json.dumps(module.cell(tmp_path, TINY[name], *map(str, words))))
        return {words: kept[words] for words in cells}

    text, panels = module.report(tmp_path, TINY[name], get)
    for table in text.split("\n\n"):
        rows = [line for line in table.splitlines() if line.startswith("|")]
        assert len({row.count("|") for row in rows}) <= 1, table
    assert all(len(xs) == len(ys) for panel in panels for xs, ys, *_ in panel["curves"].values()) and panels
