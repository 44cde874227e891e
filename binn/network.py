"""The network: site covariates in, the 21 soil-carbon parameters on the unit cube out (Flax nnx)."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Key, PRNGKeyArray

ACTIVATIONS: dict[str, Callable] = {
    "relu": nnx.relu,
    "leaky_relu": lambda x: nnx.leaky_relu(x, 0.3),  # the slope of the published network
    "silu": nnx.silu,
    "tanh": nnx.tanh,
}
EDGE = 1e-6  # outputs lie in [EDGE, 1 − EDGE]: some bounds are turnover times of 0, which nothing survives
COOLEST, HOTTEST = 10.0, 109.0  # the range of the published learnable temperature


class ParameterNetwork(nnx.Module):
    """A multilayer perceptron with dropout after every hidden layer, in float32 whatever the global precision.

    The head starts small, so that an untrained network answers about ½, the middle of the box, everywhere. With
    `learn_temperature`, logits are divided by a learned number between 10 and 109, as published.
    Source: Xu et al. (2025), BINN, without its batch norm and embeddings.
    """

    def __init__(
        self,
        n_in: int,
        n_out: int,
        *,
        width: int,
        depth: int,
        dropout: float,
        activation: str = "silu",
        learn_temperature: bool = False,
        rngs: nnx.Rngs,
    ):
        sizes = [n_in, *[width] * depth]
        pinned: dict[str, Any] = {"dtype": jnp.float32, "param_dtype": jnp.float32, "rngs": rngs}
        he = nnx.initializers.variance_scaling(2.0, "fan_in", "truncated_normal")
        small = nnx.initializers.variance_scaling(0.01, "fan_in", "truncated_normal")
        self.hidden = nnx.List([nnx.Linear(a, b, kernel_init=he, **pinned) for a, b in pairwise(sizes)])
        self.head = nnx.Linear(width, n_out, kernel_init=small, **pinned)
        self.temperature = nnx.Param(jnp.zeros((), jnp.float32)) if learn_temperature else None
        self.dropout = dropout
        self.activation = activation

    def __call__(
        self,
        x: Float[Array, "site covariate"],
        *,
        rngs: nnx.Rngs | None = None,
        one_mask: bool = True,
    ) -> Float[Array, "site parameter"]:
        """Unit parameters, in [1e-6, 1 − 1e-6]. Deterministic without `rngs`; with them, one dropout draw.

        `one_mask`: all sites share the mask, so that one draw is one network and equal covariates give equal answers,
        as a draw of a map needs. Without it every row has a mask of its own: the same law at every single site and
        a less noisy gradient, as training wants.
        """
        # built here, not stored: it holds no state, and a float32 rate draws the same mask with and without x64
        rate: Any = np.float32(self.dropout)
        drop = nnx.Dropout(rate, broadcast_dims=(0,) if one_mask else ())
        for layer in self.hidden:
            x = ACTIVATIONS[self.activation](layer(x))
            x = drop(x, deterministic=rngs is None, rngs=rngs)
        logits = self.head(x)
        if self.temperature is not None:
            logits = logits / (COOLEST + (HOTTEST - COOLEST) * nnx.sigmoid(self.temperature[...]))
        return EDGE + (1 - 2 * EDGE) * nnx.sigmoid(logits)


def mc_dropout(
    network: ParameterNetwork, x: Float[Array, "site covariate"], keys: Key[Array, " draw"], *, batch: int
) -> Float[Array, "draw site parameter"]:
    """One network per key, `batch` of them at a time: a spread to compare with a posterior, not a posterior.

    A mask depends on its key alone and not on the sites: a site gets the same draws in whatever company it is asked.
    """
    return jax.lax.map(lambda key: network(x, rngs=nnx.Rngs(dropout=key)), keys, batch_size=batch)


def hide_categories(
    x: Float[Array, "site covariate"], key: PRNGKeyArray, spans: tuple[tuple[int, int], ...], rate: float
) -> Float[Array, "site covariate"]:
    """Turn a share `rate` of the categories of `x` into "unknown", the last column of each span: how it is learned."""
    for number, (start, stop) in enumerate(spans):
        hidden = jax.random.bernoulli(jax.random.fold_in(key, number), np.float32(rate), (x.shape[0], 1))
        unknown = jnp.zeros((stop - start,), x.dtype).at[-1].set(1)
        x = x.at[:, start:stop].set(jnp.where(hidden, unknown, x[:, start:stop]))
    return x
