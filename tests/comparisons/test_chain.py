"""End to end: what a user types makes the report; errors are one line; a broken chain goes on where it stopped."""

import json
import resource
import shutil
import subprocess
import sys

import numpy as np
import pytest
import xarray as xr

import clm5
import comparisons
from comparisons import chain
from comparisons.cli import main

SMALL = ["--epochs", "3", "--width", "8", "--sampled", "4", "--draws", "30", "--warmup", "40", "--samples", "30"]
SMALL += ["--chains", "2", "--batch", "4", "--reruns", "0"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A site file, and the chain run on it, stopped in the sampler and taken up again."""
    path = tmp_path_factory.mktemp("chain")
    assert main(["sites", "virtual", "40", "--out", str(path / "sites.nc"), "--seed", "3"]) == 0
    command = ["run", str(path / "sites.nc"), "--out", str(path / "run"), *SMALL]

    def killed(*args, **kwargs):
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chain.bayes, "sample", killed)
        assert main(command) == 130
    assert not (path / "run" / "report").exists()
    assert main(command) == 2, "a folder that exists is taken up only with --resume"
    assert main([*command, "--resume"]) == 0
    return path


@pytest.mark.slow
def test_the_chain_leaves_a_report_and_its_parts(folder):
    run = folder / "run"
    page = (run / "report" / "index.html").read_text()
    for text in ("Pearson r", "Can the numbers be trusted", "coverage", "tau4s3", "carbon_input"):
        assert text in page, text
    assert "not made from the site data" not in page, "both files come from these sites"
    assert len(list((run / "report" / "figures").glob("*.png"))) == 8
    result = xr.load_dataset(run / "report" / "comparison.nc", engine="h5netcdf")
    assert result.sizes["site"] == 4
    network, sampler = (clm5.open_posterior(run / way / "posterior.nc") for way in ("network", "sampler"))
    assert network["posterior"].sizes["site"] == 40
    sites = clm5.sites.open(folder / "sites.nc").sel(site=sampler["posterior"].site.values)
    # what the files say the parameters do is what the model does with them
    theta = sampler["posterior"].theta.isel(chain=1, draw=7).values.astype(float)
    soc = np.asarray(clm5.simulate(theta, clm5.Forcing.from_sites(sites)).soc)
    np.testing.assert_allclose(sampler["posterior"].soc.isel(chain=1, draw=7), soc, rtol=2e-3)
    held_out = network["constant_data"].split.sel(site=sampler["posterior"].site.values)
    assert (held_out == "test").sum() == 2, "half of the sampled sites are held out"


@pytest.mark.slow
def test_a_chain_of_an_earlier_version_is_taken_up(folder, tmp_path, capsys):
    """Its network's record lacks the options that came later, and no file of it says how draws are made."""
    run = tmp_path / "run"
    shutil.copytree(folder / "run", run)
    shutil.rmtree(run / "report")
    record = json.loads((run / "network" / "run.json").read_text())
    for name in ("learn_dropout", "schedule", "profile", "sites_in_memory"):
        del record["config"][name]
    (run / "network" / "run.json").write_text(json.dumps(record))
    weights = (run / "network" / "weights.msgpack").read_bytes()
    command = ["run", str(folder / "sites.nc"), "--out", str(run), *SMALL, "--resume"]
    assert main([*command, "--schedule", "constant"]) == 2
    assert "schedule was 'cosine', is 'constant'" in capsys.readouterr().err
    assert main(command) == 0
    assert (run / "network" / "weights.msgpack").read_bytes() == weights
    assert "30 dropout draws at 40 sites" in capsys.readouterr().out


@pytest.mark.slow
def test_an_ensemble_goes_through_the_chain(folder, tmp_path, capsys):
    command = ["run", str(folder / "sites.nc"), "--out", str(tmp_path / "run"), *SMALL]
    assert main([*command, "--method", "ensemble", "--members", "3"]) == 2
    assert "members is 3" in capsys.readouterr().err
    shutil.copytree(folder / "run" / "sampler", tmp_path / "run" / "sampler")  # same sites: only read
    assert main([*command, "--method", "ensemble", "--members", "4", "--resume"]) == 0
    said = capsys.readouterr().out
    assert "best epochs" in said
    assert "4 members of an ensemble at 40 sites" in said
    assert "only 4 draws per site (members of an ensemble)" in (tmp_path / "run" / "report" / "index.html").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("lazily", [[], ["--sites-in-memory", "20", "--batch-size", "10"]])
def test_train_draws_by_the_method_that_its_loss_allows(folder, tmp_path, capsys, lazily, monkeypatch):
    opened = []
    real = clm5.sites.open
    monkeypatch.setattr(clm5.sites, "open", lambda *args, **kwargs: opened.append(kwargs) or real(*args, **kwargs))
    options = ["--loss", "elbo", "--profile", "--epochs", "2", "--width", "8", "--draws", "20", *lazily]
    assert main(["train", str(folder / "sites.nc"), "--out", str(tmp_path / "net"), *options]) == 0
    assert "20 draws of the network's own distribution at 40 sites" in capsys.readouterr().out
    assert opened[0].get("lazy", False) == bool(lazily)
    tree = clm5.open_posterior(tmp_path / "net" / "posterior.nc")
    assert tree.attrs["method"] == "amortised"
    assert tree.attrs["reads_profile"] == "yes"
    sampler = clm5.open_posterior(folder / "run" / "sampler" / "posterior.nc")
    result = comparisons.compare(tree, sampler, real(folder / "sites.nc"))
    assert result.soc_standing.sel(way="network", subset="test") == "given the profile"


@pytest.mark.slow
def test_a_finished_chain_is_not_done_again(folder, capsys):
    assert main(["run", str(folder / "sites.nc"), "--out", str(folder / "run"), *SMALL, "--resume"]) == 2
    assert "finished" in capsys.readouterr().err
    assert main(["compare", *(str(folder / "run" / way / "posterior.nc") for way in ("network", "sampler")),
                 str(folder / "sites.nc"), "--out", str(folder / "run" / "report")]) == 2  # fmt: skip
    assert "not overwritten" in capsys.readouterr().err


@pytest.mark.slow
def test_a_broken_site_file_is_refused_in_words(folder, tmp_path, capsys):
    with xr.open_dataset(folder / "sites.nc", engine="h5netcdf") as data:
        broken = data.load()
    broken["soil_temperature"] = broken.soil_temperature - 273.15
    broken.soil_temperature.attrs["units"] = "K"
    broken.to_netcdf(tmp_path / "broken.nc", engine="h5netcdf")
    for command in (["sites", "check"], ["run", "--out", str(tmp_path / "never")]):
        assert main([command[0], *command[1:], str(tmp_path / "broken.nc")]) == 2
        message = capsys.readouterr().err
        assert "soil_temperature" in message
        assert "273.15" in message
        assert "Traceback" not in message
    assert not (tmp_path / "never").exists()
    assert main(["sites", "check", str(tmp_path / "none.nc")]) == 2
    assert "none.nc" in capsys.readouterr().err
    assert main(["sites", "check", str(folder / "sites.nc")]) == 0
    assert "40 sites" in capsys.readouterr().out


def test_half_of_the_sampled_sites_are_held_out():
    labels = np.array(["train"] * 30 + ["test"] * 8 + ["validation"] * 2)
    chosen = chain.sites_to_sample(labels, 10, seed=0)
    assert len(set(chosen)) == 10
    assert (labels[chosen] == "test").sum() == 5
    assert len(chain.sites_to_sample(labels[:30], 10, seed=0)) == 10, "also without held-out sites"
    assert np.any(chain.sites_to_sample(labels, 10, seed=1) != chosen)


def test_help_comes_within_a_second_and_loads_no_jax():
    code = (
        "import sys; from comparisons.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "assert not {'jax', 'xarray', 'matplotlib'} & set(sys.modules)"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    shown = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    for word in ("demo", "sites", "train", "sample", "compare", "run"):
        assert word in shown
    assert (
        after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.0
    )  # s of CPU: wall time depends on load
