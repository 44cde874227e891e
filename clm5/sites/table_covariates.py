"""Which columns of a site table are covariates, in which unit, and what is done about gaps in them."""

import numpy as np
import pandas as pd

from clm5.sites.assembly import Covariate

MOST_MISSING = 0.2  # a covariate with a larger share of gaps is left out, a smaller one filled
UNKNOWN = "unknown"
FILLS = (-9999.0, -999.9, -999.0, 999.9, 9999.0)  # marks for "missing" that grids leave in tables

# column: unit, meaning. BIO numbers as in WorldClim; the temperatures among them are °C.
COVARIATES = {
    "elevation_m": ("m", "height above sea level"),
    "BIO1": ("degC", "annual mean temperature"),
    "BIO4": ("0.01 K", "temperature seasonality, standard deviation × 100"),
    "t_warmest_month": ("degC", "mean temperature of the warmest month"),
    "t_coldest_month": ("degC", "mean temperature of the coldest month"),
    "t_range_months": ("K", "warmest minus coldest month"),
    "BIO8": ("degC", "mean temperature of the wettest quarter"),
    "BIO9": ("degC", "mean temperature of the driest quarter"),
    "BIO10": ("degC", "mean temperature of the warmest quarter"),
    "BIO11": ("degC", "mean temperature of the coldest quarter"),
    "BIO12": ("mm yr-1", "annual precipitation"),
    "BIO13": ("mm", "precipitation of the wettest month"),
    "BIO14": ("mm", "precipitation of the driest month"),
    "BIO15": ("%", "precipitation seasonality"),
    "BIO16": ("mm", "precipitation of the wettest quarter"),
    "BIO17": ("mm", "precipitation of the driest quarter"),
    "BIO18": ("mm", "precipitation of the warmest quarter"),
    "BIO19": ("mm", "precipitation of the coldest quarter"),
    "sunshine_pct": ("%", "share of possible sunshine"),
    "t_abs_min": ("degC", "absolute minimum temperature"),
    "gdd0": ("K day", "degree days above 0 degC"),
    "gdd5": ("K day", "degree days above 5 degC"),
    "months_below_0": ("1", "months with a mean below 0 degC"),
    "snow_fraction": ("1", "share of precipitation in months below 0 degC"),
    "pet_thornthwaite": ("mm yr-1", "potential evapotranspiration"),
    "aridity_index": ("1", "precipitation over potential evapotranspiration"),
    "npp_miami_gC": ("gC m-2 yr-1", "net primary production, Miami model"),
    "litterfall_gC": ("gC m-2 yr-1", "litter that falls above ground"),
    "whc_top": ("mm m-1", "water capacity of the topsoil"),
    "whc_sub": ("mm m-1", "water capacity of the subsoil"),
    "clay_0cm": ("%", "clay at the surface"),
    "clay_30cm": ("%", "clay at 30 cm"),
    "clay_100cm": ("%", "clay at 100 cm"),
    "sand_0cm": ("%", "sand at the surface"),
    "sand_30cm": ("%", "sand at 30 cm"),
    "sand_100cm": ("%", "sand at 100 cm"),
    "ph_0cm": ("1", "pH in water at the surface"),
    "ph_30cm": ("1", "pH in water at 30 cm"),
    "ph_100cm": ("1", "pH in water at 100 cm"),
    "clm_sand": ("%", "sand of the nearest CLM5 cell"),
    "clm_clay": ("%", "clay of the nearest CLM5 cell"),
    "clm_silt": ("%", "silt of the nearest CLM5 cell"),
    "clm_wwilt": ("m3 m-3", "wilting point of the nearest CLM5 cell"),
    "clm_wfield": ("m3 m-3", "field capacity of the nearest CLM5 cell"),
    "clm_wsat": ("m3 m-3", "porosity of the nearest CLM5 cell"),
    "clm_ndep_gN": ("gN m-2 yr-1", "nitrogen deposition of the nearest CLM5 cell"),
}
CATEGORIES = {"koppen": "Koeppen-Geiger class", "clm_igbp": "IGBP vegetation class of the nearest CLM5 cell"}


def covariates_from(rows: pd.DataFrame) -> tuple[dict[str, Covariate], list[str]]:
    """Covariates of the sites in `rows`, and sentences that say what was left out and what was filled.

    Rule: a numeric column with gaps at more than a fifth of the sites is left out; other gaps (and the usual fill
    values) take the median of the sites that have the value; a gap in a category is a class of its own, "unknown".
    Columns that are constant are left out.
    """
    covariates, left_out, constant, filled = {}, [], [], []
    for column, (unit, meaning) in COVARIATES.items():
        if column not in rows:
            continue
        values = pd.to_numeric(rows[column], errors="coerce").to_numpy(float)
        values = np.where(np.isfinite(values) & ~np.isin(values, FILLS), values, np.nan)
        gaps = np.isnan(values)
        if gaps.mean() > MOST_MISSING:
            left_out.append(f"{column} ({100 * gaps.mean():.0f} %)")
            continue
        if np.ptp(values[~gaps]) == 0:
            constant.append(column)
            continue
        if gaps.any():
            filled.append(f"{column} ({int(gaps.sum())})")
            values = np.where(gaps, np.median(values[~gaps]), values)
        covariates[column] = Covariate(values, unit, meaning)
    for column, meaning in CATEGORIES.items():
        if column in rows:
            labels = rows[column].map(_label)
            classes = sorted(set(labels))
            covariates[column] = Covariate(np.searchsorted(classes, labels.to_numpy(str)), "1", meaning, classes)
    notes = []
    if left_out:
        notes.append(
            f"covariates left out for gaps at more than {100 * MOST_MISSING:.0f} % of sites: {', '.join(left_out)}"
        )
    if constant:
        notes.append(f"covariates left out, the same at all sites: {', '.join(constant)}")
    if filled:
        notes.append(f"gaps filled with the median (number of sites): {', '.join(filled)}")
    return covariates, notes


def _label(value) -> str:
    """A class as one word: whole numbers as class_07, so that they sort as numbers."""
    if pd.isna(value):
        return UNKNOWN
    if isinstance(value, (int, float)) and float(value).is_integer():
        return f"class_{int(value):02d}"
    return "_".join(str(value).split())
