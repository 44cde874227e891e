"""The soil column at steady state: 21 parameters and a year of forcing → carbon in 7 pools and 20 layers."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Real

from clm5._pytree import pytree
from clm5.cascade import by_name, cascade
from clm5.forcing import Forcing
from clm5.grid import LITTER_POOLS, N_LAYERS, POOLS, SOIL_POOLS, THICKNESS
from clm5.litter import log_input_fraction
from clm5.modifiers import environment
from clm5.options import RULES
from clm5.parameters import NAMES
from clm5.solver import Layers, Rates, largest, steady_state
from clm5.transport import mixing


@pytree
class SteadyState:
    """Carbon at steady state of one column, or of a stack of them along leading axes.

    What its dtype cannot hold is inf (in float32 a pool, or pool / turnover, from about 1e31 on): common in float32 in
    deep layers that neither mix nor decompose, with an e-folding depth of 0.1 m and less. Float64 holds the whole prior
    box of both bounds.
    """

    pools: Float[Array, "*column pool layer"]  # gC m⁻³, in the order of clm5.grid.POOLS
    potential_decay: Float[Array, "*column pool layer"]  # pool / turnover time, gC m⁻³ yr⁻¹; exact also at turnover 0
    respiration: Float[Array, "*column layer"]  # heterotrophic respiration, gC m⁻² yr⁻¹
    input_fraction: Float[Array, "*column layer"]  # share of the carbon input that enters the layer
    mixing_rate: Float[Array, "*column layer"]  # diagonal of V, yr⁻¹

    @property
    def soc(self) -> Float[Array, "*column layer"]:
        """Soil organic carbon, soil1 + soil2 + soil3, gC m⁻³."""
        return jnp.sum(self.pools[..., len(LITTER_POOLS) :, :], axis=-2)

    @property
    def stock(self) -> Float[Array, "*column"]:
        """Soil organic carbon of the whole column, 0 to 8.6 m, gC m⁻²."""
        return jnp.sum(self.soc * jnp.asarray(THICKNESS, self.pools.dtype), axis=-1)


TURNOVER_FLOOR = (
    1e-15  # yr, added to turnover times where they multiply mixing: bounds pool / turnover at a turnover of 0
)

_SIGNATURE = "(p),(l,m),(l,m),(l,m),(l,m),(q,m),(m),(m),(m)->(k,l),(k,l),(l),(l),(l)"


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
    def one(theta, *fields):
        state = column(theta, _forcing_of(fields), rules)
        return state.pools, state.potential_decay, state.respiration, state.input_fraction, state.mixing_rate

    return SteadyState(*jnp.vectorize(one, signature=_SIGNATURE)(theta, *_fields_of(forcing)))


def _fields_of(forcing: Forcing) -> tuple:
    leaves = (
        forcing.soil_temperature,
        forcing.water_scalar,
        forcing.oxygen_scalar,
        forcing.nitrogen_scalar,
        forcing.litter_input,
        forcing.active_layer_depth,
        forcing.active_layer_depth_last_year,
        forcing.bedrock_layer,
    )
    return tuple(jnp.asarray(leaf) for leaf in leaves)


def _forcing_of(fields: tuple) -> Forcing:
    return Forcing(*fields)


def column(theta: Float[Array, "21"], forcing: Forcing, rules: str) -> SteadyState:
    """One soil column. See `simulate`.

    The unknown of every solve is potential decay, pool / turnover time: turnover times then appear only as factors of
    the mixing rates, and a turnover of 0 is no division by 0. Every layer's equations are divided by the faster of its
    mixing and its decomposition, in logarithms, so that decomposition that leaves the range of the dtype with depth is
    divided out before it does.
    """
    p = by_name(theta)
    flows = cascade(theta)
    env = environment(forcing, p["q10"], p["efolding"], p["w_scaling"])
    mix = mixing(forcing, p["diffus"], p["cryo"], rules)
    log_share = log_input_fraction(forcing, p["beta"], rules)
    receives = jnp.isfinite(log_share)
    annual = dict(zip(LITTER_POOLS, forcing.annual_litter_input, strict=True))  # gC m⁻² yr⁻¹
    thickness = jnp.asarray(THICKNESS, theta.dtype)
    mixing_rate = (mix.from_above + mix.from_below) / thickness

    log_scale = _log_scale(mixing_rate, env.log_depth)
    source, too_large = _exp_of_share(log_share - log_scale, receives)  # per gC m⁻² yr⁻¹ of input
    depth = jnp.exp(env.log_depth - log_scale)
    idle = ~receives & (mixing_rate <= 0)  # a layer that never sees carbon; nothing divides by its zero modifier
    decay = {"litter": jnp.where(idle, 1.0, env.litter) * depth, "soil": jnp.where(idle, 1.0, env.soil) * depth}
    above, below = _scaled(mix.from_above / thickness, log_scale), _scaled(mix.from_below / thickness, log_scale)

    def solve(pools: tuple[str, ...], kind: str, sources: list[Layers]) -> dict[str, Layers]:
        fraction = tuple(tuple(flows.fraction.get((a, b), jnp.zeros_like(p["beta"])) for b in pools) for a in pools)
        exchange = (tuple((flows.tau[pool] + TURNOVER_FLOOR) * g for pool in pools) for g in (above, below))
        return dict(zip(pools, steady_state(Rates(decay[kind], fraction, *exchange), tuple(sources)), strict=True))

    unknown: dict[str, Layers] = {}
    for pool in LITTER_POOLS[1:]:
        arrives = annual[pool] + flows.fraction.get(("cwd", pool), 0.0) * annual["cwd"]
        unknown |= solve((pool,), "litter", [arrives * source / thickness])
    from_litter = [jnp.zeros_like(source) for _ in SOIL_POOLS]
    for (donor, receiver), fraction in flows.fraction.items():
        if donor in unknown and receiver in SOIL_POOLS:
            from_litter[SOIL_POOLS.index(receiver)] += fraction * decay["litter"] * unknown[donor]
    unknown |= solve(SOIL_POOLS, "soil", from_litter)

    respired = sum(
        flows.respired[pool] * decay["litter" if pool in LITTER_POOLS else "soil"] * unknown[pool] for pool in POOLS[1:]
    )
    cwd_source, cwd_too_large = _exp_of_share(log_share - env.log_depth, receives)
    decomposes = receives & (env.soil > 0)
    cwd = annual["cwd"] * cwd_source / (jnp.where(decomposes, env.soil, 1.0) * thickness)
    unknown["cwd"] = jnp.where(decomposes, jnp.minimum(cwd, largest(theta.dtype)), 0.0)
    cwd_too_large |= receives & ~(env.soil > 0) & (annual["cwd"] > 0)

    potential = jnp.stack([unknown[pool] for pool in POOLS])
    overflow = _out_of_range(potential, cwd_too_large, too_large, mixing_rate > 0)
    tau = jnp.stack([flows.tau[pool] for pool in POOLS])[:, None]
    half_scale = jnp.exp(0.5 * log_scale)
    state = SteadyState(
        pools=jnp.where(overflow & (tau > 0), jnp.inf, tau * potential),
        potential_decay=jnp.where(overflow, jnp.inf, potential),
        respiration=jnp.where(overflow[1:].any(axis=0), jnp.inf, respired * half_scale * half_scale * thickness),
        input_fraction=jnp.where(receives, jnp.exp(log_share), 0.0),
        mixing_rate=mixing_rate,
    )
    usable = _usable(theta, forcing, rules)
    return jax.tree.map(lambda x: jnp.where(usable, x, jnp.nan), state)


def _usable(theta: Float[Array, "21"], forcing: Forcing, rules: str) -> Bool[Array, ""]:
    """No NaN anywhere that a comparison could hide it, and no bedrock that the rules do not know."""
    hidden = (theta, forcing.active_layer_depth, forcing.active_layer_depth_last_year, forcing.bedrock_layer)
    usable = ~jnp.any(jnp.stack([jnp.any(jnp.isnan(x)) for x in hidden]))
    if rules == "proda":
        usable &= forcing.bedrock_layer[0] <= N_LAYERS
    return usable


def _out_of_range(potential, cwd_too_large, too_large, mixes) -> Bool[Array, "pool layer"]:
    """Where a pool, or what feeds it, left the range of the dtype: through mixing, all of its column then did."""
    n_litter = len(LITTER_POOLS)
    overflow = (potential >= largest(potential.dtype)).at[0].max(cwd_too_large).at[1:].max(too_large)
    overflow = overflow.at[1:].max((overflow[1:] & mixes).any(axis=-1, keepdims=True))
    return overflow.at[n_litter:].max(overflow[1:n_litter].any(axis=0))  # litter feeds soil; cwd is passed on exactly


def _log_scale(mixing_rate: Layers, log_depth: Layers) -> Layers:
    """ln of the faster of mixing (yr⁻¹) and decomposition with depth. It cancels, so no derivative goes through it."""
    mixing_rate, log_depth = jax.lax.stop_gradient((mixing_rate, log_depth))
    mixes = mixing_rate > 0
    return jnp.where(mixes, jnp.maximum(jnp.log(jnp.where(mixes, mixing_rate, 1.0)), log_depth), log_depth)


def _scaled(rate: Layers, log_scale: Layers) -> Layers:
    """rate / exp(log_scale), 0 where the rate is 0, whatever the scale."""
    return jnp.where(rate > 0, rate * jnp.exp(jnp.where(rate > 0, -log_scale, 0.0)), 0.0)


def _exp_of_share(exponent: Layers, receives: Bool[Array, "layer"]) -> tuple[Layers, Bool[Array, "layer"]]:
    """exp(exponent) where a layer receives carbon, kept finite, and where it had to be."""
    limit = math.log(float(jnp.finfo(exponent.dtype).max)) - 16.0
    safe = jnp.where(receives, exponent, 0.0)
    return jnp.where(receives, jnp.exp(jnp.minimum(safe, limit)), 0.0), receives & (safe > limit)
