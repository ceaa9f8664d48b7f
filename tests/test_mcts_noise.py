"""experiments/mcts_noise.py: a judge with known mistakes, equal tokens, and the whole of it with runs of a second."""
import pytest

import tasks
from search_context import SearchContext
from test_experiments import experiment, tiny  # noqa: F401, fixtures
from toys import seed, tiny_gpt


@pytest.fixture
def module(experiment):  # noqa: F811
    return experiment("mcts_noise")


def context_of():
    """Four numbers up to 6, the problem 1, 2, 3, 4 -> 24, and a model that nobody asks."""
    task = tasks.load("countdown", numbers=4, max_number=6, attempts=2)
    return SearchContext(tiny_gpt(task.tokenizer.n_vocab, task.max_prompt_tokens + task.max_new_tokens), task, [task.problem([1, 2, 3, 4], 24)])


def rows_of(context, *texts, ended=False):
    return [context.prompts[0] + context.task.tokenizer.encode(text) + [context.eos] * ended for text in texts]


STEPS = ("<think>4 * 3 = 12, ", "<think>4 * 3 = 12, 12 * 2 = 24, ", "<think>4 * 3 = 13, ", "<think>2 - 1 = 1, 1 * 3 = 3, 4 - 3 = 1, ")


def test_without_mistakes_the_judge_says_what_is_true(module):
    """12 and 24 can still become 24; a false step cannot, nor can an attempt that ended at 1. Of a whole solution the answer counts."""
    context = context_of()
    judge = module.noisy(context, 0.0, seed())
    assert judge([0] * 4, rows_of(context, *STEPS)) == [1.0, 1.0, 0.0, 0.0]
    whole = rows_of(context, "<think></think><answer>((4 * 3) * 2) * 1</answer>", "<think></think><answer>((4 * 3) * 2) - 1</answer>", ended=True)
    assert judge([0, 0], whole) == [1.0, 0.0]


def test_a_judge_makes_as_many_mistakes_as_it_is_told_and_the_same_ones_again(module):
    context, f, n = context_of(), 0.3, 2000
    rows = [context.prompts[0] + context.task.tokenizer.encode(STEPS[0]) + [5 + i % 40] * (1 + i // 40) for i in range(n)]
    truth, judge = module.noisy(context, 0.0, seed())([0] * n, rows), module.noisy(context, f, seed())
    said = judge([0] * n, rows)
    assert said == judge([0] * n, rows)
    wrong = sum(s != t for s, t in zip(said, truth)) / n
    assert wrong == pytest.approx(f, abs=5 * (f * (1 - f) / n) ** 0.5)


def test_a_judge_is_measured_at_the_ends_of_steps(module):
    """"4 * 3 = 12" and "12 * 2 = 24" are good and the last step, 24 - 1, is not. Who prefers the longest is always wrong, who likes all the
    same knows nothing, and the truth turned round orders them the wrong way."""
    context = context_of()
    row = rows_of(context, "<think>4 * 3 = 12, 12 * 2 = 24, 24 - 1 = 23, failed\n</think><answer>1</answer>", ended=True)
    measure = lambda judge: module.auc_of_steps(context, judge, [0], row)
    assert measure(lambda problem_index, rows: list(map(float, map(len, rows)))) == 0.0
    assert measure(lambda problem_index, rows: [0.9] * len(rows)) == 0.5
    assert [measure(module.noisy(context, f, seed())) for f in (0.0, 1.0)] == [1.0, 0.0]


def test_a_curve_is_read_at_any_number_of_tokens(module):
    curve = [[10, 0.1, 0.5], [20, 0.3, 0.7]]
    assert [module.at_tokens(curve, tokens, 1) for tokens in (5, 10, 12, 20, 30)] == pytest.approx([0.1, 0.1, 0.14, 0.3, 0.3])
    assert module.at_tokens(curve, 15, 2) == pytest.approx(0.6)


def test_the_experiment_from_end_to_end(tiny, module, monkeypatch):  # noqa: F811
    monkeypatch.setattr(module, "SMALL", ["--cot", "on"])
    text, panels = tiny("mcts_noise", {"seeds": (0,), "problems": 3, "flips": ("0", "0.5"), "budgets": (30,), "prm": 1})
    names = [line.split(" | ")[0] for line in text.splitlines() if line.startswith("| ")]
    assert names == ["| the judge chooses", "| f = 0", "| f = 0.5", "| learned", "| the rule chooses", "| f = 0", "| f = 0.5", "| learned"]
    assert [set(panel["curves"]) for panel in panels] == [{"MCTS, 30", "best of n, 30"}] * 2
