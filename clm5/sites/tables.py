"""Sites from three plain tables: measured horizons, one row a site, and the monthly climate of grid cells.

A folder holds

* `profiles.csv`: profile_id, upper_m, lower_m (m, from the mineral surface down), soc_gC_m3;
* `sites.csv`: profile_id, lon, lat, clim_cell, and what else is known: the columns of `COVARIATES` and `CATEGORIES`
  become covariates, npp_miami_gC or litterfall_gC the litter, sand_*, clay_* the texture, bedrock_m bedrock;
* `climate_monthly.csv`: clim_cell, T01 … T12 (°C), P01 … P12 (mm).

No such table comes with CLM5's forcing, so that it is made from the climate (`clm5.sites.climate`, an approximation).
Whatever is left out is counted by reason in the attributes `dropped` (JSON) and `history`, which names the first three.

Columns that make forcing are read by these rules. The usual fill values (-9999, 9999, …, infinity) count as missing
where the column cannot hold them; other values outside its range, text, and columns that are as a whole in another unit
(clay as a fraction, NPP in kg) are refused. Where sand and clay of one depth sum to more than 105 %, both count as
missing. Horizons of one profile between the same depths become one, their mean; overlapping ones are kept and counted.
"""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from clm5.grid import DEPTH, NODE_ALL
from clm5.sites.assembly import assemble
from clm5.sites.checks import check
from clm5.sites.climate import FREEZING, Normals, damped_wave, forcing_from_climate, miami_npp, thaw_depth
from clm5.sites.content import THINNEST
from clm5.sites.table_covariates import covariates_from
from clm5.sites.table_files import LEAST_NPP, MONTHS, Tables, counted, read_tables

CONUS = (-124.8, -66.5, 24.5, 49.5)  # lon from, to, lat from, to
LOAM = {"sand": 43.0, "clay": 20.0}  # %, where no texture is known
# Share of litter that is coarse wood, by IGBP class. Wood takes 0.39 of the NPP of tropical forest (Malhi et al. 2011,
# Phil. Trans. B 366:3225); 0.3 is taken for all forest, less where trees are fewer.
WOODY_SHARE = {1: 0.3, 2: 0.3, 3: 0.3, 4: 0.3, 5: 0.3, 6: 0.1, 7: 0.1, 8: 0.15, 9: 0.1}
WOODY_ELSEWHERE = 0.02
PERMAFROST, SHALLOW = 3.0, 2.0  # m, active layer: cryoturbation reaches down to the one, and is told best by the other
NO_PROFILE = "without a profile in profiles.csv"
NO_CELL, GAPS = "without a climate cell", "with gaps in the climate of their cell"
NEVER_THAW = "frozen all year, where plants cannot grow"
OUTSIDE = "outside the box"
SUSPECT = "with suspect climate (clim_suspect)"
HORIZONS = "horizons (not sites)"


@dataclass
class LeftOut:
    """How many were left out for which reason, and the ids of the first three."""

    count: dict[str, int] = field(default_factory=dict)
    first: dict[str, list[str]] = field(default_factory=dict)

    def add(self, reason: str, ids: Iterable, count: int | None = None) -> None:
        """Count `ids` (or `count`, where one id may stand for several) under `reason`; nothing when there are none."""
        names = list(dict.fromkeys(map(str, ids)))
        count = len(names) if count is None else count
        if count:
            self.count[reason], self.first[reason] = count, names[:3]

    def sentences(self) -> list[str]:
        """One text for each reason."""
        return [
            f"left out: {count} {_said(reason, count)}{self._named(reason)}" for reason, count in self.count.items()
        ]

    def _named(self, reason: str) -> str:
        more = ", …" if self.count[reason] > len(self.first[reason]) else ""
        return f" ({', '.join(self.first[reason])}{more})" if self.first[reason] else ""


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
            positive, 0 ≤ upper < lower ≤ 8.6 m, at least 1 mm thick; replicates count once.
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
    dropped = LeftOut()
    horizons = _usable_horizons(tables.profiles, dropped)
    rows = _usable_sites(tables, horizons, dropped, box=box, min_horizons=min_horizons, litter=litter)
    if rows.empty:
        raise ValueError(
            f"from_tables: {folder}: no site is left; {'; '.join(dropped.sentences()) or 'sites.csv has none'}. "
            f"{_advice(tables, dropped)}"
        )
    if n_sites is not None:
        rows = _subset(rows, n_sites, np.random.default_rng(seed), stratify, dropped)

    horizons = horizons[horizons.profile_id.isin(rows.index)]
    upper, lower, soc = _padded(horizons, rows.index)
    climate = tables.climate.set_index("clim_cell").loc[rows.clim_cell]
    normals, notes = _normals(rows, climate, np.nanmax(lower, axis=1), litter)
    covariates, more = covariates_from(rows)
    place = {"lon": rows.lon.to_numpy(), "lat": rows.lat.to_numpy(), "upper": upper, "lower": lower, "soc": soc}
    forcing = forcing_from_climate(normals)
    history = [f"{counted(len(rows), 'site')} read by clm5.sites.from_tables", *dropped.sentences(), *tables.notes]
    history += [*_overlaps(horizons), *notes, _permafrost(forcing["active_layer_depth_last_year"][:, 0])]
    attrs = {
        "title": "measured soil-carbon profiles with forcing approximated from climate normals",
        "source": "clm5.sites.from_tables",
        "forcing": "approximated from climate normals (clm5.sites.climate)",
        "dropped": json.dumps(dropped.count),
        "history": "; ".join([*history, *more]),
    }
    sites = assemble(list(rows.index), place | forcing, covariates, attrs)
    check(sites)
    return sites


