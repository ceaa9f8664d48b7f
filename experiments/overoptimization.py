"""A learned reward is a proxy: how far can it be pushed before the truth turns?

    python experiments/overoptimization.py            an hour of one core; goes on cell by cell where it was stopped
    python experiments/overoptimization.py --quick    2 minutes, its warm start included: one judge, no remedy

The claim (Gao et al., arXiv:2210.10760): over the distance d = sqrt(KL(pi || pi_start)) the proxy keeps
rising while the true reward rises, turns and falls; Best-of-N gets further for a given d than
reinforcement learning. Remedies: a KL in the loss, an ensemble of judges of which the most critical one
is believed, judges that are trained anew on what the policy writes now, or longer before the first step.

The setting: countdown, 0.1 million parameters, seeds 0, 1 and 2. A judge of verifier.py (`judges`: orm, prm or rm, with which remedies), trained before the first
step on a few thousand samples of the warm start, so that it is mediocre. RL: methods/rm_rl.py. Best-of-N: the same judge chooses among N samples of the
warm start; n samples a problem give every N <= n without bias; d from KL = log N - (N - 1)/N, which is exact without ties. True: the
rule. The turn is the highest point of the true reward, a mean over ten steps. Results: docs/overoptimization.{md,json,png}.
"""
import math

from cells import main, metrics, spread, train

SMALL = ["--n-layer", "2", "--n-embd", "64"]
REMEDIES = {"none": [], "KL in the loss": ["--beta", "0.05"], "ensemble of 4": ["--judges", "4", "--ensemble", "min"],
            "fresh judge": ["--fresh-judge", "20"], "better judge": ["--judge-steps", "60"]}
FULL = {"seeds": (0, 1, 2), "judges": {"orm": tuple(REMEDIES), "prm": ("none",), "rm": ("none",)}, "steps": 80, "judge_steps": 10,
        "problems": 100, "n": 64}
QUICK = {"seeds": (0,), "judges": {"orm": ("none",)}, "steps": 12, "judge_steps": 4, "problems": 20, "n": 16}


def rl(folder, plan, kind, remedy, seed):
    """-> the run of RL against a judge of this kind."""
    return train(folder, f"{kind}-{list(REMEDIES).index(remedy)}-{seed}", "--algo", "rm_rl", "--seed", seed, "--judge-kind", kind,
                 "--judge-steps", plan["judge_steps"], *SMALL, *REMEDIES[remedy], steps=plan["steps"])


def cell(folder, plan, what, *words):
    if what == "warm":  # first of all, one after the other: the runs share it
        return {"made": str(train(folder, f"warm-{words[0]}", "--algo", "sft", "--seed", words[0], *SMALL))}
    kind, remedy, seed = words
    run = rl(folder, plan, kind, remedy, seed)
    if what == "rl":
        lines = metrics(run)[:plan["steps"]]
        return {"d": [math.sqrt(max(0.0, line["kl_completion"])) for line in lines], "proxy": [line["proxy"] for line in lines],
                "true": [line["accuracy"] for line in lines], "auc": [line.get("auc") for line in lines]}
    return best_of_n(plan, run, kind)


def best_of_n(plan, run, kind):
    """The judge of a run chooses among samples of the run's warm start -> d, proxy and true, a list over N."""
    import json
    import torch
    import checkpoint, evaluate, sample
    from methods.rm_rl import judge_scores
    from model import ScalarModel
    warm, task, _ = checkpoint.load_run(json.loads((run / "summary.json").read_text())["warm_start"])
    judge, state = ScalarModel(warm), checkpoint.load(run)["algorithm"]["judges"]
    judge.load_state_dict({name.removeprefix("0."): value for name, value in state.items() if name.startswith("0.")})
    problems, n = evaluate.fixed_problems(task, "test", plan["problems"]), plan["n"]
    generator, proxy, true = torch.Generator().manual_seed(0), [], []
    for problem in problems:
        rollout = sample.collect(warm, task, [problem], sample.SamplingConfig(group_size=n), generator)
        proxy.append(judge_scores(judge.requires_grad_(False), kind, rollout, task))
        true.append(rollout.right(task).float())
    proxy, order = torch.stack(proxy).sort(dim=1)  # (problems, n), the best last
    true = torch.stack(true).gather(1, order)
    Ns = [2 ** k for k in range(int(math.log2(n)) + 1)]
    chances = torch.stack([chance_to_be_best(n, N) for N in Ns])  # (Ns, n)
    return {"d": [math.sqrt(max(0.0, math.log(N) - (N - 1) / N)) for N in Ns],
            **{name: (x @ chances.T).mean(0).tolist() for name, x in (("proxy", proxy), ("true", true))}}


