# %% [markdown]
# # One soil column
# Carbon with depth at one virtual site, and what three parameters do to it. A jupytext notebook: open it in Jupyter, or
# run it as a script (`uv run python notebooks/the_column.py`), which writes `the_column.png`.

# %%
import jax
import numpy as np
from matplotlib.figure import Figure

import clm5

jax.config.update("jax_enable_x64", True)
sites = clm5.sites.virtual(20, seed=0)
forcing = clm5.Forcing.from_sites(sites)[0]
theta = sites.true_theta.values[0]
space = clm5.ParameterSpace("binn")

# %% [markdown]
# Each parameter moves over the middle 80 % of its box, the others stay at the site's truth.

# %%
figure = Figure(figsize=(9, 4), layout="constrained")
panels = figure.subplots(1, 3, sharey=True, sharex=True)
for panel, name in zip(panels, ("efolding", "tau4s3", "w_scaling"), strict=True):
    i = clm5.NAMES.index(name)
    for share in (0.1, 0.5, 0.9):
        moved = theta.copy()
        moved[i] = space.lower[i] + share * (space.upper[i] - space.lower[i])
        soc = np.asarray(clm5.simulate(moved, forcing).soc)
        deep = soc > 0
        panel.plot(soc[deep] / 1e3, clm5.grid.NODE[deep], label=f"{moved[i]:.3g} {clm5.PARAMETERS[i].unit.strip('1')}")
    panel.set(title=name, xlabel="soil organic carbon (kgC m⁻³)", xscale="log", xlim=(0.2, 200), ylim=(3, 0))
    panel.legend(loc="lower right")
panels[0].set_ylabel("depth (m)")
figure.savefig("the_column.png", dpi=120)
