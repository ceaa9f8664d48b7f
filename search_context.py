"""What all methods of search share: writing on, what it has cost, and who says how good a solution is.

The idea. A method of search.py only decides where to branch and what to keep. For the rest it asks a
`SearchContext`:

    sample            write rows on, to the end or to the end of a reasoning step; every token goes to the token cost
    rule              is it right?                  only where the task is checkable, or on training problems
    verifier_score    a learned verifier or critic  reads a row, writes nothing
    from_rollouts     write on from here a few times; the share that the rule accepts        costs tokens
    own_confidence    the policy's own log-probs    all that is left without a rule and a verifier

A *row* is a list of token ids, a prompt and what has been written so far. Ids are passed on; text is never
encoded again. Rows travel with a `problem_index`, a list as long: row k belongs to problem
problem_index[k].

What is simplified: a reasoning step is sampled anew from the whole row; the cache of its parent is not
kept.
"""
import math

import torch

from sample import generate, last_values, score
from verifier import judged, rollout_values, scores_at

BATCH = 1024  # rows per call of the model


class SearchContext:
    """Some problems, the policy that writes, and the bill: token_cost[i] tokens were sampled for problem i.

    verifier: a ScalarModel, see checkpoint.load_verifier. aggregate: how its scores of the steps become one
    (last, min or product). rollouts: how many `from_rollouts` makes of each row.
    """

    def __init__(self, model, task, problems, max_new_tokens=0, temperature=1.0, generator=None, verifier=None,
                 aggregate="last", rollouts=2):
        self.model, self.task, self.problems = model, task, problems
        self.temperature, self.generator = temperature, generator
        self.verifier, self.aggregate, self.rollouts = verifier, aggregate, rollouts
        self.prompts = [task.tokenizer.encode(p.prompt) for p in problems]
        self.limit = max_new_tokens or task.max_new_tokens
        self.eos, self.pad = task.tokenizer.eos, task.tokenizer.pad
        [self.step_token], [self.end_of_thinking] = map(task.tokenizer.encode, (task.step_token, "</think>"))
        self.token_cost = [0] * len(problems)
        self.finished = {i: [] for i in range(len(problems))}  # whole solutions found so far, rollouts included
        self.calls = self.rows = 0  # of the model
        self.record = None          # plumbing/trees.py: somebody who writes down how the search went
        self.filled = []            # mcts: for each call, the share of the trees that may advance together and do

    # ---- rows

    def remaining(self, i, row):
        """The budget of a row of problem i: how many tokens it may still get; 0 once it has ended."""
        return 0 if self.ended(i, row) else len(self.prompts[i]) + self.limit - len(row)

    def ended(self, i, row):
        return len(row) > len(self.prompts[i]) and row[-1] == self.eos

    def text(self, i, row):
        return self.task.tokenizer.decode(row[len(self.prompts[i]):len(row) - self.ended(i, row)])

    def right(self, i, row):
        """The rule. For choosing only where the task is checkable; otherwise for the final count alone."""
        return self.ended(i, row) and self.task.verify(self.problems[i], self.text(i, row))

    def sample(self, problem_index, rows, stop=None, temperature=None, limits=None, forbid=None):
        """Write on: to the end, or to the token `stop`. -> the longer rows.

        limits: at most so many tokens each (list); forbid: a token that may not come next.
        """
        longer = []
        temperature = self.temperature if temperature is None else temperature
        for at in range(0, len(rows), BATCH):
            index, part = problem_index[at:at + BATCH], rows[at:at + BATCH]
            most = [self.remaining(i, row) for i, row in zip(index, part)]
            if limits:
                most = [min(pair) for pair in zip(most, limits[at:at + BATCH])]
            rollout = generate(self.model, part, most, temperature, eos=self.eos, pad=self.pad,
                               generator=self.generator, stop=stop, forbid=forbid)
            self.calls, self.rows = self.calls + 1, self.rows + len(part)
            for i, before, row, length in zip(index, part, rollout.tokens.tolist(), rollout.lengths.tolist()):
                longer.append(row[:length])
                self.token_cost[i] += length - len(before)
        return longer

    def candidates(self, n):
        """n whole solutions of every problem -> problem_index, rows; those of one problem are neighbours."""
        problem_index = [i for i in range(len(self.problems)) for _ in range(n)]
        return problem_index, self.sample(problem_index, [self.prompts[i] for i in problem_index])

    # ---- scores: (problem_index, rows) -> list of floats, the higher the better

    def rule(self, problem_index, rows):
        return [float(self.right(i, row)) for i, row in zip(problem_index, rows)]

    def verifier_score(self, problem_index, rows, shared=None):
        """What the learned verifier or critic says, as a probability.

        shared: for each row how many of its first tokens are also those of its neighbours; they are read
        only once.
        """
        squash = (lambda x: x.clamp(0, 1)) if self.verifier.kind == "ppo" else torch.sigmoid
        rows = [judged(self.verifier.kind, row, self.ended(i, row)) for i, row in zip(problem_index, rows)]
        if shared and self.aggregate == "last":
            shared = [min(n, len(row) - 1) for n, row in zip(shared, rows)]
            heads, tails = [row[:n] for row, n in zip(rows, shared)], [row[n:] for row, n in zip(rows, shared)]
            return squash(last_values(self.verifier, heads, tails)).tolist()
        positions = None
        if self.aggregate != "last":
            positions = [self.step_positions(i, row) for i, row in zip(problem_index, rows)]
        fold = {"last": lambda x: x[-1], "min": torch.min, "product": torch.prod}[self.aggregate]
        return [float(fold(squash(x))) for x in scores_at(self.verifier, rows, positions)]

    def step_positions(self, i, row):
        """Where the reasoning steps of a row end: at each `task.step_token`, and at the last token."""
        inside = [t for t in range(len(self.prompts[i]), len(row) - 1) if row[t] == self.step_token]
        return inside + [len(row) - 1]

    def from_rollouts(self, problem_index, rows):
        """The share of rollouts from here that the rule accepts."""
        limits = [self.remaining(i, row) for i, row in zip(problem_index, rows)]
        problems = [self.problems[i] for i in problem_index]
        right, _, rollout, open_rows = rollout_values(self.model, self.task, rows, problems, limits, self.rollouts,
                                                      self.temperature, self.generator)
        if rollout:
            for k, (row, length) in enumerate(zip(rollout.tokens.tolist(), rollout.lengths.tolist())):
                start = open_rows[k // self.rollouts]
                self.token_cost[problem_index[start]] += length - len(rows[start])
                self.finished[problem_index[start]].append(row[:length])
        return [float(right[k].float().mean()) if limits[k] else float(self.right(i, row))
                for k, (i, row) in enumerate(zip(problem_index, rows))]

    @torch.no_grad()
    def own_confidence(self, problem_index, rows):
        """exp of the policy's mean log-prob per token. A row without any token yet: 1/2."""
        found = []
        for at in range(0, len(rows), 256):
            part = rows[at:at + 256]
            longest = max(map(len, part))
            padded = [row + [self.pad] * (longest - len(row)) for row in part]
            logprobs, _ = score(self.model, torch.tensor(padded, device=self.model.device))  # (256, T)
            for i, row, line in zip(problem_index[at:at + 256], part, logprobs):
                start = len(self.prompts[i])
                found.append(math.exp(float(line[start:len(row)].mean())) if len(row) > start else 0.5)
        return found

    # ---- choosing

    def choose(self, problem_index, rows, scorer):
        """The best row of each problem by `scorer`; one that has not ended by itself comes last. -> rows."""
        best = {}
        for i, row, s in zip(problem_index, rows, scorer(problem_index, rows)):
            s = s if self.ended(i, row) else s - 1e6
            if i not in best or s > best[i][0]:
                best[i] = (s, row)
        return [best[i][1] for i in range(len(self.problems))]

    def choose_finished(self, scorer):
        """The best of all whole solutions that a search has come to. -> rows."""
        pairs = [(i, row) for i, rows in self.finished.items() for row in rows]
        return self.choose([i for i, _ in pairs], [row for _, row in pairs], scorer)
