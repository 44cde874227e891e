"""The regressors of a hierarchical model: an intercept, standardised covariates, and a column per class of a region."""

import numpy as np
import xarray as xr
from jaxtyping import Float

import clm5
from bayes.hierarchical_config import HierarchicalConfig


def design_matrix(sites: xr.Dataset, config: HierarchicalConfig) -> tuple[Float[np.ndarray, "site column"], list[str]]:
    """What the scores of every site are regressed on.

    Args:
        sites: a site data set.
        config: names of covariates and region.

    Returns:
        The matrix (site, column) and the columns' names. Intercept, covariates and region have equal shares of the
        mean squared length of a row, which is 1; covariates are standardised over the sites.

    Raises:
        ValueError: a covariate is not there, categorical (region: is not), constant, or has gaps at some site.
    """
    known = clm5.sites.covariate_names(sites)
    asked = [*config.covariates, *([config.region] if config.region is not None else [])]
    unknown = [name for name in asked if name not in known]
    if unknown:
        raise ValueError(
            f"design_matrix: the sites have no covariate {unknown}; they have {', '.join(known) or 'none'}"
        )
    blocks, names = [np.ones((sites.sizes["site"], 1))], ["intercept"]
    if config.covariates:
        numbers = [_standardised(sites[name]) for name in config.covariates]
        blocks.append(np.stack(numbers, axis=1) / np.sqrt(len(numbers)))
        names += config.covariates
    if config.region is not None:
        classes, member = _classes(sites[config.region])
        blocks.append(np.eye(len(classes))[member])
        names += [f"{config.region}={name}" for name in classes]
    return np.concatenate(blocks, axis=1) / np.sqrt(len(blocks)), names


def _standardised(covariate: xr.DataArray) -> np.ndarray:
    if "flag_values" in covariate.attrs:
        raise ValueError(f"design_matrix: {covariate.name} is categorical; name it as `region`")
    values = _without_gaps(covariate)
    if not np.ptp(values) > 0:
        raise ValueError(f"design_matrix: {covariate.name} is {values[0]:g} at every site and can explain nothing")
    return (values - values.mean()) / values.std()


def _classes(covariate: xr.DataArray) -> tuple[list[str], np.ndarray]:
    """The classes that occur, and that of every site."""
    if "flag_values" not in covariate.attrs:
        raise ValueError(f"design_matrix: region {covariate.name} is not categorical (it has no flag_values)")
    present, member = np.unique(_without_gaps(covariate), return_inverse=True)
    meanings = dict(
        zip(np.asarray(covariate.attrs["flag_values"], float), covariate.attrs["flag_meanings"].split(), strict=True)
    )
    return [meanings[value] for value in present], member


def _without_gaps(covariate: xr.DataArray) -> np.ndarray:
    values = covariate.values.astype(float)
    if not np.isfinite(values).all():
        where = covariate["site"].values[np.flatnonzero(~np.isfinite(values))[0]]
        raise ValueError(f"design_matrix: {covariate.name} has no value at site {where}; leave that site or it out")
    return values
