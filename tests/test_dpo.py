"""DPO against exact answers: which pairs are made, what their loss is, and which of the two models it trains."""
import copy
import math
import random
from types import SimpleNamespace

import pytest
import torch

import tasks
from dpo import DPO, DPOConfig, dpo_loss, implicit_rewards, pairs
from sample import collect, score
from toys import Bigram, eight, seed, seeded, tiny_gpt, written

EOS = 1
TASK = SimpleNamespace(max_new_tokens=12)  # all that an update may ask of a task


# ---- the pairs

def test_the_best_is_paired_with_the_worst():
    chosen, rejected = pairs(torch.tensor([0.2, 0.9, 0.0, 0.5]), 4)
    assert chosen.tolist() == [1, 3] and rejected.tolist() == [2, 0]


def test_pairs_are_within_a_group_and_strictly_ordered():
    """Trap 18, over many groups of rewards that often coincide; no row is used twice, and an odd one out stays alone."""
    for size in (2, 3, 4, 7):
        rewards = torch.randint(3, (50 * size,), generator=seeded(size)) / 2
        chosen, rejected = pairs(rewards, size)
        assert torch.equal(chosen // size, rejected // size) and (rewards[chosen] > rewards[rejected]).all()
        assert len(set(chosen.tolist() + rejected.tolist())) == 2 * len(chosen) > 0


def test_right_rows_meet_wrong_rows_until_either_runs_out():
    rights = lambda count: torch.tensor([1.0] * count + [0.0] * (6 - count))
    assert [len(pairs(rights(count), 6)[0]) for count in range(7)] == [0, 1, 2, 3, 2, 1, 0]


def test_groups_that_agree_make_no_pairs():
    """Trap 10: 0.1 sixteen times is no reason to prefer any of them."""
    for reward in (0.0, 0.1, 1.0):
        assert [len(rows) for rows in pairs(torch.full((16,), reward), 8)] == [0, 0]


# ---- the loss

def test_where_policy_and_reference_agree_the_loss_is_ln_2():
    """Trap 18: whatever the log-probs are."""
    chosen, rejected = torch.tensor([-1.0, -50.0]), torch.tensor([-3.0, -0.5])
    loss, margins = dpo_loss(chosen, rejected, chosen, rejected, beta=0.7)
    assert loss.item() == pytest.approx(math.log(2)) and margins.tolist() == [0, 0]


def test_swapping_the_pair_negates_the_margin():
    """Trap 18."""
    c, r, ref_c, ref_r = torch.randn(4, 5, generator=seeded())
    assert torch.equal(dpo_loss(c, r, ref_c, ref_r, 0.5)[1], -dpo_loss(r, c, ref_r, ref_c, 0.5)[1])


def test_the_margin_is_the_difference_of_the_implicit_rewards():
    """The chosen has gained 3 nats over the reference, the rejected has lost 1: a margin of 4 beta."""
    loss, margins = dpo_loss(*torch.tensor([[-2.0], [-4.0], [-5.0], [-3.0]]), beta=0.5)
    assert margins.tolist() == [2] and loss.item() == pytest.approx(math.log(1 + math.exp(-2)))


def test_the_loss_falls_with_the_margin():
    """-log sigmoid(m) = ln(1 + e^-m), for margins of -2, 0, 2 and 4: about -m where the pair is ranked wrongly, then fading."""
    zero = torch.zeros(1)
    losses = [dpo_loss(torch.tensor([m]), zero, zero, zero, beta=1.0)[0].item() for m in (-2.0, 0.0, 2.0, 4.0)]
    assert losses == pytest.approx([math.log(1 + math.exp(-m)) for m in (-2, 0, 2, 4)])
    assert losses == sorted(losses, reverse=True)


def test_the_gradient_is_an_advantage_that_fades():
    """-a for the chosen, +a for the rejected, a = beta sigmoid(-margin) / pairs. At a margin of ln 3, sigmoid(-margin) is 1/4."""
    logps = torch.tensor([[0.0, math.log(3) / 2], [0.0, 0.0]], requires_grad=True)
    dpo_loss(*logps, torch.zeros(2), torch.zeros(2), beta=2.0)[0].backward()
    assert logps.grad.tolist() == [pytest.approx([-1 / 2, -1 / 4]), pytest.approx([1 / 2, 1 / 4])]


# ---- the policy as a reward

def test_implicit_rewards_sum_to_the_margin():
    """Token by token, then over the completion: the chosen row minus the rejected one is what the loss calls the margin."""
    logprobs, ref_logprobs = torch.randn(2, 2, 5, generator=seeded())
    mask = torch.tensor([[0, 1, 1, 1, 1], [0, 0, 1, 1, 0]]).bool()
    rewards = implicit_rewards(logprobs, ref_logprobs, mask, beta=0.3)
    (c, r), (ref_c, ref_r) = ((x * mask).sum(1, keepdim=True) for x in (logprobs, ref_logprobs))
    assert rewards[0, 1] == pytest.approx(float(0.3 * (logprobs - ref_logprobs)[0, 1]))
    assert float(rewards[0].sum() - rewards[1].sum()) == pytest.approx(float(dpo_loss(c, r, ref_c, ref_r, 0.3)[1]), rel=1e-5)


def test_implicit_rewards_are_zero_outside_of_the_mask():
    """Whatever stands there."""
    mask = torch.tensor([[False, True, False]])
    rewards = implicit_rewards(torch.tensor([[float("nan"), 2.0, float("inf")]]), torch.zeros(1, 3), mask, beta=0.5)
    assert rewards.tolist() == [[0, 1, 0]]


# ---- an update

def make(policy, task=TASK, **settings):
    """One step on all pairs, unless a test asks for more."""
    defaults = {"group_size": 4, "lr": 0.01, "beta": 0.5, "max_new_tokens": 12, "micro_batch": 64, "max_grad_norm": 1e9,
                "nll": 0.0, "iterative": False, "epochs": 1, "mini_batches": 1, "temperature": 1.0}
    return DPO(policy, task, DPOConfig(**(defaults | settings)), seeded())


def gradients_of_an_update(algorithm, rollout, rewards):
    """The steps are left out, so that the gradients can be looked at."""
    algorithm.optimizer.step = lambda **_: 0.0
    metrics = algorithm.update(rollout, rewards)
    return [p.grad for p in algorithm.policy.parameters()], metrics


REWARDS = torch.tensor([1.0, 0, 0, 0.5, 0, 0, 1, 0])


def moved():
    """A policy that goes on with 0, 1, 2, 3 with probabilities 1/8, 1/4, 1/8, 1/2, learned from a reference with 1/4 each."""
    algorithm = make(Bigram(torch.zeros(4, 4)), group_size=2, beta=0.5)
    algorithm.policy.table.data[:] = torch.tensor([1 / 8, 1 / 4, 1 / 8, 1 / 2]).log()
    return algorithm


def test_log_probs_are_summed():
    """Trap 18: three tokens, each twice as likely as in the reference, against an EOS that is as likely: a margin of 3 ln 2 beta,
    where the mean would give ln 2 beta."""
    algorithm = moved()
    metrics = algorithm.update(written(algorithm.policy, [[2, 3, 3, 3], [2, EOS]]), torch.tensor([1.0, 0]))
    assert metrics["margin"] == pytest.approx(0.5 * 3 * math.log(2), rel=1e-5)
    assert metrics["chosen_logp"] == pytest.approx(3 * math.log(2), rel=1e-5)
    assert metrics["rejected_logp"] == pytest.approx(0, abs=1e-5) and metrics["implicit_accuracy"] == 1


def test_the_rewarded_row_is_the_chosen_one():
    """Trap 18: the same two rows with the rewards exchanged give the opposite margin."""
    algorithm = moved()
    metrics = algorithm.update(written(algorithm.policy, [[2, 3, 3, 3], [2, EOS]]), torch.tensor([0.0, 1]))
    assert metrics["margin"] == pytest.approx(-0.5 * 3 * math.log(2), rel=1e-5) and metrics["implicit_accuracy"] == 0


def test_the_first_loss_is_ln_2():
    """Trap 18: the policy still is its reference."""
    _, metrics = gradients_of_an_update(make(tiny_gpt(vocab_size=6), mini_batches=2), eight(tiny_gpt(vocab_size=6)), REWARDS)
    assert metrics["pairs"] == 3 and metrics["loss"] == pytest.approx(math.log(2), rel=1e-5)
    assert metrics["margin"] == pytest.approx(0, abs=1e-4)


def test_the_chosen_completion_is_imitated_too():
    """Iterative RPO: three tokens and an end, each of probability 1/4, are an NLL of ln 4 a token, whatever their number. Its gradient is
    that of imitating the chosen row alone; the rejected one has none of it."""
    rows, rewards = [[2, 3, 3, EOS], [2, EOS]], torch.tensor([1.0, 0])
    seen = {}
    for nll in (0.0, 2.0):
        algorithm = make(Bigram(torch.zeros(4, 4)), group_size=2, nll=nll)
        (slope,), metrics = gradients_of_an_update(algorithm, written(algorithm.policy, rows), rewards)
        seen[nll] = slope, metrics["loss"]
    assert seen[2.0][1] - seen[0.0][1] == pytest.approx(2 * math.log(4), rel=1e-5)
    policy = Bigram(torch.zeros(4, 4))
    (score(policy, torch.tensor([rows[0]]))[0].sum() / -3).backward()
    torch.testing.assert_close(seen[2.0][0] - seen[0.0][0], 2 * policy.table.grad)


def test_prompt_and_padding_are_not_trained():
    """Trap 2: the step from 2 to 3 stands in the prompt, that from EOS to 0 in the padding. Only what follows 3 was chosen."""
    algorithm = make(Bigram(torch.zeros(4, 4)), group_size=2)
    rollout = written(algorithm.policy, [[2, 3, EOS], [2, 3, 3, 3]], 2)
    (slope,), _ = gradients_of_an_update(algorithm, rollout, torch.tensor([1.0, 0]))
    assert slope[3, EOS] < 0 < slope[3, 3] and not slope[[0, 1, 2]].any()


@pytest.mark.parametrize("temperature", [0.7, 1.0])
def test_the_gradient_of_an_update_is_that_of_the_loss_over_all_pairs(temperature):
    """Of the summed log-probs at the temperature that was sampled with (trap 6). At the start a = beta / 2 for every pair."""
    algorithm, rollout = make(tiny_gpt(vocab_size=6), temperature=temperature), eight(tiny_gpt(vocab_size=6))
    chosen, rejected = pairs(REWARDS, 4)
    logps = (score(algorithm.policy, rollout.tokens, temperature)[0] * rollout.mask).sum(1)
    expected = torch.autograd.grad(-0.5 / 2 * (logps[chosen] - logps[rejected]).mean(), list(algorithm.policy.parameters()))
    for a, b in zip(gradients_of_an_update(algorithm, rollout, REWARDS)[0], expected):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-3)


