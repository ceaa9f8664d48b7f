"""GRPO and its variants: reinforcement learning from a rule, with the group of samples as its own
baseline.

The idea. Sample G completions o_1 ... o_G of one prompt and let the rule reward them, r_1 ... r_G.
Those above the group's mean become more likely, those below less likely. The mean is the baseline: a
Monte-Carlo estimate of what the critic in PPO has to learn. No critic, no learned reward, no labels:
only a rule and the policy's own variety.

The equations (DeepSeekMath, arXiv:2402.03300, equations 3, 4 and section 4.1.2):

    A_i      = (r_i - mean(r)) / std(r)                                          one number for all tokens of o_i
    rho_it   = pi(o_it | q, o_i<t) / pi_old(o_it | q, o_i<t)
    J        = 1/G sum_i 1/|o_i| sum_t [ min(rho_it A_i, clip(rho_it, 1 - eps, 1 + eps) A_i) - beta KL_it ]
    KL_it    = pi_ref/pi - log(pi_ref/pi) - 1                                    the "k3" estimate, never negative

The loss is -J. The clip removes the gradient of a token only where the update has already gone far
enough in the direction it was asked to go: A > 0 and rho > 1 + eps, or A < 0 and rho < 1 - eps. With
one update per batch rho is 1 throughout, and the loss minus the weighted mean of the advantages: 0 with
sequence_mean, for those of a group add up to 0, and otherwise a matter of length. It does not say what
the policy has learned: only its gradient, A * grad log pi, means anything.

The recipe:
  1. sample G completions for each of some prompts (`collect`); the rule rewards them (train.py);
  2. normalise the rewards within each group: advantages (`group_advantages`); a zero-variance group teaches nothing;
  3. recompute the log-probs with a gradient, form the loss (`policy_loss`), step; perhaps several times.

The variants differ from this in a few settings each. TABLE has them all, one row a method. Some have an
equation of their own; sg[.] is a number that no gradient flows through:

    s_i      = exp(1/|o_i| sum_t log rho_it)     one ratio a completion, in the place of rho_it        gspo, arXiv:2507.18071, eq. 7
    J_it     = sg[clip(rho_it, 1 - clip_low, 1 + clip_high)] A_i log pi                                cispo, arXiv:2506.13585
                                                 the weight is clipped, the gradient never; with clip_low = 1 only from above
    A_i      = (r_i - mean(r)) / mean(r)         0 if nothing was earned, mean(r) <= 0                 maxrl, arXiv:2602.02710
    A_i      = r_i - 1 + lambda r_i              wrong -1; right lambda: 0 in nsr, 0.1 in wreinforce   arXiv:2506.01347
    A_i      = (r_i - mean(r)) / std of these over the batch                                           reinforce_pp, arXiv:2501.03262

What is simplified: rewards are for whole completions. Running out of tokens is a failure with reward 0,
not an episode that goes on elsewhere. RLOO's authors put a KL into the reward; here no variant has one
unless `--beta` asks for it. DAPO fills its batch exactly and drops what is left over; here an update
takes all groups that have come together.
"""
import copy
from dataclasses import dataclass

import torch

from config import setting
from method import Method
from model import make_optimizer
from optimize import Learner, optimize
from rewards import length_reward, overlong_penalty
from sample import Rollout, SamplingConfig, join, score


