"""What one soil column, or a stack of them, receives from climate and vegetation."""

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from clm5._arrays import AnyArray
from clm5._pytree import pytree
from clm5.geometry import site_geometry
from clm5.grid import N_LAYERS, N_MONTHS

if TYPE_CHECKING:
    import xarray as xr

# shape of one column, and which values the equations can use
_COLUMN_SHAPE = {
    "soil_temperature": (N_LAYERS, N_MONTHS),
    "water_scalar": (N_LAYERS, N_MONTHS),
    "oxygen_scalar": (N_LAYERS, N_MONTHS),
    "nitrogen_scalar": (N_LAYERS, N_MONTHS),
    "litter_input": (4, N_MONTHS),
    "active_layer_depth": (N_MONTHS,),
    "active_layer_depth_last_year": (N_MONTHS,),
    "bedrock_layer": (N_MONTHS,),
}


@pytree
class Forcing:
    """Monthly forcing of one soil column, or of any stack of columns along leading axes (model.md §2).

    All fields share their leading axes. `bedrock_layer` is CLM5's 1-based number of the deepest soil layer, the same
    in all months (a site file in which it changes is refused; the core reads the first month).

    What depends on the site alone (`geometry`: transport, bedrock, where litter enters) is computed here, once, and
    travels with the object through `jit`, `vmap` and indexing. So a derivative with respect to a whole `Forcing` shows
    that of the active layer's depth under `geometry`; to differentiate through the depth, build the Forcing inside the
    function that is differentiated.
    """

    soil_temperature: Float[AnyArray, "*column layer month"]  # K
    water_scalar: Float[AnyArray, "*column layer month"]  # 1, in [0, 1]
    oxygen_scalar: Float[AnyArray, "*column layer month"]  # 1, in [0, 1]
    nitrogen_scalar: Float[AnyArray, "*column layer month"]  # 1, in [0, 1]
    litter_input: Float[AnyArray, "*column litter month"]  # gC m⁻² month⁻¹: cwd, litter1, litter2, litter3
    active_layer_depth: Float[AnyArray, "*column month"]  # m
    active_layer_depth_last_year: Float[AnyArray, "*column month"]  # m
    bedrock_layer: Float[AnyArray, "*column month"]  # 1-based layer number

    _derived = ("geometry",)

    @property
    def geometry(self) -> dict[str, Float[AnyArray, "*column value"]]:
        """What the site alone decides, per rule set (see `clm5.geometry`)."""
        return self.__dict__["geometry"]

    def __post_init__(self):
        self._check_shapes()
        depths = (self.active_layer_depth, self.active_layer_depth_last_year)
        self.__dict__["geometry"] = site_geometry(*depths, self.bedrock_layer)

    def _check_shapes(self) -> None:  # they are known even under `jit`
        stacks = set()
        for name, expected in _COLUMN_SHAPE.items():
            shape = np.shape(getattr(self, name))
            if shape[-len(expected) :] != expected:
                raise ValueError(
                    f"Forcing: {name} must have shape (..., {', '.join(map(str, expected))}), got {shape}. "
                    "Are layer and month swapped?"
                )
            stacks.add(shape[: len(shape) - len(expected)])
        if len(stacks) > 1:
            raise ValueError(f"Forcing: all fields must share their leading axes, got {sorted(stacks)}")

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """The leading axes: () for one column."""
        return np.shape(self.bedrock_layer)[:-1]

    @property
    def annual_litter_input(self) -> Float[Array, "*column litter"]:
        """Carbon input of cwd, litter1, litter2, litter3, gC m⁻² yr⁻¹: the sum of the months."""
        return jnp.sum(self.litter_input, axis=-1)

    def __getitem__(self, index) -> "Forcing":
        """Select columns of a stack: `forcing[3]`, `forcing[:10]`."""
        if not self.batch_shape:
            raise IndexError("Forcing: this is a single column; there is nothing to index")
        chosen = jax.tree.map(lambda leaf: leaf[index], self)
        chosen._check_shapes()
        return chosen

    @classmethod
    def from_sites(cls, sites: "xr.Dataset", dtype=None) -> "Forcing":
        """The forcing of every site of a site data set, shape (site, ...); missing variables are refused by name."""
        missing = [name for name in _COLUMN_SHAPE if name not in sites]
        if missing:
            raise ValueError(
                f"Forcing.from_sites: the data set lacks {', '.join(missing)}; a site data set has all of "
                f"{', '.join(_COLUMN_SHAPE)} (see clm5.sites)"
            )
        axes = {(20, 12): ("layer", "month"), (4, 12): ("pool", "month"), (12,): ("month",)}
        return cls(
            **{
                name: jnp.asarray(sites[name].transpose("site", *axes[shape]).values, dtype=dtype or float)
                for name, shape in _COLUMN_SHAPE.items()
            }
        )
