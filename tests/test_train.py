"""The command line and the loop: a run can be stopped, resumed, looked at and repeated, and stays the same run."""
import json
import math
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

import checkpoint
import dialogue
import grpo
import plot
import sample
import sft
import tasks
import train
from config import InputError
from evaluate import fixed_problems
from plumbing import run as run_room
from plumbing import catalogue, start
from plumbing.report import report
from plumbing.run import Run
from plumbing import warm_starts
from plumbing.warm_starts import cache_path
from tasks import Problem, split_of
from tasks.countdown import combine
from toys import chain, firsts, seed, uneven

# Two numbers and no thinking: eight tokens, which a very small model soon writes in the right order.
TINY = (f"--seed {seed()} --task countdown --numbers 2 --max-number 9 --cot off --expert-share 0.5 --format-weight 0.5 "
        "--n-layer 1 --n-embd 32 --n-head 2 --sft-steps 60 --sft-batch 32 --sft-micro-batch 32 --sft-lr 0.01 "
        "--sft-muon-lr 0.02 --prompts 4 --group-size 4 --lr 0.003 "
        "--test-problems 3 --test-samples 16 --eval-problems 2 --eval-every 0 --checkpoint-every 2 --device cpu").split()
HERE = catalogue.names() if os.environ.get("THINKSMALL_ALL") else [*catalogue.core()]  # those of methods/ in CI, as in conftest.py
TALKS = "--cot on --attempts 1 --dialogue 0.6"  # what the methods need that ask the model about its own answers


@pytest.fixture(scope="module", autouse=True)
def runs(tmp_path_factory):
    """A `runs` folder of our own, and no pictures: this file imports everything, but draws nothing. Every step trains: what is
    compared here must not depend on a policy that happens to be right."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(start, "RUNS", tmp_path_factory.mktemp("runs"))
        patch.setattr(plot, "curves", lambda *_: None)
        patch.setattr(run_room, "rule_rewards", uneven(run_room.rule_rewards))
        yield start.RUNS


@pytest.fixture(scope="module")
def straight(runs):
    """The run that the others are compared with: four steps without a stop."""
    train.main([*TINY, "--steps", "4", "--out", str(runs / "straight")])
    return runs / "straight"


def log(folder):
    """metrics.jsonl without what the clock says."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: v for name, v in line.items() if name not in ("seconds", "tokens_per_second")} for line in lines]


def trained_on(folder):
    """The lines of rollouts.jsonl that are about training. Those of the looks depend on where a run was stopped: it looks at its end."""
    return [line for line in (folder / "rollouts.jsonl").read_text().splitlines() if '"kind": "train"' in line]


def weights(folder):
    return checkpoint.load(folder)["model"]


def assert_same_run(a, b):
    """Bit by bit."""
    assert log(a) == log(b) and trained_on(a) == trained_on(b) != []
    ours, theirs = weights(a), weights(b)
    assert ours.keys() == theirs.keys() and all(torch.equal(w, theirs[name]) for name, w in ours.items())


# ---- trap 25: one run, however it came about

def test_the_tiny_run_does_learn(straight):
    """Otherwise the comparisons below would compare nothing."""
    lines = log(straight)
    assert [(line["step"], line["updates"]) for line in lines] == [(1, 1), (2, 2), (3, 3), (4, 4)]
    assert min(line["grad_norm"] for line in lines) > 0 and max(line["max_log_ratio"] for line in lines) < 1e-4
    warm = checkpoint.load(checkpoint.load(straight)["state"]["warm_start"])["model"]
    assert not any(torch.equal(w, warm[name]) for name, w in weights(straight).items())


def test_two_steps_and_a_resume_equal_four_steps(runs, straight):
    """Trap 25: optimizer, random states and the place in the stream of problems all come back."""
    train.main([*TINY, "--steps", "2", "--out", str(runs / "resumed")])
    assert len(log(runs / "resumed")) == 2
    train.main(["--resume", str(runs / "resumed"), "--steps", "4"])
    assert_same_run(runs / "resumed", straight)


def test_a_killed_run_goes_on_from_its_last_checkpoint(runs, straight, monkeypatch):
    """Trap 25: the log has three lines and half of a fourth, the checkpoint is of step 2: the log is cut back to it."""
    original = train.step

    def dies(run):
        if run.step == 3:
            run.append("metrics.jsonl", '{"step": 4, "rew')
            run.append("samples.txt", "=== step 3\nUse")
            run.append("rollouts.jsonl", '{"step": 4, "ki')
            raise RuntimeError("power cut")
        return original(run)

    monkeypatch.setattr(train, "step", dies)
    with pytest.raises(RuntimeError):
        train.main([*TINY, "--steps", "4", "--out", str(runs / "killed")])
    monkeypatch.setattr(train, "step", original)
    train.main(["--resume", str(runs / "killed")])
    assert_same_run(runs / "killed", straight)
    assert "=== step 3" not in (runs / "killed/samples.txt").read_text()


