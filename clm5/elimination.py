"""State reduction: the elimination of one layer after the other, without a subtraction.

The system is that of `clm5.solver` after x = w y, whose rows are

    e y[i] + Σ_l R[i, l] (y[i] − y[l]) = source[i],      e ≥ 0,   R ≥ 0.

An ordinary factorisation loses all digits where decomposition is slow against mixing: it subtracts what comes back from
what went out. Eliminating i leaves a system of the same form, R[m, l] += R[m, i] R[i, l] / d, e[m] += R[m, i] e[i] / d
with the pivot d = e[i] + Σ_l R[i, l] rebuilt as a sum. Nothing is ever subtracted: every entry of the result is a sum
of positive terms with a relative error of a few hundred roundings.

Layers are eliminated from the bottom, the pools of a layer together: N[j], P × P, is the inverse of the pivot block of
layer j once the layers below it are gone. With a = τ w above and b = τ w below,

    c[j] = N[j] (source[j] + b[j] · c[j+1])         bottom up, in the sweep that also makes N[j] from N[j+1]
    y[j] = c[j] + N[j] a[j] · y[j−1]                top down

The adjoint is the same two sweeps with N transposed, a[j+1] for b[j] and b[j−1] for a[j].

Sources: Grassmann, Taksar & Heyman 1985, Oper. Res. 33:1107 (state reduction); O'Cinneide 1993, Numer. Math. 65:109
(entrywise error); Alfa, Xue & Ye 2002, Math. Comp. 71:217 (diagonally dominant M-matrices from off-diagonals and sums).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

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


class Couplings(NamedTuple):
    """What the sweeps need of a column besides its layers, in terms of y: entries per column."""

    exchange: AtLayer  # w τ
    within: Block  # R / decay between the pools of a layer; the diagonal is not read
    excess: AtLayer | None  # e / decay; None: 1


def largest(dtype) -> float:
    """The largest potential decay that a solve returns: a quarter of the largest number of the dtype."""
    return float(jnp.finfo(dtype).max) * 0.25


def sweeps(rates: Rates, couplings: Couplings, source: Pools, *, transpose: bool) -> Pools:
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
        inverse = jax.lax.optimization_barrier(local_inverse(reach, left))
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


def local_inverse(reach: list[list], excess: list) -> tuple[tuple, ...]:
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
