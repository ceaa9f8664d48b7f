"""A sampler that is not the trainer: the correction is exact where it claims to be, and its bias is known where it is not."""
import itertools

import pytest
import torch

from config import InputError
from methods.offpolicy import OffPolicy, OffPolicyConfig
from toys import Bigram, eight, seeded, tiny_gpt, written

REWARDS = torch.tensor([1.0, 0, 0, 0.5, 0, 0, 1, 0])
P, Q, PAYOFF = torch.tensor([1 / 4, 1 / 4, 1 / 2]), torch.tensor([1 / 2, 1 / 4, 1 / 4]), torch.tensor([0.0, 1.0, 0.3])


def make(policy, **settings):
    defaults = {"group_size": 4, "max_new_tokens": 12, "micro_batch": 1000, "max_grad_norm": 1e9, "lr": 0.01}
    return OffPolicy(policy, None, OffPolicyConfig(**(defaults | settings)), seeded())


def slope(**settings):
    """The mean gradient at pi = P of samples of Q: every pair of arms, as often as it comes."""
    arms = [arm for pair in itertools.product((0, 0, 1, 2), repeat=2) for arm in pair]
    policy = Bigram(P.log().expand(3, 3).clone())
    rollout = written(Bigram(Q.log().expand(3, 3)), [[0, arm] for arm in arms])
    algorithm = make(policy, group_size=2, baseline="leave_one_out", std=False, clip_low=1.0, clip_high=1e6, **settings)
    algorithm.optimizer.step = lambda **_: 0.0
    algorithm.update(rollout, PAYOFF[arms])
    return -policy.table.grad[0]


def test_without_a_cap_the_gradient_is_exact():
    """By weights, and by the ratio of the loss, which at its start is the same thing."""
    exact = P * (PAYOFF - P @ PAYOFF)
    torch.testing.assert_close(slope(mismatch="tis", tis=1e6), exact, atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(slope(mismatch="ratio"), exact, atol=1e-6, rtol=1e-4)


def test_one_weight_a_token_is_not_enough():
    """Two tokens behind a 2, r = 1 if the second one is 1. Behind a first 1 the policy goes on with 1 in 3/4, behind a 0 in 1/4; the
    sampler the other way round. So the policy should write 1 first, and is told to write 0: pi(0) pi(1) (V(1) - V(0)) with the
    sampler's V. Every pair of completions, as often as it comes; the mean over a row's tokens halves it."""
    def table(first, behind_0, behind_1):
        rows = torch.tensor([[1 - behind_0, behind_0, 1e-9], [1 - behind_1, behind_1, 1e-9], [1 - first, first, 1e-9]])
        return rows.log()
    policy, sampler = Bigram(table(1 / 4, 1 / 4, 3 / 4)), Bigram(table(1 / 2, 3 / 4, 1 / 4))
    written_by_it = [(0, 0)] + [(0, 1)] * 3 + [(1, 0)] * 3 + [(1, 1)]
    rows = [[2, *one] for pair in itertools.product(written_by_it, repeat=2) for one in pair]
    algorithm = make(policy, group_size=2, baseline="leave_one_out", std=False, clip_low=1.0, clip_high=1e6, mismatch="tis", tis=1e6)
    algorithm.optimizer.step = lambda **_: 0.0
    algorithm.update(written(sampler, rows), torch.tensor([float(row[-1] == 1) for row in rows]))
    exact = 3 / 16 * (3 / 4 - 1 / 4) / 2
    assert float(-policy.table.grad[2, 1]) == pytest.approx(-exact, rel=1e-4)


def test_what_it_cannot_do_it_says():
    with pytest.raises(InputError, match="--dynamic-sampling"):
        make(tiny_gpt(vocab_size=6), dynamic_sampling=True)
    make(tiny_gpt(vocab_size=6), dynamic_sampling=True, mismatch="ignore")
    policy = tiny_gpt(vocab_size=6)
    policy.compute_dtype = torch.bfloat16
    with pytest.raises(InputError, match="--mismatch ratio"):
        make(policy, mismatch="ratio")


def test_a_cap_lets_what_the_sampler_seldom_writes_count_too_little():
    """The known bias. The weights are 1/2, 1 and 2; cut at 1 the third arm counts half: sum of q w (payoff - q payoff) grad log p."""
    w = torch.tensor([0.5, 1.0, 1.0])
    pull = Q * w * (PAYOFF - Q @ PAYOFF)
    torch.testing.assert_close(slope(mismatch="tis", tis=1.0), pull - P * pull.sum(), atol=1e-6, rtol=1e-4)


def test_to_ignore_it_is_to_follow_the_samplers_gradient():
    """As if every sample had been the policy's: each pulls with weight 1."""
    pull = Q * (PAYOFF - Q @ PAYOFF)
    torch.testing.assert_close(slope(mismatch="ignore"), pull - P * pull.sum(), atol=1e-6, rtol=1e-4)


def test_on_policy_all_three_are_grpo():
    """No staleness, one precision: the weights are 1."""
    found = []
    for mismatch in ("ignore", "ratio", "tis"):
        policy = tiny_gpt(vocab_size=6)
        algorithm = make(policy, mismatch=mismatch)
        algorithm.optimizer.step = lambda **_: 0.0
        assert algorithm.update(eight(policy), REWARDS)["mismatch"] < 1e-5
        found.append([p.grad for p in policy.parameters()])
    for other in found[1:]:
        for a, b in zip(found[0], other):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-3)


def test_a_batch_waits_its_steps():
    """The first two updates learn nothing; the third learns from the first batch, which by then is two updates old."""
    algorithm = make(tiny_gpt(vocab_size=6), stale_steps=2)
    batches = [eight(algorithm.policy) for _ in range(3)]
    seen = [algorithm.update(batch, REWARDS) for batch in batches]
    assert [metrics["updates"] for metrics in seen] == [0, 0, 1]
    assert [batch is left for batch, (left, _) in zip(batches[1:], algorithm.queue)] == [True, True]


def test_the_sampler_has_the_trainers_weights_and_its_own_precision():
    policy = tiny_gpt(vocab_size=6)
    sampler = make(policy, sampler_dtype="bfloat16").behavior
    assert (sampler.compute_dtype, policy.compute_dtype) == (torch.bfloat16, torch.float32)
    assert sampler.embed.weight is policy.embed.weight and make(policy).behavior is policy
    difference = (sampler(torch.tensor([[2, 3]])) - policy(torch.tensor([[2, 3]]))).detach().abs().max()
    assert 0 < float(difference) < 1


def test_the_price_of_length_is_settled_when_a_batch_comes_in():
    """Its problems are not kept, and one price is enough: 12 of 12 tokens cost 1, 10 cost 1 / 6."""
    task = type("Limit", (), {"max_new_tokens": 12})
    algorithm = OffPolicy(tiny_gpt(vocab_size=6), task, OffPolicyConfig(group_size=4, overlong=0.2, stale_steps=1))
    algorithm.update(eight(algorithm.policy), torch.zeros(8))
    assert algorithm.queue[0][1].tolist() == pytest.approx([0, 0, 0, -1, 0, 0, -1 / 6, 0], abs=1e-5)


def test_batches_that_wait_are_part_of_a_run():
    """Trap 25."""
    algorithm = make(tiny_gpt(vocab_size=6), stale_steps=1)
    algorithm.update(eight(algorithm.policy), REWARDS)
    other = make(tiny_gpt(vocab_size=6), stale_steps=1)
    other.load_state_dict(algorithm.state_dict())
    assert algorithm.update(eight(algorithm.policy), REWARDS) == pytest.approx(other.update(eight(other.policy), REWARDS))
