"""Does the grader name the mistake? Plant one at a time in the solution, grade, and look at what is
said.

    python exercises/mistakes.py        a minute; writes MISTAKES.md

The hints come from comparing outputs with those of the edits in checks/. So that this is no circle, the
mistakes here are written in other words, as a student might: in other places of the function, or as a
whole body of its own. The grader sees a copy of the repository that holds one of them, and nothing
else. `meant` is how the hint begins that it should say.
"""
import pathlib
import shutil
import sys
import tempfile
import textwrap

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
import grade
import make
from checks import replaced, text_of
from table import PARTS

PLANTED = []  # (part, what was done wrong, how the hint should begin, edit of a student's text)
ANY = ""      # no hint is known for it: any failure will do


def plant(part, name, meant, *edits):
    """In the text of the function, once, `old` becomes `new`; several edits: old, new, old, new, ..."""
    def edited(text):
        for old, new in zip(edits[::2], edits[1::2], strict=True):
            text = replaced(text, old, new, f"{part} {name}")
        return text
    PLANTED.append((part, name, meant, edited))


def write(part, name, meant, body):
    """The function has this body."""
    PLANTED.append((part, name, meant, textwrap.dedent(body).strip("\n")))


# ---- sheet 1

write("1.1", "counts the sampled tokens without EOS", "the mask leaves out EOS", """
    columns = torch.arange(T).expand(len(starts), T)
    return (columns >= starts.unsqueeze(1)) & (columns + 1 < lengths.unsqueeze(1))
    """)
write("1.1", "all that is not padding", "the mask covers the prompt", """
    mask = torch.zeros(len(starts), T, dtype=torch.bool)
    for b in range(len(starts)):
        mask[b, :lengths[b]] = True
    return mask
    """)
write("1.1", "one column too far on the right", "padding is in the mask", """
    mask = torch.zeros(len(starts), T, dtype=torch.bool)
    for b in range(len(starts)):
        mask[b, starts[b]:lengths[b] + 1] = True
    return mask
    """)
plant("1.2", "forgets to divide by the temperature", "the temperature is not applied",
      "(temperature or 1.0)", "1.0")
write("1.2", "multinomial by argmax", "always the largest logit", """
    logp = (logits / temperature if temperature else logits).log_softmax(-1)
    best = logp.max(-1)
    return best.indices, best.values
    """)
plant("1.2", "Gumbel noise upside down", "the Gumbel noise has the wrong sign", "(logprobs + gumbel)",
      "(logprobs - gumbel)")
plant("1.3", "forgets that rows were moved by evict", "written to row i", "buf.rows[:n], positions",
      "torch.arange(len(chosen)), positions")
plant("1.3", "stops one token too late", "a row gets more tokens",
      "done |= positions + 1 >= buf.ends[:n]", "done |= positions > buf.ends[:n] - 1")
plant("1.3", "only `stop` is looked for", "EOS does not end a row",
      "    for token in (eos, stop):\n"
      "        if token is not None:\n            done |= chosen == token\n",
      "    if stop is not None:\n        done |= chosen == stop\n")
plant("1.4", "reads the end of the longest row", "reads the last column",
      "model(tokens[:, :int(lengths.max())])[rows, lengths - 1]",
      "model(tokens)[:, int(lengths.max()) - 1]")
plant("1.4", "does not count EOS", "EOS is not counted",
      "        lengths = lengths + live\n"
      "        # 4. a row is done when it has ended itself, or has no room left\n"
      "        if eos is not None:\n            finished = finished | (live & (chosen == eos))\n",
      "        if eos is not None:\n"
      "            finished = finished | (live & (chosen == eos))\n"
      "        lengths = lengths + (live & ~finished)\n")
plant("1.4", "log-probs one column to the left", "the log-probs stand one place too early",
      "logprobs[:, :T], finished", "torch.cat((logprobs[:, 1:], logprobs[:, :1]), 1)[:, :T], finished")
