"""`sample`: the posterior of 21 parameters at every site of a data set, in batches of sites, resumable."""

import os

import jax
import xarray as xr

from bayes.config import Config
from bayes.runs import Run, in_this_process


def sample(
    sites: xr.Dataset,
    config: Config | None = None,
    out: str | os.PathLike | None = None,
    seed: int = 0,
    resume: bool = True,
    progress: bool = True,
) -> xr.DataTree:
    """Posterior of every site by Hamiltonian Monte Carlo, NUTS by default, as a posterior file (docs/architecture.md).

    Every site is a problem of its own: nothing is shared between sites but the compiled program. Sites that miss
    R-hat < 1.01 or 400 effective draws are sampled again, longer and from other starts, `config.reruns` times at most;
    what still misses them is in the file like all others, and `bayes.verdict` and `bayes.unconverged` list it.

    Args:
        sites: a site data set, in memory or opened with `clm5.sites.open(path, lazy=True)`: it is read a batch at a
            time.
        config: settings, default `Config()`.
        out: folder for finished batches and `posterior.nc` or, with `store="zarr"`, `posterior.zarr`. A killed run that
            is started again with the same arguments goes on after its last finished batch and ends with the same draws.
        seed: of all draws. A site's draws depend on the seed and its id, not on its position or its neighbours.
            With another batch width or number of devices sums round differently, and chains part ways after some draws.
        resume: False refuses a folder that already holds a run.
        progress: show batches done and time left; silent where the output is not a terminal.

    Returns:
        A posterior file whose method is `config.sampler`, `sample_stats` (diverging, n_steps, energy, acceptance_rate,
        step_size, lp, and tree_depth of NUTS; chain, draw, site) and a group `diagnostics`: R-hat, effective sizes,
        Monte Carlo errors and quantiles of every estimate, from all draws (`bayes.summary`), and per site the `draws`
        they rest on, `attempts` made, the `attempt` whose draws are kept and whether it `converged`. Every site has
        as many draws in the file: longer attempts are thinned. With `keep="summary"` there are no draws. With
        `store="zarr"` the tree is opened lazily and memory holds one batch, whatever the number of sites.
        Its attributes count `n_gradients`, warm-up and all attempts included, and `n_solves`, the forward solves among
        them; work on empty places of the last batch is not counted. `wall_time_s` is the time in the sampler, summed
        over batches, and includes compiling; in a resumed run, also the batches of before. `free` names the sampled
        parameters, `fixed` the others with the physical values that they were held at.

    Raises:
        ValueError: for sites that do not fit the schema, for a site whose likelihood is nowhere finite (named), for
            an `out` that holds another run, and for a netCDF file that would not fit in memory.
        FileExistsError: `resume` is False and `out` holds a run.

    All work is done in float64, whatever the global setting.
    """
    config = Config() if config is None else config
    run = Run(sites, config, out, seed, resume=resume, devices=len(jax.devices()))
    return run.sample(in_this_process, progress)
