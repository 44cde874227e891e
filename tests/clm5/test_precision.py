"""Property: float32 holds what it can, over both boxes and weather that no site should have; and says what it cannot.

The columns are those of `tests.clm5.hostile`, on the faces of the boxes.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import clm5
from clm5.options import RULES
from clm5.parameters import INDEX
from tests.clm5.hostile import COMBINATIONS, FLOAT32_MAX, LEAST, SUMMABLE, gradient, in_both
from tests.clm5.hostile import hostile as hostile_columns

OURS = ("binn", "conservative")  # combined in the fast suite; the others in the slow one
COMBINED = [pytest.param(*both, marks=() if both == OURS else pytest.mark.slow) for both in COMBINATIONS]
RULE_SETS = [pytest.param(rules, marks=() if rules == OURS[1] else pytest.mark.slow) for rules in RULES]


@pytest.fixture(scope="module")
def hostile(golden_forcing):
    return hostile_columns(golden_forcing, 1500)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("bounds", "rules"), COMBINED)
def test_float32_is_float64_wherever_it_can_be(hostile, bounds, rules):
    """To 1e-4, for every layer from 1e-6 gC m⁻³ to the largest number; above that it is inf, never NaN."""
    narrow, wide = in_both(hostile, bounds)
    states = clm5.simulate(*narrow, rules=rules), clm5.simulate(*wide, rules=rules)
    for field in jax.tree.leaves(states):
        assert not np.isnan(field).any()
    soc32, soc = (np.asarray(state.soc) for state in states)
    assert soc32.dtype == np.float32
    counted = (soc > LEAST) & (soc < FLOAT32_MAX)
    assert counted.mean() > 0.3
    assert np.isfinite(soc32[counted]).all()
    assert np.abs(soc32[counted] / soc[counted] - 1).max() < 1e-4
    assert np.isinf(soc32[soc > 3.5e38]).all()
    assert np.all(soc32[soc <= LEAST] < 2 * LEAST)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("bounds", "rules"), COMBINED)
def test_inf_in_float64_means_carbon_that_nothing_decomposes(hostile, bounds, rules):
    forcing = hostile.wide
    soc = np.asarray(clm5.simulate(*in_both(hostile, bounds)[1], rules=rules).soc)
    never_wet = np.asarray(forcing.water_scalar).max(axis=-1) == 0
    assert never_wet[np.isinf(soc)].all()
    some_litter = np.asarray(forcing.litter_input).sum(axis=(1, 2)) > 0
    assert not np.isinf(soc[~some_litter]).any()
    assert np.isinf(soc).any()


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("bounds", "rules"), COMBINED)
def test_gradients_are_finite(hostile, bounds, rules):
    """In both precisions, where each layer counts with a weight of its own, of either sign."""
    narrow, wide = in_both(hostile, bounds)
    soc = np.asarray(clm5.simulate(*wide, rules=rules).soc)
    weight = np.random.default_rng(1).normal(size=soc.shape) * ((soc > LEAST) & (soc < FLOAT32_MAX))
    assert np.isfinite(gradient("log", rules)(*wide, weight)).all()
    assert np.isfinite(gradient("log", rules)(*narrow, weight)).all()


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("bounds", "rules"), COMBINED)
@pytest.mark.parametrize("loss", ["log+", "sum"])
def test_no_layer_spoils_a_loss(hostile, loss, bounds, rules):
    """Whatever a layer holds, nothing or 1e30, and however fast it turns over, gradients are finite in float32."""
    narrow = in_both(hostile, bounds)[0]
    soc = np.asarray(clm5.simulate(*narrow, rules=rules).soc)
    assert np.isfinite(gradient(loss, rules)(*narrow, np.where(soc < SUMMABLE, 1.0, 0.0))).all()


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("at_zero", [["taul1"], ["tau4s1"], ["taul1", "tau4s1"], ["tau4s1", "tau4s2"]])
@pytest.mark.parametrize("rules", RULE_SETS)
def test_float32_derivatives_at_a_turnover_of_zero(golden_forcing, golden, rules, at_zero):
    """Where float32 takes another way to the same derivatives, in columns that are otherwise in mid-range."""
    unit = 0.1 + 0.8 * np.asarray(golden["rand_kp"])
    theta = np.array(clm5.ParameterSpace("binn").physical(unit), np.float32)
    theta[:, [INDEX[name] for name in at_zero]] = 0.0
    wide = golden_forcing
    narrow = clm5.Forcing(**{k: np.array(getattr(wide, k), np.float32) for k in wide.__dataclass_fields__})
    counted = np.asarray(clm5.simulate(theta.astype(float), wide, rules=rules).soc) > 1.0
    expected = np.asarray(gradient("log+", rules)(theta.astype(float), wide, 1.0 * counted))
    found = np.asarray(gradient("log+", rules)(theta, narrow, 1.0 * counted))
    scale = np.asarray(clm5.ParameterSpace("binn").upper)
    error = np.abs((found - expected) * scale) / np.abs(expected * scale).max(axis=1, keepdims=True)
    assert np.quantile(error, 0.99) < 1e-4
    assert error.max() < 1e-2


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rules", RULE_SETS)
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
@pytest.mark.parametrize(("bounds", "rules"), COMBINED)
def test_forward_derivatives_are_linear(hostile, bounds, rules):
    theta, forcing = (x[:300] for x in in_both(hostile, bounds)[1])
    run = functools.partial(jax.jvp, lambda t: clm5.simulate(t, forcing, rules=rules).soc, (theta,))
    direction = np.random.default_rng(3).normal(size=theta.shape) * np.asarray(theta)
    plus, minus = (np.asarray(run((jnp.asarray(sign * direction),))[1]) for sign in (1.0, -1.0))
    finite = np.isfinite(plus)
    assert finite.mean() > 0.9
    np.testing.assert_array_equal(plus[finite], -minus[finite])
