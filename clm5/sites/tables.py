"""Sites from three plain tables: measured horizons, one row a site, and the monthly climate of grid cells.

A folder holds

* `profiles.csv`: profile_id, upper_m, lower_m (m, from the mineral surface down), soc_gC_m3;
* `sites.csv`: profile_id, lon, lat, clim_cell, and what else is known: the columns of `COVARIATES` and `CATEGORIES`
  become covariates, npp_miami_gC or litterfall_gC the litter, sand_*, clay_* the texture, bedrock_m bedrock;
* `climate_monthly.csv`: clim_cell, T01 … T12 (°C), P01 … P12 (mm).

No such table comes with CLM5's forcing, so that it is made from the climate (`clm5.sites.climate`, an approximation).
Whatever is left out is counted by reason in the attributes `dropped` (JSON) and `history`.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from clm5.grid import DEPTH
from clm5.sites.assembly import assemble
from clm5.sites.checks import check
from clm5.sites.climate import FREEZING, Normals, forcing_from_climate, miami_npp
from clm5.sites.table_covariates import covariates_from

CONUS = (-124.8, -66.5, 24.5, 49.5)  # lon from, to, lat from, to
LOAM = {"sand": 43.0, "clay": 20.0}  # %, where no texture is known
LEAST_NPP = 5.0  # gC m⁻² yr⁻¹; less is bare ground
MONTHS = tuple(f"{m:02d}" for m in range(1, 13))
# Share of litter that is coarse wood, by IGBP class. Wood takes 0.39 of the NPP of tropical forest (Malhi et al. 2011,
# Phil. Trans. B 366:3225); 0.3 is taken for all forest, less where trees are fewer.
WOODY_SHARE = {1: 0.3, 2: 0.3, 3: 0.3, 4: 0.3, 5: 0.3, 6: 0.1, 7: 0.1, 8: 0.15, 9: 0.1}
WOODY_ELSEWHERE = 0.02


class Tables(NamedTuple):
    """The three tables, read and checked column by column."""

    profiles: pd.DataFrame
    sites: pd.DataFrame
    climate: pd.DataFrame


def from_tables(
    folder: str | os.PathLike,
    n_sites: int | None = None,
    seed: int = 0,
    *,
    box: tuple[float, float, float, float] | str | None = None,
    litter: str = "npp",
    min_horizons: int = 3,
    stratify: str | None = None,
) -> xr.Dataset:
    """Read a folder of tables into the site schema.

    Args:
        folder: holds profiles.csv, sites.csv and climate_monthly.csv (see the top of this module).
        n_sites: keep a random subset of this many sites (`seed` decides which); all when None.
        seed: of the subset.
        box: keep sites within (lon from, lon to, lat from, lat to), degrees; "conus" is the contiguous US.
        litter: "npp": litter equals net primary production, npp_miami_gC or the Miami model; "litterfall": the column
            litterfall_gC, doubled, for it counts what falls above ground only.
        min_horizons: leave out sites with fewer usable horizons. Usable: depths and carbon are there, carbon is
            positive, 0 ≤ upper < lower ≤ 8.6 m.
        stratify: a column of sites.csv (koppen, source); the subset then takes from its classes in turn.

    Returns:
        A checked data set in the site schema; attributes `dropped` (JSON, reason → number of sites) and `history`.

    Raises:
        FileNotFoundError: a table is missing.
        ValueError: a column is missing, not a number or in another unit; or no site is left.
    """
    if litter not in ("npp", "litterfall"):
        raise ValueError(f"from_tables: litter must be 'npp' or 'litterfall', got {litter!r}")
    box = CONUS if box == "conus" else box
    if isinstance(box, str) or (box is not None and len(box) != 4):
        raise ValueError(f"from_tables: box must be (lon from, lon to, lat from, lat to) or 'conus', got {box!r}")
    tables = read_tables(Path(folder))
    dropped: dict[str, int] = {}
    horizons = _usable_horizons(tables.profiles, dropped)
    rows = _usable_sites(tables, horizons, dropped, box=box, min_horizons=min_horizons, litter=litter)
    if rows.empty:
        raise ValueError(f"from_tables: {folder}: no site is left; left out: {dropped}. Loosen box or min_horizons.")
    if n_sites is not None:
        rows = _subset(rows, n_sites, np.random.default_rng(seed), stratify, dropped)

    horizons = horizons[horizons.profile_id.isin(rows.index)]
    upper, lower, soc = _padded(horizons, rows.index)
    climate = tables.climate.set_index("clim_cell").loc[rows.clim_cell]
    normals, notes = _normals(rows, climate, np.nanmax(lower, axis=1), litter)
    covariates, more = covariates_from(rows)
    place = {"lon": rows.lon.to_numpy(), "lat": rows.lat.to_numpy(), "upper": upper, "lower": lower, "soc": soc}
    history = [f"{len(rows)} sites read by clm5.sites.from_tables"]
    history += [f"left out: {count} {reason}" for reason, count in dropped.items()]
    attrs = {
        "title": "measured soil-carbon profiles with forcing approximated from climate normals",
        "source": "clm5.sites.from_tables",
        "forcing": "approximated from climate normals (clm5.sites.climate)",
        "dropped": json.dumps(dropped),
        "history": "; ".join([*history, *notes, *more]),
    }
    sites = assemble(list(rows.index), place | forcing_from_climate(normals), covariates, attrs)
    check(sites)
    return sites


def read_tables(folder: Path) -> Tables:
    """Read the three tables; refuse missing columns, text in numbers and numbers in other units."""
    profiles = _read(folder, "profiles.csv", ("profile_id", "upper_m", "lower_m", "soc_gC_m3"), text=("profile_id",))
    sites = _read(folder, "sites.csv", ("profile_id", "lon", "lat", "clim_cell"), text=("profile_id", "clim_cell"))
    monthly = [letter + month for letter in "TP" for month in MONTHS]
    climate = _read(folder, "climate_monthly.csv", ("clim_cell", *monthly), text=("clim_cell",))
    for table, name, key in ((sites, "sites.csv", "profile_id"), (climate, "climate_monthly.csv", "clim_cell")):
        twice = table[key][table[key].duplicated()]
        if len(twice):
            raise ValueError(
                f"{name}: {key} must be unique, {len(twice)} rows repeat one, first {twice.iloc[0]!r}. "
                "Merge or drop them."
            )
    temperature, rain = climate[[f"T{m}" for m in MONTHS]], climate[[f"P{m}" for m in MONTHS]]
    _require(climate, "climate_monthly.csv", temperature, -80, 60, "°C", "In kelvin? Subtract 273.15.")
    _require(climate, "climate_monthly.csv", rain, 0, 4000, "mm", "Negative: a fill value? Leave it empty.")
    if rain.sum(axis=1).max() < 50:
        raise ValueError(
            "climate_monthly.csv: P01 … P12 must be mm a month; the wettest cell has "
            f"{rain.sum(axis=1).max():g} a year. In cm, m or mm a day?"
        )
    _require(sites, "sites.csv", sites[["lon"]], -180, 180, "degrees", "Counted 0…360? Subtract 360 above 180.")
    _require(sites, "sites.csv", sites[["lat"]], -90, 90, "degrees", "lon and lat swapped?")
    _require(profiles, "profiles.csv", profiles[["upper_m", "lower_m"]], -1, 20, "m", "In cm? Divide by 100.")
    _require(profiles, "profiles.csv", profiles[["soc_gC_m3"]], -np.inf, 3e5, "gC m⁻³", "In mg/kg or g/m²?")
    if 0 < profiles.soc_gC_m3.quantile(0.9) <= 700:
        raise ValueError(
            f"profiles.csv: soc_gC_m3 must be gC m⁻³; nine tenths lie below {profiles.soc_gC_m3.quantile(0.9):g}. "
            "In percent or g/kg? Multiply percent by bulk density (g cm⁻³) × 1e4, g/kg by bulk density × 1e3."
        )
    return Tables(profiles, sites, climate)


def _read(folder: Path, name: str, columns: tuple[str, ...], *, text: tuple[str, ...]) -> pd.DataFrame:
    path = folder / name
    if not path.is_file():
        raise FileNotFoundError(
            f"from_tables: {path} is missing. The folder needs profiles.csv, sites.csv, climate_monthly.csv."
        )
    table = pd.read_csv(path, dtype=dict.fromkeys(text, str), low_memory=False)
    missing = [column for column in columns if column not in table]
    if missing:
        lower = {str(column).lower().replace("_", ""): column for column in table}
        near = [lower[m.lower().replace("_", "")] for m in missing if m.lower().replace("_", "") in lower]
        hint = f"Rename {near}?" if near else f"It has {', '.join(map(str, list(table)[:12]))} …"
        raise ValueError(f"{name}: column {', '.join(missing)} is missing. {hint}")
    for column in columns:
        if column not in text and table[column].dtype.kind not in "iuf":
            number = pd.to_numeric(table[column], errors="coerce")
            bad = table[column][number.isna() & table[column].notna()]
            if len(bad):
                raise ValueError(
                    f"{name}: column {column} must hold numbers; {len(bad)} of {len(table)} rows do not, first "
                    f"{bad.iloc[0]!r} in row {bad.index[0] + 2}. A decimal comma, or a mark for missing? "
                    "Leave it empty."
                )
            table[column] = number
    return table


def _require(
    table: pd.DataFrame, name: str, values: pd.DataFrame, low: float, high: float, unit: str, hint: str
) -> None:
    """Refuse values outside [low, high]; empty ones pass here (their sites are left out and counted)."""
    bad = (values < low) | (values > high)
    if bad.to_numpy().any():
        row, column = (int(i) for i in np.argwhere(bad.to_numpy())[0])
        raise ValueError(
            f"{name}: {values.columns[column]} must lie in [{low:g}, {high:g}] {unit}; {int(bad.to_numpy().sum())} "
            f"values do not, first {values.iat[row, column]:g} at {table.columns[0]} {table.iat[row, 0]}. {hint}"
        )


def _usable_horizons(profiles: pd.DataFrame, dropped: dict[str, int]) -> pd.DataFrame:
    usable = profiles[["upper_m", "lower_m", "soc_gC_m3"]].notna().all(axis=1)
    usable &= (profiles.upper_m >= 0) & (profiles.lower_m > profiles.upper_m) & (profiles.lower_m <= DEPTH)
    usable &= profiles.soc_gC_m3 > 0
    if (~usable).any():
        dropped["horizons (not sites) without depths or positive carbon, or below 8.6 m"] = int((~usable).sum())
    return profiles[usable].sort_values(["profile_id", "upper_m", "lower_m"], kind="stable")


def _usable_sites(tables, horizons, dropped, *, box, min_horizons, litter) -> pd.DataFrame:
    """Rows of sites.csv that can be used, indexed and sorted by profile_id; what is left out is counted by reason."""
    rows = tables.sites.set_index("profile_id").sort_index()
    orphans = set(tables.profiles.profile_id) - set(rows.index)
    if orphans:
        dropped["profiles without a row in sites.csv"] = len(orphans)
    count = horizons.groupby("profile_id").size().reindex(rows.index, fill_value=0)
    cells = tables.climate.set_index("clim_cell")[[letter + m for letter in "TP" for m in MONTHS]].dropna()
    tests = {
        "without coordinates": rows.lon.notna() & rows.lat.notna(),
        "outside the box": pd.Series(True, rows.index)
        if box is None
        else rows.lon.between(box[0], box[1]) & rows.lat.between(box[2], box[3]),
        f"with fewer than {min_horizons} usable horizons": count >= min_horizons,
        "without a climate cell": rows.clim_cell.isin(cells.index),
        "with suspect climate (clim_suspect)": rows.get("clim_suspect", pd.Series(0, rows.index)).fillna(0) == 0,
    }
    if litter == "litterfall":
        if "litterfall_gC" not in rows:
            raise ValueError("sites.csv: column litterfall_gC is missing. Use litter='npp', or add it.")
        tests["without litterfall_gC"] = rows.litterfall_gC > LEAST_NPP
    kept = pd.Series(True, rows.index)
    for reason, passed in tests.items():
        lost = int((kept & ~passed).sum())
        if lost:
            dropped[reason] = lost
        kept &= passed
    return rows[kept]


def _subset(rows, n_sites, rng, stratify, dropped) -> pd.DataFrame:
    if not 1 <= n_sites <= len(rows):
        raise ValueError(f"from_tables: n_sites must lie in 1 … {len(rows)} (the usable sites), got {n_sites}")
    order = rng.permutation(len(rows))
    if stratify is not None:
        if stratify not in rows:
            raise ValueError(f"sites.csv: column {stratify} (asked for by stratify) is missing. Use koppen or source?")
        shuffled = rows[stratify].fillna("unknown").iloc[order]
        turn = shuffled.groupby(shuffled).cumcount().to_numpy()  # first of each class, then second of each, …
        order = order[np.argsort(turn, kind="stable")]
    if len(rows) > n_sites:
        dropped["by the random choice of n_sites"] = len(rows) - n_sites
    return rows.iloc[np.sort(order[:n_sites])]


def _padded(horizons: pd.DataFrame, ids: pd.Index) -> tuple[np.ndarray, ...]:
    """upper, lower, soc as (site, horizon), NaN behind the last horizon."""
    row = ids.get_indexer(horizons.profile_id)
    position = horizons.groupby("profile_id").cumcount().to_numpy()
    padded = np.full((3, len(ids), position.max() + 1), np.nan)
    padded[:, row, position] = horizons[["upper_m", "lower_m", "soc_gC_m3"]].to_numpy().T
    return tuple(padded)


def _normals(rows, climate, deepest: np.ndarray, litter: str) -> tuple[Normals, list[str]]:
    """What the forcing is made from, and what was assumed on the way."""
    air = climate[[f"T{m}" for m in MONTHS]].to_numpy(float) + FREEZING
    rain = climate[[f"P{m}" for m in MONTHS]].to_numpy(float)
    miami = miami_npp(air.mean(axis=1), rain.sum(axis=1))
    notes = []
    if litter == "litterfall":
        npp = 2.0 * rows.litterfall_gC.to_numpy()
        notes.append("litter: twice litterfall_gC")
    else:
        npp = rows.npp_miami_gC.to_numpy(float) if "npp_miami_gC" in rows else np.full(len(rows), np.nan)
        notes.append(f"litter: NPP, by the Miami model at {int(np.isnan(npp).sum())} sites without npp_miami_gC")
        npp = np.where(np.isnan(npp), miami, npp)
    low = npp < LEAST_NPP
    if low.any():
        notes.append(f"NPP raised to {LEAST_NPP:g} gC m-2 yr-1 at {int(low.sum())} sites")
    texture = {}
    for part in ("sand", "clay"):
        columns = [c for c in (f"{part}_0cm", f"{part}_30cm") if c in rows]
        value = rows[columns].mean(axis=1).to_numpy(float) if columns else np.full(len(rows), np.nan)
        gridded = rows[f"clm_{part}"].to_numpy(float) if f"clm_{part}" in rows else np.full(len(rows), np.nan)
        assumed = np.isnan(value) & np.isnan(gridded)
        notes.append(
            f"{part}: gridded at {int(np.sum(np.isnan(value) & ~assumed))} sites, loam at {int(assumed.sum())}"
        )
        texture[part] = np.where(assumed, LOAM[part], np.where(np.isnan(value), gridded, value))
    bedrock = rows.bedrock_m.to_numpy(float) if "bedrock_m" in rows else np.full(len(rows), np.nan)
    notes.append(f"bedrock: below the model at {int(np.isnan(bedrock).sum())} sites where none is reported")
    bedrock = np.maximum(np.where(np.isnan(bedrock), np.inf, bedrock), deepest)  # soil was measured down to there
    normals = Normals(
        air,
        rain,
        rows.lat.to_numpy(float),
        texture["sand"],
        texture["clay"],
        np.maximum(npp, LEAST_NPP),
        _woody(rows, npp),
        bedrock,
    )
    return normals, notes


def _woody(rows: pd.DataFrame, npp: np.ndarray) -> np.ndarray:
    """Share of coarse wood in litter, by vegetation where it is known and by productivity elsewhere."""
    by_npp = 0.3 / (1.0 + np.exp(-(npp - 450.0) / 90.0))
    if "clm_igbp" not in rows:
        return by_npp
    classes: Mapping = {**dict.fromkeys(range(1, 17), WOODY_ELSEWHERE), **WOODY_SHARE}
    known = rows.clm_igbp.map(classes).to_numpy(float)
    return np.where(np.isnan(known), by_npp, known)
