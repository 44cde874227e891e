"""Ensembles, Laplace's approximation and learned dropout: each against what it is by definition."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy import stats

import binn
import clm5
from binn import laplace
from binn.network import ParameterNetwork, concrete_mask
from binn.objective import all_parameters, network_inputs, read_data
from binn.uncertainty import METHODS, draw_units

FALSE_ALARM = 1e-6


@pytest.fixture(scope="module")
def some(sites):
    return sites.isel(site=slice(0, 12))


@pytest.fixture(scope="module")
def small(sites):
    """A tiny network with two free parameters, so that its whole head can be differentiated at once."""
    config = binn.Config(width=3, depth=1, dropout=0.1, parameters=("w_scaling", "tau4s3"), epochs=3)
    return binn.fit(sites, config, progress=False)


def test_an_ensemble_is_its_members(trained, some):
    run, _ = trained
    tree = binn.posterior(run, some, method="ensemble")
    assert dict(tree["posterior"].unit.sizes) == {"chain": 1, "draw": 2, "site": 12, "parameter": 21}
    x = jnp.asarray(run.features.matrix(some))
    for member in range(2):
        np.testing.assert_allclose(tree["posterior"].unit[0, member], run.network(member)(x), rtol=1e-6)
    np.testing.assert_allclose(tree["posterior"].unit.mean("draw")[0], run.predict(some), rtol=1e-5)


@pytest.mark.slow
def test_the_curvature_is_the_gauss_newton_matrix_of_the_likelihood(sites, small):
    """Against the Jacobian of all standardised residuals by all weights of the head."""
    network, config = small.network(0), small.config
    chosen = sites.isel(site=np.flatnonzero(small.labels(sites) == "train")[:50])
    with jax.enable_x64(True):
        data = read_data(chosen, small.features)
        found = laplace.head_posteriors([network], [data], config)[0]
        hidden = jnp.asarray(laplace.with_bias(network, network_inputs(data, config)))

        def residuals(head):
            unit = network.constrained(hidden @ head)
            theta = config.model.space.physical(all_parameters(unit, config))
            soc = clm5.simulate(theta, data.forcing, rules=config.model.rules).soc
            return clm5.observation.standardised(soc, data.observations, config.model).ravel()

        jacobian = np.asarray(jax.jacfwd(residuals)(jnp.asarray(found.mean))).reshape(-1, found.mean.size)
        logits = network.head(network.hidden_units(network_inputs(data, config)))
        np.testing.assert_allclose(hidden @ found.mean, logits, rtol=1e-5)
    matrix = found.vectors * found.curvature @ found.vectors.T
    np.testing.assert_allclose(matrix, jacobian.T @ jacobian, rtol=1e-6, atol=1e-8 * np.abs(matrix).max())
    determined = np.sum(found.curvature / (found.curvature + found.precision))
    np.testing.assert_allclose(found.precision, determined / np.sum(found.mean**2), rtol=1e-2)


def test_draws_of_the_head_have_the_covariance_of_the_gaussian(sites, small):
    with jax.enable_x64(True):
        data = read_data(sites.isel(site=slice(0, 50)), small.features)
        found = laplace.head_posteriors([small.network(0)], [data], small.config)[0]
        draws = found.draw(jax.random.key(0), 20_000).reshape(20_000, -1)
    z = (draws - found.mean.ravel()) @ found.vectors * np.sqrt(found.curvature + found.precision)
    assert stats.kstest(z.ravel(), "norm").pvalue > FALSE_ALARM
    assert stats.kstest(1.05 * z.ravel(), "norm").pvalue < FALSE_ALARM
    assert np.abs(np.corrcoef(z.T) - np.eye(z.shape[1])).max() < 6 / np.sqrt(20_000)


def test_laplace_draws_heads_around_the_trained_one(sites, small, some):
    tree = binn.posterior(small, some, draws=60, method="laplace", training_sites=sites)
    unit = tree["posterior"].unit.sel(parameter=list(small.config.parameters)).values
    assert unit.shape == (1, 60, 12, 2)
    assert np.all(unit.std(axis=1) > 0)
    centre = small.predict(some)[:, [clm5.NAMES.index(name) for name in small.config.parameters]]
    assert np.mean(np.abs(unit.mean(axis=1)[0] - centre) < unit.std(axis=1)[0]) > 0.9
    whole = draw_units(small, sites, 60, "laplace")
    np.testing.assert_allclose(
        draw_units(small, some, 60, "laplace", training_sites=sites), whole[:, :, :12], rtol=1e-4
    )
    with pytest.raises(ValueError, match="needs all 320 training sites, and finds"):
        binn.posterior(small, some, method="laplace")


def test_a_relaxed_mask_keeps_what_it_says_on_average():
    logit = jnp.float32(np.log(0.3 / 0.7))
    mask = np.asarray(concrete_mask(jax.random.key(0), logit, (1000, 200)))
    low, high = stats.binom.ppf([FALSE_ALARM / 2, 1 - FALSE_ALARM / 2], mask.size, 0.3) / mask.size
    # a relaxed mask is below half of its largest value with exactly the probability of a hard one
    assert low <= np.mean(mask * 0.7 < 0.5) <= high
    assert np.mean((mask * 0.7 > 0.05) & (mask * 0.7 < 0.95)) < 0.15  # nearly hard
    slope = jax.grad(lambda at: concrete_mask(jax.random.key(0), at, (50, 50)).var())(logit)
    assert np.isfinite(slope)


@pytest.mark.slow
def test_learned_rates_move_are_used_and_are_recorded(sites, some):
    config = binn.Config(width=16, dropout=0.2, learn_dropout=True, learning_rate=1e-2, epochs=8)
    run = binn.fit(sites, config, progress=False)
    rates = run.dropout_rates()
    assert rates.shape == (1, 2)
    assert np.all(np.abs(rates - 0.2) > 1e-3)
    assert np.all((rates > 0.01) & (rates < 0.9))
    tree = binn.posterior(run, some, draws=20)
    assert tree.attrs["dropout"] == ",".join(f"{rate:.3g}" for rate in rates[0])
    assert np.all(tree["posterior"].unit.std("draw") > 0)
    same = draw_units(run, some.isel(site=[0, 0]), 5)
    np.testing.assert_array_equal(same[:, :, 0], same[:, :, 1])  # one mask for all sites
    plain = dataclasses.replace(run, config=dataclasses.replace(config, learn_dropout=False))
    assert np.all(plain.dropout_rates() == 0.2)


def test_the_cost_of_a_rate_is_the_published_one():
    network = ParameterNetwork(
        4, 3, width=8, depth=2, dropout=0.25, learn_dropout=True, rngs=nnx.Rngs(params=jax.random.key(0))
    )
    entropy = stats.bernoulli(0.25).entropy()
    squares = sum(float(jnp.sum(linear.kernel[...] ** 2)) for linear in (network.hidden[1].linear, network.head))
    expected = -2 * 8 * entropy + 0.5 * 1e-4 * squares / 0.75
    np.testing.assert_allclose(float(network.dropout_cost()), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("method", "changes", "words"),
    [
        ("ensemble", {"members": 1}, "2 members or more"),
        ("laplace", {"loss": "smooth_l1"}, 'trained with loss "likelihood"'),
        ("amortised", {}, "no distribution"),
        ("swag", {}, "method must be one of"),
    ],
)
def test_methods_that_a_network_cannot_answer_are_refused(trained, some, method, changes, words):
    run = dataclasses.replace(trained[0], config=dataclasses.replace(trained[0].config, **changes))
    with pytest.raises(ValueError, match=words):
        binn.posterior(run, some, method=method, draws=5)
    assert set(METHODS) == {"mc_dropout", "ensemble", "laplace", "amortised"}