@dataclass
class GRPOConfig(SamplingConfig):
    """GRPO and its variants"""
    group_size: int = setting(8, "G: samples per problem, compared with each other", low=2, high=65536)
    lr: float = setting(3e-4, "AdamW's rate", low=0.0, high=1.0)
    baseline: str = setting("mean", "what is subtracted: the group's mean, that of the other samples in it, or 1 (NSR)",
                            choices=("mean", "leave_one_out", "one"))
    right_weight: float = setting(0.0, "with --baseline one: lambda, what right answers count", low=0.0, high=100.0)
    std: bool = setting(True, "divide advantages by the group's standard deviation")
    per_mean: bool = setting(False, "divide advantages by the group's mean reward (MaxRL)")
    batch_std: bool = setting(False, "divide advantages by their standard deviation over the batch (REINFORCE++)")
    ratio: str = setting("token", "what is compared with the policy that sampled, and clipped: each token, whole completions (GSPO), "
                         "or each token as a weight without gradient (CISPO)", choices=("token", "sequence", "weight"))
    loss_aggregation: str = setting("sequence_mean", "how token terms are averaged",
                                    choices=("sequence_mean", "token_mean", "constant"))
    clip_low: float = setting(0.2, "the ratio is clipped below 1 - this; 1: not at all", low=0.0, high=1.0)
    clip_high: float = setting(0.2, "the ratio is clipped above 1 + this", low=0.0, high=1e6)
    beta: float = setting(0.0, "weight of the KL to the warm start in the loss", low=0.0, high=100.0)
    kl_estimator: str = setting("k3", "which estimate of the KL is in the loss, see kl_estimate", choices=("k1", "k2", "k3"))
    renew_reference: int = setting(0, "steps after which the policy becomes the reference of the KL; 0: it stays the warm start", low=0,
                                   high=10**7)
    dynamic_sampling: bool = setting(False, "drop zero-variance groups and sample on until a batch is full")
    overlong: float = setting(0.0, "penalise the last share of the token limit (DAPO: 0.2)", low=0.0, high=1.0)
    overlong_filter: bool = setting(False, "completions that ran out of tokens give no gradient; they still count in their group")
    length_weight: float = setting(0.0, "weight of a reward for being shorter than one's group (Kimi)", low=0.0, high=100.0)
    top_entropy: float = setting(1.0, "train only this share of the tokens, those of highest entropy", low=1e-6, high=1.0)
    entropy_bonus: float = setting(0.0, "weight of the policy's entropy in the objective", low=0.0, high=100.0)
    epochs: int = setting(1, "passes over each batch", low=1, high=1000)
    mini_batches: int = setting(1, "optimizer steps per pass", low=1, high=65536)
    micro_batch: int = setting(32, "rows per forward pass; memory and speed only; on a GPU the whole batch, unless set", low=1, high=65536)
    max_grad_norm: float = setting(1.0, "gradients are scaled down to this norm", low=0.0, high=1e9)


# The family. With one update per batch (--epochs 1) no ratio leaves 1, so clips do nothing; reinforce, rloo and dr_grpo then
# follow the same gradient up to a constant, G/(G-1), which Adam does not notice.
#            what is subtracted             scale         what a token counts                   clip: below 1 - .. and above 1 + ..
NO_CLIP = {"clip_low": 1.0, "clip_high": 1e6}
TABLE = {
    "reinforce": {"baseline": "mean",          "std": False, "loss_aggregation": "constant",      **NO_CLIP},
    "rloo":      {"baseline": "leave_one_out", "std": False, "loss_aggregation": "constant",      **NO_CLIP},
    "grpo":      {"baseline": "mean",          "std": True,  "loss_aggregation": "sequence_mean", "clip_low": 0.2, "clip_high": 0.2},
    "dr_grpo":   {"baseline": "mean",          "std": False, "loss_aggregation": "constant",      "clip_low": 0.2, "clip_high": 0.2},
    "dapo":      {"baseline": "mean",          "std": True,  "loss_aggregation": "token_mean",    "clip_low": 0.2, "clip_high": 0.28,
                  "dynamic_sampling": True, "overlong": 0.2, "epochs": 2},
    "gspo":      {"baseline": "mean",          "std": True,  "loss_aggregation": "sequence_mean", "clip_low": 3e-4, "clip_high": 4e-4,
                  "ratio": "sequence", "mini_batches": 4},
    "maxrl":     {"baseline": "mean",          "std": False, "loss_aggregation": "constant",      "clip_low": 0.2, "clip_high": 0.2,
                  "per_mean": True},
    "cispo":     {"baseline": "mean",          "std": True,  "loss_aggregation": "token_mean",    "clip_low": 1.0, "clip_high": 2.0,
                  "ratio": "weight", "mini_batches": 4},
    "nsr":       {"baseline": "one",           "std": False, "loss_aggregation": "constant",      "clip_low": 0.2, "clip_high": 0.2},
    "wreinforce": {"baseline": "one",          "std": False, "loss_aggregation": "constant",      "clip_low": 0.2, "clip_high": 0.2,
                   "right_weight": 0.1},
    "reinforce_pp": {"baseline": "mean",       "std": False, "loss_aggregation": "token_mean",    "clip_low": 0.2, "clip_high": 0.2,
                     "batch_std": True},
}
# Sources: reinforce, Williams 1992; rloo, arXiv:2402.14740; grpo, arXiv:2402.03300 (there beta is
# 0.04); dr_grpo, arXiv:2503.20783; dapo, arXiv:2503.14476 (there with 16 updates per batch; here with
# 2, because with one a clip does nothing); gspo, arXiv:2507.18071 (4 updates per batch, as there);
# maxrl, arXiv:2602.02710 (dr_grpo, divided by the mean); cispo, arXiv:2506.13585 (eps is not told
# there); nsr, wreinforce, arXiv:2506.01347; reinforce_pp, arXiv:2501.03262 (there with k2 in the loss).
# --top-entropy 0.2 (arXiv:2506.01939), --overlong-filter (arXiv:2503.14476, section 3.4),
# --renew-reference (arXiv:2402.03300, algorithm 1) and --entropy-bonus work with every row.


