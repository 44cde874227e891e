"""What the data told: how far every parameter's posterior moved from its prior."""

import numpy as np
import xarray as xr
from scipy import stats

PRIOR_SD = 1 / np.sqrt(12)  # of a unit value, uniform


def information(tree: xr.DataTree) -> xr.Dataset:
    """Information gained from prior to posterior, per site and parameter.

    Args:
        tree: a posterior file; the prior is the box, uniform in `unit`.

    Returns:
        Over (site, parameter): `sd_reduction`, 1 − posterior sd / prior sd, 0 where nothing was learned, 1 where the
        value is known, below 0 where the posterior is wider; `kl`, Kullback-Leibler divergence of the marginal
        posterior from the prior, bit: 1 bit is as good as halving the range, and a posterior that only moved or only
        changed its shape is seen too. NaN for parameters that are held.

        `kl` is minus the differential entropy of the unit value, by the spacings of the ordered draws (Ebrahimi,
        Pflughoeft & Soofi 1994, Statistics and Probability Letters 20:225, in SciPy). Where nothing was learned it is
        0.007 bit with 3200 independent draws and 0.02 with 400; elsewhere its bias is below 0.02 bit in size with 400
        draws and more, its noise about 0.02 with 3200 and 0.05 with 400.
    """
    unit = tree["posterior"]["unit"].transpose("chain", "draw", "site", "parameter")
    values = unit.values.reshape(-1, *unit.shape[2:])
    reduction, divergence = np.full(unit.shape[2:], np.nan), np.full(unit.shape[2:], np.nan)
    for site in range(unit.sizes["site"]):  # one at a time: sorting makes copies
        draws = values[:, site].astype(float)
        moves = np.ptp(draws, axis=0) > 0
        reduction[site, moves] = 1 - draws[:, moves].std(0, ddof=1) / PRIOR_SD
        entropy = stats.differential_entropy(draws[:, moves], base=2, axis=0, method="ebrahimi")
        divergence[site, moves] = -entropy
    both = ("site", "parameter")
    return xr.Dataset(
        {
            "sd_reduction": (both, reduction, {"long_name": "1 − posterior sd / prior sd", "units": "1"}),
            "kl": (both, divergence, {"long_name": "divergence of the posterior from the prior", "units": "bit"}),
        },
        {"site": unit["site"].values, "parameter": unit["parameter"].values},
    )
