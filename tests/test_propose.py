"""Proposer and solver: what a proposal is worth, which proposals are solved at all, and what is learned from them."""
import random

import pytest
import torch

import tasks
from config import InputError
from methods.propose import Propose, ProposeConfig, proposer_rewards, readable
from tasks import split_of
from toys import Bigram, chain, seed, seeded, tiny_gpt, written

TASK = tasks.load("countdown", numbers=2, dialogue=0.6)
ENCODE, EOS, V = TASK.tokenizer.encode, TASK.tokenizer.eos, TASK.tokenizer.n_vocab
PROPOSE = ENCODE("Propose.\n")


def of_split(split):
    """A problem of a split whose prompt has no token twice: a Bigram can be certain of it."""
    rng = random.Random(seed())
    while True:
        problem = TASK.sample_problem(rng, split)
        if len(set(ENCODE(problem.prompt))) == len(ENCODE(problem.prompt)):
            return problem


def make(policy, **settings):
    defaults = {"prompts": 3, "group_size": 2, "lr": 0.01, "micro_batch": 64, "max_grad_norm": 1e9, "max_new_tokens": 12}
    return Propose(policy, TASK, ProposeConfig(**(defaults | settings)), seeded())


def proposes(problem):
    """A policy that always proposes this problem, and answers nothing."""
    return chain(V, *PROPOSE, *ENCODE(problem.prompt), EOS)


# ---- which proposals count

def test_of_val_and_test_nothing_is_trained_on():
    assert [readable(TASK, ENCODE(of_split(split).prompt)) is not None for split in tasks.SPLITS] == [True, False, False]


def test_a_proposal_is_a_whole_prompt_of_the_tasks_sizes():
    train = lambda key: split_of(key) == "train"
    good = next(p for p in (TASK.problem((a, 2), 9) for a in range(3, 13)) if train(p.key))
    big = next(p for p in (TASK.problem((a, 2), 9) for a in range(14, 99)) if train(p.key))
    long = next(p for p in (TASK.problem((a, 2, 3), 9) for a in range(3, 13)) if train(p.key))
    assert readable(TASK, ENCODE(good.prompt)) == good
    for text in (good.prompt + good.prompt, good.prompt[:-2], "", "Propose.\n", "Use  to make 9.\n", "Use 3, 5 to make .\n", big.prompt, long.prompt):
        assert readable(TASK, ENCODE(text)) is None


def test_two_digits_are_not_a_number():
    """Trap 32: `1`, `2` decodes to 12, and is another text than the token 12."""
    use, end = ENCODE("Use 3, "), ENCODE(" to make 9.\n")
    whole, cut = use + ENCODE("12") + end, use + ENCODE("1") + ENCODE("2") + end
    assert TASK.tokenizer.decode(whole) == TASK.tokenizer.decode(cut) and readable(TASK, cut) is None


def test_what_is_proposed_is_what_is_solved():
    problem = of_split("train")
    method = make(proposes(problem))
    rollout = method.collect([of_split("val")] * 3)
    assert rollout.problems == [problem] * 6 and rollout.discarded == 3 * (len(ENCODE(problem.prompt)) + 1)


def test_where_nothing_can_be_solved_the_tasks_own_problems_are():
    given = [of_split("train")] * 3
    method = make(proposes(of_split("test")))
    assert method.collect(given).problems == [p for p in given for _ in range(2)] and method.proposed == [None] * 3


# ---- what they earn

def test_a_problem_that_nobody_solves_and_one_that_everybody_solves_earn_nothing():
    for kind in ("zero", "half"):
        assert proposer_rewards([0.0, 1.0, None], "abc", kind) == [0, 0, 0]
    assert proposer_rewards([0.125, 0.5, 0.75], "abc", "zero") == [0.875, 0.5, 0.25]
    assert proposer_rewards([0.125, 0.5, 0.75], "abc", "half") == [0.125, 0.5, 0.25]