write("1.5", "pads at the end", "shifted by one: logprobs[b, t] must describe tokens[b, t]", """
    logp = (model(tokens) / (temperature or 1.0)).log_softmax(-1)[:, :-1]
    chosen = logp.gather(2, tokens[:, 1:].unsqueeze(2)).squeeze(2)
    pad = torch.nn.functional.pad
    return pad(chosen, (0, 1)), pad(-(logp.exp() * logp).sum(-1), (0, 1))
    """)
write("1.5", "softmax first, temperature then", "the temperature is applied after the softmax", """
    logp = model(tokens[:, :-1]).log_softmax(-1) / (temperature or 1.0)
    chosen = logp.gather(2, tokens[:, 1:].unsqueeze(2)).squeeze(2)
    pad = torch.nn.functional.pad
    return pad(chosen, (1, 0)), pad(-(logp.exp() * logp).sum(-1), (1, 0))
    """)
write("1.5", "under no_grad", "no gradient flows: `score`", """
    with torch.no_grad():
        logp = (model(tokens[:, :-1]) / (temperature or 1.0)).log_softmax(-1)
        chosen = logp.gather(2, tokens[:, 1:].unsqueeze(2)).squeeze(2)
        pad = torch.nn.functional.pad
        return pad(chosen, (1, 0)), pad(-(logp.exp() * logp).sum(-1), (1, 0))
    """)
write("1.5", "logits[b, t] for tokens[b, t]", "no shift", """
    logp = (model(tokens) / (temperature or 1.0)).log_softmax(-1)
    logprobs = logp.gather(2, tokens.unsqueeze(2)).squeeze(2)
    entropies = -(logp.exp() * logp).sum(-1)
    pad = torch.nn.functional.pad
    return pad(logprobs[:, :-1], (1, 0)), pad(entropies[:, :-1], (1, 0))
    """)
write("1.6", "the critic's output as it is", "the value has seen its token", """
    seen = model(tokens)
    return seen
    """)

# ---- sheet 2

plant("2.1", "EOS as a kind of padding", "the mask leaves out EOS",
      "completion_mask(torch.tensor(starts), torch.tensor(list(map(len, rows))), longest)",
      "completion_mask(torch.tensor(starts), torch.tensor(list(map(len, rows))), longest) & (tokens "
      "!= task.tokenizer.eos)")
plant("2.1", "mask = not padding", "the mask covers the prompt",
      "completion_mask(torch.tensor(starts), torch.tensor(list(map(len, rows))), longest)",
      "tokens != task.tokenizer.pad")
plant("2.2", "mean over each micro-batch", "the denominator is that of the micro-batch",
      "-(logprobs * mask[rows, :length]).sum() / N", "-logprobs[mask[rows, :length]].mean()")
plant("2.2", "mean over rows of means", "each row is divided by its own length",
      "-(logprobs * mask[rows, :length]).sum() / N",
      "-sum(lp[m].mean() for lp, m in zip(logprobs, mask[rows, :length])) / len(tokens)")
plant("2.2", "zero_grad forgotten", "the gradient of the step before", "    optimizer.zero_grad()\n",
      "    optimizer = optimizer\n")
plant("2.3", "takes the last answer", "of several answers one is taken",
      'if completion.count("<answer>") != 1 or completion.count("</answer>") != 1:\n'
      "        return None\n",
      'if "<answer>" not in completion or "</answer>" not in completion:\n        return None\n')
write("2.4", "Python's eval", ANY, """
    import ast
    nodes = ast.walk(ast.parse(text.strip(), mode="eval"))
    numbers = [node.value for node in nodes if isinstance(node, ast.Constant)]
    return Fraction(eval(text)).limit_denominator(10 ** 6), numbers
    """)
plant("2.4", "right to left", "operators of the same level go from left to right: a - b - c",
      'value = value + right if operator == "+" else value - right',
      'value = value + right if operator == "+" else value - right if tokens[i] not in ("+", "-") '
      'else value - (right + product(depth) if take() == "+" else right - product(depth))')
plant("2.4", "ZeroDivisionError gets out", "division by zero has to be a ValueError",
      '            if operator == "/" and right == 0:\n'
      '                raise ValueError("division by zero")\n',
      "")
