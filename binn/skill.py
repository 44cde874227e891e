"""How well modelled carbon meets measured carbon: one set of numbers for networks and baselines."""

import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import Array, Float

from binn.splits import LABELS


def nash_sutcliffe(
    error: Float[Array | np.ndarray, "*shape"], observed: Float[Array | np.ndarray, "*shape"]
) -> Float[Array, ""]:
    """1 − Σ error² / Σ (deviation of the observed from their mean)²; NaN entries count for nothing.

    Args:
        error: modelled − observed.
        observed: in the same unit and shape.
    """
    return 1 - jnp.nansum(error**2) / jnp.nansum((observed - jnp.nanmean(observed)) ** 2)


def skill_table(
    error: Float[np.ndarray, "site horizon"],
    observed: Float[np.ndarray, "site horizon"],
    labels: np.ndarray,
    distance: Float[np.ndarray, " site"],
) -> pd.DataFrame:
    """Skill per label of a split.

    Args:
        error: ln(modelled) − ln(observed) of every horizon, NaN where there is none (see `losses.log_soc_errors`).
        observed: ln(observed), NaN alike.
        labels: (site,) of "train", "validation", "test" or "new".
        distance: km to the nearest training site; NaN where it is not known.

    Returns:
        Index: labels that have measured sites. Columns: `sites`, `horizons` (measured), `nse` (of ln SOC over all
        horizons), `bias` (mean error of ln SOC), `distance` (median, km; NaN for "new").
    """
    rows = {}
    for label in (*LABELS, "new"):
        chosen = labels == label
        seen = np.isfinite(observed) & chosen[:, None]
        if seen.any():
            constant = np.ptp(observed[seen]) == 0
            rows[label] = {
                "sites": int(chosen.sum()),
                "horizons": int(seen.sum()),
                "nse": np.nan if constant else float(nash_sutcliffe(error[seen], observed[seen])),
                "bias": float(error[seen].mean()),
                "distance": float(np.nanmedian(distance[chosen])) if label in LABELS else np.nan,
            }
    return pd.DataFrame.from_dict(rows, orient="index")
