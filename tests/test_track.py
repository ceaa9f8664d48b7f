"""--track: a copy of the metrics, to modules that are made up here. Nothing that a tracker does ends a run."""
import json
import pathlib
import sys
from types import SimpleNamespace

import pytest

import train
from plumbing import start
from plumbing.track import Tracker

TINY = ("--algo grpo --numbers 2 --cot off --sft-steps 1 --sft-batch 4 --prompts 2 --group-size 2 --n-layer 1 --n-embd 32 --n-head 2 "
        "--test-problems 2 --eval-every 0 --device cpu").split()
RUN = SimpleNamespace(folder=pathlib.Path("runs/a"), step=7, config_dict=lambda: {"lr": 0.1})
LINE = {"step": 8, "reward": 0.5, "val_random_search": None, "skipped": 0}


@pytest.fixture
def calls(monkeypatch):
    """What the made-up trackers were told: list of (function, ...)."""
    calls, say = [], lambda name: lambda *a, **k: calls.append((name, a, k))
    for name in ("wandb", "trackio"):
        monkeypatch.setitem(sys.modules, name, SimpleNamespace(init=say("init"), log=say("log"), finish=say("finish")))
    writer = SimpleNamespace(add_scalar=say("add_scalar"), close=say("close"))
    board = SimpleNamespace(SummaryWriter=lambda *a, **k: calls.append(("open", a, k)) or writer)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", board)
    return calls


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_an_online_tracker_gets_settings_and_numbers(name, calls):
    track = Tracker(name, RUN)
    track(LINE), track.finish()
    assert calls == [("init", (), {"project": "thinksmall", "name": "a", "config": {"lr": 0.1}}),
                     ("log", ({"reward": 0.5, "skipped": 0},), {"step": 8}), ("finish", (), {})]


def test_tensorboard_writes_into_the_folder_and_goes_on_behind_the_checkpoint(calls):
    track = Tracker("tensorboard", RUN)
    track(LINE), track.finish()
    assert calls == [("open", (str(RUN.folder),), {"purge_step": 8}), ("add_scalar", ("reward", 0.5, 8), {}),
                     ("add_scalar", ("skipped", 0, 8), {}), ("close", (), {})]


def test_without_the_flag_nothing_is_imported(calls):
    track = Tracker("none", RUN)
    track(LINE), track.finish()
    assert calls == []


def test_a_tracker_that_is_not_installed_is_one_line_and_the_run_goes_on(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(start, "RUNS", tmp_path / "runs")
    monkeypatch.setitem(sys.modules, "trackio", None)  # as if it were not installed
    summary = train.main([*TINY, "--steps", "2", "--track", "trackio", "--out", str(tmp_path / "run")])
    assert summary["steps"] == 2 and capsys.readouterr().out.count("(--track trackio: it is not installed; pip install trackio") == 1


def test_a_run_tells_its_tracker_every_line_and_a_resumed_one_goes_on(monkeypatch, tmp_path, calls):
    monkeypatch.setattr(start, "RUNS", tmp_path / "runs")
    run = str(tmp_path / "run")
    train.main([*TINY, "--steps", "2", "--track", "wandb", "--out", run])
    train.main(["--resume", run, "--steps", "3"])
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [name for name, _, _ in calls] == ["init", "log", "log", "finish", "init", "log", "finish"]
    logged = [({"step": k["step"], **a[0]}) for name, a, k in calls if name == "log"]
    assert logged == [{name: value for name, value in line.items() if value is not None} for line in lines]


@pytest.mark.parametrize("broken", ["init", "log", "finish"])
def test_a_tracker_that_breaks_is_one_line_and_is_left_alone(broken, calls, monkeypatch, capsys):
    def breaks(*_, **__):
        raise RuntimeError("no\nnetwork")
    monkeypatch.setattr(sys.modules["wandb"], broken, breaks)
    track = Tracker("wandb", RUN)
    track(LINE), track(LINE), track.finish()
    assert capsys.readouterr().out == "(--track wandb: RuntimeError: no network; the run goes on without it)\n"
