"""A posterior file for any number of sites: a Zarr folder of full size that is filled by batches of sites."""

# A batch counts when its mark is written, after everything else, so that a half-written batch is never read. Sites that
# are replaced later share chunks with others: their new values are first kept whole beside the store, and copied from
# there until all are in. Both rest on Zarr writing every chunk under a temporary name first (since zarr 3.1.3).

import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Int

from clm5._atomic import write_atomically
from clm5.posterior_file import plain, require_zarr, save_posterior

if TYPE_CHECKING:
    import xarray as xr

MARKS = "batches"  # the group of the marks
LARGEST_CHUNK = 64  # sites
_OF_ALL_SITES = ("sites_fingerprint", "wall_time_s", "n_solves", "n_gradients", "created_at")  # unlike in a batch


class PosteriorStore:
    """A posterior file that is filled batch by batch, by one writer at a time; memory holds one batch.

    Layout, names and attributes are those of a batch's tree (`clm5.assemble_posterior`), with all sites. The folder
    appears with the first batch.

    Args:
        path: the Zarr folder, ending in .zarr. One that is there already is gone on with.
        site: the ids of all sites, in the order of the file.
        batch: sites that are written together: the first `batch` ids, the next `batch` ids, ….
        request: what the draws depend on, name → JSON-like value; kept with the store.

    Raises:
        ValueError: what lies at `path` is no store, or one of other sites, batches or another request; the message
            names what differs.
        ImportError: zarr is not installed.
    """

    def __init__(self, path: str | Path, site: Sequence[str], batch: int, request: Mapping[str, Any] | None = None):
        require_zarr("PosteriorStore")
        self.path, self.batch = Path(path), batch
        self._request = json.loads(json.dumps(dict(request or {})))
        self.site = np.array([str(name) for name in site], dtype=object)
        self._rows = {name: row for row, name in enumerate(self.site)}
        if self.path.suffix != ".zarr":
            raise ValueError(f"PosteriorStore: the name must end in .zarr, got {self.path.name!r}")
        if batch < 1 or len(self._rows) < max(1, len(self.site)):
            raise ValueError(f"PosteriorStore: needs unique sites and a batch of 1 or more, got batch {batch!r}")
        self._finished = np.zeros(len(self.site), bool)
        if self.path.exists():
            self._check_same()
            self._finished = np.asarray(self._root()[MARKS]["finished"][:], bool)
            self._copy_pending()

    @property
    def finished(self) -> Bool[np.ndarray, " site"]:
        """Which sites are there."""
        return self._finished.copy()

    @property
    def complete(self) -> bool:
        """Whether `finish` was called."""
        return self.path.exists() and bool(self._root()[MARKS].attrs["complete"])

    @property
    def wall_time(self) -> float:
        """Seconds that the written batches took, by the attribute `wall_time_s` of their trees."""
        return float(np.sum(self._root()[MARKS]["seconds"][:])) if self.path.exists() else 0.0

    def rows(self, site: Sequence[str] | np.ndarray) -> Int[np.ndarray, " member"]:
        """Where sites stand in the file; unknown ones are refused by name."""
        unknown = [str(name) for name in site if str(name) not in self._rows]
        if unknown:
            raise ValueError(
                f"PosteriorStore: {self.path} has no place for site {unknown[0]!r} (and {len(unknown) - 1} "
                "more); it was made for other sites"
            )
        return np.array([self._rows[str(name)] for name in site], int)

    def write(self, tree: "xr.DataTree") -> None:
        """Write one batch and mark it; what an earlier, interrupted write left there is overwritten.

        Raises:
            ValueError: the sites are not those of one batch, or the tree is laid out otherwise than the store.
        """
        rows = self.rows(_sites_of(tree))
        first = int(rows[0])
        last = min(first + self.batch, len(self.site))
        if first % self.batch or not np.array_equal(rows, np.arange(first, last)):
            raise ValueError(
                f"PosteriorStore.write: expected one batch of {self.batch} sites in the order of the file, got "
                f"{len(rows)} sites from {self.site[first]!r} on"
            )
        if not self.path.exists():
            self._create(tree)
        self._put(tree, slice(first, last))
        self._arrays[f"{MARKS}/seconds"][first:last] = tree.attrs.get("wall_time_s", 0.0) / len(rows)
        self._arrays[f"{MARKS}/finished"][first:last] = True
        self._finished[first:last] = True

    def read(self, site: Sequence[str] | np.ndarray) -> "xr.DataTree":
        """The tree of some sites, in memory."""
        return self.tree().isel(site=self.rows(site)).load()

    def replace(self, tree: "xr.DataTree") -> None:
        """Put other values in the place of sites that are there: all of them or none, even when it is interrupted."""
        rows = self.rows(_sites_of(tree))
        missing = self.site[rows][~self.finished[rows]]
        if len(missing):
            raise ValueError(f"PosteriorStore.replace: site {missing[0]!r} was never written; `write` its batch first")
        self._check_layout(tree)
        save_posterior(tree, self._pending)
        self._copy_pending()

    def finish(self, attrs: Mapping[str, Any]) -> "xr.DataTree":
        """Write the root attributes that only the whole file has, close the store, and open it lazily."""
        missing = int((~self.finished).sum())
        if missing:
            raise ValueError(f"PosteriorStore.finish: {missing} of {len(self.site)} sites of {self.path} are missing")
        root = self._root("r+")
        root.attrs.update(dict(attrs))
        root[MARKS].attrs["complete"] = True
        return open_store(self.path)

    def tree(self) -> "xr.DataTree":
        """All sites, lazily, those that are not finished included."""
        return _open(self.path).drop_nodes(MARKS)

    def group(self, name: str) -> "xr.Dataset":
        """The finished sites of one group, lazily."""
        import xarray as xr

        whole = xr.open_zarr(self.path, group=name, consolidated=False, chunks=None, zarr_format=2)
        return whole.isel(site=np.flatnonzero(self._finished))

    @property
    def _pending(self) -> Path:
        return _pending(self.path)

    def _root(self, mode: Any = "r"):
        import zarr

        return zarr.open_group(self.path, mode=mode, zarr_format=2)

    def _check_same(self) -> None:
        if not is_store(self.path):
            raise ValueError(f"PosteriorStore: {self.path} is there, and is no store. Choose another name.")
        marks = self._root()[MARKS]
        stored = [str(name) for name in marks["site"][:]]
        if stored != list(self.site) or marks.attrs["batch"] != self.batch:
            raise ValueError(
                f"PosteriorStore: {self.path} holds {len(stored)} sites in batches of {marks.attrs['batch']}, not "
                f"these {len(self.site)} in batches of {self.batch}. Choose another name."
            )
        was, now = marks.attrs["request"], self._request
        other = [name for name in sorted(was | now) if was.get(name) != now.get(name)]
        if other:
            listed = "; ".join(f"{name} was {was.get(name)!r}, is {now.get(name)!r}" for name in other)
            raise ValueError(f"PosteriorStore: {self.path} was begun for something else ({listed}). Choose another.")

    def _create(self, tree: "xr.DataTree") -> None:
        """An empty store: the batch's tree as a pattern, its site axis made as long as it will be."""
        chunk = max(n for n in range(1, self.batch + 1) if self.batch % n == 0 and n <= LARGEST_CHUNK)
        n = len(self.site)
        pattern = plain(tree)
        pattern.attrs = {name: value for name, value in tree.attrs.items() if name not in _OF_ALL_SITES}

        def chunks(name, variable):
            return tuple(
                (n if name == "site" else chunk) if dim == "site" else max(1, size)
                for dim, size in variable.sizes.items()
            )

        def make(folder: Path) -> None:
            import zarr

            encoding = {
                node.path: {name: {"chunks": chunks(name, v)} for name, v in node.dataset.variables.items() if v.dims}
                for node in pattern.children.values()
            }
            pattern.to_zarr(folder, consolidated=False, zarr_format=2, encoding=encoding)
            root = zarr.open_group(folder, mode="r+", zarr_format=2)
            for group in pattern.children.values():
                for name, variable in group.dataset.variables.items():
                    if "site" in variable.dims:
                        array: Any = root[f"{group.name}/{name}"]
                        array.resize(tuple(n if d == "site" else s for d, s in variable.sizes.items()))
                        if name == "site":
                            array[:] = self.site
            import xarray as xr

            empty = {"finished": ("site", np.zeros(n, bool)), "seconds": ("site", np.zeros(n))}
            marks = xr.Dataset(empty, {"site": self.site})
            marks.attrs.update(batch=self.batch, complete=False, request=self._request)
            how = {**{name: {"chunks": (self.batch,)} for name in empty}, "site": {"chunks": (n,)}}
            marks.to_zarr(folder, group=MARKS, consolidated=False, zarr_format=2, encoding=how)

        write_atomically(self.path, make)

    @functools.cached_property
    def _arrays(self) -> dict[str, Any]:
        """The arrays of the store by "group/name"."""
        root = self._root("r+")
        return {f"{group}/{name}": array for group, part in root.groups() for name, array in part.arrays()}

    def _check_layout(self, tree: "xr.DataTree") -> None:
        for group in tree.children.values():
            for name, variable in group.dataset.variables.items():
                expected = tuple(len(self.site) if d == "site" else s for d, s in variable.sizes.items())
                stored = self._arrays.get(f"{group.name}/{name}")
                if stored is None or stored.shape != expected:
                    raise ValueError(
                        f"PosteriorStore: {group.name}/{name} has {dict(variable.sizes)}; with all sites {expected}, "
                        f"but {self.path} was begun with {'no such variable' if stored is None else stored.shape}"
                    )

    def _put(self, tree: "xr.DataTree", rows: slice | np.ndarray) -> None:
        self._check_layout(tree)
        for group in plain(tree).children.values():
            for name, variable in group.dataset.variables.items():
                if "site" in variable.dims and name != "site":
                    place = tuple(rows if dim == "site" else slice(None) for dim in variable.dims)
                    self._arrays[f"{group.name}/{name}"].set_orthogonal_selection(place, variable.values)

    def _copy_pending(self) -> None:
        import xarray as xr

        if self._pending.exists():
            with xr.open_datatree(self._pending, engine="h5netcdf") as tree:
                self._put(tree.load(), self.rows(_sites_of(tree)))
            self._pending.unlink()


