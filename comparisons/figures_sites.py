"""Figures of single sites: posteriors over each other, soil-carbon profiles with bands, and where the sites are."""

from importlib.resources import files

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from clm5.parameters import NAMES, ParameterSpace
from comparisons.compare import claims
from comparisons.figures import COLOUR, FONT, PRIOR, TRUTH
from comparisons.overlap import density_of
from comparisons.reading import UNSEEN, WAYS

BAND = (5, 95)  # percentiles
KILO = 1000.0  # g in a kg


def choose_sites(result: xr.Dataset) -> dict[str, str]:
    """The sites of most, median and least overlap, over the parameters that the sampler claims: word → id."""
    mean = _informed_overlap(result)
    order = np.argsort(-mean, kind="stable")
    picks = {"most agreement": order[0], "median": order[len(order) // 2], "least agreement": order[-1]}
    ids = [str(i) for i in result.site.values]
    return {word: ids[k] for word, k in picks.items()} if len(ids) >= 3 else {i: i for i in ids}


def marginals(network: xr.DataTree, sampler: xr.DataTree, result: xr.Dataset, chosen: dict[str, str]) -> Figure:
    """Posterior densities of both ways for the six parameters of least spread, one row per chosen site.

    The grey line is the prior; a black tick is the truth, where it is known.
    """
    gain = result.parameter_sd_reduction.mean(("site", "way")).values
    names = [str(name) for name in result.parameter.values[np.argsort(-gain)[:6]]]
    figure = Figure(figsize=(9, 1.75 * len(chosen) + 0.5), layout="constrained")
    grid = figure.subplots(len(chosen), len(names), squeeze=False)
    for row, (word, site) in zip(grid, chosen.items(), strict=True):
        for axis, name in zip(row, names, strict=True):
            at = {"site": site, "parameter": name}
            low, high = _box(sampler, name)
            peaks = []
            for way, tree in zip(WAYS, (network, sampler), strict=True):
                draws = _at_site(tree, "posterior", "unit", site).sel(parameter=name).values.reshape(-1)
                density = density_of(draws, 0.0, 1.0) * 512
                peaks.append(density.max())
                x = low + (np.arange(512) + 0.5) / 512 * (high - low)
                axis.fill_between(x, density, color=COLOUR[way], alpha=0.25, lw=0)
                axis.plot(x, density, color=COLOUR[way], lw=1.3, ls="-" if way == "network" else "--", label=way)
            axis.hlines(1, low, high, color=PRIOR, lw=0.9, ls=":", label="prior")
            if "parameter_truth" in result:
                axis.plot(float(result.parameter_truth.sel(at)), 0, "|", color=TRUTH, ms=16, mew=1.8, clip_on=False,
                          label="truth", zorder=5)  # fmt: skip
            axis.set(xlim=(low, high), ylim=(0, 1.05 * min(max(peaks), 4 * min(peaks))), yticks=[])  # a spike is cut
            axis.tick_params(labelsize=6)
            axis.locator_params(axis="x", nbins=3)
            axis.spines[["top", "left", "right"]].set_visible(False)
            unit = result.unit.sel(parameter=name).item()
            title = f"{name} ({unit})\n" if unit != "1" else f"{name}\n"
            shared = f"overlap {float(result.parameter_overlap.sel(at)):.2f}"
            axis.set_title((title if axis in grid[0] else "") + shared, fontsize=7.5)
        row[0].set_ylabel(f"{word}\n{site}" if word != site else site, fontsize=7.5)
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    return figure


def soc_profiles(network: xr.DataTree, sampler: xr.DataTree, result: xr.Dataset, chosen: dict[str, str]) -> Figure:
    """Soil carbon by depth at the chosen sites: median and 90 % band of both ways, observed horizons as boxes.

    The bands are of the modelled carbon, without observation error. A box spans a horizon's depth; it is drawn ± one
    sigma of the file's log-normal error wide.
    """
    figure = Figure(figsize=(3.0 * len(chosen), 4.2), layout="constrained")
    axes = figure.subplots(1, len(chosen), sharey=True, squeeze=False)[0]
    deepest = 0.0
    for axis, (word, site) in zip(axes, chosen.items(), strict=True):
        for way, tree in zip(WAYS, (network, sampler), strict=True):
            soc = _at_site(tree, "posterior", "soc", site)
            draws = soc.transpose("chain", "draw", "layer").values.reshape(-1, soc.sizes["layer"]) / KILO
            low, middle, high = np.percentile(draws, [BAND[0], 50, BAND[1]], axis=0)
            soil = low > 0  # below bedrock there is none, and zero has no place on a logarithmic axis
            low, middle, high, depth = (values[soil] for values in (low, middle, high, soc.layer.values))
            axis.fill_betweenx(depth, low, high, color=COLOUR[way], alpha=0.22, lw=0)
            axis.plot(middle, depth, color=COLOUR[way], lw=1.6, ls="-" if way == "network" else "--", label=way)
        observed = _at_site(sampler, "observed_data", "soc_observed", site).values / KILO
        upper, lower = (_at_site(sampler, "constant_data", v, site).values for v in ("upper", "lower"))
        lognormal = sampler.attrs.get("error") == "lognormal"
        factor = np.exp(float(sampler.attrs.get("sigma", 0))) if lognormal else 1 + 0.05
        label = "observed ± sigma" if lognormal else "observed"
        for k in np.flatnonzero(np.isfinite(observed) & np.isfinite(upper) & np.isfinite(lower)):
            box = (observed[k] / factor, upper[k]), observed[k] * factor - observed[k] / factor, lower[k] - upper[k]
            axis.add_patch(Rectangle(*box, fill=False, ec=TRUTH, lw=0.9, zorder=4, label=label))
            axis.vlines(observed[k], upper[k], lower[k], color=TRUTH, lw=1.6, zorder=5)
            label = "_"  # once in the legend
            deepest = max(deepest, lower[k])
        axis.set_xscale("log")
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.set_title(f"{word}\n{site}" if word != site else site, **FONT)
        axis.tick_params(labelsize=7, which="both")
        axis.grid(color="#E5E5E5", lw=0.6)
        axis.set_axisbelow(True)
    shown = max(1.2 * deepest, 0.5)
    axes[0].set(ylim=(shown, 0), ylabel="depth (m)")
    for axis in axes:
        _fit_width(axis, shown)
    figure.supxlabel("soil organic carbon (kgC m⁻³)", **FONT)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, frameon=False, fontsize=8)
    return figure


def site_map(result: xr.Dataset) -> Figure:
    """Where the sites are, coloured by the overlap over what the sampler claims; stars were held out."""
    lon, lat, colour = result.lon.values, result.lat.values, _informed_overlap(result)
    figure = Figure(figsize=(8, 4.4), layout="constrained")
    axis = figure.subplots()
    outline = np.load(str(files("comparisons") / "data" / "land.npz"))["centidegrees"]
    land = np.where(outline == -32768, np.nan, outline / 100)
    axis.plot(land[:, 0], land[:, 1], color="#9A9A9A", lw=0.6)
    test = np.isin(result.split.values.astype(str), UNSEEN)
    for chosen, marker, size in ((~test, "o", 34), (test, "*", 110)):
        points = axis.scatter(lon[chosen], lat[chosen], size, colour[chosen], marker=marker, cmap="cividis", vmin=0,
                              vmax=1, edgecolors="#222222", linewidths=0.5, zorder=3)  # fmt: skip
    figure.colorbar(points, ax=axis, label="mean overlap", shrink=0.8, pad=0.02)
    centre, half = (lon.min() + lon.max()) / 2, max(0.6 * np.ptp(lon), 5)
    middle, tall = (lat.min() + lat.max()) / 2, max(0.6 * np.ptp(lat), 5)
    stretch = 1 / np.cos(np.radians(np.clip(middle, -60, 60)))
    if half * 2 > 220:  # the sites span the globe
        axis.set(xlim=(-180, 180), ylim=(-60, 85))
    else:
        axis.set(
            xlim=(max(centre - half, -180), min(centre + half, 180)), ylim=(max(middle - tall, -90), middle + tall)
        )
    axis.set_xlabel("longitude (degrees east)", **FONT)
    axis.set_ylabel("latitude (degrees north)", **FONT)
    axis.tick_params(labelsize=7)
    axis.set_aspect(stretch if half * 2 <= 220 else 1)
    return figure


def _informed_overlap(result: xr.Dataset) -> np.ndarray:
    """Mean overlap per site over the parameters that the sampler claims; over all when there is none."""
    informed = claims(result).sel(way="sampler").values
    overlap = result.parameter_overlap.values
    return overlap[:, informed].mean(1) if informed.any() else overlap.mean(1)


def _at_site(tree: xr.DataTree, group: str, variable: str, site: str) -> xr.DataArray:
    names = [str(i) for i in tree["posterior"].to_dataset()["site"].values]
    return tree[group].to_dataset()[variable].isel(site=names.index(site))


def _box(tree: xr.DataTree, name: str) -> tuple[float, float]:
    space, at = ParameterSpace(str(tree.attrs["bounds"])), NAMES.index(name)
    return float(space.lower[at]), float(space.upper[at])


def _fit_width(axis, shown: float) -> None:
    """Limit the logarithmic x-axis to what is visible above the depth that is shown."""
    values = [patch.get_x() * np.array([1.0, 1.0]) + np.array([0.0, patch.get_width()]) for patch in axis.patches]
    for line in axis.lines:
        x, y = np.asarray(line.get_xdata(), float), np.asarray(line.get_ydata(), float)
        values.append(x[y <= shown])
    for band in axis.collections:
        for path in band.get_paths():
            values.append(path.vertices[path.vertices[:, 1] <= shown, 0])
    seen = np.concatenate(values)
    seen = seen[np.isfinite(seen) & (seen > 0)]
    if seen.size:
        axis.set_xlim(seen.min() / 1.15, seen.max() * 1.15)
        decades = np.log10(seen.max() / seen.min())
        axis.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if decades < 1.7 else (1.0,)))