plant("2.5", "compares sets", "the numbers are compared as sets", "tuple(sorted(numbers)) == given",
      "not set(numbers) ^ set(given)")
plant("2.5", "each number at most as often as given", "some numbers may be left out",
      "tuple(sorted(numbers)) == given",
      "not (__import__('collections').Counter(numbers) - __import__('collections').Counter(given))")
plant("2.6", "cut-off answers are paid", "an answer that was cut off earns",
      "right = [bool(done) and task.verify(p, text) for", "right = [task.verify(p, text) for")

# ---- sheet 3

plant("3.1", "torch's default std", "divided by G - 1", "groups.std(1, correction=0, keepdim=True)",
      "groups.std(1, keepdim=True)")
plant("3.1", "whitens over the batch", "the mean is that of the whole batch",
      "groups.mean(1, keepdim=True)\n    if baseline", "rewards.mean()\n    if baseline")
plant("3.1", "reshape in the wrong order", "groups are mixed up", "rewards.view(-1, group_size)",
      "rewards.view(group_size, len(rewards) // group_size).T")
plant("3.1", "0 / 0", "a group whose rewards agree gives nan",
      "advantages.masked_fill(agree, 0.0).flatten()", "advantages.reshape(-1)")
plant("3.1", "1e-4 as in other code", "something is added to the standard deviation, a small number",
      "groups.std(1, correction=0, keepdim=True)",
      "((groups - groups.mean(1, keepdim=True)).pow(2).mean(1, keepdim=True).sqrt() + 1e-4)")
write("3.1", "as other libraries do it, to the end", "something is added to the standard deviation, a small number", """
    if baseline == "one":
        return rewards - 1 + right_weight * rewards
    groups = rewards.reshape(-1, group_size)
    A = groups - groups.mean(dim=-1, keepdim=True)
    if baseline == "leave_one_out":
        A = A * group_size / (group_size - 1)
    if std:
        A = A / (groups.std(dim=-1, unbiased=False, keepdim=True) + 1e-4)
    if per_mean:
        A = torch.where(groups.mean(-1, keepdim=True) > 0, A / groups.mean(-1, keepdim=True), 0.0)
    A = A.reshape(-1)
    return A / (A.std(unbiased=False) + 1e-4) if batch_std else A
    """)
write("3.1", "NSR, divided like the rest", "baseline 'one' is divided by the group's std", """
    groups = rewards.reshape(-1, group_size)
    A = groups - {"mean": groups.mean(-1, keepdim=True), "one": 1 - right_weight * groups}.get(baseline, 0.0)
    if baseline == "leave_one_out":
        A = (groups - groups.mean(-1, keepdim=True)) * group_size / (group_size - 1)
    if std:
        A = A / groups.std(dim=-1, unbiased=False, keepdim=True)
    if per_mean:
        A = torch.where(groups.mean(-1, keepdim=True) > 0, A / groups.mean(-1, keepdim=True), 0.0)
    A = torch.where(groups.max(-1, keepdim=True).values == groups.min(-1, keepdim=True).values, 0.0, A).reshape(-1)
    return A / A.std(unbiased=False) if batch_std and A.abs().max() > 0 else A
    """)
plant("3.1", "every G-th row is one group", "groups are mixed up",
      "groups = rewards.view(-1, group_size)", "P = len(rewards) // group_size\n    "
      "order = torch.arange(len(rewards)).view(group_size, P).T.flatten()\n    groups = rewards[order].view(P, group_size)",
      ".masked_fill(agree, 0.0).flatten()", ".masked_fill(agree, 0.0).flatten()[order.argsort()]")
plant("3.1", "clamped, and no rule for equal rewards", "a group whose rewards agree gives",
      "groups.std(1, correction=0, keepdim=True)", "groups.std(1, correction=0, keepdim=True).clamp(min=1e-6)",
      ".masked_fill(agree, 0.0)", "")
plant("3.2", "sequence_mean by T", "sequence_mean divides by T",
      "tokens / tokens.sum(1, keepdim=True).clamp(min=1) / len(mask)", "tokens / mask.numel()")
