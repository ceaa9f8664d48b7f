"""Four in a row on a small board: the rules, the solver against brute force, and who plays how well where the answer is known."""
import importlib
import pathlib
import random

import pytest
import torch

from toys import seed


@pytest.fixture
def games(monkeypatch):
    monkeypatch.syspath_prepend(str(pathlib.Path(__file__).parent.parent / "experiments"))
    return importlib.import_module("games")


def position(text):
    """Rows from the top, x moves next, o moved last: "...." is an empty row."""
    rows, p = text.split(), 0
    for height, row in enumerate(reversed(rows)):
        for column, stone in enumerate(row):
            p |= (stone == "x") << 5 * column + height | (stone == "o") << 20 + 5 * column + height
    return p


def played(games, columns):
    p = 0
    for c in columns:
        p = games.moves(p)[c]
    return p


def test_stones_fall_and_the_sides_change(games):
    assert played(games, [0]) == position("....  ....  ....  o...")
    assert played(games, [0, 0, 3]) == position("....  ....  x...  o..o")


def test_a_full_column_is_no_move(games):
    assert sorted(games.moves(played(games, [1, 1, 1, 1]))) == [0, 2, 3]


@pytest.mark.parametrize("text, won", [("o... o... o... o...", True), (".... .... .... oooo", True), ("...o ..o. .o.. o...", True),
                                       ("o... .o.. ..o. ...o", True), ("oooo .... .... ....", True), ("o... o... o... x...", False),
                                       ("ooo. ...o .... ....", False), (".... .... .ooo o...", False)])
def test_four_in_a_row_ends_the_game(games, text, won):
    """Neither three, nor four that go around the edge of the board, are a row."""
    p = position(text)
    assert games.four(p >> 20) == won and (games.moves(p) == {}) == won


def by_hand(board, mover):
    """Negamax with lists: nothing in common with experiments/games.py. board: 4 columns, lists of stones from below."""
    at = lambda x, y: board[x][y] if 0 <= x < 4 and 0 <= y < len(board[x]) else None
    for x in range(4):
        for y in range(4):
            for dx, dy in ((1, 0), (0, 1), (1, 1), (1, -1)):
                if {at(x + k * dx, y + k * dy) for k in range(4)} == {1 - mover}:
                    return -1
    found = []
    for column in board:
        if len(column) < 4:
            column.append(mover)
            found.append(-by_hand(board, 1 - mover))
            column.pop()
    return max(found, default=0)


def test_the_solver_agrees_with_brute_force(games):
    rng = random.Random(seed())
    for _ in range(20):
        columns, p = [[], [], [], []], 0
        for ply in range(11):
            if games.moves(p):
                c = rng.choice(list(games.moves(p)))
                columns[c].append(ply % 2)
                p = games.moves(p)[c]
        assert games.search(p) == by_hand(columns, p.bit_count() % 2)


def test_a_search_sees_as_far_as_its_plies(games):
    """x has three in a column: one ply sees the win. If o has them and it is x's turn, two plies see the answer, one does not."""
    mine, theirs = position("....  x...  x...  x.oo") , position("....  o...  o.x.  o.x.")
    assert games.search(mine, 0) == 0 and games.search(mine, 1) == 1
    one, two = (games.look_ahead(lambda qs, n=n: [games.search(q, n) for q in qs])([theirs])[0] for n in (0, 1))
    assert set(one.values()) == {0} and two == {0: 0, 1: -1, 2: -1, 3: -1}


def test_a_tree_finds_the_win_and_the_defence_without_any_network(games):
    rng, player = random.Random(seed()), games.tree_player(200, None, None)
    win, defence = position("....  x...  x...  x.oo"), position("....  o...  o.x.  o.x.")
    assert [games.best(looks, rng) for looks in player([win, defence])] == [0, 0]


def test_a_tree_with_the_exact_values_plays_right(games, monkeypatch):
    """Where leaves are worth their solved value, every move of the tree keeps the value."""
    uniform = lambda p: dict.fromkeys(games.moves(p), 0.25)
    monkeypatch.setattr(games, "judge", lambda net, ps: ([float(games.search(p)) for p in ps], [uniform(p) for p in ps]))
    rng = random.Random(seed())
    positions = [games.opening(rng, 8) for _ in range(50)]
    for p, looks in zip(positions, games.tree_player(30, None, None)(positions)):
        assert -games.search(games.moves(p)[games.best(looks, rng)]) == games.search(p)


def test_perfect_play_keeps_the_value_against_everybody(games):
    rng = random.Random(seed())
    perfect = games.look_ahead(lambda qs: [games.search(q) for q in qs])
    anybody = games.look_ahead(lambda qs: [0] * len(qs))
    openings = [games.opening(rng, 7) for _ in range(30)]
    assert games.match(perfect, perfect, openings, rng) == [games.search(p) for p in openings]
    assert all(won >= games.search(p) for won, p in zip(games.match(perfect, anybody, openings, rng), openings))
    assert all(won <= games.search(p) for won, p in zip(games.match(anybody, perfect, openings, rng), openings))


def test_probabilities_are_of_legal_moves_and_ends_have_their_result(games):
    net = torch.nn.Linear(40, 5)
    full, over = played(games, [1, 1, 1, 1]), position("o...  o...  o...  o...")
    values, policies = games.judge(net, [full, over])
    assert sorted(policies[0]) == [0, 2, 3] and sum(policies[0].values()) == pytest.approx(1)
    assert values[1] == -1 and policies[1] == {} and -1 < values[0] < 1


def test_both_heads_learn(games):
    """With a teacher that always takes the last column the policy comes to say so too."""
    rng = random.Random(seed())
    for net in games.learn(40, lambda ps: [{c: float(c == max(games.moves(p))) for c in games.moves(p)} for p in ps], rng):
        pass
    _, [policy] = games.judge(net, [0])
    assert max(policy, key=policy.get) == 3 and policy[3] > 0.5


def test_a_cell_and_its_report(games, tmp_path, monkeypatch):
    """In a plan of seconds; perfect play makes no mistake in it."""
    monkeypatch.setattr(games, "opening", lambda rng, plies, good=games.moves, draw=games.opening: draw(rng, max(plies, 8), good))
    plan = {"seeds": (0,), "steps": 4, "looks": 2, "positions": 5, "openings": 3, "pairs": 1, "simulations": 4}
    text, [panel] = games.report(tmp_path, plan, lambda cells: {words: games.cell(tmp_path, plan, *map(str, words)) for words in cells})
    assert "| perfect | 1.000 | 1.000 | " in text and len(text.splitlines()) == 14
    assert [len(x) for x, _ in panel["curves"].values()] == [2, 2]
