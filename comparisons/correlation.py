"""Do two ways order the sites alike: Pearson and Spearman correlation over sites, with intervals and a floor."""

import numpy as np
from scipy.stats import rankdata

RESAMPLES = 500


def pearson(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Pearson correlation over the first axis, (site, *batch) twice → (*batch).

    NaN where either is constant over sites (to 1e-12 of its size) or there are fewer than three sites. It sees
    neither bias nor scale: y = 10 + 3 x gives 1.
    """
    return _weighted(np.asarray(x, float), np.asarray(y, float), np.ones((1, len(x))))[0]


def spearman(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Spearman correlation over the first axis: Pearson of the ranks, ties sharing their mean rank."""
    return pearson(rankdata(x, axis=0), rankdata(y, axis=0))


def bootstrap(x: np.ndarray, y: np.ndarray, *, seed: int, resamples: int = RESAMPLES) -> tuple[np.ndarray, np.ndarray]:
    """Pearson and Spearman correlations of resampled sites; the same sites are drawn for every batch entry.

    The interval that follows from it speaks for other sites drawn like these, not for the error of the draws at
    each site, and it takes sites as independent: neighbouring sites make it too narrow.

    Args:
        x, y: (site, *batch), finite. Ties within x or y are broken by position.
        seed: of the resampling.
        resamples: number of resampled site sets.

    Returns:
        Two arrays (resample, *batch); NaN as in `pearson`.
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    n = len(x)
    counts = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples).astype(float)
    linear, ranked = [], []
    for xi, yi in zip(x.reshape(n, -1).T, y.reshape(n, -1).T, strict=True):  # one column at a time: (resample, site)
        linear.append(_weighted(xi, yi, counts))
        rx, ry = _resampled_ranks(xi, counts), _resampled_ranks(yi, counts)
        rank_r = _moments(rx, ry, counts)
        ranked.append(np.where(np.isfinite(linear[-1]), rank_r, np.nan))
    shape = (resamples, *x.shape[1:])
    return np.stack(linear, -1).reshape(shape), np.stack(ranked, -1).reshape(shape)


def interval(resampled: np.ndarray, level: float = 0.95) -> np.ndarray:
    """Central interval of resampled values over the first axis → (2, *batch); NaN if any resample is NaN."""
    return np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2], axis=0)


def shuffled(x: np.ndarray, y: np.ndarray, *, seed: int, permutations: int = 200) -> np.ndarray:
    """The size |r| (Pearson) that 95 % of random pairings of the sites stay below, (site, *batch) twice → (*batch)."""
    rng = np.random.default_rng(seed)
    r = np.stack([pearson(x, np.asarray(y)[rng.permutation(len(y))]) for _ in range(permutations)])
    return np.quantile(np.abs(r), 0.95, axis=0)


def _weighted(x: np.ndarray, y: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Pearson correlation with site weights, (site, *batch) and (resample, site) → (resample, *batch)."""
    weight = counts / counts.sum(1, keepdims=True)
    scale_x, scale_y = np.abs(x).max(0, initial=0), np.abs(y).max(0, initial=0)
    x, y = x - x.mean(0), y - y.mean(0)  # first: what follows subtracts squares

    def mean(z):
        return np.tensordot(weight, z, axes=(1, 0))

    mx, my = mean(x), mean(y)
    vx, vy = mean(x * x) - mx**2, mean(y * y) - my**2
    varies = (vx > (1e-12 * scale_x) ** 2) & (vy > (1e-12 * scale_y) ** 2) & (len(x) >= 3)
    r = (mean(x * y) - mx * my) / np.sqrt(np.where(varies, vx * vy, 1.0))
    return np.where(varies, np.clip(r, -1, 1), np.nan)


def _resampled_ranks(x: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Mean rank of each site within each resample, (site,) and (resample, site) → (resample, site)."""
    order = np.argsort(x, kind="stable")
    ordered = counts[:, order]
    ranks = np.empty_like(counts)
    ranks[:, order] = np.cumsum(ordered, axis=1) - (ordered - 1) / 2
    return ranks


def _moments(x: np.ndarray, y: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Weighted Pearson correlation row by row, all (resample, site) → (resample,)."""
    weight = counts / counts.sum(1, keepdims=True)
    x = x - (weight * x).sum(1, keepdims=True)
    y = y - (weight * y).sum(1, keepdims=True)
    vx, vy = (weight * x * x).sum(1), (weight * y * y).sum(1)
    varies = (vx > 0) & (vy > 0)
    return np.where(varies, (weight * x * y).sum(1) / np.sqrt(np.where(varies, vx * vy, 1.0)), np.nan)
