"""Is it an inaccurate judge that blocks tree search?

    python experiments/mcts_noise.py            about 10 minutes on 2 cores; goes on cell by cell where it was stopped
    python experiments/mcts_noise.py --quick    3 minutes, its own warm start included: one seed, three judges, fewer problems

The claim (DeepSeek-R1, arXiv:2501.12948, section 4.2): MCTS did not scale because its value model guides every step, and a fine-grained
value model is hard to train; REBASE (arXiv:2408.00724) finds MCTS below sampling at equal tokens. If the judge is what blocks it,
MCTS with the truth must be far ahead of best-of-n at equal tokens, and lose that as the judge gets worse.

The judge here is the truth with known mistakes. Of a half-written solution the truth is whether the attempt can still
reach the target (`task.still_possible`, exact), of a whole one what the rule says. Then

    judge(row) = 1 - truth(row)   with probability f      a coin that is thrown once for each row: asked again, it says the same

and f = 0, 0.1, ... 0.5; at f = 0.5 the judge knows nothing. A learned judge (--algo prm) takes part beside them. How well each of them
tells good steps from bad ones is measured on what the policy writes (AUC; 1 - f for the coins).
  judge chooses   the judge guides the search, and picks among the solutions that were found; the same judge picks in best-of-n
  rule chooses    the judge only guides; the rule picks, and MCTS ends when it accepts something. Best-of-n does not need a judge then

The setting: countdown with four numbers up to 6, one or two attempts a demonstration, a model of 0.1 million parameters after its warm start.
Best-of-n is known at every n (the first n of its samples), and read off at the tokens that MCTS spent. MCTS with the
settings of search.py, not tuned for any f. Results: docs/mcts_noise.{md,json,png}.
"""
import random

from cells import main, spread, train

SMALL = ["--numbers", 4, "--max-number", 6, "--attempts", 2, "--n-layer", 2, "--n-embd", 64, "--n-head", 2, "--sft-steps", 600]
FULL = {"seeds": (0, 1, 2), "problems": 80, "flips": ("0", "0.1", "0.2", "0.3", "0.4", "0.5"), "budgets": (128, 256), "prm": 30}
QUICK = {"seeds": (0,), "problems": 40, "flips": ("0", "0.2", "0.5"), "budgets": (256,), "prm": 0}


def noisy(context, f, seed):
    """-> a judge for search.py: the truth of each row, turned round with probability f, always in the same way for the same row."""
    def judge(problem_index, rows):
        said = []
        for i, row in zip(problem_index, rows):
            truth = context.right(i, row) if context.ended(i, row) else context.task.still_possible(context.problems[i], context.text(i, row))
            wrong = random.Random(f"{seed} {i} {row}").random() < f
            said.append(float(truth != wrong))
        return said
    return judge


def auc_of_steps(context, judge, problem_index, rows):
    """How well a judge tells half-written solutions that can still succeed from others: at the ends of the steps in `rows`. 1 - f for a coin."""
    import torch
    from verifier import auc
    index, begun = [], []
    for i, row in zip(problem_index, rows):
        for end in context.step_positions(i, row)[:-1]:
            index.append(i), begun.append(row[:end + 1])
    return auc(torch.tensor(judge(index, begun)), torch.tensor(noisy(context, 0.0, 0)(index, begun)) > 0.5)


