"""Every picture, in one style. matplotlib is optional, and this is the only file that asks for it.

    python plot.py RUN [RUN ...]               curves.png in the first run's folder
    python plot.py --chains RUN [RUN ...]      chains.png there: serial tasks, whether thinking pays

Several runs (seeds) of one setting are drawn as one line each in the same colour. The colours are
chosen to be told apart by colour-blind readers (Okabe and Ito), and a name stands at the end of its
line instead of in a legend.
"""
import json
import pathlib
import sys

from config import InputError, Parser

# By the beginning of a name, the same everywhere. What is not here gets the next colour of PALETTE.
COLOURS = {"policy": "#0072B2", "training problems": "#56B4E9", "random search": "#D55E00", "demonstrations": "#009E73",
           "continued SFT": "#CC79A7", "what imitation keeps": "#CC79A7", "rejection sampling, by rounds": "#E69F00",
           "warm": "#777777", "grpo": "#0072B2", "star": "#E69F00", "distilled": "#009E73",
           "greedy": "#000000", "sampl": "#56B4E9", "best of n": "#0072B2", "majority": "#009E73", "beam": "#E69F00",
           "rebase": "#D55E00", "mcts": "#CC79A7", "budget": "#8C6D31"}
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D31", "#777777")


def read(run):
    """A run folder -> its metrics as a list of dicts, one a step, and its summary ({} if it is not
    there yet). InputError if there is nothing to draw."""
    run = pathlib.Path(run)
    metrics, summary = run / "metrics.jsonl", run / "summary.json"
    whole = metrics.read_text().rpartition("\n")[0] if metrics.is_file() else ""  # a run that is alive may be writing its last line
    lines = [json.loads(line) for line in whole.splitlines()]
    if not lines:
        raise InputError(f"{run}: there is no run in this folder that has taken a step")
    return lines, json.loads(summary.read_text()) if summary.exists() else {}


def smooth(values, width=5):
    """The mean of each value and the ones before it, at most `width` of them."""
    return [sum(values[max(0, i + 1 - width):i + 1]) / len(values[max(0, i + 1 - width):i + 1]) for i in range(len(values))]


def line(axis, x, y, name, ends=None, **style):
    """One curve in the colour of `name`; its end is noted in the dict `ends`, where `label` will write the name."""
    axis.plot(x, y, color=COLOURS[name], **style)
    if ends is not None and len(x):
        ends.setdefault(name, (x[-1], y[-1]))


def label(axis, ends, gap=0.06, colours=COLOURS):
    """Write each name at the end of its curve, moved up where it would cover another one, by `gap` in
    units of the y axis. -> the height of the highest."""
    lowest = -1e9
    for name, (x, y) in sorted(ends.items(), key=lambda end: end[1][1]):
        lowest = max(y, lowest + gap)
        axis.annotate(name, (x, lowest), xytext=(5, 0), textcoords="offset points", va="center", fontsize=8,
                      color=colours[name])
    return lowest


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
    """The share of right answers beside its baselines, and where it comes from. runs: folders of one
    setting, drawn together, a line each -> the path of the PNG, curves.png in the first folder unless
    `out` is given."""
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    data = [read(run) for run in runs]
    more = panels(data[0][0][0])
    if len({tuple(title for title, _ in panels(lines[0])) for lines, _ in data}) > 1:
        raise InputError("these runs are of tasks that count different things: draw each task by itself")
    figure, axes = plt.subplots(1, 1 + len(more), figsize=(4.2 * (1 + len(more)), 3.6), layout="constrained")
    last = max(lines[-1]["step"] for lines, _ in data)
    ends = {}
    for lines, summary in data:
        steps, looked = [entry["step"] for entry in lines], [entry for entry in lines if "val_pass@1" in entry]
        at = [entry["step"] for entry in looked]
        line(axes[0], steps, smooth([entry["accuracy"] for entry in lines]), "training problems", ends, alpha=0.5, lw=1)
        line(axes[0], at, [entry["val_pass@1"] for entry in looked], "policy", ends, lw=1.8)
        blind = [(entry["step"], entry["val_random_search"]) for entry in looked if entry["val_random_search"] is not None]
        line(axes[0], [step for step, _ in blind], [share for _, share in blind], "random search", ends, ls="--")
        if summary:
            axes[0].plot([0, steps[-1]], [summary["before"]["pass@1"], summary["after"]["pass@1"]], "o",
                         color=COLOURS["policy"], ms=5, clip_on=False, zorder=3)
            for name, key in (("demonstrations", "demonstrations"), ("continued SFT", "continued_sft")):
                if summary["baselines"][key] is not None and summary["baselines"][key] < 1:
                    line(axes[0], [0, last], 2 * [summary["baselines"][key]], name, ends, ls=":", lw=1.2)
        for axis, (_, value) in zip(axes[1:], more):
            line(axis, steps, smooth([value(entry) for entry in lines]), "policy")
    label(axes[0], ends)
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
    """The share of chains after each round of rejection sampling: keep what is right, imitate it, p ->
    p a / (p a + (1 - p) c).

    a, c: accuracy with a chain and without, on the problems that are sampled: those of the training
    split. For a = 1 this is the law of arXiv:2510.11495.

    >>> [round(share, 3) for share in law(0.25, 1.0, 0.5, 2)]
    [0.25, 0.4, 0.571]
    """
    shares = [p]
    for _ in range(rounds):
        kept = p * a + (1 - p) * c
        p = p * a / kept if kept else p  # nothing is right, so nothing is imitated
        shares.append(p)
    return shares


