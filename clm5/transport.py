"""Vertical mixing of litter and soil carbon by animals and frost: conductances between layers (model.md §4, V).

Within a month the diffusivity is all bioturbation (`diffus`) or all cryoturbation (`cryo`) times a shape that depends
on the site alone, and the harmonic mean is homogeneous, so the annual mean is linear in the two parameters:
conductance = diffus · bio + cryo · cryo_shape, with the geometry computed once per site.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from clm5.forcing import Forcing
from clm5.grid import DAYS_PER_YEAR, INTERFACE_ALL, N_LAYERS, NODE_ALL

MAX_CRYOTURBATION_DEPTH = 3.0  # m, Koven et al. 2013
PERMAFROST_ACTIVE_LAYER = 2.0  # m: a deeper active layer counts as no permafrost

PUBLISHED_EPSILON = 1e-30 * DAYS_PER_YEAR  # m² yr⁻¹ and m yr⁻¹: what CLM and both codes put for "no transport"

_FACE = INTERFACE_ALL[: N_LAYERS + 1]  # positions of the diffusivity, j = 0 … 20
_NODE = NODE_ALL[: N_LAYERS + 1]
_NODE_DISTANCE = np.diff(_NODE)
_WEIGHT = (_NODE[1:] - _FACE[:-1]) / _NODE_DISTANCE  # w of the distance-weighted harmonic mean


class Mixing(NamedTuple):
    """Annual-mean conductances of one column, m yr⁻¹, per layer j: the off-diagonal rows of V times −Δz.

    Layer j changes by from_above[j] · (C[j−1] − C[j]) + from_below[j] · (C[j+1] − C[j]). Carbon is conserved where
    from_below[j] = from_above[j+1]; the published rules break that at bedrock.
    """

    from_above: Float[Array, "layer"]  # 0 in the first layer
    from_below: Float[Array, "layer"]  # 0 in the last layer


def bedrock_position(bedrock_layer: Float[Array, "month"], rules: str) -> Int[Array, ""]:
    """The 1-based layer number of bedrock; above 20 counts as 20, and below 1 as 1 under conservative rules."""
    lowest = 1 if rules == "conservative" else 0
    return jnp.clip(bedrock_layer[0].astype(int), lowest, N_LAYERS)


def diffusivity_shape(
    active_layer: Float[Array, ""], bedrock: Int[Array, ""], rules: str
) -> tuple[Float[Array, "face"], Float[Array, "face"]]:
    """One month's diffusivity at interfaces 0 … 20 as multiples of `diffus` and of `cryo`, dimensionless.

    0 < active layer ≤ 2 m: cryo, whole above the active layer's base and tapering to zero at z_end; deeper: diffus;
    none where frozen all through, none below bedrock. z_end = min(3 m, interface at bedrock); 3 m under rules "binn".
    """
    dtype = active_layer.dtype
    face = jnp.asarray(_FACE, dtype)
    if rules == "binn":
        z_end = jnp.asarray(MAX_CRYOTURBATION_DEPTH, dtype)
    else:
        z_end = jnp.minimum(MAX_CRYOTURBATION_DEPTH, face[bedrock])
    span = z_end - active_layer
    # (z_end − zᵢ) / span is the published 1 − (zᵢ − alt) / span, and exactly 0 at z_end in every precision
    taper = jnp.where(span != 0, jnp.maximum((z_end - face) / jnp.where(span != 0, span, 1.0), 0.0), 0.0)
    above_bedrock = jnp.arange(N_LAYERS + 1) <= bedrock
    permafrost = (active_layer > 0) & (active_layer <= PERMAFROST_ACTIVE_LAYER)
    cryo = jnp.where(permafrost & above_bedrock, jnp.where(face < active_layer, 1.0, taper), 0.0)
    bio = jnp.where((active_layer > PERMAFROST_ACTIVE_LAYER) & above_bedrock, 1.0, 0.0).astype(dtype)
    return bio, cryo.astype(dtype)


def conductance(diffusivity: Float[Array, "face"]) -> Float[Array, "layer"]:
    """Distance-weighted harmonic mean of the diffusivity over the node distance, g[j] between layers j and j+1.

        g = 1 / ((1 − w) / D[j] + w / D[j+1]) / (z[j+1] − z[j]);   zero where either D is zero

    Source: Patankar 1980, as in CLM5.
    """
    here, below = diffusivity[:-1], diffusivity[1:]
    weight = jnp.asarray(_WEIGHT, diffusivity.dtype)
    both = (here > 0) & (below > 0)
    mean = here * below / jnp.where(both, (1.0 - weight) * below + weight * here, 1.0)
    return jnp.where(both, mean, 0.0) / jnp.asarray(_NODE_DISTANCE, diffusivity.dtype)


def _epsilon_conductance(diffusivity: Float[Array, "face"]) -> Float[Array, "layer"]:
    """The published conductance where D is "zero" above, below, or on both sides of g[j]; 0 where it is not, m yr⁻¹.

    1e-30 m² day⁻¹ in place of a zero D: visible only where carbon decomposes by less than 1e-27 a year.
    """
    weight = jnp.asarray(_WEIGHT, diffusivity.dtype)
    no_upper, no_lower = diffusivity[:-1] <= 0, diffusivity[1:] <= 0
    resistance = jnp.where(no_upper, 1.0 - weight, 0.0) + jnp.where(no_lower, weight, 0.0)
    present = no_upper | no_lower
    distance = jnp.asarray(_NODE_DISTANCE, diffusivity.dtype)
    return jnp.where(present, PUBLISHED_EPSILON / (jnp.where(present, resistance, 1.0) * distance), 0.0)


def _power_law(epsilon_conductance: Float[Array, "*month layer"]) -> Float[Array, "*month layer"]:
    """Patankar's power-law factor (1 − Pe / 10)⁵ for the published advection of 1e-30 m day⁻¹; 1 where D is real."""
    present = epsilon_conductance > 0
    peclet = jnp.where(present, PUBLISHED_EPSILON / jnp.where(present, epsilon_conductance, 1.0), 0.0)
    return jnp.maximum(1.0 - 0.1 * peclet, 0.0) ** 5


