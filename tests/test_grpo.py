"""GRPO against exact answers: every claim of the docstrings of grpo.py, and each of the classical mistakes."""
import copy
import io
import math
import random
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import tasks
from config import InputError, check
from grpo import (GRPO, TABLE, GRPOConfig, group_advantages, kl_estimate, length_reward, overlong_penalty, policy_loss, token_weights,
                  top_entropy_tokens)
from ppo import gae, token_rewards
from sample import Rollout, generate, join, score
from toys import Bigram, eight, seed, seeded, tiny_gpt, written

EOS = 1
CLIP = {"clip_low": 0.2, "clip_high": 0.2, "aggregate": "sequence_mean"}
TASK = SimpleNamespace(max_new_tokens=12)  # all that an update may ask of a task: it has no tokenizer, hence re-encodes nothing


# ---- advantages

def test_equal_rewards_give_zero_advantage():
    """Trap 10. In float32 the mean of sixteen 0.1 is not 0.1, and the difference over the tiny spread would be noise."""
    for reward in (0.0, 1.0, 0.1, 1 / 3, -7.7):
        for size in (2, 3, 7, 16):
            assert torch.equal(group_advantages(torch.full((size,), reward), size), torch.zeros(size))


def test_advantages_are_divided_by_the_populations_standard_deviation():
    """Mean 1/4, variance 3/16 (over G; over G - 1 it would be 1/4): the winner gets 3/4 over sqrt(3)/4."""
    assert group_advantages(torch.tensor([1.0, 0, 0, 0]), 4).tolist() == pytest.approx([3**0.5] + [-(3**-0.5)] * 3)


def test_without_std_the_advantage_is_the_distance_to_the_mean():
    assert group_advantages(torch.tensor([1.0, 0, 0, 0]), 4, std=False).tolist() == [0.75, -0.25, -0.25, -0.25]


def test_groups_do_not_see_each_other():
    together = group_advantages(torch.tensor([1.0, 0, 0, 0, 5, 1, 1, 1]), 4, std=False)
    assert together.tolist() == [0.75, -0.25, -0.25, -0.25, 3, -1, -1, -1]


def test_permuting_groups_permutes_advantages():
    """Trap 10: rows stay with their group."""
    rewards = torch.rand(5, 4, generator=seeded())
    order = torch.tensor([3, 0, 4, 1, 2])
    advantages = group_advantages(rewards.flatten(), 4).view(5, 4)
    assert torch.equal(group_advantages(rewards[order].flatten(), 4).view(5, 4), advantages[order])


# ---- the weights of the tokens

@pytest.mark.parametrize("aggregate, short, long", [
    ("sequence_mean", 1 / 4, 1 / 16),       # each row counts 1/2, shared by its 2 or 8 tokens
    ("token_mean", 1 / 10, 1 / 10),         # ten tokens, all alike
    ("constant", 1 / 32, 1 / 32),           # two rows, each divided by the longest that is allowed: 16
])
def test_weights_per_token(aggregate, short, long):
    """Trap 12: completions of lengths 2 and 8, behind a prompt of one token."""
    place, ends = torch.arange(11), torch.tensor([[3], [9]])
    mask = (place >= 1) & (place < ends)
    weights = token_weights(mask, aggregate, max_length=16)
    assert weights[0].tolist() == pytest.approx([0] + [short] * 2 + [0] * 8)
    assert weights[1].tolist() == pytest.approx([0] + [long] * 8 + [0] * 2)


def test_an_unknown_aggregate_is_an_error():
    with pytest.raises(ValueError, match="sequence_mean, token_mean or constant"):
        token_weights(torch.ones(1, 1).bool(), "mean")


def test_the_loss_uses_the_weights_of_its_mode():
    """With every ratio 1 the loss is minus the weighted sum of the advantages: 8 tokens of +1, 2 tokens of -1. The advantages
    of a group add up to 0, so the loss is 0 by construction where completions count the same, and there alone."""
    mask = torch.arange(8) < torch.tensor([[8], [2]])
    zeros, advantages = torch.zeros(2, 8), torch.tensor([1.0, -1.0])
    loss = lambda mode: float(policy_loss(zeros, zeros, advantages, mask, clip_low=0.2, clip_high=0.2, aggregate=mode)[0])
    assert [loss(mode) for mode in ("sequence_mean", "token_mean", "constant")] == pytest.approx([0, -6 / 10, -6 / 16])


# ---- the clip

def gradient(rho, advantage, **clip):
    """d loss / d log pi of one token whose probability has changed by `rho`."""
    logprobs = torch.tensor([[rho]]).log().requires_grad_()
    loss, stats = policy_loss(logprobs, torch.zeros(1, 1), torch.tensor([advantage]), torch.ones(1, 1).bool(), **(CLIP | clip))
    loss.backward()
    return float(logprobs.grad), float(stats["clip_fraction"])


@pytest.mark.parametrize("advantage, ratio, expected", [
    #  A    rho                    why
    (+1.0, 0.5, -0.5),   # fell although it should rise: pull it up again
    (+1.0, 1.0, -1.0),
    (+1.0, 1.5, 0.0),    # has risen enough: clipped
    (-1.0, 0.5, 0.0),    # has fallen enough: clipped
    (-1.0, 1.0, +1.0),
    (-1.0, 1.5, +1.5),   # rose although it should fall: push it down again
])
def test_clip_removes_the_gradient_only_beyond_the_step(advantage, ratio, expected):
    """Trap 9. With max in place of min the two cells that are 0 get a gradient, and the two cells opposite lose theirs."""
    slope, clipped = gradient(ratio, advantage)
    assert slope == pytest.approx(expected) and clipped == (expected == 0)


def test_the_two_sides_of_the_clip_are_independent():
    """DAPO's clip-higher: above, 1.5 is within the step; below, 0.85 is beyond it."""
    assert gradient(1.5, 1.0, clip_high=0.6)[0] == pytest.approx(-1.5) and gradient(1.7, 1.0, clip_high=0.6)[0] == 0
    assert gradient(0.85, -1.0, clip_low=0.1)[0] == 0 and gradient(0.85, -1.0, clip_low=0.2)[0] == pytest.approx(0.85)


def test_advantages_may_be_given_per_token():
    mask, zeros = torch.ones(1, 2).bool(), torch.zeros(1, 2)
    logprobs = torch.zeros(1, 2, requires_grad=True)
    policy_loss(logprobs, zeros, torch.tensor([[1.0, -3.0]]), mask, **CLIP)[0].backward()
    assert logprobs.grad.tolist() == [[-0.5, 1.5]]


# ---- which logits the loss touches

def test_the_gradient_is_zero_where_the_policy_chose_nothing():
    """Trap 2: exactly 0 at the logits that predict prompt and padding, not 0 at those of every sampled token, EOS included."""
    tokens = torch.tensor([[5, 6, 2, 3, EOS], [5, 2, EOS, 0, 0]])
    mask = torch.tensor([[0, 0, 1, 1, 1], [0, 1, 1, 0, 0]]).bool()
    logits = torch.randn(2, 4, 8, generator=seeded()).requires_grad_()
    logprobs, _ = score(lambda _: logits, tokens)
    ref = logprobs.detach() - 0.3
    loss, _ = policy_loss(logprobs, logprobs.detach(), torch.tensor([1.0, -1.0]), mask, **CLIP, ref_logprobs=ref, beta=0.1)
    loss.backward()
    assert torch.equal(logits.grad.abs().sum(-1) > 0, mask[:, 1:])


def test_padding_may_hold_anything():
    """exp(1000) is infinite, and 0 * inf would make the whole loss nan."""
    mask = torch.tensor([[True, False]])
    logprobs = torch.tensor([[-1.0, 1000.0]], requires_grad=True)
    old = torch.tensor([[-1.0, -1000.0]])
    loss, stats = policy_loss(logprobs, old, torch.tensor([1.0]), mask, **CLIP, ref_logprobs=old, beta=0.1)
    loss.backward()
    assert loss.isfinite() and stats["kl"].isfinite() and logprobs.grad.tolist() == [[-1.0, 0.0]]


# ---- the KL term

