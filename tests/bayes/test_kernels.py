"""Hamiltonian Monte Carlo of equal lengths: it samples what NUTS samples, and no lane waits for another."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from chances import z_limit
from test_nuts_engine import CHAINS, DRAWS, SD, engine_of, keys_of, narrow

import bayes
import clm5
from bayes import diagnostics
from bayes.engine import Engine
from bayes.kernels import JitteredHMC
from bayes.sampler import draw_batch

STEPS = 12
OPTIONS = clm5.ModelOptions()
TWO = bayes.Config(
    OPTIONS, warmup=200, draws=200, batch=2, free=("q10", "tau4s3"), reruns=0, sampler="hmc", steps=4
)  # fmt: skip


@pytest.fixture(scope="module")
def narrow_run():
    with jax.enable_x64(True):
        engine = engine_of(narrow, make_kernel=partial(JitteredHMC, steps=STEPS, target_accept=0.8))
        centres = jnp.asarray([0.3, 0.5, 0.8])[:, None] * jnp.ones(5)
        records, _ = engine.run(keys_of([0, 1, 2]), centres, DRAWS)
        yield np.asarray(centres), records


def furthest(unit, centres, sd) -> float:
    """The largest |z| of means and variances of unit (chain, draw, site, 5)."""
    found = diagnostics.estimate(unit - centres), diagnostics.estimate((unit - centres) ** 2)
    expected = 0.0, sd**2
    return max(np.abs((f["mean"] - e) / f["mcse_mean"]).max() for f, e in zip(found, expected, strict=True))


def test_narrow_normals_in_a_box_have_their_means_and_widths(narrow_run):
    centres, records = narrow_run
    unit = np.moveaxis(records["report"], 0, 2)
    assert furthest(unit, centres, SD) < z_limit(2 * 15)
    assert furthest(centres + 1.2 * (unit - centres), centres, SD) > z_limit(2 * 15)  # a fifth too wide is caught
    assert furthest(unit, centres + 0.3 * SD, SD) > z_limit(2 * 15)  # so is a third of a sd


def test_all_lanes_make_as_many_steps_and_these_vary(narrow_run):
    steps = narrow_run[1]["n_steps"]
    assert steps.shape == (3, CHAINS, DRAWS)
    np.testing.assert_array_equal(steps, np.broadcast_to(steps[:1, :1], steps.shape))
    assert set(steps[0, 0]) == set(range(1, 2 * STEPS))  # each is missed with probability 2e-10
    # uniform: its sd is 6.6, the mean of 500 is within 2 of 12 but for a chance of 1e-11
    assert abs(steps[0, 0].mean() - STEPS) < 2
    assert np.ptp(narrow_run[1]["step_size"]) > 0  # steps have their own size in every lane


def test_the_number_of_steps_is_the_number_of_gradients(float64):
    calls = []
    counting = lambda x, c: (jax.debug.callback(lambda _: calls.append(1), x), narrow(x, c))[1]  # noqa: E731
    tiny = Engine(counting, lambda k, d: d, lambda x, d: x, warmup=20, target_accept=0.8, max_tree_depth=3,
                  make_kernel=partial(JitteredHMC, steps=3, target_accept=0.8))  # fmt: skip
    keys, data = keys_of([0], 1), jnp.zeros((1, 5))
    state = tiny.start(keys, data)
    jax.effects_barrier()
    before = len(calls)
    _, records = tiny.advance(state, data, 20)
    jax.effects_barrier()
    per_gradient = (len(calls) - before) / records["n_steps"].sum()
    assert per_gradient == pytest.approx(1.0, abs=0.1)  # NumPyro evaluates once more when it binds its functions


@pytest.mark.slow
def test_the_configuration_reaches_the_sampler(sites):
    arrays = draw_batch(sites.isel(site=[1, 2]), TWO, seed=0)
    assert int(arrays["n_steps"].max()) == 2 * TWO.steps - 1
    transitions = TWO.chains * (TWO.warmup + TWO.draws)
    # the numbers of steps do not depend on the seed: no false alarm
    assert arrays["n_gradients"] / transitions == pytest.approx(TWO.steps, rel=0.1)
    found = diagnostics.estimate(arrays["unit"][..., [clm5.NAMES.index(name) for name in TWO.free]])
    assert found["rhat"].max() < 1.1


@pytest.mark.slow
def test_the_file_says_which_sampler_made_it(sites):
    tree = bayes.sample(sites.isel(site=[1, 2]), TWO, progress=False)
    assert tree.attrs["method"] == "hmc"
    assert tree.attrs["steps"] == TWO.steps
    assert "max_tree_depth" not in tree.attrs
    assert "tree_depth" not in tree["sample_stats"].data_vars


def moments(tree, names):
    """Means of u and u² with their Monte Carlo errors, (2, site, parameter)."""
    unit = tree["posterior"]["unit"].sel(parameter=list(names)).values.astype(float)
    found = [diagnostics.estimate(unit**power) for power in (1, 2)]
    return {name: np.stack([f[name] for f in found]) for name in ("mean", "mcse_mean")}


def apart(one, other) -> float:
    return np.abs((one["mean"] - other["mean"]) / np.hypot(one["mcse_mean"], other["mcse_mean"])).max()


@pytest.mark.slow
def test_all_parameters_agree_with_nuts(sites):
    some = sites.isel(site=slice(1, 5))
    long = bayes.Config(OPTIONS, warmup=400, draws=1000, batch=4, reruns=0)
    nuts = moments(bayes.sample(some, long, seed=1, progress=False), clm5.NAMES)
    hmc = bayes.sample(some, bayes.Config(OPTIONS, warmup=400, draws=1500, batch=4, reruns=0, sampler="hmc"), seed=2,
                       progress=False)  # fmt: skip
    found = moments(hmc, clm5.NAMES)
    limit = z_limit(found["mean"].size)
    assert apart(found, nuts) < limit
    spread = nuts["mean"][1] - nuts["mean"][0] ** 2
    narrow = nuts | {"mean": np.stack([nuts["mean"][0], nuts["mean"][0] ** 2 + 0.6 * spread])}
    assert apart(found, narrow) > limit  # widths of 0.77
    elsewhere = {name: np.roll(value, 1, axis=1) for name, value in nuts.items()}
    assert apart(found, elsewhere) > limit  # the posterior of another site
