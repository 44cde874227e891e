"""From plain arrays to a data set in the site schema: names, axes, units and coordinates put on in one place."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from clm5.grid import LITTER_POOLS, N_MONTHS, NODE
from clm5.sites.schema import BY_NAME


@dataclass(frozen=True)
class Covariate:
    """One number, or one class, a site, with what a reader of the file needs to know about it.

    `meanings` makes it a category: `values` are then positions in it.
    """

    values: np.ndarray
    unit: str
    meaning: str
    meanings: Sequence[str] = ()

    def variable(self) -> xr.Variable:
        """The covariate as the schema has it."""
        attrs: dict[str, Any] = {"units": self.unit, "long_name": self.meaning, "role": "covariate"}
        if not self.meanings:
            return xr.Variable(("site",), np.asarray(self.values, float), attrs)
        attrs["flag_values"] = np.arange(len(self.meanings), dtype=np.int32)
        attrs["flag_meanings"] = " ".join(meaning.replace(" ", "_") for meaning in self.meanings)
        return xr.Variable(("site",), np.asarray(self.values, np.int32), attrs)


def assemble(
    ids: Sequence[str],
    variables: Mapping[str, np.ndarray],
    covariates: Mapping[str, Covariate],
    attrs: Mapping[str, str | float | int],
) -> xr.Dataset:
    """A data set in the site schema; `variables` holds every name of `schema.VARIABLES`, with its axes in order."""
    data = {}
    for name, variable in BY_NAME.items():
        data[name] = xr.Variable(
            variable.dims,
            np.asarray(variables[name], float),
            {"units": variable.unit, "long_name": variable.meaning},
        )
    data |= {name: covariate.variable() for name, covariate in covariates.items()}
    coords = {
        "site": ("site", np.array(list(ids), dtype=str), {"long_name": "site id", "cf_role": "timeseries_id"}),
        "layer": ("layer", NODE.copy(), {"units": "m", "positive": "down", "long_name": "depth of the layer's node"}),
        "month": ("month", np.arange(1, N_MONTHS + 1), {"long_name": "month of the year"}),
        "pool": ("pool", np.array(LITTER_POOLS, dtype=str), {"long_name": "litter pool that receives carbon"}),
    }
    return xr.Dataset(data, coords, {"Conventions": "CF-1.11", **attrs})
