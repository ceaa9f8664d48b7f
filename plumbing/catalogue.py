"""How an algorithm is found by its name.

One file of the core holds the GRPO family, one PPO, one DPO, one the learned verifiers. A file in methods/ is a further algorithm, as
a file in tasks/ is a task: `--algo vineppo` is class `VinePPO` in methods/vineppo.py.
"""
import importlib
import pathlib

import dpo
import grpo
import ppo
import verifier
from config import InputError

FOLDER = pathlib.Path(__file__).parent.parent / "methods"


def core():
    """-> {name: (class, the settings that make it this method)} of the methods in the core."""
    return {name: (grpo.GRPO, row) for name, row in grpo.TABLE.items()} | {"ppo": (ppo.PPO, {}), "dpo": (dpo.DPO, {})} | {
        name: (verifier.Verifier, row) for name, row in verifier.TABLE.items()}


def names():
    """All methods there are, those of the core first."""
    return [*core(), *sorted(path.stem for path in FOLDER.glob("*.py"))]


def find(name):
    """name -> (class, settings). Files of other methods are not looked at: one that is broken breaks
    nobody else.

    InputError if there is no such method, or its file has no class of that name (capitals and
    underscores aside).
    """
    if name in core():
        return core()[name]
    if name not in names():
        raise InputError(f"--algo {name}: there is no such algorithm; choose one of {', '.join(('sft', *names()))}")
    module, wanted = importlib.import_module(f"methods.{name}"), name.replace("_", "").lower()
    for cls in vars(module).values():
        if isinstance(cls, type) and cls.__module__ == module.__name__ and cls.__name__.lower() == wanted:
            return cls, getattr(module, "DEFAULTS", {})
    raise InputError(f"--algo {name}: methods/{name}.py defines no class {name.title().replace('_', '')} (in any capitals)")
