"""Search and its measures: what is asked, and what the known mistakes look like."""
from checks import cases, mistakes


@cases("6.1")
def _(draw):
    triples = [(n, draw.randint(0, n), draw.randint(1, n))
               for n in (draw.randint(3, 20) for _ in range(12))]
    return [{"triples": triples + [(4, 1, 2), (6, 3, 4), (5, 0, 5), (5, 5, 1), (7, 2, 1)]},
            {"triples": [(4, 5, 1), (4, -1, 1), (4, 1, 5), (4, 1, 0), (3, 3, 3)]}]


EXACT = "1.0 - comb(n - c, k) / comb(n, k)"
mistakes("6.1",
    ("biased: 1 - (1 - c/n)^k draws with replacement", EXACT, "1.0 - (1 - c / n) ** k"),
    ("the chance that all k are wrong: 1 minus it", EXACT, "comb(n - c, k) / comb(n, k)"),
    ("the chance that all k are right: at least one is asked for", EXACT, "comb(c, k) / comb(n, k)"),
    ("c and n - c are exchanged", EXACT, "1.0 - comb(c, k) / comb(n, k)"),
    ("this is pass@1, whatever k is", EXACT, "c / n"),
    ("exactly one right sample: at least one is asked for", EXACT,
     "c * comb(n - c, k - 1) / comb(n, k)"),
    ("k c / n counts problems with several right samples more than once", EXACT, "min(1.0, k * c / n)"),
    ("numbers that cannot be are not refused: ValueError", "if not (0 <= c <= n and 1 <= k <= n):",
     "if False:"),
    ("c is not checked: ValueError unless 0 <= c <= n", "if not (0 <= c <= n and 1 <= k <= n):",
     "if not 1 <= k <= n:"),
    ("k is not checked: ValueError unless 1 <= k <= n", "if not (0 <= c <= n and 1 <= k <= n):",
     "if not 0 <= c <= n:"),
)


@cases("6.2")
def _(draw):
    found, UNREADABLE, EOS = [], 99, 1
    row = lambda answer, end=EOS: [draw.randint(2, 9)
                                   for _ in range(draw.randint(1,
                                                               3))] + [answer] + ([end] if end else [])
    a, b, c = draw.sample(range(2, 10), 3)
    shuffled = lambda rows: draw.sample(rows, len(rows))
    clear = [row(a), row(b), row(b + 10), row(c), row(b)]
    tie = [row(a), row(b), row(b), row(a), row(c)]
    unread = shuffled([row(UNREADABLE)] * 3 + [row(a)] * 2)
    open_ended = [row(a, None), row(a, None), row(a, None), row(b), row(c)]
    nobody = [row(UNREADABLE), row(UNREADABLE), row(a, None), row(b, None), row(UNREADABLE)]
    found.append({"rows": clear + tie + unread + open_ended + nobody, "n": 5, "points": []})
    points, twice = [0.3, 0.3, 0.3, 0.1, 0.45, 0.9, 0.1, 0.2, 0.1, 0.2], row(a)
    found.append({"rows": [twice, twice, row(b), row(a), row(c), row(c), row(a + 10), row(b), row(a),
                           row(b)], "n": 5, "points": points})
    return found


mistakes("6.2",
    ("of answers with equally many votes the last wins: the first should", "max(votes, key=votes.get)",
     "max(reversed(votes), key=votes.get)"),
    ("solutions without a readable answer vote", "if answer is not None:", "if True:"),
    ("solutions that did not end vote",
     "task.canonical_answer(context.text(i, rows[k])) if ended else None",
     "task.canonical_answer(context.text(i, rows[k]))"),
    ("the scorer is not heeded: each vote counts as much as its points",
     "scorer(problem_index, rows) if scorer else [1.0] * len(rows)", "[1.0] * len(rows)"),
    ("points are read by their place in the group: they go on over all problems", "points[k]",
     "points[k - i * n]"),
    ("the best single score decides: the points of equal answers add up",
     "votes.get(answer, 0.0) + points[k]", "max(votes.get(answer, 0.0), points[k])"),
    ("votes are counted on the text as written: two ways to write one answer are one",
     "context.task.canonical_answer(context.text(i, rows[k])) if ended",
     "(context.task.canonical_answer(context.text(i, rows[k])) and context.text(i, rows[k])) if ended"),
    ("votes of one problem go to the next: count anew for each", "        votes, speaker = {}, {}\n",
     "        if i == 0:\n            votes, speaker = {}, {}\n"),
    ("the winner's last solution is returned: its first should be",
     "speaker.setdefault(answer, rows[k])", "speaker.update({answer: rows[k]})"),
    ("where nobody votes the first solution is returned, and here another one", "else rows[i * n])",
     "else rows[i * n + n - 1])"),
    ("the answer with the fewest votes wins", "max(votes, key=votes.get)", "min(votes, key=votes.get)"),
)


