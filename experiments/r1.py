"""The four stages of DeepSeek-R1 in miniature, beside R1-Zero at equal tokens.

    python experiments/r1.py            about 10 minutes on 2 cores; goes on stage by stage where it was stopped
    python experiments/r1.py --quick    3 minutes, once the warm start is there

The claim (arXiv:2501.12948): reinforcement learning on the base model works (R1-Zero); a small cold start with good, readable
examples, and a second round on what the first one found, work better.

The setting: countdown, seeds 0, 1 and 2. The base is a warm start of 600 steps; a million sampled tokens for each.
  R1-Zero      GRPO on the base
  R1  stage 1  cold start: 30 steps of 64 on solved examples (every one of them ends in a solution) from the base
      stage 2  GRPO, 450,000 tokens
      stage 3  rejection sampling: 100,000 tokens of the policy of stage 2; the right ones are imitated *from the base*, four passes
      stage 4  GRPO, 450,000 tokens
What is left out: data of other kinds in stage 3, a reward for readable language and for harmlessness in stage 4, and distillation
into smaller models. "Readable" is measured by the marks: the share of attempts whose mark (found, failed) is true.
After each stage: 500 test problems, 16 samples each. Results: docs/r1.{md,json,png}.
"""
from cells import main, metrics, spread, train

FULL = {"seeds": (0, 1, 2), "tokens": 1_000_000, "cold": 30, "problems": 500, "samples": 16}
QUICK = {"seeds": (0,), "tokens": 240_000, "cold": 10, "problems": 100, "samples": 8}
STAGES = ("base", "R1-Zero", "1 cold start", "2 GRPO", "3 rejection sampling", "4 GRPO")


def run_of(folder, plan, stage, seed):
    """The run of a stage, made if it is not there yet -> its folder. A stage begins with the run of the one before."""
    grpo = lambda name, init, share: train(folder, f"{name}-{seed}", "--algo", "grpo", "--init", init, "--seed", seed,
                                           "--steps", 10**6, "--token-budget", int(share * plan["tokens"]))
    before = lambda stage: run_of(folder, plan, stage, seed)
    if stage == "base":
        return train(folder, f"base-{seed}", "--algo", "sft", "--seed", seed)
    if stage == "R1-Zero":
        return grpo("zero", before("base"), 1.0)
    if stage == "1 cold start":
        return cold_start(folder / f"cold-{seed}", before("base"), plan["cold"], seed)
    if stage == "2 GRPO":
        return grpo("first", before("1 cold start"), 0.45)
    if stage == "3 rejection sampling":
        return train(folder, f"rejection-{seed}", "--algo", "star", "--init", before("base"), "--teacher", before("2 GRPO"),
                     "--seed", seed, "--epochs", 4, "--mini-batches", 4, "--steps", 10**6, "--token-budget", plan["tokens"] // 10)
    return grpo("second", before("3 rejection sampling"), 0.45)


def cold_start(run, base, steps, seed):
    """Imitate a few solved examples: the teacher's own, but planted with certainty."""
    import checkpoint, sft, tasks
    if not (run / "checkpoint.pt").exists():
        run.mkdir(parents=True, exist_ok=True)
        model, task, _ = checkpoint.load_run(base)
        sft.warm_start(model, tasks.load("countdown", expert_share=1.0), sft.SFTConfig(sft_steps=steps), f"cold start {seed}")
        checkpoint.save(run / "checkpoint.pt", model, task, {"algo": "sft", "task": task.name, "max_new_tokens": 0})
    return run


def cell(folder, plan, *words):
    import checkpoint, evaluate
    stage, seed = " ".join(words[:-1]), words[-1]
    run = run_of(folder, plan, stage, seed)
    model, task, _ = checkpoint.load_run(run)
    result = evaluate.evaluate(model, task, evaluate.fixed_problems(task, "test", plan["problems"]), plan["samples"])
    curve = [[m["tokens"], m["accuracy"]] for m in metrics(run)] if "GRPO" in stage or stage == "R1-Zero" else []
    kept = ("pass@1", "pass@1_se", "pass@8", "greedy", "length", "attempts", "correct_marks", "finished")
    return {name: result[name] for name in kept} | {"curve": curve}


def report(folder, plan, get):
    import plot
    seeds, found = plan["seeds"], {}
    cells = lambda stage: [(*stage.split(), seed) for seed in seeds]
    for stage in STAGES:
        found |= {(stage, c[-1]): result for c, result in get(cells(stage)).items()}
    both = lambda stage, value, form=".3f": spread((value(found[stage, seed]) for seed in seeds), form)
    tokens = {"base": 0, "R1-Zero": 1.0, "1 cold start": 0, "2 GRPO": 0.45, "3 rejection sampling": 0.55, "4 GRPO": 1.0}
    columns = {"pass@1": ".3f", "pass@8": ".3f", "greedy": ".3f", "length": ".1f", "attempts": ".2f"}
    lines = ["| after | sampled tokens so far | pass@1 | pass@8 | greedy | tokens | attempts | marks that are true |",
             "|" + "---|" * 8]
    for stage in STAGES:
        shown = [both(stage, lambda r: r[name], form) for name, form in columns.items()]
        lines.append(f"| {stage} | {tokens[stage] * plan['tokens']:,.0f} | {' | '.join(shown)} "
                     f"| {both(stage, lambda r: r['correct_marks'] / max(r['attempts'], 1e-9))} |")
    error = max(result["pass@1_se"] for result in found.values())
    lines.append(f"\nSeeds {' / '.join(map(str, seeds))}; {plan['problems']} test problems, {plan['samples']} samples each; "
                 f"one standard error of pass@1 is at most {error:.3f}.")
    panels = []
    for seed in seeds:
        curves = {}
        for stage, title, start in (("R1-Zero", "GRPO on the base: R1-Zero", 0), ("2 GRPO", "R1, stage 2", 0),
                                    ("4 GRPO", "R1, stage 4", 0.55 * plan["tokens"])):
            curve = found[stage, seed]["curve"]
            curves[title] = ([(start + t) / 1e6 for t, _ in curve], plot.smooth([a for _, a in curve]))
        panels.append({"title": f"training problems, seed {seed}", "x": "sampled tokens (millions)", "y": "share of right answers",
                       "curves": curves})
    return "\n".join(lines), panels


if __name__ == "__main__":
    main(__file__, __doc__, cell, report, FULL, QUICK)
