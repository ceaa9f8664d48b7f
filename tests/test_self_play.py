"""Generator and verifier in self-play: what the generator earns, which token the verifier learns, and what the labels say."""
import random

import pytest
import torch

import tasks
from config import InputError
from methods.self_play import SelfPlay, SelfPlayConfig, written_checks
from sample import score
from toys import Bigram, seed, seeded, tiny_gpt, written

TASK = tasks.load("countdown", dialogue=0.6)
ENCODE, EOS, V = TASK.tokenizer.encode, TASK.tokenizer.eos, TASK.tokenizer.n_vocab
(YES,), (NO,), (END,) = map(ENCODE, ("yes", "no", "</answer>"))
PROBLEM = TASK.problem((3, 5, 7), 22)
RIGHT, WRONG = "<think></think><answer>(5 * 3) + 7</answer>", "<think></think><answer>(5 + 3) + 7</answer>"


def believes(p):
    """A Bigram that says yes with probability p behind an answer; everything else is equally likely."""
    table = torch.zeros(V, V)
    table[END] = -50.0
    table[END, [YES, NO, EOS]] = torch.tensor([p, 1 - p, 1.0]).log()
    return Bigram(table)


def make(policy, task=TASK, **settings):
    defaults = {"prompts": 1, "group_size": 2, "lr": 0.01, "micro_batch": 64, "max_grad_norm": 1e9}
    return SelfPlay(policy, task, SelfPlayConfig(**(defaults | settings)), seeded())


def wrote(policy, *texts):
    """Rows that the policy is said to have written; a text that ends in "..." was cut off."""
    prompt = ENCODE(PROBLEM.prompt)
    rows = [prompt + (ENCODE(text[:-3]) if text.endswith("...") else ENCODE(text) + [EOS]) for text in texts]
    rollout = written(policy, rows, len(prompt))
    rollout.problems = [PROBLEM] * len(rows)
    return rollout


@pytest.mark.parametrize("flag", ["dynamic_sampling", "renew_reference", "length_weight"])
def test_what_would_ask_the_rule_or_cannot_be_is_refused(flag):
    with pytest.raises(InputError, match="--length-weight"):
        make(believes(0.25), **{flag: 1})


@pytest.mark.parametrize("settings", [{"std": False}, {"overlong_filter": True}, {"baseline": "one"}])
def test_the_settings_of_grpo_are_heeded(settings):
    """Of an answer that can be read and one that was cut off."""
    found = []
    for each in ({}, settings):
        method = make(believes(0.25), labels=0, **each)
        method.update(wrote(method.policy, RIGHT, RIGHT + "..."), torch.zeros(2))
        found.append(method.seen["advantages"])
    assert not torch.equal(*found)


def test_the_generator_earns_the_chance_of_a_yes():
    policy = believes(0.25)
    v, prompts, readable = make(policy).verdicts(wrote(policy, RIGHT, WRONG, "<think></think><answer>5", RIGHT + "..."))
    assert v.tolist() == pytest.approx([0.25, 0.25, 0, 0]) and readable.tolist() == [True, True, False, False]
    assert prompts[0] == ENCODE("Check: ") + ENCODE(PROBLEM.prompt) + ENCODE(RIGHT)[2:]


def test_only_the_verdict_is_learned():
    """Trap 2: the mask holds one token a row, and its log-prob is the policy's."""
    policy = tiny_gpt(V, block_size=32)
    checks = written_checks(policy, [[5, 6, END], [7, END]], [YES, NO], 0, 1.0)
    assert checks.mask.tolist() == [[False, False, False, True], [False, False, True, False]]
    assert checks.tokens.tolist() == [[5, 6, END, YES], [7, END, NO, 0]]
    wanted = [float(score(policy, torch.tensor([row]))[0][0, -1].detach()) for row in ([5, 6, END, YES], [7, END, NO])]
    assert checks.logprobs[checks.mask].tolist() == pytest.approx(wanted, abs=1e-5) and checks.logprobs.count_nonzero() == 2


@pytest.mark.parametrize("checker", [1.0, 0.7])
def test_the_labels_are_right_as_often_as_the_teacher_is(checker):
    task = tasks.load("countdown", dialogue=0.6, checker=checker)
    method, rng = make(believes(0.5), task), random.Random(seed())
    prompts = [ENCODE(f"Check: {task.sample_problem(rng).prompt}<answer>1</answer>") for _ in range(2000)]
    right = torch.arange(2000) % 2 == 0
    said = torch.tensor(method.labels(None, right, prompts, range(2000)))
    spread = 5 * (checker * (1 - checker) / 2000) ** 0.5
    assert abs(float((said == right).float().mean()) - checker) <= spread


@pytest.mark.parametrize("text, better, worse", [(RIGHT, YES, NO), (WRONG, NO, YES)])
def test_the_verifier_follows_an_honest_label(text, better, worse):
    """Both answers are the same, so the generator has nothing to learn; plain next-token loss: the label is likelier, the rest less likely."""
    task = tasks.load("countdown", dialogue=0.6, checker=1.0)
    policy = believes(0.5)
    before = policy.table.detach()[END].log_softmax(-1)
    metrics = make(policy, task).update(wrote(policy, text, text), torch.zeros(2))
    after = policy.table.detach()[END].log_softmax(-1)
    assert after[better] > before[better] and after[worse] < before[worse]
    assert metrics["updates"] == 1 and metrics["label_accuracy"] == 1 and metrics["verifier_loss"] == pytest.approx(-float(before[better]), abs=1e-5)


def test_without_labels_the_rule_teaches_nothing():
    """Equal verdicts, no labels: no step; and the rule's rewards are not looked at."""
    policy = believes(0.5)
    metrics = make(policy, labels=0).update(wrote(policy, RIGHT, WRONG), torch.tensor([1.0, 0.0]))
    assert metrics["updates"] == 0 and metrics["judge_accuracy"] == 0.5 and metrics["auc"] == 0.5 and metrics["fooled"] == pytest.approx(0.5)


def test_as_many_are_labelled_as_is_said_and_only_what_can_be_read():
    policy = believes(0.5)
    method, asked = make(policy, labels=2, group_size=4), []
    method.labels = lambda rollout, right, prompts, rows: asked.append(rows) or [True] * len(rows)
    method.update(wrote(policy, RIGHT, "<think></think><answer>5", WRONG, WRONG), torch.zeros(4))
    assert len(asked[0]) == 2 and set(asked[0]) <= {0, 2, 3}


def test_a_task_without_a_dialogue_is_refused():
    with pytest.raises(InputError, match="--dialogue"):
        SelfPlay(tiny_gpt(), tasks.load("countdown"), SelfPlayConfig())
