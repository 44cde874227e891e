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
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from clm5.grid import DEPTH, NODE_ALL
from clm5.sites.assembly import assemble
from clm5.sites.checks import check
from clm5.sites.climate import FREEZING, Normals, damped_wave, forcing_from_climate, miami_npp, thaw_depth
from clm5.sites.content import THINNEST
from clm5.sites.table_covariates import COVARIATES, FILLS, covariates_from

CONUS = (-124.8, -66.5, 24.5, 49.5)  # lon from, to, lat from, to
LOAM = {"sand": 43.0, "clay": 20.0}  # %, where no texture is known
LEAST_NPP = 5.0  # gC m⁻² yr⁻¹; less is bare ground
MONTHS = tuple(f"{m:02d}" for m in range(1, 13))
# Share of litter that is coarse wood, by IGBP class. Wood takes 0.39 of the NPP of tropical forest (Malhi et al. 2011,
# Phil. Trans. B 366:3225); 0.3 is taken for all forest, less where trees are fewer.
WOODY_SHARE = {1: 0.3, 2: 0.3, 3: 0.3, 4: 0.3, 5: 0.3, 6: 0.1, 7: 0.1, 8: 0.15, 9: 0.1}
WOODY_ELSEWHERE = 0.02
PERMAFROST, SHALLOW = 3.0, 2.0  # m, active layer: cryoturbation reaches down to the one, and is told best by the other
FRACTIONS = "As a fraction? Multiply by 100."
MOST_TEXTURE = 105.0  # %, sand and clay of one depth together; a little above 100 is rounding
# Columns that make forcing: range of a value, share of the values, range that this quantile must lie in, unit, hint.
_TEXTURE = (0.0, 100.0, 0.9, 1.0, 100.0, "%", FRACTIONS)
_LITTER = (0.0, 3000.0, 0.5, LEAST_NPP, 3000.0, "gC m⁻² yr⁻¹", "In kg? Multiply by 1000.")
PLAUSIBLE = {
    **{f"{part}_{depth}": _TEXTURE for part in ("sand", "clay") for depth in ("0cm", "30cm")},
    **{f"clm_{part}": _TEXTURE for part in ("sand", "clay")},
    **dict.fromkeys(("npp_miami_gC", "litterfall_gC"), _LITTER),
    "bedrock_m": (0.0, 2000.0, 0.5, 0.0, 50.0, "m", "In cm? Divide by 100. Truly that deep? Leave it empty."),
}
NO_PROFILE = "without a profile in profiles.csv"
NO_CELL, GAPS = "without a climate cell", "with gaps in the climate of their cell"
NEVER_THAW = "frozen all year, where plants cannot grow"
OUTSIDE = "outside the box"
SUSPECT = "with suspect climate (clim_suspect)"
HORIZONS = "horizons (not sites)"


class Tables(NamedTuple):
    """The three tables, read and checked column by column."""

    profiles: pd.DataFrame
    sites: pd.DataFrame
    climate: pd.DataFrame
    notes: tuple[str, ...] = ()  # what was read as missing


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
    history = [f"{_counted(len(rows), 'site')} read by clm5.sites.from_tables", *dropped.sentences(), *tables.notes]
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


def read_tables(folder: Path) -> Tables:
    """Read the three tables; refuse missing columns, text in numbers and numbers in other units."""
    profiles = _read(folder, "profiles.csv", ("profile_id", "upper_m", "lower_m", "soc_gC_m3"), text=("profile_id",))
    sites = _read(
        folder, "sites.csv", ("profile_id", "lon", "lat", "clim_cell"), text=("profile_id", "clim_cell"),
        optional=(*COVARIATES, *PLAUSIBLE, "clim_suspect"),
    )  # fmt: skip
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
    _require(
        climate, "climate_monthly.csv", temperature, -80, 60, "°C", "A fill value? Leave it empty.",
        ((60, 150, "In °F? Subtract 32, then multiply by 5/9."), (150, 340, "In kelvin? Subtract 273.15.")),
    )  # fmt: skip
    _require(climate, "climate_monthly.csv", rain, 0, 4000, "mm", "Negative: a fill value? Leave it empty.")
    if rain.sum(axis=1).max() < 50:
        raise ValueError(
            "climate_monthly.csv: P01 … P12 must be mm a month; the wettest cell has "
            f"{rain.sum(axis=1).max():g} a year. In cm, m or mm a day?"
        )
    _require(
        sites,
        "sites.csv",
        sites[["lon"]],
        -180,
        180,
        "degrees",
        "A fill value? Leave it empty.",
        ((180, 360, "Counted 0…360? Subtract 360 above 180."),),
    )
    _require(
        sites,
        "sites.csv",
        sites[["lat"]],
        -90,
        90,
        "degrees",
        "A fill value? Leave it empty.",
        ((-180, 180, "lon and lat swapped?"),),
    )
    _require(
        profiles,
        "profiles.csv",
        profiles[["upper_m", "lower_m"]],
        -1,
        20,
        "m",
        "In cm? Divide by 100.",
        ((-np.inf, -900, "A fill value? Leave it empty."),),
    )
    _require(profiles, "profiles.csv", profiles[["soc_gC_m3"]], -np.inf, 3e5, "gC m⁻³", "In mg/kg or g/m²?")
    if 0 < profiles.soc_gC_m3.quantile(0.9) <= 700:
        raise ValueError(
            f"profiles.csv: soc_gC_m3 must be gC m⁻³; nine tenths lie below {profiles.soc_gC_m3.quantile(0.9):g}. "
            "In percent or g/kg? Multiply percent by bulk density (g cm⁻³) × 1e4, g/kg by bulk density × 1e3."
        )
    return Tables(profiles, sites, climate, tuple(_forcing_columns(sites)))


