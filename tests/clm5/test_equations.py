"""Property: the pieces of the column behave as their docstrings say, for every soil."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.interpolate
from hypothesis import given, settings
from hypothesis import strategies as st

import clm5
from clm5.grid import INTERFACE, NODE, THICKNESS
from clm5.modifiers import temperature_scalar, water_modifier
from clm5.observation import proda_layer_weights
from clm5.six_processes import stock_above

settings.register_profile("quick", max_examples=40, deadline=None)
settings.load_profile("quick")

depths = st.floats(0.0, 3.0)


@given(st.floats(220.0, 320.0), st.floats(1.2, 3.0))
def test_ten_kelvin_warmer_multiplies_the_rate_by_q10(temperature, q10):
    with jax.enable_x64(True):
        cool, warm = temperature_scalar(jnp.array([temperature, temperature + 10.0]), jnp.array(q10))
        np.testing.assert_allclose(warm, q10 * cool, rtol=1e-12)
        np.testing.assert_allclose(temperature_scalar(jnp.array(298.15), jnp.array(q10)), 1.0, rtol=1e-15)


@given(st.floats(0, 1), st.floats(0, 5))
def test_water_never_exceeds_one(water, scaling):
    assert 0 <= water_modifier(jnp.array(water), jnp.array(scaling)) <= 1


@given(depths, st.floats(0.01, 1.0), st.lists(st.floats(0.1, 1e5), min_size=20, max_size=20))
def test_horizon_mean_is_the_integral_of_the_linear_profile(upper, thickness, soc):
    """Against quadrature of numpy's interpolation, split at the nodes, where the profile has kinks."""
    with jax.enable_x64(True):
        lower = upper + thickness
        cuts = np.unique(np.concatenate([[upper, lower], NODE[(upper < NODE) & (lower > NODE)]]))
        values = np.interp(cuts, NODE, soc)
        expected = np.trapezoid(values, cuts) / (lower - upper)
        found = clm5.observe(jnp.asarray(soc), jnp.array([upper, jnp.nan]), jnp.array([lower, jnp.nan]))
        np.testing.assert_allclose(found[0], expected, rtol=1e-9)
        assert np.isnan(found[1])


@given(depths, st.lists(st.floats(0.1, 1e5), min_size=20, max_size=20))
def test_operators_at_mid_depth_equal_their_libraries(middle, soc):
    with jax.enable_x64(True):
        upper, lower = jnp.array([max(middle - 0.05, 0.0)]), jnp.array([middle + 0.05])
        z = np.clip(0.5 * (upper + lower), NODE[0], NODE[-1])
        linear = clm5.observe(jnp.asarray(soc), upper, lower, operator="linear")
        np.testing.assert_allclose(linear, np.interp(z, NODE, soc), rtol=1e-9)
        pchip = clm5.observe(jnp.asarray(soc), upper, lower, operator="pchip")
        np.testing.assert_allclose(pchip, scipy.interpolate.PchipInterpolator(NODE, soc)(z), rtol=1e-9)


@pytest.mark.parametrize("operator", ["horizon", "linear", "pchip"])
def test_padding_gives_no_gradient_and_no_nan(operator):
    soc = jnp.linspace(5e4, 1e2, 20)
    upper, lower = jnp.array([0.0, 0.1, jnp.nan]), jnp.array([0.1, 0.4, jnp.nan])
    observations = clm5.Observations(upper, lower, jnp.array([4e4, 3e4, jnp.nan]))
    for error in ("lognormal", "proda"):
        options = clm5.ModelOptions(operator=operator, error=error)
        density = clm5.log_likelihood(soc, observations, options)
        assert density[2] == 0
        assert np.all(np.isfinite(density))
        gradient = jax.grad(lambda s, o=options: clm5.log_likelihood(s, observations, o).sum())(soc)
        assert np.all(np.isfinite(gradient))
        assert np.any(gradient != 0)


