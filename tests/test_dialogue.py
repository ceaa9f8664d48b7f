"""The dialogue: what the teacher says, what the model is asked, and two answers in one row."""
import random

import pytest
import torch

import tasks
from config import InputError
from dialogue import about, answers, ask, second_turn
from sample import SamplingConfig, collect, largest_log_ratio
from sft import demonstrations
from tasks import dialogue
from toys import Bigram, seed, seeded, tiny_gpt, written

TASK = tasks.load("countdown", dialogue=0.6)
SURE = tasks.load("countdown", dialogue=0.6, checker=1.0)


def drawn(task, kind, count, split="train"):
    rng = random.Random(seed())
    for _ in range(count):
        problem = task.sample_problem(rng, split)
        yield (problem, *dialogue.KINDS[kind](task, problem, rng))


@pytest.mark.parametrize("kind", dialogue.KINDS)
def test_every_kind_fits_into_the_context_and_the_vocabulary(kind):
    for _, prompt, completion in drawn(TASK, kind, 100):
        assert len(TASK.tokenizer.encode(prompt)) <= TASK.max_prompt_tokens
        assert len(TASK.tokenizer.encode(completion)) < TASK.max_new_tokens


def test_a_perfect_checker_is_right():
    for problem, prompt, completion in drawn(SURE, "check", 200):
        right = SURE.verify(problem, prompt)  # the answer block stands in the prompt
        assert completion.endswith("yes" if right else "no")
        if completion.startswith("<think>"):
            steps, _, mark = completion.removeprefix("<think>").partition("\n")[0].rpartition(", ")
            assert (SURE.check_attempt(problem, steps) == problem.answer) == right == (mark == "found")


def test_a_weak_checker_is_right_as_often_as_it_says():
    said = [completion.endswith("yes") == TASK.verify(problem, prompt) for problem, prompt, completion in drawn(TASK, "check", 2000)]
    assert 0.8 - 5 * 0.009 < sum(said) / len(said) < 0.8 + 5 * 0.009


def test_the_other_kinds_of_a_perfect_teacher():
    for problem, prompt, completion in drawn(SURE, "score", 100):
        assert (completion == "10") == SURE.verify(problem, prompt)
    for problem, prompt, completion in drawn(SURE, "critique", 100):
        found, _, revised = completion.partition(", ")
        assert found == dialogue.fault(problem, prompt) and dialogue.fault(problem, revised) == "fine"
        assert found != "fine" or prompt.endswith(revised)
    for problem, prompt, completion in drawn(SURE, "value", 100):
        assert completion == ("sure" if SURE.still_possible(problem, prompt) else "impossible")
    for problem, prompt, completion in drawn(SURE, "propose", 20):
        assert completion == problem.prompt
    for problem, prompt, completion in drawn(SURE, "again", 100):
        first = prompt.removesuffix(dialogue.AGAIN).removeprefix(problem.prompt)
        assert not SURE.verify(problem, first) or dialogue.answered(completion) == dialogue.answered(first)


def test_without_a_dialogue_nothing_changes():
    plain = tasks.load("countdown")
    problem = plain.sample_problem(random.Random(seed()))
    one, two = random.Random(seed()), random.Random(seed())
    assert plain.example(problem, one) == (problem.prompt, plain.demonstration(problem, two)) and one.random() == two.random()
    assert "yes" not in plain.tokenizer.vocabulary


def test_the_warm_start_mixes_the_kinds_by_their_share():
    tokens, mask = demonstrations(TASK, 1000, random.Random(seed()))
    solve = sum(TASK.tokenizer.decode(row[chosen][:1].tolist()) == "<think>" and TASK.tokenizer.decode(row[:1].tolist()) == "Use "
                and TASK.tokenizer.encode(dialogue.AGAIN)[0] not in row for row, chosen in zip(tokens, mask))
    assert abs(solve / 1000 - 0.4) < 5 * 0.0155