def _usable_horizons(profiles: pd.DataFrame, dropped: LeftOut) -> pd.DataFrame:
    """Horizons that can be used, sorted by site and depth; what is left out is counted by reason."""
    thick = profiles.lower_m - profiles.upper_m
    tests = {
        "without depths or carbon": profiles[["upper_m", "lower_m", "soc_gC_m3"]].notna().all(axis=1),
        "without positive carbon": profiles.soc_gC_m3 > 0,
        "with an upper face above the mineral surface": profiles.upper_m >= 0,
        "with the lower face at or above the upper one": thick > 0,
        "thinner than 1 mm": thick >= THINNEST - 1e-6,
        f"with a lower face below {DEPTH:g} m": profiles.lower_m <= DEPTH,
    }
    usable = pd.Series(True, profiles.index)
    for reason, passed in tests.items():
        lost = usable & ~passed
        dropped.add(f"{HORIZONS} {reason}", profiles.profile_id[lost].dropna(), int(lost.sum()))
        usable &= passed
    horizons = profiles.loc[usable, ["profile_id", "upper_m", "lower_m", "soc_gC_m3"]]
    place = ["profile_id", "upper_m", "lower_m"]
    horizons[place[1:]] = horizons[place[1:]].round(6)
    again = horizons.duplicated(place)
    dropped.add(
        f"{HORIZONS} between the same depths as another, in their mean", horizons.profile_id[again], int(again.sum())
    )
    if again.any():
        horizons = horizons.groupby(place, as_index=False).soc_gC_m3.mean()
    return horizons.sort_values(place, kind="stable")


def _usable_sites(tables: Tables, horizons, dropped: LeftOut, *, box, min_horizons, litter) -> pd.DataFrame:
    """Rows of sites.csv that can be used, indexed and sorted by profile_id; what is left out is counted by reason."""
    rows = tables.sites.set_index("profile_id").sort_index()
    measured = tables.profiles.profile_id.dropna()
    dropped.add("profiles without a row in sites.csv", sorted(set(measured) - set(rows.index)))
    count = horizons.groupby("profile_id").size().reindex(rows.index, fill_value=0)
    cells = tables.climate.set_index("clim_cell")[[letter + m for letter in "TP" for m in MONTHS]]
    complete = cells.dropna()
    air = complete[[f"T{m}" for m in MONTHS]].to_numpy(float) + FREEZING
    thaws = thaw_depth(damped_wave(air, NODE_ALL)).max(axis=1) > 0
    tests = {
        "without coordinates": rows.lon.notna() & rows.lat.notna(),
        OUTSIDE: pd.Series(True, rows.index)
        if box is None
        else rows.lon.between(box[0], box[1]) & rows.lat.between(box[2], box[3]),
        NO_PROFILE: rows.index.isin(set(measured)),
        f"with fewer than {min_horizons} usable horizons": count >= min_horizons,
        NO_CELL: rows.clim_cell.isin(cells.index),
        GAPS: rows.clim_cell.isin(complete.index),
        SUSPECT: rows.get("clim_suspect", pd.Series(0, rows.index)).fillna(0) == 0,
        NEVER_THAW: rows.clim_cell.isin(complete.index[thaws]),
    }
    if litter == "litterfall":
        if "litterfall_gC" not in rows:
            raise ValueError("sites.csv: column litterfall_gC is missing. Use litter='npp', or add it.")
        tests["without litterfall_gC"] = rows.litterfall_gC > LEAST_NPP
    kept = pd.Series(True, rows.index)
    for reason, passed in tests.items():
        dropped.add(reason, rows.index[kept & ~passed])
        kept &= passed
    return rows[kept]


