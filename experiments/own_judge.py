"""Can a model lift itself by its own judgement? Every system in which the model judges, criticises or teaches itself, beside the true rule.

    python experiments/own_judge.py            about half an hour on 2 cores; goes on cell by cell where it was stopped
    python experiments/own_judge.py --quick    3 minutes: two numbers, a small model, one seed, three systems

The setting: countdown, one warm start a seed that also learned to judge, from a teacher who is right in 80 % (tasks/dialogue.py); seeds 0, 1
and 2; the same number of sampled tokens for every system, those of sampled thoughts and second turns included. Nothing was tuned: every system
has its own defaults. Baselines: GRPO with the true rule; more imitation of the same teacher, as many tokens as the others sample.

What is measured, on 200 test problems with 16 samples each:
  pass@1, pass@8      the policy's own answers, by the rule
  best of 8           of 8 answers the one to which the model itself says yes most surely
  judge               how it tells right from wrong in the answers of its *warm start* (the same ones before and after): the mean of the
                      share of right answers it accepts and of wrong ones it rejects (pi(yes) above 1/2; 0.5 is chance), and the AUC of pi(yes)
For orm and prm (verifier.py) the judge is the verifier, and the policy stays what it was. `genrm`, `orm`, `prm` and `grpo` are told the
truth by the rule; nobody else is. Results: docs/own_judge.{md,json,png}.
"""
from cells import main, metrics, spread, train
from judge_accuracy import warm_of

SYSTEMS = {  # name: (--algo, flags)
    "more imitation": ("", []), "GRPO, true rule": ("grpo", []), "ORM": ("orm", []), "PRM": ("prm", []), "GenRM": ("genrm", []),
    "GenRM, 4 votes": ("genrm", ["--votes", 4]),
    "d-RLAIF, score": ("rlaif", []), "d-RLAIF, yes": ("rlaif", ["--opinion", "yes"]),
    "AI preferences, soft": ("ai_preferences", []), "AI preferences, clamped": ("ai_preferences", ["--labels", "clamped"]),
    "self-rewarding": ("self_reward", []), "critique": ("critique", []), "SCoRe": ("score", []), "proposer": ("propose", []),
    "self-play": ("self_play", [])}
FULL = {"seeds": (0, 1, 2), "warm": ("--sft-steps", 1000), "tokens": 300_000, "problems": 200, "systems": tuple(SYSTEMS), "prompts": 32}
QUICK = {"seeds": (0,), "warm": ("--numbers", 2, "--sft-steps", 400, "--n-layer", 2, "--n-embd", 64), "tokens": 40_000, "problems": 100,
         "systems": ("GRPO, true rule", "GenRM", "d-RLAIF, yes"), "prompts": 32}


def judged_by(model, task, rollout, score_of=None):
    """How a judge tells right from wrong in a rollout of 16 samples a problem -> accuracy, AUC, and how often the best of 8 is right.

    score_of(rollout) -> (B,): a verifier's scores, in place of pi(yes)."""
    import torch
    from methods.genrm import verdicts
    from verifier import auc
    right = rollout.right(task)
    with torch.no_grad():
        scores = score_of(rollout) if score_of else verdicts(model, task, rollout)[0][:, 0]
    yes, best = scores > 0.5, scores.view(-1, 8).argmax(1, keepdim=True)
    return {"accuracy": float((yes[right].float().mean() + (~yes)[~right].float().mean()) / 2), "auc": auc(scores, right),
            "best of 8": float(right.view(-1, 8).gather(1, best).float().mean())}


def answered(model, task, plan):
    """16 answers to each of the test problems -> Rollout."""
    import evaluate, torch
    from sample import SamplingConfig, collect, join
    generator, problems = torch.Generator().manual_seed(0), evaluate.fixed_problems(task, "test", plan["problems"])
    return join([collect(model, task, problems[i:i + 32], SamplingConfig(group_size=16), generator) for i in range(0, len(problems), 32)])


