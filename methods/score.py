"""SCoRe: learning to correct oneself, in two turns and without anybody who says what was wrong.

The idea. After its answer y1 the policy is told "Try again.", and answers once more, y2. Rewarded for
both answers it may learn two things: to be right at once and repeat that, or to see a mistake and mend
it. The first is the easier one, and then the second turn is dead. So: first hold y1 where it was and
teach the second turn alone; then teach both, with a bonus for progress from the first to the second.

The equations (arXiv:2409.12917, equations 3 and 4):

    stage I     max E[ r2 ] - beta2 KL(pi(. | x) || pi_ref(. | x))          over the tokens of y1 alone
    stage II    max E[ r1 + r2 + alpha (r2 - r1) ] - beta1 KL(pi || pi_ref)             over both
    plain       max E[ r1 + r2 ]                                            what it is compared with

Who gets what: tokens of y2 the reward of the second turn, r2 + alpha (r2 - r1). Tokens of y1, with
--credit turn, r1; with --credit return all that comes after them, as the policy gradient of the
equation asks.

What the bonus is. For y2 the first answer is past: alpha r1 has no gradient in expectation, so the
bonus multiplies the gradient of r2 by 1 + alpha, and -alpha r1 is a baseline that knows how the first
answer went. For y1, with --credit return, it is (1 - alpha) r1 + (1 + alpha) r2: with alpha above 1 a
right first answer is *punished*, unless it makes the second one right more often. With q the chance to
mend a wrong answer, and right ones kept, a wrong first answer earns q (1 + alpha), a right one 2: for
alpha = 10 failing on purpose pays from q = 2/11 on. What holds against it is beta1 alone.

The recipe:
  1. sample a group of first answers, and one second answer behind each (dialogue.second_turn), in one row;
  2. the rule rewards both; advantages r - mean of the group, for each turn its own (`turn_advantages`);
  3. in the first --stage-one steps stage I, then stage II; --stages plain: neither;
  4. follow the loss of grpo.py, with a KL that weighs differently on the two turns.

What is simplified: the baseline is the mean of the group, not divided by its standard deviation (alpha
would be divided away); the prompt of the second turn is one word; stage I has no second, small KL on
y2. pass@1 of the run is that of the first answer; `accuracy` is that of the second one. Both answers
are counted.
"""
import copy
from dataclasses import dataclass

import torch

from config import setting
from dialogue import needed, second_turn
from grpo import actor, group_advantages, kl_estimate, token_weights
from method import Method
from model import make_optimizer
from optimize import Learner, optimize
from sample import SamplingConfig, score

DEFAULTS = {"dialogue": 0.6, "sft_steps": 1000}


@dataclass
class SCoReConfig(SamplingConfig):
    """SCoRe"""
    prompts: int = setting(32, "problems per step", low=1, high=65536)
    stages: str = setting("two", "stage I and then stage II; or plain: r1 + r2", choices=("two", "plain"))
    stage_one: int = setting(30, "steps of stage I", low=0, high=10**7)
    alpha: float = setting(10.0, "stage II: weight of the progress from r1 to r2", low=0.0, high=1000.0)
    credit: str = setting("turn", "tokens of the first answer earn its reward, or all that comes after them",
                          choices=("turn", "return"))
    beta_both: float = setting(0.01, "beta1: weight of the KL to the warm start in stage II", low=0.0, high=100.0)
    beta_first: float = setting(1.0, "beta2: weight of the KL of the first answer in stage I", low=0.0, high=100.0)
    lr: float = setting(3e-4, "AdamW's rate", low=0.0, high=1.0)
    clip_low: float = setting(0.2, "the ratio is clipped below 1 - this", low=0.0, high=1.0)
    clip_high: float = setting(0.2, "the ratio is clipped above 1 + this", low=0.0, high=1e6)
    epochs: int = setting(1, "passes over each batch", low=1, high=1000)
    mini_batches: int = setting(1, "optimizer steps per pass", low=1, high=65536)
    micro_batch: int = setting(64, "rows per forward pass; memory and speed only; on a GPU the whole batch, unless set", low=1, high=65536)
    max_grad_norm: float = setting(1.0, "gradients are scaled down to this norm", low=0.0, high=1e9)


def turn_advantages(r1, r2, group_size, alpha=0.0, credit="turn", hold=False):
    """Rewards (B,) of both answers -> advantages (B,) of the tokens of the first, and of the second answer.

    alpha 0 is the plain sum. hold=True: stage I, in which the first answer earns nothing and the second r2.

    >>> r1, r2 = torch.tensor([0., 1.]), torch.tensor([1., 1.])      # one that mends its answer, one that keeps it
    >>> [a.tolist() for a in turn_advantages(r1, r2, 2, alpha=2.0)]
    [[-0.5, 0.5], [1.0, -1.0]]
    >>> turn_advantages(r1, r2, 2, alpha=2.0, credit="return")[0].tolist()    # returns 3 and 2: failing pays
    [0.5, -0.5]
    """
    second = r2 if hold else r2 + alpha * (r2 - r1)
    first = torch.zeros_like(r1) if hold else r1 + second if credit == "return" else r1
    return tuple(group_advantages(each, group_size, std=False) for each in (first, second))


