"""PRIME: a reward for every token from a reward model that was only ever told who is right.

The idea. A process reward model needs labels for steps, by people or by Monte Carlo. But let a language
model pi_phi be trained as a classifier of whole solutions, whose score is beta log(pi_phi / pi_ref):
the score is a sum over tokens, and what each token adds to it is a reward for that token. Nobody
labelled it. So it is cheap enough to go on learning while the policy learns, from the same samples, and
does not go stale. (DPO knows the same quantity, dpo.implicit_rewards.)

The equations (arXiv:2502.01456, equations 3 and 5; "From r to Q*", arXiv:2404.12358):

    r_t    = beta (log pi_phi(y_t | x, y_<t) - log pi_ref(y_t | x, y_<t))
    L_phi  = - [ o log s + (1 - o) log(1 - s) ]        s = sigmoid(sum_t r_t), o: right?
    A_it   = sum_s>=t ( r_is - mean over j != i of (mean_s r_js) )   +   o_i - mean over j != i of o_j
    J      = 1/N sum_t min(rho_t A_t, clip(rho_t, 1 - eps, 1 + eps) A_t)

Both halves of A are RLOO: the outcome, and the rewards still to come, each less the mean of the
siblings. As long as pi_phi = pi_ref every r is 0, and this is RLOO.

The recipe:
  1. sample groups (`collect`); the rule says which are right;
  2. r_t of every token, with pi_phi as it is (`implicit`);
  3. some optimizer steps of pi_phi on L_phi (the first `optimize`);
  4. advantages (`prime_advantages`), some steps of the policy on J (the second).

What is simplified: no filter that keeps only problems of middling difficulty (train.py has --curriculum
band). The second half of A is biased if completions differ in length: a mean of rewards per token is
subtracted from every token, so to be longer costs that mean, or earns it. The test has the numbers.
"""
import copy
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from config import setting
from dpo import implicit_rewards
from grpo import actor, group_advantages, token_weights
from method import Method
from model import make_optimizer
from optimize import Learner, optimize
from sample import SamplingConfig, score


@dataclass
class PRIMEConfig(SamplingConfig):
    """PRIME"""
    group_size: int = setting(8, "samples per problem, compared with each other", low=2, high=65536)
    beta: float = setting(0.05, "what a nat of log(pi_phi / pi_ref) is worth", low=0.0, high=100.0)
    lr: float = setting(3e-4, "AdamW's rate, policy", low=0.0, high=1.0)
    prm_lr: float = setting(3e-4, "AdamW's rate, implicit reward model", low=0.0, high=1.0)
    clip_low: float = setting(0.2, "the ratio is clipped below 1 - this", low=0.0, high=1.0)
    clip_high: float = setting(0.2, "the ratio is clipped above 1 + this", low=0.0, high=1e6)
    epochs: int = setting(1, "passes over each batch", low=1, high=1000)
    mini_batches: int = setting(2, "optimizer steps per pass", low=1, high=65536)
    micro_batch: int = setting(32, "rows per forward pass; memory and speed only; on a GPU the whole batch, unless set", low=1, high=65536)
    max_grad_norm: float = setting(1.0, "gradients are scaled down to this norm", low=0.0, high=1e9)


def prime_advantages(r, outcomes, mask, group_size):
    """A of the equations above. r (B, T), 0 outside of mask (B, T) bool; outcomes (B,) -> (B, T), 0 outside
    of the mask.

    >>> r, mask = torch.tensor([[0.0, 1.0, 2.0], [0.0, 0.5, 0.0]]), torch.tensor([[0, 1, 1], [0, 1, 0]]).bool()
    >>> prime_advantages(r, torch.tensor([1.0, 0.0]), mask, 2).tolist()               # means 1.5 and 0.5
    [[0.0, 3.0, 2.5], [0.0, -2.0, 0.0]]
    """
    means = (r.sum(1) / mask.sum(1).clamp(min=1)).view(-1, group_size)
    others = ((means.sum(1, keepdim=True) - means) / (group_size - 1)).flatten()
    centred = (r - others[:, None]).masked_fill(~mask, 0.0)
    to_come = centred.flip(1).cumsum(1).flip(1)
    outcome = group_advantages(outcomes, group_size, std=False, baseline="leave_one_out")
    return (to_come + outcome[:, None]).masked_fill(~mask, 0.0)


class PRIME(Method):
    """The algorithm as train.py sees it: see method.py."""
    Config, saved = PRIMEConfig, ("optimizer", "prm_optimizer", "prm", "reference")

    def __init__(self, policy, task, config, generator=None, reward=None):
        super().__init__(policy, task, config, generator, reward)
        self.prm, self.reference = copy.deepcopy(policy), copy.deepcopy(policy).requires_grad_(False)
        self.optimizer, self.prm_optimizer = make_optimizer(policy, config.lr), make_optimizer(self.prm, config.prm_lr)

    def implicit(self, tokens, mask):
        """r_t of the equations above, with a gradient for pi_phi: tokens (n, t), mask (n, t) bool -> (n, t)."""
        with torch.no_grad():
            reference = score(self.reference, tokens, self.config.temperature)[0]
        return implicit_rewards(score(self.prm, tokens, self.config.temperature)[0], reference, mask, self.config.beta)

    def update(self, rollout, rewards):
        """rewards (B,) float32 are the outcomes of A; pi_phi learns from the rule -> metrics (see docs/glossary.md)."""
        c, mask, right = self.config, rollout.mask, rollout.right(self.task).float()
        rows = torch.arange(len(mask), device=self.policy.device)
        with torch.no_grad():
            r = torch.cat([self.implicit(*part) for part in zip(rollout.tokens.split(256), mask.split(256))])

        def prm_loss(part):
            s = self.implicit(*part.cut(rollout.tokens, mask)).sum(1)  # (n,)
            wanted = right[part.rows]
            found = {"accuracy": (((s > 0) == (wanted > 0)).float().sum(), len(s))}
            return part.share * F.binary_cross_entropy_with_logits(s, wanted), found

        learned = optimize([Learner(self.prm_optimizer, prm_loss, "prm")], rows, mask, c, generator=self.generator)
        advantages = prime_advantages(r, rewards.to(self.policy.device), mask, c.group_size)
        self.seen["advantages"] = advantages
        trained = (advantages != 0).any(1).nonzero()[:, 0]
        steps, weights = min(c.mini_batches, len(trained)), token_weights(mask, "token_mean")
        loss, before = actor(self.policy, rollout, advantages, c, aggregate="token_mean")
        metrics = optimize([Learner(self.optimizer, loss, before=before)], trained, mask, c, lambda rows: weights[rows] * steps,
                           self.generator)
        return learned | metrics | {"skipped": learned["skipped"] + metrics["skipped"],
                                    "process_reward": float(r.abs().sum() / mask.sum())}


# Exercises
# 1. Leave the outcome out of A: the policy learns from pi_phi alone. How long does that go well, and what is it called
#    (methods/rm_rl.py)?
# 2. Colour the tokens of a wrong solution by r_t after 50 steps. Is the first false step where r turns negative? Compare with the
#    values of VinePPO (methods/vineppo.py) for the same solution.
# 3. Subtract the siblings' mean once from the whole return, and not from every token. What does
#    test_a_baseline_for_every_token_pays_for_length say then?
