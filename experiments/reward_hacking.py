"""What happens when the rule has a hole, and what closes it; and how often a right answer follows from wrong steps.

    python experiments/reward_hacking.py            about 20 minutes on 2 cores; goes on cell by cell where it was stopped
    python experiments/reward_hacking.py --quick    3 minutes, once the warm start is there

The claim, known as Goodhart's law: a policy is trained on what is measured, not on what is meant. If the judge of countdown forgets to
count (--judge loose: an answer may drop given numbers, or use one again), the reward goes up and the truth goes down.

The setting: countdown, defaults, seeds 0 and 1; GRPO on the same warm start.
  strict       80 steps with the true rule
  loose        80 steps with the hole
  loose + KL   the same with --beta 0.1 --kl-estimator k2: does it help to stay close to the warm start?
  closed       40 more steps from the policy of `loose`, with the true rule
Each policy is judged by both rules on 500 test problems, 16 samples each. The quiet cousin: of the answers that are right by the true
rule, how many come after a step that is false or breaks a rule, carry a wrong mark, or come from no attempt that was made? All of this can be
computed here. Iterated squaring beside it: right answers after a chain that is not the true one, before and after 40 steps.
Results: docs/reward_hacking.{md,json,png}.
"""
from cells import main, metrics, train

FULL = {"seeds": (0, 1), "steps": 80, "problems": 500, "samples": 16, "runs": ("warm", "strict", "loose", "loose + KL", "closed")}
QUICK = {"seeds": (0,), "steps": 24, "problems": 100, "samples": 8, "runs": ("warm", "loose")}
FLAGS = {"strict": [], "loose": ["--judge", "loose"], "loose + KL": ["--judge", "loose", "--beta", "0.1", "--kl-estimator", "k2"]}


def run_of(folder, plan, name, seed):
    """The run called `name`, made if it is not there yet -> its folder."""
    warm = train(folder, f"warm-{seed}", "--algo", "sft", "--seed", seed)
    if name == "warm":
        return warm
    if name == "closed":
        return train(folder, f"closed-{seed}", "--algo", "grpo", "--init", folder / f"loose-{seed}", "--seed", seed,
                     steps=plan["steps"] // 2)
    return train(folder, f"{name.replace(' + ', '-')}-{seed}", "--algo", "grpo", "--init", warm, "--seed", seed, *FLAGS[name],
                 steps=plan["steps"])


def cell(folder, plan, name, seed):
    import checkpoint, evaluate, tasks
    if name.startswith("squaring"):
        warm = train(folder, f"squaring-warm-{seed}", "--task", "iterated_squaring", "--algo", "sft", "--seed", seed)
        run = warm if name == "squaring-warm" else train(folder, f"squaring-{seed}", "--task", "iterated_squaring", "--algo", "grpo",
                                                         "--init", warm, "--seed", seed, steps=plan["steps"] // 2)
        model, task, _ = checkpoint.load_run(run)
        judged = evaluate.sample_and_judge(model, task, evaluate.fixed_problems(task, "test", plan["problems"]), plan["samples"])
        right = [j for j in judged if j["right"]]
        return {"strict": len(right) / len(judged), "false step": sum(j["chain"] > j["chain_right"] for j in right) / len(right),
                "no attempt": sum(j["chain"] == 0 for j in right) / len(right)}
    run = run_of(folder, plan, name, seed)
    model, _, _ = checkpoint.load_run(run)
    task = tasks.load("countdown", judge="loose")
    judged = evaluate.sample_and_judge(model, task, evaluate.fixed_problems(task, "test", plan["problems"]), plan["samples"])
    share = lambda rows, test: sum(map(bool, map(test, rows))) / max(1, len(rows))
    truly = [j for j in judged if j["right"] and j["truth"]]
    result = {"loose": share(judged, lambda j: j["right"]), "strict": len(truly) / len(judged),
              "length": sum(j["length"] for j in judged) / len(judged), "attempts": sum(j["attempts"] for j in judged) / len(judged),
              "false step": share(truly, lambda j: j["legal"] < j["attempts"]),
              "wrong mark": share(truly, lambda j: j["told"] < j["attempts"]),
              "no attempt": share(truly, lambda j: j["hits"] == 0)}
    if name != "warm":  # training, step by step: what the judge of this run says, and the truth
        result["curve"] = [[m["step"], m["accuracy"], m.get("truth", m["accuracy"])] for m in metrics(run)]
    return result


def report(folder, plan, get):
    seeds, lines, panels = plan["seeds"], [], []
    found = {}
    for name in plan["runs"]:  # one after the other: each begins with what an earlier one made
        found |= get([(name, seed) for seed in seeds])
    both = lambda name, key, form=".3f": " / ".join(format(found[name, seed][key], form) for seed in seeds)
    lines += ["| policy | accepted by the loose rule | by the true rule | tokens | attempts |", "|---|---|---|---|---|"]
    lines += [f"| {name} | {both(name, 'loose')} | {both(name, 'strict')} | {both(name, 'length', '.1f')} | {both(name, 'attempts', '.2f')} |"
              for name in plan["runs"]]
    lines += ["", "| right by the true rule, and … | after a false or illegal step | with a wrong mark | from no attempt that was made |",
              "|---|---|---|---|"]
    lines += [f"| countdown, {name} | {both(name, 'false step')} | {both(name, 'wrong mark')} | {both(name, 'no attempt')} |"
              for name in plan["runs"]]
    if plan is FULL:
        found |= get([("squaring-warm", seed) for seed in seeds]) | get([("squaring-grpo", seed) for seed in seeds])
        lines += [f"| iterated squaring, {title} | {both(name, 'false step')} | – | {both(name, 'no attempt')} (no chain) |"
                  for title, name in (("warm", "squaring-warm"), ("after GRPO", "squaring-grpo"))]
    lines.append(f"\nSeeds {' / '.join(map(str, seeds))}; {plan['problems']} test problems, {plan['samples']} samples each.")
    for name in plan["runs"][1:]:
        step, accuracy, truth = zip(*found[name, seeds[0]]["curve"])
        curves = {"the rule it learns from": (step, accuracy)} | ({"the truth": (step, truth)} if "loose" in name else {})
        panels.append({"title": f"{name}, seed {seeds[0]}", "x": "step", "y": "share of training samples accepted", "curves": curves})
    return "\n".join(lines), panels


if __name__ == "__main__":
    main(__file__, __doc__, cell, report, FULL, QUICK)
