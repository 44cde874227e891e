"""Site covariates as a matrix: standardised numbers and one-hot categories, fitted on training sites alone."""

import itertools
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float32

from clm5.sites.schema import covariate_names

if TYPE_CHECKING:
    import xarray as xr


MISSING = ("refuse", "impute")


@dataclass(frozen=True)
class Numeric:
    """A number per site: (value − mean) / sd; always 0 where `sd` is 0, as a training constant teaches nothing.

    A missing value (NaN) becomes `fill`, the median of the training sites, and a column of its own says so where some
    training site missed it too (`told`); where `fill` is None it is refused.
    """

    name: str
    units: str
    mean: float
    sd: float
    fill: float | None = None
    told: bool = False

    @property
    def may_miss(self) -> bool:
        """Whether a site without a value is accepted."""
        return self.fill is not None

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the matrix columns that this covariate fills."""
        return (self.name, f"{self.name}=missing") if self.told else (self.name,)

    def encode(self, values: np.ndarray) -> np.ndarray:
        """(site,) in `units` → (site, columns), dimensionless."""
        missing = np.isnan(values)
        values = np.where(missing, self.mean if self.fill is None else self.fill, values)
        number = (values - self.mean) / self.sd if self.sd > 0 else np.zeros_like(values)
        return np.column_stack([number, missing][: len(self.columns)]).astype(float)


@dataclass(frozen=True)
class Categorical:
    """A category per site: one column per value seen in training, and a last one, `unknown`, for every other value.

    Training never contains an unknown value, so that the column would keep its random first weights; training therefore
    hides known categories now and then (`Config.hide_categories`), and the column is learned as "category not told".
    """

    name: str
    units: str
    values: tuple[float, ...]
    meanings: tuple[str, ...]
    group: str = ""  # covariates of one group (attrs["group"]) share their list of values, and an embedding's table
    may_miss: bool = False  # whether a missing value counts as unknown; otherwise it is refused

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the matrix columns that this covariate fills."""
        return (*(f"{self.name}={value:g}" for value in self.values), f"{self.name}=unknown")

    def encode(self, values: np.ndarray) -> np.ndarray:
        """(site,) of flag values → (site, values + 1), each row has a single 1."""
        known = values[:, None] == np.array(self.values)
        return np.column_stack([known, ~known.any(axis=1)]).astype(float)


