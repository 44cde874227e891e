"""`binn proda`: the published Bayesian way, as published or mended, and its second stage at every site."""

from typing import Annotated

from cyclopts import Parameter

from comparisons.cli_options import Only, Out, Seed, SitesFile, refuse_existing, say, some_sites
from comparisons.launch import Launch


def proda(
    sites: SitesFile,
    *,
    out: Out,
    mended: Annotated[bool, Parameter(help="without its faults, instead of as published")] = False,
    only: Only = None,
    filters: Annotated[bool, Parameter(help="drop sites by Gelman-Rubin and R², as published")] = True,
    explore: Annotated[int, Parameter(help="steps of stage 1")] = 20_000,
    steps: Annotated[int, Parameter(help="steps of stage 2")] = 50_000,
    samples: Annotated[int, Parameter(help="draws that are kept, per chain")] = 1_000,
    batch: Annotated[int, Parameter(help="sites in one compiled program")] = 16,
    members: Annotated[
        int, Parameter(help="networks of the second stage, from covariates to posterior means at all sites; 0: none")
    ] = 0,
    epochs: Annotated[
        int, Parameter(help="most passes over their training sites; they stop after a fifth in vain")
    ] = 6_000,
    resume: Annotated[bool, Parameter(help="take up an interrupted run in --out")] = False,
    seed: Seed = 0,
    launch: Launch | None = None,
) -> None:
    """Sample by PRODA's adaptive Metropolis, with its bounds, rules and errors: OUT/posterior.nc, OUT/network.nc."""
    if not resume:
        refuse_existing(out, hint="To take up an interrupted run there, add --resume.")
    (launch or Launch()).start()
    import bayes
    import clm5

    data = clm5.sites.open(sites)
    chosen = some_sites(data, only, seed, sites)
    make = bayes.ProdaConfig.mended if mended else bayes.ProdaConfig
    config = make(explore=explore, steps=steps, draws=samples, batch=batch, filters=filters and not mended)
    tree = bayes.sample_proda(chosen, config, out=out, seed=seed)
    dropped = str(tree.attrs["filtered_out"]).split(",") if tree.attrs["filtered_out"] else []
    say(f"{tree['posterior'].sizes['site']} of {chosen.sizes['site']} sites kept")
    if dropped:
        say(f"  dropped by PRODA's filters: {', '.join(dropped[:20])}{' …' * (len(dropped) > 20)}")
    say(f"posterior: {out / 'posterior.nc'}")
    if members:
        settings = bayes.NetworkConfig(members=members, epochs=epochs, patience=max(1, epochs // 5))
        network = bayes.second_stage(tree, data, settings, seed=seed)
        say(f"second stage, {members} networks: {clm5.save_posterior(network, out / 'network.nc')}")
