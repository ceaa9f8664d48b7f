"""The exercises: what make.py leaves of the solution, what the grader gives for it, and whether it can
be led astray.
"""
import ast
import json
import pathlib
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "exercises"))
import checks
import grade
import make
import mistakes
import table
from config import InputError

CODE = [part for part in table.PARTS if "." in part.target]


@pytest.fixture(scope="module", autouse=True)
def worker():
    yield
    grade.WORKER.close()
    grade.WORKER = grade.Worker()


@pytest.fixture(scope="module")
def skeleton(tmp_path_factory):
    out = tmp_path_factory.mktemp("skeleton") / "student"
    make.make(out)
    return out


@pytest.fixture
def solved(tmp_path):
    """A student's repository in which everything is right, to be spoiled."""
    folder = tmp_path / "student"
    grade.copy_of(ROOT, folder)
    return folder


def spoil(folder, part, body):
    target = next(p.target for p in CODE if p.id == part)
    path, name = make.file_of(target)
    (folder / path).write_text(mistakes.with_body((folder / path).read_text(), name, body))


# ---- the table

def test_the_table_names_functions_of_the_core_and_every_sheet_has_parts():
    assert len({part.id for part in table.PARTS}) == len(table.PARTS)
    for part in CODE:
        assert checks.calls.find(part.target)[0].__doc__, part
        assert part.id in checks.CASES and part.id in checks.calls.CALLS and len(checks.MISTAKES[part.id]) >= 5
    assert {part.sheet for part in table.PARTS} == set(table.SHEETS) == set(range(1, 8))


def test_every_known_mistake_still_fits_the_text_of_the_function():
    for part, known in checks.MISTAKES.items():
        for hint, *edits in known:
            text = checks.text_of(checks.TARGETS[part])
            for old, new in zip(edits[::2], edits[1::2], strict=True):
                text = checks.replaced(text, old, new, hint)


# ---- the student's repository

def test_a_body_goes_and_signature_and_docstring_stay(skeleton):
    for part in CODE:
        path, name = make.file_of(part.target)
        before, after = (make.find(ast.parse((folder / path).read_text()), name)
                         for folder in (ROOT, skeleton))
        assert ast.dump(before.args) == ast.dump(after.args)
        assert ast.get_docstring(before) == ast.get_docstring(after)
        assert [type(node) for node in after.body] == [ast.Expr, ast.Raise]
        assert f"exercise {part.id}:" in ast.unparse(after.body[1])


def test_no_line_of_an_answer_is_left_anywhere(skeleton):
    """Lines of some length; shorter ones occur by themselves."""
    left = "\n".join(path.read_text() for path in skeleton.rglob("*") if path.suffix in (".py", ".md"))
    for part in CODE:
        path, name = make.file_of(part.target)
        source = (ROOT / path).read_text()
        node = make.find(ast.parse(source), name)
        body = "\n".join(source.splitlines()[node.body[1].lineno - 1:node.end_lineno])
        found = [line for line in map(str.strip, body.splitlines()) if len(line) > 45 and line in left]
        assert not found, (part.id, found)


def test_what_gives_the_answer_away_is_left_out(skeleton):
    names = {str(path.relative_to(skeleton)) for path in skeleton.rglob("*") if path.is_file()}
    assert not [name for name in names
                if name.startswith(("tests/", "bench/", "exercises/checks", "exercises/answers",
                                    ".git/"))]
    assert not names & {"exercises/grade.py", "exercises/make.py", "exercises/mistakes.py",
                        "exercises/TEACHERS.md", "methods/vineppo.py"}
    assert {"grpo.py", "methods/star.py", "exercises/public/test_public.py",
            "exercises/public/expected.pt", "exercises/table.py"} <= names


def test_one_sheet_leaves_the_rest_solved(tmp_path):
    make.make(tmp_path / "three", 3)
    differ = {path for path in make.to_empty(None)
              if (tmp_path / "three" / path).read_text() != (ROOT / path).read_text()}
    assert differ == {"grpo.py", "ppo.py"}  # ppo.py has a clip too
    assert "left out" in (tmp_path / "three" / "ppo.py").read_text()
    report = grade.grade(tmp_path / "three", only=["3.1", "4.2"])
    assert [row["passed"] for row in report["parts"]] == [False, True]