def mixing(forcing: Forcing, diffus: Float[Array, ""], cryo: Float[Array, ""], rules: str) -> Mixing:
    """Annual-mean conductances of one column.

    Args:
        forcing: one column.
        diffus, cryo: diffusivities, m² yr⁻¹.
        rules: "conservative" lets layers above bedrock exchange among themselves only. The published rules exchange one
            layer further, where the lower conductance is set equal to the upper one and carbon is lost, and have a
            background transport of 1e-30 everywhere.
    """
    bedrock = bedrock_position(forcing.bedrock_layer, rules)
    active_layer = jnp.maximum(forcing.active_layer_depth, forcing.active_layer_depth_last_year)
    bio, cryo_shape = jax.vmap(lambda alt: diffusivity_shape(alt, bedrock, rules))(active_layer)
    g = diffus * jnp.mean(jax.vmap(conductance)(bio), axis=0) + cryo * jnp.mean(
        jax.vmap(conductance)(cryo_shape), axis=0
    )

    layer = jnp.arange(N_LAYERS)
    if rules == "conservative":
        exchange = jnp.where(layer <= bedrock - 2, g, 0.0)
        return Mixing(_from_above(exchange), exchange)

    background = jax.vmap(_epsilon_conductance)(bio + cryo_shape)  # either is positive where there is any diffusivity
    plain = g + jnp.mean(background, axis=0)
    upwind = g + jnp.mean(background * _power_law(background), axis=0)
    from_above = jnp.where(layer > 0, _from_above(upwind) + PUBLISHED_EPSILON, 0.0)
    from_below = jnp.where(layer < bedrock, upwind, _from_above(plain))
    return Mixing(from_above, jnp.where(layer < N_LAYERS - 1, from_below, 0.0))


def _from_above(conductance_below: Float[Array, "layer"]) -> Float[Array, "layer"]:
    """The conductance at each layer's upper face, from those at the lower faces."""
    return jnp.concatenate([jnp.zeros_like(conductance_below[:1]), conductance_below[:-1]])
