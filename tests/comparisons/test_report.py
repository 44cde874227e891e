"""The report end to end: one page that needs nothing else and says what a reader must know, in the right order."""

import re
from html.parser import HTMLParser

import fake_trees
import numpy as np
import pandas as pd
import pytest
import xarray as xr

import comparisons
from comparisons import figures, figures_sites, html


@pytest.fixture(scope="module")
def folder(result, network, sampler, sites, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "report"
    return comparisons.report(result, network, sampler, sites, out=out).parent


@pytest.fixture(scope="module")
def page(folder):
    return (folder / "index.html").read_text(encoding="utf-8")


@pytest.fixture
def no_pictures(monkeypatch):
    """Draw, but spare the time of rendering, for tests that only read the words."""
    monkeypatch.setattr(html, "_png", lambda figure: b"picture")


class Balance(HTMLParser):
    """Every tag that opens closes, in order."""

    VOID = frozenset({"meta", "img", "br"})

    def __init__(self):
        super().__init__()
        self.open, self.sources = [], []

    def handle_starttag(self, tag, attrs):
        self.sources += [value for name, value in attrs if name in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_whole_and_needs_nothing_from_outside(page):
    parser = Balance()
    parser.feed(page)
    assert parser.open == []
    assert len(parser.sources) == 8
    assert all(source.startswith("data:image/png;base64,") for source in parser.sources)
    assert not re.search(r"https?://|@import|url\(|<script|<link", page)
    assert "nan" not in re.sub(r"base64,[^\"]*", "", page).lower().replace("finance", "")


def test_the_page_says_what_a_reader_must_know(page):
    for words in (
        "largely agree",
        "1 by construction",
        "quoting the prior would score",
        "A way claims to have learned",
        "prior box",
        "r, held-out sites (n = 5)",
        "gradients per site",
        "inside its gradients",
        "R-hat and effective sample size do not apply",
        "Largest R-hat",
        "15 sites that both files hold, 5 of them held out",
        "five processes, without plant carbon input",
        "floor: prior",
        "best: itself",
        "narrower than the prior, network",
        "narrower than the prior, sampler",
        "both below the threshold",
        "held out",
        "in sample",
        "Coverage per parameter",
        "1\u202f500\u202f000",
        "16.3 min",
        "Agreement is not truth",
    ):
        assert words in page, words
    headings = re.findall(r"<h2>(.*?)</h2>", page)
    assert (
        headings.index("Can the numbers be trusted?") < headings.index("How far they agree") < headings.index("Limits")
    )


def test_chains_that_did_not_converge_are_said_before_anything_else(network, sites, tmp_path, no_pictures):
    sampler = fake_trees.fake_tree(sites, fault="unmixed")
    result = comparisons.compare(network, sampler, sites)
    page = comparisons.report(result, network, sampler, sites, out=tmp_path / "r").read_text(encoding="utf-8")
    body = page[page.index("<main>") :]
    assert body.index("has not converged at 15 of 15 sites") < body.index("<h1>")
    assert body.count("has not converged at") == 1


def test_tables_pictures_and_result_lie_beside_the_page(folder, result):
    agreement = pd.read_csv(folder / "tables" / "agreement_parameters.csv")
    assert list(agreement["parameter"]) == list(result.parameter.values)
    np.testing.assert_allclose(agreement["pearson"], result.parameter_pearson, rtol=1e-5)
    sites = pd.read_csv(folder / "tables" / "sites_parameters.csv")
    assert len(sites) == 15 * 21
    one = sites[(sites["site"] == "site-004") & (sites["parameter"] == "q10")].iloc[0]
    assert one["overlap"] == pytest.approx(
        float(result.parameter_overlap.sel(site="site-004", parameter="q10")), rel=1e-5
    )
    assert len(list((folder / "tables").glob("*.csv"))) == 10
    assert len(list((folder / "figures").glob("*.png"))) == 8
    assert xr.load_dataset(folder / "comparison.nc", engine="h5netcdf").attrs["n_sites"] == 15


def test_the_result_alone_makes_a_report_and_says_what_is_left_out(result, tmp_path, no_pictures):
    page = comparisons.report(result, out=tmp_path / "r").read_text(encoding="utf-8")
    assert "made without the posterior files" in page
    assert "largely agree" in page
    assert len(list((tmp_path / "r" / "figures").glob("*.png"))) == 6


def test_an_earlier_report_is_not_written_over(folder, result, network, sampler, sites):
    with pytest.raises(FileExistsError, match="report"):
        comparisons.report(result, network, sampler, sites, out=folder)


def test_a_report_that_fails_leaves_nothing_behind(result, network, sampler, sites, tmp_path, monkeypatch, no_pictures):
    def fail(*_):
        raise RuntimeError("no pictures today")

    monkeypatch.setattr(figures_sites, "site_map", fail)
    with pytest.raises(RuntimeError):
        comparisons.report(result, network, sampler, sites, out=tmp_path / "r")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="nowhere"):
        comparisons.report(result, network, sampler, sites, out=tmp_path / "r", chosen=["nowhere"])


def test_real_sites_without_truth_or_split_make_a_report_too(tmp_path):
    sites = fake_trees.fake_sites(3, truth=False)
    network = fake_trees.fake_tree(sites, method="mc_dropout", chains=1, seed=5)
    sampler = fake_trees.fake_tree(sites)
    result = comparisons.compare(network, sampler, sites)
    page = comparisons.report(result, network, sampler, sites, out=tmp_path / "r").read_text(encoding="utf-8")
    assert "The known truth" not in page
    assert "unknown (no split in the file)" in page
    assert not (tmp_path / "r" / "figures" / "calibration.png").exists()


def test_hostile_names_are_text_in_the_page(network, sampler, sites, result, tmp_path, no_pictures):
    named = sites.assign_attrs(title="<script>alert(1)</script>")
    page = comparisons.report(result, network, sampler, named, out=tmp_path / "r").read_text(encoding="utf-8")
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


def test_correlation_panels_show_every_site_of_every_parameter(result):
    figure = figures.correlation_panels(result, "parameter")
    panels = [axis for axis in figure.axes if axis.get_title()]
    assert len(panels) == 21
    w = next(axis for axis in panels if axis.get_title().startswith("w_scaling"))
    points = np.concatenate([line.get_xydata() for line in w.lines if line.get_marker() == "o"])
    assert len(points) == 15
    expected = result.parameter_mean.sel(parameter="w_scaling")
    np.testing.assert_allclose(np.sort(points[:, 0]), np.sort(expected.sel(way="sampler")))
    np.testing.assert_allclose(np.sort(points[:, 1]), np.sort(expected.sel(way="network")))


def test_depth_grows_downward_and_every_observed_horizon_is_drawn(network, sampler, result):
    figure = figures_sites.soc_profiles(network, sampler, result, {"one": "site-001", "two": "site-002"})
    first, second = figure.axes[:2]
    assert first.get_ylim()[0] > first.get_ylim()[1]
    assert (len(first.patches), len(second.patches)) == (3, 4)


def test_the_map_holds_every_site_and_land(result):
    axis = figures_sites.site_map(result).axes[0]
    assert sum(len(collection.get_offsets()) for collection in axis.collections) == 15
    assert np.nanmax(np.abs(axis.lines[0].get_xdata())) <= 180


def test_chosen_sites_are_the_extremes(sites, network):
    sampler = fake_trees.fake_tree(sites)
    sampler["posterior"]["unit"].values[:, :, 7] = 0.999  # one site where the chains sit in a corner
    result = comparisons.compare(network, sampler, sites)
    assert figures_sites.choose_sites(result)["least agreement"] == "site-007"
