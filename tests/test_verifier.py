"""Learned verifiers: labels against a policy whose chances are known, losses by hand, and a policy that stays as it is."""
import copy
import math
import random

import pytest
import torch

import checkpoint
import tasks
import verifier
from config import InputError
from model import GPT, GPTConfig, ScalarModel
from toys import COMMA, EOS, ONE, THREE, TWO, Sums, coins, seed, seeded, tiny_gpt, writes, written
from verifier import Verifier, VerifierConfig, auc, verifier_loss, label_steps, rank_correlation, rollout_values, scores_at, step_ends

TASK = Sums()
PROBLEM = TASK.problem(3)
PROMPT = TASK.tokenizer.encode(PROBLEM.prompt)  # two tokens: 3, Go


def wrote(*rows):
    """A rollout of just these completions, lists of ids, for the answer 3. What does not end in EOS was cut off."""
    rollout = written(coins(), [PROMPT + row for row in rows], prompt_length=2)
    rollout.problems = [PROBLEM] * len(rows)
    return rollout


# ---- steps

def test_a_step_ends_at_its_token_and_a_row_at_its_last_one():
    """Whether it ended by itself or not; a row that was cut off right behind a step has no further end."""
    ends = step_ends(wrote([ONE, COMMA, TWO, EOS], [ONE, TWO], [ONE, COMMA]), TASK)
    assert ends.nonzero().tolist() == [[0, 3], [0, 5], [1, 3], [2, 3]]


def test_a_comma_in_the_prompt_or_behind_the_end_ends_no_step():
    rollout = wrote([ONE, COMMA, TWO, EOS], [ONE, EOS])
    rollout.tokens[:, 0] = rollout.tokens[1, 4:] = COMMA
    assert step_ends(rollout, TASK).nonzero().tolist() == [[0, 3], [0, 5], [1, 3]]


# ---- Monte-Carlo labels

def test_labels_estimate_the_chance_to_end_right():
    """toys.coins: after "1, " two are left, V(2) = 5/16; after "2, " V(1) = 1/4; after "2, 2, " all is lost."""
    rollout = wrote([ONE, COMMA, TWO, EOS], [TWO, COMMA, TWO, COMMA, ONE, EOS])
    ends, right, _ = label_steps(coins(), TASK, rollout, 4000, 9, generator=seeded())
    assert ends.nonzero().tolist() == [[0, 3], [0, 5], [1, 3], [1, 5], [1, 7]] and right.shape == (5, 4000)
    assert right.float().mean(1).tolist() == [pytest.approx(5 / 16, abs=0.04), 1, pytest.approx(1 / 4, abs=0.04), 0, 0]


def test_at_the_end_the_label_is_the_rules():
    """Right, wrong, and right but cut off, which is wrong: nothing is left to chance, and nothing is sampled."""
    rollout = wrote([ONE, TWO, EOS], [THREE, EOS], [THREE])
    _, right, token_cost = label_steps(coins(), TASK, rollout, 5, 9, generator=seeded())
    assert right.tolist() == [[False] * 5, [True] * 5, [False] * 5] and token_cost == 0


def test_the_limit_counts_from_where_the_solution_began():
    """The way from "1, " to "1, 2 EOS" is two tokens: with 4 in all it can be gone, with 3 it cannot."""
    policy, rollout = writes(COMMA={TWO: 1.0}), wrote([ONE, COMMA, ONE, EOS])
    assert [bool(label_steps(policy, TASK, rollout, 1, limit)[1][0]) for limit in (3, 4)] == [False, True]


def test_the_tokens_of_the_rollouts_are_counted():
    """From "1, " each of the 7 rollouts writes two tokens; from the end there is nothing to write."""
    policy, rollout = writes(COMMA={TWO: 1.0}), wrote([ONE, COMMA, ONE, EOS], [ONE, EOS])
    assert label_steps(policy, TASK, rollout, 7, 9)[2] == 7 * 2


