"""experiments/latent.py and coconut.py: continuous thoughts."""
import importlib
import json
import pathlib
import random
import sys

import pytest
import torch

import tasks
from sample import score
from toys import seed, seeded, tiny_gpt

sys.path.append(str(pathlib.Path(__file__).parent.parent / "experiments"))
coconut, latent = importlib.import_module("coconut"), importlib.import_module("latent")
ROWS = [([2, 3, 4], 2, [5, 6, 1]), ([7, 8], 0, [9, 1]), ([3, 4, 5, 6], 1, [7, 8, 9, 1])]  # of all lengths, with 2, 0 and 1 thoughts


@pytest.mark.parametrize("thinks", [True, False])
def test_without_thoughts_it_is_the_plain_model(thinks):
    """The log-probs of what is written are those of score, for rows of different lengths."""
    model = tiny_gpt()
    logprobs, ids, mask, states = latent.run(model, [(q, 0, rest) for q, _, rest in ROWS], thinks)
    for i, (question, _, rest) in enumerate(ROWS):
        expected = score(model, torch.tensor([question + rest]))[0][0, len(question):]
        assert torch.allclose(logprobs[i, :len(rest)].gather(-1, torch.tensor(rest)[:, None])[:, 0], expected, atol=1e-5)
    assert states.shape == (3, 1, 32) and mask.sum(1).tolist() == [3, 2, 4]


def test_a_pause_is_a_token_of_its_own():
    """The plain model with the padding token written where the pauses stand."""
    model = tiny_gpt()
    logprobs, ids, mask, _ = latent.run(model, ROWS, False)
    for i, (question, count, rest) in enumerate(ROWS):
        expected = score(model, torch.tensor([question + [0] * count + rest]))[0][0, len(question) + count:]
        assert torch.allclose(logprobs[i, :len(rest)].gather(-1, torch.tensor(rest)[:, None])[:, 0], expected, atol=1e-5)


def test_a_thought_is_the_last_hidden_state():
    """The same, computed without a memory: the state after the question is read as if it were an embedding, and so on."""
    model = tiny_gpt()
    states = latent.run(model, ROWS, True)[3]
    question, count, _ = ROWS[0]
    x, found = model.embed(torch.tensor([question])), []
    for _ in range(count + 1):
        place = torch.arange(x.shape[1])[None]
        found.append(latent.read(model, x, place, None)[0][:, -1:])
        x = torch.cat((x, found[-1]), 1)
    assert torch.allclose(states[0], torch.cat(found, 1)[0], atol=1e-5)
    assert torch.equal(states[1, 0], states[1, 2]) and torch.equal(states[2, 1], states[2, 2])  # rows that had fewer keep their last state


def test_a_row_does_not_depend_on_its_neighbours():
    model = tiny_gpt()
    together = latent.run(model, ROWS, True)[0]
    for i, one in enumerate(ROWS):
        assert torch.allclose(latent.run(model, [one], True)[0][0], together[i, :len(one[2])], atol=1e-5)


@pytest.mark.parametrize("thinks", [True, False])
def test_the_gradient_of_what_is_written_flows_through_the_thoughts(thinks):
    """The loss of the answer reaches h_0 by way of the second thought; pause tokens have no such way."""
    model = tiny_gpt()
    logprobs, _, _, states = latent.run(model, ROWS[:1], thinks)
    grad, = torch.autograd.grad(states[0, 1].sum(), model.embed.weight, retain_graph=True)
    assert (grad[0].abs().sum() > 0) == (not thinks)  # id 0 is the pause
    loss = -logprobs[0, 0, 5]
    grad, = torch.autograd.grad(loss, states, allow_unused=True, retain_graph=True)
    assert grad is None  # the stack of states is for the probes: the graph below goes on from its parts
    assert all(p.grad is None for p in model.parameters())
    loss.backward()
    assert all(p.grad.abs().sum() > 0 for p in model.parameters())


def test_the_gradient_is_that_of_a_small_change():
    """Of the log-prob of an answer after two thoughts, in one direction of the weights of the first layer."""
    model, direction = tiny_gpt(scale=4.0), torch.randn(32, 32, generator=seeded())
    weight, value = model.blocks[0].v.weight, lambda: latent.run(model, ROWS[:1], True)[0][0, 1, 6]
    grad, = torch.autograd.grad(value(), weight)
    with torch.no_grad():
        weight += 1e-3 * direction
        up = float(value())
        weight -= 2e-3 * direction
        down = float(value())
    assert (up - down) / 2e-3 == pytest.approx(float((grad * direction).sum()), rel=0.05, abs=0.02)