def cell(folder, plan, what, seed):
    """The runs of a seed ("warm", "prm"), or one judge ("0.2": so many mistakes; "learned") -> a row for each budget and chooser."""
    import checkpoint, evaluate, search
    import torch
    from search_context import SearchContext
    home = folder.parent / "four-numbers"  # shared with compute_optimal.py
    warm, prm = train(home, f"warm-{seed}", "--algo", "sft", *SMALL, "--seed", seed), home / f"prm-{plan['prm']}-{seed}"
    if what == "warm":
        return {"run": str(warm)}
    if what == "prm":
        return {"run": str(train(home, prm.name, "--algo", "prm", *SMALL, "--seed", seed, steps=plan["prm"]))}
    model, task, _ = checkpoint.load_run(warm)
    problems = evaluate.fixed_problems(task, "test", plan["problems"])
    verifier = checkpoint.load_verifier(prm) if what == "learned" else None

    def new():
        context = SearchContext(model, task, problems, generator=torch.Generator().manual_seed(0), verifier=verifier)
        return context, context.verifier_score if verifier else noisy(context, float(what), seed)

    share = lambda context, rows: sum(context.right(i, row) for i, row in enumerate(rows)) / len(rows)
    context, judge = new()
    many = 2 * max(plan["budgets"]) // 45 + 2                       # about 45 tokens a solution: enough for twice the largest budget
    index, rows = context.candidates(many)
    result = {"auc": auc_of_steps(context, judge, index, rows), "best of n": [], "mcts": []}
    for n in range(1, many + 1):
        first = [k for k in range(len(rows)) if k % many < n]
        some = [index[k] for k in first], [rows[k] for k in first]
        tokens = sum(len(rows[k]) - len(context.prompts[index[k]]) for k in first) / len(problems)
        result["best of n"].append([tokens, *(share(context, context.choose(*some, scorer)) for scorer in (judge, context.rule))])
    for budget in plan["budgets"]:
        found = []
        for chooser in ("judge", "rule"):
            context, judge = new()
            rows, _ = search.tree_search(context, budget, judge, judge if chooser == "judge" else context.rule)
            found += [sum(context.token_cost) / len(problems), share(context, rows)]
        result["mcts"].append([budget, *found])
    return result


def at_tokens(curve, tokens, column):
    """The height of a curve [[tokens, ...], ...] at so many tokens, on the line between its neighbours.

    >>> at_tokens([[10, 0.2], [20, 0.4]], 15, 1)
    0.30000000000000004
    """
    if tokens <= curve[0][0]:
        return curve[0][column]
    for low, high in zip(curve, curve[1:]):
        if tokens <= high[0]:
            return low[column] + (high[column] - low[column]) * (tokens - low[0]) / (high[0] - low[0])
    return curve[-1][column]


def report(folder, plan, get):
    seeds, judges = plan["seeds"], [*plan["flips"], *["learned"] * bool(plan["prm"])]
    get([("warm", seed) for seed in seeds])
    get([("prm", seed) for seed in seeds] if plan["prm"] else [])
    found = get([(judge, seed) for judge in judges for seed in seeds])
    lines, panels = [], []
    for column, chooser in ((1, "judge"), (2, "rule")):
        lines += [f"| the {chooser} chooses | AUC of the judge, steps | " + " | ".join(f"MCTS, {b} | best of n, as many tokens | difference"
                                                                       for b in plan["budgets"]) + " |",
                  "|" + "---|" * (2 + 3 * len(plan["budgets"]))]
        curves = {}
        for judge in judges:
            runs, cells = [found[judge, seed] for seed in seeds], []
            for k, budget in enumerate(plan["budgets"]):
                tree = [run["mcts"][k][2 * column] for run in runs]
                tokens = [run["mcts"][k][2 * column - 1] for run in runs]
                best = [at_tokens(run["best of n"], t, column) for run, t in zip(runs, tokens)]
                cells += [f"{spread(tree)} at {spread(tokens, '.0f')}", spread(best), spread((x - y for x, y in zip(tree, best)), '+.3f')]
                for name, values in ((f"MCTS, {budget}", tree), (f"best of n, {budget}", best)):
                    if judge != "learned":
                        curves.setdefault(name, []).append((float(judge), sum(values) / len(values), min(values), max(values)))
            name = "learned" if judge == "learned" else f"f = {judge}"
            lines.append(f"| {name} | {spread(run['auc'] for run in runs)} | " + " | ".join(cells) + " |")
        panels.append({"title": f"the {chooser} chooses", "x": "f: how often the judge is wrong", "y": "share of right answers",
                       "curves": {name: tuple(zip(*points)) for name, points in curves.items()}})
        lines.append("")
    lines.append(f"Seeds {', '.join(map(str, seeds))}, lowest to highest in brackets; {plan['problems']} test problems. MCTS, B: a budget of B "
                 "tokens; behind \"at\" the tokens that were sampled for a problem, those of given-up branches included. Learned: --algo "
                 f"prm, {plan['prm']} steps. [What it means](claims.md#mctss-judge).")
    return "\n".join(lines), panels


if __name__ == "__main__":
    main(__file__, __doc__, cell, report, FULL, QUICK)
