"""The command of search.py: every method runs, who scores depends on what there is, what cannot be used is refused."""
import json
import pathlib
import subprocess
import sys

import pytest
import torch

import checkpoint
import search
import tasks
from config import InputError
from evaluate import wilson
from model import GPT, GPTConfig, ScalarModel
from plumbing import search_command
from toys import seed

SEARCHES = [m for m in search.METHODS if m != "greedy"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Untrained runs: a policy, the same with a critic, a verifier of it, and a policy and a verifier of another task."""
    folder = tmp_path_factory.mktemp("runs")
    for name, algo, key, task in (("policy", "grpo", "", "countdown"), ("ppo", "ppo", "critic", "countdown"),
                                  ("orm", "orm", "reward_model", "countdown"), ("squares", "grpo", "", "iterated_squaring"),
                                  ("squares-orm", "orm", "reward_model", "iterated_squaring")):
        task = tasks.load(task, **({"numbers": 2, "attempts": 1} if task == "countdown" else {"p": 47, "max_k": 3}))
        torch.manual_seed(seed())
        model = GPT(GPTConfig(task.tokenizer.n_vocab, 64, n_layer=1, n_head=1, n_embd=32))
        state = {key: ScalarModel(model).state_dict()} if key else {}
        checkpoint.save(folder / f"{name}.pt", model, task, {"algo": algo, "max_new_tokens": 12}, algorithm=state)
    return folder


def test_every_method_runs_and_is_measured(runs, tmp_path, capsys):
    results = search.main([f"{runs}/policy.pt", "--method", "all", "--budget", "15,30", "--problems", "5", "--device", "cpu",
                           "--out", str(tmp_path), "--render"])
    assert [(r["method"], r["budget"]) for r in results] == [("greedy", 0)] + [(m, b) for m in SEARCHES for b in (15, 30)]
    assert all(0 <= r["accuracy"] <= 1 and r["tokens"] > 0 for r in results)
    assert json.loads((tmp_path / "search.json").read_text()) == results
    out = capsys.readouterr().out
    assert all(f"| {method} |" in out for method in search.METHODS) and "scored by rule, half-finished ones by rollouts" in out
    table, trees = out.split("\nmcts, budget 15")
    assert sum(line.startswith("| ") for line in table.splitlines()) == len(results) + 1 and "not a cap" in table
    assert trees.count(" visits  value ") >= 2  # behind the table, and a tree for each budget


def test_an_accuracy_of_one_has_an_interval():
    """1.000 ± 0.000 after five problems would be a claim. Wilson: n / (n + z^2)."""
    low, high = wilson(1.0, 5)
    assert low == pytest.approx(5 / (5 + 1.96 ** 2)) and high == 1.0


def test_a_folder_that_cannot_be_written_to_is_said_before_the_search(runs, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setattr(search_command, "measure", lambda *_: pytest.fail("the search has begun"))
    with pytest.raises(InputError, match="--out .*cannot be written to"):
        search.main([f"{runs}/policy.pt", "--problems", "5", "--device", "cpu", "--out", str(tmp_path / "file" / "out")])


@pytest.mark.parametrize("run, more, line", [
    ("policy", [], "by rule, half-finished ones by rollouts"), ("ppo", [], "by rule, half-finished ones by verifier"),
    ("policy", ["--verifier", "orm", "--score", "verifier"], "by verifier, half-finished ones by verifier"),
    ("squares", [], "by confidence, half-finished ones by confidence"),
    ("squares", ["--verifier", "squares-orm"], "by verifier, half-finished ones by verifier")], ids=str)
def test_who_scores_depends_on_what_there_is(runs, run, more, line, capsys):
    """A rule that needs the answer key must not choose."""
    more = [f"{runs}/{word}.pt" if "orm" in word else word for word in more]
    search.main([f"{runs}/{run}.pt", "--method", "rebase", "--budget", "20", "--problems", "2", "--device", "cpu", *more])
    assert line in capsys.readouterr().out


def test_the_same_seed_finds_the_same(runs):
    argv = [f"{runs}/policy.pt", "--method", "mcts", "--budget", "20", "--problems", "3", "--device", "cpu"]
    first, second = (search.main(argv)[0] | {"seconds": 0} for _ in range(2))
    assert first == second


WRONG = [("policy", ["--verifier", "squares-orm"], "vocabulary"), ("policy", ["--verifier", "policy"], "no critic"),
         ("policy", ["--verifier", "nowhere"], "no such checkpoint"), ("nowhere", [], "no such checkpoint"),
         ("policy", ["--budget", "0"], "--budget"), ("policy", ["--budget", "64,"], "--budget"),
         ("policy", ["--budget", "x"], "--budget"), ("policy", ["--budget", "64,0"], "--budget"),
         ("policy", ["--value", "critic"], "--value critic"), ("policy", ["--value", "verifier"], "--value verifier"),
         ("policy", ["--score", "verifier"], "--score verifier"), ("orm", ["--verifier", "orm", "--value", "critic"], "--value critic"),
         ("policy", ["--method", "nonsense"], "nonsense"), ("policy", ["--method", "mcts,"], "--method"),
         ("squares", ["--score", "rule"], "--score rule"), ("squares", ["--value", "rollouts"], "--value rollouts"),
         ("policy", ["--score", "nonsense"], "--score"), ("policy", ["--problems", "0"], "--problems")]


@pytest.mark.parametrize("run, more, word", WRONG, ids=str)
def test_what_cannot_be_searched_is_refused_in_one_line(runs, run, more, word):
    more = [f"{runs}/{m}.pt" if before == "--verifier" else m for before, m in zip([None, *more], more)]
    with pytest.raises(InputError) as error:
        search.main([f"{runs}/{run}.pt", "--device", "cpu", *more])
    assert "\n" not in str(error.value) and word in str(error.value)


def test_the_real_command_exits_with_status_2_and_one_line():
    done = subprocess.run([sys.executable, "search.py", "nowhere", "--method", "mcts"], cwd=pathlib.Path(search.__file__).parent,
                          capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1 and "Traceback" not in done.stderr


def test_the_command_searches_the_split_and_keeps_to_the_limit_that_it_was_told(runs, capsys, monkeypatch):
    """Trap 31: what a solution costs is learned from training problems; nothing is drawn from test unless it is asked for."""
    splits, limits, draw, measure = [], [], search_command.fixed_problems, search_command.measure
    monkeypatch.setattr(search_command, "fixed_problems", lambda task, split, count: splits.append(split) or draw(task, split, count))
    monkeypatch.setattr(search_command, "measure", lambda *given: limits.append(given[-1]) or measure(*given))
    search.main([f"{runs}/policy.pt", "--method", "greedy", "--split", "val", "--problems", "3", "--device", "cpu"])
    assert splits == ["val", "train"] and limits == [12]


@pytest.mark.parametrize("flags, used", [([], 0.5), (["--temperature", "2"], 2.0)])
def test_a_run_is_searched_at_its_own_temperature_unless_told_otherwise(runs, tmp_path, monkeypatch, flags, used):
    model, task, _ = checkpoint.load_run(f"{runs}/policy.pt", torch.device("cpu"))
    checkpoint.save(tmp_path / "cool.pt", model, task, {"algo": "grpo", "max_new_tokens": 12, "temperature": 0.5})
    seen, run_method = [], search_command.run_method
    monkeypatch.setattr(search_command, "run_method", lambda context, *more: seen.append(context.temperature) or run_method(context, *more))
    search.main([str(tmp_path / "cool.pt"), "--method", "sample", "--budget", "20", "--problems", "2", "--device", "cpu", *flags])
    assert seen == [used]
