"""A ladder for a game: search, a policy by imitation, a value from self-play, and a tree with both, up to perfect play.

    python experiments/games.py            about 4 minutes of one core; goes on cell by cell where it was stopped
    python experiments/games.py --quick    1 minute

The claim (AlphaZero, arXiv:1712.01815): a tree with a policy and a value plays better than either, and than the policy's teacher.

    v(s)  <-  max_a - v(s a)          by self-play: one ply of look-ahead, in positions of its own games and in random ones
    pi(a | s)  <-  best moves of the teacher, a search of 6 plies     by imitation, in the same positions
    MCTS  =  tree.py with sign=-1, for two players: leaves are worth v, priors are pi

The game: four in a row on 4 x 4, stones fall down: 161,029 positions, all solved, a draw. Measured: right moves, which keep the solved
value, where not all do; openings (4 random moves, drawn) held against perfect play; points against all others, a draw 1/2. Simplified: pi does
not learn from the tree; no noise, no symmetries; nothing is held out, but who learns sees no solved value. Results: docs/games.{md,json,png}.
"""
import math
import random
from functools import lru_cache

from cells import main, spread

FULL = {"seeds": (0, 1, 2), "steps": 1500, "looks": 5, "positions": 300, "openings": 100, "pairs": 10, "simulations": 64}
QUICK = {"seeds": (0,), "steps": 500, "looks": 2, "positions": 100, "openings": 20, "pairs": 2, "simulations": 64}
SIDE, LOW = 4, (1 << 20) - 1  # a column is 5 bits, of which the highest stays empty


@lru_cache(None)
def moves(p):
    """A position is a number: stones of the player to move in the low 20 bits, the other's above. -> {column: next position}"""
    taken = p & LOW | p >> 20
    stones = {c: taken + (1 << 5 * c) & ~taken & 15 << 5 * c for c in range(SIDE)}  # adding 1 carries up to the lowest empty place
    return {} if four(p >> 20) else {c: p >> 20 | (p & LOW | stone) << 20 for c, stone in stones.items() if stone}


def four(stones):
    """Is there a row of four: upright, across, or along a diagonal? Its bits lie 1, 5, 4 or 6 apart."""
    return any(stones & stones >> d & stones >> 2 * d & stones >> 3 * d for d in (1, 5, 4, 6))


@lru_cache(None)
def search(p, plies=SIDE * SIDE):
    """Negamax: what so many plies show, for the player to move: -1 lost, 0 drawn or not seen, 1 won. With all plies: the solved value."""
    if four(p >> 20):
        return -1
    plies = min(plies, SIDE * SIDE - p.bit_count())
    return max((-search(q, plies - 1) for q in moves(p).values()), default=0) if plies else 0


def opening(rng, plies, good=moves):
    """A position after so many random moves that is good."""
    p = 0
    for _ in range(plies):
        p = rng.choice([*moves(p).values()] or [p])
    return p if moves(p) and good(p) else opening(rng, plies, good)


def judge(net, positions):
    """-> values for the player to move, and {column: probability} of each position. None: it knows ends, and nothing else."""
    import torch
    bits = (torch.tensor(positions)[:, None] >> torch.arange(40) & 1).float()
    rows = net(bits).tolist() if net else [[0.0] * (1 + SIDE)] * len(positions)
    weights = [{c: math.exp(row[1 + c]) for c in moves(p)} for p, row in zip(positions, rows)]
    return ([math.tanh(row[0]) if moves(p) else -float(four(p >> 20)) for p, row in zip(positions, rows)],
            [{c: w / sum(row.values()) for c, w in row.items()} for row in weights])


def look_ahead(values):
    """A player: list of positions -> for each {column: how good the move looks}; here: how bad the next position is for the other one."""
    def player(positions):
        said = iter(values([q for p in positions for q in moves(p).values()]))
        return [{c: -next(said) for c in moves(p)} for p in positions]
    return player


def tree_player(simulations, value, policy):
    """A player that searches with two networks, or None: no values, no priors. A move is as good as its visits."""
    from tree import mcts

    def expand(states):  # a state is the line of positions that leads to it, an action the next position
        at = [state[-1] for state in states]
        return [[*moves(p).values()] for p in at], [[*row.values()] for row in judge(policy, at)[1]], judge(value, at)[0]

    def player(positions):
        trees = mcts([(p,) for p in positions], expand, simulations, sign=-1)
        return [dict(zip(moves(p), ((tree.visits[k], tree.value(k)) for k in tree.children(0)))) for p, tree in zip(positions, trees)]
    return player


def best(looks, rng):
    return rng.choice([c for c, good in looks.items() if good == max(looks.values())])


