"""Checks of a site data set's values: ranges, columns that the equations cannot solve, horizons, covariates, truth."""

from collections.abc import Iterator

import numpy as np
import xarray as xr

from clm5.grid import DEPTH, INTERFACE, N_LAYERS
from clm5.parameters import BOUNDS, ParameterSpace
from clm5.sites.schema import Variable, covariate_names

THINNEST = 1e-3  # m; a thinner horizon is a slip of the pen
SAME = 1e-6  # m; depths closer than this are the same (float32 keeps them apart no better)
LITTER = (5.0, 3000.0)  # gC m⁻² yr⁻¹, the median over sites: from polar desert to the most productive forest
LEAST_CARBON = 700.0  # gC m⁻³, nine tenths of all horizons of many sites: half of what desert topsoil holds
LEAST_CARBON_OF_FEW, FEW = 100.0, 10  # the same for fewer than ten sites, which may all be desert


def in_range(sites: xr.Dataset, variable: Variable) -> Iterator[str]:
    """Values outside the variable's range; NaN and infinity count as outside, but for a horizon's padding.

    Missing values and wrong ones are reported apart: they have different fixes.
    """
    values = np.asarray(sites[variable.name].values, float)
    missing = np.zeros_like(values, bool) if variable.padded else np.isnan(values)
    unit = "" if variable.unit == "1" else f" {variable.unit}"
    outside = ~np.isnan(values) & ~((values >= variable.lower) & (values <= variable.upper))
    for bad in (missing, outside):
        if bad.any():
            at = tuple(int(i) for i in np.argwhere(bad)[0])
            yield (
                f"site {sites.site.values[at[0]]}: {variable.name} must lie in "
                f"[{variable.lower:g}, {variable.upper:g}]{unit}; {bad.sum()} of {values.size} values "
                f"at {_sites(bad)} of {_counted(len(values), 'site')} do not, first "
                f"{values[at]:g}{_position(variable.dims, at)}. {variable.fix(values[at])}"
            )


def columns(sites: xr.Dataset, usable: set[str]) -> Iterator[str]:
    """Columns that pass variable by variable but that the equations cannot solve, or that contradict themselves."""
    if "bedrock_layer" in usable:
        bedrock = sites.bedrock_layer.values.astype(float)
        with np.errstate(invalid="ignore"):
            yield from _report(
                sites, "bedrock_layer", np.any((bedrock != np.round(bedrock)) & np.isfinite(bedrock), axis=1),
                lambda i: f"must be whole layer numbers 1 … 25, found {bedrock[i][bedrock[i] % 1 != 0][0]:g}",
                "A depth in metres, or an average over grid cells? Take the number of the layer.",
            )  # fmt: skip
            yield from _report(
                sites, "bedrock_layer", np.any(bedrock != bedrock[:, :1], axis=1) & np.isfinite(bedrock).all(axis=1),
                lambda i: f"must be the same in all months, found {bedrock[i].min():g} … {bedrock[i].max():g}",
                "Bedrock does not move: take one month.",
            )  # fmt: skip
    if "soil_temperature" in usable:
        swing = np.ptp(sites.soil_temperature.values, axis=2)
        yield from _report(
            sites, "soil_temperature", swing[:, -1] > swing[:, 0] + 1.0,
            lambda i: f"varies more over the year at the bottom ({swing[i, -1]:.3g} K) than at the top "
            f"({swing[i, 0]:.3g} K)",
            "Layers upside down? Turn the variable along layer.",
        )  # fmt: skip
    if "litter_input" in usable:
        annual = sites.litter_input.values.sum(axis=(1, 2))
        yield from _report(
            sites, "litter_input", annual == 0, lambda i: "is zero in all pools all year, so that there is no carbon",
            "Bare ground, water or ice? Drop the site.",
        )  # fmt: skip
    scalars = ("water_scalar", "oxygen_scalar", "nitrogen_scalar")
    if usable.issuperset((*scalars, "bedrock_layer")):
        depth = np.arange(sites.sizes["layer"])
        soil = depth[None, :] < np.nan_to_num(sites.bedrock_layer.values[:, :1], nan=0.0)
        for name in scalars:
            still = np.all(sites[name].values == 0, axis=2) & soil
            everywhere = np.all(still | ~soil, axis=1) & soil.any(axis=1)
            yield from _report(
                sites, name, everywhere, lambda i: "is zero in all months of every layer: nothing ever decomposes",
                "Ice, rock or water? Drop the site.",
            )  # fmt: skip
            yield from _report(
                sites, name, still.any(axis=1) & ~everywhere,
                lambda i, still=still: f"is zero in all months at layer {np.argmax(still[i])} and {still[i].sum() - 1} "
                "others above bedrock, where carbon then piles up without end",
                "Put a floor under it there (as frozen soil keeps some liquid water; 0.01 is usual).",
            )  # fmt: skip


