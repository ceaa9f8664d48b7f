"""The verifier, read by an enemy. A hole in the rule is found by reinforcement learning sooner than by us."""
import ast
import operator
import random
import re
from fractions import Fraction
from types import SimpleNamespace

import pytest
import torch

import tasks
from rewards import RewardConfig, evaluate_expression, extract_answer, has_format, parse_expression, rule_rewards
from tasks import Problem
from toys import seed

TASK = tasks.load("countdown")
PROBLEM = Problem("Use 3, 5, 3 to make 14.\n", 14, ("countdown", 3, 3, 5, 14))


def answer(text):
    return f"<think></think><answer>{text}</answer>"


# ---- exact arithmetic

@pytest.mark.parametrize("text, value", [
    ("7", 7), ("0", 0), ("10", 10), ("3 + 4 * 5", 23), ("(3 + 4) * 5", 35), ("9 - 4 - 3", 2), ("24 / 4 / 2", 3),
    ("24 / 4 * 2", 12), ("2 - 3", -1), ("1 / 3", Fraction(1, 3)), ("((7))", 7), ("3*(4+5)", 27), ("\t1\n+\r 2 ", 3),
    ("0 / 5", 0),
])
def test_values_follow_the_usual_precedence(text, value):
    assert evaluate_expression(text) == value


def test_arithmetic_is_exact():
    """In floats this is 6 only nearly; and 10 ** 20 + 1 - 10 ** 20 would be 0."""
    assert evaluate_expression("1 / 3 + 1 / 3 + 1 / 3 + 5") == 6
    assert evaluate_expression(f"{10**20} + 1 - {10**20}") == 1


def test_numbers_are_listed_in_order_of_appearance():
    assert parse_expression("(3 * 5) + 3")[1] == [3, 5, 3]


NOT_ARITHMETIC = [
    "", " ", "+", "3 +", "* 3", "3 5", "3 + 5)", "(3 + 5", "()", "3 (5)", "(3)(5)", ")3(", "3 + + 5",  # malformed
    "2 ** 3", "7 // 2", "7 % 2", "7 ^ 2", "3 == 3", "3 < 5", "1 << 3", "~3", "3 @ 5", "5!",           # other operators
    "-3", "+3", "3 * -3", "(-3)", "3 - -3", "--3",                                                     # signs
    "1_0", "007", "00", "0 0", "0x10", "1e3", "1.5", ".5", "1j", "1,000",                        # other spellings of numbers
    "٣ + 5", "²", "3²", "½", "３", "Ⅷ", "一", "3 × 5", "3 ÷ 5", "3 − 5", "3\u00a0+\u00a05",    # not ASCII
    "1 / 0", "1 / (3 - 3)", "0 / 0", "5 / (1 / 3 - 2 / 6)",                                            # division by zero
    "True", "max(3, 5)", "__import__('os').getcwd()", "(lambda: 14)()", "[14][0]", "int('14')", "x", "14 if 1 else 0", "'14'",
    "3 + 5 # 14", "3 + 5 = 8", "3\\\n+5", "3;5", "3\0+5", "3\x0b+5", "\ud800", "end", "3 end",
    "(" * 51 + "3" + ")" * 51, "(" * 1000 + "3" + ")" * 1000, "(" * 100_000, "3+" * 300 + "3", "9" * 501, "1" * 10_000,
]


@pytest.mark.parametrize("text", NOT_ARITHMETIC, ids=[ascii(t)[:30] for t in NOT_ARITHMETIC])
def test_anything_but_plain_arithmetic_is_refused(text):
    """Trap 19. `eval` would take most of these."""
    with pytest.raises(ValueError):
        evaluate_expression(text)


def test_brackets_may_be_nested_fifty_deep():
    assert evaluate_expression("(" * 50 + "3" + ")" * 50) == 3


# ---- the answer in the text

@pytest.mark.parametrize("completion, text", [
    ("<think>x</think><answer>1 + 2</answer>", "1 + 2"), ("<answer>\n1\n</answer>", "1"), ("<answer>1</answer> bye", "1"),
    ("", None), ("1 + 2", None), ("<answer>1", None), ("1</answer>", None), ("<answer></answer>", None),
    ("<answer> </answer>", None), ("<answer>1</answer><answer>2</answer>", None),
    ("<answer>1</answer><answer>1</answer>", None), ("<answer><answer>1</answer>", None),
    ("<answer>1</answer></answer>", None), ("</answer>1<answer>", None),
    ("<ANSWER>1</ANSWER>", None), ("<answer >1</answer>", None),
])
def test_there_is_one_answer_or_none(completion, text):
    assert extract_answer(completion) == text


@pytest.mark.parametrize("completion, fits", [
    ("<think>x</think><answer>1</answer>", True), ("<think></think><answer>1</answer>", True),
    ("<think>x</think>\n<answer>1</answer>\n", True), ("<think>x</think><answer></answer>", False),
    ("<answer>1</answer>", False), ("<think>x</think>", False), ("x<think>x</think><answer>1</answer>", False),
    ("<think>x</think><answer>1</answer>x", False), ("<think><think>x</think></think><answer>1</answer>", False),
    ("<think>x<answer>1</answer></think>", False), ("<answer>1</answer><think>x</think>", False), ("", False),
])
def test_the_format_is_one_think_block_and_one_answer_block(completion, fits):
    assert has_format(completion) is fits


