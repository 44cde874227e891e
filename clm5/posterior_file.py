"""Posterior files on disk: netCDF or Zarr, written whole or not at all, and read; stores are opened lazily."""

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clm5._atomic import write_atomically
from clm5.posterior import SCHEMA_VERSION

if TYPE_CHECKING:
    import xarray as xr

SUMMARY = "summary"  # value of the root attribute `keep` of a file without draws


def save_posterior(tree: "xr.DataTree", path: str | Path) -> Path:
    """Write a posterior tree to netCDF (.nc) or Zarr (.zarr), whole or not at all; replaces what is there."""
    path = Path(path)
    if path.suffix == ".zarr":
        require_zarr("save_posterior")
        return write_atomically(path, lambda part: plain(tree).to_zarr(part, consolidated=False, zarr_format=2))
    if path.suffix != ".nc":
        raise ValueError(f"save_posterior: the file name must end in .nc or .zarr, got {path.name!r}")
    return write_atomically(path, lambda part: plain(tree).to_netcdf(part, engine="h5netcdf"))


def open_posterior(path: str | Path, *, unfinished: bool = False) -> "xr.DataTree":
    """Read a posterior tree.

    A file is read into memory and closed. A store (`clm5.PosteriorStore`) may be larger than memory: it is opened
    lazily, and values are read, every time anew, where they are asked for.

    Args:
        path: of the file or store, ending in .nc or .zarr.
        unfinished: open a store that is still being filled, too, with the sites alone that are finished.

    Raises:
        FileNotFoundError: where there is no such file.
        ValueError: where the file has no posterior group, and for a store that is not finished; the message says how
            many sites are missing.
    """
    import xarray as xr

    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"open_posterior: there is no posterior file at {path}")
    if path.suffix == ".zarr":
        require_zarr("open_posterior")
        from clm5.posterior_store import is_store, open_store

        if is_store(path):
            tree = open_store(path, unfinished=unfinished)
            _check(tree, path)
            return tree
    how: dict[str, Any] = (
        {"engine": "zarr", "consolidated": False} if path.suffix == ".zarr" else {"engine": "h5netcdf"}
    )
    with xr.open_datatree(path, **how) as tree:
        _check(tree, path)
        return tree.load()


def _check(tree: "xr.DataTree", path: Path) -> None:
    if "posterior" not in tree.children and tree.attrs.get("keep") != SUMMARY:
        raise ValueError(
            f"open_posterior: {path} has no group 'posterior' (groups: {', '.join(tree.children) or 'none'}). "
            "Is it a site file, or a comparison?"
        )
    if tree.attrs.get("schema_version", SCHEMA_VERSION) != SCHEMA_VERSION:
        raise ValueError(
            f"open_posterior: {path} has schema version {tree.attrs['schema_version']}, this version of the "
            f"package reads {SCHEMA_VERSION}"
        )


def plain(tree: "xr.DataTree") -> "xr.DataTree":
    """A tree without traces of the file that it was read from, and with text as objects.

    The encoding of one format is not valid in another, and a fixed width of text in Zarr would cut longer text that is
    written later.
    """
    from xarray import DataTree

    groups = {name: _plain(node.to_dataset()) for name, node in tree.children.items()}
    result = DataTree.from_dict(groups)
    result.attrs = dict(tree.attrs)
    return result


def _plain(dataset: "xr.Dataset") -> "xr.Dataset":
    text = {name: v.astype(object) for name, v in dataset.variables.items() if v.dtype.kind in "UT"}
    coords = {name: v for name, v in text.items() if name in dataset.coords}
    return dataset.assign_coords(coords).assign({k: v for k, v in text.items() if k not in coords}).drop_encoding()


def require_zarr(what: str) -> None:
    """Raise an ImportError that says how to get Zarr where it is not installed."""
    if importlib.util.find_spec("zarr") is None:
        raise ImportError(f"{what}: Zarr files need the extra: pip install 'binn-clm5[zarr]', or use a .nc file")
