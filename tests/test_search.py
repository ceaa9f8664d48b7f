"""Search: methods on a policy whose chances are known, and a token cost without a gap."""
import itertools
import math
import random
from collections import Counter
from types import SimpleNamespace

import pytest
import torch

import search
import search_context
import verifier
from methods import star
from model import GPT, GPTConfig, ScalarModel
from plumbing import search_command
from sample import generate
from search import beam_search, best_of_n, budget_forcing, majority_vote, rebase_allocation, top_k, tree_search
from search_context import SearchContext
from toys import COMMA, EOS, GO, ONE, THINK_END, THREE, TWELVE, TWO, Sums, coins, seed, seeded, writes

SEARCHES = [m for m in search.METHODS if m != "greedy"]


def context_of(policy=None, answers=(3,), limit=8, seed=0, task=None, **more):
    task = task or Sums()
    return SearchContext(policy or coins(), task, [task.problem(a) for a in answers], limit, generator=seeded(seed), **more)


@pytest.fixture(autouse=True)
def sampled(monkeypatch):
    """What was really sampled, by the first token of the prompt: Counter of tokens; and the rows of every call. A loop that does
    not end is a failure, and not a test that hangs."""
    tokens, calls = Counter(), []

    def counting(model, prompts, *args, **kwargs):
        rollout = generate(model, prompts, *args, **kwargs)
        for prompt, new in zip(prompts, (rollout.lengths - rollout.prompt_lengths).tolist()):
            tokens[prompt[0]] += new
        calls.append(Counter(prompt[0] for prompt in prompts))
        assert len(calls) < 1000
        return rollout

    monkeypatch.setattr(search_context, "generate", counting)
    monkeypatch.setattr(verifier, "generate", counting)
    return SimpleNamespace(tokens=tokens, calls=calls)


# ---- who goes on

def test_widths_add_up_to_n():
    rng = random.Random(seed())
    for _ in range(500):
        scores, n = [rng.choice([0.0, 0.5, 1.0, rng.random()]) for _ in range(rng.randint(1, 9))], rng.randint(1, 20)
        for widths in (top_k(scores, n), rebase_allocation(scores, n), rebase_allocation(scores, n, 0.01)):
            assert sum(widths) == n and len(widths) == len(scores) and min(widths) >= 0 and {*map(type, widths)} == {int}


def test_the_better_half_goes_on_twice():
    assert top_k([0.3, 0.1, 0.9, 0.2, 0.8, 0.0], 6) == [2, 0, 2, 0, 2, 0]
    assert top_k([0.5, 0.5, 0.5, 0.5], 4) == [2, 2, 0, 0] and top_k([0.1, 0.2, 0.3], 3) == [0, 0, 3]
    assert top_k([0.0], 4) == [4]


def test_rebase_widths_are_proportional_to_exp_of_score_over_temperature():
    """e^(ln 3) : 1 of 8 are 6 and 2; at a tenth of the temperature, 3^10 : 1, the better one takes all."""
    scores = [0.2 * math.log(3), 0.0]
    assert rebase_allocation(scores, 8) == [6, 2] and rebase_allocation(scores, 8, 0.02) == [8, 0] and rebase_allocation([0.5] * 4, 8) == [2] * 4


def test_rebase_rounds_the_largest_remainders_up():
    """10 of weights 5/8, 2/8, 1/8: shares 6.25, 2.5 and 1.25."""
    assert rebase_allocation([0.2 * math.log(5), 0.2 * math.log(2), 0.0], 10) == [6, 3, 1]


# ---- choosing among whole solutions

def candidates(context, *texts):
    """Solutions of the first problem; "..." at the end: cut off. -> the context, which will draw just these."""
    rows = [context.prompts[0] + context.task.tokenizer.encode(t.removesuffix("...")) + [EOS] * (not t.endswith("...")) for t in texts]
    context.candidates = lambda n: ([0] * n, rows[:n])
    return context


def answers(context, rows):
    return [context.text(i, row) for i, row in enumerate(rows)]


