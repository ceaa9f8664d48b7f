"""Search: buy accuracy with tokens, after training, on any checkpoint.

    python search.py RUN --method mcts --budget 512 --problems 200
    python search.py RUN --method all --budget 64,128,256,512 --judge runs/prm

The idea. A policy that is right one time in four is right more often if it may try again, if somebody can tell which try is good.
All methods here spend tokens on several solutions, or parts of solutions, and choose one. They differ in where they branch:

    greedy            one solution, the likeliest token each time
    sample            one solution after the other, until the rule accepts one
    best_of_n         n solutions at once; the one that the judge likes best
    majority_vote     n solutions at once; the answer that most of them give (self-consistency, arXiv:2203.11171)
    beam_search       n partial solutions, grown step by step; after each step the better half goes on, twice
    rebase            the same, but each goes on as often as its score deserves (arXiv:2408.00724)
    mcts              a tree of steps, grown where value and prior promise most (AlphaZero-like: arXiv:2309.17179)
    budget_forcing    one solution that may not end its thinking before the budget is spent, and must afterwards (arXiv:2501.19393)

Who judges (--score for the end, --value for what is half done): the rule, where it needs no answer key (`task.checkable`: in
countdown the prompt says what is right); a learned judge or critic; rollouts that the rule counts; or the policy's own log-prob.

The bill. Every token that is sampled for a problem counts, also those of branches that were given up and of rollouts: methods
are compared at equal tokens, never at equal numbers of simulations. Reading is not counted, as everywhere (a judge reads, it
does not write).

A *row* is a list of token ids, a prompt and what has been written so far. Ids are passed on; text is never encoded again.

What is simplified: a step is sampled anew from the whole row (the cache of the parent is not kept); no virtual loss, because
many trees advance together and each of them waits for its own leaf.
"""
import json
import math
import pathlib
import re
import sys
import time
from dataclasses import dataclass

import torch
from tqdm import tqdm

import checkpoint
from config import InputError, Parser, add_flags, from_flags, setting
from evaluate import fixed_problems, pick_device, progress, wilson
from sample import Rollout, generate, last_values, score
from tree import mcts
from verifier import rollout_values, scores_at

BATCH = 1024    # rows per call of the model
TOGETHER = 128  # trees that advance in step


