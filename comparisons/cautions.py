"""What a reader must know before trusting a comparison: different options, different sites, chains that did not mix."""

from collections.abc import Mapping

import numpy as np
import xarray as xr

from clm5.sites import fingerprint
from comparisons.convergence import DIVERGING_LIMIT, ESS_LIMIT, RHAT_LIMIT
from comparisons.methods import attributes, independent, words
from comparisons.reading import WAYS, Way

SHARED = ("rules", "operator", "error", "sigma")
LEAST_DRAWS = 4  # two in each half, which is the least that has a spread
FEW_DRAWS, CRUDE_DRAWS = 100, 50  # below, overlaps are noisy; quantiles are crude
SAMPLERS_TARGET = ("likelihood", "posterior", "elbo", "simulation")  # losses that ask the sampler's question


def refuse_different_bounds(network: Mapping, sampler: Mapping) -> None:
    """Raise where the two boxes differ: their priors are different, so nothing measured against a prior compares."""
    first, second = network.get("bounds"), sampler.get("bounds")
    if first != second or first is None:
        raise ValueError(
            f"different bounds: the network's file has bounds {first!r}, the sampler's {second!r}. The same unit "
            "value is another physical value and the priors differ; run one of the two again with the other's bounds"
        )


def refuse_too_few_draws(ways: dict[str, Way]) -> None:
    """Raise where a file has too few draws for any spread, half against half."""
    for name, way in ways.items():
        if way.n_draws < LEAST_DRAWS:
            raise ValueError(
                f"the {name}'s file has {way.n_draws} draw{'s' * (way.n_draws > 1)} per site "
                f"({words(way.attrs).draws if way.independent else 'chains and draws together'}); overlap and the "
                f"spread of halves need {LEAST_DRAWS} or more. An ensemble has as many draws as members"
            )


def find_cautions(network: xr.DataTree, sampler: xr.DataTree, sites, ids, ways: dict[str, Way], result) -> list[str]:
    """Sentences, the gravest first; an empty list when there is nothing to say."""
    found = [*unmixed(result)]
    for option in SHARED:
        first, second = (tree.attrs.get(option) for tree in (network, sampler))
        if first != second:
            found.append(
                f"The two ways did not answer the same question: {option} is {first!r} for the network and {second!r} "
                "for the sampler."
            )
    for name, tree in zip(WAYS, (network, sampler), strict=True):
        if not made_from(tree, sites):
            found.append(
                f"The {name}'s file was not made from the site data set given here, or a part of it (their "
                "fingerprints differ): sites are matched by id, and observations are taken from the posterior files."
            )
    if sampler["posterior"].sizes["site"] > len(ids):
        found.append(
            f"The sampler's file holds {sampler['posterior'].sizes['site']} sites; only the {len(ids)} common ones are "
            "compared."
        )
    if not np.array_equal(ways["network"].observed, ways["sampler"].observed, equal_nan=True):
        found.append("The two files hold different observations for the same sites.")
    if len(ids) < 10:
        found.append(f"There are only {len(ids)} sites: correlations over so few sites say little.")
    for name in WAYS:
        still = (ways[name].unit.std((0, 1)) < 1e-6).all(0)
        if still.any():
            which = ", ".join(str(p) for p in result.parameter.values[still])
            found.append(
                f"In the {name}'s file {which} {'does' if still.sum() == 1 else 'do'} not vary over draws: held fixed, "
                "so information gained and overlap mean nothing there."
            )
        found += _few_draws(name, ways[name])
    loss = ways["network"].attrs.get("loss", "likelihood")
    if loss not in SAMPLERS_TARGET:
        found.append(
            f"The network was trained on another loss, {loss!r}, not on the likelihood that the sampler uses: that its "
            "answer differs is no failure of the training."
        )
    if ways["network"].split is None:
        found.append(
            "The network's file does not say which sites it was trained on: its fit to the data may be in sample."
        )
    return found


def _few_draws(name: str, way: Way) -> list[str]:
    n = way.n_draws
    if n >= FEW_DRAWS:
        return []
    if n >= CRUDE_DRAWS:
        return [f"The {name} has fewer than {FEW_DRAWS} draws per site: overlaps are noisy and biased low."]
    kind = f" ({words(way.attrs).draws})" if way.independent else ""
    most = (n - 1) / (n + 1)  # from the least to the greatest of n draws
    reach = (
        f" its widest interval, from the least to the greatest draw, would hold the truth in {100 * most:.0f} % of "
        "cases even if the draws were right, however much it promises;"
        if most < 0.95
        else ""
    )
    return [
        f"The {name} has only {n} draws per site{kind}: quantiles are crude;{reach} bits gained are too many, "
        "a spread may be narrow by chance, and overlaps, their floor and their best are noisy."
    ]


def made_from(tree: xr.DataTree, sites: xr.Dataset) -> bool:
    """Whether a posterior file's fingerprint is that of `sites`, or of the sites of it that the file holds."""
    position = {str(site): i for i, site in enumerate(sites.site.values)}
    held = [str(site) for site in tree["posterior"].site.values]
    if any(site not in position for site in held):
        return False
    return fingerprint(sites.isel(site=[position[site] for site in held])) == tree.attrs.get("sites_fingerprint")


def converged(result: xr.Dataset, rhat: float = RHAT_LIMIT, ess: float = ESS_LIMIT) -> np.ndarray:
    """Which sites of the sampler pass R-hat, effective draws and divergences for all parameters that vary, (site,).

    As in `bayes`: R-hat below its limit, bulk and tail effective draws at or above theirs.
    """
    sampler = result.sel(way="sampler")
    mixed = (sampler.rhat < rhat) & (sampler.ess_bulk >= ess) & (sampler.ess_tail >= ess)
    mixed |= sampler.parameter_sd <= 1e-6 * abs(sampler.parameter_mean)
    return mixed.all("parameter").values & ~(sampler.diverging > DIVERGING_LIMIT).values


def unmixed(result: xr.Dataset) -> list[str]:
    """One sentence when the sampler has not converged everywhere."""
    if result.rhat.sel(way="sampler").isnull().all():
        given = independent(attributes(result, "sampler"))
        why = "its draws are independent, not chains" if given else "too few draws a chain, or no second chain"
        return [f"Convergence of the sampler could not be judged: {why}."]
    passed = converged(result)
    if passed.all():
        return []
    return [
        f"The sampler has not converged at {(~passed).sum()} of {passed.size} sites (asked for: R-hat below "
        f"{RHAT_LIMIT} and at least {ESS_LIMIT:g} effective draws, bulk and tail, for every parameter, at most "
        f"{100 * DIVERGING_LIMIT:g} % divergent transitions): what is said about those sites compares "
        "the network with an unfinished computation."
    ]
