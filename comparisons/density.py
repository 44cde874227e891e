"""From draws to masses on a fixed grid, and from there to smooth densities: what the other measures are computed from.

Draws lie on the first axis everywhere here; the remaining axes are a batch (sites, parameters) done in one go.
"""

import numpy as np
from scipy.fft import dct, idct

CELLS = 512  # resolution of every measure below: 1/512 of the support


def masses(draws: np.ndarray, lower, upper, *, cells: int = CELLS) -> np.ndarray:
    """Share of the draws in each of `cells` equal cells of [lower, upper].

    Args:
        draws: (draw, *batch), finite, within the support up to rounding (what lies outside is refused).
        lower, upper: support; scalars or broadcastable to (*batch).

    Returns:
        (cells, *batch), sums to 1 over the first axis.

    Raises:
        ValueError: a draw is not finite or lies outside the support by more than 1e-5 of its width.
    """
    draws = np.asarray(draws, float)
    batch = draws.shape[1:]
    lower, upper = np.broadcast_to(lower, batch), np.broadcast_to(upper, batch)
    if draws.shape[0] == 0:
        raise ValueError("masses: there are no draws")
    position = (draws - lower) / (upper - lower)
    outside = ~((position >= -1e-5) & (position <= 1 + 1e-5))  # NaN counts as outside; 1e-5 is float32 rounding
    if outside.any():
        at = tuple(map(int, np.argwhere(outside)[0]))
        raise ValueError(
            f"masses: {int(outside.sum())} of {draws.size} draws are not finite or lie outside their support; "
            f"first {draws[at]:g} at (draw, *batch) = {at}, where the support is "
            f"[{lower[at[1:]]:g}, {upper[at[1:]]:g}]"
        )
    cell = np.clip((position * cells).astype(np.int32), 0, cells - 1).reshape(draws.shape[0], -1)
    size = cell.shape[1]
    flat = np.bincount((cell * size + np.arange(size)).ravel(), minlength=cells * size)
    return (flat / draws.shape[0]).reshape(cells, *batch)


def smooth(mass: np.ndarray, n_draws: int, *, bandwidths: float = 1.0) -> np.ndarray:
    """Gaussian kernel estimate of a density from its masses, reflected at both ends of the support.

    The bandwidth is Silverman's, 0.9 · min(sd, IQR/1.349) · n^(−1/5), at least one cell, one per batch entry.
    Reflection is what a cosine transform does by itself, so a density that is high at a bound stays high there.

    Args:
        mass: (cells, *batch) as from `masses`.
        n_draws: number of draws behind it.
        bandwidths: a factor on the bandwidth: below 1 follows the draws more closely.

    Returns:
        (cells, *batch), non-negative, sums to 1 over the first axis.

    Source:
        Silverman (1986), Density Estimation, eq. 3.31; Botev et al. (2010) for the cosine transform.
    """
    cells = mass.shape[0]
    spread = np.minimum(_sd(mass), (_quantile(mass, 0.75) - _quantile(mass, 0.25)) / 1.349)
    bandwidth = np.maximum(0.9 * bandwidths * spread * n_draws**-0.2, 1.0 / cells)
    frequency = np.arange(cells).reshape(-1, *[1] * (mass.ndim - 1))
    damped = dct(mass, type=2, axis=0) * np.exp(-0.5 * (np.pi * frequency * bandwidth) ** 2)
    density = np.maximum(idct(damped, type=2, axis=0), 0.0)
    return density / density.sum(0)


def _centres(mass: np.ndarray) -> np.ndarray:
    return ((np.arange(mass.shape[0]) + 0.5) / mass.shape[0]).reshape(-1, *[1] * (mass.ndim - 1))


def _sd(mass: np.ndarray) -> np.ndarray | float:
    """Standard deviation in widths of the support."""
    centres = _centres(mass)
    mean = (mass * centres).sum(0)
    return np.sqrt((mass * (centres - mean) ** 2).sum(0))


def _quantile(mass: np.ndarray, probability: float) -> np.ndarray | float:
    """Upper edge of the cell in which the cumulated mass reaches `probability`, in widths of the support."""
    return ((np.cumsum(mass, axis=0) < probability).sum(0) + 1) / mass.shape[0]
