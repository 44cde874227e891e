"""What the site's place does for a network: with and without `Config.coordinates`, random and block split, known truth.

uv run python scripts/ablate_coordinates.py [--sites 1000] [--seeds 3] [--epochs 100] [--shortest 4]

Seed k splits (`split_seed`) and trains; networks with and without coordinates share split, first weights' seed and
sites. All numbers are at test sites, which are other sites under each rule.
"""

import argparse
import functools
import time

import numpy as np
import pandas as pd

import binn
import binn.features
import clm5

RULES = ("random", "blocks")


def judge(sites, config: binn.Config, seed: int) -> dict[str, float]:
    """Train, and score the test sites: NSE of ln SOC, and r of each unit parameter with its truth, averaged."""
    run = binn.fit(sites, config, seed=seed, progress=False)
    test = np.flatnonzero(run.labels(sites) == "test")
    skill = run.skill(sites).loc["test"]
    found, truth = run.predict(sites)[test], sites.true_unit.values[test]
    r = [np.corrcoef(found[:, i], truth[:, i])[0, 1] for i in range(truth.shape[1])]
    return {
        "test sites": len(test),
        "median km": skill.distance,
        "nse": skill.nse,
        "r": float(np.mean(r)),
        "epoch": run.best_epoch[0],
    }


def main() -> None:
    """Print a row per training, then a row per rule: what coordinates change, paired by seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("sites", 1000), ("seeds", 3), ("epochs", 100)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--shortest", type=float, help="shortest wave in degrees; default 1e-6, 16 waves as published")
    asked = parser.parse_args()
    if asked.shortest is not None:  # as far apart as the published ones, a factor of about 3.7
        known = binn.features.Coordinates()
        waves = tuple(length for length in known.wavelengths if length >= asked.shortest)
        binn.features.Coordinates = functools.partial(binn.features.Coordinates, waves)
        print("waves, degrees: " + ", ".join(f"{length:.3g}" for length in waves))
    began = time.perf_counter()
    sites = clm5.sites.virtual(asked.sites)
    rows = []
    for rule in RULES:
        for seed in range(asked.seeds):
            for coordinates in (False, True):
                config = binn.Config(split=rule, split_seed=seed, coordinates=coordinates, epochs=asked.epochs)
                asked_for = {"split": rule, "seed": seed, "coordinates": "yes" if coordinates else "no"}
                rows.append(asked_for | judge(sites, config, seed))
    table = pd.DataFrame(rows)
    print(table.to_string(index=False, float_format="{:.3f}".format))
    wide = table.pivot(index=["split", "seed"], columns="coordinates", values=["nse", "r"])
    print(f"\nwith − without coordinates, mean over {asked.seeds} seeds (smallest to largest):")
    for rule in RULES:
        gains = []
        for score in ("nse", "r"):
            gain = (wide[score]["yes"] - wide[score]["no"])[rule]
            gains.append(f"{score} {gain.mean():+.3f} ({gain.min():+.3f} to {gain.max():+.3f})")
        print(f"{rule:>7}: {'; '.join(gains)}")
    print(f"\n{asked.sites} sites, {time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