def test_no_advantage_and_no_kl_give_exactly_zero():
    """Trap 27."""
    logprobs, old = torch.randn(2, 3, requires_grad=True), torch.randn(2, 3)
    loss, _ = policy_loss(logprobs, old, torch.zeros(2), torch.ones(2, 3).bool(), **CLIP, ref_logprobs=old, beta=0.0)
    loss.backward()
    assert loss == 0 and not logprobs.grad.any()


def test_the_kl_term_has_a_gradient_of_its_own():
    """Trap 27, by hand: k3 has the slope 1 - pi_ref / pi. Where pi is twice pi_ref: 1/2; where they agree: 0."""
    logprobs = torch.tensor([[0.8, 0.4]]).log().requires_grad_()
    loss, stats = policy_loss(logprobs, logprobs.detach(), torch.zeros(1), torch.ones(1, 2).bool(), **CLIP,
                              ref_logprobs=torch.tensor([[0.4, 0.4]]).log(), beta=3.0)
    loss.backward()
    assert logprobs.grad[0].tolist() == pytest.approx([3 * 0.5 / 2, 0])
    assert float(stats["kl"]) == pytest.approx((0.5 - torch.tensor(0.5).log() - 1) / 2)


def test_k3_as_a_loss_pulls_with_the_gradient_of_the_other_kl():
    """Trap 8, as an exact expectation over four tokens: E[grad k3] = grad KL(ref || pi) = pi - ref. (k1 would give 0.)"""
    logits, ref = torch.tensor([0.3, -0.2, 1.0, 0.0], requires_grad=True), torch.tensor([0.1, 0.2, 0.3, 0.4])
    logp = logits.log_softmax(0)
    loss, _ = policy_loss(logp[:, None], logp.detach()[:, None], torch.zeros(4), torch.ones(4, 1).bool(), **CLIP,
                          ref_logprobs=ref.log()[:, None], beta=1.0, weights=logp.detach().exp()[:, None])
    loss.backward()
    torch.testing.assert_close(logits.grad, (logp.exp() - ref).detach())


# ---- the estimator as a whole

def test_the_group_mean_scales_the_exact_gradient_by_one_minus_one_over_g():
    """Trap 28, on a bandit with three arms: the mean contains the sample itself, which costs the factor (1 - 1/G)."""
    theta, payoff = torch.tensor([0.5, 0.0, -0.5], requires_grad=True), torch.tensor([0.0, 1.0, 0.3])
    p = theta.softmax(0).detach()
    exact = p * (payoff - p @ payoff)  # gradient of the expected payoff
    for G in (2, 4):
        arms = torch.multinomial(p, 400_000, replacement=True, generator=seeded())
        logprobs = theta.log_softmax(0)[arms][:, None]
        loss, _ = policy_loss(logprobs, logprobs.detach(), group_advantages(payoff[arms], G, std=False),
                              torch.ones(len(arms), 1).bool(), **CLIP)
        gradient, = torch.autograd.grad(-loss, theta)
        assert gradient.tolist() == pytest.approx(((1 - 1 / G) * exact).tolist(), abs=0.003)


def test_the_same_factor_from_the_sampler_to_the_gradient_of_the_weights():
    """Traps 3 and 28: a GPT writes one token, paid if it is EOS. Sampler, mask, score and loss together give (1 - 1/2) times
    the exact gradient of P(EOS). With EOS out of the mask, half of that would be missing."""
    model, B = tiny_gpt(vocab_size=4, scale=1.0), 20_000
    p = model(torch.tensor([[2]]))[0, 0].softmax(-1)[EOS]
    exact = torch.cat([g.flatten() for g in torch.autograd.grad(p, list(model.parameters()))])
    rollout = generate(model, [[2]] * B, 1, eos=EOS, generator=seeded())
    logprobs, _ = score(model, rollout.tokens)
    advantages = group_advantages(rollout.finished.float(), 2, std=False)
    loss, _ = policy_loss(logprobs, rollout.logprobs, advantages, rollout.mask, **CLIP)
    estimate = torch.cat([g.flatten() for g in torch.autograd.grad(-loss, list(model.parameters()))])
    assert float(estimate @ exact / (exact @ exact)) == pytest.approx(0.5, abs=0.05)
    assert float(torch.cosine_similarity(estimate, exact, dim=0)) > 0.98


# ---- an update

def make(policy, **settings):
    defaults = {"group_size": 4, "lr": 0.01, "max_new_tokens": 12, "micro_batch": 64, "max_grad_norm": 1e9, "std": True,
                "beta": 0.0, "epochs": 1, "temperature": 1.0, "loss_aggregation": "sequence_mean"}
    return GRPO(policy, TASK, GRPOConfig(**(defaults | settings)), seeded())


def sampled(policy, B=8, temperature=1.0, seed=0):
    return generate(policy, [[2, 3]] * (B // 2) + [[4]] * (B // 2), 12, temperature, eos=EOS, generator=seeded(seed))


def gradients_of_an_update(policy, rollout, rewards, **settings):
    """The step itself is left out, so that the gradients can be looked at."""
    algorithm = make(policy, **settings)
    algorithm.optimizer.step = lambda **_: 0.0
    metrics = algorithm.update(rollout, rewards)
    return [p.grad for p in policy.parameters()], metrics


@pytest.mark.parametrize("beta", [0.0, 0.1])
@pytest.mark.parametrize("aggregate", ["sequence_mean", "token_mean", "constant"])
def test_the_micro_batch_size_does_not_change_the_gradient(aggregate, beta):
    """Trap 11. Also the metrics are those of the whole batch."""
    rewards = torch.tensor([1.0, 0, 0, 0.5, 0, 0, 1, 0])
    rollout = eight(tiny_gpt(vocab_size=6))
    seen = [gradients_of_an_update(tiny_gpt(vocab_size=6), rollout, rewards, micro_batch=size, loss_aggregation=aggregate, beta=beta)
            for size in (8, 2, 1)]
    for gradients, metrics in seen[1:]:
        for a, b in zip(gradients, seen[0][0]):
            torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-3)
        assert metrics == pytest.approx(seen[0][1], abs=1e-5)


@pytest.mark.parametrize("aggregate", ["sequence_mean", "token_mean"])
def test_the_gradient_of_an_update_is_that_of_the_loss_over_all_rows(aggregate):
    """Rows with advantage 0 are left out to save time; the weights must still be those of the whole batch."""
    model, rewards = tiny_gpt(vocab_size=6), torch.tensor([1.0, 0, 0, 0, 1, 1, 1, 1])
    rollout = eight(model)
    loss, _ = policy_loss(score(model, rollout.tokens)[0], rollout.logprobs, group_advantages(rewards, 4), rollout.mask,
                          **(CLIP | {"aggregate": aggregate}))
    expected = torch.autograd.grad(loss, list(model.parameters()))
    for a, b in zip(gradients_of_an_update(model, rollout, rewards, loss_aggregation=aggregate)[0], expected):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-3)


@pytest.mark.parametrize("temperature", [0.7, 1.0])
def test_the_policy_ratio_is_1_before_the_first_update(temperature):
    """Trap 7 (and 6: at the temperature that was sampled with)."""
    model = tiny_gpt(vocab_size=6)
    metrics = make(model, temperature=temperature).update(sampled(model, temperature=temperature), torch.arange(8.0))
    assert 0 <= metrics["max_log_ratio"] < 1e-4 and metrics["clip_fraction"] == 0


def test_a_rollout_that_is_not_the_policys_own_shows_in_the_log_ratio():
    """The alarm of trap 7 does ring."""
    metrics = make(tiny_gpt(vocab_size=6, seed=1)).update(eight(tiny_gpt(vocab_size=6)), torch.arange(8.0))
    assert metrics["max_log_ratio"] > 0.1


def test_in_low_precision_the_first_ratio_is_exactly_1():
    """bfloat16 rounds the stored and the recomputed log-probs differently: this is logged, and kept out of the clip."""
    model = tiny_gpt(vocab_size=6, scale=6.0)
    model.compute_dtype = torch.bfloat16
    metrics = make(model, clip_low=0.0, clip_high=0.0).update(sampled(model), torch.arange(8.0))
    assert 1e-6 < metrics["max_log_ratio"] < 0.5 and metrics["clip_fraction"] == 0


