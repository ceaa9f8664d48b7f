"""Search and its measures: what is asked, and what the known mistakes look like."""
from checks import cases, mistakes


@cases("6.1")
def _(draw):
    triples = [(n, draw.randint(0, n), draw.randint(1, n))
               for n in (draw.randint(3, 20) for _ in range(12))]
    return [{"triples": triples + [(4, 1, 2), (6, 3, 4), (5, 0, 5), (5, 5, 1), (7, 2, 1),
                                   (3000, 2, 900)]},
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
    ("numbers that cannot be are refused by assert: raise ValueError", "raise ValueError(",
     "raise AssertionError("),
    ("k > n is not refused: raise ValueError", "1 <= k <= n)", "1 <= k)"),
    ("numbers that cannot be are not refused: raise ValueError", "if not (0 <= c <= n and 1 <= k <= n):",
     "if False:"),
    ("c is not checked: raise ValueError unless 0 <= c <= n", "if not (0 <= c <= n and 1 <= k <= n):",
     "if not 1 <= k <= n:"),
    ("k is not checked: raise ValueError unless 1 <= k <= n", "if not (0 <= c <= n and 1 <= k <= n):",
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
    ties = [[row(x), row(y), row(y), row(x), row(c)] for x, y in ((a, b), (b, a))]
    zero = [row(10), row(a), row(20), row(b), row(10)]  # the answer is 0
    unread = shuffled([row(UNREADABLE)] * 3 + [row(a)] * 2)
    open_ended = [row(a, None), row(a, None), row(a, None), row(b), row(c)]
    nobody = [row(UNREADABLE), row(UNREADABLE), row(a, None), row(b, None), row(UNREADABLE)]
    found.append({"rows": clear + sum(ties, []) + zero + unread + open_ended + nobody, "n": 5, "points": []})
    points, twice = [0.3, 0.3, 0.3, 0.1, 0.45, 0.9, 0.1, 0.2, 0.1, 0.2], row(a)
    found.append({"rows": [twice, twice, row(b), row(a), row(c), row(c), row(a + 10), row(b), row(a),
                           row(b)], "n": 5, "points": points})
    return found


mistakes("6.2",
    ("of answers with equally many votes the last wins: the first should", "max(votes, key=votes.get)",
     "max(reversed(votes), key=votes.get)"),
    ("solutions without a readable answer vote", "if answer is not None:", "if True:"),
    ("solutions without a readable answer vote: what canonical_answer gives for them is None",
     "if answer is not None:", "if ended:"),
    ("an answer that counts as false, such as 0, is lost: ask whether it is None",
     "if answer is not None:", "if answer:"),
    ("of answers with equally many votes the largest wins: the first should",
     "max(votes, key=votes.get)", "max(votes, key=lambda answer: (votes[answer], answer))"),
    ("solutions that did not end vote",
     "task.canonical_answer(context.text(i, rows[k])) if ended else None",
     "task.canonical_answer(context.text(i, rows[k]))"),
    ("the scorer is not heeded: with one, a vote counts its points",
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
    ("where nobody votes another solution is returned than the first", "else rows[i * n])",
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
IN_ORDER = ("(lambda F: F ** n - max(0.0, F - p_i) ** n)(sum(q for j, (q, t) in enumerate(zip(p, scores)) "
            "if {}))")
mistakes("6.3",
    ("the chance that all samples are at most as good: subtract F(< s)^n", LINE,
     "p_i / tied * upto ** n if tied else 0.0"),
    ("the worst of n in place of the best", LINE,
     "p_i / tied * ((1 - upto + tied) ** n - max(0.0, 1 - upto) ** n) if tied else 0.0"),
    ("ties are shared equally: share them in proportion to p", LINE,
     "(upto ** n - max(0.0, upto - tied) ** n) / sum(1 for t in scores if t == s) if tied else 0.0"),
    ("ties are not shared: each outcome gets the chance of all outcomes with its score", LINE,
     "(upto ** n - max(0.0, upto - tied) ** n) if tied else 0.0"),
    ("ties go to the first outcome: they are drawn by lot", LINE,
     "(upto ** n - max(0.0, upto - tied) ** n) * (scores.index(s) == len(found)) if tied else 0.0"),
    ("the later outcome wins a tie: ties are drawn by lot", LINE,
     IN_ORDER.format("(t, j) <= (s, len(found))")),
    ("the earlier outcome wins a tie: ties are drawn by lot", LINE,
     IN_ORDER.format("(t, -j) <= (s, -len(found))")),
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
    return found + [{"scores": [0.9, 0.2, 0.4], "n": 10, "settings": {"temperature": 0.001}},
                    {"scores": [0.9, 0.2, 0.4], "n": 10,
                     "settings": {"temperature": draw.choice([0.5, 1.0])}},
                    {"scores": [0.5, 0.5, 0.5], "n": 4, "settings": {}},
                    {"scores": [0.31, 0.33, 0.35, 0.37], "n": 11, "settings": {"temperature": 2.0}}]


mistakes("6.4",
    ("the temperature is not applied", " / temperature, 0)", ", 0)"),
    ("multiplied by the temperature: divide", " / temperature, 0)", " * temperature, 0)"),
    ("exp(score / T) overflows for a small T: subtract the largest score first",
     "torch.softmax(torch.tensor(scores, dtype=torch.float64) / temperature, 0)",
     "(lambda e: e / e.sum())((torch.tensor(scores, dtype=torch.float64) / temperature).exp())"),
    ("proportional to the scores: REBASE takes their softmax",
     "torch.softmax(torch.tensor(scores, dtype=torch.float64) / temperature, 0)",
     "torch.tensor(scores, dtype=torch.float64) / sum(scores)"),
    ("rounded one by one: the widths do not add up to n", "widths = [int(x) for x in shares]\n",
     "return [round(x) for x in shares]\n"),
    ("rounded down: the widths do not add up to n", "        widths[j] += 1\n", "        pass\n"),
    ("what is left goes to the first: give it to the largest remainders",
     "sorted(range(len(shares)), key=lambda j: int(shares[j]) - shares[j])", "range(len(shares))"),
    ("what is left goes to the smallest remainders: give it to the largest",
     "key=lambda j: int(shares[j]) - shares[j]", "key=lambda j: shares[j] - int(shares[j])"),
    ("what is left goes to the best one: give one each to the largest remainders",
     "    for j in sorted(range(len(shares)), key=lambda j: int(shares[j]) - shares[j])[:n - "
     "sum(widths)]:\n        widths[j] += 1\n",
     "    widths[shares.index(max(shares))] += n - sum(widths)\n"),
    ("what is left goes to the largest shares: give it to the largest remainders",
     "key=lambda j: int(shares[j]) - shares[j]", "key=lambda j: -shares[j]"),
    ("of equal remainders the last gets what is left: the first should",
     "sorted(range(len(shares)),", "sorted(reversed(range(len(shares))),"),
    ("everybody gets one first: a share may round down to 0", "widths = [int(x) for x in shares]",
     "widths = [max(1, int(x)) for x in shares]"),
)


@cases("6.5")
def _(draw):
    def by_hand(children, visits, totals, settings, seen=0.0):
        return {"children": children, "visits": visits, "totals": totals, "settings": settings,
                "leaf_value": [seen] * len(visits), "exhausted": [False] * len(visits)}

    two = lambda first: [(0, 0.5, None), (0, 0.5, first)]
    far = [(0, 0.0, None), (0, 1.0, None), (2, 0.7, None), (2, 0.3, 0.3)]  # 2 is visited less than 0
    found = [by_hand(two(None), [4, 4, 0], [2.0, 1.2, 0.0], [0.3]),        # for each some mistakes that
             by_hand(two(None), [10, 10, 0], [1.0, 9.0, 0.0], [0.3], 1.0),   # random trees seldom show
             by_hand(two(0.0), [4, 4, 0], [3.6, 2.0, 0.0], [0.3]),
             by_hand(two(0.6), [1, 1, 0], [0.9, 0.9, 0.0], [0.3, 1.0]),
             by_hand(far, [1000, 997, 3, 2, 0], [500.0, 0.0, 2.7, 1.8, 0.0], [0.3, 1.0]),
             by_hand(far, [1000, 997, 3, 2, 0], [500.0, 0.0, 2.7, 1.8, 0.0], [0.3])]
    for index in range(100):
        children, parents, first = [], [0, 0, 0, 1, 1, 2, 2, 3, 3], index % 3 == 0
        alike = index % 8 == 4  # equal priors, nothing visited: the first of equals
        priors = [1.0 if alike else draw.random() for _ in parents]
        for parent, prior in zip(parents, priors):
            total = sum(q for p, q in zip(parents, priors) if p == parent)
            children.append((parent, prior / total,
                             draw.choice((0.0, draw.random(), draw.random())) if first else None))
        nodes = len(children) + 1
        visits = [0] + [draw.choice((0, 0, 1, 2, 5, 9)) for _ in children]
        for k in (3, 2, 1):  # who has children was visited, at least as often as all of them
            visits[k] = sum(v for (parent, _, _),
                            v in zip(children, visits[1:]) if parent == k) + 1 + draw.randint(0, 2)
        visits[0] = sum(visits[1:4]) if index % 4 else 0
        if not visits[0]:
            visits = [0] * nodes  # nothing has been visited yet
        width = draw.choice((0.2, 0.5, 1.0))  # where values are close, U decides
        value = lambda: 0.5 + width * (draw.random() - 0.5)
        totals, seen = [v * value() for v in visits], [draw.random() for _ in visits]
        exhausted = [False] * nodes
        if index % 2:
            exhausted[draw.choice([1, 2, 4, 6])] = True
        c_base = (draw.choice((1.0, 20.0)),) if draw.random() < 0.6 else ()
        found.append({"children": children, "visits": visits, "totals": totals, "leaf_value": seen,
                      "exhausted": exhausted, "settings": [draw.choice([0.3, 1.25]), *c_base]})
    return found


mistakes("6.5",
    ("only Q: without U nothing new is tried", "key=lambda k: Q(k) + U(k)", "key=lambda k: Q(k)"),
    ("only U: what was found does not count", "key=lambda k: Q(k) + U(k)", "key=lambda k: U(k)"),
    ("Q is the sum of what was seen: it is the mean, W / N", "Q = lambda k: self.value(k) if",
     "Q = lambda k: self.totals[k] if"),
    ("a child that nobody has looked at is worth 0: it is worth its parent's W / N",
     "mean if self.first_play[k] is None", "0.0 if self.first_play[k] is None"),
    ("a child that nobody has looked at is worth what expand said of its parent: it is the parent's W / N",
     "mean = self.value(j)", "mean = self.leaf_value[j]"),
    ("a first-play value of 0 is taken for none: ask whether it is None",
     "mean if self.first_play[k] is None else self.first_play[k]", "self.first_play[k] or mean"),
    ("first play is used after visits too: then it is W / N", "if self.visits[k] else first(k)",
     "if self.visits[k] and self.first_play[k] is None else first(k)"),
    ("first_play is not heeded",
     "first = lambda k: mean if self.first_play[k] is None else self.first_play[k]",
     "first = lambda k: mean"),
    ("the prior is missing from U", "scale * self.priors[k] / (1 + self.visits[k])",
     "scale / (1 + self.visits[k])"),
    ("U divides by N and not by 1 + N", "(1 + self.visits[k])", "max(1e-9, self.visits[k])"),
    ("U divides by max(1, N) and not by 1 + N", "(1 + self.visits[k])", "max(1, self.visits[k])"),
    ("U does not fall with the visits of the child", "scale * self.priors[k] / (1 + self.visits[k])",
     "scale * self.priors[k]"),
    ("the square root is missing: take sqrt(max(1, N))", "math.sqrt(max(1, N))", "max(1, N)"),
    ("sqrt(N) is 0 before the first visit, and the priors are not seen: take sqrt(max(1, N))",
     "math.sqrt(max(1, N))", "math.sqrt(N)"),
    ("the root of the log: that is UCB1, and not PUCT", "math.sqrt(max(1, N))",
     "math.sqrt(math.log(max(1, N) + 1))"),
    ("exhausted children are chosen: they are out", "(k for k in self.below[j] if not self.exhausted[k])",
     "self.below[j]"),
    ("of equals the last is chosen: the first should", "(k for k in self.below[j] if",
     "(k for k in reversed(self.below[j]) if"),
    ("stops at a child of the root: walk down to a leaf", "while self.count[j] > 0:",
     "for _ in range(1):"),
    ("the smallest Q + U is taken: take the largest", "j = max(", "j = min("),
    ("c_init is missing", "(math.log((N + c_base + 1) / c_base) + c_init)",
     "math.log((N + c_base + 1) / c_base)"),
    ("1 is missing in the log: log((N + c_base + 1) / c_base)", "N + c_base + 1", "N + c_base"),
    ("c_init stands in the log: it is added to it", "/ c_base) + c_init)", "/ c_base + c_init))"),
    ("the log divides 1 alone by c_base: (N + c_base + 1) / c_base", "(N + c_base + 1) / c_base",
     "N + c_base + 1 / c_base"),
    ("the log counts the visits of the root: N is that of the node where one stands",
     "math.log((N +", "math.log((self.visits[0] +"),
    ("c_base is not heeded: c is log((N + c_base + 1) / c_base) + c_init",
     "(math.log((N + c_base + 1) / c_base) + c_init)", "c_init"),
    ("the visits are those of the root: N is that of the node where one stands", "N = self.visits[j]",
     "N = self.visits[0]"),
)
