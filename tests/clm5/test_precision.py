"""Property: float32 holds what it can, over both boxes and weather that no site should have; and says what it cannot.

Every column lies on some faces of the box: turnover times of 0, no depth of decomposition, no input, transfers of 0 and
1. Soils are dry or frozen for months or for ever, receive no litter or too little, and end at any layer.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import clm5
from clm5.options import RULES
from clm5.parameters import BOUNDS, INDEX
from tests.clm5.conftest import at_the_corners

N = 1500  # columns
COMBINATIONS = [(b, r) for b in BOUNDS for r in RULES]
FLOAT32_MAX = 3.4e38


@pytest.fixture(scope="module")
def hostile(golden_forcing):
    """Forcing in both precisions, and unit parameters in float32, so that both are given the same numbers.

    But for depths: they are compared with the grid's, which float32 rounds as it rounds them.
    """
    rng = np.random.default_rng(2)
    with jax.enable_x64(True):
        forcing, unit = at_the_corners(golden_forcing, N, seed=21)
        f = {k: np.array(getattr(forcing, k)) for k in forcing.__dataclass_fields__}
    weather, litter = rng.integers(0, 8, N), rng.integers(0, 8, N)
    f["soil_temperature"][weather == 0] = 200.0
    f["soil_temperature"][weather == 1] = 330.0
    f["water_scalar"][weather == 2] = rng.uniform(0, 1, ((weather == 2).sum(), 20, 12)) ** 4
    f["water_scalar"][(weather == 3)[:, None, None] & (rng.random((N, 1, 12)) < 0.9) & np.ones((N, 20, 12), bool)] = 0.0
    f["litter_input"][litter == 0] = 0.0
    f["litter_input"][litter == 1, 0] = 0.0
    f["litter_input"][litter == 2, 1:] = 0.0
    f["litter_input"][litter == 3] *= 1e-6
    near = rng.random(unit.shape) < 0.1
    unit = np.where(near, np.clip(unit, 1e-6, 1 - 1e-6), unit)
    narrow = {k: v.astype(np.float32) for k, v in f.items()}
    wide = {k: v if "depth" in k else narrow[k].astype(float) for k, v in f.items()}
    return clm5.Forcing(**narrow), clm5.Forcing(**wide), jnp.asarray(unit, jnp.float32)


def in_both(hostile, bounds):
    narrow, wide, unit = hostile
    theta = clm5.ParameterSpace(bounds).physical(unit)
    return (theta, narrow), (theta.astype(jnp.float64), wide)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("bounds", "rules"), COMBINATIONS)
def test_float32_is_float64_wherever_it_can_be(hostile, bounds, rules):
    """To 1e-4, for every layer from 1e-6 gC m⁻³ to the largest number; above that it is inf, never NaN."""
    narrow, wide = in_both(hostile, bounds)
    soc32 = np.asarray(clm5.simulate(*narrow, rules=rules).soc)
    soc = np.asarray(clm5.simulate(*wide, rules=rules).soc)
    assert soc32.dtype == np.float32
    assert not np.isnan(soc32).any()
    assert not np.isnan(soc).any()
    counted = (soc > 1e-6) & (soc < FLOAT32_MAX)
    assert counted.mean() > 0.3
    assert np.isfinite(soc32[counted]).all()
    assert np.abs(soc32[counted] / soc[counted] - 1).max() < 1e-4
    assert np.isinf(soc32[soc > 3.5e38]).all()
    assert np.all(soc32[soc <= 1e-6] < 2e-6)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("bounds", "rules"), COMBINATIONS)
def test_inf_in_float64_means_carbon_that_nothing_decomposes(hostile, bounds, rules):
    forcing = hostile[1]
    soc = np.asarray(clm5.simulate(*in_both(hostile, bounds)[1], rules=rules).soc)
    never_wet = np.asarray(forcing.water_scalar).max(axis=-1) == 0
    assert never_wet[np.isinf(soc)].all()
    some_litter = np.asarray(forcing.litter_input).sum(axis=(1, 2)) > 0
    assert not np.isinf(soc[~some_litter]).any()
    assert np.isinf(soc).any()


@functools.cache
def gradient_of_log(rules: str):
    def value(theta, forcing, weight):
        soc = clm5.simulate(theta, forcing, rules=rules).soc
        counted = weight != 0
        return jnp.where(counted, jnp.log(jnp.where(counted, soc, 1.0)) * weight.astype(soc.dtype), 0.0).sum()

    return jax.jit(jax.grad(value))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("bounds", "rules"), COMBINATIONS)
def test_gradients_are_finite(hostile, bounds, rules):
    """In float64 everywhere; in float32 but for derivatives by a turnover time of exactly 0, in PRODA's box."""
    narrow, wide = in_both(hostile, bounds)
    soc = np.asarray(clm5.simulate(*wide, rules=rules).soc)
    weight = np.random.default_rng(1).normal(size=soc.shape) * ((soc > 1e-6) & (soc < FLOAT32_MAX))
    assert np.isfinite(gradient_of_log(rules)(*wide, jnp.asarray(weight))).all()
    gradient = np.asarray(gradient_of_log(rules)(*narrow, jnp.asarray(weight)))
    at_zero = np.zeros(gradient.shape, bool)
    for name in ("taul1", "tau4s1"):
        at_zero[:, INDEX[name]] = np.asarray(narrow[0])[:, INDEX[name]] == 0
    assert np.isfinite(gradient[~at_zero]).all()


