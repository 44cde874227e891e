"""Figures of what a network reads and what the column listens to: importance, partial dependence, Sobol indices.

Every function returns a matplotlib Figure that no global state knows of.
"""

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from clm5.parameters import NAMES, ParameterSpace
from comparisons.figures import COLOUR, FONT, PRIOR, TRUTH

PANELS = 12  # covariates that are drawn, those of the largest effect
KILO = 1000.0  # g in a kg
TOO_MUCH = 0.3  # share of a variance in one point of the sample, beyond which indices say nothing
LINE = COLOUR["network"]


def importance(table: pd.DataFrame) -> Figure:
    """Per group of covariates, left: fall of the skill when it is shuffled; right: how far each parameter moves.

    `table` is that of `binn.permutation_importance`. Dots are means over repeats, lines ± one sd. Parameters that the
    network does not answer (held) are left out.
    """
    shown = [name for name in NAMES if (table[name] > 0).any()] or list(NAMES)
    table = table.iloc[::-1]
    row = np.arange(len(table))
    figure = Figure(figsize=(9.5, 0.21 * len(row) + 1.5), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(1, 1.45))
    left.axvline(0, color=PRIOR, lw=0.8)
    sd = table.nse_drop_sd.fillna(0.0)
    left.hlines(row, table.nse_drop - sd, table.nse_drop + sd, color=LINE, lw=1)
    left.plot(table.nse_drop, row, "o", ms=4.5, color=LINE)
    left.set(yticks=row, ylim=(-0.6, len(row) - 0.4))
    left.set_yticklabels([str(name) for name in table.index], fontsize=8)
    left.set_xlabel("fall of NSE of ln SOC, mean ± sd of repeats", **FONT)
    left.tick_params(axis="x", labelsize=8)
    left.grid(axis="x", color="#E5E5E5", lw=0.6)
    left.set_axisbelow(True)
    left.spines[["top", "right"]].set_visible(False)
    image = right.imshow(table[shown], aspect="auto", cmap="cividis", interpolation="nearest", vmin=0)
    right.set_xticks(np.arange(len(shown)), shown, rotation=90, fontsize=7)
    right.tick_params(axis="y", length=0, labelleft=False)
    bar = figure.colorbar(image, ax=right, pad=0.02, shrink=min(1.0, 4 / (0.21 * len(row) + 0.5)))
    bar.set_label("mean |change| of the unit parameter", **FONT)
    bar.ax.tick_params(labelsize=7)
    return figure


def dependence(result: xr.Dataset, most: int = PANELS) -> Figure:
    """Partial dependence of the parameter that each covariate moves most, one panel per covariate, largest first.

    `result` is that of `binn.partial_dependence`. The line is the mean over sites; the orange band holds the middle
    80 % of the sites' curves after each was moved up or down to one common mean, the grey band that of the curves as
    they are.
    """
    space = ParameterSpace(str(result.attrs["bounds"]))

    def draw(axis: Axes, covariate: str, name: str) -> str:
        one = result.sel(covariate=covariate, parameter=name)
        at = NAMES.index(name)
        wide = space.upper[at] - space.lower[at]
        mean = one.theta_mean.values
        shift = [np.nanmean(mean) + wide * one[f"unit_shift_{end}"].values for end in ("low", "high")]
        _curve(axis, one, mean, (one.theta_low.values, one.theta_high.values), shift)
        unit = one.parameter_units.item()
        return f"{name} ({unit})" if unit != "1" else name

    effect = result.effect.transpose("covariate", "parameter").values
    order = np.argsort(-effect.max(axis=1), kind="stable")[:most]
    pairs = {str(result.covariate.values[i]): str(result.parameter.values[effect[i].argmax()]) for i in order}
    return _panels(result, pairs, draw)


def dependence_of_stock(result: xr.Dataset, most: int = PANELS) -> Figure:
    """The same for the simulated stock of soil carbon: mean over sites and middle 80 % of them."""
    spread = result.stock_mean.max("point") - result.stock_mean.min("point")
    order = [str(result.covariate.values[i]) for i in np.argsort(-spread.values, kind="stable")[:most]]

    def draw(axis: Axes, covariate: str, _: str) -> str:
        one = result.sel(covariate=covariate)
        low, mean, high = (one[f"stock_{end}"].values / KILO for end in ("low", "mean", "high"))
        _curve(axis, one, mean, (low, high), None)
        axis.set_ylim(0, 1.05 * float(result.stock_high.max()) / KILO)
        return ""

    figure = _panels(result, dict.fromkeys(order, ""), draw)
    figure.supylabel(f"SOC stock, 0-{100 * float(result.attrs['stock_depth_m']):g} cm (kgC m⁻²)", **FONT)
    return figure


