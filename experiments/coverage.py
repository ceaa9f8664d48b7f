"""How does coverage grow with the number of samples, and what does its law say about the problems?

    python experiments/coverage.py            about 10 minutes on 2 cores; goes on cell by cell where it was stopped
    python experiments/coverage.py --quick    3 minutes, its own warm start included: one seed, fewer problems and samples

The claim (Large Language Monkeys, arXiv:2407.21787, section 3.1): coverage c(k), the share of problems that at least one of k
samples solves (pass@k), follows over four orders of magnitude

    log c = a k^(-b),   a < 0 < b          log(-log c) over log k is a line of slope -b

Where it can come from (arXiv:2502.17578). One problem alone fails exponentially fast, with (1 - p)^k. The law is about many:

    c(k) = E[1 - (1 - p)^k]                over the distribution of the problems' success rates p: this is exact
    density ~ p^(b - 1) near p = 0    =>   1 - c ~ k^(-b), and log c ~ -(1 - c): the power law. Beta(alpha, beta) has b = alpha
    no p below some p_min > 0         =>   1 - c <= (1 - p_min)^k: the law promises too little in the end
    a share z of problems with p = 0  =>   c -> 1 - z: the law promises too much

The setting: countdown with four numbers up to 6, demonstrations of one or two attempts, a model of 0.1 million parameters; the
warm start, the same after GRPO, and random legal search that makes one attempt a sample, whose p is computed exactly. Who knows
only the first samples of each problem predicts coverage at the largest k in three ways: the law, fitted by least squares to log(-log c);
Beta(alpha, beta), by the likelihood of the counts; the shares found, put in the place of p. Results: docs/coverage.{md,json,png}.
"""
import math
import random

from cells import main, spread, train

SMALL = ["--numbers", 4, "--max-number", 6, "--attempts", 2, "--n-layer", 2, "--n-embd", 64, "--n-head", 2, "--sft-steps", 600]
FULL = {"seeds": (0, 1, 2), "problems": 48, "n": 1000, "first": 32, "steps": 30}
QUICK = {"seeds": (0,), "problems": 40, "n": 256, "first": 16, "steps": 10}
NAMES = {"random": "random search", "warm": "warm start", "grpo": "GRPO"}


def chance(numbers, target):
    """The exact probability that one random legal attempt ends at `target`.

    >>> chance((2, 6), 8)                                               # one of 6 + 2, 6 - 2, 6 * 2, 6 / 2
    0.25
    """
    from tasks.countdown import steps
    if len(numbers) == 1:
        return float(numbers[0] == target)
    options = steps(numbers)
    return sum(chance(left, target) for *_, left in options) / len(options)


def cell(folder, plan, name, seed):
    """-> how many of n samples are right, and how many of the first few, a list over the problems; of random search p as well."""
    import checkpoint, evaluate, sample, tasks
    import torch
    if name == "random":
        problems = evaluate.fixed_problems(tasks.load("countdown", numbers=4, max_number=6, attempts=2), "test", plan["problems"])
        p, rng = [chance(problem.key[1:-1], problem.answer) for problem in problems], random.Random(seed)
        tosses = [[rng.random() < each for _ in range(plan["n"])] for each in p]
        return {"right": list(map(sum, tosses)), "first": [sum(t[:plan["first"]]) for t in tosses], "p": p}
    if name == "warm":
        run = train(folder, f"warm-{seed}", "--algo", "sft", *SMALL, "--seed", seed)
    else:
        run = train(folder, f"grpo-{seed}", "--algo", "grpo", *SMALL, "--seed", seed, steps=plan["steps"])
    model, task, _ = checkpoint.load_run(run)
    problems, generator = evaluate.fixed_problems(task, "test", plan["problems"]), torch.Generator().manual_seed(0)
    right = [sample.collect(model, task, [problem], sample.SamplingConfig(group_size=plan["n"]), generator).right(task) for problem in problems]
    return {"right": [int(r.sum()) for r in right], "first": [int(r[:plan["first"]].sum()) for r in right]}


def coverage(right, n, ks):
    """The unbiased estimate of c(k), the mean of pass@k over the problems -> list."""
    from evaluate import pass_at_k
    return [sum(pass_at_k(n, c, k) for c in right) / len(right) for k in ks]


def power_law(ks, c):
    """Least squares for log(-log c) = log(-a) - b log k, where 0 < c < 1 -> a, b.

    >>> [round(x, 6) for x in power_law([1, 4], [math.exp(-2), math.exp(-1)])]
    [-2.0, 0.5]
    """
    points = [(math.log(k), math.log(-math.log(y))) for k, y in zip(ks, c) if 0 < y < 1]
    x, y = (sum(values) / len(points) for values in zip(*points))
    b = -sum((u - x) * (v - y) for u, v in points) / sum((u - x) ** 2 for u, _ in points)
    return -math.exp(y + b * x), b


