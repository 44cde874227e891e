"""The steady state of pools that mix between neighbouring layers, with its own adjoint.

The unknown is x[p][j], potential decay (content / turnover time) of pool p in layer j. For one litter pool (P = 1) or
the three soil pools (P = 3), each row of M x = source reads

    decay[j] · (x[p][j] − Σ_q fraction[q][p] x[q][j])
        + τ[p] · (above[j] · (x[p][j] − x[p][j−1]) + below[j] · (x[p][j] − x[p][j+1]))  =  source[p][j]

with turnover times τ and mixing rates above and below, all divided by any factor of the layer. M is an M-matrix.
Mixing alone has zero row sums, and with the weights w = (I − fractionᵀ)⁻¹ · 1 of the pools, M w = decay exactly. So
substitute x = w y: now every row is

    e y[i] + Σ_l R[i, l] (y[i] − y[l]) = source[i],      e = decay ≥ 0,   R ≥ 0,

which `clm5.elimination` solves to a few hundred roundings, however near M is to singular; so too the adjoint Mᵀ λ = g.
`jax.lax.custom_linear_solve` makes derivatives of any order, forward and reverse, from these solves, never through the
elimination; a gradient costs one more pair of sweeps, and makes N again rather than carry it through memory.

A pool of turnover time 0 does not mix: x = (what arrives) / decay, which only float64 can hold in every layer. In
narrower dtypes its unknown is the flux decay · x, and it is eliminated before the sweeps (`_around`).
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from clm5._layers import Layers, PerColumn, from_layer_above, from_layer_below
from clm5._saturating import saturating
from clm5.elimination import AtLayer, Couplings, Pools, Rates, largest, local_inverse, sweeps

LOUD = 2.0**50  # largest derivative of a loss by a potential decay that is solved for in narrow dtypes
LARGE = 2.0**48  # unit of what a pool of turnover time 0 holds per year


class Solution(NamedTuple):
    """The steady state of the pools of a system."""

    flux: Pools  # decay · potential: what a pool passes on or respires, in the units of the source
    potential: Pools  # content / turnover time, ≥ 0, at most `largest`
    overflow: Bool[Array, "layer *#column"]  # no steady state that the dtype can hold: potential and flux are 0 there


def steady_state(rates: Rates, source: Pools) -> Solution:
    """Potential decay of every pool and layer at which what arrives equals what leaves.

    Args:
        rates: the rows of the system, see `Rates`. Layers lie along the first axis; further axes are columns, and all
            arrays broadcast along them.
        source: carbon arriving from outside, ≥ 0, per pool an array of the full shape (layer, *column).

    Returns:
        `Solution`. What overflows is 0 here, and its derivatives by the rates are; those by the source are not.
    """
    fixed = jax.lax.stop_gradient(rates)
    top = largest(source[0].dtype)
    # without turnover time x = source / decay, which float64 holds; a narrower dtype must not form it
    at_once = None if source[0].dtype == jnp.float64 else tuple(t <= 0 for t in fixed.turnover)
    solve_all, transpose_solve_all = _direct(fixed) if at_once is None else _around(fixed, at_once)
    rates = jax.tree.map(lambda rate: saturating(rate, source[0].shape), rates)
    if at_once is not None:
        turnover = (jnp.where(t, LARGE, 1.0) * tau for t, tau in zip(at_once, rates.turnover, strict=True))
        rates = rates._replace(turnover=tuple(turnover))

    # A further unknown, which nothing else meets, tells where the solution overflows: as an auxiliary output of the
    # solve it would be batched wherever a derivative is, and `jax.jacfwd` would fail.
    def left_side(u):
        *pools, mark = u
        rows = _left_side(rates, *_flux_and_potential(rates, at_once, tuple(pools)))
        return (*rows, mark + 0.0 * rows[0])  # JAX asks that all right sides have a tangent, or none

    def solve(_, b):  # of tangents too, which may have either sign
        u = solve_all(b[:-1])
        held = u if at_once is None else [jnp.where(instant, 0.0, x) for instant, x in zip(at_once, u, strict=True)]
        overflow = functools.reduce(jnp.maximum, map(jnp.abs, held)) >= top
        return (*(jnp.where(overflow, 0.0, x) for x in u), overflow.astype(b[-1].dtype))

    def transpose_solve(_, g):
        *g, mark = g
        if at_once is None:
            return (*transpose_solve_all(tuple(g)), mark)
        # a loss says much of a column that holds little: the sweeps need room above it
        loud = functools.reduce(jnp.maximum, map(jnp.abs, g)).max(axis=0)
        unit = jnp.maximum(loud / LOUD, 1.0)
        adjoint = transpose_solve_all(tuple(x / unit for x in g))
        # a turnover time of centuries times the adjoint must not be inf where there is no carbon
        most = top * 2.0**-16
        return (*(jnp.clip(x * unit, -most, most) for x in adjoint), mark)

    nothing = jnp.minimum(sum(source), 0.0)  # gives every right side a tangent where one has it
    right_side = (*(x + nothing for x in source), nothing)
    *found, mark = jax.lax.custom_linear_solve(left_side, right_side, solve, transpose_solve)
    unknown, overflow = tuple(found), jax.lax.stop_gradient(mark) > 0
    flux, potential = _flux_and_potential(rates, at_once, unknown)
    if at_once is not None:
        potential = tuple(_potential(rates, *pool) for pool in zip(at_once, unknown, strict=True))
    return Solution(flux, potential, overflow)


def _potential(rates: Rates, instant: Bool[Array, "*#column"], unknown: Layers) -> Layers:
    """x, or where the unknown is a flux, flux / decay, at most `largest`; its derivative by decay is left out there."""
    top = largest(unknown.dtype)
    decay = jax.lax.stop_gradient(rates.decay)  # turnover time · derivative would be 0 · inf
    divides = instant & (unknown < top * decay)
    quotient = unknown / jnp.where(divides, decay, 1.0)
    return jnp.where(instant & ~divides & (unknown > 0), top, quotient)


def _flux_and_potential(rates: Rates, at_once: tuple | None, unknown: Pools) -> tuple[Pools, Pools]:
    """decay · x and x. The unknown of a pool is x or, where it passes carbon on at once, decay · x."""
    if at_once is None:
        return tuple(rates.decay * u for u in unknown), unknown
    # only derivatives by a turnover time of 0 meet this x, in units of `LARGE`: it is capped before it leaves the range
    slowness = 1.0 / jnp.maximum(LARGE * jax.lax.stop_gradient(rates.decay), LARGE * 2.0**-62)
    flux = tuple(u * jnp.where(instant, 1.0, rates.decay) for u, instant in zip(unknown, at_once, strict=True))
    potential = tuple(u * jnp.where(instant, slowness, 1.0) for u, instant in zip(unknown, at_once, strict=True))
    return flux, potential


def _left_side(rates: Rates, flux: Pools, x: Pools) -> Pools:
    """M x, in differences, as the module's docstring writes it."""
    pools = range(len(x))
    return tuple(
        flux[p]
        - sum(rates.fraction[q][p] * flux[q] for q in pools if q != p)
        + rates.turnover[p]
        * (rates.above * (x[p] - from_layer_above(x[p])) + rates.below * (x[p] - from_layer_below(x[p])))
        for p in pools
    )


