"""VinePPO: the value of a state is what the policy makes of it. Toys whose values are known, or certain."""
import copy

import pytest
import torch

from methods.vineppo import VinePPO, VinePPOConfig, step_advantages
from toys import COMMA, EOS, GO, ONE, TWO, Sums, coins, seed, seeded, tiny_gpt, writes, written

TASK = Sums()
PROBLEM = TASK.problem(3)
PROMPT = TASK.tokenizer.encode(PROBLEM.prompt)  # two tokens: 3, Go
RIGHT, LATE, WRONG = [ONE, COMMA, TWO, EOS], [TWO, COMMA, ONE, EOS], [TWO, COMMA, TWO, COMMA, ONE, EOS]


def sure():
    """Always writes "1, 2": V(3, Go) = 1, V("1, ") = 1; after "2, " it goes on with a 2, which makes 4: V("2, ") = 0."""
    return writes(GO={ONE: 1.0}, ONE={COMMA: 1.0}, COMMA={TWO: 1.0})


def rule(rollout):
    return rollout.right(TASK).float()


def make(policy, reward=rule, **settings):
    """One step on everything, unless a test asks for more."""
    defaults = {"group_size": 2, "prompts": 1, "rollouts": 3, "lr": 0.01, "micro_batch": 64, "max_grad_norm": 1e9, "mini_batches": 1}
    return VinePPO(policy, TASK, VinePPOConfig(**(defaults | settings)), seeded(), reward)


def wrote(policy, *completions):
    rollout = written(policy, [PROMPT + completion for completion in completions], len(PROMPT))
    rollout.problems = [PROBLEM] * len(completions)
    return rollout


def advantages(policy, *completions, **settings):
    rollout = wrote(policy, *completions)
    found, states, _ = make(policy, **settings).advantages(rollout, rule(rollout))
    return found.tolist(), states, rollout.discarded


# ---- advantages

def test_the_credit_of_a_step_is_the_value_after_it_minus_the_value_before_it():
    """"1, " keeps what was sure; "2, " spoils it, and the 1 behind it, which the policy would not have written, saves it."""
    found, _, _ = advantages(sure(), RIGHT, LATE)
    assert found == [[0, 0, 0, 0, 0, 0], [0, 0, -1, -1, 1, 1]]


def test_the_end_has_the_reward_and_not_an_estimate():
    """A sure policy that once wrote "2" and stopped: one step, 0 - V = -1; nothing behind the end, and nothing in the prompt."""
    found, _, _ = advantages(sure(), [TWO, EOS], RIGHT)
    assert found[0] == [0, 0, -1, -1, 0, 0]


def test_a_completion_that_was_cut_off_behind_a_step_has_lost_everything():
    """Its last token is its end, so the state "1, " is no state from which anything goes on."""
    found, states, _ = advantages(sure(), [ONE, COMMA], RIGHT)
    assert found[0] == [0, 0, -1, -1, 0, 0] and states == 2  # the prompt; "1, " in the other row


def test_values_are_those_of_the_policy():
    """toys.coins: V = 9/64 at the prompt, 5/16 after "1, ", 1/4 after "2, ", nothing after "2, 2, "."""
    found, _, _ = advantages(coins(), RIGHT, WRONG, rollouts=4000)
    assert found[0][2:6:2] == pytest.approx([5 / 16 - 9 / 64, 1 - 5 / 16], abs=0.04)
    assert found[1][2::2] == pytest.approx([1 / 4 - 9 / 64, -1 / 4, 0], abs=0.04)
    assert all(row[t] == row[t + 1] for row in found for t in range(2, 8, 2))  # one number a step, which is two tokens


def test_the_advantages_of_the_steps_add_up():
    """To r - V(prompt), whatever the estimates in between: they telescope. Here r = 1 and r = 0."""
    found, _, _ = advantages(coins(), RIGHT, WRONG)
    (right, wrong), start = [sum(row[2::2]) for row in found], make(coins()).advantages(wrote(coins(), RIGHT), torch.ones(1))[2]
    assert right - wrong == pytest.approx(1) and 0 <= start <= 1 and -wrong in [pytest.approx(k / 3) for k in range(4)]


def test_a_value_is_a_mean_of_the_runs_own_rewards():
    """A run that pays 0.5 for everything: no state is better than another, though the rule still says right and wrong."""
    policy = coins()
    rollout = wrote(policy, RIGHT, WRONG)
    paid = lambda rolled: torch.full((len(rolled.tokens),), 0.5)
    assert not make(policy, paid).advantages(rollout, paid(rollout))[0].any()


def test_rows_may_have_different_numbers_of_steps():
    """Two steps, and one. What the table holds behind a row's last step is not looked at."""
    ends, mask = torch.tensor([[0, 1, 0, 1], [0, 0, 1, 0]]).bool(), torch.tensor([[1, 1, 1, 1], [0, 1, 1, 0]]).bool()
    V = torch.tensor([[0.5, 0.75, 0.0], [0.25, 1.0, 77.0]])
    assert step_advantages(V, ends, mask).tolist() == [[0.25, 0.25, -0.75, -0.75], [0, 0.75, 0.75, 0]]


# ---- what it costs

