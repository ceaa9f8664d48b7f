"""Rule rewards: the text of an answer goes in, a number comes out, and nothing is learned.

The idea. A completion looks like

    <think>3 + 5 = 8, 8 * 7 = 56, failed ...</think><answer>(3 * 5) + 7</answer>

and a rule reads the answer, never the thinking: the model may reason in whatever way pays. The reward
of one completion is

    R = accuracy_weight * [the answer is right] + format_weight * [the shape is exactly the one above]

with both brackets 0 unless the completion ended by itself: running out of tokens is a failure, not a
cut-off episode. That is a sparse reward, and what it does not read may rot. `--step-penalty 0.3` is the
dense one beside it: it reads the thinking too, and a completion with a false step in it
(`task.steps_hold`) loses 0.3, whether it ended or not. A step that stands outside of the thinking counts
as a false one: else the policy would learn to think where nobody looks.

A rule is a target that reinforcement learning pushes against for hours, so it must have no hole: every
text a model (or a person) can produce gets a well-defined reward. Arithmetic is exact (fractions), the
parser is our own (no `eval`), its input is bounded in length and depth, and it accepts nothing but + -
* / ( ) and plain ASCII integers.

What is simplified: rewards are given for whole completions only; rewards for single steps need a
learned judge. Source: the accuracy and format rewards of DeepSeek-R1 (arXiv:2501.12948, section 2.2.2).
"""
import re
from dataclasses import dataclass
from fractions import Fraction

import torch

from config import setting


@dataclass
class RewardConfig:
    """rule rewards"""
    accuracy_weight: float = setting(1.0, "reward for a right answer", low=0.0, high=100.0)
    format_weight: float = setting(0.0, "reward for the exact <think>...</think><answer>...</answer> shape", low=0.0, high=100.0)
    step_penalty: float = setting(0.0, "what a completion with a false step of thinking loses", low=0.0, high=100.0)


# ---------------------------------------------------------------------------------------------------------- parsing

ANSWER = re.compile(r"<answer>[^<>]*(</answer>|$)")
SHAPE = re.compile(r"<think>[^<>]*</think>\s*<answer>[^<>]+</answer>\s*")  # [^<>] cannot backtrack: the cost is linear


def has_format(completion):
    """-> bool: one <think> block, then one non-empty <answer> block, and nothing else.

    >>> has_format("<think>1 + 1 = 2</think><answer>1 + 1</answer>"), has_format("<answer>1 + 1</answer>")
    (True, False)
    """
    return SHAPE.fullmatch(completion) is not None


def split_thinking(completion):
    """-> (thinking, ended, outside): the text behind the last <think>; False if a limit cut it off; and what stands neither there nor in
    an <answer>.

    >>> split_thinking("<think>1 + 1 = 2</think>2 + 2 = 4<answer>1 + 1</answer>"), split_thinking("<think>1 + 1")
    (('1 + 1 = 2', True, '2 + 2 = 4'), ('1 + 1', False, ''))
    """
    before, _, rest = completion.rpartition("<think>")
    thinking, end, behind = rest.partition("</think>")
    if not end:
        thinking, end, behind = rest.partition("<answer>")
        behind = end + behind
    return thinking, bool(end), before + ANSWER.sub("", behind)


def extract_answer(completion):
    """The text of the one <answer>...</answer>, stripped. None if it is missing, empty or repeated.

    Two answers are no answer: otherwise listing many guesses would pay.

    >>> extract_answer("<think>...</think><answer> 2 * 4 </answer>")
    '2 * 4'
    >>> extract_answer("<answer>1</answer><answer>2</answer>") is None
    True
    """
    if completion.count("<answer>") != 1 or completion.count("</answer>") != 1:
        return None
    start, end = completion.index("<answer>") + len("<answer>"), completion.index("</answer>")
    return completion[start:end].strip() or None  # an end before the start gives an empty slice


# ------------------------------------------------------------------------------------------------- exact arithmetic

MAX_CHARACTERS, MAX_DEPTH = 500, 50
TOKEN = re.compile(r"[ \t\r\n]*(0|[1-9][0-9]*|[-+*/()])")