def group_advantages(rewards, group_size, std=True, baseline="mean", per_mean=False, batch_std=False, right_weight=0.0):
    """A_i = (r_i - baseline_i) / std within each group of neighbours; what is divided by follows from the settings.

    rewards (B,), B a multiple of group_size, rows of one prompt next to each other -> advantages (B,).
    The standard deviation is the population's (divided by G, not G - 1). std=False leaves it out (Dr.
    GRPO, arXiv:2503.20783: dividing by it weighs the prompts that are nearly always or nearly never
    solved more than the rest). A group whose rewards are all equal gets exactly 0 (but not with "one"),
    not rounding noise divided by a tiny number. Source: arXiv:2402.03300, section 4.1.2.

    baseline "mean" is the mean of the whole group, the sample itself included; without std the expected
    gradient is then (1 - 1/G) times the true one. "leave_one_out" leaves the sample out and is unbiased
    (RLOO, arXiv:2402.14740, equation 8): r_i - mean of the others = G/(G-1) (r_i - mean of all).

    per_mean=True divides by the group's mean reward, and gives 0 where that is not above 0 (MaxRL,
    arXiv:2602.02710). With rewards of 0 and 1 the mean estimates p, the chance to be right: grad p / p
    = grad log p, so that is what rises, and hard prompts weigh more.

    batch_std=True divides by the standard deviation over all advantages of the batch (REINFORCE++,
    arXiv:2501.03262). Their mean, which whitening subtracts as well, is 0 here already. If all of them
    are 0, they stay 0.

    baseline "one" is r_i - 1 + right_weight r_i and nothing else: std, per_mean and batch_std are ignored.
    It compares with being right, and not with a group: wrong -1, right `right_weight`
    (arXiv:2506.01347). Groups that are all wrong teach, then. A constant baseline leaves the gradient
    unbiased: it is 1 + right_weight times the true one. What makes it another method is that the
    constant is not the mean: problems of which most are right have small gradients.

    >>> group_advantages(torch.tensor([1., 0., 0., 1., 1., 0., *[0.9] * 6]), 6).tolist()
    [1.0, -1.0, -1.0, 1.0, 1.0, -1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    >>> group_advantages(torch.tensor([1., 0., 0., 0., 1.]), 5, std=False, baseline="leave_one_out").tolist()
    [0.75, -0.5, -0.5, -0.5, 0.75]
    """
    if baseline == "one":
        return rewards - 1 + right_weight * rewards
    groups = rewards.view(-1, group_size)
    advantages = groups - groups.mean(1, keepdim=True)
    if baseline == "leave_one_out":
        advantages = advantages * (group_size / (group_size - 1))
    if std:
        advantages = advantages / groups.std(1, correction=0, keepdim=True)
    if per_mean:
        mean = groups.mean(1, keepdim=True)
        advantages = (advantages / mean).masked_fill(mean <= 0, 0.0)
    agree = groups.amax(1, keepdim=True) == groups.amin(1, keepdim=True)
    advantages = advantages.masked_fill(agree, 0.0).flatten()
    return advantages / advantages.std(correction=0) if batch_std and advantages.any() else advantages