def _direct(rates: Rates):
    """The solution of M x = b, and of Mᵀ λ = g, as functions of the right side."""
    pools = range(len(rates.turnover))
    weight = _weights(rates.fraction)
    within = tuple(tuple(rates.fraction[q][p] * weight[q] for q in pools) for p in pools)
    exchange = tuple(w * t for w, t in zip(weight, rates.turnover, strict=True))
    couplings = Couplings(exchange, within, None)

    def solve(b):
        return _scaled(weight, sweeps(rates, couplings, b, transpose=False))

    def transpose_solve(g):
        return sweeps(rates, couplings, _scaled(weight, g), transpose=True)

    return solve, transpose_solve


def _scaled(weight: AtLayer, x: Pools) -> Pools:
    return tuple(w * x_p for w, x_p in zip(weight, x, strict=True))


def _around(rates: Rates, at_once: tuple):
    """`_direct` for decay · x of pools that pass carbon on at once, and x of the others.

    Such a pool i has the row y[i] (e + Σ R[i, l]) = source[i] / decay + Σ R[i, l] y[l], where nothing but the source
    depends on the layer: it is eliminated before the sweeps, by their rule, and stays in them without carbon and
    neighbours. No source is divided by a decay that may be near nothing.
    """
    pools = range(len(rates.turnover))
    weight = _weights(rates.fraction)
    none = jnp.zeros_like(weight[0])
    within = [[rates.fraction[q][p] * weight[q] for q in pools] for p in pools]
    rows = [[jnp.where(at_once[p], within[p][q], 0.0) for q in pools] for p in pools]
    inverse = local_inverse(rows, [none + 1.0 for _ in pools])  # of the others' rows: the identity
    # decay · y of a pool at once, per source of pools at once and per decay · y of the others
    through = [[jnp.where(at_once[p], inverse[p][q], 0.0) for q in pools] for p in pools]
    reach = [[sum(within[p][i] * through[i][q] for i in pools if i != p) for q in pools] for p in pools]
    # what the source of a pool at once becomes: source of the others
    forward = [[jnp.where(at_once[q] & ~at_once[p], reach[p][q], 0.0) for q in pools] for p in pools]
    couplings = Couplings(
        tuple(jnp.where(at_once[p], 0.0, weight[p] * rates.turnover[p]) for p in pools),
        tuple(tuple(jnp.where(at_once[p] | at_once[q], 0.0, within[p][q] + reach[p][q]) for q in pools) for p in pools),
        tuple(sum(forward[p], none + 1.0) for p in pools),
    )

    def solve(b):
        given = [b[p] + sum(forward[p][q] * b[q] for q in pools if q != p) for p in pools]
        y = sweeps(rates, couplings, tuple(jnp.where(at_once[p], 0.0, given[p]) for p in pools), transpose=False)
        feeds = [jnp.where(at_once[p], b[p], rates.decay * y[p]) for p in pools]
        passed = [sum(through[p][q] * feeds[q] for q in pools) for p in pools]
        return _scaled(weight, tuple(jnp.where(at_once[p], passed[p], y[p]) for p in pools))

    def transpose_solve(g):
        g = _scaled(weight, g)
        passed = [sum(through[p][q] * g[p] for p in pools) for q in pools]
        given = tuple(jnp.where(at_once[q], 0.0, g[q] + rates.decay * passed[q]) for q in pools)
        y = sweeps(rates, couplings, given, transpose=True)
        source = [jnp.where(at_once[q], passed[q], y[q]) for q in pools]
        return tuple(source[q] + sum(forward[p][q] * y[p] for p in pools if p != q) for q in pools)

    return solve, transpose_solve


def _weights(fraction: tuple[tuple[PerColumn, ...], ...]) -> tuple[PerColumn, ...]:
    """w = (I − fractionᵀ)⁻¹ · 1 ≥ 1: what arrives in each pool, counted again at every transfer."""
    n = len(fraction)
    matrix = [[jnp.ones_like(fraction[0][0]) if p == q else -fraction[q][p] for q in range(n)] for p in range(n)]
    right = [jnp.ones_like(fraction[0][0]) for _ in range(n)]
    for i in reversed(range(n)):
        for p in range(i):
            share = matrix[p][i] / matrix[i][i]
            right[p] = right[p] - share * right[i]
            for q in range(i):
                matrix[p][q] = matrix[p][q] - share * matrix[i][q]
    weight: list = []
    for i in range(n):
        weight.append((right[i] - sum(matrix[i][q] * weight[q] for q in range(i))) / matrix[i][i])
    return tuple(weight)
