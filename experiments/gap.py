"""Which algorithm? The differences between them, beside those between seeds and beside what all of them
leave.

    python experiments/gap.py            about 12 minutes of one core; goes on cell by cell where it was stopped
    python experiments/gap.py --quick    3 minutes, its warm start included: three methods, one seed, one rate

The claim (arXiv:2504.13837): popular algorithms of reinforcement learning perform alike, and all of
them stay far from the bound that their own warm start sets: the share of problems that it solves with
many samples.

    gap      = bound - pass@1            bound: pass@k of the warm start at the largest k; what an exhaustive solver reaches is 1
    between  = highest - lowest mean over seeds
    noise    = E[max - min] of as many means of normal numbers whose standard deviation is the residual s of
               pass@1 = method + seed + residual,  s^2 = sum of squares / ((methods - 1)(seeds - 1))

If `between` is not above `noise`, the algorithms cannot be told apart. The setting: countdown without
thinking (an answer is 12 tokens), three numbers up to 9, a model of 2 layers and width 64 (small.py),
32 problems and 8 samples a step, equal sampled tokens (PPO with its own batches: one sample of each, and four optimizer
steps on these 32, so it takes some thirty times as many steps on as many tokens). Every method gets two learning rates; the one
with the best pass@1 on val with seed 0 is measured on test. Results: docs/gap.{md,json,png}.
"""
from cells import main, spread

# name: (--algo, settings, offset of the reward)
METHODS = {"grpo": ("grpo", {}, 0), "rloo": ("rloo", {}, 0), "reinforce_pp": ("reinforce_pp", {}, 0), "dapo": ("dapo", {}, 0),
           "gspo": ("gspo", {}, 0), "maxrl": ("maxrl", {}, 0), "nsr": ("nsr", {}, 0), "ppo": ("ppo", {}, 0), "star": ("star", {}, 0),
           # for wrong_answers.py: with baseline 1 the advantage is r - 1, so rewards of 1 and 2 leave the right ones alone to teach
           "right alone": ("nsr", {}, 1), "both": ("wreinforce", {"right_weight": 1.0}, 0), "wreinforce": ("wreinforce", {}, 0)}
RATES = ("3e-4", "1e-3")
FULL = {"seeds": (0, 1, 2), "task": {"max_number": 9}, "sft": 300, "tokens": 80_000, "problems": 150, "n": 64, "rates": RATES,
        "methods": ("grpo", "rloo", "reinforce_pp", "dapo", "gspo", "maxrl", "nsr", "ppo", "star")}
QUICK = FULL | {"seeds": (0,), "tokens": 60_000, "problems": 100, "rates": ("3e-4",), "methods": ("grpo", "rloo", "dapo")}


def cell(folder, plan, name, lr, seed, split):
    """Train one policy, if it is not there yet, and measure it on `split`."""
    import evaluate, small, tasks
    task = tasks.load("countdown", attempts=1, cot="off", **plan["task"])
    words = "-".join(["direct", *map(str, plan["task"].values()), str(plan["sft"])])
    policy, _ = small.kept(words, task, small.imitate(task, seed, plan["sft"]), seed)
    lines = []
    if name in METHODS:
        algo, settings, offset = METHODS[name]
        train = small.reinforce(task, seed, policy, algo, tokens=plan["tokens"], offset=offset, lr=float(lr), prompts=32,
                                **settings)
        policy, lines = small.kept(f"{words}-{name.replace(' ', '_')}-{lr}-{plan['tokens']}", task, train, seed)
    problems = evaluate.fixed_problems(task, split, plan["problems"])
    return {"right": small.right_counts(policy, task, problems, plan["n"]), "entropy": lines[-1]["entropy"] if lines else None,
            "curve": [[line["tokens"], line["accuracy"]] for line in lines]}


def pass_at(result, n, k):
    """The mean of pass@k over the problems of a cell."""
    from evaluate import pass_at_k
    return sum(pass_at_k(n, c, k) for c in result["right"]) / len(result["right"])


