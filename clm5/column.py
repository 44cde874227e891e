"""The soil column at steady state: 21 parameters and a year of forcing → carbon in 7 pools and 20 layers."""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Real

from clm5._blocks import in_blocks, over_devices
from clm5._layers import Layers, PerColumn, per_layer
from clm5._pytree import pytree
from clm5._saturating import saturating
from clm5.cascade import TURNOVER, Cascade, by_name, cascade
from clm5.elimination import Rates, largest
from clm5.forcing import Forcing
from clm5.geometry import Geometry, from_values
from clm5.grid import LITTER_POOLS, N_LAYERS, POOLS, SOIL_POOLS, THICKNESS
from clm5.litter import input_share
from clm5.modifiers import Climate, climate, log_depth_scalar
from clm5.options import RULES
from clm5.parameters import INDEX, NAMES
from clm5.solver import Solution, steady_state
from clm5.transport import Mixing, mixing


@pytree
class SteadyState:
    """Carbon at steady state of one column, or of a stack of them along leading axes.

    What its dtype cannot hold is inf: in float32 common in deep layers that neither mix nor decompose, with an
    e-folding depth of 0.1 m and less. So is, in any dtype, the carbon of layers that nothing decomposes. Otherwise
    float64 holds the whole prior box of both bounds.
    """

    soc: Float[Array, "*column layer"]  # soil organic carbon, soil1 + soil2 + soil3, gC m⁻³
    pools: Float[Array, "*column pool layer"]  # gC m⁻³, in the order of clm5.grid.POOLS
    potential_decay: Float[Array, "*column pool layer"]  # pool / turnover time, gC m⁻³ yr⁻¹; exact also at turnover 0
    respiration: Float[Array, "*column layer"]  # heterotrophic respiration, gC m⁻² yr⁻¹
    input_fraction: Float[Array, "*column layer"]  # share of the carbon input that enters the layer
    mixing_rate: Float[Array, "*column layer"]  # diagonal of V, yr⁻¹

    @property
    def stock(self) -> Float[Array, "*column"]:
        """Soil organic carbon of the whole column, 0 to 8.6 m, gC m⁻²."""
        return jnp.sum(self.soc * jnp.asarray(THICKNESS, self.pools.dtype), axis=-1)


LARGEST_SOURCE, LARGEST_UNIT = 30.0, 45.0  # natural logarithms, float32: 1e13 and 3e19 gC m⁻³

Overflow = Bool[Array, "layer *#column"]


def simulate(theta: Real[ArrayLike, "*batch parameter"], forcing: Forcing, rules: str = "conservative") -> SteadyState:
    """Steady state of soil columns.

    Args:
        theta: physical parameter values in the order and units of `clm5.PARAMETERS`. Zero turnover times are exact
            limits; efolding and w_scaling have floors (`clm5.modifiers`).
        forcing: what the columns receive. Leading axes of theta and forcing broadcast.
        rules: "conservative" (default; carbon in = respiration out), or as published, "proda" or "binn" (model.md §7).

    Returns:
        `SteadyState` with the broadcast leading axes. Works under jit, vmap and grad, in the precision of the inputs.
        NaN in a column's parameters or forcing makes all of that column NaN.

    Raises:
        ValueError: for unknown rules, a theta without 21 entries, or, under rules "proda" and outside of jit, a bedrock
            layer above 20 (under jit the result is NaN).
    """
    if rules not in RULES:
        raise ValueError(f"simulate: rules must be one of {RULES}, got {rules!r}")
    theta = jnp.asarray(theta)
    theta = theta.astype(jnp.result_type(theta, float)) if not jnp.issubdtype(theta.dtype, jnp.floating) else theta
    if theta.ndim == 0 or theta.shape[-1] != len(NAMES):
        raise ValueError(f"simulate: theta's last axis must hold the {len(NAMES)} parameters, got shape {theta.shape}")
    if rules == "proda" and not isinstance(forcing.bedrock_layer, jax.core.Tracer):
        deepest = np.max(np.asarray(forcing.bedrock_layer), initial=0)
        if deepest > N_LAYERS:
            raise ValueError(
                f"simulate: rules 'proda' have no bedrock below layer {N_LAYERS}; found bedrock_layer {deepest:g}. "
                "Set it to 20, or use rules 'conservative' or 'binn', which do so."
            )
    return _simulate(theta, forcing, rules)


