"""Checks of a site data set's shape: axes, coordinates, required variables, units and types."""

from collections.abc import Iterator

import numpy as np
import xarray as xr

from clm5.grid import LITTER_POOLS, N_MONTHS, NODE
from clm5.parameters import NAMES
from clm5.sites.schema import SIZES, Variable, same_unit


def dimensions(sites: xr.Dataset) -> Iterator[str]:
    """Problems of the axes and their coordinates."""
    yield from _site_ids(sites)
    for dim in ("layer", "month", "pool", *(("parameter",) if "parameter" in sites.dims else ())):
        if dim not in sites.dims:
            yield f"dimension {dim}: missing; expected size {SIZES[dim]}, found only {_listed(sites.sizes)}."
        elif sites.sizes[dim] != SIZES[dim]:
            yield (
                f"dimension {dim}: expected size {SIZES[dim]}, found {sites.sizes[dim]}. "
                + (
                    "Keep CLM5's upper 20 layers: isel(layer=slice(20))."
                    if dim == "layer" and sites.sizes[dim] > SIZES[dim]
                    else "Layers of another model? Interpolate to clm5.grid.NODE."
                    if dim == "layer"
                    else "Truncated or resampled?"
                )
            )
        elif dim not in sites.coords:
            yield f"coordinate {dim}: missing, so the order along it is unknown. Add it with assign_coords({dim}=...)."
        else:
            yield from _coordinate(sites, dim)
    if "horizon" not in sites.dims:
        yield "dimension horizon: missing; upper, lower and soc have dims (site, horizon), padded with NaN."


def variable(sites: xr.Dataset, expected: Variable) -> Iterator[str]:
    """Problems of one required variable, its values aside."""
    name = expected.name
    first = f"site {sites.site.values[0]}"
    if name not in sites.variables:
        near = [str(v) for v in sites.variables if str(v).lower().replace("_", "") == name.replace("_", "")]
        hint = f"Is it {near[0]}? Rename it." if near else "Which step of the reader should have made it?"
        found = _listed(sites.data_vars)
        yield f"{first} and all others: {name} ({expected.meaning}) is missing; found {found}. {hint}"
        return
    array = sites[name]
    if array.dims != expected.dims:
        shape = ", ".join(f"{d} {n}" for d, n in array.sizes.items())
        if set(array.dims) == set(expected.dims):
            hint = f"Reorder: sites[{name!r}].transpose({', '.join(map(repr, expected.dims))})."
        else:
            hint = "A month's or layer's slice, or an axis under another name? Add or rename the axis."
        yield f"{first} and all others: {name} must have dims ({', '.join(expected.dims)}), found ({shape}). {hint}"
        return
    if array.dtype.kind not in "iuf":
        yield f"{first} and all others: {name} must be numbers, found type {array.dtype}. Convert with .astype(float)."
        return
    if "units" not in array.attrs:
        yield (
            f"{first} and all others: {name} has no units attribute; expected {expected.unit!r}. "
            f"If the numbers are in {expected.unit}, set sites[{name!r}].attrs['units'] = {expected.unit!r}."
        )
        return
    found = str(array.attrs["units"])
    if not same_unit(found, expected.unit):
        short = found.lower().removeprefix("degrees").removeprefix("degree").removeprefix("deg").strip(" _°")
        hint = next((fix for part, fix in expected.wrong_units if _mentions(short, part)), "Convert the numbers.")
        yield f"{first} and all others: {name} must be in {expected.unit!r}, found units {found!r}. {hint}"


def _mentions(unit: str, part: str) -> bool:
    return unit == part or (len(part) > 1 and part in unit) or (part == "c" and unit in ("celsius", "c"))


def _site_ids(sites: xr.Dataset) -> Iterator[str]:
    if "site" not in sites.dims:
        yield f"dimension site: missing; found only {_listed(sites.sizes)}. One site? Use expand_dims('site')."
        return
    if not sites.sizes["site"]:
        yield "dimension site: the data set holds no site. Did a filter drop them all? See attribute 'history'."
        return
    if "site" not in sites.coords:
        yield "coordinate site: missing; every site needs a unique id. Add assign_coords(site=[...ids...])."
        return
    ids = sites.site.values
    not_text = [i for i in ids if not isinstance(i, str)]
    if not_text:
        yield (
            f"coordinate site: ids must be text, found {type(not_text[0]).__name__} {not_text[0]!r} and "
            f"{len(not_text) - 1} others. Use assign_coords(site=sites.site.astype(str))."
        )
        return
    empty = [i for i in ids if not i.strip()]
    if empty:
        yield f"coordinate site: {len(empty)} of {len(ids)} ids are empty. Give every site an id."
    unique, count = np.unique(ids.astype(str), return_counts=True)
    if np.any(count > 1):
        worst = unique[count > 1][0]
        yield (
            f"site {worst}: the id occurs {count[count > 1][0]} times ({int(np.sum(count > 1))} ids are not unique). "
            "Merge the horizons of one site, or give each sampling its own id."
        )


def _coordinate(sites: xr.Dataset, dim: str) -> Iterator[str]:
    values = sites[dim].values
    if dim == "layer":
        yield from _layer(values)
    elif dim == "month":
        if not _equal(values, np.arange(1, N_MONTHS + 1)):
            hint = "Counted from 0? Add 1." if _equal(values, np.arange(N_MONTHS)) else "Sort by month."
            yield f"coordinate month: expected 1 … 12 in order, found {_listed(values)}. {hint}"
    else:
        expected = LITTER_POOLS if dim == "pool" else NAMES
        if [str(v) for v in values] != list(expected):
            same = sorted(map(str, values)) == sorted(expected)
            hint = f"Reorder: sites.sel({dim}=[...])." if same else "Name them as the model does."
            order = f"expected {_listed(expected, 21)} in this order, found {_listed(values, 21)}"
            yield f"coordinate {dim}: {order}. {hint}"


def _layer(values: np.ndarray) -> Iterator[str]:
    if _equal(values, NODE):
        return
    if _equal(values, NODE[::-1]):
        hint = "Upside down: use isel(layer=slice(None, None, -1)), which turns the variables too."
    elif _equal(values, -NODE) or _equal(values, -NODE[::-1]):
        hint = "Depth counted upward: multiply by -1, then sort by layer."
    elif _equal(np.asarray(values, float) / 100, NODE) if values.dtype.kind in "iuf" else False:
        hint = "In cm? Divide by 100."
    elif _equal(values, np.arange(20)) or _equal(values, np.arange(1, 21)):
        hint = "Layer numbers? Use assign_coords(layer=clm5.grid.NODE)."
    else:
        hint = "Layers of another model? Interpolate to clm5.grid.NODE."
    yield (
        f"coordinate layer: expected CLM5's node depths from {NODE[0]:g} down to {NODE[-1]:g} m, "
        f"found {values[0]} … {values[-1]}. {hint}"
    )


def _equal(values: np.ndarray, expected: np.ndarray) -> bool:
    return values.dtype.kind in "iuf" and np.allclose(values, expected, rtol=1e-5, atol=1e-6)


def _listed(names, most: int = 12) -> str:
    names = [str(name) for name in names]
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "") or "nothing"
