"""Files whose draws are independent: what they are is said in their own words, and few of them are said to be few."""

from html import escape

import fake_trees
import numpy as np
import pytest

import comparisons
from binn.uncertainty import METHODS
from comparisons import html, methods
from comparisons.cautions import converged
from comparisons.compare import cautions_of, claims
from comparisons.verdict import thresholds

SPLIT = np.where(np.arange(15) % 3 == 0, "test", "train")


@pytest.fixture
def no_pictures(monkeypatch):
    monkeypatch.setattr(html, "_png", lambda figure: b"picture")


def drawn(sites, method, *, chains=2, draws=200, **attrs):
    """A network's file as `binn.posterior` marks it."""
    known = METHODS[method]
    marks = {"draws_are": "independent", "chain_is": known.chain_is, "draw_is": known.draw_is, "reads_profile": "no"}
    return fake_trees.fake_tree(sites, method=method, seed=2, chains=chains, draws=draws, split=SPLIT, **marks | attrs)


def test_every_method_of_the_network_has_its_words():
    assert set(methods.METHODS) == {*METHODS, "proda_network"}


@pytest.mark.parametrize(
    ("method", "said", "not_said"),
    [
        ("mc_dropout", ["a dropout mask", "the rest is dropout", "dropout draws are narrower"], []),
        pytest.param(
            "ensemble",
            ["one ensemble (the only one)", "training anew", "ensemble are narrower"],
            ["dropout draws"],
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "laplace",
            ["a head of it", "the rest is between heads", "heads drawn around"],
            ["dropout draws"],
            marks=pytest.mark.slow,
        ),
        ("amortised", ["a draw of its answer", "an approximate posterior"], ["even untrained", "dropout draws"]),
    ],
)
def test_the_page_speaks_of_each_method_in_its_words(sites, sampler, tmp_path, no_pictures, method, said, not_said):
    network = drawn(sites, method, chains=1 if method == "ensemble" else 2)
    result = comparisons.compare(network, sampler, sites)
    assert result.rhat.sel(way="network").isnull().all()
    page = comparisons.report(result, network, sampler, sites, out=tmp_path / "r").read_text(encoding="utf-8")
    for words in (*said, "The draws are independent", "R-hat and effective sample size do not apply"):
        assert words in page, words
    counted = f"{int(result.n_draws.sel(way='network'))} {methods.METHODS[method].draws}"
    assert escape(counted) in page
    for words in not_said:
        assert words not in page, words
    assert ("members that differ are no sign" in page) == (method == "ensemble" or int(result.n_chains[0]) > 1)


def test_a_file_from_before_the_attribute_is_read_as_dropout(sites, network, sampler):
    assert "draws_are" not in network.attrs
    result = comparisons.compare(network, sampler, sites)
    assert result.rhat.sel(way="network").isnull().all()
    assert "dropout draws are narrower than the prior even untrained" in thresholds(result)
    told = methods.describe(methods.attributes(result), 2)
    assert "a chain is an independently trained member (there are 2), a draw is a dropout mask" in told


def test_five_members_are_compared_and_said_to_be_few(sites, sampler):
    result = comparisons.compare(drawn(sites, "ensemble", chains=1, draws=5), sampler, sites)
    few = next(sentence for sentence in cautions_of(result) if "only 5 draws" in sentence)
    assert "members of an ensemble" in few
    assert "in 67 % of cases" in few
    assert int(result.n_draws.sel(way="network")) == 5
    assert np.isfinite(result.parameter_overlap).all()
    held = result.parameter_coverage.sel(way="network", level=0.95).mean()
    assert float(held) == pytest.approx(2 / 3, abs=0.06)  # least to greatest of five: (5 − 1) / (5 + 1)


def test_few_draws_of_the_prior_are_not_taken_for_learning():
    sites = fake_trees.fake_sites(60)
    network = fake_trees.fake_tree(sites, method="ensemble", fault="prior", seed=5, chains=1, draws=5)
    result = comparisons.compare(network, fake_trees.fake_tree(sites), sites)
    assert float(result.parameter_sd_reduction.sel(way="network").mean()) == pytest.approx(0.04, abs=0.02)
    assert claims(result).sel(way="network").sum() <= 5  # of 21, by chance; all 21 with the biased spread


@pytest.mark.parametrize(("draws", "words"), [(49, "quantiles are crude"), (99, "fewer than 100 draws"), (100, None)])
def test_what_is_said_of_the_number_of_draws(sites, sampler, draws, words):
    found = cautions_of(comparisons.compare(drawn(sites, "laplace", chains=1, draws=draws), sampler, sites))
    said = [sentence for sentence in found if "draws per site" in sentence]
    assert said == [sentence for sentence in found if words and words in sentence]
    assert not any("widest interval" in sentence for sentence in found), "49 draws reach 95 %"


def test_fewer_than_four_draws_are_refused_by_name(sites, sampler):
    with pytest.raises(ValueError, match=r"network's file has 3 draws per site \(members of an ensemble\)"):
        comparisons.compare(drawn(sites, "ensemble", chains=1, draws=3), sampler, sites)


@pytest.mark.parametrize(
    "attrs", [pytest.param({"loss": "elbo", "reads_profile": "yes"}, marks=pytest.mark.slow), {"loss": "simulation"}]
)
def test_a_network_that_is_given_the_profile_is_not_held_out_from_it(sites, sampler, attrs, tmp_path, no_pictures):
    network = drawn(sites, "amortised", **attrs)
    result = comparisons.compare(network, sampler, sites)
    assert set(result.soc_standing.sel(way="network", subset=["test", "train", "all"]).values) == {"given the profile"}
    assert not any("another loss" in sentence for sentence in cautions_of(result))
    page = comparisons.report(result, network, sampler, sites, out=tmp_path / "r").read_text(encoding="utf-8")
    assert "it is given what it is scored on" in page
    assert "It reads the measured profile" in page


def test_an_amortised_network_without_profiles_is_scored_out_of_sample(sites, sampler):
    result = comparisons.compare(drawn(sites, "amortised", loss="elbo"), sampler, sites)
    assert result.soc_standing.sel(way="network", subset="test") == "held out"


def test_independent_draws_in_the_place_of_the_sampler_are_said_to_be_no_chains(sites, network):
    result = comparisons.compare(network, drawn(sites, "amortised"), sites)
    assert "its draws are independent, not chains" in cautions_of(result)[0]
    assert not converged(result).any()
