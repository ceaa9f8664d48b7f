"""A ladder for a game: search, a value from self-play, a policy by imitation, and MCTS with both, up to perfect play.

    python experiments/games.py            about 6 minutes of one core; goes on cell by cell where it was stopped
    python experiments/games.py --quick    1 minute

The claim (AlphaZero, arXiv:1712.01815): a policy says where to look, a value saves looking further, and a
tree with both plays better than either, and better than the teachers of both.

    v(s)  <-  max_a - v(s a),  an end: its result     the value network, one step of look-ahead, on positions of its own games
    pi(a | s)  <-  the moves of a search of 4 plies    the policy network, by imitation
    MCTS: tree.py with sign=-1, for two players; leaves are worth v, priors are pi

The game: four in a row on a board of 4 x 4, stones fall down. 161,029 positions; all of them are solved, and with perfect play it is
a draw. Measured: the share of right moves where some move is wrong (it changes the solved value), in 500 positions; how many of 100 drawn
openings of 4 random moves are held against perfect play, which draws its move among all the right ones; Elo from all pairs, 40 games each.
Three seeds of everything. What is simplified: no policy learned from the tree's visits, no symmetries, no noise at the root; moves are drawn
among equals. Results: docs/games.{md,json,png}.
"""
import itertools
import math
import random
from functools import lru_cache

from cells import main, spread

FULL = {"seeds": (0, 1, 2), "rounds": 300, "games": 600, "positions": 500, "openings": 100, "pairs": 20, "simulations": 32}
QUICK = {"seeds": (0,), "rounds": 60, "games": 100, "positions": 100, "openings": 20, "pairs": 4, "simulations": 32}
SIDE, HIGH = 4, (1 << 20) - 1  # a column is 5 bits, of which the highest stays empty; 20 bits a player


@lru_cache(None)
def moves(p):
    """A position is a number: the stones of the player to move in the low 20 bits, the other's above. -> {column: next position}."""
    mine, theirs = p & HIGH, p >> 20
    if four(theirs):
        return {}
    stones = {c: (mine | theirs) + (1 << 5 * c) & 15 << 5 * c for c in range(SIDE)}  # adding 1 carries up to the first empty place
    return {c: theirs | (mine | stone) << 20 for c, stone in stones.items() if stone}


def four(stones):
    """Is there a row of four: upright, across, or along a diagonal? Bits that lie 1, 5, 4 or 6 apart."""
    return any(stones & stones >> d & stones >> 2 * d & stones >> 3 * d for d in (1, 5, 4, 6))


@lru_cache(None)
def search(p, plies):
    """Negamax: what `plies` moves of look-ahead see, for the player to move: -1 lost, 0 drawn or not seen, 1 won."""
    if four(p >> 20):
        return -1
    return max((-search(q, plies - 1) for q in moves(p).values()), default=0) if plies else 0


def solved(p):
    """The exact value of a position: a search to the end of the game."""
    return search(p, SIDE * SIDE - bin(p).count("1"))


def opening(rng, plies, good=lambda p: True):
    """A position after so many random moves that is not over, and good."""
    while True:
        p = 0
        for _ in range(plies):
            p = rng.choice(list(moves(p).values()) or [p])
        if moves(p) and bin(p).count("1") == plies and good(p):
            return p


# ---- who plays: a function of a list of positions -> {column: how good the move looks} for each; the best is played

def searcher(plies):
    return lambda positions: [{c: -search(q, plies - 1) for c, q in moves(p).items()} for p in positions]


def network(out):
    import torch
    return torch.nn.Sequential(torch.nn.Linear(40, 128), torch.nn.ReLU(), torch.nn.Linear(128, 128), torch.nn.ReLU(), torch.nn.Linear(128, out))


def board(positions):
    import torch
    return (torch.tensor(positions)[:, None] >> torch.arange(40) & 1).float()


def values(net, positions):
    """For the player to move; ends are known."""
    import torch
    with torch.no_grad():
        said = net(board(positions))[:, 0].tanh().tolist()
    return [v if moves(p) else -1.0 if four(p >> 20) else 0.0 for p, v in zip(positions, said)]


def after(net, positions):
    """One ply on a value network: what each move leads to."""
    said = iter(values(net, [q for p in positions for q in moves(p).values()] or [0]))
    return [{c: -next(said) for c in moves(p)} for p in positions]


def priors(net, positions):
    import torch
    with torch.no_grad():
        rows = net(board(positions)).tolist()
    e = [{c: math.exp(row[c]) for c in moves(p)} for p, row in zip(positions, rows)]
    return [{c: x / sum(row.values()) for c, x in row.items()} for row in e]


def tree_player(simulations, value, policy):
    """MCTS; a network that is None: a leaf is worth 0 unless it is an end, all moves are equally likely."""
    from tree import mcts

    def expand(states):
        positions = [state[-1] for state in states]  # a state is the line of positions that leads there, an action the next one
        p = priors(policy, positions) if policy else [dict.fromkeys(moves(p), 1.0) for p in positions]
        v = values(value, positions) if value else [-float(four(p >> 20)) for p in positions]
        return [list(moves(p).values()) for p in positions], [list(row.values()) for row in p], v

    def play(positions):
        trees = mcts([(p,) for p in positions], expand, simulations, sign=-1)
        return [dict(zip(moves(p), ((tree.visits[k], tree.value(k)) for k in tree.children(0)))) for p, tree in zip(positions, trees)]
    return play


def best(looks, rng):
    """One of the moves that look best."""
    return rng.choice([c for c, good in looks.items() if good == max(looks.values())])


# ---- learning

def self_play(rounds, rng):
    """v <- max_a -v(s a) on 64 games at a time; a move in five is random, so that the games differ."""
    import torch
    net = network(1)
    optimizer, games, seen = torch.optim.Adam(net.parameters(), 1e-3), [0] * 64, []
    for _ in range(rounds * SIDE * SIDE):
        looks = after(net, games)
        seen = (seen + [(p, max(look.values())) for p, look in zip(games, looks)])[-4096:]
        batch = rng.sample(seen, min(len(seen), 256))
        loss = (net(board([p for p, _ in batch]))[:, 0].tanh() - torch.tensor([target for _, target in batch])).pow(2).mean()
        optimizer.zero_grad(), loss.backward(), optimizer.step()
        games = [moves(p)[rng.choice(list(moves(p))) if rng.random() < 0.2 else best(look, rng)] for p, look in zip(games, looks)]
        games = [p if moves(p) else 0 for p in games]
    return net
