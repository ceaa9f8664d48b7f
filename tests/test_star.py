"""STaR: what is imitated is right. Teachers are sampled, and stay as they are."""
import copy
import random
from types import SimpleNamespace

import pytest
import torch

import checkpoint
import tasks
from config import InputError
from grpo import policy_loss, token_weights
from methods.star import STaR, STaRConfig
from sample import collect, score
from sft import sft_step
from tasks import Problem
from toys import eight, seed, seeded, tiny_gpt, written

TASK = tasks.load("countdown", numbers=2, cot="off")
NO_STEP = SimpleNamespace(zero_grad=lambda: None, step=lambda *_: 0.0)  # leaves the gradients to look at


def policy_of(task, seed=0, block_size=32, **more):
    return tiny_gpt(task.tokenizer.n_vocab, block_size, seed, **more)


def make(policy, task=TASK, **settings):
    """One step on all that is kept, unless a test asks for more."""
    defaults = {"group_size": 4, "lr": 0.01, "max_new_tokens": 8, "micro_batch": 64, "max_grad_norm": 1e9, "epochs": 1,
                "mini_batches": 1, "temperature": 1.0, "teacher": ""}
    return STaR(policy, task, STaRConfig(**(defaults | {"prompts": 2} | settings)), seeded())


RIGHT, WRONG, CUT_OFF = "right", "wrong", "cut off"


def answers(policy, kinds):
    """A rollout with answers of the given kinds to one problem; what is cut off says the right thing, but not that it ends."""
    ids, problem = TASK.tokenizer.encode, Problem("Use 10, 11 to make 21.\n", 21, ("countdown", 10, 11, 21))
    texts = {RIGHT: "<think></think><answer>10 + 11</answer>", WRONG: "<think></think><answer>10 - 11</answer>"}
    texts[CUT_OFF] = texts[RIGHT]
    prompt = ids(problem.prompt)
    rows = [prompt + ids(texts[kind]) + ([] if kind is CUT_OFF else [TASK.tokenizer.eos]) for kind in kinds]
    rollout = written(policy, rows, len(prompt))
    rollout.problems = [problem] * len(rows)
    assert [done and TASK.verify(problem, text) for text, done in zip(rollout.completions(TASK.tokenizer), rollout.finished)] == [
        kind is RIGHT for kind in kinds]
    return rollout


def gradients_of_an_update(algorithm, rollout, rewards=None):
    """The steps are left out, so that the gradients can be looked at."""
    algorithm.optimizer.step = lambda **_: 0.0
    metrics = algorithm.update(rollout, torch.zeros(len(rollout.tokens)) if rewards is None else rewards)
    return [p.grad for p in algorithm.policy.parameters()], metrics


def test_star_keeps_only_what_the_rule_accepts():
    """The gradient is that of imitating the two right rows: not the wrong one, and not the one that was cut off (trap 14)."""
    policy = policy_of(TASK)
    rollout = answers(policy, [WRONG, RIGHT, CUT_OFF, RIGHT])
    gradients, metrics = gradients_of_an_update(make(policy), rollout)
    twin = policy_of(TASK)
    sft_step(twin, NO_STEP, rollout.tokens[[1, 3]], rollout.mask[[1, 3]], micro_batch=2)
    assert metrics["kept"] == 2 and metrics["updates"] == 1
    for a, b in zip(gradients, twin.parameters()):
        torch.testing.assert_close(a, b.grad, atol=1e-6, rtol=1e-4)


def test_star_asks_the_rule_and_not_the_reward():
    """The reward may pay for the format, too: a reward for a wrong answer does not make it a demonstration."""
    policy = policy_of(TASK)
    _, metrics = gradients_of_an_update(make(policy), answers(policy, [WRONG, WRONG, RIGHT]), torch.tensor([1.0, 1.0, 0.0]))
    assert metrics["kept"] == 1


def test_star_is_reinforce_without_a_baseline():
    """One step is one of the policy loss of grpo.py with the reward itself, 1 or 0, as the advantage, and the mean over the tokens
    of the rows with reward 1. The rows with reward 0 pull at nothing: there is no baseline that would push them down."""
    policy = policy_of(TASK)
    rollout, rewards = answers(policy, [RIGHT, WRONG, RIGHT, CUT_OFF, WRONG]), torch.tensor([1.0, 0, 1, 0, 0])
    weights = token_weights(rollout.mask & (rewards == 1)[:, None], "token_mean")
    loss, _ = policy_loss(score(policy, rollout.tokens)[0], rollout.logprobs, rewards, rollout.mask, clip_low=1.0, clip_high=1e6,
                          aggregate="token_mean", weights=weights)
    expected = torch.autograd.grad(loss, list(policy.parameters()))
    for a, b in zip(gradients_of_an_update(make(policy), rollout)[0], expected):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-3)


def test_star_makes_no_step_if_nothing_was_right():
    """Not even one with a gradient of 0, which Adam's momentum would turn into movement."""
    policy = policy_of(TASK)
    algorithm = make(policy)
    assert algorithm.update(answers(policy, [RIGHT, WRONG]), torch.zeros(2))["updates"] == 1  # now there is momentum
    before = copy.deepcopy(policy.state_dict())
    assert algorithm.update(answers(policy, [WRONG, CUT_OFF]), torch.ones(2)) == {"updates": 0, "skipped": 0, "kept": 0}
    assert all(torch.equal(w, before[name]) for name, w in policy.state_dict().items())


