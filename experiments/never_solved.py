"""What the warm start never solves: does reinforcement learning?

    python experiments/never_solved.py            about 5 minutes on one core; goes on cell by cell where it was stopped
    python experiments/never_solved.py --quick    3 minutes, its warm start included: one seed, one world

The claim (arXiv:2504.13837): no right sample, no learning. What
reinforcement learning solves, its base could solve with more tries. Never is a matter of how often one
asks:

    0 right ones of n say, with 95 %, that p < 3 / n                     the rule of three: (1 - 3/n)^n = 0.05

So the zeros of the warm start, 0 of n, are asked n times again: the warm start once more (how many are
zeros by bad luck?), random legal search with one attempt a sample, the policy after RL on other
problems, and one after RL on the zeros alone. An interval over the zeros of all seeds together (Wilson)
stands beside each.

The setting: countdown without thinking (small.py): with three numbers, where RL learns, and with four
and any target that can be reached, where right samples are rare. The zeros are from the training split,
for one policy trains on them alone; the other one hardly meets them.
Results: docs/never_solved.{md,json,png}.
"""
from cells import main, spread

# options of the task, steps of imitation, problems asked, n, steps of GRPO, its rate
WORLDS = {"three": ({"max_number": 9}, 300, 400, 64, 60, 1e-3),
          "four": ({"numbers": 4, "max_number": 9, "targets": "reachable"}, 200, 120, 128, 40, 3e-4)}
FULL = {"seeds": (0, 1, 2), "worlds": WORLDS}
QUICK = {"seeds": (0,), "worlds": {"three": ({"max_number": 9}, 300, 200, 32, 20, 1e-3)}}
ASKED = ("the warm start again", "random search", "after RL on other problems", "after RL on these alone")


def cell(folder, plan, world, seed):
    """-> right answers of each zero of the warm start among n, by who is asked; pass@1 where each policy was trained."""
    import random
    import small, tasks
    from tasks.countdown import random_attempt
    options, sft, pool, n, steps, lr = plan["worlds"][world]
    task, rng = tasks.load("countdown", cot="off", attempts=1, **options), random.Random(0)
    words = "-".join(["direct", *map(str, options.values()), str(sft)])
    problems = list({p.key: p for p in (task.sample_problem(rng) for _ in range(pool))}.values())
    warm, _ = small.kept(words, task, small.imitate(task, seed, sft), seed)
    first = small.right_counts(warm, task, problems, n)
    never = [problem for problem, c in zip(problems, first) if c == 0]
    result = {"problems": len(problems), "zeros": len(never), "trained": [sum(first) / n / len(problems), None], "asked": [
        small.right_counts(warm, task, never, n, seed=1),
        [sum(random_attempt(p.key[1:-1], rng)[1] == p.answer for _ in range(n)) for p in never]]}
    for train_on in (None, never):
        make = small.reinforce(task, seed, warm, steps=steps, prompts=32, lr=lr, problems=train_on)
        place = f"{words}-grpo-{steps}-{lr}" + (f"-zeros-{pool}-{n}" if train_on else "")
        model, lines = small.kept(place, task, make, seed)
        result["asked"].append(small.right_counts(model, task, never, n, seed=1))
        result["trained"].append(sum(line["accuracy"] for line in lines[-10:]) / len(lines[-10:]))
    return result


def solved(counts):
    """Right answers of each problem, a list for each seed -> share solved at least once of all together, [low, high],
    share by seed.

    >>> solved([[0, 2], [0, 1]])[::2]
    (0.5, [0.5, 0.5])
    """
    from evaluate import wilson
    hits = [c > 0 for right in counts for c in right]
    share = sum(hits) / max(len(hits), 1)
    return share, wilson(share, max(len(hits), 1)), [sum(c > 0 for c in right) / max(len(right), 1) for right in counts]


def report(folder, plan, get):
    seeds = plan["seeds"]
    found = get([(world, seed) for world in plan["worlds"] for seed in seeds])
    lines = ["| zeros of the warm start | asked as often again | solves at least once | 95 % interval | seeds | right per sample "
             "| pass@1 where it was trained |", "|---" * 7 + "|"]
    panels = []
    for world, (_, _, _, n, _, _) in plan["worlds"].items():
        each, curves = [found[world, seed] for seed in seeds], {}
        zeros, problems = (sum(e[name] for e in each) for name in ("zeros", "problems"))
        for i, who in enumerate(ASKED):
            counts, trained = [e["asked"][i] for e in each], [e["trained"][i] for e in each]
            share, (low, high), by_seed = solved(counts)
            rate = sum(map(sum, counts)) / max(zeros, 1) / n
            cells = [f"{world} numbers: {zeros} of {problems}, 0 of {n}", who, f"{share:.3f}", f"{low:.3f} to {high:.3f}",
                     spread(by_seed), f"{rate:.4f}", "" if None in trained else spread(trained)]
            lines.append(f"| {' | '.join(cells)} |")
            every = [c for right in counts for c in right]
            curves[who] = (list(range(1, 9)), [sum(c >= k for c in every) / max(zeros, 1) for k in range(1, 9)])
        panels.append({"title": f"{world} numbers: {zeros} zeros, asked again", "x": f"right ones among {n}, at least",
                       "y": "share of the zeros", "curves": curves})
    lines.append(f"\nSeeds {', '.join(map(str, seeds))}: all zeros together, and by seed the mean (lowest to highest). Last "
                 "column: the warm start on all problems asked; the others over the last ten steps of GRPO. "
                 "[What it means](claims.md#never-right-before).")
    return "\n".join(lines), panels


if __name__ == "__main__":
    main(__file__, __doc__, cell, report, FULL, QUICK)
