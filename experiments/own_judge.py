"""Can a model lift itself by its own judgement? Every system in which the model judges, criticises or
teaches itself, beside the true rule.

    python experiments/own_judge.py            100 minutes of one core; goes on cell by cell
    python experiments/own_judge.py --quick    3 minutes: two numbers, a small model, one seed, three systems

The setting: countdown, one warm start a seed that also learned to judge, from a teacher who is right in
80 % (tasks/dialogue.py); seeds 0, 1 and 2; the same number of sampled tokens for every system, those of
sampled thoughts and second turns included. Nothing was tuned: every system has its own defaults.
Baselines: GRPO with the true rule; more imitation of the same teacher, as many tokens as the others
sample.

What is measured, on 200 test problems with 16 samples each:
  pass@1, pass@8   the policy's own answers, by the rule
  judge            how the model tells right from wrong in the answers of its *warm start*, the same ones before
                   and after, saying yes or no after a thought: the mean of the share of right answers it
                   accepts and of wrong ones it rejects (0.5 is chance), and the AUC of pi(yes); without a
                   thought, at once; and of its mean score
  best of 8        of 8 of its own answers the one to which it says yes most surely, after a thought
For the ORM (verifier.py) the judge is the verifier, and the policy stays what it was. GRPO, GenRM and
ORM are told the truth by the rule; the others are not, but for self-play and the proposer
(methods/). Results: docs/own_judge.{md,json,png}.
"""
import random

from cells import main, metrics, spread, train
from judge_accuracy import warm_of

THOUGHT = ["--opinion", "yes", "--votes", 1]
SYSTEMS = {  # name: (--algo, flags)
    "more imitation": ("", []), "GRPO, true rule": ("grpo", []), "ORM": ("orm", []),
    "GenRM, at once": ("genrm", []), "GenRM, a thought": ("genrm", ["--votes", 1]),
    "d-RLAIF, score": ("rlaif", []), "d-RLAIF, at once": ("rlaif", ["--opinion", "yes"]), "d-RLAIF, a thought": ("rlaif", THOUGHT),
    "AI preferences, soft": ("ai_preferences", []), "AI preferences, clamped": ("ai_preferences", ["--labels", "clamped"]),
    "self-rewarding, score": ("self_reward", ["--round-steps", 5]), "self-rewarding, a thought": ("self_reward", [*THOUGHT, "--round-steps", 4]),
    "self-rewarding, a thought, NLL": ("self_reward", [*THOUGHT, "--round-steps", 4, "--nll", 1]),
    "critique": ("critique", []), "SCoRe": ("score", []), "proposer": ("propose", []), "self-play": ("self_play", [])}
DRAWN = ("GRPO, true rule", "GenRM, a thought", "d-RLAIF, score", "d-RLAIF, a thought", "self-rewarding, a thought, NLL")
FULL = {"seeds": (0, 1, 2), "warm": ("--sft-steps", 1000), "tokens": 200_000, "problems": 200, "systems": tuple(SYSTEMS), "prompts": 32}
QUICK = {"seeds": (0,), "warm": ("--numbers", 2, "--sft-steps", 400, "--n-layer", 2, "--n-embd", 64), "tokens": 60_000, "problems": 100,
         "systems": ("GRPO, true rule", "d-RLAIF, score", "d-RLAIF, a thought"), "prompts": 32}


def judged_by(model, task, rollout, verifier=None, kind=None):
    """How a model, or a verifier of this kind, tells right from wrong in a rollout of 16 samples a
    problem -> dict of floats."""
    import torch
    from methods.genrm import verdicts
    from methods.rlaif import grades
    from methods.rm_rl import judge_scores
    from verifier import auc
    right, others = rollout.right(task), {}
    if verifier:
        scores = judge_scores(verifier, kind, rollout, task)
    else:
        scores = torch.cat([verdicts(model, task, part, 1, torch.Generator().manual_seed(0))[0] for part in parts(rollout)])[:, 0]
        others = {"auc at once": auc(verdicts(model, task, rollout)[0][:, 0], right), "auc score": auc(grades(model, task, rollout)[0], right)}
    yes, best = scores > 0.5, scores.view(-1, 8).argmax(1, keepdim=True)
    return others | {"accuracy": float((yes[right].float().mean() + (~yes)[~right].float().mean()) / 2), "auc": auc(scores, right),
                     "best of 8": float(right.view(-1, 8).gather(1, best).float().mean())}


def parts(rollout, size=512):
    """A rollout in pieces: a thought about every row at once would need much memory."""
    import torch
    return [rollout.select(rows) for rows in torch.arange(len(rollout.lengths)).split(size)]