def test_best_of_n_takes_the_highest_score():
    context = candidates(context_of(), "1", "2", "1, 1", "2, 1")
    assert answers(context, best_of_n(context, 4, lambda problem_index, rows: [0.3, 0.1, 0.9, 0.5])) == ["1, 1"]
    assert answers(context, best_of_n(context, 4, context.rule)) == ["2, 1"]


def test_a_solution_that_did_not_end_comes_last():
    context = candidates(context_of(), "1...", "2", "2, 1...")
    assert answers(context, best_of_n(context, 3, lambda problem_index, rows: [9.0, -50.0, 8.0])) == ["2"]


def test_each_problem_gets_its_own_best():
    context = context_of(answers=(3, 2))
    rows = best_of_n(context, 200, context.rule)  # all 200 wrong: (1 - 9/64)^200
    assert [row[0] for row in rows] == [p[0] for p in context.prompts] and context.rule([0, 1], rows) == [1, 1]


def test_equal_answers_share_their_votes():
    """2 + 1 is 1 + 2. Counted as written, "2" would win with two votes."""
    context = candidates(context_of(), "2", "2", "1, 2", "2, 1", "1, 1, 1")
    assert answers(context, majority_vote(context, 5)) == ["1, 2"]


def test_of_equally_many_votes_the_first_answer_wins():
    context = candidates(context_of(), "1", "2", "2", "1")
    assert answers(context, majority_vote(context, 4)) == ["1"] and answers(context, majority_vote(context, 3)) == ["2"]


def test_what_did_not_end_or_cannot_be_read_does_not_vote():
    context = candidates(context_of(), "1...", "1...", ", ", ", ", ", ", "2")
    assert answers(context, majority_vote(context, 6)) == ["2"]
    assert majority_vote(context, 5) == [context.candidates(1)[1][0]]  # nobody voted


def test_scores_weigh_the_votes():
    context = candidates(context_of(), "1", "1", "2")
    assert answers(context, majority_vote(context, 3, lambda problem_index, rows: [0.1, 0.2, 0.9])) == ["2"]


def test_sampling_stops_at_the_first_solution_that_the_rule_accepts():
    """The policy always writes 2: one try for the first problem, five for the second one; 2 tokens each."""
    context = context_of(writes(GO={TWO: 1.0}), answers=(2, 3))
    assert answers(context, search.sample(context, 5)) == ["2", "2"] and context.token_cost == [2, 10]


def test_where_the_rule_needs_an_answer_key_there_is_no_second_try():
    task = Sums()
    task.checkable = False
    context = context_of(writes(GO={TWO: 1.0}), task=task)
    search.sample(context, 5)
    assert context.token_cost == [2]


def test_greedy_takes_the_likeliest_token():
    context = context_of(writes(GO={ONE: 0.6, TWO: 0.4}, ONE={EOS: 0.3, COMMA: 0.7}, COMMA={TWO: 1.0}))
    assert answers(context, search.greedy(context)) == ["1, 2"] and context.token_cost == [4]


# ---- scores

class Verifier:
    """A learned verifier that looks at the last token alone: 1 says 1, 2 says 2, the comma -1, everything else 0."""
    backbone = SimpleNamespace(device=torch.device("cpu"))

    def __init__(self, kind="prm"):
        self.kind, self.table = kind, torch.zeros(10)
        self.table[[ONE, TWO, COMMA, EOS]] = torch.tensor([1.0, 2.0, -1.0, 3.0])

    def __call__(self, tokens):
        return self.table[tokens]


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


@pytest.mark.parametrize("aggregate, expected", [("last", sigmoid(3)), ("min", sigmoid(-1)),
                                                 ("product", sigmoid(-1) ** 2 * sigmoid(3))])
def test_the_scores_of_the_steps_become_one(aggregate, expected):
    """1, 2, 1 EOS: the steps end at two commas and at EOS. Those of the prompt are none of them."""
    context = context_of(verifier=Verifier(), aggregate=aggregate)
    context.prompts = [[COMMA, GO]]
    row = [COMMA, GO, ONE, COMMA, TWO, COMMA, ONE, EOS]
    assert context.verifier_score([0], [row]) == [pytest.approx(expected)]
    assert context.verifier_score([0, 0], [row[:3], row]) == [pytest.approx(sigmoid(1)), pytest.approx(expected)]


