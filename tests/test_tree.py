"""Monte-Carlo tree search against toy trees whose values are known in advance."""
import itertools
import math
import random
from collections import Counter

import pytest

from toys import seed
from tree import Tree, mcts


# ---- PUCT

def family(visits, totals, priors, N, mean=0.0, first_play=None):
    """A root that was visited N times, and its children."""
    tree = Tree(())
    tree.add_children(0, list("abcdef")[:len(visits)], priors, first_play)
    tree.visits, tree.totals = [N, *visits], [N * mean, *totals]
    return tree


@pytest.mark.parametrize("q, chosen", [(0.125 - 0.001, 1), (0.125 + 0.001, 2)])
@pytest.mark.parametrize("N, c_init, c", [(4, 1.0, 1.0 + math.log(19657 / 19652)), (4, 3.0, 3.0 + math.log(19657 / 19652)),
                                          (19651, 1.0, 1.0 + math.log(2))])
def test_puct_weighs_value_and_prior_as_in_the_paper(q, chosen, N, c_init, c):
    """U = P c sqrt(N) / (1 + n) is 3/4 / 4 for the first child, 1/4 / 4 for the second one, both times c sqrt(N). So the second one
    needs a Q of 1/8 of that; c is c_init plus log((N + 19652 + 1) / 19652)."""
    tree = family([3, 3], [0.0, 3 * q * c * math.sqrt(N)], [0.75, 0.25], N)
    assert tree.select(c_init) == chosen


@pytest.mark.parametrize("mean, chosen", [(0.5 - 0.01, 1), (0.5 + 0.01, 2)])
def test_a_child_that_was_never_visited_is_worth_what_its_parent_is(mean, chosen):
    """With c near 0: the first child has Q = 1/2, the second one that of its parent."""
    assert family([4, 0], [2.0, 0.0], [0.5, 0.5], 4, mean).select(-math.log(19657 / 19652)) == chosen


def test_what_expand_said_of_a_child_counts_until_it_is_visited():
    off = -math.log(19657 / 19652)  # c = 0: no exploration
    assert family([0, 0], [0.0, 0.0], [0.9, 0.1], 4, 0.5, [0.2, 0.3]).select(off) == 2
    assert family([0, 1], [0.0, 0.1], [0.9, 0.1], 4, 0.5, [0.2, 0.3]).select(off) == 1


# ---- trees

def toy(values, depth=3, inner=0.5, log=None):
    """A binary tree: a state is the path, its actions "L" and "R"; the ends have the given values, all else is worth `inner`."""
    def expand(states):
        (log if log is not None else []).extend(states)
        ends = [len(s) - 1 == depth for s in states]
        return ([[] if end else ["L", "R"] for end in ends], [[] if end else [0.5, 0.5] for end in ends],
                [values(s[1:]) if end else inner for s, end in zip(states, ends)])
    return expand


def path(tree):
    """The most visited path."""
    j = 0
    while tree.count[j] > 0:
        j = max(tree.children(j), key=lambda k: tree.visits[k])
    return "".join(tree.states[j][1:])


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_the_best_end_is_found_and_the_root_is_worth_what_it_is(depth):
    """Trap 24: at every depth, odd or even, large is good. The true value of the root is 1; the mean comes near it."""
    for best in itertools.product("LR", repeat=depth):
        [tree] = mcts([("root",)], toy(lambda p: float(p == best), depth), 1500)
        assert path(tree) == "".join(best) and 0.9 < tree.value(0) < 1


def test_a_misleading_value_is_overruled_by_the_ends():
    """At first sight everything below L is worth 0.9; its ends are worth 0, those below R 0.6."""
    expand = toy(lambda p: 0.6 if p[0] == "R" else 0.0, depth=2)
    hopeful = lambda states: (*expand(states)[:2], [0.9 if s[1:] == ("L",) else v for s, v in zip(states, expand(states)[2])])
    [tree] = mcts([("root",)], hopeful, 1000)
    assert path(tree)[0] == "R" and tree.value(0) == pytest.approx(0.6, abs=0.03)


@pytest.mark.parametrize("simulations", [1, 2, 7, 50])
def test_no_visit_is_lost(simulations):
    """Trap 24: the root is visited once a simulation; each visit of a node goes on to a child, but for the one that opened it."""
    for tree in mcts([("a",), ("b",), ("c",)], toy(lambda p: p.count("L") / 3), simulations):
        assert tree.visits[0] == simulations == sum(tree.visits[k] for k in tree.children(0))
        for j in range(1, len(tree.states)):
            if tree.count[j] > 0:
                assert tree.visits[j] == 1 + sum(tree.visits[k] for k in tree.children(j))


