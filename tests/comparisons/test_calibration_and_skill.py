"""Coverage of right, too narrow and too wide posteriors; log skill of known errors; R-hat and ESS as arviz has them."""

import numpy as np
import pytest
from arviz_stats.base import array_stats

from comparisons.calibration import LEVELS, coverage, inside, intervals
from comparisons.convergence import diagnose
from comparisons.skill import log_skill

RNG = np.random.default_rng(23)
CASES = 4000
LEVEL = np.array(LEVELS)[:, None]


def covered(width, draws=40):
    """Coverage of draws around a noisy estimate, `width` times as wide as they should be."""
    estimate = RNG.standard_normal(CASES)  # truth 0, error 1
    sample = estimate + width * RNG.standard_normal((draws, CASES))
    return coverage(inside(intervals(sample), np.zeros(CASES)), LEVELS, axis=1)


def test_a_right_posterior_is_covered_as_promised_even_with_few_draws():
    share, error, n = covered(1.0)
    assert np.all(np.abs(share - LEVELS) < 4.5 * error)  # with numpy's default quantiles 95 % would read 91 %
    np.testing.assert_array_equal(n, CASES)


@pytest.mark.parametrize(("width", "sign"), [(0.5, -1), (0.8, -1), (1.25, 1), (2.0, 1)])
def test_wrong_widths_are_seen(width, sign):
    share, error, _ = covered(width)
    assert np.all(sign * (share - LEVELS) > 4.5 * error)


def test_unknown_truth_counts_neither_way():
    bounds = np.array([[[0.0, 0.0, 0.0, np.nan], [1.0, 1.0, 1.0, np.nan]]])
    share, _, n = coverage(inside(bounds, np.array([0.5, 2.0, np.nan, 0.5])), [0.5], axis=1)
    assert (share[0], n[0]) == (0.5, 2)
    assert np.isnan(coverage(np.full((1, 3), np.nan), [0.5], axis=1)[0])


def test_log_skill_of_known_errors():
    observed = np.exp(RNG.standard_normal((50, 4)))
    observed[:, 3] = np.nan
    perfect = log_skill(observed, observed)
    assert perfect == {"nse": 1.0, "rmse": 0.0, "bias": 0.0, "n": 150.0}
    doubled = log_skill(2 * observed, observed)
    assert doubled["bias"] == pytest.approx(np.log(2))
    assert doubled["rmse"] == pytest.approx(np.log(2))
    mean = np.full_like(observed, np.exp(np.nanmean(np.log(observed))))
    assert log_skill(mean, observed)["nse"] == pytest.approx(0)
    assert log_skill(-observed, observed)["n"] == 0


def autoregressive(coefficient, shape):
    x = RNG.standard_normal(shape)
    for i in range(1, shape[1]):
        x[:, i] += coefficient * x[:, i - 1]
    return x


@pytest.mark.parametrize("chains", [1, 4])
@pytest.mark.parametrize("draws", [6, 7, 25, 200])
@pytest.mark.parametrize("coefficient", [-0.5, 0.0, 0.9])
def test_rhat_and_ess_equal_arviz(chains, draws, coefficient):
    x = autoregressive(coefficient, (chains, draws, 5))
    x[..., 1] = np.round(x[..., 1])  # ties
    x[..., 2] += np.arange(chains)[:, None]  # chains apart
    found = diagnose(x)
    for i in range(5):
        one, axes = x[..., i], {"chain_axis": 0, "draw_axis": 1}
        if chains > 1:
            assert found["rhat"][i] == pytest.approx(array_stats.rhat(one, **axes), rel=1e-10)
        assert found["ess_bulk"][i] == pytest.approx(array_stats.ess(one, **axes), rel=1e-10)
        tail = array_stats.ess(one, method="tail", prob=(0.05, 0.95), **axes)
        assert found["ess_tail"][i] == pytest.approx(tail, rel=1e-10, nan_ok=True)
    if chains == 1:
        assert np.isnan(found["rhat"]).all()  # no other chain to be compared with


def test_what_cannot_be_judged_is_missing():
    for x in (np.zeros((2, 50, 3)), RNG.random((2, 5, 3))):
        assert all(np.isnan(values).all() for values in diagnose(x).values())