# ---- the verifier

@pytest.mark.parametrize("text", ["3 * 3 + 5", "(3 * 3) + 5", "5 + 3 * 3", "5+3*3", "((5)+(3*3))", " 3 * 3\n+ 5 "])
def test_right_answers_are_right(text):
    assert TASK.verify(PROBLEM, answer(text)) is True


WRONG = {
    "another value": "3 * 5 - 3", "a number missing": "3 * 5 - 1", "numbers left out": "14",
    "a number reused": "3 * 3 + 5 + 3 - 3", "once where it is given twice": "5 + 9", "other numbers": "7 * 2",
    "digits glued": "35 - 3", "a stranger that adds nothing": "3 * 3 + 5 + 0",
    "a factor one": "3 * 3 * 1 + 5", "power": "3 ** 3 + 5 - 18", "a square": "3 ** 2 + 5", "floor division": "(3 * 3 // 1) + 5",
    "underscore": "3 * 3 + 0_5", "arabic digit": "3 * ٣ + 5", "fullwidth digits": "３ * ３ + ５", "superscript": "3² + 5",
    "unary plus": "+3 * 3 + 5", "unary minus": "3 * 3 - -5", "leading zero": "03 * 3 + 5", "float": "3.0 * 3 + 5",
    "call": "sum([3 * 3, 5])", "code": "__import__('os').system('true') or 14", "a comment": "3 * 3 + 5 # yes",
    "an equation": "3 * 3 + 5 = 14", "two expressions": "3 * 3 + 5, 14", "division by zero": "3 * 3 + 5 / (3 - 3)",
    "nul": "3 * 3 + 5\0", "surrogate": "3 * 3 + 5\udfff",
    "a tag inside": "<think>3 * 3 + 5</think>", "a tag behind": "3 * 3 + 5<answer>", "eos as text": "3 * 3 + 5<|eos|>",
    "many brackets": "(" * 5000 + "3 * 3 + 5" + ")" * 5000, "open brackets": "(" * 5000, "words": "fourteen", "nothing": "",
}


@pytest.mark.parametrize("text", WRONG.values(), ids=WRONG)
def test_hostile_answers_are_wrong(text):
    """Trap 19."""
    assert TASK.verify(PROBLEM, answer(text)) is False
    assert TASK.verify(PROBLEM, text) is False


def test_the_value_is_compared_exactly():
    """In floats 8 / (3 - 8 / 3) is not quite 24, and a judge that rounds takes 7 + 1 / 3 for 7."""
    assert TASK.verify(Problem("", 24, ("countdown", 3, 3, 8, 8, 24)), answer("8 / (3 - 8 / 3)"))
    assert not TASK.verify(Problem("", 7, ("countdown", 1, 3, 7, 7)), answer("7 + 1 / 3"))


RIGHT = answer("3 * 3 + 5")


@pytest.mark.parametrize("completion", [
    RIGHT + RIGHT, RIGHT + answer("1"), answer("1") + RIGHT, RIGHT + "<answer>", "</answer>" + RIGHT,
    "<answer>" + RIGHT + "</answer>", "</answer>3 * 3 + 5<answer>", "<think>3 * 3 + 5 = 14, found\n</think>", "3 * 3 + 5",
    PROBLEM.prompt, "", "\0", "\ud800",
], ids=lambda c: ascii(c)[:40])
def test_completions_without_exactly_one_right_answer_are_wrong(completion):
    """Two answers are none, even if both are right: otherwise listing guesses would pay."""
    assert TASK.verify(PROBLEM, completion) is False


def oracle(problem, completion):
    """The verifier a second time, by other means: Python's own parser behind a white list. For short texts."""
    other = "((?!</?answer>).)*"
    found = re.fullmatch(f"{other}<answer>(?P<text>{other})</answer>{other}", completion, re.DOTALL)
    text = found["text"].strip() if found else ""
    if not re.fullmatch(r"[-0-9+*/() \t\r\n]+", text):
        return False
    operators = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}
    numbers = []

    def value(node):
        if isinstance(node, ast.Constant):
            numbers.append(node.value)
            return Fraction(node.value)
        return operators[type(node.op)](value(node.left), value(node.right))  # KeyError, AttributeError: not on the list

    try:
        right = value(ast.parse(re.sub(r"\s", " ", text), mode="eval").body) == problem.answer
    except (SyntaxError, KeyError, AttributeError, ZeroDivisionError):
        return False
    return right and tuple(sorted(numbers)) == problem.key[1:-1]


