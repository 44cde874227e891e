"""`sample_hierarchical`: all sites at once, their parameters pooled by covariates or region as far as data ask."""

import os
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import xarray as xr
from jaxtyping import Array, Float
from numpyro.infer import MCMC, NUTS, init_to_sample

import clm5
from bayes import diagnostics, model
from bayes.batch import recorded
from bayes.design import design_matrix
from bayes.hierarchical_config import HierarchicalConfig
from bayes.runs import refuse_too_large

STATISTICS = {
    "lp": "potential_energy",
    "energy": "energy",
    "diverging": "diverging",
    "n_steps": "num_steps",
    "acceptance_rate": "accept_prob",
    "step_size": "adapt_state.step_size",
}


def hierarchical_model(
    forcing: clm5.Forcing,
    observations: clm5.Observations | None,
    design: Float[Array, "site column"],
    config: HierarchicalConfig,
) -> None:
    """Sites that resemble each other: a parameter's scores are a regression on covariates and what is a site's own.

        score[s, p] = √(1 − τ[p]²) · (x[s] · B[:, p]) + τ[p] · z[s, p],   B, z ~ Normal(0, 1)

    The score is that of `site_model`: the unit value is its normal distribution function. Rows x[s] have length 1 on
    average (`bayes.design.design_matrix`), so that whatever τ is, the prior of a site is the box of independent sites:
    exactly so without numeric covariates, and in its mean over sites with them. τ ~ HalfNormal(config.tau_scale), cut
    off at 1. With τ = 1 sites are independent, with τ = 0 covariates alone decide. z is sampled, not the score, which
    NUTS would find hard where data say little.

    Args:
        forcing: what the columns receive, leaves (site, ...).
        observations: their horizons, (site, horizon); without them the model is the prior alone.
        design: `design_matrix` of the sites.
        config: which parameters are free, and the model.

    Sites recorded: `coefficients` (column, free), `tau` (free,), `own` (site, free), `unit` (site, 21); `sigma_score`
    and `sigma` (site,) where the scale of the error is inferred; and the factor `soc_observed`.
    """
    sampler = config.sampler
    n_site, n_column = design.shape
    free = np.array([clm5.NAMES.index(name) for name in sampler.free_names])
    standard = lambda *shape: dist.Normal(0.0, 1.0).expand(shape).to_event(len(shape))  # noqa: E731
    coefficients = numpyro.sample("coefficients", standard(n_column, len(free)))
    if config.tau is None:
        tau = numpyro.sample("tau", dist.TruncatedNormal(0.0, config.tau_scale, low=0.0, high=1.0).expand([len(free)]))
    else:
        tau = numpyro.deterministic("tau", jnp.full(len(free), float(config.tau)))
    own = numpyro.sample("own", standard(n_site, len(free)))
    score = jnp.sqrt(1 - tau**2) * (design @ coefficients) + tau * own
    unit = jnp.tile(jnp.asarray(sampler.fixed_unit), (n_site, 1)).at[:, free].set(jax.scipy.special.ndtr(score))
    unit = numpyro.deterministic("unit", unit)
    sigma = None
    if sampler.spread_of_sigma is not None:
        sigma_score = numpyro.sample("sigma_score", standard(n_site))
        sigma = model.sigma_from_score(sigma_score, sampler.model, sampler.spread_of_sigma)
        numpyro.deterministic("sigma", sigma)
    if observations is not None:
        soc = clm5.simulate(sampler.model.space.physical(unit), forcing, sampler.model.rules).soc
        density = clm5.log_likelihood(soc, observations, sampler.model, sigma=sigma)
        numpyro.factor("soc_observed", jnp.sum(density))


