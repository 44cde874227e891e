"""Frozen dataclasses that JAX can map over, with checks that run for callers and not for JAX's rebuilds."""

from dataclasses import dataclass, fields
from typing import Any, dataclass_transform

import jax


@dataclass_transform(frozen_default=True)
def pytree[T](cls: type[T]) -> type[T]:
    """Freeze `cls` and register it as a pytree; `__init__` and its checks run only when a caller builds one.

    JAX rebuilds containers around tracers, sentinels and `None`, on which shape checks would fail. A class that derives
    more leaves from its fields in `__post_init__` names them in `_derived`: they travel along, and are no fields.
    """
    frozen: Any = dataclass(frozen=True)(cls)
    names = [*(field.name for field in fields(frozen)), *getattr(frozen, "_derived", ())]

    def rebuild(_, leaves):
        self = object.__new__(frozen)
        self.__dict__.update(zip(names, leaves, strict=True))
        return self

    def take_apart_with_keys(x):
        return [(jax.tree_util.GetAttrKey(n), getattr(x, n)) for n in names], None

    jax.tree_util.register_pytree_with_keys(frozen, take_apart_with_keys, rebuild)
    return frozen
