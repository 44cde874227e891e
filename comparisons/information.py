"""How far a posterior moved from its prior: agreement on what nobody learned is trivial."""

import numpy as np
from numpy.typing import ArrayLike


def sd_reduction(posterior_sd: ArrayLike, prior_sd: ArrayLike) -> np.ndarray | float:
    """Information gained as 1 − sd(posterior)/sd(prior): 0 nothing learned, 1 known exactly, below 0 wider.

    Args:
        posterior_sd, prior_sd: same unit, broadcastable.

    Returns:
        Broadcast shape; NaN where the prior has no spread (forcing).
    """
    posterior_sd, prior_sd = np.broadcast_arrays(np.asarray(posterior_sd, float), np.asarray(prior_sd, float))
    spread = prior_sd > 0
    return np.where(spread, 1.0 - posterior_sd / np.where(spread, prior_sd, 1.0), np.nan)


CLOSER = 0.5  # bandwidths for the divergence: at Silverman's own, smoothing hides up to a sixth of a weak gain


def kl_from_prior(posterior: np.ndarray, prior: np.ndarray, *, n_prior: float = np.inf) -> np.ndarray | float:
    """Kullback-Leibler divergence of posterior from prior, in bits: 1 bit is as good as halving the range.

    The draws' noise makes it positive even where nothing was learned (0.012 bit with 400 independent draws, 0.006 with
    1000), and
    smoothing hides up to 4 % of a gain.

    Args:
        posterior: smoothed masses (cells, *batch), `density.smooth(…, bandwidths=CLOSER)`.
        prior: the same for the prior; 1/cells everywhere for a box.
        n_prior: number of draws behind `prior`, when it was estimated: mixes in a box of weight 1/(n + 1), so that
            the answer stays finite where no prior draw happened to fall.

    Returns:
        (*batch), ≥ 0.
    """
    cells = posterior.shape[0]
    weight = 1.0 / (n_prior + 1.0)
    prior = (1.0 - weight) * np.broadcast_to(prior, posterior.shape) + weight / cells
    held = posterior > 0
    ratio = np.where(held, posterior, 1.0) / np.where(held, np.maximum(prior, 1e-300), 1.0)
    return np.maximum((posterior * np.log2(ratio)).sum(0), 0.0)


def between_share(draws: np.ndarray) -> np.ndarray:
    """Share of the variance that lies between chains rather than within them, (chain, draw, *batch) → (*batch).

    Where a chain is an independently trained member, the share says how much of the spread comes from training again
    rather than from dropout or another method's own draws. NaN for a single chain or no variance.
    """
    if draws.shape[0] < 2:
        return np.full(draws.shape[2:], np.nan)
    within = draws.var(1).mean(0)
    between = draws.mean(1).var(0)
    total = within + between
    return np.where(total > 0, between / np.where(total > 0, total, 1.0), np.nan)
