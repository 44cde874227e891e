"""Large batches a block at a time: what a block's arithmetic leaves behind stays in a core's cache."""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

COLUMNS_PER_BLOCK = {"cpu": 256}  # measured, benchmarks/notes.md
ELSEWHERE = 65536  # an accelerator wants wide batches; this bounds its memory


def _is_solve(primitive, *_, **__) -> bool:
    """What a gradient keeps from its forward pass: solutions. All else is made again, which costs less than memory."""
    return primitive.name == "custom_linear_solve"


def over_devices[T](function: Callable[..., T], *arguments, stacks: tuple[jax.Array, ...]) -> T:
    """`function(shards, *arguments)`, where `shards` is the number of devices that it has to keep busy by itself.

    On a mesh with explicit axes every device runs the function on its own columns (`jax.shard_map`), and results are
    sharded along the batch as the arguments are. With automatic axes XLA divides the work, if it finds blocks that hold
    an equal part of every shard.

    Args:
        function: its results have the batch axes first.
        arguments: trees of arrays.
        stacks: arrays with one axis after the leading ones, which broadcast to the batch; their shardings are read.
    """
    meshes = [mesh for x in stacks if not (mesh := jax.typeof(x).sharding.mesh).empty]
    batch_spec = [None] * max(x.ndim - 1 for x in stacks)
    for array in stacks:
        sharding = jax.typeof(array).sharding
        leading = sharding.spec[: array.ndim - 1]
        for axis, name in enumerate(leading, start=len(batch_spec) - len(leading)):
            batch_spec[axis] = batch_spec[axis] or name
    if not any(batch_spec):
        return function(meshes[0].size if meshes else 1, *arguments)
    return jax.shard_map(
        functools.partial(function, 1),
        mesh=meshes[0],
        in_specs=jax.tree.map(lambda x: jax.typeof(x).sharding.spec, arguments),
        out_specs=PartitionSpec(*batch_spec),
        check_vma=False,
    )(*arguments)


def in_blocks[T](function: Callable[..., T], inputs, batch: tuple[int, ...], shards: int = 1) -> T:
    """`function(inputs)`, for a batch of any size, in blocks of equal size one after the other.

    Args:
        function: takes a tree of arrays and gives one, all with batch axes first; treats every column by itself.
        inputs: arrays with one axis of their own, the last; those before it broadcast against `batch`.
        batch: shape of the batch; small ones, and single columns, are passed as they are.

    With several shards every block has an equal part of each device's columns, if the batch is sharded along its first
    axis: nothing moves between devices.
    """
    n = math.prod(batch)
    shards = shards if n % shards == 0 else 1
    of_shard = n // shards
    n_blocks = -(-of_shard // COLUMNS_PER_BLOCK.get(jax.default_backend(), ELSEWHERE))
    if n_blocks <= 1:
        return function(inputs)
    width = -(-of_shard // n_blocks)  # equal blocks; up to n_blocks − 1 columns are repeated to fill the last

    def split(x):
        flat = jnp.broadcast_to(x, (*batch, x.shape[-1])).reshape(shards, of_shard, x.shape[-1])
        missing = n_blocks * width - of_shard
        filled = jnp.concatenate([flat, flat[:, :missing]], axis=1) if missing else flat
        return filled.reshape(shards, n_blocks, width, x.shape[-1])

    parts = jax.tree.map(split, inputs)

    @functools.partial(jax.checkpoint, prevent_cse=False, policy=_is_solve)
    def block(_, i):
        return None, function(jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, i, axis=1, keepdims=False), parts))

    _, results = jax.lax.scan(block, None, jnp.arange(n_blocks))

    def join(x):
        own = x.shape[3:]
        return jnp.moveaxis(x, 0, 1).reshape(shards, n_blocks * width, *own)[:, :of_shard].reshape(*batch, *own)

    return jax.tree.map(join, results)
