"""False steps in the chains that are imitated: what do they cost, and does reinforcement learning repair it?

    python experiments/noisy_chains.py            about 10 minutes on one core; goes on cell by cell where it was stopped
    python experiments/noisy_chains.py --quick    3 minutes, its warm starts included: one seed, two rates

The claim (arXiv:2402.04004): models that imitate chains with errors hardly suffer if an error stands by itself, "static", and the chain
goes on as if it were not there; they suffer far more, and from fewer, if the error is carried on, "dynamic".

With a rate q of false steps, a dynamic chain of k steps ends right with probability (1 - q)^k, but for slips that undo each other. A model
that imitates q as it is, step for step, is right as often: that is the line to compare with. One that has a share of right tokens above
1/2 would be right more often if it took the likeliest token each time (greedy).

    true       4: 4, 3: 2, 1: 3, 2: 0, </think><answer>0        sums modulo 5: 4, 7, 8, 10
    static     4: 4, 3: 0, 1: 3, 2: 0, </think><answer>0        the 0 after 3 is false, what follows it is not; the answer is the true one
    dynamic    4: 4, 3: 0, 1: 1, 2: 3, </think><answer>3        from the false 0 on everything is right again, and so the answer is not

The setting: modular addition of two to six numbers mod 5, a chain in every demonstration, 2 layers of width 64 (small.py); a step is
false with probability q, its sum then any of the other four. After it GRPO from the answer alone. Results: docs/noisy_chains.{md,json,png}.
"""
from cells import main, spread

FULL = {"seeds": (0, 1, 2), "rates": (0.0, 0.01, 0.05, 0.2), "kinds": ("static", "dynamic"), "sft": 250, "steps": 20, "prompts": 32,
        "problems": 80, "n": 16}
QUICK = FULL | {"seeds": (0,), "rates": (0.0, 0.2), "problems": 40}


def make_task(kind, q):
    """Modular addition whose demonstrations have false steps at a rate q."""
    from tasks.modular_addition import ModularAddition, ModularAdditionOptions

    class Noisy(ModularAddition):
        def demonstration(self, problem, rng):
            numbers = [int(step.split(":")[0]) for step in self.chain(problem).split(", ")[:-1]]
            sums = corrupted(numbers, self.options.m, kind, q, rng)
            chain = "".join(f"{n}: {total}, " for n, total in zip(numbers, sums))
            return f"<think>{chain}</think><answer>{sums[-1] if kind == 'dynamic' else problem.answer}</answer>"

    task = Noisy(ModularAdditionOptions(m=5, min_k=2, max_k=6, cot="on"))
    task.name = "modular_addition"
    return task


def corrupted(numbers, m, kind, q, rng):
    """The sums so far, modulo m, with false ones at a rate q. rng: random.Random. Static: the next step goes on from the true sum."""
    true, written, found = 0, 0, []
    for n in numbers:
        true, written = (true + n) % m, ((written if kind == "dynamic" else true) + n) % m
        if rng.random() < q:
            written = (written + 1 + int(rng.random() * (m - 1))) % m
        found.append(written)
    return found


def step_errors(text, m):
    """A chain as it was written -> (false steps, steps), each step judged from the one before it, as in a dynamic chain.

    >>> step_errors("<think>5: 5, 3: 4, 6: 3, </think><answer>3</answer>", 7), step_errors("<think>5: 5, 3: 1, 6", 7)
    ((1, 3), (0, 2))
    """
    import re
    before, false, steps = 0, 0, re.findall(r"([0-9]+): ([0-9]+), ", text)
    for n, total in steps:
        false += (before + int(n)) % m != int(total)
        before = int(total)
    return false, len(steps)


def measure(model, task, plan):
    """-> pass@1 at temperature 1, greedy accuracy, the share of false steps in its chains, on the test split."""
    import torch
    import evaluate, sample
    problems = evaluate.fixed_problems(task, "test", plan["problems"])
    rollout = sample.collect(model, task, problems, sample.SamplingConfig(group_size=plan["n"]), torch.Generator().manual_seed(0))
    false, steps = map(sum, zip(*(step_errors(text, task.options.m) for text in rollout.completions(task.tokenizer))))
    greedy = evaluate.sample_and_judge(model, task, problems, 1, temperature=0.0)
    return {"pass@1": float(rollout.right(task).float().mean()), "greedy": sum(j["right"] for j in greedy) / len(greedy),
            "false": false / max(steps, 1)}


def cell(folder, plan, kind, q, seed):
    import random
    import evaluate, small
    task, name = make_task(kind, float(q)), f"noisy-{kind}-{q}-{plan['sft']}"
    warm, _ = small.kept(name, task, small.imitate(task, seed, plan["sft"]), seed)
    policy, lines = small.kept(f"{name}-grpo-{plan['steps']}", task, small.reinforce(
        task, seed, warm, steps=plan["steps"], prompts=plan["prompts"]), seed)
    problems, rng = evaluate.fixed_problems(task, "test", plan["problems"]), random.Random(0)
    right = [task.verify(problem, task.demonstration(problem, rng)) for problem in problems for _ in range(plan["n"])]
    return {"demonstrations": sum(right) / len(right), "before": measure(warm, task, plan), "after": measure(policy, task, plan),
            "curve": [line["accuracy"] for line in lines]}


def report(folder, plan, get):
    # without noise the two kinds are one
    grid = [(kind, q) for kind in plan["kinds"] for q in plan["rates"] if q or kind == plan["kinds"][0]]
    found = get([(kind, q, seed) for kind, q in grid for seed in plan["seeds"]])
    lines = ["| noise | q | right demonstrations | imitation: pass@1 | greedy | false steps | after RL: pass@1 | greedy | false steps |", "|---" * 9 + "|"]
    for kind, q in grid:
        each = [found[kind, q, seed] for seed in plan["seeds"]]
        cells = [spread((e[when][what] for e in each), ".3f") for when in ("before", "after") for what in ("pass@1", "greedy", "false")]
        right = sum(e["demonstrations"] for e in each) / len(each)
        lines.append(f"| {kind if q else 'none'} | {q:g} | {right:.3f} | {' | '.join(cells)} |")
    lines.append(f"\nSeeds {', '.join(map(str, plan['seeds']))}, mean (lowest to highest); {plan['problems']} test problems, {plan['n']} samples "
                 "each. A step is judged from the one before it, so in a static chain the step after a false one counts as false too.")
    panels = []
    for when, title in (("before", "imitation"), ("after", "after GRPO")):
        curves = {}
        for kind in plan["kinds"]:
            cells = [found[kind if q else plan["kinds"][0], q, seed] for q in plan["rates"] for seed in plan["seeds"]]
            per = [cells[i:i + len(plan["seeds"])] for i in range(0, len(cells), len(plan["seeds"]))]
            for what in ("pass@1", "greedy"):
                values = [[e[when][what] for e in each] for each in per]
                curves[f"{kind}, {what}"] = (plan["rates"], [sum(v) / len(v) for v in values], [min(v) for v in values], [max(v) for v in values])
        panels.append({"title": f"{title}; bands: lowest to highest seed", "x": "q: rate of false steps in the demonstrations",
                       "y": "share of right answers on test", "curves": curves})
    return "\n".join(lines), panels


if __name__ == "__main__":
    main(__file__, __doc__, cell, report, FULL, QUICK)