def chains(*runs, out):
    """The share of answers with a chain, step by step, beside what imitation keeps and the law of
    rejection sampling; and accuracy on training and held-out problems. runs: two settings of a serial
    task, a column each -> the path of the PNG."""
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    figure, axes = plt.subplots(2, len(runs), figsize=(4.6 * len(runs), 6), layout="constrained", squeeze=False, sharey=True)
    for column, run in zip(axes.T, runs):
        lines, summary = read(run)
        if not summary or not {"right_with_chain", "right_without"} <= lines[0].keys():
            raise InputError(f"{run}: --chains needs a finished run of a serial task whose warm start answers both with a chain "
                             f"and without")
        steps, start, ends = [entry["step"] for entry in lines], lines[0], [{}, {}]  # step 1 samples from the warm start
        looked = [entry for entry in lines if "val_pass@1" in entry]
        at, last, early = [entry["step"] for entry in looked], steps[-1], min(30, steps[-1])
        line(column[0], steps[:early], [entry["chain"] for entry in lines[:early]], "policy", ends[0], lw=1.8)
        line(column[0], [1, early], 2 * [start["chain"]], "what imitation keeps", ends[0], ls=":")
        rounds = law(start["chain"], start["right_with_chain"], start["right_without"], early - 1)
        line(column[0], steps[:early], rounds, "rejection sampling, by rounds", ends[0], ls="--")
        column[0].set_title(f"{pathlib.Path(run).name}\nshare of answers with a chain", fontsize=10, loc="left")
        line(column[1], steps, smooth([entry["accuracy"] for entry in lines]), "training problems", ends[1], lw=1)
        line(column[1], at, [entry["val_pass@1"] for entry in looked], "policy", ends[1], lw=1.8)
        column[1].plot([0, last], [summary["before"]["pass@1"], summary["after"]["pass@1"]], "o", color=COLOURS["policy"],
                       ms=5, zorder=3)
        column[1].set_title("share of right answers (lines: training, val; dots: test)", fontsize=10, loc="left")
        label(column[0], ends[0])
        label(column[1], ends[1])
        column[0].set_xlim(0, early * 1.5)
        column[1].set_xlim(0, last * 1.5)
        for axis in column:
            axis.set_xlabel("step of GRPO", fontsize=9)
            axis.set_ylim(0, 1.2)
            axis.set_yticks([0, 0.2, 0.4, 0.6, 0.8, 1.0])
            axis.spines[["top", "right"]].set_visible(False)
            axis.grid(alpha=0.2)
    figure.savefig(out, dpi=100)
    plt.close(figure)
    return out


