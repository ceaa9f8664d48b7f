"""A run as one page that opens in a browser: curves, every logged sample token by token, search trees.

    python view.py RUN [RUN ...] --out run.html

The page is a single file below 5 MB: no server, no network, no library. `train.py` writes run.html into
the run's folder at its end; this command puts several runs, or seeds, beside each other. docs/view.md
says how to read it.

The recipe:
  1. read what a folder holds: config.json, metrics.jsonl, rollouts.jsonl (samples.txt in older runs), trees.jsonl;
  2. write it down densely: tokens as numbers of a vocabulary, other numbers times 1000 and rounded (`dense`);
  3. leave out groups, evenly over the steps, until the page is small enough (`fit`);
  4. put data, style and code (viewer/page.*) into viewer/page.html.

What a model wrote reaches the page as JSON without any "<", and there only as text, never as HTML.
"""
import json
import math
import pathlib
import re
import sys

from config import InputError, Parser

VIEWER = pathlib.Path(__file__).parent / "viewer"
LIMIT = 4_900_000   # bytes of a page
POINTS = 1000       # of a curve
PER_TOKEN = {"logprobs": "logp", "entropies": "entropy", "advantages": "advantage", "ratios": "ratio",
             "ref_logprobs": "ref", "values": "value"}


# ------------------------------------------------------------------------------------------------ what a folder holds

def lines_of(path):
    """The JSON lines of a file -> list of dicts. A run that is alive may be writing its last line; InputError if another is broken."""
    text = path.read_text() if path.is_file() else ""
    try:
        return [json.loads(line) for line in text.rpartition("\n")[0].splitlines()]
    except ValueError:
        raise InputError(f"{path}: is not a file of JSON lines as this project writes them")


def columns(lines):
    """Lines of metrics -> {name: list with one number a step, None where there is none}, at most POINTS of them."""
    keep = math.ceil(len(lines) / POINTS)
    lines = [line for k, line in enumerate(lines) if k % keep == 0 or k == len(lines) - 1 or "val_pass@1" in line]
    names = dict.fromkeys(name for line in lines for name in line)
    number = lambda x: float(f"{x:.5g}") if isinstance(x, (int, float)) else None
    return {name: [number(line.get(name)) for line in lines] for name in names}


def older_groups(text):
    """samples.txt, of a run without rollouts.jsonl -> lines as there: groups of one sample of one piece, without numbers."""
    groups = []
    for page in re.split(r"^=== step ", text, flags=re.M)[1:]:
        step, _, page = page.partition("\n")
        for prompt, completion, reward in re.findall(r"(.*?\n)(.*?)\n--- reward (\S+)\n", page, re.S):
            finished = not completion.endswith(" (cut off)")
            completion = completion.removesuffix(" (cut off)").removesuffix("<|eos|>")
            groups.append({"step": int(step), "kind": "val", "problem": prompt, "samples": [
                {"tokens": [completion], "reward": float(reward), "right": None, "finished": finished}]})
    return [(group["step"], json.dumps(group)) for group in groups]


def logged_groups(path):
    """rollouts.jsonl -> list of (step, line), not parsed: most of a long file will be left out."""
    lines = path.read_text().splitlines(keepends=True) if path.is_file() else []
    return [(int(line[len('{"step": '):].partition(",")[0]), line) for line in lines if line.endswith("\n")]


def read_run(folder):
    """A run folder -> dict of what the page shows of it. InputError if it is none."""
    folder = pathlib.Path(folder)
    try:
        config = json.loads((folder / "config.json").read_text())
        config["algo"], config["task"]
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"{folder}: there is no run of this project in this folder")
    read = lambda name: (folder / name).read_text() if (folder / name).is_file() else ""
    try:
        groups = logged_groups(folder / "rollouts.jsonl") or older_groups(read("samples.txt"))
    except ValueError:
        raise InputError(f"{folder / 'rollouts.jsonl'}: is not a file of JSON lines as this project writes them")
    return {"name": folder.name, "config": config, "metrics": columns(lines_of(folder / "metrics.jsonl")),
            "summary": json.loads(read("summary.json") or "null"), "groups": groups,
            "trees": lines_of(folder / "trees.jsonl")}


# ----------------------------------------------------------------------------------------------------- small enough

