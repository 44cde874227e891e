"""The steady state of pools that mix between neighbouring layers, by state reduction, with its own adjoint.

The unknown is x[p][j], potential decay (content / turnover time) of pool p in layer j. For one litter pool (P = 1) or
the three soil pools (P = 3), each row of M x = source reads

    decay[j] · (x[p][j] − Σ_q fraction[q][p] x[q][j])
        + above[p][j] · (x[p][j] − x[p][j−1]) + below[p][j] · (x[p][j] − x[p][j+1])  =  source[p][j]

where above and below are conductances times the pool's turnover time. M is an M-matrix, but an ordinary factorisation
loses all digits where decomposition is slow against mixing: it subtracts what comes back from what went out. Mixing
alone has zero row sums, and with the weights w = (I − fractionᵀ)⁻¹ · 1 of the pools, M w = decay exactly. So substitute
x = w y: now every row is

    e y[i] + Σ_l R[i, l] (y[i] − y[l]) = source[i],      e = decay ≥ 0,   R ≥ 0,

and eliminating i leaves a system of the same form, R[m, l] += R[m, i] R[i, l] / d, e[m] += R[m, i] e[i] / d with the
pivot d = e[i] + Σ_l R[i, l] rebuilt as a sum. Nothing is ever subtracted: every entry of the result is a sum of
positive terms with a relative error of a few hundred roundings, however near M is to singular.

Layers are eliminated from the bottom, the pools of a layer together (N, P × P, their inverse pivot block):

    b'[j] = source[j] + below[j] · N[j+1] b'[j+1]           bottom up
    y[j]  = N[j] (b'[j] + above[j] · y[j−1])                top down

The adjoint, Mᵀ λ = g, uses the same N: g'[j] = g[j] + above[j+1] · N[j+1]ᵀ g'[j+1], λ[j] = N[j]ᵀ (g'[j] +
below[j−1] · λ[j−1]). `jax.lax.custom_linear_solve` makes derivatives of any order, forward and reverse, from these
two substitutions, never through the elimination.

Sources: Grassmann, Taksar & Heyman 1985, Oper. Res. 33:1107 (state reduction); O'Cinneide 1993, Numer. Math. 65:109
(entrywise error); Alfa, Xue & Ye 2002, Math. Comp. 71:217 (diagonally dominant M-matrices from off-diagonals and sums).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Layers = Float[Array, "layer"]
Pools = tuple[Layers, ...]  # one array per pool
Square = tuple[tuple[Layers, ...], ...]  # [p][q]
Scalar = Float[Array, ""]


class Rates(NamedTuple):
    """The rows of M; every entry is ≥ 0. Rows may be scaled by any positive factor, together with the source."""

    decay: Layers  # the same for all pools of the system
    fraction: tuple[tuple[Scalar, ...], ...]  # [donor][receiver], zero diagonal, Σ over receivers below 1
    above: Pools  # exchange with layer j − 1; 0 in the first layer
    below: Pools  # exchange with layer j + 1; 0 in the last layer


def steady_state(rates: Rates, source: Pools) -> Pools:
    """Potential decay of every pool and layer at which what arrives equals what leaves.

    Args:
        rates: the rows of the system, see `Rates`.
        source: carbon arriving from outside, ≥ 0, per pool an array (layer,).

    Returns:
        Potential decay, ≥ 0, per pool an array (layer,). Values are kept below `largest`, so that a layer without a
        representable steady state spoils neither its neighbours nor the derivatives.
    """
    fixed = jax.lax.stop_gradient(rates)
    weight = _weights(fixed.fraction)
    above = tuple(w * a for w, a in zip(weight, fixed.above, strict=True))
    below = tuple(w * b for w, b in zip(weight, fixed.below, strict=True))
    inverse = _eliminate(fixed.decay, _within(fixed, weight), above, below)

    def solve(_, b):
        y = _substitute(inverse, b, from_below=below, from_above=above)
        return tuple(jnp.minimum(w * y_p, largest(y_p.dtype)) for w, y_p in zip(weight, y, strict=True))

    def transpose_solve(_, g):
        weighted = tuple(w * g_p for w, g_p in zip(weight, g, strict=True))
        transposed = tuple(zip(*inverse, strict=True))
        return _substitute(transposed, weighted, from_below=_shift(above, -1), from_above=_shift(below, 1))

    return jax.lax.custom_linear_solve(lambda x: _left_side(rates, x), source, solve, transpose_solve)


def largest(dtype) -> float:
    """The largest potential decay that `steady_state` returns: a quarter of the largest number of the dtype."""
    return float(jnp.finfo(dtype).max) * 0.25


def _shift(pools: Pools, by: int) -> Pools:
    """Entry j of the result is entry j − by; 0 enters at the end."""
    zero = [jnp.zeros_like(pool[:1]) for pool in pools]
    if by > 0:
        return tuple(jnp.concatenate([z, pool[:-1]]) for z, pool in zip(zero, pools, strict=True))
    return tuple(jnp.concatenate([pool[1:], z]) for z, pool in zip(zero, pools, strict=True))


def _left_side(rates: Rates, x: Pools) -> Pools:
    """M x, in differences, as the module's docstring writes it."""
    pools = range(len(x))
    upper, lower = _shift(x, 1), _shift(x, -1)
    return tuple(
        rates.decay * (x[p] - sum(rates.fraction[q][p] * x[q] for q in pools if q != p))
        + rates.above[p] * (x[p] - upper[p])
        + rates.below[p] * (x[p] - lower[p])
        for p in pools
    )


