"""Grade a student's repository: points for each part, and for each mistake one line that says what it
looks like.

    python exercises/grade.py DIR [--sheet 3] [--json FILE]        exit status 0 only if everything passed

Every part is asked two sets of questions: the public ones, which the student has too, and hidden ones,
with other numbers and other shapes. Both have to come out right; "public tests passed" earns nothing by
itself. Where something else comes out it is compared with what the known mistakes of checks/ put out,
and the one that agrees is named.

The student's code runs in a process of its own for each test (worker.py), on a copy of the folder, and
is only asked for outputs; they are compared here. So there is nothing to win by ending the process, by
changing torch.allclose, or by a conftest.py. That the function came from the student's own file is
checked: its code must come from the copy.

Sheet 7 is handed in as run folders: see `investigation`. Derivations and reports are read by the
teacher.
"""
import io
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile

import torch

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
sys.path.insert(0, str(HERE))
import checks
from checks import HIDDEN, PUBLIC, calls
from config import InputError, Parser
from table import SHEETS, of_sheet
from worker import receive, send

SKIP = ("runs", "handin", ".git", ".venv", "__pycache__", "tests", "docs")


class Worker:
    """The process that runs students' code; a new one if it has been harmed."""

    def __init__(self):
        self.process = None

    def ask(self, request):
        if self.process is None or self.process.poll() is not None:
            command = [sys.executable, "-I", "-B", str(HERE / "worker.py"),
                       str(HERE / "public" / "calls.py"), str(HERE.parent)]
            environment = {name: os.environ[name]
                           for name in ("PATH", "LANG", "LD_LIBRARY_PATH")
                           if name in os.environ} | {"OMP_NUM_THREADS": "1"}
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                            cwd="/", env=environment)
        try:
            send(self.process.stdin.fileno(), request)
            return receive(self.process.stdout.fileno()) or (b"", "worker")
        except (BrokenPipeError, EOFError):
            return b"", "worker"

    def close(self):
        if self.process:
            self.process.stdin.close()
            self.process.stdout.close()
            self.process.wait()


WORKER = Worker()
ENDS = {"time": "it did not come to an end: an endless loop?", "size": "it answered with far too much",
        "signal": "the process crashed: too much memory?",
        "worker": "the process was broken off from outside"}


def copy_of(folder, place):
    """The student's modules: no links (they could lead to the solution), and nothing that is no code."""
    def ignore(where, names):
        paths = {name: pathlib.Path(where) / name for name in names}
        useless = lambda path: path.is_symlink() or path.is_file() and path.suffix != ".py"
        return {name for name, path in paths.items() if name in SKIP or useless(path)}
    shutil.copytree(folder, place, ignore=ignore)
    return os.path.realpath(place)


def ask(part, folder, cases, limit):
    """What the student's function puts out for these cases -> list for calls.judge, or one line: why
    there is nothing.
    """
    data = io.BytesIO()
    torch.save(cases, data)
    answer, ended = WORKER.ask({"part": part.id, "target": part.target, "folder": folder,
                                "cases": data.getvalue(), "limit": limit})
    try:
        answer = torch.load(io.BytesIO(answer), weights_only=True)
        if "error" in answer:
            kind, says = answer["error"], answer["says"]
            if kind == "NotImplementedError":
                own = f"exercise {part.id}:" in says
                return f"{'still to be written' if own else 'needs what is not written yet'} ({says})"
            return "the process ended by itself: sys.exit?" if kind == "SystemExit" else f"{kind}: {says}"
        if "gives up" in answer:
            return f"stopped: the code {answer['gives up']}"
        wanted = os.path.join(folder, *module_of(part.target).split(".")) + ".py"
        files = [os.path.realpath(os.path.join(folder, name)) for name in answer["files"]]
        if files[0] != wanted or not all(name.startswith(folder + os.sep) for name in files):
            return f"{part.target} does not come from the student's own file, but from {files}"
        assert [set(each) for each in answer["found"]] == [{"result", "inputs"}] * len(cases)
        return answer["found"]
    except Exception:
        return ENDS.get(ended) or f"the process ended by itself ({ended}) before it answered: os._exit?"


