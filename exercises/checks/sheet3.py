"""From REINFORCE to GRPO: what is asked, and what the known mistakes look like."""
import torch

from checks import cases, mistakes


@cases("3.1")
def _(draw):
    found = []
    for settings in ({}, {"std": False}, {"std": False, "baseline": "leave_one_out"},
                     {"std": False, "per_mean": True}, {}, {"std": False, "batch_std": True},
                     {"baseline": "one", "right_weight": 0.1}, {"std": False, "batch_std": True}):
        G, groups = draw.choice((3, 6, 7, 8)), draw.randint(3, 5)
        rewards = (draw.rand(groups, G) < 0.5).float() + 0.25 * draw.ints(0, 2, groups, G)
        rewards[:, 0] += 0.5  # no group agrees ...
        rewards[1] = 0.9      # ... but this one, and its mean is not quite 0.9 in float32
        if settings.get("per_mean"):
            rewards[2] = -rewards[2].abs() - 0.25 * torch.arange(G)
        found.append({"rewards": rewards.flatten(), "group_size": G, "settings": settings})
    found[-1]["rewards"] = found[-1]["rewards"] * 0 + 0.9  # all agree
    return found


STD = "groups.std(1, correction=0, keepdim=True)"
FILLED, UNFILLED = "advantages.masked_fill(agree, 0.0).flatten()", "advantages.flatten()"
ONE = "return rewards - 1 + right_weight * rewards"

mistakes("3.1",
    ("divided by G - 1: the standard deviation is the population's (correction=0)",
     "groups.std(1, correction=0, keepdim=True)", "groups.std(1, correction=1, keepdim=True)"),
    ("batch_std is divided by B - 1: it is the population's (correction=0)", "advantages.std(correction=0)",
     "advantages.std(correction=1)"),
    *(("divided by G - 1, and batch_std by B - 1: both are the population's (correction=0)",
       STD, "groups.std(1, correction=1, keepdim=True)", "advantages.std(correction=0)", "advantages.std(correction=1)",
       FILLED, out) for out in (FILLED, UNFILLED)),
    ("the mean is that of the whole batch: each group has its own",
     "groups - groups.mean(1, keepdim=True)", "groups - groups.mean()"),
    ("the standard deviation is that of the whole batch: each group has its own",
     "groups.std(1, correction=0, keepdim=True)", "groups.std(correction=0)"),
    ("mean and standard deviation are taken over the problems: neighbours are one group",
     "groups = rewards.view(-1, group_size)", "groups = rewards.view(-1, group_size).T",
     FILLED, "advantages.masked_fill(agree, 0.0).T.flatten()"),
    ("group size and number of groups are exchanged: neighbours are one group, group_size of them",
     "groups = rewards.view(-1, group_size)", "groups = rewards.view(group_size, -1)"),
    ("groups are mixed up: rows of one prompt stand next to each other",
     "groups = rewards.view(-1, group_size)", "groups = rewards.view(group_size, -1).T"),
    ("groups are mixed up: rows of one prompt stand next to each other",
     "groups = rewards.view(-1, group_size)", "groups = rewards.view(group_size, -1).T",
     FILLED, "advantages.masked_fill(agree, 0.0).T.flatten()"),
    ("a group whose rewards agree gives nan or rounding noise: exactly 0",
     "advantages.masked_fill(agree, 0.0)", "advantages"),
    ("something is added to the standard deviation",
     "advantages / groups.std(1, correction=0, keepdim=True)",
     "advantages / (groups.std(1, correction=0, keepdim=True) + 1e-2)"),
    *(("something is added to the standard deviation, a small number like 1e-4"
       + ", and it is divided by G - 1 (the population's has correction=0)" * G_1,
       STD, f"(groups.std(1, correction={G_1}, keepdim=True) + {eps})", FILLED, FILLED if fill else UNFILLED,
       "advantages.std(correction=0)", f"(advantages.std(correction={of_batch}) + {eps_of_batch})")
      for eps in (1e-4, 1e-6, 1e-8) for fill in (True, False) for G_1 in (0, 1)
      for of_batch, eps_of_batch in ((0, 0), (0, eps), (1, 0), (1, eps)) if eps == 1e-4 or not fill),
    *(("a group whose rewards agree gives rounding noise: exactly 0", STD, f"{STD}.clamp(min={eps})", FILLED, UNFILLED)
      for eps in (1e-4, 1e-6, 1e-8)),
    ("divided by the variance: take its root", "advantages / groups.std(1, correction=0, keepdim=True)",
     "advantages / groups.var(1, correction=0, keepdim=True)"),
    ("std=False is not heeded", "    if std:", "    if True:"),
    ("std is not divided by", "    if std:", "    if False:"),
    ("there is no baseline: the group's mean is subtracted", "groups - groups.mean(1, keepdim=True)",
     "groups.clone()"),
    ("leave_one_out has the factor upside down: G / (G - 1)", "group_size / (group_size - 1)",
     "(group_size - 1) / group_size"),
    ("leave_one_out is not heeded: the sample is part of its own baseline",
     'if baseline == "leave_one_out":', "if False:"),
    ("per_mean is not heeded", "    if per_mean:", "    if False:"),
    ("per_mean: a group whose mean is not above 0 should give 0", ".masked_fill(mean <= 0, 0.0)", ""),
    ("batch_std is not heeded", "if batch_std and advantages.any()", "if False"),
    ("batch_std divides by the standard deviation of the rewards: it is that of the advantages",
     "/ advantages.std(correction=0)", "/ rewards.std(correction=0)"),
    ("batch_std: a batch whose advantages are all 0 gives nan: they stay 0", "if batch_std and advantages.any()",
     "if batch_std"),
    ("baseline 'one' is not heeded", 'if baseline == "one":', "if False:"),
    *(("baseline 'one' is divided by the group's std: it ignores std, per_mean and batch_std", ONE,
       f"groups = rewards.view(-1, group_size)\n        "
       f"return ((rewards - 1 + right_weight * rewards).view_as(groups) / {STD}){out}.flatten()")
      for out in ("", ".masked_fill(groups.amax(1, keepdim=True) == groups.amin(1, keepdim=True), 0.0)")),
    ("baseline 'one': equal rewards do not give 0, for nothing is compared with the group", ONE,
     "groups = rewards.view(-1, group_size)\n        "
     "return (rewards - 1 + right_weight * rewards).view_as(groups).masked_fill("
     "groups.amax(1, keepdim=True) == groups.amin(1, keepdim=True), 0.0).flatten()"),
    ("baseline 'one': a right answer counts right_weight, and not 1",
     "return rewards - 1 + right_weight * rewards", "return rewards - 1 + rewards"),
)


