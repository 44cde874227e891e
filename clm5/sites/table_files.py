"""The three tables of `clm5.sites.tables` as they lie in a folder: read, parsed, and checked column by column."""

import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from clm5.sites.table_covariates import COVARIATES, FILLS

LEAST_NPP = 5.0  # gC m⁻² yr⁻¹; less is bare ground
MONTHS = tuple(f"{m:02d}" for m in range(1, 13))
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


class Tables(NamedTuple):
    """The three tables, read and checked column by column."""

    profiles: pd.DataFrame
    sites: pd.DataFrame
    climate: pd.DataFrame
    notes: tuple[str, ...] = ()  # what was read as missing


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
                    f"{counted(int(wrong.sum()), 'row')} ({', '.join(sites.profile_id[wrong].iloc[:3])})"
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


def counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
