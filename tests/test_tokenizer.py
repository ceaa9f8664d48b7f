"""The tokenizer: nothing is dropped, nothing is split, nothing is guessed."""
import random

import pytest

import tasks
from tasks.tokenizer import EOS, PAD, Tokenizer
from toys import seed

TASKS = [tasks.load(name) for name in tasks.names()]


@pytest.mark.parametrize("task", TASKS, ids=tasks.names())
def test_prompts_and_demonstrations_come_back_as_they_were(task):
    rng = random.Random(seed())
    for _ in range(200):
        problem = task.sample_problem(rng)
        for text in (problem.prompt, task.demonstration(problem, rng)):
            assert task.tokenizer.decode(task.tokenizer.encode(text)) == text


@pytest.mark.parametrize("task", TASKS, ids=tasks.names())
def test_every_word_of_the_vocabulary_is_one_token(task):
    ids = [task.tokenizer.encode(word) for word in task.tokenizer.vocabulary]
    assert all(len(i) == 1 for i in ids) and len({i[0] for i in ids}) == len(ids)


@pytest.mark.parametrize("task", TASKS, ids=tasks.names())
def test_every_id_a_model_can_choose_can_be_decoded(task):
    assert all(task.tokenizer.decode([i]) for i in range(task.tokenizer.n_vocab))


@pytest.mark.parametrize("task", TASKS, ids=tasks.names())
def test_pad_and_eos_are_two_tokens(task):
    """Trap 3: with EOS as padding, masking the padding would mask the end too."""
    assert task.tokenizer.pad != task.tokenizer.eos


@pytest.mark.parametrize("task", TASKS, ids=tasks.names())
def test_the_step_token_is_one_token(task):
    assert len(task.tokenizer.encode(task.step_token)) == 1


@pytest.fixture
def toy():
    return Tokenizer("toy", [" + ", " = ", ", ", "1", "2", "12", "13"])


@pytest.mark.parametrize("text, piece", [("1 + 3", "'3'"), ("12x", "'x'"), ("1  + 2", "' '"), ("1\n", r"'\n'"), ("é", "'é'"),
                                         ("\ud800", r"'\ud800'"), ("1\0", r"'\x00'")])
def test_text_outside_of_the_vocabulary_is_refused_by_name(toy, text, piece):
    """Left to itself tiktoken panics on some of these and silently drops others."""
    with pytest.raises(ValueError) as error:
        toy.encode(text)
    assert piece in str(error.value) and "toy" in str(error.value)


def test_a_long_number_is_not_cut_into_known_ones(toy):
    with pytest.raises(ValueError, match="'1213'"):
        toy.encode("1213")


@pytest.mark.parametrize("text", [PAD, EOS])
def test_special_tokens_cannot_be_typed(toy, text):
    with pytest.raises(ValueError):
        toy.encode(text)


def test_decoding_forgets_where_tokens_end(toy):
    """Trap 32, the fact behind it: two different lists of ids, one text. Hence ids are passed on, never text."""
    one, two, twelve = (toy.encode(text)[0] for text in ("1", "2", "12"))
    assert toy.decode([one, two]) == toy.decode([twelve]) == "12"
    assert toy.encode("12") == [twelve]
