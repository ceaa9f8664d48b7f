"""What was there before reinforcement learning, and what does it do to a problem? Two claims.

    python experiments/before_and_after.py            about 5 minutes on one core; goes on cell by cell where it was stopped
    python experiments/before_and_after.py --direct   a minute or two more: c also for answers without thinking
    python experiments/before_and_after.py --quick    3 minutes, its warm start included: one seed

Claim b (arXiv:2503.20783, arXiv:2503.01307): a new attempt after a failed one, the check of one's own
result, going back: these are there before reinforcement learning, which makes more of some of them.
Counted in the demonstrations, in the warm start and after RL.
Claim c (arXiv:2504.13837): the accuracy of a problem moves to 0 or to 1. With c of n samples of a
problem right,

    within = mean of c (n - c) / (n (n - 1))                 E[p (1 - p)], without bias: the variance between samples of one problem
    share  = within / (mean p (1 - mean p))                  1: all problems are equally hard; 0: each is always or never solved

The setting: countdown, three numbers up to 9, 2 layers, width 64 (small.py), GRPO. With thinking, up to
three attempts (demonstrations: at most two), for b and c; and without, an answer at once, for c: there
more steps of GRPO fit into a minute. Results: docs/before_and_after.{md,json,png}.
"""
from cells import main, spread

FULL = {"seeds": (0, 1, 2), "problems": 100, "n": 64, "settings": ("thinking",),
        "thinking": (450, 30, 3e-4), "direct": (300, 60, 1e-3)}  # steps of imitation, steps of GRPO, its rate
QUICK = FULL | {"seeds": (0,), "problems": 40, "n": 32, "thinking": (450, 15, 3e-4)}
HABITS = {"attempts": "attempts", "marks": "correct marks", "again": "a failed attempt is followed by another one",
          "back": "which keeps its first step", "same": "which is the same", "rescued": "right answers after a failed attempt"}


def direct(plan):
    """c also for answers without thinking"""
    return plan | {"settings": ("thinking", "direct")}


def habits(task, problem, text):
    """Count what a completion does -> dict. attempts: marked; marks: with the true mark; failed: marked as failed;
    again: failed, and another attempt begins; back: that one is complete and begins with the same step; same: it is
    the same; right; rescued: right, and the first attempt was marked as failed."""
    *lines, rest = text.split("<think>")[-1].split("</think>")[0].split("\n")
    attempts = [line.rpartition(", ")[0] for line in lines]
    said = [line.endswith("found") for line in lines]
    true = [task.check_attempt(problem, attempt) == problem.answer for attempt in attempts]
    pairs = [(one, two) for one, two, found in zip(attempts, attempts[1:], said) if not found]
    right = task.verify(problem, text)
    return {"attempts": len(lines), "marks": sum(a == b for a, b in zip(said, true)), "failed": said.count(False),
            "again": len(pairs) + (bool(rest) and said[-1:] == [False]), "complete": len(pairs),
            "back": sum(one.split(", ")[0] == two.split(", ")[0] for one, two in pairs),
            "same": sum(one == two for one, two in pairs),
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


def cell(folder, plan, setting, seed):
    import random
    import evaluate, sample, small, tasks, torch
    # the names are those of gap.py, never_solved.py and memorise.py, which use the same policies
    options, name = ({"attempts": 2}, "thinking") if setting == "thinking" else ({"attempts": 1, "cot": "off"}, "direct-9")
    task, (sft, steps, lr) = tasks.load("countdown", max_number=9, **options), plan[setting]
    warm, _ = small.kept(f"{name}-{sft}", task, small.imitate(task, seed, sft), seed)
    learn = small.reinforce(task, seed, warm, steps=steps, prompts=32, lr=lr)
    after, _ = small.kept(f"{name}-{sft}-grpo-{steps}-{lr}", task, learn, seed)
    problems, rng = evaluate.fixed_problems(task, "test", plan["problems"]), random.Random(0)
    demonstrations = [habits(task, p, task.demonstration(p, rng)) for p in problems for _ in range(16)]
    result = {"demonstrations": {"habits": shares(demonstrations)}}
    for who, model in (("warm start", warm), ("after RL", after)):
        generator, counted, right = torch.Generator().manual_seed(0), [], []
        for i in range(0, len(problems), 16):
            group = sample.SamplingConfig(group_size=plan["n"])
            rollout = sample.collect(model, task, problems[i:i + 16], group, generator)
            counted += [habits(task, p, text) for p, text in zip(rollout.problems, rollout.completions(task.tokenizer))]
            right += rollout.right(task).view(-1, plan["n"]).sum(1).tolist()
        result[who] = {"habits": shares(counted), "right": right}
    return result


def report(folder, plan, get):
    import small
    seeds, n, tenths, curves = plan["seeds"], plan["n"], range(10), {}
    found = get([(setting, seed) for setting in plan["settings"] for seed in seeds])
    lines = ["| " + " | ".join(["b", *HABITS.values()]) + " |", "|---" * (1 + len(HABITS)) + "|"]
    for who in ("demonstrations", "warm start", "after RL"):
        each = [found["thinking", seed][who]["habits"] for seed in seeds]
        lines.append(f"| {who} | " + " | ".join(spread((e[name] for e in each), ".2f") for name in HABITS) + " |")
    lines += ["", f"| c | | pass@1 | problems at 0 of {n} | at {n} of {n} | share of the variance within problems |",
              "|---" * 6 + "|"]
    for setting in plan["settings"]:
        for who in ("warm start", "after RL"):
            counts = [found[setting, seed][who]["right"] for seed in seeds]
            inside, low, high = zip(*(within(right, n) for right in counts))
            mean = [sum(right) / n / len(right) for right in counts]
            lines.append(f"| {setting} | {who} | {' | '.join(map(spread, (mean, low, high, inside)))} |")
            parts = [[sum(min(10 * c // n, 9) == tenth for c in right) / len(right) for right in counts] for tenth in tenths]
            curves[f"{who}, {setting}"] = small.band([(tenth + 0.5) / 10 for tenth in tenths], parts)
    lines.append(f"\nSeeds {', '.join(map(str, seeds))}, mean (lowest to highest); {plan['problems']} test problems, {n} samples "
                 "each. [What it means](claims.md#before-and-after).")
    return "\n".join(lines), [{"title": "c: how often is a problem solved? Bands: lowest to highest seed",
                               "x": f"share of right answers among {n}, in tenths", "y": "share of problems", "curves": curves}]


if __name__ == "__main__":
    main(__file__, __doc__, cell, report, FULL, QUICK, direct=direct)