def test_the_micro_batch_size_changes_nothing():
    """Trap 11. Three pairs: with two at a time the last one is alone, and must not weigh as much as two."""
    def run(size):
        algorithm = make(tiny_gpt(vocab_size=6), micro_batch=size, nll=1.0)
        with torch.no_grad():
            algorithm.policy.blocks[0].q.weight += 0.5 * torch.randn(32, 32, generator=seeded())  # away from the reference
        return gradients_of_an_update(algorithm, eight(tiny_gpt(vocab_size=6)), REWARDS)
    seen = [run(size) for size in (64, 2, 1)]
    assert seen[0][1]["margin"] != 0
    for gradients, metrics in seen[1:]:
        for a, b in zip(gradients, seen[0][0]):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-3)
        assert metrics == pytest.approx(seen[0][1], abs=1e-4)


def test_the_reference_stays_and_has_no_gradient():
    """Trap 18."""
    model = tiny_gpt(vocab_size=6)
    algorithm, start = make(model), copy.deepcopy(model.state_dict())
    algorithm.update(eight(model), REWARDS)
    assert not torch.equal(model.embed.weight, start["embed.weight"])
    assert all(torch.equal(w, start[name]) for name, w in algorithm.reference.state_dict().items())
    assert all(p.grad is None for p in algorithm.reference.parameters())