def _advice(tables: Tables, dropped: LeftOut) -> str:
    """What to do when no site is left: the fix for the reason that took most of them."""
    sites, cells = tables.sites, tables.climate.clim_cell
    reasons = {r: n for r, n in dropped.count.items() if not r.startswith((HORIZONS, "profiles without"))}
    most = max(reasons, key=lambda reason: reasons[reason], default="")
    lost = sites[sites.profile_id == (dropped.first[most][0] if most else None)]
    if most == NO_PROFILE:
        return (
            f"The ids do not match: profile_id is {tables.profiles.profile_id.iloc[0]!r} in profiles.csv and "
            f"{lost.profile_id.iloc[0]!r} in sites.csv. Write both alike."
        )
    if most == NO_CELL:
        return (
            f"The cells do not match: clim_cell is {lost.clim_cell.iloc[0]!r} in sites.csv and {cells.iloc[0]!r} in "
            "climate_monthly.csv. Write both alike (a column with gaps may have been saved as decimal numbers)."
        )
    if most == OUTSIDE:
        return (
            f"Widen box: the sites lie at lon {sites.lon.min():g} … {sites.lon.max():g}, lat {sites.lat.min():g} … "
            f"{sites.lat.max():g}."
        )
    if "usable horizons" in most:
        spoilt = {r.removeprefix(HORIZONS + " "): n for r, n in dropped.count.items() if r.startswith(HORIZONS)}
        if sum(spoilt.values()) > 0.5 * len(tables.profiles):
            worst = max(spoilt, key=lambda reason: spoilt[reason])
            return f"Mend profiles.csv: {spoilt[worst]} of its {len(tables.profiles)} horizons are {worst}."
        return "Lower min_horizons."
    return {
        "without coordinates": "Fill lon and lat in sites.csv.",
        GAPS: "Fill T01 … T12 and P01 … P12 in climate_monthly.csv.",
        SUSPECT: "Is clim_suspect 1 where the climate is good? It marks the sites to leave out.",
        NEVER_THAW: "Is T01 … T12 in °C, with its sign?",
        "without litterfall_gC": "Use litter='npp', or fill litterfall_gC (gC m⁻² yr⁻¹).",
    }.get(most, "Is sites.csv complete?")


def _overlaps(horizons: pd.DataFrame) -> list[str]:
    """How many horizons begin above the end of one before them."""
    bottom = horizons.groupby("profile_id").lower_m.cummax().groupby(horizons.profile_id).shift()
    over = horizons.profile_id[horizons.upper_m < bottom - 1e-6]
    if over.empty:
        return []
    where = counted(over.nunique(), "site")
    return [f"kept: {counted(len(over), 'horizon')} at {where} overlapping one above ({', '.join(over.unique()[:3])})"]


def _permafrost(active_layer: np.ndarray) -> str:
    """What the sites can tell about cryoturbation."""
    frozen, shallow = (int(np.sum(active_layer < depth)) for depth in (PERMAFROST, np.nextafter(SHALLOW, 3)))
    return (
        f"{counted(frozen, 'site')} with permafrost (active layer above {PERMAFROST:g} m), {shallow} of them with an "
        f"active layer up to {SHALLOW:g} m; at the others the data cannot tell about cryo"
    )


def _said(reason: str, count: int) -> str:
    """The reason, in the singular where it holds for one."""
    if count > 1:
        return reason
    return reason.replace("horizons (not sites)", "horizon (not site)").replace("profiles without", "profile without")


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
        dropped.add("by the random choice of n_sites", (), len(rows) - n_sites)
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
        notes.append(
            f"litter: NPP, by the Miami model at {counted(int(np.isnan(npp).sum()), 'site')} without npp_miami_gC"
        )
        npp = np.where(np.isnan(npp), miami, npp)
    low = npp < LEAST_NPP
    if low.any():
        notes.append(f"NPP raised to {LEAST_NPP:g} gC m-2 yr-1 at {counted(int(low.sum()), 'site')}")
    texture = {}
    for part in ("sand", "clay"):
        columns = [c for c in (f"{part}_0cm", f"{part}_30cm") if c in rows]
        value = rows[columns].mean(axis=1).to_numpy(float) if columns else np.full(len(rows), np.nan)
        gridded = rows[f"clm_{part}"].to_numpy(float) if f"clm_{part}" in rows else np.full(len(rows), np.nan)
        assumed = np.isnan(value) & np.isnan(gridded)
        notes.append(
            f"{part}: gridded at {counted(int(np.sum(np.isnan(value) & ~assumed)), 'site')}, "
            f"loam at {int(assumed.sum())}"
        )
        texture[part] = np.where(assumed, LOAM[part], np.where(np.isnan(value), gridded, value))
    bedrock = rows.bedrock_m.to_numpy(float) if "bedrock_m" in rows else np.full(len(rows), np.nan)
    notes.append(f"bedrock: below the model at {counted(int(np.isnan(bedrock).sum()), 'site')} where none is reported")
    shallow = int(np.sum(bedrock < deepest))
    if shallow:
        notes.append(f"bedrock: moved down to the bottom of the profile at {counted(shallow, 'site')}")
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
    known = pd.to_numeric(rows.clm_igbp, errors="coerce").map(classes).to_numpy(float)
    return np.where(np.isnan(known), by_npp, known)
