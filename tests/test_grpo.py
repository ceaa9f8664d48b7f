"""GRPO against exact answers: every claim of the docstrings of grpo.py, and each of the classical mistakes."""
import copy
import math
import random
from types import SimpleNamespace

import pytest
import torch

import tasks
from grpo import GRPO, GRPOConfig, group_advantages, policy_loss, token_weights
from sample import Rollout, generate, score
from toys import Bigram, tiny_gpt

EOS = 1
CLIP = {"clip_low": 0.2, "clip_high": 0.2, "aggregate": "sequence_mean"}
TASK = SimpleNamespace(max_new_tokens=12)  # all that an update may ask of a task: it has no tokenizer, hence re-encodes nothing


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


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
    """With every ratio 1 the loss is minus the weighted sum of the advantages: 8 tokens of +1, 2 tokens of -1."""
    mask = torch.arange(8) < torch.tensor([[8], [2]])
    zeros, advantages = torch.zeros(2, 8), torch.tensor([1.0, -1.0])
    loss = lambda mode: float(policy_loss(zeros, zeros, advantages, mask, clip_low=0.2, clip_high=0.2, aggregate=mode)[0])
    assert [loss(mode) for mode in ("sequence_mean", "token_mean", "constant")] == pytest.approx([0, -6 / 10, -6 / 16])


# ---- the clip

def gradient(ratio, advantage, **clip):
    """d loss / d log pi of one token whose probability has changed by `ratio`."""
    logprobs = torch.tensor([[ratio]]).log().requires_grad_()
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
    model, B = tiny_gpt(vocab_size=4, scale=4.0), 20_000
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
                "beta": 0.0, "epochs": 1, "temperature": 1.0, "aggregate": "sequence_mean"}
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
    rollout = sampled(tiny_gpt(vocab_size=6))
    assert len(set(rollout.lengths.tolist())) > 2
    seen = [gradients_of_an_update(tiny_gpt(vocab_size=6), rollout, rewards, micro_batch=size, aggregate=aggregate, beta=beta)
            for size in (8, 2, 1)]
    for gradients, metrics in seen[1:]:
        for a, b in zip(gradients, seen[0][0]):
            torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-3)
        assert metrics == pytest.approx(seen[0][1], abs=1e-5)


@pytest.mark.parametrize("aggregate", ["sequence_mean", "token_mean"])
def test_the_gradient_of_an_update_is_that_of_the_loss_over_all_rows(aggregate):
    """Rows with advantage 0 are left out to save time; the weights must still be those of the whole batch."""
    model, rewards = tiny_gpt(vocab_size=6), torch.tensor([1.0, 0, 0, 0, 1, 1, 1, 1])
    rollout = sampled(model)
    loss, _ = policy_loss(score(model, rollout.tokens)[0], rollout.logprobs, group_advantages(rewards, 4), rollout.mask,
                          **(CLIP | {"aggregate": aggregate}))
    expected = torch.autograd.grad(loss, list(model.parameters()))
    for a, b in zip(gradients_of_an_update(model, rollout, rewards, aggregate=aggregate)[0], expected):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-3)


@pytest.mark.parametrize("temperature", [0.7, 1.0])
def test_the_policy_ratio_is_1_before_the_first_update(temperature):
    """Trap 7 (and 6: at the temperature that was sampled with)."""
    model = tiny_gpt(vocab_size=6)
    metrics = make(model, temperature=temperature).update(sampled(model, temperature=temperature), torch.arange(8.0))
    assert 0 <= metrics["max_log_ratio"] < 1e-4 and metrics["clip_fraction"] == 0


def test_a_rollout_that_is_not_the_policys_own_shows_in_the_log_ratio():
    """The alarm of trap 7 does ring."""
    metrics = make(tiny_gpt(vocab_size=6, seed=1)).update(sampled(tiny_gpt(vocab_size=6)), torch.arange(8.0))
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
    assert algorithm.update(sampled(model), torch.tensor([1.0, 0, 0, 0, 0, 0, 0, 0]))["updates"] == 1  # now there is momentum
    before = copy.deepcopy(model.state_dict())
    metrics = algorithm.update(sampled(model), torch.tensor([0.1] * 4 + [1.0] * 4))
    assert metrics["updates"] == 0 and metrics["mixed_groups"] == 0
    assert all(torch.equal(w, before[name]) for name, w in model.state_dict().items())


def test_with_a_kl_term_groups_that_agree_are_still_pulled_to_the_reference():
    """Trap 27: the KL term reaches the weights."""
    model = tiny_gpt(vocab_size=6)
    algorithm = make(model, beta=0.1)
    with torch.no_grad():
        model.blocks[0].q.weight += 0.5 * torch.randn(32, 32, generator=seeded())  # away from the reference
    metrics = algorithm.update(sampled(model), torch.ones(8))
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
    assert metrics["updates"] == 1 and metrics["mixed_groups"] == 1
    assert slope[3, EOS] < 0 < slope[3, 3]  # stopping becomes likelier; going on, as the cut-off rows did, becomes less likely


def test_a_rewarded_token_becomes_likelier_and_the_others_less_likely():
    model = Bigram(torch.zeros(4, 4))
    algorithm = make(model, max_new_tokens=1)
    rollout = generate(model, [[2]] * 16, 1, eos=EOS, generator=seeded())
    algorithm.update(rollout, (rollout.tokens[:, 1] == 3).float())
    assert model.table[2].argmax() == 3 and model.table[2, 3] > 0 > model.table[2, [0, 1, 2]].max()


def test_several_epochs_step_several_times_and_then_meet_the_clip():
    model = tiny_gpt(vocab_size=6)
    metrics = make(model, epochs=3, lr=0.05, clip_low=0.01, clip_high=0.01).update(sampled(model), torch.arange(8.0))
    assert metrics["updates"] == 3 and metrics["clip_fraction"] > 0


def test_rewarding_only_an_early_stop_makes_lengths_fall():
    """Trap 3: stopping is learned like anything else."""
    model = tiny_gpt(vocab_size=5, scale=1.0)
    algorithm, lengths = make(model, group_size=8, lr=0.01), []
    for seed in range(8):
        rollout = sampled(model, 64, seed=seed)
        new_tokens = (rollout.lengths - rollout.prompt_lengths).float()
        algorithm.update(rollout, -new_tokens)
        lengths.append(float(new_tokens.mean()))
    assert lengths[0] > 3 and lengths[-1] < 1.5


def test_the_reference_stays_and_the_policy_is_what_is_sampled_from():
    model = tiny_gpt(vocab_size=6)
    algorithm, start = make(model), copy.deepcopy(model.state_dict())
    algorithm.update(sampled(model), torch.arange(8.0))
    assert algorithm.behaviour is model and not torch.equal(model.embed.weight, start["embed.weight"])
    assert all(torch.equal(w, start[name]) for name, w in algorithm.reference.state_dict().items())


def test_a_restored_algorithm_makes_the_same_next_update():
    """Trap 25: the optimizer's moments and the reference are part of a run."""
    def update(model, algorithm):
        return algorithm.update(sampled(model), torch.arange(8.0))
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
    problems = [task.sample_problem(random.Random(seed)) for seed in (0, 1)]
    rollout = GRPO(model, task, GRPOConfig(group_size=3, max_new_tokens=4), seeded()).collect(problems)
    assert rollout.problems == [problems[0]] * 3 + [problems[1]] * 3 and rollout.tokens.shape[0] == 6