def test_no_rollout_is_longer_than_its_limit_and_none_begins_where_there_is_no_room():
    rows = [PROMPT, PROMPT + [ONE, COMMA], PROMPT + [TWO]]
    policy = writes(GO={ONE: 1.0}, ONE={COMMA: 1.0}, COMMA={ONE: 1.0}, TWO={COMMA: 1.0})  # never ends
    right, token_cost, rollout, open_rows = rollout_values(policy, TASK, rows, [PROBLEM] * 3, [5, 0, 2], 3)
    assert open_rows == [0, 2] and rollout.lengths.tolist() == [7] * 3 + [5] * 3 and token_cost == 3 * 5 + 3 * 2
    assert right.tolist() == [[False] * 3] * 3
    assert rollout_values(policy, TASK, rows, [PROBLEM] * 3, [0] * 3, 4)[1:] == (0, None, [])


def test_a_rollout_is_verified_together_with_what_was_there_before():
    """2 and 1 make 3; what was written from here on, the 1 alone, would be wrong."""
    right, *_ = rollout_values(writes(COMMA={ONE: 1.0}), TASK, [PROMPT + [TWO, COMMA]], [PROBLEM], [4], 2)
    assert right.all()


def test_rollouts_are_of_ids_and_never_of_text():
    """Trap 32: "1" and "2" in two tokens, each continued as such, and right for 12."""
    problem = TASK.problem(12)
    start = TASK.tokenizer.encode(problem.prompt) + [ONE, TWO]
    right, _, rollout, _ = rollout_values(writes(), TASK, [start], [problem], [3], 2)
    assert right.all() and rollout.tokens.tolist() == [start + [EOS]] * 2


# ---- the losses

SCORES = torch.tensor([[9.0, 0.0, math.log(3)], [9.0, -math.log(3), 9.0]])
ENDS = torch.tensor([[False, True, True], [False, True, False]])


def test_prm_is_cross_entropy_at_the_end_of_every_step():
    """sigmoid: 1/2, 3/4 and 1/4; labels 1/2, 1 and 0. What stands elsewhere has no label."""
    labels = torch.tensor([[9.0, 0.5, 1.0], [9.0, 0.0, 9.0]])
    expected = (math.log(2) - math.log(3 / 4) - math.log(3 / 4)) / 3
    assert verifier_loss("prm", SCORES, ENDS, labels).item() == pytest.approx(expected)


def test_orm_is_cross_entropy_at_the_end_of_the_row():
    """3/4 for what is wrong, 1/4 for what is right: ln 4 both."""
    ends = torch.tensor([[False, False, True], [False, True, False]])
    assert verifier_loss("orm", SCORES, ends, torch.tensor([[9.0, 9, 0], [9, 1, 9]])).item() == pytest.approx(math.log(4))


def test_rm_is_bradley_terry_on_the_last_tokens():
    """The scores are ln 3 and -ln 3: the better one wins with 9 to 1."""
    ends = torch.tensor([[False, False, True], [False, True, False]])
    first, second = torch.tensor([0]), torch.tensor([1])
    assert verifier_loss("rm", SCORES, ends, None, first, second).item() == pytest.approx(-math.log(9 / 10))
    assert verifier_loss("rm", SCORES, ends, None, second, first).item() == pytest.approx(-math.log(1 / 10))


# ---- how good is it?

def test_auc_counts_the_pairs_in_the_right_order():
    """By enumeration, with many ties: each counts half."""
    rng = random.Random(seed())
    for _ in range(50):
        scores, right = [rng.randint(0, 3) / 2 for _ in range(9)], [rng.random() < 0.4 for _ in range(8)] + [True]
        right[0] = False
        pairs = [(a > b) + 0.5 * (a == b) for a, x in zip(scores, right) if x for b, y in zip(scores, right) if not y]
        assert auc(torch.tensor(scores), torch.tensor(right)) == pytest.approx(sum(pairs) / len(pairs))


