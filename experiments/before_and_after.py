"""What was there before reinforcement learning, and what was not? Three claims on the same runs.

    python experiments/before_and_after.py            about 6 minutes on one core; goes on cell by cell where it was stopped
    python experiments/before_and_after.py --quick    3 minutes, its warm starts included: one seed

Claim b (arXiv:2503.20783, arXiv:2503.01307): a new attempt after a failed one, the check of one's own result, going back: these are there
before reinforcement learning, which makes more of some of them. Counted in the demonstrations, in the warm start and after RL.
Claim c (arXiv:2504.13837): the accuracy of a problem moves to 0 or to 1. With c of n samples of a problem right,

    within = mean of c (n - c) / (n (n - 1))                 E[p (1 - p)], without bias: the variance between samples of one problem
    share  = within / (mean p (1 - mean p))                  1: all problems are equally hard; 0: each is always or never solved

Claim d (arXiv:2504.13837; against it arXiv:2606.15455): what the base never solves, RL does not learn. Never is a matter of how often one
asks: 0 of n says with 95 % that p < 3 / n. So the zeros of the warm start, 0 of n, are asked n times again: the warm start once more,
random legal search with one attempt a sample, the policy after RL on other problems, and after RL on the zeros alone.

b and c: countdown, three numbers up to 9, up to three attempts (demonstrations: two), 2 layers, width 64, GRPO (small.py). d: without thinking,
with three numbers, where RL learns, and with four and any target that can be reached, where right samples are rare. The zeros are from the
training split, for one policy trains on them alone; the other one hardly meets them.
Results: docs/before_and_after.{md,json,png}.
"""
from cells import main, spread

# of d: options of the task, demonstrations imitated / 64, problems asked, n, steps of GRPO, its rate
WORLDS = {"three": ({"max_number": 9}, 300, 400, 64, 60, 1e-3),
          "four": ({"numbers": 4, "max_number": 9, "targets": "reachable"}, 200, 120, 128, 40, 3e-4)}
FULL = {"seeds": (0, 1, 2), "sft": 450, "steps": 30, "problems": 100, "n": 64, "worlds": WORLDS}
QUICK = {"seeds": (0,), "sft": 450, "steps": 15, "problems": 40, "n": 32, "worlds": {"three": ({"max_number": 9}, 300, 200, 32, 20, 1e-3)}}
HABITS = {"attempts": "attempts", "marks": "correct marks", "again": "a failed attempt is followed by another one",
          "back": "which keeps its first step", "same": "which is the same", "rescued": "right answers after a failed attempt"}


def habits(task, problem, text):
    """Count what a completion does -> dict. attempts: marked; marks: with the true mark; failed: marked as failed; again: failed, and
    another attempt begins; back: that one is complete and begins with the same step; same: it is the same; right; rescued: right, and the
    first attempt was marked as failed."""
    *lines, rest = text.split("<think>")[-1].split("</think>")[0].split("\n")
    attempts = [line.rpartition(", ")[0] for line in lines]
    said = [line.endswith("found") for line in lines]
    true = [task.check_attempt(problem, attempt) == problem.answer for attempt in attempts]
    pairs = [(one, two) for one, two, found in zip(attempts, attempts[1:], said) if not found]
    right = task.verify(problem, text)
    return {"attempts": len(lines), "marks": sum(a == b for a, b in zip(said, true)), "failed": said.count(False),
            "again": len(pairs) + (bool(rest) and said[-1:] == [False]), "complete": len(pairs),
            "back": sum(one.split(", ")[0] == two.split(", ")[0] for one, two in pairs), "same": sum(one == two for one, two in pairs),
            "right": int(right), "rescued": int(right and said[:1] == [False])}


def shares(counted):
    """A list of what `habits` found -> the columns of the table."""
    total = {name: sum(each[name] for each in counted) for name in counted[0]}
    over = {"attempts": len(counted), "marks": total["attempts"], "again": total["failed"], "back": total["complete"],
            "same": total["complete"], "rescued": total["right"]}
    return {name: total[name] / max(over[name], 1) for name in HABITS}


def within(right, n):
    """Right answers of each problem among n -> (the share of the variance that lies within problems, share of problems at 0, at n).

    >>> within([0, 4, 0, 4], 4), within([2, 2], 4)[0] > 1
    ((0.0, 0.5, 0.5), True)
    """
    mean = sum(right) / n / len(right)
    inside = sum(c * (n - c) / (n * (n - 1)) for c in right) / len(right)
    return inside / (mean * (1 - mean)) if 0 < mean < 1 else 0.0, right.count(0) / len(right), right.count(n) / len(right)


def cell(folder, plan, what, seed):
    """what: "runs", for b and c, or a world of d."""
    import random
    import evaluate, sample, small, tasks, torch
    if what != "runs":
        return zeros(plan, seed, *plan["worlds"][what])
    task = tasks.load("countdown", max_number=9, attempts=2)
    problems, rng = evaluate.fixed_problems(task, "test", plan["problems"]), random.Random(0)
    warm, _ = small.kept(f"thinking-{plan['sft']}", task, small.imitate(task, seed, plan["sft"]), seed)
    after, _ = small.kept(f"thinking-{plan['sft']}-grpo-{plan['steps']}", task,
                          small.reinforce(task, seed, warm, steps=plan["steps"], prompts=32), seed)
    result = {"demonstrations": {"habits": shares([habits(task, p, task.demonstration(p, rng)) for p in problems for _ in range(16)])}}
    for name, model in (("warm start", warm), ("after RL", after)):
        generator, counted, right = torch.Generator().manual_seed(0), [], []
        for i in range(0, len(problems), 16):
            rollout = sample.collect(model, task, problems[i:i + 16], sample.SamplingConfig(group_size=plan["n"]), generator)
            counted += [habits(task, p, text) for p, text in zip(rollout.problems, rollout.completions(task.tokenizer))]
            right += rollout.right(task).view(-1, plan["n"]).sum(1).tolist()
        result[name] = {"habits": shares(counted), "right": right}
    return result


