"""J-BOND: make the policy sample at once what the best of two samples would be, again and again.

The idea. Best-of-N needs N samples for an answer. Its distribution is known in closed form, so it can
be aimed at: a policy that writes like the best of N in one go. And the best of two of the best of two
is the best of four: aim at the best of two of an anchor, and let the anchor follow.

The equations (BOND, arXiv:2407.14622, theorem 1; p_<, p_<=: the chance that a sample of pi_ref scores
below y, or not above it):

    log pi_N(y) = log pi_ref(y) + (N - 1) log p_<=(y) + log sum_i=1..N (p_<(y) / p_<=(y))^(i-1)

Toward pi_2 of the anchor, from both sides (Jeffreys), y_1 and y_2 being samples of the anchor:

    forward    grad KL(pi_2 || pi)  = - E[ grad log pi(better of y_1, y_2) ]
    backward   grad KL(pi || pi_2)  = - E[ grad log pi(y) R(y) ],    R = log p_<=(y) - (log pi(y) - log pi_anchor(y))
    J          = (1 - beta) log pi(better) + beta R(y) log pi(y)
    anchor    <- (1 - eta) anchor + eta pi

p_<= is not known, and two samples tell little about it; so log p_<=(y) becomes - log 16 if y is worse
than both of y_1 and y_2, else 0. In the mean that is - log 16 (1 - p_<=)^2, which is right at the
median and never far off above it.

The recipe:
  1. sample completions of the policy (`collect`), and two of the anchor for each problem; reward all;
  2. the better of the two has advantage 1 - beta, the policy's own beta (R - mean of the others);
  3. one clipped loss for both (grpo.py), each kind as a mean over its completions; the anchor follows.

What is simplified: with right and wrong as the only rewards most samples tie, and those that tie with one of
the two count as not worse. The sum in log pi_N (it is for ties) is left out of R, as in the paper. The
tokens of the anchor are counted as `discarded`, although the better half of them is trained on.
"""
import copy
import math
from dataclasses import dataclass

import torch

from config import setting
from grpo import actor, group_advantages, token_weights
from method import Method
from model import make_optimizer
from optimize import Learner, optimize
from sample import SamplingConfig, collect, join, score


@dataclass
class BONDConfig(SamplingConfig):
    """J-BOND"""
    group_size: int = setting(4, "samples of the policy per problem; the anchor makes two more", low=1, high=65536)
    jeffreys: float = setting(0.5, "beta: how much the backward KL counts, the forward one 1 - this", low=0.0, high=1.0)
    anchor_kl: float = setting(1.0, "weight of the KL to the anchor in R; 1 is what the backward KL asks for", low=0.0, high=100.0)
    anchor_rate: float = setting(0.02, "eta: how fast the anchor follows the policy", low=0.0, high=1.0)
    lr: float = setting(3e-4, "AdamW's rate", low=0.0, high=1.0)
    clip_low: float = setting(0.2, "the ratio is clipped below 1 - this", low=0.0, high=1.0)
    clip_high: float = setting(0.2, "the ratio is clipped above 1 + this", low=0.0, high=1e6)
    epochs: int = setting(1, "passes over each batch", low=1, high=1000)
    mini_batches: int = setting(2, "optimizer steps per pass", low=1, high=65536)
    micro_batch: int = setting(32, "rows per forward pass; memory and speed only; on a GPU the whole batch, unless set", low=1, high=65536)
    max_grad_norm: float = setting(1.0, "gradients are scaled down to this norm", low=0.0, high=1e9)


def best_of_n_logprobs(logprobs, scores, n):
    """log pi_N of the equations above, where all outcomes can be listed: logprobs (M,), scores (M,) -> (M,).

    >>> best_of_n_logprobs(torch.tensor([0.5, 0.25, 0.25]).log(), torch.tensor([0.0, 1.0, 1.0]), 2).exp().tolist()
    [0.25, 0.375, 0.375]
    """
    p = logprobs.exp()
    below, upto = ((p * test.float()).sum(1) for test in (scores < scores[:, None], scores <= scores[:, None]))
    ties = sum((below / upto) ** i for i in range(n))
    return logprobs + (n - 1) * upto.log() + ties.log()


