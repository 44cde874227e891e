"""Virtual sites: made-up places whose parameters are known, to see whether either way of inference finds them."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from scipy.special import ndtr

from clm5.grid import INTERFACE, NODE
from clm5.options import ModelOptions
from clm5.parameters import NAMES, ParameterSpace
from clm5.sites.assembly import Covariate, assemble
from clm5.sites.checks import check
from clm5.sites.climate import forcing_from_climate
from clm5.sites.landscape import landscape, smooth_field

SPREAD = 0.65  # of the truth on the probit scale: standard deviation about 0.2 in the unit cube
EDGE = 0.02  # the truth keeps this far from the walls of the box
# Where the truth lies on the probit scale, so that carbon is like that of real soils: in the middle of the box it would
# be about four times as much. The second table is per 10 K that a place is colder than 5 °C: soils of cold places that
# kept the parameters of warm ones would hold hundreds of kgC m⁻².
CENTRE = {
    "binn": {"efolding": 0.3, "tau4s3": -0.4, "fs1s3": -0.7, "fs2s3": -0.5, "w_scaling": 0.4, "beta": 0.4, "q10": -0.3},
    "proda": {
        "efolding": 0.6,
        "tau4s2": -0.8,
        "tau4s3": -0.8,
        "fs1s3": -0.9,
        "fs2s3": -0.7,
        "w_scaling": 0.6,
        "beta": 0.4,
        "q10": -0.3,
    },
}
PER_COLD = {"w_scaling": 0.55, "q10": -0.35, "tau4s3": -0.4, "fs1s3": -0.35}
MOST_CARBON = 1.2e5  # gC m⁻³, peat
SPATIAL = 0.4  # of what covariates do not explain, the share that is alike between neighbours


def virtual(
    n: int = 400,
    seed: int = 0,
    *,
    bounds: str = "binn",
    rules: str = "conservative",
    sigma: float = 0.2,
    information: float = 0.7,
) -> xr.Dataset:
    """Sites with known parameters, no download: climates from warm to permafrost over the contiguous US.

    The truth of each parameter is Φ(centre + 0.65 z), squeezed into [0.02, 0.98] of the box, with z of variance 1 made
    of a smooth function of the covariates (share `information` of the variance), a field that neighbours share, and the
    site's own deviation. Carbon comes from `clm5.simulate` at that truth; a horizon is measured as the mean of the
    profile over it times exp(sigma · N(0, 1)). Where a layer would hold more carbon than peat does, the site's litter
    is cut until it does not.

    In the box "binn" half of the sites hold about 6 to 16 kgC m⁻² in the upper metre and nine tenths 2 to 45, a little
    different by seed; in "proda", whose turnover times are longer, about 1.6 times as much.

    Args:
        n: number of sites, at least 1.
        seed: the same seed gives the same sites, whatever the global precision of JAX. A smaller n gives other sites,
            not the first of these.
        bounds: the box that the truth lies in, "binn" or "proda".
        rules: the rule set of the column that made the carbon.
        sigma: error of a measured horizon on the logarithmic scale, 0 for none.
        information: how much of the truth the covariates tell, 0 (nothing) to 1 (all).

    Returns:
        A checked data set in the site schema, with `true_theta`, `true_unit` (site, parameter), `true_soc` (site,
        layer, gC m⁻³) and attributes bounds, rules, sigma, seed, information.
    """
    if n < 1:
        raise ValueError(f"virtual: n must be at least 1, got {n!r}")
    if not 0 <= information <= 1:
        raise ValueError(f"virtual: information must lie in [0, 1], got {information!r}")
    if not 0 <= sigma < np.inf:
        raise ValueError(f"virtual: sigma must be finite and not negative, got {sigma!r}")
    ModelOptions(bounds=bounds, rules=rules)  # refuses unknown names in the words that all packages use
    rng = np.random.default_rng(seed)
    land = landscape(rng, n)
    variables = {"lon": land.lon, "lat": land.lat, **forcing_from_climate(land.normals)}
    variables["nitrogen_scalar"], variables["oxygen_scalar"] = _livelier(rng, variables["water_scalar"])
    space = ParameterSpace(bounds)
    unit = true_unit(rng, land.lon, land.lat, land.covariates, information, bounds)
    theta = space.lower + unit * (space.upper - space.lower)
    bedrock = INTERFACE[variables["bedrock_layer"][:, 0].astype(int) - 1]
    upper, lower = horizons(rng, bedrock)
    soc, observed = _simulate(theta, variables, upper, lower, rules)
    share = np.minimum(MOST_CARBON / soc.max(axis=1), 1.0)[:, None]  # carbon is proportional to its input
    soc, observed = soc * share, observed * share
    variables["litter_input"] = variables["litter_input"] * share[:, :, None]
    npp = land.covariates["npp"]
    covariates = land.covariates | {"npp": replace(npp, values=npp.values * share[:, 0])}
    noise = np.exp(sigma * rng.normal(size=observed.shape))
    variables |= {"upper": upper, "lower": lower, "soc": observed * noise}

    width = max(4, len(str(n)))
    ids = [f"virtual-{i:0{width}d}" for i in range(1, n + 1)]
    attrs: dict[str, str | float | int] = {
        "title": "virtual soil-carbon sites with known parameters",
        "source": "clm5.sites.virtual",
    }
    attrs |= {
        "bounds": bounds,
        "rules": rules,
        "sigma": float(sigma),
        "seed": int(seed),
        "information": float(information),
    }
    sites = assemble(ids, variables, covariates, attrs).assign_coords(
        parameter=("parameter", np.array(NAMES, dtype=str), {"long_name": "calibrated parameter"})
    )
    sites["true_theta"] = (
        ("site", "parameter"),
        theta,
        {"long_name": "true parameters", "units": "as in clm5.PARAMETERS"},
    )
    sites["true_unit"] = (("site", "parameter"), unit, {"long_name": "true parameters in the unit cube", "units": "1"})
    sites["true_soc"] = (("site", "layer"), soc, {"long_name": "true soil organic carbon", "units": "gC m-3"})
    check(sites)
    return sites


def true_unit(
    rng: np.random.Generator,
    lon: np.ndarray,
    lat: np.ndarray,
    covariates: dict[str, Covariate],
    information: float,
    bounds: str,
) -> np.ndarray:
    """True parameters in the unit cube, (site, 21): partly told by the covariates, partly shared by neighbours."""
    features = _features(covariates)
    told = unit_variance(_smooth_function(rng, features, len(NAMES)))
    shared = np.stack([smooth_field(rng, lon, lat, 4.0) for _ in NAMES], axis=1)
    own = rng.normal(size=told.shape)
    rest = np.sqrt(SPATIAL) * shared + np.sqrt(1 - SPATIAL) * own
    z = np.sqrt(information) * told + np.sqrt(1 - information) * rest
    centre, per_cold = (np.array([table.get(name, 0.0) for name in NAMES]) for table in (CENTRE[bounds], PER_COLD))
    cold = np.clip((5.0 - covariates["mean_temperature"].values) / 10.0, 0.0, 2.0)
    return EDGE + (1 - 2 * EDGE) * ndtr(centre + cold[:, None] * per_cold + SPREAD * z)


def horizons(rng: np.random.Generator, bedrock: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Contiguous horizons from the surface down, thicker with depth: upper and lower (site, horizon), m, NaN-padded.

    Three to nine a site, to 0.5 … 2 m depth, and not below bedrock (m).
    """
    n = len(bedrock)
    count = rng.integers(3, 10, n)
    bottom = np.minimum(rng.uniform(0.5, 2.0, n), bedrock)
    most = count.max()
    step = np.exp(0.25 * np.arange(most) + 0.2 * rng.normal(size=(n, most)))
    step[np.arange(most) >= count[:, None]] = 0.0
    lower = np.round(bottom[:, None] * np.cumsum(step, axis=1) / step.sum(axis=1, keepdims=True), 2)
    lower = np.where(np.arange(most) < count[:, None], lower, np.nan)
    upper = np.concatenate([np.zeros((n, 1)), lower[:, :-1]], axis=1)
    return np.where(np.isnan(lower), np.nan, upper), lower


