"""Overlap and Wasserstein distance against closed forms, over a grid of separations, with their Monte Carlo error."""

import numpy as np
import pytest
from scipy import integrate, stats

from comparisons.density import masses, smooth
from comparisons.overlap import halves, overlap_coefficient, wasserstein

DRAWS, REPEATS = 1000, 60
RNG = np.random.default_rng(20)
# Bias that the kernel estimate is allowed at 1000 draws (measured: 0.045 too low for equal distributions, 0.015 too
# high in the tails), and five standard errors of the mean over REPEATS (sd of one overlap is at most 0.02).
LOW, HIGH, NOISE = 0.055, 0.02, 5 * 0.02 / np.sqrt(REPEATS)

NORMAL = [(stats.norm(0.45, 0.05), stats.norm(0.45 + 0.05 * d, 0.05), 2 * stats.norm.cdf(-d / 2)) for d in (0, 1, 2, 4)]
BOXES = [(stats.uniform(0, 0.5), stats.uniform(s, 0.5), 1 - 2 * s) for s in (0.0, 0.1, 0.25, 0.5)]
BETAS = [(stats.beta(a, b), stats.beta(c, d), None) for a, b, c, d in ((1, 1, 1, 5), (1, 8, 8, 1), (0.7, 3, 2, 3))]


def draw(distribution, n=DRAWS):
    return distribution.rvs((n, REPEATS), random_state=RNG)


@pytest.mark.parametrize(("p", "q", "exact"), NORMAL + BOXES + BETAS)
def test_overlap_is_the_integral_of_the_smaller_density(p, q, exact):
    if exact is None:
        exact = integrate.quad(lambda x: min(p.pdf(x), q.pdf(x)), 0, 1, limit=200)[0]
    found = overlap_coefficient(draw(p), draw(q), 0, 1).mean()
    assert exact - LOW - NOISE < found < exact + HIGH + NOISE + 0.02 * (p.dist.name == "uniform")


@pytest.mark.parametrize(("p", "q"), [pair[:2] for pair in NORMAL + BOXES + BETAS])
def test_wasserstein_is_the_area_between_the_distribution_functions(p, q):
    exact = integrate.quad(lambda x: abs(p.cdf(x) - q.cdf(x)), 0, 1, limit=200)[0]
    noise = 1.5 * np.sqrt(2 / DRAWS) * max(p.std(), q.std())  # what draws of equal distributions differ by
    assert abs(wasserstein(draw(p), draw(q), 0, 1).mean() - exact) < noise


def test_wasserstein_equals_scipys_over_the_prior_width():
    a, b = RNG.uniform(200, 300, (300, 20)), RNG.uniform(210, 390, (170, 20))
    exact = [stats.wasserstein_distance(a[:, i], b[:, i]) / 380 for i in range(20)]
    np.testing.assert_allclose(wasserstein(a, b, 20, 400), exact, atol=1 / 512)


def test_a_density_that_is_high_at_its_bound_stays_high_there():
    found = smooth(masses(RNG.beta(1, 5, (4000, 1)), 0, 1), 4000)[:10, 0].mean() * 512
    assert found == pytest.approx(5 * 0.99**4, rel=0.1)  # a kernel that leaks out of the box would give half


def test_overlap_does_not_depend_on_the_unit():
    a, b = RNG.beta(2, 5, (500, 4)), RNG.beta(3, 5, (400, 4))
    assert np.allclose(overlap_coefficient(a, b, 0, 1), overlap_coefficient(30 + 7 * a, 30 + 7 * b, 30, 37), atol=0.01)


def test_each_batch_entry_has_its_own_bounds():
    a, b = RNG.random((400, 3)), RNG.random((400, 3))
    scale = np.array([1.0, 10.0, 0.01])
    together = overlap_coefficient(a * scale, b * scale, np.zeros(3), scale)
    apart = [overlap_coefficient(a[:, i], b[:, i], 0, 1) for i in range(3)]
    np.testing.assert_allclose(together, apart, atol=1e-3)  # rounding may move a draw to the next cell


def test_point_masses_overlap_only_where_they_coincide():
    a = np.full((50, 2), 0.5)
    assert overlap_coefficient(a, a, 0, 1) == pytest.approx(1)
    assert np.all(overlap_coefficient(a, a + 0.02, 0, 1) < 5e-3)


def test_draws_outside_their_bounds_are_refused_by_place():
    a = RNG.random((5, 3))
    a[2, 1] = 1.5
    with pytest.raises(ValueError, match=r"1 of 15 draws .* \(2, 1\)"):
        overlap_coefficient(a, a, 0, 1)
    a[2, 1] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        masses(a, 0, 1)
    masses(np.array([[-1e-7], [1 + 1e-7]]), 0, 1)  # float32 rounding is not an error


@pytest.mark.parametrize(("chains", "draws"), [(1, 9), (2, 5), (3, 4), (4, 4)])
def test_halves_share_no_draw_and_are_equally_many(chains, draws):
    x = np.arange(chains * draws).reshape(chains, draws, 1)
    first, last = halves(x)
    assert first.shape == last.shape
    assert not set(first.ravel()) & set(last.ravel())
    assert len(first) == (draws // 2 if chains == 1 else chains // 2 * draws)
