"""GRPO: reinforcement learning from a rule, with the group of samples as its own baseline.

The idea. Sample G completions o_1 ... o_G of one prompt and let the rule reward them, r_1 ... r_G. Those above the group's mean
become more likely, those below less likely. The mean is the baseline: a Monte-Carlo estimate of what the critic in PPO
has to learn. No critic, no learned reward, no labels: only a rule and the policy's own variety.

The equations (DeepSeekMath, arXiv:2402.03300, equations 3, 4 and section 4.1.2):

    A_i      = (r_i - mean(r)) / std(r)                                          one number for all tokens of o_i
    rho_it   = pi(o_it | q, o_i<t) / pi_old(o_it | q, o_i<t)
    J        = 1/G sum_i 1/|o_i| sum_t [ min(rho_it A_i, clip(rho_it, 1 - eps, 1 + eps) A_i) - beta KL_it ]
    KL_it    = pi_ref/pi - log(pi_ref/pi) - 1                                    the "k3" estimate, never negative

The loss is -J. The clip removes the gradient of a token only where the update has already gone far enough in the direction
it was asked to go: A > 0 and rho > 1 + eps, or A < 0 and rho < 1 - eps. With one update per batch rho is 1 throughout, and the
loss minus the mean of the advantages: 0, whatever the policy has learned. Only its gradient, A * grad log pi, means anything.

The recipe:
  1. sample G completions for each of some prompts (`collect`); the rule rewards them (train.py);
  2. normalise the rewards within each group: advantages (`group_advantages`); a group that agrees teaches nothing;
  3. recompute the log-probs with a gradient, form the loss (`policy_loss`), step; perhaps several times.

What is simplified: the reference is the warm start and stays it (DeepSeekMath renews it now and then); rewards are for whole
completions. Running out of tokens is a failure with reward 0, not an episode that goes on elsewhere.
"""
import copy
from dataclasses import dataclass

import torch

from config import setting
from model import make_optimizer
from sample import SamplingConfig, collect, score
from sft import micro_batches


@dataclass
class GRPOConfig(SamplingConfig):
    """GRPO"""
    group_size: int = setting(8, "G: samples per problem, compared with each other", low=2, high=65536)
    temperature: float = setting(1.0, "sampling temperature; the same distribution is trained", low=0.01, high=10.0)
    lr: float = setting(3e-4, "AdamW's rate", low=0.0, high=1.0)
    std: bool = setting(True, "divide advantages by the group's standard deviation")
    aggregate: str = setting("sequence_mean", "how token terms are averaged",
                             choices=("sequence_mean", "token_mean", "constant"))
    clip_low: float = setting(0.2, "the ratio is clipped below 1 - this", low=0.0, high=1.0)
    clip_high: float = setting(0.2, "the ratio is clipped above 1 + this", low=0.0, high=100.0)
    beta: float = setting(0.0, "weight of the KL to the warm start in the loss", low=0.0, high=100.0)
    epochs: int = setting(1, "passes over each batch, an optimizer step each", low=1, high=1000)
    micro_batch: int = setting(64, "rows per forward pass; memory and speed only", low=1, high=65536)
    max_grad_norm: float = setting(1.0, "gradients are scaled down to this norm", low=0.0, high=1e9)


def group_advantages(rewards, group_size, std=True):
    """A_i = (r_i - mean) / std within each group of neighbours.

    rewards (B,), B a multiple of group_size, rows of one prompt next to each other -> advantages (B,). The standard deviation
    is the population's (divided by G, not G - 1). std=False leaves it out (Dr. GRPO, arXiv:2503.20783: dividing by it weighs
    the prompts that are nearly always or nearly never solved more than the rest). A group whose rewards are all equal gets
    exactly 0, not rounding noise divided by a tiny number. Source: arXiv:2402.03300, section 4.1.2.

    >>> group_advantages(torch.tensor([1., 0., 0., 1., 0.1, 0.1, 0.1, 0.1]), 4).tolist()
    [1.0, -1.0, -1.0, 1.0, 0.0, 0.0, 0.0, 0.0]
    """
    groups = rewards.view(-1, group_size)
    advantages = groups - groups.mean(1, keepdim=True)
    if std:
        advantages = advantages / groups.std(1, correction=0, keepdim=True)
    agree = groups.amax(1, keepdim=True) == groups.amin(1, keepdim=True)
    return advantages.masked_fill(agree, 0.0).flatten()


