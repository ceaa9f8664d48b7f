"""SDPO: the policy is its own teacher, once it has seen how a sibling solved the problem.

The idea. Of eight samples one is right. GRPO tells all tokens of the other seven that they were worse.
But the policy can read: with the right solution before its eyes it would have written other tokens, and
where it disagrees with itself is where the mistakes are. So the same model, given the right sibling as
context, scores the sample again, and the sample is distilled towards these scores: credit for every
token, without a critic and without another model.

The equations (arXiv:2601.20802; y+ is a right sample of the same group, never y itself):

    A_t  = log pi_T(y_t | x, y+, y_<t) - log pi(y_t | x, y_<t)
    J    = 1/N sum_t min(rho_t A_t, clip(rho_t, 1 - eps, 1 + eps) A_t)              N: tokens of the rows that have a y+
    T   <- (1 - eta) T + eta theta                                                    the teacher's weights follow slowly

In the words of distill.py: on-policy distillation, and the teacher is a prompt away.

The recipe:
  1. sample groups (`collect`); the rule says which are right;
  2. each row whose group has another right row gets that as its context (`siblings`); the others teach nothing;
  3. score its tokens behind "prompt, y+, prompt" with the teacher (`teach`), subtract, follow the loss.

What is simplified: the log-prob of the sampled token, where the paper compares the likeliest hundred;
no words around the solution; no feedback but the solution. And one thing is missing: a model that has
never seen two solutions in a row has not learned to speak behind the first, let alone to use it. The
paper finds that the gain grows with the size of the model; here the teacher is a poor one, and to
follow it ruins the policy within a step or two (docs/methods.md has the numbers; exercise 2 is the
remedy). `teacher_right` and `teacher_wrong` in metrics.jsonl, the mean A_t on the right rows and on the
wrong ones, say what a teacher is worth: near 0, and the first above the second.
"""
import dataclasses
from dataclasses import dataclass

import torch

from config import setting
from grpo import actor, token_weights
from method import Method
from model import GPT, make_optimizer
from optimize import Learner, optimize
from sample import SamplingConfig, score


@dataclass
class SDPOConfig(SamplingConfig):
    """SDPO"""
    group_size: int = setting(8, "samples per problem, of which the right ones teach the others", low=2, high=65536)
    teacher_rate: float = setting(0.05, "eta: how fast the teacher's weights follow; 1: they are the policy's", low=0.0, high=1.0)
    lr: float = setting(3e-4, "AdamW's rate", low=0.0, high=1.0)
    clip_low: float = setting(0.2, "the ratio is clipped below 1 - this", low=0.0, high=1.0)
    clip_high: float = setting(0.2, "the ratio is clipped above 1 + this", low=0.0, high=1e6)
    epochs: int = setting(1, "passes over each batch", low=1, high=1000)
    mini_batches: int = setting(2, "optimizer steps per pass", low=1, high=65536)
    micro_batch: int = setting(32, "rows per forward pass; memory and speed only; on a GPU the whole batch, unless set", low=1, high=65536)
    max_grad_norm: float = setting(1.0, "gradients are scaled down to this norm", low=0.0, high=1e9)


def siblings(right, group_size):
    """For every row the next right row of its group, going round, but not itself: right (B,) bool -> list
    of B row numbers, None where there is no other right row.

    >>> siblings(torch.tensor([True, False, True, False, True, False]), 3)
    [2, 2, 0, 4, None, 4]
    """
    found, right = [], right.tolist()
    for i in range(len(right)):
        group = i // group_size * group_size
        others = [group + (i - group + k) % group_size for k in range(1, group_size)]
        found.append(next((j for j in others if right[j]), None))
    return found


class SDPO(Method):
    """The algorithm as train.py sees it: see method.py."""
    Config, saved = SDPOConfig, ("optimizer", "teacher")

    def __init__(self, policy, task, config, generator=None, reward=None):
        super().__init__(policy, task, config, generator, reward)
        # It reads two solutions in a row. RoPE has no weights, so a longer context is a longer table of angles.
        shape = dataclasses.replace(policy.config, block_size=2 * policy.config.block_size)
        self.teacher = GPT(shape).to(policy.device).requires_grad_(False)
        self.teacher.load_state_dict(policy.state_dict())
        self.teacher.compute_dtype = policy.compute_dtype
        self.optimizer = make_optimizer(policy, config.lr)

    @torch.no_grad()
    def teach(self, rollout, rows, contexts, batch=128):
        """log pi_T of the tokens of `rows` behind the rows `contexts`, lists of N row numbers -> (B, T), 0 in all other rows."""
        tokens, lengths = rollout.tokens.tolist(), rollout.lengths.tolist()
        found = torch.zeros_like(rollout.logprobs)
        for k in range(0, len(rows), batch):
            some = list(zip(rows[k:k + batch], contexts[k:k + batch]))
            texts = [tokens[j][:lengths[j]] + tokens[i][:lengths[i]] for i, j in some]
            longest = max(map(len, texts))
            block = torch.tensor([text + [0] * (longest - len(text)) for text in texts], device=found.device)
            logprobs = score(self.teacher, block, self.config.temperature)[0]
            for (i, j), row in zip(some, logprobs):
                found[i, :lengths[i]] = row[lengths[j]:lengths[j] + lengths[i]]
        return found

    def update(self, rollout, rewards):
        """The rule says who is right -> metrics, a dict of floats (see docs/glossary.md)."""
        c, right = self.config, rollout.right(self.task)
        pairs = [(i, j) for i, j in enumerate(siblings(right, c.group_size)) if j is not None]
        metrics = {"taught": len(pairs)}
        if not pairs:
            return metrics | {"updates": 0}
        rows, contexts = map(list, zip(*pairs))
        taught = torch.zeros_like(right)
        taught[rows] = True
        mask = rollout.mask & taught[:, None]
        advantages = (self.teach(rollout, rows, contexts) - rollout.logprobs).masked_fill(~mask, 0.0)
        self.seen["advantages"] = advantages
        for name, which in (("teacher_right", right), ("teacher_wrong", ~right)):
            if (mask & which[:, None]).any():
                metrics[name] = float(advantages[mask & which[:, None]].mean())
        loss, before = actor(self.policy, rollout, advantages, c, aggregate="token_mean")
        metrics |= optimize([Learner(self.optimizer, loss, before=before)], taught.nonzero()[:, 0], rollout.mask, c,
                            lambda rows: token_weights(rollout.mask[rows], "token_mean"), self.generator)
        for teacher, weight in zip(self.teacher.parameters(), self.policy.parameters()):
            teacher.lerp_(weight.detach(), c.teacher_rate)
        return metrics


# Exercises
# 1. Show the teacher a wrong sibling in place of a right one. Do `teacher_right` and `teacher_wrong` change? If they do not, the
#    teacher does not read its context, and what you train on is noise.
# 2. Teach it to read: a warm start on two solutions of the same problem in a row (sft.demonstrations), the second right whenever
#    the first is. test_the_teacher_has_read_the_sibling has a table that can do it. Is `teacher_right` above `teacher_wrong` then?
# 3. Multiply the advantages by whether the row was wrong: distil only the mistakes. What happens to the right rows' log-probs?
