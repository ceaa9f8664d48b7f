"""Generative verifier: what is asked, what is imitated, and what each word of it counts."""
import math

import pytest
import torch

import tasks
import train
from config import InputError
from methods.genrm import GenRM, GenRMConfig, to_imitate, verdicts, watched
from sample import score
from toys import Bigram, chain, seeded, tiny_gpt, written

TASK = tasks.load("countdown", dialogue=0.6)
ENCODE, EOS = TASK.tokenizer.encode, TASK.tokenizer.eos
PROBLEM = TASK.problem((3, 5, 7), 22)
YES, NO, END = (ENCODE(word)[0] for word in ("yes", "no", "</answer>"))
RIGHT, WRONG, CUT = "<think></think><answer>(5 * 3) + 7</answer>", "<think></think><answer>(5 * 3) - 7</answer>", "<think>5 * 3 = 15, "


def wrote(policy, *texts):
    """The answers to PROBLEM; all of them ended but those without a last tag."""
    prompt = ENCODE(PROBLEM.prompt)
    rollout = written(policy, [prompt + ENCODE(text) + [EOS] * text.endswith(">") for text in texts], len(prompt))
    rollout.problems = [PROBLEM] * len(texts)
    return rollout


def table(**logits):
    """A Bigram that is undecided but for some pairs: {"from to": logit}."""
    weights = torch.zeros(TASK.tokenizer.n_vocab, TASK.tokenizer.n_vocab)
    for pair, value in logits.items():
        one, two = pair.split("__")
        weights[ENCODE({"answer": "</answer>", "think": "</think>", "begin": "<think>"}.get(one, one))[0], ENCODE(two)[0]] = value
    return Bigram(weights)


def make(policy, **settings):
    config = GenRMConfig(**({"mini_batches": 1, "micro_batch": 64, "max_grad_norm": 1e9, "lr": 0.01} | settings))
    return GenRM(policy, TASK, config, seeded())


def test_the_score_is_the_chance_of_yes_among_the_two_words():
    """Behind </answer>, yes has logit log 3 and no 0: 3/4. What did not end is wrong without being
    asked."""
    p, rows, cost = verdicts(table(answer__yes=math.log(3)), TASK, wrote(table(), RIGHT, WRONG, CUT))
    assert torch.allclose(p, torch.tensor([[0.75], [0.75], [0.0]])) and cost == 0
    assert rows[0] == ENCODE(f"Check: {PROBLEM.prompt}<answer>(5 * 3) + 7</answer>")


def test_a_vote_is_asked_behind_each_thought_and_its_tokens_count():
    """The thought is always "failed": two tokens, its end included. Behind </think> yes has logit log
    3."""
    policy = chain(TASK.tokenizer.n_vocab, *ENCODE("<think>failed\n</think>"))
    policy.table.data[ENCODE("</think>")[0], YES] = math.log(3)
    p, rows, cost = verdicts(policy, TASK, wrote(policy, RIGHT, WRONG), votes=2, generator=seeded())
    assert torch.allclose(p, torch.full((2, 2), 0.75)) and cost == 8
    assert rows[1] == ENCODE(f"Check: {PROBLEM.prompt}<answer>(5 * 3) + 7</answer><think>failed\n</think>")


def test_the_rule_only_looks_on():
    scores, right = torch.tensor([0.9, 0.2, 0.6]), torch.tensor([True, False, False])
    assert watched(scores, scores > 0.5, right) == {"judge_accuracy": pytest.approx(2 / 3), "auc": 1.0}
    assert watched(scores, scores > 0.5, torch.zeros(3).bool()) == {"judge_accuracy": pytest.approx(1 / 3)}