def test_auc_of_one_kind_alone_is_not_a_number():
    assert math.isnan(auc(torch.tensor([1.0, 2.0]), torch.tensor([True, True])))


def test_rank_correlation_sees_the_order_alone():
    x = torch.tensor([0.1, 0.2, 0.3, 5.0])
    assert rank_correlation(x, x.exp()) == pytest.approx(1) and rank_correlation(x, -x ** 3) == pytest.approx(-1)
    assert rank_correlation(x, torch.tensor([2.0, 1, 4, 3])) == pytest.approx(1 - 6 * 4 / (4 * 15))  # 1 - 6 sum d^2 / (n (n^2 - 1))


def test_equal_values_share_their_mean_rank():
    """Ranks 1, 2.5, 2.5, 4 against 1, 2, 3, 4: covariance 4.5, variances 4.5 and 5."""
    rho = rank_correlation(torch.tensor([1.0, 7, 7, 9]), torch.tensor([1.0, 2, 3, 4]))
    assert rho == pytest.approx(4.5 / math.sqrt(4.5 * 5))


# ---- asking a reward model

def opinionated(backbone):
    reward_model = ScalarModel(backbone)
    torch.nn.init.normal_(reward_model.head.weight, generator=seeded(1))
    return reward_model.requires_grad_(False)


ROWS = [[2, 3, 4, 5], [6], [7, 8, 9, 2, 3, 4, 5], [3, 3], [5, 4], [9, 9, 9, 9]]


@pytest.mark.parametrize("batch", [1, 2, 256])
def test_a_row_is_scored_as_if_it_were_alone(batch):
    """Trap 5: in any order, beside rows of any length; at its last token, if nothing else is asked for."""
    reward_model = opinionated(tiny_gpt())
    alone = [reward_model(torch.tensor([row]))[0, -1:] for row in ROWS]
    for order in (range(6), [3, 0, 5, 2, 1, 4]):
        for i, found in zip(order, scores_at(reward_model, [ROWS[i] for i in order], batch=batch)):
            torch.testing.assert_close(found, alone[i], atol=1e-5, rtol=0)


def test_a_row_is_scored_at_the_positions_that_were_named():
    reward_model, positions = opinionated(tiny_gpt()), [[0, 3], [0], [6, 2], [1], [0, 1], [2]]
    for row, at, found in zip(ROWS, positions, scores_at(reward_model, ROWS, positions, batch=2)):
        torch.testing.assert_close(found, reward_model(torch.tensor([row]))[0, at], atol=1e-5, rtol=0)


# ---- training one

class OneIsRight(Sums):
    """The rule accepts what begins with "1": half of what Opener writes."""

    def verify(self, problem, completion):
        return completion.startswith("1")


class Opener(GPT):
    """Samples like a Bigram: 1 or 2, then an end or a comma. Inside it is a GPT, untrained, which the reward model starts from."""

    def __init__(self):
        torch.manual_seed(seed())
        super().__init__(GPTConfig(10, 24, n_layer=1, n_head=2, n_embd=32))
        toss = {COMMA: 0.4, EOS: 0.6}
        self.habit = writes(GO={ONE: 0.5, TWO: 0.5}, ONE=toss, TWO=toss, COMMA={ONE: 0.5, TWO: 0.5})

    def prefill(self, tokens, lengths, cache):
        return self.habit.prefill(tokens, lengths, cache)

    def decode(self, tokens, positions, cache, bound):
        return self.habit.decode(tokens, positions, cache, bound)


def trainer(kind="orm", seed=0, **more):
    config = VerifierConfig(kind=kind, **{"group_size": 4, "rollouts": 2, "epochs": 1} | more)
    return Verifier(Opener(), OneIsRight(), config, seeded(seed))


