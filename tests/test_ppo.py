"""PPO against exact answers: the reward and the advantage of every token, both losses, and who of the four models learns."""
import copy
import math
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch

from grpo import policy_loss
from model import GPT
from ppo import PPO, PPOConfig, explained_variance, gae, token_rewards, value_loss, whiten
from sample import generate, score, values
from toys import Bigram, eight, seed, seeded, tiny_gpt, written

EOS = 1
TASK = SimpleNamespace(max_new_tokens=12)  # all that an update may ask of a task
NAN = float("nan")


class Table(Bigram):
    """A Bigram that a critic can read, too: V(s_t) is one number for each token that may stand before t, critic.head.weight[0]."""

    def __init__(self, table):
        super().__init__(table)
        self.config = SimpleNamespace(n_layer=0, n_head=1, n_kv_head=0, n_embd=len(self.table), block_size=64)

    def autocast(self):
        return nullcontext()

    def hidden(self, tokens):
        return torch.nn.functional.one_hot(tokens, len(self.table)).float()


# ---- the reward of a token

def test_token_rewards():
    """beta (1/2) times the log-ratio is the price of a token; the task pays 3 on top of it on the last token of each row."""
    mask = torch.tensor([[0, 1, 1, 0], [0, 0, 1, 1]]).bool()
    logprobs = torch.tensor([[0, -1.0, -2, 0], [0, 0, -1, -3]])
    ref_logprobs = torch.tensor([[-9, -3.0, -1, -9], [-9, -9, -1, -1]])  # d = 2 and -1 in the first row, 0 and -2 in the second
    r = token_rewards(torch.tensor([3.0, 3.0]), logprobs, ref_logprobs, mask, beta=0.5)
    assert r.tolist() == [[0, -1, 3 + 0.5, 0], [0, 0, 0, 3 + 1]]


def test_the_task_pays_each_row_once_on_its_last_sampled_token():
    """Trap 16: EOS or not, never on padding, and not on every token."""
    place, starts, ends = torch.arange(9), torch.tensor([[1], [3], [2], [4]]), torch.tensor([[9], [4], [5], [6]])
    mask, zeros = (place >= starts) & (place < ends), torch.zeros(4, 9)
    r = token_rewards(torch.tensor([1.0, 2, -3, 4]), zeros, zeros, mask, beta=0.1)
    assert [(row, t, float(r[row, t])) for row, t in r.nonzero().tolist()] == [(0, 8, 1), (1, 3, 2), (2, 4, -3), (3, 5, 4)]


def test_what_stands_outside_of_the_mask_costs_nothing():
    logprobs, mask = torch.tensor([[NAN, -1.0, NAN]]), torch.tensor([[False, True, False]])
    assert token_rewards(torch.tensor([1.0]), logprobs, logprobs, mask, beta=1.0).tolist() == [[0, 1, 0]]


# ---- generalised advantage estimation

def episodes(seed=0):
    """Rewards, values and mask of rows with prompts of 1 to 3 and completions of 5, 1, 3 and 4 tokens, the last one up to T."""
    place, starts, ends = torch.arange(7), torch.tensor([[1], [2], [1], [3]]), torch.tensor([[6], [3], [4], [7]])
    mask = (place >= starts) & (place < ends)
    return *torch.randn(2, 4, 7, generator=seeded(seed)), mask


@pytest.mark.parametrize("gamma, lam", [(1.0, 0.95), (0.9, 0.8), (0.5, 0.0), (0.9, 1.0)])
def test_gae_equals_the_double_sum_of_its_definition(gamma, lam):
    """Trap 13: A_t = sum_l (gamma lam)^l delta_t+l over the row's own tokens, in plain Python; behind the last one V is 0."""
    rewards, V, mask = episodes()
    advantages, returns = gae(rewards, V, mask, gamma, lam)
    for row in range(4):
        place = mask[row].nonzero()[:, 0].tolist()
        delta = {t: rewards[row, t] + gamma * (V[row, t + 1] if t + 1 in place else 0) - V[row, t] for t in place}
        expected = [sum((gamma * lam) ** (u - t) * delta[u] for u in place if u >= t) if t in place else 0 for t in range(7)]
        assert advantages[row].tolist() == pytest.approx([float(a) for a in expected], abs=1e-5)
        assert returns[row].tolist() == pytest.approx([float(a + V[row, t]) if t in place else 0 for t, a in enumerate(expected)],
                                                      abs=1e-5)


