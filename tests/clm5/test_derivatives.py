"""Derivatives through what makes the core fast: the modifiers in one pass, blocks of columns, the adjoint solve."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import clm5
from clm5._saturating import LARGEST_DERIVATIVE, saturating
from clm5.elimination import Rates
from clm5.modifiers import climate
from clm5.parameters import INDEX
from clm5.solver import steady_state

Q10, W_SCALING = INDEX["q10"], INDEX["w_scaling"]


def tiled(forcing: clm5.Forcing, n: int) -> clm5.Forcing:
    return jax.tree.map(lambda x: jnp.concatenate([x] * -(-n // len(x)))[:n], forcing)


def drawn(n: int):
    return clm5.ParameterSpace("binn").physical(np.random.default_rng(1).uniform(0.05, 0.95, (n, 21)))


def log_soc(theta, forcing):
    return jnp.log(clm5.simulate(theta, forcing).soc + 1e-3)


def plain_climate(theta, forcing):
    warm = theta[Q10] ** ((forcing.soil_temperature - 298.15) / 10)
    monthly = warm * jnp.minimum(theta[W_SCALING] * forcing.water_scalar, 1.0) * forcing.oxygen_scalar
    return jnp.mean(monthly, -1), jnp.mean(monthly * forcing.nitrogen_scalar, -1)


@pytest.mark.slow
def test_climate_and_its_derivatives_equal_the_plain_formula(golden_forcing, x64):
    """In the parameters, to second order, and in the forcing; with w_scaling on both sides of saturation."""
    theta = drawn(8)
    weight = np.random.default_rng(0).normal(size=20)
    for column in range(8):
        _compare(theta[column], golden_forcing[column], weight)


def _compare(theta, forcing, weight):
    def ours(theta, forcing=forcing):
        means = climate(forcing, theta[Q10], theta[W_SCALING])
        return jnp.sum(weight * means.soil) + jnp.sum(weight**2 * means.litter)

    def plain(theta, forcing=forcing):
        soil, litter = plain_climate(theta, forcing)
        return jnp.sum(weight * soil) + jnp.sum(weight**2 * litter)

    def warmed(function):
        return lambda t: function(theta, clm5.Forcing(t, *_after_temperature(forcing)))

    for derive in (jax.grad, jax.hessian, jax.jacfwd):
        np.testing.assert_allclose(derive(ours)(theta), derive(plain)(theta), rtol=1e-10, atol=1e-12)
    by_temperature = [jax.grad(warmed(function))(forcing.soil_temperature) for function in (ours, plain)]
    np.testing.assert_allclose(*by_temperature, rtol=1e-10, atol=1e-14)


def _after_temperature(forcing):
    return [getattr(forcing, name) for name in list(forcing.__dataclass_fields__)[1:]]


@pytest.mark.slow
@pytest.mark.parametrize("n", [257, 600])
def test_blocks_do_not_show(golden_forcing, n, x64):
    """Value, gradient and tangent of a batch of several blocks, the last filled up, equal those column by column."""
    theta, forcing = drawn(n), tiled(golden_forcing, n)
    weight = np.random.default_rng(2).normal(size=(n, 20))
    value, gradient = jax.jit(jax.value_and_grad(lambda t: jnp.sum(weight * log_soc(t, forcing))))(theta)
    by_column = jax.jit(jax.vmap(jax.value_and_grad(lambda t, f, w: jnp.sum(w * log_soc(t, f)))))
    values, gradients = by_column(theta, forcing, weight)
    np.testing.assert_allclose(value, values.sum(), rtol=1e-11)
    scale = np.abs(gradients).max(0)
    np.testing.assert_allclose(gradient / scale, gradients / scale, rtol=1e-9, atol=1e-9)
    _, tangent = jax.jit(lambda t, d: jax.jvp(lambda t: jnp.sum(weight * log_soc(t, forcing)), (t,), (d,)))(
        theta, theta
    )
    np.testing.assert_allclose(tangent, jnp.sum(gradients * theta), rtol=1e-9)


@pytest.mark.slow
def test_a_column_of_nan_stays_alone_in_its_block(golden_forcing, x64):
    n = 300
    theta, forcing = drawn(n), tiled(golden_forcing, n)
    broken = theta.at[7].set(jnp.nan)
    gradient = jax.jit(jax.grad(lambda t: log_soc(t, forcing).sum()))
    others = np.arange(n) != 7
    soc = clm5.simulate(broken, forcing).soc
    assert np.isnan(soc[7]).all()
    assert np.array_equal(soc[others], clm5.simulate(theta, forcing).soc[others])
    assert np.array_equal(gradient(broken)[others], gradient(theta)[others])


def test_a_gradient_solves_twice_and_eliminates_no_more(golden_forcing, x64):
    """Two solves forward, litter and soil, and their two transposes: none through the sweeps of an elimination."""

    def compiled_loops(function) -> int:
        return jax.jit(function).lower(drawn(1)[0]).as_text().count("stablehlo.while")

    forcing = golden_forcing[0]
    forward = compiled_loops(lambda t: clm5.simulate(t, forcing).soc)
    gradient = compiled_loops(jax.grad(lambda t: log_soc(t, forcing).sum()))
    assert (forward, gradient) == (4, 8)  # a solve is a sweep up and one down


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("turnover", [0.0, 1.0])
def test_a_tangent_out_of_range_is_left_out_whatever_its_sign(turnover, dtype, x64):
    """Forward derivatives are linear there too: what is masked is masked by its size."""
    one, zero = jnp.ones(20, dtype), jnp.zeros((), dtype)
    rates = Rates(one, ((zero,),), (jnp.asarray(turnover, dtype),), one.at[0].set(0), one.at[-1].set(0))

    def moved(by):
        return jax.jvp(lambda source: steady_state(rates, (source,)).potential[0], (one,), (jnp.full(20, by, dtype),))[
            1
        ]

    large = 0.3 * float(jnp.finfo(dtype).max)
    np.testing.assert_array_equal(moved(large), -moved(-large))
    np.testing.assert_allclose(moved(1e-3 * large), 1e-3 * large, rtol=1e-5)


def test_a_derivative_out_of_range_saturates_in_float32_alone(x64):
    """In reverse, entry by entry of what was broadcast, so that infinities of either sign have a sum."""

    def steep(x):
        return jnp.sum(saturating(x, (3,)) * jnp.asarray([jnp.inf, -jnp.inf, 1e32], x.dtype))

    np.testing.assert_allclose(jax.grad(steep)(jnp.float32(1.0)), LARGEST_DERIVATIVE, rtol=1e-6)
    assert np.isnan(jax.grad(steep)(jnp.float64(1.0)))
    _, tangent = jax.jvp(lambda x: saturating(x, (2,)) * 1e38, (jnp.float32(1.0),), (jnp.float32(1.0),))
    np.testing.assert_allclose(tangent, 1e38, rtol=1e-6)


@pytest.mark.slow
def test_jacobians_and_hessians_of_every_kind_exist_and_agree(golden_forcing, x64):
    """Forward, reverse, twice; by the parameters, by litter alone and by temperature alone."""
    theta, forcing = jnp.asarray(drawn(1)[0]), golden_forcing[0]

    def soc(theta=theta, litter=1.0, warming=0.0):
        changed = dataclasses.replace(
            forcing, litter_input=forcing.litter_input * litter, soil_temperature=forcing.soil_temperature + warming
        )
        return clm5.simulate(theta, changed).soc

    for function, at in (
        (lambda x: soc(theta=x), theta),
        (lambda x: soc(litter=x), 1.0),
        (lambda x: soc(warming=x), 0.0),
    ):
        forward, reverse = jax.jacfwd(function)(at), jax.jacrev(function)(at)
        np.testing.assert_allclose(forward, reverse, rtol=1e-8, atol=1e-10 * np.abs(reverse).max())
        assert np.any(forward != 0)
    np.testing.assert_allclose(jax.jacfwd(lambda x: soc(litter=x))(1.0), soc(), rtol=1e-12)  # carbon is linear in it
    curvature = jax.hessian(lambda x: jnp.log(soc(theta=x) + 1e-3).sum())(theta)
    np.testing.assert_allclose(curvature, curvature.T, rtol=1e-6, atol=1e-9 * np.abs(curvature).max())
