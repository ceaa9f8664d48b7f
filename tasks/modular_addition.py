"""Modular addition: the sum of some numbers, modulo m.

A problem, and a demonstration of it that shows its steps:

    Add 5, 3, 6, 2 mod 7.
    <think>5: 5, 3: 1, 6: 0, 2: 2, </think><answer>2</answer>

A step is the next number and, behind it, the sum so far: 5, then 5 + 3 = 8 = 7 + 1, then 1 + 6 = 7 + 0,
then 0 + 2 = 2. So what is added up lies close together, and no token needs more than one look-up. Every
number up to m is one token, and so are "Add ", " mod ", ", ", ": " and ".\\n": k numbers make a problem
of 2 k + 3 tokens and a demonstration of 4 k + 5. The bare sums (`5, 1, 0, 2, `) are learned far more
slowly, for each has to find its number in the problem first; and so is a larger modulus, for there are
m * m sums to know.

Addition does not have to be serial: the order of the numbers does not matter, and a network of fixed
depth can add them all up at once (in the terms of arXiv:2402.12875, the problem is in TC0). The key is
the sorted numbers: in every order they are one problem.
"""
import re
from dataclasses import dataclass
from itertools import accumulate

from config import InputError, setting
from tasks import Problem
from tasks.serial import SerialOptions, SerialTask
from tasks.tokenizer import Tokenizer


@dataclass
class ModularAdditionOptions(SerialOptions):
    """task modular_addition"""
    cot_share: float = setting(0.5, "with --cot mix: the share of demonstrations that show the full chain; with a quarter the bare "
                                    "answers drown the table of sums", low=0.0, high=1.0)
    m: int = setting(7, "the modulus", low=2, high=9999)
    min_k: int = setting(3, "how many numbers are added, at least", low=2, high=100)
    max_k: int = setting(9, "how many numbers are added, at most", low=2, high=100)


class ModularAddition(SerialTask):
    """See the top of this file; options: `ModularAdditionOptions`."""
    Options = ModularAdditionOptions

    def __init__(self, options):
        m, low, high = options.m, options.min_k, options.max_k
        if low > high:
            raise InputError(f"--min-k {low}: must be at most --max-k {high}")
        self.options = options
        words = ["<think>", "</think>", "<answer>", "</answer>", "Add ", " mod ", ".\n", ", ", ": "]
        self.tokenizer = Tokenizer("modular_addition", words + [str(n) for n in range(m + 1)])
        self.answers = frozenset(map(str, range(m)))
        self.set_sizes(prompt=2 * high + 3, chain=4 * high, answer=1)

    def draw(self, rng):
        o = self.options
        k = o.min_k + int(rng.random() * (o.max_k - o.min_k + 1))
        return self.problem([int(rng.random() * o.m) for _ in range(k)])

    def problem(self, numbers):
        m = self.options.m
        return Problem(f"Add {', '.join(map(str, numbers))} mod {m}.\n", str(sum(numbers) % m),
                       ("modular_addition", m, *sorted(numbers)))

    def parse_problem(self, prompt):
        *numbers, _ = map(int, re.findall("[0-9]+", prompt))
        return self.problem(numbers)

    def chain(self, problem):
        # From the prompt: the key has forgotten the order.
        *numbers, m = map(int, re.findall("[0-9]+", problem.prompt))
        sums = accumulate(numbers, lambda total, n: (total + n) % m)
        return "".join(f"{n}: {total}, " for n, total in zip(numbers, sums))
