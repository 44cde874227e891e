"""The same equations as readable 140 × 140 matrices, one column at a time: the reference that tests hold the solver to.

dC/dt = u + A K C − V C with the state C pool by pool (index = pool · 20 + layer), rates per day, months written out one
by one. Nothing here is shared with the structured solver beyond the tables of layers and parameters. Slow, and wrong by
any factor where (V − A K) is nearly singular: that is what the structured solver is for.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from clm5.cascade import TRANSFERS, TURNOVER, by_name
from clm5.forcing import Forcing
from clm5.grid import DAYS_PER_YEAR, INTERFACE_ALL, N_LAYERS, NODE_ALL, POOLS, THICKNESS
from clm5.modifiers import EFOLDING_FLOOR, W_SCALING_FLOOR

N_STATES = len(POOLS) * N_LAYERS
EPSILON = 1e-30  # m² day⁻¹ and m day⁻¹, what the published codes put for no transport


_FACE = INTERFACE_ALL[: N_LAYERS + 1]
_NODE = NODE_ALL[: N_LAYERS + 1]
_DISTANCE = np.diff(_NODE)
_W = (_NODE[1:] - _FACE[:-1]) / _DISTANCE


class Matrices(NamedTuple):
    """The linear system of one column: (V − A K) C = u."""

    A: Float[Array, "140 140"]  # transfers, −1 on the diagonal
    K: Float[Array, "140 140"]  # day⁻¹, diagonal
    V: Float[Array, "140 140"]  # day⁻¹, zero row sums
    u: Float[Array, "140"]  # gC m⁻³ day⁻¹


def matrices(theta: Float[Array, "21"], forcing: Forcing, rules: str) -> Matrices:
    """A, K, V and u of one column."""
    p = by_name(theta)
    return Matrices(_transfer(p), _turnover(p, forcing), _transport(p, forcing, rules), _input(p, forcing, rules))


def pools(theta: Float[Array, "21"], forcing: Forcing, rules: str) -> Float[Array, "pool layer"]:
    """Steady-state carbon of one column by an ordinary dense solve, gC m⁻³, in the order of `clm5.grid.POOLS`."""
    m = matrices(theta, forcing, rules)
    return jnp.linalg.solve(m.V - m.A @ m.K, m.u).reshape(len(POOLS), N_LAYERS)


def soc(theta: Float[Array, "21"], forcing: Forcing, rules: str) -> Float[Array, "layer"]:
    """Soil organic carbon of one column by an ordinary dense solve, gC m⁻³."""
    return pools(theta, forcing, rules)[4:].sum(axis=0)


def _transfer(p: dict) -> Float[Array, "140 140"]:
    between = jnp.zeros((len(POOLS), len(POOLS)))
    for donor, receiver, name in TRANSFERS:
        fraction = 1.0 - p["fcwdl2"] if name == "1 - fcwdl2" else p[name]
        between = between.at[POOLS.index(receiver), POOLS.index(donor)].set(fraction)
    return jnp.kron(between - jnp.eye(len(POOLS)), jnp.eye(N_LAYERS))


def _turnover(p: dict, forcing: Forcing) -> Float[Array, "140 140"]:
    temperature = p["q10"] ** ((forcing.soil_temperature - 298.15) / 10.0)
    water = jnp.minimum(jnp.maximum(p["w_scaling"], W_SCALING_FLOOR) * forcing.water_scalar, 1.0)
    depth = jnp.exp(-NODE_ALL[:N_LAYERS] / jnp.maximum(p["efolding"], EFOLDING_FLOOR))
    plain = jnp.mean(temperature * water * forcing.oxygen_scalar, axis=1) * depth
    with_nitrogen = jnp.mean(temperature * water * forcing.oxygen_scalar * forcing.nitrogen_scalar, axis=1) * depth
    rate = [
        (with_nitrogen if pool in ("litter1", "litter2", "litter3") else plain) / (DAYS_PER_YEAR * p[TURNOVER[pool]])
        for pool in POOLS
    ]
    return jnp.diag(jnp.concatenate(rate))


def _transport(p: dict, forcing: Forcing, rules: str) -> Float[Array, "140 140"]:
    active_layer = jnp.maximum(forcing.active_layer_depth, forcing.active_layer_depth_last_year)
    n = _bedrock(forcing, rules)
    rows = jnp.mean(jax.vmap(lambda alt: _transport_of_a_month(p, alt, n, rules))(active_layer), axis=0)
    mixes = jnp.diag(jnp.array([0.0] + [1.0] * (len(POOLS) - 1)))
    return jnp.kron(mixes, rows)


def _bedrock(forcing: Forcing, rules: str):
    n = jnp.minimum(forcing.bedrock_layer[0].astype(int), N_LAYERS)
    return jnp.maximum(n, 1) if rules == "conservative" else n


def _transport_of_a_month(p: dict, alt, n, rules: str) -> Float[Array, "layer layer"]:
    """V of a month with active layer `alt` (m) above bedrock `n`, day⁻¹: rows 1 … 3 of the recipe in model.md §4."""
    layer = jnp.arange(N_LAYERS)

    # 1. diffusivity at the interfaces, m² day⁻¹
    z_end = 3.0 if rules == "binn" else jnp.minimum(3.0, jnp.asarray(_FACE)[n])
    span = z_end - alt
    tapered = jnp.where(span == 0, 0.0, jnp.maximum(1.0 - (_FACE - alt) / jnp.where(span == 0, 1.0, span), 0.0))
    cryoturbation = p["cryo"] / DAYS_PER_YEAR * jnp.where(alt > _FACE, 1.0, tapered)
    bioturbation = p["diffus"] / DAYS_PER_YEAR * jnp.ones_like(_FACE)
    D = jnp.where((alt > 0) & (alt <= 2.0), cryoturbation, jnp.where(alt > 2.0, bioturbation, 0.0))
    D = jnp.where(jnp.arange(N_LAYERS + 1) <= n, D, 0.0)

    # 2. conductance between layers j and j + 1, m day⁻¹
    if rules == "conservative":
        both = (D[:-1] > 0) & (D[1:] > 0) & (layer + 1 <= n - 1)
        D = jnp.where(D > 0, D, 1.0)  # of no effect: `both` is False there
        g = jnp.where(both, 1.0 / ((1.0 - _W) / D[:-1] + _W / D[1:]) / _DISTANCE, 0.0)
        lower, upper = g, _from_above(g)
    else:
        D = jnp.where(D > 0, D, EPSILON)
        d = 1.0 / ((1.0 - _W) / D[:-1] + _W / D[1:]) / _DISTANCE
        g = d * jnp.maximum(0.0, 1.0 - 0.1 * EPSILON / d) ** 5  # Patankar's power law for an advection of 1e-30
        upper = jnp.where(layer > 0, _from_above(g) + EPSILON, 0.0)
        lower = jnp.where(layer < n, g, _from_above(d))  # at and below bedrock: the upper one
        lower = jnp.where(layer < N_LAYERS - 1, lower, 0.0)

    # 3. rows of V
    return (
        jnp.diag((upper + lower) / THICKNESS)
        - jnp.diag((upper / THICKNESS)[1:], -1)
        - jnp.diag((lower / THICKNESS)[:-1], 1)
    )


def _from_above(x):
    """Entry j of the result is entry j − 1; 0 enters at the top."""
    return jnp.concatenate([jnp.zeros(1), x[:-1]])


def _input(p: dict, forcing: Forcing, rules: str) -> Float[Array, "140"]:
    zi = np.concatenate([[0.0], INTERFACE_ALL[:N_LAYERS]])
    v = p["beta"] ** (100.0 * zi[:-1]) - p["beta"] ** (100.0 * zi[1:])
    v = v / jnp.sum(v)
    if rules == "conservative":
        n = _bedrock(forcing, rules)
        layer = jnp.arange(N_LAYERS)
        v = jnp.where(layer < n, v, 0.0) + jnp.where(layer == n - 1, jnp.sum(jnp.where(layer >= n, v, 0.0)), 0.0)
    last_year = forcing.active_layer_depth_last_year
    frozen = {
        "proda": jnp.any(last_year <= 0),
        "binn": jnp.mean(last_year) <= 0,
        "conservative": jnp.all(jnp.maximum(forcing.active_layer_depth, last_year) <= 0),
    }[rules]
    v = jnp.where(frozen, jnp.zeros(N_LAYERS).at[0].set(1.0), v)
    annual = forcing.litter_input.sum(axis=1)
    into_litter = [annual[pool] / DAYS_PER_YEAR * v / THICKNESS for pool in range(4)]
    return jnp.concatenate([*into_litter, jnp.zeros(3 * N_LAYERS)])


simulate_soc = jax.vmap(soc, in_axes=(0, 0, None))  # a stack of columns, for benchmarks