def test_a_critic_says_a_share_and_no_log_odds():
    context = context_of(verifier=Verifier("ppo"))
    assert context.verifier_score([0] * 3, [[THREE, GO], [THREE, GO, ONE, COMMA], [THREE, GO, TWO]]) == [0, 0, 1]


def test_a_critic_is_asked_before_the_end_and_never_what_stands_behind_it():
    """Nothing taught it: `sample.values` looks at the states before the tokens. EOS would say 3; the token before it says 1 or 2."""
    context = context_of(verifier=Verifier("ppo"))
    context.verifier.table *= 0.25
    context.prompts = [[THREE, GO]]
    rows = [[THREE, GO, ONE, EOS], [THREE, GO, TWO, EOS], [THREE, GO, TWO]]
    assert context.verifier_score([0] * 3, rows) == [0.25, 0.5, 0.5]
    context.verifier.kind = "orm"
    assert context.verifier_score([0], rows[:1]) == [pytest.approx(sigmoid(0.75))]


def test_own_confidence_is_the_geometric_mean_of_the_probabilities():
    """1/2 for the 1, 1/2 for the end; 0.8 for the 2, 0.2 for the comma. The padding of the shorter row does not count."""
    policy = writes(GO={ONE: 0.2, TWO: 0.8}, ONE={EOS: 0.8, COMMA: 0.2}, TWO={COMMA: 0.2, EOS: 0.8}, COMMA={ONE: 1.0})
    context = context_of(policy)
    rows = [[THREE, GO, ONE, EOS], [THREE, GO, TWO, COMMA, ONE, EOS]]
    assert context.own_confidence([0, 0], rows) == [pytest.approx(0.16 ** (1 / 2)), pytest.approx(0.128 ** (1 / 4))]


def test_rollouts_estimate_the_chance_to_end_right():
    """V(3) = 9/64, V(2) = 5/16, V(1) = 1/4: see toys.coins. What has ended is judged by the rule, what has no room is wrong."""
    context = context_of(rollouts=4000)
    rows = [[THREE, GO], [THREE, GO, ONE, COMMA], [THREE, GO, TWO, COMMA], [THREE, GO, ONE, COMMA, TWO, EOS], [THREE, GO, ONE, EOS],
            [THREE, GO] + [ONE, COMMA] * 4]
    found = context.from_rollouts([0] * 6, rows)
    assert found[:3] == [pytest.approx(v, abs=0.04) for v in (9 / 64, 5 / 16, 1 / 4)] and found[3:] == [1, 0, 0]
    assert len(context.finished[0]) == 3 * 4000  # whole solutions: they may be the answer, too
    assert context.token_cost[0] == sum(map(len, context.finished[0])) - 4000 * (2 + 4 + 4)


def test_the_rollouts_of_a_row_are_paid_by_its_problem():
    context = context_of(answers=(1, 3), rollouts=3)
    context.from_rollouts([1, 0, 1], [context.prompts[1], context.prompts[0] + [ONE, EOS], context.prompts[1] + [TWO, COMMA]])
    assert context.token_cost[0] == 0 < context.token_cost[1] and not context.finished[0]
    assert {row[0] for row in context.finished[1]} == {THREE} and len(context.finished[1]) == 6


# ---- every method: the token cost, the limits, the ids

def run(method, context, value="rollouts", budget=40, score="auto", typical=4.0):
    c = search_command.SearchConfig(value=value, score=score)
    return search_command.run_method(context, method, budget, c, typical)


@pytest.mark.parametrize("value", ["rollouts", "confidence"])
@pytest.mark.parametrize("method", search.METHODS)
def test_every_sampled_token_is_counted_for_its_problem(method, value, sampled):
    """Also those of branches that were given up, of rollouts, and of an end of thinking that was taken back."""
    policy = writes(GO={ONE: 0.5, TWO: 0.5}, COMMA={ONE: 0.5, TWO: 0.4, THINK_END: 0.1}, ONE={COMMA: 0.6, THINK_END: 0.2, EOS: 0.2},
                    TWO={COMMA: 0.5, EOS: 0.5}, THINK_END={ONE: 1.0})
    context = context_of(policy, (3, 4, 12, 1))
    run(method, context, value)
    assert context.token_cost == [sampled.tokens[prompt[0]] for prompt in context.prompts] and min(context.token_cost) > 0