def _weights(fraction: tuple[tuple[Scalar, ...], ...]) -> tuple[Scalar, ...]:
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


def _within(rates: Rates, weight: tuple[Scalar, ...]) -> Square:
    """R among the pools of a layer, [p][q]: how the row of pool p counts the (weighted) content of pool q."""
    pools = range(len(weight))
    return tuple(
        tuple(rates.decay * rates.fraction[q][p] * weight[q] if q != p else jnp.zeros_like(rates.decay) for q in pools)
        for p in pools
    )


def _eliminate(excess: Layers, within: Square, above: Pools, below: Pools) -> Square:
    """N of every layer, [p][q]: content of pool p per unit source in row q, all layers below eliminated."""
    pools = range(len(above))

    def layer(from_below, here):
        excess_below, returned = (
            from_below  # of the row of pool p in the layer below: its e, and its reach to pool q here
        )
        excess_here, within_here, above_here, below_here = here
        reach = [[within_here[p][q] + below_here[p] * returned[p][q] for q in pools] for p in pools]
        excess_all = [excess_here + below_here[p] * excess_below[p] for p in pools]
        inverse = _local_inverse(reach, [excess_all[p] + above_here[p] for p in pools])
        passed = tuple(sum(inverse[p][q] * excess_all[q] for q in pools) for p in pools)
        return (passed, tuple(tuple(inverse[p][q] * above_here[q] for q in pools) for p in pools)), inverse

    nothing = jnp.zeros_like(excess[0])
    start = (tuple(nothing for _ in pools), tuple(tuple(nothing for _ in pools) for _ in pools))
    return jax.lax.scan(layer, start, (excess, within, above, below), reverse=True)[1]


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


def _substitute(inverse: Square, source: Pools, *, from_below: Pools, from_above: Pools) -> Pools:
    """Bottom-up, then top-down substitution: y[j] = N[j] (source[j] + from_below[j] y[j+1] + from_above[j] y[j−1]).

    Everything is kept finite, so that a layer out of the dtype's range cannot turn its neighbours into 0 · inf.
    """
    top = largest(source[0].dtype)

    def times(matrix, x):
        return tuple(jnp.clip(sum(m * v for m, v in zip(row, x, strict=True)), -top, top) for row in matrix)

    def add(a, coefficient, x):
        return tuple(jnp.clip(a_p + c * x_p, -top, top) for a_p, c, x_p in zip(a, coefficient, x, strict=True))

    def upwards(y_below, here):
        inverse_here, source_here, coefficient = here
        collected = add(source_here, coefficient, y_below)
        return times(inverse_here, collected), collected

    def downwards(y_above, here):
        inverse_here, collected, coefficient = here
        y = times(inverse_here, add(collected, coefficient, y_above))
        return y, y

    zero = tuple(jnp.zeros_like(pool[0]) for pool in source)
    _, collected = jax.lax.scan(upwards, zero, (inverse, source, from_below), reverse=True)
    return jax.lax.scan(downwards, zero, (inverse, collected, from_above))[1]
