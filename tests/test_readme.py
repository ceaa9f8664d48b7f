"""What README and docs say exists, exists; their commands parse; their examples of a task and of a method run; the notebook is up to date."""
import argparse
import importlib
import json
import pathlib
import random
import re
import runpy
import shlex
import shutil
import sys

import pytest
import torch

import methods
import tasks
import train
from docs import lines, main_table, notebook
from plumbing import catalogue, start
from toys import Bigram, seed, written

ROOT = pathlib.Path(__file__).parent.parent
PAGES = {str(page.relative_to(ROOT)): page.read_text() for page in lines.PAGES}
CHAPTERS = [name for name in PAGES if re.match(r"docs/\d+-", name)]
EXTENDING = PAGES["docs/extending.md"]


# ---- links

def without_code(text):
    return re.sub(r"^```.*?^```", "", text, flags=re.S | re.M)


def headings(text):
    """The anchors that GitHub makes of the headings of a page."""
    return [re.sub(r"[^\w -]", "", line.lstrip("# ").lower()).replace(" ", "-") for line in without_code(text).splitlines()
            if line.startswith("#")]


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_to_a_file_and_a_heading(page):
    links = [link for link in re.findall(r"\]\(([^)]+)\)", without_code(PAGES[page])) if not link.startswith("http")]
    assert links
    for link in links:
        path, _, heading = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), link
        assert not heading or re.fullmatch("L[0-9]+", heading) or heading in headings(target.read_text()), link


def test_every_link_to_a_line_leads_to_what_it_names():
    """docs/lines.py writes the numbers. A screen of room: who adds a row to a table shall not have to mend a link."""
    for page in lines.PAGES:
        text = page.read_text()
        assert len(lines.LINK.findall(text)) == text.count("#L"), page
        for name, path, number in lines.LINK.findall(text):
            there = lines.line_of(name, (page.parent / path).resolve())
            assert there and abs(there - int(number)) <= 25, f"{page}: {name}; python docs/lines.py writes the numbers"
    assert PAGES["README.md"].count("#L") > 5


# ---- sizes

def test_the_readme_is_short():
    assert len(PAGES["README.md"].splitlines()) <= 250


@pytest.mark.parametrize("page", CHAPTERS)
def test_a_chapter_is_short_and_has_code_an_equation_and_something_to_try(page):
    text = PAGES[page]
    assert 80 <= len(text.splitlines()) <= 160
    assert text.count("#L") >= 3 and "```\n" in text
    assert "| command | what to look at | a good first sweep | what to try |" in text


def test_the_tutorial_has_ten_chapters_and_names_them_all():
    assert len(CHAPTERS) == 10 and all(f"]({pathlib.Path(page).name})" in PAGES["docs/README.md"] for page in CHAPTERS)


def test_pictures_are_small():
    for path in (ROOT / "docs").glob("*.png"):
        assert path.stat().st_size < 300_000, path


# ---- commands

def commands(text):
    """Every command of a page -> list of lists of words: in blocks of shell, and in running text and tables between backticks."""
    blocks = "\n".join(re.findall(r"```sh\n(.*?)```", text, re.S)).replace("\\\n", " ")
    spans = [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", without_code(text))]
    found = []
    for line in [*re.findall(r'python -c ".*?"', blocks, re.S), *re.sub(r'python -c ".*?"', "", blocks, flags=re.S).splitlines(), *spans]:
        line = line.replace("$task", "circuit").replace("$seed", "0").replace(" $flags --", " --beta 0.3 --")
        for part in [line] if " -c " in line else re.split(r";|&&", line):
            words = shlex.split(part, comments=True) if re.search(r"\bpython\b", part) else []
            starts = [i for i, word in enumerate(words) if re.fullmatch(r"(\S*/)?python", word)]
            found += [words[i + 1:] for i in starts[:1] if len(words) > i + 1]
    return found


class Parsed(Exception):
    """A command line was understood; the work need not begin."""


@pytest.fixture
def only_parse(monkeypatch):
    """Every parser stops where it has understood its flags."""
    def parse_args(self, args=None, namespace=None):
        _, rest = self.parse_known_args(args, namespace)
        if rest:
            self.error(f"unknown: {rest}")
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_args)
    monkeypatch.syspath_prepend(str(ROOT / "experiments"))


def example(begins):
    """The one Python block of docs/extending.md that holds the given line."""
    return next(block for block in re.findall(r"```python\n(.*?)```", EXTENDING, re.S) if begins in block)