def answered(model, task, plan):
    """16 answers to each of the test problems -> Rollout."""
    import evaluate, torch
    from sample import SamplingConfig, collect, join
    generator, problems = torch.Generator().manual_seed(0), evaluate.fixed_problems(task, "test", plan["problems"])
    return join([collect(model, task, problems[i:i + 32], SamplingConfig(group_size=16), generator) for i in range(0, len(problems), 32)])


def cell(folder, plan, name, seed):
    import checkpoint, sft
    from evaluate import pass_at_k
    start, result, judge = warm_of(folder, plan, seed), {}, ()
    model, task, _ = checkpoint.load_run(start)
    warm = answered(model, task, plan)
    algo, flags = SYSTEMS.get(name, ("", []))
    if name == "more imitation":
        _, mask = sft.demonstrations(task, 1000, random.Random(0))
        steps = round(plan["tokens"] / (64 * float(mask.sum()) / 1000))  # as many tokens imitated as the others sample
        sft.warm_start(model, task, sft.SFTConfig(sft_steps=steps), f"{seed} more")
    elif algo:
        run = train(folder, f"{'-'.join(name.replace(',', '').split())}-{seed}", "--algo", algo, "--init", start, "--dialogue", 0.6, "--seed", seed,
                    "--prompts", plan["prompts"], "--steps", 10**6, "--token-budget", plan["tokens"], *plan["warm"], *flags)
        model, lines = checkpoint.load_run(run)[0], metrics(run)
        result = {key: [line.get(key) for line in lines] for key in ("tokens", "accuracy", "auc", "judge_accuracy", "position_bias")}
        if algo == "orm":
            judge = checkpoint.load_verifier(run), algo
    own = warm if name == "warm" else answered(model, task, plan)
    right = own.right(task).view(-1, 16).sum(1).tolist()
    return result | {"judge": judged_by(model, task, warm, *judge), "own": judged_by(model, task, own, *judge),
                     **{f"pass@{k}": sum(pass_at_k(16, c, k) for c in right) / len(right) for k in (1, 8)}}


def report(folder, plan, get):
    from plumbing import catalogue
    seeds, there = plan["seeds"], ("", *catalogue.names())
    systems = [name for name in plan["systems"] if SYSTEMS[name][0] in there]
    if len(systems) < len(plan["systems"]):
        print("left out, for methods/ has no such file:", ", ".join(name for name in plan["systems"] if name not in systems))
    found = get([("warm", seed) for seed in seeds])  # everything else begins there
    found |= get([(name, seed) for name in systems for seed in seeds])
    lines = ["| system | pass@1 | pass@8 | judge: accuracy | AUC | AUC at once | AUC of the score | best of 8 by its own judge |",
             "|---|---|---|---|---|---|---|---|"]
    for name in ("warm", *systems):
        each = lambda form, of, key: spread([found[name, seed][of][key] for seed in seeds], form) if key in found[name, seeds[0]][of] else "–"
        shares = [f"{spread([found[name, seed][key] for seed in seeds])}" for key in ("pass@1", "pass@8")]
        lines.append(f"| {'warm start' if name == 'warm' else name} | **{shares[0]}** | {shares[1]} | {each('.2f', 'judge', 'accuracy')} "
                     f"| {each('.2f', 'judge', 'auc')} | {each('.2f', 'judge', 'auc at once')} | {each('.2f', 'judge', 'auc score')} "
                     f"| {each('.3f', 'own', 'best of 8')} |")
    lines.append(f"\nSeeds {' / '.join(map(str, seeds))}, lowest to highest in brackets; {plan['tokens']:,} sampled tokens each; "
                 f"{plan['problems']} test problems, 16 samples of each. The judge is asked about the answers of the warm start.")
    drawn = [name for name in systems if name in DRAWN]
    over = lambda key, choose: {name: (run["tokens"], smooth(run[key])) for name in drawn if choose(run := found[name, seeds[0]], key)}
    panels = [{"title": f"answers during training, seed {seeds[0]}", "x": "sampled tokens", "y": "share that is right",
               "curves": over("accuracy", lambda run, key: True)}]
    judges = over("auc", lambda run, key: None not in run[key])
    return "\n".join(lines), panels + [{"title": "the judge that is asked", "x": "sampled tokens", "y": "AUC", "curves": judges}] * bool(judges)


def smooth(values, width=5):
    return [sum(values[max(0, i + 1 - width):i + 1]) / len(values[max(0, i + 1 - width):i + 1]) for i in range(len(values))]


if __name__ == "__main__":
    main(__file__, __doc__, cell, report, FULL, QUICK)
