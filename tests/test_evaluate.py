"""Evaluation: the right number, from its own problems and its own dice."""
import itertools
import random

import pytest
import torch

import checkpoint
import evaluate
import tasks
from config import InputError
from evaluate import fixed_problems, pass_at_k, pick_device, sample_and_judge
from tasks import Problem, split_of
from tasks.countdown import reachable
from toys import chain, tiny_gpt

TASK = tasks.load("countdown", numbers=2, cot="off")
PROBLEM = Problem("Use 3, 5 to make 8.\n", 8, ("countdown", 3, 5, 8))
RIGHT, WRONG = "<think></think><answer>5 + 3</answer>", "<think></think><answer>5 - 3</answer>"


def writer(text):
    """A policy that is certain to write `text` and EOS after any prompt."""
    ids = TASK.tokenizer.encode
    return chain(TASK.tokenizer.n_vocab, *ids(".\n" + text), TASK.tokenizer.eos)


# ---- pass@k

@pytest.mark.parametrize("n", range(1, 7))
def test_pass_at_k_is_the_share_of_subsets_with_a_right_sample(n):
    """Trap 23, by enumeration: of all ways to take k of n samples, how many hold one of the c right ones?"""
    for c, k in itertools.product(range(n + 1), range(1, n + 1)):
        subsets = list(itertools.combinations([True] * c + [False] * (n - c), k))
        assert pass_at_k(n, c, k) == pytest.approx(sum(map(any, subsets)) / len(subsets))


def test_pass_at_k_is_unbiased():
    """Each of 4 samples is right with 0.3. On average the estimate is 1 - 0.7^2; "1 - (1 - c/n)^k" would fall short of it."""
    average = sum(pass_at_k(4, sum(right), 2) * 0.3 ** sum(right) * 0.7 ** (4 - sum(right))
                  for right in itertools.product([0, 1], repeat=4))
    assert average == pytest.approx(1 - 0.7 ** 2)


@pytest.mark.parametrize("n, c, k", [(4, 5, 1), (4, -1, 1), (4, 2, 0), (4, 2, 5)])
def test_impossible_counts_are_an_error(n, c, k):
    with pytest.raises(ValueError):
        pass_at_k(n, c, k)


# ---- problems

def test_every_run_is_measured_on_the_same_problems():
    assert fixed_problems(TASK, "val", 20) == fixed_problems(TASK, "val", 20)
    assert fixed_problems(TASK, "val", 20) == fixed_problems(TASK, "val", 50)[:20]


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_problems_come_from_the_split_that_was_named(split):
    """Trap 31."""
    assert {split_of(problem.key) for problem in fixed_problems(TASK, split, 50)} == {split}


# ---- judging

def test_a_right_answer_counts_and_a_wrong_one_does_not():
    for text, right in ((RIGHT, True), (WRONG, False)):
        judged = sample_and_judge(writer(text), TASK, [PROBLEM], 2)
        assert [j["right"] for j in judged] == [right] * 2 and all(j["finished"] and j["length"] == 8 for j in judged)


def test_running_out_of_tokens_is_a_failure_however_right_the_text_is():
    (judged,) = sample_and_judge(writer(RIGHT), TASK, [PROBLEM], 1, max_new_tokens=7)
    assert judged["right"] is False and judged["finished"] is False and judged["length"] == 7


def test_samples_of_a_problem_stay_together_whatever_the_batch_size():
    """The writer answers 5 + 3: right for the second and fourth problem alone."""
    problems = [Problem("Use 3, 6 to make 9.\n", 9, ("countdown", 3, 6, 9)), PROBLEM] * 2
    for batch in (1, 3, 6, 100):
        judged = sample_and_judge(writer(RIGHT), TASK, problems, 3, batch=batch)
        assert [j["right"] for j in judged] == ([False] * 3 + [True] * 3) * 2


