"""What the experiments share. A cell is one computation, named by a few words, whose result is kept as JSON: an experiment that was
stopped goes on where it was. Each cell runs in a process of its own with one thread, two at a time (--at-once N, or plan["at_once"])."""
import argparse
import json
import os
import pathlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

HERE = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(HERE))


def main(script, doc, cell, report, full, quick, **variants):
    """The command line of an experiment. script: its path.

    cell(folder, plan, *words) -> dict computes one cell; report(folder, plan, get) -> (Markdown, list of panels for
    plot.lines) puts the results together, where get(list of cells) -> {cell: result} makes those that are not there yet.
    Leaves NAME.md, NAME.json and NAME.png in docs/ (with --quick: in runs/NAME-quick, with the plan `quick`). variants: flags
    by name, each with a function that makes another plan of one; the results are NAME-VARIANT's then.
    """
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="smaller sizes, under 3 minutes once the warm start is there")
    parser.add_argument("--cell", nargs="+", metavar="WORD", help="one cell alone")
    parser.add_argument("--at-once", type=int, metavar="N", help="cells computed at a time, each with one thread (as the plan says, mostly 2)")
    for variant, other in variants.items():
        parser.add_argument(f"--{variant}", action="store_true", help=other.__doc__)
    given = parser.parse_args()
    name, plan = pathlib.Path(script).stem, quick if given.quick else full
    if given.at_once is not None and given.at_once < 1:
        parser.error("--at-once: at least 1")
    chosen = [variant for variant in variants if getattr(given, variant)]
    for variant in chosen:
        name, plan = f"{name}-{variant}", variants[variant](plan)
    os.chdir(HERE)
    folder = pathlib.Path("runs") / (name + "-quick" * given.quick)
    place = lambda words: folder / ("-".join(map(str, words)) + ".json")
    if given.cell:
        folder.mkdir(parents=True, exist_ok=True)
        result = cell(folder, plan, *given.cell)
        return place(given.cell).write_text(json.dumps(result) + "\n")
    asked = {}

    def one(words):
        if not place(words).exists():
            print("cell", *words, flush=True)
            folder.mkdir(parents=True, exist_ok=True)
            with open(place(words).with_suffix(".log"), "a") as log:
                flags = [*["--quick"] * given.quick, *(f"--{variant}" for variant in chosen)]
                subprocess.run([sys.executable, script, *flags, "--cell", *map(str, words)], check=True,
                               env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=log, stderr=log)
        return json.loads(place(words).read_text())

    def get(cells):
        with ThreadPoolExecutor(given.at_once or plan.get("at_once", 2)) as several:
            found = dict(zip(cells, several.map(one, cells)))
        asked.update({" ".join(map(str, words)): result for words, result in found.items()})
        return found

    text, panels = report(folder, plan, get)
    out = folder if given.quick else pathlib.Path("docs")
    source = f"[The claim, and how it is tested](../experiments/{pathlib.Path(script).name}); [all claims](claims.md)."
    (out / f"{name}.md").write_text(f"{text}\n" if given.quick else f"{text}\n\n{source}\n")
    (out / f"{name}.json").write_text(json.dumps(asked, indent=1) + "\n")
    print(text)
    try:
        import plot
        print(plot.lines(panels, out / f"{name}.png") if panels else "")
    except ModuleNotFoundError:
        print("(no picture: matplotlib is not installed)")


def train(folder, name, *flags, steps=None):
    """`python train.py --out FOLDER/NAME flags`, unless it is done; a run that was stopped, or that is to take more steps than it
    did, goes on. Without looks at val and with one test problem: an experiment measures for itself. The warm start takes 600 steps if
    `flags` do not say otherwise: countdown's default when most of these tables were made. -> the run's folder."""
    run, limit = folder / name, ["--steps", steps] if steps else []
    if not (run / "summary.json").exists() or json.loads((run / "summary.json").read_text())["steps"] < (steps or 0):
        command = ["--resume", run, *limit] if (run / "config.json").exists() else [
            "--task", "countdown", "--sft-steps", "600", "--eval-every", "0", "--test-problems", "1", "--out", run, *flags, *limit]
        subprocess.run([sys.executable, "train.py", *map(str, command)], check=True)
    return run


def spread(values, form=".3f"):
    """Several seeds in a cell of a table: the mean, and from where to where they lie.

    >>> spread([0.5, 0.25, 0.75], ".2f")
    '0.50 (0.25 to 0.75)'
    """
    values = list(values)
    mean = format(sum(values) / len(values), form.replace("d", ".0f"))
    return mean if len(values) == 1 else f"{mean} ({format(min(values), form)} to {format(max(values), form)})"


def metrics(run):
    """The lines of metrics.jsonl of a run."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