def step(learner, problems=8):
    rollout = learner.collect([PROBLEM] * problems)
    return rollout, learner.update(rollout, rollout.right(learner.task).float())


@pytest.mark.parametrize("kind", ["orm", "prm", "rm"])
def test_the_policy_is_never_changed(kind):
    learner = trainer(kind, lr=0.1)
    weights, head = copy.deepcopy(learner.policy.state_dict()), copy.deepcopy(learner.reward_model.state_dict())
    for _ in range(3):
        assert step(learner)[1]["updates"] == 1
    assert all(torch.equal(w, weights[name]) for name, w in learner.policy.state_dict().items())
    assert any(not torch.equal(w, head[name]) for name, w in learner.reward_model.state_dict().items())
    assert all(p.grad is None for p in learner.policy.parameters())


@pytest.mark.parametrize("kind", ["orm", "prm", "rm"])
def test_the_size_of_a_micro_batch_changes_nothing(kind):
    """A mean of means would weigh short micro-batches, or those with few steps, too much."""
    found = []
    for size in (1, 3, 5, 1000):
        learner = trainer(kind, micro_batch=size, lr=0.0)
        torch.nn.init.normal_(learner.reward_model.head.weight, generator=seeded(1))
        _, metrics = step(learner)
        found.append(([p.grad for p in learner.reward_model.parameters()], metrics))
    for grads, metrics in found[1:]:
        assert metrics == pytest.approx(found[0][1], rel=1e-5)
        for a, b in zip(grads, found[0][0]):
            torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("kind", ["orm", "prm", "rm"])
def test_the_loss_of_a_step_is_that_of_the_whole_batch_at_once(kind):
    """And a reward model without an opinion is undecided: ln 2 in all three."""
    learner = trainer(kind)
    assert step(learner)[1]["loss"] == pytest.approx(math.log(2))
    torch.nn.init.normal_(learner.reward_model.head.weight, generator=seeded(1))
    rollout = learner.collect([PROBLEM] * 8)
    scores = learner.reward_model(rollout.tokens).detach()
    last = torch.arange(rollout.tokens.shape[1]) == rollout.lengths[:, None] - 1
    right = rollout.right(learner.task).float()
    ends = step_ends(rollout, learner.task) if kind == "prm" else last
    labels = torch.zeros(ends.shape)
    labels[ends] = learner.labels if kind == "prm" else right
    chosen, rejected = verifier.pairs(right, 4)
    expected = verifier_loss(kind, scores, ends, labels, chosen, rejected).item()
    metrics = learner.update(rollout, right)
    assert metrics["loss"] == pytest.approx(expected, abs=1e-5)
    assert metrics["labels"] == (len(chosen) if kind == "rm" else ends.sum())


def test_several_passes_over_a_batch_are_several_steps():
    """The same weights as after as many updates with the same batch. The loss is the mean of them; the AUC is from before the first."""
    thrice, once = trainer(epochs=3, lr=0.01), trainer(lr=0.01)
    rollout = thrice.collect([PROBLEM] * 8)
    right = rollout.right(thrice.task).float()
    metrics, singly = thrice.update(rollout, right), [once.update(rollout, right) for _ in range(3)]
    assert metrics["updates"] == 3 and singly[2]["loss"] < singly[0]["loss"]
    assert metrics["loss"] == pytest.approx(sum(each["loss"] for each in singly) / 3)
    assert metrics["auc"] == singly[0]["auc"] == 0.5 and metrics["grad_norm"] == singly[2]["grad_norm"]
    assert all(torch.equal(a, b) for a, b in zip(thrice.reward_model.parameters(), once.reward_model.parameters()))


