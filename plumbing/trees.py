"""search.py --trees FILE: how a search went, move by move, for the tab Search of view.py.

One line of the file is the tree of one problem:

    method, budget, problem, score, value    what was asked; who scores what is finished, and what is half done
    tokens, right, chosen                    what it has cost, whether the rule accepts what was chosen, and its text
    nodes     [parent, text, ended, right] of each node, in the order in which they came; node 0 is the prompt, its parent -1
    moves     in this order, `tokens` is the cost so far:
        mcts           {"leaf", "value", "children", "priors", "tokens"}: this leaf was selected, evaluated, opened; its
                       value went up to the root (not from the root itself, whose opening is no simulation)
        beams, rebase  {"scores": {node: score}, "widths": {node: how often it goes on}}: 0 is pruned
                       {"children": [nodes], "tokens"}: they were written on

Visits, means and totals follow from the moves: tests/test_view.py replays them and compares with tree.py.
"""
import json

METHODS = ("mcts", "beam_search", "rebase")
TREES = 12  # problems of each search that are written down


class Record:
    """What `context.record` is told. context: a SearchContext, before its search begins."""

    def __init__(self, context):
        self.context = context
        self.trees = {i: {"nodes": [[-1, context.problems[i].prompt, False, False]], "moves": []}
                      for i in range(min(TREES, len(context.problems)))}
        self.node_of = {i: {tuple(context.prompts[i]): 0} for i in self.trees}  # mcts: equal rows are one node
        self.beams = {i: [0] for i in self.trees}                               # beams: equal rows are different nodes

    def add(self, i, parent, before, row):
        """A new node: what `row` has more than `before`. -> its number"""
        context, nodes = self.context, self.trees[i]["nodes"]
        ended = context.ended(i, row)
        text = context.task.tokenizer.decode([t for t in row[len(before):] if t != context.eos])
        nodes.append([parent, text, ended, bool(context.right(i, row))])
        return len(nodes) - 1

    def move(self, i, **what):
        self.trees[i]["moves"].append({**what, "tokens": self.context.token_cost[i]})

    # ---- mcts

    def expanded(self, states, actions, priors, values):
        for (i, *row), steps, prior, value in zip(states, actions, priors, values):
            if i not in self.trees:
                continue
            known, children = self.node_of[i], []
            leaf = known[tuple(row)]
            for step in steps:
                longer = row + list(step)
                if tuple(longer) not in known:  # a root that was opened again draws old steps too
                    known[tuple(longer)] = self.add(i, leaf, row, longer)
                    children.append((known[tuple(longer)], prior[steps.index(step)] / sum(prior)))
            self.move(i, leaf=leaf, value=value, children=[node for node, _ in children], priors=[round(p, 4) for _, p in children])

    # ---- beams

    def allocated(self, i, scores, widths):
        if i in self.trees:
            beams = self.beams[i]
            if beams != [0]:
                self.move(i, scores=dict(zip(beams, scores)), widths=dict(zip(beams, widths)))
            self.beams[i] = [node for node, width in zip(beams, widths) for _ in range(width)]

    def grown(self, grow, longer):
        """grow: (problem, row) as often as a row goes on; longer: what became of them."""
        new = {i: [] for i in self.trees}
        for (i, before), row in zip(grow, longer):
            if i in new:
                new[i].append((self.add(i, self.beams[i][len(new[i])], before, row), row))
        for i, children in new.items():
            if children:
                self.move(i, children=[node for node, _ in children])
                self.beams[i] = [node for node, row in children if self.context.remaining(i, row)]

    # ---- the file

    def lines(self, rows, **what):
        """rows: what the search chose for each problem; what: method, budget, ... -> lines of JSON."""
        context = self.context
        return "".join(json.dumps({**what, "problem": context.problems[i].prompt, "tokens": context.token_cost[i],
                                   "right": bool(context.right(i, rows[i])), "chosen": context.text(i, rows[i]), **tree}) + "\n"
                       for i, tree in self.trees.items())
