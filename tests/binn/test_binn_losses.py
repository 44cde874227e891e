"""The network minimises what it says it minimises: the sampler's likelihood, or the published loss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import clm5
from binn.losses import horizon_loss, mean_over_horizons

SOC = np.geomspace(3e4, 300.0, 20)[None] * np.array([[1.0], [0.3]])  # gC m⁻³, two sites
OPTIONS = clm5.ModelOptions(operator="linear", sigma=0.3)
UNIT = np.array([[0.5] * 21, [0.7] * 20 + [0.9]])


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


@pytest.fixture
def observations():
    upper = np.array([[0.0, 0.2, 0.5], [0.0, 0.3, np.nan]])
    lower = np.array([[0.2, 0.5, 1.0], [0.3, 0.9, np.nan]])
    soc = np.array([[3e4, 1e4, 5e3], [9e3, 2e3, np.nan]])
    return clm5.Observations(*map(jnp.asarray, (upper, lower, soc)))


def loss_of(loss, observations, options):
    return horizon_loss(loss, jnp.asarray(UNIT), jnp.asarray(SOC), observations, options)


def modelled(observations):
    return np.asarray(clm5.observe(jnp.asarray(SOC), observations.upper, observations.lower, operator="linear"))


def test_likelihood_is_the_lognormal_density_of_every_horizon_once(observations):
    total, count = loss_of("likelihood", observations, OPTIONS)
    density = stats.lognorm.logpdf(np.asarray(observations.soc), s=0.3, scale=modelled(observations))
    np.testing.assert_array_equal(count, [3, 2])
    np.testing.assert_allclose(total, -np.nansum(density, axis=1), rtol=1e-12)
    np.testing.assert_allclose(mean_over_horizons(total, count), -np.nanmean(density), rtol=1e-12)


def test_posterior_adds_the_uniform_prior_as_a_density_of_the_logit(observations):
    """p uniform makes logit(p) logistic: its density is p (1 − p), a quarter at the middle."""
    likelihood, _ = loss_of("likelihood", observations, OPTIONS)
    posterior, _ = loss_of("posterior", observations, OPTIONS)
    prior = stats.logistic.logpdf(np.log(UNIT / (1 - UNIT))).sum(axis=1) - 21 * np.log(0.25)
    np.testing.assert_allclose(
        posterior - likelihood, -prior, rtol=1e-9
    )  # a difference of numbers a hundred times larger


def test_smooth_l1_is_the_published_loss(observations):
    total, _ = loss_of("smooth_l1", observations, OPTIONS)
    error = np.abs(modelled(observations) - np.asarray(observations.soc))
    huber = np.where(error < 1, 0.5 * error**2, error - 0.5)
    pull = 100 * (np.cosh(10 * (UNIT - 0.5)) - 1).mean(axis=1)
    assert pull[0] == 0  # nothing pulls at the middle of the box
    assert pull[1] > 250  # 100 (cosh 2 − 1) and more
    np.testing.assert_allclose(total, np.nansum(huber, axis=1) + [3, 2] * pull, rtol=1e-12)


@pytest.mark.parametrize("loss", ["likelihood", "posterior", "smooth_l1"])
def test_padding_adds_nothing_to_the_loss_or_its_gradient(observations, loss):
    def summed(soc, observations):
        return horizon_loss(loss, jnp.asarray(UNIT), soc, observations, OPTIONS)[0].sum()

    padded = jax.tree.map(lambda x: jnp.concatenate([x, jnp.full((2, 4), jnp.nan)], axis=1), observations)
    slope = jax.jit(jax.value_and_grad(summed))
    value, gradient = slope(jnp.asarray(SOC), observations)
    wider, same = slope(jnp.asarray(SOC), padded)
    np.testing.assert_allclose(wider, value, rtol=1e-14)
    np.testing.assert_allclose(same, gradient, rtol=1e-14)
    assert np.all(np.isfinite(gradient))
    assert np.any(gradient != 0)


def test_an_unknown_loss_is_refused(observations):
    known = r"'likelihood', 'posterior', 'smooth_l1', 'log_smooth_l1'"
    with pytest.raises(ValueError, match=rf"loss must be one of \({known}\), got 'mse'"):
        loss_of("mse", observations, OPTIONS)