@dataclass(frozen=True)
class Coordinates:
    """Longitude and latitude as waves: sin and cos of 2π degrees / wavelength. It learns places, not processes.

    Source: Xu et al. (2025): 16 geometric wavelengths from 1e-6 to 360 degrees.
    """

    wavelengths: tuple[float, ...] = tuple(np.geomspace(1e-6, 360.0, 16).tolist())  # degrees

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the matrix columns, 4 per wavelength."""
        waves = itertools.product(("lon", "lat"), ("sin", "cos"), self.wavelengths)
        return tuple(f"{axis} {function} {wavelength:g}°" for axis, function, wavelength in waves)

    def encode(self, lon: np.ndarray, lat: np.ndarray) -> np.ndarray:
        """(site,) in degrees → (site, columns), dimensionless."""
        phases = [2 * np.pi * np.divide.outer(degrees, np.array(self.wavelengths)) for degrees in (lon, lat)]
        return np.concatenate([function(phase) for phase in phases for function in (np.sin, np.cos)], axis=1)


@dataclass(frozen=True)
class Features:
    """How covariates become the columns of a matrix; `Features.fit` learns it, `matrix` applies it."""

    covariates: tuple[Numeric | Categorical, ...]
    coordinates: Coordinates | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the matrix columns, in order."""
        waves = () if self.coordinates is None else self.coordinates.columns
        return (*(column for covariate in self.covariates for column in covariate.columns), *waves)

    @property
    def categories(self) -> tuple[tuple[int, int], ...]:
        """First and one-past-last column of every categorical covariate; the last of them is `unknown`."""
        spans, start = [], 0
        for covariate in self.covariates:
            stop = start + len(covariate.columns)
            if isinstance(covariate, Categorical):
                spans.append((start, stop))
            start = stop
        return tuple(spans)

    @property
    def tables(self) -> tuple[int, ...]:
        """For every entry of `categories` the number of its embedding's table; a group has one."""
        groups = [c.group or f"={c.name}" for c in self.covariates if isinstance(c, Categorical)]
        return tuple(groups.index(group) for group in groups)

    @classmethod
    def fit(
        cls,
        sites: "xr.Dataset",
        training: Bool[np.ndarray, " site"],
        *,
        missing: str = "refuse",
        coordinates: bool = False,
    ) -> "Features":
        """Mean, sd and known categories of the covariates, from the sites where `training` is true and no others.

        Args:
            sites: a site data set.
            training: the sites to learn from.
            missing: "refuse" a site without a value of a covariate, or "impute": the training median for numbers, with
                a column that says so, and "unknown" for categories.
            coordinates: add longitude and latitude as waves, see `Coordinates`.

        Raises:
            ValueError: no covariate, no training site, or a value that is missing and not to be imputed, or infinite.
        """
        if missing not in MISSING:
            raise ValueError(f"Features.fit: missing must be one of {MISSING}, got {missing!r}")
        names = covariate_names(sites)
        if not names:
            raise ValueError(
                "binn: the data set has no covariates, and the network has nothing to predict from. A covariate is a "
                'variable with dims ("site",) and attrs["role"] == "covariate"'
            )
        training = np.asarray(training, dtype=bool)
        if training.shape != (sites.sizes["site"],) or not training.any():
            raise ValueError(
                f"Features.fit: `training` must be a mask over the {sites.sizes['site']} sites with at least one true "
                f"value; got shape {training.shape}, {training.sum()} true"
            )
        groups = _groups(sites, names, training)
        covariates = tuple(_fit_one(sites, name, training, groups, impute=missing == "impute") for name in names)
        return cls(covariates, Coordinates() if coordinates else None)

    def matrix(self, sites: "xr.Dataset") -> Float32[np.ndarray, "site covariate"]:
        """The covariates of `sites` as a matrix, dimensionless, one row per site.

        Raises ValueError that names the covariate where one is absent, in another unit, recoded, or missing a value.
        """
        parts = [covariate.encode(self._values(sites, covariate)) for covariate in self.covariates]
        if self.coordinates is not None:
            parts.append(self.coordinates.encode(np.asarray(sites.lon, float), np.asarray(sites.lat, float)))
        return np.concatenate(parts, axis=1).astype(np.float32)

    def to_json(self) -> list[dict]:
        """Plain lists and numbers, for a JSON file."""
        parts = [*self.covariates, *([] if self.coordinates is None else [self.coordinates])]
        return [{"kind": type(part).__name__, **asdict(part)} for part in parts]

    @classmethod
    def from_json(cls, records: list[dict]) -> "Features":
        """The inverse of `to_json`."""
        kinds: dict[str, type] = {"Numeric": Numeric, "Categorical": Categorical, "Coordinates": Coordinates}
        parts = [
            kinds[record["kind"]](
                **{k: tuple(v) if isinstance(v, list) else v for k, v in record.items() if k != "kind"}
            )
            for record in records
        ]
        waves = [part for part in parts if isinstance(part, Coordinates)]
        return cls(tuple(part for part in parts if not isinstance(part, Coordinates)), waves[0] if waves else None)

    @staticmethod
    def _values(sites: "xr.Dataset", covariate: Numeric | Categorical) -> np.ndarray:
        name = covariate.name
        if name not in sites:
            raise ValueError(
                f"binn: the network was trained with covariate {name} [{covariate.units}], which this data set lacks; "
                f"it has {', '.join(covariate_names(sites)) or 'no covariates'}"
            )
        units = str(sites[name].attrs.get("units", ""))
        if units != covariate.units:
            raise ValueError(
                f"binn: covariate {name} is in {units or 'no unit'!r} here but was in {covariate.units!r} in training; "
                "convert it, or correct attrs['units']"
            )
        if ("flag_values" in sites[name].attrs) != isinstance(covariate, Categorical):
            raise ValueError(
                f"binn: covariate {name} was {'categorical' if isinstance(covariate, Categorical) else 'numeric'} in "
                "training and is not here; attrs['flag_values'] marks a categorical one"
            )
        if isinstance(covariate, Categorical):
            here = _meanings(sites[name])
            for value, meaning in zip(covariate.values, covariate.meanings, strict=True):
                if meaning and here.get(value, meaning) != meaning:
                    raise ValueError(
                        f"binn: category {value:g} of covariate {name} means {here[value]!r} here but meant "
                        f"{meaning!r} in training; recode it"
                    )
        return _numbers(sites, name, may_miss=covariate.may_miss)


