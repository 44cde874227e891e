"""Two posterior files in, one labelled data set out: every measure of agreement, gain, calibration, skill and cost."""

import json
import os
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import xarray as xr

from clm5._atomic import write_atomically
from clm5.parameters import NAMES, PARAMETERS
from comparisons import calibration, convergence, correlation, information, skill
from comparisons.cautions import find_cautions, refuse_different_bounds, refuse_too_few_draws
from comparisons.measures import Labelled, measure_kind
from comparisons.methods import reads_profile
from comparisons.reading import FORCED, WAYS, Way, common_sites, read

GAIN = 0.1  # a way claims to have learned about a parameter when its spread is on average 10 % below the prior's,
VARIATION = 0.05  # or when the variance of its posterior means over sites reaches 5 % of the prior's
SUBSETS = ("test", "validation", "train", "all")
AVERAGES = ("processes", "processes_without_carbon_input", "parameters", "parameters_both_claim")


def compare(network: xr.DataTree, sampler: xr.DataTree, sites: xr.Dataset, *, seed: int = 0) -> xr.Dataset:
    """Everything that the two posteriors say about each other, over the sites that both and `sites` hold.

    Args:
        network, sampler: posterior files (`clm5.open_posterior`) of the two ways.
        sites: the site data set; its order and its truth (virtual sites) are used.
        seed: of the resampled sites behind the intervals of r.

    Returns:
        Dataset with dims parameter, process, site, way, level, subset, metric, average, bound. Every variable says
        in `long_name` what it is. Attributes: `cautions` (sentences), and each file's own attributes behind
        `network_` and `sampler_`.

    Raises:
        ValueError: no common sites; different bounds; fewer than 4 draws per site; a file without what
            docs/architecture.md says it holds.
    """
    ids = common_sites(network, sampler, sites)
    refuse_different_bounds(network.attrs, sampler.attrs)
    ways = {"network": read(network, "network", ids), "sampler": read(sampler, "sampler", ids)}
    refuse_too_few_draws(ways)
    if ways["network"].processes != ways["sampler"].processes:
        raise ValueError(f"different processes: {ways['network'].processes} and {ways['sampler'].processes}")
    here = sites.isel(site=[[str(i) for i in sites.site.values].index(i) for i in ids])
    out = Labelled()
    for kind in ("parameter", "process"):
        measure_kind(out, kind, ways, _truth(kind, ways, here), seed=seed)
    _averages(out)
    _soil_carbon(out, ways)
    _convergence(out, ways)
    _cost(out, ways)
    split = ways["network"].split
    labels = np.full(len(ids), "unknown", dtype=object) if split is None else split.astype(object)
    out.add("split", ("site",), labels, "what the network used the site for")
    out.add("lon", ("site",), here.lon.values, "longitude", "degrees_east")
    out.add("lat", ("site",), here.lat.values, "latitude", "degrees_north")
    coords = {
        "site": np.array(ids, dtype=object),
        "way": list(WAYS),
        "parameter": list(NAMES),
        "process": list(ways["network"].processes),
        "level": list(calibration.LEVELS),
        "bound": ["lower", "upper"],
        "subset": list(SUBSETS),
        "metric": list(skill.METRICS),
        "average": list(AVERAGES),
        "unit": ("parameter", [p.unit for p in PARAMETERS]),
        "enters": ("parameter", [p.process for p in PARAMETERS]),
    }
    result = xr.Dataset(out.variables, coords)
    result.attrs = _attributes(ways) | {"seed": seed, "n_sites": len(ids)}
    result.attrs["cautions"] = find_cautions(network, sampler, sites, ids, ways, result)
    return result


def save(result: xr.Dataset, path: str | os.PathLike) -> Path:
    """Write a comparison as netCDF (h5netcdf), atomically: a reader sees the old file or the whole new one."""
    plain = result.copy()
    plain.attrs = {key: _plain(value) for key, value in result.attrs.items()}
    return write_atomically(Path(path), lambda temporary: plain.to_netcdf(temporary, engine="h5netcdf"))


def cautions_of(result: xr.Dataset) -> list[str]:
    """The cautions as a list, also of a result that was read back from a file."""
    found = result.attrs.get("cautions", [])
    return [found] * bool(found) if isinstance(found, str) else [str(sentence) for sentence in found]


def learned(result: xr.Dataset, kind: str = "parameter") -> xr.DataArray:
    """What each way claims and, where the truth is known, is right to: dims way and `kind`.

    On known truth a claim counts only where the posterior means lie nearer the truth (root mean square over sites)
    than the middle of the box; without it, as `claims`.
    """
    said = claims(result, kind)
    if f"{kind}_rmse" not in result:
        return said
    return said & (result[f"{kind}_rmse"] < result[f"{kind}_rmse_prior"])


