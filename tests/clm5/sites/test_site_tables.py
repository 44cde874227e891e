"""Reading plain tables: made-up ones for every rule, the real ones where they are at hand."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import clm5
import clm5.sites
from clm5.sites.table_files import MONTHS
from tests.clm5.sites.tables import edit, made_up, read
from tests.conftest import shared_folder

REAL = Path(os.environ.get("BINN_SHARED_DATA", shared_folder("data")))
real_data = pytest.mark.skipif(
    not (REAL / "profiles.csv").is_file(),
    reason="the real tables are not here: set BINN_SHARED_DATA to the folder that holds profiles.csv",
)


def test_tables_become_a_checked_data_set(tmp_path):
    sites, dropped = read(made_up(tmp_path))
    assert list(sites.site.values) == [f"p{i}" for i in range(8)]
    assert dropped == {}
    assert sites.sizes["horizon"] == 5
    p3 = sites.sel(site="p3")
    np.testing.assert_allclose(p3.soc, 30000.0 / np.arange(1, 6))
    np.testing.assert_allclose(p3.lower, 0.2 * np.arange(1, 6))
    assert np.isfinite(sites.sel(site="p0").soc).sum() == 3
    np.testing.assert_allclose(
        sites.litter_input.sum(("pool", "month")), pd.read_csv(tmp_path / "sites.csv").npp_miami_gC
    )
    assert np.all(sites.bedrock_layer == 20)
    assert "0.5" not in sites.attrs["dropped"]
    assert "approximated" in sites.attrs["forcing"]


def test_forcing_follows_the_climate_cell_of_the_site(tmp_path):
    sites, _ = read(made_up(tmp_path))
    mean = sites.soil_temperature.isel(layer=-1).mean("month").values
    np.testing.assert_allclose(mean[1] - mean[0], 1.0, atol=0.3)  # the cells differ by 1 K
    np.testing.assert_allclose(mean[4], mean[0])  # the same cell


def test_what_is_left_out_is_counted_by_reason(tmp_path):
    made_up(tmp_path)

    def spoil(sites):
        sites.loc[0, "clim_suspect"] = 1
        sites.loc[1, "clim_cell"] = "999"
        sites.loc[2, "lon"] = -150.0

    edit(tmp_path, "sites", spoil)

    def thin(profiles):
        profiles.loc[profiles.index[profiles.profile_id == "p4"][0], "soc_gC_m3"] = np.nan
        profiles.loc[profiles.index[profiles.profile_id == "p5"][0], "lower_m"] = 9.0
        orphan = pd.DataFrame([("nobody", 0.0, 0.1, 1e4)], columns=list(profiles))
        return pd.concat([profiles, orphan])

    edit(tmp_path, "profiles", thin)
    sites, dropped = read(tmp_path, box="conus")
    assert list(sites.site.values) == ["p3", "p6", "p7"]
    assert dropped == {
        "horizons (not sites) without depths or carbon": 1,
        "horizons (not sites) with a lower face below 8.6 m": 1,
        "profiles without a row in sites.csv": 1,
        "outside the box": 1,
        "with fewer than 3 usable horizons": 2,
        "without a climate cell": 1,
        "with suspect climate (clim_suspect)": 1,
    }
    assert "left out: 1 outside the box (p2)" in sites.attrs["history"]
    assert read(tmp_path, box="conus", min_horizons=2)[0].sizes["site"] == 5


def test_gaps_in_covariates_are_filled_by_the_stated_rule(tmp_path):
    made_up(tmp_path)

    def gaps(sites):
        sites.loc[:3, "ph_0cm"] = 6.0  # half of the sites: left out
        sites.loc[5, "koppen"] = np.nan
        sites["whc_top"] = [999.9, 10, 20, 30, 40, 50, 60, 70]
        sites["BIO12"] = 500.0

    edit(tmp_path, "sites", gaps)
    sites, _ = read(tmp_path)
    assert "ph_0cm" not in sites
    assert "BIO12" not in sites
    assert sites.whc_top[0] == 40.0  # a fill value, so the median of the rest
    clay = pd.read_csv(tmp_path / "sites.csv").clay_0cm
    np.testing.assert_allclose(sites.clay_0cm[1], clay.median())
    classes = sites.koppen.attrs["flag_meanings"].split()
    assert classes[int(sites.koppen[5])] == "unknown"
    assert classes[int(sites.koppen[0])] == "Cfa"
    for text in ("ph_0cm (50 %)", "clay_0cm (1)", "whc_top (1)", "the same at all sites: BIO12"):
        assert text in sites.attrs["history"]


def test_subsets_are_seeded_and_can_be_stratified(tmp_path):
    made_up(tmp_path, 40)
    edit(tmp_path, "sites", lambda s: s.__setitem__("koppen", ["Af"] * 36 + ["ET"] * 4))
    first, dropped = read(tmp_path, n_sites=8, seed=1)
    assert dropped == {"by the random choice of n_sites": 32}
    assert clm5.sites.fingerprint(first) == clm5.sites.fingerprint(read(tmp_path, n_sites=8, seed=1)[0])
    assert set(first.site.values) != set(read(tmp_path, n_sites=8, seed=2)[0].site.values)
    stratified, _ = read(tmp_path, n_sites=8, seed=1, stratify="koppen")
    assert sorted(np.bincount(stratified.koppen)) == [4, 4]
    with pytest.raises(ValueError, match=r"n_sites must lie in 1 … 40"):
        read(tmp_path, n_sites=41)
    with pytest.raises(ValueError, match="column biome"):
        read(tmp_path, n_sites=4, stratify="biome")


def test_bedrock_is_where_it_is_reported_but_never_above_measured_soil(tmp_path):
    made_up(tmp_path)
    edit(tmp_path, "sites", lambda s: s.__setitem__("bedrock_m", [1.0, 0.1, *[np.nan] * 6]))
    layers = read(tmp_path)[0].bedrock_layer.values[:, 0]
    np.testing.assert_array_equal(layers[:3], [9, 7, 20])  # 1 m; 0.6 m, the bottom of the profile; unknown


def test_litterfall_is_an_alternative_to_npp(tmp_path):
    made_up(tmp_path)
    with pytest.raises(ValueError, match="litterfall_gC is missing"):
        read(tmp_path, litter="litterfall")
    edit(tmp_path, "sites", lambda s: s.__setitem__("litterfall_gC", [np.nan] + [150.0] * 7))
    sites, dropped = read(tmp_path, litter="litterfall")
    np.testing.assert_allclose(sites.litter_input.sum(("pool", "month")), 300.0)
    assert dropped == {"without litterfall_gC": 1}


def test_fill_values_of_columns_that_make_forcing_are_missing_and_counted(tmp_path):
    made_up(tmp_path)

    def fill(sites):
        sites.loc[2, "clay_0cm"] = -9999.0
        sites.loc[3, "npp_miami_gC"] = -9999.0
        sites["bedrock_m"] = [-9999.0, 1.0, *[np.nan] * 6]
        sites["sand_30cm"] = [90.0, *[30.0] * 7]
        sites["clay_30cm"] = [90.0, *[20.0] * 7]

    edit(tmp_path, "sites", fill)
    sites, _ = read(tmp_path)
    history = sites.attrs["history"]
    assert "read as missing: clay_0cm (1), npp_miami_gC (1), bedrock_m (1)" in history.replace("sand_0cm (0), ", "")
    assert "sand_30cm and clay_30cm read as missing where they sum to more than 105 %: 1 row (p0)" in history
    assert "Miami model at 1 site without" in history
    assert sites.litter_input[3].sum() > 100
    np.testing.assert_array_equal(sites.bedrock_layer.values[:2, 0], [20, 9])
    assert "the same at all sites: clay_30cm, sand_30cm" in history  # what is left of them


def test_replicates_become_their_mean_and_overlaps_are_kept_and_counted(tmp_path):
    made_up(tmp_path)

    def more(profiles):
        extra = [("p0", 0.0, 0.2, 10000.0), ("p1", 0.1, 0.5, 9000.0), ("p2", 0.6, 0.6004, 9000.0)]
        return pd.concat([profiles, pd.DataFrame(extra, columns=list(profiles))])

    edit(tmp_path, "profiles", more)
    sites, dropped = read(tmp_path)
    assert dropped == {
        "horizons (not sites) thinner than 1 mm": 1,
        "horizons (not sites) between the same depths as another, in their mean": 1,
    }
    np.testing.assert_allclose(sites.soc[0, :3], [20000.0, 15000.0, 10000.0])
    assert "left out: 1 horizon (not site) thinner than 1 mm (p2)" in sites.attrs["history"]
    assert "kept: 3 horizons at 1 site overlapping one above (p1)" in sites.attrs["history"]


def test_permafrost_is_counted_and_ground_that_never_thaws_left_out(tmp_path):
    made_up(tmp_path)

    def cool(climate):
        temperature = [f"T{m}" for m in MONTHS]
        climate.loc[0, temperature] -= 60.0
        swing = np.cos(2 * np.pi * (np.arange(12) - 6.5) / 12)
        climate.loc[1, temperature] = -14.0 + 18.0 * swing
        climate.loc[2, temperature] = -30.0 + 33.0 * swing

    edit(tmp_path, "climate_monthly", cool)
    sites, dropped = read(tmp_path)
    assert dropped == {"frozen all year, where plants cannot grow": 2}
    thaw = sites.active_layer_depth_last_year.values[:, 0]
    few, shallow = int((thaw < 3).sum()), int((thaw <= 2).sum())
    assert few >= shallow >= 2
    text = f"{few} sites with permafrost (active layer above 3 m), {shallow} of them with an active layer up to 2 m"
    assert text in sites.attrs["history"]


def test_three_ids_are_named_for_each_reason(tmp_path):
    edit(made_up(tmp_path), "sites", lambda s: s.__setitem__("clim_suspect", [1, 1, 1, 1, 0, 0, 0, 0]))
    history = read(tmp_path)[0].attrs["history"]
    assert "left out: 4 with suspect climate (clim_suspect) (p0, p1, p2, …)" in history
    edit(tmp_path, "sites", lambda s: s.__setitem__("clim_suspect", [1, 1, 1, 1, 1, 1, 1, 0]))
    assert read(tmp_path)[0].attrs["history"].startswith("1 site read")


@real_data
def test_the_real_tables_become_sites_that_the_model_runs_on():
    """Carbon of the model at its default parameters is within a factor of 4 of the measured one for most US sites."""
    sites = clm5.sites.from_tables(REAL, 60, seed=0, box="conus")
    assert np.all(sites.lat > 24)
    space = clm5.ParameterSpace("binn")
    soc = clm5.simulate(space.default(), clm5.Forcing.from_sites(sites)).soc
    modelled = np.asarray(clm5.observe(soc, sites.upper.values, sites.lower.values, operator="horizon"))
    ratio = np.log(modelled / sites.soc.values)[:, 0]
    assert np.all(np.isfinite(ratio))
    assert np.mean(np.abs(ratio) < np.log(4)) > 0.5


@real_data
@pytest.mark.skipif(not (REAL / "cosore_sites.csv").is_file(), reason="no cosore_sites.csv beside the real tables")
def test_forcing_errors_stay_where_they_were_measured(tmp_path, capsys):
    """The figures of the table in the documentation, with some room: a change of the forcing has to be looked at."""
    import importlib.util

    path = Path(__file__).parents[3] / "scripts" / "check_forcing.py"
    spec = importlib.util.spec_from_file_location("check_forcing", path)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    table = script.main([str(REAL), "--csv", str(tmp_path / "errors.csv")])
    assert (tmp_path / "errors.csv").is_file()
    assert "COSORE" in capsys.readouterr().out
    by = table.set_index(["field", "where"])
    soil, air = by.loc["soil temperature, °C"].iloc[0], by.loc["air temperature in its place, °C"].iloc[0]
    assert soil.rmse < 5.3
    assert abs(soil.bias) < 0.5
    assert soil.rmse < air.rmse - 0.8
    frozen = by.loc[("water scalar of CLM5's potential", "frozen layers")]
    assert frozen.rmse < 0.1
