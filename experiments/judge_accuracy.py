"""How right must a judge be to learn from it, and in which way may it be wrong?

    python experiments/judge_accuracy.py            half an hour of one core; goes on where it was stopped
    python experiments/judge_accuracy.py --quick    3 minutes: two numbers, a small model, one seed, two judges

Judges of a known accuracy a are made of the rule: its verdict r is flipped with probability 1 - a.
Three ways to be wrong:
  fresh         a new draw each time that something is judged
  same answer   the same whenever the same answer to the same problem is judged: a hash of both decides
  same form     the same for all answers of one form, "(n * n) + n" say: a taste, as a network has it
The theory. Fresh noise leaves the direction of the policy gradient what it is, and shortens it: E[r' |
y] = (1 - a) + (2a - 1) r, so that advantages without std are (2a - 1) times the true ones, and noise of
variance a (1 - a) comes on top. Consistent noise is another reward: it has an optimum of its own, and
reinforcement learning finds it if the error is something that a policy can learn.

The setting: countdown, one warm start a seed (that of own_judge.py), seeds 0, 1 and 2; GRPO without
std, on fresh problems, for the same number of sampled tokens; beside it iterated DPO (pairs of an
accepted and a rejected answer) and STaR (imitates what was accepted). The gain: pass@1 on 200 test
problems, 8 samples each, less that of the warm start. `slope`: the least-squares slope of the judge's
advantages on the rule's, over all samples of the run; the theory says 2a - 1. Results:
docs/judge_accuracy.{md,json,png}.
"""
import random
import re

from cells import main, spread, train

NOISES = ("fresh", "same answer", "same form")
FULL = {"seeds": (0, 1, 2), "warm": ("--sft-steps", 1000), "tokens": 100_000, "problems": 200, "prompts": 32, "cells": (
    *(("grpo", noise, a) for noise in NOISES[:2] for a in (60, 70, 80, 90, 99)), *(("grpo", "same form", a) for a in (80, 90, 99)),
    *((method, "same answer", a) for method in ("dpo", "star") for a in (80, 100)), ("grpo", "fresh", 100))}
QUICK = {"seeds": (0,), "warm": ("--numbers", 2, "--sft-steps", 400, "--n-layer", 2, "--n-embd", 64), "tokens": 60_000, "problems": 100,
         "prompts": 32, "cells": (("grpo", "fresh", 60), ("grpo", "fresh", 100), ("grpo", "same form", 80))}
NAMES = {"grpo": "GRPO", "dpo": "DPO", "star": "STaR"}
SETTINGS = {"grpo": {"std": False, "loss_aggregation": "constant"}, "dpo": {"iterative": True}, "star": {}}


def warm_of(folder, plan, seed):
    """-> the run of the warm start that both experiments about judges begin with."""
    return train(folder, f"warm-{seed}", "--algo", "sft", "--dialogue", 0.6, "--seed", seed, *plan["warm"])


def flipped(noise, accuracy, seed, problem, text, rng):
    """Is the verdict about this completion a wrong one? -> bool. accuracy: in percent; rng: for fresh
    noise."""
    if noise == "fresh":
        return rng.random() >= accuracy / 100
    answer = text.partition("<answer>")[2].partition("</answer>")[0]
    about = (problem.key, answer) if noise == "same answer" else re.sub("[0-9]+", "n", answer)
    return random.Random(f"judge {seed} {about}").random() >= accuracy / 100