def beta_fit(counts, m):
    """Maximum likelihood of the success rates' distribution, from how many of m samples of each problem are right -> alpha, beta."""
    import torch
    c, logs = torch.tensor(counts, dtype=torch.float64), torch.zeros(2, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([logs], max_iter=200, line_search_fn="strong_wolfe")
    log_beta = lambda x, y: torch.lgamma(x) + torch.lgamma(y) - torch.lgamma(x + y)

    def loss():
        optimizer.zero_grad()
        a, b = logs.exp()
        value = -(log_beta(a + c, b + m - c) - log_beta(a, b)).mean()
        value.backward()
        return value

    optimizer.step(loss)
    return logs.exp().tolist()


def beta_coverage(a, b, k):
    """E[1 - (1 - p)^k] for p ~ Beta(a, b): 1 - B(a, b + k) / B(a, b).

    >>> round(beta_coverage(1, 1, 3), 6)                                # uniform: the chance that three all fail is 1/4
    0.75
    """
    return 1 - math.exp(math.lgamma(b + k) - math.lgamma(b) + math.lgamma(a + b) - math.lgamma(a + b + k))


def exact_coverage(p, k):
    """E[1 - (1 - p)^k] over a list of success rates."""
    return sum(1 - (1 - each) ** k for each in p) / len(p)


def measure(result, plan):
    """The row of one policy and seed -> dict by the column's title, and its curves over k: what is, and what was foreseen."""
    n, m = plan["n"], plan["first"]
    ks = [*(2 ** i for i in range(n.bit_length()) if 2 ** i < n), n]
    c = [exact_coverage(result["p"], k) for k in ks] if "p" in result else coverage(result["right"], n, ks)
    early = [k for k in ks if k <= m]
    (a, b), (all_a, all_b) = power_law(early, coverage(result["first"], m, early)), power_law(ks, c)
    (alpha, beta), all_beta = beta_fit(result["first"], m), beta_fit(result["right"], n)
    error = lambda curve: max(abs(curve(k) - y) for k, y in zip(ks, c))
    curves = {"measured": (ks, c), "the law": (ks, [math.exp(a * k ** -b) for k in ks]),
              "Beta": (ks, [beta_coverage(alpha, beta, k) for k in ks])}
    return {"c(1)": c[0], f"c({m})": c[ks.index(m)], f"**c({n})**": c[-1], f"the law foresees c({n})": curves["the law"][1][-1],
            "Beta foresees": curves["Beta"][1][-1], "the shares foresee": exact_coverage([r / m for r in result["first"]], n),
            "b of the law": b, "alpha of Beta": alpha,
            f"largest error up to k = {n}: the law, fitted to all": error(lambda k: math.exp(all_a * k ** -all_b)),
            "Beta, fitted to all": error(lambda k: beta_coverage(*all_beta, k)), f"never right in {n}": result["right"].count(0) / len(result["right"])}, curves


def slopes(ks, c):
    """-d log(-log c) / d log k between neighbours -> ks, slopes. A power law has the same at every k."""
    return tuple(zip(*((k, -math.log(math.log(d) / math.log(y)) / math.log(l / k)) for k, l, y, d in zip(ks, ks[1:], c, c[1:])
                       if 0 < y < d < 1)))


def report(folder, plan, get):
    seeds = plan["seeds"]
    get([("warm", seed) for seed in seeds])
    found = {words: measure(result, plan) for words, result in get([(name, seed) for name in NAMES for seed in seeds]).items()}
    columns = list(found["warm", seeds[0]][0])
    lines = ["| policy | " + " | ".join(columns) + " |", "|" + "---|" * (len(columns) + 1)]
    lines += [f"| {title} | " + " | ".join(spread(found[name, seed][0][column] for seed in seeds) for column in columns) + " |"
              for name, title in NAMES.items()]
    lines.append(f"\nSeeds {', '.join(map(str, seeds))}, lowest to highest in brackets; {plan['problems']} test problems, {plan['n']} samples "
                 f"each, foreseen from the first {plan['first']} of them; GRPO: {plan['steps']} steps. Random search: its c is exact, and what "
                 "is foreseen comes from one draw of samples a seed. [What it means](claims.md#the-law-of-coverage).")
    panels = [{"title": f"{title}, seed {seeds[0]}", "x": "k: samples per problem", "y": "coverage c(k)", "log": 2,
               "curves": found[name, seeds[0]][1]} for name, title in NAMES.items()]
    slope = {title: slopes(*found[name, seeds[0]][1]["measured"]) for name, title in NAMES.items()}
    return "\n".join(lines), [*panels, {"title": "the slope: the same at every k if the law holds", "x": "k", "log": 2,
                                        "y": "b(k) = -d log(-log c) / d log k", "curves": {t: xy for t, xy in slope.items() if xy}}]


if __name__ == "__main__":
    main(__file__, __doc__, cell, report, FULL, QUICK)