class Desk:
    """Everything a method needs about some problems, and the bill: spent[i] tokens were sampled for problem i.

    `owners[k]` says which problem row k belongs to.
    """

    def __init__(self, model, task, problems, max_new_tokens=0, temperature=1.0, generator=None, judge=None, aggregate="last",
                 rollouts=2):
        self.model, self.task, self.problems, self.temperature, self.generator = model, task, problems, temperature, generator
        self.judge, self.aggregate, self.rollouts = judge, aggregate, rollouts
        self.prompts = [task.tokenizer.encode(p.prompt) for p in problems]
        self.limit = max_new_tokens or task.max_new_tokens
        self.eos, self.pad = task.tokenizer.eos, task.tokenizer.pad
        [self.step_token], [self.end_of_thinking] = task.tokenizer.encode(task.step_token), task.tokenizer.encode("</think>")
        self.spent = [0] * len(problems)
        self.finished = {i: [] for i in range(len(problems))}  # whole solutions that searching came to, rollouts included
        self.calls = self.rows = 0  # of the model
        self.filled = []            # mcts: share of the trees that may advance together that really do, for each call

    def room(self, owner, row):
        """How many tokens a row may still get; 0 once it has ended."""
        return 0 if self.ended(owner, row) else len(self.prompts[owner]) + self.limit - len(row)

    def ended(self, owner, row):
        return len(row) > len(self.prompts[owner]) and row[-1] == self.eos

    def text(self, owner, row):
        return self.task.tokenizer.decode(row[len(self.prompts[owner]):len(row) - self.ended(owner, row)])

    def right(self, owner, row):
        """The rule. For choosing only where the task is checkable; otherwise for the final count alone."""
        return self.ended(owner, row) and self.task.verify(self.problems[owner], self.text(owner, row))

    def sample(self, owners, rows, stop=None, temperature=None, limits=None, forbid=None):
        """Write on: to the end, or to the end of a step. -> the longer rows."""
        longer = []
        temperature = self.temperature if temperature is None else temperature
        for i in range(0, len(rows), BATCH):
            part = rows[i:i + BATCH]
            room = [self.room(o, row) for o, row in zip(owners[i:i + BATCH], part)]
            rollout = generate(self.model, part, [min(pair) for pair in zip(room, limits[i:i + BATCH])] if limits else room,
                               temperature, eos=self.eos, pad=self.pad, generator=self.generator, stop=stop, forbid=forbid)
            self.calls, self.rows = self.calls + 1, self.rows + len(part)
            for owner, row, length, new in zip(owners[i:i + BATCH], rollout.tokens.tolist(), rollout.lengths.tolist(),
                                               (rollout.lengths - rollout.prompt_lengths).tolist()):
                longer.append(row[:length])
                self.spent[owner] += new
        return longer

    def candidates(self, n):
        """n whole solutions of every problem -> owners, rows; those of one problem are neighbours."""
        owners = [i for i in range(len(self.problems)) for _ in range(n)]
        return owners, self.sample(owners, [self.prompts[i] for i in owners])

    # ---- judges: (owners, rows) -> list of floats, the higher the better

    def rule(self, owners, rows):
        return [float(self.right(o, row)) for o, row in zip(owners, rows)]

    def learned(self, owners, rows, shared=None):
        """The learned judge, as a probability. --aggregate: at the last token, or the minimum or product over the steps.

        shared: for each row how many of its first tokens are also those of its neighbours; they are read only once.
        """
        squash = (lambda x: x.clamp(0, 1)) if self.judge.kind == "ppo" else torch.sigmoid
        if shared and self.aggregate == "last":
            return squash(last_values(self.judge, [row[:n] for row, n in zip(rows, shared)],
                                      [row[n:] for row, n in zip(rows, shared)])).tolist()
        places = None
        if self.aggregate != "last":
            places = [[t for t in range(len(self.prompts[o]), len(row) - 1) if row[t] == self.step_token] + [len(row) - 1]
                      for o, row in zip(owners, rows)]
        fold = {"last": lambda x: x[-1], "min": torch.min, "product": torch.prod}[self.aggregate]
        return [float(fold(squash(x))) for x in scores_at(self.judge, rows, places)]

    def from_rollouts(self, owners, rows):
        """The share of rollouts from here that the rule accepts."""
        limits = [self.room(o, row) for o, row in zip(owners, rows)]
        right, _, rollout, open_rows = rollout_values(self.model, self.task, rows, [self.problems[o] for o in owners], limits,
                                                      self.rollouts, self.temperature, self.generator)
        if rollout:
            for k, (row, length) in enumerate(zip(rollout.tokens.tolist(), rollout.lengths.tolist())):
                i = open_rows[k // self.rollouts]
                self.spent[owners[i]] += length - len(rows[i])
                self.finished[owners[i]].append(row[:length])
        return [float(right[i].float().mean()) if limits[i] else float(self.right(o, row))
                for i, (o, row) in enumerate(zip(owners, rows))]

    @torch.no_grad()
    def own_confidence(self, owners, rows):
        """The policy's mean log-prob per token, as a probability: all that is left where there is no rule and no judge."""
        found = []
        for i in range(0, len(rows), 256):
            part = rows[i:i + 256]
            longest = max(map(len, part))
            tokens = torch.tensor([row + [self.pad] * (longest - len(row)) for row in part], device=self.model.device)
            logprobs, _ = score(self.model, tokens)
            for o, row, line in zip(owners[i:i + 256], part, logprobs):
                start = len(self.prompts[o])
                found.append(math.exp(float(line[start:len(row)].mean())) if len(row) > start else 0.5)
        return found

    def choose_finished(self, judge):
        """The best of all whole solutions that a search has come to."""
        pairs = [(i, row) for i, rows in self.finished.items() for row in rows]
        return self.choose([i for i, _ in pairs], [row for _, row in pairs], judge)

    def choose(self, owners, rows, judge):
        """The best row of each problem by `judge`; one that has not ended by itself comes last. -> list, a row for each problem."""
        ended = [self.ended(o, row) for o, row in zip(owners, rows)]
        scores = [s if e else s - 1e6 for s, e in zip(judge(owners, rows), ended)]
        best = {}
        for owner, row, s in zip(owners, rows, scores):
            if owner not in best or s > best[owner][0]:
                best[owner] = (s, row)
        return [best[i][1] for i in range(len(self.problems))]


# ------------------------------------------------------------------------------------------ whole solutions

def greedy(desk):
    """The likeliest token each time. -> one row a problem."""
    return desk.sample(range(len(desk.problems)), desk.prompts, temperature=0)


def sample(desk, n):
    """Up to n solutions, one after the other; where the rule may judge, the first that it accepts is the last. -> rows."""
    rows, open_problems = [None] * len(desk.problems), list(range(len(desk.problems)))
    for _ in range(n if desk.task.checkable else 1):
        for i, row in zip(open_problems, desk.sample(open_problems, [desk.prompts[i] for i in open_problems])):
            rows[i] = row
        open_problems = [i for i in open_problems if not desk.right(i, rows[i])]
        if not open_problems:
            break
    return rows


def best_of_n(desk, n, judge):
    """n solutions at once; the judge chooses. -> rows."""
    return desk.choose(*desk.candidates(n), judge)


def majority_vote(desk, n, judge=None):
    """n solutions at once; the answer with the most votes, or with `judge` the most points. -> rows, one that gives this answer.

    Votes are counted on `task.canonical_answer`; solutions without a readable answer do not vote. Of answers with equally many
    votes the one that came first wins.
    """
    owners, rows = desk.candidates(n)
    points = judge(owners, rows) if judge else [1.0] * len(rows)
    chosen = []
    for i in range(len(desk.problems)):
        votes, speaker = {}, {}
        for k in range(i * n, (i + 1) * n):
            answer = desk.task.canonical_answer(desk.text(i, rows[k])) if desk.ended(i, rows[k]) else None
            if answer is not None:
                votes[answer] = votes.get(answer, 0.0) + points[k]
                speaker.setdefault(answer, rows[k])
        chosen.append(speaker[max(votes, key=votes.get)] if votes else rows[i * n])
    return chosen


def budget_forcing(desk, budget):
    """Think for `budget` tokens: an earlier end of thinking is taken back, a later one is forced. -> rows.

    Taking back means that the token "</think>" may not come next, so the policy starts another attempt; unless the solution
    says that it has found the answer (`task.own_verdict`). The task's token limit holds: with it the room for thinking ends.
    """
    task, owners = desk.task, list(range(len(desk.problems)))
    rows, answer_room = list(desk.prompts), task.min_new_tokens
    thinking, forbid = set(owners), None
    while thinking:
        part = sorted(thinking)
        most = min(budget, desk.limit - answer_room)
        limits = [max(1, most - (len(rows[i]) - len(desk.prompts[i]))) for i in part]
        longer = desk.sample(part, [rows[i] for i in part], stop=desk.end_of_thinking, limits=limits, forbid=forbid)
        for i, row in zip(part, longer):
            used = len(row) - len(desk.prompts[i])
            on = row[-1] == desk.end_of_thinking and used < most and not task.own_verdict(desk.text(i, row))
            if on:
                row = row[:-1]  # suppressed; it was sampled, so it has been paid for
            elif row[-1] not in (desk.end_of_thinking, desk.eos):
                row = row + [desk.end_of_thinking]  # cut: not sampled, so it costs nothing
            rows[i] = row
            if not on:
                thinking.discard(i)
        forbid = desk.end_of_thinking
    part = [i for i in owners if desk.room(i, rows[i])]
    for i, row in zip(part, desk.sample(part, [rows[i] for i in part]) if part else []):
        rows[i] = row
    return rows


# ------------------------------------------------------------------------------------------ steps: beams

def halves(scores, n):
    """Beam search: the better half of the beams goes on, each twice. scores (list) -> how often each is continued, n in all.

    >>> halves([0.1, 0.9, 0.5, 0.2], 4)
    [0, 2, 2, 0]
    """
    order = sorted(range(len(scores)), key=lambda j: -scores[j])[:max(1, n // 2)]
    return [(n // len(order) + (order.index(j) < n % len(order))) if j in order else 0 for j in range(len(scores))]


def balanced(scores, n, temperature=0.2):
    """REBASE: n softmax(score / T) continuations for each, rounded so that they add up to n. Source: arXiv:2408.00724, equation 4.

    >>> balanced([0.5, 0.5, 0.1, 0.1], 8)
    [4, 4, 0, 0]
    """
    weights = torch.softmax(torch.tensor(scores, dtype=torch.float64) / temperature, 0)
    shares = (n * weights).tolist()
    widths = [int(x) for x in shares]
    for j in sorted(range(len(shares)), key=lambda j: int(shares[j]) - shares[j])[:n - sum(widths)]:
        widths[j] += 1
    return widths


def beam_search(desk, n, value, judge, widths=halves):
    """Grow n partial solutions step by step; after each step `widths` says how often each of them goes on. -> rows.

    value: judges what is half done; judge: chooses among the finished. What has ended leaves, and takes a place with it.
    `widths=balanced` is REBASE.
    """
    beams = {i: [desk.prompts[i]] for i in range(len(desk.problems))}
    places = dict.fromkeys(beams, n)
    while beams:
        owners, rows = [i for i in beams for _ in beams[i]], [row for i in beams for row in beams[i]]
        scores = iter(value(owners, rows) if len(rows) > len(beams) else [0.0] * len(rows))
        grow = [(i, row) for i in beams for row, width in zip(beams[i], widths([next(scores) for _ in beams[i]], places[i]))
                for _ in range(width)]
        longer = desk.sample([i for i, _ in grow], [row for _, row in grow], stop=desk.step_token)
        beams = {}
        for (i, _), row in zip(grow, longer):
            if desk.room(i, row):
                beams.setdefault(i, []).append(row)
            else:
                desk.finished[i].append(row)
                places[i] -= 1
    return desk.choose_finished(judge)


# ------------------------------------------------------------------------------------------ steps: a tree

def tree_search(desk, budget, value, judge, width=2, root_width=12, c_init=0.3, simulations=10_000, noise=0.0, seed=0,
                together=TOGETHER):
    """`mcts` over steps of reasoning -> rows, trees. A state is (problem, *row); an action is a tuple of token ids, one step.

    width, root_width: steps drawn at a node, and at the root, where the choice is widest. c_init: weight of the prior;
    AlphaZero's 1.25 is for values from -1 to 1 and many simulations. value: judges the leaves. judge: chooses among the
    solutions that the tree has come to. A tree stops when its problem has spent the budget, or when the rule, if it is the
    judge, accepts a solution. If it came to none, the most visited path is written on.
    """
    root_width = min(root_width, max(2, budget // 20))  # a small budget is not to be spent on first steps alone
    solutions = desk.finished
    solved, looked = set(), dict.fromkeys(solutions, 0)

    def enough(i):
        """Whether the tree of problem i may stop: the rule has accepted something, or the budget is spent."""
        if judge == desk.rule and i not in solved and any(desk.right(i, row) for row in solutions[i][looked[i]:]):
            solved.add(i)
        looked[i] = len(solutions[i])
        return i in solved or desk.spent[i] >= budget

    reads = value != desk.from_rollouts  # judging by reading costs no tokens, so children are judged as soon as they are there
    known = {}

    def judged(owners, rows, **shared):
        """The values of some rows; each is asked for once. A row that ran out of room has failed."""
        ask = [k for k, (o, row) in enumerate(zip(owners, rows))
               if (o, *row) not in known and (desk.room(o, row) or desk.ended(o, row))]
        shared = {name: [lengths[k] for k in ask] for name, lengths in shared.items() if value == desk.learned}
        for k, v in zip(ask, value([owners[k] for k in ask], [rows[k] for k in ask], **shared) if ask else []):
            known[owners[k], *rows[k]] = v
        return [known.get((o, *row), 0.0) for o, row in zip(owners, rows)]

    def expand(states):
        owners, rows = [s[0] for s in states], [list(s[1:]) for s in states]
        desk.filled.append(len(rows) / min(together, len(desk.problems)))
        values, actions, priors = judged(owners, rows), [[] for _ in rows], [[] for _ in rows]
        wide = [k for k in range(len(rows)) if desk.room(owners[k], rows[k])
                for _ in range(root_width if len(rows[k]) == len(desk.prompts[owners[k]]) else width)]
        longer = desk.sample([owners[k] for k in wide], [rows[k] for k in wide], stop=desk.step_token) if wide else []
        for k, row in zip(wide, longer):
            action = tuple(row[len(rows[k]):])
            if action not in actions[k]:
                actions[k].append(action)
                priors[k].append(0)
                if desk.ended(owners[k], row):
                    solutions[owners[k]].append(row)
            # The prior of a sampled step is how often it was drawn (Sampled MuZero, arXiv:2104.06303): the policy has had its say
            # in the drawing, and to weigh the different ones by their probability as well would count it twice.
            priors[k][actions[k].index(action)] += 1
        if not reads:
            return actions, priors, values
        each = [(k, a) for k in range(len(rows)) for a in actions[k]]
        hopes = iter(judged([owners[k] for k, _ in each], [rows[k] + list(a) for k, a in each],
                            shared=[len(rows[k]) for k, _ in each]))
        return actions, priors, values, [[next(hopes) for _ in of_one] for of_one in actions]

    trees = mcts([(i, *prompt) for i, prompt in enumerate(desk.prompts)], expand, simulations, c_init=c_init, noise=noise,
                 seed=seed, together=together, skip_ends=True,
                 stop=enough)
    unfinished = [i for i in solutions if not solutions[i]]
    rows = []
    for i in unfinished:
        tree, j = trees[i], 0
        while tree.count[j] > 0:
            j = max(tree.children(j), key=lambda k: (tree.visits[k], tree.priors[k]))
        rows.append(list(tree.states[j][1:]))
    part = [k for k, i in enumerate(unfinished) if desk.room(i, rows[k])]
    for k, row in zip(part, desk.sample([unfinished[k] for k in part], [rows[k] for k in part]) if part else []):
        rows[k] = row
    for i, row in zip(unfinished, rows):
        solutions[i].append(row)
    return desk.choose_finished(judge), trees


def expert(model, task, config, generator=None):
    """Expert iteration: a `collect(problems) -> Rollout` that searches, for an algorithm that imitates what it is given.

    config: has `expert` ("best_of_n" or "mcts"), `expert_budget`, `temperature`, `max_new_tokens`. One solution a problem.
    These are training problems, so the rule may judge, whatever the task. Tokens that were spent and not used are in `discarded`.
    """
    def collect(problems):
        desk = Desk(model, task, problems, config.max_new_tokens, config.temperature, generator, rollouts=1)
        if config.expert == "mcts":
            rows, _ = tree_search(desk, config.expert_budget, desk.from_rollouts, desk.rule)
        else:
            rows = best_of_n(desk, max(1, config.expert_budget // desk.limit), desk.rule)
        tokens = torch.tensor([row + [desk.pad] * (max(map(len, rows)) - len(row)) for row in rows], device=model.device)
        starts, lengths = (torch.tensor([len(x) for x in xs], device=model.device) for xs in (desk.prompts, rows))
        place = torch.arange(tokens.shape[1], device=model.device)
        mask = (place >= starts[:, None]) & (place < lengths[:, None])
        with torch.no_grad():
            logprobs = torch.cat([score(model, part, config.temperature)[0] for part in tokens.split(256)]).masked_fill(~mask, 0.0)
        return Rollout(tokens, starts, lengths, mask, logprobs, tokens.gather(1, lengths[:, None] - 1)[:, 0] == desk.eos, problems,
                       discarded=sum(desk.spent) - int(mask.sum()))
    return collect


# ------------------------------------------------------------------------------------------ what can be known exactly

def best_of_n_distribution(p, scores, n):
    """The distribution of the best of n independent samples. p, scores: lists over the outcomes; ties go to chance. -> list.

    With F(s) = P(score <= s): P(the best has score s) = F(s)^n - F(< s)^n, shared among the outcomes of that score like p is.

    >>> [round(x, 3) for x in best_of_n_distribution([0.5, 0.25, 0.25], [0.0, 1.0, 1.0], 2)]
    [0.25, 0.375, 0.375]
    """
    found = []
    for p_i, s in zip(p, scores):
        upto, tied = sum(q for q, t in zip(p, scores) if t <= s), sum(q for q, t in zip(p, scores) if t == s)
        found.append(p_i / tied * (upto ** n - max(0.0, upto - tied) ** n) if tied else 0.0)
    return found


def best_of_n_kl(p, scores, n):
    """KL(best of n || one sample) in nats, exactly. Never above log n - (n - 1)/n, and far below it where scores tie."""
    return sum(q * math.log(q / p_i) for q, p_i in zip(best_of_n_distribution(p, scores, n), p) if q > 0)


def best_of_n_kl_bound(n):
    """log n - (n - 1)/n: the KL if no two outcomes tie and none has a probability that matters (arXiv:2401.01879)."""
    return math.log(n) - (n - 1) / n


def vote_accuracy(p, right, n):
    """The chance that n votes elect answer `right`, exactly. p: list of the answers' probabilities; ties are drawn by lot.

    As n grows it goes to 1 if no other answer is more probable than the right one, and to 0 if one is: votes find the likeliest
    answer, not the truth.

    >>> round(vote_accuracy([0.6, 0.4], 0, 3), 4)                       # 0.6^3 + 3 * 0.6^2 * 0.4
    0.648
    """
    others, total = [q for j, q in enumerate(p) if j != right and q > 0], 0.0
    term = lambda q, k: math.exp(k * math.log(q) - math.lgamma(k + 1))  # q^k / k!
    for c in range(1, n + 1 if p[right] > 0 else 1):  # c votes for the right answer
        ways = {(0, 0): 1.0}  # m, t: m votes for the others, at most c for each, and exactly c for t of them
        for q in others:
            grown = {}
            for (m, t), w in ways.items():
                for k in range(min(c, n - c - m) + 1):
                    key = (m + k, t + (k == c))
                    grown[key] = grown.get(key, 0.0) + w * term(q, k)
            ways = grown
        share = sum(w / (1 + t) for (m, t), w in ways.items() if m == n - c)
        if share:
            total += math.exp(math.lgamma(n + 1) + c * math.log(p[right]) - math.lgamma(c + 1) + math.log(share))
    return total


def vote_limit(p, right):
    """What infinitely many votes elect: the chance that it is answer `right`. 1, 0, or a share if several are equally probable."""
    return (1.0 / p.count(max(p))) if p[right] == max(p) else 0.0


# ------------------------------------------------------------------------------------------ the command

METHODS = ("greedy", "sample", "best_of_n", "majority_vote", "beam_search", "rebase", "mcts", "budget_forcing")


@dataclass
class SearchConfig:
    """search"""
    method: str = setting("mcts", f"one of {', '.join(METHODS)}; several with commas; all")
    budget: str = setting("512", "tokens per problem to aim at, whole numbers with commas between them")
    problems: int = setting(200, "how many", low=1, high=10**6)
    split: str = setting("test", "which problems; tune on val, never on test", choices=("train", "val", "test"))
    judge: str = setting("", "run with a judge (orm, prm, rm) or a critic (ppo); empty: the run's own critic, if it has one")
    score: str = setting("auto", "who chooses among finished solutions; auto: the rule if the task is checkable, else the judge, "
                         "else the policy's own confidence", choices=("auto", "rule", "judge", "confidence"))
    value: str = setting("auto", "who judges what is half done; auto: the judge, else rollouts if the task is checkable, else "
                         "confidence", choices=("auto", "critic", "judge", "rollouts", "confidence"))
    aggregate: str = setting("last", "how a judge's scores of the steps become one", choices=("last", "min", "product"))
    rollouts: int = setting(1, "rollouts for the value of a leaf", low=1, high=10**4)
    width: int = setting(2, "mcts: steps drawn at a node", low=1, high=10**4)
    root_width: int = setting(12, "mcts: steps drawn at the root", low=1, high=10**4)
    c_init: float = setting(0.3, "mcts: how much the prior counts against the value", low=0.0, high=1e6)
    noise: float = setting(0.0, "mcts: weight of Dirichlet noise at the root", low=0.0, high=1.0)
    weighted: bool = setting(False, "majority_vote: the judge weighs the votes")
    temperature: float = setting(1.0, "sampling temperature", low=0.01, high=10.0)
    seed: int = setting(0, "of the samples; the problems are always the same", low=0, high=2**31 - 1)
    device: str = setting("auto", "where to compute", choices=("auto", "cpu", "cuda", "mps"))
    render: bool = setting(False, "mcts: print the tree of the first problem")
    out: str = setting("", "folder for search.json and, with matplotlib, search.png")


def typical_length(desk):
    """Mean tokens of one solution, from 64 training problems: what turns a budget into a number of solutions. Not on the bill."""
    other = Desk(desk.model, desk.task, fixed_problems(desk.task, "train", 64), desk.limit, desk.temperature,
                 torch.Generator(desk.model.device).manual_seed(1))
    other.candidates(1)
    return sum(other.spent) / 64


def judges(desk, c):
    """--score and --value -> the two functions. InputError if what they ask for is not there."""
    if c.score == "rule" and not desk.task.checkable:
        raise InputError(f"--score rule: in {desk.task.name} the rule needs the answer key; use a judge")
    for name, asked in (("score", c.score), ("value", c.value)):
        if asked in ("judge", "critic") and desk.judge is None:
            raise InputError(f"--{name} {asked}: this run has no critic; name a run that has one, or a judge, with --judge RUN")
    if c.value == "critic" and desk.judge.kind != "ppo":
        raise InputError(f"--value critic: --judge is a run of --algo {desk.judge.kind}; use --value judge")
    if c.value == "rollouts" and not desk.task.checkable:
        raise InputError(f"--value rollouts: in {desk.task.name} the rule needs the answer key; use a judge")
    best = "judge" if desk.judge else "confidence"
    known = {"rule": desk.rule, "judge": desk.learned, "critic": desk.learned, "rollouts": desk.from_rollouts,
             "confidence": desk.own_confidence}
    score_by = ("rule" if desk.task.checkable else best) if c.score == "auto" else c.score
    value_by = (best if desk.judge else "rollouts" if desk.task.checkable else best) if c.value == "auto" else c.value
    return known[score_by], known[value_by], score_by, value_by


def run_method(desk, method, budget, c, typical):
    """One method at one budget -> rows, trees (mcts only)."""
    judge, value, _, _ = judges(desk, c)
    n = max(1, round(budget / typical))
    if method == "mcts":
        return tree_search(desk, budget, value, judge, c.width, c.root_width, c.c_init, noise=c.noise, seed=c.seed)
    rows = {"greedy": lambda: greedy(desk), "sample": lambda: sample(desk, n), "best_of_n": lambda: best_of_n(desk, n, judge),
            "majority_vote": lambda: majority_vote(desk, n, judge if c.weighted else None),
            "beam_search": lambda: beam_search(desk, n, value, judge),
            "rebase": lambda: beam_search(desk, n, value, judge, balanced),
            "budget_forcing": lambda: budget_forcing(desk, budget)}[method]()
    return rows, None


def measure(model, task, problems, method, budget, c, judge, typical, max_new_tokens=0):
    """-> dict: accuracy with its 95 % interval (low, high), tokens per problem, seconds, rows per call of the model, and with
    --render the tree of the first problem as text."""
    generator = torch.Generator(model.device).manual_seed(c.seed)
    desk = Desk(model, task, problems, max_new_tokens, c.temperature, generator, judge, c.loss_aggregation, c.rollouts)
    started = time.time()
    rows, trees = run_method(desk, method, budget, c, typical)
    seconds = time.time() - started
    right = sum(desk.right(i, row) for i, row in enumerate(rows)) / len(rows)
    result = {"method": method, "budget": budget, "accuracy": right, "interval": wilson(right, len(rows)),
              "tokens": sum(desk.spent) / len(rows), "seconds": seconds, "rows_per_call": desk.rows / max(1, desk.calls),
              "batch_full": sum(desk.filled) / len(desk.filled) if trees else None}
    if c.render and trees:
        cut = lambda before, after: task.tokenizer.decode([t for t in after[len(before):] if t != desk.eos]).replace("\n", " / ")
        result["tree"] = "\n".join([problems[0].prompt.strip(), *trees[0].render(cut)])
    return result


def main(argv=None):
    parser = Parser(prog="search.py", description="Accuracy bought with tokens: search on a trained run.")
    parser.add_argument("run", metavar="RUN", help="run folder or checkpoint file")
    add_flags(parser, SearchConfig)
    given = vars(parser.parse_args(argv))
    c = from_flags(SearchConfig, given)
    methods = METHODS if c.method == "all" else c.method.split(",")
    for method in methods:
        if method not in METHODS:
            raise InputError(f"--method {method}: choose one of {', '.join(METHODS)}, or all")
    if not re.fullmatch(r"[1-9][0-9]{0,8}(,[1-9][0-9]{0,8})*", c.budget):
        raise InputError(f"--budget {c.budget}: must be whole numbers from 1 with commas between them, like 64,128,256")
    device = pick_device(c.device)
    model, task, trained = checkpoint.load_run(given["run"], device)
    judge = checkpoint.load_judge(c.judge or given["run"], device) if c.judge or trained["algo"] == "ppo" else None
    if judge and judge.vocabulary != task.tokenizer.vocabulary:
        raise InputError(f"--judge {c.judge}: its vocabulary is not that of task {task.name}")
    if judge and judge.backbone.config.block_size < model.config.block_size:
        raise InputError(f"--judge {c.judge}: reads at most {judge.backbone.config.block_size} tokens, this run writes "
                         f"{model.config.block_size}")
    limit = trained["max_new_tokens"] or task.max_new_tokens
    problems = fixed_problems(task, c.split, c.problems)
    desk = Desk(model, task, problems, limit, c.temperature, judge=judge)
    _, _, score_by, value_by = judges(desk, c)
    typical = typical_length(desk)
    print(f"{given['run']}: {len(problems)} {c.split} problems of {task.name}, about {typical:.0f} tokens a solution; finished "
          f"solutions are judged by {score_by}, half-finished ones by {value_by}; in brackets a 95 % interval (Wilson).\n"
          "The budget is what a method aims at, not a cap: compare at the tokens that were really sampled.")
    print("| method | budget | accuracy | tokens sampled per problem | seconds | rows per call of the model |\n|---|---|---|---|---|---|")
    results, folder = [], pathlib.Path(c.out)
    if c.out:  # a place that cannot be written to is known before the work begins
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "search.json").touch()
        except OSError as error:
            raise InputError(f"--out {folder}: cannot be written to ({error.strerror})")
    jobs = [(m, b) for m in methods for b in ([0] if m == "greedy" else [int(b) for b in c.budget.split(",")])]
    for method, budget in progress(jobs, "search"):
        r = measure(model, task, problems, method, budget, c, judge, typical, limit)
        results.append(r)
        full = "" if r["batch_full"] is None else f", {r['batch_full']:.0%} full"
        tqdm.write(f"| {method} | {budget or ''} | {r['accuracy']:.3f} [{r['interval'][0]:.3f}, {r['interval'][1]:.3f}] "
                   f"| {r['tokens']:.0f} | {r['seconds']:.1f} | {r['rows_per_call']:.0f}{full} |")
    for r in results:
        if "tree" in r:
            print(f"\nmcts, budget {r['budget']}, {r['tree']}")
    if c.out:
        (folder / "search.json").write_text(json.dumps(results, indent=2) + "\n")
        try:
            import plot
            table = (given["run"], {m: [r for r in results if r["method"] == m] for m in methods})
            plot.lines(plot.searches([table]), folder / "search.png")
        except ModuleNotFoundError:
            print("(no search.png: matplotlib is not installed)")
    return results


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(print(f"error: {error}", file=sys.stderr) or 2)