@cases("6.3")
def _(draw):
    found = []
    for K, n in ((3, 2), (4, 3), (5, 1), (4, draw.randint(4, 9))):
        weights = [draw.random() + 0.05 for _ in range(K)]
        p = [w / sum(weights) for w in weights]
        scores = [float(draw.randint(0, 2)) for _ in range(K)]
        scores[0], scores[1] = 1.0, 1.0  # a tie
        found.append({"p": p, "scores": scores, "n": n})
    return found + [{"p": [0.0, 0.6, 0.4], "scores": [5.0, 1.0, 2.0], "n": 3},
                    {"p": [0.2, 0.3, 0.5], "scores": [1.0, 3.0, 2.0], "n": 4}]


LINE = "p_i / tied * (upto ** n - max(0.0, upto - tied) ** n) if tied else 0.0"
mistakes("6.3",
    ("the chance that all samples are at most as good: F(s)^n - F(< s)^n", LINE,
     "p_i / tied * upto ** n if tied else 0.0"),
    ("the worst of n in place of the best", LINE,
     "p_i / tied * ((1 - upto + tied) ** n - max(0.0, 1 - upto) ** n) if tied else 0.0"),
    ("ties are shared equally: like p says", LINE,
     "(upto ** n - max(0.0, upto - tied) ** n) / sum(1 for t in scores if t == s) if tied else 0.0"),
    ("ties are not shared: each outcome gets the chance of all that score as it does", LINE,
     "(upto ** n - max(0.0, upto - tied) ** n) if tied else 0.0"),
    ("ties go to the first outcome: they go to chance", LINE,
     "(upto ** n - max(0.0, upto - tied) ** n) * (scores.index(s) == len(found)) if tied else 0.0"),
    ("an outcome is taken for the only one of its score: with ties too little is subtracted", LINE,
     "upto ** n - max(0.0, upto - p_i) ** n"),
    ("p^n, normalised: that is not the best of n", "    return found",
     "    found = [q ** n for q in p]\n    return [q / sum(found) for q in found]"),
    ("n is not heeded: one sample", LINE, "p_i"),
    ("the chance to occur at all among n: the best is asked for", LINE, "1 - (1 - p_i) ** n"),
    ("an outcome of probability 0 divides by zero", LINE, LINE.replace(" if tied else 0.0", "")),
)


@cases("6.4")
def _(draw):
    found = []
    for _ in range(5):
        K = draw.randint(3, 6)
        found.append({"scores": [round(draw.random(), 3) for _ in range(K)], "n": draw.randint(5, 16),
                      "settings": {}})
    return found + [{"scores": [0.9, 0.2, 0.4], "n": 10,
                     "settings": {"temperature": draw.choice([0.5, 1.0])}},
                    {"scores": [0.5, 0.5, 0.5], "n": 4, "settings": {}},
                    {"scores": [0.31, 0.33, 0.35, 0.37], "n": 11, "settings": {"temperature": 2.0}}]


mistakes("6.4",
    ("the temperature is not applied", " / temperature, 0)", ", 0)"),
    ("multiplied by the temperature: divide", " / temperature, 0)", " * temperature, 0)"),
    ("proportional to the scores: REBASE takes their softmax",
     "torch.softmax(torch.tensor(scores, dtype=torch.float64) / temperature, 0)",
     "torch.tensor(scores, dtype=torch.float64) / sum(scores)"),
    ("rounded one by one: the widths do not add up to n", "widths = [int(x) for x in shares]\n",
     "return [round(x) for x in shares]\n"),
    ("rounded down: the widths do not add up to n", "        widths[j] += 1\n", "        pass\n"),
    ("what is left goes to the first: it goes to the largest remainders",
     "sorted(range(len(shares)), key=lambda j: int(shares[j]) - shares[j])", "range(len(shares))"),
    ("what is left goes to the smallest remainders: to the largest",
     "key=lambda j: int(shares[j]) - shares[j]", "key=lambda j: shares[j] - int(shares[j])"),
    ("what is left goes to the best one",
     "    for j in sorted(range(len(shares)), key=lambda j: int(shares[j]) - shares[j])[:n - "
     "sum(widths)]:\n        widths[j] += 1\n",
     "    widths[shares.index(max(shares))] += n - sum(widths)\n"),
    ("what is left goes to the largest shares: to the largest remainders",
     "key=lambda j: int(shares[j]) - shares[j]", "key=lambda j: -shares[j]"),
    ("everybody gets one first", "widths = [int(x) for x in shares]",
     "widths = [max(1, int(x)) for x in shares]"),
)


