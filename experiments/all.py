"""Every table and picture of README and docs, made anew. Goes on where it was stopped: what lies under runs/ is not made twice.

    python experiments/all.py            many hours on 2 cores
    python experiments/all.py --quick    each experiment with small sizes, into runs/; about three minutes each

The main job's three runs come first; then every experiment of this folder, one after the other; then the pictures. One thread a run: sums
are added in another order with more, and a run is another one then.
"""
import os
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
NAMES = """
    compare dense_reward limit_of_rl longer_thinking r1 reward_hacking serial test_time failures
    defaults stream_of_search stream_of_search_longer better_teacher overoptimization gradient_variance abstention before_and_after coconut
    compute_optimal constitution coverage credit curriculum_of_ones_own distillation_recipe echo_chamber
    games gap hidden_condition judge_accuracy leco longer_or_larger mcts_noise memorise model_collapse
    never_solved noisy_chains own_judge rare_facts second_turn stale tree_of_thoughts two_notations
    wrong_answers
    """.split()


def main_job(seed):
    """The command of one run of the main job, or the one that goes on with it; None if it is done."""
    run = HERE.parent / "runs" / f"countdown-{seed}"
    if (run / "summary.json").exists():
        return None
    if (run / "config.json").exists():
        return ["train.py", "--resume", str(run)]
    return ["train.py", "--algo", "grpo", "--task", "countdown", "--seed", str(seed), "--baselines", "--out", str(run)]


def commands(quick):
    """What is to be run, in order -> list of argument lists."""
    jobs = [] if quick else [job for job in map(main_job, (0, 1, 2)) if job]
    jobs += [[f"experiments/{name}.py", *["--quick"] * quick] for name in NAMES]
    pictures = [["docs/main_table.py"], ["plot.py", *(f"runs/countdown-{seed}" for seed in (0, 1, 2)), "--out", "docs/countdown.png"]]
    return jobs if quick else jobs + [["experiments/compare.py", "--all"], ["experiments/compare.py", "--many"]] + pictures


if __name__ == "__main__":
    for job in commands("--quick" in sys.argv[1:]):
        print("python", *job, flush=True)
        subprocess.run([sys.executable, *job], cwd=HERE.parent, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
