"""Site data with a truth that was put in: known parameters, the carbon that they make, and noise on it."""

from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.special import ndtr, ndtri
from scipy.stats import rankdata

import clm5
from binn.config import Config
from clm5.parameters import NAMES
from clm5.sites.schema import covariate_names
from clm5.sites.virtual import EDGE, MOST_CARBON, unit_variance

if TYPE_CHECKING:
    import xarray as xr

TRUTHS = ("functions", "proda", "prior")
TOLD = {"proda": 1.0, "prior": 0.0}  # of the draws' variance, the share that covariates tell unless asked otherwise
MOST_NOISE = 0.6  # PRODA's error of an observation
LOW, HIGH = 0.1, 0.9  # where known functions lie in the box
TERMS = 3  # of a known function unless asked otherwise
REACH = 2.0  # sd from the mean at which a covariate's influence ends
SHAPES = {
    "linear": lambda x: x,
    "quadratic": lambda x: x**2,
    "exp": lambda x: np.exp(x),
    "log": lambda x: np.log(x + REACH + 0.5),
    "absolute": lambda x: np.abs(x),
}


def synthetic(
    sites: "xr.Dataset",
    truth: str = "functions",
    *,
    noise: float = 0.0,
    parameters: tuple[str, ...] | str = "4",
    held: tuple[tuple[str, float], ...] = (),
    model: clm5.ModelOptions | None = None,
    information: float | None = None,
    terms: int = TERMS,
    of: tuple[str, ...] | None = None,
    seed: int = 0,
) -> "xr.Dataset":
    """A copy of `sites` whose carbon comes from parameters that are known: new true_unit, true_theta, true_soc, soc.

    Truth of the free parameters, by `truth`:

    - "functions": known functions of the covariates,

          p = 0.1 + 0.8 Φ((s − mean s) / sd s),   s = Σ w g(x),   `terms` terms,

      Φ the normal distribution function, so that the truth fills its range; x a numeric covariate, standardised over
      the sites and cut at ± 2; g linear, quadratic, exp, log(x + 2.5) or absolute value, scaled to variance 1; w ± 0.5
      to 1. `true_unit.attrs["functions"]` spells them out.
    - "proda": Gaussian draws with mean and covariance of the published PRODA parameters (`proda_moments`), cut at 0.02
      and 0.98. Their box is "proda": `model` must have it.
    - "prior": independent uniform draws of the box, from 0.02 to 0.98.

    The others are held at `Config.held_unit()`. Where a layer would hold more carbon than peat (1.2e5 gC m⁻³), the
    site's litter input is cut until it does not, as `clm5.sites.virtual` does; the covariates stay.

    Args:
        sites: virtual or measured, with covariates and horizons; depths of horizons, forcing and covariates are kept.
        truth: one of `TRUTHS`.
        noise: a horizon is measured as the truth times exp(noise · N(0, 1)); 0 to 0.6.
        parameters, held: the free ones and where others are held, as in `Config`.
        model: bounds, rules and operator; default `ModelOptions()`.
        information: of draws, the share of their variance that functions of covariates tell, 0 to 1. Default: all for
            "proda", whose published values are a network's of covariates; none for "prior". "functions" has all.
        terms: of a known function, 1 to 5, each of another covariate and shape. More terms are harder to find.
        of: names of the covariates that known functions are made of; default all numeric ones.
        seed: of all that is random. Truth and noise have their own streams: another noise leaves the truth.

    Returns:
        A checked data set, attributes: truth, bounds, rules, noise, terms, seed, information.

    Raises:
        ValueError: an unknown truth, noise or information out of range, the wrong box, or no usable covariate.

    Source:
        Fan et al. (2025), ScIReN, arXiv 2506.14054: sums of linear, quadratic, exponential, logarithmic and absolute
        terms. Tao et al. (2023), Nature 618, 981: PRODA.
    """
    config = Config(model=model or clm5.ModelOptions(), parameters=parameters, held=held)
    told = _refuse(truth, noise, information, config)
    for_functions, for_draws, for_noise = np.random.default_rng(seed).spawn(3)
    options = config.model
    unit = np.tile(config.held_unit(), (sites.sizes["site"], 1))
    formulas: tuple[str, ...] = ()
    if not 1 <= terms <= len(SHAPES):
        raise ValueError(f"binn.synthetic: terms must be 1 to {len(SHAPES)}, the number of shapes, got {terms!r}")
    score, formulas = known_functions(sites, for_functions, terms, of) if told > 0 else (np.zeros_like(unit), ())
    free = [NAMES.index(name) for name in config.parameters]
    if truth == "functions":
        unit[:, free] = LOW + (HIGH - LOW) * ndtr(unit_variance(score))[:, free]
    else:
        z = np.sqrt(told) * _independent(score) + np.sqrt(1 - told) * for_draws.normal(size=unit.shape)
        unit[:, free] = _draws(truth, z)[:, free]

    made = sites.copy(deep=True)
    soc, modelled, share = _carbon(unit, made, options)
    made["litter_input"].values = made.litter_input.values * share[:, None, None]
    observed = modelled * np.exp(noise * for_noise.normal(size=modelled.shape))
    made["soc"] = made.soc.copy(data=np.where(np.isfinite(made.soc.values), observed, np.nan))
    theta = options.space.lower + unit * (options.space.upper - options.space.lower)
    made = made.assign_coords(
        parameter=("parameter", np.array(NAMES, dtype=str), {"long_name": "calibrated parameter"})
    )
    axes = ("site", "parameter")
    made["true_theta"] = (axes, theta, {"long_name": "true parameters", "units": "as in clm5.PARAMETERS"})
    made["true_unit"] = (axes, unit, {"long_name": "true parameters in the unit cube", "units": "1"})
    if truth == "functions":
        made.true_unit.attrs["functions"] = [formulas[i] for i in free]
    made["true_soc"] = (("site", "layer"), soc, {"long_name": "true soil organic carbon", "units": "gC m-3"})
    made.attrs |= {"truth": truth, "bounds": options.bounds, "rules": options.rules, "sigma": float(noise)}
    made.attrs |= {"noise": float(noise), "terms": int(terms), "seed": int(seed), "information": float(told)}
    clm5.sites.check(made)
    return made


