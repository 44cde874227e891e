"""One dropout draw is one network; the same key is the same network, whatever the global precision."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy import stats

from binn.network import EDGE, ParameterNetwork, hide_categories, mc_dropout

FALSE_ALARM = 1e-6  # how often a right answer may turn a statistical test red, whatever the seed


@functools.cache
def network(**changes):
    """Built once: no test changes it."""
    settings = {"width": 32, "depth": 2, "dropout": 0.3, **changes}
    return ParameterNetwork(5, 21, **settings, rngs=nnx.Rngs(params=jax.random.key(1)))


@functools.cache
def grown(**changes):
    """A network whose answers are far from ½ and from each other, as after training."""
    net = nnx.clone(network(**changes))
    net.head.kernel[...] = 20 * net.head.kernel[...]
    return net


@pytest.fixture(scope="module")
def x():
    return jax.random.normal(jax.random.key(2), (6, 5), jnp.float32)


@functools.partial(jax.jit, static_argnames=("graph", "batch"))
def _draw(weights, x, keys, graph, batch):
    return mc_dropout(nnx.merge(graph, weights), x, keys, batch=batch)


def draw(net, x, keys, *, batch):
    """`mc_dropout`, compiled once for all tests."""
    graph, weights = nnx.split(net)
    return _draw(weights, x, keys, graph, batch)


def keys(n, seed=0):
    return jax.random.split(jax.random.key(seed), n)


def test_an_untrained_network_answers_the_middle_of_the_box(x):
    unit = network()(x)
    assert unit.shape == (6, 21)
    assert np.abs(unit - 0.5).max() < 0.1
    assert np.abs(grown()(x) - 0.5).max() > 0.1  # the comparison can see a large head


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "silu", "tanh"])
def test_answers_stay_inside_the_cube_even_for_absurd_covariates(x, activation):
    unit = np.asarray(grown(activation=activation)(1e6 * x), dtype=float)
    assert np.all((unit > 0) & (unit < 1))
    assert unit.min() >= EDGE / 2
    assert unit.max() <= 1 - EDGE / 2


def test_without_keys_the_network_is_deterministic_and_ignores_dropout(x):
    net = grown()
    np.testing.assert_array_equal(net(x), net(x))
    np.testing.assert_array_equal(net(x), grown(dropout=0.0)(x))


def test_one_draw_is_one_network_sites_with_equal_covariates_agree(x):
    twins = jnp.concatenate([x, x])
    draws = draw(grown(), twins, keys(16), batch=5)
    np.testing.assert_array_equal(draws[:, :6], draws[:, 6:])
    own_masks = grown()(twins, rngs=nnx.Rngs(dropout=0), training=True)
    assert not np.array_equal(own_masks[:6], own_masks[6:])  # what a mask per row would look like


def test_a_site_gets_the_same_draws_in_any_company(x):
    draws = draw(grown(), x, keys(16), batch=16)
    alone = draw(grown(), x[2:3], keys(16), batch=16)
    np.testing.assert_allclose(alone[:, 0], draws[:, 2], rtol=1e-5)  # float32, another order of sums


def test_equal_keys_give_equal_draws_and_different_keys_different_ones(x):
    draws = np.asarray(draw(grown(), x, keys(16), batch=16))
    np.testing.assert_array_equal(draws, draw(grown(), x, keys(16), batch=16))
    assert len(np.unique(draws[:, 0, 0])) == 16
    assert not np.array_equal(draws, draw(grown(), x, keys(16, seed=1), batch=16))


def test_hidden_layers_drop_different_units():
    """Two layers of one width must not share a mask: a mask drawn twice from one key would halve the randomness."""
    net = nnx.clone(network(width=64, depth=2, dropout=0.5, activation="leaky_relu"))
    for layer in net.hidden:  # the first layer passes ones on; the second passes each unit on to itself
        layer.linear.bias[...] = jnp.zeros_like(layer.linear.bias[...])
    net.hidden[0].linear.kernel[...] = jnp.ones_like(net.hidden[0].linear.kernel[...])
    net.hidden[1].linear.kernel[...] = jnp.eye(64, dtype=jnp.float32)
    net.head.kernel[...] = jnp.full_like(net.head.kernel[...], 1e-3)
    net.head.bias[...] = jnp.zeros_like(net.head.bias[...])
    unit = np.asarray(draw(net, jnp.ones((1, 5), jnp.float32), keys(400), batch=400), float)[:, 0, 0]
    alive = np.log(unit / (1 - unit)) / (1e-3 * 5 * 4)  # units that survived both masks
    # independent masks: a quarter of 64 units survive; a shared mask would leave half
    z = (alive.mean() - 16) / np.sqrt(64 * 0.25 * 0.75 / 400)
    assert abs(z) < stats.norm.isf(FALSE_ALARM / 2)
    assert (32 - 16) / np.sqrt(64 * 0.25 * 0.75 / 400) > stats.norm.isf(FALSE_ALARM / 2)


def test_draws_centre_on_the_deterministic_answer(x):
    """Dropout scales up what it keeps. With one hidden layer the logit is linear in the mask, so its mean is exact."""
    net = grown(depth=1)
    unit = np.asarray(draw(net, x, keys(400), batch=400), float)
    logit, centre = np.log(unit / (1 - unit)), np.asarray(net(x), float)
    z = (logit.mean(axis=0) - np.log(centre / (1 - centre))) / (logit.std(axis=0) / np.sqrt(400))
    limit = stats.norm.isf(FALSE_ALARM / 2 / z.size)
    assert np.abs(z).max() < limit
    unscaled = 0.7 * logit.mean(axis=0)  # what forgetting the scale, 1 / (1 − rate), would do to small logits
    assert np.abs((unscaled - logit.mean(axis=0)) / (logit.std(axis=0) / np.sqrt(400))).max() > limit


def test_draws_do_not_depend_on_the_global_precision(x):
    here = draw(grown(), x, keys(16), batch=16)
    with jax.enable_x64(True):
        there = draw(grown(), jnp.asarray(np.asarray(x)), keys(16), batch=16)
    assert there.dtype == jnp.float32
    np.testing.assert_array_equal(here, there)


def test_temperature_cools_the_answers(x):
    warm, cool = grown()(x), grown(learn_temperature=True)(x)
    assert np.abs(cool - 0.5).max() < np.abs(warm - 0.5).max() / 5  # logits are divided by 10 to 109


def test_hidden_categories_become_unknown_and_numbers_stay():
    x = jnp.concatenate([jnp.full((1000, 2), 3.0), jnp.tile(jnp.array([0.0, 1.0, 0.0]), (1000, 1))], axis=1)
    hidden = np.asarray(hide_categories(x, jax.random.key(0), ((2, 5),), 0.25))
    np.testing.assert_array_equal(hidden[:, :2], 3.0)
    np.testing.assert_array_equal(hidden[:, 2:].sum(axis=1), 1.0)
    np.testing.assert_array_equal(hidden[:, 2], 0.0)
    z = (hidden[:, 4].mean() - 0.25) / np.sqrt(0.25 * 0.75 / 1000)
    assert abs(z) < stats.norm.isf(FALSE_ALARM / 2)
    np.testing.assert_array_equal(hide_categories(x, jax.random.key(0), ((2, 5),), 0.0), x)