def test_lambda_one_is_return_minus_value():
    """All that is still to come, discounted by 1/2 a token: 1 + 2/2 + 4/4 = 3, then 2 + 4/2 = 4, then 4. V is then subtracted."""
    rewards, V = torch.tensor([[0, 1.0, 2, 4, 0]]), torch.tensor([[9, 0.5, 1, 7, 9]])
    mask = torch.tensor([[False, True, True, True, False]])
    advantages, returns = gae(rewards, V, mask, gamma=0.5, lam=1.0)
    assert returns.tolist() == [[0, 3, 4, 4, 0]] and advantages.tolist() == [[0, 2.5, 3, -3, 0]]


def test_lambda_zero_is_the_td_error():
    """r + V of the next - V: 0 + 0.5 - 0.25, then 1 + 0 - 0.5."""
    advantages, _ = gae(torch.tensor([[0.0, 0, 1]]), torch.tensor([[9, 0.25, 0.5]]), torch.tensor([[False, True, True]]), 1.0, 0.0)
    assert advantages.tolist() == [[0, 0.25, 0.5]]


@pytest.mark.parametrize("garbage", [1e9, NAN, float("inf")])
def test_what_stands_outside_of_the_mask_changes_no_advantage(garbage):
    """Trap 13: neither the value of the prompt nor that of the padding behind the last token."""
    rewards, V, mask = episodes()
    expected = gae(rewards, V, mask, 0.9, 0.8)
    dirty = gae(rewards.masked_fill(~mask, garbage), V.masked_fill(~mask, garbage), mask, 0.9, 0.8)
    assert all(torch.equal(a, b) and not a[~mask].any() for a, b in zip(dirty, expected))


def test_running_out_of_tokens_is_an_end_like_any_other():
    """Trap 14: reward 0 and no value beyond the end. A bootstrap from the token behind would give 0 + 0.75 - 0.75."""
    advantages, returns = gae(torch.zeros(1, 3), torch.tensor([[0, 0.75, 0.75]]), torch.tensor([[False, True, False]]), 1.0, 0.95)
    assert advantages.tolist() == [[0, -0.75, 0]] and returns.tolist() == [[0, 0, 0]]


# ---- whitening

def test_whitened_entries_have_mean_0_and_variance_1():
    _, x, mask = episodes()
    white = whiten(5 + 3 * x, mask)
    assert float(white[mask].mean()) == pytest.approx(0, abs=1e-6) and float(white[mask].var(correction=0)) == pytest.approx(1)
    assert not white[~mask].any()


def test_whitening_keeps_the_order_and_sees_the_mask_alone():
    white = whiten(torch.tensor([[NAN, 1.0, 3.0], [1e9, 1.0, 3.0]]), torch.tensor([[False, True, True]] * 2))
    assert white.tolist() == [[0, -1, 1], [0, -1, 1]]


def test_equal_advantages_are_whitened_to_zero():
    """Not to rounding noise, divided by a tiny number."""
    for x in (0.0, 0.1, 1 / 3):
        assert not whiten(torch.full((1, 7), x), torch.ones(1, 7).bool()).any()


# ---- the loss of the critic

