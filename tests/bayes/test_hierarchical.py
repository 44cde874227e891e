"""The hierarchical model: its prior is the box, its posterior quadrature's, and pooling helps where data are few."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from chances import z_limit
from numpyro import handlers
from numpyro.infer.util import log_density
from scipy import stats

import bayes
import clm5
from bayes import diagnostics, model
from bayes.design import design_matrix

OPTIONS = clm5.ModelOptions()
WHERE = clm5.NAMES.index("q10")
ONE = bayes.Config(OPTIONS, warmup=200, draws=300, max_tree_depth=5, free=("q10",), reruns=0)
POOLED = bayes.HierarchicalConfig(ONE)


@pytest.fixture(scope="module")
def simulated(sites):
    return bayes.simulated_sites(sites, ONE, 4, seed=3)


@pytest.fixture(scope="module")
def tree(simulated):
    return bayes.sample_hierarchical(simulated, POOLED, seed=1, progress=False)


def two_covariates(sites: xr.Dataset) -> xr.Dataset:
    n = sites.sizes["site"]
    number = {"role": "covariate", "units": "1"}
    category = number | {"flag_values": np.array([3, 5, 9]), "flag_meanings": "north south nowhere"}
    return sites.assign(
        slope=("site", np.arange(n) ** 2.0, number),
        flat=("site", np.ones(n), number),
        zone=("site", np.where(np.arange(n) % 3 == 0, 3.0, 5.0), category),
    )


def test_rows_of_the_design_have_length_one_on_average(sites):
    land = two_covariates(sites)
    config = bayes.HierarchicalConfig(covariates=("slope",), region="zone")
    design, columns = design_matrix(land, config)
    assert columns == ["intercept", "slope", "zone=north", "zone=south"]
    assert (design**2).sum(1).mean() == pytest.approx(1)
    np.testing.assert_allclose(design[:, 1] * np.sqrt(3), stats.zscore(land["slope"]))
    np.testing.assert_array_equal(design[:, 2] > 0, land["zone"] == 3)
    np.testing.assert_array_equal((design[:, 2:] > 0).sum(1), 1)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"covariates": ("slpoe",)}, r"no covariate \['slpoe'\]"),
        ({"covariates": ("zone",)}, "zone is categorical; name it as `region`"),
        ({"region": "slope"}, "region slope is not categorical"),
        ({"covariates": ("flat",)}, "flat is 1 at every site"),
        ({"covariates": ("slope", "slope")}, "names one twice"),
        ({"tau": 1.1}, "tau must lie in 0 … 1"),
        ({"tau_scale": 0.0}, "tau_scale must be positive"),
        ({"sampler": bayes.Config(thin=2)}, "sampler.thin must be 1"),
    ],
)
def test_wrong_requests_are_refused_by_name(sites, asked, words):
    with pytest.raises(ValueError, match=words):
        bayes.sample_hierarchical(two_covariates(sites), bayes.HierarchicalConfig(**{"sampler": ONE} | asked))


def test_the_prior_of_every_site_is_the_box_whatever_tau(sites):
    config = bayes.HierarchicalConfig(region="zone")
    design = jnp.asarray(design_matrix(two_covariates(sites), config)[0])
    forcing, n = clm5.Forcing.from_sites(sites), 300

    def draw(key):
        seeded = handlers.seed(bayes.hierarchical_model, key)
        trace = handlers.trace(seeded).get_trace(forcing, None, design, config)
        return trace["unit"]["value"], trace["tau"]["value"]

    unit, tau = (np.asarray(x) for x in jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(1), n)))
    assert unit.shape == (n, 5, 21)
    for place in range(5):
        assert stats.kstest(unit[:, place].ravel(), stats.uniform.cdf).pvalue > 1e-6 / 7  # independent of each other
    assert stats.kstest(tau.ravel(), stats.truncnorm(0, 2, scale=0.5).cdf).pvalue > 1e-6 / 7
    together = stats.norm.ppf(unit[:, 1]) * stats.norm.ppf(unit[:, 2])  # two sites of a zone: mean E[1 − tau²]
    z = (together.mean() - (1 - tau**2).mean()) / (together.std() / np.sqrt(together.size))
    assert abs(z) < z_limit(2)


@pytest.mark.slow
def test_with_tau_one_the_density_is_that_of_independent_sites(simulated, float64):
    config = dataclasses.replace(POOLED, tau=1.0)
    design = jnp.asarray(design_matrix(simulated, config)[0])
    data = clm5.Forcing.from_sites(simulated), clm5.Observations.from_sites(simulated)
    own, coefficients = jnp.array([[-1.0], [0.3], [0.0], [2.0]]), jnp.array([[0.7]])
    found, _ = log_density(
        bayes.hierarchical_model, (*data, design, config), {}, {"own": own, "coefficients": coefficients}
    )
    place = lambda free: jnp.asarray(ONE.fixed_unit).at[WHERE].set(free[0])  # noqa: E731
    energy = lambda score, *site: model.potential(score, *site, OPTIONS, scale="probit", place=place, n_free=1)  # noqa: E731
    alone = -jax.vmap(energy)(own, *data).sum()
    assert float(found) == pytest.approx(float(alone) + stats.norm.logpdf(0.7), rel=1e-9)


def by_quadrature(sites: xr.Dataset, tau_scale: float, n: int = 81) -> np.ndarray:
    """Posterior means of B, B², tau, tau² and of the unit value of every site: sums over a grid of B, tau and z."""
    fine, z = np.linspace(-7, 7, 600), np.linspace(-5, 5, 161)
    with jax.enable_x64(True):
        unit = np.tile(ONE.fixed_unit, (len(fine), 1, 1))
        unit[..., WHERE] = stats.norm.cdf(fine)[:, None]
        forcing, observations = clm5.Forcing.from_sites(sites), clm5.Observations.from_sites(sites)
        soc = clm5.simulate(OPTIONS.space.physical(jnp.asarray(unit)), forcing).soc
        density = np.asarray(clm5.log_likelihood(soc, observations, OPTIONS)).sum(-1)  # (score, site)
    b, tau = np.meshgrid(np.linspace(-5, 5, n), (np.arange(n) + 0.5) / n, indexing="ij")
    score = np.sqrt(1 - tau**2)[..., None] * b[..., None] + tau[..., None] * z
    log_weight = stats.norm.logpdf(b) + stats.norm.logpdf(tau / tau_scale)
    inside = []
    for of_site in density.T:
        at = stats.norm.pdf(z) * np.exp(np.interp(score, fine, of_site - of_site.max()))
        inside.append((at * stats.norm.cdf(score)).sum(-1) / at.sum(-1))
        log_weight = log_weight + np.log(at.sum(-1))
    weight = np.exp(log_weight - log_weight.max())
    return np.array([(weight * x).sum() for x in (b, b**2, tau, tau**2, *inside)]) / weight.sum()


@pytest.mark.slow
def test_one_pooled_parameter_agrees_with_quadrature(tree, simulated):
    posterior = tree["posterior"]
    b, tau = (posterior[name].values[..., None].reshape(4, 300, 1) for name in ("coefficients", "tau"))
    unit = posterior["unit"].sel(parameter="q10").transpose("chain", "draw", "site").values
    found = diagnostics.estimate(np.concatenate([b, b**2, tau, tau**2, unit], -1))
    z = lambda exact: np.abs((found["mean"] - exact) / found["mcse_mean"]).max()  # noqa: E731
    limit = z_limit(len(found["mean"]))
    assert z(by_quadrature(simulated, POOLED.tau_scale)) < limit
    assert z(by_quadrature(simulated, 0.3 * POOLED.tau_scale)) > limit  # more pooling
    assert z(by_quadrature(simulated.assign(soc=1.2 * simulated["soc"]), POOLED.tau_scale)) > limit


@pytest.mark.slow
def test_the_file_is_a_posterior_file_with_what_sites_share(tree, simulated, tmp_path):
    file = clm5.save_posterior(tree, tmp_path / "posterior.nc")
    read = clm5.open_posterior(file)
    assert read.attrs["method"] == "hierarchical"
    assert read.attrs["tau_scale"] == POOLED.tau_scale
    assert read["posterior"]["coefficients"].dims == ("chain", "draw", "column", "free_parameter")
    assert read["sample_stats"]["diverging"].dims == ("chain", "draw")
    assert list(read["constant_data"]["column"].values) == ["intercept"]
    table = bayes.summary(read)
    spoilt = table.assign(tau_rhat=table["tau_rhat"] + 1.0)
    assert not bayes.converged(spoilt).any()
    assert set(bayes.unconverged(spoilt).parameter) == {"tau of q10"}
    assert "(tau of q10)" in bayes.verdict(spoilt)
    with pytest.raises(FileExistsError, match="is not overwritten"):
        bayes.sample_hierarchical(simulated, POOLED, out=tmp_path)


@pytest.mark.slow
def test_pooling_by_a_covariate_finds_parameters_better_where_horizons_are_few():
    free = ("q10", "w_scaling")
    where = [clm5.NAMES.index(name) for name in free]
    config = bayes.Config(OPTIONS, warmup=300, draws=300, max_tree_depth=6, batch=30, free=free, reruns=0)
    lent = clm5.sites.virtual(30, seed=4)
    x = np.random.default_rng(5).normal(size=30)
    unit = np.tile(config.fixed_unit, (30, 1))
    unit[:, where] = stats.norm.cdf(np.stack([x, -0.8 * x], 1))
    made = bayes.simulated_sites(lent, config, 30, seed=6, unit=unit)
    made = made.assign(x=("site", x, {"role": "covariate", "units": "1"}))
    few = np.arange(30) % 2 == 0
    made["soc"] = made["soc"].where(~xr.DataArray(few, dims="site") | (made["horizon"] == made["horizon"][0]))
    for name in ("upper", "lower"):
        made[name] = made[name].where(np.isfinite(made["soc"]))
    pooled = bayes.HierarchicalConfig(dataclasses.replace(config, max_tree_depth=7), covariates=("x",))

    def error(tree):
        mean = tree["posterior"]["unit"].mean(("chain", "draw")).sel(parameter=list(free)).values
        return np.sqrt(((mean - unit[:, where]) ** 2)[few].mean())

    together = bayes.sample_hierarchical(made, pooled, seed=1, progress=False)
    assert float(together["posterior"]["tau"].mean()) < 0.5
    assert error(together) < 0.7 * error(bayes.sample(made, config, seed=1, progress=False))
