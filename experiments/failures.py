"""What failure looks like: four ways to ruin a run, each with the curve that gives it away.

    python experiments/failures.py             about a quarter of an hour on 2 cores; goes on where it was stopped
    python experiments/failures.py --quick     3 minutes, once the warm start is there

1. a learning rate that collapses the policy within 20 steps; 2. a policy that has lost its entropy, and with it everything that
could be learned from; 3. reward without accuracy; 4. a KL in the loss that holds nothing, because it is the wrong estimate.
Results: runs/failures/*, docs/failures.png. The page is docs/failures.md.
"""
import argparse
import os
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(HERE))
RUNS = {  # name: flags of train.py; every one is a whole command
    "healthy": ["--algo", "grpo", "--steps", "20"],
    "rate": ["--algo", "grpo", "--steps", "20", "--lr", "3e-3"],
    "entropy": ["--algo", "grpo", "--steps", "20", "--train-problems", "1"],
    "format": ["--algo", "grpo", "--steps", "20", "--sft-steps", "100", "--accuracy-weight", "0.1", "--format-weight", "1"],
    "k1": ["--algo", "grpo", "--steps", "20", "--beta", "0.3", "--kl-estimator", "k1"],
    "k1_constant": ["--algo", "grpo", "--steps", "20", "--beta", "0.3", "--kl-estimator", "k1", "--loss-aggregation", "constant"],
    "k2": ["--algo", "grpo", "--steps", "20", "--beta", "0.3", "--kl-estimator", "k2"],
    "only_k1": ["--algo", "grpo", "--steps", "20", "--beta", "0.3", "--kl-estimator", "k1", "--accuracy-weight", "0"],
    "only_k1_constant": ["--algo", "grpo", "--steps", "20", "--beta", "0.3", "--kl-estimator", "k1", "--accuracy-weight", "0",
                         "--loss-aggregation", "constant"],
}
PANELS = [  # title, unit, (label, run, metric) of each curve
    ("1. collapse", "accuracy", [("lr 3e-3", "rate", "accuracy"), ("lr 3e-4", "healthy", "accuracy")]),
    ("2. entropy gone", "nats per token", [("one problem", "entropy", "entropy"), ("fresh problems", "healthy", "entropy")]),
    ("3. reward without accuracy", "mean over the samples", [("reward", "format", "reward"), ("accuracy", "format", "accuracy")]),
    ("4. KL to the warm start", "nats per token",
     [("beta 0", "healthy", "kl"), ("k1 in the loss", "k1", "kl"), ("k1, constant", "k1_constant", "kl"),
      ("k2 in the loss", "k2", "kl")]),
    ("4. k1 and no reward", "tokens per completion",
     [("sequence_mean", "only_k1", "length"), ("constant", "only_k1_constant", "length")]),
]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    os.chdir(HERE)
    folder = pathlib.Path("runs/failures-quick" if quick else "runs/failures")
    small = ["--prompts", "32", "--steps", "12"] if quick else []
    for name, flags in RUNS.items():
        run = folder / name
        if not (run / "summary.json").exists():
            command = [*flags, "--out", str(run), "--test-problems", "50", *small]
            if (run / "config.json").exists():
                command = ["--resume", str(run)]
            print("python train.py", *command, flush=True)
            subprocess.run([sys.executable, "train.py", *command], check=True)
    try:
        import plot
        curve = lambda run, metric: zip(*[(line["step"], line[metric]) for line in plot.read(folder / run)[0] if metric in line])
        panels = [{"title": title, "x": "step", "y": unit,
                   "curves": {label: tuple(curve(run, metric)) for label, run, metric in lines}} for title, unit, lines in PANELS]
        print(plot.lines(panels, (folder if quick else pathlib.Path("docs")) / "failures.png"))
    except ModuleNotFoundError:
        print("(no picture: matplotlib is not installed)")


if __name__ == "__main__":
    main()
