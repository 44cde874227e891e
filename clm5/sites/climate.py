"""Forcing in CLM5's shape from climate normals: an approximation for places where no CLM5 run is at hand.

Twelve monthly means of air temperature and precipitation, soil texture and annual net primary production become the
fields of `clm5.Forcing`. What each field is made of:

* **Soil temperature**: an annual wave, damped and delayed by depth, d = √(2κ/ω), κ = 5e-7 m² s⁻¹ (Hillel 1998,
  *Environmental Soil Physics*, ch. 12); air temperature below 0 °C counts a fifth, for snow (fitted against COSORE).
* **Water scalar**: CLM5's own function of soil water potential ψ, r_W = ln(ψ_min/ψ)/ln(ψ_min/ψ_max) (technical note,
  Decomposition; Andrén & Paustian 1987). ψ comes from `clm5.sites.water`, and where soil is frozen from the freezing
  point, ψ = L_f (T − T_f)/T_f (Clapeyron; Niu & Yang 2006), as in CLM5's supercooled water.
* **Oxygen scalar**: 1, falling to CLM5's minimum of 0.2 where the soil is more than 95 % saturated.
* **Nitrogen scalar**: 0.98 everywhere: CLM5's columns are mostly within a few percent of 1.
* **Active layer**: the deepest thawed layer, interpolated, as CTSM's ActiveLayerMod; its running maximum since January
  (July in the south) and, the normals being a steady year, the annual maximum as last year's.
* **Litter input**: net primary production (at steady state all of it dies), a woody share to cwd and the rest to
  litter1-3 as 0.25 : 0.50 : 0.25, CLM5's fractions for leaves and fine roots of every plant type.

What is missing: snow depth and duration, latent heat of the soil, groundwater, irrigation, fire and harvest, variation
from year to year. Three biases follow, as `scripts/check_forcing.py` measures them, class by class, against 250 CLM5
columns in February (other places than ours, so that a part is the difference between two samples):

* **Permafrost is too warm and its active layer too deep.** Where deep soil is frozen, February is 10 K warmer than in
  CLM5 at 0-0.2 m and 6 K below 1 m. At such sites (61 of 6603 real ones) soil thaws to 3.9 m (median), at 18 to less
  than 3 m and nowhere to less than 2.6 m, where 0.3 … 2 m is usual: they tell little or nothing about `cryo`. The CLM5
  columns hold no thaw depth of a whole year to compare. One share of frost for every snow cover is too crude for them.
* **Dry places are too dry.** Above 20 °C in a dry month the water scalar of the upper metre is 0.06 … 0.09, a third of
  CLM5's 0.17 … 0.26. At one real site in twenty it stays below 0.05 all year in the upper metre; the model at default
  parameters then holds ten times the measured carbon, elsewhere 1.3 times (medians).
* **Oxygen is 1 everywhere**, for monthly means hardly ever fill 95 % of the pores; CLM5 has 0.77 … 0.82 in the upper
  metre of soils at 0-3 °C. There carbon decomposes too fast, which the parameters have to make up for.
"""

from typing import NamedTuple

import numpy as np

from clm5.grid import INTERFACE, LITTER_POOLS, N_LAYERS, N_MONTHS, NODE, NODE_ALL
from clm5.sites.water import liquid_potential, water_balance

FREEZING = 273.15  # K
DIFFUSIVITY = 5e-7  # m² s⁻¹, thermal, of moist mineral soil (Hillel 1998: 2e-7 dry … 9e-7 wet sand)
SNOW_DAMPING = 0.2  # share of frost that reaches the ground; COSORE soil temperatures allow 0.15 … 0.25
SECONDS_PER_YEAR = 365.0 * 86400.0
PSI_MIN, PSI_MAX = -2.0, -0.002  # MPa: CLM5's minpsi_hr, maxpsi_hr (parameter file c171117)
WATER_FLOOR = 0.005  # the water scalar of frozen or bone-dry soil; 0 would keep its carbon for ever
OXYGEN_MIN = 0.2  # CLM5's mino2lim
NITROGEN = 0.98
LITTER_SHARES = np.array([0.25, 0.50, 0.25])  # metabolic, cellulose, lignin: CLM5's lf_* and fr_*, all plant types
CARBON_PER_DRY_MATTER = 0.45


