"""Stream of Search's own problems: countdown with four numbers up to 99 and a target from 10 to 100.

    Use 31, 5, 88, 14 to make 97.
    <think>31 - 14 = 17, 88 + 5 = 93, 93 + 17 = 110, failed
    88 - 31 = 57, 57 - 5 = 52, 52 + 14 = 66, failed
    88 + 14 = 102, 102 - 5 = 97, ...

The distribution is that of Gandhi et al. (arXiv:2404.03683): a target is drawn, then numbers from 1 to
99, again and again until the target can be reached; nothing bounds the results on the way. A tenth of
the targets, 9 of 91, is held out. So are numbers, up to their order: those of val and test are never
trained on, whatever the target.

Thinking looks as in countdown.py, but results go up to 199 and every number up to that is a token. That
is enough for 93 % of the problems. The others count as well.

The teacher makes a few legal attempts, new ones as far as ten tries find them, and the last one is a
planted solution if there is one. The failed ones end `near` the target, planted like it: every attempt shows how to aim.
"""
import hashlib
import math
from dataclasses import dataclass, replace
from functools import lru_cache

from config import setting
from tasks import SPLITS, split_of
from tasks.countdown import Countdown, combine, expression, random_attempt, steps
from tasks.tokenizer import Tokenizer

LARGEST = 199  # the largest number that is a token
NUMBERS = 99   # given numbers are 1 to this
TARGETS = sorted(range(10, 101), key=lambda target: hashlib.blake2b(b"%d" % target).digest())
HELD_OUT, TRAINED = sorted(TARGETS[:9]), sorted(TARGETS[9:])


@dataclass
class StreamOfSearchOptions:
    """task stream_of_search"""
    numbers: int = setting(4, "how many numbers a problem gives", low=3, high=4)
    held_out: str = setting("inputs", "what is new in the test split: 'inputs': the numbers; 'targets': the target as well",
                            choices=("inputs", "targets"))
    attempts: int = setting(6, "a demonstration holds at most this many attempts", low=1, high=20)
    near: int = setting(10, "failed attempts end at most so far from the target; 0: anywhere", low=0, high=100)
    room: int = setting(10, "attempts that an answer has room for", low=1, high=40)
    judge, dialogue = "strict", 0.0  # not settings here


# -------------------------------------------------------------------------------------------------- what can be reached

@lru_cache(maxsize=1 << 18)
def results(a, b, largest):
    """What one legal step makes of two numbers, in either order: a frozenset."""
    a, b = max(a, b), min(a, b)
    return frozenset(combine(a, operator, b, largest) for operator in "+-*/") - {None}


