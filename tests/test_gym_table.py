"""examples/gym_table.py, without reasoning-gym: what counts as agreed on."""
import pytest

from examples.gym_table import KINDS, kind, our_rule, table


def entries(*answers):
    return [{"answer": answer} for answer in answers]


def exact(text, entry):
    return 1.0 if text == entry["answer"] else 0.3


@pytest.mark.parametrize("answers, score, expected", [
    (("4", "7"), exact, 0),
    (("4", "4"), exact, 0),
    (("cyan", "son"), exact, 0),
    (("4", None), exact, 2),
    (("a <answer> b", "c"), exact, 1),      # our rule cannot read it
    ((" a", "b"), exact, 1),                # it strips what they do not
    (("2/4", "1/2"), exact, 1),             # equal in value, not as texts
    (("4", "7"), lambda text, entry: 1.0, 1)])
def test_a_task_is_agreed_on_if_both_judge_every_answer_alike(answers, score, expected):
    assert kind(entries(*answers), score) == KINDS[expected]


def test_a_number_counts_by_its_value_and_a_word_as_it_stands():
    assert our_rule("-3", "<answer>-3</answer>") and not our_rule("3", "<answer>-3</answer>")
    assert our_rule("3", "<think></think><answer>1 + 2</answer>") and not our_rule("True", "<answer>true</answer>")


def test_the_table_counts_and_names():
    made = table({"a": (False, KINDS[0]), "b": (True, KINDS[0]), "c": (True, KINDS[1]), "d": (None, KINDS[3])})
    assert "| equality | 1 | 0 | 0 | 0 |" in made and "| a program of its own | 1 | 1 | 0 | 0 |" in made
    assert "| unknown | 0 | 0 | 0 | 1 |" in made and "Agreed on, equality: a." in made and "own: b." in made
