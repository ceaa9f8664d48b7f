"""PPO with a critic: every token gets its own advantage, from a second network that predicts how things
will end.

The idea. GRPO tells all tokens of a completion the same thing: it was better, or worse, than its
neighbours. A critic V learns what to expect after each token; a token is good if things look better
after it than before. Four models take part:

    actor      pi       the policy: sampled from, trained                     (the warm start, then its own way)
    critic     V        predicts the reward still to come; trained            (backbone: a copy of the warm start; head: zero)
    reference  pi_ref   the warm start, frozen: the actor shall not run away  (KL in the reward)
    reward model        here a rule (rewards.py) that looks at the finished completion

The equations (PPO, arXiv:1707.06347; GAE, arXiv:1506.02438; for language models InstructGPT,
arXiv:2203.02155):

    r_t     = - beta (log pi_old(a_t|s_t) - log pi_ref(a_t|s_t)) + [t is the last token] R      the KL is in the reward
    delta_t = r_t + gamma V(s_t+1) - V(s_t)                                     V after the last token is 0
    A_t     = delta_t + gamma lam A_t+1                                         GAE; lam = 1: A_t = return - V(s_t)
    G_t     = A_t + V(s_t)                                                      what the critic is taught
    J       = mean over tokens  min(rho_t A_t, clip(rho_t, 1 - eps, 1 + eps) A_t)
    L_V     = mean over tokens  1/2 max( (V - G_t)^2, (V_old + clip(V - V_old, -eps_V, eps_V) - G_t)^2 )

s_t is the prompt and the completion before token t; a_t is token t. The policy term is that of grpo.py
(`policy_loss`), only with an advantage of its own for each token.

The recipe:
  1. sample completions (`collect`); the rule rewards them (train.py);
  2. log-probs of the reference, values of the critic: the reward and the value of each token (`token_rewards`);
  3. advantages and returns by GAE (`gae`), advantages whitened over the batch;
  4. one or several epochs of shuffled mini-batches: one step of the actor and one of the critic for each.

What is simplified: actor and critic share nothing, not even a backbone; the critic starts from the
policy, not from a reward model; no learning-rate schedule. Running out of tokens is a failure of the
task: reward 0 and no value beyond the end (no bootstrap). Details that matter in practice:
arXiv:2403.17031, "The N+ Implementation Details of RLHF with PPO".
"""
import copy
from dataclasses import dataclass

import torch

from config import InputError, setting
from grpo import actor, kl_estimate, token_weights
from method import Method
from model import ScalarModel, make_optimizer
from optimize import Learner, optimize
from sample import SamplingConfig, score, values


@dataclass
class PPOConfig(SamplingConfig):
    """PPO"""
    prompts: int = setting(512, "problems per step", low=1, high=65536)
    group_size: int = setting(1, "samples per problem; the critic is the baseline, so one is enough", low=1, high=65536)
    lr: float = setting(3e-4, "AdamW's rate, actor", low=0.0, high=1.0)
    critic_lr: float = setting(1e-3, "AdamW's rate, critic", low=0.0, high=1.0)
    critic_warmup: int = setting(2, "first steps in which the critic learns alone", low=0, high=10**6)
    gamma: float = setting(1.0, "discount per token", low=0.0, high=1.0)
    lam: float = setting(0.95, "GAE's lambda: 1 waits for the outcome, 0 trusts the critic", low=0.0, high=1.0)
    beta: float = setting(0.01, "weight of the KL to the warm start in the reward", low=0.0, high=100.0)
    kl_target: float = setting(0.0, "adapt beta towards this KL, nats per completion; 0: beta stays", low=0.0, high=1e6)
    clip_low: float = setting(0.2, "the ratio is clipped below 1 - this", low=0.0, high=1.0)
    clip_high: float = setting(0.2, "the ratio is clipped above 1 + this", low=0.0, high=1e6)
    value_clip: float = setting(0.2, "a value may move this far from the old one per batch; 0: as far as it likes", low=0.0, high=1e6)
    whiten: bool = setting(True, "shift and scale the advantages of a batch to mean 0, variance 1")
    epochs: int = setting(1, "passes over each batch", low=1, high=1000)
    mini_batches: int = setting(4, "optimizer steps per pass", low=1, high=65536)
    micro_batch: int = setting(64, "rows per forward pass; memory and speed only; on a GPU the whole batch, unless set", low=1, high=65536)
    max_grad_norm: float = setting(1.0, "gradients are scaled down to this norm", low=0.0, high=1e9)