def cell(folder, plan, name, seed):
    import checkpoint, sft
    from evaluate import pass_at_k
    from methods.rm_rl import judge_scores
    start, score_of, result = warm_of(folder, plan, seed), None, {}
    model, task, _ = checkpoint.load_run(start)
    warm = answered(model, task, plan)
    algo, flags = SYSTEMS.get(name, ("", []))
    if name == "more imitation":
        tokens, mask = sft.demonstrations(task, 1000, __import__("random").Random(0))
        steps = round(plan["tokens"] / (64 * float(mask.sum()) / 1000))  # as many tokens imitated as the others sample
        sft.warm_start(model, task, sft.SFTConfig(sft_steps=steps), f"{seed} more")
    elif algo:
        shape = [word for word in plan["warm"] if word not in ("--sft-steps", plan["warm"][plan["warm"].index("--sft-steps") + 1])]
        run = train(folder, f"{algo}-{list(SYSTEMS).index(name)}-{seed}", "--algo", algo, "--init", start, "--dialogue", 0.6, "--seed", seed,
                    "--prompts", plan["prompts"], "--steps", 10**6, "--token-budget", plan["tokens"], *shape, *flags)
        model, lines = checkpoint.load_run(run)[0], metrics(run)
        result = {key: [line.get(key) for line in lines] for key in ("tokens", "accuracy", "auc", "judge_accuracy")}
        if algo in ("orm", "prm"):
            verifier = checkpoint.load_verifier(run)
            score_of = lambda rollout: judge_scores(verifier, algo, rollout, task)
    own = answered(model, task, plan) if name != "warm" else warm
    right = own.right(task).view(-1, 16).sum(1).tolist()
    return result | {"judge": judged_by(model, task, warm, score_of), "own": judged_by(model, task, own, score_of),
                     **{f"pass@{k}": sum(pass_at_k(16, c, k) for c in right) / len(right) for k in (1, 8)}}


def report(folder, plan, get):
    from plumbing import catalogue
    seeds, there = plan["seeds"], ("", *catalogue.names())
    systems = [name for name in plan["systems"] if SYSTEMS[name][0] in there]
    if len(systems) < len(plan["systems"]):
        print("left out, for methods/ has no such file:", ", ".join(name for name in plan["systems"] if name not in systems))
    found = get([("warm", seed) for seed in seeds])  # everything else begins there
    found |= get([(name, seed) for name in systems for seed in seeds])
    lines = ["| system | judge: accuracy | judge: AUC | pass@1 | pass@8 | best of 8 by its own judge |", "|---|---|---|---|---|---|"]
    for name in ("warm", *systems):
        each = lambda *keys: spread((value_at(found[name, seed], keys) for seed in seeds), ".2f" if keys[0] == "judge" else ".3f")
        title = {"warm": "warm start"}.get(name, name)
        lines.append(f"| {title} | {each('judge', 'accuracy')} | {each('judge', 'auc')} | **{each('pass@1')}** | {each('pass@8')} "
                     f"| {each('own', 'best of 8')} |")
    lines.append(f"\nSeeds {' / '.join(map(str, seeds))}, lowest to highest in brackets; {plan['tokens']:,} sampled tokens each; "
                 f"{plan['problems']} test problems, 16 samples of each. The judge is asked about the answers of the warm start.")
    mean = lambda values: sum(values) / len(seeds)
    gain = lambda name: mean([found[name, seed]["pass@1"] - found["warm", seed]["pass@1"] for seed in seeds])
    auc = lambda name: mean([found[name, seed]["judge"]["auc"] for seed in seeds])
    panels = [{"title": "judging and solving, before and after", "x": "AUC of the judge", "y": "gain in pass@1",
               "curves": {name: ([auc("warm"), auc(name)], [0.0, gain(name)]) for name in systems}},
              {"title": f"answers during training, seed {seeds[0]}", "x": "sampled tokens", "y": "share that is right", "curves": {
                  name: (run["tokens"], smooth(run["accuracy"])) for name in systems if "tokens" in (run := found[name, seeds[0]])}}]
    return "\n".join(lines), panels


def value_at(result, keys):
    for key in keys:
        result = result[key]
    return result


def smooth(values, width=5):
    return [sum(values[max(0, i + 1 - width):i + 1]) / len(values[max(0, i + 1 - width):i + 1]) for i in range(len(values))]


if __name__ == "__main__":
    main(__file__, __doc__, cell, report, FULL, QUICK)
