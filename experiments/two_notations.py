"""Does reinforcement learning mix languages, and what does a reward for one language cost?

    python experiments/two_notations.py            about 10 minutes on 2 cores
    python experiments/two_notations.py --quick    2 minutes

The claim (DeepSeek-R1, arXiv:2501.12948, section 2.3.2): RL from answers alone leaves chains of thought in mixed languages; a reward for
the share of one language, added to that for the answer, mends it and costs a little accuracy.

    R = [the answer is right] + lambda * (share of the chain's numbers in the target notation)

The setting: sums modulo 7 with two notations, 0 to 6 and N, I to VI. After the prompt (in signs of its own) the chain names the first
number, then every further one and the sum so far: "5+3+6=" -> " 5 3 1 6 0". A third of the demonstrations is in digits, a third in Roman
numerals, a third chooses at each step. Some of their steps are wrong. Three worlds:
  same      each notation errs in a quarter of all steps
  half      each is at home in a part, and errs in half of the other steps: digits in those that add 4 to 6, Roman numerals in 0 to 3
  hardly    the same, but it errs in nine of ten of the other steps
If mixing is only noise, the reward costs nothing anywhere; if each notation is good for something, it costs where they are divided, unless
RL teaches each notation what only the other one knew. Rewards: none; target, the share of digits, with lambda.
Accuracy and consistency (share of answers in one notation throughout): held-out problems (split test), eight samples each.
Results: docs/two_notations.{md,json,png}.
"""
from cells import main, spread

NOTATIONS = {"digits": [f" {n}" for n in range(7)], "roman": [f" {n}" for n in "N I II III IV V VI".split()]}
WORLDS, REWARDS = {"same": 0.25, "half": 0.5, "hardly": 0.9}, ("none", "target")  # a world: how often a step that is not known is wrong
FULL = {"seeds": (0, 1, 2), "worlds": tuple(WORLDS), "k": 3, "sft": 200, "steps": 100, "prompts": 32, "lambda": 0.5, "look": 10}
QUICK = {"seeds": (0,), "worlds": ("same", "hardly"), "k": 3, "sft": 200, "steps": 60, "prompts": 32, "lambda": 0.5, "look": 10}
VALUE = {name.strip(): (value, notation) for notation, names in NOTATIONS.items() for value, name in enumerate(names)}


def read(text, k):
    """-> the values and the notations of a chain's numbers; none if the text is anything but a whole chain for k numbers.

    >>> read(" 5 III 1", 2), read(" 1", 2)
    (([5, 3, 1], ['digits', 'roman', 'digits']), ([], []))
    """
    found = [VALUE.get(word) for word in text.split()]
    if len(found) != 2 * k - 1 or None in found:
        return [], []
    return [value for value, _ in found], [notation for _, notation in found]


def at_home(world, notation, addend):
    """Whether this notation knows how to add this number."""
    return world == "same" or (notation == "digits") == (addend >= 4)


def reward(kind, weight, problem, text):
    """What a completion earns: 1 for the right sum at its end, and `weight` for its notation."""
    values, notations = read(text, len(problem.key))
    if not values:
        return 0.0
    share = notations.count("digits") / len(notations)
    return float(values[-1] == problem.answer) + weight * share * (kind == "target")


def sums(world, k):
    """-> the task."""
    from facts import Table
    from tasks import Problem, split_of

    class Sums(Table):
        def __init__(self):
            super().__init__([*map(str, range(7)), "+", "=", *NOTATIONS["digits"], *NOTATIONS["roman"]], 2 * k, 2 * k)

        def draw(self, rng):
            numbers = tuple(rng.randrange(7) for _ in range(k))
            return Problem("+".join(map(str, numbers)) + "=", sum(numbers) % 7, numbers)

        def sample_problem(self, rng, split="train"):
            return next(problem for problem in iter(lambda: self.draw(rng), None) if split_of(problem.key) == split)

        def demonstration(self, problem, rng):
            style = rng.choice(["digits", "roman", "mixed"])
            pick = lambda: style if style != "mixed" else rng.choice(["digits", "roman"])
            first, *rest = problem.key
            text, total = NOTATIONS[pick()][first], first
            for addend in rest:
                notation = pick()
                known = world != "same" and at_home(world, notation, addend)
                total = rng.randrange(7) if not known and rng.random() < WORLDS[world] else (total + addend) % 7
                text += NOTATIONS[notation][addend] + NOTATIONS[notation][total]
            return text

    return Sums()