def test_groups_that_agree_teach_nothing():
    """No optimizer step: not even one with a gradient of 0, which Adam's momentum would turn into movement."""
    model = tiny_gpt(vocab_size=6)
    algorithm = make(model)
    assert algorithm.update(eight(model), torch.tensor([1.0, 0, 0, 0, 0, 0, 0, 0]))["updates"] == 1  # now there is momentum
    before = copy.deepcopy(model.state_dict())
    metrics = algorithm.update(eight(model), torch.tensor([0.1] * 4 + [1.0] * 4))
    assert metrics["updates"] == 0 and metrics["groups_with_variance"] == 0
    assert all(torch.equal(w, before[name]) for name, w in model.state_dict().items())


def test_with_a_kl_term_groups_that_agree_are_still_pulled_to_the_reference():
    """Trap 27: the KL term reaches the weights."""
    model = tiny_gpt(vocab_size=6)
    algorithm = make(model, beta=0.1)
    with torch.no_grad():
        model.blocks[0].q.weight += 0.5 * torch.randn(32, 32, generator=seeded())  # away from the reference
    metrics = algorithm.update(eight(model), torch.ones(8))
    assert metrics["updates"] == 1 and metrics["grad_norm"] > 0


def test_the_reported_kl_is_the_mean_log_ratio_to_the_reference():
    """A policy that writes token 3 with probability 1/2 where the reference has 1/4: ln 2 at each of two tokens."""
    algorithm = make(Bigram(torch.zeros(4, 4)))
    rollout = Rollout(torch.tensor([[2, 3, 3]]), torch.tensor([1]), torch.tensor([3]), torch.tensor([[False, True, True]]),
                      torch.tensor([[0, 0.5, 0.5]]).log(), torch.tensor([False]))
    assert algorithm.kl(rollout) == pytest.approx(math.log(2))


def test_unfinished_rows_count_in_their_group():
    """Trap 15: one row finished and was right, three were cut off with reward 0. Without those the group would agree."""
    model = Bigram(torch.zeros(4, 4))
    tokens = torch.tensor([[2, 3, EOS]] + [[2, 3, 3]] * 3)
    rollout = Rollout(tokens, torch.tensor([1] * 4), torch.tensor([3] * 4), torch.tensor([[0, 1, 1]] * 4).bool(),
                      score(model, tokens)[0].detach(), torch.tensor([True, False, False, False]))
    (slope,), metrics = gradients_of_an_update(model, rollout, torch.tensor([1.0, 0, 0, 0]), std=False)
    assert metrics["updates"] == 1 and metrics["groups_with_variance"] == 1
    assert slope[3, EOS] < 0 < slope[3, 3]  # stopping becomes likelier; going on, as the cut-off rows did, becomes less likely


def test_a_rewarded_token_becomes_likelier_and_the_others_less_likely():
    model = Bigram(torch.zeros(4, 4))
    algorithm = make(model, max_new_tokens=1)
    rollout = written(model, [[2, token] for token in range(4)] * 4)  # each token once in each group
    algorithm.update(rollout, (rollout.tokens[:, 1] == 3).float())
    assert model.table[2].argmax() == 3 and model.table[2, 3] > 0 > model.table[2, [0, 1, 2]].max()


def test_several_epochs_step_several_times_and_then_meet_the_clip():
    model = tiny_gpt(vocab_size=6)
    metrics = make(model, epochs=3, lr=0.05, clip_low=0.01, clip_high=0.01).update(eight(model), torch.arange(8.0))
    assert metrics["updates"] == 3 and metrics["clip_fraction"] > 0


def test_rewarding_only_an_early_stop_makes_lengths_fall():
    """Trap 3: stopping is learned like anything else."""
    model = tiny_gpt(vocab_size=5, scale=1.0)
    algorithm, chances = make(model, group_size=8, lr=0.01), []
    for n in range(8):
        chances.append(float(model(torch.tensor([[2, 3]]))[0, -1].softmax(-1)[EOS].detach()))  # to stop at once
        rollout = sampled(model, 64, seed=n)
        algorithm.update(rollout, -(rollout.lengths - rollout.prompt_lengths).float())
    assert chances[0] < 0.4 and chances[-1] > 0.6


def test_the_reference_stays_and_the_policy_is_what_is_sampled_from():
    model = tiny_gpt(vocab_size=6)
    algorithm, start = make(model), copy.deepcopy(model.state_dict())
    algorithm.update(eight(model), torch.arange(8.0))
    assert algorithm.behavior is model and not torch.equal(model.embed.weight, start["embed.weight"])
    assert all(torch.equal(w, start[name]) for name, w in algorithm.reference.state_dict().items())


def test_a_restored_algorithm_makes_the_same_next_update():
    """Trap 25: the optimizer's moments and the reference are part of a run."""
    def update(model, algorithm):
        return algorithm.update(eight(model), torch.arange(8.0))
    model = tiny_gpt(vocab_size=6)
    algorithm = make(model, beta=0.1)
    update(model, algorithm)
    twin = copy.deepcopy(model)
    restored = make(twin, beta=0.1)
    restored.load_state_dict(copy.deepcopy(algorithm.state_dict()))
    assert update(model, algorithm) == update(twin, restored)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters()))


def test_collect_samples_a_group_for_every_problem():
    task = tasks.load("countdown", numbers=2, cot="off")
    model = tiny_gpt(task.tokenizer.n_vocab, 32)
    problems = [task.sample_problem(random.Random(seed(n))) for n in (0, 1)]
    rollout = GRPO(model, task, GRPOConfig(group_size=3, max_new_tokens=4), seeded()).collect(problems)
    assert rollout.problems == [problems[0]] * 3 + [problems[1]] * 3 and rollout.tokens.shape[0] == 6


# ---- the relatives: what differs

def test_leaving_the_sample_out_of_its_baseline_by_hand():
    """1 against the mean of 0, 0 and 0.5; the three others against means of 0.5, 0.5 and 1/3."""
    advantages = group_advantages(torch.tensor([1.0, 0, 0, 0.5, 0.1, 0.1, 0.1, 0.1]), 4, std=False, baseline="leave_one_out")
    assert advantages.tolist() == pytest.approx([5 / 6, -1 / 2, -1 / 2, 1 / 6, 0, 0, 0, 0])
    assert not advantages[4:].any()


PAPERS = {name: TABLE[name] for name in ("reinforce", "rloo", "grpo", "dr_grpo", "dapo", "gspo", "maxrl", "cispo", "nsr",
                                             "wreinforce", "reinforce_pp")}  # there may be more: yours


def test_each_row_of_the_table_is_a_legal_config():
    for name, row in TABLE.items():
        check(GRPOConfig(**row))
    for name, row in PAPERS.items():  # whole, as they stand beside each other
        assert {"baseline", "std", "loss_aggregation", "clip_low", "clip_high"} <= row.keys(), name


@pytest.mark.parametrize("name, other, differ", [
    ("rloo", "reinforce", {"baseline"}),
    ("dr_grpo", "grpo", {"std", "loss_aggregation"}),
    ("dapo", "grpo", {"loss_aggregation", "clip_high", "dynamic_sampling", "overlong"}),
    ("dr_grpo", "reinforce", {"clip_low", "clip_high"}),
    ("gspo", "grpo", {"ratio", "clip_low", "clip_high"}),
    ("maxrl", "dr_grpo", {"per_mean"}),
    ("cispo", "dapo", {"ratio", "clip_low", "clip_high", "dynamic_sampling", "overlong"}),
    ("nsr", "dr_grpo", {"baseline"}),
    ("wreinforce", "nsr", {"right_weight"}),
    ("reinforce_pp", "dr_grpo", {"loss_aggregation", "batch_std"}),
])
def test_a_row_differs_from_its_neighbour_in_these_settings_alone(name, other, differ):
    """How long and how fast each is trained is tuning, and may differ too."""
    tuning = {"lr", "epochs", "mini_batches", "prompts", "group_size"}
    one, two = asdict(GRPOConfig(**TABLE[name])), asdict(GRPOConfig(**TABLE[other]))
    assert {setting for setting in one if one[setting] != two[setting]} - tuning == differ


