"""What was learned: closed forms of spread and divergence, and nothing where nothing was learned."""

import numpy as np
import pytest
from scipy import integrate, stats

from comparisons.density import CELLS, masses, smooth
from comparisons.information import CLOSER, between_share, kl_from_prior, sd_reduction
from comparisons.overlap import density_of

RNG = np.random.default_rng(21)


def close(draws):
    return smooth(masses(draws, 0, 1), len(draws), bandwidths=CLOSER)


BOX = np.full((CELLS, 1), 1 / CELLS)


@pytest.mark.parametrize(("a", "b"), [(1, 1), (2, 2), (1, 6), (30, 10)])
def test_kl_from_the_box_is_the_betas_own(a, b):
    p = stats.beta(a, b)
    exact = integrate.quad(lambda x: p.pdf(x) * np.log2(np.maximum(p.pdf(x), 1e-300)), 0, 1)[0]
    found = kl_from_prior(close(p.rvs((1000, 100), random_state=RNG)), BOX).mean()
    assert found == pytest.approx(exact, rel=0.04, abs=0.01)  # smoothing loses 1 to 4 % of a sharp one


def test_a_box_of_half_the_width_gained_one_bit():
    found = kl_from_prior(close(RNG.uniform(0, 0.5, (4000, 50))), BOX).mean()
    assert found == pytest.approx(1, abs=0.06)  # the smoothed edge costs 0.04


def test_kl_stays_finite_where_no_prior_draw_fell():
    posterior = density_of(RNG.uniform(0.8, 0.9, (400, 1)), 0, 1)
    prior = density_of(RNG.uniform(0.0, 0.3, (400, 1)), 0, 1)
    found = float(kl_from_prior(posterior, prior, n_prior=400)[0])
    assert 5 < found < np.log2(401) + np.log2(CELLS)
    assert np.isfinite(found)


def test_sd_reduction_is_none_for_the_prior_and_missing_for_forcing():
    np.testing.assert_allclose(sd_reduction([0.5, 0.25, 1.0], [0.5, 0.5, 0.5]), [0, 0.5, -1])
    assert np.isnan(sd_reduction([0.0], [0.0])).all()


def test_between_share_tells_members_from_masks():
    masks = RNG.standard_normal((5, 400, 3))
    members = RNG.standard_normal((5, 1, 3)) * 10 + masks
    assert np.all(between_share(masks) < 0.05)
    assert np.all(between_share(members) > 0.8)
    assert np.isnan(between_share(masks[:1])).all()
