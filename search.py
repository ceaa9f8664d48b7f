"""Search: buy accuracy with tokens, after training, on any checkpoint.

    python search.py RUN --method mcts --budget 512 --problems 200
    python search.py RUN --method all --budget 64,128,256,512 --verifier runs/prm

The idea. A policy that is right one time in four is right more often if it may try again, if somebody can
tell which try is good. All methods here spend tokens on several solutions, or parts of solutions, and
choose one. They differ in where they branch:

    greedy            one solution, the likeliest token each time
    sample            one solution after the other, until the rule accepts one
    best_of_n         n solutions at once; the one with the best score
    majority_vote     n solutions at once; the answer that most of them give (self-consistency, arXiv:2203.11171)
    beam_search       n partial solutions, grown step by step; after each step the better half goes on, twice
    rebase            the same, but each goes on as often as its score deserves (arXiv:2408.00724)
    mcts              a tree of steps, grown where value and prior promise most (AlphaZero-like: arXiv:2309.17179)
    budget_forcing    one solution that may not end its thinking before the budget is spent, and must afterwards
                      (arXiv:2501.19393)

A step is a reasoning step here: what ends in `task.step_token`. Two functions are handed to a method:
`scorer` scores finished solutions (--score), `value` half-finished ones (--value). Which there are, and
what they cost, is in search_context.py: the rule, where it needs no answer key (`task.checkable`: in
countdown the prompt says what is right); a learned verifier or critic; rollouts that the rule counts; the
policy's own log-probs.

The token cost. Every token that is sampled for a problem counts, also those of branches that were given up
and of rollouts: methods are compared at equal tokens, never at equal numbers of simulations. Reading is not
counted, as everywhere (a verifier reads, it does not write).

What is simplified: no virtual loss, because many trees advance together and each of them waits for its own
leaf.
"""
import sys

import torch

from config import InputError
from tree import mcts

METHODS = ("greedy", "sample", "best_of_n", "majority_vote", "beam_search", "rebase", "mcts", "budget_forcing")
TOGETHER = 128  # trees that advance at the same time


# ------------------------------------------------------------------------------------ whole solutions

def greedy(context):
    """The likeliest token each time. -> one row a problem."""
    return context.sample(range(len(context.problems)), context.prompts, temperature=0)


def sample(context, n):
    """Up to n solutions, one after the other; where the task is checkable the first right one ends it. -> rows."""
    rows, unsolved = [None] * len(context.problems), list(range(len(context.problems)))
    for _ in range(n if context.task.checkable else 1):
        for i, row in zip(unsolved, context.sample(unsolved, [context.prompts[i] for i in unsolved])):
            rows[i] = row
        unsolved = [i for i in unsolved if not context.right(i, rows[i])]
        if not unsolved:
            break
    return rows


def best_of_n(context, n, scorer):
    """n solutions at once; the one with the best score. -> rows."""
    return context.choose(*context.candidates(n), scorer)


def majority_vote(context, n, scorer=None):
    """n solutions at once; the answer with the most votes, or with `scorer` the most points. -> rows with
    this answer.

    Votes are counted on `task.canonical_answer`; solutions that have not ended, or hold no readable answer,
    do not vote. Of answers with equally many votes the one that came first wins; of its rows the first
    is returned. Without any vote: the first row of the problem.
    """
    problem_index, rows = context.candidates(n)
    points = scorer(problem_index, rows) if scorer else [1.0] * len(rows)
    chosen = []
    for i in range(len(context.problems)):
        votes, speaker = {}, {}
        for k in range(i * n, (i + 1) * n):
            ended = context.ended(i, rows[k])
            answer = context.task.canonical_answer(context.text(i, rows[k])) if ended else None
            if answer is not None:
                votes[answer] = votes.get(answer, 0.0) + points[k]
                speaker.setdefault(answer, rows[k])
        chosen.append(speaker[max(votes, key=votes.get)] if votes else rows[i * n])
    return chosen


