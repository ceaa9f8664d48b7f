"""What the README says exists, exists; its commands parse; its example of a task runs."""
import pathlib
import random
import re
import sys

import pytest

import tasks
import train
from docs import lines
from plumbing import start
from toys import seed

ROOT = pathlib.Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text()


def test_every_link_leads_to_a_file():
    links = [link for link in re.findall(r"\]\(([^)]+)\)", TEXT) if not link.startswith("http")]
    assert len(links) > 10
    for link in links:
        path, _, heading = link.partition("#")
        assert not path or (ROOT / path).exists(), link
        titles = [re.sub(r"[^a-z0-9 -]", "", line.lstrip("# ").lower()).replace(" ", "-") for line in TEXT.splitlines()
                  if line.startswith("#")]
        assert not heading or heading in titles or re.fullmatch("L[0-9]+", heading), link


def test_every_link_to_a_line_leads_to_what_it_names():
    """docs/lines.py writes the numbers. A screen of room: who adds a row to a table shall not have to mend a link."""
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        text = page.read_text()
        assert len(lines.LINK.findall(text)) == text.count("#L"), page
        for name, path, number in lines.LINK.findall(text):
            there = lines.line_of(name, (page.parent / path).resolve())
            assert there and abs(there - int(number)) <= 25, f"{page}: {name}; python docs/lines.py writes the numbers"
    assert TEXT.count("#L") > 5


def test_pictures_are_small():
    for path in (ROOT / "docs").glob("*.png"):
        assert path.stat().st_size < 300_000, path


@pytest.fixture
def with_the_example(tmp_path, monkeypatch):
    """The README's own task, in a folder beside ours."""
    code = next(block for block in re.findall(r"```python\n(.*?)```", TEXT, re.S) if "class Reverse(" in block)
    (tmp_path / "reverse.py").write_text(code)
    monkeypatch.setattr(tasks, "__path__", [*tasks.__path__, str(tmp_path)])
    yield code
    sys.modules.pop("tasks.reverse", None)


def test_every_command_parses(with_the_example):
    blocks = "\n".join(re.findall(r"```sh\n(.*?)```", TEXT, re.S)).replace("\\\n", " ")
    commands = re.findall(r"python (\w+\.py)([^;&|\n#]*)", blocks)
    assert len(commands) >= 4
    for script, flags in commands:
        assert (ROOT / script).exists(), script
        if script == "train.py":
            algo, task, given, resume = start.read_command_line(flags.replace("$task", "circuit").replace("$seed", "0").split())
            if not resume:
                start.configure(algo, task, given)


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