@functools.partial(jax.jit, static_argnames="rules")
def _simulate(theta, forcing: Forcing, rules: str) -> SteadyState:
    def on_devices(shards, theta, forcing):
        batch = jnp.broadcast_shapes(theta.shape[:-1], forcing.batch_shape)
        means = climate(forcing, *(theta[..., INDEX[name]] for name in ("q10", "w_scaling")))
        theta = jnp.broadcast_to(theta, (*batch, len(NAMES)))
        inputs = (theta, means, forcing.geometry[rules], forcing.annual_litter_input)
        return in_blocks(functools.partial(_solve, rules=rules), inputs, batch, shards)

    return over_devices(on_devices, theta, forcing, stacks=(theta, jnp.asarray(forcing.bedrock_layer)))


def _solve(inputs: tuple, rules: str) -> SteadyState:
    """`columns`, with columns along the first axes of inputs and results."""
    n_batch = inputs[0].ndim - 1
    first = jax.tree.map(functools.partial(_layers_first, n_batch=n_batch), inputs)
    # materialised as they will be read: otherwise every operation that reads them reads them across
    theta, means, geometry, annual_litter_input = jax.lax.optimization_barrier(first)
    return columns(theta, means, from_values(geometry, rules), annual_litter_input, rules)


def _layers_first(x: Float[Array, "*batch layer"], n_batch: int) -> Layers:
    """The last axis first, and leading axes that broadcast against a batch of `n_batch` axes."""
    x = jnp.moveaxis(x, -1, 0)
    return x.reshape(x.shape[0], *(1,) * (n_batch + 1 - x.ndim), *x.shape[1:])


def _columns_first(x, n_batch: int):
    n_own = x.ndim - n_batch
    return jnp.moveaxis(x, range(n_own), range(-n_own, 0))


def columns(
    theta: Float[Array, "21 *column"],
    means: Climate,
    geometry: Geometry,
    annual_litter_input: Float[Array, "litter *#column"],
    rules: str,
) -> SteadyState:
    """Steady state of columns, which lie along the last axes of everything: arithmetic then runs along columns.

    The unknown of every solve is potential decay, pool / turnover time: turnover times then appear only as factors of
    the mixing rates, and a turnover of 0 is no division by 0. In float32, every layer's equations are divided by the
    faster of its mixing and its decomposition, in logarithms, so that decomposition that leaves the range of the dtype
    with depth is divided out before it does, and a column's carbon has a unit in which its sources are in the dtype's
    range.
    """
    p = by_name(theta)
    flows = cascade(theta)
    annual = dict(zip(LITTER_POOLS, annual_litter_input, strict=True))  # gC m⁻² yr⁻¹
    thickness = per_layer(THICKNESS, p["beta"])
    mix = mixing(geometry.mixing, p["diffus"], p["cryo"], rules)
    mixing_rate = (mix.from_above + mix.from_below) / thickness
    log_depth = log_depth_scalar(p["efolding"])
    log_top, part = input_share(geometry.input_extent, p["beta"])
    rows = _rows(mix, log_depth, log_top, part, thickness)
    slowest = jax.lax.stop_gradient(jnp.minimum(means.litter, means.soil))
    nan_climate = jnp.isnan(slowest).any(axis=0)
    mixes, works, nan_climate = jax.lax.optimization_barrier((mixing_rate > 0, slowest > 0, nan_climate))
    steady = works | (mixes & (mixes & works).any(axis=0))  # decomposes, or exchanges with a layer that does
    modifier = Climate(*(jnp.where(steady, modifier, 1.0) for modifier in means))
    flux, potential, overflow = _litter(flows, annual, modifier.litter * rows.depth, rows)
    into = dict.fromkeys(SOIL_POOLS, jnp.zeros_like(rows.source))
    for (donor, receiver), fraction in flows.fraction.items():
        if donor in flux and receiver in into:
            into[receiver] += fraction * flux[donor]
    soil = _soil(flows, modifier.soil * rows.depth, rows, into)
    flux |= dict(zip(SOIL_POOLS, soil.flux, strict=True))
    potential |= dict(zip(SOIL_POOLS, soil.potential, strict=True))
    respired = sum(flows.respired[pool] * flux[pool] for pool in POOLS[1:])
    overflow = jax.lax.optimization_barrier(overflow | soil.overflow)
    # through mixing, every layer has a part in every other
    overflow = overflow | (mixes & (mixes & overflow).any(axis=0))
    overflow = overflow | (~steady & (mixes | (part > 0)) & (sum(annual.values()) > 0))
    unit = jnp.exp(rows.log_unit)
    held = {pool: _pool(flows.tau[pool], potential[pool], overflow, unit) for pool in POOLS[1:]}
    cwd = _cwd(annual["cwd"], means.soil, log_top - log_depth, part / thickness)
    held["cwd"] = _pool(flows.tau["cwd"], *cwd, jnp.ones_like(unit))  # never scaled
    half_scale = jnp.exp(0.5 * (rows.log_scale + rows.log_unit))
    state = {
        "soc": sum(held[pool].content for pool in SOIL_POOLS),
        "pools": jnp.stack([held[pool].content for pool in POOLS]),
        "potential_decay": jnp.stack([held[pool].potential for pool in POOLS]),
        "respiration": jnp.where(overflow, jnp.inf, respired * half_scale * half_scale * thickness),
        "input_fraction": jnp.exp(log_top) * part,
        "mixing_rate": mixing_rate,
    }
    # no NaN may hide behind a comparison
    usable = ~(jnp.isnan(theta).any(axis=0) | jnp.isnan(annual_litter_input).any(axis=0) | nan_climate)
    usable &= ~jnp.isnan(geometry.input_extent[0])
    return SteadyState(
        **{name: _columns_first(jnp.where(usable, x, jnp.nan), usable.ndim) for name, x in state.items()}
    )