def claims(result: xr.Dataset, kind: str = "parameter") -> xr.DataArray:
    """Whether a way says that it learned: a narrower spread than the prior's or means that vary over sites.

    The mean over sites of 1 − sd ratio reaches `attrs["gain_threshold"]`, or the variance of the posterior means over
    sites `attrs["variation_threshold"]` prior variances. A network can be narrow without having seen any data.
    """
    narrower = result[f"{kind}_sd_reduction"].mean("site") >= result.attrs["gain_threshold"]
    return narrower | (result[f"{kind}_mean_variation"] >= result.attrs["variation_threshold"])


def _truth(kind: str, ways: dict[str, Way], sites: xr.Dataset) -> np.ndarray | None:
    for way in ways.values():
        if kind in way.truth:
            return np.asarray(way.truth[kind], float)
    if kind == "parameter" and "true_theta" in sites:
        return np.asarray(sites.true_theta.transpose("site", "parameter").values, float)
    return None


def _averages(out: Labelled) -> None:
    """Mean r over the processes, with and without the forced one, over all parameters and over those both claim."""
    named = out.variables["process_pearson"][1].shape[0]
    free = np.array([name != FORCED for name in out.processes])
    narrower = out.variables["parameter_sd_reduction"][1].mean(1) >= GAIN
    both = (narrower | (out.variables["parameter_mean_variation"][1] >= VARIATION)).all(0)
    chosen = [("process", np.ones(named, bool)), ("process", free), ("parameter", np.ones(len(NAMES), bool))]
    chosen.append(("parameter", both))
    quoted = [out.variables[f"{kind}_pearson_prior"][1][keep] for kind, keep in chosen]
    means = np.array([r[np.isfinite(r)].mean() if np.isfinite(r).any() else np.nan for r in quoted])
    out.add("average_pearson_prior", ("average",), means, "mean Pearson r that quoting the prior's mean would score")
    for statistic in ("pearson", "spearman"):
        values, bounds = [], []
        for kind, keep in chosen:
            r = out.variables[f"{kind}_{statistic}"][1][keep]
            resampled = out.resampled[kind, statistic][:, keep]
            usable = np.isfinite(r) & np.isfinite(resampled).all(0)
            values.append(r[np.isfinite(r)].mean() if np.isfinite(r).any() else np.nan)
            mean = resampled[:, usable].mean(1) if usable.any() else np.full(len(resampled), np.nan)
            bounds.append(correlation.interval(mean))
        out.add(f"average_{statistic}", ("average",), np.array(values), f"mean {statistic} r over sites")
        out.add(
            f"average_{statistic}_interval", ("average", "bound"), np.array(bounds), "95 % interval, sites resampled"
        )


def _soil_carbon(out: Labelled, ways: dict[str, Way]) -> None:
    """Skill of the posterior-median prediction and coverage of its intervals, at sites held out and trained on."""
    split = ways["network"].split
    n_sites = len(ways["network"].observed)
    none = np.zeros(n_sites, bool)
    masks = {name: none if split is None else np.char.lower(split) == name for name in ("train", "validation")}
    masks |= {"test": ways["network"].held_out, "all": ~none}
    shape = (len(WAYS), len(SUBSETS))
    scores = np.full((*shape, len(skill.METRICS)), np.nan)
    share, error = (np.full((*shape, len(calibration.LEVELS)), np.nan) for _ in range(2))
    standing = np.full(shape, "no sites", dtype=object)
    for w, name in enumerate(WAYS):
        way = ways[name]
        flat = way.predicted.reshape(-1, *way.predicted.shape[2:]).astype(float)
        median = np.median(flat, axis=0)
        held = calibration.inside(calibration.intervals(flat), way.observed)
        for s, subset in enumerate(SUBSETS):
            mask = masks[subset]
            scored = skill.log_skill(median[mask], way.observed[mask])
            scores[w, s] = [scored[metric] for metric in skill.METRICS]
            share[w, s], error[w, s], _ = calibration.coverage(held[:, mask], calibration.LEVELS, axis=(1, 2))
            if mask.any():
                standing[w, s] = _standing(way, subset, split is not None)
    three = ("way", "subset")
    out.add("soc_sites", ("subset",), np.array([masks[s].sum() for s in SUBSETS]), "sites; test: new ones among them")
    out.add("soc_skill", (*three, "metric"), scores, "skill of the posterior-median SOC at horizons, natural log")
    out.add("soc_coverage", (*three, "level"), share, "share of observed horizons inside the predictive interval")
    out.add("soc_coverage_error", (*three, "level"), error, "binomial standard error if the intervals are right")
    out.add("soc_standing", three, standing, "whether this way had seen the observations it is scored on")


