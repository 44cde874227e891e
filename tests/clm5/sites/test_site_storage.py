"""Site files: exact round trips, also in another process, and files that are whole or not there."""

import importlib.util
import subprocess
import sys

import hypothesis.strategies as st
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings

import clm5.sites

GOOD = clm5.sites.virtual(5, seed=2)


def test_a_round_trip_through_netcdf_is_exact(tmp_path):
    path = clm5.sites.save(GOOD, tmp_path / "sites.nc")
    back = clm5.sites.open(path)
    xr.testing.assert_identical(back, GOOD)
    for name in GOOD.variables:
        assert back[name].dtype == GOOD[name].dtype, name
    assert all(isinstance(i, str) for i in back.site.values)
    assert clm5.sites.fingerprint(back) == clm5.sites.fingerprint(GOOD)


def test_another_process_reads_the_same_sites(tmp_path):
    path = clm5.sites.save(GOOD, tmp_path / "sites.nc")
    program = "import sys, clm5.sites as s; x = s.open(sys.argv[1]); print(s.fingerprint(x), x.site.values[-1])"
    printed = subprocess.run(
        [sys.executable, "-c", program, path], capture_output=True, text=True, check=True, timeout=300
    )
    assert printed.stdout.split() == [clm5.sites.fingerprint(GOOD), "virtual-0005"]


@pytest.mark.parametrize("unit", ["days", "days since 2000-01-01"])
def test_a_covariate_in_days_stays_a_number(tmp_path, unit):
    sites = GOOD.copy(deep=True)
    sites["months_frozen"].attrs["units"] = unit  # which xarray would read as a time
    back = clm5.sites.open(clm5.sites.save(sites, tmp_path / "sites.nc"))
    np.testing.assert_array_equal(back.months_frozen, sites.months_frozen)
    assert back.months_frozen.dtype == sites.months_frozen.dtype


def test_an_opened_file_is_closed_and_can_be_replaced(tmp_path):
    path = clm5.sites.save(GOOD, tmp_path / "sites.nc")
    sites = clm5.sites.open(path)
    clm5.sites.save(sites.isel(site=slice(2)), path)
    assert clm5.sites.open(path).sizes["site"] == 2
    assert [p.name for p in tmp_path.iterdir()] == ["sites.nc"]


def test_a_failed_save_leaves_the_earlier_file_and_no_other(tmp_path, monkeypatch):
    path = clm5.sites.save(GOOD, tmp_path / "sites.nc")
    whole = path.read_bytes()

    def fail(self, where, **_):
        where.write_bytes(whole[:100])
        raise OSError("no space left on device")

    monkeypatch.setattr(xr.Dataset, "to_netcdf", fail)
    with pytest.raises(OSError, match="no space left"):
        clm5.sites.save(GOOD, path)
    assert path.read_bytes() == whole
    assert [p.name for p in tmp_path.iterdir()] == ["sites.nc"]


def test_what_the_check_refuses_is_neither_written_nor_read(tmp_path):
    bad = GOOD.assign(soil_temperature=GOOD.soil_temperature - 273.15)
    bad["soil_temperature"].attrs = GOOD.soil_temperature.attrs
    with pytest.raises(ValueError, match="In °C"):
        clm5.sites.save(bad, tmp_path / "bad.nc")
    assert not list(tmp_path.iterdir())
    bad.to_netcdf(tmp_path / "bad.nc", engine="h5netcdf")
    with pytest.raises(ValueError, match=r"bad\.nc: .*problem found(?s:.*)In °C"):
        clm5.sites.open(tmp_path / "bad.nc")


def test_sites_to_predict_at_need_no_observation(tmp_path):
    sites = GOOD.copy(deep=True)
    for name in ("upper", "lower", "soc"):
        sites[name][:] = np.nan
    path = clm5.sites.save(sites, tmp_path / "map.nc")
    assert clm5.sites.open(path).sizes["site"] == 5
    with pytest.raises(ValueError, match="no observation"):
        clm5.sites.open(path, observations=True)


def test_files_that_cannot_be_read_are_explained(tmp_path):
    with pytest.raises(FileNotFoundError, match="no site data set at"):
        clm5.sites.open(tmp_path / "none.nc")
    (tmp_path / "text.nc").write_text("profile_id,lon,lat\n")
    with pytest.raises(ValueError, match=r"text\.nc cannot be read as netCDF-4"):
        clm5.sites.open(tmp_path / "text.nc")
    (tmp_path / "sites.csv").write_text("profile_id\n")
    with pytest.raises(ValueError, match=r"ends in \.nc or \.zarr"):
        clm5.sites.open(tmp_path / "sites.csv")
    with pytest.raises(FileNotFoundError, match="folder"):
        clm5.sites.save(GOOD, tmp_path / "nowhere" / "sites.nc")


@pytest.mark.skipif(importlib.util.find_spec("zarr") is not None, reason="zarr is installed")
def test_zarr_without_zarr_says_what_to_install(tmp_path):
    with pytest.raises(ImportError, match=r"binn-clm5\[zarr\]"):
        clm5.sites.save(GOOD, tmp_path / "sites.zarr")


@pytest.mark.skipif(importlib.util.find_spec("zarr") is None, reason="zarr is an extra and not installed")
def test_a_round_trip_through_zarr_is_exact(tmp_path):
    for _ in range(2):  # the second replaces the first
        path = clm5.sites.save(GOOD, tmp_path / "sites.zarr")
    xr.testing.assert_identical(clm5.sites.open(path), GOOD)
    assert [p.name for p in tmp_path.iterdir()] == ["sites.zarr"]


def test_the_fingerprint_ignores_order_and_attributes():
    shuffled = GOOD[list(GOOD.data_vars)[::-1]].copy(deep=True)
    shuffled.attrs = dict(reversed(GOOD.attrs.items()))
    shuffled["soc"].attrs = dict(reversed(GOOD.soc.attrs.items())) | {"note": "x"}
    assert clm5.sites.fingerprint(shuffled) == clm5.sites.fingerprint(GOOD)


@settings(deadline=None, max_examples=50)
@given(st.sampled_from([str(n) for n in GOOD.variables]), st.integers(0, 10**6))
def test_the_fingerprint_sees_the_smallest_change_of_any_variable(name, where):
    sites = GOOD.copy(deep=True)
    values = sites[name].values.copy()
    index = np.unravel_index(where % values.size, values.shape)
    if values.dtype.kind == "U":
        values = values.astype(object)
        values[index] += "x"
    elif values.dtype.kind == "i":
        values[index] += 1
    elif np.isnan(values[index]):
        values[index] = 0.0
    else:
        values[index] = np.nextafter(values[index], np.inf)
    sites = (
        sites.assign_coords({name: (sites[name].dims, values)})
        if name in sites.coords
        else sites.assign({name: (sites[name].dims, values)})
    )
    assert clm5.sites.fingerprint(sites) != clm5.sites.fingerprint(GOOD)


def test_the_fingerprint_sees_a_name_and_text_that_moves_between_ids():
    assert clm5.sites.fingerprint(GOOD.rename(ph="acidity")) != clm5.sites.fingerprint(GOOD)
    ab = GOOD.isel(site=slice(2)).assign_coords(site=["ab", "c"])
    assert clm5.sites.fingerprint(ab) != clm5.sites.fingerprint(ab.assign_coords(site=["a", "bc"]))
