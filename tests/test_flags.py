"""Every flag of every command: what an impossible, a wrongly typed and a borderline value give.

The table is made from the dataclasses themselves, so that a new flag is in it by itself:

    kind       refused in one line that names the flag                                    accepted as typed
    int        empty, 1e3, 1.5, True, nan, 1_0, ٣, " 3", 0x10, 5,000 digits, low - 1, high + 1   low, high
    float      empty, nan, inf, 1e999, True, 1_0, ٣, "1,5", just below low, just above high      low, high, -0.0 where 0.0 is
    choice     empty, in capitals, with a blank, another word                             each choice
    bool       --flag=True, --flag=1, --flag=                                             --flag, --no-flag
    path       (a name that is too long, an empty --resume: below)                        whatever a file can be called
"""
import dataclasses
import math
import pathlib
import subprocess
import sys

import pytest

import evaluate
import plot
import search
import tasks
import train
import verifier
from bench import speed
from config import InputError, Parser, add_flags, flag, from_flags
from plumbing import catalogue, search_command, start

WORDS = {int: ["", "1e3", "1.5", "True", "nan", "1_0", "٣", " 3", "0x10", "--", "9" * 5000],
         float: ["", "nan", "inf", "-inf", "1e999", "True", "1_0", "٣", "1,5", " 3"]}
RUN_FLAGS = {}  # (class of settings, flag): (the command line that has it, its field)
for algo, task in [(algo, "countdown") for algo in ("sft", *catalogue.names())] + [("grpo", task) for task in tasks.names()]:
    for config_class in start.config_classes(algo, task).values():
        for f in dataclasses.fields(config_class):
            RUN_FLAGS.setdefault((config_class, flag(f.name)), (["--algo", algo, "--task", task], f))
COMMANDS = [(module, config_class, f) for module, config_class in
            ((evaluate, evaluate.EvaluateConfig), (search, search_command.SearchConfig), (verifier, verifier.MeasureConfig),
             (speed, speed.BenchConfig)) for f in dataclasses.fields(config_class)]
each_run_flag = pytest.mark.parametrize("argv, f", RUN_FLAGS.values(), ids=[f"{c.__name__} {name}" for c, name in RUN_FLAGS])
each_other_flag = pytest.mark.parametrize("module, config_class, f", COMMANDS, ids=lambda x: getattr(x, "name", None))


def refused_values(f):
    """-> the ways of typing a flag that must be refused, as lists of words."""
    low, high, choices = f.metadata["low"], f.metadata["high"], f.metadata["choices"]
    if f.type is bool:
        return [[flag(f.name) + "=" + text] for text in ("True", "1", "")]
    texts = list(WORDS.get(f.type, []))
    if choices:
        texts = ["", choices[0].upper(), choices[0] + " ", " ".join(choices), "other"]
    elif f.type is int:
        texts += [str(low - 1), str(high + 1)]
    elif f.type is float:
        texts += [repr(math.nextafter(low, -math.inf)), repr(math.nextafter(high, math.inf))]
    return [[flag(f.name)]] + [[f"{flag(f.name)}={text}"] for text in texts]


def allowed_values(f):
    """-> pairs: words that must be accepted, and what the field then is."""
    if f.type is bool:
        return [([flag(f.name)], True), (["--no-" + flag(f.name)[2:]], False)]
    ends = f.metadata["choices"] or [end for end in (f.metadata["low"], f.metadata["high"]) if end is not None]
    ends = [*ends, -0.0] if f.type is float and f.metadata["low"] == 0 else ends or ["a name, with blanks"]
    return [([f"{flag(f.name)}={end}"], end) for end in ends]


def refusal(command, capsys):
    """Run something that must refuse its input -> the one line."""
    with pytest.raises((InputError, SystemExit)) as error:
        command()
    captured = capsys.readouterr()
    if error.type is SystemExit:
        assert error.value.code == 2
        line = captured.err.removesuffix("\n")
        assert line.startswith("error: ")
    else:  # printed behind "error: ", exit status 2: test_the_real_commands below
        line = str(error.value)
        assert captured.err == ""
    assert captured.out == "" and "\n" not in line
    return line


def settings(argv):
    algo, task, given, _ = start.read_command_line(argv)
    return start.configure(algo, task, given)


@each_run_flag
def test_train_refuses_what_is_impossible_or_of_another_type(argv, f, capsys):
    for words in refused_values(f):
        assert flag(f.name) in refusal(lambda: settings([*argv, *words]), capsys), words


@each_run_flag
def test_train_accepts_both_ends_of_what_is_allowed(argv, f):
    for words, value in allowed_values(f):
        found = [getattr(config, f.name) for config in settings([*argv, *words]).values() if hasattr(config, f.name)]
        assert found and all(each == value and type(each) is f.type for each in found), words


