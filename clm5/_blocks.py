"""Large batches a block at a time: what a block's arithmetic leaves behind stays in a core's cache."""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

COLUMNS_PER_BLOCK = {"cpu": 256}  # measured, benchmarks/notes.md
KEPT = "kept for the gradient"  # everything else is made again: cheaper than its way through memory
ELSEWHERE = 65536  # an accelerator wants wide batches; this bounds its memory


def in_blocks[T](function: Callable[..., T], inputs, batch: tuple[int, ...]) -> T:
    """`function(inputs)`, for a batch of any size, in blocks of equal size one after the other.

    Args:
        function: takes a tree of arrays and gives one, all with batch axes first; treats every column by itself.
        inputs: arrays with one axis of their own, the last; those before it broadcast against `batch`.
        batch: shape of the batch; small ones, and single columns, are passed as they are.

    With several devices every block has an equal part of each device's columns, if the batch is sharded along its first
    axis: nothing moves between devices.
    """
    n, shards = math.prod(batch), jax.device_count()
    shards = shards if n % shards == 0 else 1
    of_shard = n // shards
    n_blocks = -(-of_shard // COLUMNS_PER_BLOCK.get(jax.default_backend(), ELSEWHERE))
    if n_blocks <= 1:
        return function(inputs)
    width = -(-of_shard // n_blocks)  # equal blocks; up to n_blocks − 1 columns are repeated to fill the last

    def split(x):
        flat = jnp.broadcast_to(x, (*batch, x.shape[-1])).reshape(shards, of_shard, x.shape[-1])
        filled = jnp.pad(flat, [(0, 0), (0, n_blocks * width - of_shard), (0, 0)], mode="edge")
        return filled.reshape(shards, n_blocks, width, x.shape[-1])

    parts = jax.tree.map(split, inputs)

    @functools.partial(jax.checkpoint, prevent_cse=False, policy=jax.checkpoint_policies.save_only_these_names(KEPT))
    def block(_, i):
        return None, function(jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, i, axis=1, keepdims=False), parts))

    _, results = jax.lax.scan(block, None, jnp.arange(n_blocks))

    def join(x):
        own = x.shape[3:]
        return jnp.moveaxis(x, 0, 1).reshape(shards, n_blocks * width, *own)[:, :of_shard].reshape(*batch, *own)

    return jax.tree.map(join, results)
