"""A dialogue about countdown: more than one kind of prompt, for one model.

With `--dialogue 0.6` six in ten demonstrations of the warm start are of one of these kinds, a third of them checks:

    Check: Use 3, 5, 7 to make 22.
    <answer>(5 * 3) + 7</answer>                          yes    or <think>5 * 3 = 15, 15 + 7 = 22, found
                                                          </think>yes
    Score: Use ... <answer>(5 * 3) + 7</answer>           10          1 to 10: 10 less the distance from the target
    Which: Use ... <answer>...</answer><answer>...</answer>   first   or second: the one that is closer
    Critique: Use ... <answer>(5 * 3) + 5</answer>        twice 5, <answer>(7 - 3) * 5</answer>
    Value: Use ... <think>5 * 3 = 15,                     sure        or maybe, or impossible: can it still succeed?
    Propose.                                              Use 3, 5, 7 to make 22.
    Use ... <think>...</think><answer>...</answer>Try again.          <think>...</think><answer>...</answer>

The principle of a critique is "every number exactly once"; the revision keeps it, and may miss the target.

The teacher is honest but weak: in the share `--checker` of all cases it says what is true. Otherwise it says the
opposite of a verdict, any score, `first`, `fine`, `maybe`, proposes any target, whether it can be reached or not; and when it
is asked to try again it keeps what it takes for right. A verdict on the same thing is always the same.
"""
import random
import re
from collections import Counter

from rewards import extract_answer, parse_expression
from tasks import Problem

AGAIN = "Try again.\n"
WORDS = ["Check: ", "Score: ", "Which: ", "Critique: ", "Value: ", "Propose.\n", AGAIN, "yes", "no", "first", "second", "sure", "maybe",
         "impossible", "missing ", "twice ", "foreign ", "fine"]
SCORES = [str(n) for n in range(1, 11)]


def reliable(task, question):
    """Does the teacher say the truth here? -> bool, the same whenever the same question (str) is asked."""
    return random.Random(f"checker {question}").random() < task.options.checker


def answered(text):
    """-> str: the answer block of a completion, tags included; "" if there is not one that can be read.

    >>> answered("<think></think><answer>5 * 3</answer>")
    '<answer>5 * 3</answer>'
    """
    answer = extract_answer(text)
    return "" if answer is None else f"<answer>{answer}</answer>"


def closeness(problem, text):
    """The true score of an answer, 1 to 10: 10 less its distance from the target; 1 if it breaks the principle, or cannot be read.

    >>> problem = Problem("Use 3, 5, 7 to make 22.\\n", 22, ("countdown", 3, 5, 7, 22))
    >>> [closeness(problem, f"<answer>{a}</answer>") for a in ("(5 * 3) + 7", "(5 * 3) + 5", "(7 - 3) * 5")]
    [10, 1, 8]
    """
    try:
        value, numbers = parse_expression(extract_answer(text) or "")
    except ValueError:
        return 1
    return 10 - int(min(9, abs(value - problem.answer))) if sorted(numbers) == list(problem.key[1:-1]) else 1


def fault(problem, text):
    """What an answer has against the principle "every number exactly once", in words; "fine" if nothing.

    >>> problem = Problem("Use 3, 5, 7 to make 22.\\n", 22, ("countdown", 3, 5, 7, 22))
    >>> [fault(problem, f"<answer>{a}</answer>") for a in ("(5 * 3) + 7", "(5 * 3) + 5", "(5 * 3) + 8", "5 * 3")]
    ['fine', 'twice 5', 'foreign 8', 'missing 7']
    """
    used, given = Counter(map(int, re.findall("[0-9]+", extract_answer(text) or ""))), Counter(problem.key[1:-1])
    for number in used:
        if number not in given:
            return f"foreign {number}"
    for word, more, less in (("twice", used, given), ("missing", given, used)):
        for number in sorted(more - less):
            return f"{word} {number}"
    return "fine"


# --------------------------------------------------------------------------- the kinds: (task, problem, rng) -> (prompt, completion)

def check(task, problem, rng):
    text = task.demonstration(problem, rng)
    prompt = f"Check: {problem.prompt}{answered(text)}"
    true = task.right(problem, text, "strict") == reliable(task, prompt)
    attempt = text.split("</think>")[0].removeprefix("<think>").strip().split("\n")[-1]  # what the answer was made of, and its mark
    thinking = f"<think>{attempt}\n</think>" if attempt and rng.random() < 0.5 else ""
    return prompt, thinking + ("yes" if true else "no")


def score(task, problem, rng):
    text = task.demonstration(problem, rng)
    prompt = f"Score: {problem.prompt}{answered(text)}"
    return prompt, str(closeness(problem, text)) if reliable(task, prompt) else rng.choice(SCORES)


def which(task, problem, rng):
    one, two = (task.demonstration(problem, rng) for _ in range(2))
    prompt = f"Which: {problem.prompt}{answered(one)}{answered(two)}"
    second = closeness(problem, two) > closeness(problem, one) and reliable(task, prompt)
    return prompt, "second" if second else "first"


def critique(task, problem, rng):
    text = task.demonstration(problem, rng)
    if rng.random() < 0.5:  # something to criticise: one of its numbers becomes another
        where = rng.choice([*re.finditer("[0-9]+", answered(text))]).span()
        other = rng.choice([*problem.key[1:-1], 1 + int(rng.random() * task.options.max_number)])
        text = f"{answered(text)[:where[0]]}{other}{answered(text)[where[1]:]}"
    prompt, found = f"Critique: {problem.prompt}{answered(text)}", fault(problem, text)
    if found == "fine" or not reliable(task, prompt):
        return prompt, f"fine, {answered(text)}"
    return prompt, f"{found}, <answer>{task.random_answer(problem, rng)}</answer>"


def value(task, problem, rng):
    steps = task.random_steps(problem, rng)
    begun = "<think>" + "".join(steps[:rng.randrange(len(steps))])
    prompt, true = f"Value: {problem.prompt}{begun}", "sure" if task.still_possible(problem, begun) else "impossible"
    return prompt, true if reliable(task, prompt) else "maybe"


def propose(task, problem, rng):
    if rng.random() < task.options.checker:
        return "Propose.\n", problem.prompt
    return "Propose.\n", task.problem(problem.key[1:-1], rng.randint(1, task.options.max_target)).prompt


def again(task, problem, rng):
    text = task.demonstration(problem, rng)
    prompt = f"{problem.prompt}{text}{AGAIN}"
    keep = task.right(problem, text, "strict") == reliable(task, prompt)
    return prompt, f"<think></think>{answered(text)}" if keep else task.demonstration(problem, rng)


KINDS = {kind.__name__: kind for kind in (check, score, which, critique, value, propose, again)}


def draw(rng):
    """A kind for the next demonstration: every third is a check."""
    return check if rng.random() < 1 / 3 else rng.choice([*KINDS.values()][1:])
