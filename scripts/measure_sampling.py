"""What a reference posterior costs, and how many sites fail its diagnostics; see docs/measured.md.

uv run python scripts/measure_sampling.py [--sites 512] [--real FOLDER] --out FOLDER

Virtual sites, or with --real the first sites of the contiguous US in the tables of FOLDER (`clm5.sites.from_tables`),
sampled by `bayes.sample` into a Zarr store, as many sites would be. A killed run goes on where it was.
"""

import argparse
import time
from pathlib import Path

import numpy as np

import bayes
import clm5
from comparisons.launch import Launch

CONUS = 25_925  # profiles of Xu et al. (2025) in the contiguous US
PUBLISHED_SOLVES = 210_000  # of PRODA, a site


def main() -> None:
    """Sample, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sites", type=int, default=512)
    parser.add_argument("--real", type=Path, help="folder with profiles.csv, sites.csv and climate_monthly.csv")
    parser.add_argument("--sigma", type=float, default=0.2, help="error of ln SOC; 0.5 suits real profiles")
    parser.add_argument("--batch", type=int, default=bayes.Config().batch)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    Launch().start()

    options = clm5.ModelOptions(sigma=asked.sigma)
    if asked.real is None:
        sites = clm5.sites.virtual(asked.sites, seed=asked.seed)
    else:
        sites = clm5.sites.from_tables(asked.real, n_sites=asked.sites, box="conus", seed=asked.seed)
    config = bayes.Config(options, batch=asked.batch, store="zarr", thin=8)
    began = time.perf_counter()
    tree = bayes.sample(sites, config, asked.out, seed=asked.seed)
    wall = time.perf_counter() - began

    table = tree["diagnostics"].to_dataset().load()
    n = sites.sizes["site"]
    seconds, gradients = float(table.seconds.sum()), table.n_gradients.values
    fewest = np.fmin(table.ess_bulk, table.ess_tail).min("parameter")
    rate = fewest / (table.seconds / table.attempts)
    print(
        f"{n} sites, seed {asked.seed}, sigma {asked.sigma:g}: this call {wall:.0f} s, in the sampler {seconds:.0f} s"
    )
    print(f"a site: {seconds / n:.2f} s, {gradients.mean():.0f} gradients")
    print(f"{CONUS} sites: {seconds / n * CONUS / 3600:.1f} h")
    for attempt in range(config.reruns + 1):
        missed = int(((table.attempts > attempt + 1) | ((table.attempts == attempt + 1) & ~table.converged)).sum())
        print(
            f"after attempt {attempt + 1}: {missed} sites miss R-hat < 1.01 or 400 effective draws ({missed / n:.1%})"
        )
    print(
        f"fewest effective draws of a parameter: median {float(fewest.median()):.0f}, least {float(fewest.min()):.0f}"
    )
    print(f"per second of a site: median {float(rate.median()):.0f}; per {PUBLISHED_SOLVES} gradients: ", end="")
    print(f"{float((fewest / gradients * PUBLISHED_SOLVES).median()):.0f}")
    print(bayes.verdict(table))


if __name__ == "__main__":
    main()
