"""How far is the forcing made from climate normals from measured soil temperature and from CLM5's own fields?

    python scripts/check_forcing.py DATA_FOLDER [--csv forcing_errors.csv]

The folder holds the tables that `clm5.sites.from_tables` reads, and for the comparison `cosore_sites.csv`,
`cosore_soil_monthly.csv` (soil temperature and water content by site, month and depth) and
`clm5_sparse250_snapshot.nc` (one month, probably a February, of 250 CLM5 columns without coordinates).

Soil temperature and water content are compared place by place. The CLM5 columns have no place: there the distribution
over columns is compared with the distribution over our sites of the same class of deep soil temperature and rain, in
February. In such rows the error of the forcing is mixed with the difference between two samples of the world, and
errors that cancel within a class do not show.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from clm5.grid import NODE
from clm5.sites.climate import FREEZING, Normals, damped_wave, water_scalar
from clm5.sites.table_files import MONTHS, read_tables
from clm5.sites.tables import LOAM, SHALLOW, from_tables
from clm5.sites.water import liquid_potential, soil, water_balance

FARTHEST = 1.0  # degrees between a station and the climate cell that stands for it
DEEP = int(np.argmin(np.abs(NODE - 4.27)))  # the year hardly reaches this layer
# class of a column: annual temperature of deep soil (K, from, to), and whether the month is wet
CLASSES = {
    "below 0 °C": (0.0, 273.15, None),
    "0-3 °C": (273.15, 276.15, None),
    "3-12 °C": (276.15, 285.15, None),
    "12-20 °C, dry month": (285.15, 293.15, False),
    "12-20 °C, wet month": (285.15, 293.15, True),
    "above 20 °C, dry month": (293.15, 400.0, False),
    "above 20 °C, wet month": (293.15, 400.0, True),
}
WET = 50.0  # mm month⁻¹
SECONDS_PER_MONTH = 365.0 * 86400.0 / 12.0
BANDS = {"0-0.2 m": (0.0, 0.2), "0.2-1 m": (0.2, 1.0), "1-8.6 m": (1.0, 8.6)}
QUANTILES = np.linspace(0.05, 0.95, 19)
MPA_PER_MM = 9.80665e-6


def pairs(field: str, where: str, found: np.ndarray, expected: np.ndarray) -> dict:
    """Errors of values that belong together, one by one."""
    r = np.corrcoef(found, expected)[0, 1] if len(found) > 2 and np.std(found) > 0 and np.std(expected) > 0 else np.nan
    error = found - expected
    return {
        "field": field, "where": where, "n": len(found), "reference": expected.mean(), "ours": found.mean(),
        "bias": error.mean(), "rmse": np.sqrt(np.mean(error**2)), "r": r, "by": "pairs",
    }  # fmt: skip


def distributions(field: str, where: str, found: np.ndarray, expected: np.ndarray) -> dict:
    """Difference of two samples: bias of the mean, root mean square difference of the quantiles 0.05 … 0.95."""
    gap = np.quantile(found, QUANTILES) - np.quantile(expected, QUANTILES)
    return {
        "field": field, "where": where, "n": len(expected), "reference": expected.mean(), "ours": found.mean(),
        "bias": found.mean() - expected.mean(), "rmse": np.sqrt(np.mean(gap**2)), "r": np.nan, "by": "distributions",
    }  # fmt: skip


def against_cosore(folder: Path) -> list[dict]:
    """Monthly soil temperature and water content at stations, against the nearest climate cell's forcing."""
    stations = pd.read_csv(folder / "cosore_sites.csv").drop_duplicates("dataset").set_index("dataset")
    measured = pd.read_csv(folder / "cosore_soil_monthly.csv")
    climate = read_tables(folder).climate
    distance = np.hypot(
        (stations.lon.to_numpy()[:, None] - climate.lon.to_numpy())
        * np.cos(np.radians(stations.lat.to_numpy()))[:, None],
        stations.lat.to_numpy()[:, None] - climate.lat.to_numpy(),
    )
    stations["cell"], stations["distance"] = distance.argmin(axis=1), distance.min(axis=1)
    near = stations[stations.distance <= FARTHEST]
    measured = measured[measured.dataset.isin(near.index)]
    row = near.index.get_indexer(measured.dataset)
    month = measured.month.str[-2:].astype(int).to_numpy() - 1
    depth, value = measured.depth_cm.to_numpy() / 100.0, measured.value.to_numpy()

    air = climate[[f"T{m}" for m in MONTHS]].to_numpy(float)[near.cell] + FREEZING
    rain = climate[[f"P{m}" for m in MONTHS]].to_numpy(float)[near.cell]
    loam = {part: np.full(len(near), percent) for part, percent in LOAM.items()}
    still = np.zeros(len(near))
    normals = Normals(air, rain, near.lat.to_numpy(), loam["sand"], loam["clay"], still, still, still + np.inf)
    depths = np.unique(depth)
    modelled = damped_wave(air, depths)[row, np.searchsorted(depths, depth), month] - FREEZING
    plain = air[row, month] - FREEZING
    content = water_balance(normals).saturation * soil(loam["sand"], loam["clay"]).porosity[:, None, None]
    content = content[row, np.abs(NODE[:, None] - depth).argmin(axis=0), month]

    warm = (measured.variable == "soil_temp_C").to_numpy()
    rows = [
        pairs(
            "soil temperature, °C",
            f"{near.index[np.unique(row[warm])].size} COSORE stations",
            modelled[warm],
            value[warm],
        ),
        pairs("air temperature in its place, °C", "the same", plain[warm], value[warm]),
    ]
    for name, (low, high) in {"0-0.1 m": (0, 0.1), "0.1-0.3 m": (0.1, 0.3), "0.3-1 m": (0.3, 1)}.items():
        at = warm & (depth >= low) & (depth < high)
        rows.append(pairs("soil temperature, °C", f"COSORE, {name}", modelled[at], value[at]))
    for name, chosen in {"December-February": [11, 0, 1], "June-August": [5, 6, 7]}.items():
        at = warm & np.isin(month, chosen) & (near.lat.to_numpy()[row] > 30)
        rows.append(pairs("soil temperature, °C", f"COSORE north of 30°N, {name}", modelled[at], value[at]))
    each = pd.DataFrame({"station": row[warm], "error": (modelled - value)[warm]}).groupby("station").error
    rmse, bias = each.apply(lambda e: np.sqrt(np.mean(e**2))), each.mean()
    rows.append(
        {"field": "soil temperature, °C", "where": "COSORE, the median station", "n": len(rmse), "bias": bias.median(),
         "rmse": rmse.median(), "by": "pairs"}
    )  # fmt: skip
    wet = (measured.variable == "soil_water_m3_m3").to_numpy()
    return [*rows, pairs("water content, m³ m⁻³", "COSORE, loam assumed", content[wet], value[wet])]


