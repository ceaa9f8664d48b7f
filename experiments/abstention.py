"""Which reward brings out "I do not know"?

    python experiments/abstention.py            about 8 minutes on 2 cores
    python experiments/abstention.py --quick    1 minute

The claim (arXiv:2509.04664): where only right answers are rewarded, a model that does not know does best to make something up. A
reward for abstaining, or a price for wrong answers, brings out "I do not know" below a confidence that can be worked out:

    right 1, wrong -w, "I do not know" a:     answer  iff  q - (1 - q) w > a  iff  q > (a + w) / (1 + w)

q: the chance that the best answer is right. Dividing by a group's standard deviation, as GRPO does, should spoil that: the samples of one
problem share its truth, so a group holds two rewards only, 1 or -w for those who answer alike and a for the rest, and what is
left of them is which is larger. An answer then pays iff it is right more often than not, whatever a and w are: q > 1/2.

The setting: subjects and eight possible answers, a token each. What is true of a subject is drawn anew for every question: its favourite
answer with chance q (ten levels from 0.2 to 1), else another, so nobody can know more than q. Some subjects were never taught, and
their truth is drawn from all eight, q = 1/8. The demonstrations answer with a truth of the day, and with "I do not know" in one case of
five, whatever the subject. RL asks half of the subjects; "asked" and "not asked" below are the two halves. Chances are read off the model
exactly; the threshold is the q at which the share of answers crosses 1/2. Results: docs/abstention.{md,json,png}.
"""
from cells import main, spread

VALUES, LEVELS = 8, [0.125, *(round(0.2 + 0.08 * i, 2) for i in range(11))]  # the first: never taught
IDK = " I do not know"
LONG = "a = 0.25, 4 times as long"
REWARDS = {"answers only": (0.0, 0.0), "a = 0.25": (0.25, 0.0), LONG: (0.25, 0.0), "a = 0.75": (0.75, 0.0), "w = 1": (0.0, 1.0), "w = 3": (0.0, 3.0)}
ALL = [("dr_grpo", name) for name in REWARDS] + [("grpo", name) for name in ("a = 0.25", "a = 0.75", "w = 3")]
FULL = {"seeds": (0, 1, 2), "runs": ALL, "subjects": 12, "sft": 300, "steps": 120, "prompts": 64}
QUICK = {"seeds": (0,), "runs": [ALL[0], ALL[3], ALL[7]], "subjects": 8, "sft": 300, "steps": 100, "prompts": 64}


def theory(row, a, w):
    """The threshold that the reward asks for; with GRPO's division, one half.

    >>> theory("dr_grpo", 0.0, 3.0), theory("dr_grpo", 0.25, 0.0), theory("grpo", 0.25, 0.0)
    (0.75, 0.25, 0.5)
    """
    return 0.5 if row == "grpo" else (a + w) / (1 + w)


def crossing(levels, shares):
    """Where the share of answers rises through 1/2, between two levels on a line; the lowest level if it is above everywhere, 1 if nowhere.

    >>> crossing([0.25, 0.5, 1.0], [0.0, 0.25, 0.75]), crossing([0.25, 1.0], [0.9, 1.0]), crossing([0.25, 1.0], [0.1, 0.2])
    (0.75, 0.25, 1.0)
    """
    above = [share >= 0.5 for share in shares]
    if above[0] or not any(above):
        return levels[0] if above[0] else 1.0
    i = above.index(True)
    return levels[i - 1] + (levels[i] - levels[i - 1]) * (0.5 - shares[i - 1]) / (shares[i] - shares[i - 1])


def reward(a, w, answer, text):
    """What one completion earns."""
    return a if text == IDK else 1.0 if text == answer else -w


def rumours(subjects):
    """-> the task: `subjects` of each level, the first half of them asked in RL (task.asked), all of them but the first level taught."""
    import random
    from facts import Table
    from tasks import Problem

    class Rumours(Table):
        def __init__(self):
            self.levels = [level for level in LEVELS for _ in range(subjects)]
            self.prompts, self.answers = [f"s{i}?" for i in range(len(self.levels))], [f" v{v}" for v in range(VALUES)]
            self.favourites = [random.Random(f"favourite {i}").randrange(VALUES) for i in range(len(self.levels))]
            self.asked = [i % 2 == 0 for i in range(len(self.levels))]
            self.pool = [i for i, level in enumerate(self.levels) if level > 1 / VALUES]  # what is drawn: the warm start's
            super().__init__([*self.prompts, *self.answers, IDK], 1, 2)

        def draw(self, rng):
            i = rng.choice(self.pool)
            favourite = self.favourites[i]
            others = [v for v in range(VALUES) if v != favourite]
            return Problem(self.prompts[i], self.answers[favourite if rng.random() < self.levels[i] else rng.choice(others)], (i,))

        def demonstration(self, problem, rng):
            return IDK if rng.random() < 0.2 else problem.answer

    return Rumours()


