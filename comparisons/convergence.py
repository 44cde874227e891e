"""Did the chains mix: rank-normalised split R-hat and bulk effective sample size, for thousands of quantities at once.

The same numbers as `arviz_stats.rhat` and `arviz_stats.ess` (tests hold them together), vectorised over the batch.
"""

import numpy as np
from scipy.fft import irfft, next_fast_len, rfft
from scipy.special import ndtri
from scipy.stats import rankdata

RHAT_LIMIT, ESS_LIMIT = 1.05, 100  # beyond these, at any parameter, a site counts as not converged
RHAT_STRICT, ESS_STRICT = 1.01, 400  # what Vehtari et al. (2021) advise for results to be published
DIVERGING_LIMIT = 0.01  # share of divergent transitions


def diagnose(draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rank-normalised split R-hat (the larger of bulk and folded) and bulk effective sample size.

    Args:
        draws: (chain, draw, *batch), one chain is enough.

    Returns:
        R-hat (*batch), 1 when the chains agree, and effective sample size (*batch), the number of independent draws
        that would be worth as much. Both NaN for fewer than six draws a chain or where nothing varies.

    Source:
        Vehtari et al. (2021), Bayesian Analysis 16:667; Geyer (1992) for the initial monotone sequence.
    """
    if draws.shape[1] < 6:
        return np.full(draws.shape[2:], np.nan), np.full(draws.shape[2:], np.nan)
    split = _split(draws)
    scores = _normal_scores(split)
    folded = _normal_scores(np.abs(split - np.median(split, axis=(0, 1))))
    return np.maximum(_rhat(scores), _rhat(folded)), _ess(scores)


def _ess(z: np.ndarray) -> np.ndarray:
    """Effective sample size of the mean of z, (chain, draw, *batch) → (*batch)."""
    chains, n = z.shape[:2]
    centred = z - z.mean(1, keepdims=True)
    size = next_fast_len(2 * n)
    autocov = irfft(np.abs(rfft(centred, size, axis=1)) ** 2, size, axis=1)[:, :n].mean(0) / n  # (lag, *batch)
    variance = autocov[0] * n / (n - 1)
    total = autocov[0] + (z.mean(1).var(0, ddof=1) if chains > 1 else 0.0)
    varies = autocov[0] > 1e-15
    rho = 1 - (variance - autocov) / np.where(varies, total, 1.0)
    rho[0] = 1.0
    most = (n - 3) // 2  # the last pair that may be looked at
    pairs = rho[0 : 2 * most + 1 : 2] + rho[1 : 2 * most + 2 : 2]  # Geyer's Γ, positive and falling
    last = np.minimum(np.logical_and.accumulate(pairs > 0, axis=0).sum(0), most)
    used = np.arange(most + 1).reshape(-1, *[1] * (z.ndim - 2)) < last
    tau = -1 + 2 * np.where(used, np.minimum.accumulate(pairs, axis=0), 0.0).sum(0)
    tail = np.take_along_axis(rho, 2 * last[None], axis=0)[0]
    end = np.take_along_axis(pairs, last[None], axis=0)[0]
    tau = np.maximum(tau + np.where((tail > 0) | (end >= 0), tail, 0.0), 1 / np.log10(chains * n))
    return np.where(varies, chains * n / tau, np.nan)


def _split(draws: np.ndarray) -> np.ndarray:
    """Each chain cut into its first and its last half."""
    half = draws.shape[1] // 2
    return np.concatenate([draws[:, :half], draws[:, -half:]])


def _normal_scores(draws: np.ndarray) -> np.ndarray:
    """Replace draws by normal quantiles of their ranks over all chains (Blom's fractions)."""
    flat = draws.reshape(-1, *draws.shape[2:])
    order = np.argsort(flat, axis=0)
    ranks = np.empty(flat.shape)
    np.put_along_axis(ranks, order, np.arange(1.0, len(flat) + 1).reshape(-1, *[1] * (flat.ndim - 1)), axis=0)
    ordered = np.take_along_axis(flat, order, axis=0)
    tied = (np.diff(ordered, axis=0) == 0).any(0)
    if tied.any():  # rejected proposals repeat a draw: ties share their mean rank
        ranks[:, tied] = rankdata(flat[:, tied], axis=0)
    return ndtri((ranks - 0.375) / (len(flat) + 0.25)).reshape(draws.shape)


def _rhat(z: np.ndarray) -> np.ndarray:
    n = z.shape[1]
    within = z.var(1, ddof=1).mean(0)
    between = z.mean(1).var(0, ddof=1)
    varies = within > 0
    return np.where(varies, np.sqrt((n - 1) / n + between / np.where(varies, within, 1.0)), np.nan)