def token_weights(mask, aggregate, max_length=None):
    """How much each token counts in the loss. mask (B, T) bool -> weights (B, T), 0 outside of the mask.

    'sequence_mean'  1 / (B |o_i|)        GRPO: every completion counts the same, so a token of a long one counts less
    'token_mean'     1 / (all tokens)     DAPO: every token counts the same
    'constant'       1 / (B max_length)   Dr. GRPO: a sum with a fixed scale; max_length defaults to T

    The weights of a batch are computed once and cut into micro-batches: their sizes then cannot change the gradient.

    >>> mask = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]]).bool()
    >>> token_weights(mask, "sequence_mean")[:, 0].tolist()
    [0.25, 0.125]
    """
    tokens = mask.float()
    if aggregate == "sequence_mean":
        return tokens / tokens.sum(1, keepdim=True).clamp(min=1) / len(mask)
    if aggregate == "token_mean":
        return tokens / tokens.sum().clamp(min=1)
    if aggregate == "constant":
        return tokens / (len(mask) * (max_length or mask.shape[1]))
    raise ValueError(f"unknown aggregate {aggregate!r}: sequence_mean, token_mean or constant")


def policy_loss(logprobs, old_logprobs, advantages, mask, *, clip_low, clip_high, aggregate,
                ref_logprobs=None, beta=0.0, weights=None):
    """The loss -J of the equations above, for one batch or one micro-batch of it.

    logprobs, old_logprobs, ref_logprobs (B, T); advantages (B,) or (B, T); mask (B, T) bool. `weights` (B, T): the rows of
    `token_weights` of the whole batch; without it, those of this mask.
    -> loss (scalar), stats: means over the masked tokens of this call, without gradient:
       clip_fraction   share of tokens whose gradient the clip removed
       kl              the k3 estimate of KL(pi || pi_ref), if there is a reference
    """
    if advantages.ndim == 1:
        advantages = advantages[:, None]
    if weights is None:
        weights = token_weights(mask, aggregate)
    # masked_fill before exp: padding may hold anything, and inf * 0 would be nan.
    ratio = (logprobs - old_logprobs).masked_fill(~mask, 0.0).exp()  # rho (B, T)
    free, clipped = ratio * advantages, ratio.clamp(1 - clip_low, 1 + clip_high) * advantages
    objective = torch.minimum(free, clipped)
    stats = {"clip_fraction": ((clipped < free) & mask).sum() / mask.sum().clamp(min=1)}
    if ref_logprobs is not None:
        log_ratio = (ref_logprobs - logprobs).masked_fill(~mask, 0.0)
        k3 = log_ratio.exp() - log_ratio - 1
        stats["kl"] = k3.detach().sum() / mask.sum().clamp(min=1)
        # As a loss, k3 pulls with the gradient of KL(pi_ref || pi): it covers the reference. (k1 would pull with noise alone.)
        objective = objective - beta * k3
    return -(weights * objective).sum(), stats