def test_the_loss_covers_what_is_written_and_nothing_else():
    """Rests of 3, 2 and 4 tokens: the mask has them, and neither questions, nor thoughts, nor padding."""
    _, ids, mask, _ = latent.run(tiny_gpt(), ROWS, True)
    assert [ids[i][mask[i]].tolist() for i in range(3)] == [rest for *_, rest in ROWS]


@pytest.mark.parametrize("name", coconut.SIZES)
def test_a_stage_replaces_the_first_steps(name):
    task = tasks.load(name, cot="on", **coconut.SIZES[name])
    problem = task.sample_problem(random.Random(seed()))
    n, whole = len(coconut.values(task, problem)), task.tokenizer.encode(f"<think>{task.chain(problem)}</think><answer>{problem.answer}</answer>")
    for stage in range(6):
        question, count, rest = latent.row(task, problem, stage)
        assert count == min(stage, n) and rest[-1] == task.tokenizer.eos
        assert task.tokenizer.decode(question) == problem.prompt + "<think>"
        assert whole[len(whole) - len(rest) + 1:] == rest[:-1]  # the end of the chain
    assert latent.row(task, problem, 6)[2][:-1] == task.tokenizer.encode(f"</think><answer>{problem.answer}</answer>")
    assert latent.row(task, problem, 6, slots=False)[1] == 0


def test_the_values_of_the_steps():
    squaring, circuit = (tasks.load(name, cot="on", **coconut.SIZES[name]) for name in ("iterated_squaring", "circuit"))
    assert coconut.values(squaring, squaring.problem(5, 3)) == [25, 625 % 347, (625 % 347) ** 2 % 347]
    assert coconut.values(circuit, circuit.problem((0, 1, 1), [("or", 1, 2), ("not", 3), ("and", 1, 4), ("not", 5)])) == [1, 0, 0, 1]


def test_a_chain_is_told_when_to_stop():
    """A model that would write </think> at once is kept from it for as many tokens as the true chain has; then its answer counts."""
    from toys import Bigram
    task = tasks.load("iterated_squaring", cot="on", **coconut.SIZES["iterated_squaring"])
    one = lambda word: task.tokenizer.encode(word)[0]
    table = torch.zeros(task.tokenizer.n_vocab, task.tokenizer.n_vocab)
    for before, after, logit in (("<think>", "</think>", 9.0), ("<think>", "25", 5.0), ("25", ", ", 9.0), (", ", "</think>", 9.0),
                                 (", ", "278", 5.0), ("278", ", ", 9.0), ("<answer>", "278", 9.0)):
        table[one(before), one(after)] = logit
    assert 25 * 25 % 347 == 278 and coconut.told(Bigram(table), task, task.problem(5, 2))
    assert not coconut.told(Bigram(table), task, task.problem(5, 3))  # its last step is another number


def test_a_probe_finds_what_is_linear_and_nothing_in_noise():
    states, labels = torch.randn(300, 6, generator=seeded()), torch.arange(300) % 3
    assert latent.probe(states[:200], labels[:200], states[200:], labels[200:], 40) < 0.5
    states[:, :3] += 5 * torch.nn.functional.one_hot(labels, 3)
    assert latent.probe(states[:200], labels[:200], states[200:], labels[200:], 40) > 0.95


def test_coconut_from_end_to_end(tmp_path):
    """Two steps of everything: every row of a table has as many columns as its head."""
    plan, kept = coconut.FULL | {"seeds": (0,), "kinds": ("chain", "none", "pause", "thoughts"), "steps": 2, "batch": 4, "problems": 20, "probe": 2}, {}

    def get(cells):
        return {words: kept.setdefault(words, json.loads(json.dumps(coconut.cell(tmp_path, plan, *map(str, words))))) for words in cells}

    text, panels = coconut.report(tmp_path, plan, get)
    tables = [part.splitlines() for part in text.split("\n\n")[:2]]
    assert len(tables) == 2 and all(len({line.count("|") for line in table}) == 1 for table in tables)
    assert len(panels) >= 2 and all(len(xs) == len(ys) for panel in panels for xs, ys, *_ in panel["curves"].values())