def _livelier(rng: np.random.Generator, water: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Nitrogen and oxygen scalars that vary by site, layer and month, unlike those that climate normals give.

    Nitrogen limits most near the surface and in spring, by up to a third; oxygen falls where soil is nearly saturated.
    """
    shape = (len(water), 1, 1)
    spring = 0.5 * (1 + np.cos(2 * np.pi * (np.arange(12) - 4) / 12))
    nitrogen = 1.0 - rng.uniform(0.02, 0.35, shape) * np.exp(-NODE[:, None] / 1.5) * (0.6 + 0.4 * spring)
    oxygen = 1.0 - 0.8 * np.clip((water - rng.uniform(0.6, 0.9, shape)) / 0.4, 0.0, 1.0)
    return nitrogen, oxygen


def _features(covariates: dict[str, Covariate]) -> np.ndarray:
    """Covariates as numbers of mean 0 and variance 1, categories as one column a class, (site, feature)."""
    columns = []
    for covariate in covariates.values():
        if covariate.meanings:
            columns.append(0.5 * np.eye(len(covariate.meanings))[np.asarray(covariate.values)])
        else:
            columns.append(unit_variance(np.asarray(covariate.values, float)[:, None]))
    return np.concatenate(columns, axis=1)


def _smooth_function(rng: np.random.Generator, features: np.ndarray, outputs: int) -> np.ndarray:
    """A random smooth function of the features: a straight part and a gently curved one, each of a few features."""
    weights = rng.normal(size=(2, features.shape[1], outputs)) * (
        rng.uniform(size=(2, features.shape[1], outputs)) < 0.3
    )
    weights /= np.maximum(np.linalg.norm(weights, axis=1, keepdims=True), 1e-9)
    straight = np.clip(features, -3, 3) @ weights[0]
    curved = np.sin(np.clip(features, -3, 3) @ weights[1] + rng.uniform(0, 2 * np.pi, outputs))
    return straight + curved


def unit_variance(x: np.ndarray) -> np.ndarray:
    """Columns with mean 0 and variance 1; a constant one becomes 0."""
    spread = x.std(axis=0)
    return (x - x.mean(axis=0)) / np.where(spread > 1e-12, spread, 1.0)


def _simulate(theta, variables, upper, lower, rules) -> tuple[np.ndarray, np.ndarray]:
    """Carbon of the layers and of the horizons, gC m⁻³, in float64 whatever the caller's precision."""
    from clm5 import Forcing, observe, simulate
    from clm5.sites.schema import FORCING

    with jax.enable_x64(True):
        forcing = Forcing(**{name: jnp.asarray(variables[name]) for name in FORCING})
        soc = simulate(jnp.asarray(theta), forcing, rules=rules).soc
        observed = observe(soc, jnp.asarray(upper), jnp.asarray(lower), operator="horizon")
        return np.asarray(soc), np.asarray(observed)
