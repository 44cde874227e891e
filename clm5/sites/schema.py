"""What a site data set must hold: one table of variables, the units they may be written in, and a fingerprint.

Every reader turns its source into this schema, and everything else reads only this schema. Beside the table, a data set
may hold covariates: variables over sites with the attributes `role` ("covariate"), `units` and, when categorical,
`flag_values` and `flag_meanings`. `missing_values` = "allowed" lets one have gaps (for training with missing="impute").
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import xarray as xr

from clm5.grid import LITTER_POOLS, N_LAYERS, N_MONTHS
from clm5.parameters import NAMES

# Spellings of one unit that mean the same number; the first is ours (UDUNITS, as CF asks).
UNIT_SPELLINGS = {
    "K": ("K", "kelvin", "Kelvin", "degK", "degree_kelvin"),
    "1": ("1", "", "-", "unitless", "dimensionless", "fraction"),
    "m": ("m", "meter", "metre", "meters", "metres"),
    "gC m-2 month-1": ("gC m-2 month-1", "g m-2 month-1", "gC/m2/month", "gC/m^2/month", "gC m^-2 month^-1"),
    "gC m-3": ("gC m-3", "g m-3", "gC/m3", "gC/m^3", "gC m^-3"),
    "degrees_east": ("degrees_east", "degree_east", "degrees_E", "degree_E", "degreesE", "degreeE"),
    "degrees_north": ("degrees_north", "degree_north", "degrees_N", "degree_N", "degreesN", "degreeN"),
}


@dataclass(frozen=True)
class Variable:
    """One required variable: its axes, its unit and the values that the equations can use.

    `hints` are tried in order, (smallest, largest, text): the first whose interval holds the value that was found
    names the likely fix; `hint` is the fix when none does. `padded` variables may hold NaN as padding.
    """

    name: str
    dims: tuple[str, ...]
    unit: str
    lower: float
    upper: float
    meaning: str
    hint: str = ""
    hints: tuple[tuple[float, float, str], ...] = ()
    wrong_units: tuple[tuple[str, str], ...] = ()
    padded: bool = False

    def fix(self, value: float) -> str:
        """The likely fix for a value outside the range."""
        if np.isnan(value):
            return "Fill the gap from the source, or drop the site."
        if np.isinf(value):
            return "A division by zero or an overflow in the reader? Recompute it, or drop the site."
        return next((text for low, high, text in self.hints if low <= value <= high), self.hint)


_COLUMN, _MONTHS, _HORIZON = ("site", "layer", "month"), ("site", "month"), ("site", "horizon")
_CELSIUS = (
    ("c", "In °C? Add 273.15 and set units to 'K'."),
    ("f", "In °F? Add 459.67, multiply by 5/9 and set units to 'K'."),
)
_PERCENT = (("%", "In percent? Divide by 100 and set units to '1'."), ("percent", "In percent? Divide by 100."))
_DEPTH_UNITS = (
    ("cm", "In cm? Divide by 100 and set units to 'm'."),
    ("centi", "In cm? Divide by 100 and set units to 'm'."),
    ("mm", "In mm? Divide by 1000 and set units to 'm'."),
)
_SCALAR_HINTS = ((1.0, 100.0, "In percent? Divide by 100."), (-9e99, 0.0, "A fill value read as a number? Mask it."))
_DEPTH_HINTS = (
    (-20.0, 0.0, "Depth counted upward? Depths are positive, from the surface down: take the absolute value."),
    (20.0, 9e3, "In cm? Divide by 100."),
)
_LITTER_UNITS = (
    ("s-1", "Per second? Multiply by the seconds of the month."),
    ("/s", "Per second? Multiply by the seconds of the month."),
    ("yr", "Per year? Spread it over the 12 months."),
    ("year", "Per year? Spread it over the 12 months."),
    ("m-3", "Per volume? Multiply by the layer thickness and sum over the layers."),
    ("kg", "In kg? Multiply by 1000."),
)

# fmt: off
VARIABLES = (
    Variable("lon", ("site",), "degrees_east", -180, 180, "longitude",
             "Not degrees, or a fill value?", ((180, 360, "Counted 0…360? Subtract 360 above 180."),)),
    Variable("lat", ("site",), "degrees_north", -90, 90, "latitude",
             "lon and lat swapped?"),
    Variable("soil_temperature", _COLUMN, "K", 200, 340, "soil temperature, monthly mean (TSOI)",
             "A fill value read as a number? Mask it.",
             ((-60, 45, "In °C? Add 273.15. (In °F? Add 459.67, then multiply by 5/9.)"),
              (45, 150, "In °F? Add 459.67, then multiply by 5/9.")), _CELSIUS),
    Variable("water_scalar", _COLUMN, "1", 0, 1, "decomposition's water scalar (W_SCALAR)",
             "Is this the scalar, not a water content?", _SCALAR_HINTS, _PERCENT),
    Variable("oxygen_scalar", _COLUMN, "1", 0, 1, "decomposition's oxygen scalar (O_SCALAR)",
             "Is this the scalar, not a concentration?", _SCALAR_HINTS, _PERCENT),
    Variable("nitrogen_scalar", _COLUMN, "1", 0, 1, "decomposition's nitrogen scalar (FPI_vr)",
             "Is this the scalar, not a concentration?", _SCALAR_HINTS, _PERCENT),
    Variable("litter_input", ("site", "pool", "month"), "gC m-2 month-1", 0, 3000, "carbon input of each litter pool",
             "More than any vegetation yields in a month: annual sums, or kg m-2 taken for g m-2?",
             ((-9e99, 0, "Negative litter input: a net flux taken for the input, or a sign turned in the reader?"),),
             _LITTER_UNITS),
    Variable("active_layer_depth", _MONTHS, "m", 0, 50, "thaw depth, the year's maximum so far (ALTMAX)",
             "In cm? Divide by 100.", ((-9e99, 0, "A fill value, or depth counted upward?"),), _DEPTH_UNITS),
    Variable("active_layer_depth_last_year", _MONTHS, "m", 0, 50, "thaw depth, last year's maximum (ALTMAX_LASTYEAR)",
             "In cm? Divide by 100.", ((-9e99, 0, "A fill value, or depth counted upward?"),), _DEPTH_UNITS),
    Variable("bedrock_layer", _MONTHS, "1", 1, 25, "number of the deepest soil layer, counted from 1 (nbedrock)",
             "A depth in metres taken for a layer number?", ((0, 0, "Counted from 0? Add 1."),)),
    Variable("upper", _HORIZON, "m", 0, 20, "upper face of a horizon",
             "A fill value? Padding is NaN.", _DEPTH_HINTS, _DEPTH_UNITS, padded=True),
    Variable("lower", _HORIZON, "m", 0, 20, "lower face of a horizon",
             "A fill value? Padding is NaN.", _DEPTH_HINTS, _DEPTH_UNITS, padded=True),
    Variable("soc", _HORIZON, "gC m-3", 0, 1e6, "measured soil organic carbon",
             "More than pure organic soil holds: mg/kg or g/m2 taken for g/m3?",
             ((-9e99, 0, "Negative soil carbon: a fill value, or 'below detection' coded as a negative number? "
                         "Set it to NaN in upper, lower and soc."),),
             (("%", "Percent by mass? Multiply by bulk density (g cm-3) × 1e4 × (1 − coarse fragments)."),
              ("kg m-3", "Multiply by 1000."), ("g/kg", "Multiply by bulk density (g cm-3) × 1e3."),
              ("g kg-1", "Multiply by bulk density (g cm-3) × 1e3.")), padded=True),
)
# fmt: on
BY_NAME = {variable.name: variable for variable in VARIABLES}
FORCING = tuple(v.name for v in VARIABLES if v.dims in (_COLUMN, _MONTHS) or v.name == "litter_input")
SIZES = {"layer": N_LAYERS, "month": N_MONTHS, "pool": len(LITTER_POOLS), "parameter": len(NAMES)}


def same_unit(found: str, expected: str) -> bool:
    """Whether two spellings mean the same unit, so that no number has to change."""
    return str(found).strip() in UNIT_SPELLINGS.get(expected, (expected,))


def covariate_names(sites: xr.Dataset) -> list[str]:
    """Names of the variables with `role == "covariate"`, in the order of the data set."""
    return [str(name) for name in sites.data_vars if sites[name].attrs.get("role") == "covariate"]


BLOCK = 8192  # sites that are read together, where not all are


def fingerprint(sites: xr.Dataset) -> str:
    """SHA-256, as hex, of all variables and coordinates: names, axes, shapes and values.

    Numbers count by value (float32 data and the same data as float64 agree), every NaN counts as the same NaN, and
    attributes do not count: neither their order nor a trip through a file changes the result.
    """
    digest = hashlib.sha256()
    for name in sorted(map(str, sites.variables)):
        variable = sites.variables[name]
        digest.update(repr((name, tuple(map(str, variable.dims)), variable.shape)).encode())
        rows = len(variable) if variable.ndim else 0
        for start in range(0, rows, BLOCK) if rows else [None]:  # a file that is larger than memory is read in pieces
            piece = variable if start is None else variable[start : start + BLOCK]
            for part in _canonical_bytes(np.asarray(piece.values)):
                digest.update(part)
    return digest.hexdigest()


def _canonical_bytes(values: np.ndarray) -> Iterator[bytes]:
    if values.dtype.kind in "biufc":
        values = values.astype("<f8")
        values = np.where(np.isnan(values), np.nan, values) + 0.0  # one NaN, one zero
        yield values.astype("<f8").tobytes()
    else:
        for text in values.ravel():
            encoded = str(text).encode()
            yield len(encoded).to_bytes(8, "little") + encoded
