"""The command `binn`. It parses, calls and prints; heavy imports wait inside the commands."""

import importlib.metadata
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from comparisons.cli_calibrate import calibrate
from comparisons.cli_options import (
    Draws,
    Model,
    Network,
    Only,
    Out,
    Sampler,
    Seed,
    SitesFile,
    open_hint,
    refuse_existing,
    say,
    some_sites,
)
from comparisons.cli_proda import proda
from comparisons.cli_recover import baselines, recover
from comparisons.cli_understanding import explain, sensitivity
from comparisons.launch import Launch

app = App(
    name="binn",
    help="Soil-carbon parameters two ways: a neural network trained through CLM5's soil column (BINN), and MCMC at "
    "every site. Compares them, and says whether either is right.",
    help_epilogue="Start with:  binn demo",
    version=lambda: importlib.metadata.version("binn-clm5"),
    suppress_keyboard_interrupt=False,
)
sites_app = App(name="sites", help="Make, convert and check site files.")
app.command(sites_app)
app.command(proda)
app.command(recover)
app.command(calibrate)
app.command(baselines)
app.command(explain)
app.command(sensitivity)


@app.command
def demo(*, out: Out = Path("binn-demo"), seed: Seed = 0, launch: Launch | None = None) -> None:
    """Run the whole chain on virtual sites with known parameters, in about three minutes, and write the report."""
    refuse_existing(out)
    (launch or Launch()).start()
    import clm5
    from comparisons.chain import Plan, run_chain
    from comparisons.demo import DEMO_SITES, demo_plan

    sites = clm5.sites.virtual(DEMO_SITES, seed=seed)
    say(f"{DEMO_SITES} virtual sites with known parameters, seed {seed}")
    plan: Plan = demo_plan(seed)
    outcome = run_chain(sites, plan, out, say=say)
    open_hint(outcome.page)


@app.command
def run(
    sites: SitesFile,
    *,
    out: Out,
    sampled: Annotated[int, Parameter(help="sites that MCMC runs on")] = 30,
    draws: Draws = 400,
    resume: Annotated[bool, Parameter(help="take up an interrupted run in --out")] = False,
    seed: Seed = 0,
    model: Model | None = None,
    network: Network | None = None,
    sampler: Sampler | None = None,
    launch: Launch | None = None,
) -> None:
    """Run the whole chain on a site file: train, sample, compare, report."""
    if not resume:
        refuse_existing(out, hint="To take up an interrupted run there, add --resume.")
    (launch or Launch()).start()
    import clm5
    from comparisons.chain import Plan, run_chain

    options, asked = (model or Model()).options(), network or Network()
    sampling = (sampler or Sampler()).config(options)
    plan = Plan(asked.config(options), sampling, sampled, draws, seed, asked.method)
    outcome = run_chain(clm5.sites.open(sites, observations=True), plan, out, say=say)
    open_hint(outcome.page)


@app.command
def train(
    sites: SitesFile,
    *,
    out: Out,
    draws: Draws = 400,
    store: Annotated[
        Literal["netcdf", "zarr"],
        Parameter(help="one file, made in memory; or a folder that is filled batch by batch, for any number of sites"),
    ] = "netcdf",
    resume: Annotated[bool, Parameter(help="take up an interrupted run in --out")] = False,
    seed: Seed = 0,
    model: Model | None = None,
    network: Network | None = None,
    launch: Launch | None = None,
) -> None:
    """Train a network on a site file and write its posterior, OUT/posterior.nc, and its course, OUT/history.png.

    With --store zarr the posterior is OUT/posterior.zarr.
    """
    if not resume:
        refuse_existing(out, hint="To take up an interrupted run there, add --resume.")
    (launch or Launch()).start()
    import binn
    import clm5
    from comparisons.chain import chosen_method, describe_draws, describe_training

    asked = network or Network()
    config = asked.config((model or Model()).options())
    method = chosen_method(config, asked.method)
    data = clm5.sites.open(sites, lazy=config.sites_in_memory > 0)
    trained = binn.fit(data, config, out=out, seed=seed)
    say(f"network trained: {describe_training(trained)}")
    path = out / ("posterior.zarr" if store == "zarr" else "posterior.nc")
    folder = path if store == "zarr" else None
    tree = binn.posterior(trained, data, draws=draws, method=method, seed=seed, out=folder)
    say(f"posterior, {describe_draws(tree)}: {path if folder else clm5.save_posterior(tree, path)}")