def zeros(plan, seed, options, sft, pool, n, steps, lr):
    """Which problems has the warm start never solved, and who solves them? -> right answers of each zero among n, by who was asked."""
    import random
    import evaluate, small, tasks
    from tasks.countdown import random_attempt
    task, rng = tasks.load("countdown", cot="off", attempts=1, **options), random.Random(0)
    words = "-".join(["direct", *map(str, options.values()), str(sft)])
    problems = list({p.key: p for p in (task.sample_problem(rng) for _ in range(pool))}.values())
    warm, _ = small.kept(words, task, small.imitate(task, seed, sft), seed)
    first = small.right_counts(warm, task, problems, n)
    never = [problem for problem, c in zip(problems, first) if c == 0]
    asked = {"the warm start again": small.right_counts(warm, task, never, n, seed=1),
             "random search": [sum(random_attempt(p.key[1:-1], rng)[1] == p.answer for _ in range(n)) for p in never]}
    result = {"problems": len(problems), "pass@1": sum(first) / n / len(problems), "asked": asked}
    test = evaluate.fixed_problems(task, "test", plan["problems"])
    result["warm start"] = {"right": small.right_counts(warm, task, test, plan["n"])}
    for name, train_on in (("after RL on other problems", None), ("after RL on these alone", never)):
        make = small.reinforce(task, seed, warm, steps=steps, prompts=32, lr=lr, problems=train_on)
        place = f"{words}-grpo-{steps}-{lr}" + (f"-zeros-{pool}-{n}" if train_on else "")
        model, lines = small.kept(place, task, make, seed)
        asked[name] = small.right_counts(model, task, never, n, seed=1)
        if not train_on:
            result["after RL"] = {"right": small.right_counts(model, task, test, plan["n"])}  # for c
        result[name] = sum(line["accuracy"] for line in lines[-10:]) / len(lines[-10:])  # of what it trains on, at the end
    return result


def report(folder, plan, get):
    from evaluate import wilson
    seeds, n = plan["seeds"], plan["n"]
    found = get([("runs", seed) for seed in seeds])
    hard = get([(world, seed) for world in plan["worlds"] for seed in seeds])
    lines = ["| " + " | ".join(["b", *HABITS.values()]) + " |", "|---" * (1 + len(HABITS)) + "|"]
    for who in ("demonstrations", "warm start", "after RL"):
        each = [found["runs", seed][who]["habits"] for seed in seeds]
        lines.append(f"| {who} | " + " | ".join(spread((e[name] for e in each), ".2f") for name in HABITS) + " |")
    lines += ["", f"| c | | pass@1 | problems at 0 of {n} | at {n} of {n} | share of the variance within problems |", "|---" * 6 + "|"]
    bins, panels, curves = 10, [], {}
    worlds = {"thinking": {seed: found["runs", seed] for seed in seeds}} | {
        f"direct, {world} numbers": {seed: hard[world, seed] for seed in seeds} for world in plan["worlds"]}
    for setting, cells in worlds.items():
        for who in ("warm start", "after RL"):
            counts = [cells[seed][who]["right"] for seed in seeds]
            inside, low, high = zip(*(within(right, n) for right in counts))
            lines.append(f"| {setting} | {who} | {spread(sum(right) / n / len(right) for right in counts)} | {spread(low)} | {spread(high)} "
                         f"| {spread(inside)} |")
            shares = [[sum(min(int(c / n * bins), bins - 1) == i for c in right) / len(right) for right in counts] for i in range(bins)]
            curves[f"{who}, {setting}"] = ([(i + 0.5) / bins for i in range(bins)], [sum(v) / len(v) for v in shares],
                                           list(map(min, shares)), list(map(max, shares)))
    panels.append({"title": "c: how often is a problem solved? Bands: lowest to highest seed", "x": f"share of right answers among {n}, in tenths", "y": "share of problems",
                   "curves": curves})
    lines += ["", "| d | zeros of the warm start | who is asked as often again | solves at least once | 95 % interval | seeds | right answers per "
              "sample | pass@1 on what it was trained on |", "|---" * 8 + "|"]
    for world, (_, _, _, asked, _, _) in plan["worlds"].items():
        each = [hard[world, seed] for seed in seeds]
        total = sum(len(h["asked"]["random search"]) for h in each)
        for who in each[0]["asked"]:
            counts = [h["asked"][who] for h in each]
            share = sum(c > 0 for right in counts for c in right) / max(total, 1)
            low, high = wilson(share, max(total, 1))
            solved = spread(sum(c > 0 for c in right) / max(len(right), 1) for right in counts)
            trained = spread(h.get(who, h["pass@1"]) for h in each) if who != "random search" else ""
            lines.append(f"| {world} numbers | {total} of {sum(h['problems'] for h in each)}, 0 of {asked} | {who} | {share:.3f} | {low:.3f} to {high:.3f} "
                         f"| {solved} | {sum(map(sum, counts)) / max(total, 1) / asked:.4f} | {trained} |")
    lines.append(f"\nSeeds {', '.join(map(str, seeds))}, mean (lowest to highest). b, c: {plan['problems']} test problems, {n} samples each. d, last "
                 "column: the warm start on all problems asked; the others over the last ten steps of GRPO.")
    return "\n".join(lines), panels


if __name__ == "__main__":
    main(__file__, __doc__, cell, report, FULL, QUICK)