def known_functions(
    sites: "xr.Dataset", rng: np.random.Generator, terms: int = TERMS, of: tuple[str, ...] | None = None
) -> tuple[Float[np.ndarray, "site 21"], tuple[str, ...]]:
    """A sum of known terms of covariates per parameter, mean 0 and variance about 1 to 3, and each in words.

    All 21 are always made, so that a parameter has the same function whichever others are free.
    """
    x = _standardised(sites)
    if of is not None:
        unknown = [name for name in of if name not in x]
        if unknown or not of:
            raise ValueError(
                f"binn.synthetic: `of` names numeric covariates that vary, at least one of {', '.join(x)}; unknown: "
                f"{', '.join(unknown) or 'none, but the list is empty'}"
            )
        x = {name: x[name] for name in of}
    names = list(x)
    columns, words = [], []
    for parameter in NAMES:
        chosen = rng.choice(len(names), terms, replace=len(names) < terms)
        shapes = rng.choice(list(SHAPES), terms, replace=False)
        weights = rng.choice([-1.0, 1.0], terms) * rng.uniform(0.5, 1.0, terms)
        parts = [unit_variance(SHAPES[shape](x[names[i]])) for shape, i in zip(shapes, chosen, strict=True)]
        columns.append(weights @ np.stack(parts))
        told = [f"{w:+.2f} {g}({names[i]})" for w, g, i in zip(weights, shapes, chosen, strict=True)]
        words.append(f"{parameter}: {' '.join(told)}")
    return np.stack(columns, axis=1), tuple(words)


@cache
def proda_moments() -> tuple[Float[np.ndarray, "21"], Float[np.ndarray, "21 21"]]:
    """Mean and covariance of the published PRODA parameters in the unit cube of the box "proda".

    Source: `binn/proda_moments.csv`, whose header tells where it comes from; made by scripts/proda_moments.py.
    """
    with files("binn").joinpath("proda_moments.csv").open(encoding="utf-8") as file:
        table = pd.read_csv(file, comment="#", index_col="parameter")
    if tuple(table.index) != NAMES:
        raise ValueError("binn/proda_moments.csv: rows must be the 21 parameters in order; remake it by its script")
    return table["mean"].to_numpy(), table[list(NAMES)].to_numpy()


