"""The many-lane sampler on densities whose answers are known."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from chances import z_limit

from bayes import diagnostics
from bayes.engine import STRETCH, Engine, stretches

pytestmark = pytest.mark.usefixtures("float64")

SD = 0.01  # of the narrow density, in a box of width 1
CHAINS, DRAWS = 4, 500


def narrow(position, centre):
    """5 independent normals inside the unit box, sampled by their logits."""
    unit = jax.nn.sigmoid(position)
    return 0.5 * jnp.sum(((unit - centre) / SD) ** 2) - jnp.sum(
        jax.nn.log_sigmoid(position) + jax.nn.log_sigmoid(-position)
    )


def engine_of(potential, **settings):
    start = lambda key, data: jax.random.logistic(key, (5,))  # noqa: E731
    report = lambda position, data: jax.nn.sigmoid(position)  # noqa: E731
    return Engine(potential, start, report, warmup=300, target_accept=0.8, max_tree_depth=8, **settings)


def keys_of(sites, chains=CHAINS):
    root = jax.random.key(0)
    return jax.vmap(
        lambda s: jax.vmap(lambda c: jax.random.fold_in(jax.random.fold_in(root, s), c))(jnp.arange(chains))
    )(jnp.asarray(sites))


@pytest.fixture(scope="module")
def narrow_run():
    with jax.enable_x64(True):
        engine = engine_of(narrow)
        centres = jnp.asarray([0.3, 0.5, 0.8])[:, None] * jnp.ones(5)
        records, spent = engine.run(keys_of([0, 1, 2]), centres, DRAWS)
        yield engine, centres, records, spent


def test_narrow_normals_in_a_box_have_their_means_and_widths(narrow_run):
    _, centres, records, _ = narrow_run
    unit = np.moveaxis(records["report"], 0, 2)  # (chain, draw, site, 5)
    found = diagnostics.estimate(unit)
    limit = z_limit(2 * 15)
    assert np.abs((found["mean"] - centres) / found["mcse_mean"]).max() < limit
    square = diagnostics.estimate((unit - np.asarray(centres)) ** 2)
    assert np.abs((square["mean"] - SD**2) / square["mcse_mean"]).max() < limit
    too_wide = diagnostics.estimate((1.3 * (unit - np.asarray(centres))) ** 2)  # 30 % too wide is caught
    assert np.abs((too_wide["mean"] - SD**2) / too_wide["mcse_mean"]).max() > limit


def test_a_lane_does_not_depend_on_its_neighbours(narrow_run):
    engine, centres, records, _ = narrow_run
    elsewhere, _ = engine.run(keys_of([2, 7, 8]), jnp.stack([centres[2], 0.9 * centres[0], centres[0]]), 30)
    np.testing.assert_array_equal(elsewhere["report"][0], records["report"][2, :, :30])
    assert not np.array_equal(elsewhere["report"][2], records["report"][0, :, :30])  # its key is another


def test_every_gradient_is_counted(narrow_run):
    spent = narrow_run[-1]
    calls = []
    counting = lambda x, c: (jax.debug.callback(lambda _: calls.append(1), x), narrow(x, c))[1]  # noqa: E731
    tiny = Engine(counting, lambda k, d: d, lambda x, d: x, warmup=20, target_accept=0.8, max_tree_depth=3)
    keys, data = keys_of([0], 1), jnp.zeros((1, 5))
    state = tiny.start(keys, data)
    jax.effects_barrier()
    before = len(calls)
    _, records = tiny.advance(state, data, 10)
    jax.effects_barrier()
    per_gradient = (len(calls) - before) / records["n_steps"].sum()
    assert per_gradient == pytest.approx(1.0, abs=0.1)
    assert np.all(spent >= 300)


def test_a_draw_is_the_same_however_many_are_asked_for_at_once(narrow_run):
    engine, centres, records, _ = narrow_run
    fewer, _ = engine.run(keys_of([0, 1, 2]), centres, 30)
    np.testing.assert_array_equal(fewer["report"], records["report"][:, :, :30])
    assert stretches(60) == [STRETCH, STRETCH, 10]
    with pytest.raises(ValueError, match="count must lie in"):
        engine.advance(None, centres, STRETCH + 1)


def test_a_density_that_is_nowhere_finite_is_named():
    engine = Engine(lambda x, d: jnp.sum(x) * d, lambda k, d: jax.random.normal(k, (5,)), lambda x, d: x,
                    warmup=20, target_accept=0.8, max_tree_depth=3)  # fmt: skip
    with pytest.raises(FloatingPointError) as caught:
        engine.run(keys_of([0, 1], 2), jnp.asarray([1.0, jnp.nan]), 5)
    np.testing.assert_array_equal(caught.value.lanes, [[False, False], [True, True]])


def test_a_start_outside_the_density_is_drawn_again():
    wall = lambda x, d: jnp.where(x[0] > 0, 0.5 * x @ x, jnp.inf)  # noqa: E731
    engine = Engine(wall, lambda k, d: jax.random.normal(k, (5,)), lambda x, d: x,
                    warmup=20, target_accept=0.8, max_tree_depth=3)  # fmt: skip
    state = engine.start(keys_of(range(8), 4), jnp.zeros(8))
    assert (
        np.mean(np.isfinite(state.potential_energy)) == 1
    )  # each lane fails with probability 2**-8; this seed has none


SPREAD = """
import sys; sys.path.insert(0, "tests/bayes")
import jax, numpy as np, jax.numpy as jnp
from test_nuts_engine import engine_of, keys_of, narrow
with jax.enable_x64(True):
    assert len(jax.devices()) == 2
    data = jnp.linspace(0.2, 0.8, 4)[:, None] * jnp.ones(5)
    both = engine_of(narrow).run(keys_of(range(4)), data, 50)[0]["report"]
    one = engine_of(narrow, devices=jax.devices()[:1]).run(keys_of(range(4)), data, 50)[0]["report"]
    np.testing.assert_array_equal(both, one)
"""


@pytest.mark.slow
def test_two_devices_give_the_draws_of_one():
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    subprocess.run([sys.executable, "-c", SPREAD], env=environment, check=True, timeout=300)