@lru_cache(maxsize=1 << 18)
def partners(d, t, largest):
    """The numbers x up to `largest` that one legal step with d turns into t: x + d, x - d, d - x, x * d,
    x / d or d / x is t. A frozenset.

    >>> sorted(partners(3, 12, 99))
    [4, 9, 15, 36]
    """
    found = {t - d, t + d, d - t}
    if d:
        found |= {t * d} | ({t // d} if t % d == 0 else set()) | ({d // t} if t and d % t == 0 else set())
    return frozenset(x for x in found if 0 <= x <= largest)


def makes(numbers, target, largest):
    """Whether legal steps make `target` of all `numbers`, a tuple of up to four. It works backwards
    from the target, which is quicker than to list all that they reach.

    >>> makes((3, 5, 7), 22, 99), makes((3, 5, 7), 23, 99), makes((98, 99, 1, 1), 98, math.inf)
    (True, False, True)
    """
    if len(numbers) == 1 or target > largest:
        return numbers[0] == target
    if len(numbers) == 2:
        return target in results(*numbers, largest)
    if 0 in numbers and target == 0:  # 0 times whatever the others make
        return True
    if len(numbers) == 3:             # the last step takes one of them, and what two make
        a, b, c = numbers
        return not (partners(a, target, largest).isdisjoint(results(b, c, largest))
                    and partners(b, target, largest).isdisjoint(results(a, c, largest))
                    and partners(c, target, largest).isdisjoint(results(a, b, largest)))
    a, b, c, d = numbers              # or two and two
    for one, two in (((a, b), (c, d)), ((a, c), (b, d)), ((a, d), (b, c))):
        second = results(*two, largest)
        if any(not partners(x, target, largest).isdisjoint(second) for x in results(*one, largest)):
            return True
    return any(makes(numbers[:i] + numbers[i + 1:], x, largest) for i in range(4) for x in partners(numbers[i], target, largest))


def aimed(numbers, target, rng, largest=LARGEST):
    """A random attempt that ends at `target`: only steps from which it can still be made are drawn."""
    chosen = []
    while len(numbers) > 1:
        chosen.append(rng.choice([step for step in steps(numbers, largest) if makes(step[-1], target, largest)]))
        numbers = chosen[-1][-1]
    return chosen


# ------------------------------------------------------------------------------------------------------------- the task

class StreamOfSearch(Countdown):
    """See the top of this file; options: `StreamOfSearchOptions`."""
    Options = StreamOfSearchOptions
    defaults = {}      # not those of countdown: how long to imitate is said in its experiments
    largest = LARGEST

    def __init__(self, options):
        self.options = options
        words = ["<think>", "</think>", "<answer>", "</answer>", "Use ", " to make ", ".\n", ", ",
                 " + ", " - ", " * ", " / ", " = ", "(", ")", "failed\n", "found\n"]
        self.tokenizer = Tokenizer("stream_of_search", words + [str(n) for n in range(LARGEST + 1)])
        n = options.numbers
        self.max_prompt_tokens = 2 * n + 3
        self.min_new_tokens = 5 + n + (n - 1) + 2 * (n - 2)  # tags and EOS, numbers, operators, brackets
        self.max_new_tokens = self.min_new_tokens + (6 * (n - 1) + 1) * max(options.attempts, options.room)

    def sample_problem(self, rng, split="train"):
        """The target first, then numbers of that split until they make it. rng: random.Random."""
        if split not in SPLITS:
            raise ValueError(f"unknown split {split!r}: train, val or test")
        target = rng.choice(HELD_OUT if split == "test" and self.options.held_out == "targets" else TRAINED)
        while True:
            order = [1 + int(rng.random() * NUMBERS) for _ in range(self.options.numbers)]
            numbers = tuple(sorted(order))
            if split_of.__wrapped__(("stream_of_search", *numbers)) == split and makes(numbers, target, math.inf):
                return self.problem(order, target)

    def problem(self, numbers, target):
        return replace(super().problem(numbers, target), key=("stream_of_search", *sorted(numbers), target))

    def demonstration(self, problem, rng):
        o, (_, *numbers, target) = self.options, problem.key
        numbers, attempts = tuple(numbers), []
        possible = lambda goals: [goal for goal in goals if goal >= 0 and makes(numbers, goal, LARGEST)]
        beside = possible({*range(target - o.near, target + o.near + 1)} - {target}) if o.near else []
        for left in reversed(range(1 + int(rng.random() * o.attempts))):
            goals = beside if left else possible([target])
            for _ in range(10):  # tries, until it is one that is new
                attempt = aimed(numbers, rng.choice(goals), rng) if goals else random_attempt(numbers, rng, LARGEST)[0]
                if attempt not in attempts:
                    break
            attempts.append(attempt)
            if attempt[-1][3] == target:
                break
        lines = ("".join(f"{a} {op} {b} = {c}, " for a, op, b, c, _ in attempt)
                 + ("found\n" if attempt[-1][3] == target else "failed\n") for attempt in attempts)
        return f"<think>{''.join(lines)}</think><answer>{expression(attempts[-1])}</answer>"

    def still_possible(self, problem, completion):
        """As in countdown.py; by working backwards."""
        left = self.numbers_left(problem, completion.split("<think>")[-1].split("\n")[-1].removesuffix(", "))
        return left is not None and makes(left, problem.answer, LARGEST)
