"""How far a sampler's numbers can be trusted: R-hat, effective draws and Monte Carlo error beside every estimate."""

import warnings
from collections.abc import Sequence

import numpy as np
import pandas as pd
import xarray as xr
from arviz_stats.base import array_stats
from jaxtyping import Float

R_HAT_LIMIT = 1.01  # Vehtari et al. 2021, Bayesian Analysis 16:667
ESS_LIMIT = 400.0  # the same; 100 per chain of four
LIMITS = {"r_hat_limit": R_HAT_LIMIT, "ess_limit": ESS_LIMIT}
NEAR_BOUND = 0.01  # of the width of the box
QUANTILES = (0.025, 0.05, 0.25, 0.5, 0.75, 0.95, 0.975)

_LONG_NAMES = {
    "mean": "posterior mean",
    "sd": "posterior standard deviation",
    "rhat": "rank-normalised split R-hat",
    "ess_bulk": "bulk effective sample size",
    "ess_tail": "tail effective sample size",
    "mcse_mean": "Monte Carlo standard error of the mean",
    "mcse_sd": "Monte Carlo standard error of the standard deviation",
    "quantile": "posterior quantiles",
}


def estimate(draws: Float[np.ndarray, "chain draw *quantity"]) -> dict[str, Float[np.ndarray, "*quantity"]]:
    """Mean, sd and their trustworthiness of any stack of chains.

    Returns:
        `mean`, `sd`, `rhat`, `ess_bulk`, `ess_tail`, `mcse_mean`, `mcse_sd`, each of the quantities' shape. A quantity
        that never moves (a parameter that is held fixed) has R-hat and effective sizes NaN and sd and errors 0.

    Source:
        Vehtari, Gelman, Simpson, Carpenter & Bürkner 2021, Bayesian Analysis 16:667, as computed by arviz-stats.
    """
    draws = np.asarray(draws, float)
    shape = draws.shape[2:]
    flat = draws.reshape(*draws.shape[:2], -1)
    moves = np.ptp(flat, axis=(0, 1)) > 0
    result = {"mean": flat.mean(axis=(0, 1)), "sd": np.where(moves, flat.std(axis=(0, 1), ddof=1), 0.0)}
    moving = flat[:, :, moves]

    def spread_out(function, still: float, **kwargs):
        full = np.full(moves.shape, still)
        if moves.any():
            full[moves] = function(moving, chain_axis=0, draw_axis=1, **kwargs)
        return full

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # chains that are each constant: R-hat inf is the right answer
        result["rhat"] = spread_out(array_stats.rhat, np.nan, method="rank")
        result["ess_bulk"] = spread_out(array_stats.ess, np.nan, method="bulk")
        result["ess_tail"] = spread_out(array_stats.ess, np.nan, method="tail", prob=(0.05, 0.95))
        result["mcse_mean"] = spread_out(array_stats.mcse, 0.0, method="mean")
        result["mcse_sd"] = spread_out(array_stats.mcse, 0.0, method="sd")
    return {name: value.reshape(shape) for name, value in result.items()}


def summary(tree: xr.DataTree) -> xr.Dataset:
    """Diagnostics of a posterior file: those that it holds, which rest on all draws, thinned ones included; otherwise
    those of the draws that it holds (`of_draws`)."""
    if "diagnostics" in tree.children:
        return tree["diagnostics"].to_dataset().load()
    return of_draws(tree)


