"""Is it worth knowing how hard a problem is before tokens are spent on it?

    python experiments/compute_optimal.py            about 20 minutes of one core; goes on cell by cell where it was stopped
    python experiments/compute_optimal.py --quick    3 minutes, its own warm start included: one seed, no larger model

The claims (arXiv:2408.03314): which search is best depends on the problem's difficulty; who chooses it by difficulty needs a quarter of
best-of-n's tokens. At equal operations a small model that searches beats one 14 times larger, except on the hardest problems.

The recipe, per seed:
  1. difficulty: a mean over samples of a problem, of what the rule says (who knows the answers) or the judge (who does not), or drawn by
     lot (bins that say nothing); five bins of equally many val problems, with the same bounds on test;
  2. every method at every budget, on val and test. The judge of whole solutions is their own mark, found or failed (free, and nearly
     always true), the judge of half-written ones a PRM (--algo prm);
  3. on val: the best single (method, budget) under so many tokens, and one for each bin that costs no more than that in the mean:
     max sum_b right_b(s_b)   with   sum_b tokens_b(s_b) <= tokens(single)
  4. what was chosen is read off on test. Samples for the difficulty are not counted, as in the paper: they would cost more than the search.
The larger model is twice as wide, after as many demonstrations. Operations: 2 x parameters x tokens written, twice that for the small
one, whose PRM reads them; training and prompts aside. Countdown with four numbers up to 6, one or two attempts a demonstration, a model
of 0.1 million parameters after its warm start. Results: docs/compute_optimal.{md,json,png}.
"""
import bisect
import itertools
import random

from cells import main, spread, train

SMALL = ["--numbers", 4, "--max-number", 6, "--attempts", 2, "--n-layer", 2, "--n-embd", 64, "--n-head", 2, "--sft-steps", 600]
LARGE = [*SMALL, "--n-embd", 128, "--n-head", 4]  # of a flag that is given twice the last one counts
METHODS = ("majority_vote", "best_of_n", "beam_search", "rebase", "mcts")
FULL = {"seeds": (0, 1, 2), "problems": 120, "budgets": (64, 128, 256), "methods": METHODS, "prm": 100, "samples": 32, "larger": True}
QUICK = {"seeds": (0,), "problems": 60, "budgets": (64, 128), "methods": ("majority_vote", "best_of_n", "rebase"), "prm": 8, "samples": 16,
         "larger": False}
BINS, FEW = 5, 4
KNOWN = {"rule": "the rule, {} samples", "judge": "the judge, {} samples", "few": f"the judge, {FEW} samples", "lot": "by lot"}


def cell(folder, plan, what, seed):
    """"prm": a run. "large": the larger model's answers. "val", "test": difficulties, and each method's answers and tokens."""
    import checkpoint, evaluate
    import torch
    import search
    from search_context import SearchContext
    home = folder.parent / "four-numbers"  # shared with mcts_noise.py
    warm, prm = train(home, f"warm-{seed}", "--algo", "sft", *SMALL, "--seed", seed), home / f"prm-{plan['prm']}-{seed}"
    if what == "prm":
        return {"run": str(train(home, prm.name, "--algo", "prm", "--init", warm, *SMALL, "--seed", seed, steps=plan["prm"]))}
    large = what == "large"
    model, task, _ = checkpoint.load_run(train(home, f"large-{seed}", "--algo", "sft", *LARGE, "--seed", seed) if large else warm)
    problems = evaluate.fixed_problems(task, "test" if large else what, plan["problems"])
    result = {"parameters": sum(p.numel() for p in model.parameters()), "runs": {}}

    def keep(name, right, tokens):  # as texts: these are many numbers
        result["runs"][name] = {"right": "".join(str(int(r)) for r in right), "tokens": " ".join(map(str, tokens))}

    if large:
        for name, temperature in (("greedy", 0.0), ("sampled", 1.0)):
            judged = evaluate.sample_and_judge(model, task, problems, 1, temperature=temperature)
            keep(name, [j["right"] for j in judged], [j["length"] for j in judged])
        return result
    verifier = checkpoint.load_verifier(prm)
    new = lambda: SearchContext(model, task, problems, generator=torch.Generator().manual_seed(0), verifier=verifier)
    context, n, lot = new(), plan["samples"], random.Random(f"{what} {seed}")
    found = lambda index, rows: [float(context.ended(i, row) and task.own_verdict(context.text(i, row))) for i, row in zip(index, rows)]
    index, rows = context.candidates(n)
    right, scores = context.rule(index, rows), found(index, rows)
    means = lambda values, m: [sum(values[i:i + m]) / m for i in range(0, len(values), n)]
    result["difficulty"] = {"rule": means(right, n), "judge": means(scores, n), "few": means(scores, FEW), "lot": [lot.random() for _ in problems]}
    typical = sum(context.token_cost) / len(rows)
    for method, budget in [("greedy", 0), *itertools.product(plan["methods"], plan["budgets"])]:
        context, n = new(), max(1, round(budget / typical))
        rows = {"greedy": lambda: search.greedy(context), "majority_vote": lambda: search.majority_vote(context, n),
                "best_of_n": lambda: search.best_of_n(context, n, found),
                "beam_search": lambda: search.beam_search(context, n, context.verifier_score, found),
                "rebase": lambda: search.beam_search(context, n, context.verifier_score, found, search.rebase_allocation),
                "mcts": lambda: search.tree_search(context, budget, context.verifier_score, found)[0]}[method]()
        keep(f"{method} {budget}", [context.right(i, row) for i, row in enumerate(rows)], context.token_cost)
    return result


