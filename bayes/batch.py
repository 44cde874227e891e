"""One batch of sites, from the draws to a posterior tree with its diagnostics: the piece that runs are made of."""

from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Bool

import clm5
from bayes import diagnostics
from bayes.config import Config
from bayes.sampler import STATISTICS, Tick, draw_batch, padded_places, silent

RECORDED = ("chains", "warmup", "draws", "target_accept", "scale", "reruns", "thin", "keep")
OF_SAMPLER = {"nuts": "max_tree_depth", "hmc": "steps"}  # what the length of its trajectories follows from
SUMMED = ("attempts", "n_gradients", "seconds")  # over the attempts at a site


def sample_batch(
    sites: xr.Dataset, config: Config, seed: int, *, attempt: int = 0, width: int | None = None, tick: Tick = silent
) -> xr.DataTree:
    """The posterior tree of one batch of sites; arguments as for `bayes.sampler.draw_batch`.

    Returns:
        A posterior tree of these sites with a group `diagnostics`: `bayes.summary` of all draws, quantiles, and per
        site `draws` (that the diagnostics rest on), `attempt`, `attempts`, `converged`, `n_gradients`, `seconds`. Its
        draws are thinned, or left out, as `config` says. Every attempt's tree has the same shapes.
    """
    arrays = draw_batch(sites, config, seed, attempt=attempt, width=width, tick=tick)
    n, longer = sites.sizes["site"], config.longer(attempt)
    places = padded_places(n, width)  # the last batch's tree has the shape of all others while it is made: one program
    statistics = {name: arrays[name][:, :, places] for name in STATISTICS}
    if config.sampler == "nuts":
        statistics["tree_depth"] = np.floor(np.log2(np.maximum(statistics["n_steps"], 1))).astype(int) + 1
    n_gradients = int(arrays["n_gradients"].sum())
    tree = clm5.assemble_posterior(
        arrays["unit"][:, :, places],
        sites.isel(site=places),
        config.model,
        method=config.sampler,
        seed=seed,
        wall_time=float(arrays["seconds"].sum()),
        n_solves=n_gradients,
        n_gradients=n_gradients,
        sigma=arrays["sigma"][:, :, places] if config.infer_sigma else None,
        sample_stats=statistics,
        attrs=recorded(config),
    ).isel(site=slice(n))
    table = diagnostics.of_draws(tree).assign_attrs(diagnostics.LIMITS)
    good = diagnostics.converged(table).values
    table = table.assign(
        {
            "attempt": ("site", np.full(n, attempt)),
            "attempts": ("site", np.ones(n, int)),
            "converged": ("site", good),
            "n_gradients": ("site", arrays["n_gradients"].astype(int)),
            "seconds": ("site", arrays["seconds"]),
        }
    )
    table["attempt"].attrs["long_name"] = "the attempt whose draws are kept, from 0"
    table["attempts"].attrs["long_name"] = "attempts made"
    table["seconds"].attrs.update(units="s", long_name="share of the time in the sampler, all attempts")
    kept = tree if config.keep == "draws" else _without_draws(tree)
    kept = _thinned(kept, longer.thin)
    kept["diagnostics"] = xr.DataTree(table)
    return kept


def better(old: xr.DataTree, new: xr.DataTree) -> xr.DataTree:
    """Of two attempts at the same sites, per site the one nearer to the limits; counts of both are added up."""
    tables = [tree["diagnostics"].to_dataset() for tree in (old, new)]
    take = diagnostics.shortfall(tables[1]).values <= diagnostics.shortfall(tables[0]).values
    merged = xr.DataTree.from_dict(
        {name: _chosen(old[name].to_dataset(), new[name].to_dataset(), take) for name in old.children}
    )
    for name in SUMMED:
        merged["diagnostics"][name] = tables[0][name] + tables[1][name]
        merged["diagnostics"][name].attrs = tables[1][name].attrs
    merged.attrs = dict(old.attrs)
    return merged


def recorded(config: Config) -> dict[str, Any]:
    """What a posterior file says of its sampling, as root attributes."""
    inferred = {"sigma_spread": config.sigma_spread} if config.infer_sigma else {}
    chosen = {name: getattr(config, name) for name in (*RECORDED, OF_SAMPLER[config.sampler])}
    return chosen | inferred | config.said_of_parameters()


def _chosen(old: xr.Dataset, new: xr.Dataset, take: Bool[np.ndarray, " site"]) -> xr.Dataset:
    """`new` at the sites that are to be taken, `old` elsewhere."""
    where = xr.DataArray(take, dims="site")
    result = old.copy()
    for name, variable in new.data_vars.items():
        if "site" in variable.dims:
            values = xr.where(where, variable.drop_vars(variable.coords), old[name].drop_vars(old[name].coords))
            result[name] = (variable.dims, values.transpose(*variable.dims).values, variable.attrs)
    return result


def _thinned(tree: xr.DataTree, every: int) -> xr.DataTree:
    """Every so manieth draw of what was sampled, numbered anew."""

    def thin(group: xr.Dataset) -> xr.Dataset:
        kept = group.isel(draw=slice(every - 1, None, every))
        return kept.assign_coords(draw=np.arange(kept.sizes["draw"]))

    groups = {name: node.to_dataset() for name, node in tree.children.items()}
    sampled = ("posterior", "posterior_predictive", "log_likelihood", "sample_stats")
    result = xr.DataTree.from_dict({n: thin(g) if n in sampled and every > 1 else g for n, g in groups.items()})
    result.attrs = dict(tree.attrs)
    return result


def _without_draws(tree: xr.DataTree) -> xr.DataTree:
    result = xr.DataTree.from_dict({name: tree[name].to_dataset() for name in ("observed_data", "constant_data")})
    result.attrs = dict(tree.attrs)
    return result
