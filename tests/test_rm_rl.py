"""Reinforcement learning against learned judges: what they say, who is believed, and what is measured beside."""
import random

import pytest
import torch

import checkpoint
import tasks
from config import InputError
from methods.rm_rl import RMRL, RMRLConfig, judge_scores
from model import GPT, GPTConfig, ScalarModel
from toys import COMMA, EOS, ONE, TWO, Sums, seed, seeded, tiny_gpt, written

TASK = Sums()
PROMPT = TASK.tokenizer.encode(TASK.problem(3).prompt)
RIGHT, WRONG, CUT = [ONE, COMMA, TWO, EOS], [TWO, EOS], [TWO, COMMA]
SMALL = tasks.load("countdown", numbers=2, max_number=12, cot="off", max_target=25)


class Says:
    """A judge whose head is the number of the token: ONE is 5, TWO 6, COMMA 4, EOS 1."""
    def __init__(self, scale=1.0):
        self.scale = scale

    def __call__(self, tokens):
        return self.scale * tokens.float()


def wrote(policy, *completions):
    rollout = written(policy, [PROMPT + completion for completion in completions], len(PROMPT))
    rollout.problems = [TASK.problem(3)] * len(completions)
    return rollout


def make(policy, given=None, task=TASK, **settings):
    defaults = {"group_size": 2, "prompts": 1, "max_new_tokens": 8, "micro_batch": 64, "max_grad_norm": 1e9, "lr": 0.01}
    algorithm = RMRL(policy, task, RMRLConfig(**(defaults | settings)), seeded())
    algorithm.judges = algorithm.judges if given is None else given
    return algorithm


def test_an_outcome_judge_is_asked_at_the_end():
    """The last token of each row, not the padding: EOS is 1, COMMA 4; as a probability, or raw for pairs."""
    rollout = wrote(tiny_gpt(vocab_size=10), RIGHT, CUT)
    assert judge_scores(Says(), "rm", rollout, TASK).tolist() == [1, 4]
    assert judge_scores(Says(), "orm", rollout, TASK).tolist() == pytest.approx(torch.tensor([1.0, 4.0]).sigmoid().tolist())


def test_a_critic_as_a_judge_is_asked_before_the_end():
    """TWO is 6, COMMA 4: EOS, behind which a critic has learned nothing, is not looked at."""
    rollout = wrote(tiny_gpt(vocab_size=10), RIGHT, CUT)
    assert judge_scores(Says(), "ppo", rollout, TASK).tolist() == [6, 4]


def test_a_process_judge_says_what_its_worst_step_says():
    """Steps end with a comma and with the end: 4 and 1 in the first row, with the sign turned -4 and -1."""
    rollout = wrote(tiny_gpt(vocab_size=10), RIGHT, WRONG)
    assert judge_scores(Says(-1.0), "prm", rollout, TASK).tolist() == pytest.approx(torch.tensor([-4.0, -1.0]).sigmoid().tolist())


@pytest.mark.parametrize("ensemble, said", [("mean", 1.5), ("min", 1.0)])
def test_several_judges_are_averaged_or_the_most_critical_one_is_believed(ensemble, said):
    algorithm = make(tiny_gpt(vocab_size=10), [Says(), Says(2.0)], judge_kind="rm", ensemble=ensemble)
    assert algorithm.proxy(wrote(algorithm.policy, RIGHT)).tolist() == [said]


def test_the_policy_follows_the_judge_and_the_truth_is_only_measured():
    """A judge that likes the truncated row. Whatever the rule pays, that row becomes likelier; auc says how wrong the judge is."""
    algorithm = make(tiny_gpt(vocab_size=10, scale=1.0), [Says()], judge_kind="rm")
    rollout = wrote(algorithm.policy, RIGHT, CUT)
    for _ in range(5):
        metrics = algorithm.update(wrote(algorithm.policy, RIGHT, CUT), torch.tensor([1.0, 0.0]))
    after = wrote(algorithm.policy, RIGHT, CUT)
    gain = (after.logprobs - rollout.logprobs).sum(1) / rollout.mask.sum(1)
    assert gain[1] > 0 > gain[0] and metrics["auc"] == 0 and metrics["proxy"] == 2.5 and metrics["updates"] == 1


def test_the_kl_of_completions_is_that_of_tokens_times_their_number():
    algorithm = make(tiny_gpt(vocab_size=10), [Says()], judge_kind="rm")
    algorithm.reference = tiny_gpt(vocab_size=10, seed=4)
    metrics = algorithm.update(wrote(algorithm.policy, RIGHT, CUT), torch.zeros(2))
    assert metrics["kl_completion"] == pytest.approx(3 * metrics["kl"]) and metrics["kl"] != 0


def trained(**settings):
    policy = GPT(GPTConfig(SMALL.tokenizer.n_vocab, 32, n_layer=1, n_head=2, n_embd=32))
    return make(policy, task=SMALL, prompts=2, judge_steps=1, **settings)


def test_judges_are_trained_once_and_their_samples_cost():
    """Each on samples of its own. Another collect makes no others, and costs what it samples."""
    algorithm, problems = trained(judges=2), [SMALL.sample_problem(random.Random(seed()))] * 2
    first = algorithm.collect(problems)
    heads = [judge.head.weight.clone() for judge in algorithm.judges]
    assert first.discarded > 0 and all(head.any() for head in heads) and not torch.equal(*heads)
    algorithm.steps = 1
    assert algorithm.collect(problems).discarded == 0
    assert all(torch.equal(judge.head.weight, head) for judge, head in zip(algorithm.judges, heads))
    algorithm.config.fresh_judge = 1
    assert algorithm.collect(problems).discarded > 0
    assert not any(torch.equal(judge.head.weight, head) for judge, head in zip(algorithm.judges, heads))


def test_a_judge_of_another_run(tmp_path):
    """It is used as it is; one of another task is refused in one line, and so is a run without a judge."""
    algorithm = trained()
    judge = ScalarModel(algorithm.policy)
    judge.head.bias.data += 3
    save = lambda name, task, model, **more: checkpoint.save(tmp_path / name, model, task, {"algo": "orm", "task": task.name}, **more)
    save("judge.pt", SMALL, algorithm.policy, algorithm={"reward_model": judge.state_dict()})
    other = make(algorithm.policy, task=SMALL, judge_run=str(tmp_path / "judge.pt"))
    assert other.kind == "orm" and float(other.judges[0].head.bias) == 3
    assert other.collect([SMALL.sample_problem(random.Random(seed()))]).discarded == 0
    foreign = tasks.load("permutation")
    model = GPT(GPTConfig(foreign.tokenizer.n_vocab, 64, n_layer=1, n_head=2, n_embd=32))
    save("foreign.pt", foreign, model, algorithm={"reward_model": ScalarModel(model).state_dict()})
    save("none.pt", SMALL, algorithm.policy)
    for name, why in (("foreign.pt", "vocabulary"), ("none.pt", "no critic and no reward model"), ("nowhere", "no such checkpoint")):
        with pytest.raises(InputError, match=why) as error:
            make(algorithm.policy, task=SMALL, judge_run=str(tmp_path / name))
        assert "\n" not in str(error.value)
