"""The warm start: the loss covers what is to be imitated, the EOS included, and nothing else."""
import random
import re
from types import SimpleNamespace

import pytest
import torch

import sft
import tasks
from sample import generate
from optimize import micro_batches
from sft import SFTConfig, demonstrations, schedule, sft_step, warm_start
from tasks import split_of
from toys import Bigram, seed, seeded, tiny_gpt

TASK = tasks.load("countdown", numbers=2, cot="off")
NO_STEP = SimpleNamespace(zero_grad=lambda: None, step=lambda *_: 0.0)  # leaves the gradients to look at


class Fixed(torch.nn.Module):
    """A policy that is nothing but its logits: their gradient shows which of them the loss touches."""

    def __init__(self, B, T, V):
        super().__init__()
        self.logits = torch.nn.Parameter(torch.randn(B, T, V, generator=seeded()))

    def forward(self, tokens):
        return self.logits[:, :tokens.shape[1]]


# ---- the batch

def test_the_mask_covers_the_demonstration_and_its_eos():
    """Traps 2 and 3: never the prompt, never the padding, and always the EOS: otherwise stopping is not learned."""
    task = tasks.load("countdown")
    tokens, mask = demonstrations(task, 40, random.Random(seed()))
    for row, chosen in zip(tokens, mask):
        start, length = int(chosen.int().argmax()), int(chosen.sum())
        assert chosen.tolist() == [start <= t < start + length for t in range(len(row))]
        prompt, completion = row[:start].tolist(), row[chosen].tolist()
        assert task.tokenizer.decode(prompt).endswith(".\n") and completion[-1] == task.tokenizer.eos
        text = task.tokenizer.decode(completion[:-1])
        assert text.startswith("<think>") and text.endswith("</answer>")
        assert (row[start + length:] == task.tokenizer.pad).all()
    assert len(set(mask.sum(1).tolist())) > 1  # rows of several lengths


def test_demonstrations_come_from_the_train_split():
    """Trap 21."""
    tokens, mask = demonstrations(TASK, 200, random.Random(seed()))
    for row, chosen in zip(tokens, mask):
        *numbers, target = map(int, re.findall(r"\d+", TASK.tokenizer.decode(row[:int(chosen.int().argmax())].tolist())))
        assert split_of(("countdown", *sorted(numbers), target)) == "train"


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_micro_batches_hold_every_row_once_and_all_of_it(size):
    lengths = torch.tensor([3, 9, 1, 9, 5, 2, 7])
    mask = (torch.arange(9) < lengths[:, None]) & (torch.arange(9) >= (lengths - 2)[:, None])
    parts = micro_batches(mask, size)
    assert sorted(i for rows, _ in parts for i in rows.tolist()) == list(range(7))
    assert all(len(rows) <= size and length == lengths[rows].max() for rows, length in parts)


# ---- the loss

def test_the_gradient_is_zero_where_nothing_is_imitated():
    """Trap 2: logits [b, t-1] are about tokens[b, t]; outside of the mask their gradient is exactly 0, inside it is not."""
    tokens = torch.tensor([[5, 6, 2, 3, 1], [5, 2, 1, 0, 0]])
    mask = torch.tensor([[0, 0, 1, 1, 1], [0, 1, 1, 0, 0]]).bool()
    policy = Fixed(2, 4, 8)
    sft_step(policy, NO_STEP, tokens, mask, micro_batch=2)
    assert torch.equal(policy.logits.grad.abs().sum(-1) > 0, mask[:, 1:])


def test_the_loss_is_the_mean_over_imitated_tokens():
    """3 + 1 tokens, each with 1/4 of the weight: not the mean of the two rows' means."""
    table = torch.tensor([[0.2, 0.8], [0.5, 0.5]]).log()
    tokens, mask = torch.tensor([[0, 1, 0, 1], [0, 0, 0, 0]]), torch.tensor([[0, 1, 1, 1], [0, 1, 0, 0]]).bool()
    loss, _ = sft_step(Bigram(table), NO_STEP, tokens, mask, micro_batch=2)
    assert loss == pytest.approx(-float(torch.tensor([0.8, 0.5, 0.8, 0.2]).log().mean()))


