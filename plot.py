"""Every picture, in one style. matplotlib is optional, and this is the only file that asks for it.

    python plot.py runs/grpo-countdown-0 [RUN ...]        curves.png in the first run's folder
    python plot.py --chains RUN [RUN ...]                 chains.png there: serial tasks, whether thinking pays

Several runs (seeds) of one setting are drawn as one line each in the same colour. The colours are chosen to be told apart by
colour-blind readers (Okabe and Ito), and a name stands at the end of its line instead of in a legend.
"""
import json
import pathlib
import sys

COLOURS = {"policy": "#0072B2", "training problems": "#56B4E9", "blind search": "#D55E00", "demonstrations": "#009E73",
           "more imitation": "#CC79A7", "rejection sampling, by rounds": "#E69F00"}


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


def panels(first):
    """What the panels beside the accuracy show, for a line of metrics -> list of (title, function of a line)."""
    if "attempts" in first:
        return [("attempts per answer", lambda entry: entry["attempts"]),
                ("share of attempts that hit the target", lambda entry: entry["hits"] / max(entry["attempts"], 1e-9))]
    if "chain" in first:
        return [("share of answers with a chain", lambda entry: entry["chain"]),
                ("length of an answer (tokens)", lambda entry: entry["length"])]
    return [("length of an answer (tokens)", lambda entry: entry["length"])]


def curves(*runs, out=None):
    """The share of right answers beside its rivals, and where it comes from. runs: folders of one setting, drawn together, a
    line each -> the path of the PNG, curves.png in the first folder unless `out` is given."""
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    data = [read(run) for run in runs]
    more = panels(data[0][0][0])
    figure, axes = plt.subplots(1, 1 + len(more), figsize=(4.2 * (1 + len(more)), 3.6), layout="constrained")
    last = max(lines[-1]["step"] for lines, _ in data)
    for number, (lines, summary) in enumerate(data):
        first, steps = number == 0, [entry["step"] for entry in lines]  # names are written once
        line(axes[0], steps, smooth([entry["accuracy"] for entry in lines]), "training problems", first, alpha=0.5, lw=1)
        looked = [entry for entry in lines if "val_pass@1" in entry]
        at = [entry["step"] for entry in looked]
        line(axes[0], at, [entry["val_pass@1"] for entry in looked], "policy", first, lw=1.8)
        if looked and looked[0]["val_blind_search"] is not None:
            line(axes[0], at, [entry["val_blind_search"] for entry in looked], "blind search", first, ls="--")
        if summary:
            axes[0].plot([0, steps[-1]], [summary["before"]["pass@1"], summary["after"]["pass@1"]], "o",
                         color=COLOURS["policy"], ms=5, clip_on=False, zorder=3)
            for name, key in (("demonstrations", "demonstrations"), ("more imitation", "more_sft")):
                if summary["baselines"][key] is not None and summary["baselines"][key] < 1:
                    line(axes[0], [0, last], 2 * [summary["baselines"][key]], name, first, ls=":", lw=1.2)
        for axis, (_, value) in zip(axes[1:], more):
            line(axis, steps, smooth([value(entry) for entry in lines]), "policy", False)
    titles = ["share of right answers (lines: val; dots: test)", *(title for title, _ in more)]
    for axis, title in zip(axes, titles):
        axis.set_title(title, fontsize=10, loc="left")
        axis.set_xlabel("step of reinforcement learning", fontsize=9)
        axis.set_ylim(bottom=0)
        axis.set_xlim(0, last)
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.2)
    axes[0].set_ylim(0, 1)
    axes[0].set_xlim(0, last * 1.4)  # room for the names
    path = pathlib.Path(out) if out else pathlib.Path(runs[0]) / "curves.png"
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


def law(p, a, c, rounds):
    """The share of chains after each round of rejection sampling: keep what is right, imitate it, p -> p a / (p a + (1 - p) c).

    a, c: accuracy with a chain and without. For a = 1 this is the law of arXiv:2510.11495.

    >>> law(0.25, 1.0, 0.5, 2)
    [0.25, 0.4, 0.5714285714285714]
    """
    shares = [p]
    for _ in range(rounds):
        p = p * a / (p * a + (1 - p) * c)
        shares.append(p)
    return shares


def chains(*runs, out):
    """The share of answers with a chain, step by step, beside what imitation keeps and the law of rejection sampling; and
    accuracy on training and held-out problems. runs: two settings of a serial task, a column each -> the path of the PNG."""
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    figure, axes = plt.subplots(2, len(runs), figsize=(4.6 * len(runs), 6), layout="constrained", squeeze=False, sharey=True)
    for column, run in zip(axes.T, runs):
        lines, summary = read(run)
        steps, before = [entry["step"] for entry in lines], summary["before"]
        looked = [entry for entry in lines if "val_pass@1" in entry]
        at, last = [entry["step"] for entry in looked], steps[-1]
        line(column[0], steps, [entry["chain"] for entry in lines], "policy", lw=1.8)
        line(column[0], [0, last], 2 * [before["chain"]], "more imitation", ls=":")
        rounds = law(before["chain"], before["right_with_chain"], before["right_without"], min(last, 40))
        line(column[0], range(len(rounds)), rounds, "rejection sampling, by rounds", ls="--")
        column[0].set_title(f"{pathlib.Path(run).name}\nshare of answers with a chain", fontsize=10, loc="left")
        line(column[1], steps, smooth([entry["accuracy"] for entry in lines]), "training problems", lw=1)
        line(column[1], at, [entry["val_pass@1"] for entry in looked], "policy", lw=1.8)
        column[1].plot([0, last], [before["pass@1"], summary["after"]["pass@1"]], "o", color=COLOURS["policy"], ms=5, zorder=3)
        column[1].set_title("share of right answers (lines: training, val; dots: test)", fontsize=10, loc="left")
        for axis in column:
            axis.set_xlabel("step of GRPO", fontsize=9)
            axis.set_ylim(0, 1.03)
            axis.set_xlim(0, last * 1.4)
            axis.spines[["top", "right"]].set_visible(False)
            axis.grid(alpha=0.2)
    figure.savefig(out, dpi=100)
    plt.close(figure)
    return out


if __name__ == "__main__":
    flags = [argument for argument in sys.argv[1:] if argument.startswith("--")]
    named = [argument for argument in sys.argv[1:] if not argument.startswith("--")]
    if not named or set(flags) - {"--chains"}:
        sys.exit(print("error: usage: python plot.py [--chains] RUN [RUN ...]", file=sys.stderr) or 2)
    print(chains(*named, out=pathlib.Path(named[0]) / "chains.png") if flags else curves(*named))
