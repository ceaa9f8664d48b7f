"""The experiments: what can be checked of them without running them for an hour."""
import importlib
import itertools
import json
import math
import pathlib
import subprocess
import sys

import pytest
import torch

import train
from config import InputError
from plumbing import start
from toys import seeded

ROOT = pathlib.Path(__file__).parent.parent
sys.path.append(str(ROOT / "experiments"))
NAMES = [name for name in importlib.import_module("all").NAMES if name != "failures"]  # failures.py has no cells


@pytest.fixture
def experiment(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "experiments"))
    return importlib.import_module


@pytest.mark.parametrize("name", [*NAMES, "failures"])
def test_an_experiment_is_short_and_says_its_command(name):
    text = (ROOT / "experiments" / f"{name}.py").read_text()
    assert len(text.splitlines()) < 160
    assert f"python experiments/{name}.py --quick" in text.split('"""')[1]


@pytest.mark.parametrize("name", NAMES)
def test_quick_is_the_same_plan_with_other_sizes(experiment, name):
    module = experiment(name)
    assert module.QUICK.keys() == module.FULL.keys()


def test_a_cell_is_computed_once(tmp_path):
    """Two cells of a toy experiment; the second start finds the first one's result and does not compute it again."""
    (tmp_path / "toy.py").write_text(
        "import pathlib, sys\n"
        f"sys.path.insert(0, {str(ROOT / 'experiments')!r})\n"
        "import cells\n"
        f"cells.HERE = pathlib.Path({str(tmp_path)!r})\n"
        "def cell(folder, plan, name, seed):\n"
        "    with open('calls.txt', 'a') as file: file.write(name + seed + '\\n')\n"
        "    return {'value': plan['value'] + int(seed)}\n"
        "def report(folder, plan, get):\n"
        "    found = get([('a', 1), ('b', 2)])\n"
        "    return str(found['a', 1]['value'] + found['b', 2]['value']), []\n"
        "cells.main(__file__, 'doc', cell, report, {'value': 10}, {'value': 20})\n")
    (tmp_path / "docs").mkdir()
    run = lambda *flags: subprocess.run([sys.executable, str(tmp_path / "toy.py"), *flags], check=True, capture_output=True, text=True)
    run()
    (tmp_path / "runs" / "toy" / "b-2.json").unlink()
    assert "cell a 1" not in run("--at-once", "1").stdout
    assert sorted((tmp_path / "calls.txt").read_text().split()) == ["a1", "b2", "b2"]
    assert (tmp_path / "docs" / "toy.md").read_text().startswith("23\n\n[The claim")
    assert json.loads((tmp_path / "docs" / "toy.json").read_text()) == {"a 1": {"value": 11}, "b 2": {"value": 12}}
    run("--quick")
    assert (tmp_path / "runs" / "toy-quick" / "toy.md").read_text() == "43\n"
    with pytest.raises(subprocess.CalledProcessError) as refused:
        run("--at-once", "0")
    assert refused.value.returncode == 2


def test_pass_at_k_of_a_policy_is_the_mean_over_problems(experiment):
    each = experiment("limit_of_rl").curve([0, 1, 4], 4, [1, 2, 4])
    assert each.mean(0).tolist() == pytest.approx([(0 + 0.25 + 1) / 3, (0 + 0.5 + 1) / 3, 2 / 3])


def test_a_picture_of_curves(tmp_path):
    pytest.importorskip("matplotlib")
    import plot
    panels = [{"title": "t", "x": "x", "y": "y", "log": 2, "curves": {"warm start": ([1, 2, 4], [0.1, 0.2, 0.3], [0, 0.1, 0.2], [0.2, 0.3, 0.4])}},
              {"title": "t", "x": "x", "y": "y", "curves": {"a": ([1, 2], [1, 2]), "b": ([1, 2], [2, 2])}}]
    assert plot.lines(panels, tmp_path / "p.png").stat().st_size > 1000


def test_pictures_of_tasks_that_count_different_things_are_refused(tmp_path):
    pytest.importorskip("matplotlib")
    import plot
    line = {"step": 1, "accuracy": 0.0, "length": 1.0}
    for name, more in (("a", {"attempts": 1.0, "hits": 0.0}), ("b", {"chain": 1.0})):
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.jsonl").write_text(json.dumps(line | more) + "\n")
    with pytest.raises(InputError, match="each task by itself"):
        plot.main([str(tmp_path / "a"), str(tmp_path / "b")])
    for out in ("nowhere/x.png", "x.txt"):
        with pytest.raises(InputError, match="--out"):
            plot.main([str(tmp_path / "a"), "--out", out])
    assert plot.law(0.5, 0.0, 0.0, 2) == [0.5, 0.5, 0.5]


