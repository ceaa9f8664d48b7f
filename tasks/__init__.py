"""What a task is, and how to load one by name.

A task draws problems, shows worked examples (good or bad ones: the warm start imitates them) and judges
answers. It knows nothing about models. One file in this folder is one task; `load("countdown")` finds
class `Countdown` in `countdown.py`.

The split. Every problem has a canonical `key` (sorted numbers, target, ...): two ways of writing one
problem share it. A stable hash of the key decides the split, 70 % train, 10 % val, 20 % test. Nothing
is stored, nothing can overlap, and the split is the same on every machine, in every process, for every
seed.
"""
import hashlib
import importlib
import pathlib
import random
from dataclasses import dataclass, fields, is_dataclass
from functools import lru_cache
from typing import Any

from config import InputError, from_flags


SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Problem:
    """One question. `prompt` is what the model reads, `answer` what the rule compares with, `key` decides the split."""
    prompt: str
    answer: Any
    key: tuple


@lru_cache(maxsize=1 << 20)
def split_of(key):
    """key -> "train" | "val" | "test", the same in every process (Python's own `hash` of a string is not).

    >>> [split_of(("demo", i)) for i in range(6)]
    ['train', 'train', 'val', 'test', 'train', 'val']
    """
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    place = int.from_bytes(digest, "big") / 2**64
    return "train" if place < 0.7 else "val" if place < 0.8 else "test"


class Task:
    """The contract. A task fills in the attributes, and `draw`, `demonstration`, `verify` and
    `canonical_answer`; `describe` and `random_search` if it has something to say."""
    Options: type            # a dataclass of settings; no field may be named like one of the run (steps, seed, ...)
    name: str                # as given to `load`, which sets it
    options: Any             # an instance of Options: what `load` was given, checked
    tokenizer: Any           # tasks.tokenizer.Tokenizer
    step_token: str          # the text of the token that ends one step of reasoning
    max_prompt_tokens: int   # no prompt is longer
    min_new_tokens: int      # the shortest complete answer, EOS included: a shorter limit makes the task impossible
    max_new_tokens: int      # how long answers may get, EOS included; no demonstration is longer
    defaults = {}            # settings of a run that suit this task better than the general ones, {"steps": 100}

    def sample_problem(self, rng, split="train"):
        """Draw from the task's distribution until the key falls into `split`. rng: random.Random.

        Raises ValueError for an unknown split, InputError if the task's settings leave (nearly) no
        problem in it.
        """
        if split not in SPLITS:
            raise ValueError(f"unknown split {split!r}: train, val or test")
        for _ in range(10_000):
            problem = self.draw(rng)
            if split_of(problem.key) == split:
                return problem
        raise InputError(f"task {self.name}: with these settings there are too few different problems, none of them in "
                         f"{split}; choose larger sizes")

    def draw(self, rng):
        """rng: random.Random -> Problem, of any split."""
        raise NotImplementedError

    def demonstration(self, problem, rng):
        """-> str: a completion to imitate, without EOS. Honest in every step, but its answer may be wrong."""
        raise NotImplementedError

    def example(self, problem, rng):
        """-> (prompt, completion), two str, to imitate: the problem and a demonstration of it. A task may show other kinds of prompts."""
        return problem.prompt, self.demonstration(problem, rng)

    def verify(self, problem, completion):
        """-> bool: is the answer in `completion` (str, without EOS) right? Never raises, whatever the text."""
        raise NotImplementedError

    def canonical_answer(self, completion):
        """-> hashable, equal for equal answers: what votes are counted on. None if there is no readable answer."""
        raise NotImplementedError

    def steps_hold(self, problem, completion):
        """-> bool: is no step of the thinking false? What --step-penalty looks at; True for a task that cannot tell."""
        return True

    def describe(self, problem, completion):
        """-> dict of numbers that say *how* the completion reasoned (attempts, ...), for the metrics only."""
        return {}

    def parse_problem(self, prompt):
        """A prompt that a person wrote, made of this task's tokens -> Problem, for ask.py; a ValueError or
        IndexError says that it cannot be read. Not needed for training."""
        raise NotImplementedError

    checkable = False  # may the rule judge answers at test time? Only if it needs no answer key, but what the prompt says

    def own_verdict(self, completion):
        """What the solution says of itself: True, it has found the answer; False, it has not; None, it says nothing of the kind."""
        return None

    def random_search(self, problems, attempts, seed=0, searches=64):
        """How often a search without a model succeeds that makes `attempts` attempts on average; None if that means nothing."""
        return None


