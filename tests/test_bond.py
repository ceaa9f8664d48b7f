"""J-BOND: the distribution it aims at, exactly, and what each half of its gradient is, by enumeration."""
import itertools
import math
import random

import pytest
import torch

from experiments.exact import best_of_n_distribution
from methods import bond
from methods.bond import BOND, BONDConfig, best_of_n_logprobs, quantile_reward
from tasks import Problem
from toys import Bigram, seed, seeded, written

P, SCORES = torch.tensor([0.5, 0.25, 0.25]), torch.tensor([0.0, 1.0, 2.0])
ARMS = (0, 0, 1, 2)  # each as often as it comes, out of four
OTHERS = 64 / 63  # all cases in one batch are not 64 independent draws: the mean of the others is that of all, but for the sample


@pytest.mark.parametrize("n", [1, 2, 5])
def test_the_equation_is_the_distribution_of_the_best_of_n(n):
    """Also where scores tie; experiments/exact.py has it by another way, which is tested against every tuple."""
    rng = random.Random(seed())
    for _ in range(20):
        weights = [rng.random() + 0.01 for _ in range(rng.randint(2, 6))]
        p, scores = [w / sum(weights) for w in weights], [float(rng.randint(0, 3)) for _ in weights]
        found = best_of_n_logprobs(torch.tensor(p, dtype=torch.float64).log(), torch.tensor(scores), n)
        assert found.exp().tolist() == pytest.approx(best_of_n_distribution(p, scores, n))


def every_case(monkeypatch, policy, **settings):
    """A BOND on a bandit of three arms: 64 problems, for each arm of the policy every pair of the anchor, as often as they come."""
    cases = list(itertools.product(ARMS, repeat=3))
    task = type("Bandit", (), {"max_new_tokens": 1})
    defaults = {"group_size": 1, "mini_batches": 1, "micro_batch": 1000, "max_grad_norm": 1e9, "anchor_kl": 0.0, "anchor_rate": 0.0}
    paid = lambda rollout: SCORES[rollout.tokens[:, 1]]
    algorithm = BOND(policy, task, BONDConfig(**(defaults | settings)), seeded(), paid)
    rollout, pairs = (written(policy, [[0, arm] for arm in arms]) for arms in ([c[0] for c in cases], [a for c in cases for a in c[1:]]))
    for each in (rollout, pairs):
        each.problems = [Problem("", 0, ())] * len(each.tokens)
    monkeypatch.setattr(bond, "collect", lambda *_: pairs)
    algorithm.optimizer.step = lambda **_: 0.0
    return algorithm, rollout, paid(rollout)


def test_the_forward_half_has_the_exact_gradient(monkeypatch):
    """That of KL(pi_2 || pi) at pi = anchor: the probabilities less those of the best of two."""
    policy = Bigram(P.log().expand(3, 3).clone())
    algorithm, rollout, rewards = every_case(monkeypatch, policy, jeffreys=0.0)
    algorithm.update(rollout, rewards)
    aim = torch.tensor(best_of_n_distribution(P.tolist(), SCORES.tolist(), 2))
    torch.testing.assert_close(policy.table.grad[0], P - aim)


def test_the_backward_half_aims_near_it(monkeypatch):
    """The known bias: a mean reward of - log 16 (1 - p_<=)^2 in the place of log p_<=. Here p_<= is 1/2, 3/4, 1: the first is exact,
    log 1/2; the second - 0.17 where - 0.29 would be right. The gradient is exactly that of the mean reward."""
    policy = Bigram(P.log().expand(3, 3).clone())
    algorithm, rollout, rewards = every_case(monkeypatch, policy, jeffreys=1.0)
    metrics = algorithm.update(rollout, rewards)
    mean = -math.log(16) * torch.tensor([1 / 4, 1 / 16, 0.0])
    torch.testing.assert_close(-policy.table.grad[0], OTHERS * P * (mean - P @ mean))
    assert float(mean[0]) == pytest.approx(math.log(1 / 2)) and metrics["worse_than_both"] == pytest.approx(float(P @ mean / -math.log(16)))


def test_the_kl_in_the_reward_has_the_gradient_of_the_kl(monkeypatch):
    """The anchor says 1/4, 1/4, 1/2 where the policy says 1/2, 1/4, 1/4; nobody is paid. Whole completions, so the k1 in R is right."""
    policy, theirs = Bigram(P.log().expand(3, 3).clone()), torch.tensor([0.25, 0.25, 0.5])
    algorithm, rollout, rewards = every_case(monkeypatch, policy, jeffreys=1.0, anchor_kl=1.0)
    algorithm.anchor.table.data[:] = theirs.log()
    algorithm.reward = lambda rollout: torch.zeros(len(rollout.tokens))
    metrics = algorithm.update(rollout, torch.zeros(len(rewards)))
    logits = P.log().clone().requires_grad_()
    kl = (logits.softmax(0) * (logits.log_softmax(0) - theirs.log())).sum()
    torch.testing.assert_close(policy.table.grad[0], OTHERS * torch.autograd.grad(kl, logits)[0], atol=1e-6, rtol=1e-3)
    assert metrics["anchor_kl"] == pytest.approx(float(kl.detach()), abs=1e-5)


def test_to_tie_with_one_of_the_two_is_not_worse():
    assert quantile_reward(torch.tensor([[0.0], [0.0], [1.0]]), torch.tensor([[1.0, 0], [1, 1], [1, 1]])).tolist() == [
        [0], [pytest.approx(-math.log(16))], [0]]


def test_the_anchor_follows_and_its_tokens_are_counted(monkeypatch):
    policy = Bigram(P.log().expand(3, 3).clone())
    algorithm, rollout, rewards = every_case(monkeypatch, policy, anchor_rate=0.5)
    before = algorithm.anchor.table.clone()
    policy.table.data += torch.tensor([1.0, 0.0, 0.0])
    algorithm.update(rollout, rewards)
    torch.testing.assert_close(algorithm.anchor.table, (before + policy.table.detach()) / 2)
    assert rollout.discarded == 2 * 64


def test_trained_to_the_end_it_writes_like_the_best_of_two(monkeypatch):
    """With a still anchor and the forward half alone: 300 steps on every case."""
    policy = Bigram(P.log().expand(3, 3).clone())
    algorithm, rollout, rewards = every_case(monkeypatch, policy, jeffreys=0.0, lr=0.02)
    del algorithm.optimizer.step
    for _ in range(300):
        algorithm.update(rollout, rewards)
    aim = best_of_n_distribution(P.tolist(), SCORES.tolist(), 2)
    assert policy.table[0].softmax(-1).tolist() == pytest.approx(aim, abs=0.01)