def budget_forcing(context, budget):
    """Think for `budget` tokens: an earlier end of thinking is taken back, a later one is forced. -> rows.

    Taking back means that the token "</think>" may not come next, so the policy starts another attempt;
    unless the solution says that it has found the answer (`task.own_verdict`). The task's token limit
    holds: with it thinking ends, too.
    """
    task, rows, end = context.task, list(context.prompts), context.end_of_thinking
    most = min(budget, context.limit - task.min_new_tokens)  # tokens of thought; the rest is for the answer
    used = lambda i, row: len(row) - len(context.prompts[i])
    thinking, forbid = list(range(len(rows))), None
    while thinking:
        limits = [max(1, most - used(i, rows[i])) for i in thinking]
        longer = context.sample(thinking, [rows[i] for i in thinking], stop=end, limits=limits, forbid=forbid)
        still = []
        for i, row in zip(thinking, longer):
            if row[-1] == end and used(i, row) < most and not task.own_verdict(context.text(i, row)):
                row = row[:-1]  # taken back; it was sampled, so it has been paid for
                still.append(i)
            elif row[-1] not in (end, context.eos):
                row = row + [end]  # cut: not sampled, so it costs nothing
            rows[i] = row
        thinking, forbid = still, end
    return write_to_the_end(context, range(len(rows)), rows)


def write_to_the_end(context, problem_index, rows):
    """Rows that have not ended are written on, in one call. -> rows."""
    rows = list(rows)
    open_rows = [k for k, (i, row) in enumerate(zip(problem_index, rows)) if context.remaining(i, row)]
    if open_rows:
        longer = context.sample([problem_index[k] for k in open_rows], [rows[k] for k in open_rows])
        for k, row in zip(open_rows, longer):
            rows[k] = row
    return rows


# ------------------------------------------------------------------------------------ steps: beams