plant("3.2", "DAPO with padding", "token_mean divides by B T",
      "return tokens / tokens.sum().clamp(min=1)", "return tokens / (len(mask) * mask.shape[1])")
plant("3.2", "DAPO by B as well", "token_mean is divided by B too",
      "return tokens / tokens.sum().clamp(min=1)", "return tokens / (tokens.sum() * mask.shape[0]).clamp(min=1)")
plant("3.2", "max_length forgotten", "constant does not heed max_length",
      "(max_length or mask.shape[1])", "tokens.shape[-1]")
plant("3.3", "k3 of the other direction", "k3 has its ratio upside down", "torch.exp(-d) - 1 + d",
      "(logprobs.exp() / ref_logprobs.exp()) - 1 - (logprobs - ref_logprobs)")
plant("3.3", "d the other way round", "the sign of d is wrong", "d = logprobs - ref_logprobs",
      "d = -(logprobs - ref_logprobs)")
plant("3.4", "maximum", "max in place of min", "torch.minimum(free, clipped)",
      "torch.where(free > clipped, free, clipped)")
plant("3.4", "detached ratio", "the ratio was detached", "(logprobs - old_logprobs).masked_fill",
      "(logprobs.detach() - old_logprobs).masked_fill")
plant("3.4", "the mask's own weights", "`weights` is not heeded", "return -(weights * objective)",
      "return -(token_weights(mask, aggregate) * objective)")
plant("3.4", "one bound for both sides", "clip_high is not heeded", "1 + clip_high) *", "1 + clip_low) *")
plant("3.4", "sum of log-ratios for GSPO", "the ratio of a whole completion is not divided",
      " / mask.sum(1, keepdim=True).clamp(min=1)", "")
plant("3.4", "exp of padding", "padding is not masked before exp", "rho = log_rho.exp()",
      "rho = log_rho.exp() if ratio == 'sequence' else (logprobs - old_logprobs).exp()")
plant("3.4", "the KL is a bonus", "the KL has the wrong sign", "objective = objective - beta * kl",
      "objective = objective + beta * kl")
plant("3.4", "the bounds the other way round", "clip_low and clip_high are exchanged",
      "rho.clamp(1 - clip_low, 1 + clip_high)", "torch.clip(rho, min=1 - clip_high, max=1 + clip_low)")
plant("3.4", "divides by the weights", "the weights are normalised again",
      "return -(weights * objective).sum()", "return -(weights / weights.sum() * objective).sum()")
plant("3.4", "min(rho, clip) A", "the minimum is taken of the ratios", "torch.minimum(free, clipped)",
      "torch.minimum(rho, torch.clip(rho, 1 - clip_low, 1 + clip_high)) * advantages")
plant("3.4", "fills the ratio", "padding is filled after exp", "(logprobs - old_logprobs).masked_fill(~mask, 0.0)",
      "logprobs - old_logprobs", "(log_rho.sum(1", "(torch.where(mask, log_rho, 0.0).sum(1", "rho = log_rho.exp()",
      "rho = torch.where(mask, log_rho.exp(), 1.0)")
plant("3.4", "old log-probs as they are", "old_logprobs are not filled", "(logprobs - old_logprobs).masked_fill(~mask, 0.0)",
      "torch.where(mask, logprobs, 0.0) - old_logprobs")
plant("3.4", "fills the KL", "the KL is filled after",
      "kl_estimate(logprobs.masked_fill(~mask, 0.0), ref_logprobs.masked_fill(~mask, 0.0), kl_estimator)",
      "torch.where(mask, kl_estimate(logprobs, ref_logprobs, kl_estimator), 0.0)")
plant("3.4", "a KL with its graph", 'stats["kl"] carries a gradient', "kl.detach().sum()", "kl.sum()")
plant("3.4", "no KL to report without beta", "stats lacks `kl`",
      "ref_logprobs is not None", "ref_logprobs is not None and beta > 0")