class GRPO:
    """The algorithm as train.py sees it: `collect(problems) -> Rollout`, `update(rollout, rewards) -> metrics`."""
    Config = GRPOConfig

    def __init__(self, policy, task, config, generator=None):
        """policy: GPT, trained in place. generator: torch.Generator on its device, for the sampling."""
        self.policy, self.task, self.config, self.generator = policy, task, config, generator
        self.behaviour = policy
        self.reference = copy.deepcopy(policy).requires_grad_(False)
        self.optimizer = make_optimizer(policy, config.lr)

    def collect(self, problems):
        return collect(self.behaviour, self.task, problems, self.config, self.generator)

    def update(self, rollout, rewards):
        """rewards (B,) float32 -> metrics, a dict of floats (see the glossary in the README)."""
        c, device = self.config, self.policy.device
        advantages = group_advantages(rewards.to(device), c.group_size, c.std)
        max_length = c.max_new_tokens or self.task.max_new_tokens
        weights = token_weights(rollout.mask, c.aggregate, max_length)
        # A row with advantage 0 has no policy gradient, and without a KL term no gradient at all: leaving it out is free.
        rows = (advantages != 0).nonzero()[:, 0] if c.beta == 0 else torch.arange(len(advantages), device=device)
        mixed = float((advantages.view(-1, c.group_size) != 0).any(1).float().mean())
        metrics = {"updates": 0, "mixed_groups": mixed, "kl": self.kl(rollout)}
        if len(rows) == 0:
            return metrics  # every group agrees: nothing to learn from this batch
        for epoch in range(c.epochs):
            self.optimizer.zero_grad()
            totals, worst = {"loss": 0.0, "clip_fraction": 0.0}, 0.0
            for part, length in micro_batches(rollout.mask[rows], c.micro_batch):
                part = rows[part]
                tokens, mask, old = (x[part, :length] for x in (rollout.tokens, rollout.mask, rollout.logprobs))
                logprobs, _ = score(self.policy, tokens, c.temperature)
                if epoch == 0:  # pi is still pi_old: what was sampled must be what is trained
                    worst = torch.maximum(torch.as_tensor(worst, device=device), ((logprobs - old) * mask).abs().max().detach())
                    if self.policy.compute_dtype != torch.float32:
                        old = logprobs.detach()  # in low precision the two differ by rounding: take the ratio as exactly 1
                reference = score(self.reference, tokens, c.temperature)[0] if c.beta else None
                loss, stats = policy_loss(logprobs, old, advantages[part], mask, clip_low=c.clip_low, clip_high=c.clip_high,
                                          aggregate=c.aggregate, ref_logprobs=reference, beta=c.beta,
                                          weights=weights[part, :length])
                loss.backward()
                totals["loss"] += loss.detach()
                totals["clip_fraction"] += stats["clip_fraction"] * mask.sum() / rollout.mask[rows].sum()
            norm = torch.nn.utils.clip_grad_norm_(self.policy.parameters(), c.max_grad_norm)
            self.optimizer.step()
            metrics["updates"] += 1
            if epoch == 0:
                metrics["max_log_ratio"] = float(worst)
        return metrics | {"grad_norm": float(norm)} | {name: float(total) for name, total in totals.items()}

    @torch.no_grad()
    def kl(self, rollout, rows=64):
        """KL(pi || pi_ref) per token, estimated from the first rows of a rollout as the mean of log pi - log pi_ref: "k1".

        Unbiased, and no single token can throw it far off, as happens to k3; it may come out slightly negative. As a *loss* it
        would be useless: its gradient is zero in expectation.
        """
        reference, _ = score(self.reference, rollout.tokens[:rows], self.config.temperature)
        return float((rollout.logprobs[:rows] - reference)[rollout.mask[:rows]].mean())

    def state_dict(self):
        return {"optimizer": self.optimizer.state_dict(), "reference": self.reference.state_dict()}

    def load_state_dict(self, state):
        self.optimizer.load_state_dict(state["optimizer"])
        self.reference.load_state_dict(state["reference"])


# Exercises
# 1. Remove the baseline (advantages = rewards). Which of the tests in tests/test_grpo.py fail, and what happens to the spread of
#    the gradient over many batches? (Measure it: keep the policy fixed and compare gradients of 20 rollouts.)
# 2. Replace `torch.minimum` by `torch.maximum` in the loss. test_clip_removes_the_gradient_only_beyond_the_step names the
#    cells of the table that change: which two gain a gradient, which two lose it? With --epochs 1 the run does not
#    notice: why? With --epochs 4 it does: what do you see?
# 3. Train with `--aggregate token_mean` and with `--aggregate sequence_mean`, and plot the mean length of both. Work out from
#    test_weights_per_token which of the two prefers long wrong answers, and check it against what you see.
