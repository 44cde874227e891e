"""A made-up land laid out over the contiguous US: climates from warm to permafrost, soils, vegetation.

The outline is real, roughly; everything else is invented to be plausible, so that the virtual sites need no download.
Fields vary smoothly over the map, as real ones do, so that places near each other are alike.
"""

from typing import NamedTuple

import numpy as np

from clm5.sites.assembly import Covariate
from clm5.sites.climate import FREEZING, Normals, miami_npp
from clm5.sites.water import potential_evapotranspiration

# lon, lat of the outline of the contiguous US, coarse: for placing points on land, not for drawing
OUTLINE = np.array([
    (-124.5, 48.3), (-123.0, 49.0), (-95.2, 49.0), (-94.6, 48.7), (-89.6, 48.0), (-88.4, 48.2), (-84.9, 46.7),
    (-84.4, 45.8), (-83.5, 45.2), (-83.4, 44.1), (-82.5, 43.1), (-83.1, 42.0), (-81.3, 41.7), (-79.0, 42.7),
    (-79.0, 43.3), (-76.4, 43.6), (-75.0, 45.0), (-71.4, 45.2), (-70.3, 46.3), (-69.2, 47.4), (-67.9, 47.1),
    (-67.1, 44.8), (-70.0, 43.8), (-70.7, 42.6), (-70.0, 41.7), (-73.9, 40.7), (-74.1, 39.7), (-75.2, 38.4),
    (-75.9, 36.7), (-75.7, 35.3), (-77.9, 33.9), (-81.0, 31.9), (-81.4, 30.5), (-80.1, 26.9), (-80.4, 25.3),
    (-81.2, 25.2), (-82.7, 27.8), (-83.6, 29.9), (-85.2, 29.7), (-89.4, 30.2), (-89.3, 29.2), (-91.5, 29.4),
    (-94.5, 29.5), (-97.2, 27.7), (-97.2, 26.0), (-99.2, 26.5), (-101.4, 29.8), (-103.2, 29.1), (-104.6, 29.8),
    (-106.5, 31.8), (-108.2, 31.8), (-111.1, 31.4), (-114.8, 32.6), (-117.1, 32.6), (-118.5, 34.1), (-120.6, 34.6),
    (-121.9, 36.6), (-123.8, 39.4), (-124.3, 40.4), (-124.2, 42.8), (-123.9, 45.8),
])  # fmt: skip

CLIMATE_CLASSES = ("tropical", "arid", "warm_temperate", "cool_temperate", "boreal", "permafrost")
LAND_COVERS = ("evergreen_forest", "deciduous_forest", "shrubland", "grassland", "cropland", "tundra", "bare")
TEXTURE_CLASSES = ("sand", "loam", "clay_loam", "clay")


class Landscape(NamedTuple):
    """The made-up places: where they are, what the forcing is made from, and what a map would say about them."""

    lon: np.ndarray
    lat: np.ndarray
    normals: Normals
    covariates: dict[str, Covariate]


def landscape(rng: np.random.Generator, n: int) -> Landscape:
    """`n` places with climate normals, soils, vegetation and covariates."""
    lon, lat = places(rng, n)
    elevation = _elevation(rng, lon, lat)
    mean, swing = _temperature(rng, lon, lat, elevation)
    phase = np.cos(2 * np.pi * (np.arange(12) - 6.3) / 12)  # warmest in mid July
    air = mean[:, None] + swing[:, None] * phase
    rain = _precipitation(rng, lon, lat, elevation, phase)
    sand, clay = _texture(rng, lon, lat)
    npp = miami_npp(air.mean(axis=1), rain.sum(axis=1)) * np.exp(0.15 * smooth_field(rng, lon, lat, 6.0))
    npp = np.clip(npp, 40.0, 1500.0)
    bedrock = np.exp(
        np.log(3.5) + 0.8 * smooth_field(rng, lon, lat, 5.0) - 1.5e-4 * elevation + 0.4 * rng.normal(size=n)
    )
    bedrock = np.where(bedrock > 6.0, np.inf, np.maximum(bedrock, 0.6))  # m; layer 6 … 20
    woody = np.clip(0.28 / (1 + np.exp(-(npp - 450.0) / 90.0)) + 0.02 * rng.normal(size=n), 0.01, 0.32)
    normals = Normals(air, rain, lat, sand, clay, npp, woody, bedrock)
    return Landscape(lon, lat, normals, _covariates(rng, lon, elevation, normals))


