"""Toy models for the tests: one whose numbers can be worked out in the head, and a GPT that is small but not simple; rollouts."""
import os
from types import SimpleNamespace

import torch
import torch.nn as nn

from model import GPT, GPTConfig
from sample import Rollout, score
from tasks import Problem, Task
from tasks.tokenizer import Tokenizer

EOS = 1
SEEDS = int(os.environ.get("THINKSMALL_SEEDS", "0"))


def seed(n=0):
    """What a test seeds with where it would say n. THINKSMALL_SEEDS=1 moves every seed of every test: none may need a lucky one."""
    return n + SEEDS


def seeded(n=0, device="cpu"):
    return torch.Generator(device).manual_seed(seed(n))


class Bigram(nn.Module):
    """The logits of the next token are table[this token]. It can be sampled from, scored and trained like a GPT."""
    compute_dtype, device = torch.float32, torch.device("cpu")
    config = SimpleNamespace(n_layer=0, n_head=1, n_kv_head=0, n_embd=2, block_size=64)  # no layers: there is nothing to cache

    def __init__(self, table):
        super().__init__()
        self.table = nn.Parameter(torch.as_tensor(table))  # (V, V)

    def forward(self, tokens):
        return self.table[tokens]

    def prefill(self, tokens, lengths, cache):
        return self.table[tokens[torch.arange(len(tokens)), lengths - 1]]

    def decode(self, tokens, positions, cache, kv_length):
        return self.table[tokens]


def chain(vocab_size, *ids):
    """A Bigram that is certain: ids[0] is followed by ids[1], that by ids[2], and so on."""
    table = torch.zeros(vocab_size, vocab_size)
    table[list(ids[:-1]), list(ids[1:])] = 200.0
    return Bigram(table)


def tiny_gpt(vocab_size=12, block_size=24, seed=0, scale=8.0, n_head=2, n_kv_head=0):
    """2 layers, width 32. As initialised, attention is nearly uniform and a wrong key hardly shows; `scale` makes it matter."""
    torch.manual_seed(seed + SEEDS)
    model = GPT(GPTConfig(vocab_size, block_size, n_layer=2, n_head=n_head, n_embd=32, n_kv_head=n_kv_head))
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim == 2:
                p *= scale
    return model


def written(model, rows, prompt_length=1):
    """A rollout of the given rows of tokens, of any lengths, scored by the model that is said to have written them. prompt_length:
    one for all rows, or a list."""
    T, lengths = max(map(len, rows)), torch.tensor([len(row) for row in rows])
    tokens, place = torch.tensor([row + [0] * (T - len(row)) for row in rows]), torch.arange(T)
    starts = torch.zeros_like(lengths) + torch.tensor(prompt_length)
    mask = (place >= starts[:, None]) & (place < lengths[:, None])
    logprobs = score(model, tokens)[0].detach() * mask
    return Rollout(tokens, starts, lengths, mask, logprobs, torch.tensor([EOS in r for r in rows]))


def eight(model, limit=12):
    """Four completions of 2, 3 and four of 4, all different, of mixed lengths; the limit cuts the long ones off. Where a test is
    about what an update makes of a rollout: what is sampled by a random model may be eight times the same."""
    completions = [[5, 2, EOS], [4, 4, 2, 5, 3, EOS], [EOS], [2, 3, 5, 5, 2, 4, 3, 2, 0, 3, 5, 4],
                   [3, EOS], [5, 5, 0, 2, EOS], [2, 4, 3, 0, 5, 2, 3, 4, 4, EOS], [0, 3, 3, EOS]]
    rows = [([2, 3] if i < 4 else [4]) + completion[:limit] for i, completion in enumerate(completions)]
    return written(model, rows, [2] * 4 + [1] * 4)


def firsts(problems):
    """-> (B,) bool: which samples are the first of several to one problem."""
    same = [one is other for one, other in zip(problems, problems[1:])]  # each as the next one
    return torch.tensor([after and not before for before, after in zip([False, *same], [*same, False])])


def uneven(rule_rewards):
    """The same rule, but the first of several samples to a problem is paid a quarter more. What the rule pays comes in halves: so no group
    agrees, whatever was sampled, and every step has something to learn."""
    def paid(task, problems, *more):
        rewards, accuracy = rule_rewards(task, problems, *more)
        return rewards + 0.25 * firsts(problems), accuracy
    return paid


class Sums(Task):
    """Write ones and twos, a step each, that add up to the answer: "1, 2" is right for 3. `coins` succeeds with a known chance."""
    name, step_token, min_new_tokens, max_new_tokens, checkable = "sums", ", ", 4, 8, True
    tokenizer = Tokenizer("sums", ["Go", "</think>", ", ", "1", "2", "3", "4", "12"])

    def problem(self, answer):
        return Problem(f"{answer}Go", answer, ("sums", answer))

    def verify(self, problem, completion):
        return self.canonical_answer(completion) == problem.answer

    def canonical_answer(self, completion):
        numbers = completion.split("</think>")[-1].split(", ")
        return sum(map(int, numbers)) if all(map(str.isdigit, numbers)) else None


GO, THINK_END, COMMA, ONE, TWO, THREE, FOUR, TWELVE = range(2, 10)  # the ids of Sums


def writes(**following):
    """A Bigram over the tokens of Sums: writes(GO={ONE: 0.5, TWO: 0.5}) has probability 1/2 for "1" and for "2" after "Go".
    After a token that is not named comes EOS."""
    table = torch.full((10, 10), -1000.0)
    for token, name in enumerate("pad EOS GO THINK_END COMMA ONE TWO THREE FOUR TWELVE".split()):
        for after, p in following.get(name, {EOS: 1.0}).items():
            table[token, after] = torch.tensor(p).log()
    return Bigram(table)


def coins():
    """Tosses one coin for "1" or "2", another one for ", " or the end. With r still to come the chance to end right is
    V(1) = 1/4 (the 1, the end); V(2) = 1/4 + V(1)/4 = 5/16 (2, end; or 1, comma, V(1)); V(3) = V(2)/4 + V(1)/4 = 9/64."""
    toss = {ONE: 0.5, TWO: 0.5}
    return writes(GO=toss, COMMA=toss, ONE={COMMA: 0.5, EOS: 0.5}, TWO={COMMA: 0.5, EOS: 0.5})