def token_rewards(rewards, logprobs, ref_logprobs, mask, beta):
    """r_t: a penalty for every step away from the reference, and the task's reward on the last token of
    the row.

    rewards (B,), logprobs and ref_logprobs (B, T), mask (B, T) bool -> (B, T), 0 outside of the mask.
    The penalty is the k1 estimate of the KL: in a reward, where a token also pays for those after it, it
    is right; not in a loss (grpo.kl_estimate).

    >>> token_rewards(torch.tensor([1.0]), torch.tensor([[0.0, -1.0, -2.0, 0.0]]), torch.zeros(1, 4),
    ...               torch.tensor([[False, True, True, False]]), beta=0.5).tolist()
    [[0.0, 0.5, 2.0, 0.0]]
    """
    r = -beta * kl_estimate(logprobs, ref_logprobs, "k1").masked_fill(~mask, 0.0) + 0.0  # + 0.0: no negative zeros
    place = torch.arange(mask.shape[1], device=mask.device)
    last = (place * mask).amax(1)  # (B,) the last position in the mask
    return r + rewards[:, None] * ((place == last[:, None]) & mask)


def gae(rewards, values, mask, gamma, lam):
    """Generalised advantage estimation: rewards, values (B, T), mask (B, T) bool -> advantages, returns
    (B, T).

    The masked tokens of a row are neighbours; behind the last one nothing follows, so its next value is
    0. What stands outside of the mask changes nothing, and comes out as 0. Source: arXiv:1506.02438,
    equation 16.

    >>> advantages, returns = gae(torch.tensor([[0., 0., 1.]]), torch.tensor([[9., 0.5, 0.5]]),
    ...                           torch.tensor([[False, True, True]]), gamma=1.0, lam=1.0)
    >>> advantages.tolist(), returns.tolist()
    ([[0.0, 0.5, 0.5]], [[0.0, 1.0, 1.0]])
    """
    rewards, values = rewards.masked_fill(~mask, 0.0), values.masked_fill(~mask, 0.0)
    advantages, after, running = torch.zeros_like(rewards), torch.zeros_like(rewards[:, 0]), torch.zeros_like(rewards[:, 0])
    for t in reversed(range(rewards.shape[1])):
        delta = rewards[:, t] + gamma * after - values[:, t]
        running = (delta + gamma * lam * running) * mask[:, t]
        advantages[:, t], after = running, values[:, t]
    return advantages, advantages + values


def whiten(x, mask):
    """Shift and scale the masked entries to mean 0 and variance 1 (population); the others become 0.
    All equal: all 0.

    >>> whiten(torch.tensor([[1.0, 3.0, 7.0]]), torch.tensor([[True, True, False]])).tolist()
    [[-1.0, 1.0, 0.0]]
    """
    centred = (x - x[mask].mean()).masked_fill(~mask, 0.0)
    return centred / x[mask].std(correction=0) if x[mask].amax() > x[mask].amin() else torch.zeros_like(x)


def value_loss(values, old_values, returns, mask, clip, weights=None):
    """L_V of the equations above -> loss (scalar), share of tokens whose gradient the clip removed.

    All (B, T). The larger of the two errors counts, so the clip only ever holds back a step that has
    already gone far enough towards its target; clip 0: no clip. `weights` (B, T): how much each token
    counts; without it, all masked ones the same.
    """
    if weights is None:
        weights = token_weights(mask, "token_mean")
    values, old_values, returns = (x.masked_fill(~mask, 0.0) for x in (values, old_values, returns))
    free = (values - returns) ** 2
    clipped = (old_values + (values - old_values).clamp(-clip, clip) - returns) ** 2 if clip else free
    return 0.5 * (weights * torch.maximum(free, clipped)).sum(), ((clipped > free) & mask).sum() / mask.sum().clamp(min=1)


def explained_variance(values, targets, mask):
    """1 - Var(targets - values) / Var(targets) over the masked tokens: 1 is perfect, 0 no better than a
    constant. A float.

    >>> explained_variance(torch.tensor([[0.0, 1.0]]), torch.tensor([[0.0, 1.0]]), torch.tensor([[True, True]]))
    1.0
    """
    variance = targets[mask].var(correction=0)
    return float(1 - (targets - values)[mask].var(correction=0) / variance) if variance > 0 else 0.0


