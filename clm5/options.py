"""The choices that a result depends on, declared once and carried by every file that is written."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from clm5.parameters import BOUNDS, ParameterSpace

RULES = ("conservative", "proda", "binn")
OPERATORS = ("horizon", "linear", "pchip")
ERRORS = ("lognormal", "proda")


@dataclass(frozen=True)
class ModelOptions:
    """What both ways of inference share: the box, the column's rules, and how data and model are compared.

    bounds: which published box the parameters live in, "binn" or "proda".
    rules: rule set of the column, "conservative", "proda" or "binn" (model of transport at bedrock, frozen columns).
    operator: from the layered profile to a measured horizon: "horizon" mean, or "linear", "pchip" at mid depth.
    error: "lognormal": ln(observed) ~ Normal(ln(modelled), sigma); "proda": observed ~ Normal(modelled,
        sigma · observed) with PRODA's layer weights.
    sigma: the scale of that error, dimensionless. PRODA used 0.6.
    """

    bounds: str = "binn"
    rules: str = "conservative"
    operator: str = "horizon"
    error: str = "lognormal"
    sigma: float = 0.2

    def __post_init__(self):
        for name, allowed in (("bounds", BOUNDS), ("rules", RULES), ("operator", OPERATORS), ("error", ERRORS)):
            if getattr(self, name) not in allowed:
                raise ValueError(f"ModelOptions: {name} must be one of {allowed}, got {getattr(self, name)!r}")
        if not 0 < self.sigma < float("inf"):
            raise ValueError(f"ModelOptions: sigma must be positive and finite, got {self.sigma!r}")

    @property
    def space(self) -> ParameterSpace:
        """The parameter space of these bounds."""
        return ParameterSpace(self.bounds)

    def as_attributes(self) -> dict[str, str | float]:
        """Plain attributes for a file."""
        return asdict(self)

    @classmethod
    def from_attributes(cls, attrs: Mapping[Any, Any], what: str = "the file") -> "ModelOptions":
        """Those of a file, from what `as_attributes` gave it.

        Args:
            attrs: attributes of the file; others than the options are not read.
            what: the file, for the message.

        Raises:
            ValueError: an option that is missing (named) or unknown.
        """
        names = [field.name for field in fields(cls)]
        missing = [name for name in names if name not in attrs]
        if missing:
            raise ValueError(f"{what} does not say its {', '.join(missing)}")
        chosen: dict[str, Any] = {name: str(attrs[name]) for name in names} | {"sigma": float(attrs["sigma"])}
        return cls(**chosen)
