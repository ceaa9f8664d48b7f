"""VinePPO: credit for every reasoning step without a critic. Go back to the step, let the policy go on
from there, look what comes.

The idea. PPO asks a critic how good a half-finished solution looks, and in reasoning critics are poor
judges. But a text can be put back to any of its tokens, so nobody has to guess: from the state before
each step the policy finishes the solution K times, and the mean reward is an unbiased estimate of the
value. A step is good if more solutions end well after it than before it.

The equations (arXiv:2410.01679, section 4; s_j is prompt and steps 1 ... j, and s_J the whole completion):

    V(s_j)   = 1/K sum_k r(s_j + the k-th way in which pi_old went on)     j < J; V(s_J) = r: at the end nothing is left to chance
    A_t      = V(s_j) - V(s_j-1)                                           for all tokens t of step j
    J        = 1/N sum_t min(rho_t A_t, clip(rho_t, 1 - eps, 1 + eps) A_t)       rho_t = pi/pi_old; N: all tokens of the batch

In the words of ppo.py: gamma = lambda = 1 step by step, and Monte Carlo in the place of the critic. The
advantages of a completion add up to r - V(s_0), step by step: with one step this is REINFORCE whose
baseline are K other samples.

The recipe:
  1. sample completions (`collect`); the rule rewards them (train.py);
  2. cut them into steps: a step ends with `task.step_token`, the last one with the completion (verifier.step_ends);
  3. from every state before a step let the policy go on, K times; reward that as well; subtract (`step_advantages`);
  4. follow the clipped loss of grpo.py.

What is simplified: no KL to the warm start (the authors have a weak one in the loss), and advantages
are not whitened. K is 4; theirs is 9. States that several samples share, the prompt above all, are
valued once. What the rollouts write is counted (`tokens`) and never trained on.
"""
from dataclasses import dataclass

import torch

from config import setting
from grpo import actor, token_weights
from method import Method
from model import make_optimizer
from optimize import Learner, optimize
from sample import SamplingConfig
from verifier import rollout_values, step_ends


@dataclass
class VinePPOConfig(SamplingConfig):
    """VinePPO"""
    prompts: int = setting(16, "problems per step", low=1, high=65536)
    rollouts: int = setting(4, "K: Monte-Carlo rollouts from the state before each step", low=1, high=10**4)
    lr: float = setting(3e-4, "AdamW's rate", low=0.0, high=1.0)
    clip_low: float = setting(0.2, "the ratio is clipped below 1 - this", low=0.0, high=1.0)
    clip_high: float = setting(0.2, "the ratio is clipped above 1 + this", low=0.0, high=1e6)
    epochs: int = setting(1, "passes over each batch", low=1, high=1000)
    mini_batches: int = setting(2, "optimizer steps per pass", low=1, high=65536)
    micro_batch: int = setting(32, "rows per forward pass; memory and speed only; on a GPU the whole batch, unless set", low=1, high=65536)
    max_grad_norm: float = setting(1.0, "gradients are scaled down to this norm", low=0.0, high=1e9)


def step_advantages(V, ends, mask):
    """A_t of the equations above. V (B, J + 1): V[b, j] is the value of row b after j steps (behind its
    last step: anything); ends (B, T) bool: the last token of each step; mask (B, T) bool -> (B, T), 0
    outside of the mask.

    >>> ends, mask = torch.tensor([[0, 0, 1, 0, 1, 0]]).bool(), torch.tensor([[0, 1, 1, 1, 1, 0]]).bool()
    >>> step_advantages(torch.tensor([[0.5, 0.25, 1.0]]), ends, mask).tolist()
    [[0.0, -0.25, -0.25, 0.75, 0.75, 0.0]]
    """
    step = (ends.cumsum(1) - ends.long()).clamp(max=V.shape[1] - 2)  # (B, T): how many steps were complete before this token
    return (V.gather(1, step + 1) - V.gather(1, step)).masked_fill(~mask, 0.0)


class VinePPO(Method):
    """The algorithm as train.py sees it: see method.py."""
    Config, saved = VinePPOConfig, ("optimizer",)

    def __init__(self, policy, task, config, generator=None, reward=None):
        super().__init__(policy, task, config, generator, reward)
        self.optimizer = make_optimizer(policy, config.lr)

    def advantages(self, rollout, rewards):
        """-> advantages (B, T), how many states were valued, the mean value of the prompts. Adds the cost to rollout.discarded."""
        c, ends, device = self.config, step_ends(rollout, self.task), self.policy.device
        tokens, starts, states, visited = rollout.tokens.tolist(), rollout.prompt_lengths.tolist(), {}, []
        after = [[t + 1 for t, end in enumerate(row) if end] for row in ends.tolist()]
        for b, row in enumerate(tokens):
            places = [starts[b], *after[b][:-1]]  # so many tokens have been read before each step
            visited.append([tuple(row[:n]) for n in places])
            states |= {tuple(row[:n]): (rollout.problems[b], starts[b] + self.max_new_tokens - n) for n in places}
        problems, limits = zip(*states.values())
        _, spent, ways, _ = rollout_values(self.policy, self.task, [list(state) for state in states], problems, limits, c.rollouts,
                                           c.temperature, self.generator)
        rollout.discarded += spent
        value = dict(zip(states, self.reward(ways).view(-1, c.rollouts).mean(1).tolist()))  # each has room to go on: none is an end
        V = [[*(value[state] for state in row), reward] for row, reward in zip(visited, rewards.tolist())]
        longest = max(map(len, V))
        table = torch.tensor([row + [0.0] * (longest - len(row)) for row in V], device=device)
        return step_advantages(table, ends, rollout.mask), len(states), float(table[:, 0].mean())

    def update(self, rollout, rewards):
        """rewards (B,) float32 -> metrics, a dict of floats (see docs/glossary.md)."""
        c = self.config
        advantages, states, value_first = self.advantages(rollout, rewards)
        self.seen["advantages"] = advantages
        rows = (advantages != 0).any(1).nonzero()[:, 0]  # the others have no gradient
        steps, weights = min(c.mini_batches, len(rows)), token_weights(rollout.mask, "token_mean")
        loss, before = actor(self.policy, rollout, advantages, c, aggregate="token_mean")
        return {"states": states, "value_first": value_first} | optimize(
            [Learner(self.optimizer, loss, before=before)], rows, rollout.mask, c, lambda rows: weights[rows] * steps, self.generator)


# Exercises
# 1. Give all tokens of a completion the sum of its steps' advantages, r - V(s_0). Which row of grpo.py's TABLE is this, up to the
#    baseline? Compare at equal `tokens`: what does the credit of each step cost, and what does it earn?
#    (test_the_advantages_of_the_steps_add_up)
# 2. Value a state by the samples that are there anyway: those of the group that went through it. For which states is that enough?
#    test_states_that_are_shared_are_valued_once counts what would be saved.
# 3. Train a critic beside it (ppo.py) and log how far its values are from these, at the end of each step, over the run.
