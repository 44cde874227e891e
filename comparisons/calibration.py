"""Does a stated interval hold the truth as often as it says: coverage of central intervals, with its own error."""

import numpy as np

LEVELS = (0.5, 0.8, 0.9, 0.95)


def intervals(draws: np.ndarray, levels=LEVELS) -> np.ndarray:
    """Central intervals of draws, (draw, *batch) → (level, 2, *batch).

    Quantiles sit at rank (n + 1) p of n draws, which makes the coverage of a perfect posterior exactly the level
    (the usual interpolation covers 94.6 % instead of 95 % with 400 draws).
    """
    levels = np.asarray(levels, float)
    n = len(draws)
    ordered = np.sort(draws, axis=0)
    tails = np.stack([(1 - levels) / 2, (1 + levels) / 2], axis=1)  # (level, 2)
    rank = np.clip((n + 1) * tails - 1, 0, n - 1)
    below = np.floor(rank).astype(int)
    share = (rank - below).reshape(*tails.shape, *[1] * (draws.ndim - 1))
    return ordered[below] * (1 - share) + ordered[np.minimum(below + 1, n - 1)] * share


def inside(bounds: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """1 where the truth lies in its interval, 0 where not, NaN where unknown: (level, 2, *batch) → (level, *batch)."""
    truth = np.asarray(truth, float)
    held = (truth >= bounds[:, 0]) & (truth <= bounds[:, 1])
    return np.where(np.isfinite(truth) & np.isfinite(bounds).all(1), held, np.nan)


def coverage(held: np.ndarray, level, *, axis) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Share of truths inside, its standard error if the intervals are right, and the number of cases.

    Args:
        held: 0, 1 or NaN, as from `inside`.
        level: nominal coverage, broadcastable to the result.
        axis: the axes to count over.

    Returns:
        share (NaN where there is no case), √(level (1 − level)/n): the binomial error that a calibrated posterior
        would have over n independent cases, and n. Sites that share one network, and horizons of one profile, are
        not independent: there the true error is larger.
    """
    n = np.isfinite(held).sum(axis)
    share = np.where(n > 0, np.nansum(held, axis) / np.maximum(n, 1), np.nan)
    level = np.asarray(level, float)
    error = np.where(n > 0, np.sqrt(level * (1 - level) / np.maximum(n, 1)), np.nan)
    return share, error, n