def _forcing_columns(sites: pd.DataFrame) -> list[str]:
    """Put NaN for what the columns of `PLAUSIBLE` mark as missing, refuse what they cannot mean; what was done."""
    filled = []
    for column, (low, high, share, least, most, unit, hint) in PLAUSIBLE.items():
        if column not in sites:
            continue
        values = sites[column].astype(float)
        mark = (values.isin(FILLS) & ~values.between(low, high)) | ~np.isfinite(values.fillna(0.0))
        if mark.any():
            filled.append(f"{column} ({int(mark.sum())})")
        sites[column] = values = values.mask(mark)
        _require(sites, "sites.csv", sites[[column]], low, high, unit, "A fill value? Leave it empty. Another unit?")
        typical = values.quantile(share)
        if typical == typical and not least <= typical <= most and (values > 0).any():
            what = "half of its values lie" if share == 0.5 else "nine tenths of its values lie"
            raise ValueError(
                f"sites.csv: {column} must be in {unit}; {what} below {typical:g} (expected {least:g} … {most:g}), "
                f"as at profile_id {sites.profile_id[values.first_valid_index()]}. {hint}"
            )
    notes = [f"fill values in sites.csv read as missing: {', '.join(filled)}"] if filled else []
    for sand, clay in (("sand_0cm", "clay_0cm"), ("sand_30cm", "clay_30cm"), ("clm_sand", "clm_clay")):
        if sand in sites and clay in sites:
            both = sites[sand] + sites[clay]
            wrong = both > MOST_TEXTURE
            if wrong.sum() > 0.5 * both.notna().sum():
                raise ValueError(
                    f"sites.csv: {sand} and {clay} must not sum to more than 100 %; they do in {int(wrong.sum())} of "
                    f"{len(sites)} rows,"
                    f" first {both[wrong].iloc[0]:g} at profile_id {sites.profile_id[wrong].iloc[0]}. "
                    "Two columns of the same part, or parts per other than a hundred?"
                )
            if wrong.any():
                notes.append(
                    f"{sand} and {clay} read as missing where they sum to more than {MOST_TEXTURE:g} %: "
                    f"{_counted(int(wrong.sum()), 'row')} ({', '.join(sites.profile_id[wrong].iloc[:3])})"
                )
                sites.loc[wrong, [sand, clay]] = np.nan
    return notes


def _read(
    folder: Path, name: str, columns: tuple[str, ...], *, text: tuple[str, ...], optional: Iterable[str] = ()
) -> pd.DataFrame:
    """One table; every column of `columns` (required) and `optional` but those of `text` holds numbers."""
    path = folder / name
    if not path.is_file():
        raise FileNotFoundError(
            f"from_tables: {path} is missing. The folder needs profiles.csv, sites.csv, climate_monthly.csv."
        )
    table = _parse(path, text)
    missing = [column for column in columns if column not in table]
    if missing:
        lower = {str(column).lower().replace("_", ""): column for column in table}
        near = [lower[m.lower().replace("_", "")] for m in missing if m.lower().replace("_", "") in lower]
        hint = f"Rename {near}?" if near else f"It has {', '.join(map(str, list(table)[:12]))} …"
        raise ValueError(f"{name}: column {', '.join(missing)} is missing. {hint}")
    for column in dict.fromkeys((*columns, *optional)):
        if column in table and column not in text and table[column].dtype.kind not in "iufb":
            number = pd.to_numeric(table[column], errors="coerce")
            bad = table[column][number.isna() & table[column].notna()]
            if len(bad):
                raise ValueError(
                    f"{name}: column {column} must hold numbers; {len(bad)} of {len(table)} rows do not, first "
                    f"{bad.iloc[0]!r} at {table.columns[0]} {table.iat[bad.index[0], 0]} in row {bad.index[0] + 2}. "
                    "A decimal comma, a limit ('>2'), or a mark for missing? Leave it empty."
                )
            table[column] = number
    return table


