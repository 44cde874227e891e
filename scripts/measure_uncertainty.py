"""Every way to say how sure one is, judged on the same sites: does it hold the truth, and does it agree with MCMC?

uv run python scripts/measure_uncertainty.py [--sites 2000] [--sampled 24] [--seed 0] [--truth prior]

Sites are virtual. With --truth prior (default) parameters are drawn from the box, 0.02 from its walls, and covariates
tell nothing; with --truth virtual covariates tell 70 % of them.
"""

import argparse
import time

import numpy as np
import pandas as pd
from scipy.special import ndtri

import bayes
import binn
import clm5
from bayes.prior_gain import PRIOR_SD
from binn.recovery import LEVELS, inside
from binn.uncertainty import draw_units

SIGMA = 0.2
NETWORK = binn.Config(members=5)
AMORTISED = {"profile": True, "width": 128, "depth": 3, "dropout": 0.0, "batch_size": 128}


def main() -> None:
    """Train, draw, sample, and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("sites", 2000), ("sampled", 24), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--truth", choices=("prior", "virtual"), default="prior")
    asked = parser.parse_args()
    sites = clm5.sites.virtual(asked.sites, seed=asked.seed, sigma=SIGMA)
    if asked.truth == "prior":
        before, sites = sites, binn.synthetic(sites, "prior", noise=SIGMA, parameters="all", seed=asked.seed)
        cut = np.mean(sites.litter_input.sum(("pool", "month")) < 0.999 * before.litter_input.sum(("pool", "month")))
        print(f"sites whose litter was cut, as they would hold more carbon than peat: {float(cut):.0%}")
    test = np.flatnonzero(binn.split(sites) == "test")[: asked.sampled]
    few = sites.isel(site=test)
    truth = few.true_unit.values

    began = time.perf_counter()
    tree = bayes.sample(few, bayes.Config(warmup=600, draws=1500, batch=asked.sampled), seed=asked.seed, progress=False)
    drawn = {"NUTS": (tree["posterior"].unit.values, time.perf_counter() - began)}
    drawn["prior box"] = (np.random.default_rng(0).uniform(size=(1, 4000, *truth.shape)), 0.0)
    for name, (config, method) in {
        "MC dropout": (NETWORK, "mc_dropout"),
        "MC dropout, one member": (binn.Config(), "mc_dropout"),
        "concrete dropout": (binn.Config(learn_dropout=True), "mc_dropout"),
        "deep ensemble of 5": (NETWORK, "ensemble"),
        "Laplace over the head": (binn.Config(), "laplace"),
        "amortised, ELBO, covariates": (binn.Config(loss="elbo"), "amortised"),
        "amortised, ELBO, profile": (binn.Config(loss="elbo", epochs=100, patience=100, **AMORTISED), "amortised"),
        "amortised, simulation": (
            binn.Config(loss="simulation", epochs=1000, patience=1000, **AMORTISED), "amortised",
        ),
    }.items():  # fmt: skip
        began = time.perf_counter()
        run = binn.fit(sites, config, seed=asked.seed, progress=False)
        unit = draw_units(run, few, 400, method, seed=asked.seed, training_sites=sites)
        drawn[name] = (unit, time.perf_counter() - began)
    table = pd.DataFrame({name: judged(unit, truth, tree, seconds) for name, (unit, seconds) in drawn.items()}).T
    print(f"{asked.sites} sites, {len(test)} sampled, truth {asked.truth}, seed {asked.seed}")
    print(table.to_string(float_format="%.2f"))


def judged(unit: np.ndarray, truth: np.ndarray, tree, seconds: float) -> dict[str, float]:
    """Coverage of the truth by central intervals over sites and parameters, and distance from the sampler's posterior.

    `width`: of the 90 % interval, of the box. `shift`: median |difference of means| in the sampler's sd, on the probit
    scale; `ln sd ratio`: mean and sd over sites and parameters; `r`: of means over sites, mean over the parameters
    whose sd the carbon narrows by a tenth or more.
    """
    draws = unit.reshape(-1, *truth.shape)
    held = inside(draws.reshape(len(draws), -1), truth.ravel()).mean(axis=1)
    row = {f"{level:.0%}": float(share) for level, share in zip(LEVELS, held, strict=True)}
    low, high = np.quantile(draws, [0.05, 0.95], axis=0)
    reference = tree["posterior"].unit.values.reshape(-1, *truth.shape)
    mean, sd = _moments(draws)
    their_mean, their_sd = _moments(reference)
    ratio = np.log(sd / their_sd)
    told = reference.std(axis=0).mean(axis=0) < 0.9 * PRIOR_SD
    r = [np.corrcoef(mean[:, k], their_mean[:, k])[0, 1] for k in np.flatnonzero(told) if np.ptp(mean[:, k]) > 1e-9]
    row |= {
        "width": float(np.mean(high - low)),
        "shift": float(np.median(np.abs(mean - their_mean) / their_sd)),
        "ln sd ratio": float(ratio.mean()),
        "its sd": float(ratio.std()),
        "r": float(np.mean(r)) if r else np.nan,
        "seconds": seconds,
    }
    return row


def _moments(draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    score = ndtri(np.clip(draws, 1e-6, 1 - 1e-6))
    return score.mean(axis=0), score.std(axis=0)


if __name__ == "__main__":
    main()
