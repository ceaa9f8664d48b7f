"""What does a better teacher buy, and what stops it? Imitation, then GRPO, then a teacher that corrects the policy's own mistakes.

    python experiments/better_teacher.py            an hour of one core; goes on cell by cell where it was stopped
    python experiments/better_teacher.py --quick    3 minutes, far too short to learn the task

The claim (arXiv:1011.0686): who imitates demonstrations meets, after the first mistake of its own, states that no demonstration shows, and
one mistake leads to the next; a teacher that says what would have been right in the learner's own states mends that.

The setting: the default task, and a teacher that plants a solution behind up to five failed attempts. Four policies, one key-value head:
  sft      1,000 steps of imitation
  grpo     300 steps of GRPO on it, the rate falling to nothing
  planted  in their place 300 steps that imitate planted solutions alone, with the batches and rates of the next one: its control
  dagger   300 steps of DAgger (methods/dagger.py): the same planted solutions, behind the policy's own failed attempts
Measured on different problems of test and of train, and attempt by attempt: how often it hits the target, how often it repeats an earlier
one of the same answer, all seeds together. The k-th attempt is made only where those before it have failed: on fewer and harder problems,
and on others in each policy. Rates of DAgger: the first that were tried. Results: docs/better_teacher.{md,json,png}.
"""
from cells import main, spread, train

TEACHER = ["--expert-share", 1, "--attempts", 6, "--n-kv-head", 1]
ARMS = {"sft": ("imitation", ["--algo", "sft"]), "grpo": ("then GRPO", ["--algo", "grpo", "--lr-schedule", "linear"]),
        "planted": ("or planted solutions", ["--algo", "dagger", "--keep", 0, "--lr-schedule", "linear"]),
        "dagger": ("or DAgger", ["--algo", "dagger", "--lr-schedule", "linear"])}
FULL = {"seeds": (0, 1, 2), "sft": 1000, "steps": 300, "problems": 500, "samples": 16, "attempts": 7}
QUICK = {"seeds": (0,), "sft": 100, "steps": 3, "problems": 50, "samples": 4, "attempts": 7}


def cell(folder, plan, arm, seed):
    """Train one policy, if it is not there yet, and measure it."""
    import torch
    import checkpoint, evaluate
    from sample import SamplingConfig, collect
    run = train(folder, f"{arm}-{seed}", "--seed", seed, "--sft-steps", plan["sft"], *TEACHER, *ARMS[arm][1],
                steps=None if arm == "sft" else plan["steps"])
    model, task, _ = checkpoint.load_run(run)
    result = {}
    for split in ("test", "train"):
        problems = evaluate.fixed_problems(task, split, plan["problems"])
        result[split] = evaluate.evaluate(model, task, problems, plan["samples"], (1, min(8, plan["samples"])))
        if split == "test":
            result["random"] = task.random_search(problems, result[split]["attempts"])
            rollout = collect(model, task, problems, SamplingConfig(group_size=1), torch.Generator().manual_seed(0))
            result["by_attempt"] = by_attempt(task, problems, rollout.completions(task.tokenizer), plan["attempts"])
    return result


def by_attempt(task, problems, texts, most):
    """-> for the first, second, ... attempt of an answer: [how many there are, how many hit the target, how many repeat an earlier one].

    >>> import tasks
    >>> task = tasks.load("countdown")
    >>> line = "7 - 5 = 2, 3 * 2 = 6, failed\\n"
    >>> by_attempt(task, [task.problem((3, 5, 7), 22)], [f"<think>{line}{line}5 * 3 = 15, 15 + 7 = 22, found\\n"], 4)
    [[1, 0, 0], [1, 0, 1], [1, 1, 0], [0, 0, 0]]
    """
    found = [[0, 0, 0] for _ in range(most)]
    for problem, text in zip(problems, texts):
        earlier = []
        for line in text.split("<think>")[-1].split("</think>")[0].split("\n")[:-1][:most]:
            steps, row = line.rpartition(", ")[0], found[len(earlier)]
            for k, count in enumerate((1, task.check_attempt(problem, steps) == problem.answer, steps in earlier)):
                row[k] += int(count)
            earlier.append(steps)
    return found


def report(folder, plan, get):
    import evaluate, tasks
    seeds, most = plan["seeds"], f"pass@{min(8, plan['samples'])}"
    get([("sft", seed) for seed in seeds])  # the warm starts, once
    found = get([(arm, seed) for arm in ARMS for seed in seeds])
    lines = [f"| | pass@1, test | pass@1, train | greedy | {most} | attempts | follow the rules | ended by themselves | random search |",
             "|---" * 9 + "|"]
    for arm, (title, _) in ARMS.items():
        each = [found[arm, seed] for seed in seeds]
        test = lambda name, form=".3f": spread((e["test"][name] for e in each), form)
        legal = spread(e["test"]["legal"] / (e["test"]["attempts"] or 1) for e in each)
        columns = [title, test("pass@1"), spread(e["train"]["pass@1"] for e in each), test("greedy"), test(most), test("attempts", ".2f"), legal,
                   test("finished", ".2f"), spread(e["random"] for e in each)]
        lines.append(f"| {' | '.join(columns)} |")
    task = tasks.load("countdown")
    test, known = (task.random_search(evaluate.fixed_problems(task, split, plan["problems"]), 1.0) for split in ("test", "train"))
    lines.append(f"\n{plan['problems']} different problems of each split, {plan['samples']} samples each; random search: with as many attempts. "
                 f"One random attempt is right in {test:.3f} of the test problems and in {known:.3f} of those of train.\n")
    numbers = range(1, plan["attempts"] + 1)
    lines += ["| attempt | " + " | ".join(f"{title}: hits, repeats" for title, _ in ARMS.values()) + " |", "|---" * (1 + len(ARMS)) + "|"]
    total = {arm: [[sum(counts) for counts in zip(*rows)] for rows in zip(*(found[arm, seed]["by_attempt"] for seed in seeds))] for arm in ARMS}
    shares = lambda n, hits, repeats: f"{hits / n:.2f}, {repeats / n:.2f} (of {n})" if n else "–"
    lines += [f"| {k} | " + " | ".join(shares(*total[arm][k - 1]) for arm in ARMS) + " |" for k in numbers]
    panel = lambda title, what: {"title": title, "x": "number of the attempt", "y": "share of these attempts", "curves": {
        ARMS[arm][0]: tuple(zip(*((k, row[what] / row[0]) for k, row in zip(numbers, total[arm]) if row[0]))) or ([], []) for arm in ARMS}}
    return "\n".join(lines), [panel("hits the target", 1), panel("repeats an earlier attempt", 2)]


if __name__ == "__main__":
    main(__file__, __doc__, cell, report, FULL, QUICK)