@pytest.fixture
def with_the_example(tmp_path, monkeypatch):
    """The page's own task, in a folder beside ours."""
    code = example("class Reverse(")
    (tmp_path / "reverse.py").write_text(code)
    monkeypatch.setattr(tasks, "__path__", [*tasks.__path__, str(tmp_path)])
    yield code
    sys.modules.pop("tasks.reverse", None)


ALL = sorted({(page, shlex.join(words)) for page, text in PAGES.items() for words in commands(text)})


def test_there_are_commands_to_be_checked():
    assert len(ALL) > 60 and len([page for page, _ in ALL if page == "README.md"]) >= 4


@pytest.mark.parametrize("page, command", [(page, command) for page, command in ALL if command.startswith("train.py")])
def test_every_command_for_train_parses(page, command, with_the_example, tmp_path):
    flags = shlex.split(command)[1:]
    if "--resume" in flags:  # a run of any kind, to be resumed
        (tmp_path / "config.json").write_text(json.dumps({"algo": "grpo", "task": "countdown"}))
        flags[flags.index("--resume") + 1] = str(tmp_path)
    algo, task, given, resume = start.read_command_line(flags)
    if not resume:
        start.configure(algo, task, given)


@pytest.mark.parametrize("page, command", [(page, command) for page, command in ALL if not command.startswith("train.py")])
def test_every_other_command_parses(page, command, only_parse, monkeypatch):
    words = shlex.split(command)
    if words[0] == "-c":
        compile(words[1], page, "exec")
        return
    if words[:2] in (["-m", "pytest"], ["-m", "pip"], ["-m", "venv"]):
        assert all((ROOT / word).exists() for word in words if word.endswith(".py"))
        return
    if words[:2] == ["-m", "tasks"]:
        monkeypatch.setattr(sys, "argv", words[1:])
        with pytest.raises(Parsed):
            runpy.run_module("tasks", run_name="__main__")
        return
    script = ROOT / words[0]
    assert script.exists(), command
    if words[0] in ("docs/lines.py", "docs/main_table.py", "docs/notebook.py", "examples/scaling.py",
                    "examples/gym_table.py", "exercises/mistakes.py", "exercises/table.py"):  # they have no flags
        assert len(words) == 1
        return
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(Parsed):
        runpy.run_path(str(script), run_name="__main__")


def flags():
    """Every flag of every command: settings (a switch also as --no-...), and what is added to a parser by hand."""
    known = set()
    for path in [path for folder in (".", "*") for path in ROOT.glob(f"{folder}/*.py") if path.parent.name not in ("tests", ".venv")]:
        text = path.read_text()
        for name, kind in re.findall(r"^    (\w+): (\w+) = setting\(", text, re.M):
            known |= {"--" + name.replace("_", "-")} | ({"--no-" + name.replace("_", "-")} if kind == "bool" else set())
        known |= {"--" + name for given in re.findall(r"(?m)^    main\(__file__.*QUICK, (.*)\)$", text) for name in re.findall(r"(\w+)=", given)}
        known |= set(re.findall(r'add_argument\("(--[a-z-]+)"', text)) | {"--help"}
    return known


@pytest.mark.parametrize("page", PAGES)
def test_every_flag_that_is_named_exists(page):
    spans = re.findall(r"`([^`]+)`", without_code(PAGES[page]))
    named = {flag for span in spans if "pip" not in span for flag in re.findall(r"(?<![\w-])--[a-z][a-z-]*", span)}
    assert not named - flags()


# ---- the examples of docs/extending.md

def test_the_example_of_a_task_is_a_task(with_the_example):
    task, rng = tasks.load("reverse", length=5), random.Random(seed())
    problems = [task.sample_problem(rng) for _ in range(200)]
    texts = [task.demonstration(problem, rng) for problem in problems]
    tokens = [task.tokenizer.encode(text) for text in texts]
    assert [task.tokenizer.decode(ids) for ids in tokens] == texts
    assert task.min_new_tokens <= min(map(len, tokens)) + 1 and max(map(len, tokens)) + 1 <= task.max_new_tokens
    assert max(len(task.tokenizer.encode(problem.prompt)) for problem in problems) <= task.max_prompt_tokens
    right = [task.verify(problem, text) for problem, text in zip(problems, texts)]
    assert 0.3 < sum(right) / len(right) < 0.9  # the teacher is sometimes impatient
    assert not task.verify(problems[0], "<answer>1,2</answer>") and not task.verify(problems[0], "")