class Normals(NamedTuple):
    """Climate normals and soil of many sites; the first axis of all is the site."""

    air_temperature: np.ndarray  # (site, 12), K
    precipitation: np.ndarray  # (site, 12), mm month⁻¹
    lat: np.ndarray  # (site,), degrees north
    sand: np.ndarray  # (site,), %
    clay: np.ndarray  # (site,), %
    npp: np.ndarray  # (site,), gC m⁻² yr⁻¹
    woody_share: np.ndarray  # (site,), share of litter that is coarse wood
    bedrock_depth: np.ndarray  # (site,), m; inf where deeper than the model


def forcing_from_climate(normals: Normals) -> dict[str, np.ndarray]:
    """The forcing variables of the site schema, by name: (site, layer, month), (site, pool, month) or (site, month)."""
    temperature = damped_wave(normals.air_temperature, NODE)
    balance = water_balance(normals)
    potential = np.minimum(balance.potential, liquid_potential(temperature))
    saturation = np.clip((balance.saturation - 0.95) / 0.05, 0.0, 1.0)
    thaw = thaw_depth(damped_wave(normals.air_temperature, NODE_ALL))
    altmax, altmax_last_year = running_maximum(thaw, normals.lat)
    return {
        "soil_temperature": temperature,
        "water_scalar": water_scalar(potential),
        "oxygen_scalar": 1.0 - (1.0 - OXYGEN_MIN) * saturation,
        "nitrogen_scalar": np.full_like(temperature, NITROGEN),
        "litter_input": litter_input(normals.npp, normals.woody_share, normals.air_temperature),
        "active_layer_depth": altmax,
        "active_layer_depth_last_year": altmax_last_year,
        "bedrock_layer": np.repeat(bedrock_layer(normals.bedrock_depth)[:, None], N_MONTHS, axis=1),
    }


