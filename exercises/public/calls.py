"""How each function is called by the tests: on plain data, and with models so small that their numbers
can be worked out by hand.

`run("3.1", cases)` imports the function of part 3.1 and calls it on every case, a dict of numbers,
texts and tensors; what comes back is plain data too. test_public.py compares it with expected.pt. The
grader does the same with other cases. A part whose neighbours are not written yet can be tested
nevertheless: where it calls them, a stand-in takes their place (see `Stubs`).
"""
import contextlib
import copy
import importlib
import inspect
import random
import re
import sys
from types import SimpleNamespace

import torch
import torch.nn as nn

CALLS = {}  # part -> function of a case


def call(part):
    def register(function):
        CALLS[part] = function
        return function
    return register


def find(target):
    """"tree.Tree.select" -> the function, its owner (a module or a class) and its name."""
    *path, name = target.split(".")
    for cut in range(len(path), 0, -1):
        try:
            owner = importlib.import_module(".".join(path[:cut]))
        except ModuleNotFoundError as error:
            if not ".".join(path[:cut]).startswith(error.name or "?"):
                raise
            continue
        for each in path[cut:]:
            owner = getattr(owner, each)
        return getattr(owner, name), owner, name
    raise ModuleNotFoundError(f"no module of {target}")


def run(part, cases):
    """-> one dict a case: `result`, what came out (or `raises`), and `inputs`, the case as the function
    left it.
    """
    found = []
    for case in cases:
        try:
            result = CALLS[part](case)
        except NotImplementedError:
            raise
        except Exception as error:
            place = inspect.trace()[-1]
            result = {"raises": type(error).__name__,
                      "says": f"{error} ({place.filename.split('/')[-1]}, line {place.lineno})"[:300]}
        found.append({"result": result, "inputs": case})
    return found


def source_of(target):
    """-> the files that the module and the function of a target come from."""
    function, owner, _ = find(target)
    module = inspect.getmodule(owner) if not inspect.ismodule(owner) else owner
    code = getattr(inspect.unwrap(function), "__code__", None)
    return [module.__file__, code.co_filename if code else module.__file__]


# -------------------------------------------------------------------------------------------- comparing

def difference(got, wanted, name="the result"):
    """-> None if they are the same (floats up to rounding), else one line that says where they differ."""
    if isinstance(wanted, dict) and "raises" in wanted or isinstance(got, dict) and "raises" in got:
        kinds = [x["raises"] if isinstance(x, dict) and "raises" in x else None for x in (got, wanted)]
        if kinds[0] == kinds[1]:
            return None
        return f"raises {kinds[0]}: {got.get('says', '')}" if kinds[0] else f"{name}: should raise {kinds[1]}"
    if isinstance(wanted, dict):
        if not isinstance(got, dict) or set(got) != set(wanted):
            return f"{name}: should hold {', '.join(map(str, wanted))}"
        found = (difference(got[key], wanted[key], str(key)) for key in wanted)
    elif torch.is_tensor(wanted):
        if not torch.is_tensor(got):
            return f"{name}: should be a tensor, is {type(got).__name__}"
        if got.shape != wanted.shape:
            return f"{name}: shape {tuple(got.shape)} in place of {tuple(wanted.shape)}"
        if kind(got) != kind(wanted):
            return f"{name}: dtype {got.dtype} in place of {wanted.dtype}"
        a, b = got.double(), wanted.double()
        wrong = ~((a == b) | ((a - b).abs() <= 1e-5 + 1e-4 * b.abs()) | (a.isnan() & b.isnan()))
        if not wrong.any():
            return None
        place = tuple(wrong.nonzero()[0].tolist())
        return f"{name}{list(place) if place else ''}: {float(a[place]):.5g} in place of {float(b[place]):.5g}"
    elif isinstance(wanted, (list, tuple)):
        if not isinstance(got, (list, tuple)) or len(got) != len(wanted):
            return f"{name}: should have {len(wanted)} entries"
        found = (difference(a, b, f"{name}[{i}]") for i, (a, b) in enumerate(zip(got, wanted)))
    elif isinstance(wanted, float) and isinstance(got, (int, float)) and not isinstance(got, bool):
        both_nan = got != got and wanted != wanted
        near = got == wanted or both_nan or abs(got - wanted) <= 1e-5 + 1e-4 * abs(wanted)
        return None if near else f"{name}: {got:.5g} in place of {wanted:.5g}"
    else:
        same = type(got) is type(wanted) and got == wanted
        return None if same else f"{name}: {str(got)[:60]!r} in place of {str(wanted)[:60]!r}"
    return next((line for line in found if line), None)