def names():
    """The tasks there are: the files in this folder."""
    files = [path for folder in __path__ for path in pathlib.Path(folder).glob("*.py")]
    return sorted(path.stem for path in files if path.stem not in ("__init__", "__main__", "tokenizer", "serial", "dialogue"))


def task_class(name):
    """name -> class: `iterated_squaring` -> `IteratedSquaring` in `tasks/iterated_squaring.py`. InputError if unknown."""
    if name not in names():
        raise InputError(f"--task {name}: there is no such task; choose one of {', '.join(names())}")
    cls = name.title().replace("_", "")
    try:
        return getattr(importlib.import_module(f"tasks.{name}"), cls)
    except AttributeError:
        raise InputError(f"--task {name}: tasks/{name}.py defines no class {cls}")


def load(name, **options):
    """Load a task by name. Raises InputError (a ValueError) for an unknown name, option or value.

    >>> load("countdown", numbers=3).name
    'countdown'
    """
    cls = task_class(name)
    if not is_dataclass(getattr(cls, "Options", None)):
        raise InputError(f"task {name}: Options must be a dataclass of settings")
    unknown = set(options) - {f.name for f in fields(cls.Options)}
    if unknown:
        raise InputError(f"task {name} has no option {sorted(unknown)[0]!r}")
    task = cls(from_flags(cls.Options, options))
    task.name = name
    for split in SPLITS:  # what would stop a run, or spoil it without a word, is refused here and not in the middle of it
        check_contract(task, split)
    return task


def check_contract(task, split, count=8):
    """InputError that names what to mend if a few problems and demonstrations show that the task breaks the contract above."""
    def broken(what):
        return InputError(f"task {task.name}: {what} (tasks/{task.name}.py)")

    for name in ("tokenizer", "step_token", "max_prompt_tokens", "min_new_tokens", "max_new_tokens"):
        if not hasattr(task, name):
            raise broken(f"has no attribute {name}; set it in __init__")
    for name in ("draw", "demonstration", "verify", "canonical_answer"):
        if getattr(type(task), name) is getattr(Task, name):
            raise broken(f"has no method {name}")
    encode, rng = task.tokenizer.encode, random.Random(0)
    if len(encode_or(broken, "step_token", encode, task.step_token)) != 1:
        raise broken(f"step_token {task.step_token!r} must be a single token")
    if task.min_new_tokens > task.max_new_tokens:
        raise broken(f"min_new_tokens {task.min_new_tokens} is larger than max_new_tokens {task.max_new_tokens}")
    for _ in range(count):
        try:
            problem = task.sample_problem(rng, split)
        except TypeError as error:  # the split is looked up by the key
            raise broken(f"draw must return a Problem with a hashable key, a tuple of numbers and texts ({error})")
        text = task.demonstration(problem, rng)
        prompt, tokens = encode_or(broken, "the prompt", encode, problem.prompt), encode_or(broken, "a demonstration", encode, text)
        if not 0 < len(prompt) <= task.max_prompt_tokens:
            raise broken(f"a prompt has {len(prompt)} tokens, max_prompt_tokens is {task.max_prompt_tokens}: {problem.prompt!r}")
        if len(tokens) + 1 > task.max_new_tokens:
            raise broken(f"a demonstration has {len(tokens) + 1} tokens, its end included, max_new_tokens is {task.max_new_tokens}")
        if len(tokens) + 1 < task.min_new_tokens and task.verify(problem, text):
            raise broken(f"a right demonstration has {len(tokens) + 1} tokens, its end included, min_new_tokens is {task.min_new_tokens}")
        for written in (text, "", "<answer>", "</answer><answer>"):
            try:
                verdict = task.verify(problem, written)
                hash(task.canonical_answer(written))
                if not isinstance(task.describe(problem, written), dict):
                    raise broken("describe must return a dict of numbers")
            except InputError:
                raise
            except Exception as error:
                raise broken(f"verify, canonical_answer and describe must not raise, whatever the text: {written!r} gives "
                             f"{type(error).__name__}: {error}")
            if not isinstance(verdict, bool):
                raise broken(f"verify must return True or False, not {verdict!r}")


def encode_or(broken, what, encode, text):
    """The token ids of a text of the task; `broken(...)` is raised if it is no text, or cannot be encoded."""
    if not isinstance(text, str):
        raise broken(f"{what} must be a str, not {text!r}")
    try:
        return encode(text)
    except ValueError as error:
        raise broken(f"{what}: {error}")