def places(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """`n` points, evenly spread over the land inside `OUTLINE`: lon, lat in degrees."""
    found = np.empty((0, 2))
    south, north = np.sin(np.radians(25.0)), np.sin(np.radians(49.0))
    while len(found) < n:
        lon = rng.uniform(-124.5, -67.0, 4 * n + 16)
        sine = rng.uniform(float(south), float(north), 4 * n + 16)  # even by area
        points = np.stack([lon, np.degrees(np.arcsin(sine))], axis=1)
        found = np.concatenate([found, points[inside(points, OUTLINE)]])
    return found[:n, 0], found[:n, 1]


def inside(points: np.ndarray, polygon: np.ndarray) -> np.ndarray:
    """Whether points (n, 2) lie inside a polygon (vertex, 2), by counting the edges east of them."""
    x, y = points[:, :1], points[:, 1:]
    (x0, y0), (x1, y1) = polygon.T, np.roll(polygon, -1, axis=0).T
    crosses = (y0 > y) != (y1 > y)
    with np.errstate(divide="ignore", invalid="ignore"):
        east = x < x0 + (y - y0) * (x1 - x0) / (y1 - y0)
    return np.sum(crosses & east, axis=1) % 2 == 1


def smooth_field(rng: np.random.Generator, lon: np.ndarray, lat: np.ndarray, scale: float) -> np.ndarray:
    """A random field of mean 0 and variance 1 over the map, alike within about `scale` degrees."""
    frequency, phase = rng.normal(size=(2, 64)) / scale, rng.uniform(0, 2 * np.pi, 64)
    east = lon[:, None] * np.cos(np.radians(38.0))
    return np.sqrt(2 / 64) * np.cos(east * frequency[0] + lat[:, None] * frequency[1] + phase).sum(axis=1)


def _elevation(rng, lon, lat):
    """Metres: a high range in the west, a low one in the east, hills everywhere."""
    west = 2900.0 * np.exp(-(((lon + 110.5 - 0.25 * (lat - 40)) / 5.5) ** 2))
    coast = 1300.0 * np.exp(-(((lon + 120.5) / 1.8) ** 2))
    east = 700.0 * np.exp(-(((lon + 80.5 - 0.9 * (lat - 37)) / 2.5) ** 2)) * (lat > 32)
    rough = np.exp(0.3 * smooth_field(rng, lon, lat, 1.5) + 0.15 * rng.normal(size=len(lon)))
    return np.clip((west + coast + east + 120.0) * rough, 2.0, 4300.0)


def _temperature(rng, lon, lat, elevation):
    """Annual mean (K) and half the yearly range (K): 24 °C in the far south, −14 °C on high northern ground."""
    mean = (
        26.5
        - 0.88 * (lat - 25.0)
        - 6.5e-3 * np.maximum(elevation - 150.0, 0.0)
        + 0.8 * smooth_field(rng, lon, lat, 8.0)
    )
    mean = np.where(mean < 2.0, 2.0 + 1.25 * (mean - 2.0), mean)  # high ground is colder still: permafrost
    mean = np.maximum(mean, -14.0 + 0.2 * (mean + 14.0))
    inland = np.clip(np.minimum(lon + 124.5, -67.0 - lon) / 15.0, 0.15, 1.0)
    swing = 3.5 + 0.55 * (lat - 25.0) * (0.35 + 0.65 * inland) + 0.6 * rng.normal(size=len(lon))
    swing = np.maximum(
        np.clip(swing, 2.5, 18.0), rng.uniform(2.5, 8.0, len(lon)) - mean
    )  # every place has a summer: no ice sheets
    return mean + FREEZING, swing


def _precipitation(rng, lon, lat, elevation, phase):
    """Monthly precipitation, mm: wet east and north-west, dry between; winter rain in the west, else summer rain."""
    east = 1.0 / (1.0 + np.exp(-(lon + 97.0) / 3.5))
    north_west = np.exp(-(((lon + 124.0) / 2.5) ** 2) - ((lat - 47.5) / 4.0) ** 2)
    annual = (230.0 + 900.0 * east * (1.25 - 0.015 * (lat - 25.0)) + 1500.0 * north_west + 0.13 * elevation) * np.exp(
        0.15 * smooth_field(rng, lon, lat, 4.0) + 0.08 * rng.normal(size=len(lon))
    )
    winter = 1.0 / (1.0 + np.exp((lon + 114.0) / 2.0))
    season = 1.0 + (0.35 * (1 - winter) - 0.75 * winter)[:, None] * phase
    wet = np.clip(season + 0.08 * rng.normal(size=(len(lon), 12)), 0.03, None)
    return annual[:, None] * wet / wet.sum(axis=1, keepdims=True)


def _texture(rng, lon, lat):
    """Sand and clay, %."""
    coarse = 0.8 * smooth_field(rng, lon, lat, 5.0) + 0.6 * rng.normal(size=len(lon))
    fine = 0.6 * smooth_field(rng, lon, lat, 5.0) - 0.5 * coarse + 0.5 * rng.normal(size=len(lon))
    parts = np.exp(np.stack([0.2 + 0.8 * coarse, 0.1 + 0.0 * coarse, -0.4 + 0.7 * fine]))
    sand, _, clay = 100.0 * parts / parts.sum(axis=0)
    return np.clip(sand, 5.0, 92.0), np.clip(clay, 3.0, 65.0)


def _covariates(rng, lon, elevation, normals: Normals) -> dict[str, Covariate]:
    """About twenty numbers and classes a site, as a map or a sampler of soils would report them."""
    n, lat = len(lon), normals.lat

    def noise(size):
        return size * rng.normal(size=n)

    air, rain = normals.air_temperature - FREEZING, normals.precipitation
    annual, mean = rain.sum(axis=1), air.mean(axis=1)
    demand = potential_evapotranspiration(normals).sum(axis=1)
    aridity = annual / np.maximum(demand, 50.0)
    months_frozen = np.sum(air < 0, axis=1)
    ph = np.clip(
        7.6 - 0.9 * np.log2(np.maximum(aridity, 0.1) + 0.5) + 0.4 * smooth_field(rng, lon, lat, 4.0) + noise(0.3),
        3.8,
        9.2,
    )
    density = np.clip(1.15 + 0.004 * normals.sand - 0.05 * (mean < 3) + noise(0.08), 0.6, 1.75)
    cec = np.clip(4.0 + 0.45 * normals.clay + 1.2 * (ph - 6.0) + noise(2.0), 1.0, 60.0)
    climate = np.select([mean < -6.0, mean < 3.0, aridity < 0.45, mean < 11.0, mean < 21.0], [5, 4, 1, 3, 2], default=0)
    crop = smooth_field(rng, lon, lat, 3.0) + noise(0.5) > 0.9
    cover = np.select(
        [
            climate == 5,
            normals.npp < 150,
            crop & (climate >= 2) & (climate <= 3),
            aridity < 0.5,
            aridity < 0.8,
            mean < 8.0,
        ],
        [5, 6, 4, 2, 3, 0],
        default=1,
    )
    texture = np.select([normals.sand > 65, normals.clay > 40, normals.clay > 27], [0, 3, 2], default=1)

    def number(values, unit, meaning):
        return Covariate(np.asarray(values, float), unit, meaning)

    return {
        "mean_temperature": number(mean, "degC", "annual mean air temperature"),
        "temperature_range": number(np.ptp(air, axis=1), "K", "warmest minus coldest month"),
        "warmest_month": number(air.max(axis=1), "degC", "air temperature of the warmest month"),
        "months_frozen": number(months_frozen, "1", "months with a mean air temperature below 0 degC"),
        "precipitation": number(annual, "mm yr-1", "annual precipitation"),
        "precipitation_seasonality": number(
            100 * rain.std(axis=1) / rain.mean(axis=1), "%", "variation between months"
        ),
        "aridity_index": number(aridity, "1", "precipitation over potential evapotranspiration"),
        "npp": number(
            normals.npp * np.exp(noise(0.1)), "gC m-2 yr-1", "net primary production, as a satellite sees it"
        ),
        "elevation": number(elevation, "m", "height above sea level"),
        "slope": number(np.exp(0.4 * np.log(elevation) - 1.6 + noise(0.5)), "degree", "slope of the terrain"),
        "wetness_index": number(8.0 + 1.5 * smooth_field(rng, lon, lat, 1.0) + noise(1.0), "1", "topographic wetness"),
        "sand": number(normals.sand, "%", "sand, 0 to 30 cm"),
        "clay": number(normals.clay, "%", "clay, 0 to 30 cm"),
        "ph": number(ph, "1", "pH in water, 0 to 30 cm"),
        "bulk_density": number(density, "g cm-3", "bulk density, 0 to 30 cm"),
        "cec": number(cec, "cmol kg-1", "cation exchange capacity, 0 to 30 cm"),
        "iron_oxides": number(
            np.exp(0.5 * smooth_field(rng, lon, lat, 3.0) + noise(0.4)), "%", "oxalate-extractable iron"
        ),
        "bedrock_depth": number(np.minimum(normals.bedrock_depth, 8.6), "m", "depth to bedrock, 8.6 where deeper"),
        "night_lights": number(np.exp(noise(1.0)), "1", "tells nothing about the soil: a covariate to be ignored"),
        "climate_class": Covariate(climate, "1", "climate class", CLIMATE_CLASSES),
        "land_cover": Covariate(cover, "1", "land cover", LAND_COVERS),
        "texture_class": Covariate(texture, "1", "texture class, 0 to 30 cm", TEXTURE_CLASSES),
    }