def parse_expression(text):
    """An arithmetic expression -> (value: Fraction, the numbers in it: list[int], in order of appearance).

    Grammar, with the usual precedence, both levels from left to right:

        sum     = product  (("+" | "-") product)*
        product = atom     (("*" | "/") atom)*
        atom    = integer | "(" sum ")"

    Raises ValueError on everything else: signs (-3), powers (2 ** 3), floor division, 1_0, 007, digits
    that are not ASCII, names, division by zero, more than 500 characters, more than 50 open brackets.

    >>> parse_expression("(3 * 5) / 7")
    (Fraction(15, 7), [3, 5, 7])
    """
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"expression longer than {MAX_CHARACTERS} characters")
    text, tokens, place = text.strip(" \t\r\n"), [], 0
    while place < len(text):
        match = TOKEN.match(text, place)
        if not match:
            raise ValueError(f"cannot read {text[place:place + 10]!r}")
        tokens.append(match[1])
        place = match.end()
    tokens.append("end")
    numbers, i = [], 0  # i: the next token

    def take():
        nonlocal i
        i += 1
        return tokens[i - 1]

    def atom(depth):
        token = take()
        if token[0].isdigit():
            numbers.append(int(token))
            return Fraction(numbers[-1])
        if token == "(" and depth < MAX_DEPTH:
            value = sum_(depth + 1)
            if take() == ")":
                return value
        raise ValueError(f"unexpected {token!r}")

    def product(depth):
        value = atom(depth)
        while tokens[i] in ("*", "/"):
            operator, right = take(), atom(depth)
            if operator == "/" and right == 0:
                raise ValueError("division by zero")
            value = value * right if operator == "*" else value / right
        return value

    def sum_(depth):
        value = product(depth)
        while tokens[i] in ("+", "-"):
            operator, right = take(), product(depth)
            value = value + right if operator == "+" else value - right
        return value

    value = sum_(0)
    if tokens[i] != "end":
        raise ValueError(f"unexpected {tokens[i]!r}")
    return value, numbers


def evaluate_expression(text):
    """The exact value of an expression, as a Fraction. ValueError as in `parse_expression`.

    >>> evaluate_expression("1 / 3 + 1 / 6")
    Fraction(1, 2)
    """
    return parse_expression(text)[0]


# ---------------------------------------------------------------------------------------------------------- rewards

def rule_rewards(task, problems, completions, finished, config):
    """Judge a batch of completions.

    problems: list of B Problems; completions: list of B texts without EOS; finished: B booleans,
    whether EOS was reached. -> rewards (B,) float32, accuracy (B,) float32 of zeros and ones. Both on
    the CPU.
    """
    right = [bool(done) and task.verify(p, text) for p, text, done in zip(problems, completions, finished, strict=True)]
    shaped = [bool(done) and has_format(text) for text, done in zip(completions, finished)]
    accuracy, shape = (torch.tensor(x, dtype=torch.float32) for x in (right, shaped))
    rewards = config.accuracy_weight * accuracy + config.format_weight * shape
    if config.step_penalty:
        false = [not task.steps_hold(p, text) for p, text in zip(problems, completions)]
        rewards = rewards - config.step_penalty * torch.tensor(false, dtype=torch.float32)
    return rewards, accuracy


# ------------------------------------------------------------------------------------------------ what length costs

def overlong_penalty(lengths, max_length, share):
    """DAPO's soft punishment of length: 0 up to (1 - share) max_length, then falling on a line to -1 at
    max_length.

    lengths (B,): sampled tokens -> (B,) float, to be added to the rewards. Source: arXiv:2503.14476,
    equation 13.

    >>> overlong_penalty(torch.tensor([10, 80, 90, 100]), 100, 0.2).tolist()
    [0.0, 0.0, -0.5, -1.0]
    """
    cache = share * max_length
    return ((max_length - cache - lengths) / cache).clamp(-1.0, 0.0) + 0.0  # + 0.0: no negative zeros


def length_reward(lengths, right, group_size):
    """Kimi's length penalty: the shortest completion of a group earns 1/2, the longest -1/2; a wrong
    one earns nothing for being short, and only loses for being long.

    lengths (B,): sampled tokens; right (B,) bool -> (B,) float, to be added to the rewards, 0 in groups
    of one length. Source: arXiv:2501.12599, section 2.3.3: lambda = 0.5 - (len - min)/(max - min), and
    min(0, lambda) where the answer is wrong.

    >>> length_reward(torch.tensor([10, 20, 15, 10]), torch.tensor([True, True, True, False]), 4).tolist()
    [0.5, -0.5, 0.0, 0.0]
    """
    groups = lengths.view(-1, group_size).float()
    shortest, longest = groups.amin(1, keepdim=True), groups.amax(1, keepdim=True)
    reward = (0.5 - (groups - shortest) / (longest - shortest)).masked_fill(longest == shortest, 0.0).flatten()
    return torch.where(right, reward, reward.clamp(max=0.0))