def horizons(sites: xr.Dataset, usable: set[str], *, observations: bool) -> Iterator[str]:
    """Horizons that are upside down, half padded, too thin, given twice, below the soil, not positive, or not there."""
    if not usable.issuperset(("upper", "lower", "soc")):
        return
    upper, lower, soc = (sites[name].values.astype(float) for name in ("upper", "lower", "soc"))
    present = [np.isfinite(x) for x in (upper, lower, soc)]
    complete, some = np.all(present, axis=0), np.any(present, axis=0)
    half = some & ~complete
    names = np.array(["upper", "lower", "soc"])

    def half_found(i):
        h = int(np.argmax(half[i]))
        gaps = [p[i, h] for p in present]
        return f"horizon {h} has {' and '.join(names[gaps])} but no {' and no '.join(names[~np.array(gaps)])}"

    yield from _report(
        sites, "soc", half.any(axis=1), half_found, "A horizon has all three or NaN in all three: set all to NaN."
    )
    with np.errstate(invalid="ignore"):
        upside_down, zero = lower <= upper, soc == 0

    def upside_down_found(i):
        h = int(np.argmax(upside_down[i]))
        return f"horizon {h} reaches from {upper[i, h]:g} m down to {lower[i, h]:g} m"

    yield from _report(
        sites, "lower", upside_down.any(axis=1), upside_down_found,
        "Upside down: are upper and lower swapped, or depths counted upward?",
    )  # fmt: skip
    yield from _thin_or_twice(sites, upper, lower)
    if "bedrock_layer" in usable:
        yield from _below_the_soil(sites, upper, lower)
    yield from _report(
        sites, "soc", zero.any(axis=1), lambda i: f"is exactly 0 in horizon {int(np.argmax(zero[i]))}",
        "'Below detection'? A logarithmic error needs a positive number: use half the detection limit, or NaN.",
    )  # fmt: skip
    if observations:
        yield from _report(
            sites, "soc", ~complete.any(axis=1), lambda i: "no horizon is complete: the site has no observation",
            "Drop it before training or sampling (or check with observations=False to predict there).",
        )  # fmt: skip


def _thin_or_twice(sites: xr.Dataset, upper: np.ndarray, lower: np.ndarray) -> Iterator[str]:
    with np.errstate(invalid="ignore"):
        thin = (lower > upper) & (lower - upper < THINNEST - SAME)
        same = (np.abs(upper[:, :, None] - upper[:, None, :]) < SAME) & (
            np.abs(lower[:, :, None] - lower[:, None, :]) < SAME
        )  # (site, horizon, horizon)
    twice = np.any(np.triu(same, 1), axis=1)  # horizons that an earlier one equals

    def thin_found(i):
        h = int(np.argmax(thin[i]))
        return f"horizon {h} at {upper[i, h]:g} m is {1e3 * (lower[i, h] - upper[i, h]):.2g} mm thick, less than 1 mm"

    def twice_found(i):
        h = int(np.argmax(twice[i]))
        first = int(np.argmax(same[i, :, h]))
        return f"horizons {first} and {h} both reach from {upper[i, h]:g} to {lower[i, h]:g} m and would count double"

    yield from _report(
        sites, "lower", thin.any(axis=1), thin_found, "In other units? Set it to NaN, or mend its depths."
    )
    yield from _report(
        sites, "upper", twice.any(axis=1), twice_found,
        "Replicates, or two profiles under one id? Keep their mean, or give each its own id.",
    )  # fmt: skip


