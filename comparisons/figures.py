"""Figures over all sites: correlation panels, overlap beside what was learned, the overlap of every site, calibration.

Every function takes a result of `compare` and returns a matplotlib Figure that no global state knows of.
"""

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from clm5.parameters import ParameterSpace
from comparisons.compare import claims
from comparisons.reading import FORCED, UNSEEN, WAYS

COLOUR = {"network": "#D55E00", "sampler": "#0072B2"}  # Okabe and Ito: distinct to colour-blind eyes
MARKER = {"network": "o", "sampler": "s"}
TRUTH, PRIOR, PALE = "#000000", "#8A8A8A", "#F1F1F1"
FONT: dict[str, Any] = {"size": 8}


def correlation_panels(result: xr.Dataset, kind: str = "process") -> Figure:
    """Network against sampler, one panel per process or parameter, one point per site: posterior mean ± sd.

    The dashed line is equality. Parameter axes span the prior's box. A grey panel is one where at least one way is
    below the threshold (or that is forcing): its r says little.
    """
    names = [str(name) for name in result[kind].values]
    columns = 3 if kind == "process" else 4
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(2.5 * columns, 2.55 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    gain = result[f"{kind}_sd_reduction"].mean("site")
    said = claims(result, kind)
    space = ParameterSpace(str(result.attrs["network_bounds"]))
    test = np.isin(result.split.values.astype(str), UNSEEN)
    size = 3.0 if test.size <= 100 else 1.8
    for axis, name in zip(axes, names, strict=False):
        one = result.sel({kind: name})
        x, y = (one[f"{kind}_mean"].sel(way=way).values for way in ("sampler", "network"))
        dx, dy = (one[f"{kind}_sd"].sel(way=way).values for way in ("sampler", "network"))
        axis.errorbar(x, y, dy, dx, fmt="none", ecolor=PRIOR, elinewidth=0.5, alpha=_fade(len(x)))
        axis.plot(x[~test], y[~test], "o", ms=size, mfc="white", mec="#444444", mew=0.7)
        axis.plot(x[test], y[test], "o", ms=size + 0.4, color=COLOUR["network"], mew=0)
        if kind == "parameter":
            at = names.index(name)
            low, high = space.lower[at], space.upper[at]
        else:
            low, high = min((x - dx).min(), (y - dy).min()), max((x + dx).max(), (y + dy).max())
            low = max(low, 0.0) if min(x.min(), y.min()) >= 0 else low  # sd of a skewed posterior may reach below
        margin = 0.04 * (high - low)
        axis.set(xlim=(low - margin, high + margin), ylim=(low - margin, high + margin), aspect="equal")
        axis.axline((low, low), (high, high), color="#444444", lw=0.8, ls="--")
        axis.tick_params(labelsize=6)
        axis.ticklabel_format(scilimits=(-3, 4), useMathText=True)
        for text in (axis.xaxis.get_offset_text(), axis.yaxis.get_offset_text()):
            text.set_fontsize(6)
        axis.locator_params(nbins=4)
        both = [float(gain.sel({"way": way, kind: name})) for way in WAYS]
        if name == FORCED:
            note = "forcing: 1 by construction"
        else:
            note = f"network {_percent(both[0])}, sampler {_percent(both[1])} narrower"
        if name == FORCED or not bool(said.sel({kind: name}).all()):
            axis.set_facecolor(PALE)
        unit = f" ({one.unit.item()})" if kind == "parameter" and one.unit.item() != "1" else ""
        axis.set_title(f"{name}{unit}   r = {float(one[f'{kind}_pearson']):.2f}\n{note}", **FONT)
    for axis in axes[len(names) :]:
        axis.set_axis_off()
    if len(axes) > len(names) and test.any():
        blank = axes[-1]
        blank.plot([], [], "o", ms=4, mfc="white", mec="#444444", label="site used in training")
        blank.plot([], [], "o", ms=4, color=COLOUR["network"], label="site held out")
        blank.legend(loc="center", frameon=False, fontsize=8)
    figure.supxlabel("sampler: posterior mean ± sd", **FONT)
    figure.supylabel("network: posterior mean ± sd", **FONT)
    return figure


def overlap_beside_information(result: xr.Dataset) -> Figure:
    """Per parameter, left: overlap between its floor and its best; right: how much narrower each way is, per site.

    Sorted by the sampler's. Dots are means over sites, lines hold the middle 80 % of the sites.
    """
    gain = result.parameter_sd_reduction
    order = np.argsort(gain.sel(way="sampler").mean("site").values)
    sorted_ = result.isel(parameter=order)
    row = np.arange(len(order))
    figure = Figure(figsize=(8.5, 0.27 * len(row) + 1.3), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    floor = sorted_.parameter_overlap_floor.mean("site")
    best = sorted_.parameter_overlap_best.mean("site")
    left.hlines(row, floor, best, color="#D9D9D9", lw=7, label="from quoting the prior to the sampler against itself")
    low, high = np.quantile(sorted_.parameter_overlap.values, [0.1, 0.9], axis=0)
    left.hlines(row, low, high, color="#222222", lw=1)
    left.plot(sorted_.parameter_overlap.mean("site"), row, "D", ms=4.5, color="#222222", label="network and sampler")
    left.set(xlim=(0, 1), yticks=row)
    left.set_xlabel("overlap of the two posteriors", **FONT)
    left.set_yticklabels([str(name) for name in sorted_.parameter.values], fontsize=8)
    left.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False, fontsize=7.5)
    for way, shift in zip(WAYS, (0.17, -0.17), strict=True):
        values = sorted_.parameter_sd_reduction.sel(way=way).values
        low, high = np.quantile(values, [0.1, 0.9], axis=0)
        right.hlines(row + shift, low, high, color=COLOUR[way], lw=1)
        right.plot(values.mean(0), row + shift, MARKER[way], ms=4.5, color=COLOUR[way], label=way)
    right.axvline(0, color=PRIOR, lw=0.8)
    right.axvline(result.attrs["gain_threshold"], color=PRIOR, lw=0.8, ls=":")
    right.set_xlabel("narrower than the prior: 1 − posterior sd / prior sd", **FONT)
    right.set(xlim=(min(-0.1, right.get_xlim()[0]), 1))
    right.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False, fontsize=7.5)
    for axis in (left, right):
        axis.grid(axis="x", color="#E5E5E5", lw=0.6)
        axis.set_axisbelow(True)
        axis.tick_params(axis="x", labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    return figure


def overlap_heat_map(result: xr.Dataset) -> Figure:
    """Overlap of every site and parameter; sites by rising agreement, parameters by how narrow the sampler is."""
    overlap = result.parameter_overlap
    order = np.argsort(overlap.mean("parameter").values)
    rows = np.argsort(-result.parameter_sd_reduction.sel(way="sampler").mean("site").values)
    values = overlap.values[order].T[rows]
    figure = Figure(figsize=(8.5, 4.4), layout="constrained")
    axis = figure.subplots()
    image = axis.imshow(values, aspect="auto", vmin=0, vmax=1, cmap="cividis", interpolation="nearest")
    axis.set_yticks(np.arange(values.shape[0]), [str(name) for name in result.parameter.values[rows]], fontsize=7)
    if values.shape[1] <= 40:
        ids = [str(i) for i in result.site.values[order]]
        axis.set_xticks(np.arange(len(ids)), ids, rotation=90, fontsize=6)
    else:
        axis.set_xlabel(f"{values.shape[1]} sites, from the least to the most agreement", **FONT)
    axis.tick_params(axis="x", labelsize=6)
    bar = figure.colorbar(image, ax=axis, pad=0.01)
    bar.set_label("overlap of network and sampler", **FONT)
    bar.ax.tick_params(labelsize=7)
    return figure


def calibration_curves(result: xr.Dataset) -> Figure:
    """Coverage of the known truth against what the intervals promise, for the parameters that each way claims.

    Thin lines are parameters, the thick one their mean, the dotted one that of the bare prior box; the band is ± 2
    binomial standard errors for one parameter.
    """
    figure = Figure(figsize=(7.2, 3.5), layout="constrained")
    level = result.level.values
    for axis, way in zip(figure.subplots(1, 2, sharey=True), WAYS, strict=True):
        one = result.sel(way=way)
        informed = claims(result).sel(way=way).values
        error = np.nanmean(one.parameter_coverage_error.values, axis=1)
        axis.fill_between(level, level - 2 * error, np.minimum(level + 2 * error, 1), color="#E5E5E5", lw=0)
        axis.plot([0, 1], [0, 1], "--", color="#444444", lw=0.8)
        lines = one.parameter_coverage.values[:, informed]
        axis.plot(level, lines, color=COLOUR[way], lw=0.6, alpha=0.5)
        if informed.any():
            axis.plot(level, np.nanmean(lines, axis=1), color=COLOUR[way], lw=2.2, marker=MARKER[way], ms=4)
            box = np.nanmean(result.parameter_coverage_prior.values[:, informed], axis=1)
            axis.plot(level, box, color=PRIOR, lw=1.6, ls=":", marker="x", ms=5, label="prior box")
            axis.legend(loc="lower right", frameon=False, fontsize=8)
        axis.set(xlim=(0.45, 1.0), ylim=(0, 1.03))
        axis.set_xlabel("share that the interval promises", **FONT)
        axis.tick_params(labelsize=8)
        axis.set_title(f"{way}: {informed.sum()} parameters claimed", fontsize=9)
        axis.grid(color="#E5E5E5", lw=0.6)
    figure.axes[0].set_ylabel("share of sites where it holds the truth", **FONT)
    return figure


def _percent(share: float) -> str:
    return "n/a" if not np.isfinite(share) else f"{round(100 * share) + 0:d} %"


def _fade(n_sites: int) -> float:
    return float(np.clip(12 / max(n_sites, 1), 0.12, 0.6))
