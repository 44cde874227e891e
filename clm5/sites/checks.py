"""The check that every site data set passes before anything runs on it.

What is refused is refused with the site, the variable, what was found and the likely fix.
"""

from typing import Any

import xarray as xr

from clm5.sites import content, structure
from clm5.sites.schema import VARIABLES


def check(sites: xr.Dataset | Any, *, observations: bool = True, block: int | None = None) -> None:
    """Refuse a site data set that the model cannot use, before anything runs.

    Args:
        sites: the data set; see the table `VARIABLES` and docs/architecture.md.
        observations: also refuse sites without a single measured horizon. Training and sampling need one at every
            site; prediction does not.

    Raises:
        ValueError: all problems, one a line; each names the first site concerned, the variable, what was found, at
            how many sites, and the likely fix.
    """
    if block is None or not isinstance(sites, xr.Dataset) or list(structure.dimensions(sites)):
        found = problems(sites, observations=observations)
    else:
        found = []
        for start in range(0, sites.sizes["site"], block):
            part = sites.isel(site=slice(start, start + block)).load()
            found = found or problems(part, observations=observations)
    if found:
        many = f"{len(found)} problems" if len(found) > 1 else "1 problem"
        raise ValueError(f"site data set: {many} found\n" + "\n".join(f"  {line}" for line in found))


def problems(sites: xr.Dataset | Any, *, observations: bool = True) -> list[str]:
    """What `check` would complain about, one text each; empty when the data set can be used."""
    if not isinstance(sites, xr.Dataset):
        return [f"expected an xarray.Dataset, found {type(sites).__name__}. Open files with clm5.sites.open."]
    found = list(structure.dimensions(sites))
    if found:  # without sites or with a wrong axis nothing else can be said of them
        return found
    usable = {v.name for v in VARIABLES if not any(True for _ in structure.variable(sites, v))}
    for variable in VARIABLES:
        found += structure.variable(sites, variable)
    for variable in VARIABLES:
        if variable.name in usable:
            found += content.in_range(sites, variable)
    found += content.columns(sites, usable)
    found += content.horizons(sites, usable, observations=observations)
    found += content.magnitudes(sites, usable)
    found += content.covariates(sites)
    found += content.truth(sites)
    return found
