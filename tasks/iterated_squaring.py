"""Iterated squaring: square r, k times, modulo p.

A problem, and a demonstration of it that shows its steps:

    Square 5, 3 times mod 983.
    <think>25, 625, 374, </think><answer>374</answer>

Each step is the square of the number before it, modulo p: 25 * 25 = 625, and 625 * 625 = 390625 = 397 *
983 + 374. The next one is always a look-up of the previous number, and the model has seen every such
look-up: see below. Every number below p is one token, and so are "Square ", " times mod ", ", " and
".\\n": the problem is 7 tokens, the demonstration 11.

If the factors of the modulus are not known, nobody knows a shorter way to r^(2^k) than k squarings, one
after another: time-lock puzzles build on it. A prime as small as ours has shortcuts (2^k mod p - 1 in
the exponent), but a network that answers at once mostly has to know the answers by heart. With p = 983
there are more of them than it learns in a minute or two, and thinking pays. With --p 227 --max-k 6
there are not, and it does not.

p = 983 = 2 * 491 + 1, with 491 prime, keeps the chain from collapsing: among the squares mod p,
squaring is a permutation. Modulo 257 = 2^8 + 1 every number but 0 ends at 1 after eight squarings.

The split is by (p, r, k). The steps are shared among problems, and a held-out problem one of whose
steps occurs in no training problem is never drawn: what is asked of the model on `val` and `test` is to
put known steps together.
"""
import re
from dataclasses import dataclass

from config import InputError, setting
from tasks import Problem, split_of
from tasks.serial import SerialOptions, SerialTask
from tasks.tokenizer import Tokenizer


@dataclass
class IteratedSquaringOptions(SerialOptions):
    """task iterated_squaring"""
    p: int = setting(983, "the modulus; take 2 q + 1 with q prime, such as 47, 107, 227, 467, 983, 1907", low=5, high=9999)
    min_k: int = setting(2, "how often is squared, at least", low=1, high=100)
    max_k: int = setting(8, "how often is squared, at most", low=1, high=100)


class IteratedSquaring(SerialTask):
    """See the top of this file; options: `IteratedSquaringOptions`."""
    Options = IteratedSquaringOptions
    defaults = {"steps": 200}  # not every look-up is known after the warm start: they are still learned when all answers think

    def __init__(self, options):
        p, low, high = options.p, options.min_k, options.max_k
        if low > high:
            raise InputError(f"--min-k {low}: must be at most --max-k {high}")
        self.options = options
        words = ["<think>", "</think>", "<answer>", "</answer>", "Square ", " times mod ", ".\n", ", "]
        self.tokenizer = Tokenizer("iterated_squaring", words + [str(n) for n in range(max(p, high) + 1)])
        self.answers = frozenset(map(str, range(p)))
        self.set_sizes(prompt=7, chain=2 * high, answer=1)
        # The numbers that some training problem squares.
        self.squared = {n for r in range(2, p - 1) for k in range(low, high + 1) if split_of(self.key(r, k)) == "train"
                        for n in [r, *self.squares(r, k)[:-1]]}

    def key(self, r, k):
        return ("iterated_squaring", self.options.p, r, k)

    def squares(self, r, k):
        """-> list of k numbers: r^2, r^4, ..., r^(2^k) mod p.

        >>> IteratedSquaring(IteratedSquaringOptions()).squares(5, 3)
        [25, 625, 374]
        """
        found = []
        for _ in range(k):
            r = r * r % self.options.p
            found.append(r)
        return found

    def draw(self, rng):
        o = self.options
        for _ in range(10_000):
            r = 2 + int(rng.random() * (o.p - 3))  # 0, 1 and p - 1 would be trivial
            k = o.min_k + int(rng.random() * (o.max_k - o.min_k + 1))
            if self.squared.issuperset([r, *self.squares(r, k)[:-1]]):
                return self.problem(r, k)
        raise InputError(f"--p {o.p}: too few problems, none of them with steps that occur in training; choose a larger one")

    def problem(self, r, k):
        return Problem(f"Square {r}, {k} times mod {self.options.p}.\n", str(self.squares(r, k)[-1]), self.key(r, k))

    def parse_problem(self, prompt):
        r, k, _ = map(int, re.findall("[0-9]+", prompt))
        return self.problem(r, k)

    def chain(self, problem):
        _, p, r, k = problem.key
        return "".join(f"{n}, " for n in self.squares(r, k))