def test_the_value_of_a_node_is_the_mean_of_what_was_found_below_it():
    """Trap 24: with its own value, once, and no sign that changes on the way up."""
    [tree] = mcts([("root",)], toy(lambda p: p.count("L") / 3 - 0.4, inner=0.25), 40)
    for j in range(len(tree.states)):
        below = sum(tree.totals[k] for k in tree.children(j))
        own = 0 if j == 0 else 0.25 if tree.count[j] > 0 else tree.visits[j] * tree.leaf_value[j]
        assert tree.totals[j] == pytest.approx(below + own)


def test_no_state_is_expanded_twice():
    """An end is asked about once, however often it is visited: 15 nodes, 15 questions."""
    log = []
    [tree] = mcts([("root",)], toy(lambda p: float(p[0] == "L"), log=log), 3000)
    assert len(log) == len(set(log)) == 15 and max(tree.visits[7:]) > 100


def test_a_root_that_is_an_end_is_visited_and_has_no_children():
    log = []
    [tree] = mcts([("root",)], toy(lambda p: 0.7, depth=0, log=log), 5)
    assert (tree.visits, len(tree.children(0)), len(log)) == ([5], 0, 1) and tree.value(0) == pytest.approx(0.7)


def uneven(states):
    """Trees of different sizes: the root (n,) allows n numbers after it; everything is worth its sum modulo 5."""
    sizes = [0 if sum(s[1:]) > s[0] else s[0] for s in states]
    return ([list(range(1, n + 1)) for n in sizes], [[1.0 / (1 + k) for k in range(n)] for n in sizes],
            [sum(s) % 5 / 5 for s in states])


def content(tree):
    return tree.states, tree.visits, tree.totals, tree.priors


@pytest.mark.parametrize("together", [1, 2, 3, 256])
def test_a_tree_grows_as_if_it_were_alone(together):
    """Trap 5: with few slots, trees that are done make room for those that wait."""
    roots = [(1,), (5,), (2,), (7,), (3,), (3,)]
    trees = mcts(roots, uneven, 25, together=together)
    assert [content(t) for t in trees] == [content(mcts([root], uneven, 25)[0]) for root in roots]


@pytest.mark.parametrize("together", [1, 2, 256])
def test_trees_advance_in_one_batch_but_never_more_than_together(together):
    sizes = []
    expand = lambda states: (sizes.append(len(states)), uneven(states))[1]
    mcts([(3,)] * 5, expand, 6, together=together)
    assert max(sizes) == sizes[0] == min(5, together)


def test_a_tree_that_has_had_enough_stops_and_the_others_go_on():
    asked = Counter()

    def stop(i):
        asked[i] += 1
        return i == 1 and asked[i] == 4  # the root is opened first, then three simulations

    visits = [tree.visits[0] for tree in mcts([(5,), (6,), (7,)], uneven, 20, stop=stop, together=2)]
    assert visits == [20, 3, 20]


def test_actions_are_appended_to_the_state_and_tuples_joined_to_it():
    expand = lambda states: ([["x", ("y", "z")] if len(s) == 1 else [] for s in states],
                             [[0.5, 0.5] if len(s) == 1 else [] for s in states], [0.0] * len(states))
    [tree] = mcts([("root",)], expand, 3)
    assert tree.states == [("root",), ("root", "x"), ("root", "y", "z")]


def test_priors_are_normalised():
    expand = lambda states: ([["x", "y"]] * len(states), [[3.0, 1.0]] * len(states), [0.0] * len(states))
    assert mcts([()], expand, 1)[0].priors[1:3] == [0.75, 0.25]


def test_children_that_look_good_are_visited_first():
    """The fourth list of expand. Without it the larger prior would go first."""
    def expand(states):
        open_ = [s == () for s in states]
        return ([["x", "y", "z"] if o else [] for o in open_], [[0.4, 0.3, 0.3] if o else [] for o in open_], [0.0] * len(states),
                [[0.1, 0.2, 9.0] if o else [] for o in open_])
    [tree] = mcts([()], expand, 1)
    assert tree.visits[1:] == [0, 0, 1]


def noisy(n, noise=0.25, together=256):
    return [content(t) for t in mcts([(4,), (3,), (5,), (4,)], uneven, 12, noise=noise, seed=seed(n), together=together)]


def test_the_seed_decides_about_the_noise():
    assert noisy(0) == noisy(0) == noisy(0, together=2) and noisy(0) != noisy(1)
    assert noisy(0)[0] != noisy(0)[3]  # the same root twice: each tree has noise of its own


