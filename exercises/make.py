"""Write the student's repository: this one, with the functions of the exercises emptied.

    python exercises/make.py OUT                all sheets
    python exercises/make.py OUT --sheet 3      sheet 3 alone, with the rest solved: a class can begin anywhere

There is one source. A function that table.py names keeps its signature, its docstring and the examples
in it; its body becomes one line that says which exercise it is. Nothing in the core marks this: it is
done on the syntax tree. What would give an answer away is left out (LEFT_OUT, and `hides` in table.py).
OUT must not exist yet.
"""
import ast
import fnmatch
import json
import os
import pathlib
import re
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.insert(0, str(HERE))
sys.path.insert(0, str(ROOT))
from config import InputError, Parser
from table import PARTS, SHEETS, of_sheet

LEFT_OUT = (
    "tests/*", "bench/*", ".ci/*", ".github/*",           # the solutions' own tests
    "methods/*", "experiments/*",                         # use and re-derive it; files that hold an exercise stay
    "docs/*.py", "docs/*.ipynb", "docs/extending.md",     # authors' tools; a whole task and a whole method
    "exercises/answers/*", "exercises/checks/*", "exercises/make.py", "exercises/grade.py", "exercises/hunt.py",
    "exercises/worker.py", "exercises/mistakes.py", "exercises/MISTAKES.md", "exercises/TEACHERS.md",
)


def file_of(target):
    """"tree.Tree.select" -> tree.py, Tree.select"""
    names = target.split(".")
    n = next(n for n in range(len(names) - 1, 0, -1)
             if ROOT.joinpath(*names[:n]).with_suffix(".py").exists())
    return "/".join(names[:n]) + ".py", ".".join(names[n:])


def to_empty(sheet):
    """-> {file: {name of a function: what its body will say}} for the parts of a sheet, or of all."""
    found = {}
    for part in of_sheet(sheet):
        if "." in part.target:
            for target in part.hides:
                path, name = file_of(target)
                found.setdefault(path, {})[name] = (f"left out, for it would give exercise {part.id} away: "
                                                    "write it too, once that one is done")
    for part in of_sheet(sheet):
        if "." in part.target:
            path, name = file_of(part.target)
            found.setdefault(path, {})[name] = f"exercise {part.id}: {part.title}"
    return found


def find(tree, name):
    """The node of a function or a method."""
    for each in name.split("."):
        tree = next(node for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))
                    and node.name == each)
    return tree


def emptied(source, says):
    """The text of a file, with these functions emptied. Exercises in comments at its end go too: they
    speak of the solution.
    """
    lines = source.split("\n# Exercises\n")[0].rstrip("\n").splitlines()
    tree = ast.parse(source)
    # from the end: lines keep their numbers
    for name, message in sorted(says.items(), key=lambda item: -find(tree, item[0]).lineno):
        node = find(tree, name)
        first = node.body[0]
        begin = first.lineno - 1 if ast.get_docstring(node) is None else first.end_lineno
        end, indent = node.end_lineno, " " * first.col_offset
        while end < len(lines) and lines[end].startswith(indent + "#"):  # comments behind the last statement
            end += 1
        lines[begin:end] = [f'{indent}raise NotImplementedError("{message}")']
    return "\n".join(lines) + "\n"


def sources():
    """The files of this repository: what git knows, or all that is there."""
    listed = subprocess.run(["git", "-C", str(ROOT), "ls-files", "-z", "--cached"], capture_output=True)
    if listed.returncode == 0:
        return sorted(name for name in listed.stdout.decode().split("\0") if name
                      and (ROOT / name).is_file())
    folders = [path for path in ROOT.iterdir() if path.name not in ("runs", "handin")
               and not path.name.startswith(".")]
    files = [f for path in folders for f in ([path] if path.is_file() else path.rglob("*"))]
    return sorted(str(f.relative_to(ROOT))
                  for f in files if f.is_file() and "__pycache__" not in f.parts)


def is_left_out(name, sheet, holds):
    if any(fnmatch.fnmatch(name, pattern) for pattern in LEFT_OUT):
        return name not in holds
    other = re.match(r"exercises/sheets/([1-7])", name)
    return bool(other) and sheet not in (None, int(other[1]))


def public_tests(sheet):
    """What the public tests compare with: inputs, right outputs, and the outputs of known mistakes with
    their hints. Data, no code.
    """
    import checks
    tests = {}
    for part in of_sheet(sheet):
        if "." in part.target:
            cases = checks.make_cases(part.id, checks.PUBLIC)
            right = checks.expected(part.id, cases)
            wrong = [(hint, [{"result": each["result"]} for each in found]) for hint,
                     found in checks.wrong(part.id, cases, right)]
            tests[part.id] = {"target": part.target, "cases": cases, "expected": right, "wrong": wrong}
    return tests


def make(out, sheet=None):
    """Write the student's repository -> the names of its files. InputError if OUT exists."""
    out = pathlib.Path(out)
    if os.path.lexists(out):
        raise InputError(f"{out}: is there already, and nothing is written over; choose another name, or "
                         "remove it yourself")
    says, holds = to_empty(sheet), {file_of(part.target)[0] for part in PARTS if "." in part.target}
    names = [name for name in sources() if not is_left_out(name, sheet, holds)]
    for name in names:
        path = out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(emptied((ROOT / name).read_text(), says[name]).encode() if name in says
                         else (ROOT / name).read_bytes())
    settings = (out / "pyproject.toml").read_text()
    # the public tests, and the examples in the docstrings
    places = json.dumps(["exercises/public", *sorted(says)])
    (out / "pyproject.toml").write_text(re.sub(r"^testpaths = .*$", f"testpaths = {places}", settings,
                                               flags=re.M))
    if says:
        import torch
        torch.save(public_tests(sheet), out / "exercises" / "public" / "expected.pt")
    return names


def main(argv=None):
    parser = Parser(prog="make.py", description="Write the student's repository.")
    parser.add_argument("out", metavar="OUT", help="a folder that does not exist yet")
    parser.add_argument("--sheet", type=int, choices=tuple(SHEETS),
                        help="this sheet alone, the rest solved")
    given = parser.parse_args(argv)
    names = make(given.out, given.sheet)
    functions = sum(1 for part in of_sheet(given.sheet) if "." in part.target)
    print(f"{given.out}: {len(names)} files, {functions} functions to be written. Begin with "
          f"{given.out}/exercises/README.md; test with: python -m pytest")


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(print(f"error: {error}", file=sys.stderr) or 2)