def against_clm5(folder: Path) -> list[dict]:
    """Water and oxygen scalars and temperatures in February, by class of deep soil temperature."""
    with xr.open_dataset(folder / "clm5_sparse250_snapshot.nc", engine="h5netcdf") as file:
        clm = file.load()
    sites = from_tables(folder)
    rows = []
    deep_clm, deep_ours = clm.TSOI.values[DEEP], sites.soil_temperature.values[:, DEEP].mean(axis=1)
    wet_clm, wet_ours = (clm.RAIN + clm.SNOW).values * SECONDS_PER_MONTH > WET, february_rain(folder, sites) > WET
    vegetated = clm.SOILC_vr.values[0] > 0
    fields = {
        "water scalar": (clm.W_SCALAR.values, sites.water_scalar.values[:, :, 1].T),
        "oxygen scalar": (clm.O_SCALAR.values, sites.oxygen_scalar.values[:, :, 1].T),
        "soil temperature, K": (clm.TSOI.values[: len(NODE)], sites.soil_temperature.values[:, :, 1].T),
    }
    soil_clm = clm.H2OSOI.values > 1e-3  # layers above bedrock
    for field, (theirs, ours) in fields.items():
        for band, (low, high) in BANDS.items():
            layers = (low <= NODE) & (high > NODE)
            for name, (cold, warm, wet) in CLASSES.items():
                here = vegetated & (deep_clm >= cold) & (deep_clm < warm)
                there = (deep_ours >= cold) & (deep_ours < warm)
                if wet is not None:
                    here, there = here & (wet_clm == wet), there & (wet_ours == wet)
                expected = theirs[np.ix_(layers, here)][soil_clm[np.ix_(layers, here)]]
                if expected.size and there.any():
                    where = f"CLM5 columns, {band}, {name}"
                    rows.append(distributions(field, where, ours[np.ix_(layers, there)].ravel(), expected))
    nitrogen = np.full(int(vegetated.sum()), sites.nitrogen_scalar.values.mean())
    rows.append(distributions("nitrogen scalar", "CLM5 columns, FPI", nitrogen, clm.FPI.values[vegetated]))
    rows += _water_function(clm, soil_clm)
    frozen_clm, frozen_ours = vegetated & (deep_clm < FREEZING), deep_ours < FREEZING
    thaw_ours, thaw_clm = sites.active_layer_depth.values[:, 1], clm.ALTMAX.values  # both: the most until February
    annual = sites.active_layer_depth_last_year.values[frozen_ours, 0]  # the snapshot has none to compare it with
    field, where, here = "thaw depth since January, m", "CLM5 columns with frozen deep soil", "our sites of that kind"
    return [
        *rows,
        distributions(field, where, thaw_ours[frozen_ours], thaw_clm[frozen_clm]),
        alone(f"{field}, median", where, np.median(thaw_ours[frozen_ours]), np.median(thaw_clm[frozen_clm]),
              int(frozen_clm.sum())),
        alone("active layer, m, median", here, np.median(annual), np.nan, len(annual)),
        alone("active layer, m, smallest", here, annual.min(), np.nan, len(annual)),
        alone("active layer, share up to 2 m", here, np.mean(annual <= SHALLOW), np.nan, len(annual)),
    ]  # fmt: skip