def module_of(target):
    """The longest beginning of a target that is a file."""
    names = target.split(".")
    lengths = range(len(names) - 1, 0, -1)
    return next(".".join(names[:n]) for n in lengths if HERE.parent.joinpath(*names[:n]).with_suffix(".py").exists())


QUESTIONS = {}


def questions(part, seed):
    if (part, seed) not in QUESTIONS:
        cases = checks.make_cases(part, seed)
        QUESTIONS[part, seed] = cases, checks.expected(part, cases)
    return QUESTIONS[part, seed]


def grade_part(part, folder, limit, seed):
    """-> {"public": bool, "hidden": bool, "says": what is wrong, or ""}"""
    (cases, wanted), (more, more_wanted) = questions(part.id, PUBLIC), questions(part.id, seed)
    answers = ask(part, folder, cases + more, limit)
    if isinstance(answers, str):
        return {PUBLIC: False, HIDDEN: False, "says": answers}
    n = len(cases)
    public, hidden = not calls.judge(answers[:n], wanted, []), not calls.judge(answers[n:], more_wanted, [])
    says = ""
    if not (public and hidden):  # only then is it worth asking what the known mistakes would put out
        wanted = wanted + more_wanted
        says = calls.judge(answers, wanted, checks.wrong(part.id, cases + more, wanted))
    if public and not hidden:
        says = f"public tests passed, hidden ones did not: {says}"
    return {PUBLIC: public, HIDDEN: hidden, "says": says}


# ---------------------------------------------------------------------------------------------- sheet 7

def runs_in(folder):
    """{seed: (config, summary)} of the run folders in a folder."""
    found = {}
    for path in sorted(folder.glob("*/summary.json")):
        config, summary = (json.loads((path.parent / name).read_text())
                           for name in ("config.json", "summary.json"))
        lines = (path.parent / "metrics.jsonl").read_text().splitlines()
        if json.loads(lines[-1])["step"] != summary["steps"]:
            raise ValueError(f"{path.parent.name}: metrics.jsonl does not end at step {summary['steps']}")
        if config["seed"] in found:
            raise ValueError(f"two runs with seed {config['seed']}")
        found[config["seed"]] = config, summary
    if len(found) < 3:
        raise ValueError(f"{folder.name}: {len(found)} finished runs; three seeds are the least")
    return found


PASS = "pass@1"
# settings in which runs may differ
OWN = ("seed", "out", "device", "checkpoint_every", "baselines", "eval_every", "eval_problems")


def investigation(part, folder):
    """7.1: handin/7.1 holds runs of --algo grpo on countdown, three seeds or more. Each has gained at
    least 0.1 at pass@1, and the mean gain is at least 3 standard errors over the seeds away from 0.

    7.2: handin/7.2/base and handin/7.2/changed hold runs of the same seeds that differ in one setting,
    and claim.txt holds one word. With the mean difference d of pass@1 after training, paired by seed,
    and its standard error s: `better` needs d > 2 s, `worse` d < -2 s, `undecided` is right otherwise.
    Points are for a claim that the runs bear out, not for a change that helps.
    """
    try:
        place = folder / "handin" / part.id
        if part.id == "7.1":
            runs = runs_in(place)
            if any((c["algo"], c["task"]) != ("grpo", "countdown") for c, _ in runs.values()):
                raise ValueError("runs of --algo grpo --task countdown are asked for")
            gains = [s["after"][PASS] - s["before"][PASS] for _, s in runs.values()]
            error = statistics.stdev(gains) / len(gains) ** 0.5
            shown = ", ".join(f"{gain:.3f}" for gain in gains)
            says = f"gains {shown}: mean {statistics.mean(gains):.3f}, standard error {error:.3f}"
            right = min(gains) >= 0.1 and statistics.mean(gains) >= 3 * error
        else:
            base, changed = runs_in(place / "base"), runs_in(place / "changed")
            if set(base) != set(changed):
                raise ValueError(f"base has seeds {sorted(base)}, changed has {sorted(changed)}: "
                                 "they have to be the same")
            differ = {name for seed in base for name in base[seed][0].keys() | changed[seed][0].keys()
                      if base[seed][0].get(name) != changed[seed][0].get(name)} - set(OWN)
            if len(differ) != 1:
                raise ValueError(f"one setting is to be changed, here it is {len(differ)}: "
                                 f"{', '.join(sorted(differ)) or 'none'}")
            gains = [changed[seed][1]["after"][PASS] - base[seed][1]["after"][PASS] for seed in base]
            mean, error = statistics.mean(gains), statistics.stdev(gains) / len(gains) ** 0.5
            verdict = "better" if mean > 2 * error else "worse" if mean < -2 * error else "undecided"
            claim = (place / "claim.txt").read_text().strip().lower()
            says = (f"{differ.pop()}: difference {mean:+.3f}, standard error {error:.3f}: {verdict}; "
                    f"claimed: {claim[:20]}")
            right = claim == verdict
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        right, says = False, f"{type(error).__name__}: {error}".removeprefix("ValueError: ")
    return {PUBLIC: right, HIDDEN: right, "says": "" if right else says, "figures": says}


