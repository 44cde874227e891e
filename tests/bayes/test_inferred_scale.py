"""The scale of the error inferred with the parameters: against quadrature, in the file, in diagnostics and in ranks."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from chances import z_limit
from scipy import stats

import bayes
import clm5
from bayes import diagnostics, model

FREE = ("q10",)
WHERE = clm5.NAMES.index("q10")
OPTIONS = clm5.ModelOptions()
CONFIG = bayes.Config(
    OPTIONS, chains=4, warmup=150, draws=300, max_tree_depth=3, batch=5, free=FREE, infer_sigma=True, reruns=0
)
SPREAD = CONFIG.sigma_spread
ERRORS = (OPTIONS, clm5.ModelOptions(error="proda", sigma=0.6, operator="pchip"))


@pytest.fixture(scope="module")
def simulated(sites):
    return bayes.simulated_sites(sites, CONFIG, 5, seed=1)


@pytest.fixture(scope="module")
def tree(simulated):
    return bayes.sample(simulated, CONFIG, seed=2, progress=False)


@pytest.mark.parametrize("options", ERRORS)
def test_the_density_is_that_of_the_options_sigma_times_its_prior(columns, options):
    forcing, observations = (part[1] for part in columns)
    latent = jnp.append(jnp.linspace(-1.0, 1.2, 21), 0.7)
    there = dataclasses.replace(options, sigma=float(options.sigma * np.exp(SPREAD * 0.7)))
    found, fixed = (
        -float(model.potential(x, forcing, observations, o, scale="probit", sigma_spread=spread))
        for x, o, spread in ((latent, options, SPREAD), (latent[:-1], there, None))
    )
    assert found == pytest.approx(fixed + stats.norm.logpdf(0.7), rel=1e-10)  # float64, about 1e3 roundings
    trace = model.sigma_from_score(np.random.default_rng(1).normal(size=4000), options, SPREAD)
    assert stats.kstest(trace, stats.lognorm(SPREAD, scale=options.sigma).cdf).pvalue > 1e-6


def on_a_grid(site: xr.Dataset, spread: float, n: int = 101) -> np.ndarray:
    """Posterior means of u, u², ln σ, (ln σ)², where σ is log-normal around that of the options: midpoints."""
    middle, score = (np.arange(n) + 0.5) / n, np.linspace(-6, 6, n)
    sigma = OPTIONS.sigma * np.exp(spread * score)
    with jax.enable_x64(True):
        unit = np.tile(CONFIG.fixed_unit, (n, 1))
        unit[:, WHERE] = middle
        forcing, observations = clm5.Forcing.from_sites(site), clm5.Observations.from_sites(site)
        theta = OPTIONS.space.physical(jnp.asarray(unit))
        predicted = np.asarray(clm5.predict_horizons(clm5.simulate(theta, forcing).soc, observations, OPTIONS))
    real = np.isfinite(site["soc"].values[0])
    modelled, measured = predicted[:, None, real], site["soc"].values[0, real]
    density = stats.lognorm.logpdf(measured, sigma[:, None], scale=modelled).sum(-1) + stats.norm.logpdf(score)
    weight = np.exp(density - density.max())
    weight /= weight.sum()
    of_u, of_sigma = weight.sum(1), weight.sum(0)
    return np.array([of_u @ middle, of_u @ middle**2, of_sigma @ np.log(sigma), of_sigma @ np.log(sigma) ** 2])


def test_one_parameter_and_sigma_agree_with_quadrature(tree, simulated):
    posterior = tree["posterior"]
    u, sigma = posterior["unit"].sel(parameter="q10"), np.log(posterior["sigma"])
    draws = np.stack([x.transpose("chain", "draw", "site").values for x in (u, u**2, sigma, sigma**2)], -1)
    found = diagnostics.estimate(draws)
    each = [simulated.isel(site=[place]) for place in range(5)]
    z = lambda exact: np.abs((found["mean"] - exact) / found["mcse_mean"]).max()  # noqa: E731
    limit = z_limit(found["mean"].size)
    assert z(np.stack([on_a_grid(site, SPREAD) for site in each])) < limit
    assert z(np.stack([on_a_grid(site, 0.6 * SPREAD) for site in each])) > limit  # a prior of sigma too narrow
    assert z(np.stack([on_a_grid(site.assign(soc=1.2 * site["soc"]), SPREAD) for site in each])) > limit


def test_every_draw_goes_with_its_own_sigma_in_the_file(tree, simulated, tmp_path):
    read = clm5.open_posterior(clm5.save_posterior(tree, tmp_path / "posterior.nc"))
    posterior = read["posterior"]
    assert posterior["sigma"].dims == ("chain", "draw", "site")
    assert read.attrs["sigma"] == OPTIONS.sigma
    assert read.attrs["sigma_spread"] == SPREAD
    with jax.enable_x64(True):
        observations = clm5.Observations.from_sites(simulated)
        modelled = clm5.predict_horizons(posterior["soc"].values.astype(float), observations, OPTIONS)
    sigma = posterior["sigma"].values.astype(float)[..., None]
    measured = simulated["soc"].values
    expected = stats.lognorm.logpdf(measured, sigma, scale=np.asarray(modelled))
    found = read["log_likelihood"]["soc_observed"]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)  # float32 in the file
    drawn = read["posterior_predictive"]["soc_observed"].values
    for scale, right in ((sigma, True), (OPTIONS.sigma, False)):
        residual = (np.log(drawn) - np.log(np.asarray(modelled))) / scale
        residual = residual[np.isfinite(residual)]  # independent: the noise of the predictive draws alone
        z = ((residual**2).mean() - 1) / np.sqrt(2 / residual.size)
        assert (abs(z) < z_limit(1)) == right


def test_a_site_fails_whose_sigma_alone_has_not_converged(tree):
    table = bayes.summary(tree)
    assert {"sigma_mean", "sigma_rhat", "sigma_ess_tail", "sigma_quantile"} <= set(table)
    np.testing.assert_array_equal(table["converged"], bayes.converged(table))
    spoilt = tree.copy()
    del spoilt["diagnostics"]
    worse = tree["posterior"]["sigma"].values.copy()
    place = int(diagnostics.shortfall(table).values.argmin())
    worse[0, :, place] *= 1.5  # one chain, at the best site
    spoilt["posterior"]["sigma"] = tree["posterior"]["sigma"].copy(data=worse)
    again = bayes.summary(spoilt)
    assert np.flatnonzero(bayes.converged(again) != bayes.converged(table)) == [place]
    assert np.flatnonzero(diagnostics.shortfall(again) > diagnostics.shortfall(table)) == [place]
    worst = bayes.unconverged(again).set_index("site")
    assert worst.parameter[str(tree["posterior"]["site"].values[place])] == "sigma"
    assert "(sigma)" in bayes.verdict(again)


def test_true_sigma_is_drawn_from_the_prior_and_data_follow_it(sites, simulated):
    many = bayes.simulated_sites(sites, CONFIG, 300, seed=4)
    assert stats.kstest(many["true_sigma"], stats.lognorm(SPREAD, scale=OPTIONS.sigma).cdf).pvalue > 1e-6
    assert stats.kstest(many["true_sigma"], stats.lognorm(SPREAD, scale=1.3 * OPTIONS.sigma).cdf).pvalue < 1e-6
    with jax.enable_x64(True):
        soc = clm5.simulate(many["true_theta"].values, clm5.Forcing.from_sites(many)).soc
        observations = clm5.Observations.from_sites(many)
        z = np.asarray(clm5.observation.standardised(soc, observations, OPTIONS, sigma=many["true_sigma"].values))
        z = z[np.asarray(observations.measured)]
    assert stats.kstest(z, stats.norm.cdf).pvalue > 1e-6
    assert stats.kstest(1.4 * z, stats.norm.cdf).pvalue < 1e-6


def test_ranks_are_those_among_draws_of_sigma_too(tree, simulated):
    ranks = bayes.truth_ranks(tree, simulated, kept=1200)
    assert list(ranks["quantity"].values) == ["q10", "sigma", "log_likelihood", "stock"]
    below = (tree["posterior"]["sigma"] < simulated["true_sigma"]).sum(("chain", "draw"))
    np.testing.assert_array_equal(ranks["rank"].sel(quantity="sigma"), below)
    fit = tree["log_likelihood"]["soc_observed"].sum("horizon").mean(("chain", "draw"))
    np.testing.assert_allclose(ranks["mean"].sel(quantity="log_likelihood"), fit, rtol=1e-4)
    with_truth_lost = simulated.drop_vars("true_sigma")
    lost = tree.copy()
    lost.attrs = tree.attrs | {"sites_fingerprint": clm5.sites.fingerprint(with_truth_lost)}
    with pytest.raises(ValueError, match="the sites do not hold true_sigma"):
        bayes.truth_ranks(lost, with_truth_lost, kept=19)


def test_choices_are_checked_and_travel_with_the_draws(tree):
    with pytest.raises(ValueError, match="sigma_spread must be positive and finite, got 0"):
        bayes.Config(sigma_spread=0.0)
    without = dataclasses.replace(CONFIG, infer_sigma=False)
    assert without.request() == dataclasses.replace(without, sigma_spread=2.0).request() != CONFIG.request()
    unit = tree["posterior"]["unit"].values
    told = {"method": "test", "seed": 0, "wall_time": 0.0, "n_solves": 0, "n_gradients": 0}
    with pytest.raises(ValueError, match=r"sigma must have shape \(4, 300, 5\)"):
        clm5.assemble_posterior(unit, tree["constant_data"].to_dataset(), OPTIONS, sigma=np.ones((4, 300)), **told)


@pytest.mark.slow
def test_sigma_is_calibrated_and_a_wrong_prior_of_it_is_caught(sites):
    """Rate of false alarms 1e-4, over all quantities."""
    few = dataclasses.replace(CONFIG, draws=150, batch=32)
    lent = bayes.simulated_sites(sites, few, 96, seed=5)
    ranks = bayes.truth_ranks(bayes.sample(lent, few, seed=6, progress=False), lent, 49)
    assert not bayes.uniformity(ranks, 1e-4).alarm.any()
    wider = dataclasses.replace(few, sigma_spread=3 * SPREAD)
    lent = bayes.simulated_sites(sites, wider, 96, seed=7)
    ranks = bayes.truth_ranks(bayes.sample(lent, few, seed=8, progress=False), lent, 49)
    assert bayes.uniformity(ranks, 1e-4).alarm["sigma"]
