"""KL-Cov and Clip-Cov: which tokens are held back, and how."""
import copy

import pytest
import torch

from methods.cov import Cov, CovConfig, covariances, drawn, largest
from toys import eight, seed, seeded, tiny_gpt

REWARDS = torch.tensor([1.0, 0, 0, 0.5, 0, 0, 1, 0])
ALL = torch.ones(2, 2).bool()


def make(policy, **settings):
    defaults = {"group_size": 4, "max_new_tokens": 12, "micro_batch": 64, "max_grad_norm": 1e9, "lr": 0.01}
    return Cov(policy, None, CovConfig(**(defaults | settings)), seeded())


def gradients(policy, rollout, **settings):
    algorithm = make(policy, **settings)
    algorithm.optimizer.step = lambda **_: 0.0
    algorithm.update(rollout, REWARDS)
    return [p.grad for p in policy.parameters()]


def same(one, other):
    return all(torch.allclose(a, b, atol=1e-6, rtol=1e-3) for a, b in zip(one, other))


def test_covariances_by_hand():
    """Mean advantage 0, mean log-prob -2: likely and rewarded 1 * 1, unlikely and punished -1 * -1; the two others the other sign."""
    c = covariances(torch.tensor([[1.0, -1], [1, -1]]), torch.tensor([[-1.0, -3], [-3, -1]]), ALL)
    assert c.tolist() == [[1, 1], [-1, -1]]


def test_what_is_not_the_policys_is_neither_counted_nor_chosen():
    mask = torch.tensor([[True, True], [False, False]])
    c = covariances(torch.tensor([[1.0, 0.0], [1e6, 1e6]]), torch.tensor([[-1.0, -3.0], [-1e6, 1e6]]), mask)
    assert c.tolist() == [[0.5, 0.5], [0, 0]] and largest(-c - 1, mask, 1.0).tolist() == mask.tolist()


def test_kl_cov_takes_the_largest_and_at_least_one():
    c = torch.tensor([[0.1, 3.0], [-9.0, 2.0]])
    assert largest(c, ALL, 0.5).tolist() == [[False, True], [False, True]]
    assert largest(c, ALL, 1e-6).tolist() == [[False, True], [False, False]] and not largest(c, ALL, 0.0).any()


def test_clip_cov_draws_within_its_bounds():
    c = torch.tensor([[0.5, 3.0], [9.0, 2.0]])
    assert drawn(c, ALL, 1.0, 1.0, 5.0, seeded()).tolist() == [[False, True], [False, True]]
    seen = {int(drawn(c, ALL, 0.25, 1.0, 5.0, seeded(n)).flatten().nonzero()) for n in range(30)}
    assert seen == {1, 3} and not drawn(c, ALL, 0.0, 1.0, 5.0).any()


def test_tokens_that_are_clipped_have_no_gradient():
    """All of them: bounds that hold everything, and a share of 1."""
    policy, wide = tiny_gpt(vocab_size=6), {"cov_low": -1e6, "cov_high": 1e6, "mini_batches": 1}
    assert not any(p.any() for p in gradients(policy, eight(policy), cov="clip", clip_share=1.0, **wide))
    none = gradients(tiny_gpt(vocab_size=6), eight(policy), cov="clip", clip_share=0.0, **wide)
    assert same(none, gradients(tiny_gpt(vocab_size=6), eight(policy), kl_weight=0.0, mini_batches=1)) and any(g.any() for g in none)


def test_before_the_policy_has_moved_the_kl_has_no_slope():
    rollout = eight(tiny_gpt(vocab_size=6))
    assert same(*(gradients(tiny_gpt(vocab_size=6), rollout, kl_share=1.0, kl_weight=w, mini_batches=1) for w in (0.0, 5.0)))


@pytest.mark.parametrize("size", [2, 1])
def test_the_micro_batch_size_does_not_change_which_tokens_pay(size):
    """Trap 11. A rollout that the policy has moved away from: all pay, only some do, and the sum is the same in parts."""
    rollout = eight(tiny_gpt(vocab_size=6))
    rollout.logprobs += 0.1 * torch.randn(rollout.logprobs.shape, generator=seeded()) * rollout.mask
    found = [gradients(tiny_gpt(vocab_size=6), rollout, kl_share=0.3, mini_batches=1, micro_batch=n) for n in (64, size)]
    assert same(*found) and not same(found[0], gradients(tiny_gpt(vocab_size=6), rollout, kl_weight=0.0, mini_batches=1))


def test_a_restored_algorithm_draws_the_same_tokens():
    algorithm = make(tiny_gpt(vocab_size=6), cov="clip", clip_share=0.3, cov_low=-1e6)
    algorithm.update(eight(algorithm.policy), REWARDS)
    other = make(copy.deepcopy(algorithm.policy), cov="clip", clip_share=0.3, cov_low=-1e6)
    other.load_state_dict(copy.deepcopy(algorithm.state_dict()))
    for each in (algorithm, other):
        each.generator.manual_seed(seed(5))
    assert algorithm.update(eight(algorithm.policy), REWARDS) == other.update(eight(other.policy), REWARDS)
