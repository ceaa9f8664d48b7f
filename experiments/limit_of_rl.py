"""Does reinforcement learning make a policy able to do more, or only surer of what it could do before?

    python experiments/limit_of_rl.py            about an hour on 2 cores; goes on cell by cell where it was stopped
    python experiments/limit_of_rl.py --quick    3 minutes, once the warm start is there

The claim (arXiv:2504.13837): pass@k of the policy after reinforcement learning is above that of its base at k = 1, and *below* at
large k. What it solves, the base could solve with more tries; its answers are likely under the base. Distillation from
something stronger lifts the curve at every k.

The setting: countdown, a warm start of 600 steps, seeds 0, 1 and 2. 500 test problems, 256 samples each, the unbiased estimate of pass@k
(evaluate.py), 95 % intervals from a bootstrap over the problems; the difference to the warm start is bootstrapped in pairs.
  grpo-20, grpo-200   GRPO after so many steps
  star                imitating one's own right answers, a million sampled tokens
  distilled           the stronger teacher is the solver: 300 steps of its solutions, none of them random
  blind               no model: random legal search that makes two attempts in place of a sample, as the warm start does
Results: docs/limit_of_rl.{md,json,png}.
"""
import math
import shutil

from cells import main, metrics, train

POLICIES = ("warm", "grpo-20", "grpo-200", "star", "distilled")
FULL = {"seeds": (0, 1, 2), "problems": 500, "n": 256, "steps": (20, 200), "policies": POLICIES, "tokens": 1_000_000, "sft": 300}
QUICK = {"seeds": (0,), "problems": 50, "n": 128, "steps": (20,), "policies": ("warm", "grpo-20"), "tokens": 50_000, "sft": 10}
NAMES = {"warm": "warm start", "distilled": "distilled from the solver", "star": "STaR"}


def policy_of(folder, plan, name, seed):
    """-> (model, task) of what is called `name`, trained as far as that is still to be done."""
    import checkpoint, sft, tasks
    warm = train(folder, f"warm-{seed}", "--algo", "sft", "--seed", seed)
    if name.startswith("grpo"):
        return checkpoint.load_run(folder / f"grpo-{seed}" / f"step-{name.split('-')[1]}.pt")[:2]
    if name == "star":
        return checkpoint.load_run(train(folder, f"star-{seed}", "--algo", "star", "--init", warm, "--seed", seed, "--steps", 10**6,
                                         "--token-budget", plan["tokens"]))[:2]
    model, task, _ = checkpoint.load_run(warm)
    if name == "distilled":  # the teacher's own options: at once, and always right
        teacher = tasks.load("countdown", attempts=1, expert_share=1.0)
        sft.warm_start(model, teacher, sft.SFTConfig(sft_steps=plan["sft"]), f"distilled {seed}")
    return model, task


def cell(folder, plan, name, seed):
    import checkpoint, evaluate, sample
    import torch
    if name == "blind":
        import random, tasks
        from tasks.countdown import random_attempt
        rng, problems = random.Random(0), evaluate.fixed_problems(tasks.load("countdown"), "test", plan["problems"])
        return {"right": [sum(random_attempt(p.key[1:-1], rng)[1] == p.answer for _ in range(2 * plan["n"])) for p in problems]}
    if name == "grpo":  # one run, with a copy of its checkpoint at each of the steps
        for steps in plan["steps"]:
            run = train(folder, f"grpo-{seed}", "--algo", "grpo", "--init", folder / f"warm-{seed}", "--seed", seed, steps=steps)
            if not (run / f"step-{steps}.pt").exists():
                shutil.copy(run / "checkpoint.pt", run / f"step-{steps}.pt")
        return {"step": [line["step"] for line in metrics(run)], "entropy": [line["entropy"] for line in metrics(run)]}
    model, task = policy_of(folder, plan, name, seed)
    problems, n = evaluate.fixed_problems(task, "test", plan["problems"]), plan["n"]
    judged = evaluate.sample_and_judge(model, task, problems, n, batch=1024)
    right = [sum(j["right"] for j in judged[i:i + n]) for i in range(0, len(judged), n)]
    # Are its answers likely under the warm start? One sample of each problem, scored by both.
    warm, _, _ = checkpoint.load_run(folder / f"warm-{seed}")
    rollout = sample.collect(model, task, problems, sample.SamplingConfig(group_size=1), torch.Generator().manual_seed(1))
    rows = rollout.right(task).nonzero()[:, 0]
    chosen = rollout.select(rows)
    with torch.no_grad():
        logprobs, _ = sample.score(warm, chosen.tokens)
    return {"right": right, "length": sum(j["length"] for j in judged) / len(judged),
            "entropy": float(-rollout.logprobs.sum() / rollout.mask.sum()),
            "perplexity": math.exp(-float(logprobs[chosen.mask].mean())) if len(rows) else None,
            "own_perplexity": math.exp(-float(chosen.logprobs[chosen.mask].mean())) if len(rows) else None}


