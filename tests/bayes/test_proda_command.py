"""`binn proda` writes both stages, and comparisons read them beside each other."""

import pytest

import bayes
import clm5
import comparisons
from comparisons.cli import main

TINY = ["--explore", "30", "--steps", "60", "--samples", "10", "--members", "4", "--epochs", "3"]


@pytest.mark.slow
def test_both_stages_are_written_and_stand_side_by_side(tmp_path, capsys):
    sites = clm5.sites.virtual(14, seed=2, bounds="proda", rules="proda")
    site_file, out = clm5.sites.save(sites, tmp_path / "sites.nc"), tmp_path / "run"
    assert main(["proda", str(site_file), "--out", str(out), "--no-filters", *TINY]) == 0
    assert "14 of 14 sites kept" in capsys.readouterr().out
    network, sampler = (clm5.open_posterior(out / name) for name in ("network.nc", "posterior.nc"))
    result = comparisons.compare(network, sampler, sites)
    assert result.sizes["site"] == 14
    assert result.attrs["network_method"] == "proda_network"
    assert result.attrs["sampler_error"] == "proda"


@pytest.mark.parametrize(("flags", "faults"), [([], 1), (["--mended"], 0)])
def test_options_reach_the_sampler(sites, tmp_path, monkeypatch, flags, faults):
    asked, site_file = [], clm5.sites.save(sites, tmp_path / "sites.nc")

    def refuse(sites, config, **_):
        asked.append((sites.sizes["site"], config))
        raise ValueError("enough")

    monkeypatch.setattr(bayes, "sample_proda", refuse)
    assert main(["proda", str(site_file), "--out", str(tmp_path / "run"), "--only", "3", *flags, *TINY]) == 2
    n_sites, config = asked[0]
    assert (n_sites, config.explore, config.steps, config.draws) == (3, 30, 60, 10)
    assert [getattr(config, name) for name in ("annealed", "accepted_only", "filters", "redraw")] == [faults] * 4


def test_a_folder_is_not_overwritten(tmp_path, capsys):
    assert main(["proda", str(tmp_path / "sites.nc"), "--out", str(tmp_path)]) == 2
    assert "--resume" in capsys.readouterr().err
