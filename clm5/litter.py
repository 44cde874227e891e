"""Where plant carbon enters the soil: the vertical distribution of litter input (model.md §4, Input)."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from clm5._arrays import AnyArray
from clm5._layers import Layers, PerColumn, per_layer
from clm5.grid import DEPTH, INTERFACE, N_LAYERS

TOP = np.concatenate([[0.0], INTERFACE[:-1]])  # m, upper face of each layer


def is_frozen(
    active_layer_depth: Float[AnyArray, "*column month"], last_year: Float[AnyArray, "*column month"], rules: str
) -> Bool[AnyArray, "*column"]:
    """Whether a column counts as frozen, which puts all its carbon input into layer 0.

    conservative: no active layer in any month, this year or last. proda: not all months of last year's active layer
    above 0. binn: their mean not above 0.
    """
    xp = last_year.__array_namespace__()
    if rules == "proda":
        return ~xp.all(last_year > 0, axis=-1)
    if rules == "binn":
        return xp.mean(last_year, axis=-1) <= 0
    return xp.all(xp.maximum(active_layer_depth, last_year) <= 0, axis=-1)


def input_extent(
    frozen: Bool[AnyArray, "*column"], bedrock: Int[AnyArray, "*column"], rules: str
) -> Float[AnyArray, "*column layer"]:
    """How far down from its upper face a layer takes up carbon input, m; 0 where it gets none.

    Its thickness; where frozen, the top layer takes up all. Under conservative rules what would enter below bedrock
    enters the deepest soil layer, as CTSM moves it.
    """
    xp = bedrock.__array_namespace__()
    layer = np.arange(N_LAYERS)
    extent = np.diff(INTERFACE, prepend=0.0)
    if rules == "conservative":
        position = bedrock[..., None]
        extent = xp.where(layer == position - 1, DEPTH - TOP, xp.where(layer < position, extent, 0.0))
    return xp.where(frozen[..., None], np.where(layer == 0, DEPTH, 0.0), extent)


def input_share(extent: Layers, beta: PerColumn) -> tuple[Layers, Layers]:
    """The share v of the carbon input that enters each layer as a pair, v = exp(first) · second; second is in [0, 1].

        v_j = (beta^(100 z) − beta^(100 (z + extent_j))) / (1 − beta^(100 · 8.6)),   z the upper face in m, beta per cm

    As a pair, because v leaves float32 (and K with it, so that their ratio matters) well inside the prior box.

    Source: Jackson et al. 1996.
    """
    per_metre = 100.0 * jnp.log(beta)
    return per_layer(TOP, beta) * per_metre, jnp.expm1(extent * per_metre) / jnp.expm1(DEPTH * per_metre)
