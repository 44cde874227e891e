"""One data set and one training, shared by the tests of the network: compiling is most of the cost."""

import dataclasses

import pytest

import binn
import clm5

CONFIG = binn.Config(width=32, epochs=40, patience=40)


@pytest.fixture(scope="session")
def sites():
    """400 virtual sites: 320 for training, 40 for stopping, 40 for judging."""
    return clm5.sites.virtual(400, seed=1)


@pytest.fixture(scope="session")
def config():
    return CONFIG


@pytest.fixture(scope="session")
def trained(sites, tmp_path_factory):
    """A run of two members, and the folder that it left."""
    folder = tmp_path_factory.mktemp("runs") / "two"
    config = dataclasses.replace(CONFIG, members=2)
    return binn.fit(sites, config, folder, seed=1, progress=False, checkpoint_every=4), folder
