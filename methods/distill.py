"""On-policy distillation: the student writes, a teacher says of every token how likely it would have
been.

The idea. To imitate a teacher's texts (star.py --teacher) shows the student the teacher's world: once
it has made a mistake of its own, it is where the teacher never was. Here the student writes and the
teacher reads: a grade for every token, in the states that the student gets into, and one forward pass
of the teacher is all it costs. No rule is asked.

The equations (GKD, arXiv:2306.13649, with its lambda = 1 and the reverse KL; pi_T: the teacher):

    A_t  = - (log pi(y_t | x, y_<t) - log pi_T(y_t | x, y_<t))
    J    = 1/N sum_t min(rho_t A_t, clip(rho_t, 1 - eps, 1 + eps) A_t)           rho_t = pi/pi_old; N: all tokens of the batch

In expectation over the choice of one token, A_t grad log pi is - grad KL(pi || pi_T) of that choice,
exactly: k2 as a loss, in the words of grpo.kl_estimate. And as there it is blind to where the choice
leads: a token pays for itself and not for what comes after it. That is a bias, and it keeps the noise
small. With --divergence forward the teacher writes and the student imitates every token,

    loss = - 1/N sum_t log pi(y_t | x, y_<t)                 y from pi_T; grad KL(pi_T || pi) of whole completions, without bias

The reverse KL seeks a mode (say nothing that the teacher would not say), the forward one covers them
all (be able to say all that the teacher says).

The recipe:
  1. sample completions of the student (`collect`; forward: of the teacher);
  2. log-probs of the teacher for the same tokens; subtract;
  3. the clipped loss of grpo.py (forward: maximum likelihood).

What is simplified: GKD sums over all tokens of the vocabulary where this takes the one that was sampled,
which has the same mean and more noise.
"""
from dataclasses import dataclass

import torch

from config import InputError, setting
from grpo import actor, token_weights
from method import Method
from model import make_optimizer
from optimize import Learner, optimize
from plumbing.warm_starts import load_teacher
from sample import SamplingConfig, score


@dataclass
class DistillConfig(SamplingConfig):
    """on-policy distillation"""
    teacher: str = setting("", "run or checkpoint that teaches; there must be one")
    divergence: str = setting("reverse", "KL(student || teacher) on the student's samples, forward: the other way on the teacher's",
                              choices=("reverse", "forward"))
    lr: float = setting(3e-4, "AdamW's rate", low=0.0, high=1.0)
    clip_low: float = setting(0.2, "the ratio is clipped below 1 - this", low=0.0, high=1.0)
    clip_high: float = setting(0.2, "the ratio is clipped above 1 + this", low=0.0, high=1e6)
    epochs: int = setting(1, "passes over each batch", low=1, high=1000)
    mini_batches: int = setting(2, "optimizer steps per pass", low=1, high=65536)
    micro_batch: int = setting(32, "rows per forward pass; memory and speed only; on a GPU the whole batch, unless set", low=1, high=65536)
    max_grad_norm: float = setting(1.0, "gradients are scaled down to this norm", low=0.0, high=1e9)


class Distill(Method):
    """The algorithm as train.py sees it: see method.py. InputError if there is no teacher, or one that cannot be used."""
    Config, saved = DistillConfig, ("optimizer",)

    def __init__(self, policy, task, config, generator=None, reward=None):
        super().__init__(policy, task, config, generator, reward)
        if not config.teacher:
            raise InputError("--algo distill: who teaches? Name a run with --teacher RUN, for example one of --algo grpo")
        self.teacher = load_teacher(config.teacher, task, policy)
        if config.divergence == "forward":
            self.behavior = self.teacher
        self.optimizer = make_optimizer(policy, config.lr)

    @torch.no_grad()
    def gap(self, rollout, batch=256):
        """log pi - log pi_T of every token, (B, T), 0 outside of the mask; its mean over the student's samples estimates the KL."""
        teacher = torch.cat([score(self.teacher, tokens, self.config.temperature)[0] for tokens in rollout.tokens.split(batch)])
        return (rollout.logprobs - teacher).masked_fill(~rollout.mask, 0.0)

    def update(self, rollout, rewards):
        """The rewards are not looked at -> metrics, a dict of floats (see docs/glossary.md)."""
        c, rows = self.config, torch.arange(len(rollout.mask), device=self.policy.device)
        if c.divergence == "reverse":
            gap = self.gap(rollout)
            self.seen["advantages"] = -gap
            loss, before = actor(self.policy, rollout, -gap, c, aggregate="token_mean")
            metrics = {"teacher_kl": float(gap.sum() / rollout.mask.sum())}
        else:
            metrics, before = {}, None

            def loss(part):
                tokens, mask, teacher = part.cut(rollout.tokens, rollout.mask, rollout.logprobs)
                logprobs = score(self.policy, tokens, c.temperature)[0]
                kl = ((teacher - logprobs.detach()) * mask).sum()
                return -(part.weights * logprobs).sum(), {"teacher_kl": (kl, mask.sum())}

        return metrics | optimize([Learner(self.optimizer, loss, before=before)], rows, rollout.mask, c,
                                  lambda rows: token_weights(rollout.mask[rows], "token_mean"), self.generator)


# Exercises
# 1. Let a token pay for what comes after it as well: replace A_t by the sum of A_s over s >= t. Which of the two tests about bias
#    changes its answer (test_a_token_does_not_pay_for_where_it_leads), and what happens to the noise?
# 2. Distil runs/countdown-0 into its own warm start with both divergences. Compare pass@1, pass@8 and `entropy` at equal `tokens`
#    with --algo star --teacher, and with the GRPO run that made the teacher.
# 3. Take the teacher's log-probs over the whole vocabulary and train on the exact KL of every choice. How much smaller is the
#    variance of the gradient on a fixed batch? test_the_mean_gradient_of_one_choice_is_that_of_the_kl gives the mean.
