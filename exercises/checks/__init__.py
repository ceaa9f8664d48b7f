"""What the tests ask, and what the known mistakes answer. Not for students: make.py leaves this folder
out.

sheet1.py to sheet6.py hold for each part

    @cases("3.1")
    def _(draw):                  -> a list of cases, dicts of plain data, for public/calls.py; draw: a `Draw`
        ...
    mistakes("3.1", ("divided by G - 1: ...", "correction=0", "correction=1"), ...)

A mistake is a hint, and an edit of the function's text: once, `old` becomes `new` (several edits: old,
new, old, new, ...). What the edited function puts out is compared with what a student's puts out; where
they agree, this hint is what the grader says. Public and hidden tests come from the same functions,
with other seeds, and so with other numbers and shapes.
"""
import importlib
import inspect
import pathlib
import random
import sys
import textwrap

import torch

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
for folder in (ROOT, ROOT / "exercises", ROOT / "exercises" / "public"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
import calls
from table import PARTS

CASES, MISTAKES = {}, {}
PUBLIC, HIDDEN = "public", "hidden"
TARGETS = {part.id: part.target for part in PARTS if "." in part.target}


class Draw(random.Random):
    """Random numbers of one test: the same for the same part and seed, on every machine."""

    def __init__(self, seed):
        super().__init__(seed)
        self.generator = torch.Generator().manual_seed(self.getrandbits(62))

    def normal(self, *shape):
        return torch.randn(shape, generator=self.generator)

    def rand(self, *shape):
        return torch.rand(shape, generator=self.generator)

    def ints(self, low, high, *shape):
        """From low to high, high included."""
        return torch.randint(low, high + 1, shape, generator=self.generator)

    def rows(self, B, T, prompt=1):
        """starts, lengths (B,), mask (B, T): rows of mixed lengths, at least one token of prompt and
        one of completion.
        """
        starts = self.ints(prompt, max(prompt, T // 2), B)
        lengths = starts + 1 + (self.rand(B) * (T - starts)).long().clamp(max=T - starts - 1)
        # one without padding, one as short as can be
        lengths[0], lengths[-1] = T, min(int(starts[-1]) + 1, T)
        place = torch.arange(T)
        return starts, lengths, (place >= starts[:, None]) & (place < lengths[:, None])


def cases(part):
    def register(function):
        CASES[part] = function
        return function
    return register


def mistakes(part, *lines):
    MISTAKES[part] = lines


def make_cases(part, seed):
    return CASES[part](Draw(f"{part} {seed}"))


def copied(cases):
    """Deep, and tensors too: a function may change what it is given."""
    if isinstance(cases, dict):
        return {key: copied(value) for key, value in cases.items()}
    if isinstance(cases, (list, tuple)):
        return type(cases)(copied(value) for value in cases)
    return cases.clone() if torch.is_tensor(cases) else cases


def expected(part, cases):
    """What the solution puts out."""
    return calls.run(part, copied(cases))


def text_of(target):
    """The text of a function of the core."""
    return inspect.getsource(inspect.unwrap(calls.find(target)[0]))


def replaced(text, old, new, where=""):
    if text.count(old) != 1:
        raise ValueError(f"{where}: {old!r} occurs {text.count(old)} times in the function, not once")
    return text.replace(old, new)


def wrong(part, cases, right):
    """-> [(hint, what comes out)] of every known mistake that these cases notice. right: what the
    solution puts out.
    """
    target, found = TARGETS[part], []
    original, owner, name = calls.find(target)
    module = inspect.getmodule(owner) if inspect.isclass(owner) else owner
    for hint, *edits in MISTAKES[part]:
        text = text_of(target)
        for old, new in zip(edits[::2], edits[1::2]):
            text = replaced(text, old, new, f"{part}, {hint}")
        text = textwrap.dedent(text)
        # in the module's own names, where the stand-ins are put; a plain function lands here and not there
        made = {}
        exec(compile(text, f"<{hint}>", "exec"), vars(module), made)
        setattr(owner, name, made[name])
        try:
            outputs = calls.run(part, copied(cases))
        finally:
            setattr(owner, name, original)
        if any(calls.difference(o["result"], r["result"]) for o, r in zip(outputs, right)):
            found.append((hint, outputs))
    return found


for n in range(1, 7):
    importlib.import_module(f"checks.sheet{n}")