@pytest.mark.parametrize("limit", [4, 7])
@pytest.mark.parametrize("method", search.METHODS)
def test_no_row_is_longer_than_the_task_allows(method, limit):
    """A policy that hardly ever ends. Every row begins with the prompt of its problem."""
    policy = writes(GO={ONE: 1.0}, ONE={COMMA: 0.7, TWO: 0.2, EOS: 0.1}, TWO={ONE: 1.0}, COMMA={ONE: 1.0}, THINK_END={ONE: 1.0})
    context = context_of(policy, (4, 3), limit)
    rows, trees = run(method, context)
    seen = [(i, list(row)) for i, row in enumerate(rows)] + [(i, row) for i, found in context.finished.items() for row in found]
    seen += [(i, list(state[1:])) for i, tree in enumerate(trees or []) for state in tree.states]
    for i, row in seen:
        assert row[:2] == context.prompts[i] and len(row) <= 2 + limit
        assert EOS not in row[:-1]


@pytest.mark.parametrize("method", SEARCHES)
def test_ids_are_passed_on_and_text_is_never_encoded_again(method):
    """Trap 32: the policy writes 1 and then 2, which reads 12; read again it would be another token."""
    policy = writes(GO={ONE: 1.0}, ONE={TWO: 1.0}, TWO={COMMA: 0.5, EOS: 0.5}, COMMA={ONE: 1.0}, THINK_END={ONE: 1.0})
    context = context_of(policy, (3, 12), 11)
    rows, trees = run(method, context)
    rows = rows + [list(s[1:]) for tree in trees or [] for s in tree.states]
    rows += [row for found in context.finished.values() for row in found]
    for row in rows:
        after_prompt = row[row.index(GO) + 1:]
        assert TWELVE not in after_prompt
        if THINK_END not in after_prompt:
            assert all((a, b) != (ONE, ONE) and b == (TWO if a == ONE else b) for a, b in zip(after_prompt, after_prompt[1:]))
    assert any((ONE, TWO) in zip(row, row[1:]) for row in rows)


@pytest.mark.parametrize("widths", [top_k, rebase_allocation])
@pytest.mark.parametrize("n", [1, 3, 8])
def test_beams_are_never_more_than_n_a_problem(widths, n, sampled):
    toss, on = {ONE: 0.5, TWO: 0.5}, {COMMA: 0.95, EOS: 0.05}
    context = context_of(writes(GO=toss, COMMA=toss, ONE=on, TWO=on), answers=(1, 2, 3, 4, 12))
    beam_search(context, n, context.own_confidence, context.rule, widths)
    assert max(max(call.values()) for call in sampled.calls) == n and len(sampled.calls) > 1
    assert all(len(found) == n for found in context.finished.values())  # who ends takes its slot with it


def test_beams_grow_where_the_value_is():
    """Only what began with 2 goes on: after the first step every row does. (Nine of ten do, so that they are the better half.)"""
    toss, on = {ONE: 0.1, TWO: 0.9}, {COMMA: 0.9, EOS: 0.1}
    context = context_of(writes(GO=toss, COMMA=toss, ONE=on, TWO=on), limit=8)
    likes_two = lambda problem_index, rows: [float(row[2] == TWO) for row in rows]
    beam_search(context, 64, likes_two, likes_two)
    assert {row[2] for row in context.finished[0] if len(row) > 5} == {TWO}


def test_beam_search_returns_the_finished_row_with_the_best_score():
    context = context_of(answers=(3, 2))
    rows = beam_search(context, 200, context.own_confidence, context.rule)
    assert [sum(context.rule([i] * 200, context.finished[i])) > 0 for i in (0, 1)] == context.rule([0, 1], rows) == [1, 1]


# ---- the tree over steps of reasoning