def test_repeating_oneself_costs_by_how_often_and_never_more_than_was_earned():
    assert proposer_rewards([0.5] * 4, "aaab", repetition=0.5) == [0.25, 0.25, 0.25, 0.5]
    assert proposer_rewards([0.5] * 4, "aaaa", repetition=1.0) == [0, 0, 0, 0]


# ---- what is learned

def one_update(success, **settings):
    """Two proposals, `Use 3 ...` and `Use 4 ...`, and two answers to each of them, all the same; success: how many of these are right,
    by a rule that is set. -> how far the log-probs of 3 and of 4 behind "Use " have moved; metrics."""
    policy = Bigram(torch.zeros(V, V))
    method = make(policy, prompts=2, **settings)
    method.proposed = problems = [TASK.problem((3, 5), 8), TASK.problem((4, 5), 9)]
    method.proposals = written(policy, [PROPOSE + ENCODE(problem.prompt) + [EOS] for problem in problems])
    twice = [p for p in problems for _ in range(2)]
    rollout = written(policy, [ENCODE(p.prompt) + ENCODE("<think></think><answer>5") + [EOS] for p in twice],
                      [len(ENCODE(p.prompt)) for p in twice])
    rollout.problems = twice
    right = torch.tensor([k < count for count in success for k in range(2)])
    rollout.right = lambda task: right
    look = lambda: policy.table.detach()[ENCODE("Use ")[0]].log_softmax(-1)[[ENCODE("3")[0], ENCODE("4")[0]]]
    before = look()
    metrics = method.update(rollout, right.float())
    return (look() - before).tolist(), metrics


@pytest.mark.parametrize("flag", ["dynamic_sampling", "renew_reference"])
def test_what_a_batch_with_proposals_cannot_do_is_refused(flag):
    with pytest.raises(InputError, match="--dynamic-sampling"):
        make(Bigram(torch.zeros(V, V)), **{flag: 1})


@pytest.mark.parametrize("settings", [{"baseline": "one"}, {"std": False}, {"overlong": 0.9}, {"top_entropy": 0.2}])
def test_the_settings_of_grpo_are_heeded(settings):
    """The solver's advantages differ from those without the setting."""
    found = []
    for each in ({}, settings):
        method = make(tiny_gpt(V, block_size=64), prompts=2, **each)
        problem = of_split("train")
        method.proposed, rows = [problem] * 2, [ENCODE(problem.prompt) + ENCODE("<think></think><answer>5") * k + [EOS] for k in (1, 2, 1, 2)]
        method.proposals = written(method.policy, [PROPOSE + ENCODE(problem.prompt) + [EOS]] * 2)
        rollout = written(method.policy, rows, len(ENCODE(problem.prompt)))
        rollout.problems, rollout.right = [problem] * 4, lambda task: torch.tensor([True, False, False, False])
        method.update(rollout, torch.tensor([1.0, 0.0, 0.0, 0.0]))
        found.append(method.seen["advantages"])
    assert not torch.equal(*found)


def test_the_proposal_that_is_sometimes_solved_becomes_likelier():
    """s = 1/2 earns 1/2, s = 1 nothing: A = 1 and -1."""
    (three, four), metrics = one_update([1, 2])
    assert three > 0 > four and metrics["updates"] == 1
    assert metrics["propose_reward"] == 0.25 and metrics["valid"] == metrics["distinct"] == 1


def test_proposals_that_earn_the_same_are_nothing_to_learn_from():
    for success in ([2, 0], [1, 1]):
        moved, _ = one_update(success)
        assert moved == [0, 0]


def test_a_proposer_of_weight_zero_learns_nothing():
    assert one_update([1, 2], proposer_weight=0.0)[0] == [0, 0]


def test_a_task_without_a_dialogue_is_refused():
    with pytest.raises(InputError, match="--dialogue"):
        Propose(tiny_gpt(), tasks.load("countdown"), ProposeConfig())
