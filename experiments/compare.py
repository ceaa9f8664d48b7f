"""Every algorithm on equal terms: the same warm start, the same number of sampled tokens, the same choice of learning rates.

    python experiments/compare.py              about 80 minutes on 2 cores; goes on cell by cell where it was stopped
    python experiments/compare.py --quick      3 minutes, once the warm start is there: two methods, one rate, 200,000 tokens

The claim to be examined: which way of learning from a rule gets most out of a token? Countdown, defaults, a million sampled
tokens each (--token-budget), seeds 0, 1 and 2. A cell is one run: train, then measure. Of three learning rates the one is taken
that does best on `val` with seed 0; only the chosen cells are measured on `test`. Beside them: the warm start as it is, trained on
for as many seconds as GRPO took, and random search with as many attempts as the policy of GRPO makes.

Results: docs/compare.{md,json}.
"""
import json
import resource

from cells import main, spread, train

# name: (--algo, other flags, learning rates)
METHODS = {
    "star": ("star", [], ("3e-4", "1e-3", "3e-3")),
    "reinforce": ("reinforce", [], ("1.5e-4", "3e-4", "6e-4")),
    "rloo": ("rloo", [], ("1.5e-4", "3e-4", "6e-4")),
    "grpo": ("grpo", [], ("1.5e-4", "3e-4", "6e-4")),
    "dr_grpo": ("dr_grpo", [], ("1.5e-4", "3e-4", "6e-4")),
    "dapo": ("dapo", [], ("1.5e-4", "3e-4", "6e-4")),
    "ppo": ("ppo", [], ("1.5e-4", "3e-4", "6e-4")),
    "dpo": ("dpo", [], ("1.5e-4", "3e-4", "6e-4")),
    "dpo --iterative": ("dpo", ["--iterative"], ("1.5e-4", "3e-4", "6e-4")),
}
FULL = {"tokens": 1_000_000, "seeds": (0, 1, 2), "problems": 500, "methods": METHODS}
QUICK = {"tokens": 200_000, "seeds": (0,), "problems": 100,
         "methods": {name: (name, [], ("3e-4",)) for name in ("star", "grpo")}}


def cell(folder, plan, method, lr, seed, split):
    """Train one run if it is not there yet, and measure it on `split`."""
    import checkpoint, evaluate, sft
    name = lambda method: f"{method}-{lr}-{seed}".replace(" ", "")
    run = folder / name(method)
    if method == "continued_sft":  # the rival: imitation for as many seconds as GRPO took
        rival = folder / name("grpo")
        policy, task, _ = checkpoint.load_run(json.loads((rival / "summary.json").read_text())["warm_start"])
        seconds = json.loads((rival / "seconds.json").read_text())
        losses = sft.warm_start(policy, task, sft.SFTConfig(), f"{seed} more", seconds=seconds)
        summary = {"tokens": 0, "steps": 0, "updates": len(losses)}
    else:
        algo, flags, _ = plan["methods"].get(method, ("sft", [], ()))
        limit = ["--lr", lr, "--steps", 10**6, "--token-budget", plan["tokens"]] if algo != "sft" else []
        resumed, kept = (run / "checkpoint.pt").exists(), run / "seconds.json"
        train(folder, run.name, "--algo", algo, "--seed", seed, *flags, *limit)
        policy, task, _ = checkpoint.load_run(run)
        summary, used = json.loads((run / "summary.json").read_text()), resource.getrusage(resource.RUSAGE_CHILDREN)
        if not kept.exists():  # the processor's own time, whatever else there was to do; of a resumed run the clock's
            kept.write_text(json.dumps(summary["seconds"]["rl"] if resumed else used.ru_utime + used.ru_stime))
        seconds = json.loads(kept.read_text())
    problems = evaluate.fixed_problems(task, split, plan["problems"])
    result = evaluate.evaluate(policy, task, problems, 16 if split == "test" else 8)
    result |= {"seconds": seconds, **{name: summary[name] for name in ("tokens", "steps", "updates")}}
    if method == "grpo" and split == "test":
        result["random_search"] = task.random_search(problems, result["attempts"], searches=64)
    return result


def report(folder, plan, get):
    methods, seeds = plan["methods"], plan["seeds"]
    get([("sft", "0", seed, "test") for seed in seeds])  # makes the warm starts, once
    tried = get([(m, lr, seeds[0], "val") for m in methods for lr in methods[m][2]])
    best = {m: max(methods[m][2], key=lambda lr: tried[m, lr, seeds[0], "val"]["pass@1"]) for m in methods}
    rows = [("sft", "0"), *best.items(), ("continued_sft", best["grpo"])]
    table = get([(m, lr, seed, "test") for m, lr in rows for seed in seeds])
    lines = ["| method | learning rates: pass@1 on val, seed 0 | pass@1 | pass@8 | tokens per answer | updates | seconds |",
             "|---|---|---|---|---|---|---|"]
    both = lambda m, lr, name, form: spread((table[m, lr, seed, "test"][name] for seed in seeds), form)
    for m, lr in rows:
        choice = ", ".join(f"{'**' * (r == lr)}{r}: {tried[m, r, seeds[0], 'val']['pass@1']:.3f}{'**' * (r == lr)}"
                           for r in methods[m][2]) if m in methods else ""
        title = {"sft": "warm start", "continued_sft": "warm start, trained on"}.get(m, m)
        lines.append(f"| {title} | {choice} | {both(m, lr, 'pass@1', '.3f')} | {both(m, lr, 'pass@8', '.3f')} "
                     f"| {both(m, lr, 'length', '.1f')} | {both(m, lr, 'updates', 'd')} | {both(m, lr, 'seconds', '.0f')} |")
    lines.append(f"| random search with grpo's attempts | | {both('grpo', best['grpo'], 'random_search', '.3f')} | | | | |")
    return "\n".join(lines), []


if __name__ == "__main__":
    main(__file__, __doc__, cell, report, FULL, QUICK)
