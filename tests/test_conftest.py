"""The tests about the tests: none runs for ever, none needs a lucky seed."""
import ast
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).parent


def run_tests(folder, text):
    """A test file of its own, with our conftest.py and a limit of a fifth of a second -> what pytest says, and its status."""
    (folder / "tests").mkdir()
    for name in ("conftest.py", "toys.py"):
        shutil.copy(HERE / name, folder / "tests")
    (folder / "tests/test_loops.py").write_text(text)
    (folder / "doctests.py").write_text('"""\n>>> while True: pass\n"""\n')
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "--doctest-modules", "-p", "no:cacheprovider", "tests", "doctests.py"],
                          cwd=folder, env=os.environ | {"PYTHONPATH": str(HERE.parent), "THINKSMALL_TIME_LIMIT": "0.2"},
                          capture_output=True, text=True)
    return done.stdout + done.stderr, done.returncode


LOOPS = """
import pytest

@pytest.fixture(scope="module")
def endless():
    while True:
        pass

def test_a(endless):
    pass

def test_b():
    try:
        while True:
            pass
    except Exception:  # nothing that a program catches
        pass

def test_c():
    pass
"""

STUCK = """
import signal

def test_stuck():
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
    while True:
        pass
"""


@pytest.mark.skipif(not hasattr(__import__("signal"), "setitimer"), reason="needs POSIX")
def test_a_test_a_fixture_or_a_doctest_without_an_end_is_a_failure_of_one_line(tmp_path):
    output, _ = run_tests(tmp_path, LOOPS)
    told = set(re.findall(r"(?m)^(\S+) was stopped after 0.2 s, in ", output))
    assert told == {"tests/test_loops.py::test_a", "tests/test_loops.py::test_b", "doctests.py::doctests"}
    assert "1 passed" in output and "Traceback" not in output


@pytest.mark.skipif(not hasattr(__import__("signal"), "setitimer"), reason="needs POSIX")
def test_what_does_not_even_hear_a_signal_ends_the_tests_and_names_the_place(tmp_path):
    output, status = run_tests(tmp_path, STUCK)
    assert status == 1 and "Timeout" in output and "in test_stuck" in output


def calls(tree, *names):
    """-> the calls of functions with these names in a syntax tree, whatever they are functions of."""
    return [node for node in ast.walk(tree) if isinstance(node, ast.Call)
            and getattr(node.func, "attr", getattr(node.func, "id", None)) in names]


@pytest.mark.parametrize("path", sorted(HERE.glob("*.py")), ids=lambda path: path.name)
def test_every_seed_can_be_moved(path):
    """A number alone would stay where it is: write seed(3) or seeded(3). Also on command lines."""
    text = path.read_text()
    tree = ast.parse(text)
    own = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)} | {"tiny_gpt"}  # they call seeded themselves
    raw = [node for node in calls(tree, "manual_seed", "Random", "seed", "warm_start") for given in node.args
           if isinstance(given, ast.Constant) and getattr(node.func, "id", None) not in ("seed", *own)]
    raw += [node for node in ast.walk(tree) if isinstance(node, ast.Call) for given in node.keywords
            if given.arg == "seed" and isinstance(given.value, ast.Constant) and getattr(node.func, "id", None) not in own]
    assert [f"line {node.lineno}: {ast.unparse(node)}" for node in raw] == []
    assert re.findall(r"""--seed[ =]\d+|--seed", "\d+"[^ ]""", text) == []
