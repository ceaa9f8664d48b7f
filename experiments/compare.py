"""Every algorithm on equal terms: the same warm start, the same number of sampled tokens, the same choice of learning rates.

    python experiments/compare.py              about 80 minutes on 2 cores; stop and start it as you like, it goes on cell by cell
    python experiments/compare.py --quick      3 minutes: two methods, few tokens, only to see that it works

The claim to be examined: which way of learning from a rule gets most out of a token? Countdown, defaults, a million sampled
tokens each (--token-budget), seeds 0 and 1. A cell is one run: train, then measure. Of three learning rates the one is taken
that does best on `val` with seed 0; only the chosen cells are measured on `test`. Beside them: the warm start as it is, trained on
for as many seconds as GRPO took, and blind search with as many attempts as the policy of GRPO makes.

Two cells run at a time, with one thread each. Results: runs/compare/*.json, docs/compare.md.
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

HERE = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(HERE))
# name: (--algo, other flags, learning rates)
METHODS = {
    "star": ("star", [], ("3e-4", "1e-3", "3e-3")),
    "reinforce": ("reinforce", [], ("1.5e-4", "3e-4", "6e-4")),
    "rloo": ("rloo", [], ("1.5e-4", "3e-4", "6e-4")),
    "grpo": ("grpo", [], ("1.5e-4", "3e-4", "6e-4")),
    "dr_grpo": ("dr_grpo", [], ("1.5e-4", "3e-4", "6e-4")),
    "dapo": ("dapo", [], ("1.5e-4", "3e-4", "6e-4")),
    "ppo": ("ppo", [], ("1.5e-4", "3e-4", "6e-4")),
    "dpo": ("dpo", [], ("1.5e-4", "3e-4", "6e-4")),
    "dpo --iterative": ("dpo", ["--iterative"], ("1.5e-4", "3e-4", "6e-4")),
}
FULL = {"folder": "runs/compare", "tokens": 1_000_000, "seeds": (0, 1), "problems": 500, "methods": METHODS, "flags": []}
QUICK = {"folder": "runs/compare-quick", "tokens": 60_000, "seeds": (0,), "problems": 50, "flags": ["--sft-steps", "100"],
         "methods": {name: METHODS[name] for name in ("star", "grpo")}}


def cell(plan, method, lr, seed, split):
    """Train one run if it is not there yet, measure it on `split`, and keep the result. Runs in a process of its own."""
    import checkpoint, evaluate, sft, train
    run = pathlib.Path(plan["folder"]) / f"{method}-{lr}-{seed}".replace(" ", "")
    started, resumed = time.process_time(), (run / "config.json").exists()
    common = ["--seed", str(seed), "--eval-every", "0", "--test-problems", "1", *plan["flags"]]
    if method == "more_sft":  # the rival: imitation for as many seconds as GRPO took
        rival = run.parent / f"grpo-{lr}-{seed}"
        start, task, _ = checkpoint.load_run(json.loads((rival / "summary.json").read_text())["warm_start"])
        kept = rival / "seconds.json"  # a run that was stopped and resumed has only the clock's
        seconds = (json.loads(kept.read_text()) if kept.exists() else
                   json.loads((rival / "summary.json").read_text())["seconds"]["rl"])
        sft.warm_start(start, task, sft.SFTConfig(), f"{seed} more", seconds=seconds)
        summary = {"seconds": {"rl": seconds}, "tokens": 0, "steps": 0, "updates": 0}
    else:
        if not (run / "summary.json").exists():
            algo, flags, _ = METHODS.get(method, ("sft", [], ()))
            rate = ["--lr", lr, "--steps", "1000000", "--token-budget", str(plan["tokens"])] if algo != "sft" else []
            train.main(["--resume", str(run)] if resumed else
                       ["--algo", algo, "--task", "countdown", "--out", str(run), *common, *flags, *rate])
            if not resumed:  # one thread: the processor's own time, whatever else the machine had to do
                (run / "seconds.json").write_text(json.dumps(time.process_time() - started))
        start, task, _ = checkpoint.load_run(run)
        summary = json.loads((run / "summary.json").read_text())
        if (run / "seconds.json").exists():
            summary["seconds"]["rl"] = json.loads((run / "seconds.json").read_text())
    problems = evaluate.fixed_problems(task, split, plan["problems"])
    result = evaluate.evaluate(start, task, problems, 16 if split == "test" else 8)
    result |= {"seconds": summary["seconds"]["rl"], **{name: summary[name] for name in ("tokens", "steps", "updates")}}
    if method == "grpo" and split == "test":
        result["blind_search"] = task.blind_search(problems, result["attempts"], searches=64)
    (run.parent / f"{run.name}-{split}.json").write_text(json.dumps(result, indent=2) + "\n")


def results(plan, cells):
    """The results of some cells, (method, lr, seed, split) each: made now, two at a time, unless they are there already."""
    def get(c):
        path = pathlib.Path(plan["folder"]) / "{}-{}-{}-{}.json".format(*c).replace(" ", "")
        if not path.exists():
            print("cell", *c, flush=True)
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path.with_suffix(".log"), "a") as log:
                quick = ["--quick"] if plan is QUICK else []
                subprocess.run([sys.executable, __file__, "--cell", *map(str, c), *quick], check=True,
                               env=os.environ | {"OMP_NUM_THREADS": "1"}, cwd=HERE, stdout=log, stderr=log)
        return json.loads(path.read_text())
    with ThreadPoolExecutor(2) as two:
        return dict(zip(cells, two.map(get, cells)))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--cell", nargs=4, metavar=("METHOD", "LR", "SEED", "SPLIT"), help="one cell alone")
    given = parser.parse_args()
    plan = QUICK if given.quick else FULL
    os.chdir(HERE)
    if given.cell:
        return cell(plan, *given.cell)
    methods, seeds = plan["methods"], plan["seeds"]
    results(plan, [("sft", "0", seed, "test") for seed in seeds])  # makes the warm starts, once
    tried = results(plan, [(m, lr, seeds[0], "val") for m in methods for lr in methods[m][2]])
    best = {m: max(methods[m][2], key=lambda lr: tried[m, lr, seeds[0], "val"]["pass@1"]) for m in methods}
    rows = [("sft", "0"), *best.items(), ("more_sft", best["grpo"])]
    table = results(plan, [(m, lr, seed, "test") for m, lr in rows for seed in seeds])
    lines = ["| method | learning rates: pass@1 on val, seed 0 | pass@1 | pass@8 | tokens per answer | updates | seconds |",
             "|---|---|---|---|---|---|---|"]
    both = lambda m, lr, name, form: " / ".join(format(table[m, lr, seed, "test"][name], form) for seed in seeds)
    for m, lr in rows:
        choice = ", ".join(f"{'**' * (r == lr)}{r}: {tried[m, r, seeds[0], 'val']['pass@1']:.3f}{'**' * (r == lr)}"
                           for r in methods[m][2]) if m in methods else ""
        title = {"sft": "warm start", "more_sft": "warm start, trained on"}.get(m, m)
        lines.append(f"| {title} | {choice} | {both(m, lr, 'pass@1', '.3f')} | {both(m, lr, 'pass@8', '.3f')} "
                     f"| {both(m, lr, 'length', '.1f')} | {both(m, lr, 'updates', 'd')} | {both(m, lr, 'seconds', '.0f')} |")
    lines.append(f"| blind search with grpo's attempts | | {both('grpo', best['grpo'], 'blind_search', '.3f')} | | | | |")
    text = "\n".join(lines) + "\n"
    print(text)
    pathlib.Path(plan["folder"] if given.quick else "docs", "compare.md").write_text(text)


if __name__ == "__main__":
    main()
