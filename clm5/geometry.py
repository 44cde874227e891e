"""What a site alone decides about its columns, made once per site and carried by `Forcing`: no parameter enters it."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from clm5._arrays import AnyArray
from clm5.grid import N_LAYERS, N_MONTHS
from clm5.litter import input_extent, is_frozen
from clm5.options import RULES
from clm5.transport import MixingShape, bedrock_position, mixing_shape

BLOCK = 1024  # sites

Rows = Float[AnyArray, "*column row layer"]


class Geometry(NamedTuple):
    """The site-only quantities of one rule set, each (*column, layer); all NaN for a site that it cannot use."""

    input_extent: Float[AnyArray, "*column layer"]  # m, see clm5.litter
    mixing: MixingShape


def n_rows(rules: str) -> int:
    """How many arrays `Geometry` has under a rule set: conservative rules read the first three."""
    return 3 if rules == "conservative" else 6


def geometry_rows(
    active_layer_depth: Float[AnyArray, "*column month"],
    last_year: Float[AnyArray, "*column month"],
    bedrock_layer: Float[AnyArray, "*column month"],
) -> dict[str, Rows]:
    """The rows of every rule set, in the dtype and of the kind (NumPy, JAX, traced) of the active layer's depth."""
    fields = (active_layer_depth, last_year, bedrock_layer)
    if any(isinstance(field, jax.core.Tracer) for field in fields):
        depth, last_year, bedrock_layer = (jnp.asarray(field) for field in fields)
        return {rules: _rows(depth, last_year, bedrock_layer, rules) for rules in RULES}
    # NumPy compiles nothing, and leaves the global precision alone
    depth, last, bedrock = (np.asarray(field) for field in fields)
    dtype = depth.dtype if np.issubdtype(depth.dtype, np.floating) else np.dtype(float)
    rows = {rules: _rows_of_stack(depth.astype(dtype), last.astype(dtype), bedrock, rules) for rules in RULES}
    if not isinstance(active_layer_depth, jax.Array):
        return rows
    with jax.enable_x64(dtype == np.float64):
        return {rules: jax.device_put(array, active_layer_depth.sharding) for rules, array in rows.items()}


def of_rules(rows: dict[str, Rows], rules: str) -> Geometry:
    """The geometry of a rule set, from what `geometry_rows` returned."""
    found = [rows[rules][..., row, :] for row in range(n_rows(rules))]
    unused = [jnp.zeros_like(found[0])] * (1 + len(MixingShape._fields) - len(found))
    return Geometry(found[0], MixingShape(*found[1:], *unused))


def _rows_of_stack(active_layer_depth, last_year, bedrock_layer, rules: str):
    """As `_rows`, for NumPy arrays with any leading axes, a block at a time: a site has 252 monthly values."""
    stack = active_layer_depth.shape[:-1]
    flat = [x.reshape(-1, N_MONTHS) for x in (active_layer_depth, last_year, bedrock_layer)]
    rows = np.empty((len(flat[0]), n_rows(rules), N_LAYERS), active_layer_depth.dtype)
    for start in range(0, len(rows), BLOCK):
        part = slice(start, start + BLOCK)
        rows[part] = _rows(*(x[part] for x in flat), rules)
    return rows.reshape(*stack, *rows.shape[1:])


def _rows(active_layer_depth, last_year, bedrock_layer, rules: str):
    xp = active_layer_depth.__array_namespace__()
    dtype = active_layer_depth.dtype
    bedrock = bedrock_position(bedrock_layer, rules)
    shape = mixing_shape(xp.maximum(active_layer_depth, last_year), bedrock, rules)
    extent = input_extent(is_frozen(active_layer_depth, last_year, rules), bedrock, rules)
    rows = [xp.broadcast_to(extent, shape.bio.shape), *shape][: n_rows(rules)]
    usable = ~xp.isnan(xp.sum(active_layer_depth + last_year, axis=-1) + xp.sum(bedrock_layer, axis=-1))
    if rules == "proda":
        usable = usable & (bedrock_layer[..., 0] <= N_LAYERS)
    return xp.where(usable[..., None, None], xp.stack(rows, axis=-2), xp.nan).astype(dtype)