def test_error_models_equal_scipy():
    from scipy import stats

    with jax.enable_x64(True):
        soc = jnp.full(20, 1000.0)
        observations = clm5.Observations(jnp.array([0.0, 0.2]), jnp.array([0.2, 0.5]), jnp.array([1500.0, 700.0]))
        density = clm5.log_likelihood(soc, observations, clm5.ModelOptions(error="lognormal", sigma=0.3))
        np.testing.assert_allclose(density, stats.lognorm.logpdf([1500.0, 700.0], 0.3, scale=1000.0), rtol=1e-12)
        density = clm5.log_likelihood(soc, observations, clm5.ModelOptions(error="proda", sigma=0.6))
        weight = np.asarray(proda_layer_weights(observations))
        expected = weight * stats.norm.logpdf([1500.0, 700.0], 1000.0, 0.6 * np.array([1500.0, 700.0]))
        np.testing.assert_allclose(density, expected, rtol=1e-12)


def test_predictive_draws_have_the_stated_error():
    """20,000 draws: the sd of ln(draw) is within 5 standard errors of sigma (false alarm 6e-7)."""
    sigma, n = 0.3, 20_000
    observations = clm5.Observations(jnp.zeros(1), jnp.full(1, 0.1), jnp.ones(1))
    soc = jnp.broadcast_to(jnp.full(20, 1000.0), (n, 20))
    options = clm5.ModelOptions(sigma=sigma)
    drawn = np.log(np.asarray(clm5.sample_observations(jax.random.key(3), soc, observations, options))[:, 0] / 1000)
    assert abs(drawn.std() - sigma) < 5 * sigma / np.sqrt(2 * n)
    assert abs(drawn.mean()) < 5 * sigma / np.sqrt(n)


def test_proda_weights_prefer_the_ends_of_a_profile():
    """The ranks of the published code: distances from the means, sorted in descending order, twice."""
    upper, lower = np.array([0.0, 0.2, 0.4, 1.0]), np.array([0.2, 0.4, 0.6, 2.0])
    soc = np.array([9e3, 5.5e3, 4.5e3, 2e3])
    ranks = []
    for x in (soc, 0.5 * (upper + lower)):
        order = np.argsort(-np.abs(x - x.mean()), kind="stable")
        ranks.append(1 + np.argsort(order))
    expected = np.maximum(10 * np.exp(-(np.mean(ranks, axis=0) - 1)), 1)
    padded = [np.append(x, np.nan) for x in (upper, lower, soc)]
    weight = proda_layer_weights(clm5.Observations(*map(jnp.asarray, padded)))
    np.testing.assert_allclose(weight, [*expected, 0.0], rtol=1e-6)
    assert weight[3] > weight[1]
    assert weight[0] > weight[2]


@pytest.mark.usefixtures("x64")
def test_stocks_count_partial_layers():
    soc = jnp.asarray(np.random.default_rng(0).uniform(1, 100, 20))
    fine = np.linspace(0, 1.0, 100_001)
    middle = 0.5 * (fine[1:] + fine[:-1])
    layer = np.searchsorted(INTERFACE, middle)
    np.testing.assert_allclose(stock_above(soc, 1.0), np.asarray(soc)[layer].mean() * 1.0, rtol=1e-4)
    np.testing.assert_allclose(stock_above(soc, 8.6), np.sum(np.asarray(soc) * THICKNESS), rtol=1e-12)


