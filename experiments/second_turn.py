"""Told to try again, does a policy mend its wrong answers, and what must be rewarded so that it learns to?

    python experiments/second_turn.py            about ten minutes on one core; goes on cell by cell where it was stopped
    python experiments/second_turn.py --quick    two minutes: one seed

The claims (SCoRe, arXiv:2409.12917): rewarded for both answers, a policy collapses to its best first
answer, which it never revises; two stages, and a bonus for progress, make it mend its answers. And one
that follows from the equations (methods/score.py): where the first answer's tokens earn all that comes
after them, a bonus of 10 pays for failing on purpose.

The setting: countdown with two numbers up to 12, one attempt; a GPT of two layers, width 64. Its warm
start knows "Try again." from a teacher who keeps what it takes for right, and is mistaken in 20 %. Seeds
0, 1 and 2, equal sampled tokens, one rate (6e-4) for all.
  plain    r1 + r2, each answer's tokens earning its own
  score    stage I for a third of the way, then stage II, alpha 10: the first answer's tokens earn r1, or
           (credit return) all that comes after them
  once     GRPO on the first answer alone, asked for a second one all the same
"mended" is the share of wrong first answers that become right, "spoilt" that of right ones that become
wrong. "a fresh try" is what a new first answer would have mended: how often another sample of the same
problem is right where one was wrong.
Results: docs/second_turn.{md,json,png}.
"""
from cells import main, metrics, spread, train

SMALL = ["--numbers", 2, "--max-number", 12, "--attempts", 1, "--dialogue", 0.7, "--n-layer", 2, "--n-embd", 64]
FULL = {"seeds": (0, 1, 2), "sft": 600, "tokens": 200_000, "stage_one": 10, "problems": 60, "samples": 16}
QUICK = {"seeds": (0,), "sft": 500, "tokens": 120_000, "stage_one": 6, "problems": 30, "samples": 8}
ARMS = {"warm": ("warm start", []), "plain": ("plain", ["--stages", "plain"]), "score": ("SCoRe", []),
        "score-return": ("SCoRe, credit return", ["--credit", "return"]), "once": ("GRPO, first answer alone", [])}


def cell(folder, plan, name, seed):
    import checkpoint, evaluate, torch
    from dialogue import second_turn
    from methods.score import turns
    from sample import SamplingConfig, collect
    run = train(folder, f"warm-{seed}", "--algo", "sft", *SMALL, "--sft-steps", plan["sft"], "--seed", seed)
    log = []
    if name != "warm":
        flags = ["--algo", "grpo", "--prompts", 32] if name == "once" else [
            "--algo", "score", "--stage-one", plan["stage_one"], *ARMS[name][1]]
        run = train(folder, f"{name}-{seed}", *SMALL, *flags, "--lr", 6e-4, "--init", run, "--seed", seed, "--steps", 10**6,
                    "--token-budget", plan["tokens"])
        log = [[line["tokens"], line.get("first_right", line["accuracy"]), line.get("second_right"), line.get("same")] for line in metrics(run)]
    model, task, _ = checkpoint.load_run(run)
    generator, n = torch.Generator().manual_seed(0), plan["samples"]
    first = collect(model, task, evaluate.fixed_problems(task, "test", plan["problems"]), SamplingConfig(group_size=n), generator)
    second, _ = second_turn(model, task, first, SamplingConfig(), generator)
    right = first.right(task).view(-1, n).sum(1).float()  # of each problem
    fresh = float((right * (n - right)).sum() / ((n - 1) * (n - right)).sum().clamp(min=1))
    return turns(task, first, second) | {"fresh": fresh, "problems": len(right), "log": log}


def report(folder, plan, get):
    import plot
    seeds = plan["seeds"]
    get([("warm", seed) for seed in seeds])
    found = get([(name, seed) for name in ARMS for seed in seeds])
    made = {"gain": lambda r: r["second_right"] - r["first_right"],
            "mended": lambda r: r["wrong_to_right"] / max(1e-9, 1 - r["first_right"]),
            "spoilt": lambda r: r["right_to_wrong"] / max(1e-9, r["first_right"])}
    columns = {"first_right": "first answer right", "second_right": "second answer right", "gain": "second - first",
               "mended": "mended", "fresh": "a fresh try", "spoilt": "spoilt", "same": "second equal to first"}
    lines = [f"| policy | {' | '.join(columns.values())} |", "|" + "---|" * (len(columns) + 1)]
    for name, (title, _) in ARMS.items():
        value = lambda key, result: made[key](result) if key in made else result[key]
        values = [spread((value(key, found[name, seed]) for seed in seeds), ".2f") for key in columns]
        lines.append(f"| {title} | {' | '.join(values)} |")
    lines.append(f"\nSeeds {', '.join(map(str, seeds))}: mean (lowest to highest). {found['warm', seeds[0]]['problems']} test "
                 f"problems, {plan['samples']} samples each; {plan['tokens']:,} sampled tokens of training, both answers counted. "
                 "[How it is trained](../methods/score.py); [what it shows](judge.md#critique-and-second-turns).")
    panels = []
    for index, title in ((1, "first answer right"), (2, "second answer right"), (3, "second equal to first")):
        curves = {}
        for name in [name for name in ARMS if name != "warm" and (index == 1 or name != "once")]:
            log = found[name, seeds[0]]["log"]
            curves[ARMS[name][0]] = ([line[0] for line in log], plot.smooth([line[index] for line in log]))
        panels.append({"title": f"{title}, seed {seeds[0]}", "x": "sampled tokens", "y": "share", "curves": curves})
    return "\n".join(lines), panels


if __name__ == "__main__":
    main(__file__, __doc__, cell, report, FULL, QUICK)