def lines(panels, out):
    """Any number of panels with curves -> the path of the PNG. What the experiments draw with.

    panels: list of dicts: title, x and y (labels of the axes, with units), curves {name: (xs, ys)} or,
    with a band around the curve, {name: (xs, ys, lows, highs)}, and perhaps log: the base of a
    logarithmic x axis. Where two names of a panel begin alike (two variants of one method) the second
    is dashed.
    """
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    columns = len(panels) if len(panels) <= 3 else 2
    figure, axes = plt.subplots(-(-len(panels) // columns), columns, layout="constrained", squeeze=False,
                                figsize=(4.6 * columns + 1, 3.7 * -(-len(panels) // columns)))
    for axis in axes.flat[len(panels):]:
        axis.axis("off")
    for axis, panel in zip(axes.flat, panels):
        ends, colours, used = {}, {}, []
        for name, (xs, ys, *band) in panel["curves"].items():
            known = [c for start, c in COLOURS.items() if name.replace("_", " ").lower().startswith(start)]
            free = [c for c in PALETTE if c not in used] or PALETTE
            colours[name] = known[0] if known else free[0]
            axis.plot(xs, ys, ("-", "--", ":", "-.")[used.count(colours[name]) % 4], color=colours[name], lw=1.5,
                      marker="o" if len(xs) < 15 else "", ms=3)
            if band:
                axis.fill_between(xs, *band, color=colours[name], alpha=0.15, lw=0)
            used.append(colours[name])
            ends[name] = (xs[-1], ys[-1])
        left, right = min(xs[0] for xs, *_ in panel["curves"].values()), max(x for x, _ in ends.values())
        bottom, top = axis.get_ylim()
        bottom = min(0, bottom)
        gap = 0.06 * (top - bottom)
        highest = label(axis, {name: (right, y) for name, (_, y) in ends.items()}, gap, colours)
        axis.set_ylim(bottom, max(top, highest + gap / 2))
        room = max(map(len, ends)) / 65  # for the names, as a share of the panel
        if panel.get("log"):
            axis.set_xscale("log", base=panel["log"])
            axis.set_xlim(left * 0.9, right * (right / left) ** (room / (1 - min(room, 0.6))) * 1.05)
            ticks = [panel["log"] ** k for k in range(40) if left * 0.9 <= panel["log"] ** k <= right * 1.1]
            axis.set_xticks(ticks, [f"{t:g}" for t in ticks])
            axis.minorticks_off()
        else:
            axis.set_xlim(min(0, left), right + (right - min(0, left)) * room / (1 - min(room, 0.6)))
        axis.set_title(panel["title"], fontsize=10, loc="left")
        axis.set_xlabel(panel["x"], fontsize=9)
        axis.set_ylabel(panel["y"], fontsize=9)
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.2)
    figure.savefig(out, dpi=90)
    plt.close(figure)
    return out


def searches(tables):
    """Accuracy over tokens, one curve a method. tables: list of (title, {name of the method: list of
    dicts with tokens and accuracy}), a panel each -> panels for `lines`."""
    panels = []
    for title, methods in tables:
        methods = {name: sorted(rows, key=lambda row: row["tokens"]) for name, rows in methods.items()}
        panels.append({"title": title, "x": "sampled tokens per problem", "y": "share of right answers", "log": 2,
                       "curves": {name: ([r["tokens"] for r in rows], [r["accuracy"] for r in rows]) for name, rows in methods.items()}})
    return panels


def main(argv=None):
    parser = Parser(prog="plot.py", description="Pictures of runs.")
    parser.add_argument("runs", nargs="+", metavar="RUN")
    parser.add_argument("--chains", action="store_true", help="serial tasks: the share of chains; one column a run")
    parser.add_argument("--out", help="a PNG; default: curves.png or chains.png in the first run's folder")
    args = parser.parse_args(argv)
    if args.out and not (pathlib.Path(args.out).parent.is_dir() and args.out.lower().endswith((".png", ".pdf", ".svg"))):
        raise InputError(f"--out {args.out}: name a file that ends in .png, .pdf or .svg, in a folder that is there")
    out = args.out or pathlib.Path(args.runs[0]) / ("chains.png" if args.chains else "curves.png")
    try:
        print((chains if args.chains else curves)(*args.runs, out=out))
    except ModuleNotFoundError:
        raise InputError("pictures need matplotlib: pip install matplotlib")


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(print(f"error: {error}", file=sys.stderr) or 2)
