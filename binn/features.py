"""Site covariates as a matrix: standardised numbers and one-hot categories, fitted on training sites alone."""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float32

from clm5.sites.schema import covariate_names

if TYPE_CHECKING:
    import xarray as xr


@dataclass(frozen=True)
class Numeric:
    """A number per site: (value − mean) / sd; always 0 where `sd` is 0, as a training constant teaches nothing."""

    name: str
    units: str
    mean: float
    sd: float

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the matrix columns that this covariate fills."""
        return (self.name,)

    def encode(self, values: np.ndarray) -> np.ndarray:
        """(site,) in `units` → (site, 1), dimensionless."""
        return ((values - self.mean) / self.sd if self.sd > 0 else np.zeros_like(values))[:, None]


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

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the matrix columns that this covariate fills."""
        return (*(f"{self.name}={value:g}" for value in self.values), f"{self.name}=unknown")

    def encode(self, values: np.ndarray) -> np.ndarray:
        """(site,) of flag values → (site, values + 1), each row has a single 1."""
        known = values[:, None] == np.array(self.values)
        return np.column_stack([known, ~known.any(axis=1)]).astype(float)


@dataclass(frozen=True)
class Features:
    """How covariates become the columns of a matrix; `Features.fit` learns it, `matrix` applies it."""

    covariates: tuple[Numeric | Categorical, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the matrix columns, in order."""
        return tuple(column for covariate in self.covariates for column in covariate.columns)

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

    @classmethod
    def fit(cls, sites: "xr.Dataset", training: Bool[np.ndarray, " site"]) -> "Features":
        """Mean, sd and known categories of the covariates, from the sites where `training` is true and no others.

        Raises ValueError where there is no covariate, no training site, or a value is missing.
        """
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
        return cls(tuple(_fit_one(sites, name, training) for name in names))

    def matrix(self, sites: "xr.Dataset") -> Float32[np.ndarray, "site covariate"]:
        """The covariates of `sites` as a matrix, dimensionless, one row per site.

        Raises ValueError that names the covariate where one is absent, in another unit, recoded, or missing a value.
        """
        return np.concatenate(
            [covariate.encode(self._values(sites, covariate)) for covariate in self.covariates], axis=1
        ).astype(np.float32)

    def to_json(self) -> list[dict]:
        """Plain lists and numbers, for a JSON file."""
        return [{"kind": type(covariate).__name__, **asdict(covariate)} for covariate in self.covariates]

    @classmethod
    def from_json(cls, records: list[dict]) -> "Features":
        """The inverse of `to_json`."""
        kinds = {"Numeric": Numeric, "Categorical": Categorical}
        return cls(
            tuple(
                kinds[record["kind"]](
                    **{k: tuple(v) if isinstance(v, list) else v for k, v in record.items() if k != "kind"}
                )
                for record in records
            )
        )

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
        return _finite(sites, name)


def _fit_one(sites, name: str, training: np.ndarray) -> Numeric | Categorical:
    values = _finite(sites, name)[training]
    units = str(sites[name].attrs.get("units", ""))
    if "flag_values" in sites[name].attrs:
        meanings = _meanings(sites[name])
        seen = tuple(sorted(set(values.tolist()) & set(meanings)))
        return Categorical(name, units, seen, tuple(meanings[value] for value in seen))
    constant = np.ptp(values) == 0
    return Numeric(name, units, float(values.mean()), 0.0 if constant else float(values.std()))


def _meanings(variable) -> dict[float, str]:
    """Flag value → its meaning ("" where none is given), of a categorical covariate."""
    flags = np.atleast_1d(variable.attrs["flag_values"]).astype(float).tolist()
    meanings = variable.attrs.get("flag_meanings", "")
    words = meanings.split() if isinstance(meanings, str) else [str(word) for word in meanings]
    return dict(zip(flags, words if len(words) == len(flags) else [""] * len(flags), strict=True))


def _finite(sites, name: str) -> np.ndarray:
    values = np.asarray(sites[name].values, dtype=float)
    bad = np.flatnonzero(~np.isfinite(values))
    if bad.size:
        raise ValueError(
            f"site {sites.site.values[bad[0]]}: covariate {name} is {values[bad[0]]}, as at {bad.size} of "
            f"{values.size} sites; the network needs a finite number. Fill the gap, or drop the site or the covariate"
        )
    return values