def test_prm_labels_are_soft_or_hard():
    """The share of the rollouts that is right, or whether any is. They are paid for, beside the rollout itself."""
    class Luck(Sums):
        def verify(self, problem, completion):
            return completion.endswith("1")
    soft, hard = (Verifier(Opener(), Luck(), VerifierConfig(kind="prm", group_size=4, rollouts=4, labels=labels), seeded())
                  for labels in ("soft", "hard"))
    for learner in (soft, hard):
        rollout = learner.collect([PROBLEM] * 8)
        assert rollout.discarded > 0 and len(learner.labels) == step_ends(rollout, TASK).sum()
    assert set(soft.labels.tolist()) <= {0, 0.25, 0.5, 0.75, 1} and torch.equal(hard.labels, (soft.labels > 0).float())
    assert ((soft.labels > 0) & (soft.labels < 1)).any()


def test_orm_and_rm_pay_for_their_samples_alone():
    assert [trainer(kind).collect([PROBLEM]).discarded for kind in ("orm", "rm")] == [0, 0]


def test_pairs_that_agree_teach_nothing():
    """All rows of every group are as good as each other: no pair, no step, no weight that moves."""
    learner = trainer("rm", lr=0.1)
    before = copy.deepcopy(learner.reward_model.state_dict())
    metrics = learner.update(learner.collect([PROBLEM] * 4), torch.ones(16))
    assert metrics["updates"] == metrics["labels"] == 0
    assert all(torch.equal(w, before[name]) for name, w in learner.reward_model.state_dict().items())


@pytest.mark.parametrize("kind", ["orm", "prm", "rm"])
def test_a_verifier_learns_to_tell_right_from_wrong(kind):
    """What begins with 1, and ends, is right. Chance would be 0.5."""
    learner = trainer(kind, lr=0.01)
    for _ in range(40):
        step(learner, problems=16)
    rollout = learner.collect([PROBLEM] * 20)
    rows = [row[:n] for row, n in zip(rollout.tokens.tolist(), rollout.lengths.tolist())]
    assert auc(torch.cat(scores_at(learner.reward_model, rows)), rollout.right(learner.task)) > 0.75


def test_the_steps_of_prm_learn_their_labels():
    """Not only the last one: after "1, " the chance is 1, after "2, " it is 0."""
    learner = trainer("prm", lr=0.01)
    for _ in range(40):
        step(learner, problems=16)
    good, bad = torch.cat(scores_at(learner.reward_model, [PROMPT + [ONE, COMMA], PROMPT + [TWO, COMMA]])).sigmoid().tolist()
    assert good > 0.7 and bad < 0.3


@pytest.mark.parametrize("kind", ["orm", "prm", "rm"])
def test_a_verifier_that_was_stopped_goes_on_as_if_nothing_had_happened(kind):
    """Weights and the optimizer's memory come back. (The generator is train.py's to keep.)"""
    straight = trainer(kind, lr=0.01)
    for _ in range(2):
        step(straight)
    again = trainer(kind, lr=0.01)
    again.load_state_dict(copy.deepcopy(straight.state_dict()))
    again.generator.set_state(straight.generator.get_state())
    assert step(straight)[1] == step(again)[1]
    assert all(torch.equal(a, b) for a, b in zip(straight.reward_model.parameters(), again.reward_model.parameters()))


# ---- the command

@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    task = tasks.load("countdown", numbers=2, attempts=1)
    torch.manual_seed(seed())
    model = GPT(GPTConfig(task.tokenizer.n_vocab, 64, n_layer=1, n_head=1, n_embd=32))
    for name, state in (("orm", {"reward_model": ScalarModel(model).state_dict()}), ("ppo", {"critic": ScalarModel(model).state_dict()}),
                        ("grpo", {})):
        checkpoint.save(folder / f"{name}.pt", model, task, {"algo": name, "max_new_tokens": 12}, algorithm=state)
    return folder


@pytest.mark.parametrize("name", ["orm", "ppo"])
def test_a_verifier_is_looked_at(runs, name, capsys):
    verifier.main([f"{runs}/{name}.pt", "--problems", "10", "--samples", "2", "--device", "cpu"])
    out = capsys.readouterr().out
    assert "10 test problems, 2 samples each" in out and "AUC over all solutions" in out
    assert ("value before the first token" in out) == (name == "ppo")