def bins_of(val, test, known):
    """The bin of every problem, 0 the hardest, by the bounds between equally many of val -> two lists."""
    ordered = sorted(val["difficulty"][known])
    bounds = [ordered[len(ordered) * b // BINS] for b in range(1, BINS)]
    return [[bisect.bisect_right(bounds, d) for d in result["difficulty"][known]] for result in (val, test)]


def sums(result, bins):
    """-> for each bin {name of method and budget: (right, tokens)}, sums over its problems."""
    found = [{name: (0, 0) for name in result["runs"]} for _ in range(BINS)]
    for name, run in result["runs"].items():
        for b, right, tokens in zip(bins, map(int, run["right"]), map(int, run["tokens"].split())):
            found[b][name] = (found[b][name][0] + right, found[b][name][1] + tokens)
    return found


def allocate(tables, most):
    """The best choice for each table {name: (right, tokens)}, with at most so many tokens in all -> list of names, or None.

    >>> allocate([{"a": (1, 1), "b": (3, 5)}, {"a": (1, 1), "b": (2, 5)}], 6)
    ['b', 'a']
    """
    frontiers = [[name for name, (right, tokens) in table.items() if not any(r >= right and t <= tokens and (r, -t) > (right, -tokens)
                                                                             for r, t in table.values())] for table in tables]
    total = lambda choice, column: sum(table[name][column] for table, name in zip(tables, choice))
    allowed = [choice for choice in itertools.product(*frontiers) if total(choice, 1) <= most]
    return list(max(allowed, key=lambda choice: (total(choice, 0), -total(choice, 1)))) if allowed else None


def choose(val, test, known, most):
    """What val chooses under a mean of `most` tokens -> {"single", "bins"}: (five names, right on val, right on test, tokens on test)."""
    bins = bins_of(val, test, known)
    tables, count = [sums(result, b) for result, b in zip((val, test), bins)], list(map(len, bins))
    whole = {name: tuple(sum(table[name][column] for table in tables[0]) for column in (0, 1)) for name in val["runs"]}
    [single] = allocate([whole], most * count[0])
    mean = lambda choice, split, column: sum(table[name][column] for table, name in zip(tables[split], choice)) / count[split]
    return {way: (choice, mean(choice, 0, 0), mean(choice, 1, 0), mean(choice, 1, 1)) for way, choice in (
        ("single", [single] * BINS), ("bins", allocate(tables[0], whole[single][1])))}


def report(folder, plan, get):
    seeds, curves = plan["seeds"], {}
    get([("prm", seed) for seed in seeds])
    found = get([(split, seed) for split in ("val", "test") for seed in seeds])
    lines = ["| tokens at most | difficulty known from | right on val | **right on test** | tokens on test | ahead of the single method | "
             "chosen (method and budget; of the five bins, hardest first) |", "|" + "---|" * 7]
    for most in (1.1 * budget for budget in plan["budgets"]):
        for known, title in [("single", "– (single method)"), *KNOWN.items()]:
            runs = [choose(found["val", seed], found["test", seed], "rule" if known == "single" else known, most) for seed in seeds]
            names, val, test, tokens = zip(*(run["single" if known == "single" else "bins"] for run in runs))
            ahead = "" if known == "single" else spread((t - run["single"][2] for t, run in zip(test, runs)), "+.3f")
            lines.append(f"| {most:.0f} | {title.format(plan['samples'])} | {spread(val)} | {spread(test)} | {spread(tokens, '.0f')} | {ahead} | "
                         f"{'; '.join(each[0] if known == 'single' else ', '.join(each) for each in names)} |")
            curves.setdefault(title.format(plan["samples"]), []).append((sum(tokens) / len(tokens), sum(test) / len(test)))
    if plan["larger"]:
        lines += larger(found, get([("large", seed) for seed in seeds]), seeds)
    lines.append(f"\nSeeds {', '.join(map(str, seeds))}, lowest to highest in brackets; {plan['problems']} problems of val, as many of test; [claims](claims.md).")
    return "\n".join(lines), [{"title": "chosen on val, applied to test, means over seeds", "x": "tokens sampled for a problem", "log": 2,
                               "y": "share of right answers", "curves": {name: tuple(zip(*points)) for name, points in curves.items()}}]


def larger(found, large, seeds):
    """The lines of the table of the larger model, bin by bin."""
    table, ratios = {}, [large["large", seed]["parameters"] / found["val", seed]["parameters"] for seed in seeds]
    for seed in seeds:
        val, test, big = found["val", seed], found["test", seed], large["large", seed]
        _, bins = bins_of(val, test, "rule")
        tokens = list(map(int, big["runs"]["greedy"]["tokens"].split()))
        chosen = choose(val, test, "rule", ratios[0] * sum(tokens) / len(tokens) / 2)  # the other half of the operations are the judge's
        answers = {f"larger, {name}": run["right"] for name, run in big["runs"].items()} | {
            f"small, {way}": [test["runs"][chosen[way][0][b]]["right"][i] for i, b in enumerate(bins)] for way in ("single", "bins")}
        for name, right in answers.items():
            each = [[int(r) for r, b in zip(right, bins) if b == wanted] for wanted in range(BINS)] + [list(map(int, right))]
            table.setdefault(name, []).append([sum(some) / max(1, len(some)) for some in each])
    return [f"\n| at equal operations; {spread(ratios, '.1f')} times the parameters | hardest | 2 | 3 | 4 | easiest | all |", "|" + "---|" * (BINS + 2),
            *(f"| {name} | {' | '.join(spread(values) for values in zip(*each))} |" for name, each in table.items())]


if __name__ == "__main__":
    main(__file__, __doc__, cell, report, FULL, QUICK)
