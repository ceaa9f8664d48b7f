"""The experiment on credit: which steps lost the target, and what a step's tokens got."""
import importlib
import pathlib
import sys

import torch

import tasks
import verifier
from toys import Bigram, written

sys.path.append(str(pathlib.Path(__file__).parent.parent / "experiments"))
credit = importlib.import_module("credit")


def test_a_step_loses_the_target_only_where_it_could_still_be_reached():
    """3, 5, 7 to make 22 is 5 * 3 + 7. 7 + 5 loses it, what follows has nothing to lose; the next attempt may lose it again, or not."""
    task = tasks.load("countdown")
    problem = task.problem((3, 5, 7), 22)
    text = "<think>7 + 5 = 12, 12 + 3 = 15, failed\n5 * 3 = 15, 15 - 7 = 8, failed\n5 * 3 = 15, 15 + 7 = 22, found\n</think><answer>(5 * 3) + 7</answer>"
    row = task.tokenizer.encode(problem.prompt) + task.tokenizer.encode(text) + [task.tokenizer.eos]
    rollout = written(Bigram(torch.zeros(task.tokenizer.n_vocab, task.tokenizer.n_vocab)), [row], len(task.tokenizer.encode(problem.prompt)))
    rollout.problems = [problem]
    assert credit.losses(task, rollout, verifier.step_ends(rollout, task)) == [True, None, False, True, False, False, None]


def test_the_credit_of_a_step_is_the_mean_or_the_sum_of_its_tokens():
    mask = torch.tensor([[0, 1, 1, 1], [0, 1, 1, 0]]).bool()
    ends = torch.tensor([[0, 0, 1, 1], [0, 0, 1, 0]]).bool()
    A = torch.tensor([[9.0, 1.0, 3.0, 4.0], [9.0, 5.0, 7.0, 9.0]])
    assert credit.of_steps(A, ends, mask, "mean").tolist() == [2.0, 4.0, 6.0]
    assert credit.of_steps(A, ends, mask, "sum").tolist() == [4.0, 4.0, 12.0]