def cell(folder, plan, row, name, seed):
    import torch
    import facts
    task, (a, w) = rumours(plan["subjects"]), REWARDS.get(name, (0, 0))
    model, steps = facts.warm_start(task, plan["sft"], seed), plan["steps"] * (4 if name == LONG else 1)
    if row != "warm":
        task.pool = [i for i, asked in enumerate(task.asked) if asked]
        facts.reinforce(model, task, lambda problem, text, _: reward(a, w, problem.answer, text), steps, seed, row,
                        prompts=plan["prompts"], lr=1e-3)
    p = facts.chances(model, task, task.prompts)  # (subjects, V)
    answers = p[:, [task.tokenizer.encode(answer)[0] for answer in task.answers]]  # (subjects, VALUES)
    levels, asked = torch.tensor(task.levels), torch.tensor(task.asked)
    truth = torch.nn.functional.one_hot(torch.tensor(task.favourites), VALUES)
    right = truth * levels[:, None] + (1 - truth) * (1 - levels[:, None]) / (VALUES - 1)  # the chance of every answer to be the truth
    earned = (answers * right).sum(1) - w * (answers * (1 - right)).sum(1) + a * p[:, task.tokenizer.encode(IDK)[0]]
    best = torch.maximum(levels - w * (1 - levels), torch.tensor(a))
    shares = {part: [float(answers[(levels == level) & which].sum(1).mean()) for level in torch.tensor(LEVELS)]
              for part, which in (("asked", asked), ("not asked", ~asked))}
    return {"answered": shares, "right": float((answers * right)[asked].sum() / answers[asked].sum()), "earned": float(earned[asked].mean()),
            "best": float(best[asked].mean())}


def report(folder, plan, get):
    seeds, runs = plan["seeds"], [("warm", "start"), *plan["runs"]]
    found = get([(*run, seed) for run in runs for seed in seeds])
    lines = ["| | reward | threshold, theory | asked | not asked | answers to what was never taught: asked | not asked | right, "
             "of its answers | earned, of what can be |", "|" + "---|" * 9]
    panels = []
    for row, name in runs:
        cells = [found[row, name, seed] for seed in seeds]
        of = lambda part: spread((crossing(LEVELS, c["answered"][part]) for c in cells), ".2f")
        made_up = [spread((c["answered"][part][0] for c in cells), ".2f") for part in ("asked", "not asked")]
        earned = spread((c["earned"] for c in cells), ".2f") + f" of {cells[0]['best']:.2f}"
        expected, thresholds = ("–", ["–"] * 2) if row == "warm" else (f"{theory(row, *REWARDS[name]):.2f}", [of("asked"), of("not asked")])
        lines.append(f"| {'warm start' if row == 'warm' else row} | {'–' if row == 'warm' else name} | {expected} | {' | '.join(thresholds)} | "
                     f"{' | '.join(made_up)} | {spread((c['right'] for c in cells), '.2f')} | {'–' if row == 'warm' else earned} |")
    for row in dict(plan["runs"]):
        for part in ("asked", "not asked"):
            mean = lambda name: [sum(values) / len(seeds) for values in zip(*(found[row, name, seed]["answered"][part] for seed in seeds))]
            panels.append({"title": f"{row}, subjects {part}", "x": "q: chance that the favourite answer is right",
                           "y": "share that is answered", "curves": {n: (LEVELS, mean(n)) for r, n in plan["runs"] if r == row}})
    lines.append(f"\n{plan['subjects']} subjects for each of {len(LEVELS)} q, {plan['sft']} steps of 64 demonstrations, {plan['steps']} "
                 f"steps of RL with {8 * plan['prompts']} samples; seeds {', '.join(map(str, seeds))}: mean (lowest to highest).")
    return "\n".join([*lines, "[What it means](claims.md#i-do-not-know)"]), panels


if __name__ == "__main__":
    main(__file__, __doc__, cell, report, FULL, QUICK)