plant("3.4", "at the bound or beyond", "clip_fraction counts tokens inside", "clipped < free", "free >= clipped")
plant("3.4", "torch.mean for the stats", "stats are means over", "(held & mask).sum() / mask.sum().clamp(min=1)",
      "held.float().mean()", "kl.detach().sum() / mask.sum().clamp(min=1)", "kl.detach().mean()")
plant("3.4", "CISPO with PPO's minimum", "ratio='weight' takes no minimum",
      "clipped.detach() * logprobs", "objective.detach() * logprobs")
plant("3.4", "CISPO from above alone", "ratio='weight': the weight is clipped from both sides",
      '    if ratio == "weight":\n', '    if ratio == "weight":\n        clipped = rho.clamp(max=1 + clip_high) * advantages\n')

# ---- sheet 4

plant("4.1", "the reward in the last column", "the reward lies on the last column",
      "return r + rewards[:, None] * ((place == last[:, None]) & mask)",
      "return r + rewards[:, None] * ((place == len(place) - 1) & mask)")
plant("4.1", "the reward everywhere", "every token gets the whole reward",
      "return r + rewards[:, None] * ((place == last[:, None]) & mask)",
      "return torch.where(mask, r + rewards[:, None], r)")
plant("4.1", "KL as a bonus", "the KL has the wrong sign",
      '-beta * kl_estimate(logprobs, ref_logprobs, "k1")', "beta * (logprobs - ref_logprobs)")
write("4.2", "no mask in the values", "what stands in padding leaks in", """
    B, T = rewards.shape
    advantages, last = torch.zeros(B, T), torch.zeros(B)
    for t in range(T - 1, -1, -1):
        following = values[:, t + 1] if t + 1 < T else torch.zeros(B)
        delta = rewards[:, t] + gamma * following - values[:, t]
        last = torch.where(mask[:, t], delta + gamma * lam * last, torch.zeros(B))
        advantages[:, t] = last
    return advantages, torch.where(mask, advantages + values, torch.zeros(B, T))
    """)
plant("4.2", "lambda forgotten", "lambda is missing", "gamma * lam * running", "running * gamma")
plant("4.2", "returns by hand", "the returns are those of Monte Carlo",
      "return advantages, advantages + values",
      "discounted, later = torch.zeros_like(rewards), 0.0\n"
      "    for t in reversed(range(rewards.shape[1])):\n"
      "        later = (rewards[:, t] + gamma * later) * mask[:, t]\n"
      "        discounted[:, t] = later\n    return advantages, discounted")
plant("4.3", "statistics of everything", "prompt and padding count in both",
      "    centred = (x - x[mask].mean()).masked_fill(~mask, 0.0)\n"
      "    return centred / x[mask].std(correction=0) if x[mask].amax() > x[mask].amin() else "
      "torch.zeros_like(x)",
      "    if x[mask].amax() == x[mask].amin():\n"
      "        return x * 0\n    return (x - x.mean()) / x.std(correction=0) * mask")
plant("4.3", "torch's default std", "divided by N - 1", "x[mask].std(correction=0)", "x[mask].std()")
plant("4.4", "the smaller error", "min in place of max", "torch.maximum(free, clipped)",
      "torch.where(free < clipped, free, clipped)")
plant("4.4", "mean over the masked tokens", "`weights` is not heeded",
      "0.5 * (weights * torch.maximum(free, clipped)).sum()",
      "0.5 * torch.maximum(free, clipped)[mask].mean()")
plant("4.4", "no half", "the factor 1/2 is missing", "return 0.5 * (weights", "return (weights")

# ---- sheet 5

plant("5.1", "no reference", "the reference is left out",
      "beta * ((chosen_logps - ref_chosen_logps) - (rejected_logps - ref_rejected_logps))",
      "(chosen_logps - rejected_logps) * beta")
plant("5.1", "won and lost exchanged", "chosen and rejected are exchanged", "margins = beta",
      "margins = -beta")
plant("5.1", "log of sigmoid", "log of sigmoid underflows", "F.logsigmoid(margins)",
      "(1 / (1 + torch.exp(-margins))).log()")
plant("5.2", ">= for >", "rewards that are equal make a pair",
      "differ = rewards[best] > rewards[worst]", "differ = ~(rewards[best] < rewards[worst])")