def damped_wave(air_temperature: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """Soil temperature at `depth` (m) from twelve monthly means of air temperature: (site, 12) → (site, depth, 12), K.

        T(z, t) = T̄ + Σ_k A_k exp(−z/d_k) cos(k ω t − φ_k − z/d_k),   d_k = √(2κ/(k ω))

    with A_k, φ_k the harmonics of the surface: air temperature above 0 °C, and a fifth of the frost below it.
    """
    surface = np.where(
        air_temperature < FREEZING, FREEZING + SNOW_DAMPING * (air_temperature - FREEZING), air_temperature
    )
    harmonics = np.fft.rfft(surface, axis=-1)  # (site, 7)
    k = np.arange(harmonics.shape[-1])
    inverse_damping_depth = np.sqrt(np.pi * k / (DIFFUSIVITY * SECONDS_PER_YEAR))  # √(k ω / 2κ), m⁻¹
    damping = np.exp(-(1 + 1j) * np.asarray(depth)[:, None] * inverse_damping_depth)  # (depth, 7)
    return np.fft.irfft(harmonics[:, None, :] * damping, n=N_MONTHS, axis=-1)


def water_scalar(potential: np.ndarray) -> np.ndarray:
    """CLM5's water scalar of soil water potential (MPa, negative), in [0.005, 1].

    r_W = ln(ψ_min/ψ) / ln(ψ_min/ψ_max), 0 below ψ_min = −2 MPa and 1 above ψ_max = −0.002 MPa. The floor is ours: a
    layer that never decomposes has no steady state.
    """
    bounded = np.clip(potential, PSI_MIN, PSI_MAX)
    return np.clip(np.log(PSI_MIN / bounded) / np.log(PSI_MIN / PSI_MAX), WATER_FLOOR, 1.0)


def thaw_depth(temperature: np.ndarray) -> np.ndarray:
    """Depth (m) to which soil is thawed, from temperature at CLM5's 25 nodes: (site, 25, month) → (site, month).

    The deepest thawed node, and from there on linearly to 0 °C; 0 where every node is frozen, 42 m (the last node)
    where the last one is thawed. So a column whose surface freezes above unfrozen ground counts as deep, as in CTSM.
    """
    thawed = temperature > FREEZING
    last = len(NODE_ALL) - 1
    deepest = last - np.argmax(thawed[:, ::-1, :], axis=1)  # (site, month)
    below = np.minimum(deepest + 1, last)
    at = np.take_along_axis(temperature, deepest[:, None, :], axis=1)[:, 0, :]
    under = np.take_along_axis(temperature, below[:, None, :], axis=1)[:, 0, :]
    fraction = np.where(deepest < last, (at - FREEZING) / np.maximum(at - under, 1e-9), 0.0)
    depth = NODE_ALL[deepest] + fraction * (NODE_ALL[below] - NODE_ALL[deepest])
    return np.where(thawed.any(axis=1), depth, 0.0)


def running_maximum(thaw: np.ndarray, lat: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """ALTMAX (maximum since January, in the south since July) and ALTMAX_LASTYEAR (the annual one), (site, month)."""
    southern = np.asarray(lat)[:, None] < 0
    north = np.maximum.accumulate(thaw, axis=1)
    south = np.roll(np.maximum.accumulate(np.roll(thaw, 6, axis=1), axis=1), -6, axis=1)
    annual = np.repeat(thaw.max(axis=1, keepdims=True), N_MONTHS, axis=1)
    return np.where(southern, south, north), annual


def litter_input(npp: np.ndarray, woody_share: np.ndarray, air_temperature: np.ndarray) -> np.ndarray:
    """Litter of cwd and litter1-3 by month, gC m⁻² month⁻¹, (site, 4, 12); a year of it sums to NPP.

    Half falls evenly (roots, evergreen leaves), half in the months in which it grows colder (autumn). The model reads
    the annual sum only, so that the season is for plausibility alone.
    """
    cooling = np.maximum(np.roll(air_temperature, 1, axis=1) - air_temperature, 0.0) + 1e-6
    season = 0.5 / N_MONTHS + 0.5 * cooling / cooling.sum(axis=1, keepdims=True)  # (site, month), sums to 1
    shares = np.concatenate([woody_share[:, None], (1 - woody_share)[:, None] * LITTER_SHARES], axis=1)
    assert shares.shape[1] == len(LITTER_POOLS)
    return npp[:, None, None] * shares[:, :, None] * season[:, None, :]


def miami_npp(mean_temperature: np.ndarray | float, annual_precipitation: np.ndarray | float) -> np.ndarray | float:
    """Net primary production, gC m⁻² yr⁻¹, of mean temperature (K) and precipitation (mm yr⁻¹): the Miami model.

    min(3000 / (1 + e^(1.315 − 0.119 T)), 3000 (1 − e^(−0.000664 P))) g dry matter with T in °C, 45 % of it carbon.
    Source: Lieth 1975, *Primary Productivity of the Biosphere*.
    """
    warm = 3000.0 / (1.0 + np.exp(1.315 - 0.119 * (mean_temperature - FREEZING)))
    wet = 3000.0 * (1.0 - np.exp(-0.000664 * annual_precipitation))
    return CARBON_PER_DRY_MATTER * np.minimum(warm, wet)


def bedrock_layer(depth: np.ndarray) -> np.ndarray:
    """CLM5's number (from 1) of the layer that holds bedrock depth (m): at least 3, as in CTSM, at most 20 here."""
    return np.clip(np.searchsorted(INTERFACE, depth, side="left") + 1, 3, N_LAYERS).astype(float)
