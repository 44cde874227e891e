"""Figures of a recovery experiment: true against found parameters, and soil-carbon skill against what was found."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from comparisons.figures import COLOUR, FONT, PRIOR

FOUND, LOST = 0.5, 0.0  # R² from which a parameter counts as found, and at which the mean of the truth does as well
LOWEST = -1.0  # R² axis: what is worse is drawn at this line
SERIES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # Okabe and Ito
SHAPES = "osD^vPX"


def true_against_found(sites: pd.DataFrame, summary: pd.DataFrame) -> Figure:
    """One panel per parameter, one point per test site, in the unit cube; dashed is equality, dotted the true mean.

    sites: columns parameter, truth, found. summary: a row per parameter, columns r2 and slope.
    """
    names = list(summary.parameter)
    columns = min(4, len(names)) if len(names) <= 8 else 6
    rows = -(-len(names) // columns)
    size = 2.3 if columns <= 4 else 1.75
    figure = Figure(figsize=(size * columns + 0.4, (size + 0.25) * rows + 0.3), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis, name in zip(axes, names, strict=False):
        one = sites[sites.parameter == name]
        row = summary[summary.parameter == name].iloc[0]
        fade = float(np.clip(60 / max(len(one), 1), 0.15, 0.8))
        axis.plot(one.truth, one.found, "o", ms=2.2, mew=0, color=COLOUR["network"], alpha=fade)
        axis.plot([0, 1], [0, 1], "--", color="#444444", lw=0.8)
        axis.axhline(one.truth.mean(), color=PRIOR, lw=0.8, ls=":")
        axis.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
        axis.tick_params(labelsize=6)
        axis.set_title(f"{name}\nR² {_two(row.r2)}   r {_two(row.r)}", **FONT)
    for axis in axes[len(names) :]:
        axis.set_axis_off()
    figure.supxlabel("truth, in the unit cube", **FONT)
    figure.supylabel("found by the network at sites held out", **FONT)
    return figure


def skill_against_parameters(pairs: Mapping[str, pd.DataFrame]) -> Figure:
    """SOC skill at test sites against the mean R² of the parameters there, a point per fold, a colour per experiment.

    pairs: experiment → columns nse and r2. Points below −1 are drawn there, hollow.
    """
    figure = Figure(figsize=(6.2, 3.9 + 0.1 * len(pairs)), layout="constrained")
    axis = figure.subplots()
    for number, (name, one) in enumerate(pairs.items()):
        colour, shape = SERIES[number % len(SERIES)], SHAPES[number % len(SHAPES)]
        r2 = np.maximum(one.r2, LOWEST)
        below = one.r2 < LOWEST
        axis.plot(one.nse[~below], r2[~below], shape, ms=6, color=colour, mew=0, alpha=0.85, label=name)
        label = None if (~below).any() else name
        axis.plot(one.nse[below], r2[below], shape, ms=6, mfc="white", mec=colour, clip_on=False, label=label)
    axis.axhline(1, color="#444444", lw=0.8, ls="--")
    axis.axhline(LOST, color=PRIOR, lw=0.8, ls=":")
    axis.text(0.01, LOST, "no better than the mean of the truth", fontsize=7, color="#555555", va="bottom",
              transform=axis.get_yaxis_transform())  # fmt: skip
    least = min((float(one.nse.min()) for one in pairs.values()), default=0.0)
    axis.set(ylim=(LOWEST, 1.05), xlim=(min(0.9, np.floor(20 * least) / 20 - 0.01), 1.005))
    axis.set_xlabel("skill for soil carbon at sites held out: NSE of ln SOC", **FONT)
    axis.set_ylabel("mean R² of the parameters there", **FONT)
    axis.tick_params(labelsize=8)
    axis.grid(color="#E5E5E5", lw=0.6)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, frameon=False, fontsize=7.5)
    return figure


def _two(value: float) -> str:
    return "n/a" if not np.isfinite(value) else f"{value:.2f}".replace("-", "−")