def is_store(path: str | Path) -> bool:
    """Whether a Zarr folder is a store of this kind, finished or not."""
    return (Path(path) / MARKS / ".zgroup").exists()


def open_store(path: str | Path, *, unfinished: bool = False) -> "xr.DataTree":
    """Open a store lazily; see `clm5.open_posterior`."""
    path = Path(path)
    whole = _open(path)
    marks = whole[MARKS].to_dataset().load()
    tree, finished = whole.drop_nodes(MARKS), marks.finished.values
    if marks.attrs["complete"]:
        return tree
    missing = int((~finished).sum())
    if not unfinished:
        what = f"{missing} of {len(finished)} sites are missing" if missing else "sites are still being sampled again"
        raise ValueError(
            f"open_posterior: {path} is not finished: {what}. Resume the run that fills it, or pass "
            "unfinished=True for the sites that are there"
        )
    if _pending(path).exists():
        raise ValueError(
            f"open_posterior: {path} was left while sites were being replaced. Resume the run that fills it"
        )
    return tree.isel(site=np.flatnonzero(finished))


def _open(path: Path) -> "xr.DataTree":
    import xarray as xr

    return xr.open_datatree(path, engine="zarr", consolidated=False, cache=False)


def _pending(path: Path) -> Path:
    return path.with_name(f".{path.stem}.pending.nc")


def _sites_of(tree: "xr.DataTree") -> np.ndarray:
    return next(np.asarray(g.coords["site"].values) for g in tree.children.values() if "site" in g.coords)
