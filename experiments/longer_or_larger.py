"""A longer chain or a larger model, at equal operations? And where does a longer chain begin to hurt?

    python experiments/longer_or_larger.py            about 8 minutes of one core; goes on cell by cell where it was stopped
    python experiments/longer_or_larger.py --quick    3 minutes, its own warm start included: one seed, no larger model

The claims: a small model that thinks longer can be worth a larger one at equal operations (arXiv:2408.03314); thinking that is forced
to go on helps at first (s1, arXiv:2501.19393), and beyond some length it hurts: accuracy over length is an inverted U (arXiv:2502.07266).

The recipe: warm starts of two sizes, from equally many demonstrations of one or two attempts. Budget forcing (search.py) makes each think for
exactly j attempts, j = 1 to 6: an earlier end is taken back, a later one forced. One attempt on four numbers is 19 tokens, so
    budget = 1 + 19 j tokens;       operations of an answer = 2 x parameters x (tokens read + tokens sampled)
  may stop     a solution that marks its last attempt as found may end; this is budget forcing as it is
  must go on   it may not: the policy has to think on, and answers with what it came to last
Free: no forcing. Attention, training and the cost of judging are left aside. The context of the models is made longer than what
they were trained on (rotary positions go on by themselves): from the third attempt on they are where no demonstration was.

Random search that makes as many attempts stands beside it; it stops when it has found the target. Legal: the share of attempts
that follow the rules.
Results: docs/longer_or_larger.{md,json,png}.
"""
from cells import main, spread, train

SMALL = ["--numbers", 4, "--max-number", 6, "--attempts", 2, "--n-layer", 2, "--n-embd", 64, "--n-head", 2, "--sft-steps", 600]
LARGE = [*SMALL, "--n-layer", 2, "--n-embd", 128, "--n-head", 4]  # of a flag that is given twice the last one counts
FULL = {"seeds": (0, 1, 2), "sizes": ("small", "large"), "attempts": (1, 2, 3, 4, 6), "problems": 200, "samples": 2}
QUICK = {"seeds": (0,), "sizes": ("small",), "attempts": (1, 2, 4), "problems": 80, "samples": 1}
ATTEMPT, FRAME = 19, 20  # tokens: of an attempt; of the tags and of the answer


def longer(model, tokens):
    """The same weights with room for so many tokens."""
    from dataclasses import replace
    from model import GPT
    other = GPT(replace(model.config, block_size=tokens))
    other.load_state_dict(model.state_dict())
    return other


def cell(folder, plan, size, seed):
    """-> parameters and prompt tokens, and for each way of forcing and j: accuracy, tokens, attempts, how many are legal."""
    import checkpoint, evaluate, search
    import torch
    from search_context import SearchContext
    home = folder.parent / "four-numbers"  # shared with compute_optimal.py
    run = train(home, f"{'warm' if size == 'small' else size}-{seed}", "--algo", "sft", *(SMALL if size == "small" else LARGE), "--seed", seed)
    model, task, _ = checkpoint.load_run(run)
    room, verdict = 1 + ATTEMPT * max(plan["attempts"]) + FRAME, task.own_verdict
    problems = evaluate.fixed_problems(task, "test", plan["problems"])
    model = longer(model, task.max_prompt_tokens + room)
    result = {"parameters": sum(p.numel() for p in model.parameters()), "prompt": len(task.tokenizer.encode(problems[0].prompt))}
    for way in ("free", "may stop", "must go on"):
        task.own_verdict = (lambda text: None) if way == "must go on" else verdict
        result[way] = []
        for j in plan["attempts"][:1] if way == "free" else plan["attempts"]:
            context = SearchContext(model, task, problems * plan["samples"], room, generator=torch.Generator().manual_seed(0))
            rows = context.candidates(1)[1] if way == "free" else search.budget_forcing(context, 1 + ATTEMPT * j)
            said = [task.describe(problem, context.text(i, row)) for i, (problem, row) in enumerate(zip(context.problems, rows))]
            mean = lambda values: sum(values) / len(rows)
            result[way].append({"accuracy": mean([context.right(i, row) for i, row in enumerate(rows)]), "tokens": mean(context.token_cost),
                                "attempts": mean([s["attempts"] for s in said]), "legal": mean([s["legal"] for s in said])})
            result[way][-1]["random"] = task.random_search(problems, max(1.0, result[way][-1]["attempts"]))
    return result


def operations(result, row):
    """Of an answer, in millions: two for each parameter and token."""
    return 2 * result["parameters"] * (result["prompt"] + row["tokens"]) / 1e6


def report(folder, plan, get):
    seeds = plan["seeds"]
    found = get([(size, seed) for size in plan["sizes"] for seed in seeds])
    lines = ["| model | attempts | accuracy | tokens | million operations | legal attempts | random search, as many attempts |", "|" + "---|" * 7]
    curves = {way: {} for way in ("may stop", "must go on")}
    for size in plan["sizes"]:
        runs = [found[size, seed] for seed in seeds]
        for way in ("free", *curves):
            for k in range(len(runs[0][way])):
                rows = [run[way][k] for run in runs]
                j, cost = plan["attempts"][k], [operations(run, row) for run, row in zip(runs, rows)]
                accuracy, legal = [row["accuracy"] for row in rows], [row["legal"] / max(row["attempts"], 1e-9) for row in rows]
                blind = spread(row["random"] for row in rows)
                lines.append(f"| {size}, {runs[0]['parameters']:,} parameters | {way if way == 'free' else f'{j}, {way}'} | {spread(accuracy)} | "
                             f"{spread((row['tokens'] for row in rows), '.0f')} | {spread(cost, '.1f')} | {spread(legal, '.2f')} | {blind} |")
                if way in curves:
                    point = (sum(cost) / len(cost), sum(accuracy) / len(accuracy), min(accuracy), max(accuracy))
                    curves[way].setdefault(size, []).append(point)
    lines.append(f"\nSeeds {', '.join(map(str, seeds))}, lowest to highest in brackets; {plan['problems']} test problems, {plan['samples']} "
                 "samples each. Legal: of all attempts of an answer. Back to [claims](claims.md).")
    return "\n".join(lines), [{"title": f"forced to think; {way}", "x": "million operations of an answer", "y": "share of right answers", "log": 2,
                               "curves": {size: tuple(zip(*points)) for size, points in each.items()}} for way, each in curves.items()]


if __name__ == "__main__":
    main(__file__, __doc__, cell, report, FULL, QUICK)
