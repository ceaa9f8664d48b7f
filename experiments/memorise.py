"""Does imitation memorise where reinforcement learning generalises?

    python experiments/memorise.py            about 8 minutes of one core; goes on cell by cell where it was stopped
    python experiments/memorise.py --broad    13 minutes: the same after a warm start that has met all three kinds of problems
    python experiments/memorise.py --quick    3 minutes, its warm start included: one seed

The claim (arXiv:2501.17161): after the same warm start, imitation gets better on what it is trained on
and worse on a variant of the task; reinforcement learning from the answer gets better on both. With the
gain of a policy over its warm start on the trained and on the new problems,

    transfer = gain on new problems / gain on trained ones        1: nothing was learned by heart; negative: it unlearned something

The setting: countdown, three numbers up to 9 in training, up to three attempts, 2 layers of width 64
(small.py). Asked are test problems of the same kind; with a number from 10 to 13, which the model knows
as a result but has never been given; and with four numbers. With --broad the warm start has seen all
of them, as the pretraining in the paper has. From there go on with three numbers up to 9, for as many
seconds of the processor:
    GRPO                    the rule alone
    more imitation          of the same demonstrations
    imitation of solutions  planted solutions, every one right: an imitation that gains something, so that it has something to lose
    ... gently              the same with GRPO's optimizer and rate, AdamW and no Muon, in place of the warm start's
    imitation of a few      the same solutions of 64 problems, over and over: the imitation that should memorise
Random legal search with as many attempts stands beside them, for new problems need not be as hard.
Results: docs/memorise.{md,json,png}, docs/memorise-broad.{md,json,png}.
"""
from cells import main, spread

ASKED = {"trained": "trained: three, up to 9", "numbers": "new numbers: 10 to 13", "four": "four numbers"}
ARMS = {"warm": "warm start", "grpo": "GRPO", "more": "more imitation", "solutions": "imitation of solutions",
        "few": "imitation of a few", "gentle": "imitation of solutions, gently"}
KINDS = {"trained": {"max_number": 9}, "numbers": {}, "four": {"numbers": 4, "max_number": 9}}  # options of the task
FULL = {"seeds": (0, 1, 2), "thinking": (450, 30, 3e-4), "problems": 100, "n": 16, "few": 64, "kinds": ("trained",)}
QUICK = FULL | {"seeds": (0,), "thinking": (450, 15, 3e-4), "problems": 40}


def broad(plan):
    """the warm start has met the other kinds of problems, too"""
    sft = 1200 if len(plan["seeds"]) > 1 else 600  # more to learn; --quick has one seed, and three minutes
    return plan | {"thinking": (sft, *plan["thinking"][1:]), "kinds": tuple(KINDS)}


def teacher_of(kinds):
    """A task whose demonstrations are of all these kinds, equally often."""
    import tasks
    several = [tasks.load("countdown", attempts=2, **KINDS[kind]) for kind in kinds]
    task = tasks.load("countdown", attempts=2, max_number=9)
    if len(several) > 1:
        task.sample_problem = lambda rng, split: rng.choice(several).sample_problem(rng, split)
    return task


def asked(name, count):
    """-> (task, problems) of one kind of question: `count` different ones of the test split."""
    import evaluate, tasks
    task = tasks.load("countdown", attempts=2, **KINDS[name])
    problems = evaluate.fixed_problems(task, "test", 10 * count if name == "numbers" else count)
    new = [p for p in problems if name != "numbers" or max(p.key[1:-1]) > 9]
    return task, new[:count]


def solver(few, seed):
    """A task whose demonstrations are solutions; of `few` training problems alone, unless that is 0."""
    import random
    import tasks
    task = tasks.load("countdown", max_number=9, attempts=1, expert_share=1.0)
    if few:
        rng = random.Random(f"few {seed}")
        problems = [task.sample_problem(rng) for _ in range(few)]
        task.sample_problem = lambda rng, split: rng.choice(problems)
    return task