@cases("3.2")
def _(draw):
    found = []
    for aggregate, max_length in (("sequence_mean", None), ("token_mean", None), ("constant", None),
                                  ("constant", 29), ("sequence_mean", 17), ("nonsense", None)):
        _, _, mask = draw.rows(draw.randint(3, 5), draw.randint(6, 9))
        if aggregate != "constant":
            mask[1] = False  # a row without tokens
        found.append({"mask": mask, "aggregate": aggregate, "max_length": max_length})
    found.append({"mask": torch.zeros(2, 3, dtype=torch.bool), "aggregate": "token_mean",
                  "max_length": None})
    return found


mistakes("3.2",
    ("sequence_mean divides by T: each row has its own number of tokens",
     "tokens.sum(1, keepdim=True).clamp(min=1) / len(mask)", "mask.shape[1] / len(mask)"),
    ("sequence_mean is a sum over rows: it is divided by B, the number of rows",
     ".clamp(min=1) / len(mask)", ".clamp(min=1)"),
    ("sequence_mean is the mean over all tokens",
     "tokens / tokens.sum(1, keepdim=True).clamp(min=1) / len(mask)",
     "tokens / tokens.sum().clamp(min=1)"),
    ("token_mean divides by B T: only masked tokens count", "return tokens / tokens.sum().clamp(min=1)",
     "return tokens / mask.numel()"),
    ("token_mean is the mean over rows", "return tokens / tokens.sum().clamp(min=1)",
     "return tokens / tokens.sum(1, keepdim=True).clamp(min=1) / len(mask)"),
    ("token_mean is divided by B too: the number of tokens is all", "return tokens / tokens.sum().clamp(min=1)",
     "return tokens / tokens.sum().clamp(min=1) / len(mask)"),
    ("constant does not heed max_length", "(max_length or mask.shape[1])", "mask.shape[1]"),
    ("constant is not divided by the number of rows", "(len(mask) * (max_length or mask.shape[1]))",
     "(max_length or mask.shape[1])"),
    ("constant divides by the number of tokens: its scale is fixed",
     "(len(mask) * (max_length or mask.shape[1]))", "tokens.sum()"),
    ("the weights outside of the mask are not 0",
     "tokens / (len(mask) * (max_length or mask.shape[1]))",
     "torch.ones_like(tokens) / (len(mask) * (max_length or mask.shape[1]))"),
    ("the weights outside of the mask are not 0", "return tokens / tokens.sum(1", "return torch.ones_like(tokens) / tokens.sum(1",
     "return tokens / tokens.sum()", "return torch.ones_like(tokens) / tokens.sum()",
     "return tokens / (len", "return torch.ones_like(tokens) / (len"),
    ("a row without tokens gives nan: 0 / 0", "tokens.sum(1, keepdim=True).clamp(min=1)",
     "tokens.sum(1, keepdim=True)"),
    ("a batch without tokens gives nan: 0 / 0", "tokens.sum().clamp(min=1)", "tokens.sum()"),
    ("rows without tokens are not counted in B", ".clamp(min=1) / len(mask)",
     ".clamp(min=1) / mask.any(1).sum()"),
)


