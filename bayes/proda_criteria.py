"""By what PRODA chose a chain and kept a site: fit of the mean profile, and Gelman and Rubin's statistic, as coded."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

import clm5
from clm5.observation import predict_horizons

GELMAN_RUBIN_LIMIT = 1.05  # of the mean over parameters
R_SQUARED_LIMIT = 0.0


def gelman_rubin(unit: Float[np.ndarray, "chain draw site parameter"]) -> Float[np.ndarray, "site parameter"]:
    """Gelman and Rubin's statistic of the kept halves, as published; NaN for a parameter that does not move.

    The published code divides the sum of squares of a chain's second half by the length of the whole, so that the
    variance within chains is half of what it is, and the statistic stricter: about √(1 + 2 B / W) in place of
    √(1 + B / W), with B the variance of chain means and W that within chains.
    """
    unit = np.asarray(unit, float)
    whole = 2 * unit.shape[1]
    within = np.sum((unit - unit.mean(axis=1, keepdims=True)) ** 2, axis=1).mean(axis=0) / (whole - 1)
    between = unit.mean(axis=1).var(axis=0, ddof=1)
    moves = within > 0
    ratio = between / np.where(moves, within, 1.0)
    return np.where(moves, np.sqrt((whole - 1) / whole + ratio), np.where(between > 0, np.inf, np.nan))


def passes(
    gelman_rubin: Float[np.ndarray, "site parameter"], r_squared: Float[np.ndarray, " site"]
) -> Bool[np.ndarray, " site"]:
    """Which sites PRODA keeps: mean Gelman-Rubin below 1.05, and R² above 0."""
    moving = ~np.isnan(gelman_rubin)
    mean = np.where(moving, gelman_rubin, 0.0).sum(axis=1) / np.maximum(moving.sum(axis=1), 1)
    return (mean < GELMAN_RUBIN_LIMIT) & (r_squared > R_SQUARED_LIMIT)


@functools.partial(jax.jit, static_argnames="options")
def _mean_carbon(
    unit: Float[Array, "draw site chain 21"], forcing: clm5.Forcing, observations: clm5.Observations, options
) -> Float[Array, "site chain horizon"]:
    """Modelled carbon of the horizons, mean over draws; forcing and observations have axes (site, 1)."""

    def add(total, point):
        soc = clm5.simulate(options.space.physical(point), forcing, options.rules).soc
        return total + predict_horizons(soc, observations, options), None

    empty = jnp.zeros((*unit.shape[1:3], observations.soc.shape[-1]))
    return jax.lax.scan(add, empty, unit.astype(empty.dtype))[0] / unit.shape[0]


def fit(
    unit: Float[np.ndarray, "chain draw site 21"],
    forcing: clm5.Forcing,
    observations: clm5.Observations,
    options: clm5.ModelOptions,
) -> tuple[Float[np.ndarray, "chain site"], Float[np.ndarray, "chain site"]]:
    """RMSE (gC m⁻³) and R² of the mean of the modelled carbon at the measured horizons, per chain and site.

    R² = 1 − Σ (modelled − observed)² / Σ (modelled − mean of modelled)², as published: the total is that of the model.
    """
    modelled = np.asarray(_mean_carbon(np.transpose(unit, (1, 2, 0, 3)), forcing, observations, options))
    real = np.asarray(observations.measured)
    residual = np.where(real, modelled - np.where(real, np.asarray(observations.soc), 0.0), 0.0)
    n = np.maximum(real.sum(axis=-1), 1)
    middle = np.where(real, modelled, 0.0).sum(axis=-1) / n
    total = np.sum(np.where(real, modelled - middle[..., None], 0.0) ** 2, axis=-1)
    squares = np.sum(residual**2, axis=-1)
    r_squared = np.where(total > 0, 1 - squares / np.where(total > 0, total, 1.0), -np.inf)
    return np.sqrt(squares / n).T, r_squared.T