def test_a_tree_stops_at_a_solution_or_when_the_budget_is_spent():
    """Nothing adds up to the answer 12 within 8 tokens; 2 is found at once, among the first 64 steps."""
    context = context_of(answers=(2, 12))
    rows, _ = tree_search(context, 1000, context.own_confidence, context.rule, 64, 64, 5.0)
    assert context.right(0, rows[0]) and context.token_cost[0] < 1000 <= context.token_cost[1]


def test_a_solution_that_only_a_rollout_found_is_the_answer():
    context = context_of(writes(GO={ONE: 1.0}, ONE={COMMA: 1.0}, COMMA={TWO: 1.0}), answers=(3,), rollouts=8)
    rows, [tree] = tree_search(context, 400, context.from_rollouts, context.rule)
    assert context.right(0, rows[0]) and (0, *rows[0]) not in tree.states


def test_steps_of_a_tree_are_steps_of_the_task():
    """Each action ends with the comma or is the end; the same step is not there twice."""
    policy = writes(GO={ONE: 0.75, TWO: 0.25}, COMMA={ONE: 0.75, TWO: 0.25}, ONE={COMMA: 1.0}, TWO={COMMA: 1.0})
    context = context_of(policy, (12,), 6)
    _, [tree] = tree_search(context, 300, context.own_confidence, context.rule, root_width=64)
    for j in range(len(tree.states)):
        actions = [tree.states[k][len(tree.states[j]):] for k in tree.children(j)]
        assert set(actions) <= {(ONE, COMMA), (TWO, COMMA)} and len(set(actions)) == len(actions)


def test_the_prior_of_a_sampled_step_is_how_often_it_was_drawn():
    """Sampled from the policy and weighed by it again, a step of probability 0.9 would have the prior .81 / (.81 + .01) = 0.99 in the
    limit of few draws, or 0.9 however often it was really drawn (arXiv:2104.06303). With many draws it is 0.9."""
    policy = writes(GO={ONE: 0.9, TWO: 0.1}, COMMA={ONE: 0.9, TWO: 0.1}, ONE={COMMA: 1.0}, TWO={COMMA: 1.0})
    context, draws = context_of(policy, (12,), 6), 4000
    drawn, sample = [], context.sample
    context.sample = lambda *given, **more: drawn.append(sample(*given, **more)) or drawn[-1]
    _, [tree] = tree_search(context, 20 * draws, context.own_confidence, context.rule, root_width=draws, simulations=1)
    at_root = [row for row in drawn[0]]
    priors = {tree.states[k][2:]: tree.priors[k] for k in tree.children(0)}
    counts = {action: sum(row[1:] == [*action[1:]] or tuple(row[-2:]) == action[-2:] for row in at_root) for action in priors}
    assert len(at_root) == draws and sum(counts.values()) == draws
    assert priors == {action: pytest.approx(n / draws) for action, n in counts.items()}
    assert max(priors.values()) == pytest.approx(0.9, abs=5 * (0.09 / draws) ** 0.5)


def test_no_row_is_scored_twice():
    """Scoring is reading, and reading the same thing again says nothing new."""
    asked = []

    def value(problem_index, rows):
        asked.extend((o, *row) for o, row in zip(problem_index, rows))
        return [0.5] * len(rows)

    context = context_of(answers=(12, 4))
    tree_search(context, 100, value, lambda problem_index, rows: [0.0] * len(rows), 8, 8, 5.0)
    assert len(asked) == len(set(asked)) > 2


@pytest.mark.parametrize("aggregate", ["last", "product"])
def test_a_tree_asks_a_verifier_about_whole_rows(aggregate):
    """However it reads them: the tree is the same as if each row were read from its beginning."""
    torch.manual_seed(seed())
    reads, grown = ScalarModel(GPT(GPTConfig(10, 24, n_layer=2, n_head=2, n_embd=32))), []
    torch.nn.init.normal_(reads.head.weight)
    reads.requires_grad_(False).kind = "prm"
    for plain in (False, True):
        context = context_of(answers=(12, 4), verifier=reads, aggregate=aggregate)
        value = (lambda problem_index, rows, context=context: context.verifier_score(problem_index, rows)) if plain else context.verifier_score
        grown.append((tree_search(context, 150, value, context.own_confidence, 3, 3, 2.0), context.token_cost))
    (rows, trees), (same_rows, same_trees) = grown[0][0], grown[1][0]
    assert rows == same_rows and grown[0][1] == grown[1][1]
    for tree, same in zip(trees, same_trees):
        assert tree.states == same.states and tree.visits == same.visits and max(map(len, tree.states)) > 4
        assert tree.totals == pytest.approx(same.totals, rel=1e-4)


