"""DPO and STaR: what is asked, and what the known mistakes look like."""
import torch

from checks import cases, mistakes


@cases("5.1")
def _(draw):
    found = []
    for beta in (0.1, draw.choice([0.5, 0.7])):
        N = draw.randint(3, 6)
        names = ("chosen", "rejected", "ref_chosen", "ref_rejected")
        found.append({name: -10 * draw.rand(N) for name in names} | {"beta": beta})
    return found + [{"chosen": torch.tensor([-900.0]), "rejected": torch.tensor([-1.0]),
                     "ref_chosen": torch.tensor([-1.0]), "ref_rejected": torch.tensor([-1.0]),
                     "beta": 0.5}]


MARGINS = "beta * ((chosen_logps - ref_chosen_logps) - (rejected_logps - ref_rejected_logps))"
mistakes("5.1",
    ("chosen and rejected are exchanged, or policy and reference", MARGINS,
     "beta * ((rejected_logps - ref_rejected_logps) - (chosen_logps - ref_chosen_logps))"),
    ("the reference is left out: the margin is about what has changed since", MARGINS,
     "beta * (chosen_logps - rejected_logps)"),
    ("the references are exchanged", MARGINS,
     "beta * ((chosen_logps - ref_rejected_logps) - (rejected_logps - ref_chosen_logps))"),
    ("beta is missing", MARGINS, MARGINS.replace("beta * ", "")),
    ("beta stands outside of the sigmoid", "-F.logsigmoid(margins).mean()",
     "-beta * F.logsigmoid(margins / beta).mean()"),
    ("the margins that are returned lack beta", "-F.logsigmoid(margins).mean(), margins",
     "-F.logsigmoid(margins).mean(), margins / beta"),
    ("the sign is wrong: minus log sigmoid", "-F.logsigmoid(margins)", "F.logsigmoid(margins)"),
    ("a sum over the pairs: it is the mean", ".mean(), margins", ".sum(), margins"),
    ("the log is missing: -log sigmoid(margin)", "-F.logsigmoid(margins)", "-torch.sigmoid(margins)"),
    ("log of sigmoid underflows at large margins: use logsigmoid", "-F.logsigmoid(margins)",
     "-torch.sigmoid(margins).log()"),
    ("a hinge in place of log sigmoid", "-F.logsigmoid(margins)", "(1 - margins).clamp(min=0)"),
    ("the margins were detached before the loss", "-F.logsigmoid(margins)",
     "-F.logsigmoid(margins.detach())"),
)


@cases("5.2")
def _(draw):
    found = []
    for G in (4, draw.choice([3, 5, 7]), 6):
        groups = draw.randint(3, 4)
        rewards = draw.ints(0, 2, groups, G) / 2
        rewards[0], rewards[1] = torch.arange(G) % 2, 0.1
        found.append({"rewards": rewards.flatten(), "group_size": G})
    distinct = torch.tensor([draw.sample(range(10), 6) for _ in range(2)]).float()
    return found + [{"rewards": distinct.flatten(), "group_size": 6}]


mistakes("5.2",
    ("rewards that are equal make a pair: nothing says which is better",
     "rewards[best] > rewards[worst]", "rewards[best] >= rewards[worst]"),
    ("row numbers within the group: each group begins at a row of its own",
     "    order = order + group_size * torch.arange(len(groups), device=rewards.device)[:, None]\n",
     ""),
    ("row numbers within the group: each group begins at a row of its own",
     "return best[differ], worst[differ]",
     "return best[differ] % group_size, worst[differ] % group_size"),
    ("chosen and rejected are exchanged", "return best[differ], worst[differ]",
     "return worst[differ], best[differ]"),
    ("the best is paired with the middle of its group, and not with the worst",
     "order.flip(1)[:, :half].flatten()", "order[:, -half:].flatten()"),
    ("only the best and the worst of each group are paired: the second best with the second worst, "
     "and so on",
     "half = group_size // 2", "half = 1"),
    ("neighbours in rank are paired",
     "best, worst = order[:, :half].flatten(), order.flip(1)[:, :half].flatten()",
     "best, worst = order[:, 0:2 * half:2].flatten(), order[:, 1:2 * half:2].flatten()"),
    ("groups are mixed up: rows of one prompt stand next to each other",
     "groups = rewards.view(-1, group_size)", "groups = rewards.view(group_size, -1).T"),
    ("every right row is paired with every wrong one: a row is used once at most",
     "    return best[differ], worst[differ]",
     "    every = [(g * group_size + i, g * group_size + j) for g in range(len(groups)) for i in "
     "range(group_size) for j in range(group_size) if groups[g, i] > groups[g, j]]\n"
     "    return torch.tensor([i for i, _ in every]), torch.tensor([j for _, j in every])"),
)


def completions(draw, B, T, V):
    starts, lengths, mask = draw.rows(B, T)
    return {"table": draw.normal(V), "tokens": draw.ints(2, V - 1, B, T), "starts": starts,
            "lengths": lengths, "mask": mask,
            "finished": draw.rand(B) < 2}


