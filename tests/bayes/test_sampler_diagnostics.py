"""R-hat, effective draws and the verdict, on chains whose quality is known."""

import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

import clm5
from bayes import diagnostics

CHAINS, DRAWS, SITES = 4, 500, 3
RNG = np.random.default_rng(0)


def tree_of(unit, diverging=None):
    names = ("chain", "draw", "site", "parameter")
    coords = {"site": [f"site-{i}" for i in range(unit.shape[2])], "parameter": list(clm5.NAMES)}
    theta = np.asarray(clm5.ParameterSpace("binn").physical(jnp.asarray(unit)))
    groups = {"posterior": xr.Dataset({"unit": (names, unit), "theta": (names, theta)}, coords)}
    if diverging is not None:
        groups["sample_stats"] = xr.Dataset({"diverging": (names[:3], diverging)})
    return xr.DataTree.from_dict(groups)


@pytest.fixture
def good():
    return RNG.uniform(size=(CHAINS, DRAWS, SITES, 21))


def test_independent_draws_pass(good):
    table = diagnostics.summary(tree_of(good))
    assert table["rhat"].dims == ("site", "parameter")
    assert float(table["rhat"].max()) < 1.02
    assert float(table["ess_bulk"].min()) > 0.7 * CHAINS * DRAWS
    np.testing.assert_allclose(table["near_bound"], 0.02, atol=0.02)  # 1 % at each end; 6 sd of a binomial
    np.testing.assert_allclose(table["mcse_mean"], table["sd"] / np.sqrt(CHAINS * DRAWS), rtol=0.2)


def test_a_chain_elsewhere_fails_and_is_listed(good):
    good[2, :, 1, 9] = 0.5 * good[2, :, 1, 9]
    table = diagnostics.summary(tree_of(good))
    assert not bool(diagnostics.converged(table, r_hat_limit=1.05).sel(site="site-1"))
    text = diagnostics.verdict(table, r_hat_limit=1.05)
    assert "2 of 3 sites" in text
    assert "site-1: R-hat" in text
    assert "tau4s3" in text
    assert "site-0" not in text


def test_few_effective_draws_fail(good):
    slow = good.copy()
    slow[:, :, 0, 3] = np.repeat(good[:, : DRAWS // 50, 0, 3], 50, axis=1)  # every value repeated 50 times
    assert not bool(diagnostics.converged(diagnostics.summary(tree_of(slow)), r_hat_limit=9.0).sel(site="site-0"))


def test_a_parameter_that_is_held_is_left_out_and_a_stuck_chain_is_not(good):
    good[:, :, :, 5] = 0.25
    table = diagnostics.summary(tree_of(good))
    assert np.isnan(table["rhat"].sel(parameter="taul1")).all()
    assert np.isnan(table["near_bound"].sel(parameter="taul1")).all()
    assert diagnostics.converged(table, r_hat_limit=1.05).all()
    good[:, :, 2, 6] = np.arange(CHAINS)[:, None] / 10  # every chain stuck at a place of its own
    assert not diagnostics.converged(diagnostics.summary(tree_of(good)), 1.05).sel(site="site-2")


def test_divergent_draws_are_counted_per_site(good):
    diverging = np.zeros(good.shape[:3], bool)
    diverging[0, :7, 2] = True
    table = diagnostics.summary(tree_of(good, diverging))
    np.testing.assert_array_equal(table["divergences"], [0, 0, 7])
    assert "Divergent draws: 7 at site-2" in diagnostics.verdict(table)


def test_long_lists_are_cut(good):
    many = np.repeat(good[:, :50], 9, axis=2)
    text = diagnostics.verdict(diagnostics.summary(tree_of(many)), most=4)
    assert "0 of 27 sites" in text
    assert "and 23 more" in text
