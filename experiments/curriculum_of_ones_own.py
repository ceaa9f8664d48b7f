"""A policy that sets itself the problems it learns from: what does it propose, and does it learn more than from the task's own?

    python experiments/curriculum_of_ones_own.py            a quarter of an hour on 2 cores; goes on cell by cell where it was stopped
    python experiments/curriculum_of_ones_own.py --quick    under 3 minutes: a short warm start, one seed, three arms

The claims (Absolute Zero, arXiv:2505.03335; R-Zero, arXiv:2508.05004): a model that proposes problems, and is paid for those that it
sometimes solves and sometimes does not, needs no problems from outside; its curriculum follows its ability.

The arms, methods/propose.py unless it says otherwise, all at the same number of sampled tokens, proposals included:
  grpo              the task's own distribution (grpo.py)
  zero              the proposer earns 1 - s, 0 where nobody succeeds, less R-Zero's fine for repetition: n of P equal ones, n / P
  zero, repeating   the same without the fine
  half              min(s, 1 - s), with the fine
  fixed             the proposer stays as imitation left it: what do proposals bring that are not trained?
  zero, 10 fines    ten times the fine: seven equal ones of 64 earn nothing
  half, 10 fines

Measured over the run: the share of valid proposals, of distinct ones, the success of the solver on them, and luck: how often one
random legal attempt solves a valid proposal (the lower, the harder). At the end 512 proposals, and the task's own test problems.
The setting: countdown with two numbers up to 30, 2 layers, width 64: a step costs a tenth of the default's, so that there is time for a
curriculum. Warm starts with a dialogue. Results: docs/curriculum_of_ones_own.{md,json,png}.
"""
from collections import Counter

from cells import main, metrics, spread, train

ARMS = {"grpo": ["--algo", "grpo"], "zero": ["--algo", "propose"], "zero, repeating": ["--algo", "propose", "--repetition", 0],
        "half": ["--algo", "propose", "--proposer-reward", "half"], "fixed": ["--algo", "propose", "--proposer-weight", 0],
        "zero, 10 fines": ["--algo", "propose", "--repetition", 10],
        "half, 10 fines": ["--algo", "propose", "--proposer-reward", "half", "--repetition", 10]}
SMALL = ["--numbers", 2, "--max-number", 30, "--n-layer", 2, "--n-embd", 64, "--dialogue", 0.6]
FULL = {"seeds": (0, 1, 2), "arms": tuple(ARMS), "tokens": 600_000, "sft": 800, "problems": 200, "proposals": 512}
QUICK = {"seeds": (0,), "arms": ("grpo", "zero", "fixed"), "tokens": 100_000, "sft": 400, "problems": 60, "proposals": 128}
OVER = {"accuracy": "success of the solver on what it is given", "luck": "luck: a random attempt solves a valid proposal",
        "distinct": "distinct valid proposals, share", "propose_entropy": "entropy of a proposal, nats"}


def proposals(model, task, count):
    """What the policy proposes -> {valid, distinct, solvable: shares of all proposals; luck; most: how often the most frequent came}."""
    import torch
    from methods.propose import written_problems
    from sample import generate
    from tasks.countdown import reachable
    encode = task.tokenizer.encode
    rollout = generate(model, [encode("Propose.\n")] * count, task.max_prompt_tokens, eos=task.tokenizer.eos,
                       pad=task.tokenizer.pad, generator=torch.Generator().manual_seed(0))
    problems = [p for p in written_problems(task, rollout) if p]
    often = Counter(p.key for p in problems)
    solvable = sum(p.answer in reachable(p.key[1:-1]) for p in problems)
    return {"valid": len(problems) / count, "distinct": len(often) / count, "solvable": solvable / max(1, len(problems)),
            "luck": task.random_search(problems, 1.0) if problems else 0.0, "most": max(often.values(), default=0) / count,
            "examples": [p.prompt.strip() for p in problems[:5]]}


def cell(folder, plan, arm, seed):
    import checkpoint, evaluate
    warm = train(folder, f"warm-{seed}", "--algo", "sft", "--seed", seed, *SMALL, "--sft-steps", plan["sft"])
    run = warm
    if arm != "warm":
        run = train(folder, f"{list(ARMS).index(arm)}-{seed}", *ARMS[arm], "--init", warm, "--seed", seed, *SMALL,
                    "--steps", 10**6, "--token-budget", plan["tokens"], "--log-rollouts", 0)
    model, task, _ = checkpoint.load_run(run)
    found = evaluate.evaluate(model, task, evaluate.fixed_problems(task, "test", plan["problems"]), 8, (1, 8))
    lines = metrics(run) if arm != "warm" else []
    return {"pass@1": found["pass@1"], "pass@8": found["pass@8"], "proposals": proposals(model, task, plan["proposals"]),
            "tokens": [line["tokens"] for line in lines],
            **{name: [line.get(name) for line in lines] for name in OVER}}


def smooth(values, width=5):
    return [sum(values[max(0, i + 1 - width):i + 1]) / len(values[max(0, i + 1 - width):i + 1]) for i in range(len(values))]


def report(folder, plan, get):
    seeds = plan["seeds"]
    warm = get([("warm", seed) for seed in seeds])
    found = warm | get([(arm, seed) for arm in plan["arms"] for seed in seeds])
    lines = ["| | pass@1 | pass@8 | of its proposals: valid | distinct | valid ones that can be solved | luck on them | the most "
             "frequent one |", "|---|---|---|---|---|---|---|---|"]
    for arm in ("warm", *plan["arms"]):
        of = lambda name: spread(found[arm, seed][name] for seed in seeds)
        said = lambda name: spread((found[arm, seed]["proposals"][name] for seed in seeds), ".2f")
        lines.append(f"| {'warm start' if arm == 'warm' else arm} | {of('pass@1')} | {of('pass@8')} | " + " | ".join(
            map(said, ("valid", "distinct", "solvable", "luck", "most"))) + " |")
    lines.append(f"\n{plan['tokens']:,} sampled tokens; seeds {', '.join(map(str, seeds))}, lowest to highest in brackets; "
                 f"{plan['problems']} test problems, 8 samples each; {plan['proposals']} proposals at the end. Luck: of one random attempt.")
    panels = []
    for name, title in OVER.items():
        curves = {}
        for arm in plan["arms"]:
            runs = [found[arm, seed] for seed in seeds]
            if all(None not in run[name] for run in runs):
                steps = min(len(run["tokens"]) for run in runs)
                each = [smooth(run[name][:steps]) for run in runs]
                mean = [sum(x) / len(x) for x in zip(*each)]
                curves[arm] = (runs[0]["tokens"][:steps], mean, *([f(x) for x in zip(*each)] for f in (min, max)))
        panels.append({"title": title, "x": "sampled tokens", "y": "mean over five steps and the seeds", "curves": curves})
    return "\n".join(lines), panels


if __name__ == "__main__":
    main(__file__, __doc__, cell, report, FULL, QUICK)
