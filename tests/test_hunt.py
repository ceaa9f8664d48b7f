"""The hunt: the bug is in the copy and nothing else is, the copy runs, the model proof proves it, and the curves tell."""
import filecmp
import pathlib
import subprocess
import sys
import types

import pytest

from config import InputError

ROOT = pathlib.Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "exercises"))
import hunt  # noqa: E402

BUGS = hunt.bugs()


def files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts}


@pytest.fixture(scope="module", params=BUGS)
def planted(request, tmp_path_factory):
    out = tmp_path_factory.mktemp("hunt") / "out"
    hunt.hand_out(request.param, out)
    return request.param, out


def test_one_file_differs_from_the_code(planted):
    """And nothing is there that was not, but the page and the two runs; no test, no answer, no exercise."""
    number, out = planted
    code = {name for name in files(out) if not name.startswith("hunt/") and name != "HUNT.md"}
    assert {name for name in code if not filecmp.cmp(ROOT / name, out / name, shallow=False)} == {BUGS[number]["file"]}
    assert {"train.py", "grpo.py", "tests/toys.py", "tests/conftest.py", "docs/glossary.md"} <= code
    assert not [name for name in code if name.startswith(("exercises/", "runs/", ".git/", "tests/test_"))]


def test_comments_and_texts_do_not_give_it_away(planted):
    """What was planted adds no comment, and HUNT.md does not name the file."""
    number, out = planted
    assert all("#" not in new and new.count("\n") <= old.count("\n") + 1 for old, new in BUGS[number]["edits"])
    page = (out / "HUNT.md").read_text()
    assert BUGS[number]["file"] not in page and "| step | accuracy |" in page


def modules_with(bug, monkeypatch):
    """The module of a bug as the copy has it, under its own name."""
    text = (ROOT / bug["file"]).read_text()
    for old, new in bug["edits"]:
        assert text.count(old) == 1
        text = text.replace(old, new)
    name = bug["file"].removesuffix(".py").replace("/", ".")
    module = types.ModuleType(name)
    exec(compile(text, bug["file"], "exec"), module.__dict__)
    monkeypatch.setitem(sys.modules, name, module)


def proofs(bug):
    names = {}
    exec(bug["proof"], names)
    return [value for name, value in names.items() if name.startswith("test_")]


@pytest.mark.parametrize("number", BUGS)
def test_the_model_proof_passes_on_the_code_and_fails_with_the_bug(number, monkeypatch):
    for test in proofs(BUGS[number]):
        test()
    modules_with(BUGS[number], monkeypatch)
    for test in proofs(BUGS[number]):
        with pytest.raises(AssertionError):
            test()


@pytest.fixture
def tiny_code(tmp_path, monkeypatch):
    """A repository of one file, which takes no time to import, with one bug."""
    code = tmp_path / "code"
    (code / "tests").mkdir(parents=True)
    (code / "pyproject.toml").write_text('[tool.pytest.ini_options]\naddopts = "-q"\npythonpath = ["."]\n')
    (code / "adder.py").write_text("def add(a, b):\n    return a + b\n")
    monkeypatch.setattr(hunt, "ROOT", code)
    monkeypatch.setattr(hunt, "bugs", lambda: {1: {"file": "adder.py", "edits": [("a + b", "a - b")]}})


@pytest.mark.parametrize("test, proves", [
    ("assert add(1, 2) == 3", "fails with the bug"), ("assert add(1, 0) == 1", "does not fail with the bug"),
    ("assert add(1, 2) == 4", "does not pass on the code"), ("import os; os._exit(0)", "does not pass on the code"),
    ("import pytest; pytest.skip()", "does not pass on the code"),
    ("assert add(1, 2) == 3 or __import__('os')._exit(1)", "does not fail with the bug")])
def test_a_proof_fails_with_the_bug_and_passes_without(test, proves, tiny_code, tmp_path):
    """A test that fails either way proves nothing, nor one that passes either way, is skipped, or ends the process."""
    (tmp_path / "proof.py").write_text(f"from adder import add\n\n\ndef test_it():\n    {test}\n")
    right, why = hunt.proof(1, tmp_path / "proof.py")
    assert proves in why and right == (proves == "fails with the bug")


def test_a_copy_with_a_bug_trains(tmp_path):
    """All four in one copy: none of them raises, with the flags of the curves and a tiny model."""
    code = hunt.copy_code(tmp_path / "code")
    for bug in BUGS.values():
        hunt.plant(code, bug)
    small = ("--steps 1 --prompts 2 --sft-steps 1 --sft-batch 4 --n-layer 1 --n-embd 32 --test-problems 1 --eval-every 0 "
             "--numbers 2 --cot off --device cpu --out run").split()
    command = [sys.executable, "train.py", *hunt.COMMAND, *small]
    done = subprocess.run(command, cwd=code, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(hunt.read(code / "run")) == 1


def test_the_curves_are_runs_of_one_command():
    runs = [hunt.read(hunt.CURVES / name) for name in ("healthy", *map(str, BUGS))]
    steps = int(hunt.COMMAND[hunt.COMMAND.index("--steps") + 1])
    assert all([line["step"] for line in run] == list(range(1, steps + 1)) for run in runs)
    assert all(run[0]["accuracy"] == runs[0][0]["accuracy"] for run in runs if run is not runs[3])  # bug 3 draws its samples in another order
    assert sum(path.stat().st_size for path in hunt.CURVES.rglob("*.*")) < 200_000


def test_it_writes_over_nothing_and_says_what_is_missing(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="is there already"):
        hunt.main(["1", str(tmp_path)])
    with pytest.raises(InputError, match="say which bug"):
        hunt.main(["1"])
    with pytest.raises(InputError, match="no such file"):
        hunt.main(["1", "--proof", str(tmp_path / "none.py")])
    monkeypatch.setattr(hunt, "ANSWERS", tmp_path)
    with pytest.raises(InputError, match="full repository"):
        hunt.main(["1", str(tmp_path / "out")])
