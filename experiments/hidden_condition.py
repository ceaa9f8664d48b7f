"""Two answers fit, and a condition that the question does not name decides: what does RL make of it?

    python experiments/hidden_condition.py            about 6 minutes on 2 cores
    python experiments/hidden_condition.py --quick    1 minute

The claim: a reward for right answers makes the policy give the more frequent answer alone, and what it could do with a second try is lost.
A reward for the best of k samples (arXiv:2505.15201, 2508.10751) keeps both answers. Let pi be the chance of the answer that is right with
chance m >= 1/2; the other one has the rest. Then

    pass@1 = m pi + (1 - m) (1 - pi)                          is highest at pi = 1                        collapse
    pass@k = 1 - m (1 - pi)^k - (1 - m) pi^k                  at pi/(1 - pi) = (m/(1 - m))^(1/(k - 1))    k = 2: pi = m
    maxrl:   sum over k = 1 ... G of pass@k / k               between them, see `optimum`                 G: samples in a group

Policy gradient of pass@k, without bias (a group has n samples; r_i is 0 or 1; c_i counts the right ones among the other n - 1):

    A_i = (r_i - c_i/(n - 1)) * C(n - 1 - c_i, k - 1) / C(n - 1, k - 1)      the second factor: k - 1 of the others are all wrong

The setting: keys, a token each, with two answers of their own among 32. Which one is right is drawn anew for each question, the first with
chance m; all samples of a question share that. The demonstrations give the right one, so the warm start answers with chance m: it
matches. Hidden: the question ends in " ?". Shown: it ends in the name of the condition, in the demonstrations too. Chances are exact.
Results: docs/hidden_condition.{md,json,png}.
"""
from math import comb

from cells import main, spread

LEVELS = (0.5, 0.6, 0.7, 0.8, 0.9)
METHODS = ("warm", "dr_grpo", "maxrl", "pass@2", "pass@4", "shown")
FULL = {"seeds": (0, 1, 2), "methods": METHODS, "keys": 12, "sft": 300, "steps": 120, "prompts": 64}
QUICK = {"seeds": (0,), "methods": ("warm", "dr_grpo", "pass@2"), "keys": 6, "sft": 200, "steps": 60, "prompts": 64}
TITLES = {"warm": "warm start", "shown": "dr_grpo, condition shown"}


def pass_at(k, m, pi, other):
    """The chance that one of k samples is right."""
    return m * (1 - (1 - pi) ** k) + (1 - m) * (1 - (1 - other) ** k)


def optimum(method, m, G=8):
    """The pi that the objective of a method asks for, to 1/1000; None where every pi is as good (m = 1/2, pass@1).

    >>> [optimum(method, 0.8) for method in ("warm", "dr_grpo", "pass@2", "shown")], optimum("dr_grpo", 0.5)
    ([0.8, 1.0, 0.8, 1.0], None)
    """
    if method == "warm" or method == "shown":
        return m if method == "warm" else 1.0
    if method == "dr_grpo":
        return 1.0 if m > 0.5 else None
    weights = {k: 1 / k for k in range(1, G + 1)} if method == "maxrl" else {int(method[5:]): 1}
    return max((i / 1000 for i in range(1001)), key=lambda pi: sum(w * pass_at(k, m, pi, 1 - pi) for k, w in weights.items()))


def pass_at_k_advantages(rewards, n, k):
    """rewards (B,) of zeros and ones, groups of n neighbours -> advantages (B,): see the top of this file. k = 1 is leave-one-out.

    >>> import torch
    >>> pass_at_k_advantages(torch.tensor([1., 0., 0.]), 3, 2).tolist(), pass_at_k_advantages(torch.tensor([1., 1., 0.]), 3, 2).tolist()
    ([1.0, -0.25, -0.25], [0.25, 0.25, 0.0])
    """
    import torch
    groups = rewards.view(-1, n)
    others = groups.sum(1, keepdim=True) - groups
    wrong = torch.tensor([comb(n - 1 - c, k - 1) / comb(n - 1, k - 1) for c in range(n)])  # k - 1 of the others, c of them right
    return ((groups - others / (n - 1)) * wrong[others.long()]).flatten() + 0.0  # no negative zeros


