"""KL-Cov and Clip-Cov: a policy loses its entropy at few tokens. Hold back those.

The idea. A step of a policy gradient changes the entropy by about minus the covariance, under the
policy, of a choice's log-prob and its advantage: to reinforce what is likely already, or to push down
what is unlikely, makes the policy surer. Over a batch nearly all of that comes from very few tokens.
GRPO's clip does not see them: it looks at how far a token has gone.

The equations (arXiv:2505.22617, section 4; N: the tokens of the batch):

    c_t        = (A_t - mean A) (log pi_old(y_t) - mean log pi_old)
    Clip-Cov   of the tokens with low < c_t < high, a share r of N, drawn at random, has no gradient
    KL-Cov     the share k of N with the largest c_t pays for moving: - w |log pi - log pi_old| is added to J

The recipe is that of grpo.py; the tokens are chosen once for a batch, before the first optimizer step
(`covariances`, `largest`, `drawn`), so that micro-batches cannot change the choice. `--cov clip` is
Clip-Cov.

What is simplified: the authors choose anew in every mini-batch, and KL-Cov has no other clip there
(`--clip-low 1 --clip-high 1e6`). With one optimizer step a batch KL-Cov is GRPO: nothing has moved yet,
and the penalty has no slope. So the default is four.
"""
from dataclasses import dataclass

import torch

from config import setting
from grpo import GRPO, GRPOConfig

DEFAULTS = {"mini_batches": 4}


@dataclass
class CovConfig(GRPOConfig):
    """KL-Cov and Clip-Cov"""
    cov: str = setting("kl", "what becomes of the tokens: a KL for each, or no gradient", choices=("kl", "clip"))
    kl_share: float = setting(2e-3, "k: the share of the tokens that pay a KL", low=0.0, high=1.0)
    kl_weight: float = setting(1.0, "w: what they pay", low=0.0, high=1e6)
    clip_share: float = setting(2e-4, "r: the share of the tokens without gradient", low=0.0, high=1.0)
    cov_low: float = setting(1.0, "Clip-Cov draws among the tokens whose covariance is above this", low=-1e6, high=1e6)
    cov_high: float = setting(5.0, "and below this", low=-1e6, high=1e6)


def covariances(advantages, logprobs, mask):
    """c_t of the equations above: (B, T) each, mask bool -> (B, T), 0 outside of the mask.

    >>> mask = torch.tensor([[True, True, False]])
    >>> covariances(torch.tensor([[1.0, -1.0, 9.0]]), torch.tensor([[-1.0, -3.0, 9.0]]), mask).tolist()
    [[1.0, 1.0, 0.0]]
    """
    a, logp = advantages - advantages[mask].mean(), logprobs - logprobs[mask].mean()
    return (a * logp).masked_fill(~mask, 0.0)


def largest(c, mask, share):
    """KL-Cov's tokens: (B, T) bool, at least one of the masked ones unless share is 0."""
    chosen, count = torch.zeros_like(mask), max(1, int(share * mask.sum())) if share else 0
    chosen.view(-1)[c.masked_fill(~mask, float("-inf")).flatten().topk(count).indices] = True
    return chosen


def drawn(c, mask, share, low, high, generator=None):
    """Clip-Cov's tokens: (B, T) bool, fewer than `share` if no more lie between low and high."""
    chosen, among = torch.zeros_like(mask), (mask & (c > low) & (c < high)).flatten().nonzero()[:, 0]
    count = max(1, int(share * mask.sum())) if share else 0
    chosen.view(-1)[among[torch.randperm(len(among), generator=generator, device=mask.device)[:count]]] = True
    return chosen


class Cov(GRPO):
    """The algorithm as train.py sees it: see method.py."""
    Config = CovConfig

    def learner(self, rollout, advantages):
        c, mask = self.config, rollout.mask
        covariance = covariances(advantages, rollout.logprobs, mask)
        if c.cov == "clip":
            held = drawn(covariance, mask, c.clip_share, c.cov_low, c.cov_high, self.generator)
            return super().learner(rollout, advantages.masked_fill(held, 0.0))
        held = largest(covariance, mask, c.kl_share)

        def penalty(part, logprobs, old_logprobs):
            [pays] = part.cut(held)
            return c.kl_weight * (part.weights * pays * (logprobs - old_logprobs).abs()).sum()
        return super().learner(rollout, advantages, more=penalty)


# Exercises
# 1. Print the tokens that `largest` chooses in the first steps and in the last ones. Which words are they, and are their advantages
#    above or below 0? (test_covariances_by_hand has both kinds.)
# 2. Draw as many tokens at random as `drawn` does, wherever they lie. Is the entropy of `metrics.jsonl` another one then? Three
#    seeds.
# 3. Let the penalty be k3 in place of |log pi - log pi_old|. At a ratio of 1 neither has a slope: which of them stays small for
#    longer? (test_before_the_policy_has_moved_the_kl_has_no_slope)