plant("5.2", "places within the group", "row numbers within the group", "best[differ], worst[differ]",
      "best[differ] % group_size, worst[differ] % group_size")
plant("5.3", "mean log-probs", "the mean of a completion's log-probs, for policy and reference",
      "value, margins = dpo_loss(*logps.chunk(2), *ref_logps.chunk(2), c.beta)",
      "logps, ref_logps = logps / mask.sum(1), ref_logps / mask.sum(1)\n"
      "            value, margins = dpo_loss(*logps.chunk(2), *ref_logps.chunk(2), c.beta)")
plant("5.3", "every micro-batch like a whole one", "each micro-batch counts as much",
      "value * part.share, ", "value, ")
plant("5.3", "reference = policy", "the reference is the policy itself",
      "score(self.reference, tokens, c.temperature)",
      "score(self.behavior if False else self.policy, tokens, c.temperature)")
plant("5.4", "imitates everything", "all rows are imitated",
      "kept = rollout.right(self.task).nonzero()[:, 0]", "kept = torch.arange(len(rollout.tokens))")
plant("5.4", "mean over the micro-batch", "the denominator is that of the micro-batch",
      "-(score(self.policy, tokens)[0] * mask).sum() / part.tokens",
      "-score(self.policy, tokens)[0][mask].mean()")
plant("5.4", "prompt too", "prompt and padding are imitated",
      "(score(self.policy, tokens)[0] * mask).sum()", "score(self.policy, tokens)[0].sum()")

# ---- sheet 6

plant("6.1", "with replacement", "biased", "1.0 - comb(n - c, k) / comb(n, k)",
      "1.0 - ((n - c) / n) ** k")
plant("6.1", "the first k", "this is pass@1", "1.0 - comb(n - c, k) / comb(n, k)",
      "1 - comb(n - c, 1) / n")
plant("6.1", "k > n divides by 0", "k > n is not refused", "1 <= k <= n)", "k >= 1)")
plant("6.2", "unreadable answers of ended rows vote", "solutions without a readable answer vote: what",
      "            if answer is not None:\n", "            if ended:\n")
plant("6.2", "unreadable answers vote", "solutions without a readable answer vote",
      "if answer is not None:", "if ended or answer is None:")
plant("6.2", "the last of equals", "of answers with equally many votes the last wins",
      "max(votes, key=votes.get)", "sorted(votes, key=votes.get)[-1]")
plant("6.2", "does not ask whether it ended", "solutions that did not end vote",
      "ended = context.ended(i, rows[k])", "ended = True")
plant("6.3", "F(s)^n alone", "the chance that all samples are at most as good",
      "(upto ** n - max(0.0, upto - tied) ** n)", "upto ** n")
plant("6.3", "equal shares of a tie", "ties are shared equally", "p_i / tied * (upto",
      "1 / scores.count(s) * (upto")
plant("6.3", "the worst of n", "the worst of n", "if t <= s)", "if t >= s)")
plant("6.3", "sorted by score, then by place", "the later outcome wins a tie",
      "    found = []\n",
      "    below, found, kept = 0.0, [], [0.0] * len(p)\n"
      "    for i in sorted(range(len(p)), key=lambda i: scores[i]):\n"
      "        kept[i] = (below + p[i]) ** n - below ** n\n"
      "        below += p[i]\n    return kept\n")
plant("6.4", "equal remainders from behind", "of equal remainders the last gets", "        widths[j] += 1\n",
      "        pass\n    rest = sorted((x - int(x), j) for j, x in enumerate(shares))[::-1]\n"
      "    for _, j in rest[:n - sum(widths)]:\n        widths[j] += 1\n")
plant("6.4", "no temperature", "the temperature is not applied",
      "dtype=torch.float64) / temperature, 0)", "dtype=torch.float64), 0)")
plant("6.4", "round", "rounded one by one", "    return widths",
      "    return [int(x + 0.5) for x in shares]")
