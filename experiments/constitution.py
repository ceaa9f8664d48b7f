"""A principle in place of marks: does a policy that criticises and revises itself keep it, and at what cost?

    python experiments/constitution.py            about seven minutes of one core; goes on where it was stopped
    python experiments/constitution.py --quick    two minutes: one seed

The claim (Constitutional AI, arXiv:2212.08073): imitating one's own revisions, and then preferring what
keeps the principle, makes a model harmless with hardly any loss of usefulness; nobody marks an answer.

The setting: countdown with two numbers up to 12; a GPT of two layers, width 64. The principle is "every
number exactly once". In 30 % of its demonstrations the teacher gives up and answers with the target
itself, which breaks it: that is to be cured. The teacher of critiques calls one faulty answer in five
fine. Seeds 0, 1 and 2, equal sampled tokens, one rate (3e-4).
  own        the control: imitation of its own answers, unrevised
  revised    the SL phase alone: imitation of its own revisions
  preferred  the RL phase alone: DPO on what the critic calls fine and faulty
  both       the SL phase for about half of the tokens, then the RL phase
"violations" and "right" are the rule's. "pleases" is what a judge with a hole accepts, to whom the
target itself is an answer. Critic: how often the verdict of the warm start, which taught, is true of
these answers, of the faulty ones (caught) and of the fine ones (cleared); and the policy's own verdict.
Results: docs/constitution.{md,json,png}.
"""
from cells import main, metrics, spread, train

SMALL = ["--numbers", 2, "--max-number", 12, "--attempts", 1, "--dialogue", 0.7, "--cheat-share", 0.3,
         "--n-layer", 2, "--n-embd", 64]
FULL = {"seeds": (0, 1, 2), "sft": 600, "tokens": 120_000, "half": 11, "problems": 60, "samples": 16}
QUICK = {"seeds": (0,), "sft": 500, "tokens": 80_000, "half": 7, "problems": 30, "samples": 8}
ARMS = {"warm": "warm start", "own": "own answers, unrevised", "revised": "own revisions", "preferred": "preferences",
        "both": "revisions, then preferences"}


def cell(folder, plan, name, seed):
    import checkpoint, evaluate, torch
    from dialogue import about, ask
    from methods.critique import VERDICTS, violates
    from sample import SamplingConfig, collect
    run = warm = train(folder, f"warm-{seed}", "--algo", "sft", *SMALL, "--sft-steps", plan["sft"], "--seed", seed)
    log = []
    if name != "warm":
        flags = {"own": ["--imitate", "own"], "preferred": ["--revision-steps", 0], "both": ["--revision-steps", plan["half"]]}
        run = train(folder, f"{name}-{seed}", "--algo", "critique", *SMALL, "--revision-steps", 10**6, *flags.get(name, []),
                    "--lr", 3e-4, "--init", warm, "--seed", seed, "--steps", 10**6, "--token-budget", plan["tokens"])
        log = [[line["tokens"], line["violations"], line["accuracy"]] for line in metrics(run)]
    model, task, _ = checkpoint.load_run(run)
    problems = evaluate.fixed_problems(task, "test", plan["problems"])
    rollout = collect(model, task, problems, SamplingConfig(group_size=plan["samples"]), torch.Generator().manual_seed(0))
    broken, texts = violates(task, rollout), rollout.completions(task.tokenizer)
    result = {"violations": float(broken.float().mean()), "right": float(rollout.right(task).float().mean()),
              "problems": len(problems), "pleases": sum(task.right(p, text, "loose") for p, text in zip(rollout.problems, texts)) / len(texts),
              "length": rollout.sampled_tokens / len(texts), "log": log}
    for who, critic in (("critic", checkpoint.load_run(warm)[0]), ("self", model)):
        fine = ask(critic, task, about("Critique: ", task, rollout), VERDICTS)[:, 0] > 0.5
        for what, says, where in (("accuracy", fine != broken, broken | ~broken), ("caught", ~fine, broken), ("cleared", fine, ~broken)):
            result[f"{who} {what}"] = float(says[where].float().mean()) if where.any() else None
    return result


def report(folder, plan, get):
    import plot
    seeds = plan["seeds"]
    get([("warm", seed) for seed in seeds])
    found = get([(name, seed) for name in ARMS for seed in seeds])
    columns = {"violations": "violations", "right": "right", "pleases": "pleases", "length": "tokens",
               "critic accuracy": "critic right", "critic caught": "caught", "critic cleared": "cleared",
               "self accuracy": "the policy as critic"}
    lines = [f"| policy | {' | '.join(columns.values())} |", "|" + "---|" * (len(columns) + 1)]
    for name, title in ARMS.items():
        cells = []
        for key in columns:
            values = [found[name, seed][key] for seed in seeds if found[name, seed][key] is not None]
            cells.append(spread(values, ".1f" if key == "length" else ".2f") if values else "–")
        lines.append(f"| {title} | {' | '.join(cells)} |")
    lines.append(f"\nSeeds {', '.join(map(str, seeds))}: mean (lowest to highest). {found['warm', seeds[0]]['problems']} test "
                 f"problems, {plan['samples']} samples each; {plan['tokens']:,} sampled tokens of training, critiques counted. "
                 "[How it is trained](../methods/critique.py); [what it shows](judge.md#critique-and-second-turns).")
    panels = []
    for index, title in ((1, "violations"), (2, "right answers")):
        curves = {}
        for name in list(ARMS)[1:]:
            log = found[name, seeds[0]]["log"]
            curves[ARMS[name]] = ([line[0] for line in log], plot.smooth([line[index] for line in log]))
        panels.append({"title": f"{title}, seed {seeds[0]}", "x": "sampled tokens", "y": "share", "curves": curves})
    return "\n".join(lines), panels


if __name__ == "__main__":
    main(__file__, __doc__, cell, report, FULL, QUICK)
