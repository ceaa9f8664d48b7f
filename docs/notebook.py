"""Writes docs/thinksmall.ipynb: the main job, its curves and one search, for a browser (Colab) or for Jupyter.

    python docs/notebook.py            tests/test_readme.py checks that the file is what this writes

THINKSMALL_NOTEBOOK, if it is set, holds flags that make the run tiny; the test executes the notebook with them where nbclient is installed.
"""
import json
import pathlib

PLACE = pathlib.Path(__file__).resolve().parent / "thinksmall.ipynb"
REPOSITORY = "https://github.com/OWNER/thinksmall"  # a placeholder: whoever publishes the project puts the address here

CELLS = [  # (kind, text)
    ("markdown", """
# ThinkSmall: a small model learns to reason

A GPT of 0.6 million parameters is trained from nothing on puzzles whose answers a rule can check: first it imitates mediocre examples,
then it learns from the rule alone, by GRPO. On a free machine this takes about ten minutes, without a GPU. Run the cells from top to bottom."""),
    ("code", f"""
import os, pathlib, sys

REPOSITORY = "{REPOSITORY}"
FLAGS = os.environ.get("THINKSMALL_NOTEBOOK", "")   # more flags of train.py; empty: the defaults
RUN = "runs/notebook"

if not pathlib.Path("train.py").exists():           # not inside of the project yet
    if not pathlib.Path("thinksmall").exists():
        !git clone --quiet {{REPOSITORY}} thinksmall
    os.chdir("thinksmall")
    !{{sys.executable}} -m pip install --quiet tiktoken tqdm matplotlib   # torch and numpy are there already
print(os.getcwd())"""),
    ("markdown", """
## The main job

Warm start, reinforcement learning, evaluation. What is printed first is what the warm start writes; at the end, what the trained policy writes to the
same problems, and the table: before, after, and the baselines that do no reinforcement learning."""),
    ("code", """
!{sys.executable} train.py --algo grpo --task countdown --out {RUN} {FLAGS}"""),
    ("markdown", """
## The curves

Accuracy, attempts per answer, and how often an attempt hits the target. Does accuracy rise because the policy tries more often, or because it aims better?"""),
    ("code", """
from IPython.display import Image, display

curves = pathlib.Path(RUN, "curves.png")
display(Image(str(curves)) if curves.exists() else "no picture: matplotlib is not installed")"""),
    ("code", """
import json

for line in pathlib.Path(RUN, "metrics.jsonl").read_text().splitlines()[::20]:   # every 20th step
    m = json.loads(line)
    print({name: round(m[name], 3) for name in ("step", "accuracy", "attempts", "hits", "legal", "entropy", "groups_with_variance", "kl")})"""),
    ("markdown", """
## One search

A policy that may try again is right more often, if somebody can tell which try is good. In countdown a rule can. MCTS spends its tokens on a tree of
reasoning steps; the tree of the first problem is printed below the table."""),
    ("code", """
problems = 4 if FLAGS else 100
!{sys.executable} search.py {RUN} --method sample,best_of_n,mcts --budget 256 --problems {problems} --render"""),
    ("markdown", """
## Go on

- Another method: `--algo ppo`, `dr_grpo`, `dapo`, `dpo --iterative`, `star`. Another task: `--task permutation`.
- A penalty for false steps: `--step-penalty 0.3`. Look at `legal` and `attempts`.
- The tutorial is in `docs/`, and each file of the code is read from top to bottom."""),
]


def notebook():
    """The notebook as text (nbformat 4.5)."""
    cells = []
    for i, (kind, text) in enumerate(CELLS):
        cell = {"cell_type": kind, "id": f"cell-{i}", "metadata": {}, "source": text.strip().splitlines(keepends=True)}
        cells.append(cell | ({"execution_count": None, "outputs": []} if kind == "code" else {}))
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    content = {"cells": cells, "metadata": {"kernelspec": kernel, "language_info": {"name": "python"}}, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    PLACE.write_text(notebook())