@functools.cache
def gradient_of(loss: str, rules: str):
    def value(theta, forcing, counted):
        soc = clm5.simulate(theta, forcing, rules=rules).soc
        soc = jnp.where(counted, soc, 1.0)
        return jnp.where(counted, {"ln": jnp.log(soc + 1e-3), "sum": soc}[loss], 0.0).sum()

    return jax.jit(jax.grad(value))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("loss", ["ln", "sum"])
def test_no_layer_spoils_a_loss(hostile, loss, rules):
    """Whatever a layer holds, nothing or 1e30, gradients over the BINN box are finite numbers in float32."""
    narrow = in_both(hostile, "binn")[0]
    soc = clm5.simulate(*narrow, rules=rules).soc
    assert np.isfinite(gradient_of(loss, rules)(*narrow, soc < 1e30)).all()


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("at_zero", [["taul1"], ["tau4s1"], ["taul1", "tau4s1"], ["tau4s1", "tau4s2"]])
@pytest.mark.parametrize("rules", RULES)
def test_float32_derivatives_at_a_turnover_of_zero(golden_forcing, golden, rules, at_zero):
    """Where float32 takes another way to the same derivatives, in columns that are otherwise in mid-range."""
    unit = 0.1 + 0.8 * np.asarray(golden["rand_kp"])
    theta = np.array(clm5.ParameterSpace("binn").physical(unit), np.float32)
    theta[:, [INDEX[name] for name in at_zero]] = 0.0
    wide = golden_forcing
    narrow = clm5.Forcing(**{k: np.array(getattr(wide, k), np.float32) for k in wide.__dataclass_fields__})
    counted = np.asarray(clm5.simulate(theta.astype(float), wide, rules=rules).soc) > 1.0
    expected = np.asarray(gradient_of("ln", rules)(theta.astype(float), wide, counted))
    found = np.asarray(gradient_of("ln", rules)(theta, narrow, counted))
    scale = np.asarray(clm5.ParameterSpace("binn").upper)
    error = np.abs((found - expected) * scale) / np.abs(expected * scale).max(axis=1, keepdims=True)
    assert np.quantile(error, 0.99) < 1e-4
    assert error.max() < 1e-2


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rules", RULES)
def test_nan_anywhere_makes_all_of_its_column_nan_and_no_other(golden_forcing, golden, rules, dtype):
    theta = np.array(clm5.ParameterSpace("binn").physical(golden["rand_kp"]), dtype)
    f = {k: np.array(getattr(golden_forcing, k), dtype) for k in golden_forcing.__dataclass_fields__}
    spoiled = np.zeros(len(theta), bool)
    for column, name in enumerate(("soil_temperature", "water_scalar", "oxygen_scalar", "nitrogen_scalar")):
        f[name][column, 19 if column % 2 else 0, 3] = np.nan
        spoiled[column] = True
    for column, pool in enumerate(range(4), start=4):
        f["litter_input"][column, pool, 5] = np.nan
        spoiled[column] = True
    theta[8, INDEX["tau4s1"]] = np.nan
    spoiled[8] = True
    soc = np.asarray(clm5.simulate(theta, clm5.Forcing(**f), rules=rules).soc)
    np.testing.assert_array_equal(np.isnan(soc), np.broadcast_to(spoiled[:, None], soc.shape))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("bounds", "rules"), COMBINATIONS)
def test_forward_derivatives_are_linear(hostile, bounds, rules):
    theta, forcing = (x[:300] for x in in_both(hostile, bounds)[1])
    run = functools.partial(jax.jvp, lambda t: clm5.simulate(t, forcing, rules=rules).soc, (theta,))
    direction = np.random.default_rng(3).normal(size=theta.shape) * np.asarray(theta)
    plus, minus = (np.asarray(run((jnp.asarray(sign * direction),))[1]) for sign in (1.0, -1.0))
    finite = np.isfinite(plus)
    assert finite.mean() > 0.9
    np.testing.assert_array_equal(plus[finite], -minus[finite])