def chosen(plan, get):
    """The rate of each method that is best on val with the first seed -> {name: rate}, {(name, rate): pass@1 on val}."""
    get([("warm start", "-", seed, "test") for seed in plan["seeds"]])  # first of all, so that nothing is made twice
    tried = get([(name, lr, plan["seeds"][0], "val") for name in plan["methods"] for lr in plan["rates"]])
    val = {(name, lr): pass_at(each, plan["n"], 1) for (name, lr, *_), each in tried.items()}
    return {name: max(plan["rates"], key=lambda lr: val[name, lr]) for name in plan["methods"]}, val


def noise(table, draws=10_000):
    """table: {method: [pass@1 of each seed]}, the same warm start in each column -> (s, the expected range of the
    means if all methods were equal). None, None with one seed.

    >>> noise({"a": [0.5, 0.25], "b": [0.25, 0.0]})
    (0.0, 0.0)
    """
    import numpy
    x = numpy.array(list(table.values()))
    methods, seeds = x.shape
    if seeds < 2 or methods < 2:
        return None, None
    residual = x - x.mean(0) - x.mean(1, keepdims=True) + x.mean()
    s = float((residual ** 2).sum() / ((methods - 1) * (seeds - 1))) ** 0.5
    means = numpy.random.default_rng(0).normal(0.0, s / seeds ** 0.5, (draws, methods))
    return s, float((means.max(1) - means.min(1)).mean())


def report(folder, plan, get):
    n, seeds = plan["n"], plan["seeds"]
    best, val = chosen(plan, get)
    found = get([(name, lr, seed, "test") for name, lr in [("warm start", "-"), *best.items()] for seed in seeds])
    at = lambda name, k: [pass_at(found[name, best.get(name, "-"), seed, "test"], n, k) for seed in seeds]
    lines = ["| method | learning rates: pass@1 on val, seed 0 | pass@1 | pass@8 | entropy at the end |", "|---|---|---|---|---|"]
    for name in ("warm start", *best):
        rates = ", ".join(f"{'**' * (lr == best[name])}{lr}: {val[name, lr]:.3f}{'**' * (lr == best[name])}"
                          for lr in plan["rates"]) if name in best else ""
        ends = [found[name, best[name], seed, "test"]["entropy"] for seed in seeds] if name in best else []
        lines.append(f"| {name} | {rates} | {spread(at(name, 1))} | {spread(at(name, 8))} | {spread(ends) if ends else ''} |")
    table, bound = {name: at(name, 1) for name in best}, at("warm start", n)
    means = {name: sum(values) / len(seeds) for name, values in table.items()}
    s, expected = noise(table)
    lines += ["", "| what | pass@1 |", "|---|---|", f"| bound: pass@{n} of the warm start | {spread(bound)} |",
              f"| gap of the best method to the bound | {sum(bound) / len(seeds) - max(means.values()):.3f} |",
              f"| between: highest less lowest method | {max(means.values()) - min(means.values()):.3f} |"]
    if s is not None:
        apart = [max(values) - min(values) for values in table.values()]
        lines += [f"| noise: the same, if all methods were equal | {expected:.3f} |", f"| s, residual of a run | {s:.3f} |",
                  f"| highest less lowest seed of a method | {spread(apart)} |"]
    lines.append(f"\n{plan['problems']} test problems, {n} samples each, {plan['tokens']:,} sampled tokens a run; mean over the "
                 f"seeds {', '.join(map(str, seeds))} (lowest to highest). An exhaustive solver reaches 1. "
                 "[What it means](claims.md).")
    order = sorted(means, key=means.get)
    places = list(range(1, len(order) + 1))
    curves = {f"seed {seed}": (places, [table[name][i] for name in order]) for i, seed in enumerate(seeds)}
    curves |= {f"bound: pass@{n} of the warm start": (places, [sum(bound) / len(seeds)] * len(order)),
               "warm start": (places, [sum(at("warm start", 1)) / len(seeds)] * len(order))}
    return "\n".join(lines), [{"title": "pass@1 on test, equal tokens", "x": ", ".join(order), "y": "share of right answers",
                               "curves": curves}]


if __name__ == "__main__":
    main(__file__, __doc__, cell, report, FULL, QUICK)