# ------------------------------------------------------------------------------------------- the report

def grade(folder, sheet=None, only=None, limit=10, seed=HIDDEN):
    """-> report, a dict: points, of, passed, parts. only: ids of parts; limit: seconds of computing for
    a test; seed: of the hidden questions, any text.
    """
    folder = pathlib.Path(folder)
    if not (folder / "grpo.py").exists() and sheet != 7:
        raise InputError(f"{folder}: is no repository that make.py has written (there is no grpo.py in it)")
    parts = [p for p in of_sheet(sheet) if (only is None or p.id in only)
             and (p.sheet < 7 or sheet == 7 or (folder / "handin").exists())]
    rows = []
    with tempfile.TemporaryDirectory() as place:
        for i, part in enumerate(parts):
            row = {"part": part.id, "title": part.title, "target": part.target, "points": 0,
                   "of": part.points}
            if part.target:
                if part.target == "runs":
                    row |= investigation(part, folder)
                else:  # a fresh copy for each: a part may have deleted its files
                    copy = copy_of(folder, pathlib.Path(place) / str(i))
                    row |= grade_part(part, copy, limit, seed)
                    shutil.rmtree(copy, ignore_errors=True)
                row["passed"] = row[PUBLIC] and row[HIDDEN]
                row["points"] = part.points * row["passed"]
            rows.append(row)
    graded = [row for row in rows if row["target"]]
    return {"points": sum(row["points"] for row in graded), "of": sum(row["of"] for row in graded),
            "by_the_teacher": sum(row["of"] for row in rows if not row["target"]),
            "passed": bool(graded) and all(row["passed"] for row in graded), "parts": rows}


def text(report):
    lines, sheet = [], None
    for row in report["parts"]:
        if row["part"][0] != sheet:
            sheet = row["part"][0]
            lines.append(f"\nSheet {sheet}. {SHEETS[int(sheet)]}")
        if row["target"]:
            verdict = "passed" if row["passed"] else "FAILED"
            lines.append(f"  {row['part']}  {verdict}  {row['points']:2}/{row['of']:<2}  {row['title']}")
            lines += [f"         {row['says']}"] if row["says"] else []
        else:
            lines.append(f"  {row['part']}  teacher   /{row['of']:<2}  {row['title']}")
    verdict = "everything passed" if report["passed"] else "not passed"
    lines.append(f"\n{report['points']} of {report['of']} points: {verdict}. "
                 f"{report['by_the_teacher']} more are the teacher's to give.")
    return "\n".join(lines)


def main(argv=None):
    parser = Parser(prog="grade.py", description="Grade a student's repository.")
    parser.add_argument("folder", metavar="DIR")
    parser.add_argument("--sheet", type=int, choices=tuple(SHEETS), help="only this sheet")
    parser.add_argument("--json", metavar="FILE", help="write the report here too")
    parser.add_argument("--limit", type=int, default=10, help="seconds of computing for each test")
    parser.add_argument("--seed", default=HIDDEN, metavar="TEXT",
                        help="of the hidden questions: another one, other questions")
    given = parser.parse_args(argv)
    report = grade(given.folder, given.sheet, limit=given.limit, seed=given.seed)
    if given.json:
        pathlib.Path(given.json).write_text(json.dumps(report, indent=2) + "\n")
    print(text(report))
    return 0 if report["passed"] else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except InputError as error:
        sys.exit(print(f"error: {error}", file=sys.stderr) or 2)
    finally:
        WORKER.close()
