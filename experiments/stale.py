"""Batches that are some updates old, and a sampler in lower precision: where does each way of dealing with it break?

    python experiments/stale.py            half an hour of one core; goes on cell by cell where it was stopped
    python experiments/stale.py --quick    3 minutes, its warm start included: one seed, three ways, two ages

The claim (arXiv:2505.24298): where sampling and training do not wait for each other, plain PPO suffers from batches that are a few
updates old, as its ratio serves two purposes at once; with the correction for the sampler kept apart from the clip, batches of
eight updates do little harm.

    ignore   rho = pi / pi_old, clipped; the sampler mu is taken for pi_old, the policy as the batch arrives
    ratio    rho = pi / mu, clipped: plain PPO
    apart    pi_old / mu, cut at 2, times ignore's term: --mismatch tis of methods/offpolicy.py

and, with pi / mu: no clip at all (reinforce), the clip of whole completions (gspo), weights that are cut (cispo). The setting is that of
wrong_answers.py --easier: countdown with two numbers up to 25 and without thinking, 0.1 million parameters, 32 problems and 8 samples a
batch, one optimizer step each, lr 1e-3. Every run learns from 40 batches, each of them k updates old. Mismatch: the mean of
|log pi_old - log mu| over the tokens of the last ten batches. Not tuned: one rate for all. Results: docs/stale.{md,json,png}.
"""
from cells import main, spread

WAYS = {"ignore": ("grpo", "ignore"), "ratio": ("grpo", "ratio"), "apart": ("grpo", "tis"), "no clip": ("reinforce", "ratio"),
        "gspo": ("gspo", "ratio"), "cispo": ("cispo", "ratio")}
FULL = {"seeds": (0, 1, 2), "task": {"numbers": 2, "max_number": 25}, "sft": 300, "batches": 40, "lr": 1e-3, "problems": 150, "n": 16,
        "ways": tuple(WAYS), "ages": (0, 2, 4, 8, 16), "low": ("ignore", "ratio", "apart")}
QUICK = FULL | {"seeds": (0,), "batches": 10, "problems": 50, "ways": ("ignore", "ratio", "apart"), "ages": (0, 4), "low": ("apart",)}


def cell(folder, plan, way, age, dtype, seed):
    """Train one policy, if it is not there yet, and measure it. way: one of WAYS, or "warm", which learns nothing."""
    import evaluate, small, tasks
    from grpo import TABLE
    task = tasks.load("countdown", attempts=1, cot="off", **plan["task"])
    words = "-".join(["direct", *map(str, plan["task"].values()), str(plan["sft"])])
    policy, lines = small.kept(words, task, small.imitate(task, seed, plan["sft"]), seed)[0], []
    if way != "warm":
        row, mismatch = WAYS[way]
        train = small.reinforce(task, seed, policy, "offpolicy", steps=plan["batches"] + int(age), keep=("mismatch",), prompts=32,
                                **TABLE[row] | {"lr": plan["lr"], "mini_batches": 1, "mismatch": mismatch, "stale_steps": int(age),
                                                "sampler_dtype": dtype})
        policy, lines = small.kept(f"{words}-stale-{way.replace(' ', '_')}-{age}-{dtype}-{plan['batches']}", task, train, seed)
    right = small.right_counts(policy, task, evaluate.fixed_problems(task, "test", plan["problems"]), plan["n"])
    return {"pass@1": sum(right) / len(right) / plan["n"], "accuracy": [line["accuracy"] for line in lines],
            "mismatch": sum(line["mismatch"] for line in lines[-10:]) / 10}


def report(folder, plan, get):
    seeds, ages, ways = plan["seeds"], plan["ages"], plan["ways"]
    warm = get([("warm", 0, "float32", seed) for seed in seeds])  # first of all: it is made once
    found = get([(way, age, "float32", seed) for age in ages for way in ways for seed in seeds]
                + [(way, 0, "bfloat16", seed) for way in plan["low"] for seed in seeds])
    of = lambda way, age, name, dtype="float32": [found[way, age, dtype, seed][name] for seed in seeds]
    lines = ["| | " + " | ".join(f"{age} updates old" for age in ages) + " | sampled in bfloat16 |", "|---" * (len(ages) + 2) + "|"]
    for way in ways:
        low = spread(of(way, 0, "pass@1", "bfloat16")) if way in plan["low"] else ""
        lines.append(f"| {way} | {' | '.join(spread(of(way, age, 'pass@1')) for age in ages)} | {low} |")
    for way in ways:
        lines.append(f"| mismatch, {way} | {' | '.join(spread(of(way, age, 'mismatch')) for age in ages)} | "
                     f"{spread(of(way, 0, 'mismatch', 'bfloat16'), '.4f') if way in plan['low'] else ''} |")
    lines.append(f"\npass@1 on {plan['problems']} test problems, {plan['n']} samples each, seeds {', '.join(map(str, seeds))}: mean (lowest to "
                 f"highest). The warm start: {spread(each['pass@1'] for each in warm.values())}. Curves: mean of the seeds.")
    mean = lambda values: sum(values) / len(values)
    panels = [{"title": f"after {plan['batches']} batches", "x": "updates that a batch is old", "y": "pass@1", "curves": {
        way: (list(ages), [mean(of(way, age, "pass@1")) for age in ages]) for way in ways}}]
    oldest = ages[-1]
    panels.append({"title": f"training, {oldest} updates old", "x": "batch that was sampled", "y": "share of right answers", "curves": {
        way: (list(range(len(found[way, oldest, "float32", seeds[0]]["accuracy"]))),
              [mean(step) for step in zip(*of(way, oldest, "accuracy"))]) for way in ways}})
    return "\n".join(lines), panels


if __name__ == "__main__":
    main(__file__, __doc__, cell, report, FULL, QUICK)
