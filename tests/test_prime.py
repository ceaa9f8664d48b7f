"""PRIME: rewards for tokens from a classifier of solutions, and the gradient that they make."""
import itertools

import pytest
import torch

from grpo import group_advantages
from methods.prime import PRIME, PRIMEConfig, prime_advantages
from sample import score
from toys import Bigram, eight, seeded, tiny_gpt, written

RIGHT = torch.tensor([True, False, True, False, False, True, False, False])


def make(policy, **settings):
    defaults = {"group_size": 4, "max_new_tokens": 12, "mini_batches": 1, "micro_batch": 64, "max_grad_norm": 1e9, "beta": 0.5}
    return PRIME(policy, None, PRIMEConfig(**(defaults | settings)), seeded())


def dealt(policy, right=RIGHT):
    rollout = eight(policy)
    rollout.right = lambda task: right
    return rollout


def gradients_of_an_update(algorithm, rollout, rewards):
    for optimizer in (algorithm.optimizer, algorithm.prm_optimizer):
        optimizer.step = lambda **_: 0.0
    metrics = algorithm.update(rollout, rewards)
    return [p.grad for p in algorithm.policy.parameters()], metrics


def test_as_long_as_nothing_is_learned_it_is_rloo():
    """pi_phi = pi_ref: every r is 0."""
    policy = tiny_gpt(vocab_size=6)
    gradients, metrics = gradients_of_an_update(make(policy), dealt(policy), RIGHT.float())
    rollout, A = dealt(policy), group_advantages(RIGHT.float(), 4, std=False, baseline="leave_one_out")
    loss = -(score(policy, rollout.tokens)[0] * A[:, None] * rollout.mask).sum() / rollout.mask.sum()
    for gradient, exact in zip(gradients, torch.autograd.grad(loss, list(policy.parameters()))):
        torch.testing.assert_close(gradient, exact, atol=1e-6, rtol=1e-3)
    assert metrics["process_reward"] == pytest.approx(0, abs=1e-6)
    assert metrics["prm_loss"] == pytest.approx(0.6931, abs=1e-4)  # ln 2: undecided


def test_the_rewards_of_the_tokens_add_up_to_the_score():
    """pi_phi says 1/2, 1/4, 1/4 where the reference says 1/4, 1/4, 1/2: ln 2, 0 and - ln 2 times beta for the tokens 0, 1, 2."""
    algorithm = make(Bigram(torch.tensor([0.25, 0.25, 0.5]).log().expand(3, 3).clone()), beta=2.0)
    algorithm.prm.table.data[:] = torch.tensor([0.5, 0.25, 0.25]).log()
    rollout = written(algorithm.policy, [[1, 0, 0, 1], [1, 2, 1]])
    r = algorithm.implicit(rollout.tokens, rollout.mask)
    two = 2 * torch.tensor(2.0).log()
    torch.testing.assert_close(r, torch.stack([torch.tensor([0, two, two, 0]), torch.tensor([0, -two, 0, 0])]))


def test_it_learns_who_is_right_from_outcomes_alone():
    """Thirty updates on the same eight solutions: right ones score above wrong ones, and the loss has fallen."""
    algorithm = make(tiny_gpt(vocab_size=6), prm_lr=0.01, lr=0.0)
    seen = [algorithm.update(dealt(algorithm.policy), RIGHT.float()) for _ in range(30)]
    assert seen[-1]["prm_loss"] < 0.5 * seen[0]["prm_loss"] and seen[-1]["prm_accuracy"] == 1
    assert seen[-1]["process_reward"] > 0.01 and seen[0]["updates"] == seen[-1]["updates"] == 1  # the policy's steps alone


def test_the_micro_batch_size_does_not_change_either_gradient():
    """Trap 11."""
    found = []
    for size in (64, 3, 1):
        algorithm = make(tiny_gpt(vocab_size=6), micro_batch=size)
        algorithm.prm = tiny_gpt(vocab_size=6, seed=3)
        gradients, _ = gradients_of_an_update(algorithm, dealt(algorithm.policy), RIGHT.float())
        found.append([*gradients, *(p.grad for p in algorithm.prm.parameters())])
    for other in found[1:]:
        for a, b in zip(found[0], other):
            torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-3)


def exact_and_found(ends):
    """Two tokens out of {0, 1}, of probability 1/2 each; a 1 is worth r = 1, a 0 nothing. `ends`: after a first 1 the completion is
    over, by token 2. Every pair of completions, each as often as it comes -> the gradient of the expected sum of r for the first
    choice's logits, exactly and as `prime_advantages` makes it (a sum over tokens)."""
    kinds = ([(0, 0), (0, 1), (1,), (1,)] if ends else list(itertools.product((0, 1), repeat=2)))
    groups = [kind for pair in itertools.product(kinds, repeat=2) for kind in pair]
    r, mask = torch.zeros(len(groups), 2), torch.zeros(len(groups), 2).bool()
    for i, kind in enumerate(groups):
        r[i, :len(kind)], mask[i, :len(kind)] = torch.tensor(kind).float(), True
    A = prime_advantages(r, torch.zeros(len(groups)), mask, 2)
    first = torch.tensor([kind[0] for kind in groups])
    slope = torch.stack([(A[:, 0] * ((first == v).float() - 0.5)).mean() for v in (0, 1)])  # grad log p = one-hot - p
    after = [sum(sum(k) for k in kinds if k[0] == v) / sum(k[0] == v for k in kinds) for v in (0, 1)]  # what a first v brings
    mean = sum(after) / 2
    return [0.5 * (each - mean) for each in after], slope.tolist()


def test_where_all_completions_are_equally_long_the_gradient_is_exact():
    exact, found = exact_and_found(ends=False)
    assert found == pytest.approx(exact) and exact == [-0.25, 0.25]


def test_a_baseline_for_every_token_pays_for_length():
    """The known bias. Completions 00, 01, 1, 1 have means of 0, 1/2, 1, 1, that is 5/8: of two tokens it is subtracted twice. A first 1
    brings 1, a first 0 brings 1/2: 1/8 for the logit; the second 5/8 makes it 1/8 + 5/32."""
    exact, found = exact_and_found(ends=True)
    assert exact == pytest.approx([-1 / 8, 1 / 8]) and found == pytest.approx([-9 / 32, 9 / 32])