def top_entropy_tokens(entropies, mask, share):
    """The `share` of a batch's tokens whose choice was the most open: the forks, not the words that
    follow by themselves.

    entropies (B, T), mask (B, T) bool -> (B, T) bool, at least one token. Source: arXiv:2506.01939,
    equation 5.

    >>> top_entropy_tokens(torch.tensor([[0.1, 0.9], [0.5, 2.0]]), torch.tensor([[1, 1], [1, 0]]).bool(), 0.34).tolist()
    [[False, True], [False, False]]
    """
    among = entropies[mask]
    count = max(1, int(share * len(among)))
    return mask & (entropies >= among.topk(count).values[-1])


def token_weights(mask, aggregate, max_length=None):
    """How much each token counts in the loss. mask (B, T) bool -> weights (B, T), 0 outside of the mask.

    'sequence_mean'  1 / (B |o_i|)        GRPO: every completion counts the same, so a token of a long one counts less
    'token_mean'     1 / (all tokens)     DAPO: every token counts the same
    'constant'       1 / (B max_length)   Dr. GRPO: a sum with a fixed scale; max_length defaults to T

    The weights of a batch are computed once and cut into micro-batches: their sizes then cannot change
    the gradient.

    >>> mask = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]]).bool()
    >>> token_weights(mask, "sequence_mean")[:, 0].tolist()
    [0.25, 0.125]
    """
    tokens = mask.float()
    if aggregate == "sequence_mean":
        return tokens / tokens.sum(1, keepdim=True).clamp(min=1) / len(mask)
    if aggregate == "token_mean":
        return tokens / tokens.sum().clamp(min=1)
    if aggregate == "constant":
        return tokens / (len(mask) * (max_length or mask.shape[1]))
    raise ValueError(f"unknown aggregate {aggregate!r}: sequence_mean, token_mean or constant")


def kl_estimate(logprobs, ref_logprobs, estimator):
    """Three estimates of KL(pi || pi_ref) from tokens sampled from pi, (B, T) -> (B, T). With d = log
    pi - log pi_ref:

        k1 = d                   unbiased, noisy, may be negative
        k2 = d^2 / 2             biased, never negative
        k3 = exp(-d) - 1 + d     unbiased, never negative; one token with a large pi_ref/pi can throw it far off

    As a number each will do. As a *loss* they are three different things, because the gradient of an
    estimate is not an estimate of the gradient (the tokens were sampled from pi, and a loss does not
    see how that changes). In expectation over pi:

               for one token                                              for sequences (constant, token_mean *)
        k1     E[grad log pi] = 0                                         0: only noise
        k2     E[d grad log pi] = grad KL(pi || pi_ref)                   the same of each choice by itself:
        k3     E[(1 - pi_ref/pi) grad log pi] = grad KL(pi_ref || pi)     blind to where the choice leads

    With sequence_mean k1 has a gradient too, grad E[1/|o|]: a step down makes answers longer. k2 and k3
    then heed short answers more. KL(pi || pi_ref) of whole sequences has the gradient of k1 in the
    *reward*, as in PPO (with constant or token_mean *). The numbers: docs/kl.md. * of a large batch.
    Source of the names: http://joschu.net/blog/kl-approx.html

    >>> [round(float(kl_estimate(torch.tensor(-1.0), torch.tensor(-2.0), k)), 4) for k in ("k1", "k2", "k3")]
    [1.0, 0.5, 0.3679]
    """
    d = logprobs - ref_logprobs
    if estimator == "k1":
        return d
    if estimator == "k2":
        return d ** 2 / 2
    if estimator == "k3":
        return torch.exp(-d) - 1 + d
    raise ValueError(f"unknown estimator {estimator!r}: k1, k2 or k3")


