"""Judges of a known accuracy: how often they are wrong, and what their errors depend on."""
import pathlib
import random
import sys

import pytest

from tasks import Problem
from toys import seed

sys.path.append(str(pathlib.Path(__file__).parent.parent / "experiments"))
PROBLEMS = [Problem(f"Use {i} to make 1.\n", 1, ("countdown", i, 1)) for i in range(2000)]


def share(noise, accuracy, texts):
    from judge_accuracy import flipped
    rng = random.Random(seed())
    wrong = [flipped(noise, accuracy, seed(), problem, text, rng) for problem, text in zip(PROBLEMS, texts)]
    return sum(wrong) / len(wrong)


@pytest.mark.parametrize("noise", ["fresh", "same answer", "same form"])
def test_a_judge_is_wrong_as_often_as_it_says(noise):
    """2,000 problems; for the taste 2,000 different forms. One standard error at 80 % is 0.009. At 100
    % it is never wrong."""
    texts = ["<answer>" + "(" * i + "1</answer>" for i in range(2000)]
    assert share(noise, 80, texts) == pytest.approx(0.2, abs=5 * 0.009) and share(noise, 100, texts) == 0


def test_what_the_errors_depend_on():
    """Asked again: fresh noise changes its mind, the others never. Another thought before the answer
    changes nothing; another answer does for "same answer"; other numbers in the same form do not for
    "same form"."""
    from judge_accuracy import flipped
    rng, drawn = random.Random(seed()), lambda noise, problem, text: flipped(noise, 50, seed(), problem, text, rng)
    a, b, other = "<think></think><answer>(1 + 2) * 3</answer>", "<think>1 + 2 = 3, </think><answer>(1 + 2) * 3</answer>", "<answer>(7 + 5) * 12</answer>"
    differ = lambda noise, x, y: sum(drawn(noise, problem, x) != drawn(noise, problem, y) for problem in PROBLEMS) / len(PROBLEMS)
    assert differ("fresh", a, a) > 0.4 and differ("same answer", a, b) == 0 == differ("same form", a, other)
    assert differ("same answer", a, other) > 0.4
    assert len({drawn("same form", problem, a) for problem in PROBLEMS}) == 1  # a taste does not look at the problem