def _parse(path: Path, text: tuple[str, ...]) -> pd.DataFrame:
    """The file as pandas reads it, with refusals that name the file and what to do."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # rows longer than the header
            table = pd.read_csv(path, dtype=dict.fromkeys(text, str), low_memory=False, index_col=False)
    except pd.errors.EmptyDataError:
        raise ValueError(f"{path.name}: the file is empty. Was it written to the end?") from None
    except UnicodeError:
        raise ValueError(
            f"{path.name}: is not text in UTF-8. In Latin-1 or UTF-16, as spreadsheets write? Save it as 'CSV UTF-8'."
        ) from None
    except (pd.errors.ParserError, pd.errors.ParserWarning) as error:
        line = str(error).strip().removeprefix("Error tokenizing data. C error: ")
        raise ValueError(
            f"{path.name}: not every row has as many fields as the header ({line}). A comma inside a text or as "
            "decimal mark? Put texts into quotes and write decimal points."
        ) from None
    if len(table.columns) == 1:
        mark = next((f"{m!r}" for m in (";", "\t", "|") if m in str(table.columns[0])), None)
        if mark:
            raise ValueError(f"{path.name}: fields are separated by {mark}. Use commas (and decimal points).")
    if table.empty:
        raise ValueError(f"{path.name}: has a header and no rows. Was it written to the end?")
    return table


def _require(
    table: pd.DataFrame, name: str, values: pd.DataFrame, low: float, high: float, unit: str, hint: str,
    hints: tuple[tuple[float, float, str], ...] = (),
) -> None:  # fmt: skip
    """Refuse values outside [low, high]; empty ones pass here (their sites are left out and counted).

    The first of `hints` (smallest, largest, text) that holds the value found is the likely fix, else `hint`.
    """
    bad = (values < low) | (values > high)
    if bad.to_numpy().any():
        row, column = (int(i) for i in np.argwhere(bad.to_numpy())[0])
        value = values.iat[row, column]
        hint = next((text for smallest, largest, text in hints if smallest <= value <= largest), hint)
        raise ValueError(
            f"{name}: {values.columns[column]} must lie in [{low:g}, {high:g}] {unit}; {int(bad.to_numpy().sum())} "
            f"values do not, first {value:g} at {table.columns[0]} {table.iat[row, 0]}. {hint}"
        )


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
    where = _counted(over.nunique(), "site")
    return [f"kept: {_counted(len(over), 'horizon')} at {where} overlapping one above ({', '.join(over.unique()[:3])})"]


def _permafrost(active_layer: np.ndarray) -> str:
    """What the sites can tell about cryoturbation."""
    frozen, shallow = (int(np.sum(active_layer < depth)) for depth in (PERMAFROST, np.nextafter(SHALLOW, 3)))
    return (
        f"{_counted(frozen, 'site')} with permafrost (active layer above {PERMAFROST:g} m), {shallow} of them with an "
        f"active layer up to {SHALLOW:g} m; at the others the data cannot tell about cryo"
    )


def _said(reason: str, count: int) -> str:
    """The reason, in the singular where it holds for one."""
    if count > 1:
        return reason
    return reason.replace("horizons (not sites)", "horizon (not site)").replace("profiles without", "profile without")


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


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
            f"litter: NPP, by the Miami model at {_counted(int(np.isnan(npp).sum()), 'site')} without npp_miami_gC"
        )
        npp = np.where(np.isnan(npp), miami, npp)
    low = npp < LEAST_NPP
    if low.any():
        notes.append(f"NPP raised to {LEAST_NPP:g} gC m-2 yr-1 at {_counted(int(low.sum()), 'site')}")
    texture = {}
    for part in ("sand", "clay"):
        columns = [c for c in (f"{part}_0cm", f"{part}_30cm") if c in rows]
        value = rows[columns].mean(axis=1).to_numpy(float) if columns else np.full(len(rows), np.nan)
        gridded = rows[f"clm_{part}"].to_numpy(float) if f"clm_{part}" in rows else np.full(len(rows), np.nan)
        assumed = np.isnan(value) & np.isnan(gridded)
        notes.append(
            f"{part}: gridded at {_counted(int(np.sum(np.isnan(value) & ~assumed)), 'site')}, "
            f"loam at {int(assumed.sum())}"
        )
        texture[part] = np.where(assumed, LOAM[part], np.where(np.isnan(value), gridded, value))
    bedrock = rows.bedrock_m.to_numpy(float) if "bedrock_m" in rows else np.full(len(rows), np.nan)
    notes.append(f"bedrock: below the model at {_counted(int(np.isnan(bedrock).sum()), 'site')} where none is reported")
    shallow = int(np.sum(bedrock < deepest))
    if shallow:
        notes.append(f"bedrock: moved down to the bottom of the profile at {_counted(shallow, 'site')}")
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