@pytest.mark.usefixtures("x64")
def test_processes_equal_their_definitions(golden, golden_forcing):
    """Model.md §6 spelled out in NumPy for one column."""
    i = 2
    theta = np.asarray(clm5.ParameterSpace("binn").physical(jnp.asarray(golden["rand_kp"][i])))
    p = dict(zip(clm5.NAMES, theta, strict=True))
    forcing = golden_forcing[i]
    state = clm5.simulate(theta, forcing)
    found = clm5.processes(theta, forcing, state)
    C, soc = np.asarray(state.pools), np.asarray(state.soc)
    S = soc * THICKNESS
    r_t = p["q10"] ** ((np.asarray(forcing.soil_temperature) - 298.15) / 10)
    r_w = np.minimum(p["w_scaling"] * np.asarray(forcing.water_scalar), 1)
    X = r_t.mean(1) * r_w.mean(1) * np.exp(-NODE / p["efolding"])
    tau = dict(
        zip(
            clm5.grid.POOLS,
            [p[n] for n in ("taucwd", "taul1", "taul2", "taul2", "tau4s1", "tau4s2", "tau4s3")],
            strict=True,
        )
    )
    flow = {pool: (C[k] * X * THICKNESS / tau[pool]).sum() for k, pool in enumerate(clm5.grid.POOLS)}
    names = ["fl1s1", "fl2s1", "fl3s2", "fs1s2", "fs1s3", "fs2s1", "fs2s3", "fs3s1"]
    transfers = [({"l": "litter", "s": "soil"}[name[1]] + name[2], name) for name in names]
    A = sum(p[name] * flow[donor] for donor, name in transfers) / sum(flow[d] for d in clm5.grid.POOLS[1:])
    np.testing.assert_allclose(found.A, A, rtol=1e-10)
    stock = {pool: (C[k] * THICKNESS).sum() for k, pool in enumerate(clm5.grid.POOLS)}
    soil = clm5.grid.SOIL_POOLS
    np.testing.assert_allclose(found.K, sum(stock[s] / tau[s] for s in soil) / sum(stock[s] for s in soil), rtol=1e-10)
    np.testing.assert_allclose(found.Xi, (X * S).sum() / S.sum(), rtol=1e-10)
    np.testing.assert_allclose(found.V, (np.asarray(state.mixing_rate) * S).sum() / S.sum(), rtol=1e-10)
    below = np.append(np.cumsum(np.asarray(state.input_fraction)[::-1])[::-1][1:], 0.0)  # 1 − F
    kept = below > 2.0**-54  # F < 1 in float64
    assert 10 < kept.sum() < 20
    np.testing.assert_allclose(found.I, np.exp(np.log(below[kept]) / (100 * NODE[kept])).mean(), rtol=1e-10)
    np.testing.assert_allclose(found.carbon_input, np.asarray(forcing.litter_input).sum(), rtol=1e-12)
    np.testing.assert_allclose(found.residence_time, S.sum() / found.carbon_input, rtol=1e-12)


def test_parameter_spaces_keep_apart():
    binn, proda = clm5.ParameterSpace("binn"), clm5.ParameterSpace("proda")
    unit = np.random.default_rng(0).uniform(size=(3, 21)).astype(np.float32)
    np.testing.assert_allclose(binn.unit(binn.physical(unit)), unit, atol=1e-5)
    assert not np.allclose(binn.physical(unit), proda.physical(unit))
    assert np.all((binn.default() >= binn.lower) & (binn.default() <= binn.upper))
    with pytest.raises(ValueError, match="bounds must be one of"):
        clm5.ParameterSpace("cesm")
    with pytest.raises(ValueError, match="21 parameters"):
        binn.physical(unit[:, :5])


@pytest.mark.usefixtures("x64")
def test_second_derivatives_and_forward_mode_work(golden, golden_forcing):
    theta = clm5.ParameterSpace("binn").physical(jnp.asarray(golden["rand_kp"][0]))
    forcing = golden_forcing[0]

    def value(theta):
        return jnp.log(clm5.simulate(theta, forcing).soc[:8]).sum()

    forward, reverse = jax.jvp(value, (theta,), (theta,))[1], jax.grad(value)(theta)
    np.testing.assert_allclose(forward, reverse @ theta, rtol=1e-8)
    curvature = jax.jvp(jax.grad(value), (theta,), (theta,))[1]  # a Hessian-vector product
    assert np.all(np.isfinite(curvature))


def test_works_inside_a_numpyro_model(golden, golden_forcing):
    import numpyro
    import numpyro.distributions as dist
    from numpyro.infer.util import log_density

    forcing = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), golden_forcing[0])

    def model():
        unit = numpyro.sample("unit", dist.Uniform(jnp.zeros(21), 1.0).to_event(1))
        soc = clm5.simulate(clm5.ParameterSpace("binn").physical(unit), forcing).soc
        numpyro.sample("top", dist.LogNormal(jnp.log(soc[0]), 0.2), obs=2e4)

    density, _ = log_density(model, (), {}, {"unit": jnp.full(21, 0.5)})
    assert np.isfinite(density)
