"""STaR: learning from one's own right answers; with a teacher's: distillation; with those that search
found: expert iteration. (Distillation of what the student itself writes: distill.py.)

The idea. Sample, keep what the rule accepts, fine-tune on that, repeat (arXiv:2203.14465; also called
rejection sampling).

    loss = - 1/N  sum over the tokens of the kept completions  log pi(y_t | x, y_<t)          N: how many these are

In the words of grpo.py: an advantage of 1 for right answers and 0 for wrong ones, no baseline, no clip.
What comes out as often as it goes in is confirmed, not only what is better than usual.

The recipe:
  1. sample completions: from the policy, from another run (--teacher: distillation), or from a search that spends --expert-budget
     tokens on each problem (--expert: expert iteration, as in AlphaZero);
  2. keep the rows that the rule accepts;
  3. imitate them, as the warm start imitates demonstrations.

What is simplified: STaR begins each round anew from the first model and explains its mistakes with a
hint; here it goes on from where it is, without hints. It imitates at temperature 1 whatever was
sampled, at any temperature.
"""
from dataclasses import dataclass

import torch

from config import setting
from method import Method
from model import make_optimizer
from optimize import Learner, optimize
from plumbing.warm_starts import load_teacher
from sample import Rollout, SamplingConfig, completion_mask, score
from search import best_of_n, tree_search
from search_context import SearchContext


@dataclass
class STaRConfig(SamplingConfig):
    """STaR"""
    teacher: str = setting("", "run or checkpoint that the samples come from; empty: the policy itself")
    expert: str = setting("none", "search, in place of sampling, finds what is imitated", choices=("none", "best_of_n", "mcts"))
    expert_budget: int = setting(256, "tokens that the expert may spend on a problem", low=1, high=10**6)
    lr: float = setting(3e-4, "AdamW's rate", low=0.0, high=1.0)
    epochs: int = setting(1, "passes over what was kept of a step", low=1, high=1000)
    mini_batches: int = setting(2, "optimizer steps per pass", low=1, high=65536)
    micro_batch: int = setting(64, "rows per forward pass; memory and speed only; on a GPU the whole batch, unless set", low=1, high=65536)
    max_grad_norm: float = setting(1.0, "gradients are scaled down to this norm", low=0.0, high=1e9)


class STaR(Method):
    """The algorithm as train.py sees it: see method.py. InputError if there is no such teacher."""
    Config, saved = STaRConfig, ("optimizer",)

    def __init__(self, policy, task, config, generator=None, reward=None):
        super().__init__(policy, task, config, generator, reward)
        if config.teacher:
            self.behavior = load_teacher(config.teacher, task, policy)
        if config.expert != "none":
            self.collect = expert(self.behavior, task, config, generator)
        self.optimizer = make_optimizer(policy, config.lr)

    def update(self, rollout, rewards):
        """Fine-tune on the rows that the rule accepts -> metrics. `rewards` may hold more than the verdict; it is not looked at."""
        kept = rollout.right(self.task).nonzero()[:, 0]
        self.seen["advantages"] = rollout.right(self.task).float()

        def loss(part):
            tokens, mask = part.cut(rollout.tokens, rollout.mask)
            return -(score(self.policy, tokens)[0] * mask).sum() / part.tokens, {}

        return {"kept": len(kept)} | optimize([Learner(self.optimizer, loss)], kept, rollout.mask, self.config,
                                              generator=self.generator)


def expert(model, task, config, generator=None):
    """Expert iteration: a `collect(problems) -> Rollout` that searches, for an algorithm that imitates what
    it is given.

    config: has `expert` ("best_of_n" or "mcts"), `expert_budget`, `temperature`, `max_new_tokens`. One
    solution a problem. These are training problems, so the rule may choose, whatever the task. Tokens that
    were sampled and not used are in `discarded`.
    """
    def collect(problems):
        context = SearchContext(model, task, problems, config.max_new_tokens, config.temperature, generator,
                                rollouts=1)
        if config.expert == "mcts":
            rows, _ = tree_search(context, config.expert_budget, context.from_rollouts, context.rule)
        else:
            rows = best_of_n(context, max(1, config.expert_budget // context.limit), context.rule)
        longest, device = max(map(len, rows)), model.device
        tokens = torch.tensor([row + [context.pad] * (longest - len(row)) for row in rows], device=device)  # (B, T)
        starts = torch.tensor([len(prompt) for prompt in context.prompts], device=device)
        lengths = torch.tensor([len(row) for row in rows], device=device)
        mask = completion_mask(starts, lengths, longest)
        with torch.no_grad():
            logprobs = torch.cat([score(model, part, config.temperature)[0] for part in tokens.split(256)])
        finished = tokens.gather(1, lengths[:, None] - 1)[:, 0] == context.eos
        return Rollout(tokens, starts, lengths, mask, logprobs.masked_fill(~mask, 0.0), finished, problems,
                       discarded=sum(context.token_cost) - int(mask.sum()))
    return collect


# Exercises
# 1. Weigh each kept row by 1 / (right answers of its group). Which problems gain, and what happens to pass@8? Compare with
#    `--algo grpo`, and with test_star_is_reinforce_without_a_baseline.
# 2. Distil: train `--algo star --teacher runs/grpo-countdown-0` on the warm start, for as many tokens as the teacher's own training
#    took. test_a_teacher_is_sampled_and_not_trained says what must stay fixed.
# 3. Keep also the shortest wrong answer of a group that has no right one. What does test_star_keeps_only_what_the_rule_accepts say,
#    and what happens to accuracy after ten steps?