@cases("3.3")
def _(draw):
    found = []
    for estimator in ("k1", "k2", "k3", "k4"):
        B, T = draw.randint(2, 4), draw.randint(3, 6)
        found.append({"logprobs": -2 * draw.rand(B, T), "ref_logprobs": -2 * draw.rand(B, T),
                      "estimator": estimator, "weights": [draw.normal(B, T)]})
    return found


mistakes("3.3",
    ("the sign of d is wrong: d = log pi - log pi_ref", "d = logprobs - ref_logprobs",
     "d = ref_logprobs - logprobs"),
    ("k3 has its ratio upside down: it is pi_ref / pi = exp(-d)", "torch.exp(-d) - 1 + d",
     "torch.exp(d) - 1 - d"),
    ("k3 has the wrong sign in front of d: exp(-d) - 1 + d is never negative", "torch.exp(-d) - 1 + d",
     "torch.exp(-d) - 1 - d"),
    ("k3 lacks the - 1: it is 0 where both agree", "torch.exp(-d) - 1 + d", "torch.exp(-d) + d"),
    ("k2 lacks the factor 1/2", "d ** 2 / 2", "d ** 2"),
    ("k1 is made positive: it may be negative", 'if estimator == "k1":\n        return d\n',
     'if estimator == "k1":\n        return d.abs()\n'),
    ("no gradient flows", "d = logprobs - ref_logprobs", "d = (logprobs - ref_logprobs).detach()"),
    ("k3's ratio is detached: the gradient has to flow through it", "torch.exp(-d) - 1 + d",
     "torch.exp(-d.detach()) - 1 + d"),
    ("probabilities are compared, and not their logs", "d = logprobs - ref_logprobs",
     "d = logprobs.exp() - ref_logprobs.exp()"),
)


@cases("3.4")
def _(draw):
    found = []
    for extra in ({}, {"by_row": True}, {"clip_high": 0.5}, {"ref": True}, {"bonus": True},
                  {"weights": True}, {"ratio": "sequence"}, {"ratio": "weight"}, {"ref": True, "bonus": True, "weights": True},
                  {"ref": True, "beta": 0.0}, {"beta": 0.5}, {"ratio": "sequence", "empty": 1}, {"ref": True, "empty": None}):
        B, T = draw.randint(4, 6), draw.randint(6, 9)
        _, _, mask = draw.rows(B, T)
        if "empty" in extra:  # one row, or all of them
            mask[extra["empty"]] = False
        logprobs, entropies = -2 * draw.rand(B, T), draw.rand(B, T) + 1
        old = logprobs + 0.6 * draw.normal(B, T)
        # padding may hold anything
        logprobs[~mask], old[~mask], entropies[~mask] = float("inf"), float("-inf"), float("nan")
        settings = {"clip_low": 0.2, "clip_high": extra.get("clip_high", 0.2)}
        if "ref" in extra:
            ref = -2 * draw.rand(B, T)
            ref[~mask] = float("-inf")
            settings |= {"ref_logprobs": ref, "beta": draw.choice([0.3, 0.6])}
        if "beta" in extra:
            settings |= {"beta": extra["beta"]}
        if "bonus" in extra:
            settings |= {"entropy_bonus": draw.choice([0.2, 0.4])}
        if "weights" in extra:
            settings |= {"weights": mask * draw.rand(B, T)}
        if "ratio" in extra:
            settings |= {"ratio": extra["ratio"]}
        found.append({"logprobs": logprobs, "old_logprobs": old,
                      "advantages": draw.normal(B) if "by_row" in extra else draw.normal(B, T),
                      "mask": mask, "entropies": entropies, "settings": settings})
    return found