def test_yes_and_no_count_the_same():
    """One right answer, three wrong ones: weights 1 and 1/3, each row a verdict and EOS. Of the whole
    the right one is half."""
    algorithm = make(tiny_gpt(TASK.tokenizer.n_vocab, 64), solve_weight=0.0)
    rollout = wrote(algorithm.policy, RIGHT, WRONG, WRONG, WRONG)
    p, rows, _ = verdicts(algorithm.policy, TASK, rollout)
    made, starts, weights = algorithm.checks(rollout, p, rows, rollout.right(TASK))
    assert [row[start:] for row, start in zip(made, starts)] == [[YES, EOS], [NO, EOS], [NO, EOS], [NO, EOS]]
    assert weights == pytest.approx([1, 1 / 3, 1 / 3, 1 / 3])
    _, mask, shares = to_imitate(made, starts, weights, 0, "cpu")
    assert mask.sum(1).tolist() == [2] * 4 and shares.sum(1).tolist() == pytest.approx([1 / 2, 1 / 6, 1 / 6, 1 / 6])


def test_a_thought_that_came_to_the_wrong_verdict_is_not_imitated():
    """Two thoughts about a right and a wrong answer each; p above 1/2 means yes. Of four two came to
    the rule's verdict."""
    algorithm = make(tiny_gpt(TASK.tokenizer.n_vocab, 64), votes=2)
    rollout = wrote(algorithm.policy, RIGHT, WRONG)
    rows = [ENCODE(f"Check: {PROBLEM.prompt}<answer>3</answer><think>{mark}\n</think>") for mark in ("found", "failed", "found", "failed")]
    made, starts, _ = algorithm.checks(rollout, torch.tensor([[0.9, 0.1], [0.9, 0.1]]), rows, rollout.right(TASK))
    assert [row[-2] for row in made] == [YES, NO] and made[0][:-2] == rows[0] and made[1][:-2] == rows[3]


def test_the_loss_is_verdicts_and_solutions_and_nothing_else_is_pushed():
    """Undecided table of V words: every imitated token costs log V, whatever the weights; solutions
    once more by lambda. Tokens that stand only in problems get no gradient as a successor."""
    policy, V = table(), TASK.tokenizer.n_vocab
    metrics = make(policy, lr=0.0, solve_weight=0.5).update(wrote(policy, RIGHT, WRONG), torch.zeros(2))
    assert metrics["loss"] == pytest.approx(1.5 * math.log(V), rel=1e-4) and (metrics["verdicts"], metrics["solutions"]) == (2, 1)
    pushed = -policy.table.grad[END]  # behind </answer> come yes, no, and the end of the solution
    assert pushed[YES] > 0 and pushed[NO] > 0 and pushed[EOS] > 0
    assert not policy.table.grad[ENCODE("Check: ")[0]].any() and not policy.table.grad[ENCODE("Use ")[0]].any()


def test_the_verdict_that_the_rule_gives_becomes_likelier():
    policy = tiny_gpt(TASK.tokenizer.n_vocab, 64)
    algorithm, rollout = make(policy, solve_weight=0.0), wrote(policy, RIGHT, WRONG)
    before = verdicts(policy, TASK, rollout)[0][:, 0]
    for _ in range(10):
        algorithm.update(wrote(policy, RIGHT, WRONG), torch.zeros(2))
    after = verdicts(policy, TASK, rollout)[0][:, 0]
    assert after[0] - after[1] > before[0] - before[1]


def test_demonstrations_may_take_the_place_of_its_own_answers():
    algorithm = make(tiny_gpt(TASK.tokenizer.n_vocab, 128), solve="demonstrations")
    rows, starts, weights = algorithm.solutions(wrote(algorithm.policy, WRONG, CUT), torch.zeros(2).bool())
    assert all(row[:start] == ENCODE(PROBLEM.prompt) and row[-1] == EOS for row, start in zip(rows, starts)) and weights == [1, 1]


def test_micro_batches_change_nothing():
    grads = []
    for size in (1, 64):
        policy = tiny_gpt(TASK.tokenizer.n_vocab, 64)
        make(policy, micro_batch=size, lr=0.0).update(wrote(policy, RIGHT, WRONG, WRONG, CUT), torch.zeros(4))
        grads.append(torch.cat([p.grad.flatten() for p in policy.parameters()]))
    assert torch.allclose(*grads, rtol=1e-4, atol=1e-6) and grads[0].any()


def test_a_task_without_a_dialogue_is_refused_in_one_line(capsys):
    with pytest.raises(InputError, match="--dialogue") as error:
        train.main(["--algo", "genrm", "--task", "permutation"])
    assert "\n" not in str(error.value)
