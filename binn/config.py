"""Everything that decides how a network is trained, in one record that travels with it."""

import math
from dataclasses import asdict, dataclass, field, fields

from binn import losses, splits
from binn.network import ACTIVATIONS
from clm5 import ModelOptions


@dataclass(frozen=True)
class Config:
    """How `binn.fit` trains.

    model: the column, the box and the error model, shared with the sampler.
    width, depth: units of a hidden layer, number of hidden layers.
    activation: "silu", "relu", "leaky_relu" (slope 0.3, as published) or "tanh".
    dropout: share of hidden units switched off, in training and in Monte Carlo draws; 0 trains without, and then
        there are no draws.
    learn_temperature: divide logits by a learned number between 10 and 109, as published.
    learning_rate: its peak; it rises over the first 5 % of the steps and falls as a cosine to 5 % of the peak.
    weight_decay: AdamW's, on weight matrices, not on biases.
    gradient_clip: longest gradient (Euclidean) that a step follows.
    batch_size: sites in a step, about: all batches of an epoch have one size.
    epochs: at most so many passes over the training sites.
    patience: stop after so many epochs without a better validation loss; the best weights are kept.
    loss: "likelihood" (the sampler's own), "posterior" (that and its prior) or "smooth_l1" (as published); see
        `binn.losses`.
    split, split_seed: rule of `binn.splits.split` and its seed, apart from the seed of `fit`, so that networks of
        different seeds are judged by the same test sites.
    hide_categories: share of categories hidden in a training batch, which teaches the network "unknown".
    members: independently trained networks of one run, which share the split.
    """

    model: ModelOptions = field(default_factory=ModelOptions)
    width: int = 64
    depth: int = 2
    activation: str = "silu"
    dropout: float = 0.2
    learn_temperature: bool = False
    learning_rate: float = 3e-3
    weight_decay: float = 1e-4
    gradient_clip: float = 1.0
    batch_size: int = 32
    epochs: int = 100
    patience: int = 25
    loss: str = "likelihood"
    split: str = "random"
    split_seed: int = 0
    hide_categories: float = 0.05
    members: int = 1

    def __post_init__(self):
        if not isinstance(self.model, ModelOptions):
            raise ValueError(f"binn.Config: model must be a clm5.ModelOptions, got {type(self.model).__name__}")
        for name in ("width", "depth", "batch_size", "epochs", "patience", "members"):
            value = getattr(self, name)
            if not _is_integer(value) or value < 1:
                raise ValueError(f"binn.Config: {name} must be a whole number, 1 or more, got {value!r}")
        if not _is_integer(self.split_seed) or self.split_seed < 0:
            raise ValueError(f"binn.Config: split_seed must be a whole number, 0 or more, got {self.split_seed!r}")
        for name, lowest_allowed in (("learning_rate", False), ("gradient_clip", False), ("weight_decay", True)):
            value = getattr(self, name)
            if not (0 <= value < math.inf) or (value == 0 and not lowest_allowed):
                least = "0 or more" if lowest_allowed else "above 0"
                raise ValueError(f"binn.Config: {name} must be finite and {least}, got {value!r}")
        for name in ("dropout", "hide_categories"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"binn.Config: {name} must lie in [0, 1), got {getattr(self, name)!r}")
        for name, allowed in (("activation", ACTIVATIONS), ("loss", losses.LOSSES), ("split", splits.RULES)):
            if getattr(self, name) not in allowed:
                raise ValueError(f"binn.Config: {name} must be one of {tuple(allowed)}, got {getattr(self, name)!r}")

    def to_json(self) -> dict:
        """Plain values, for a JSON file."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: dict) -> "Config":
        """The inverse of `to_json`; a field that this version does not know is refused by name."""
        unknown = set(record) - {item.name for item in fields(cls)}
        if unknown:
            raise ValueError(f"binn.Config: this version has no field {', '.join(sorted(unknown))}")
        return cls(**{**record, "model": ModelOptions(**record["model"])})


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