def test_a_result_holds_pass_at_k_their_errors_and_means():
    """Right on one of two problems, always: each pass@k is 1/2, and its standard error sqrt(1/4 / 2)."""
    problems = [Problem("Use 3, 6 to make 9.\n", 9, ("countdown", 3, 6, 9)), PROBLEM]
    result = evaluate.evaluate(writer(RIGHT), TASK, problems, n=4, k=(1, 2, 8))
    assert result["greedy"] == result["pass@1"] == result["pass@2"] == 0.5
    assert result["pass@1_se"] == pytest.approx(0.125 ** 0.5)
    assert "pass@8" not in result  # four samples cannot say
    assert result["length"] == 8 and result["finished"] == 1 and result["attempts"] == 0


def test_an_evaluation_can_be_repeated_and_disturbs_no_random_state():
    """Trap 25: a run that is looked at goes on like one that is not."""
    model, problems = tiny_gpt(TASK.tokenizer.n_vocab, 32), fixed_problems(TASK, "val", 3)
    states = torch.get_rng_state(), random.getstate()
    first, second = (evaluate.evaluate(model, TASK, problems, n=2, max_new_tokens=10) for _ in range(2))
    assert first == second
    assert torch.equal(torch.get_rng_state(), states[0]) and random.getstate() == states[1]
    assert all(p.grad is None for p in model.parameters())


# ---- the command

@pytest.fixture
def run(tmp_path):
    model = tiny_gpt(TASK.tokenizer.n_vocab, 32)
    checkpoint.save(tmp_path / "checkpoint.pt", model, TASK, {"max_new_tokens": 9})
    return str(tmp_path)


def test_the_command_compares_runs_on_one_page(run, capsys):
    evaluate.main([run, run, "--k", "2,1", "--problems", "3", "--samples", "2", "--device", "cpu"])
    text = capsys.readouterr().out
    assert text.count(run) == 2 and text.count("pass@1 ") == text.count("pass@2 ") == 2 and text.count("3 problems") == 2


@pytest.mark.parametrize("flags, used", [([], 0.5), (["--temperature", "2"], 2.0)])
def test_a_run_is_measured_at_its_own_temperature_unless_told_otherwise(tmp_path, monkeypatch, flags, used):
    checkpoint.save(tmp_path / "checkpoint.pt", tiny_gpt(TASK.tokenizer.n_vocab, 32), TASK, {"max_new_tokens": 9, "temperature": 0.5})
    seen, judge = [], evaluate.sample_and_judge
    monkeypatch.setattr(evaluate, "sample_and_judge", lambda *given: seen.append(given[5]) or judge(*given))
    evaluate.main([str(tmp_path), "--problems", "2", "--device", "cpu", *flags])
    assert seen == [used, 0.0]  # sampled, greedy


@pytest.mark.parametrize("argv", [
    ["nowhere"], ["RUN", "nowhere"], ["RUN", "--k", "x"], ["RUN", "--k", ""], ["RUN", "--k", "0"],
    ["RUN", "--k", "8", "--samples", "4"], ["RUN", "--problems", "0"], ["RUN", "--temperature", "0"],
    ["RUN", "--temperature", "nan"], ["RUN", "--samples", "-1"], ["RUN", "--fish"],
    [], ["RUN", "--split", "dev"], ["RUN", "--seed", "x"], ["RUN", "--seed", "9" * 30],
], ids=" ".join)
def test_bad_input_is_refused_in_one_line(run, argv, capsys):
    try:
        evaluate.main([run if a == "RUN" else a for a in argv] + ["--device", "cpu"])
    except InputError as error:
        assert "\n" not in str(error)
    except SystemExit as error:
        assert error.code == 2 and capsys.readouterr().err.count("\n") == 1
    else:
        pytest.fail("was not refused")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_here_is_refused():
    assert pick_device("auto") == pick_device("cpu") == "cpu"
    with pytest.raises(InputError, match="--device cuda"):
        pick_device("cuda")


