"""The one loop of optimizer steps: what a mini-batch, a micro-batch and a pass are, what is skipped, and low precision."""
import copy
import math
from types import SimpleNamespace

import pytest
import torch

import dpo
import grpo
import ppo
import tasks
from config import from_flags
from model import make_optimizer
from optimize import Learner, optimize
from sample import largest_log_ratio, score
from toys import seed, seeded, tiny_gpt

ROWS = [[2, 3, 4, 1], [2, 5, 1], [2, 3, 3, 5, 6, 1], [2, 7, 8, 1], [2, 9, 9, 9, 1]]


def batch():
    T = max(map(len, ROWS))
    tokens, place = torch.tensor([row + [0] * (T - len(row)) for row in ROWS]), torch.arange(T)
    return tokens, (place >= 1) & (place < torch.tensor([len(row) for row in ROWS])[:, None])


def settings(**given):
    return SimpleNamespace(**{"epochs": 1, "mini_batches": 1, "micro_batch": 2, "max_grad_norm": 1e9, **given})


def imitation(model, tokens, mask, optimizer=None, **more):
    """A learner whose loss is the weighted sum of -log pi over the tokens of a step."""
    def loss(part):
        part_tokens, part_mask = part.cut(tokens, mask)
        return -(score(model, part_tokens)[0] * part_mask * part.weights).sum(), {"rows": (torch.tensor(float(len(part.rows))), 1)}
    return Learner(optimizer or make_optimizer(model, 0.01), loss, **more)


