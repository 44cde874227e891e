"""Soil water by month and depth from climate normals: a two-layer bucket, and potentials from CLM5's soil properties.

The bucket is that of Thornthwaite & Mather (1955), in two layers as in Palmer (1965), with Thornthwaite's (1948)
demand: rain fills the upper layer first, demand draws on it first and on the lower one for the rest, each yielding less
the drier it is; what neither holds drains. Snow waits for the thaw. Retention and conductivity are those that CLM5
computes from texture (Clapp & Hornberger 1978, Cosby et al. 1984), so that a potential follows from the water content,
and while water drains from the drainage itself.
"""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from clm5.grid import NODE

if TYPE_CHECKING:
    from clm5.sites.climate import Normals

FREEZING = 273.15  # K
UPPER_BUCKET, LOWER_BUCKET = 0.3, 1.2  # m, thickness: together the root zone of 1.5 m
WILTING, FIELD_CAPACITY = -1.5, -0.033  # MPa
DRIEST = -1.9  # MPa, of soil from which plants can take nothing more
MPA_PER_MM = 9.80665e-6  # of water column
FUSION = 3.337e5 * 1e3 * 1e-6  # latent heat of fusion × density of water, MPa
SECONDS_PER_MONTH = 365.0 * 86400.0 / 12.0
MELT = 90.0  # mm month⁻¹ K⁻¹, 3 mm a day and degree (Hock 2003)
SPIN_UP = 20  # years; the bucket forgets its start within a few


class Soil(NamedTuple):
    """CLM5's hydraulic properties, each (site,)."""

    porosity: np.ndarray  # m³ m⁻³
    suction: np.ndarray  # MPa, negative: potential at saturation
    exponent: np.ndarray  # Clapp-Hornberger b
    conductivity: np.ndarray  # mm s⁻¹, at saturation

    def content(self, potential):
        """Volumetric water content at a potential (MPa)."""
        return self.porosity * np.minimum((potential / self.suction) ** (-1.0 / self.exponent), 1.0)

    def potential(self, content):
        """Potential (MPa) at a volumetric water content."""
        return self.suction * np.maximum(content / self.porosity, 1e-3) ** (-self.exponent)


class Balance(NamedTuple):
    """What the water balance gives, each (site, layer, month)."""

    potential: np.ndarray  # MPa, ice not regarded
    saturation: np.ndarray  # share of the pore space that is filled


def soil(sand: np.ndarray, clay: np.ndarray) -> Soil:
    """Hydraulic properties from texture (%). Source: CLM5 technical note, Hydrology, after Cosby et al. (1984)."""
    return Soil(
        porosity=0.489 - 0.00126 * sand,
        suction=-10.0 * 10.0 ** (1.88 - 0.0131 * sand) * MPA_PER_MM,
        exponent=2.91 + 0.159 * clay,
        conductivity=0.0070556 * 10.0 ** (-0.884 + 0.0153 * sand),
    )


def water_balance(normals: "Normals") -> Balance:
    """Potential and saturation of every layer and month in a steady year, from rain, demand and texture."""
    properties = soil(normals.sand, normals.clay)
    wilting, field = (properties.content(np.full_like(normals.sand, p)) for p in (WILTING, FIELD_CAPACITY))
    available = np.maximum(field - wilting, 0.02)  # m³ m⁻³
    capacity = np.stack([available * UPPER_BUCKET, available * LOWER_BUCKET]) * 1e3  # mm, (bucket, site)
    share, drainage = _bucket(rain_and_melt(normals), potential_evapotranspiration(normals), capacity)

    # how full a layer is: the buckets at their middle; from 3 m on, where no root takes it, what the wettest month left
    upper, lower, deep = share[0], share[1], np.repeat(share[1].max(axis=1, keepdims=True), 12, axis=1)
    knots = np.log([0.5 * UPPER_BUCKET, UPPER_BUCKET + 0.5 * LOWER_BUCKET, 3.0])
    weight = np.array([np.interp(np.log(NODE), knots, row) for row in np.eye(3)])  # (knot, layer)
    full = np.einsum("ksm,kl->slm", np.stack([upper, lower, deep]), weight)

    column = Soil(*(x[:, None, None] for x in properties))
    content = wilting[:, None, None] + full * available[:, None, None]
    potential = np.maximum(column.potential(content), DRIEST)
    flow = np.maximum(drainage, 0.0)[:, None, :] / SECONDS_PER_MONTH  # mm s⁻¹: unit gradient, K(ψ) = flow
    draining = column.suction * np.clip(flow / column.conductivity, 1e-12, 1.0) ** (
        -column.exponent / (2.0 * column.exponent + 3.0)
    )
    potential = np.where((flow > 0) & (full > 0.9), np.maximum(potential, draining), potential)
    return Balance(potential, column.content(potential) / column.porosity)


