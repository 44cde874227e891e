"""Where the truth of a simulated site ranks among the draws of its posterior."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

import clm5
from bayes import diagnostics

KEPT = 99


def truth_ranks(tree: xr.DataTree, sites: xr.Dataset, kept: int = KEPT) -> xr.Dataset:
    """Rank the truth of every site among evenly spaced draws of its posterior.

    Args:
        tree: a posterior file of these sites, of any way of inference, with the options that it was made with.
        sites: a site data set with `true_unit`; for ranks that should be uniform, of `simulated_sites`.
        kept: draws that the truth is ranked among, spread evenly over all chains. They should be nearly independent:
            with twice as many effective draws as are kept, neighbours correlate at about exp(−4).

    Returns:
        Over (simulation, quantity): `rank`, 0 … kept, the number of draws below the truth; `truth`, and `mean`, `sd` of
        the kept draws, parameters in the unit cube. Over simulation: `converged` (`bayes.converged`), `r_hat` (largest)
        and `ess` (smallest, bulk or tail) over parameters and log likelihood, `divergences`. Quantities are the free
        parameters, `sigma` where it was inferred, `log_likelihood` of the site's horizons (Modrák et al. 2023: it sees
        a posterior that ignores data, which parameters alone cannot) and `stock` (gC m⁻², whole column). `is_parameter`
        says which are parameters.

    Raises:
        ValueError: the sites hold no truth or are not those of the file; the file holds no draws, or fewer than are
            to be kept.

    Source:
        Talts et al. 2018, arXiv 1804.06788; Modrák et al. 2023, Bayesian Analysis, doi 10.1214/23-BA1404.
    """
    if "true_unit" not in sites:
        raise ValueError("truth_ranks: sites must hold true_unit; make them with bayes.simulated_sites")
    if tree.attrs.get("sites_fingerprint") != clm5.sites.fingerprint(sites):
        raise ValueError(
            "truth_ranks: the posterior file was made from other sites, or from other values at them; pass the very "
            "data set that was sampled"
        )
    if "unit" not in tree["posterior"]:
        raise ValueError("truth_ranks: the posterior file holds no draws (`unit`), only summaries; keep its draws")
    unit = tree["posterior"]["unit"].transpose("chain", "draw", "site", "parameter").values
    pooled = unit.reshape(-1, *unit.shape[2:])
    if not 1 <= kept <= len(pooled):
        raise ValueError(f"truth_ranks: kept must lie in 1 … {len(pooled)}, the draws of a site; got {kept}")
    inferred = "sigma" in tree["posterior"]
    if inferred and "true_sigma" not in sites:
        raise ValueError(
            "truth_ranks: sigma was inferred, and the sites do not hold true_sigma; make them with "
            "bayes.simulated_sites and the configuration that they are sampled with"
        )
    free = [name for name in clm5.NAMES if name in tree.attrs.get("free", ",".join(clm5.NAMES)).split(",")]
    where = [clm5.NAMES.index(name) for name in free]
    evenly = ((np.arange(kept) + 0.5) * len(pooled) / kept).astype(int)
    options = clm5.ModelOptions.from_attributes(tree.attrs, "truth_ranks: the posterior file")
    with jax.enable_x64(True):
        columns = clm5.Forcing.from_sites(sites), clm5.Observations.from_sites(sites)
        true_unit = sites["true_unit"].transpose("site", "parameter").values.astype(float)
        together = np.concatenate([true_unit[None], pooled[evenly]])  # the truth is treated as a draw is
        sigma = None
        if inferred:
            sigmas = tree["posterior"]["sigma"].transpose("chain", "draw", "site").values.reshape(len(pooled), -1)
            sigma = np.concatenate([sites["true_sigma"].values[None], sigmas[evenly]]).astype(float)
        told = np.stack(_told(together, sigma, *columns, options), axis=-1)
    quantity = np.concatenate([together[..., where], *([] if sigma is None else [sigma[..., None]]), told], axis=-1)
    truth, draws = quantity[0], quantity[1:]
    names = [*free, *(["sigma"] if inferred else []), "log_likelihood", "stock"]
    both = ("simulation", "quantity")
    return xr.Dataset(
        {
            "rank": (both, (draws < truth).sum(0), {"long_name": f"draws of {kept} below the truth"}),
            "truth": (both, truth),
            "mean": (both, draws.mean(0)),
            "sd": (both, draws.std(0, ddof=1) if kept > 1 else np.zeros_like(truth)),
            **{name: ("simulation", values) for name, values in _quality(tree).items()},
        },
        {
            "simulation": sites["site"].values.astype(str),
            "quantity": np.array(names),
            "is_parameter": ("quantity", np.arange(len(names)) < len(free)),
        },
        attrs={"kept": kept, "method": tree.attrs["method"], **options.as_attributes()},
    )


@functools.partial(jax.jit, static_argnames="options")
def _told(unit, sigma, forcing: clm5.Forcing, observations: clm5.Observations, options: clm5.ModelOptions):
    """Log likelihood and stock (gC m⁻²) of points of the unit cube, (..., site, 21) → (..., site); sigma as these."""
    state = clm5.simulate(options.space.physical(unit), forcing, options.rules)
    return jnp.sum(clm5.log_likelihood(state.soc, observations, options, sigma=sigma), axis=-1), state.stock


def _quality(tree: xr.DataTree) -> dict[str, np.ndarray]:
    """Per site: did the chains converge, in the limits that `bayes.sample` reports?"""
    found = diagnostics.summary(tree)
    likelihood = tree["log_likelihood"]["soc_observed"].sum("horizon").transpose("chain", "draw", "site")
    fit = diagnostics.estimate(likelihood.values)
    sampled = diagnostics.judged(found)
    least = np.fmin(sampled["ess_bulk"].min("parameter").values, sampled["ess_tail"].min("parameter").values)
    lost = found.get("divergences", xr.zeros_like(found["site"], int)).values
    return {
        "converged": diagnostics.converged(found).values,
        "r_hat": np.fmax(sampled["rhat"].max("parameter").values, fit["rhat"]),
        "ess": np.fmin(least, np.fmin(fit["ess_bulk"], fit["ess_tail"])),
        "divergences": lost,
    }