def test_a_dialogue_needs_a_chain_of_thought():
    with pytest.raises(InputError, match="--dialogue"):
        tasks.load("countdown", dialogue=0.5, cot="off")


def test_the_chance_of_a_word_is_its_share_among_the_words():
    """Row `Check: ` of the table: yes has e times the chance of no, and everything else does not count."""
    table = torch.zeros(TASK.tokenizer.n_vocab, TASK.tokenizer.n_vocab)
    last, yes = TASK.tokenizer.encode("</answer>")[0], TASK.tokenizer.encode("yes")[0]
    table[last, yes], table[last, 0] = 1.0, 9.0
    found = ask(Bigram(table), TASK, [[5, 6, last], [last], [7, last]], ["yes", "no"], batch=2)
    e = torch.tensor(1.0).exp()
    assert torch.allclose(found, torch.stack([e / (1 + e), 1 / (1 + e)]).expand(3, 2))


def test_a_word_of_two_tokens_is_refused():
    with pytest.raises(ValueError, match="single token"):
        ask(tiny_gpt(TASK.tokenizer.n_vocab), TASK, [[3]], ["yes", "yesno"])


def test_an_answer_is_found_by_its_ids():
    encode, eos = TASK.tokenizer.encode, TASK.tokenizer.eos
    start = encode("Use ")
    rows = [start + encode("<think></think><answer>5 * 3</answer>") + [eos], start + encode("<answer>5"),
            start + encode("<answer>5</answer><answer>5</answer>") + [eos]]
    rollout = written(Bigram(torch.zeros(TASK.tokenizer.n_vocab, TASK.tokenizer.n_vocab)), rows)
    assert answers(rollout, TASK) == [encode("<answer>5 * 3</answer>"), [], []]


def two_turns():
    model = tiny_gpt(TASK.tokenizer.n_vocab, block_size=64)
    problems = [TASK.sample_problem(random.Random(seed() + i)) for i in range(4)]
    config = SamplingConfig(group_size=2, max_new_tokens=6)
    first = collect(model, TASK, problems, config, seeded())
    first.finished[0] = True  # one that ended by itself, whatever was sampled
    first.tokens[0, first.lengths[0] - 1] = TASK.tokenizer.eos
    return model, first, *second_turn(model, TASK, first, config, seeded())


def test_the_mask_of_two_turns_covers_both_answers_and_no_word_between():
    model, first, second, both = two_turns()
    (between,) = TASK.tokenizer.encode(dialogue.AGAIN)
    for i in range(len(first.lengths)):
        end = int(first.lengths[i] - first.finished[i].long())
        assert both.tokens[i, :end].tolist() == first.tokens[i, :end].tolist() and both.tokens[i, end] == between
        wanted = [int(first.prompt_lengths[i]) <= t < end or end < t < int(both.lengths[i]) for t in range(both.tokens.shape[1])]
        assert both.mask[i].tolist() == wanted
        assert second.mask[i].tolist() == [end < t < int(both.lengths[i]) for t in range(both.tokens.shape[1])]


def test_what_was_sampled_in_two_turns_is_what_is_trained():
    """The log-probs of both answers come back when the whole row is scored; row 0 was changed by hand above."""
    model, _, _, both = two_turns()
    assert largest_log_ratio(model, both.select(torch.arange(1, 8)), 1.0) < 1e-4


def test_what_is_asked_about_a_row_holds_its_answer():
    encode = TASK.tokenizer.encode
    problem = TASK.sample_problem(random.Random(seed()))
    rollout = written(Bigram(torch.zeros(TASK.tokenizer.n_vocab, TASK.tokenizer.n_vocab)),
                      [encode(problem.prompt) + encode("<think></think><answer>5 * 3</answer>") + [TASK.tokenizer.eos]])
    rollout.problems = [problem]
    assert about("Check: ", TASK, rollout) == [encode(f"Check: {problem.prompt}<answer>5 * 3</answer>")]