def test_without_a_pair_there_is_no_step():
    """Not even one with a gradient of 0, which Adam's momentum would turn into movement."""
    model = tiny_gpt(vocab_size=6)
    algorithm = make(model)
    assert algorithm.update(eight(model), REWARDS)["updates"] == 1  # now there is momentum
    before = copy.deepcopy(model.state_dict())
    metrics = algorithm.update(eight(model), torch.tensor([0.1] * 4 + [1.0] * 4))
    assert metrics == {"updates": 0, "skipped": 0, "pairs": 0}
    assert all(torch.equal(w, before[name]) for name, w in model.state_dict().items())


def test_passes_and_mini_batches_multiply_and_the_margin_grows():
    """Three pairs in mini-batches of two and one, twenty times over: forty steps, after which the pairs are ranked."""
    model = tiny_gpt(vocab_size=6, scale=2.0)
    algorithm, rollout = make(model, epochs=20, mini_batches=2), eight(model)
    assert algorithm.update(rollout, REWARDS)["updates"] == 40
    _, after = gradients_of_an_update(algorithm, rollout, REWARDS)
    assert after["margin"] > 1 and after["implicit_accuracy"] > 0.99 and after["loss"] < 0.5


def test_more_mini_batches_than_pairs_are_as_many_as_pairs():
    algorithm = make(tiny_gpt(vocab_size=6), mini_batches=50)
    assert algorithm.update(eight(algorithm.policy), REWARDS)["updates"] == 3