def conditions(keys, shown):
    """-> the task: `keys` keys of each level; task.pairs, the two answers of each."""
    import random
    from facts import Table
    from tasks import Problem

    class Conditions(Table):
        def __init__(self):
            rng = random.Random("conditions")
            self.levels = [level for level in LEVELS for _ in range(keys)]
            answers = [f" v{v}" for v in range(32)]
            self.pairs = [rng.sample(answers, 2) for _ in self.levels]
            super().__init__([*(f"k{i}" for i in range(len(self.levels))), *answers, " ?", " sun?", " rain?"], 2, 2)

        def question(self, i, condition):
            return Problem(f"k{i}" + ((" sun?", " rain?")[condition] if shown else " ?"), self.pairs[i][condition], (i, condition))

        def draw(self, rng):
            i = rng.randrange(len(self.levels))
            return self.question(i, int(rng.random() >= self.levels[i]))

        def demonstration(self, problem, rng):
            return problem.answer

    return Conditions()


def look(model, task):
    """-> the exact chances of a policy, means over the keys of a level."""
    import torch
    import facts
    tokens = torch.tensor([[task.tokenizer.encode(answer)[0] for answer in pair] for pair in task.pairs])
    m = torch.tensor(task.levels)
    # (keys, 2): the chance of the answer that fits condition 0 under it, and of the one that fits 1 under that
    right = torch.stack([facts.chances(model, task, [task.question(i, c).prompt for i in range(len(m))]).gather(1, tokens[:, c:c + 1])[:, 0]
                         for c in (0, 1)], 1)
    return {"first": [float(right[m == level, 0].mean()) for level in LEVELS],
            "larger": [float(right[m == level].amax(1).mean()) for level in LEVELS],
            **{f"pass@{k}": float(pass_at(k, m, *right.T).mean()) for k in (1, 2, 4, 8)}}


def cell(folder, plan, seed):
    """One warm start, and RL from it with every method; where the condition is shown, from one of its own."""
    import copy
    import facts
    from grpo import GRPO

    class PassAtK(GRPO):
        k = 1

        def advantages(self, rollout, rewards):
            return pass_at_k_advantages(rewards, self.config.group_size, self.k)[:, None].expand(rollout.mask.shape)

    hidden = conditions(plan["keys"], False)
    start, found = facts.warm_start(hidden, plan["sft"], seed), {}
    for method in plan["methods"]:
        task = conditions(plan["keys"], True) if method == "shown" else hidden
        model = facts.warm_start(task, plan["sft"], seed) if method == "shown" else copy.deepcopy(start)
        learner = type("Learner", (PassAtK,), {"k": int(method[5:])}) if method.startswith("pass@") else GRPO
        if method != "warm":
            facts.reinforce(model, task, lambda problem, text, _: float(text == problem.answer), plan["steps"], seed,
                            "maxrl" if method == "maxrl" else "dr_grpo", learner, prompts=plan["prompts"], lr=5e-4)
        found[method] = look(model, task)
    return found


def report(folder, plan, get):
    seeds, methods = plan["seeds"], plan["methods"]
    found = get([(seed,) for seed in seeds])
    lines = ["| |" + "".join(f" m = {m}: theory | here |" for m in LEVELS[1:]) + " m = 0.5: the likelier answer | pass@1 | pass@2 | pass@4 | pass@8 |",
             "|" + "---|" * (6 + 2 * (len(LEVELS) - 1))]
    curves = {}
    for method in methods:
        runs = [found[seed,][method] for seed in seeds]
        cells = [f"{optimum(method, m):.2f} | {spread((run['first'][i] for run in runs), '.2f')}" for i, m in enumerate(LEVELS) if m > 0.5]
        scores = [spread((run[f"pass@{k}"] for run in runs), ".3f") for k in (1, 2, 4, 8)]
        lines.append(f"| {TITLES.get(method, method)} | {' | '.join(cells)} | {spread((run['larger'][0] for run in runs), '.2f')} | "
                     f"{' | '.join(scores)} |")
        curves[TITLES.get(method, method)] = runs
    mean = lambda values: [sum(v) / len(v) for v in zip(*values)]
    panels = [{"title": "chance of the more frequent answer", "x": "m: how often it is right", "y": "pi", "curves": {
                  name: (LEVELS, mean(run["first"] for run in runs)) for name, runs in curves.items()}},
              {"title": "what k samples solve", "x": "k: samples per question", "y": "pass@k", "log": 2, "curves": {
                  name: ((1, 2, 4, 8), mean([run[f"pass@{k}"] for k in (1, 2, 4, 8)] for run in runs)) for name, runs in curves.items()}}]
    lines.append(f"\n{plan['keys']} keys for each m, {plan['sft']} steps of 64 demonstrations, {plan['steps']} steps of RL with "
                 f"{8 * plan['prompts']} samples in groups of 8; seeds {', '.join(map(str, seeds))}: mean (lowest to highest).")
    return "\n".join([*lines, "[What it means](claims.md#two-answers-fit)"]), panels


if __name__ == "__main__":
    main(__file__, __doc__, cell, report, FULL, QUICK)
