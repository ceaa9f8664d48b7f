"""The recipe of distillation: filter a teacher's solutions, order them, end with the student's own. What does each step give?

    python experiments/distillation_recipe.py            about 10 minutes of one core; goes on cell by cell where it was stopped
    python experiments/distillation_recipe.py --quick    2 minutes, its warm start included

The claim (arXiv:2203.14465, 2501.12948 section 2.3.3, 2502.03387): a strong teacher's solutions that a rule accepts, that a process
reward model likes in every step, and that are short, shown from easy to hard, make a better student than as many unfiltered ones;
its own right samples make it better still.

    loss = - 1/N sum log pi(y_t | x, y_<t)       over the same number of examples in every row; what differs is which, and in which order

The setting: countdown, 0.1 million parameters. Student: the warm start. Teacher: the same after 40 steps of GRPO. A pool of
its samples; each row takes as many of them and trains as many optimizer steps, from the same warm start:
  any               whatever the teacher wrote                      rule        what the rule accepts
  rule, PRM         of these, the highest mean over steps of a PRM (verifier.py, on the teacher's samples)
  rule, short       of these, the shortest                          ... of each  the shortest of each problem, the second shortest, ...
  rule, order       as rule; problems that the teacher solves often come first
  all three         by PRM and length, a third left out by each; in that order
  all, then own     all three for half of the examples, then the student's own right samples for the other half
  demonstrations    the warm start's own, for as many examples: what more training alone gives
The rate of learning is the best of four for `rule`, on val with seed 0: `--cell 0 val 1e-4`, ...
Results: docs/distillation_recipe.{md,json,png}.
"""
import random

from cells import main, spread, train

SMALL = ["--n-layer", "2", "--n-embd", "64"]
ROWS = ("demonstrations", "any", "rule", "rule, PRM", "rule, short", "rule, short of each", "rule, order", "all three", "all, then own")
FULL = {"seeds": (0, 1, 2), "teacher": 40, "prm": 20, "pool": 768, "examples": 1024, "epochs": 2, "problems": 300, "samples": 8}
QUICK = {"seeds": (0,), "teacher": 10, "prm": 4, "pool": 96, "examples": 96, "epochs": 2, "problems": 50, "samples": 8}
GROUP, BATCH, LR = 8, 32, 3e-4


def draw(model, task, count, rng, generator):
    """GROUP samples of each of so many training problems -> Rollout."""
    import sample
    problems = [task.sample_problem(rng, "train") for _ in range(count)]
    return sample.join([sample.collect(model, task, problems[i:i + 64], sample.SamplingConfig(group_size=GROUP), generator)
                        for i in range(0, count, 64)])


