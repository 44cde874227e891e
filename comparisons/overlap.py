"""How much two sets of draws have in common: overlap coefficient and Wasserstein distance, on a bounded support."""

import numpy as np

from comparisons.density import masses, smooth


def overlap_coefficient(a: np.ndarray, b: np.ndarray, lower, upper) -> np.ndarray | float:
    """Overlap ∫ min(p, q): 1 for the same distribution, 0 for two that never meet.

    Both densities are Gaussian kernel estimates on 512 cells, reflected at the bounds (`density.smooth`). Two errors
    pull against each other. Noise of the draws makes equal distributions look different: with 400 draws against 1000
    they score 0.95 to 0.96, with 2000 against 2000 0.97. Smoothing fills gaps: two normals four standard deviations
    apart score 0.051 instead of 0.046, two boxes that only touch up to 0.04. What can be reached with the draws at
    hand is the overlap of one half of a posterior with its other half. Differences finer than 1/512 of the support
    are not resolved. The coefficient does not change when both sets pass through one increasing function.

    Args:
        a: (draw, *batch).
        b: (draw, *batch); the number of draws may differ.
        lower, upper: support, scalar or broadcastable to (*batch).

    Returns:
        (*batch), in [0, 1].

    Source:
        Weitzman (1970); Inman and Bradley (1989), Commun. Stat. Theory Methods 18:3851, for the closed forms.
    """
    return overlap_of(density_of(a, lower, upper), density_of(b, lower, upper))


def density_of(draws: np.ndarray, lower, upper) -> np.ndarray:
    """Smoothed masses (cells, *batch) of draws (draw, *batch) on their support."""
    return smooth(masses(draws, lower, upper), len(draws))


def overlap_of(p: np.ndarray, q: np.ndarray) -> np.ndarray | float:
    """Overlap of two densities on one grid, (cells, *batch) each and summing to 1 → (*batch)."""
    return np.minimum(p, q).sum(0)


def wasserstein(a: np.ndarray, b: np.ndarray, lower, upper) -> np.ndarray | float:
    """First Wasserstein distance divided by the width of the support (the prior): 0 equal, 1 at opposite bounds.

    The area between the two distribution functions on 512 cells; it differs from the exact distance of the draws
    by at most 1/512.

    Args:
        a, b: (draw, *batch); the numbers of draws may differ.
        lower, upper: support, scalar or broadcastable to (*batch).

    Returns:
        (*batch), in [0, 1]; a distance of x means that the draws of one must move by x prior widths on average.
    """
    return wasserstein_of(masses(a, lower, upper), masses(b, lower, upper))


def wasserstein_of(p: np.ndarray, q: np.ndarray) -> np.ndarray | float:
    """Wasserstein distance, in widths of the support, of two sets of masses on one grid, (cells, *batch) → (*batch)."""
    return np.abs(np.cumsum(p - q, axis=0)).sum(0) / p.shape[0]


def thinned(draws: np.ndarray, most: int) -> np.ndarray:
    """At most `most` of the draws, evenly spaced: (draw, *batch) → (draw', *batch)."""
    n = len(draws)
    return draws if n <= most else draws[np.arange(most) * n // most]


def halves(draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One half of the chains and the other, flattened: (chain, draw, *batch) → two of (draw', *batch).

    With an odd number of chains the middle one is left out; a single chain is cut in its middle.
    """
    chains = draws.shape[0]
    if chains == 1:
        middle = draws.shape[1] // 2
        return draws[0, :middle], draws[0, -middle:]
    half = chains // 2
    return draws[:half].reshape(-1, *draws.shape[2:]), draws[-half:].reshape(-1, *draws.shape[2:])
