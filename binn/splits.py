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
SAME_PLACE = 10_000  # per degree: nearer than half of one in this, about 5 m, is the same place


def split(sites: "xr.Dataset", rule: str = "random", *, seed: int = 0) -> np.ndarray:
    """Label every site "train", "validation" or "test" (80, 10, 10 %), shape (site,), dtype str.

    rule: "random" over places: sites whose lon and lat agree when rounded to 1e-4° (profiles of one pit) go together,
        as they share forcing and covariates; or "blocks": whole 2° × 2° blocks, so that a test site has no neighbour in
        training. Places and blocks differ in size, and shares are met as closely as whole ones allow.

    Labels belong to site ids: the order of sites does not matter. Raises ValueError where a label would stay empty.
    """
    if rule not in RULES:
        raise ValueError(f"binn: split must be one of {RULES}, got {rule!r}")
    ids = np.asarray(sites.site.values, dtype=str)
    order = np.argsort(ids)
    number = _place if rule == "random" else _block
    group = number(np.asarray(sites.lon.values, float)[order], np.asarray(sites.lat.values, float)[order])
    labels = np.empty(ids.size, dtype="<U10")
    labels[order] = _deal(group, np.random.default_rng(seed))
    return labels


def _place(lon: Float[np.ndarray, " site"], lat: Float[np.ndarray, " site"]) -> np.ndarray:
    """Number of the place of each site, in order of first appearance; −180° and 180° east are one place."""
    east = np.round(lon * SAME_PLACE).astype(int) % (360 * SAME_PLACE)
    rounded = np.column_stack([east, np.round(lat * SAME_PLACE).astype(int)])
    _, first, member = np.unique(rounded, axis=0, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[member.ravel()]


def _block(lon: Float[np.ndarray, " site"], lat: Float[np.ndarray, " site"]) -> np.ndarray:
    """Number of the 2° × 2° block that each site lies in; −180° and 180° east are one place."""
    columns = int(360 / BLOCK)
    return np.floor((lat + 90) / BLOCK).astype(int) * columns + np.floor((lon % 360) / BLOCK).astype(int)


def _deal(group: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Deal whole groups, in random order, to the label that is furthest below its share."""
    numbers, member, size = np.unique(group, return_inverse=True, return_counts=True)
    if numbers.size < len(LABELS):
        raise ValueError(
            f"binn: {group.size} sites in {numbers.size} group(s) of one place or block cannot be split into "
            f'{", ".join(LABELS)}; give sites at more places, or use split="random" if they lie in few 2° blocks'
        )
    target = np.array(SHARES) * group.size
    dealt = np.zeros(len(LABELS))
    label = np.empty(numbers.size, dtype=int)
    for number in rng.permutation(numbers.size):
        choice = int(np.argmax((target - dealt) / target))  # an empty label is furthest below: each gets a group
        label[number] = choice
        dealt[choice] += size[number]
    return np.array(LABELS)[label][member]
