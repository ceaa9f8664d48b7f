"""ask.py: every task reads what it writes, answers carry their verdict and their probability, what cannot be read gets one line."""
import builtins
import math
import pathlib
import random
import re
import subprocess
import sys

import pytest
import torch

import ask
import checkpoint
import tasks
from config import InputError
from model import GPT, GPTConfig
from search import METHODS
from search_context import SearchContext
from toys import GO, ONE, TWO, Sums, seed, writes

SERIAL = ("modular_addition", "iterated_squaring", "permutation", "circuit")


# ---- questions

@pytest.mark.parametrize("name", tasks.names())
def test_a_task_reads_back_every_prompt_that_it_writes(name):
    task, rng = tasks.load(name), random.Random(seed())
    for problem in (task.sample_problem(rng, split) for split in tasks.SPLITS for _ in range(30)):
        assert task.parse_problem(problem.prompt) == problem
        assert ask.read_question(task, f"  {problem.prompt.strip().rstrip('.')} ") == problem  # blanks, and no full stop


def test_the_answer_to_a_question_of_ones_own_is_known():
    expected = {"countdown": ("Use 7, 3, 5 to make 22", 22), "modular_addition": ("Add 5, 3, 6, 2 mod 7.", "2"),
                "iterated_squaring": ("Square 5, 3 times mod 983.", "374"),
                "permutation": ("Rearrange cabed by 2 5 1 4 3, 4 1 3 5 2, 1 2 3 4 5", "eacbd"),
                "circuit": ("Given a0 b1 c1: b or c = d, not d = e, b and e = f", "0")}
    for name, (text, answer) in expected.items():
        task = tasks.load(name, **({"inputs": 3, "gates": 3} if name == "circuit" else {}))
        assert ask.read_question(task, text).answer == answer


@pytest.mark.parametrize("name, text", [
    ("countdown", ""), ("countdown", "hello"), ("countdown", "Use 3 5 7 to make 22"), ("countdown", "Use 3, 5, 7 to make"),
    ("countdown", "Use 3, 5, 7 to make 122"), ("countdown", "Use 1, 2, 3, 4 to make 5"), ("countdown", "to make 5Use 3, 5, 7"),
    ("countdown", "Use 3, 5, 7 to make 22. Use 3"), ("countdown", "Use 3, 5, 07 to make 22"), ("modular_addition", "Add 5, 3 mod 6."),
    ("modular_addition", "Add 5 mod 7 mod 7"), ("iterated_squaring", "Square 5, 3 times mod 47"), ("iterated_squaring", "Square 5"),
    ("permutation", "Rearrange cabed by 2 5 1 4 9"), ("permutation", "Rearrange cab by 5 4 3"), ("permutation", "Rearrange"),
    ("circuit", "Given a0 b1: a xor b = c"), ("circuit", "Given a0: z and z = b"), ("circuit", "Given a0 b1: b or a = c"),
    ("circuit", "Given : "), ("countdown", "<script>\nalert(1)</script>"), ("countdown", "Use " + "9" * 5000)])
def test_what_a_task_cannot_read_gets_one_line_with_an_example(name, text):
    with pytest.raises(InputError) as error:
        ask.read_question(tasks.load(name), text)
    assert "\n" not in str(error.value) and f"is no problem of {name}; ask like: " in str(error.value)
    example = re.search("ask like: (.*?[.])( [(]|$)", str(error.value))[1]
    assert ask.read_question(tasks.load(name), example)  # the example itself can be read


# ---- probabilities

def test_the_probability_of_a_text_is_the_product_of_those_of_its_tokens():
    """Go -> 1 with 1/4, then the end, certain: p = 1/4, and 1/2 for each of the two tokens."""
    model = writes(GO={ONE: 0.25, TWO: 0.75})
    assert ask.probabilities(model, [GO, ONE, 1], 1, 1.0) == pytest.approx((0.25, 0.5))
    # At temperature 1/2 probabilities are squared, and divided by their sum: 1/16 / (1/16 + 9/16).
    assert ask.probabilities(model, [GO, ONE, 1], 1, 0.5) == pytest.approx((0.1, math.sqrt(0.1)))


# ---- the command

@pytest.fixture(scope="module")
def run(tmp_path_factory):
    task = tasks.load("countdown", numbers=2, attempts=1)
    torch.manual_seed(seed())
    model = GPT(GPTConfig(task.tokenizer.n_vocab, 40, n_layer=1, n_head=1, n_embd=32))
    path = tmp_path_factory.mktemp("ask") / "run.pt"
    checkpoint.save(path, model, task, {"algo": "grpo", "max_new_tokens": 0})
    return str(path)


