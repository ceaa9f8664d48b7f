"""Votes and Best-of-N against every outcome there is."""
import itertools
import math
import random
from collections import Counter

import pytest

from experiments.exact import best_of_n_distribution, best_of_n_kl, best_of_n_kl_bound, vote_accuracy, vote_limit
from toys import seed


# ---- the best of n, exactly

CASES = [([0.5, 0.25, 0.25], [0.0, 1.0, 1.0]), ([0.1, 0.2, 0.3, 0.4], [3.0, 1.0, 2.0, 0.0]), ([0.25] * 4, [1.0] * 4),
         ([0.0, 0.6, 0.4], [5.0, 1.0, 2.0])]


@pytest.mark.parametrize("p, scores", CASES)
@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_best_of_n_distribution_equals_trying_every_tuple(p, scores, n):
    """Of those that tie the first one is taken, which is chance, as the samples are independent."""
    expected = [0.0] * len(p)
    for draw in itertools.product(range(len(p)), repeat=n):
        expected[max(draw, key=lambda j: scores[j])] += math.prod(p[j] for j in draw)
    assert best_of_n_distribution(p, scores, n) == pytest.approx(expected)


def test_best_of_n_distribution_matches_a_simulation():
    rng, (p, scores), n, N = random.Random(seed()), CASES[1], 8, 20_000
    counts = Counter(max(rng.choices(range(4), p, k=n), key=lambda j: scores[j]) for _ in range(N))
    for j, q in enumerate(best_of_n_distribution(p, scores, n)):
        assert counts[j] / N == pytest.approx(q, abs=1e-9 + 5 * math.sqrt(q * (1 - q) / N))


def test_best_of_n_kl_by_hand():
    """Two outcomes of 1/2: the better one comes with 3/4 for n = 2. If they tie nothing changes."""
    assert best_of_n_kl([0.5, 0.5], [0.0, 1.0], 2) == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5))
    assert best_of_n_kl([0.5, 0.5], [1.0, 1.0], 2) == pytest.approx(0) == best_of_n_kl([0.5, 0.5], [0.0, 1.0], 1)


def test_best_of_n_kl_never_exceeds_its_bound():
    rng = random.Random(seed())
    for _ in range(300):
        m, n = rng.randint(1, 9), rng.choice([1, 2, 3, 5, 16, 100])
        weights = [rng.random() ** 4 for _ in range(m)]
        p = [w / sum(weights) for w in weights]
        assert best_of_n_kl(p, [float(rng.randint(0, 5)) for _ in p], n) <= best_of_n_kl_bound(n) + 1e-9


@pytest.mark.parametrize("n", [2, 4, 16])
def test_without_ties_best_of_n_kl_comes_near_its_bound(n):
    m = 400
    kl = best_of_n_kl([1 / m] * m, list(range(m)), n)
    assert 0.97 * best_of_n_kl_bound(n) < kl < best_of_n_kl_bound(n)


# ---- votes, exactly

@pytest.mark.parametrize("p", [[0.6, 0.4], [0.5, 0.5], [0.5, 0.3, 0.2], [0.2, 0.5, 0.3], [0.1, 0.1, 0.4, 0.4], [1.0], [0.0, 1.0]])
@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
def test_vote_accuracy_equals_trying_every_tuple(p, n):
    """Trap 23's cousin, with ties by lot."""
    for right in range(len(p)):
        expected = 0.0
        for draw in itertools.product(range(len(p)), repeat=n):
            votes = Counter(draw)
            elected = [j for j in votes if votes[j] == max(votes.values())]
            expected += math.prod(p[j] for j in draw) * (right in elected) / len(elected)
        assert vote_accuracy(p, right, n) == pytest.approx(expected)


def test_first_come_is_as_good_as_a_lot():
    """majority_vote elects the answer that came first among those that tie. Simulated, 7 votes."""
    rng, p, N = random.Random(seed()), [0.35, 0.4, 0.25], 20_000
    elected = sum(Counter(rng.choices(range(3), p, k=7)).most_common(1)[0][0] == 0 for _ in range(N))
    q = vote_accuracy(p, 0, 7)
    assert elected / N == pytest.approx(q, abs=5 * math.sqrt(q * (1 - q) / N))


@pytest.mark.parametrize("p, right, limit", [([0.6, 0.3, 0.1], 0, 1), ([0.6, 0.3, 0.1], 1, 0), ([0.4, 0.4, 0.2], 0, 1 / 2),
                                             ([0.25] * 4, 3, 1 / 4)])
def test_many_votes_find_the_likeliest_answer_right_or_wrong(p, right, limit):
    assert vote_limit(p, right) == limit
    assert vote_accuracy(p, right, 61) == pytest.approx(limit, abs=0.02)
