"""Sparse or dense: what a penalty for a false step does to the arithmetic, and to the accuracy.

    python experiments/dense_reward.py            about 15 minutes on 2 cores; goes on run by run where it was stopped
    python experiments/dense_reward.py --quick    3 minutes, once the warm start is there

The claim: what a reward does not read may rot. The rule reads the answer alone (sparse); --step-penalty 0.3 takes 0.3 from every
completion with a false step in its thinking (dense).

The setting: countdown, a warm start of 600 steps, GRPO, seeds 0, 1 and 2. Means over the last ten steps, some 5,000 completions of
training problems that were drawn fresh, so none had been trained on. Legal: the share of attempts that follow the rules. Results:
docs/dense_reward.{md,json,png}.
"""
from cells import main, metrics, spread, train

FULL = {"seeds": (0, 1, 2), "steps": 60}
QUICK = {"seeds": (0,), "steps": 15}
REWARDS = {"sparse": "0.0", "dense": "0.3"}
COLUMNS = {"accuracy": "accuracy", "legal": "legal attempts", "attempts": "attempts", "hits": "hits per attempt",
           "finished": "ended by themselves", "length": "tokens"}


def cell(folder, plan, reward, seed):
    run = train(folder, f"{reward}-{seed}", "--algo", "grpo", "--seed", seed, "--step-penalty", REWARDS[reward], steps=plan["steps"])
    lines = metrics(run)[:plan["steps"]]
    mean = lambda name, of: sum(line[name] for line in of) / len(of)
    share = lambda name, of: mean(name, of) / mean("attempts", of)
    last = lines[-10:]
    return {name: share(name, last) if name in ("legal", "hits") else mean(name, last) for name in COLUMNS} | {
        "first": {"legal": share("legal", lines[:1]), "accuracy": lines[0]["accuracy"]},
        "curve": [share("legal", [line]) for line in lines]}


def report(folder, plan, get):
    found = get([(reward, seed) for seed in plan["seeds"] for reward in REWARDS])
    lines = ["| reward | " + " | ".join(COLUMNS.values()) + " |", "|---|" + "---|" * len(COLUMNS)]
    for reward in REWARDS:
        cells = [[found[reward, seed][name] for seed in plan["seeds"]] for name in COLUMNS]
        lines.append(f"| {reward} | " + " | ".join(map(spread, cells)) + " |")
    first = [found["sparse", seed]["first"]["legal"] for seed in plan["seeds"]]
    lines.append(f"\nMean over seeds {', '.join(map(str, plan['seeds']))} (lowest to highest), steps {plan['steps'] - 9} to {plan['steps']}. "
                 f"In the first step, before any update, {sum(first) / len(first):.3f} of the attempts are legal. "
                 "What it means: [rewards and their holes](7-rewards.md#sparse-and-dense).")
    steps = list(range(1, plan["steps"] + 1))
    curves = {f"{reward}, seed {seed}": (steps, found[reward, seed]["curve"]) for reward in REWARDS for seed in plan["seeds"]}
    return "\n".join(lines), [{"title": "attempts that follow the rules", "x": "step", "y": "share", "curves": curves}]


if __name__ == "__main__":
    main(__file__, __doc__, cell, report, FULL, QUICK)
