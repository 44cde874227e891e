"""The six processes that the papers compare, residence times and stocks by depth (model.md §6)."""

import functools

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from clm5._pytree import pytree
from clm5.cascade import cascade
from clm5.column import SteadyState
from clm5.forcing import Forcing
from clm5.grid import INTERFACE, LITTER_POOLS, NODE, POOLS, THICKNESS
from clm5.modifiers import log_depth_scalar, temperature_scalar, water_modifier
from clm5.parameters import INDEX

PROCESSES = ("A", "K", "Xi", "V", "I", "carbon_input")
UNITS = {"A": "1", "K": "yr-1", "Xi": "1", "V": "yr-1", "I": "1", "carbon_input": "gC m-2 yr-1"}
LONG_NAMES = {
    "A": "carbon transfer efficiency",
    "K": "baseline decomposition",
    "Xi": "environmental modifier",
    "V": "vertical transport",
    "I": "carbon input allocation",
    "carbon_input": "plant carbon input",
}


@pytree
class Processes:
    """The six processes and what modellers ask beside them, each (...) over columns."""

    A: Float[Array, "*column"]  # carbon transfer efficiency, 1
    K: Float[Array, "*column"]  # baseline decomposition, yr⁻¹
    Xi: Float[Array, "*column"]  # environmental modifier, 1
    V: Float[Array, "*column"]  # vertical transport, yr⁻¹
    I: Float[Array, "*column"]  # carbon input allocation, 1 (per cm, like beta)  # noqa: E741
    carbon_input: Float[Array, "*column"]  # plant carbon input, gC m⁻² yr⁻¹: forcing, not inferred
    respiration: Float[Array, "*column"]  # heterotrophic respiration of the column, gC m⁻² yr⁻¹
    carbon_lost: Float[Array, "*column"]  # carbon_input − respiration, gC m⁻² yr⁻¹: what published rules lose (or make)
    residence_time: Float[Array, "*column"]  # soil carbon over carbon input, yr
    residence_time_by_layer: Float[Array, "*column layer"]  # soil carbon over respiration of the layer, yr
    stock_30cm: Float[Array, "*column"]  # gC m⁻²
    stock_100cm: Float[Array, "*column"]  # gC m⁻²
    stock_200cm: Float[Array, "*column"]  # gC m⁻²

    def stacked(self) -> Float[Array, "*column process"]:
        """The six along a last axis, in the order of `PROCESSES`."""
        return jnp.stack([getattr(self, name) for name in PROCESSES], axis=-1)


def processes(theta: Float[ArrayLike, "*batch parameter"], forcing: Forcing, state: SteadyState) -> Processes:
    """The six processes of columns at steady state.

        X_j = mean(r_T) · mean(r_W) · r_z          (no oxygen, no nitrogen)
        A   = Σ transfers · flows / Σ flows, the 8 transfers among litter1-3 and soil1-3, flow = Σ_j C X Δz / τ
        K   = Σ_p stock_p / τ_p / Σ_p stock_p      over soil1-3
        Xi  = Σ X S / Σ S                          S_j = SOC_j Δz_j
        V   = Σ V_jj S_j / Σ S_j                   V_jj the diagonal of the mixing matrix, yr⁻¹
        I   = mean over layers of exp(ln(1 − F_j) / (100 z_j)), F the cumulative input fraction

    In I, layers are left out where F rounds to 1 in float64, as in the published codes, whatever the precision here; 0
    where that leaves none (all carbon enters layer 0). Baseline decomposition is that of the text, not of the PyTorch
    code, which lost the thickness weights.

    Without any litter there is no carbon to average over, and all but carbon_input are NaN.

    Args:
        theta: physical parameters that `state` was simulated with.
        forcing: forcing that `state` was simulated with.
        state: result of `simulate`.
    """
    return _processes(jnp.asarray(theta), forcing, state)