def examples(rollout, task):
    """-> list of dicts, one a sample: ids (prompt and completion), start, right, length, problem, and how easy that is: the share of
    right samples."""
    right = rollout.right(task).float()
    easy = right.view(-1, GROUP).mean(1).repeat_interleave(GROUP).tolist()
    each = zip(rollout.tokens.tolist(), rollout.prompt_lengths.tolist(), rollout.lengths.tolist(), right.tolist(), easy)
    return [{"ids": ids[:n], "start": start, "right": bool(r), "length": n - start, "problem": k // GROUP, "easy": e}
            for k, (ids, start, n, r, e) in enumerate(each)]


def choose(pool, row, count, rng):
    """Which `count` of the pool a row trains on, in its order. A filter ranks what the rule accepts and keeps the upper end.

    >>> pool = [{"right": k < 6, "length": k, "prm": (0, 5, 3, 2, 0, 4, 9, 9)[k], "easy": k / 8} for k in range(8)]
    >>> [sorted(e["length"] for e in choose(pool, row, 2, random.Random(0))) for row in ("rule, short", "rule, PRM", "all three")]
    [[0, 1], [1, 5], [1, 2]]
    """
    pool = rng.sample([e for e in pool if e["right"] or row == "any"], sum(e["right"] or row == "any" for e in pool))
    by_prm, by_length = (lambda e: -e["prm"]), (lambda e: e["length"])
    if row == "all three":  # each filter leaves out as many
        pool = sorted(pool, key=by_prm)[:(len(pool) + count) // 2]
    if row in ("rule, PRM", "rule, short", "rule, short of each", "all three"):
        pool = sorted(pool, key=by_prm if row == "rule, PRM" else by_length)
    if row == "rule, short of each":
        place = [[e["problem"] for e in pool[:i]].count(e["problem"]) for i, e in enumerate(pool)]  # among those of its problem
        pool = [e for _, e in sorted(zip(place, pool), key=lambda pair: pair[0])]
    pool = pool[:count]
    return sorted(pool, key=lambda e: -e["easy"]) if row in ("rule, order", "all three") else rng.sample(pool, len(pool))


def imitate(model, task, rows, epochs, optimizer):
    """The warm start's step on examples, BATCH at a time, in their order."""
    import torch
    from sample import completion_mask
    from sft import sft_step
    for batch in [rows[i:i + BATCH] for i in range(0, len(rows), BATCH)] * epochs:
        longest = max(len(e["ids"]) for e in batch)
        tokens = torch.tensor([e["ids"] + [task.tokenizer.pad] * (longest - len(e["ids"])) for e in batch])
        mask = completion_mask(torch.tensor([e["start"] for e in batch]), torch.tensor([len(e["ids"]) for e in batch]), longest)
        sft_step(model, optimizer, tokens, mask, BATCH, max_norm=1.0)


def cell(folder, plan, seed, split="test", lr=LR):
    import torch
    import checkpoint, evaluate
    from model import make_optimizer
    from sft import demonstrations
    from verifier import scores_at, step_ends
    flags = ["--seed", seed, *SMALL]
    warm = train(folder, f"warm-{seed}", "--algo", "sft", *flags)
    grpo = train(folder, f"teacher-{seed}", "--algo", "grpo", "--init", warm, *flags, steps=plan["teacher"])
    prm = checkpoint.load_verifier(train(folder, f"prm-{seed}", "--algo", "prm", "--init", grpo, *flags, steps=plan["prm"]))
    rng, generator = random.Random(f"recipe {seed}"), torch.Generator().manual_seed(int(seed))
    teacher, task, _ = checkpoint.load_run(grpo)
    problems = evaluate.fixed_problems(task, split, plan["problems"])
    measure = lambda model: evaluate.evaluate(model, task, problems, plan["samples"])
    rollout = draw(teacher, task, plan["pool"], rng, generator)
    pool, ends = examples(rollout, task), step_ends(rollout, task)
    places = [row.nonzero()[:, 0].tolist() for row in ends]
    for e, scores in zip(pool, scores_at(prm, [e["ids"] for e in pool], places)):
        e["prm"] = float(scores.sigmoid().mean())
    found = {"teacher": measure(teacher), "student": measure(checkpoint.load_run(warm)[0])}
    for row in ROWS if split == "test" else ("rule",):
        student, _, _ = checkpoint.load_run(warm)
        optimizer, M, spent = make_optimizer(student, float(lr)), plan["examples"], rollout.sampled_tokens
        if row == "demonstrations":
            tokens, mask = demonstrations(task, M * plan["epochs"], rng)
            starts, lengths = mask.int().argmax(1).tolist(), mask.sum(1).tolist()
            chosen = [{"ids": ids[:k + n], "start": k, "length": n} for ids, k, n in zip(tokens.tolist(), starts, lengths)]
            imitate(student, task, chosen, 1, optimizer)
        else:
            chosen = choose(pool, row.replace("all, then own", "all three"), M // 2 if row == "all, then own" else M, rng)
            imitate(student, task, chosen, plan["epochs"], optimizer)
        if row == "all, then own":
            own = []
            while len(own) < M // 2 and spent < 2 * rollout.sampled_tokens:  # it may cost as much as the teacher did
                more = draw(student, task, 64, rng, generator)
                own, spent = own + [e for e in examples(more, task) if e["right"]], spent + more.sampled_tokens
            own = own[:M // 2]
            imitate(student, task, own, plan["epochs"], optimizer)
            chosen = chosen + own
        found[row] = measure(student) | {"trained on": sum(e["length"] for e in chosen) / len(chosen), "sampled": spent}
    return found


def report(folder, plan, get):
    results = [*get([(seed,) for seed in plan["seeds"]]).values()]
    lines = ["| row | pass@1 | against `rule` | pass@8 | tokens an example | tokens an answer | attempts |", "|---|---|---|---|---|---|---|"]
    for row in ("student", "teacher", *ROWS):
        of = lambda key, form=".3f": spread((r[row][key] for r in results), form) if key in results[0][row] else "–"
        against = spread((r[row]["pass@1"] - r["rule"]["pass@1"] for r in results), "+.3f")
        lines.append(f"| {row} | {of('pass@1')} | {against} | {of('pass@8')} | {of('trained on', '.1f')} | {of('length', '.1f')} | "
                     f"{of('attempts', '.2f')} |")
    ks = list(range(len(ROWS) + 2))
    curves = {f"seed {seed}": (ks, [r[row]["pass@1"] for row in ("student", "teacher", *ROWS)]) for seed, r in zip(plan["seeds"], results)}
    lines.append(f"\nSeeds {', '.join(map(str, plan['seeds']))}, lowest to highest in brackets; {plan['problems']} test problems, {plan['samples']} "
                 f"samples each; {plan['examples']} examples, {plan['epochs']} epochs. [What it means](claims.md#the-recipe-of-distillation).")
    return "\n".join(lines), [{"title": "pass@1", "x": "row of the table, from 0", "y": "share of right answers", "curves": curves}]


if __name__ == "__main__":
    main(__file__, __doc__, cell, report, FULL, QUICK)