def _below_the_soil(sites: xr.Dataset, upper: np.ndarray, lower: np.ndarray) -> Iterator[str]:
    """Horizons whose middle lies below bedrock or below the model: it has no carbon there, and ln 0 stops inference."""
    bedrock = np.nan_to_num(sites.bedrock_layer.values[:, 0].astype(float), nan=N_LAYERS)
    number = np.clip(bedrock, 1, N_LAYERS).astype(int)
    bottom = INTERFACE[number - 1]  # m
    with np.errstate(invalid="ignore"):
        below = 0.5 * (upper + lower) > bottom[:, None] + SAME
    model = number == N_LAYERS

    def found(i):
        h = int(np.argmax(below[i]))
        where = "lies" if upper[i, h] >= bottom[i] - SAME else "has its middle"
        end = f"which ends at {DEPTH:g} m" if model[i] else f"which bedrock ends at {bottom[i]:g} m (layer {number[i]})"
        return f"horizon {h} from {upper[i, h]:g} to {lower[i, h]:g} m {where} below the modelled soil, {end}"

    several = below.any(axis=1)
    yield from _report(
        sites, "soc", several & ~model, found,
        "The model has no carbon there: set it to NaN in upper, lower and soc; or is bedrock_layer too shallow?",
    )  # fmt: skip
    yield from _report(
        sites, "soc", several & model, found,
        "The model has no carbon there: set it to NaN in upper, lower and soc; or are its depths in other units?",
    )  # fmt: skip


def magnitudes(sites: xr.Dataset, usable: set[str]) -> Iterator[str]:
    """Numbers that pass one by one but are as a whole of a size that no soil has: another unit under our name."""
    first = f"site {sites.site.values[0]}" + (" and all others" if sites.sizes["site"] > 1 else "")
    if "litter_input" in usable:
        annual = np.median(sites.litter_input.values.sum(axis=(1, 2)))
        if 0 < annual < LITTER[0] * (1 - 1e-3) or LITTER[1] < annual < np.inf:
            hint = (
                "Per second? Multiply by the seconds of the month." if annual < 0.01
                else "In kg? Multiply by 1000." if annual < LITTER[0]
                else "The year's sum in every month, or mg taken for g?"
            )  # fmt: skip
            yield (
                f"{first}: litter_input sums to {annual:.3g} gC m-2 a year at the median site; vegetation yields "
                f"{LITTER[0]:g} … {LITTER[1]:g}. {hint}"
            )
    if "soc" in usable:
        soc = sites.soc.values.astype(float)
        soc = soc[np.isfinite(soc) & (soc > 0)]
        least = LEAST_CARBON if sites.sizes["site"] >= FEW else LEAST_CARBON_OF_FEW
        if soc.size and np.quantile(soc, 0.9) < least:
            yield (
                f"{first}: soc must be gC m-3, but nine tenths of {_counted(soc.size, 'horizon')} lie below "
                f"{np.quantile(soc, 0.9):.3g}; soils hold 1e3 … 1e5. In kg m-3? Multiply by 1000. In percent? Multiply "
                "by bulk density (g cm-3) × 1e4, g/kg by bulk density × 1e3."
            )


def covariates(sites: xr.Dataset) -> Iterator[str]:
    """Covariates that a network could not read."""
    for name in sites.data_vars:
        role = sites[name].attrs.get("role")
        if role is not None and role != "covariate":
            yield f"{name}: role must be 'covariate' or absent, found {role!r}. A misspelling?"
    for name in covariate_names(sites):
        array = sites[name]
        first = f"site {sites.site.values[0]} and all others: covariate {name}"
        if array.dims != ("site",):
            yield f"{first} must have dims (site), found ({', '.join(map(str, array.dims))}). One number a site."
        elif array.dtype.kind == "b":
            yield f"{first} must be numbers, found type bool. Use .astype(int), with units '1'."
        elif array.dtype.kind not in "iuf":
            yield (
                f"{first} must be numbers, found type {array.dtype}. Text categories? Code them as integers "
                "with attributes flag_values and flag_meanings."
            )
        elif "units" not in array.attrs:
            yield f"{first} has no units attribute. Set it ('1' for a category or a ratio)."
        else:
            values = array.values.astype(float)
            allowed = array.attrs.get("missing_values") == "allowed"
            bad = np.isinf(values) if allowed else ~np.isfinite(values)
            yield from _report(
                sites, f"covariate {name}", bad, lambda i, v=values: f"must be finite, found {v[i]:g}",
                "Drop the covariate or the site, fill the gap (and say how in attribute 'history'), or set its "
                "attribute missing_values to 'allowed' and train with missing='impute'.",
            )  # fmt: skip
            if "flag_values" in array.attrs or "flag_meanings" in array.attrs:
                yield from _categories(sites, name, values)