@pytest.mark.parametrize("V, loss, slope", [
    # old value 0, return 1, clip 0.25. The error is V - 1, or that of V clipped to [-0.25, 0.25], whichever is larger.
    (+0.00, 0.5 * 1.0000, -1.00),   # has not moved
    (+0.25, 0.5 * 0.5625, -0.75),   # moved as far as it may: still free
    (+0.50, 0.5 * 0.5625, +0.00),   # far enough towards the return: clipped
    (+1.50, 0.5 * 0.5625, +0.00),   # beyond the return, and beyond the clip
    (-0.50, 0.5 * 2.2500, -1.50),   # moved away from the return: nothing holds it back from returning
    (+3.00, 0.5 * 4.0000, +2.00),   # so far beyond that its own error is the larger one: pulled back
])
def test_the_value_clip_removes_the_gradient_only_beyond_the_step(V, loss, slope):
    """With min in place of max the clipped rows get a gradient, and those that have to come back lose theirs."""
    V = torch.tensor([[V]], requires_grad=True)
    one = torch.ones(1, 1)
    error, clipped = value_loss(V, 0 * one, one, one.bool(), clip=0.25)
    error.backward()
    assert error.item() == pytest.approx(loss) and float(V.grad) == pytest.approx(slope) and float(clipped) == (slope == 0)


def test_the_value_clip_is_around_the_old_value():
    """Old value 2, return 3: 2.5 is as far from the old value as above, and is clipped as there."""
    V = torch.tensor([[2.5]], requires_grad=True)
    error, _ = value_loss(V, torch.tensor([[2.0]]), torch.tensor([[3.0]]), torch.ones(1, 1).bool(), clip=0.25)
    error.backward()
    assert error.item() == pytest.approx(0.5 * 0.5625) and float(V.grad) == 0


def test_the_value_loss_is_the_mean_over_the_masked_tokens():
    """Errors 1 and 3, and padding that holds anything: (1 + 9) / 2 / 2. Of the two slopes each is its error over 2."""
    mask = torch.tensor([[False, True, True, False]])
    V = torch.tensor([[NAN, 1.0, 3.0, 1e9]], requires_grad=True)
    loss, clipped = value_loss(V, V.detach(), torch.tensor([[5.0, 0, 0, NAN]]), mask, clip=0.2)
    loss.backward()
    assert loss.item() == 2.5 and V.grad.tolist() == [[0, 0.5, 1.5, 0]] and clipped == 0


@pytest.mark.parametrize("V, expected", [
    ([0, 2], 1),      # perfect
    ([5, 7], 1),      # off by a constant: that costs nothing here
    ([1, 1], 0),      # a constant explains nothing
    ([0, 1], 0.75),   # what is left is [0, 1]: variance 1/4, of 1
    ([2, 0], -3),     # worse than a constant: what is left is [-2, 2]
])
def test_explained_variance(V, expected):
    values, mask = torch.tensor([[99.0, *V, NAN]]), torch.tensor([[False, True, True, False]])
    assert explained_variance(values, torch.tensor([[0, 0, 2.0, 0]]), mask) == pytest.approx(expected)


def test_targets_that_are_all_equal_leave_nothing_to_explain():
    assert explained_variance(torch.rand(1, 3), torch.ones(1, 3), torch.ones(1, 3).bool()) == 0


# ---- an update

def make(policy, **settings):
    """One step on the whole batch, from which the critic does not abstain, unless a test asks for more."""
    defaults = {"group_size": 1, "lr": 0.01, "critic_lr": 0.01, "critic_warmup": 0, "max_new_tokens": 12, "micro_batch": 64,
                "max_grad_norm": 1e9, "gamma": 1.0, "lam": 0.95, "beta": 0.0, "kl_target": 0.0, "clip_low": 0.2, "clip_high": 0.2,
                "value_clip": 0.2, "whiten": True, "epochs": 1, "mini_batches": 1, "temperature": 1.0}
    algorithm = PPO(policy, TASK, PPOConfig(**(defaults | settings)), seeded())
    if isinstance(policy, GPT):  # a critic with an opinion: at 0, as it begins, its backbone would have no gradient
        torch.nn.init.normal_(algorithm.critic.head.weight, generator=seeded(1))
    return algorithm


