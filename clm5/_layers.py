"""Arrays with layers along the first axis and columns along the others: (layer, *column), (layer,) for one column."""

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

Layers = Float[Array, "layer *#column"]  # column axes broadcast against each other
PerColumn = Float[Array, "*#column"]


def per_layer(values: ArrayLike, like: PerColumn) -> Layers:
    """Constants of the layers, shaped to broadcast against columns of the shape and dtype of `like`."""
    return jnp.asarray(values, like.dtype).reshape(-1, *(1,) * like.ndim)


def from_layer_above(x: Layers) -> Layers:
    """Entry j of the result is entry j − 1; 0 enters at the top."""
    return jnp.concatenate([jnp.zeros_like(x[:1]), x[:-1]])


def from_layer_below(x: Layers) -> Layers:
    """Entry j of the result is entry j + 1; 0 enters at the bottom."""
    return jnp.concatenate([x[1:], jnp.zeros_like(x[:1])])
