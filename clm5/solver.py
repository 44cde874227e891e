"""The steady state of pools that mix between neighbouring layers, by state reduction, with its own adjoint.

The unknown is x[p][j], potential decay (content / turnover time) of pool p in layer j. For one litter pool (P = 1) or
the three soil pools (P = 3), each row of M x = source reads

    decay[j] · (x[p][j] − Σ_q fraction[q][p] x[q][j])
        + τ[p] · (above[j] · (x[p][j] − x[p][j−1]) + below[j] · (x[p][j] − x[p][j+1]))  =  source[p][j]

with turnover times τ and mixing rates above and below, all divided by any factor of the layer. M is an M-matrix, but an
ordinary factorisation loses all digits where decomposition is slow against mixing: it subtracts what comes back from
what went out. Mixing alone has zero row sums, and with the weights w = (I − fractionᵀ)⁻¹ · 1 of the pools, M w = decay
exactly. So substitute x = w y: now every row is

    e y[i] + Σ_l R[i, l] (y[i] − y[l]) = source[i],      e = decay ≥ 0,   R ≥ 0,

and eliminating i leaves a system of the same form, R[m, l] += R[m, i] R[i, l] / d, e[m] += R[m, i] e[i] / d with the
pivot d = e[i] + Σ_l R[i, l] rebuilt as a sum. Nothing is ever subtracted: every entry of the result is a sum of
positive terms with a relative error of a few hundred roundings, however near M is to singular.

Layers are eliminated from the bottom, the pools of a layer together: N[j], P × P, is the inverse of the pivot block of
layer j once the layers below it are gone. With a = τ w above and b = τ w below,

    c[j] = N[j] (source[j] + b[j] · c[j+1])         bottom up, in the sweep that also makes N[j] from N[j+1]
    y[j] = c[j] + N[j] a[j] · y[j−1]                top down

The adjoint, Mᵀ λ = g, is the same two sweeps with N transposed, a[j+1] for b[j] and b[j−1] for a[j].
`jax.lax.custom_linear_solve` makes derivatives of any order, forward and reverse, from these solves, never through the
elimination; a gradient costs one more pair of sweeps, and makes N again rather than carry it through memory.

A pool of turnover time 0 does not mix: x = (what arrives) / decay, which only float64 can hold in every layer. In
narrower dtypes its unknown is the flux decay · x, and it is eliminated before the sweeps (`_around`).

Sources: Grassmann, Taksar & Heyman 1985, Oper. Res. 33:1107 (state reduction); O'Cinneide 1993, Numer. Math. 65:109
(entrywise error); Alfa, Xue & Ye 2002, Math. Comp. 71:217 (diagonally dominant M-matrices from off-diagonals and sums).
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from clm5._layers import Layers, PerColumn, from_layer_above, from_layer_below

Pools = tuple[Layers, ...]  # one array per pool
AtLayer = tuple[PerColumn, ...]  # one layer of `Pools`
Block = tuple[tuple[PerColumn, ...], ...]  # P × P of one layer, [row pool][column pool]


class Rates(NamedTuple):
    """The rows of M; every entry is ≥ 0. The rows of a layer may be scaled by any factor, together with the source."""

    decay: Layers  # the same for all pools of the system
    fraction: tuple[tuple[PerColumn, ...], ...]  # [donor][receiver], zero diagonal, Σ over receivers below 1
    turnover: tuple[PerColumn, ...]  # per pool
    above: Layers  # exchange with layer j − 1 per unit of turnover; 0 in the first layer
    below: Layers  # exchange with layer j + 1 per unit of turnover; 0 in the last layer


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

    def left_side(u):
        return _left_side(rates, *_flux_and_potential(rates, at_once, u))

    def solve(_, b):  # of tangents too, which may have either sign
        u = solve_all(b)
        held = u if at_once is None else [jnp.where(instant, 0.0, x) for instant, x in zip(at_once, u, strict=True)]
        overflow = functools.reduce(jnp.maximum, map(jnp.abs, held)) >= top
        return tuple(jnp.where(overflow, 0.0, x) for x in u), overflow

    def transpose_solve(_, g):
        return transpose_solve_all(g), jnp.zeros(source[0].shape, bool)

    unknown, overflow = jax.lax.custom_linear_solve(left_side, source, solve, transpose_solve, has_aux=True)
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


def largest(dtype) -> float:
    """The largest potential decay that `steady_state` returns: a quarter of the largest number of the dtype."""
    return float(jnp.finfo(dtype).max) * 0.25


def _flux_and_potential(rates: Rates, at_once: tuple | None, unknown: Pools) -> tuple[Pools, Pools]:
    """decay · x and x. The unknown of a pool is x or, where it passes carbon on at once, decay · x."""
    if at_once is None:
        return tuple(rates.decay * u for u in unknown), unknown
    # only derivatives by a turnover time of 0 meet this x: it is capped where it would leave the range of the dtype
    slowness = 1.0 / jnp.maximum(jax.lax.stop_gradient(rates.decay), 2.0**-62)
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


class _Couplings(NamedTuple):
    """What the sweeps need of a column besides its layers, in terms of y: entries per column."""

    exchange: AtLayer  # w τ
    within: Block  # R / decay between the pools of a layer; the diagonal is not read
    excess: AtLayer | None  # e / decay; None: 1


def _direct(rates: Rates):
    """The solution of M x = b, and of Mᵀ λ = g, as functions of the right side."""
    pools = range(len(rates.turnover))
    weight = _weights(rates.fraction)
    within = tuple(tuple(rates.fraction[q][p] * weight[q] for q in pools) for p in pools)
    exchange = tuple(w * t for w, t in zip(weight, rates.turnover, strict=True))
    couplings = _Couplings(exchange, within, None)

    def solve(b):
        return _scaled(weight, _sweeps(rates, couplings, b, transpose=False))

    def transpose_solve(g):
        return _sweeps(rates, couplings, _scaled(weight, g), transpose=True)

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
    inverse = _local_inverse(rows, [none + 1.0 for _ in pools])  # of the others' rows: the identity
    # decay · y of a pool at once, per source of pools at once and per decay · y of the others
    through = [[jnp.where(at_once[p], inverse[p][q], 0.0) for q in pools] for p in pools]
    reach = [[sum(within[p][i] * through[i][q] for i in pools if i != p) for q in pools] for p in pools]
    # what the source of a pool at once becomes: source of the others
    forward = [[jnp.where(at_once[q] & ~at_once[p], reach[p][q], 0.0) for q in pools] for p in pools]
    couplings = _Couplings(
        tuple(jnp.where(at_once[p], 0.0, weight[p] * rates.turnover[p]) for p in pools),
        tuple(tuple(jnp.where(at_once[p] | at_once[q], 0.0, within[p][q] + reach[p][q]) for q in pools) for p in pools),
        tuple(sum(forward[p], none + 1.0) for p in pools),
    )

    def solve(b):
        given = [b[p] + sum(forward[p][q] * b[q] for q in pools if q != p) for p in pools]
        y = _sweeps(rates, couplings, tuple(jnp.where(at_once[p], 0.0, given[p]) for p in pools), transpose=False)
        feeds = [jnp.where(at_once[p], b[p], rates.decay * y[p]) for p in pools]
        passed = [sum(through[p][q] * feeds[q] for q in pools) for p in pools]
        return _scaled(weight, tuple(jnp.where(at_once[p], passed[p], y[p]) for p in pools))

    def transpose_solve(g):
        g = _scaled(weight, g)
        passed = [sum(through[p][q] * g[p] for p in pools) for q in pools]
        given = tuple(jnp.where(at_once[q], 0.0, g[q] + rates.decay * passed[q]) for q in pools)
        y = _sweeps(rates, couplings, given, transpose=True)
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


def _sweeps(rates: Rates, couplings: _Couplings, source: Pools, *, transpose: bool) -> Pools:
    """Eliminate the layers bottom up, carrying the source along, and substitute back top down.

    Everything is kept finite, so that a layer out of the dtype's range cannot turn its neighbours into 0 · inf. The
    barriers stop XLA from computing what several results share again for each of them.
    """
    pools = range(len(source))
    top = largest(source[0].dtype)
    exchange, within = couplings.exchange, couplings.within

    def upwards(below_us, here):
        inverse, passed, collected = below_us  # of layer j + 1: N, its e per pool, and N b'
        decay, above, below, above_of_next, source_here = here
        reach_down = [exchange[p] * below for p in pools]
        reach_up = [exchange[p] * above_of_next for p in pools]  # of layer j + 1, up to this one
        leaves = [decay] * len(source) if couplings.excess is None else [decay * e for e in couplings.excess]
        excess = [leaves[p] + reach_down[p] * passed[p] for p in pools]
        reach = [
            [decay * within[p][q] + reach_down[p] * inverse[p][q] * reach_up[q] if q != p else None for q in pools]
            for p in pools
        ]
        returns = reach_up if transpose else reach_down
        right = [jnp.clip(source_here[p] + returns[p] * collected[p], -top, top) for p in pools]
        left = [excess[p] + exchange[p] * above for p in pools]
        excess, reach, left, right = jax.lax.optimization_barrier((excess, reach, left, right))
        inverse = jax.lax.optimization_barrier(_local_inverse(reach, left))
        passed = _times(inverse, excess)
        collected = tuple(jnp.clip(x, -top, top) for x in _times(_transposed(inverse, transpose), right))
        return (inverse, passed, collected), (inverse, collected)

    def downwards(above_us, here):
        inverse, collected, coefficient = here
        arriving = jax.lax.optimization_barrier(tuple(exchange[p] * coefficient * above_us[p] for p in pools))
        y = tuple(
            jnp.clip(c + x, -top, top)
            for c, x in zip(collected, _times(_transposed(inverse, transpose), arriving), strict=True)
        )
        return y, y

    nothing = jnp.zeros_like(source[0][0])
    start = (tuple(tuple(nothing for _ in pools) for _ in pools), (nothing,) * len(pools), (nothing,) * len(pools))
    rows = (rates.decay, rates.above, rates.below, from_layer_below(rates.above), source)
    _, (inverse, collected) = jax.lax.scan(upwards, start, rows, reverse=True)
    coefficient = from_layer_above(rates.below) if transpose else rates.above
    return jax.lax.scan(downwards, (nothing,) * len(pools), (inverse, collected, coefficient))[1]


def _times(block: Block, x) -> AtLayer:
    return tuple(sum(m * v for m, v in zip(row, x, strict=True)) for row in block)


def _transposed(block: Block, transpose: bool) -> Block:
    return tuple(zip(*block, strict=True)) if transpose else block


def _local_inverse(reach: list[list], excess: list) -> tuple[tuple, ...]:
    """(diag(excess + Σ_q reach[p][q]) − reach)⁻¹ of one layer, [p][q], without subtraction."""
    n = len(excess)
    reach, excess = [list(row) for row in reach], list(excess)
    inverse_pivot: list = [None] * n
    for i in reversed(range(n)):
        pivot = excess[i] + sum(reach[i][q] for q in range(i))
        inverse_pivot[i] = 1.0 / jnp.maximum(pivot, jnp.finfo(pivot.dtype).tiny)
        for p in range(i):
            share = reach[p][i] * inverse_pivot[i]
            excess[p] = excess[p] + share * excess[i]
            for q in range(i):
                if q != p:
                    reach[p][q] = reach[p][q] + share * reach[i][q]
    columns = []
    for unit in range(n):
        right = [jnp.ones_like(excess[0]) if q == unit else jnp.zeros_like(excess[0]) for q in range(n)]
        for i in reversed(range(1, n)):
            for p in range(i):
                right[p] = right[p] + reach[p][i] * inverse_pivot[i] * right[i]
        content: list = []
        for i in range(n):
            content.append((right[i] + sum(reach[i][q] * content[q] for q in range(i))) * inverse_pivot[i])
        columns.append(content)
    return tuple(tuple(columns[q][p] for q in range(n)) for p in range(n))
