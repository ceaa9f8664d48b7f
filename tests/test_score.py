"""SCoRe: what each turn earns in each stage, which tokens the KL holds, and that failing on purpose pays where the file says so."""
import importlib
import pathlib
import random

import pytest
import torch

import tasks
from config import InputError
from methods.score import SCoRe, SCoReConfig, turn_advantages, turns
from sample import score
from toys import Bigram, seed, seeded, tiny_gpt, written

TASK = tasks.load("countdown", dialogue=0.6, numbers=2, attempts=1)
encode, EOS = TASK.tokenizer.encode, TASK.tokenizer.eos
PROBLEM = TASK.problem((5, 3), 8)
RIGHT, WRONG = "<think></think><answer>5 + 3</answer>", "<think></think><answer>5 - 3</answer>"


def make(**settings):
    policy = tiny_gpt(TASK.tokenizer.n_vocab, block_size=TASK.max_prompt_tokens + TASK.max_new_tokens)
    defaults = {"group_size": 2, "prompts": 2, "max_new_tokens": 6, "lr": 0.01, "max_grad_norm": 1e9}
    return SCoRe(policy, TASK, SCoReConfig(**(defaults | settings)), seeded(), lambda rollout: torch.tensor([1.0, 0.0, 0.0, 0.0]))


def problems(count=2):
    rng = random.Random(seed())
    return [TASK.sample_problem(rng) for _ in range(count)]


def updated(**settings):
    """One step with rewards that are dealt out -> (method, weights before, rollout, metrics)."""
    method = make(**settings)
    before = {name: weight.clone() for name, weight in method.policy.state_dict().items()}
    rollout = method.collect(problems())
    return method, before, rollout, method.update(rollout, torch.tensor([0.0, 1.0, 0.0, 0.0]))


def test_in_stage_one_the_first_answer_earns_nothing():
    first, second = turn_advantages(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]), 2, alpha=10.0, hold=True)
    assert first.tolist() == [0, 0] and second.tolist() == [-0.5, 0.5]  # and there is no bonus yet


def test_in_stage_two_progress_is_paid_and_its_opposite_costs():
    """alpha 2: wrong to right earns 3, right to right 1, wrong to wrong 0, right to wrong -2; their mean is 1/2."""
    r1, r2 = torch.tensor([0.0, 1.0, 0.0, 1.0]), torch.tensor([1.0, 1.0, 0.0, 0.0])
    first, second = turn_advantages(r1, r2, 4, alpha=2.0)
    assert second.tolist() == [2.5, 0.5, -0.5, -2.5] and first.tolist() == [-0.5, 0.5, -0.5, 0.5]


@pytest.mark.parametrize("q", [0.1, 0.3])
def test_failing_on_purpose_pays_where_the_equation_says(q):
    """Every right first answer is kept, a share q of the wrong ones mended; alpha 10. A wrong one earns 11 q, a right one 2."""
    n = 100
    r1 = torch.cat((torch.ones(n), torch.zeros(n)))
    r2 = torch.cat((torch.ones(n), (torch.arange(n) < q * n).float()))
    by_return, _ = turn_advantages(r1, r2, 2 * n, alpha=10.0, credit="return")
    gain = by_return[n:].mean() - by_return[:n].mean()
    assert float(gain) == pytest.approx(11 * q - 2, abs=1e-4) and (gain > 0) == (q > 2 / 11)
    by_turn, _ = turn_advantages(r1, r2, 2 * n, alpha=10.0)
    assert by_turn[n:].mean() < by_turn[:n].mean()


def test_the_bonus_is_a_scale_in_expectation():
    """All four pairs of answers of a policy with two answers in each turn, weighed by their chance: the gradient of
    E[r2 + alpha (r2 - r1)] in the logits of the second turn is 1 + alpha times that of E[r2]."""
    logits = torch.tensor([[0.3, -0.2], [0.1, 0.5]], requires_grad=True)  # row: the first answer
    r1, r2, chance = torch.tensor([0.0, 1.0]), torch.tensor([[0.0, 1.0], [1.0, 0.0]]), torch.tensor([0.4, 0.6])
    p, alpha = logits.softmax(1), 3.0
    gradient = lambda reward: torch.autograd.grad((chance[:, None] * p * reward).sum(), logits, retain_graph=True)[0]
    assert torch.allclose(gradient(r2 + alpha * (r2 - r1[:, None])), (1 + alpha) * gradient(r2), atol=1e-6)


def test_each_turn_has_its_own_advantage_and_the_words_between_have_none():
    method, _, rollout, _ = updated(stage_one=0, alpha=1.0)
    A, both, first = method.seen["advantages"], method.both, method.first
    for i in range(4):
        start, end = int(first.prompt_lengths[i]), int(first.lengths[i] - first.finished[i].long())
        assert set(A[i, start:end].tolist()) <= {[0.5, -0.5, 0.0, 0.0][i]}
        assert float(A[i, end]) == 0 and not both.mask[i, end]  # "Try again."
        assert set(A[i, end + 1:int(rollout.lengths[i])].tolist()) == {[-1.5, 1.5, 0.0, 0.0][i]}