def top_k(scores, n):
    """Beam search: the better n/2 of the beams go on, each twice. scores (list) -> how often each is
    continued, n in all.

    >>> top_k([0.1, 0.9, 0.5, 0.2], 4)
    [0, 2, 2, 0]
    """
    best = sorted(range(len(scores)), key=lambda j: -scores[j])[:max(1, n // 2)]
    return [n // len(best) + (best.index(j) < n % len(best)) if j in best else 0 for j in range(len(scores))]


def rebase_allocation(scores, n, temperature=0.2):
    """REBASE: n softmax(score / T) continuations for each, rounded so that they add up to n.
    arXiv:2408.00724, equation 4.

    >>> rebase_allocation([0.5, 0.5, 0.1, 0.1], 8)
    [4, 4, 0, 0]
    >>> rebase_allocation([0.5, 0.4, 0.1], 5)                           # shares of 2.87, 1.74 and 0.39
    [3, 2, 0]
    """
    weights = torch.softmax(torch.tensor(scores, dtype=torch.float64) / temperature, 0)
    shares = (n * weights).tolist()
    widths = [int(x) for x in shares]
    for j in sorted(range(len(shares)), key=lambda j: int(shares[j]) - shares[j])[:n - sum(widths)]:
        widths[j] += 1
    return widths


def beam_search(context, n, value, scorer, allocation=top_k):
    """Grow n partial solutions step by step; after each step `allocation` says how often each of them goes
    on. -> rows.

    What has ended leaves, and takes a slot with it. `allocation=rebase_allocation` is REBASE.
    """
    beams = {i: [context.prompts[i]] for i in range(len(context.problems))}
    slots = dict.fromkeys(beams, n)
    while beams:
        problem_index, rows = [i for i in beams for _ in beams[i]], [row for i in beams for row in beams[i]]
        scores = iter(value(problem_index, rows) if len(rows) > len(beams) else [0.0] * len(rows))
        grow = []  # (problem, row), as often as the row goes on
        for i in beams:
            scored = [next(scores) for _ in beams[i]]
            widths = allocation(scored, slots[i])
            if context.record:
                context.record.allocated(i, scored, widths)
            grow += [(i, row) for row, width in zip(beams[i], widths) for _ in range(width)]
        longer = context.sample([i for i, _ in grow], [row for _, row in grow], stop=context.step_token)
        if context.record:
            context.record.grown(grow, longer)
        beams = {}
        for (i, _), row in zip(grow, longer):
            if context.remaining(i, row):
                beams.setdefault(i, []).append(row)
            else:
                context.finished[i].append(row)
                slots[i] -= 1
    return context.choose_finished(scorer)


# ------------------------------------------------------------------------------------ steps: a tree

class StepTrees:
    """What tree.mcts asks about a language model. A state is (problem, *row), an action a step: a tuple of ids."""

    def __init__(self, context, budget, value, scorer, width, root_width, together):
        self.context, self.budget, self.value, self.scorer = context, budget, value, scorer
        self.width = width
        self.root_width = min(root_width, max(2, budget // 20))  # a small budget is not for first steps alone
        self.batch = min(together, len(context.problems))
        self.solved, self.looked, self.known = set(), dict.fromkeys(context.finished, 0), {}

    def stop(self, i):
        """Whether the tree of problem i may stop: the rule has accepted something, or the budget is spent."""
        solutions = self.context.finished[i]
        new, self.looked[i] = solutions[self.looked[i]:], len(solutions)
        if self.scorer == self.context.rule and any(self.context.right(i, row) for row in new):
            self.solved.add(i)
        return i in self.solved or self.context.token_cost[i] >= self.budget

    def values(self, problem_index, rows, shared=None):
        """The values of some rows; each is asked for once. A row whose budget ran out has failed."""
        context = self.context
        ask = [k for k, (i, row) in enumerate(zip(problem_index, rows))
               if (i, *row) not in self.known and (context.remaining(i, row) or context.ended(i, row))]
        more = {"shared": [shared[k] for k in ask]} if shared and self.value == context.verifier_score else {}
        found = self.value([problem_index[k] for k in ask], [rows[k] for k in ask], **more) if ask else []
        self.known |= {(problem_index[k], *rows[k]): v for k, v in zip(ask, found)}
        return [self.known.get((i, *row), 0.0) for i, row in zip(problem_index, rows)]

    def draw(self, problem_index, rows):
        """-> for each row the different next steps that were drawn, and their priors: how often each of
        them was.

        That is the prior of a sampled step (Sampled MuZero, arXiv:2104.06303): the policy has had its say
        in the drawing, and to weigh the different ones by their probability as well would count it twice.
        """
        context, counts = self.context, [{} for _ in rows]
        is_root = [len(row) == len(context.prompts[i]) for i, row in zip(problem_index, rows)]
        wide = [k for k, (i, row) in enumerate(zip(problem_index, rows)) if context.remaining(i, row)
                for _ in range(self.root_width if is_root[k] else self.width)]
        index = [problem_index[k] for k in wide]
        longer = context.sample(index, [rows[k] for k in wide], stop=context.step_token) if wide else []
        for i, k, row in zip(index, wide, longer):
            step = tuple(row[len(rows[k]):])
            if step not in counts[k] and context.ended(i, row):
                context.finished[i].append(row)
            counts[k][step] = counts[k].get(step, 0) + 1
        return [list(c) for c in counts], [list(c.values()) for c in counts]

    def expand(self, states):
        """See tree.mcts: states -> actions, priors, values, and first-play values where reading costs no tokens."""
        problem_index, rows = [s[0] for s in states], [list(s[1:]) for s in states]
        self.context.filled.append(len(rows) / self.batch)
        values = self.values(problem_index, rows)
        actions, priors = self.draw(problem_index, rows)
        if self.context.record:
            self.context.record.expanded(states, actions, priors, values)
        if self.value == self.context.from_rollouts:
            return actions, priors, values
        children = [(k, step) for k in range(len(rows)) for step in actions[k]]
        index, longer = [problem_index[k] for k, _ in children], [rows[k] + list(step) for k, step in children]
        first_play = iter(self.values(index, longer, shared=[len(rows[k]) for k, _ in children]))
        return actions, priors, values, [[next(first_play) for _ in steps] for steps in actions]


def tree_search(context, budget, value, scorer, width=2, root_width=12, c_init=0.3, simulations=10_000, noise=0.0,
                seed=0, together=TOGETHER):
    """`mcts` over reasoning steps -> rows, trees.

    width, root_width: steps drawn at a node, and at the root, where the choice is widest. c_init: weight of
    the prior; AlphaZero's 1.25 is for values from -1 to 1 and many simulations. A tree stops when its
    problem has cost the budget, or when the rule, if it is the scorer, accepts a solution. If it came to
    none, the most visited path is written on.
    """
    steps = StepTrees(context, budget, value, scorer, width, root_width, together)
    roots = [(i, *prompt) for i, prompt in enumerate(context.prompts)]
    trees = mcts(roots, steps.expand, simulations, c_init=c_init, noise=noise, seed=seed, together=together,
                 skip_ends=True, stop=steps.stop)
    unfinished = [i for i, found in context.finished.items() if not found]
    paths = [list(trees[i].most_visited()[1:]) for i in unfinished]
    for i, row in zip(unfinished, write_to_the_end(context, unfinished, paths)):
        context.finished[i].append(row)
    return context.choose_finished(scorer), trees


# ------------------------------------------------------------------------------------ search while training

def main(argv=None):
    """The command: its flags and its table are in a room of their own, which imports this file."""
    from plumbing import search_command
    return search_command.main(argv)


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(print(f"error: {error}", file=sys.stderr) or 2)