def test_states_that_are_shared_are_valued_once():
    """The same completion twice: two states, the prompt and "1, "."""
    assert advantages(sure(), RIGHT, RIGHT)[1] == 2 and advantages(sure(), RIGHT, LATE)[1] == 3


def test_the_tokens_of_the_rollouts_are_counted():
    """Three ways from the prompt, "1, 2 EOS", and three from "1, ", "2 EOS"."""
    assert advantages(sure(), RIGHT, RIGHT)[2] == 3 * (4 + 2)


def test_a_rollout_is_no_longer_than_what_is_left_of_the_limit():
    """A policy without an end: from the prompt 6 tokens, from "1, " 4."""
    endless = writes(GO={ONE: 1.0}, ONE={COMMA: 1.0}, COMMA={ONE: 1.0})
    assert advantages(endless, RIGHT, max_new_tokens=6)[2] == 3 * (6 + 4)


def test_what_was_counted_before_stays_counted():
    rollout = wrote(sure(), RIGHT)
    rollout.discarded = 100
    make(sure()).advantages(rollout, torch.ones(1))
    assert rollout.discarded == 118


# ---- an update

def test_in_one_completion_a_good_step_becomes_likelier_and_a_bad_one_less_likely():
    """The row "2, 1", which is right. Its end is good, "2, " was bad: a reward for the whole would have pushed up both."""
    policy = writes(GO={ONE: 0.999, TWO: 0.001}, ONE={COMMA: 0.999, EOS: 0.001}, TWO={EOS: 1.0}, COMMA={TWO: 0.999, ONE: 0.001})
    algorithm = make(policy, rollouts=1)
    algorithm.reward = lambda ways: torch.tensor([1.0, 0.0])  # V(prompt) = 1, V("2, ") = 0, as good as sure
    before = policy.table.detach().log_softmax(-1)
    metrics = algorithm.update(wrote(policy, LATE), torch.ones(1))
    after = policy.table.detach().log_softmax(-1)
    assert metrics["updates"] == 1 and metrics["states"] == 2 and metrics["value_first"] == 1
    assert after[GO, TWO] < before[GO, TWO] and after[COMMA, ONE] > before[COMMA, ONE]


def test_where_no_step_made_a_difference_there_is_no_optimizer_step():
    """Not even one with a gradient of 0, which Adam's momentum would turn into movement."""
    policy = sure()
    algorithm = make(policy)
    assert algorithm.update(wrote(policy, LATE), torch.ones(1))["updates"] == 1  # now there is momentum
    policy.load_state_dict(sure().state_dict())
    assert algorithm.update(wrote(policy, RIGHT, RIGHT), torch.ones(2))["updates"] == 0
    assert torch.equal(policy.table, sure().table)


def gpt(**more):
    return tiny_gpt(TASK.tokenizer.n_vocab, **more)


def dealt(ways):
    """Rewards for rollouts that do not depend on what a random model writes."""
    return (torch.arange(len(ways.tokens)) % 3 == 0).float()


def gradients(policy, size):
    """The step itself is left out, so that the gradients can be looked at."""
    algorithm = make(policy, dealt, micro_batch=size, rollouts=2)
    algorithm.optimizer.step = lambda **_: 0.0
    metrics = algorithm.update(wrote(policy, RIGHT, WRONG, [TWO, EOS], LATE), torch.tensor([1.0, 0, 0, 1]))
    return [p.grad for p in policy.parameters()], metrics


def test_the_micro_batch_size_does_not_change_the_gradient():
    whole, metrics = gradients(gpt(), 64)
    assert any(g.abs().max() > 0 for g in whole) and metrics["max_log_ratio"] < 1e-4  # the first ratio is 1
    for size in (2, 1):
        for a, b in zip(gradients(gpt(), size)[0], whole):
            torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-3)


def test_the_mean_gradient_of_the_mini_batches_is_that_of_the_batch():
    """The tokens of a short completion count the same as those of a long one, in whichever mini-batch they are."""
    seen = []
    for mini_batches in (1, 2, 4):
        policy = gpt()
        algorithm, steps = make(policy, dealt, mini_batches=mini_batches, rollouts=2), []
        algorithm.optimizer.step = lambda **_: steps.append([p.grad.clone() for p in policy.parameters()]) or 0.0
        algorithm.update(wrote(policy, RIGHT, WRONG, [TWO, EOS], LATE), torch.tensor([1.0, 0, 0, 1]))
        assert len(steps) == mini_batches
        seen.append([torch.stack(gradients).mean(0) for gradients in zip(*steps)])
    for other in seen[1:]:
        for a, b in zip(other, seen[0]):
            torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-3)


def test_a_restored_vineppo_makes_the_same_next_update():
    """Trap 25."""
    def update(algorithm):
        algorithm.generator.manual_seed(seed(7))
        return algorithm.update(wrote(gpt(), RIGHT, WRONG, LATE), torch.tensor([1.0, 0, 1]))
    algorithm = make(gpt(), dealt, mini_batches=2)
    assert update(algorithm)["updates"] == 2
    restored = make(copy.deepcopy(algorithm.policy), dealt, mini_batches=2)
    restored.load_state_dict(copy.deepcopy(algorithm.state_dict()))
    assert update(algorithm) == update(restored)
    assert all(torch.equal(a, b) for a, b in zip(algorithm.policy.parameters(), restored.policy.parameters()))
