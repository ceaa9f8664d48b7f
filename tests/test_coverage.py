"""experiments/coverage.py: its arithmetic, and the whole of it with runs of a second."""
import itertools
import math
import random

import pytest
import torch

import sample
from test_experiments import experiment, tiny  # noqa: F401, fixtures
from toys import seed


@pytest.fixture
def coverage(experiment):  # noqa: F811
    return experiment("coverage")


def test_the_chances_of_all_ends_of_a_random_attempt_add_up_to_one(coverage):
    """And the chance of one of them is how often random_attempt comes to it."""
    from tasks.countdown import random_attempt
    assert sum(coverage.chance((2, 3, 5), target) for target in range(100)) == pytest.approx(1)
    rng, n, target = random.Random(seed()), 20_000, 10
    p = coverage.chance((2, 3, 5), target)
    hits = sum(random_attempt((2, 3, 5), rng)[1] == target for _ in range(n))
    assert 0 < p < 1 and hits / n == pytest.approx(p, abs=5 * (p * (1 - p) / n) ** 0.5)


def test_coverage_is_the_share_of_draws_that_hold_a_right_sample(coverage):
    """All ways to take 2 of 4 samples, of three problems with 0, 1 and 3 right ones."""
    rights = (0, 1, 3)
    share = [sum(any(i < c for i in pair) for pair in itertools.combinations(range(4), 2)) / 6 for c in rights]
    assert coverage.coverage(rights, 4, [2]) == [pytest.approx(sum(share) / 3)]


def test_a_power_law_is_found_again_and_what_cannot_be_put_into_a_logarithm_is_left_out(coverage):
    ks = [1, 2, 4, 8]
    a, b = coverage.power_law(ks, [math.exp(-3 * k ** -0.7) for k in ks])
    assert (a, b) == (pytest.approx(-3), pytest.approx(0.7))
    assert coverage.power_law([0.5, *ks, 16], [0.0, *(math.exp(-3 * k ** -0.7) for k in ks), 1.0]) == (pytest.approx(-3), pytest.approx(0.7))


def test_beta_coverage_is_the_mean_over_the_success_rates(coverage):
    """Beta(2, 3) has the density 12 p (1 - p)^2."""
    steps, k = 10_000, 7
    points = [(i + 0.5) / steps for i in range(steps)]
    mean = sum(12 * p * (1 - p) ** 2 * (1 - (1 - p) ** k) for p in points) / steps
    assert coverage.beta_coverage(2, 3, k) == pytest.approx(mean, abs=1e-6)


def test_the_fit_finds_the_beta_distribution_that_the_counts_came_from(coverage):
    rng, m = random.Random(seed()), 32
    counts = []
    for _ in range(1500):
        p = rng.betavariate(0.6, 3.0)
        counts.append(sum(rng.random() < p for _ in range(m)))
    alpha, beta = coverage.beta_fit(counts, m)
    assert alpha == pytest.approx(0.6, rel=0.25) and beta == pytest.approx(3.0, rel=0.25)


def test_the_exponent_is_that_of_the_density_near_zero(coverage):
    """1 - c ~ k^(-alpha) for Beta(alpha, beta); where no p is small the slope grows without end."""
    ks = [2 ** i for i in range(8, 16)]
    _, slopes = coverage.slopes(ks, [coverage.beta_coverage(0.5, 2.0, k) for k in ks])
    assert slopes[-1] == pytest.approx(0.5, abs=0.01)
    few = [1, 2, 4, 8, 16, 32]
    _, slopes = coverage.slopes(few, [coverage.exact_coverage([0.2, 0.4], k) for k in few])
    assert slopes[-1] > 5 and list(slopes) == sorted(slopes)


def test_a_share_of_hopeless_problems_makes_the_law_promise_too_much(coverage):
    """p = 0 for a fifth, uniform for the rest: never more than 0.8."""
    p, ks = [0.0] * 20 + [(i + 0.5) / 80 for i in range(80)], [1, 2, 4, 8]
    a, b = coverage.power_law(ks, [coverage.exact_coverage(p, k) for k in ks])
    assert coverage.exact_coverage(p, 10_000) == pytest.approx(0.8) and math.exp(a * 10_000 ** -b) > 0.85


def test_the_experiment_from_end_to_end(tiny, coverage, monkeypatch):  # noqa: F811
    """The policy knows nothing after five steps; so a third of what it writes is called right."""
    monkeypatch.setattr(coverage, "SMALL", [])
    monkeypatch.setattr(sample.Rollout, "right", lambda self, task: torch.arange(len(self.lengths)) % 3 == 0)
    text, panels = tiny("coverage", {"seeds": (0,), "problems": 6, "n": 16, "first": 8, "steps": 1})
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert [row.split(" | ")[0] for row in rows] == ["| policy", "| random search", "| warm start", "| GRPO"]
    assert len({row.count("|") for row in rows}) == 1 and panels[0]["curves"]["measured"][0] == [1, 2, 4, 8, 16]
