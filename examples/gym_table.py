"""Which tasks of reasoning-gym can our rule judge?

    pip install reasoning-gym==0.1.25
    python examples/gym_table.py          prints the table of docs/scaling.md; minutes

Our rule for a task with one true answer (tasks/serial.py): the text between <answer> and </answer> is
that answer, or, if both are arithmetic, has its value. Theirs is `score_answer`, 1.0 for right: plain
equality in the tasks with a single right text, a program of its own in the others.

Both judge the same answers: to each of 8 problems of a task its true answer, those of the 7 others, and
"0". A task is *agreed on* if both say the same each time, and our rule reads the true answer as it
stands. For a scorer of its own that is evidence, not proof: it may accept texts that were not tried.
Tasks that took more than 5 s of CPU for their 8 problems are left out.
"""
import pathlib
import signal
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from rewards import evaluate_expression, extract_answer

PROBLEMS, SECONDS = 8, 5
KINDS = ("agreed on", "not agreed on", "no single true answer", "too slow, or needs more")


def value(text):
    """The exact value of an arithmetic text, else the text itself."""
    try:
        return evaluate_expression(text)
    except ValueError:
        return text


def our_rule(answer, completion):
    """-> bool: does `completion` hold the true `answer` (str)?

    >>> our_rule("4", "<think>2 + 2</think><answer>4</answer>"), our_rule("1/2", "<answer>2/4</answer>"), our_rule("cyan", "cyan")
    (True, True, False)
    """
    found = extract_answer(completion)
    return found is not None and value(found) == value(answer)


def kind(entries, score):
    """How both rules judge the same answers -> one of KINDS. entries: dicts with "answer"; score(text,
    entry) -> float, 1 is right."""
    answers = [entry["answer"] for entry in entries]
    if not all(isinstance(answer, str) and answer for answer in answers):
        return KINDS[2]
    if not all(our_rule(answer, f"<answer>{answer}</answer>") for answer in answers):
        return KINDS[1]
    same = all(our_rule(entry["answer"], f"<answer>{answer}</answer>") == (score(answer, entry) == 1.0)
               for entry in entries for answer in {*answers, "0"})
    return KINDS[0] if same else KINDS[1]


def judged(name):
    """A task by its name -> (has it a scorer of its own?, its kind)."""
    import reasoning_gym
    from reasoning_gym.dataset import ProceduralDataset

    def stop(*_):
        raise TimeoutError

    signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
    own = None
    try:
        data = reasoning_gym.create_dataset(name, size=PROBLEMS, seed=0)
        own = type(data).score_answer is not ProceduralDataset.score_answer
        return own, kind([data[i] for i in range(PROBLEMS)], data.score_answer)
    except Exception:  # theirs: settings that it cannot do without, a package that is missing, or too slow
        return own, KINDS[3]
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)


def table(found):
    """found: {name: (own scorer?, kind)} -> Markdown: how many, and which are agreed on."""
    lines = ["| their scorer | " + " | ".join(KINDS) + " |", "|---" * (len(KINDS) + 1) + "|"]
    for own, title in ((False, "equality"), (True, "a program of its own"), (None, "unknown")):
        counts = [sum(f == (own, k) for f in found.values()) for k in KINDS]
        if any(counts):
            lines.append(f"| {title} | " + " | ".join(map(str, counts)) + " |")
    for own, title in ((False, "Agreed on, equality"), (True, "Agreed on, a scorer of its own")):
        lines += ["", f"{title}: " + ", ".join(name for name, f in found.items() if f == (own, KINDS[0])) + "."]
    return "\n".join(lines)


if __name__ == "__main__":
    try:
        from reasoning_gym.factory import DATASETS
    except ModuleNotFoundError:
        sys.exit(print("error: reasoning-gym is not installed: pip install reasoning-gym==0.1.25", file=sys.stderr) or 2)
    print(table({name: judged(name) for name in sorted(DATASETS)}))
