"""A figure of simulation-based calibration: rank histograms, and differences of the ECDF from uniform in their band."""

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from scipy import stats

from bayes.rank_tests import FALSE_ALARM, band, uniformity

INK, ALARM, BAND = "#0072B2", "#D55E00", "#D9D9D9"  # Okabe and Ito
COLUMNS = 6
PER_BIN = 10  # simulations that are expected in a bin, at least
WITHIN = 0.99  # of a histogram's bin, by itself


def plot_ranks(ranks: xr.Dataset, false_alarm: float = FALSE_ALARM) -> Figure:
    """Two panels per quantity: histogram of the truth's ranks, and their ECDF minus the uniform's.

    The grey of a histogram holds a bin with 99 %, each bin by itself. The grey of the lower panel holds the whole curve
    of every quantity, all of them at once, with probability 1 − `false_alarm` at least if the sampler is right: a curve
    leaves it where the smallest p-value of `uniformity` calls an alarm. Quantities that alarm are orange.

    Args:
        ranks: of `calibrate` or `truth_ranks`.
        false_alarm: over all quantities.
    """
    table = uniformity(ranks, false_alarm)
    simulations, n_ranks = ranks.sizes["simulation"], int(ranks.attrs["kept"]) + 1
    lower, upper = band(simulations, n_ranks, false_alarm / len(table))
    place = np.arange(1, n_ranks) / n_ranks
    columns = min(COLUMNS, len(table))
    rows = -(-len(table) // columns)
    figure = Figure(figsize=(2.05 * columns + 0.5, 2.5 * rows + 0.7), layout="constrained")
    heights = [1.0, 1.15] * rows
    axes = figure.subplots(2 * rows, columns, squeeze=False, gridspec_kw={"height_ratios": heights})
    reach = 1.15 * max(np.abs(upper - place).max(), np.abs(lower - place).max(), _farthest(ranks, place))
    for number, name in enumerate(table.index):
        row, column = divmod(number, columns)
        above, below = axes[2 * row, column], axes[2 * row + 1, column]
        one = ranks["rank"].sel(quantity=name).values
        colour = ALARM if table.alarm[name] else INK
        _histogram(above, one, n_ranks, colour)
        above.set_title(f"{name}\nadjusted p {table.p_holm[name]:.2g}", fontsize=8)
        below.fill_between(place, lower - place, upper - place, color=BAND, lw=0)
        below.axhline(0, color="#777777", lw=0.6)
        below.plot(place, _below(one, n_ranks) - place, color=colour, lw=1.1, drawstyle="steps-mid")
        below.set(xlim=(0, 1), ylim=(-reach, reach), xticks=[0, 0.5, 1])
        for axis in (above, below):
            axis.tick_params(labelsize=6.5, length=2)
            axis.spines[["top", "right"]].set_visible(False)
            if column:
                axis.set_yticklabels([])
        above.set_xticklabels([])
    for number in range(len(table), rows * columns):
        row, column = divmod(number, columns)
        axes[2 * row, column].set_axis_off()
        axes[2 * row + 1, column].set_axis_off()
    figure.supxlabel("rank of the truth among the draws, 0 … 1", fontsize=9)
    figure.supylabel("ECDF − uniform (below)   ·   count / expected (above)", fontsize=9)
    lost = int((~ranks["converged"]).sum())
    figure.suptitle(
        f"{simulations} simulations, truth among {n_ranks - 1} draws; {lost} did not converge and are shown; "
        f"grey: false alarm {false_alarm:g} over all {len(table)} quantities",
        fontsize=9,
    )
    return figure


def _histogram(axis, rank: np.ndarray, n_ranks: int, colour: str) -> None:
    """Counts over their expectation; a bin need not hold the same number of ranks as the next."""
    bins = int(np.clip(len(rank) // PER_BIN, 4, min(20, n_ranks)))
    edges = np.round(np.linspace(0, n_ranks, bins + 1)).astype(int)
    share = np.diff(edges) / n_ranks
    expected = len(rank) * share
    height = np.histogram(rank, edges - 0.5)[0] / expected
    low, high = (stats.binom.ppf(p, len(rank), share) / expected for p in ((1 - WITHIN) / 2, (1 + WITHIN) / 2))
    left = edges / n_ranks
    axis.fill_between(left, np.append(low, low[-1]), np.append(high, high[-1]), step="post", color=BAND, lw=0)
    axis.stairs(height, left, baseline=None, color=colour, lw=1.1)
    axis.axhline(1, color="#777777", lw=0.6)
    axis.set(xlim=(0, 1), ylim=(0, max(2.2, 1.1 * height.max())), xticks=[0, 0.5, 1])


def _below(rank: np.ndarray, n_ranks: int) -> np.ndarray:
    """Share of ranks below i = 1 … n_ranks − 1."""
    return np.cumsum(np.bincount(rank, minlength=n_ranks))[:-1] / len(rank)


def _farthest(ranks: xr.Dataset, place: np.ndarray) -> float:
    curves = (_below(one, len(place) + 1) for one in ranks["rank"].transpose("quantity", "simulation").values)
    return max(float(np.abs(curve - place).max()) for curve in curves)