@each_other_flag
def test_the_other_commands_refuse_what_is_impossible_or_of_another_type(module, config_class, f, capsys):
    """Also before they look at the run, which is not there."""
    for words in refused_values(f):
        assert flag(f.name) in refusal(lambda: module.main(["nowhere", *words]), capsys), words


@each_other_flag
def test_the_other_commands_accept_both_ends_of_what_is_allowed(module, config_class, f):
    parser = Parser()
    add_flags(parser, config_class)
    for words, value in allowed_values(f):
        assert getattr(from_flags(config_class, vars(parser.parse_args(words))), f.name) == value, words


def test_every_number_has_two_bounds():
    """Or a mistyped one would be found out by the memory, after an hour."""
    fields = [f for _, f in RUN_FLAGS.values()] + [f for _, _, f in COMMANDS]
    assert [f.name for f in fields if f.type in (int, float) and None in (f.metadata["low"], f.metadata["high"])] == []


@pytest.mark.parametrize("module, name, text", [
    *((evaluate, "--k", text) for text in ("", "0", "1,", ",1", "1e3", "1.5", "-1", "1 8", "٣", "1_0", "8\n", "99999999")),
    *((search, "--budget", text) for text in ("", "0", "64,", "1e3", "-64", "٣", "64 128")),
    *((search, "--method", text) for text in ("", "fish", "MCTS", "mcts,", "mcts, greedy")),
], ids=lambda x: getattr(x, "__name__", repr(x)))
def test_lists_that_are_not_lists_of_what_they_should_be_are_refused(module, name, text, capsys):
    assert name in refusal(lambda: module.main(["nowhere", f"{name}={text}"]), capsys)


@pytest.mark.parametrize("name", ["--algo", "--task", "--resume"])
@pytest.mark.parametrize("text", ["", " ", "GRPO", "grpo,ppo", "../tasks", "two\nlines", "x" * 5000],
                         ids=lambda text: repr(text[:9]))
def test_what_is_run_must_be_there(name, text, capsys):
    """An empty one too: it is the variable of a script that was never set, and must not begin the default run."""
    assert name in refusal(lambda: train.main([name, text]), capsys)


@pytest.mark.parametrize("flags, named", [
    ("--fresh True", "True"), ("--steps 1 2", "2"), ("--no-steps", "--no-steps"), ("--Steps 1", "--Steps"), ("-steps 1", "-steps"),
    ("--steps=1\n2", "--steps"), ("--\nfish", "fish"), ("--lr -1e-3", "--lr"),
    ("--task modular_addition --min-k 5 --max-k 3", "--min-k"), ("--task iterated_squaring --min-k 5 --max-k 3", "--min-k"),
    ("--targets reachable --numbers 6", "--targets"), ("--algo sft --kl-estimator k1 --lam 1", "--lam"),
    ("--algo grpo --gates 3", "--gates"),
    ("--task circuit --numbers 3", "--numbers"), ("--n-embd 2 --n-head 100", "--n-head"), ("--block-size 1", "--block-size"),
    (f"--init {'x' * 5000}", "xxx"), (f"--out {'x' * 5000}", "--out"), ("--out /dev/null/run", "--out"),
    ("--init /dev/null", "/dev/null"), ("--algo distill", "--teacher RUN"), ("--algo distill --teacher nowhere", "nowhere"),
    ("--algo rm_rl --judge-run nowhere", "nowhere"), ("--algo grpo --curriculum hard", "--curriculum"), ("--algo cov --cov both", "--cov"),
], ids=lambda text: text[:40].replace("\n", " "))
def test_what_does_not_go_together_is_refused_before_a_folder_is_made(flags, named, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(start, "RUNS", tmp_path / "runs")
    assert named in refusal(lambda: train.main(flags.split(" ")), capsys)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("module, argv", [(evaluate, []), (search, []), (verifier, []), (plot, []), (plot, ["--chains=True", "x"]),
                                          (evaluate, ["x" * 5000]), (search, ["x" * 5000]), (verifier, ["nowhere"]),
                                          (speed, ["nowhere"]), (plot, ["nowhere"]), (plot, ["--chains", "nowhere"]),
                                          (evaluate, ["nowhere", "--k", "8", "--samples", "4"])],
                         ids=lambda x: getattr(x, "__name__", None) or " ".join(x)[:20])
def test_a_command_without_its_run_is_refused(module, argv, capsys):
    refusal(lambda: module.main(argv), capsys)


@pytest.mark.parametrize("command", ["train", "evaluate", "search", "verifier", "bench/speed"])
def test_the_real_commands_print_one_line_and_exit_with_status_2(command):
    """What the table cannot show: how the command itself ends. One value is refused by argparse, one by us: train has both."""
    argv = {"train": ["--task", "two\nlines"]}.get(command, ["nowhere", "--problems" if command != "bench/speed" else "--rows", "0"])
    here = pathlib.Path(train.__file__).parent
    done = subprocess.run([sys.executable, f"{command}.py", *argv], cwd=here, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1) and done.stderr.startswith("error: --")