def test_fuzzing_the_verifier_finds_no_crash_and_no_false_verdict():
    """Trap 19: 100,000 texts made of task tokens, of stray characters, and of right answers with a few edits."""
    rng = random.Random(seed())
    words = sorted(TASK.tokenizer.vocabulary, key=str)
    words = [w for w in words if not w.isdigit()] + ["3", "3", "5", "14", "<answer>", "</answer>"]
    stray = [*"0123456789+-*/() \n\t<>_.=,eE\0\x0b٣²３−\u00a0\ud800", "**", "//", "<|eos|>"]
    good = ["3 * 3 + 5", "(3 * 3) + 5", "5 + 3 * 3", "5 + (3 * 3)", "((3*3)+5)"]
    texts = []
    for i in range(100_000):
        if i % 4 == 0:
            texts.append("".join(rng.choices(words, k=rng.randrange(12))))
        elif i % 4 == 1:
            texts.append(answer("".join(rng.choices(stray, k=rng.randrange(12)))))
        else:
            pieces = list(answer(rng.choice(good)) if i % 4 == 2 else rng.choice(good))
            for _ in range(rng.randrange(4)):
                place = rng.randrange(len(pieces))
                pieces[place:place + rng.randrange(3)] = rng.choices(stray + ["3", "5", "(", ")"], k=rng.randrange(2))
            texts.append("".join(pieces) if i % 4 == 2 else answer("".join(pieces)))
    right = 0
    for text in texts:
        verdict = TASK.verify(PROBLEM, text)
        assert verdict is oracle(PROBLEM, text), ascii(text)
        right += verdict
        TASK.canonical_answer(text), TASK.describe(PROBLEM, text), has_format(text)  # must not raise either
    assert right > 5000  # the fuzz would prove little if nothing in it were right


@pytest.mark.parametrize("unit", ["(", "<answer>", "</answer>", "<think>", "3+", " ", "9", "\n", "failed\n", "<"])
def test_a_million_characters_are_judged_like_any_others(unit):
    """No recursion limit, no backtracking: a slow judge would be a hole too. (Seconds here would mean a quadratic cost.)"""
    long = unit * (1_000_000 // len(unit))
    for text in (long, answer(long), f"<think>{long}</think><answer>3</answer>", answer("3") + long):
        assert TASK.verify(PROBLEM, text) is False
        TASK.canonical_answer(text), has_format(text)


# ---- rewards

def judge(texts, finished, **weights):
    return rule_rewards(TASK, [PROBLEM] * len(texts), texts, finished, RewardConfig(**weights))


def test_the_reward_is_one_for_a_right_answer_and_zero_for_a_wrong_one():
    rewards, accuracy = judge([RIGHT, answer("3 + 5")], [True, True], accuracy_weight=1.0, format_weight=0.0)
    assert rewards.tolist() == accuracy.tolist() == [1, 0] and rewards.dtype == torch.float32


def test_running_out_of_tokens_is_a_failure():
    """The text is right and well formed, but the policy did not stop: no reward of either kind (trap 14's convention)."""
    rewards, accuracy = judge([RIGHT], [False], format_weight=1.0)
    assert rewards.tolist() == accuracy.tolist() == [0]


def test_format_and_accuracy_are_weighted_and_added():
    texts = [RIGHT, answer("3 + 5"), "<answer>3 * 3 + 5</answer>", ""]
    rewards, accuracy = judge(texts, [True] * 4, accuracy_weight=2.0, format_weight=0.5)
    assert rewards.tolist() == [2.5, 0.5, 2.0, 0.0] and accuracy.tolist() == [1, 0, 1, 0]


def test_each_completion_is_judged_by_its_own_problem():
    other = Problem("Use 1, 2, 3 to make 6.\n", 6, ("countdown", 1, 2, 3, 6))
    rewards, _ = rule_rewards(TASK, [PROBLEM, other], [RIGHT, RIGHT], [True, True], RewardConfig())
    assert rewards.tolist() == [1, 0]


def test_batches_that_do_not_fit_together_are_an_error():
    with pytest.raises(ValueError):
        rule_rewards(SimpleNamespace(verify=lambda *_: True), [PROBLEM], ["", ""], [True, True], RewardConfig())


@pytest.mark.parametrize("task, problem, true, false", [
    ("countdown", Problem("Use 3, 5, 7 to make 22.\n", 22, ("countdown", 3, 5, 7, 22)),
     "<think>5 * 3 = 15, 15 + 7 = 22, found\n</think><answer>(5 * 3) + 7</answer>",
     "<think>5 * 3 = 16, 16 + 7 = 22, found\n</think><answer>(5 * 3) + 7</answer>"),
    ("iterated_squaring", Problem("Square 5, 2 times mod 983.\n", "625", ("iterated_squaring", 983, 5, 2)),
     "<think>25, 625, </think><answer>625</answer>", "<think>26, 625, </think><answer>625</answer>")])
def test_a_false_step_has_its_price_and_the_accuracy_stays_what_it_is(task, problem, true, false):
    """The dense reward: also of a completion that was cut off."""
    task, config = tasks.load(task), RewardConfig(step_penalty=0.25)
    rewards, accuracy = rule_rewards(task, [problem] * 4, [true, false, false, "<think></think>"], [True, True, False, True], config)
    assert accuracy.tolist() == [1, 1, 0, 0] and rewards.tolist() == [1, 0.75, -0.25, 0]
