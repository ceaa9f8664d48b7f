"""Four silent bugs. Plant one in a copy of the code, beside the curves of a run that had it and of a healthy one.

    python exercises/hunt.py 1 OUT               bug 1 of 4; OUT is handed to the students: HUNT.md says what to do
    python exercises/hunt.py 1 --proof TEST.py   does this test fail with the bug, and pass without it?
    python exercises/hunt.py --make              make the curves again: five runs, about a minute of one core each

A silent bug raises nothing. With three of these four the policy learns, with one of them more than without; the
bug shows only in curves, to somebody who knows what they ought to be. OUT is a whole copy of the code that runs, without this folder and without the tests, which
would name the bug at once. What was planted is in exercises/answers/, which no student's repository has.
"""
import json
import pathlib
import runpy
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from config import InputError, Parser  # noqa: E402

ANSWERS = ROOT / "exercises" / "answers"
CURVES = ANSWERS / "curves"  # healthy, 1, 2, 3, 4: metrics.jsonl and samples.txt of each
COMMAND = ("--algo grpo --task countdown --steps 24 --prompts 24 --epochs 2 --mini-batches 2 --eval-every 6 "
           "--eval-problems 48 --test-problems 16 --checkpoint-every 24").split()
LEFT_OUT = ("exercises", "runs", "handin", ".*", "__pycache__", "*.pyc")
SHOWN = ("accuracy", "val_pass@1", "finished", "length", "entropy", "kl", "groups_with_variance", "loss",
         "clip_fraction", "grad_norm", "max_log_ratio")


def bugs():
    """{number: bug}, see answers/bugs.py. InputError where there are no answers."""
    if not (ANSWERS / "bugs.py").exists():
        raise InputError("the bugs are in exercises/answers/, which a student's repository does not have: run this in "
                         "the full repository")
    return runpy.run_path(str(ANSWERS / "bugs.py"))["BUGS"]


def copy_code(out):
    """The code as it is, without tests and exercises. What tests need (conftest.py, toys.py) comes along."""
    if out.exists():
        raise InputError(f"{out}: is there already; name a folder that is not")
    if ROOT in out.resolve().parents:
        raise InputError(f"{out}: lies in the repository that is copied; name a folder outside of it")
    shutil.copytree(ROOT, out, ignore=shutil.ignore_patterns(*LEFT_OUT))
    for test in (out / "tests").glob("test_*.py"):
        test.unlink()
    return out


def plant(out, bug):
    """Make the edits of one bug in a copy."""
    path = out / bug["file"]
    text = path.read_text()
    for old, new in bug["edits"]:
        assert text.count(old) == 1, f"{bug['file']}: the code has changed; mend the edits in answers/bugs.py"
        text = text.replace(old, new)
    path.write_text(text)


def read(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def table(healthy, suspect, every=3):
    """Both runs side by side -> Markdown: healthy / suspect, in the first step and then in every third."""
    pairs = [(a, b) for a, b in zip(healthy, suspect) if a["step"] == 1 or a["step"] % every == 0]
    form = lambda line, name: f"{line[name]:.3g}" if line.get(name) is not None else "–"
    row = lambda a, b: " | ".join(f"{form(a, name)} / {form(b, name)}" for name in SHOWN)
    rows = [f"| {a['step']} | {row(a, b)} |" for a, b in pairs]
    return "\n".join([f"| step | {' | '.join(SHOWN)} |", "|---" * (len(SHOWN) + 1) + "|", *rows])


PAGE = """# The hunt

One mistake was planted in this copy of the code. It raises nothing, and a run with it comes to its end. The tests
that would name it were taken out; everything else is as it should be. Texts and comments are right: where the code
does not do what they say, you are close.

`hunt/healthy` and `hunt/suspect` are two runs from the same warm start, with the same seed and the same command:

```sh
python train.py --algo sft --task countdown --sft-steps 600 --out runs/warm
python train.py {command} --init runs/warm --out runs/mine
```

1. **Find the curve.** Which metric is not only worse (or better), but cannot be what right code gives? Say what it
   ought to be, by a formula or an argument, before you open a file. [The glossary](docs/glossary.md) has every
   metric. One seed each: what a second seed might do is not a finding.
2. **Find the line.** Which functions is that metric made of? `git` and other copies of the code are no part of the
   hunt.
3. **Prove it.** Write `tests/test_hunt.py`: one test, small, that fails here and passes when the line is mended.
   tests/toys.py has models whose numbers can be worked out in the head;
   [extending](docs/extending.md#a-test-for-it) has a template.

Hand in the test, and three sentences: which curve, why it is impossible, which line.

Healthy / suspect:

{table}

Every step is in metrics.jsonl; what the models wrote is in samples.txt. With matplotlib,
`python plot.py hunt/suspect` draws one run.
"""


def hand_out(number, out):
    """The copy with the bug, the two runs, and the page that says what to do."""
    bug, out = bugs()[number], copy_code(out)
    plant(out, bug)
    shutil.copytree(CURVES / "healthy", out / "hunt" / "healthy")
    shutil.copytree(CURVES / str(number), out / "hunt" / "suspect")
    text = PAGE.format(command=" ".join(COMMAND), table=table(read(CURVES / "healthy"), read(CURVES / str(number))))
    (out / "HUNT.md").write_text(text)


def passes(test, folder, seconds=120):
    """Whether the tests in a file pass in a copy of the code -> (bool, the last line of pytest)."""
    shutil.copy(test, folder / "tests" / "test_hunt.py")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "tests/test_hunt.py"]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        return False, f"stopped after {seconds} s"
    lines = done.stdout.strip().splitlines() or [""]
    return done.returncode == 0 and " passed" in lines[-1], lines[-1]


