"""Proposer and solver: one policy sets itself the problems that it then learns to solve.

The idea. Where do problems come from when nobody hands them out? From the policy: asked "Propose.", it writes a problem. The rule
does the rest, for any problem that can be read: it judges the solver's answers. And the share of right ones says what the problem is
worth. A problem that is always solved teaches nothing, one that is never solved teaches nothing; and that is what the proposer earns.

The equations (s: the mean of r over the G answers to a proposed problem; P proposals a step, n of them the same problem):

    zero   r_propose = 1 - s if s > 0 else 0                 Absolute Zero (arXiv:2505.03335, equation 4)
    half   r_propose = min(s, 1 - s)                         R-Zero (arXiv:2508.05004): 1 - 2 |s - 1/2|, halved
    minus  repetition * (n - 1) / P, and not below 0          R-Zero: so that it does not propose the same one for ever
    A_propose = (r_propose - mean) / std over the P proposals: they answer the same prompt, so they are one group
    J         = J_solve + weight * J_propose                 both as in grpo.py

The recipe:
  1. sample P proposals; a proposal is valid if it can be read, has the task's sizes, and its key falls into the train split: what
     is solved is never of val or test. The others earn 0 and are not solved;
  2. sample G answers to each valid proposal (`collect`); the rule rewards them (train.py);
  3. reward the proposals (`proposer_rewards`); one optimizer step on both.

The problems that train.py draws are used only if no proposal is valid. The tokens of the proposals are counted (`discarded`).

What is simplified: Absolute Zero proposes programs of three kinds and keeps a buffer of earlier proposals, which it shows to the proposer;
R-Zero trains two models in turns and has no rule but a vote; there problems are the same if their words are alike, here if their keys are.
"""
from collections import Counter
from dataclasses import dataclass

import torch

from config import InputError, setting
from dialogue import needed
from grpo import GRPO, GRPOConfig, group_advantages, token_weights
from optimize import optimize
from sample import generate, join
from tasks import split_of

DEFAULTS = {"dialogue": 0.6, "sft_steps": 1000}


@dataclass
class ProposeConfig(GRPOConfig):
    """proposer and solver"""
    proposer_reward: str = setting("zero", "1 - s, but 0 where nobody succeeds; or min(s, 1 - s)", choices=("zero", "half"))
    repetition: float = setting(1.0, "what n equal proposals of P cost each: this times (n - 1) / P", low=0.0, high=100.0)
    proposer_weight: float = setting(1.0, "weight of the proposer's loss; 0: it stays as imitation left it", low=0.0, high=100.0)


def readable(task, ids):
    """The Problem that a proposal states, a list of token ids, or None: not readable, of other sizes, or not of the train split."""
    try:
        problem = task.parse_problem(task.tokenizer.decode(ids))
    except (ValueError, IndexError):
        return None
    o, (_, *numbers, target) = task.options, problem.key
    fits = len(numbers) == o.numbers and 1 <= min(numbers) and max(numbers) <= o.max_number and 1 <= target <= o.max_target
    return problem if fits and task.tokenizer.encode(problem.prompt) == ids and split_of(problem.key) == "train" else None


def written_problems(task, proposals):
    """-> list of P: the Problem of each row of a Rollout that ended by itself and can be read, else None."""
    rows = zip(proposals.tokens.tolist(), proposals.prompt_lengths.tolist(), proposals.lengths.tolist(), proposals.finished.tolist())
    return [readable(task, row[start:end - 1]) if ended else None for row, start, end, ended in rows]


def proposer_rewards(success, keys, kind="zero", repetition=0.0):
    """r_propose of the equations. success: list of P, s of each proposal, None where it was not solved; keys: list of P -> list of P.

    >>> proposer_rewards([0.25, 0.0, 1.0, None], "abcd")
    [0.75, 0.0, 0.0, 0.0]
    >>> proposer_rewards([0.25, 0.25, 0.75, None], "aabc", kind="half", repetition=0.5)
    [0.125, 0.125, 0.25, 0.0]
    """
    count, rewards = Counter(keys), []
    for s, key in zip(success, keys):
        worth = 0.0 if not s else 1 - s if kind == "zero" else min(s, 1 - s)
        rewards.append(max(0.0, worth - repetition * (count[key] - 1) / len(keys)))
    return rewards


