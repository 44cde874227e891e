"""`binn explain` and `binn sensitivity` write what they found, whole or not at all."""

import json

import matplotlib.image
import numpy as np
import pandas as pd
import pytest
import xarray as xr

import binn
import clm5
from comparisons import figures_understanding as figures
from comparisons.cli import main
from comparisons.launch import Launch


@pytest.fixture(autouse=True)
def unchanged_jax(monkeypatch):
    monkeypatch.setattr(Launch, "start", lambda self: None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A site file and the run of a small network."""
    folder = tmp_path_factory.mktemp("understanding")
    sites = clm5.sites.virtual(60, seed=4)
    clm5.sites.save(sites, folder / "sites.nc")
    binn.fit(sites, binn.Config(width=8, depth=1, epochs=2), folder / "run", progress=False)
    return folder


@pytest.fixture(scope="module")
def sobol(folder):
    sites = clm5.sites.open(folder / "sites.nc").isel(site=slice(0, 3))
    return clm5.sobol(sites, samples=64, scales=("ln", "raw"))


def test_explain_writes_tables_figures_and_a_page(folder, capsys):
    groups = {"climate": ["mean_temperature", "climate_class"], "soil": ["sand"]}
    (folder / "groups.json").write_text(json.dumps(groups))
    out = folder / "explained"
    files = [str(folder / "run"), str(folder / "sites.nc"), "--out", str(out)]
    options = ["--groups", str(folder / "groups.json"), "--points", "3", "--repeats", "2", "--label", "all"]
    assert main(["explain", *files, *options]) == 0
    assert "index.html" in capsys.readouterr().out
    table = pd.read_csv(out / "importance.csv", index_col="group")
    asked = binn.permutation_importance(
        binn.load(folder / "run"),
        clm5.sites.open(folder / "sites.nc"),
        groups,
        2,
        label="all",
    )
    np.testing.assert_allclose(table.loc[asked.index, asked.columns], asked, rtol=1e-5, atol=1e-12)
    long = pd.read_csv(out / "dependence.csv")
    saved = xr.load_dataset(out / "dependence.nc", engine="h5netcdf")
    row = long[(long.covariate == "sand") & (long.parameter == "q10")]
    np.testing.assert_allclose(row.theta_mean, saved.theta_mean.sel(covariate="sand", parameter="q10")[:3], rtol=1e-5)
    assert long.unit_mean.notna().all()
    assert saved.attrs["stock_depth_m"] == 1.0
    page = (out / "index.html").read_text()
    assert page.count("data:image/png;base64,") == 3
    assert "60 sites (all)" in page
    assert "mostly chance" not in page
    assert "http" not in page
    for name in ("importance", "dependence", "dependence_of_stock"):
        assert matplotlib.image.imread(out / f"{name}.png").std() > 0.05, "not blank"


def test_sensitivity_writes_means_sites_and_figures(folder, capsys):
    out = folder / "sobol"
    assert main(["sensitivity", str(folder / "sites.nc"), "--out", str(out), "--only", "2", "--samples", "64"]) == 0
    assert "2 of 2 sites" in capsys.readouterr().out
    saved = xr.load_dataset(out / "sobol.nc", engine="h5netcdf")
    table = pd.read_csv(out / "sobol.csv")
    assert len(table) == 3 * 21
    row = table[(table.depth == 0.3) & (table.parameter == "q10")].iloc[0]
    here = saved.sel(scale="ln", depth=0.3, parameter="q10")
    for name in ("first_order", "first_order_ci", "total", "total_ci"):
        np.testing.assert_allclose(row[f"mean_{name}"], here[f"mean_{name}"], rtol=1e-4)
    assert row.published == 0.023
    assert saved.sizes["site"] == 2
    assert sorted(path.name for path in out.iterdir()) == ["sobol.csv", "sobol.nc", "sobol_ln.png"]
    assert matplotlib.image.imread(out / "sobol_ln.png").std() > 0.05


def test_the_figure_of_indices_puts_each_where_it_is(sobol):
    one = sobol.sel(scale="ln", depth=1.0)
    axis = figures.sobol(sobol).axes[1]
    names = [text.get_text() for text in figures.sobol(sobol).axes[0].get_yticklabels()]
    drawn = {line.get_label(): line.get_xdata() for line in axis.lines}
    np.testing.assert_allclose(drawn["first order"], one.mean_first_order.sel(parameter=names))
    np.testing.assert_allclose(drawn["total"], one.mean_total.sel(parameter=names))
    np.testing.assert_allclose(drawn["first order, published"], one.published_first_order.sel(parameter=names))


def test_the_figure_says_where_indices_have_not_converged(sobol):
    words = [figures.sobol(sobol, scale).get_supxlabel() for scale in ("raw", "ln")]
    assert ["NOT CONVERGED" in text for text in words] == [True, False]


def test_a_figure_shows_the_parameter_that_a_covariate_moves_most(folder):
    run, sites = binn.load(folder / "run"), clm5.sites.open(folder / "sites.nc")
    found = binn.partial_dependence(run, sites, ["sand", "land_cover", "ph"], points=3)
    found["effect"][:] = 0.0
    found["effect"].loc[{"covariate": "ph", "parameter": "q10"}] = 0.5
    found["effect"].loc[{"covariate": "sand", "parameter": "beta"}] = 0.4
    first, second, *_ = figures.dependence(found).axes
    assert (first.get_xlabel(), first.get_ylabel()) == ("ph", "q10")
    assert (second.get_xlabel(), second.get_ylabel()) == ("sand (%)", "beta")
    np.testing.assert_allclose(first.lines[0].get_ydata(), found.theta_mean.sel(covariate="ph", parameter="q10")[:3])


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "must hold JSON"), ('["sand"]', "one object of lists"), ('{"a": "sand"}', "one object of lists")],
)
def test_groups_that_cannot_be_read_are_refused(folder, tmp_path, capsys, text, message):
    (tmp_path / "groups.json").write_text(text)
    files = [str(folder / "run"), str(folder / "sites.nc"), "--out", str(tmp_path / "out")]
    assert main(["explain", *files, "--groups", str(tmp_path / "groups.json")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_commands_overwrite_nothing_refuse_by_name_and_say_where_sites_are_few(folder, capsys, tmp_path):
    sites = str(folder / "sites.nc")
    assert main(["sensitivity", sites, "--out", str(folder)]) == 2
    assert "not overwritten" in capsys.readouterr().err
    assert main(["explain", str(folder / "run"), sites, "--out", str(folder)]) == 2
    assert main(["sensitivity", sites, "--out", str(tmp_path / "a"), "--only", "61"]) == 2
    assert "between 1 and the 60 sites" in capsys.readouterr().err
    assert main(["explain", str(folder / "run"), sites, "--out", str(tmp_path / "b"), "--points", "3"]) == 0
    assert "Only 6 sites were judged" in capsys.readouterr().out
    assert "--label all judges every site" in (tmp_path / "b" / "index.html").read_text()
    assert main(["explain", str(folder), sites, "--out", str(tmp_path / "a")]) == 2
    assert "holds no run" in capsys.readouterr().err
