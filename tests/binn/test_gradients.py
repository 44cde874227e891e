"""How a training moves: preconditioned gradients, schedules of the learning rate, and the best of several starts."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import binn
import clm5
from binn import steps
from binn.features import Features
from binn.objective import gauss_newton, read_data, site_losses
from binn.optimiser import SCHEDULES


@pytest.fixture(scope="module")
def data(sites):
    with jax.enable_x64(True):
        features = Features.fit(sites, np.full(400, True))
        return jax.tree.map(jnp.asarray, read_data(sites.isel(site=slice(0, 12)), features))


@pytest.mark.parametrize(
    "config",
    [
        pytest.param(binn.Config(parameters="5"), marks=pytest.mark.slow),
        binn.Config(parameters="4", horizon_weights="thickness", model=clm5.ModelOptions(sigma=0.4)),
        binn.Config(parameters="4", model=clm5.ModelOptions(error="proda", sigma=0.6)),
    ],
)
def test_the_gradient_is_that_of_the_likelihood_and_the_step_is_damped_gauss_newton(data, config):
    free = len(config.parameters)
    with jax.enable_x64(True):
        unit = jnp.asarray(np.random.default_rng(0).uniform(0.2, 0.8, (12, free)))
        soc, gradient, information = gauss_newton(unit, data, config)
        plain = jax.grad(lambda unit: site_losses(unit, data, config)[0].sum())(unit)
        np.testing.assert_allclose(gradient, plain, rtol=1e-7, atol=1e-7 * np.abs(plain).max())
        np.testing.assert_allclose(soc, site_losses(unit, data, config)[2], rtol=1e-12)
        value, pulled = jax.value_and_grad(lambda unit: steps._gauss_newton_loss(unit, data, config))(unit)
        total, count, _ = site_losses(unit, data, config)
        np.testing.assert_allclose(value, total.sum() / count.sum(), rtol=1e-12)
    for site in range(12):
        assert np.linalg.eigvalsh(information[site]).min() > -1e-9
        step = np.linalg.solve(np.asarray(information[site]) + steps.DAMPING * np.eye(free), np.asarray(gradient[site]))
        np.testing.assert_allclose(pulled[site], 10 * np.clip(step, -0.3, 0.3) / 12, rtol=1e-6, atol=1e-9)


@pytest.mark.slow
def test_preconditioned_training_finds_parameters_that_a_plain_gradient_leaves_where_they_were(sites):
    """On carbon that four known functions made, without noise, at the training sites of one land and network."""
    made = binn.synthetic(sites, "functions", terms=1, of=("npp", "clay"), seed=4)
    config = binn.recovery_config(members=1, epochs=60, dropout=0.0, split="random")
    r2 = {}
    for gradient in ("plain", "gauss_newton"):
        run = binn.fit(made, dataclasses.replace(config, gradient=gradient), progress=False)
        free = [clm5.NAMES.index(name) for name in config.parameters]
        truth, found = made.true_unit.values[:, free], run.predict(made)[:, free]
        r2[gradient] = 1 - ((found - truth) ** 2).sum(axis=0) / ((truth - truth.mean(axis=0)) ** 2).sum(axis=0)
    assert r2["gauss_newton"].min() > 0.6
    assert r2["gauss_newton"].mean() > 0.85
    assert r2["plain"].mean() < r2["gauss_newton"].mean() - 0.1


@pytest.mark.parametrize(
    ("schedule", "middle", "last"), [("cosine", 0.53, 0.05), ("exponential", 0.22, 0.05), ("constant", 1, 1)]
)
def test_the_learning_rate_rises_and_then_follows_its_schedule(schedule, middle, last):
    rate = SCHEDULES[schedule](2.0, 50, 1000)
    np.testing.assert_allclose([rate(0), rate(25), rate(50)], [0.0, 1.0, 2.0], rtol=1e-5)
    np.testing.assert_allclose([rate(525), rate(1000)], [2 * middle, 2 * last], rtol=0.05)


def test_the_best_member_is_the_one_with_the_lowest_validation_loss(trained, sites):
    run, _ = trained
    lowest = run.history.groupby("member").validation_loss.min()
    best = run.best_member()
    assert len(best.weights) == best.config.members == len(best.best_epoch) == 1
    assert best.history.validation_loss.min() == lowest.min()
    x = jnp.asarray(run.features.matrix(sites))
    np.testing.assert_allclose(best.predict(sites), run.network(int(lowest.argmin()))(x), rtol=1e-6)
