"""Learning from what a model says of answers: scores, preferences in both orders, and one's own
grades."""
import math

import pytest
import torch

import train
from config import InputError
from grpo import group_advantages
from methods.ai_preferences import AIPreferences, AIPreferencesConfig, preferences, soft_dpo_loss
from methods.rlaif import RLAIF, RLAIFConfig, grades
from methods.self_reward import SelfReward, SelfRewardConfig
from toys import seeded, tiny_gpt
from test_genrm import CUT, ENCODE, RIGHT, TASK, WRONG, table, wrote

VOCABULARY = TASK.tokenizer.n_vocab
FREE = {"group_size": 2, "micro_batch": 64, "max_grad_norm": 1e9, "lr": 0.01}


def gain(policy, rollout, again):
    """How much likelier each row has become, per token."""
    return (again.logprobs - rollout.logprobs).sum(1) / rollout.mask.sum(1)


def says(*scores):
    """In the place of `opinion`: these scores, whatever the answers are."""
    return lambda *_: (torch.tensor(scores), torch.tensor(scores) > 0.5, 0)


def test_the_reward_is_the_mean_score():
    """Behind </answer> 10 has logit log 9, the other nine 0: P(10) = 1/2, the others 1/18 each. Mean (5
    + 45/18) / 10 = 0.75."""
    said, right = grades(table(answer__10=math.log(9)), TASK, wrote(table(), RIGHT, CUT))
    assert said.tolist() == pytest.approx([0.75, 0.0]) and right.tolist() == [True, False]


def test_the_policy_follows_its_judge_and_the_rule_is_only_measured(monkeypatch):
    """A judge that likes the wrong answer. Whatever the rule pays, that answer becomes likelier, and
    auc says how wrong the judge is."""
    monkeypatch.setattr("methods.rlaif.opinion", says(0.2, 0.8))
    policy = tiny_gpt(VOCABULARY, 64, scale=1.0)
    algorithm, before = RLAIF(policy, TASK, RLAIFConfig(**FREE), seeded()), wrote(policy, RIGHT, WRONG)
    for _ in range(5):
        metrics = algorithm.update(wrote(policy, RIGHT, WRONG), torch.tensor([1.0, 0.0]))
    up = gain(policy, before, wrote(policy, RIGHT, WRONG))
    assert up[1] > up[0] and metrics["auc"] == 0 and metrics["judge_accuracy"] == 0 and metrics["proxy"] == pytest.approx(0.5)


def test_the_judge_stays_what_it_was():
    policy = tiny_gpt(VOCABULARY, 64)
    algorithm = RLAIF(policy, TASK, RLAIFConfig(**FREE), seeded())
    before = {name: w.clone() for name, w in algorithm.judge.state_dict().items()}
    algorithm.update(wrote(policy, RIGHT, WRONG), torch.zeros(2))
    assert all(torch.equal(w, before[name]) for name, w in algorithm.judge.state_dict().items())
    assert not all(torch.equal(w, before[name]) for name, w in policy.state_dict().items())


def test_fresh_noise_shortens_the_advantages_and_keeps_their_direction():
    """Every way to flip three verdicts, weighted by its chance at accuracy a: on average (2a - 1) times
    the true advantages, without std."""
    a, right, mean = 0.8, torch.tensor([1.0, 0.0, 0.0]), torch.zeros(3)
    for flips in torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 3):
        chance = float((a * (1 - flips) + (1 - a) * flips).prod())
        mean += chance * group_advantages((right - flips).abs(), 3, std=False)
    assert mean.tolist() == pytest.approx(((2 * a - 1) * group_advantages(right, 3, std=False)).tolist())


# ---- preferences

def test_both_orders_cancel_a_taste_for_a_place():
    """A table that sees the last token only: whatever the pair, it says "first" with 3/4. Asked both
    ways, q is 1/2 and the bias is 1/2."""
    judge, rollout = table(answer__first=math.log(3)), wrote(table(), RIGHT, WRONG)
    p = preferences(judge, TASK, rollout, torch.tensor([0]), torch.tensor([1]))
    assert torch.allclose(p, torch.tensor([[0.75, 0.75]]))
    algorithm = AIPreferences(tiny_gpt(VOCABULARY, 96), TASK, AIPreferencesConfig(**FREE), seeded())
    algorithm.judge = judge
    _, _, q, metrics = algorithm.label(rollout)
    assert q.tolist() == pytest.approx([0.5]) and metrics["position_bias"] == pytest.approx(0.5) and metrics["same_place"] == 1
    algorithm.config.orders = "one"
    assert algorithm.label(rollout)[2].tolist() == pytest.approx([0.75])


def test_a_judge_is_asked_about_both_answers_in_both_orders(monkeypatch):
    seen = []
    monkeypatch.setattr("dialogue.ask", lambda model, task, prompts, words: seen.extend(prompts) or torch.full((len(prompts), 2), 0.5))
    rollout = wrote(table(), RIGHT, WRONG)
    preferences(None, TASK, rollout, torch.tensor([0]), torch.tensor([1]))
    good, bad = "<answer>(5 * 3) + 7</answer>", "<answer>(5 * 3) - 7</answer>"
    assert seen == [ENCODE(f"Which: {rollout.problems[0].prompt}{good}{bad}"), ENCODE(f"Which: {rollout.problems[0].prompt}{bad}{good}")]