def kind(x):
    return "bool" if x.dtype == torch.bool else "float" if x.is_floating_point() else "int"


def judge(got, wanted, wrong):
    """What came out of `run`, what should have come out, and [(hint, what a known mistake puts out)] ->
    None if right, else one line.
    """
    lines = [difference(g["result"], w["result"]) for g, w in zip(got, wanted)]
    if not any(lines):
        changed = any(difference(g["inputs"], w["inputs"]) for g, w in zip(got, wanted))
        return "its inputs were changed in place: work on a copy" if changed else None
    for hint, outputs in wrong:
        if not any(difference(g["result"], w["result"]) for g, w in zip(got, outputs)):
            return hint
    at = next(i for i, line in enumerate(lines) if line)
    return f"case {at + 1} of {len(lines)}{settings(wanted[at]['inputs'])}: {lines[at]}"


def settings(case):
    """What is short in a case, to tell it from the others: " (baseline=one, right_weight=0.1)"."""
    given = case.get("settings")
    given = given if isinstance(given, dict) else {}
    short = [f"{name}={value}" for name, value in (case | given).items()
             if isinstance(value, (str, int, float)) and len(str(value)) < 20]
    short += [f"{name} given" for name, value in given.items() if torch.is_tensor(value)]
    return f" ({', '.join(short)})" if short else ""


# ------------------------------------------------------------------------------------------------- toys

class Bigram(nn.Module):
    """The logits of the next token are table[this token]."""
    compute_dtype, device = torch.float32, torch.device("cpu")

    def __init__(self, table):
        super().__init__()
        self.table = nn.Parameter(table.clone())  # (V, V)

    def forward(self, tokens):
        return self.table[tokens]


class Sum(nn.Module):
    """A critic: its number at t is the sum of table[token] over all tokens up to t."""

    def __init__(self, table):
        super().__init__()
        self.table = nn.Parameter(table.clone())  # (V,)

    def forward(self, tokens):
        return self.table[tokens].cumsum(1)


class Lookup(Bigram):
    """A policy for `lookup_score`: the log-prob of a token is table[token], whatever stands before it."""


def lookup_score(model, tokens, temperature=1.0):
    """Stands in for sample.score: as if log-probs stood in a table."""
    logprobs = model.table[tokens] / temperature
    return logprobs, torch.zeros_like(logprobs)


def likeliest(logits, temperature, generator=None, noise=None):
    """Stands in for sample.choose: the largest logit, and its log-prob under the temperature."""
    tokens = logits.argmax(-1)
    return tokens, torch.log_softmax(logits / temperature, -1)[torch.arange(len(tokens)), tokens]


