"""Permutation: rearrange a word again and again (the word problem of the symmetric group S5).

A problem, and a demonstration of it that shows its steps:

    Rearrange cabed by 2 5 1 4 3, 4 1 3 5 2.
    <think> 2a 5d 1c 4e 3b, 4e 1a 3c 5b 2d,</think><answer>eacbd</answer>

A permutation of five things is written by its images, in two ways: as a word (`cabed`) and as places (`
2 5 1 4 3`: take the 2nd letter of the word, then the 5th, the 1st, the 4th and the 3rd). To rearrange a
word by places is to compose the two; the words on the way are the partial products.

Every letter, every place (with the space before it) and "," is one token. A step repeats the places and
puts behind each the letter that it takes, so that no token needs more than one look-up: a place is
copied from the problem, always equally far back; a letter is the one that stands at this place in the
step before. How a step is written decides whether it is learned. With the bare words (`adceb, eacbd, `)
every letter needs two look-ups, and in the time in which this writing is learned almost perfectly, few
of those chains come out right.

Composing k permutations of five things is complete for NC1: a network of fixed depth cannot do it at
once for every k, unless TC0 = NC1 (Barrington 1989; arXiv:2210.10749). It has a fixed number of rounds,
and each product waits for the one before.
"""
import itertools
from dataclasses import dataclass

from config import setting
from tasks import Problem
from tasks.serial import SerialOptions, SerialTask
from tasks.tokenizer import Tokenizer


@dataclass
class PermutationOptions(SerialOptions):
    """task permutation"""
    n: int = setting(5, "how many letters are rearranged", low=3, high=8)
    k: int = setting(4, "how many permutations are composed: the word, and k - 1 arrangements of it", low=2, high=50)


class Permutation(SerialTask):
    """See the top of this file; options: `PermutationOptions`."""
    Options = PermutationOptions
    step_token = ","  # a place begins with its own space

    def __init__(self, options):
        self.options = options
        n, k = options.n, options.k
        self.letters = "abcdefgh"[:n]
        words = ["<think>", "</think>", "<answer>", "</answer>", "Rearrange ", " by", ".\n", ","]
        self.tokenizer = Tokenizer("permutation", words + [*self.letters] + [f" {i + 1}" for i in range(n)])
        self.answers = frozenset(map("".join, itertools.permutations(self.letters)))
        self.set_sizes(prompt=(n + 1) * k + 1, chain=(2 * n + 1) * (k - 1), answer=n)

    def draw(self, rng):
        n, k = self.options.n, self.options.k
        word = "".join(rng.sample(self.letters, n))
        return self.problem(word, tuple(tuple(rng.sample(range(n), n)) for _ in range(k - 1)))

    def problem(self, word, arrangements):
        places = ",".join("".join(f" {i + 1}" for i in places) for places in arrangements)
        answer = self.words(word, arrangements)[-1]
        return Problem(f"Rearrange {word} by{places}.\n", answer, ("permutation", word, *arrangements))

    def parse_problem(self, prompt):
        _, word, _, places = prompt.strip(".\n").split(" ", 3)
        return self.problem(word, tuple(tuple(int(i) - 1 for i in one.split()) for one in places.split(",")))

    def words(self, word, arrangements):
        """-> list of the words on the way, the last one included. Places count from 0 here.

        >>> Permutation(PermutationOptions()).words("cabed", [(1, 4, 0, 3, 2), (3, 0, 2, 4, 1)])
        ['adceb', 'eacbd']
        """
        found = []
        for places in arrangements:
            word = "".join(word[i] for i in places)
            found.append(word)
        return found

    def chain(self, problem):
        _, word, *arrangements = problem.key
        return "".join("".join(f" {i + 1}{letter}" for i, letter in zip(places, after)) + ","
                       for places, after in zip(arrangements, self.words(word, arrangements)))
