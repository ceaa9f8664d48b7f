"""Links to lines: `[`name`](path/file.py#L12)` in README.md, CONTRIBUTING.md and docs/*.md gets the line on which `name` is defined.

    python docs/lines.py            writes the numbers; tests/test_readme.py checks them
"""
import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "exercises").rglob("*.md"))]
LINK = re.compile(r"\[`([\w.]+)`\]\(([\w./]+\.py)#L([0-9]+)\)")


def line_of(name, path):
    """The number of the line of `path` that defines `name` (a function, a class, a method `Class.method`, a constant), or None."""
    lines, where = path.read_text().splitlines(), 0
    for part in name.split("."):
        defines = re.compile(rf"\s*(def|class) {part}\b|{part}\s*=")
        where = next((i for i in range(where, len(lines)) if defines.match(lines[i])), None)
        if where is None:
            return None
    return where + 1


def renumbered(page):
    """The text of a page with the right numbers. ValueError if a link names what is not there."""
    def right(match):
        number = line_of(match[1], (page.parent / match[2]).resolve())
        if number is None:
            raise ValueError(f"{page.name}: {match[2]} does not define {match[1]}")
        return f"[`{match[1]}`]({match[2]}#L{number})"
    return LINK.sub(right, page.read_text())


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(renumbered(page))
