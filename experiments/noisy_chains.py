"""False steps in the chains that are imitated: what do they cost, and does reinforcement learning repair
it?

    python experiments/noisy_chains.py            about 9 minutes of one core; goes on cell by cell where it was stopped
    python experiments/noisy_chains.py --quick    3 minutes, its warm starts included: one seed, two rates

The claim (arXiv:2402.04004): models that imitate chains with errors hardly suffer if an error stands by
itself, "static", and the chain goes on as if it were not there; they suffer far more, and from fewer,
if the error is carried on, "dynamic".

With a rate q of false steps, a dynamic chain of k steps ends right with a probability of about (1 -
q)^k. A model that imitates q as it is, step for step, is right as often: that is the line to compare
with. One that takes the likeliest number each time (greedy) need not be.

    true       25, 90, 75, 61, </think><answer>61        5 squared four times modulo 107
    static     25, 13, 75, 61, </think><answer>61        the 13 is false, what follows it is not; the answer is the true one
    dynamic    25, 13, 62, 99, </think><answer>99        from the false 13 on every step is right again, and so the answer is not

The setting: iterated squaring modulo 107, two to six times, a chain in every demonstration, 2 layers of
width 64 (small.py); a step is false with probability q, and then any other number. After it GRPO from
the answer alone. Results: docs/noisy_chains.{md,json,png}.
"""
import re

from cells import main, spread

FULL = {"seeds": (0, 1, 2), "rates": (0.0, 0.01, 0.05, 0.2), "kinds": ("static", "dynamic"), "sft": 250, "steps": 20, "prompts": 32,
        "problems": 80, "n": 16}
QUICK = FULL | {"seeds": (0,), "rates": (0.0, 0.2), "problems": 40}


def make_task(kind, q):
    """Iterated squaring whose demonstrations have false steps at a rate q."""
    from tasks.iterated_squaring import IteratedSquaring, IteratedSquaringOptions

    class Noisy(IteratedSquaring):
        def demonstration(self, problem, rng):
            _, p, r, k = problem.key
            squares = corrupted(r, k, p, kind, q, rng)
            answer = squares[-1] if kind == "dynamic" else problem.answer
            return f"<think>{''.join(f'{n}, ' for n in squares)}</think><answer>{answer}</answer>"

    task = Noisy(IteratedSquaringOptions(p=107, min_k=2, max_k=6, cot="on"))
    task.name = "iterated_squaring"
    return task


def corrupted(r, k, p, kind, q, rng):
    """k squares modulo p, one after another, false ones at a rate q. rng: random.Random. Static: the next step goes on
    from the true one."""
    true, before, found = r, r, []
    for _ in range(k):
        true = true * true % p
        right = before * before % p if kind == "dynamic" else true
        before = (right + 1 + int(rng.random() * (p - 1))) % p if rng.random() < q else right
        found.append(before)
    return found


def step_errors(text, r, p):
    """A chain that begins at r, as it was written -> (false steps, steps), each judged from the one before it.

    >>> step_errors("<think>25, 13, 62, </think><answer>62</answer>", 5, 107), step_errors("<think>25, 90", 5, 107)
    ((1, 3), (0, 1))
    """
    steps = [int(n) for n in re.findall("([0-9]+), ", text)]
    return sum(a * a % p != b for a, b in zip([r, *steps], steps)), len(steps)


def measure(model, task, plan):
    """-> pass@1 at temperature 1, greedy accuracy, the share of false steps in its chains, on the test split."""
    import torch
    import evaluate, sample
    problems = evaluate.fixed_problems(task, "test", plan["problems"])
    rollout = sample.collect(model, task, problems, sample.SamplingConfig(group_size=plan["n"]), torch.Generator().manual_seed(0))
    texts = zip(rollout.problems, rollout.completions(task.tokenizer))
    false, steps = map(sum, zip(*(step_errors(text, p.key[2], p.key[1]) for p, text in texts)))
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
    import small
    # without noise the two kinds are one
    grid = [(kind, q) for kind in plan["kinds"] for q in plan["rates"] if q or kind == plan["kinds"][0]]
    found = get([(kind, q, seed) for kind, q in grid for seed in plan["seeds"]])
    lines = ["| noise | q | right demonstrations | imitation: pass@1 | greedy | false steps | after RL: pass@1 | greedy "
             "| false steps |", "|---" * 9 + "|"]
    for kind, q in grid:
        each = [found[kind, q, seed] for seed in plan["seeds"]]
        cells = [spread(e[when][what] for e in each) for when in ("before", "after") for what in ("pass@1", "greedy", "false")]
        right = sum(e["demonstrations"] for e in each) / len(each)
        lines.append(f"| {kind if q else 'none'} | {q:g} | {right:.3f} | {' | '.join(cells)} |")
    lines.append(f"\nSeeds {', '.join(map(str, plan['seeds']))}, mean (lowest to highest); {plan['problems']} test problems, "
                 f"{plan['n']} samples each. A step is judged from the one before it, so in a static chain the step after a false "
                 "one counts as false too. [What it means](claims.md).")
    panels = []
    for when, title in (("before", "imitation"), ("after", "after GRPO")):
        curves = {}
        for kind in plan["kinds"]:
            cells = [[found[kind if q else plan["kinds"][0], q, seed] for seed in plan["seeds"]] for q in plan["rates"]]
            for what in ("pass@1", "greedy"):
                curves[f"{kind}, {what}"] = small.band(plan["rates"], [[e[when][what] for e in each] for each in cells])
        panels.append({"title": f"{title}; bands: lowest to highest seed", "x": "q: rate of false steps in the demonstrations",
                       "y": "share of right answers on test", "curves": curves})
    return "\n".join(lines), panels


if __name__ == "__main__":
    main(__file__, __doc__, cell, report, FULL, QUICK)