def sampled(policy, B=8, temperature=1.0, seed=0):
    return generate(policy, [[2, 3]] * (B // 2) + [[4]] * (B // 2), 12, temperature, eos=EOS, generator=seeded(seed))


def gradients_of_an_update(algorithm, rollout, rewards):
    """-> those of the actor, those of the critic, metrics. The steps are left out, so that the gradients can be looked at."""
    algorithm.actor_optimizer.step = algorithm.critic_optimizer.step = lambda **_: 0.0
    metrics = algorithm.update(rollout, rewards)
    return [p.grad for p in algorithm.policy.parameters()], [p.grad for p in algorithm.critic.parameters()], metrics


REWARDS = torch.tensor([1.0, 0, 0, 0.5, 0, 0, 1, 0])


def test_the_micro_batch_size_does_not_change_the_gradient():
    """Trap 11, for actor and critic. Also the metrics are those of the whole batch."""
    rollout = eight(tiny_gpt(vocab_size=6))
    seen = [gradients_of_an_update(make(tiny_gpt(vocab_size=6), micro_batch=size), rollout, REWARDS) for size in (8, 2, 1)]
    for actor, critic, metrics in seen[1:]:
        for a, b in zip(actor + critic, seen[0][0] + seen[0][1]):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-3)
        assert metrics == pytest.approx(seen[0][2], abs=1e-5)


def test_the_gradient_of_an_update_is_that_of_the_two_losses_over_all_rows():
    """From the rollout to the gradient: the reward of a token, GAE, whitening, and no term that has gone missing (trap 27)."""
    model = tiny_gpt(vocab_size=6)
    algorithm = make(model, gamma=0.9, lam=0.8, beta=0.3)
    with torch.no_grad():
        model.blocks[0].q.weight += 0.5 * torch.randn(32, 32, generator=seeded())  # away from the reference
    rollout = eight(model)
    logprobs, V = score(model, rollout.tokens)[0], values(algorithm.critic, rollout.tokens)
    ref_logprobs = score(algorithm.reference, rollout.tokens)[0].detach()
    r = token_rewards(REWARDS, rollout.logprobs, ref_logprobs, rollout.mask, 0.3)
    advantages, returns = gae(r, V.detach(), rollout.mask, 0.9, 0.8)
    loss, _ = policy_loss(logprobs, rollout.logprobs, whiten(advantages, rollout.mask), rollout.mask, clip_low=0.2, clip_high=0.2,
                          aggregate="token_mean")
    expected = [*torch.autograd.grad(loss, list(model.parameters())),
                *torch.autograd.grad(value_loss(V, V.detach(), returns, rollout.mask, 0.2)[0], list(algorithm.critic.parameters()))]
    actor, critic, _ = gradients_of_an_update(algorithm, rollout, REWARDS)
    for a, b in zip(actor + critic, expected, strict=True):
        assert b.abs().max() > 0
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("opinion", [0.0, 0.3])
def test_on_a_bandit_the_gradient_of_the_first_pass_is_the_exact_one(opinion):
    """Trap 28: four arms, drawn exactly as often as the policy says, 4, 2, 1 and 1 times in 8. No factor (1 - 1/G) here: V has
    not seen the sample that it is subtracted from. Whatever it says, the expected gradient stays."""
    p, payoff = torch.tensor([1 / 2, 1 / 4, 1 / 8, 1 / 8]), torch.tensor([0.0, 1.0, 0.5, 0.25])
    arms = [0] * 4 + [1] * 2 + [2, 3]
    model = Table(p.log().expand(4, 4).clone())
    algorithm = make(model, whiten=False)
    algorithm.critic.head.bias.data.fill_(opinion)
    (slope,), _, _ = gradients_of_an_update(algorithm, written(model, [[0, arm] for arm in arms]), payoff[arms])
    assert (-slope[0]).tolist() == pytest.approx((p * (payoff - p @ payoff)).tolist(), abs=1e-6)
    assert not slope[1:].any()


def test_the_critic_learns_the_mean_reward_of_a_state():
    """After token 2 half of the rows pay, after token 3 all."""
    model = Table(torch.zeros(4, 4))
    algorithm = make(model, critic_lr=0.05, value_clip=1e6, critic_warmup=1000)
    rollout = written(model, [[2, 0], [2, EOS], [3, 0], [3, EOS]])
    for _ in range(150):
        algorithm.update(rollout, torch.tensor([0.0, 1, 1, 1]))
    assert values(algorithm.critic, rollout.tokens)[:, 1].tolist() == pytest.approx([0.5, 0.5, 1, 1], abs=0.02)


@pytest.mark.parametrize("temperature", [0.7, 1.0])
def test_the_policy_ratio_is_1_before_the_first_update(temperature):
    """Trap 7 (and 6: at the temperature that was sampled with)."""
    model = tiny_gpt(vocab_size=6)
    metrics = make(model, temperature=temperature).update(sampled(model, temperature=temperature), REWARDS)
    assert 0 <= metrics["max_log_ratio"] < 1e-4 and metrics["clip_fraction"] == 0


def test_in_low_precision_the_first_ratio_is_exactly_1():
    model = tiny_gpt(vocab_size=6, scale=6.0)
    model.compute_dtype = torch.bfloat16
    metrics = make(model, clip_low=0.0, clip_high=0.0).update(sampled(model), REWARDS)
    assert metrics["clip_fraction"] == 0


def test_a_pass_uses_every_row_once():
    """8 rows in mini-batches of 3, 3 and 2, twice: six steps, and both networks have read each row two times."""
    algorithm = make(tiny_gpt(vocab_size=8), epochs=2, mini_batches=3)
    rollout, seen = eight(algorithm.policy), {"actor": [], "critic": []}
    rollout.tokens[:, 0] = torch.arange(8)  # a name for each row
    for name, model in (("actor", algorithm.policy), ("critic", algorithm.critic)):
        model.register_forward_pre_hook(
            lambda _, given, name=name: seen[name].extend(given[0][:, 0].tolist()) if torch.is_grad_enabled() else None)
    assert algorithm.update(rollout, REWARDS)["updates"] == 6
    assert sorted(seen["actor"]) == sorted(seen["critic"]) == sorted(2 * [*range(8)])


def test_later_passes_meet_both_clips():
    model = tiny_gpt(vocab_size=6)
    algorithm = make(model, epochs=3, lr=0.05, critic_lr=1e-4, clip_low=0.01, clip_high=0.01, value_clip=0.01)
    metrics = algorithm.update(eight(model), REWARDS)
    assert metrics["updates"] == 3 and metrics["clip_fraction"] > 0 and metrics["value_clip_fraction"] > 0


# ---- which term reaches whom

def test_no_advantage_gives_the_actor_exactly_no_gradient():
    """Trap 27: no reward, no price, a critic that says 0. Whitening makes nothing out of it."""
    for whitened in (False, True):
        model = Table(torch.randn(4, 4, generator=seeded()))
        (slope,), _, _ = gradients_of_an_update(make(model, whiten=whitened), written(model, [[0, 2, 3, EOS], [0, 3, EOS]]),
                                                torch.zeros(2))
        assert not slope.any()


def test_the_price_of_the_kl_alone_reaches_the_actor():
    """Trap 27: no reward, but token 3 costs beta ln 2, as it is twice as likely as in the reference: it becomes less likely."""
    algorithm = make(Table(torch.zeros(4, 4)), beta=0.1, whiten=False)
    algorithm.policy.table.data[:] = torch.tensor([1 / 6, 1 / 6, 1 / 6, 1 / 2]).log()
    (slope,), _, _ = gradients_of_an_update(algorithm, written(algorithm.policy, [[0, 3], [0, 3]]), torch.zeros(2))
    assert slope[0, 3] == pytest.approx(0.1 * math.log(2) * (1 - 1 / 2), rel=1e-5)


def test_prompt_and_padding_reach_neither_network():
    """Trap 2: the step from 2 to 3 stands in the prompt, that from EOS to 0 in the padding. Only what follows 3 was chosen."""
    model = Table(torch.zeros(4, 4))
    rollout = written(model, [[2, 3, EOS], [2, 3, 3, EOS]], 2)
    (slope,), critic, _ = gradients_of_an_update(make(model), rollout, torch.tensor([1.0, 0]))
    assert slope[3].any() and not slope[[0, 1, 2]].any()
    head = critic[1]
    assert head.shape == (1, 4) and head[0, 3] != 0 and not head[0, [0, 1, 2]].any()


# ---- who learns, and when

def test_while_the_critic_warms_up_the_actor_stays():
    model = tiny_gpt(vocab_size=6)
    algorithm, start = make(model, critic_warmup=2), copy.deepcopy(model.state_dict())
    for step in range(2):
        critic = copy.deepcopy(algorithm.critic.state_dict())
        assert algorithm.update(eight(model), REWARDS)["updates"] == 0
        assert all(torch.equal(w, start[name]) for name, w in model.state_dict().items())
        assert not any(torch.equal(w, critic[name]) for name, w in algorithm.critic.named_parameters())
    assert algorithm.update(eight(model), REWARDS)["updates"] == 1
    assert not torch.equal(model.embed.weight, start["embed.weight"])


def test_the_reference_stays_and_the_policy_is_what_is_sampled_from():
    model = tiny_gpt(vocab_size=6)
    algorithm, start = make(model, beta=0.1), copy.deepcopy(model.state_dict())
    algorithm.update(eight(model), REWARDS)
    assert algorithm.behavior is model and not torch.equal(model.embed.weight, start["embed.weight"])
    assert all(torch.equal(w, start[name]) for name, w in algorithm.reference.state_dict().items())
    assert all(p.grad is None for p in algorithm.reference.parameters())


@pytest.mark.parametrize("target, factor", [
    (2 * math.log(2), 1.00),          # the KL is what it should be
    (2 * math.log(2) / 1.1, 1.01),    # 10 percent above: 1 percent dearer
    (2 * math.log(2) / 0.9, 0.99),    # 10 percent below
    (0.01, 1.02), (1000.0, 0.98),     # never by more than 2 percent
])
def test_beta_moves_towards_the_target_in_small_steps(target, factor):
    """Two tokens a completion, each twice as likely as in the reference: a KL of 2 ln 2 for each completion."""
    algorithm = make(Table(torch.zeros(4, 4)), beta=0.5, kl_target=target)
    algorithm.policy.table.data[:] = torch.tensor([1 / 6, 1 / 6, 1 / 6, 1 / 2]).log()
    metrics = algorithm.update(written(algorithm.policy, [[0, 3, 3], [2, 3, 3]]), torch.zeros(2))
    assert metrics["beta"] == 0.5 and algorithm.beta == pytest.approx(0.5 * factor, rel=1e-5)
    assert metrics["kl"] == pytest.approx(math.log(2), rel=1e-5)


def test_without_a_target_beta_stays():
    algorithm = make(tiny_gpt(vocab_size=6), beta=0.5)
    algorithm.update(eight(algorithm.policy), REWARDS)
    assert algorithm.beta == 0.5


def test_the_metrics_say_what_the_critic_thinks_first_and_last():
    """V(s_t) has seen the token before t: 0.1 after the prompt's 2, 0.7 after 3, and what it thinks of EOS is never asked."""
    algorithm = make(Table(torch.zeros(4, 4)))
    algorithm.critic.head.weight.data[0] = torch.tensor([9.0, 9.0, 0.1, 0.7])
    metrics = algorithm.update(written(algorithm.policy, [[2, 3, EOS], [2, 3, 3, EOS]]), torch.tensor([1.0, 0]))
    assert metrics["value_first"] == pytest.approx(0.1) and metrics["value_last"] == pytest.approx(0.7)


def test_the_critic_is_judged_by_what_came_at_any_lambda():
    """What came is 1, 1 and 0, 0; it said 1/2, 0 and 0, 1/2, and is wrong by 1/2, 1, 0, -1/2: variance 5/16, of 1/4. At lambda 0
    what it is taught next is something else: 0, 1 and 1/2, 0."""
    for lam in (0.0, 0.95, 1.0):
        algorithm = make(Table(torch.zeros(4, 4)), lam=lam)
        algorithm.critic.head.weight.data[0, 2] = 0.5
        metrics = algorithm.update(written(algorithm.policy, [[2, 3, 0], [3, 2, 0]]), torch.tensor([1.0, 0]))
        assert metrics["explained_variance"] == pytest.approx(1 - 5 / 4)


def test_a_restored_algorithm_makes_the_same_next_update():
    """Trap 25: both optimizers, the critic, the reference, beta and the place in the warm-up are part of a run."""
    settings = {"beta": 0.1, "kl_target": 1.0, "critic_warmup": 1, "mini_batches": 2}

    def update(algorithm):
        algorithm.generator.manual_seed(seed(7))
        return algorithm.update(eight(algorithm.policy), REWARDS)
    algorithm = make(tiny_gpt(vocab_size=6), **settings)
    update(algorithm), update(algorithm)
    restored = make(copy.deepcopy(algorithm.policy), **settings)
    restored.load_state_dict(copy.deepcopy(algorithm.state_dict()))
    first, second = update(algorithm), update(restored)
    assert first == second and first["updates"] == 2 and algorithm.beta == restored.beta != 0.1
    for ours, theirs in ((algorithm.policy, restored.policy), (algorithm.critic, restored.critic)):
        assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters()))


