"""Circuit: the value of the last gate of a Boolean circuit.

A problem, and a demonstration of it that shows its steps:

    Given a0 b1 c1: b or c = d, not d = e, b and e = f.
    <think>b1 or c1 = d1, not d1 = e0, b1 and e0 = f0, </think><answer>0</answer>

Inputs and gates are wires, named in the order of the alphabet; a0 is the wire a with the value 0. The
chain is the list of gates once more, with a value at each wire. A wire with or without a value is one
token, and so is each of "and", "or", "not", "=" (with the spaces around it) and ", ". A step is as long
as its gate in the problem, so within one problem everything that is copied lies equally far back; the
value of a wire is found where that wire was last written with one; the value of the gate follows from
the tokens before it.

Every gate but the first reads the gate before it (and, unless it is `not`, one other wire, each equally
likely), so the circuit is as deep as it has gates. `and`, `or` and `not` are equally likely.

Evaluating circuits is complete for P: a network of fixed depth cannot do it at once, however wide it
is, unless TC0 = P (arXiv:2402.12875). That is about the worst circuits. These here are kinder: there
are only two answers, and one wire often decides a gate alone (0 and ..., 1 or ...), so a guess from the
last gates goes a long way.
"""
from dataclasses import dataclass

from config import setting
from tasks import Problem
from tasks.serial import SerialOptions, SerialTask
from tasks.tokenizer import Tokenizer

WIRES = "abcdefghijklmnopqrstuvwxyz"


@dataclass
class CircuitOptions(SerialOptions):
    """task circuit"""
    inputs: int = setting(4, "how many inputs the circuit has", low=2, high=13)
    gates: int = setting(6, "how many gates the circuit has", low=1, high=13)


class Circuit(SerialTask):
    """See the top of this file; options: `CircuitOptions`."""
    Options = CircuitOptions

    def __init__(self, options):
        self.options = options
        self.wires = WIRES[:options.inputs + options.gates]
        words = ["<think>", "</think>", "<answer>", "</answer>", "Given", ": ", " and ", " or ", "not ", " = ", ", ", ".\n"]
        values = [f"{wire}{value}" for wire in self.wires for value in (0, 1)]
        self.tokenizer = Tokenizer("circuit", words + [*self.wires, *values, *(f" {v}" for v in values), "0", "1"])
        self.answers = frozenset("01")
        self.set_sizes(prompt=2 + options.inputs + 6 * options.gates, chain=6 * options.gates, answer=1)

    def draw(self, rng):
        inputs, gates = self.options.inputs, []
        values = tuple(int(rng.random() * 2) for _ in range(inputs))
        for wire in range(inputs, len(self.wires)):
            # One operand is the gate before, so that no gate can be left out and the circuit is as deep
            # as it is long.
            first = wire - 1 if gates else int(rng.random() * wire)
            other = int(rng.random() * (wire - 1))
            other += other >= first
            kind = ("and", "or", "not")[int(rng.random() * 3)]
            gates.append((kind, first) if kind == "not" else (kind, *sorted((first, other))))
        return self.problem(values, gates)

    def problem(self, values, gates):
        inputs = len(values)
        given = "".join(f" {wire}{value}" for wire, value in zip(self.wires, values))
        text = ", ".join(self.write(gate, self.wires[inputs + i], self.wires) for i, gate in enumerate(gates))
        return Problem(f"Given{given}: {text}.\n", str(self.values(values, gates)[-1]), ("circuit", values, *gates))

    def parse_problem(self, prompt):
        given, gates = prompt.removeprefix("Given ").strip(".\n").split(": ")
        named = [gate.split(" = ")[0].split() for gate in gates.split(", ")]  # ["b", "or", "c"] or ["not", "d"]
        wire = self.wires.index
        return self.problem(tuple(int(value[1]) for value in given.split()),
                            [("not", wire(g[1])) if g[0] == "not" else (g[1], *sorted((wire(g[0]), wire(g[2])))) for g in named])

    @staticmethod
    def write(gate, result, names):
        kind, *operands = gate
        if kind == "not":
            return f"not {names[operands[0]]} = {result}"
        return f"{names[operands[0]]} {kind} {names[operands[1]]} = {result}"

    @staticmethod
    def values(inputs, gates):
        """The values of all wires, inputs first.

        >>> Circuit.values((0, 1, 1), [("or", 1, 2), ("not", 3), ("and", 1, 4)])
        [0, 1, 1, 1, 0, 0]
        """
        found = list(inputs)
        for kind, *operands in gates:
            first, last = found[operands[0]], found[operands[-1]]
            found.append(1 - first if kind == "not" else first & last if kind == "and" else first | last)
        return found

    def chain(self, problem):
        _, inputs, *gates = problem.key
        names = [f"{wire}{value}" for wire, value in zip(self.wires, self.values(inputs, gates))]
        return "".join(self.write(gate, names[len(inputs) + i], names) + ", " for i, gate in enumerate(gates))