def test_the_rows_are_those_of_the_papers():
    assert [name for name, row in PAPERS.items() if row["std"]] == ["grpo", "dapo", "gspo", "cispo"]
    assert [name for name, row in PAPERS.items() if row["baseline"] == "leave_one_out"] == ["rloo"]
    assert {name: row["loss_aggregation"] for name, row in PAPERS.items()} == {
        "reinforce": "constant", "rloo": "constant", "grpo": "sequence_mean", "dr_grpo": "constant", "dapo": "token_mean",
        "gspo": "sequence_mean", "maxrl": "constant", "cispo": "token_mean", "nsr": "constant", "wreinforce": "constant",
        "reinforce_pp": "token_mean"}
    assert (TABLE["gspo"]["clip_low"], TABLE["gspo"]["clip_high"], TABLE["gspo"]["ratio"]) == (3e-4, 4e-4, "sequence")
    assert (TABLE["dapo"]["clip_low"], TABLE["dapo"]["clip_high"], TABLE["dapo"]["overlong"]) == (0.2, 0.28, 0.2)


@pytest.mark.parametrize("name, clips", [("reinforce", False), ("rloo", False), ("grpo", True), ("dr_grpo", True), ("dapo", True),
                                         ("gspo", True), ("maxrl", True)])
def test_without_a_clip_a_ratio_may_go_anywhere(name, clips):
    """100 times as likely and asked to rise, a hundredth as likely and asked to fall: only with a clip is that enough."""
    row = {side: TABLE[name][side] for side in ("clip_low", "clip_high")}
    up, down = gradient(100.0, 1.0, **row)[0], gradient(0.01, -1.0, **row)[0]
    assert [up, down] == ([0, 0] if clips else [pytest.approx(-100), pytest.approx(0.01)])


def test_two_settings_that_do_not_exist_are_errors():
    with pytest.raises(ValueError, match="k1, k2 or k3"):
        kl_estimate(torch.zeros(1), torch.zeros(1), "k4")
    with pytest.raises(InputError, match="--baseline"):
        check(GRPOConfig(baseline="median"))


# ---- gspo: one ratio a completion

WHOLE = CLIP | {"clip_low": 1.0, "clip_high": 1e6, "ratio": "sequence"}  # without a clip


def sequence_slope(ratios, mask, advantage=1.0, **settings):
    """d loss / d log pi of every token of one row whose probabilities have changed by `ratios` -> list."""
    logprobs = torch.tensor([ratios]).log().requires_grad_()
    old, mask = torch.zeros(1, len(ratios)), torch.tensor([mask]).bool()
    loss, _ = policy_loss(logprobs, old, torch.tensor([advantage]), mask, **(WHOLE | settings))
    loss.backward()
    return logprobs.grad[0].tolist()


def test_the_ratio_of_a_sequence_is_the_geometric_mean_of_its_tokens_ratios():
    """s = sqrt(4 * 1) = 2, and d s / d log pi_t = s / 2 = 1 for both tokens; of its own each would have 4/2 and 1/2."""
    assert sequence_slope([4.0, 1.0], [1, 1]) == pytest.approx([-1.0, -1.0])
    assert sequence_slope([4.0, 1.0], [1, 1], ratio="token") == pytest.approx([-2.0, -0.5])


def test_only_what_the_policy_chose_is_in_the_ratio_of_a_sequence():
    """A prompt or padding that is 1000 times as likely now: s is still 2, not in the gradient and not in the mean."""
    assert sequence_slope([1000.0, 4.0, 1.0, 1000.0], [0, 1, 1, 0]) == pytest.approx([0, -1.0, -1.0, 0])


def test_a_sequence_is_clipped_as_a_whole():
    """4 and 1/4 make s = 1: nothing is clipped, though each token has gone far. 1.001 twice is beyond 1 + 4e-4: both are."""
    clip = {name: TABLE["gspo"][name] for name in ("clip_low", "clip_high")}
    assert sequence_slope([4.0, 0.25], [1, 1], **clip) == pytest.approx([-0.5, -0.5])
    assert sequence_slope([1.001, 1.001], [1, 1], **clip) == [0, 0]
    assert sequence_slope([1.0003, 1.0003], [1, 1], **clip) == pytest.approx([-0.5, -0.5], abs=1e-3)
    assert sequence_slope([1.0003, 1.0003], [1, 1], -1.0, **clip) == pytest.approx([0.5, 0.5], abs=1e-3)
    assert sequence_slope([0.9996, 0.9996], [1, 1], -1.0, **clip) == [0, 0]  # below 1 - 3e-4


def test_every_sequence_counts_the_same():
    """s = 2 and A = 3 for one token, s = 1 and A = -1 for three: the loss is -(6 - 1) / 2, whatever the lengths."""
    mask = torch.tensor([[1, 0, 0], [1, 1, 1]]).bool()
    logprobs = torch.tensor([[2.0, 9.0, 9.0], [4.0, 0.5, 0.5]]).log()
    loss, _ = policy_loss(logprobs, torch.zeros(2, 3), torch.tensor([3.0, -1.0]), mask, **WHOLE)
    assert float(loss) == pytest.approx(-2.5)


def test_the_micro_batch_size_does_not_change_the_gradient_of_sequences():
    """A rollout that the policy has moved away from, so that no ratio is 1."""
    rewards, rollout = torch.tensor([1.0, 0, 0, 0.5, 0, 0, 1, 0]), eight(tiny_gpt(vocab_size=6))
    rollout.logprobs += 0.1 * torch.randn(rollout.logprobs.shape, generator=seeded()) * rollout.mask
    row = {"ratio": "sequence", "clip_low": 1.0, "clip_high": 1e6}
    seen = [gradients_of_an_update(tiny_gpt(vocab_size=6), rollout, rewards, micro_batch=size, **row)[0] for size in (8, 2, 1)]
    alone = gradients_of_an_update(tiny_gpt(vocab_size=6), rollout, rewards, clip_low=1.0, clip_high=1e6)[0]
    for gradients in seen[1:]:
        for a, b in zip(gradients, seen[0]):
            torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-3)
    assert any(not torch.allclose(a, b, rtol=1e-3) for a, b in zip(alone, seen[0]))  # the setting arrives where the loss is made


# ---- maxrl: divided by the mean

def test_dividing_by_the_mean_by_hand():
    """One of four right: mean 1/4, so 3/4 and -1/4 times 4. Two of four: mean 1/2. Three of four: mean 3/4."""
    rewards = torch.tensor([1.0, 0, 0, 0, 1, 1, 0, 0, 1, 1, 1, 0])
    assert group_advantages(rewards, 4, std=False, per_mean=True).tolist() == pytest.approx(
        [3, -1, -1, -1, 1, 1, -1, -1, 1 / 3, 1 / 3, 1 / 3, -1])


def test_a_mean_that_is_not_above_0_gives_advantage_0():
    """Nothing earned; as much lost as earned; lost on the whole. All right is 0, too: nothing differs."""
    rewards = torch.tensor([0.0, 0, 1, -1, -1, 0.5, 1, 1])
    assert torch.equal(group_advantages(rewards, 2, std=False, per_mean=True), torch.zeros(8))


@pytest.mark.parametrize("G, factor", [(2, 1.0), (4, 7 / 4)])
def test_maxrl_goes_from_the_gradient_of_p_towards_that_of_log_p(G, factor):
    """Two arms of probability p = 1/2, one is right: every group of G is as likely. The mean gradient is
    ((1 - (1-p)^G) / p - (1-p)^(G-1)) grad p: grad p itself for G = 2, 15/8 - 1/8 times that for G = 4; grad log p would be 2."""
    arms = torch.cartesian_prod(*[torch.tensor([0, 1])] * G).flatten()
    model = Bigram(torch.zeros(2, 2))
    row = TABLE["maxrl"] | {"group_size": G, "max_new_tokens": 1, "micro_batch": 1000}
    (slope,), _ = gradients_of_an_update(model, written(model, [[0, arm] for arm in arms.tolist()]), arms.float(), **row)
    assert (-slope[0]).tolist() == pytest.approx([-factor / 4, factor / 4])  # grad p = p (1 - p)


@pytest.mark.parametrize("G", [2, 3])
@pytest.mark.parametrize("name, unbiased", [("rloo", True), ("reinforce", False), ("dr_grpo", False), ("grpo", False),
                                            ("cispo", False)])
