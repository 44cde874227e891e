"""Property: carbon is conserved, and values and gradients are right over the whole prior box of both bounds."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import clm5
from clm5 import dense
from clm5.parameters import INDEX
from tests.clm5.conftest import at_the_corners

SWEEP = 400  # columns
COMBINATIONS = [("binn", "conservative"), ("proda", "conservative"), ("proda", "proda"), ("binn", "binn")]


@pytest.fixture(scope="module")
def corners(golden_forcing):
    with jax.enable_x64(True):
        return at_the_corners(golden_forcing, SWEEP, seed=20)


def as_dtype(tree, dtype):
    return jax.tree.map(lambda x: jnp.asarray(x, dtype), tree)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("bounds", ["binn", "proda"])
def test_carbon_in_equals_carbon_respired(golden, golden_forcing, corners, bounds):
    space = clm5.ParameterSpace(bounds)
    for forcing, unit in ((golden_forcing, golden["rand_kp"]), corners):
        theta = space.physical(jnp.asarray(unit))
        state = clm5.simulate(theta, forcing, rules="conservative")
        put_in = np.asarray(clm5.Forcing.annual_litter_input.fget(forcing)).sum(-1)
        np.testing.assert_allclose(np.asarray(state.respiration).sum(-1), put_in, rtol=1e-12)
        np.testing.assert_allclose(np.asarray(state.input_fraction).sum(-1), 1.0, rtol=1e-12)


@pytest.mark.usefixtures("x64")
def test_nothing_below_bedrock_under_conservative_rules(corners):
    forcing, unit = corners
    state = clm5.simulate(clm5.ParameterSpace("binn").physical(jnp.asarray(unit)), forcing)
    below = np.arange(20) >= np.asarray(forcing.bedrock_layer)[:, :1]
    assert np.all(np.asarray(state.pools)[np.broadcast_to(below[:, None], state.pools.shape)] == 0)
    assert np.all(np.asarray(state.soc)[:, 0] > 0)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("bounds", "rules"), COMBINATIONS)
def test_finite_and_non_negative_at_the_corners(corners, bounds, rules):
    forcing, unit = corners
    state = clm5.simulate(clm5.ParameterSpace(bounds).physical(jnp.asarray(unit)), forcing, rules=rules)
    for leaf in jax.tree.leaves(state):
        assert np.all(np.isfinite(leaf))
        assert np.all(np.asarray(leaf) >= 0)


@functools.cache
def value_and_gradient(rules: str):
    """Σ weight · ln(SOC) of every column and its gradient in the physical parameters, compiled once per rule set."""

    def value(theta, forcing, weight, counted):
        soc = clm5.simulate(theta, forcing, rules=rules).soc
        terms = jnp.where(counted, jnp.log(jnp.where(counted, soc, 1.0)) * weight.astype(soc.dtype), 0.0)
        return terms.sum(), terms.sum(axis=-1)

    return jax.jit(jax.value_and_grad(value, has_aux=True))


def countable(theta, forcing, rules):
    """Layers whose carbon is neither negligible nor near the end of float32, and weights of either sign."""
    soc = np.asarray(clm5.simulate(theta, forcing, rules=rules).soc)
    return jnp.asarray(np.random.default_rng(1).normal(size=soc.shape)), (soc > 1e-6) & (soc < 1e25)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("bounds", "rules"), COMBINATIONS)
def test_gradients_equal_central_differences(corners, bounds, rules):
    """In float64: finite on the faces of the box, and near them equal to differences over a step of 1e-6 of the box."""
    forcing, unit = as_dtype(corners[0], jnp.float64), corners[1]
    space = clm5.ParameterSpace(bounds)
    width = space.upper - space.lower
    run = value_and_gradient(rules)
    theta = space.physical(jnp.asarray(unit))
    weight, counted = countable(theta, forcing, rules)
    assert np.all(np.isfinite(run(theta, forcing, weight, counted)[1]))
    inside = np.clip(unit, 1e-3, 1 - 1e-3)
    gradient = np.asarray(run(space.physical(jnp.asarray(inside)), forcing, weight, counted)[1]) * width
    scale = 1 + np.abs(gradient).max(axis=1)
    for i in range(21):
        step = 1e-6 * np.eye(21)[i]
        ends = [
            np.asarray(run(space.physical(jnp.asarray(u)), forcing, weight, counted)[0][1])
            for u in (inside + step, inside - step)
        ]
        error = np.abs((ends[0] - ends[1]) / 2e-6 - gradient[:, i]) / scale
        if clm5.NAMES[i] == "w_scaling":  # min(w · W, 1) has a kink; a step may straddle it
            error = np.sort(error)[: int(0.98 * len(error))]
        assert error.max() < 1e-4, clm5.NAMES[i]


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("bounds", "rules"), [*COMBINATIONS, ("binn", "proda"), ("proda", "binn")])
def test_float32_gradients_agree_with_float64(corners, bounds, rules):
    """Finite on every face; equal to float64 over the BINN box (PRODA's has derivatives beyond float32)."""
    forcing, unit = corners
    space = clm5.ParameterSpace(bounds)
    theta32, forcing32 = space.physical(jnp.asarray(unit, jnp.float32)), as_dtype(forcing, jnp.float32)
    theta, forcing64 = theta32.astype(jnp.float64), as_dtype(forcing32, jnp.float64)
    weight, counted = countable(theta, forcing64, rules)
    counted &= np.isfinite(clm5.simulate(theta32, forcing32, rules=rules).soc)
    run, width = value_and_gradient(rules), space.upper - space.lower
    single = np.asarray(run(theta32, forcing32, weight, counted)[1]) * width
    assert np.all(np.isfinite(single))
    if bounds == "proda":
        return
    exact = np.asarray(run(theta, forcing64, weight, counted)[1]) * width
    error = np.abs(exact - single) / np.maximum(np.abs(exact).max(axis=1, keepdims=True), 1e-3)
    error[:, INDEX["w_scaling"]] = 0.0  # at the kink of min(w · W, 1) the two precisions may take different sides
    assert error.max() < 1e-2
    assert np.quantile(error, 0.99) < 1e-4


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("rules", ["conservative", "proda", "binn"])
def test_structured_equals_dense(golden, golden_forcing, rules):
    """The same equations twice, in well-conditioned columns (all parameters at the middle of the BINN box)."""
    theta = clm5.ParameterSpace("binn").physical(jnp.full(golden["rand_kp"].shape, 0.5))
    by_lapack = jax.jit(jax.vmap(lambda t, f: dense.pools(t, f, rules)))(theta, golden_forcing)
    ours = clm5.simulate(theta, golden_forcing, rules=rules).pools
    scale = np.asarray(by_lapack).max(axis=(1, 2), keepdims=True)
    assert np.max(np.abs(by_lapack - ours) / scale) < 1e-10


@pytest.mark.usefixtures("x64")
def test_zero_turnover_is_a_limit_and_floors_hold(golden, golden_forcing):
    theta = np.array(clm5.ParameterSpace("proda").physical(jnp.full((1, 21), 0.4)))
    forcing = golden_forcing[:1]

    def soc_with(**values):
        changed = theta.copy()
        for name, value in values.items():
            changed[:, INDEX[name]] = value
        return np.asarray(clm5.simulate(changed, forcing).soc)

    np.testing.assert_allclose(soc_with(taul1=0.0), soc_with(taul1=1e-9), rtol=1e-6)
    np.testing.assert_allclose(soc_with(tau4s1=0.0), soc_with(tau4s1=1e-9), rtol=1e-6)
    np.testing.assert_array_equal(soc_with(efolding=0.0), soc_with(efolding=0.0125))
    np.testing.assert_array_equal(soc_with(w_scaling=0.0), soc_with(w_scaling=1e-6))


@pytest.mark.usefixtures("x64")
def test_leading_axes_broadcast_and_vmap_equals_a_loop(golden, golden_forcing):
    theta = clm5.ParameterSpace("binn").physical(jnp.asarray(golden["rand_kp"]))
    together = clm5.simulate(theta, golden_forcing)
    one_by_one = [clm5.simulate(theta[i], golden_forcing[i]).soc for i in range(4)]
    np.testing.assert_allclose(together.soc[:4], one_by_one, rtol=1e-12)
    draws = clm5.simulate(jnp.stack([theta, theta]), golden_forcing)
    assert draws.pools.shape == (2, len(theta), 7, 20)
    np.testing.assert_allclose(draws.soc[1], together.soc, rtol=1e-12)
    mapped = jax.vmap(lambda t, f: clm5.simulate(t, f).stock)(theta, golden_forcing)
    np.testing.assert_allclose(mapped, together.stock, rtol=1e-12)


def test_refusals(golden_forcing):
    middle = jnp.full(21, 0.5)
    golden_forcing = jax.tree.map(np.asarray, golden_forcing)
    with pytest.raises(ValueError, match="rules must be one of"):
        clm5.simulate(middle, golden_forcing[0], rules="matlab")
    with pytest.raises(ValueError, match="21 parameters, got shape"):
        clm5.simulate(middle[:20], golden_forcing[0])
    f = as_dtype(golden_forcing[0], jnp.float32)
    deep = clm5.Forcing(**{k: getattr(f, k) for k in f.__dataclass_fields__} | {"bedrock_layer": jnp.full(12, 25.0)})
    with pytest.raises(ValueError, match="no bedrock below layer 20"):
        clm5.simulate(middle, deep, rules="proda")
    assert np.all(np.isfinite(clm5.simulate(middle, deep, rules="binn").soc))
    with pytest.raises(ValueError, match="layer and month swapped"):
        clm5.Forcing(*[jnp.zeros((12, 20))] * 4, jnp.zeros((4, 20)), *[jnp.zeros(20)] * 3)


def test_import_changes_no_setting_and_starts_nothing():
    import subprocess
    import sys

    code = (
        "import time; t = time.process_time(); import clm5, binn, bayes, comparisons; t = time.process_time() - t\n"
        "import sys; assert t < 1.5, t; assert 'jax' not in sys.modules, 'lazy until used'\n"
        "clm5.simulate, clm5.sites\n"
        "import jax; assert not jax.config.jax_enable_x64; assert not {'flax', 'numpyro'} & set(sys.modules)\n"
        "assert not jax._src.xla_bridge._backends, 'importing must not start a device'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