@pytest.mark.parametrize("stage_one, turns_held", [(1, "first"), (0, "both")])
def test_the_kl_holds_the_first_answer_in_stage_one_and_both_in_stage_two(stage_one, turns_held):
    """No reward differs and the policy has left the warm start: the loss is the k2 of the tokens held, over rows x 2 limits."""
    method = make(beta_first=2.0, beta_both=2.0, stage_one=stage_one)
    with torch.no_grad():
        method.policy.embed.weight.add_(0.1 * torch.randn(method.policy.embed.weight.shape, generator=seeded(1)))
    rollout = method.collect(problems())
    both, first = method.both, method.both.mask & ~rollout.mask
    with torch.no_grad():
        ref = score(method.reference, both.tokens)[0]
    method.reward = lambda rollout: torch.zeros(4)
    metrics = method.update(rollout, torch.zeros(4))
    k2 = ((both.logprobs - ref) ** 2 / 2)[first if turns_held == "first" else both.mask]
    assert metrics["loss"] == pytest.approx(2.0 * float(k2.sum()) / (4 * 2 * 6), rel=1e-3) and metrics["loss"] > 0
    assert metrics["kl_first"] == pytest.approx(float((both.logprobs - ref)[first].mean()), rel=1e-3)


@pytest.mark.parametrize("mini_batches", [1, 2])
def test_in_low_precision_the_ratio_starts_at_one(mini_batches):
    """Trap 35, in the mini-batches after the first one too. Clip bounds of 0 would remove whatever differs; here nothing does."""
    method = make(clip_low=0.0, clip_high=0.0, lr=0.0, mini_batches=mini_batches)
    method.policy.compute_dtype = torch.bfloat16
    assert method.update(method.collect(problems()), torch.tensor([0.0, 1.0, 0.0, 0.0]))["clip_fraction"] == 0


def test_plain_has_neither_stage_nor_bonus_nor_kl():
    method, _, rollout, metrics = updated(stages="plain", alpha=7.0, beta_first=9.0, beta_both=9.0)
    second = method.seen["advantages"][0, rollout.prompt_lengths[0]]
    assert metrics["stage"] == 0 and float(second) == -0.5


def test_stages_follow_each_other():
    method, _, _, metrics = updated(stage_one=1)
    rollout = method.collect(problems())
    assert [metrics["stage"], method.update(rollout, torch.tensor([0.0, 1.0, 0.0, 0.0]))["stage"]] == [1, 2]


def test_both_answers_are_counted():
    method = make()
    rollout = method.collect(problems())
    assert rollout.sampled_tokens + rollout.discarded == method.first.sampled_tokens + int(rollout.mask.sum())


def test_a_first_answer_that_was_cut_off_leaves_room_for_a_second():
    """It has used every token that it had, and the words between come on top."""
    policy = Bigram(torch.zeros(TASK.tokenizer.n_vocab, TASK.tokenizer.n_vocab))
    policy.table.data[:, 5] = 100.0  # never an end
    policy.config.block_size = TASK.max_prompt_tokens + TASK.max_new_tokens
    method = SCoRe(policy, TASK, SCoReConfig(group_size=1), seeded())
    rollout = method.collect([PROBLEM])
    assert not rollout.finished.any() and int(rollout.lengths[0]) == policy.config.block_size


def test_what_became_of_the_first_answers():
    """Kept right, mended, spoilt, kept wrong: to keep is a verdict, and it is true of the first two."""
    model = Bigram(torch.zeros(TASK.tokenizer.n_vocab, TASK.tokenizer.n_vocab))

    def wrote(*texts):
        prompt = encode(PROBLEM.prompt)
        rollout = written(model, [prompt + encode(text) + [EOS] for text in texts], len(prompt))
        rollout.problems = [PROBLEM] * len(texts)
        return rollout
    found = turns(TASK, wrote(RIGHT, WRONG, RIGHT, WRONG), wrote(RIGHT, RIGHT, WRONG, WRONG))
    assert found == {"first_right": 0.5, "second_right": 0.5, "right_to_wrong": 0.25, "wrong_to_right": 0.25, "same": 0.5, "judge_accuracy": 0.5}


def test_a_task_without_a_dialogue_is_refused():
    with pytest.raises(InputError, match="--dialogue"):
        SCoRe(tiny_gpt(), tasks.load("countdown"), SCoReConfig())


def test_the_table_of_the_experiment(monkeypatch):
    """Two seeds of every policy: half of the wrong first answers are mended, none is spoilt; a fresh try would mend a quarter."""
    monkeypatch.syspath_prepend(str(pathlib.Path(__file__).parent.parent / "experiments"))
    module = importlib.import_module("second_turn")
    result = {"first_right": 0.5, "second_right": 0.75, "right_to_wrong": 0.0, "wrong_to_right": 0.25, "same": 0.5, "judge_accuracy": 1.0,
              "fresh": 0.25, "problems": 3, "log": [[10, 0.5, 0.5, 0.5], [20, 0.5, 0.75, 0.5]]}
    text, panels = module.report(None, module.FULL | {"seeds": (0, 1)}, lambda cells: {cell: result for cell in cells})
    spread = lambda x: f"{x:.2f} ({x:.2f} to {x:.2f})"
    assert "| SCoRe | " + " | ".join(map(spread, (0.5, 0.75, 0.25, 0.5, 0.25, 0.0, 0.5))) + " |" in text.splitlines()
    assert [len(panel["curves"]) for panel in panels] == [4, 3, 3]