def policy_loss(logprobs, old_logprobs, advantages, mask, *, clip_low, clip_high, aggregate, ref_logprobs=None, beta=0.0,
                kl_estimator="k3", entropies=None, entropy_bonus=0.0, weights=None, ratio="token"):
    """The loss -J of the equations above, for one batch or one micro-batch of it.

    logprobs, old_logprobs, ref_logprobs, entropies (B, T); advantages (B,) or (B, T); mask (B, T) bool. `weights` (B, T): the
    rows of `token_weights` of the whole batch; without it, those of this mask. ratio: "token", rho_it; "sequence", s_i of the
    equations above, the same for all tokens of a row: with sequence_mean the objective is then 1/G sum_i min(s_i A_i, clip(s_i) A_i);
    "weight", sg[clip(rho_it, 1 - clip_low, 1 + clip_high)] A_i log pi. Outside of the mask the log-probs and entropies may hold
    anything; advantages are finite there, and weights 0.
    -> loss (scalar), stats: means over the masked tokens of this call (0 without any), without gradient:
       clip_fraction   share of tokens whose gradient the clip removed; with "weight": whose weight it changed
       kl              the chosen estimate of KL(pi || pi_ref), whenever there is a reference, also with beta 0
    """
    if advantages.ndim == 1:
        advantages = advantages[:, None]
    if weights is None:
        weights = token_weights(mask, aggregate)
    # masked_fill before exp: padding may hold anything, and inf * 0 would be nan.
    log_rho = (logprobs - old_logprobs).masked_fill(~mask, 0.0)  # (B, T)
    if ratio == "sequence":
        log_rho = (log_rho.sum(1, keepdim=True) / mask.sum(1, keepdim=True).clamp(min=1)).expand_as(mask)
    rho = log_rho.exp()
    free, clipped = rho * advantages, rho.clamp(1 - clip_low, 1 + clip_high) * advantages
    objective, held = torch.minimum(free, clipped), clipped < free
    if ratio == "weight":
        objective, held = clipped.detach() * logprobs.masked_fill(~mask, 0.0), clipped != free
    stats = {"clip_fraction": (held & mask).sum() / mask.sum().clamp(min=1)}
    if ref_logprobs is not None:
        kl = kl_estimate(logprobs.masked_fill(~mask, 0.0), ref_logprobs.masked_fill(~mask, 0.0), kl_estimator)
        stats["kl"] = kl.detach().sum() / mask.sum().clamp(min=1)
        objective = objective - beta * kl
    if entropy_bonus:
        objective = objective + entropy_bonus * entropies.masked_fill(~mask, 0.0)
    return -(weights * objective).sum(), stats


