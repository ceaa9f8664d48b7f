"""Monte-Carlo tree search as in AlphaZero, without any model: what a state is, and what it is worth, is the
business of `expand`.

The idea. Grow a tree where it promises most. One simulation walks from the root to a leaf, looks at it
once, and tells all nodes on the way what it saw:

    select    at each node to the child with the largest  Q(s, a) + U(s, a)
              Q = W / N, the mean of what was seen below;   U = P(s, a) c sqrt(max(1, N(s))) / (1 + N(s, a)),
              c = log((N(s) + c_base + 1) / c_base) + c_init        PUCT: high for what the policy likes and nobody has tried
    expand    ask for the leaf's actions, their priors P, and the leaf's value v
    backup    N += 1, W += v on the path

search.py plugs a language model in: a state is a half-written solution, an action the next step of it.
The tests plug in trees whose values are known.

The root is opened before the first simulation, when its N is 0: with sqrt(0) the first choice would not see
the priors at all.

Two players who move in turn (sign=-1; experiments/games.py): v is for the player who is to move. What is
good for one is bad for the other, so the sign flips at every node on the way up. The W of a node is for the
player who moved there, the one who chooses among its siblings: `select` is the same for one player and for two.

What is simplified: no virtual loss: many trees advance together, and each waits for its own leaf. Source:
AlphaZero, arXiv:1712.01815; for language models arXiv:2309.17179, with its constants.
"""
import math
import random


class Tree:
    """A search tree in flat arrays, one entry a node. Node 0 is the root."""

    def __init__(self, root, sign=1):
        self.sign = sign              # -1: two players, see above
        self.states, self.parents, self.priors = [root], [-1], [1.0]
        self.visits, self.totals = [0], [0.0]
        self.count = [-1]             # of children; -1: not opened yet; 0: an end
        self.below = [[]]             # the children themselves
        self.leaf_value = [0.0]       # what expand said about the state
        self.first_play = [None]      # first-play value: a child's worth before its first visit, if known
        self.exhausted = [False]      # mcts(skip_ends=True): nothing below this node is left to be looked at
        self.vain_draws = 0           # how often in a row an exhausted root had nothing new to offer

    def value(self, j):
        """Q: the mean of all that was found below node j."""
        return self.totals[j] / self.visits[j] if self.visits[j] else 0.0

    def add_children(self, j, actions, priors, first_play=None):
        """Open node j, or add to what it has. Actions that it has already are left out."""
        here = {self.states[k] for k in self.below[j]}
        for action, prior, first in zip(actions, priors, first_play or [None] * len(actions)):
            state = self.states[j] + (action if isinstance(action, tuple) else (action,))
            if state in here:
                continue
            self.below[j].append(len(self.states))
            for array, entry in ((self.states, state), (self.parents, j), (self.priors, prior), (self.visits, 0),
                                 (self.totals, 0.0), (self.count, -1), (self.below, []), (self.leaf_value, 0.0),
                                 (self.first_play, first), (self.exhausted, False)):
                array.append(entry)
        self.count[j] = len(self.below[j])

    def children(self, j):
        return self.below[j]

    def select(self, c_init, c_base=19652.0):
        """From the root to a leaf, always to the child with the largest Q + U that is not exhausted (of equals the
        first). A child without visits: Q is its first-play value, or if that is None its parent's. -> the leaf.
        """
        j = 0
        while self.count[j] > 0:
            N = self.visits[j]
            scale = (math.log((N + c_base + 1) / c_base) + c_init) * math.sqrt(max(1, N))
            mean = self.value(j)  # a child that nobody has looked at is worth what its parent is
            first = lambda k: mean if self.first_play[k] is None else self.first_play[k]
            Q = lambda k: self.value(k) if self.visits[k] else first(k)
            U = lambda k: scale * self.priors[k] / (1 + self.visits[k])
            j = max((k for k in self.below[j] if not self.exhausted[k]), key=lambda k: Q(k) + U(k))
        return j

    def exhaust(self, j):
        """Node j is done with, and so is every node above it that has no other child left."""
        while j >= 0 and all(self.exhausted[k] for k in self.below[j]):
            self.exhausted[j], j = True, self.parents[j]

    def most_visited(self):
        """The state at the end of the most visited path; among equally visited children the larger prior decides."""
        j = 0
        while self.count[j] > 0:
            j = max(self.below[j], key=lambda k: (self.visits[k], self.priors[k]))
        return self.states[j]

    def backup(self, j, value):
        """Tell node j, and all above it, that `value` was seen below them; with two players, by the one who is to move at j."""
        while j >= 0:
            value = self.sign * value
            self.visits[j] += 1
            self.totals[j] += value
            j = self.parents[j]

    def render(self, name, depth=4, width=3, j=0, indent=""):
        """The tree as text: visits, value, prior and `name(state before, state)` of the most visited nodes.
        A node that was never visited shows what it was worth at first sight."""
        lines = []
        for k in sorted(self.children(j), key=lambda k: (-self.visits[k], -self.priors[k]))[:width]:
            value = self.value(k) if self.visits[k] else self.first_play[k]
            shown = "    -" if value is None else f"{value:5.2f}"
            lines.append(f"{indent}{self.visits[k]:4} visits  value {shown}  prior {self.priors[k]:.2f}  "
                         f"{name(self.states[j], self.states[k])}")
            lines += self.render(name, depth - 1, width, k, indent + "    ") if depth > 1 else []
        return lines