def test_the_micro_batch_size_changes_neither_loss_nor_gradient():
    """Trap 11. A loss normalised within each micro-batch would change both: the rows differ in length."""
    tokens = torch.randint(2, 12, (5, 12), generator=seeded())
    mask = (torch.arange(12) >= 2) & (torch.arange(12) < torch.tensor([4, 12, 7, 5, 9])[:, None])
    seen = []
    for size in (1, 2, 5):
        model = tiny_gpt()
        loss, _ = sft_step(model, NO_STEP, tokens, mask, size)
        seen.append((loss, [p.grad for p in model.parameters()]))
    for loss, gradients in seen[1:]:
        assert loss == pytest.approx(seen[0][0], rel=1e-5)
        for a, b in zip(gradients, seen[0][1]):
            torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-4)


# ---- training

CONFIG = SFTConfig(sft_steps=30, sft_batch=16, sft_micro_batch=8, sft_lr=0.5, sft_muon_lr=0.0)


def fresh():
    return Bigram(torch.zeros(TASK.tokenizer.n_vocab, TASK.tokenizer.n_vocab))


def test_imitation_learns_to_stop():
    """Trap 3: every demonstration ends in </answer> and EOS. With EOS out of the loss this would stay at 1 / V."""
    policy = fresh()
    losses = warm_start(policy, TASK, CONFIG, seed())
    last = TASK.tokenizer.encode("</answer>")[0]
    assert policy.table[last].softmax(-1)[TASK.tokenizer.eos] > 0.9
    assert generate(policy, [[last]], 1, 0.0, eos=TASK.tokenizer.eos).finished.all()
    assert len(losses) == 30 and losses[-1] < losses[0] / 2


def test_the_seed_decides_the_warm_start_and_nothing_else_does():
    """Trap 25: not the global random states either, so that a cached warm start can take the place of a fresh one."""
    def train(n, world):
        random.seed(seed(world)), torch.manual_seed(seed(world))
        model = fresh()
        warm_start(model, TASK, CONFIG, seed(n))
        return model.table.detach()
    assert torch.equal(train(0, world=1), train(0, world=2)) and not torch.equal(train(0, world=1), train(1, world=1))


def test_muon_and_adamw_warm_a_gpt_up():
    model = tiny_gpt(TASK.tokenizer.n_vocab, 32, scale=1.0)
    losses = warm_start(model, TASK, SFTConfig(sft_steps=20, sft_batch=16, sft_micro_batch=16, sft_muon_lr=0.02), seed())
    assert losses[-1] < 0.8 * losses[0]


def test_the_rate_is_constant_and_then_falls_to_zero():
    rates = [schedule(step / 100) for step in range(101)]
    assert rates[:61] == [1.0] * 61 and rates == sorted(rates, reverse=True) and rates[-1] == 0


def test_the_clock_can_take_the_place_of_the_number_of_steps():
    """For the rival of RL: imitation for as many seconds more (trap 30)."""
    assert len(warm_start(fresh(), TASK, CONFIG, seed(), seconds=0.3)) > 0


def test_the_steps_of_a_warm_start_follow_the_schedule(monkeypatch):
    """Of ten steps the first seven are at the full rate, the last one at a quarter of it."""
    rates = []
    monkeypatch.setattr(sft, "sft_step", lambda model, optimizer, tokens, mask, size, rate: rates.append(rate) or (0.0, 0.0))
    warm_start(fresh(), TASK, SFTConfig(sft_steps=10, sft_batch=1, sft_muon_lr=0.0), seed())
    assert rates == [1.0] * 7 + [0.75, 0.5, 0.25]
