"""Tests of uniform ranks: exact where all outcomes can be listed, and sharp on posteriors whose fault is known."""

from itertools import product

import numpy as np
import pytest
import xarray as xr
from arviz_stats.ecdf_utils import simulate_confidence_bands
from scipy import stats

import bayes
from bayes import figures_calibration, rank_tests

SIMULATIONS, KEPT = 1200, 99
FALSE_ALARM = 1e-4  # of one set of ranks, over all its quantities
FAULTS = {"right": (0.0, 1.0), "aside": (0.4, 1.0), "shrunk": (0.0, 0.8), "wide": (0.0, 1.35)}


def ranks_of(faults, simulations=SIMULATIONS, converged=None, seed=0) -> xr.Dataset:
    """Ranks of standard normal truths among draws of normals with such a mean and sd, a quantity each."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=(simulations, len(faults)))
    centre, sd = np.array([FAULTS[name] for name in faults]).T
    rank = (centre + sd * rng.normal(size=(KEPT, *truth.shape)) < truth).sum(0)
    both = ("simulation", "quantity")
    converged = np.ones(simulations, bool) if converged is None else converged
    return xr.Dataset(
        {
            "rank": (both, rank),
            "sd": (both, np.full(rank.shape, 0.5 / np.sqrt(12))),
            "converged": ("simulation", converged),
            "ess": ("simulation", np.where(converged, 500.0, 20.0)),
        },
        {
            "quantity": list(faults),
            "simulation": [f"simulation-{i:04d}" for i in range(1, simulations + 1)],
            "is_parameter": ("quantity", np.arange(len(faults)) < 3),
        },
        attrs={"kept": KEPT},
    )


@pytest.mark.parametrize(("simulations", "n_ranks"), [(3, 4), (5, 3)])
def test_p_values_are_exact_over_all_outcomes(simulations, n_ranks):
    outcomes = np.array(list(product(range(n_ranks), repeat=simulations)))  # all equally likely
    p = np.array([rank_tests.p_value(ranks, n_ranks) for ranks in outcomes])
    for reached in np.unique(p):
        assert np.mean(p <= reached * (1 + 1e-9)) == pytest.approx(reached, rel=1e-10)
    extreme = rank_tests.p_value(np.zeros(simulations, int), n_ranks)
    assert extreme == p.min()


def test_ranks_leave_the_band_where_the_p_value_says_so():
    rng = np.random.default_rng(1)
    n, n_ranks, alpha = 40, 16, 0.3
    lower, upper = rank_tests.band(n, n_ranks, alpha)
    left = []
    for _ in range(200):
        ranks = rng.integers(0, n_ranks, n)
        share = np.cumsum(np.bincount(ranks, minlength=n_ranks))[:-1] / n
        outside = bool(np.any((share < lower - 1e-12) | (share > upper + 1e-12)))
        assert outside == (rank_tests.p_value(ranks, n_ranks) <= alpha)
        left.append(outside)
    assert 0.05 < np.mean(left) < 0.45  # 0.3 or a little less, 5 sd of 200


def test_the_level_is_that_of_arviz_by_simulation():
    n, n_ranks, alpha, trials = 60, 20, 0.1, 20_000
    points = np.arange(1, n_ranks) / n_ranks
    simulated = 1 - simulate_confidence_bands(n, 1, points, 1 - alpha, trials, np.random.default_rng(0))
    error = np.sqrt(alpha * (1 - alpha) / trials)
    # a discrete level is reached from below: its probability is at most alpha, the next one's at least
    assert rank_tests.leaving_probability(n, n_ranks, simulated * (1 - 1e-6)) < alpha + 6 * error
    assert rank_tests.leaving_probability(n, n_ranks, simulated * (1 + 1e-6)) > alpha - 6 * error
    assert rank_tests.leaving_probability(n, n_ranks, 1.3 * simulated) > alpha + 6 * error


def test_holm_is_stepwise_and_never_falls():
    np.testing.assert_allclose(rank_tests.holm(np.array([0.03, 0.005, 0.02, 0.9])), [0.06, 0.02, 0.06, 0.9])
    np.testing.assert_allclose(rank_tests.holm(np.array([0.4, 0.5])), [0.8, 0.8])


def test_wrong_posteriors_are_called_and_the_right_one_is_not():
    ranks = ranks_of(["right", "aside", "shrunk", "wide"])
    table = bayes.uniformity(ranks, FALSE_ALARM)
    assert list(table.index[table.alarm]) == ["aside", "shrunk", "wide"]
    assert table["mean"]["aside"] < 0.45
    assert table.spread["shrunk"] > 1.08 > 1.0 > table.spread["wide"]
    assert table.spread["right"] == pytest.approx(1, abs=5 / np.sqrt(5 * SIMULATIONS))  # its sd is 1/√(5 n), 5 of them
    np.testing.assert_allclose(table.sd_reduction, [0.5, 0.5, 0.5, np.nan])
    text = bayes.uniformity_verdict(ranks, FALSE_ALARM)
    assert "3 of 4 quantities" in text
    assert "aside" in text
    assert "the truth lies below the posterior" in text
    assert "too narrow" in text
    assert "too wide" in text


def test_false_alarms_are_as_rare_as_stated():
    faults, alpha, sets = ["right"] * 3, 0.2, 150
    alarms = [bayes.uniformity(ranks_of(faults, 60, seed=i), alpha).alarm.any() for i in range(sets)]
    assert sum(alarms) <= stats.binom.ppf(1 - 1e-6, sets, alpha)
    assert sum(alarms) >= stats.binom.ppf(1e-6, sets, 0.6 * alpha)  # a discrete test does not spend all of it


def test_simulations_that_did_not_converge_are_counted_and_kept():
    lost = np.arange(SIMULATIONS) % 100 != 7
    ranks = ranks_of(["right", "shrunk"], converged=lost)
    text = bayes.uniformity_verdict(ranks, FALSE_ALARM, most=3)
    assert "12 of 1200 simulations did not converge; they are in the test" in text
    assert "simulation-0008, simulation-0108, simulation-0208 and 9 more" in text
    assert "12 simulations have fewer effective draws than the 99" in text
    everything = bayes.uniformity(ranks, FALSE_ALARM)
    assert everything.p["shrunk"] == bayes.uniformity(ranks_of(["right", "shrunk"]), FALSE_ALARM).p["shrunk"]


def test_ranks_out_of_range_are_refused():
    with pytest.raises(ValueError, match="0 … 9, found 3 … 10"):
        rank_tests.p_value(np.array([3, 10]), 10)
    with pytest.raises(ValueError, match="found none"):
        rank_tests.p_value(np.array([], int), 10)
    with pytest.raises(ValueError, match="alpha must lie between 0 and 1"):
        rank_tests.band(10, 10, 1.0)


def test_the_figure_shows_every_curve_and_marks_the_alarms():
    ranks = ranks_of(["right", "aside", "shrunk"])
    figure = bayes.plot_ranks(ranks, FALSE_ALARM)
    panels = {axis.get_title().split("\n")[0]: axis for axis in figure.axes if axis.get_title()}
    assert list(panels) == ["right", "aside", "shrunk"]
    below = [axis for axis in figure.axes if not axis.get_title() and axis.lines]
    colours = [axis.lines[-1].get_color() for axis in below]
    assert colours == [figures_calibration.INK, figures_calibration.ALARM, figures_calibration.ALARM]
    place = np.arange(1, KEPT + 1) / (KEPT + 1)
    share = [(ranks["rank"].sel(quantity="aside") < i).mean() for i in range(1, KEPT + 1)]
    np.testing.assert_allclose(below[1].lines[-1].get_ydata(), np.array(share) - place, atol=1e-12)
    lower, upper = rank_tests.band(SIMULATIONS, KEPT + 1, FALSE_ALARM / 3)
    drawn = below[1].collections[0].get_paths()[0].vertices[:, 1]
    assert drawn.max() == pytest.approx((upper - place).max())
    assert drawn.min() == pytest.approx((lower - place).min())