@app.command
def sample(
    sites: SitesFile,
    *,
    out: Out,
    only: Only = None,
    cluster: Annotated[
        str | None, Parameter(help="address of a dask scheduler whose workers sample, such as tcp://10.0.0.1:8786")
    ] = None,
    hierarchical: Annotated[
        bool, Parameter(help="all sites in one chain, their parameters pooled; for tens to a few hundred sites")
    ] = False,
    covariates: Annotated[
        list[str] | None,
        Parameter(help="with --hierarchical: pool by this numeric covariate; again for more", negative=""),
    ] = None,
    region: Annotated[str | None, Parameter(help="with --hierarchical: pool by this categorical covariate")] = None,
    resume: Annotated[bool, Parameter(help="take up an interrupted run in --out")] = False,
    seed: Seed = 0,
    model: Model | None = None,
    sampler: Sampler | None = None,
    launch: Launch | None = None,
) -> None:
    """Sample the posterior at every site of a site file by NUTS and write OUT/posterior.nc, or posterior.zarr.

    Sites that still miss R-hat < 1.01 or 400 effective draws in the end are listed, all of them in OUT/unconverged.csv.
    """
    if not resume:
        refuse_existing(out, hint="To take up an interrupted run there, add --resume.")
    if not hierarchical and (covariates or region):
        raise ValueError("--covariates and --region say how sites are pooled, by --hierarchical alone")
    if hierarchical and (cluster or resume):
        raise ValueError("--hierarchical is one chain over all sites: it takes neither --cluster nor --resume")
    (launch or Launch()).start()
    import bayes
    import clm5
    from clm5._atomic import write_atomically

    config = (sampler or Sampler()).config((model or Model()).options())
    data = some_sites(clm5.sites.open(sites, lazy=config.store == "zarr"), only, seed, sites)
    if hierarchical:
        pooled = bayes.HierarchicalConfig(config, tuple(covariates or ()), region)
        tree = bayes.sample_hierarchical(data, pooled, out=out, seed=seed)
    elif cluster is None:
        tree = bayes.sample(data, config, out=out, seed=seed)
    else:
        tree = bayes.sample_on(cluster, data, config, out=out, seed=seed)
    table = bayes.summary(tree)
    say(bayes.verdict(table))
    write_atomically(out / "unconverged.csv", lambda part: bayes.unconverged(table).to_csv(part, index=False))
    say(f"posterior: {out / ('posterior.zarr' if config.store == 'zarr' else 'posterior.nc')}")


@app.command
def compare(
    network: Annotated[Path, Parameter(help="posterior file of the network")],
    sampler: Annotated[Path, Parameter(help="posterior file of the sampler")],
    sites: SitesFile,
    *,
    out: Out = Path("report"),
    seed: Seed = 0,
) -> None:
    """Compare two posterior files on their common sites and write the report, OUT/index.html."""
    refuse_existing(out)
    import clm5
    import comparisons

    files = clm5.open_posterior(network), clm5.open_posterior(sampler), clm5.sites.open(sites)
    result = comparisons.compare(*files, seed=seed)
    page = comparisons.report(result, *files, out=out)
    say(comparisons.headline(result))
    open_hint(page)


@sites_app.command
def virtual(
    n: Annotated[int, Parameter(help="number of sites")] = 400,
    *,
    out: Out,
    seed: Seed = 0,
    bounds: Literal["binn", "proda"] = "binn",
    rules: Literal["conservative", "proda", "binn"] = "conservative",
    sigma: Annotated[float, Parameter(help="error of a measured horizon, of ln SOC")] = 0.2,
    launch: Launch | None = None,
) -> None:
    """Make virtual sites with known parameters."""
    refuse_existing(out)
    (launch or Launch()).start()
    import clm5

    data = clm5.sites.virtual(n, seed=seed, bounds=bounds, rules=rules, sigma=sigma)
    say(f"{n} virtual sites: {clm5.sites.save(data, out)}")


@sites_app.command
def convert(
    folder: Annotated[Path, Parameter(help="folder with profiles.csv, sites.csv and climate_monthly.csv")],
    *,
    out: Out,
    n_sites: Annotated[int | None, Parameter(help="keep a random subset of this many sites")] = None,
    box: Annotated[Literal["conus"] | None, Parameter(help="keep the contiguous US only")] = None,
    seed: Seed = 0,
) -> None:
    """Turn plain tables of soil profiles into a site file; forcing is made from climate normals (an approximation)."""
    refuse_existing(out)
    import clm5

    data = clm5.sites.from_tables(folder, n_sites=n_sites, seed=seed, box=box)
    say(data.attrs["history"])
    say(f"{data.sizes['site']} sites: {clm5.sites.save(data, out)}")


@sites_app.command
def check(sites: SitesFile) -> None:
    """Say everything that is wrong with a site file, or that it is fine."""
    import clm5

    data = clm5.sites.open(sites, observations=True)
    horizons = int(data.soc.notnull().sum())
    covariates = clm5.sites.covariate_names(data)
    say(
        f"{sites} is a valid site file: {data.sizes['site']} sites, {horizons} measured horizons, "
        f"{len(covariates)} covariates"
    )


def main(argv: list[str] | None = None) -> int:
    """Entry point: errors a user can mend are a message, not a traceback."""
    wanted: tuple[type[Exception], ...] = (
        ValueError,
        FileExistsError,
        FileNotFoundError,
        FloatingPointError,
        ImportError,
    )
    call: Callable = app
    try:
        call(sys.argv[1:] if argv is None else argv, result_action="return_value")
    except wanted as error:
        print(f"binn: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("binn: interrupted; `run`, `train` and `sample` go on from here with --resume", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