def curve(right, n, ks):
    """pass@k of each problem, (problems, ks), from the number of right answers among n."""
    import numpy
    from evaluate import pass_at_k
    return numpy.array([[pass_at_k(n, c, k) for k in ks] for c in right])


def report(folder, plan, get):
    import numpy
    n, ks = plan["n"], [2 ** i for i in range(9) if 2 ** i <= plan["n"]]
    get([("warm", seed) for seed in plan["seeds"]])  # everything else begins there
    runs = get([("grpo", seed) for seed in plan["seeds"]])
    found = get([(name, seed) for name in plan["policies"] for seed in plan["seeds"]])
    draws = numpy.random.default_rng(0).integers(plan["problems"], size=(2000, plan["problems"]))
    half = lambda x: (numpy.percentile(x, 97.5, axis=0) - numpy.percentile(x, 2.5, axis=0)) / 2
    lines = ["| policy | seed |" + "".join(f" k = {k} |" for k in ks) + " tokens | entropy | perplexity of its right answers: own, "
             "warm start's | solved by both / only by it / only by the warm start |", "|" + "---|" * (len(ks) + 6)]
    panels, blind = [], curve(get([("blind", 0)])["blind", 0]["right"], 2 * n, [2 * k for k in ks]).mean(0)
    lines.append(f"| random search, two attempts a sample | | {' | '.join(f'{share:.3f}' for share in blind)} | | | | |")
    for seed in plan["seeds"]:
        base, curves = curve(found["warm", seed]["right"], n, ks), {}
        for name in plan["policies"]:
            result, each = found[name, seed], curve(found[name, seed]["right"], n, ks)
            mean, difference = each.mean(0), half((each - base)[draws].mean(1))
            sign = [" ▲" if d > h else " ▼" if d < -h else "" for d, h in zip(mean - base.mean(0), difference)]
            cells = [f"{m:.3f} ±{h:.3f}{s}" for m, h, s in zip(mean, half(each[draws].mean(1)), sign)]
            old, new = (numpy.array(found[p, seed]["right"]) > 0 for p in ("warm", name))
            sets = f"{(old & new).sum()} / {(new & ~old).sum()} / {(old & ~new).sum()}"
            perplexity = f"{result['own_perplexity']:.2f}, {result['perplexity']:.2f}" if result["perplexity"] else "–"
            title, length, entropy = NAMES.get(name, name), f"{result['length']:.1f}", f"{result['entropy']:.3f}"
            lines.append(f"| {title} | {seed} | {' | '.join(cells)} | {length} | {entropy} | {perplexity} | {sets} |")
            curves[title] = (ks, mean, mean - half(each[draws].mean(1)), mean + half(each[draws].mean(1)))
        curves["random search"] = (ks, blind)
        panels.append({"title": f"pass@k, seed {seed}", "x": "k: samples per problem", "y": "share of problems with a right one",
                       "curves": curves, "log": 2})
    panels.append({"title": "entropy during GRPO", "x": "step", "y": "nats per token",
                   "curves": {f"seed {seed}": (run["step"], run["entropy"]) for (_, seed), run in runs.items()}})
    lines.append(f"\n{plan['problems']} test problems, {n} samples each; ± is half a 95 % interval; ▲ ▼: above or below the warm "
                 "start of the same seed by more than half the 95 % interval of the paired difference.")
    return "\n".join(lines), panels


if __name__ == "__main__":
    main(__file__, __doc__, cell, report, FULL, QUICK)
