"""d-RLAIF: reinforcement learning from what a language model says of the answers, here the warm start
itself.

The idea. Nobody holds the answer key, and no reward model is trained: a frozen model is asked for a
score from 1 to 10, and the mean of what it would say is the reward. Everything else is GRPO.

The equations (arXiv:2309.00267, d-RLAIF; I the words "Score: "):

    r(x, y) = sum_{s = 1..10} s P(s) / 10,   P(s) = pi_judge(s | I, x, y) / sum_v pi_judge(v | I, x, y)
    or        pi_judge(yes | "Check: ", x, y), with --votes K a mean over thoughts     --opinion yes
    A_i     = r_i - mean(r)                                                            and then as in grpo.py

The recipe:
  1. the judge is a copy of the warm start, and stays what it is; with --teacher RUN, another run
     (--algo genrm makes good ones);
  2. sample (`collect`); ask about every answer (`opinion`); update as GRPO does, on the opinions alone.

No standard deviation here: a judge's scores are never quite equal, and dividing by their spread would
make its smallest whims as large as a verdict. (--std brings it back.)

What is simplified: the paper's judge is mostly a larger model; here it is what the policy was, which
the paper tries as well ("the exact same checkpoint"). It scores summaries; here there is a truth, and
the rule measures the judge. Scores are compared within a group only. Asking reads and samples nothing,
except for the thoughts of --votes, whose tokens count. Preferences of the same judge:
ai_preferences.py.
"""
import copy
from dataclasses import dataclass

import torch

import dialogue
from config import setting
from grpo import GRPO, GRPOConfig
from methods.genrm import verdicts, watched
from plumbing.warm_starts import load_teacher
from tasks.dialogue import SCORES

DEFAULTS = {"dialogue": 0.6, "sft_steps": 1000, "std": False, "loss_aggregation": "constant"}


@dataclass
class RLAIFConfig(GRPOConfig):
    """AI feedback"""
    opinion: str = setting("score", "what the judge is asked for: a score from 1 to 10, or yes or no",
                           choices=("score", "yes"))
    votes: int = setting(0, "with --opinion yes: so many chains of thought before the verdict", low=0, high=1024)
    teacher: str = setting("", "run or checkpoint that judges; empty: the warm start")


def grades(model, task, rollout):
    """sum_s s P(s) / 10 of every row -> (B,), and whether 10 is the likeliest score, (B,) bool; 0 for
    what did not end, or has no answer."""
    chances = dialogue.ask(model, task, dialogue.about("Score: ", task, rollout), SCORES)  # (B, 10)
    there = dialogue.readable(rollout, task)
    scores = chances @ torch.linspace(0.1, 1.0, 10, device=chances.device)
    return scores * there, (chances.argmax(1) == 9) & there


def opinion(model, task, rollout, config, generator=None):
    """What a judge says of every answer -> scores (B,) in [0, 1], whether that means right (B,) bool,
    token cost.

    config: has `opinion`, `votes`, `temperature`.
    """
    if config.opinion == "score":
        return *grades(model, task, rollout), 0
    p, _, cost = verdicts(model, task, rollout, config.votes, generator, config.temperature)
    return p.mean(1), p.mean(1) > 0.5, cost


class RLAIF(GRPO):
    """The algorithm as train.py sees it: see method.py. InputError if the task has no dialogue, or the
    given judge cannot be used."""
    Config, saved = RLAIFConfig, (*GRPO.saved, "judge")

    def __init__(self, policy, task, config, generator=None, reward=None):
        dialogue.needed(task)
        super().__init__(policy, task, config, generator, reward)
        given = config.teacher
        self.judge = load_teacher(given, task, policy) if given else copy.deepcopy(self.reference)

    def update(self, rollout, rewards):
        """The rewards of the rule are only measured -> metrics, a dict of floats (see
        docs/glossary.md)."""
        said, says_right, cost = opinion(self.judge, self.task, rollout, self.config, self.generator)
        rollout.discarded += cost
        metrics = {"proxy": float(said.mean()), "proxy_std": float(said.std(correction=0))}
        return metrics | watched(said, says_right, rollout.right(self.task)) | super().update(rollout, said)


# Exercises
# 1. Let the judge be the policy as it is now (`self.judge = policy`). Who drifts towards whom: plot
#    `proxy`, `accuracy` and `auc`.
# 2. Take the likeliest score in place of the mean. How many groups are left in which the samples differ
#    (`groups_with_variance`)? test_the_reward_is_the_mean_score says what must change.
# 3. --std, and --opinion yes: which of the four combinations is best, and is that the judge's auc, or
#    the spread of its scores?