def test_the_problems_of_an_evaluation_differ():
    """Trap 38. As many as there are, if the split has fewer than asked for: by counting all of them."""
    task = tasks.load("countdown", numbers=2, max_number=9)
    every = {("countdown", a, b, t) for a in range(1, 10) for b in range(a, 10) for t in reachable((a, b)) if 0 < t <= 99}
    for split in ("val", "test"):
        keys = [p.key for p in evaluate.fixed_problems(task, split, 10**6)]
        assert len(keys) == len(set(keys)) and set(keys) == {key for key in every if split_of(key) == split}
    assert [p.key for p in evaluate.fixed_problems(task, "val", 5)] == [p.key for p in evaluate.fixed_problems(task, "val", 9)][:5]
    assert len({p.key for p in evaluate.fixed_problems(tasks.load("countdown"), "test", 500)}) == 500


def test_how_many_problems_there_were_is_part_of_the_result():
    task = tasks.load("countdown", numbers=2, max_number=9)
    model = tiny_gpt(task.tokenizer.n_vocab, 60)
    assert evaluate.evaluate(model, task, evaluate.fixed_problems(task, "val", 3), n=1, k=(1,))["problems"] == 3


def test_intervals_by_hand():
    """Wilson's interval solves |p - share| = z sqrt(p (1 - p) / n) for p. The mean of fractions is worth more trials than its count."""
    for share, n in ((0.0, 10), (0.3, 50), (1.0, 500)):
        for p in evaluate.wilson(share, n):
            if 0 < p < 1:
                assert abs(p - share) == pytest.approx(1.96 * (p * (1 - p) / n) ** 0.5, abs=1e-6)
    assert evaluate.mean_interval(1.0, 0.0, 20) == evaluate.wilson(1.0, 20)
    assert evaluate.mean_interval(0.5, 0.05, 20) == evaluate.wilson(0.5, 100)  # 0.05^2 = 0.5 * 0.5 / 100


def test_the_command_asks_for_the_split_and_the_limit_that_it_was_told(run, capsys, monkeypatch):
    """Trap 31, and a run is measured within the token limit that it was trained with."""
    asked, original, draw = [], evaluate.evaluate, evaluate.fixed_problems
    monkeypatch.setattr(evaluate, "fixed_problems", lambda task, split, count: asked.append(split) or draw(task, split, count))
    monkeypatch.setattr(evaluate, "evaluate", lambda model, task, problems, n, k, limit, *more: asked.append(limit)
                        or original(model, task, problems, n, k, limit, *more))
    evaluate.main([run, "--split", "val", "--problems", "3", "--device", "cpu"])
    assert asked == ["val", 9]


def test_the_intervals_of_the_command_are_over_the_problems(run, capsys, monkeypatch):
    """Trap 39: 64 samples of one problem are not 64 problems."""
    monkeypatch.setattr(evaluate, "evaluate", lambda *_: {"greedy": 0.5, "pass@1": 0.5, "pass@1_se": 0.05, "finished": 1.0})
    evaluate.main([run, "--k", "1", "--samples", "64", "--problems", "20", "--device", "cpu"])
    of_20, of_100 = ("[{:.3f}, {:.3f}]".format(*evaluate.wilson(0.5, n)) for n in (20, 100))
    assert f"greedy 0.500 {of_20}" in (text := capsys.readouterr().out) and f"pass@1 0.500 {of_100}" in text


def test_greedy_takes_the_likeliest_token_each_time():
    """It begins the answer with the right 5 in six of ten cases, with 3 in four: greedy is always right, a sample is not."""
    policy, [five], [three] = writer(RIGHT), TASK.tokenizer.encode("5"), TASK.tokenizer.encode("3")
    [opening] = TASK.tokenizer.encode("<answer>")
    with torch.no_grad():
        policy.table[opening] = -1000.0
        policy.table[opening, [five, three]] = torch.tensor([0.6, 0.4]).log()
    result = evaluate.evaluate(policy, TASK, [PROBLEM] * 40, n=2, k=(1,))
    assert result["greedy"] == 1.0 > result["pass@1"]
