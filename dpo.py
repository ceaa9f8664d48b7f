"""DPO: learning from pairs, a right and a wrong completion of the same prompt, with a loss as simple as
a classifier's.

The idea. The policy that maximises reward - beta KL(pi || pi_ref) is pi ~ pi_ref exp(reward / beta).
Turned around: every policy is the best one for the reward beta log(pi / pi_ref). So put that *implicit
reward* into the Bradley-Terry model of preferences, and fit it to pairs directly: no reward model, no
sampling inside the loss, no advantages.

The equations (arXiv:2305.18290, equations 5 and 7):

    r(x, y) = beta (log pi(y|x) - log pi_ref(y|x))                     summed over the tokens of y: never the mean
    loss    = - log sigmoid( r(x, y_w) - r(x, y_l) )                   y_w the chosen (won), y_l the rejected (lost)

Its gradient is a policy gradient with one advantage a pair, +a for y_w and -a for y_l, a = beta
sigmoid(-margin): large as long as the pair is ranked wrongly, then fading. What is clipped in PPO fades
here.

Only the difference is trained, so both log-probs may fall. Against that a third term holds on to the
chosen completion (Iterative RPO, arXiv:2404.19733, equation 2); --nll 0 is the plain DPO of above:

    + nll * - 1/|y_w| log pi(y_w|x)

The recipe:
  1. sample a group of completions for each prompt (`collect`); the rule rewards them (train.py);
  2. pair the best with the worst of each group, the second best with the second worst, as long as their rewards differ (`pairs`);
  3. log-probs of both under policy and reference, the loss (`dpo_loss`), step.
Offline, as in the paper, all samples come from the frozen warm start; with --iterative they come from the current policy.

What is simplified: the pairs of a step are used in that step and then dropped, so that offline DPO sees
fresh pairs for as long as it has tokens to spend; the reference is the warm start also when the pairs
come from the current policy.
"""
import copy
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from config import setting
from method import Method
from model import make_optimizer
from optimize import Learner, optimize
from sample import SamplingConfig, score


@dataclass
class DPOConfig(SamplingConfig):
    """DPO"""
    group_size: int = setting(8, "samples per problem, paired with each other", low=2, high=65536)
    iterative: bool = setting(False, "sample the pairs from the current policy, not from the warm start")
    lr: float = setting(1.5e-4, "AdamW's rate", low=0.0, high=1.0)
    beta: float = setting(0.1, "how dear it is to leave the warm start", low=1e-6, high=100.0)
    nll: float = setting(1.0, "weight of the chosen completion's negative log-likelihood, a mean over its tokens", low=0.0, high=100.0)
    epochs: int = setting(1, "passes over the pairs of a step", low=1, high=1000)
    mini_batches: int = setting(2, "optimizer steps per pass", low=1, high=65536)
    micro_batch: int = setting(64, "sequences per forward pass; memory and speed only; on a GPU the whole batch, unless set", low=1, high=65536)
    max_grad_norm: float = setting(1.0, "gradients are scaled down to this norm", low=0.0, high=1e9)


def dpo_loss(chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps, beta):
    """Summed log-probs (N,) of both completions under policy and reference -> loss (scalar), margins (N,).

    The margin is r(x, y_w) - r(x, y_l), the difference of the implicit rewards. Source:
    arXiv:2305.18290, equation 7.

    >>> loss, margins = dpo_loss(*(torch.tensor([x]) for x in (-1.0, -2.0, -1.0, -2.0)), beta=0.1)
    >>> round(float(loss), 4), margins.tolist()                       # policy = reference: ln 2, whatever the log-probs are
    (0.6931, [0.0])
    """
    margins = beta * ((chosen_logps - ref_chosen_logps) - (rejected_logps - ref_rejected_logps))
    return -F.logsigmoid(margins).mean(), margins