def test_a_rewarded_token_becomes_likelier_and_the_others_less_likely():
    model = tiny_gpt(vocab_size=5, scale=1.0)
    algorithm = make(model, max_new_tokens=1, lr=0.003)
    chance = lambda: float(model(torch.tensor([[2]]))[0, 0].softmax(-1)[3].detach())
    before = chance()
    for n in range(5):
        rollout = generate(model, [[2]] * 64, 1, eos=EOS, generator=seeded(n))
        algorithm.update(rollout, (rollout.tokens[:, 1] == 3).float())
    assert chance() > before + 0.1


def test_a_value_clip_of_0_is_no_clip():
    """Taken at its word it would hold every value where it was, and stop the critic."""
    values, old, returns, mask = torch.tensor([[2.0]], requires_grad=True), torch.zeros(1, 1), torch.ones(1, 1), torch.ones(1, 1).bool()
    loss, clipped = value_loss(values, old, returns, mask, 0.0)
    loss.backward()
    assert loss.item() == 0.5 and clipped == 0 and values.grad.item() == 1.0


def test_a_beta_that_has_moved_is_the_price_of_the_next_update():
    """The first update of a run with that beta from the start is the same."""
    def after(algorithm):
        with torch.no_grad():
            algorithm.policy.blocks[0].q.weight += 0.5 * torch.randn(32, 32, generator=seeded())  # away from the reference
        algorithm.update(eight(algorithm.policy), REWARDS)
        return list(algorithm.policy.parameters())
    moved, given = make(tiny_gpt(vocab_size=6), beta=0.1), make(tiny_gpt(vocab_size=6), beta=0.7)
    moved.beta = 0.7
    assert all(torch.equal(a, b) for a, b in zip(after(moved), after(given)))


def test_beta_stays_while_the_critic_warms_up():
    """The actor has not moved: a KL of 0 would make its price fall and fall."""
    algorithm, betas = make(tiny_gpt(vocab_size=6), beta=0.5, kl_target=1.0, critic_warmup=2), []
    for _ in range(3):
        algorithm.update(eight(algorithm.policy), REWARDS)
        betas.append(algorithm.beta)
    assert betas[0] == betas[1] == 0.5 != betas[2]


def test_actor_and_critic_have_rates_of_their_own():
    """AdamW's first step moves every weight that has a gradient by its rate."""
    algorithm = make(tiny_gpt(vocab_size=6), lr=1e-3, critic_lr=1e-2)
    before = [[p.detach().clone() for p in model.parameters()] for model in (algorithm.policy, algorithm.critic)]
    algorithm.update(eight(algorithm.policy), REWARDS)
    for model, old, rate in zip((algorithm.policy, algorithm.critic), before, (1e-3, 1e-2)):
        assert max(float((p.detach() - q).abs().max()) for p, q in zip(model.parameters(), old)) == pytest.approx(rate, rel=1e-2)
