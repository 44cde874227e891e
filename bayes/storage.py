"""The folder of a sampling run: what it was asked for, and its finished batches, so that a killed run goes on."""

import gc
import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Bool

import clm5
from clm5._atomic import write_atomically

FORMAT = 2
REQUEST = "run.json"
POSTERIOR = {"netcdf": "posterior.nc", "zarr": "posterior.zarr"}
GARBAGE = 2e8  # bytes of trees after which memory is cleared: parents and children of a tree hold each other
STATUS = ("attempt", "attempts", "converged", "n_gradients", "seconds")  # per site, in the group `diagnostics`


class RunFolder:
    """A folder in which finished batches are kept.

    Args:
        path: the folder; made if it is not there.
        request: everything that the draws depend on, JSON-like. A folder that was made for another request is refused.
        resume: go on with what is there. Otherwise a folder that holds a run is refused.
        facts: what a new run decides once and for all, JSON-like: a run that is gone on with keeps its own, `.facts`.
        store: what the finished posterior file is, of `POSTERIOR`.

    Raises:
        ValueError: the folder holds the batches of another request; the message names what differs.
        FileExistsError: `resume` is False and the folder holds a run.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        request: dict,
        *,
        resume: bool = True,
        facts: Mapping[str, Any] | None = None,
        store: str = "netcdf",
    ):
        self.path, self.facts, self._store = Path(path), dict(facts or {}), store
        self.request = request = json.loads(json.dumps({"format": FORMAT, **request}))
        recorded = self.path / REQUEST
        if recorded.exists():
            if not resume:
                raise FileExistsError(
                    f"{self.path} holds a sampling run. Pass resume=True to go on with it, or choose another folder."
                )
            found, self.facts = _read_request(recorded)
            _refuse_other(self.path, found, request)
        else:
            versions = {name: version(name) for name in ("jax", "numpyro", "numpy")}
            record = {"request": request, "facts": self.facts, "versions": versions}
            text = json.dumps(record, indent=2, ensure_ascii=False)
            write_atomically(recorded, lambda part: part.write_text(text, encoding="utf-8"))

    @property
    def posterior(self) -> Path:
        """Where the finished posterior file belongs."""
        return self.path / POSTERIOR[self._store]

    def load(self, ids: Sequence[str]) -> dict[str, np.ndarray] | None:
        """The arrays of a finished batch of these sites, or None."""
        file = self._arrays(ids)
        if not file.exists():
            return None
        with np.load(file, allow_pickle=False) as stored:
            return dict(stored)

    def save(self, ids: Sequence[str], arrays: Mapping[str, np.ndarray]) -> None:
        """Keep the arrays of a finished batch; the file appears complete or not at all."""
        write_atomically(self._arrays(ids), lambda part: np.savez_compressed(part, allow_pickle=False, **arrays))

    def _arrays(self, ids: Sequence[str]) -> Path:
        """A batch is named by its sites: the first one for people, a hash of all for certainty."""
        digest = hashlib.sha256("\n".join(ids).encode()).hexdigest()[:12]
        readable = "".join(c if c.isalnum() or c in "-_" else "_" for c in ids[0])[:40]
        return self.path / "batches" / f"{readable}-{digest}.npz"


class InMemory:
    """Batches in memory and, where there is a folder, in a netCDF file each, so that a killed run goes on.

    Args:
        site: ids of all sites, in order.
        folder: of the run; None keeps nothing on disk.
    """

    def __init__(self, site: Sequence[str], folder: RunFolder | None):
        self.site, self._folder = list(site), folder
        self._latest: dict[str, tuple[xr.DataTree, int]] = {}  # a site's tree, and its place in it
        if folder and not self.complete:
            for file in sorted(folder.path.glob("batches/*.nc")):  # later attempts sort last
                self._add(clm5.open_posterior(file))

    @property
    def complete(self) -> bool:
        """Whether the file of the whole run is there."""
        return self._folder is not None and self._folder.posterior.exists()

    @property
    def finished(self) -> Bool[np.ndarray, " site"]:
        """Which sites have been sampled at least once."""
        return np.array([name in self._latest for name in self.site], bool)

    def put(self, tree: xr.DataTree, attempt: int) -> None:
        """Keep a tree, on disk too where there is a folder."""
        if self._folder:
            first = self.site.index(str(tree["diagnostics"].coords["site"].values[0]))
            clm5.save_posterior(tree, self._folder.path / "batches" / f"{attempt}-{first:06d}.nc")
        self._add(tree)

    def read(self, site: Sequence[str]) -> xr.DataTree:
        """The present tree of some sites."""
        return _joined(self._pieces(site), site)

    def status(self) -> xr.Dataset:
        """`STATUS` of the finished sites."""
        there = [name for name in self.site if name in self._latest]
        tables = [piece["diagnostics"].to_dataset()[list(STATUS)] for piece in self._pieces(there)]
        return _joined([xr.DataTree.from_dict({"status": table}) for table in tables], there)["status"].to_dataset()

    def finish(self, attrs: Mapping[str, Any]) -> xr.DataTree:
        """All sites in one tree, and in one file that stands for those of the batches."""
        tree = self.read(self.site)
        tree.attrs.update(attrs)
        if self._folder:
            clm5.save_posterior(tree, self._folder.posterior)
            shutil.rmtree(self._folder.path / "batches")
        return tree

    def _pieces(self, site: Sequence[str]) -> list[xr.DataTree]:
        """What the trees hold of these sites."""
        places: dict[int, tuple[xr.DataTree, list[int]]] = {}
        for name in site:
            tree, place = self._latest[name]
            places.setdefault(id(tree), (tree, []))[1].append(place)
        return [tree.isel(site=chosen) for tree, chosen in places.values()]

    def _add(self, tree: xr.DataTree) -> None:
        self._latest |= {str(name): (tree, i) for i, name in enumerate(tree["diagnostics"].coords["site"].values)}


class InStore:
    """Batches in a `clm5.PosteriorStore`, a batch at a time in memory."""

    def __init__(self, site: Sequence[str], folder: RunFolder, width: int):
        self._store = clm5.PosteriorStore(folder.posterior, site, width)
        self._garbage = 0

    @property
    def complete(self) -> bool:
        """Whether the store was finished."""
        return self._store.complete

    @property
    def finished(self) -> Bool[np.ndarray, " site"]:
        """Which sites have been sampled at least once."""
        return self._store.finished

    def put(self, tree: xr.DataTree, attempt: int) -> None:
        """Write a batch, or replace sites of several."""
        (self._store.replace if attempt else self._store.write)(tree)
        self._garbage += tree.nbytes
        if self._garbage > GARBAGE:
            gc.collect()
            self._garbage = 0

    def read(self, site: Sequence[str]) -> xr.DataTree:
        """The present tree of some sites, in memory."""
        return self._store.read(site)

    def status(self) -> xr.Dataset:
        """`STATUS` of the finished sites."""
        return self._store.group("diagnostics")[list(STATUS)].load()

    def finish(self, attrs: Mapping[str, Any]) -> xr.DataTree:
        """The finished store, opened lazily."""
        return self._store.finish(attrs)


Kept = InMemory | InStore  # where finished batches go; the last tree of a site counts


def _joined(trees: list[xr.DataTree], site: Sequence[str]) -> xr.DataTree:
    """One tree of the sites of several, in the order of `site`; what has no site axis is that of the first."""
    how: dict[str, Any] = {"data_vars": "minimal", "coords": "minimal", "compat": "override", "join": "override"}
    groups = {}
    for name in trees[0].children:
        whole = xr.concat([tree[name].to_dataset() for tree in trees], "site", **how)
        place = {str(at): row for row, at in enumerate(whole["site"].values)}
        groups[name] = whole.isel(site=[place[at] for at in site])
    tree = xr.DataTree.from_dict(groups)
    tree.attrs = dict(trees[0].attrs)
    return tree


def _read_request(path: Path) -> tuple[dict, dict]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return record["request"], record.get("facts", {})
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not the record of a sampling run ({error}); choose another folder") from error


def _refuse_other(path: Path, found: dict, wanted: dict) -> None:
    found, wanted = _flat(found), _flat(wanted)
    names = sorted(name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name))
    if names:
        listed = "; ".join(f"{name}: {found.get(name)!r} there, {wanted.get(name)!r} now" for name in names)
        raise ValueError(f"{path} holds a run that was asked for something else ({listed}). Choose another folder.")


def _flat(tree: dict, prefix: str = "") -> dict:
    """{"a": {"b": 1}} → {"a.b": 1}."""
    flat: dict = {}
    for name, value in tree.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat
