"""How well each horizon is foretold by the others of its profile: PSIS-LOO of a posterior file, site by site."""

import numpy as np
import xarray as xr
from arviz_stats.base import array_stats

PROFILE = ("site", "horizon")


def loo(tree: xr.DataTree) -> xr.Dataset:
    """Leave-one-out cross-validation by Pareto-smoothed importance sampling, within every profile.

    Args:
        tree: posterior file of a sampler, with `log_likelihood` of the horizons (chain, draw, site, horizon), NaN at
            padding.

    Returns:
        Over (site, horizon), NaN at padding: `elpd_i`, expected log density of the horizon given the others of its
        site, 1/(gC m⁻³) in the logarithm, and `pareto_k`, above `good_k` (an attribute) where it cannot be trusted.
        Over site: `elpd` (their sum), `se` of that sum, `p_loo` (effective number of parameters) and `high_k` (how many
        horizons are above `good_k`). Attributes `elpd`, `se`, `p_loo`, `high_k` are over all sites.
        With the proda error the density is a weighted pseudo-likelihood, and so is what is cross-validated.

    Raises:
        ValueError: the file holds no log likelihood, or was written by a network, whose draws are no posterior of a
            profile that could be left out of it.

    Source:
        Vehtari, Gelman & Gabry 2017, Statistics and Computing 27:1413; Vehtari et al. 2024, JMLR 25(72), for `good_k`.
        Computed by arviz-stats; `arviz.loo` of one site's measured horizons gives the same but for its relative number
        of effective draws, which there is a mean over everything in the file, and here over the site's parameters.
    """
    if "log_likelihood" not in tree.children:
        raise ValueError(f"loo: the file holds no group log_likelihood (groups: {', '.join(tree.children) or 'none'})")
    if tree.attrs.get("draws_are") == "independent":
        raise ValueError(
            f"loo: this file was written by a network (method {tree.attrs.get('method')!r}); leaving a horizon out "
            "reweights draws of a posterior given the profile, which these are not. Give it the file of a sampler"
        )
    density = tree["log_likelihood"]["soc_observed"].transpose("chain", "draw", *PROFILE)
    values = density.values.astype(float)
    n_draws = values.shape[0] * values.shape[1]
    measured = np.isfinite(values).all((0, 1))
    relative = _relative_draws(tree, n_draws)
    found = {name: np.full(measured.shape, np.nan) for name in ("elpd_i", "pareto_k", "p_i")}
    for site in np.flatnonzero(measured.any(1)):
        here = site, measured[site]
        answers = array_stats.loo(values[:, :, *here], chain_axis=0, draw_axis=1, r_eff=float(relative[site]))
        for name, answer in zip(found, answers, strict=True):
            found[name][here] = answer
    good_k = min(1 - 1 / np.log10(n_draws), 0.7)
    high = found["pareto_k"] > good_k
    total = np.nansum(found["elpd_i"], 1)
    n = measured.sum(1)
    coordinates = {name: density[name].values for name in PROFILE if name in density.coords}
    return xr.Dataset(
        {
            "elpd_i": (PROFILE, found["elpd_i"], {"long_name": "expected log predictive density, horizon left out"}),
            "pareto_k": (PROFILE, found["pareto_k"], {"long_name": "shape of the tail of the importance ratios"}),
            "elpd": ("site", total),
            "se": ("site", _standard_error(found["elpd_i"], n, 1)),
            "p_loo": ("site", np.nansum(found["p_i"], 1)),
            "high_k": ("site", high.sum(1)),
        },
        coordinates,
        attrs={
            "good_k": good_k,
            "n_draws": n_draws,
            "elpd": float(total.sum()),
            "se": float(_standard_error(found["elpd_i"].reshape(1, -1), measured.sum(), 1)[0]),
            "p_loo": float(np.nansum(found["p_i"])),
            "high_k": int(high.sum()),
        },
    )


def loo_verdict(result: xr.Dataset, most: int = 20) -> str:
    """The totals of `loo` in words, and the horizons whose Pareto k is too high, worst first."""
    n = int(result["pareto_k"].notnull().sum())
    attrs = result.attrs
    lines = [
        f"elpd of a horizon left out, {n} horizons of {result.sizes['site']} sites: {attrs['elpd']:.1f} ± "
        f"{attrs['se']:.1f}, effective parameters {attrs['p_loo']:.1f}.",
        f"{attrs['high_k']} of {n} horizons have Pareto k > {attrs['good_k']:.2f}: there the estimate is not reliable.",
    ]
    listed = result["pareto_k"].to_series().sort_values(ascending=False)
    listed = listed[listed > attrs["good_k"]]
    lines += [f"  {site}, horizon {horizon}: k {k:.2f}" for (site, horizon), k in listed.head(most).items()]
    if len(listed) > most:
        lines.append(f"  … and {len(listed) - most} more")
    return "\n".join(lines)


def _relative_draws(tree: xr.DataTree, n_draws: int) -> np.ndarray:
    """Effective draws of the parameters' means over the draws there are, mean over the sampled ones, per site."""
    unit = tree["posterior"]["unit"].transpose("chain", "draw", "site", "parameter").values
    relative = np.ones(unit.shape[2])
    for site in range(unit.shape[2]):
        draws = unit[:, :, site].astype(float)
        moving = draws[..., np.ptp(draws, axis=(0, 1)) > 0]
        if moving.shape[-1]:
            effective = array_stats.ess(moving, chain_axis=0, draw_axis=1, method="mean")
            relative[site] = min(float(np.mean(effective)) / n_draws, 1.0)
    return relative


def _standard_error(values: np.ndarray, n, axis: int) -> np.ndarray:
    """Standard error of a sum of n values that differ; NaN for fewer than two."""
    mean = np.nansum(values, axis) / np.maximum(n, 1)
    variance = np.nansum((values - np.expand_dims(mean, axis)) ** 2, axis) / np.maximum(n - 1, 1)
    return np.where(np.asarray(n) > 1, np.sqrt(n * variance), np.nan)