class Propose(GRPO):
    """The algorithm as train.py sees it: see method.py. InputError if the task has no such prompt, or a setting cannot be used here."""
    Config = ProposeConfig

    def __init__(self, policy, task, config, generator=None, reward=None):
        needed(task)
        if config.dynamic_sampling or config.renew_reference:
            raise InputError("--dynamic-sampling and --renew-reference: not with a method whose batches hold proposals as well; leave them out")
        super().__init__(policy, task, config, generator, reward)

    def collect(self, problems):
        c, task = self.config, self.task
        prompt = task.tokenizer.encode("Propose.\n")
        self.proposals = generate(self.policy, [prompt] * c.prompts, task.max_prompt_tokens, c.temperature, eos=task.tokenizer.eos,
                                  pad=task.tokenizer.pad, generator=self.generator)
        self.proposed = written_problems(task, self.proposals)
        valid = [problem for problem in self.proposed if problem]
        rollout = super().collect(valid or problems)
        rollout.discarded += self.proposals.sampled_tokens
        return rollout

    def update(self, rollout, rewards):
        """rewards (B,) of the rule, for the answers -> metrics, a dict of floats (see docs/methods.md)."""
        c, P = self.config, len(self.proposed)
        places = [i for i, problem in enumerate(self.proposed) if problem]
        success = [None] * P
        if places:
            for i, s in zip(places, rollout.right(self.task).float().view(-1, c.group_size).mean(1).tolist()):
                success[i] = s
        keys = [problem.key if problem else f"not valid {i}" for i, problem in enumerate(self.proposed)]
        earned = torch.tensor(proposer_rewards(success, keys, c.proposer_reward, c.repetition))
        solver = self.seen["advantages"] = self.advantages(rollout, self.shape(rollout, rewards.to(self.policy.device)))  # (B, T)
        proposer = group_advantages(earned, P, c.std).to(solver)
        self.steps += 1
        metrics = {"kl": self.kl(rollout), "propose_reward": float(earned.mean())} | self.curriculum([self.proposed[i] for i in places])
        both = join([rollout, self.proposals])
        fit = lambda x: torch.nn.functional.pad(x, (0, both.mask.shape[1] - x.shape[1]))
        weights = torch.cat((fit(token_weights(rollout.mask, c.loss_aggregation, self.max_new_tokens)),
                             fit(token_weights(self.proposals.mask, c.loss_aggregation, self.max_new_tokens)) * c.proposer_weight))
        advantages = torch.cat((fit(solver), proposer[:, None].expand(P, both.mask.shape[1])))
        rows = ((advantages != 0).any(1) if c.beta == c.entropy_bonus == 0 else both.mask.any(1)).nonzero()[:, 0]
        steps = min(c.mini_batches, len(rows))
        learner = self.learner(both, advantages)
        return metrics | optimize([learner], rows, both.mask, c, lambda rows: weights[rows] * steps,
                                  self.generator if steps > 1 else None)

    def curriculum(self, valid):
        """What is proposed -> metrics: valid, distinct: shares of the proposals; propose_entropy: of their texts, nats, an estimate from
        the log-probs; luck: how often a random attempt solves a valid one (the higher, the easier)."""
        P = len(self.proposed)
        found = {"valid": len(valid) / P, "distinct": len({problem.key for problem in valid}) / P,
                 "propose_entropy": float(-self.proposals.logprobs.sum() / P)}
        return found | ({"luck": self.task.random_search(valid, 1.0, searches=16)} if valid else {})


# Exercises
# 1. --repetition 0 and 1, 100 steps each: plot `distinct` and `propose_entropy`. What does the proposer that is not fined end with?
#    Then fine it for proposing the same numbers, whatever the target (`keys` in `update`).
# 2. Let `readable` accept problems of four numbers. test_a_proposal_is_a_whole_prompt_of_the_tasks_sizes fails; does the policy ever
#    write one, and why not?
# 3. Reward the proposer by learning progress: the change of s since the problem (or one of like luck) was last proposed. What happens to
#    problems that cannot be solved at all?