def truth(sites: xr.Dataset) -> Iterator[str]:
    """Known parameters (of virtual sites) that disagree with the box that the data set names."""
    present = [name for name in ("true_theta", "true_unit") if name in sites]
    if not present:
        return
    first = f"site {sites.site.values[0]} and all others"
    for name in present:
        if sites[name].dims != ("site", "parameter"):
            yield f"{first}: {name} must have dims (site, parameter), found ({', '.join(map(str, sites[name].dims))})."
            return
    if sites.attrs.get("bounds") not in BOUNDS:
        yield f"attribute bounds: true parameters need it, one of {BOUNDS}; found {sites.attrs.get('bounds')!r}."
        return
    if "true_unit" in sites:
        unit = sites.true_unit.values
        with np.errstate(invalid="ignore"):
            outside = ~np.all((unit >= 0) & (unit <= 1), axis=1)
        yield from _report(
            sites, "true_unit", outside, lambda i: f"must lie in [0, 1], found {unit[i].min():g} … {unit[i].max():g}",
            "Physical values in the place of unit ones, or the other box's?",
        )  # fmt: skip
        if len(present) == 2 and not outside.any():
            space = ParameterSpace(sites.attrs["bounds"])
            expected = space.lower + unit * (space.upper - space.lower)
            gap = np.abs(sites.true_theta.values - expected) / (space.upper - space.lower)
            yield from _report(
                sites, "true_theta", ~np.all(gap < 1e-5, axis=1),
                lambda i: f"is not what true_unit means in the box {space.bounds!r}: "
                f"{space.names[int(np.argmax(gap[i]))]} is {sites.true_theta.values[i, int(np.argmax(gap[i]))]:g}",
                "Made with the other box? Set attribute bounds.",
            )  # fmt: skip


def _categories(sites: xr.Dataset, name: str, values: np.ndarray) -> Iterator[str]:
    attrs = sites[name].attrs
    flags = np.atleast_1d(np.asarray(attrs.get("flag_values", [])))
    meanings = str(attrs.get("flag_meanings", "")).split()
    if len(flags) == 0 or len(flags) != len(meanings):
        yield (
            f"covariate {name}: a category needs as many flag_values as words in flag_meanings, found {len(flags)} "
            f"and {len(meanings)}. Blanks inside a meaning? Write underscores."
        )
        return
    yield from _report(
        sites, f"covariate {name}", np.isfinite(values) & ~np.isin(values, flags),
        lambda i: f"must be one of flag_values {flags.tolist()}, found {values[i]:g}",
        "A class that the attribute forgot? Add it with its meaning, or recode the site.",
    )  # fmt: skip


def _report(sites: xr.Dataset, name: str, bad: np.ndarray, found, fix: str) -> Iterator[str]:
    """One line when any site is bad: the first such site, what was found there, how many are like it, the fix."""
    if bad.any():
        i = int(np.argmax(bad))
        yield f"site {sites.site.values[i]}: {name} {found(i)}; {int(bad.sum())} of {_counted(len(bad), 'site')}. {fix}"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _sites(bad: np.ndarray) -> int:
    return int(bad.reshape(len(bad), -1).any(axis=1).sum())


def _position(dims: tuple[str, ...], at: tuple[int, ...]) -> str:
    if len(dims) == 1:
        return ""
    return f" at ({', '.join(dims[1:])}) = ({', '.join(map(str, at[1:]))})"
