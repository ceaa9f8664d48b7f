"""Self-rewarding: the model writes, grades what it wrote, and learns from its own grades; then the
better model does it again.

The idea. In rlaif.py the judge stays as weak as it was. If judging is a skill of the same weights, a
better model may be a better judge, and the next round starts from both. Or the two agree on the same
mistakes.

The equations (arXiv:2401.10020; M_t the model at the beginning of round t):

    y_1 ... y_N ~ M_t(. | x),      r_i = what M_t says of y_i (rlaif.py: the mean score, or P(yes))
    y_w, y_l    = argmax r, argmin r                        dropped where the two are equal
    loss        = - log sigmoid( r_pi(x, y_w) - r_pi(x, y_l) ),   r_pi = beta log(pi / M_t)           dpo.py
    M_{t+1}     = pi after --round-steps steps: it samples, judges, and is the reference of the next round

The recipe:
  1. at the beginning of a round freeze the policy: this copy samples, judges and is DPO's reference;
  2. each step: sample, judge, DPO on best against worst of each group;
  3. after --round-steps steps begin the next round.

What is simplified: the paper begins every round with prompts that the model wrote itself
(methods/propose.py does that), asks for a sum of five points in words, three times, and takes the mean;
here the mean over all scores is read off at once. Its optimizer starts anew each round; here it goes
on. Asking reads and samples nothing, except for the thoughts of --votes, whose tokens count.
"""
from dataclasses import dataclass

import torch

import dialogue
from config import setting
from dpo import DPO, DPOConfig
from methods.genrm import watched
from methods.rlaif import opinion

DEFAULTS = {"dialogue": 0.6, "sft_steps": 1000, "nll": 0.0, "steps": 40}


@dataclass
class SelfRewardConfig(DPOConfig):
    """self-rewarding"""
    round_steps: int = setting(10, "steps of a round: so long the same model samples and judges", low=1, high=10**7)
    opinion: str = setting("score", "what the model is asked for: a score from 1 to 10, or yes or no",
                           choices=("score", "yes"))
    votes: int = setting(0, "with --opinion yes: so many chains of thought before the verdict", low=0, high=1024)


def best_and_worst(scores, group_size):
    """scores (B,) -> (B,): 1 for the best of each group, 0 for its worst, 1/2 for the rest, so that
    `dpo.pairs` pairs these two alone.

    A group whose scores are all equal is 1/2 throughout, and makes no pair.

    >>> best_and_worst(torch.tensor([0.3, 0.2, 0.9, 0.4, 0.7, 0.7, 0.7, 0.7]), 4).tolist()
    [0.5, 0.0, 1.0, 0.5, 0.5, 0.5, 0.5, 0.5]
    """
    groups = scores.view(-1, group_size)
    best, worst = groups.argmax(1, keepdim=True), groups.argmin(1, keepdim=True)
    ends = torch.full_like(groups, 0.5).scatter(1, best, 1.0).scatter(1, worst, 0.0)
    return torch.where(groups.gather(1, best) > groups.gather(1, worst), ends, 0.5).flatten()


class SelfReward(DPO):
    """The algorithm as train.py sees it: see method.py. InputError if the task has no dialogue."""
    Config, saved = SelfRewardConfig, (*DPO.saved, "steps")

    def __init__(self, policy, task, config, generator=None, reward=None):
        dialogue.needed(task)
        super().__init__(policy, task, config, generator, reward)
        self.steps = 0

    def update(self, rollout, rewards):
        """The rewards of the rule are not looked at -> metrics, a dict of floats (see
        docs/glossary.md)."""
        c = self.config
        said, says_right, cost = opinion(self.reference, self.task, rollout, c, self.generator)
        rollout.discarded += cost
        metrics = watched(said, says_right, rollout.right(self.task)) | {
            "round": 1 + self.steps // c.round_steps, "proxy": float(said.mean()), "proxy_std": float(said.std(correction=0))}
        metrics |= super().update(rollout, best_and_worst(said, c.group_size))
        self.steps += 1
        if self.steps % c.round_steps == 0:
            self.reference.load_state_dict(self.policy.state_dict())  # the next round
        return metrics


# Exercises
# 1. Let the judge stay the warm start, and only the reference move. Is it the judge that gets worse
#    over the rounds, or the policy?
# 2. --iterative: the current policy writes, the model of the round judges. How many rounds does it take
#    until `auc` is 1/2?
# 3. Pair as dpo.py does (give `said` to `super().update`). test_only_the_best_and_the_worst_are_paired
#    fails: which pairs of the middle does the judge order as the rule does?
