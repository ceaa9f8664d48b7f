"""Every algorithm on equal terms: the same warm start, the same number of sampled tokens, the same
choice of learning rates.

    python experiments/compare.py              an hour and a half on 2 cores: six methods; goes on cell by cell where it was stopped
    python experiments/compare.py --all        all of them: half a day
    python experiments/compare.py --many       32 optimizer steps a batch, five methods: only then do clips and ratios matter; --all --many: of all
    python experiments/compare.py --quick      3 minutes, once the warm start is there: two methods, one rate, 200,000 tokens

The claim to be examined: which way of learning from a rule gets most out of a token, and which keeps
pass@64? Countdown, a warm start of 600 steps, else the defaults; a million sampled tokens each
(--token-budget), seeds 0, 1 and 2. A cell is one run: train, then measure. Of three learning rates the one is taken that does best
on `val` with seed 0; only the chosen cells are measured on `test`. Equal seconds: pass@1 on val at the last look
before the moment at which the quickest run had used up its tokens (processor time, looks included). Beside them: the warm start as it
is, trained on for as many seconds as GRPO took, and random search with as many attempts as the policy
of GRPO makes. The teacher of `distill` is the GRPO run of its seed, whose own tokens are not counted.

Results: docs/compare.{md,json,png}, docs/compare-all.*, docs/compare-many.*, docs/compare-all-many.*.
"""
import json
import resource

from cells import main, metrics, spread, train

RATES = ("1.5e-4", "3e-4", "6e-4")
NAMES = ("reinforce", "rloo", "grpo", "dr_grpo", "dapo", "gspo", "cispo", "maxrl", "nsr", "wreinforce", "reinforce_pp", "cov", "pods", "ppo",
         "vineppo", "prime", "sdpo", "bond", "rm_rl", "distill", "dpo")
# name: (--algo, other flags, learning rates)
METHODS = {"star": ("star", [], ("3e-4", "1e-3", "3e-3")), **{name: (name, [], RATES) for name in NAMES},
           "cov --cov clip": ("cov", ["--cov", "clip"], RATES), "dpo --nll 0": ("dpo", ["--nll", "0"], RATES),
           "dpo --iterative": ("dpo", ["--iterative"], RATES), "grpo --curriculum band": ("grpo", ["--curriculum", "band"], RATES),
           "grpo --n-kv-head 1": ("grpo", ["--n-kv-head", "1"], RATES)}
FEW = ("grpo", "maxrl", "nsr", "cov", "vineppo", "pods")
RATIOS = ("grpo", "gspo", "cispo", "dapo", "maxrl")  # with one step a batch these differ by little but the advantage: the ratio is 1
FULL = {"tokens": 1_000_000, "seeds": (0, 1, 2), "problems": 500, "samples": 64, "look": 5, "methods": {name: METHODS[name] for name in FEW}}
QUICK = {"tokens": 200_000, "seeds": (0,), "problems": 100, "samples": 16, "look": 5,
         "methods": {name: (name, [], ("3e-4",)) for name in ("star", "grpo")}}


def everything(plan):
    """all methods"""
    return plan | {"methods": METHODS}


def many(plan):
    """32 optimizer steps a batch, at a quarter of the learning rates"""
    few = {name: METHODS[name] for name in RATIOS}
    return plan | {"methods": {name: (algo, [*flags, "--epochs", "1", "--mini-batches", "32"], tuple(f"{float(lr) / 4:g}" for lr in rates))
                               for name, (algo, flags, rates) in (few if plan["methods"] is FULL["methods"] else plan["methods"]).items()}}


