"""The command of search.py: flags, who scores, the table, search.json and search.png.

    python search.py RUN --method mcts --budget 512 --problems 200
"""
import json
import pathlib
import re
import time
from dataclasses import dataclass

import torch
from tqdm import tqdm

import checkpoint
import search
from config import InputError, Parser, add_flags, from_flags, setting
from evaluate import fixed_problems, pick_device, progress, wilson
from plumbing import trees as trees_room
from search import METHODS
from search_context import SearchContext


@dataclass
class SearchConfig:
    """search"""
    method: str = setting("mcts", f"one of {', '.join(METHODS)}; several with commas; all")
    budget: str = setting("512", "tokens per problem to aim at, whole numbers with commas between them")
    problems: int = setting(200, "how many", low=1, high=10**6)
    split: str = setting("test", "which problems; tune on val, never on test", choices=("train", "val", "test"))
    verifier: str = setting("", "run of a verifier (orm, prm, rm) or with a critic (ppo); empty: the run's own critic, "
                            "if it has one")
    score: str = setting("auto", "who chooses among finished solutions; auto: the rule if the task is checkable, else "
                         "the verifier, else the policy's own confidence",
                         choices=("auto", "rule", "verifier", "confidence"))
    value: str = setting("auto", "who scores what is half done; auto: the verifier, else rollouts if the task is "
                         "checkable, else confidence",
                         choices=("auto", "critic", "verifier", "rollouts", "confidence"))
    aggregate: str = setting("last", "how a verifier's scores of the steps become one",
                             choices=("last", "min", "product"))
    rollouts: int = setting(1, "rollouts for the value of a leaf", low=1, high=10**4)
    width: int = setting(2, "mcts: steps drawn at a node", low=1, high=10**4)
    root_width: int = setting(12, "mcts: steps drawn at the root", low=1, high=10**4)
    c_init: float = setting(0.3, "mcts: how much the prior counts against the value", low=0.0, high=1e6)
    noise: float = setting(0.0, "mcts: weight of Dirichlet noise at the root", low=0.0, high=1.0)
    weighted: bool = setting(False, "majority_vote: the scores weigh the votes")
    temperature: float = setting(1.0, "sampling temperature", low=0.01, high=10.0)
    seed: int = setting(0, "of the samples; the problems are always the same", low=0, high=2**31 - 1)
    device: str = setting("auto", "where to compute", choices=("auto", "cpu", "cuda", "mps"))
    render: bool = setting(False, "mcts: print the tree of the first problem")
    trees: str = setting("", "file for the trees of mcts, beam_search and rebase, move by move; view.py shows RUN/trees.jsonl")
    out: str = setting("", "folder for search.json and, with matplotlib, search.png")


def read_command_line(argv):
    """-> the run, SearchConfig, its methods and its budgets. InputError if they cannot be used."""
    parser = Parser(prog="search.py", description="Accuracy bought with tokens: search on a trained run.")
    parser.add_argument("run", metavar="RUN", help="run folder or checkpoint file")
    add_flags(parser, SearchConfig, {"temperature": "that of the run"})
    given = vars(parser.parse_args(argv))
    c = from_flags(SearchConfig, given)
    c.temperature = given.get("temperature")  # None: that of the run, which is not loaded yet
    methods = METHODS if c.method == "all" else c.method.split(",")
    for method in methods:
        if method not in METHODS:
            raise InputError(f"--method {method}: choose one of {', '.join(METHODS)}, or all")
    if not re.fullmatch(r"[1-9][0-9]{0,8}(,[1-9][0-9]{0,8})*", c.budget):
        raise InputError(f"--budget {c.budget}: must be whole numbers from 1 with commas between them, like 64,128,256")
    return given["run"], c, methods, [int(b) for b in c.budget.split(",")]


def load_verifier(run, c, model, task, trained, device):
    """The verifier of --verifier, or the run's own critic, or None. InputError if it cannot read what this run writes."""
    if not c.verifier and trained["algo"] != "ppo":
        return None
    verifier = checkpoint.load_verifier(c.verifier or run, device)
    if verifier.vocabulary != task.tokenizer.vocabulary:
        raise InputError(f"--verifier {c.verifier}: its vocabulary is not that of task {task.name}")
    if verifier.backbone.config.block_size < model.config.block_size:
        raise InputError(f"--verifier {c.verifier}: reads at most {verifier.backbone.config.block_size} tokens, "
                         f"this run writes {model.config.block_size}")
    return verifier


def scorers(context, c):
    """--score and --value -> the two functions, and their names. InputError if what they ask for is not there."""
    checkable, verifier, name = context.task.checkable, context.verifier, context.task.name
    if c.score == "rule" and not checkable:
        raise InputError(f"--score rule: in {name} the rule needs the answer key; use a verifier")
    for flag, asked in (("score", c.score), ("value", c.value)):
        if asked in ("verifier", "critic") and verifier is None:
            raise InputError(f"--{flag} {asked}: this run has no critic; name a run that has one, or a verifier, with "
                             "--verifier RUN")
    if c.value == "critic" and verifier.kind != "ppo":
        raise InputError(f"--value critic: --verifier is a run of --algo {verifier.kind}; use --value verifier")
    if c.value == "rollouts" and not checkable:
        raise InputError(f"--value rollouts: in {name} the rule needs the answer key; use a verifier")
    best = "verifier" if verifier else "confidence"
    score_by = ("rule" if checkable else best) if c.score == "auto" else c.score
    value_by = ("rollouts" if checkable and not verifier else best) if c.value == "auto" else c.value
    known = {"rule": context.rule, "verifier": context.verifier_score, "critic": context.verifier_score,
             "rollouts": context.from_rollouts, "confidence": context.own_confidence}
    return known[score_by], known[value_by], score_by, value_by