@pytest.mark.parametrize("argv, word", [(["grpo.pt"], "no critic and no reward model"), (["nowhere.pt"], "no such checkpoint"),
                                        (["orm.pt", "--samples", "0"], "--samples"),
                                        (["orm.pt", "--device", "abacus"], "--device")],
                         ids=str)
def test_what_cannot_be_looked_at_is_refused_in_one_line(runs, argv, word):
    with pytest.raises(InputError) as error:
        verifier.main([f"{runs}/{argv[0]}", *argv[1:]])
    assert "\n" not in str(error.value) and word in str(error.value)


def test_rollouts_are_cut_into_batches(monkeypatch):
    """All in one call, the cache would hold every step of every solution times `rollouts`. Each batch has its limits and problems."""
    monkeypatch.setattr(verifier, "ROLLOUT_BATCH", 3)
    sizes, original = [], verifier.generate
    monkeypatch.setattr(verifier, "generate", lambda model, prompts, *more, **rest: sizes.append(len(prompts))
                        or original(model, prompts, *more, **rest))
    policy = writes(GO={ONE: 1.0})  # "1" and the end, whatever comes before: right for 1, and for nothing else
    task, problems = Sums(), [Sums().problem(answer) for answer in (1, 3, 1, 4)]
    rows = [task.tokenizer.encode(problem.prompt) for problem in problems]
    right, token_cost, rollout, open_rows = verifier.rollout_values(policy, task, rows, problems, [5, 5, 0, 5], 2)
    assert sizes == [3, 3] and open_rows == [0, 1, 3] and token_cost == 12 and len(rollout.problems) == 6
    assert right.tolist() == [[True, True], [False, False], [False, False], [False, False]]


def test_labels_are_of_the_policy_at_the_temperature_it_is_sampled_with():
    """Nearly greedy it writes the likelier token every time: all rollouts of a step end alike, and the label is 0 or 1."""
    learner = trainer("prm", rollouts=32, temperature=0.02)
    toss = {COMMA: 0.6, EOS: 0.4}
    learner.policy.habit = writes(GO={ONE: 0.6, TWO: 0.4}, ONE=toss, TWO=toss, COMMA={ONE: 0.4, TWO: 0.6})
    learner.task.verify = lambda problem, completion: completion.count("1") % 2 == 1
    learner.collect([PROBLEM] * 4)
    assert set(learner.labels.tolist()) <= {0, 1}


def test_the_auc_of_rm_is_over_the_rows_that_are_in_a_pair():
    """The first group is right throughout and makes no pair: nobody has scored its rows, and 0 is less than any score here."""
    learner = trainer("rm", lr=0.0)
    torch.nn.init.normal_(learner.reward_model.head.weight, generator=seeded(1))
    learner.reward_model.head.bias.data.fill_(1000.0)
    rollout = learner.collect([PROBLEM] * 2)
    scores = torch.cat(scores_at(learner.reward_model, [row[:n] for row, n in zip(rollout.tokens.tolist(), rollout.lengths.tolist())]))
    right = torch.ones(8, dtype=torch.bool)
    right[4 + scores[4:].argsort()[:2]] = False
    rollout.right = lambda task: right
    expected = auc(scores[4:], right[4:])
    assert expected >= 0.5 and learner.update(rollout, right.float())["auc"] == pytest.approx(expected)


@pytest.mark.parametrize("kind", ["orm", "prm", "rm"])
def test_mini_batches_do_not_change_the_size_of_the_loss(kind):
    """An undecided reward model pays ln 2, however many optimizer steps share the labels."""
    for n in (1, 2):
        _, metrics = step(trainer(kind, lr=0.0, mini_batches=n))
        assert metrics["loss"] == pytest.approx(math.log(2), abs=1e-4)