def test_nothing_is_written_over(tmp_path):
    with pytest.raises(InputError, match="is there already"):
        make.make(tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_public_tests_say_what_is_missing(skeleton):
    ran = subprocess.run([sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "exercises/public",
                          "-k", "3.1"], cwd=skeleton, capture_output=True, text=True)
    assert "3.1 grpo.group_advantages: still to be written (exercise 3.1: advantages" in ran.stdout
    assert ran.returncode == 1 and "1 failed" in ran.stdout and "rror" not in ran.stdout


# ---- the points

def test_the_skeleton_scores_nothing(skeleton):
    report = grade.grade(skeleton)
    assert report["points"] == 0 < report["of"] and not report["passed"]
    for row in report["parts"]:
        if row["target"]:
            assert not row["passed"] and f"still to be written (exercise {row['part']}:" in row["says"], row


@pytest.mark.parametrize("sheet", range(1, 7))
def test_the_solution_scores_everything(sheet):
    report = grade.grade(ROOT, sheet)
    assert report["passed"] and report["points"] == report["of"], grade.text(report)
    assert report["of"] == sum(part.points for part in CODE if part.sheet == sheet)


SOME = ("1.5 pads at the end", "1.1 counts the sampled tokens without EOS", "3.1 torch's default std",
        "2.2 mean over each micro-batch",
        "3.4 detached ratio", "1.6 the critic's output as it is")


def test_a_mistake_is_called_by_its_name():
    rows = mistakes.run([each for each in mistakes.PLANTED if f"{each[0]} {each[1]}" in SOME])
    assert len(rows) == len(SOME) and all(fails and meant for *_, fails, _, meant in rows), rows


def test_public_tests_alone_are_not_enough(solved):
    """Somebody has written a table of the public test's answers, so to speak."""
    path = solved / "grpo.py"
    text = path.read_text()
    known = [case["rewards"].tolist() for case in checks.make_cases("3.1", checks.PUBLIC)]
    path.write_text(text.replace("    groups = rewards.view(-1, group_size)\n",
                                 f"    if rewards.tolist() not in {known}:\n        return rewards\n"
                                 "    groups = rewards.view(-1, group_size)\n", 1))
    [row] = grade.grade(solved, only=["3.1"])["parts"]
    assert row["public"] and not row["passed"] and row["points"] == 0
    assert row["says"].startswith("public tests passed, hidden ones did not")


def test_a_part_that_needs_another_says_so(solved):
    spoil(solved, "3.1", "raise NotImplementedError('exercise 2.4: exact arithmetic')")
    [row] = grade.grade(solved, only=["3.1"])["parts"]
    assert row["says"].startswith("needs what is not written yet (exercise 2.4: exact arithmetic")


# ---- hostile submissions

OUTSIDE, SOLUTION = "/tmp/thinksmall-written-by-a-student", str(ROOT / "grpo.py")
HOSTILE = {
    "1.1": ("while True:\n    pass", "an endless loop?"),
    "1.2": ("import sys\nsys.exit(0)", "ended by itself"),
    "1.5": ("import os\nos._exit(0)", "ended by itself"),
    "1.6": ("torch.allclose = torch.equal = lambda *_, **__: True\ntorch.Tensor.__eq__ = lambda *_: True\n"
            "return torch.zeros(tokens.shape)", ""),
    "2.3": ("import shutil, os\nshutil.rmtree(os.getcwd())\nreturn None", ""),
    "2.6": ("print('x' * 10 ** 8)\nreturn torch.zeros(len(finished)), torch.zeros(len(finished))", ""),
    "3.1": (f"import importlib.util as u\nspec = u.spec_from_file_location('solution', {SOLUTION!r})\n"
            "solution = u.module_from_spec(spec)\nspec.loader.exec_module(solution)\n"
            "return solution.group_advantages(rewards, group_size, std, baseline, per_mean)",
            "opens a file of the solution"),
    "3.2": (f"names = {{'torch': torch}}\ntry:\n    exec(open({SOLUTION!r}).read(), names)\n"
            "except BaseException:\n    pass\n"
            "return names['token_weights'](mask, aggregate, max_length)",
            "opens a file of the solution"),
    "4.1": (f"open({OUTSIDE!r}, 'w').write('x')", "writes outside of its folder"),
    "4.2": ("import os, signal\nos.kill(os.getppid(), signal.SIGKILL)", "sends a signal"),
    "4.3": ("import os\nwhile True:\n    os.fork()", "starts a process"),
    "4.4": ("import subprocess\nsubprocess.run(['true'])", "starts a process"),
    "5.1": ("return torch.zeros(2 * 10 ** 6), torch.zeros(2 * 10 ** 6)", "too much"),
    "6.1": ("class Always(float):\n    __eq__ = lambda *_: True\nreturn Always(0.5)", ""),
    "6.5": ("return [None] * 10 ** 12", ""),
}


@pytest.mark.parametrize("group", range(3))
def test_hostile_submissions_earn_nothing_and_the_rest_is_graded(solved, group):
    some = list(HOSTILE)[group::3]
    for part in some:
        spoil(solved, part, HOSTILE[part][0])
    (solved / "conftest.py").write_text(
        "import pytest\n\n@pytest.hookimpl(hookwrapper=True)\ndef pytest_runtest_makereport(item, call):\n"
        "    out = yield\n    out.get_result().outcome = 'passed'\n")
    spoil(solved, "3.3", "return logprobs")  # wrong, and pytest would call it passed
    rest = ["1.3", "3.4", "6.3"]
    report = grade.grade(solved, only=[*some, "3.3", *rest], limit=2)
    rows = {row["part"]: row for row in report["parts"]}
    for part in some:
        assert rows[part]["points"] == 0 and HOSTILE[part][1] in rows[part]["says"] != "", rows[part]
    assert rows["3.3"]["points"] == 0 and all(rows[part]["passed"]
                                              for part in rest) and not report["passed"]
    assert not pathlib.Path(OUTSIDE).exists() and (solved / "rewards.py").exists()


def test_a_link_to_the_solution_is_not_followed(solved):
    (solved / "grpo.py").unlink()
    (solved / "grpo.py").symlink_to(ROOT / "grpo.py")
    report = grade.grade(solved, only=["3.1", "6.1"])
    assert [row["points"] > 0 for row in report["parts"]] == [False, True]


def test_a_file_that_cannot_be_read_costs_its_parts_alone(solved):
    (solved / "dpo.py").write_text("def dpo_loss(:\n")
    broken, other = grade.grade(solved, only=["5.1", "6.1"])["parts"]
    assert not broken["points"] and "SyntaxError" in broken["says"] and other["points"]


def test_the_exit_status_says_whether_everything_passed(skeleton, tmp_path, capsys):
    assert grade.main([str(ROOT), "--sheet", "6", "--json", str(tmp_path / "report.json")]) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["passed"] and report["points"] == report["of"]
    assert "everything passed" in capsys.readouterr().out
    assert grade.main([str(skeleton), "--sheet", "6"]) == 1
    assert "not passed" in capsys.readouterr().out


# ---- run folders

def run_folder(place, seed, before, after, **settings):
    place.mkdir(parents=True)
    config = {"algo": "grpo", "task": "countdown", "seed": seed, "out": str(place),
              "lr": 1e-4} | settings
    (place / "config.json").write_text(json.dumps(config))
    (place / "summary.json").write_text(json.dumps({"before": {"pass@1": before},
                                                    "after": {"pass@1": after}, "steps": 2}))
    (place / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2}\n')


def investigated(folder):
    return {row["part"]: row for row in grade.grade(folder, 7)["parts"]}


def test_a_claim_that_three_seeds_bear_out_earns_its_points(tmp_path):
    for seed in range(3):
        run_folder(tmp_path / "handin" / "7.1" / str(seed), seed, 0.2, 0.5 + seed / 50)
        run_folder(tmp_path / "handin" / "7.2" / "base" / str(seed), seed, 0.2, 0.5 + seed / 50)
        run_folder(tmp_path / "handin" / "7.2" / "changed" / str(seed), seed, 0.2, 0.6 + seed / 40,
                   lr=3e-4)
    (tmp_path / "handin" / "7.2" / "claim.txt").write_text("better\n")
    rows = investigated(tmp_path)
    assert rows["7.1"]["passed"] and rows["7.2"]["passed"] and rows["7.2"]["says"] == ""
    (tmp_path / "handin" / "7.2" / "claim.txt").write_text("undecided\n")
    assert not investigated(tmp_path)["7.2"]["passed"]


@pytest.mark.parametrize("settings, says",
                         [({"lr": 3e-4, "beta": 0.1}, "one setting"), ({}, "one setting"),
                          ({"seed": 7, "lr": 3e-4}, "the same")])
def test_a_comparison_that_compares_something_else_earns_nothing(tmp_path, settings, says):
    for seed in range(3):
        run_folder(tmp_path / "handin" / "7.2" / "base" / str(seed), seed, 0.2, 0.5)
        run_folder(tmp_path / "handin" / "7.2" / "changed" / str(seed),
                   **({"seed": seed, "before": 0.2, "after": 0.6} | settings
                   | ({"seed": settings["seed"] + seed} if "seed" in settings else {})))
    row = investigated(tmp_path)["7.2"]
    assert row["points"] == 0 and says in row["says"]


def test_two_seeds_are_too_few(tmp_path):
    for seed in range(2):
        run_folder(tmp_path / "handin" / "7.1" / str(seed), seed, 0.2, 0.6)
    rows = investigated(tmp_path)
    assert rows["7.1"]["points"] == 0 and "three seeds are the least" in rows["7.1"]["says"]
    assert rows["7.2"]["points"] == 0
