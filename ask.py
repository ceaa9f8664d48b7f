"""Ask a trained model a question of your own, and see what it thinks, how sure it is, and whether it is right.

    python ask.py runs/countdown-0 "Use 3, 5, 7 to make 22."
    python ask.py runs/countdown-0 "Use 3, 5, 7 to make 22." --greedy --search mcts --samples 8
    python ask.py runs/countdown-0                              asks for one question after the other

The question is a problem of the run's task, in the words of its prompts. The task reads it (`parse_problem`)
and knows the answer; of a task that cannot read questions only the samples are shown, without a verdict.

How sure it is. With y_1 ... y_T the tokens that were written, the last one the end,

    p       = product of pi(y_t | question, y_<t)        of this very text: small, for there are many ways to say it
    a token = p ** (1 / T)                               the geometric mean, which does not shrink with length

at the temperature that was sampled with; at 1 for what was chosen greedily.
"""
import math
import re
import sys
from collections import Counter
from dataclasses import dataclass

import torch

import checkpoint
from config import InputError, Parser, add_flags, from_flags, setting
from evaluate import fixed_problems, pick_device
from plumbing import search_command
from sample import score
from search import METHODS, greedy
from search_context import SearchContext
from tasks import Problem, split_of

SAMPLES = 4


@dataclass
class AskConfig:
    """ask"""
    samples: int = setting(0, f"how many samples; 0: {SAMPLES}, or none beside --greedy or --search", low=0, high=10**4)
    greedy: bool = setting(False, "the likeliest token each time")
    search: str = setting("none", "a method of search.py", choices=("none", *METHODS))
    budget: int = setting(256, "tokens that --search aims at", low=1, high=10**6)
    verifier: str = setting("", "who scores in --search: run of a verifier, or with a critic; empty: the run's own "
                            "critic, else the rule")
    temperature: float = setting(1.0, "sampling temperature", low=0.01, high=10.0)
    seed: int = setting(0, "of the samples", low=0, high=2**31 - 1)
    device: str = setting("auto", "where to compute", choices=("auto", "cpu", "cuda", "mps"))


def read_question(task, text):
    """What a person typed -> Problem. InputError with an example if the task cannot read it.

    Blanks and a full stop at the end do not matter. A task without `parse_problem`: the answer is None.
    """
    example = fixed_problems(task, "test", 1)[0].prompt
    end = re.search(r"[.\s]*$", example)[0]
    prompt = " ".join(text.split()).rstrip(" .") + end
    wrong = InputError(f"{text.strip()!r} is no problem of {task.name}; ask like: {' '.join(example.split())}")
    try:
        tokens = task.tokenizer.encode(prompt)
    except ValueError as error:
        raise InputError(f"{wrong} ({error})")
    if len(tokens) > task.max_prompt_tokens:
        raise InputError(f"{wrong} ({len(tokens)} tokens, the longest has {task.max_prompt_tokens})")
    try:
        problem = task.parse_problem(prompt)
    except NotImplementedError:
        return Problem(prompt, None, ())
    except (ValueError, IndexError):
        raise wrong
    if problem.prompt != prompt:  # it was read, but not as it was meant
        raise wrong
    return problem


@torch.no_grad()
def probabilities(model, row, start, temperature):
    """The tokens of `row` (list) from place `start` on -> p, the product of their probabilities, and their geometric mean."""
    logprobs, _ = score(model, torch.tensor([row], device=model.device), temperature)
    written = logprobs[0, start:]
    return math.exp(float(written.sum())), math.exp(float(written.mean()))


def judge(context, row, judged):
    """-> "right", "wrong", "cut off", or "" where nobody can tell."""
    if not context.ended(0, row):
        return "cut off"
    return ("right" if context.right(0, row) else "wrong") if judged else ""


def show(context, title, rows, temperature, judged):
    """Print some solutions, equal ones once, each with its verdict and its probability."""
    start = len(context.prompts[0])
    for row, count in Counter(map(tuple, rows)).items():
        row = list(row)
        p, mean = probabilities(context.model, row, start, temperature)
        times = f", {count} times" if count > 1 else ""
        verdict = judge(context, row, judged)
        print(f"{title}{times}: {verdict + ', ' if verdict else ''}p {p:.2g}, {mean:.3f} a token, {len(row) - start} tokens")
        print("    " + context.text(0, row).replace("\n", "\n    "))


def answer(model, task, trained, verifier, problem, c):
    """Everything that was asked for about one problem, printed."""
    judged = problem.answer is not None
    split = f"   ({split_of(problem.key)} split)" if judged else "   (no verdicts: the task cannot read questions)"
    print(problem.prompt.strip() + split)
    limit = trained["max_new_tokens"] or task.max_new_tokens
    new = lambda: SearchContext(model, task, [problem], limit, c.temperature,
                                torch.Generator(model.device).manual_seed(c.seed), verifier)
    if c.greedy:
        context = new()
        show(context, "greedy", greedy(context), 0, judged)
    if c.search != "none":
        if not judged:
            raise InputError(f"--search {c.search}: task {task.name} cannot read questions; it needs parse_problem")
        context, settings = new(), search_command.SearchConfig(temperature=c.temperature, seed=c.seed)
        typical = search_command.typical_length(context)
        rows, _ = search_command.run_method(context, c.search, c.budget, settings, typical)
        show(context, f"{c.search}, {context.token_cost[0]} tokens in all", rows, c.temperature, judged)
    count = c.samples or (0 if c.greedy or c.search != "none" else SAMPLES)
    if count:
        context = new()
        _, rows = context.candidates(count)
        show(context, "sample", rows, c.temperature, judged)
        if judged:
            print(f"{sum(context.right(0, row) for row in rows)} of {count} right")
    at = f"temperature {c.temperature:g}" + ("; greedy: at 1" if c.greedy else "")
    print(f"(p: the product of the probabilities of all tokens written, the end included, at {at}; behind it their geometric mean)")


def main(argv=None):
    parser = Parser(prog="ask.py", description="Ask a trained model a question of your own.")
    parser.add_argument("run", metavar="RUN", help="run folder or checkpoint file")
    parser.add_argument("question", nargs="?", help='a problem of its task, like "Use 3, 5, 7 to make 22."; none: you are asked')
    add_flags(parser, AskConfig, {"temperature": "that of the run"})
    given = vars(parser.parse_args(argv))
    c = from_flags(AskConfig, given)
    device = pick_device(c.device)
    model, task, trained = checkpoint.load_run(given["run"], device)
    c.temperature = given.get("temperature", trained.get("temperature", 1.0))
    verifier = search_command.load_verifier(given["run"], c, model, task, trained, device)
    if given["question"] is not None:
        return answer(model, task, trained, verifier, read_question(task, given["question"]), c)
    print(f"a problem of {task.name}, like: {' '.join(fixed_problems(task, 'test', 1)[0].prompt.split())}   (an empty line ends)")
    while True:
        try:
            text = input("> ")
        except (EOFError, KeyboardInterrupt):
            text = ""
        if not text.strip():
            return print()
        try:
            answer(model, task, trained, verifier, read_question(task, text), c)
        except InputError as error:
            print(error)
        c.seed += 1  # the same question once more gets other samples


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(print(f"error: {error}", file=sys.stderr) or 2)