QUESTION = "Use 3, 5 to make 8."
SOLUTION = "<think>5 + 3 = 8, found\n</think><answer>5 + 3</answer>"


@pytest.fixture
def solved(monkeypatch):
    """Whatever the model is asked, it writes the solution of QUESTION, and twice something wrong."""
    def candidates(context, n):
        encode = context.task.tokenizer.encode
        return [0] * n, [context.prompts[0] + encode(text) + [1] for text in [SOLUTION] * (n - 2) + ["<answer>5</answer>"] * 2]
    monkeypatch.setattr(SearchContext, "candidates", candidates)


def test_samples_have_a_verdict_and_a_probability(run, solved, capsys):
    ask.main([run, QUESTION, "--samples", "5", "--device", "cpu"])
    out = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"Use 3, 5 to make 8\.   \((train|val|test) split\)", out[0])
    assert re.fullmatch(r"sample, 3 times: right, p \S+, 0\.\d+ a token, 15 tokens", out[1])
    assert out[2:4] == ["    <think>5 + 3 = 8, found", "    </think><answer>5 + 3</answer>"]
    assert out[4].startswith("sample, 2 times: wrong, p ") and out[6] == "3 of 5 right" and len(out) == 8


@pytest.mark.parametrize("flags, used", [([], "0.5"), (["--temperature", "2"], "2")])
def test_a_run_is_asked_at_its_own_temperature_unless_told_otherwise(run, tmp_path, capsys, flags, used):
    model, task, _ = checkpoint.load_run(run, torch.device("cpu"))
    checkpoint.save(tmp_path / "cool.pt", model, task, {"algo": "grpo", "max_new_tokens": 0, "temperature": 0.5})
    ask.main([str(tmp_path / "cool.pt"), QUESTION, "--device", "cpu", *flags])
    assert f", at temperature {used};" in capsys.readouterr().out


@pytest.mark.parametrize("method", METHODS)
def test_every_search_answers_a_question(run, method, capsys):
    ask.main([run, QUESTION, "--search", method, "--budget", "40", "--greedy", "--device", "cpu"])
    out = capsys.readouterr().out
    assert re.search(rf"^{method}, \d+ tokens in all: (right|wrong|cut off), p ", out, re.M) and "\ngreedy: " in out
    assert "\nsample" not in out.replace("\nsample, ", "", int(method == "sample"))  # no samples unless they are asked for


def test_the_greedy_answer_is_the_same_at_every_temperature(run, capsys):
    for temperature in ("0.5", "2"):
        ask.main([run, QUESTION, "--greedy", "--temperature", temperature, "--device", "cpu"])
    first, second = capsys.readouterr().out.replace("temperature 2", "temperature 0.5").split(QUESTION)[1:]
    assert first == second


def test_without_a_question_one_is_asked_for_until_an_empty_line(run, solved, capsys, monkeypatch):
    lines = iter(["nonsense", QUESTION, ""])
    monkeypatch.setattr(builtins, "input", lambda _: next(lines))
    ask.main([run, "--device", "cpu"])
    out = capsys.readouterr().out
    assert "'nonsense' is no problem of countdown; ask like: " in out and "2 of 4 right" in out and next(lines, None) is None


def test_a_task_that_cannot_read_questions_shows_samples_without_a_verdict(run, solved, capsys, monkeypatch):
    monkeypatch.delattr(tasks.task_class("countdown"), "parse_problem")
    ask.main([run, QUESTION, "--device", "cpu"])
    out = capsys.readouterr().out
    assert "no verdicts" in out and "sample, 2 times: p " in out and "right" not in out
    with pytest.raises(InputError, match="needs parse_problem"):
        ask.main([run, QUESTION, "--search", "mcts", "--device", "cpu"])


def test_a_text_that_did_not_end_is_cut_off(run):
    context = SearchContext(None, Sums(), [Sums().problem(3)])
    assert [ask.judge(context, context.prompts[0] + row, judged) for row, judged in
            (([ONE, 4, TWO, 1], True), ([TWO, 1], True), ([ONE, 4, TWO], True), ([ONE, 4, TWO, 1], False))] == ["right", "wrong", "cut off", ""]


def test_the_real_command_exits_with_status_2_and_one_line(run):
    done = subprocess.run([sys.executable, "ask.py", run, "What is the sense of life?"], cwd=pathlib.Path(ask.__file__).parent,
                          capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1 and "ask like: Use " in done.stderr