def cell(folder, plan, method, *words):
    import checkpoint, evaluate, torch
    from config import from_flags
    from grpo import group_advantages
    from plumbing import catalogue
    *words, seed = words
    policy, task, _ = checkpoint.load_run(warm_of(folder, plan, seed))
    result = {}
    if method != "warm":
        noise, accuracy = words[0], int(words[1])
        cls, row = catalogue.find(method)
        algorithm = cls(policy, task, from_flags(cls.Config, row | SETTINGS[method] | {"prompts": plan["prompts"]}),
                        torch.Generator().manual_seed(int(seed)))
        rng, chance, spent, xy, xx = random.Random(f"problems {seed}"), random.Random(f"fresh {seed}"), 0, 0.0, 0.0
        result = {"tokens": [], "judge": [], "said": [], "true": []}
        while spent < plan["tokens"]:
            rollout = algorithm.collect([task.sample_problem(rng, "train") for _ in range(plan["prompts"])])
            right = rollout.right(task)
            wrong = torch.tensor([flipped(noise, accuracy, seed, problem, text, chance)
                                  for problem, text in zip(rollout.problems, rollout.completions(task.tokenizer))])
            said = right ^ wrong
            rollout.right = lambda task: said  # STaR asks the rollout
            algorithm.update(rollout, said.float())
            spent += rollout.sampled_tokens + rollout.discarded
            x, y = (group_advantages(verdict.float(), algorithm.config.group_size, std=False) for verdict in (right, said))
            xy, xx = xy + float((x * y).sum()), xx + float((x * x).sum())
            for name, value in (("tokens", spent), ("judge", 1 - wrong.float().mean()), ("said", said.float().mean()),
                                ("true", right.float().mean())):
                result[name].append(float(value))
        result["slope"] = xy / max(xx, 1e-9)
    judged = evaluate.sample_and_judge(policy, task, evaluate.fixed_problems(task, "test", plan["problems"]), 8)
    return result | {"pass@1": sum(j["right"] for j in judged) / len(judged)}


def tail(values):
    """The mean of the last quarter."""
    last = values[-max(1, len(values) // 4):]
    return sum(last) / len(last)


def report(folder, plan, get):
    seeds = plan["seeds"]
    warm = get([("warm", seed) for seed in seeds])
    found = get([(*words, seed) for words in plan["cells"] for seed in seeds])
    gains = lambda words: [found[(*words, seed)]["pass@1"] - warm["warm", seed]["pass@1"] for seed in seeds]
    each = lambda words, of: [of(found[(*words, seed)]) for seed in seeds]
    lines = ["| method | the judge errs | right in | on what is written first → last | it says right, last | slope | gain in pass@1 |",
             "|---|---|---|---|---|---|---|"]
    for words in plan["cells"]:
        method, noise, a = words
        first, last = (spread(each(words, of), ".2f") for of in (lambda run: run["judge"][0], lambda run: tail(run["judge"])))
        lines.append(f"| {NAMES[method]} | {noise if a < 100 else 'never'} | {a} % | {first} → {last} | "
                     f"{spread(each(words, lambda run: tail(run['said'])), '.2f')} | {spread(each(words, lambda run: run['slope']), '.2f')} | "
                     f"**{spread(gains(words), '+.3f')}** |")
    lines.append(f"\npass@1 of the warm start {spread(run['pass@1'] for run in warm.values())}. Seeds {' / '.join(map(str, seeds))}, lowest to "
                 f"highest in brackets; {plan['tokens']:,} sampled tokens each; {plan['problems']} test problems, 8 samples. First: the first step, "
                 "before any update; last: the last quarter of the steps.")
    curves = {}
    for method, noise in dict.fromkeys((method, noise) for method, noise, a in plan["cells"] if a < 100):
        chosen = sorted((words for words in plan["cells"] if words[0] == method and (words[1] == noise or words[2] == 100)), key=lambda w: w[2])
        # A taste has few forms to be wrong about: where it says 80 %, what is written may be judged rightly in 63 %.
        xs = [a if n != "same form" else 100 * sum(each((m, n, a), lambda run: run["judge"][0])) / len(seeds) for m, n, a in chosen]
        ys = list(map(gains, chosen))
        curves[f"{NAMES[method]}, {noise}"] = xs, [sum(y) / len(y) for y in ys], list(map(min, ys)), list(map(max, ys))
    panels = [{"title": "what a judge is worth", "x": "right in ... % of what the warm start writes", "y": "gain in pass@1", "curves": curves}]
    taste = next(words for words in plan["cells"] if words[1] == "same form")
    runs = [found[(*taste, seed)] for seed in seeds]
    panels.append({"title": f"a judge with a taste, right in {taste[2]} %", "x": "sampled tokens", "y": "share of samples", "curves": {
        f"{what}, seed {seed}": (run["tokens"], run[key]) for key, what in (("said", "it says right"), ("true", "right"))
        for seed, run in zip(seeds, runs)}})
    return "\n".join(lines), panels


if __name__ == "__main__":
    main(__file__, __doc__, cell, report, FULL, QUICK)