def alone(field: str, where: str, found: float, expected: float, n: int) -> dict:
    """One number of a whole sample, beside that of the reference where there is one."""
    return {
        "field": field, "where": where, "n": n, "reference": expected, "ours": found, "bias": found - expected,
        "by": "distributions",
    }  # fmt: skip


def february_rain(folder: Path, sites: xr.Dataset) -> np.ndarray:
    """Precipitation in February at the sites, mm."""
    tables = read_tables(folder)
    cells = tables.sites.set_index("profile_id").clim_cell.loc[sites.site.values]
    return tables.climate.set_index("clim_cell").loc[cells, "P02"].to_numpy(float)


def _water_function(clm: xr.Dataset, soil_layers: np.ndarray) -> list[dict]:
    """Our water scalar of CLM5's own potential and temperature, against CLM5's scalar, layer by layer."""
    temperature, potential = clm.TSOI.values[: len(NODE)], clm.SMP.values[: len(NODE)] * MPA_PER_MM
    ours = water_scalar(np.minimum(potential, liquid_potential(temperature)))
    frozen = temperature < FREEZING
    return [
        pairs("water scalar of CLM5's potential", f"{name} layers", ours[at], clm.W_SCALAR.values[at])
        for name, at in {"frozen": soil_layers & frozen, "thawed": soil_layers & ~frozen}.items()
    ]


def main(argv: list[str] | None = None) -> pd.DataFrame:
    """Make the table, print it, and write it where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder with the tables and the reference data")
    parser.add_argument("--csv", type=Path, help="also write the table here")
    args = parser.parse_args(argv)
    table = pd.DataFrame(against_cosore(args.folder) + against_clm5(args.folder))
    with pd.option_context("display.width", 200, "display.max_rows", None, "display.max_colwidth", None):
        print(table.round(3).to_string(index=False))
    if args.csv:
        table.to_csv(args.csv, index=False)
    return table


if __name__ == "__main__":
    main()
