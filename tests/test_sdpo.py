"""SDPO: who teaches whom, what the teacher has read, and what is trained."""
import copy

import pytest
import torch

from methods.sdpo import SDPO, SDPOConfig, siblings
from sample import score
from toys import eight, seeded, tiny_gpt

RIGHT = torch.tensor([True, False, True, False, False, True, False, False])


def make(policy, right=RIGHT, **settings):
    """One step on everything that has a teacher; who is right is dealt out."""
    defaults = {"group_size": 4, "max_new_tokens": 12, "mini_batches": 1, "micro_batch": 64, "max_grad_norm": 1e9}
    algorithm, rollout = SDPO(policy, None, SDPOConfig(**(defaults | settings)), seeded()), eight(policy)
    rollout.right = lambda task: right
    return algorithm, rollout


def test_nobody_teaches_himself():
    """Rows 0 and 2 are right, and show each other; row 5 is the only right one of its group, and has no teacher."""
    assert siblings(RIGHT, 4) == [2, 2, 0, 0, 5, None, 5, 5]


def test_the_teacher_has_read_the_sibling():
    """Its log-probs are those of one long row, prompt, sibling, prompt, sample, read by hand; a row without a sibling has none."""
    algorithm, rollout = make(tiny_gpt(vocab_size=6))
    found = algorithm.teach(rollout, [1, 4], [2, 5])
    for i, j in ((1, 2), (4, 5)):
        context, own = rollout.tokens[j, :rollout.lengths[j]], rollout.tokens[i, :rollout.lengths[i]]
        by_hand = score(algorithm.teacher, torch.cat((context, own))[None])[0][0, len(context):]
        torch.testing.assert_close(found[i, :len(own)], by_hand, atol=1e-5, rtol=1e-4)
    assert not found[[0, 2, 3, 5, 6, 7]].any()
    assert not torch.allclose(found[1], score(algorithm.policy, rollout.tokens)[0][1], atol=1e-2)


def test_the_teacher_has_room_for_two_solutions():
    """Twice the longest row, also where the policy's own context is full; alone it says what the policy says."""
    algorithm, rollout = make(tiny_gpt(vocab_size=6, block_size=14))
    assert rollout.tokens.shape[1] == 14 and algorithm.teach(rollout, [3, 2], [3, 3]).any()
    torch.testing.assert_close(score(algorithm.teacher, rollout.tokens)[0], score(algorithm.policy, rollout.tokens)[0])


def test_the_gradient_is_that_of_the_rows_with_a_sibling():
    """At a ratio of 1: minus the mean of A_t grad log pi over their tokens. Row 5 has none."""
    algorithm, rollout = make(tiny_gpt(vocab_size=6))
    algorithm.optimizer.step = lambda **_: 0.0
    rows = [0, 1, 2, 3, 4, 6, 7]
    A = algorithm.teach(rollout, rows, [j for j in siblings(RIGHT, 4) if j is not None]) - rollout.logprobs
    metrics = algorithm.update(rollout, None)
    mask = rollout.mask[rows]
    loss = -(score(algorithm.policy, rollout.tokens[rows])[0] * A[rows] * mask).sum() / mask.sum()
    for p, exact in zip(algorithm.policy.parameters(), torch.autograd.grad(loss, list(algorithm.policy.parameters()))):
        torch.testing.assert_close(p.grad, exact, atol=1e-6, rtol=1e-3)
    assert metrics["taught"] == 7 and metrics["updates"] == 1
    wrong = rollout.mask & torch.tensor([i in (1, 3, 4, 6, 7) for i in range(8)])[:, None]
    assert metrics["teacher_wrong"] == pytest.approx(float(A[wrong].mean()), abs=1e-5)


def test_where_nobody_is_right_nobody_learns():
    algorithm, rollout = make(tiny_gpt(vocab_size=6), torch.zeros(8).bool())
    before = copy.deepcopy(algorithm.policy.state_dict())
    assert algorithm.update(rollout, None) == {"taught": 0, "updates": 0}
    assert all(torch.equal(w, before[name]) for name, w in algorithm.policy.state_dict().items())


def test_the_teacher_follows_slowly():
    """A quarter of the way from where it was to where the policy is after the step."""
    algorithm, rollout = make(tiny_gpt(vocab_size=6), teacher_rate=0.25, lr=0.01)
    start = algorithm.teacher.embed.weight.clone()
    algorithm.update(rollout, None)
    now = algorithm.policy.embed.weight.detach()
    assert not torch.equal(now, start)
    torch.testing.assert_close(algorithm.teacher.embed.weight, 0.75 * start + 0.25 * now)
