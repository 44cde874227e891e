"""Learned curves of single numbers: hats add up to any broken line, and a network without hidden layers adds them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import binn
from binn.network import ParameterNetwork, hats

PLACES = np.linspace(-2.5, 2.5, 6)


def network(*, depth: int) -> ParameterNetwork:
    net = ParameterNetwork(
        5, 2, width=16, depth=depth, dropout=0.0, curves=6, rngs=nnx.Rngs(params=jax.random.key(0)),
    )  # fmt: skip
    net.head.kernel[...] = 30 * net.head.kernel[...]
    return net


def logits(net: ParameterNetwork, x: np.ndarray) -> np.ndarray:
    unit = np.asarray(net(jnp.asarray(x, jnp.float32)), float)
    return np.log(unit / (1 - unit))


def test_hats_interpolate_between_their_places_and_are_constant_beyond():
    values = np.array([0.3, -1.0, 2.0, 0.5, 0.0, 4.0])
    x = np.linspace(-4, 4, 101)
    found = np.asarray(hats(jnp.asarray(x, jnp.float32)[:, None], 6)) @ values
    np.testing.assert_allclose(found, np.interp(x, PLACES, values), atol=1e-5)


@pytest.mark.parametrize("depth", [0, 1])
def test_only_without_hidden_layers_every_number_adds_its_own_curve(depth):
    x = np.random.default_rng(0).normal(size=(40, 5))
    moved, other, both = x.copy(), x.copy(), x.copy()
    moved[:, 1] += 1
    other[:, 3] -= 1
    both[:, 1], both[:, 3] = moved[:, 1], other[:, 3]
    net = network(depth=depth)
    base = logits(net, x)
    np.testing.assert_array_less(1e-3, np.abs(logits(net, moved) - base).max())
    together = logits(net, both) - logits(net, moved) - logits(net, other) + base
    assert (np.abs(together).max() < 1e-4) == (depth == 0)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"curves": 1}, "curves must be 0, or at least 2"),
        ({"depth": 0, "dropout": 0.1}, "with depth 0 it must be 0"),
    ],
)
def test_what_means_nothing_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        binn.Config(**wrong)