def sample_hierarchical(
    sites: xr.Dataset,
    config: HierarchicalConfig | None = None,
    out: str | os.PathLike | None = None,
    seed: int = 0,
    progress: bool = True,
) -> xr.DataTree:
    """Posterior of all sites together, their parameters partially pooled (`hierarchical_model`), by one NUTS.

    For tens to a few hundred sites: a gradient computes all columns, a chain moves in (sites + columns + 1) × free
    dimensions, and nothing is kept before all is done.

    Args:
        sites: a site data set.
        config: settings, default `HierarchicalConfig()`: an intercept, and no covariate.
        out: folder for `posterior.nc`. One that holds a posterior file already is refused.
        seed: of all draws.
        progress: show a bar; silent where the output is not a terminal.

    Returns:
        A posterior file, laid out as that of `bayes.sample`, with method "hierarchical". Group `posterior` also holds
        `coefficients` (chain, draw, column, free_parameter) and `tau` (chain, draw, free_parameter), and
        group `constant_data` the matrix `design` (site, column). Group `sample_stats` is of the joint chain (chain,
        draw). In `diagnostics` both have theirs, with prefixes `tau_` and `coefficients_`; no site meets the limits
        where these do not.

    Raises:
        ValueError: for sites that do not fit the schema, for a covariate that is not there, categorical, constant or
            not finite, a region that is not categorical, a site whose likelihood is nowhere finite, and draws that
            do not fit in memory.
        FileExistsError: `out` holds a posterior file.

    Source:
        Gelman & Hill 2007, Data Analysis Using Regression and Multilevel Models; non-centred as in Betancourt &
        Girolami 2015, arXiv 1312.0906.
    """
    config = HierarchicalConfig() if config is None else config
    sampler = config.sampler
    file = None if out is None else Path(out) / "posterior.nc"
    if file is not None and file.exists():
        raise FileExistsError(f"{file} exists and is not overwritten. Choose another folder.")
    clm5.sites.check(sites)
    refuse_too_large(sites, sampler)
    design, columns = design_matrix(sites, config)
    began = time.perf_counter()
    with jax.enable_x64(True):
        data = clm5.Forcing.from_sites(sites), clm5.Observations.from_sites(sites), jnp.asarray(design), config
        mcmc = MCMC(
            NUTS(
                hierarchical_model,
                target_accept_prob=sampler.target_accept,
                max_tree_depth=sampler.max_tree_depth,
                init_strategy=init_to_sample,
            ),
            num_warmup=sampler.warmup,
            num_samples=sampler.draws,
            num_chains=sampler.chains,
            chain_method="vectorized",
            progress_bar=progress and sys.stderr.isatty(),
        )
        try:
            mcmc.warmup(jax.random.key(seed), *data, extra_fields=("num_steps",), collect_warmup=True)
        except RuntimeError as error:
            raise ValueError(
                "sample_hierarchical: no start with a finite likelihood was found; does every site's carbon stay "
                "finite? `bayes.sample` names the sites where it does not"
            ) from error
        spent = int(np.sum(mcmc.get_extra_fields()["num_steps"]))
        mcmc.run(mcmc.post_warmup_state.rng_key, *data, extra_fields=tuple(STATISTICS.values()))
        drawn = {name: np.asarray(values) for name, values in mcmc.get_samples(group_by_chain=True).items()}
        extra = {name: np.asarray(values) for name, values in mcmc.get_extra_fields(group_by_chain=True).items()}
    statistics = {name: extra[field] for name, field in STATISTICS.items()}
    statistics["lp"] = -statistics["lp"]
    gradients = (spent + int(statistics["n_steps"].sum())) * sites.sizes["site"]
    tree = clm5.assemble_posterior(
        drawn["unit"],
        sites,
        sampler.model,
        method="hierarchical",
        seed=seed,
        wall_time=time.perf_counter() - began,
        n_solves=gradients,
        n_gradients=gradients,
        sigma=drawn.get("sigma"),
        constant={"design": (("site", "column"), design)},
        attrs=recorded(sampler) | config.recorded(),
    )
    tree = with_shared(tree, drawn, statistics, columns, sampler.free_names)
    if file is not None:
        clm5.save_posterior(tree, file)
    return tree


def with_shared(
    tree: xr.DataTree, drawn: dict[str, Any], statistics: dict[str, Any], columns: list[str], free: tuple[str, ...]
) -> xr.DataTree:
    """The file with what all sites share: coefficients, tau, statistics of the joint chain, and diagnostics."""
    both = ("chain", "draw")
    names = {"column": np.array(columns, object), "free_parameter": np.array(free, object)}
    shared = {"coefficients": ("column", "free_parameter"), "tau": ("free_parameter",)}
    tree["posterior"] = xr.DataTree(
        tree["posterior"]
        .to_dataset()
        .assign({name: ((*both, *dims), drawn[name].astype(np.float32)) for name, dims in shared.items()})
        .assign_coords(names)
    )
    tree["constant_data"] = xr.DataTree(tree["constant_data"].to_dataset().assign_coords(column=names["column"]))
    table = diagnostics.of_draws(tree).assign_attrs(diagnostics.LIMITS).assign_coords(names)
    for name, dims in shared.items():
        table = table.assign({f"{name}_{k}": (dims, v) for k, v in diagnostics.estimate(drawn[name]).items()})
    table["converged"] = diagnostics.converged(table)
    table["joint_divergences"] = ((), int(statistics["diverging"].sum()))
    tree["diagnostics"] = xr.DataTree(table)
    tree["sample_stats"] = xr.DataTree(
        xr.Dataset({name: (both, values) for name, values in statistics.items()}, tree["posterior"].coords).drop_dims(
            [str(dim) for dim in tree["posterior"].dims if dim not in both]
        )
    )
    return tree