@cases("5.3")
def _(draw):
    found = []
    for micro_batch, temperature in ((64, 1.0), (2, 1.0), (4, draw.choice([0.5, 2.0]))):
        case = completions(draw, 8, draw.randint(6, 9), draw.randint(5, 8))
        rows = draw.sample(range(8), 6)
        found.append(case | {"chosen": torch.tensor(rows[:3]), "rejected": torch.tensor(rows[3:]),
                             "micro_batch": micro_batch, "temperature": temperature,
                             "moved": 0.3 * draw.normal(len(case["table"]))})
    return found


SUMMED = "logps = (score(self.policy, tokens, c.temperature)[0] * mask).sum(1)"
REFERENCE = "ref_logps = (score(self.reference, tokens, c.temperature)[0] * mask).sum(1)"
BOTH = SUMMED + "  # summed: (2n,)\n            with torch.no_grad():\n                " + REFERENCE
mistakes("5.3",
    ("the mean of a completion's log-probs: DPO takes their sum, also of the reference", SUMMED,
     SUMMED.replace(".sum(1)", ".sum(1) / mask.sum(1)")),
    ("the mean of a completion's log-probs, for policy and reference: DPO takes their sum",
     BOTH, BOTH.replace(".sum(1)  # summed: (2n,)", ".sum(1) / mask.sum(1)") + " / mask.sum(1)"),
    ("prompt and padding are part of the sum", BOTH, BOTH.replace(" * mask)", ")")),
    ("the temperature is not passed on to `score`", BOTH, BOTH.replace(", c.temperature", "")),
    ("chosen and rejected are exchanged", "dpo_loss(*logps.chunk(2), *ref_logps.chunk(2), c.beta)",
     "dpo_loss(*logps.chunk(2)[::-1], *ref_logps.chunk(2)[::-1], c.beta)"),
    ("the reference is the policy itself: it has to stay where training began",
     "score(self.reference, ", "score(self.policy, "),
    ("each micro-batch counts as much as a whole one: weigh its loss by part.share",
     "return value * part.share", "return value"),
    ("the micro-batch counts by its pairs: part.share says it", "return value * part.share",
     "return value * len(tokens) / 2"),
    ("pairs interleaved: first come all the chosen ones of a micro-batch, then all the rejected ones",
     "dpo_loss(*logps.chunk(2), *ref_logps.chunk(2), c.beta)",
     "dpo_loss(logps[0::2], logps[1::2], ref_logps[0::2], ref_logps[1::2], c.beta)"),
    ("policy and reference are exchanged", "dpo_loss(*logps.chunk(2), *ref_logps.chunk(2), c.beta)",
     "dpo_loss(*ref_logps.chunk(2), *logps.chunk(2), c.beta)"),
    ("chosen_logp and rejected_logp are about the change since the reference",
     "(logps - ref_logps).detach().chunk(2)", "logps.detach().chunk(2)"),
    ("chosen_logp and rejected_logp are exchanged",
     '"chosen_logp": better,\n                     "rejected_logp": worse',
     '"chosen_logp": worse,\n                     "rejected_logp": better'),
)


@cases("5.4")
def _(draw):
    found = []
    for micro_batch in (64, 2):
        case = completions(draw, 8, draw.randint(6, 9), draw.randint(5, 8))
        tokens, starts = case["tokens"], case["starts"]
        firsts = [str(int(tokens[b, starts[b]])) for b in range(8)]
        # even rows are right
        problems = [first if b % 2 == 0 else "0" for b, first in enumerate(firsts)]
        case["finished"][2] = False  # right, but cut off
        found.append(case | {"problems": problems, "micro_batch": micro_batch,
                             "rewards": torch.tensor([1.0, 0.5, -1, 0, 0.25, 1, 0, 0.0])})
    return found


STAR = "-(score(self.policy, tokens)[0] * mask).sum() / part.tokens"
mistakes("5.4",
    ("all rows are imitated: only what the rule accepts is kept", "rollout.right(self.task).nonzero()",
     "torch.ones(len(rollout.tokens)).nonzero()"),
    ("the wrong rows are kept", "rollout.right(self.task).nonzero()",
     "(~rollout.right(self.task)).nonzero()"),
    ("what is kept follows the rewards: they may hold more than the rule's verdict",
     "rollout.right(self.task).nonzero()", "(rewards > 0).nonzero()"),
    ("a right answer that was cut off is kept: it never learned to end",
     "rollout.right(self.task).nonzero()",
     "torch.tensor([self.task.verify(p, t) for p, t in zip(rollout.problems, "
     "rollout.completions(self.task.tokenizer))]).nonzero()"),
    ("the denominator is that of the micro-batch: part.tokens counts those of the whole step", STAR,
     STAR.replace("part.tokens", "mask.sum()")),
    ("prompt and padding are imitated too", STAR, STAR.replace(" * mask)", ")")),
    ("the sign is wrong: the loss is minus the log-probs", STAR, STAR[1:]),
    ("divided by the number of rows, and not by that of the tokens", STAR,
     STAR.replace("part.tokens", "len(kept)")),
    ("a sum: divided by nothing", STAR, STAR.replace(" / part.tokens", "")),
    ("weighed by the rewards: every kept row counts the same", STAR,
     STAR.replace("tokens)[0] * mask)", "tokens)[0] * mask * rewards[part.rows][:, None])")),
    ("`kept` is not reported", '{"kept": len(kept)} | ', ""),
)