class _Pool(NamedTuple):
    """One pool, inf where it is out of range."""

    content: Layers  # gC m⁻³
    potential: Layers  # gC m⁻³ yr⁻¹


def _pool(tau: PerColumn, potential: Layers, overflow: Overflow, unit: PerColumn) -> _Pool:
    """The content of a pool from its potential decay, which is in units of `unit` and at most `largest`."""
    most = largest(potential.dtype)
    # the derivative by tau is the potential: in float32 a loss would make it inf, and at 0 inf itself is not carbon
    held = potential if potential.dtype == jnp.float64 else jnp.where(tau > 0, potential, potential.clip(max=most))
    content = saturating(tau, potential.shape) * held * unit
    full = jnp.where(tau > 0, jnp.inf, 0.0)  # turnover 0 holds no carbon, ever
    infinite = overflow | (potential >= most)
    return _Pool(jnp.where(overflow, full, content), jnp.where(infinite, jnp.inf, potential * unit))


class _Litter(NamedTuple):
    flux: dict[str, Layers]  # per pool, see `Solution`
    potential: dict[str, Layers]
    overflow: Overflow


def _litter(flows: Cascade, annual: dict[str, PerColumn], decay: Layers, rows: "_Rows") -> "_Litter":
    """Potential decay and flux of litter1-3, gC m⁻³ yr⁻¹.

    All litter enters along one profile, and litter2 and litter3 have one turnover time: the three are multiples of two
    solutions, for an input of 1 gC m⁻² yr⁻¹ to a pool of either turnover time.
    """
    kinds = ("litter1", "litter2")
    turnover = jnp.stack([flows.tau[pool] for pool in kinds])
    rates = Rates(decay[:, None], ((jnp.zeros_like(turnover),),), (turnover,), rows.above[:, None], rows.below[:, None])
    unit = steady_state(rates, (jnp.broadcast_to(rows.source[:, None], (N_LAYERS, *turnover.shape)),))
    by_turnover = {TURNOVER[pool]: i for i, pool in enumerate(kinds)}
    flux, potential, overflow = {}, {}, jnp.zeros_like(rows.too_large)
    for pool in LITTER_POOLS[1:]:
        # where there is none, no derivative goes through it: it may be larger than a number
        woody = jnp.where(annual["cwd"] > 0, flows.fraction.get(("cwd", pool), 0.0) * annual["cwd"], 0.0)
        arrives = saturating(annual[pool] + woody, rows.source.shape)
        i = by_turnover[TURNOVER[pool]]
        flux[pool], potential[pool] = arrives * unit.flux[0][:, i], arrives * unit.potential[0][:, i]
        overflow = overflow | ((arrives > 0) & (unit.overflow[:, i] | rows.too_large))
    return _Litter(flux, potential, overflow)