def next_leaf(tree, simulations, c_init):
    """Where the next simulation of this tree ends -> a node that `expand` must be asked about, or None: it
    has had its simulations.

    A simulation that comes to an end which is known already needs no model: it is told to the tree at once,
    and the next one begins.
    """
    while tree.visits[0] < simulations:
        leaf = 0 if tree.exhausted[0] else tree.select(c_init)
        if tree.count[leaf] < 0 or tree.exhausted[0]:
            return leaf
        tree.backup(leaf, tree.leaf_value[leaf])
    return None


def mix_noise(priors, noise, alpha, rng):
    """(1 - noise) P + noise Dirichlet(alpha), AlphaZero's noise on the priors of a root. -> list"""
    draws = [rng.gammavariate(alpha, 1.0) for _ in priors]
    return [(1 - noise) * p + noise * g / sum(draws) for p, g in zip(priors, draws)]


def open_leaf(tree, leaf, actions, priors, value, first_play=None, skip_ends=False):
    """Expand and backup: put in the tree what `expand` has said about the leaf."""
    drawn_again = tree.exhausted[0]
    if tree.sign < 0 and first_play is None:  # the parent's Q is for the other player: a new child is worth what v said instead
        first_play = [value] * len(actions)
    tree.add_children(leaf, actions, priors, first_play)
    tree.leaf_value[leaf] = value
    if drawn_again:
        tree.exhausted[0] = all(tree.exhausted[k] for k in tree.below[0])
        tree.vain_draws = tree.vain_draws + 1 if tree.exhausted[0] else 0
    elif leaf:  # opening the root is not a simulation
        tree.backup(leaf, value)
        if skip_ends and tree.count[leaf] == 0:
            tree.exhaust(leaf)


def mcts(roots, expand, simulations, *, c_init=1.25, noise=0.0, alpha=0.3, seed=0, stop=None, together=256,
         skip_ends=False, sign=1):
    """Monte-Carlo tree search as in AlphaZero, on many trees at once, so that each call of the model is one
    large batch.

    roots: list of states, tuples. expand(states) -> actions, priors, values: for each state the list of its
    actions (none: it is an end), their prior probabilities, and the value of the state itself. Action a
    leads from state s to s + a (s + (a,) if a is not a tuple). All values are from the view of one player,
    who wants them large; with sign=-1 there are two, and a value is for the one who is to move. expand may
    return a fourth list: for each state what its children are worth at first sight; otherwise a child that
    was never visited counts as much as its parent. simulations: leaves visited in each tree. noise: weight of Dirichlet(alpha) noise on the priors of the root (AlphaZero:
    0.25). stop(i) -> bool: whether tree i has had enough. together: how many trees advance in step; when
    one is done the next takes its place. skip_ends: an end is looked at once and never again, and a tree
    without anything else draws new actions at its root: for sampled actions, where coming back to an end
    costs nothing and finds nothing. -> list of Tree. Unless it was stopped, the visits of a root are `simulations`, and
    those of its children add up to them.
    """
    trees, waiting, active = [Tree(root, sign) for root in roots], list(range(len(roots))), []
    while waiting or active:
        while waiting and len(active) < together:
            active.append(waiting.pop(0))
        leaves = [(i, next_leaf(trees[i], simulations, c_init)) for i in active]
        leaves = [(i, leaf) for i, leaf in leaves if leaf is not None]
        if leaves:
            answers = expand([trees[i].states[leaf] for i, leaf in leaves])
            for (i, leaf), actions, priors, value, *first_play in zip(leaves, *answers):
                total = sum(priors) or 1.0
                priors = [p / total for p in priors]
                if leaf == 0 and noise and priors:  # a generator for each tree: together or alone, it comes out the same
                    priors = mix_noise(priors, noise, alpha, random.Random(f"{seed} {i}"))
                open_leaf(trees[i], leaf, actions, priors, value, *(first_play or [None]), skip_ends=skip_ends)
        active = [i for i in active
                  if trees[i].visits[0] < simulations and trees[i].vain_draws < 10 and not (stop and stop(i))]
    return trees
