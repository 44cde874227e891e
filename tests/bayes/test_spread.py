"""Sites are spread over devices wherever their arrays lie: a command shows JAX one device per core."""

import os
import subprocess
import sys

CODE = """
import jax
import bayes, clm5
from bayes import sampling

sites = clm5.sites.virtual(2, seed=0)
made = sampling.chain_keys
sampling.chain_keys = lambda *args: jax.device_put(made(*args), jax.devices()[0])  # tied to one device
tree = bayes.sample(sites, bayes.Config(chains=2, warmup=20, draws=20, batch=2), progress=False)
assert len(jax.devices()) == 2
assert tree.posterior.sizes["site"] == 2
"""


def test_arrays_that_are_tied_to_one_device_are_spread():
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    done = subprocess.run([sys.executable, "-c", CODE], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