@cases("6.5")
def _(draw):
    found = []
    for index in range(150):
        children, parents, first = [], [0, 0, 0, 1, 1, 2, 2, 3], index % 3 == 0
        priors = [draw.random() for _ in parents]
        for parent, prior in zip(parents, priors):
            total = sum(q for p, q in zip(parents, priors) if p == parent)
            children.append((parent, prior / total, draw.random() if first else None))
        nodes = len(children) + 1
        visits = [0] + [draw.choice((0, 0, 1, 2, 5, 9)) for _ in children]
        for k in (3, 2, 1):  # who has children was visited, at least as often as all of them
            visits[k] = sum(v for (parent, _, _),
                            v in zip(children, visits[1:]) if parent == k) + 1 + draw.randint(0, 2)
        visits[0] = sum(visits[1:4]) if index % 4 else 0
        if not visits[0]:
            visits = [0] * nodes  # nothing has been visited yet
        totals = [v * draw.random() for v in visits]
        exhausted = [False] * nodes
        if index % 2:
            exhausted[draw.choice([1, 2, 4, 6])] = True
        found.append({"children": children, "visits": visits, "totals": totals, "exhausted": exhausted,
                      "settings": [draw.choice([0.3, 1.25]), *((20.0,) if index % 5 == 0 else ())]})
    return found


mistakes("6.5",
    ("only Q: without U nothing new is tried", "key=lambda k: Q(k) + U(k)", "key=lambda k: Q(k)"),
    ("only U: what was found does not count", "key=lambda k: Q(k) + U(k)", "key=lambda k: U(k)"),
    ("Q is the sum of what was seen: it is the mean, W / N", "Q = lambda k: self.value(k) if",
     "Q = lambda k: self.totals[k] if"),
    ("a child that nobody has looked at is worth 0: it is worth what its parent is",
     "mean if self.first_play[k] is None", "0.0 if self.first_play[k] is None"),
    ("first_play is not heeded",
     "first = lambda k: mean if self.first_play[k] is None else self.first_play[k]",
     "first = lambda k: mean"),
    ("the prior is missing from U", "scale * self.priors[k] / (1 + self.visits[k])",
     "scale / (1 + self.visits[k])"),
    ("U divides by N and not by 1 + N", "(1 + self.visits[k])", "max(1e-9, self.visits[k])"),
    ("U does not fall with the visits of the child", "scale * self.priors[k] / (1 + self.visits[k])",
     "scale * self.priors[k]"),
    ("the square root is missing: sqrt(N(s))", "math.sqrt(max(1, N))", "max(1, N)"),
    ("sqrt(N) is 0 before the first visit, and the priors are not seen: sqrt(max(1, N))",
     "math.sqrt(max(1, N))", "math.sqrt(N)"),
    ("the root of the log: that is UCB1, and not PUCT", "math.sqrt(max(1, N))",
     "math.sqrt(math.log(max(1, N) + 1))"),
    ("exhausted children are chosen", "(k for k in self.below[j] if not self.exhausted[k])",
     "self.below[j]"),
    ("stops at a child of the root: walk down to a leaf", "while self.count[j] > 0:",
     "for _ in range(1):"),
    ("the smallest is taken: the largest Q + U", "j = max(", "j = min("),
    ("c_init is missing", "(math.log((N + c_base + 1) / c_base) + c_init)",
     "math.log((N + c_base + 1) / c_base)"),
    ("c_base is not heeded: log((N + c_base + 1) / c_base)",
     "(math.log((N + c_base + 1) / c_base) + c_init)", "c_init"),
    ("the visits are those of the root: N is that of the node where one stands", "N = self.visits[j]",
     "N = self.visits[0]"),
)
