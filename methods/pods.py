"""PODS: sample many, train on the few that differ most.

The idea. An update costs more than the sampling that it learns from, here one and a half times as much.
And of a group of which seven samples are wrong and one is right, the fourth wrong one teaches little
that the first three did not. So the whole group is sampled and judged, and only m of its G samples are
trained on: those whose rewards vary most.

The equations (arXiv:2504.13818, sections 3 and 4). The m rewards of the largest variance are always the
m - k lowest and the k highest, for some k, so there are m + 1 sets to look at:

    S    = argmax over k of  Var(the m - k lowest and the k highest rewards of a group)
    A_i  = (r_i - mean_S(r)) / std_S(r)   for i in S        0, and no forward pass, for the others

With rewards of 0 and 1 that is half right and half wrong ones, as far as there are any.

The recipe is that of grpo.py, with `max_variance` before step 2. What is simplified: among equal rewards
the first samples are taken; they were drawn independently, so none is special. With --beta or
--entropy-bonus every sample has a gradient, and nothing is saved.
"""
from dataclasses import dataclass

import torch

from config import InputError, setting
from grpo import GRPO, GRPOConfig, group_advantages


@dataclass
class PODSConfig(GRPOConfig):
    """PODS"""
    train_rows: int = setting(4, "m: samples of a group that are trained on, at most --group-size", low=2, high=65536)


def max_variance(rewards, group_size, m):
    """Which m samples of each group have the rewards of the largest variance: (B,) -> (B,) bool.

    >>> max_variance(torch.tensor([0.0, 1.0, 0.0, 0.0, 0.0, 1.0]), 6, 4).int().tolist()
    [1, 1, 1, 0, 0, 1]
    >>> max_variance(torch.tensor([0.0, 0.0, 0.0, 1.0, 0.0, 0.0]), 6, 2).int().tolist()
    [1, 0, 0, 1, 0, 0]
    """
    ranked, order = rewards.view(-1, group_size).sort(dim=1, stable=True)  # (N, G), low to high
    k, place = torch.arange(m + 1, device=rewards.device)[:, None], torch.arange(group_size, device=rewards.device)
    sets = (place < m - k) | (place >= group_size - k)  # (m + 1, G): row k takes the m - k lowest and the k highest
    mean, square = (x @ sets.float().T / m for x in (ranked, ranked ** 2))  # (N, m + 1)
    best = (square - mean ** 2).argmax(1)
    return torch.zeros_like(ranked, dtype=torch.bool).scatter_(1, order, sets[best]).flatten()


class PODS(GRPO):
    """The algorithm as train.py sees it: see method.py."""
    Config = PODSConfig

    def __init__(self, policy, task, config, generator=None, reward=None):
        if config.train_rows > config.group_size:
            raise InputError(f"--train-rows {config.train_rows}: must be at most --group-size {config.group_size}")
        super().__init__(policy, task, config, generator, reward)

    def compare(self, rewards):
        c = self.config
        chosen = max_variance(rewards, c.group_size, c.train_rows).nonzero()[:, 0]
        advantages = group_advantages(rewards[chosen], c.train_rows, c.std, c.baseline, c.per_mean, c.batch_std, c.right_weight)
        # The loss is a mean over all samples; times G / m it is one over those that are trained on.
        return torch.zeros_like(rewards).index_copy_(0, chosen, advantages * (c.group_size / c.train_rows))


# Exercises
# 1. Normalise over the whole group before the choice, as GRPO does, and not within S. What is then the mean advantage of a
#    group with one right sample of eight, and what does that do to the wrong ones?
# 2. Choose m samples at random in place of `max_variance`. How often has a group no variance left? (For p = 1/8, G = 8, m = 4
#    you can work it out; test_of_one_right_sample_the_right_one_stays is about the other case.)
# 3. Sample 16 and train on 4, with a quarter of the prompts. Is it better at equal seconds, or at equal tokens?
