"""What the environment does to decomposition: temperature, water and depth modifiers of one column (model.md §4).

Oxygen and nitrogen scalars come with the forcing. Two parameters have floors, because at exactly 0 nothing would ever
decompose and no steady state exists; below the floor the column is that of the floor and the gradient is 0.
"""

from typing import TYPE_CHECKING, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from clm5._layers import Layers, PerColumn, per_layer
from clm5.grid import NODE

if TYPE_CHECKING:
    from clm5.forcing import Forcing

T_REF = 298.15  # K, where the temperature modifier is 1
EFOLDING_FLOOR = 0.0125  # m: exp(−8.03 / 0.0125) = 1e-279 is still a float64 number
W_SCALING_FLOOR = 1e-6  # dimensionless


def temperature_scalar(temperature: Float[Array, "*#shape"], q10: Float[Array, "*#shape"]) -> Float[Array, "*#shape"]:
    """Speed decomposition up as soil warms.

        r_T = q10 ** ((T − 298.15) / 10)

    Args:
        temperature: soil temperature, K.
        q10: rate increase per 10 K, dimensionless, above 0.

    Returns:
        Multiplier on the base rate, dimensionless, above 0; exactly 1 at 25 °C.

    Source:
        CLM5 technical note, Decomposition. The published two-branch form below 273.15 K is this function while the
        frozen q10 equals q10, as it does in both published codes. The tech note's normalisation (x 1.2186) is left
        out, as in PRODA and BINN.
    """
    return jnp.exp(jnp.log(q10) * ((temperature - T_REF) / 10.0))


def water_modifier(water_scalar: Float[Array, "*#shape"], w_scaling: Float[Array, "*#shape"]) -> Float[Array, "*#shape"]:
    """r_W = min(w_scaling · water_scalar, 1), dimensionless; w_scaling is floored at `W_SCALING_FLOOR`."""
    return jnp.minimum(jnp.maximum(w_scaling, W_SCALING_FLOOR) * water_scalar, 1.0)


def log_depth_scalar(efolding: PerColumn) -> Layers:
    """ln r_z = −z / efolding at the nodes, layers along the first axis; efolding (m) is floored at `EFOLDING_FLOOR`.

    Its logarithm, because r_z itself leaves float32 below about 0.1 m of e-folding depth.
    """
    return -per_layer(NODE, efolding) / jnp.maximum(efolding, EFOLDING_FLOOR)


class Climate(NamedTuple):
    """Monthly means that multiply decomposition, dimensionless, per layer, without the depth modifier."""

    soil: Float[Array, "*column layer"]  # mean of r_T r_W r_O: cwd and soil pools
    litter: Float[Array, "*column layer"]  # mean of r_T r_W r_O r_N: litter1-3


def climate(forcing: "Forcing", q10: PerColumn, w_scaling: PerColumn) -> Climate:
    """The modifiers of columns, averaged over the 12 months with equal weight, as published."""
    q10, w_scaling = q10[..., None, None], w_scaling[..., None, None]
    monthly = (
        temperature_scalar(forcing.soil_temperature, q10)
        * water_modifier(forcing.water_scalar, w_scaling)
        * forcing.oxygen_scalar
    )
    return Climate(soil=jnp.mean(monthly, axis=-1), litter=jnp.mean(monthly * forcing.nitrogen_scalar, axis=-1))
