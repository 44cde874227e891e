"""Did the chains mix: the limits, and R-hat and effective draws for files that do not bring their own diagnostics."""

import warnings

import numpy as np
from arviz_stats.base import array_stats

from bayes.diagnostics import ESS_LIMIT as ESS_STRICT  # what Vehtari et al. (2021) advise for results to be published
from bayes.diagnostics import R_HAT_LIMIT as RHAT_STRICT

RHAT_LIMIT, ESS_LIMIT = 1.05, 100.0  # beyond these, at any parameter, a site counts as not converged here
DIVERGING_LIMIT = 0.01  # share of divergent transitions

__all__ = ["DIVERGING_LIMIT", "ESS_LIMIT", "ESS_STRICT", "RHAT_LIMIT", "RHAT_STRICT", "diagnose"]


def diagnose(draws: np.ndarray) -> dict[str, np.ndarray]:
    """Rank-normalised split R-hat, bulk and tail effective sample size, as arviz-stats computes them.

    Args:
        draws: (chain, draw, *batch).

    Returns:
        `rhat`, `ess_bulk`, `ess_tail`, each (*batch). All NaN for fewer than six draws a chain and where nothing
        varies; R-hat also for a single chain, which has no other to be compared with.

    Source:
        Vehtari et al. (2021), Bayesian Analysis 16:667.
    """
    chains, n, *batch = draws.shape
    flat = np.asarray(draws, float).reshape(chains, n, -1)
    found = {name: np.full(flat.shape[2], np.nan) for name in ("rhat", "ess_bulk", "ess_tail")}
    moves = np.ptp(flat, axis=(0, 1)) > 0
    if n >= 6 and moves.any():
        moving, axes = flat[:, :, moves], {"chain_axis": 0, "draw_axis": 1}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # chains that each stand still: infinite R-hat is right
            if chains > 1:
                found["rhat"][moves] = array_stats.rhat(moving, method="rank", **axes)
            found["ess_bulk"][moves] = array_stats.ess(moving, method="bulk", **axes)
            found["ess_tail"][moves] = array_stats.ess(moving, method="tail", prob=(0.05, 0.95), **axes)
    return {name: values.reshape(batch) for name, values in found.items()}
