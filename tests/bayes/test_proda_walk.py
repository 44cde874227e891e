"""PRODA's random walk where answers are known: right when mended, wrong as published by what is published."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from chances import z_limit
from scipy import stats

from bayes import diagnostics
from bayes.proda_criteria import gelman_rubin, passes
from bayes.proda_walk import STRETCH, Rules, Walk, random_starts, stage_keys
from bayes.sampler import chain_keys

pytestmark = pytest.mark.usefixtures("float64")

STEPS, CHAINS, SD = 8_000, 4, 0.05
CENTRES = np.array([[0.5, 0.3], [0.98, 0.6]])  # (site, free); one sits near a wall


def normals(unit, centre):
    return 0.5 * jnp.sum(((unit - centre[:, None]) / SD) ** 2, axis=-1)


def flat(unit, centre):
    return jnp.zeros(unit.shape[:-1])


def walked(cost, *, annealed: bool, redraw: bool):
    """The second half of stage 2: (chain, step, site, free)."""
    walk = Walk(cost, half_width=0.1, devices=jax.devices()[:1])
    keys, scale, data = chain_keys(0, ["a", "b"], CHAINS), jnp.full((2, CHAINS), 5.7), jnp.asarray(CENTRES)
    rules = Rules(annealed, redraw, 500, STEPS // 2)
    state = walk.start(random_starts(keys, 2), data)
    for gaussian, total in ((False, 2_000), (True, STEPS)):
        states = []
        for done in range(0, total, STRETCH):
            stage = stage_keys(keys, 1 + gaussian)
            given = {
                "gaussian": gaussian,
                "rules": rules,
                "done": done,
                "count": min(STRETCH, total - done),
            }
            state, units, _ = walk.advance(state, stage, scale, data, **given)
            states.append(units)
        state = state if gaussian else walk.second(state, total, scale)
    return np.concatenate(states)[STEPS // 2 :].transpose(2, 0, 1, 3).astype(float)


def z_of(unit, mean, square):
    found = diagnostics.estimate(np.stack([unit, unit**2]).transpose(1, 2, 0, 3, 4))
    return np.abs((found["mean"] - np.stack([mean, square])) / found["mcse_mean"]).max()


def test_the_mended_walk_finds_truncated_normals_and_the_annealed_one_is_too_narrow():
    exact = stats.truncnorm((0 - CENTRES) / SD, (1 - CENTRES) / SD, CENTRES, SD)
    limit = z_limit(8)
    mended = walked(normals, annealed=False, redraw=False)
    assert z_of(mended, exact.mean(), exact.moment(2)) < limit
    assert z_of(0.97 * mended, exact.mean(), exact.moment(2)) > limit  # 3 % off is caught
    annealed = walked(normals, annealed=True, redraw=False)
    power = np.log(0.75 * STEPS)  # in the middle of what is kept; it moves by 4 % there
    ratio = annealed.std(axis=(0, 1))[0] / exact.std()[0]
    np.testing.assert_allclose(ratio, 1 / np.sqrt(power), rtol=0.15)


def test_redrawn_proposals_avoid_the_walls():
    limit = z_limit(8)
    zero, twelfth = np.zeros((2, 2)), np.full((2, 2), 1 / 12)
    assert z_of(walked(flat, annealed=False, redraw=False) - 0.5, zero, twelfth) < limit
    redrawn = walked(flat, annealed=False, redraw=True)
    assert z_of(redrawn - 0.5, zero, twelfth) > limit
    near = np.mean((redrawn < 0.05) | (redrawn > 0.95))
    assert near < 0.08  # a flat density has 0.1


def test_random_numbers_of_a_step_depend_on_its_number_not_on_the_stretch():
    walk = Walk(normals, half_width=0.1, devices=jax.devices()[:1])
    keys, scale, data = chain_keys(0, ["a", "b"], 2), jnp.full((2, 2), 2.4), jnp.asarray(CENTRES)
    begun = walk.second(walk.start(random_starts(keys, 2), data), 100, scale)
    begun = begun._replace(root=jnp.broadcast_to(0.1 * jnp.eye(2), begun.root.shape))
    stage = {"gaussian": True, "rules": Rules(True, True, 10, 40)}
    whole = walk.advance(begun, keys, scale, data, **stage, done=0, count=60)
    state, first, _ = walk.advance(begun, keys, scale, data, **stage, done=0, count=25)
    _, last, _ = walk.advance(state, keys, scale, data, **stage, done=25, count=35)
    np.testing.assert_array_equal(np.concatenate([first, last]), whole[1])
    assert len(np.unique(whole[1].reshape(60, -1), axis=0)) > 20


def test_gelman_rubin_is_the_published_formula_and_filters_use_its_mean():
    rng = np.random.default_rng(0)
    unit = rng.uniform(size=(3, 50, 2, 2)) * 0.2 + np.array([0.1, 0.4, 0.7])[:, None, None, None] * [[0.0, 1.0], [0, 0]]
    found = gelman_rubin(unit)
    count = 100  # the published code counts the burn-in here, and nowhere else
    for site, parameter in np.ndindex(2, 2):
        means = unit[:, :, site, parameter].mean(axis=1)
        within = sum(((unit[c, :, site, parameter] - means[c]) ** 2).sum() for c in range(3)) / 3 / (count - 1)
        between = count / 2 * ((means - means.mean()) ** 2).sum()
        expected = np.sqrt((within * (count - 1) / count + between / count) / within)
        assert found[site, parameter] == pytest.approx(expected, rel=1e-12)
    np.testing.assert_array_equal(passes(found, np.array([0.9, 0.9])), [False, True])
    np.testing.assert_array_equal(passes(found, np.array([0.9, -0.1])), [False, False])
    unit[..., 1] = 0.5  # held
    assert np.all(np.isnan(gelman_rubin(unit)[:, 1]))
    np.testing.assert_array_equal(passes(gelman_rubin(unit), np.ones(2)), [True, True])