def potential_evapotranspiration(normals: "Normals") -> np.ndarray:
    """Thornthwaite's (1948) demand for water, mm month⁻¹, (site, 12), with the length of the day at the latitude."""
    celsius = np.clip(normals.air_temperature - FREEZING, 0.0, 38.0)
    heat = np.maximum(np.sum((celsius / 5.0) ** 1.514, axis=1, keepdims=True), 1e-3)
    power = 6.75e-7 * heat**3 - 7.71e-5 * heat**2 + 1.792e-2 * heat + 0.49239
    middle = 15.0 + 30.4 * np.arange(12)
    declination = 0.409 * np.sin(2 * np.pi * middle / 365.0 - 1.39)
    sunset = np.arccos(np.clip(-np.tan(np.radians(normals.lat))[:, None] * np.tan(declination), -1.0, 1.0))
    hours = 24.0 / np.pi * sunset
    return 16.0 * (hours / 12.0) * (10.0 * celsius / heat) ** power


def liquid_potential(temperature: np.ndarray) -> np.ndarray:
    """Potential (MPa) of the water that stays liquid in frozen soil; 0 above freezing.

    ψ = L_f ρ (T − T_f)/T_f, −1.22 MPa per kelvin (Clapeyron; Niu & Yang 2006).
    """
    return np.minimum(FUSION * (temperature - FREEZING) / FREEZING, 0.0)


def rain_and_melt(normals: "Normals") -> np.ndarray:
    """Water that reaches the ground, mm month⁻¹: rain, and snow when it melts; (site, 12)."""
    celsius = normals.air_temperature - FREEZING
    snowing = np.clip((2.0 - celsius) / 4.0, 0.0, 1.0) * normals.precipitation  # all snow at −2 °C, all rain at 2 °C
    pack, water = np.zeros(len(celsius)), np.zeros_like(normals.precipitation)
    for _ in range(3):  # years: a pack that lasts is a glacier, and stays out of the balance
        for month in range(12):
            pack = pack + snowing[:, month]
            melted = np.minimum(pack, MELT * np.maximum(celsius[:, month], 0.0))
            pack = pack - melted
            water[:, month] = normals.precipitation[:, month] - snowing[:, month] + melted
    return water


def _bucket(water: np.ndarray, demand: np.ndarray, capacity: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two layers through a steady year: shares of capacity (bucket, site, 12), drainage (site, 12) in mm.

    What a layer yields to unmet demand follows Thornthwaite & Mather: storage falls as exp(−demand/capacity).
    """
    upper, lower = 0.5 * capacity
    share, drainage = np.zeros((2, *water.shape)), np.zeros_like(water)
    for _ in range(SPIN_UP):
        for month in range(12):
            net = water[:, month] - demand[:, month]
            lacking = np.maximum(-net, 0.0)
            from_upper = upper * -np.expm1(-lacking / capacity[0])
            from_lower = lower * -np.expm1(-(lacking - from_upper) / capacity[1])
            into_upper = np.minimum(capacity[0] - upper, np.maximum(net, 0.0))
            into_lower = np.minimum(capacity[1] - lower, np.maximum(net, 0.0) - into_upper)
            before = np.stack([upper, lower])
            upper, lower = upper - from_upper + into_upper, lower - from_lower + into_lower
            share[:, :, month] = 0.5 * (before + np.stack([upper, lower])) / capacity  # mean over the month
            drainage[:, month] = np.maximum(net, 0.0) - into_upper - into_lower
    return share, drainage