def turns(task, first, second):
    """What became of the first answers: two rollouts of B rows -> dict of shares of all rows.

    same: both answers are. judge_accuracy: to keep an answer is to call it right; how often is that true?
    """
    r1, r2 = first.right(task), second.right(task)
    answered = [[task.canonical_answer(text) for text in each.completions(task.tokenizer)] for each in (first, second)]
    same = torch.tensor([a is not None and a == b for a, b in zip(*answered)], device=r1.device)
    shares = {"first_right": r1, "second_right": r2, "right_to_wrong": r1 & ~r2, "wrong_to_right": ~r1 & r2, "same": same,
              "judge_accuracy": same == r1}
    return {name: float(each.float().mean()) for name, each in shares.items()}


class SCoRe(Method):
    """The algorithm as train.py sees it: see method.py. InputError if the task knows no second turn."""
    Config, saved = SCoReConfig, ("optimizer", "reference", "steps")

    def __init__(self, policy, task, config, generator=None, reward=None):
        super().__init__(policy, task, config, generator, reward)
        needed(task)
        self.reference = copy.deepcopy(policy).requires_grad_(False)
        self.optimizer, self.steps = make_optimizer(policy, config.lr), 0

    def collect(self, problems):
        """-> the rollout of the second answers, what was sampled for the first ones in `discarded`."""
        self.first = super().collect(problems)
        second, self.both = second_turn(self.policy, self.task, self.first, self.config, self.generator)
        second.discarded = self.first.sampled_tokens
        return second

    def update(self, rollout, rewards):
        """rewards (B,): those of the second answers -> metrics, a dict of floats (see docs/glossary.md)."""
        c, both, device = self.config, self.both, self.policy.device
        plain, hold = c.stages == "plain", c.stages == "two" and self.steps < c.stage_one
        self.steps += 1
        A1, A2 = turn_advantages(self.reward(self.first).to(device), rewards.to(device), c.group_size,
                                 0.0 if plain else c.alpha, c.credit, hold)
        is_first = both.mask & ~rollout.mask  # (B, T): tokens of the first answer; its end is not among them
        advantages = torch.where(is_first, A1[:, None], A2[:, None]) * both.mask
        betas = 0.0 * advantages if plain else c.beta_first * is_first.float() if hold else c.beta_both * both.mask.float()
        self.seen["advantages"] = advantages
        weights = token_weights(both.mask, "constant", 2 * self.max_new_tokens)
        held = []

        def hold_on(part, logprobs, _):
            """The KL, of which each answer has its own weight."""
            tokens, mask, beta, y1 = part.cut(both.tokens, both.mask, betas, is_first)
            with torch.no_grad():
                ref_logprobs, _ = score(self.reference, tokens, c.temperature)
            held.append((logprobs.detach() - ref_logprobs)[y1].sum())
            kl = kl_estimate(logprobs.masked_fill(~mask, 0.0), ref_logprobs.masked_fill(~mask, 0.0), "k2")
            return (part.weights * beta * kl).sum()

        loss, before = actor(self.policy, both, advantages, c, more=hold_on, aggregate="constant")
        rows, steps = both.mask.any(1).nonzero()[:, 0], c.mini_batches
        metrics = optimize([Learner(self.optimizer, loss, before=before)], rows, both.mask, c, lambda rows: weights[rows] * steps,
                           self.generator if steps > 1 else None)
        metrics["kl_first"] = float(sum(held)) / max(1, int(is_first.sum())) / c.epochs
        return metrics | turns(self.task, self.first, rollout) | {"stage": 0 if plain else 1 if hold else 2}


# Exercises
# 1. `first_right` is what the first answer is worth. Train with --credit return --alpha 10 and watch it: when does
#    failing on purpose begin, and what do q (`wrong_to_right` / (1 - `first_right`)) and the inequality above say?
#    (test_failing_on_purpose_pays_where_the_equation_says)
# 2. --beta-first 0 in stage I: what happens to `first_right` and `kl_first`, and to `wrong_to_right`?
# 3. Set alpha to 0 and subtract from r2 the mean over those rows of its group whose first answer was as right. Is the
#    gradient's noise smaller than with the bonus? test_the_bonus_is_a_scale_in_expectation says what must not change.