@pytest.mark.parametrize("epochs, mini_batches, updates", [(1, 1, 1), (2, 3, 6), (1, 50, 4)])
def test_star_steps_once_per_mini_batch_and_pass(epochs, mini_batches, updates):
    """Four rows are kept, and no mini-batch is empty."""
    policy = policy_of(TASK)
    algorithm = make(policy, epochs=epochs, mini_batches=mini_batches)
    assert algorithm.update(answers(policy, [RIGHT] * 4 + [WRONG]), torch.zeros(5))["updates"] == updates


def test_star_makes_what_was_right_likelier():
    policy = policy_of(TASK, scale=1.0)
    rollout, algorithm = answers(policy, [RIGHT]), make(policy)
    for _ in range(30):
        algorithm.update(rollout, torch.ones(1))
    assert float(score(policy, rollout.tokens)[0][rollout.mask].sum().detach()) > float(rollout.logprobs.sum()) + 10


def test_without_a_teacher_the_policy_is_sampled():
    policy = policy_of(TASK)
    assert make(policy).behavior is policy


@pytest.fixture
def save(tmp_path):
    """Write a model as the checkpoint of a run -> its path."""
    def write(model, task=TASK, name="teacher.pt"):
        checkpoint.save(tmp_path / name, model, task, {"algo": "grpo", "task": task.name})
        return str(tmp_path / name)
    return write


def test_a_teacher_is_sampled_and_not_trained(save):
    """The samples are those of the teacher's weights, before and after an update; the weights that move are the policy's."""
    teacher, policy = policy_of(TASK, seed=1), policy_of(TASK)
    algorithm, start = make(policy, teacher=save(teacher)), copy.deepcopy(policy.state_dict())
    problems = [TASK.sample_problem(random.Random(seed(n))) for n in (0, 1)]
    samples = lambda model: collect(model, TASK, problems, algorithm.config, seeded(9)).tokens
    for _ in range(2):
        algorithm.generator.manual_seed(seed(9))
        sampled = algorithm.collect(problems).tokens
        assert torch.equal(sampled, samples(teacher)) and not torch.equal(sampled, samples(policy))
        assert algorithm.update(answers(teacher, [RIGHT]), torch.ones(1))["updates"] == 1
    assert not torch.equal(policy.embed.weight, start["embed.weight"])
    assert all(torch.equal(w, teacher.state_dict()[name]) for name, w in algorithm.behavior.state_dict().items())
    assert not any(p.requires_grad for p in algorithm.behavior.parameters())


def test_a_teacher_may_be_larger_and_remember_more(save):
    algorithm = make(policy_of(TASK), teacher=save(policy_of(TASK, block_size=64, n_head=4)))
    assert algorithm.behavior.config.n_head == 4
    algorithm.collect([TASK.sample_problem(random.Random(seed()))])


def test_a_teacher_computes_as_the_policy_does(save):
    """Else one of the two would be sampled in another precision than --dtype says."""
    policy = policy_of(TASK)
    policy.compute_dtype = torch.bfloat16
    assert make(policy, teacher=save(policy_of(TASK))).behavior.compute_dtype == torch.bfloat16


def test_a_teacher_that_cannot_be_used_is_refused(save, tmp_path):
    """In one line: it is not there, speaks another language, or cannot hold a whole solution."""
    foreign = tasks.load("permutation")
    for path, why in ((str(tmp_path / "nowhere"), "nowhere: there is no such"),
                      (save(policy_of(foreign), foreign, "foreign.pt"), "vocabulary is that of task permutation, not of countdown"),
                      (save(policy_of(TASK, block_size=31), name="short.pt"), "31 tokens is shorter than this run's 32")):
        with pytest.raises(InputError, match=why) as error:
            make(policy_of(TASK), teacher=path)
        assert path in str(error.value) and "\n" not in str(error.value)


def test_a_restored_star_makes_the_same_next_update():
    """Trap 25."""
    def update(algorithm):
        algorithm.generator.manual_seed(seed(7))
        return algorithm.update(answers(policy_of(TASK), [RIGHT, WRONG, RIGHT, RIGHT]), torch.zeros(4))
    algorithm = make(policy_of(TASK), mini_batches=2)
    update(algorithm)
    restored = make(copy.deepcopy(algorithm.policy), mini_batches=2)
    restored.load_state_dict(copy.deepcopy(algorithm.state_dict()))
    assert update(algorithm) == update(restored)
    assert all(torch.equal(a, b) for a, b in zip(algorithm.policy.parameters(), restored.policy.parameters()))


def test_the_micro_batch_size_does_not_change_the_gradient_of_star():
    """Trap 11: rows of 2 to 12 tokens. A mean of means would weigh the tokens of short rows more."""
    found = []
    for size in (64, 3, 1):
        algorithm = make(tiny_gpt(vocab_size=6), micro_batch=size)
        rollout = eight(algorithm.policy)
        rollout.right = lambda task: torch.tensor([True, True, False, True, True, False, True, True])
        algorithm.optimizer.step = lambda **_: 0.0
        metrics = algorithm.update(rollout, None)
        found.append(([p.grad for p in algorithm.policy.parameters()], metrics["loss"]))
    for gradients, loss in found[1:]:
        assert loss == pytest.approx(found[0][1], rel=1e-5)
        for a, b in zip(gradients, found[0][0]):
            torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-3)
