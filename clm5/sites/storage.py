"""Site data sets on disk: netCDF (through h5netcdf) or Zarr, written whole or not at all, checked when read."""

import importlib.util
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from clm5.sites.checks import check
from clm5.sites.schema import BLOCK


def save(sites: xr.Dataset, path: str | os.PathLike) -> Path:
    """Write a checked site data set to `path`, ending in .nc or .zarr; returns the path.

    The file appears under its name only when it is complete: it is written beside it and then moved. An earlier file
    of the same name is replaced.

    Raises:
        ValueError: the data set fails `check`, or the ending is neither .nc nor .zarr.
        FileNotFoundError: the folder does not exist.
        ImportError: .zarr without the package zarr.
    """
    path = Path(path)
    check(sites, observations=False)
    kind = _kind(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"save: the folder {path.parent} does not exist. Make it first, or mend the path.")
    plain = _plain(sites)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        if kind == "nc":
            plain.to_netcdf(temporary, engine="h5netcdf", format="NETCDF4")
            os.replace(temporary, path)
        else:
            plain.to_zarr(temporary, mode="w", consolidated=False, zarr_format=2)
            _replace_folder(temporary, path)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)
    return path


def open(path: str | os.PathLike, *, observations: bool = False, lazy: bool = False) -> xr.Dataset:
    """Read a site data set from .nc or .zarr into memory, close the file, and check it.

    With `observations=True` sites without a measured horizon are refused too (training and sampling do so anyway).
    With `lazy=True` the file stays open, is checked a block at a time, and is read where it is asked for: for files
    larger than memory, with `binn.Config(sites_in_memory=...)`.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: not a netCDF or Zarr file, or the content fails `check`; the message begins with the path.
        ImportError: .zarr without the package zarr.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no site data set at {path}. Is the path right, relative to {Path.cwd()}?")
    kind = _kind(path)
    as_stored: dict[str, Any] = {
        "decode_times": False,
        "decode_timedelta": False,
    }  # a covariate in days is a number, not a time
    how: dict[str, Any] = {"engine": "h5netcdf"} if kind == "nc" else {"engine": "zarr", "consolidated": False}
    try:
        dataset = xr.open_dataset(path, cache=False, **how, **as_stored)
        if lazy:
            sites = _plain(dataset)
        else:
            with dataset:
                sites = _plain(dataset.load())
    except (OSError, KeyError, TypeError, ValueError) as error:
        what = "netCDF-4 (HDF5)" if kind == "nc" else "Zarr"
        raise ValueError(
            f"{path} cannot be read as {what}: {error}. An unfinished download, an older netCDF-3 file or another "
            "format? Site data sets are written by clm5.sites.save."
        ) from error
    try:
        check(sites, observations=observations, block=BLOCK if lazy else None)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return sites


def _kind(path: Path) -> str:
    if path.suffix == ".zarr":
        if importlib.util.find_spec("zarr") is None:
            raise ImportError(
                f"{path.name}: Zarr needs the package zarr, which is not installed. "
                "Install it with `pip install 'binn-clm5[zarr]'` (or `uv sync --extra zarr`), or use .nc."
            )
        return "zarr"
    if path.suffix in (".nc", ".nc4"):
        return "nc"
    raise ValueError(f"{path.name}: a site data set ends in .nc or .zarr, not {path.suffix or 'without an ending'!r}")


def _plain(sites: xr.Dataset) -> xr.Dataset:
    """A copy without inherited encodings, with every text variable as NumPy str."""
    sites = sites.copy().drop_encoding()
    for name, variable in sites.variables.items():
        if variable.dtype.kind in "OST":
            text = xr.Variable(variable.dims, np.asarray(variable.values).astype(str), variable.attrs)
            sites = sites.assign_coords({name: text}) if name in sites.coords else sites.assign({name: text})
    return sites


def _replace_folder(new: Path, path: Path) -> None:
    """Put the folder `new` in the place of `path`; the old one goes only when the new one is there."""
    old = path.with_name(f".{path.name}.{os.getpid()}.old")
    if path.exists():
        os.replace(path, old)
    os.replace(new, path)
    shutil.rmtree(old, ignore_errors=True)