def test_answers_that_are_the_same_make_no_pair(monkeypatch):
    monkeypatch.setattr("methods.ai_preferences.preferences", lambda judge, task, rollout, one, two: torch.tensor([[0.9, 0.3]] * len(one)))
    algorithm = AIPreferences(tiny_gpt(VOCABULARY, 96), TASK, AIPreferencesConfig(**FREE), seeded())
    first, second, q, metrics = algorithm.label(wrote(algorithm.policy, RIGHT, RIGHT, WRONG, RIGHT, CUT, CUT))
    assert (first.tolist(), second.tolist()) == ([2], [3]) and q.tolist() == pytest.approx([0.8])
    assert metrics["judge_accuracy"] == 0  # the second one is right
    algorithm.config.labels = "clamped"
    assert algorithm.label(wrote(algorithm.policy, WRONG, RIGHT))[2].tolist() == [1.0]


def test_of_an_odd_group_one_answer_stays_alone(monkeypatch):
    """Two problems, three answers each: the third answer of the first one is not compared with the first of the second."""
    monkeypatch.setattr("methods.ai_preferences.preferences", lambda judge, task, rollout, one, two: torch.tensor([[0.9, 0.3]] * len(one)))
    algorithm = AIPreferences(tiny_gpt(VOCABULARY, 96), TASK, AIPreferencesConfig(**(FREE | {"group_size": 3})), seeded())
    first, second, *_ = algorithm.label(wrote(algorithm.policy, RIGHT, WRONG, RIGHT, WRONG, RIGHT, WRONG))
    assert (first.tolist(), second.tolist()) == ([0, 3], [1, 4])


@pytest.mark.parametrize("q, margin", [(0.8, math.log(4)), (0.5, 0.0)])
def test_a_soft_label_has_a_margin_at_which_it_stops(q, margin):
    """The slope of the loss is sigmoid(m) - q: 0 at m = log q / (1 - q)."""
    m = torch.tensor([margin], requires_grad=True)
    loss, _ = soft_dpo_loss(m, *torch.zeros(3, 1), beta=1.0, q=torch.tensor([q]))
    loss.backward()
    assert float(m.grad) == pytest.approx(0, abs=1e-6)


def test_the_better_one_of_a_pair_becomes_likelier(monkeypatch):
    """Whatever the rule says; and the advantages that are shown are minus the slope of the loss: beta
    (q - 1/2) at the start."""
    monkeypatch.setattr("methods.ai_preferences.preferences", lambda judge, task, rollout, one, two: torch.tensor([[0.1, 0.9]]))
    policy = tiny_gpt(VOCABULARY, 96, scale=1.0)
    algorithm = AIPreferences(policy, TASK, AIPreferencesConfig(**FREE, mini_batches=1), seeded())
    before = wrote(policy, RIGHT, WRONG)
    algorithm.update(before, torch.tensor([1.0, 0.0]))
    assert algorithm.seen["advantages"].tolist() == pytest.approx([-0.04, 0.04])
    up = gain(policy, before, wrote(policy, RIGHT, WRONG))
    assert up[1] > up[0]


def test_nothing_to_compare_is_no_step():
    algorithm = AIPreferences(tiny_gpt(VOCABULARY, 96), TASK, AIPreferencesConfig(**FREE), seeded())
    metrics = algorithm.update(wrote(algorithm.policy, CUT, CUT), torch.zeros(2))
    assert metrics["updates"] == 0 and metrics["pairs"] == 0 and all(map(math.isfinite, metrics.values()))


# ---- one's own grades

def own(monkeypatch, said, **settings):
    monkeypatch.setattr("methods.self_reward.opinion", says(*said))
    policy = tiny_gpt(VOCABULARY, 64, scale=1.0)
    return SelfReward(policy, TASK, SelfRewardConfig(**(FREE | {"mini_batches": 1} | settings)), seeded())


def test_only_the_best_and_the_worst_are_paired(monkeypatch):
    algorithm = own(monkeypatch, [0.3, 0.1, 0.9, 0.2], group_size=4)
    metrics = algorithm.update(wrote(algorithm.policy, RIGHT, WRONG, WRONG, RIGHT), torch.zeros(4))
    assert metrics["pairs"] == 1 and (algorithm.seen["advantages"] != 0).tolist() == [False, True, True, False]
    assert algorithm.seen["advantages"][2] > 0


def test_a_round_ends_with_a_new_judge_that_is_the_policy(monkeypatch):
    """Two steps a round: after the first the model that samples and judges is the old one, after the
    second the new one."""
    algorithm, same = own(monkeypatch, [0.9, 0.1], round_steps=2), []
    for _ in range(2):
        metrics = algorithm.update(wrote(algorithm.policy, RIGHT, WRONG), torch.zeros(2))
        same.append(all(map(torch.equal, algorithm.policy.state_dict().values(), algorithm.reference.state_dict().values())))
    assert same == [False, True] and metrics["round"] == 1 and algorithm.behavior is algorithm.reference
    assert algorithm.update(wrote(algorithm.policy, RIGHT, WRONG), torch.zeros(2))["round"] == 2


@pytest.mark.parametrize("algo", ["rlaif", "ai_preferences", "self_reward"])
def test_a_task_without_a_dialogue_is_refused_in_one_line(algo):
    with pytest.raises(InputError, match="--dialogue") as error:
        train.main(["--algo", algo, "--task", "permutation"])
    assert "\n" not in str(error.value)


def test_a_judge_that_is_not_there_is_refused_in_one_line():
    with pytest.raises(InputError, match="nowhere"):
        train.main(["--algo", "rlaif", "--task", "countdown", "--teacher", "nowhere"])