def chance_to_be_best(n, N):
    """The chance that the i-th lowest of n is the best of N of them: C(i - 1, N - 1) / C(n, N), (n,).

    >>> chance_to_be_best(3, 2).tolist()
    [0.0, 0.3333333432674408, 0.6666666865348816]
    """
    import torch
    return torch.tensor([math.comb(i, N - 1) / math.comb(n, N) for i in range(n)])


def smooth(values, width=10):
    return [sum(values[max(0, i + 1 - width):i + 1]) / len(values[max(0, i + 1 - width):i + 1]) for i in range(len(values))]


def turn(curve):
    """Where the true reward is highest -> (d, its height, its height at the end), means over ten steps."""
    true, d = smooth(curve["true"]), smooth(curve["d"])
    best = max(range(len(true)), key=true.__getitem__)
    return d[best], true[best], true[-1]


def report(folder, plan, get):
    seeds, judges = plan["seeds"], plan["judges"]
    get([("warm", seed) for seed in seeds])
    runs = get([("rl", kind, remedy, seed) for kind in judges for remedy in judges[kind] for seed in seeds])
    chosen = get([("bon", kind, "none", seed) for kind in judges for seed in seeds])
    lines = ["| judge | | the true reward is highest at d = | it is then | at the end | proxy, first step → last |", "|---|---|---|---|---|---|"]
    panels = []
    for kind in judges:
        for remedy in judges[kind]:
            curves = [runs["rl", kind, remedy, seed] for seed in seeds]
            d, best, last = zip(*map(turn, curves))
            first, end = (spread(curve["proxy"][i] for curve in curves) for i in (0, -1))
            lines.append(f"| {kind} | RL, {remedy} | {spread(d, '.2f')} | {spread(best)} | {spread(last)} | {first} → {end} |")
        bon = [chosen["bon", kind, "none", seed] for seed in seeds]
        top = [max(range(len(c["true"])), key=c["true"].__getitem__) for c in bon]
        lines.append(f"| {kind} | Best-of-N | {spread((c['d'][i] for c, i in zip(bon, top)), '.2f')} | "
                     f"{spread(c['true'][i] for c, i in zip(bon, top))} | {spread(c['true'][-1] for c in bon)} | "
                     f"{spread(c['proxy'][0] for c in bon)} → {spread(c['proxy'][-1] for c in bon)} |")
        both = {f"RL, seed {seed}": runs["rl", kind, "none", seed] for seed in seeds} | {
            f"Best-of-N, seed {seed}": chosen["bon", kind, "none", seed] for seed in seeds}
        for name, title in (("proxy", "what the judge says"), ("true", "what the rule says"))[kind != "orm":]:
            panels.append({"title": f"{kind}: {title}", "x": "d = sqrt(KL), KL in nats per completion", "y": "mean",
                           "curves": {label: (smooth(curve["d"]), smooth(curve[name])) if label[:2] == "RL" else (curve["d"], curve[name])
                                      for label, curve in both.items()}})
    return "\n".join([*lines, "\n[What it means](claims.md)."]), panels


if __name__ == "__main__":
    main(__file__, __doc__, cell, report, FULL, QUICK)