# ---- where the samples come from

@pytest.mark.parametrize("iterative", [False, True])
def test_offline_samples_come_from_the_warm_start_and_iterative_ones_from_the_policy(iterative):
    """Also after the policy has moved."""
    task = tasks.load("countdown", numbers=2, cot="off")
    problems = [task.sample_problem(random.Random(seed(n))) for n in (0, 1)]
    start = tiny_gpt(task.tokenizer.n_vocab, 32)
    algorithm = make(copy.deepcopy(start), task, iterative=iterative, max_new_tokens=6)
    torch.nn.init.normal_(algorithm.policy.embed.weight, generator=seeded(1))
    samples = lambda model: collect(model, task, problems, algorithm.config, seeded(9)).tokens
    assert not torch.equal(samples(start), samples(algorithm.policy))
    algorithm.generator.manual_seed(seed(9))
    rollout = algorithm.collect(problems)
    assert torch.equal(rollout.tokens, samples(algorithm.policy if iterative else start))
    assert rollout.problems == [problems[0]] * 4 + [problems[1]] * 4
    assert algorithm.behavior is (algorithm.policy if iterative else algorithm.reference)


def test_a_restored_algorithm_makes_the_same_next_update():
    """Trap 25: the optimizer's moments and the reference are part of a run."""
    def update(algorithm):
        algorithm.generator.manual_seed(seed(7))
        return algorithm.update(eight(tiny_gpt(vocab_size=6)), REWARDS)
    algorithm = make(tiny_gpt(vocab_size=6), mini_batches=2)
    update(algorithm)
    restored = make(copy.deepcopy(algorithm.policy), mini_batches=2)
    restored.load_state_dict(copy.deepcopy(algorithm.state_dict()))
    assert update(algorithm) == update(restored)
    assert all(torch.equal(a, b) for a, b in zip(algorithm.policy.parameters(), restored.policy.parameters()))


def test_no_opinion_is_no_right_one():
    """At the first step every margin is 0: an accuracy of 1 would say that all has been learned."""
    algorithm = make(Bigram(torch.zeros(4, 4)), group_size=2)
    _, metrics = gradients_of_an_update(algorithm, written(algorithm.policy, [[2, 3, EOS], [2, 3, 3]]), torch.tensor([1.0, 0]))
    assert metrics["margin"] == metrics["implicit_accuracy"] == 0
