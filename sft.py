"""The supervised warm start: imitate demonstrations, token by token.

The idea. Reinforcement learning can only reward what the policy already does now and then. So the model
first learns to imitate worked examples, which need not be good ones: it learns the language of the
task, its arithmetic, and to explore.

    loss = - 1/N  sum over completion tokens  log pi(y_t | x, y_<t)          N: completion tokens in the batch

Read beside `grpo.py` this is a policy gradient in which somebody else's tokens all have advantage 1.

The recipe:
  1. draw problems of the training split and a demonstration for each (fresh ones for every step: nothing is stored);
  2. join prompt, demonstration and EOS; the loss covers the demonstration and the EOS, never the prompt;
  3. cut the batch into micro-batches of rows of similar length, so that little padding is computed;
  4. step: Muon on the hidden matrices, AdamW on the rest; constant rate, then linearly down to zero.

What is simplified: no packing of several examples into a row, no dropout, no weight decay.
Source: the cold start of DeepSeek-R1 (arXiv:2501.12948, section 2.3.1); rate schedule: arXiv:2405.18392.
"""
import math
import random
import time
from dataclasses import dataclass

import torch

from config import setting
from model import make_optimizer
from optimize import micro_batches
from sample import completion_mask, score


@dataclass
class SFTConfig:
    """warm start"""
    sft_steps: int = setting(600, "optimizer steps of the warm start", low=1, high=10**7)
    sft_batch: int = setting(64, "demonstrations per step", low=1, high=65536)
    sft_micro_batch: int = setting(32, "demonstrations per forward pass; memory and speed only; on a GPU the whole batch, unless set", low=1, high=65536)
    sft_lr: float = setting(0.012, "AdamW's rate (embedding, norms)", low=0.0, high=1.0)
    sft_muon_lr: float = setting(0.006, "Muon's rate (hidden matrices); 0: AdamW does all", low=0.0, high=1.0)


def demonstrations(task, size, rng, split="train"):
    """Draw `size` demonstrations -> tokens (B, T) int64, padded on the right; mask (B, T) bool: completion and EOS."""
    rows, starts = [], []
    for _ in range(size):
        prompt, completion = map(task.tokenizer.encode, task.example(task.sample_problem(rng, split), rng))
        rows.append(prompt + completion + [task.tokenizer.eos])
        starts.append(len(prompt))
    longest = max(map(len, rows))
    tokens = torch.tensor([row + [task.tokenizer.pad] * (longest - len(row)) for row in rows])
    return tokens, completion_mask(torch.tensor(starts), torch.tensor(list(map(len, rows))), longest)


def sft_step(model, optimizer, tokens, mask, micro_batch, schedule=1.0, max_norm=math.inf):
    """One optimizer step on a batch -> its loss (a float, nats per token) and the norm of its gradient.

    The micro-batch size changes nothing but memory and speed.
    """
    optimizer.zero_grad()
    total, N = 0.0, mask.sum()
    for rows, length in micro_batches(mask, micro_batch):
        logprobs, _ = score(model, tokens[rows, :length])
        loss = -(logprobs * mask[rows, :length]).sum() / N
        loss.backward()
        total += loss.detach()
    norm = optimizer.step(schedule, max_norm)
    return float(total), norm


def schedule(done):
    """The share of the learning rate at a share `done` (0 to 1) of the training: constant, then
    linearly to zero.

    >>> schedule(0.1), schedule(0.8), schedule(1.0)
    (1.0, 0.5, 0.0)
    """
    return round(min(1.0, (1.0 - done) / 0.4), 12)


def warm_start(model, task, config, seed, progress=iter, seconds=None):
    """Train `model` in place on `config.sft_steps` batches of demonstrations -> list of losses, one a step.

    Everything random comes from `seed`, and from nowhere else. `progress` wraps the range of steps
    (tqdm). With `seconds` the clock takes the place of `sft_steps`: the same training, for as long as
    something else took.
    """
    rng, losses, started = random.Random(f"warm start {seed}"), [], time.time()
    optimizer = make_optimizer(model, config.sft_lr, config.sft_muon_lr)
    for step in progress(range(10**9 if seconds else config.sft_steps)):
        done = (time.time() - started) / seconds if seconds else step / config.sft_steps
        if done >= 1:
            break
        tokens, mask = demonstrations(task, config.sft_batch, rng)
        loss, _ = sft_step(model, optimizer, tokens.to(model.device), mask.to(model.device), config.sft_micro_batch, schedule(done))
        losses.append(loss)
    return losses


# Exercises
# 1. Let the loss cover the prompt too (mask = every token but padding). Which test in tests/test_sft.py fails, and what does the
#    warm start now spend its capacity on?
# 2. Train with --expert-share 1. How high does imitation alone get, and what is left for --algo grpo? Compare the share of groups
#    with variance in the first steps.
# 3. Divide each row's loss by its own length before averaging. test_the_loss_is_the_mean_over_imitated_tokens fails: which
#    demonstrations does the model now learn better?
