"""What can be known exactly about choosing among n samples: no sampling, no model, only the outcomes'
probabilities.

    best of n          its distribution, and how far it is from the policy (KL), beside the bound log n - (n - 1)/n
    majority vote      how often n votes elect the right answer, and what infinitely many elect

Where one answer is wrong in the same way each time, more votes make it worse; where scores tie, Best-of-N
moves less than the bound says. The tests compare each function with trying out every tuple of outcomes.
"""
import math


def best_of_n_distribution(p, scores, n):
    """The distribution of the best of n independent samples. p, scores: lists over the outcomes; ties go to
    chance. -> list.

    With F(s) = P(score <= s): P(the best has score s) = F(s)^n - F(< s)^n, shared among the outcomes of
    that score in proportion to p.

    >>> [round(x, 3) for x in best_of_n_distribution([0.5, 0.25, 0.25], [0.0, 1.0, 1.0], 2)]
    [0.25, 0.375, 0.375]
    """
    found = []
    for p_i, s in zip(p, scores):
        upto, tied = sum(q for q, t in zip(p, scores) if t <= s), sum(q for q, t in zip(p, scores) if t == s)
        found.append(p_i / tied * (upto ** n - max(0.0, upto - tied) ** n) if tied else 0.0)
    return found


def best_of_n_kl(p, scores, n):
    """KL(best of n || one sample) in nats, exactly. At most log n - (n - 1)/n, far less where scores tie."""
    return sum(q * math.log(q / p_i) for q, p_i in zip(best_of_n_distribution(p, scores, n), p) if q > 0)


def best_of_n_kl_bound(n):
    """log n - (n - 1)/n: the KL if no two outcomes tie and none has a probability that matters (arXiv:2401.01879)."""
    return math.log(n) - (n - 1) / n


def vote_accuracy(p, right, n):
    """The chance that n votes elect answer `right`, exactly. p: list of the answers' probabilities; ties
    are drawn by lot.

    As n grows it goes to 1 if no other answer is more probable than the right one, and to 0 if one is:
    votes find the likeliest answer, not the truth.

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
    """The chance that infinitely many votes elect `right`: 1, 0, or a share if several answers are as probable."""
    return (1.0 / p.count(max(p))) if p[right] == max(p) else 0.0