def cell(folder, plan, method, lr, seed, split):
    """Train one run if it is not there yet, and measure it on `split`."""
    import checkpoint, evaluate, sft
    name = lambda method, lr=lr: f"{method}-{lr}-{seed}".replace(" ", "")
    run, looks, device = folder / name(method), [], evaluate.pick_device("auto")
    if method == "continued_sft":  # the rival: imitation for as many seconds as GRPO took
        rival = folder / name("grpo")
        policy, task, _ = checkpoint.load_run(json.loads((rival / "summary.json").read_text())["warm_start"], device)
        seconds = json.loads((rival / "seconds.json").read_text())
        losses = sft.warm_start(policy, task, sft.SFTConfig(), f"{seed} more", seconds=seconds)
        summary = {"tokens": 0, "steps": 0, "updates": len(losses)}
    else:
        if method not in ("sft", *plan["methods"]):
            raise SystemExit(f"error: no method {method!r} here; there are {', '.join(plan['methods'])}; --all has all")
        algo, flags, _ = plan["methods"].get(method, ("sft", [], ()))
        limit = ["--lr", lr, "--steps", 10**6, "--token-budget", plan["tokens"]] if algo != "sft" else []
        if limit and "--n-kv-head" not in flags:  # the warm start of all of them: its seconds are nobody's
            limit += ["--init", folder / name("sft", "0")]
        teacher = ["--teacher", folder / name("grpo", plan["methods"]["grpo"][2][0])] if algo == "distill" else []
        resumed, kept = (run / "config.json").exists(), run / "seconds.json"
        train(folder, run.name, "--algo", algo, "--seed", seed, *flags, *limit, *teacher, "--eval-every", plan["look"],
              "--eval-problems", plan["problems"] // 2)
        policy, task, _ = checkpoint.load_run(run, device)
        summary, used = json.loads((run / "summary.json").read_text()), resource.getrusage(resource.RUSAGE_CHILDREN)
        if not kept.exists():  # the processor's own time, whatever else there was to do; of a resumed run the clock's
            kept.write_text(json.dumps(summary["seconds"]["rl"] if resumed else used.ru_utime + used.ru_stime))
        seconds, looks = json.loads(kept.read_text()), metrics(run)
    problems = evaluate.fixed_problems(task, split, plan["problems"])
    result = evaluate.evaluate(policy, task, problems, plan["samples"] if split == "test" else 8, (1, 8, 64))
    result |= {"seconds": seconds, "entropy": looks[-1]["entropy"] if looks else None, "looks": curve(looks, seconds),
               **{name: summary[name] for name in ("tokens", "steps", "updates")}}
    if method == "grpo" and split == "test":
        result["random_search"] = task.random_search(problems, result["attempts"], searches=64)
    return result


def curve(lines, seconds):
    """Lines of metrics, `seconds` of processor time for all of them -> [seconds so far, pass@1 on val, KL per token or None], one
    for each look. The lines have the clock's seconds, which depend on what else there was to do: they only say which share.

    >>> curve([{"seconds": 1.0}, {"seconds": 3.0, "val_pass@1": 0.25, "kl": 0.5}, {"seconds": 4.0}], 6.0)
    [[3.0, 0.25, 0.5]]
    """
    found, share, whole = [], 0.0, sum(line["seconds"] for line in lines)
    for line in lines:
        share += line["seconds"] / whole
        if "val_pass@1" in line:
            found.append([share * seconds, line["val_pass@1"], line.get("kl")])
    return found


def at_seconds(looks, limit):
    """pass@1 at the last look before `limit` seconds; None if there was none.

    >>> at_seconds([[10.0, 0.3, None], [20.0, 0.4, None]], 15.0)
    0.3
    """
    return next((accuracy for seconds, accuracy, _ in reversed(looks) if seconds <= limit), None)


def report(folder, plan, get):
    methods, seeds = plan["methods"], plan["seeds"]
    get([("sft", "0", seed, "test") for seed in seeds])  # makes the warm starts, once
    if "distill" in methods:  # and the teachers
        get([("grpo", methods["grpo"][2][0], seed, "val") for seed in seeds])
    tried = get([(m, lr, seeds[0], "val") for m in methods for lr in methods[m][2]])
    best = {m: max(methods[m][2], key=lambda lr: tried[m, lr, seeds[0], "val"]["pass@1"]) for m in methods}
    rows = [("sft", "0"), *best.items()]
    table = get([(m, lr, seed, "test") for m, lr in rows for seed in seeds])
    table |= get([("continued_sft", best["grpo"], seed, "test") for seed in seeds])  # for as long as those of GRPO took
    limit = min([each["seconds"] for (m, *_), each in table.items() if m in methods], default=0.0)
    lines = ["| method | learning rates: pass@1 on val, seed 0 | pass@1 | pass@8 | pass@64 | entropy | legal | tokens per answer "
             f"| updates | seconds | val pass@1 after {limit:.0f} s |", "|---" * 11 + "|"]
    for m, lr in [*rows, ("continued_sft", best["grpo"])]:
        each = [table[m, lr, seed, "test"] for seed in seeds]
        both = lambda of, form=".3f": spread(values, form) if None not in (values := [of(e) for e in each]) else "–"
        choice = ", ".join(f"{'**' * (r == lr)}{r}: {tried[m, r, seeds[0], 'val']['pass@1']:.3f}{'**' * (r == lr)}"
                           for r in methods[m][2]) if m in methods else ""
        title = {"sft": "warm start", "continued_sft": "warm start, trained on"}.get(m, m)
        legal = lambda e: e["legal"] / e["attempts"] if e.get("attempts") else None
        lines.append(f"| {title} | {choice} | {both(lambda e: e['pass@1'])} | {both(lambda e: e['pass@8'])} "
                     f"| {both(lambda e: e.get('pass@64'))} | {both(lambda e: e.get('entropy'))} | {both(legal)} "
                     f"| {both(lambda e: e['length'], '.1f')} | {both(lambda e: e['updates'], 'd')} | {both(lambda e: e['seconds'], '.0f')} "
                     f"| {both(lambda e: at_seconds(e.get('looks', []), limit))} |")
    chance = spread(table["grpo", best["grpo"], seed, "test"]["random_search"] for seed in seeds)
    lines.append(f"| random search with grpo's attempts | | {chance} |" + " |" * 8)
    first = lambda m, lr: table[m, lr, seeds[0], "test"]
    curves = {m: [(kl, accuracy) for _, accuracy, kl in first(m, lr).get("looks", []) if kl is not None]
              for m, lr in best.items() if first(m, lr)["pass@1"] >= first("sft", "0")["pass@1"]}  # what is ruined goes far, and hides the rest
    frontier = {m: tuple(map(list, zip(*points))) for m, points in curves.items() if points}
    return "\n".join(lines), [{"title": f"accuracy against KL, seed {seeds[0]}", "x": "KL to the warm start, nats per token",
                               "y": "pass@1 on val", "curves": frontier}] if frontier else []


if __name__ == "__main__":
    main(__file__, __doc__, cell, report, FULL, QUICK, all=everything, many=many)