def test_a_run_that_died_before_its_first_checkpoint_starts_over(runs, straight, monkeypatch):
    monkeypatch.setattr(train, "look", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train.main([*TINY, "--steps", "4", "--out", str(runs / "stillborn")])
    monkeypatch.undo()
    train.main(["--resume", str(runs / "stillborn")])
    assert_same_run(runs / "stillborn", straight)


def test_ctrl_c_finishes_the_step_saves_and_can_be_resumed(runs, straight, monkeypatch, capsys):
    original, handler = train.step, signal.getsignal(signal.SIGINT)

    def interrupted(run):
        if run.step == 0:
            os.kill(os.getpid(), signal.SIGINT)
        return original(run)

    monkeypatch.setattr(train, "step", interrupted)
    assert train.main([*TINY, "--steps", "4", "--out", str(runs / "stopped")]) is None
    assert len(log(runs / "stopped")) == 1 and "--resume" in capsys.readouterr().out
    assert signal.getsignal(signal.SIGINT) is handler
    monkeypatch.setattr(train, "step", original)
    train.main(["--resume", str(runs / "stopped")])
    assert_same_run(runs / "stopped", straight)


def test_a_crash_gives_ctrl_c_back(runs, monkeypatch):
    """Else the next Ctrl-C, in a notebook say, would ask a run to stop that is long dead."""
    handler = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(train, "step", lambda self: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train.main([*TINY, "--steps", "1", "--out", str(runs / "crashed")])
    try:
        assert signal.getsignal(signal.SIGINT) is handler
    finally:
        signal.signal(signal.SIGINT, handler)


def test_a_run_that_is_looked_at_equals_one_that_is_not(runs, straight):
    """Trap 25: evaluation has its own random numbers. Only the val_ columns are more."""
    train.main([*TINY, "--eval-every", "1", "--steps", "4", "--out", str(runs / "watched")])
    lines = log(runs / "watched")
    assert all("val_pass@1" in line and "val_random_search" in line for line in lines)
    assert [{n: v for n, v in line.items() if not n.startswith("val_")} for line in lines] == log(straight)
    ours, theirs = weights(runs / "watched"), weights(straight)
    assert all(torch.equal(w, theirs[name]) for name, w in ours.items())


def test_a_cached_warm_start_gives_the_run_of_a_fresh_one(runs, tmp_path, monkeypatch, capsys):
    """Trap 25: the random states after the warm start must not depend on whether it was made or read."""
    monkeypatch.setattr(start, "RUNS", tmp_path)
    shown = []
    for name, more in (("miss", []), ("hit", []), ("fresh", ["--fresh"])):
        train.main([*TINY, *more, "--steps", "2", "--out", str(tmp_path / name)])
        shown.append("made earlier" in capsys.readouterr().out)
    assert shown == [False, True, False]
    assert_same_run(tmp_path / "miss", tmp_path / "hit")
    assert_same_run(tmp_path / "miss", tmp_path / "fresh")


@pytest.mark.parametrize("flags", ["--sft-steps 61", f"--seed {seed(1)}", "--n-layer 2", "--max-number 8", "--sft-lr 0.02",
                                   "--dtype bfloat16"])
def test_another_setting_is_another_warm_start(runs, flags):
    """A cache that is hit too often would be worse than none."""
    def path(*argv):
        algo, task, given, _ = start.read_command_line([*TINY, *argv])
        configs = start.configure(algo, task, given)
        run = Run(None, algo, task, configs)
        return cache_path(start.RUNS, run.task, run.policy, configs["sft"], configs["loop"].seed)
    assert path() == path("--lr", "0.5") and path() != path(*flags.split())


def test_the_seed_decides_the_run(runs, straight):
    train.main([*TINY, "--steps", "1", "--seed", str(seed(1)), "--out", str(runs / "other-seed")])
    assert log(runs / "other-seed")[0] != log(straight)[0]


def test_resuming_a_finished_run_changes_nothing(runs, straight):
    before = log(straight), {name: w.clone() for name, w in weights(straight).items()}
    train.main(["--resume", str(straight)])
    assert log(straight) == before[0] and all(torch.equal(w, before[1][name]) for name, w in weights(straight).items())


# ---- every algorithm through the same loop

@pytest.fixture
def dealt(monkeypatch):
    """Verdicts that are dealt out, whatever was sampled: in each of the first `dealt.groups` problems of a batch the first sample
    is right, everything else is wrong. So it is known which steps can learn something, and from which groups."""
    def right(problems):
        first = firsts(problems)
        return first & (first.cumsum(0) <= dealt.groups)

    for algo in HERE:  # imported first: a module that came in behind the patches would keep them
        catalogue.find(algo)
    dealt = SimpleNamespace(groups=1000)
    # The same for methods that ask the model about its answers: each row has one of its own, that can be read.
    monkeypatch.setattr(dialogue, "answers", lambda rollout, task: [
        task.tokenizer.encode(f"<answer>{i % 10} + {i // 10}</answer>") for i in range(len(rollout.lengths))])
    monkeypatch.setattr(dialogue, "readable", lambda rollout, task: torch.ones(len(rollout.lengths)).bool())
    monkeypatch.setattr(sample.Rollout, "right", lambda self, task: right(self.problems))
    monkeypatch.setattr(run_room, "rule_rewards", lambda task, problems, *_: (right(problems).float(), right(problems).float()))
    return dealt


@pytest.mark.parametrize("algo", HERE)
def test_every_algorithm_runs_through_the_loop(runs, algo, dealt, straight):
    """The seam: two steps, with finite metrics, and a folder that holds a whole run."""
    needs = {"ppo": ["--critic-warmup", "0"], "distill": ["--teacher", straight], "rm_rl": ["--judge-steps", "2"], "dagger": ["--cot", "on"]}
    talks = TALKS.split() if "dialogue" in catalogue.find(algo)[1] else []  # a dialogue is about a chain of thought
    out, more = runs / f"two-steps-{algo}", map(str, [*needs.get(algo, []), *talks])
    train.main([*TINY, *more, "--algo", algo, "--steps", "2", "--out", str(out)])
    lines, summary = log(out), json.loads((out / "summary.json").read_text())
    assert [line["step"] for line in lines] == [1, 2] and lines[-1]["updates"] == summary["updates"] > 0
    assert all(math.isfinite(line[name]) for line in lines for name in line)
    assert 0 <= summary["after"]["pass@1"] <= 1 and checkpoint.load_run(out)[2]["algo"] == algo
    assert len(trained_on(out)) >= 2 and (out / "run.html").stat().st_size < 5e6


def waits(state):
    return sum(len(group["rewards"]) for group in state["waiting"]) > 0


@pytest.mark.parametrize("algo, flags, kept", [row for row in [
    ("ppo", "--critic-warmup 1 --epochs 2 --mini-batches 2 --beta 0.1 --kl-target 1000", lambda state: state["beta"] != 0.1),
    ("dapo", "", waits),
    ("dpo", "--iterative --mini-batches 2", lambda state: True),
    ("star", "--mini-batches 2", lambda state: True),
    ("dagger", "--cot on --mini-batches 2", lambda state: True),
    ("vineppo", "--mini-batches 2", lambda state: True),
    ("cispo", "--curriculum priority --renew-reference 2 --beta 0.1", lambda state: state["steps"] == 3),
    ("cov", "", lambda state: True),
    ("cov", "--cov clip --cov-low -10 --clip-share 0.1", lambda state: True),
    ("pods", "--mini-batches 2", lambda state: True),
    ("distill", "--teacher STRAIGHT", lambda state: True),
    ("distill", "--teacher STRAIGHT --divergence forward", lambda state: True),
    ("sdpo", "", lambda state: "teacher" in state),
    ("prime", "", lambda state: {"prm", "prm_optimizer"} <= state.keys()),
    ("bond", "--anchor-rate 0.3", lambda state: "anchor" in state),
    ("rm_rl", "--judges 2 --judge-steps 2 --fresh-judge 2", lambda state: "judges" in state),
    ("genrm", f"{TALKS} --votes 1", lambda state: True),
    ("rlaif", TALKS, lambda state: {"judge", "steps"} <= state.keys()),
    ("ai_preferences", TALKS, lambda state: "judge" in state),
    ("self_reward", f"{TALKS} --round-steps 2", lambda state: state["steps"] == 3),
    ("offpolicy", "--stale-steps 2 --mismatch ratio", lambda state: len(state["queue"]) == 2),
    ("offpolicy", "--sampler-dtype bfloat16", lambda state: True),
    ("score", f"{TALKS} --stage-one 2 --mini-batches 2", lambda state: state["steps"] == 3),
    ("critique", f"{TALKS} --revision-steps 5 --mini-batches 2", lambda state: {"judge", "reference"} <= state.keys()),
    ("propose", TALKS, lambda state: state["steps"] == 3),
    ("self_play", TALKS, lambda state: state["steps"] == 3),
] if row[0] in HERE], ids=lambda x: x if isinstance(x, str) and x and "-" not in x else "")
def test_three_steps_and_a_resume_equal_six_steps_for_the_others_too(runs, algo, flags, kept, dealt, straight):
    """Trap 25: the critic and its optimizer, a beta that has moved, groups that wait. `kept`: there is something of it to lose.
    Three of four groups are mixed in each step: DAPO trains in steps 2, 4 and 6, and after step 3 three groups wait."""
    dealt.groups = 3
    argv, name = [*TINY, *flags.replace("STRAIGHT", str(straight)).split(), "--algo", algo], f"{algo}{len(flags)}"
    names = (runs / f"{name}-straight", runs / f"{name}-resumed")
    train.main([*argv, "--steps", "6", "--out", str(names[0])])
    train.main([*argv, "--steps", "3", "--out", str(names[1])])
    assert len(log(names[1])) == 3 and kept(checkpoint.load(names[1])["algorithm"])
    train.main(["--resume", str(names[1]), "--steps", "6"])
    assert_same_run(*names)
    assert log(names[0])[-1]["updates"] > log(names[0])[2]["updates"]  # also what came after the resume is training


def prompts_of_each_step(monkeypatch, training):
    """Call `training` -> a set for each training batch."""
    seen, judge = [], run_room.rule_rewards
    with monkeypatch.context() as patch:
        patch.setattr(run_room, "rule_rewards", lambda task, problems, *more: seen.append(problems) or judge(task, problems, *more))
        training()
    return [{problem.prompt for problem in problems} for problems in seen if len(problems) == 16]


def test_training_on_one_problem_uses_that_problem_only(runs, monkeypatch, straight):
    """Over and over, also after a resume; the problem comes from the train split, and the test split stays what it was."""
    out = runs / "one"
    argv = [*TINY, "--train-problems", "1", "--steps", "2", "--out", str(out)]
    first = prompts_of_each_step(monkeypatch, lambda: train.main(argv))
    again = prompts_of_each_step(monkeypatch, lambda: train.main(["--resume", str(out), "--steps", "3"]))
    assert len(first) == 2 and len(again) == 1 and len(set.union(*first, *again)) == 1
    *numbers, target = map(int, re.findall(r"\d+", next(iter(first[0]))))
    assert split_of(("countdown", *sorted(numbers), target)) == "train"
    assert json.loads((out / "summary.json").read_text())["before"] == json.loads((straight / "summary.json").read_text())["before"]


def test_training_on_a_few_problems_uses_no_others(runs, monkeypatch):
    few = start.start([*TINY, "--train-problems", "60", "--steps", "3", "--out", str(runs / "few")])
    assert len({problem.key for problem in few.train_problems}) == 60 and {split_of(problem.key) for problem in few.train_problems} == {"train"}
    few.train_problems = fixed_problems(few.task, "val", 3)  # three different ones, for certain
    steps = prompts_of_each_step(monkeypatch, lambda: train.train(few))
    assert len(steps) == 3 and set.union(*steps) == {problem.prompt for problem in few.train_problems}
    fresh = [*TINY, "--train-problems", "0", "--steps", "3", "--out", str(runs / "fresh-ones")]
    assert len(set.union(*prompts_of_each_step(monkeypatch, lambda: train.main(fresh)))) > 3


# ---- a curriculum, and a schedule for the learning rate

def test_problems_that_are_known_are_kept_as_often_as_the_curriculum_says(runs, monkeypatch):
    """Two problems, one always solved, one never: with 1 - p as the chance, the first comes once in twenty of its draws."""
    run = start.start([*TINY, "--train-problems", "2", "--curriculum", "priority", "--steps", "0", "--out", str(runs / "curriculum")])
    solved, open_one = run.train_problems = fixed_problems(run.task, "val", 2)
    assert {problem.key for problem in run.draw(50)} == {solved.key, open_one.key}  # unknown: all are kept
    run.remember([solved] * 4 + [open_one] * 4, torch.tensor([1.0] * 4 + [0.0] * 4))
    share = sum(problem is solved for problem in run.draw(4000)) / 4000
    assert share == pytest.approx(0.05 / 1.05, abs=0.02)
    run.remember([open_one] * 4, torch.tensor([1.0, 1.0, 0.0, 0.0]))  # what was seen last counts
    assert run.solved == {repr(solved.key): 1.0, repr(open_one.key): 0.5}


def test_without_a_curriculum_nothing_is_remembered_and_no_random_number_is_drawn(straight):
    run = start.start(["--resume", str(straight), "--steps", "4"])
    run.remember(run.draw(3), torch.ones(3))
    assert run.solved == {}


@pytest.mark.parametrize("schedule, rates", [("constant", [1, 1, 1, 1]), ("linear", [1, 0.75, 0.5, 0.25]),
                                             ("cosine", [1, 0.853553, 0.5, 0.146447])])
def test_the_learning_rate_follows_its_schedule(runs, monkeypatch, schedule, rates):
    """Of four steps; all optimizers of the method, the critic's too."""
    seen, original = [], train.count
    monkeypatch.setattr(train, "count", lambda run, *more: seen.append((run.method.actor_optimizer.rates, run.method.critic_optimizer.rates))
                        or original(run, *more))
    train.main([*TINY, "--algo", "ppo", "--lr", "0.5", "--critic-lr", "0.25", "--lr-schedule", schedule, "--steps", "4",
                "--out", str(runs / f"rates-{schedule}")])
    for step, rate in zip(seen, rates):
        assert step == (pytest.approx([0.5 * rate], abs=1e-6), pytest.approx([0.25 * rate], abs=1e-6))


def test_a_schedule_ends_with_the_tokens_if_they_end_first(runs):
    run = start.start([*TINY, "--lr", "0.5", "--lr-schedule", "linear", "--steps", "1000", "--token-budget", "100", "--out", str(runs / "end")])
    run.step, run.tokens = 10, 75
    run.set_rates()
    assert run.method.optimizer.rates == [0.125]


# ---- what a run leaves

def test_a_run_folder_holds_all_its_files(straight):
    names = {path.name for path in straight.iterdir()}
    assert {"config.json", "metrics.jsonl", "samples.txt", "summary.json", "checkpoint.pt"} <= names
    assert not any(name.endswith(".writing") for name in names)


def test_the_text_in_samples_gives_the_logged_reward_again(straight):
    """Trap 26: what is shown, what is judged and what is logged are one text. EOS is shown, and is not part of it."""
    task = tasks.load("countdown", numbers=2, cot="off")
    pages = (straight / "samples.txt").read_text().split("=== step ")[1:]
    rewards = []
    for page in pages:
        problems = fixed_problems(checkpoint.load_run(straight)[1], "val", 3)
        shown = re.findall(r"(Use [^\n]*\n)(.*?)(<\|eos\|>| \(cut off\))\n--- reward ([^\n]*)\n", page, re.DOTALL)
        assert [prompt for prompt, *_ in shown] == [problem.prompt for problem in problems]
        for prompt, text, ended, reward in shown:
            *numbers, target = map(int, re.findall(r"\d+", prompt))
            problem = Problem(prompt, target, ("countdown", *sorted(numbers), target))
            formed = re.fullmatch("<think>[^<>]*</think><answer>[^<>]+</answer>", text) is not None
            assert float(reward) == (task.verify(problem, text) + 0.5 * formed if ended == "<|eos|>" else 0)
            rewards.append(float(reward))
    assert [int(page.split()[0]) for page in pages] == [0, 4] and len(rewards) == 6


@pytest.fixture
def writer(runs, tmp_path):
    """A run whose policy is certain to write the right answer to the first of the three problems of samples.txt; this text."""
    run = start.start([*TINY, "--steps", "0", "--out", str(tmp_path / "writer")])
    (_, a, b, target), *_ = [problem.key for problem in fixed_problems(run.task, "val", 3)]
    sign = next(sign for sign in "+-*/" if combine(b, sign, a) == target)
    text, ids = f"<think></think><answer>{b} {sign} {a}</answer>", run.task.tokenizer.encode
    run.policy = chain(run.task.tokenizer.n_vocab, *ids(".\n" + text), run.task.tokenizer.eos)
    return run, text


def test_each_sample_that_is_shown_has_its_own_reward(writer):
    """Trap 26: right and well-formed for the first problem, well-formed alone for the others."""
    run, text = writer
    first, *others = [problem.prompt for problem in fixed_problems(run.task, "val", 3)]
    assert run.write_samples() == f"=== step 0\n{first}{text}<|eos|>\n--- reward 1.5\n" + "".join(
        f"{prompt}{text}<|eos|>\n--- reward 0.5\n" for prompt in others)


def test_a_cut_off_sample_is_shown_as_such_and_gets_nothing(writer):
    """Trap 26: seven tokens hold a whole answer of this task, but not its EOS."""
    run, text = writer
    run.max_new_tokens = 7
    page = run.write_samples()
    assert page.count(f"{text} (cut off)\n--- reward 0\n") == 3


def test_the_logged_reward_is_that_of_the_texts_that_were_sampled(runs, straight, monkeypatch):
    """Trap 26 for the loop: reward and accuracy of a line come from the completions of its own rollout."""
    seen, original = [], run_room.rule_rewards
    monkeypatch.setattr(run_room, "rule_rewards", lambda *given: seen.append(given) or original(*given))
    train.main([*TINY, "--steps", "2", "--out", str(runs / "recorded")])
    batches = [given for given in seen if len(given[2]) == 16]
    for line, (task, problems, texts, finished, _) in zip(log(runs / "recorded"), batches, strict=True):
        right = [done and task.verify(problem, text) for problem, text, done in zip(problems, texts, finished)]
        assert line["accuracy"] == pytest.approx(sum(right) / 16) and line["finished"] == pytest.approx(sum(finished) / 16)


def test_sampled_tokens_are_counted(straight):
    lines = log(straight)
    assert lines[-1]["tokens"] == pytest.approx(sum(line["length"] * 16 for line in lines))


def test_training_draws_from_train_looks_at_val_and_reports_test(runs, monkeypatch):
    """Trap 31: test problems are drawn before the first step and after the last one, never between. Trap 21: train on train."""
    looked, trained_on = [], set()
    draw, judge, step = train.fixed_problems, run_room.rule_rewards, train.step

    def watched_judge(task, problems, *more):
        if len(problems) == 16:  # a training batch; the three of samples.txt are judged, too
            trained_on.update(split_of(problem.key) for problem in problems)
        return judge(task, problems, *more)

    monkeypatch.setattr(run_room, "rule_rewards", watched_judge)
    monkeypatch.setattr(train, "fixed_problems", lambda task, split, n: looked.append(split) or draw(task, split, n))
    monkeypatch.setattr(train, "step", lambda self: looked.append("step") or step(self))
    train.main([*TINY, "--eval-every", "1", "--steps", "2", "--out", str(runs / "splits")])
    first, last = looked.index("step"), len(looked) - looked[::-1].index("step")
    assert "test" in looked[:first] and "test" in looked[last:]
    assert set(looked[first:last]) == {"step", "val"} and "train" not in looked and trained_on == {"train"}


def test_the_summary_puts_rivals_beside_the_result(runs):
    """Trap 30: random search with as many attempts, the demonstrations, and imitation for as long as RL took."""
    summary = train.main([*TINY, "--steps", "1", "--baselines", "--out", str(runs / "rivals")])
    assert summary == json.loads((runs / "rivals/summary.json").read_text())
    assert all(0 <= summary["baselines"][name] <= 1 for name in ("random_search", "demonstrations", "continued_sft"))
    assert 0 <= summary["before"]["pass@1"] <= 1 and 0 <= summary["after"]["pass@1"] <= 1


def test_a_token_budget_ends_the_run(runs):
    summary = train.main([*TINY, "--steps", "50", "--token-budget", "200", "--out", str(runs / "budget")])
    assert 1 <= summary["steps"] < 50 and summary["tokens"] >= 200
    assert log(runs / "budget")[-2]["tokens"] < 200 if summary["steps"] > 1 else True


def test_the_warm_start_alone_is_a_run_too(runs):
    summary = train.main(["--algo", "sft", *(flag for flag in TINY if flag not in ("--lr", "0.003")), "--out", str(runs / "sft")])
    assert summary["steps"] == 0 and summary["before"] == summary["after"] and log(runs / "sft") == []


def test_the_warm_start_takes_no_setting_that_it_would_ignore(capsys):
    with pytest.raises(SystemExit):
        train.main(["--algo", "sft", *TINY])
    assert "--lr" in capsys.readouterr().err


def test_a_run_can_start_from_another(runs, straight, capsys):
    train.main([*TINY, "--steps", "0", "--init", str(straight), "--out", str(runs / "heir")])
    ours, theirs = weights(runs / "heir"), weights(straight)
    assert all(torch.equal(w, theirs[name]) for name, w in ours.items())


def test_runs_without_a_name_do_not_write_over_each_other(runs):
    for _ in range(2):
        train.main([*TINY, "--steps", "0"])
    assert (runs / f"grpo-countdown-{seed()}/summary.json").exists() and (runs / f"grpo-countdown-{seed()}-2/summary.json").exists()


# ---- bad input: one line, exit status 2

def refused(argv, capsys):
    """-> the line. Fails if the command line is accepted, or answered with anything else than one line."""
    capsys.readouterr()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(start, "make_warm_start", lambda *_: pytest.fail(f"{argv} was not refused"))
        with pytest.raises((InputError, SystemExit)) as error:
            train.main(argv)
    line = str(error.value)
    if error.type is SystemExit:
        assert error.value.code == 2
        line = capsys.readouterr().err.strip()
    assert line and "\n" not in line
    return line


@pytest.mark.parametrize("flags, named", [
    ("--task chess", "chess"), ("--algo foo", "foo"), ("--numbers 1", "--numbers"), ("--numbers two", "--numbers"),
    ("--group-size 1", "--group-size"), ("--group-size 2.5", "--group-size"), ("--lr nan", "--lr"), ("--lr -1", "--lr"),
    ("--init missing", "missing"), ("--block-size 8", "--block-size"), ("--max-new-tokens 2", "--max-new-tokens"),
    ("--fish 3", "--fish"), ("fish", "fish"), ("--steps", "--steps"), ("--ste 3", "--ste"), ("--resume nowhere", "nowhere"),
    ("--n-embd 34", "--n-embd"), ("--loss-aggregation mean", "--loss-aggregation"), ("--temperature 0", "--temperature"),
    ("--seed -1", "--seed"), ("--lr inf", "--lr"),
    ("--test-samples 8", "--test-samples"), ("--dtype float16", "--dtype"), ("--device tpu", "--device"),
    ("--top-k 5", "--top-k"), ("--top-p 0.9", "--top-p"),  # trap 6: what is sampled from must be what is trained
    ("--algo dpo --group-size 1", "--group-size"), ("--algo rloo --group-size 1", "--group-size"),  # nothing to compare with
    ("--algo grpo --top-entropy 0", "--top-entropy"), ("--algo grpo --kl-estimator k4", "--kl-estimator"),
    ("--algo star --teacher nowhere", "nowhere"), ("--algo star --teacher", "--teacher"),
    ("--init missing --fresh", "--fresh"),
    ("--algo ppo --baseline others", "--baseline"), ("--train-problems -1", "--train-problems"),
], ids=lambda x: x)
def test_bad_input_is_refused_in_one_line_that_names_it(flags, named, runs, tmp_path, capsys):
    line = refused([*TINY, *flags.split(), "--out", str(tmp_path / "x")], capsys)
    assert named in line
    assert not (tmp_path / "x").exists()  # nothing is left of a run that could not begin


@pytest.mark.parametrize("flags", ["--curriculum band", "--lr-schedule linear", "--token-budget 9", "--train-problems 2", "--baselines"])
def test_the_warm_start_alone_refuses_what_only_a_loop_would_heed(flags, tmp_path, capsys):
    assert flags.split()[0] in refused(["--algo", "sft", *flags.split(), "--out", str(tmp_path / "x")], capsys)
    assert not (tmp_path / "x").exists()


def test_a_folder_that_holds_a_run_is_not_written_over(straight, capsys):
    before = (straight / "config.json").read_bytes()
    assert "--resume" in refused([*TINY, "--out", str(straight)], capsys)
    assert (straight / "config.json").read_bytes() == before


def test_a_folder_that_cannot_be_made_is_refused(tmp_path, capsys):
    (tmp_path / "file").write_text("x")
    refused([*TINY, "--out", str(tmp_path / "file")], capsys)
    refused([*TINY, "--out", str(tmp_path / "file/run")], capsys)


@pytest.mark.parametrize("flags", ["--n-layer 2", "--n-embd 64", "--n-head 4"])
def test_an_init_of_another_shape_is_refused_with_the_flag_that_helps(straight, flags, tmp_path, capsys):
    line = refused([*TINY, *flags.split(), "--init", str(straight), "--out", str(tmp_path / "x")], capsys)
    assert flags.split()[0] in line


@pytest.mark.parametrize("damage", ["cut short", "another file", "another vocabulary"])
def test_an_init_that_cannot_be_used_is_refused(straight, damage, tmp_path, capsys):
    content, path = (straight / "checkpoint.pt").read_bytes(), tmp_path / "init.pt"
    path.write_bytes({"cut short": content[:len(content) // 2], "another file": b"hello"}.get(damage, content))
    if damage == "another vocabulary":
        torch.save(torch.load(path, weights_only=True) | {"vocabulary": ["a", "b"]}, path)
    assert str(path) in refused([*TINY, "--init", str(path), "--out", str(tmp_path / "x")], capsys)


@pytest.mark.parametrize("flags", ["--lr 0.1", f"--seed {seed(1)}", "--group-size 8", "--init x"])
def test_a_resumed_run_keeps_its_settings(straight, flags, capsys):
    assert flags.split()[0] in refused(["--resume", str(straight), *flags.split()], capsys)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"algo": "grpo"}', '{"model_type": "llama"}',
                                     '{"algo": "x", "task": "countdown"}'])
def test_a_folder_with_a_foreign_config_cannot_be_resumed(content, tmp_path, capsys):
    (tmp_path / "config.json").write_text(content)
    refused(["--resume", str(tmp_path)], capsys)


def test_a_run_whose_checkpoint_is_cut_short_cannot_be_resumed(straight, tmp_path, capsys):
    for name in ("config.json", "metrics.jsonl", "samples.txt"):
        (tmp_path / name).write_bytes((straight / name).read_bytes())
    (tmp_path / "checkpoint.pt").write_bytes((straight / "checkpoint.pt").read_bytes()[:1000])
    assert "checkpoint.pt" in refused(["--resume", str(tmp_path)], capsys)


@pytest.mark.parametrize("argv", [["--task", "chess"], ["--fish"], ["--resume", "nowhere"],
                                  ["--algo", "star", "--teacher", "nowhere"]], ids=" ".join)
def test_the_real_command_exits_with_status_2_and_one_line(argv):
    here = pathlib.Path(train.__file__).parent
    done = subprocess.run([sys.executable, "train.py", *argv], cwd=here, capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1 and "Traceback" not in done.stderr


def test_help_names_every_setting(capsys):
    with pytest.raises(SystemExit) as error:
        train.main(["--help"])
    text = capsys.readouterr().out
    assert error.value.code == 0
    for name in ("--algo", "--task", "--seed", "--out", "--init", "--resume", "--device", "--dtype", "--steps",
                 "--token-budget", "--sft-steps", "--lr", "--group-size", "--prompts", "--temperature", "--max-new-tokens",
                 "--eval-every", "--checkpoint-every", "--cot"):
        assert name in text


def test_a_task_may_suggest_settings_and_a_flag_overrules_them():
    assert start.configure("grpo", "countdown", {})["loop"].steps == 200
    assert start.configure("grpo", "circuit", {})["loop"].steps == 100
    assert start.configure("grpo", "circuit", {"steps": 7})["loop"].steps == 7


@pytest.mark.parametrize("flags", ["--task modular_addition --m 2 --min-k 2 --max-k 2", "--task iterated_squaring --p 5 --max-k 2",
                                   "--task countdown --numbers 2 --max-number 2 --max-target 2"])
def test_settings_that_leave_a_split_empty_are_refused(flags, runs, tmp_path, capsys):
    """They would be searched for a problem for ever."""
    assert "choose" in refused([*flags.split(), "--out", str(tmp_path / "x")], capsys)
    assert not (tmp_path / "x").exists()


def test_what_waits_and_is_priced_by_length_survives_a_resume(runs, monkeypatch):
    """Groups that wait have had their price before they wait: a checkpoint holds tensors, and no problems."""
    argv = [*TINY, "--algo", "dapo", "--length-weight", "0.5", "--prompts", "4", "--out"]
    judged = run_room.rule_rewards

    def one_group(task, problems, *more):
        """Of four groups one has variance, whatever was sampled: four steps fill a batch."""
        return (torch.arange(len(problems)) == 0).float(), judged(task, problems, *more)[1]

    monkeypatch.setattr(run_room, "rule_rewards", one_group)
    names = runs / "priced-straight", runs / "priced-resumed"
    train.main([*argv, str(names[0]), "--steps", "6"])
    train.main([*argv, str(names[1]), "--steps", "3"])
    assert len(checkpoint.load(names[1])["algorithm"]["waiting"]) == 3
    train.main(["--resume", str(names[1]), "--steps", "6"])
    assert_same_run(*names)
    assert log(names[0])[-1]["updates"] > 0


def test_what_never_knew_anything_has_not_collapsed():
    """One right sample of 512, then none: there is nothing to go back to, and a lower rate would not help."""
    line = {"accuracy": 0.0, "reward": 0.0, "entropy": 1.0}
    [warning] = train.collapse([line | {"accuracy": 1 / 512, "reward": 1 / 512}] + [line] * 9)
    assert "--sft-steps" in warning and "collapsed" not in warning
    [warning] = train.collapse([line | {"accuracy": 0.3, "reward": 0.3}] * 5 + [line] * 5)
    assert "collapsed" in warning


def test_the_memory_of_monte_carlo_rollouts_is_counted(tmp_path):
    """In batches of at most verifier.ROLLOUT_BATCH sequences, whatever --rollouts says."""
    def expected(*flags):
        algo, task, given, _ = start.read_command_line(["--algo", "prm", "--prompts", "16", "--device", "cpu", *flags])
        return start.expected_memory(Run(None, algo, task, start.configure(algo, task, given)))
    outcome = expected("--algo", "orm", "--prompts", "16")  # makes none
    assert outcome < expected("--rollouts", "1") <= expected("--rollouts", "16") == expected("--rollouts", "64") < 2 * outcome
    vine = [expected("--algo", "vineppo", "--group-size", "4", "--rollouts", n) for n in ("1", "64")]
    assert outcome < vine[0] <= vine[1]  # and those of a method that values its states by them


def test_a_warm_start_alone_needs_no_more_memory_than_what_comes_after_it():
    """It samples as many rows to be measured, and trains on no more at a time than --sft-micro-batch."""
    expected = lambda algo: start.expected_memory(Run(None, algo, "countdown", start.configure(algo, "countdown", {"device": "cpu"})))
    assert expected("sft") <= expected("grpo")


def test_help_says_each_default_once(capsys):
    with pytest.raises(SystemExit):
        train.main(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "(default: None)" not in text and text.count("(default: grpo)") == 1


def test_the_report_shows_whether_the_steps_are_still_true(straight):
    summary = json.loads((straight / "summary.json").read_text())
    thinking = {"attempts": 2.0, "legal": 1.5}
    summary = summary | {"before": summary["before"] | thinking, "after": summary["after"] | thinking}
    head, before, after, *_ = report(summary).splitlines()
    assert head.startswith("3 test problems") and head.split()[-1] == "legal" and before.split()[-1] == after.split()[-1] == "0.750"
    assert len(head) == len(before) == len(after)


def test_more_than_one_skipped_step_of_an_update_is_counted(runs, monkeypatch):
    class Slips(grpo.GRPO):
        def update(self, rollout, rewards):
            return super().update(rollout, rewards) | {"updates": 1, "skipped": 3, "grad_norm": math.nan}
    core = catalogue.core()
    monkeypatch.setattr(catalogue, "core", lambda: core | {"grpo": (Slips, {})})
    train.main([*TINY, "--steps", "2", "--out", str(runs / "slips")])
    assert [line["skipped"] for line in log(runs / "slips")] == [3, 6] and log(runs / "slips")[0]["grad_norm"] is None


# ---- the books: what is counted, compared and summed up

@pytest.fixture
def again(straight, tmp_path):
    """The run of four steps, resumed in a copy of its folder."""
    return start.start(["--resume", str(shutil.copytree(straight, tmp_path / "copy"))])


@pytest.fixture
def imitated(again, monkeypatch):
    """What --baselines trains and measures, without doing it."""
    seen = SimpleNamespace(run=again)

    def watched(model, task, config, seed, seconds):
        seen.weights = {name: w.clone() for name, w in model.state_dict().items()}
        seen.seed, seen.seconds = seed, seconds

    monkeypatch.setattr(train, "warm_start", watched)
    monkeypatch.setattr(train, "evaluate", lambda model, task, problems, *_: vars(seen).setdefault("problems", problems))
    again.seconds = {"warm_start": 3.0, "rl": 12.5, "evaluation": 1.0}
    train.continued_sft(again)
    return seen


def test_continued_sft_begins_with_the_weights_of_the_warm_start(imitated):
    """Trap 30: the policy of the run has learned already what the rival is compared with."""
    warm = checkpoint.load(imitated.run.warm_start)["model"]
    assert all(torch.equal(w, warm[name]) for name, w in imitated.weights.items())


def test_continued_sft_lasts_as_long_as_rl_and_sees_new_demonstrations(imitated):
    assert imitated.seconds == 12.5 and imitated.seed != imitated.run.loop.seed


def test_continued_sft_is_measured_on_the_problems_of_the_summary(imitated):
    assert imitated.problems == fixed_problems(imitated.run.task, "test", 3)


def test_the_summary_is_of_the_policy_as_it_is_at_the_end(again, monkeypatch):
    """And random search is given as many attempts as that policy makes, not as the warm start made."""
    given = []
    monkeypatch.setattr(train, "look", lambda run, split: {"pass@1": 0.75, "attempts": 5.0})
    monkeypatch.setattr(again.task, "random_search", lambda problems, attempts, **_: given.append(attempts) or 0.5)
    again.before = {"pass@1": 0.25, "attempts": 2.0}
    summary = train.finish(again)
    assert summary["before"] == {"pass@1": 0.25, "attempts": 2.0} and summary["after"] == {"pass@1": 0.75, "attempts": 5.0}
    assert given == [5.0] and summary["baselines"]["random_search"] == 0.5


def test_everything_in_the_summary_is_about_test_problems(again, monkeypatch):
    """Trap 31: the demonstrations and random search too, or the rivals would have had other problems."""
    splits, draw = [], train.fixed_problems
    monkeypatch.setattr(train, "fixed_problems", lambda task, split, count: splits.append(split) or draw(task, split, count))
    train.finish(again)
    assert len(splits) == 3 and set(splits) == {"test"}


def test_a_look_at_val_has_the_random_search_of_that_very_look(again, monkeypatch):
    given = []
    monkeypatch.setattr(train, "look", lambda run, split: {"attempts": 5.0})
    monkeypatch.setattr(again.task, "random_search", lambda problems, attempts, **_: given.append(attempts) or 0.5)
    again.before, again.loop.eval_every, again.loop.steps = {"attempts": 2.0}, 1, 5
    train.train(again)
    assert given == [5.0]


def test_an_answer_without_thinking_is_one_attempt_of_random_search(again, monkeypatch):
    monkeypatch.setattr(again.task, "random_search", lambda problems, attempts, **_: attempts)
    assert [train.random_search(again, "val", result) for result in ({"attempts": 0.0}, {}, {"attempts": 2.5})] == [1.0, 1.0, 2.5]


def test_looks_at_val_come_every_so_many_steps(runs):
    train.main([*TINY, "--steps", "5", "--eval-every", "2", "--out", str(runs / "second-looks")])
    assert [line["step"] for line in log(runs / "second-looks") if "val_pass@1" in line] == [2, 4]


def test_every_look_has_the_same_dice(again, monkeypatch):
    """Two looks at one policy must not differ by luck."""
    monkeypatch.setattr(train, "evaluate", lambda model, *given, **more: (given, more))
    looks = []
    for again.step in (0, 7):
        looks.append(train.look(again, "val"))
    assert looks[0] == looks[1]


def test_what_was_sampled_and_thrown_away_is_counted(runs, monkeypatch):
    """A search, or labels by rollouts, must not look cheaper than it is: a token budget is for all tokens."""
    class Wasteful(grpo.GRPO):
        def collect(self, problems):
            rollout = super().collect(problems)
            rollout.discarded = 1000
            return rollout
    core = catalogue.core()
    monkeypatch.setattr(catalogue, "core", lambda: core | {"grpo": (Wasteful, {})})
    train.main([*TINY, "--steps", "9", "--token-budget", "2000", "--out", str(runs / "wasteful")])
    lines = log(runs / "wasteful")
    assert len(lines) == 2 and lines[-1]["tokens"] == pytest.approx(2000 + sum(line["length"] * 16 for line in lines))


def test_a_token_budget_that_is_met_exactly_is_met(runs, straight):
    train.main([*TINY, "--steps", "4", "--token-budget", str(log(straight)[1]["tokens"]), "--out", str(runs / "exact")])
    assert log(runs / "exact") == log(straight)[:2]


def test_a_resumed_run_goes_on_counting(straight, tmp_path):
    """Every number that a run adds up, and what it was before it all began, comes from the checkpoint."""
    folder = shutil.copytree(straight, tmp_path / "copy")
    content, books = checkpoint.load(folder), {"tokens": 12345, "updates": 17, "skipped": 7, "before": {"pass@1": 0.125},
                                              "seconds": {"warm_start": 1.0, "rl": 20.0, "evaluation": 3.0}}
    content["state"] |= books
    torch.save(content, folder / "checkpoint.pt")
    run = start.start(["--resume", str(folder)])
    assert {name: getattr(run, name) for name in books} == books


def test_the_global_random_state_is_part_of_a_run(straight, tmp_path):
    """Trap 25: nothing here draws from it, but a reader's own algorithm may."""
    folder = shutil.copytree(straight, tmp_path / "copy")
    content = checkpoint.load(folder)
    content["state"]["torch_rng"] = torch.manual_seed(seed(99)).get_state()
    torch.save(content, folder / "checkpoint.pt")
    start.start(["--resume", str(folder)])
    assert torch.equal(torch.get_rng_state(), content["state"]["torch_rng"])


def test_the_seed_decides_the_problems_and_the_dice():
    """Each by itself: weights that differ would hide a stream of problems, or of random numbers, that never does."""
    def drawn(n):
        algo, task, given, _ = start.read_command_line([*TINY, "--train-problems", "20", "--seed", str(seed(n))])
        run = Run(None, algo, task, start.configure(algo, task, given))
        run.build()
        return run.train_problems, [run.task.sample_problem(run.rng) for _ in range(20)], torch.rand(20, generator=run.generator).tolist()
    assert drawn(0) == drawn(0)
    assert all(ours != theirs for ours, theirs in zip(drawn(0), drawn(1)))


@pytest.fixture
def clock(monkeypatch):
    """time.time() of train.py alone: `clock.now`, which only a test moves."""
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(train, "time", SimpleNamespace(time=lambda: clock.now))
    return clock


def test_seconds_add_up(again, clock, monkeypatch):
    """Steps of 2 s and looks of 5 s; what checks the log-probs before the first step is neither."""
    def takes(seconds, result):
        def work(*_, **__):
            clock.now += seconds
            return result
        return work
    monkeypatch.setattr(train, "largest_log_ratio", takes(100, 0.0))
    monkeypatch.setattr(again.method, "update", takes(2, {"updates": 1}))
    monkeypatch.setattr(train, "evaluate", takes(5, {}))
    again.step, again.seconds = 0, {"warm_start": 1.0, "rl": 0.0, "evaluation": 0.0}
    for _ in range(3):
        assert train.step(again)["seconds"] == 2
        train.look(again, "val")
    assert again.seconds == {"warm_start": 1.0, "rl": 6.0, "evaluation": 15.0}


def test_log_probs_are_checked_at_the_temperature_of_sampling(again, monkeypatch):
    """Trap 6: at another one they would differ, and the warning would be false."""
    found, check = [], train.largest_log_ratio
    monkeypatch.setattr(train, "largest_log_ratio", lambda *given: found.append(check(*given)) or found[-1])
    again.step, again.method.config.temperature = 0, 0.5
    train.step(again)
    assert found[0] < 1e-4


def test_a_look_and_the_samples_are_at_the_temperature_of_the_run(again, monkeypatch):
    """The distribution that is trained is the one that is measured."""
    seen, sample = [], run_room.collect
    monkeypatch.setattr(train, "evaluate", lambda *given: seen.append(given[6]) or {})
    monkeypatch.setattr(run_room, "collect", lambda *given: seen.append(given[3].temperature) or sample(*given))
    again.temperature = 0.5
    train.look(again, "val")
    again.write_samples()
    assert seen == [0.5, 0.5]


def test_a_sampler_of_low_precision_is_no_false_alarm(again, monkeypatch, capsys):
    monkeypatch.setattr(train, "largest_log_ratio", lambda *_: 0.01)
    for dtype, warned in (("float32", True), ("bfloat16", False)):
        monkeypatch.setattr(again.method, "config", SimpleNamespace(temperature=1.0, sampler_dtype=dtype))
        train.check_log_probs(again, None)
        assert ("warning" in capsys.readouterr().out) == warned


def test_the_logged_entropy_is_the_mean_over_sampled_tokens(again, monkeypatch):
    """Prompt and padding are no choices."""
    rollout = again.method.collect([again.task.sample_problem(again.rng) for _ in range(4)])
    monkeypatch.setattr(again.method, "collect", lambda problems: rollout)
    assert train.step(again)["entropy"] == pytest.approx(-float(rollout.logprobs[rollout.mask].mean()), rel=1e-4)


def test_five_bad_steps_in_a_row_end_a_run_and_four_do_not(runs, monkeypatch):
    bad = [*[True] * 4, False] * 2 + [True] * 5

    class Slips(grpo.GRPO):
        def update(self, rollout, rewards):
            return {"updates": 0, "skipped": int(bad.pop(0))}
    core = catalogue.core()
    monkeypatch.setattr(catalogue, "core", lambda: core | {"grpo": (Slips, {})})
    with pytest.raises(InputError, match="up to step 15"):
        train.main([*TINY, "--steps", "20", "--out", str(runs / "bad")])
    assert bad == []


def test_the_last_checkpoint_is_of_the_last_step(runs):
    train.main([*TINY, "--steps", "3", "--out", str(runs / "three")])
    assert checkpoint.load(runs / "three")["state"]["step"] == 3


def test_a_warm_start_from_the_cache_took_as_long_as_it_took(tmp_path, monkeypatch):
    """Else the second algorithm would seem to be quicker than the first."""
    monkeypatch.setattr(start, "RUNS", tmp_path)
    took = [start.start([*TINY, "--sft-steps", "1", "--out", str(tmp_path / name)]).seconds["warm_start"] for name in ("miss", "hit")]
    assert took[0] == took[1] > 0


def test_another_code_is_another_warm_start(again, tmp_path, monkeypatch):
    """The cache would outlive a change of the model, of its training or of the task."""
    here, task = pathlib.Path(sft.__file__).parent, again.task
    for name in ("config", "model", "optimize", "sample", "sft", "rewards", "tasks/__init__", "tasks/tokenizer", "tasks/serial", "tasks/dialogue",
                 "tasks/countdown"):
        (tmp_path / "code" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(here / f"{name}.py", tmp_path / "code" / f"{name}.py")
    path = lambda: cache_path(start.RUNS, task, again.policy, again.configs["sft"], 0)
    before = path()
    monkeypatch.setattr(warm_starts, "__file__", str(tmp_path / "code/plumbing/warm_starts.py"))
    monkeypatch.setattr(sys.modules[type(task).__module__], "__file__", str(tmp_path / "code/tasks/countdown.py"))
    assert path() == before
    for file in sorted((tmp_path / "code").rglob("*.py")):
        text = file.read_text()
        file.write_text(text + "# another line\n")
        assert path() != before, file.name
        file.write_text(text)


def test_on_a_gpu_the_whole_batch_is_a_micro_batch_unless_memory_or_a_flag_says_otherwise():
    def sizes(memory, **given):
        run = Run(None, "grpo", "countdown", start.configure("grpo", "countdown", {"device": "cpu", **given}))
        start.widen_micro_batches(run, given, memory)
        return run.configs["algorithm"].micro_batch, run.configs["sft"].sft_micro_batch, start.row_memory(run)
    whole, sft, row = sizes(80e9)
    assert (whole, sft) == (64 * 8, 64) and sizes(80e9, prompts=100)[0] == 800
    assert sizes(4 * 100 * row)[:2] == (100, 64) and sizes(4 * row)[:2] == (32, 32)  # never below the default
    assert sizes(80e9, micro_batch=7, sft_micro_batch=5)[:2] == (7, 5)


def test_a_reward_below_zero_that_rises_is_no_collapse():
    """--step-penalty: a fifth of a negative number is more than the number."""
    line = {"accuracy": 0.1, "entropy": 0.5}
    assert train.collapse([line | {"reward": -0.3}] * 5 + [line | {"reward": -0.2}] * 5) == []


def test_the_time_that_is_left_ends_with_the_tokens():
    loop = SimpleNamespace(steps=10**6, token_budget=100_000, eval_every=0, test_problems=1, test_samples=16, eval_problems=1, baselines=False)
    run = SimpleNamespace(loop=loop, step=3, tokens=60_000, seconds={"evaluation": 0.0})
    assert train.seconds_left(run, 2.0) == 2 * 2.0  # 20,000 tokens a step: two more


def test_a_kl_target_wants_a_beta_to_move():
    with pytest.raises(InputError, match="--beta above 0"):
        catalogue.find("ppo")[0](None, None, SimpleNamespace(kl_target=0.5, beta=0.0))


def test_a_warm_start_knows_the_file_its_task_is_built_on(monkeypatch):
    """Stream of Search takes its steps from countdown.py."""
    task, read = tasks.load("stream_of_search"), []
    monkeypatch.setattr(pathlib.Path, "read_bytes", lambda path: read.append(path.name) or b"")
    model = SimpleNamespace(config=sft.SFTConfig(), compute_dtype=torch.float32, device=torch.device("cpu"))
    warm_starts.cache_path(pathlib.Path("runs"), task, model, sft.SFTConfig(), 0)
    assert {"countdown.py", "stream_of_search.py"} <= set(read)
