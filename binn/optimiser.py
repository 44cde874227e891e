"""AdamW, and how its learning rate moves over a training."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import jax
import optax

if TYPE_CHECKING:
    from binn.config import Config

LAST = 0.05  # of the peak, at the end
SCHEDULES: dict[str, Callable[[float, int, int], optax.Schedule]] = {  # of the peak, steps that rise, steps in all
    "cosine": lambda peak, rise, steps: optax.warmup_cosine_decay_schedule(0.0, peak, rise, steps, LAST * peak),
    "exponential": lambda peak, rise, steps: optax.warmup_exponential_decay_schedule(
        0.0, peak, rise, max(1, steps - rise), LAST, end_value=LAST * peak
    ),
    "constant": lambda peak, rise, _: optax.warmup_constant_schedule(0.0, peak, rise),
}


def optimiser(config: "Config", steps: int) -> optax.GradientTransformation:
    """AdamW with gradient clipping; the learning rate rises, then follows `config.schedule` over `steps` steps."""
    schedule = SCHEDULES[config.schedule](config.learning_rate, max(1, steps // 20), max(2, steps))
    matrices = partial(jax.tree.map, lambda leaf: leaf.ndim > 1)
    return optax.chain(
        optax.clip_by_global_norm(config.gradient_clip),
        optax.adamw(schedule, weight_decay=config.weight_decay, mask=matrices),
    )
