"""Sites are spread over all devices that JAX shows: a command has it show one per core."""

import os
import subprocess
import sys

import pytest

CODE = """
import jax
import bayes, clm5

sites = clm5.sites.virtual(2, seed=0)
tree = bayes.sample(sites, bayes.Config(chains=2, warmup=20, draws=20, batch=2, reruns=0), progress=False)
assert len(jax.devices()) == 2
assert tree.posterior.sizes["site"] == 2
"""


@pytest.mark.slow
def test_sites_are_sampled_on_two_devices():
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    done = subprocess.run([sys.executable, "-c", CODE], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