def of_draws(tree: xr.DataTree) -> xr.Dataset:
    """Diagnostics of the draws of a posterior tree.

    Args:
        tree: a posterior file of a sampler, with `posterior` holding `theta`, `unit` (chain, draw, site, parameter) and
            processes (chain, draw, site, process).

    Returns:
        Per (site, parameter) `mean`, `sd` (physical units), `rhat`, `ess_bulk`, `ess_tail`, `mcse_mean`, `mcse_sd`,
        `quantile` (with the axis `probability`), `near_bound` (share of draws within 1 % of an end of the box); the
        same without `near_bound` per (site, process), with the prefix `process_`; per site `draws`, `divergences` and
        `bfmi` (energy, Betancourt 2016), the lowest of its chains; and where the scale of the error was inferred, of it
        the same per site, with the prefix `sigma_`.
    """
    posterior = tree["posterior"].dataset
    theta = posterior["theta"].transpose("chain", "draw", "site", "parameter")
    variables: dict[str, tuple] = {
        name: (("site", "parameter"), value) for name, value in estimate(theta.values).items()
    }
    variables["quantile"] = (("site", "parameter", "probability"), _quantiles(theta.values))
    unit = posterior["unit"].transpose("chain", "draw", "site", "parameter").values
    at_bound = np.mean((unit < NEAR_BOUND) | (unit > 1 - NEAR_BOUND), axis=(0, 1))
    fixed = np.ptp(unit, axis=(0, 1)) == 0
    variables["near_bound"] = (("site", "parameter"), np.where(fixed, np.nan, at_bound))
    coordinates = {
        "site": theta["site"].values,
        "parameter": theta["parameter"].values,
        "probability": np.array(QUANTILES),
    }
    for process in posterior.data_vars.values():
        if "process" in process.dims:
            values = process.transpose("chain", "draw", "site", "process").values
            coordinates["process"] = posterior["process"].values
            variables |= {f"process_{n}": (("site", "process"), v) for n, v in estimate(values).items()}
            variables["process_quantile"] = (("site", "process", "probability"), _quantiles(values))
    if "sigma" in posterior:
        sigma = posterior["sigma"].transpose("chain", "draw", "site").values
        variables |= {f"sigma_{name}": (("site",), value) for name, value in estimate(sigma).items()}
        variables["sigma_quantile"] = (("site", "probability"), _quantiles(sigma))
    if "sample_stats" in tree.children and "diverging" in tree["sample_stats"]:
        diverging = tree["sample_stats"]["diverging"].transpose("chain", "draw", "site").values
        variables["divergences"] = (("site",), diverging.astype(int).sum(axis=(0, 1)))
    if "sample_stats" in tree.children and "energy" in tree["sample_stats"]:
        energy = tree["sample_stats"]["energy"].transpose("chain", "draw", "site").values
        of_site = (array_stats.bfmi(chains, chain_axis=0, draw_axis=1) for chains in np.moveaxis(energy, 2, 0))
        variables["bfmi"] = (("site",), np.array([chains.min() for chains in of_site]))
    n_draws = theta.sizes["chain"] * theta.sizes["draw"]
    variables["draws"] = (("site",), np.full(theta.sizes["site"], n_draws))
    result = xr.Dataset(variables, coordinates)
    for name, variable in result.data_vars.items():
        key = str(name).removeprefix("process_").removeprefix("sigma_")
        if key in _LONG_NAMES:
            variable.attrs["long_name"] = _LONG_NAMES[key]
    if "near_bound" in result:
        result["near_bound"].attrs["long_name"] = "share of draws within 1 % of an end of the prior box"
    return result


def _quantiles(draws: Float[np.ndarray, "chain draw *quantity"]) -> Float[np.ndarray, "*quantity probability"]:
    return np.moveaxis(np.quantile(draws, QUANTILES, axis=(0, 1)), 0, -1).astype(float)


def shortfall(summary: xr.Dataset, r_hat_limit: float = R_HAT_LIMIT, ess_limit: float = ESS_LIMIT) -> xr.DataArray:
    """How far a site is from the limits, in its worst sampled parameter: 1 is at a limit, more is beyond it.

    Returns:
        Per site the largest of (R-hat − 1) / (limit − 1) and limit / effective draws; 0 where nothing was sampled.
    """
    sampled = judged(summary)
    lacks = [(sampled["rhat"] - 1) / (r_hat_limit - 1), *(ess_limit / sampled[n] for n in ("ess_bulk", "ess_tail"))]
    worst = xr.concat(lacks, "lack").max("lack", skipna=False)
    return worst.fillna(np.inf).where(sampled["sd"] > 0, 0.0).max("parameter")


def converged(summary: xr.Dataset, r_hat_limit: float = R_HAT_LIMIT, ess_limit: float = ESS_LIMIT) -> xr.DataArray:
    """Which sites have, in every parameter that was sampled, R-hat below and both effective sizes at or above a limit.

    Returns:
        Boolean per site. A parameter that is NaN because it is fixed is left out; a sigma that was inferred counts as
        one more.
    """
    sampled = judged(summary)
    good = (sampled["rhat"] < r_hat_limit) & (sampled["ess_bulk"] >= ess_limit) & (sampled["ess_tail"] >= ess_limit)
    return (good | (sampled["sd"] == 0)).all("parameter")