def typical_length(context):
    """Mean tokens of a solution, from 64 training problems: turns a budget into a number of them. Not counted."""
    other = SearchContext(context.model, context.task, fixed_problems(context.task, "train", 64), context.limit,
                          context.temperature, torch.Generator(context.model.device).manual_seed(1))
    other.candidates(1)
    return sum(other.token_cost) / 64


def run_method(context, method, budget, c, typical):
    """One method at one budget -> rows, trees (mcts only)."""
    scorer, value, _, _ = scorers(context, c)
    n = max(1, round(budget / typical))
    if method == "mcts":
        return search.tree_search(context, budget, value, scorer, c.width, c.root_width, c.c_init, noise=c.noise,
                                  seed=c.seed)
    rows = {"greedy": lambda: search.greedy(context),
            "sample": lambda: search.sample(context, n),
            "best_of_n": lambda: search.best_of_n(context, n, scorer),
            "majority_vote": lambda: search.majority_vote(context, n, scorer if c.weighted else None),
            "beam_search": lambda: search.beam_search(context, n, value, scorer),
            "rebase": lambda: search.beam_search(context, n, value, scorer, search.rebase_allocation),
            "budget_forcing": lambda: search.budget_forcing(context, budget)}[method]()
    return rows, None


def measure(model, task, problems, method, budget, c, verifier, typical, max_new_tokens=0):
    """-> dict: accuracy with its 95 % interval (low, high), tokens per problem, seconds, rows per call of
    the model, and with --render the tree of the first problem as text."""
    generator = torch.Generator(model.device).manual_seed(c.seed)
    context = SearchContext(model, task, problems, max_new_tokens, c.temperature, generator, verifier, c.aggregate,
                            c.rollouts)
    if c.trees and method in trees_room.METHODS:
        context.record = trees_room.Record(context)
    started = time.time()
    rows, trees = run_method(context, method, budget, c, typical)
    seconds = time.time() - started
    if context.record:
        _, _, score_by, value_by = scorers(context, c)
        with open(c.trees, "a") as file:
            file.write(context.record.lines(rows, method=method, budget=budget, score=score_by, value=value_by))
    right = sum(context.right(i, row) for i, row in enumerate(rows)) / len(rows)
    result = {"method": method, "budget": budget, "accuracy": right, "interval": wilson(right, len(rows)),
              "tokens": sum(context.token_cost) / len(rows), "seconds": seconds,
              "rows_per_call": context.rows / max(1, context.calls),
              "batch_full": sum(context.filled) / len(context.filled) if trees else None}
    if c.render and trees:
        step = lambda before, after: [t for t in after[len(before):] if t != context.eos]
        name = lambda before, after: task.tokenizer.decode(step(before, after)).replace("\n", " / ")
        result["tree"] = "\n".join([problems[0].prompt.strip(), *trees[0].render(name)])
    return result


def table_row(r):
    low, high = r["interval"]
    full = "" if r["batch_full"] is None else f", {r['batch_full']:.0%} full"
    return (f"| {r['method']} | {r['budget'] or ''} | {r['accuracy']:.3f} [{low:.3f}, {high:.3f}] | {r['tokens']:.0f} "
            f"| {r['seconds']:.1f} | {r['rows_per_call']:.0f}{full} |")


def open_folder(out):
    """The folder of --out. InputError, before the work begins, if it cannot be written to."""
    folder = pathlib.Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "search.json").touch()
    except OSError as error:
        raise InputError(f"--out {folder}: cannot be written to ({error.strerror})")
    return folder


def save(folder, run, methods, results):
    (folder / "search.json").write_text(json.dumps(results, indent=2) + "\n")
    try:
        import plot
        table = (run, {m: [r for r in results if r["method"] == m] for m in methods})
        plot.lines(plot.searches([table]), folder / "search.png")
    except ModuleNotFoundError:
        print("(no search.png: matplotlib is not installed)")


def main(argv=None):
    run, c, methods, budgets = read_command_line(argv)
    device = pick_device(c.device)
    model, task, trained = checkpoint.load_run(run, device)
    c.temperature = c.temperature or trained.get("temperature", 1.0)
    verifier = load_verifier(run, c, model, task, trained, device)
    limit = trained["max_new_tokens"] or task.max_new_tokens
    problems = fixed_problems(task, c.split, c.problems)
    context = SearchContext(model, task, problems, limit, c.temperature, verifier=verifier)
    _, _, score_by, value_by = scorers(context, c)
    typical = typical_length(context)
    print(f"{run}: {len(problems)} {c.split} problems of {task.name}, about {typical:.0f} tokens a solution; finished "
          f"solutions are scored by {score_by}, half-finished ones by {value_by}; in brackets a 95 % interval (Wilson).\n"
          "The budget is what a method aims at, not a cap: compare at the tokens that were really sampled.")
    print("| method | budget | accuracy | tokens sampled per problem | seconds | rows per call of the model |\n"
          "|---|---|---|---|---|---|")
    folder = open_folder(c.out) if c.out else None
    if c.trees:
        try:
            open(c.trees, "w").close()
        except OSError as error:
            raise InputError(f"--trees {c.trees}: cannot be written to ({error.strerror})")
    results = []
    for method, budget in progress([(m, b) for m in methods for b in ([0] if m == "greedy" else budgets)], "search"):
        results.append(measure(model, task, problems, method, budget, c, verifier, typical, limit))
        tqdm.write(table_row(results[-1]))
    for r in results:
        if "tree" in r:
            print(f"\nmcts, budget {r['budget']}, {r['tree']}")
    if folder:
        save(folder, run, methods, results)
    return results