def proof(number, test):
    """Does a test prove the bug? -> (bool, what happened in one line). It has to pass without the bug, too."""
    if not test.is_file():
        raise InputError(f"--proof {test}: there is no such file")
    with tempfile.TemporaryDirectory() as place:
        healthy, planted = copy_code(pathlib.Path(place) / "healthy"), copy_code(pathlib.Path(place) / "planted")
        plant(planted, bugs()[number])
        right, why = passes(test, healthy)
        if not right:
            return False, f"it does not pass on the code as it should be: {why}"
        wrong, why = passes(test, planted)
        if wrong or "failed" not in why:
            return False, f"it does not fail with the bug: {why}"
    return True, "it passes on the code as it should be, and fails with the bug"


def make():
    """Make the curves: the warm start, a healthy run, and one with each bug. What is there already is kept."""
    runs = ROOT / "runs" / "hunt"
    train = lambda folder, *flags: subprocess.run([sys.executable, "train.py", *flags], cwd=folder, check=True)
    if not (runs / "warm" / "checkpoint.pt").exists():
        train(ROOT, "--algo", "sft", "--task", "countdown", "--sft-steps", "600", "--test-problems", "100", "--out", str(runs / "warm"))
    for name, bug in {"healthy": None, **bugs()}.items():
        run = runs / str(name)
        if not (run / "summary.json").exists():
            shutil.rmtree(run, ignore_errors=True)
            with tempfile.TemporaryDirectory() as place:
                code = copy_code(pathlib.Path(place) / "code")
                if bug:
                    plant(code, bug)
                train(code, *COMMAND, "--init", str(runs / "warm"), "--out", str(run))
        (CURVES / str(name)).mkdir(parents=True, exist_ok=True)
        # Times are left out (they belong to a machine, not to a bug), and digits that nobody reads.
        lines = [{key: float(f"{value:.6g}") if isinstance(value, float) else value for key, value in line.items()
                  if key not in ("seconds", "tokens_per_second")} for line in read(run)]
        (CURVES / str(name) / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        shutil.copy(run / "samples.txt", CURVES / str(name) / "samples.txt")


def main(argv=None):
    parser = Parser(prog="hunt.py", description=__doc__.splitlines()[0])
    parser.add_argument("number", nargs="?", type=int, choices=(1, 2, 3, 4), help="which bug")
    parser.add_argument("out", nargs="?", type=pathlib.Path, metavar="OUT", help="a folder that is not there yet")
    parser.add_argument("--proof", type=pathlib.Path, metavar="TEST", help="judge a student's test of this bug")
    parser.add_argument("--make", action="store_true", help="make the curves again")
    given = parser.parse_args(argv)
    if given.make:
        return make()
    if given.number is None or (given.out is None) == (given.proof is None):
        raise InputError("say which bug, and a folder to plant it in, or --proof TEST: python exercises/hunt.py 1 OUT")
    if given.proof:
        right, why = proof(given.number, given.proof)
        print(f"{'proved' if right else 'not proved'}: {why}")
        return sys.exit(0 if right else 1)
    hand_out(given.number, given.out)
    print(f"{given.out}: a copy of the code with one silent bug; begin with {given.out / 'HUNT.md'}")


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(print(f"error: {error}", file=sys.stderr) or 2)