def policy_of(plan, arm, seed):
    """-> the model of this arm, trained as far as that is still to be done."""
    import small, tasks
    task, (sft, steps, lr) = tasks.load("countdown", max_number=9, attempts=2), plan["thinking"]
    name = "-".join([f"thinking-{sft}", *plan["kinds"][1:]])
    warm, seconds = small.kept(name, task, small.imitate(teacher_of(plan["kinds"]), seed, sft), seed)
    if arm == "warm":
        return warm
    learn = small.reinforce(task, seed, warm, steps=steps, prompts=32, lr=lr)
    grpo, lines = small.kept(f"{name}-grpo-{steps}-{lr}", task, learn, seed)
    if arm == "grpo":
        return grpo
    teacher = task if arm == "more" else solver(plan["few"] if arm == "few" else 0, seed)
    more = round(lines[-1]["seconds"] / (seconds / sft))  # as many steps of imitation as GRPO's seconds hold

    def make(model):
        model.load_state_dict(warm.state_dict())
        gentle = {"sft_lr": lr, "sft_muon_lr": 0.0} if arm == "gentle" else {}
        return small.imitate(teacher, f"{seed} more", more, **gentle)(model)
    return small.kept(f"{name}-{arm}-{steps}", task, make, seed)[0]


def cell(folder, plan, arm, seed):
    import evaluate
    policy, result = policy_of(plan, arm, seed), {}
    for name in ASKED:
        task, problems = asked(name, plan["problems"])
        judged = evaluate.sample_and_judge(policy, task, problems, plan["n"], batch=1024)
        mean = lambda of: sum(j[of] for j in judged) / len(judged)
        result[name] = {"pass@1": mean("right"), "attempts": mean("attempts"), "legal": mean("legal") / max(mean("attempts"), 1e-9),
                        "search": task.random_search(problems, max(1.0, mean("attempts")), searches=32), "problems": len(problems)}
    return result


def transfer(before, after, new):
    """The gain on `new` problems for one of gain on the trained ones; None where hardly anything was gained there.

    >>> transfer({"trained": 0.25, "new": 0.25}, {"trained": 0.5, "new": 0.375}, "new")
    0.5
    """
    gain = after["trained"] - before["trained"]
    return (after[new] - before[new]) / gain if gain > 0.02 else None


def report(folder, plan, get):
    import small
    seeds = plan["seeds"]
    get([("warm", seed) for seed in seeds])
    get([("grpo", seed) for seed in seeds])  # the others last as long as these
    found = get([(arm, seed) for arm in ARMS for seed in seeds])
    lines = ["| | " + " | ".join(f"{title} | random search, as many attempts" for title in ASKED.values())
             + " | transfer to new numbers | to four |", "|---" * (3 + 2 * len(ASKED)) + "|"]
    for arm, title in ARMS.items():
        cells = [spread(found[arm, seed][name][what] for seed in seeds) for name in ASKED for what in ("pass@1", "search")]
        scores = lambda arm, seed: {name: found[arm, seed][name]["pass@1"] for name in ASKED}
        for new in ("numbers", "four"):
            moved = [transfer(scores("warm", seed), scores(arm, seed), new) for seed in seeds]
            cells.append("–" if arm == "warm" or None in moved else spread(moved, ".2f"))
        lines.append(f"| {title} | {' | '.join(cells)} |")
    count = ", ".join(str(found["warm", seeds[0]][name]["problems"]) for name in ASKED)
    lines.append(f"\n{count} test problems, {plan['n']} samples each; seeds {', '.join(map(str, seeds))}, mean (lowest to "
                 "highest). Transfer: gain on the new problems for one of gain on the trained ones; – where some seed gained "
                 "less than 0.02 there. "
                 "[What it means](claims.md).")
    curves = {title: small.band([0, 1, 2], [[found[arm, seed][name]["pass@1"] for seed in seeds] for name in ASKED])
              for arm, title in ARMS.items()}
    return "\n".join(lines), [{"title": "pass@1; bands: lowest to highest seed", "x": "0: trained, 1: new numbers, 2: four numbers",
                               "y": "share of right answers", "curves": curves}]


if __name__ == "__main__":
    main(__file__, __doc__, cell, report, FULL, QUICK, broad=broad)