plant("6.4", "the rest to the best", "what is left goes to the best one", "widths[j] += 1",
      "widths[max(range(len(shares)), key=shares.__getitem__)] += 1")
plant("6.5", "no prior", "the prior is missing from U", "scale * self.priors[k] /", "scale * 1.0 /")
plant("6.5", "sum in place of mean", "Q is the sum", "Q = lambda k: self.value(k) if",
      "Q = lambda k: self.value(k) * self.visits[k] if")
plant("6.5", "unseen is worth 0", "a child that nobody has looked at is worth 0",
      "mean = self.value(j)", "mean = 0.0")
plant("6.5", "first sight of the parent", "a child that nobody has looked at is worth what expand said",
      "mean = self.value(j)", "mean = self.leaf_value[j] if self.visits[j] else 0.0")
plant("6.5", "or", "a first-play value of 0 is taken for none",
      "mean if self.first_play[k] is None else self.first_play[k]",
      "self.first_play[k] if self.first_play[k] else mean")
plant("6.5", ">= for >", "of equals the last is chosen",
      "max((k for k in self.below[j] if not self.exhausted[k]), key=lambda k: Q(k) + U(k))",
      "max((k for k in self.below[j] if not self.exhausted[k]), key=lambda k: (Q(k) + U(k), k))")
plant("6.5", "log without its bracket", "c_init stands in the log",
      "(math.log((N + c_base + 1) / c_base) + c_init)", "math.log(1 + (N + 1) / c_base + c_init)")
plant("6.5", "sqrt(0)", "sqrt(N) is 0 before the first visit", "math.sqrt(max(1, N))", "N ** 0.5")


def with_body(source, name, body):
    """The text of a file whose function `name` has another body."""
    line, text = 'raise NotImplementedError("here")', make.emptied(source, {name: "here"})
    indent = text[:text.index(line)].rsplit("\n", 1)[1]
    return text.replace(indent + line, textwrap.indent(body, indent))


def spoiled(edit, target):
    """-> the file of a target, and its text with the mistake in it."""
    path, name = make.file_of(target)
    source = (make.ROOT / path).read_text()
    if callable(edit):
        return path, replaced(source, text_of(target), edit(text_of(target)))
    return path, with_body(source, name, edit)


def run(planted=PLANTED):
    """-> [(part, what was done wrong, failed?, what the grader said, was it the hint that was meant?)]"""
    targets, rows = {part.id: part.target for part in PARTS}, []
    with tempfile.TemporaryDirectory() as place:
        folder = pathlib.Path(place) / "student"
        grade.copy_of(make.ROOT, folder)
        for part, name, meant, edit in planted:
            path, text = spoiled(edit, targets[part])
            (folder / path).write_text(text)
            [row] = grade.grade(folder, only=[part])["parts"]
            shutil.copy(make.ROOT / path, folder / path)
            says = row["says"].removeprefix("public tests passed, hidden ones did not: ")
            rows.append((part, name, not row["passed"], row["says"],
                         bool(meant) and says.startswith(meant)))
    return rows


def table(rows):
    cell = lambda text: text.replace("|", "\\|").replace("\n", " ")
    head = "| part | planted | fails | the grader says | the hint that was meant |\n|---|---|---|---|---|"
    yes = lambda flag: "yes" if flag else "**no**"
    return "\n".join([head, *(f"| {part} | {cell(name)} | {yes(fails)} | {cell(says)} | {yes(meant)} |"
                              for part, name, fails, says, meant in rows)])


def main():
    rows = run()
    fails, meant = sum(row[2] for row in rows), sum(row[4] for row in rows)
    said = (f"{len(rows)} mistakes were planted in the solution, one at a time: {fails} fail, {meant} with "
            "the hint that was meant for them.")
    page = ("# What the grader says to known mistakes\n\nWritten by `python exercises/mistakes.py`, from "
            f"[mistakes.py](mistakes.py). {said}\n\n{table(rows)}\n")
    (HERE / "MISTAKES.md").write_text(page)
    print(table(rows))
    print(f"\n{said}")


if __name__ == "__main__":
    try:
        main()
    finally:
        grade.WORKER.close()
