"""What a site alone decides about its columns, made once per site and carried by `Forcing`: no parameter enters it."""

import functools
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from clm5._arrays import AnyArray
from clm5._derive import derive
from clm5._layers import Layers
from clm5.grid import N_LAYERS, N_MONTHS
from clm5.litter import input_extent, is_frozen
from clm5.options import RULES
from clm5.transport import MixingShape, bedrock_position, mixing_shape

BLOCK = 1024  # sites

Values = Float[AnyArray, "*column value"]


class Geometry(NamedTuple):
    """The site-only quantities of one rule set, layers along the first axis; NaN for a site that it cannot use."""

    input_extent: Layers  # m, see clm5.litter
    mixing: MixingShape


def n_arrays(rules: str) -> int:
    """How many arrays `Geometry` has under a rule set: conservative rules read the first three."""
    return 3 if rules == "conservative" else 6


def site_geometry(
    active_layer_depth: Float[AnyArray, "*column month"],
    last_year: Float[AnyArray, "*column month"],
    bedrock_layer: Float[AnyArray, "*column month"],
) -> dict[str, Values]:
    """The arrays of every rule set's `Geometry` end to end, of the kind that the fields are (`clm5._derive`)."""
    fields = (active_layer_depth, last_year, bedrock_layer)
    return {rules: derive(functools.partial(_values_by_block, rules=rules), *fields) for rules in RULES}


def from_values(values: Float[Array, "value *#column"], rules: str) -> Geometry:
    """The geometry of a rule set, from what `site_geometry` returned with its last axis moved to the front."""
    extent, *mixing = values.reshape(n_arrays(rules), N_LAYERS, *values.shape[1:])
    unused = [jnp.zeros_like(extent)] * (len(MixingShape._fields) - len(mixing))
    return Geometry(extent, MixingShape(*mixing, *unused))


def _values_by_block(active_layer_depth, last_year, bedrock_layer, rules: str):
    """`_values`, for NumPy a block of columns at a time: a column has 252 monthly values on the way."""
    if not isinstance(active_layer_depth, np.ndarray):
        return _values(active_layer_depth, last_year, bedrock_layer, rules)
    stack = active_layer_depth.shape[:-1]
    depth, last, bedrock = (x.reshape(-1, N_MONTHS) for x in (active_layer_depth, last_year, bedrock_layer))
    values = np.empty((len(depth), n_arrays(rules) * N_LAYERS), depth.dtype)
    for start in range(0, len(values), BLOCK):
        part = slice(start, start + BLOCK)
        values[part] = _values(depth[part], last[part], bedrock[part], rules)
    return values.reshape(*stack, -1)


def _values(active_layer_depth, last_year, bedrock_layer, rules: str):
    xp = active_layer_depth.__array_namespace__()
    bedrock = bedrock_position(bedrock_layer, rules)
    shape = mixing_shape(xp.maximum(active_layer_depth, last_year), bedrock, rules)
    extent = input_extent(is_frozen(active_layer_depth, last_year, rules), bedrock, rules)
    values = xp.concat([xp.broadcast_to(extent, shape.bio.shape), *shape][: n_arrays(rules)], axis=-1)
    usable = ~xp.isnan(xp.sum(active_layer_depth + last_year, axis=-1) + xp.sum(bedrock_layer, axis=-1))
    if rules == "proda":
        usable = usable & (bedrock_layer[..., 0] <= N_LAYERS)
    return xp.where(usable[..., None], values, xp.nan).astype(active_layer_depth.dtype)