def judged(summary: xr.Dataset) -> xr.Dataset:
    """What the limits are for, over (site, parameter): the parameters and, each as one more, a sigma that was inferred
    and what all sites share in a hierarchical model."""
    names = ["sd", "rhat", "ess_bulk", "ess_tail"]
    parts = [summary[names]]
    for prefix in ("sigma", "tau", "coefficients"):
        if f"{prefix}_rhat" not in summary:
            continue
        one = summary[[f"{prefix}_{name}" for name in names]].rename({f"{prefix}_{name}": name for name in names})
        dims = [str(dim) for dim in one.dims if dim != "site"]
        if "site" not in one.dims:
            one = one.expand_dims(site=summary["site"])
        one = one.stack(parameter=dims) if dims else one.expand_dims("parameter")
        where = one["parameter"].values if dims else [()]
        labels = [" ".join([prefix, *(("of", *map(str, np.atleast_1d(w))) if dims else ())]) for w in where]
        one = one.drop_vars(["parameter", *dims], errors="ignore")
        parts.append(one.assign_coords(parameter=labels))
    return (
        parts[0] if len(parts) == 1 else xr.concat(parts, "parameter", join="exact", coords="minimal", compat="equals")
    )


def unconverged(summary: xr.Dataset, r_hat_limit: float = R_HAT_LIMIT, ess_limit: float = ESS_LIMIT) -> pd.DataFrame:
    """The sites that miss the limits, worst first, one row each.

    Returns:
        Columns `site`, `parameter` (that of the largest R-hat), `r_hat`, `effective_draws` (fewest of any parameter),
        and `attempts` where the file counts them.
    """
    failing = judged(summary).isel(site=~converged(summary, r_hat_limit, ess_limit).values)
    rows = []
    for site in failing["site"].values:
        row = failing.sel(site=site)
        rhat = np.where(row["sd"] > 0, row["rhat"], -np.inf)
        least = np.fmin(row["ess_bulk"], row["ess_tail"])
        rows.append((str(site), str(row["parameter"].values[np.nanargmax(rhat)]), np.nanmax(rhat), float(least.min())))
    table = pd.DataFrame(rows, columns=["site", "parameter", "r_hat", "effective_draws"])
    if "attempts" in summary:
        table["attempts"] = summary["attempts"].sel(site=failing["site"]).values
    return table.sort_values("r_hat", ascending=False, kind="stable", ignore_index=True)


def verdict(summary: xr.Dataset, r_hat_limit: float = R_HAT_LIMIT, ess_limit: float = ESS_LIMIT, most: int = 20) -> str:
    """Convergence in words: how many sites meet the limits, and which do not, worst first.

    Args:
        summary: of `summary`.
        r_hat_limit, ess_limit: what a site has to meet in every sampled parameter.
        most: how many failing sites are listed.
    """
    good = converged(summary, r_hat_limit, ess_limit)
    n_sites = good.sizes["site"]
    lines = [
        f"{int(good.sum())} of {n_sites} sites meet R-hat < {r_hat_limit:g} and effective draws >= {ess_limit:g} "
        f"in every parameter."
    ]
    failing = unconverged(summary, r_hat_limit, ess_limit)
    for row in failing.head(most).itertuples():
        after = f", after {row.attempts} attempts" if getattr(row, "attempts", 1) > 1 else ""
        least = f"fewest effective draws {row.effective_draws:.0f}"
        lines.append(f"  {row.site}: R-hat {row.r_hat:.3f} ({row.parameter}), {least}{after}")
    if len(failing) > most:
        lines.append(f"  … and {len(failing) - most} more: `bayes.unconverged` has them all")
    if "divergences" in summary and int(summary["divergences"].sum()):
        struck = summary["site"].values[summary["divergences"].values > 0]
        lines.append(f"Divergent draws: {int(summary['divergences'].sum())} at {_listed(struck, most)}.")
    if int(summary.get("joint_divergences", 0)):
        lines.append(f"Divergent draws of all sites together: {int(summary['joint_divergences'])}.")
    return "\n".join(lines)


def _listed(ids: Sequence | np.ndarray, most: int) -> str:
    shown = ", ".join(map(str, ids[:most]))
    return shown + (f" and {len(ids) - most} more sites" if len(ids) > most else "")
