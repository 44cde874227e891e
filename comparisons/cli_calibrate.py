"""`binn calibrate`: is the sampler right over its whole prior? Simulation-based calibration."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from comparisons.cli_options import Model, Out, Sampler, Seed, refuse_existing, say
from comparisons.launch import Launch

DPI = 130


def calibrate(
    sites: Annotated[
        Path | None,
        Parameter(help="site file that lends forcing and depths of horizons; without it, virtual sites are made"),
    ] = None,
    *,
    out: Out,
    simulations: Annotated[int, Parameter(help="simulated sites, each sampled")] = 200,
    kept: Annotated[int, Parameter(help="nearly independent draws that the truth is ranked among")] = 99,
    free: Annotated[
        list[str] | None,
        Parameter(help="parameter that is free; give it again for more. Default: all 21", negative=""),
    ] = None,
    false_alarm: Annotated[float, Parameter(help="probability of any alarm if the sampler is right")] = 0.01,
    resume: Annotated[bool, Parameter(help="take up an interrupted run in --out")] = False,
    seed: Seed = 0,
    model: Model | None = None,
    sampler: Sampler | None = None,
    launch: Launch | None = None,
) -> None:
    """Test the sampler over its prior: draw parameters and data, sample, and rank the truth among the draws.

    Writes OUT/ranks.nc, OUT/uniformity.csv (a test per quantity) and OUT/ranks.png (histograms and ECDF bands).
    """
    if not 0 < false_alarm < 1:
        raise ValueError(f"--false-alarm must lie between 0 and 1, got {false_alarm:g}")
    if not resume:
        refuse_existing(out, hint="To take up an interrupted run there, add --resume.")
    (launch or Launch()).start()
    import dataclasses

    import bayes
    import clm5
    from clm5._atomic import write_atomically

    options = (model or Model()).options()
    config = (sampler or Sampler()).config(options)
    if free is not None:
        config = dataclasses.replace(config, free=tuple(free))
    if sites is None:
        lent = clm5.sites.virtual(simulations, seed=seed, bounds=options.bounds, rules=options.rules)
    else:
        lent = clm5.sites.open(sites, observations=True)
    ranks = bayes.calibrate(lent, config, simulations, seed=seed, kept=kept, out=out)
    table = bayes.uniformity(ranks, false_alarm)
    write_atomically(out / "uniformity.csv", lambda part: table.to_csv(part, float_format="%.6g"))
    write_atomically(out / "ranks.png", lambda part: bayes.plot_ranks(ranks, false_alarm).savefig(part, dpi=DPI))
    say(bayes.uniformity_verdict(ranks, false_alarm))
    say(f"tests: {out / 'uniformity.csv'}; figure: {out / 'ranks.png'}; ranks: {out / 'ranks.nc'}")