def test_a_tree_without_a_whole_solution_writes_its_best_path_on():
    """A budget of one token: the root has children, and none has ended. What is written on is paid for."""
    policy = writes(GO={ONE: 1.0}, ONE={COMMA: 1.0}, COMMA={TWO: 1.0})
    context = context_of(policy)
    rows, _ = tree_search(context, 1, context.own_confidence, context.rule)
    assert answers(context, rows) == ["1, 2"]


def test_trees_and_beams_find_more_than_one_try():
    """One try is right with 9/64. With 60 tokens the tree, which sees what the rule says, is right nearly always."""
    one, many = (context_of(answers=(3,) * 60) for _ in range(2))
    assert sum(one.rule(range(60), search.sample(one, 1))) <= 22  # 5 standard errors above 60 * 9/64
    assert sum(many.rule(range(60), tree_search(many, 60, many.from_rollouts, many.rule, 4, 4, 1.25)[0])) >= 40


# ---- budget forcing

def thinker(**more):
    """Writes 1 and wants to stop thinking; if it may not it goes on with a comma and another 1. The answer is 2."""
    return writes(**{"GO": {ONE: 1.0}, "ONE": {THINK_END: 1.0, COMMA: 1e-9}, "COMMA": {ONE: 1.0}, "THINK_END": {TWO: 1.0}} | more)


def test_an_end_of_thinking_is_taken_back_until_the_budget_is_spent():
    """Budget 5. "1 end" (2 tokens; taken back), ", 1 end" (3; taken back), ", 1" (2; that makes 5), "2 EOS". 9 are paid: the two
    that were taken back as well, but not the end of thinking that was put in."""
    context = context_of(thinker(), limit=20)
    [row] = budget_forcing(context, 5)
    assert context.text(0, row) == "1, 1, 1</think>2" and row[-1] == EOS and context.token_cost == [9]


def test_an_end_of_thinking_at_the_end_of_the_budget_stands():
    context = context_of(thinker(), limit=20)
    assert answers(context, budget_forcing(context, 4)) == ["1, 1</think>2"] and context.token_cost == [2 + 3 + 2]


def test_thinking_is_cut_when_the_budget_is_spent():
    """This policy never stops by itself. 3 tokens, the end that is put in, then the answer."""
    context = context_of(thinker(ONE={COMMA: 1.0}), limit=20)
    [row] = budget_forcing(context, 3)
    assert row[2:] == [ONE, COMMA, ONE, THINK_END, TWO, EOS] and context.token_cost == [5]


def test_the_limit_of_the_task_ends_the_thinking_too():
    """8 tokens, 4 of them for the answer."""
    for policy in (thinker(), thinker(ONE={COMMA: 1.0})):
        context = context_of(policy, limit=8)
        [row] = budget_forcing(context, 1000)
        assert len(row) <= 2 + 8 and row.index(THINK_END) <= 2 + 4 and row[-2:] == [TWO, EOS]


def test_a_solution_that_says_it_has_found_the_answer_may_stop():
    task = Sums()
    task.own_verdict = lambda text: text.startswith("1, 1</think>")
    context = context_of(thinker(), limit=20, task=task)
    assert answers(context, budget_forcing(context, 12)) == ["1, 1</think>2"]


def test_what_ends_without_a_thought_is_over():
    context = context_of(writes(GO={ONE: 1.0}), answers=(1,))
    assert answers(context, budget_forcing(context, 50)) == ["1"] and context.token_cost == [2]


def test_each_problem_has_its_own_budget():
    """Side by side with others a row thinks as it does alone."""
    policy = thinker(ONE={THINK_END: 0.5, COMMA: 0.5})
    context = context_of(policy, (1, 2, 3, 4, 12), limit=20)
    for i, row in enumerate(budget_forcing(context, 7)):
        assert row[:2] == context.prompts[i] and row.index(THINK_END) in (2 + 6, 2 + 7) and row[-2:] == [TWO, EOS]