def _refuse(truth: str, noise: float, information: float | None, config: Config) -> float:
    """What cannot be made is refused; returns the share of the truth that covariates tell."""
    if truth not in TRUTHS:
        raise ValueError(f"binn.synthetic: truth must be one of {TRUTHS}, got {truth!r}")
    if not 0 <= noise <= MOST_NOISE:
        raise ValueError(
            f"binn.synthetic: noise must lie in [0, {MOST_NOISE}] (sd of ln SOC), got {noise!r}. In percent?"
        )
    if truth == "functions":
        if information not in (None, 1):
            raise ValueError(f'binn.synthetic: truth="functions" has information 1 by definition, got {information!r}')
        return 1.0
    if truth == "proda" and config.model.bounds != "proda":
        raise ValueError(
            'binn.synthetic: truth="proda" lies in PRODA\'s box, and the model has bounds "binn", where the same unit '
            'value is another parameter; use model=clm5.ModelOptions(bounds="proda")'
        )
    told = TOLD[truth] if information is None else float(information)
    if not 0 <= told <= 1:
        raise ValueError(f"binn.synthetic: information must lie in [0, 1], got {information!r}")
    return told


def _standardised(sites: "xr.Dataset") -> dict[str, np.ndarray]:
    """Numeric covariates that vary, mean 0 and sd 1 over the sites, cut at ± REACH; a gap gets the median."""
    found = {}
    for name in covariate_names(sites):
        values = np.asarray(sites[name].values, float)
        if "flag_values" in sites[name].attrs or not np.isfinite(values).any():
            continue
        values = np.where(np.isfinite(values), values, np.median(values[np.isfinite(values)]))
        if np.ptp(values) > 0:
            found[name] = np.clip(unit_variance(values), -REACH, REACH)
    if not found:
        raise ValueError(
            "binn.synthetic: known functions need a numeric covariate that varies between sites; the covariates are "
            f"{', '.join(covariate_names(sites)) or 'none'}"
        )
    return found


def _independent(score: np.ndarray) -> np.ndarray:
    """The columns as normal scores (their ranks), then mixed so that they are uncorrelated with variance 1.

    Where there are fewer sites than parameters the mixing is impossible and left out.
    """
    if not score.any():
        return score
    normal = unit_variance(ndtri(rankdata(score, axis=0) / (len(score) + 1)))
    if len(normal) <= 2 * normal.shape[1]:
        return normal
    root = np.linalg.cholesky(np.cov(normal.T) + 1e-9 * np.eye(normal.shape[1]))
    return np.linalg.solve(root, normal.T).T


def _draws(truth: str, z: np.ndarray) -> np.ndarray:
    """Unit values of standard normal, uncorrelated draws, (site, 21)."""
    if truth == "prior":
        return EDGE + (1 - 2 * EDGE) * ndtr(z)
    mean, covariance = proda_moments()
    variance, direction = np.linalg.eigh(covariance)  # some are almost fixed: a Cholesky factor may not exist
    root = direction * np.sqrt(np.maximum(variance, 0.0)) @ direction.T
    return np.clip(mean + z @ root, EDGE, 1 - EDGE)


def _carbon(unit: np.ndarray, sites: "xr.Dataset", options: clm5.ModelOptions):
    """Carbon of layers and of horizons (gC m⁻³), and the share of the litter that is kept; in float64."""
    with jax.enable_x64(True):
        forcing = clm5.Forcing.from_sites(sites, dtype=jnp.float64)
        soc = clm5.simulate(options.space.physical(jnp.asarray(unit)), forcing, rules=options.rules).soc
        share = jnp.minimum(MOST_CARBON / soc.max(axis=1), 1.0)  # carbon is proportional to its input
        soc = soc * share[:, None]
        modelled = clm5.predict_horizons(soc, clm5.Observations.from_sites(sites), options)
        return np.asarray(soc), np.asarray(modelled), np.asarray(share)