def equally(mask):
    return lambda rows: mask[rows] / mask[rows].sum()


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_micro_batches_change_no_gradient(size):
    """Trap 11: the weights are those of the whole mini-batch, also of rows that were sorted and cut."""
    tokens, mask = batch()
    model = tiny_gpt()
    loss = -(score(model, tokens)[0] * mask).sum() / mask.sum()
    expected = torch.autograd.grad(loss, list(model.parameters()))
    learner = imitation(model, tokens, mask, SimpleNamespace(zero_grad=model.zero_grad, step=lambda max_norm: 0.0))
    metrics = optimize([learner], torch.arange(5), mask, settings(micro_batch=size), equally(mask))
    assert metrics["loss"] == pytest.approx(loss.item(), abs=1e-5)
    for p, gradient in zip(model.parameters(), expected):
        torch.testing.assert_close(p.grad, gradient, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("epochs, mini_batches, steps", [(1, 1, 1), (2, 2, 4), (3, 4, 12), (1, 99, 5)])
def test_every_item_is_seen_once_in_every_pass(epochs, mini_batches, steps):
    """And no mini-batch is empty: with more of them than items, an item is a mini-batch."""
    tokens, mask = batch()
    model, seen = tiny_gpt(), []
    learner = imitation(model, tokens, mask)
    loss = learner.loss
    learner.loss = lambda part: seen.append((part.epoch, part.step, part.rows.tolist())) or loss(part)
    config = settings(epochs=epochs, mini_batches=mini_batches)
    metrics = optimize([learner], torch.arange(5), mask, config, equally(mask), torch.Generator().manual_seed(seed()))
    assert metrics["updates"] == steps and {step for _, step, _ in seen} == set(range(steps))
    for epoch in range(epochs):
        assert sorted(row for e, _, rows in seen for row in rows if e == epoch) == [0, 1, 2, 3, 4]


def test_the_rows_of_an_item_stay_together():
    """DPO's pairs: all the first ones, then all the second ones; --micro-batch counts rows."""
    _, mask = batch()
    pairs, seen = torch.tensor([[0, 1], [2, 3], [4, 0]]), []
    weight = torch.nn.Parameter(torch.zeros(()))
    learner = Learner(make_optimizer(SimpleNamespace(blocks=[], parameters=lambda: [weight]), 0.1),
                      lambda part: seen.append(part.rows.tolist()) or (weight * part.share, {}))
    optimize([learner], pairs, mask, settings(micro_batch=4))
    together = [pair for rows in seen for pair in zip(rows[:len(rows) // 2], rows[len(rows) // 2:])]
    assert sorted(together) == [(0, 1), (2, 3), (4, 0)] and max(map(len, seen)) == 4


def test_a_step_that_is_not_finite_is_skipped_and_counted_wherever_it_was():
    """The first of three mini-batches: the last one alone would say that all is well."""
    tokens, mask = batch()
    model = tiny_gpt()
    before, learner = copy.deepcopy(model.state_dict()), imitation(model, tokens, mask)
    loss, rate = learner.loss, {0: math.nan, 1: 0.0, 2: 0.0}
    learner.loss = lambda part: tuple((loss(part)[0] * rate[part.step], {}))
    metrics = optimize([learner], torch.arange(5), mask, settings(mini_batches=3), equally(mask))
    assert (metrics["updates"], metrics["skipped"]) == (2, 1)
    assert not math.isfinite(metrics["grad_norm"])  # the log shows it, too
    assert all(torch.equal(w, before[name]) for name, w in model.state_dict().items())


def test_a_critic_is_counted_apart():
    tokens, mask = batch()
    actor, critic = tiny_gpt(), tiny_gpt(seed=1)
    learners = [imitation(critic, tokens, mask, name="critic"), imitation(actor, tokens, mask)]
    metrics = optimize(learners, torch.arange(5), mask, settings(mini_batches=2), equally(mask))
    assert metrics["updates"] == 2 and {"loss", "grad_norm", "critic_loss", "critic_grad_norm"} <= metrics.keys()


def test_a_largest_value_keeps_a_nan():
    """Trap 36: `max(worst, nan)` is `worst`."""
    _, mask = batch()
    weight, values = torch.nn.Parameter(torch.zeros(())), iter([3.0, math.nan, 1.0])
    learner = Learner(make_optimizer(SimpleNamespace(blocks=[], parameters=lambda: [weight]), 0.1),
                      lambda part: (weight * 1.0, {"worst": torch.tensor(next(values))}))
    assert math.isnan(optimize([learner], torch.arange(5), mask, settings())["worst"])


def test_nothing_to_learn_from_is_no_step():
    _, mask = batch()
    assert optimize([], torch.arange(0), mask, settings(epochs=3)) == {"updates": 0, "skipped": 0}


# ---- low precision

TASK = tasks.load("countdown", numbers=2, max_number=9, cot="off")


def untrained(algorithm, **given):
    """In bfloat16, at a learning rate of 0: nothing moves, whatever is done."""
    policy = tiny_gpt(TASK.tokenizer.n_vocab, TASK.max_prompt_tokens + TASK.max_new_tokens, scale=4.0)
    policy.compute_dtype = torch.bfloat16
    config = from_flags(algorithm.Config, {"lr": 0.0, "micro_batch": 3, "group_size": 4, "prompts": 6, **given})
    return algorithm(policy, TASK, config, torch.Generator().manual_seed(seed()))


def rollout_of(learner):
    import random
    rng = random.Random(seed())
    return learner.collect([TASK.sample_problem(rng) for _ in range(learner.config.prompts)])


@pytest.mark.parametrize("algorithm, given", [
    (grpo.GRPO, {"epochs": 3}), (grpo.GRPO, {"epochs": 2, "beta": 0.1}), (grpo.GRPO, {"mini_batches": 4}),
    (ppo.PPO, {"critic_lr": 0.0, "critic_warmup": 0, "mini_batches": 3}),
], ids=["passes", "passes with a KL", "mini-batches", "PPO"])
def test_in_bfloat16_the_ratio_is_one_as_long_as_nothing_has_moved(algorithm, given, monkeypatch):
    """Trap 35. Stored and recomputed log-probs differ; so the old ones are recomputed once, in the very micro-batches that are
    trained on, and later passes compare with those: not with the sampler's, from which a fifth of the tokens would be clipped."""
    learner, ratios, loss = untrained(algorithm, **given), [], grpo.policy_loss

    def watched(logprobs, old_logprobs, *more, **terms):
        mask = more[1]
        ratios.append((logprobs - old_logprobs)[mask].detach().abs().max().item())
        return loss(logprobs, old_logprobs, *more, **terms)

    monkeypatch.setattr(grpo, "policy_loss", watched)
    rollout = rollout_of(learner)
    rewards = (torch.arange(len(rollout.tokens)) % 2).float()
    apart = largest_log_ratio(learner.policy, rollout)
    assert apart > 0  # otherwise this test would test nothing
    metrics = learner.update(rollout, rewards)
    assert metrics["clip_fraction"] == 0 and max(ratios) == 0 and metrics["max_log_ratio"] > 0


def test_grpo_takes_mini_batches_whose_gradients_add_up_to_that_of_one():
    """32 updates a batch are what today's methods are compared under. At rate 0 the mean of the gradients is the whole gradient."""
    norms = {}
    for n in (1, 3):
        learner, gradients = untrained(grpo.GRPO, mini_batches=n, max_grad_norm=1e9), []
        learner.policy.compute_dtype = torch.float32
        rollout = rollout_of(learner)
        step = learner.optimizer.step
        learner.optimizer.step = lambda **more: gradients.append([p.grad.clone() for p in learner.policy.parameters()]) or step(**more)
        assert learner.update(rollout, (torch.arange(24) % 3 == 0).float())["updates"] == n
        norms[n] = [sum(each) / n for each in zip(*gradients)]
    for one, mean in zip(norms[1], norms[3]):
        torch.testing.assert_close(one, mean, atol=1e-5, rtol=1e-3)


def test_a_broken_log_prob_is_reported():
    """Trap 36, where it matters: the check before the first update, and the metric of every update."""
    learner = untrained(grpo.GRPO)
    learner.policy.compute_dtype = torch.float32
    rollout = rollout_of(learner)
    rollout.logprobs[5, rollout.prompt_lengths[5]] = math.nan
    assert math.isnan(largest_log_ratio(learner.policy, rollout, batch=4))
    for algorithm in (learner, ppo.PPO(learner.policy, TASK, from_flags(ppo.PPOConfig, {"critic_warmup": 0}))):
        metrics = algorithm.update(rollout, (torch.arange(24) % 3 == 0).float())
        assert math.isnan(metrics["max_log_ratio"]) and metrics["skipped"] >= 1


def test_dpo_counts_its_skipped_steps():
    learner = untrained(dpo.DPO)
    rollout = rollout_of(learner)
    with torch.no_grad():
        learner.policy.norm.weight[0] = math.nan
    metrics = learner.update(rollout, (torch.arange(24) % 3 == 0).float())
    assert metrics["updates"] == 0 and metrics["skipped"] == 2


def test_every_pass_has_an_order_of_its_own():
    """Else the same items would always share a mini-batch."""
    _, mask = batch()
    mask, seen = mask.repeat(8, 1), {}
    weight = torch.nn.Parameter(torch.zeros(()))
    learner = Learner(make_optimizer(SimpleNamespace(blocks=[], parameters=lambda: [weight]), 0.1),
                      lambda part: seen.setdefault(part.epoch, []).append(part.rows.tolist()) or (weight * 1.0, {}))
    optimize([learner], torch.arange(40), mask, settings(epochs=3, micro_batch=1, mini_batches=40), generator=seeded())
    orders = [[row for [row] in seen[epoch]] for epoch in range(3)] + [list(range(40))]
    assert all(orders[i] != orders[j] for i in range(4) for j in range(i))


def test_the_look_before_is_at_all_later_mini_batches_and_comes_once_before_any_step():
    """A look in a later epoch would forget the policy that sampled, and with it how far the ratio has gone."""
    _, mask = batch()
    weight, events = torch.nn.Parameter(torch.zeros(())), []
    learner = Learner(make_optimizer(SimpleNamespace(blocks=[], parameters=lambda: [weight]), 0.1),
                      lambda part: events.append(("loss", sorted(part.rows.tolist()))) or (weight * 1.0, {}),
                      before=lambda part: events.append(("before", sorted(part.rows.tolist()))))
    optimize([learner], torch.arange(5), mask, settings(epochs=2, mini_batches=3))
    steps = [("loss", [0, 1]), ("loss", [2, 3]), ("loss", [4])]
    assert events == [("before", [2, 3]), ("before", [4]), *steps, *steps]