def test_the_mean_gradient_of_every_relative_is_exact_up_to_a_known_factor(name, unbiased, G):
    """Trap 28, without any luck: three arms with probabilities 1/2, 1/4, 1/4, and every possible group of G pulls as often as its
    probability says, out of 4^G. Leaving the sample out of its baseline gives the exact gradient of the expected payoff, leaving
    it in (1 - 1/G) times that. Dividing by the standard deviation would bend it: that is switched off here."""
    p, payoff = torch.tensor([1 / 2, 1 / 4, 1 / 4]), torch.tensor([0.0, 1.0, 0.3])
    exact = p * (payoff - p @ payoff)
    arms = torch.cartesian_prod(*[torch.tensor([0, 0, 1, 2])] * G).flatten()
    model = Bigram(p.log().expand(3, 3).clone())
    row = TABLE[name] | {"std": False, "group_size": G, "max_new_tokens": 1, "micro_batch": 1000, "epochs": 1, "mini_batches": 1}
    (slope,), _ = gradients_of_an_update(model, written(model, [[0, arm] for arm in arms.tolist()]), payoff[arms], **row)
    assert (-slope[0]).tolist() == pytest.approx(((1 if unbiased else 1 - 1 / G) * exact).tolist(), abs=1e-6)


def test_dividing_by_the_standard_deviation_bends_the_gradient():
    """The same with std: not the exact gradient times anything, because rare and frequent surprises are scaled to one size."""
    p, payoff = torch.tensor([1 / 2, 1 / 4, 1 / 4]), torch.tensor([0.0, 1.0, 0.3])
    arms = torch.cartesian_prod(*[torch.tensor([0, 0, 1, 2])] * 2).flatten()
    model = Bigram(p.log().expand(3, 3).clone())
    (slope,), _ = gradients_of_an_update(model, written(model, [[0, arm] for arm in arms.tolist()]), payoff[arms], group_size=2)
    assert float(torch.cosine_similarity(-slope[0], p * (payoff - p @ payoff), dim=0)) < 0.99


# ---- cispo: the weight is clipped, the gradient never

@pytest.mark.parametrize("advantage, ratio, expected", [
    (+1.0, 0.5, -0.5), (+1.0, 1.0, -1.0), (+1.0, 2.5, -2.5),
    (+1.0, 8.0, -3.0),   # far beyond the clip, where GRPO's gradient is 0: as much as a ratio of 3 would give
    (-1.0, 0.1, +0.1),   # there GRPO's is 0 as well; below there is no clip
    (-1.0, 8.0, +3.0),
])
def test_the_weight_of_a_token_is_clipped_and_its_gradient_never_gone(advantage, ratio, expected):
    row = {name: TABLE["cispo"][name] for name in ("clip_low", "clip_high", "ratio")}
    slope, clipped = gradient(ratio, advantage, **row)
    assert slope == pytest.approx(expected) and clipped == (ratio == 8.0)


def test_within_the_clip_a_weight_has_the_gradient_of_a_ratio():
    """rho A differentiated is rho A grad log pi, and that is what a weight of rho gives: for tokens that have moved a little."""
    rewards, rollout = torch.tensor([1.0, 0, 0, 0.5, 0, 0, 1, 0]), eight(tiny_gpt(vocab_size=6))
    rollout.logprobs += 0.1 * torch.randn(rollout.logprobs.shape, generator=seeded()) * rollout.mask
    wide = {"clip_low": 1.0, "clip_high": 1e6}
    seen = [gradients_of_an_update(tiny_gpt(vocab_size=6), rollout, rewards, ratio=ratio, **wide)[0] for ratio in ("weight", "token")]
    for a, b in zip(*seen):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-3)


# ---- nsr and weighted reinforce: compared with being right

def test_wrong_answers_count_minus_one_and_right_ones_lambda():
    """Also in groups that agree: all wrong is a lesson here."""
    rewards = torch.tensor([1.0, 0, 0, 0, 1, 1])
    advantages = lambda name: group_advantages(rewards, 2, **{key: TABLE[name][key] for key in ("baseline", "std", "right_weight")
                                                              if key in TABLE[name]}).tolist()
    assert advantages("nsr") == [0, -1, -1, -1, 0, 0]
    assert advantages("wreinforce") == pytest.approx([0.1, -1, -1, -1, 0.1, 0.1])


@pytest.mark.parametrize("name, factor", [("nsr", 1.0), ("wreinforce", 1.1)])
def test_a_constant_baseline_leaves_the_gradient_what_it_is(name, factor):
    """Arms of 1/2, 1/4, 1/4, the second is right: four rows that pull as often as they come give (1 + lambda) grad p."""
    p, right = torch.tensor([1 / 2, 1 / 4, 1 / 4]), torch.tensor([0.0, 1.0, 0.0])
    arms, model = torch.tensor([0, 0, 1, 2]), Bigram(p.log().expand(3, 3).clone())
    row = TABLE[name] | {"group_size": 2, "max_new_tokens": 1}
    (slope,), _ = gradients_of_an_update(model, written(model, [[0, arm] for arm in arms.tolist()]), right[arms], **row)
    assert (-slope[0]).tolist() == pytest.approx((factor * p * (right - p @ right)).tolist(), abs=1e-6)


# ---- reinforce++: whitened over the batch

def test_dividing_by_the_spread_of_the_batch_by_hand():
    """Groups (1, 0) and (3, 0): distances 1/2, -1/2, 3/2, -3/2, whose mean square is 5/4. All equal: nothing."""
    advantages = group_advantages(torch.tensor([1.0, 0, 3, 0]), 2, std=False, batch_std=True)
    assert advantages.tolist() == pytest.approx([x / 1.25 ** 0.5 for x in (0.5, -0.5, 1.5, -1.5)])
    assert not group_advantages(torch.full((4,), 0.1), 2, std=False, batch_std=True).any()


def test_one_scale_for_the_whole_batch_does_not_bend_the_gradient():
    """Unlike a standard deviation of each group: every pair of three arms, and the direction is exact."""
    p, payoff = torch.tensor([1 / 2, 1 / 4, 1 / 4]), torch.tensor([0.0, 1.0, 0.3])
    arms = torch.cartesian_prod(*[torch.tensor([0, 0, 1, 2])] * 2).flatten()
    model = Bigram(p.log().expand(3, 3).clone())
    row = TABLE["reinforce_pp"] | {"group_size": 2, "micro_batch": 1000}
    (slope,), _ = gradients_of_an_update(model, written(model, [[0, arm] for arm in arms.tolist()]), payoff[arms], **row)
    distances = group_advantages(payoff[arms], 2, std=False)
    assert (-slope[0] * distances.std(correction=0)).tolist() == pytest.approx((p * (payoff - p @ payoff) / 2).tolist(), abs=1e-6)


# ---- three estimates of the KL

PI_LOGITS, REF = torch.tensor([0.3, -0.2, 1.0, 0.0]), torch.tensor([0.1, 0.2, 0.3, 0.4])


@pytest.mark.parametrize("estimator", ["k1", "k3"])
def test_k1_and_k3_are_unbiased_and_k2_nearly(estimator):
    """Over all four tokens, each as often as the policy writes it."""
    logp = PI_LOGITS.log_softmax(0)
    kl = float((logp.exp() * (logp - REF.log())).sum())
    assert float((logp.exp() * kl_estimate(logp, REF.log(), estimator)).sum()) == pytest.approx(kl)
    assert float((logp.exp() * kl_estimate(logp, REF.log(), "k2")).sum()) == pytest.approx(kl, rel=0.2)


def test_k2_and_k3_are_never_negative_and_zero_where_both_agree():
    d = torch.linspace(-2, 2, 9)
    for estimator in ("k2", "k3"):
        estimate = kl_estimate(d, torch.zeros(9), estimator)
        assert estimate[4] == 0 and (estimate[d != 0] > 0).all()


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_what_the_three_estimates_do_as_a_loss_for_one_token(estimator):
    """Trap 8, as an exact expectation over four tokens: k1 does nothing, k2 descends KL(pi || ref), k3 KL(ref || pi).
    True where a completion is one token. What is left of it for sequences: the next section."""
    logits = PI_LOGITS.clone().requires_grad_()
    logp = logits.log_softmax(0)
    meant = {"k1": 0 * logits.sum(), "k2": (logp.exp() * (logp - REF.log())).sum(), "k3": (REF * (REF.log() - logp)).sum()}
    expected, = torch.autograd.grad(meant[estimator], logits, retain_graph=True)
    loss, stats = policy_loss(logp[:, None], logp.detach()[:, None], torch.zeros(4), torch.ones(4, 1).bool(), **CLIP,
                              ref_logprobs=REF.log()[:, None], beta=1.0, kl_estimator=estimator,
                              weights=logp.detach().exp()[:, None])
    gradient, = torch.autograd.grad(loss, logits)
    torch.testing.assert_close(gradient, expected, atol=1e-6, rtol=1e-5)
    assert float(stats["kl"]) == pytest.approx(float(kl_estimate(logp.detach(), REF.log(), estimator).mean()))