@contextlib.contextmanager
def Stubs(module, **stand_ins):
    """While it lasts, names of a module mean something else."""
    before = {name: getattr(module, name) for name in stand_ins}
    for name, value in stand_ins.items():
        setattr(module, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(module, name, value)


class Numbers:
    """A tokenizer of texts like "5 3 2"."""
    eos, pad = 1, 0

    def encode(self, text):
        return [int(word) for word in text.split()]

    def decode(self, ids):
        return " ".join(map(str, ids))


class Watched:
    """Takes the place of an optimizer: keeps the gradients that a step would have followed, and takes
    none.
    """

    def __init__(self, model, stale=0.0):
        self.model, self.steps = model, []
        if stale:
            # of an earlier step: must not be followed again
            model.table.grad = torch.full_like(model.table, stale)

    def zero_grad(self, **_):
        self.model.table.grad = None

    def step(self, schedule=1.0, max_norm=float("inf")):
        grad = self.model.table.grad
        self.steps.append({"gradient": grad.clone() if grad is not None else None,
                           "schedule": float(schedule), "max_norm": float(max_norm)})
        return 0.75


def with_gradient(outputs, weights, **leaves):
    """The outputs, and how the sum of weights * outputs changes with each leaf."""
    total = sum((w * o).sum() for w, o in zip(weights, outputs))
    if torch.is_tensor(total) and total.requires_grad:
        grads = torch.autograd.grad(total, leaves.values(), allow_unused=True)
    else:  # somebody has detached something
        grads = [None] * len(leaves)
    return {f"gradient of {name}": torch.zeros_like(leaf) if g is None else g for (name, leaf),
            g in zip(leaves.items(), grads)}


def leaf(x):
    return x.clone().requires_grad_()


# ---------------------------------------------------------------------------------------------- sheet 1

@call("1.1")
def _(case):
    import sample
    return {"mask": sample.completion_mask(case["starts"], case["lengths"], case["T"])}


@call("1.2")
def _(case):
    import sample
    tokens, logprobs = sample.choose(case["logits"], case["temperature"],
                                     torch.Generator().manual_seed(0), case["noise"])
    return {"tokens": tokens, "logprobs": logprobs}


@call("1.3")
def _(case):
    import sample
    buf = SimpleNamespace(length=case["tokens"].shape[1],
                          **{name: case[name].clone()
                             for name in "tokens logprobs rows positions ends chosen done".split()})
    with Stubs(sample, choose=likeliest):
        sample.write(buf, case["n"], case["logits"], case["temperature"], case["eos"], case["stop"])
    return {name: getattr(buf, name) for name in ("tokens", "logprobs", "chosen", "done", "positions")}


@call("1.4")
def _(case):
    import sample
    with Stubs(sample, choose=likeliest):
        rollout = sample.generate_plainly(Bigram(case["table"]), case["prompts"], case["limits"],
                                          case["temperature"], case["eos"], pad=0)
    return {name: getattr(rollout, name)
            for name in ("tokens", "prompt_lengths", "lengths", "mask", "logprobs", "finished")}


@call("1.5")
def _(case):
    import sample
    model = Bigram(case["table"])
    logprobs, entropies = sample.score(model, case["tokens"], case["temperature"])
    return {"logprobs": logprobs.detach(), "entropies": entropies.detach(),
            **with_gradient((logprobs, entropies), case["weights"], table=model.table)}


@call("1.6")
def _(case):
    import sample
    model = Sum(case["table"])
    values = sample.values(model, case["tokens"])
    return {"values": values.detach(), **with_gradient((values,), case["weights"], table=model.table)}


# ---------------------------------------------------------------------------------------------- sheet 2

@call("2.1")
def _(case):
    import sft
    asked, left = [], iter(case["pairs"])

    def sample_problem(rng, split="train"):
        asked.append(split)
        prompt, completion = next(left)
        return SimpleNamespace(prompt=prompt, completion=completion)

    task = SimpleNamespace(tokenizer=Numbers(), sample_problem=sample_problem,
                           demonstration=lambda problem, rng: problem.completion,
                           example=lambda problem, rng: (problem.prompt, problem.completion))
    tokens, mask = sft.demonstrations(task, len(case["pairs"]), random.Random(0), *case["split"])
    return {"tokens": tokens, "mask": mask, "splits": asked}


@call("2.2")
def _(case):
    import sft
    model = Lookup(case["table"])
    optimizer = Watched(model, stale=3.0)
    with Stubs(sft, score=lookup_score):
        loss, norm = sft.sft_step(model, optimizer, case["tokens"], case["mask"], case["micro_batch"],
                                  case["schedule"], case["max_norm"])
    return {"loss": float(loss), "norm": norm, "steps": optimizer.steps}


@call("2.3")
def _(case):
    import rewards
    return {text: rewards.extract_answer(text) for text in case["texts"]}


@call("2.4")
def _(case):
    import rewards

    def read(text):
        try:
            value, numbers = rewards.parse_expression(text)
            return {"value": f"{type(value).__name__} {value}", "numbers": numbers}
        except ValueError:
            return {"raises": "ValueError"}
        except (ArithmeticError, RecursionError, TypeError, SyntaxError, IndexError, KeyError,
                AttributeError, MemoryError) as error:
            return {"raises": type(error).__name__, "says": repr(text[:40])}
    return {text: read(text) for text in case["texts"]}


@call("2.5")
def _(case):
    from fractions import Fraction

    import tasks
    countdown = importlib.import_module("tasks.countdown")

    def parsed(text):
        if text not in case["parsed"]:
            raise ValueError(f"cannot read {text!r}")
        value, numbers = case["parsed"][text]
        return Fraction(value), list(numbers)

    task = countdown.Countdown(countdown.CountdownOptions())
    task.name = "countdown"
    problem = tasks.Problem("", case["target"], ("countdown", *case["numbers"], case["target"]))
    between = lambda text: text if text else None  # the answer stands there alone
    with Stubs(countdown, extract_answer=between, parse_expression=parsed):
        return {text: task.right(problem, text, "strict") for text in case["texts"]}


@call("2.6")
def _(case):
    import rewards
    task = SimpleNamespace(verify=lambda problem, text: "right" in text, steps_hold=lambda problem,
                           text: "false" not in text)
    config = rewards.RewardConfig(*case["weights"])
    found, accuracy = rewards.rule_rewards(task, [None] * len(case["texts"]), case["texts"],
                                           case["finished"], config)
    return {"rewards": found, "accuracy": accuracy}


# ---------------------------------------------------------------------------------------------- sheet 3

@call("3.1")
def _(case):
    import grpo
    return {"advantages": grpo.group_advantages(case["rewards"], case["group_size"],
                                                **case["settings"])}


@call("3.2")
def _(case):
    import grpo
    return {"weights": grpo.token_weights(case["mask"], case["aggregate"], case["max_length"])}


@call("3.3")
def _(case):
    import grpo
    logprobs = leaf(case["logprobs"])
    kl = grpo.kl_estimate(logprobs, case["ref_logprobs"], case["estimator"])
    return {"kl": kl.detach(), **with_gradient((kl,), case["weights"], logprobs=logprobs)}


@call("3.4")
def _(case):
    import grpo
    logprobs, entropies = leaf(case["logprobs"]), leaf(case["entropies"])
    place = torch.arange(1, case["mask"].shape[1] + 1)
    by_tokens = lambda mask, aggregate, max_length=None: mask * (place / (7 + len(mask)))
    squared = lambda logprobs, ref_logprobs, estimator: (logprobs - ref_logprobs) ** 2
    with Stubs(grpo, token_weights=by_tokens, kl_estimate=squared):  # not the true ones
        loss, stats = grpo.policy_loss(logprobs, case["old_logprobs"], case["advantages"], case["mask"],
                                       aggregate="token_mean",
                                       entropies=entropies, **case["settings"])
    stats = {name: torch.as_tensor(value) for name, value in stats.items()}
    return {"loss": loss.detach(), "stats": {name: value.detach() for name, value in stats.items()},
            "stats that carry a gradient": [name for name, value in stats.items() if value.requires_grad],
            **with_gradient((loss,), (1.0,), logprobs=logprobs, entropies=entropies)}


# ---------------------------------------------------------------------------------------------- sheet 4

@call("4.1")
def _(case):
    import ppo
    return {"rewards": ppo.token_rewards(case["rewards"], case["logprobs"], case["ref_logprobs"],
                                         case["mask"], case["beta"])}


@call("4.2")
def _(case):
    import ppo
    advantages, returns = ppo.gae(case["rewards"], case["values"], case["mask"], case["gamma"],
                                  case["lam"])
    return {"advantages": advantages, "returns": returns}


@call("4.3")
def _(case):
    import ppo
    return {"whitened": ppo.whiten(case["x"], case["mask"])}


@call("4.4")
def _(case):
    import ppo
    values = leaf(case["values"])
    loss, clipped = ppo.value_loss(values, case["old_values"], case["returns"], case["mask"],
                                   case["clip"], case["weights"])
    return {"loss": loss.detach(), "clipped": torch.as_tensor(clipped).detach(),
            **with_gradient((loss,), (1.0,), values=values)}


# ---------------------------------------------------------------------------------------------- sheet 5

@call("5.1")
def _(case):
    import dpo
    leaves = {name: leaf(case[name]) for name in ("chosen", "rejected")}
    loss, margins = dpo.dpo_loss(*leaves.values(), case["ref_chosen"], case["ref_rejected"],
                                 case["beta"])
    return {"loss": loss.detach(), "margins": margins.detach(),
            **with_gradient((loss,), (1.0,), **leaves)}


@call("5.2")
def _(case):
    import dpo
    chosen, rejected = dpo.pairs(case["rewards"], case["group_size"])
    return {"chosen": chosen, "rejected": rejected}


def rollout_of(case, problems=()):
    import sample
    zeros = torch.zeros(case["tokens"].shape)
    return sample.Rollout(case["tokens"], case["starts"], case["lengths"], case["mask"], zeros,
                          case["finished"], list(problems))


def updated(method, optimizer, rollout, rewards):
    """One update whose steps are looked at, and not taken."""
    method.optimizer = optimizer
    metrics = method.update(rollout, rewards)
    return {"metrics": {name: float(value) for name, value in metrics.items() if name != "grad_norm"},
            "steps": optimizer.steps}


@call("5.3")
def _(case):
    import dpo

    # not the true one, but each argument has a place of its own
    def loss_of(chosen, rejected, ref_chosen, ref_rejected, beta):
        margins = beta * (chosen - 2 * rejected + 4 * ref_chosen - 8 * ref_rejected)
        return (margins ** 2).mean(), margins

    policy = Lookup(case["table"])
    config = dpo.DPOConfig(micro_batch=case["micro_batch"], mini_batches=1,
                           temperature=case["temperature"], beta=0.5)
    with Stubs(dpo, make_optimizer=lambda *_: None, score=lookup_score, dpo_loss=loss_of,
               pairs=lambda rewards, group_size: (case["chosen"], case["rejected"])):
        method = dpo.DPO(policy, SimpleNamespace(max_new_tokens=8), config)
        with torch.no_grad():
            policy.table += case["moved"]  # it has learned something since
        found = updated(method, Watched(policy), rollout_of(case), torch.zeros(len(case["tokens"])))
    return found | {"reference has moved": bool((method.reference.table != case["table"]).any())}


@call("5.4")
def _(case):
    import sample
    star = importlib.import_module("methods.star")
    task = SimpleNamespace(tokenizer=Numbers(), max_new_tokens=8, verify=lambda problem,
                           text: text.split()[:1] == [problem])
    policy = Lookup(case["table"])
    config = star.STaRConfig(micro_batch=case["micro_batch"], mini_batches=1)
    rollout = rollout_of(case, case["problems"])
    right = lambda self, task: torch.tensor([bool(done)
                                             and task.verify(problem,
                                                             task.tokenizer.decode(row[start:end]))
                                             for row, start, end, done, problem
                             in zip(self.tokens.tolist(), self.prompt_lengths.tolist(),
                                    self.lengths.tolist(), self.finished, self.problems)])
    with Stubs(star, make_optimizer=lambda *_: None,
               score=lookup_score), Stubs(sample.Rollout, right=right):
        return updated(star.STaR(policy, task, config), Watched(policy), rollout, case["rewards"])


# ---------------------------------------------------------------------------------------------- sheet 6

@call("6.1")
def _(case):
    import evaluate

    def one(n, c, k):
        try:
            return float(evaluate.pass_at_k(n, c, k))
        except NotImplementedError:
            raise
        except Exception as error:
            return f"raises {type(error).__name__}"
    return {f"n={n}, c={c}, k={k}": one(n, c, k) for n, c, k in case["triples"]}


@call("6.2")
def _(case):
    import search
    rows, eos = case["rows"], 1
    task = SimpleNamespace(canonical_answer=lambda text: int(text.split()[-1]) % 10
                           if re.fullmatch(r"[\d ]+", text) else None)
    ended = lambda i, row: row[-1] == eos
    text = lambda i, row: " ".join("?" if x == 99 else str(x) for x in row[:len(row) - ended(i, row)])
    problems = len(rows) // case["n"]
    context = SimpleNamespace(problems=list(range(problems)), task=task, ended=ended, text=text,
                              eos=eos,
                              candidates=lambda n: ([i for i in range(problems) for _ in range(n)],
                                                    copy.deepcopy(rows)))
    scorer = (lambda problem_index, rows: list(case["points"])) if case["points"] else None
    return {"chosen": [list(row) for row in search.majority_vote(context, case["n"], scorer)]}


@call("6.3")
def _(case):
    exact = importlib.import_module("experiments.exact")
    return {"distribution": [float(x)
                             for x in exact.best_of_n_distribution(case["p"], case["scores"],
                                                                   case["n"])]}


@call("6.4")
def _(case):
    import search
    return {"widths": list(search.rebase_allocation(case["scores"], case["n"], **case["settings"]))}


@call("6.5")
def _(case):
    import tree as trees
    tree = trees.Tree(())
    for parent, prior, first in case["children"]:  # node k + 1 is a child of `parent`
        tree.add_children(parent, [len(tree.states)], [prior], [first])
    for name in ("visits", "totals", "leaf_value", "exhausted"):
        setattr(tree, name, list(case[name]))
    leaf = tree.select(*case["settings"])
    parents, went, k = [-1] + [parent for parent, *_ in case["children"]], {}, leaf
    while isinstance(k, int) and 0 < k < len(parents):
        went[parents[k]], k = k, parents[k]  # at the parent the path goes to k
    path = {}
    for j in sorted(set(parents) - {-1}):  # the first line that differs is where the paths part
        goes = f"goes to {went[j]}" if j in went else "stops here" if j == leaf else "does not come here"
        path[sys.intern(seen_at(j, case))] = goes  # one text for all: expected.pt stays small
    return path | {"leaf": leaf}


def seen_at(j, case):
    """All that `select` can see at a node, as text."""
    def child(k, prior, first):
        out = ", exhausted" if case["exhausted"][k] else ""
        return (f"{k} (N={case['visits'][k]}, W={case['totals'][k]:.3g}, P={prior:.3g}, "
                f"first play {first if first is None else round(first, 3)}{out})")
    given = ", ".join(f"{name}={x:g}" for name, x in zip(("c_init", "c_base"), case["settings"]))
    children = [child(k + 1, *rest) for k, (parent, *rest) in enumerate(case["children"]) if parent == j]
    return (f"at node {j} with N={case['visits'][j]}, W={case['totals'][j]:.3g}, {given}, children "
            + ", ".join(children))
