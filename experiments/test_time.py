"""Thinking longer at test time: what does each token buy, for each way of searching?

    python experiments/test_time.py            about an hour on 2 cores; goes on cell by cell where it was stopped
    python experiments/test_time.py --quick    3 minutes, once the warm start is there: one policy, one small verifier, 60 problems

The claims to be examined: searching with a verifier beats sampling at a fraction of the tokens, MCTS is below sampling (REBASE,
arXiv:2408.00724); votes saturate (self-consistency, arXiv:2203.11171). Policies: the warm start of countdown, the same after
GRPO on a million tokens, and the warm start of iterated squaring. Verifiers, each trained on the samples of the policy that it scores:
orm, prm (soft labels, 4 rollouts) and the critic of PPO, trained alone with the policy held fixed. 200 test problems; the
tokens are those that were really sampled.

Results: docs/test_time.{md,json,png}.
"""
from cells import main, train

POLICIES = {  # name: (flags of train.py, verifiers that are trained for it)
    "warm": (["--algo", "sft", "--task", "countdown"], ("orm", "prm", "critic")),
    "grpo": (["--algo", "grpo", "--task", "countdown", "--steps", "1000000", "--token-budget", "1000000"],
             ("orm", "prm", "critic")),
    "squaring": (["--algo", "sft", "--task", "iterated_squaring"], ("orm", "prm")),
}
JUDGES = {"orm": ["--algo", "orm", "--steps", "60"], "prm": ["--algo", "prm", "--steps", "100"],
          "critic": ["--algo", "ppo", "--critic-warmup", "60", "--steps", "60", "--prompts", "256"]}
# label: (method, verifier, settings of search.py)
LEARNED = {"score": "verifier"}
COUNTDOWN = {
    "greedy": ("greedy", "", {}),
    "sampling until the rule accepts": ("sample", "", {}),
    "best of n, rule": ("best_of_n", "", {}),
    "beam search, critic inside, rule": ("beam_search", "critic", {}),
    "rebase, critic inside, rule": ("rebase", "critic", {}),
    "mcts, critic inside, rule": ("mcts", "critic", {}),
    "mcts, rollouts inside, rule": ("mcts", "", {}),
    "budget forcing": ("budget_forcing", "", {}),
    "majority vote": ("majority_vote", "", {}),
    "best of n, orm": ("best_of_n", "orm", LEARNED),
    "best of n, prm": ("best_of_n", "prm", LEARNED),
    "rebase, prm": ("rebase", "prm", LEARNED),
    "best of n, critic": ("best_of_n", "critic", LEARNED),
    "beam search, critic": ("beam_search", "critic", LEARNED),
    "rebase, critic": ("rebase", "critic", LEARNED),
    "mcts, critic": ("mcts", "critic", LEARNED),
}
SQUARING = {
    "greedy": ("greedy", "", {}),
    "majority vote": ("majority_vote", "", {}),
    "majority vote, weighted by orm": ("majority_vote", "orm", {"score": "verifier", "weighted": True}),
    "best of n, own confidence": ("best_of_n", "", {}),
    "best of n, orm": ("best_of_n", "orm", LEARNED),
    "best of n, prm": ("best_of_n", "prm", LEARNED),
    "beam search, prm": ("beam_search", "prm", LEARNED),
    "rebase, prm": ("rebase", "prm", LEARNED),
    "mcts, prm": ("mcts", "prm", LEARNED),
}
METHODS = {"warm": COUNTDOWN, "grpo": COUNTDOWN, "squaring": SQUARING}
FULL = {"problems": 200, "policies": ("warm", "squaring", "grpo"), "judges": ("orm", "prm", "critic"), "flags": [],
        "budgets": {"warm": (64, 128, 256, 512), "grpo": (64, 128, 256, 512), "squaring": (16, 32, 64, 128)}}
QUICK = {"problems": 60, "policies": ("warm",), "judges": ("orm",), "budgets": {"warm": (128, 256)}, "flags": ["--steps", "12"]}


def cell(folder, plan, policy, label):
    """Train a policy ("warm", "policy") or a verifier of one ("warm", "prm"), or measure one method on one policy at all budgets."""
    import checkpoint, evaluate
    from plumbing import search_command
    from search_context import SearchContext
    flags = POLICIES[policy][0]
    if label == "policy":
        return {"run": str(train(folder, policy, *flags))}
    if label in JUDGES:
        start = [*flags[2:4], "--init", folder / policy]
        return {"run": str(train(folder, f"{policy}-{label}", *start, *JUDGES[label], *plan["flags"]))}
    method, judge, settings = METHODS[policy][label]
    model, task, _ = checkpoint.load_run(folder / policy)
    scalar = checkpoint.load_verifier(folder / f"{policy}-{judge}") if judge else None
    c = search_command.SearchConfig(method=method, **settings)
    problems = evaluate.fixed_problems(task, "test", plan["problems"])
    typical = search_command.typical_length(SearchContext(model, task, problems[:1]))
    budgets = plan["budgets"][policy][:1 if method == "greedy" else None]
    return [search_command.measure(model, task, problems, method, budget, c, scalar, typical) for budget in budgets]


def report(folder, plan, get):
    from plot import searches
    lines, tables = [], []
    get([(policy, "policy") for policy in plan["policies"]])
    for policy in plan["policies"]:
        get([(policy, judge) for judge in POLICIES[policy][1] if judge in plan["judges"]])
        labels = [label for label, (_, judge, _) in METHODS[policy].items() if not judge or judge in plan["judges"]]
        methods = {label: rows for (_, label), rows in get([(policy, label) for label in labels]).items()}
        budgets = plan["budgets"][policy]
        lines += [f"| {policy}: accuracy (tokens per problem) at a budget of | " + " | ".join(map(str, budgets)) + " |",
                  "|---|" + "---|" * len(budgets)]
        for label, rows in methods.items():
            shown = [f"{r['accuracy']:.3f} ({r['tokens']:.0f})" for r in rows] + [""] * (len(budgets) - len(rows))
            lines.append(f"| {label} | " + " | ".join(shown) + " |")
        lines.append("")
        ruled = {label: rows for label, rows in methods.items() if "rule" in label or label == "greedy"}
        if len(ruled) > 1:
            tables.append((f"{policy}: the rule chooses", ruled))
        tables.append((f"{policy}: judges and votes choose", {k: rows for k, rows in methods.items() if "rule" not in k}))
    return "\n".join(lines), searches(tables)


if __name__ == "__main__":
    main(__file__, __doc__, cell, report, FULL, QUICK)