# ---- the same over whole sequences: docs/kl.md

# The smallest language in which a token has consequences. At each of three positions the policy goes on or ends, so there are
# four sequences, and an expectation is a sum of four terms. Its parameters are the three logits to go on.
GO, REF_GO = torch.tensor([0.3, -0.2, 0.1]), torch.tensor([0.0, 0.5, -0.4])
GOES_ON = torch.tensor([[0, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 1]]).bool()
WRITTEN = torch.tensor([[1, 0, 0], [1, 1, 0], [1, 1, 1], [1, 1, 1]]).bool()  # the mask: lengths 1, 2, 3, 3
LENGTHS, NO_CLIP = WRITTEN.sum(1), {"clip_low": 1.0, "clip_high": 1e6}
AGGREGATES = ("sequence_mean", "token_mean", "constant")


def sequences(logits):
    """Logits to go on (3,) -> log-probs of the tokens of the four sequences (4, 3), chances of the sequences (4,)."""
    logprobs = torch.where(GOES_ON, logits, -logits).sigmoid().log().masked_fill(~WRITTEN, 0.0)
    return logprobs, logprobs.sum(1).exp()


def slope(number, logits):
    return torch.autograd.grad(number, logits, retain_graph=True)[0]


def true_slope():
    """The gradient of KL(pi || pi_ref) over sequences, by autograd: nothing is sampled, nothing is estimated."""
    logits = GO.clone().requires_grad_()
    logprobs, chances = sequences(logits)
    return slope(chances @ (logprobs - sequences(REF_GO)[0]).sum(1), logits)


def expected_slope(estimator, aggregate, place):
    """The gradient of the loss with beta 1 and no other reward, each sequence as often as the policy writes it.

    'constant' divides by the limit of 3 tokens. 'token_mean' divides by the tokens of the batch: here of a very large one, in
    which there are E|o| to a sequence.
    """
    logits = GO.clone().requires_grad_()
    (logprobs, chances), ref_logprobs = sequences(logits), sequences(REF_GO)[0]
    weights = token_weights(WRITTEN, aggregate) * len(WRITTEN) * chances.detach()[:, None]
    if aggregate == "token_mean":
        weights = weights / weights.sum()  # the weights of a token mean add up to 1
    if place == "loss":
        loss, _ = policy_loss(logprobs, logprobs.detach(), torch.zeros(4), WRITTEN, **NO_CLIP, aggregate=aggregate,
                              weights=weights, ref_logprobs=ref_logprobs, beta=1.0, kl_estimator=estimator)
    else:  # a price on every token; it is charged to this token and to all before it, which have led there
        prices = -kl_estimate(logprobs.detach(), ref_logprobs, estimator)
        advantages, _ = gae(prices, torch.zeros(4, 3), WRITTEN, gamma=1.0, lam=1.0)
        loss, _ = policy_loss(logprobs, logprobs.detach(), advantages, WRITTEN, **NO_CLIP, aggregate=aggregate, weights=weights)
    return slope(loss, logits)


def same(a, b):
    return torch.allclose(a, b, atol=1e-6)


def test_the_four_sequences_are_all_there_are():
    assert float(sequences(GO)[1].sum()) == pytest.approx(1)


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
@pytest.mark.parametrize("aggregate", AGGREGATES)
def test_the_table_of_the_kl_page_is_what_comes_out(estimator, aggregate):
    """Every row of the table in docs/kl.md. To see them: python -m pytest tests/test_grpo.py -k table -s"""
    numbers = lambda gradient: ", ".join(f"{x:.3f}" for x in gradient).replace("-0.000", "0.000")
    row = [numbers(expected_slope(estimator, aggregate, place)) for place in ("loss", "reward")]
    line = f"| {estimator} | `{aggregate}` | {row[0]} | {row[1]} |"
    print("\n" + line)
    page = (Path(__file__).parent.parent / "docs" / "kl.md").read_text().replace("**", "")
    assert line in page and f"({numbers(true_slope() / 3)})" in page


def test_one_place_alone_has_the_gradient_of_the_kl_of_sequences():
    """Trap 34. k1 in the reward, each token the same weight. Everything else pulls elsewhere: not the true gradient, nor any
    multiple of it (its cosine would be 1)."""
    for estimator in ("k1", "k2", "k3"):
        for aggregate in AGGREGATES:
            for place in ("loss", "reward"):
                cosine = torch.cosine_similarity(expected_slope(estimator, aggregate, place), true_slope(), dim=0)
                right = estimator == "k1" and place == "reward" and aggregate != "sequence_mean"
                assert (float(cosine) > 0.9999) == right, (estimator, aggregate, place)
    logprobs, ref_logprobs = sequences(GO)[0], sequences(REF_GO)[0]
    assert same(token_rewards(torch.zeros(4), logprobs, ref_logprobs, WRITTEN, beta=1.0),  # PPO has it there
                -kl_estimate(logprobs, ref_logprobs, "k1"))
    assert same(expected_slope("k1", "constant", "reward"), true_slope() / 3)  # / 3: the limit
    mean_length = sequences(GO)[1] @ LENGTHS.float()
    assert same(expected_slope("k1", "token_mean", "reward"), true_slope() / mean_length)


def test_k1_as_a_loss_asks_for_longer_answers_where_their_tokens_count_less():
    """Trap 34. The loss is a mean of d over the tokens, the gradient E[1/|o| grad log pi(o)] = grad E[1/|o|]: the reference is
    not in it. Going down, E[1/|o|] falls and answers grow. With weights that no length changes it is grad E[1] = 0."""
    logits = GO.clone().requires_grad_()
    inverse_length = slope(sequences(logits)[1] @ (1 / LENGTHS), logits)
    assert same(expected_slope("k1", "sequence_mean", "loss"), inverse_length)
    assert (inverse_length[:2] < -0.02).all()  # a step against it: both go on more often
    for aggregate in ("token_mean", "constant"):
        assert same(expected_slope("k1", aggregate, "loss"), torch.zeros(3))


def test_k2_and_k3_as_losses_do_not_see_where_a_token_leads():
    """Trap 34. They take the KL of each choice, here of go on or end, with the way to it held fixed: k2 KL(pi || ref), k3
    KL(ref || pi). The true gradient has one more term: going on leads to positions where there is more KL to pay."""
    logits = GO.clone().requires_grad_()
    p, q = logits.sigmoid(), REF_GO.sigmoid()
    kl = lambda p, q: p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
    reached = torch.stack([torch.ones(()), p[0], p[0] * p[1]])  # chance that a sequence gets as far as this position
    k2, k3 = slope(reached.detach() @ kl(p, q), logits), slope(reached.detach() @ kl(q, p), logits)
    assert same(expected_slope("k2", "constant", "loss"), k2 / 3) and same(expected_slope("k3", "constant", "loss"), k3 / 3)
    assert same(slope(reached @ kl(p, q), logits), true_slope()) and not same(k2, true_slope())


def test_k3_in_the_loss_and_in_the_reward_together_is_the_true_gradient():
    """E[k3] is the KL, and a gradient of an expectation has two halves: what the estimate does (loss), and how the sampling
    changes (reward). k1 has all of it in the reward, k3 nearly all of it in the loss."""
    both = expected_slope("k3", "constant", "loss") + expected_slope("k3", "constant", "reward")
    assert same(both, true_slope() / 3)


def test_a_kl_in_the_reward_of_whole_completions_is_right_too():
    """Without a critic: -sum d as the reward of a completion, compared within groups of two. All sixteen groups."""
    logits = GO.clone().requires_grad_()
    (logprobs, chances), ref_logprobs = sequences(logits), sequences(REF_GO)[0]
    pairs = torch.cartesian_prod(torch.arange(4), torch.arange(4))
    rows, chance = pairs.flatten(), chances.detach()[pairs].prod(1).repeat_interleave(2)
    rewards = -(logprobs.detach() - ref_logprobs).sum(1)[rows]
    advantages = group_advantages(rewards, 2, std=False, baseline="leave_one_out")
    weights = token_weights(WRITTEN[rows], "constant") * len(pairs) * chance[:, None]
    loss, _ = policy_loss(logprobs[rows], logprobs[rows].detach(), advantages, WRITTEN[rows], **NO_CLIP, aggregate="constant",
                          weights=weights)
    assert same(slope(loss, logits), true_slope() / 3)