class PPO(Method):
    """The algorithm as train.py sees it: see method.py. The policy is the actor."""
    Config, saved = PPOConfig, ("actor_optimizer", "critic_optimizer", "reference", "critic", "beta", "steps")

    def __init__(self, policy, task, config, generator=None, reward=None):
        super().__init__(policy, task, config, generator, reward)
        if config.kl_target and not config.beta:
            raise InputError("--kl-target: needs a --beta above 0 to begin with, for it is multiplied")
        self.reference = copy.deepcopy(policy).requires_grad_(False)
        self.critic = ScalarModel(policy)
        self.actor_optimizer = make_optimizer(policy, config.lr)
        self.critic_optimizer = make_optimizer(self.critic, config.critic_lr)
        self.beta, self.steps = config.beta, 0

    @torch.no_grad()
    def frozen(self, rollout, batch=256):
        """The frozen picture of this batch: log-probs of the reference and values of the critic, each (B, T)."""
        over = lambda f: torch.cat([f(tokens) for tokens in rollout.tokens.split(batch)])
        return (over(lambda tokens: score(self.reference, tokens, self.config.temperature)[0]),
                over(lambda tokens: values(self.critic, tokens)))

    def update(self, rollout, rewards):
        """rewards (B,) float32 -> metrics, a dict of floats (see docs/glossary.md)."""
        c, mask, device = self.config, rollout.mask, self.policy.device
        ref_logprobs, old_values = self.frozen(rollout)
        r = token_rewards(rewards.to(device), rollout.logprobs, ref_logprobs, mask, self.beta)
        advantages, returns = gae(r, old_values, mask, c.gamma, c.lam)
        mc_returns = gae(r, old_values, mask, c.gamma, 1.0)[1]  # Monte Carlo: what really came, which the critic is measured by at any lambda
        kl = {k: float(kl_estimate(rollout.logprobs, ref_logprobs, k)[mask].mean()) for k in ("k1", "k3")}
        first = mask.int().argmax(1, keepdim=True)
        last = (mask * torch.arange(mask.shape[1], device=device)).amax(1, keepdim=True)
        metrics = {"kl": kl["k1"], "kl_k3": kl["k3"], "beta": self.beta,
                   "explained_variance": explained_variance(old_values, mc_returns, mask),
                   "value_first": float(old_values.gather(1, first).mean()), "value_last": float(old_values.gather(1, last).mean())}
        if c.whiten:
            advantages = whiten(advantages, mask)
        self.seen = {"advantages": advantages, "ref_logprobs": ref_logprobs, "values": old_values}

        def critic(part):
            tokens, m, old_V, G = part.cut(rollout.tokens, mask, old_values, returns)
            loss_V, clipped = value_loss(values(self.critic, tokens), old_V, G, m, c.value_clip, part.weights)
            return loss_V, {"clip_fraction": (clipped * m.sum(), m.sum())}

        learners = [Learner(self.critic_optimizer, critic, "critic")]
        if self.steps >= c.critic_warmup:
            loss, before = actor(self.policy, rollout, advantages, c, aggregate="token_mean")
            learners.append(Learner(self.actor_optimizer, loss, before=before))
        metrics |= optimize(learners, torch.arange(len(mask), device=device), mask, c,
                            lambda rows: token_weights(mask[rows], "token_mean"), self.generator)
        if c.kl_target and self.steps >= c.critic_warmup:  # arXiv:1909.08593, equation 2.2: proportional control, in small steps
            per_completion = kl["k1"] * float(mask.sum()) / len(mask)
            self.beta *= 1 + 0.1 * min(max(per_completion / c.kl_target - 1, -0.2), 0.2)
        self.steps += 1
        metrics["value_loss"], metrics["value_clip_fraction"] = metrics.pop("critic_loss"), metrics.pop("critic_clip_fraction")
        return metrics


# Exercises
# 1. Set lam to 1 in `gae` and the critic to zero (--critic-lr 0). Which algorithm of grpo.py's TABLE does one pass of PPO turn
#    into, up to the baseline? test_lambda_one_is_return_minus_value in tests/test_ppo.py has the identity.
# 2. Let the value of a token see the token itself: drop the shift in `sample.values`. Which tests fail, and why does the loss of
#    the critic look *better* in the meantime? (test_a_value_has_not_seen_its_token)
# 3. Move the KL from the reward into the loss, as GRPO has it (`policy_loss` takes ref_logprobs and beta). The advantages lose
#    their penalty for leaving the reference: which of the two lets a single token of a right answer pay for all the others?
#    test_token_rewards pins where the penalty stands now.