def test_noise_is_mixed_into_the_priors_of_the_root_alone():
    """3/4 of the prior stays; the rest is drawn from a distribution with mean 1/4 each."""
    draws = []
    for n in range(400):
        [tree] = mcts([(4,)], uneven, 2, noise=0.25, seed=seed(n))
        plain = [1 / k / (25 / 12) for k in (1, 2, 3, 4)]  # 1, 1/2, 1/3, 1/4 add up to 25/12
        got = tree.priors[1:5]
        assert sum(got) == pytest.approx(1) and all(g >= 0.75 * p - 1e-9 for g, p in zip(got, plain))
        assert all(prior == pytest.approx(plain[j % 4]) for j, prior in enumerate(tree.priors[5:]))
        draws.append([(g - 0.75 * p) / 0.25 for g, p in zip(got, plain)])
    assert [sum(column) / 400 for column in zip(*draws)] == pytest.approx([0.25] * 4, abs=0.075)
    assert max(map(max, draws)) > 0.95  # alpha = 0.3: often nearly all of it goes to one child


def test_a_rendered_tree_names_the_visits():
    [tree] = mcts([("root",)], toy(lambda p: float(p[0] == "L"), 1), 10)
    first = tree.render(lambda before, after: after[len(before)])[0]
    assert first.split() == [str(tree.visits[1]), "visits", "value", "1.00", "prior", "0.50", "L"]


def test_the_first_choice_sees_the_priors():
    """Trap 40: the root is opened before it has a visit, and sqrt(0) would make the first choice blind."""
    expand = lambda states: ([[0, 1] if not s else [] for s in states], [[0.1, 0.9] if not s else [] for s in states],
                             [0.0 for _ in states])
    [tree] = mcts([()], expand, 1)
    assert [tree.visits[k] for k in tree.children(0)] == [0, 1]


# ---- two players

def minimax(values, depth, path=""):
    """The value of a path for the player who is to move there; `values` says it of the ends for the one who moved first."""
    if len(path) == depth:
        return values[path] * (-1) ** depth
    return max(-minimax(values, depth, path + move) for move in "LR")


def game(values, depth):
    """`toy` as a game: an end is worth what it is to the player who would be to move there, everything else 0."""
    return toy(lambda p: values["".join(p)] * (-1) ** depth, depth, inner=0.0)


def test_what_the_other_player_would_never_allow_is_not_hoped_for():
    """Left there is a 1, but the other one chooses there, and takes the -1. Right both are 0.25. One player would go left."""
    values = {"LL": 1.0, "LR": -1.0, "RL": 0.25, "RR": 0.25}
    [two], [one] = (mcts([("root",)], game(values, 2), 800, sign=sign) for sign in (-1, 1))
    assert two.most_visited()[1] == "R" and one.most_visited()[1] == "L"


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_two_players_find_the_minimax_value(depth):
    """Trap 24, at odd and at even depths: the root's mean goes to the exact value (kept for the player who is not to move there), and
    the most visited move is one that reaches it."""
    rng = random.Random(seed(depth))
    for _ in range(5):
        values = {"".join(p): float(rng.choice((-1, 0, 1))) for p in itertools.product("LR", repeat=depth)}
        [tree] = mcts([("root",)], game(values, depth), 3000, sign=-1)
        exact = minimax(values, depth)
        assert -tree.value(0) == pytest.approx(exact, abs=0.1)
        best = max(tree.children(0), key=lambda k: tree.visits[k])
        assert -minimax(values, depth, tree.states[best][1]) == exact


def test_the_sign_flips_at_every_node_on_the_way_up():
    """By hand: 0.5 for the player who is to move at the leaf is -0.5 for the one who moved there, 0.5 one above, -0.5 at the root."""
    tree = Tree((), sign=-1)
    tree.add_children(0, ["a"], [1.0])
    tree.add_children(1, ["b"], [1.0])
    tree.backup(2, 0.5)
    assert tree.totals == [-0.5, 0.5, -0.5] and tree.visits == [1, 1, 1]


def test_a_new_child_is_worth_what_was_said_of_its_parent_and_not_its_opposite():
    expand = lambda states: ([["x", "y"]] * len(states), [[0.5, 0.5]] * len(states), [0.75] * len(states))
    assert mcts([()], expand, 1, sign=-1)[0].first_play[1:3] == [0.75, 0.75]
    assert mcts([()], expand, 1)[0].first_play[1:3] == [None, None]
