"""Property: what a reviewer broke once: nothing below bedrock, NaN, ties, floors, horizons outside the profile."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import clm5
from clm5 import dense
from clm5.observation import FLOOR, proda_layer_weights
from clm5.six_processes import stock_above

UNIT = np.full(21, 0.5)


def changed(forcing: clm5.Forcing, **fields) -> clm5.Forcing:
    return clm5.Forcing(**{name: getattr(forcing, name) for name in forcing.__dataclass_fields__} | fields)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("error", ["lognormal", "proda"])
def test_a_horizon_below_bedrock_costs_no_gradient(golden_forcing, error):
    """Through the whole way from the unit cube to the likelihood, where modelled carbon is exactly 0."""
    forcing = golden_forcing[0]
    shallow = changed(forcing, bedrock_layer=jnp.full(12, 3.0))
    frozen = changed(forcing, active_layer_depth=jnp.zeros(12), active_layer_depth_last_year=jnp.zeros(12))
    observations = clm5.Observations(jnp.array([0.0, 0.3]), jnp.array([0.1, 0.6]), jnp.array([2e4, 5e3]))
    space, options = clm5.ParameterSpace("binn"), clm5.ModelOptions(error=error)

    @jax.jit
    def value(unit, forcing):
        return clm5.log_likelihood(clm5.simulate(space.physical(unit), forcing).soc, observations, options).sum()

    for column in (shallow, frozen):
        found, gradient = jax.value_and_grad(value)(jnp.asarray(UNIT), column)
        assert np.isfinite(found)
        assert np.all(np.isfinite(gradient))
        assert np.any(gradient != 0)
    nothing = clm5.predict_horizons(jnp.zeros(20), observations, options)
    np.testing.assert_allclose(nothing, FLOOR)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("rules", ["conservative", "binn"])
def test_nan_is_never_hidden(golden_forcing, rules):
    forcing, space = golden_forcing[0], clm5.ParameterSpace("binn")
    theta = np.asarray(space.physical(jnp.asarray(UNIT)))
    assert np.all(np.isfinite(clm5.simulate(theta, forcing, rules=rules).soc))
    for i in range(21):
        broken = theta.copy()
        broken[i] = np.nan
        assert np.all(np.isnan(clm5.simulate(broken, forcing, rules=rules).soc)), clm5.NAMES[i]
    for name in ("active_layer_depth", "active_layer_depth_last_year", "bedrock_layer"):
        broken_forcing = changed(forcing, **{name: jnp.full(12, jnp.nan)})
        assert np.all(np.isnan(clm5.simulate(theta, broken_forcing, rules=rules).soc)), name
    observations = clm5.Observations(jnp.array([0.0]), jnp.array([0.1]), jnp.array([2e4]))
    for error in ("lognormal", "proda"):
        assert np.isnan(clm5.log_likelihood(jnp.full(20, jnp.nan), observations, clm5.ModelOptions(error=error))).all()


@pytest.mark.usefixtures("x64")
def test_proda_rules_have_no_bedrock_below_layer_20_under_jit_either(golden_forcing):
    deep = changed(golden_forcing[0], bedrock_layer=jnp.full(12, 25.0))
    theta = clm5.ParameterSpace("proda").physical(jnp.asarray(UNIT))
    assert np.all(np.isnan(jax.jit(lambda f: clm5.simulate(theta, f, rules="proda").soc)(deep)))


@pytest.mark.usefixtures("x64")
def test_a_layer_that_never_decomposes_but_mixes_leaves_the_rest_alone(golden_forcing):
    """Zero water all year in layer 3: its woody debris never leaves, all else does by mixing."""
    forcing = golden_forcing[0]
    dry = changed(forcing, water_scalar=jnp.asarray(forcing.water_scalar).at[3].set(0.0))
    theta = clm5.ParameterSpace("binn").physical(jnp.asarray(UNIT))
    state = clm5.simulate(theta, dry)
    assert np.isinf(state.pools[0, 3])
    assert np.all(np.isfinite(state.soc))
    assert np.isfinite(clm5.processes(theta, dry, state).A)
    gradient = jax.grad(lambda t: jnp.log(clm5.simulate(t, dry).soc[:8]).sum())(theta)
    assert np.all(np.isfinite(gradient))


@pytest.mark.usefixtures("x64")
def test_conservative_columns_freeze_only_when_both_years_do(golden_forcing):
    """Thawed this year, not last: not frozen. The dense form of the equations agrees."""
    theta = clm5.ParameterSpace("binn").physical(jnp.asarray(UNIT))
    thawing = changed(
        golden_forcing[0], active_layer_depth=jnp.full(12, 1.0), active_layer_depth_last_year=jnp.zeros(12)
    )
    state = clm5.simulate(theta, thawing)
    assert state.input_fraction[0] < 0.9
    np.testing.assert_allclose(
        state.soc, jax.jit(dense.soc, static_argnums=2)(theta, thawing, "conservative"), rtol=1e-8
    )


@pytest.mark.parametrize("precision", [jnp.float32, jnp.float64])
def test_proda_weights_by_hand(precision):
    """Six horizons with the ranks worked out by hand; two horizons are a tie in both precisions."""
    with jax.enable_x64(precision == jnp.float64):
        upper = jnp.array([0.0, 0.2, 0.4, 0.8, 1.4, 2.0, jnp.nan], precision)
        lower = jnp.array([0.2, 0.4, 0.8, 1.4, 2.0, 3.0, jnp.nan], precision)
        soc = jnp.array([3e4, 1.2e4, 9e3, 5e3, 3e3, 1e3, jnp.nan], precision)
        # mean SOC 10,000: distances 20000, 2000, 1000, 5000, 7000, 9000 → ranks 1 5 6 4 3 2
        # mean depth 1.1 m: distances 1.0, .8, .5, 0, .6, 1.4 → ranks 2 3 5 6 4 1
        rank = np.array([1.5, 4.0, 5.5, 5.0, 3.5, 1.5])
        expected = np.maximum(10 * np.exp(-(rank - 1)), 1.0)
        found = proda_layer_weights(clm5.Observations(upper, lower, soc))
        np.testing.assert_allclose(found, [*expected, 0.0], rtol=1e-5)
        two = clm5.Observations(jnp.array([0.0, 0.3]), jnp.array([0.2, 0.5]), jnp.array([9123.4, 5021.7]))
        np.testing.assert_allclose(proda_layer_weights(two), 10 * np.exp(-0.5), rtol=1e-5)


def test_proda_draws_have_the_stated_error():
    """20,000 draws: sd within 5 standard errors of sigma times the observed value (false alarm 6e-7)."""
    n, sigma, observed = 20_000, 0.6, 1500.0
    observations = clm5.Observations(jnp.zeros(1), jnp.full(1, 0.1), jnp.full(1, observed))
    soc = jnp.broadcast_to(jnp.full(20, 1000.0), (n, 20))
    options = clm5.ModelOptions(error="proda", sigma=sigma)
    drawn = np.asarray(clm5.sample_observations(jax.random.key(5), soc, observations, options))[:, 0]
    scale = sigma * observed
    assert abs(drawn.std() - scale) < 5 * scale / np.sqrt(2 * n)
    assert abs(drawn.mean() - 1000.0) < 5 * scale / np.sqrt(n)


def test_horizons_beyond_the_nodes_and_upside_down():
    soc = jnp.linspace(1e4, 1e2, 20)
    upper, lower = jnp.array([-0.1, 8.1, 0.5, 0.0]), jnp.array([0.01, 8.5, 0.1, jnp.inf])
    found = clm5.observe(soc, upper, lower)
    np.testing.assert_allclose(found[:2], [1e4, 1e2], rtol=1e-6)
    assert np.all(np.isnan(found[2:]))
    measured = clm5.Observations(upper, lower, jnp.array([1e3, -5.0, 1e3, 1e3])).measured
    np.testing.assert_array_equal(measured, [True, False, True, False])


@pytest.mark.usefixtures("x64")
def test_stocks_and_layer_residence_times_are_what_they_are_called(golden_forcing):
    theta = clm5.ParameterSpace("binn").physical(jnp.asarray(UNIT))
    forcing = golden_forcing[0]
    state = clm5.simulate(theta, forcing)
    found = clm5.processes(theta, forcing, state)
    for depth in (30, 100, 200):
        np.testing.assert_allclose(getattr(found, f"stock_{depth}cm"), stock_above(state.soc, depth / 100), rtol=1e-12)
    held = np.asarray(state.soc) * clm5.grid.THICKNESS
    soil = np.asarray(state.respiration) > 0
    assert 0 < soil.sum() < 20, "a column with bedrock"
    expected = held[soil] / np.asarray(state.respiration)[soil]
    np.testing.assert_allclose(found.residence_time_by_layer[soil], expected, rtol=1e-12)


def test_whole_numbers_are_numbers_too(golden_forcing):
    forcing = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), golden_forcing[0])
    ones = np.ones(21, int)
    np.testing.assert_allclose(
        clm5.simulate(ones, forcing).soc, clm5.simulate(ones.astype(float), forcing).soc, rtol=1e-6
    )