@pytest.mark.parametrize("B", [1, 2, 4])
def test_in_a_small_batch_a_token_mean_pulls_at_the_length_too(B):
    """k1 as a loss, all batches of B sequences: the gradient is grad E[1/N], N the tokens of the batch. One sequence: that of
    sequence_mean. It fades as 1/B."""
    logits = GO.clone().requires_grad_()
    (logprobs, chances), ref_logprobs = sequences(logits), sequences(REF_GO)[0]
    batches = torch.cartesian_prod(*[torch.arange(4)] * B).view(-1, B)
    loss = sum(chances.detach()[rows].prod() * policy_loss(
        logprobs[rows], logprobs[rows].detach(), torch.zeros(B), WRITTEN[rows], **NO_CLIP, aggregate="token_mean",
        ref_logprobs=ref_logprobs[rows], beta=1.0, kl_estimator="k1")[0] for rows in batches)
    inverse_tokens = (chances[batches].prod(1) / LENGTHS[batches].sum(1)).sum()
    gradient = slope(loss, logits)
    assert same(gradient, slope(inverse_tokens, logits))
    if B == 1:
        assert same(gradient, expected_slope("k1", "sequence_mean", "loss"))
    assert float(gradient.norm()) < 1.05 * float(expected_slope("k1", "sequence_mean", "loss").norm()) / B


def test_an_update_uses_the_estimate_it_is_told_to():
    """Away from the reference, with equal rewards: three estimates, three gradients."""
    def run(estimator):
        model = tiny_gpt(vocab_size=6)
        algorithm = make(model, beta=0.1, kl_estimator=estimator)
        with torch.no_grad():
            model.blocks[0].q.weight += 0.5 * torch.randn(32, 32, generator=seeded())
        return algorithm.update(eight(tiny_gpt(vocab_size=6)), torch.ones(8))["grad_norm"]
    assert len({round(run(estimator), 4) for estimator in ("k1", "k2", "k3")}) == 3


# ---- a price on length

def test_the_overlong_penalty_falls_on_a_line_over_the_last_share():
    """Half of 8 tokens: nothing up to 4, then a quarter for each token more."""
    assert overlong_penalty(torch.arange(1, 9), 8, 0.5).tolist() == [0, 0, 0, 0, -0.25, -0.5, -0.75, -1]


def test_the_overlong_penalty_counts_sampled_tokens_and_is_part_of_the_reward():
    """Limit 4, share 1/2: the rows have 1 and 4 tokens behind a prompt of 3. Right both, but the long one pays 1."""
    model = Bigram(torch.zeros(4, 4))
    rollout = written(model, [[2, 2, 2, EOS], [2, 2, 2, 3, 3, 3, 3], [2, 2, 2, 3], [2, 2, 2, 3]], 3)
    settings = {"group_size": 2, "max_new_tokens": 4, "std": False, "loss_aggregation": "constant"}
    (slope,), metrics = gradients_of_an_update(model, rollout, torch.tensor([1.0, 1, 0, 0]), overlong=0.5, **settings)
    (by_hand,), _ = gradients_of_an_update(model, rollout, torch.tensor([1.0, 0, 0, 0]), overlong=0.0, **settings)
    torch.testing.assert_close(slope, by_hand)
    assert slope[2, EOS] < 0 and metrics["groups_with_variance"] == 0  # the groups agree about what is right


# ---- only the tokens that were a choice

def test_the_highest_entropies_are_taken_from_the_whole_batch():
    """Half of four tokens: both may stand in one row. Prompt and padding are no candidates, whatever stands there."""
    entropies = torch.tensor([[9.0, 0.8, 0.9, 9.0], [9.0, 0.1, 0.2, 9.0]])
    mask = torch.tensor([[False, True, True, False]] * 2)
    assert top_entropy_tokens(entropies, mask, 0.5).tolist() == [[False, True, True, False], [False] * 4]
    assert torch.equal(top_entropy_tokens(entropies, mask, 1.0), mask)
    assert top_entropy_tokens(entropies, mask, 1e-6).sum() == 1


def test_the_policy_gradient_reaches_only_the_tokens_of_high_entropy():
    """After 2 everything is open, after 3 hardly: of each row's two tokens the first is trained. Both still share the weight."""
    table = torch.zeros(4, 4)
    table[3, EOS] = 5.0
    model = Bigram(table)
    rollout, rewards = written(model, [[2, 3, EOS], [2, 3, EOS], [2, 0, 3], [2, 3, 0]]), torch.tensor([1.0, 0, 0, 0])
    some, _ = gradients_of_an_update(model, rollout, rewards, top_entropy=0.5, loss_aggregation="token_mean")
    every, _ = gradients_of_an_update(model, rollout, rewards, top_entropy=1.0, loss_aggregation="token_mean")
    assert every[0][3].any() and not some[0][3].any()
    assert torch.equal(some[0][2], every[0][2]) and some[0][2].any()


def test_the_micro_batch_size_does_not_change_which_tokens_are_trained():
    """Trap 11: the share is of the batch, not of each micro-batch."""
    rewards, rollout = torch.tensor([1.0, 0, 0, 0.5, 0, 0, 1, 0]), eight(tiny_gpt(vocab_size=6))
    run = lambda size: gradients_of_an_update(tiny_gpt(vocab_size=6), rollout, rewards, micro_batch=size, top_entropy=0.3)[0]
    for a, b in zip(run(8), run(1)):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-3)


# ---- the entropy in the objective

def test_the_entropy_bonus_has_a_gradient_of_its_own():
    """Trap 27, without any advantage. The slope of the entropy by hand, -p (log p + H), for p = (4, 1, 1, 2) / 8 after token 2."""
    p = torch.tensor([4, 1, 1, 2]) / 8
    model = Bigram(p.log().expand(4, 4).clone())
    rollout = written(model, [[2, 3], [2, EOS]])
    (slope,), metrics = gradients_of_an_update(model, rollout, torch.ones(2), group_size=2, entropy_bonus=0.5)
    H = -float((p * p.log()).sum())
    assert (-slope[2]).tolist() == pytest.approx((-0.5 * p * (p.log() + H)).tolist(), abs=1e-6)
    assert metrics["updates"] == 1 and metrics["loss"] == pytest.approx(-0.5 * H, rel=1e-5)


def test_with_an_entropy_bonus_rows_without_advantage_still_count():
    """One group is mixed and one agrees: the gradient is that of the loss over all eight rows."""
    model, rewards = tiny_gpt(vocab_size=6), torch.tensor([1.0, 0, 0, 0, 1, 1, 1, 1])
    rollout = eight(model)
    logprobs, entropies = score(model, rollout.tokens)
    loss, _ = policy_loss(logprobs, rollout.logprobs, group_advantages(rewards, 4), rollout.mask, **CLIP,
                          entropies=entropies, entropy_bonus=0.3)
    expected = torch.autograd.grad(loss, list(model.parameters()))
    for a, b in zip(gradients_of_an_update(model, rollout, rewards, entropy_bonus=0.3)[0], expected):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-3)


def test_the_entropy_of_padding_is_no_part_of_the_bonus():
    mask, zeros = torch.tensor([[True, False]]), torch.zeros(1, 2)
    loss, _ = policy_loss(zeros, zeros, torch.zeros(1), mask, **CLIP, entropy_bonus=0.5,
                          entropies=torch.tensor([[2.0, float("nan")]]))
    assert float(loss) == -1


# ---- dynamic sampling

MIXED, AGREE = [1.0, 0, 0, 0], [1.0, 1, 1, 1]