@jax.jit
def _processes(theta, forcing: Forcing, state: SteadyState) -> Processes:
    dtype = state.pools.dtype
    thickness = jnp.asarray(THICKNESS, dtype)
    S = state.soc * thickness
    stock = jnp.sum(S, axis=-1)
    X = _environment_without_oxygen(theta, forcing)
    received = _received(theta)
    flow = jnp.sum(state.potential_decay[..., 1:, :] * (X * thickness)[..., None, :], axis=-1)  # (..., pool), no cwd
    of_soil = state.potential_decay[..., len(LITTER_POOLS) :, :] * thickness
    carbon_input = jnp.broadcast_to(jnp.sum(forcing.litter_input, axis=(-2, -1)), stock.shape).astype(dtype)
    respiration = jnp.sum(state.respiration, axis=-1)
    return Processes(
        A=jnp.sum(flow * received, axis=-1) / jnp.sum(flow, axis=-1),
        K=jnp.sum(of_soil, axis=(-2, -1)) / stock,
        Xi=jnp.sum(X * S, axis=-1) / stock,
        V=jnp.sum(state.mixing_rate * S, axis=-1) / stock,
        I=_input_allocation(state.input_fraction),
        carbon_input=carbon_input,
        respiration=respiration,
        carbon_lost=carbon_input - respiration,
        residence_time=stock / carbon_input,
        residence_time_by_layer=jnp.where(state.respiration > 0, _ratio(S, state.respiration), 0.0),
        stock_30cm=stock_above(state.soc, 0.3),
        stock_100cm=stock_above(state.soc, 1.0),
        stock_200cm=stock_above(state.soc, 2.0),
    )


def _ratio(S, respiration):
    """S / respiration, inf where both are beyond the dtype."""
    return jnp.where(jnp.isinf(S), jnp.inf, S / jnp.where(respiration > 0, respiration, 1.0))


def stock_above(soc: Float[Array, "*column layer"], depth: float) -> Float[Array, "*column"]:
    """Soil carbon between the surface and `depth` (m), gC m⁻², counting part of the layer that holds it."""
    upper = jnp.asarray(INTERFACE - THICKNESS, soc.dtype)
    inside = jnp.clip(depth - upper, 0.0, jnp.asarray(THICKNESS, soc.dtype))
    return jnp.sum(jnp.where(inside > 0, soc * inside, 0.0), axis=-1)


@functools.partial(jnp.vectorize, signature="(p),(l,m),(l,m)->(l)")
def _environment_of_column(theta, temperature, water):
    warm = jnp.mean(temperature_scalar(temperature, theta[INDEX["q10"]]), axis=-1)
    wet = jnp.mean(water_modifier(water, theta[INDEX["w_scaling"]]), axis=-1)
    return warm * wet * jnp.exp(log_depth_scalar(theta[INDEX["efolding"]]))


def _environment_without_oxygen(theta, forcing: Forcing) -> Float[Array, "*column layer"]:
    return _environment_of_column(theta, jnp.asarray(forcing.soil_temperature), jnp.asarray(forcing.water_scalar))


@functools.partial(jnp.vectorize, signature="(p)->(k)")
def _received(theta: Float[Array, "parameter"]) -> Float[Array, "pool"]:
    """The share of each pool's decay, cwd left out, that arrives in another pool."""
    fraction = cascade(theta).fraction
    zero = jnp.zeros_like(theta[0])
    return jnp.stack([sum((f for (donor, _), f in fraction.items() if donor == pool), zero) for pool in POOLS[1:]])


def _input_allocation(share: Float[Array, "*column layer"]) -> Float[Array, "*column"]:
    from_bottom = jnp.flip(jnp.cumsum(jnp.flip(share, -1), axis=-1), -1)
    below = jnp.concatenate(
        [from_bottom[..., 1:], jnp.zeros_like(share[..., :1])], axis=-1
    )  # 1 − F, without cancellation
    counts = below > 2.0**-54
    log_rest = jnp.log(jnp.where(counts, below, 1.0)) / (100.0 * jnp.asarray(NODE, share.dtype))
    return jnp.sum(jnp.where(counts, jnp.exp(log_rest), 0.0), axis=-1) / jnp.maximum(jnp.sum(counts, axis=-1), 1)
