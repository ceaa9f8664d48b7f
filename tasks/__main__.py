"""Problems of a task as a data set, one JSON object a line.

    python -m tasks countdown --jsonl countdown.jsonl --problems 10000
    python -m tasks iterated_squaring --jsonl test.jsonl --problems 500 --split test --p 467

Train problems are drawn as training draws them, so one may come twice. Those of val and test are
different ones, the same that evaluate.py looks at. The columns, and the rule as a reward function:
plumbing/dataset.py.
"""
import json
import pathlib
import random
import sys
from dataclasses import asdict, dataclass

import checkpoint
import tasks
from config import InputError, Parser, add_flags, from_flags, setting
from evaluate import fixed_problems
from plumbing.dataset import row


@dataclass
class DatasetConfig:
    """data set"""
    jsonl: str = setting("", "the file to write; it must not be there yet")
    problems: int = setting(1000, "how many", low=1, high=10**7)
    split: str = setting("train", "which problems", choices=tasks.SPLITS)
    seed: int = setting(0, "of the train problems and of all demonstrations", low=0, high=2**31 - 1)


def main(argv=None):
    argv = sys.argv[1:] if argv is None else argv
    name = argv[0] if argv and not argv[0].startswith("-") else "countdown"  # its options are flags too
    parser = Parser(prog="python -m tasks", description="Problems of a task as a data set, one JSON object a line.")
    parser.add_argument("name", metavar="NAME", help=f"one of {', '.join(tasks.names())}")
    for config_class in (DatasetConfig, tasks.task_class(name).Options):
        add_flags(parser, config_class)
    given = vars(parser.parse_args(argv))
    config, task = from_flags(DatasetConfig, given), tasks.load(name, **asdict(from_flags(tasks.task_class(name).Options, given)))
    place = pathlib.Path(config.jsonl)
    if not config.jsonl or place.exists():
        raise InputError(f"--jsonl {config.jsonl}: {'is there already' if config.jsonl else 'name the file to write'}")
    rng = random.Random(f"data set {config.seed}")
    if config.split == "train":
        problems = [task.sample_problem(rng, "train") for _ in range(config.problems)]
    else:
        problems = fixed_problems(task, config.split, config.problems)
    rows = [row(task, problem, rng) for problem in problems]
    checkpoint.write_aside(place, lambda file: file.writelines(json.dumps(r).encode() + b"\n" for r in rows))
    few = "" if len(rows) == config.problems else " (there are no more that differ)"
    print(f"{place}: {len(rows):,} {config.split} problems of {task.name}{few}; "
          f"{sum(r['right'] for r in rows) / len(rows):.0%} of the demonstrations are right")


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(print(f"error: {error}", file=sys.stderr) or 2)
