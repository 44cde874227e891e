"""Which sites train the network, which stop it, and which judge it."""

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

if TYPE_CHECKING:
    import xarray as xr

LABELS = ("train", "validation", "test")
SHARES = (0.8, 0.1, 0.1)
RULES = ("random", "blocks")
BLOCK = 2.0  # degrees, as published


def split(sites: "xr.Dataset", rule: str = "random", *, seed: int = 0) -> np.ndarray:
    """Label every site "train", "validation" or "test" (80, 10, 10 %), shape (site,), dtype str.

    rule: "random" over sites; or "blocks": whole 2° × 2° blocks, so that a test site has no neighbour in training.
        Blocks differ in size, and shares are met as closely as whole blocks allow.

    Labels belong to site ids: the order of sites does not matter. Raises ValueError where a label would stay empty.
    """
    if rule not in RULES:
        raise ValueError(f"binn: split must be one of {RULES}, got {rule!r}")
    ids = np.asarray(sites.site.values, dtype=str)
    order = np.argsort(ids)
    if rule == "random":
        group = np.arange(ids.size)
    else:
        group = _block(np.asarray(sites.lon.values, float), np.asarray(sites.lat.values, float))[order]
    labels = np.empty(ids.size, dtype="<U10")
    labels[order] = _deal(group, np.random.default_rng(seed))
    return labels


def _block(lon: Float[np.ndarray, " site"], lat: Float[np.ndarray, " site"]) -> np.ndarray:
    """Number of the 2° × 2° block that each site lies in; −180° and 180° east are one place."""
    columns = int(360 / BLOCK)
    return np.floor((lat + 90) / BLOCK).astype(int) * columns + np.floor((lon % 360) / BLOCK).astype(int)


def _deal(group: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Deal whole groups, in random order, to the label that is furthest below its share."""
    numbers, member, size = np.unique(group, return_inverse=True, return_counts=True)
    if numbers.size < len(LABELS):
        raise ValueError(
            f"binn: {group.size} sites in {numbers.size} group(s) cannot be split into {', '.join(LABELS)}; "
            'give more sites, or use split="random" if they lie in few 2° blocks'
        )
    target = np.array(SHARES) * group.size
    dealt = np.zeros(len(LABELS))
    label = np.empty(numbers.size, dtype=int)
    for number in rng.permutation(numbers.size):
        choice = int(np.argmax((target - dealt) / target))  # an empty label is furthest below: each gets a group
        label[number] = choice
        dealt[choice] += size[number]
    return np.array(LABELS)[label][member]
