"""The files of a run: written whole or not at all."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import serialization

from clm5._atomic import write_atomically

FORMAT = 2  # raised when what is in the files changes


def write_json(path: Path, record: dict) -> None:
    """Write a JSON file, whole."""
    text = json.dumps(record, indent=1, allow_nan=False) + "\n"
    write_atomically(path, lambda part: part.write_text(text, encoding="utf-8"))


def write_record(path: Path, record: dict) -> None:
    """Write numbers, strings, and arrays (named by `flat`) as MessagePack, whole."""
    write_atomically(path, lambda part: part.write_bytes(serialization.msgpack_serialize(record)))


def read_record(path: Path) -> dict:
    """The inverse of `write_record`; a file that cannot be read is refused by name."""
    try:
        return serialization.msgpack_restore(path.read_bytes())
    except Exception as error:  # msgpack raises many kinds
        raise ValueError(f"{path}: not a readable record ({error}); delete it to start this part again") from error


def flat(tree: Any) -> dict[str, np.ndarray]:
    """The leaves of a pytree by the names of their places."""
    return {jax.tree_util.keystr(place): np.asarray(leaf) for place, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def restore(template: Any, leaves: dict[str, np.ndarray]) -> Any:
    """The pytree that `flat` took apart, in the shape of `template`; another shape is refused."""
    places, structure = jax.tree_util.tree_flatten_with_path(template)
    names = [jax.tree_util.keystr(place) for place, _ in places]
    if set(names) != set(leaves):
        raise ValueError(
            f"binn: the saved weights have other parts than this network: {sorted(set(names) ^ set(leaves))}"
        )
    for name, (_, leaf) in zip(names, places, strict=True):
        if leaves[name].shape != leaf.shape or leaves[name].dtype != leaf.dtype:
            raise ValueError(
                f"binn: saved {name} is {leaves[name].dtype}{leaves[name].shape}, "
                f"this network's {leaf.dtype}{leaf.shape}"
            )
    return jax.tree.unflatten(structure, [jnp.asarray(leaves[name]) for name in names])