def actor(policy, rollout, advantages, config, old_logprobs=None, reference=None, more=None, **terms):
    """The loss of a policy on advantages (B,) or (B, T), as `optimize` wants it -> (loss(part),
    before(part)).

    config: temperature, clip_low, clip_high. old_logprobs (B, T): log pi_old; without it, those of the
    rollout. reference: a model for the KL. more(part, logprobs, old_logprobs): what a method adds to the
    loss. terms: what else `policy_loss` takes. Stats: clip_fraction,
    and max_log_ratio, the largest |stored - recomputed| log-prob while the policy is still the one that
    sampled: what was sampled must be what is trained.

    In low precision, stored and recomputed log-probs differ by rounding. There log pi_old is computed
    anew, in the micro-batches of the first epoch and before any step, so that rho starts at exactly 1;
    later epochs compare with the same numbers.
    """
    low = policy.compute_dtype != torch.float32
    old = rollout.logprobs if old_logprobs is None else old_logprobs
    old = old.clone() if low else old
    if advantages.ndim == 1:
        advantages = advantages[:, None].expand(rollout.mask.shape)

    @torch.no_grad()
    def before(part):
        old[part.rows, :part.length] = score(policy, part.cut(rollout.tokens)[0], config.temperature)[0]

    def loss(part):
        tokens, mask, sampled, A = part.cut(rollout.tokens, rollout.mask, rollout.logprobs, advantages)
        logprobs, entropies = score(policy, tokens, config.temperature)
        found = {}
        if part.step == 0:
            found["max_log_ratio"] = (logprobs.detach() - sampled).masked_fill(~mask, 0.0).abs().max()
            if low:
                old[part.rows, :part.length] = logprobs.detach()
        ref_logprobs = score(reference, tokens, config.temperature)[0] if reference else None
        value, stats = policy_loss(logprobs, *part.cut(old), A, mask, clip_low=config.clip_low, clip_high=config.clip_high,
                                   ref_logprobs=ref_logprobs, entropies=entropies, weights=part.weights, **terms)
        if more:
            value = value + more(part, logprobs, *part.cut(old))
        return value, found | {"clip_fraction": (stats["clip_fraction"] * mask.sum(), mask.sum())}
    return loss, before if low else None


