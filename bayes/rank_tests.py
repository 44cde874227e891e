"""Are ranks uniform? Exact simultaneous bands of their empirical distribution, and tests over many quantities."""

from functools import lru_cache

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float, Int
from scipy import stats

from bayes.prior_gain import PRIOR_SD

SLACK = 1e-9  # relative: a tail probability that is the level itself, computed twice, counts as reached
FALSE_ALARM = 0.01

Bound = Float[np.ndarray, " point"]


def p_value(ranks: Int[np.ndarray, " simulation"], n_ranks: int) -> float:
    """Probability that ranks of a calibrated posterior leave the middle at least as far as these do at some point.

    At every point i = 1 … n_ranks − 1 the number of ranks below i is binomial; the statistic is the smallest two-sided
    tail probability over the points, and its distribution over all of them at once is computed exactly.

    Args:
        ranks: 0 … n_ranks − 1, one per simulation.
        n_ranks: how many ranks there are, one more than the draws that the truth was ranked among.

    Returns:
        A p-value: at most α with a probability of at most α if the ranks are independent and uniform.

    Raises:
        ValueError: no ranks, or a rank outside 0 … n_ranks − 1.

    Source:
        Säilynoja, Bürkner & Vehtari 2022, Statistics and Computing 32:32: ranks in place of continuous values, and the
        probability of leaving the band by recursion over the points.
    """
    ranks = np.asarray(ranks)
    if ranks.size == 0 or ranks.min() < 0 or ranks.max() >= n_ranks:
        found = "none" if ranks.size == 0 else f"{ranks.min()} … {ranks.max()}"
        raise ValueError(f"p_value: ranks must lie in 0 … {n_ranks - 1}, found {found}")
    below = np.cumsum(np.bincount(ranks, minlength=n_ranks))[:-1]
    return leaving_probability(len(ranks), n_ranks, float(_tail(below, len(ranks), n_ranks).min()))


def band(simulations: int, n_ranks: int, alpha: float) -> tuple[Bound, Bound]:
    """Lowest and highest share of ranks below i = 1 … n_ranks − 1 that stay inside with probability 1 − α or more.

    A set of ranks leaves the band exactly where its `p_value` is at most α.

    Args:
        simulations: how many ranks there are in the set.
        n_ranks: how many different ranks are possible.
        alpha: probability that uniform ranks leave the band anywhere.
    """
    if not 0 < alpha < 1:
        raise ValueError(f"band: alpha must lie between 0 and 1, got {alpha!r}")
    level = _level(simulations, n_ranks, alpha)
    lower, upper = _inside(simulations, n_ranks, level)
    return lower / simulations, upper / simulations


def leaving_probability(simulations: int, n_ranks: int, level: float) -> float:
    """Probability that uniform ranks have, at some point, a tail probability of `level` or less."""
    lower, upper = _inside(simulations, n_ranks, level)
    if np.any(lower > upper):
        return 1.0
    count, mass, left = np.array([0]), np.array([1.0]), 0.0
    for i in range(n_ranks - 1):
        reached = np.arange(lower[i], upper[i] + 1)
        added = reached[:, None] - count
        moves = stats.binom.pmf(added, simulations - count, 1 / (n_ranks - i))
        stays = moves @ mass
        left += mass.sum() - stays.sum()
        count, mass = reached, stays
    return float(np.clip(left, 0.0, 1.0))


def _tail(below, simulations: int, n_ranks: int) -> np.ndarray:
    """Two-sided tail probability of so many ranks below i = 1 …, along the last axis."""
    share = np.arange(1, n_ranks) / n_ranks
    few, many = stats.binom.cdf(below, simulations, share), stats.binom.sf(below - 1, simulations, share)
    return 2 * np.minimum(few, many)


def _inside(simulations: int, n_ranks: int, level: float) -> tuple[np.ndarray, np.ndarray]:
    """Smallest and largest number of ranks below i = 1 … n_ranks − 1 whose tail probability exceeds `level`."""
    table = _table(simulations, n_ranks) > level * (1 + SLACK)
    lower = np.where(table.any(0), table.argmax(0), simulations + 1)
    upper = np.where(table.any(0), simulations - table[::-1].argmax(0), -1)
    return lower, upper


@lru_cache(maxsize=4)
def _table(simulations: int, n_ranks: int) -> np.ndarray:
    """Tail probability of every possible number, (simulations + 1, n_ranks − 1)."""
    return _tail(np.arange(simulations + 1)[:, None], simulations, n_ranks)