def test_a_tree_that_was_solved_at_once_can_be_shown():
    """Nothing in it was visited: it shows what was drawn at the root."""
    policy = writes(GO={THREE: 1.0})
    context = context_of(policy, (3,))
    _, [tree] = tree_search(context, 100, context.own_confidence, context.rule)
    assert tree.visits[0] == 0 and len(tree.render(lambda before, after: str(after))) == len(tree.children(0)) > 0


def test_a_small_budget_is_not_spent_on_first_steps_alone():
    """Budget 40 draws two steps at the root, 80 four, and 1000 as many as were asked for."""
    for budget, drawn in ((10, 2), (40, 2), (80, 4), (1000, 12)):
        context, widths = context_of(), []
        context.sample = lambda problem_index, rows, **_: widths.append(len(rows)) or [row + [ONE, EOS] for row in rows]
        tree_search(context, budget, context.own_confidence, context.own_confidence, simulations=1)
        assert widths[0] == drawn


def test_the_path_that_is_written_on_is_the_most_visited_and_not_the_likeliest():
    """Of every three steps that are drawn two say "1, ", but what begins with "2, " is worth more, and is visited more often."""
    context, drawn = context_of(limit=60), itertools.count()

    def sample(problem_index, rows, stop=None):
        return [row + [TWO if next(drawn) % 3 == 2 else ONE, COMMA] if stop else row + [EOS] for row in rows]

    context.sample = sample
    value = lambda problem_index, rows: [float(TWO in row[:3]) for row in rows]
    [row], [tree] = tree_search(context, 1000, value, context.rule, width=3, simulations=8)
    one, two = tree.children(0)
    assert tree.priors[one] > tree.priors[two] and tree.visits[one] < tree.visits[two] and row[2:4] == [TWO, COMMA]


@pytest.mark.parametrize("method", ["best_of_n", "mcts"])
def test_an_expert_pays_for_all_that_it_samples(method, sampled):
    """What is imitated is a small part of what was searched: with the rest not counted, expert iteration would seem to be free."""
    config, task = SimpleNamespace(expert=method, expert_budget=40, temperature=1.0, max_new_tokens=8), Sums()
    rollout = star.expert(coins(), task, config, seeded())([task.problem(3)] * 4)
    assert len(rollout.tokens) == 4 and rollout.discarded > 0
    assert rollout.sampled_tokens + rollout.discarded == sum(sampled.tokens.values())


def test_a_row_that_ran_out_of_tokens_is_worth_nothing():
    """Trap 14: "1, 1, " without an end, however good a judge of half-finished rows would find it. It is not even asked."""
    context, asked = context_of(writes(GO={ONE: 1.0}, ONE={COMMA: 1.0}, COMMA={ONE: 1.0}), limit=4), []
    value = lambda problem_index, rows: asked.extend(rows) or [0.9] * len(rows)
    _, [tree] = tree_search(context, 1000, value, context.rule, simulations=4)
    full = [value for value, state in zip(tree.first_play, tree.states) if len(state) == 1 + 2 + 4]
    assert max(map(len, asked)) == 2 + 2 and full == [0.0]


def test_the_command_runs_the_method_that_was_named(monkeypatch):
    """REBASE is beam search with other widths, a vote is weighted only where that was asked for."""
    seen = {}
    monkeypatch.setattr(search, "beam_search", lambda context, n, value, scorer, allocation=top_k: seen.update(allocation=allocation))
    monkeypatch.setattr(search, "majority_vote", lambda context, n, scorer=None: seen.update(scorer=scorer))
    context, found = context_of(), []
    for method, more in (("beam_search", {}), ("rebase", {}), ("majority_vote", {}), ("majority_vote", {"weighted": True})):
        search_command.run_method(context, method, 20, search_command.SearchConfig(**more), 4)
        found.append(seen.popitem()[1])
    assert found == [top_k, rebase_allocation, None, context.rule]
