"""experiments/longer_or_larger.py: more room for the same weights, operations, and the whole of it with runs of a second."""
import pytest
import torch

from test_experiments import experiment, tiny  # noqa: F401, fixtures
from toys import seeded, tiny_gpt


@pytest.fixture
def module(experiment):  # noqa: F811
    return experiment("longer_or_larger")


def test_more_room_changes_nothing_of_what_a_model_says(module):
    model = tiny_gpt(12, 24)
    tokens = torch.randint(12, (3, 24), generator=seeded())
    other = module.longer(model, 40)
    assert other.config.block_size == 40
    torch.testing.assert_close(other(tokens), model(tokens))


def test_an_operation_is_two_for_each_parameter_and_token_that_is_read_or_written(module):
    assert module.operations({"parameters": 1_000_000, "prompt": 10}, {"tokens": 40.0}) == 100


def test_an_attempt_on_four_numbers_is_as_long_as_the_budgets_say(module):
    """Whatever the numbers are: every number up to 99 is one token."""
    import random
    import tasks
    task = tasks.load("countdown", numbers=4, max_number=6, attempts=2)
    for number in range(20):
        rng = random.Random(number)
        text = task.demonstration(task.sample_problem(rng), rng)
        thinking = task.tokenizer.encode(text.split("</think>")[0])
        assert (len(thinking) - 1) % module.ATTEMPT == 0
        assert len(task.tokenizer.encode(text)) + 1 - len(thinking) < module.FRAME


def test_the_experiment_from_end_to_end(tiny, module, monkeypatch):  # noqa: F811
    monkeypatch.setattr(module, "SMALL", ["--cot", "on"])
    monkeypatch.setattr(module, "LARGE", ["--cot", "on", "--n-embd", 64])
    text, panels = tiny("longer_or_larger", {"seeds": (0,), "sizes": ("small", "large"), "attempts": (1, 2), "problems": 3, "samples": 1})
    ways = [line.split(" | ")[1] for line in text.splitlines() if line.startswith(("| small", "| large"))]
    assert ways == ["free", "1, may stop", "2, may stop", "1, must go on", "2, must go on"] * 2
    assert [list(panel["curves"]) for panel in panels] == [["small", "large"]] * 2