def dense(group, words):
    """A group of rollouts.jsonl as the page wants it. words: {piece of text: its number}, which grows.

    >>> words = {}
    >>> dense({"step": 1, "samples": [{"tokens": ["3", "5"], "logprobs": [-0.5, -1.25], "advantages": [1.0, 1.0]}]}, words)
    {'step': 1, 'samples': [{'tokens': [0, 1], 'logp': [-500, -1250], 'advantage': 1000}]}
    """
    number = lambda piece: words.setdefault(piece, len(words))
    samples = []
    for sample in group["samples"]:
        new = {name: value for name, value in sample.items() if name not in (*PER_TOKEN, "tokens", "alternatives")}
        new["tokens"] = [number(piece) for piece in sample["tokens"]]
        for name, short in PER_TOKEN.items():
            if name in sample:
                values = [round(1000 * x) for x in sample[name]]
                new[short] = values[0] if len(set(values)) == 1 else values
        if "alternatives" in sample:  # [piece, probability], ... of each token
            new["alternatives"] = [[n for piece, p in token for n in (number(piece), round(1000 * p))]
                                   for token in sample["alternatives"]]
        samples.append(new)
    return {**group, "samples": samples}


def fit(groups, room):
    """Groups, (step, text), in the order of their steps -> those that are shown, together at most `room` characters.

    Every second step is left out, as often as it takes; the first and the last stay as long as they can.
    """
    while groups and sum(len(text) + 1 for _, text in groups) > room:
        steps = sorted({step for step, _ in groups})
        if len(steps) < 3:
            groups = groups[:len(groups) // 2]
            continue
        left = {*steps[::2], steps[-1]} if len(steps) % 2 else {*steps[:-1:2], steps[-1]} - {steps[-2]}
        groups = [(step, text) for step, text in groups if step in left]
    return groups


def to_json(value):
    """JSON that can stand inside of a <script>: no "<" is left, so nothing in it can end the script."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).replace("<", "\\u003c")


# ---------------------------------------------------------------------------------------------------------- the page

def page(runs, live=None, limit=LIMIT):
    """Runs (list of what `read_run` gives), models for the tab Live or None -> the page, a str, at most `limit` bytes."""
    code = ["tools.js", "curves.js", "samples.js", "search.js", "page.js"]
    part = {name: (VIEWER / name).read_text() for name in ("page.html", "page.css", *code)}
    if live:
        from viewer import weights  # torch is needed for this alone
        code.insert(-1, "live")
        part["live"] = weights.code()
    words = {}
    each = limit // len(runs)
    logged = [[(step, to_json(dense(json.loads(line), words))) for step, line in fit(run["groups"], 3 * each)] for run in runs]  # dense: about half
    frames = [to_json({name: value for name, value in run.items() if name != "groups"}) for run in runs]
    frame = f'{{"words":{to_json(list(words))},"glossary":{to_json(glossary())},"live":{to_json(live)},"runs":['
    room = limit - sum(len(text.encode()) for text in (frame, *frames, *part.values()))
    shown = [",".join(text for _, text in fit(groups, room // len(runs) - 20)) for groups in logged]
    data = frame + ",".join(f'{rest[:-1]},"groups":[{groups}]}}' for rest, groups in zip(frames, shown)) + "]}"
    fill = {"STYLE": part["page.css"], "DATA": data, "CODE": "\n".join(part[name] for name in code)}
    return re.sub(r"/\*(STYLE|DATA|CODE)\*/", lambda match: fill[match[1]], part["page.html"])


def glossary():
    """docs/glossary.md -> {name of a metric: what it means}; the page says it under each curve."""
    path, found = VIEWER.parent / "docs" / "glossary.md", {}
    text = path.read_text().partition("## metrics.jsonl")[2].partition("\n## ")[0] if path.is_file() else ""
    rows = re.findall(r"^\| (`.*?) \| (.*) \|$", text, re.M)
    for names, meaning in rows:
        found |= {name: re.sub(r"[`*]", "", meaning) for name in re.findall(r"`(\S+?)`", names)}
    return found


def write_page(folders, out, live=False):
    """Run folders -> the page in the file `out`; its size in bytes. InputError if it cannot be made."""
    runs = [read_run(folder) for folder in folders]
    example = json.loads(runs[0]["groups"][0][1])["problem"] if runs[0]["groups"] else ""
    if live:
        from viewer import weights
        live = weights.live(folders[0], example)
    text = page(runs, live).encode()
    if len(text) > 5_000_000:
        raise InputError(f"--out {out}: the page would have {len(text) / 1e6:.1f} MB; show fewer runs")
    try:
        pathlib.Path(out).write_bytes(text)
    except OSError as error:
        raise InputError(f"--out {out}: cannot be written to ({error.strerror})")
    return len(text)


def main(argv=None):
    parser = Parser(prog="view.py", description="One or more runs as a page for the browser.")
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folders; several are shown beside each other")
    parser.add_argument("--out", default="run.html", metavar="FILE", help="the page (default: run.html)")
    parser.add_argument("--live", action="store_true", help="put the weights of the first run into the page, to ask the model there")
    given = parser.parse_args(argv)
    size = write_page(given.runs, given.out, given.live)
    print(f"{given.out}: {size / 1e6:.1f} MB; open it in a browser")


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(print(f"error: {error}", file=sys.stderr) or 2)