def implicit_rewards(logprobs, ref_logprobs, mask, beta):
    """beta log(pi / pi_ref) of every token, (B, T) -> (B, T), 0 outside of the mask.

    Summed over a completion this is DPO's implicit reward. Token by token it is the advantage of the
    token in the eyes of the trained policy, how much better the outlook became by it: a critic that
    nobody trained. Source: "From r to Q*", arXiv:2404.12358, section 4.
    """
    return beta * (logprobs - ref_logprobs).masked_fill(~mask, 0.0)


def pairs(rewards, group_size):
    """Who is compared with whom: rewards (B,) -> chosen (N,), rejected (N,), row numbers of the same group.

    The best row of a group is paired with its worst, the second best with the second worst, as long as
    their rewards differ: with right or wrong as the only rewards, each right row with a wrong one until
    either runs out.

    >>> [rows.tolist() for rows in pairs(torch.tensor([0., 1., 0., 1., 1., 1., 1., 1.]), 4)]
    [[1, 3], [2, 0]]
    """
    groups = rewards.view(-1, group_size)
    order = groups.argsort(dim=1, descending=True, stable=True)
    order = order + group_size * torch.arange(len(groups), device=rewards.device)[:, None]
    half = group_size // 2
    best, worst = order[:, :half].flatten(), order.flip(1)[:, :half].flatten()
    differ = rewards[best] > rewards[worst]
    return best[differ], worst[differ]


class DPO(Method):
    """The algorithm as train.py sees it: see method.py."""
    Config, saved = DPOConfig, ("optimizer", "reference")

    def __init__(self, policy, task, config, generator=None, reward=None):
        super().__init__(policy, task, config, generator, reward)
        self.reference = copy.deepcopy(policy).requires_grad_(False)
        self.behavior = policy if config.iterative else self.reference
        self.optimizer = make_optimizer(policy, config.lr)

    def update(self, rollout, rewards):
        """rewards (B,) float32 -> metrics, a dict of floats (see docs/glossary.md)."""
        c = self.config
        items = torch.stack(pairs(rewards.to(self.policy.device), c.group_size), 1)  # (N, 2)
        self.seen["advantages"] = torch.zeros(len(rewards), device=self.policy.device)

        def loss(part):
            tokens, mask = part.cut(rollout.tokens, rollout.mask)
            logps = (score(self.policy, tokens, c.temperature)[0] * mask).sum(1)  # summed: (2n,)
            with torch.no_grad():
                ref_logps = (score(self.reference, tokens, c.temperature)[0] * mask).sum(1)
            value, margins = dpo_loss(*logps.chunk(2), *ref_logps.chunk(2), c.beta)
            a = c.beta * torch.sigmoid(-margins.detach())
            self.seen["advantages"][part.rows] = torch.cat((a, -a))
            # Only the difference is trained. Both completions share most of their tokens, and pushing
            # the rejected one down pushes those down too: the chosen log-prob often falls, only less
            # than the rejected one.
            better, worse = (logps - ref_logps).detach().chunk(2)
            value = value - c.nll * (logps / mask.sum(1)).chunk(2)[0].mean()
            stats = {"margin": margins.detach(), "implicit_accuracy": (margins > 0).float(), "chosen_logp": better,
                     "rejected_logp": worse}
            return value * part.share, {name: (each.sum(), len(each)) for name, each in stats.items()}

        return {"pairs": len(items)} | optimize([Learner(self.optimizer, loss)], items, rollout.mask, c, generator=self.generator)


# Exercises
# 1. Take the mean log-prob of a completion where the sum is taken. Which test in tests/test_dpo.py fails
#    (test_log_probs_are_summed), and which of two right answers, a long and a short one, is now pushed harder?
# 2. IPO (arXiv:2310.12036) replaces -log sigmoid(margin) by (margin/beta - 1/(2 beta))^2, which has a minimum at a finite margin.
#    Write it; test_the_loss_falls_with_the_margin shows what must change, and `margin` in metrics.jsonl what is gained.
# 3. Colour the tokens of a wrong answer by `implicit_rewards`. Where does the policy place the blame: at the false step, or at the
#    end? test_implicit_rewards_sum_to_the_margin gives you the sums to check against.
