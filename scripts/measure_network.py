"""What training the published network costs: seconds an epoch and memory, on virtual sites.

uv run python scripts/measure_network.py [--sites 25925] [--epochs 20] [--batch-size 256] [--seed 0]
"""

import argparse
import resource
import time

import numpy as np

import binn
import clm5


def main() -> None:
    """Train, and print one line per figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("sites", 25_925), ("epochs", 20), ("batch-size", 256), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=value)
    asked = parser.parse_args()
    sites = clm5.sites.virtual(asked.sites, seed=asked.seed)
    ends = [time.perf_counter()]
    real = binn.training.evaluate

    def evaluate(*args, **kwargs):  # once an epoch, its last act
        scores = real(*args, **kwargs)
        scores.loss.block_until_ready()
        ends.append(time.perf_counter())
        return scores

    binn.training.evaluate = evaluate
    config = binn.Config.published(batch_size=asked.batch_size, epochs=asked.epochs, patience=asked.epochs)
    run = binn.fit(sites, config, seed=asked.seed, progress=False)
    epochs = np.diff(ends)
    print(f"{asked.sites} sites, batches of {asked.batch_size}: first epoch {epochs[0]:.1f} s, compilation included")
    print(f"later epochs: median {np.median(epochs[1:]):.2f} s, {epochs[1:].min():.2f} to {epochs[1:].max():.2f}")
    print(f"validation NSE of ln SOC after {asked.epochs} epochs: {run.history.validation_nse.iloc[-1]:.3f}")
    print(f"peak memory of the process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


if __name__ == "__main__":
    main()
