"""The amortised posterior: its densities, its simulations, and whether what it answers is a posterior."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy import stats

import binn
import clm5
from binn.amortised import divergence, log_density, posterior_loss, simulated
from binn.network import PosteriorNetwork, unit_of_score
from binn.objective import columns_per_site, network_inputs, read_data
from binn.site_encoding import SITE_COLUMNS, encode_site
from binn.steps import evaluate
from binn.uncertainty import draw_units
from clm5.parameters import SUBSETS

FALSE_ALARM = 1e-6
SIMULATION = binn.Config(
    width=64, depth=2, dropout=0.0, loss="simulation", profile=True, parameters="4", epochs=60, patience=60
)


@pytest.fixture(scope="module")
def simulation(sites):
    return binn.fit(sites, SIMULATION, seed=2, progress=False)


@pytest.fixture(scope="module")
def gaussians():
    rng = np.random.default_rng(0)
    factor = np.tril(rng.normal(size=(6, 5, 5)))
    factor[:, range(5), range(5)] = np.exp(0.5 * rng.normal(size=(6, 5)))
    return rng.normal(size=(6, 5)), factor


def test_the_densities_are_those_of_scipy(gaussians):
    mean, factor = gaussians
    score = np.random.default_rng(1).normal(size=(6, 5))
    laws = [stats.multivariate_normal(m, f @ f.T) for m, f in zip(mean, factor, strict=True)]
    expected = [law.logpdf(x) for law, x in zip(laws, score, strict=True)]
    with jax.enable_x64(True):
        found = log_density(*map(jnp.asarray, (score, mean, factor)))
        apart = divergence(jnp.asarray(mean), jnp.asarray(factor))
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    cross = [0.5 * (5 * np.log(2 * np.pi) + np.trace(law.cov) + law.mean @ law.mean) for law in laws]
    np.testing.assert_allclose(apart, [c - law.entropy() for c, law in zip(cross, laws, strict=True)], rtol=1e-10)


def test_an_untrained_network_answers_the_prior():
    network = PosteriorNetwork(7, 21, width=32, depth=2, dropout=0.0, rngs=nnx.Rngs(params=jax.random.key(0)))
    x = jax.random.normal(jax.random.key(1), (50, 7))
    mean, factor = network.gaussian(x)
    assert float(jnp.max(divergence(mean, factor))) < 1.0  # of 21 parameters
    np.testing.assert_array_equal(network(x), unit_of_score(mean))
    assert np.all(np.triu(np.asarray(factor), 1) == 0)


def test_simulated_profiles_follow_the_error_model(sites, simulation):
    """ln(simulated) − ln(modelled) is N(0, sigma²), with the parameters that it was simulated from."""
    config = simulation.config
    with jax.enable_x64(True):
        data = read_data(sites, simulation.features)
        score = jax.random.normal(jax.random.key(3), (400, 4), jnp.float32)
        drawn = simulated(score, data, jax.random.key(4), config).observations
        unit = binn.objective.all_parameters(unit_of_score(score).astype(jnp.float64), config)
        soc = clm5.simulate(config.model.space.physical(unit), data.forcing, rules=config.model.rules).soc
        z = clm5.observation.standardised(soc, drawn, config.model)
        seen = np.asarray(drawn.measured)
        np.testing.assert_array_equal(seen, np.asarray(data.observations.measured))
    assert stats.kstest(np.asarray(z)[seen], "norm").pvalue > FALSE_ALARM
    assert stats.kstest(1.15 * np.asarray(z)[seen], "norm").pvalue < FALSE_ALARM  # an error 15 % too large is seen


def ranks(run, sites, draws, seed=11):
    """Truth drawn from the prior, profiles simulated from it, posterior drawn: rank of the truth, (site, free)."""
    with jax.enable_x64(True):
        data = read_data(sites, run.features)
        truth = jax.random.normal(jax.random.key(seed), (len(data.x), len(run.config.parameters)), jnp.float32)
        seen = simulated(truth, data, jax.random.key(seed + 1), run.config)
        mean, factor = run.network(0).gaussian(network_inputs(seen, run.config))
        noise = jax.random.normal(jax.random.key(seed + 2), (draws, *mean.shape))
        score = mean + jnp.einsum("sij,dsj->dsi", factor, noise)
        return np.asarray((score < truth).sum(axis=0)), np.asarray(mean), np.asarray(truth)


def test_its_answers_are_calibrated_and_informed(sites, simulation):
    """On prior draws at sites that it was not trained on: intervals hold what they say, and the answers tell something.

    80 sites, each with 10 truths. Coverage of central intervals within 0.06: ranks of one site are independent, the
    network's own error is not noise and gets the rest. Half as wide, or twice, is far outside.
    """
    held_out = sites.isel(site=np.flatnonzero(simulation.labels(sites) != "train"))
    draws = 99
    several = [ranks(simulation, held_out, draws, seed) for seed in range(10, 110, 10)]
    rank = np.concatenate([found[0] for found in several])
    for level in (0.5, 0.8, 0.95):
        inside = np.abs((rank + 0.5) / (draws + 1) - 0.5) < level / 2
        np.testing.assert_allclose(inside.mean(axis=0), level, atol=0.06)
    mean, truth = (np.concatenate([found[k] for found in several]) for k in (1, 2))
    r = [np.corrcoef(mean[:, k], truth[:, k])[0, 1] for k in range(4)]
    assert max(r) > 0.6
    assert min(r) > 0.35


def test_its_draws_are_a_posterior_file_of_their_own_kind(sites, simulation):
    some = sites.isel(site=slice(0, 5))
    tree = binn.posterior(simulation, some, draws=50, method="amortised", seed=1)
    assert dict(tree["posterior"].unit.sizes) == {"chain": 1, "draw": 50, "site": 5, "parameter": 21}
    assert tree.attrs["method"] == "amortised"
    assert tree.attrs["prior_in_loss"] == "yes"
    assert tree.attrs["n_gradients"] == 0  # it never differentiated a column
    spread = tree["posterior"].unit.std("draw").mean(("chain", "site")).to_series()
    free = list(SUBSETS["4"])
    assert (spread[free] > 0.05).all()
    assert (spread.drop(free) < 1e-6).all()
    unit = draw_units(simulation, some, 50, "amortised", seed=1)
    assert np.abs(np.corrcoef(unit[0, :, 0, 3], unit[0, :, 1, 3])[0, 1]) < 0.7  # sites are drawn by themselves
    with pytest.raises(ValueError, match="ask for 'amortised'"):
        binn.posterior(simulation, some, method="mc_dropout")
    bare = some.copy(deep=True)
    for name in ("soc", "upper", "lower"):
        bare[name][2] = np.nan
    with pytest.raises(ValueError, match=f"site {some.site.values[2]}: no measured horizon, as at 1 sites"):
        binn.posterior(simulation, bare, method="amortised")


@pytest.mark.slow
def test_the_bound_is_a_bound_and_training_raises_it(sites):
    """The evidence of a site is the mean likelihood of prior draws; a trained bound lies below it, and not far."""
    config = binn.Config(
        width=32, dropout=0.1, loss="elbo", profile=True, parameters="4", epochs=12, model=clm5.ModelOptions(sigma=0.5)
    )
    run = binn.fit(sites, config, progress=False)
    assert run.history.validation_loss.iloc[-1] < run.history.validation_loss.iloc[0] - 0.05
    assert run.n_gradients == 12 * 320 * 4
    with jax.enable_x64(True):
        data = read_data(sites.isel(site=slice(0, 6)), run.features)
        keys = jax.random.split(jax.random.key(0), 200)
        network = run.network(0)
        negative = jax.lax.map(lambda key: posterior_loss(network, data, key, config, training=False)[0], keys)
        prior = np.random.default_rng(0).uniform(size=(20_000, 1, 4))
        unit = binn.objective.all_parameters(np.broadcast_to(prior, (20_000, 6, 4)), config)
        theta = config.model.space.physical(jnp.asarray(unit))
        soc = clm5.simulate(theta, data.forcing, rules=config.model.rules).soc
        density = clm5.log_likelihood(soc, data.observations, config.model).sum(axis=-1)
        evidence = np.asarray(jax.scipy.special.logsumexp(density, axis=0)) - np.log(20_000)
    bound = -np.asarray(negative).mean(axis=0)
    error = np.asarray(negative).std(axis=0) / np.sqrt(200)
    assert np.all(bound - 5 * error < evidence + 0.1)
    assert np.all(bound > evidence - 3.0)  # and not far below


def test_the_encoding_does_not_depend_on_the_order_of_horizons_and_says_where_there_are_none(sites):
    with jax.enable_x64(True):
        some = sites.isel(site=slice(0, 8))
        options, middle = clm5.ModelOptions(), jnp.full(21, 0.5)
        forcing, observations = clm5.Forcing.from_sites(some), clm5.Observations.from_sites(some)
        code = encode_site(forcing, observations, options, middle)
        turned = jax.tree.map(lambda leaf: leaf[:, ::-1], observations)
        np.testing.assert_allclose(encode_site(forcing, turned, options, middle), code, atol=1e-5)
        none = dataclasses.replace(observations, soc=jnp.full_like(observations.soc, jnp.nan))
        empty = np.asarray(encode_site(forcing, none, options, middle))
    assert code.shape == (8, SITE_COLUMNS)
    assert code.dtype == jnp.float32
    assert np.isfinite(code).all()
    assert np.all(empty[:, :32] == 0)
    assert np.abs(np.asarray(code)[:, :32]).max() > 0.1
    np.testing.assert_array_equal(empty[:, 32:], np.asarray(code)[:, 32:])


def test_validation_has_no_noise_of_its_own(sites, simulation):
    graph, state = nnx.split(simulation.network(0))
    with jax.enable_x64(True):
        data = jax.tree.map(jnp.asarray, read_data(sites.isel(site=slice(0, 40)), simulation.features))
        twice = [evaluate(state, [data], graph=graph, config=SIMULATION).loss for _ in range(2)]
    assert twice[0] == twice[1]


def test_columns_are_counted():
    elbo = binn.Config(loss="elbo")
    assert columns_per_site(elbo, 9) == (4, 4, 5)
    assert columns_per_site(dataclasses.replace(elbo, profile=True), 9) == (5, 4, 6)
    assert columns_per_site(SIMULATION, 9) == (2, 0, 4)
    assert columns_per_site(binn.Config(), 9) == (1, 1, 1)
    assert columns_per_site(binn.Config(gradient="gauss_newton"), 9) == (1, 9, 1)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"loss": "simulation"}, "needs profile=True"),
        ({"profile": True}, "judged by the carbon"),
        ({"loss": "elbo", "learn_temperature": True}, "probit scale"),
        ({"loss": "simulation", "profile": True, "model": clm5.ModelOptions(error="proda", sigma=0.6)}, "drawn from"),
        ({"learn_dropout": True, "dropout": 0.0}, "must be above 0"),
        ({"learn_dropout": True, "loss": "smooth_l1"}, "loss in nats"),
        ({"gradient": "gauss_newton", "loss": "posterior"}, 'is that of loss "likelihood"'),
        ({"loss": "simulation", "profile": True, "horizon_weights": "thickness"}, "knows no weights"),
        ({"learn_dropout": True, "norm": "batch"}, "before a normalisation"),
        ({"sites_in_memory": 8}, "at least batch_size = 32"),
        ({"schedule": "linear"}, "schedule must be one of"),
    ],
)
def test_choices_that_do_not_go_together_are_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        binn.Config(**changes)
