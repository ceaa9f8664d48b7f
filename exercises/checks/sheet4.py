"""PPO: what is asked, and what the known mistakes look like."""
import torch

from checks import cases, mistakes


@cases("4.1")
def _(draw):
    found = []
    for beta in (0.5, draw.choice([0.1, 0.3]), 0.0):
        B, T = draw.randint(3, 5), draw.randint(6, 9)
        _, _, mask = draw.rows(B, T)
        logprobs, ref = -2 * draw.rand(B, T), -2 * draw.rand(B, T)
        found.append({"rewards": draw.normal(B), "logprobs": logprobs, "ref_logprobs": ref,
                      "mask": mask, "beta": beta})
    return found


mistakes("4.1",
    ("the reward lies on the last column: in a shorter row that is padding",
     "last = (place * mask).amax(1)", "last = torch.full((len(mask),), mask.shape[1] - 1)"),
    ("the reward lies in the last column, outside of the mask of shorter rows",
     "return r + rewards[:, None] * ((place == last[:, None]) & mask)",
     "r[:, -1] += rewards\n    return r"),
    ("every token gets the whole reward: only the last one does", "((place == last[:, None]) & mask)",
     "mask"),
    ("the reward lies on the first token of the completion", "last = (place * mask).amax(1)",
     "last = mask.int().argmax(1)"),
    ("the reward lies one token before the last: EOS earns it", "last = (place * mask).amax(1)",
     "last = (place * mask).amax(1) - 1"),
    ("the KL has the wrong sign, or policy and reference are exchanged: leaving the reference costs",
     "r = -beta * kl_estimate", "r = beta * kl_estimate"),
    ("the penalty is not k1 but k3: in a reward k1 is the right one", '"k1"', '"k3"'),
    ("the penalty is not k1 but k2: in a reward k1 is the right one", '"k1"', '"k2"'),
    ("beta is missing", "r = -beta * kl_estimate", "r = -kl_estimate"),
    ("prompt and padding pay a penalty: 0 outside of the mask", ".masked_fill(~mask, 0.0) + 0.0",
     " + 0.0"),
    ("the last token pays no penalty: it is rewarded on top of it",
     "return r + rewards[:, None] * ((place == last[:, None]) & mask)",
     "return torch.where((place == last[:, None]) & mask, rewards[:, None], r)"),
    ("the penalty of a whole row lies on its last token: each token pays its own",
     "return r + rewards[:, None] * ((place == last[:, None]) & mask)",
     "return (r.sum(1, keepdim=True) + rewards[:, None]) * ((place == last[:, None]) & mask)"),
)


@cases("4.2")
def _(draw):
    found = []
    for gamma, lam in ((1.0, 0.95), (0.9, 0.7), (1.0, 1.0), (0.8, 0.0), (0.95, 1.0)):
        B, T = draw.randint(3, 5), draw.randint(6, 9)
        _, _, mask = draw.rows(B, T)
        found.append({"rewards": draw.normal(B, T), "values": draw.normal(B, T), "mask": mask,
                      "gamma": gamma, "lam": lam})
    return found


mistakes("4.2",
    ("what stands in padding leaks in: the next value behind the last token is 0",
     "rewards, values = rewards.masked_fill(~mask, 0.0), values.masked_fill(~mask, 0.0)",
     "rewards = rewards.masked_fill(~mask, 0.0)"),
    ("what stands in padding leaks in: the next value behind the last token is 0",
     "    rewards, values =", "    raw = values\n    rewards, values =",
     "after = running, values[:, t]", "after = running, raw[:, t]"),
    ("lambda is missing from the recursion", "gamma * lam * running", "gamma * running"),
    ("gamma is missing from the recursion: gamma lambda", "gamma * lam * running", "lam * running"),
    ("gamma is missing in front of the next value", "rewards[:, t] + gamma * after - values[:, t]",
     "rewards[:, t] + after - values[:, t]"),
    ("the returns are those of Monte Carlo: here they are advantages + values",
     "return advantages, advantages + values",
     "G, total = torch.zeros_like(rewards), torch.zeros_like(rewards[:, 0])\n"
     "    for t in reversed(range(rewards.shape[1])):\n"
     "        total = (rewards[:, t] + gamma * total) * mask[:, t]\n"
     "        G[:, t] = total\n    return advantages, G"),
    ("the returns lack the values: advantages + values", "return advantages, advantages + values",
     "return advantages, advantages"),
    ("the TD errors are not added up: that is lambda = 0",
     "(delta + gamma * lam * running) * mask[:, t]", "delta * mask[:, t]"),
    ("the value itself is not subtracted", "rewards[:, t] + gamma * after - values[:, t]",
     "rewards[:, t] + gamma * after"),
    ("the next value is missing: r + gamma V(next) - V", "rewards[:, t] + gamma * after - values[:, t]",
     "rewards[:, t] - values[:, t]"),
    ("the time runs forward: an advantage sums what comes after it",
     "reversed(range(rewards.shape[1]))", "range(rewards.shape[1])"),
    ("the last value is bootstrapped: behind the last token nothing follows",
     "torch.zeros_like(rewards), torch.zeros_like(rewards[:, 0]), torch.zeros_like(rewards[:, 0])",
     "torch.zeros_like(rewards), values[:, -1], torch.zeros_like(rewards[:, 0])"),
    ("advantages outside of the mask are not 0", "* mask[:, t]\n", "\n"),
    ("the value before is taken for the value after", "advantages[:, t], after = running, values[:, t]",
     "advantages[:, t], after = running, values[:, t - 1]"),
)