def quantile_reward(rewards, anchors):
    """What stands for log p_<=: rewards (P, G) of the policy, anchors (P, 2) -> (P, G).

    >>> quantile_reward(torch.tensor([[0.0, 1.0]]), torch.tensor([[1.0, 1.0]])).exp().tolist()
    [[0.0625, 1.0]]
    """
    return -math.log(16) * (rewards < anchors.amin(1, keepdim=True)).float()


class BOND(Method):
    """The algorithm as train.py sees it: see method.py."""
    Config, saved = BONDConfig, ("optimizer", "anchor")

    def __init__(self, policy, task, config, generator=None, reward=None):
        super().__init__(policy, task, config, generator, reward)
        self.anchor = copy.deepcopy(policy).requires_grad_(False)
        self.optimizer = make_optimizer(policy, config.lr)

    @torch.no_grad()
    def logprobs(self, model, rollout, batch=256):
        """log-probs of a rollout's tokens under a model, (B, T), 0 outside of the mask."""
        found = [score(model, tokens, self.config.temperature)[0] for tokens in rollout.tokens.split(batch)]
        return torch.cat(found).masked_fill(~rollout.mask, 0.0)

    def batch(self, rollout, rewards):
        """Samples of the policy -> these and the better ones of the anchor in one rollout, advantages (B,), metrics."""
        c, device = self.config, self.policy.device
        two = SamplingConfig(group_size=2, temperature=c.temperature, max_new_tokens=c.max_new_tokens)
        pairs = collect(self.anchor, self.task, rollout.problems[::c.group_size], two, self.generator)
        rollout.discarded += pairs.sampled_tokens
        theirs = self.reward(pairs).to(device).view(-1, 2)
        # Of two that tie the first is taken, which is chance.
        best = pairs.select(2 * torch.arange(len(theirs), device=device) + theirs.argmax(1))
        best.logprobs = self.logprobs(self.policy, best)  # the ratio of the loss begins at 1 for them too

        kl = (rollout.logprobs - self.logprobs(self.anchor, rollout)).sum(1)  # (B,)
        rank = quantile_reward(rewards.to(device).view(-1, c.group_size), theirs).flatten()
        R = rank - c.anchor_kl * kl
        backward = group_advantages(R, len(R), std=False, baseline="leave_one_out") if len(R) > 1 else R
        own, other = len(R), len(best.tokens)  # a mean over each kind, where the loss takes one over both
        advantages = torch.cat((backward * c.jeffreys * (own + other) / own,
                                torch.full((other,), (1 - c.jeffreys) * (own + other) / other, device=device)))
        worse = float((rank < 0).float().mean())
        return join([rollout, best]), advantages, {"anchor_kl": float(kl.mean()), "worse_than_both": worse}

    def update(self, rollout, rewards):
        """rewards (B,) float32 -> metrics, a dict of floats (see docs/glossary.md)."""
        c, (both, advantages, metrics) = self.config, self.batch(rollout, rewards)
        self.seen["advantages"] = advantages[:len(rewards)]
        rows = (advantages != 0).nonzero()[:, 0]
        steps, weights = min(c.mini_batches, len(rows)), token_weights(both.mask, "constant", self.max_new_tokens)
        loss, before = actor(self.policy, both, advantages, c, aggregate="constant")
        metrics |= optimize([Learner(self.optimizer, loss, before=before)], rows, both.mask, c, lambda rows: weights[rows] * steps,
                            self.generator)
        for anchor, weight in zip(self.anchor.parameters(), self.policy.parameters()):
            anchor.lerp_(weight.detach(), c.anchor_rate)
        return metrics


# Exercises
# 1. --jeffreys 0 is imitation of the better of two, --jeffreys 1 a policy gradient. Which of them keeps pass@8, and why?
#    test_the_forward_half_has_the_exact_gradient and test_the_backward_half_aims_near_it say what each follows.
# 2. Take four samples of the anchor and the best of four. What must stand in the place of log 16 for the reward to be right at the
#    median? (quantile_reward; its mean is - log c (1 - p)^4.)
# 3. Stop the anchor (--anchor-rate 0). Where does the policy end? Compare with --method best_of_n of search.py on the warm start,
#    two samples a problem, at equal tokens.
