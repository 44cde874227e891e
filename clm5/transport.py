"""Vertical mixing of litter and soil carbon by animals and frost: conductances between layers (model.md §4, V).

Within a month the diffusivity is all bioturbation (`diffus`) or all cryoturbation (`cryo`) times a shape that depends
on the site alone, and the harmonic mean is homogeneous, so the annual mean is linear in the two parameters:
conductance = diffus · bio + cryo · cryo_shape. The shapes are made once per site (`clm5.geometry`), by functions that
take NumPy and JAX arrays alike, with any leading axes.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from clm5._arrays import AnyArray
from clm5._layers import Layers, PerColumn, from_layer_above
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

    from_above: Layers  # 0 in the first layer
    from_below: Layers  # 0 in the last layer


class MixingShape(NamedTuple):
    """What a site alone says of its mixing, annual means per layer j at its lower face, NumPy or JAX.

    Layers are last where it is made and first where it is used.
    """

    bio: Float[AnyArray, "..."]  # conductance per unit of diffus, m⁻¹
    cryo: Float[AnyArray, "..."]  # conductance per unit of cryo, m⁻¹
    background: Float[AnyArray, "..."]  # published rules: conductance of their "no transport", m yr⁻¹
    upwind: Float[AnyArray, "..."]  # the same times Patankar's power law, for the layer below
    below_bedrock: Float[AnyArray, "..."]  # published rules: 1 in layers at or below bedrock, else 0


def bedrock_position(bedrock_layer: Float[AnyArray, "*column month"], rules: str) -> Int[AnyArray, "*column"]:
    """The 1-based layer number of bedrock; above 20 counts as 20, and below 1 as 1 under conservative rules."""
    xp = bedrock_layer.__array_namespace__()
    lowest = 1 if rules == "conservative" else 0
    first = bedrock_layer[..., 0]
    return xp.clip(xp.where(xp.isnan(first), lowest, first).astype(int), lowest, N_LAYERS)


def cryoturbation_shape(
    active_layer: Float[AnyArray, "*#column"], bedrock: Int[AnyArray, "*#column"], rules: str
) -> Float[AnyArray, "*column face"]:
    """Diffusivity of a permafrost month at interfaces 0 … 20 as a multiple of `cryo`, dimensionless.

    Whole above the base of the active layer (m), tapering to zero at z_end, none below bedrock. z_end = min(3 m,
    interface at bedrock); 3 m under rules "binn".
    """
    xp = active_layer.__array_namespace__()
    face = xp.asarray(_FACE, dtype=active_layer.dtype)
    z_end = MAX_CRYOTURBATION_DEPTH if rules == "binn" else xp.minimum(MAX_CRYOTURBATION_DEPTH, face[bedrock])
    z_end = xp.broadcast_to(z_end, active_layer.shape)[..., None]
    base = active_layer[..., None]
    span = z_end - base
    # (z_end − zᵢ) / span is the published 1 − (zᵢ − alt) / span, and exactly 0 at z_end in every precision
    taper = xp.where(span != 0, xp.maximum((z_end - face) / xp.where(span != 0, span, 1.0), 0.0), 0.0)
    return xp.where(_above_bedrock(bedrock), xp.where(face < base, 1.0, taper), 0.0).astype(active_layer.dtype)


def _above_bedrock(bedrock):
    return np.arange(N_LAYERS + 1) <= bedrock[..., None]


def conductance(diffusivity: Float[AnyArray, "*column face"]) -> Float[AnyArray, "*column layer"]:
    """Distance-weighted harmonic mean of the diffusivity over the node distance, g[j] between layers j and j+1.

        g = 1 / ((1 − w) / D[j] + w / D[j+1]) / (z[j+1] − z[j]);   zero where either D is zero

    Source: Patankar 1980, as in CLM5.
    """
    xp = diffusivity.__array_namespace__()
    here, below = diffusivity[..., :-1], diffusivity[..., 1:]
    weight = xp.asarray(_WEIGHT, dtype=diffusivity.dtype)
    both = (here > 0) & (below > 0)
    mean = here * below / xp.where(both, (1.0 - weight) * below + weight * here, 1.0)
    return xp.where(both, mean, 0.0) / xp.asarray(_NODE_DISTANCE, dtype=diffusivity.dtype)


def _background(diffusivity: Float[AnyArray, "*column face"]) -> Float[AnyArray, "*column layer"]:
    """The published conductance where D is "zero" above, below, or on both sides of g[j]; 0 where it is not, m yr⁻¹.

    1e-30 m² day⁻¹ in place of a zero D: visible only where carbon decomposes by less than 1e-27 a year.
    """
    xp = diffusivity.__array_namespace__()
    weight = xp.asarray(_WEIGHT, dtype=diffusivity.dtype)
    no_upper, no_lower = diffusivity[..., :-1] <= 0, diffusivity[..., 1:] <= 0
    resistance = xp.where(no_upper, 1.0 - weight, 0.0) + xp.where(no_lower, weight, 0.0)
    present = no_upper | no_lower
    distance = xp.asarray(_NODE_DISTANCE, dtype=diffusivity.dtype)
    return xp.where(present, PUBLISHED_EPSILON / (xp.where(present, resistance, 1.0) * distance), 0.0)


def _power_law(epsilon_conductance: Float[AnyArray, "*column layer"]) -> Float[AnyArray, "*column layer"]:
    """Patankar's power-law factor (1 − Pe / 10)⁵ for the published advection of 1e-30 m day⁻¹; 1 where D is real."""
    xp = epsilon_conductance.__array_namespace__()
    present = epsilon_conductance > 0
    peclet = xp.where(present, PUBLISHED_EPSILON / xp.where(present, epsilon_conductance, 1.0), 0.0)
    return xp.maximum(1.0 - 0.1 * peclet, 0.0) ** 5


