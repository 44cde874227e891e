"""What the environment does to decomposition: temperature, water and depth modifiers of one column (model.md §4).

Oxygen and nitrogen scalars come with the forcing. Two parameters have floors, because at exactly 0 nothing would ever
decompose and no steady state exists; below the floor the column is that of the floor and the gradient is 0.
"""

import functools
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Float

from clm5._layers import Layers, PerColumn, per_layer
from clm5.grid import N_MONTHS, NODE

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
    return jnp.exp((jnp.log(q10) / 10.0) * (temperature - T_REF))


def water_modifier(
    water_scalar: Float[Array, "*#shape"], w_scaling: Float[Array, "*#shape"]
) -> Float[Array, "*#shape"]:
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
    fields = (forcing.soil_temperature, forcing.water_scalar, forcing.oxygen_scalar, forcing.nitrogen_scalar)
    return Climate(*_climate(*map(jnp.asarray, fields), q10[..., None, None], w_scaling[..., None, None]))


@jax.custom_jvp
def _climate(temperature, water, oxygen, nitrogen, q10, w_scaling):
    monthly = temperature_scalar(temperature, q10) * water_modifier(water, w_scaling) * oxygen
    return _monthly_means(monthly, monthly * nitrogen)


@functools.partial(_climate.defjvp, symbolic_zeros=True)
def _climate_jvp(primals, tangents):
    """In the parameters alone, in one pass over the months: derivatives of the means, never of the 240 values."""
    temperature, water, oxygen, nitrogen, q10, w_scaling = primals
    *of_forcing, dq10, dw_scaling = tangents
    if any(not isinstance(tangent, SymbolicZero) for tangent in of_forcing):
        plain = tuple(jnp.zeros(t.shape, t.dtype) if isinstance(t, SymbolicZero) else t for t in tangents)
        return jax.jvp(_climate.fun, primals, plain)
    warm, wet = temperature_scalar(temperature, q10), water_modifier(water, w_scaling)
    monthly = warm * wet * oxygen
    per_water = warm * jnp.where(w_scaling * water < 1.0, water, 0.0) * oxygen
    each = (monthly, monthly * (temperature - T_REF), per_water)
    dq10, dw_scaling = (0.0 if isinstance(t, SymbolicZero) else t[..., 0] for t in (dq10, dw_scaling))
    dlog_q10 = dq10 / (10.0 * q10[..., 0])
    dw_scaling = jnp.where(w_scaling[..., 0] >= W_SCALING_FLOOR, dw_scaling, 0.0)
    means, slopes = [], []
    for mean, by_q10, by_water in (_monthly_means(*each), _monthly_means(*(x * nitrogen for x in each))):
        means.append(mean)
        slopes.append(by_q10 * dlog_q10 + by_water * dw_scaling)
    return tuple(means), tuple(slopes)


@jax.custom_jvp
def _monthly_means(*monthly: Float[Array, "*#column layer month"]) -> tuple[Float[Array, "*column layer"], ...]:
    """Means over the last axis of several arrays in one pass: a `reduce` of many operands, which has no derivative."""
    monthly = tuple(jnp.broadcast_arrays(*monthly))

    def add(left, right):
        return tuple(a + b for a, b in zip(left, right, strict=True))

    zeros = tuple(np.zeros((), x.dtype) for x in monthly)
    return tuple(x / N_MONTHS for x in jax.lax.reduce(monthly, zeros, add, [monthly[0].ndim - 1]))


@_monthly_means.defjvp
def _monthly_means_jvp(primals, tangents):
    shape = jnp.broadcast_shapes(*(x.shape for x in primals))
    return _monthly_means(*primals), tuple(jnp.mean(jnp.broadcast_to(t, shape), axis=-1) for t in tangents)