@cases("4.3")
def _(draw):
    found = []
    for _ in range(2):
        B, T = draw.randint(3, 5), draw.randint(6, 9)
        _, _, mask = draw.rows(B, T)
        found.append({"x": 3 * draw.normal(B, T) + 5, "mask": mask})
    found.append({"x": torch.where(mask, 0.1, draw.normal(B, T)), "mask": mask})  # all equal
    return found


mistakes("4.3",
    ("padding is part of the mean", "(x - x[mask].mean())", "(x - x.mean())"),
    ("padding is part of the standard deviation", "x[mask].std(correction=0)", "x.std(correction=0)"),
    ("prompt and padding count in both mean and standard deviation",
     "    centred = (x - x[mask].mean()).masked_fill(~mask, 0.0)\n"
     "    return centred / x[mask].std(correction=0)",
     "    centred = (x - x.mean()).masked_fill(~mask, 0.0)\n    return centred / x.std(correction=0)"),
    ("divided by N - 1: the standard deviation is the population's (correction=0)", "correction=0",
     "correction=1"),
    ("not divided by the standard deviation", "centred / x[mask].std(correction=0) if", "centred if"),
    ("the mean is not subtracted", "(x - x[mask].mean())", "x"),
    ("divided by the variance: take its root", "x[mask].std(correction=0)",
     "x[mask].var(correction=0)"),
    ("entries outside of the mask are not 0", ".masked_fill(~mask, 0.0)", ""),
    ("all equal has to give 0: nan or noise otherwise",
     " if x[mask].amax() > x[mask].amin() else torch.zeros_like(x)", ""),
    ("each row is whitened by itself: mean and standard deviation are those of the batch",
     "    centred = (x - x[mask].mean()).masked_fill(~mask, 0.0)\n"
     "    return centred / x[mask].std(correction=0)",
     "    n = mask.sum(1, keepdim=True)\n"
     "    centred = (x - (x * mask).sum(1, keepdim=True) / n).masked_fill(~mask, 0.0)\n"
     "    return centred / ((centred ** 2).sum(1, keepdim=True) / n).sqrt()"),
    ("each row is centred by itself: the mean is that of the batch", "x[mask].mean()",
     "(x * mask).sum(1, keepdim=True) / mask.sum(1, keepdim=True)"),
)


@cases("4.4")
def _(draw):
    found = []
    for clip, weighted in ((0.2, False), (0.5, True), (0.0, False), (0.3, False)):
        B, T = draw.randint(5, 7), draw.randint(8, 11)
        _, _, mask = draw.rows(B, T)
        old = draw.normal(B, T)
        values = old + draw.normal(B, T)
        values[~mask] = float("nan")
        found.append({"values": values, "old_values": old, "returns": draw.normal(B, T), "mask": mask,
                      "clip": clip,
                      "weights": mask * draw.rand(B, T) if weighted else None})
    return found


mistakes("4.4",
    ("min in place of max: the larger of the two errors counts", "torch.maximum(free, clipped)",
     "torch.minimum(free, clipped)"),
    ("only the clipped error is left", "torch.maximum(free, clipped)", "clipped"),
    ("there is no clip", "if clip else free", "if False else free"),
    ("the factor 1/2 is missing", "return 0.5 * ", "return "),
    ("the values themselves are clipped: the clip is about how far they moved from the old ones",
     "(old_values + (values - old_values).clamp(-clip, clip) - returns)",
     "(values.clamp(-clip, clip) - returns)"),
    ("clip 0 means no clip, and not that nothing may move", "if clip else free", ""),
    ("only upwards: a value may fall by no more than clip either", "clamp(-clip, clip)",
     "clamp(max=clip)"),
    ("`weights` is not heeded: the denominator is that of the micro-batch", "    if weights is None:\n",
     "    if True:\n"),
    ("padding is not masked: whatever stands there gets into the loss",
     "(x.masked_fill(~mask, 0.0) for x in (values, old_values, returns))",
     "(x for x in (values, old_values, returns))"),
    ("the absolute error is taken: it is squared", "free = (values - returns) ** 2",
     "free = (values - returns).abs()"),
    ("the old values stand where the new ones should: no gradient", "free = (values - returns) ** 2",
     "free = (old_values - returns) ** 2"),
    ("the share of clipped tokens counts every value that moved too far: only where the clipped "
     "error is the larger one has the gradient gone",
     "((clipped > free) & mask)", "(((values - old_values).abs() > clip) & mask)"),
    ("the share of clipped tokens counts padding", ".sum() / mask.sum().clamp(min=1)",
     ".sum() / mask.numel()"),
    ("the values were detached: the critic gets no gradient", "free = (values - returns) ** 2",
     "values = values.detach()\n    free = (values - returns) ** 2"),
)
