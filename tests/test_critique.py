"""Critique and revision: what is imitated, what is not, who is asked, and that the rule only looks on."""
import importlib
import pathlib
import random

import pytest
import torch

import tasks
from config import InputError
from methods import critique
from methods.critique import VERDICTS, Critique, CritiqueConfig, revised, violates
from sample import score
from toys import Bigram, seed, seeded, tiny_gpt, written

TASK = tasks.load("countdown", dialogue=0.6, numbers=2, attempts=1)
encode, decode, EOS = TASK.tokenizer.encode, TASK.tokenizer.decode, TASK.tokenizer.eos
PROBLEM = TASK.problem((5, 3), 8)
BLANK = Bigram(torch.zeros(TASK.tokenizer.n_vocab, TASK.tokenizer.n_vocab))


def wrote(*completions, prompt=PROBLEM.prompt):
    rollout = written(BLANK, [encode(prompt) + encode(text) + [EOS] for text in completions], len(encode(prompt)))
    rollout.problems = [PROBLEM] * len(completions)
    return rollout


ANSWERS = wrote("<think>5 + 3 = 8, found\n</think><answer>5 + 5</answer>", "<think></think><answer>5 - 3</answer>", "<think></think>")
CRITIQUES = wrote("twice 5, <answer>3 + 5</answer>", "fine, <answer>5 * 5</answer>", "fine, <answer>5 + 3</answer>", prompt="Critique: ")


def make(**settings):
    policy = tiny_gpt(TASK.tokenizer.n_vocab, block_size=TASK.max_prompt_tokens + TASK.max_new_tokens)
    defaults = {"group_size": 2, "prompts": 2, "max_new_tokens": 6, "lr": 0.01, "mini_batches": 1}
    return Critique(policy, TASK, CritiqueConfig(**(defaults | settings)), seeded())


def test_a_completion_gets_the_answer_of_its_critique_and_keeps_its_thinking():
    tokens, mask = revised(ANSWERS, CRITIQUES, TASK)
    texts = [decode(row[chosen].tolist()) for row, chosen in zip(tokens, mask)]
    end = decode([EOS])
    assert texts[0] == "<think>5 + 3 = 8, found\n</think><answer>3 + 5</answer>" + end
    assert texts[1] == "<think></think><answer>5 - 3</answer>" + end  # "fine": it stays, whatever else the critique says
    assert texts[2] == ""  # no answer, nothing to imitate
    assert decode(tokens[0][:len(encode(PROBLEM.prompt))].tolist()) == PROBLEM.prompt


def test_what_breaks_the_principle():
    rollout = wrote("<answer>5 + 3</answer>", "<answer>5 - 3</answer>", "<answer>8</answer>", "<answer>5 + 5</answer>", "<think>")
    assert violates(TASK, rollout).tolist() == [False, False, True, True, True]


def dealt(method, monkeypatch, critiques=CRITIQUES, answers=ANSWERS):
    monkeypatch.setattr(critique, "criticise", lambda *_: critiques)
    return method.imitate(answers, violates(TASK, answers))


@pytest.mark.parametrize("imitate", ["revised", "own"])
def test_the_loss_is_the_mean_over_the_tokens_that_are_imitated(imitate, monkeypatch):
    """By hand: -log pi of the revised completions, or of the own ones; the third row has none either way."""
    method = make(imitate=imitate)
    tokens, mask = revised(ANSWERS, CRITIQUES, TASK) if imitate == "revised" else (ANSWERS.tokens, ANSWERS.mask)
    with torch.no_grad():
        wanted = -float(score(method.policy, tokens[:2])[0][mask[:2]].mean())
    found = dealt(method, monkeypatch)
    assert found["loss"] == pytest.approx(wanted, rel=1e-4) and found["imitated"] == 2 and found["updates"] == 1


