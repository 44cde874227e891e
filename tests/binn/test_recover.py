"""Recovery experiments: the truth that is put in, how what comes back is measured, and that covariates carry it."""

import re

import jax
import numpy as np
import pandas as pd
import pytest
from scipy import stats

import binn
import clm5
from binn.recovery import COVERAGE, LEVELS, inside, measure
from binn.truths import SHAPES, proda_moments
from clm5.parameters import SUBSETS
from tests.conftest import shared_folder

FOUR = [clm5.NAMES.index(name) for name in SUBSETS["4"]]
PRODA = clm5.ModelOptions(bounds="proda")


def quick(**changes):
    return binn.recovery_config(**{"width": 32, "epochs": 40, "patience": 40, **changes})


@pytest.fixture(scope="module")
def made(sites):
    return binn.synthetic(sites, seed=3)


def covariate_order(sites, order):
    """The sites with the covariates of other ones."""
    moved = sites.copy(deep=True)
    for name in clm5.sites.covariate_names(sites):
        moved[name].values[:] = sites[name].values[order]
    return moved


def test_free_parameters_are_functions_and_the_others_are_held_where_the_network_holds_them(made, sites):
    unit = made.true_unit.values
    held = np.setdiff1d(np.arange(21), FOUR)
    np.testing.assert_array_equal(unit[:, held], np.tile(binn.Config(parameters="4").held_unit()[held], (400, 1)))
    assert np.all((unit[:, FOUR] > 0.1) & (unit[:, FOUR] < 0.9))
    assert np.all(unit[:, FOUR].std(axis=0) > 0.15)  # they fill their range
    every = binn.synthetic(sites, parameters="all", seed=3)
    np.testing.assert_array_equal(every.true_unit[:, FOUR], unit[:, FOUR])  # the same functions, whatever is free
    assert not np.allclose(binn.synthetic(sites, seed=4).true_unit[:, FOUR], unit[:, FOUR])


def test_the_functions_are_the_ones_that_are_written_down_and_of_covariates_alone(made, sites):
    for text in made.true_unit.attrs["functions"]:
        name, terms = text.split(": ")
        total = np.zeros(400)
        for weight, shape, covariate in re.findall(r"([+-][\d.]+) (\w+)\((\w+)\)", terms):
            x = stats.zscore(sites[covariate].values)
            total += float(weight) * stats.zscore(SHAPES[shape](x.clip(-2, 2)))
        truth = made.true_unit.sel(parameter=name).values
        assert stats.spearmanr(total, truth).statistic > 0.998, text  # weights are written with two digits
    order = np.random.default_rng(0).permutation(400)
    moved = binn.synthetic(covariate_order(sites, order), seed=3)
    np.testing.assert_allclose(moved.true_unit, made.true_unit.values[order])


def test_functions_are_made_of_as_many_terms_and_of_the_covariates_that_were_named(sites):
    made = binn.synthetic(sites, terms=2, of=("clay", "ph", "npp"), seed=3)
    for text in made.true_unit.attrs["functions"]:
        named = re.findall(r"\((\w+)\)", text)
        assert len(named) == len(set(named)) == 2
        assert set(named) <= {"clay", "ph", "npp"}


def test_carbon_is_that_of_the_truth_and_noise_is_as_large_as_asked(made, sites):
    with jax.enable_x64(True):
        soc = clm5.simulate(made.true_theta.values, clm5.Forcing.from_sites(made, dtype="float64")).soc
        modelled = np.asarray(clm5.observe(soc, made.upper.values, made.lower.values))
    np.testing.assert_allclose(made.true_soc, soc, rtol=1e-9)
    np.testing.assert_allclose(made.soc, modelled, rtol=1e-9)
    noisy = binn.synthetic(sites, noise=0.3, seed=3)
    np.testing.assert_array_equal(noisy.true_unit, made.true_unit)  # the noise has a stream of its own
    noise = np.log(noisy.soc / made.soc).values
    noise = noise[np.isfinite(noise)]
    assert abs(noise.std() - 0.3) < 4 * 0.3 / np.sqrt(2 * noise.size)
    assert abs(noise.mean()) < 4 * 0.3 / np.sqrt(noise.size)
    assert not np.array_equal(sites.soc, made.soc, equal_nan=True)  # a copy: the sites keep their own
    np.testing.assert_array_equal(np.isfinite(sites.soc), np.isfinite(made.soc))


@pytest.mark.parametrize("information", [0.0, 1.0])
def test_proda_draws_have_the_published_moments(sites, information):
    made = binn.synthetic(sites, "proda", parameters="all", model=PRODA, information=information, seed=3)
    mean, covariance = proda_moments()
    unit, spread = made.true_unit.values, np.sqrt(np.diag(covariance))
    assert np.all(np.abs(unit.mean(axis=0) - mean) < 4.5 * spread / np.sqrt(400) + 1e-6)
    np.testing.assert_allclose(unit.std(axis=0), spread, rtol=0.2)  # 400 normal draws: sd of an sd 3.5 %
    sharp = spread > 0.01  # below, the published numbers have one digit
    correlation = covariance / np.outer(spread, spread)
    assert np.abs(np.corrcoef(unit.T) - correlation)[np.ix_(sharp, sharp)].max() < 4.5 / np.sqrt(400)