@pytest.mark.parametrize("there, command", [((), "--out"), (("config.json",), "--resume"), (("config.json", "checkpoint.pt"), "--resume")])
def test_a_run_goes_on_also_if_it_was_killed_before_its_first_checkpoint(experiment, tmp_path, monkeypatch, there, command):
    cells, seen = experiment("cells"), []
    (tmp_path / "x").mkdir()
    for name in there:
        (tmp_path / "x" / name).write_text("")
    monkeypatch.setattr(cells.subprocess, "run", lambda argv, check: seen.append(argv))
    cells.train(tmp_path, "x", "--algo", "grpo", steps=3)
    assert seen[0][seen[0].index(command) + 1] == str(tmp_path / "x")


@pytest.mark.parametrize("flags, steps", [((), 600), (("--sft-steps", 50), 50)])
def test_the_tables_can_be_made_again_though_the_default_warm_start_has_grown(experiment, tmp_path, monkeypatch, flags, steps):
    from plumbing import start
    cells, seen = experiment("cells"), []
    monkeypatch.setattr(cells.subprocess, "run", lambda argv, check: seen.append(argv))
    cells.train(tmp_path, "x", "--algo", "grpo", *flags)
    algo, task, given, _ = start.read_command_line(seen[0][2:])
    assert start.configure(algo, task, given)["sft"].sft_steps == steps != start.configure(algo, task, {})["sft"].sft_steps


