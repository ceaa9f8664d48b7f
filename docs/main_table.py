"""The main table of README.md, from the summaries of the runs that its command makes.

    python docs/main_table.py        reads runs/countdown-{0,1,2}/summary.json, writes between the two comments in README.md
"""
import json
import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- main table -->\n", "<!-- /main table -->"
share = lambda name, of: lambda s: s[of][name] / s[of]["attempts"]
of = lambda name, when: lambda s: s[when][name]
ROWS = [  # title, value of a summary, digits
    ("pass@1, warm start", of("pass@1", "before"), 3), ("**pass@1, after RL**", of("pass@1", "after"), 3),
    ("random search with as many attempts", of("random_search", "baselines"), 3),
    ("the demonstrations themselves", of("demonstrations", "baselines"), 3),
    ("continued SFT, for as long as RL took", of("continued_sft", "baselines"), 3),
    ("pass@8, warm start", of("pass@8", "before"), 3), ("pass@8, after RL", of("pass@8", "after"), 3),
    ("greedy, warm start", of("greedy", "before"), 3), ("greedy, after RL", of("greedy", "after"), 3),
    ("tokens per answer, warm start", of("length", "before"), 1), ("tokens per answer, after RL", of("length", "after"), 1),
    ("attempts per answer, warm start", of("attempts", "before"), 2), ("attempts per answer, after RL", of("attempts", "after"), 2),
    ("success per attempt, warm start", share("hits", "before"), 3), ("success per attempt, after RL", share("hits", "after"), 3),
    ("legal attempts, warm start", share("legal", "before"), 3), ("legal attempts, after RL", share("legal", "after"), 3),
    ("correct marks, warm start", share("correct_marks", "before"), 3), ("correct marks, after RL", share("correct_marks", "after"), 3),
    ("answers that ended by themselves, after RL", of("finished", "after"), 2),
]


def table(summaries):
    """Summaries, one a seed -> Markdown, with the mean of the seeds and from where to where they lie."""
    lines = ["| test split | " + " | ".join(f"seed {i}" for i in range(len(summaries))) + " | mean (lowest to highest) |",
             "|" + "---|" * (len(summaries) + 2)]
    for title, value, digits in ROWS:
        values = [value(s) for s in summaries]
        cells = [f"{v:.{digits}f}" for v in values]
        mean = f"**{sum(values) / len(values):.{digits}f}** ({min(values):.{digits}f} to {max(values):.{digits}f})"
        lines.append(f"| {title} | " + " | ".join([*cells, mean]) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    found = [json.loads((ROOT / f"runs/countdown-{seed}/summary.json").read_text()) for seed in (0, 1, 2)]
    text = (ROOT / "README.md").read_text()
    (ROOT / "README.md").write_text(re.sub(f"{BEGIN}.*?{END}", lambda _: BEGIN + table(found) + END, text, flags=re.S))