mistakes("3.4",
    ("max in place of min: the clip would take the gradient from the wrong tokens",
     "torch.minimum(free, clipped)", "torch.maximum(free, clipped)"),
    ("there is no clip", "torch.minimum(free, clipped)", "free"),
    ("only the clipped term is left: without the min a ratio that went the wrong way gets no gradient",
     "torch.minimum(free, clipped)", "clipped"),
    ("the ratio was detached: no gradient of the policy is left", "rho = log_rho.exp()",
     "rho = log_rho.detach().exp()"),
    ("the sign is wrong: the loss is minus the objective", "return -(weights", "return (weights"),
    ("the ratio is upside down: pi / pi_old", "(logprobs - old_logprobs).masked_fill",
     "(old_logprobs - logprobs).masked_fill"),
    ("the ratio lacks its exp: it is a log-ratio", "rho = log_rho.exp()", "rho = log_rho"),
    ("clip_high is not heeded: the bounds may differ", "rho.clamp(1 - clip_low, 1 + clip_high)",
     "rho.clamp(1 - clip_low, 1 + clip_low)"),
    ("clip_low and clip_high are exchanged", "rho.clamp(1 - clip_low, 1 + clip_high)",
     "rho.clamp(1 - clip_high, 1 + clip_low)"),
    ("the minimum is taken of the ratios: it is taken of ratio times advantage, or A < 0 is clipped on the wrong side",
     "torch.minimum(free, clipped), clipped < free",
     "torch.minimum(rho, rho.clamp(1 - clip_low, 1 + clip_high)) * advantages, clipped < free"),
    ("the minimum is taken of the ratios: it is taken of ratio times advantage, or A < 0 is clipped on the wrong side",
     "torch.minimum(free, clipped), clipped < free",
     "torch.minimum(rho, rho.clamp(1 - clip_low, 1 + clip_high)) * advantages, "
     "rho.clamp(1 - clip_low, 1 + clip_high) < rho"),
    ("the advantage is missing from the clipped term",
     "rho.clamp(1 - clip_low, 1 + clip_high) * advantages", "rho.clamp(1 - clip_low, 1 + clip_high)"),
    ("`weights` is not heeded: the denominator is that of the micro-batch", "    if weights is None:\n",
     "    if True:\n"),
    ("the weights are left out: a sum over tokens", "-(weights * objective).sum()",
     "-(mask * objective).sum()"),
    ("the mean over the masked tokens, whatever the weights say", "-(weights * objective).sum()",
     "-(mask * objective).sum() / mask.sum()"),
    *(("the weights are normalised again: `weights` are those of the whole batch, and the loss is their sum",
       "-(weights * objective).sum()", f"-(weights * objective).sum() / {by}")
      for by in ("weights.sum()", "mask.sum()", "mask.sum().clamp(min=1)", "len(mask)")),
    ("padding is not masked before exp: inf * 0 is nan",
     "(logprobs - old_logprobs).masked_fill(~mask, 0.0)", "(logprobs - old_logprobs)"),
    ("padding is filled after exp: the loss is right, but its gradient is nan, 0 * inf. Fill the log-ratio",
     "(logprobs - old_logprobs).masked_fill(~mask, 0.0)", "(logprobs - old_logprobs)",
     "rho = log_rho.exp()", "rho = log_rho.exp().masked_fill(~mask, 1.0)",
     "log_rho.sum(1", "log_rho.masked_fill(~mask, 0.0).sum(1"),
    ("old_logprobs are not filled: outside of the mask they may be inf as well",
     "(logprobs - old_logprobs).masked_fill(~mask, 0.0)", "(logprobs.masked_fill(~mask, 0.0) - old_logprobs)"),
    ("ref_logprobs are not filled: outside of the mask they may be inf as well",
     "ref_logprobs.masked_fill(~mask, 0.0), kl", "ref_logprobs, kl"),
    ("the KL is taken of padding too: inf * 0 is nan. Fill both log-probs",
     "kl_estimate(logprobs.masked_fill(~mask, 0.0), ref_logprobs.masked_fill(~mask, 0.0), kl",
     "kl_estimate(logprobs, ref_logprobs, kl"),
    ("the KL is filled after it was computed: the gradient is nan, 0 * inf. Fill both log-probs",
     "kl_estimate(logprobs.masked_fill(~mask, 0.0), ref_logprobs.masked_fill(~mask, 0.0), kl_estimator)",
     "kl_estimate(logprobs, ref_logprobs, kl_estimator).masked_fill(~mask, 0.0)"),
    *(("the entropies are not filled: outside of the mask they may be nan",
       "entropies.masked_fill(~mask, 0.0)", "entropies", "    if entropy_bonus:\n", f"    if {when}:\n")
      for when in ("entropy_bonus", "True")),
    ("padding is not masked before exp: inf * 0 is nan", "rho = log_rho.exp()",
     "rho = log_rho.exp() if ratio == 'sequence' else (logprobs - old_logprobs).exp()"),
    ("the KL has the wrong sign: it is a penalty", "objective - beta * kl", "objective + beta * kl"),
    ("stats lacks `kl` where beta is 0: with a reference it is always reported", "if ref_logprobs is not None:",
     "if ref_logprobs is not None and beta:"),
    ("stats[\"kl\"] carries a gradient: detach it", "kl.detach()", "kl"),
    ("the KL is not weighed by beta", "objective - beta * kl", "objective - kl"),
    ("the KL is not in the loss", "objective = objective - beta * kl", "pass"),
    ("the KL was detached: it has no gradient", "objective - beta * kl",
     "objective - beta * kl.detach()"),
    ("the entropy bonus has the wrong sign: the objective rises with the entropy",
     "objective + entropy_bonus * entropies", "objective - entropy_bonus * entropies"),
    ("the entropy bonus is missing", "    if entropy_bonus:\n", "    if False:\n"),
    ("ratio='sequence' is not heeded", 'if ratio == "sequence":', "if False:"),
    ("the ratio of a whole completion is not divided by its length: the log-ratios' mean, not their "
     "sum",
     "log_rho.sum(1, keepdim=True) / mask.sum(1, keepdim=True).clamp(min=1)",
     "log_rho.sum(1, keepdim=True)"),
    ("the mean log-ratio of a completion counts its padding",
     "log_rho.sum(1, keepdim=True) / mask.sum(1, keepdim=True).clamp(min=1)",
     "log_rho.mean(1, keepdim=True)"),
    ("clip_fraction counts every ratio outside of the bounds: only where clipped < free has the "
     "gradient gone",
     "torch.minimum(free, clipped), clipped < free", "torch.minimum(free, clipped), clipped != free"),
    ("clip_fraction counts tokens inside of the bounds: there both terms are equal, so < and not <=",
     "torch.minimum(free, clipped), clipped < free", "torch.minimum(free, clipped), clipped <= free"),
    *(("stats are means over the masked tokens, and not over all places",
       "(held & mask).sum() / mask.sum().clamp(min=1)", f"({held}).sum() / mask.numel()",
       "kl.detach().sum() / mask.sum().clamp(min=1)", "kl.detach().mean()") for held in ("held", "held & mask")),
    *(("clip_fraction counts padding", "(held & mask).sum() / mask.sum().clamp(min=1)",
       f"({held}).sum() / {by}") for held, by in (("held & mask", "mask.numel()"), ("held", "mask.numel()"),
                                                ("held", "mask.sum().clamp(min=1)"))),
    ("stats[\"kl\"] counts padding: it is a mean over the masked tokens", "kl.detach().sum() / mask.sum().clamp(min=1)",
     "kl.detach().mean()"),
    *(("stats without any masked token are 0 / 0: they are 0", "(held & mask).sum() / mask.sum().clamp(min=1)",
       "(held & mask).sum() / mask.sum()", "kl.detach().sum() / mask.sum().clamp(min=1)",
       f"kl.detach().sum() / mask.sum(){clamp}") for clamp in ("", ".clamp(min=1)")),
    ("ratio='sequence': a row without tokens gives nan, 0 / 0", "mask.sum(1, keepdim=True).clamp(min=1)",
     "mask.sum(1, keepdim=True)"),
    ("ratio='weight' is not heeded", 'if ratio == "weight":', "if False:"),
    ("ratio='weight' takes no minimum: the weight is the clipped ratio", "clipped.detach() * logprobs",
     "torch.minimum(free, clipped).detach() * logprobs"),
    ("ratio='weight': the weight is clipped from both sides, and not only above", "objective, held = clipped.detach()",
     "clipped = rho.clamp(max=1 + clip_high) * advantages\n        objective, held = clipped.detach()"),
    ("ratio='weight': the weight is not clipped", "clipped.detach() * logprobs", "free.detach() * logprobs"),
    ("ratio='weight': clip_fraction counts every token whose weight the clip changed", "clipped != free",
     "clipped < free"),
    ("ratio='weight': the weight is a number, no gradient flows through it",
     "clipped.detach() * logprobs", "clipped * logprobs"),
    ("ratio='weight': the gradient is that of log pi, which is missing",
     "clipped.detach() * logprobs.masked_fill(~mask, 0.0)", "clipped"),
)
