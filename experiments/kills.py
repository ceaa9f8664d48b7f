"""A run that is killed again and again ends as the run that never was.

    python experiments/kills.py        20 kills, 2 minutes (5 on a busy machine); or --algo ppo --kills 100 --seed 1

The claim: after a SIGKILL at any moment `train.py --resume RUN` goes on bit by bit (on a CPU). A short run goes to its end; the
same run, with a warm start of its own, is killed at the moments of PLAN and resumed until it ends, and begun once more until
there were enough kills. Compared: the whole checkpoint (weights, reference, critic, optimizer, random states, counters),
metrics.jsonl, samples.txt, summary.json and the warm start, all but what the clock says; no half-written file may be left.
"""
import argparse
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(HERE))
import torch

import checkpoint

STEPS = 30
TINY = ("--task countdown --numbers 2 --max-number 9 --cot off --expert-share 0.5 --format-weight 0.5 --n-layer 1 --n-embd 32 "
        "--n-head 2 --sft-steps 80 --sft-lr 0.01 --sft-muon-lr 0.02 --prompts 4 --group-size 4 --lr 0.003 --test-problems 20 "
        f"--eval-problems 4 --eval-every 3 --checkpoint-every 2 --device cpu --steps {STEPS} --out run").split()
# (name, how many steps are waited for (random, in this range), then which file, then at most so many seconds)
PLAN = [("in the warm start", (0, 0), "runs/warm-*", 0.5), ("while the warm start is written", (0, 0), "runs/warm-*/*.writing", 0),
        ("in the evaluation before step 1", (0, 0), "runs/warm-*/checkpoint.pt", 0.1),
        ("while the first checkpoint is written", (0, 0), "run/checkpoint.pt.*.writing", 0), ("anywhere", (0, 5), "run", 0.1),
        ("while a checkpoint is written", (1, 5), "run/checkpoint.pt.*.writing", 0), ("anywhere", (0, 5), "run", 0.1),
        ("while anything is written", (1, 5), "run/*.writing", 0), ("in its first second", (0, 0), "run", 1.0),
        ("at the end", (STEPS, STEPS), "run", 0.2)]


def lines(home):
    return (home / "run/metrics.jsonl").read_bytes().count(b"\n") if (home / "run/metrics.jsonl").exists() else 0


def resume(home, argv, moment=None, rng=None):
    """Begin the run in the folder `home`, or go on with it; kill it at the moment, a row of PLAN. -> what lies there then, or
    None if it came to its end."""
    home.mkdir(exist_ok=True)
    config, left = home / "run/config.json", {*home.rglob("*.writing")}
    old = config.stat().st_mtime_ns if config.exists() else None
    begun = lambda: config.exists() and config.stat().st_mtime_ns != old  # what is written first, and anew by each resume
    with open(home / "errors", "w") as errors:
        process = subprocess.Popen([sys.executable, HERE / "train.py", *(["--resume", "run"] if old else argv)], cwd=home,
                                   stdout=subprocess.DEVNULL, stderr=errors)
    if moment:
        goal = min(STEPS, lines(home) + rng.randint(*moment[1]))
        for awaited in (begun, lambda: lines(home) >= goal, lambda: any(home.glob(moment[2]))):
            while process.poll() is None and not awaited():
                time.sleep(0.0002)
        time.sleep(rng.uniform(0, moment[3]))
        process.kill()
    if process.wait() == -signal.SIGKILL:
        saved = checkpoint.load(home / "run")["state"]["step"] if (home / "run/checkpoint.pt").exists() else "no"
        half = [path.name.split(".")[0] for path in {*home.rglob("*.writing")} - left]
        return f"checkpoint {saved:>2}, {lines(home):2} lines of metrics" + f", half of {', '.join(half)}" * bool(half)
    if process.returncode:
        raise RuntimeError(f"status {process.returncode}: {(home / 'errors').read_text()}")


def flat(value, name=""):
    """Nested dicts and lists -> {place: leaf}, tensors as bytes, without what the clock says."""
    if isinstance(value, (dict, list, tuple)):
        return {place: leaf for key, each in (value.items() if isinstance(value, dict) else enumerate(value))
                if key not in ("seconds", "tokens_per_second") for place, leaf in flat(each, f"{name}/{key}").items()}
    return {name: (value.dtype, value.shape, value.numpy().tobytes()) if torch.is_tensor(value) else repr(value)}


def differences(*homes):
    """The places in which what two runs left differs: a list of names, empty if they are the same run."""
    a, b = (flat({"run": checkpoint.load(home / "run"), "warm": [checkpoint.load(folder) for folder in home.glob("runs/warm-*")],
                  "metrics": [json.loads(line) for line in (home / "run/metrics.jsonl").read_text().splitlines()],
                  "samples": (home / "run/samples.txt").read_text(), "summary": json.loads((home / "run/summary.json").read_text()),
                  "files": sorted(path.name for path in (home / "run").iterdir())}) for home in homes)
    return sorted(name for name in a.keys() | b.keys() if a.get(name) != b.get(name))


def main(argv=None):
    parser = argparse.ArgumentParser(description="Kill a run again and again: it must end as if nothing had been.")
    for name, default in (("--kills", 20), ("--algo", "grpo"), ("--seed", 0)):
        parser.add_argument(name, default=default, type=type(default))
    args = parser.parse_args(argv)
    os.environ["OMP_NUM_THREADS"] = "1"  # no fight for the cores
    rng, flags, kills, home, bad = random.Random(args.seed), [*TINY, "--algo", args.algo], 0, 0, []
    with tempfile.TemporaryDirectory() as place:
        straight = pathlib.Path(place, "straight")
        resume(straight, flags)
        while kills < args.kills:
            home += 1
            for moment in PLAN[:args.kills - kills]:
                seen = resume(pathlib.Path(place, str(home)), flags, moment, rng)
                kills += seen is not None
                print(f"{kills:2}  {moment[0]:<38}{seen or 'the run was faster'}", flush=True)
            resume(pathlib.Path(place, str(home)), flags)
            bad += differences(straight, pathlib.Path(place, str(home)))
            print(f"    then to its end: {', '.join(bad[:5]) + ' differ' if bad else 'the same run, bit by bit'}", flush=True)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