class GRPO(Method):
    """The algorithm as train.py sees it: see method.py."""
    Config, saved = GRPOConfig, ("optimizer", "reference", "steps")

    def __init__(self, policy, task, config, generator=None, reward=None):
        super().__init__(policy, task, config, generator, reward)
        self.reference = copy.deepcopy(policy).requires_grad_(False)
        self.optimizer, self.steps = make_optimizer(policy, config.lr), 0
        self.waiting = []  # dynamic sampling: (rollout, rewards) of groups with variance, until there are enough of them

    def update(self, rollout, rewards):
        """rewards (B,) float32 -> metrics, a dict of floats (see docs/glossary.md)."""
        c, rewards = self.config, rewards.to(self.policy.device)
        groups = (group_advantages(rewards, c.group_size) != 0).view(-1, c.group_size).any(1)  # those with variance
        metrics = {"updates": 0, "groups_with_variance": float(groups.float().mean()), "kl": self.kl(rollout)}
        if c.renew_reference and self.steps and self.steps % c.renew_reference == 0:
            self.reference.load_state_dict(self.policy.state_dict())
        self.steps += 1
        rewards = self.shape(rollout, rewards)
        advantages = self.seen["advantages"] = self.advantages(rollout, rewards)
        if c.dynamic_sampling:
            rollout, rewards = self.wait(rollout, rewards, groups.repeat_interleave(c.group_size).nonzero()[:, 0])
            if rollout is None:
                return metrics
            advantages = self.advantages(rollout, rewards)
        # A row with advantage 0 has no policy gradient, and without the other two terms no gradient at
        # all: leaving it out is free.
        rows = ((advantages != 0).any(1) if c.beta == c.entropy_bonus == 0 else rollout.mask.any(1)).nonzero()[:, 0]
        steps = min(c.mini_batches, len(rows))  # an epoch
        # The weights of the whole batch. A mini-batch holds a share of 1 / steps of it: times `steps`,
        # the mean over the mini-batches is the gradient of the batch, whatever rows were left out.
        weights = token_weights(rollout.mask, c.loss_aggregation, self.max_new_tokens)
        if c.overlong_filter:
            weights = weights * rollout.finished[:, None]  # no KL and no entropy bonus either
        return metrics | optimize([self.learner(rollout, advantages)], rows, rollout.mask, c,
                                  lambda rows: weights[rows] * steps, self.generator if steps > 1 else None)  # nothing to shuffle into one

    def advantages(self, rollout, rewards):
        """rewards (B,) -> advantages (B, T): one number a completion, or 0 for the tokens that are not to be trained."""
        c, advantages = self.config, self.compare(rewards)
        if c.overlong_filter:
            advantages = advantages * rollout.finished
        advantages = advantages[:, None].expand(rollout.mask.shape)
        if c.top_entropy < 1:
            advantages = advantages * top_entropy_tokens(self.entropies(rollout), rollout.mask, c.top_entropy)
        return advantages

    def compare(self, rewards):
        """rewards (B,) -> advantages (B,)."""
        c = self.config
        return group_advantages(rewards, c.group_size, c.std, c.baseline, c.per_mean, c.batch_std, c.right_weight)

    def learner(self, rollout, advantages, **more):
        """advantages (B, T) -> the policy, with the loss that it follows."""
        c = self.config
        loss, before = actor(self.policy, rollout, advantages, c, reference=self.reference if c.beta else None, beta=c.beta,
                             aggregate=c.loss_aggregation, kl_estimator=c.kl_estimator, entropy_bonus=c.entropy_bonus,
                             ratio=c.ratio, **more)
        return Learner(self.optimizer, loss, before=before)

    def shape(self, rollout, rewards):
        """What is added to the rule's rewards for the length of a completion -> rewards (B,)."""
        c, lengths = self.config, rollout.lengths - rollout.prompt_lengths
        if c.overlong:
            rewards = rewards + overlong_penalty(lengths, self.max_new_tokens, c.overlong)
        if c.length_weight:
            rewards = rewards + c.length_weight * length_reward(lengths, rollout.right(self.task), c.group_size)
        return rewards

    def wait(self, rollout, rewards, rows):
        """Dynamic sampling: keep these rows until a batch is full -> rollout, rewards of all that have waited; None, None before."""
        kept = rollout.select(rows)
        kept.problems = []  # nothing asks for them any more, and a checkpoint holds tensors
        self.waiting.append((kept, rewards[rows]))
        if sum(len(r) for _, r in self.waiting) < self.config.prompts * self.config.group_size:
            return None, None
        rollouts, rewards = zip(*self.waiting)
        self.waiting = []
        return join(rollouts), torch.cat(rewards)

    @torch.no_grad()
    def entropies(self, rollout, batch=256):
        """The entropy of the policy at every token of a rollout, (B, T), without a gradient."""
        return torch.cat([score(self.policy, tokens, self.config.temperature)[1] for tokens in rollout.tokens.split(batch)])

    @torch.no_grad()
    def kl(self, rollout, rows=64):
        """KL(pi || pi_ref) per token, the k1 estimate from the first rows of a rollout. It may come out slightly negative."""
        reference, _ = score(self.reference, rollout.tokens[:rows], self.config.temperature)
        self.seen["ref_logprobs"] = reference
        return float((rollout.logprobs[:rows] - reference)[rollout.mask[:rows]].mean())

    def state_dict(self):
        waiting = [{**{name: value for name, value in vars(rollout).items() if torch.is_tensor(value)}, "rewards": rewards}
                   for rollout, rewards in self.waiting]
        return super().state_dict() | {"waiting": waiting}

    def load_state_dict(self, state):
        super().load_state_dict({"steps": 0} | state)  # older runs did not count them
        device = self.policy.device
        self.waiting = [(Rollout(**{name: value.to(device) for name, value in group.items() if name != "rewards"}),
                         group["rewards"].to(device)) for group in state["waiting"]]


# Exercises
# 1. Remove the baseline (advantages = rewards). Which of the tests in tests/test_grpo.py fail, and what happens to the spread of
#    the gradient over many batches? (Measure it: keep the policy fixed and compare gradients of 20 rollouts.)
# 2. Replace `torch.minimum` by `torch.maximum` in the loss. test_clip_removes_the_gradient_only_beyond_the_step names the
#    cells of the table that change: which two gain a gradient, which two lose it? With --epochs 1 the run does not
#    notice: why? With --epochs 4 it does: what do you see?
# 3. Train with `--loss-aggregation token_mean` and with `sequence_mean`, and plot the mean length of both. Work out from
#    test_weights_per_token which of the two prefers long wrong answers, and check it against what you see.
