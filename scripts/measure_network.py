"""What the published network costs on virtual sites: seconds an epoch, memory, and Monte Carlo dropout draws.

uv run python scripts/measure_network.py [--sites 25925] [--epochs 20] [--batch-size 256] [--draws 1000]
    [--store FOLDER.zarr] [--seed 0]
"""

import argparse
import resource
import time

import jax
import numpy as np

import binn
import clm5
from binn import batches, training


def main() -> None:
    """Train, and print one line per figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("sites", 25_925), ("epochs", 20), ("batch-size", 256), ("draws", 0), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--devices", type=int, default=2, help="JAX devices, one per core")
    parser.add_argument("--share-from", type=int, default=batches.LEAST_ON_A_DEVICE, help="sites on a device")
    parser.add_argument("--store", help="write the draws to this folder, ending in .zarr, instead of into memory")
    asked = parser.parse_args()
    jax.config.update("jax_num_cpu_devices", asked.devices)
    batches.LEAST_ON_A_DEVICE = asked.share_from
    sites = clm5.sites.virtual(asked.sites, seed=asked.seed)
    ends = [time.perf_counter()]
    real = training.evaluate

    def evaluate(*args, **kwargs):  # once an epoch, its last act
        scores = real(*args, **kwargs)
        ends.append(time.perf_counter())
        return scores

    training.evaluate = evaluate
    config = binn.Config.published(batch_size=asked.batch_size, epochs=asked.epochs, patience=asked.epochs)
    run = binn.fit(sites, config, seed=asked.seed, progress=False)
    epochs = np.diff(ends)
    print(f"{asked.sites} sites, batches of {asked.batch_size}: first epoch {epochs[0]:.1f} s, compilation included")
    print(f"later epochs: median {np.median(epochs[1:]):.2f} s, {epochs[1:].min():.2f} to {epochs[1:].max():.2f}")
    print(f"validation NSE of ln SOC after {asked.epochs} epochs: {run.history.validation_nse.iloc[-1]:.3f}")
    if asked.draws:
        began = time.perf_counter()
        print(f"peak memory before: {peak():.0f} MB")
        binn.posterior(run, sites, draws=asked.draws, seed=asked.seed, out=asked.store)
        print(f"{asked.draws} draws at all sites, to carbon and predictions: {time.perf_counter() - began:.0f} s")
    print(f"peak memory of the process: {peak():.0f} MB")


def peak() -> float:
    """Largest memory of the process so far, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
