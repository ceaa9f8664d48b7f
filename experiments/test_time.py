"""Thinking longer at test time: what does each token buy, for each way of searching?

    python experiments/test_time.py            about an hour on 2 cores; stop and start it as you like, it goes on cell by cell
    python experiments/test_time.py --quick    3 minutes: small judges, 40 problems, only to see that it works

The claims to be examined: searching with a judge beats sampling at a fraction of the tokens, MCTS is below sampling (REBASE,
arXiv:2408.00724); votes saturate (self-consistency, arXiv:2203.11171). Policies: the warm start of countdown, the same after
GRPO on a million tokens, and the warm start of iterated squaring. Judges, each trained on the samples of the policy it judges:
orm, prm (soft labels, 4 rollouts) and the critic of PPO, trained alone with the policy held fixed. 200 test problems; the
tokens are those that were really sampled.

Two cells run at a time, with one thread each. Results: runs/test-time/, docs/test_time.md, docs/test_time.json, docs/test_time.png.
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

HERE = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(HERE))
PLAIN = ["--eval-every", "0", "--test-problems", "1"]
POLICIES = {  # name: (flags of train.py, judges that are trained for it)
    "warm": (["--algo", "sft", "--task", "countdown"], ("orm", "prm", "critic")),
    "grpo": (["--algo", "grpo", "--task", "countdown", "--steps", "1000000", "--token-budget", "1000000"],
             ("orm", "prm", "critic")),
    "squaring": (["--algo", "sft", "--task", "iterated_squaring"], ("orm", "prm")),
}
JUDGES = {"orm": ["--algo", "orm", "--steps", "60"], "prm": ["--algo", "prm", "--steps", "100"],
          "critic": ["--algo", "ppo", "--critic-warmup", "60", "--steps", "60", "--prompts", "256"]}
# label: (method, judge, settings of search.py)
LEARNED = {"score": "judge"}
COUNTDOWN = {
    "greedy": ("greedy", "", {}),
    "sampling until the rule accepts": ("sample", "", {}),
    "best of n, rule": ("best_of_n", "", {}),
    "beam search, critic inside, rule": ("beam_search", "critic", {}),
    "rebase, critic inside, rule": ("rebase", "critic", {}),
    "mcts, critic inside, rule": ("mcts", "critic", {}),
    "mcts, rollouts inside, rule": ("mcts", "", {}),
    "budget forcing": ("budget_forcing", "", {}),
    "majority vote": ("majority_vote", "", {}),
    "best of n, orm": ("best_of_n", "orm", LEARNED),
    "best of n, prm": ("best_of_n", "prm", LEARNED),
    "rebase, prm": ("rebase", "prm", LEARNED),
    "best of n, critic": ("best_of_n", "critic", LEARNED),
    "beam search, critic": ("beam_search", "critic", LEARNED),
    "rebase, critic": ("rebase", "critic", LEARNED),
    "mcts, critic": ("mcts", "critic", LEARNED),
}
SQUARING = {
    "greedy": ("greedy", "", {}),
    "majority vote": ("majority_vote", "", {}),
    "majority vote, weighted by orm": ("majority_vote", "orm", {"score": "judge", "weighted": True}),
    "best of n, own confidence": ("best_of_n", "", {}),
    "best of n, orm": ("best_of_n", "orm", LEARNED),
    "best of n, prm": ("best_of_n", "prm", LEARNED),
    "beam search, prm": ("beam_search", "prm", LEARNED),
    "rebase, prm": ("rebase", "prm", LEARNED),
    "mcts, prm": ("mcts", "prm", LEARNED),
}
METHODS = {"warm": COUNTDOWN, "grpo": COUNTDOWN, "squaring": SQUARING}
FULL = {"folder": "runs/test-time", "problems": 200, "policies": ("warm", "squaring", "grpo"), "flags": [],
        "budgets": {"warm": (64, 128, 256, 512), "grpo": (64, 128, 256, 512), "squaring": (16, 32, 64, 128)}}
QUICK = {"folder": "runs/test-time-quick", "problems": 40, "policies": ("warm",), "budgets": {"warm": (128,)},
         "flags": ["--sft-steps", "150", "--steps", "8"]}


def train_cell(plan, name):
    """Train a policy ("warm") or a judge of one ("warm-prm")."""
    import train
    policy, _, judge = name.partition("-")
    run = pathlib.Path(plan["folder"]) / name
    start = POLICIES[policy][0]
    if judge:
        start = [*JUDGES[judge], "--task", start[3], "--init", f"{plan['folder']}/{policy}"]
    train.main(["--resume", str(run)] if (run / "config.json").exists() else [*start, *PLAIN, *plan["flags"], "--out", str(run)])


def search_cell(plan, policy, label):
    """Measure one method on one policy at all budgets."""
    import checkpoint, evaluate, search
    method, judge, settings = METHODS[policy][label]
    folder = pathlib.Path(plan["folder"])
    model, task, _ = checkpoint.load_run(folder / policy)
    scalar = checkpoint.load_judge(folder / f"{policy}-{judge}") if judge else None
    c = search.SearchConfig(method=method, **settings)
    problems = evaluate.fixed_problems(task, "test", plan["problems"])
    typical = search.typical_length(search.Desk(model, task, problems[:1]))
    budgets = plan["budgets"][policy][:1 if method == "greedy" else None]
    rows = [search.measure(model, task, problems, method, budget, c, scalar, typical) for budget in budgets]
    (folder / f"{policy}: {label}.json").write_text(json.dumps(rows, indent=2) + "\n")


def make(plan, cells):
    """Make what is not there yet, two cells at a time, each in a process of its own."""
    def one(cell):
        done = pathlib.Path(plan["folder"], f"{cell[0]}/summary.json" if len(cell) == 1 else f"{cell[0]}: {cell[1]}.json")
        if not done.exists():
            print("cell", *cell, flush=True)
            with open(pathlib.Path(plan["folder"]) / "log.txt", "a") as log:
                subprocess.run([sys.executable, __file__, "--cell", *cell, *(["--quick"] if plan is QUICK else [])], check=True,
                               env=os.environ | {"OMP_NUM_THREADS": "1"}, cwd=HERE, stdout=log, stderr=log)
    with ThreadPoolExecutor(2) as two:
        list(two.map(one, cells))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--cell", nargs="+", metavar="NAME", help="one cell alone")
    given = parser.parse_args()
    plan = QUICK if given.quick else FULL
    os.chdir(HERE)
    pathlib.Path(plan["folder"]).mkdir(parents=True, exist_ok=True)
    if given.cell:
        return train_cell(plan, *given.cell) if len(given.cell) == 1 else search_cell(plan, *given.cell)
    make(plan, [(policy,) for policy in plan["policies"]])
    for policy in plan["policies"]:
        make(plan, [(f"{policy}-{judge}",) for judge in POLICIES[policy][1]])
        make(plan, [(policy, label) for label in METHODS[policy]])
    read = lambda policy, label: json.loads(pathlib.Path(plan["folder"], f"{policy}: {label}.json").read_text())
    table = {policy: {label: read(policy, label) for label in METHODS[policy]} for policy in plan["policies"]}
    lines = []
    for policy, methods in table.items():
        budgets = plan["budgets"][policy]
        lines += [f"| {policy}: accuracy (tokens per problem) at a budget of | " + " | ".join(map(str, budgets)) + " |",
                  "|---|" + "---|" * len(budgets)]
        for label, rows in methods.items():
            cells = [f"{r['accuracy']:.3f} ({r['tokens']:.0f})" for r in rows] + [""] * (len(budgets) - len(rows))
            lines.append(f"| {label} | " + " | ".join(cells) + " |")
        lines.append("")
    text = "\n".join(lines)
    print(text)
    out = pathlib.Path(plan["folder"] if given.quick else "docs")
    (out / "test_time.md").write_text(text)
    (out / "test_time.json").write_text(json.dumps(table, indent=1) + "\n")
    try:
        import plot
        panels = []
        for policy, methods in table.items():
            ruled = {label: rows for label, rows in methods.items() if "rule" in label or label == "greedy"}
            if len(ruled) > 1:
                panels.append((f"{policy}: the rule chooses", ruled))
            panels.append((f"{policy}: judges and votes choose", {k: rows for k, rows in methods.items() if "rule" not in k}))
        plot.search(panels, out / "test_time.png")
    except ModuleNotFoundError:
        print("(no picture: matplotlib is not installed)")


if __name__ == "__main__":
    main()
