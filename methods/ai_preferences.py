"""Preferences of a model: which of two answers is better, asked in both orders, and DPO on that.

The idea. A judge that cannot say how good an answer is may still see which of two is better. But it has
a taste for a place: asked about the same pair in the other order, it often names the same place again.
Asking both ways and taking the mean cancels that, exactly.

The equations (arXiv:2309.00267, its preference labels; P(first | a, b) is what the judge says to
"Which: <problem> a b"):

    q       = ( P(first | a, b) + 1 - P(first | b, a) ) / 2    how likely a is better; --orders one: P(first | a, b)
    bias    = mean( P(first | a, b) + P(first | b, a) ) - 1    0 without a taste for a place; 1: always the first
    margin  = r(x, a) - r(x, b),  r = beta log(pi / pi_ref)    as in dpo.py
    loss    = - q log sigmoid(margin) - (1 - q) log sigmoid(-margin)     --labels clamped: q is 1 above 1/2, else 0

If P(first | a, b) = sigmoid(better(a) - better(b) + t), t drops out of the verdict: q > 1/2
exactly if a is better. The soft loss stops at margin = log q / (1 - q): a judge that is not sure is
not followed far. The clamped one never stops.

The recipe:
  1. sample; neighbours of a group are a pair, unless their answers are the same, or neither can be
     read;
  2. ask the frozen warm start in both orders (`preferences`), label, one step of DPO.

What is simplified: the paper trains a reward model on soft labels; here they go into DPO at once (as in
conservative DPO). Pairs are drawn anew in each step, from the current policy. The judge reads only;
nothing that it says is sampled.
"""
import copy
from dataclasses import dataclass

import torch

import dialogue
from config import setting
from dpo import DPO, DPOConfig, dpo_loss
from optimize import Learner, optimize
from sample import score

DEFAULTS = {"dialogue": 0.6, "sft_steps": 1000, "iterative": True, "nll": 0.0}


@dataclass
class AIPreferencesConfig(DPOConfig):
    """AI preferences"""
    orders: str = setting("both", "in which orders the judge reads a pair", choices=("both", "one"))
    labels: str = setting("soft", "q as it is, or clamped to 0 or 1", choices=("soft", "clamped"))


def preferences(judge, task, rollout, first, second):
    """P("first") for pairs of rows, (N,) each, in this order and in the other one -> (N, 2)."""
    answers = dialogue.answers(rollout, task)
    asked = [task.tokenizer.encode("Which: " + rollout.problems[a].prompt) + answers[a] + answers[b]
             for one, two in zip(first.tolist(), second.tolist()) for a, b in ((one, two), (two, one))]
    return dialogue.ask(judge, task, asked, ["first", "second"])[:, 0].view(-1, 2)


def soft_dpo_loss(chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps, beta, q):
    """dpo_loss where the chosen one is the better one with probability q (N,) -> loss (scalar), margins
    (N,).

    -q log sigmoid(m) - (1 - q) log sigmoid(-m) = -log sigmoid(m) + (1 - q) m.

    >>> loss, _ = soft_dpo_loss(*(torch.tensor([x]) for x in (9.0, 0.0, 0.0, 0.0)), beta=1.0, q=torch.tensor([0.5]))
    >>> round(float(loss), 4)                       # not sure, and yet a margin of 9: half of what being wrong costs
    4.5001
    """
    loss, margins = dpo_loss(chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps, beta)
    return loss + ((1 - q) * margins).mean(), margins


class AIPreferences(DPO):
    """The algorithm as train.py sees it: see method.py. InputError if the task has no dialogue."""
    Config, saved = AIPreferencesConfig, (*DPO.saved, "judge")

    def __init__(self, policy, task, config, generator=None, reward=None):
        dialogue.needed(task)
        super().__init__(policy, task, config, generator, reward)
        self.judge = copy.deepcopy(self.reference)

    def label(self, rollout):
        """-> first, second (N,): the rows of each pair; q (N,); metrics of the judge, with the rule
        over its shoulder."""
        answers, right = dialogue.answers(rollout, self.task), rollout.right(self.task)
        rows, G = torch.arange(len(answers), device=right.device), self.config.group_size
        places = rows[(rows % G % 2 == 0) & (rows % G < G - 1)]  # of an odd group the last one stays alone
        first = places[[answers[i] != answers[i + 1] for i in places.tolist()]]
        p = preferences(self.judge, self.task, rollout, first, first + 1).to(right.device)
        q = (p[:, 0] + 1 - p[:, 1]) / 2 if self.config.orders == "both" else p[:, 0]
        tells = right[first] != right[first + 1]  # the rule prefers one of them
        metrics = {"position_bias": float(p.sum(1).mean() - 1) if len(p) else 0.0,
                   "same_place": float(((p > 0.5).all(1) | (p < 0.5).all(1)).float().mean()) if len(p) else 0.0}
        if tells.any():
            metrics["judge_accuracy"] = float(((q > 0.5) == right[first])[tells].float().mean())
        return first, first + 1, q if self.config.labels == "soft" else (q > 0.5).float(), metrics

    def update(self, rollout, rewards):
        """The rewards of the rule are not looked at -> metrics, a dict of floats (see
        docs/glossary.md)."""
        c = self.config
        first, second, q, metrics = self.label(rollout)
        of_row = torch.zeros(len(rewards), device=q.device).index_put((first,), q)
        self.seen["advantages"] = torch.zeros(len(rewards), device=q.device)

        def loss(part):
            tokens, mask = part.cut(rollout.tokens, rollout.mask)
            logps = (score(self.policy, tokens, c.temperature)[0] * mask).sum(1)  # (2n,): first ones, then second ones
            with torch.no_grad():
                ref_logps = (score(self.reference, tokens, c.temperature)[0] * mask).sum(1)
            sure = of_row[part.rows.chunk(2)[0]]  # (n,)
            value, margins = soft_dpo_loss(*logps.chunk(2), *ref_logps.chunk(2), c.beta, sure)
            a = c.beta * (sure - torch.sigmoid(margins.detach()))  # minus the slope of the loss
            self.seen["advantages"][part.rows] = torch.cat((a, -a))
            value = value - c.nll * (torch.cat((sure, 1 - sure)) * logps / mask.sum(1)).sum() / len(sure)
            return value * part.share, {"margin": (margins.detach().abs().sum(), len(margins))}

        items = torch.stack((first, second), 1)
        return metrics | {"pairs": len(items)} | optimize([Learner(self.optimizer, loss)], items, rollout.mask, c,
                                                          generator=self.generator)


# Exercises
# 1. --orders one: what is left of `judge_accuracy` when the judge has a strong taste for the first
#    place? (test_both_orders_cancel_it)
# 2. --labels clamped for 200 steps beside soft labels: whose `margin` grows on, and who loses
#    `accuracy` first?
# 3. Keep only the pairs in which both orders agree. How many are left, and how much better is the judge
#    on those?
