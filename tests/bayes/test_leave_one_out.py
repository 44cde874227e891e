"""PSIS-LOO and information gained, where both are known in closed form."""

import arviz_stats
import numpy as np
import pytest
import xarray as xr
from chances import z_limit
from scipy import stats

import bayes
import clm5

CHAINS, DRAWS, HORIZONS = 4, 1000, 8


@pytest.fixture(scope="module")
def normal():
    """A file of three sites whose horizons are N(mu, 1) with a flat mu, exact draws; the third has an outlier.

    Site 1 has two horizons less. One parameter carries mu, another is half as wide as its prior, one is held.
    """
    rng = np.random.default_rng(0)
    y = rng.normal(size=(3, HORIZONS))
    y[1, -2:] = np.nan
    y[2, 3] = 9.0
    n = np.isfinite(y).sum(1)
    mu = np.nanmean(y, 1) + rng.normal(size=(CHAINS, DRAWS, 3)) / np.sqrt(n)
    unit = rng.uniform(size=(CHAINS, DRAWS, 3, 21))
    unit[..., 0] = stats.norm.cdf(mu / 10)
    unit[..., 1] = 0.25 + 0.5 * unit[..., 1]
    unit[..., 2] = rng.beta(20, 30, size=unit.shape[:3])
    unit[..., 3] = 0.5
    coords = {"site": ["a", "b", "c"], "parameter": list(clm5.NAMES), "horizon": np.arange(HORIZONS)}
    density = (("chain", "draw", "site", "horizon"), stats.norm.logpdf(y, mu[..., None]))
    posterior = xr.Dataset({"unit": (("chain", "draw", "site", "parameter"), unit)}, coords)
    groups = {"posterior": posterior, "log_likelihood": xr.Dataset({"soc_observed": density}, coords)}
    tree = xr.DataTree.from_dict(groups)
    tree.attrs["method"] = "nuts"
    return tree, y, n


def left_out(y: np.ndarray, i: int) -> float:
    """Log density of one value given the others: N(their mean, 1 + 1/(n − 1))."""
    others = np.delete(y, i)
    return stats.norm.logpdf(y[i], others.mean(), np.sqrt(1 + 1 / len(others)))


def test_horizons_are_foretold_as_well_as_in_closed_form(normal):
    tree, y, n = normal
    found = bayes.loo(tree)
    for site in (0, 1):
        values = y[site, : n[site]]
        exact = np.array([left_out(values, i) for i in range(n[site])])
        np.testing.assert_allclose(found["elpd_i"][site, : n[site]], exact, atol=0.05)
        in_sample = stats.norm.logpdf(values, values.mean(), np.sqrt(1 + 1 / n[site]))  # nothing left out: caught
        assert np.abs(in_sample - exact).max() > 0.1
        assert float(found["elpd"][site]) == pytest.approx(exact.sum(), abs=0.1)
        assert float(found["se"][site]) == pytest.approx(exact.std(ddof=1) * np.sqrt(n[site]), abs=0.1)
        assert float(found["p_loo"][site]) == pytest.approx(1.0, abs=0.7)  # one mean
    assert np.isnan(found["elpd_i"].values[~np.isfinite(y)]).all()
    assert found.attrs["elpd"] == pytest.approx(float(found["elpd"].sum()))


def test_a_horizon_that_the_others_do_not_foretell_is_listed(normal):
    found = bayes.loo(normal[0])
    np.testing.assert_array_equal(found["high_k"], [0, 0, 1])
    assert int(found["pareto_k"].argmax(...)["horizon"]) == 3
    text = bayes.loo_verdict(found)
    assert "22 horizons of 3 sites" in text
    assert "1 of 22 horizons have Pareto k > 0.70" in text
    assert "c, horizon 3: k" in text


def test_one_site_is_as_arviz_says(normal):
    tree, _, n = normal
    groups = {name: tree[name].to_dataset().sel(site="b") for name in ("posterior", "log_likelihood")}
    groups["log_likelihood"] = groups["log_likelihood"].isel(horizon=slice(n[1]))
    one = xr.DataTree.from_dict(groups)
    relative = bayes.estimate(tree["posterior"]["unit"].values)
    with np.errstate(invalid="ignore"):
        reff = np.nanmean((relative["sd"] / relative["mcse_mean"])[1] ** 2) / (CHAINS * DRAWS)
    expected = arviz_stats.loo(one, pointwise=True, reff=min(reff, 1.0))
    found = bayes.loo(tree)
    np.testing.assert_allclose(found["elpd_i"].values[1, : n[1]], expected.elpd_i, rtol=1e-10)
    np.testing.assert_allclose(found["pareto_k"].values[1, : n[1]], expected.pareto_k, rtol=1e-8)
    for name, value in (("elpd", expected.elpd), ("se", expected.se), ("p_loo", expected.p)):
        assert float(found[name][1]) == pytest.approx(value, rel=1e-8)
    assert found.attrs["good_k"] == pytest.approx(expected.good_k)


def test_a_file_without_likelihood_or_of_a_network_is_refused(normal):
    tree, _, _ = normal
    with pytest.raises(ValueError, match=r"no group log_likelihood \(groups: posterior\)"):
        bayes.loo(xr.DataTree.from_dict({"posterior": tree["posterior"].to_dataset()}))
    network = tree.copy()
    network.attrs = {"method": "mc_dropout", "draws_are": "independent"}
    with pytest.raises(ValueError, match="written by a network"):
        bayes.loo(network)


def test_information_is_that_of_known_densities(normal):
    gained = bayes.information(normal[0])
    half, beta, held, free = (gained.sel(parameter=clm5.NAMES[i]) for i in (1, 2, 3, 4))
    assert gained["kl"].dims == ("site", "parameter")
    n = CHAINS * DRAWS
    error = np.sqrt(0.2 / n)  # of a sd over the sd, uniform draws: √((kurtosis − 1) / 4n)
    np.testing.assert_allclose(half["sd_reduction"], 0.5, atol=0.5 * z_limit(9) * error)
    np.testing.assert_allclose(free["sd_reduction"], 0.0, atol=z_limit(9) * error)
    exact = 1 - stats.beta(20, 30).std() * np.sqrt(12)
    np.testing.assert_allclose(beta["sd_reduction"], exact, atol=(1 - exact) * z_limit(9) * np.sqrt(0.5 / n))
    np.testing.assert_allclose(half["kl"], 1.0, atol=0.03)  # bias 0.007, noise 0.002
    np.testing.assert_allclose(free["kl"], 0.0, atol=0.03)
    np.testing.assert_allclose(beta["kl"], -stats.beta(20, 30).entropy() / np.log(2), atol=0.13)  # noise 0.02
    assert np.isnan(held["kl"]).all()
    assert np.isnan(held["sd_reduction"]).all()
