"""Settings: how a number that a person types becomes a checked field of a dataclass.

Every setting of this project is declared once, as a field of a small dataclass beside the code that
uses it:

    group_size: int = setting(8, "samples per prompt", low=2)

The field carries its own help text and its bounds. `check` looks at all fields of such a dataclass,
`add_flags` turns them into command-line flags (`group_size` becomes `--group-size`), `from_flags` reads
them back. That is all there is.
"""
import argparse
import math
import re
from dataclasses import field, fields


class InputError(ValueError):
    """Something a person typed, or a file they named, cannot be used. The message is one line: what is
    wrong, what to do.

    Commands print it and exit with status 2. Any other exception is a bug of ours and keeps its traceback.
    """
    def __init__(self, message):
        super().__init__(one_line(message))


def one_line(message):
    """Also where it repeats what was typed."""
    return re.sub(r"[\x00-\x1f\x7f]+", " ", message)


def setting(default, help, low=None, high=None, choices=None):
    """A dataclass field with its help text and its bounds (both ends are allowed values)."""
    return field(default=default, metadata={"help": help, "low": low, "high": high, "choices": choices})


def flag(name):
    """The command-line spelling of a field: `group_size` -> `--group-size`."""
    return "--" + name.replace("_", "-")


def check(config):
    """Raise `InputError` with one clear line if a field has the wrong type or lies outside of its bounds."""
    for f in fields(config):
        value, low, high, choices = getattr(config, f.name), *(f.metadata[k] for k in ("low", "high", "choices"))
        wanted = f.type
        if wanted is float and type(value) is int:
            value = float(value)
            setattr(config, f.name, value)
        if type(value) is not wanted or (wanted is float and not math.isfinite(value)):
            raise InputError(f"{flag(f.name)} {value!r}: must be a{'n' if wanted is int else ''} "
                             f"{'finite number' if wanted is float else wanted.__name__}")
        if choices and value not in choices:
            raise InputError(f"{flag(f.name)} {value}: choose one of {', '.join(map(str, choices))}")
        if low is not None and value < low:
            raise InputError(f"{flag(f.name)} {value}: must be at least {low}")
        if high is not None and value > high:
            raise InputError(f"{flag(f.name)} {value}: must be at most {high}")


def number(kind):
    """int or float as argparse takes it, without what Python reads as a number as well: 1_0, ٣, a blank before it."""
    def read(text):
        if not re.fullmatch("[0-9A-Za-z.+-]+", text):
            raise ValueError
        return kind(text)
    read.__name__ = kind.__name__  # argparse names it: "invalid int value"
    return read


class Parser(argparse.ArgumentParser):
    """argparse, with errors that are one line instead of a page of usage. Exit status 2, as usual."""

    def __init__(self, **kwargs):
        super().__init__(allow_abbrev=False, **kwargs)

    def error(self, message):
        self.exit(2, f"error: {one_line(message)}  (--help lists every flag)\n")


def add_flags(parser, config_class, defaults={}):
    """One flag for each field of `config_class`. A flag that is not given stays out of the parsed result.

    defaults: values by name that take the place of the field's own, in the help text.
    """
    group = parser.add_argument_group(config_class.__doc__.splitlines()[0])
    for f in fields(config_class):
        help = f"{f.metadata['help']} (default: {defaults.get(f.name, f.default)})".replace("%", "%%")
        if f.type is bool:
            kind = {"action": argparse.BooleanOptionalAction}
        else:
            kind = {"type": str if f.type is str else number(f.type),
                    "metavar": "|".join(f.metadata["choices"] or []) or f.type.__name__.upper()}
        group.add_argument(flag(f.name), dest=f.name, default=argparse.SUPPRESS, help=help, **kind)


def from_flags(config_class, given):
    """Build and check a config from a dict of given values; names that belong to other configs are left alone."""
    config = config_class(**{f.name: given[f.name] for f in fields(config_class) if f.name in given})
    check(config)
    return config
