"""Every picture, in one style. matplotlib is optional, and this is the only file that asks for it.

    python plot.py runs/grpo-countdown-0 [RUN ...]        draws curves.png into the first run's folder

Several runs (seeds) of one setting are drawn as one line each in the same colour. The colours are chosen to be told apart by
colour-blind readers (Okabe and Ito), and a name stands at the end of its line instead of in a legend.
"""
import json
import pathlib
import sys

COLOURS = {"policy": "#0072B2", "training problems": "#56B4E9", "blind search": "#D55E00", "demonstrations": "#009E73",
           "more imitation": "#CC79A7", "warm start": "#777777"}


def read(run):
    """A run folder -> its metrics as a list of dicts, one a step, and its summary ({} if it is not there yet)."""
    run = pathlib.Path(run)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    summary = run / "summary.json"
    return lines, json.loads(summary.read_text()) if summary.exists() else {}


def smooth(values, width=5):
    """The mean of each value and the ones before it, at most `width` of them."""
    return [sum(values[max(0, i + 1 - width):i + 1]) / len(values[max(0, i + 1 - width):i + 1]) for i in range(len(values))]


def line(axis, x, y, name, label=True, **style):
    """One curve with its name at its end."""
    axis.plot(x, y, color=COLOURS[name], **style)
    if label and len(x):
        axis.annotate(name, (x[-1], y[-1]), xytext=(4, 0), textcoords="offset points", va="center", fontsize=8, color=COLOURS[name])


def curves(*runs, out=None):
    """Accuracy beside its rivals, and where it comes from: more attempts, better attempts, longer answers -> the PNG's path."""
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    data = [read(run) for run in runs]
    has_attempts = "attempts" in data[0][0][0]
    figure, axes = plt.subplots(1, 3 if has_attempts else 2, figsize=(12 if has_attempts else 8.5, 3.6), layout="constrained")
    last = max(lines[-1]["step"] for lines, _ in data)
    for number, (lines, summary) in enumerate(data):
        first, steps = number == 0, [entry["step"] for entry in lines]
        looked = [entry for entry in lines if "val_pass@1" in entry]
        at = [entry["step"] for entry in looked]
        line(axes[0], steps, smooth([entry["accuracy"] for entry in lines]), "training problems", first, alpha=0.6, lw=1)
        if summary:
            test = [summary["before"]["pass@1"], summary["after"]["pass@1"]]
            axes[0].plot([0, steps[-1]], test, "o", color=COLOURS["policy"], ms=5, clip_on=False, zorder=3)
            for name, key in (("demonstrations", "demonstrations"), ("more imitation", "more_sft")):
                if summary["baselines"].get(key) is not None:
                    line(axes[0], [0, last], 2 * [summary["baselines"][key]], name, first, ls=":", lw=1.2)
        if looked:
            line(axes[0], at, [entry["val_pass@1"] for entry in looked], "policy", first, lw=1.8)
            if looked[0].get("val_blind_search") is not None:
                line(axes[0], at, [entry["val_blind_search"] for entry in looked], "blind search", first, ls="--")
        if has_attempts:
            line(axes[1], steps, smooth([entry["attempts"] for entry in lines]), "policy", False)
            line(axes[2], steps, smooth([entry["hits"] / max(entry["attempts"], 1e-9) for entry in lines]), "policy", False)
        else:
            line(axes[1], steps, smooth([entry["length"] for entry in lines]), "policy", False)
    titles = ["share of right answers", "attempts per answer", "share of attempts that hit the target"] if has_attempts \
        else ["share of right answers", "length of an answer (tokens)"]
    for axis, title in zip(axes, titles):
        axis.set_title(title, fontsize=10, loc="left")
        axis.set_xlabel("GRPO step" if not out else "step of reinforcement learning", fontsize=9)
        axis.set_ylim(bottom=0)
        axis.set_xlim(0, last)
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.2)
    axes[0].set_ylim(0, 1)
    axes[0].set_xlim(0, last * 1.3)
    path = pathlib.Path(out) if out else pathlib.Path(runs[0]) / "curves.png"
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(print("error: name at least one run folder", file=sys.stderr) or 2)
    print(curves(*sys.argv[1:]))
