"""What tables are refused for: other words, other units, files that cannot be read."""

import numpy as np
import pytest

import clm5.sites
from clm5.sites.table_files import MONTHS
from tests.clm5.sites.tables import edit, made_up

REFUSALS = {
    "missing column": ("sites", lambda t: t.drop(columns="clim_cell"), "sites.csv: column clim_cell is missing"),
    "renamed column": ("profiles", lambda t: t.rename(columns={"upper_m": "Upper_M"}), r"Rename \['Upper_M'\]"),
    "kelvin": ("climate_monthly", lambda t: t.__setitem__("T01", t.T01 + 273.15), "T01 must lie in .*In kelvin"),
    "metres of rain": (
        "climate_monthly",
        lambda t: t.update(t[[f"P{m}" for m in MONTHS]] / 1000),
        "P01 … P12 must be mm a month",
    ),
    "negative rain": ("climate_monthly", lambda t: t.__setitem__("P02", -999.0), "P02 must lie in .*fill value"),
    "percent carbon": ("profiles", lambda t: t.__setitem__("soc_gC_m3", t.soc_gC_m3 / 1e4), "In percent or g/kg"),
    "centimetres": ("profiles", lambda t: t.__setitem__("lower_m", 100 * t.lower_m), "lower_m must lie in .*In cm"),
    "decimal comma": ("profiles", lambda t: t.__setitem__("soc_gC_m3", "1,5"), "must hold numbers; 26 of 26.*comma"),
    "longitude 0…360": ("sites", lambda t: t.__setitem__("lon", t.lon + 360), "lon must lie in .*Subtract 360"),
    "swapped": ("sites", lambda t: t.__setitem__("lat", t.lon), "lat must lie in .*swapped"),
    "two rows a site": ("sites", lambda t: t.__setitem__("profile_id", "p0"), "profile_id must be unique, 7 rows"),
    "everything suspect": ("sites", lambda t: t.__setitem__("clim_suspect", 1), "no site is left"),
}

REFUSALS |= {
    "text in texture": (
        "sites",
        lambda t: t.__setitem__("clay_0cm", ["<5", *t.clay_0cm.astype(str)[1:]]),
        "clay_0cm must hold numbers; 1 of 8 rows do not, first '<5' at profile_id p0 in row 2",
    ),
    "a limit for bedrock": (
        "sites",
        lambda t: t.__setitem__("bedrock_m", [">2"] * 8),
        r"bedrock_m must hold numbers.*a limit \('>2'\)",
    ),
    "text in a covariate": ("sites", lambda t: t.__setitem__("BIO1", "warm"), "BIO1 must hold numbers; 8 of 8"),
    "clay as a fraction": ("sites", lambda t: t.__setitem__("clay_0cm", 0.3), "clay_0cm must be in %.*As a fraction"),
    "NPP in kg": ("sites", lambda t: t.__setitem__("npp_miami_gC", 0.6), "npp_miami_gC must be in.*In kg"),
    "NPP below zero": ("sites", lambda t: t.__setitem__("npp_miami_gC", -5.0), "npp_miami_gC must lie in"),
    "bedrock in cm": ("sites", lambda t: t.__setitem__("bedrock_m", 150.0), "bedrock_m must be in m.*In cm"),
    "sand and clay of 180 %": (
        "sites",
        lambda t: t.assign(clay_0cm=90.0, sand_0cm=90.0),
        "sand_0cm and clay_0cm must not sum to more than 100 %; they do in 8 of 8 rows, first 180 at profile_id p0",
    ),
    "fahrenheit": ("climate_monthly", lambda t: t.__setitem__("T07", 1.8 * t.T07 + 32), "T07 must lie in .*In °F"),
    "other profile ids": (
        "sites",
        lambda t: t.__setitem__("profile_id", "P-" + t.profile_id),
        "ids do not match: profile_id is 'p0' in profiles.csv and 'P-p0' in sites.csv",
    ),
    "decimal cells": (
        "sites",
        lambda t: t.__setitem__("clim_cell", t.clim_cell + ".0"),
        r"clim_cell is '100\.0' in sites.csv and '100' in climate_monthly.csv",
    ),
    "no climate": ("climate_monthly", lambda t: t.__setitem__("P03", np.nan), "Fill T01 … T12"),
    "no carbon": ("profiles", lambda t: t.__setitem__("soc_gC_m3", -9999.0), "26 of its 26 horizons are without pos"),
    "too few horizons": ("profiles", lambda t: t[t.upper_m < 0.3], "Lower min_horizons"),
    "frozen all year": (
        "climate_monthly",
        lambda t: t.update(t[[f"T{m}" for m in MONTHS]] - 60),
        "8 frozen all year.*with its sign",
    ),
}


@pytest.mark.parametrize("fault", REFUSALS)
def test_tables_in_other_words_or_units_are_refused_with_the_likely_fix(tmp_path, fault):
    name, change, message = REFUSALS[fault]
    edit(made_up(tmp_path), name, change)
    with pytest.raises(ValueError, match=message):
        clm5.sites.from_tables(tmp_path)


def test_a_missing_table_and_unknown_options_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"profiles\.csv is missing"):
        clm5.sites.from_tables(tmp_path)
    with pytest.raises(ValueError, match="litter must be"):
        clm5.sites.from_tables(tmp_path, litter="leaves")
    with pytest.raises(ValueError, match="box must be"):
        clm5.sites.from_tables(tmp_path, box="texas")


def latin(path):
    path.write_bytes(path.read_text().replace("koppen", "Köppen").encode("latin-1"))


UNREADABLE = {
    "empty": (lambda path: path.write_text(""), "the file is empty"),
    "header only": (lambda path: path.write_text(path.read_text().splitlines()[0] + "\n"), "has a header and no rows"),
    "Latin-1": (latin, "not text in UTF-8. In Latin-1"),
    "UTF-16": (lambda path: path.write_text(path.read_text(), encoding="utf-16"), "not text in UTF-8.*UTF-16"),
    "ragged": (
        lambda path: path.write_text(path.read_text() + "p9" + 20 * ",1" + "\n"),
        "as many fields as the header",
    ),
    "one field more in every row": (
        lambda path: path.write_text(path.read_text().replace("\n", ",7\n").replace(",7\n", "\n", 1)),
        "as many fields as the header",
    ),
    "semicolons": (lambda path: path.write_text(path.read_text().replace(",", ";")), "separated by ';'. Use commas"),
}


@pytest.mark.parametrize("fault", UNREADABLE)
def test_a_file_that_cannot_be_parsed_is_named_with_what_to_do(tmp_path, fault):
    spoil, message = UNREADABLE[fault]
    spoil(made_up(tmp_path) / "sites.csv")
    with pytest.raises(ValueError, match=f"sites.csv: .*{message}"):
        clm5.sites.from_tables(tmp_path)