def test_groups_wait_until_there_are_enough():
    """Two groups make a batch. One of the first two disagrees, none of the next two, one of the last two."""
    model = tiny_gpt(vocab_size=6)
    algorithm, start = make(model, prompts=2, dynamic_sampling=True), copy.deepcopy(model.state_dict())
    for rewards, waiting in ((MIXED + AGREE, 4), (AGREE + AGREE, 4)):
        metrics = algorithm.update(eight(model), torch.tensor(rewards))
        assert metrics["updates"] == 0 and sum(len(r) for _, r in algorithm.waiting) == waiting
        assert all(torch.equal(w, start[name]) for name, w in model.state_dict().items())
    metrics = algorithm.update(eight(model), torch.tensor(AGREE + MIXED))
    assert metrics["updates"] == 1 and metrics["groups_with_variance"] == 0.5 and algorithm.waiting == []
    assert not torch.equal(model.embed.weight, start["embed.weight"])


def test_the_gradient_of_groups_that_came_together_is_that_of_one_batch():
    """Of both mixed groups as one rollout, with weights of 1 / (all their tokens). Rows of the groups that agree are gone."""
    model = tiny_gpt(vocab_size=6)
    settings = {"prompts": 2, "loss_aggregation": "token_mean"}
    first, second = eight(model), eight(model, limit=5)
    algorithm = make(model, dynamic_sampling=True, **settings)
    algorithm.optimizer.step = lambda **_: 0.0
    algorithm.update(first, torch.tensor(MIXED + AGREE))
    metrics = algorithm.update(second, torch.tensor(AGREE + MIXED))
    gradients = [p.grad for p in model.parameters()]
    assert first.tokens.shape != second.tokens.shape and metrics["max_log_ratio"] < 1e-4
    together = join([first.select(torch.arange(0, 4)), second.select(torch.arange(4, 8))])
    expected, _ = gradients_of_an_update(model, together, torch.tensor(MIXED + MIXED), **settings)
    for a, b in zip(gradients, expected):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-3)


def test_groups_that_wait_are_part_of_a_run():
    """Trap 25: through a file, as a checkpoint is."""
    def update(algorithm, rewards, limit):
        return algorithm.update(eight(tiny_gpt(vocab_size=6), limit), torch.tensor(rewards))
    settings = {"prompts": 2, "dynamic_sampling": True, "overlong": 0.2}
    algorithm = make(tiny_gpt(vocab_size=6), **settings)
    update(algorithm, MIXED + AGREE, limit=12)
    file = io.BytesIO()
    torch.save(algorithm.state_dict(), file)
    file.seek(0)
    restored = make(tiny_gpt(vocab_size=6), **settings)
    restored.load_state_dict(torch.load(file, weights_only=True))
    metrics = update(algorithm, AGREE + MIXED, limit=5)
    assert metrics == update(restored, AGREE + MIXED, limit=5) and metrics["updates"] == 1
    assert all(torch.equal(a, b) for a, b in zip(algorithm.policy.parameters(), restored.policy.parameters()))


def test_the_price_of_length_falls_on_a_line_and_a_wrong_answer_earns_nothing_for_being_short():
    lengths = torch.tensor([10, 30, 50, 10, 30, 50])
    right = torch.tensor([True] * 3 + [False] * 3)
    assert length_reward(lengths, right, 6).tolist() == pytest.approx([0.5, 0.0, -0.5, 0.0, 0.0, -0.5])


def test_the_price_of_length_is_relative_to_the_group():
    lengths = torch.tensor([10, 20, 70, 90, 40, 40])
    assert length_reward(lengths, torch.ones(6, dtype=torch.bool), 2).tolist() == [0.5, -0.5, 0.5, -0.5, 0.0, 0.0]


def test_the_forks_are_those_at_the_temperature_of_sampling():
    """After 2 two tokens are equally likely, at any temperature: ln 2. After 3 one stands out, by 4: at temperature 1 the choice is
    nearly made, an entropy of 0.4, and at 4 it is open, 1.7."""
    table = torch.full((6, 6), -40.0)
    table[2, 4:], table[3], table[3, 0] = 0.0, -4.0, 0.0
    model, rollout = Bigram(table), written(Bigram(table / 4), [[2, 4], [3, 0]])
    (slope,), _ = gradients_of_an_update(model, rollout, torch.tensor([1.0, 0]), group_size=2, temperature=4.0, top_entropy=0.5)
    assert slope[3].abs().max() > 0 and not slope[2].any()


def test_the_temperature_divides_the_logits_of_the_reference_too():
    """At temperature 2 with logits of 2 z all is as at temperature 1 with z: the KL in the log, and the gradient of that in the loss."""
    found = []
    for temperature in (1.0, 2.0):
        z, other = torch.randn(2, 6, 6, generator=seeded())
        model, rollout = Bigram(z * temperature), eight(Bigram(z))
        algorithm = make(model, temperature=temperature, beta=0.3)
        algorithm.reference.table.data += other * temperature
        algorithm.optimizer.step = lambda **_: 0.0
        metrics = algorithm.update(rollout, torch.tensor(MIXED + MIXED))
        found.append((model.table.grad * temperature, metrics["kl"]))
    torch.testing.assert_close(found[0][0], found[1][0], atol=1e-5, rtol=1e-3)
    assert found[0][1] == pytest.approx(found[1][1], rel=1e-4)


def test_the_price_of_length_is_weighted():
    model = tiny_gpt(vocab_size=6)
    rollout, prices = eight(model), []
    rollout.right = lambda task: torch.ones(8, dtype=torch.bool)
    for weight in (1.0, 0.25):
        prices.append(make(model, length_weight=weight).shape(rollout, torch.zeros(8)))
    assert prices[0].abs().max() == 0.5 and torch.equal(prices[1], prices[0] / 4)


# ---- what runs out of tokens, and a reference that moves

def test_filtered_completions_give_no_gradient_and_still_count_in_their_group():
    """Trap 15: with the limit of 12 the fourth completion is cut off. The mean of its group is over all four; its tokens are
    as if their advantage were 0."""
    model, rewards = tiny_gpt(vocab_size=6), torch.tensor([1.0, 0, 0, 0, 0, 0, 1, 0])
    rollout = eight(model)
    assert rollout.finished.tolist() == [True] * 3 + [False] + [True] * 4
    advantages = make(model, overlong_filter=True).advantages(rollout, rewards)[:, 0]
    assert advantages.tolist() == pytest.approx((group_advantages(rewards, 4) * rollout.finished).tolist())
    filtered = gradients_of_an_update(tiny_gpt(vocab_size=6), rollout, rewards, overlong_filter=True)[0]
    rollout.finished[3] = True
    assert any(not torch.allclose(a, b) for a, b in zip(filtered, gradients_of_an_update(tiny_gpt(vocab_size=6), rollout, rewards)[0]))


@pytest.mark.parametrize("term", [{"beta": 0.1, "kl_estimator": "k2"}, {"entropy_bonus": 0.1}])
def test_filtered_completions_pay_no_kl_and_get_no_bonus(term):
    rollout = eight(tiny_gpt(vocab_size=6))
    rollout.finished[:] = False
    algorithm = make(tiny_gpt(vocab_size=6), overlong_filter=True, **term)
    with torch.no_grad():
        for p in algorithm.reference.parameters():
            p.mul_(1.5)
    before = [p.clone() for p in algorithm.policy.parameters()]
    algorithm.update(rollout, torch.tensor([1.0, 0, 0, 0, 0, 0, 1, 0]))
    assert all(torch.equal(a, b) for a, b in zip(before, algorithm.policy.parameters()))


def test_the_reference_is_renewed_every_so_many_steps():
    """After two steps the reference is the policy of that moment; a restored algorithm knows how far it was."""
    rewards = torch.tensor([1.0, 0, 0, 0.5, 0, 0, 1, 0])
    algorithm = make(tiny_gpt(vocab_size=6), renew_reference=2)
    same = lambda a, b: all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters()))
    start = copy.deepcopy(algorithm.reference)
    for _ in range(2):
        algorithm.update(eight(algorithm.policy), rewards)
    moved = copy.deepcopy(algorithm.policy)
    assert same(algorithm.reference, start)
    restored = make(copy.deepcopy(algorithm.policy), renew_reference=2)
    restored.load_state_dict(copy.deepcopy(algorithm.state_dict()))
    for each in (algorithm, restored):
        each.update(eight(each.policy), rewards)
        assert same(each.reference, moved)
    older = {name: value for name, value in algorithm.state_dict().items() if name != "steps"}
    restored.load_state_dict(older)  # a checkpoint from before steps were counted
    assert restored.steps == 0