def measure(task, world, sampled):
    """(problem, text) of samples -> shares: right; in one notation throughout; of numbers in digits; of steps at home."""
    right = one = digits = home = numbers = steps = 0
    for problem, text in sampled:
        values, notations = read(text, len(problem.key))
        right += bool(values) and values[-1] == problem.answer
        one += len(set(notations)) == 1
        digits, numbers = digits + notations.count("digits"), numbers + len(notations)
        for notation, addend in zip(notations[2::2], problem.key[1:]):  # where the sum stands
            home, steps = home + at_home(world, notation, addend), steps + 1
    return {"right": right / len(sampled), "consistent": one / len(sampled), "digits": digits / max(1, numbers), "home": home / max(1, steps)}


def cell(folder, plan, world, kind, seed):
    import evaluate
    import facts
    task = sums(world, plan["k"])
    model, curve = facts.warm_start(task, plan["sft"], seed), []
    val, test = (evaluate.fixed_problems(task, split, count) for split, count in (("val", 200), ("test", 400)))

    def look(step):
        if step % plan["look"] == 0:
            curve.append({"step": step, **measure(task, world, facts.samples(model, task, val, 4))})

    before = measure(task, world, facts.samples(model, task, test, 8))
    facts.reinforce(model, task, lambda problem, text, _: reward(kind, plan["lambda"], problem, text), plan["steps"], seed,
                    prompts=plan["prompts"], lr=5e-4, look=look)
    return {"before": before, "after": measure(task, world, facts.samples(model, task, test, 8)), "curve": curve, "problems": len(test)}


def report(folder, plan, get):
    seeds = plan["seeds"]
    found = get([(world, kind, seed) for world in plan["worlds"] for kind in REWARDS for seed in seeds])
    lines = ["| world | reward for notation | right | one notation throughout | numbers in digits | steps in the notation that knows them | "
             f"right, beside none: at the end | after {2 * plan['look']} steps (val) |", "|" + "---|" * 8]
    panels = []
    for world in plan["worlds"]:
        for kind in ("warm start", *REWARDS):
            runs = [found[world, REWARDS[0] if kind == "warm start" else kind, seed] for seed in seeds]
            ends = [run["before" if kind == "warm start" else "after"] for run in runs]
            cost = [end["right"] - found[world, "none", seed]["after"]["right"] for end, seed in zip(ends, seeds)]
            early = [run["curve"][2]["right"] - found[world, "none", seed]["curve"][2]["right"] for run, seed in zip(runs, seeds)]
            costs = " | ".join("–" if kind in ("none", "warm start") else spread(values, "+.3f") for values in (cost, early))
            home = spread((end["home"] for end in ends), ".2f") if world != "same" else "–"
            shares = [spread((end[name] for end in ends), form) for name, form in (("right", ".3f"), ("consistent", ".2f"), ("digits", ".2f"))]
            lines.append(f"| {world} | {kind} | {' | '.join(shares)} | {home} | {costs} |")
        for name, title in (("right", "right answers"), ("consistent", "one notation throughout")):
            curves = {}
            for kind in REWARDS:
                rows = list(zip(*(found[world, kind, seed]["curve"] for seed in seeds)))
                values = [[look[name] for look in row] for row in rows]
                curves[f"reward: {kind}"] = ([row[0]["step"] for row in rows], [sum(v) / len(v) for v in values], [*map(min, values)], [*map(max, values)])
            panels.append({"title": f"{world}: {title}", "x": "step of RL", "y": "share of samples (val)", "curves": curves})
    problems = next(iter(found.values()))["problems"]
    lines.append(f"\nSums of {plan['k']} numbers, {plan['sft']} steps of 64 demonstrations, {plan['steps']} steps of RL (dr_grpo) with "
                 f"{8 * plan['prompts']} samples, lambda {plan['lambda']}; {problems} test problems, 8 samples each; seeds "
                 f"{', '.join(map(str, seeds))}: mean (lowest to highest).")
    return "\n".join([*lines, "[What it means](claims.md#two-notations)"]), panels


if __name__ == "__main__":
    main(__file__, __doc__, cell, report, FULL, QUICK)