def test_the_example_of_a_task_trains(with_the_example, tmp_path, monkeypatch):
    monkeypatch.setattr(start, "RUNS", tmp_path / "runs")
    summary = train.main("--task reverse --length 5 --sft-steps 3 --sft-batch 8 --steps 2 --prompts 2 --group-size 4 --n-layer 1 "
                         "--n-embd 32 --test-problems 3 --eval-every 0 --device cpu".split())
    assert summary["steps"] == 2 and summary["after"]["length"] > 1


def test_the_example_is_as_short_as_it_says(with_the_example):
    lines = [line for line in with_the_example.splitlines() if line.strip() and not line.startswith(("import", "from", '"""'))]
    assert len(lines) <= 30


@pytest.fixture
def running_mean(tmp_path, monkeypatch):
    """The page's own method, as the module that it would be."""
    (tmp_path / "running_mean.py").write_text(example("class RunningMean("))
    monkeypatch.setattr(catalogue, "FOLDER", tmp_path)
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(tmp_path)])
    yield importlib.import_module("methods.running_mean")
    sys.modules.pop("methods.running_mean", None)


def test_the_example_of_a_test_holds(running_mean):
    names = {"torch": torch, "Bigram": Bigram, "written": written, **vars(running_mean)}
    exec(example("def test_a_token_that_beat"), names)
    names["test_a_token_that_beat_the_baseline_becomes_likelier"]()


def test_the_example_of_a_method_trains_and_goes_on(running_mean, tmp_path, monkeypatch):
    monkeypatch.setattr(start, "RUNS", tmp_path / "runs")
    run = str(tmp_path / "run")
    train.main("--algo running_mean --sft-steps 1 --sft-batch 4 --steps 2 --prompts 4 --n-layer 1 --n-embd 32 --n-head 2 --numbers 2 "
               f"--cot off --test-problems 2 --eval-every 0 --device cpu --out {run}".split())
    summary = train.main(["--resume", run, "--steps", "3"])
    assert summary["steps"] == 3 and summary["updates"] == 3


# ---- the notebook

def test_the_notebook_is_what_the_script_writes():
    assert notebook.PLACE.read_text() == notebook.notebook(), "python docs/notebook.py"


def test_the_notebook_runs(tmp_path, monkeypatch):
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    shutil.copytree(ROOT, tmp_path / "thinksmall", ignore=shutil.ignore_patterns("runs", ".*", "__pycache__"))
    monkeypatch.setenv("THINKSMALL_NOTEBOOK", "--steps 2 --sft-steps 3 --sft-batch 8 --prompts 2 --group-size 4 --n-layer 1 --n-embd 32 "
                       "--test-problems 4 --eval-every 0 --device cpu")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    book = nbformat.reads(notebook.notebook(), as_version=4)
    # Where the project is there already nothing is cloned and nothing installed; the kernel starts inside of it.
    nbclient.NotebookClient(book, timeout=120, resources={"metadata": {"path": str(tmp_path / "thinksmall")}}).execute()
    written_by = json.dumps([cell.outputs for cell in book.cells if cell.cell_type == "code"])
    assert (tmp_path / "thinksmall" / "runs" / "notebook" / "summary.json").exists()
    assert "after RL" in written_by and "mcts" in written_by and "visits" in written_by


# ---- the main table

def test_the_main_table_is_made_from_summaries():
    """By hand: two seeds, every number another one."""
    summary = lambda k: {"baselines": {"random_search": 0.1 + k, "demonstrations": 0.2, "continued_sft": 0.3},
                         **{when: {"pass@1": p + k, "pass@8": 0.5, "greedy": 0.5, "length": 30.0, "attempts": 2.0, "hits": 1.0, "legal": 1.5,
                                   "correct_marks": 1.0, "finished": 0.75} for when, p in (("before", 0.25), ("after", 0.5))}}
    rows = main_table.table([summary(0.0), summary(0.125)]).splitlines()
    assert "| **pass@1, after RL** | 0.500 | 0.625 | **0.562** (0.500 to 0.625) |" in rows
    assert "| legal attempts, warm start | 0.750 | 0.750 | **0.750** (0.750 to 0.750) |" in rows
    assert len(rows) == 2 + len(main_table.ROWS) and PAGES["README.md"].count(main_table.BEGIN) == 1