def _standing(way: Way, subset: str, known: bool) -> str:
    if way.name == "sampler":
        return "in sample"  # each chain is fitted to the very profile it is scored on
    if reads_profile(way.attrs):
        return "given the profile"
    if not known:
        return "unknown (no split in the file)"
    return {"test": "held out", "validation": "used to stop training", "train": "in sample", "all": "mixed"}[subset]


def _convergence(out: Labelled, ways: dict[str, Way]) -> None:
    """R-hat, ESS and divergences of chains; for trained members the share of variance between them."""
    two = ("way", "site", "parameter")

    def empty():
        return np.full((len(WAYS), *ways["network"].unit.shape[2:]), np.nan)

    rhat, ess, tail, between, diverging = empty(), empty(), empty(), empty(), empty()[..., 0]
    for w, name in enumerate(WAYS):
        way = ways[name]
        between[w] = information.between_share(way.unit)
        if not way.independent:
            found = way.diagnostics or convergence.diagnose(way.unit)
            rhat[w], ess[w], tail[w] = found["rhat"], found["ess_bulk"], found["ess_tail"]
        if way.diverging is not None:
            diverging[w] = way.diverging.mean((0, 1))
    out.add("rhat", two, rhat, "rank-normalised split R-hat; missing where draws are independent")
    out.add("ess_bulk", two, ess, "bulk effective sample size; missing where draws are independent")
    out.add("ess_tail", two, tail, "tail effective sample size; missing where draws are independent")
    out.add("between_chain_share", two, between, "share of the posterior variance that lies between chains (members)")
    out.add("diverging", ("way", "site"), diverging, "share of divergent transitions")


def _cost(out: Labelled, ways: dict[str, Way]) -> None:
    for key, text, unit in (
        ("wall_time_s", "wall time recorded in the file", "s"),
        ("n_solves", "model solves recorded in the file", "1"),
        ("n_gradients", "model gradients recorded in the file", "1"),
    ):
        out.add(key, ("way",), np.array([_number(ways[name].attrs, key) for name in WAYS]), text, unit)
    out.add("file_sites", ("way",), np.array([ways[w].file_sites for w in WAYS]), "sites that the file holds")
    slowest = out.variables["ess_bulk"][1]
    least = np.where(np.isfinite(slowest), slowest, np.inf).min(2)
    least = np.where(np.isfinite(least), least, np.nan).mean(1) if least.size else np.full(len(WAYS), np.nan)
    seconds = np.array([_number(ways[name].attrs, "wall_time_s") / ways[name].file_sites for name in WAYS])
    rate = least / np.where(seconds > 0, seconds, np.nan)
    text = "bulk effective draws of the slowest parameter, mean over sites, per second that a site took"
    out.add("ess_per_second", ("way",), rate, text, "s-1")
    deepest = np.array([_share_at_most(ways[name]) for name in WAYS])
    out.add("max_tree_depth_share", ("way",), deepest, "share of draws whose trajectory was cut at the largest tree")
    out.add("n_draws", ("way",), np.array([ways[w].n_draws for w in WAYS]), "draws")
    out.add("n_chains", ("way",), np.array([ways[w].unit.shape[0] for w in WAYS]), "chains, or trained members")


def _share_at_most(way: Way) -> float:
    """Share of draws at the largest tree that the file's `max_tree_depth` allows; NaN where it does not say."""
    deepest = _number(way.attrs, "max_tree_depth")
    if np.isnan(deepest):
        return np.nan
    if way.tree_depth is not None:
        return float((way.tree_depth >= deepest).mean())
    if way.n_steps is not None:
        return float((way.n_steps >= 2**deepest - 1).mean())
    return np.nan


def _number(attrs: Mapping[str, object], key: str) -> float:
    """An attribute as a number; NaN where it is missing."""
    return np.asarray(attrs.get(key, np.nan), dtype=float).item()


def _attributes(ways: dict[str, Way]) -> dict[str, object]:
    found: dict[str, object] = {"gain_threshold": GAIN, "variation_threshold": VARIATION}
    try:
        found["comparisons_version"] = version("binn-clm5")
    except PackageNotFoundError:
        found["comparisons_version"] = "not installed"
    for name in WAYS:
        found |= {f"{name}_{key}": _plain(value) for key, value in ways[name].attrs.items()}
    return found


def _plain(value):
    """A value that netCDF can hold as an attribute."""
    if value is None:
        return "none"
    if isinstance(value, bool | np.bool_):
        return int(value)
    if isinstance(value, dict):
        return json.dumps(value, sort_keys=True, default=str)
    if isinstance(value, list | tuple):
        return list(value) if len(value) else ""
    if isinstance(value, str | int | float | np.ndarray | np.number):
        return value
    return str(value)