def _soil(flows: Cascade, decay: Layers, rows: "_Rows", source: dict[str, Layers]) -> Solution:
    """Potential decay and flux of soil1-3, gC m⁻³ yr⁻¹."""
    nothing = jnp.zeros_like(flows.tau["soil1"])
    fraction = tuple(tuple(flows.fraction.get((a, b), nothing) for b in SOIL_POOLS) for a in SOIL_POOLS)
    turnover = tuple(flows.tau[pool] for pool in SOIL_POOLS)
    return steady_state(
        Rates(decay, fraction, turnover, rows.above, rows.below), tuple(source[pool] for pool in SOIL_POOLS)
    )


def _cwd(annual: PerColumn, modifier: Layers, log_share_per_depth: Layers, part: Layers) -> tuple[Layers, Overflow]:
    """Potential decay of cwd, gC m⁻³ yr⁻¹, and where it is out of range. It does not mix: what falls on a layer
    decomposes there.
    """
    share, too_large = _exp_within(log_share_per_depth, part > 0)
    arrives = annual * share * part
    holds = arrives < largest(arrives.dtype) * modifier
    overflow = (too_large | ~holds) & (arrives > 0)
    return jnp.where(overflow, 0.0, arrives / jnp.where(holds, modifier, 1.0)), overflow


class _Rows(NamedTuple):
    """What the equations of a layer are made of, per layer, all but the last three divided by exp(log_scale).

    `unit` is the unit of carbon of a column, in float32 what brings its largest source near the middle of the range.
    """

    source: Layers  # unit m⁻¹, per unit of carbon input
    depth: Layers  # the depth modifier
    above: Layers  # mixing rates, yr⁻¹
    below: Layers
    log_scale: Layers
    log_unit: PerColumn
    too_large: Overflow  # where the source had to be capped


def _rows(mix: Mixing, log_depth: Layers, log_top: Layers, part: Layers, thickness: Layers) -> _Rows:
    """Rows divided by the faster of mixing (yr⁻¹) and the depth modifier; in float64, which holds both, by nothing."""
    above, below = mix.from_above / thickness, mix.from_below / thickness
    if log_depth.dtype == jnp.float64:
        zero = jnp.zeros_like(log_depth)
        return _Rows(jnp.exp(log_top) * part / thickness, jnp.exp(log_depth), above, below, zero, zero[0], zero > 0)
    rate, limit = jax.lax.stop_gradient((above + below, log_depth))  # it cancels: no derivative goes through it
    mixes, receives = rate > 0, part > 0
    log_scale = jnp.where(mixes, jnp.maximum(jnp.log(jnp.where(mixes, rate, 1.0)), limit), limit)
    exponent = jnp.where(receives, log_top - log_scale, -jnp.inf)
    log_unit = jnp.clip(jax.lax.stop_gradient(exponent).max(axis=0) - LARGEST_SOURCE, 0.0, LARGEST_UNIT)
    share, too_large = _exp_within(log_top - log_scale - log_unit, receives)
    above, below = (jnp.where(g > 0, g * jnp.exp(jnp.where(g > 0, -log_scale, 0.0)), 0.0) for g in (above, below))
    return _Rows(
        share * part / thickness,
        jnp.exp(log_depth - log_scale),
        above,
        below,
        log_scale,
        log_unit,
        too_large,
    )


def _exp_within(exponent: Layers, receives: Overflow) -> tuple[Layers, Overflow]:
    """exp(exponent) where a layer receives carbon, kept finite, and where it had to be."""
    most = math.log(float(jnp.finfo(exponent.dtype).max)) - 16.0
    safe = jnp.where(receives, exponent, 0.0)
    return jnp.where(receives, jnp.exp(jnp.minimum(safe, most)), 0.0), receives & (safe > most)