def test_the_committed_moments_are_those_of_the_sample():
    mean, covariance = proda_moments()
    assert np.all(np.linalg.eigvalsh(covariance) > -1e-9)
    np.testing.assert_array_equal(covariance, covariance.T)
    path = shared_folder("data") / "proda_parameters_sample.csv"
    if not path.exists():
        pytest.skip(f"{path} is not here (set BINN_SHARED)")
    sample = pd.read_csv(path)[list(clm5.NAMES)].to_numpy()
    np.testing.assert_allclose(mean, sample.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(covariance, np.cov(sample.T), rtol=1e-5, atol=1e-12)


def test_prior_draws_are_uniform_and_independent_of_each_other_and_of_the_covariates(sites):
    made = binn.synthetic(sites, "prior", parameters="all", seed=3)
    unit = made.true_unit.values
    for values in unit.T:
        assert stats.kstest(values, "uniform", (0.02, 0.96)).pvalue > 1e-4
    assert np.abs(np.corrcoef(unit.T) - np.eye(21)).max() < 4.5 / np.sqrt(400)
    other = binn.synthetic(covariate_order(sites, np.arange(400)[::-1]), "prior", parameters="all", seed=3)
    np.testing.assert_array_equal(other.true_unit, unit)


def test_what_cannot_be_made_is_refused(sites):
    with pytest.raises(ValueError, match=r"truth must be one of \('functions', 'proda', 'prior'\)"):
        binn.synthetic(sites, "random")
    with pytest.raises(ValueError, match=r"noise must lie in \[0, 0.6\].*got 20.*percent"):
        binn.synthetic(sites, noise=20.0)
    with pytest.raises(ValueError, match='bounds="proda"'):
        binn.synthetic(sites, "proda")
    with pytest.raises(ValueError, match="information must lie"):
        binn.synthetic(sites, "prior", information=2.0)
    with pytest.raises(ValueError, match="has information 1 by definition"):
        binn.synthetic(sites, information=0.5)
    with pytest.raises(ValueError, match="terms must be 1 to 5"):
        binn.synthetic(sites, terms=6)
    with pytest.raises(ValueError, match="unknown: climate_class"):
        binn.synthetic(sites, of=("clay", "climate_class"))
    classes = sites.drop_vars([name for name in clm5.sites.covariate_names(sites) if "class" not in name])
    with pytest.raises(ValueError, match="need a numeric covariate"):
        binn.synthetic(classes)


def test_measures_on_answers_that_are_known():
    rng = np.random.default_rng(0)
    truth = rng.uniform(size=200)
    right = measure(truth, truth)
    assert right["r"] == pytest.approx(1)
    assert right["r2"] == pytest.approx(1)
    assert right["slope"] == pytest.approx(1)
    assert right["bias"] == 0
    middle = measure(truth, np.full(200, truth.mean()))
    assert middle["r2"] == pytest.approx(0, abs=1e-12)
    assert np.isnan(middle["r"])
    half = measure(truth, 0.5 * truth + 0.4)
    assert half["r"] == pytest.approx(1)  # r hides bias and scale
    assert half["slope"] == pytest.approx(0.5)
    assert half["bias"] == pytest.approx(np.mean(0.4 - 0.5 * truth))
    assert half["r2"] < 0.8
    assert measure(truth, rng.permutation(truth))["r2"] < -0.5
    assert np.isnan(measure(np.full(9, 0.5), truth[:9])["r2"])


@pytest.mark.parametrize(("width", "right"), [(1.0, True), (0.4, False), (2.5, False)])
def test_coverage_is_the_level_for_draws_of_the_right_width_and_not_for_others(width, right):
    rng = np.random.default_rng(1)
    middle = rng.normal(size=3000)
    truth, draws = middle + rng.normal(size=3000), middle + width * rng.normal(size=(39, 3000))
    share = inside(draws, truth).mean(axis=1)
    error = np.sqrt(np.array(LEVELS) * (1 - np.array(LEVELS)) / 3000)
    assert np.all(np.abs(share - LEVELS) < 4 * error + 0.002) == right


@pytest.fixture(scope="module")
def recovered(sites, tmp_path_factory):
    out = tmp_path_factory.mktemp("recover") / "a"
    return binn.recover(sites, quick(), only=(0,), seed=3, out=out, draws=50, progress=False), out


def test_an_experiment_reports_every_parameter_and_the_carbon(recovered, sites, made):
    found, out = recovered
    assert list(found.summary.parameter) == list(SUBSETS["4"])
    assert set(COVERAGE) <= set(found.parameters.columns)
    pd.testing.assert_frame_equal(found.parameters.drop(columns="fold"), found.summary)  # one fold
    assert list(found.skill.label) == ["train", "validation", "test"]
    run = binn.load(out / "fold-0").best_member()
    test = run.labels(sites) == "test"
    assert len(found.sites) == 4 * test.sum()
    one = found.sites[found.sites.parameter == "fs1s3"].set_index("site")
    np.testing.assert_array_equal(one.truth, made.true_unit.sel(parameter="fs1s3")[test])
    answer = run.predict(made)[test, clm5.NAMES.index("fs1s3")]
    np.testing.assert_allclose(one.found, answer, rtol=1e-5)  # float32, another number of rows
    assert found.pairs().nse.item() == run.skill(made).nse["test"]
    assert found.pairs().r2.item() == pytest.approx(found.r2)
    assert np.all(found.summary[list(COVERAGE)].diff(axis=1).iloc[:, 1:] >= 0)  # wider intervals hold more


@pytest.mark.slow
def test_a_parameter_that_carbon_tells_comes_back_and_not_from_the_covariates_of_other_sites(recovered, sites, made):
    r2 = recovered[0].summary.set_index("parameter").r2
    assert r2["efolding"] > 0.15
    order = np.random.default_rng(0).permutation(400)
    wrong = covariate_order(made, order)  # carbon and truth of a site, covariates of another
    run = binn.fit(wrong, quick(), seed=3, progress=False)
    test = run.labels(wrong) == "test"
    answer = run.predict(wrong)[test][:, FOUR]
    assert measure(wrong.true_unit.values[test, FOUR[0]], answer[:, 0])["r2"] < 0.1


def test_a_stopped_experiment_goes_on_and_another_one_is_not_mixed_in(recovered, sites):
    found, out = recovered
    weights = out / "fold-0" / "weights.msgpack"
    before = weights.stat().st_mtime_ns
    again = binn.recover(sites, quick(), only=(0,), seed=3, out=out, draws=50, progress=False)
    pd.testing.assert_frame_equal(again.parameters, found.parameters)
    assert again.wall_time == found.wall_time
    assert weights.stat().st_mtime_ns == before
    with pytest.raises(ValueError, match="holds another run: sites_fingerprint"):
        binn.recover(sites, quick(), "prior", only=(0,), seed=3, out=out, progress=False)
    with pytest.raises(FileExistsError):
        binn.recover(sites, quick(), only=(0,), seed=3, out=out, resume=False, progress=False)


def test_unusable_experiments_are_refused(sites):
    for words, changes in (
        ("split must be by folds", {"config": quick(split="random")}),
        ("different folds from 0 to 4", {"only": (5,)}),
        ("2 draws or more", {"draws": 1}),
        ("unknown: snow", {"covariates": ("clay", "snow")}),
    ):
        with pytest.raises(ValueError, match=words):
            binn.recover(sites, **{"config": quick(), **changes})


@pytest.mark.slow
def test_the_command_writes_tables_figures_and_a_page(tmp_path, capsys):
    from comparisons.cli import main

    out = tmp_path / "a"
    few = ["recover", "--out", str(out), "--n", "60", "--folds", "2", "--epochs", "2", "--draws", "9"]
    few += ["--truth", "prior", "--covariates", "clay"]
    assert main(few) == 0
    assert "Mean R² of 4 free parameters" in capsys.readouterr().out
    assert main(few) == 2  # never overwritten
    assert main([*few, "--resume", "--beside", str(out)]) == 0  # reads the finished folds
    assert "Intervals that promise 90 % hold the truth at" in capsys.readouterr().out
    page = (out / "index.html").read_text(encoding="utf-8")
    assert "uniform draws, which no covariate tells, 4 free, noise 0 %, 1 covariate seen" in page
    for name in ("parameters.csv", "skill.csv", "summary.csv", "sites.csv", "true_against_found.png"):
        assert (out / name).stat().st_size > 100
    assert len(pd.read_csv(out / "parameters.csv")) == 2 * 4
    assert main(["recover", "--out", str(tmp_path / "b"), "--beside", str(tmp_path)]) == 2  # no experiment there


@pytest.mark.slow
def test_carbon_is_met_whether_or_not_the_parameters_are_found():
    """1000 sites, one fold of five: the carbon of unseen sites is met well, and of four parameters efolding is found.

    On land 100: NSE 0.95, R² of efolding 0.87, mean R² 0.39. Uniform draws tell covariates nothing.
    """
    sites = clm5.sites.virtual(1000, seed=105)
    found = binn.recover(sites, only=(0,), progress=False)
    assert found.pairs().nse.item() > 0.9
    assert found.summary.set_index("parameter").r2["efolding"] > 0.5
    assert binn.recover(sites, truth="prior", only=(0,), progress=False).r2 < 0.05
