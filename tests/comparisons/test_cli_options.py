"""What the command offers is what the packages know: no default and no choice drifts apart from its source."""

import inspect
from dataclasses import fields
from typing import get_args, get_type_hints

import pytest

import bayes
import binn
from bayes.config import KEEPS, STORES
from binn import config, losses, network, optimiser, splits, uncertainty
from binn.features import MISSING
from clm5.parameters import SUBSETS
from comparisons.chain import Plan
from comparisons.cli import main
from comparisons.cli_options import Model, Network, Sampler
from comparisons.cli_recover import recover
from comparisons.launch import Launch

CHOICES = {
    "activation": network.ACTIVATIONS,
    "norm": network.NORMS,
    "loss": losses.ALL_LOSSES,
    "split": splits.RULES,
    "schedule": optimiser.SCHEDULES,
    "gradient": config.GRADIENTS,
    "missing": MISSING,
    "parameters": SUBSETS,
}


@pytest.fixture(autouse=True)
def unchanged_jax(monkeypatch):
    monkeypatch.setattr(Launch, "start", lambda self: None)


def test_defaults_are_those_of_the_packages():
    ours = {field.name: field.default for field in fields(Network)}
    theirs = {field.name: field.default for field in fields(binn.Config)}
    assert set(ours) - {"method"} <= set(theirs)
    assert {name: theirs[name] for name in ours if name != "method"} == {n: v for n, v in ours.items() if n != "method"}
    assert Network().config(Model().options()) == binn.Config()
    assert Sampler().config(Model().options()) == bayes.Config()


def test_choices_are_those_of_the_packages():
    kinds = get_type_hints(Network)
    for name, known in CHOICES.items():
        assert set(get_args(kinds[name])) == set(known), name
    assert set(get_args(get_args(kinds["method"])[0])) == set(uncertainty.METHODS)
    offered = {name for name, kind in kinds.items() if get_args(kind)}
    assert offered == {*CHOICES, "method"}, "a choice that no test compares"


def test_choices_of_the_sampler_are_those_of_the_package():
    kinds = get_type_hints(Sampler)
    assert get_args(kinds["keep"]) == KEEPS
    assert get_args(kinds["store"]) == STORES


def test_recover_trains_by_default_as_the_package_does():
    ours, theirs = inspect.signature(recover).parameters, binn.recovery_config()
    for name in ("width", "dropout", "epochs", "gradient", "folds"):
        assert ours[name].default == getattr(theirs, name), name


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--method", "ensemble"], "an ensemble needs a run of 2 members"),
        (["--method", "amortised"], "ask for another than 'amortised'"),
        (["--loss", "elbo", "--method", "laplace"], "ask for 'amortised'"),
        (["--loss", "simulation"], "profile"),
        (["--dropout", "0"], "no spread"),
        (["--sites-in-memory", "8"], "at least batch_size"),
    ],
)
def test_what_a_network_cannot_answer_is_refused_before_it_is_trained(options, words, tmp_path, capsys):
    assert main(["train", str(tmp_path / "none.nc"), "--out", str(tmp_path / "out"), *options]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_plan_draws_as_its_loss_allows():
    plain, elbo = binn.Config(), binn.Config(loss="elbo")
    assert Plan(plain, bayes.Config(), 4).method == "mc_dropout"
    assert Plan(elbo, bayes.Config(), 4).method == "amortised"
    assert Plan(binn.Config(members=5), bayes.Config(), 4, draws=1, method="ensemble").method == "ensemble"
    with pytest.raises(ValueError, match="members is 3"):
        Plan(binn.Config(members=3), bayes.Config(), 4, method="ensemble")
    with pytest.raises(ValueError, match="keep is 'summary'"):
        Plan(plain, bayes.Config(keep="summary"), 4)
    with pytest.raises(ValueError, match="draws is 1"):
        Plan(plain, bayes.Config(), 4, draws=1)
    with pytest.raises(ValueError, match="method must be one of"):
        Plan(plain, bayes.Config(), 4, method="bootstrap")
