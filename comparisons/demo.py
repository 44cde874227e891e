"""What `binn demo` runs: small enough for three minutes on two cores, large enough to mean something."""

import bayes
import binn
import clm5
from comparisons.chain import Plan

DEMO_SITES = 300


def demo_plan(seed: int) -> Plan:
    """300 virtual sites for the network, 24 of them for the sampler."""
    options = clm5.ModelOptions(sigma=0.2)  # the error that the virtual measurements have
    return Plan(
        network=binn.Config(model=options),
        sampler=bayes.Config(model=options, warmup=300, draws=700, batch=24),
        sampled=24,
        draws=300,
        seed=seed,
    )