@lru_cache(maxsize=32)
def _level(simulations: int, n_ranks: int, alpha: float) -> float:
    """The largest tail probability that uniform ranks reach somewhere with probability α or less."""
    reachable = np.unique(_table(simulations, n_ranks))
    low, high = -1, int(np.searchsorted(reachable, alpha, side="right"))  # one point alone already leaves so often
    while high - low > 1:
        middle = (low + high) // 2
        if leaving_probability(simulations, n_ranks, float(reachable[middle])) <= alpha:
            low = middle
        else:
            high = middle
    return float(reachable[low]) if low >= 0 else 0.0


def holm(p: Float[np.ndarray, " test"]) -> Float[np.ndarray, " test"]:
    """p-values adjusted for their number, whatever their dependence: those of at most α are called with an error of
    at most α over all (Holm 1979, Scandinavian Journal of Statistics 6:65)."""
    order = np.argsort(p)
    adjusted = np.maximum.accumulate(np.minimum(p[order] * np.arange(len(p), 0, -1), 1.0))
    result = np.empty(len(p))
    result[order] = adjusted
    return result


def uniformity(ranks: xr.Dataset, false_alarm: float = FALSE_ALARM) -> pd.DataFrame:
    """Test the ranks of every quantity, with one false-alarm rate over all of them.

    Args:
        ranks: of `calibrate` or `truth_ranks`, all simulations, converged or not.
        false_alarm: probability that a right sampler raises an alarm in any quantity.

    Returns:
        A row per quantity: `p` (`p_value`), `p_holm` (adjusted for the number of quantities), `alarm`; `mean` of the
        ranks over 0 … 1, 0.5 if right, more where the truth lies above the posterior; `spread`, their sd over that of
        a uniform, 1 if right, more where the posterior is too narrow; `sd_reduction`, 1 − posterior sd / prior sd, mean
        over simulations: where it is near 0 the posterior is the prior and uniform ranks say little (NaN for
        quantities that are not parameters).
    """
    n_ranks = int(ranks.attrs["kept"]) + 1
    rank = ranks["rank"].transpose("simulation", "quantity").values
    p = np.array([p_value(column, n_ranks) for column in rank.T])
    adjusted = holm(p)
    place = (rank + 0.5) / n_ranks
    reduction = 1 - ranks["sd"].mean("simulation").values / PRIOR_SD
    table = pd.DataFrame(
        {
            "p": p,
            "p_holm": adjusted,
            "alarm": adjusted <= false_alarm,
            "mean": place.mean(0),
            "spread": place.std(0) / np.sqrt((1 - n_ranks**-2) / 12),
            "sd_reduction": np.where(ranks["is_parameter"].values, reduction, np.nan),
        },
        index=pd.Index(ranks["quantity"].values, name="quantity"),
    )
    table.attrs["false_alarm"] = false_alarm
    return table


def uniformity_verdict(ranks: xr.Dataset, false_alarm: float = FALSE_ALARM, most: int = 20) -> str:
    """The tests in words: which quantities are not uniform and how, and which simulations did not converge."""
    table = uniformity(ranks, false_alarm)
    simulations, kept = ranks.sizes["simulation"], int(ranks.attrs["kept"])
    lines = [
        f"{int(table.alarm.sum())} of {len(table)} quantities have ranks that are not uniform, over {simulations} "
        f"simulations; a right sampler has any with probability {false_alarm:g} at most."
    ]
    for name, row in table[table.alarm].sort_values("p").iterrows():
        lines.append(f"  {name}: p {row.p_holm:.2g}, {_fault(row, simulations)}")
    lost = ranks["simulation"].values[~ranks["converged"].values]
    lines.append(f"{len(lost)} of {simulations} simulations did not converge; they are in the test.")
    if len(lost):
        lines.append(
            f"  {', '.join(map(str, lost[:most]))}{'' if len(lost) <= most else f' and {len(lost) - most} more'}"
        )
    few = int((ranks["ess"] < kept).sum())
    if few:
        lines.append(
            f"{few} simulations have fewer effective draws than the {kept} that ranks are taken among: such ranks "
            "crowd at both ends though the posterior be right. Sample longer, or keep fewer."
        )
    return "\n".join(lines)


def _fault(row: pd.Series, simulations: int) -> str:
    """What a departure looks like, in words."""
    error = 1 / np.sqrt(12 * simulations)
    if abs(row["mean"] - 0.5) > 3 * error:
        return f"the truth lies {'above' if row['mean'] > 0.5 else 'below'} the posterior (mean rank {row['mean']:.2f})"
    kind = "narrow" if row["spread"] > 1 else "wide"
    return f"the posterior is too {kind} (spread of ranks {row['spread']:.2f})"
