"""Toy models for the tests: one whose numbers can be worked out in the head, and a GPT that is small but not simple; rollouts."""
from types import SimpleNamespace

import torch
import torch.nn as nn

from model import GPT, GPTConfig
from sample import Rollout, score

EOS = 1


class Bigram(nn.Module):
    """The logits of the next token are table[this token]. It can be sampled from, scored and trained like a GPT."""
    compute_dtype, device = torch.float32, torch.device("cpu")
    config = SimpleNamespace(n_layer=0, n_head=1, n_embd=2, block_size=64)  # no layers: there is nothing to cache

    def __init__(self, table):
        super().__init__()
        self.table = nn.Parameter(torch.as_tensor(table))  # (V, V)

    def forward(self, tokens):
        return self.table[tokens]

    def prefill(self, tokens, lengths, cache):
        return self.table[tokens[torch.arange(len(tokens)), lengths - 1]]

    def decode(self, tokens, positions, cache, bound):
        return self.table[tokens]


def chain(vocab_size, *ids):
    """A Bigram that is certain: ids[0] is followed by ids[1], that by ids[2], and so on."""
    table = torch.zeros(vocab_size, vocab_size)
    table[list(ids[:-1]), list(ids[1:])] = 200.0
    return Bigram(table)


def tiny_gpt(vocab_size=12, block_size=24, seed=0, scale=8.0, n_head=2):
    """2 layers, width 32. As initialised, attention is nearly uniform and a wrong key hardly shows; `scale` makes it matter."""
    torch.manual_seed(seed)
    model = GPT(GPTConfig(vocab_size, block_size, n_layer=2, n_head=n_head, n_embd=32))
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim == 2:
                p *= scale
    return model


def written(model, rows, prompt_length=1):
    """A rollout of the given rows of tokens, of any lengths, scored by the model that is said to have written them."""
    T, lengths = max(map(len, rows)), torch.tensor([len(row) for row in rows])
    tokens, place = torch.tensor([row + [0] * (T - len(row)) for row in rows]), torch.arange(T)
    mask = (place >= prompt_length) & (place < lengths[:, None])
    logprobs = score(model, tokens)[0].detach() * mask
    return Rollout(tokens, torch.full_like(lengths, prompt_length), lengths, mask, logprobs, torch.tensor([EOS in r for r in rows]))