def sobol(result: xr.Dataset, scale: str = "ln") -> Figure:
    """First-order and total indices per parameter, one panel per depth, parameters by rising total of the last.

    `result` is that of `clm5.sobol`. Markers are means over sites with their intervals; pale lines hold the total of
    the middle 80 % of the sites; crosses are the published first-order indices.
    """
    one = result.sel(scale=scale)
    order = np.argsort(one.mean_total.isel(depth=-1).values, kind="stable")
    one = one.isel(parameter=order)
    row = np.arange(one.sizes["parameter"])
    depths = one.depth.values
    figure = Figure(figsize=(2.2 + 2.6 * len(depths), 0.27 * len(row) + 1.4), layout="constrained")
    axes = figure.subplots(1, len(depths), sharey=True, sharex=True, squeeze=False)[0]
    for axis, depth in zip(axes, depths, strict=True):
        here = one.sel(depth=depth)
        if here.sizes["site"] > 1:
            low, high = np.nanquantile(here.total.values, [0.1, 0.9], axis=0)
            axis.hlines(row, low, high, color="#D9D9D9", lw=6, label="total, middle 80 % of the sites")
        for name, word, shift, marker, colour in (
            ("total", "total", -0.16, "s", COLOUR["network"]),
            ("first_order", "first order", 0.16, "o", COLOUR["sampler"]),
        ):
            x, width = here[f"mean_{name}"].values, here[f"mean_{name}_ci"].values
            axis.hlines(row + shift, x - width, x + width, color=colour, lw=1)
            axis.plot(x, row + shift, marker, ms=4, color=colour, label=word)
        axis.plot(one.published_first_order, row + 0.16, "x", ms=5.5, mew=1.4, color=TRUTH, zorder=5,
                  label="first order, published")  # fmt: skip
        axis.axvline(0, color=PRIOR, lw=0.8)
        axis.set_title(f"stock 0-{100 * depth:g} cm", fontsize=9)
        axis.tick_params(axis="x", labelsize=8)
        axis.grid(axis="x", color="#E5E5E5", lw=0.6)
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set(yticks=row, ylim=(-0.6, len(row) - 0.4))
    axes[0].set_yticklabels([str(name) for name in one.parameter.values], fontsize=8)
    words = (
        f"share of the variance of {'ln ' if scale == 'ln' else ''}SOC over the box, mean over sites; lines: 95 %; "
        "published: of SOC itself"
    )
    largest = float(one.largest_share.mean())
    if largest > TOO_MUCH:
        words += f". NOT CONVERGED: one point of the sample holds {100 * largest:.0f} % of that variance"
    axes[0].set_xlim(*np.clip(axes[0].get_xlim(), -0.25, 1.25))
    figure.supxlabel(words, **FONT)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=4, frameon=False, fontsize=8)
    return figure


def _panels(result: xr.Dataset, pairs: dict[str, str], draw) -> Figure:
    """One panel per covariate; `draw` fills it and returns the label of its y-axis."""
    columns = min(4, len(pairs))
    rows = -(-len(pairs) // columns)
    figure = Figure(figsize=(2.5 * columns, 2.15 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis, (covariate, name) in zip(axes, pairs.items(), strict=False):
        axis.set_ylabel(draw(axis, covariate, name), **FONT)
        unit = str(result.units.sel(covariate=covariate).item())
        axis.set_xlabel(f"{covariate} ({unit})" if unit not in ("", "1") else covariate, **FONT)
        axis.tick_params(labelsize=6.5)
        axis.locator_params(axis="y", nbins=4)
        axis.ticklabel_format(axis="y", scilimits=(-3, 4), useMathText=True)
        axis.yaxis.get_offset_text().set_fontsize(6)
        axis.grid(axis="y", color="#E5E5E5", lw=0.6)
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
    for axis in axes[len(pairs) :]:
        axis.set_axis_off()
    return figure


def _curve(axis: Axes, one: xr.Dataset, mean: np.ndarray, spread, shift) -> None:
    """A line with its bands over a number, or points with their bars over categories."""
    there = np.isfinite(mean)
    x, mean = one["value"].values[there], mean[there]
    bands = [(spread, "#DDDDDD", 7.0)] + ([] if shift is None else [(shift, "#F5C7A0", 3.5)])
    if bool(one.categorical) or len(x) == 1:
        x = np.arange(len(x))
        for (low, high), colour, width in bands:
            axis.vlines(x, low[there], high[there], color=colour, lw=width)
        axis.plot(x, mean, "o", ms=4, color=LINE)
        words = one.meaning.values[there] if bool(one.categorical) else [f"{one['value'].values[there][0]:g}"]
        axis.set_xticks(x, [str(word).replace("_", " ") for word in words], rotation=90, fontsize=6.5)
        axis.set_xlim(-0.6, len(x) - 0.4)
    else:
        for (low, high), colour, _ in bands:
            axis.fill_between(x, low[there], high[there], color=colour, lw=0)
        axis.plot(x, mean, color=LINE, lw=1.6)
        axis.locator_params(axis="x", nbins=4)