def test_a_half_written_last_line_of_a_living_run_is_left_out(tmp_path):
    import plot
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2}\n{"st')
    assert [line["step"] for line in plot.read(tmp_path)[0]] == [1, 2]


def test_everything_can_be_made_anew_by_one_command(experiment):
    """It knows every experiment of the folder, and tools are none."""
    module = experiment("all")
    files = {path.stem for path in (ROOT / "experiments").glob("*.py")} - {"all", "cells", "exact", "kills", "facts", "latent", "small"}
    assert set(module.NAMES) == files
    assert [job[0] for job in module.commands(quick=True)] == [f"experiments/{name}.py" for name in module.NAMES]
    assert all((ROOT / job[0]).exists() for job in module.commands(quick=False))


def test_a_table_that_compares_has_three_seeds(experiment):
    for name in set(NAMES) - {"serial", "test_time", "stream_of_search"}:  # those say that they have one
        assert len(experiment(name).FULL["seeds"]) >= 3, name


# ---- compare.py: who is chosen on what

RATES = {"star": ("star", [], ("1", "2")), "grpo": ("grpo", [], ("1", "2", "3"))}


def test_a_learning_rate_is_chosen_on_val_and_only_the_chosen_one_is_measured_on_test(experiment):
    """Trap 31. On test another rate would look better; the rival that imitates for as long belongs to the chosen run of GRPO."""
    best, asked = {"star": "1", "grpo": "2"}, []

    def get(cells):
        asked.extend(cells)
        return {(m, lr, seed, split): {"pass@1": float((best.get(m) == lr) == (split == "val")), "pass@8": 0.0, "length": 1.0,
                                       "updates": 1, "seconds": 1.0, "random_search": 0.0} for m, lr, seed, split in cells}

    text, _ = experiment("compare").report(None, {"methods": RATES, "seeds": (0, 1)}, get)
    tried = {(m, lr, seed) for m, lr, seed, split in asked if split == "val"}
    assert tried == {(m, lr, 0) for m, (_, _, rates) in RATES.items() for lr in rates}
    measured = {(m, lr) for m, lr, _, split in asked if split == "test"}
    assert measured == {*best.items(), ("sft", "0"), ("continued_sft", "2")}
    assert "| 1: 0.000, **2: 1.000**, 3: 0.000 |" in text


def test_the_rival_that_imitates_on_begins_with_the_warm_start_of_its_run(experiment, tmp_path, monkeypatch):
    """And lasts as many seconds as that run took."""
    module, seen = experiment("compare"), []
    import checkpoint, evaluate, sft
    run = tmp_path / "grpo-3e-4-0"
    run.mkdir()
    (run / "summary.json").write_text('{"warm_start": "runs/warm"}')
    (run / "seconds.json").write_text("12.5")
    monkeypatch.setattr(checkpoint, "load_run", lambda path, device: seen.append(str(path)) or (None, None, {}))
    monkeypatch.setattr(sft, "warm_start", lambda *_, seconds: seen.append(seconds) or [1.0])
    monkeypatch.setattr(evaluate, "fixed_problems", lambda task, split, count: seen.append(split))
    monkeypatch.setattr(evaluate, "evaluate", lambda *_: {"pass@1": 0.5})
    result = module.cell(tmp_path, {"problems": 5, "samples": 16}, "continued_sft", "3e-4", "0", "test")
    assert seen == ["runs/warm", 12.5, "test"] and result["seconds"] == 12.5 and result["updates"] == 1


def test_a_run_is_trained_on_if_it_is_to_take_more_steps(experiment, tmp_path, monkeypatch):
    """A summary of 5 steps is no result of 9."""
    cells, calls = experiment("cells"), []
    monkeypatch.setattr(cells.subprocess, "run", lambda command, check: calls.append(command[2:]))
    run = tmp_path / "run"
    run.mkdir()
    (run / "summary.json").write_text('{"steps": 5}')
    (run / "config.json").touch()
    cells.train(tmp_path, "run", steps=5)
    cells.train(tmp_path, "run")
    assert calls == []
    cells.train(tmp_path, "run", steps=9)
    assert calls == [["--resume", str(run), "--steps", "9"]]


def test_32_updates_a_batch_are_another_plan_with_its_own_results(experiment):
    """Those whose ratios differ, or all; as many rates, a quarter of each."""
    module = experiment("compare")
    plan, all_of_them = module.many(module.FULL), module.everything(module.FULL)
    assert plan["methods"]["grpo"] == ("grpo", ["--epochs", "1", "--mini-batches", "32"], ("3.75e-05", "7.5e-05", "0.00015"))
    assert {*plan["methods"]} == {*module.RATIOS} and plan["tokens"] == module.FULL["tokens"]
    assert module.many(all_of_them)["methods"].keys() == all_of_them["methods"].keys()


def test_a_variant_of_an_experiment_has_a_folder_of_its_own(tmp_path):
    (tmp_path / "toy.py").write_text(
        "import pathlib, sys\n"
        f"sys.path.insert(0, {str(ROOT / 'experiments')!r})\n"
        "import cells\n"
        f"cells.HERE = pathlib.Path({str(tmp_path)!r})\n"
        "def double(plan):\n    'twice as much'\n    return {'value': 2 * plan['value']}\n"
        "cell = lambda folder, plan, name: {'value': plan['value']}\n"
        "report = lambda folder, plan, get: (str(get([('a',)])[('a',)]['value']), [])\n"
        "cells.main(__file__, 'doc', cell, report, {'value': 10}, {'value': 20}, double=double)\n")
    (tmp_path / "docs").mkdir()
    for flags in ((), ("--double",), ("--double", "--quick")):
        subprocess.run([sys.executable, str(tmp_path / "toy.py"), *flags], check=True, capture_output=True)
    texts = {str(path.relative_to(tmp_path)): path.read_text().partition("\n\n")[0].strip() for path in tmp_path.rglob("*.md")}
    assert texts == {"docs/toy.md": "10", "docs/toy-double.md": "20", "runs/toy-double-quick/toy-double.md": "40"}


def test_equal_seconds_are_the_last_look_before_them(experiment):
    module = experiment("compare")
    looks = module.curve([{"seconds": 5.0}, {"seconds": 2.5, "val_pass@1": 0.3, "kl": 0.1}, {"seconds": 2.5, "val_pass@1": 0.4}], 20.0)
    assert looks == [[15.0, 0.3, 0.1], [20.0, 0.4, None]]
    assert [module.at_seconds(looks, limit) for limit in (14.0, 15.0, 19.0, 99.0)] == [None, 0.3, 0.3, 0.4]


# ---- a whole experiment, with runs of a second

TINY = ("--numbers 2 --max-number 9 --cot off --expert-share 0.5 --n-layer 1 --n-embd 32 --n-head 2 --sft-steps 5 --sft-batch 8 "
        "--test-problems 1 --eval-problems 2 --device cpu").split()


@pytest.fixture
def tiny(experiment, tmp_path, monkeypatch):
    """tiny(name, plan) -> the text and the panels of its report; every cell is computed in this process, one after the other."""
    monkeypatch.setattr(start, "RUNS", tmp_path / "runs")

    def trained(folder, name, *flags, steps=None):
        if not (folder / name / "summary.json").exists():
            own = {"--eval-problems": "2", "--prompts": "2", "--token-budget": "60"}  # small, whatever the experiment wants
            words = [own.get(before, str(word)) for before, word in zip((None, *flags), flags)]
            train.main(["--prompts", "2", *TINY, *words, *(["--steps", str(steps)] if steps else []), "--out", str(folder / name)])
        return folder / name

    def make(name, plan):
        module, kept = experiment(name), {}
        monkeypatch.setattr(module, "train", trained)

        def get(cells):
            for words in cells:
                kept.setdefault(words, json.loads(json.dumps(module.cell(tmp_path / name, plan, *map(str, words)))))
            return {words: kept[words] for words in cells}
        return module.report(tmp_path / name, plan, get)
    return make


def test_overoptimization_from_end_to_end(tiny):
    text, panels = tiny("overoptimization", {"seeds": (0,), "judges": {"orm": ("none", "fresh judge"), "rm": ("none", "fresh judge")}, "steps": 3,
                                             "judge_steps": 1, "problems": 2, "n": 4})
    assert len(text.splitlines()) == 2 + 2 * 3 + 2 and "| rm | Best-of-N | " in text
    assert [len(panel["curves"]) for panel in panels] == [2] * 3 and panels[0]["curves"]["Best-of-N, seed 0"][0][0] == 0


def test_gradient_variance_from_end_to_end(tiny):
    text, panels = tiny("gradient_variance", {"seeds": (0,), "policies": ("warm start",), "batches": 3, "prompts": 2, "K": (1, 2),
                                              "critic": 1})
    names = [line.split(" | ")[0] for line in text.splitlines()[4:11]]
    assert names == ["| " + name for name in ("no baseline", "best constant", "mean of the others", "critic, lambda 1", "critic, lambda 0.95 (biased)",
                                              "1 rollouts a step", "2 rollouts a step")] and len(panels) == 1


def test_better_teacher_from_end_to_end(tiny, experiment, monkeypatch):
    monkeypatch.setattr(experiment("better_teacher"), "TEACHER", ["--cot", "on", "--attempts", "2"])
    text, panels = tiny("better_teacher", {"seeds": (0, 1), "sft": 1, "steps": 1, "problems": 2, "samples": 2, "attempts": 3})
    by_policy, by_attempt = (part.splitlines() for part in text.split("\n\n")[::2])
    assert [line.split(" | ")[0] for line in by_policy[2:]] == ["| imitation", "| then GRPO", "| or planted solutions", "| or DAgger"]
    assert [line.split(" | ")[0] for line in by_attempt[2:]] == ["| 1", "| 2", "| 3"] and len({line.count("|") for line in by_policy}) == 1
    assert [len(panel["curves"]) for panel in panels] == [4, 4]


def test_compare_from_end_to_end(tiny):
    """With the teacher that has to be there first, and 32 steps a batch."""
    names = ("grpo", "distill")
    plan = {"tokens": 60, "seeds": (0,), "problems": 2, "samples": 64, "look": 1, "methods": {name: (name, [], ("4e-4",)) for name in names}}
    text, panels = tiny("compare", importlib.import_module("compare").many(plan))
    assert [line.split(" | ")[0] for line in text.splitlines()[2:]] == ["| " + name for name in (
        "warm start", *names, "warm start, trained on", "random search with grpo's attempts")]
    assert all(line.count("|") == text.count("|", 0, text.index("\n")) for line in text.splitlines())
    assert "grpo" in panels[0]["curves"] and "distill" not in panels[0]["curves"]


# ---- overoptimization.py and gradient_variance.py

@pytest.mark.parametrize("N", [1, 2, 4])
def test_the_chance_to_be_the_best_of_some_is_that_of_every_choice(experiment, N):
    """All ways to take N of five: how often the i-th lowest is the highest of them."""
    choices = list(itertools.combinations(range(5), N))
    counted = [sum(max(choice) == i for choice in choices) / len(choices) for i in range(5)]
    assert experiment("overoptimization").chance_to_be_best(5, N).tolist() == pytest.approx(counted)


def test_the_turn_is_where_the_true_reward_is_highest(experiment):
    """Up for ten steps and down for ten: means over ten steps are highest in the middle, and the end is lower."""
    curve = {"true": [k / 10 for k in range(10)] + [1.0] * 10 + [0.2] * 10, "d": [float(k) for k in range(30)]}
    d, best, last = experiment("overoptimization").turn(curve)
    assert (d, best, last) == (pytest.approx(14.5), pytest.approx(1.0), pytest.approx(0.2))


def test_the_noise_of_a_gradient_is_estimated_without_bias(experiment):
    """Gradients N(m, 1) in four dimensions, |m|^2 = 4: noise 4 / 4 = 1. A mean over many estimates; the plain one would be below."""
    module, found = experiment("gradient_variance"), []
    generator = seeded()
    for _ in range(2000):
        g = torch.randn(50, 4, generator=generator) + torch.tensor([2.0, 0, 0, 0])
        sums = [0, 0.0, 0.0, 0, 0.0]
        for each in g:
            module.add(sums, each, 7, 0.5)
        found.append(module.noise(*sums[:3]))
    assert sums[3:] == [350, 25.0] and sum(found) / len(found) == pytest.approx(1, abs=0.05)
    assert math.isnan(module.noise(2, torch.zeros(2), 5.0))
