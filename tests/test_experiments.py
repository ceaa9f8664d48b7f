"""The experiments: what can be checked of them without running them for an hour."""
import importlib
import json
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
NAMES = ("compare", "dense_reward", "limit_of_rl", "longer_thinking", "r1", "reward_hacking", "serial", "test_time")


@pytest.fixture
def experiment(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "experiments"))
    return importlib.import_module


@pytest.mark.parametrize("name", (*NAMES, "failures"))
def test_an_experiment_is_short_and_says_its_command(name):
    text = (ROOT / "experiments" / f"{name}.py").read_text()
    assert len(text.splitlines()) < 120
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
    assert "cell a 1" not in run().stdout
    assert sorted((tmp_path / "calls.txt").read_text().split()) == ["a1", "b2", "b2"]
    assert (tmp_path / "docs" / "toy.md").read_text() == "23\n"
    assert json.loads((tmp_path / "docs" / "toy.json").read_text()) == {"a 1": {"value": 11}, "b 2": {"value": 12}}
    run("--quick")
    assert (tmp_path / "runs" / "toy-quick" / "toy.md").read_text() == "43\n"


def test_pass_at_k_of_a_policy_is_the_mean_over_problems(experiment):
    each = experiment("limit_of_rl").curve([0, 1, 4], 4, [1, 2, 4])
    assert each.mean(0).tolist() == pytest.approx([(0 + 0.25 + 1) / 3, (0 + 0.5 + 1) / 3, 2 / 3])


def test_a_picture_of_curves(tmp_path):
    pytest.importorskip("matplotlib")
    import plot
    panels = [{"title": "t", "x": "x", "y": "y", "log": 2, "curves": {"warm start": ([1, 2, 4], [0.1, 0.2, 0.3], [0, 0.1, 0.2], [0.2, 0.3, 0.4])}},
              {"title": "t", "x": "x", "y": "y", "curves": {"a": ([1, 2], [1, 2]), "b": ([1, 2], [2, 2])}}]
    assert plot.lines(panels, tmp_path / "p.png").stat().st_size > 1000


def test_a_half_written_last_line_of_a_living_run_is_left_out(tmp_path):
    import plot
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2}\n{"st')
    assert [line["step"] for line in plot.read(tmp_path)[0]] == [1, 2]


def test_everything_can_be_made_anew_by_one_command(experiment):
    """It knows every experiment of the folder, and tools are none."""
    module = experiment("all")
    files = {path.stem for path in (ROOT / "experiments").glob("*.py")} - {"all", "cells", "exact", "kills"}
    assert set(module.NAMES) == files
    assert [job[0] for job in module.commands(quick=True)] == [f"experiments/{name}.py" for name in module.NAMES]
    assert all((ROOT / job[0]).exists() for job in module.commands(quick=False))


def test_a_table_that_compares_has_three_seeds(experiment):
    for name in set(NAMES) - {"serial", "test_time"}:  # those say that they have one
        assert len(experiment(name).FULL["seeds"]) >= 3, name