def test_the_rule_looks_over_the_critics_shoulder(monkeypatch):
    """Three answers: the first is faulty and is called so, by its name; the second is fine; the third is missing, and called fine."""
    found = dealt(make(), monkeypatch)
    assert found["judge_accuracy"] == pytest.approx(2 / 3) and found["caught"] == found["named"] == 0.5
    assert found["revised_violations"] == 0


def test_a_preference_is_the_verdict_and_not_the_rule(monkeypatch):
    """The judge likes the faulty answer of each pair. Its log-prob rises against that of the other one."""
    rollout = wrote("<answer>5 + 5</answer>", "<answer>5 + 3</answer>")
    method = make(revision_steps=0, nll=0.0, beta=1.0)
    monkeypatch.setattr(critique, "ask", lambda *_: torch.tensor([[0.9, 0.1, 0, 0], [0.2, 0.8, 0, 0]]))
    gap = lambda: float((lambda x: x[0] - x[1])((score(method.policy, rollout.tokens)[0] * rollout.mask).sum(1).detach()))
    before, metrics = gap(), method.update(rollout, torch.tensor([0.0, 1.0]))
    assert gap() > before and metrics["pairs"] == 1 and metrics["judge_accuracy"] == 0 and metrics["auc"] == 0


def test_verdicts_that_agree_teach_nothing(monkeypatch):
    method = make(revision_steps=0)
    monkeypatch.setattr(critique, "ask", lambda *_: torch.tensor([[0.9, 0.1, 0, 0]] * 2))
    assert method.update(wrote("<answer>5 + 5</answer>", "<answer>5 + 3</answer>"), torch.zeros(2))["updates"] == 0


def test_verdicts_are_single_tokens_and_one_of_them_begins_every_critique():
    assert all(len(encode(word)) == 1 for word in VERDICTS)
    rng = random.Random(seed())
    for _ in range(50):
        _, text = tasks.dialogue.critique(TASK, TASK.sample_problem(rng), rng)
        assert any(text.startswith(word) for word in VERDICTS)


def test_the_critic_stays_as_it_was_and_the_reference_is_the_policy_after_the_first_phase():
    method, rng = make(revision_steps=1), random.Random(seed())
    start = method.judge.embed.weight.clone()
    with torch.no_grad():
        method.policy.embed.weight.add_(1.0)
    method.steps = 1
    left = method.policy.embed.weight.detach().clone()
    rollout = method.collect([TASK.sample_problem(rng) for _ in range(2)])
    method.update(rollout, torch.zeros(4))
    assert torch.equal(method.judge.embed.weight, start) and torch.equal(method.reference.embed.weight, left)


def test_sampled_critiques_are_counted():
    method, rng = make(), random.Random(seed())
    rollout = method.collect([TASK.sample_problem(rng) for _ in range(2)])
    assert method.update(rollout, torch.zeros(4))["phase"] == 1 and rollout.discarded >= 4


def test_a_task_without_a_dialogue_is_refused():
    with pytest.raises(InputError, match="--dialogue"):
        Critique(tiny_gpt(), tasks.load("countdown"), CritiqueConfig())


def test_the_table_of_the_experiment(monkeypatch):
    """A policy without a violation has no faulty answer to be caught: a dash, and the other columns stand where they should."""
    monkeypatch.syspath_prepend(str(pathlib.Path(__file__).parent.parent / "experiments"))
    module = importlib.import_module("constitution")
    result = {"violations": 0.0, "right": 0.5, "pleases": 0.25, "length": 12.0, "problems": 3, "log": [[10, 0.5, 0.5], [20, 0.0, 0.5]],
              "critic accuracy": 0.75, "critic caught": None, "critic cleared": 0.75, "self accuracy": 0.5, "self caught": None, "self cleared": 0.5}
    text, panels = module.report(None, module.FULL | {"seeds": (0,)}, lambda cells: {cell: result for cell in cells})
    assert "| own revisions | 0.00 | 0.50 | 0.25 | 12.0 | 0.75 | – | 0.75 | 0.50 |" in text.splitlines()
    assert [len(panel["curves"]) for panel in panels] == [4, 4]