def learn(steps, teacher, rng):
    """Both networks, on 64 games at a time, a move in five random, and as many random positions. Yields them after every step."""
    import torch
    from torch.nn import Linear, ReLU, Sequential
    torch.manual_seed(rng.randrange(2**31))
    both = torch.nn.ModuleList(Sequential(Linear(40, 128), ReLU(), Linear(128, 128), ReLU(), Linear(128, out)) for out in (1, SIDE))
    net, optimizer, games, seen = lambda x: torch.cat([each(x) for each in both], 1), torch.optim.Adam(both.parameters()), [0] * 64, []
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 3e-3 * min(1, 2 * (1 - step / steps))
        at = games + [opening(rng, rng.randrange(13)) for _ in games]
        rows = look_ahead(lambda qs: judge(net, qs)[0])(at)
        tops = [[float(said.get(c) == max(said.values())) for c in range(SIDE)] for said in teacher(at)]
        seen = (seen + [(p, max(row.values()), top) for p, row, top in zip(at, rows, tops)])[-16384:]
        positions, v, a = (torch.tensor(x) for x in zip(*rng.sample(seen, min(len(seen), 512))))
        said = net((positions[:, None] >> torch.arange(40) & 1).float())
        loss = (said[:, 0].tanh() - v).pow(2).mean() + torch.nn.functional.cross_entropy(said[:, 1:], a / a.sum(1, keepdim=True))
        optimizer.zero_grad(), loss.backward(), optimizer.step()
        games = [moves(p)[rng.choice([*row]) if rng.random() < 0.2 else best(row, rng)] for p, row in zip(games, rows)]
        games = [p if moves(p) else opening(rng, rng.randrange(9)) for p in games]
        yield net


def match(first, second, openings, rng):
    """A game from each position, `first` to move -> results for `first`: 1, 0 or -1."""
    games = [*openings]
    for ply in range(SIDE * SIDE):
        live = [i for i, p in enumerate(games) if moves(p)]
        for i, row in zip(live, (second if ply % 2 else first)([games[i] for i in live]) if live else []):
            games[i] = moves(games[i])[best(row, rng)]
    return [-four(p >> 20) * (-1) ** (p.bit_count() - start.bit_count()) for p, start in zip(games, openings)]


def cell(folder, plan, seed):
    rng, fixed, curve = random.Random(f"games {seed}"), random.Random("positions"), []
    asked = [opening(fixed, fixed.randrange(2, 13), lambda p: len({*map(search, moves(p).values())}) > 1) for _ in range(plan["positions"])]
    drawn = [opening(fixed, 4, lambda p: search(p) == 0) for _ in range(plan["openings"])]
    tree = lambda value, policy: tree_player(plan["simulations"], value, policy)
    plies = lambda n: look_ahead(lambda qs: [search(q, n - 1) for q in qs])
    value = look_ahead(lambda qs: judge(net, qs)[0])
    right = lambda player: sum(-search(moves(p)[best(row, rng)]) == search(p) for p, row in zip(asked, player(asked))) / len(asked)
    for step, net in enumerate(learn(plan["steps"], plies(6), rng), 1):
        if step % (plan["steps"] // plan["looks"]) == 0:
            curve.append([step, right(value), right(tree(net, net))])
    players = {"random": look_ahead(lambda qs: [0] * len(qs)), "search, 2 plies": plies(2), "search, 6 plies": plies(6),
               "policy, imitates 6 plies": lambda ps: judge(net, ps)[1], "value, one ply": value, "MCTS alone": tree(None, None),
               "MCTS, policy": tree(None, net), "MCTS, value": tree(net, None), "MCTS, both": tree(net, net), "perfect": plies(99)}
    points = dict.fromkeys(players, 0.0)
    for a, b in [(a, b) for a in players for b in players if a != b]:  # each moves first in one of two games from an opening
        won = sum(match(players[a], players[b], drawn[:plan["pairs"]], rng)) / plan["pairs"]
        points[a], points[b] = points[a] + (1 + won) / 2, points[b] + (1 - won) / 2
    return {"curve": curve, "players": {name: {
        "right": right(player), "points": points[name] / (2 * len(players) - 2),
        "held": sum(x == 0 for x in match(player, players["perfect"], drawn, rng)) / len(drawn)} for name, player in players.items()}}


def report(folder, plan, get):
    results = [*get([(seed,) for seed in plan["seeds"]]).values()]
    lines = ["| player | right moves | drawn openings held | points against all others |", "|---|---|---|---|", *(
        f"| {name} | " + " | ".join(spread(r["players"][name][key] for r in results) for key in ("right", "held", "points")) + " |"
        for name in results[0]["players"])]
    curves = {f"{name}, seed {seed}": [*zip(*((look[0], look[k]) for look in r["curve"]))]
              for seed, r in zip(plan["seeds"], results) for k, name in ((1, "value, one ply"), (2, "MCTS, both"))}
    return "\n".join([*lines, "\n[What it means](claims.md)."]), [{"title": "right moves", "x": "steps of self-play", "y": "share", "curves": curves}]


if __name__ == "__main__":
    main(__file__, __doc__, cell, report, FULL, QUICK)