def mixing_shape(
    active_layer: Float[AnyArray, "*column month"], bedrock: Int[AnyArray, "*column"], rules: str
) -> MixingShape:
    """The annual means of a site, from the monthly active layer (m, the larger of this year's and last year's).

    0 < active layer ≤ 2 m: cryoturbation alone; deeper: bioturbation alone, the same at all depths above bedrock; none
    where frozen all through. Conservative rules let layers above bedrock exchange among themselves only, and have no
    background.
    """
    xp = active_layer.__array_namespace__()
    dtype = active_layer.dtype
    deep = active_layer > PERMAFROST_ACTIVE_LAYER
    shallow = (active_layer > 0) & ~deep
    share_deep = xp.mean(deep.astype(dtype), axis=-1)[..., None]
    share_frozen = xp.mean((~deep & ~shallow).astype(dtype), axis=-1)[..., None]
    whole = xp.asarray(_above_bedrock(bedrock), dtype=dtype)
    cryo_monthly = cryoturbation_shape(active_layer, bedrock[..., None], rules)

    def mean_of_shallow(monthly):
        return xp.mean(xp.where(shallow[..., None], monthly, 0.0), axis=-2)

    bio, cryo = share_deep * conductance(whole), mean_of_shallow(conductance(cryo_monthly))
    if rules == "conservative":
        exchanges = np.arange(N_LAYERS) <= bedrock[..., None] - 2
        none = xp.zeros_like(bio)
        return MixingShape(xp.where(exchanges, bio, 0.0), xp.where(exchanges, cryo, 0.0), none, none, none)

    def mean_of_background(of):
        without, with_animals = of(_background(xp.zeros_like(whole))), of(_background(whole))
        return share_frozen * without + share_deep * with_animals + mean_of_shallow(of(_background(cryo_monthly)))

    return MixingShape(
        bio,
        cryo,
        mean_of_background(lambda background: background),
        mean_of_background(lambda background: background * _power_law(background)),
        xp.asarray(np.arange(N_LAYERS) >= bedrock[..., None], dtype=dtype),
    )


def mixing(shape: MixingShape, diffus: PerColumn, cryo: PerColumn, rules: str) -> Mixing:
    """Annual-mean conductances of columns.

    Args:
        shape: what the sites say, layers along the first axis.
        diffus, cryo: diffusivities, m² yr⁻¹.
        rules: "conservative" lets layers above bedrock exchange among themselves only. The published rules exchange one
            layer further, where the lower conductance is set equal to the upper one and carbon is lost, and have a
            background transport of 1e-30 everywhere.
    """
    # where a shape is 0 no derivative goes through it: it may be larger than a number
    g = jnp.where(shape.bio > 0, diffus * shape.bio, 0.0) + jnp.where(shape.cryo > 0, cryo * shape.cryo, 0.0)
    if rules == "conservative":
        return Mixing(from_layer_above(g), g)
    plain, upwind = g + shape.background, g + shape.upwind
    from_above = from_layer_above(upwind + PUBLISHED_EPSILON)
    from_below = jnp.where(shape.below_bedrock > 0, from_layer_above(plain), upwind)
    return Mixing(from_above, from_below.at[-1].set(0.0))
