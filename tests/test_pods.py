"""PODS: which samples of a group are trained on, and what they get."""
import itertools

import pytest
import torch

from config import InputError
from methods.pods import PODS, PODSConfig, max_variance
from toys import eight, seeded, tiny_gpt


def make(policy, **settings):
    defaults = {"group_size": 4, "max_new_tokens": 12, "micro_batch": 64, "max_grad_norm": 1e9, "lr": 0.01, "train_rows": 2}
    return PODS(policy, None, PODSConfig(**(defaults | settings)), seeded())


@pytest.mark.parametrize("m", [2, 3, 5, 6])
def test_no_other_choice_has_more_variance(m):
    """Against all subsets, for rewards of any kind."""
    rewards = torch.rand(3 * 6, generator=seeded()).round(decimals=1)
    chosen = max_variance(rewards, 6, m).view(3, 6)
    for group, taken in zip(rewards.view(3, 6), chosen):
        most = max(group[list(rows)].var(correction=0) for rows in itertools.combinations(range(6), m))
        assert taken.sum() == m and group[taken].var(correction=0) == pytest.approx(float(most), abs=1e-6)


def test_of_one_right_sample_the_right_one_stays():
    assert max_variance(torch.tensor([0.0, 0, 0, 0, 0, 0, 1, 0]), 8, 4).int().tolist() == [1, 1, 1, 0, 0, 0, 1, 0]


def test_a_group_that_agrees_teaches_nothing():
    policy = tiny_gpt(vocab_size=6)
    assert make(policy).compare(torch.tensor([0.1] * 4 + [1.0] * 4)).tolist() == [0.0] * 8
    assert make(policy).update(eight(policy), torch.zeros(8))["updates"] == 0


def test_advantages_are_normalised_within_the_chosen_and_weighed_for_those_left_out():
    """Two of four: -1 and 1, times 4 / 2."""
    assert make(tiny_gpt(vocab_size=6)).compare(torch.tensor([0.0, 0, 0, 1, 1, 0, 1, 1])).tolist() == [-2, 0, 0, 2, 2, -2, 0, 0]


def test_with_all_rows_it_is_grpo():
    rewards = torch.rand(8, generator=seeded())
    method = make(tiny_gpt(vocab_size=6), train_rows=4)
    assert torch.allclose(method.compare(rewards), super(PODS, method).compare(rewards))


def test_only_the_chosen_rows_are_read():
    policy = tiny_gpt(vocab_size=6)
    method, seen = make(policy), []
    learner = method.learner
    def watched(rollout, advantages):
        made = learner(rollout, advantages)
        loss = made.loss
        made.loss = lambda part: (seen.extend(part.rows.tolist()), loss(part))[1]
        return made
    method.learner = watched
    method.update(eight(policy), torch.tensor([0.0, 0, 0, 1, 1, 0, 1, 1]))
    assert sorted(seen) == [0, 3, 4, 5]


def test_more_rows_than_samples_are_refused():
    with pytest.raises(InputError, match="--train-rows 5: must be at most --group-size 4"):
        make(tiny_gpt(vocab_size=6), train_rows=5)
