"""Everything that decides how a network is trained, in one record that travels with it."""

import json
import math
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np
from jaxtyping import Float

from binn import losses, splits
from binn.features import MISSING
from binn.network import ACTIVATIONS, CONSTRAINTS, NORMS
from binn.optimiser import SCHEDULES
from clm5 import ModelOptions
from clm5.parameters import INDEX, NAMES, PARAMETERS, chosen

GRADIENTS = ("plain", "gauss_newton")


@dataclass(frozen=True)
class Config:
    """How `binn.fit` trains.

    model: the column, the box and the error model, shared with the sampler.
    width, depth: units of a hidden layer, number of hidden layers; 0 layers make a linear model of the inputs.
    curves: give every number as so many hat functions too (linear B-splines within ± 2.5 sd), so that the first layer
        sums a learned curve of each; with depth 0 the network is an additive model behind the constraint.
    activation: "silu", "relu", "leaky_relu" (slope 0.3, as published) or "tanh".
    dropout: share of hidden units switched off, in training and in Monte Carlo draws; 0 trains without, and then
        there are no draws.
    learn_dropout: learn the share of every hidden layer, from `dropout` on (concrete dropout, Gal et al. 2017).
    norm: "none", "batch" (as published; Monte Carlo draws use the statistics of the training) or "layer".
    residual: add a hidden layer's input to its output.
    constraint: from logits to the unit cube, "sigmoid" or "hard_sigmoid".
    embedding: learned numbers per category, 5 as published; 0: one column per category.
    parameters: names of the free parameters, in the order of `clm5.NAMES`; or "all", or the published "4", "5", "16".
    held: values of parameters that are not free, physical, as pairs (name, value). Others are held at CLM5's value, or
        in the middle of the box where that has none or lies outside.
    learn_temperature: divide logits by a learned number between 10 and 109, as published.
    learning_rate: its peak; it rises over the first 5 % of the steps.
    schedule: and then falls to 5 % of the peak as a "cosine" or an "exponential", or stays "constant".
    weight_decay: AdamW's, on weight matrices, not on biases.
    gradient: "plain", or "gauss_newton": every site's gradient by its own parameters is preconditioned by what its
        carbon tells of them: for a few free parameters that carbon tells far apart, see `binn.recover`.
    gradient_clip: longest gradient (Euclidean) that a step follows.
    batch_size: sites in a step, about: all batches of an epoch have one size.
    epochs: at most so many passes over the training sites.
    patience: stop after so many epochs without a better validation loss; the best weights are kept.
    loss: "likelihood" (the sampler's own), "posterior" (that and its prior), "smooth_l1" (as published) or
        "log_smooth_l1", see `binn.losses`; or, for a network that answers a distribution of the parameters, "elbo" or
        "simulation", see `binn.amortised`.
    profile: the network also reads the site's forcing and its measured profile; for "elbo" and "simulation", where the
        answer is then the posterior of that site.
    folds, fold: how many parts a split by folds or bands has, and which of them is the test set.
    horizon_weights: "equal", "thickness" or "proda", see `binn.losses`.
    missing: what becomes of a covariate without a value: "refuse", or "impute" (see `binn.Features`).
    coordinates: give the network the site's place as waves; it learns the place instead of the process.
    split, split_seed: rule of `binn.splits.split` and its seed, apart from the seed of `fit`, so that networks of
        different seeds are judged by the same test sites.
    hide_categories: share of categories hidden in a training batch, which teaches the network "unknown".
    members: independently trained networks of one run, which share the split.
    sites_in_memory: training sites held in memory at a time, for site files larger than memory (`clm5.sites.open(path,
        lazy=True)`); 0: all.
    """

    model: ModelOptions = field(default_factory=ModelOptions)
    width: int = 64
    depth: int = 2
    curves: int = 0
    activation: str = "silu"
    dropout: float = 0.2
    learn_dropout: bool = False
    norm: str = "none"
    residual: bool = False
    constraint: str = "sigmoid"
    embedding: int = 0
    parameters: tuple[str, ...] | str = "all"
    held: tuple[tuple[str, float], ...] = ()
    learn_temperature: bool = False
    learning_rate: float = 3e-3
    schedule: str = "cosine"
    weight_decay: float = 1e-4
    gradient: str = "plain"
    gradient_clip: float = 1.0
    batch_size: int = 32
    epochs: int = 100
    patience: int = 25
    loss: str = "likelihood"
    profile: bool = False
    horizon_weights: str = "equal"
    missing: str = "refuse"
    coordinates: bool = False
    split: str = "random"
    split_seed: int = 0
    folds: int = 10
    fold: int = 0
    hide_categories: float = 0.05
    members: int = 1
    sites_in_memory: int = 0

    def __post_init__(self):
        if not isinstance(self.model, ModelOptions):
            raise ValueError(f"binn.Config: model must be a clm5.ModelOptions, got {type(self.model).__name__}")
        lowest = dict.fromkeys(("width", "batch_size", "epochs", "patience", "members"), 1)
        for name, least in (
            lowest
            | {"split_seed": 0, "depth": 0, "curves": 0, "embedding": 0, "fold": 0, "folds": 2, "sites_in_memory": 0}
        ).items():
            value = getattr(self, name)
            if not _is_integer(value) or value < least:
                raise ValueError(f"binn.Config: {name} must be a whole number, {least} or more, got {value!r}")
        if self.fold >= self.folds:
            raise ValueError(f"binn.Config: fold counts from 0 and must be below folds = {self.folds}, got {self.fold}")
        for name, lowest_allowed in (("learning_rate", False), ("gradient_clip", False), ("weight_decay", True)):
            value = getattr(self, name)
            if not (0 <= value < math.inf) or (value == 0 and not lowest_allowed):
                least = "0 or more" if lowest_allowed else "above 0"
                raise ValueError(f"binn.Config: {name} must be finite and {least}, got {value!r}")
        for name in ("dropout", "hide_categories"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"binn.Config: {name} must lie in [0, 1), got {getattr(self, name)!r}")
        choices = {
            "activation": ACTIVATIONS,
            "norm": NORMS,
            "constraint": CONSTRAINTS,
            "loss": losses.ALL_LOSSES,
            "schedule": SCHEDULES,
            "gradient": GRADIENTS,
            "horizon_weights": losses.WEIGHTS,
            "missing": MISSING,
            "split": splits.RULES,
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"binn.Config: {name} must be one of {tuple(allowed)}, got {getattr(self, name)!r}")

        self._check_pairs()
        object.__setattr__(self, "parameters", chosen(self.parameters, "binn.Config"))
        object.__setattr__(self, "held", tuple((str(name), float(value)) for name, value in self.held))
        for name, value in self.held:
            if name not in NAMES or name in self.parameters:
                raise ValueError(f"binn.Config: held names a parameter that is not free; got {name!r}")
            low, high = (float(bound[INDEX[name]]) for bound in (self.model.space.lower, self.model.space.upper))
            if not low <= value <= high:
                raise ValueError(
                    f"binn.Config: held {name} must lie in the {self.model.bounds} bounds, {low:g} to {high:g}, "
                    f"got {value:g}"
                )

    def _check_pairs(self) -> None:
        """Choices that are right alone and wrong together."""
        distribution = self.loss in losses.DISTRIBUTIONS
        if self.curves == 1:
            raise ValueError("binn.Config: curves must be 0, or at least 2 hat functions, got 1")
        if self.depth == 0 and self.dropout > 0:
            raise ValueError(
                f"binn.Config: dropout follows hidden layers; with depth 0 it must be 0, got {self.dropout!r}"
            )
        if self.learn_dropout and self.dropout == 0:
            raise ValueError("binn.Config: learn_dropout starts from dropout, which must be above 0, got 0")
        if self.learn_dropout and self.norm != "none":
            raise ValueError(
                "binn.Config: learn_dropout weighs rates against the size of weights, which mean nothing before a "
                f'normalisation; use norm="none", got {self.norm!r}'
            )
        if self.learn_dropout and self.loss not in ("likelihood", "posterior"):
            raise ValueError(
                "binn.Config: learn_dropout weighs a loss in nats against the cost of a rate: loss must be "
                f'"likelihood" or "posterior", got {self.loss!r}'
            )
        if self.gradient == "gauss_newton" and (self.loss != "likelihood" or self.learn_dropout):
            raise ValueError(
                'binn.Config: gradient "gauss_newton" is that of loss "likelihood" with a given dropout rate, got loss '
                f"{self.loss!r}, learn_dropout {self.learn_dropout}"
            )
        if self.profile and not distribution:
            raise ValueError(
                f"binn.Config: profile is for loss = {' or '.join(losses.DISTRIBUTIONS)}; with {self.loss!r} the "
                "network would be judged by the carbon that it is given"
            )
        if self.loss == "simulation" and not self.profile:
            raise ValueError('binn.Config: loss "simulation" needs profile=True; without profiles it learns the prior')
        if self.loss == "simulation" and self.horizon_weights != "equal":
            raise ValueError(
                'binn.Config: loss "simulation" draws every horizon from the error model, which knows no weights; '
                f'use horizon_weights="equal" or loss="elbo", got {self.horizon_weights!r}'
            )
        if self.loss == "simulation" and self.model.error == "proda":
            raise ValueError(
                'binn.Config: loss "simulation" needs an error model that can be drawn from; "proda" weighs its '
                'horizons, which no measurement follows. Use loss="elbo" or error="lognormal"'
            )
        if distribution and (self.constraint != "sigmoid" or self.learn_temperature):
            raise ValueError(
                f"binn.Config: with loss {self.loss!r} the network answers on the probit scale; leave constraint and "
                "learn_temperature as they are by default"
            )
        if 0 < self.sites_in_memory < self.batch_size:
            raise ValueError(
                f"binn.Config: sites_in_memory must be 0 or at least batch_size = {self.batch_size}, got "
                f"{self.sites_in_memory}"
            )

    @classmethod
    def published(cls, **changes: Any) -> "Config":
        """The network of Xu et al. (2025): three layers of 128, batch norm, leaky ReLU, embeddings, a temperature.

        Changes are fields of `Config`. The loss stays the sampler's; theirs is `loss="smooth_l1"`.
        """
        theirs = {
            "width": 128,
            "depth": 3,
            "activation": "leaky_relu",
            "norm": "batch",
            "embedding": 5,
            "dropout": 0.3,
            "learn_temperature": True,
            "learning_rate": 1e-3,
        }
        return cls(**{**theirs, **changes})

    def held_unit(self) -> Float[np.ndarray, "21"]:
        """Unit values at which parameters are held that are not free; those of free ones are not used."""
        space = self.model.space
        value = 0.5 * (np.asarray(space.lower) + np.asarray(space.upper))
        for i, parameter in enumerate(PARAMETERS):
            if parameter.default is not None and space.lower[i] <= parameter.default <= space.upper[i]:
                value[i] = parameter.default
        for name, held in self.held:
            value[INDEX[name]] = held
        return np.asarray((value - np.asarray(space.lower)) / (np.asarray(space.upper) - np.asarray(space.lower)))

    def to_json(self) -> dict:
        """Plain values as a JSON file gives them back: lists, not tuples."""
        return json.loads(json.dumps(asdict(self)))

    @classmethod
    def from_json(cls, record: dict) -> "Config":
        """The inverse of `to_json`; a field that this version does not know is refused by name."""
        unknown = set(record) - {item.name for item in fields(cls)}
        if unknown:
            raise ValueError(f"binn.Config: this version has no field {', '.join(sorted(unknown))}")
        record = {**record, "model": ModelOptions(**record["model"])}
        for name in ("parameters", "held"):  # lists in JSON
            if not isinstance(record.get(name, ""), str):
                record[name] = tuple(tuple(item) if isinstance(item, list) else item for item in record[name])
        return cls(**record)


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
