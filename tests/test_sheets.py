"""The sheets say what the table says; nothing of a solution stands in them; what they link to and run is checked by test_readme.py."""
import ast
import importlib
import inspect
import pathlib
import re
import sys
import textwrap

import pytest

ROOT = pathlib.Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "exercises"))
import make  # noqa: E402
import table  # noqa: E402

SHEETS = {int(path.name[0]): path for path in sorted((ROOT / "exercises" / "sheets").glob("*.md"))}
HEADING = re.compile(r"^### (\d\.\d) (.+)\n\n(`[\w.]+`|text|run folders) · (\d+) points · (\d+) minutes · difficulty (\d)$", re.M)


def test_there_is_a_sheet_for_each_of_the_seven():
    assert list(SHEETS) == list(table.SHEETS) == list(range(1, 8))
    for n, path in SHEETS.items():
        assert path.read_text().splitlines()[0] == f"# Sheet {n}. {table.SHEETS[n]}"


@pytest.mark.parametrize("n", SHEETS)
def test_a_sheet_has_the_parts_of_the_table_in_its_order(n):
    """Id, title, function, points, minutes and difficulty of each."""
    wanted = [(p.id, p.title, {"": "text", "runs": "run folders"}.get(p.target, f"`{p.target}`"), p.points, p.minutes, p.difficulty)
              for p in table.of_sheet(n)]
    found = [(i, title, target, int(points), int(minutes), int(difficulty))
             for i, title, target, points, minutes, difficulty in HEADING.findall(SHEETS[n].read_text())]
    assert found == wanted


@pytest.mark.parametrize("n", SHEETS)
def test_a_sheet_has_mathematics_something_to_derive_to_run_and_to_look_at(n):
    text = SHEETS[n].read_text()
    assert re.search(r"[Dd]erive", text) and "```sh\npython" in text.replace("for seed in 0 1 2; do ", "") and "```\n" in text
    assert f"make.py OUT --sheet {n}" in " ".join(text.split()) and "](../README.md)" in text and len(text.splitlines()) < 200


@pytest.mark.parametrize("n", [n for n in SHEETS if n < 7])
def test_no_line_of_a_solution_stands_in_a_sheet(n):
    """No statement of the functions that are to be written, as the core has it, from 25 characters on."""
    text = re.sub(r"\s+", "", "".join(path.read_text() for path in SHEETS.values()))
    for part in table.of_sheet(n):
        if not part.target:
            continue
        names = part.target.split(".")
        cut = next(k for k in range(len(names) - 1, 0, -1) if (ROOT / ("/".join(names[:k]) + ".py")).exists())
        function = importlib.import_module(".".join(names[:cut]))
        for name in names[cut:]:
            function = getattr(function, name)
        [definition] = ast.parse(textwrap.dedent(inspect.getsource(function))).body
        for node in ast.walk(definition):
            if isinstance(node, (ast.Assign, ast.AugAssign, ast.Return)) and node.value:
                code = re.sub(r"\s+", "", ast.unparse(node.value))
                assert len(code) < 25 or code not in text, f"{part.id}: {ast.unparse(node)}"


@pytest.mark.parametrize("sheet", [None, *SHEETS])
def test_in_a_students_repository_every_link_of_the_sheets_leads_somewhere(sheet):
    """Also where only one sheet was made. The README names the other sheets; there they are missing, and it says so."""
    holds = {make.file_of(part.target)[0] for part in table.PARTS if "." in part.target}
    there = {name for name in make.sources() if not make.is_left_out(name, sheet, holds)}
    pages = [ROOT / "exercises" / "README.md", *(path for n, path in SHEETS.items() if sheet in (None, n))]
    for page in pages:
        assert str(page.relative_to(ROOT)) in there
        for link in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
            if not link.startswith(("http", "sheets/")):
                assert str((page.parent / link).resolve().relative_to(ROOT)) in there, f"{page.name}: {link}"


def test_the_page_for_students_has_the_sums_of_the_table():
    rows = re.findall(r"^\| \[(\d) [^]]+\]\(([^)]+)\) \|[^|]+\| (\d+) \| (\d+) \|$", (ROOT / "exercises" / "README.md").read_text(), re.M)
    assert [(int(n), int(points), int(minutes)) for n, _, points, minutes in rows] == [
        (n, sum(p.points for p in table.of_sheet(n)), sum(p.minutes for p in table.of_sheet(n))) for n in table.SHEETS]


def test_the_page_for_teachers_has_the_sums_of_the_table():
    text = (ROOT / "exercises" / "TEACHERS.md").read_text()
    rows = re.findall(r"^\| (\d) \| (\d+) min \| (\d+) min \|", text, re.M)
    code = lambda n: sum(p.minutes for p in table.of_sheet(n) if p.target)
    assert [(int(n), int(a), int(b)) for n, a, b in rows] == [
        (n, code(n), sum(p.minutes for p in table.of_sheet(n)) - code(n)) for n in table.SHEETS]


def test_every_derivation_and_question_has_a_model_answer():
    for n in SHEETS:
        text = (ROOT / "exercises" / "answers" / f"{n}.md").read_text()
        assert all(part.id in text for part in table.of_sheet(n) if not part.target or part.target == "runs"), n