def _groups(sites, names, training: np.ndarray) -> dict[str, set[float]]:
    """Group → values that any of its covariates has at a training site; a group has one table of categories."""
    seen: dict[str, set[float]] = {}
    tables: dict[str, tuple[str, dict[float, str]]] = {}
    for name in names:
        group = str(sites[name].attrs.get("group", ""))
        if not group or "flag_values" not in sites[name].attrs:
            continue
        first, table = tables.setdefault(group, (name, _meanings(sites[name])))
        if _meanings(sites[name]) != table:
            raise ValueError(
                f"binn: covariates {first} and {name} are of one group, {group!r}, but their flag_values and "
                "flag_meanings differ; make them alike, or give the covariates groups of their own"
            )
        seen.setdefault(group, set()).update(np.asarray(sites[name].values, float)[training].tolist())
    return seen


def _fit_one(sites, name: str, training: np.ndarray, groups: dict, *, impute: bool) -> Numeric | Categorical:
    values = _numbers(sites, name, may_miss=impute)[training]
    units = str(sites[name].attrs.get("units", ""))
    if "flag_values" in sites[name].attrs:
        meanings = _meanings(sites[name])
        group = str(sites[name].attrs.get("group", ""))
        seen = tuple(sorted(groups.get(group, set(values.tolist())) & set(meanings)))
        return Categorical(name, units, seen, tuple(meanings[value] for value in seen), group, may_miss=impute)
    known = values[~np.isnan(values)]
    if not known.size:
        raise ValueError(f"binn: covariate {name} has no value at any training site; drop it")
    sd = 0.0 if np.ptp(known) == 0 else float(known.std())
    fill = {"fill": float(np.median(known)), "told": known.size < values.size} if impute else {}
    return Numeric(name, units, float(known.mean()), sd, **fill)


def _meanings(variable) -> dict[float, str]:
    """Flag value → its meaning ("" where none is given), of a categorical covariate."""
    flags = np.atleast_1d(variable.attrs["flag_values"]).astype(float).tolist()
    meanings = variable.attrs.get("flag_meanings", "")
    words = meanings.split() if isinstance(meanings, str) else [str(word) for word in meanings]
    return dict(zip(flags, words if len(words) == len(flags) else [""] * len(flags), strict=True))


def _numbers(sites, name: str, *, may_miss: bool) -> np.ndarray:
    values = np.asarray(sites[name].values, dtype=float)
    bad = np.flatnonzero(np.isinf(values) if may_miss else ~np.isfinite(values))
    if bad.size:
        raise ValueError(
            f"site {sites.site.values[bad[0]]}: covariate {name} is {values[bad[0]]}, as at {bad.size} of "
            f"{values.size} sites; the network needs a finite number. Fill the gap, drop the site or the covariate, or "
            'train with missing="impute"'
        )
    return values
