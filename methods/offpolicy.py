"""A sampler that is not the trainer: other precision, older weights, and what can be done about it.

The idea. In large systems one program samples and another one trains. They disagree: the sampler
computes in lower precision, and its weights are some updates old, because nobody wants to wait. Then
the samples are not the policy's, and "on-policy" is a wish. Here both causes can be switched on by
themselves, and three ways to deal with them. The rest is GRPO: every setting of grpo.py can be tried,
but --dynamic-sampling with tis, where rows that wait would lose their weights.

The equations (mu: the sampler; pi_old: the trainer as this batch arrives; pi: as it learns):

    ignore   rho = pi / pi_old,  J = min(rho A, clip(rho) A)            as if mu were pi_old
    ratio    rho = pi / mu,      the same J                             PPO's own: what has moved too far already is clipped
    tis      rho = pi / pi_old,  J = min(pi_old / mu, C) min(rho A, clip(rho) A)       truncated importance sampling

For completions of one token, and with C without bound, the first step of tis has the exact gradient,
whatever mu is (with --baseline leave_one_out --no-std), and a variance without bound; C cuts the
variance and brings a bias: rare tokens of the sampler count too little. For longer completions a bias
is left in any case: a token has its own weight, but what stands before and behind it was still written
by mu, and that can even turn the sign of the gradient (test_one_weight_a_token_is_not_enough). Source: arXiv:1802.01561 (V-trace's truncated weights); for
language models "Your efficient RL framework secretly brings you off-policy RL training",
fengyao.notion.site/off-policy-rl, 2025.

The recipe: that of grpo.py, but a batch waits --stale-steps steps before it is learned from, and the
sampler computes in --sampler-dtype.

What is simplified: each weight is that of one token. The product of all weights of a completion would be
right, and is mostly 0 or enormous.
"""
import copy
from dataclasses import dataclass

import torch

from config import InputError, setting
from grpo import GRPO, GRPOConfig
from sample import Rollout, score


@dataclass
class OffPolicyConfig(GRPOConfig):
    """a sampler that is not the trainer"""
    stale_steps: int = setting(0, "steps that a batch waits before it is learned from", low=0, high=1000)
    sampler_dtype: str = setting("float32", "what the sampler computes in", choices=("float32", "bfloat16"))
    mismatch: str = setting("tis", "what is done about it, see offpolicy.py", choices=("ignore", "ratio", "tis"))
    tis: float = setting(2.0, "C: the largest weight", low=0.0, high=1e6)


class OffPolicy(GRPO):
    """The algorithm as train.py sees it: see method.py. InputError for settings that contradict each other."""
    Config = OffPolicyConfig

    def __init__(self, policy, task, config, generator=None, reward=None):
        super().__init__(policy, task, config, generator, reward)
        if config.mismatch == "tis" and config.dynamic_sampling:
            raise InputError("--dynamic-sampling: rows that wait would lose their weights; use --mismatch ratio or ignore")
        if config.mismatch == "ratio" and policy.compute_dtype != torch.float32:
            raise InputError("--mismatch ratio: in bfloat16 ratios start at 1 and mu is forgotten (grpo.actor); use --dtype float32, or --mismatch tis")
        self.queue = []  # (rollout, rewards), the oldest first
        if config.sampler_dtype != "float32":
            self.behavior = copy.copy(policy)  # the same weights, not a copy of them
            self.behavior.compute_dtype = getattr(torch, config.sampler_dtype)

    def update(self, rollout, rewards):
        """rewards (B,) float32 -> metrics, a dict of floats (see docs/glossary.md)."""
        self.queue.append((rollout, super().shape(rollout, rewards.to(self.policy.device))))
        if len(self.queue) <= self.config.stale_steps:
            return {"updates": 0}
        rollout, rewards = self.queue.pop(0)
        log_weights = self.recomputed(rollout) - rollout.logprobs
        if self.config.mismatch != "ratio":
            rollout.logprobs = rollout.logprobs + log_weights
        self.weights = log_weights.exp().clamp(max=self.config.tis) if self.config.mismatch == "tis" else None
        metrics = {"mismatch": float(log_weights[rollout.mask].abs().mean())} | super().update(rollout, rewards)
        if self.config.stale_steps:
            self.seen.clear()  # it is about another batch than the one that came in
        return metrics

    def shape(self, rollout, rewards):
        """Done as the batch came in, when its problems were at hand."""
        return rewards

    def advantages(self, rollout, rewards):
        advantages = super().advantages(rollout, rewards)
        return advantages if self.weights is None else advantages * self.weights

    @torch.no_grad()
    def recomputed(self, rollout, batch=256):
        """log pi_old of every token, (B, T), 0 outside of the mask."""
        found = [score(self.policy, tokens, self.config.temperature)[0] for tokens in rollout.tokens.split(batch)]
        return torch.cat(found).masked_fill(~rollout.mask, 0.0)

    def state_dict(self):
        tensors = lambda rollout: {name: value for name, value in vars(rollout).items() if torch.is_tensor(value)}
        return super().state_dict() | {"queue": [{**tensors(rollout), "rewards": rewards} for rollout, rewards in self.queue]}

    def load_state_dict(self, state):
        super().load_state_dict(state)
        self.queue = []
        for group in state["queue"]:
            tensors = {name: value.to(self.policy.device) for name, value in group.items()}
            rewards = tensors.pop("rewards")
            self.queue.append((Rollout(**tensors), rewards))


# Exercises
# 1. In experiments/stale.py tis breaks before ratio, as with one optimizer step a batch its clip holds nothing. Run --stale-steps 8 with
#    --mini-batches 8, three seeds each. Does tis hold now? And what do `clip_fraction` and `mismatch` say before a curve breaks?
# 2. Give the weights to whole completions (their product, cut at C). test_without_a_cap_the_gradient_is_exact still holds; what
#    happens to the variance?
# 3. Drop the tokens whose weight is above C instead of cutting it. Which way does the bias go now?
