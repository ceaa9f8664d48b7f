"""What should the defaults of the main job be? Four candidates, five seeds, measured on val.

    python experiments/defaults.py            two hours on 2 cores; goes on cell by cell where it was stopped
    python experiments/defaults.py --quick    3 minutes, once the warm starts are there

The question: GRPO's defaults ended lower with one seed than with the others, and broke the rules of arithmetic more often than the
warm start. Which setting mends that, and does it cost accuracy? And is it the warm start of that seed, or what came after it? For that,
seeds 0 to 2 once more, all from the warm start of seed 1.

The setting: countdown, a warm start of 600 steps (the default then), 200 steps of GRPO. Measured on 500 different problems of val, 16
samples each, so that test stays unseen. How the choice is made was written down before the runs: the highest mean of pass@1 over the
seeds; where others come within one standard error of it (of the differences, seed by seed), the one that changes least. The longer warm
start became a candidate when the others had been seen, and the warm start of seed 1 had turned out to be the reason; it won, and is the
default now. Results: docs/defaults.{md,json,png}.
"""
from better_teacher import by_attempt
from cells import main, metrics, spread, train

FALLS, PAYS, LONGER = ["--lr-schedule", "linear"], ["--step-penalty", "0.3"], ["--sft-steps", "1000"]
CANDIDATES = {  # name of its runs: (title, flags)
    "plain": ("old default", []), "pays": ("step penalty", PAYS), "both": ("penalty, falling lr", PAYS + FALLS), "start": ("warm start 1", []),
    "longer": ("1,000 steps of warm start", LONGER)}
STARTS = {"sft": ("warm start, 600 steps", []), "sft-longer": ("warm start, 1,000 steps", LONGER)}
FULL = {"seeds": (0, 1, 2, 3, 4), "candidates": tuple(CANDIDATES), "steps": 200, "problems": 500, "samples": 16, "attempts": 7}
QUICK = {"seeds": (0,), "candidates": ("plain", "longer"), "steps": 10, "problems": 50, "samples": 8, "attempts": 7}


def cell(folder, plan, name, seed):
    """Train one policy, if it is not there yet, and measure it. name: a candidate, or one of STARTS."""
    import torch
    import checkpoint, evaluate
    from sample import SamplingConfig, collect
    algo = ["sft", *STARTS[name][1]] if name in STARTS else ["grpo", *CANDIDATES[name][1]]
    algo += ["--init", folder / "sft-1"] if name == "start" else []
    run = train(folder, f"{name}-{seed}", "--algo", *algo, "--seed", seed, steps=None if name in STARTS else plan["steps"])
    model, task, _ = checkpoint.load_run(run, evaluate.pick_device("auto"))
    problems = evaluate.fixed_problems(task, "val", plan["problems"])
    result = evaluate.evaluate(model, task, problems, plan["samples"], (1, 8))
    rollout = collect(model, task, problems, SamplingConfig(group_size=1), torch.Generator(model.device).manual_seed(0))
    tried, _, again = map(sum, zip(*by_attempt(task, problems, rollout.completions(task.tokenizer), plan["attempts"])))
    lines = [] if name in STARTS else metrics(run)
    tens = [lines[i:i + 10] for i in range(0, len(lines) - 9, 10)]
    return result | {"repeats": again / (tried or 1), "curve": [
        [sum(line["accuracy"] for line in ten) / 10, sum(line["legal"] / (line["attempts"] or 1) for line in ten) / 10] for ten in tens]}


def against(values, others):
    """Mean of the differences, seed by seed, with its standard error -> text.

    >>> against([0.5, 0.6, 0.7], [0.4, 0.5, 0.45])
    '+0.150 ± 0.050'
    """
    each = [a - b for a, b in zip(values, others)]
    mean = sum(each) / len(each)
    error = (sum((d - mean) ** 2 for d in each) / max(1, len(each) - 1) / len(each)) ** 0.5
    return f"{mean:+.3f} ± {error:.3f}"


def report(folder, plan, get):
    seeds, names = plan["seeds"], plan["candidates"]
    get([(name, seed) for name in STARTS for seed in seeds])  # the warm starts, once
    of = {name: [seed for seed in seeds if name != "start" or seed < 3] for name in (*STARTS, *names)}
    found = get([(name, seed) for name in of for seed in of[name] if (name, seed) != ("start", 1)])
    found["start", 1] = found.get(("plain", 1))  # it is the same run
    lines = ["| | pass@1 | against the first | pass@8 | seeds that lose pass@8 | greedy | legal attempts | correct marks | repeats | ended by "
             "themselves | tokens |", "|---" * 11 + "|"]
    titles = {name: title for name, (title, _) in (STARTS | CANDIDATES).items()}
    for name in of:
        each = [found[name, seed] for seed in of[name]]
        before = [found["sft-longer" if "longer" in name else "sft", 1 if name == "start" else seed]["pass@8"] for seed in of[name]]
        one = [e["pass@1"] for e in each]
        share = lambda what: spread(e[what] / (e["attempts"] or 1) for e in each)
        trained = name in names
        columns = [titles[name], spread(one), against(one, [found["plain", seed]["pass@1"] for seed in of[name]]) if trained and name != "plain" else "",
                   spread(e["pass@8"] for e in each), str(sum(e["pass@8"] < b for e, b in zip(each, before))) if trained else "",
                   spread(e["greedy"] for e in each), share("legal"), share("correct_marks"), spread(e["repeats"] for e in each),
                   spread((e["finished"] for e in each), ".2f"), spread((e["length"] for e in each), ".1f")]
        lines.append(f"| {' | '.join(columns)} |")
    lines.append(f"\n{plan['problems']} different problems of val, {plan['samples']} samples each, seeds {', '.join(map(str, seeds))}: mean "
                 "(lowest to highest). Penalty: a false step costs 0.3. All but two rows: a warm start of 600 steps. Warm start 1: the old "
                 "default, seeds 0 to 2, all from the warm start of seed 1. Repeats: "
                 "attempts that an answer has made before. Curves: means over ten steps and over the seeds.")
    ten = range(plan["steps"] // 10)
    mean = lambda name, what: [sum(found[name, seed]["curve"][t][what] for seed in of[name]) / len(of[name]) for t in ten]
    panel = lambda title, what: {"title": title, "x": "step", "y": "share", "curves": {
        titles[name]: ([10 * t + 10 for t in ten], mean(name, what)) for name in names}}
    return "\n".join(lines), [panel("right, training problems", 0), panel("attempts that follow the rules", 1)]


if __name__ == "__main__":
    main(__file__, __doc__, cell, report, FULL, QUICK)
